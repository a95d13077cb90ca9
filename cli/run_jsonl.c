/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quern run --jsonl: one request per line, one line per answer, in order. Several requests are computed in batched
 * steps, on sessions of one pool, and prefixes shared by their prompts are computed once. Neither affects the answers.
 *
 * A client may wait for an answer before it sends the next request, so reading blocks only when there is nothing left
 * to compute.
 */
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "request.h"
#include "run.h"

enum {
    DEFAULT_PARALLEL = 4,
    ANSWERS_AHEAD = 16, /* records read ahead per session while an earlier answer is incomplete */
    LEAST_SHARED = 64,  /* shorter shared prefixes are not worth waiting for: a step of 64 tokens costs
                         * about as much as one of a few */
};

/* A record, kept until its answer is printed. */
typedef struct entry {
    request *request; /* NULL: answered */
    qn_ids prompt;
    json_t *answer; /* NULL: see error */
    record_error error;
    qn_generation *generation; /* NULL: waiting, or answered */
} entry;

typedef struct slot {
    qn_session *session;
    entry *entry;  /* being computed; NULL: the slot is free */
    uint64_t used; /* clock value when it became free */
} slot;

typedef struct runner {
    generator *generator;
    qn_kv_pool *pool; /* NULL: a single session */
    slot *slots;
    size_t n_slot;
    entry *entries; /* ring buffer */
    size_t n_entry, first, capacity;
    line_input input;
    bool has_ended;      /* end of input, or canceled */
    int code, read_code; /* exit codes of the answers and of the input */
    uint64_t clock;
    qn_generation **batch; /* {n_slot} each: the generations and slots of one step */
    slot **batch_slots;
    bool *done;
    qn_error *errors;
} runner;

static entry *entry_at(const runner *r, size_t i) {
    return &r->entries[(r->first + i) % r->capacity];
}

static void forget_request(entry *e) {
    request_free(e->request);
    free(e->prompt.data);
    e->request = NULL;
    e->prompt = (qn_ids){0};
}

/* Print the complete answers, up to the first that is not. */
static void print_answers(runner *r) {
    while (r->n_entry && !entry_at(r, 0)->request && !ferror(stdout)) {
        entry *e = entry_at(r, 0);
        if (record_print(e->answer, &e->error)) r->code = EXIT_FAILED;
        e->answer = NULL;
        r->first = (r->first + 1) % r->capacity;
        r->n_entry--;
    }
}

static int32_t common_prefix(const qn_ids *prompt, const int32_t *ids, size_t n) {
    size_t i = 0;
    while (i < n && i < prompt->size && ids[i] == prompt->data[i]) i++;
    return (int32_t)i;
}

static int32_t prefix_in_session(const qn_ids *prompt, const qn_session *session) {
    return common_prefix(prompt, qn_session_ids(session), (size_t)qn_session_n_tok(session));
}

/* Fork the first n tokens of another slot's sequence into a slot. If memory is short, the prompt is computed
 * instead. */
static void share_prefix(slot *to, const slot *from, int32_t n) {
    qn_session *session = NULL;
    if (qn_session_fork(&session, from->session, NULL)) return;
    if (qn_session_rewind(session, (size_t)n, NULL)) {
        qn_session_free(session);
        return;
    }
    qn_session_free(to->session);
    to->session = session;
}

/* Choose a free slot for a prompt, holding the longest prefix of it that any slot has. NULL: wait, since another
 * request will soon have computed a longer prefix. */
static slot *choose_slot(runner *r, const qn_ids *prompt) {
    slot *best = NULL, *best_free = NULL, *oldest = NULL;
    int32_t n_best = -1, n_free = -1, n_coming = 0;
    for (size_t i = 0; i < r->n_slot; i++) {
        slot *s = &r->slots[i];
        const int32_t n = prefix_in_session(prompt, s->session);
        if (n > n_best) best = s, n_best = n;
        if (s->entry) {
            const int32_t n_all = common_prefix(prompt, s->entry->prompt.data, s->entry->prompt.size);
            if (n_all > n_coming) n_coming = n_all;
            continue;
        }
        if (n > n_free || (n == n_free && s->used < best_free->used)) best_free = s, n_free = n;
        if (!oldest || s->used < oldest->used) oldest = s;
    }
    if (n_coming >= n_best + LEAST_SHARED) return NULL;
    if (n_best < n_free + LEAST_SHARED) return best_free;
    share_prefix(oldest, best, n_best);
    return oldest;
}

