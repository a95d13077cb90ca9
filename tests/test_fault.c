/* SPDX-License-Identifier: Apache-2.0 */
/* Makes every allocation fail once: the n-th alone, and the n-th with all that follow, for n = 1, 2, … until a run
 * needs no more. Each run must end in success or in QN_ENOMEM with a message, without leaks. The malloc of
 * fault/malloc.c counts allocations, including those of Jansson, PCRE2, utf8proc and the C library; so this test
 * does nothing in sanitizer builds. */
#include "../src/base/json.h"
#include "fault/malloc.h"
#include "support/cmocka_all.h"
#include "support/files.h"
#include "support/small_model.h"

#include <quern/quern.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A scenario creates objects, uses them and frees them, wherever it fails. */
typedef qn_status (*scenario)(qn_error *err);

static char *model_dir;
static char *session_path;
static char *quantized_dir;

/* n grows by one at first, later by 1/grain of itself, because some scenarios make many thousand allocations. */
static void sweep(const char *name, scenario run, fault_mode mode, long grain) {
    qn_error err = {0};
    for (int warm = 0; warm < 2; warm++) { /* what the C library allocates once and keeps is not a leak */
        if (run(&err) != QN_OK) fail_msg("%s: %s", name, err.message);
    }
    long before = fault_live();
    for (long n = 1;; n += 1 + n / grain) {
        err = (qn_error){0};
        fault_arm(n, mode);
        qn_status status = run(&err);
        bool refused = fault_disarm();
        if (fault_live() != before) {
            fail_msg("%s: %ld blocks leak when allocation %ld fails (%s: %s)", name, fault_live() - before, n,
                     qn_status_name(status), err.message);
        }
        if (status != QN_OK && (status != QN_ENOMEM || err.status != status || err.message[0] == '\0')) {
            fail_msg("%s: allocation %ld fails: %s: \"%s\"", name, n, qn_status_name(status), err.message);
        }
        if (!refused) {
            assert_int_equal(status, QN_OK);
            break;
        }
    }
}

static void sweep_both(const char *name, scenario run, long grain) {
    if (fault_arm == NULL) skip();
    sweep(name, run, FAULT_ONE, grain);
    sweep(name, run, FAULT_FROM, grain);
}

static int make_files(void **state) {
    (void)state;
    model_dir = small_model_make();
    session_path = files_path(model_dir, "timeline.session");
    quantized_dir = files_make_dir();
    return 0;
}

static int remove_files(void **state) {
    (void)state;
    free(session_path);
    files_remove_dir(model_dir);
    files_remove_dir(quantized_dir);
    return 0;
}

/* The C library's own allocations use this malloc, so those of all shared libraries do. */
static void in_place(void **state) {
    (void)state;
    if (fault_arm == NULL) skip();
    long before = fault_live();
    char *copy = strdup("shared");
    assert_non_null(copy);
    assert_int_equal(fault_live(), before + 1);
    free(copy);
    assert_int_equal(fault_live(), before);
    fault_arm(1, FAULT_ONE);
    copy = strdup("shared");
    assert_true(fault_disarm());
    assert_null(copy);
}

static qn_status open_device(const char *name, int32_t n_thread, qn_error *err) {
    qn_device_options options = {.n_thread = n_thread};
    qn_device *device = NULL;
    qn_status status = qn_device_open(&device, name, &options, err);
    qn_device_close(device);
    return status;
}

static qn_status run_cpu(qn_error *err) {
    return open_device("cpu", 1, err);
}
static qn_status run_threads(qn_error *err) {
    return open_device("cpu", 3, err);
}
static qn_status run_ref(qn_error *err) {
    return open_device("ref", 1, err);
}

static void devices(void **state) {
    (void)state;
    sweep_both("cpu", run_cpu, 1000);
    sweep_both("cpu, 3 threads", run_threads, 1000);
    sweep_both("ref", run_ref, 1000);
}

