/* SPDX-License-Identifier: Apache-2.0 */
/* Packing linears (layout.h): rows are arranged in pinned host memory and copied to the device in queue order. */
#include "cuda.h"

#include "../backend/quant.h"

#include <string.h>

enum { SLOT_BYTES = 2 << 20 };

/* A part of the staging memory; free once `done` has happened. */
typedef struct qni_cuda_slot {
    unsigned char *host;
    cudaEvent_t done;
    bool is_taken; /* by a thread that fills it */
} slot;

qn_status qni_cuda_staging_create(qni_cuda *c, qn_error *err) {
    enum { N_SLOT = 16 };
    qni_cuda_staging *st = &c->staging;
    pthread_mutex_init(&st->lock, NULL);
    pthread_cond_init(&st->changed, NULL);
    st->slots = c->host->calloc(N_SLOT, sizeof *st->slots);
    if (st->slots == NULL) return c->host->fail(err, QN_ENOMEM, "cuda: no memory for the device");
    for (; st->n_slot < N_SLOT; st->n_slot++) {
        slot *s = &st->slots[st->n_slot];
        void *memory = NULL;
        QNI_CUDA_TRY(c, cudaMallocHost(&memory, SLOT_BYTES), "cuda: pinned memory", err);
        s->host = memory;
        QNI_CUDA_TRY(c, cudaEventCreateWithFlags(&s->done, cudaEventDisableTiming), "cuda", err);
    }
    return QN_OK;
}

void qni_cuda_staging_free(qni_cuda *c) {
    qni_cuda_staging *st = &c->staging;
    for (int32_t i = 0; st->slots != NULL && i <= st->n_slot && i < 16; i++) {
        if (st->slots[i].done != NULL) (void)cudaEventDestroy(st->slots[i].done);
        (void)cudaFreeHost(st->slots[i].host);
    }
    c->host->free(st->slots);
    st->slots = NULL;
    pthread_mutex_destroy(&st->lock);
    pthread_cond_destroy(&st->changed);
}

/* A slot whose last copy is done. */
static slot *take_slot(qni_cuda *c) {
    qni_cuda_staging *st = &c->staging;
    slot *s = NULL;
    pthread_mutex_lock(&st->lock);
    while (s == NULL) {
        for (int32_t i = 0; i < st->n_slot && s == NULL; i++) {
            if (!st->slots[i].is_taken && cudaEventQuery(st->slots[i].done) == cudaSuccess) s = &st->slots[i];
        }
        for (int32_t i = 0; i < st->n_slot && s == NULL; i++) {
            if (!st->slots[i].is_taken) s = &st->slots[i];
        }
        if (s == NULL) pthread_cond_wait(&st->changed, &st->lock);
    }
    s->is_taken = true;
    pthread_mutex_unlock(&st->lock);
    qni_cuda_keep(c, cudaEventSynchronize(s->done));
    return s;
}

static void give_slot(qni_cuda *c, slot *s) {
    qni_cuda_keep(c, cudaEventRecord(s->done, c->stream));
    pthread_mutex_lock(&c->staging.lock);
    s->is_taken = false;
    pthread_cond_signal(&c->staging.changed);
    pthread_mutex_unlock(&c->staging.lock);
}

/* Copy `height` rows of `width` bytes from a slot. */
static void send(qni_cuda *c, void *to, size_t to_pitch, const void *from, size_t width, size_t height) {
    qni_cuda_keep(c, cudaMemcpy2DAsync(to, to_pitch, from, width, width, height, cudaMemcpyHostToDevice, c->stream));
}

/* --- what a packed linear looks like --- */

/* Whether the tensor cores' kernels take a weight: whole blocks of inputs, and outputs in eights. */
static bool is_regular(const qni_source *source) {
    const qni_quant *q = &source->quant;
    if (source->n_out % 8 != 0) return false;
    if (q->kind == QNI_DENSE) return source->dtype == QN_DTYPE_BF16 && source->n_in % 32 == 0;
    return source->n_in % 32 == 0 && q->group % 32 == 0 && q->group_out > 0 &&
           (q->group_out == 1 || q->group_out % 8 == 0);
}

