/* SPDX-License-Identifier: MIT */
/*
 * Products of few rows with stored weights (linear_few): token by token, memory sets the pace, so the
 * weights are read once, as they are stored, and widened in registers. Compiled once per level.
 *
 *     y[t, n] (+)= x[t,:] . w[n,:]        one vector of sums for every t and n, lanes added at the end
 *
 * GROUP rows of w go side by side, so that x is loaded once for all of them, and up to MANY rows of x, so
 * that a weight is widened once for all of them.
 *
 * From AVX2 on this is for plain types and rare ones, and quantised weights are multiplied in integers
 * (cpu_linear_int.c).
 *
 * On processors that multiply bfloat16 a second copy of this file makes linear_few_bf16: rows of x are rounded
 * once, weights after widening, and VDPBF16PS takes two products to each of 16 float sums. One sequence alone
 * gains nothing by it, memory and widening set the pace; eight side by side do. With 16 floats to a vector a
 * nibble needs no conversion: all 16 values that a block can hold are made by one multiply-add, and the
 * nibbles pick among them. What comes out of widening equals icae_dtype_widen's bits in every type.
 *
 * The sums of a row of x are the same chain of multiply-adds wherever it stands. Threads share the rows
 * of w, in parts that stay in the second-level cache while all rows of x pass by.
 */
#include <assert.h>

#include "backend/cpu_few.h"

#if defined __AVX512BF16__
#define IS_BF16 1
typedef uint16_t input; /* bfloat16 */
#else
#define IS_BF16 0
typedef real input;
#endif

/* In bf16 quantised types are widened by tables of scales, otherwise they are multiplied
 * in integers; without vectors of the processor's own the one way to widen is as good as any. */
#define HAS_TABLES  (HAS_FLOAT_SIMD && IS_BF16)
#define HAS_INTEGER (HAS_FLOAT_SIMD && !IS_BF16)

/* Rows of w, and rows of x with them: a vector of sums for each pair. With more rows of x than FEW_AT_ONCE
 * registers suffice for PAIR rows of w only. (Eight at once do not pay in float: multiply-adds take longer
 * than widening twice.) */
enum { FEW_AT_ONCE = VECTOR_BYTES == 64 ? 4 : 2, PAIR = 2, MANY = IS_BF16 ? 8 : 4 };

typedef struct few {
    int64_t T, N, K;
    const input *x; /* [T][x_row] */
    int64_t x_row;
    const icae_matrix *w;
    bool add;
    real *y;
} few;

/* Types whose scales are widened for a stretch at a time. */
ALWAYS_INLINE bool is_by_stretches(icae_dtype dtype) {
    return HAS_TABLES && (has_headers(dtype) || has_stretches(dtype));
}

#if HAS_TABLES

/* scale q + offset of 32 integers of four bits: bits `shift` .. shift + 3 of 16 bytes at `first`, then of
 * 16 at `second` with its own shift */
ALWAYS_INLINE void pick_nibbles(const unsigned char *first, int first_shift,
                                const unsigned char *second, int second_shift, real scale,
                                real offset, vec out[WIDE_VECS]) {
    const __m512 count = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 values = _mm512_fmadd_ps(count, _mm512_set1_ps(scale), _mm512_set1_ps(offset));
    __m512i left = _mm512_cvtepu8_epi32(load_16_bytes(first));
    __m512i right = first == second ? left : _mm512_cvtepu8_epi32(load_16_bytes(second));
    if (first_shift) left = _mm512_srli_epi32(left, 4);
    if (second_shift) right = _mm512_srli_epi32(right, 4);
    out[0] = (vec)_mm512_permutexvar_ps(left, values);
    out[1] = (vec)_mm512_permutexvar_ps(right, values);
}

/* One piece of Q5_K: nibbles and, in bit `part` of 32 bytes, the fifth bits. */
ALWAYS_INLINE void pick_fives(const unsigned char *block, int part, real scale, real offset,
                              vec out[WIDE_VECS]) {
    const unsigned char *nibbles = block + 48 + 32 * (part / 2);
    const __m128i mask = _mm_set1_epi8(15), sixteen = _mm_set1_epi8(16);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m128i low = load_16_bytes(nibbles + 16 * h),
                fifth = load_16_bytes(block + 16 + 16 * h);
        low = _mm_and_si128(_mm_srl_epi16(low, _mm_cvtsi32_si128(4 * (part % 2))), mask);
        fifth = _mm_srl_epi16(fifth, _mm_cvtsi32_si128(part));
        fifth = _mm_and_si128(_mm_slli_epi16(fifth, 4), sixteen);
        floats_of_u8(_mm_or_si128(low, fifth), out + h * WIDE_VECS / 2);
    }
    UNROLL
    for (int i = 0; i < WIDE_VECS; i++)
        out[i] = splat(scale) * out[i] + splat(offset);
}

