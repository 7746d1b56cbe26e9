/* SPDX-License-Identifier: MIT */
/*
 * Every row of kernels.def at every level of this processor, against the reference level.
 *
 * The list of rows is made from kernels.def itself: a row without a case below fails the suite.
 * What a kernel promises beyond its values (rows that do not depend on each other, identities)
 * stands in test_kernel_rows.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_support.h"
#include "suites.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The level's backend and the reference's. */
typedef void check(icae_backend *be, icae_backend *ref);

/* ---- memory ---- */

static void check_memory(icae_backend *be, icae_backend *ref) {
    (void)ref;
    real *host = random_reals(1000, 1), *back = output(1000);
    size_t bytes = 1000 * sizeof(real);
    real *a = be->k.acquire(be, bytes), *b = be->k.acquire(be, bytes);
    ck_assert(a && b && a != b);
    ck_assert_uint_eq((uintptr_t)a % ICAE_ALIGNMENT, 0);
    be->k.copy_in(be, a, host, bytes);
    be->k.zero(be, b, bytes);
    be->k.copy(be, b, a, bytes / 2);
    be->k.copy_out(be, back, b, bytes);
    for (int i = 500; i < 1000; i++)
        host[i] = 0;
    same_values("copies", back, host, 1000, 0);
    be->k.release(be, a);
    be->k.release(be, b);
    be->k.release(be, NULL);
    be->k.zero(be, NULL, 0);
    be->k.copy(be, NULL, NULL, 0);
}

/* ---- matrices ---- */

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

