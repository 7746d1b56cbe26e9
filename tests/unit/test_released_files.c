/* SPDX-License-Identifier: MIT */
/* Files of released weights: what is known of one from its tensors, and those that are refused. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "icae/released.h"
#include "icae/safetensors.h"
#include "suites.h"

/* Small ones, for the tiny models of tests/golden/llama2 and tests/golden/mistral. */
#define V1 "tests/golden/released/v1.pt"
#define V2 "tests/golden/released/v2.safetensors"

static icae_error error;

START_TEST(says_what_a_file_is) {
    static const struct {
        const char *file;
        icae_released kind;
        int64_t rank, value_rows;
    } cases[] = {{V1, ICAE_RELEASED_V1, 4, 64}, {V2, ICAE_RELEASED_V2, 6, 32}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_released_facts facts;
        ck_assert_int_eq(icae_released_kind(cases[i].file), cases[i].kind);
        ck_ok(icae_released_describe(&facts, cases[i].file, &error));
        ck_assert(facts.kind == cases[i].kind && facts.tensors == 9);
        ck_assert_int_eq(facts.placeholders, cases[i].kind == ICAE_RELEASED_V1 ? 23 : 0);
        ck_assert(facts.layers == 2 && facts.width == 64 && facts.memory_slots == 8);
        ck_assert_int_eq(facts.rank, cases[i].rank);
        ck_assert_int_eq(facts.rows[ICAE_MODULE_V], cases[i].value_rows);
        for (int m = 0; m < ICAE_MODULE_COUNT; m++)
            ck_assert_int_eq(facts.targets[m], m == ICAE_MODULE_Q || m == ICAE_MODULE_V);
        ck_assert_str_eq(facts.base, "no base that was released for");
    }
    static const char *const others[] = {
        "tests/golden/llama2/model/model.safetensors", "tests/golden/released/released.json",
        "tests/golden/llama2/adapter/adapter_model.safetensors", "tests/golden/none"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        ck_assert_int_eq(icae_released_kind(others[i]), ICAE_RELEASED_NONE);
}
END_TEST

/* Files of the released widths, at rank 1 with one memory slot. */
START_TEST(knows_the_released_shapes) {
    static const struct {
        int64_t layers, width, values;
        const char *base;
    } rows[] = {{32, 4096, 4096, "Llama-2-7B (v1"},
                {32, 4096, 1024, "Mistral-7B (v2"},
                {40, 5120, 5120, "Llama-2-13B"},
                {32, 4096, 2048, "no base that was released for"},
                {31, 4096, 4096, "no base that was released for"}};
    enum { MOST = 40 * 4 };
    static const char zeros[4 * 5120 * 4];
    static char names[MOST][96];
    static icae_safetensors_source list[MOST + 1];
    const char *path = test_path(test_folder("released-shapes"), "x.safetensors");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = 0;
        for (; n < (size_t)rows[i].layers * 4; n++) {
            bool is_value = n & 1, is_b = n & 2;
            snprintf(names[n], sizeof names[n],
                     "icae.base_model.model.model.layers.%zu.self_attn.%c_proj.lora_%c."
                     "default.weight",
                     n / 4, is_value ? 'v' : 'q', is_b ? 'B' : 'A');
            int64_t out = is_value ? rows[i].values : rows[i].width;
            list[n] = (icae_safetensors_source){
                .name = names[n], .dtype = ICAE_DTYPE_BF16, .rank = 2, .data = zeros};
            list[n].shape[0] = is_b ? out : 1;
            list[n].shape[1] = is_b ? 1 : rows[i].width;
        }
        list[n++] = (icae_safetensors_source){.name = "memory_token_embed.weight",
                                              .dtype = ICAE_DTYPE_F32,
                                              .rank = 2,
                                              .shape = {4, rows[i].width},
                                              .data = zeros};
        ck_ok(icae_safetensors_write(path, list, n, NULL, 0, &error));
        icae_released_facts facts;
        ck_ok(icae_released_describe(&facts, path, &error));
        ck_assert(facts.layers == rows[i].layers && facts.width == rows[i].width);
        ck_assert(facts.rank == 1 && facts.memory_slots == 1);
        ck_assert_msg(!strncmp(facts.base, rows[i].base, strlen(rows[i].base)), "%s",
                      facts.base);
    }
}
END_TEST

START_TEST(refuses_another_base) {
    static const struct {
        const char *file, *base, *sentence;
    } rows[] = {
        {V1, "tests/golden/mistral/model", "whose v_proj is [64, 64]"},
        {V1, "tests/golden/mistral/model", "(tests/golden/mistral/model) is [32, 64]"},
        {V2, "tests/golden/llama2/model", "whose v_proj is [32, 64]"},
        {V2, "tests/golden/llama3/model", "has "},
    };
    icae_backend *be;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        icae_model *model;
        icae_adapter *adapter;
        ck_ok(icae_model_open(&model, rows[i].base, &error));
        ck_refused(
            icae_released_convert(&adapter, rows[i].file, model, NULL, be, false, &error),
            rows[i].sentence);
        ck_assert_int_eq(error.status, ICAE_MISMATCH);
        ck_assert_ptr_null(adapter);
        icae_model_close(model);
    }
    icae_backend_free(be);
}
END_TEST

/* ---- damaged copies of v2 ---- */

typedef struct copy {
    icae_safetensors file;
    icae_safetensors_source list[16];
    size_t n;
} copy;

