/* SPDX-License-Identifier: MIT */
/* What the readers and writers of other programs' formats do with odd names, shapes and numbers; that the formats
 * are right is shown in test_convert.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_support.h"
#include "command.h"
#include "icae/exchange.h"
#include "icae/file.h"
#include "icae/gguf_write.h"

static icae_error error;

/* The tiny base with its adapter, exported to good.gguf and good.memory.safetensors in `folder`. */
typedef struct bench {
    icae_backend *be;
    icae_model *model;
    icae_adapter *adapter;
    char folder[600], good[640], bad[640], memory[640];
} bench;

static void bench_open(bench *b, const char *name) {
    snprintf(b->folder, sizeof b->folder, "%s", test_folder(name));
    catch_warnings(b->folder);
    snprintf(b->good, sizeof b->good, "%s/good.gguf", b->folder);
    snprintf(b->bad, sizeof b->bad, "%s/bad.gguf", b->folder);
    snprintf(b->memory, sizeof b->memory, "%s/good.memory.safetensors", b->folder);
    ck_ok(icae_backend_create(&b->be, "reference", 1, &error));
    ck_ok(icae_model_open(&b->model, TINY_BASE, &error));
    ck_ok(icae_adapter_load(&b->adapter, TINY_ADAPTER, b->model, b->be, false, &error));
    ck_ok(icae_adapter_export_gguf(b->adapter, b->good, b->model, ICAE_DTYPE_F32, &error));
}

static void bench_close(bench *b) {
    icae_adapter_free(b->adapter);
    icae_model_close(b->model);
    icae_backend_free(b->be); /* asserts that all buffers came back */
}

static icae_status import_gguf(const bench *b, const char *path, const icae_model *model) {
    const icae_import given = {.memory_path = b->memory, .layout = -1};
    icae_adapter *adapter;
    icae_status status = icae_adapter_import_gguf(&adapter, path, &given, model, b->be, &error);
    ck_assert((status == ICAE_OK) == (adapter != NULL));
    icae_adapter_free(adapter);
    return status;
}

/* A LoRA of one tensor of zeros. A NULL among the texts leaves that one out. */
static void write_one(const char *path, const char *type, const char *kind,
                      const char *architecture, const char *name, int rank,
                      const int64_t *shape) {
    static const float zeros[64 * 64];
    icae_gguf_writer writer;
    icae_gguf_begin(&writer, path);
    if (type) icae_gguf_put_string(&writer, "general.type", type);
    if (kind) icae_gguf_put_string(&writer, "adapter.type", kind);
    if (architecture) icae_gguf_put_string(&writer, "general.architecture", architecture);
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= shape[i];
    icae_gguf_put_tensor(&writer, name, ICAE_DTYPE_F32, rank, shape);
    icae_gguf_write_data(&writer, zeros, (size_t)count * sizeof *zeros);
    ck_ok(icae_gguf_commit(&writer, &error));
}

#define Q "blk.0.attn_q.weight.lora_"

