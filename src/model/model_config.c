/* SPDX-License-Identifier: MIT */
/*
 * What a model's settings alone determine: the names and shapes of a block's matrices, and sizes.
 *
 * Shapes, letters as in icae/model.h:
 *     q [H E, D]   k, v [K E, D]   o [D, H E]   gate, up [F, D]   down [D, F]
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "icae/model.h"

static const struct {
    const char *name, *folder;
} modules[] = {
#define ICAE_MODULE_ROW(id, name, folder, gguf) {name, folder},
    ICAE_MODULE_LIST(ICAE_MODULE_ROW)
#undef ICAE_MODULE_ROW
};

const char *icae_module_name(icae_module module) {
    assert(module < ICAE_MODULE_COUNT);
    return modules[module].name;
}

icae_module icae_module_from_name(const char *name) {
    int module = 0;
    while (module < ICAE_MODULE_COUNT && strcmp(modules[module].name, name))
        module++;
    return (icae_module)module;
}

void icae_module_path(int64_t layer, icae_module module, char *out, size_t bytes) {
    assert(module < ICAE_MODULE_COUNT);
    snprintf(out, bytes, "model.layers.%lld.%s.%s", (long long)layer, modules[module].folder,
             modules[module].name);
}

int64_t icae_module_rows(const icae_model_config *config, icae_module module) {
    switch (module) {
    case ICAE_MODULE_Q:
        return config->heads * config->head_width;
    case ICAE_MODULE_K:
    case ICAE_MODULE_V:
        return config->kv_heads * config->head_width;
    case ICAE_MODULE_GATE:
    case ICAE_MODULE_UP:
        return config->feed_forward;
    default:
        assert(module == ICAE_MODULE_O || module == ICAE_MODULE_DOWN);
        return config->width;
    }
}

int64_t icae_module_cols(const icae_model_config *config, icae_module module) {
    assert(module < ICAE_MODULE_COUNT);
    if (module == ICAE_MODULE_O) return config->heads * config->head_width;
    return module == ICAE_MODULE_DOWN ? config->feed_forward : config->width;
}

int64_t icae_layer_window(const icae_model_config *config, int64_t layer) {
    if (layer < config->first_windowed) return 0;
    bool is_full = config->window_period && (layer + 1) % config->window_period == 0;
    return is_full ? 0 : config->window;
}

double icae_model_linear_parameters(const icae_model_config *config) {
    double each = 0;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        each += (double)icae_module_rows(config, (icae_module)m) *
                (double)icae_module_cols(config, (icae_module)m);
    }
    return each * (double)config->layers;
}

size_t icae_cache_bytes(const icae_model_config *config, int64_t tokens) {
    enum { KEY_AND_VALUE = 2, BYTES_OF_16_BITS = 2 };
    return (size_t)config->layers * (size_t)(config->kv_heads * config->head_width) *
           (size_t)tokens * KEY_AND_VALUE * BYTES_OF_16_BITS;
}
