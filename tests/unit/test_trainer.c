/* SPDX-License-Identifier: MIT */
/*
 * Whole training runs on a tiny model: do they learn, is the gradient that of the whole batch, and does the base
 * stay as it was? How they resume and what they refuse is in test_trainer_runs.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/json.h"
#include "icae/lines.h"
#include "icae/optimizer.h"
#include "icae/rng.h"
#include "icae/safetensors.h"
#include "suites.h"
#include "train_support.h"

/* Enough adapter for the tiny model to learn by heart. */
#define ALL_MODULES                                                                            \
    "adapter.targets=[\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", "         \
    "\"up_proj\", \"down_proj\"]"
#define STRONG "adapter.rank=16", "adapter.alpha=32", "adapter.dropout=0", ALL_MODULES

/* Two passages, so that the slots must tell which: one alone could be learnt by the AE token. */
static const char *two_passages(const char *folder) {
    static const char lines[] =
        "{\"text\": \"The library opens at nine on weekdays and at ten on Saturdays.\"}\n"
        "{\"text\": \"A ship with seven sails came into the harbour before dawn.\"}\n";
    icae_error error = {0};
    const char *path = test_path(folder, "two.jsonl");
    ck_ok(icae_file_write(path, lines, sizeof lines - 1, &error));
    return path;
}

/* ---- learning ---- */

static void overfit(const char *folder, const char *compute) {
    icae_error error = {0};
    char train[800], heldout[800], assignment[64];
    snprintf(train, sizeof train, "data.train=[\"%s\"]", two_passages(folder));
    snprintf(heldout, sizeof heldout, "data.heldout=[\"%s\"]", two_passages(folder));
    snprintf(assignment, sizeof assignment, "train.compute=%s", compute);
    icae_train_report report;
    ck_ok(tiny_run(test_path(folder, compute),
                   RUN_WITH(train, heldout, STRONG, assignment, "objective.lm_ratio=0",
                            "adapter.memory_slots=16", "adapter.compression_rate=4",
                            "train.steps=400", "train.batch=2", "train.lr=4e-3",
                            "train.schedule=linear", "train.final_lr_fraction=0.05",
                            "evaluate.reconstruct_samples=2", "evaluate.reconstruct_tokens=0"),
                   NULL, &report, &error));
    ck_assert_int_eq(report.before.exact, 0);
    ck_assert(report.before.loss[ICAE_TASK_AE] > 3);
    ck_assert_msg(report.after.loss[ICAE_TASK_AE] < 0.1, "AE loss %g in %s",
                  report.after.loss[ICAE_TASK_AE], compute);
    ck_assert_int_eq(report.after.restored, 2);
    ck_assert_int_eq(report.after.exact, 2);
    ck_assert(report.after.prefix_em == 1 && report.after.bleu4 > 99.9);
}

START_TEST(overfits_passages_until_free_reconstruction_is_exact) {
    const char *folder = test_folder("overfit");
    overfit(folder, "f32");
    overfit(folder, "bf16");
    /* What bf16 learnt, f32 reads. */
    char start[800], data[800];
    snprintf(start, sizeof start, "adapter.start=%s/bf16/adapter", folder);
    snprintf(data, sizeof data, "data.heldout=[\"%s\"]", test_path(folder, "two.jsonl"));
    icae_error error = {0};
    icae_train_report report;
    ck_ok(tiny_run(test_path(folder, "read"),
                   RUN_WITH(start, data, "adapter.memory_slots=16", "adapter.rank=16",
                            ALL_MODULES, "objective.lm_ratio=0", "train.steps=1",
                            "evaluate.reconstruct_samples=2", "evaluate.reconstruct_tokens=0"),
                   NULL, &report, &error));
    ck_assert_int_eq(report.before.exact, 2);
}
END_TEST

