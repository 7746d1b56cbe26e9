/* SPDX-License-Identifier: MIT */
/*
 * What the kernels promise beyond their values: a row's bits are the same in every batch, at every
 * place and beside any neighbours (NaN included), with any number of threads.
 *
 * For the row tests each kernel is seen as a function of rows: everything a row needs stands side by
 * side in one input row, everything that comes of it in one output row.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_support.h"
#include "suites.h"

enum { BATCH = 203 };

typedef struct row_kernel {
    const char *name;
    int64_t in, out; /* widths of a row */
    icae_dtype dtype;
    /* y [T,out] from x [T,in] */
    void (*run)(icae_backend *be, const struct row_kernel *k, int64_t T, const real *x,
                real *y);
} row_kernel;

/* Columns start .. start+n-1 of x [T,width], on their own. */
static real *columns(const real *x, int64_t T, int64_t width, int64_t start, int64_t n) {
    real *part = output(T * n);
    for (int64_t t = 0; t < T; t++)
        memcpy(part + t * n, x + t * width + start, (size_t)n * sizeof *part);
    return part;
}

static void put_columns(const real *part, int64_t T, int64_t width, int64_t start, int64_t n,
                        real *y) {
    for (int64_t t = 0; t < T; t++)
        memcpy(y + t * width + start, part + t * n, (size_t)n * sizeof *part);
}

static void run_linear(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                       real *y) {
    icae_matrix w = random_matrix(k->dtype, k->out, k->in, 1);
    be->k.linear(be, T, k->out, k->in, x, &w, false, y);
    be->k.linear(be, T, k->out, k->in, x, &w, true, y);
    free((char *)w.data - 1);
}

static void run_linear_few(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                           real *y) {
    icae_matrix w = random_matrix(k->dtype, k->out, k->in, 1);
    be->k.linear_few(be, T, k->out, k->in, x, &w, false, y);
    be->k.linear_few(be, T, k->out, k->in, x, &w, true, y);
    free((char *)w.data - 1);
}

static void run_linear_reading(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                               real *y) {
    icae_matrix w = random_matrix(k->dtype, k->out, k->in, 1);
    be->k.linear_reading(be, T, k->out, k->in, x, &w, false, y);
    be->k.linear_reading(be, T, k->out, k->in, x, &w, true, y);
    free((char *)w.data - 1);
}

static void run_linear_dx(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                          real *y) {
    icae_matrix w = random_matrix(k->dtype, k->in, k->out, 1);
    be->k.linear_dx(be, T, k->in, k->out, x, &w, false, y);
    be->k.linear_dx(be, T, k->in, k->out, x, &w, true, y);
    free((char *)w.data - 1);
}

static void run_linear_bf16(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                            real *y) {
    icae_matrix w = random_matrix(k->dtype, k->out, k->in, 1);
    be->k.linear_bf16(be, T, k->out, k->in, x, &w, false, y);
    be->k.linear_bf16(be, T, k->out, k->in, x, &w, true, y);
    free((char *)w.data - 1);
}

static void run_linear_few_bf16(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                                real *y) {
    icae_matrix w = random_matrix(k->dtype, k->out, k->in, 1);
    be->k.linear_few_bf16(be, T, k->out, k->in, x, &w, false, y);
    be->k.linear_few_bf16(be, T, k->out, k->in, x, &w, true, y);
    free((char *)w.data - 1);
}

static void run_linear_bf16_dx(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                               real *y) {
    icae_matrix w = random_matrix(k->dtype, k->in, k->out, 1);
    be->k.linear_bf16_dx(be, T, k->in, k->out, x, &w, false, y);
    be->k.linear_bf16_dx(be, T, k->in, k->out, x, &w, true, y);
    free((char *)w.data - 1);
}

/* y: the norm, then r */
static void run_rmsnorm(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                        real *y) {
    int64_t D = k->in;
    real *w = random_reals(D, 2), *value = output(T * D), *r = output(T);
    be->k.rmsnorm(be, T, D, x, w, (real)1e-5, value, r);
    put_columns(value, T, k->out, 0, D, y);
    put_columns(r, T, k->out, D, 1, y);
    free(w), free(value), free(r);
}

