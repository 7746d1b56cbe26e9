/* SPDX-License-Identifier: MIT */
/*
 * Products of stored weights in integers, of few rows (cpu_few_int.c) and of many (cpu_linear_int.c): x in 16
 * bits, and the weights' integers in the same order.
 *
 * Every 32 values of x, a piece, share a float: e = max |x| / 32767, and stand as X = round(x / e). A
 * piece of w is integers q, a scale and an offset, so that
 *
 *     x^ . w = sum over pieces   e scale (sum of X q)  +  offset (e sum of X)
 *
 * The sums in brackets are exact: VPMADDWD multiplies 16 pairs and adds neighbours, twice what float
 * multiply-adds do, and 4-bit weights need no more than shifting and masking for it. The only rounding
 * of an input is that of x: at most e/2, half of 2^-15 of the largest value of the piece, some 1e-5 of a result.
 *
 * A weight of a byte or less lies in words of 16 bits with its neighbour, so evens and odds are taken out of
 * them one after the other, and x is laid out like that: a piece has 16 twos, pairs of 16-bit values that
 * one VPMADDWD lane multiplies,
 *
 *     twos 0-3    evens of the first 16 values: (x0, x2), (x4, x6), (x8, x10), (x12, x14)
 *     twos 4-7    odds of them
 *     twos 8-15   the same of the second 16
 *
 * and two pieces stand side by side, one in each half of a register.
 *
 * Both products take what a piece adds to a sum in the same way and order, so a row of x gives the same bits
 * alone, among few and among many. Pieces 0, 2, 4, ... have one sum, the others a second one, which is added at the
 * end; a piece makes
 *
 *     sum = fma(real(sum of X q), scale e, sum);   sum = fma(offset, e sum of X, sum)
 *
 * (in Q6_K the first line for each half of the piece, and no second one).
 *
 * A piece with an infinity or a NaN has e = NaN, which reaches every y of the row. One whose largest
 * value is below SMALLEST counts as zero.
 */
#ifndef ICAE_BACKEND_CPU_INT_H
#define ICAE_BACKEND_CPU_INT_H

#include <math.h>

#include "backend/cpu_few.h"

#if HAS_FLOAT_SIMD

/* Values in two pieces; twos in one */
enum { PAIR = 2 * WIDE, TWOS = WIDE / 2, X_MAX = 32767 };
static const real SMALLEST = 0x1p-100f;

/* sum + two neighbouring products of 16 bits in every lane of 32 */
#if defined __AVX512VNNI__ && defined __AVX512VL__
#define add_two(sum, a, b) _mm256_dpwssd_epi32(sum, a, b)
#else
#define add_two(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#endif

/* ---- x ---- */

/* The largest |x| of 32, as its bits: in their order NaN comes after infinity. */
ALWAYS_INLINE int32_t largest_bits(const __m256 v[4]) {
    const __m256i no_sign = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i most = _mm256_setzero_si256();
    UNROLL
    for (int i = 0; i < 4; i++)
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(v[i]), no_sign));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}

/* 16 values times `inverse`, rounded: those at even places, then those at odd ones */
ALWAYS_INLINE __m256i round_16(__m256 a, __m256 b, __m256 inverse) {
    const __m256i evens_first =
        _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9,
                         12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(a, inverse)),
                                       _mm256_cvtps_epi32(_mm256_mul_ps(b, inverse)));
    words = _mm256_shuffle_epi8(words, evens_first);
    return _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* A piece of x: its 16 twos in out, and its scale; returns e sum of X. */
ALWAYS_INLINE real round_piece(const real *x, __m256i out[2], real *scale) {
    __m256 v[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_loadu_ps(x + 8 * i);
    const int32_t bits = largest_bits(v);
    real largest, inverse = 0;
    memcpy(&largest, &bits, sizeof largest);
    *scale = 0;
    if (!isfinite(largest)) {
        *scale = NAN;
        memset(v, 0, sizeof v);
    } else if (largest >= SMALLEST) {
        *scale = largest / X_MAX;
        inverse = X_MAX / largest;
    }
    const __m256 times = _mm256_set1_ps(inverse);
    out[0] = round_16(v[0], v[1], times);
    out[1] = round_16(v[2], v[3], times);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums =
        _mm256_add_epi32(_mm256_madd_epi16(out[0], ones), _mm256_madd_epi16(out[1], ones));
    __m128i sum =
        _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return *scale * (real)_mm_cvtsi128_si32(sum);
}

/* ---- w: the twos of two pieces, of the first in lower halves and of the second in upper ones ---- */

ALWAYS_INLINE __m256i load_halves(const unsigned char *first, const unsigned char *second) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_16_bytes(first)),
                                   load_16_bytes(second), 1);
}