/* One piece of Q6_K: nibbles, two more bits, 32 taken off, a scale for each half. */
ALWAYS_INLINE void pick_sixes(const unsigned char *block, int part, real first, real second,
                              vec out[WIDE_VECS]) {
    const unsigned char *low = block + 64 * (part / 4) + 32 * (part % 2);
    const unsigned char *high = block + 128 + 32 * (part / 4);
    const __m128i mask = _mm_set1_epi8(15), upper = _mm_set1_epi8(48);
    const __m128i low_shift = _mm_cvtsi32_si128(part % 4 / 2 * 4);
    const __m128i high_shift = _mm_cvtsi32_si128(part % 4 * 2);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m128i q = _mm_and_si128(_mm_srl_epi16(load_16_bytes(low + 16 * h), low_shift), mask);
        __m128i pairs = _mm_srl_epi16(load_16_bytes(high + 16 * h), high_shift);
        q = _mm_or_si128(q, _mm_and_si128(_mm_slli_epi16(pairs, 4), upper));
        q = _mm_sub_epi8(q, _mm_set1_epi8(32));
        floats_of_s8(q, out + h * WIDE_VECS / 2);
        UNROLL
        for (int i = 0; i < WIDE_VECS / 2; i++)
            out[h * WIDE_VECS / 2 + i] *= h ? second : first;
    }
}

/* The 32 values from column k on of a row, whose scale and offset are known. */
ALWAYS_INLINE void read_32(icae_dtype dtype, const unsigned char *row, int64_t k,
                           const scales *s, int g, int64_t i, vec out[WIDE_VECS]) {
    const real scale = s->scale[g][i], offset = s->offset[g][i];
    const unsigned char *block = row + (size_t)k / WIDE * bytes_of_32(dtype);
    const unsigned char *large = row + (size_t)k / (8 * WIDE) * bytes_of_eight(dtype);
    const int part = (int)(k / WIDE % 8);
    switch (dtype) {
    case ICAE_DTYPE_Q4_1:
        pick_nibbles(block + 4, 0, block + 4, 4, scale, offset, out);
        break;
    case ICAE_DTYPE_Q4_0:
        pick_nibbles(block + 2, 0, block + 2, 4, scale, offset, out);
        break;
    case ICAE_DTYPE_Q8_0:
        floats_of_s8(load_16_bytes(block + 2), out);
        floats_of_s8(load_16_bytes(block + 18), out + WIDE_VECS / 2);
        UNROLL
        for (int j = 0; j < WIDE_VECS; j++)
            out[j] *= splat(scale);
        break;
    case ICAE_DTYPE_Q4_K:
        large += 16 + 32 * (part / 2);
        pick_nibbles(large, 4 * (part % 2), large + 16, 4 * (part % 2), scale, offset, out);
        break;
    case ICAE_DTYPE_Q5_K:
        pick_fives(large, part, scale, offset, out);
        break;
    case ICAE_DTYPE_Q6_K:
        pick_sixes(large, part, scale, offset, out);
        break;
    default:
        widen_at(dtype, row, k, out);
        break;
    }
}

#else

ALWAYS_INLINE void read_32(icae_dtype dtype, const unsigned char *row, int64_t k,
                           const scales *s, int g, int64_t i, vec out[WIDE_VECS]) {
    (void)s, (void)g, (void)i;
    widen_at(dtype, row, k, out);
}

#endif

/* Four vectors' sums of lanes, in one fixed order for each level. */
ALWAYS_INLINE void four_lane_sums(const vec v[GROUP], real out[GROUP]) {
#if HAS_FLOAT_SIMD
    __m256 half[GROUP];
    UNROLL
    for (int g = 0; g < GROUP; g++) {
#if VECTOR_BYTES == 64
        half[g] = _mm256_add_ps(_mm512_castps512_ps256((__m512)v[g]),
                                _mm512_extractf32x8_ps((__m512)v[g], 1));
#else
        half[g] = (__m256)v[g];
#endif
    }
    four_sums_of_8(half, out);
#else
    UNROLL
    for (int g = 0; g < GROUP; g++)
        out[g] = lane_sum(v[g]);
#endif
}

