/* SPDX-License-Identifier: MIT */
/* Conversions between float and the two 16-bit formats: bfloat16 and IEEE 754 binary16. */
#ifndef ICAE_HALF_H
#define ICAE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float icae_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Nearest, ties to even; a NaN stays a (quiet) NaN. */
static inline uint16_t icae_f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static inline float icae_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7FFFu, bits;
    if (rest >= 0x7C00u) { /* infinity, NaN */
        bits = sign | 0x7F800000u | (rest & 0x3FFu) << 13;
    } else if (rest >= 0x400u) { /* normal: move the exponent's bias from 15 to 127 */
        bits = sign | ((rest << 13) + 0x38000000u);
    } else { /* zero, subnormal: rest * 2^-24 is exact in float */
        float f = (float)rest * 0x1.0p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Nearest, ties to even; too large becomes infinity. */
static inline uint16_t icae_f32_to_f16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
    if (rest > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
    if (rest >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);
    if (rest < 0x38800000u) { /* subnormal: adding 0.5 lets the adder round at 2^-24 */
        float magnitude;
        memcpy(&magnitude, &rest, sizeof magnitude);
        magnitude += 0.5f;
        memcpy(&rest, &magnitude, sizeof rest);
        return (uint16_t)(sign | (rest - 0x3F000000u));
    }
    rest += 0xC8000FFFu + (rest >> 13 & 1u);
    return (uint16_t)(sign | rest >> 13);
}

#endif
