/* SPDX-License-Identifier: MIT */
/*
 * Stored weights -> vectors of reals, 32 values at a time, for the level-compiled files.
 *
 * 32 values are one row of a panel (cpu_linear.c), and one block of most quantised types or an eighth of
 * the others'.
 * The results equal icae_dtype_widen's bit for bit: d * q is exact in float (11 bits times at most
 * 8), so d * q + m rounds once with or without a fused multiply-add.
 */
#ifndef ICAE_BACKEND_CPU_WIDEN_H
#define ICAE_BACKEND_CPU_WIDEN_H

#include "backend/cpu_vector.h"
#include "icae/dtype.h"
#include "icae/half.h"

enum { WIDE = 32, WIDE_VECS = WIDE / VL };

/* Values in a block, and bytes that 32 values of smaller blocks take; constants where dtype is one. */
ALWAYS_INLINE int block_values_of(icae_dtype dtype) {
    switch (dtype) {
#define BLOCK_VALUES(name, values, bytes, safetensors, ggml)                                   \
    case ICAE_DTYPE_##name:                                                                    \
        return values;
        ICAE_DTYPE_LIST(BLOCK_VALUES)
#undef BLOCK_VALUES
    default:
        return 0;
    }
}

ALWAYS_INLINE size_t bytes_of_32(icae_dtype dtype) {
    switch (dtype) {
#define BYTES_OF_32(name, values, bytes, safetensors, ggml)                                    \
    case ICAE_DTYPE_##name:                                                                    \
        return (size_t)(WIDE / values) * bytes;
        ICAE_DTYPE_LIST(BYTES_OF_32)
#undef BYTES_OF_32
    default:
        return 0;
    }
}

#if HAS_FLOAT_SIMD

/* The f16 at `from` in every lane. Spread as stored, then converted: fewer shuffles than the other
 * way round. */
ALWAYS_INLINE vec splat_f16(const unsigned char *from) {
    int16_t h;
    memcpy(&h, from, sizeof h);
#if VECTOR_BYTES == 64
    return (vec)_mm512_cvtph_ps(_mm256_set1_epi16(h));
#else
    return (vec)_mm256_cvtph_ps(_mm_set1_epi16(h));
#endif
}

/* The same for two f16 that stand side by side. */
ALWAYS_INLINE void splat_f16_pair(const unsigned char *from, vec *first, vec *second) {
    int32_t pair;
    memcpy(&pair, from, sizeof pair);
#if VECTOR_BYTES == 64
    __m512 both = _mm512_cvtph_ps(_mm256_set1_epi32(pair));
    *first = (vec)_mm512_moveldup_ps(both);
    *second = (vec)_mm512_movehdup_ps(both);
#else
    __m256 both = _mm256_cvtph_ps(_mm_set1_epi32(pair));
    *first = (vec)_mm256_moveldup_ps(both);
    *second = (vec)_mm256_movehdup_ps(both);
#endif
}

ALWAYS_INLINE __m128i load_16_bytes(const unsigned char *from) {
    return _mm_loadu_si128((const __m128i *)(const void *)from);
}

/* 16 integers of one byte -> 16 floats in 16/VL vectors */
ALWAYS_INLINE void floats_of_u8(__m128i bytes, vec *out) {
#if VECTOR_BYTES == 64
    out[0] = (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
#else
    out[0] = (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    out[1] = (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)));
#endif
}

ALWAYS_INLINE void floats_of_s8(__m128i bytes, vec *out) {
#if VECTOR_BYTES == 64
    out[0] = (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#else
    out[0] = (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    out[1] = (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)));
#endif
}

/* 16 nibbles: the low ones, then the high ones, as the blocks store them */
ALWAYS_INLINE void floats_of_nibbles(const unsigned char *from, vec out[WIDE_VECS]) {
    const __m128i mask = _mm_set1_epi8(15);
    __m128i bytes = load_16_bytes(from);
    floats_of_u8(_mm_and_si128(bytes, mask), out);
    floats_of_u8(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask), out + WIDE_VECS / 2);
}

/* VL values of two bytes */
ALWAYS_INLINE vec floats_of_f16(const unsigned char *from) {
#if VECTOR_BYTES == 64
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
#else
    return (vec)_mm256_cvtph_ps(load_16_bytes(from));
#endif
}

ALWAYS_INLINE vec floats_of_bf16(const unsigned char *from) {
#if VECTOR_BYTES == 64
    __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)from);
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#else
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16_bytes(from)), 16);
#endif
}

/* Here and in store_32 without memcpy or a loop that GCC takes for one: it would go through memory
 * in halves, which stall on their way back (at AVX2, 4 times slower). */
