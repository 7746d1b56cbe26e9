/* SPDX-License-Identifier: MIT */
/* What the fuzz programs share: the input as a file in memory, and a look at every refusal. */
#ifndef ICAE_TESTS_FUZZ_H
#define ICAE_TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "icae/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A path under which the bytes can be opened; the same file every time. */
static inline const char *fuzz_file(const uint8_t *data, size_t bytes) {
    static int descriptor = -1;
    static char path[64];
    if (descriptor < 0) {
        descriptor = memfd_create("fuzz", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    }
    if (ftruncate(descriptor, 0) || pwrite(descriptor, data, bytes, 0) != (ssize_t)bytes)
        abort();
    return path;
}

/* A refusal carries a status and a sentence. */
static inline void fuzz_expect_sentence(const icae_error *error) {
    if (error->status == ICAE_OK || strlen(error->message) < 8) abort();
}

#endif
