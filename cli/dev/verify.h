/* SPDX-License-Identifier: Apache-2.0 */
/* quern verify: shared declarations. */
#ifndef CLI_VERIFY_H
#define CLI_VERIFY_H

#include "../open.h"

/* Largest error and largest reference value of a tensor; `broken`: a value is not finite. */
typedef struct measure {
    double error, golden;
    bool broken;
} measure;

void measure_add(measure *m, const float *got, const float *want, size_t n);
double measure_relative(const measure *m); /* error / (1e-6 + golden); infinity when broken */

/* The outcome for one checkpoint or case. */
typedef struct verdict {
    const char *path;
    bool prints;     /* print a table row per tensor */
    bool ok;         /* so far */
    double worst;    /* largest relative error so far */
    double bound;    /* for `worst` */
    char digest[65]; /* "" for none */
    char error[512]; /* failure message; "" for none */
} verdict;

/* State shared by a whole run. */
typedef struct verifier {
    const settings *settings;
    settings compute; /* with the defaults of verify: f32 */
    qn_device *device, *composed, *reference;
} verifier;

/* Record the comparison of a tensor: print its row, and update `ok` and, if `counts`, `worst`. */
void verdict_tensor(verdict *v, const char *tensor, const measure *m, double bound, bool counts);

/* Print the first column of a table row. */
void verdict_path(const verdict *v);

/* Record that it could not be computed. Returns false. */
bool verdict_fail(verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool verdict_fail_error(verdict *v, const qn_error *err);

/* Each fills the verdict for the checkpoint or case at `path`. */
void verify_case(verifier *vf, const char *path, verdict *v);
void verify_checkpoint(verifier *vf, const char *dir, verdict *v);
void verify_golden_json(verifier *vf, const char *file, qn_model *model, verdict *v);

/* The error bound for a model's tensors under the settings' arithmetic and KV type; config NULL: for any dense
 * model. */
double verify_model_bound(const verifier *vf, const qn_model_config *config);
bool is_file(const char *dir, const char *name);

#endif
