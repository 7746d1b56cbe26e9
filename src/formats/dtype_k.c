/* SPDX-License-Identifier: MIT */
/*
 * ggml's "K" types: blocks of 256 values in 8 parts of 32, each part with scales of its own (or one for
 * each half), which are themselves small integers times the block's f16 scale. Widened part by part,
 * because the kernels take 32 values at a time. Numbers of bytes, from a block's start:
 *
 *     Q2_K   16 scales, 64 of 2-bit q, d, dmin      d (s & 15) q - dmin (s >> 4)
 *     Q3_K   32 of high bits, 64 of 2-bit q, 12 of 6-bit scales, d
 *                                                   d (s - 32) (q - 4 unless the high bit is set)
 *     Q4_K   d, dmin, 12 of 6-bit scales and mins, 128 of nibbles
 *                                                   d s q - dmin m
 *     Q5_K   d, dmin, 12 of 6-bit scales and mins, 32 of fifth bits, 128 of nibbles
 *                                                   d s q - dmin m
 *     Q6_K   128 of nibbles, 64 of bit pairs above, 16 signed scales, d
 *                                                   d s (q - 32)
 *
 * All products are exact in float (11 bits of d, at most 7 of a scale, at most 5 of q), so only the
 * subtraction rounds, and a fused multiply-add changes nothing. They are multiplied from the left, so
 * that zeros get the sign that other readers give them.
 * Source of the layouts: ggml's ggml-common.h (facts only).
 */
#include <string.h>

#include "formats/dtype_internal.h"

enum { PART = 32, HALF = 16 };

static float load_f16(const unsigned char *from) {
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return icae_f16_to_f32(value);
}

/* 2-bit values: a part takes one bit pair of each of 32 bytes, four parts share the bytes. */
static int two_bits(const unsigned char *bytes, int part, int i) {
    return bytes[PART * (part / 4) + i] >> 2 * (part % 4) & 3;
}

/* Nibbles: an even part takes the low ones of 32 bytes, the odd part after it the high ones. */
static int nibble(const unsigned char *bytes, int part, int i) {
    return bytes[PART * (part / 2) + i] >> 4 * (part % 2) & 15;
}

void icae_widen_part_Q2_K(const unsigned char *block, int part, float *out) {
    const unsigned char *scales = block, *values = block + 16;
    float d = load_f16(block + 80), least = load_f16(block + 82);
    for (int i = 0; i < PART; i++) {
        int s = scales[2 * part + i / HALF];
        float factor = d * (float)(s & 15);
        out[i] = factor * (float)two_bits(values, part, i) - least * (float)(s >> 4);
    }
}

/* 16 scales of 6 bits in 12 bytes: low nibbles in the first 8, bit pairs above them in the last 4. */
static int q3_scale(const unsigned char *scales, int i) {
    int low = scales[i % 8] >> 4 * (i / 8) & 15;
    return (low | (scales[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32;
}

void icae_widen_part_Q3_K(const unsigned char *block, int part, float *out) {
    const unsigned char *high = block, *values = block + 32, *scales = block + 96;
    float d = load_f16(block + 108);
    for (int i = 0; i < PART; i++) {
        float factor = d * (float)q3_scale(scales, 2 * part + i / HALF);
        int q = two_bits(values, part, i) - (high[i] >> part & 1 ? 0 : 4);
        out[i] = factor * (float)q;
    }
}

/* Of the 8 scales and 8 mins of 6 bits, the first four of each are the low bits of bytes 0-3 and 4-7; the
 * others have a nibble in bytes 8-11 and their upper pair where the first ones left room. */
static void scale_and_min(const unsigned char *bytes, int part, float *scale, float *min) {
    int s, m;
    if (part < 4) {
        s = bytes[part] & 63;
        m = bytes[part + 4] & 63;
    } else {
        s = (bytes[part + 4] & 15) | (bytes[part - 4] >> 6) << 4;
        m = bytes[part + 4] >> 4 | (bytes[part] >> 6) << 4;
    }
    *scale = (float)s;
    *min = (float)m;
}

void icae_widen_part_Q4_K(const unsigned char *block, int part, float *out) {
    float scale, min;
    scale_and_min(block + 4, part, &scale, &min);
    float factor = load_f16(block) * scale, least = load_f16(block + 2) * min;
    for (int i = 0; i < PART; i++)
        out[i] = factor * (float)nibble(block + 16, part, i) - least;
}

void icae_widen_part_Q5_K(const unsigned char *block, int part, float *out) {
    float scale, min;
    scale_and_min(block + 4, part, &scale, &min);
    float factor = load_f16(block) * scale, least = load_f16(block + 2) * min;
    for (int i = 0; i < PART; i++) {
        int fifth = block[16 + i] >> part & 1;
        out[i] = factor * (float)(nibble(block + 48, part, i) | fifth << 4) - least;
    }
}

/* Here parts 0, 1 take the low nibbles of 64 bytes and parts 2, 3 the high ones. */
void icae_widen_part_Q6_K(const unsigned char *block, int part, float *out) {
    const unsigned char *low = block + 64 * (part / 4) + PART * (part % 2);
    int shift = 4 * (part % 4 / 2);
    float d = load_f16(block + 208);
    for (int i = 0; i < PART; i++) {
        float factor = d * (float)(signed char)block[192 + 2 * part + i / HALF];
        int q = (low[i] >> shift & 15) | two_bits(block + 128, part, i) << 4;
        out[i] = factor * (float)(q - 32);
    }
}
