/* SPDX-License-Identifier: MIT */
/* Products with matrices of every storage type, and what takes rows out of one or adds them up. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel_cases.h"
#include "kernel_support.h"
#include "suites.h"

typedef void product(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                     const icae_matrix *w, bool add, real *y);

/* y[T,to] from x[T,from], within `tolerance` */
static void compare_results(const char *what, icae_backend *be, icae_backend *ref,
                            product *fast, product *slow, int64_t T, const icae_matrix *w,
                            const real *x, int64_t to, double tolerance) {
    const real *before = random_reals(T * to, 4);
    for (int add = 0; add < 2; add++) {
        real *got = add ? output_from(before, T * to) : output(T * to);
        real *want = add ? output_from(before, T * to) : output(T * to);
        fast(be, T, w->rows, w->cols, x, w, add, got);
        slow(ref, T, w->rows, w->cols, x, w, add, want);
        char name[128];
        snprintf(name, sizeof name, "%s %s T=%d N=%d K=%d add=%d at %s", what,
                 icae_dtype_describe(w->dtype)->name, (int)T, (int)w->rows, (int)w->cols, add,
                 be->name);
        same_values(name, got, want, T * to, tolerance);
        free(got);
        free(want);
    }
}

/* n values of 16 bits, the largest possible one among every 32 of a row of `width` (and fewer at its end). */
static real *reals_of_16_bits(int64_t n, int64_t width) {
    real *x = random_reals(n, 3);
    for (int64_t i = 0; i < n; i++)
        x[i] = i % width % 32 == 5 || i % width % 32 == 0
                   ? (real)0x7FFFp-15
                   : (real)ldexp(rint(ldexp((double)x[i], 14)), -15);
    return x;
}

/* linear_few and linear_reading may round x to 16 bits: what has no more of them is held to the tolerance of all products, and
 * anything else to that of rounding. K errors of at most 2^-16 are, added up, 9e-6 sqrt(K) at one
 * standard deviation with weights of about 1. */
static void compare_product(const char *what, icae_backend *be, icae_backend *ref,
                            product *fast, product *slow, int64_t T, const icae_matrix *w,
                            int64_t from, int64_t to) {
    const double tolerance = 8e-5; /* sums of up to 1120 */
    const real *x = random_reals(T * from, 3);
    if (fast == be->k.linear_few || fast == be->k.linear_reading) {
        const double rounding = 4 * 9e-6 * sqrt((double)from);
        const real *exact = reals_of_16_bits(T * from, from);
        compare_results(what, be, ref, fast, slow, T, w, exact, to, tolerance);
        compare_results(what, be, ref, fast, slow, T, w, x, to, tolerance + rounding);
    } else {
        compare_results(what, be, ref, fast, slow, T, w, x, to, tolerance);
    }
}

/* Rows N and columns K of w: empty, one, around the panel's and the vectors' widths, and longer than
 * one block of the sum in each direction. */
static const int sizes[][2] = {{0, 0},     {0, 32},    {3, 0},   {1, 1},     {3, 17},
                               {17, 3},    {1, 32},    {5, 64},  {31, 33},   {32, 32},
                               {33, 96},   {64, 100},  {67, 31}, {7, 1056},  {1056, 7},
                               {1057, 64}, {40, 1120}, {3, 256}, {67, 1280}, {1056, 256}};
static const int few_counts[] = {0, 1, 2, 3, 4, 7, 16};
static const int many_counts[] = {0, 1, 3, 5, 17, 64};
static const int bf16_counts[] = {0, 1, 5, 13}; /* the same loops around other tiles */

static void compare_products(const char *what, icae_backend *be, icae_backend *ref,
                             product *fast, product *slow, bool is_dx, const int *counts,
                             size_t n_counts) {
    for (int dtype = 0; dtype < ICAE_DTYPE_COUNT; dtype++) {
        for (size_t s = 0; s < COUNT(sizes); s++) {
            int64_t N = sizes[s][0], K = sizes[s][1];
            if (K % icae_dtype_describe((icae_dtype)dtype)->block_values) continue;
            icae_matrix w = random_matrix((icae_dtype)dtype, N, K, 5);
            for (size_t c = 0; c < n_counts; c++) {
                compare_product(what, be, ref, fast, slow, counts[c], &w, is_dx ? N : K,
                                is_dx ? K : N);
            }
        }
    }
}

