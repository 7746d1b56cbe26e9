/* SPDX-License-Identifier: MIT */
/* Adapters: first values, folders written and read. What a loader must refuse: test_adapter_files.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adapter_support.h"
#include "icae/file.h"

static icae_error error;

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

START_TEST(spans_longer_than_the_bases_context_are_warned_of) {
    const char *folder = test_folder("long-spans");
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter_settings settings = icae_adapter_defaults(&model);
    settings.memory_slots = 8;
    settings.compression_rate = 4;
    model.config.context_length = 32; /* as long as a span; append has its slots behind it */
    for (int is_append = 0; is_append < 2; is_append++) {
        icae_adapter *adapter;
        settings.layout = is_append ? ICAE_LAYOUT_APPEND : ICAE_LAYOUT_UNIFORM;
        catch_warnings(folder);
        ck_ok(icae_adapter_create(&adapter, &model, &settings, 1, be, false, &error));
        ck_assert(has_warned(folder, "take 40 positions") == is_append);
        ck_assert(has_warned(folder, "warning") == is_append);
        icae_adapter_free(adapter);
    }
    icae_backend_free(be);
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
    bad.alpha = -1;
    ck_refused(create_with(&bad), "alpha");
    bad.alpha = (double)INFINITY;
    ck_refused(create_with(&bad), "alpha is inf");
    bad = good;
    bad.dropout = -0.5;
    ck_refused(create_with(&bad), "dropout is -0.5");
    bad = good;
    bad.memory_init = ICAE_MEMORY_INIT_COUNT;
    ck_refused(create_with(&bad), "none of the known");
    bad = good;
    bad.memory_inputs = ICAE_MEMORY_INPUTS_COUNT;
    ck_refused(create_with(&bad), "none of the known");
    bad = good;
    bad.slot_values = ICAE_SLOT_VALUES_COUNT;
    ck_refused(create_with(&bad), "none of the known");
    bad = good;
    bad.has_stop_id = true;
    bad.stop_id = -1;
    ck_refused(create_with(&bad), "stop_id is -1, but the base given (bases/small.gguf)");
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

static void expect_same_files(const char *a, const char *b) {
    for (size_t i = 0; i < N_ADAPTER_FILES; i++) {
        size_t n_a, n_b;
        char *left = read_whole(a, adapter_files[i], &n_a),
             *right = read_whole(b, adapter_files[i], &n_b);
        ck_assert_msg(n_a == n_b && !memcmp(left, right, n_a), "%s differs", adapter_files[i]);
        free(left);
        free(right);
    }
}

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

START_TEST(saves_under_any_name_that_a_folder_may_have) {
    char folder[600], here[4096], path[640], long_name[200];
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-names"));
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, 1);
    ck_refused(icae_adapter_save(adapter, "", &model, &error), "needs a folder's name");
    adapter->summary_json = strdup("{\"a\": false, \"b\": [true, null, {}]}");
    snprintf(path, sizeof path, "%s/slashes//", folder);
    ck_ok(icae_adapter_save(adapter, path, &model, &error));
    ck_ok(load_small(path, &error));
    ck_ok(icae_adapter_save(adapter, path, &model, &error)); /* over itself */
    ck_ok(load_small(path, &error));
    /* a link is written through, not replaced */
    ck_assert_int_eq(symlink("slashes", test_path(folder, "link")), 0);
    ck_ok(icae_adapter_save(adapter, test_path(folder, "link"), &model, &error));
    ck_ok(load_small(test_path(folder, "link"), &error));
    char kept[16] = "";
    ck_assert_int_eq(readlink(test_path(folder, "link"), kept, sizeof kept - 1), 7);
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    ck_assert_int_eq(chdir(folder), 0);
    ck_ok(icae_adapter_save(adapter, "bare", &model, &error));
    ck_assert_int_eq(chdir(here), 0);
    ck_ok(load_small(test_path(folder, "bare"), &error));
    /* what the base is called: the last part, nothing when it is too long or has no name */
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    char in_folder[] = "bases/small/";
    static const char *const said[] = {"\"name\": \"small\"", "\"name\": \"\"",
                                       "\"name\": \"\""};
    char *const paths[] = {in_folder, long_name, NULL};
    for (int i = 0; i < 3; i++) {
        size_t bytes;
        model.path = paths[i];
        ck_ok(icae_adapter_save(adapter, path, &model, &error));
        char *data = read_whole(path, "icae.json", &bytes);
        ck_assert_msg(strstr(data, said[i]), "%s", data);
        free(data);
    }
    icae_adapter_free(adapter);
    icae_backend_free(be);
}
END_TEST