START_TEST(a_gguf_lora_of_another_kind_base_name_or_shape_is_refused) {
    static const struct {
        const char *type, *kind, *architecture, *name;
        int rank;
        int64_t shape[2];
        const char *sentence;
    } cases[] = {
        {NULL, "lora", "llama", Q "a", 2, {4, 64}, "is no LoRA"},
        {"model", "lora", "llama", Q "a", 2, {4, 64}, "is no LoRA"},
        {"adapters", "lora", "llama", Q "a", 2, {4, 64}, "is no LoRA"},
        {"adapter", NULL, "llama", Q "a", 2, {4, 64}, "is no LoRA"},
        {"adapter", "loha", "llama", Q "a", 2, {4, 64}, "is no LoRA"},
        {"adapter", "lora", NULL, Q "a", 2, {4, 64}, "of the architecture llama"},
        {"adapter", "lora", "llama", "attn_q", 2, {4, 64}, "is no LoRA of a matrix"},
        {"adapter", "lora", "llama", "blk..attn_q.weight.lora_a", 2, {4, 64}, "of a matrix"},
        {"adapter", "lora", "llama", "blk.0xattn_q.weight.lora_a", 2, {4, 64}, "of a matrix"},
        {"adapter", "lora", "llama", "blk.0000000.attn_q.weight.lora_a", 2, {4, 64}, "matrix"},
        {"adapter", "lora", "llama", "blk.0.attn_qq.weight.lora_a", 2, {4, 64}, "of a matrix"},
        {"adapter", "lora", "llama", "blk.0.embed.weight.lora_a", 2, {4, 64}, "of a matrix"},
        {"adapter", "lora", "llama", Q "c", 2, {4, 64}, "is no LoRA of a matrix"},
        {"adapter", "lora", "llama", "blk.3.attn_q.weight.lora_a", 2, {4, 64}, "3 layers"},
        {"adapter", "lora", "llama", Q "a", 1, {64}, "is no LoRA of a matrix"},
        {"adapter", "lora", "llama", Q "a", 2, {4, 63}, "[4, 64] that rank, targets and base"},
        {"adapter", "lora", "llama", Q "a", 2, {4, 63}, "but it has another shape"},
        {"adapter", "lora", "llama", Q "a", 2, {4, 64}, "lora_b [64, 4] that rank"},
        {"adapter", "lora", "llama", Q "b", 2, {64, 4}, "the LoRA rank is 0"},
    };
    bench b;
    bench_open(&b, "exchange-kind");
    ck_ok(import_gguf(&b, b.good, b.model));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_one(b.bad, cases[i].type, cases[i].kind, cases[i].architecture, cases[i].name,
                  cases[i].rank, cases[i].shape);
        ck_refused(import_gguf(&b, b.bad, b.model), cases[i].sentence);
    }
    icae_model stranger = *b.model;
    char name[] = "mamba";
    snprintf(stranger.config.architecture, sizeof stranger.config.architecture, "%s", name);
    ck_refused(import_gguf(&b, b.good, &stranger), "of the architecture unknown");
    ck_refused(icae_adapter_export_gguf(b.adapter, b.bad, &stranger, ICAE_DTYPE_F32, &error),
               "llama.cpp's name of 'mamba' is not known");
    bench_close(&b);
}
END_TEST

/* llama.cpp switches such a LoRA on at these tokens, and not before. */
START_TEST(a_gguf_lora_that_tokens_switch_on_is_refused) {
    const uint32_t tokens[] = {1, 2};
    const icae_gguf_item item = {.key = "adapter.alora.invocation_tokens",
                                 .type = ICAE_GGUF_ARRAY,
                                 .element_type = ICAE_GGUF_U32,
                                 .count = 2,
                                 .raw = (const unsigned char *)tokens};
    bench b;
    bench_open(&b, "exchange-alora");
    icae_gguf file;
    icae_gguf_writer writer;
    ck_ok(icae_gguf_open(&file, b.good, &error));
    icae_gguf_begin(&writer, b.bad);
    for (size_t i = 0; i < file.n_items; i++)
        icae_gguf_put_item(&writer, &file.items[i]);
    icae_gguf_put_item(&writer, &item);
    for (size_t i = 0; i < file.n_tensors; i++) {
        const icae_gguf_tensor *t = &file.tensors[i];
        icae_gguf_put_tensor(&writer, t->name, t->dtype, t->rank, t->shape);
    }
    for (size_t i = 0; i < file.n_tensors; i++)
        icae_gguf_write_data(&writer, file.tensors[i].data, file.tensors[i].bytes);
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf_close(&file);
    ck_refused(import_gguf(&b, b.bad, b.model), "has adapter.alora.invocation_tokens");
    bench_close(&b);
}
END_TEST

