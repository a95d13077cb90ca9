/* SPDX-License-Identifier: Apache-2.0 */
/* quern perplexity: scores windows of ids. Each window starts from an empty context, and each position is scored
 * against the next id. A second checkpoint can be compared. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "open.h"
#include "output.h"
#include "perplexity.h"

/* Logits of a chunk are kept for the comparison: at most this many floats. */
enum { KEEP_FLOATS = 16 << 20, CHUNK_TOKENS = 512 };

/* A checkpoint being scored. */
typedef struct scorer {
    char *dir;
    qn_device *device;
    qn_model *model;
    qn_session *session;
} scorer;

static void scorer_close(scorer *s) {
    qn_session_free(s->session);
    qn_model_close(s->model);
    qn_device_close(s->device);
    free(s->dir);
}

static int scorer_open(scorer *out, const settings *s, char *dir, int32_t window) {
    *out = (scorer){.dir = dir};
    settings wanted = *s;
    if (!wanted.n_ctx.given) wanted.n_ctx = (whole){window, true};
    int code = open_device(&out->device, s, s->device, false);
    if (!code) code = open_model(&out->model, &wanted, out->device, dir);
    if (!code) code = open_session(&out->session, &wanted, out->model, dir);
    return code;
}

/* The reference is not quantized on loading. int8 does not apply to a dense checkpoint, so it is used for the model
 * only. */
static int reference_open(scorer *out, const settings *s, int32_t window) {
    settings wanted = *s;
    wanted.quantize = QN_QUANTIZE_NONE;
    if (wanted.arith == QN_ARITH_INT8) wanted.arith = QN_ARITH_AUTO;
    return scorer_open(out, &wanted, must_format("%s", s->compare), window);
}

double log_sum_exp(const float *logits, int32_t n) {
    double top = logits[0], sum = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > top) top = logits[i];
    for (int32_t i = 0; i < n; i++) sum += exp(logits[i] - top);
    return top + log(sum);
}

/* Sums accumulated by the logits callbacks over a chunk of a window. */
typedef struct tally {
    const int32_t *next; /* next[p] is scored by the logits of position p of the window */
    double nll, reference_nll, kl;
    float *kept; /* {piece, n_vocab}: logits of the reference, or NULL */
    int32_t first;
} tally;

static bool on_reference(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    tally *t = user;
    float *row = t->kept + (size_t)(position - t->first) * (size_t)n_vocab;
    for (int32_t i = 0; i < n_vocab; i++) row[i] = logits[i];
    t->reference_nll += log_sum_exp(logits, n_vocab) - logits[t->next[position]];
    return !interrupted();
}

static bool on_logits(void *user, int32_t position, const float *logits, int32_t n_vocab) {
    tally *t = user;
    double total = log_sum_exp(logits, n_vocab);
    t->nll += total - logits[t->next[position]];
    if (t->kept) { /* KL(reference || model) */
        const float *row = t->kept + (size_t)(position - t->first) * (size_t)n_vocab;
        double row_total = log_sum_exp(row, n_vocab), kl = 0;
        for (int32_t i = 0; i < n_vocab; i++) {
            double p = exp(row[i] - row_total);
            if (p > 0) kl += p * ((row[i] - row_total) - (logits[i] - total));
        }
        t->kl += kl;
    }
    return !interrupted();
}

/* Score one window of `size` ids, in chunks of at most `piece`. */
static int score_window(const scorer *model, const scorer *reference, const int32_t *ids, int32_t size, int32_t chunk,
                        tally *t) {
    qn_error err;
    t->next = ids + 1;
    if (qn_session_rewind(model->session, 0, &err)) return fail_error(model->dir, &err);
    if (reference && qn_session_rewind(reference->session, 0, &err)) return fail_error(reference->dir, &err);
    for (int32_t first = 0; first < size; first += chunk) {
        size_t n = (size_t)(size - first < chunk ? size - first : chunk);
        t->first = first;
        if (reference && qn_session_append(reference->session, ids + first, n, on_reference, t, &err))
            return fail_error(reference->dir, &err);
        if (qn_session_append(model->session, ids + first, n, on_logits, t, &err)) return fail_error(model->dir, &err);
    }
    return EXIT_DONE;
}

