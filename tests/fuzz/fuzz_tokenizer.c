/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer's untrusted inputs. The first byte says what the rest is: 'j' a tokenizer.json, 't' a text for the demo
 * model's tokenizer, 'i' ids (two bytes each), 'p' a regular expression, a zero byte and a text. */
#include "../../src/base/utf8.h"
#include "../../src/text/pretokenize.h"
#include "../../src/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) abort();
}

/* Decoding at once and id by id is the same valid text. */
static void check_ids(const qn_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip, qn_text *whole) {
    qn_text streamed = {0};
    qn_decoder *decoder = NULL;
    require(qn_tokenizer_decode(tokenizer, whole, ids, n, skip, NULL) == QN_OK);
    require(qn_decoder_create(&decoder, tokenizer, skip, NULL) == QN_OK);
    for (size_t i = 0; i < n; i++) {
        require(qn_decoder_push(decoder, &streamed, ids[i], NULL) == QN_OK);
        require(qni_utf8_is_valid(streamed.data, streamed.size));
    }
    require(qn_decoder_finish(decoder, &streamed, NULL) == QN_OK);
    require(whole->size == streamed.size && memcmp(whole->data, streamed.data, whole->size) == 0);
    qn_decoder_free(decoder);
    qn_text_release(&streamed);
}

static void check_text(const qn_tokenizer *tokenizer, const char *text, size_t size) {
    for (int special = 0; special < 2; special++) {
        qn_ids ids = {0};
        qn_text back = {0};
        qn_status status = qn_tokenizer_encode(tokenizer, &ids, text, size, special, NULL);
        require(status == QN_OK || status == QN_EFULL || (status == QN_EINVAL && !qni_utf8_is_valid(text, size)));
        require(status == QN_OK || ids.size == 0);
        check_ids(tokenizer, ids.data, ids.size, false, &back);
        qn_ids_release(&ids);
        qn_text_release(&back);
    }
}

static void check_file(const char *json, size_t size) {
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {0};
    if (qni_tokenizer_open_text(&tokenizer, json, size, NULL, 0, &err) != QN_OK) {
        require(tokenizer == NULL && err.message[0] != '\0');
        return;
    }
    check_text(tokenizer, json, size < 200 ? size : 200);
    qn_tokenizer_close(tokenizer);
}

static qn_status count(void *user, const char *piece, size_t size, qn_error *err) {
    (void)piece;
    (void)err;
    *(size_t *)user += size;
    return size > 0 ? QN_OK : QN_EINVAL;
}

/* Pieces cover the text, and both of PCRE2's engines give as many bytes. */
static void check_pattern(const char *data, size_t size) {
    const char *zero = memchr(data, '\0', size);
    size_t n = zero != NULL ? (size_t)(zero - data) : size;
    const char *text = zero != NULL ? zero + 1 : "some text  12\n";
    size_t n_text = zero != NULL ? size - n - 1 : strlen(text);
    if (n > 64 || n_text > 64 || !qni_utf8_is_valid(text, n_text)) return;
    for (int engine = 0; engine < 2; engine++) {
        qni_splitting *splitting = NULL;
        require(qni_splitting_create(&splitting, (qni_split_engine)engine, NULL) == QN_OK);
        if (qni_splitting_add(splitting, data, n, NULL) == QN_OK) {
            qni_split_scratch *scratch = qni_split_scratch_create(splitting);
            require(scratch != NULL);
            size_t covered = 0;
            qni_split_begin(scratch, n_text);
            qn_status status = qni_splitting_run(splitting, scratch, text, n_text, count, &covered, NULL);
            require(status == QN_EFULL || (status == QN_OK && covered == n_text));
            qni_split_scratch_free(scratch);
        }
        qni_splitting_free(splitting);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static qn_tokenizer *demo;
    if (demo == NULL && qn_tokenizer_open(&demo, "models/demo", NULL) != QN_OK) abort();
    if (size == 0) return 0;
    const char *rest = (const char *)data + 1;
    size--;
    if (data[0] == 'j') check_file(rest, size);
    if (data[0] == 't') check_text(demo, rest, size);
    if (data[0] == 'p') check_pattern(rest, size);
    if (data[0] == 'i') {
        int32_t ids[256];
        size_t n = size / 2 < 256 ? size / 2 : 256;
        for (size_t i = 0; i < n; i++) ids[i] = (uint8_t)rest[2 * i] | (uint8_t)rest[2 * i + 1] << 8;
        for (int skip = 0; skip < 2; skip++) {
            qn_text text = {0};
            check_ids(demo, ids, n, skip, &text);
            qn_text_release(&text);
        }
    }
    return 0;
}
