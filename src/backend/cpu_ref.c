/* SPDX-License-Identifier: MIT */
/*
 * The reference of every kernel: plain loops that follow the formulas of kernels.def line by line,
 * on one thread. It is the oracle that every other table is compared with, so it stays simple for
 * ever: no blocking, no vector types, sums in double.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu_ref.h"
#include "icae/half.h"
#include "icae/rng.h"

/* ---- memory ---- */

static void *ref_acquire(icae_backend *be, size_t bytes) {
    return icae_pool_acquire(be->pool, bytes);
}

static void ref_release(icae_backend *be, void *memory) {
    icae_pool_release(be->pool, memory);
}

static void ref_zero(icae_backend *be, void *memory, size_t bytes) {
    (void)be;
    if (bytes) memset(memory, 0, bytes);
}

static void ref_copy(icae_backend *be, void *to, const void *from, size_t bytes) {
    (void)be;
    if (bytes) memcpy(to, from, bytes);
}

/* ---- matrices ---- */

static const unsigned char *row_of(const icae_matrix *w, int64_t row) {
    assert(row >= 0 && row < w->rows);
    return (const unsigned char *)w->data + (size_t)row * w->row_bytes;
}

/* The whole of w as real, to be released: clear rather than lean, as nobody waits for the oracle, but once and
 * not once for every thread, as scratch would be. NULL when memory ends, as all that follow pass on. */
static icae_real *widened(icae_backend *be, const icae_matrix *w) {
    icae_real *wide = icae_backend_work_space(be, (size_t)(w->rows * w->cols) * sizeof *wide);
    for (int64_t n = 0; wide && n < w->rows; n++) {
        icae_dtype_widen(w->dtype, row_of(w, n), w->cols, wide + n * w->cols);
    }
    return wide;
}

static void multiply(int64_t T, int64_t N, int64_t K, const icae_real *x, const icae_real *w,
                     bool add, icae_real *y) {
    if (!x || !w) return;
    for (int64_t t = 0; t < T; t++) {
        for (int64_t n = 0; n < N; n++) {
            double sum = add ? (double)y[t * N + n] : 0.0;
            for (int64_t k = 0; k < K; k++)
                sum += (double)x[t * K + k] * (double)w[n * K + k];
            y[t * N + n] = (icae_real)sum;
        }
    }
}

static void multiply_dx(int64_t T, int64_t N, int64_t K, const icae_real *dy,
                        const icae_real *w, bool add, icae_real *dx) {
    if (!dy || !w) return;
    for (int64_t t = 0; t < T; t++) {
        for (int64_t k = 0; k < K; k++) {
            double sum = add ? (double)dx[t * K + k] : 0.0;
            for (int64_t n = 0; n < N; n++)
                sum += (double)dy[t * N + n] * (double)w[n * K + k];
            dx[t * K + k] = (icae_real)sum;
        }
    }
}

static void ref_linear(icae_backend *be, int64_t T, int64_t N, int64_t K, const icae_real *x,
                       const icae_matrix *w, bool add, icae_real *y) {
    assert(w->rows == N && w->cols == K);
    icae_real *wide = widened(be, w);
    multiply(T, N, K, x, wide, add, y);
    be->k.release(be, wide);
}

static void ref_linear_dx(icae_backend *be, int64_t T, int64_t N, int64_t K,
                          const icae_real *dy, const icae_matrix *w, bool add, icae_real *dx) {
    assert(w->rows == N && w->cols == K);
    icae_real *wide = widened(be, w);
    multiply_dx(T, N, K, dy, wide, add, dx);
    be->k.release(be, wide);
}

static void round_all(icae_real *x, int64_t n) {
    for (int64_t i = 0; x && i < n; i++)
        x[i] = icae_bf16_to_f32(icae_f32_to_bf16((float)x[i]));
}

/* x as the nearest bfloat16 numbers, to be released; NULL when memory ends. */
static icae_real *rounded(icae_backend *be, int64_t n, const icae_real *x) {
    icae_real *nearest = icae_backend_work_space(be, (size_t)n * sizeof *nearest);
    if (nearest && n) memcpy(nearest, x, (size_t)n * sizeof *nearest);
    round_all(nearest, n);
    return nearest;
}

