/* SPDX-License-Identifier: MIT */
/*
 * A base model out of a Hugging Face folder: config.json, model.safetensors, tokenizer.json.
 * Settings that would change the mathematics and are not known are refused, never ignored.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/json.h"
#include "model/model_internal.h"

static void folder_name(int weight, int64_t layer, char *out, size_t bytes) {
    char path[96];
    switch (weight) {
    case ICAE_WEIGHT_EMBEDDING:
        snprintf(out, bytes, "model.embed_tokens.weight");
        break;
    case ICAE_WEIGHT_FINAL_NORM:
        snprintf(out, bytes, "model.norm.weight");
        break;
    case ICAE_WEIGHT_HEAD:
        snprintf(out, bytes, "lm_head.weight");
        break;
    case ICAE_WEIGHT_INPUT_NORM:
        snprintf(out, bytes, "model.layers.%lld.input_layernorm.weight", (long long)layer);
        break;
    case ICAE_WEIGHT_POST_NORM:
        snprintf(out, bytes, "model.layers.%lld.post_attention_layernorm.weight",
                 (long long)layer);
        break;
    default:
        icae_module_path(layer, (icae_module)(weight - ICAE_WEIGHT_MODULE), path, sizeof path);
        snprintf(out, bytes, "%s.weight", path);
    }
}

static bool folder_find(const icae_model *model, const char *name, icae_weight_view *view) {
    const icae_safetensors_entry *entry = icae_safetensors_find(&model->safetensors, name);
    if (!entry) return false;
    *view =
        (icae_weight_view){entry->dtype, entry->rank, entry->shape, entry->data, entry->bytes};
    return true;
}

const icae_weight_source icae_folder_source = {"safetensors", folder_name, folder_find, false};

/* The plain rope is written as null, {} or type "default"; newer files keep theta in there too. */
static void read_rope(icae_json_object *object, const char *key, double *theta) {
    const icae_json_value *value = icae_json_get_value(object, key);
    if (icae_json_is_null(value)) return;
    if (!icae_json_is_object(value)) {
        icae_json_complain(object, key, "expected an object or null");
        return;
    }
    const char *type = icae_json_as_string(icae_json_member(value, "rope_type"));
    if (!type) type = icae_json_as_string(icae_json_member(value, "type"));
    if (type && strcmp(type, "default")) {
        icae_json_complain(object, key, "rope type '%s' is not known; only 'default' is", type);
        return;
    }
    const icae_json_value *number = icae_json_member(value, "rope_theta");
    if (number && !icae_json_as_number(number, theta)) {
        icae_json_complain(object, key, "rope_theta: expected a number");
    }
}

static icae_status read_config(icae_model_config *config, const icae_json *json,
                               icae_error *error) {
    icae_json_object object = icae_json_begin(json, icae_json_root(json), "", error);
    const int64_t most = INT64_C(1) << 30;
    const char *type = icae_json_get_string(&object, "model_type", "");
    if (strcmp(type, "llama")) {
        icae_json_complain(&object, "model_type",
                           "the architecture '%s' is not known; known is: llama", type);
    }
    snprintf(config->architecture, sizeof config->architecture, "%s", type);
    config->vocabulary = icae_json_get_integer(&object, "vocab_size", 0, 1, most);
    config->width = icae_json_get_integer(&object, "hidden_size", 0, 1, most);
    config->layers = icae_json_get_integer(&object, "num_hidden_layers", 0, 1, most);
    config->heads = icae_json_get_integer(&object, "num_attention_heads", 0, 1, most);
    config->feed_forward = icae_json_get_integer(&object, "intermediate_size", 0, 1, most);
    config->context_length =
        icae_json_get_integer(&object, "max_position_embeddings", 2048, 1, most);
    config->norm_eps = icae_json_get_number(&object, "rms_norm_eps", 1e-6, 0, 1);
    config->has_own_head = !icae_json_get_bool(&object, "tie_word_embeddings", false);
    /* These three may be missing or null. */
    config->kv_heads = config->heads;
    config->head_width = config->heads > 0 ? config->width / config->heads : 0;
    if (!icae_json_is_null(icae_json_get_value(&object, "num_key_value_heads"))) {
        config->kv_heads = icae_json_get_integer(&object, "num_key_value_heads", 0, 1, most);
    }
    if (!icae_json_is_null(icae_json_get_value(&object, "head_dim"))) {
        config->head_width = icae_json_get_integer(&object, "head_dim", 0, 1, most);
    }
    config->rope_theta = icae_json_get_number(&object, "rope_theta", 10000.0, 0, 1e12);
    read_rope(&object, "rope_scaling", &config->rope_theta);
    read_rope(&object, "rope_parameters", &config->rope_theta);
    const char *activation = icae_json_get_string(&object, "hidden_act", "silu");
    if (strcmp(activation, "silu")) {
        icae_json_complain(&object, "hidden_act", "'%s' is not known; only 'silu' is",
                           activation);
    }
    static const char *const biases[] = {"attention_bias", "mlp_bias"};
    for (int i = 0; i < 2; i++) {
        if (icae_json_get_bool(&object, biases[i], false)) {
            icae_json_complain(&object, biases[i],
                               "biases are not known for this architecture");
        }
    }
    return icae_json_end_lenient(&object);
}

static icae_status open_parts(icae_model *model, const char *folder, const char *config_path,
                              const char *weights_path, icae_error *error) {
    icae_json *json = NULL;
    icae_status status = icae_json_open(&json, config_path, error);
    if (!status) status = read_config(&model->config, json, error);
    icae_json_free(json);
    if (!status) status = icae_safetensors_open(&model->safetensors, weights_path, error);
    if (!status) status = icae_tokenizer_open_folder(&model->tokenizer, folder, error);
    return status;
}

icae_status icae_model_read_folder(icae_model *model, const char *path, icae_error *error) {
    char *config_path = icae_path_join(path, "config.json");
    char *weights_path = icae_path_join(path, "model.safetensors");
    icae_status status = config_path && weights_path
                             ? open_parts(model, path, config_path, weights_path, error)
                             : icae_fail_memory(error, path);
    free(config_path);
    free(weights_path);
    return status;
}
