/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode steps without the host in between: one step of the model is captured as a graph and launched once per token. Its
 * ids, positions and histories are on the device, which moves them on (step.cu); the sampled ids come to the host through
 * pinned memory, and the host stays a few launches ahead of what it has read.
 *
 * A graph refers to device memory by address: it is kept while nothing that it may refer to is released, and looked up
 * by what it was captured for.
 */
#include "cuda.h"

#include <math.h>
#include <string.h>

enum { MAX_GRAPH = 32, AHEAD = 3, HEAD_ROWS = 64, UNREAD = INT32_MIN };

/* What a graph was captured for. */
typedef struct graph_key {
    const void *layers, *embedding, *lm_head, *kv, *scratch, *ops;
    int64_t kv_layer_stride;
    int32_t n_seq, max_block, max_pos, n_layer;
    double attention_factor;
} graph_key;

typedef struct graph {
    graph_key key;
    cudaGraphExec_t exec;
    uint64_t used; /* by age */
} graph;

struct qni_cuda_graphs {
    graph list[MAX_GRAPH];
    int32_t n;
    uint64_t age;
    int32_t *ring;   /* pinned: {QNI_CUDA_STEP_TOKENS, n_seq} */
    bool *has_ended; /* {n_seq}: sequences of the step */
    int32_t n_seq;   /* that both have capacity for */
};

qn_status qni_cuda_graphs_create(qni_cuda *c, qn_error *err) {
    c->graphs = c->host->calloc(1, sizeof *c->graphs);
    return c->graphs != NULL ? QN_OK : c->host->fail(err, QN_ENOMEM, "cuda: no memory for the device");
}

void qni_cuda_graphs_forget(qni_cuda *c) {
    if (c->graphs == NULL) return;
    pthread_mutex_lock(&c->graph_lock);
    for (int32_t i = 0; i < c->graphs->n; i++) (void)cudaGraphExecDestroy(c->graphs->list[i].exec);
    c->graphs->n = 0;
    pthread_mutex_unlock(&c->graph_lock);
}

void qni_cuda_graphs_free(qni_cuda *c) {
    qni_cuda_graphs_forget(c);
    if (c->graphs != NULL) {
        (void)cudaFreeHost(c->graphs->ring);
        c->host->free(c->graphs->has_ended);
    }
    c->host->free(c->graphs);
    c->graphs = NULL;
}

/* The buffers of a step, in scratch. */
typedef struct buffers {
    qni_mat cos_sin, hidden, logits;
    int32_t *input, *ids, *n_step;
    void *work; /* of sampling */
} buffers;

static qni_mat take(const qni_run *run, int64_t n_row, int64_t n_col) {
    return qni_mat_of(qni_scratch_array(run->scratch, n_row, n_col, sizeof(float)), QN_DTYPE_F32, n_row, n_col);
}

static int64_t head_rows(int64_t n_seq) {
    return n_seq < HEAD_ROWS ? n_seq : HEAD_ROWS;
}

static buffers take_buffers(const qni_run *run, const qni_transformer *model, int64_t n_seq) {
    buffers b = {.cos_sin = take(run, n_seq, model->head_dim), .hidden = take(run, n_seq, model->d_model)};
    b.logits = take(run, head_rows(n_seq), model->n_vocab);
    b.input = qni_scratch_array(run->scratch, n_seq, 1, sizeof *b.input);
    b.ids = qni_scratch_array(run->scratch, n_seq, 1, sizeof *b.ids);
    b.n_step = qni_scratch_array(run->scratch, n_seq, 1, sizeof *b.n_step);
    b.work =
        qni_scratch_array(run->scratch, (int64_t)qni_cuda_sample_work((int32_t)head_rows(n_seq), model->n_vocab), 1, 1);
    return b;
}

/* Rows [first, first + n) of a matrix. */
static qni_mat rows_of(qni_mat m, int64_t first, int64_t n) {
    return qni_mat_of(qni_mat_row(&m, first), m.dtype, n, m.n_col);
}

