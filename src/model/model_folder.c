/* SPDX-License-Identifier: MIT */
/*
 * A base model out of a Hugging Face folder: config.json, safetensors (shards.c), tokenizer.json.
 * Settings that would change the mathematics and are not known are refused, never ignored.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/file.h"
#include "model/model_internal.h"

static const double LARGEST_THETA = 1e12;
/* What transformers takes where a config that has a window lacks the key. */
enum { DEFAULT_WINDOW = 4096, DEFAULT_FULL_LAYERS = 28 };

static void folder_name(const icae_model_config *config, int weight, int64_t layer, char *out,
                        size_t bytes) {
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
    /* "post_attention_layernorm" is what attention's result goes through: before it is added, where
     * results have norms, or on the way to the feed-forward. */
    case ICAE_WEIGHT_POST_NORM:
    case ICAE_WEIGHT_ATTENTION_NORM: {
        bool is_post = (weight == ICAE_WEIGHT_ATTENTION_NORM) == config->has_result_norms;
        snprintf(out, bytes, "model.layers.%lld.%s_layernorm.weight", (long long)layer,
                 is_post ? "post_attention" : "pre_feedforward");
        break;
    }
    case ICAE_WEIGHT_FEED_FORWARD_NORM:
        snprintf(out, bytes, "model.layers.%lld.post_feedforward_layernorm.weight",
                 (long long)layer);
        break;
    case ICAE_WEIGHT_Q_NORM:
        snprintf(out, bytes, "model.layers.%lld.self_attn.q_norm.weight", (long long)layer);
        break;
    case ICAE_WEIGHT_K_NORM:
        snprintf(out, bytes, "model.layers.%lld.self_attn.k_norm.weight", (long long)layer);
        break;
    default: {
        bool is_bias = weight >= ICAE_WEIGHT_BIAS;
        int module = weight - (is_bias ? ICAE_WEIGHT_BIAS : ICAE_WEIGHT_MODULE);
        icae_module_path(layer, (icae_module)module, path, sizeof path);
        snprintf(out, bytes, "%s.%s", path, is_bias ? "bias" : "weight");
    }
    }
}

static bool folder_find(const icae_model *model, const char *name, icae_weight_view *view) {
    const icae_safetensors_entry *entry = icae_shards_find(model, name);
    if (!entry) return false;
    *view =
        (icae_weight_view){entry->dtype, entry->rank, entry->shape, entry->data, entry->bytes};
    return true;
}

static icae_status folder_tokenizer(icae_model *model, icae_error *error) {
    return icae_tokenizer_open_folder(&model->tokenizer, model->path, error);
}

const icae_weight_source icae_folder_source = {"safetensors", folder_name, folder_find,
                                               folder_tokenizer, false};

/* The rope of a type other than "default", as transformers reads it. */
static void read_scaling(icae_json_object *in, icae_rope_type type, icae_model_config *config) {
    const double most = 1e6;
    icae_rope_scaling *rope = &config->rope;
    *rope = (icae_rope_scaling){.type = type};
    rope->factor = icae_json_get_number(in, "factor", 0, 0, most);
    int64_t length = type == ICAE_ROPE_YARN ? config->context_length : 0;
    rope->original_length = icae_json_get_integer(in, "original_max_position_embeddings",
                                                  length, 1, INT64_C(1) << 30);
    if (type == ICAE_ROPE_LLAMA3) {
        rope->low_frequency = icae_json_get_number(in, "low_freq_factor", 0, 0, most);
        rope->high_frequency = icae_json_get_number(in, "high_freq_factor", 0, 0, most);
    }
    if (type == ICAE_ROPE_YARN) {
        rope->beta_fast = icae_json_get_number(in, "beta_fast", 32, 0, most);
        rope->beta_slow = icae_json_get_number(in, "beta_slow", 1, 0, most);
        rope->has_exact_ramp = !icae_json_get_bool(in, "truncate", true);
        double over = icae_json_get_number(in, "mscale", 0, 0, most);
        double under = icae_json_get_number(in, "mscale_all_dim", 0, 0, most);
        double magnitude = over > 0 && under > 0
                               ? icae_rope_yarn_magnitude(rope->factor, over) /
                                     icae_rope_yarn_magnitude(rope->factor, under)
                               : icae_rope_yarn_magnitude(rope->factor, 1);
        rope->magnitude = icae_json_get_number(in, "attention_factor", magnitude, 0, most);
    }
}

