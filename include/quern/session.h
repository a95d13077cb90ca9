/* SPDX-License-Identifier: Apache-2.0 */
/** @file session.h
 * A session is one sequence of token ids with its KV cache; qn_generate() turns it into text.
 *
 * On "cpu" the logits of a position depend on the ids up to it and on nothing else: not on how they
 * were fed (a prompt at once, in chunks, token by token), on threads, or on other sessions of the
 * same call. Bit for bit.
 *
 * Threads: a session belongs to one thread at a time; sessions of one model, on one pool or several, may run on different
 * threads. A tap and a qn_logits_fn are called while the device is held: they must call nothing that computes on it or
 * reads or writes its memory. Those of qn_generate may.
 * Memory: a session without a shared pool takes everything when it is created, as qn_model_plan() told; a tap needs
 * {n_layer + 1, n_batch, d_model} f32 more. After that nothing is allocated on the device.
 * After fork() a child may free what its parent has created; whatever computes or touches KV is EDEVICE there.
 */
#ifndef QUERN_SESSION_H
#define QUERN_SESSION_H

#include "chat.h"
#include "model.h"
#include "sampler.h"

typedef struct qn_session qn_session;

/** Hands out hidden states after each step, for verification: state 0 is the embedding, state i the output
 * of layer i-1, and state n_layer is taken after the final norm. Called from the session's thread. */
typedef struct qn_tap {
    void (*hidden)(void *user, int32_t state, int32_t position, const float *row, int32_t d_model);
    void *user;
} qn_tap;

/**
 * Memory for the KV of several sessions, in blocks of a fixed number of tokens. Sessions on one pool are computed together
 * by qn_session_append_batch() whatever their lengths, and share the blocks of what they have in common after
 * qn_session_fork(). A session without a pool has one of its own.
 */
typedef struct qn_kv_pool qn_kv_pool;

typedef struct qn_kv_pool_options {
    int32_t n_ctx;     /**< most tokens of one session; 0: the smaller of the model's and 4096 */
    int32_t n_tok;     /**< tokens of all sessions, rounded up to whole blocks; 0: n_ctx */
    int32_t n_batch;   /**< most tokens of a step; 0: 512; n_ctx if that is less */
    qn_dtype kv_dtype; /**< F16, BF16, F32 or Q8; default F16 */
    qn_yarn_mode yarn; /**< for all sessions, whatever their own n_ctx */
} qn_kv_pool_options;

/** The state of a pool. Sequences that share a block count it once. */
typedef struct qn_kv_pool_info {
    int32_t n_ctx;        /**< most tokens of one session */
    int32_t block_tokens; /**< tokens of a block */
    int32_t n_block;      /**< blocks of the pool */
    int32_t n_unused;     /**< of them those that no session holds */
    size_t bytes;         /**< on the device */
} qn_kv_pool_info;

typedef struct qn_session_options {
    int32_t n_ctx;     /**< capacity in tokens; 0: the smaller of the model's and 4096, or that of the pool */
    int32_t n_batch;   /**< tokens that one step takes at most; 0: 512, or that of the pool; n_ctx if that is less */
    qn_dtype kv_dtype; /**< F16, BF16, F32 or Q8; default F16, or that of the pool */
    qn_yarn_mode yarn;
    qn_tap tap;
    qn_kv_pool *pool; /**< NULL: one of its own, for n_ctx tokens */
} qn_session_options;

/** Receives the logits of one position, {n_vocab}, valid during the call; return false to cancel. */
typedef bool (*qn_logits_fn)(void *user, int32_t position, const float *logits, int32_t n_vocab);

/** Some ids for one session of a batch. */
typedef struct qn_span {
    qn_session *session;
    const int32_t *ids;
    size_t n_ids;        /**< >= 1 */
    qn_logits_fn logits; /**< as in qn_session_append; NULL: those of the last position are kept */
    void *user;
} qn_span;

/** Why a generation ended. */
typedef enum qn_finish {
    QN_FINISH_STOP = 0,     /**< an end-of-text id or a stop string */
    QN_FINISH_LENGTH = 1,   /**< n_predict, or the context is full */
    QN_FINISH_CANCELED = 2, /**< a callback returned false */
} qn_finish;

/** One generated token, for callbacks. */
typedef struct qn_token {
    int32_t id;
    int32_t position;
    const float *logits; /**< {n_vocab}, that it was drawn from; valid during the call */
    int32_t n_vocab;
} qn_token;

