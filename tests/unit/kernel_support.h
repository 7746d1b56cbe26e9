/* SPDX-License-Identifier: MIT */
/*
 * What the kernel tests share: random inputs, guarded outputs, comparisons.
 *
 * An output is made by `output`: filled with NaN, so that a kernel that reads what it should only
 * write is found out, and followed by marked values, so that one that writes too far is too.
 * Memory lives until the test's process ends.
 */
#ifndef ICAE_TESTS_KERNEL_SUPPORT_H
#define ICAE_TESTS_KERNEL_SUPPORT_H

#include "icae/backend.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef icae_real real;

/* A backend of this level, or a failed test. */
icae_backend *test_backend(const char *level, int n_threads);

/* n values in [-1, 1), the same for the same seed. */
real *random_reals(int64_t n, uint64_t seed);
/* n values of NaN, guarded. */
real *output(int64_t n);
/* A guarded output that starts as a copy of `from`. */
real *output_from(const real *from, int64_t n);

/* Values of about [-1, 1) stored as dtype, at an odd address, with a gap after every row. */
icae_matrix random_matrix(icae_dtype dtype, int64_t rows, int64_t cols, uint64_t seed);

/* Every got[i] within tolerance * (1 + |want[i]|) of want[i] (or both NaN, or the same infinity),
 * and the guards of `got` untouched. Tolerance is for float; double is held to 1e-9 of it. */
void same_values(const char *what, const real *got, const real *want, int64_t n,
                 double tolerance);
void same_bits(const char *what, const real *got, const real *want, int64_t n);

#endif