void check_linear(icae_backend *be, icae_backend *ref) {
    compare_products("linear", be, ref, be->k.linear, ref->k.linear, false, many_counts,
                     COUNT(many_counts));
    icae_matrix w = random_matrix(ICAE_DTYPE_Q4_1, 20, 96, 6); /* few panels, many rows */
    compare_product("linear", be, ref, be->k.linear, ref->k.linear, 400, &w, 96, 20);
}

/* More columns than one stretch of scales (cpu_few.c): part of a second, whole ones, a third. */
static void compare_wide_products(const char *name, icae_backend *be, icae_backend *ref,
                                  product *got, product *want) {
    static const int widths[] = {2080, 2304, 4096, 4352};
    for (int dtype = 0; dtype < ICAE_DTYPE_COUNT; dtype++) {
        for (size_t i = 0; i < COUNT(widths); i++) {
            if (widths[i] % icae_dtype_describe((icae_dtype)dtype)->block_values) continue;
            icae_matrix w = random_matrix((icae_dtype)dtype, 11, widths[i], 7);
            compare_product(name, be, ref, got, want, 3, &w, widths[i], 11);
        }
    }
}

void check_linear_few(icae_backend *be, icae_backend *ref) {
    compare_products("linear_few", be, ref, be->k.linear_few, ref->k.linear_few, false,
                     few_counts, COUNT(few_counts));
    compare_wide_products("linear_few", be, ref, be->k.linear_few, ref->k.linear_few);
}

void check_linear_reading(icae_backend *be, icae_backend *ref) {
    compare_products("linear_reading", be, ref, be->k.linear_reading, ref->k.linear_reading,
                     false, many_counts, COUNT(many_counts));
    compare_wide_products("linear_reading", be, ref, be->k.linear_reading,
                          ref->k.linear_reading);
    icae_matrix w = random_matrix(ICAE_DTYPE_Q4_1, 20, 96, 6); /* few panels, many rows */
    compare_product("linear_reading", be, ref, be->k.linear_reading, ref->k.linear_reading, 400,
                    &w, 96, 20);
}

void check_linear_dx(icae_backend *be, icae_backend *ref) {
    compare_products("linear_dx", be, ref, be->k.linear_dx, ref->k.linear_dx, true, many_counts,
                     COUNT(many_counts));
}

/* The reference rounds both sides and sums exact products in double: what is left is the order of a
 * float's sum, so the tolerance is linear's. Unrounded inputs would differ a hundred times more. */
void check_linear_bf16(icae_backend *be, icae_backend *ref) {
    compare_products("linear_bf16", be, ref, be->k.linear_bf16, ref->k.linear_bf16, false,
                     bf16_counts, COUNT(bf16_counts));
    icae_matrix w = random_matrix(ICAE_DTYPE_Q4_1, 20, 96, 6); /* few panels, many rows */
    compare_product("linear_bf16", be, ref, be->k.linear_bf16, ref->k.linear_bf16, 400, &w, 96,
                    20);
}

void check_linear_few_bf16(icae_backend *be, icae_backend *ref) {
    compare_products("linear_few_bf16", be, ref, be->k.linear_few_bf16, ref->k.linear_few_bf16,
                     false, bf16_counts, COUNT(bf16_counts));
    compare_wide_products("linear_few_bf16", be, ref, be->k.linear_few_bf16,
                          ref->k.linear_few_bf16);
}

void check_linear_bf16_dx(icae_backend *be, icae_backend *ref) {
    compare_products("linear_bf16_dx", be, ref, be->k.linear_bf16_dx, ref->k.linear_bf16_dx,
                     true, bf16_counts, COUNT(bf16_counts));
}

void check_gather(icae_backend *be, icae_backend *ref) {
    static const int32_t rows[] = {6, 0, 3, 3, 1}, to[] = {4, 2, 0, 1, 3};
    for (int dtype = 0; dtype < ICAE_DTYPE_COUNT; dtype++) {
        for (int64_t cols = 31; cols <= 512; cols += cols < 192 ? 1 : 64) {
            if (cols % icae_dtype_describe((icae_dtype)dtype)->block_values) continue;
            icae_matrix w = random_matrix((icae_dtype)dtype, 7, cols, 7);
            real *got = output(5 * cols), *want = output(5 * cols);
            be->k.gather(be, 5, &w, rows, to, (real)1.3, got);
            ref->k.gather(ref, 5, &w, rows, to, (real)1.3, want);
            same_values("gather", got, want, 5 * cols, 0);
            be->k.gather(be, 0, &w, NULL, NULL, 1, NULL);
            free(got);
            free(want);
        }
    }
    /* enough rows for a team of threads */
    enum { MANY = 300, WIDE = 576 };
    static int32_t some[MANY], places[MANY];
    for (int i = 0; i < MANY; i++) {
        some[i] = i * 7 % 50;
        places[i] = MANY - 1 - i;
    }
    icae_matrix w = random_matrix(ICAE_DTYPE_Q8_0, 50, WIDE, 8);
    real *got = output(MANY * WIDE), *want = output(MANY * WIDE);
    be->k.gather(be, MANY, &w, some, places, 1, got);
    ref->k.gather(ref, MANY, &w, some, places, 1, want);
    same_values("gather of many", got, want, MANY * WIDE, 0);
}

