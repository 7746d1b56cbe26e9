/* SPDX-License-Identifier: MIT */
/*
 * icae convert, and what icae inspect says of its results: there and back to the byte, what other programs
 * will find in the files, and everything that must be refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "command.h"
#include "icae/exchange.h"
#include "icae/file.h"
#include "icae/gguf_write.h"
#include "icae/half.h"
#include "icae/json.h"
#include "icae/released.h"
#include "icae/torch_write.h"

#define QWEN3_BASE    "tests/golden/qwen3/model"
#define QWEN3_ADAPTER "tests/golden/qwen3/adapter"

static icae_error error;

static void must(outcome result) {
    ck_assert_msg(result.code == 0, "exit code %d: %s", result.code, result.err);
}

static void must_refuse(outcome result, const char *sentence) {
    ck_assert_int_eq(result.code, 1);
    ck_assert_msg(strstr(result.err, sentence), "\"%s\" lacks \"%s\"", result.err, sentence);
}

/* Every tensor of one file has its equal in the other, byte for byte. */
static void check_same_tensors(const char *left, const char *right) {
    icae_safetensors a = {0}, b = {0};
    ck_ok(icae_safetensors_open(&a, left, &error));
    ck_ok(icae_safetensors_open(&b, right, &error));
    ck_assert_uint_eq(a.n_entries, b.n_entries);
    ck_assert_uint_gt(a.n_entries, 0);
    for (size_t i = 0; i < a.n_entries; i++) {
        ck_assert_str_eq(a.entries[i].name, b.entries[i].name);
        ck_assert_int_eq(a.entries[i].dtype, b.entries[i].dtype);
        ck_assert_uint_eq(a.entries[i].bytes, b.entries[i].bytes);
        ck_assert_mem_eq(a.entries[i].data, b.entries[i].data, a.entries[i].bytes);
    }
    icae_safetensors_close(&a);
    icae_safetensors_close(&b);
}

static void check_same_adapter(const char *left, const char *right) {
    check_same_tensors(test_path(left, "adapter_model.safetensors"),
                       test_path(right, "adapter_model.safetensors"));
    check_same_tensors(test_path(left, "memory.safetensors"),
                       test_path(right, "memory.safetensors"));
}

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
        check_same_adapter(test_path(folder, "ours"), bases[i].adapter);
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
        check_same_adapter(test_path(folder, "ours"), bases[i].adapter);
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
    check_same_adapter(test_path(folder, "p"), test_path(folder, "again"));
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
    check_same_adapter(test_path(folder, "half"), test_path(folder, "again"));
    check_same_adapter(test_path(folder, "half"), test_path(folder, "peft"));
    ck_ok(icae_model_open(&model, TINY_BASE, &error));
    ck_ok(icae_backend_create(&be, "reference", 1, &error));
    ck_ok(icae_adapter_load(&adapter, test_path(folder, "half"), model, be, false, &error));
    ck_assert_uint_eq(adapter->fingerprint, icae_adapter_hash(adapter));
    icae_adapter_free(adapter);
    icae_model_close(model);
    icae_backend_free(be);
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

/* ---- adapters that say less ---- */

/* A folder as another program leaves it: LoRA, and where asked a table without metadata. */
static const char *foreign(const char *name, bool has_memory) {
    const char *folder = test_folder(name);
    must(run_in(folder,
                "mkdir %s/p && cp " TINY_ADAPTER "/adapter_config.json " TINY_ADAPTER
                "/adapter_model.safetensors %s/p && cp " TINY_ADAPTER
                "/memory.safetensors %s/%smemory.safetensors",
                folder, folder, folder, has_memory ? "p/" : ""));
    return folder;
}

#define IMPORT "$ICAE convert -q -m " TINY_BASE " %s/p %s/ours "