/* A vector of sums, and what 32 weights times 32 values of x add to it. */
ALWAYS_INLINE vec add_products(vec sum, const vec wide[WIDE_VECS], const input *x) {
#if IS_BF16
    __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)wide[1], (__m512)wide[0]);
    return (vec)_mm512_dpbf16_ps((__m512)sum, rounded, (__m512bh)_mm512_loadu_si512(x));
#else
    UNROLL
    for (int j = 0; j < WIDE_VECS; j++)
        sum += wide[j] * load(x + j * VL);
    return sum;
#endif
}

/* Columns k .. K-1, fewer than 32, which only plain types have. */
ALWAYS_INLINE void add_rest(icae_dtype dtype, const int columns, const int rows, int64_t k,
                            const few *f, const input *x, const unsigned char *w,
                            vec sums[MANY][GROUP]) {
    const int64_t n = f->K - k;
    UNROLL
    for (int g = 0; g < columns; g++) {
        real values[WIDE] = {0};
        input rest[WIDE] = {0};
        vec wide[WIDE_VECS];
        const unsigned char *from = w + (size_t)g * f->w->row_bytes;
        icae_dtype_widen(dtype, from + (size_t)(k / WIDE) * bytes_of_32(dtype), n, values);
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            wide[i] = load(values + i * VL);
        UNROLL
        for (int r = 0; r < rows; r++) {
            memcpy(rest, x + r * f->x_row + k, (size_t)n * sizeof *rest);
            sums[r][g] = add_products(sums[r][g], wide, rest);
        }
    }
}

/*
 * y[r, c] (+)= x[r,:] . w[c,:] for r < rows, c < columns. `next`, rows of w like these, come after
 * them: their headers are collected on the way, which also brings their lines into the cache.
 */
ALWAYS_INLINE void few_tile(icae_dtype dtype, const int columns, const int rows, const few *f,
                            const input *x, const unsigned char *w, const unsigned char *next,
                            scales *s, real *y) {
    const size_t row_bytes = f->w->row_bytes, step = bytes_of_32(dtype);
    const bool has_next = is_by_stretches(dtype) && has_headers(dtype);
    const int64_t whole = f->K / WIDE * WIDE;
    /* One pointer for three rows: with a pointer for each, the addresses spill. */
    const input *at[(MANY + 2) / 3];
    UNROLL
    for (int i = 0; i < (rows + 2) / 3; i++)
        at[i] = x + 3 * i * f->x_row;
    vec sums[MANY][GROUP] = {{{0}}};
    for (int64_t start = 0; start < whole; start += STRETCH) {
        const int64_t n = least(STRETCH, whole - start) / WIDE;
        const bool is_last = start + STRETCH >= whole;
        const unsigned char *coming = is_last ? next : w + (size_t)(start / WIDE + n) * step;
        /* A row's last stretch may be shorter than this one: beyond it nothing may be read. */
        const int64_t n_coming = is_last ? n : least(n, (whole - start) / WIDE - n);
#if HAS_TABLES
        const unsigned char *stretch = w + (size_t)start / (8 * WIDE) * bytes_of_eight(dtype);
        for (int g = 0; is_by_stretches(dtype) && g < columns; g++)
            widen_scales(dtype, stretch + (size_t)g * row_bytes, n, g, s);
#endif
        for (int64_t i = 0; i < n; i++) {
            const int64_t k = start + i * WIDE;
            call_ahead(dtype, columns, 1, w, k / WIDE);
            UNROLL
            for (int g = 0; g < columns; g++) {
                vec wide[WIDE_VECS];
                read_32(dtype, w + (size_t)g * row_bytes, k, s, g, i, wide);
                UNROLL
                for (int r = 0; r < rows; r++)
                    sums[r][g] = add_products(sums[r][g], wide, at[r / 3] + r % 3 * f->x_row);
            }
            UNROLL
            for (int j = 0; j < (rows + 2) / 3; j++)
                at[j] += WIDE;
            if (has_next && i < n_coming)
                copy_header(columns, coming + (size_t)i * step, row_bytes, i, s);
        }
        if (has_next && is_last &&
            start > 0) /* the stretch to come, a row's first, may be longer */
            copy_headers(dtype, columns, next, row_bytes, n, PIECES, s);
    }
    if (whole < f->K) add_rest(dtype, columns, rows, whole, f, x, w, sums);
    UNROLL
    for (int r = 0; r < rows; r++) {
        real row[GROUP];
        four_lane_sums(sums[r], row);
        for (int g = 0; g < columns; g++) {
            real *to = y + r * f->N + g;
            *to = f->add ? *to + row[g] : row[g];
        }
    }
}