static void check_linear(icae_backend *be, icae_backend *ref) {
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

static void check_linear_few(icae_backend *be, icae_backend *ref) {
    compare_products("linear_few", be, ref, be->k.linear_few, ref->k.linear_few, false,
                     few_counts, COUNT(few_counts));
    compare_wide_products("linear_few", be, ref, be->k.linear_few, ref->k.linear_few);
}

static void check_linear_reading(icae_backend *be, icae_backend *ref) {
    compare_products("linear_reading", be, ref, be->k.linear_reading, ref->k.linear_reading,
                     false, many_counts, COUNT(many_counts));
    compare_wide_products("linear_reading", be, ref, be->k.linear_reading,
                          ref->k.linear_reading);
    icae_matrix w = random_matrix(ICAE_DTYPE_Q4_1, 20, 96, 6); /* few panels, many rows */
    compare_product("linear_reading", be, ref, be->k.linear_reading, ref->k.linear_reading, 400,
                    &w, 96, 20);
}

static void check_linear_dx(icae_backend *be, icae_backend *ref) {
    compare_products("linear_dx", be, ref, be->k.linear_dx, ref->k.linear_dx, true, many_counts,
                     COUNT(many_counts));
}

/* The reference rounds both sides and sums exact products in double: what is left is the order of a
 * float's sum, so the tolerance is linear's. Unrounded inputs would differ a hundred times more. */
static void check_linear_bf16(icae_backend *be, icae_backend *ref) {
    compare_products("linear_bf16", be, ref, be->k.linear_bf16, ref->k.linear_bf16, false,
                     bf16_counts, COUNT(bf16_counts));
    icae_matrix w = random_matrix(ICAE_DTYPE_Q4_1, 20, 96, 6); /* few panels, many rows */
    compare_product("linear_bf16", be, ref, be->k.linear_bf16, ref->k.linear_bf16, 400, &w, 96,
                    20);
}

static void check_linear_few_bf16(icae_backend *be, icae_backend *ref) {
    compare_products("linear_few_bf16", be, ref, be->k.linear_few_bf16, ref->k.linear_few_bf16,
                     false, bf16_counts, COUNT(bf16_counts));
    compare_wide_products("linear_few_bf16", be, ref, be->k.linear_few_bf16,
                          ref->k.linear_few_bf16);
}

static void check_linear_bf16_dx(icae_backend *be, icae_backend *ref) {
    compare_products("linear_bf16_dx", be, ref, be->k.linear_bf16_dx, ref->k.linear_bf16_dx,
                     true, bf16_counts, COUNT(bf16_counts));
}

static void check_gather(icae_backend *be, icae_backend *ref) {
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

static void check_add_means(icae_backend *be, icae_backend *ref) {
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

static void check_scatter_add(icae_backend *be, icae_backend *ref) {
    static const int32_t from[] = {2, 0, 1, 3}, rows[] = {1, 1, 0, 1};
    const real *dy = random_reals(4 * 37, 9), *before = random_reals(2 * 37, 10);
    real *got = output_from(before, 2 * 37), *want = output_from(before, 2 * 37);
    be->k.scatter_add(be, 4, 37, dy, from, rows, (real)0.7, got);
    ref->k.scatter_add(ref, 4, 37, dy, from, rows, (real)0.7, want);
    same_values("scatter_add", got, want, 2 * 37, 1e-6);
    be->k.scatter_add(be, 0, 37, dy, NULL, NULL, 1, got);
}

static void check_matmul(icae_backend *be, icae_backend *ref) {
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

/* ---- norms and positions ---- */

static const int row_shapes[][2] = {{0, 8}, {1, 1}, {3, 17}, {5, 64}, {17, 100}, {130, 576}};

static void check_rmsnorm(icae_backend *be, icae_backend *ref) {
    for (size_t s = 0; s < COUNT(row_shapes); s++) {
        int64_t T = row_shapes[s][0], D = row_shapes[s][1];
        const real *x = random_reals(T * D, 14), *w = random_reals(D, 15);
        real *got = output(T * D), *got_r = output(T), *want = output(T * D),
             *want_r = output(T);
        be->k.rmsnorm(be, T, D, x, w, (real)1e-5, got, got_r);
        ref->k.rmsnorm(ref, T, D, x, w, (real)1e-5, want, want_r);
        same_values("rmsnorm", got, want, T * D, 1e-5);
        same_values("rmsnorm's r", got_r, want_r, T, 1e-5);
    }
}

static void check_rmsnorm_dx(icae_backend *be, icae_backend *ref) {
    for (size_t s = 0; s < COUNT(row_shapes); s++) {
        int64_t T = row_shapes[s][0], D = row_shapes[s][1], n = T * D;
        const real *x = random_reals(n, 16), *w = random_reals(D, 17),
                   *dy = random_reals(n, 18);
        const real *before = random_reals(n, 19);
        real *y = output(n), *r = output(T);
        ref->k.rmsnorm(ref, T, D, x, w, (real)1e-5, y, r);
        for (int add = 0; add < 2; add++) {
            real *got = add ? output_from(before, n) : output(n);
            real *want = add ? output_from(before, n) : output(n);
            be->k.rmsnorm_dx(be, T, D, x, w, r, dy, add, got);
            ref->k.rmsnorm_dx(ref, T, D, x, w, r, dy, add, want);
            same_values("rmsnorm_dx", got, want, n, 1e-5);
        }
    }
}

static void check_rope(icae_backend *be, icae_backend *ref) {
    static const int shapes[][3] = {{0, 2, 8}, {1, 1, 2}, {3, 5, 6}, {7, 3, 40}, {90, 9, 64}};
    for (size_t s = 0; s < COUNT(shapes); s++) {
        int64_t T = shapes[s][0], H = shapes[s][1], E = shapes[s][2];
        const real *angles = random_reals(T * E, 20), *x = random_reals(T * H * E, 21);
        for (int inverse = 0; inverse < 2; inverse++) {
            real *got = output_from(x, T * H * E), *want = output_from(x, T * H * E);
            be->k.rope(be, T, H, E, angles, inverse, got);
            ref->k.rope(ref, T, H, E, angles, inverse, want);
            same_values("rope", got, want, T * H * E, 1e-6);
        }
    }
}

/* ---- attention ---- */

enum { MOST_SPANS = 5 };

typedef struct attention_case {
    int heads, kv_heads, width, window;
    int spans[MOST_SPANS][2]; /* queries, keys */
} attention_case;

static const attention_case attention_cases[] = {
    {1, 1, 2, 0, {{1, 1}, {2, 5}}},
    {3, 1, 20, 0, {{0, 0}, {7, 7}, {33, 33}, {1, 64}}},
    {9, 3, 64, 0, {{70, 70}, {0, 9}, {1, 130}, {50, 97}, {33, 33}}},
    {4, 4, 32, 0, {{65, 65}, {64, 128}}},
    {4, 2, 40, 5, {{60, 60}, {3, 40}}},
    {3, 3, 64, 30, {{100, 100}, {31, 95}}},
    {6, 2, 256, 1, {{20, 20}}},
    {60, 1, 8, 0, {{9, 20}}}, /* a group larger than a block of rows */
};

/* Everything attention reads and writes, for one case. */
typedef struct attention_data {
    icae_attention_shape shape;
    int64_t n_spans, n_rows, n_keys;
    icae_attention_span spans[MOST_SPANS];
    real *out, *lse, *dq, *d_keys, *d_values;
} attention_data;

static attention_data attention_data_of(const attention_case *c, bool add) {
    attention_data d = {.shape = {c->heads, c->kv_heads, c->width,
                                  (real)(1.5 / sqrt((double)c->width)), c->window},
                        .n_spans = MOST_SPANS};
    int64_t kv_row = (int64_t)c->kv_heads * c->width, q_row = (int64_t)c->heads * c->width;
    for (int s = 0; s < MOST_SPANS; s++) {
        d.n_rows += c->spans[s][0];
        d.n_keys += c->spans[s][1];
    }
    const real *keys = random_reals(d.n_keys * kv_row, 22);
    const real *values = random_reals(d.n_keys * kv_row, 23);
    d.out = output(d.n_rows * q_row);
    d.lse = output(d.n_rows * c->heads);
    const real *before = random_reals((d.n_rows + d.n_keys) * q_row, 24);
    d.dq = add ? output_from(before, d.n_rows * q_row) : output(d.n_rows * q_row);
    d.d_keys = add ? output_from(before, d.n_keys * kv_row) : output(d.n_keys * kv_row);
    d.d_values = add ? output_from(before, d.n_keys * kv_row) : output(d.n_keys * kv_row);
    int64_t row = 0, key = 0;
    for (int s = 0; s < MOST_SPANS; s++) {
        int64_t at = key * kv_row;
        d.spans[s] =
            (icae_attention_span){row,         c->spans[s][0], c->spans[s][1], keys + at,
                                  values + at, d.d_keys + at,  d.d_values + at};
        row += c->spans[s][0];
        key += c->spans[s][1];
    }
    return d;
}

static void check_attention(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(attention_cases); i++) {
        const attention_case *c = &attention_cases[i];
        attention_data got = attention_data_of(c, false), want = attention_data_of(c, false);
        int64_t n = got.n_rows * c->heads;
        const real *q = random_reals(n * c->width, 25);
        be->k.attention(be, &got.shape, got.n_spans, got.spans, q, got.out, got.lse);
        ref->k.attention(ref, &want.shape, want.n_spans, want.spans, q, want.out, want.lse);
        same_values("attention", got.out, want.out, n * c->width, 1e-5);
        same_values("attention's lse", got.lse, want.lse, n, 1e-5);
    }
    attention_data none = attention_data_of(&attention_cases[0], false);
    be->k.attention(be, &none.shape, 0, NULL, NULL, NULL, NULL);
}

static void check_attention_dx(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < 2 * COUNT(attention_cases); i++) {
        const attention_case *c = &attention_cases[i / 2];
        bool add = i % 2;
        attention_data got = attention_data_of(c, add), want = attention_data_of(c, add);
        int64_t n = got.n_rows * c->heads * c->width;
        int64_t n_kv = got.n_keys * c->kv_heads * c->width;
        const real *q = random_reals(n, 26), *d_out = random_reals(n, 27);
        ref->k.attention(ref, &want.shape, want.n_spans, want.spans, q, want.out, want.lse);
        be->k.attention_dx(be, &got.shape, got.n_spans, got.spans, q, want.out, want.lse, d_out,
                           add, got.dq);
        ref->k.attention_dx(ref, &want.shape, want.n_spans, want.spans, q, want.out, want.lse,
                            d_out, add, want.dq);
        same_values("attention_dx: dq", got.dq, want.dq, n, 2e-5);
        same_values("attention_dx: d_keys", got.d_keys, want.d_keys, n_kv, 2e-5);
        same_values("attention_dx: d_values", got.d_values, want.d_values, n_kv, 2e-5);
    }
}

/* ---- elementwise ---- */

static const int lengths[] = {0, 1, 3, 8, 17, 64, 1000, 100003};

/* Random values of a wide range, and the edges of exp. */
static real *gates(int64_t n) {
    static const double edges[] = {0,      -0.0,       1e-30, -88, -104,
                                   -200,   87.5,       100.0, 200, (double)INFINITY,
                                   1e-300, (double)NAN};
    real *x = random_reals(n, 28);
    for (int64_t i = 0; i < n; i++)
        x[i] *= 20;
    for (int64_t i = 0; i < (int64_t)COUNT(edges) && n >= 64; i++)
        x[5 * i] = (real)edges[i];
    return x;
}

static void check_swiglu(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(lengths); i++) {
        int64_t n = lengths[i];
        const real *gate = gates(n), *up = random_reals(n, 29);
        real *got = output(n), *want = output(n);
        be->k.swiglu(be, n, gate, up, got);
        ref->k.swiglu(ref, n, gate, up, want);
        same_values("swiglu", got, want, n, 1e-6);
    }
}

static void check_swiglu_dx(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < 2 * COUNT(lengths); i++) {
        int64_t n = lengths[i / 2];
        bool add = i % 2;
        const real *gate = gates(n), *up = random_reals(n, 30), *dy = random_reals(n, 31);
        const real *before = random_reals(n, 32);
        real *got = add ? output_from(before, n) : output(n);
        real *want = add ? output_from(before, n) : output(n);
        real *got_up = add ? output_from(before, n) : output(n);
        real *want_up = add ? output_from(before, n) : output(n);
        be->k.swiglu_dx(be, n, gate, up, dy, add, got, got_up);
        ref->k.swiglu_dx(ref, n, gate, up, dy, add, want, want_up);
        same_values("swiglu_dx: d_gate", got, want, n, 2e-6);
        same_values("swiglu_dx: d_up", got_up, want_up, n, 2e-6);
    }
}

