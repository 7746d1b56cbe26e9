/* SPDX-License-Identifier: MIT */
/*
 * What the machine can do at most, for icae bench to compare with:
 *
 *     fma     multiply-adds of floats that never leave the registers, in the widest vectors that the
 *             processor has; twelve independent sums hide their latency
 *     sgemm   OpenBLAS on 1024 x 1024 matrices
 *     bf16    products of bfloat16 on registers
 *     read    every cache line of 256 MiB, each thread its own part: what decoding, which reads all weights
 *             for every token, is bound by
 *
 * Each is the best of many short tries, because other work on the machine can only make one slower. A round of
 * training lasts longer than such a try, so bench_train.c times sgemm between the rounds, too: its mean
 * is what a round compares with, and its best counts if it is better than the one here.
 */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "bench_train.h"
#include "icae/log.h"
#include "icae/memory.h"

/* ---- multiply-adds ---- */

enum { SUMS = 12, BURST_ROUNDS = 40000 };

#define BURST(name, bytes, attribute)                                                          \
    attribute static float burst_##name(int rounds) {                                          \
        typedef float vec __attribute__((vector_size(bytes)));                                 \
        vec sums[SUMS], a = {0}, b = {0};                                                      \
        for (size_t i = 0; i < bytes / sizeof(float); i++) {                                   \
            a[i] = 0.999f;                                                                     \
            b[i] = 0.001f;                                                                     \
        }                                                                                      \
        for (int i = 0; i < SUMS; i++)                                                         \
            sums[i] = b * (float)(i + 1);                                                      \
        for (int r = 0; r < rounds; r++) {                                                     \
            sums[0] = sums[0] * a + b, sums[1] = sums[1] * a + b;                              \
            sums[2] = sums[2] * a + b, sums[3] = sums[3] * a + b;                              \
            sums[4] = sums[4] * a + b, sums[5] = sums[5] * a + b;                              \
            sums[6] = sums[6] * a + b, sums[7] = sums[7] * a + b;                              \
            sums[8] = sums[8] * a + b, sums[9] = sums[9] * a + b;                              \
            sums[10] = sums[10] * a + b, sums[11] = sums[11] * a + b;                          \
        }                                                                                      \
        float used = 0;                                                                        \
        for (int i = 0; i < SUMS; i++)                                                         \
            used += sums[i][0];                                                                \
        return used;                                                                           \
    }

BURST(portable, 16, )
#if defined(__x86_64__)
BURST(avx2, 32, __attribute__((target("avx2,fma"))))
BURST(avx512, 64, __attribute__((target("avx512f,fma"))))
#endif

typedef struct burst {
    float (*run)(int rounds);
    int floats; /* of a vector */
} burst;

static burst widest_burst(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return (burst){burst_avx512, 16};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (burst){burst_avx2, 8};
#endif
    return (burst){burst_portable, 4};
}

static double fma_peak(int n_threads, double seconds) {
    const burst b = widest_burst();
    double best = 0, begun = icae_clock_seconds();
    do {
        double slowest = 0;
        float used = 0;
#pragma omp parallel num_threads(n_threads) reduction(max : slowest) reduction(+ : used)
        {
            double start = icae_clock_seconds();
            used += b.run(BURST_ROUNDS);
            slowest = icae_clock_seconds() - start;
        }
        volatile float kept = used;
        (void)kept;
        double gflop = 2e-9 * n_threads * BURST_ROUNDS * SUMS * b.floats;
        if (slowest > 0 && gflop / slowest > best) best = gflop / slowest;
    } while (icae_clock_seconds() - begun < seconds);
    return best;
}

/* ---- memory ---- */

static double read_peak(int n_threads, double seconds) {
    static const size_t words = (256u << 20) / sizeof(uint64_t);
    uint64_t *memory = icae_aligned_alloc(words * sizeof *memory);
    if (!memory) return 0;
    double best = 0;
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (size_t i = 0; i < words; i++)
        memory[i] = i;
    double begun = icae_clock_seconds();
    do {
        uint64_t sum = 0;
        double start = icae_clock_seconds();
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : sum)
        for (size_t i = 0; i < words; i++)
            sum += memory[i];
        double took = icae_clock_seconds() - start;
        volatile uint64_t kept = sum;
        (void)kept;
        double gb = 1e-9 * (double)(words * sizeof *memory);
        if (took > 0 && gb / took > best) best = gb / took;
    } while (icae_clock_seconds() - begun < seconds);
    icae_aligned_free(memory);
    return best;
}

ceilings bench_ceilings(int n_threads, double seconds) {
    return (ceilings){.fma_gflops = fma_peak(n_threads, seconds),
                      .sgemm_gflops = icae_cpu_sgemm_peak(n_threads, 2 * seconds, NULL),
                      .bf16_gflops = icae_cpu_bf16_peak(n_threads, seconds),
                      .read_gb_s = read_peak(n_threads, seconds)};
}