qn_status qni_cuda_packing(const void *state, qni_packing *out, const qni_source *source, qn_error *err) {
    const qni_cuda *c = state;
    const qni_quant *q = &source->quant;
    const int64_t n_in = source->n_in, n_out = source->n_out;
    const bool is_dense = q->kind == QNI_DENSE, regular = is_regular(source);
    if (source->arith == QN_ARITH_INT8) {
        return c->host->fail(err, QN_EUNSUPPORTED, "arith: \"cuda\" computes in f32 or bf16, not in int8");
    }
    if (n_in > INT32_MAX || n_out > INT32_MAX) {
        return c->host->fail(err, QN_ENOMEM, "linear: %lld by %lld elements are too many", (long long)n_in,
                             (long long)n_out);
    }
    const bool f32 = source->arith == QN_ARITH_F32 || (source->arith == QN_ARITH_AUTO && !regular);
    *out = (qni_packing){.form = {.dtype = is_dense             ? source->dtype
                                           : q->kind == QNI_FP8 ? QN_DTYPE_F8
                                                                : QN_DTYPE_U32,
                                  .arith = f32 ? QN_ARITH_F32 : QN_ARITH_BF16,
                                  .quant = *q,
                                  .packed = true,
                                  .n_in = n_in,
                                  .n_out = n_out,
                                  .nr = 1,
                                  .ki = 1,
                                  .panel_stride = is_dense ? n_in : qni_cuda_row_bytes(q, n_in),
                                  .group_stride = 1}};
    out->bytes = is_dense ? (size_t)(n_in * n_out) * (source->dtype == QN_DTYPE_F32 ? 4 : 2)
                          : (size_t)qni_cuda_quant_bytes(&out->form);
    return QN_OK;
}

/* --- filling it --- */

void qni_cuda_pack(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n, const void *src,
                   int64_t in_stride, int64_t out_stride) {
    qni_cuda *c = (qni_cuda *)(uintptr_t)state;
    (void)cudaSetDevice(c->device);
    const size_t element = form->dtype == QN_DTYPE_F32 ? 4 : 2, row = (size_t)form->n_in * element;
    unsigned char *to = (unsigned char *)data + (size_t)first * row;
    const int64_t whole = row < SLOT_BYTES ? (int64_t)(SLOT_BYTES / row) : 1;
    for (int64_t o = 0; o < n; o += whole) {
        const int64_t n_row = n - o < whole ? n - o : whole;
        for (size_t at = 0; at < row; at += SLOT_BYTES) { /* a row may be longer than a slot */
            const size_t part = row - at < SLOT_BYTES ? row - at : SLOT_BYTES;
            slot *s = take_slot(c);
            for (int64_t r = 0; r < n_row; r++) {
                const int64_t i = (int64_t)(at / element);
                const unsigned char *from =
                    (const unsigned char *)src + (size_t)((o + r) * out_stride + i * in_stride) * element;
                unsigned char *line = s->host + (size_t)r * part;
                if (in_stride == 1) {
                    memcpy(line, from, part);
                } else {
                    for (size_t k = 0; k < part / element; k++) {
                        memcpy(line + k * element, from + k * (size_t)in_stride * element, element);
                    }
                }
            }
            send(c, to + (size_t)o * row + at, row, s->host, part, (size_t)n_row);
            give_slot(c, s);
        }
    }
}

