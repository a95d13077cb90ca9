/* SPDX-License-Identifier: Apache-2.0 */
/* Philox4x32-10: a stateless random function of a key and a counter. Source: Salmon et al., "Parallel Random
 * Numbers: As Easy as 1, 2, 3", SC11. */
#ifndef QNI_PHILOX_H
#define QNI_PHILOX_H

#include <stdint.h>

/* x0 … x3 of the counter {low, high, 0, 0} under a key. */
static inline void qni_philox(uint32_t x[4], uint64_t key, uint64_t counter) {
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    x[0] = c0;
    x[1] = c1;
    x[2] = c2;
    x[3] = c3;
}

/* Uniform in [0, 1) with 53 bits. */
static inline double qni_philox_uniform(uint64_t key, uint64_t counter) {
    uint32_t x[4];
    qni_philox(x, key, counter);
    return (double)((((uint64_t)x[1] << 32) | x[0]) >> 11) * 0x1p-53;
}

#endif