START_TEST(both_losses_fall_when_every_sample_bears_both) {
    icae_error error = {0};
    const char *folder = test_folder("both");
    icae_train_report report;
    ck_ok(tiny_run(test_path(folder, "run"),
                   RUN_WITH("objective.kind=both", "data.heldout=data/samples/sentences.jsonl",
                            STRONG, "train.steps=150", "train.lr=3e-3",
                            "adapter.memory_slots=16", "objective.context_tokens=12"),
                   NULL, &report, &error));
    ck_assert_int_gt(report.after.targets[ICAE_TASK_AE], 0);
    ck_assert_int_gt(report.after.targets[ICAE_TASK_LM], 0);
    for (int task = ICAE_TASK_AE; task <= ICAE_TASK_LM; task++)
        ck_assert_msg(report.after.loss[task] < report.before.loss[task] - 1, "%g -> %g",
                      report.before.loss[task], report.after.loss[task]);
}
END_TEST

START_TEST(fine_tuning_goes_on_from_an_adapter_and_its_loss_falls) {
    icae_error error = {0};
    const char *folder = test_folder("finetune");
    char start[800];
    icae_train_report report;
    ck_ok(tiny_run(test_path(folder, "first"), NULL, NULL, NULL, &error));
    snprintf(start, sizeof start, "adapter.start=%s/first/adapter", folder);
    /* a key that contradicts the adapter is refused, one that agrees is not */
    const char *rows = "data.train=data/samples/questions.jsonl";
    ck_refused(tiny_run(test_path(folder, "second"),
                        RUN_WITH(rows, start, "objective.kind=instruct", "adapter.rank=5"),
                        NULL, NULL, &error),
               "adapter.rank: the config says 5");
    error = (icae_error){0};
    ck_ok(tiny_run(test_path(folder, "second"),
                   RUN_WITH(rows, start, "objective.kind=instruct", "adapter.rank=4",
                            "data.heldout=data/samples/questions.jsonl", "train.lr=1e-2",
                            "train.steps=60", "train.micro_batch=3"),
                   NULL, &report, &error));
    ck_assert_int_gt(report.after.targets[ICAE_TASK_FT], 0);
    ck_assert_msg(report.after.loss[ICAE_TASK_FT] < report.before.loss[ICAE_TASK_FT] - 0.5,
                  "%g -> %g", report.before.loss[ICAE_TASK_FT],
                  report.after.loss[ICAE_TASK_FT]);
    ck_assert_int_eq(report.after.restored, 1);
    ck_assert_int_eq(report.after.targets[ICAE_TASK_AE], 0);
    /* With a share for restoring both losses are measured, and both fall. */
    ck_ok(tiny_run(test_path(folder, "third"),
                   RUN_WITH(rows, start, "objective.kind=instruct", "objective.ae_share=0.5",
                            "data.heldout=data/samples/questions.jsonl", "train.lr=1e-2",
                            "train.steps=60", "train.micro_batch=3"),
                   NULL, &report, &error));
    static const icae_task tasks[] = {ICAE_TASK_AE, ICAE_TASK_FT};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_gt(report.after.targets[tasks[i]], 0);
        ck_assert_msg(report.after.loss[tasks[i]] < report.before.loss[tasks[i]] - 0.3,
                      "%g -> %g", report.before.loss[tasks[i]], report.after.loss[tasks[i]]);
    }
    ck_assert_int_eq(report.after.restored, 1);
}
END_TEST

/* ---- what stays the same ---- */

static uint64_t hash_tensor(const icae_tensor *tensor, uint64_t hash) {
    size_t bytes;
    ck_assert(icae_dtype_bytes(tensor->dtype, icae_tensor_count(tensor), &bytes));
    return icae_hash64(tensor->data, bytes, hash);
}

static uint64_t hash_model(const icae_model *model) {
    uint64_t hash = hash_tensor(&model->embedding, 1);
    hash = hash_tensor(&model->final_norm, hash);
    hash = hash_tensor(&model->head, hash);
    for (int64_t i = 0; i < model->config.layers; i++) {
        const icae_layer *layer = &model->layers[i];
        hash = hash_tensor(&layer->input_norm, hash);
        hash = hash_tensor(&layer->post_norm, hash);
        for (int m = 0; m < ICAE_MODULE_COUNT; m++)
            hash = hash_tensor(&layer->modules[m], hash);
    }
    return hash;
}

