/* SPDX-License-Identifier: MIT */
/* A sound adapter and a sound checkpoint, made for a base of one layer, four wide, that exists as a struct only. */
#ifndef ICAE_TESTS_FUZZ_TINY_ADAPTER_H
#define ICAE_TESTS_FUZZ_TINY_ADAPTER_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "icae/backend.h"
#include "icae/checkpoint.h"
#include "icae/file.h"
#include "icae/log.h"
#include "sound.h"

/* All that an adapter asks of a base. */
static inline icae_model tiny_model(void) {
    static char path[] = "tiny";
    return (icae_model){.config = {.architecture = "llama",
                                   .vocabulary = 5,
                                   .width = 4,
                                   .layers = 1,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_width = 2,
                                   .feed_forward = 6,
                                   .context_length = 64},
                        .fingerprint = 0xba5e,
                        .path = path};
}

static inline icae_adapter *tiny_adapter(const icae_model *model, icae_backend *be,
                                         bool for_training) {
    icae_adapter *adapter;
    icae_error error = {0};
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = 2;
    settings.rank = 1;
    if (icae_adapter_create(&adapter, model, &settings, 1, be, for_training, &error)) abort();
    return adapter;
}

static inline icae_backend *tiny_backend(void) {
    icae_backend *be;
    icae_error error = {0};
    icae_log_set_level(ICAE_LOG_QUIET);
    if (icae_backend_create(&be, "reference", 1, &error)) abort();
    return be;
}

/* The files of a folder that the program itself wrote; they live as long as the program. */
static inline void tiny_take(const char *folder, sound_file *files, int n) {
    char path[160];
    icae_error error = {0};
    for (int i = 0; i < n; i++) {
        char *data;
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        if (icae_file_read(path, 1 << 20, &data, &files[i].bytes, &error)) abort();
        files[i].data = data;
    }
}

static inline void tiny_adapter_files(const icae_model *model, icae_backend *be,
                                      sound_file *files, int n) {
    char folder[64];
    icae_error error = {0};
    icae_adapter *adapter = tiny_adapter(model, be, false);
    snprintf(folder, sizeof folder, "/tmp/icae-sound-%d", (int)getpid());
    if (icae_adapter_save(adapter, folder, model, &error)) abort();
    icae_adapter_free(adapter);
    tiny_take(folder, files, n);
    if (icae_folder_remove(folder, &error)) abort();
}

static inline void tiny_checkpoint_files(icae_adapter *adapter, const icae_model *model,
                                         sound_file *files, int n) {
    char folder[64], inner[96];
    icae_error error = {0};
    const icae_run_state state = {.step = 7, .feed_json = "{\"place\": [1, 2]}"};
    snprintf(folder, sizeof folder, "/tmp/icae-sound-%d", (int)getpid());
    if (icae_checkpoint_save(folder, adapter, model, &state, 1, &error)) abort();
    snprintf(inner, sizeof inner, "%s/checkpoints/step-7", folder);
    tiny_take(inner, files, n);
    if (icae_folder_remove(folder, &error)) abort();
}

#endif