/* Bytes without sign: evens and odds */
ALWAYS_INLINE void part_u8(__m256i bytes, __m256i out[2]) {
    out[0] = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
    out[1] = _mm256_srli_epi16(bytes, 8);
}

ALWAYS_INLINE void part_s8(__m256i bytes, __m256i out[2]) {
    out[0] = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
    out[1] = _mm256_srai_epi16(bytes, 8);
}

/* Q4_0, Q4_1: 16 bytes of a piece hold its first values below and its second above. */
ALWAYS_INLINE void read_nibbles(const unsigned char *first, const unsigned char *second,
                                __m256i out[4]) {
    const __m256i mask = _mm256_set1_epi16(15);
    __m256i words = load_halves(first, second);
    out[0] = _mm256_and_si256(words, mask);
    out[1] = _mm256_and_si256(_mm256_srli_epi16(words, 8), mask);
    out[2] = _mm256_and_si256(_mm256_srli_epi16(words, 4), mask);
    out[3] = _mm256_srli_epi16(words, 12);
}

/* The same bits of 16 bytes twice, shifted by `left` for the first piece and `right` for the second */
ALWAYS_INLINE __m256i shift_halves(const unsigned char *from, int left, int right) {
    __m256i both = _mm256_broadcastsi128_si256(load_16_bytes(from));
    return _mm256_srlv_epi64(both, _mm256_setr_epi64x(left, left, right, right));
}

/* Q4_K, Q5_K: 32 bytes hold a piece below and the next above; Q5_K has fifth bits in bit `part` of 32
 * others. */
ALWAYS_INLINE void read_fives(const unsigned char *nibbles, const unsigned char *fifths,
                              int part, __m256i out[4]) {
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m256i q =
            _mm256_and_si256(shift_halves(nibbles + 16 * h, 0, 4), _mm256_set1_epi8(15));
        if (fifths) {
            __m256i fifth = _mm256_and_si256(shift_halves(fifths + 16 * h, part, part + 1),
                                             _mm256_set1_epi8(1));
            q = _mm256_or_si256(q, _mm256_slli_epi16(fifth, 4));
        }
        part_u8(q, out + 2 * h);
    }
}

/* Q6_K: pieces `part` and the next; nibbles, two more bits, 32 taken off */
ALWAYS_INLINE void read_sixes(const unsigned char *block, int part, __m256i out[4]) {
    const unsigned char *low = block + 64 * (part / 4), *high = block + 128 + 32 * (part / 4);
    const __m256i mask = _mm256_set1_epi8(15), upper = _mm256_set1_epi8(48);
    const __m128i low_shift = _mm_cvtsi32_si128(part % 4 / 2 * 4);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m256i q = load_halves(low + 16 * h, low + 32 + 16 * h);
        q = _mm256_and_si256(_mm256_srl_epi16(q, low_shift), mask);
        __m256i two = shift_halves(high + 16 * h, part % 4 * 2, part % 4 * 2 + 2);
        two = _mm256_and_si256(_mm256_slli_epi16(two, 4), upper);
        q = _mm256_sub_epi8(_mm256_or_si256(q, two), _mm256_set1_epi8(32));
        part_s8(q, out + 2 * h);
    }
}

/* Pieces 2i and 2i+1 of a row. Where the row ends between them, the first stands for the second: x is
 * zero there. */
ALWAYS_INLINE void read_pair(icae_dtype dtype, const unsigned char *row, int64_t i,
                             bool is_half, __m256i out[4]) {
    const unsigned char *first = row + (size_t)(2 * i) * bytes_of_32(dtype);
    const unsigned char *second = first + (is_half ? 0 : bytes_of_32(dtype));
    const unsigned char *block = row + (size_t)(i / 4) * bytes_of_eight(dtype);
    const int part = (int)(i % 4 * 2);
    switch (dtype) {
    case ICAE_DTYPE_Q4_1:
        read_nibbles(first + 4, second + 4, out);
        break;
    case ICAE_DTYPE_Q4_0:
        read_nibbles(first + 2, second + 2, out);
        break;
    case ICAE_DTYPE_Q8_0:
        part_s8(load_halves(first + 2, second + 2), out);
        part_s8(load_halves(first + 18, second + 18), out + 2);
        break;
    case ICAE_DTYPE_Q4_K:
        read_fives(block + 16 + 16 * part, NULL, part, out);
        break;
    case ICAE_DTYPE_Q5_K:
        read_fives(block + 48 + 16 * part, block + 16, part, out);
        break;
    default: /* Q6_K */
        read_sixes(block, part, out);
        break;
    }
}

#endif

#endif
