/* SPDX-License-Identifier: MIT */
/*
 * Everything that is not a product: norms, activation, positions, loss, optimizer, dropout.
 * Compiled once per level; the entry point for the level's other files too.
 *
 * Each function walks rows (or a flat array) in vectors; a row's sums run over lanes in one fixed
 * order. Work is shared among threads by rows or by fixed pieces, so the bits are the same for any
 * number of threads. A loop with exp has one body for full and part vectors (cpu_vector.h).
 */
#include <assert.h>

#include "backend/cpu_internal.h"
#include "backend/cpu_vector.h"
#include "icae/half.h"

/* Elements below which starting a team costs more than it gives. */
static const int64_t WORTH_THREADS = 30000;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int team(const icae_backend *be, int64_t elements) {
    return elements >= WORTH_THREADS ? be->n_threads : 1;
}

/* Flat arrays are cut into pieces of this many elements, a multiple of every VL. */
enum { PIECE = 8192 };

/* ---- normalisation ---- */

static void rmsnorm(icae_backend *be, int64_t T, int64_t D, const real *x, const real *w,
                    real eps, real *y, real *r) {
    const int threads = team(be, T * D);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < T; t++) {
        const real *row = x + t * D;
        vec sums = {0};
        for (int64_t d = 0; d < D; d += VL) {
            vec a = load_some(row + d, D - d);
            sums += a * a;
        }
        real inverse = 1 / real_sqrt(lane_sum(sums) / (real)D + eps);
        r[t] = inverse;
        for (int64_t d = 0; d < D; d += VL) {
            vec value = load_some(w + d, D - d) * (load_some(row + d, D - d) * inverse);
            store_some(y + t * D + d, value, D - d);
        }
    }
}

static void rmsnorm_dx(icae_backend *be, int64_t T, int64_t D, const real *x, const real *w,
                       const real *r, const real *dy, bool add, real *dx) {
    const int threads = team(be, T * D);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < T; t++) {
        const real *row = x + t * D, *d_row = dy + t * D;
        real *to = dx + t * D;
        vec sums = {0};
        for (int64_t d = 0; d < D; d += VL) {
            vec g = load_some(d_row + d, D - d) * load_some(w + d, D - d);
            sums += g * load_some(row + d, D - d);
        }
        real pull = r[t] * r[t] * (lane_sum(sums) / (real)D);
        for (int64_t d = 0; d < D; d += VL) {
            vec g = load_some(d_row + d, D - d) * load_some(w + d, D - d);
            vec value = (g - load_some(row + d, D - d) * pull) * r[t];
            if (add) value += load_some(to + d, D - d);
            store_some(to + d, value, D - d);
        }
    }
}

/* ---- positions ---- */

static void rope(icae_backend *be, int64_t T, int64_t H, int64_t E, const real *angles,
                 bool inverse, real *x) {
    const int64_t half = E / 2;
    const real sign = inverse ? -1 : 1;
    const int threads = team(be, T * H * E);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < T; t++) {
        const real *cosine = angles + t * E, *sine = cosine + half;
        for (int64_t h = 0; h < H; h++) {
            real *low = x + (t * H + h) * E, *high = low + half;
            for (int64_t i = 0; i < half; i += VL) {
                int64_t n = half - i;
                vec c = load_some(cosine + i, n), s = load_some(sine + i, n) * sign;
                vec a = load_some(low + i, n), b = load_some(high + i, n);
                store_some(low + i, a * c - b * s, n);
                store_some(high + i, b * c + a * s, n);
            }
        }
    }
}

/* ---- activation ---- */

static void swiglu(icae_backend *be, int64_t n, const real *gate, const real *up, real *y) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t from = 0; from < n; from += PIECE) {
        const int64_t to = least(n, from + PIECE);
        for (int64_t i = from; i < to; i += VL) {
            vec g = load_some(gate + i, to - i);
            vec value = g / (vector_exp(-g) + 1) * load_some(up + i, to - i);
            store_some(y + i, value, to - i);
        }
    }
}

/* silu'(g) = s + g s (1 - s) = s + silu (1 - s),  s = 1 / (1 + exp(-g)) */
static void swiglu_dx(icae_backend *be, int64_t n, const real *gate, const real *up,
                      const real *dy, bool add, real *d_gate, real *d_up) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t from = 0; from < n; from += PIECE) {
        const int64_t to = least(n, from + PIECE);
        for (int64_t i = from; i < to; i += VL) {
            const int64_t rest = to - i;
            vec g = load_some(gate + i, rest), d = load_some(dy + i, rest);
            vec s = splat(1) / (vector_exp(-g) + 1);
            vec silu = g * s;
            vec to_gate = d * load_some(up + i, rest) * (s + silu * (1 - s)), to_up = d * silu;
            if (add) {
                to_gate += load_some(d_gate + i, rest);
                to_up += load_some(d_up + i, rest);
            }
            store_some(d_gate + i, to_gate, rest);
            store_some(d_up + i, to_up, rest);
        }
    }
}

