/* SPDX-License-Identifier: Apache-2.0 */
/* The dtypes of safetensors files as those of the library. */
#ifndef QNI_DTYPE_H
#define QNI_DTYPE_H

#include "../format/safetensors.h"

#include <quern/tensor.h>

/* QN_DTYPE_DEFAULT if the library has none for it. */
qn_dtype qni_dtype_of_stored(qni_st_dtype stored);

#endif
