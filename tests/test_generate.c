/* SPDX-License-Identifier: Apache-2.0 */
/* qn_generate with the demo model: text, end conditions, cancellation, and the sequence afterwards. */
#include "support/files.h"
#include "support/sessions.h"

#include "../src/base/json.h"
#include "../src/session/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char story[] = "Once upon a time";

typedef struct fixture {
    qn_model *model;
    qn_tokenizer *tokenizer;
    qn_session *session;
} fixture;

/* What a generation emitted. */
typedef struct output {
    int32_t ids[600];
    int32_t n_id, n_prefill, last_done;
    char text[2][8192]; /* by qn_piece */
    size_t size[2];
    int32_t n_piece;
    int32_t stop_id, stop_piece, stop_prefill; /* calls that return false, counted from 1; 0: none */
    int32_t first_position;
} output;

static bool on_token(void *user, const qn_token *token) {
    output *o = user;
    assert_true(o->n_id < 600);
    if (o->n_id == 0) o->first_position = token->position;
    assert_int_equal(token->position, o->first_position + o->n_id);
    assert_non_null(token->logits);
    assert_int_equal(token->n_vocab, 4096);
    o->ids[o->n_id++] = token->id;
    return o->n_id != o->stop_id;
}

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    output *o = user;
    assert_true(size > 0 && o->size[piece] + size < sizeof o->text[piece]);
    assert_true(o->stop_piece == 0 || o->n_piece < o->stop_piece); /* never called again after returning false */
    memcpy(o->text[piece] + o->size[piece], text, size);
    o->size[piece] += size;
    return ++o->n_piece != o->stop_piece;
}

static bool on_prefill(void *user, int32_t done, int32_t total) {
    output *o = user;
    assert_true(done > o->last_done && done <= total);
    o->last_done = done;
    return ++o->n_prefill != o->stop_prefill;
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->model = open_model(qn_backend_name(0), 2, DEMO_MODEL);
    f->session = open_session(f->model, 512, 16);
    assert_ok(qn_tokenizer_open(&f->tokenizer, DEMO_MODEL, err));
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    qn_session_free(f->session);
    qn_tokenizer_close(f->tokenizer);
    qn_model_close(f->model);
    free(f);
    return 0;
}

static qn_sampler_params greedy(void) {
    qn_sampler_params p;
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p);
    p.temperature = 0;
    return p;
}

static qn_generate_args args_for(output *o, const qn_sampler_params *sampler) {
    *o = (output){0};
    return (qn_generate_args){.prompt = story,
                              .sampler = sampler,
                              .n_predict = 40,
                              .on_text = on_text,
                              .on_token = on_token,
                              .on_prefill = on_prefill,
                              .user = o};
}

static qn_generate_result generate(const fixture *f, const qn_generate_args *args) {
    qn_generate_result result = {.finish = (qn_finish)77};
    assert_ok(qn_generate(f->session, f->tokenizer, args, &result, err));
    assert_true(result.prompt_s >= 0 && result.generate_s >= 0);
    assert_true(result.n_generated == 0 || (result.first_token_s >= result.prompt_s &&
                                            result.first_token_s <= result.prompt_s + result.generate_s));
    return result;
}

/* The ids of the whole conversation; the sequence must hold all of them except the last sampled one. */
static size_t conversation(const fixture *f, const output *o, const qn_generate_result *r, int32_t *ids) {
    qn_ids prompt = {0};
    assert_ok(qn_tokenizer_encode(f->tokenizer, &prompt, story, strlen(story), true, err));
    assert_int_equal(r->n_prompt, prompt.size);
    assert_int_equal(r->n_generated, o->n_id);
    memcpy(ids, prompt.data, prompt.size * sizeof *ids);
    memcpy(ids + prompt.size, o->ids, (size_t)o->n_id * sizeof *ids);
    size_t n = prompt.size + (size_t)o->n_id;
    qn_ids_release(&prompt);
    assert_int_equal(qn_session_n_tok(f->session), n - (o->n_id > 0));
    expect_same_bits("ids", QN_DTYPE_S32, qn_session_ids(f->session), ids, n - (o->n_id > 0));
    return n;
}

static void decoded(const fixture *f, const int32_t *ids, size_t n, qn_text *text) {
    text->size = 0;
    assert_ok(qn_tokenizer_decode(f->tokenizer, text, ids, n, true, err));
}

