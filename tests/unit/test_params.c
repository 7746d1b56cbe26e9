/* SPDX-License-Identifier: MIT */
/* The trainable block, and what a model's settings say about names and shapes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/model.h"
#include "suites.h"

static icae_error error;

static icae_backend *reference(void) {
    icae_backend *be;
    ck_ok(icae_backend_create(&be, "reference", 1, &error));
    return be;
}

START_TEST(lays_parameters_end_to_end_in_four_zeroed_arrays) {
    icae_backend *be = reference();
    icae_params params = {0};
    enum { N = 200 }; /* more than the first table holds */
    int64_t total = 0;
    for (int i = 0; i < N; i++) {
        char name[32];
        snprintf(name, sizeof name, "p%d", i);
        int64_t shape[] = {1 + i % 3, 1 + i % 5};
        ck_assert_int_eq(icae_params_add(&params, name, 2, shape), i);
        total += shape[0] * shape[1];
    }
    ck_ok(icae_params_allocate(&params, be, true, &error));
    ck_assert_int_eq(params.count, total);
    for (int64_t i = 0; i < total; i++) {
        ck_assert(params.values[i] == 0 && params.gradients[i] == 0);
        ck_assert(params.moment1[i] == 0 && params.moment2[i] == 0);
    }
    int64_t offset = 0;
    for (int i = 0; i < N; i++) {
        const icae_param *p = &params.list[i];
        ck_assert_int_eq(p->offset, offset);
        ck_assert_ptr_eq(p->tensor.data, params.values + offset);
        ck_assert_ptr_eq(p->tensor.gradient, params.gradients + offset);
        ck_assert(p->tensor.is_leaf && p->tensor.wants_gradient);
        ck_assert_int_eq(p->count, p->shape[0] * p->shape[1]);
        offset += p->count;
    }
    ck_assert_ptr_eq(icae_params_find(&params, "p137"), &params.list[137]);
    ck_assert_ptr_null(icae_params_find(&params, "p200"));
    params.gradients[3] = params.gradients[total - 1] = 5;
    icae_params_zero_gradients(&params);
    ck_assert(params.gradients[3] == 0 && params.gradients[total - 1] == 0);
    icae_params_release(&params);
    ck_assert_ptr_null(params.values);
    icae_backend_free(be); /* asserts that every buffer came back */
}
END_TEST

START_TEST(inference_keeps_values_only) {
    icae_backend *be = reference();
    icae_params params = {0};
    ck_assert_int_eq(icae_params_add(&params, "a", 1, (const int64_t[]){7}), 0);
    ck_ok(icae_params_allocate(&params, be, false, &error));
    ck_assert_ptr_null(params.gradients);
    ck_assert_ptr_null(params.moment2);
    ck_assert(!params.list[0].tensor.wants_gradient);
    icae_params_zero_gradients(&params);
    icae_params_release(&params);
    icae_params_release(&params); /* an empty one */
    icae_backend_free(be);
}
END_TEST

START_TEST(refuses_a_shape_whose_bytes_do_not_fit) {
    icae_params params = {0};
    ck_assert_int_eq(icae_params_add(&params, "a", 2, (const int64_t[]){1LL << 40, 1LL << 40}),
                     -1);
    ck_assert_int_eq(icae_params_add(&params, "a", 1, (const int64_t[]){1LL << 62}), -1);
    ck_assert_int_eq(params.count, 0);
    icae_params_release(&params);
}
END_TEST

static const icae_model_config config = {
    .width = 64, .layers = 3, .heads = 6, .kv_heads = 2, .head_width = 16, .feed_forward = 176};

START_TEST(names_modules_as_checkpoints_do) {
    char path[64];
    icae_module_path(0, ICAE_MODULE_Q, path, sizeof path);
    ck_assert_str_eq(path, "model.layers.0.self_attn.q_proj");
    icae_module_path(31, ICAE_MODULE_DOWN, path, sizeof path);
    ck_assert_str_eq(path, "model.layers.31.mlp.down_proj");
    for (int m = 0; m < ICAE_MODULE_COUNT; m++)
        ck_assert_int_eq(icae_module_from_name(icae_module_name((icae_module)m)), m);
    ck_assert_int_eq(icae_module_from_name("q"), ICAE_MODULE_COUNT);
    ck_assert_int_eq(icae_module_from_name(""), ICAE_MODULE_COUNT);
}
END_TEST

START_TEST(knows_the_shape_of_every_module) {
    static const int64_t shapes[ICAE_MODULE_COUNT][2] = {
        {96, 64}, {32, 64}, {32, 64}, {64, 96}, {176, 64}, {176, 64}, {64, 176}};
    double total = 0;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        ck_assert_int_eq(icae_module_rows(&config, (icae_module)m), shapes[m][0]);
        ck_assert_int_eq(icae_module_cols(&config, (icae_module)m), shapes[m][1]);
        total += (double)(shapes[m][0] * shapes[m][1]);
    }
    ck_assert(icae_model_linear_parameters(&config) == 3 * total);
    /* 3 layers, keys and values of 2 heads of 16, two bytes each, 10 tokens */
    ck_assert_uint_eq(icae_cache_bytes(&config, 10), 3 * 2 * 32 * 2 * 10);
}
END_TEST

SUITE_OF(params, 60, lays_parameters_end_to_end_in_four_zeroed_arrays,
         inference_keeps_values_only, refuses_a_shape_whose_bytes_do_not_fit,
         names_modules_as_checkpoints_do, knows_the_shape_of_every_module)
