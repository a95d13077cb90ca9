/* SPDX-License-Identifier: Apache-2.0 */
/* What the stand-ins for kernels share. */
#ifndef QNI_TEST_CUDA_KERNELS_H
#define QNI_TEST_CUDA_KERNELS_H

#include "../../src/cuda/kernels.h"

#include "../../src/backend/backend.h"
#include "../../src/base/memory.h"
#include "runtime.h"

/* Zeroed memory of the host. */
void *fake_room(size_t bytes);

/* Call an op with all the workspace that it wants. */
typedef qn_status fake_op(const qni_run *run, const void *context);
void fake_compute(const char *what, fake_op *op, const void *context);

/* sums[r] += the product of column r of x {n, n_row} with w {n}, in ascending order of the elements. */
void fake_add_products(double *sums, const double *x, int64_t n_row, const double *w, int64_t n);
/* Elements as doubles, `step` apart in `out`. */
void fake_widen(double *out, int64_t step, const void *data, qn_dtype dtype, int64_t first, int64_t n);

#endif
