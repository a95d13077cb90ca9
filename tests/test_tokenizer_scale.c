/* SPDX-License-Identifier: Apache-2.0 */
/* Long uniform texts, on which a naive tokenizer is quadratic, and many threads on one tokenizer. Nothing is timed:
 * quadratic time would be hours for these sizes, and the run's time limit would end it. */
#include "../src/base/memory.h"
#include "../src/text/bpe.h"
#include "support/cmocka_all.h"
#include "support/sessions.h"

#include <pthread.h>
#include <quern/tokenizer.h>
#include <stdlib.h>
#include <string.h>

static qn_tokenizer *tokenizer;

static int open_tokenizer(void **state) {
    (void)state;
    return qn_tokenizer_open(&tokenizer, "models/demo", NULL) != QN_OK;
}

static int close_tokenizer(void **state) {
    (void)state;
    qn_tokenizer_close(tokenizer);
    return 0;
}

/* `unit` repeated to about `size` bytes, after `first`; allocated. */
static char *repeat(const char *first, const char *unit, size_t size, size_t *n) {
    size_t n_first = strlen(first), n_unit = strlen(unit), count = size / n_unit;
    char *text = malloc(n_first + count * n_unit);
    assert_non_null(text);
    memcpy(text, first, n_first);
    for (size_t i = 0; i < count; i++) memcpy(text + n_first + i * n_unit, unit, n_unit);
    *n = n_first + count * n_unit;
    return text;
}

static void test_long_runs(void **state) {
    (void)state;
    static const struct {
        const char *first, *unit;
    } cases[] = {
        {"", "a"},
        {"", " "},
        {"", "\n"},
        {"", "\r\n \t"},
        {"", "\u3000"},
        {"a", "\u0301"},
        {"a", "\u0301\u0323"},
        {"", "\u0323\u0301\u0345\u0334"},
        {"", "\u09C7\u09BE"},
        {"", "\u1100\u1161\u11A8"},
        {"", "<"},
        {"", "<|im_start"},
        {"", "<|im_start|>"},
        {"", "!?"},
        {"", "7"},
        {"", "abcdefghijklmnopqrstuvwxyz"},
        {"", " \n\ta1!\u00E9\u4E2D"},
        {"", "'s"},
        {"", "\u0958"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t size = 1 << 18; size <= 1 << 20; size *= 4) {
            size_t n;
            char *text = repeat(cases[i].first, cases[i].unit, size, &n);
            qn_ids ids = {0};
            qn_text back = {0}, again = {0};
            assert_ok(qn_tokenizer_encode(tokenizer, &ids, text, n, true, err));
            assert_ok(qn_tokenizer_decode(tokenizer, &back, ids.data, ids.size, false, err));
            /* Decoding gives the normal form, which encodes to the same ids. */
            ids.size = 0;
            assert_ok(qn_tokenizer_encode(tokenizer, &ids, back.data, back.size, true, err));
            assert_ok(qn_tokenizer_decode(tokenizer, &again, ids.data, ids.size, false, err));
            assert_int_equal(back.size, again.size);
            assert_memory_equal(back.data, again.data, back.size);
            free(text);
            qn_ids_release(&ids);
            qn_text_release(&back);
            qn_text_release(&again);
        }
    }
}

/* Pre-tokens whose merges queue more pairs than they have bytes: with 60 bytes, "tatata…" has 88 in the heap at once,
 * "onessoness…" with the demo model 82. Each uses a fresh tokenizer, because buffers are kept for the next text. */