/* x: x, dy, r */
static void run_rmsnorm_dx(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                           real *y) {
    int64_t D = k->out;
    real *w = random_reals(D, 2), *row = columns(x, T, k->in, 0, D);
    real *dy = columns(x, T, k->in, D, D), *r = columns(x, T, k->in, 2 * D, 1);
    be->k.rmsnorm_dx(be, T, D, row, w, r, dy, false, y);
    be->k.rmsnorm_dx(be, T, D, row, w, r, dy, true, y);
    free(w), free(row), free(dy), free(r);
}

/* x: angles, then three heads */
static void run_rope(icae_backend *be, const row_kernel *k, int64_t T, const real *x, real *y) {
    int64_t E = k->out / 3;
    real *angles = columns(x, T, k->in, 0, E), *heads = columns(x, T, k->in, E, 3 * E);
    be->k.rope(be, T, 3, E, angles, false, heads);
    memcpy(y, heads, (size_t)(T * k->out) * sizeof *y);
    free(angles), free(heads);
}

static void run_swiglu(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                       real *y) {
    int64_t D = k->out;
    real *gate = columns(x, T, k->in, 0, D), *up = columns(x, T, k->in, D, D);
    be->k.swiglu(be, T * D, gate, up, y);
    free(gate), free(up);
}

static void run_swiglu_dx(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                          real *y) {
    int64_t D = k->out / 2;
    real *gate = columns(x, T, k->in, 0, D), *up = columns(x, T, k->in, D, D);
    real *dy = columns(x, T, k->in, 2 * D, D), *d_gate = output(T * D), *d_up = output(T * D);
    be->k.swiglu_dx(be, T * D, gate, up, dy, false, d_gate, d_up);
    be->k.swiglu_dx(be, T * D, gate, up, dy, true, d_gate, d_up);
    put_columns(d_gate, T, k->out, 0, D, y);
    put_columns(d_up, T, k->out, D, D, y);
    free(gate), free(up), free(dy), free(d_gate), free(d_up);
}

static void run_geglu(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                      real *y) {
    int64_t D = k->out;
    real *gate = columns(x, T, k->in, 0, D), *up = columns(x, T, k->in, D, D);
    be->k.geglu(be, T * D, gate, up, y);
    free(gate), free(up);
}

static void run_geglu_dx(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                         real *y) {
    int64_t D = k->out / 2;
    real *gate = columns(x, T, k->in, 0, D), *up = columns(x, T, k->in, D, D);
    real *dy = columns(x, T, k->in, 2 * D, D), *d_gate = output(T * D), *d_up = output(T * D);
    be->k.geglu_dx(be, T * D, gate, up, dy, false, d_gate, d_up);
    be->k.geglu_dx(be, T * D, gate, up, dy, true, d_gate, d_up);
    put_columns(d_gate, T, k->out, 0, D, y);
    put_columns(d_up, T, k->out, D, D, y);
    free(gate), free(up), free(dy), free(d_gate), free(d_up);
}

/* x: logits, coefficient; y: their gradient, nll. The target is a function of the row's own data. */
static void run_cross_entropy(icae_backend *be, const row_kernel *k, int64_t T, const real *x,
                              real *y) {
    int64_t V = k->in - 1;
    real *logits = columns(x, T, k->in, 0, V), *coefs = columns(x, T, k->in, V, 1);
    real *nll = output(T);
    int32_t *targets = calloc((size_t)T + 1, sizeof *targets);
    ck_assert_ptr_nonnull(targets);
    for (int64_t t = 0; t < T; t++)
        targets[t] = x[t * k->in] > 0 ? 3 : (int32_t)V - 1;
    be->k.cross_entropy(be, T, V, logits, targets, coefs, nll);
    put_columns(logits, T, k->out, 0, V, y);
    put_columns(nll, T, k->out, V, 1, y);
    free(logits), free(coefs), free(nll), free(targets);
}

