/* SPDX-License-Identifier: Apache-2.0 */
/* quern sample: the sampler's distributions and samples, one record per line, without a model. */
#include <limits.h>
#include <stdlib.h>

#include "fields.h"
#include "open.h"
#include "output.h"
#include "records.h"

/* A parsed record. */
typedef struct draw {
    float *logits;
    size_t n_logits;
    qn_ids history;
    qn_logit_bias *bias;
    qn_sampler_params params;
    whole prompt_len, position;
    double *probs;
} draw;

static void draw_release(draw *d) {
    free(d->logits);
    free(d->history.data);
    free(d->bias);
    free(d->probs);
}

static bool read_logits(draw *d, json_t *record, record_error *error) {
    json_t *list = json_object_get(record, "logits"), *item;
    if (!json_is_array(list)) return record_fail(error, "logits: must be a list, not %s", json_type_name(list));
    d->n_logits = json_array_size(list);
    if (d->n_logits < 1 || d->n_logits > INT32_MAX) return record_fail(error, "logits: must not be empty");
    d->logits = must_calloc(d->n_logits, sizeof(float));
    d->probs = must_calloc(d->n_logits, sizeof(double));
    size_t index;
    json_array_foreach(list, index, item) {
        if (!json_is_number(item))
            return record_fail(error, "logits[%zu]: must be a number, not %s", index, json_type_name(item));
        d->logits[index] = (float)json_number_value(item);
    }
    return true;
}

static bool read_draw(draw *d, json_t *record, record_error *error) {
    sampling wanted = {.top_k = {0, false}};
    qn_sampler_defaults(NULL, QN_SAMPLER_NEUTRAL, &d->params);
    if (!fields_check(record, RECORD_SAMPLE, error) || !read_logits(d, record, error) ||
        !fields_sampling(record, &wanted, false, error) || !field_ids(record, "history", &d->history, error) ||
        !field_logit_bias(record, &d->bias, &d->params.n_logit_bias, error) ||
        !field_whole(record, "prompt_len", 0, INT32_MAX, &d->prompt_len, error) ||
        !field_whole(record, "position", 0, INT64_MAX, &d->position, error))
        return false;
    apply_sampling(&d->params, &wanted);
    d->params.logit_bias = d->bias;
    if (!d->position.given) d->position.value = (int64_t)d->history.size;
    return true;
}

static json_t *sample_record(void *user, json_t *record, record_error *error) {
    (void)user;
    draw d = {0};
    qn_sampler *sampler = NULL;
    qn_error err;
    int32_t id = 0;
    json_t *out = NULL;
    if (!read_draw(&d, record, error)) {
        draw_release(&d);
        return NULL;
    }
    if (qn_sampler_create(&sampler, &d.params, (int32_t)d.n_logits, 0, &err) ||
        qn_sampler_draw(sampler, &id, d.probs, d.logits, d.history.data, d.history.size, (size_t)d.prompt_len.value,
                        (uint64_t)d.position.value, &err)) {
        record_fail_error(error, &err);
    } else {
        json_t *probs = json_array();
        for (size_t i = 0; i < d.n_logits; i++) json_array_append_new(probs, json_real(d.probs[i]));
        out = json_pack("{s:o, s:i}", "probs", probs, "id", (int)id);
    }
    qn_sampler_free(sampler);
    draw_release(&d);
    return out;
}

int command_sample(const settings *s) {
    (void)s;
    return records_answer(sample_record, NULL);
}
