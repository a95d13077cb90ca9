/* SPDX-License-Identifier: Apache-2.0 */
/* Safetensors files: the contents of a valid one, and the rejection of every malformed one with its reason. */
#include "../src/format/safetensors.h"
#include "support/cmocka_all.h"
#include "support/files.h"

#include <quern/tensor.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *dir;

static int setup(void **state) {
    (void)state;
    dir = files_make_dir();
    return 0;
}
static int teardown(void **state) {
    (void)state;
    files_remove_dir(dir);
    return 0;
}

/* A file from its parts: the stated header length, the header's text, n_data bytes of data. */
static char *write_parts(uint64_t claimed, const char *header, size_t n_data) {
    size_t n = strlen(header);
    unsigned char *data = calloc(8 + n + n_data, 1);
    assert_non_null(data);
    for (int i = 0; i < 8; i++) data[i] = (unsigned char)(claimed >> (8 * i));
    memcpy(data + 8, header, n);
    for (size_t i = 0; i < n_data; i++) data[8 + n + i] = (unsigned char)i;
    files_write(dir, "t.safetensors", data, 8 + n + n_data);
    free(data);
    return files_path(dir, "t.safetensors");
}

static void refuse_path(const char *path, qn_status status, const char *why) {
    qn_error err = {0};
    qn_tensor_file *file = (qn_tensor_file *)&err;
    assert_int_equal(qn_tensor_file_open(&file, path, &err), status);
    assert_ptr_equal(file, &err); /* outputs are unchanged */
    assert_int_equal(err.status, status);
    if (strstr(err.message, why) == NULL) fail_msg("\"%s\" lacks \"%s\"", err.message, why);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(qn_tensor_file_open(&file, path, NULL), status);
}

static void refuse(const char *header, size_t n_data, const char *why) {
    char *path = write_parts(strlen(header), header, n_data);
    refuse_path(path, QN_EFORMAT, why);
    free(path);
}

static void accepts_valid_files(void **state) {
    (void)state;
    static const char *const sound[] = {
        "{}",
        "{}      ",
        "{\"__metadata__\":{\"a\":\"b\"}}",
        "{\"x\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
        "{\"y\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[1,4]},"
        "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
        "\"empty\":{\"dtype\":\"F32\",\"shape\":[5,0],\"data_offsets\":[1,1]}}",
        "{\"x\":{\"dtype\":\"F4\",\"shape\":[4,2],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,1,1,1,1,1,2,2],\"data_offsets\":[0,4]}}",
        "{\"x\":{\"dtype\":\"F16\",\"shape\":[0,9223372036854775807,9223372036854775807],\"data_offsets\":[0,0]}}",
    };
    static const size_t n_data[] = {0, 0, 0, 4, 4, 4, 4, 0};
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
        char *path = write_parts(strlen(sound[i]), sound[i], n_data[i]);
        qn_tensor_file *file = NULL;
        qn_error err = {0};
        if (qn_tensor_file_open(&file, path, &err) != QN_OK) fail_msg("%s: %s", sound[i], err.message);
        qn_tensor_file_close(file);
        free(path);
    }
}

#define ENTRY(dtype, shape, offsets) "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void refuses_a_bad_header(void **state) {
    (void)state;
    refuse("", 0, "must be a JSON object");
    refuse(" {}", 0, "must be a JSON object");
    refuse("[]", 0, "must be a JSON object");
    refuse("null", 0, "must be a JSON object");
    refuse("{", 0, "line 1");
    refuse("{} x", 0, "line 1");
    refuse("{\"x\":1}", 0, "tensor x: must be an object");
    refuse("{\"__metadata__\":[]}", 0, "__metadata__ must be an object");
    refuse("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__: \"a\" must be a string");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
           "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
           1, "duplicate");
    refuse("{\"x\":{}}", 0, "must have dtype, shape and data_offsets alone");
    refuse("{\"x\":{\"dtype\":\"U8\",\"shape\":[],\"other\":[0,1]}}", 1, "data_offsets must be two integers");
    refuse("{\"x\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"other\":1}}", 1, "alone");
    refuse("{}", 1, "1 bytes at the end belong to no tensor");
    char *deep = calloc(1, 5 * 200 + 2);
    for (int i = 0; i < 200; i++) memcpy(deep + 5 * i, "{\"a\":", 5);
    refuse(deep, 0, "nests deeper than 128");
    free(deep);
}

