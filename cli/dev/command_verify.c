/* SPDX-License-Identifier: Apache-2.0 */
/* quern verify: finds what to verify and prints the results. */
#include "verify.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../output.h"

/* Depth to which nested folders are searched. */
enum { MAX_DEPTH = 3 };

void measure_add(measure *m, const float *got, const float *want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - (double)want[i]), golden = fabs((double)want[i]);
        if (!isfinite(error) || !isfinite(golden)) m->broken = true;
        if (error > m->error) m->error = error;
        if (golden > m->golden) m->golden = golden;
    }
}

double measure_relative(const measure *m) {
    return m->broken ? INFINITY : m->error / (1e-6 + m->golden);
}

void verdict_path(const verdict *v) {
    size_t n = print_escaped(stdout, v->path); /* file names may contain anything */
    printf("%*s ", n < 28 ? (int)(28 - n) : 0, "");
}

void verdict_tensor(verdict *v, const char *tensor, const measure *m, double bound, bool counts) {
    double relative = measure_relative(m);
    bool good = relative <= bound;
    v->ok = v->ok && good;
    if (counts && !(relative <= v->worst)) v->worst = relative;
    if (!v->prints) return;
    verdict_path(v);
    printf("%-34s %9.2e %9.2e %9.2e  %s\n", tensor, m->error, relative, bound, good ? "ok" : "WRONG");
}

bool verdict_fail(verdict *v, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!*v->error) vsnprintf(v->error, sizeof(v->error), format, args);
    va_end(args);
    v->ok = false;
    return false;
}

bool verdict_fail_error(verdict *v, const qn_error *err) {
    return verdict_fail(v, "%s", err->message[0] ? err->message : qn_status_text(err->status));
}

/* A q8 cache rounds K and V to 127 steps of the maximum per token and head, and int8 arithmetic does the same to its
 * inputs. For 128 normal values (maximum 2.6 sigma) the error is 2.6 / 127 / sqrt(12) = 0.6 % of sigma, per layer, in
 * the scores and in the summed values. Four such errors in two layers add up to 1.2 %, and the worst of 10,000 values
 * is 4 sigma off: 5 %. The worst over the goldens, all ISA levels and both backends, is 2.2e-2 in f32, and 4.2e-2 with
 * int8. */
static const double eight_bit_bound = 6e-2;

double verify_model_bound(const verifier *vf, const qn_model_config *config) {
    const settings *s = &vf->compute;
    bool affine = s->quantize != QN_QUANTIZE_NONE || (config && config->dtype == QN_DTYPE_U32);
    bool int8 = affine && (s->arith == QN_ARITH_AUTO || s->arith == QN_ARITH_INT8);
    /* see INT8_BOUND in tests/test_session_goldens.c; MLX itself is 6e-2 … 9e-2 off in bf16 */
    if (int8 || s->kv == QN_DTYPE_Q8) return eight_bit_bound;
    return s->arith == QN_ARITH_F32 && s->kv == QN_DTYPE_F32 ? 3e-5 : 1.5e-2;
}

bool is_file(const char *dir, const char *name) {
    char *path = must_format("%s/%s", dir, name);
    struct stat st;
    bool found = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    return found;
}

/* State of the walk. */
typedef struct walk {
    verifier *verifier;
    int n_found, n_wrong;
} walk;

static void print_verdict(const verdict *v, bool json) {
    if (json) {
        json_t *digest = *v->digest ? json_string(v->digest) : json_null();
        json_t *out =
            json_pack("{s:o, s:b, s:o, s:f, s:o}", "path", json_text(v->path, strlen(v->path)), "ok", (int)v->ok,
                      "worst", *v->error ? json_null() : json_number(v->worst), "bound", v->bound, "digest", digest);
        if (*v->error) json_object_set_new(out, "error", json_text(v->error, strlen(v->error)));
        json_print_line(out);
    } else if (!*v->error) {
        verdict_path(v);
        printf("%-34s %9s %9.2e %9.2e  %s%s%.16s\n", "all", "", v->worst, v->bound, v->ok ? "ok" : "WRONG",
               *v->digest ? "  digest " : "", v->digest);
    }
    if (*v->error) fail(strstr(v->error, v->path) ? NULL : v->path, "%s", v->error);
}

static void verify_one(walk *w, const char *path, bool checkpoint) {
    const settings *s = w->verifier->settings;
    if (!s->json && !w->n_found) printf("%-28s %-34s %9s %9s %9s\n", "what", "tensor", "maximum", "relative", "bound");
    verdict v = {.path = path, .prints = !s->json, .ok = true};
    if (checkpoint)
        verify_checkpoint(w->verifier, path, &v);
    else
        verify_case(w->verifier, path, &v);
    w->n_found++;
    if (interrupted()) return;
    w->n_wrong += !v.ok;
    print_verdict(&v, s->json);
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static bool has_suffix(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && !strcmp(name + n - m, suffix);
}

/* Visit a checkpoint, a case, or a folder of them. Returns false if the folder cannot be read. */
static bool walk_path(walk *w, const char *path, int depth) {
    struct stat st;
    if (stat(path, &st)) return false;
    if (!S_ISDIR(st.st_mode)) {
        verify_one(w, path, false);
        return true;
    }
    if (is_file(path, "golden.safetensors") || is_file(path, "golden.json")) {
        verify_one(w, path, true);
        return true;
    }
    struct dirent **entries;
    int n = depth < MAX_DEPTH ? scandir(path, &entries, is_visible, versionsort) : 0;
    if (n < 0) return false;
    /* weight files of a checkpoint without reference data are not cases */
    bool cases = !is_file(path, "config.json");
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    for (int i = 0; i < n; i++) {
        char *member = must_format("%.*s/%s", (int)length, path, entries[i]->d_name);
        bool folder = stat(member, &st) == 0 && S_ISDIR(st.st_mode);
        if (!interrupted() && (folder || (cases && has_suffix(member, ".safetensors"))))
            walk_path(w, member, depth + 1);
        free(member);
        free(entries[i]);
    }
    if (depth < MAX_DEPTH) free(entries);
    return true;
}

static int open_devices(verifier *vf) {
    const settings *s = &vf->compute;
    int code = open_device(&vf->device, s, s->device, false);
    if (!code) code = open_device(&vf->composed, s, s->device, true);
    if (!code) code = open_device(&vf->reference, s, "ref", false);
    return code;
}

int command_verify(const settings *s) {
    interrupts_graceful(false);
    verifier vf = {.settings = s, .compute = *s};
    if (vf.compute.arith < 0) vf.compute.arith = QN_ARITH_F32;
    if (!vf.compute.kv) vf.compute.kv = QN_DTYPE_F32;
    walk w = {.verifier = &vf};
    int code = open_devices(&vf);
    for (size_t i = 0; !code && !interrupted() && i < s->n_operand; i++) {
        const char *path = s->operands[i];
        int before = w.n_found;
        if (!walk_path(&w, path, 0)) {
            fail(path, "%s", strerror(errno));
            w.n_wrong++;
        } else if (w.n_found == before && !interrupted()) {
            fail(path, "has no golden.safetensors or golden.json, and holds no cases");
            w.n_wrong++;
        }
    }
    qn_device_close(vf.device);
    qn_device_close(vf.composed);
    qn_device_close(vf.reference);
    if (interrupted()) return EXIT_INTERRUPTED;
    return code ? code : w.n_wrong ? EXIT_FAILED : EXIT_DONE;
}