static void test_golden(void **state) {
    const fixture *f = *state;
    json_t *root = NULL;
    assert_ok(qni_json_read(&root, DEMO_MODEL "/golden.json", 1 << 22, err));
    json_t *row = json_array_get(json_object_get(root, "greedy"), 0), *value;
    const qn_sampler_params p = greedy();
    output o;
    qn_generate_args args = args_for(&o, &p);
    args.prompt = json_string_value(json_object_get(row, "prompt"));
    args.ignore_eos = true;
    args.n_predict = (int32_t)json_array_size(json_object_get(row, "greedy_ids"));
    qn_generate_result r = generate(f, &args);
    assert_int_equal(r.finish, QN_FINISH_LENGTH);
    assert_int_equal(r.n_generated, args.n_predict);
    size_t i;
    json_array_foreach(json_object_get(row, "greedy_ids"), i, value) {
        if (o.ids[i] == json_integer_value(value)) continue;
        /* Logits closer than this may swap by rounding, and the texts then diverge. */
        assert_true(json_number_value(json_array_get(json_object_get(row, "margins"), i)) < 1e-3);
        break;
    }
    qn_text text = {0};
    decoded(f, o.ids, (size_t)o.n_id, &text);
    assert_int_equal(o.size[QN_PIECE_CONTENT], text.size);
    assert_memory_equal(o.text[QN_PIECE_CONTENT], text.data, text.size);
    assert_int_equal(o.size[QN_PIECE_REASONING], 0);
    qn_text_release(&text);
    json_decref(root);
}

static void test_sequence(void **state) {
    const fixture *f = *state;
    const qn_sampler_params p = greedy();
    output o, again;
    qn_generate_args args = args_for(&o, &p);
    qn_generate_result r = generate(f, &args);
    assert_int_equal(r.finish, QN_FINISH_LENGTH);
    assert_int_equal(r.n_generated, 40);
    assert_int_equal(r.n_reused, 0);
    int32_t ids[600];
    size_t n = conversation(f, &o, &r, ids), reused = 0;
    assert_ok(qn_session_sync(f->session, ids, n, &reused, err));
    assert_int_equal(reused, n - 1);

    /* Continuing from there equals generating more at once, and reuses everything. */
    args = args_for(&again, &p);
    args.prompt = NULL;
    args.ids = ids;
    args.n_ids = n;
    args.n_predict = 20;
    r = generate(f, &args);
    assert_int_equal(r.n_reused, n);
    assert_int_equal(again.first_position, n);
    args = args_for(&o, &p);
    args.n_predict = 60;
    r = generate(f, &args);
    assert_int_equal(r.n_reused, r.n_prompt - 1); /* its last id is computed again for the logits */
    expect_same_bits("ids", QN_DTYPE_S32, o.ids + 40, again.ids, 20);
}

static void test_stop_string(void **state) {
    const fixture *f = *state;
    const qn_sampler_params p = greedy();
    output all, o;
    qn_generate_args args = args_for(&all, &p);
    generate(f, &args);
    const char *text = all.text[QN_PIECE_CONTENT];
    size_t size = all.size[QN_PIECE_CONTENT];
    /* Any part of the text stops generation before its first occurrence, wherever it starts and ends within a token. */
    for (size_t at = 1; at + 9 < size; at += 5) {
        qn_string stops[] = {{"\x01 not in the text", 17}, {text + at, 7}};
        const char *first = strstr(text, "");
        for (; memcmp(first, stops[1].data, 7) != 0; first++) {
        }
        args = args_for(&o, &p);
        args.stops = stops;
        args.n_stop = 2;
        qn_generate_result r = generate(f, &args);
        assert_int_equal(r.finish, QN_FINISH_STOP);
        assert_int_equal(o.size[QN_PIECE_CONTENT], first - text);
        assert_memory_equal(o.text[QN_PIECE_CONTENT], text, (size_t)(first - text));
        int32_t ids[600];
        conversation(f, &o, &r, ids);
        /* It stops even if nobody receives the text. */
        args.on_text = NULL;
        args.on_token = NULL;
        args.on_prefill = NULL;
        qn_generate_result silent = generate(f, &args);
        assert_int_equal(silent.finish, QN_FINISH_STOP);
        assert_int_equal(silent.n_generated, r.n_generated);
    }
}

