/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-1-3 and its keys. */
#include "hash.h"

#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>

static uint64_t rotate(uint64_t x, int bits) {
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

uint64_t qni_hash_text(const qni_hash_key *key, const char *text, size_t size) {
    uint64_t v[4] = {key->k0 ^ 0x736F6D6570736575, key->k1 ^ 0x646F72616E646F6D, key->k0 ^ 0x6C7967656E657261,
                     key->k1 ^ 0x7465646279746573};
    uint64_t word, last = (uint64_t)size << 56;
    size_t left = size;
    for (; left >= 8; text += 8, left -= 8) {
        memcpy(&word, text, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    for (size_t i = 0; i < left; i++) last |= (uint64_t)(unsigned char)text[i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xFF;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void qni_hash_key_make(qni_hash_key *key) {
    if (getrandom(key, sizeof *key, GRND_NONBLOCK) == (ssize_t)sizeof *key) return;
    /* The entropy pool is not ready, or a sandbox forbids getrandom(): use the kernel's 16 random bytes per process
     * (AT_RANDOM), the time and an address. */
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    qni_hash_key seed = {0};
    const void *random = (const void *)getauxval(AT_RANDOM);
    if (random != NULL) memcpy(&seed, random, sizeof seed);
    const uint64_t here[] = {(uint64_t)now.tv_sec, (uint64_t)now.tv_nsec, (uint64_t)(uintptr_t)key};
    key->k0 = qni_hash_text(&seed, (const char *)here, sizeof here);
    key->k1 = qni_hash_text(&seed, (const char *)here, sizeof here - 1);
}