START_TEST(takes_from_options_what_a_plain_lora_lacks) {
    const char *folder = foreign("convert-options", false);
    must_refuse(run_in(folder, IMPORT "--rate 4 --layout uniform", folder, folder),
                "is a LoRA without memory tokens");
    must_refuse(run_in(folder, IMPORT "--memory %s/memory.safetensors", folder, folder, folder),
                "pass --rate (tokens a memory slot) and --layout");
    must_refuse(run_in(folder, IMPORT "--memory %s/memory.safetensors --rate 4", folder, folder,
                       folder),
                "--layout");
    must_refuse(run_in(folder,
                       IMPORT
                       "--memory %s/memory.safetensors --rate 4 --layout append --slots 9",
                       folder, folder, folder),
                "has 11 rows, so 8 memory slots and 3 tasks, but 9 slots are asked for");
    ck_assert(!icae_path_exists(test_path(folder, "ours")));
    must(run_in(folder,
                IMPORT "--memory %s/memory.safetensors --rate 5 --layout append --slots 8",
                folder, folder, folder));
    check_same_adapter(test_path(folder, "ours"), TINY_ADAPTER);
    icae_json *json;
    ck_ok(icae_json_open(&json, test_path(folder, "ours/icae.json"), &error));
    const icae_json_value *root = icae_json_root(json);
    int64_t number = 0;
    ck_assert(icae_json_as_integer(icae_json_member(root, "compression_rate"), &number));
    ck_assert_int_eq(number, 5);
    ck_assert(icae_json_as_integer(icae_json_member(root, "memory_slots"), &number));
    ck_assert_int_eq(number, 8);
    ck_assert_str_eq(icae_json_as_string(icae_json_member(root, "layout")), "append");
    icae_json_free(json);
}
END_TEST

START_TEST(metadata_and_options_must_agree) {
    const char *folder = test_folder("convert-agree");
    must(run_in(folder, "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s/p", folder));
    must_refuse(run_in(folder, IMPORT "--layout append", folder, folder),
                "was trained with layout uniform, but append is asked for");
    must_refuse(run_in(folder, IMPORT "--slots 7", folder, folder), "7 slots are asked for");
    must(run_in(folder, IMPORT "--layout uniform --slots 8 --rate 2", folder, folder));
}
END_TEST

/* A table of zeros with "icae" in its metadata, or (settings NULL) without. */
static void write_memory(const char *path, int64_t rows, const char *settings) {
    static const float zeros[64 * 64];
    const char *metadata[] = {"icae", settings};
    icae_safetensors_source source = {.name = "memory_token_embed.weight",
                                      .dtype = ICAE_DTYPE_F32,
                                      .rank = 2,
                                      .shape = {rows, 64},
                                      .data = zeros};
    ck_ok(icae_safetensors_write(path, &source, 1, metadata, settings ? 1 : 0, &error));
}

#define HEAD "{\"format\": \"icae-adapter\", \"version\": 1, "
#define GOOD HEAD "\"memory_slots\": 8, \"compression_rate\": 4, \"layout\": \"uniform\""

START_TEST(refuses_a_memory_table_that_cannot_be) {
    static const struct {
        int64_t rows;
        const char *settings, *sentence;
    } cases[] = {
        {3, NULL, "expected a tensor memory_token_embed.weight [k+3, D]"},
        {12, GOOD "}", "has 12 rows, so 9 memory slots and 3 tasks, but 8 slots are asked for"},
        {11, "", "metadata icae"},
        {11, "[]", "metadata icae"},
        {11, HEAD "\"memory_slots\": 8}", "the key 'compression_rate' is missing"},
        {11, GOOD ", \"memory_init\": \"wild\"}", "memory_init"},
        {11, GOOD ", \"unheard\": 1}", "unheard"},
        {11, "{\"format\": \"other\"}", "expected \"icae-adapter\""},
    };
    const char *folder = foreign("convert-table", true);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_memory(test_path(folder, "p/memory.safetensors"), cases[i].rows,
                     cases[i].settings);
        must_refuse(run_in(folder, IMPORT "--rate 4 --layout uniform", folder, folder),
                    cases[i].sentence);
    }
    write_memory(test_path(folder, "p/memory.safetensors"), 11, GOOD "}");
    must(run_in(folder, IMPORT, folder, folder));
}
END_TEST

