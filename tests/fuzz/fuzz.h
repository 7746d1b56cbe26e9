/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz programs share: the input as a file in memory, a look at every refusal, and a watch over
 * memory: what a reader holds at one time is at most FACTOR * (bytes of the file) + CONSTANT. The factors
 * stand in bounds.h, and in docs/reliability.md. With FUZZ_SHOW in the environment every figure is printed.
 */
#ifndef ICAE_TESTS_FUZZ_H
#define ICAE_TESTS_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sanitizer/allocator_interface.h>

#include "bounds.h"
#include "icae/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* ---- files ---- */

/* A file in memory that can be opened under its path, and filled anew for every input. */
typedef struct fuzz_memory_file {
    int descriptor; /* 0: not made yet */
    char path[64];
} fuzz_memory_file;

static inline void fuzz_fill(fuzz_memory_file *file, const void *data, size_t bytes) {
    if (!file->descriptor) {
        file->descriptor = memfd_create("fuzz", 0);
        if (file->descriptor <= 0) abort();
        snprintf(file->path, sizeof file->path, "/proc/self/fd/%d", file->descriptor);
    }
    if (ftruncate(file->descriptor, 0) ||
        pwrite(file->descriptor, data, bytes, 0) != (ssize_t)bytes)
        abort();
}

/* A path under which the bytes can be opened; the same file every time. */
static inline const char *fuzz_file(const uint8_t *data, size_t bytes) {
    static fuzz_memory_file file;
    fuzz_fill(&file, data, bytes);
    return file.path;
}

/* ---- refusals ---- */

/* A refusal carries a status and a sentence. */
static inline void fuzz_expect_sentence(const icae_error *error) {
    if (error->status == ICAE_OK || strlen(error->message) < 8) abort();
    if (error->status == ICAE_MEMORY) abort(); /* there is enough for every bound */
}

/* Keeps the compiler from leaving out what was read. */
static inline void fuzz_use(unsigned number) {
    static volatile unsigned sink;
    sink = sink + number;
}

/* ---- memory ---- */

static size_t fuzz_live, fuzz_peak;
/* libFuzzer has a thread of its own, which allocates as well. */
static _Thread_local bool fuzz_is_watching;

static inline void fuzz_count_malloc(const volatile void *memory, size_t bytes) {
    (void)memory;
    if (!fuzz_is_watching) return;
    fuzz_live += bytes;
    if (fuzz_live > fuzz_peak) fuzz_peak = fuzz_live;
}

static inline void fuzz_count_free(const volatile void *memory) {
    if (!memory || !fuzz_is_watching) return;
    size_t bytes = __sanitizer_get_allocated_size(memory);
    fuzz_live -=
        bytes < fuzz_live ? bytes : fuzz_live; /* what was there before was never counted */
}

static inline void fuzz_watch_begin(void) {
    static bool is_installed;
    if (!is_installed &&
        !__sanitizer_install_malloc_and_free_hooks(fuzz_count_malloc, fuzz_count_free))
        abort();
    is_installed = true;
    fuzz_live = fuzz_peak = 0;
    fuzz_is_watching = true;
}

static inline void fuzz_watch_end(size_t file_bytes, fuzz_bound bound) {
    fuzz_is_watching = false;
    size_t most = bound.factor * file_bytes + bound.constant;
    if (getenv("FUZZ_SHOW")) fprintf(stderr, "held %zu for %zu\n", fuzz_peak, file_bytes);
    if (fuzz_peak <= most) return;
    fprintf(stderr, "%zu bytes were held for a file of %zu: over %zu x + %zu\n", fuzz_peak,
            file_bytes, bound.factor, bound.constant);
    abort();
}

#endif