/* Start an entry's generation, unless waiting for a shared prefix pays. A slot must be free. */
static void begin(runner *r, entry *e) {
    slot *s = choose_slot(r, &e->prompt);
    if (!s) return;
    e->generation = request_begin(e->request, s->session, &e->error);
    if (e->generation)
        s->entry = e;
    else
        forget_request(e);
}

static void add_entry(runner *r, const qn_string *line) {
    entry *e = entry_at(r, r->n_entry++);
    *e = (entry){.request = NULL};
    json_note_refusals();
    json_t *record = record_read(line, &e->error);
    if (record) e->request = request_read(r->generator, record, &e->error);
    json_decref(record);
    if (json_was_refused() && e->request) {
        forget_request(e);
        record_fail(&e->error, "out of memory");
    }
    /* an encoding error is reported when the generation begins */
    if (e->request && r->n_slot > 1 && !request_encode(e->request, &e->prompt)) e->prompt.size = 0;
}

static bool has_free_slot(const runner *r) {
    for (size_t i = 0; i < r->n_slot; i++)
        if (!r->slots[i].entry) return true;
    return false;
}

/* Read records and start them, in order, while a slot is free. */
static void start_records(runner *r) {
    while (has_free_slot(r) && !ferror(stdout) && !interrupted()) {
        entry *last = r->n_entry ? entry_at(r, r->n_entry - 1) : NULL;
        if (last && last->request && !last->generation) {
            begin(r, last);
            if (last->request && !last->generation) return;
            continue;
        }
        if (r->has_ended || r->n_entry == r->capacity) return;
        qn_string line;
        line_state state = LINE_END;
        r->read_code = read_line(&r->input, !r->n_entry, &line, &state);
        if (!r->read_code && state == LINE_NOT_YET) return;
        r->has_ended = r->read_code || state == LINE_END;
        if (!r->has_ended && record_trim(&line)) add_entry(r, &line);
        if (r->n_entry == 1) print_answers(r); /* a rejected record */
    }
}

/* The generation of a slot has ended, with an error or with a result. */
static void finish(runner *r, slot *s, const qn_generate_result *result, const qn_error *err) {
    entry *e = s->entry;
    if (err && err->status)
        record_fail_error(&e->error, err);
    else
        e->answer = request_answer(e->request, result, &e->error);
    qn_generation_free(e->generation);
    e->generation = NULL;
    forget_request(e);
    s->entry = NULL;
    s->used = ++r->clock;
}

/* After an interrupt: drop waiting entries and cancel those without a token; the others stop at their next token. */
static void cancel(runner *r) {
    r->has_ended = true;
    r->read_code = EXIT_INTERRUPTED;
    while (r->n_entry) {
        entry *last = entry_at(r, r->n_entry - 1);
        if (!last->request || last->generation) break;
        forget_request(last);
        r->n_entry--;
    }
    for (size_t i = 0; i < r->n_slot; i++) {
        qn_generate_result result;
        if (!r->slots[i].entry) continue;
        qn_generation_get_result(r->slots[i].entry->generation, &result);
        if (result.n_generated) continue;
        result.finish = QN_FINISH_CANCELED;
        finish(r, &r->slots[i], &result, NULL);
    }
}

/* One step: one more token for each active request. */
static void step(runner *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_entry; i++) { /* oldest entry first */
        for (size_t k = 0; k < r->n_slot; k++) {
            if (r->slots[k].entry != entry_at(r, i)) continue;
            r->batch_slots[n] = &r->slots[k];
            r->batch[n++] = r->slots[k].entry->generation;
        }
    }
    if (!n) return;
    qn_error err = {.status = QN_OK};
    const bool failed = qn_generation_next_batch(r->batch, n, r->done, r->errors, &err);
    for (size_t i = 0; i < n; i++) {
        qn_generate_result result;
        if (!failed && !r->done[i]) continue;
        qn_generation_get_result(r->batch[i], &result);
        finish(r, r->batch_slots[i], &result, failed ? &err : &r->errors[i]);
    }
}

