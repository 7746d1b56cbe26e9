/* SPDX-License-Identifier: MIT */
/* Any bytes as icae.json of an adapter, or as a file beside it: refused, or an adapter of finite numbers. */
#include "fuzz_folder.h"
#include "icae/file.h"
#include "tiny_adapter.h"

static fuzz_sound_file sound[] = {{.name = "icae.json"},
                                  {.name = "adapter_config.json"},
                                  {.name = "adapter_model.safetensors"},
                                  {.name = "memory.safetensors"}};
enum { N_FILES = sizeof sound / sizeof sound[0] };

/* The files of a folder that the program itself wrote. */
static void take_sound(const icae_model *model, icae_backend *be) {
    char folder[64], path[128];
    icae_error error = {0};
    icae_adapter *adapter = tiny_adapter(model, be, false);
    snprintf(folder, sizeof folder, "/tmp/icae-fuzz-sound-%d", (int)getpid());
    if (icae_adapter_save(adapter, folder, model, &error)) abort();
    icae_adapter_free(adapter);
    for (size_t i = 0; i < N_FILES; i++) {
        char *data;
        snprintf(path, sizeof path, "%s/%s", folder, sound[i].name);
        if (icae_file_read(path, MEGABYTE, &data, &sound[i].bytes, &error)) abort();
        sound[i].data = data;
    }
    if (icae_folder_remove(folder, &error)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static fuzz_folder folder;
    static icae_backend *be;
    icae_model model = tiny_model();
    if (!be) {
        be = tiny_backend();
        take_sound(&model, be);
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