static void refuses_a_bad_tensor(void **state) {
    (void)state;
    refuse(ENTRY("7", "[1]", "[0,1]"), 1, "dtype must be a string");
    refuse(ENTRY("\"Q4\"", "[1]", "[0,1]"), 1, "unknown dtype \"Q4\"");
    refuse(ENTRY("\"\"", "[1]", "[0,1]"), 1, "unknown dtype \"\"");
    refuse(ENTRY("\"f32\"", "[1]", "[0,4]"), 4, "unknown dtype \"f32\"");
    refuse(ENTRY("\"U8\"", "1", "[0,1]"), 1, "shape must be a list");
    refuse(ENTRY("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "rank 9, at most 8");
    refuse(ENTRY("\"U8\"", "[-1,-1]", "[0,1]"), 1, "must be integers >= 0");
    refuse(ENTRY("\"U8\"", "[1.0]", "[0,1]"), 1, "must be integers >= 0");
    refuse(ENTRY("\"U8\"", "[true]", "[0,1]"), 1, "must be integers >= 0");
    refuse(ENTRY("\"U8\"", "[9223372036854775808]", "[0,1]"), 1, "too large");
    refuse(ENTRY("\"U8\"", "[1]", "[0,99999999999999999999]"), 1, "data_offsets holds too large a number");
    refuse(ENTRY("\"U8\"", "[4294967296,4294967296]", "[0,0]"), 0, "overflows");
    refuse(ENTRY("\"U8\"", "[4611686018427387904,4]", "[0,0]"), 0, "overflows");
    refuse(ENTRY("\"F64\"", "[2305843009213693952]", "[0,0]"), 0, "overflows");
    refuse(ENTRY("\"F4\"", "[3]", "[0,1]"), 1, "whole byte");
    refuse(ENTRY("\"U8\"", "[1]", "\"x\""), 1, "data_offsets must be two integers");
    refuse(ENTRY("\"U8\"", "[1]", "[0]"), 1, "data_offsets must be two integers");
    refuse(ENTRY("\"U8\"", "[1]", "[0,1,2]"), 1, "data_offsets must be two integers");
    refuse(ENTRY("\"U8\"", "[1]", "[0.0,1]"), 1, "data_offsets must be two integers");
    refuse(ENTRY("\"U8\"", "[1]", "[-1,0]"), 1, "[-1, 0] outside the 1 bytes");
    refuse(ENTRY("\"U8\"", "[1]", "[1,0]"), 1, "[1, 0] outside the 1 bytes");
    refuse(ENTRY("\"U8\"", "[2]", "[0,2]"), 1, "[0, 2] outside the 1 bytes");
    refuse(ENTRY("\"U8\"", "[1]", "[0,4611686018427387904]"), 1, "outside the 1 bytes");
    refuse(ENTRY("\"F32\"", "[2,3]", "[0,20]"), 20, "F32 {2, 3} takes 24 bytes, data_offsets give 20");
    refuse(ENTRY("\"U8\"", "[0]", "[0,1]"), 1, "U8 {0} takes 0 bytes, data_offsets give 1");
    refuse(ENTRY("\"U8\"", "[]", "[0,0]"), 0, "U8 {} takes 1 bytes, data_offsets give 0");
}

static void refuses_gaps_and_overlaps(void **state) {
    (void)state;
    refuse(ENTRY("\"U8\"", "[1]", "[1,2]"), 2, "1 bytes before tensor x belong to no tensor");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
           3, "tensor b overlaps tensor a");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}",
           5, "1 bytes before tensor b belong to no tensor");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
           "\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}",
           2, "tensor e overlaps tensor a");
    refuse(ENTRY("\"U8\"", "[1]", "[0,1]"), 3, "2 bytes at the end belong to no tensor");
}