static const row_kernel row_kernels[] = {
    {"linear F32", 70, 45, ICAE_DTYPE_F32, run_linear},
    {"linear F64", 70, 45, ICAE_DTYPE_F64, run_linear},
    {"linear F16", 70, 45, ICAE_DTYPE_F16, run_linear},
    {"linear BF16", 64, 32, ICAE_DTYPE_BF16, run_linear},
    {"linear Q8_0", 96, 64, ICAE_DTYPE_Q8_0, run_linear},
    {"linear Q4_0", 1088, 40, ICAE_DTYPE_Q4_0, run_linear},
    {"linear Q4_1", 1088, 96, ICAE_DTYPE_Q4_1, run_linear},
    {"linear Q4_K", 1280, 40, ICAE_DTYPE_Q4_K, run_linear},
    {"linear_few F32", 70, 45, ICAE_DTYPE_F32, run_linear_few},
    {"linear_few BF16", 576, 300, ICAE_DTYPE_BF16, run_linear_few},
    {"linear_few Q8_0", 96, 64, ICAE_DTYPE_Q8_0, run_linear_few},
    {"linear_few Q4_1", 576, 300, ICAE_DTYPE_Q4_1, run_linear_few},
    {"linear_few Q4_0", 2144, 21, ICAE_DTYPE_Q4_0, run_linear_few},
    {"linear_few Q4_K", 512, 37, ICAE_DTYPE_Q4_K, run_linear_few},
    {"linear_few Q5_K", 256, 35, ICAE_DTYPE_Q5_K, run_linear_few},
    {"linear_few Q6_K", 512, 70, ICAE_DTYPE_Q6_K, run_linear_few},
    {"linear_reading Q8_0", 96, 64, ICAE_DTYPE_Q8_0, run_linear_reading},
    {"linear_reading Q4_0", 2144, 40, ICAE_DTYPE_Q4_0, run_linear_reading},
    {"linear_reading Q4_1", 1088, 96, ICAE_DTYPE_Q4_1, run_linear_reading},
    {"linear_reading Q5_K", 256, 35, ICAE_DTYPE_Q5_K, run_linear_reading},
    {"linear_dx F32", 70, 45, ICAE_DTYPE_F32, run_linear_dx},
    {"linear_dx Q8_0", 1050, 64, ICAE_DTYPE_Q8_0, run_linear_dx},
    {"linear_dx Q4_1", 75, 96, ICAE_DTYPE_Q4_1, run_linear_dx},
    {"linear_dx Q5_K", 75, 256, ICAE_DTYPE_Q5_K, run_linear_dx},
    {"linear_bf16 F32", 71, 45, ICAE_DTYPE_F32, run_linear_bf16},
    {"linear_bf16 Q4_1", 1088, 96, ICAE_DTYPE_Q4_1, run_linear_bf16},
    {"linear_few_bf16 F32", 71, 45, ICAE_DTYPE_F32, run_linear_few_bf16},
    {"linear_few_bf16 Q4_1", 576, 300, ICAE_DTYPE_Q4_1, run_linear_few_bf16},
    {"linear_few_bf16 Q6_K", 512, 70, ICAE_DTYPE_Q6_K, run_linear_few_bf16},
    {"linear_bf16_dx F32", 71, 45, ICAE_DTYPE_F32, run_linear_bf16_dx},
    {"linear_bf16_dx Q8_0", 1050, 64, ICAE_DTYPE_Q8_0, run_linear_bf16_dx},
    {"rmsnorm", 205, 206, ICAE_DTYPE_F32, run_rmsnorm},
    {"rmsnorm_dx", 2 * 205 + 1, 205, ICAE_DTYPE_F32, run_rmsnorm_dx},
    {"rope", 4 * 54, 3 * 54, ICAE_DTYPE_F32, run_rope},
    {"swiglu", 2 * 197, 197, ICAE_DTYPE_F32, run_swiglu},
    {"swiglu_dx", 3 * 197, 2 * 197, ICAE_DTYPE_F32, run_swiglu_dx},
    {"geglu", 2 * 197, 197, ICAE_DTYPE_F32, run_geglu},
    {"geglu_dx", 3 * 197, 2 * 197, ICAE_DTYPE_F32, run_geglu_dx},
    {"cross_entropy", 2002, 2002, ICAE_DTYPE_F32, run_cross_entropy},
};

/* Bits of the batch's rows again: alone, and at other places in batches of other sizes whose other
 * rows are NaN. */
