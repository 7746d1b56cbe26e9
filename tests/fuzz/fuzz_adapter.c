/* SPDX-License-Identifier: MIT */
/* Any bytes as icae.json of an adapter, or as a file beside it: refused, or an adapter of finite numbers. */
#include "fuzz_folder.h"
#include "tiny_adapter.h"

static sound_file sound[] = {{.name = "icae.json"},
                             {.name = "adapter_config.json"},
                             {.name = "adapter_model.safetensors"},
                             {.name = "memory.safetensors"}};
enum { N_FILES = sizeof sound / sizeof sound[0] };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static fuzz_folder folder;
    static icae_backend *be;
    icae_model model = tiny_model();
    if (!be) {
        be = tiny_backend();
        tiny_adapter_files(&model, be, sound, N_FILES);
        fuzz_folder_make(&folder, sound, N_FILES);
    }
    size_t total = fuzz_folder_fill(&folder, data, bytes);
    icae_adapter *adapter;
    icae_error error = {0};
    fuzz_watch_begin();
    if (icae_adapter_load(&adapter, folder.path, &model, be, false, &error)) {
        fuzz_expect_sentence(&error);
        if (adapter) abort();
    } else {
        for (int64_t i = 0; i < adapter->params.count; i++)
            if (!(adapter->params.values[i] - adapter->params.values[i] == 0)) abort();
    }
    icae_adapter_free(adapter);
    fuzz_watch_end(total, bound_adapter);
    return 0;
}
