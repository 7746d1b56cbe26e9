/* SPDX-License-Identifier: MIT */
/*
 * What the products of few rows (cpu_few.c, cpu_few_int.c) share: in which order a stored matrix is walked,
 * and the scales of its blocks.
 *
 * GROUP rows of w go side by side at most. The scales of a stretch of columns are widened before its
 * values: as f16 among the values they cost more than the values themselves.
 *
 *     scale, offset   two floats for 32 values, whatever the type calls them
 *     value           scale * q + offset; in Q6_K scale (q - 32) and, from the 16th on, offset (q - 32)
 */
#ifndef ICAE_BACKEND_CPU_FEW_H
#define ICAE_BACKEND_CPU_FEW_H

#include "backend/cpu_internal.h"
#include "backend/cpu_widen.h"

enum { GROUP = 4 };
/* Columns whose scales are widened together, and the pieces of 32 values among them. */
enum { STRETCH = 2048, PIECES = STRETCH / WIDE };
/* The rows of w that threads take at a time: half of a second-level cache at most. */
enum { PART_BYTES = 128 << 10 };
/* How far ahead of the sums lines are called for: some hundred nanoseconds of memory's pace. The
 * processor's own prefetching loses its way between four rows at once (2.1 times slower). */
enum { AHEAD_BYTES = 8 << 10, LINE_BYTES = 64 };
/* Multiply-adds below which a team of threads costs more than it gives. */
static const int64_t FEW_WORTH_THREADS = 50000;

ALWAYS_INLINE int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Bytes that eight pieces take: whole blocks in every type. */
ALWAYS_INLINE size_t bytes_of_eight(icae_dtype dtype) {
    switch (dtype) {
#define EIGHT_BYTES(name, values, bytes, safetensors, ggml)                                    \
    case ICAE_DTYPE_##name:                                                                    \
        return (size_t)(8 * WIDE / values) * bytes;
        ICAE_DTYPE_LIST(EIGHT_BYTES)
#undef EIGHT_BYTES
    default:
        return 0;
    }
}

/* Calls for what lies AHEAD_BYTES behind step i, of `pieces` pieces, of a group that begins at w: in the
 * order in which it lies there, not in the order in which it will be used. */
ALWAYS_INLINE void call_ahead(icae_dtype dtype, const int columns, const int pieces,
                              const unsigned char *w, int64_t i) {
    const size_t bytes = (size_t)(columns * pieces) * bytes_of_eight(dtype) / 8;
    const unsigned char *from = w + AHEAD_BYTES + (size_t)i * bytes;
    UNROLL
    for (size_t b = 0; b < bytes; b += LINE_BYTES)
        __builtin_prefetch(from + b);
}

/* Rows of w in a part: whole groups, at most PART_BYTES, and several parts for each thread. */
static inline int64_t part_rows(const icae_matrix *w, int threads) {
    int64_t most = (int64_t)(PART_BYTES / (w->row_bytes + 1));
    int64_t rows = least(most, w->rows / (2 * threads));
    return rows < GROUP ? GROUP : rows / GROUP * GROUP;
}

/* Scale and offset of every piece of a stretch, for GROUP rows side by side. */
typedef struct scales {
    int32_t headers[GROUP][PIECES]
        __attribute__((aligned(64))); /* as stored: what comes next */
    real scale[GROUP][PIECES] __attribute__((aligned(64)));
    real offset[GROUP][PIECES] __attribute__((aligned(64)));
} scales;

/* Types of large blocks, whose scales are widened for a stretch. */
ALWAYS_INLINE bool has_stretches(icae_dtype dtype) {
    return dtype == ICAE_DTYPE_Q4_K || dtype == ICAE_DTYPE_Q5_K || dtype == ICAE_DTYPE_Q6_K;
}

/* Types with one or two f16 in front of every block. */
ALWAYS_INLINE bool has_headers(icae_dtype dtype) {
    return dtype == ICAE_DTYPE_Q8_0 || dtype == ICAE_DTYPE_Q4_0 || dtype == ICAE_DTYPE_Q4_1;
}

/* The four bytes in front of block i, which lies at `from` in the first row. (Where a type has one f16,
 * the other half is noise that nobody looks at.) */
ALWAYS_INLINE void copy_header(const int columns, const unsigned char *from, size_t row_bytes,
                               int64_t i, scales *s) {
    UNROLL
    for (int g = 0; g < columns; g++)
        memcpy(&s->headers[g][i], from + (size_t)g * row_bytes, sizeof s->headers[g][i]);
}