/* Queue one step, from the ids in b->input to those in b->ids; or measure it. */
static qn_status queue_model(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                             const buffers *b) {
    const qni_batch *batch = in->batch;
    const qni_attention_call call = {
        .batch = batch, .cos_sin = b->cos_sin.data, .scale = 1 / sqrt((double)model->head_dim), .eps = model->eps};
    const bool measures = qni_scratch_measures(run->scratch);
    qni_cuda *c = measures ? NULL : qni_cuda_of(run);
    const qni_cuda_sampler *samplers = measures ? NULL : c->samplers.device;
    if (!measures) {
        QNI_CUDA_TRY(c, qni_cuda_rope(c->stream, b->cos_sin, c->batch.tok_pos, c->inv_freq, in->rope.attention_factor),
                     "rope", run->err);
    }
    QN_TRY(run->ops->embed(run, b->hidden, model->embedding, b->input));
    for (int32_t i = 0; i < model->n_layer; i++) {
        const qni_kv_layer kv = qni_kv_at(in->kv, i);
        QN_TRY(run->ops->layer(run, b->hidden, b->hidden, &model->layers[i], &kv, &call));
    }
    for (int64_t first = 0, n; first < batch->n_seq; first += n) {
        n = head_rows(batch->n_seq - first);
        const qni_mat logits = rows_of(b->logits, 0, n);
        QN_TRY(run->ops->lm_head(run, logits, rows_of(b->hidden, first, n), model->norm, model->lm_head, model->eps));
        if (measures) break;
        QNI_CUDA_TRY(c,
                     qni_cuda_sample(c->stream, b->ids + first, logits, samplers + first, c->n_close.device, b->work),
                     "sample", run->err);
    }
    return QN_OK;
}

static qn_status queue_step(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                            const buffers *b) {
    qni_cuda *c = qni_cuda_of(run);
    QN_TRY(queue_model(run, model, in, b));
    const qni_cuda_decode_state state = {.ids = b->ids,
                                         .input = b->input,
                                         .tok_pos = (int32_t *)(uintptr_t)c->batch.tok_pos,
                                         .pos_begin = (int32_t *)(uintptr_t)c->batch.pos_begin,
                                         .n_step = b->n_step,
                                         .ring = c->graphs->ring};
    QNI_CUDA_TRY(c, qni_cuda_advance(c->stream, &state, in->batch->n_seq, c->samplers.device), "step", run->err);
    return QN_OK;
}

/* Capture a step; nothing runs. */
static qn_status capture(const qni_run *run, const qni_transformer *model, const qni_step_input *in, const buffers *b,
                         cudaGraphExec_t *out) {
    qni_cuda *c = qni_cuda_of(run);
    cudaGraph_t captured = NULL;
    QNI_CUDA_TRY(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeRelaxed), "step", run->err);
    const qn_status status = queue_step(run, model, in, b);
    const cudaError_t ended = cudaStreamEndCapture(c->stream, &captured);
    cudaError_t error = ended;
    if (status == QN_OK && error == cudaSuccess) error = cudaGraphInstantiate(out, captured, 0);
    if (captured != NULL) (void)cudaGraphDestroy(captured);
    if (status != QN_OK) return status;
    QNI_CUDA_TRY(c, error, "step", run->err);
    return QN_OK;
}

/* The least power of two, from 256 on, above every position of the step, so that few graphs serve all positions. */
static int32_t position_bucket(int32_t max_pos) {
    int32_t bucket = 256;
    while (bucket <= max_pos && bucket < (1 << 30)) bucket *= 2;
    return bucket - 1;
}

static bool is_same(const graph_key *a, const graph_key *b) {
    return a->layers == b->layers && a->embedding == b->embedding && a->lm_head == b->lm_head && a->kv == b->kv &&
           a->scratch == b->scratch && a->ops == b->ops && a->kv_layer_stride == b->kv_layer_stride &&
           a->n_seq == b->n_seq && a->max_block == b->max_block && a->max_pos == b->max_pos &&
           a->n_layer == b->n_layer && a->attention_factor == b->attention_factor;
}

