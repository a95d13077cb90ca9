/* SPDX-License-Identifier: Apache-2.0 */
/* Pre-tokenization with PCRE2: patterns are compiled once and matched without rechecking the text's UTF-8, within a
 * step budget proportional to its length. PCRE2's own match limit counts neither the characters that a repetition walks
 * nor, under JIT, all attempts; callouts at the places chosen by meter.h count both. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pretokenize.h"

#include "../base/memory.h"
#include "../base/utf8.h"
#include "meter.h"
#include "pattern.h"

#include <pcre2.h>

struct qni_splitting {
    pcre2_general_context *memory;
    pcre2_code *code[QNI_SPLIT_STAGES];
    bool jit[QNI_SPLIT_STAGES];
    int n;
    qni_split_engine engine;
};

struct qni_split_scratch {
    pcre2_match_context *context;
    uint64_t left; /* steps left for the rest of the text */
    size_t at;     /* position of the search's last step */
    pcre2_match_data *match[QNI_SPLIT_STAGES];
    int n;
};

static void *allocate(PCRE2_SIZE bytes, void *user) {
    (void)user;
    return qni_realloc(NULL, bytes, 1);
}

static void release(void *pointer, void *user) {
    (void)user;
    qni_free(pointer);
}

qn_status qni_splitting_create(qni_splitting **out, qni_split_engine engine, qn_error *err) {
    qni_splitting *splitting = qni_calloc(1, sizeof *splitting);
    if (splitting != NULL) {
        splitting->engine = engine;
        splitting->memory = pcre2_general_context_create(allocate, release, NULL);
    }
    if (splitting == NULL || splitting->memory == NULL) {
        qni_free(splitting);
        return qni_fail(err, QN_ENOMEM, "pre_tokenizer: out of memory");
    }
    *out = splitting;
    return QN_OK;
}

void qni_splitting_free(qni_splitting *splitting) {
    if (splitting == NULL) return;
    for (int i = 0; i < splitting->n; i++) pcre2_code_free(splitting->code[i]);
    pcre2_general_context_free(splitting->memory);
    qni_free(splitting);
}

/* Count a step of a search: one attempt, plus each byte since the last step. */
static int count_step(pcre2_callout_block *block, void *user) {
    qni_split_scratch *scratch = user;
    const size_t at = block->current_position;
    const uint64_t steps = 1 + (at > scratch->at ? at - scratch->at : scratch->at - at);
    scratch->at = at;
    if (steps > scratch->left) return PCRE2_ERROR_MATCHLIMIT;
    scratch->left -= steps;
    return 0;
}

/* The pattern for PCRE2, with its callouts. */
static qn_status translate(qn_text *out, const char *pattern, size_t size, qn_error *err) {
    qn_text text = {0};
    qn_status status = qni_pattern_translate(&text, pattern, size, err);
    if (status == QN_OK && !qni_pattern_meter(out, text.data, text.size)) {
        status = qni_fail(err, QN_ENOMEM, "pre_tokenizer: out of memory");
    }
    qn_text_release(&text);
    return status;
}

qn_status qni_splitting_add(qni_splitting *splitting, const char *pattern, size_t size, qn_error *err) {
    if (splitting->n == QNI_SPLIT_STAGES) {
        return qni_fail(err, QN_EUNSUPPORTED, "pre_tokenizer: more than %d Splits", QNI_SPLIT_STAGES);
    }
    pcre2_compile_context *context = pcre2_compile_context_create(splitting->memory);
    if (context == NULL) return qni_fail(err, QN_ENOMEM, "pre_tokenizer: out of memory");
    qn_text text = {0};
    pcre2_code *code = NULL;
    qn_status status = translate(&text, pattern, size, err);
    if (status == QN_OK) {
        int error = 0;
        PCRE2_SIZE at = 0;
        PCRE2_SPTR source = text.data != NULL ? (PCRE2_SPTR)text.data : (PCRE2_SPTR) "";
        code = pcre2_compile(source, text.size, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, context);
        if (code == NULL && error == PCRE2_ERROR_HEAP_FAILED) {
            status = qni_fail(err, QN_ENOMEM, "pre_tokenizer: out of memory");
        } else if (code == NULL) {
            PCRE2_UCHAR why[120] = "";
            pcre2_get_error_message(error, why, sizeof why);
            status = qni_fail(err, QN_EFORMAT, "regular expression: %s", (const char *)why);
        }
    }
    if (code != NULL) {
        /* JIT fails on a machine that forbids writable code, or with a PCRE2 built without it; then use the
         * interpreter. */
        bool jit = splitting->engine == QNI_SPLIT_FASTEST && pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
        splitting->jit[splitting->n] = jit;
        splitting->code[splitting->n++] = code;
    }
    pcre2_compile_context_free(context);
    qn_text_release(&text);
    return status;
}

