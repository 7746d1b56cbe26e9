/* SPDX-License-Identifier: MIT */
/*
 * The storage types' table and their plain widening loops; layouts stand in icae/dtype.h.
 * Source of the block formats: ggml's ggml-common.h and gguf.md (facts only).
 */
#include <assert.h>
#include <string.h>

#include "icae/dtype.h"
#include "icae/half.h"

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
        if (infos[d].ggml_type == type && type >= 0) return (icae_dtype)d;
    }
    return ICAE_DTYPE_COUNT;
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

static widen_block *const widen_blocks[] = {
#define ICAE_DTYPE_WIDEN(name, values, bytes, safetensors, ggml) widen_##name,
    ICAE_DTYPE_LIST(ICAE_DTYPE_WIDEN)
#undef ICAE_DTYPE_WIDEN
};

enum { LARGEST_BLOCK = 256 };

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