/* "type" is the older key. Where both stand and differ, transformers 4 took it and transformers 5 takes the
 * newer one; a factor without either is plain rope to one and an error to the other. */
static const char *rope_kind(icae_json_object *in) {
    const char *kind = icae_json_get_string(in, "rope_type", NULL);
    const char *older = icae_json_get_string(in, "type", kind);
    if (kind && strcmp(kind, older)) {
        icae_json_complain(in, "type", "is '%s', but rope_type is '%s'; remove the wrong one",
                           icae_quote_string(older).text, icae_quote_string(kind).text);
    } else if (!older && !icae_json_is_null(icae_json_get_value(in, "factor"))) {
        icae_json_complain(in, "factor", "needs a rope_type beside it: linear, llama3 or yarn");
    }
    return older ? older : "default";
}

/* One rope: plain ones are written as {} or type "default"; newer files keep theta in there too. */
static void read_rope_object(icae_json_object *object, const char *key,
                             const icae_json_value *value, icae_model_config *config) {
    char where[64];
    snprintf(where, sizeof where, "%s.", key);
    icae_json_object in = icae_json_begin(object->json, value, where, object->error);
    config->rope_theta =
        icae_json_get_number(&in, "rope_theta", config->rope_theta, 0, LARGEST_THETA);
    if (icae_json_get_number(&in, "partial_rotary_factor", 1, 0, 1) < 1) {
        icae_json_complain(&in, "partial_rotary_factor", "only 1 is known");
    }
    const char *name = rope_kind(&in);
    icae_rope_type type;
    if (!icae_rope_type_from_name(name, &type)) {
        icae_json_complain(&in, icae_json_has(&in, "type") ? "type" : "rope_type",
                           "'%s' is not known; known are: default, linear, llama3, yarn",
                           icae_quote_string(name).text);
    } else if (type != ICAE_ROPE_DEFAULT) {
        if (config->rope.type != ICAE_ROPE_DEFAULT) {
            icae_json_complain(object, key, "scales rope a second time");
        }
        read_scaling(&in, type, config);
    }
    const icae_json_value *v = icae_json_first(value);
    while (v && !icae_json_is_object(v))
        v = icae_json_next(v);
    if (v) {
        icae_json_complain(&in, icae_json_key(v), "rope by kinds of layers is not known");
    }
    icae_status status = icae_json_end_lenient(&in);
    if (!object->status) object->status = status;
}

/* Newer files give the two kinds of layers a rope each; that of layers with a window is plain. */
static void read_ropes(icae_json_object *object, const char *key, const icae_json_value *full,
                       const icae_json_value *local, icae_model_config *config) {
    char where[64];
    snprintf(where, sizeof where, "%s.full_attention", key);
    if (full) read_rope_object(object, where, full, config);
    if (!local || object->status) return;
    icae_model_config windowed = {.rope_theta = config->local_rope_theta};
    snprintf(where, sizeof where, "%s.sliding_attention", key);
    read_rope_object(object, where, local, &windowed);
    config->local_rope_theta = windowed.rope_theta;
    if (!object->status && windowed.rope.type != ICAE_ROPE_DEFAULT) {
        icae_json_complain(object, key, "scaled rope in layers with a window is not known");
    }
}