static void test_end_of_text(void **state) {
    const fixture *f = *state;
    const qn_model_config *config = qn_model_get_config(f->model);
    assert_true(config->n_eos >= 1);
    for (int32_t i = 0; i < config->n_eos; i++) {
        const qn_logit_bias bias = {config->eos[i], 1000};
        qn_sampler_params p = greedy();
        p.logit_bias = &bias;
        p.n_logit_bias = 1;
        output o;
        qn_generate_args args = args_for(&o, &p);
        qn_generate_result r = generate(f, &args);
        assert_int_equal(r.finish, QN_FINISH_STOP);
        assert_int_equal(r.n_generated, 1);
        assert_int_equal(o.ids[0], config->eos[i]);
        assert_int_equal(o.n_piece, 0);
        int32_t ids[600];
        conversation(f, &o, &r, ids);

        args = args_for(&o, &p);
        args.ignore_eos = true;
        args.n_predict = 5;
        r = generate(f, &args);
        assert_int_equal(r.finish, QN_FINISH_LENGTH);
        assert_int_equal(r.n_generated, 5);
        assert_int_equal(o.ids[4], config->eos[i]);
        assert_int_equal(o.n_piece, 0);
    }
}

/* Generation fills the context to the last position and ends. */
static void test_full_context(void **state) {
    fixture f = **(fixture **)state;
    const qn_sampler_params p = greedy();
    qn_ids prompt = {0};
    assert_ok(qn_tokenizer_encode(f.tokenizer, &prompt, story, strlen(story), true, err));
    int32_t n_prompt = (int32_t)prompt.size;
    for (int32_t room = 0; room < 4; room++) {
        f.session = open_session(f.model, n_prompt + room, 3);
        output o;
        qn_generate_args args = args_for(&o, &p);
        args.n_predict = 0;
        args.ignore_eos = true;
        qn_generate_result r = generate(&f, &args);
        assert_int_equal(r.finish, QN_FINISH_LENGTH);
        assert_int_equal(r.n_generated, room);
        assert_int_equal(o.last_done, n_prompt);
        int32_t ids[600];
        conversation(&f, &o, &r, ids);
        qn_session_free(f.session);
    }
    f.session = open_session(f.model, n_prompt - 1, 3);
    output o;
    qn_generate_args args = args_for(&o, &p);
    qn_error error = {0};
    assert_int_equal(qn_generate(f.session, f.tokenizer, &args, NULL, &error), QN_EFULL);
    assert_string_equal(error.message, "context: 3 tokens are too few for 4");
    assert_int_equal(o.n_prefill + o.n_id + o.n_piece, 0);
    qn_session_free(f.session);
    qn_ids_release(&prompt);
}

static void test_cancel(void **state) {
    const fixture *f = *state;
    const qn_sampler_params p = greedy();
    output all, o;
    qn_generate_args args = args_for(&all, &p);
    generate(f, &args);
    int32_t ids[600];
    for (int32_t stop = 1; stop < 30; stop += 4) {
        args = args_for(&o, &p);
        o.stop_id = stop;
        qn_generate_result r = generate(f, &args);
        assert_int_equal(r.finish, QN_FINISH_CANCELED);
        assert_int_equal(r.n_generated, stop);
        conversation(f, &o, &r, ids);

        args = args_for(&o, &p);
        o.stop_piece = stop;
        r = generate(f, &args);
        assert_int_equal(r.finish, QN_FINISH_CANCELED);
        assert_int_equal(o.n_piece, stop);
        assert_memory_equal(o.text[QN_PIECE_CONTENT], all.text[QN_PIECE_CONTENT], o.size[QN_PIECE_CONTENT]);
        conversation(f, &o, &r, ids);
    }
    /* During the prompt: what was computed is kept and reused. */
    int32_t n = 0;
    for (; n < 50; n++) ids[n] = 100 + n;
    args = args_for(&o, &p);
    args.prompt = NULL;
    args.ids = ids;
    args.n_ids = (size_t)n;
    o.stop_prefill = 2;
    qn_generate_result r = generate(f, &args);
    assert_int_equal(r.finish, QN_FINISH_CANCELED);
    assert_int_equal(r.n_generated, 0);
    assert_int_equal(qn_session_n_tok(f->session), 32);
    assert_int_equal(o.last_done, 32);
    size_t reused = 0;
    assert_ok(qn_session_sync(f->session, ids, (size_t)n, &reused, err));
    assert_int_equal(reused, 32);
}