/*
 * gelu(g) = g s,  s = 1 / (1 + e),  e = exp(-2u),  2u = g (2r + 2rc g^2)
 * gelu'(g) = s + g (1 - s) s 2u',  1 - s = e s,  2u' = 2r + 6rc g^2
 * with r = sqrt(2/pi), c = 0.044715. u is taken at g or, beyond, at 10 or -10: there s is 1 or 1e-38,
 * and neither e nor g^3 gets too large for a float. NaN passes: see larger and smaller.
 */
enum { GELU_FLAT = 10 };
#define GELU_LINEAR ((real)1.5957691216057308)  /* 2r */
#define GELU_CUBIC  ((real)0.07135481627260025) /* 2rc */

static void geglu(icae_backend *be, int64_t n, const real *gate, const real *up, real *y) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t from = 0; from < n; from += PIECE) {
        const int64_t to = least(n, from + PIECE);
        for (int64_t i = from; i < to; i += VL) {
            vec g = load_some(gate + i, to - i);
            vec near = smaller(splat(GELU_FLAT), larger(splat(-GELU_FLAT), g));
            vec e = vector_exp(-near * (near * near * GELU_CUBIC + GELU_LINEAR));
            store_some(y + i, g / (e + 1) * load_some(up + i, to - i), to - i);
        }
    }
}

static void geglu_dx(icae_backend *be, int64_t n, const real *gate, const real *up,
                     const real *dy, bool add, real *d_gate, real *d_up) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t from = 0; from < n; from += PIECE) {
        const int64_t to = least(n, from + PIECE);
        for (int64_t i = from; i < to; i += VL) {
            const int64_t rest = to - i;
            vec g = load_some(gate + i, rest), d = load_some(dy + i, rest);
            vec near = smaller(splat(GELU_FLAT), larger(splat(-GELU_FLAT), g));
            vec square = near * near;
            vec e = vector_exp(-near * (square * GELU_CUBIC + GELU_LINEAR));
            vec s = splat(1) / (e + 1);
            vec slope = s + near * (e * s * s) * (square * (3 * GELU_CUBIC) + GELU_LINEAR);
            vec to_gate = d * load_some(up + i, rest) * slope, to_up = d * (g * s);
            if (add) {
                to_gate += load_some(d_gate + i, rest);
                to_up += load_some(d_up + i, rest);
            }
            store_some(d_gate + i, to_gate, rest);
            store_some(d_up + i, to_up, rest);
        }
    }
}

/* ---- sums and multiples ---- */

/* Plain loops over halves of words: compilers make vectors of them. */
static void to_bf16(icae_backend *be, int64_t n, const real *x, uint16_t *y) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t from = 0; from < n; from += PIECE) {
        const int64_t to = least(n, from + PIECE);
        for (int64_t i = from; i < to; i++)
            y[i] = icae_f32_to_bf16((float)x[i]);
    }
}

static void from_bf16(icae_backend *be, int64_t n, const uint16_t *x, real *y) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t from = 0; from < n; from += PIECE) {
        const int64_t to = least(n, from + PIECE);
        for (int64_t i = from; i < to; i++)
            y[i] = icae_bf16_to_f32(x[i]);
    }
}

static void accumulate(icae_backend *be, int64_t n, const real *x, real *y) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void add_row(icae_backend *be, int64_t T, int64_t N, const real *b, real *y) {
    const int threads = team(be, T * N);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < T; t++) {
        real *row = y + t * N;
        for (int64_t n = 0; n < N; n++)
            row[n] += b[n];
    }
}

static void scale(icae_backend *be, int64_t n, real by, const real *x, real *y) {
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i++)
        y[i] = by * x[i];
}

/* ---- dropout ---- */

/* MASK elements are decided on by sixteen bits each of MASK_COUNTERS counters. COUNTERS run side by side: two
 * vectors of them hide the latency of the products. */
enum {
    MASK = 64,
    MASK_COUNTERS = 8,
    MASK_WORDS = 4 * MASK_COUNTERS,
    COUNTERS = 2 * UVL,
    TOGETHER = COUNTERS > MASK_COUNTERS ? COUNTERS : MASK_COUNTERS,
    RUN = COUNTERS < MASK_COUNTERS ? COUNTERS : MASK_COUNTERS
};

