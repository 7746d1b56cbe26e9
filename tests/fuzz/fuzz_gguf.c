/* SPDX-License-Identifier: MIT */
/* Any bytes as a gguf file: refused with a sentence or read, never a crash. */
#include "fuzz.h"
#include "icae/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *path = fuzz_file(data, bytes);
    icae_gguf file = {0};
    icae_error error = {0};
    if (icae_gguf_open(&file, path, &error)) fuzz_expect_sentence(&error);
    icae_gguf_close(&file);
    return 0;
}