/* The same seed samples the same tokens, whatever the sequence held before and however the prompt is divided. */
static void test_seeds(void **state) {
    fixture f = **(fixture **)state;
    qn_sampler_params p;
    qn_sampler_defaults(f.model, QN_SAMPLER_MODEL, &p);
    assert_true(p.temperature > 0);
    p.seed = 41;
    output a, b, c;
    qn_generate_args args = args_for(&a, &p);
    args.ignore_eos = true;
    generate(&f, &args);
    qn_session *other = open_session(f.model, 64, 1), *kept = f.session;
    f.session = other;
    args = args_for(&b, &p);
    args.ignore_eos = true;
    generate(&f, &args);
    expect_same_bits("ids", QN_DTYPE_S32, a.ids, b.ids, sizeof a.ids / sizeof *a.ids);
    p.seed = 42;
    args = args_for(&c, &p);
    args.ignore_eos = true;
    generate(&f, &args);
    assert_memory_not_equal(a.ids, c.ids, sizeof a.ids);
    /* Without settings: the model's defaults, with seed 0. */
    p.seed = 0;
    args = args_for(&a, &p);
    generate(&f, &args);
    args = args_for(&b, NULL);
    generate(&f, &args);
    expect_same_bits("ids", QN_DTYPE_S32, a.ids, b.ids, sizeof a.ids / sizeof *a.ids);
    f.session = kept;
    qn_session_free(other);
}

static void test_reasoning(void **state) {
    const fixture *f = *state;
    const qn_sampler_params p = greedy();
    static const char thinking[] = "Once upon a time<think>\n", done[] = "<think>\nno</think>\n\nOnce upon a time";
    const struct {
        const char *prompt;
        bool split;
        qn_piece piece;
    } cases[] = {
        {thinking, true, QN_PIECE_REASONING}, {thinking, false, QN_PIECE_CONTENT}, {done, true, QN_PIECE_CONTENT}};
    for (size_t i = 0; i < 3; i++) {
        output text, ids;
        qn_generate_args args = args_for(&text, &p);
        args.prompt = cases[i].prompt;
        args.split_reasoning = cases[i].split;
        args.n_predict = 10;
        generate(f, &args);
        assert_true(text.size[cases[i].piece] > 0);
        assert_int_equal(text.size[1 - cases[i].piece], 0);
        qn_ids prompt = {0};
        assert_ok(qn_tokenizer_encode(f->tokenizer, &prompt, args.prompt, strlen(args.prompt), true, err));
        args = args_for(&ids, &p);
        args.prompt = NULL;
        args.ids = prompt.data;
        args.n_ids = prompt.size;
        args.split_reasoning = cases[i].split;
        args.n_predict = 10;
        generate(f, &args);
        assert_int_equal(ids.size[cases[i].piece], text.size[cases[i].piece]);
        assert_int_equal(ids.size[1 - cases[i].piece], 0);
        qn_ids_release(&prompt);
    }
}

/* The demo's tokenizer without its last added tokens, so that the model has padding rows. */
static qn_tokenizer *shorter_tokenizer(int32_t n_vocab) {
    char *dir = files_make_dir(), *path = files_path(dir, "tokenizer.json");
    json_t *root = NULL;
    assert_ok(qni_json_read(&root, DEMO_MODEL "/tokenizer.json", 1 << 24, err));
    json_t *added = json_object_get(root, "added_tokens");
    for (size_t i = json_array_size(added); i-- > 0;) {
        if (json_integer_value(json_object_get(json_array_get(added, i), "id")) < n_vocab) continue;
        assert_int_equal(json_array_remove(added, i), 0);
    }
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    qn_tokenizer *tokenizer = NULL;
    assert_ok(qn_tokenizer_open(&tokenizer, dir, err));
    assert_int_equal(qn_tokenizer_n_vocab(tokenizer), n_vocab);
    free(path);
    files_remove_dir(dir);
    return tokenizer;
}

