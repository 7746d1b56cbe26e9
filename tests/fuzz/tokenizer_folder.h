/* SPDX-License-Identifier: MIT */
/* What the two tokenizer fuzzers share: any bytes as one file of a model folder, opened and used. */
#ifndef ICAE_TESTS_FUZZ_TOKENIZER_FOLDER_H
#define ICAE_TESTS_FUZZ_TOKENIZER_FOLDER_H

#include <sys/stat.h>

#include "fuzz.h"
#include "icae/tokenizer.h"

/* The loader wants a folder: one in build/, in which `name` is a link to the file in memory. */
static inline const char *folder_with(const char *name, const char *file) {
    static char folder[96];
    if (!folder[0]) {
        char link[160];
        snprintf(folder, sizeof folder, "build/fuzz/folder-%s-%d", name, (int)getpid());
        snprintf(link, sizeof link, "%s/%s", folder, name);
        if (mkdir(folder, 0777) || symlink(file, link)) abort();
    }
    return folder;
}

/* Refused with a sentence, or a tokenizer that encodes this text and decodes what came out. */
static inline void fuzz_tokenizer(const char *name, const uint8_t *data, size_t bytes,
                                  const char *text) {
    icae_tokenizer *tokenizer = NULL;
    icae_error error = {0};
    if (icae_tokenizer_open_folder(&tokenizer, folder_with(name, fuzz_file(data, bytes)),
                                   &error)) {
        fuzz_expect_sentence(&error);
        return;
    }
    int32_t *ids = NULL;
    size_t count = 0;
    if (!icae_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &count, &error)) {
        icae_text out = {0};
        if (icae_tokenizer_decode(tokenizer, ids, count, false, &out, &error)) abort();
        icae_text_release(&out);
    }
    free(ids);
    icae_tokenizer_free(tokenizer);
}

#endif