/*
 * Philox4x32-10 as in base/rng.c, of the positions position .. position + COUNTERS - 1 of one stream: word w of
 * the c-th goes to words[c / 8][w][c % 8]. Every 64-bit lane carries one 32-bit word; what is above it is never
 * used. The first vector has the even counters and the second the odd ones, so that one shift brings
 * their words side by side.
 */
static void philox_words(uint64_t seed, uint64_t stream, uint64_t position, uint32_t *words) {
    uint64_t lanes[2][UVL];
    for (int i = 0; i < COUNTERS; i++)
        lanes[i % 2][i / 2] = position + (uint64_t)i;
    uvec v[4][2];
    memcpy(v[0], lanes, sizeof lanes);
    for (int h = 0; h < 2; h++) {
        v[1][h] = v[0][h] >> 32;
        v[2][h] = (uvec){0} + stream;
        v[3][h] = (uvec){0} + (stream >> 32);
    }
    const uvec left_factor = (uvec){0} + 0xD2511F53u, right_factor = (uvec){0} + 0xCD9E8D57u;
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        UNROLL
        for (int h = 0; h < 2; h++) {
            uvec left = multiply_low_halves(v[0][h], left_factor);
            uvec right = multiply_low_halves(v[2][h], right_factor);
            v[0][h] = (right >> 32) ^ v[1][h] ^ (uint64_t)key0;
            v[2][h] = (left >> 32) ^ v[3][h] ^ (uint64_t)key1;
            v[1][h] = right;
            v[3][h] = left;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (int w = 0; w < 4; w++) {
        uvec both = (v[w][0] & 0xFFFFFFFFu) | (v[w][1] << 32);
        UNROLL
        for (int c = 0; c < COUNTERS; c += RUN)
            memcpy(words + c / MASK_COUNTERS * MASK_WORDS + w * MASK_COUNTERS,
                   (const uint32_t *)&both + c, RUN * sizeof *words);
    }
}

/* y (+)= x * grown where the sixteen bits of a word from `shift` on are at least the threshold, else 0;
 * n <= MASK_WORDS */
ALWAYS_INLINE void drop(int64_t n, const uint32_t *words, int shift, lane_int threshold,
                        const real *x, real grown, bool add, real *y) {
    for (int64_t i = 0; i < n; i += VL) {
        ivec bits = {0};
#if ICAE_REAL_IS_DOUBLE
        for (int j = 0; j < VL; j++)
            bits[j] = words[i + j];
#else
        memcpy(&bits, words + i, sizeof bits);
#endif
        bits = bits >> shift & 0xFFFF;
        vec value = choose(bits >= threshold, load_some(x + i, n - i) * grown, (vec){0});
        store_some(y + i, add ? load_some(y + i, n - i) + value : value, n - i);
    }
}

/* A rate in steps of 1/65536, never all of them */
static lane_int rate_steps(double rate) {
    lane_int steps = (lane_int)(rate * 65536 + 0.5);
    return steps < 65535 ? steps : 65535;
}

static void dropout(icae_backend *be, int64_t T, int64_t K, const real *x, uint64_t seed,
                    const uint64_t *row_keys, double rate, bool add, real *y) {
    const lane_int threshold = rate_steps(rate);
    const real grown = (real)(1.0 / (1.0 - (double)threshold / 65536.0));
    const int threads = team(be, T * K);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < T; t++) {
        const real *from = x + t * K;
        real *to = y + t * K;
        uint32_t words[TOGETHER / MASK_COUNTERS][MASK_WORDS];
        for (int64_t k = 0; k < K; k += MASK) {
            const int64_t counter = k / MASK * MASK_COUNTERS, group = counter % TOGETHER;
            for (int c = 0; group == 0 && c < TOGETHER; c += COUNTERS)
                philox_words(seed, row_keys[t], (uint64_t)(counter + c), words[0] + c);
            const uint32_t *mask = words[group / MASK_COUNTERS];
            for (int64_t at = k, shift = 0; at < least(K, k + MASK);
                 at += MASK_WORDS, shift += 16)
                drop(least(MASK_WORDS, K - at), mask, (int)shift, threshold, from + at, grown,
                     add, to + at);
        }
    }
}

/* ---- loss ---- */

/* Sum of exp(row - top), with the exponentials left in `keep` unless it is NULL. Lanes are summed in
 * float for SUM_PIECE values at most, pieces in double: a vocabulary is long. */