/* Jansson alone drops a byte of a long token when its buffer cannot grow, and reports a text that it cannot allocate
 * as not being a text. */
static qn_status parse_json(qn_error *err) {
    static const char text[] = "{\"a key that is longer than any small buffer\": 3.1415926535897932384626, \"a\": "
                               "[1e999, \"text\", 18446744073709551616], \"b\": {\"c\": \"text\"}}";
    json_t *root = NULL;
    qn_status status = qni_json_parse(&root, "text", text, sizeof text - 1, err);
    if (status == QN_OK) {
        double pi = json_real_value(json_object_get(root, "a key that is longer than any small buffer"));
        assert_true(pi > 3.14159265358979 && pi < 3.1415926535898);
        assert_string_equal(qni_json_big(json_array_get(json_object_get(root, "a"), 2)), "18446744073709551616");
        char *printed = qni_json_print(root, JSON_REAL_PRECISION(17));
        if (printed == NULL) status = qni_fail(err, QN_ENOMEM, "no memory to print");
        free(printed);
    }
    json_decref(root);
    return status;
}

static void json(void **state) {
    (void)state;
    sweep_both("json", parse_json, 1000);
}

static qn_status open_model(const char *dir, int32_t n_thread, qn_error *err) {
    qn_device_options options = {.n_thread = n_thread};
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_status status = qn_device_open(&device, "cpu", &options, err);
    if (status == QN_OK) status = qn_model_open(&model, device, dir, NULL, err);
    qn_device_close(device);
    qn_model_close(model);
    return status;
}

static qn_status run_model(qn_error *err) {
    return open_model(model_dir, 1, err);
}
static qn_status run_model_threads(qn_error *err) {
    return open_model(model_dir, 3, err);
}
static qn_status run_shards(qn_error *err) {
    return open_model("tests/data/models/untied-bf16-sharded", 1, err);
}
static qn_status run_demo_model(qn_error *err) {
    return open_model("models/demo", 2, err);
}
static qn_status run_quantized(qn_error *err) {
    qn_status status = open_model("tests/data/quantized/mlx-mixed-2-6-8", 2, err);
    return status == QN_OK ? open_model("tests/data/quantized/fp8-block128", 1, err) : status;
}
static qn_status run_quantize(qn_error *err) {
    const qn_quantize_options options = {.to = QN_QUANTIZE_Q4, .n_thread = 2, .shard_bytes = 100000};
    return qn_model_quantize(quantized_dir, model_dir, &options, err);
}
static qn_status run_quantize_at_load(qn_error *err) {
    const qn_model_options options = {.quantize = QN_QUANTIZE_Q4};
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_status status = qn_device_open(&device, "cpu", NULL, err);
    if (status == QN_OK) status = qn_model_open(&model, device, model_dir, &options, err);
    qn_device_close(device);
    qn_model_close(model);
    return status;
}
static qn_status run_plan(qn_error *err) {
    qn_model_config config;
    qn_plan plan;
    qn_status status = qn_model_read_config(&config, "tests/data/models/yarn-bf16", NULL, err);
    if (status == QN_OK) status = qn_model_plan(&plan, "tests/data/models/new-config-bf16", NULL, err);
    return status;
}

static void models(void **state) {
    (void)state;
    sweep_both("model", run_model, 300);
    sweep_both("model, 3 threads", run_model_threads, 100);
    sweep_both("shards", run_shards, 100);
    sweep_both("demo model", run_demo_model, 30);
    sweep_both("quantized", run_quantized, 60);
    sweep_both("quantize", run_quantize, 100);
    sweep_both("quantize at load", run_quantize_at_load, 100);
    sweep_both("plan", run_plan, 300);
}

