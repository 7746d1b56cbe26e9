/* SPDX-License-Identifier: MIT */
/*
 * A base model out of a GGUF file: hyperparameters from its metadata, weights by llama.cpp's names.
 * Source: ggml's docs/gguf.md, "LLM" and "llama".
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/quote.h"
#include "model/model_internal.h"

static void gguf_name(const icae_model_config *config, int weight, int64_t layer, char *out,
                      size_t bytes) {
    (void)config;
    static const char *const modules[] = {
#define GGUF_MODULE(name, hf, folder, gguf) gguf,
        ICAE_MODULE_LIST(GGUF_MODULE)
#undef GGUF_MODULE
    };
    long long i = layer;
    switch (weight) {
    case ICAE_WEIGHT_EMBEDDING:
        snprintf(out, bytes, "token_embd.weight");
        break;
    case ICAE_WEIGHT_FINAL_NORM:
        snprintf(out, bytes, "output_norm.weight");
        break;
    case ICAE_WEIGHT_HEAD:
        snprintf(out, bytes, "output.weight");
        break;
    case ICAE_WEIGHT_INPUT_NORM:
        snprintf(out, bytes, "blk.%lld.attn_norm.weight", i);
        break;
    case ICAE_WEIGHT_POST_NORM:
        snprintf(out, bytes, "blk.%lld.ffn_norm.weight", i);
        break;
    case ICAE_WEIGHT_ATTENTION_NORM:
        snprintf(out, bytes, "blk.%lld.post_attention_norm.weight", i);
        break;
    case ICAE_WEIGHT_FEED_FORWARD_NORM:
        snprintf(out, bytes, "blk.%lld.post_ffw_norm.weight", i);
        break;
    case ICAE_WEIGHT_Q_NORM:
        snprintf(out, bytes, "blk.%lld.attn_q_norm.weight", i);
        break;
    case ICAE_WEIGHT_K_NORM:
        snprintf(out, bytes, "blk.%lld.attn_k_norm.weight", i);
        break;
    default:
        if (weight < ICAE_WEIGHT_BIAS)
            snprintf(out, bytes, "blk.%lld.%s.weight", i, modules[weight - ICAE_WEIGHT_MODULE]);
        else
            snprintf(out, bytes, "blk.%lld.%s.bias", i, modules[weight - ICAE_WEIGHT_BIAS]);
    }
}

static bool gguf_find(const icae_model *model, const char *name, icae_weight_view *view) {
    const icae_gguf_tensor *tensor = icae_gguf_find(&model->gguf, name);
    if (!tensor) return false;
    *view = (icae_weight_view){tensor->dtype, tensor->rank, tensor->shape, tensor->data,
                               tensor->bytes};
    return true;
}

static icae_status gguf_tokenizer(icae_model *model, icae_error *error) {
    return icae_tokenizer_from_gguf(&model->tokenizer, &model->gguf, error);
}

const icae_weight_source icae_gguf_source = {"GGUF", gguf_name, gguf_find, gguf_tokenizer,
                                             true};

/* Metadata keys carry the architecture's name: "llama.block_count". */
typedef struct reader {
    const icae_model *model;
    const char *architecture;
    icae_error *error;
    icae_status status; /* sticky */
} reader;

static int64_t get_integer(reader *r, const char *key, int64_t default_value) {
    char full[128];
    int64_t value = default_value;
    snprintf(full, sizeof full, "%s.%s", r->architecture, key);
    if (!icae_gguf_get_integer(&r->model->gguf, full, &value) && default_value < 0 &&
        !r->status) {
        r->status =
            icae_fail(r->error, ICAE_FORMAT, "%s: the metadata lacks the whole number %s",
                      r->model->path, full);
    }
    return value;
}

static double get_number(reader *r, const char *key, double default_value) {
    char full[128];
    double value = default_value;
    snprintf(full, sizeof full, "%s.%s", r->architecture, key);
    if (!icae_gguf_get_number(&r->model->gguf, full, &value) && default_value < 0 &&
        !r->status) {
        r->status = icae_fail(r->error, ICAE_FORMAT, "%s: the metadata lacks the number %s",
                              r->model->path, full);
    }
    return value;
}

static bool has_key(const reader *r, const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", r->architecture, key);
    return icae_gguf_item_find(&r->model->gguf, full) != NULL;
}

