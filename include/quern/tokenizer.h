/* SPDX-License-Identifier: Apache-2.0 */
/** @file tokenizer.h
 * The byte-level BPE tokenizer of a Hugging Face tokenizer.json, token for token.
 *
 * Text is UTF-8 with a length; U+0000 is a character like any other. Ids and texts of special
 * tokens come from the files alone.
 *
 * Threads: a tokenizer is immutable but for an internal cache with its own lock: any number of
 * threads may use one. A decoder belongs to one thread at a time.
 */
#ifndef QUERN_TOKENIZER_H
#define QUERN_TOKENIZER_H

#include "status.h"

typedef struct qn_tokenizer qn_tokenizer;

/** Growing arrays that the library fills: start with zeros, reuse freely, release at the end. `text.data` is
 * followed by a zero byte that `size` does not count. */
typedef struct qn_text {
    char *data;
    size_t size;
    size_t capacity;
} qn_text;

typedef struct qn_ids {
    int32_t *data;
    size_t size;
    size_t capacity;
} qn_ids;

/** A run of a text, in bytes. The runs of a text follow one another and cover all of it. */
typedef struct qn_text_run {
    size_t size;
    bool trusted; /**< written by the chat template itself: only such text may match an added token */
} qn_text_run;

/** Turns a stream of ids into text without ever splitting a character. */
typedef struct qn_decoder qn_decoder;

#ifdef __cplusplus
extern "C" {
#endif

QN_API void qn_text_release(qn_text *text); /**< frees the memory and leaves zeros */
QN_API void qn_ids_release(qn_ids *ids);    /**< frees the memory and leaves zeros */

/**
 * Open the tokenizer of a model directory: tokenizer.json, and where they are there tokenizer_config.json,
 * special_tokens_map.json and added_tokens.json.
 *
 * Errors   EIO: a file cannot be read; EFORMAT: malformed, or inconsistent (an id out of range or twice, a merge
 *          of unknown tokens, files that contradict each other); EUNSUPPORTED: a kind of model, normalizer,
 *          pre-tokenizer, post-processor or decoder that is not byte-level BPE, or a setting that asks for another
 *          encoding; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_open(qn_tokenizer **out, const char *dir, qn_error *err);
QN_API void qn_tokenizer_close(qn_tokenizer *tokenizer); /**< NULL is fine */

/** One more than the highest id that stands for text. Rows of the model's matrices from here on are padding: never
 * drawn. */
QN_API int32_t qn_tokenizer_n_vocab(const qn_tokenizer *tokenizer);

/** The id of an added or ordinary token by its exact text in tokenizer.json ("<|im_end|>"), or -1. */
QN_API int32_t qn_tokenizer_id(const qn_tokenizer *tokenizer, const char *text);

/** Whether the id is an added token that tokenizer.json marks "special". */
QN_API bool qn_tokenizer_is_special(const qn_tokenizer *tokenizer, int32_t id);

/** The id of the tokenizer's `eos_token`, or -1. As transformers has it: what tokenizer_config.json names, or where
 * it has no such key and no other tokenizer_class than Qwen2Tokenizer, "<|endoftext|>". */
QN_API int32_t qn_tokenizer_eos(const qn_tokenizer *tokenizer);

/**
 * Append the ids of a text, and none besides.
 *
 * text     size bytes of UTF-8; NULL is fine when size is 0.
 * special  true: texts of added tokens become their ids. false: they are plain text like any other.
 * Cost     linear in size; memory bounded by a constant times size.
 * Errors   EINVAL: not UTF-8 (the message tells the byte's offset); EFULL: the file's regular expression needs more
 *          steps than a text of this size may take (no published one does); ENOMEM. `ids` is as before then.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_encode(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text,
                                                  size_t size, bool special, qn_error *err);

/**
 * The same for a text that is partly trusted: only a match that lies in trusted text becomes an added token, "special"
 * or not. Elsewhere its text is plain, so that a user's "<|im_end|>" ends no turn. All that lies between two such tokens is
 * normalized, split and merged as one text, wherever runs end: where nothing untrusted spells an added token, the ids are
 * those of qn_tokenizer_encode.
 *
 * runs     n_run of them, in order; their sizes add up to `size`. Adjacent trusted runs are one.
 * Errors   as qn_tokenizer_encode; EINVAL: the runs do not add up to size.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_encode_runs(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text,
                                                       size_t size, const qn_text_run *runs, size_t n_run,
                                                       qn_error *err);

/**
 * As qn_tokenizer_encode, with the ids that the post_processor puts before and after a text, as transformers' `tokenizer(text)`
 * gives them (Qwen3-Embedding: "<|endoftext|>" after it; Qwen3: none). For texts that stand alone; neither for one that
 * continues another nor for a prompt that a chat template rendered. An empty text has these ids too.
 *
 * Errors   as qn_tokenizer_encode.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_encode_document(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text,
                                                           size_t size, bool special, qn_error *err);

/**
 * Append the text of ids. Bytes that are no UTF-8 become U+FFFD as in Python's errors="replace"; padding ids become
 * nothing.
 *
 * skip_special  leave out added tokens that are marked "special".
 * Errors        EINVAL: a negative id; ENOMEM. `text` is as before then.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_decode(const qn_tokenizer *tokenizer, qn_text *text, const int32_t *ids,
                                                  size_t n_ids, bool skip_special, qn_error *err);

/** A decoder over a tokenizer, which must outlive it. Errors: EINVAL: NULL; ENOMEM. */
QN_NODISCARD QN_API qn_status qn_decoder_create(qn_decoder **out, const qn_tokenizer *tokenizer, bool skip_special,
                                                qn_error *err);
QN_API void qn_decoder_free(qn_decoder *decoder); /**< NULL is fine */

/** Append what is certain after one more id: whole characters only. The pieces and the finish together equal
 * qn_tokenizer_decode. Errors: EINVAL: a negative id; ENOMEM. */
QN_NODISCARD QN_API qn_status qn_decoder_push(qn_decoder *decoder, qn_text *text, int32_t id, qn_error *err);

/** Append what was held back (an incomplete character: U+FFFD) and start anew. Errors: ENOMEM. */
QN_NODISCARD QN_API qn_status qn_decoder_finish(qn_decoder *decoder, qn_text *text, qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
