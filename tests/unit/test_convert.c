/* SPDX-License-Identifier: MIT */
/*
 * icae convert: there and back to the byte, what other programs will find in the files, and what is refused
 * before anything is done. Adapters that other programs made stand in test_convert_foreign.c, slots in
 * test_convert_slots.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/exchange.h"
#include "icae/file.h"
#include "icae/half.h"
#include "icae/released.h"

static icae_error error;

/* ---- there and back ---- */

static const struct {
    const char *name, *base, *adapter;
} bases[] = {
    {"llama", TINY_BASE, TINY_ADAPTER},
    {"mistral", "tests/golden/mistral/model", "tests/golden/mistral/adapter"},
    {"qwen3", QWEN3_BASE, QWEN3_ADAPTER},
};
enum { N_BASES = sizeof bases / sizeof bases[0] };

START_TEST(goes_to_peft_and_back_to_the_byte) {
    for (int i = 0; i < N_BASES; i++) {
        const char *folder = test_folder("convert-peft");
        must(run_in(folder, "$ICAE convert -q -m %s %s %s/peft", bases[i].base,
                    bases[i].adapter, folder));
        ck_assert(!icae_path_exists(test_path(folder, "peft/icae.json")));
        must(run_in(folder, "$ICAE convert -q -m %s %s/peft %s/ours", bases[i].base, folder,
                    folder));
        same_adapter(test_path(folder, "ours"), bases[i].adapter);
        /* Now it has a fingerprint; a second round keeps every file. */
        must(run_in(folder,
                    "$ICAE convert -q -m %s %s/ours %s/peft2 && "
                    "$ICAE convert -q -m %s %s/peft2 %s/ours2 && diff -r %s/ours %s/ours2",
                    bases[i].base, folder, folder, bases[i].base, folder, folder, folder,
                    folder));
    }
}
END_TEST

START_TEST(goes_to_gguf_and_back_to_the_byte) {
    for (int i = 0; i < N_BASES; i++) {
        const char *folder = test_folder("convert-gguf");
        must(run_in(folder, "$ICAE convert -q -m %s %s %s/lora.gguf", bases[i].base,
                    bases[i].adapter, folder));
        ck_assert(icae_path_exists(test_path(folder, "lora.memory.safetensors")));
        must(run_in(folder, "$ICAE convert -q -m %s %s/lora.gguf %s/ours", bases[i].base,
                    folder, folder));
        same_adapter(test_path(folder, "ours"), bases[i].adapter);
    }
}
END_TEST

START_TEST(takes_released_weights) {
    static const char *const files[][2] = {
        {"tests/golden/released/v1.pt", "tests/golden/llama2/model"},
        {"tests/golden/released/v2.safetensors", "tests/golden/mistral/model"}};
    const char *folder = test_folder("convert-released");
    icae_backend *be;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    for (int i = 0; i < 2; i++) {
        icae_model *model;
        icae_adapter *direct, *saved;
        ck_ok(icae_model_open(&model, files[i][1], &error));
        must(run_in(folder, "$ICAE convert -q -m %s %s %s/v%d --alpha 8", files[i][1],
                    files[i][0], folder, i + 1));
        icae_released_options as_told = {.alpha = 8};
        ck_ok(icae_released_convert(&direct, files[i][0], model, &as_told, be, false, &error));
        ck_ok(icae_adapter_load(&saved, test_path(folder, i ? "v2" : "v1"), model, be, false,
                                &error));
        ck_assert(icae_adapter_hash(direct) == icae_adapter_hash(saved));
        ck_assert(saved->settings.alpha == 8);
        ck_assert_int_eq(saved->settings.layout, ICAE_LAYOUT_APPEND);
        ck_assert_int_eq(saved->settings.has_stop_id, direct->settings.has_stop_id);
        icae_adapter_free(direct);
        icae_adapter_free(saved);
        icae_model_close(model);
        must_refuse(run_in(folder, "$ICAE convert -q -m " QWEN3_BASE " %s %s/wrong",
                           files[i][0], folder),
                    "pass the base that it was trained on");
        ck_assert(!icae_path_exists(test_path(folder, "wrong")));
    }
    icae_backend_free(be);
}
END_TEST

