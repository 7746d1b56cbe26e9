/* SPDX-License-Identifier: MIT */
/*
 * Products of up to three rows with quantised weights in integers: token by token, memory sets the pace,
 * so weights are read once, as they are stored, and unpacked in registers. Compiled for AVX2, and again with
 * VPDPWSSD for level avx512vnni; level avx512 takes AVX2's function, for vectors twice as wide made 66 MB from
 * memory no faster (3.6 ms and 3.4).
 *
 *     y[t, n] (+)= x^[t,:] . w[n,:]       x^ = x with 16 bits for each value (cpu_int.h)
 *
 * GROUP rows of w go side by side: the integer sums of a piece are added up across lanes, four rows of w at
 * once, and stand then beside each other, a lane for each row of w. More rows of x, side by side in the
 * lanes themselves, need no such adding: cpu_linear_int.c.
 */
#include "backend/cpu_int.h"

#if HAS_FLOAT_SIMD && VECTOR_BYTES == 32

/* Two pieces of a row of x: the first in lower halves and the second in upper ones, spread over the lanes
 * of four rows of w */
typedef struct pair {
    int16_t twos[4][16];
    real scales[8]; /* e */
    real sums[8];   /* e sum of X */
} __attribute__((aligned(32))) pair;

typedef struct few {
    int64_t T, N, K;
    const pair *x; /* [pairs][T] */
    const icae_matrix *w;
    bool add;
    real *y;
} few;

/* What a stretch's pieces are multiplied by, GROUP rows of w side by side: as stored in front of every
 * block, or, in types of large blocks, scales and offsets */
typedef struct factors {
    int32_t headers[PIECES][GROUP] __attribute__((aligned(64)));
    scales rows;
    real scale[PIECES][GROUP] __attribute__((aligned(64)));
    real offset[PIECES][GROUP] __attribute__((aligned(64)));
} factors;

static void round_row(const real *x, int64_t K, int64_t T, pair *out) {
    for (int64_t i = 0; i < K / WIDE; i++) {
        pair *to = out + i / 2 * T;
        const int h = (int)(i % 2);
        __m256i twos[2];
        real scale, sum = round_piece(x + i * WIDE, twos, &scale);
        UNROLL
        for (int j = 0; j < 2; j++) {
            __m128i *half = (__m128i *)(void *)to->twos[2 * j] + h;
            _mm_store_si128(half, _mm256_castsi256_si128(twos[j]));
            _mm_store_si128(half + 2, _mm256_extracti128_si256(twos[j], 1));
        }
        _mm_store_ps(to->scales + 4 * h, _mm_set1_ps(scale));
        _mm_store_ps(to->sums + 4 * h, _mm_set1_ps(sum));
    }
    if (K % PAIR) { /* no second piece in the last pair: it adds 0 */
        pair *last = out + K / PAIR * T;
        _mm_store_ps(last->scales + 4, _mm_setzero_ps());
        _mm_store_ps(last->sums + 4, _mm_setzero_ps());
    }
}

ALWAYS_INLINE __m256i two_products(const __m256i q[2], const int16_t (*x)[16]) {
    const __m256i *values = (const __m256i *)(const void *)x;
    const __m256i first = _mm256_madd_epi16(q[0], _mm256_load_si256(values));
    return add_two(first, q[1], _mm256_load_si256(values + 1));
}

/* Lanes added up: of the first piece four sums, one for each row of w, in the lower half. */
ALWAYS_INLINE __m256 sums_of_lanes(const __m256i v[GROUP]) {
    return _mm256_cvtepi32_ps(
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3])));
}

/* ---- scales ---- */

/* The headers of pieces first .. n-1, whose blocks begin at `from` in the first of `columns` rows. (Where a
 * type has one f16, the other half is noise that nobody looks at.) */
ALWAYS_INLINE void collect_headers(icae_dtype dtype, const int columns,
                                   const unsigned char *from, size_t row_bytes, int64_t first,
                                   int64_t n, factors *f) {
    if (!has_headers(dtype)) return;
    for (int64_t i = first; i < n; i++) {
        UNROLL
        for (int g = 0; g < columns; g++)
            memcpy(&f->headers[i][g],
                   from + (size_t)g * row_bytes + (size_t)i * bytes_of_32(dtype),
                   sizeof f->headers[i][g]);
    }
}

