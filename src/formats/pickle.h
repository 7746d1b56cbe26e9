/* SPDX-License-Identifier: MIT */
/*
 * The part of Python's pickle language that torch.save speaks. Private to this folder.
 *
 * A pickle is a program for a stack machine that may name any Python function and have it called. Nothing
 * is called here: the names below are recognised, and stand for what they would build; every other name
 * and every other opcode is refused by name.
 *
 *     collections OrderedDict                    an empty dictionary
 *     torch FloatStorage, DoubleStorage, ...     the type in the persistent id of a storage
 *     torch._utils _rebuild_tensor_v2            (storage, offset, shape, strides, ...) -> tensor
 *     torch._utils _rebuild_parameter            (tensor, ...) -> that tensor
 *
 * Opcodes: those of protocols 2 to 5 for numbers, strings, tuples, lists, dictionaries, the memo, frames,
 * names, REDUCE, BINPERSID and BUILD (whose state, PyTorch's _metadata, is dropped).
 *
 * Bounds: there is no recursion; values nest at most 64 deep; a pickle has at most 64 MiB; a byte of
 * it makes at most one value, one stack place and one cell (28 bytes), in tables that are doubled when full:
 * under 100 bytes of memory for each byte.
 * Source: CPython, Lib/pickletools.py; PyTorch, torch/serialization.py and torch/_utils.py.
 */
#ifndef ICAE_FORMATS_PICKLE_H
#define ICAE_FORMATS_PICKLE_H

#include "icae/safetensors.h" /* ICAE_MAX_RANK */

/* class in torch, bytes per value, our type or ICAE_DTYPE_COUNT */
#define PICKLE_STORAGE_LIST(X)                                                                 \
    X(FloatStorage, 4, ICAE_DTYPE_F32)                                                         \
    X(DoubleStorage, 8, ICAE_DTYPE_F64)                                                        \
    X(HalfStorage, 2, ICAE_DTYPE_F16)                                                          \
    X(BFloat16Storage, 2, ICAE_DTYPE_BF16)                                                     \
    X(LongStorage, 8, ICAE_DTYPE_COUNT)                                                        \
    X(IntStorage, 4, ICAE_DTYPE_COUNT)                                                         \
    X(ShortStorage, 2, ICAE_DTYPE_COUNT)                                                       \
    X(CharStorage, 1, ICAE_DTYPE_COUNT)                                                        \
    X(ByteStorage, 1, ICAE_DTYPE_COUNT)                                                        \
    X(BoolStorage, 1, ICAE_DTYPE_COUNT)

typedef enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_FLOAT,
    PICKLE_STRING,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,   /* cells: key, value, key, value, ... */
    PICKLE_GLOBAL, /* a name of the list above */
    PICKLE_STORAGE,
    PICKLE_TENSOR,
    PICKLE_KIND_COUNT
} pickle_kind;

typedef uint32_t pickle_ref; /* index of a value */

typedef struct pickle_value {
    uint8_t kind;
    uint8_t depth;  /* 0: holds no other */
    uint8_t global; /* GLOBAL: which name; STORAGE: which class */
    uint32_t n;     /* cells; bytes of a string */
    union {
        int64_t integer;
        double number;
        const char *text; /* in the pickle, not ended by 0 */
        struct {
            uint32_t first, last; /* cells */
        } cells;
        uint32_t index; /* of a tensor, or of a storage */
    } as;
} pickle_value;

typedef struct pickle_cell {
    pickle_ref value;
    uint32_t next;
} pickle_cell;

typedef struct pickle_storage {
    const unsigned char *data;
    int64_t values;
} pickle_storage;

typedef struct pickle_tensor {
    const char *type; /* "FloatStorage" */
    icae_dtype dtype; /* ICAE_DTYPE_COUNT: integers or truth values */
    int rank;
    int64_t shape[ICAE_MAX_RANK];
    bool is_contiguous;
    const void *data;
    size_t bytes; /* when contiguous */
} pickle_tensor;

/* Asked for every persistent id: the bytes of the storage of that name (not ended by 0). */
typedef icae_status pickle_storage_source(void *user, const char *key, size_t key_bytes,
                                          const unsigned char **data, size_t *bytes,
                                          icae_error *error);

typedef struct pickle {
    const char *path; /* for messages: "FILE: data.pkl" */
    pickle_value *values;
    pickle_cell *cells;
    pickle_storage *storages;
    pickle_tensor *tensors;
    size_t n_values, n_cells, n_storages, n_tensors;
    size_t value_room, cell_room, storage_room, tensor_room;
} pickle;

/* Runs the pickle; *top is its value. On failure too the caller releases. */
icae_status icae_pickle_read(pickle *p, const char *path, const unsigned char *data,
                             size_t bytes, pickle_storage_source *source, void *user,
                             pickle_ref *top, icae_error *error);
void icae_pickle_release(pickle *p);
const char *icae_pickle_kind_name(pickle_kind kind); /* "dictionary" */

#endif