/* Every setting of icae.json, none at its default, passes through both formats. */
START_TEST(keeps_every_setting) {
    static const char *const settings[][2] = {
        {"memory_slots", "8"},
        {"compression_rate", "3"},
        {"layout", "\"append\""},
        {"memory_init", "\"normal\""},
        {"memory_inputs", "\"pooled\""},
        {"chat_prefix", "\"<a \\\"b\\\">\\n\""},
        {"chat_suffix", "\"\u00e9\""},
        {"slot_values", "\"residual\""},
        {"chat_template", "\"custom\""},
        {"chat_turn", "\"</a>\""},
        {"chat_end", "\"<|im_start|>\""},
        {"closes_prompt", "true"},
        {"no_lm_token", "true"},
        {"context_bos", "true"},
        {"stop_id", "7"},
    };
    enum { N_SETTINGS = sizeof settings / sizeof settings[0] };
    const char *folder = test_folder("convert-settings");
    icae_text json = {0};
    icae_text_append_string(&json, "{\"format\": \"icae-adapter\", \"version\": 1");
    for (int i = 0; i < N_SETTINGS; i++)
        icae_text_printf(&json, ",\n  \"%s\": %s", settings[i][0], settings[i][1]);
    icae_text_append_string(&json, "}");
    must(run_in(folder,
                "mkdir %s/a && cp " TINY_ADAPTER "/*.safetensors " TINY_ADAPTER
                "/adapter_config.json %s/a",
                folder, folder));
    ck_ok(icae_file_write(test_path(folder, "a/icae.json"), json.data, json.length, &error));
    icae_text_release(&json);
    must(run_in(folder,
                "D=%s; C=\"$ICAE convert -q -m " TINY_BASE
                "\"; $C $D/a $D/peft && $C $D/peft $D/b && "
                "$C $D/a $D/x.gguf && $C $D/x.gguf $D/c && cmp $D/b/icae.json $D/c/icae.json",
                folder));
    icae_json *made;
    ck_ok(icae_json_open(&made, test_path(folder, "b/icae.json"), &error));
    for (int i = 0; i < N_SETTINGS; i++) {
        icae_json *wanted;
        ck_ok(icae_json_parse(&wanted, "", settings[i][1], strlen(settings[i][1]), &error));
        const icae_json_value *is = icae_json_member(icae_json_root(made), settings[i][0]);
        const char *text = icae_json_as_string(icae_json_root(wanted));
        double number = -1, expected = -2;
        bool flag = false;
        if (text) {
            ck_assert_str_eq(icae_json_as_string(is), text);
        } else if (icae_json_as_bool(icae_json_root(wanted), &flag)) {
            ck_assert(flag && icae_json_as_bool(is, &flag) && flag);
        } else {
            ck_assert(icae_json_as_number(is, &number));
            ck_assert(icae_json_as_number(icae_json_root(wanted), &expected));
            ck_assert_double_eq(number, expected);
        }
        icae_json_free(wanted);
    }
    /* What stands in an adapter's icae.json beside these is derived, not set: three fingerprints, hashes. */
    ck_assert_uint_eq(icae_json_count(icae_json_root(made)), 2 + N_SETTINGS + 3 + 2);
    icae_json_free(made);
}
END_TEST

START_TEST(peft_names_the_base_as_told) {
    const char *folder = test_folder("convert-name");
    must(run_in(folder, "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s/a", folder));
    must(run_in(folder,
                "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s/b --base-name org/name",
                folder));
    icae_json *json;
    ck_ok(icae_json_open(&json, test_path(folder, "a/adapter_config.json"), &error));
    char *full = realpath(TINY_BASE, NULL);
    ck_assert_str_eq(
        icae_json_as_string(icae_json_member(icae_json_root(json), "base_model_name_or_path")),
        full);
    free(full);
    icae_json_free(json);
    ck_ok(icae_json_open(&json, test_path(folder, "b/adapter_config.json"), &error));
    const icae_json_value *root = icae_json_root(json);
    ck_assert_str_eq(icae_json_as_string(icae_json_member(root, "base_model_name_or_path")),
                     "org/name");
    ck_assert_str_eq(icae_json_as_string(icae_json_member(root, "task_type")), "CAUSAL_LM");
    icae_json_free(json);
}
END_TEST

/* ---- what llama.cpp will find ---- */

static const float *lora_b(const icae_safetensors *file, const char *module) {
    char name[128];
    snprintf(name, sizeof name, "base_model.model.model.layers.1.self_attn.%s.lora_B.weight",
             module);
    const icae_safetensors_entry *entry = icae_safetensors_find(file, name);
    ck_assert_ptr_nonnull(entry);
    return entry->data;
}

static void check_text(const icae_gguf *file, const char *key, const char *expected) {
    icae_gguf_string text;
    ck_assert_msg(icae_gguf_get_string(file, key, &text), "%s is missing", key);
    ck_assert_uint_eq(text.bytes, strlen(expected));
    ck_assert_mem_eq(text.data, expected, text.bytes);
}

