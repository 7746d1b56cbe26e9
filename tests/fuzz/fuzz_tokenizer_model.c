/* SPDX-License-Identifier: MIT */
/* Any bytes as tokenizer.model: refused with a sentence, or a tokenizer that encodes and decodes. */
#include "tokenizer_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    fuzz_tokenizer("tokenizer.model", data, bytes,
                   "Two words, 12 and <s> \xF0\x9F\x99\x82 abc aaab");
    return 0;
}
