/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend whose memory the host may not touch: "ref" over pages that are accessible only inside of its functions.
 * Programs that link this file before the library get it under the name "ref", in place of the library's, so every test
 * that runs on "ref" proves that nobody but the backend dereferences device memory: whoever does gets SIGSEGV.
 *
 * Each device has an arena of its own, so that devices of different threads do not open each other's memory; the
 * device's lock is held by whoever computes or copies. The caller's allocator is asked for the same bytes, which it
 * counts.
 */
#include "../../src/backend/backend.h"
#include "../../src/base/memory.h"
#include "../../src/model/forward.h"

#include <quern/sampler.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, MAX_BLOCK = 4096 };
static const size_t arena_bytes = (size_t)4 << 30; /* reserved, not touched */

/* Blocks of the arena in address order; free ones have no owner. */
typedef struct block {
    unsigned char *at;
    size_t bytes;
    void *accounted; /* allocation from the caller's allocator; NULL: the block is free */
} block;

typedef struct guarded {
    unsigned char *arena;
    size_t used; /* bytes ever allocated: the range that is protected and unprotected */
    pthread_mutex_t lock;
    block blocks[MAX_BLOCK];
    int n_block;
    int depth; /* nesting depth of calls that unprotected the arena */
} guarded;

static void protect(const guarded *g, int protection) {
    if (g->used > 0 && mprotect(g->arena, g->used, protection) != 0) abort();
}
static void enter(guarded *g) {
    pthread_mutex_lock(&g->lock);
    if (g->depth++ == 0) protect(g, PROT_READ | PROT_WRITE);
    pthread_mutex_unlock(&g->lock);
}
static void leave(guarded *g) {
    pthread_mutex_lock(&g->lock);
    if (--g->depth == 0) protect(g, PROT_NONE);
    pthread_mutex_unlock(&g->lock);
}

static qn_status open_guarded(void **state, const char **isa_out, const qni_opening *how, qn_error *err) {
    void *none = NULL;
    QN_TRY(qni_backend_ref.open(&none, isa_out, how, err));
    guarded *g = calloc(1, sizeof *g);
    if (g == NULL) return qni_fail(err, QN_ENOMEM, "no memory for the device");
    g->arena = mmap(NULL, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g->arena == MAP_FAILED || pthread_mutex_init(&g->lock, NULL) != 0) abort();
    *state = g;
    return QN_OK;
}

