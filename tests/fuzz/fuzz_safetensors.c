/* SPDX-License-Identifier: MIT */
/* Any bytes as a safetensors file: refused with a sentence or read, never a crash. */
#include "fuzz.h"
#include "icae/safetensors.h"

/* Every entry is found under its name, and every byte it points to can be read. */
static unsigned touch(const icae_safetensors *file) {
    unsigned sum = 0;
    for (size_t i = 0; i < file->n_entries; i++) {
        const icae_safetensors_entry *entry = &file->entries[i];
        const unsigned char *data = entry->data;
        if (icae_safetensors_find(file, entry->name) != entry) abort();
        if (entry->bytes) sum += data[0] + data[entry->bytes - 1];
    }
    for (size_t i = 0; i < file->n_metadata && i < 16; i++) { /* each is looked for in all */
        if (!icae_safetensors_metadata(file, file->metadata[2 * i])) abort();
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *path = fuzz_file(data, bytes);
    icae_safetensors file = {0};
    icae_error error = {0};
    fuzz_watch_begin();
    if (icae_safetensors_open(&file, path, &error))
        fuzz_expect_sentence(&error);
    else
        fuzz_use(touch(&file));
    icae_safetensors_close(&file);
    fuzz_watch_end(bytes, bound_safetensors);
    return 0;
}
