/* SPDX-License-Identifier: MIT */
/*
 * How the CPU's table is put together: cpu.c fills it with the reference, then lets the level's
 * own functions override entries, then BLAS. Each function below overrides what it is better at
 * and leaves the other entries alone.
 */
#ifndef ICAE_BACKEND_CPU_INTERNAL_H
#define ICAE_BACKEND_CPU_INTERNAL_H

#include <omp.h>

#include "icae/backend.h"

/* The number of the calling thread in its team; its part of the scratch. */
static inline int icae_cpu_thread(void) {
    return omp_get_thread_num();
}

/* cpu_ref.c: every entry */
void icae_cpu_ref(icae_kernels *table);

/* cpu_simd.c, once per level of the Makefile's LEVELS. Must not be called for a level that the
 * processor lacks. Calls the level's functions of the other level-compiled files. */
void icae_cpu_simd_portable(icae_kernels *table);
void icae_cpu_simd_avx2(icae_kernels *table);
void icae_cpu_simd_avx512(icae_kernels *table);

/* cpu_linear.c, cpu_attention.c, cpu_loss.c: parts of the above */
void icae_cpu_linear_portable(icae_kernels *table);
void icae_cpu_linear_avx2(icae_kernels *table);
void icae_cpu_linear_avx512(icae_kernels *table);
void icae_cpu_attention_portable(icae_kernels *table);
void icae_cpu_attention_avx2(icae_kernels *table);
void icae_cpu_attention_avx512(icae_kernels *table);

/* cpu_blas.c: matmul, on OpenBLAS */
void icae_cpu_blas(icae_kernels *table);
void icae_cpu_blas_set_threads(int n_threads);

#endif
