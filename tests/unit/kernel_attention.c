/* SPDX-License-Identifier: MIT */
/* Attention and its gradient over packs of spans: grouped heads, windows, spans without queries. */
#include <math.h>

#include "kernel_cases.h"
#include "kernel_support.h"

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

void check_attention(icae_backend *be, icae_backend *ref) {
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

void check_attention_dx(icae_backend *be, icae_backend *ref) {
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