/* The golden LoRA with one thing changed, built from what icae convert wrote. */
static void rewrite_gguf(const char *from, const char *to, const char *type,
                         const char *architecture, const char *left_out, const char *extra) {
    icae_gguf file;
    icae_gguf_writer writer;
    ck_ok(icae_gguf_open(&file, from, &error));
    icae_gguf_begin(&writer, to);
    icae_gguf_put_string(&writer, "general.type", "adapter");
    icae_gguf_put_string(&writer, "adapter.type", type);
    icae_gguf_put_string(&writer, "general.architecture", architecture);
    for (size_t i = 0; i < file.n_tensors; i++) {
        const icae_gguf_tensor *t = &file.tensors[i];
        if (strcmp(t->name, left_out))
            icae_gguf_put_tensor(&writer, t->name, t->dtype, t->rank, t->shape);
    }
    if (*extra) icae_gguf_put_tensor(&writer, extra, ICAE_DTYPE_F32, 1, (const int64_t[]){1});
    for (size_t i = 0; i < file.n_tensors; i++) {
        const icae_gguf_tensor *t = &file.tensors[i];
        if (strcmp(t->name, left_out)) icae_gguf_write_data(&writer, t->data, t->bytes);
    }
    if (*extra) icae_gguf_write_data(&writer, "\0\0\0\0", 4);
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf_close(&file);
}

START_TEST(refuses_a_gguf_lora_that_does_not_fit) {
    static const struct {
        const char *type, *architecture, *left_out, *extra, *sentence;
    } cases[] = {
        {"control_vector", "llama", "", "", "is no LoRA"},
        {"lora", "qwen2", "", "", "was not made for a base of the architecture llama"},
        {"lora", "llama", "blk.1.attn_q.weight.lora_b", "",
         "expected the tensor blk.1.attn_q.weight.lora_b [64, 4]"},
        {"lora", "llama", "", "token_embd.weight.lora_a",
         "the tensor 'token_embd.weight.lora_a' is no LoRA of a matrix"},
        {"lora", "llama", "", "blk.3.attn_q.weight.lora_a", "in its 3 layers"},
    };
    const char *folder = test_folder("convert-bad-gguf");
    char good[640], bad[640]; /* the ring of test_path is too small for this loop */
    snprintf(good, sizeof good, "%s/good.gguf", folder);
    snprintf(bad, sizeof bad, "%s/bad.gguf", folder);
    must(run_in(folder, "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s", good));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rewrite_gguf(good, bad, cases[i].type, cases[i].architecture, cases[i].left_out,
                     cases[i].extra);
        must_refuse(run_in(folder,
                           "$ICAE convert -q -m " TINY_BASE " %s %s/ours --memory "
                           "%s/good.memory.safetensors",
                           bad, folder, folder),
                    cases[i].sentence);
    }
    /* Without an alpha the scale is 1, as in llama.cpp. */
    rewrite_gguf(good, bad, "lora", "llama", "", "");
    must_refuse(run_in(folder, "$ICAE convert -q -m " TINY_BASE " %s %s/ours", bad, folder),
                "without memory tokens");
    must(run_in(folder,
                "$ICAE convert -q -m " TINY_BASE " %s %s/ours --memory "
                "%s/good.memory.safetensors && grep -q '\"lora_alpha\": 4,' "
                "%s/ours/adapter_config.json",
                bad, folder, folder, folder));
}
END_TEST

/* ---- slots ---- */

static const char passage[] = "It was a bright cold day in April, and the clocks were striking "
                              "thirteen. Nobody had looked at them since morning.";

static const char *folder_with_slots(const char *name, const char *base, const char *adapter) {
    const char *folder = test_folder(name);
    ck_ok(icae_file_write(test_path(folder, "x.txt"), passage, strlen(passage), &error));
    must(run_in(folder, "$ICAE compress -q -m %s -a %s %s/x.txt", base, adapter, folder));
    return folder;
}

/* Row `row` of an adapter's memory table, width 64. */
static void check_memory_row(const char *adapter, int64_t row, const void *values) {
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, test_path(adapter, "memory.safetensors"), &error));
    const icae_safetensors_entry *table =
        icae_safetensors_find(&file, "memory_token_embed.weight");
    ck_assert(table && table->shape[1] == 64);
    ck_assert_mem_eq(values, (const float *)table->data + row * 64, 64 * sizeof(float));
    icae_safetensors_close(&file);
}