static void read_rope(icae_json_object *object, const char *key, icae_model_config *config) {
    const icae_json_value *value = icae_json_get_value(object, key);
    if (icae_json_is_null(value) || object->status) return;
    const icae_json_value *full = icae_json_member(value, "full_attention");
    const icae_json_value *local = icae_json_member(value, "sliding_attention");
    bool are_objects =
        (!full || icae_json_is_object(full)) && (!local || icae_json_is_object(local));
    if (!icae_json_is_object(value) || !are_objects) {
        icae_json_complain(object, key, "expected an object or null");
    } else if ((full || local) && config->local_rope_theta > 0) {
        read_ropes(object, key, full, local, config);
    } else {
        read_rope_object(object, key, value, config);
    }
}

/* The length that scaling starts from may also stand beside the rope: transformers 5 takes it from there,
 * transformers 4 does not look. */
static void check_original_length(icae_json_object *object, const icae_model_config *config) {
    static const char key[] = "original_max_position_embeddings";
    int64_t inside = config->rope.original_length;
    int64_t beside = icae_json_get_integer(object, key, inside, 1, INT64_C(1) << 30);
    bool is_used = config->rope.type == ICAE_ROPE_LLAMA3 || config->rope.type == ICAE_ROPE_YARN;
    if (!is_used || !inside || beside == inside) return;
    icae_json_complain(object, key,
                       "is %lld, but rope scaling has %lld, or takes that from "
                       "max_position_embeddings; write the right one into both",
                       (long long)beside, (long long)inside);
}

/* Which modules have a bias. */
static void read_biases(icae_json_object *object, const icae_architecture *architecture,
                        icae_model_config *config) {
    const struct {
        const char *key;
        unsigned modules;
    } keys[] = {
        {"attention_bias", architecture->biased_if_attention},
        {"mlp_bias", architecture->biased_if_mlp},
    };
    config->biased_modules = architecture->biased;
    for (int i = 0; i < 2; i++) {
        if (!icae_json_get_bool(object, keys[i].key, false)) continue;
        config->biased_modules |= keys[i].modules;
        if (!keys[i].modules) {
            icae_json_complain(object, keys[i].key,
                               "biases are not known for the architecture '%s'",
                               architecture->name);
        }
    }
}

/* Newer files also list every layer's kind: it must be what the other keys say. */
static void check_layer_types(icae_json_object *object, const icae_model_config *config) {
    const icae_json_value *list = icae_json_get_value(object, "layer_types");
    if (icae_json_is_null(list)) return;
    int64_t layer = 0;
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
        const char *type = icae_json_as_string(v);
        bool is_windowed = icae_layer_window(config, layer) > 0;
        if (!type || strcmp(type, is_windowed ? "sliding_attention" : "full_attention")) {
            icae_json_complain(object, "layer_types",
                               "layer %lld is '%s', but the other keys say that it has %s",
                               (long long)layer,
                               type ? icae_quote_string(type).text : "not a string",
                               is_windowed ? "a sliding window" : "none");
            return;
        }
        layer++;
    }
    if (!icae_json_is_array(list) || layer != config->layers) {
        icae_json_complain(object, "layer_types", "expected an array of %lld strings",
                           (long long)config->layers);
    }
}

/* The period of layers without a window. A list of every layer's kind, if there, counts alone, as in
 * transformers, which writes a key of its own that may be wrong beside it; the place of the first layer
 * without is the period then, 0 if there is none. */
static int64_t read_period(icae_json_object *object, int64_t default_period) {
    const int64_t most = INT64_C(1) << 30;
    int64_t period = default_period, place = 1;
    const icae_json_value *list = icae_json_get_value(object, "layer_types");
    if (icae_json_is_array(list)) {
        for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
            const char *type = icae_json_as_string(v);
            if (type && !strcmp(type, "full_attention")) return place;
            place++;
        }
        return 0;
    }
    period = icae_json_get_integer(object, "_sliding_window_pattern", period, 1, most);
    return icae_json_get_integer(object, "sliding_window_pattern", period, 1, most);
}