static void rows_stand_alone(icae_backend *be, const row_kernel *k) {
    static const int batches[][2] = {{1, 0},  {2, 1},  {3, 0},   {5, 2},    {13, 12},
                                     {16, 3}, {31, 7}, {97, 95}, {203, 10}, {203, 202}};
    real *x = random_reals(BATCH * k->in, 3), *y = output(BATCH * k->out);
    k->run(be, k, BATCH, x, y);
    for (size_t b = 0; b < COUNT(batches); b++) {
        int64_t T = batches[b][0], place = batches[b][1];
        for (int64_t t = (int64_t)b; t < BATCH; t += 29) {
            real *other = output(T * k->in), *result = output(T * k->out);
            memcpy(other + place * k->in, x + t * k->in, (size_t)k->in * sizeof *x);
            k->run(be, k, T, other, result);
            same_bits(k->name, result + place * k->out, y + t * k->out, k->out);
            free(other), free(result);
        }
    }
    real *again = output(BATCH * k->out);
    k->run(be, k, BATCH, x, again);
    same_bits(k->name, again, y, BATCH * k->out);
    free(x), free(y), free(again);
}

START_TEST(a_row_has_the_same_bits_in_every_batch) {
    const char *const *levels = icae_backend_levels();
    for (int l = 1; levels[l]; l++) {
        icae_backend *be = test_backend(levels[l], 3);
        for (size_t i = 0; i < COUNT(row_kernels); i++)
            rows_stand_alone(be, &row_kernels[i]);
        icae_backend_free(be);
    }
}
END_TEST

START_TEST(the_number_of_threads_changes_no_bit) {
    const char *const *levels = icae_backend_levels();
    for (int l = 1; levels[l]; l++) {
        for (size_t i = 0; i < COUNT(row_kernels); i++) {
            const row_kernel *k = &row_kernels[i];
            enum { T = 450 };
            real *x = random_reals(T * k->in, 4),
                 *y[2] = {output(T * k->out), output(T * k->out)};
            for (int many = 0; many < 2; many++) {
                icae_backend *be = test_backend(levels[l], many ? 3 : 1);
                k->run(be, k, T, x, y[many]);
                icae_backend_free(be);
            }
            same_bits(k->name, y[1], y[0], T * k->out);
            free(x), free(y[0]), free(y[1]);
        }
    }
}
END_TEST

/* ---- attention: a span is to a pack what a row is to a batch ---- */

enum { HEADS = 6, KV_HEADS = 2, WIDTH = 40, QUERIES = 75, KEYS = 110 };

typedef struct one_span {
    real *out, *lse, *dq, *d_keys, *d_values;
} one_span;

/* The last n_queries queries of the one span that all attention tests share, as span number `place` of
 * a pack whose other spans are NaN. */
static one_span attend(icae_backend *be, int place, int n_queries, int n_keys, int window) {
    enum { Q_ROW = HEADS * WIDTH, KV_ROW = KV_HEADS * WIDTH, OTHERS = 37 };
    const icae_attention_shape shape = {HEADS, KV_HEADS, WIDTH, (real)0.2, window};
    real *all_q = random_reals(KEYS * Q_ROW, 5), *keys = random_reals(KEYS * KV_ROW, 6);
    real *values = random_reals(KEYS * KV_ROW, 7), *all_d = random_reals(KEYS * Q_ROW, 8);
    int64_t rows = n_queries + (int64_t)place * OTHERS, first = n_keys - n_queries;
    real *q = output(rows * Q_ROW), *d_out = output(rows * Q_ROW);
    real *mine = q + (rows - n_queries) * Q_ROW;
    memcpy(mine, all_q + first * Q_ROW, (size_t)n_queries * Q_ROW * sizeof *q);
    memcpy(d_out + (mine - q), all_d + first * Q_ROW, (size_t)n_queries * Q_ROW * sizeof *q);
    one_span got = {output(rows * Q_ROW), output(rows * HEADS), output(rows * Q_ROW),
                    output(n_keys * KV_ROW), output(n_keys * KV_ROW)};
    real *nans = output(OTHERS * KV_ROW), *lost = output(2 * OTHERS * KV_ROW * 8);
    icae_attention_span spans[8];
    ck_assert_int_lt(place, 8);
    for (int s = 0; s < place; s++) {
        real *to = lost + s * 2 * OTHERS * KV_ROW;
        spans[s] = (icae_attention_span){s * OTHERS,          OTHERS, OTHERS, nans, nans, to,
                                         to + OTHERS * KV_ROW};
    }
    spans[place] = (icae_attention_span){rows - n_queries, n_queries,  n_keys,      keys,
                                         values,           got.d_keys, got.d_values};
    be->k.attention(be, &shape, place + 1, spans, q, got.out, got.lse);
    be->k.attention_dx(be, &shape, place + 1, spans, q, got.out, got.lse, d_out, false, got.dq);
    got.out += (rows - n_queries) * Q_ROW;
    got.dq += (rows - n_queries) * Q_ROW;
    got.lse += (rows - n_queries) * HEADS;
    return got;
}

