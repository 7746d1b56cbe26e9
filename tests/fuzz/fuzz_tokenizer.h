/* SPDX-License-Identifier: MIT */
/* What the two tokenizer fuzzers share: a folder is opened, and its tokenizer used. */
#ifndef ICAE_TESTS_FUZZ_TOKENIZER_H
#define ICAE_TESTS_FUZZ_TOKENIZER_H

#include "fuzz_folder.h"
#include "icae/tokenizer.h"

/* Refused with a sentence, or a tokenizer that encodes this text and decodes what came out. */
static inline void fuzz_tokenizer(const char *folder, const char *text) {
    icae_tokenizer *tokenizer = NULL;
    icae_error error = {0};
    if (icae_tokenizer_open_folder(&tokenizer, folder, &error)) {
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
