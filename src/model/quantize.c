/* SPDX-License-Identifier: Apache-2.0 */
/* How --quantize stores each linear, and writing a quantized directory: config.json in MLX's form, the tokenizer
 * files unchanged, and the weights. */
#include "quantize.h"

#include "../base/dir.h"
#include "../base/json.h"

#include <quern/model.h>

#include <stdio.h>
#include <string.h>

/*
 * Bits of a layer's linears under q4. Under q8 all use 8 bits; embedding and lm_head always do.
 *
 * o_proj and down_proj write to the hidden stream and keep 8 bits: an error there reaches every later layer. An error
 * in q, k, v, gate or up first passes through a norm, a softmax or a product. All linears in 4 bits increase the demo
 * model's perplexity by 3.5 %, these by 1.2 % (docs/quantization.md).
 */
static const int32_t q4_bits[QNI_N_LINEAR] = {
    [QNI_Q_PROJ] = 4,    [QNI_K_PROJ] = 4,  [QNI_V_PROJ] = 4,    [QNI_O_PROJ] = 8,
    [QNI_GATE_PROJ] = 4, [QNI_UP_PROJ] = 4, [QNI_DOWN_PROJ] = 8,
};

/* Groups have 64 inputs in 8 bits, or 32 if the number of inputs is not a multiple of 64; always 32 in 4 bits.
 * Otherwise the linear stays dense. */
static qni_quant form_of(int32_t bits, int64_t n_in) {
    qni_quant form = qni_quant_of(bits == 8 ? QN_QUANTIZE_Q8 : QN_QUANTIZE_Q4);
    if (n_in % form.group != 0) form.group = 32;
    if (n_in % form.group != 0) form = (qni_quant){.kind = QNI_DENSE};
    return form;
}

typedef struct tally {
    int64_t n_made, n_odd, n_before; /* quantized now; input count not a multiple of 32; quantized in the file */
} tally;

static void set_form(qni_weight_ref *ref, int32_t bits, tally *t) {
    if (ref->quant.kind != QNI_DENSE) {
        t->n_before++;
        return;
    }
    ref->to = form_of(bits, ref->columns);
    t->n_made += ref->to.kind != QNI_DENSE;
    t->n_odd += ref->to.kind == QNI_DENSE;
}

int64_t qni_checkpoint_quantize(qni_checkpoint *c, qn_quantize to, const qn_log *log) {
    tally t = {0};
    if (to == QN_QUANTIZE_NONE) return 0;
    set_form(&c->embedding, 8, &t);
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        for (int k = 0; k < QNI_N_LINEAR; k++) {
            set_form(&c->layers[i].slot[k], to == QN_QUANTIZE_Q4 ? q4_bits[k] : 8, &t);
        }
    }
    if (!c->config.tied) set_form(&c->lm_head, 8, &t);
    if (t.n_before > 0) {
        qni_log(log, "quantize: %lld linears are quantized already and stay as they are", (long long)t.n_before);
    }
    if (t.n_odd > 0) {
        qni_log(log, "quantize: %lld linears stay dense: their inputs are not a multiple of 32", (long long)t.n_odd);
    }
    return t.n_made;
}

/* --- config.json --- */

/* MLX's form: the most common bit width, and a key for each linear that differs. */
static bool add_module(json_t *object, const qni_weight_ref *ref, const qni_quant *most) {
    const qni_quant *q = &ref->to;
    if (q->kind == QNI_DENSE || (q->bits == most->bits && q->group == most->group)) return true;
    json_t *own = json_pack("{s:I, s:i}", "group_size", (json_int_t)q->group, "bits", (int)q->bits);
    return json_object_set_new(object, qni_weight_usual_module(ref).text, own) == 0;
}

static json_t *describe_quantization(const qni_checkpoint *c, qn_quantize to) {
    const qni_quant most = qni_quant_of(to);
    json_t *object =
        json_pack("{s:I, s:i, s:s}", "group_size", (json_int_t)most.group, "bits", (int)most.bits, "mode", "affine");
    bool good = object != NULL && add_module(object, &c->embedding, &most);
    for (int32_t i = 0; good && i < c->config.n_layer; i++) {
        for (int k = 0; good && k < QNI_N_LINEAR; k++) good = add_module(object, &c->layers[i].slot[k], &most);
    }
    if (good && !c->config.tied) good = add_module(object, &c->lm_head, &most);
    if (good) return object;
    json_decref(object);
    return NULL;
}

/* Fifteen digits, as people write numbers, if that round-trips; otherwise all seventeen. */
static char *print_config(const json_t *root) {
    char *text = qni_json_print(root, JSON_INDENT(4) | JSON_REAL_PRECISION(15));
    json_t *again = NULL;
    bool same = text != NULL && qni_json_parse(&again, "config.json", text, strlen(text), NULL) == QN_OK &&
                json_equal(again, (json_t *)(uintptr_t)root);
    json_decref(again);
    if (same || text == NULL) return text;
    qni_free(text);
    return qni_json_print(root, JSON_INDENT(4) | JSON_REAL_PRECISION(17));
}