/* Encoding, decoding and a stream of pieces; a failed call leaves its output unchanged. */
static qn_status use_tokenizer(const qn_tokenizer *tokenizer, qn_error *err) {
    static const char text[] =
        "<|im_start|>Then the thin man can sing in the rain,\n\n  e\xCC\x81 12345 \xF0\x9F\x90\xB6!<|im_end|>";
    qn_ids ids = {0};
    qn_text out = {0};
    qn_decoder *decoder = NULL;
    qn_status status = qn_tokenizer_encode(tokenizer, &ids, "first", 5, true, err);
    size_t n_before = ids.size;
    if (status == QN_OK && (status = qn_tokenizer_encode(tokenizer, &ids, text, sizeof text - 1, true, err)) != QN_OK) {
        assert_int_equal(ids.size, n_before);
    }
    if (status == QN_OK) status = qn_tokenizer_decode(tokenizer, &out, ids.data, ids.size, false, err);
    if (status == QN_OK) status = qn_decoder_create(&decoder, tokenizer, true, err);
    for (size_t i = 0; status == QN_OK && i < ids.size; i++) {
        size_t before = out.size;
        status = qn_decoder_push(decoder, &out, ids.data[i], err);
        if (status != QN_OK) assert_int_equal(out.size, before);
    }
    if (status == QN_OK) status = qn_decoder_finish(decoder, &out, err);
    qn_decoder_free(decoder);
    qn_text_release(&out);
    qn_ids_release(&ids);
    return status;
}

static qn_status open_tokenizer(const char *dir, qn_error *err) {
    qn_tokenizer *tokenizer = NULL;
    qn_status status = qn_tokenizer_open(&tokenizer, dir, err);
    if (status == QN_OK) status = use_tokenizer(tokenizer, err);
    qn_tokenizer_close(tokenizer);
    return status;
}

static qn_status run_tokenizer(qn_error *err) {
    return open_tokenizer(model_dir, err);
}
static qn_status run_demo_tokenizer(qn_error *err) {
    return open_tokenizer("models/demo", err);
}

static void tokenizers(void **state) {
    (void)state;
    sweep_both("tokenizer", run_tokenizer, 500);
    sweep_both("demo tokenizer", run_demo_tokenizer, 20);
}

static qn_status render(const char *dir, qn_error *err) {
    static const char messages[] =
        "[{\"role\":\"system\",\"content\":\"Be kind.\"},{\"role\":\"user\",\"content\":[{\"type\":"
        "\"text\",\"text\":\"Hi\"}]},{\"role\":\"assistant\",\"content\":null,\"reasoning\":\"r\",\"name\":null,"
        "\"tool_calls\":[{\"function\":{\"name\":\"w\",\"arguments\":{\"c\":\"x\",\"n\":[1,2.5,null]}}},{\"function\":"
        "{\"name\":\"v\",\"arguments\":\"{\\\"a\\\":99999999999999999999}\"}}]},{\"role\":"
        "\"tool\",\"content\":\"42\"},{\"role\":\"user\",\"content\":\"And?\"}]";
    static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"w\",\"parameters\":{\"a\":1e-5}}}]";
    qn_chat_template *chat_template = NULL;
    qn_prompt prompt = {0};
    qn_chat_input input = {.messages = messages,
                           .tools = tools,
                           .tools_size = sizeof tools - 1,
                           .documents = "[{\"text\": \"d\"}]",
                           .continue_final_message = true,
                           .tool_arguments_object = true,
                           .kwargs = "{\"enable_thinking\": false, \"x\": [\"y\"]}"};
    qn_status status = qn_chat_template_open(&chat_template, dir, err);
    if (status == QN_OK) status = qn_chat_render(chat_template, &prompt, &input, err);
    size_t size = prompt.text.size;
    if (status == QN_OK && (status = qn_chat_render(chat_template, &prompt, &input, err)) != QN_OK) {
        assert_int_equal(prompt.text.size, size);
    }
    qn_prompt_release(&prompt);
    qn_chat_template_close(chat_template);
    return status;
}