static void check_geglu(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(lengths); i++) {
        int64_t n = lengths[i];
        const real *gate = gates(n), *up = random_reals(n, 29);
        real *got = output(n), *want = output(n);
        be->k.geglu(be, n, gate, up, got);
        ref->k.geglu(ref, n, gate, up, want);
        same_values("geglu", got, want, n, 1e-6);
    }
    /* As PyTorch computes gelu(a, approximate="tanh") in double precision. */
    static const double inputs[] = {-12, -3, -0.5, 0, 0.25, 1, 2.5, 6, 12};
    static const double expected[] = {0,
                                      -0.0036373920817729943,
                                      -0.15428599017485606,
                                      0,
                                      0.149675350701685,
                                      0.8411919906082768,
                                      2.484915733910001,
                                      5.9999999999156035,
                                      12};
    enum { N = COUNT(inputs) };
    real gate[N], ones[N], want[N], *got = output(N);
    for (int i = 0; i < N; i++) {
        gate[i] = (real)inputs[i];
        ones[i] = 1;
        want[i] = (real)expected[i];
    }
    be->k.geglu(be, N, gate, ones, got);
    same_values("geglu, known values", got, want, N, 1e-6);
}

static void check_geglu_dx(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < 2 * COUNT(lengths); i++) {
        int64_t n = lengths[i / 2];
        bool add = i % 2;
        const real *gate = gates(n), *up = random_reals(n, 30), *dy = random_reals(n, 31);
        const real *before = random_reals(n, 32);
        real *got = add ? output_from(before, n) : output(n);
        real *want = add ? output_from(before, n) : output(n);
        real *got_up = add ? output_from(before, n) : output(n);
        real *want_up = add ? output_from(before, n) : output(n);
        be->k.geglu_dx(be, n, gate, up, dy, add, got, got_up);
        ref->k.geglu_dx(ref, n, gate, up, dy, add, want, want_up);
        same_values("geglu_dx: d_gate", got, want, n, 2e-6);
        same_values("geglu_dx: d_up", got_up, want_up, n, 2e-6);
    }
}

