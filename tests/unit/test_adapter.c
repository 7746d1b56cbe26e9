/* SPDX-License-Identifier: MIT */
/* Adapters: first values, folders written and read, and all that a loader must refuse. Long, because every
 * refusal is a row of some table, and one set of small helpers serves them all. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/adapter.h"
#include "icae/file.h"
#include "icae/half.h"
#include "icae/json.h"
#include "suites.h"

static icae_error error;
static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors",
                                    "icae.json", "memory.safetensors"};
static const char golden[] = "tests/golden/llama/adapter";

static icae_backend *reference(void) {
    icae_backend *be;
    ck_ok(icae_backend_create(&be, "reference", 1, &error));
    return be;
}

/* All that an adapter asks of a model. */
static icae_model small_model(void) {
    static char path[] = "bases/small.gguf";
    icae_model model = {.config = {.architecture = "llama",
                                   .vocabulary = 50,
                                   .width = 8,
                                   .layers = 2,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_width = 4,
                                   .feed_forward = 12},
                        .fingerprint = 0xba5e,
                        .embedding_mean = 0.5,
                        .embedding_deviation = 0.125,
                        .path = path};
    return model;
}

static icae_model golden_model(void) {
    icae_model model = small_model();
    model.config = (icae_model_config){.architecture = "llama",
                                       .vocabulary = 512,
                                       .width = 64,
                                       .layers = 3,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .head_width = 16,
                                       .feed_forward = 176};
    return model;
}

static icae_adapter_settings small_settings(const icae_model *model) {
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

/* A small adapter with no zeros in it. */
static icae_adapter *small_adapter(const icae_model *model, icae_backend *be, uint64_t seed) {
    icae_adapter *adapter;
    icae_adapter_settings settings = small_settings(model);
    ck_ok(icae_adapter_create(&adapter, model, &settings, seed, be, false, &error));
    for (int64_t i = 0; i < adapter->params.count; i++) {
        if (adapter->params.values[i] == 0)
            adapter->params.values[i] = (icae_real)(0.01f * (float)(i % 17 + 1));
    }
    return adapter;
}

static void save_small(const char *folder, uint64_t seed) {
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, seed);
    ck_ok(icae_adapter_save(adapter, folder, &model, &error));
    icae_adapter_free(adapter);
    icae_backend_free(be);
}

static icae_status load_for(const char *folder, const icae_model *model) {
    icae_backend *be = reference();
    icae_adapter *adapter;
    icae_status status = icae_adapter_load(&adapter, folder, model, be, false, &error);
    ck_assert((status == ICAE_OK) == (adapter != NULL));
    icae_adapter_free(adapter);
    icae_backend_free(be); /* asserts that a refused load gave all buffers back */
    return status;
}

static icae_status load_small(const char *folder) {
    icae_model model = small_model();
    return load_for(folder, &model);
}

static char *read_whole(const char *folder, const char *name, size_t *bytes) {
    static char *data; /* static, as gcc 12 sees a dangling pointer in a local one */
    ck_ok(icae_file_read(test_path(folder, name), 1 << 20, &data, bytes, &error));
    return data;
}