/* Default for --parallel: the contexts take at most half of the machine's memory. */
static int32_t default_parallel(const runner *r, const qn_kv_pool_info *one) {
    qn_device_info device;
    qn_device_get_info(r->generator->device, &device);
    const uint64_t limit = device.memory_available_bytes ? device.memory_available_bytes / 2 : UINT64_MAX;
    int32_t n = DEFAULT_PARALLEL;
    while (n > 1 && one->bytes > limit / (uint64_t)n) n /= 2;
    return n;
}

/* Create a pool for *n whole contexts; *n may be reduced if it is a default. */
static int open_pool(runner *r, int32_t *n) {
    const settings *s = r->generator->settings;
    qn_kv_pool_options options = {
        .n_ctx = (int32_t)s->n_ctx.value, .kv_dtype = (qn_dtype)s->kv, .yarn = (qn_yarn_mode)s->yarn};
    qn_kv_pool_info one;
    qn_error err;
    /* with one context, to learn its size; its memory is not touched */
    if (qn_kv_pool_create(&r->pool, r->generator->model, &options, &err)) return fail_error(r->generator->dir, &err);
    qn_kv_pool_get_info(r->pool, &one);
    if (!s->parallel.given) *n = default_parallel(r, &one);
    qn_status status = QN_OK;
    do {
        qn_kv_pool_free(r->pool);
        r->pool = NULL;
        if (*n == 1) return EXIT_DONE;
        const int64_t n_tok = (int64_t)*n * one.n_block * one.block_tokens;
        if (n_tok > INT32_MAX) return fail(NULL, "--parallel: %d contexts of %d tokens are too many", *n, one.n_ctx);
        options.n_tok = (int32_t)n_tok;
        status = qn_kv_pool_create(&r->pool, r->generator->model, &options, &err);
        if (status == QN_ENOMEM && !s->parallel.given) *n /= 2;
    } while (status == QN_ENOMEM && !s->parallel.given);
    return status ? fail_error(r->generator->dir, &err) : EXIT_DONE;
}

static int open_sessions(runner *r) {
    const generator *g = r->generator;
    int32_t n = g->settings->parallel.given ? (int32_t)g->settings->parallel.value : DEFAULT_PARALLEL;
    int code = n > 1 ? open_pool(r, &n) : EXIT_DONE;
    if (code) return code;
    r->slots = must_calloc((size_t)n, sizeof(*r->slots));
    r->batch = must_calloc((size_t)n, sizeof(qn_generation *));
    r->batch_slots = must_calloc((size_t)n, sizeof(slot *));
    r->done = must_calloc((size_t)n, sizeof(bool));
    r->errors = must_calloc((size_t)n, sizeof(qn_error));
    r->capacity = (size_t)n * ANSWERS_AHEAD;
    r->entries = must_calloc(r->capacity, sizeof(entry));
    if (!r->pool) code = open_session(&r->slots[r->n_slot++].session, g->settings, g->model, g->dir);
    const qn_session_options options = {.pool = r->pool};
    for (qn_error err; !code && r->n_slot < (size_t)n;)
        if (qn_session_create(&r->slots[r->n_slot++].session, g->model, &options, &err))
            code = fail_error(g->dir, &err);
    return code;
}

static void close_sessions(runner *r) {
    for (size_t i = 0; i < r->n_slot; i++) {
        if (r->slots[i].entry) qn_generation_free(r->slots[i].entry->generation);
        qn_session_free(r->slots[i].session);
    }
    for (size_t i = 0; i < r->n_entry; i++) {
        forget_request(entry_at(r, i));
        json_decref(entry_at(r, i)->answer);
    }
    qn_kv_pool_free(r->pool);
    free(r->slots);
    free(r->entries);
    free(r->batch);
    free(r->batch_slots);
    free(r->done);
    free(r->errors);
    free(r->input.text.data);
}

int run_jsonl(generator *g) {
    runner r = {.generator = g};
    int code = open_sessions(&r);
    while (!code && !ferror(stdout)) {
        start_records(&r);
        if (interrupted()) cancel(&r);
        step(&r);
        print_answers(&r);
        if (r.has_ended && !r.n_entry) break;
    }
    if (!code) code = r.read_code ? r.read_code : r.code;
    close_sessions(&r);
    return code;
}