/* Columns from .. to-1 of y, in groups of `columns` as far as they go; returns where they end. */
ALWAYS_INLINE int64_t few_groups(icae_dtype dtype, const int columns, const int rows,
                                 const few *f, const input *x, int64_t from, int64_t to,
                                 real *y) {
    const int64_t pieces = least(STRETCH, f->K) / WIDE;
    const size_t group_bytes = (size_t)columns * f->w->row_bytes;
    const unsigned char *w = (const unsigned char *)f->w->data + (size_t)from * f->w->row_bytes;
    scales s;
    if (is_by_stretches(dtype)) memset(s.headers, 0, sizeof s.headers);
    if (is_by_stretches(dtype) && from + columns <= to)
        copy_headers(dtype, columns, w, f->w->row_bytes, 0, pieces, &s);
    int64_t n = from;
    for (; n + columns <= to; n += columns, w += group_bytes) {
        bool is_last = n + 2 * columns > to;
        few_tile(dtype, columns, rows, f, x, w, is_last ? w : w + group_bytes, &s, y + n);
    }
    return n;
}

ALWAYS_INLINE void few_rows(icae_dtype dtype, const int rows, const few *f, const input *x,
                            int64_t from, int64_t to, real *y) {
    from = few_groups(dtype, rows > FEW_AT_ONCE ? PAIR : GROUP, rows, f, x, from, to, y);
    few_groups(dtype, 1, rows, f, x, from, to, y);
}

ALWAYS_INLINE void few_part(icae_dtype dtype, const few *f, int64_t from, int64_t to) {
    if (HAS_INTEGER && (has_headers(dtype) || has_stretches(dtype))) return;
    int64_t rows;
    for (int64_t t = 0; t < f->T; t += rows) {
        const input *x = f->x + t * f->x_row;
        real *y = f->y + t * f->N;
        rows = f->T - t >= MANY ? MANY : least(FEW_AT_ONCE, f->T - t);
        switch (rows) {
        case MANY:
            few_rows(dtype, MANY, f, x, from, to, y);
            break;
#if IS_BF16
        case 4:
            few_rows(dtype, 4, f, x, from, to, y);
            break;
#endif
#if VECTOR_BYTES == 64
        case 3:
            few_rows(dtype, 3, f, x, from, to, y);
            break;
#endif
        case 2:
            few_rows(dtype, 2, f, x, from, to, y);
            break;
        default:
            few_rows(dtype, 1, f, x, from, to, y);
            break;
        }
    }
}

/* One function for each type, so that the type is a constant inside the loops. */
#define FEW(name, values, bytes, safetensors, ggml)                                            \
    static void few_##name(const few *f, int64_t from, int64_t to) {                           \
        few_part(ICAE_DTYPE_##name, f, from, to);                                              \
    }
ICAE_DTYPE_LIST(FEW)
#undef FEW
static void (*const few_functions[])(const few *, int64_t, int64_t) = {
#define FEW(name, values, bytes, safetensors, ggml) few_##name,
    ICAE_DTYPE_LIST(FEW)
#undef FEW
};

static void multiply(icae_backend *be, const few *f) {
    const int threads = f->T * f->N * f->K >= FEW_WORTH_THREADS ? be->n_threads : 1;
    const int64_t rows = part_rows(f->w, threads), parts = (f->N + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t part = 0; part < parts; part++)
        few_functions[f->w->dtype](f, part * rows, least(f->N, (part + 1) * rows));
}

#if IS_BF16

static void linear_few_bf16(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                            const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    const int64_t x_row = (K + WIDE - 1) / WIDE * WIDE; /* whole cache lines */
    input *rounded = icae_backend_work_space(be, (size_t)(T * x_row) * sizeof *rounded);
    if (!rounded) return;
    for (int64_t t = 0; t < T; t++) {
        for (int64_t k = 0; k < K; k++)
            rounded[t * x_row + k] = icae_f32_to_bf16(x[t * K + k]);
    }
    multiply(be, &(few){T, N, K, rounded, x_row, w, add, y});
    be->k.release(be, rounded);
}

void LEVEL_NAME(icae_cpu_few_)(icae_kernels *table) {
    table->linear_few_bf16 = linear_few_bf16;
}

#else

void LEVEL_NAME(icae_cpu_linear_few_)(icae_backend *be, int64_t T, int64_t N, int64_t K,
                                      const real *x, const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    multiply(be, &(few){T, N, K, x, K, w, add, y});
}

void LEVEL_NAME(icae_cpu_few_)(icae_kernels *table) {
    table->linear_few = LEVEL_NAME(icae_cpu_linear_few_);
}

#endif