static void test_growing_heap(void **state) {
    (void)state;
    static const struct {
        const char *dir, *unit;
    } cases[] = {{"tests/data/tokenizer", "ta"}, {"models/demo", "oness"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n;
        char *text = repeat("", cases[i].unit, 60, &n);
        qn_tokenizer *fresh = NULL;
        qn_ids ids = {0};
        qn_text back = {0};
        assert_ok(qn_tokenizer_open(&fresh, cases[i].dir, err));
        assert_ok(qn_tokenizer_encode(fresh, &ids, text, n, true, err));
        assert_ok(qn_tokenizer_decode(fresh, &back, ids.data, ids.size, false, err));
        assert_int_equal(back.size, n);
        assert_memory_equal(back.data, text, n);
        free(text);
        qn_ids_release(&ids);
        qn_text_release(&back);
        qn_tokenizer_close(fresh);
    }
}

/* The definition of merging, implemented naively: the best pair of all, leftmost within its rank, until none is
 * left. */
static size_t merge_slowly(int32_t *id, size_t n, const int32_t *left, const int32_t *right, const int32_t *made,
                           size_t n_merge) {
    for (size_t rank = 0; rank < n_merge;) {
        size_t at = 0;
        while (at + 1 < n && (id[at] != left[rank] || id[at + 1] != right[rank])) at++;
        if (at + 1 >= n) {
            rank++;
            continue;
        }
        id[at] = made[rank];
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
        rank = 0;
    }
    return n;
}

/* Random merges over four letters, including merges that enable a pair of lower rank later: short and long pre-tokens
 * agree with the definition. */
static void test_merging_against_definition(void **state) {
    (void)state;
    enum { N_MERGE = 60, MOST = 300 };
    test_rng rng = {5};
    for (int round = 0; round < 200; round++) {
        qni_bpe bpe = {0};
        assert_ok(qni_bpe_init(&bpe, N_MERGE, err));
        for (int32_t byte = 0; byte < 256; byte++) bpe.byte_id[byte] = byte;
        int32_t left[N_MERGE], right[N_MERGE], made[N_MERGE];
        size_t n_merge = 0;
        while (n_merge < N_MERGE) {
            int32_t pool = 4 + rng_below(&rng, 40), a = rng_below(&rng, pool), b = rng_below(&rng, pool);
            left[n_merge] = a < 4 ? 'a' + a : 252 + a;
            right[n_merge] = b < 4 ? 'a' + b : 252 + b;
            made[n_merge] = 256 + rng_below(&rng, 40);
            if (qni_bpe_add(&bpe, left[n_merge], right[n_merge], made[n_merge])) n_merge++;
        }
        qni_bpe_scratch *scratch = qni_bpe_scratch_create();
        assert_non_null(scratch);
        for (int k = 0; k < 30; k++) {
            char pretoken[MOST];
            int32_t want[MOST];
            size_t n = 1 + (size_t)rng_below(&rng, k % 3 == 0 ? MOST : 40);
            for (size_t i = 0; i < n; i++) want[i] = pretoken[i] = (char)('a' + rng_below(&rng, 4));
            size_t n_want = merge_slowly(want, n, left, right, made, n_merge);
            for (int again = 0; again < 2; again++) { /* the second pass is served from the cache */
                qn_ids ids = {0};
                assert_true(qni_bpe_encode(&bpe, scratch, &ids, pretoken, n));
                assert_int_equal(ids.size, n_want);
                assert_memory_equal(ids.data, want, n_want * sizeof *want);
                qn_ids_release(&ids);
            }
        }
        qni_bpe_scratch_free(scratch);
        qni_bpe_release(&bpe);
    }
}

enum { N_THREAD = 8, N_TEXT = 64, N_ROUND = 30 };
static const char *const words[] = {" the", " quick",        "\n",         " caf\u00E9", " e\u0301", "123", " <think>",
                                    "!?",   " \u4E2D\u6587", "<|im_end|>", "  ",         " lantern"};

typedef struct work {
    pthread_t thread;
    uint64_t sum; /* hash of the ids */
    bool failed;
} work;

/* Texts depend only on their number, so that all threads do the same work. */
static size_t make_text(int number, char *text, size_t size) {
    test_rng rng = {(uint64_t)number + 1};
    size_t n = 0;
    while (n + 16 < size) {
        const char *word = words[rng_below(&rng, sizeof words / sizeof *words)];
        memcpy(text + n, word, strlen(word));
        n += strlen(word);
    }
    return n;
}

static void *encode_all(void *user) {
    work *w = user;
    qn_ids ids = {0};
    for (int round = 0; round < N_ROUND && !w->failed; round++) {
        for (int number = 0; number < N_TEXT; number++) {
            char text[400];
            size_t n = make_text(number, text, sizeof text);
            ids.size = 0;
            if (qn_tokenizer_encode(tokenizer, &ids, text, n, number % 2 == 0, NULL) != QN_OK) w->failed = true;
            for (size_t i = 0; i < ids.size; i++) w->sum = w->sum * 1000003 + (uint64_t)ids.data[i];
        }
    }
    qn_ids_release(&ids);
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    work works[N_THREAD + 1] = {0};
    for (int i = 0; i < N_THREAD; i++) {
        assert_int_equal(pthread_create(&works[i].thread, NULL, encode_all, &works[i]), 0);
    }
    encode_all(&works[N_THREAD]);
    for (int i = 0; i < N_THREAD; i++) assert_int_equal(pthread_join(works[i].thread, NULL), 0);
    for (int i = 0; i <= N_THREAD; i++) {
        assert_false(works[i].failed);
        assert_true(works[i].sum == works[N_THREAD].sum);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_growing_heap),
        cmocka_unit_test(test_merging_against_definition),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
