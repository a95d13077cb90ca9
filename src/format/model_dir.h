/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a model directory that nothing reads: those that would change the results elsewhere are told. */
#ifndef QNI_MODEL_DIR_H
#define QNI_MODEL_DIR_H

#include "weight_files.h"

/* Name adapters, other weights and settings of quantization that are not used: one line of the log for each sort. A
 * directory that cannot be listed is named too. Errors: ENOMEM. */
qn_status qni_model_dir_check(const char *dir, const qni_weight_files *weights, const qn_log *log, qn_error *err);

/* The error of a directory without weights that can be read, naming those in other forms. */
qn_status qni_model_dir_no_weights(const char *dir, const char *missing, qn_error *err);

#endif