/* Ties both ways, the largest finite number, what rounds up to infinity, subnormals, no numbers. */
static const float hard_to_round[] = {
    1.00390625f, 1.01171875f, -1.00390625f, 3.3895314e38f, 3.4e38f,   -3.4e38f, 1e-39f,
    -1.4e-45f,   0.0f,        -0.0f,        INFINITY,      -INFINITY, NAN};

static void check_to_bf16(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(lengths); i++) {
        int64_t n = lengths[i];
        real *x = output_from(gates(n), n);
        for (int64_t j = 0; j < n && j < (int64_t)COUNT(hard_to_round); j++)
            x[n - 1 - j] = (real)hard_to_round[j];
        uint16_t *got = calloc((size_t)n + 1, sizeof *got);
        uint16_t *want = calloc((size_t)n + 1, sizeof *want);
        got[n] = 0xABCD;
        be->k.to_bf16(be, n, x, got);
        ref->k.to_bf16(ref, n, x, want);
        ck_assert_mem_eq(got, want, (size_t)n * sizeof *got);
        ck_assert_uint_eq(got[n], 0xABCD);
        free(got);
        free(want);
    }
}

static void check_from_bf16(icae_backend *be, icae_backend *ref) {
    const int64_t most = 131072; /* every number that there is, twice */
    uint16_t *x = calloc((size_t)most, sizeof *x);
    for (int64_t i = 0; i < most; i++)
        x[i] = (uint16_t)i;
    for (size_t i = 0; i <= COUNT(lengths); i++) {
        int64_t n = i < COUNT(lengths) ? lengths[i] : most;
        real *got = output(n), *want = output(n);
        be->k.from_bf16(be, n, x, got);
        ref->k.from_bf16(ref, n, x, want);
        ck_assert_mem_eq(got, want, (size_t)n * sizeof *got);
    }
    free(x);
}