/* Heads of 16 in llama: llama.cpp's row 2i is our row i, its row 2i+1 our row i + 8, head by head. */
START_TEST(interleaves_q_for_llama_and_nothing_else) {
    enum { E = 16, RANK = 4 };
    const char *folder = test_folder("convert-rows");
    must(
        run_in(folder, "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s/x.gguf", folder));
    icae_gguf gguf;
    icae_safetensors ours;
    ck_ok(icae_gguf_open(&gguf, test_path(folder, "x.gguf"), &error));
    ck_ok(icae_safetensors_open(&ours, TINY_ADAPTER "/adapter_model.safetensors", &error));
    check_text(&gguf, "general.type", "adapter");
    check_text(&gguf, "general.architecture", "llama");
    check_text(&gguf, "adapter.type", "lora");
    const icae_gguf_item *alpha = icae_gguf_item_find(&gguf, "adapter.lora.alpha");
    double value = 0;
    ck_assert(alpha && alpha->type == ICAE_GGUF_F32 && icae_gguf_number(alpha, 0, &value));
    ck_assert_double_eq(value, 8);
    ck_assert_uint_eq(gguf.n_tensors, 3 * 2 * 2); /* layers, q and v, a and b */
    const icae_gguf_tensor *q = icae_gguf_find(&gguf, "blk.1.attn_q.weight.lora_b"),
                           *v = icae_gguf_find(&gguf, "blk.1.attn_v.weight.lora_b"),
                           *a = icae_gguf_find(&gguf, "blk.1.attn_q.weight.lora_a");
    ck_assert(q && v && a);
    ck_assert(a->shape[0] == RANK && a->shape[1] == 64);
    ck_assert(q->shape[0] == 64 && q->shape[1] == RANK);
    const float *theirs = q->data, *mine = lora_b(&ours, "q_proj");
    for (int head = 0; head < 4; head++) {
        for (int i = 0; i < E / 2; i++) {
            const float *pair = theirs + (head * E + 2 * i) * RANK;
            ck_assert_mem_eq(pair, mine + (head * E + i) * RANK, RANK * sizeof *pair);
            ck_assert_mem_eq(pair + RANK, mine + (head * E + i + E / 2) * RANK,
                             RANK * sizeof *pair);
        }
    }
    ck_assert_mem_eq(v->data, lora_b(&ours, "v_proj"), v->bytes);
    icae_safetensors_close(&ours);
    icae_gguf_close(&gguf);

    must(run_in(folder, "$ICAE convert -q -m " QWEN3_BASE " " QWEN3_ADAPTER " %s/y.gguf",
                folder));
    ck_ok(icae_gguf_open(&gguf, test_path(folder, "y.gguf"), &error));
    ck_ok(icae_safetensors_open(&ours, QWEN3_ADAPTER "/adapter_model.safetensors", &error));
    check_text(&gguf, "general.architecture", "qwen3");
    q = icae_gguf_find(&gguf, "blk.1.attn_q.weight.lora_b");
    ck_assert_ptr_nonnull(q);
    ck_assert_mem_eq(q->data, lora_b(&ours, "q_proj"), q->bytes);
    ck_assert_ptr_nonnull(icae_gguf_find(&gguf, "blk.0.ffn_down.weight.lora_a"));
    ck_assert_ptr_nonnull(icae_gguf_find(&gguf, "blk.0.attn_output.weight.lora_a"));
    icae_safetensors_close(&ours);
    icae_gguf_close(&gguf);
}
END_TEST