/* Padding rows of the vocabulary are not sampled, unless the tokenizer that marks them as padding is missing. */
static void test_padding(void **state) {
    const fixture *f = *state;
    const int32_t n_valid = 4093, padding = 4095;
    qn_tokenizer *tokenizer = shorter_tokenizer(n_valid);
    const qn_logit_bias bias = {padding, 1000};
    qn_sampler_params p = greedy();
    p.logit_bias = &bias;
    p.n_logit_bias = 1;
    output o;
    qn_generate_args args = args_for(&o, &p);
    assert_ok(qn_generate(f->session, tokenizer, &args, NULL, err));
    for (int32_t i = 0; i < o.n_id; i++) assert_in_range(o.ids[i], 0, n_valid - 1);
    const int32_t ids[] = {1, 2, 3};
    args = args_for(&o, &p);
    args.prompt = NULL;
    args.ids = ids;
    args.n_ids = 3;
    args.on_text = NULL;
    args.n_predict = 2;
    assert_ok(qn_generate(f->session, NULL, &args, NULL, err));
    assert_int_equal(o.ids[0], padding);
    qn_tokenizer_close(tokenizer);
}

static void refuse(const fixture *f, const qn_tokenizer *tokenizer, const qn_generate_args *args, const char *text) {
    qn_error err = {0};
    qn_generate_result result = {.n_prompt = -5};
    assert_int_equal(qn_generate(f->session, tokenizer, args, &result, &err), QN_EINVAL);
    assert_string_equal(err.message, text);
    assert_int_equal(result.n_prompt, -5);
}

static void test_arguments(void **state) {
    const fixture *f = *state;
    const qn_sampler_params p = greedy();
    const int32_t ids[] = {1, 2, 4096};
    output o;
    assert_ok(qn_session_sync(f->session, ids, 2, NULL, err));
    qn_generate_args args = args_for(&o, &p);
    args.ids = ids;
    args.n_ids = 2;
    refuse(f, f->tokenizer, &args, "prompt and ids: exactly one must be set, not both");
    args.ids = NULL;
    args.prompt = NULL;
    refuse(f, f->tokenizer, &args, "prompt and ids: exactly one must be set, not neither");
    args.prompt = "";
    refuse(f, f->tokenizer, &args, "prompt: is empty");
    args.prompt = story;
    args.n_predict = -1;
    refuse(f, f->tokenizer, &args, "n_predict: must be >= 0, got -1");
    args.n_predict = 3;
    refuse(f, NULL, &args, "tokenizer: needed for a prompt of text");
    args.prompt = NULL;
    args.ids = ids;
    refuse(f, NULL, &args, "tokenizer: needed for on_text");
    args.on_text = NULL;
    args.n_stop = 1;
    refuse(f, f->tokenizer, &args, "stops: is NULL, but n_stop is 1");
    const qn_string stop = {"x", 1};
    args.stops = &stop;
    refuse(f, NULL, &args, "tokenizer: needed for stop strings");
    args.n_stop = 0;
    args.n_ids = 0;
    refuse(f, NULL, &args, "n_ids: must be >= 1, got 0");
    args.n_ids = 3;
    refuse(f, NULL, &args, "ids[2]: must be within 0 … 4095, got 4096");
    args.n_ids = 2;
    qn_sampler_params bad = greedy();
    bad.top_p = 2;
    args.sampler = &bad;
    refuse(f, NULL, &args, "top_p: must be within 0 … 1, got 2");
    qn_error error;
    assert_int_equal(qn_generate(NULL, NULL, &args, NULL, &error), QN_EINVAL);
    assert_int_equal(qn_generate(f->session, NULL, NULL, NULL, &error), QN_EINVAL);
    assert_int_equal(qn_session_n_tok(f->session), 2);
    assert_int_equal(o.n_prefill + o.n_id + o.n_piece, 0);
}

/* Non-finite logits end a generation with an error, not with id 0. */
static void test_not_finite(void **state) {
    const fixture *f = *state;
    const qn_sampler_params p = greedy();
    const int32_t ids[] = {10, 11, 12};
    output o;
    assert_ok(qn_session_sync(f->session, ids, 3, NULL, err));
    qn_generate_args args = args_for(&o, &p);
    args.prompt = NULL;
    args.ids = ids;
    args.n_ids = 3;
    const float sound = poke_kv(f->session, 5, true, NAN);
    qn_error error = {0};
    qn_generate_result result = {.n_prompt = -5};
    assert_int_equal(qn_generate(f->session, f->tokenizer, &args, &result, &error), QN_ENUMERIC);
    assert_non_null(strstr(error.message, "logits of position 3"));
    assert_int_equal(o.n_id, 1); /* from the logits already computed */
    assert_int_equal(result.n_prompt, -5);
    (void)poke_kv(f->session, 5, true, sound);
    o = (output){0};
    generate(f, &args);
}