qni_split_scratch *qni_split_scratch_create(const qni_splitting *splitting) {
    qni_split_scratch *scratch = qni_calloc(1, sizeof *scratch);
    if (scratch == NULL) return NULL;
    scratch->context = pcre2_match_context_create(splitting->memory);
    bool whole = scratch->context != NULL && pcre2_set_callout(scratch->context, count_step, scratch) == 0;
    for (; whole && scratch->n < splitting->n; scratch->n++) {
        scratch->match[scratch->n] = pcre2_match_data_create(1, splitting->memory);
        whole = scratch->match[scratch->n] != NULL;
    }
    if (whole) return scratch;
    qni_split_scratch_free(scratch);
    return NULL;
}

void qni_split_scratch_free(qni_split_scratch *scratch) {
    if (scratch == NULL) return;
    for (int i = 0; i < scratch->n; i++) pcre2_match_data_free(scratch->match[i]);
    pcre2_match_context_free(scratch->context);
    qni_free(scratch);
}

/* One search. Falls back to the interpreter when the JIT's small stack is exhausted. */
static int search(const qni_splitting *splitting, qni_split_scratch *scratch, int stage, const char *text, size_t size,
                  size_t at) {
    pcre2_code *code = splitting->code[stage];
    pcre2_match_data *match = scratch->match[stage];
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    scratch->at = at;
    if (splitting->jit[stage]) {
        found = pcre2_jit_match(code, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK, match, scratch->context);
    }
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
        found =
            pcre2_match(code, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, scratch->context);
    }
    return found;
}

static qn_status failed(int code, size_t at, qn_error *err) {
    if (code == PCRE2_ERROR_NOMEMORY) return qni_fail(err, QN_ENOMEM, "pre_tokenizer: out of memory");
    PCRE2_UCHAR why[120] = "";
    pcre2_get_error_message(code, why, sizeof why);
    return qni_fail(err, QN_EFULL, "pre_tokenizer: regular expression at byte %zu: %s", at, (const char *)why);
}

typedef struct run_state {
    const qni_splitting *splitting;
    qni_split_scratch *scratch;
    qni_pretoken_fn on_pretoken;
    void *user;
    qn_error *err;
} run_state;

static qn_status run_stage(const run_state *run, int stage, const char *text, size_t size) {
    if (stage == run->splitting->n) return run->on_pretoken(run->user, text, size, run->err);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(run->scratch->match[stage]);
    size_t taken = 0; /* text before this offset has been emitted */
    for (size_t at = 0; at < size;) {
        int found = search(run->splitting, run->scratch, stage, text, size, at);
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0) return failed(found, at, run->err);
        size_t first = span[0], end = span[1];
        if (first > taken) {
            QN_TRY(run_stage(run, stage + 1, text + taken, first - taken));
            taken = first;
        }
        if (end > first) {
            QN_TRY(run_stage(run, stage + 1, text + first, end - first));
            taken = at = end;
        } else {
            uint32_t point; /* an empty match is a cut; the next search starts one character later */
            at = end + (end < size ? qni_utf8_decode(text + end, size - end, &point) : 1);
        }
    }
    if (taken < size) return run_stage(run, stage + 1, text + taken, size - taken);
    return QN_OK;
}

void qni_split_begin(qni_split_scratch *scratch, size_t size) {
    /* Published patterns scan a run of white space, or of letters of the wrong case, back and forth a few times; the
     * worst uses 20 steps per byte. */
    enum { LEAST = 1000000, EACH = 128 };
    scratch->left = LEAST + (uint64_t)EACH * size;
}

qn_status qni_splitting_run(const qni_splitting *splitting, qni_split_scratch *scratch, const char *text, size_t size,
                            qni_pretoken_fn on_pretoken, void *user, qn_error *err) {
    /* PCRE2's limit for one search, in case it counts faster than we do. Its default is 10 million. */
    const uint32_t least = 10000000, most = UINT32_MAX / 2;
    uint32_t steps = size < (most - least) / 16 ? least + (uint32_t)size * 16 : most;
    pcre2_set_match_limit(scratch->context, steps);
    /* In KiB. A published pattern needs a frame or two; the limit is 64 bytes per byte of text. */
    size_t kib = 20000 + size / 16;
    pcre2_set_heap_limit(scratch->context, kib < most ? (uint32_t)kib : most);
    if (size == 0) return QN_OK;
    run_state run = {.splitting = splitting, .scratch = scratch, .on_pretoken = on_pretoken, .user = user, .err = err};
    return run_stage(&run, 0, text, size);
}