static void check_accumulate(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(lengths); i++) {
        int64_t n = lengths[i];
        const real *x = gates(n), *before = random_reals(n, 33);
        real *got = output_from(before, n), *want = output_from(before, n);
        be->k.accumulate(be, n, x, got);
        ref->k.accumulate(ref, n, x, want);
        same_values("accumulate", got, want, n, 0);
    }
}

static void check_add_row(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(row_shapes); i++) {
        int64_t T = row_shapes[i][0], N = row_shapes[i][1];
        const real *b = random_reals(N, 34), *before = random_reals(T * N, 35);
        real *got = output_from(before, T * N), *want = output_from(before, T * N);
        be->k.add_row(be, T, N, b, got);
        ref->k.add_row(ref, T, N, b, want);
        same_values("add_row", got, want, T * N, 0);
        int64_t n_right = 0;
        for (int64_t j = 0; j < T * N; j++)
            n_right += want[j] == before[j] + b[j % N];
        ck_assert_int_eq(n_right, T * N);
    }
}

static void check_scale(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(lengths); i++) {
        int64_t n = lengths[i];
        const real *x = gates(n);
        real *got = output(n), *want = output(n), *in_place = output_from(x, n);
        be->k.scale(be, n, (real)0.3, x, got);
        ref->k.scale(ref, n, (real)0.3, x, want);
        be->k.scale(be, n, (real)0.3, in_place, in_place);
        same_values("scale", got, want, n, 0);
        same_values("scale in place", in_place, want, n, 0);
    }
}

