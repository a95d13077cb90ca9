/* SPDX-License-Identifier: Apache-2.0 */
/* Rules for the whole public interface: names, versions, NULL arguments everywhere, and the form of messages. */
#include "support/cmocka_all.h"

#include <quern/quern.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void version(void **state) {
    char text[32];
    (void)state;
    assert_string_equal(qn_version(), QN_VERSION_STRING);
    snprintf(text, sizeof text, "%d.%d.%d", QN_VERSION_MAJOR, QN_VERSION_MINOR, QN_VERSION_PATCH);
    assert_string_equal(text, QN_VERSION_STRING);
}

static void statuses(void **state) {
    (void)state;
    int n = 0;
#define CHECK_STATUS(name, value, text)                                                                                \
    assert_int_equal(QN_##name, value);                                                                                \
    assert_string_equal(qn_status_name(QN_##name), #name);                                                             \
    assert_string_equal(qn_status_text(QN_##name), text);                                                              \
    assert_int_equal(value, -n);                                                                                       \
    n++;
    QN_STATUS_MAP(CHECK_STATUS)
#undef CHECK_STATUS
    assert_int_equal(n, 12);
    assert_string_equal(qn_status_name((qn_status)1), "?");
    assert_string_equal(qn_status_name((qn_status)-12), "?");
    assert_string_equal(qn_status_text((qn_status)99), "unknown status");
}

static void dtypes(void **state) {
    (void)state;
#define CHECK_DTYPE(name, value, bytes, text)                                                                          \
    assert_int_equal(QN_DTYPE_##name, value);                                                                          \
    assert_int_equal(qn_dtype_bytes(QN_DTYPE_##name), bytes);                                                          \
    assert_string_equal(qn_dtype_name(QN_DTYPE_##name), text);
    QN_DTYPE_MAP(CHECK_DTYPE)
#undef CHECK_DTYPE
    assert_int_equal(qn_dtype_bytes(QN_DTYPE_DEFAULT), 0);
    assert_int_equal(qn_dtype_bytes((qn_dtype)77), 0);
    assert_string_equal(qn_dtype_name((qn_dtype)77), "?");
}

static void names_of_devices(void **state) {
    (void)state;
    int n = 0;
    bool cpu = false, ref = false;
    for (; qn_backend_name(n) != NULL; n++) {
        cpu |= strcmp(qn_backend_name(n), "cpu") == 0;
        ref |= strcmp(qn_backend_name(n), "ref") == 0;
    }
    assert_true(cpu && ref && n >= 2);
    assert_null(qn_backend_name(n + 1));
    assert_null(qn_backend_name(-1));
    bool usable = false;
    assert_string_equal(qn_isa_name(0, &usable), "portable");
    assert_true(usable);
    assert_non_null(qn_isa_name(0, NULL));
    for (n = 0; qn_isa_name(n, &usable) != NULL; n++) {
        /* A level above the machine's best acts as a cap: the device opens anyway. */
        qn_device *device = NULL;
        qn_device_info info;
        assert_int_equal(
            qn_device_open(&device, "cpu", &(qn_device_options){.n_thread = 1, .isa = qn_isa_name(n, NULL)}, NULL),
            QN_OK);
        qn_device_get_info(device, &info);
        assert_string_equal(info.name, "cpu");
        assert_int_equal(info.n_thread, 1);
        if (n == 0) assert_string_equal(info.isa, "portable");
        qn_device_close(device);
    }
    assert_null(qn_isa_name(-1, NULL));
}

/* Every error has its status in both places and one nonempty line. */
static void expect(qn_status got, qn_status want, const qn_error *err) {
    if (got != want) fail_msg("%s, wanted %s: %s", qn_status_name(got), qn_status_name(want), err->message);
    assert_int_equal(err->status, want);
    assert_true(err->message[0] != '\0');
    assert_null(strchr(err->message, '\n'));
}
#define EXPECT_EINVAL(call)                                                                                            \
    do {                                                                                                               \
        err = (qn_error){0};                                                                                           \
        expect((call), QN_EINVAL, &err);                                                                               \
    } while (0)

static void null_is_einval(void **state) {
    (void)state;
    qn_error err = {0};
    qn_device *device = NULL;
    qn_generation *generation = NULL;
    qn_tensor *tensor = NULL;
    qn_model_config config;
    qn_plan plan;
    int64_t shape[1] = {4};
    bool stopped;
    int32_t id = 0;

    EXPECT_EINVAL(qn_device_open(NULL, "cpu", NULL, &err));
    assert_int_equal(qn_device_open(&device, "cpu", &(qn_device_options){.n_thread = 1}, &err), QN_OK);

    EXPECT_EINVAL(qn_tensor_create(NULL, device, QN_DTYPE_F32, 1, shape, &err));
    EXPECT_EINVAL(qn_tensor_create(&tensor, NULL, QN_DTYPE_F32, 1, shape, &err));
    EXPECT_EINVAL(qn_tensor_create(&tensor, device, QN_DTYPE_F32, 1, NULL, &err));
    EXPECT_EINVAL(qn_tensor_wrap(&tensor, device, NULL, &err));
    EXPECT_EINVAL(qn_tensor_view(&tensor, NULL, 0, 1, shape, &err));
    EXPECT_EINVAL(qn_tensor_write(NULL, shape, 8, &err));
    EXPECT_EINVAL(qn_tensor_read(NULL, shape, 8, &err));
    EXPECT_EINVAL(qn_tensor_file_open(NULL, "x", &err));
    EXPECT_EINVAL(qn_tensor_file_open((qn_tensor_file **)&tensor, NULL, &err));
    EXPECT_EINVAL(qn_tensor_file_read(&tensor, NULL, device, "x", &err));
    assert_null(tensor);

    EXPECT_EINVAL(qn_linear_pack(NULL, NULL, QN_LAYOUT_IN_OUT, QN_ARITH_F32, &err));
    EXPECT_EINVAL(qn_kv_attention(NULL, &err));
    EXPECT_EINVAL(qn_mlp(NULL, &err));
    EXPECT_EINVAL(qn_attention_residual(NULL, &err));
    EXPECT_EINVAL(qn_attention_block(NULL, &err));
    EXPECT_EINVAL(qn_layer(NULL, &err));
    EXPECT_EINVAL(qn_greedy(NULL, &err));
    EXPECT_EINVAL(qn_forward_greedy(NULL, &err));
    EXPECT_EINVAL(qn_layer(&(qn_layer_args){0}, &err));

    EXPECT_EINVAL(qn_model_read_config(NULL, "x", NULL, &err));
    EXPECT_EINVAL(qn_model_read_config(&config, NULL, NULL, &err));
    EXPECT_EINVAL(qn_model_plan(NULL, "x", NULL, &err));
    EXPECT_EINVAL(qn_model_plan(&plan, NULL, NULL, &err));
    EXPECT_EINVAL(qn_model_open(NULL, device, "x", NULL, &err));
    EXPECT_EINVAL(qn_model_open((qn_model **)&tensor, NULL, "x", NULL, &err));
    EXPECT_EINVAL(qn_model_open((qn_model **)&tensor, device, NULL, NULL, &err));

    EXPECT_EINVAL(qn_tokenizer_open(NULL, "x", &err));
    EXPECT_EINVAL(qn_tokenizer_open((qn_tokenizer **)&tensor, NULL, &err));
    EXPECT_EINVAL(qn_tokenizer_encode(NULL, &(qn_ids){0}, "x", 1, true, &err));
    EXPECT_EINVAL(qn_tokenizer_decode(NULL, &(qn_text){0}, &id, 1, true, &err));
    EXPECT_EINVAL(qn_decoder_create(NULL, NULL, true, &err));
    EXPECT_EINVAL(qn_decoder_push(NULL, &(qn_text){0}, 0, &err));
    EXPECT_EINVAL(qn_decoder_finish(NULL, &(qn_text){0}, &err));

    EXPECT_EINVAL(qn_chat_template_open(NULL, "x", &err));
    EXPECT_EINVAL(qn_chat_template_open((qn_chat_template **)&tensor, NULL, &err));
    EXPECT_EINVAL(qn_chat_template_open_file((qn_chat_template **)&tensor, NULL, NULL, &err));
    EXPECT_EINVAL(qn_chat_render(NULL, &(qn_prompt){0}, &(qn_chat_input){.messages = "[]"}, &err));
    EXPECT_EINVAL(qn_splitter_create(NULL, NULL, &err));
    EXPECT_EINVAL(qn_splitter_push(NULL, "x", 1, NULL, NULL, &stopped, &err));
    EXPECT_EINVAL(qn_splitter_finish(NULL, NULL, NULL, &err));

    EXPECT_EINVAL(qn_sampler_create(NULL, NULL, 4, 0, &err));
    EXPECT_EINVAL(qn_sampler_draw(NULL, &id, NULL, NULL, NULL, 0, 0, 0, &err));
    EXPECT_EINVAL(qn_sampler_logprobs(NULL, NULL, NULL, NULL, NULL, 0, 0, &err));

    EXPECT_EINVAL(qn_session_create(NULL, NULL, NULL, &err));
    EXPECT_EINVAL(qn_session_create((qn_session **)&tensor, NULL, NULL, &err));
    EXPECT_EINVAL(qn_session_sync(NULL, &id, 1, NULL, &err));
    EXPECT_EINVAL(qn_session_step(NULL, 0, &err));
    EXPECT_EINVAL(qn_session_append(NULL, &id, 1, NULL, NULL, &err));
    EXPECT_EINVAL(qn_session_append_batch(NULL, 1, &err));
    EXPECT_EINVAL(qn_session_rewind(NULL, 0, &err));
    EXPECT_EINVAL(qn_session_save(NULL, "x", &err));
    EXPECT_EINVAL(qn_session_restore(NULL, "x", &err));
    EXPECT_EINVAL(qn_session_read_kv(NULL, 0, 0, 0, NULL, NULL, &err));
    EXPECT_EINVAL(qn_generate(NULL, NULL, NULL, NULL, &err));
    EXPECT_EINVAL(qn_generation_create(NULL, NULL, NULL, NULL, &err));
    EXPECT_EINVAL(qn_generation_create(&generation, NULL, NULL, NULL, &err));
    EXPECT_EINVAL(qn_generation_next(NULL, NULL, &err));
    EXPECT_EINVAL(qn_generation_next_batch(NULL, 1, NULL, NULL, &err));
    EXPECT_EINVAL(qn_generation_next_batch(&generation, 1, &stopped, &err, &err));
    assert_null(tensor);

    /* Without an error struct the status is the same. */
    assert_int_equal(qn_layer(NULL, NULL), QN_EINVAL);
    assert_int_equal(qn_device_open(&device, "none", NULL, NULL), QN_EUNSUPPORTED);
    qn_device_close(device);
}

static void null_is_freed(void **state) {
    (void)state;
    qn_device_close(NULL);
    qn_tensor_free(NULL);
    qn_tensor_file_close(NULL);
    qn_linear_free(NULL);
    qn_model_close(NULL);
    qn_tokenizer_close(NULL);
    qn_decoder_free(NULL);
    qn_chat_template_close(NULL);
    qn_splitter_free(NULL);
    qn_sampler_free(NULL);
    qn_session_free(NULL);
    qn_text text = {0};
    qn_ids ids = {0};
    qn_text_release(&text);
    qn_ids_release(&ids);
    qn_text_release(NULL);
    qn_ids_release(NULL);
}

/* Functions that cannot fail treat NULL like an empty object. */
static void null_is_empty(void **state) {
    (void)state;
    assert_null(qn_tensor_device(NULL));
    assert_int_equal(qn_tensor_dtype(NULL), QN_DTYPE_DEFAULT);
    assert_int_equal(qn_tensor_rank(NULL), 0);
    assert_null(qn_tensor_shape(NULL));
    assert_int_equal(qn_tensor_bytes(NULL), 0);
    assert_null(qn_tensor_file_name(NULL, 0));
    assert_null(qn_tensor_file_metadata(NULL, "x"));
    assert_int_equal(qn_linear_n_in(NULL), 0);
    assert_int_equal(qn_linear_n_out(NULL), 0);
    assert_int_equal(qn_linear_bytes(NULL), 0);
    assert_int_equal(qn_linear_dtype(NULL), QN_DTYPE_DEFAULT);
    assert_int_equal(qn_linear_arith(NULL), QN_ARITH_AUTO);
    assert_null(qn_model_get_config(NULL));
    assert_null(qn_model_device(NULL));
    assert_int_equal(qn_model_arith(NULL), QN_ARITH_AUTO);
    assert_int_equal(qn_tokenizer_n_vocab(NULL), 0);
    assert_int_equal(qn_tokenizer_id(NULL, "x"), -1);
    assert_false(qn_tokenizer_is_special(NULL, 0));
    assert_false(qn_chat_starts_reasoning(NULL, 0, NULL, 0));
    assert_int_equal(qn_session_n_ctx(NULL), 0);
    assert_int_equal(qn_session_n_tok(NULL), 0);
    assert_null(qn_session_ids(NULL));
    assert_null(qn_session_model(NULL));
    assert_null(qn_session_logits(NULL));
}

/* Invalid UTF-8 and control characters beyond ASCII are kept out of messages too. */
static void messages_are_utf8(void **state) {
    (void)state;
    static const struct {
        const char *path, *shown;
    } cases[] = {
        {"a\xFF\x80", "a??"},
        {"\xC3", "?"},
        {"\xE2\x82", "??"},
        {"\xE2\x82\xAC", "\xE2\x82\xAC"},
        {"\xED\xA0\x80", "???"},
        {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"},
        {"\xF4\x90\x80\x80", "????"},
        {"\xC0\xAF", "??"},
        {"\xC2\x9B"
         "1m",
         "??1m"},
        {"\xC2\xA0", "\xC2\xA0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        qn_error err = {0};
        qn_model_config config;
        char want[64];
        expect(qn_model_read_config(&config, cases[i].path, NULL, &err), QN_EIO, &err);
        snprintf(want, sizeof want, "%s/config.json: No such file or directory", cases[i].shown);
        assert_string_equal(err.message, want);
    }
}

/* Untrusted names in messages: one line, no control characters, never cut inside a character. */
static void messages_are_lines(void **state) {
    (void)state;
    char path[1200] = "no\n such\x1B[31m\x7F/";
    for (size_t n = strlen(path), i = 0; i < 300; i++, n += 3) memcpy(path + n, "\xE4\xBD\xA0", 4);
    for (size_t skip = 0; skip < 4; skip++) {
        qn_error err = {0};
        qn_tokenizer *tokenizer = NULL;
        expect(qn_tokenizer_open(&tokenizer, path + skip, &err), QN_EIO, &err);
        size_t n = strlen(err.message);
        assert_true(n > 200 && n < sizeof err.message);
        for (size_t i = 0; i < n; i++) assert_true((unsigned char)err.message[i] >= 0x20 && err.message[i] != 0x7F);
        const char *last = err.message + n - 1;
        while (((unsigned char)*last & 0xC0) == 0x80) last--;
        unsigned char lead = (unsigned char)*last;
        size_t want = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        assert_int_equal(err.message + n - last, want);
        /* However long the name, the message begins with it and ends with the error. */
        assert_memory_equal(err.message, "no? such?[31m?/" + skip, 15 - skip);
        assert_non_null(strstr(err.message, "\xE4\xBD\xA0…\xE4\xBD\xA0"));
        assert_non_null(strstr(err.message, "/tokenizer.json: No such file or directory"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version),          cmocka_unit_test(statuses),          cmocka_unit_test(dtypes),
        cmocka_unit_test(names_of_devices), cmocka_unit_test(null_is_einval),    cmocka_unit_test(null_is_freed),
        cmocka_unit_test(null_is_empty),    cmocka_unit_test(messages_are_utf8), cmocka_unit_test(messages_are_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
