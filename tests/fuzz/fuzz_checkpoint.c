/* SPDX-License-Identifier: MIT */
/* Any bytes as the list of a checkpoint, its state or its optimizer's numbers: refused, or read whole. */
#include "fuzz_folder.h"
#include "icae/checkpoint.h"
#include "icae/file.h"
#include "tiny_adapter.h"

static fuzz_sound_file sound[] = {
    {.name = "hashes.json"}, {.name = "state.json"}, {.name = "optimizer.safetensors"}};
enum { N_FILES = sizeof sound / sizeof sound[0] };

/* The files of a checkpoint that the program itself wrote. */
static void take_sound(icae_adapter *adapter, const icae_model *model) {
    char folder[64], path[160];
    icae_error error = {0};
    const icae_run_state state = {.step = 7, .feed_json = "{\"place\": [1, 2]}"};
    snprintf(folder, sizeof folder, "/tmp/icae-fuzz-sound-%d", (int)getpid());
    if (icae_checkpoint_save(folder, adapter, model, &state, 1, &error)) abort();
    for (size_t i = 0; i < N_FILES; i++) {
        char *data;
        snprintf(path, sizeof path, "%s/checkpoints/step-7/%s", folder, sound[i].name);
        if (icae_file_read(path, MEGABYTE, &data, &sound[i].bytes, &error)) abort();
        sound[i].data = data;
    }
    if (icae_folder_remove(folder, &error)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static fuzz_folder folder;
    static icae_adapter *adapter;
    icae_error error = {0};
    if (!adapter) {
        icae_model model = tiny_model();
        adapter = tiny_adapter(&model, tiny_backend(), true);
        take_sound(adapter, &model);
        fuzz_folder_make(&folder, sound, N_FILES);
    }
    size_t total = fuzz_folder_fill(&folder, data, bytes);
    icae_run_state state;
    fuzz_watch_begin();
    if (icae_checkpoint_verify(folder.path, &error)) fuzz_expect_sentence(&error);
    error = (icae_error){0};
    if (icae_checkpoint_load(folder.path, adapter, &state, &error))
        fuzz_expect_sentence(&error);
    else if (!state.feed || state.step < 0)
        abort();
    icae_run_state_release(&state);
    fuzz_watch_end(total, bound_checkpoint);
    return 0;
}
