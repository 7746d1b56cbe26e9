/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as config.json of a base, or as a file beside it: refused, or a base that can be used. The sound
 * folder is a Llama of one layer, four wide, with five tokens.
 */
#include "fuzz_folder.h"
#include "icae/file.h"
#include "icae/model.h"
#include "tiny_base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static fuzz_folder folder;
    if (!folder.n_files) {
        static sound_file sound[] = {{.name = "config.json"},
                                     {.name = "m.safetensors"},
                                     {.name = "tokenizer.json"},
                                     {.name = "model.safetensors.index.json"}};
        tiny_base(sound);
        fuzz_folder_make(&folder, sound, sizeof sound / sizeof sound[0]);
    }
    size_t total = fuzz_folder_fill(&folder, data, bytes);
    icae_model *model;
    icae_error error = {0};
    fuzz_watch_begin();
    if (icae_model_open(&model, folder.path, &error)) {
        fuzz_expect_sentence(&error);
        if (model) abort();
    }
    icae_model_close(model);
    fuzz_watch_end(total, bound_base);
    return 0;
}
