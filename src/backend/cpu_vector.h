/* SPDX-License-Identifier: MIT */
/*
 * Vectors of `real` as wide as the level's registers, for the files compiled once per level.
 *
 * GCC's vector extension carries the arithmetic, so one source serves every level and both
 * precisions; intrinsics stand only where the extension has no word for it. VL is the number of
 * reals in a vector: 16, 8 or 4 floats.
 *
 * load_some and store_some move the first n <= VL values; lanes past n are 0 when loaded. A loop
 * over a row calls them at one place, so that a value's bits do not depend on where it stands.
 */
#ifndef ICAE_BACKEND_CPU_VECTOR_H
#define ICAE_BACKEND_CPU_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined __SSE2__
#include <immintrin.h>
#endif

#include "icae/real.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define PASTE_AGAIN(a, b) a##b
#define PASTE(a, b)       PASTE_AGAIN(a, b)
#define LEVEL_NAME(name)  PASTE(name, ICAE_LEVEL) /* icae_cpu_simd_ -> icae_cpu_simd_avx2 */

/* A loop of a few constant steps, wholly; a loop of many, four steps at a time */
#if defined __clang__
#define UNROLL      _Pragma("clang loop unroll(full)")
#define UNROLL_FOUR _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL      _Pragma("GCC unroll 32")
#define UNROLL_FOUR _Pragma("GCC unroll 4")
#endif

#if defined __AVX512DQ__
#define VECTOR_BYTES 64
#elif defined __AVX2__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

/* Levels with hardware for eight or more floats have hand-written widening and transposing. */
#if defined __AVX2__ && !ICAE_REAL_IS_DOUBLE
#define HAS_FLOAT_SIMD 1
#else
#define HAS_FLOAT_SIMD 0
#endif

typedef icae_real real;
#if ICAE_REAL_IS_DOUBLE
typedef int64_t lane_int;
#else
typedef int32_t lane_int;
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef real vec_anywhere
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef lane_int ivec __attribute__((vector_size(VECTOR_BYTES)));

enum { VL = VECTOR_BYTES / sizeof(real) };

ALWAYS_INLINE real real_sqrt(real a) {
#if ICAE_REAL_IS_DOUBLE
    return sqrt(a);
#else
    return sqrtf(a);
#endif
}

ALWAYS_INLINE vec load(const real *from) {
    return *(const vec_anywhere *)from;
}

ALWAYS_INLINE void store(real *to, vec v) {
    *(vec_anywhere *)to = v;
}

ALWAYS_INLINE vec load_some(const real *from, int64_t n) {
    if (n >= VL) return load(from);
    vec v = {0};
    memcpy(&v, from, (size_t)n * sizeof(real));
    return v;
}

ALWAYS_INLINE void store_some(real *to, vec v, int64_t n) {
    if (n >= VL) {
        store(to, v);
    } else {
        memcpy(to, &v, (size_t)n * sizeof(real));
    }
}

ALWAYS_INLINE vec splat(real value) {
    return value - (vec){0};
}

/* mask's lanes are all ones or all zeros, as comparisons give them */
ALWAYS_INLINE vec choose(ivec mask, vec yes, vec no) {
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

/* The larger; b where either is NaN. */
ALWAYS_INLINE vec larger(vec a, vec b) {
#if HAS_FLOAT_SIMD && VECTOR_BYTES == 64
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif HAS_FLOAT_SIMD
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return choose(a > b, a, b);
#endif
}

/* The smaller; b where either is NaN. */
ALWAYS_INLINE vec smaller(vec a, vec b) {
#if HAS_FLOAT_SIMD && VECTOR_BYTES == 64
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif HAS_FLOAT_SIMD
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return choose(a < b, a, b);
#endif
}

/* Lanes 0..n-1 of v, `other` in the rest. */
ALWAYS_INLINE vec first_lanes(vec v, int64_t n, real other) {
    if (n >= VL) return v;
    vec rest = splat(other);
    memcpy(&rest, &v, (size_t)n * sizeof(real));
    return rest;
}

/* Sum of the lanes, halves first: one fixed order for each level. */
ALWAYS_INLINE real lane_sum(vec v) {
    real lanes[VL];
    memcpy(lanes, &v, sizeof v);
    UNROLL
    for (int half = VL / 2; half > 0; half /= 2) {
        UNROLL
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

ALWAYS_INLINE real lane_max(vec v) {
    real lanes[VL];
    memcpy(lanes, &v, sizeof v);
    real best = lanes[0];
    for (int i = 1; i < VL; i++)
        best = lanes[i] > best ? lanes[i] : best;
    return best;
}

/* Unsigned 64-bit lanes, for counter-based random numbers. */
typedef uint64_t uvec __attribute__((vector_size(VECTOR_BYTES)));
enum { UVL = VECTOR_BYTES / 8 };

/* Products of the lanes' low 32 bits; the high 32 bits of a and b may hold anything. */
ALWAYS_INLINE uvec multiply_low_halves(uvec a, uvec b) {
#if defined __AVX512DQ__
    return (uvec)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined __AVX2__
    return (uvec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined __SSE2__
    return (uvec)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

/*
 * exp of every lane, to 2 ulp in float.
 *
 *     x = n ln 2 + r, |r| <= ln 2 / 2;  exp(x) = 2^n exp(r), exp(r) by its series to r^7
 *
 * ln 2 is split in two so that n ln 2 is exact to more than float's bits. 2^n is applied in two
 * halves, so subnormal results and overflow to infinity come out as they should. The clamps let
 * NaN through: larger and smaller return their second argument for it. -104 is below the log of
 * half the least subnormal, 89 above the log of the largest float.
 */
ALWAYS_INLINE vec vector_exp(vec x) {
#if ICAE_REAL_IS_DOUBLE
    vec out;
    for (int i = 0; i < VL; i++)
        out[i] = exp(x[i]);
    return out;
#else
    x = smaller(splat(89.0f), larger(splat(-104.0f), x));
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    vec shifted = x * 1.44269504f + round;
    vec n = shifted - round;
    vec r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    vec p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* The integer stands in the low bits of `shifted`. For NaN the bits mean nothing, but p is NaN. */
    ivec whole = (ivec)shifted - 0x4B400000;
    ivec half = whole >> 1;
    vec first = (vec)((half + 127) << 23), second = (vec)((whole - half + 127) << 23);
    return p * first * second;
#endif
}

#endif
