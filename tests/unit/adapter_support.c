/* SPDX-License-Identifier: MIT */
/* See adapter_support.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_support.h"
#include "icae/file.h"
#include "icae/text.h"

const char *const adapter_files[N_ADAPTER_FILES] = {
    "adapter_config.json", "adapter_model.safetensors", "icae.json", "memory.safetensors"};

icae_backend *reference(void) {
    icae_error error = {0};
    icae_backend *be;
    ck_ok(icae_backend_create(&be, "reference", 1, &error));
    return be;
}

icae_model small_model(void) {
    static char path[] = "bases/small.gguf";
    icae_model model = {.config = {.architecture = "llama",
                                   .vocabulary = 50,
                                   .width = 8,
                                   .layers = 2,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_width = 4,
                                   .feed_forward = 12,
                                   .context_length = 4096},
                        .fingerprint = 0xba5e,
                        .embedding_mean = 0.5,
                        .embedding_deviation = 0.125,
                        .path = path};
    return model;
}

icae_model golden_model(void) {
    icae_model model = small_model();
    model.config = (icae_model_config){.architecture = "llama",
                                       .vocabulary = 512,
                                       .width = 64,
                                       .layers = 3,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_width = 16,
                                       .feed_forward = 176,
                                       .context_length = 4096};
    return model;
}

icae_adapter_settings small_settings(const icae_model *model) {
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = 4;
    settings.compression_rate = 3;
    settings.rank = 2;
    settings.alpha = 3;
    settings.targets[ICAE_MODULE_DOWN] = true;
    snprintf(settings.chat_template, sizeof settings.chat_template, "custom");
    snprintf(settings.chat_prefix, sizeof settings.chat_prefix, "<u>\n\"");
    if (!model->tokenizer) /* one would be asked whether it is a token */
        snprintf(settings.chat_end, sizeof settings.chat_end, "</u>");
    return settings;
}

icae_adapter *small_adapter(const icae_model *model, icae_backend *be, uint64_t seed) {
    icae_error error = {0};
    icae_adapter *adapter;
    icae_adapter_settings settings = small_settings(model);
    ck_ok(icae_adapter_create(&adapter, model, &settings, seed, be, false, &error));
    for (int64_t i = 0; i < adapter->params.count; i++) {
        if (adapter->params.values[i] == 0)
            adapter->params.values[i] = (icae_real)(0.01f * (float)(i % 17 + 1));
    }
    return adapter;
}

void save_small(const char *folder, uint64_t seed) {
    icae_error error = {0};
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, seed);
    ck_ok(icae_adapter_save(adapter, folder, &model, &error));
    icae_adapter_free(adapter);
    icae_backend_free(be);
}

icae_status load_for(const char *folder, const icae_model *model, icae_error *error) {
    icae_backend *be = reference();
    icae_adapter *adapter;
    icae_status status = icae_adapter_load(&adapter, folder, model, be, false, error);
    ck_assert((status == ICAE_OK) == (adapter != NULL));
    icae_adapter_free(adapter);
    icae_backend_free(be); /* asserts that a refused load gave all buffers back */
    return status;
}

icae_status load_small(const char *folder, icae_error *error) {
    icae_model model = small_model();
    return load_for(folder, &model, error);
}

char *read_whole(const char *folder, const char *name, size_t *bytes) {
    icae_error error = {0};
    static char *data; /* static, as gcc 12 sees a dangling pointer in a local one */
    ck_ok(icae_file_read(test_path(folder, name), 1 << 20, &data, bytes, &error));
    return data;
}

void write_whole(const char *folder, const char *name, const char *data, size_t bytes) {
    FILE *file = fopen(test_path(folder, name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

void copy_file(const char *from, const char *to, const char *name) {
    size_t bytes;
    char *data = read_whole(from, name, &bytes);
    write_whole(to, name, data, bytes);
    free(data);
}

void unseal(const char *folder) {
    size_t bytes;
    char *data = read_whole(folder, "icae.json", &bytes);
    char *end = strstr(data, ",\n  \"files\": ");
    ck_assert_ptr_nonnull(end);
    memcpy(end, "\n}\n", 3);
    write_whole(folder, "icae.json", data, (size_t)(end - data) + 3);
    free(data);
}

void save_unsealed(const char *folder, uint64_t seed) {
    save_small(folder, seed);
    unseal(folder);
}

icae_status load_edited(const char *folder, const char *name, const char *from, const char *to,
                        icae_error *error) {
    size_t bytes;
    char *data = read_whole(folder, name, &bytes), *place = strstr(data, from);
    ck_assert_msg(place != NULL, "%s holds no %s", name, from);
    icae_text edited = {0};
    icae_text_append(&edited, data, (size_t)(place - data));
    icae_text_append_string(&edited, to);
    icae_text_append_string(&edited, place + strlen(from));
    write_whole(folder, name, edited.data, edited.length);
    icae_status status = load_small(folder, error);
    write_whole(folder, name, data, bytes);
    icae_text_release(&edited);
    free(data);
    return status;
}

void catch_warnings(const char *folder) {
    ck_assert_ptr_nonnull(freopen(test_path(folder, "stderr"), "w", stderr));
}

bool has_warned(const char *folder, const char *text) {
    size_t bytes;
    fflush(stderr);
    char *data = read_whole(folder, "stderr", &bytes);
    bool found = strstr(data, text) != NULL;
    free(data);
    return found;
}
