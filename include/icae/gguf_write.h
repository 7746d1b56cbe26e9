/* SPDX-License-Identifier: MIT */
/*
 * Writing GGUF files (version 3, little-endian): metadata of every type and tensors of every type that
 * dtype.h lists, streamed, whole or not at all.
 *
 *     icae_gguf_writer writer;
 *     icae_gguf_begin(&writer, path);
 *     icae_gguf_put_string(&writer, "general.architecture", "llama");
 *     icae_gguf_put_tensor(&writer, "a", ICAE_DTYPE_F32, 2, (const int64_t[]){3, 5});
 *     icae_gguf_write_data(&writer, values, 3 * 5 * sizeof *values);
 *     if (icae_gguf_commit(&writer, &error)) ...
 *
 * First all metadata and all descriptions of tensors, in any order among themselves, then the tensors'
 * bytes in the order in which they were described, in pieces of any size: nothing but the header is
 * kept in memory. The first failure is kept and every later call does nothing, so a run of calls needs
 * one check, at commit. Equal calls give equal bytes. Source: ggml's docs/gguf.md.
 */
#ifndef ICAE_GGUF_WRITE_H
#define ICAE_GGUF_WRITE_H

#include "icae/gguf.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_gguf_plan { /* a tensor that was described */
    char *name;
    size_t offset, bytes; /* offset counts from where the data begins */
} icae_gguf_plan;

typedef struct icae_gguf_writer {
    char *path;
    icae_text items, descriptions; /* as they will stand in the file */
    char **keys;                   /* what was put so far; freed at the end */
    size_t n_keys, room_keys;
    icae_gguf_plan *tensors;
    size_t n_tensors, room_tensors;
    size_t alignment; /* of every tensor; 32, or what the key general.alignment was put as */
    bool has_header;  /* written: no more keys and tensors */
    size_t tensor, written; /* which tensor's data comes next, and how much of it is there */
    icae_writer out;
    icae_error error; /* the first failure */
} icae_gguf_writer;

/* Nothing is opened before the first data. Must end with commit or abort. */
void icae_gguf_begin(icae_gguf_writer *writer, const char *path);

/* Metadata. Keys must differ. An item as the reader gives it: any type, arrays too (but no arrays of
 * arrays), numbers little-endian in item->raw. So a file's metadata can be copied item by item. The key
 * general.alignment is obeyed; it comes before any tensor. */
void icae_gguf_put_item(icae_gguf_writer *writer, const icae_gguf_item *item);
void icae_gguf_put_string(icae_gguf_writer *writer, const char *key, const char *value);
void icae_gguf_put_u32(icae_gguf_writer *writer, const char *key, uint32_t value);
void icae_gguf_put_u64(icae_gguf_writer *writer, const char *key, uint64_t value);
void icae_gguf_put_f32(icae_gguf_writer *writer, const char *key, float value);
void icae_gguf_put_bool(icae_gguf_writer *writer, const char *key, bool value);
/* An array of 0-terminated strings. */
void icae_gguf_put_strings(icae_gguf_writer *writer, const char *key, const char *const *values,
                           size_t count);

/* Describes a tensor: shape [rank], slow axis first as everywhere in this library; every dimension at
 * least 1, rows whole blocks of the type. */
void icae_gguf_put_tensor(icae_gguf_writer *writer, const char *name, icae_dtype dtype,
                          int rank, const int64_t *shape);

/* The next `bytes` of tensor data; a piece must not reach over a tensor's end. */
void icae_gguf_write_data(icae_gguf_writer *writer, const void *data, size_t bytes);

/* Refuses a file whose data is not complete. Both release the writer. */
icae_status icae_gguf_commit(icae_gguf_writer *writer, icae_error *error);
void icae_gguf_abort(icae_gguf_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
