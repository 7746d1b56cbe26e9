/* SPDX-License-Identifier: MIT */
/* Any bytes as tokenizer.model and the config beside it: refused, or a tokenizer that works. */
#include "fuzz_tokenizer.h"

static const sound_file sound[] = {{"tokenizer.model", "", 0},
                                   {"tokenizer_config.json", "{}", 2}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static fuzz_folder folder;
    if (!folder.n_files) fuzz_folder_make(&folder, sound, sizeof sound / sizeof sound[0]);
    size_t total = fuzz_folder_fill(&folder, data, bytes);
    fuzz_watch_begin();
    fuzz_tokenizer(folder.path, "Two words, 12 and <s> \xF0\x9F\x99\x82 abc aaab");
    fuzz_watch_end(total, bound_tokenizer_model);
    return 0;
}
