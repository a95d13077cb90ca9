/* SPDX-License-Identifier: Apache-2.0 */
/** @file session.h
 * A session is one sequence of token ids with its KV cache; qn_generate() turns it into text.
 *
 * On "cpu" the logits of a position depend only on the ids up to it, bit for bit. How the ids were fed (in one call, in
 * chunks, token by token), the number of threads and other sessions of the same call make no difference.
 *
 * Threads: a session may be used by one thread at a time. Sessions of one model, on one pool or several, may run on
 * different threads. A tap and a qn_logits_fn are called while the device is locked: they must not compute on it or
 * access its memory. The callbacks of qn_generate may.
 * Memory: a session without a shared pool allocates everything when it is created, as computed by qn_model_plan(). A tap
 * needs another {n_layer + 1, n_batch, d_model} f32. After that nothing is allocated on the device.
 * After fork() a child may free its parent's objects. Computing or accessing KV is EDEVICE in the child.
 */
#ifndef QUERN_SESSION_H
#define QUERN_SESSION_H

#include "chat.h"
#include "model.h"
#include "sampler.h"

typedef struct qn_session qn_session;

/** Hidden-state hook, called after each step on the session's thread; for verification. State 0 is the embedding, state
 * i the output of layer i-1. State n_layer is taken after the final norm. */
typedef struct qn_tap {
    void (*hidden)(void *user, int32_t state, int32_t position, const float *row, int32_t d_model);
    void *user;
} qn_tap;

/**
 * KV memory for several sessions, in blocks of a fixed number of tokens. qn_session_append_batch() computes sessions on
 * one pool together, whatever their lengths. After qn_session_fork() sessions share the blocks of their common prefix. A
 * session without a pool gets a private one.
 */
typedef struct qn_kv_pool qn_kv_pool;

typedef struct qn_kv_pool_options {
    int32_t n_ctx;     /**< maximum tokens per session; 0: the model's, at most 4096 */
    int32_t n_tok;     /**< total tokens of all sessions, rounded up to whole blocks; 0: n_ctx */
    int32_t n_batch;   /**< maximum tokens per step, capped at n_ctx; 0: 512, on cuda 4096 */
    qn_dtype kv_dtype; /**< F16, BF16, F32 or Q8; default F16, on cuda BF16 */
    qn_yarn_mode yarn; /**< for all sessions, whatever their own n_ctx */
} qn_kv_pool_options;

/** The state of a pool. A shared block counts once. */
typedef struct qn_kv_pool_info {
    int32_t n_ctx;        /**< maximum tokens per session */
    int32_t block_tokens; /**< tokens per block */
    int32_t n_block;      /**< total blocks */
    int32_t n_unused;     /**< free blocks, held by no session */
    size_t bytes;         /**< device memory */
} qn_kv_pool_info;

typedef struct qn_session_options {
    int32_t n_ctx; /**< capacity in tokens; 0: the pool's, or without a pool the model's, at most 4096 */
    int32_t
        n_batch; /**< maximum tokens per step, capped at n_ctx; 0: the pool's, or without a pool the pool's default */
    qn_dtype kv_dtype; /**< F16, BF16, F32 or Q8; default: the pool's, or without a pool as there */
    qn_yarn_mode yarn;
    qn_tap tap;
    qn_kv_pool *pool; /**< NULL: a private pool of n_ctx tokens */
} qn_session_options;

/** Receives the logits of one position, {n_vocab}, valid during the call; return false to cancel. */
typedef bool (*qn_logits_fn)(void *user, int32_t position, const float *logits, int32_t n_vocab);

/** Ids to append to one session of a batch. */
typedef struct qn_span {
    qn_session *session;
    const int32_t *ids;
    size_t n_ids;        /**< >= 1 */
    qn_logits_fn logits; /**< as in qn_session_append; NULL: keep the logits of the last position */
    void *user;
} qn_span;

/** Why a generation ended. */
typedef enum qn_finish {
    QN_FINISH_STOP = 0,     /**< an end-of-text id or a stop string */
    QN_FINISH_LENGTH = 1,   /**< n_predict was reached, or the context is full */
    QN_FINISH_CANCELED = 2, /**< a callback returned false */
} qn_finish;

/** A generated token, passed to callbacks. */
typedef struct qn_token {
    int32_t id;
    int32_t position;
    const float *logits; /**< {n_vocab}, from which it was sampled; valid during the call */
    int32_t n_vocab;
} qn_token;

