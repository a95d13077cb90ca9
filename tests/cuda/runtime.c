/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in's device, streams, events, copies and graphs: see runtime.h. */
#include "runtime.h"

#include "memory.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Queued work, with its arguments. */
typedef struct item {
    struct item *next;
    fake_work *work;
    size_t bytes;
    max_align_t arguments[];
} item;

struct CUgraph_st {
    item *first, **end;
};
struct CUgraphExec_st {
    item *first;
};
struct CUstream_st {
    item *first, **end;
    cudaGraph_t captured; /* while it captures */
    bool invalid;         /* the capture has failed */
};
struct CUevent_st {
    int64_t n_pending; /* records that have not run */
    cudaStream_t stream;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fake_settings settings = {.driver = 13000, .n_device = 1, .major = 9};
static fake_counts counts;
static bool is_lost;
static pid_t owner;
static _Thread_local cudaError_t last;

void fake_refuse(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fprintf(stderr, "not CUDA: ");
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    abort();
}

/* --- settings --- */

fake_settings fake_defaults(void) {
    return (fake_settings){.driver = 13000, .n_device = 1, .major = 9};
}

void fake_set(const fake_settings *wanted) {
    pthread_mutex_lock(&lock);
    settings = *wanted;
    counts.n_call = counts.n_malloc = counts.n_instantiated = counts.n_launched = 0;
    is_lost = false;
    pthread_mutex_unlock(&lock);
}

void fake_reset(void) {
    const fake_settings none = fake_defaults();
    fake_set(&none);
}

fake_counts fake_get(void) {
    pthread_mutex_lock(&lock);
    fake_counts now = counts;
    now.n_block = fake_n_block(false);
    now.n_pinned = fake_n_block(true);
    pthread_mutex_unlock(&lock);
    return now;
}

int64_t fake_living(void) {
    const fake_counts c = fake_get();
    return c.n_block + c.n_pinned + c.n_stream + c.n_event + c.n_graph + c.n_exec + c.n_blas;
}

void fake_count_blas(int change) {
    pthread_mutex_lock(&lock);
    counts.n_blas += change;
    pthread_mutex_unlock(&lock);
}

/* --- calls: each begins with enter() and ends with leave() --- */

/* The error of a lost device; a forked child may not call CUDA. */
static cudaError_t enter(void) {
    pthread_mutex_lock(&lock);
    if (owner == 0) owner = getpid();
    if (owner != getpid()) fake_refuse("a call in a forked child");
    counts.n_call++;
    if (settings.lose_at > 0 && counts.n_call >= settings.lose_at) is_lost = true;
    return is_lost ? cudaErrorIllegalAddress : cudaSuccess;
}

static cudaError_t leave(cudaError_t error) {
    pthread_mutex_unlock(&lock);
    if (error != cudaSuccess) last = error;
    return error;
}

/* Take one item from a queue and run it, or only drop it. */
static void run_first(cudaStream_t stream) {
    item *it = stream->first;
    stream->first = it->next;
    if (stream->first == NULL) stream->end = &stream->first;
    if (!is_lost) it->work(it->arguments);
    free(it);
}

static void drain(cudaStream_t stream) {
    if (stream->first == NULL) return;
    fake_unlock_memory();
    while (stream->first != NULL) run_first(stream);
    fake_lock_memory();
}

/* Freeing memory waits for all work: the streams that exist. */
enum { MAX_STREAM = 64 };
static cudaStream_t streams[MAX_STREAM];

static void drain_all(void) {
    for (int i = 0; i < MAX_STREAM; i++) {
        if (streams[i] != NULL) drain(streams[i]);
    }
}

static item *new_item(fake_work *work, const void *arguments, size_t bytes) {
    item *it = malloc(sizeof *it + bytes);
    if (it == NULL) fake_refuse("malloc");
    it->next = NULL;
    it->work = work;
    it->bytes = bytes;
    memcpy(it->arguments, arguments, bytes);
    return it;
}

/* At the end of a stream, or of what it captures. */
static void append(cudaStream_t stream, item *it) {
    item ***end = stream->captured != NULL ? &stream->captured->end : &stream->end;
    **end = it;
    *end = &it->next;
}

cudaError_t fake_queue(cudaStream_t stream, fake_work *work, const void *arguments, size_t bytes) {
    cudaError_t error = enter();
    if (error == cudaSuccess) append(stream, new_item(work, arguments, bytes));
    return leave(error);
}

/* --- device --- */

cudaError_t cudaDriverGetVersion(int *version) {
    *version = settings.driver;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 12040;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = settings.n_device;
    return settings.count_error;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    const cudaError_t error = enter();
    *out = (struct cudaDeviceProp){
        .name = "Stand-in", .major = settings.major, .minor = settings.minor, .multiProcessorCount = 4};
    return leave(device < settings.n_device ? error : cudaErrorInvalidDevice);
}
cudaError_t cudaSetDevice(int device) {
    const cudaError_t error = enter();
    return leave(device < settings.n_device ? error : cudaErrorInvalidDevice);
}
cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last;
    last = cudaSuccess;
    return error;
}
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    default:
        return "another error";
    }
}