static void write_whole(const char *folder, const char *name, const char *data, size_t bytes) {
    FILE *file = fopen(test_path(folder, name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

static void copy_file(const char *from, const char *to, const char *name) {
    size_t bytes;
    char *data = read_whole(from, name, &bytes);
    write_whole(to, name, data, bytes);
    free(data);
}

static void expect_same_files(const char *a, const char *b) {
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        size_t n_a, n_b;
        char *left = read_whole(a, files[i], &n_a), *right = read_whole(b, files[i], &n_b);
        ck_assert_msg(n_a == n_b && !memcmp(left, right, n_a), "%s differs", files[i]);
        free(left);
        free(right);
    }
}

/* Takes the checksums out of icae.json, as its sentences tell whoever edits an adapter by hand. */
static void unseal(const char *folder) {
    size_t bytes;
    char *data = read_whole(folder, "icae.json", &bytes);
    char *end = strstr(data, ",\n  \"files\": ");
    ck_assert_ptr_nonnull(end);
    memcpy(end, "\n}\n", 3);
    write_whole(folder, "icae.json", data, (size_t)(end - data) + 3);
    free(data);
}

static void save_unsealed(const char *folder, uint64_t seed) {
    save_small(folder, seed);
    unseal(folder);
}

/* Loads the folder with one text in one file replaced by another; the file is restored. */
static icae_status load_edited(const char *folder, const char *name, const char *from,
                               const char *to) {
    size_t bytes;
    char *data = read_whole(folder, name, &bytes), *place = strstr(data, from);
    ck_assert_msg(place != NULL, "%s holds no %s", name, from);
    icae_text edited = {0};
    icae_text_append(&edited, data, (size_t)(place - data));
    icae_text_append_string(&edited, to);
    icae_text_append_string(&edited, place + strlen(from));
    write_whole(folder, name, edited.data, edited.length);
    icae_status status = load_small(folder);
    write_whole(folder, name, data, bytes);
    icae_text_release(&edited);
    free(data);
    return status;
}

/* Sends this test's warnings to a file, and tells whether one of them holds a text. */
static void catch_warnings(const char *folder) {
    ck_assert_ptr_nonnull(freopen(test_path(folder, "stderr"), "w", stderr));
}

static bool has_warned(const char *folder, const char *text) {
    size_t bytes;
    fflush(stderr);
    char *data = read_whole(folder, "stderr", &bytes);
    bool found = strstr(data, text) != NULL;
    free(data);
    return found;
}

/* ---- defaults and first values ---- */

START_TEST(defaults_follow_the_chat_template) {
    const char *folder = test_folder("adapter-chat");
    copy_file("tests/golden/llama/model", folder, "tokenizer.json");
    icae_model model = small_model();
    icae_adapter_settings settings = icae_adapter_defaults(&model);
    ck_assert_str_eq(settings.chat_template, "none");
    ck_assert_str_eq(settings.chat_prefix, "");
    ck_assert_int_eq(settings.memory_slots, 128);
    ck_assert_int_eq(settings.rank, 128);
    ck_assert(settings.alpha == 32 && settings.dropout == 0.05);
    for (int m = 0; m < ICAE_MODULE_COUNT; m++)
        ck_assert_int_eq(settings.targets[m], m == ICAE_MODULE_Q || m == ICAE_MODULE_V);
    static const char config[] = "{\"chat_template\": \"<|im_start|>{{ m }}<|im_end|>\"}";
    write_whole(folder, "tokenizer_config.json", config, sizeof config - 1);
    ck_ok(icae_tokenizer_open_folder(&model.tokenizer, folder, &error));
    settings = icae_adapter_defaults(&model);
    icae_tokenizer_free(model.tokenizer);
    ck_assert_str_eq(settings.chat_template, "chatml");
    ck_assert_str_eq(settings.chat_prefix, "<|im_start|>user\n");
    ck_assert_str_eq(settings.chat_suffix, "<|im_end|>\n<|im_start|>assistant\n");
    ck_assert_str_eq(settings.chat_turn, "<|im_end|>\n<|im_start|>user\n");
    ck_assert_str_eq(settings.chat_end, "<|im_end|>");
}
END_TEST

static void measure(const icae_param *param, double *mean, double *deviation, double *largest) {
    const icae_real *values = param->tensor.data;
    double sum = 0, squares = 0;
    *largest = 0;
    for (int64_t i = 0; i < param->count; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
        *largest = fmax(*largest, fabs((double)values[i]));
    }
    *mean = sum / (double)param->count;
    *deviation = sqrt(squares / (double)param->count - *mean * *mean);
}

START_TEST(fresh_values_have_the_right_distributions) {
    icae_backend *be = reference();
    icae_model model = small_model();
    model.config.width = 256;
    for (int init = 0; init < ICAE_MEMORY_INIT_COUNT; init++) {
        icae_adapter_settings settings = icae_adapter_defaults(&model);
        settings.memory_init = (icae_memory_init)init;
        icae_adapter *adapter;
        ck_ok(icae_adapter_create(&adapter, &model, &settings, 5, be, true, &error));
        double mean, deviation, largest, bound = 1 / sqrt(256.0);
        measure(&adapter->params.list[0], &mean, &deviation, &largest); /* 128 x 256, uniform */
        ck_assert(largest <= bound && largest > 0.999 * bound);
        ck_assert(fabs(mean) < 0.01 * bound && fabs(deviation / bound - sqrt(1 / 3.0)) < 0.01);
        measure(&adapter->params.list[1], &mean, &deviation, &largest);
        ck_assert(largest == 0);
        measure(icae_params_find(&adapter->params, "memory_token_embed"), &mean, &deviation,
                &largest);
        double wanted_mean = init == ICAE_MEMORY_INIT_BASE ? 0.5 : 0;
        double wanted = init == ICAE_MEMORY_INIT_BASE ? 0.125 : 1;
        ck_assert(fabs(mean - wanted_mean) < 0.02 * wanted);
        ck_assert(fabs(deviation / wanted - 1) < 0.02);
        icae_adapter_free(adapter);
    }
    icae_backend_free(be);
}
END_TEST

START_TEST(pairs_stand_where_the_forward_pass_looks_for_them) {
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, 1);
    ck_assert_int_eq(adapter->params.n_params, 2 * 3 * 2 + 1);
    ck_assert(adapter->lora.scale == 1.5 && adapter->lora.rank == 2);
    for (int64_t i = 0; i < model.config.layers * ICAE_MODULE_COUNT; i++) {
        icae_module module = (icae_module)(i % ICAE_MODULE_COUNT);
        char path[96], name[128];
        icae_module_path(i / ICAE_MODULE_COUNT, module, path, sizeof path);
        snprintf(name, sizeof name, "%s.lora_A", path);
        const icae_param *a = icae_params_find(&adapter->params, name);
        snprintf(name, sizeof name, "%s.lora_B", path);
        const icae_param *b = icae_params_find(&adapter->params, name);
        ck_assert_ptr_eq(adapter->lora.a[i], a ? &a->tensor : NULL);
        ck_assert_ptr_eq(adapter->lora.b[i], b ? &b->tensor : NULL);
        ck_assert_int_eq(a != NULL, adapter->settings.targets[module]);
        if (!a) continue;
        ck_assert_int_eq(a->shape[1], icae_module_cols(&model.config, module));
        ck_assert_int_eq(b->shape[0], icae_module_rows(&model.config, module));
    }
    ck_assert_int_eq(adapter->memory->shape[0], 4 + 3);
    ck_assert_int_eq(adapter->memory->shape[1], 8);
    icae_adapter_free(adapter);
    icae_backend_free(be);
}
END_TEST

START_TEST(a_seed_gives_the_same_values_whatever_else_is_trained) {
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter_settings settings = small_settings(&model);
    icae_adapter *a, *b, *c;
    ck_ok(icae_adapter_create(&a, &model, &settings, 7, be, false, &error));
    ck_ok(icae_adapter_create(&b, &model, &settings, 7, be, true, &error));
    ck_ok(icae_adapter_create(&c, &model, &settings, 8, be, false, &error));
    ck_assert_uint_eq(a->fingerprint, b->fingerprint);
    ck_assert_uint_ne(a->fingerprint, c->fingerprint);
    icae_adapter_free(b);
    settings.targets[ICAE_MODULE_K] = true;
    ck_ok(icae_adapter_create(&b, &model, &settings, 7, be, false, &error));
    for (int i = 0; i < a->params.n_params; i++) {
        const icae_param *p = &a->params.list[i], *q = icae_params_find(&b->params, p->name);
        ck_assert_mem_eq(p->tensor.data, q->tensor.data, (size_t)p->count * sizeof(icae_real));
    }
    icae_adapter_free(a);
    icae_adapter_free(b);
    icae_adapter_free(c);
    icae_backend_free(be);
}
END_TEST

START_TEST(the_hash_sees_values_scale_and_layout) {
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, 1);
    uint64_t hash = icae_adapter_hash(adapter);
    icae_real *last = &adapter->params.values[adapter->params.count - 1], kept = *last;
    *last += (icae_real)0.5;
    ck_assert_uint_ne(icae_adapter_hash(adapter), hash);
    *last = kept;
    ck_assert_uint_eq(icae_adapter_hash(adapter), hash);
    adapter->lora.scale *= 2;
    ck_assert_uint_ne(icae_adapter_hash(adapter), hash);
    adapter->lora.scale /= 2;
    adapter->settings.layout = ICAE_LAYOUT_APPEND;
    ck_assert_uint_ne(icae_adapter_hash(adapter), hash);
    icae_adapter_free(adapter);
    icae_backend_free(be);
}
END_TEST

