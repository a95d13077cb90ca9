/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend's table, its entry, opening of devices, memory and errors. */
#include "cuda.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Errors after which the context answers every call with the same error. */
static bool is_final(cudaError_t error) {
    switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

qn_status qni_cuda_fail(qni_cuda *c, cudaError_t error, const char *what, qn_error *err) {
    (void)cudaGetLastError(); /* an error that can be recovered from is reported once */
    if (error == cudaErrorMemoryAllocation) return c->host->fail(err, QN_ENOMEM, "%s: no memory on the GPU", what);
    pthread_mutex_lock(&c->lock);
    if (is_final(error) && !c->is_lost) {
        c->is_lost = true;
        c->failed = error;
    }
    const bool is_lost = c->is_lost;
    pthread_mutex_unlock(&c->lock);
    return c->host->fail(err, is_lost ? QN_ELOST : QN_EDEVICE, "%s: %s%s", what, is_lost ? "the GPU is lost: " : "",
                         cudaGetErrorString(error));
}

void qni_cuda_keep(qni_cuda *c, cudaError_t error) {
    pthread_mutex_lock(&c->lock);
    if (error != cudaSuccess && c->failed == cudaSuccess) c->failed = error;
    pthread_mutex_unlock(&c->lock);
}

/* Report what was kept; that the device is lost, each time. */
static qn_status report_kept(qni_cuda *c, qn_error *err) {
    pthread_mutex_lock(&c->lock);
    const cudaError_t error = c->failed;
    if (!c->is_lost) c->failed = cudaSuccess;
    pthread_mutex_unlock(&c->lock);
    return error == cudaSuccess ? QN_OK : qni_cuda_fail(c, error, "cuda", err);
}

qni_cuda *qni_cuda_of(const qni_run *run) {
    qni_cuda *c = run->backend;
    (void)cudaSetDevice(c->device);
    return c;
}

/* --- memory --- */

static qn_status alloc(void *state, qni_buffer *out, size_t bytes, qni_memory_kind kind,
                       const qn_allocator *allocator) {
    (void)kind, (void)allocator;
    qni_cuda *c = state;
    (void)cudaSetDevice(c->device);
    void *address = NULL;
    const cudaError_t error = cudaMalloc(&address, bytes);
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return QN_ENOMEM;
    }
    if (error != cudaSuccess) return qni_cuda_fail(c, error, "memory", NULL);
    *out = (qni_buffer){.address = address, .bytes = bytes};
    return QN_OK;
}

/* In a forked child the memory is the parent's. */
static void release(void *state, const qni_buffer *buffer, const qn_allocator *allocator) {
    (void)allocator;
    qni_cuda *c = state;
    if (c->owner != getpid()) return;
    (void)cudaSetDevice(c->device);
    qni_cuda_graphs_forget(c);
    (void)cudaFree(buffer->address);
}

static qn_status transfer(void *state, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                          const char *what, qn_error *err) {
    qni_cuda *c = state;
    (void)cudaSetDevice(c->device);
    QN_TRY(report_kept(c, err));
    QNI_CUDA_TRY(c, cudaMemcpyAsync(to, from, bytes, kind, c->stream), what, err);
    if (kind == cudaMemcpyDeviceToHost) QNI_CUDA_TRY(c, cudaStreamSynchronize(c->stream), what, err);
    return QN_OK;
}

