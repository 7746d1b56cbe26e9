/* SPDX-License-Identifier: MIT */
/* Small adapters for tests, their folders, and changes to the files in them. */
#ifndef ICAE_TESTS_ADAPTER_SUPPORT_H
#define ICAE_TESTS_ADAPTER_SUPPORT_H

#include "icae/adapter.h"
#include "suites.h"

#define GOLDEN_ADAPTER "tests/golden/llama/adapter"

enum { N_ADAPTER_FILES = 4 };
extern const char *const adapter_files[N_ADAPTER_FILES]; /* sorted by name */

icae_backend *reference(void);
/* All that an adapter asks of a model, and the sizes of the golden one. */
icae_model small_model(void);
icae_model golden_model(void);
icae_adapter_settings small_settings(const icae_model *model);
/* A small adapter with no zeros in it. */
icae_adapter *small_adapter(const icae_model *model, icae_backend *be, uint64_t seed);

void save_small(const char *folder, uint64_t seed);
/* Takes the checksums out of icae.json, as its sentences tell whoever edits an adapter by hand. */
void unseal(const char *folder);
void save_unsealed(const char *folder, uint64_t seed);

icae_status load_for(const char *folder, const icae_model *model, icae_error *error);
icae_status load_small(const char *folder, icae_error *error);
/* Loads the folder with one text in one file replaced by another; the file is restored. */
icae_status load_edited(const char *folder, const char *name, const char *from, const char *to,
                        icae_error *error);

/* folder/name as a 0-terminated string; the caller frees it. */
char *read_whole(const char *folder, const char *name, size_t *bytes);
void write_whole(const char *folder, const char *name, const char *data, size_t bytes);
void copy_file(const char *from, const char *to, const char *name);

/* Sends this test's warnings to a file, and tells whether one of them holds a text. */
void catch_warnings(const char *folder);
bool has_warned(const char *folder, const char *text);

#endif
