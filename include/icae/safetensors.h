/* SPDX-License-Identifier: MIT */
/*
 * Safetensors files: reading (mapped, validated whole before first use) and writing.
 *
 *     8 bytes   header length N, little-endian
 *     N bytes   JSON: {"__metadata__": {string: string}, NAME: {"dtype", "shape", "data_offsets"}}
 *     rest      tensor bytes, little-endian, without holes or overlaps
 *
 * Source: github.com/huggingface/safetensors, "Format". The rules kept here: N <= 100 MB, no
 * duplicate keys, offsets inside the file, size = product of shape * dtype size, every byte of the
 * buffer covered exactly once.
 */
#ifndef ICAE_SAFETENSORS_H
#define ICAE_SAFETENSORS_H

#include "icae/dtype.h"
#include "icae/file.h"
#include "icae/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ICAE_MAX_RANK = 4 };

typedef struct icae_safetensors_entry {
    const char *name;
    icae_dtype dtype;
    int rank;
    int64_t shape[ICAE_MAX_RANK];
    const void *data; /* in the mapping; aligned to 1 byte only: read through widen or memcpy */
    size_t bytes;
} icae_safetensors_entry;

typedef struct icae_safetensors {
    icae_mapping mapping;
    icae_arena arena;                /* names, entries, metadata */
    icae_safetensors_entry *entries; /* sorted by name */
    size_t n_entries;
    const char **metadata; /* key, value, key, value, ... */
    size_t n_metadata;     /* pairs */
} icae_safetensors;

icae_status icae_safetensors_open(icae_safetensors *file, const char *path, icae_error *error);
void icae_safetensors_close(icae_safetensors *file);
const icae_safetensors_entry *icae_safetensors_find(const icae_safetensors *file,
                                                    const char *name);
const char *icae_safetensors_metadata(const icae_safetensors *file,
                                      const char *key); /* or NULL */

/* What to write; data stays the caller's. Written sorted by name, so equal content gives equal
 * bytes. The header is padded with spaces so that tensor data starts at a multiple of 8. */
typedef struct icae_safetensors_source {
    const char *name;
    icae_dtype dtype;
    int rank;
    int64_t shape[ICAE_MAX_RANK];
    const void *data;
} icae_safetensors_source;

icae_status icae_safetensors_write(const char *path, const icae_safetensors_source *sources,
                                   size_t n_sources, const char *const *metadata,
                                   size_t n_metadata, icae_error *error);

/* The same, without metadata, from data that is not the host's: `bring` puts `bytes` of a source's data,
 * from `offset` on, into `out`, a small piece at a time and in order. */
typedef void icae_safetensors_bring(const void *user, const void *data, size_t offset,
                                    size_t bytes, void *out);
icae_status icae_safetensors_write_from(const char *path,
                                        const icae_safetensors_source *sources,
                                        size_t n_sources, icae_safetensors_bring *bring,
                                        const void *user, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
