/* SPDX-License-Identifier: MIT */
/*
 * A sound base for fuzzing: one layer, four wide, five tokens, and an index that places its tensors. All
 * values are 0.5.
 */
#ifndef ICAE_TESTS_FUZZ_TINY_BASE_H
#define ICAE_TESTS_FUZZ_TINY_BASE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "icae/file.h"
#include "icae/safetensors.h"
#include "icae/text.h"
#include "sound.h"

static const char tiny_config[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 4, \"intermediate_size\": 6, "
    "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "
    "\"head_dim\": 2, \"vocab_size\": 5, \"max_position_embeddings\": 64, "
    "\"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"tie_word_embeddings\": true, "
    "\"hidden_act\": \"silu\"}";

static const char tiny_tokenizer[] =
    "{\"added_tokens\": [{\"id\": 4, \"content\": \"<e>\", \"special\": true}], "
    "\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
    "\"add_prefix_space\": false}, \"post_processor\": null, \"decoder\": {\"type\": "
    "\"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, "
    "\"ab\": 2, \"\\u0120\": 3}, \"merges\": [[\"a\", \"b\"]]}}";

static const struct {
    const char *name;
    int rank;
    int64_t shape[2];
} tiny_tensors[] = {
    {"model.embed_tokens.weight", 2, {5, 4}},
    {"model.layers.0.input_layernorm.weight", 1, {4}},
    {"model.layers.0.mlp.down_proj.weight", 2, {4, 6}},
    {"model.layers.0.mlp.gate_proj.weight", 2, {6, 4}},
    {"model.layers.0.mlp.up_proj.weight", 2, {6, 4}},
    {"model.layers.0.post_attention_layernorm.weight", 1, {4}},
    {"model.layers.0.self_attn.k_proj.weight", 2, {2, 4}},
    {"model.layers.0.self_attn.o_proj.weight", 2, {4, 4}},
    {"model.layers.0.self_attn.q_proj.weight", 2, {4, 4}},
    {"model.layers.0.self_attn.v_proj.weight", 2, {2, 4}},
    {"model.norm.weight", 1, {4}},
};
enum { N_TINY_TENSORS = sizeof tiny_tensors / sizeof tiny_tensors[0] };

/* Reads and removes a file that the caller wrote; the bytes live as long as the program. */
static inline void tiny_take_file(const char *path, sound_file *out) {
    icae_error error = {0};
    char *data;
    if (icae_file_read(path, 1 << 20, &data, &out->bytes, &error)) abort();
    unlink(path);
    out->data = data;
}

/* Fills the data of config.json, model.safetensors, tokenizer.json and the index. */
static inline void tiny_base(sound_file sound[4]) {
    static const float halves[24] = {.5F, .5F, .5F, .5F, .5F, .5F, .5F, .5F,
                                     .5F, .5F, .5F, .5F, .5F, .5F, .5F, .5F,
                                     .5F, .5F, .5F, .5F, .5F, .5F, .5F, .5F};
    static icae_text index;
    icae_safetensors_source sources[N_TINY_TENSORS] = {0};
    icae_error error = {0};
    char path[64];
    icae_text_append_string(&index, "{\"weight_map\": {");
    for (size_t i = 0; i < N_TINY_TENSORS; i++) {
        sources[i] = (icae_safetensors_source){.name = tiny_tensors[i].name,
                                               .dtype = ICAE_DTYPE_F32,
                                               .rank = tiny_tensors[i].rank,
                                               .data = halves};
        memcpy(sources[i].shape, tiny_tensors[i].shape, sizeof tiny_tensors[i].shape);
        icae_text_printf(&index, "%s\"%s\": \"m.safetensors\"", i ? ", " : "",
                         tiny_tensors[i].name);
    }
    icae_text_append_string(&index, "}}");
    snprintf(path, sizeof path, "/tmp/icae-sound-%d.safetensors", (int)getpid());
    if (icae_safetensors_write(path, sources, N_TINY_TENSORS, NULL, 0, &error)) abort();
    sound[0] = (sound_file){sound[0].name, tiny_config, sizeof tiny_config - 1};
    tiny_take_file(path, &sound[1]);
    sound[2] = (sound_file){sound[2].name, tiny_tokenizer, sizeof tiny_tokenizer - 1};
    sound[3] = (sound_file){sound[3].name, index.data, index.length};
}

#endif
