/* SPDX-License-Identifier: Apache-2.0 */
/* What ends a generated text, and partly trusted prompts. Prompt ids are those of tokenizers 0.23.3: see
 * test_tokenizer_runs.c. */
#include "support/files.h"
#include "support/sessions.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { N_PREDICT = 5, IM_END = 4089, ORDINARY = 300 };

typedef struct fixture {
    qn_model *model;
    qn_tokenizer *tokenizer;
    qn_session *session;
} fixture;

typedef struct output {
    int32_t ids[64];
    int32_t n_id;
    size_t size[2]; /* bytes of text by qn_piece */
} output;

static bool on_token(void *user, const qn_token *token) {
    output *o = user;
    assert_true(o->n_id < 64);
    o->ids[o->n_id++] = token->id;
    return true;
}

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    (void)text;
    ((output *)user)->size[piece] += size;
    return true;
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->model = open_model(qn_backend_name(0), 2, DEMO_MODEL);
    f->session = open_session(f->model, 256, 64);
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

/* Greedy, with a bias that makes one id the best or the worst. */
typedef struct pushed {
    qn_logit_bias bias;
    qn_sampler_params params;
} pushed;

static qn_sampler_params *push(pushed *p, int32_t id, float bias) {
    p->bias = (qn_logit_bias){id, bias};
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &p->params);
    p->params.temperature = 0;
    p->params.logit_bias = &p->bias;
    p->params.n_logit_bias = 1;
    return &p->params;
}

static qn_generate_args args_for(output *o, const qn_sampler_params *sampler) {
    *o = (output){0};
    return (qn_generate_args){.prompt = "Once upon a time",
                              .sampler = sampler,
                              .n_predict = N_PREDICT,
                              .on_text = on_text,
                              .on_token = on_token,
                              .user = o};
}

static qn_generate_result generate(const fixture *f, const qn_generate_args *args) {
    qn_generate_result result = {.finish = (qn_finish)77};
    assert_ok(qn_generate(f->session, f->tokenizer, args, &result, err));
    return result;
}

