/* SPDX-License-Identifier: MIT */
/*
 * Counter-based random numbers: value = f(seed, stream, position).
 *
 * There is no hidden state to save: dropout recomputed under checkpointing, a resumed run and a
 * batch of another shape all see the same numbers. The function is Philox4x32-10 (Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", SC11): key = seed, counter = (stream, position).
 *
 * icae_rng is a cursor over one stream for code that simply wants "the next number"; its whole
 * state is the three integers, so saving it is saving them.
 */
#ifndef ICAE_RNG_H
#define ICAE_RNG_H

#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The four 32-bit words at one counter. */
void icae_philox(uint64_t seed, uint64_t stream, uint64_t position, uint32_t out[4]);

/* 64 well-mixed bits from the bytes or integers of a name; for deriving streams. */
uint64_t icae_hash64(const void *data, uint64_t bytes, uint64_t seed);
/* The same in pieces: from icae_mix64(seed, bytes of all), piece by piece in their order; every piece but
 * the last has a multiple of 8 bytes. */
uint64_t icae_hash64_more(const void *data, uint64_t bytes, uint64_t hash);
/* That of a file's bytes (seed 0), and how many they are. */
icae_status icae_hash_file(const char *path, uint64_t *hash, size_t *bytes, icae_error *error);
uint64_t icae_mix64(uint64_t a, uint64_t b);

typedef struct icae_rng {
    uint64_t seed, stream, position;
} icae_rng;

uint64_t icae_rng_u64(icae_rng *rng);
double icae_rng_uniform(icae_rng *rng);                 /* [0, 1) with 53 bits */
uint64_t icae_rng_below(icae_rng *rng, uint64_t limit); /* [0, limit), unbiased; limit > 0 */
double icae_rng_normal(icae_rng *rng);                  /* mean 0, deviation 1 */

#ifdef __cplusplus
}
#endif
#endif