void check_add_means(icae_backend *be, icae_backend *ref) {
    static const int64_t starts[] = {0, 1, 4, 6, 13};
    static const int32_t rows[] = {6, 0, 3, 3, 1, 2, 0, 1, 2, 3, 4, 5, 6}, to[] = {4, 2, 0, 1};
    for (int dtype = 0; dtype < ICAE_DTYPE_COUNT; dtype++) {
        int64_t cols = 3 * icae_dtype_describe((icae_dtype)dtype)->block_values;
        icae_matrix w = random_matrix((icae_dtype)dtype, 7, cols, 7);
        const real *before = random_reals(5 * cols, 8);
        real *got = output_from(before, 5 * cols), *want = output_from(before, 5 * cols);
        real *row = output(cols);
        be->k.add_means(be, 4, &w, starts, rows, to, 2, got);
        ref->k.add_means(ref, 4, &w, starts, rows, to, 2, want);
        same_values("add_means", got, want, 5 * cols, 1e-6);
        icae_dtype_widen(w.dtype, (const unsigned char *)w.data + 6 * w.row_bytes, cols, row);
        for (int64_t d = 0; d < cols; d++) {
            ck_assert(got[4 * cols + d] ==
                      before[4 * cols + d] + 2 * row[d]);         /* the mean of one */
            ck_assert(got[3 * cols + d] == before[3 * cols + d]); /* and no mean */
        }
        be->k.add_means(be, 0, &w, starts, NULL, NULL, 1, got);
        free(got);
        free(want);
        free(row);
    }
}

void check_scatter_add(icae_backend *be, icae_backend *ref) {
    static const int32_t from[] = {2, 0, 1, 3}, rows[] = {1, 1, 0, 1};
    const real *dy = random_reals(4 * 37, 9), *before = random_reals(2 * 37, 10);
    real *got = output_from(before, 2 * 37), *want = output_from(before, 2 * 37);
    be->k.scatter_add(be, 4, 37, dy, from, rows, (real)0.7, got);
    ref->k.scatter_add(ref, 4, 37, dy, from, rows, (real)0.7, want);
    same_values("scatter_add", got, want, 2 * 37, 1e-6);
    be->k.scatter_add(be, 0, 37, dy, NULL, NULL, 1, got);
}

void check_matmul(icae_backend *be, icae_backend *ref) {
    static const int shapes[][3] = {{0, 3, 4}, {3, 0, 4},    {3, 4, 0},    {1, 1, 1},
                                    {5, 7, 3}, {17, 33, 64}, {64, 65, 130}};
    for (size_t s = 0; s < COUNT(shapes); s++) {
        int64_t M = shapes[s][0], N = shapes[s][1], K = shapes[s][2], ldc = N + 2;
        for (int bits = 0; bits < 8; bits++) {
            bool ta = bits & 1, tb = bits & 2;
            real beta = bits & 4 ? (real)-0.5 : 0;
            int64_t lda = (ta ? M : K) + 3, ldb = (tb ? K : N) + 1;
            const real *a = random_reals((ta ? K : M) * lda, 11);
            const real *b = random_reals((tb ? N : K) * ldb, 12);
            const real *before = random_reals(M * ldc, 13);
            real *got = beta != 0 ? output_from(before, M * ldc) : output(M * ldc);
            real *want = beta != 0 ? output_from(before, M * ldc) : output(M * ldc);
            be->k.matmul(be, ta, tb, M, N, K, (real)1.5, a, lda, b, ldb, beta, got, ldc);
            ref->k.matmul(ref, ta, tb, M, N, K, (real)1.5, a, lda, b, ldb, beta, want, ldc);
            same_values("matmul", got, want, M * ldc, 2e-5);
        }
    }
}