/* The headers of a stretch, all at once: for the first group of a part. */
ALWAYS_INLINE void copy_headers(icae_dtype dtype, const int columns, const unsigned char *from,
                                size_t row_bytes, int64_t first, int64_t n, scales *s) {
    if (!has_headers(dtype)) return;
    for (int64_t i = first; i < n; i++)
        copy_header(columns, from + (size_t)i * bytes_of_32(dtype), row_bytes, i, s);
}

#if HAS_FLOAT_SIMD

/* 16 floats of two vectors: those at even places, and those at odd ones */
ALWAYS_INLINE void part_even_odd(__m256 a, __m256 b, real *even, real *odd) {
    __m256d evens = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88));
    __m256d odds = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xDD));
    _mm256_store_ps(even, _mm256_castpd_ps(_mm256_permute4x64_pd(evens, 0xD8)));
    _mm256_store_ps(odd, _mm256_castpd_ps(_mm256_permute4x64_pd(odds, 0xD8)));
}

/* Eight pieces' headers */
ALWAYS_INLINE void widen_headers(icae_dtype dtype, int64_t i, int g, scales *s) {
    const __m128i *halves = (const __m128i *)(const void *)(s->headers[g] + i);
    part_even_odd(_mm256_cvtph_ps(_mm_load_si128(halves)),
                  _mm256_cvtph_ps(_mm_load_si128(halves + 1)), s->scale[g] + i,
                  s->offset[g] + i);
    if (dtype == ICAE_DTYPE_Q4_0) { /* d (q - 8) = d q - 8 d, exact either way */
        __m256 d = _mm256_load_ps(s->scale[g] + i);
        _mm256_store_ps(s->offset[g] + i, _mm256_mul_ps(_mm256_set1_ps(-8), d));
    }
}

/* The 6-bit scales and mins of Q4_K and Q5_K (formats/dtype_k.c tells how they lie), all at once:
 * 8 bytes of scales, 8 of mins. */
ALWAYS_INLINE __m128i unpack_six_bits(const unsigned char *from) {
    uint32_t low, high, both;
    memcpy(&low, from, 4);
    memcpy(&high, from + 4, 4);
    memcpy(&both, from + 8, 4);
    const uint32_t six = 0x3F3F3F3F, four = 0x0F0F0F0F, two = 0x30303030;
    return _mm_setr_epi32((int)(low & six), (int)((both & four) | (low >> 2 & two)),
                          (int)(high & six), (int)((both >> 4 & four) | (high >> 2 & two)));
}

ALWAYS_INLINE __m256 splat_half(const unsigned char *from) {
    int16_t h;
    memcpy(&h, from, sizeof h);
    return _mm256_cvtph_ps(_mm_set1_epi16(h));
}

/* A block's eight pieces of Q4_K or Q5_K: d s and -dmin m */
ALWAYS_INLINE void widen_min_scales(const unsigned char *block, real *scale, real *offset) {
    const __m256 minus = _mm256_set1_ps(-0.0f);
    __m128i small = unpack_six_bits(block + 4);
    __m256 s = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(small));
    __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(small, small)));
    _mm256_store_ps(scale, _mm256_mul_ps(splat_half(block), s));
    _mm256_store_ps(offset, _mm256_mul_ps(_mm256_xor_ps(splat_half(block + 2), minus), m));
}

/* A block's eight pieces of Q6_K: d s for each half of a piece */
ALWAYS_INLINE void widen_half_scales(const unsigned char *block, real *first, real *second) {
    __m128i s = load_16_bytes(block + 192);
    __m256 d = splat_half(block + 208);
    __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(s));
    __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(s, s)));
    part_even_odd(_mm256_mul_ps(d, low), _mm256_mul_ps(d, high), first, second);
}

/*
 * The scales of pieces 0 .. n-1 of row g, whose stretch begins at `from`. Where the type has headers they
 * are in s already. Up to the next multiple of eight pieces come others of this row, or zeros.
 */
ALWAYS_INLINE void widen_scales(icae_dtype dtype, const unsigned char *from, int64_t n, int g,
                                scales *s) {
    for (int64_t i = 0; i < n; i += 8) {
        const unsigned char *block = from + (size_t)i / 8 * bytes_of_eight(dtype);
        real *scale = s->scale[g] + i, *offset = s->offset[g] + i;
        if (has_headers(dtype)) widen_headers(dtype, i, g, s);
        if (dtype == ICAE_DTYPE_Q4_K || dtype == ICAE_DTYPE_Q5_K)
            widen_min_scales(block, scale, offset);
        if (dtype == ICAE_DTYPE_Q6_K) widen_half_scales(block, scale, offset);
    }
}

/* Four vectors' sums of lanes, in one fixed order. */
ALWAYS_INLINE void four_sums_of_8(const __m256 v[4], real out[4]) {
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    _mm_storeu_ps(out,
                  _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
}

#endif

#endif