START_TEST(embeds_are_slots_then_the_task_token) {
    static const char *const tasks[] = {"ae", "lm"};
    const char *folder = folder_with_slots("convert-embeds", TINY_BASE, TINY_ADAPTER);
    icae_slots slots = {0};
    ck_ok(icae_slots_load(&slots, test_path(folder, "x.slots"), NULL, NULL, &error));
    int64_t n = slots.n_spans * slots.slots_per_span;
    ck_assert_int_gt(slots.n_spans, 1);
    for (int task = 0; task < 2; task++) {
        must(run_in(folder,
                    "$ICAE convert -q -m " TINY_BASE " -a " TINY_ADAPTER
                    " --task %s %s/x.slots %s/%s.safetensors",
                    tasks[task], folder, folder, tasks[task]));
        char name[32];
        snprintf(name, sizeof name, "%s.safetensors", tasks[task]);
        icae_safetensors file;
        ck_ok(icae_safetensors_open(&file, test_path(folder, name), &error));
        const icae_safetensors_entry *rows = icae_safetensors_find(&file, "inputs_embeds"),
                                     *places = icae_safetensors_find(&file, "position_ids");
        ck_assert(rows && places && rows->rank == 2 && places->rank == 1);
        ck_assert(rows->shape[0] == n + 1 && rows->shape[1] == 64 && places->shape[0] == n + 1);
        ck_assert_mem_eq(rows->data, slots.values, (size_t)n * 64 * sizeof(float));
        check_memory_row(TINY_ADAPTER, 8 + task, (const float *)rows->data + n * 64);
        int32_t expected[64];
        ck_assert_int_le(n + 2, 64);
        icae_decoder_positions(ICAE_LAYOUT_UNIFORM, (icae_task)task, 0, slots.n_spans,
                               slots.span_lengths, NULL, slots.slots_per_span, 2, expected);
        for (int64_t i = 0; i <= n; i++) {
            float place;
            memcpy(&place, (const char *)places->data + i * 4, sizeof place);
            ck_assert_int_eq((int32_t)place, expected[i]);
        }
        ck_assert_str_eq(icae_safetensors_metadata(&file, "task"), tasks[task]);
        ck_assert_int_eq(atoi(icae_safetensors_metadata(&file, "next_position")),
                         expected[n + 1]);
        ck_assert_str_eq(icae_safetensors_metadata(&file, "layout"), "uniform");
        icae_safetensors_close(&file);
    }
    icae_slots_release(&slots);
}
END_TEST

static uint32_t u32_at(const char *data, size_t at) {
    uint32_t value;
    memcpy(&value, data + at, sizeof value);
    return value;
}

static uint16_t u16_at(const char *data, size_t at) {
    uint16_t value;
    memcpy(&value, data + at, sizeof value);
    return value;
}

