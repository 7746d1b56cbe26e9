/* SPDX-License-Identifier: MIT */
/*
 * The type that activations, gradients and trained parameters have.
 *
 * `real` is float, and double in the f64 build (-DICAE_F64, `make grad`), where every gradient is
 * checked by central differences. Files never hold `real`: what is stored has a dtype of its own.
 */
#ifndef ICAE_REAL_H
#define ICAE_REAL_H

#ifdef ICAE_F64
typedef double icae_real;
#define ICAE_REAL_IS_DOUBLE 1
#else
typedef float icae_real;
#define ICAE_REAL_IS_DOUBLE 0
#endif

#endif