typedef struct qn_generate_args {
    const char *prompt; /**< text; NULL with `ids` */
    size_t prompt_size; /**< 0: strlen(prompt) */
    /** n_run runs of the prompt, as returned by qn_chat_render: added tokens are recognized in trusted text only. NULL: raw
     * text, all of it trusted. */
    const qn_text_run *runs;
    size_t n_run;
    const int32_t *ids; /**< the whole sequence to continue */
    size_t n_ids;
    const qn_sampler_params *sampler; /**< NULL: the model's defaults, seed 0 */
    int32_t n_predict;                /**< maximum tokens; 0: until the end of the text or of the context */
    int32_t min_tokens;  /**< ids that end the text are not sampled before this many tokens; <= n_predict */
    bool ignore_eos;     /**< end-of-text ids do not end the text (and are not printed) */
    const int32_t *ends; /**< n_end end-of-text ids in addition to the model's; see qn_chat_ends */
    size_t n_end;
    const int32_t *stop_ids; /**< n_stop_id more ids that end the text, even with ignore_eos; not printed */
    size_t n_stop_id;
    bool split_reasoning;   /**< as in qn_splitter_options; starts_reasoning is derived from the end of the prompt */
    const qn_string *stops; /**< n_stop stop strings */
    size_t n_stop;
    /** Callbacks, on the calling thread. Each may be NULL. Returning false ends the generation. */
    qn_piece_fn on_text;
    /** Called before the token's text is emitted. */
    bool (*on_token)(void *user, const qn_token *token);
    /** Called after each prefill step: positions computed so far, and positions in the whole prompt. */
    bool (*on_prefill)(void *user, int32_t done, int32_t total);
    void *user;
} qn_generate_args;

typedef struct qn_generate_result {
    qn_finish finish;
    int32_t n_prompt;     /**< tokens of the prompt */
    int32_t n_reused;     /**< prompt tokens reused from the session */
    int32_t n_generated;  /**< sampled tokens, including the id that ended the text */
    double prompt_s;      /**< seconds to compute the prompt */
    double generate_s;    /**< seconds from then to the end */
    double first_token_s; /**< seconds from the call to the first token */
} qn_generate_result;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Create a pool with all blocks free. It keeps its model alive, and sessions keep the pool alive.
 *
 * Threads  any thread may create sessions on it.
 * Errors   EINVAL: an option out of range; EUNSUPPORTED: n_ctx beyond what the model supports, with both numbers; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_kv_pool_create(qn_kv_pool **out, qn_model *model, const qn_kv_pool_options *options,
                                                qn_error *err);
QN_API void qn_kv_pool_free(qn_kv_pool *pool); /**< drops the caller's reference; NULL is fine */
QN_API void qn_kv_pool_get_info(const qn_kv_pool *pool, qn_kv_pool_info *out);

/**
 * Create a session with an empty sequence. It keeps its model and its pool alive. On a shared pool it acquires blocks as
 * it grows.
 *
 * Errors   EINVAL: n_ctx or n_batch out of range, kv_dtype, or an option that conflicts with the pool; EUNSUPPORTED: n_ctx
 *          beyond what the model supports, with both numbers; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_session_create(qn_session **out, qn_model *model, const qn_session_options *options,
                                                qn_error *err);
QN_API void qn_session_free(qn_session *session); /**< NULL is fine */

/**
 * Create a session with the same sequence, options and logits, on the same pool. No KV is copied: both share all blocks. A
 * partial last block is copied by the first session that appends, which needs a free block in the pool. This applies to a
 * private pool too: both sessions then share its n_ctx tokens.
 *
 * Errors   EINVAL: NULL; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_session_fork(qn_session **out, const qn_session *session, qn_error *err);

QN_API int32_t qn_session_n_ctx(const qn_session *session);
QN_API int32_t qn_session_n_tok(const qn_session *session);         /**< length of the sequence */
QN_API const int32_t *qn_session_ids(const qn_session *session);    /**< the sequence; borrowed until the next change */
QN_API const qn_model *qn_session_model(const qn_session *session); /**< borrowed */

/**
 * Prefill with prefix reuse: make the sequence equal to `ids`, computing only what follows the longest common prefix.
 *
 * n_reused  number of positions reused; may be NULL.
 * Errors    EINVAL: n_ids < 1 or an id out of range; EFULL: n_ids > n_ctx, or the pool is exhausted, with both
 *           numbers; ENUMERIC: the last logits are not finite; ENOMEM, EDEVICE. After EINVAL and EFULL the session is
 *           unchanged; after other errors its sequence is what was computed so far.
 */
QN_NODISCARD QN_API qn_status qn_session_sync(qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_reused,
                                              qn_error *err);

/** Append one id and compute its logits. Errors: as qn_session_sync. */
QN_NODISCARD QN_API qn_status qn_session_step(qn_session *session, int32_t id, qn_error *err);

/**
 * Append ids and pass the logits of each of their positions to `logits`, in order. If it is NULL, the logits of the last
 * position are kept. Errors: as qn_session_sync; ECANCELED when the callback returns false.
 */
QN_NODISCARD QN_API qn_status qn_session_append(qn_session *session, const int32_t *ids, size_t n_ids,
                                                qn_logits_fn logits, void *user, qn_error *err);

/**
 * Append to several sessions of one model. Sessions on one pool are computed in shared steps, which read the weights once
 * for all of them. Pools are processed one after the other.
 *
 * spans    n_span of them, for distinct sessions of the same model.
 * Errors   as qn_session_append, and EINVAL: a duplicate session, or one of another model. After EINVAL and EFULL nothing
 *          has changed.
 */
