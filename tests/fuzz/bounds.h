/* SPDX-License-Identifier: MIT */
/*
 * The most memory that a reader may hold at one time, as a multiple of the bytes in its files and a
 * constant. Files themselves are mapped, or counted as one copy. The table in docs/reliability.md says what
 * the largest part of each is.
 */
#ifndef ICAE_TESTS_FUZZ_BOUNDS_H
#define ICAE_TESTS_FUZZ_BOUNDS_H

#include <stddef.h>

typedef struct fuzz_bound {
    size_t factor, constant;
} fuzz_bound;

enum { KILOBYTE = 1024, MEGABYTE = 1024 * KILOBYTE };

static const fuzz_bound bound_json = {40, 64 * KILOBYTE};
static const fuzz_bound bound_safetensors = {40, MEGABYTE};
static const fuzz_bound bound_slots = {40, MEGABYTE};
static const fuzz_bound bound_gguf = {16, MEGABYTE};
static const fuzz_bound bound_gguf_tokenizer = {48, 4 * MEGABYTE};
static const fuzz_bound bound_tokenizer = {48, 4 * MEGABYTE};
static const fuzz_bound bound_tokenizer_model = {48, 4 * MEGABYTE};
static const fuzz_bound bound_torch_file = {96, MEGABYTE};
static const fuzz_bound bound_settings = {64, MEGABYTE};
static const fuzz_bound bound_base = {48, 4 * MEGABYTE};
static const fuzz_bound bound_adapter = {48, 4 * MEGABYTE};
static const fuzz_bound bound_checkpoint = {48, 4 * MEGABYTE};
/* Lines: what was unpacked and is not handed out yet, whatever the file's size: twice the longest line
 * that is asked for, here 64 KB, and buffers. */
static const fuzz_bound bound_lines = {0, MEGABYTE};
static const fuzz_bound bound_documents = {40, 4 * MEGABYTE};

#endif