typedef struct qn_generate_args {
    const char *prompt; /**< text. Or NULL with `ids` */
    size_t prompt_size; /**< 0: strlen(prompt) */
    /** n_run runs of the prompt, as qn_chat_render gives them: only trusted text is read as added tokens. NULL: raw text, all
     * of it trusted. */
    const qn_text_run *runs;
    size_t n_run;
    const int32_t *ids; /**< the whole sequence to continue */
    size_t n_ids;
    const qn_sampler_params *sampler; /**< NULL: the model's defaults, seed 0 */
    int32_t n_predict;                /**< tokens at most; 0: until the end of the text or of the context */
    int32_t min_tokens;               /**< ids that end the text are not drawn before so many tokens; <= n_predict */
    bool ignore_eos;                  /**< end-of-text ids are tokens like any other (and not printed) */
    const int32_t *ends;              /**< n_end end-of-text ids besides the model's: see qn_chat_ends */
    size_t n_end;
    const int32_t *stop_ids; /**< n_stop_id ids that end the text too, also with ignore_eos; they are not printed */
    size_t n_stop_id;
    bool split_reasoning;   /**< as in qn_splitter_options; how it starts is taken from the prompt's tail */
    const qn_string *stops; /**< n_stop stop strings */
    size_t n_stop;
    /** Callbacks, on the calling thread; each may be NULL; one that returns false ends the generation. */
    qn_piece_fn on_text;
    /** Before the token's text is handed out. */
    bool (*on_token)(void *user, const qn_token *token);
    /** After each pass over the prompt: positions of the sequence so far, and of the whole prompt. */
    bool (*on_prefill)(void *user, int32_t done, int32_t total);
    void *user;
} qn_generate_args;

typedef struct qn_generate_result {
    qn_finish finish;
    int32_t n_prompt;     /**< tokens of the prompt */
    int32_t n_reused;     /**< of them found in the session */
    int32_t n_generated;  /**< drawn tokens, an ending id included */
    double prompt_s;      /**< seconds to compute the prompt */
    double generate_s;    /**< seconds from then to the end */
    double first_token_s; /**< seconds from the call to the first token */
} qn_generate_result;

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A pool with all blocks unused. It keeps its model alive, and sessions keep it alive.
 *
 * Threads  any thread may create sessions on it.
 * Errors   EINVAL: an option out of range; EUNSUPPORTED: n_ctx beyond what the model supports, with both numbers; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_kv_pool_create(qn_kv_pool **out, qn_model *model, const qn_kv_pool_options *options,
                                                qn_error *err);
QN_API void qn_kv_pool_free(qn_kv_pool *pool); /**< gives up the caller's reference; NULL is fine */
QN_API void qn_kv_pool_get_info(const qn_kv_pool *pool, qn_kv_pool_info *out);

/**
 * A session with an empty sequence. It keeps its model and its pool alive. On a shared pool it takes blocks as it grows.
 *
 * Errors   EINVAL: n_ctx or n_batch out of range, kv_dtype, or an option that disagrees with the pool; EUNSUPPORTED: n_ctx
 *          beyond what the model supports, with both numbers; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_session_create(qn_session **out, qn_model *model, const qn_session_options *options,
                                                qn_error *err);
QN_API void qn_session_free(qn_session *session); /**< NULL is fine */

/**
 * A session with the same sequence, options and logits, on the same pool. No KV is copied: both share all blocks. Whoever
 * appends first copies the last one if it is partial; the pool needs a block for that. So does a session's own pool, whose
 * n_ctx tokens both have to share from then on.
 *
 * Errors   EINVAL: NULL; ENOMEM.
 */
QN_NODISCARD QN_API qn_status qn_session_fork(qn_session **out, const qn_session *session, qn_error *err);

QN_API int32_t qn_session_n_ctx(const qn_session *session);
QN_API int32_t qn_session_n_tok(const qn_session *session);      /**< length of the sequence */
QN_API const int32_t *qn_session_ids(const qn_session *session); /**< the sequence; borrowed, until the next change */
QN_API const qn_model *qn_session_model(const qn_session *session); /**< borrowed */

/**
 * Make the sequence equal to `ids`, computing only what follows the longest common prefix.
 *
 * n_reused  may be NULL: how many positions were taken over.
 * Errors    EINVAL: n_ids < 1 or an id out of range; EFULL: n_ids > n_ctx, or the pool is exhausted, with both
 *           numbers; ENUMERIC: the last logits are not finite; ENOMEM, EDEVICE. After EINVAL and EFULL the session is
 *           unchanged; after others its sequence is what was computed.
 */
QN_NODISCARD QN_API qn_status qn_session_sync(qn_session *session, const int32_t *ids, size_t n_ids, size_t *n_reused,
                                              qn_error *err);

/** Append one id and compute its logits. Errors: as qn_session_sync. */
QN_NODISCARD QN_API qn_status qn_session_step(qn_session *session, int32_t id, qn_error *err);

/**
 * Append ids and hand out the logits of each of their positions, in order; without `logits` those of the last are
 * kept. Errors: as qn_session_sync; ECANCELED when the callback returns false.
 */
QN_NODISCARD QN_API qn_status qn_session_append(qn_session *session, const int32_t *ids, size_t n_ids,
                                                qn_logits_fn logits, void *user, qn_error *err);

/**
 * Append to several sessions of one model. Those on one pool are computed in common steps, one pass over the weights for
 * all of them; pools go one after the other.
 *
 * spans    n_span of them, sessions distinct, of the same model.
 * Errors   as qn_session_append, and EINVAL: a session twice or of another model. Nothing changes after EINVAL and EFULL.
 */
