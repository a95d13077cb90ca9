/* SPDX-License-Identifier: Apache-2.0 */
/* quern verify: a checkpoint against its golden.safetensors. */
#include <stdlib.h>
#include <string.h>

#include "../output.h"
#include "golden.h"
#include "verify_rows.h"

/* The contents of golden.safetensors, on the host. Letters as in ops.h: B rows of T tokens. */
typedef struct reference {
    int32_t *input_ids, *greedy;
    int64_t n_row, n_tok, n_greedy;
    array logits, margins;
    array *hidden, *k_cache, *v_cache; /* n_layer + 1, n_layer, n_layer; data NULL where the file has none */
    double *margin_values;
    const float **pointers; /* for the rows */
} reference;

static void reference_release(reference *ref, int32_t n_layer) {
    for (int32_t i = 0; ref->hidden && i <= n_layer; i++) free(ref->hidden[i].data);
    for (int32_t i = 0; ref->k_cache && i < n_layer; i++) free(ref->k_cache[i].data);
    for (int32_t i = 0; ref->v_cache && i < n_layer; i++) free(ref->v_cache[i].data);
    free(ref->hidden);
    free(ref->k_cache);
    free(ref->v_cache);
    free(ref->logits.data);
    free(ref->margins.data);
    free(ref->input_ids);
    free(ref->greedy);
    free(ref->margin_values);
    free(ref->pointers);
}

static bool read_indexed(golden *g, const char *name, int32_t n, int32_t rank, const int64_t *shape, array **out) {
    *out = must_calloc((size_t)n, sizeof(array));
    for (int32_t i = 0; i < n; i++) {
        char text[64];
        snprintf(text, sizeof(text), "%s.%d", name, i);
        if (golden_has(g, text) && !golden_floats(g, text, rank, shape, &(*out)[i])) return false;
    }
    return true;
}

static bool read_greedy(golden *g, reference *ref) {
    if (!golden_has(g, "greedy.tokens")) return true;
    int64_t shape[2];
    if (!golden_ints(g, "greedy.tokens", 2, shape, &ref->greedy)) return false;
    if (shape[0] != ref->n_row)
        return verdict_fail(g->verdict, "greedy.tokens: must have %lld rows, not %lld", (long long)ref->n_row,
                            (long long)shape[0]);
    if (shape[1] > INT32_MAX / 2)
        return verdict_fail(g->verdict, "greedy.tokens: rows of %lld ids are too long", (long long)shape[1]);
    ref->n_greedy = shape[1];
    if (!golden_floats(g, "greedy.margin", 2, shape, &ref->margins)) return false;
    ref->margin_values = must_calloc(ref->margins.n, sizeof(double));
    for (size_t i = 0; i < ref->margins.n; i++) ref->margin_values[i] = ref->margins.data[i];
    return true;
}

static bool read_reference(golden *g, reference *ref, const qn_model_config *c) {
    int64_t shape[2];
    if (!golden_ints(g, "input_ids", 2, shape, &ref->input_ids)) return false;
    ref->n_row = shape[0];
    ref->n_tok = shape[1];
    if (ref->n_row > 1024 || ref->n_tok > INT32_MAX / 2)
        return verdict_fail(g->verdict, "input_ids: %lld rows of %lld ids are too many", (long long)ref->n_row,
                            (long long)ref->n_tok);
    const int64_t logits[] = {ref->n_row, ref->n_tok, c->n_vocab}, hidden[] = {ref->n_row, ref->n_tok, c->d_model},
                  cache[] = {ref->n_row, c->n_kv_head, ref->n_tok, c->head_dim};
    return golden_floats(g, "logits", 3, logits, &ref->logits) && read_greedy(g, ref) &&
           read_indexed(g, "hidden", c->n_layer + 1, 3, hidden, &ref->hidden) &&
           read_indexed(g, "k_cache", c->n_layer, 4, cache, &ref->k_cache) &&
           read_indexed(g, "v_cache", c->n_layer, 4, cache, &ref->v_cache);
}

