/* SPDX-License-Identifier: MIT */
/* Any bytes as tokenizer.model: refused with a sentence, or a tokenizer that encodes and decodes. */
#include <sys/stat.h>

#include "fuzz.h"
#include "icae/tokenizer.h"

/* The loader wants a folder: one in build/, its tokenizer.model a link to the file in memory. */
static const char *folder_with(const char *file) {
    static char folder[64];
    if (!folder[0]) {
        char link[96];
        snprintf(folder, sizeof folder, "build/fuzz/tokenizer-model-%d", (int)getpid());
        snprintf(link, sizeof link, "%s/tokenizer.model", folder);
        if (mkdir(folder, 0777) || symlink(file, link)) abort();
    }
    return folder;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *folder = folder_with(fuzz_file(data, bytes));
    icae_tokenizer *tokenizer = NULL;
    icae_error error = {0};
    if (icae_tokenizer_open_folder(&tokenizer, folder, &error)) {
        fuzz_expect_sentence(&error);
        return 0;
    }
    static const char text[] = "Two words, 12 and <s> \xF0\x9F\x99\x82 abc aaab";
    int32_t *ids = NULL;
    size_t count = 0;
    if (!icae_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &count, &error)) {
        icae_text out = {0};
        if (icae_tokenizer_decode(tokenizer, ids, count, false, &out, &error)) abort();
        icae_text_release(&out);
    }
    free(ids);
    icae_tokenizer_free(tokenizer);
    return 0;
}