START_TEST(rounds_to_the_type_asked_for) {
    const char *folder = test_folder("convert-dtype");
    must(run_in(folder, "$ICAE convert -q --dtype bf16 -m " TINY_BASE " " TINY_ADAPTER " %s/p",
                folder));
    must(run_in(folder,
                "$ICAE convert -q --dtype f16 -m " TINY_BASE " " TINY_ADAPTER " %s/x.gguf",
                folder));
    icae_safetensors ours, rounded;
    icae_gguf gguf;
    ck_ok(icae_safetensors_open(&ours, TINY_ADAPTER "/adapter_model.safetensors", &error));
    ck_ok(icae_safetensors_open(&rounded, test_path(folder, "p/adapter_model.safetensors"),
                                &error));
    ck_ok(icae_gguf_open(&gguf, test_path(folder, "x.gguf"), &error));
    const icae_gguf_tensor *v = icae_gguf_find(&gguf, "blk.1.attn_v.weight.lora_b");
    ck_assert(v && v->dtype == ICAE_DTYPE_F16);
    const float *exact = lora_b(&ours, "v_proj");
    const uint16_t *bf16 = (const uint16_t *)(const void *)lora_b(&rounded, "v_proj");
    for (int i = 0; i < 32 * 4; i++) {
        uint16_t half;
        float value;
        memcpy(&value, (const char *)exact + i * 4, sizeof value);
        memcpy(&half, (const char *)bf16 + i * 2, sizeof half);
        ck_assert_uint_eq(half, icae_f32_to_bf16(value));
        memcpy(&half, (const char *)v->data + i * 2, sizeof half);
        ck_assert_uint_eq(half, icae_f32_to_f16(value));
    }
    icae_gguf_close(&gguf);
    icae_safetensors_close(&rounded);
    icae_safetensors_close(&ours);
    must(run_in(folder,
                "$ICAE convert -q -m " TINY_BASE " %s/p %s/ours && "
                "$ICAE convert -q --dtype bf16 -m " TINY_BASE " %s/ours %s/again",
                folder, folder, folder, folder));
    same_adapter(test_path(folder, "p"), test_path(folder, "again"));
}
END_TEST

/* Half the file, and its fingerprint is that of the numbers in it. */
START_TEST(an_adapter_in_16_bits_is_an_adapter) {
    const char *folder = test_folder("convert-half");
    icae_model *model;
    icae_backend *be;
    icae_adapter *adapter;
    must(run_in(folder,
                "$ICAE convert -q --to adapter --dtype bf16 -m " TINY_BASE " " TINY_ADAPTER
                " %s/half && $ICAE convert -q --to adapter --dtype bf16 -m " TINY_BASE
                " %s/half %s/again && cmp %s/half/icae.json %s/again/icae.json && "
                "$ICAE convert -q --dtype bf16 -m " TINY_BASE " " TINY_ADAPTER " %s/peft",
                folder, folder, folder, folder, folder, folder));
    same_adapter(test_path(folder, "half"), test_path(folder, "again"));
    same_adapter(test_path(folder, "half"), test_path(folder, "peft"));
    ck_ok(icae_model_open(&model, TINY_BASE, &error));
    ck_ok(icae_backend_create(&be, "reference", 1, &error));
    ck_ok(icae_adapter_load(&adapter, test_path(folder, "half"), model, be, false, &error));
    ck_assert_uint_eq(adapter->fingerprint, icae_adapter_hash(adapter));
    icae_adapter_free(adapter);
    icae_model_close(model);
    icae_backend_free(be);
}
END_TEST

/* The type is that of what is written, whatever it is written from. */
START_TEST(takes_a_lora_in_the_type_asked_for) {
    const char *folder = test_folder("convert-dtype-in");
    must(run_in(folder,
                "$ICAE convert -q --to adapter --dtype bf16 -m " TINY_BASE " " TINY_ADAPTER
                " %s/half && $ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER
                " %s/p && $ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER
                " %s/x.gguf && $ICAE convert -q --dtype bf16 -m " TINY_BASE
                " %s/p %s/from-peft && $ICAE convert -q --dtype bf16 -m " TINY_BASE
                " %s/x.gguf %s/from-gguf",
                folder, folder, folder, folder, folder, folder, folder));
    same_adapter(test_path(folder, "half"), test_path(folder, "from-peft"));
    same_adapter(test_path(folder, "half"), test_path(folder, "from-gguf"));
}
END_TEST

START_TEST(refuses_what_means_nothing_to_the_conversion) {
    static const struct {
        const char *option;
        bool is_import; /* of a PEFT folder; else a way out of an adapter */
    } cases[] = {{"--alpha 64", true},
                 {"--task lm", true},
                 {"--base-name org/name", true},
                 {"--rate 4", false},
                 {"--layout append", false}};
    const char *folder = test_folder("convert-ignored");
    must(run_in(folder, "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s/p", folder));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        outcome r = run_in(folder, "$ICAE convert -q -m " TINY_BASE " %s %s%s %s/to",
                           cases[i].option, cases[i].is_import ? folder : TINY_ADAPTER,
                           cases[i].is_import ? "/p" : "", folder);
        ck_assert_int_eq(r.code, 2);
        ck_assert_msg(strstr(r.err, "means nothing where"), "%s: %s", cases[i].option, r.err);
        ck_assert(!icae_path_exists(test_path(folder, "to")));
    }
}
END_TEST