START_TEST(training_leaves_every_byte_of_the_base_as_it_was) {
    icae_error error = {0};
    icae_backend *be;
    icae_model *model;
    icae_adapter *adapter;
    icae_graph *graph;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    ck_ok(icae_model_open(&model, "tests/golden/llama/model", &error));
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = 4;
    settings.rank = 4;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++)
        settings.targets[m] = true;
    ck_ok(icae_adapter_create(&adapter, model, &settings, 3, be, true, &error));
    ck_ok(icae_graph_create(&graph, be, &error));
    uint64_t before = hash_model(model), adapter_before = icae_adapter_hash(adapter);
    const int32_t ids[13] = {40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 2};
    icae_context context = {ids, 12, 7};
    icae_job job = {.task = ICAE_TASK_AE, .target = ids, .n_target = 13, .coef = 1};
    icae_batch batch = {&context, 1, &job, 1};
    icae_optimizer optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
    for (uint64_t step = 0; step < 5; step++) {
        icae_run run = {.is_training = true, .is_checkpointed = step % 2, .seed = step};
        icae_params_zero_gradients(&adapter->params);
        icae_graph_begin(graph, true, false);
        icae_tensor *loss = icae_batch_loss(graph, model, adapter, &batch, &run, NULL, NULL);
        ck_ok(icae_graph_status(graph, &error));
        ck_ok(icae_graph_backward(graph, loss, &error));
        ck_assert(icae_optimizer_step(&optimizer, &adapter->params, 1e-2).is_applied);
    }
    ck_assert_uint_ne(icae_adapter_hash(adapter), adapter_before);
    ck_assert_uint_eq(hash_model(model), before);
    icae_graph_free(graph);
    icae_adapter_free(adapter);
    icae_model_close(model);
    icae_backend_free(be);
}
END_TEST

/* AdamW's first moment after one step is the clipped gradient times 0.1. */
static double *first_moment(const char *out, int64_t *count) {
    icae_error error = {0};
    icae_safetensors file;
    ck_ok(icae_safetensors_open(
        &file, test_path(out, "checkpoints/step-1/optimizer.safetensors"), &error));
    const icae_safetensors_entry *entry = icae_safetensors_find(&file, "moment1");
    ck_assert_ptr_nonnull(entry);
    *count = entry->shape[0];
    double *moment = calloc((size_t)*count, sizeof *moment);
    for (int64_t i = 0; i < *count; i++) {
        icae_real value;
        memcpy(&value, (const char *)entry->data + (size_t)i * sizeof value, sizeof value);
        moment[i] = (double)value;
    }
    icae_safetensors_close(&file);
    return moment;
}

START_TEST(micro_batches_give_the_gradient_of_the_whole_batch) {
    static const char *const kinds[] = {"objective.kind=mixed", "objective.kind=both",
                                        "objective.kind=instruct", "objective.kind=instruct"};
    static const char *const micros[] = {"train.micro_batch=0", "train.micro_batch=1",
                                         "train.micro_batch=4", "train.micro_batch=7"};
    icae_error error = {0};
    const char *folder = test_folder("micro");
    for (int k = 0; k < 4; k++) {
        double *whole = NULL, largest = 0;
        for (int m = 0; m < 4; m++) {
            char name[32];
            snprintf(name, sizeof name, "run-%d-%d", k, m);
            const char *out = test_path(folder, name);
            ck_ok(tiny_run(out,
                           RUN_WITH(kinds[k], micros[m], "train.batch=7", "train.steps=1",
                                    k >= 2 ? "data.train=data/samples/questions.jsonl"
                                           : "data.strict=false",
                                    k == 3 ? "objective.ae_share=0.3" : "data.strict=false"),
                           NULL, NULL, &error));
            int64_t count;
            double *moment = first_moment(out, &count);
            if (!whole) {
                whole = moment;
                for (int64_t i = 0; i < count; i++)
                    largest = fmax(largest, fabs(moment[i]));
                ck_assert(largest > 0);
                continue;
            }
            for (int64_t i = 0; i < count; i++)
                ck_assert_msg(fabs(moment[i] - whole[i]) < 2e-5 * largest,
                              "%s, %s: %g, expected %g", kinds[k], micros[m], moment[i],
                              whole[i]);
            free(moment);
        }
        free(whole);
    }
}
END_TEST

