/* SPDX-License-Identifier: MIT */
/*
 * The storage types' table and their plain widening loops; layouts stand in icae/dtype.h.
 * Source of the block formats: ggml's ggml-common.h and gguf.md (facts only).
 */
#include <assert.h>
#include <string.h>

#include "formats/dtype_internal.h"
#include "icae/dtype.h"

static const icae_dtype_info infos[] = {
#define ICAE_DTYPE_INFO(name, values, bytes, safetensors, ggml)                                \
    {#name, values, bytes, safetensors, ggml},
    ICAE_DTYPE_LIST(ICAE_DTYPE_INFO)
#undef ICAE_DTYPE_INFO
};

const icae_dtype_info *icae_dtype_describe(icae_dtype dtype) {
    assert((unsigned)dtype < ICAE_DTYPE_COUNT);
    return &infos[dtype];
}

icae_dtype icae_dtype_from_safetensors(const char *name) {
    for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
        if (infos[d].safetensors_name && !strcmp(infos[d].safetensors_name, name)) {
            return (icae_dtype)d;
        }
    }
    return ICAE_DTYPE_COUNT;
}

icae_dtype icae_dtype_from_ggml(int64_t type) {
    for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
        if (infos[d].ggml_type == type) return (icae_dtype)d;
    }
    return ICAE_DTYPE_COUNT;
}

int icae_dtype_halves(icae_dtype dtype, size_t offsets[2]) {
    static const struct {
        int n;
        size_t offsets[2];
    } halves[ICAE_DTYPE_COUNT] = {
        [ICAE_DTYPE_F16] = {1, {0}},       [ICAE_DTYPE_Q8_0] = {1, {0}},
        [ICAE_DTYPE_Q4_0] = {1, {0}},      [ICAE_DTYPE_Q4_1] = {2, {0, 2}},
        [ICAE_DTYPE_Q5_0] = {1, {0}},      [ICAE_DTYPE_Q5_1] = {2, {0, 2}},
        [ICAE_DTYPE_Q2_K] = {2, {80, 82}}, [ICAE_DTYPE_Q3_K] = {1, {108}},
        [ICAE_DTYPE_Q4_K] = {2, {0, 2}},   [ICAE_DTYPE_Q5_K] = {2, {0, 2}},
        [ICAE_DTYPE_Q6_K] = {1, {208}},
    };
    memcpy(offsets, halves[dtype].offsets, sizeof halves[dtype].offsets);
    return halves[dtype].n;
}

bool icae_dtype_bytes(icae_dtype dtype, int64_t values, size_t *bytes) {
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    if (values < 0 || values % info->block_values) return false;
    return !__builtin_mul_overflow((size_t)(values / info->block_values), info->block_bytes,
                                   bytes);
}