/* Linear and yarn scaling as the metadata tells them; Llama 3's comes as a tensor (model.c). Any other
 * kind changes every position: refused rather than ignored. */
static icae_status read_rope(reader *r, icae_model_config *config) {
    static const char *const unknown[] = {"rope.scaling.attn_factor",
                                          "rope.scaling.yarn_log_multiplier",
                                          "rope.scaling.yarn_ext_factor",
                                          "rope.scaling.yarn_attn_factor",
                                          "rope.scaling.yarn_beta_fast",
                                          "rope.scaling.yarn_beta_slow",
                                          "rope.scale_linear"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        if (!has_key(r, unknown[i])) continue;
        return icae_fail(r->error, ICAE_UNSUPPORTED, "%s: the metadata key %s.%s is not known",
                         r->model->path, r->architecture, unknown[i]);
    }
    char full[128],
        type[48] = "linear"; /* what llama.cpp takes a factor alone for; 0 is none */
    icae_gguf_string string;
    snprintf(full, sizeof full, "%s.rope.scaling.type", r->architecture);
    if (icae_gguf_get_string(&r->model->gguf, full, &string)) {
        snprintf(type, sizeof type, "%.*s", (int)(string.bytes < 40 ? string.bytes : 40),
                 string.data);
    } else {
        double factor = get_number(r, "rope.scaling.factor", 0);
        if (factor == 0 || factor == 1) return ICAE_OK;
    }
    if (!strcmp(type, "none")) return ICAE_OK;
    icae_rope_scaling *rope = &config->rope;
    if (strcmp(type, "linear") && strcmp(type, "yarn")) {
        return icae_fail(r->error, ICAE_UNSUPPORTED,
                         "%s: rope scaling '%s' is not known; known are: none, linear, yarn",
                         r->model->path, icae_quote_string(type).text);
    }
    icae_rope_type_from_name(type, &rope->type);
    rope->factor = get_number(r, "rope.scaling.factor", -1);
    if (rope->type == ICAE_ROPE_YARN) {
        rope->original_length =
            get_integer(r, "rope.scaling.original_context_length", config->context_length);
        rope->beta_fast = 32;
        rope->beta_slow = 1;
        rope->magnitude = icae_rope_yarn_magnitude(rope->factor, 1);
    }
    return r->status;
}

/* Windows in all but every so manieth layer, which have a rope of their own. A key newer than most
 * files gives the period; files without it leave it, like the rope's base, to the architecture. */
static icae_status read_periods(reader *r, const icae_architecture *architecture,
                                icae_model_config *config) {
    config->local_rope_theta =
        get_number(r, "rope.freq_base_swa", architecture->local_rope_theta);
    const char *key = "attention.sliding_window_pattern";
    config->window_period =
        get_integer(r, key, has_key(r, key) ? 0 : architecture->window_period);
    if (config->window_period >= 1) return ICAE_OK;
    return icae_fail(r->error, ICAE_UNSUPPORTED,
                     "%s: %s.%s: expected a whole number of at least 1; other patterns are not "
                     "known",
                     r->model->path, r->architecture, key);
}

/* Values that this program does not compute: caps, where 0 is none, and attention that sees what follows, as in
 * models that embed texts. */
static icae_status refuse_values(reader *r) {
    static const struct {
        const char *key;
        double known;
    } values[] = {
        {"attn_logit_softcapping", 0}, {"final_logit_softcapping", 0}, {"attention.causal", 1}};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        double value = get_number(r, values[i].key, values[i].known);
        if (value == values[i].known) continue;
        return icae_fail(r->error, ICAE_UNSUPPORTED, "%s: %s.%s = %g is not known; only %g is",
                         r->model->path, r->architecture, values[i].key, value,
                         values[i].known);
    }
    return ICAE_OK;
}

/* A window in a base whose architecture has it for some layers only says too little. */
static icae_status read_window(reader *r, const icae_architecture *architecture,
                               icae_model_config *config) {
    config->window = get_integer(r, "attention.sliding_window", 0);
    if (config->window >= 0 &&
        (!config->window || architecture->window != ICAE_WINDOW_IF_USED)) {
        bool is_periodic = config->window && architecture->window == ICAE_WINDOW_PERIODIC;
        return is_periodic ? read_periods(r, architecture, config) : ICAE_OK;
    }
    return icae_fail(
        r->error, ICAE_UNSUPPORTED,
        "%s: %s.attention.sliding_window = %lld is not known for this architecture",
        r->model->path, r->architecture, (long long)config->window);
}