START_TEST(a_span_has_the_same_bits_in_every_pack) {
    enum { Q_ROW = HEADS * WIDTH, KV_ROW = KV_HEADS * WIDTH };
    const char *const *levels = icae_backend_levels();
    for (int l = 1; levels[l]; l++) {
        for (int window = 0; window <= 90; window += 30) {
            icae_backend *one = test_backend(levels[l], 1), *many = test_backend(levels[l], 3);
            one_span want = attend(one, 0, QUERIES, KEYS, window);
            for (int place = 0; place < 6; place++) {
                one_span got = attend(many, place, QUERIES, KEYS, window);
                same_bits("out", got.out, want.out, QUERIES * Q_ROW);
                same_bits("lse", got.lse, want.lse, QUERIES * HEADS);
                same_bits("dq", got.dq, want.dq, QUERIES * Q_ROW);
                same_bits("d_keys", got.d_keys, want.d_keys, KEYS * KV_ROW);
                same_bits("d_values", got.d_values, want.d_values, KEYS * KV_ROW);
            }
            /* Token by token from a cache, or in pieces: the bits of the whole. */
            for (int end = KEYS - QUERIES + 1; end <= KEYS; end += 6) {
                for (int n = 1; n <= end - (KEYS - QUERIES); n += 7) {
                    one_span got = attend(many, 2, n, end, window);
                    int64_t row = end - n - (KEYS - QUERIES);
                    same_bits("out of a piece", got.out, want.out + row * Q_ROW, n * Q_ROW);
                    same_bits("lse of a piece", got.lse, want.lse + row * HEADS, n * HEADS);
                    same_bits("dq of a piece", got.dq, want.dq + row * Q_ROW, n * Q_ROW);
                }
            }
            icae_backend_free(one);
            icae_backend_free(many);
        }
    }
}
END_TEST

START_TEST(a_nan_in_a_later_token_stays_there) {
    enum { N = 90, E = 32, BAD = 50 };
    const icae_attention_shape shape = {2, 1, E, (real)0.3, 0};
    const char *const *levels = icae_backend_levels();
    for (int l = 1; levels[l]; l++) {
        icae_backend *be = test_backend(levels[l], 1);
        real *q = random_reals(N * 2 * E, 9), *keys = random_reals(N * E, 10);
        real *values = random_reals(N * E, 11), *out = output(N * 2 * E), *lse = output(N * 2);
        keys[BAD * E] = values[BAD * E + 1] = (real)NAN;
        icae_attention_span span = {0, N, N, keys, values, NULL, NULL};
        be->k.attention(be, &shape, 1, &span, q, out, lse);
        for (int64_t i = 0; i < BAD * 2 * E; i++)
            ck_assert_msg(!isnan(out[i]), "query %d sees a later NaN", (int)(i / (2 * E)));
        for (int64_t i = BAD * 2; i < N * 2; i++)
            ck_assert_msg(isnan(lse[i]), "row %d does not see an earlier NaN", (int)i);
        icae_backend_free(be);
    }
}
END_TEST
SUITE_OF(kernel_rows, 300, a_row_has_the_same_bits_in_every_batch,
         the_number_of_threads_changes_no_bit, a_span_has_the_same_bits_in_every_pack,
         a_nan_in_a_later_token_stays_there)