/* Walks the archive from its end, as a reader does. */
START_TEST(torch_tensors_are_sound_archives) {
    const char *folder = folder_with_slots("convert-torch", QWEN3_BASE, QWEN3_ADAPTER);
    must(run_in(folder,
                "$ICAE convert -q -m " QWEN3_BASE " -a " QWEN3_ADAPTER " %s/x.slots %s/x.pt",
                folder, folder));
    char *zip;
    size_t bytes;
    ck_ok(icae_file_read(test_path(folder, "x.pt"), 1 << 20, &zip, &bytes, &error));
    size_t end = bytes - 22, at = u32_at(zip, end + 16);
    ck_assert_uint_eq(u32_at(zip, end), 0x06054b50);
    ck_assert_uint_eq(u16_at(zip, end + 10), 4);
    ck_assert_uint_eq(at + u32_at(zip, end + 12), end);
    bool has_data = false;
    for (int i = 0; i < 4; i++) {
        ck_assert_uint_eq(u32_at(zip, at), 0x02014b50);
        size_t size = u32_at(zip, at + 24), name = u16_at(zip, at + 28),
               local = u32_at(zip, at + 42);
        ck_assert_uint_eq(u32_at(zip, local), 0x04034b50);
        ck_assert_mem_eq(zip + at + 46, zip + local + 30, name);
        size_t data = local + 30 + u16_at(zip, local + 26) + u16_at(zip, local + 28);
        ck_assert_uint_eq(data % 64, 0);
        ck_assert_uint_eq(crc32(0, (const unsigned char *)zip + data, (unsigned)size),
                          u32_at(zip, at + 16));
        if (name == 14 && !memcmp(zip + at + 46, "archive/data/0", name)) {
            icae_slots slots = {0};
            ck_ok(icae_slots_load(&slots, test_path(folder, "x.slots"), NULL, NULL, &error));
            size_t n = (size_t)(slots.n_spans * slots.slots_per_span * slots.width);
            ck_assert_uint_eq(size, (n + 64) * sizeof(float));
            ck_assert_mem_eq(zip + data, slots.values, n * sizeof(float));
            check_memory_row(QWEN3_ADAPTER, slots.slots_per_span,
                             zip + data + n * sizeof(float));
            icae_slots_release(&slots);
            has_data = true;
        }
        at += 46 + name;
    }
    ck_assert(has_data);
    ck_assert_uint_eq(at, end);
    free(zip);
}
END_TEST

START_TEST(torch_writer_refuses_what_it_cannot_hold) {
    const char *path = test_path(test_folder("convert-torch-bad"), "x.pt");
    const float one = 1;
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F64, 1, 1, &one, &error), "not F64");
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F32, 0, 1, &one, &error), "0 x 1");
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F32, 1, 0, &one, &error), "1 x 0");
    ck_refused(icae_torch_write(path, ICAE_DTYPE_F32, INT64_MAX, INT64_MAX, &one, &error),
               "expected 1 to");
    ck_assert(!icae_path_exists(path));
}
END_TEST

/* ---- what is refused before anything is done ---- */

