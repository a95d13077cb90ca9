/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation can fail. Let the n-th one fail, in the libraries too: the result is ENOMEM, nothing leaks and
 * nothing changes. Also checks the memory bound. Skipped under the sanitizers, which have their own allocators. */
#include "../src/text/tokenizer_impl.h"
#include "support/cmocka_all.h"
#include "support/tokenizers.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAVE_FAILING_MALLOC 0
#elif defined(__has_feature)
#define HAVE_FAILING_MALLOC (!__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer))
#else
#define HAVE_FAILING_MALLOC 1
#endif

/* Statistics of the allocator below since heap_watch. This program has one thread. */
static struct {
    bool on;
    size_t n, fail_at; /* allocations so far; the one that fails, counting from 1; 0: none */
    long live;
    long bytes, peak; /* relative to heap_watch: earlier blocks may be freed */
} heap;

static void heap_watch(size_t fail_at) {
    memset(&heap, 0, sizeof heap);
    heap.fail_at = fail_at;
    heap.on = true;
}

#if HAVE_FAILING_MALLOC
/* glibc's own functions, beneath those replaced by this program. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void __libc_free(void *pointer);

/* Visible to the libraries too. */
#define EXPORTED __attribute__((visibility("default")))

static bool fails(void) {
    if (!heap.on || ++heap.n != heap.fail_at) return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *pointer) {
    if (heap.on && pointer != NULL) {
        heap.live++;
        heap.bytes += (long)malloc_usable_size(pointer);
        if (heap.bytes > heap.peak) heap.peak = heap.bytes;
    }
    return pointer;
}

static void uncount(void *pointer) {
    if (!heap.on || pointer == NULL) return;
    heap.live--;
    heap.bytes -= (long)malloc_usable_size(pointer);
}

EXPORTED void *malloc(size_t size) {
    return fails() ? NULL : counted(__libc_malloc(size));
}

EXPORTED void *calloc(size_t count, size_t size) {
    return fails() ? NULL : counted(__libc_calloc(count, size));
}

EXPORTED void *realloc(void *pointer, size_t size) {
    if (fails()) return NULL;
    long old = heap.on && pointer != NULL ? (long)malloc_usable_size(pointer) : 0;
    void *grown = __libc_realloc(pointer, size);
    if (grown != NULL && heap.on) {
        heap.live -= pointer != NULL;
        heap.bytes -= old;
        counted(grown);
    }
    return grown;
}

EXPORTED void free(void *pointer) {
    uncount(pointer);
    __libc_free(pointer);
}
#endif

static const char config[] = "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"added_tokens_decoder\": {\"260\": "
                             "{\"content\": \"<|new|>\", \"special\": true}}, "
                             "\"eos_token\": \"<|a|>\", \"additional_special_tokens\": [\"<|two|>\"]}";
static char *json;
static qn_tokenizer *tokenizer;

static int set_up(void **state) {
    (void)state;
    json_t *root = small_tokenizer();
    json_object_set_new(json_array_get(json_object_get(root, "added_tokens"), 1), "normalized", json_true());
    json = json_dumps(root, 0);
    json_decref(root);
    return qni_tokenizer_open_text(&tokenizer, json, strlen(json), config, strlen(config), NULL) != QN_OK;
}

static int tear_down(void **state) {
    (void)state;
    qn_tokenizer_close(tokenizer);
    free(json);
    return 0;
}

static void test_open(void **state) {
    (void)state;
    if (!HAVE_FAILING_MALLOC) skip();
    qn_status status = QN_ENOMEM;
    size_t n = 0;
    while (status == QN_ENOMEM) {
        qn_tokenizer *opened = NULL;
        qn_error err = {0};
        heap_watch(++n);
        status = qni_tokenizer_open_text(&opened, json, strlen(json), config, strlen(config), &err);
        /* A failure inside PCRE2's JIT compiler is not an error: the interpreter is used. */
        if (status == QN_OK && heap.n >= n) status = QN_ENOMEM;
        if (opened != NULL) {
            qn_tokenizer_close(opened);
        } else if (status == QN_ENOMEM) {
            heap.on = false;
            assert_int_equal(err.status, QN_ENOMEM);
        }
        heap.on = false;
        assert_int_equal(heap.live, 0);
    }
    assert_int_equal(status, QN_OK);
    assert_true(n > 500);
}

/* Append a text several times. */
static size_t append_times(char *text, size_t n, const char *more, int times) {
    for (int i = 0; i < times; i++, n += strlen(more)) memcpy(text + n, more, strlen(more));
    return n;
}