static bool count_text(void *user, qn_piece piece, const char *text, size_t size) {
    (void)piece;
    (void)text;
    *(size_t *)user += size;
    return true;
}

static qn_status split(qn_error *err) {
    static const char text[] = "thoughts</think>\n\nThe answer is 42. Never STOP here.";
    qn_string stops[] = {{"STOP", 4}, {"\n\nUser:", 7}};
    qn_splitter_options options = {.split_reasoning = true, .starts_reasoning = true, .stops = stops, .n_stop = 2};
    qn_splitter *splitter = NULL;
    size_t total = 0;
    bool stopped = false;
    qn_status status = qn_splitter_create(&splitter, &options, err);
    for (size_t i = 0; status == QN_OK && i < sizeof text - 1; i += 3) {
        size_t n = sizeof text - 1 - i < 3 ? sizeof text - 1 - i : 3;
        status = qn_splitter_push(splitter, text + i, n, count_text, &total, &stopped, err);
    }
    if (status == QN_OK) status = qn_splitter_finish(splitter, count_text, &total, err);
    qn_splitter_free(splitter);
    return status;
}

static qn_status run_template(qn_error *err) {
    return render(model_dir, err);
}
static qn_status run_demo_template(qn_error *err) {
    return render("models/demo", err);
}

/* Encode a conversation, with the ids that end its answer. */
static qn_status run_conversation(qn_error *err) {
    static const char messages[] = "[{\"role\":\"user\",\"content\":\"<|im_end|> e\\u0301 and more\"}]";
    const qn_chat_input input = {.messages = messages, .add_generation_prompt = true};
    qn_tokenizer *tokenizer = NULL;
    qn_chat_template *chat_template = NULL;
    qn_prompt prompt = {0};
    qn_ids ids = {0};
    qn_status status = qn_tokenizer_open(&tokenizer, "models/demo", err);
    if (status == QN_OK) status = qn_chat_template_open(&chat_template, "models/demo", err);
    if (status == QN_OK) status = qn_chat_ends(chat_template, tokenizer, &ids, err);
    if (status == QN_OK) assert_int_equal(ids.size, 1);
    if (status == QN_OK) status = qn_chat_render(chat_template, &prompt, &input, err);
    if (status == QN_OK) {
        status = qn_tokenizer_encode_runs(tokenizer, &ids, prompt.text.data, prompt.text.size, prompt.runs,
                                          prompt.n_run, err);
        assert_true(status == QN_OK || ids.size == 1);
    }
    qn_ids_release(&ids);
    qn_prompt_release(&prompt);
    qn_chat_template_close(chat_template);
    qn_tokenizer_close(tokenizer);
    return status;
}

static void templates(void **state) {
    (void)state;
    sweep_both("template", run_template, 1000);
    sweep_both("demo template", run_demo_template, 100);
    sweep_both("splitter", split, 1000);
    sweep_both("conversation", run_conversation, 50);
}

/* A session's life: prefill, ten steps, rewind, save, restore into another session. */
static qn_status live(qn_model *model, qn_error *err) {
    int32_t ids[24];
    for (int i = 0; i < 24; i++) ids[i] = (i * 37 + 11) % 512;
    qn_session_options options = {.n_ctx = 64, .n_batch = 16};
    qn_session *session = NULL, *other = NULL;
    float kv[2 * 4 * 32];
    qn_status status = qn_session_create(&session, model, &options, err);
    if (status == QN_OK) status = qn_session_sync(session, ids, 24, NULL, err);
    for (int i = 0; status == QN_OK && i < 10; i++) status = qn_session_step(session, (i * 5 + 3) % 512, err);
    if (status == QN_OK) status = qn_session_rewind(session, 20, err);
    if (status == QN_OK) status = qn_session_step(session, 7, err);
    if (status == QN_OK) status = qn_session_save(session, session_path, err);
    if (status == QN_OK) status = qn_session_create(&other, model, &options, err);
    if (status == QN_OK && (status = qn_session_restore(other, session_path, err)) != QN_OK) {
        assert_int_equal(qn_session_n_tok(other), 0);
    }
    if (status == QN_OK) status = qn_session_read_kv(other, 0, 0, 4, kv, NULL, err);
    qn_span spans[2] = {{.session = session, .ids = ids, .n_ids = 3}, {.session = other, .ids = ids, .n_ids = 1}};
    if (status == QN_OK) status = qn_session_append_batch(spans, 2, err);
    qn_session_free(other);
    qn_session_free(session);
    return status;
}