static void read_window(icae_json_object *object, const icae_architecture *architecture,
                        icae_model_config *config) {
    const int64_t most = INT64_C(1) << 30;
    icae_window_rule rule = architecture->window;
    bool is_used = rule == ICAE_WINDOW_ALWAYS || rule == ICAE_WINDOW_PERIODIC;
    if (rule == ICAE_WINDOW_IF_USED) {
        is_used = icae_json_get_bool(object, "use_sliding_window", false);
    }
    if (is_used && icae_json_has(object, "sliding_window")) {
        config->window = icae_json_get_integer(object, "sliding_window", 0, 1, most);
    } else if (is_used) {
        config->window = DEFAULT_WINDOW;
    }
    if (rule == ICAE_WINDOW_IF_USED && config->window) {
        config->first_windowed =
            icae_json_get_integer(object, "max_window_layers", DEFAULT_FULL_LAYERS, 0, most);
    }
    if (rule == ICAE_WINDOW_PERIODIC && config->window) {
        config->window_period = read_period(object, architecture->window_period);
    }
    check_layer_types(object, config);
}

/* What some architectures have and this program does not compute. */
static void refuse_unknown(icae_json_object *object) {
    static const char *const caps[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    for (size_t i = 0; i < sizeof caps / sizeof caps[0]; i++) {
        if (!icae_json_is_null(icae_json_get_value(object, caps[i]))) {
            icae_json_complain(object, caps[i], "only null is known");
        }
    }
    if (!icae_json_is_null(icae_json_get_value(object, "quantization_config"))) {
        icae_json_complain(object, "quantization_config",
                           "weights packed by other programs are not known; take the base from "
                           "before, or a GGUF of it");
    }
    if (icae_json_get_bool(object, "use_bidirectional_attention", false)) {
        icae_json_complain(object, "use_bidirectional_attention", "only false is known");
    }
}

static void read_activation(icae_json_object *object, const icae_architecture *architecture) {
    const char *key =
        architecture->activation_key ? architecture->activation_key : "hidden_act";
    const char *known = icae_activation_name(architecture->activation);
    const char *name = icae_json_get_string(object, key, known);
    if (strcmp(name, known)) {
        icae_json_complain(object, key, "'%s' is not known; only '%s' is",
                           icae_quote_string(name).text, known);
    }
}

static icae_status read_config(icae_model_config *config,
                               const icae_architecture **architecture, const icae_json *json,
                               icae_error *error) {
    icae_json_object object = icae_json_begin(json, icae_json_root(json), "", error);
    const int64_t most = INT64_C(1) << 30;
    const char *type = icae_json_get_string(&object, "model_type", "");
    *architecture = icae_architecture_find(type);
    if (!*architecture) {
        char known[128];
        icae_json_complain(
            &object, "model_type", "the architecture '%s' is not known; known are: %s",
            icae_quote_string(type).text, icae_architecture_names(known, sizeof known));
        return icae_json_end_lenient(&object);
    }
    snprintf(config->architecture, sizeof config->architecture, "%s", type);
    static const char *const required[] = {"vocab_size", "hidden_size", "num_hidden_layers",
                                           "num_attention_heads", "intermediate_size"};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        if (icae_json_has(&object, required[i])) continue;
        icae_json_complain(&object, NULL, "the key '%s' is missing; fetch the folder again",
                           required[i]);
    }
    config->vocabulary = icae_json_get_integer(&object, "vocab_size", 0, 1, most);
    config->width = icae_json_get_integer(&object, "hidden_size", 0, 1, most);
    config->layers = icae_json_get_integer(&object, "num_hidden_layers", 0, 1, most);
    config->heads = icae_json_get_integer(&object, "num_attention_heads", 0, 1, most);
    config->feed_forward = icae_json_get_integer(&object, "intermediate_size", 0, 1, most);
    config->context_length =
        icae_json_get_integer(&object, "max_position_embeddings", 2048, 1, most);
    config->norm_eps = icae_json_get_number(&object, "rms_norm_eps", 1e-6, 0, 1);
    config->has_own_head =
        !icae_json_get_bool(&object, "tie_word_embeddings", (*architecture)->is_tied);
    /* These two may be missing or null, and are 0 then: the weights tell, see complete_heads. */
    config->kv_heads = icae_json_get_integer(&object, "num_key_value_heads", 0, 1, most);
    config->head_width = icae_json_get_integer(&object, "head_dim", 0, 1, most);
    config->rope_theta = icae_json_get_number(&object, "rope_theta", 10000.0, 0, LARGEST_THETA);
    if (icae_json_get_number(&object, "partial_rotary_factor", 1, 0, 1) < 1) {
        icae_json_complain(&object, "partial_rotary_factor", "only 1 is known");
    }
    if ((*architecture)->local_rope_theta > 0) {
        config->local_rope_theta =
            icae_json_get_number(&object, "rope_local_base_freq",
                                 (*architecture)->local_rope_theta, 0, LARGEST_THETA);
    }
    if ((*architecture)->query_width > 0) {
        double query_width = icae_json_get_number(&object, "query_pre_attn_scalar",
                                                  (*architecture)->query_width, 1, 1e6);
        config->attention_scale = 1 / sqrt(query_width);
    }
    read_rope(&object, "rope_scaling", config);
    read_rope(&object, "rope_parameters", config);
    check_original_length(&object, config);
    read_biases(&object, *architecture, config);
    read_window(&object, *architecture, config);
    refuse_unknown(&object);
    read_activation(&object, *architecture);
    return icae_json_end_lenient(&object);
}

