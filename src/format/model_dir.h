/* SPDX-License-Identifier: Apache-2.0 */
/* Unused files of a model directory: those that would change results in other programs are reported. */
#ifndef QNI_MODEL_DIR_H
#define QNI_MODEL_DIR_H

#include "weight_files.h"

/* Log unused adapters, other weights and quantization settings by name, one line per kind. A directory that cannot
 * be listed is logged too. Errors: ENOMEM. */
qn_status qni_model_dir_check(const char *dir, const qni_weight_files *weights, const qn_log *log, qn_error *err);

/* The error for a directory without readable weights; names weights in other formats. */
qn_status qni_model_dir_no_weights(const char *dir, const char *missing, qn_error *err);

#endif