static void ref_linear_bf16(icae_backend *be, int64_t T, int64_t N, int64_t K,
                            const icae_real *x, const icae_matrix *w, bool add, icae_real *y) {
    assert(w->rows == N && w->cols == K);
    icae_real *x16 = rounded(be, T * K, x), *w16 = widened(be, w);
    round_all(w16, N * K);
    multiply(T, N, K, x16, w16, add, y);
    be->k.release(be, x16);
    be->k.release(be, w16);
}

static void ref_linear_bf16_dx(icae_backend *be, int64_t T, int64_t N, int64_t K,
                               const icae_real *dy, const icae_matrix *w, bool add,
                               icae_real *dx) {
    assert(w->rows == N && w->cols == K);
    icae_real *dy16 = rounded(be, T * N, dy), *w16 = widened(be, w);
    round_all(w16, N * K);
    multiply_dx(T, N, K, dy16, w16, add, dx);
    be->k.release(be, dy16);
    be->k.release(be, w16);
}

static void ref_gather(icae_backend *be, int64_t n, const icae_matrix *w, const int32_t *rows,
                       const int32_t *to, icae_real scale, icae_real *y) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        icae_real *row = y + to[i] * w->cols;
        icae_dtype_widen(w->dtype, row_of(w, rows[i]), w->cols, row);
        for (int64_t k = 0; k < w->cols; k++)
            row[k] *= scale;
    }
}

static void ref_add_means(icae_backend *be, int64_t n, const icae_matrix *w,
                          const int64_t *starts, const int32_t *rows, const int32_t *to,
                          icae_real scale, icae_real *y) {
    const int64_t D = w->cols;
    size_t stride;
    double *sum = (double *)(void *)icae_backend_scratch(
        be, (size_t)D * (sizeof *sum + sizeof(icae_real)), &stride);
    if (!sum) return;
    icae_real *wide = (icae_real *)(void *)(sum + D);
    for (int64_t i = 0; i < n; i++) {
        assert(starts[i] < starts[i + 1]);
        memset(sum, 0, (size_t)D * sizeof *sum);
        for (int64_t r = starts[i]; r < starts[i + 1]; r++) {
            icae_dtype_widen(w->dtype, row_of(w, rows[r]), D, wide);
            for (int64_t d = 0; d < D; d++)
                sum[d] += (double)wide[d];
        }
        double share = (double)scale / (double)(starts[i + 1] - starts[i]);
        for (int64_t d = 0; d < D; d++)
            y[to[i] * D + d] += (icae_real)(sum[d] * share);
    }
}

static void ref_scatter_add(icae_backend *be, int64_t n, int64_t D, const icae_real *dy,
                            const int32_t *from, const int32_t *rows, icae_real scale,
                            icae_real *dw) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t d = 0; d < D; d++)
            dw[rows[i] * D + d] += scale * dy[from[i] * D + d];
    }
}

static void ref_matmul(icae_backend *be, bool ta, bool tb, int64_t M, int64_t N, int64_t K,
                       icae_real alpha, const icae_real *a, int64_t lda, const icae_real *b,
                       int64_t ldb, icae_real beta, icae_real *c, int64_t ldc) {
    (void)be;
    for (int64_t m = 0; m < M; m++) {
        for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++) {
                sum += (double)(ta ? a[k * lda + m] : a[m * lda + k]) *
                       (double)(tb ? b[n * ldb + k] : b[k * ldb + n]);
            }
            /* beta = 0 means "never read": c may hold anything, NaN included. */
            double before = beta == 0 ? 0.0 : (double)beta * (double)c[m * ldc + n];
            c[m * ldc + n] = (icae_real)((double)alpha * sum + before);
        }
    }
}

/* ---- normalisation, positions ---- */

static void ref_rmsnorm(icae_backend *be, int64_t T, int64_t D, const icae_real *x,
                        const icae_real *w, icae_real eps, icae_real *y, icae_real *r) {
    (void)be;
    for (int64_t t = 0; t < T; t++) {
        double sum = 0;
        for (int64_t d = 0; d < D; d++)
            sum += (double)x[t * D + d] * (double)x[t * D + d];
        double inverse = 1.0 / sqrt(sum / (double)D + (double)eps);
        r[t] = (icae_real)inverse;
        for (int64_t d = 0; d < D; d++) {
            y[t * D + d] = (icae_real)((double)w[d] * (double)x[t * D + d] * inverse);
        }
    }
}

/* y = w x r with r = (mean(x^2) + eps)^-1/2, so dr/dx[d] = -r^3 x[d] / D and
 * dx[d] = r g[d] + sum_e g[e] x[e] dr/dx[d] = r (g[d] - x[d] r^2 mean(g x)). */