/* --- memory --- */

static const size_t most_bytes = (size_t)4 << 30; /* the memory of the GPU */

static cudaError_t take_memory(void **out, size_t bytes, bool pinned) {
    cudaError_t error = enter();
    counts.n_malloc++;
    const bool fails = counts.n_malloc == settings.fail_malloc || bytes > most_bytes;
    if (error == cudaSuccess && fails) error = cudaErrorMemoryAllocation;
    if (error == cudaSuccess) *out = fake_take(bytes > 0 ? bytes : 1, pinned);
    return leave(error);
}

/* On a lost device too, so that tests see what was never freed. */
static cudaError_t give_memory(void *address, bool pinned) {
    const cudaError_t error = enter();
    if (address != NULL) {
        drain_all();
        if (!fake_give(address, pinned)) fake_refuse("free of %p, which is no block", address);
    }
    return leave(error);
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
    return take_memory(out, bytes, false);
}
cudaError_t cudaFree(void *address) {
    return give_memory(address, false);
}
cudaError_t cudaMallocHost(void **out, size_t bytes) {
    return take_memory(out, bytes, true);
}
cudaError_t cudaFreeHost(void *address) {
    return give_memory(address, true);
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *pointer) {
    const cudaError_t error = enter();
    out->type = fake_holds(pointer, 1, true)    ? cudaMemoryTypeHost
                : fake_holds(pointer, 1, false) ? cudaMemoryTypeDevice
                                                : cudaMemoryTypeUnregistered;
    return leave(error);
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    const cudaError_t error = enter();
    if (error == cudaSuccess) *available = (size_t)3 << 30, *total = most_bytes;
    return leave(error);
}

/* --- copies --- */

typedef struct copy {
    unsigned char *to;
    const unsigned char *from; /* NULL: the bytes follow */
    size_t to_pitch, from_pitch, width, height;
    max_align_t bytes[];
} copy;

static void run_copy(void *arguments) {
    const copy *c = arguments;
    const unsigned char *from = c->from != NULL ? c->from : (const unsigned char *)c->bytes;
    for (size_t r = 0; r < c->height; r++) memcpy(c->to + r * c->to_pitch, from + r * c->from_pitch, c->width);
}

static void check_ranges(const copy *c, enum cudaMemcpyKind kind) {
    const size_t to = (c->height - 1) * c->to_pitch + c->width, from = (c->height - 1) * c->from_pitch + c->width;
    if (kind != cudaMemcpyDeviceToHost && !fake_holds(c->to, to, false)) fake_refuse("a copy to no block");
    if (kind != cudaMemcpyHostToDevice && !fake_holds(c->from, from, false)) fake_refuse("a copy from no block");
}

/* Pageable memory is read before the call returns, and written before it returns; pinned memory when the stream gets
 * there. */
static cudaError_t queue_copy(const copy *wanted, enum cudaMemcpyKind kind, cudaStream_t stream) {
    copy c = *wanted;
    if (c.width == 0 || c.height == 0) return cudaSuccess;
    cudaError_t error = enter();
    if (error == cudaSuccess && stream->captured != NULL) fake_refuse("a copy while the stream captures");
    if (error == cudaSuccess) {
        check_ranges(&c, kind);
        const size_t bytes = (c.height - 1) * c.from_pitch + c.width;
        item *it;
        if (kind == cudaMemcpyHostToDevice && !fake_holds(c.from, bytes, true)) {
            const unsigned char *from = c.from;
            c.from = NULL;
            it = malloc(sizeof *it + sizeof c + bytes);
            if (it == NULL) fake_refuse("malloc");
            *it = (item){.work = run_copy, .bytes = sizeof c + bytes};
            memcpy(it->arguments, &c, sizeof c);
            memcpy(((copy *)(void *)it->arguments)->bytes, from, bytes);
        } else {
            it = new_item(run_copy, &c, sizeof c);
        }
        append(stream, it);
        if (kind == cudaMemcpyDeviceToHost && !fake_holds(c.to, c.width, true)) drain(stream);
    }
    return leave(error);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    const copy c = {.to = to, .from = from, .width = bytes, .height = 1};
    return queue_copy(&c, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    if (to_pitch < width || from_pitch < width) fake_refuse("rows wider than their pitch");
    const copy c = {
        .to = to, .from = from, .to_pitch = to_pitch, .from_pitch = from_pitch, .width = width, .height = height};
    return queue_copy(&c, kind, stream);
}

typedef struct fill {
    void *to;
    int value;
    size_t bytes;
} fill;

static void run_fill(void *arguments) {
    const fill *f = arguments;
    memset(f->to, f->value, f->bytes);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    pthread_mutex_lock(&lock);
    const bool holds = is_lost || bytes == 0 || fake_holds(to, bytes, false);
    pthread_mutex_unlock(&lock);
    if (!holds) fake_refuse("a fill of no block");
    const fill f = {to, value, bytes};
    return fake_queue(stream, run_fill, &f, sizeof f);
}

/* --- streams --- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    (void)flags;
    const cudaError_t error = enter();
    int free_one = 0;
    while (free_one < MAX_STREAM && streams[free_one] != NULL) free_one++;
    if (error == cudaSuccess) {
        cudaStream_t s = free_one < MAX_STREAM ? calloc(1, sizeof *s) : NULL;
        if (s == NULL) fake_refuse("too many streams");
        s->end = &s->first;
        streams[free_one] = *out = s;
        counts.n_stream++;
    }
    return leave(error);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const cudaError_t error = enter();
    drain(stream);
    for (int i = 0; i < MAX_STREAM; i++) {
        if (streams[i] == stream) streams[i] = NULL;
    }
    free(stream);
    counts.n_stream--;
    return leave(error);
}

/* Waiting for a stream that captures spoils the capture. */
static cudaError_t check_wait(cudaStream_t stream) {
    if (stream == NULL || stream->captured == NULL) return cudaSuccess;
    stream->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
}

static cudaError_t begin_wait(cudaStream_t stream) {
    const cudaError_t error = enter();
    return error == cudaSuccess ? check_wait(stream) : error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    cudaError_t error = begin_wait(stream);
    if (error == cudaSuccess) drain(stream);
    return leave(error);
}

enum { SOME = 25 }; /* items that run from one query to the next: part of a step */

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    cudaError_t error = begin_wait(stream);
    if (error == cudaSuccess && stream->first != NULL) {
        fake_unlock_memory();
        for (int i = 0; i < SOME && stream->first != NULL; i++) run_first(stream);
        fake_lock_memory();
        error = cudaErrorNotReady;
    }
    return leave(error);
}