START_TEST(numbers_that_are_none_are_refused_in_a_gguf_lora) {
    static const double wrong[] = {(double)NAN, (double)INFINITY};
    bench b;
    bench_open(&b, "exchange-numbers");
    for (int i = 0; i < 2; i++) {
        icae_real sound = b.adapter->params.values[5];
        b.adapter->params.values[5] = (icae_real)wrong[i];
        ck_ok(icae_adapter_export_gguf(b.adapter, b.bad, b.model, ICAE_DTYPE_F32, &error));
        ck_refused(import_gguf(&b, b.bad, b.model), "holds a NaN or an infinity at place 5");
        b.adapter->params.values[5] = sound;
    }
    b.adapter->params.values[5] = (icae_real)3.4e38; /* rounds up to infinity */
    ck_refused(icae_adapter_export_gguf(b.adapter, b.bad, b.model, ICAE_DTYPE_BF16, &error),
               "too large for BF16");
    bench_close(&b);
}
END_TEST

START_TEST(the_memory_table_stands_beside_any_name) {
    static const char *const names[][2] = {
        {"a/x.gguf", "a/x.memory.safetensors"},
        {"a/x.bin", "a/x.bin.memory.safetensors"},
        {".gguf", ".gguf.memory.safetensors"},
        {"x", "x.memory.safetensors"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = icae_memory_beside(names[i][0]);
        ck_assert_str_eq(path, names[i][1]);
        free(path);
    }
}
END_TEST

/* ---- slots ---- */

static icae_slots slots_of(const bench *b, int32_t length) {
    icae_slots slots = {0};
    ck_ok(icae_slots_allocate(&slots, 1, b->adapter->settings.memory_slots,
                              b->model->config.width, &error));
    slots.span_lengths[0] = length;
    slots.n_tokens = length;
    return slots;
}

START_TEST(rows_that_another_program_could_not_use_are_refused) {
    bench b;
    bench_open(&b, "exchange-rows");
    const char *path = test_path(b.folder, "rows");
    icae_slots slots = slots_of(&b, 20);
    ck_refused(icae_slots_export_embeds(&slots, path, b.model, b.adapter, ICAE_TASK_FT,
                                        ICAE_DTYPE_F32, &error),
               "the task ft asks with a prompt");
    ck_refused(
        icae_slots_export_torch(&slots, path, b.adapter, ICAE_TASK_AE, ICAE_DTYPE_F32, &error),
        "the layout uniform of " TINY_ADAPTER " needs them");
    free(b.adapter->path);
    b.adapter->path = NULL;
    ck_refused(
        icae_slots_export_torch(&slots, path, b.adapter, ICAE_TASK_AE, ICAE_DTYPE_F32, &error),
        "the layout uniform of this adapter needs them");
    slots.values[7] = 70000;
    ck_refused(icae_slots_export_embeds(&slots, path, b.model, b.adapter, ICAE_TASK_LM,
                                        ICAE_DTYPE_F16, &error),
               "a slot holds a number that is too large for F16");
    ck_assert(!icae_path_exists(path));
    ck_ok(icae_slots_export_embeds(&slots, path, b.model, b.adapter, ICAE_TASK_LM,
                                   ICAE_DTYPE_BF16, &error));
    icae_slots_release(&slots);
    slots = slots_of(&b, 1 << 24); /* one more is no whole number as a float */
    ck_refused(icae_slots_export_embeds(&slots, path, b.model, b.adapter, ICAE_TASK_LM,
                                        ICAE_DTYPE_F32, &error),
               "positions above 16777216 cannot be written");
    icae_slots_release(&slots);
    bench_close(&b);
}
END_TEST

SUITE_OF(exchange, 60, a_gguf_lora_of_another_kind_base_name_or_shape_is_refused,
         a_gguf_lora_that_tokens_switch_on_is_refused,
         numbers_that_are_none_are_refused_in_a_gguf_lora,
         the_memory_table_stands_beside_any_name,
         rows_that_another_program_could_not_use_are_refused)