static void ref_rmsnorm_dx(icae_backend *be, int64_t T, int64_t D, const icae_real *x,
                           const icae_real *w, const icae_real *r, const icae_real *dy,
                           bool add, icae_real *dx) {
    (void)be;
    for (int64_t t = 0; t < T; t++) {
        double dot = 0, inverse = (double)r[t];
        for (int64_t d = 0; d < D; d++) {
            dot += (double)dy[t * D + d] * (double)w[d] * (double)x[t * D + d];
        }
        double pull = inverse * inverse * dot / (double)D;
        for (int64_t d = 0; d < D; d++) {
            double g = (double)dy[t * D + d] * (double)w[d];
            double value = inverse * (g - (double)x[t * D + d] * pull);
            dx[t * D + d] = (icae_real)(add ? (double)dx[t * D + d] + value : value);
        }
    }
}

static void ref_rope(icae_backend *be, int64_t T, int64_t H, int64_t E, const icae_real *angles,
                     bool inverse, icae_real *x) {
    (void)be;
    int64_t half = E / 2;
    for (int64_t t = 0; t < T; t++) {
        const icae_real *cosine = angles + t * E, *sine = cosine + half;
        for (int64_t h = 0; h < H; h++) {
            icae_real *head = x + (t * H + h) * E;
            for (int64_t i = 0; i < half; i++) {
                double c = (double)cosine[i], s = inverse ? -(double)sine[i] : (double)sine[i];
                double a = (double)head[i], b = (double)head[i + half];
                head[i] = (icae_real)(a * c - b * s);
                head[i + half] = (icae_real)(b * c + a * s);
            }
        }
    }
}

/* ---- attention ---- */

/* First key that query i of the span sees, and one past the last. */
static void visible_keys(const icae_attention_shape *shape, const icae_attention_span *span,
                         int64_t i, int64_t *first, int64_t *end) {
    *end = span->n_keys - span->n_queries + i + 1;
    *first = shape->window > 0 && *end > shape->window ? *end - shape->window : 0;
}

static double dot(const icae_real *a, const icae_real *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void ref_attention(icae_backend *be, const icae_attention_shape *shape, int64_t n_spans,
                          const icae_attention_span *spans, const icae_real *q, icae_real *out,
                          icae_real *lse) {
    (void)be;
    int64_t H = shape->heads, E = shape->width, group = H / shape->kv_heads;
    int64_t kv_row = shape->kv_heads * E;
    for (int64_t s = 0; s < n_spans; s++) {
        const icae_attention_span *span = &spans[s];
        for (int64_t i = 0; i < span->n_queries; i++) {
            int64_t first, end, t = span->query_start + i;
            visible_keys(shape, span, i, &first, &end);
            for (int64_t h = 0; h < H; h++) {
                const icae_real *query = q + (t * H + h) * E;
                const icae_real *keys = span->keys + h / group * E;
                const icae_real *values = span->values + h / group * E;
                double top = -(double)INFINITY, sum = 0;
                for (int64_t j = first; j < end; j++) {
                    top = fmax(top, (double)shape->scale * dot(query, keys + j * kv_row, E));
                }
                double mixed[1024] = {0};
                assert(E <= 1024);
                for (int64_t j = first; j < end; j++) {
                    double p =
                        exp((double)shape->scale * dot(query, keys + j * kv_row, E) - top);
                    sum += p;
                    for (int64_t e = 0; e < E; e++)
                        mixed[e] += p * (double)values[j * kv_row + e];
                }
                for (int64_t e = 0; e < E; e++) {
                    out[(t * H + h) * E + e] = (icae_real)(mixed[e] / sum);
                }
                lse[t * H + h] = (icae_real)(top + log(sum));
            }
        }
    }
}

/* With s = scale q.k, p = exp(s - lse), o = sum_j p_j v_j:
 * dv_j += p_j do;  dp_j = do.v_j;  ds_j = p_j (dp_j - do.o);  dq += scale ds_j k_j;  dk_j += scale ds_j q. */
static void ref_attention_dx(icae_backend *be, const icae_attention_shape *shape,
                             int64_t n_spans, const icae_attention_span *spans,
                             const icae_real *q, const icae_real *out, const icae_real *lse,
                             const icae_real *d_out, bool add, icae_real *dq) {
    (void)be;
    int64_t H = shape->heads, E = shape->width, group = H / shape->kv_heads;
    int64_t kv_row = shape->kv_heads * E;
    for (int64_t s = 0; s < n_spans; s++) {
        const icae_attention_span *span = &spans[s];
        if (!add) {
            size_t kv_bytes = (size_t)(span->n_keys * kv_row) * sizeof *dq;
            size_t q_bytes = (size_t)(span->n_queries * H * E) * sizeof *dq;
            if (kv_bytes) memset(span->d_keys, 0, kv_bytes);
            if (kv_bytes) memset(span->d_values, 0, kv_bytes);
            if (q_bytes) memset(dq + span->query_start * H * E, 0, q_bytes);
        }
        for (int64_t i = 0; i < span->n_queries; i++) {
            int64_t first, end, t = span->query_start + i;
            visible_keys(shape, span, i, &first, &end);
            for (int64_t h = 0; h < H; h++) {
                int64_t at = (t * H + h) * E, kv = h / group * E;
                double delta = dot(d_out + at, out + at, E);
                for (int64_t j = first; j < end; j++) {
                    int64_t row = j * kv_row + kv;
                    double score = (double)shape->scale * dot(q + at, span->keys + row, E);
                    double p = exp(score - (double)lse[t * H + h]);
                    double ds = p * (dot(d_out + at, span->values + row, E) - delta) *
                                (double)shape->scale;
                    for (int64_t e = 0; e < E; e++) {
                        span->d_values[row + e] += (icae_real)(p * (double)d_out[at + e]);
                        dq[at + e] += (icae_real)(ds * (double)span->keys[row + e]);
                        span->d_keys[row + e] += (icae_real)(ds * (double)q[at + e]);
                    }
                }
            }
        }
    }
}

/* ---- elementwise ---- */

static double sigmoid(double a) {
    return 1.0 / (1.0 + exp(-a));
}

static void ref_swiglu(icae_backend *be, int64_t n, const icae_real *gate, const icae_real *up,
                       icae_real *y) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double g = (double)gate[i];
        y[i] = (icae_real)(g * sigmoid(g) * (double)up[i]);
    }
}

