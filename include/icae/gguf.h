/* SPDX-License-Identifier: MIT */
/*
 * GGUF files (versions 2 and 3, little-endian): metadata and tensors, mapped read-only.
 *
 * ggml writes shapes with the contiguous axis first; here they are turned round once, so shape[0]
 * is the slow axis as everywhere else ([out, in] for weights). Everything is bounds-checked before
 * open returns: counts against the bytes that are left, offsets and sizes against the file, the
 * alignment as the metadata says. Source: ggml's docs/gguf.md.
 */
#ifndef ICAE_GGUF_H
#define ICAE_GGUF_H

#include "icae/dtype.h"
#include "icae/file.h"
#include "icae/memory.h"
#include "icae/safetensors.h" /* ICAE_MAX_RANK */

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_gguf_type { /* numbers of the format */
                              ICAE_GGUF_U8,
                              ICAE_GGUF_I8,
                              ICAE_GGUF_U16,
                              ICAE_GGUF_I16,
                              ICAE_GGUF_U32,
                              ICAE_GGUF_I32,
                              ICAE_GGUF_F32,
                              ICAE_GGUF_BOOL,
                              ICAE_GGUF_STRING,
                              ICAE_GGUF_ARRAY,
                              ICAE_GGUF_U64,
                              ICAE_GGUF_I64,
                              ICAE_GGUF_F64
} icae_gguf_type;

typedef struct icae_gguf_string { /* not 0-terminated; in the mapping */
    const char *data;
    size_t bytes;
} icae_gguf_string;

typedef struct icae_gguf_item {
    const char *key;
    icae_gguf_type type;
    icae_gguf_type element_type;     /* of an array (arrays of arrays are refused) */
    uint64_t count;                  /* 1, or the array's */
    const void *raw;                 /* the numbers as they stand in the file, unaligned */
    const icae_gguf_string *strings; /* for strings and arrays of strings: count of them */
} icae_gguf_item;

typedef struct icae_gguf_tensor {
    const char *name;
    icae_dtype dtype;
    int rank;
    int64_t shape[ICAE_MAX_RANK]; /* slow axis first */
    const void *data;
    size_t bytes;
} icae_gguf_tensor;

typedef struct icae_gguf {
    icae_mapping mapping;
    icae_arena arena;
    uint32_t version;
    icae_gguf_item *items; /* file order */
    size_t n_items;
    icae_gguf_tensor *tensors; /* file order */
    size_t n_tensors;
    const icae_gguf_item **items_by_key; /* the same, sorted: for icae_gguf_item_find */
    const icae_gguf_tensor **tensors_by_name;
} icae_gguf;

/* A tensor of a type that dtype.h does not list is refused by name: ICAE_UNSUPPORTED. */
icae_status icae_gguf_open(icae_gguf *file, const char *path, icae_error *error);
void icae_gguf_close(icae_gguf *file);

const icae_gguf_tensor *icae_gguf_find(const icae_gguf *file, const char *name);
const icae_gguf_item *icae_gguf_item_find(const icae_gguf *file, const char *key);
/* Number at index of any numeric item (bool counts as 0/1); false when it is not one. A float is
 * no integer, nor is a u64 above INT64_MAX. */
bool icae_gguf_integer(const icae_gguf_item *item, uint64_t index, int64_t *out);
bool icae_gguf_number(const icae_gguf_item *item, uint64_t index, double *out);
/* By key; a missing key or another type: false and *out untouched. */
bool icae_gguf_get_integer(const icae_gguf *file, const char *key, int64_t *out);
bool icae_gguf_get_number(const icae_gguf *file, const char *key, double *out);
bool icae_gguf_get_string(const icae_gguf *file, const char *key, icae_gguf_string *out);

#ifdef __cplusplus
}
#endif
#endif