/* Two generations on one pool, three steps. */
static qn_status generate_both(qn_model *model, qn_error *err) {
    static const int32_t ids[20] = {5, 17, 3};
    const qn_kv_pool_options options = {.n_ctx = 64, .n_tok = 1024, .n_batch = 16};
    qn_kv_pool *pool = NULL;
    qn_session *sessions[2] = {NULL, NULL};
    qn_generation *generations[2] = {NULL, NULL};
    qn_error errors[2];
    bool done[2];
    qn_status status = qn_kv_pool_create(&pool, model, &options, err);
    for (int i = 0; i < 2 && status == QN_OK; i++) {
        const qn_session_options on_pool = {.pool = pool};
        const qn_generate_args args = {.ids = ids, .n_ids = i == 0 ? 20 : 3, .n_predict = 9, .ignore_eos = true};
        status = qn_session_create(&sessions[i], model, &on_pool, err);
        if (status == QN_OK) status = qn_generation_create(&generations[i], sessions[i], NULL, &args, err);
    }
    for (int pass = 0; pass < 3 && status == QN_OK; pass++) {
        status = qn_generation_next_batch(generations, 2, done, errors, err);
        for (int i = 0; i < 2 && status == QN_OK; i++) {
            status = errors[i].status;
            if (status != QN_OK) *err = errors[i];
        }
    }
    for (int i = 0; i < 2; i++) {
        qn_generation_free(generations[i]);
        qn_session_free(sessions[i]);
    }
    qn_kv_pool_free(pool);
    return status;
}

static qn_status open_and_live(const char *device_name, int32_t n_thread, qn_error *err) {
    qn_device_options options = {.n_thread = n_thread};
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_status status = qn_device_open(&device, device_name, &options, err);
    if (status == QN_OK) status = qn_model_open(&model, device, model_dir, NULL, err);
    qn_device_close(device);
    if (status == QN_OK) status = live(model, err);
    if (status == QN_OK) status = generate_both(model, err);
    qn_model_close(model);
    unlink(session_path);
    return status;
}

static qn_status run_session(qn_error *err) {
    return open_and_live("cpu", 1, err);
}
static qn_status run_session_threads(qn_error *err) {
    return open_and_live("cpu", 3, err);
}
static qn_status run_session_ref(qn_error *err) {
    return open_and_live("ref", 1, err);
}

static void sessions(void **state) {
    (void)state;
    sweep_both("session", run_session, 300);
    sweep_both("session, 3 threads", run_session_threads, 50);
    sweep_both("session on ref", run_session_ref, 50);
}

