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
void icae_cpu_attention_portable(icae_kernels *table);
void icae_cpu_attention_avx2(icae_kernels *table);
void icae_cpu_attention_avx512(icae_kernels *table);

/* cpu_blas.c: matmul, on OpenBLAS */
void icae_cpu_blas(icae_kernels *table);
void icae_cpu_blas_set_threads(int n_threads);

/* The calling thread's number in its team: its part of the scratch. */
static inline int icae_cpu_thread(void) {
    return omp_get_thread_num();
}

#endif
