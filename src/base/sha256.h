/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256: identifies models and session files, and compares results bit for bit. Source: FIPS 180-4. */
#ifndef QNI_SHA256_H
#define QNI_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct qni_sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64];
} qni_sha256;

void qni_sha256_init(qni_sha256 *hash);
void qni_sha256_update(qni_sha256 *hash, const void *data, size_t bytes);
void qni_sha256_final(qni_sha256 *hash, uint8_t digest[32]);

#endif