/* Codes of one row in the order of layout.h. */
static void arrange_row(unsigned char *to, const uint8_t *codes, const qni_quant *q, int64_t n_in) {
    const int32_t width = qni_cuda_width(q);
    const int64_t run = 512 / width, bytes = qni_cuda_row_bytes(q, n_in), n_all = bytes / 64 * run;
    memset(to, 0, (size_t)bytes);
    for (int64_t i = 0; i < n_all && i < n_in; i += 8) { /* eight codes are `width` bytes, one after another */
        int32_t bit;
        unsigned char *at = to + qni_cuda_code_at(q, i, &bit);
        uint64_t word = 0;
        for (int64_t j = 0; j < 8 && i + j < n_in; j++) word |= (uint64_t)codes[i + j] << (j * width);
        memcpy(at, &word, (size_t)width);
    }
}

/* Scales or biases of rows [first, first + n) {n, n_group} to columns of {n_group, n_scale_out}, in tiles that fit into a
 * slot: all groups of several rows, or as many groups of one row as there is room for. */
static void send_scales(qni_cuda *c, unsigned char *to, const unsigned char *from, const qni_weight *form,
                        int64_t first, int64_t n) {
    const qni_quant *q = &form->quant;
    const size_t element = (size_t)qni_cuda_scale_element(q);
    const int64_t n_group = qni_cuda_n_group(q, form->n_in), pitch = qni_cuda_n_scale_out(q, form->n_out);
    const int64_t room = SLOT_BYTES / (int64_t)element, wide = n_group < room ? n_group : room, high = room / wide;
    for (int64_t o = 0; o < n; o += high) {
        const int64_t n_row = n - o < high ? n - o : high;
        for (int64_t g = 0; g < n_group; g += wide) {
            const int64_t n_here = n_group - g < wide ? n_group - g : wide;
            slot *s = take_slot(c);
            for (int64_t k = 0; k < n_here * n_row; k++) {
                const int64_t at = (o + k % n_row) * n_group + g + k / n_row;
                memcpy(s->host + (size_t)k * element, from + (size_t)at * element, element);
            }
            send(c, to + (size_t)(g * pitch + first + o) * element, (size_t)pitch * element, s->host,
                 (size_t)n_row * element, (size_t)n_here);
            give_slot(c, s);
        }
    }
}

qn_status qni_cuda_pack_quantized(const void *state, const qni_weight *form, void *data, int64_t first, int64_t n,
                                  const qni_quant *source, const qni_quant_rows *rows, qn_error *err) {
    qni_cuda *c = (qni_cuda *)(uintptr_t)state;
    (void)cudaSetDevice(c->device);
    const int64_t n_in = form->n_in, row = qni_cuda_row_bytes(&form->quant, n_in);
    const int64_t code_row = qni_quant_code_bytes(source, n_in), most = SLOT_BYTES / row;
    uint8_t *codes = c->host->calloc((size_t)n_in, 1);
    if (codes == NULL || most < 1) {
        c->host->free(codes);
        return c->host->fail(err, QN_ENOMEM, "linear: no memory for a row of %lld", (long long)n_in);
    }
    for (int64_t o = 0; o < n; o += most) {
        const int64_t n_row = n - o < most ? n - o : most;
        slot *s = take_slot(c);
        for (int64_t r = 0; r < n_row; r++) {
            qni_quant_read_codes(codes, rows->codes + (o + r) * code_row, source->bits, n_in);
            arrange_row(s->host + r * row, codes, &form->quant, n_in);
        }
        send(c, (unsigned char *)data + (first + o) * row, (size_t)row, s->host, (size_t)row, (size_t)n_row);
        give_slot(c, s);
    }
    c->host->free(codes);
    const int64_t group_out = source->group_out, n_scale = (n + group_out - 1) / group_out;
    unsigned char *base = data;
    send_scales(c, base + qni_cuda_scales_at(form), rows->scales, form, first / group_out, n_scale);
    if (qni_cuda_has_biases(source)) {
        send_scales(c, base + qni_cuda_biases_at(form), rows->biases, form, first / group_out, n_scale);
    }
    return QN_OK;
}