static copy copy_v2(void) {
    copy c = {0};
    ck_ok(icae_safetensors_open(&c.file, V2, &error));
    for (; c.n < c.file.n_entries; c.n++) {
        const icae_safetensors_entry *e = &c.file.entries[c.n];
        c.list[c.n] = (icae_safetensors_source){
            .name = e->name, .dtype = e->dtype, .rank = e->rank, .data = e->data};
        memcpy(c.list[c.n].shape, e->shape, sizeof e->shape);
    }
    return c;
}

START_TEST(refuses_what_is_missing_left_over_or_of_another_shape) {
#define LAYER "icae.base_model.model.model.layers."
    static float numbers[11 * 64];
    static const struct {
        const char *name; /* of the tensor that is changed; sorted, so 8 is the memory table */
        int index;
        icae_dtype dtype;
        int64_t rows, cols;
        const char *sentence;
    } changes[] = {
        {NULL, 8, 0, 0, 0, "memory_token_embed.weight is missing"},
        {NULL, 3, 0, 0, 0, "has 7 LoRA tensors where 2 layers with 2 modules each need 8"},
        {"icae.lm_head.weight", 3, ICAE_DTYPE_F32, 2, 2, "has no place in an adapter"},
        {LAYER "01.self_attn.q_proj.lora_A.default.weight", 3, ICAE_DTYPE_F32, 6, 64,
         "has no place in an adapter"},
        {LAYER "0.self_attn.q_proj.lora_C.default.weight", 3, ICAE_DTYPE_F32, 6, 64,
         "has no place in an adapter"},
        {LAYER "0.self_attn.q_proj.lora_A.default.weights", 3, ICAE_DTYPE_F32, 6, 64,
         "has no place in an adapter"},
        {LAYER "99999999999999999999.self_attn.q_proj.lora_A.default.weight", 3, ICAE_DTYPE_F32,
         6, 64, "has no place in an adapter"},
        {LAYER "9.self_attn.q_proj.lora_A.default.weight", 3, ICAE_DTYPE_F32, 6, 64,
         "where 10 layers with 2 modules each need 40"},
        {LAYER "1.self_attn.q_proj.lora_A.default.weight", 4, ICAE_DTYPE_F32, 5, 64,
         "has the shape [5, 64], expected [rank, in]"},
        {LAYER "1.self_attn.q_proj.lora_B.default.weight", 5, ICAE_DTYPE_F32, 63, 6,
         "has the shape [63, 6], expected [out, rank]"},
        {LAYER "1.self_attn.q_proj.lora_A.default.weight", 4, ICAE_DTYPE_F32, 6, 63,
         "has the shape [6, 63], expected [rank, in]"},
        {LAYER "1.self_attn.q_proj.lora_B.default.weight", 5, ICAE_DTYPE_F32, 64, 5,
         "has the shape [64, 5], expected [out, rank]"},
        {LAYER "-1.self_attn.q_proj.lora_A.default.weight", 3, ICAE_DTYPE_F32, 6, 64,
         "has no place in an adapter"},
        {LAYER "0.self_attn.q_proj.weight", 3, ICAE_DTYPE_F32, 6, 64,
         "has no place in an adapter"},
        {"icae.base_model.model.lm_head.lora_A.default.weight", 3, ICAE_DTYPE_F32, 6, 64,
         "has no place in an adapter"},
        {LAYER "0.a.module.with.a.name.that.is.far.longer.than.any.that.there.is.in.a.model.of."
               "this.kind.whoever.may.have.made.it.lora_A.default.weight",
         3, ICAE_DTYPE_F32, 6, 64, "has no place in an adapter"},
        {"memory_token_embed.weight", 8, ICAE_DTYPE_F32, 3, 64, "expected [k+3, width]"},
        {"memory_token_embed.weight", 8, ICAE_DTYPE_F64, 5, 64, "has the type F64"},
        {"memory_token_embed.weight", 8, ICAE_DTYPE_F32, 11, 64,
         "holds a number that is not finite at place 70"},
        {"memory_token_embed.weight", 8, ICAE_DTYPE_F32, 11, 32,
         "2 layers of width 32 (no base that was released for)"},
    };
    numbers[70] = NAN;
    const char *path = test_path(test_folder("released-changed"), "x.safetensors");
    icae_backend *be;
    icae_model *model;
    icae_adapter *adapter;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    ck_ok(icae_model_open(&model, "tests/golden/mistral/model", &error));
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        copy c = copy_v2();
        icae_safetensors_source *one = &c.list[changes[i].index];
        if (changes[i].name)
            *one = (icae_safetensors_source){.name = changes[i].name,
                                             .dtype = changes[i].dtype,
                                             .rank = 2,
                                             .shape = {changes[i].rows, changes[i].cols},
                                             .data = numbers};
        else
            *one = c.list[--c.n];
        ck_ok(icae_safetensors_write(path, c.list, c.n, NULL, 0, &error));
        ck_refused(icae_released_convert(&adapter, path, model, NULL, be, false, &error),
                   changes[i].sentence);
        ck_assert_ptr_null(adapter);
        ck_assert_msg(!strncmp(error.message, path, strlen(path)), "%s", error.message);
        icae_safetensors_close(&c.file);
    }
    icae_model_close(model);
    icae_backend_free(be); /* asserts that all buffers came back */
#undef LAYER
}
END_TEST

SUITE_OF(released_files, 120, says_what_a_file_is, knows_the_released_shapes,
         refuses_another_base, refuses_what_is_missing_left_over_or_of_another_shape)