static void check_dropout(icae_backend *be, icae_backend *ref) {
    static const int shapes[][2] = {{0, 5}, {1, 1}, {3, 6}, {5, 64}, {17, 67}, {90, 576}};
    static const double rates[] = {0, 0.05, 0.5, 0.999};
    for (size_t s = 0; s < COUNT(shapes) * COUNT(rates) * 2; s++) {
        int64_t T = shapes[s / 8][0], K = shapes[s / 8][1], n = T * K;
        double rate = rates[s / 2 % 4];
        bool add = s % 2;
        uint64_t keys[90];
        for (int t = 0; t < 90; t++)
            keys[t] = (uint64_t)t * 0x123456789ABCDEFu;
        const real *x = random_reals(n, 34), *before = random_reals(n, 35);
        real *got = add ? output_from(before, n) : output(n);
        real *want = add ? output_from(before, n) : output(n);
        be->k.dropout(be, T, K, x, 77, keys, rate, add, got);
        ref->k.dropout(ref, T, K, x, 77, keys, rate, add, want);
        same_values("dropout", got, want, n, 1e-6);
    }
}

/* ---- loss and optimizer ---- */

static void check_cross_entropy(icae_backend *be, icae_backend *ref) {
    static const int shapes[][2] = {{0, 9}, {1, 1}, {3, 17}, {5, 1000}, {7, 20011}};
    for (size_t s = 0; s < COUNT(shapes); s++) {
        int64_t n = shapes[s][0], V = shapes[s][1];
        const real *coefs = random_reals(n, 36);
        real *logits = random_reals(n * V, 37);
        int32_t targets[8];
        for (int64_t i = 0; i < n; i++) {
            targets[i] = (int32_t)((i * 7919 + V - 1) % V);
            for (int64_t v = 0; v < V; v++)
                logits[i * V + v] *= 12;
        }
        if (n >= 5) {
            logits[1 * V + 3] = (real)NAN;
            logits[2 * V + 4] = -(real)INFINITY;
            logits[3 * V + 5] = (real)3e4;
        }
        for (int with_gradient = 0; with_gradient < 2; with_gradient++) {
            real *got = output_from(logits, n * V), *want = output_from(logits, n * V);
            real *got_nll = output(n), *want_nll = output(n);
            const real *c = with_gradient ? coefs : NULL;
            be->k.cross_entropy(be, n, V, got, targets, c, got_nll);
            ref->k.cross_entropy(ref, n, V, want, targets, c, want_nll);
            same_values("cross_entropy's nll", got_nll, want_nll, n, 3e-6);
            same_values("cross_entropy's gradient", got, want, n * V, 1e-6);
        }
    }
}

static void check_sum_squares(icae_backend *be, icae_backend *ref) {
    for (size_t i = 0; i < COUNT(lengths); i++) {
        int64_t n = lengths[i];
        real *x = random_reals(n, 38);
        double got = be->k.sum_squares(be, n, x), want = ref->k.sum_squares(ref, n, x);
        ck_assert_msg(fabs(got - want) <= 1e-12 * want, "sum_squares: %.17g, expected %.17g",
                      got, want);
        if (n == 0) continue;
        x[n / 2] = (real)INFINITY;
        ck_assert(isinf(be->k.sum_squares(be, n, x)));
        x[n - 1] = (real)NAN;
        ck_assert(isnan(be->k.sum_squares(be, n, x)));
    }
}