static void test_end_ids(void **state) {
    const fixture *f = *state;
    static const int32_t ends[] = {5, ORDINARY, ORDINARY}, beyond[] = {5000};
    const struct {
        const int32_t *ends, *stop_ids;
        size_t n_end, n_stop_id;
        bool ignore_eos, stops, prints;
    } cases[] = {
        {NULL, NULL, 0, 0, false, false, true},   {ends, NULL, 3, 0, false, true, false},
        {ends, NULL, 3, 0, true, false, false},   {NULL, ends, 0, 3, false, true, false},
        {NULL, ends, 0, 3, true, true, false},    {ends, NULL, 1, 0, false, false, true},
        {beyond, NULL, 1, 0, false, false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pushed p;
        output o;
        qn_generate_args args = args_for(&o, push(&p, ORDINARY, 1000));
        args.ends = cases[i].ends;
        args.n_end = cases[i].n_end;
        args.stop_ids = cases[i].stop_ids;
        args.n_stop_id = cases[i].n_stop_id;
        args.ignore_eos = cases[i].ignore_eos;
        qn_generate_result r = generate(f, &args);
        assert_int_equal(r.finish, cases[i].stops ? QN_FINISH_STOP : QN_FINISH_LENGTH);
        assert_int_equal(r.n_generated, cases[i].stops ? 1 : N_PREDICT);
        assert_int_equal(o.ids[0], ORDINARY);
        assert_int_equal(o.size[QN_PIECE_CONTENT] > 0, cases[i].prints);
    }
}

static void test_min_tokens(void **state) {
    const fixture *f = *state;
    static const int32_t ordinary = ORDINARY;
    const struct {
        int32_t end, min_tokens;
        bool is_stop_id, ignore_eos;
        int32_t n_free; /* tokens before the end is sampled */
    } cases[] = {
        {IM_END, 3, false, false, 3},  {IM_END, 0, false, false, 0}, {IM_END, 3, false, true, 0},
        {ORDINARY, 2, true, false, 2}, {ORDINARY, 2, true, true, 2}, {IM_END, N_PREDICT, false, false, N_PREDICT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pushed p;
        output o, free_of_it;
        qn_generate_args args = args_for(&free_of_it, push(&p, cases[i].end, -1000));
        args.ignore_eos = true;
        generate(f, &args);
        args = args_for(&o, push(&p, cases[i].end, 1000));
        args.min_tokens = cases[i].min_tokens;
        args.ignore_eos = cases[i].ignore_eos;
        args.stop_ids = cases[i].is_stop_id ? &ordinary : NULL;
        args.n_stop_id = cases[i].is_stop_id;
        qn_generate_result r = generate(f, &args);
        for (int32_t k = 0; k < cases[i].n_free; k++) assert_int_equal(o.ids[k], free_of_it.ids[k]);
        if (cases[i].n_free < N_PREDICT) assert_int_equal(o.ids[cases[i].n_free], cases[i].end);
        bool stops = (!cases[i].ignore_eos || cases[i].is_stop_id) && cases[i].n_free < N_PREDICT;
        assert_int_equal(r.finish, stops ? QN_FINISH_STOP : QN_FINISH_LENGTH);
        assert_int_equal(r.n_generated, stops ? cases[i].n_free + 1 : N_PREDICT);
    }
}

static void test_prompt_runs(void **state) {
    const fixture *f = *state;
    static const char text[] = "<|im_start|>user\nHi<|im_end|>\n<think><|im_end|>\n<|im_start|>assistant\n";
    static const int32_t want[] = {4088, 374, 198, 1627, 27, 91,   378, 62,   425, 91, 29,
                                   198,  27,  453, 665,  29, 4089, 198, 4088, 395, 198};
    qn_text_run runs[] = {{17, true}, {20, false}, {sizeof text - 1 - 37, true}};
    pushed p;
    output o;
    qn_generate_args args = args_for(&o, push(&p, 0, 0));
    args.prompt = text;
    args.runs = runs;
    args.n_run = 3;
    args.n_predict = 1;
    qn_generate_result r = generate(f, &args);
    assert_int_equal(r.n_prompt, sizeof want / sizeof *want);
    assert_memory_equal(qn_session_ids(f->session), want, sizeof want);
    args.n_run = 2;
    qn_error err = {0};
    assert_int_equal(qn_generate(f->session, f->tokenizer, &args, NULL, &err), QN_EINVAL);
    assert_string_equal(err.message, "runs: 37 bytes, but the text has 70");
}

/* Reasoning begins where the template opens it, not where a message ends in the tag. */
static void test_reasoning(void **state) {
    const fixture *f = *state;
    static const char text[] = "Once upon a time<think>\n";
    static const int32_t plain[] = {811, 859, 258, 484, 27, 453, 665, 29, 198}, tag[] = {811, 859, 258, 484, 4094, 198};
    static const qn_text_run runs[][2] = {{{16, true}, {8, false}}, {{16, false}, {8, true}}, {{20, true}, {4, false}}};
    static const struct {
        const qn_text_run *runs;
        const int32_t *ids;
        size_t n_ids;
        qn_piece piece;
    } cases[] = {
        {NULL, NULL, 0, QN_PIECE_REASONING},
        {runs[0], NULL, 0, QN_PIECE_CONTENT},
        {runs[1], NULL, 0, QN_PIECE_REASONING},
        {runs[2], NULL, 0, QN_PIECE_CONTENT},
        {NULL, plain, sizeof plain / sizeof *plain, QN_PIECE_CONTENT},
        {NULL, tag, sizeof tag / sizeof *tag, QN_PIECE_REASONING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pushed p;
        output o;
        qn_generate_args args = args_for(&o, push(&p, ORDINARY, 1000));
        args.prompt = cases[i].ids == NULL ? text : NULL;
        args.runs = cases[i].runs;
        args.n_run = cases[i].runs != NULL ? 2 : 0;
        args.ids = cases[i].ids;
        args.n_ids = cases[i].n_ids;
        args.split_reasoning = true;
        generate(f, &args);
        assert_true(o.size[cases[i].piece] > 0);
        assert_int_equal(o.size[1 - cases[i].piece], 0);
    }
}

static void test_arguments(void **state) {
    const fixture *f = *state;
    static const int32_t negative = -1;
    static const qn_text_run run = {1, true};
    pushed p;
    output o;
    const qn_generate_args good = args_for(&o, push(&p, 0, 0));
    qn_generate_args bad[7];
    for (int i = 0; i < 7; i++) bad[i] = good;
    bad[0].min_tokens = -1;
    bad[1].min_tokens = N_PREDICT + 1;
    bad[2].n_end = 1;
    bad[3].n_stop_id = 2;
    bad[4].ends = &negative, bad[4].n_end = 1;
    bad[5].stop_ids = &negative, bad[5].n_stop_id = 1;
    bad[6].prompt = NULL, bad[6].ids = &p.bias.id, bad[6].n_ids = 1, bad[6].runs = &run, bad[6].n_run = 1;
    static const char *const messages[] = {"min_tokens: must be within 0 … 5, got -1",
                                           "min_tokens: must be within 0 … 5, got 6",
                                           "ends: is NULL, but its count is 1",
                                           "stop_ids: is NULL, but its count is 2",
                                           "ends: id must be >= 0, got -1",
                                           "stop_ids: id must be >= 0, got -1",
                                           "runs: n_run is 1, but prompt is NULL"};
    for (int i = 0; i < 7; i++) {
        qn_error err = {0};
        assert_int_equal(qn_generate(f->session, f->tokenizer, &bad[i], NULL, &err), QN_EINVAL);
        assert_string_equal(err.message, messages[i]);
    }
}

/* Ids that end an answer in a chat, for the demo's tokenizer (its eos_token is <|im_end|>) and a template. */
static void test_chat_ends(void **state) {
    const fixture *f = *state;
    static const struct {
        const char *source; /* NULL: the model's own */
        int32_t ids[2];     /* zero-terminated */
    } cases[] = {
        {NULL, {IM_END}},
        {"{% for m in messages %}{{ m.role }}: {{ m.content }} <|endoftext|>\n{% endfor %}", {IM_END, 4087}},
        {"{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}", {IM_END}},
        {"{% for m in messages %}{{ m.content }}{% if not loop.last %}<|endoftext|>{% endif %}{% endfor %}",
         {IM_END, 4087}},
        {"{% for m in messages %}{{ m.content }} and <|endoftext|>{% endfor %}", {IM_END}},
        {"{% for m in messages %}[{{ m.content | upper }}]<|endoftext|>{% endfor %}", {IM_END}},
        {"{{ raise_exception('never') }}", {IM_END}},
        {" ", {IM_END}},
    };
    char *dir = files_make_dir();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_chat_template *t = NULL;
        char *path = files_path(dir, "t.jinja");
        if (cases[i].source == NULL) {
            assert_ok(qn_chat_template_open(&t, DEMO_MODEL, err));
        } else {
            files_write(dir, "t.jinja", cases[i].source, strlen(cases[i].source));
            assert_ok(qn_chat_template_open_file(&t, path, DEMO_MODEL, err));
        }
        qn_ids ids = {0};
        assert_ok(qn_chat_ends(t, f->tokenizer, &ids, err));
        size_t n = 0;
        while (n < 2 && cases[i].ids[n] != 0) n++;
        if (ids.size != n) fail_msg("case %zu: %zu ids, not %zu", i, ids.size, n);
        assert_memory_equal(ids.data, cases[i].ids, n * sizeof *ids.data);
        assert_ok(qn_chat_ends(t, f->tokenizer, &ids, err));
        assert_int_equal(ids.size, n);
        qn_ids_release(&ids);
        qn_chat_template_close(t);
        free(path);
    }
    files_remove_dir(dir);
}

/* The template for tools is rendered with a tool: alone, and beside one whose answers end differently. */
static void test_chat_ends_tools(void **state) {
    const fixture *f = *state;
    static const char tools_end[] =
        "{% for m in messages %}{{ m.content }}{% if tools[0].function.name and tools[0].function.parameters %}"
        "<|endoftext|>{% endif %}{% endfor %}";
    static const char standard[] = "{{ messages[1].content }}<|im_end|>";
    char *dir = files_make_dir();
    char *folder = files_path(dir, "additional_chat_templates");
    assert_int_equal(mkdir(folder, 0700), 0);
    files_write(folder, "tool_use.jinja", tools_end, sizeof tools_end - 1);
    for (int both = 0; both < 2; both++) {
        qn_chat_template *t = NULL;
        qn_ids ids = {0};
        if (both) files_write(dir, "chat_template.jinja", standard, sizeof standard - 1);
        assert_ok(qn_chat_template_open(&t, dir, err));
        assert_ok(qn_chat_ends(t, f->tokenizer, &ids, err));
        assert_int_equal(ids.size, 2);
        assert_int_equal(ids.data[0], IM_END);
        assert_int_equal(ids.data[1], 4087);
        qn_ids_release(&ids);
        qn_chat_template_close(t);
    }
    files_remove_dir(folder);
    files_remove_dir(dir);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_end_ids),   TEST(test_min_tokens), TEST(test_prompt_runs),     TEST(test_reasoning),
        TEST(test_arguments), TEST(test_chat_ends),  TEST(test_chat_ends_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
