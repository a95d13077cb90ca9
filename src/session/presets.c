/* SPDX-License-Identifier: Apache-2.0 */
/* Default sampler settings: neutral, the model's own, and Qwen's recommendations for the two modes. */
#include "../model/model.h"

#include <quern/sampler.h>

/* What generation_config.json sets replaces what is there. */
static void apply_model(qn_sampler_params *p, const qni_generation_config *g) {
    if (g->has_temperature) p->temperature = g->temperature;
    if (g->has_top_k) p->top_k = g->top_k;
    if (g->has_top_p) p->top_p = g->top_p;
    if (g->has_min_p) p->min_p = g->min_p;
    if (g->has_repetition_penalty) p->repetition_penalty = g->repetition_penalty;
    if (g->has_presence_penalty) p->presence_penalty = g->presence_penalty;
    if (g->has_frequency_penalty) p->frequency_penalty = g->frequency_penalty;
}

void qn_sampler_defaults(const qn_model *model, qn_sampler_mode mode, qn_sampler_params *params) {
    if (params == NULL) return;
    *params = (qn_sampler_params){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    switch (mode) {
    case QN_SAMPLER_NEUTRAL:
        break;
    case QN_SAMPLER_MODEL:
        if (model == NULL) break;
        apply_model(params, &model->generation);
        if (model->generation.has_do_sample && !model->generation.do_sample) params->temperature = 0;
        break;
    case QN_SAMPLER_THINKING: /* never greedy: reasoning would loop endlessly */
        params->temperature = 0.6;
        params->top_p = 0.95;
        params->top_k = 20;
        if (model != NULL) apply_model(params, &model->generation);
        break;
    case QN_SAMPLER_NON_THINKING:
        params->temperature = 0.7;
        params->top_p = 0.8;
        params->top_k = 20;
        break;
    }
}