/* Rows of a matrix of the first layer; 0 when it is not there. */
static int64_t rows_of(const icae_model *model, icae_module module) {
    char name[128];
    icae_weight_view view;
    folder_name(&model->config, ICAE_WEIGHT_MODULE + (int)module, 0, name, sizeof name);
    return folder_find(model, name, &view) && view.rank == 2 ? view.shape[0] : 0;
}

/* A config without head_dim or num_key_value_heads leaves them to the defaults of the program that reads
 * it, which differ from architecture to architecture. What the weights say is what was meant. */
static void complete_heads(icae_model *model) {
    icae_model_config *config = &model->config;
    int64_t q = rows_of(model, ICAE_MODULE_Q), k = rows_of(model, ICAE_MODULE_K);
    if (config->heads < 1) return; /* refused later, with its name */
    if (!config->head_width) {
        int64_t all = q && q % config->heads == 0 ? q : config->width;
        config->head_width = all / config->heads;
    }
    if (!config->kv_heads) {
        bool tells = k && config->head_width && k % config->head_width == 0;
        config->kv_heads = tells ? k / config->head_width : config->heads;
    }
}

static icae_status open_parts(icae_model *model, const char *folder, const char *config_path,
                              const icae_architecture **architecture, icae_error *error) {
    icae_json *json = NULL;
    icae_status status = icae_json_open(&json, config_path, error);
    if (!status) status = read_config(&model->config, architecture, json, error);
    icae_json_free(json);
    if (!status) status = icae_shards_open(model, folder, error);
    if (!status) complete_heads(model);
    return status;
}

icae_status icae_model_read_folder(icae_model *model, const char *path,
                                   const icae_architecture **architecture, icae_error *error) {
    char *config_path = icae_path_join(path, "config.json");
    icae_status status = ICAE_OK;
    bool is_there = false;
    if (!config_path) return icae_fail_memory(error, path);
    status = icae_path_find(config_path, &is_there, error);
    if (!status && !is_there) {
        status = icae_fail(error, ICAE_IO,
                           "%s: has no config.json; a base is a Hugging Face folder or a GGUF "
                           "file",
                           path);
    }
    if (!status) status = open_parts(model, path, config_path, architecture, error);
    free(config_path);
    return status;
}
