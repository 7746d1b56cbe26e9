/* SPDX-License-Identifier: MIT */
/*
 * PyTorch's .pt files, read without PyTorch and without running anything that stands in them.
 *
 *     a zip archive without compression (torch.save since PyTorch 1.6), in a folder of any name:
 *     FOLDER/data.pkl     a pickle: the dictionary, with a persistent id for every storage
 *     FOLDER/data/KEY     the bytes of the storage KEY, at a multiple of 64 in newer files
 *     FOLDER/byteorder    "little", or absent
 *
 * Known are dictionaries, lists, tuples, strings, numbers, truth values, None and tensors over plain
 * storages. Any other class, function or opcode is refused by its name; so is the format before
 * PyTorch 1.6. The pickle and every storage that a tensor uses are compared with their CRC-32.
 * Memory: the mapping, 48 bytes for each zip entry, under 160 for each byte of data.pkl.
 * Source: PyTorch, torch/serialization.py.
 */
#ifndef ICAE_TORCH_FILE_H
#define ICAE_TORCH_FILE_H

#include "icae/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_torch_kind {
    ICAE_TORCH_TENSOR, /* f32, f64, f16 or bf16 */
    ICAE_TORCH_NUMBER, /* a Python float */
    ICAE_TORCH_OTHER   /* anything else that was understood; `type` names it */
} icae_torch_kind;

typedef struct icae_torch_entry {
    const char *name; /* its key in the outermost dictionary */
    icae_torch_kind kind;
    const char *type; /* "FloatStorage", "whole number", ...: for messages */
    double number;    /* NUMBER */
    icae_dtype dtype; /* TENSOR, this and all below */
    int rank;
    int64_t shape[ICAE_MAX_RANK];
    const void *data; /* row-major, in the mapping; aligned to 1 byte only */
    size_t bytes;
} icae_torch_entry;

typedef struct icae_torch_file {
    icae_mapping mapping;
    icae_arena arena;
    icae_torch_entry *entries; /* sorted by name */
    size_t n_entries;
} icae_torch_file;

/* The outermost value must be a dictionary whose keys are strings, each once, its tensors contiguous. */
icae_status icae_torch_file_open(icae_torch_file *file, const char *path, icae_error *error);
void icae_torch_file_close(icae_torch_file *file);
const icae_torch_entry *icae_torch_file_find(const icae_torch_file *file, const char *name);

/* Whether the first bytes are those of a .pt file, of either format, or of any zip archive. */
bool icae_torch_file_begins(const unsigned char *data, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