/* Which of the biases that the architecture may have the file holds, going by its first layer. */
static unsigned biases_there(const icae_model *model, const icae_architecture *architecture) {
    unsigned optional = architecture->biased_if_attention | architecture->biased_if_mlp;
    unsigned there = architecture->biased;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        char name[128];
        gguf_name(&model->config, ICAE_WEIGHT_BIAS + m, 0, name, sizeof name);
        if (optional >> m & 1 && icae_gguf_find(&model->gguf, name)) there |= 1u << m;
    }
    return there;
}

icae_status icae_model_read_gguf(icae_model *model, const char *path,
                                 const icae_architecture **architecture, icae_error *error) {
    icae_status status = icae_gguf_open(&model->gguf, path, error);
    if (status) return status;
    int64_t parts = 1;
    if (icae_gguf_get_integer(&model->gguf, "split.count", &parts) && parts > 1) {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: is one of the %lld parts of a base; join them with llama.cpp's "
                         "llama-gguf-split --merge",
                         path, (long long)parts);
    }
    icae_gguf_string name;
    if (!icae_gguf_get_string(&model->gguf, "general.architecture", &name)) {
        return icae_fail(error, ICAE_FORMAT, "%s: the metadata lacks general.architecture",
                         path);
    }
    icae_model_config *config = &model->config;
    snprintf(config->architecture, sizeof config->architecture, "%.*s",
             (int)(name.bytes < 31 ? name.bytes : 31), name.data);
    *architecture = icae_architecture_find_gguf(config->architecture);
    if (!*architecture) {
        char known[128];
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: the architecture '%s' is not known; known are: %s", path,
                         icae_quote_string(config->architecture).text,
                         icae_architecture_names(known, sizeof known));
    }
    /* From here on the row's name, whatever the base is read from; keys bear the name in the file. */
    snprintf(config->architecture, sizeof config->architecture, "%s", (*architecture)->name);
    config->biased_modules = biases_there(model, *architecture);
    reader r = {model, (*architecture)->gguf_name, error, ICAE_OK};
    config->width = get_integer(&r, "embedding_length", -1);
    config->layers = get_integer(&r, "block_count", -1);
    config->heads = get_integer(&r, "attention.head_count", -1);
    config->kv_heads = get_integer(&r, "attention.head_count_kv", config->heads);
    config->feed_forward = get_integer(&r, "feed_forward_length", -1);
    config->context_length = get_integer(&r, "context_length", -1);
    config->norm_eps = get_number(&r, "attention.layer_norm_rms_epsilon", -1);
    config->rope_theta = get_number(&r, "rope.freq_base", 10000.0);
    if (r.status) return r.status;
    int64_t plain_width = config->heads > 0 ? config->width / config->heads : 0;
    config->head_width = get_integer(&r, "attention.key_length", plain_width);
    int64_t turned = get_integer(&r, "rope.dimension_count", config->head_width);
    int64_t value_width = get_integer(&r, "attention.value_length", config->head_width);
    if (turned != config->head_width || value_width != config->head_width) {
        return icae_fail(
            error, ICAE_UNSUPPORTED,
            "%s: heads of %lld with values of %lld and rope over %lld; expected all "
            "equal",
            path, (long long)config->head_width, (long long)value_width, (long long)turned);
    }
    int64_t special = (*architecture)->plain_query_layers;
    bool is_special = special && config->layers == special;
    double query_width = (double)(is_special ? plain_width : config->head_width);
    config->attention_scale =
        get_number(&r, "attention.scale", query_width > 0 ? 1 / sqrt(query_width) : 0);
    status = read_rope(&r, config);
    if (!status) status = read_window(&r, *architecture, config);
    if (!status) status = refuse_values(&r);
    if (status) return status;
    const icae_gguf_tensor *embedding = icae_gguf_find(&model->gguf, "token_embd.weight");
    config->vocabulary = embedding ? embedding->shape[0] : 0;
    config->has_own_head = icae_gguf_find(&model->gguf, "output.weight") != NULL;
    return ICAE_OK;
}
