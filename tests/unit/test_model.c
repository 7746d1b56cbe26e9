/* SPDX-License-Identifier: MIT */
/*
 * Opening a base: the ways a config says one thing, settings that are refused by name, rope's
 * frequencies, and weights that are split over several files.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/model.h"
#include "suites.h"

static icae_error error;

static void copy_into(const char *from, const char *folder, const char *name, const char *as) {
    char *data, path[256];
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", from, name);
    ck_ok(icae_file_read(path, 1 << 24, &data, &bytes, &error));
    ck_ok(icae_file_write(test_path(folder, as), data, bytes, &error));
    free(data);
}

/* A folder with the files of one golden model. */
static const char *model_folder(const char *golden) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    char from[128];
    snprintf(from, sizeof from, "tests/golden/%s/model", golden);
    const char *folder = test_folder("model");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        copy_into(from, folder, files[i], files[i]);
    return folder;
}

/* One text in a file replaced by another (both "": as it is). */
static void edit(const char *folder, const char *name, const char *from, const char *to) {
    char *text;
    size_t bytes;
    ck_ok(icae_file_read(test_path(folder, name), 1 << 20, &text, &bytes, &error));
    char *at = strstr(text, from);
    ck_assert_msg(at != NULL, "%s lacks \"%s\"", name, from);
    icae_text edited = {0};
    icae_text_printf(&edited, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    ck_ok(icae_file_write(test_path(folder, name), edited.data, edited.length, &error));
    icae_text_release(&edited);
    free(text);
}

/* Opens the golden model with one text in its config replaced by another. */
static icae_status open_edited(const char *golden, const char *from, const char *to,
                               icae_model **model) {
    const char *folder = model_folder(golden);
    edit(folder, "config.json", from, to);
    return icae_model_open(model, folder, &error);
}

static uint64_t fingerprint_of(const char *golden, const char *from, const char *to) {
    icae_model *model;
    ck_ok(open_edited(golden, from, to, &model));
    uint64_t fingerprint = model->fingerprint;
    icae_model_close(model);
    return fingerprint;
}

/* As transformers 5 writes them; older versions have keys of their own for both. */
#define GEMMA_ROPES                                                                            \
    "\"rope_parameters\": {\n"                                                                 \
    "    \"full_attention\": {\n      \"factor\": 8.0,\n      \"rope_theta\": 1000000.0,\n"    \
    "      \"rope_type\": \"linear\"\n    },\n"                                                \
    "    \"sliding_attention\": {\n      \"rope_theta\": 10000.0,\n"                           \
    "      \"rope_type\": \"default\"\n    }\n  },"
#define GEMMA_LAYERS                                                                           \
    "\"layer_types\": [\n    \"sliding_attention\",\n    \"sliding_attention\",\n"             \
    "    \"full_attention\",\n    \"sliding_attention\"\n  ],"

/* Each says the same in another way, so the base must be the same. */
START_TEST(one_config_can_be_said_in_several_ways) {
    static const struct {
        const char *golden, *from, *to;
    } rows[] = {
        {"mistral", "\"head_dim\": null,", ""},
        {"mistral", "\"head_dim\": null,", "\"head_dim\": 16,"},
        {"mistral", "\"num_key_value_heads\": 2,", ""},
        {"mistral", "\"num_key_value_heads\": 2,", "\"num_key_value_heads\": null,"},
        {"llama3", "\"head_dim\": 32,", ""},
        {"llama3", "\"rope_scaling\"", "\"rope_parameters\""},
        {"llama3", "\"rope_type\"", "\"type\""},
        {"qwen3", "\"head_dim\": 24,", ""},
        {"qwen2", "\"use_sliding_window\": false,", ""},
        {"qwen2", "\"rope_scaling\": null,", "\"rope_scaling\": {\"rope_type\": \"default\"},"},
        {"qwen2", "\"rope_scaling\": null,\n  \"rope_theta\": 1000000.0,",
         "\"rope_parameters\": {\"rope_theta\": 1000000.0, \"rope_type\": \"default\"},"},
        {"gemma3", GEMMA_ROPES,
         "\"rope_theta\": 1000000.0, \"rope_local_base_freq\": 10000.0, "
         "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0},"},
        {"gemma3", "\"rope_theta\": 10000.0,", ""},
        {"gemma3", GEMMA_LAYERS, "\"sliding_window_pattern\": 3,"},
        {"gemma3", "\"_sliding_window_pattern\": 6,", ""},
        {"gemma3", "\"hidden_activation\": \"gelu_pytorch_tanh\",", ""},
        {"gemma3", "\"tie_word_embeddings\": true,", ""},
        {"gemma3", "\"final_logit_softcapping\": null,", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t plain = fingerprint_of(rows[i].golden, "", "");
        uint64_t edited = fingerprint_of(rows[i].golden, rows[i].from, rows[i].to);
        ck_assert_msg(plain == edited, "row %zu: %s", i, rows[i].to);
    }
}
END_TEST

START_TEST(settings_that_change_the_mathematics_change_the_base) {
    uint64_t plain = fingerprint_of("qwen2", "", "");
    ck_assert(fingerprint_of("mistral", "", "") !=
              fingerprint_of("mistral", "\"sliding_window\": 24", "\"sliding_window\": null"));
    ck_assert(plain !=
              fingerprint_of("qwen2", "\"rope_scaling\": null",
                             "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}"));
    static const struct {
        const char *from, *to;
    } rows[] = {
        {"\"query_pre_attn_scalar\": 20", "\"query_pre_attn_scalar\": 24"},
        {"\"rope_theta\": 10000.0", "\"rope_theta\": 20000.0"},
        {"\"factor\": 8.0", "\"factor\": 4.0"},
        {GEMMA_LAYERS, "\"sliding_window_pattern\": 2,"},
        {GEMMA_LAYERS, ""},
    };
    plain = fingerprint_of("gemma3", "", "");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        ck_assert_msg(plain != fingerprint_of("gemma3", rows[i].from, rows[i].to), "row %zu",
                      i);
}
END_TEST

START_TEST(windows_hold_where_the_config_says) {
    icae_model *model;
    ck_ok(open_edited("mistral", "", "", &model));
    ck_assert(model->config.window == 24 && model->config.first_windowed == 0);
    icae_model_close(model);
    ck_ok(open_edited("mistral", "\"sliding_window\": 24,", "", &model));
    ck_assert_int_eq(model->config.window, 4096);
    icae_model_close(model);
    const char *folder = model_folder("qwen2");
    edit(folder, "config.json", "\"use_sliding_window\": false",
         "\"use_sliding_window\": true");
    edit(folder, "config.json", "\"sliding_window\": null", "\"sliding_window\": 8");
    edit(folder, "config.json", "\"max_window_layers\": 28", "\"max_window_layers\": 1");
    ck_refused(icae_model_open(&model, folder, &error), "layer 1");
    edit(folder, "config.json", "\"full_attention\"\n", "\"sliding_attention\"\n");
    ck_ok(icae_model_open(&model, folder, &error));
    ck_assert(model->config.window == 8 && model->config.first_windowed == 1);
    icae_model_close(model);
}
END_TEST

START_TEST(unknown_settings_are_refused_by_name) {
    static const struct {
        const char *golden, *from, *to, *part;
    } rows[] = {
        {"llama", "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"",
         "'mamba' is not known; known are: llama, mistral, qwen2, qwen3, gemma3_text"},
        {"llama3", "\"rope_type\": \"llama3\"", "\"rope_type\": \"longrope\"", "'longrope'"},
        {"llama3", "\"factor\": 8.0,", "", "factor is missing"},
        {"llama3", "\"low_freq_factor\": 1.0", "\"low_freq_factor\": 9.0", "low_freq_factor"},
        {"llama3", "\"rope_scaling\": {", "\"partial_rotary_factor\": 0.5, \"rope_scaling\": {",
         "partial_rotary_factor"},
        {"qwen2", "\"rope_scaling\": null",
         "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}",
         "full_attention"},
        {"qwen2", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "'gelu'"},
        {"qwen2", "\"hidden_act\"", "\"attention_bias\": true, \"hidden_act\"",
         "attention_bias"},
        {"qwen2", "\"full_attention\"", "\"sliding_attention\"", "layer 0"},
        /* the weights hold what the architecture does not have, or lack what it has */
        {"qwen2", "\"model_type\": \"qwen2\"", "\"model_type\": \"llama\"", "q_proj.bias"},
        {"qwen3", "\"model_type\": \"qwen3\"", "\"model_type\": \"llama\"", "q_norm"},
        {"llama", "\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"", "bias is missing"},
        {"llama", "\"attention_bias\": false", "\"attention_bias\": true", "bias is missing"},
        {"gemma3", "\"hidden_activation\": \"gelu_pytorch_tanh\"",
         "\"hidden_activation\": \"silu\"", "only 'gelu_pytorch_tanh' is"},
        {"gemma3", "\"final_logit_softcapping\": null", "\"final_logit_softcapping\": 30.0",
         "final_logit_softcapping"},
        {"gemma3", "\"attn_logit_softcapping\": null", "\"attn_logit_softcapping\": 50.0",
         "attn_logit_softcapping"},
        {"gemma3", "\"use_bidirectional_attention\": false",
         "\"use_bidirectional_attention\": true", "use_bidirectional_attention"},
        {"gemma3", "\"rope_type\": \"default\"", "\"rope_type\": \"linear\", \"factor\": 2",
         "layers with a window"},
        {"gemma3", "\"query_pre_attn_scalar\": 20", "\"query_pre_attn_scalar\": 0",
         "query_pre_attn_scalar"},
        {"gemma3", "\"model_type\": \"gemma3_text\"", "\"model_type\": \"gemma2\"", "'gemma2'"},
        {"qwen3", "\"model_type\": \"qwen3\"", "\"model_type\": \"gemma3_text\"", "is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        icae_model *model;
        ck_refused(open_edited(rows[i].golden, rows[i].from, rows[i].to, &model), rows[i].part);
        ck_assert_ptr_null(model);
    }
}
END_TEST

/* Values that Hugging Face's modeling_rope_utils computes for E = 16, theta = 10000. */
START_TEST(yarn_and_linear_frequencies_are_those_of_transformers) {
    icae_model_config config = {.head_width = 16, .rope_theta = 10000};
    double plain[8], scaled[8];
    icae_rope_frequencies(&config, false, plain);
    config.rope = (icae_rope_scaling){.type = ICAE_ROPE_LINEAR, .factor = 4};
    icae_rope_frequencies(&config, false, scaled);
    for (int i = 0; i < 8; i++) {
        ck_assert_double_eq_tol(plain[i], pow(10, -i / 2.0), 1e-15);
        ck_assert_double_eq_tol(scaled[i], plain[i] / 4, 1e-15);
    }
    config.rope = (icae_rope_scaling){.type = ICAE_ROPE_YARN,
                                      .factor = 4,
                                      .original_length = 256,
                                      .beta_fast = 32,
                                      .beta_slow = 1};
    static const double rounded[8] = {
        1.0,    0.2569350598886808,    0.0625,  0.01383496476323666,
        0.0025, 0.0007905694150420947, 0.00025, 7.905694150420948e-05};
    static const double exact[8] = {1.0,
                                    0.25397231355700634,
                                    0.05539863663460478,
                                    0.00963994285097862,
                                    0.0025,
                                    0.0007905694150420947,
                                    0.00025,
                                    7.905694150420948e-05};
    icae_rope_frequencies(&config, false, scaled);
    for (int i = 0; i < 8; i++)
        ck_assert_double_eq_tol(scaled[i], rounded[i], 1e-14);
    config.rope.has_exact_ramp = true;
    icae_rope_frequencies(&config, false, scaled);
    for (int i = 0; i < 8; i++)
        ck_assert_double_eq_tol(scaled[i], exact[i], 1e-14);
}
END_TEST

/* ---- shards ---- */

enum { PARTS = 2 };

/* Splits model.safetensors into two files with an index. */
static const char *sharded_folder(const char *golden) {
    const char *folder = model_folder(golden);
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, test_path(folder, "model.safetensors"), &error));
    icae_text index = {0};
    icae_text_printf(&index, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (size_t part = 0; part < PARTS; part++) {
        icae_safetensors_source *sources = calloc(file.n_entries, sizeof *sources);
        ck_assert_ptr_nonnull(sources);
        char name[64];
        size_t n = 0;
        snprintf(name, sizeof name, "model-%05zu-of-00002.safetensors", part + 1);
        for (size_t i = part; i < file.n_entries; i += PARTS) {
            const icae_safetensors_entry *e = &file.entries[i];
            sources[n] = (icae_safetensors_source){e->name, e->dtype, e->rank, {0}, e->data};
            memcpy(sources[n++].shape, e->shape, sizeof e->shape);
            icae_text_printf(&index, "%s\"%s\": \"%s\"", i ? ", " : "", e->name, name);
        }
        ck_ok(icae_safetensors_write(test_path(folder, name), sources, n, NULL, 0, &error));
        free(sources);
    }
    icae_text_printf(&index, "}}");
    ck_ok(icae_file_write(test_path(folder, "model.safetensors.index.json"), index.data,
                          index.length, &error));
    icae_text_release(&index);
    icae_safetensors_close(&file);
    ck_assert_int_eq(remove(test_path(folder, "model.safetensors")), 0);
    return folder;
}

START_TEST(shards_are_the_same_base_as_the_whole) {
    icae_model *model;
    uint64_t whole = fingerprint_of("qwen2", "", "");
    ck_ok(icae_model_open(&model, sharded_folder("qwen2"), &error));
    ck_assert_int_eq((int)model->n_shards, PARTS);
    ck_assert(model->fingerprint == whole);
    icae_model_close(model);
}
END_TEST

START_TEST(an_index_that_does_not_fit_its_files_is_refused) {
    static const char first[] = "model-00001-of-00002.safetensors";
    static const struct {
        const char *from, *to, *part;
    } rows[] = {
        {first, "../other.safetensors", "in this folder"},
        {first, "/etc/model.safetensors", "in this folder"},
        {first, "sub/model.safetensors", "in this folder"},
        {first, "..safetensors", "in this folder"},
        {first, "model.bin", "in this folder"},
        {first, "model-00003-of-00002.safetensors", "model-00003-of-00002.safetensors"},
        {first, "model-00002-of-00002.safetensors", "does not hold it"},
        {"\"model.norm.weight\": ", "\"model.norm.other\": ", "does not hold it"},
        {"\"weight_map\"", "\"weights\"", "weight_map"},
        {"\"weight_map\": {", "\"weight_map\": {}, \"rest\": {", "weight_map"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *folder = sharded_folder("qwen2");
        edit(folder, "model.safetensors.index.json", rows[i].from, rows[i].to);
        icae_model *model;
        ck_refused(icae_model_open(&model, folder, &error), rows[i].part);
    }
}
END_TEST

/* A tensor that stands in a file but not in the index. */
START_TEST(an_unlisted_tensor_is_refused) {
    const char *folder = sharded_folder("qwen2");
    char *text;
    size_t bytes;
    const char *path = test_path(folder, "model.safetensors.index.json");
    ck_ok(icae_file_read(path, 1 << 20, &text, &bytes, &error));
    char *at = strstr(text, "\"model.embed_tokens.weight\""), *end = strstr(at, ", ") + 2;
    memmove(at, end, strlen(end) + 1);
    ck_ok(icae_file_write(path, text, strlen(text), &error));
    free(text);
    icae_model *model;
    ck_refused(icae_model_open(&model, folder, &error), "places");
}
END_TEST

SUITE_OF(model, 60, one_config_can_be_said_in_several_ways,
         settings_that_change_the_mathematics_change_the_base,
         windows_hold_where_the_config_says, unknown_settings_are_refused_by_name,
         yarn_and_linear_frequencies_are_those_of_transformers,
         shards_are_the_same_base_as_the_whole, an_index_that_does_not_fit_its_files_is_refused,
         an_unlisted_tensor_is_refused)