/* Pointers to row b of n arrays. */
static const float *const *row_pointers(const float **out, const array *arrays, int32_t n, int64_t b, int64_t n_row) {
    for (int32_t i = 0; i < n; i++)
        out[i] = arrays[i].data ? arrays[i].data + (size_t)b * (arrays[i].n / (size_t)n_row) : NULL;
    return out;
}

static row *make_rows(reference *ref, const qn_model_config *c) {
    row *rows = must_calloc((size_t)ref->n_row, sizeof(*rows));
    size_t each = 3 * (size_t)c->n_layer + 1, T = (size_t)ref->n_tok;
    ref->pointers = must_calloc((size_t)ref->n_row * each, sizeof(*ref->pointers));
    for (int64_t b = 0; b < ref->n_row; b++) {
        const float **at = ref->pointers + (size_t)b * each;
        rows[b] = (row){
            .ids = ref->input_ids + (size_t)b * T,
            .n_ids = (int32_t)ref->n_tok,
            .golden_logits = ref->logits.data + (size_t)b * T * (size_t)c->n_vocab,
            .hidden = row_pointers(at, ref->hidden, c->n_layer + 1, b, ref->n_row),
            .k_cache = row_pointers(at + c->n_layer + 1, ref->k_cache, c->n_layer, b, ref->n_row),
            .v_cache = row_pointers(at + 2 * c->n_layer + 1, ref->v_cache, c->n_layer, b, ref->n_row),
            .greedy = ref->greedy ? ref->greedy + (size_t)b * (size_t)ref->n_greedy : NULL,
            .margins = ref->margin_values ? ref->margin_values + (size_t)b * (size_t)ref->n_greedy : NULL,
            .n_greedy = (int32_t)ref->n_greedy,
        };
    }
    return rows;
}

static void verify_tensors(verifier *vf, const char *file, qn_model *model, verdict *v) {
    const qn_model_config *config = qn_model_get_config(model);
    golden g;
    reference ref = {0};
    if (golden_open(&g, file, vf->device, v) && read_reference(&g, &ref, config)) {
        row_run run = {.verifier = vf,
                       .model = model,
                       .config = config,
                       .verdict = v,
                       .rows = make_rows(&ref, config),
                       .n_row = (int32_t)ref.n_row,
                       .chunk = (int32_t)vf->settings->chunk.value,
                       .batch = (int32_t)vf->settings->batch.value};
        v->bound = verify_model_bound(vf, config);
        if (rows_run(&run)) rows_report(&run, v->bound, true);
        rows_release(&run);
        free(run.rows);
    }
    reference_release(&ref, config->n_layer);
    golden_close(&g);
}

void verify_checkpoint(verifier *vf, const char *dir, verdict *v) {
    bool tensors = is_file(dir, "golden.safetensors"), text = is_file(dir, "golden.json");
    char *tensors_file = must_format("%s/golden.safetensors", dir), *text_file = must_format("%s/golden.json", dir);
    progress_bar bar;
    progress_begin(&bar, "loading");
    qn_model_options options = {.arith = (qn_arith)vf->compute.arith,
                                .quantize = (qn_quantize)vf->compute.quantize,
                                .progress = {progress_report, &bar},
                                .log = warnings_log(vf->settings->quiet, dir)};
    qn_model *model = NULL;
    qn_error err;
    v->bound = verify_model_bound(vf, NULL);
    if (qn_model_open(&model, vf->device, dir, &options, &err)) verdict_fail_error(v, &err);
    progress_end(&bar);
    if (model && tensors) verify_tensors(vf, tensors_file, model, v);
    if (model && text && !*v->error) verify_golden_json(vf, text_file, model, v);
    qn_model_close(model);
    free(tensors_file);
    free(text_file);
}
