/* SPDX-License-Identifier: MIT */
/*
 * linear_few for quantised weights in integers. Compiled once per level and of use at AVX2 alone: AVX-512 takes
 * the same function, for vectors twice as wide made 66 MB from memory no faster (3.6 ms and 3.4).
 *
 *     y[t, n] (+)= x^[t,:] . w[n,:]       x^ = x with 16 bits for each value
 *
 * x^ and the order in which it lies: cpu_int.h.
 *
 * A row's sums are one chain of operations wherever it stands. Rows of x beyond one share the unpacked
 * weights; one alone has GROUP rows of w at a time, whose chains do not wait for each other.
 */
#include "backend/cpu_int.h"

#if HAS_FLOAT_SIMD && VECTOR_BYTES == 32

enum { MOST_ROWS = 8 };
/* Rows below which a team of threads takes longer to come together than one to round them. */
enum { WORTH_ROWS = 16 };

typedef struct few {
    int64_t T, N, K, pairs; /* pairs = ceil(K / 64) */
    const pair *x;          /* [pairs][T] */
    const real *sums;       /* [ceil(pairs / 4)][T][8]: e sum of X of every piece */
    const icae_matrix *w;
    bool add;
    real *y;
} few;

/* ---- the product ---- */

/* Two floats in four lanes each */
ALWAYS_INLINE __m256 spread_pair(const real *two) {
    double both;
    memcpy(&both, two, sizeof both);
    __m256 v = _mm256_castpd_ps(_mm256_set1_pd(both));
    return _mm256_permutevar_ps(v, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

ALWAYS_INLINE __m256i two_products(const __m256i q[2], const int16_t (*x)[16]) {
    const __m256i *values = (const __m256i *)(const void *)x;
    return _mm256_add_epi32(_mm256_madd_epi16(q[0], _mm256_load_si256(values)),
                            _mm256_madd_epi16(q[1], _mm256_load_si256(values + 1)));
}

/* What 64 weights times 64 values of x add to a sum; 32-bit sums of 8 products do not overflow. */
ALWAYS_INLINE __m256 add_pair(icae_dtype dtype, const __m256i q[4], __m256 scale,
                              __m256 second_scale, const pair *x, __m256 sum) {
    const __m256 e = _mm256_load_ps(x->scales);
    __m256i first = two_products(q, x->values), second = two_products(q + 2, x->values + 2);
    if (dtype == ICAE_DTYPE_Q6_K) {
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(first), _mm256_mul_ps(scale, e), sum);
        return _mm256_fmadd_ps(_mm256_cvtepi32_ps(second), _mm256_mul_ps(second_scale, e), sum);
    }
    __m256 products = _mm256_cvtepi32_ps(_mm256_add_epi32(first, second));
    return _mm256_fmadd_ps(products, _mm256_mul_ps(scale, e), sum);
}

/* offset (e sum of X) of eight pieces after another, for pieces start .. start + n - 1 */
ALWAYS_INLINE void add_offsets(const int columns, const int rows, const few *f, int64_t t,
                               int64_t start, int64_t n, const scales *s,
                               __m256 sums[MOST_ROWS][GROUP]) {
    for (int64_t i = 0; i < n; i += 8) {
        const real *x = f->sums + ((start + i) / 8 * f->T + t) * 8;
        UNROLL
        for (int g = 0; g < columns; g++) {
            __m256 offset = _mm256_load_ps(s->offset[g] + i);
            UNROLL
            for (int r = 0; r < rows; r++)
                sums[r][g] = _mm256_fmadd_ps(offset, _mm256_load_ps(x + 8 * r), sums[r][g]);
        }
    }
}

/*
 * y[t + r, c] (+)= x[t + r,:] . w[c,:] for r < rows, c < columns. `next`, rows of w like these, come
 * after them: their headers are collected on the way, which also brings their lines into the cache.
 */
ALWAYS_INLINE void few_tile(icae_dtype dtype, const int columns, const int rows, const few *f,
                            int64_t t, const unsigned char *w, const unsigned char *next,
                            scales *s, real *y) {
    const size_t row_bytes = f->w->row_bytes, step = bytes_of_32(dtype);
    const int64_t pieces = f->K / WIDE;
    const pair *x = f->x + t;
    __m256 sums[MOST_ROWS][GROUP];
    UNROLL
    for (int i = 0; i < rows * columns; i++)
        sums[i / columns][i % columns] = _mm256_setzero_ps();
    for (int64_t start = 0; start < pieces; start += PIECES) {
        const int64_t n = least(PIECES, pieces - start);
        const unsigned char *stretch = w + (size_t)start / 8 * bytes_of_eight(dtype);
        const bool is_last = start + PIECES >= pieces;
        const unsigned char *coming = is_last ? next : stretch + (size_t)n * step;
        /* A row's last stretch may be shorter than this one: beyond it nothing may be read. */
        const int64_t n_coming = is_last ? n : least(n, pieces - start - n);
        for (int g = 0; g < columns; g++)
            widen_scales(dtype, stretch + (size_t)g * row_bytes, n, g, s);
        if (dtype != ICAE_DTYPE_Q8_0 && dtype != ICAE_DTYPE_Q6_K)
            add_offsets(columns, rows, f, t, start, n, s, sums);
        for (int64_t i = 0; i < n; i += 2, x += f->T) {
            call_ahead(dtype, columns, 2, w, (start + i) / 2);
            UNROLL
            for (int g = 0; g < columns; g++) {
                __m256i q[4];
                read_pair(dtype, stretch + (size_t)g * row_bytes, i / 2, i + 1 == n, q);
                __m256 scale = spread_pair(s->scale[g] + i), second = scale;
                if (dtype == ICAE_DTYPE_Q6_K) second = spread_pair(s->offset[g] + i);
                UNROLL
                for (int r = 0; r < rows; r++)
                    sums[r][g] = add_pair(dtype, q, scale, second, x + r, sums[r][g]);
            }
            if (has_headers(dtype)) {
                const unsigned char *from = coming + (size_t)i * step;
                if (i < n_coming) copy_header(columns, from, row_bytes, i, s);
                if (i + 1 < n_coming) copy_header(columns, from + step, row_bytes, i + 1, s);
            }
        }
        if (is_last && start > 0) /* the stretch to come, a row's first, may be longer */
            copy_headers(dtype, columns, next, row_bytes, n, PIECES, s);
    }
    UNROLL
    for (int i = 0; i < rows * columns; i += 4) {
        __m256 four[4];
        real out[4];
        UNROLL
        for (int j = 0; j < 4; j++)
            four[j] = i + j < rows * columns ? sums[(i + j) / columns][(i + j) % columns]
                                             : _mm256_setzero_ps();
        four_sums_of_8(four, out);
        for (int j = 0; j < 4 && i + j < rows * columns; j++) {
            real *to = y + (i + j) / columns * f->N + (i + j) % columns;
            *to = f->add ? *to + out[j] : out[j];
        }
    }
}

/* Columns from .. to-1 of y, in groups of `columns` as far as they go; returns where they end. */
ALWAYS_INLINE int64_t few_groups(icae_dtype dtype, const int columns, const int rows,
                                 const few *f, int64_t t, int64_t from, int64_t to) {
    const int64_t pieces = least(STRETCH, f->K) / WIDE;
    const size_t group_bytes = (size_t)columns * f->w->row_bytes;
    const unsigned char *w = (const unsigned char *)f->w->data + (size_t)from * f->w->row_bytes;
    scales s;
    memset(s.headers, 0, sizeof s.headers);
    if (from + columns <= to) copy_headers(dtype, columns, w, f->w->row_bytes, 0, pieces, &s);
    int64_t n = from;
    for (; n + columns <= to; n += columns, w += group_bytes) {
        bool is_last = n + 2 * columns > to;
        few_tile(dtype, columns, rows, f, t, w, is_last ? w : w + group_bytes, &s,
                 f->y + t * f->N + n);
    }
    return n;
}

ALWAYS_INLINE void few_part(icae_dtype dtype, const few *f, int64_t from, int64_t to) {
    int64_t t = 0;
    for (; t + 8 <= f->T; t += 8)
        few_groups(dtype, 1, 8, f, t, from, to);
    for (; t + 4 <= f->T; t += 4)
        few_groups(dtype, 1, 4, f, t, from, to);
    for (; t + 2 <= f->T; t += 2)
        few_groups(dtype, 1, 2, f, t, from, to);
    for (; t < f->T; t++) {
        int64_t rest = few_groups(dtype, GROUP, 1, f, t, from, to);
        few_groups(dtype, 1, 1, f, t, rest, to);
    }
}

/* One function for each type, so that the type is a constant inside the loops. */
#define FEW(name)                                                                              \
    static void few_##name(const few *f, int64_t from, int64_t to) {                           \
        few_part(ICAE_DTYPE_##name, f, from, to);                                              \
    }
FEW(Q8_0)
FEW(Q4_0)
FEW(Q4_1)
FEW(Q4_K)
FEW(Q5_K)
FEW(Q6_K)
#undef FEW
static void (*const few_functions[ICAE_DTYPE_COUNT])(const few *, int64_t, int64_t) = {
    [ICAE_DTYPE_Q8_0] = few_Q8_0, [ICAE_DTYPE_Q4_0] = few_Q4_0, [ICAE_DTYPE_Q4_1] = few_Q4_1,
    [ICAE_DTYPE_Q4_K] = few_Q4_K, [ICAE_DTYPE_Q5_K] = few_Q5_K, [ICAE_DTYPE_Q6_K] = few_Q6_K,
};

bool icae_cpu_few_int(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                      const icae_matrix *w, bool add, real *y) {
    void (*const function)(const few *, int64_t, int64_t) = few_functions[w->dtype];
    if (!function) return false;
    const int64_t pairs = (K + PAIR - 1) / PAIR, n_sums = (pairs + 3) / 4 * 8;
    const size_t x_bytes = (size_t)(pairs * T) * sizeof(pair);
    char *memory = icae_backend_work_space(be, x_bytes + (size_t)(n_sums * T) * sizeof(real));
    if (!memory) return true;
    pair *rounded = (pair *)(void *)memory;
    real *sums = (real *)(void *)(memory + x_bytes);
    const few f = {T, N, K, pairs, rounded, sums, w, add, y};
    const int threads = T * N * K >= FEW_WORTH_THREADS ? be->n_threads : 1;
#pragma omp parallel for schedule(static)                                                      \
    num_threads(threads) if (threads > 1 && T >= WORTH_ROWS)
    for (int64_t t = 0; t < T; t++)
        round_row(x + t * K, K, T, t, rounded, sums);
    const int64_t rows = part_rows(w, threads), parts = (N + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t part = 0; part < parts; part++)
        function(&f, part * rows, least(N, (part + 1) * rows));
    be->k.release(be, memory);
    return true;
}

#endif