/* silu'(g) = s + g s (1 - s),  s = sigmoid(g) */
static void ref_swiglu_dx(icae_backend *be, int64_t n, const icae_real *gate,
                          const icae_real *up, const icae_real *dy, bool add, icae_real *d_gate,
                          icae_real *d_up) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double g = (double)gate[i], s = sigmoid(g), d = (double)dy[i];
        double to_gate = d * (double)up[i] * (s + g * s * (1.0 - s)), to_up = d * g * s;
        d_gate[i] = (icae_real)(add ? (double)d_gate[i] + to_gate : to_gate);
        d_up[i] = (icae_real)(add ? (double)d_up[i] + to_up : to_up);
    }
}

/* Of gelu: its factor s = 1 / (1 + exp(-2u)), and 2u' of what u is taken at. NaN stays NaN. */
static double gelu_factor(double a, double *near, double *slope) {
    const double root = 0.79788456080286535588, cubic = 0.044715; /* sqrt(2/pi) */
    *near = a > 10 ? 10 : a < -10 ? -10 : a;
    *slope = 2 * root * (1 + 3 * cubic * *near * *near);
    return sigmoid(2 * root * (*near + cubic * *near * *near * *near));
}

static void ref_geglu(icae_backend *be, int64_t n, const icae_real *gate, const icae_real *up,
                      icae_real *y) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double g = (double)gate[i], near, slope;
        y[i] = (icae_real)(g * gelu_factor(g, &near, &slope) * (double)up[i]);
    }
}

/* gelu'(g) = s + g s (1 - s) 2u' */
static void ref_geglu_dx(icae_backend *be, int64_t n, const icae_real *gate,
                         const icae_real *up, const icae_real *dy, bool add, icae_real *d_gate,
                         icae_real *d_up) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double near, slope, g = (double)gate[i], d = (double)dy[i];
        double rest = gelu_factor(-g, &near, &slope); /* 1 - s, with all its digits near 0 */
        double s = gelu_factor(g, &near, &slope);
        double to_gate = d * (double)up[i] * (s + near * s * rest * slope);
        double to_up = d * g * s;
        d_gate[i] = (icae_real)(add ? (double)d_gate[i] + to_gate : to_gate);
        d_up[i] = (icae_real)(add ? (double)d_up[i] + to_up : to_up);
    }
}

