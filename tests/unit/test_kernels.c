/* SPDX-License-Identifier: MIT */
/*
 * Every row of kernels.def at every level of this processor, against the reference level.
 *
 * The list of rows is made from kernels.def itself: a row without a case in the table below fails the
 * suite. The cases of products and of attention are in kernel_matrices.c and kernel_attention.c. What a
 * kernel promises beyond its values (rows that do not depend on each other, identities) stands in
 * test_kernel_rows.c and test_kernel_identities.c.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_cases.h"
#include "kernel_support.h"
#include "suites.h"

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
    kernel_check *run;
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
