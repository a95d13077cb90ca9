/* SPDX-License-Identifier: Apache-2.0 */
/* Memory plan before allocation. Nothing is estimated: the plan uses the same size functions as the later
 * allocations. */
#include "../base/processor.h"
#include "../model/load.h"
#include "../model/quantize.h"
#include "session.h"

/* Inputs of a plan: a device that does not compute, and a model without data. */
typedef struct planner {
    qn_device *device;
    qni_checkpoint checkpoint;
    qn_model model;
    qn_kv_pool_options pool; /* as requested */
} planner;

/* The memory of a session of n_ctx tokens, and the device scratch for it. */
static qn_status plan_session(qn_plan *plan, const planner *p, int32_t n_ctx, qn_error *err) {
    const qn_model_config *config = &p->model.config;
    qn_kv_pool_options options = p->pool;
    qni_kv_settings s;
    qni_session_layout layout;
    size_t kv_bytes = 0, scratch = 0;
    options.n_ctx = n_ctx;
    QN_TRY(qni_kv_resolve_options(&s, &options, &p->model, err));
    const qni_kv_format format = qni_kv_format_of(config, s.kv_dtype);
    const int32_t n_block = qni_kv_blocks_for(p->device, s.n_ctx);
    QN_TRY(qni_block_pool_measure(&kv_bytes, p->device, &format, n_block, err));
    QN_TRY(qni_session_measure(&layout, config, s.n_ctx, err));
    QN_TRY(qni_step_measure(&scratch, &p->model, s.n_batch, s.n_ctx, s.kv_dtype, false, err));
    plan->weight_bytes = p->model.block_bytes;
    plan->table_bytes = p->model.table_bytes;
    plan->kv_bytes = kv_bytes;
    plan->kv_token_bytes = qni_kv_token_bytes(&format);
    plan->session_bytes = kv_bytes + layout.bytes;
    plan->scratch_bytes = qni_round_up(scratch, QNI_ALIGN);
    plan->n_ctx = s.n_ctx;
    if (__builtin_add_overflow(plan->weight_bytes, plan->session_bytes, &plan->total_bytes) ||
        __builtin_add_overflow(plan->total_bytes, plan->scratch_bytes, &plan->total_bytes)) {
        return qni_fail(err, QN_ENOMEM, "n_ctx: %d tokens are more than the address space holds", (int)n_ctx);
    }
    return QN_OK;
}

/* Whether n_ctx tokens fit; a size beyond the address space does not fit. */
static bool fits(const planner *p, int32_t n_ctx, uint64_t limit) {
    qn_plan plan;
    return plan_session(&plan, p, n_ctx, NULL) == QN_OK && plan.total_bytes <= limit;
}

/* The longest context that fits, by bisection: memory grows with the context. */
static int32_t longest_context(const planner *p, uint64_t limit) {
    int32_t least = 0, most = qni_config_n_ctx_limit(&p->model.config);
    if (fits(p, most, limit)) return most;
    while (most - least > 1) { /* `least` fits (0 means none), `most` does not */
        int32_t middle = least + (most - least) / 2;
        if (fits(p, middle, limit)) {
            least = middle;
        } else {
            most = middle;
        }
    }
    return least;
}

static qn_status plan_all(qn_plan *out, planner *p, const char *dir, const qn_plan_options *o, qn_error *err) {
    qn_plan plan = {0};
    QN_TRY(qni_checkpoint_open(&p->checkpoint, dir, NULL, err));
    qni_checkpoint_quantize(&p->checkpoint, o->quantize, NULL);
    qn_device_options device = {.n_thread = o->n_thread, .isa = o->isa};
    QN_TRY(qn_device_open(&p->device, o->device, &device, err));
    p->model.device = p->device;
    p->pool = (qn_kv_pool_options){.n_batch = o->n_batch, .kv_dtype = o->kv_dtype};
    QN_TRY(qni_model_describe(&p->model, &p->checkpoint, o->arith, err));
    QN_TRY(plan_session(&plan, p, o->n_ctx, err));
    uint64_t limit = o->memory_limit_bytes, total = 0;
    if (limit == 0) qni_device_memory(p->device, &total, &limit);
    if (limit == 0) limit = UINT64_MAX; /* the machine's memory is unknown */
    plan.n_ctx_fits = longest_context(p, limit);
    *out = plan;
    return QN_OK;
}

qn_status qn_model_plan(qn_plan *out, const char *dir, const qn_plan_options *options, qn_error *err) {
    if (out == NULL || dir == NULL) return qni_fail(err, QN_EINVAL, "model_plan: out or dir is NULL");
    qn_plan_options o = options != NULL ? *options : (qn_plan_options){0};
    if (o.arith < QN_ARITH_AUTO || o.arith > QN_ARITH_INT8) {
        return qni_fail(err, QN_EINVAL, "model_plan: arith: unknown value %d", (int)o.arith);
    }
    if (o.quantize < QN_QUANTIZE_NONE || o.quantize > QN_QUANTIZE_Q4) {
        return qni_fail(err, QN_EINVAL, "model_plan: quantize: unknown value %d", (int)o.quantize);
    }
    planner p = {0};
    qn_status status = plan_all(out, &p, dir, &o, err);
    qni_free(p.model.layers);
    qni_checkpoint_close(&p.checkpoint);
    qn_device_close(p.device);
    return status;
}