static icae_status create_with(const icae_adapter_settings *settings) {
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter;
    icae_status status = icae_adapter_create(&adapter, &model, settings, 1, be, false, &error);
    icae_adapter_free(adapter);
    icae_backend_free(be);
    return status;
}

START_TEST(refuses_settings_out_of_range) {
    icae_model model = small_model();
    const icae_adapter_settings good = small_settings(&model);
    ck_ok(create_with(&good));
    icae_adapter_settings bad = good;
    bad.memory_slots = 0;
    ck_refused(create_with(&bad), "memory_slots is 0");
    bad = good;
    bad.compression_rate = INT64_MAX;
    ck_refused(create_with(&bad), "compression_rate");
    bad = good;
    bad.rank = -1;
    ck_refused(create_with(&bad), "rank is -1");
    bad = good;
    bad.alpha = (double)NAN;
    ck_refused(create_with(&bad), "alpha");
    bad = good;
    bad.dropout = 1;
    ck_refused(create_with(&bad), "dropout is 1");
    bad = good;
    bad.layout = ICAE_LAYOUT_COUNT;
    ck_refused(create_with(&bad), "layout");
    bad = good;
    memset(bad.chat_suffix, 'x', sizeof bad.chat_suffix);
    ck_refused(create_with(&bad), "chat_suffix");
    bad = good;
    memset(bad.targets, 0, sizeof bad.targets);
    ck_refused(create_with(&bad), "no target module");
}
END_TEST

/* ---- folders ---- */

