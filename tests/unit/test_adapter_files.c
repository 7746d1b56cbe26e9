/* SPDX-License-Identifier: MIT */
/* The files of an adapter folder: those of every age and of other programs that are read, and all that a
 * loader must refuse, each refusal a row of some table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_support.h"
#include "icae/file.h"
#include "icae/half.h"
#include "icae/text.h"

static icae_error error;

/* ---- JSON ---- */

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
        copy_file(folder, edited, adapter_files[i]);
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
        {"\"chat_prefix\": \"a\",", "custom", "a", "", "", ""},
        {"\"chat_suffix\": \"b\", \"chat_turn\": \"c\",", "custom", "", "b", "c", ""},
        {"\"chat_prefix\": \"a\", \"chat_end\": \"d\",", "custom", "a", "", "", "d"},
        {"\"chat_turn\": \"c\",", "custom", "", "", "c", ""},
        {"\"chat_end\": \"d\",", "custom", "", "", "", "d"},
        {"\"chat_template\": \"mistral\", \"chat_prefix\": \"<s>[INST]\",", "mistral",
         "<s>[INST]", "[/INST]", "</s>[INST]", "</s>"},
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
    ck_refused(
        load_edited(folder, "icae.json", CHAT_KEYS, "\"chat_template\": \"of-2031\",", &error),
        "'of-2031' is unknown");
    ck_refused(load_edited(folder, "icae.json", "\"chat_template\": \"custom\"",
                           "\"chat_template\": 3", &error),
               "chat_template: expected a string");
    ck_refused(load_edited(folder, "icae.json", "\"custom\"",
                           "\"a name that is longer than any name may be\"", &error),
               "chat_template: has 42 bytes, expected at most 31");
}
END_TEST

/* An adapter that does not say how it was asked gets what suits the base, as far as that is known. */
START_TEST(warns_of_a_template_that_nobody_knows) {
    static const char config[] = "{\"chat_template\": \"### {{ m }}\"}";
    char folder[600];
    size_t bytes;
    snprintf(folder, sizeof folder, "%s", test_folder("adapter-template"));
    catch_warnings(folder);
    save_unsealed(folder, 1);
    char *data = read_whole(folder, "icae.json", &bytes), *keys = strstr(data, CHAT_KEYS);
    ck_assert_ptr_nonnull(keys);
    memmove(keys, keys + strlen(CHAT_KEYS), strlen(keys + strlen(CHAT_KEYS)) + 1);
    write_whole(folder, "icae.json", data, strlen(data));
    free(data);
    copy_file("tests/golden/llama/model", folder, "tokenizer.json");
    write_whole(folder, "tokenizer_config.json", config, sizeof config - 1);
    icae_model model = small_model();
    ck_ok(icae_tokenizer_open_folder(&model.tokenizer, folder, &error));
    ck_ok(load_for(folder, &model, &error));
    ck_assert(has_warned(folder, "its chat template is none of those known here; questions are "
                                 "set in 'chatml'"));
    icae_tokenizer_free(model.tokenizer);
}
END_TEST