static qn_status find_graph(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                            const buffers *b, cudaGraphExec_t *out) {
    qni_cuda *c = qni_cuda_of(run);
    qni_cuda_graphs *g = c->graphs;
    const graph_key key = {.layers = model->layers,
                           .embedding = model->embedding->data,
                           .lm_head = model->lm_head->data,
                           .kv = in->kv->first.k,
                           .scratch = run->scratch->base,
                           .ops = run->ops,
                           .kv_layer_stride = in->kv->layer_stride,
                           .n_seq = in->batch->n_seq,
                           .max_block = in->batch->max_block,
                           .max_pos = c->batch.max_pos,
                           .n_layer = model->n_layer,
                           .attention_factor = in->rope.attention_factor};
    graph *oldest = &g->list[0];
    for (int32_t i = 0; i < g->n; i++) {
        if (is_same(&g->list[i].key, &key)) {
            g->list[i].used = ++g->age;
            *out = g->list[i].exec;
            return QN_OK;
        }
        if (g->list[i].used < oldest->used) oldest = &g->list[i];
    }
    cudaGraphExec_t exec = NULL;
    QN_TRY(capture(run, model, in, b, &exec));
    if (g->n < MAX_GRAPH) {
        oldest = &g->list[g->n++];
    } else {
        (void)cudaGraphExecDestroy(oldest->exec);
    }
    *oldest = (graph){key, exec, ++g->age};
    *out = exec;
    return QN_OK;
}

/* --- what the host does meanwhile --- */

static qn_status reserve_ring(qni_cuda *c, int32_t n_seq, qn_error *err) {
    qni_cuda_graphs *g = c->graphs;
    if (n_seq <= g->n_seq) return QN_OK;
    void *memory = NULL;
    bool *has_ended = c->host->calloc((size_t)n_seq, sizeof *has_ended);
    if (has_ended == NULL) return c->host->fail(err, QN_ENOMEM, "step: no memory for %d sequences", (int)n_seq);
    const cudaError_t error = cudaMallocHost(&memory, (size_t)n_seq * QNI_CUDA_STEP_TOKENS * sizeof *g->ring);
    if (error != cudaSuccess) {
        c->host->free(has_ended);
        return qni_cuda_fail(c, error, "step", err);
    }
    (void)cudaStreamSynchronize(c->stream);
    qni_cuda_graphs_forget(c);
    (void)cudaFreeHost(g->ring);
    c->host->free(g->has_ended);
    g->ring = memory;
    g->has_ended = has_ended;
    g->n_seq = n_seq;
    return QN_OK;
}

/* Wait for a number in the ring. */
static qn_status wait_for(qni_cuda *c, const volatile int32_t *at, int32_t *out, qn_error *err) {
    for (int64_t turn = 0; (*out = *at) == UNREAD; turn++) {
        if (turn % 4096 != 4095) continue;
        const cudaError_t error = cudaStreamQuery(c->stream);
        if (error == cudaErrorNotReady) continue;
        QNI_CUDA_TRY(c, error, "step", err);
        if ((*out = *at) == UNREAD) return c->host->fail(err, QN_EDEVICE, "step: the GPU gave no id");
        break;
    }
    return QN_OK;
}

static bool is_end(const qni_sampling *how, int32_t id) {
    bool found = false;
    for (int32_t i = 0; i < how->n_end; i++) found = found || how->ends[i] == id;
    return found;
}

/* Take the ids of one token of each sequence. *goes_on: whether a sequence needs more. */
static qn_status take_ids(qni_cuda *c, const qni_decode *decode, int32_t n_seq, int32_t token, bool *goes_on,
                          qn_error *err) {
    qni_cuda_graphs *g = c->graphs;
    *goes_on = false;
    for (int32_t s = 0; s < n_seq; s++) {
        qni_sampling *how = &decode->sampling[s];
        int32_t id;
        QN_TRY(wait_for(c, &g->ring[(size_t)token * (size_t)n_seq + (size_t)s], &id, err));
        if (g->has_ended[s]) continue; /* computed beyond its end */
        g->has_ended[s] = id < 0 || is_end(how, id);
        decode->is_bad[s] = id < 0;
        if (id < 0) continue;
        how->ids[how->n_id++] = id;
        decode->n_sampled[s] = token + 1;
        *goes_on = *goes_on || !g->has_ended[s];
    }
    return QN_OK;
}

