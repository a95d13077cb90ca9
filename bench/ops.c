/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times the ops of the cpu backend at the shapes of Qwen3-0.6B with bf16 weights and caches, against the read bandwidth
 * and the f32 multiply-add rate that the same threads reach in the same run.
 *
 *   build/release/bench/ops [--threads N] [--isa LEVEL] [--repeat N] [--rows N [--depth N]]
 *
 * Bytes are those that must be read (weights and visible cache once), operations those of the products and of
 * attention; each figure is the best of the calls.
 */
#include "../cli/dev/roof.h"
#include "../src/backend/linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    D_MODEL = 1024,
    N_LAYER = 28,
    N_HEAD = 16,
    N_KV_HEAD = 8,
    HEAD_DIM = 128,
    D_FF = 3072,
    N_VOCAB = 151936,
    Q_WIDTH = N_HEAD * HEAD_DIM,
    KV_WIDTH = N_KV_HEAD * HEAD_DIM,
    N_CTX = 4608,
    N_PREFILL = 512,
};

typedef struct bench {
    qn_device *device;
    int32_t n_thread;
    int repeat;
    roof roof;
    qn_linear *linears[N_LAYER * 7 + 1];
    int n_linear;
    qni_layer_view layers[N_LAYER];
    const qni_weight *head;
    float *ones;
    uint16_t *cache; /* {N_LAYER, 2, N_KV_HEAD, N_CTX, HEAD_DIM} */
    float *hidden, *q, *k, *v, *attn, *logits, *cos_sin;
    int32_t tok_begin[2], pos_begin, block; /* of one sequence, whose cache is one block */
    qni_batch batch;
    int64_t n_row, depth;
} bench;

