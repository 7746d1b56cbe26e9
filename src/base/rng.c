/* SPDX-License-Identifier: MIT */
/* Philox4x32-10 and what is drawn from it; see icae/rng.h. */
#include <assert.h>
#include <math.h>

#include "icae/rng.h"

void icae_philox(uint64_t seed, uint64_t stream, uint64_t position, uint32_t out[4]) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u; /* golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t finalise(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t icae_mix64(uint64_t a, uint64_t b) {
    return finalise(finalise(a + 0x9E3779B97F4A7C15u) ^ b);
}

uint64_t icae_hash64(const void *data, uint64_t bytes, uint64_t seed) {
    return icae_hash64_more(data, bytes, icae_mix64(seed, bytes));
}

uint64_t icae_hash64_more(const void *data, uint64_t bytes, uint64_t h) {
    const unsigned char *at = data;
    while (bytes) {
        uint64_t word = 0;
        uint64_t n = bytes < 8 ? bytes : 8;
        for (uint64_t i = 0; i < n; i++)
            word |= (uint64_t)at[i] << (8 * i);
        h = icae_mix64(h, word);
        at += n;
        bytes -= n;
    }
    return h;
}

uint64_t icae_rng_u64(icae_rng *rng) {
    uint32_t words[4];
    icae_philox(rng->seed, rng->stream, rng->position++, words);
    return (uint64_t)words[1] << 32 | words[0];
}

double icae_rng_uniform(icae_rng *rng) {
    return (double)(icae_rng_u64(rng) >> 11) * 0x1.0p-53;
}

uint64_t icae_rng_below(icae_rng *rng, uint64_t limit) {
    assert(limit > 0);
    /* Numbers below 2^64 mod limit would make the small remainders likelier; they are redrawn. */
    uint64_t reject = (0 - limit) % limit, value;
    do
        value = icae_rng_u64(rng);
    while (value < reject);
    return value % limit;
}

double icae_rng_normal(icae_rng *rng) {
    /* Box-Muller; 1 - u keeps the logarithm's argument above 0. */
    double radius = sqrt(-2.0 * log(1.0 - icae_rng_uniform(rng)));
    return radius * cos(6.283185307179586476925 * icae_rng_uniform(rng));
}
