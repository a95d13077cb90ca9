/* SPDX-License-Identifier: Apache-2.0 */
/** @file tokenizer.h
 * The byte-level BPE tokenizer of a Hugging Face tokenizer.json.
 *
 * Results match Hugging Face's token for token. Text is UTF-8 with an explicit length; U+0000 is an ordinary character.
 * Ids and texts of special tokens come only from the files.
 *
 * Threads: a tokenizer is immutable except for an internal cache with its own lock, and may be used by any number of
 * threads. A decoder may be used by one thread at a time.
 */
#ifndef QUERN_TOKENIZER_H
#define QUERN_TOKENIZER_H

#include "status.h"

typedef struct qn_tokenizer qn_tokenizer;

/** Growable arrays that the library fills. Zero-initialize, reuse freely, release when done. `text.data` is followed by
 * a zero byte that `size` does not count. */
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

/** A run of bytes of a text. Runs are consecutive and cover the whole text. */
typedef struct qn_text_run {
    size_t size;
    bool trusted; /**< written by the chat template itself: only such text may match an added token */
} qn_text_run;

/** Streaming decoder from ids to text; never splits a character. */
typedef struct qn_decoder qn_decoder;

#ifdef __cplusplus
extern "C" {
#endif

QN_API void qn_text_release(qn_text *text); /**< frees the memory and leaves zeros */
QN_API void qn_ids_release(qn_ids *ids);    /**< frees the memory and leaves zeros */

/**
 * Open the tokenizer of a model directory: tokenizer.json and, if present, tokenizer_config.json,
 * special_tokens_map.json and added_tokens.json.
 *
 * Errors   EIO: a file cannot be read; EFORMAT: malformed, or inconsistent (an id out of range or duplicate, a merge
 *          of unknown tokens, files that contradict each other); EUNSUPPORTED: a model, normalizer, pre-tokenizer,
 *          post-processor or decoder that is not byte-level BPE, or a setting that would change the encoding; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_open(qn_tokenizer **out, const char *dir, qn_error *err);
QN_API void qn_tokenizer_close(qn_tokenizer *tokenizer); /**< NULL is fine */

/** Number of token ids (highest + 1). Logits at or above it are padding and are never sampled. */
QN_API int32_t qn_tokenizer_n_vocab(const qn_tokenizer *tokenizer);

/** The id of an added or ordinary token by its exact text in tokenizer.json ("<|im_end|>"), or -1. */
QN_API int32_t qn_tokenizer_id(const qn_tokenizer *tokenizer, const char *text);

/** Whether the id is an added token that tokenizer.json marks "special". */
QN_API bool qn_tokenizer_is_special(const qn_tokenizer *tokenizer, int32_t id);

/** The id of the tokenizer's `eos_token`, or -1. As in transformers, it is the token that tokenizer_config.json names. If
 * the key is missing and tokenizer_class is missing or Qwen2Tokenizer, it is "<|endoftext|>". */
QN_API int32_t qn_tokenizer_eos(const qn_tokenizer *tokenizer);

/**
 * Append the ids of a text, without those that a post_processor adds.
 *
 * text     size bytes of UTF-8; may be NULL if size is 0.
 * special  true: texts of added tokens become their ids. false: they are encoded as plain text.
 * Cost     linear in size; memory bounded by a constant times size.
 * Errors   EINVAL: not UTF-8 (the message gives the byte offset); EFULL: the file's regular expression exceeds the step
 *          limit for a text of this size (no published one does); ENOMEM. On error `ids` is unchanged.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_encode(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text,
                                                  size_t size, bool special, qn_error *err);

/**
 * As qn_tokenizer_encode, for partly trusted text. Only a match that lies in trusted text becomes an added token,
 * "special" or not. Elsewhere it is plain text, so a user's "<|im_end|>" cannot end a turn. The text between two added
 * tokens is normalized, split and merged as a whole, across run boundaries. If no untrusted text spells an added token,
 * the ids are those of qn_tokenizer_encode.
 *
 * runs     n_run of them, in order; their sizes add up to `size`. Adjacent trusted runs count as one.
 * Errors   as qn_tokenizer_encode; EINVAL: the runs do not add up to size.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_encode_runs(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text,
                                                       size_t size, const qn_text_run *runs, size_t n_run,
                                                       qn_error *err);

/**
 * As qn_tokenizer_encode, plus the ids that the post_processor adds before and after a text, as in transformers'
 * `tokenizer(text)` (Qwen3-Embedding: "<|endoftext|>" at the end; Qwen3: none). For standalone texts, not for the
 * continuation of a text or a prompt rendered by a chat template. An empty text gets these ids too.
 *
 * Errors   as qn_tokenizer_encode.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_encode_document(const qn_tokenizer *tokenizer, qn_ids *ids, const char *text,
                                                           size_t size, bool special, qn_error *err);

/**
 * Append the text of ids. Invalid UTF-8 becomes U+FFFD as with Python's errors="replace". Padding ids produce no text.
 *
 * skip_special  leave out added tokens marked "special".
 * Errors        EINVAL: a negative id; ENOMEM. On error `text` is unchanged.
 */
QN_NODISCARD QN_API qn_status qn_tokenizer_decode(const qn_tokenizer *tokenizer, qn_text *text, const int32_t *ids,
                                                  size_t n_ids, bool skip_special, qn_error *err);

/** Create a decoder for a tokenizer, which must outlive it. Errors: EINVAL: NULL; ENOMEM. */
QN_NODISCARD QN_API qn_status qn_decoder_create(qn_decoder **out, const qn_tokenizer *tokenizer, bool skip_special,
                                                qn_error *err);
QN_API void qn_decoder_free(qn_decoder *decoder); /**< NULL is fine */

/** Feed one id; append the complete characters it produced. The outputs of all pushes and the finish together equal
 * qn_tokenizer_decode. Errors: EINVAL: a negative id; ENOMEM. */
QN_NODISCARD QN_API qn_status qn_decoder_push(qn_decoder *decoder, qn_text *text, int32_t id, qn_error *err);

/** Append what is pending (U+FFFD for an incomplete character) and reset. Errors: ENOMEM. */
QN_NODISCARD QN_API qn_status qn_decoder_finish(qn_decoder *decoder, qn_text *text, qn_error *err);

#ifdef __cplusplus
}
#endif
#endif