/* ---- numbers that are none ---- */

/* A line about the step, then four samples whose loss is not known. */
static void check_skipped(const char *path, int64_t step) {
    icae_error error = {0};
    icae_lines *lines;
    ck_ok(icae_lines_open(&lines, path, &error));
    int64_t n = 0, number;
    for (;; n++) {
        const char *line, *text;
        size_t bytes;
        icae_json *json;
        ck_ok(icae_lines_next(lines, 1 << 20, &line, &bytes, &error));
        if (!line) break;
        ck_ok(icae_json_parse(&json, path, line, bytes, &error));
        const icae_json_value *root = icae_json_root(json);
        const char *key = n ? "sample" : "step";
        ck_assert(icae_json_as_integer(icae_json_member(root, key), &number));
        ck_assert_int_eq(number, n ? n - 1 : step);
        if (n) {
            text = icae_json_as_string(icae_json_member(root, "context"));
            ck_assert(text && strlen(text) > 8);
            ck_assert_uint_ge(icae_json_count(icae_json_member(root, "context_ids")), 4);
            ck_assert_uint_ge(icae_json_count(icae_json_member(root, "target_ids")), 5);
            ck_assert(icae_json_is_null(icae_json_member(root, "nll")));
        } else {
            text = icae_json_as_string(icae_json_member(root, "reason"));
            ck_assert(text && !strcmp(text, "loss"));
        }
        icae_json_free(json);
    }
    ck_assert_int_eq(n, 5);
    icae_lines_close(lines);
}

START_TEST(steps_with_nan_are_left_out_and_end_the_run_when_they_do_not_stop) {
    if (ICAE_REAL_IS_DOUBLE)
        return; /* no adapter file, whose numbers are f32, overflows there */
    icae_error error = {0};
    const char *folder = test_folder("nan");
    char start[800], poisoned[700];
    snprintf(poisoned, sizeof poisoned, "%s/poisoned", folder);
    snprintf(start, sizeof start, "adapter.start=%s", poisoned);
    ck_ok(tiny_run(test_path(folder, "first"), NULL, NULL, NULL, &error));
    icae_backend *be;
    icae_model *model;
    icae_adapter *adapter;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    ck_ok(icae_model_open(&model, "tests/golden/llama/model", &error));
    ck_ok(icae_adapter_load(&adapter, test_path(folder, "first/adapter"), model, be, true,
                            &error));
    /* Loading refuses NaN and infinity; squares of these overflow. */
    for (int64_t i = 0; i < adapter->params.count; i++)
        adapter->params.values[i] = (icae_real)3e38;
    ck_ok(icae_adapter_save(adapter, poisoned, model, &error));
    icae_adapter_free(adapter);
    icae_model_close(model);
    icae_backend_free(be);
    icae_train_report report;
    ck_refused(tiny_run(test_path(folder, "second"),
                        RUN_WITH(start, "train.steps=30", "objective.lm_ratio=0"), NULL,
                        &report, &error),
               "was not finite 10 times in a row");
    ck_assert_int_eq(report.skipped, 10);
    /* The samples of every one of them are there to be looked at. */
    for (int step = 1; step <= 10; step++) {
        char name[64];
        snprintf(name, sizeof name, "second/skipped/step-%d.jsonl", step);
        check_skipped(test_path(folder, name), step);
    }
}
END_TEST

SUITE_OF(trainer, 120, overfits_passages_until_free_reconstruction_is_exact,
         both_losses_fall_when_every_sample_bears_both,
         fine_tuning_goes_on_from_an_adapter_and_its_loss_falls,
         training_leaves_every_byte_of_the_base_as_it_was,
         micro_batches_give_the_gradient_of_the_whole_batch,
         steps_with_nan_are_left_out_and_end_the_run_when_they_do_not_stop)