/* --- events --- */

cudaError_t cudaEventCreate(cudaEvent_t *out) {
    return cudaEventCreateWithFlags(out, 0);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
    (void)flags;
    const cudaError_t error = enter();
    if (error == cudaSuccess) {
        *out = calloc(1, sizeof **out);
        if (*out == NULL) fake_refuse("calloc");
        counts.n_event++;
    }
    return leave(error);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const cudaError_t error = enter();
    if (event->n_pending > 0) drain(event->stream);
    free(event);
    counts.n_event--;
    return leave(error);
}

static void run_event(void *arguments) {
    cudaEvent_t *event = arguments;
    (*event)->n_pending--;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const cudaError_t error = enter();
    if (error == cudaSuccess) {
        event->stream = stream;
        event->n_pending++;
        append(stream, new_item(run_event, &event, sizeof event));
    }
    return leave(error);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    cudaError_t error = enter();
    if (error == cudaSuccess && event->n_pending > 0) {
        error = check_wait(event->stream);
        if (error == cudaSuccess) error = cudaErrorNotReady;
    }
    return leave(error);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const cudaError_t error = enter();
    if (error == cudaSuccess && event->n_pending > 0) drain(event->stream);
    return leave(error);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
    const cudaError_t error = enter();
    if (error == cudaSuccess && (begin->n_pending > 0 || end->n_pending > 0)) return leave(cudaErrorNotReady);
    *ms = 2;
    return leave(error);
}

/* --- graphs --- */

static void free_items(item *it) {
    while (it != NULL) {
        item *next = it->next;
        free(it);
        it = next;
    }
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void)mode;
    const cudaError_t error = enter();
    if (error == cudaSuccess) {
        cudaGraph_t graph = calloc(1, sizeof *graph);
        if (graph == NULL || stream->captured != NULL) fake_refuse("a capture in a capture");
        graph->end = &graph->first;
        stream->captured = graph;
        stream->invalid = false;
        counts.n_graph++;
    }
    return leave(error);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    cudaError_t error = enter();
    if (stream->captured == NULL) fake_refuse("no capture to end");
    *out = stream->captured;
    stream->captured = NULL;
    if (error == cudaSuccess && stream->invalid) error = cudaErrorStreamCaptureInvalidated;
    if (error != cudaSuccess) {
        free_items((*out)->first);
        free(*out);
        *out = NULL;
        counts.n_graph--;
    }
    return leave(error);
}

static item *copy_items(const item *from) {
    item *first = NULL, **end = &first;
    for (; from != NULL; from = from->next) {
        *end = new_item(from->work, from->arguments, from->bytes);
        end = &(*end)->next;
    }
    return first;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    cudaError_t error = enter();
    if (error == cudaSuccess && ++counts.n_instantiated == settings.fail_capture) error = cudaErrorMemoryAllocation;
    if (error == cudaSuccess) {
        *out = calloc(1, sizeof **out);
        if (*out == NULL) fake_refuse("calloc");
        (*out)->first = copy_items(graph->first);
        counts.n_exec++;
    }
    return leave(error);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    const cudaError_t error = enter();
    if (error == cudaSuccess) {
        *stream->end = copy_items(exec->first);
        while (*stream->end != NULL) stream->end = &(*stream->end)->next;
        counts.n_launched++;
    }
    return leave(error);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    const cudaError_t error = enter();
    free_items(graph->first);
    free(graph);
    counts.n_graph--;
    return leave(error);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    const cudaError_t error = enter();
    free_items(exec->first);
    free(exec);
    counts.n_exec--;
    return leave(error);
}