QN_NODISCARD QN_API qn_status qn_session_append_batch(const qn_span *spans, size_t n_span, qn_error *err);

/** Logits after the last id, {n_vocab} f32; NULL when there are none (empty, just rewound or restored without).
 * Borrowed, until the next change. */
QN_API const float *qn_session_logits(const qn_session *session);

/** Forget all but the first n_tok ids. Errors: EINVAL: more than there are. */
QN_NODISCARD QN_API qn_status qn_session_rewind(qn_session *session, size_t n_tok, qn_error *err);

/**
 * Write sequence, KV and logits to a file, which is replaced only when all is written; or read them back.
 *
 * The file names the model by a hash of its configuration, tensor headers and a sample of each weight; another
 * model's, another kv_dtype's or another rope's file is refused, as is one whose checksum is wrong.
 *
 * Errors   EIO; EFORMAT: no session file, or damaged; EINVAL: of another model; EFULL: longer than n_ctx. After a
 *          failed restore the session is unchanged; but a file that was found sound and then cannot be read leaves an
 *          empty sequence.
 */
QN_NODISCARD QN_API qn_status qn_session_save(const qn_session *session, const char *path, qn_error *err);
QN_NODISCARD QN_API qn_status qn_session_restore(qn_session *session, const char *path, qn_error *err);

/** Read the KV of one layer: positions first … first+n-1 as f32 {n_kv_head, n, head_dim} each; k or v may be NULL.
 * Errors: EINVAL: layer or positions out of range; ENOMEM, EDEVICE. */
QN_NODISCARD QN_API qn_status qn_session_read_kv(const qn_session *session, int32_t layer, int32_t first, int32_t n,
                                                 float *k, float *v, qn_error *err);

/**
 * Continue a prompt: sync, then draw, decode and hand out text until the end.
 *
 * An id is computed only when another one is to be drawn after it. So the sequence afterwards is the prompt and the
 * drawn ids but for the last; the next sync with all of them goes on from there.
 *
 * tokenizer  may be NULL with `ids` and without on_text and stops.
 * result     may be NULL.
 * Errors     as qn_session_sync, qn_sampler_create and qn_tokenizer_encode_runs; EINVAL: both or neither of prompt and
 *            ids, an empty prompt, min_tokens out of range, a negative id in ends or stop_ids. A callback that returns
 *            false is no error: QN_FINISH_CANCELED.
 */
QN_NODISCARD QN_API qn_status qn_generate(qn_session *session, const qn_tokenizer *tokenizer,
                                          const qn_generate_args *args, qn_generate_result *result, qn_error *err);

/**
 * The same, pass by pass, for a caller that has other things to do in between. qn_generate() is this: create, next until
 * done, get_result, free.
 *
 * What args points to is copied, but for `user`; the session and the tokenizer must outlive the generation. Nothing is
 * computed before the first next. Nobody else may change the session until it is over; then, or when it was freed
 * before its end, the sequence is what was computed.
 *
 * Errors     those of qn_generate that can be told beforehand; ENOMEM.
 */
typedef struct qn_generation qn_generation;
QN_NODISCARD QN_API qn_status qn_generation_create(qn_generation **out, qn_session *session,
                                                   const qn_tokenizer *tokenizer, const qn_generate_args *args,
                                                   qn_error *err);

/**
 * One pass over the weights: n_batch tokens of the prompt, or the token that was drawn last; when the prompt is complete,
 * one more token is then drawn and handed out. *done becomes true with the last one.
 *
 * Errors     as qn_generate; the generation is over then. EINVAL: it was over before.
 */
QN_NODISCARD QN_API qn_status qn_generation_next(qn_generation *generation, bool *done, qn_error *err);

/**
 * qn_generation_next() for several generations at once: those whose sessions are on one pool are computed in common steps,
 * one pass over the weights for all of them; pools go one after the other.
 *
 * On each pool every drawn token is computed, and of the prompts, in order, what fits into a step of n_batch tokens beside
 * them. So a prompt may be cut elsewhere than alone, or wait for those before it, as on_prefill tells. Ids, logits, texts
 * and what ends a generation are the same.
 *
 * generations  n of them, on distinct sessions. Callbacks are called in this order, when all are computed; they must change
 *              none of these generations and sessions.
 * done         {n}. true: generation i is over, with its last token or with an error.
 * errors       {n}. Why generation i failed, as qn_generation_next tells it; status QN_OK where it did not. One that fails
 *              does not stop the others.
 * Errors       EINVAL: NULL, no generation, one that is over, a session twice; ENOMEM. Nothing has changed then, no
 *              callback was called, and done and errors are meaningless.
 */
QN_NODISCARD QN_API qn_status qn_generation_next_batch(qn_generation *const *generations, size_t n, bool *done,
                                                       qn_error *errors, qn_error *err);

/** What there is so far; whole when the generation is over. `finish` is meaningful then only. */
QN_API void qn_generation_get_result(const qn_generation *generation, qn_generate_result *result);
QN_API void qn_generation_free(qn_generation *generation); /**< NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