/* Whether CUDA copies from this host memory by itself, after the call has returned. */
static bool is_pinned(const void *memory) {
    struct cudaPointerAttributes attributes;
    if (cudaPointerGetAttributes(&attributes, memory) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    return attributes.type == cudaMemoryTypeHost;
}

/* The source may change once this returns: pageable memory has been copied by then, pinned memory is waited for. */
static qn_status write_device(void *state, void *to, const void *from, size_t bytes, qn_error *err) {
    qni_cuda *c = state;
    QN_TRY(transfer(c, to, from, bytes, cudaMemcpyHostToDevice, "write", err));
    if (is_pinned(from)) QNI_CUDA_TRY(c, cudaStreamSynchronize(c->stream), "write", err);
    return QN_OK;
}
static qn_status read_device(void *state, void *to, const void *from, size_t bytes, qn_error *err) {
    return transfer(state, to, from, bytes, cudaMemcpyDeviceToHost, "read", err);
}
static qn_status copy_device(void *state, void *to, const void *from, size_t bytes, qn_error *err) {
    return transfer(state, to, from, bytes, cudaMemcpyDeviceToDevice, "copy", err);
}

static qn_status clear_device(void *state, void *to, size_t bytes, qn_error *err) {
    qni_cuda *c = state;
    (void)cudaSetDevice(c->device);
    QN_TRY(report_kept(c, err));
    QNI_CUDA_TRY(c, cudaMemsetAsync(to, 0, bytes, c->stream), "clear", err);
    return QN_OK;
}

static qn_status wait_device(void *state, qn_error *err) {
    qni_cuda *c = state;
    if (c->owner != getpid()) return QN_OK;
    (void)cudaSetDevice(c->device);
    pthread_mutex_lock(&c->graph_lock); /* to wait for a stream that captures would spoil what it captures */
    const cudaError_t error = cudaStreamSynchronize(c->stream);
    pthread_mutex_unlock(&c->graph_lock);
    QNI_CUDA_TRY(c, error, "wait", err);
    return report_kept(c, err);
}

const qni_memory_ops qni_cuda_memory = {.alloc = alloc,
                                        .release = release,
                                        .write = write_device,
                                        .read = read_device,
                                        .copy = copy_device,
                                        .clear = clear_device,
                                        .wait = wait_device,
                                        .wraps = false};

qn_status qni_cuda_grow(qni_cuda *c, qni_cuda_buffer *buffer, size_t bytes, bool has_twin, const char *what,
                        qn_error *err) {
    if (bytes <= buffer->bytes) return QN_OK;
    qni_cuda_buffer grown = {.bytes = 2 * bytes};
    if (has_twin) grown.host = c->host->calloc(grown.bytes, 1);
    if (has_twin && grown.host == NULL) {
        return c->host->fail(err, QN_ENOMEM, "%s: no memory for %zu bytes", what, grown.bytes);
    }
    cudaError_t error = cudaMalloc(&grown.device, grown.bytes);
    if (error == cudaSuccess) error = cudaMemsetAsync(grown.device, 0, grown.bytes, c->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(c->stream); /* the old memory may be in use */
    if (error == cudaSuccess) {
        qni_cuda_graphs_forget(c);
        const qni_cuda_buffer old = *buffer;
        *buffer = grown;
        grown = old;
    }
    (void)cudaFree(grown.device);
    c->host->free(grown.host);
    return error == cudaSuccess ? QN_OK : qni_cuda_fail(c, error, what, err);
}

/* --- opening --- */

static void close_cuda(void *state) {
    qni_cuda *c = state;
    if (c == NULL) return;
    if (c->owner == getpid()) {
        (void)cudaSetDevice(c->device);
        if (c->stream != NULL) (void)cudaStreamSynchronize(c->stream);
        qni_cuda_staging_free(c);
        qni_cuda_gemms_free(c);
        qni_cuda_graphs_free(c);
        (void)cudaFree(c->n_close.device);
        (void)cudaFree(c->samplers.device);
        (void)cudaFree(c->work.device);
        (void)cudaFree(c->batch_ints.device);
        (void)cudaFree(c->inv_freq);
        if (c->stream != NULL) (void)cudaStreamDestroy(c->stream);
    }
    c->host->free(c->batch_ints.host);
    c->host->free(c->samplers.host);
    c->host->pool_free(c->pool);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->graph_lock);
    c->host->free(c);
}

/* What is made with the device, in order. */
static qn_status create_parts(qni_cuda *c, const qni_opening *how, qn_error *err) {
    struct cudaDeviceProp properties;
    QNI_CUDA_TRY(c, cudaSetDevice(c->device), "cuda", err);
    QNI_CUDA_TRY(c, cudaGetDeviceProperties(&properties, c->device), "cuda", err);
    if (properties.major < 8) {
        return c->host->fail(err, QN_EUNSUPPORTED, "cuda: %s has compute capability %d.%d; 8.0 or later is needed",
                             properties.name, properties.major, properties.minor);
    }
    c->n_sm = properties.multiProcessorCount;
    snprintf(c->name, sizeof c->name, "%.63s", properties.name);
    snprintf(c->isa, sizeof c->isa, "sm_%d%d", properties.major, properties.minor);
    QNI_CUDA_TRY(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "cuda", err);
    void *memory = NULL;
    QNI_CUDA_TRY(c, cudaMalloc(&memory, QNI_CUDA_MAX_HEAD_DIM / 2 * sizeof *c->inv_freq), "cuda", err);
    c->inv_freq = memory;
    QN_TRY(qni_cuda_staging_create(c, err));
    QN_TRY(qni_cuda_gemms_create(c, err));
    QN_TRY(qni_cuda_graphs_create(c, err));
    return c->host->pool_create(&c->pool, how->n_thread, how->options->pin, err);
}

static qn_status open_cuda(void **state, const char **isa_out, const qni_opening *how, qn_error *err) {
    qni_cuda *c = how->host->calloc(1, sizeof *c);
    if (c == NULL) return how->host->fail(err, QN_ENOMEM, "cuda: no memory for the device");
    c->host = how->host;
    c->device = how->index;
    c->owner = getpid();
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->graph_lock, NULL);
    const qn_status status = create_parts(c, how, err);
    if (status != QN_OK) {
        close_cuda(c);
        return status;
    }
    *isa_out = c->isa;
    *state = c;
    return QN_OK;
}

