/* SPDX-License-Identifier: MIT */
/* The types of 256-value blocks: part 0..7 of a block -> its 32 values; see dtype_k.c. */
#ifndef ICAE_DTYPE_INTERNAL_H
#define ICAE_DTYPE_INTERNAL_H

#include "icae/half.h"

void icae_widen_part_Q2_K(const unsigned char *block, int part, float *out);
void icae_widen_part_Q3_K(const unsigned char *block, int part, float *out);
void icae_widen_part_Q4_K(const unsigned char *block, int part, float *out);
void icae_widen_part_Q5_K(const unsigned char *block, int part, float *out);
void icae_widen_part_Q6_K(const unsigned char *block, int part, float *out);

#endif
