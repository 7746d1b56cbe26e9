/* SPDX-License-Identifier: MIT */
/* Cases of the table in test_kernels.c: each runs one kernel at a level and on the reference, and compares. */
#ifndef ICAE_TESTS_KERNEL_CASES_H
#define ICAE_TESTS_KERNEL_CASES_H

#include "icae/backend.h"

/* The level's backend and the reference's. */
typedef void kernel_check(icae_backend *be, icae_backend *ref);

/* kernel_matrices.c */
kernel_check check_linear, check_linear_few, check_linear_reading, check_linear_dx;
kernel_check check_linear_bf16, check_linear_few_bf16, check_linear_bf16_dx;
kernel_check check_gather, check_add_means, check_scatter_add, check_matmul;
/* kernel_attention.c */
kernel_check check_attention, check_attention_dx;

#endif