static void *copy_of(const void *from, size_t bytes) {
    void *to = malloc(bytes);
    assert_non_null(to);
    return memcpy(to, from, bytes);
}

/* Step by step gives the same as all at once; what the arguments pointed to is not needed any more. */
static void test_step_by_step(void **state) {
    const fixture *f = *state;
    const qn_sampler_params p = greedy();
    output all, o;
    qn_generate_args args = args_for(&all, &p);
    int32_t ids[600], n = 50;
    for (int32_t i = 0; i < n; i++) ids[i] = 100 + i;
    args.prompt = NULL;
    args.ids = ids;
    args.n_ids = (size_t)n;
    const qn_generate_result whole = generate(f, &args);
    assert_ok(qn_session_rewind(f->session, 0, err));

    qn_generation *g = NULL;
    int32_t *given = copy_of(ids, (size_t)n * sizeof *ids);
    qn_sampler_params *params = copy_of(&p, sizeof p);
    char *stop_text = copy_of("never there", 11);
    qn_string *stop = copy_of(&(qn_string){stop_text, 11}, sizeof *stop);
    args = args_for(&o, params);
    args.prompt = NULL;
    args.ids = given;
    args.n_ids = (size_t)n;
    args.stops = stop;
    args.n_stop = 1;
    assert_ok(qn_generation_create(&g, f->session, f->tokenizer, &args, err));
    memset(given, 0x5A, (size_t)n * sizeof *given);
    free(given);
    free(params);
    free(stop_text);
    free(stop);
    memset(&args, 0x5A, sizeof args);
    assert_int_equal(qn_session_n_tok(f->session), 0);

    qn_generate_result r;
    bool done = false;
    for (int32_t pass = 1; !done; pass++) {
        assert_ok(qn_generation_next(g, &done, err));
        /* Four steps of 16 tokens; the last one samples too. */
        assert_int_equal(o.n_id, pass < 4 ? 0 : pass - 3);
        assert_int_equal(qn_session_n_tok(f->session), pass < 4 ? 16 * pass : n + pass - 4);
        qn_generation_get_result(g, &r);
        assert_int_equal(r.n_generated, o.n_id);
        assert_int_equal(done, o.n_id == 40);
    }
    assert_int_equal(r.finish, whole.finish);
    assert_int_equal(r.n_prompt, whole.n_prompt);
    assert_int_equal(r.n_reused, 0);
    expect_same_bits("ids", QN_DTYPE_S32, o.ids, all.ids, 40);
    assert_int_equal(o.size[0], all.size[0]);
    assert_memory_equal(o.text[0], all.text[0], o.size[0]);

    qn_error error = {0};
    assert_int_equal(qn_generation_next(g, &done, &error), QN_EINVAL);
    assert_string_equal(error.message, "generation: it is over");
    qn_generation_free(g);

    /* If generation is abandoned, what was computed is kept and reused. */
    args = args_for(&o, &p);
    args.prompt = NULL;
    args.ids = ids;
    args.n_ids = (size_t)n;
    assert_ok(qn_session_rewind(f->session, 0, err));
    assert_ok(qn_generation_create(&g, f->session, f->tokenizer, &args, err));
    for (int32_t pass = 0; pass < 6; pass++) assert_ok(qn_generation_next(g, &done, err));
    qn_generation_free(g);
    assert_int_equal(qn_session_n_tok(f->session), n + 2);
    expect_same_bits("ids", QN_DTYPE_S32, qn_session_ids(f->session) + n, all.ids, 2);
    args = args_for(&o, &p);
    args.prompt = NULL;
    args.ids = qn_session_ids(f->session);
    args.n_ids = (size_t)n + 2;
    r = generate(f, &args);
    assert_int_equal(r.n_reused, n + 2);
    expect_same_bits("ids", QN_DTYPE_S32, o.ids, all.ids + 2, 38);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_golden),       TEST(test_sequence),  TEST(test_stop_string), TEST(test_end_of_text),
        TEST(test_full_context), TEST(test_cancel),    TEST(test_seeds),       TEST(test_reasoning),
        TEST(test_padding),      TEST(test_arguments), TEST(test_not_finite),  TEST(test_step_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