static int score_all(const scorer *model, const scorer *reference, const qn_ids *ids, int32_t window, tally *t) {
    int32_t n_vocab = qn_model_get_config(model->model)->n_vocab, chunk = CHUNK_TOKENS;
    if (reference) {
        const qn_model_config *other = qn_model_get_config(reference->model);
        if (other->n_vocab != n_vocab)
            return fail(reference->dir, "has a vocabulary of %d, not %d: not comparable", other->n_vocab, n_vocab);
        chunk = KEEP_FLOATS / n_vocab < CHUNK_TOKENS ? KEEP_FLOATS / n_vocab : CHUNK_TOKENS;
        if (chunk < 1) chunk = 1;
        t->kept = must_calloc((size_t)chunk * (size_t)n_vocab, sizeof(float));
    }
    size_t n_window = (ids->size - 1) / (size_t)window;
    int code = EXIT_DONE;
    progress_bar bar;
    progress_begin(&bar, "scoring");
    for (size_t w = 0; !code && w < n_window; w++) {
        code = score_window(model, reference, ids->data + w * (size_t)window, window, chunk, t);
        progress_report(&bar, w + 1, n_window);
    }
    progress_end(&bar);
    free(t->kept);
    return code || isfinite(t->nll + t->reference_nll) ? code : fail(model->dir, "the logits are not finite");
}

static int read_ids(qn_ids *ids, const settings *s, const char *dir) {
    qn_text text;
    int code = read_file(&text, s->ids ? s->ids : s->file);
    if (!code && s->ids) {
        code = parse_ids(ids, s->ids, text.data, text.size);
    } else if (!code) {
        qn_tokenizer *tokenizer = NULL;
        qn_ids encoded = {0};
        qn_error err;
        if (qn_tokenizer_open(&tokenizer, dir, &err))
            code = fail_error(dir, &err);
        else if (qn_tokenizer_encode_document(tokenizer, &encoded, text.data, text.size, true, &err))
            code = fail_error(s->file, &err);
        ids->data = must_calloc(encoded.size, sizeof(int32_t));
        ids->size = encoded.size;
        for (size_t i = 0; i < encoded.size; i++) ids->data[i] = encoded.data[i];
        qn_ids_release(&encoded);
        qn_tokenizer_close(tokenizer);
    }
    free(text.data);
    return code;
}

/* Ids must be within the vocabulary: they index the logits. */
static int check_ids(const qn_ids *ids, const settings *s, int32_t window, int32_t n_vocab) {
    const char *what = s->ids ? s->ids : s->file;
    if (!strcmp(what, "-")) what = "standard input";
    if (ids->size < (size_t)window + 1)
        return fail(what, "has %zu tokens, but --window %d needs at least %lld", ids->size, window,
                    (long long)window + 1);
    for (size_t i = 0; i < ids->size; i++)
        if (ids->data[i] >= n_vocab) return fail(what, "id %d is beyond the vocabulary of %d", ids->data[i], n_vocab);
    return EXIT_DONE;
}

static void print_result(const settings *s, const tally *t, size_t n, int32_t window) {
    double nll = t->nll / (double)n, reference_nll = t->reference_nll / (double)n, kl = t->kl / (double)n;
    if (s->json) {
        json_t *out = json_pack("{s:I, s:o, s:o}", "tokens", (json_int_t)n, "nll", json_number(nll), "perplexity",
                                json_number(exp(nll)));
        if (s->compare)
            json_object_set_new(out, "compare",
                                json_pack("{s:s, s:o, s:o, s:o}", "model", s->compare, "perplexity",
                                          json_number(exp(reference_nll)), "ratio",
                                          json_number(exp(nll - reference_nll)), "kl", json_number(kl)));
        json_print_line(out);
        return;
    }
    printf("perplexity %.6g, %.6g nats a token, %zu tokens in %zu windows of %d", exp(nll), nll, n, n / (size_t)window,
           window);
    if (s->compare)
        printf("; %s %.6g, ratio %.6g (%+.3f %%), mean KL divergence %.4g", s->compare, exp(reference_nll),
               exp(nll - reference_nll), 100 * expm1(nll - reference_nll), kl);
    putchar('\n');
}

int command_perplexity(const settings *s) {
    if (!s->file == !s->ids) return usage_error("perplexity", "one of -f FILE and --ids FILE is needed");
    int32_t window = s->window.given ? (int32_t)s->window.value : 512;
    interrupts_graceful(false);
    qn_ids ids = {0};
    scorer model = {0}, reference = {0};
    tally t = {0};
    char *dir = model_dir(s);
    int code = read_ids(&ids, s, dir);
    if (code) {
        free(dir);
    } else {
        code = scorer_open(&model, s, dir, window);
        if (!code && s->compare) code = reference_open(&reference, s, window);
    }
    if (!code) code = check_ids(&ids, s, window, qn_model_get_config(model.model)->n_vocab);
    if (!code) code = score_all(&model, s->compare ? &reference : NULL, &ids, window, &t);
    if (!code) print_result(s, &t, (ids.size - 1) / (size_t)window * (size_t)window, window);
    scorer_close(&reference);
    scorer_close(&model);
    free(ids.data);
    return code;
}