START_TEST(reads_what_it_wrote_and_writes_equal_bytes) {
    const char *folder = test_folder("adapter-whole");
    char first[600], second[600];
    snprintf(first, sizeof first, "%s/deep/first/", folder);
    snprintf(second, sizeof second, "%s/second", folder);
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, 1), *again;
    adapter->summary_json =
        strdup("{\"steps\":  12, \"loss\": [0.1, null, true, \"a\\n\\u0000\"]}");
    ck_ok(icae_adapter_save(adapter, first, &model, &error));
    ck_ok(icae_adapter_load(&again, first, &model, be, true, &error));
    ck_assert_str_eq(again->path, first);
    ck_assert_str_eq(again->summary_json,
                     "{\"steps\": 12, \"loss\": [0.1, null, true, \"a\\n\\u0000\"]}");
    ck_assert_uint_eq(again->fingerprint, adapter->fingerprint);
    ck_assert_uint_eq(again->base_fingerprint, 0xba5e);
    ck_assert_int_eq(again->params.count, adapter->params.count);
    for (int64_t i = 0; i < again->params.count; i++)
        ck_assert((float)again->params.values[i] == (float)adapter->params.values[i]);
    ck_assert_ptr_nonnull(again->params.moment2);
    icae_adapter_settings a = adapter->settings, b = again->settings;
    ck_assert(a.memory_slots == b.memory_slots && a.compression_rate == b.compression_rate);
    ck_assert(a.layout == b.layout && a.memory_init == b.memory_init &&
              a.memory_inputs == b.memory_inputs && a.slot_values == b.slot_values &&
              a.rank == b.rank);
    ck_assert(a.alpha == b.alpha && a.dropout == b.dropout);
    ck_assert_mem_eq(a.targets, b.targets, sizeof a.targets);
    ck_assert_str_eq(a.chat_prefix, b.chat_prefix);
    ck_assert_str_eq(a.chat_suffix, b.chat_suffix);
    ck_assert_str_eq(b.chat_template, "custom");
    ck_assert_str_eq(a.chat_turn, b.chat_turn);
    ck_assert_str_eq(b.chat_end, "</u>");
    ck_ok(icae_adapter_save(again, second, &model, &error));
    expect_same_files(first, second);
    /* Only the four files are there, and nothing beside the folder. */
    char **names;
    size_t count;
    ck_ok(icae_folder_list(second, &names, &count, &error));
    ck_assert_uint_eq(count, 4);
    icae_names_free(names, count);
    ck_ok(icae_folder_list(folder, &names, &count, &error));
    ck_assert_uint_eq(count, 2);
    icae_names_free(names, count);
    icae_adapter_free(adapter);
    icae_adapter_free(again);
    icae_backend_free(be);
}
END_TEST

START_TEST(replaces_an_adapter_and_leaves_other_files_alone) {
    const char *folder = test_folder("adapter-replaced");
    char fresh[600];
    snprintf(fresh, sizeof fresh, "%s/fresh", folder);
    save_small(folder, 1);
    write_whole(folder, "notes.txt", "mine", 4);
    save_small(folder, 2);
    save_small(fresh, 2);
    expect_same_files(folder, fresh);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "notes.txt")), 4);
    char **names;
    size_t count;
    ck_ok(icae_folder_list(folder, &names, &count, &error));
    ck_assert_uint_eq(count, 6); /* four files, the note, the folder "fresh" */
    icae_names_free(names, count);
    /* a file in the way, and a summary that is no object */
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, 1);
    char note[600];
    snprintf(note, sizeof note, "%s/notes.txt", folder);
    ck_refused(icae_adapter_save(adapter, note, &model, &error), "is a file");
    adapter->summary_json = strdup("[1]");
    ck_refused(icae_adapter_save(adapter, folder, &model, &error), "expected a JSON object");
    icae_adapter_free(adapter);
    icae_backend_free(be);
    expect_same_files(folder, fresh); /* the refused save touched nothing */
}
END_TEST

START_TEST(refuses_every_mixture_that_an_interrupted_save_leaves) {
    const char *folder = test_folder("adapter-mixed");
    char old[600], new[600], mixed[600];
    snprintf(old, sizeof old, "%s/old", folder);
    snprintf(new, sizeof new, "%s/new", folder);
    snprintf(mixed, sizeof mixed, "%s/mixed", folder);
    save_small(old, 1);
    save_small(new, 2);
    ck_ok(icae_folder_make(mixed, &error));
    for (unsigned set = 0; set < 16; set++) {
        /* adapter_config.json is the same in both, so its bit decides nothing */
        for (unsigned i = 0; i < 4; i++)
            copy_file(set >> i & 1 ? new : old, mixed, files[i]);
        unsigned without_config = set & 0xE;
        if (without_config == 0 || without_config == 0xE) {
            ck_ok(load_small(mixed));
        } else {
            ck_refused(load_small(mixed), "interrupted");
        }
    }
}
END_TEST

START_TEST(refuses_a_changed_byte_in_any_tensor) {
    const char *folder = test_folder("adapter-flipped");
    save_small(folder, 1);
    static const char *const tensors[] = {"adapter_model.safetensors", "memory.safetensors"};
    for (int f = 0; f < 2; f++) {
        size_t bytes, header = 8;
        char *data = read_whole(folder, tensors[f], &bytes);
        for (int i = 0; i < 8; i++)
            header += (size_t)(unsigned char)data[i] << (8 * i);
        for (size_t i = header; i < bytes; i++) {
            data[i] = (char)(data[i] ^ 1);
            write_whole(folder, tensors[f], data, bytes);
            ck_assert_msg(load_small(folder) != ICAE_OK, "%s: byte %zu", tensors[f], i);
            data[i] = (char)(data[i] ^ 1);
        }
        write_whole(folder, tensors[f], data, bytes);
        free(data);
    }
    ck_ok(load_small(folder));
}
END_TEST

