/* SPDX-License-Identifier: MIT */
/*
 * A base model out of a GGUF file: hyperparameters from its metadata, weights by llama.cpp's names.
 * Source: ggml's docs/gguf.md, "LLM" and "llama".
 */
#include <stdio.h>
#include <string.h>

#include "model/model_internal.h"

static void gguf_name(int weight, int64_t layer, char *out, size_t bytes) {
    static const char *const modules[] = {
#define GGUF_MODULE(name, hf, folder, gguf) gguf,
        ICAE_MODULE_LIST(GGUF_MODULE)
#undef GGUF_MODULE
    };
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
        snprintf(out, bytes, "blk.%lld.attn_norm.weight", (long long)layer);
        break;
    case ICAE_WEIGHT_POST_NORM:
        snprintf(out, bytes, "blk.%lld.ffn_norm.weight", (long long)layer);
        break;
    default:
        snprintf(out, bytes, "blk.%lld.%s.weight", (long long)layer,
                 modules[weight - ICAE_WEIGHT_MODULE]);
    }
}

static bool gguf_find(const icae_model *model, const char *name, icae_weight_view *view) {
    const icae_gguf_tensor *tensor = icae_gguf_find(&model->gguf, name);
    if (!tensor) return false;
    *view = (icae_weight_view){tensor->dtype, tensor->rank, tensor->shape, tensor->data,
                               tensor->bytes};
    return true;
}

const icae_weight_source icae_gguf_source = {"GGUF", gguf_name, gguf_find, true};

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

/* Rope other than the plain one changes every position: refused rather than ignored. */
static icae_status refuse_scaled_rope(reader *r) {
    char full[128];
    icae_gguf_string type;
    snprintf(full, sizeof full, "%s.rope.scaling.type", r->architecture);
    if (icae_gguf_get_string(&r->model->gguf, full, &type) &&
        !(type.bytes == 4 && !memcmp(type.data, "none", 4))) {
        return icae_fail(r->error, ICAE_UNSUPPORTED,
                         "%s: rope scaling '%.*s' is not known; only 'none' is", r->model->path,
                         (int)(type.bytes < 40 ? type.bytes : 40), type.data);
    }
    if (icae_gguf_find(&r->model->gguf, "rope_freqs.weight")) {
        return icae_fail(r->error, ICAE_UNSUPPORTED,
                         "%s: has rope_freqs.weight (Llama 3 rope scaling), which is not known",
                         r->model->path);
    }
    return ICAE_OK;
}

icae_status icae_model_read_gguf(icae_model *model, const char *path, icae_error *error) {
    icae_status status = icae_gguf_open(&model->gguf, path, error);
    if (status) return status;
    icae_gguf_string architecture;
    if (!icae_gguf_get_string(&model->gguf, "general.architecture", &architecture)) {
        return icae_fail(error, ICAE_FORMAT, "%s: the metadata lacks general.architecture",
                         path);
    }
    icae_model_config *config = &model->config;
    snprintf(config->architecture, sizeof config->architecture, "%.*s",
             (int)(architecture.bytes < 31 ? architecture.bytes : 31), architecture.data);
    if (strcmp(config->architecture, "llama")) {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: the architecture '%s' is not known; known is: llama", path,
                         config->architecture);
    }
    reader r = {model, config->architecture, error, ICAE_OK};
    config->width = get_integer(&r, "embedding_length", -1);
    config->layers = get_integer(&r, "block_count", -1);
    config->heads = get_integer(&r, "attention.head_count", -1);
    config->kv_heads = get_integer(&r, "attention.head_count_kv", config->heads);
    config->feed_forward = get_integer(&r, "feed_forward_length", -1);
    config->context_length = get_integer(&r, "context_length", -1);
    config->window = get_integer(&r, "attention.sliding_window", 0);
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
    status = refuse_scaled_rope(&r);
    if (status) return status;
    const icae_gguf_tensor *embedding = icae_gguf_find(&model->gguf, "token_embd.weight");
    config->vocabulary = embedding ? embedding->shape[0] : 0;
    config->has_own_head = icae_gguf_find(&model->gguf, "output.weight") != NULL;
    return icae_tokenizer_from_gguf(&model->tokenizer, &model->gguf, error);
}