/* Saved in 16 bits, the adapter in memory is what will be read. */
START_TEST(saves_in_16_bits_what_it_then_holds) {
    static const icae_dtype dtypes[] = {ICAE_DTYPE_F16, ICAE_DTYPE_BF16};
    const char *folder = test_folder("adapter-16");
    icae_backend *be = reference();
    icae_model model = small_model();
    icae_adapter *adapter = small_adapter(&model, be, 1), *loaded;
    uint64_t exact = icae_adapter_hash(adapter);
    for (int i = 0; i < 2; i++) {
        ck_ok(icae_adapter_save_as(adapter, folder, &model, dtypes[i], &error));
        ck_assert_uint_ne(adapter->fingerprint, exact);
        ck_ok(icae_adapter_load(&loaded, folder, &model, be, false, &error));
        ck_assert_uint_eq(loaded->fingerprint, adapter->fingerprint);
        icae_adapter_free(loaded);
    }
    adapter->params.values[1] = (icae_real)3.4e38;
    ck_refused(icae_adapter_save_as(adapter, folder, &model, ICAE_DTYPE_BF16, &error),
               "too large for BF16");
    icae_adapter_free(adapter);
    icae_backend_free(be);
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
            copy_file(set >> i & 1 ? new : old, mixed, adapter_files[i]);
        unsigned without_config = set & 0xE;
        if (without_config == 0 || without_config == 0xE) {
            ck_ok(load_small(mixed, &error));
        } else {
            ck_refused(load_small(mixed, &error), "interrupted");
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
            ck_assert_msg(load_small(folder, &error) != ICAE_OK, "%s: byte %zu", tensors[f], i);
            data[i] = (char)(data[i] ^ 1);
        }
        write_whole(folder, tensors[f], data, bytes);
        free(data);
    }
    ck_ok(load_small(folder, &error));
}
END_TEST

START_TEST(loads_the_golden_folder_with_its_least_icae_json) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-golden"));
    catch_warnings(folder);
    icae_backend *be = reference();
    icae_model model = golden_model();
    icae_adapter *adapter;
    ck_ok(icae_adapter_load(&adapter, GOLDEN_ADAPTER, &model, be, true, &error));
    ck_assert(has_warned(folder, "does not say which base the adapter was made for"));
    ck_assert_int_eq(adapter->settings.memory_slots, 8);
    ck_assert_int_eq(adapter->settings.compression_rate, 4);
    ck_assert_int_eq(adapter->settings.rank, 4);
    ck_assert(adapter->lora.scale == 2 && adapter->settings.dropout == 0);
    ck_assert_int_eq(adapter->params.n_params, 3 * 2 * 2 + 1);
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, test_path(GOLDEN_ADAPTER, "adapter_model.safetensors"),
                                &error));
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

SUITE_OF(adapter, 60, defaults_follow_the_chat_template,
         spans_longer_than_the_bases_context_are_warned_of,
         fresh_values_have_the_right_distributions,
         pairs_stand_where_the_forward_pass_looks_for_them,
         a_seed_gives_the_same_values_whatever_else_is_trained,
         the_hash_sees_values_scale_and_layout, refuses_settings_out_of_range,
         reads_what_it_wrote_and_writes_equal_bytes,
         replaces_an_adapter_and_leaves_other_files_alone,
         saves_under_any_name_that_a_folder_may_have, saves_in_16_bits_what_it_then_holds,
         refuses_every_mixture_that_an_interrupted_save_leaves,
         refuses_a_changed_byte_in_any_tensor, loads_the_golden_folder_with_its_least_icae_json)