static void check_adamw(icae_backend *be, icae_backend *ref) {
    const icae_adamw_step step = {.lr = 0.01,
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .eps = 1e-8,
                                  .weight_decay = 0.1,
                                  .correction1 = 1 - 0.9 * 0.9,
                                  .correction2 = 1 - 0.999 * 0.999,
                                  .gradient_scale = 0.7};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        int64_t n = lengths[i];
        const real *g = random_reals(n, 39), *start = random_reals(n, 40);
        real *squares = random_reals(n, 41);
        for (int64_t j = 0; j < n; j++)
            squares[j] *= squares[j];
        real *p = output_from(start, n), *m = output_from(g, n), *v = output_from(squares, n);
        real *p2 = output_from(start, n), *m2 = output_from(g, n),
             *v2 = output_from(squares, n);
        be->k.adamw(be, n, &step, p, g, m, v);
        ref->k.adamw(ref, n, &step, p2, g, m2, v2);
        same_values("adamw: p", p, p2, n, 1e-6);
        same_values("adamw: m", m, m2, n, 1e-6);
        same_values("adamw: v", v, v2, n, 1e-6);
    }
}

/* ---- the table ---- */

static const struct {
    const char *name;
    check *run;
} cases[] = {
    {"acquire", check_memory},
    {"release", check_memory},
    {"zero", check_memory},
    {"copy", check_memory},
    {"copy_in", check_memory},
    {"copy_out", check_memory},
    {"linear", check_linear},
    {"linear_few", check_linear_few},
    {"linear_reading", check_linear_reading},
    {"linear_dx", check_linear_dx},
    {"linear_bf16", check_linear_bf16},
    {"linear_bf16_dx", check_linear_bf16_dx},
    {"linear_few_bf16", check_linear_few_bf16},
    {"gather", check_gather},
    {"add_means", check_add_means},
    {"scatter_add", check_scatter_add},
    {"matmul", check_matmul},
    {"rmsnorm", check_rmsnorm},
    {"rmsnorm_dx", check_rmsnorm_dx},
    {"rope", check_rope},
    {"attention", check_attention},
    {"attention_dx", check_attention_dx},
    {"swiglu", check_swiglu},
    {"swiglu_dx", check_swiglu_dx},
    {"geglu", check_geglu},
    {"geglu_dx", check_geglu_dx},
    {"to_bf16", check_to_bf16},
    {"from_bf16", check_from_bf16},
    {"accumulate", check_accumulate},
    {"add_row", check_add_row},
    {"scale", check_scale},
    {"dropout", check_dropout},
    {"cross_entropy", check_cross_entropy},
    {"sum_squares", check_sum_squares},
    {"adamw", check_adamw},
};

START_TEST(every_kernel_equals_the_reference_at_every_level) {
    static const char *const rows[] = {
#define KERNEL(type, name, arguments) #name,
#include "backend/kernels.def"
#undef KERNEL
    };
    const char *row = rows[_i];
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
            icae_backend *be = test_backend(*level, n_threads),
                         *ref = test_backend("reference", 1);
            bool is_tested = false;
            for (size_t i = 0; i < COUNT(cases); i++) {
                if (strcmp(cases[i].name, row)) continue;
                is_tested = true;
                cases[i].run(be, ref);
            }
            ck_assert_msg(is_tested, "the kernel '%s' has no test case", row);
            icae_backend_free(be);
            icae_backend_free(ref);
        }
    }
}
END_TEST

enum {
#define KERNEL(type, name, arguments) ROW_##name,
#include "backend/kernels.def"
#undef KERNEL
    ROW_COUNT
};

Suite *kernels_suite(void);
Suite *kernels_suite(void) {
    Suite *suite = suite_create("kernels");
    TCase *tcase = test_case("kernels", 300);
    tcase_add_loop_test(tcase, every_kernel_equals_the_reference_at_every_level, 0, ROW_COUNT);
    suite_add_tcase(suite, tcase);
    return suite;
}