QN_NODISCARD QN_API qn_status qn_session_append_batch(const qn_span *spans, size_t n_span, qn_error *err);

/** Logits after the last id, {n_vocab} f32; NULL if there are none (empty, just rewound, or restored without logits).
 * Borrowed until the next change. */
QN_API const float *qn_session_logits(const qn_session *session);

/** Truncate the sequence to its first n_tok ids. Errors: EINVAL: n_tok exceeds its length. */
QN_NODISCARD QN_API qn_status qn_session_rewind(qn_session *session, size_t n_tok, qn_error *err);

/**
 * Save sequence, KV and logits to a file (replaced atomically), or restore them.
 *
 * The file identifies the model by a hash of its configuration, its tensor headers and a sample of each weight. A file of
 * another model, kv_dtype or RoPE is rejected, as is one with a wrong checksum.
 *
 * Errors   EIO; EFORMAT: not a session file, or damaged; EINVAL: of another model; EFULL: longer than n_ctx. After a
 *          failed restore the session is unchanged, with one exception: if a validated file fails while being loaded,
 *          the session is left empty.
 */
QN_NODISCARD QN_API qn_status qn_session_save(const qn_session *session, const char *path, qn_error *err);
QN_NODISCARD QN_API qn_status qn_session_restore(qn_session *session, const char *path, qn_error *err);

/** Read the KV of one layer: positions first … first+n-1 as f32 {n_kv_head, n, head_dim} each; k or v may be NULL.
 * Errors: EINVAL: layer or positions out of range; ENOMEM, EDEVICE. */
QN_NODISCARD QN_API qn_status qn_session_read_kv(const qn_session *session, int32_t layer, int32_t first, int32_t n,
                                                 float *k, float *v, qn_error *err);

/**
 * Continue a prompt: sync, then sample, decode and emit text until the end.
 *
 * A sampled id is computed only when another one is sampled after it. The resulting sequence is thus the prompt and all
 * sampled ids but the last. A later sync with all of them continues from there.
 *
 *
 * tokenizer  may be NULL with `ids` and without on_text and stops.
 * result     may be NULL.
 * Errors     as qn_session_sync, qn_sampler_create and qn_tokenizer_encode_runs; EINVAL: both or neither of prompt and
 *            ids, an empty prompt, min_tokens out of range, a negative id in ends or stop_ids. A callback that returns
 *            false is not an error; `finish` is then QN_FINISH_CANCELED.
 */
QN_NODISCARD QN_API qn_status qn_generate(qn_session *session, const qn_tokenizer *tokenizer,
                                          const qn_generate_args *args, qn_generate_result *result, qn_error *err);

/**
 * qn_generate() step by step, for a caller with other work in between. qn_generate() is equivalent to create, next until
 * done, get_result, free.
 *
 * Everything that args points to is copied, except `user`. The session and the tokenizer must outlive the generation.
 * Nothing is computed before the first next. The session must not be changed otherwise until the generation is over.
 * When it is over, or freed early, the sequence is what was computed so far.
 *
 * Errors     those of qn_generate that can be detected up front; ENOMEM.
 */
typedef struct qn_generation qn_generation;
QN_NODISCARD QN_API qn_status qn_generation_create(qn_generation **out, qn_session *session,
                                                   const qn_tokenizer *tokenizer, const qn_generate_args *args,
                                                   qn_error *err);

/**
 * One step: compute up to n_batch tokens of the prompt, or the last sampled token. Once the prompt is complete, sample and
 * emit one more token. *done is set to true with the last one.
 *
 * Errors     as qn_generate; the generation is then over. EINVAL: it was already over.
 */
QN_NODISCARD QN_API qn_status qn_generation_next(qn_generation *generation, bool *done, qn_error *err);

/**
 * qn_generation_next() for several generations at once (continuous batching). Generations whose sessions are on one pool
 * are computed in shared steps, which read the weights once for all of them. Pools are processed one after the other.
 *
 * A step on a pool computes the last sampled token of every generation. Prompts, in order, fill the rest of its n_batch
 * tokens. So a prompt may be chunked differently than alone, or wait for earlier ones, as on_prefill reports. Ids, logits,
 * texts and finish reasons are the same as alone.
 *
 * generations  n of them, on distinct sessions. Callbacks run in this order, after all are computed. They must not change
 *              any of these generations and sessions.
 * done         {n}. true: generation i is over, with its last token or with an error.
 * errors       {n}. The error of generation i, as from qn_generation_next; status QN_OK if it succeeded. One failure does
 *              not stop the others.
 * Errors       EINVAL: NULL, no generation, one that is over, a duplicate session; ENOMEM. Nothing has changed then, no
 *              callback was called, and done and errors are undefined.
 */
QN_NODISCARD QN_API qn_status qn_generation_next_batch(qn_generation *const *generations, size_t n, bool *done,
                                                       qn_error *errors, qn_error *err);

/** The result so far; final when the generation is over. `finish` is valid only then. */
QN_API void qn_generation_get_result(const qn_generation *generation, qn_generate_result *result);
QN_API void qn_generation_free(qn_generation *generation); /**< NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