static uint16_t load_u16(const unsigned char *from) {
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static float load_f16(const unsigned char *from) {
    return icae_f16_to_f32(load_u16(from));
}

/* One function per type: a block's bytes -> its values, as float. */
typedef void widen_block(const unsigned char *block, float *out);

static void widen_F32(const unsigned char *block, float *out) {
    memcpy(out, block, sizeof *out);
}

static void widen_F64(const unsigned char *block, float *out) {
    double value;
    memcpy(&value, block, sizeof value);
    *out = (float)value;
}

static void widen_F16(const unsigned char *block, float *out) {
    *out = load_f16(block);
}

static void widen_BF16(const unsigned char *block, float *out) {
    *out = icae_bf16_to_f32(load_u16(block));
}

static void widen_Q8_0(const unsigned char *block, float *out) {
    float d = load_f16(block);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(signed char)block[2 + i];
}

static void widen_Q4_0(const unsigned char *block, float *out) {
    float d = load_f16(block);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((block[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((block[2 + i] >> 4) - 8);
    }
}

static void widen_Q4_1(const unsigned char *block, float *out) {
    float d = load_f16(block), m = load_f16(block + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(block[4 + i] & 15) + m;
        out[i + 16] = d * (float)(block[4 + i] >> 4) + m;
    }
}

/* Five bits: 16 bytes of nibbles as in Q4_0, and a bit for each value in 4 bytes before them. */
static int five_bits(const unsigned char *bits, int i) {
    int nibble = i < 16 ? bits[4 + i] & 15 : bits[4 + i - 16] >> 4;
    return nibble | (bits[i / 8] >> i % 8 & 1) << 4;
}

static void widen_Q5_0(const unsigned char *block, float *out) {
    float d = load_f16(block);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(five_bits(block + 2, i) - 16);
}

static void widen_Q5_1(const unsigned char *block, float *out) {
    float d = load_f16(block), m = load_f16(block + 2);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)five_bits(block + 4, i) + m;
}

typedef void widen_part(const unsigned char *block, int part, float *out);

enum { PART = 32, LARGEST_BLOCK = 256 };

static void widen_parts(widen_part *widen, const unsigned char *block, float *out) {
    for (int part = 0; part < LARGEST_BLOCK / PART; part++)
        widen(block, part, out + part * PART);
}

#define WIDEN_K(name)                                                                          \
    static void widen_##name(const unsigned char *block, float *out) {                         \
        widen_parts(icae_widen_part_##name, block, out);                                       \
    }
WIDEN_K(Q2_K)
WIDEN_K(Q3_K)
WIDEN_K(Q4_K)
WIDEN_K(Q5_K)
WIDEN_K(Q6_K)
#undef WIDEN_K

static widen_block *const widen_blocks[] = {
#define ICAE_DTYPE_WIDEN(name, values, bytes, safetensors, ggml) widen_##name,
    ICAE_DTYPE_LIST(ICAE_DTYPE_WIDEN)
#undef ICAE_DTYPE_WIDEN
};

static widen_part *const widen_parts_of[ICAE_DTYPE_COUNT] = {
    [ICAE_DTYPE_Q2_K] = icae_widen_part_Q2_K, [ICAE_DTYPE_Q3_K] = icae_widen_part_Q3_K,
    [ICAE_DTYPE_Q4_K] = icae_widen_part_Q4_K, [ICAE_DTYPE_Q5_K] = icae_widen_part_Q5_K,
    [ICAE_DTYPE_Q6_K] = icae_widen_part_Q6_K,
};

void icae_dtype_widen_f32(icae_dtype dtype, const void *data, int64_t count, float *out) {
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    assert(count % info->block_values == 0);
    const unsigned char *block = data;
    for (int64_t i = 0; i < count; i += info->block_values) {
        widen_blocks[dtype](block, out + i);
        block += info->block_bytes;
    }
}

void icae_dtype_widen(icae_dtype dtype, const void *data, int64_t count, icae_real *out) {
#if ICAE_REAL_IS_DOUBLE
    if (dtype == ICAE_DTYPE_F64) {
        memcpy(out, data, (size_t)count * sizeof *out);
        return;
    }
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    assert(count % info->block_values == 0);
    const unsigned char *block = data;
    for (int64_t i = 0; i < count; i += info->block_values) {
        float values[LARGEST_BLOCK];
        widen_blocks[dtype](block, values);
        for (int64_t j = 0; j < info->block_values; j++)
            out[i + j] = (icae_real)values[j];
        block += info->block_bytes;
    }
#else
    icae_dtype_widen_f32(dtype, data, count, out);
#endif
}

void icae_dtype_widen_32(icae_dtype dtype, const void *data, int64_t start, icae_real *out) {
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    assert(start % PART == 0);
    const unsigned char *block =
        (const unsigned char *)data + (size_t)(start / info->block_values) * info->block_bytes;
    if (!widen_parts_of[dtype]) {
        icae_dtype_widen(dtype, block, PART, out);
        return;
    }
    float values[PART];
    widen_parts_of[dtype](block, (int)(start % info->block_values) / PART, values);
    for (int i = 0; i < PART; i++)
        out[i] = (icae_real)values[i];
}
