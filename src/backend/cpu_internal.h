/* SPDX-License-Identifier: MIT */
/* What the CPU tables are made of: each function overrides entries of a table that starts as the
 * reference. The level functions come from one source, compiled once per level. */
#ifndef ICAE_CPU_INTERNAL_H
#define ICAE_CPU_INTERNAL_H

#include "icae/backend.h"

void icae_cpu_blas(icae_kernels *table);
void icae_cpu_blas_set_threads(int n_threads);
void icae_cpu_simd_portable(icae_kernels *table);
void icae_cpu_simd_avx2(icae_kernels *table);
void icae_cpu_simd_avx512(icae_kernels *table);

#endif