/* Launch the graph up to n_token times. */
static qn_status generate(qni_cuda *c, cudaGraphExec_t exec, const qni_decode *decode, int32_t n_seq, qn_error *err) {
    bool goes_on = true;
    for (int32_t read = 0, launched = 0; read < decode->n_token && goes_on; read++) {
        for (; launched < decode->n_token && launched < read + AHEAD; launched++) {
            if (decode->canceled != NULL && *decode->canceled) break;
            QNI_CUDA_TRY(c, cudaGraphLaunch(exec, c->stream), "step", err);
        }
        if (read == launched) break; /* canceled */
        QN_TRY(take_ids(c, decode, n_seq, read, &goes_on, err));
    }
    return QN_OK;
}

static qn_status upload(qni_cuda *c, const qni_step_input *in, const qni_decode *decode, const buffers *b,
                        qn_error *err) {
    const int32_t n_seq = in->batch->n_seq;
    const size_t bytes = (size_t)n_seq * sizeof(int32_t), n_ring = (size_t)n_seq * QNI_CUDA_STEP_TOKENS;
    QN_TRY(reserve_ring(c, n_seq, err));
    memset(c->graphs->has_ended, 0, (size_t)n_seq);
    QN_TRY(qni_cuda_batch_put(c, in->batch, err));
    QN_TRY(qni_cuda_samplers_put(c, decode->sampling, n_seq, decode->n_token, err));
    for (size_t i = 0; i < n_ring; i++) c->graphs->ring[i] = UNREAD;
    c->batch.max_pos = position_bucket(c->batch.max_pos + decode->n_token);
    c->batch_cos_sin = b->cos_sin.data;
    QNI_CUDA_TRY(c, cudaMemcpyAsync(b->input, in->ids, bytes, cudaMemcpyHostToDevice, c->stream), "step", err);
    QNI_CUDA_TRY(c, cudaMemsetAsync(b->n_step, 0, bytes, c->stream), "step", err);
    QNI_CUDA_TRY(c,
                 cudaMemcpyAsync(c->inv_freq, in->rope.inv_freq, (size_t)b->cos_sin.n_col / 2 * sizeof *c->inv_freq,
                                 cudaMemcpyHostToDevice, c->stream),
                 "step", err);
    return QN_OK;
}

qn_status qni_cuda_op_step(const qni_run *run, const qni_transformer *model, const qni_step_input *in,
                           const qni_decode *decode) {
    const size_t mark = run->scratch->used;
    const int32_t n_seq = in->batch->n_seq;
    const buffers b = take_buffers(run, model, n_seq);
    qn_status status = QN_OK;
    if (qni_scratch_measures(run->scratch)) {
        status = queue_model(run, model, in, &b);
    } else {
        qni_cuda *c = qni_cuda_of(run);
        cudaGraphExec_t exec = NULL;
        status = upload(c, in, decode, &b, run->err);
        if (status == QN_OK) {
            status = qni_cuda_reserve_work(c, model->layers[0].attention.q_proj.n_out / model->head_dim,
                                           model->head_dim, run->err);
        }
        pthread_mutex_lock(&c->graph_lock);
        if (status == QN_OK) status = find_graph(run, model, in, &b, &exec);
        if (status == QN_OK) status = generate(c, exec, decode, n_seq, run->err);
        pthread_mutex_unlock(&c->graph_lock);
        /* Launches beyond the end, and those before an error, use these buffers and write to the ring. */
        const qn_status waited = qni_cuda_memory.wait(c, status == QN_OK ? run->err : NULL);
        if (status == QN_OK) status = waited;
    }
    qni_scratch_reset(run->scratch, mark);
    return status;
}