static void describe(const void *state, qni_device_facts *out) {
    const qni_cuda *c = state;
    size_t available = 0, total = 0;
    (void)cudaSetDevice(c->device);
    (void)cudaMemGetInfo(&available, &total);
    *out = (qni_device_facts){.memory_total_bytes = total, .memory_available_bytes = available};
    snprintf(out->description, sizeof out->description, "%s", c->name);
}

static void parallel(void *state, int32_t n_task, qni_task task, void *context) {
    qni_cuda *c = state;
    c->host->pool_run(c->pool, n_task, task, context);
}

const qni_backend qni_cuda_backend = {
    .name = "cuda",
    .kv_block_tokens = QNI_CUDA_KV_BLOCK,
    .kv_dtype = QN_DTYPE_BF16,
    .n_batch = QNI_CUDA_N_BATCH,
    .step_tokens = QNI_CUDA_STEP_TOKENS,
    .steps_single = true,
    .open = open_cuda,
    .close = close_cuda,
    .describe = describe,
    .measure_peaks = qni_cuda_measure_peaks,
    .count_close_draws = qni_cuda_count_close_draws,
    .memory = &qni_cuda_memory,
    .ops = {.embed = qni_cuda_op_embed,
            .rms_norm = qni_cuda_op_rms_norm,
            .linear = qni_cuda_op_linear,
            .rope = qni_cuda_op_rope,
            .kv_attention = qni_cuda_op_kv_attention,
            .linear_add = qni_cuda_op_linear_add,
            .swiglu = qni_cuda_op_swiglu,
            .argmax = qni_cuda_op_argmax,
            .mlp = qni_cuda_op_mlp,
            .attention_block = qni_cuda_op_attention_block,
            .lm_head = qni_cuda_op_lm_head,
            .sample = qni_cuda_op_sample,
            .step = qni_cuda_op_step},
    .packing = qni_cuda_packing,
    .pack = qni_cuda_pack,
    .pack_quantized = qni_cuda_pack_quantized,
    .parallel = parallel,
};

/* Why there is no GPU to use. */
static void explain(const qni_host *host, cudaError_t error, qn_error *reason) {
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        (void)host->fail(reason, QN_EUNSUPPORTED, "cuda: no NVIDIA driver is installed");
    } else if (error == cudaErrorInsufficientDriver) {
        (void)host->fail(reason, QN_EUNSUPPORTED, "cuda: the NVIDIA driver is for CUDA %d.%d, %d.%d is needed",
                         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    } else if (error == cudaSuccess || error == cudaErrorNoDevice) {
        (void)host->fail(reason, QN_EUNSUPPORTED, "cuda: there is no NVIDIA GPU");
    } else {
        (void)host->fail(reason, QN_EUNSUPPORTED, "cuda: %s", cudaGetErrorString(error));
    }
}

QN_API qni_plugin_backend_fn qni_plugin_backend;

const qni_backend *qni_plugin_backend(int32_t abi, const qni_host *host, int32_t *n_device, qn_error *reason) {
    if (abi != QNI_PLUGIN_ABI) return NULL;
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    *n_device = error == cudaSuccess ? n : 0;
    if (*n_device == 0) explain(host, error, reason);
    return &qni_cuda_backend;
}