static qn_status write_config(const qni_checkpoint *c, qn_quantize to, const char *dir, const char *out_dir,
                              qn_error *err) {
    static const char name[] = "config.json";
    char *path = qni_path_join(dir, name), *text = NULL;
    json_t *root = NULL;
    if (path == NULL) return qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
    qn_status status = qni_json_read(&root, path, QNI_CONFIG_MAX_BYTES, err);
    qni_free(path);
    if (status != QN_OK) return status;
    json_t *object = describe_quantization(c, to);
    if (object == NULL || json_object_set(root, "quantization", object) != 0 ||
        json_object_set(root, "quantization_config", object) != 0 || (text = print_config(root)) == NULL) {
        status = qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
    } else {
        status = qni_text_write(out_dir, name, text, strlen(text), err);
    }
    qni_free(text);
    json_decref(object);
    json_decref(root);
    return status;
}

/* --- files copied unchanged --- */

static const char *const copied[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "LICENSE",
};

static qn_status copy_file(const char *dir, const char *out_dir, const char *name, qn_error *err) {
    char *path = qni_path_join(dir, name), *text = NULL;
    size_t bytes = 0;
    qn_status status = QN_OK;
    if (path == NULL) {
        status = qni_fail(err, QN_ENOMEM, "%s: out of memory", name);
    } else if (qni_path_exists(path)) {
        status = qni_file_slurp_any(&text, &bytes, path, SIZE_MAX / 2, err);
        if (status == QN_OK) status = qni_text_write(out_dir, name, text, bytes, err);
    }
    qni_free(text);
    qni_free(path);
    return status;
}

/* Copy the optional folder of additional chat templates. */
static qn_status copy_templates(const char *dir, const char *out_dir, qn_error *err) {
    static const char folder[] = "additional_chat_templates", suffix[] = ".jinja";
    char *from = qni_path_join(dir, folder), *to = qni_path_join(out_dir, folder);
    qni_names names = {0};
    qn_status status = QN_OK;
    if (from == NULL || to == NULL) {
        status = qni_fail(err, QN_ENOMEM, "%s: out of memory", folder);
    } else if (qni_path_exists(from)) {
        status = qni_dir_list(&names, from, err);
        if (status == QN_OK) status = qni_dir_make(to, err);
    }
    for (size_t i = 0; status == QN_OK && i < names.n; i++) {
        const size_t n = strlen(names.name[i]), n_suffix = sizeof suffix - 1;
        bool is_template = n > n_suffix && strcmp(names.name[i] + n - n_suffix, suffix) == 0;
        if (is_template) status = copy_file(from, to, names.name[i], err);
    }
    qni_names_free(&names);
    qni_free(from);
    qni_free(to);
    return status;
}

/* --- the whole directory --- */

static qn_status check_dense(const qni_checkpoint *c, const char *dir, qn_error *err) {
    bool quantized = c->embedding.quant.kind != QNI_DENSE || qni_checkpoint_head(c)->quant.kind != QNI_DENSE;
    for (int32_t i = 0; i < c->config.n_layer; i++) {
        for (int k = 0; k < QNI_N_LINEAR; k++) quantized |= c->layers[i].slot[k].quant.kind != QNI_DENSE;
    }
    if (!quantized) return QN_OK;
    return qni_fail(err, QN_EUNSUPPORTED, "%s: is quantized already; quantize the checkpoint that it was made from",
                    dir);
}

static qn_status quantize(qni_checkpoint *c, const char *dir, const char *out_dir, const qn_quantize_options *o,
                          qn_error *err) {
    QN_TRY(check_dense(c, dir, err));
    if (qni_checkpoint_quantize(c, o->to, &o->log) == 0) {
        return qni_fail(err, QN_EUNSUPPORTED, "%s: no linear has a multiple of 32 inputs", dir);
    }
    qn_device *device = NULL;
    const qn_device_options device_options = {.n_thread = o->n_thread};
    QN_TRY(qn_device_open(&device, "cpu", &device_options, err));
    qn_status status = qni_quantized_write(out_dir, c, device, o->shard_bytes, &o->progress, err);
    qn_device_close(device);
    for (size_t i = 0; status == QN_OK && i < sizeof copied / sizeof copied[0]; i++) {
        status = copy_file(dir, out_dir, copied[i], err);
    }
    if (status == QN_OK) status = copy_templates(dir, out_dir, err);
    return status == QN_OK ? write_config(c, o->to, dir, out_dir, err) : status;
}

qn_status qn_model_quantize(const char *out_dir, const char *dir, const qn_quantize_options *options, qn_error *err) {
    static const uint64_t default_shard_bytes = 4000000000;
    if (out_dir == NULL || dir == NULL || options == NULL) {
        return qni_fail(err, QN_EINVAL, "model_quantize: out_dir, dir or options is NULL");
    }
    if (options->to != QN_QUANTIZE_Q8 && options->to != QN_QUANTIZE_Q4) {
        return qni_fail(err, QN_EINVAL, "model_quantize: to: unknown value %d", (int)options->to);
    }
    qn_quantize_options o = *options;
    if (o.shard_bytes == 0) o.shard_bytes = default_shard_bytes;
    qni_checkpoint checkpoint;
    QN_TRY(qni_checkpoint_open(&checkpoint, dir, &o.log, err));
    qn_status status = quantize(&checkpoint, dir, out_dir, &o, err);
    qni_checkpoint_close(&checkpoint);
    return status;
}