static qn_status run_generate(qn_error *err) {
    qn_device_options options = {.n_thread = 1};
    qn_session_options session_options = {.n_ctx = 96};
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_tokenizer *tokenizer = NULL;
    qn_session *session = NULL;
    qn_sampler_params params;
    size_t total = 0;
    qn_string stop = {"never to be seen", 16};
    qn_logit_bias bias = {.id = 300, .bias = -5};
    qn_status status = qn_device_open(&device, "cpu", &options, err);
    if (status == QN_OK) status = qn_model_open(&model, device, model_dir, NULL, err);
    if (status == QN_OK) status = qn_tokenizer_open(&tokenizer, model_dir, err);
    if (status == QN_OK) status = qn_session_create(&session, model, &session_options, err);
    if (status == QN_OK) {
        qn_sampler_defaults(model, QN_SAMPLER_MODEL, &params);
        params.repetition_penalty = 1.1;
        params.presence_penalty = 0.5;
        params.logit_bias = &bias;
        params.n_logit_bias = 1;
        qn_generate_args args = {.prompt = "<|im_start|>user\nThe thin man<|im_end|>\n<think>\n",
                                 .sampler = &params,
                                 .n_predict = 10,
                                 .ignore_eos = true,
                                 .split_reasoning = true,
                                 .stops = &stop,
                                 .n_stop = 1,
                                 .on_text = count_text,
                                 .user = &total};
        status = qn_generate(session, tokenizer, &args, NULL, err);
    }
    qn_session_free(session);
    qn_tokenizer_close(tokenizer);
    qn_model_close(model);
    qn_device_close(device);
    return status;
}

static void generating(void **state) {
    (void)state;
    sweep_both("generate", run_generate, 200);
}

/* Tensors of a file, packed, through a layer. */
static qn_status run_primitives(qn_error *err) {
    static const char *const names[] = {"hidden", "norm1",  "norm2",     "q_norm",  "k_norm",    "q_proj",  "k_proj",
                                        "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "k_cache", "v_cache"};
    enum { HIDDEN, NORM1, NORM2, Q_NORM, K_NORM, Q, K, V, O, GATE, UP, DOWN, K_CACHE, V_CACHE, N_TENSOR };
    qn_device_options options = {.n_thread = 2};
    qn_device *device = NULL;
    qn_tensor_file *file = NULL;
    qn_tensor *t[N_TENSOR] = {0}, *out = NULL;
    qn_linear *packed[N_TENSOR] = {0};
    qn_status status = qn_device_open(&device, "cpu", &options, err);
    if (status == QN_OK) status = qn_tensor_file_open(&file, "tests/data/primitives/case0.safetensors", err);
    for (int i = 0; status == QN_OK && i < N_TENSOR; i++)
        status = qn_tensor_file_read(&t[i], file, device, names[i], err);
    for (int i = Q; status == QN_OK && i <= DOWN; i++) {
        status = qn_linear_pack(&packed[i], t[i], QN_LAYOUT_IN_OUT, QN_ARITH_F32, err);
    }
    if (status == QN_OK) {
        status = qn_tensor_create(&out, device, QN_DTYPE_F32, 3, qn_tensor_shape(t[HIDDEN]), err);
    }
    if (status == QN_OK) {
        qn_layer_args args = {
            .out = out,
            .hidden = t[HIDDEN],
            .weights = {{t[NORM1],
                         {.packed = packed[Q]},
                         {.packed = packed[K]},
                         {.plain = t[V]},
                         {.packed = packed[O]},
                         t[Q_NORM],
                         t[K_NORM]},
                        {t[NORM2], {.packed = packed[GATE]}, {.plain = t[UP]}, {.packed = packed[DOWN]}}},
            .k_cache = t[K_CACHE],
            .v_cache = t[V_CACHE],
            .scale = 0.125,
            .rope = {.theta = 10000},
            .eps = 1e-6};
        status = qn_layer(&args, err);
    }
    qn_tensor_free(out);
    for (int i = 0; i < N_TENSOR; i++) {
        qn_tensor_free(t[i]);
        qn_linear_free(packed[i]);
    }
    qn_tensor_file_close(file);
    qn_device_close(device);
    return status;
}

static void primitives(void **state) {
    (void)state;
    sweep_both("primitives", run_primitives, 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_place), cmocka_unit_test(devices),    cmocka_unit_test(json),
        cmocka_unit_test(models),   cmocka_unit_test(tokenizers), cmocka_unit_test(templates),
        cmocka_unit_test(sessions), cmocka_unit_test(generating), cmocka_unit_test(primitives),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
