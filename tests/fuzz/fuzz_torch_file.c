/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a .pt file: refused with a sentence or read, never a crash. Bytes that do not begin as a zip
 * archive are taken for its pickle, because no fuzzer guesses the checksum of one; storage 0 is 64 bytes.
 */
#include "fuzz.h"
#include "../unit/stored_zip.h"
#include "icae/torch_file.h"

/* Every byte that an entry points to can be read. */
static unsigned touch(const icae_torch_file *file) {
    unsigned sum = 0;
    for (size_t i = 0; i < file->n_entries; i++) {
        const unsigned char *data = file->entries[i].data;
        if (file->entries[i].bytes) sum += data[0] + data[file->entries[i].bytes - 1];
        if (icae_torch_file_find(file, file->entries[i].name) != &file->entries[i]) abort();
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const char numbers[64];
    icae_text archive = {0};
    if (icae_torch_file_begins(data, bytes)) {
        icae_text_append(&archive, data, bytes);
    } else {
        const stored_entry entries[] = {{"x/data.pkl", data, bytes},
                                        {"x/data/0", numbers, sizeof numbers}};
        stored_zip(&archive, entries, 2);
    }
    icae_torch_file file = {0};
    icae_error error = {0};
    const char *path = fuzz_file((const uint8_t *)archive.data, archive.length);
    size_t total = archive.length;
    icae_text_release(&archive);
    fuzz_watch_begin();
    if (icae_torch_file_open(&file, path, &error))
        fuzz_expect_sentence(&error);
    else
        fuzz_use(touch(&file));
    icae_torch_file_close(&file);
    fuzz_watch_end(total, bound_torch_file);
    return 0;
}