START_TEST(loads_the_golden_folder_with_its_least_icae_json) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-golden"));
    catch_warnings(folder);
    icae_backend *be = reference();
    icae_model model = golden_model();
    icae_adapter *adapter;
    ck_ok(icae_adapter_load(&adapter, golden, &model, be, true, &error));
    ck_assert(has_warned(folder, "does not say which base the adapter was made for"));
    ck_assert_int_eq(adapter->settings.memory_slots, 8);
    ck_assert_int_eq(adapter->settings.compression_rate, 4);
    ck_assert_int_eq(adapter->settings.rank, 4);
    ck_assert(adapter->lora.scale == 2 && adapter->settings.dropout == 0);
    ck_assert_int_eq(adapter->params.n_params, 3 * 2 * 2 + 1);
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, test_path(golden, "adapter_model.safetensors"), &error));
    const icae_safetensors_entry *entry = icae_safetensors_find(
        &file, "base_model.model.model.layers.2.self_attn.v_proj.lora_B.weight");
    const icae_param *param =
        icae_params_find(&adapter->params, "model.layers.2.self_attn.v_proj.lora_B");
    ck_assert(entry && param);
    ck_assert_int_eq(param->shape[0], 32);
    for (int64_t i = 0; i < param->count; i++) {
        float value;
        memcpy(&value, (const char *)entry->data + (size_t)i * sizeof value, sizeof value);
        ck_assert(value == (float)adapter->params.values[param->offset + i]);
    }
    icae_safetensors_close(&file);
    icae_adapter_free(adapter);
    icae_backend_free(be);
}
END_TEST

#define CHAT_KEYS                                                                              \
    "  \"chat_template\": \"custom\",\n  \"chat_prefix\": \"<u>\\n\\\"\",\n"                   \
    "  \"chat_suffix\": \"\",\n  \"chat_turn\": \"\",\n  \"chat_end\": \"</u>\",\n"

START_TEST(reads_chat_templates_of_every_age) {
    const char *folder = test_folder("adapter-ages");
    char edited[600];
    snprintf(edited, sizeof edited, "%s/edited", folder);
    save_unsealed(folder, 1);
    ck_ok(icae_folder_make(edited, &error));
    for (size_t i = 0; i < 4; i++)
        copy_file(folder, edited, files[i]);
    static const struct {
        const char *keys, *name, *prefix, *suffix, *turn, *end;
    } cases[] = {
        /* texts that are stored count, whatever the table has under that name */
        {"\"chat_template\": \"mistral\", \"chat_prefix\": \"a\", \"chat_suffix\": \"b\", "
         "\"chat_turn\": \"c\", \"chat_end\": \"d\",",
         "mistral", "a", "b", "c", "d"},
        {"\"chat_template\": \"of-2031\", \"chat_prefix\": \"a\", \"chat_suffix\": \"b\", "
         "\"chat_turn\": \"c\", \"chat_end\": \"d\",",
         "of-2031", "a", "b", "c", "d"},
        {"\"chat_template\": \"mistral\",", "mistral", "<s>[INST]", "[/INST]", "</s>[INST]",
         "</s>"},
        /* of before there were names */
        {"\"chat_prefix\": \"a\", \"chat_suffix\": \"b\",", "custom", "a", "b", "", ""},
        {"\"chat_prefix\": \"\", \"chat_suffix\": \"\",", "none", "", "", "", ""},
        {"", "none", "", "", "", ""},
    };
    icae_backend *be = reference();
    icae_model model = small_model();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t bytes;
        char *data = read_whole(folder, "icae.json", &bytes), *keys = strstr(data, CHAT_KEYS);
        ck_assert_ptr_nonnull(keys);
        icae_text text = {0};
        icae_text_append(&text, data, (size_t)(keys - data));
        icae_text_append_string(&text, cases[i].keys);
        icae_text_append_string(&text, keys + strlen(CHAT_KEYS));
        write_whole(edited, "icae.json", text.data, text.length);
        icae_adapter *adapter;
        ck_ok(icae_adapter_load(&adapter, edited, &model, be, false, &error));
        ck_assert_str_eq(adapter->settings.chat_template, cases[i].name);
        ck_assert_str_eq(adapter->settings.chat_prefix, cases[i].prefix);
        ck_assert_str_eq(adapter->settings.chat_suffix, cases[i].suffix);
        ck_assert_str_eq(adapter->settings.chat_turn, cases[i].turn);
        ck_assert_str_eq(adapter->settings.chat_end, cases[i].end);
        icae_adapter_free(adapter);
        icae_text_release(&text);
        free(data);
    }
    icae_backend_free(be);
    ck_refused(load_edited(folder, "icae.json", CHAT_KEYS, "\"chat_template\": \"of-2031\","),
               "'of-2031' is unknown");
    ck_refused(load_edited(folder, "icae.json", "\"custom\"",
                           "\"a name that is longer than any name may be\""),
               "chat_template: has 42 bytes, expected at most 31");
}
END_TEST