static void die(const char *what) {
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static void *allocate(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p == NULL) die("out of memory");
    return p;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void parallel(bench *b, int32_t n_task, void (*task)(void *context, int32_t task, int32_t thread),
                     void *context) {
    b->device->backend->parallel(b->device->state, n_task, task, context);
}

/* The roofs are taken before the ops, between and after them, and the best counts: other work on the machine lowers
 * both. */
static void measure_roof(bench *b, bool report) {
    if (!roof_measure(&b->roof)) die("no memory or no thread to measure the roof");
    if (!report) return;
    printf("roof: read %.1f GB/s (%d streams a thread), f32 %.0f GFLOP/s\n", b->roof.read_gbps, b->roof.read_streams,
           b->roof.gflops[ROOF_F32]);
}

/* --- weights --- */

typedef struct fill_job {
    uint16_t *data;
    size_t n;
    int32_t n_task;
} fill_job;

/* Random bf16 of both signs between 2^-7 and 2^-5. */
static void fill_task(void *context, int32_t task, int32_t thread) {
    (void)thread;
    const fill_job *j = context;
    size_t first = j->n * (size_t)task / (size_t)j->n_task, end = j->n * ((size_t)task + 1) / (size_t)j->n_task;
    uint64_t s = 88172645463325252u + (uint64_t)task;
    for (size_t i = first; i < end; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        j->data[i] = (uint16_t)((s & 0x80FF) | 0x3C00);
    }
}

static void fill(bench *b, uint16_t *data, size_t n) {
    fill_job j = {data, n, 64};
    parallel(b, j.n_task, fill_task, &j);
}

static qni_weight make_linear(bench *b, int64_t n_in, int64_t n_out) {
    qn_error err = {0};
    qn_linear *l = NULL;
    const qni_source source = {.dtype = QN_DTYPE_BF16, .arith = QN_ARITH_F32, .n_in = n_in, .n_out = n_out};
    if (qni_linear_create(&l, b->device, &source, &err) != QN_OK) die(err.message);
    fill(b, l->data.address, l->data.bytes / 2);
    b->linears[b->n_linear++] = l;
    return l->weight;
}

static void make_weights(bench *b) {
    b->ones = allocate(Q_WIDTH * sizeof(float));
    for (int i = 0; i < Q_WIDTH; i++) b->ones[i] = 1;
    qni_vec wide = {b->ones, QN_DTYPE_F32, D_MODEL}, narrow = {b->ones, QN_DTYPE_F32, HEAD_DIM};
    for (int i = 0; i < N_LAYER; i++) {
        qni_layer_view *w = &b->layers[i];
        w->attention.norm = w->mlp.norm = wide;
        w->attention.q_norm = w->attention.k_norm = narrow;
        w->attention.q_proj = make_linear(b, D_MODEL, Q_WIDTH);
        w->attention.k_proj = make_linear(b, D_MODEL, KV_WIDTH);
        w->attention.v_proj = make_linear(b, D_MODEL, KV_WIDTH);
        w->attention.o_proj = make_linear(b, Q_WIDTH, D_MODEL);
        w->mlp.gate_proj = make_linear(b, D_MODEL, D_FF);
        w->mlp.up_proj = make_linear(b, D_MODEL, D_FF);
        w->mlp.down_proj = make_linear(b, D_FF, D_MODEL);
    }
    make_linear(b, D_MODEL, N_VOCAB);
    b->head = &b->linears[b->n_linear - 1]->weight;
}

static float *make_rows(int64_t n_col) {
    float *rows = allocate((size_t)(N_PREFILL * n_col) * sizeof(float));
    for (int64_t i = 0; i < N_PREFILL * n_col; i++) rows[i] = (float)(i % 17 - 8) * 0.1f;
    return rows;
}

/* --- ops --- */

static qni_mat mat(const bench *b, float *data, int64_t n_col) {
    return qni_mat_of(data, QN_DTYPE_F32, b->n_row, n_col);
}
static qni_heads heads(const bench *b, float *data, int64_t n_head) {
    return (qni_heads){mat(b, data, n_head * HEAD_DIM), n_head, HEAD_DIM, HEAD_DIM};
}

static qni_kv_layer kv_of(const bench *b, int layer) {
    const int64_t one = (int64_t)N_CTX * KV_WIDTH;
    return (qni_kv_layer){.k = b->cache + 2 * layer * one,
                          .v = b->cache + (2 * layer + 1) * one,
                          .block_tokens = N_CTX,
                          .n_kv_head = N_KV_HEAD,
                          .head_dim = HEAD_DIM,
                          .k_dtype = QN_DTYPE_BF16,
                          .v_dtype = QN_DTYPE_BF16,
                          .k_head_stride = (int64_t)N_CTX * HEAD_DIM,
                          .k_token_stride = HEAD_DIM,
                          .v_head_stride = (int64_t)N_CTX * HEAD_DIM,
                          .v_token_stride = HEAD_DIM};
}

typedef enum op { LINEAR, KV_ATTENTION, ATTENTION_RESIDUAL, MLP, ATTENTION_BLOCK, LAYER, HEAD, FORWARD, N_OP } op;
static const char *const op_names[] = {"linear 1024x3072", "kv_attention", "linear_add", "mlp",
                                       "attention_block",  "layer",        "lm_head",    "forward"};

static qn_status run_op(bench *b, const qni_run *run, op which, int layer) {
    const qni_ops *ops = run->ops;
    const qni_layer_view *w = &b->layers[layer];
    qni_mat hidden = mat(b, b->hidden, D_MODEL);
    qni_kv_layer kv = kv_of(b, layer);
    qni_attention_call call = {&b->batch, b->cos_sin, 0.08838834764831845, 1e-6};
    qni_mat last = qni_mat_of(b->hidden, QN_DTYPE_F32, 1, D_MODEL);
    qni_vec norm = w->mlp.norm;
    switch (which) {
    case LINEAR:
        return ops->linear(run, mat(b, b->q, D_FF), hidden, &w->mlp.gate_proj);
    case KV_ATTENTION:
        return ops->kv_attention(run, mat(b, b->attn, Q_WIDTH), heads(b, b->q, N_HEAD), heads(b, b->k, N_KV_HEAD),
                                 heads(b, b->v, N_KV_HEAD), &kv, &call);
    case ATTENTION_RESIDUAL:
        return ops->linear_add(run, hidden, hidden, mat(b, b->attn, Q_WIDTH), &w->attention.o_proj);
    case MLP:
        return ops->mlp(run, hidden, hidden, &w->mlp, 1e-6);
    case ATTENTION_BLOCK:
        return ops->attention_block(run, hidden, hidden, &w->attention, &kv, &call);
    case LAYER:
        return ops->layer(run, hidden, hidden, w, &kv, &call);
    case HEAD:
        return ops->lm_head(run, qni_mat_of(b->logits, QN_DTYPE_F32, 1, N_VOCAB), last, norm, b->head, 1e-6);
    default:
        for (int i = 0; i < N_LAYER; i++) {
            kv = kv_of(b, i);
            QN_TRY(ops->layer(run, hidden, hidden, &b->layers[i], &kv, &call));
        }
        return run_op(b, run, HEAD, 0);
    }
}

/* Weights that an op multiplies a row with. */
static double n_weight(op which) {
    const double attention = (double)D_MODEL * (Q_WIDTH + 2 * KV_WIDTH) + (double)Q_WIDTH * D_MODEL;
    const double mlp = 3.0 * D_MODEL * D_FF;
    const double of[] = {(double)D_MODEL * D_FF, 0, (double)Q_WIDTH * D_MODEL,  mlp, attention,
                         attention + mlp,        0, N_LAYER * (attention + mlp)};
    return of[which];
}

static double n_attention(op which) {
    const double of[] = {0, 1, 0, 0, 1, 1, 0, N_LAYER};
    return of[which];
}

static void time_op(bench *b, op which) {
    qni_scratch scratch;
    qn_error err = {0};
    qni_run run = qni_device_run(b->device, &scratch, true, &err);
    if (run_op(b, &run, which, 0) != QN_OK || qni_device_reserve(b->device, scratch.peak, &err) != QN_OK) {
        die(err.message);
    }
    run = qni_device_run(b->device, &scratch, false, &err);
    const int n_layer = which == FORWARD || which == HEAD ? 1 : N_LAYER; /* in turn, so that none is in a cache */
    double best = 1e30;
    for (int i = 0; i < (b->repeat + 1) * n_layer; i++) {
        double start = now();
        if (run_op(b, &run, which, i % n_layer) != QN_OK) die(err.message);
        double time = now() - start;
        if (i > 0 && time < best) best = time;
        memset(b->hidden, 0, sizeof(float) * D_MODEL); /* keeps the residual from growing without bound */
    }
    const double rows = (double)b->n_row, visible = rows * ((double)b->depth + (rows + 1) / 2);
    const double head = which == HEAD || which == FORWARD ? (double)D_MODEL * N_VOCAB : 0;
    double flop = 2 * (rows * n_weight(which) + head) + n_attention(which) * 4 * Q_WIDTH * visible;
    double bytes = 2 * (n_weight(which) + head) + n_attention(which) * 4 * KV_WIDTH * ((double)b->depth + rows);
    double gbps = bytes / best * 1e-9, gflops = flop / best * 1e-9;
    printf("%-18s rows %4d depth %5d %10.1f us %7.1f GB/s %5.1f %%  %7.1f GFLOP/s %5.1f %%", op_names[which],
           (int)b->n_row, (int)b->depth, best * 1e6, gbps, 100 * gbps / b->roof.read_gbps, gflops,
           100 * gflops / b->roof.gflops[ROOF_F32]);
    if (which == FORWARD) printf("  %.1f tok/s", rows / best);
    printf("\n");
    fflush(stdout);
}

static void set_rows(bench *b, int64_t n_row, int64_t depth) {
    b->n_row = n_row;
    b->depth = depth;
    b->tok_begin[1] = (int32_t)n_row;
    b->pos_begin = (int32_t)depth;
    b->batch = (qni_batch){.n_tok = n_row,
                           .n_seq = 1,
                           .max_block = 1,
                           .tok_begin = b->tok_begin,
                           .pos_begin = &b->pos_begin,
                           .block_table = &b->block};
    double inv_freq[HEAD_DIM / 2], factor;
    qni_rope_resolve(inv_freq, &factor, &(qn_rope){.theta = 1e6}, HEAD_DIM);
    qni_rope_fill(mat(b, b->cos_sin, HEAD_DIM), &b->batch, &(qni_frequencies){inv_freq, factor});
}

static void time_case(bench *b, int64_t n_row, int64_t depth) {
    set_rows(b, n_row, depth);
    for (op which = 0; which < N_OP; which++) {
        if (depth == 0 || n_attention(which) > 0) time_op(b, which);
    }
}

int main(int argc, char **argv) {
    static bench b = {.repeat = 5};
    int rows = 0, depth = 0; /* 0 rows: the cases below */
    qn_device_options options = {0};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0) {
            options.n_thread = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--isa") == 0) {
            options.isa = argv[i + 1];
        } else if (strcmp(argv[i], "--repeat") == 0) {
            b.repeat = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--rows") == 0) {
            rows = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--depth") == 0) {
            depth = atoi(argv[i + 1]);
        } else {
            die("usage: ops [--threads N] [--isa LEVEL] [--repeat N] [--rows N [--depth N]]");
        }
    }
    if (rows < 0 || rows > N_PREFILL || depth < 0 || rows + depth > N_CTX) die("more rows or depth than there is room");
    qn_error err = {0};
    if (qn_device_open(&b.device, "cpu", &options, &err) != QN_OK) die(err.message);
    b.n_thread = b.device->n_thread;
    printf("%s, %d threads, isa %s; Qwen3-0.6B shapes, bf16 weights and caches, best of %d\n", b.device->description,
           b.n_thread, b.device->isa, b.repeat);
    if (!roof_open(&b.roof, b.device->isa, b.n_thread)) die("out of memory");
    measure_roof(&b, false);
    make_weights(&b);
    const size_t n_cache = (size_t)2 * N_LAYER * N_CTX * KV_WIDTH;
    b.cache = allocate(n_cache * 2);
    fill(&b, b.cache, n_cache);
    b.hidden = make_rows(D_MODEL);
    b.q = make_rows(D_FF);
    b.k = make_rows(KV_WIDTH);
    b.v = make_rows(KV_WIDTH);
    b.attn = make_rows(Q_WIDTH);
    b.cos_sin = make_rows(HEAD_DIM);
    b.logits = allocate(N_VOCAB * sizeof(float));
    measure_roof(&b, true);
    const struct {
        int64_t n_row, depth;
    } cases[] = {{1, 0}, {1, 4096}, {4, 0}, {16, 0}, {N_PREFILL, 0}, {N_PREFILL, 4096}};
    for (size_t i = 0; rows == 0 && i < sizeof cases / sizeof cases[0]; i++) {
        time_case(&b, cases[i].n_row, cases[i].depth);
    }
    if (rows > 0) time_case(&b, rows, depth);
    measure_roof(&b, true);
    for (int i = 0; i < b.n_linear; i++) qn_linear_free(b.linears[i]);
    roof_close(&b.roof);
    qn_device_close(b.device);
    return 0;
}