/* Rows to columns: what widen_scales found */
ALWAYS_INLINE void gather_scales(int64_t n, real from[GROUP][PIECES], real to[PIECES][GROUP]) {
    for (int64_t i = 0; i < n; i += 4) { /* behind n up to three of another row */
        __m128 a = _mm_load_ps(from[0] + i), b = _mm_load_ps(from[1] + i);
        __m128 c = _mm_load_ps(from[2] + i), d = _mm_load_ps(from[3] + i);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_store_ps(to[i], a);
        _mm_store_ps(to[i + 1], b);
        _mm_store_ps(to[i + 2], c);
        _mm_store_ps(to[i + 3], d);
    }
}

/* Before a stretch of n pieces, at `from` in the first of its rows: what is missing behind the last one is 0. */
ALWAYS_INLINE void begin_stretch(icae_dtype dtype, const int columns, const unsigned char *from,
                                 size_t row_bytes, int64_t n, factors *f) {
    if (has_headers(dtype)) {
        if (n % 2) memset(f->headers[n], 0, sizeof f->headers[n]);
        return;
    }
    for (int g = 0; g < columns; g++)
        widen_scales(dtype, from + (size_t)g * row_bytes, n, g, &f->rows);
    gather_scales(n, f->rows.scale, f->scale);
    gather_scales(n, f->rows.offset, f->offset);
    if (n % 2) memset(f->scale[n], 0, sizeof f->scale[n]);
    if (n % 2) memset(f->offset[n], 0, sizeof f->offset[n]);
}

/* Scales and offsets of pieces i and i + 1, of the first in the lower half */
ALWAYS_INLINE void scales_of_pair(icae_dtype dtype, const factors *f, int64_t i, __m256 *scale,
                                  __m256 *offset) {
    if (!has_headers(dtype)) {
        *scale = _mm256_load_ps(f->scale[i]);
        *offset = _mm256_load_ps(f->offset[i]);
        return;
    }
    const __m256i parted =
        _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9,
                         12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i halves = _mm256_load_si256((const __m256i *)(const void *)f->headers[i]);
    halves = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(halves, parted), 0xD8);
    *scale = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    if (dtype == ICAE_DTYPE_Q4_1)
        *offset = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
    else /* Q4_0: d (q - 8) = d q - 8 d, exact either way; Q8_0 has none */
        *offset = _mm256_mul_ps(_mm256_set1_ps(-8), *scale);
}

/* ---- the product ---- */

/* What a pair of pieces adds to the sums of four rows of w, of the first piece in the lower half */
ALWAYS_INLINE __m256 add_pair(icae_dtype dtype, const __m256i first[GROUP],
                              const __m256i second[GROUP], __m256 scale, __m256 offset,
                              const pair *x, __m256 sum) {
    const __m256 e = _mm256_load_ps(x->scales);
    sum = _mm256_fmadd_ps(sums_of_lanes(first), _mm256_mul_ps(scale, e), sum);
    if (dtype == ICAE_DTYPE_Q6_K)
        return _mm256_fmadd_ps(sums_of_lanes(second), _mm256_mul_ps(offset, e), sum);
    if (dtype == ICAE_DTYPE_Q8_0) return sum;
    return _mm256_fmadd_ps(offset, _mm256_load_ps(x->sums), sum);
}

/*
 * y[t + r, c] (+)= x[t + r,:] . w[c,:] for r < rows, c < columns. `next`, rows of w like these, come
 * after them: their headers are collected on the way, which also brings their lines into the cache.
 */