START_TEST(names_both_bases_when_they_differ) {
    const char *folder = test_folder("adapter-base");
    save_unsealed(folder, 1);
    icae_model model = small_model();
    char other[] = "bases/other.gguf";
    model.path = other;
    model.fingerprint = 0xcafe;
    ck_refused(load_for(folder, &model),
               "was made for the base 'small.gguf' (000000000000ba5e), but the base given "
               "(bases/other.gguf) is 000000000000cafe");
    ck_assert_int_eq(error.status, ICAE_MISMATCH);
    model.config.width = 16; /* the fingerprint is still what it complains about */
    ck_refused(load_for(folder, &model), "000000000000cafe");
    /* without the fingerprint there is a warning only, and with it none */
    catch_warnings(folder);
    ck_ok(load_edited(folder, "icae.json", "\"memory_init\"", "\"memory_init\""));
    ck_assert(!has_warned(folder, "warning"));
    ck_ok(load_edited(folder, "icae.json", "\"fingerprint\": \"000000000000ba5e\", ", ""));
    ck_assert(has_warned(folder, "with another than bases/small.gguf expect garbage"));
}
END_TEST

START_TEST(refuses_another_tokenizer) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-tokenizer"));
    icae_backend *be = reference();
    icae_model model = small_model();
    ck_ok(icae_tokenizer_open_folder(&model.tokenizer, "tests/golden/llama/model", &error));
    icae_adapter *adapter = small_adapter(&model, be, 1);
    ck_ok(icae_adapter_save(adapter, folder, &model, &error));
    icae_adapter_free(adapter);
    icae_backend_free(be);
    ck_ok(load_for(folder, &model));
    unseal(folder);
    size_t bytes;
    char *data = read_whole(folder, "icae.json", &bytes);
    char *digit = strstr(strstr(data, "\"tokenizer\""), "\": \"") + 4;
    *digit = *digit == '0' ? '1' : '0';
    write_whole(folder, "icae.json", data, bytes);
    free(data);
    ck_refused(load_for(folder, &model), "was made with the tokenizer");
    icae_tokenizer_free(model.tokenizer);
}
END_TEST

