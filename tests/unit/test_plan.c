/* SPDX-License-Identifier: MIT */
/* What a run will take, known before it runs: rehearsed tensors, peak memory, and fitting a budget. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "icae/file.h"
#include "icae/json.h"
#include "icae/log.h"
#include "icae/rehearsal.h"
#include "train_support.h"

/* ---- tensors ---- */

typedef struct tape_case {
    const char *base, *level;
    int64_t samples, tokens, rank;
    bool is_checkpointed, is_recording;
    icae_compute compute;
    bool all_targets;
    double dropout;
} tape_case;

static void open_adapter(icae_adapter **adapter, const icae_model *model, icae_backend *be,
                         const tape_case *c) {
    icae_error error = {0};
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = 8;
    settings.rank = c->rank;
    settings.dropout = c->dropout;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++)
        settings.targets[m] |= c->all_targets;
    ck_ok(icae_adapter_create(adapter, model, &settings, 1, be, true, &error));
}

/* A real pass over the batch; returns the most bytes that its tensors held. */
static size_t held_by(icae_backend *be, const icae_model *model, const icae_adapter *adapter,
                      const icae_batch *batch, const tape_case *c) {
    icae_error error = {0};
    icae_graph *graph;
    size_t block = icae_pool_bytes_out(be->pool);
    ck_ok(icae_graph_create(&graph, be, &error));
    icae_graph_begin(graph, c->is_recording, false);
    icae_run run = {.is_training = c->is_recording, .is_checkpointed = c->is_checkpointed};
    icae_tensor *loss = icae_batch_loss(graph, model, adapter, batch, &run, NULL, NULL);
    ck_ok(icae_graph_status(graph, &error));
    if (c->is_recording) ck_ok(icae_graph_backward(graph, loss, &error));
    icae_graph_free(graph);
    return icae_pool_bytes_peak(be->pool) - block;
}

static void check_tape(const tape_case *c, const char *name) {
    icae_error error = {0};
    icae_backend *be;
    icae_model *model;
    icae_adapter *adapter;
    ck_ok(icae_backend_create(&be, c->level, 1, &error));
    icae_backend_set_compute(be, c->compute);
    ck_ok(icae_model_open(&model, c->base, &error));
    open_adapter(&adapter, model, be, c);
    size_t n = (size_t)c->samples;
    int32_t *ids = calloc((size_t)c->tokens + 1, sizeof *ids);
    icae_context *contexts = calloc(n, sizeof *contexts);
    icae_job *jobs = calloc(n, sizeof *jobs);
    ck_assert(ids && contexts && jobs);
    for (int64_t i = 0; i < c->samples; i++) { /* every sample is a token shorter */
        contexts[i] = (icae_context){ids, c->tokens - i, (uint64_t)i};
        jobs[i] = (icae_job){.context = i,
                             .task = ICAE_TASK_AE,
                             .target = ids,
                             .n_target = c->tokens - i + 1,
                             .coef = (icae_real)0.01};
    }
    icae_batch batch = {contexts, c->samples, jobs, c->samples};
    size_t held = held_by(be, model, adapter, &batch, c);
    for (int64_t i = 0; i < c->samples; i++) { /* lengths are all it needs */
        contexts[i].ids = NULL;
        jobs[i].target = NULL;
    }
    icae_footprint rehearsed;
    ck_ok(icae_rehearse(&rehearsed, be, model, adapter, &batch, be->compute, c->is_recording,
                        c->is_checkpointed, &error));
    ck_assert_msg(rehearsed.held_bytes == held, "%s: %zu bytes held, %zu rehearsed", name, held,
                  rehearsed.held_bytes);
    ck_assert_uint_gt(rehearsed.resident_bytes, 0);
    free(ids);
    free(contexts);
    free(jobs);
    icae_adapter_free(adapter);
    icae_model_close(model);
    icae_backend_free(be);
}