START_TEST(names_both_bases_when_they_differ) {
    const char *folder = test_folder("adapter-base");
    save_unsealed(folder, 1);
    icae_model model = small_model();
    char other[] = "bases/other.gguf";
    model.path = other;
    model.fingerprint = 0xcafe;
    ck_refused(load_for(folder, &model, &error),
               "was made for the base 'small.gguf' (000000000000ba5e), but the base given "
               "(bases/other.gguf) is 000000000000cafe");
    ck_assert_int_eq(error.status, ICAE_MISMATCH);
    model.config.width = 16; /* the fingerprint is still what it complains about */
    ck_refused(load_for(folder, &model, &error), "000000000000cafe");
    /* without the fingerprint there is a warning only, and with it none */
    catch_warnings(folder);
    ck_ok(load_edited(folder, "icae.json", "\"memory_init\"", "\"memory_init\"", &error));
    ck_assert(!has_warned(folder, "warning"));
    ck_ok(load_edited(folder, "icae.json", "\"fingerprint\": \"000000000000ba5e\", ", "",
                      &error));
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
    ck_ok(load_for(folder, &model, &error));
    unseal(folder);
    size_t bytes;
    char *data = read_whole(folder, "icae.json", &bytes);
    char *digit = strstr(strstr(data, "\"tokenizer\""), "\": \"") + 4;
    *digit = *digit == '0' ? '1' : '0';
    write_whole(folder, "icae.json", data, bytes);
    free(data);
    ck_refused(load_for(folder, &model, &error), "was made with the tokenizer");
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
        {"000000000000ba5e", "000000000000BA5E", "16 digits"},
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
        ck_refused(load_edited(folder, "icae.json", cases[i][0], cases[i][1], &error),
                   cases[i][2]);
    /* Without a fingerprint the sizes still speak. */
    ck_refused(load_edited(folder, "icae.json",
                           "\"fingerprint\": \"000000000000ba5e\", \"name\": \"small.gguf\", "
                           "\"architecture\": \"llama\", \"width\": 8",
                           "\"width\": 16", &error),
               "made for a base that has 16, the base given (bases/small.gguf) has 8");
    ck_ok(load_small(folder, &error));
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
        {"[\"q_proj\", \"v_proj\", \"down_proj\"]", "[3]", "'(no text)' is none of"},
        {"[\"q_proj\", \"v_proj\", \"down_proj\"]", "3", "expected a list"},
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
        ck_refused(load_edited(folder, "adapter_config.json", cases[i][0], cases[i][1], &error),
                   cases[i][2]);
    }
    /* What PEFT adds over the years is no business of ours while it is off. */
    catch_warnings(folder);
    ck_ok(load_edited(folder, "adapter_config.json", "\"use_dora\": false",
                      "\"rank_pattern\": {}, \"modules_to_save\": null, \"loftq_config\": {}, "
                      "\"revision\": \"x\", \"layers_to_transform\": null, \"new_key\": null",
                      &error));
    ck_assert(!has_warned(folder, "warning"));
    ck_ok(load_edited(folder, "adapter_config.json", "\"use_dora\": false", "\"new_key\": [1]",
                      &error));
    ck_assert(has_warned(folder, "adapter_config.json: 'new_key' is not known here"));
}
END_TEST

START_TEST(turns_rslora_into_plain_alpha) {
    const char *folder = test_folder("adapter-rslora");
    catch_warnings(folder);
    char again_folder[600];
    snprintf(again_folder, sizeof again_folder, "%s/again", folder);
    for (size_t i = 0; i < N_ADAPTER_FILES; i++)
        copy_file(GOLDEN_ADAPTER, folder, adapter_files[i]);
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
    ck_ok(icae_safetensors_open(&tensors->file, test_path(GOLDEN_ADAPTER, name), &error));
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
    for (size_t i = 0; i < N_ADAPTER_FILES; i++)
        copy_file(GOLDEN_ADAPTER, folder, adapter_files[i]);
    ck_ok(icae_safetensors_write(test_path(folder, name), tensors->sources, tensors->n, NULL, 0,
                                 &error));
    icae_model model = golden_model();
    return load_for(folder, &model, &error);
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
        "base_model.model.a.name.that.is.longer.than.those.of.all.matrices.in.all.models.whose."
        "LoRA.could.ever.be.read.by.this.program.I.should.think.lora_A.weight";
    ck_refused(load_tensors(folder, name, &tensors), "... is none that the settings");
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
    ck_refused(load_small(folder, &error), "icae.json");
    ck_refused(load_small(test_path(folder, "missing"), &error), "is not a folder");
    save_small(folder, 1);
    for (size_t i = 0; i < N_ADAPTER_FILES; i++) {
        size_t bytes;
        char *data = read_whole(folder, adapter_files[i], &bytes);
        ck_assert_int_eq(remove(test_path(folder, adapter_files[i])), 0);
        ck_refused(load_small(folder, &error), adapter_files[i]);
        write_whole(folder, adapter_files[i], data, bytes / 2);
        ck_refused(load_small(folder, &error), adapter_files[i]);
        write_whole(folder, adapter_files[i], data, bytes);
        free(data);
    }
    ck_ok(load_small(folder, &error));
}
END_TEST

SUITE_OF(adapter_files, 60, reads_chat_templates_of_every_age,
         warns_of_a_template_that_nobody_knows, names_both_bases_when_they_differ,
         refuses_another_tokenizer, refuses_a_damaged_icae_json,
         refuses_peft_features_that_it_does_not_compute, turns_rslora_into_plain_alpha,
         accepts_half_precision_and_the_longer_names,
         refuses_missing_extra_misshapen_and_broken_tensors, refuses_what_is_no_adapter_folder)
