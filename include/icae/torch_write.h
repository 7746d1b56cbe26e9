/* SPDX-License-Identifier: MIT */
/*
 * One tensor as a file that torch.load reads, also with weights_only=True.
 *
 * Such a file is a zip archive of stored (never compressed) members: archive/data.pkl, a pickle that says
 * type, shape and strides of the tensor; archive/data/0, its bytes, at a multiple of 64 in the file;
 * archive/byteorder and archive/version. Source: PyTorch, torch/serialization.py; PKWARE's APPNOTE.TXT;
 * Python, pickletools.
 */
#ifndef ICAE_TORCH_WRITE_H
#define ICAE_TORCH_WRITE_H

#include "icae/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A matrix [rows, cols], contiguous, of F32, F16 or BF16; fewer than 2^29 numbers. Written whole or not at
 * all; equal tensors give equal bytes. */
icae_status icae_torch_write(const char *path, icae_dtype dtype, int64_t rows, int64_t cols,
                             const void *data, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
