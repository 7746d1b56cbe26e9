/* SPDX-License-Identifier: MIT */
/*
 * Adapters as other programs leave them, which say less than ours or what cannot be: how icae convert takes
 * or refuses them, and what icae inspect says of them.
 */
#include <stdio.h>
#include <string.h>

#include "cli_support.h"
#include "icae/file.h"
#include "icae/gguf_write.h"
#include "icae/safetensors.h"

static icae_error error;

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
    same_adapter(test_path(folder, "ours"), TINY_ADAPTER);
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

/* ---- inspect ---- */

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

SUITE_OF(convert_foreign, 60, takes_from_options_what_a_plain_lora_lacks,
         metadata_and_options_must_agree, refuses_a_memory_table_that_cannot_be,
         refuses_a_gguf_lora_that_does_not_fit, inspect_tells_foreign_adapters,
         inspect_says_what_is_wrong_with_a_peft_folder)
