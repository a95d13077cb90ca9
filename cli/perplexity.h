/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by perplexity and verify. */
#ifndef CLI_PERPLEXITY_H
#define CLI_PERPLEXITY_H

#include <stdint.h>

/* log(sum(exp(logits))) of n logits, in double. */
double log_sum_exp(const float *logits, int32_t n);

#endif
