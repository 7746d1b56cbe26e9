/* SPDX-License-Identifier: MIT */
/* What must hold of the kernels at every level whatever the reference says: identities, and what is no number. */
#include <math.h>
#include <stdlib.h>

#include "icae/half.h"
#include "kernel_support.h"
#include "suites.h"

START_TEST(attention_over_equal_values_gives_that_value) {
    enum { N = 67, E = 24 };
    const icae_attention_shape shape = {4, 2, E, (real)2, 20};
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 2);
        real *q = random_reals(N * 4 * E, 12), *keys = random_reals(N * 2 * E, 13);
        real *values = output(N * 2 * E), *want = output(N * 4 * E);
        for (int64_t i = 0; i < N * 2 * E; i++)
            values[i] = (real)0.75;
        for (int64_t i = 0; i < N * 4 * E; i++)
            want[i] = (real)0.75;
        real *out = output(N * 4 * E), *lse = output(N * 4);
        icae_attention_span span = {0, N, N, keys, values, NULL, NULL};
        be->k.attention(be, &shape, 1, &span, q, out, lse);
        same_values(*level, out, want, N * 4 * E, 1e-6);
        icae_backend_free(be);
    }
}
END_TEST

/* Queries of plus and minus 1, keys of plus and minus `size` in halves: scores are +-E size scale. */
START_TEST(attention_with_huge_scores_picks_the_largest) {
    enum { E = 32, N_KEYS = 40 };
    static const double sizes[] = {1e6, 3e9, 1.1e12, 7e23, 1e36};
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 1);
        for (size_t s = 0; s < 2 * COUNT(sizes); s++) {
            const double size = sizes[s / 2] * (s % 2 ? -1 : 1);
            const icae_attention_shape shape = {1, 1, E, (real)(size < 0 ? -0.17 : 0.17), 0};
            real query[E], keys[N_KEYS * E], values[N_KEYS * E], want[E];
            for (int e = 0; e < E; e++) {
                query[e] = 1;
                want[e] = (real)2.5; /* of keys 3 and 4, which tie */
            }
            for (int i = 0; i < N_KEYS * E; i++) {
                const int j = i / E;
                keys[i] = (real)(j == 3 || j == 4 ? size : j % 2 ? -size : size / 2);
                values[i] = (real)(j - 1);
            }
            const icae_attention_span span = {0, 1, N_KEYS, keys, values, NULL, NULL};
            real *out = output(E), *lse = output(1);
            be->k.attention(be, &shape, 1, &span, query, out, lse);
            same_values("attention with huge scores", out, want, E, 1e-6);
            const real log_sum = (real)(0.17 * E * fabs(size));
            ck_assert_msg(fabs((double)(*lse / log_sum) - 1) < 1e-6, "%g at %s", size, *level);
        }
        icae_backend_free(be);
    }
}
END_TEST

START_TEST(rope_and_its_inverse_restore) {
    enum { T = 50, H = 3, E = 64 };
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 2);
        real *angles = output(T * E), *x = random_reals(T * H * E, 14);
        for (int t = 0; t < T; t++) {
            for (int i = 0; i < E / 2; i++) {
                angles[t * E + i] = (real)cos(t * pow(1e4, -2.0 * i / E));
                angles[t * E + E / 2 + i] = (real)sin(t * pow(1e4, -2.0 * i / E));
            }
        }
        real *turned = output_from(x, T * H * E);
        be->k.rope(be, T, H, E, angles, false, turned);
        ck_assert(fabs((double)(turned[T * H * E - E] - x[T * H * E - E])) > 1e-3);
        be->k.rope(be, T, H, E, angles, true, turned);
        same_values(*level, turned, x, T * H * E, 1e-6);
        icae_backend_free(be);
    }
}
END_TEST

/* A row with a value that is no number has no number in its result; one of tiny values or zeros has zeros
 * or less than anybody would notice, and its neighbours notice neither. */
START_TEST(what_is_no_number_comes_through_products) {
    enum { T = 5, N = 9 };
    static const real odd[T] = {NAN, INFINITY, 0, (real)1e-38, 1};
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 1);
        for (int dtype = 0; dtype < ICAE_DTYPE_COUNT; dtype++) {
            const int64_t K = 768, blocks = K / 32;
            icae_matrix w = random_matrix((icae_dtype)dtype, N, K, 8);
            for (int64_t place = 0; place < 2 * K; place += blocks + 1) {
                real *x = random_reals(T * K, 9), *y = output(T * N);
                for (int64_t t = 0; t < T; t++) {
                    for (int64_t k = 0; k < K && (t == 2 || t == 3); k++)
                        x[t * K + k] *= odd[t];
                    if (t < 2) x[t * K + place % K] = odd[t];
                }
                (place < K ? be->k.linear_few : be->k.linear_reading)(be, T, N, K, x, &w, false,
                                                                      y);
                for (int64_t i = 0; i < T * N; i++) {
                    if (i < 2 * N)
                        ck_assert_msg(!isfinite(y[i]), "%s %s: %g", *level,
                                      icae_dtype_describe((icae_dtype)dtype)->name,
                                      (double)y[i]);
                    else if (i < 4 * N)
                        ck_assert_double_le(fabs((double)y[i]), 1e-33);
                    else
                        ck_assert(isfinite(y[i]));
                }
                free(x), free(y);
            }
            free((char *)w.data - 1);
        }
        icae_backend_free(be);
    }
}
END_TEST