ALWAYS_INLINE void few_tile(icae_dtype dtype, const int columns, const int rows, const few *f,
                            int64_t t, const unsigned char *w, const unsigned char *next,
                            factors *s, real *y) {
    const size_t row_bytes = f->w->row_bytes;
    const int64_t pieces = f->K / WIDE;
    const pair *x = f->x + t;
    __m256 sums[2];
    UNROLL
    for (int r = 0; r < rows; r++)
        sums[r] = _mm256_setzero_ps();
    for (int64_t start = 0; start < pieces; start += PIECES) {
        const int64_t n = least(PIECES, pieces - start);
        const unsigned char *stretch = w + (size_t)start / 8 * bytes_of_eight(dtype);
        const bool is_last = start + PIECES >= pieces;
        const unsigned char *coming = is_last ? next : stretch + (size_t)n * bytes_of_32(dtype);
        /* A row's last stretch may be shorter than this one: beyond it nothing may be read. */
        const int64_t n_coming = is_last ? n : least(n, pieces - start - n);
        begin_stretch(dtype, columns, stretch, row_bytes, n, s);
        for (int64_t i = 0; i < n; i += 2, x += f->T) {
            call_ahead(dtype, columns, 2, w, (start + i) / 2);
            const bool is_half = i + 1 == n;
            __m256i first[2][GROUP], second[2][GROUP];
            __m256 scale, offset;
            scales_of_pair(dtype, s, i, &scale, &offset);
            UNROLL
            for (int g = 0; g < GROUP; g++) {
                __m256i q[4];
                if (g < columns)
                    read_pair(dtype, stretch + (size_t)g * row_bytes, i / 2, is_half, q);
                UNROLL
                for (int r = 0; r < rows; r++) {
                    first[r][g] = second[r][g] = _mm256_setzero_si256();
                    if (g >= columns) continue;
                    first[r][g] = two_products(q, x[r].twos);
                    second[r][g] = two_products(q + 2, x[r].twos + 2);
                    if (dtype != ICAE_DTYPE_Q6_K)
                        first[r][g] = _mm256_add_epi32(first[r][g], second[r][g]);
                }
            }
            UNROLL
            for (int r = 0; r < rows; r++)
                sums[r] = add_pair(dtype, first[r], second[r], scale, offset, x + r, sums[r]);
            if (i < n_coming) collect_headers(dtype, columns, coming, row_bytes, i, i + 1, s);
            if (i + 1 < n_coming)
                collect_headers(dtype, columns, coming, row_bytes, i + 1, i + 2, s);
        }
        if (is_last && start > 0) /* the stretch to come, a row's first, may be longer */
            collect_headers(dtype, columns, next, row_bytes, n, PIECES, s);
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        real *to = y + r * f->N;
        const __m128 sum =
            _mm_add_ps(_mm256_castps256_ps128(sums[r]), _mm256_extractf128_ps(sums[r], 1));
        if (columns == GROUP)
            _mm_storeu_ps(to, f->add ? _mm_add_ps(_mm_loadu_ps(to), sum) : sum);
        else
            *to = f->add ? *to + _mm_cvtss_f32(sum) : _mm_cvtss_f32(sum);
    }
}

/* Columns from .. to-1 of y, in groups of `columns` as far as they go; returns where they end. */
ALWAYS_INLINE int64_t few_groups(icae_dtype dtype, const int columns, const int rows,
                                 const few *f, int64_t t, int64_t from, int64_t to) {
    const int64_t pieces = least(STRETCH, f->K) / WIDE;
    const size_t group_bytes = (size_t)columns * f->w->row_bytes;
    const unsigned char *w = (const unsigned char *)f->w->data + (size_t)from * f->w->row_bytes;
    factors s;
    if (columns < GROUP) memset(&s, 0, sizeof s); /* no noise in the lanes that are not used */
    if (from + columns <= to)
        collect_headers(dtype, columns, w, f->w->row_bytes, 0, pieces, &s);
    int64_t n = from;
    for (; n + columns <= to; n += columns, w += group_bytes) {
        bool is_last = n + 2 * columns > to;
        few_tile(dtype, columns, rows, f, t, w, is_last ? w : w + group_bytes, &s,
                 f->y + t * f->N + n);
    }
    return n;
}

ALWAYS_INLINE void few_part(icae_dtype dtype, const few *f, int64_t from, int64_t to) {
    int64_t t = 0, end;
    for (; t + 2 <= f->T; t += 2) {
        end = few_groups(dtype, GROUP, 2, f, t, from, to);
        few_groups(dtype, 1, 2, f, t, end, to);
    }
    if (t < f->T) {
        end = few_groups(dtype, GROUP, 1, f, t, from, to);
        few_groups(dtype, 1, 1, f, t, end, to);
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

void LEVEL_NAME(icae_cpu_few_int_)(icae_backend *be, int64_t T, int64_t N, int64_t K,
                                   const real *x, const icae_matrix *w, bool add, real *y) {
    const int64_t pairs = (K + PAIR - 1) / PAIR;
    pair *rounded = icae_backend_work_space(be, (size_t)(pairs * T) * sizeof *rounded);
    if (!rounded) return;
    for (int64_t t = 0; t < T; t++)
        round_row(x + t * K, K, T, rounded + t);
    const few f = {T, N, K, rounded, w, add, y};
    const int threads = T * N * K >= FEW_WORTH_THREADS ? be->n_threads : 1;
    const int64_t rows = part_rows(w, threads), parts = (N + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t part = 0; part < parts; part++)
        few_functions[w->dtype](&f, part * rows, least(N, (part + 1) * rows));
    be->k.release(be, rounded);
}

#endif