static void ref_to_bf16(icae_backend *be, int64_t n, const icae_real *x, uint16_t *y) {
    (void)be;
    for (int64_t i = 0; i < n; i++)
        y[i] = icae_f32_to_bf16((float)x[i]);
}

static void ref_from_bf16(icae_backend *be, int64_t n, const uint16_t *x, icae_real *y) {
    (void)be;
    for (int64_t i = 0; i < n; i++)
        y[i] = icae_bf16_to_f32(x[i]);
}

static void ref_accumulate(icae_backend *be, int64_t n, const icae_real *x, icae_real *y) {
    (void)be;
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void ref_add_row(icae_backend *be, int64_t T, int64_t N, const icae_real *b,
                        icae_real *y) {
    (void)be;
    for (int64_t t = 0; t < T; t++) {
        for (int64_t n = 0; n < N; n++)
            y[t * N + n] += b[n];
    }
}

static void ref_scale(icae_backend *be, int64_t n, icae_real scale, const icae_real *x,
                      icae_real *y) {
    (void)be;
    for (int64_t i = 0; i < n; i++)
        y[i] = scale * x[i];
}

static void ref_dropout(icae_backend *be, int64_t T, int64_t K, const icae_real *x,
                        uint64_t seed, const uint64_t *row_keys, double rate, bool add,
                        icae_real *y) {
    (void)be;
    const double steps = fmin(floor(rate * 65536 + 0.5), 65535);
    const icae_real grown = (icae_real)(65536 / (65536 - steps));
    for (int64_t t = 0; t < T; t++) {
        for (int64_t k = 0; k < K; k++) {
            uint32_t words[4];
            icae_philox(seed, row_keys[t], (uint64_t)(k / 64 * 8 + k % 8), words);
            uint32_t word = words[k / 8 % 4], bits = k % 64 < 32 ? word & 0xFFFF : word >> 16;
            icae_real value = bits >= steps ? x[t * K + k] * grown : 0;
            y[t * K + k] = add ? y[t * K + k] + value : value;
        }
    }
}

/* ---- loss, optimizer ---- */

static void ref_cross_entropy(icae_backend *be, int64_t n, int64_t V, icae_real *logits,
                              const int32_t *targets, const icae_real *d_coefs,
                              icae_real *nll) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        icae_real *row = logits + i * V;
        assert(targets[i] >= 0 && targets[i] < V);
        double top = -(double)INFINITY, sum = 0;
        for (int64_t v = 0; v < V; v++)
            top = (double)row[v] > top ? (double)row[v] : top;
        for (int64_t v = 0; v < V; v++)
            sum += exp((double)row[v] - top);
        /* top + log(sum) would be top alone where top is large: the difference is taken first. */
        nll[i] = (icae_real)(top - (double)row[targets[i]] + log(sum));
        if (!d_coefs) continue;
        for (int64_t v = 0; v < V; v++) {
            double p = exp((double)row[v] - top) / sum - (v == targets[i] ? 1.0 : 0.0);
            row[v] = (icae_real)((double)d_coefs[i] * p);
        }
    }
}

static double ref_sum_squares(icae_backend *be, int64_t n, const icae_real *x) {
    (void)be;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static void ref_adamw(icae_backend *be, int64_t n, const icae_adamw_step *step, icae_real *p,
                      const icae_real *g, icae_real *m, icae_real *v) {
    (void)be;
    for (int64_t i = 0; i < n; i++) {
        double gradient = (double)g[i] * step->gradient_scale;
        double first = step->beta1 * (double)m[i] + (1.0 - step->beta1) * gradient;
        double second = step->beta2 * (double)v[i] + (1.0 - step->beta2) * gradient * gradient;
        double value = (double)p[i] * (1.0 - step->lr * step->weight_decay);
        value -= step->lr * (first / step->correction1) /
                 (sqrt(second) / sqrt(step->correction2) + step->eps);
        m[i] = (icae_real)first;
        v[i] = (icae_real)second;
        p[i] = (icae_real)value;
    }
}

/* One loop serves several rows here; only the fast tables tell them apart. */
#define ref_linear_few      ref_linear
#define ref_linear_reading  ref_linear
#define ref_linear_few_bf16 ref_linear_bf16
#define ref_copy_in         ref_copy
#define ref_copy_out        ref_copy

void icae_cpu_ref(icae_kernels *table) {
#define KERNEL(type, name, arguments) table->name = ref_##name;
#include "backend/kernels.def"
#undef KERNEL
}
