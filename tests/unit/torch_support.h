/* SPDX-License-Identifier: MIT */
/* .pt files around pickles that are written out, and what is said of those that are not sound. */
#ifndef ICAE_TESTS_TORCH_SUPPORT_H
#define ICAE_TESTS_TORCH_SUPPORT_H

#include "icae/status.h"
#include "stored_zip.h"

/* A file of torch.save. */
#define TORCH_GOLDEN "tests/golden/released/v1.pt"

/* A pickle that is a string literal, and its bytes. */
#define PROGRAM(text) text, sizeof(text) - 1

/* folder/x.pt: the archive with this pickle, six floats 0..5 as storage 0, and what is given beside them. */
const char *stored_torch(const char *folder, const char *program, size_t bytes,
                         const stored_entry *more);
/* Fails unless opening the file ends in this status and a sentence that begins with its path. */
void refuses_torch(const char *path, const char *sentence, icae_status status);

#endif
