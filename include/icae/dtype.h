/* SPDX-License-Identifier: MIT */
/*
 * Storage types of tensors, and the way from any of them to numbers.
 *
 * One list says everything a storage type needs: adding a type is one row here, one widen function
 * in src/formats/dtype.c, and one test case (tests/golden/blocks.json). Block formats follow ggml's
 * layout (ggml-common.h):
 *
 *     Q8_0  32 values: f16 scale d, 32 signed bytes q           value = d * q
 *     Q4_0  32 values: f16 d, 16 bytes; byte j holds value j (low nibble) and j + 16 (high)
 *                                                               value = d * (nibble - 8)
 *     Q4_1  32 values: f16 d, f16 m, 16 bytes as in Q4_0        value = d * nibble + m
 *     Q5_0  32 values: f16 d, 4 bytes of fifth bits (bit j of value j), 16 bytes as in Q4_0
 *                                                               value = d * (q - 16)
 *     Q5_1  32 values: f16 d, f16 m, then as in Q5_0            value = d * q + m
 *     Q2_K .. Q6_K  256 values, see src/formats/dtype_k.c
 */
#ifndef ICAE_DTYPE_H
#define ICAE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/real.h"
#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name, values per block, bytes per block, safetensors name or NULL, ggml type number or -1 */
#define ICAE_DTYPE_LIST(X)                                                                     \
    X(F32, 1, 4, "F32", 0)                                                                     \
    X(F64, 1, 8, "F64", 28)                                                                    \
    X(F16, 1, 2, "F16", 1)                                                                     \
    X(BF16, 1, 2, "BF16", 30)                                                                  \
    X(Q8_0, 32, 34, NULL, 8)                                                                   \
    X(Q4_0, 32, 18, NULL, 2)                                                                   \
    X(Q4_1, 32, 20, NULL, 3)                                                                   \
    X(Q5_0, 32, 22, NULL, 6)                                                                   \
    X(Q5_1, 32, 24, NULL, 7)                                                                   \
    X(Q2_K, 256, 84, NULL, 10)                                                                 \
    X(Q3_K, 256, 110, NULL, 11)                                                                \
    X(Q4_K, 256, 144, NULL, 12)                                                                \
    X(Q5_K, 256, 176, NULL, 13)                                                                \
    X(Q6_K, 256, 210, NULL, 14)

typedef enum icae_dtype {
#define ICAE_DTYPE_ENUM(name, values, bytes, safetensors, ggml) ICAE_DTYPE_##name,
    ICAE_DTYPE_LIST(ICAE_DTYPE_ENUM)
#undef ICAE_DTYPE_ENUM
        ICAE_DTYPE_COUNT
} icae_dtype;

#ifdef ICAE_F64
#define ICAE_DTYPE_REAL ICAE_DTYPE_F64
#else
#define ICAE_DTYPE_REAL ICAE_DTYPE_F32
#endif

typedef struct icae_dtype_info {
    const char *name;     /* "Q4_1" */
    int64_t block_values; /* 1 for plain types */
    size_t block_bytes;
    const char *safetensors_name; /* NULL: cannot stand in a safetensors file */
    int ggml_type;                /* its number in a GGUF */
} icae_dtype_info;

const icae_dtype_info *icae_dtype_describe(icae_dtype dtype);
/* ICAE_DTYPE_COUNT when unknown */
icae_dtype icae_dtype_from_safetensors(const char *name);
icae_dtype icae_dtype_from_ggml(int64_t type);

/* Where in a block its f16 numbers stand, the scale first: the count of them. All other bytes may hold
 * anything. So that a test can make sensible blocks of any type. */
int icae_dtype_halves(icae_dtype dtype, size_t offsets[2]);

/* Bytes of `values` consecutive values; false when not a whole number of blocks or too large. */
bool icae_dtype_bytes(icae_dtype dtype, int64_t values, size_t *bytes);

/*
 * Widens `count` stored values to real (or to float): out[i] = value i. `data` points to the start
 * of a block and count is a multiple of block_values. The plain C reference of every type; the
 * fast kernels are tested against it.
 */
void icae_dtype_widen(icae_dtype dtype, const void *data, int64_t count, icae_real *out);
void icae_dtype_widen_f32(icae_dtype dtype, const void *data, int64_t count, float *out);
/* The same for the 32 values from `start` on, a multiple of 32, in any type; data is where value 0 of
 * the row stands. So a 256-value block need not be widened whole. */
void icae_dtype_widen_32(icae_dtype dtype, const void *data, int64_t start, icae_real *out);

#ifdef __cplusplus
}
#endif
#endif
