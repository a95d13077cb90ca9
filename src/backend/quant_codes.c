/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacks the codes of quantized rows; a file of its own, since CUDA's library compiles it too. */
#include "quant.h"

#include <string.h>

void qni_quant_read_codes(uint8_t *codes, const unsigned char *stream, int32_t bits, int64_t n) {
    if (bits == 8) {
        memcpy(codes, stream, (size_t)n);
        return;
    }
    if (bits == 4) {
        for (int64_t i = 0; i < n; i++) codes[i] = stream[i / 2] >> (i % 2 * 4) & 15;
        return;
    }
    uint32_t buffer = 0;
    int32_t n_bit = 0;
    for (int64_t i = 0; i < n; i++) {
        if (n_bit < bits) {
            buffer |= (uint32_t)*stream++ << n_bit;
            n_bit += 8;
        }
        codes[i] = (uint8_t)(buffer & ((1u << bits) - 1));
        buffer >>= bits;
        n_bit -= bits;
    }
}