/* A number that f16 cannot hold. */
START_TEST(refuses_what_does_not_fit_into_f16) {
    const char *folder = test_folder("convert-overflow");
    icae_model *model;
    icae_backend *be;
    icae_adapter *adapter;
    ck_ok(icae_model_open(&model, TINY_BASE, &error));
    ck_ok(icae_backend_create(&be, "reference", 1, &error));
    ck_ok(icae_adapter_load(&adapter, TINY_ADAPTER, model, be, false, &error));
    adapter->params.values[3] = 70000;
    ck_refused(icae_adapter_export_peft(adapter, test_path(folder, "p"), model, ICAE_DTYPE_F16,
                                        NULL, &error),
               "too large for F16");
    ck_refused(icae_adapter_export_gguf(adapter, test_path(folder, "x.gguf"), model,
                                        ICAE_DTYPE_F16, &error),
               "too large for F16");
    ck_ok(icae_adapter_export_gguf(adapter, test_path(folder, "y.gguf"), model, ICAE_DTYPE_BF16,
                                   &error));
    char **names;
    size_t count;
    ck_ok(icae_folder_list(folder, &names, &count, &error));
    ck_assert_uint_eq(count, 2); /* y.gguf and its memory table */
    icae_names_free(names, count);
    icae_adapter_free(adapter);
    icae_backend_free(be);
    icae_model_close(model);
}
END_TEST

/* ---- what is refused before anything is done ---- */

START_TEST(refuses_with_a_sentence) {
    const char *folder = folder_with_slots("convert-refusals");
    must(run_in(folder,
                "cd %s && mkdir other empty && echo x > other/x && echo keep > taken.gguf && "
                "echo keep > m.memory.safetensors",
                folder));
    must(run_in(folder, "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s/peft", folder));
    must(run_in(folder, "$ICAE convert -q -m " TINY_BASE " %s/peft %s/ours", folder, folder));
#define ON "-m " TINY_BASE " "
    static const struct {
        const char *arguments, *sentence;
    } cases[] = {
        {ON "nowhere x", "nowhere: there is no such file or folder"},
        {ON TINY_BASE " x", "is nothing that can be converted"},
        {ON "$D/text.txt y", "is nothing that can be converted"},
        {ON "$D/empty y", "is nothing that can be converted"},
        {TINY_ADAPTER " $D/new", "-m BASE is needed"},
        {ON "$D/text.slots $D/new.safetensors", "-a ADAPTER is needed"},
        {ON TINY_ADAPTER " $D/taken.gguf", "is there already"},
        {ON TINY_ADAPTER " $D/m.gguf", "m.memory.safetensors: is there already"},
        {ON TINY_ADAPTER " $D/peft", "is there already"},
        {ON TINY_ADAPTER " $D/x.pt", "can be converted to: peft, gguf, adapter; but"},
        {ON TINY_ADAPTER " $D/new --to slots", "but --to slots asks for something else"},
        {ON "$D/ours $D/ours --force", "overwritten by its own conversion"},
        {ON TINY_ADAPTER " $D/ours --force", "its icae.json would not fit any more"},
        {ON TINY_ADAPTER " $D/other --force", "no adapter that could be replaced"},
        {ON TINY_ADAPTER " $D/other --to gguf --force", "is a folder, expected a file's name"},
        {ON "-a " TINY_ADAPTER " $D/text.slots $D/x.pt", "has no place for positions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        must_refuse(run_in(folder, "D=%s; $ICAE convert -q %s", folder, cases[i].arguments),
                    cases[i].sentence);
    }
    must(run_in(folder, "cd %s && test \"$(cat taken.gguf)\" = keep && test ! -e new", folder));
    must(run_in(folder,
                "D=%s; $ICAE convert -q " ON TINY_ADAPTER " $D/taken.gguf --force && "
                "$ICAE convert -q " ON TINY_ADAPTER " $D/peft --dtype f16 --force && "
                "$ICAE convert -q " ON "$D/peft $D/ours --force",
                folder));
    ck_assert_int_gt(icae_file_bytes(test_path(folder, "taken.gguf")), 5);
}
END_TEST

SUITE_OF(convert, 60, goes_to_peft_and_back_to_the_byte, goes_to_gguf_and_back_to_the_byte,
         takes_released_weights, keeps_every_setting, peft_names_the_base_as_told,
         interleaves_q_for_llama_and_nothing_else, rounds_to_the_type_asked_for,
         an_adapter_in_16_bits_is_an_adapter, takes_a_lora_in_the_type_asked_for,
         refuses_what_means_nothing_to_the_conversion, refuses_what_does_not_fit_into_f16,
         refuses_with_a_sentence)