START_TEST(a_rehearsal_holds_what_a_step_holds_to_the_byte) {
    static const tape_case cases[] = {
        {"llama", NULL, 1, 40, 4, false, true, ICAE_COMPUTE_F32, false, 0},
        {"llama", NULL, 8, 40, 32, false, true, ICAE_COMPUTE_F32, true, 0.05},
        {"llama", NULL, 3, 200, 4, true, true, ICAE_COMPUTE_F32, true, 0.05},
        {"llama", NULL, 3, 200, 4, true, true, ICAE_COMPUTE_BF16, false, 0},
        {"llama", "portable", 3, 70, 4, false, true, ICAE_COMPUTE_BF16, true, 0},
        {"llama", NULL, 5, 70, 4, false, false, ICAE_COMPUTE_BF16, false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tape_case c = cases[i];
        char name[32], base[128];
        snprintf(name, sizeof name, "case %zu", i);
        snprintf(base, sizeof base, "tests/golden/%s/model", c.base);
        c.base = base;
        check_tape(&c, name);
    }
}
END_TEST

/* ---- the process ---- */

/* Texts that are longer than any context below, so that batches are as large as they can be. */
static const char *long_texts(const char *folder) {
    icae_error error = {0};
    icae_text lines = {0};
    for (int i = 0; i < 40; i++) {
        icae_text_append_string(&lines, "{\"text\": \"");
        for (int w = 0; w < 1200; w++)
            icae_text_printf(&lines, "%s%c%d", w ? " " : "", 'a' + (w * 7 + i) % 26, w % 10);
        icae_text_append_string(&lines, "\"}\n");
    }
    const char *path = test_path(folder, "long.jsonl");
    ck_ok(icae_file_write(path, lines.data, lines.length, &error));
    icae_text_release(&lines);
    return path;
}

/* A config of one step on those texts; `assignments` end with NULL. */
static const char *write_config(const char *folder, const char *base,
                                const char *const *assignments) {
    icae_error error = {0};
    icae_settings settings;
    icae_text text = {0};
    char train[800], heldout[800], from[800];
    const char *path = long_texts(folder);
    tiny_settings(&settings, test_path(folder, "run"), NULL);
    snprintf(train, sizeof train, "data.train=%s", path);
    snprintf(heldout, sizeof heldout, "data.heldout=%s", path);
    snprintf(from, sizeof from, "base=%s", base);
    ck_ok(icae_settings_set(&settings, train, &error));
    ck_ok(icae_settings_set(&settings, heldout, &error));
    ck_ok(icae_settings_set(&settings, from, &error));
    ck_ok(icae_settings_set(&settings, "train.steps=2", &error));
    ck_ok(icae_settings_set(&settings, "checkpoint.every=1", &error));
    for (; *assignments; assignments++)
        ck_ok(icae_settings_set(&settings, *assignments, &error));
    icae_settings_write(&settings, &text);
    ck_ok(icae_file_write(test_path(folder, "config.json"), text.data, text.length, &error));
    icae_text_release(&text);
    icae_settings_release(&settings);
    return folder;
}

static double number_of(const icae_json_value *object, const char *key) {
    double number = 0;
    ck_assert_msg(icae_json_as_number(icae_json_member(object, key), &number), "no %s", key);
    return number;
}

static void check_peak(const char *base, const char *name, const char *const *assignments) {
    icae_error error = {0};
    const char *folder = write_config(test_folder(name), base, assignments);
    outcome o = run_in(folder, "%s/icae-pretrain %s/config.json -q --json", test_build_folder(),
                       folder);
    ck_assert_msg(o.code == 0, "%s: %s", name, o.err);
    icae_json *json;
    ck_ok(icae_json_parse(&json, "stdout", o.out, strlen(o.out), &error));
    const icae_json_value *root = icae_json_root(json);
    double predicted = number_of(icae_json_member(root, "plan"), "predicted_peak_bytes");
    double used = number_of(root, "peak_rss_bytes");
    icae_json_free(json);
    /* Pages of libraries and of a second thread's heap differ from run to run by more than a tenth of so little. */
    const double spread = 3e6, most = fmax(0.1 * used, spread);
    ck_assert_msg(fabs(predicted - used) < most, "%s: %.1f MB used, %.1f predicted", name,
                  used / 1e6, predicted / 1e6);
}

#if defined(__SANITIZE_ADDRESS__)
enum { IS_INSTRUMENTED = 1 }; /* its shadow is memory too */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { IS_INSTRUMENTED = 1 };
#else
enum { IS_INSTRUMENTED = 0 };
#endif
#else
enum { IS_INSTRUMENTED = 0 };
#endif

#define SHAPE(...)                                                                             \
    { "data.shuffle_documents=4", __VA_ARGS__, NULL }

START_TEST(memory_is_predicted_within_a_tenth) {
    if (IS_INSTRUMENTED) return;
    static const char *const shapes[][12] = {
        SHAPE("adapter.memory_slots=64", "train.batch=64", "objective.lm_ratio=0"),
        SHAPE("adapter.memory_slots=64", "train.batch=64", "train.checkpointing=true",
              "objective.lm_ratio=0",
              "adapter.targets=[\"q_proj\", \"gate_proj\", \"down_proj\"]"),
        SHAPE("adapter.memory_slots=4", "train.batch=512", "train.compute=bf16",
              "objective.lm_ratio=0"),
        SHAPE("adapter.memory_slots=64", "objective.kind=both", "train.batch=32",
              "train.micro_batch=8", "adapter.rank=64"),
        SHAPE("adapter.memory_slots=256", "train.batch=1", "adapter.rank=256",
              "objective.lm_ratio=0"),
        /* planned by the continuations, filled by texts that are only restored */
        SHAPE("adapter.memory_slots=16", "objective.lm_ratio=0.001",
              "objective.continuation_tokens=320", "train.batch=64", "evaluate.samples=4"),
        /* most of it for the caches of passages of sixteen spans each, as many slots as tokens */
        SHAPE("adapter.memory_slots=32", "adapter.compression_rate=1",
              "objective.context_tokens=512", "objective.lm_ratio=0", "train.batch=1",
              "train.checkpointing=true", "evaluate.samples=40",
              "evaluate.reconstruct_samples=40", "evaluate.reconstruct_tokens=0"),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char name[32];
        snprintf(name, sizeof name, "plan-%zu", i);
        check_peak(TINY_BASE, name, shapes[i]);
    }
}
END_TEST

START_TEST(memory_of_the_demo_s_base_is_predicted_within_a_tenth) {
    const char *base = test_base_model();
    if (!base || IS_INSTRUMENTED || ICAE_REAL_IS_DOUBLE) return;
    static const char *const shapes[][12] = {
        SHAPE("adapter.memory_slots=32", "train.batch=1", "objective.lm_ratio=0",
              "train.threads=2"),
        SHAPE("adapter.memory_slots=8", "train.batch=8", "train.checkpointing=true",
              "objective.lm_ratio=0", "adapter.rank=32",
              "adapter.targets=[\"q_proj\", \"o_proj\", \"up_proj\"]"),
        SHAPE("adapter.memory_slots=8", "train.batch=8", "train.compute=bf16",
              "objective.lm_ratio=0"),
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char name[32];
        snprintf(name, sizeof name, "plan-base-%zu", i);
        check_peak(base, name, shapes[i]);
    }
}
END_TEST

/* ---- budgets ---- */

/* The plan of a dry run with these settings. */
static icae_status plan_with(const char *const *assignments, const char *more,
                             icae_settings *settings, icae_plan *plan, icae_error *error) {
    icae_train_options options = {.is_dry_run = true};
    icae_train_report report;
    icae_log_set_level(ICAE_LOG_QUIET);
    tiny_settings(settings, "nowhere", assignments);
    settings->given = 0; /* only what follows was asked for */
    if (more) ck_assert_int_eq(icae_settings_set(settings, more, error), ICAE_OK);
    icae_status status = icae_train(settings, &options, &report, error);
    *plan = report.plan;
    return status;
}

static const char *const budget_base[] = {
    "adapter.memory_slots=8",   "train.batch=24",
    "objective.lm_ratio=0",     "data.train=data/samples/excerpts.jsonl",
    "data.shuffle_documents=4", NULL};

START_TEST(a_budget_is_met_at_the_least_cost) {
    icae_error error = {0};
    icae_settings settings;
    icae_plan plan, whole, one;
    ck_ok(plan_with(budget_base, NULL, &settings, &whole, &error));
    icae_settings_release(&settings);
    ck_ok(plan_with(budget_base, "train.micro_batch=1", &settings, &one, &error));
    icae_settings_release(&settings);
    /* from more than enough down to what only recomputation meets */
    int64_t micro = 25, steps_down = 0;
    bool was_checkpointed = false;
    for (double share = 1.05; share > 0; share -= 0.05) {
        char budget[64];
        double bytes =
            (double)one.peak_bytes + share * (double)(whole.peak_bytes - one.peak_bytes);
        snprintf(budget, sizeof budget, "memory_budget=%.0f", bytes);
        ck_ok(plan_with(budget_base, budget, &settings, &plan, &error));
        ck_assert_uint_le(plan.peak_bytes, (size_t)bytes);
        int64_t now = settings.train.micro_batch ? settings.train.micro_batch : 24;
        ck_assert(!settings.train.checkpointing);
        ck_assert_int_le(now, micro);
        steps_down += now < micro;
        micro = now;
        icae_settings_release(&settings);
    }
    ck_assert_int_gt(steps_down, 4);
    char budget[64];
    snprintf(budget, sizeof budget, "memory_budget=%zu", one.peak_bytes - 4096);
    ck_ok(plan_with(budget_base, budget, &settings, &plan, &error));
    was_checkpointed = settings.train.checkpointing;
    ck_assert(was_checkpointed);
    ck_assert_uint_lt(plan.peak_bytes, one.peak_bytes);
    icae_settings_release(&settings);
}
END_TEST

START_TEST(a_budget_that_nothing_meets_is_refused_with_the_least_that_would_do) {
    icae_error error = {0};
    icae_settings settings;
    icae_plan plan, least;
    ck_assert_int_ne(plan_with(budget_base, "memory_budget=2 MB", &settings, &plan, &error),
                     ICAE_OK);
    ck_assert_ptr_nonnull(strstr(error.message, "memory_budget: 0.00 GB is too little"));
    ck_assert_ptr_nonnull(strstr(error.message, "train.micro_batch 1 and train.checkpointing "
                                                "true"));
    least = plan;
    icae_settings_release(&settings);
    char budget[64];
    snprintf(budget, sizeof budget, "memory_budget=%zu", least.peak_bytes);
    ck_ok(plan_with(budget_base, budget, &settings, &plan, &error));
    ck_assert_int_eq(settings.train.micro_batch, 1);
    icae_settings_release(&settings);
    snprintf(budget, sizeof budget, "memory_budget=%zu", least.peak_bytes - 1);
    ck_assert_int_ne(plan_with(budget_base, budget, &settings, &plan, &error), ICAE_OK);
    icae_settings_release(&settings);
}
END_TEST

START_TEST(a_resumed_run_keeps_what_its_budget_led_to) {
    icae_error error = {0};
    const char *folder = test_folder("plan-resume");
    const char *out = test_path(folder, "run");
    icae_settings settings;
    icae_plan whole, one;
    ck_ok(plan_with(budget_base, NULL, &settings, &whole, &error));
    icae_settings_release(&settings);
    ck_ok(plan_with(budget_base, "train.micro_batch=1", &settings, &one, &error));
    icae_settings_release(&settings);
    const size_t middle = (one.peak_bytes + whole.peak_bytes) / 2;
    /* another one; none; and none where the run's own config.json has none any more */
    const size_t budgets[] = {middle, 2 * whole.peak_bytes, 0, 0};
    enum { LAST = 3 };
    int64_t chosen = 0;
    for (int i = 0; i <= LAST; i++) {
        char budget[64];
        icae_train_options options = {.is_resuming = i > 0, .stop_at = i < LAST ? i + 1 : 0};
        icae_train_report report;
        tiny_settings(&settings, out, budget_base);
        settings.given = 0;
        snprintf(budget, sizeof budget, "memory_budget=%zu", budgets[i]);
        ck_ok(icae_settings_set(&settings, budget, &error));
        icae_status status = icae_train(&settings, &options, &report, &error);
        ck_assert_msg(status == (i < LAST ? ICAE_INTERRUPTED : ICAE_OK), "%s", error.message);
        if (!i) chosen = settings.train.micro_batch;
        ck_assert_int_eq(settings.train.micro_batch, chosen);
        icae_settings_release(&settings);
    }
    ck_assert(chosen > 0 && chosen < 24);
    /* A run of its own with the larger budget would have taken the whole batch. */
    char *config = slurp(test_path(out, "config.json"), NULL), line[64];
    snprintf(line, sizeof line, "\"micro_batch\": %lld,", (long long)chosen);
    ck_assert_ptr_nonnull(strstr(config, line));
    free(config);
}
END_TEST

SUITE_OF(plan, 240, a_rehearsal_holds_what_a_step_holds_to_the_byte,
         memory_is_predicted_within_a_tenth,
         memory_of_the_demo_s_base_is_predicted_within_a_tenth,
         a_budget_is_met_at_the_least_cost,
         a_budget_that_nothing_meets_is_refused_with_the_least_that_would_do,
         a_resumed_run_keeps_what_its_budget_led_to)
