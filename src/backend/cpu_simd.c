/* SPDX-License-Identifier: MIT */
#include "backend/cpu_internal.h"
#include "backend/cpu_vector.h"

void LEVEL_NAME(icae_cpu_simd_)(icae_kernels *table) {
    LEVEL_NAME(icae_cpu_linear_)(table);
    LEVEL_NAME(icae_cpu_attention_)(table);
}
