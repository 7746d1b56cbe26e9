/* SPDX-License-Identifier: MIT */
/* What the reader and the writer of GGUF share: limits, and sizes of metadata values. */
#ifndef ICAE_FORMATS_GGUF_INTERNAL_H
#define ICAE_FORMATS_GGUF_INTERNAL_H

#include "icae/gguf.h"

enum {
    GGUF_DEFAULT_ALIGNMENT = 32,
    GGUF_LEAST_ALIGNMENT = 8,
    GGUF_MOST_ALIGNMENT = 1 << 20,
    GGUF_LONGEST_NAME = 65535, /* bytes of a key or tensor name */
    GGUF_TYPE_COUNT = ICAE_GGUF_F64 + 1
};

/* Bytes of one value; 0 for what has no fixed size. */
static const size_t icae_gguf_value_bytes[GGUF_TYPE_COUNT] = {
    [ICAE_GGUF_U8] = 1,  [ICAE_GGUF_I8] = 1,     [ICAE_GGUF_U16] = 2,   [ICAE_GGUF_I16] = 2,
    [ICAE_GGUF_U32] = 4, [ICAE_GGUF_I32] = 4,    [ICAE_GGUF_F32] = 4,   [ICAE_GGUF_BOOL] = 1,
    [ICAE_GGUF_U64] = 8, [ICAE_GGUF_STRING] = 0, [ICAE_GGUF_ARRAY] = 0, [ICAE_GGUF_I64] = 8,
    [ICAE_GGUF_F64] = 8,
};

/* Whether general.alignment may have this value: a power of two within the limits. */
static inline bool icae_gguf_is_alignment(int64_t value) {
    return value >= GGUF_LEAST_ALIGNMENT && value <= GGUF_MOST_ALIGNMENT &&
           (value & (value - 1)) == 0;
}

#endif