START_TEST(refuses_with_a_sentence) {
    const char *folder = folder_with_slots("convert-refusals", TINY_BASE, TINY_ADAPTER);
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
        {ON "$D/x.txt y", "is nothing that can be converted"},
        {ON "$D/empty y", "is nothing that can be converted"},
        {TINY_ADAPTER " $D/new", "-m BASE is needed"},
        {ON "$D/x.slots $D/new.safetensors", "-a ADAPTER is needed"},
        {ON TINY_ADAPTER " $D/taken.gguf", "is there already"},
        {ON TINY_ADAPTER " $D/m.gguf", "m.memory.safetensors: is there already"},
        {ON TINY_ADAPTER " $D/peft", "is there already"},
        {ON TINY_ADAPTER " $D/x.pt", "can be converted to: peft, gguf, adapter; but"},
        {ON TINY_ADAPTER " $D/new --to slots", "but --to slots asks for something else"},
        {ON TINY_ADAPTER " $D/new --dtype q8", "--dtype q8: expected one of f32, bf16, f16"},
        {ON TINY_ADAPTER " $D/new --task ft", "--task ft: expected one of ae, lm"},
        {ON "$D/peft $D/new --layout up", "--layout up: expected one of uniform, append"},
        {ON "$D/ours $D/ours --force", "overwritten by its own conversion"},
        {ON TINY_ADAPTER " $D/ours --force", "its icae.json would not fit any more"},
        {ON TINY_ADAPTER " $D/other --force", "no adapter that could be replaced"},
        {ON TINY_ADAPTER " $D/other --to gguf --force", "is a folder, expected a file's name"},
        {ON "-a " TINY_ADAPTER " $D/x.slots $D/x.pt", "has no place for positions"},
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

/* ---- inspect ---- */

static void must_say(outcome result, const char *const *sentences) {
    must(result);
    for (; *sentences; sentences++) {
        ck_assert_msg(strstr(result.out, *sentences), "\"%s\" lacks \"%s\"", result.out,
                      *sentences);
    }
}

START_TEST(inspect_tells_foreign_adapters) {
    const char *folder = foreign("convert-inspect", false);
    must_say(run_in(folder, "$ICAE inspect %s/p", folder),
             (const char *[]){"a PEFT folder (LORA) without icae.json", "LoRA rank          4",
                              "q_proj v_proj", "layers             3", "width 64",
                              "a plain LoRA", NULL});
    must_refuse(run_in(folder, "$ICAE inspect -m " TINY_BASE " %s/p", folder),
                "without memory tokens");
    must(
        run_in(folder, "$ICAE convert -q -m " TINY_BASE " " TINY_ADAPTER " %s/x.gguf", folder));
    must_say(run_in(folder, "$ICAE inspect -m " TINY_BASE " %s/x.gguf", folder),
             (const char *[]){"a GGUF adapter for llama.cpp", "for bases of       llama",
                              "LoRA alpha         8", "memory_slots       8", "uniform",
                              "fits               " TINY_BASE, NULL});
    must_refuse(run_in(folder, "$ICAE inspect -m " QWEN3_BASE " %s/x.gguf", folder),
                "was not made for a base of the architecture qwen3");
    rewrite_gguf(test_path(folder, "x.gguf"), test_path(folder, "y.gguf"), "lora", "llama",
                 "blk.1.attn_q.weight.lora_b", "odd\033[1mname");
    must_say(run_in(folder, "$ICAE inspect %s/y.gguf", folder),
             (const char *[]){"wrong: 6 matrices A, but 5 matrices B",
                              "wrong: 1 tensors are no LoRA", "odd?[1mname",
                              "It does not say adapter.lora.alpha", NULL});
    must(
        run_in(folder, "$ICAE inspect --json %s/y.gguf | grep -q '\"notes\": *\\[\"'", folder));
}
END_TEST

START_TEST(inspect_says_what_is_wrong_with_a_peft_folder) {
    const char *folder = foreign("convert-inspect-peft", true);
    must(run_in(folder,
                "sed -i 's/\"use_dora\": false/\"use_dora\": true/' %s/p/adapter_config.json",
                folder));
    must_say(run_in(folder, "$ICAE inspect %s/p", folder),
             (const char *[]){"wrong:", "use_dora", "memory rows        11",
                              "icae convert wants --rate and --layout", NULL});
    must(run_in(folder, "cd %s/p && mv adapter_model.safetensors adapter_model.bin", folder));
    must_say(run_in(folder, "$ICAE inspect %s/p", folder),
             (const char *[]){"only adapter_model.bin", NULL});
}
END_TEST

START_TEST(inspect_tells_exported_slots) {
    const char *folder = folder_with_slots("convert-inspect-embeds", TINY_BASE, TINY_ADAPTER);
    must(run_in(folder,
                "$ICAE convert -q -m " TINY_BASE " -a " TINY_ADAPTER
                " --dtype bf16 %s/x.slots %s/x.safetensors",
                folder, folder));
    must_say(run_in(folder, "$ICAE inspect %s/x.safetensors", folder),
             (const char *[]){"slots exported as input embeddings", "for bases of width 64",
                              "type               BF16", "task               ae",
                              "next position      1", NULL});
}
END_TEST

SUITE_OF(convert, 60, goes_to_peft_and_back_to_the_byte, goes_to_gguf_and_back_to_the_byte,
         takes_released_weights, keeps_every_setting, peft_names_the_base_as_told,
         interleaves_q_for_llama_and_nothing_else, rounds_to_the_type_asked_for,
         an_adapter_in_16_bits_is_an_adapter, refuses_what_does_not_fit_into_f16,
         takes_from_options_what_a_plain_lora_lacks, metadata_and_options_must_agree,
         refuses_a_memory_table_that_cannot_be, refuses_a_gguf_lora_that_does_not_fit,
         embeds_are_slots_then_the_task_token, torch_tensors_are_sound_archives,
         torch_writer_refuses_what_it_cannot_hold, refuses_with_a_sentence,
         inspect_tells_foreign_adapters, inspect_says_what_is_wrong_with_a_peft_folder,
         inspect_tells_exported_slots)