START_TEST(products_with_the_identity_copy) {
    enum { T = 29, D = 70 };
    static float identity[D * D];
    for (int d = 0; d < D; d++)
        identity[d * D + d] = 1;
    icae_matrix w = icae_matrix_of(ICAE_DTYPE_F32, D, D, identity);
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 2);
        const real *x = random_reals(T * D, 15);
        real *y = output(T * D), *few = output(7 * D), *back = output(T * D);
        be->k.linear(be, T, D, D, x, &w, false, y);
        be->k.linear_few(be, 7, D, D, x, &w, false, few);
        be->k.linear_dx(be, T, D, D, x, &w, false, back);
        real *half = output(T * D), *half_back = output(T * D), *nearest = output(T * D);
        be->k.linear_bf16(be, T, D, D, x, &w, false, half);
        be->k.linear_bf16_dx(be, T, D, D, x, &w, false, half_back);
        real *half_few = output(11 * D);
        be->k.linear_few_bf16(be, 11, D, D, x, &w, false, half_few);
        for (int i = 0; i < T * D; i++)
            nearest[i] = (real)icae_bf16_to_f32(icae_f32_to_bf16((float)x[i]));
        same_values("linear_bf16", half, nearest, T * D, 0);
        same_values("linear_bf16_dx", half_back, nearest, T * D, 0);
        same_values("linear_few_bf16", half_few, nearest, 11 * D, 0);
        same_values("linear", y, x, T * D, 0);
        same_values("linear_few", few, x, 7 * D, 0);
        same_values("linear_dx", back, x, T * D, 0);
        icae_backend_free(be);
    }
}
END_TEST

START_TEST(gradient_of_cross_entropy_sums_to_zero) {
    enum { N = 4, V = 5003 };
    const int32_t targets[N] = {0, 17, 5002, 300};
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 2);
        real *logits = random_reals(N * V, 16), *nll = output(N), coefs[N] = {1, 1, 1, 1};
        be->k.cross_entropy(be, N, V, logits, targets, coefs, nll);
        for (int i = 0; i < N; i++) {
            double sum = 0;
            for (int v = 0; v < V; v++)
                sum += (double)logits[i * V + v];
            ck_assert_msg(fabs(sum) < 2e-6, "row %d sums to %g at %s", i, sum, *level);
        }
        icae_backend_free(be);
    }
}
END_TEST

/* A softmax knows differences alone: beside such a logit the log of the sum is less than double's last bit. */
START_TEST(cross_entropy_of_equal_logits_is_the_log_of_their_number_however_large_they_are) {
    enum { V = 37, AT = 5 };
    static const double sizes[] = {0, 30, -1e17, 1e30, -3e38, 3e38};
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 1);
        for (size_t s = 0; s < COUNT(sizes); s++) {
            const int32_t target = AT;
            real *logits = output(V), *nll = output(1), coef = 2, want[V],
                 log_of_v = (real)log(V);
            for (int v = 0; v < V; v++) {
                logits[v] = (real)sizes[s];
                want[v] = (real)(2.0 / V - (v == AT ? 2 : 0));
            }
            be->k.cross_entropy(be, 1, V, logits, &target, &coef, nll);
            same_values("nll of equal logits", nll, &log_of_v, 1, 1e-6);
            same_values("gradient of equal logits", logits, want, V, 1e-6);
        }
        icae_backend_free(be);
    }
}
END_TEST

START_TEST(dropout_keeps_the_mean_and_its_share) {
    enum { T = 64, K = 512 };
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *be = test_backend(*level, 2);
        real *x = output(T * K), *y = output(T * K);
        uint64_t keys[T];
        for (int t = 0; t < T; t++)
            keys[t] = (uint64_t)t;
        for (int i = 0; i < T * K; i++)
            x[i] = 1;
        be->k.dropout(be, T, K, x, 5, keys, 0.25, false, y);
        double sum = 0;
        int kept = 0;
        for (int i = 0; i < T * K; i++) {
            sum += (double)y[i];
            kept += y[i] != 0;
        }
        ck_assert(fabs(sum / (T * K) - 1) < 0.02);
        ck_assert(fabs((double)kept / (T * K) - 0.75) < 0.015);
        icae_backend_free(be);
    }
}
END_TEST

/* Scratch is for every thread: in it the whole of a matrix would be there as often. */
START_TEST(the_reference_widens_a_matrix_once_for_all_threads) {
    enum { T = 3, N = 40, K = 64 };
    icae_backend *be = test_backend("reference", 7);
    const icae_matrix w = random_matrix(ICAE_DTYPE_Q4_0, N, K, 50);
    const real *x = random_reals(T * K, 51), *dy = random_reals(T * N, 52);
    real *y = output(T * N), *dx = output(T * K);
    be->k.linear(be, T, N, K, x, &w, false, y);
    be->k.linear_dx(be, T, N, K, dy, &w, false, dx);
    be->k.linear_bf16(be, T, N, K, x, &w, false, y);
    be->k.linear_bf16_dx(be, T, N, K, dy, &w, false, dx);
    ck_assert_uint_eq(be->scratch_bytes, 0);
    ck_assert_uint_eq(icae_pool_buffers_out(be->pool), 0);
    ck_assert_uint_lt(icae_pool_bytes_peak(be->pool), 2 * N * K * sizeof *y);
    icae_backend_free(be);
}
END_TEST

SUITE_OF(kernel_identities, 300, attention_over_equal_values_gives_that_value,
         attention_with_huge_scores_picks_the_largest, rope_and_its_inverse_restore,
         what_is_no_number_comes_through_products, products_with_the_identity_copy,
         gradient_of_cross_entropy_sums_to_zero,
         cross_entropy_of_equal_logits_is_the_log_of_their_number_however_large_they_are,
         dropout_keeps_the_mean_and_its_share,
         the_reference_widens_a_matrix_once_for_all_threads)