static void refuses_a_bad_length(void **state) {
    (void)state;
    static const struct {
        uint64_t claimed;
        const char *why;
    } cases[] = {
        {UINT64_MAX, "a header of 18446744073709551615 bytes, at most 100000000"},
        {UINT64_C(1) << 63, "at most 100000000"},
        {100000001, "a header of 100000001 bytes, at most 100000000"},
        {100000000, "a header of 100000000 bytes in a file of 10"},
        {3, "a header of 3 bytes in a file of 10"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path = write_parts(cases[i].claimed, "{}", 0);
        refuse_path(path, QN_EFORMAT, cases[i].why);
        free(path);
    }
    for (size_t n = 0; n < 8; n++) {
        files_write(dir, "t.safetensors", "\0\0\0\0\0\0\0\0", n);
        char *path = files_path(dir, "t.safetensors");
        refuse_path(path, QN_EFORMAT, n > 0 ? "too few for a safetensors file" : "is empty");
        free(path);
    }
}

static void refuses_non_files(void **state) {
    (void)state;
    char *path = files_path(dir, "absent");
    refuse_path(path, QN_EIO, "No such file");
    free(path);
    refuse_path(dir, QN_EIO, "Is a directory");
    qn_error err = {0};
    qn_tensor_file *file = NULL;
    assert_int_equal(qn_tensor_file_open(&file, NULL, &err), QN_EINVAL);
    assert_int_equal(qn_tensor_file_open(NULL, dir, &err), QN_EINVAL);
    assert_null(qn_tensor_file_name(NULL, 0));
    assert_null(qn_tensor_file_metadata(NULL, "a"));
    qn_tensor_file_close(NULL);
}

/* Truncating a real file anywhere, or flipping any byte of its header, gives an error or a valid file, never a
 * crash. */
static void survives_damage(void **state) {
    (void)state;
    size_t n = 0;
    char *data = files_read("tests/data/models/tied-f32/model.safetensors", &n);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | (unsigned char)data[i];
    char *path = files_path(dir, "t.safetensors");
    for (size_t cut = 0; cut < n; cut += cut < header ? 61 : 4999) {
        files_write(dir, "t.safetensors", data, cut);
        refuse_path(path, QN_EFORMAT, "t.safetensors");
    }
    uint32_t random = 1;
    size_t head = 8 + (size_t)header, refused = 0;
    enum { FLIPS = 2000 };
    for (int i = 0; i < FLIPS; i++) {
        random = random * 1664525u + 1013904223u;
        size_t at = (random >> 8) % head;
        char before = data[at];
        data[at] = (char)(before ^ (1 << (random & 7)));
        files_write(dir, "t.safetensors", data, n);
        qn_tensor_file *file = NULL;
        qn_error err = {0};
        qn_status status = qn_tensor_file_open(&file, path, &err);
        refused += status != QN_OK;
        assert_true(status == QN_OK || (status == QN_EFORMAT && file == NULL));
        qn_tensor_file_close(file);
        data[at] = before;
    }
    assert_true(refused > FLIPS / 4); /* the others hit names and metadata */
    free(path);
    free(data);
}

static void lists_names_and_metadata(void **state) {
    (void)state;
    static const char header[] = "{\"b\":{\"dtype\":\"I64\",\"shape\":[2,1],\"data_offsets\":[0,16]},"
                                 "\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[16,17]},"
                                 "\"__metadata__\":{\"format\":\"pt\"}}   ";
    char *path = write_parts(strlen(header), header, 17);
    qn_tensor_file *file = NULL;
    assert_int_equal(qn_tensor_file_open(&file, path, NULL), QN_OK);
    assert_string_equal(qn_tensor_file_name(file, 0), "a");
    assert_string_equal(qn_tensor_file_name(file, 1), "b");
    assert_null(qn_tensor_file_name(file, 2));
    assert_null(qn_tensor_file_name(file, SIZE_MAX));
    assert_string_equal(qn_tensor_file_metadata(file, "format"), "pt");
    assert_null(qn_tensor_file_metadata(file, "a"));
    qn_tensor_file_close(file);

    qni_safetensors st;
    assert_int_equal(qni_safetensors_open(&st, path, NULL), QN_OK);
    const qni_st_tensor *b = qni_safetensors_find(&st, "b");
    assert_non_null(b);
    assert_int_equal(b->dtype, QNI_ST_I64);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->bytes, 16);
    assert_int_equal(b->offset, 8 + strlen(header));
    assert_string_equal(qni_st_shape_text(b).text, "{2, 1}");
    assert_null(qni_safetensors_find(&st, "__metadata__"));
    assert_null(qni_safetensors_find(&st, "c"));
    /* The file shrinks while open: the read fails and reports where the file ended. */
    assert_int_equal(truncate(path, (off_t)(8 + strlen(header) + 3)), 0);
    unsigned char bytes[16];
    qn_error err = {0};
    assert_int_equal(qni_file_read(&st.file, bytes, b->offset, 16, &err), QN_EFORMAT);
    assert_non_null(strstr(err.message, "where more was expected"));
    qni_safetensors_close(&st);
    qni_safetensors_close(&st);
    free(path);
}