START_TEST(refuses_a_damaged_icae_json) {
    static const char *const cases[][3] = {
        {"\"icae-adapter\"", "\"icae\"", "expected \"icae-adapter\""},
        {"\"version\": 1", "\"version\": 2", "reads version 1"},
        {"  \"version\": 1,\n", "", "'version' is missing"},
        {"  \"memory_slots\": 4,\n", "", "'memory_slots' is missing"},
        {"  \"layout\": \"uniform\",\n", "", "'layout' is missing"},
        {"\"memory_slots\": 4", "\"memory_slots\": 5", "does not have the shape [8, 8]"},
        {"\"memory_slots\": 4", "\"memory_slots\": 0", "expected 1 to"},
        {"\"memory_slots\": 4", "\"memory_slots\": 65536", "too few for the 524312 numbers"},
        {"\"compression_rate\": 3", "\"compression_rate\": 3.5", "whole number"},
        {"\"uniform\"", "\"even\"", "append"},
        {"\"uniform\"", "\"append\"", "written for"},
        {"\"format\"", "\"surprise\": 1, \"format\"", "surprise"},
        {"\"width\"", "\"breadth\"", "breadth"},
        {"000000000000ba5e", "BA5E", "16 digits"},
        {"\"memory_init\": \"base\"", "\"memory_init\": 3", "memory_init"},
        {"\"memory_inputs\": \"learned\"", "\"memory_inputs\": \"raw\"", "pooled"},
        {"\"memory_inputs\": \"learned\"", "\"memory_inputs\": \"pooled\"", "written for"},
        {"\"slot_values\": \"hidden\"", "\"slot_values\": \"large\"", "residual"},
        {"\"slot_values\": \"hidden\"", "\"slot_values\": \"scaled\"", "written for"},
        {"\"base\": {", "\"base\": [{", ""},
        {"}\n", "", "expected"},
    };
    const char *folder = test_folder("adapter-icae-json");
    save_unsealed(folder, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_refused(load_edited(folder, "icae.json", cases[i][0], cases[i][1]), cases[i][2]);
    /* Without a fingerprint the sizes still speak. */
    ck_refused(load_edited(folder, "icae.json",
                           "\"fingerprint\": \"000000000000ba5e\", \"name\": \"small.gguf\", "
                           "\"architecture\": \"llama\", \"width\": 8",
                           "\"width\": 16"),
               "made for a base that has 16, the base given (bases/small.gguf) has 8");
    ck_ok(load_small(folder));
}
END_TEST

START_TEST(refuses_peft_features_that_it_does_not_compute) {
    static const char *const cases[][3] = {
        {"\"use_dora\": false", "\"use_dora\": true", "use_dora"},
        {"\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true", "fan_in_fan_out"},
        {"\"use_dora\": false", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save"},
        {"\"use_dora\": false", "\"rank_pattern\": {\"q_proj\": 8}", "rank_pattern"},
        {"\"use_dora\": false", "\"alpha_pattern\": {\"q_proj\": 8}", "alpha_pattern"},
        {"\"use_dora\": false", "\"layers_to_transform\": 3", "layers_to_transform"},
        {"\"bias\": \"none\"", "\"bias\": \"all\"", "bias"},
        {"\"peft_type\": \"LORA\"", "\"peft_type\": \"IA3\"", "peft_type"},
        {"[\"q_proj\", \"v_proj\", \"down_proj\"]", "\".*_proj\"", "is one pattern"},
        {"[\"q_proj\", \"v_proj\", \"down_proj\"]", "[]", "expected a list"},
        {"[\"q_proj\", \"v_proj\", \"down_proj\"]", "[\"query\"]", "query"},
        {"\"q_proj\", ", "", "is none that the settings"},
        {"\"q_proj\"", "\"q_proj\", \"k_proj\"", "k_proj.lora_A is missing"},
        {"\"r\": 2", "\"r\": 3", "does not have the shape"},
        {"\"r\": 2", "\"r\": 65536", "too few for the"},
        {"\"r\": 2,", "", "'r' is missing"},
        {"\"lora_alpha\": 3", "\"lora_alpha\": 0", "alpha is 0"},
        {"\"lora_alpha\": 3", "\"lora_alpha\": 4", "written for"},
        {"\"lora_dropout\": 0.05", "\"lora_dropout\": 1", "dropout is 1"},
    };
    const char *folder = test_folder("adapter-peft");
    save_unsealed(folder, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_refused(load_edited(folder, "adapter_config.json", cases[i][0], cases[i][1]),
                   cases[i][2]);
    }
    /* What PEFT adds over the years is no business of ours while it is off. */
    ck_ok(load_edited(folder, "adapter_config.json", "\"use_dora\": false",
                      "\"rank_pattern\": {}, \"modules_to_save\": null, \"loftq_config\": {}, "
                      "\"revision\": \"x\", \"layers_to_transform\": null, \"new_key\": [1]"));
}
END_TEST

START_TEST(turns_rslora_into_plain_alpha) {
    const char *folder = test_folder("adapter-rslora");
    catch_warnings(folder);
    char again_folder[600];
    snprintf(again_folder, sizeof again_folder, "%s/again", folder);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        copy_file(golden, folder, files[i]);
    size_t bytes;
    char *data = read_whole(folder, "adapter_config.json", &bytes);
    char *flag = strstr(data, "\"use_rslora\": false");
    ck_assert_ptr_nonnull(flag);
    memcpy(flag, "\"use_rslora\": true ", 19);
    write_whole(folder, "adapter_config.json", data, bytes);
    free(data);
    icae_backend *be = reference();
    icae_model model = golden_model();
    icae_adapter *adapter, *again;
    ck_ok(icae_adapter_load(&adapter, folder, &model, be, false, &error));
    ck_assert(adapter->lora.scale == 4); /* 8 / sqrt(4) */
    ck_ok(icae_adapter_save(adapter, again_folder, &model, &error));
    ck_ok(icae_adapter_load(&again, again_folder, &model, be, false, &error));
    ck_assert(again->lora.scale == 4 && again->settings.alpha == 16);
    ck_assert_uint_eq(again->fingerprint, adapter->fingerprint);
    icae_adapter_free(adapter);
    icae_adapter_free(again);
    icae_backend_free(be);
}
END_TEST

/* ---- tensors of other programs ---- */

enum { MOST = 16 };
typedef struct tensor_file {
    icae_safetensors file;
    icae_safetensors_source sources[MOST];
    size_t n;
} tensor_file;

/* The golden LoRA tensors, to be changed and written into `folder`. */
static void open_golden(tensor_file *tensors, const char *name) {
    ck_ok(icae_safetensors_open(&tensors->file, test_path(golden, name), &error));
    tensors->n = tensors->file.n_entries;
    ck_assert_uint_lt(tensors->n, MOST);
    for (size_t i = 0; i < tensors->n; i++) {
        const icae_safetensors_entry *entry = &tensors->file.entries[i];
        tensors->sources[i] = (icae_safetensors_source){
            .name = entry->name, .dtype = entry->dtype, .rank = 2, .data = entry->data};
        memcpy(tensors->sources[i].shape, entry->shape, sizeof entry->shape);
    }
}

static icae_status load_tensors(const char *folder, const char *name, tensor_file *tensors) {
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        copy_file(golden, folder, files[i]);
    ck_ok(icae_safetensors_write(test_path(folder, name), tensors->sources, tensors->n, NULL, 0,
                                 &error));
    icae_model model = golden_model();
    return load_for(folder, &model);
}

START_TEST(accepts_half_precision_and_the_longer_names) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-half"));
    catch_warnings(folder);
    static const char name[] = "adapter_model.safetensors";
    static char names[MOST][160];
    static uint16_t halves[MOST][4096];
    for (int kind = 0; kind < 2; kind++) {
        tensor_file tensors;
        open_golden(&tensors, name);
        for (size_t i = 0; i < tensors.n; i++) {
            icae_safetensors_source *source = &tensors.sources[i];
            size_t count = (size_t)(source->shape[0] * source->shape[1]);
            snprintf(names[i], sizeof names[i], "%.*s.default.weight",
                     (int)(strlen(source->name) - strlen(".weight")), source->name);
            for (size_t v = 0; v < count; v++) {
                float value;
                memcpy(&value, (const char *)source->data + v * sizeof value, sizeof value);
                halves[i][v] = kind ? icae_f32_to_f16(value) : icae_f32_to_bf16(value);
            }
            source->name = names[i];
            source->dtype = kind ? ICAE_DTYPE_F16 : ICAE_DTYPE_BF16;
            source->data = halves[i];
        }
        ck_ok(load_tensors(folder, name, &tensors));
        icae_backend *be = reference();
        icae_model model = golden_model();
        icae_adapter *adapter;
        ck_ok(icae_adapter_load(&adapter, folder, &model, be, false, &error));
        for (size_t i = 0; i < tensors.n; i++) {
            char wanted[160];
            size_t prefix = strlen("base_model.model.");
            snprintf(wanted, sizeof wanted, "%.*s",
                     (int)(strlen(names[i]) - prefix - strlen(".default.weight")),
                     names[i] + prefix);
            const icae_param *param = icae_params_find(&adapter->params, wanted);
            for (int64_t v = 0; v < param->count; v++) {
                float value =
                    kind ? icae_f16_to_f32(halves[i][v]) : icae_bf16_to_f32(halves[i][v]);
                ck_assert(value == (float)adapter->params.values[param->offset + v]);
            }
        }
        icae_adapter_free(adapter);
        icae_backend_free(be);
        icae_safetensors_close(&tensors.file);
    }
}
END_TEST

START_TEST(refuses_missing_extra_misshapen_and_broken_tensors) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-tensors"));
    catch_warnings(folder);
    static const char name[] = "adapter_model.safetensors";
    tensor_file tensors;
    open_golden(&tensors, name);
    const icae_safetensors_source first = tensors.sources[0];
    size_t n = tensors.n;
    ck_ok(load_tensors(folder, name, &tensors));

    tensors.n = n - 1;
    ck_refused(load_tensors(folder, name, &tensors), "v_proj.lora_B is missing");
    tensors.n = n + 1;
    static const char *const extra[] = {
        "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A",
        "memory_token_embed.weight",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        ".weight",
        "base_model.model..weight"};
    for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++) {
        tensors.sources[n] = first;
        tensors.sources[n].name = extra[i];
        ck_refused(load_tensors(folder, name, &tensors), extra[i]);
    }
    tensors.sources[n].name =
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight";
    ck_refused(load_tensors(folder, name, &tensors), "under two names");

    tensors.n = n;
    tensors.sources[0].shape[0] = first.shape[1];
    tensors.sources[0].shape[1] = first.shape[0];
    ck_refused(load_tensors(folder, name, &tensors), "q_proj.lora_A");
    ck_refused(load_tensors(folder, name, &tensors), "does not have the shape [4, 64]");
    tensors.sources[0] = first;
    static double doubles[4 * 64];
    tensors.sources[0].dtype = ICAE_DTYPE_F64;
    tensors.sources[0].data = doubles;
    ck_refused(load_tensors(folder, name, &tensors), "expected F32, F16 or BF16");
    static float values[4 * 64];
    values[200] = NAN;
    tensors.sources[0] = first;
    tensors.sources[0].data = values;
    ck_refused(load_tensors(folder, name, &tensors), "holds a NaN at place 200");
    values[200] = INFINITY;
    ck_refused(load_tensors(folder, name, &tensors), "an infinity");
    icae_safetensors_close(&tensors.file);

    open_golden(&tensors, "memory.safetensors");
    tensors.sources[0].name = "memory.weight";
    ck_refused(load_tensors(folder, "memory.safetensors", &tensors), "memory.weight");
    icae_safetensors_close(&tensors.file);
}
END_TEST

