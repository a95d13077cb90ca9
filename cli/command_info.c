/* SPDX-License-Identifier: Apache-2.0 */
/* quern info: describes a checkpoint and the memory it would need, without loading it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "open.h"
#include "output.h"

static json_t *describe(const char *dir, const qn_model_config *c, const qn_plan *p, const char *kv) {
    json_t *eos = json_array();
    for (int32_t i = 0; i < c->n_eos; i++) json_array_append_new(eos, json_integer(c->eos[i]));
    json_t *yarn = c->yarn.factor > 0 ? json_pack("{s:f, s:I}", "factor", c->yarn.factor, "original_ctx",
                                                  (json_int_t)c->yarn.original_ctx)
                                      : json_null();
    json_t *config = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:o, s:b, s:s, s:i, s:i, s:o}",
                               "layers", (int)c->n_layer, "d_model", (int)c->d_model, "heads", (int)c->n_head,
                               "kv_heads", (int)c->n_kv_head, "head_dim", (int)c->head_dim, "d_ff", (int)c->d_ff,
                               "vocab", (int)c->n_vocab, "ctx_max", (int)c->n_ctx_max, "rms_eps", c->rms_eps,
                               "rope_theta", c->rope_theta, "yarn", yarn, "tied", (int)c->tied, "dtype",
                               qn_dtype_name(c->dtype), "bits", (int)c->bits, "group", (int)c->group, "eos", eos);
    json_t *memory =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:i, s:i}", "weight_bytes", (json_int_t)p->weight_bytes,
                  "kv_bytes", (json_int_t)p->kv_bytes, "kv_token_bytes", (json_int_t)p->kv_token_bytes, "session_bytes",
                  (json_int_t)p->session_bytes, "scratch_bytes", (json_int_t)p->scratch_bytes, "total_bytes",
                  (json_int_t)p->total_bytes, "kv_dtype", kv, "ctx", (int)p->n_ctx, "ctx_fits", (int)p->n_ctx_fits);
    return json_pack("{s:o, s:I, s:I, s:o, s:o}", "model", json_text(dir, strlen(dir)), "parameters",
                     (json_int_t)c->n_parameter, "file_bytes", (json_int_t)c->file_bytes, "config", config, "memory",
                     memory);
}

static void print_text(const char *dir, const qn_model_config *c, const qn_plan *p, const char *kv) {
    char file[32], weights[32], kv_total[32], kv_token[32], session[32], scratch[32], total[32];
    format_bytes(file, sizeof(file), (double)c->file_bytes);
    format_bytes(weights, sizeof(weights), (double)p->weight_bytes);
    format_bytes(kv_total, sizeof(kv_total), (double)p->kv_bytes);
    format_bytes(kv_token, sizeof(kv_token), (double)p->kv_token_bytes);
    format_bytes(session, sizeof(session), (double)p->session_bytes);
    format_bytes(scratch, sizeof(scratch), (double)p->scratch_bytes);
    format_bytes(total, sizeof(total), (double)p->total_bytes);
    printf("%s\n", dir);
    printf("  parameters   %llu in ", (unsigned long long)c->n_parameter);
    if (c->bits)
        printf("%d-bit %s, groups of %d, %.2f bits a parameter", c->bits, c->dtype == QN_DTYPE_F8 ? "fp8" : "codes",
               c->group, 8.0 * (double)c->file_bytes / (double)c->n_parameter);
    else
        printf("%s", qn_dtype_name(c->dtype));
    printf(", files %s\n", file);
    printf("  layers       %d of d_model %d, d_ff %d\n", c->n_layer, c->d_model, c->d_ff);
    printf("  attention    %d heads, %d key/value heads of %d\n", c->n_head, c->n_kv_head, c->head_dim);
    printf("  vocabulary   %d, %s\n", c->n_vocab, c->tied ? "tied embeddings" : "own lm_head");
    printf("  context      %d, rope_theta %.12g, rms_norm_eps %.12g\n", c->n_ctx_max, c->rope_theta, c->rms_eps);
    if (c->yarn.factor > 0)
        printf("  YaRN         factor %.12g over %lld\n", c->yarn.factor, (long long)c->yarn.original_ctx);
    printf("  end of text ");
    for (int32_t i = 0; i < c->n_eos; i++) printf(" %d", c->eos[i]);
    printf("\nmemory for a context of %d\n", p->n_ctx);
    printf("  weights      %s\n", weights);
    printf("  KV cache     %s in %s, %s a token\n", kv_total, kv, kv_token);
    printf("  session      %s, the KV cache included\n", session);
    printf("  scratch      %s\n", scratch);
    printf("  total        %s\n", total);
    if (p->n_ctx_fits)
        printf("  a context of %d tokens fits into the memory that is free now\n", p->n_ctx_fits);
    else
        printf("  it does not fit into the memory that is free now\n");
}

int command_info(const settings *s) {
    char *dir = model_dir(s);
    qn_model_config config;
    qn_plan plan;
    qn_error err;
    qn_log log = warnings_log(s->quiet, dir);
    qn_plan_options options = plan_options(s);
    const char *kv = qn_dtype_name(kv_dtype(s));
    int code = EXIT_DONE;
    if (qn_model_plan(&plan, dir, &options, &err) || qn_model_read_config(&config, dir, &log, &err))
        code = fail_error(dir, &err);
    else if (s->json)
        json_print_line(describe(dir, &config, &plan, kv));
    else
        print_text(dir, &config, &plan, kv);
    free(dir);
    return code;
}