/* Tensors on a device, against the bytes of the file; one is larger than the read chunks. */
static void reads_onto_a_device(void **state) {
    (void)state;
    enum { N_LONG = 700001, SMALL = 8 + 16 + 4 + 4 + 2 + 2 + 1 };
    static const char format[] = "{\"i64\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                                 "\"f32\":{\"dtype\":\"F32\",\"shape\":[2,1,2,1],\"data_offsets\":[8,24]},"
                                 "\"i32\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[24,28]},"
                                 "\"u32\":{\"dtype\":\"U32\",\"shape\":[1],\"data_offsets\":[28,32]},"
                                 "\"f16\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[32,34]},"
                                 "\"bf16\":{\"dtype\":\"BF16\",\"shape\":[1,1],\"data_offsets\":[34,36]},"
                                 "\"u8\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[36,37]},"
                                 "\"none\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[37,37]},"
                                 "\"deep\":{\"dtype\":\"F32\",\"shape\":[0,1,1,1,1],\"data_offsets\":[37,37]},"
                                 "\"long\":{\"dtype\":\"F16\",\"shape\":[%d],\"data_offsets\":[37,%d]}}";
    char header[1024];
    snprintf(header, sizeof header, format, N_LONG, SMALL + 2 * N_LONG);
    char *path = write_parts(strlen(header), header, SMALL + 2 * N_LONG);
    qn_device *device = NULL;
    qn_tensor_file *file = NULL;
    assert_int_equal(qn_device_open(&device, "ref", NULL, NULL), QN_OK);
    assert_int_equal(qn_tensor_file_open(&file, path, NULL), QN_OK);
    static const struct {
        const char *name;
        qn_dtype dtype;
        int32_t rank;
        int64_t first; /* size of axis 0 */
        size_t offset, bytes;
    } tensors[] = {
        {"i64", QN_DTYPE_S64, 1, 1, 0, 8},
        {"f32", QN_DTYPE_F32, 4, 2, 8, 16},
        {"i32", QN_DTYPE_S32, 1, 1, 24, 4},
        {"u32", QN_DTYPE_U32, 1, 1, 28, 4},
        {"f16", QN_DTYPE_F16, 1, 1, 32, 2},
        {"bf16", QN_DTYPE_BF16, 2, 1, 34, 2},
        {"long", QN_DTYPE_F16, 1, N_LONG, SMALL, 2 * (size_t)N_LONG},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        qn_tensor *tensor = NULL;
        assert_int_equal(qn_tensor_file_read(&tensor, file, device, tensors[i].name, NULL), QN_OK);
        assert_int_equal(qn_tensor_dtype(tensor), tensors[i].dtype);
        assert_int_equal(qn_tensor_rank(tensor), tensors[i].rank);
        assert_int_equal(qn_tensor_shape(tensor)[0], tensors[i].first);
        assert_int_equal(qn_tensor_bytes(tensor), tensors[i].bytes);
        unsigned char *got = malloc(tensors[i].bytes);
        assert_int_equal(qn_tensor_read(tensor, got, tensors[i].bytes, NULL), QN_OK);
        for (size_t k = 0; k < tensors[i].bytes; k++) {
            if (got[k] != (unsigned char)(tensors[i].offset + k)) fail_msg("%s: byte %zu", tensors[i].name, k);
        }
        free(got);
        qn_tensor_free(tensor);
    }
    static const struct {
        const char *name;
        qn_status status;
        const char *why;
    } refused[] = {
        {"absent", QN_EINVAL, "no tensor absent"},
        {"u8", QN_EUNSUPPORTED, "tensor u8: dtype U8 cannot be read"},
        {"none", QN_EUNSUPPORTED, "tensor none has no elements"},
        {"deep", QN_EUNSUPPORTED, "tensor deep: rank 5, at most 4"},
        {NULL, QN_EINVAL, "NULL"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        qn_error err = {0};
        qn_tensor *tensor = NULL;
        assert_int_equal(qn_tensor_file_read(&tensor, file, device, refused[i].name, &err), refused[i].status);
        assert_non_null(strstr(err.message, refused[i].why));
        assert_null(tensor);
    }
    /* The file shrinks: an error, and nothing is returned. */
    assert_int_equal(truncate(path, 1000000), 0);
    qn_tensor *tensor = NULL;
    assert_int_equal(qn_tensor_file_read(&tensor, file, device, "long", NULL), QN_EFORMAT);
    assert_null(tensor);
    qn_tensor_file_close(file);
    qn_device_close(device);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_valid_files),  cmocka_unit_test(refuses_a_bad_header),
        cmocka_unit_test(refuses_a_bad_tensor), cmocka_unit_test(refuses_gaps_and_overlaps),
        cmocka_unit_test(refuses_a_bad_length), cmocka_unit_test(refuses_non_files),
        cmocka_unit_test(survives_damage),      cmocka_unit_test(lists_names_and_metadata),
        cmocka_unit_test(reads_onto_a_device),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