enum { SUM_PIECE = 1024 };

static double sum_of_exp(int64_t V, const real *row, real top, real *keep) {
    double sum = 0;
    for (int64_t from = 0; from < V; from += SUM_PIECE) {
        const int64_t to = least(V, from + SUM_PIECE);
        vec sums = {0};
        for (int64_t v = from; v < to; v += VL) {
            vec e = vector_exp(load_some(row + v, to - v) - top);
            if (keep) store_some(keep + v, e, to - v);
            sums += first_lanes(e, to - v, 0);
        }
        sum += (double)lane_sum(sums);
    }
    return sum;
}

static void cross_entropy(icae_backend *be, int64_t n, int64_t V, real *logits,
                          const int32_t *targets, const real *d_coefs, real *nll) {
    const int threads = team(be, n * V);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i++) {
        real *row = logits + i * V;
        assert(targets[i] >= 0 && targets[i] < V);
        vec tops = splat(-(real)INFINITY);
        for (int64_t v = 0; v < V; v += VL) {
            vec a = first_lanes(load_some(row + v, V - v), V - v, -(real)INFINITY);
            tops = larger(a, tops);
        }
        const real top = lane_max(tops), target = row[targets[i]];
        const double sum = sum_of_exp(V, row, top, d_coefs ? row : NULL);
        /* top + log(sum) would be top alone where top is large: the difference is taken first. */
        nll[i] = (real)((double)top - (double)target + log(sum));
        if (!d_coefs) continue;
        const real by = (real)((double)d_coefs[i] / sum);
        for (int64_t v = 0; v < V; v++)
            row[v] *= by;
        row[targets[i]] -= d_coefs[i];
    }
}

/* ---- optimizer ---- */

/* At most PARTS partial sums of equal pieces, whatever the number of threads. */
enum { PARTS = 64 };

static double sum_squares(icae_backend *be, int64_t n, const real *x) {
    const int threads = team(be, n);
    const int64_t piece = ((n + PARTS - 1) / PARTS + VL - 1) / VL * VL;
    double sums[PARTS];
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int part = 0; part < PARTS; part++) {
        const int64_t from = least(n, part * piece), to = least(n, from + piece);
        double lanes[8] = {0};
        int64_t i = from;
        for (; i + 8 <= to; i += 8) {
            UNROLL
            for (int j = 0; j < 8; j++)
                lanes[j] += (double)x[i + j] * (double)x[i + j];
        }
        for (int j = 0; i + j < to; j++)
            lanes[j] += (double)x[i + j] * (double)x[i + j];
        sums[part] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
                     ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
    }
    double sum = 0;
    for (int part = 0; part < PARTS; part++)
        sum += sums[part];
    return sum;
}

static void adamw(icae_backend *be, int64_t n, const icae_adamw_step *step, real *p,
                  const real *g, real *m, real *v) {
    const real by = (real)step->gradient_scale,
               keep = (real)(1 - step->lr * step->weight_decay);
    const real beta1 = (real)step->beta1, beta2 = (real)step->beta2;
    const real new1 = (real)(1 - step->beta1), new2 = (real)(1 - step->beta2);
    const real rate = (real)(step->lr / step->correction1), eps = (real)step->eps;
    const real root = (real)(1 / sqrt(step->correction2));
    const int threads = team(be, n);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i++) {
        real gradient = g[i] * by;
        real first = beta1 * m[i] + new1 * gradient;
        real second = beta2 * v[i] + new2 * (gradient * gradient);
        m[i] = first;
        v[i] = second;
        p[i] = keep * p[i] - rate * first / (real_sqrt(second) * root + eps);
    }
}

void LEVEL_NAME(icae_cpu_simd_)(icae_kernels *table) {
    LEVEL_NAME(icae_cpu_linear_)(table);
    LEVEL_NAME(icae_cpu_few_)(table);
    LEVEL_NAME(icae_cpu_integers_)(table);
    LEVEL_NAME(icae_cpu_attention_)(table);
    table->rmsnorm = rmsnorm;
    table->rmsnorm_dx = rmsnorm_dx;
    table->rope = rope;
    table->swiglu = swiglu;
    table->swiglu_dx = swiglu_dx;
    table->geglu = geglu;
    table->geglu_dx = geglu_dx;
    table->to_bf16 = to_bf16;
    table->from_bf16 = from_bf16;
    table->accumulate = accumulate;
    table->add_row = add_row;
    table->scale = scale;
    table->dropout = dropout;
    table->cross_entropy = cross_entropy;
    table->sum_squares = sum_squares;
    table->adamw = adamw;
}
