/* SPDX-License-Identifier: MIT */
/*
 * How the CPU's table is put together: cpu.c fills it with the reference (cpu_ref.h), then BLAS and
 * the level's own functions override entries. Each function below overrides what it is better at
 * and leaves the other entries alone.
 */
#ifndef ICAE_BACKEND_CPU_INTERNAL_H
#define ICAE_BACKEND_CPU_INTERNAL_H

#include <omp.h>

#include "icae/backend.h"

/* cpu_simd.c, once per level of the Makefile's LEVELS; calls the other level-compiled files. Must
 * not be called for a level that the processor lacks. */
void icae_cpu_simd_portable(icae_kernels *table);
void icae_cpu_simd_avx2(icae_kernels *table);
void icae_cpu_simd_avx512(icae_kernels *table);

/* cpu_linear.c, cpu_few.c and cpu_attention.c, parts of the above */
void icae_cpu_linear_portable(icae_kernels *table);
void icae_cpu_linear_avx2(icae_kernels *table);
void icae_cpu_linear_avx512(icae_kernels *table);
void icae_cpu_few_portable(icae_kernels *table);
void icae_cpu_few_avx2(icae_kernels *table);
void icae_cpu_few_avx512(icae_kernels *table);
void icae_cpu_integers_portable(icae_kernels *table);
void icae_cpu_integers_avx2(icae_kernels *table);
void icae_cpu_integers_avx512(icae_kernels *table);
void icae_cpu_integers_avx512vnni(
    icae_kernels *table); /* for processors with AVX512-VNNI alone */
void icae_cpu_integers_avx2vnni(icae_kernels *table); /* of a file that is no level; unused */
void icae_cpu_attention_portable(icae_kernels *table);
void icae_cpu_attention_avx2(icae_kernels *table);
void icae_cpu_attention_avx512(icae_kernels *table);

/* linear_few: cpu_few.c has it in floats, cpu_linear_int.c in integers for the types it knows, and cpu_few_int.c
 * that for up to three rows. avx2vnni is AVX2's vectors with VPDPWSSD. */
typedef void icae_cpu_product(icae_backend *be, int64_t T, int64_t N, int64_t K,
                              const icae_real *x, const icae_matrix *w, bool add, icae_real *y);
icae_cpu_product icae_cpu_linear_few_portable, icae_cpu_linear_few_avx2,
    icae_cpu_linear_few_avx512;
icae_cpu_product icae_cpu_linear_int_avx2, icae_cpu_linear_int_avx2vnni;
icae_cpu_product icae_cpu_few_int_avx2, icae_cpu_few_int_avx2vnni;

/* cpu_bf16.c: linear_bf16, linear_bf16_dx and, by cpu_few.c's second copy, linear_few_bf16, for
 * processors with AVX512-BF16 alone; not in double.
 * The last: GFLOP that each of n_threads threads did, and the seconds that the slowest took. */
void icae_cpu_bf16(icae_kernels *table);
void icae_cpu_few_avx512bf16(icae_kernels *table);
double icae_cpu_bf16_burst(int n_threads, double *seconds);

/* cpu_blas.c: matmul, on OpenBLAS */
void icae_cpu_blas(icae_kernels *table);
/* OpenBLAS's name for the kernels that it should take (OPENBLAS_CORETYPE), where those it took are for processors
 * without AVX2 and this one has it; else NULL. The first asks both, the second is told: `taken` is
 * OpenBLAS's name, `levels` as icae_backend_levels() has them. Neither result is to be freed. */
const char *icae_cpu_blas_better_core(void);
const char *icae_cpu_blas_core_for(const char *taken, const char *const *levels);

/* How many blocks of rows every panel of a product is multiplied in, so that no thread waits long for
 * the last one. Each block packs its panel anew, so a block must have many rows. */
static inline int64_t icae_cpu_row_blocks(int64_t T, int64_t panels, int64_t threads) {
    int64_t blocks = 1;
    while (panels * blocks % threads != 0 && panels * blocks < 8 * threads &&
           T / (blocks + 1) >= 96)
        blocks++;
    return blocks;
}

/* The calling thread's number in its team: its part of the scratch. */
static inline int icae_cpu_thread(void) {
    return omp_get_thread_num();
}

#endif