/* Text that exercises every path: added tokens of both kinds, marks, long and short pre-tokens. */
static size_t mixed_text(char *text) {
    size_t n = append_times(text, 0, "abc e\u0301 <|a|>abcabc \u0958<b>x", 1);
    n = append_times(text, n, "abc", 100);
    n = append_times(text, n, " q", 1);
    return append_times(text, n, "\u0301\u0323", 100);
}

static void test_encode_and_decode(void **state) {
    (void)state;
    if (!HAVE_FAILING_MALLOC) skip();
    char text[1024];
    size_t n_text = mixed_text(text), n = 0;
    qn_ids want = {0};
    assert_int_equal(qn_tokenizer_encode(tokenizer, &want, text, n_text, true, NULL), QN_OK);
    bool done = false;
    while (!done) {
        /* A fresh tokenizer has no spare buffers, so every call allocates them. */
        qn_tokenizer *fresh = NULL;
        assert_int_equal(qni_tokenizer_open_text(&fresh, json, strlen(json), config, strlen(config), NULL), QN_OK);
        qn_ids ids = {0};
        qn_text back = {0};
        qn_error err = {0};
        heap_watch(++n);
        qn_status status = qn_tokenizer_encode(fresh, &ids, text, n_text, true, &err);
        size_t n_ids = ids.size;
        if (status == QN_OK) status = qn_tokenizer_decode(fresh, &back, ids.data, ids.size, false, &err);
        done = heap.n < n;
        heap.fail_at = 0;
        heap.on = false;
        assert_int_equal(status, done ? QN_OK : QN_ENOMEM);
        if (status != QN_OK) {
            assert_int_equal(back.size, 0);
            assert_true(n_ids == 0 || n_ids == want.size);
            /* The same tokenizer works again once memory is available. */
            ids.size = 0;
            assert_int_equal(qn_tokenizer_encode(fresh, &ids, text, n_text, true, NULL), QN_OK);
        }
        assert_int_equal(ids.size, want.size);
        assert_memory_equal(ids.data, want.data, want.size * sizeof *want.data);
        qn_ids_release(&ids);
        qn_text_release(&back);
        qn_tokenizer_close(fresh);
    }
    assert_true(n > 10);
    qn_ids_release(&want);
}

static void test_decoder(void **state) {
    (void)state;
    if (!HAVE_FAILING_MALLOC) skip();
    for (size_t n = 1; n < 4; n++) {
        qn_decoder *decoder = NULL;
        qn_text text = {0};
        heap_watch(n);
        qn_status status = qn_decoder_create(&decoder, tokenizer, false, NULL);
        if (status == QN_OK) status = qn_decoder_push(decoder, &text, 0xE4, NULL);
        if (status == QN_OK) status = qn_decoder_push(decoder, &text, 'x', NULL);
        bool failed = heap.n >= n;
        heap.on = false;
        assert_int_equal(status, failed ? QN_ENOMEM : QN_OK);
        if (decoder != NULL && failed) { /* earlier input is not lost, and the failed input can be pushed again */
            assert_int_equal(qn_decoder_push(decoder, &text, 0xE4, NULL), QN_OK);
            assert_int_equal(qn_decoder_push(decoder, &text, 'x', NULL), QN_OK);
        }
        if (decoder != NULL) assert_string_equal(text.data, "\uFFFDx");
        qn_decoder_free(decoder);
        qn_text_release(&text);
    }
}

/* If the whole text is one pre-token, the merger needs 32 bytes per byte, the ids 4 (8 while they grow), and the normal
 * form of marks the rest; it can be up to three times as long as the text. Afterwards only small buffers are kept. */
static void test_memory_bound(void **state) {
    (void)state;
    if (!HAVE_FAILING_MALLOC) skip();
    enum { SIZE = 1 << 20, CONSTANT = 5 << 20 };
    static const struct {
        const char *unit;
        long factor;
    } cases[] = {{"a", 64}, {" ", 64}, {"\u0301\u0323", 64}, {"\u0344", 160}, {"\U0001D160", 160}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n_unit = strlen(cases[i].unit);
        char *text = malloc(SIZE);
        for (size_t at = 0; at + n_unit <= SIZE; at += n_unit) memcpy(text + at, cases[i].unit, n_unit);
        qn_ids ids = {0};
        heap_watch(0);
        qn_status status = qn_tokenizer_encode(tokenizer, &ids, text, SIZE, true, NULL);
        qn_ids_release(&ids);
        heap.on = false;
        assert_int_equal(status, QN_OK);
        if (heap.peak > cases[i].factor * SIZE + CONSTANT) fail_msg("case %zu: %ld bytes at the peak", i, heap.peak);
        assert_true(heap.bytes <= CONSTANT);
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_encode_and_decode),
        cmocka_unit_test(test_decoder),
        cmocka_unit_test(test_memory_bound),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