ALWAYS_INLINE void floats_of_f32(const unsigned char *from, vec out[WIDE_VECS]) {
    const float *values = (const float *)(const void *)from;
#if VECTOR_BYTES == 64
    out[0] = (vec)_mm512_loadu_ps(values);
    out[1] = (vec)_mm512_loadu_ps(values + 16);
#else
    out[0] = (vec)_mm256_loadu_ps(values);
    out[1] = (vec)_mm256_loadu_ps(values + 8);
    out[2] = (vec)_mm256_loadu_ps(values + 16);
    out[3] = (vec)_mm256_loadu_ps(values + 24);
#endif
}

ALWAYS_INLINE void store_32(real *to, const vec wide[WIDE_VECS]) {
    store(to, wide[0]);
    store(to + VL, wide[1]);
#if VECTOR_BYTES == 32
    store(to + 2 * VL, wide[2]);
    store(to + 3 * VL, wide[3]);
#endif
}

ALWAYS_INLINE void widen_32(icae_dtype dtype, const unsigned char *from, vec out[WIDE_VECS]) {
    switch (dtype) {
    case ICAE_DTYPE_F32:
        floats_of_f32(from, out);
        break;
    case ICAE_DTYPE_F16:
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            out[i] = floats_of_f16(from + i * VL * 2);
        break;
    case ICAE_DTYPE_BF16:
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            out[i] = floats_of_bf16(from + i * VL * 2);
        break;
    case ICAE_DTYPE_Q8_0: {
        vec d = splat_f16(from);
        floats_of_s8(load_16_bytes(from + 2), out);
        floats_of_s8(load_16_bytes(from + 18), out + WIDE_VECS / 2);
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            out[i] = d * out[i];
        break;
    }
    case ICAE_DTYPE_Q4_0: {
        vec d = splat_f16(from);
        floats_of_nibbles(from + 2, out);
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            out[i] = d * (out[i] - 8.0f);
        break;
    }
    case ICAE_DTYPE_Q4_1: {
        vec d, m;
        splat_f16_pair(from, &d, &m);
        floats_of_nibbles(from + 4, out);
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            out[i] = d * out[i] + m;
        break;
    }
    default:
        icae_dtype_widen(dtype, from, WIDE, (real *)out);
        break;
    }
}

#else

/* Plain loops that the compiler turns into the baseline's vectors; what has no such loop goes
 * through the formats' own function. */
ALWAYS_INLINE void widen_32(icae_dtype dtype, const unsigned char *from, vec out[WIDE_VECS]) {
    real values[WIDE];
    uint16_t scale, least;
    memcpy(&scale, from, sizeof scale);
    memcpy(&least, from + 2, sizeof least);
    switch (ICAE_REAL_IS_DOUBLE ? ICAE_DTYPE_COUNT : dtype) {
    case ICAE_DTYPE_Q8_0: {
        real d = icae_f16_to_f32(scale);
        for (int i = 0; i < WIDE; i++)
            values[i] = d * (real)(signed char)from[2 + i];
        break;
    }
    case ICAE_DTYPE_Q4_0: {
        real d = icae_f16_to_f32(scale);
        for (int i = 0; i < WIDE / 2; i++) {
            values[i] = d * (real)((from[2 + i] & 15) - 8);
            values[i + WIDE / 2] = d * (real)((from[2 + i] >> 4) - 8);
        }
        break;
    }
    case ICAE_DTYPE_Q4_1: {
        real d = icae_f16_to_f32(scale), m = icae_f16_to_f32(least);
        for (int i = 0; i < WIDE / 2; i++) {
            values[i] = d * (real)(from[4 + i] & 15) + m;
            values[i + WIDE / 2] = d * (real)(from[4 + i] >> 4) + m;
        }
        break;
    }
    default:
        icae_dtype_widen(dtype, from, WIDE, values);
        break;
    }
    memcpy(out, values, sizeof values);
}

ALWAYS_INLINE void store_32(real *to, const vec wide[WIDE_VECS]) {
    memcpy(to, wide, WIDE * sizeof *to);
}

#endif

/* The values from column k on, a multiple of 32, of a row that is stored at `row`. */
ALWAYS_INLINE void widen_at(icae_dtype dtype, const unsigned char *row, int64_t k,
                            vec out[WIDE_VECS]) {
    if (block_values_of(dtype) > WIDE)
        icae_dtype_widen_32(dtype, row, k, (real *)out);
    else
        widen_32(dtype, row + (size_t)(k / WIDE) * bytes_of_32(dtype), out);
}

#endif