static void close_guarded(void *state) {
    guarded *g = state;
    if (g == NULL) return;
    munmap(g->arena, arena_bytes);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* The first free block that is large enough, or a new one. */
static block *find(guarded *g, size_t bytes) {
    for (int i = 0; i < g->n_block; i++) {
        if (g->blocks[i].accounted == NULL && g->blocks[i].bytes >= bytes) return &g->blocks[i];
    }
    if (g->n_block == MAX_BLOCK || g->used + bytes > arena_bytes) abort();
    block *b = &g->blocks[g->n_block++];
    *b = (block){.at = g->arena + g->used, .bytes = bytes};
    g->used += bytes;
    if (g->depth > 0) protect(g, PROT_READ | PROT_WRITE);
    return b;
}

static qn_status alloc(void *state, qni_buffer *out, size_t bytes, qni_memory_kind kind,
                       const qn_allocator *allocator) {
    (void)kind;
    guarded *g = state;
    if (bytes > PTRDIFF_MAX) return QN_ENOMEM;
    void *accounted = qni_device_alloc(allocator, bytes);
    if (accounted == NULL) return QN_ENOMEM;
    pthread_mutex_lock(&g->lock);
    block *b = find(g, qni_round_up(bytes, PAGE));
    b->accounted = accounted;
    *out = (qni_buffer){.address = b->at, .handle = b, .bytes = bytes};
    pthread_mutex_unlock(&g->lock);
    return QN_OK;
}

static void release(void *state, const qni_buffer *buffer, const qn_allocator *allocator) {
    guarded *g = state;
    block *b = buffer->handle;
    qni_device_free(allocator, b->accounted, buffer->bytes);
    qni_unpoison(buffer->address, b->bytes);
    pthread_mutex_lock(&g->lock);
    b->accounted = NULL;
    pthread_mutex_unlock(&g->lock);
}

/* Call the wrapped backend with the memory unprotected. Only the first argument is used: `ref` has no state. */
#define GUARDED(state, call)                                                                                           \
    do {                                                                                                               \
        enter(state);                                                                                                  \
        const qn_status status = (call);                                                                               \
        leave(state);                                                                                                  \
        return status;                                                                                                 \
    } while (0)

static qn_status transfer(void *state, void *to, const void *from, size_t bytes, qn_error *err) {
    GUARDED(state, qni_host_memory.copy(NULL, to, from, bytes, err));
}
static qn_status clear(void *state, void *to, size_t bytes, qn_error *err) {
    GUARDED(state, qni_host_memory.clear(NULL, to, bytes, err));
}
static qn_status wait_done(void *state, qn_error *err) {
    (void)state;
    return qni_host_memory.wait(NULL, err);
}

#define OP(run, call) GUARDED((run)->backend, qni_backend_ref.ops.call)

static qn_status embed(const qni_run *run, qni_mat out, const qni_weight *table, const int32_t *ids) {
    OP(run, embed(run, out, table, ids));
}
static qn_status rms_norm(const qni_run *run, qni_mat out, qni_mat x, qni_vec weight, double eps) {
    OP(run, rms_norm(run, out, x, weight, eps));
}
static qn_status linear(const qni_run *run, qni_mat out, qni_mat x, const qni_weight *weight) {
    OP(run, linear(run, out, x, weight));
}
static qn_status rope(const qni_run *run, qni_mat cos_sin, const qni_batch *batch, const qni_frequencies *rope) {
    OP(run, rope(run, cos_sin, batch, rope));
}
static qn_status kv_attention(const qni_run *run, qni_mat out, qni_heads q, qni_heads k, qni_heads v,
                              const qni_kv_layer *kv, const qni_attention_call *call) {
    OP(run, kv_attention(run, out, q, k, v, kv, call));
}
static qn_status linear_add(const qni_run *run, qni_mat out, qni_mat hidden, qni_mat x, const qni_weight *weight) {
    OP(run, linear_add(run, out, hidden, x, weight));
}
static qn_status swiglu(const qni_run *run, qni_mat out, qni_mat gate, qni_mat up) {
    OP(run, swiglu(run, out, gate, up));
}
static qn_status argmax(const qni_run *run, uint32_t *ids, qni_mat logits, int64_t n_valid) {
    OP(run, argmax(run, ids, logits, n_valid));
}

/* Samples where the logits are. One sampler per row: this backend is not built for speed. */
static qn_status sample_row(int32_t *id, const float *logits, int64_t n_vocab, const qni_sampling *how) {
    qn_sampler *sampler = NULL;
    qn_status status = qn_sampler_create(&sampler, how->params, (int32_t)n_vocab, how->n_valid, NULL);
    if (status == QN_OK) {
        status = qn_sampler_draw(sampler, id, NULL, logits, how->ids, (size_t)how->n_id, (size_t)how->prompt_len,
                                 (uint64_t)how->n_id, NULL);
    }
    if (status == QN_ENUMERIC) *id = -1;
    qn_sampler_free(sampler);
    return status == QN_ENUMERIC ? QN_OK : status;
}
static qn_status sample(const qni_run *run, int32_t *ids, qni_mat logits, const qni_sampling *sampling) {
    if (qni_scratch_measures(run->scratch)) return QN_OK;
    enter(run->backend);
    qn_status status = QN_OK;
    for (int64_t r = 0; r < logits.n_row && status == QN_OK; r++) {
        status = sample_row(&ids[r], qni_mat_row(&logits, r), logits.n_col, &sampling[r]);
    }
    leave(run->backend);
    return status;
}

/* Sequence by sequence, id by id, using the ops of this table. */
static qn_status step_sequence(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                               const qni_decode *decode, int32_t s) {
    const size_t mark = run->scratch->used;
    const int32_t n_tok = in->batch->tok_begin[s + 1] - in->batch->tok_begin[s];
    const qni_step_buffers b = qni_step_alloc(run, model, n_tok, false);
    int32_t tok_begin[] = {0, n_tok}, pos_begin = in->batch->pos_begin[s];
    qni_batch batch = {n_tok,     1,          in->batch->max_block,
                       tok_begin, &pos_begin, in->batch->block_table + (size_t)s * (size_t)in->batch->max_block};
    qni_step_input one = {&batch, in->ids + in->batch->tok_begin[s], in->kv, in->rope};
    qni_sampling how = decode->sampling[s];
    for (int32_t i = 0; i < decode->n_token && !(decode->canceled != NULL && *decode->canceled); i++) {
        const qni_step_output out = {.hidden =
                                         qni_mat_of(b.output.hidden.data, QN_DTYPE_F32, batch.n_tok, model->d_model)};
        QN_TRY(qni_forward(run, model, &one, &out));
        const qni_mat last = qni_mat_of(qni_mat_row(&out.hidden, batch.n_tok - 1), QN_DTYPE_F32, 1, model->d_model);
        const qni_mat logits = qni_mat_of(b.logits.data, QN_DTYPE_F32, 1, model->n_vocab);
        int32_t id = -1;
        QN_TRY(qni_logits(run, model, logits, last));
        QN_TRY(sample(run, b.ids, logits, &how));
        QN_TRY(qni_read(run, &id, b.ids, sizeof id));
        decode->is_bad[s] = id < 0;
        if (id < 0) break;
        how.ids[how.n_id++] = id;
        decode->n_sampled[s] = i + 1;
        bool is_end = false;
        for (int32_t k = 0; k < how.n_end; k++) is_end = is_end || how.ends[k] == id;
        if (is_end) break;
        pos_begin += (int32_t)batch.n_tok;
        batch.n_tok = tok_begin[1] = 1;
        one.ids = &how.ids[how.n_id - 1];
    }
    qni_scratch_reset(run->scratch, mark);
    return QN_OK;
}
static qn_status step(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                      const qni_decode *decode) {
    if (qni_scratch_measures(run->scratch)) { /* as for one sequence with all tokens */
        const qni_step_buffers b = qni_step_alloc(run, model, in->batch->n_tok, false);
        QN_TRY(qni_forward(run, model, in, &b.output));
        return qni_logits(run, model, b.logits, b.rows);
    }
    for (int32_t s = 0; s < in->batch->n_seq; s++) QN_TRY(step_sequence(run, model, in, decode, s));
    return QN_OK;
}

static qn_status packing(const void *state, qni_packing *out, const qni_source *source, qn_error *err) {
    (void)state;
    return qni_backend_ref.packing(NULL, out, source, err);
}
static void pack(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                 int64_t in_stride, int64_t out_stride) {
    enter((guarded *)(uintptr_t)state);
    qni_backend_ref.pack(NULL, form, data, first, n, src, in_stride, out_stride);
    leave((guarded *)(uintptr_t)state);
}
static qn_status pack_quantized(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                const qni_quant *source, const qni_quant_rows *rows, qn_error *err) {
    GUARDED((guarded *)(uintptr_t)state, qni_backend_ref.pack_quantized(NULL, form, data, first, n, source, rows, err));
}

/* The caller's memory can be wrapped: it is never protected. */
static const qni_memory_ops memory = {.alloc = alloc,
                                      .release = release,
                                      .write = transfer,
                                      .read = transfer,
                                      .copy = transfer,
                                      .clear = clear,
                                      .wait = wait_done,
                                      .wraps = true};

static const qni_backend backend = {
    .name = "ref",
    .kv_block_tokens = 16,
    .step_tokens = 5,
    .open = open_guarded,
    .close = close_guarded,
    .memory = &memory,
    .ops = {.embed = embed,
            .rms_norm = rms_norm,
            .linear = linear,
            .rope = rope,
            .kv_attention = kv_attention,
            .linear_add = linear_add,
            .swiglu = swiglu,
            .argmax = argmax,
            .sample = sample,
            .step = step},
    .packing = packing,
    .pack = pack,
    .pack_quantized = pack_quantized,
};

/* Replaces src/backend/registry.c. */
static const qni_backend *const backends[] = {&qni_backend_cpu, &backend};

const qni_backend *qni_backend_at(int32_t index) {
    return index >= 0 && index < 2 ? backends[index] : NULL;
}
