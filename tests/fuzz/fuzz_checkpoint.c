/* SPDX-License-Identifier: MIT */
/* Any bytes as the list of a checkpoint, its state or its optimizer's numbers: refused, or read whole. */
#include "fuzz_folder.h"
#include "tiny_adapter.h"

static sound_file sound[] = {
    {.name = "hashes.json"}, {.name = "state.json"}, {.name = "optimizer.safetensors"}};
enum { N_FILES = sizeof sound / sizeof sound[0] };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static fuzz_folder folder;
    static icae_adapter *adapter;
    icae_error error = {0};
    if (!adapter) {
        icae_model model = tiny_model();
        adapter = tiny_adapter(&model, tiny_backend(), true);
        tiny_checkpoint_files(adapter, &model, sound, N_FILES);
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