START_TEST(refuses_what_is_no_adapter_folder) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-none"));
    ck_refused(load_small(folder), "icae.json");
    ck_refused(load_small(test_path(folder, "missing")), "is not a folder");
    save_small(folder, 1);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        size_t bytes;
        char *data = read_whole(folder, files[i], &bytes);
        ck_assert_int_eq(remove(test_path(folder, files[i])), 0);
        ck_refused(load_small(folder), files[i]);
        write_whole(folder, files[i], data, bytes / 2);
        ck_refused(load_small(folder), files[i]);
        write_whole(folder, files[i], data, bytes);
        free(data);
    }
    ck_ok(load_small(folder));
}
END_TEST

SUITE_OF(adapter, 60, defaults_follow_the_chat_template,
         fresh_values_have_the_right_distributions,
         pairs_stand_where_the_forward_pass_looks_for_them,
         a_seed_gives_the_same_values_whatever_else_is_trained,
         the_hash_sees_values_scale_and_layout, refuses_settings_out_of_range,
         reads_what_it_wrote_and_writes_equal_bytes,
         replaces_an_adapter_and_leaves_other_files_alone,
         refuses_every_mixture_that_an_interrupted_save_leaves,
         refuses_a_changed_byte_in_any_tensor, loads_the_golden_folder_with_its_least_icae_json,
         reads_chat_templates_of_every_age, names_both_bases_when_they_differ,
         refuses_another_tokenizer, refuses_a_damaged_icae_json,
         refuses_peft_features_that_it_does_not_compute, turns_rslora_into_plain_alpha,
         accepts_half_precision_and_the_longer_names,
         refuses_missing_extra_misshapen_and_broken_tensors, refuses_what_is_no_adapter_folder)
