/* SPDX-License-Identifier: MIT */
/*
 * The parts of a training run by themselves, so that each of their calls can fail and not only as many as
 * there is time for among the thousands of a whole run. See scenarios.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "learn/trainer_internal.h"
#include "scenarios.h"
#include "tiny_run.h"

static const char *const small_steps[] = {"train.batch=2",
                                          "train.micro_batch=1",
                                          "data.prefetch_steps=0",
                                          "adapter.slot_values=residual",
                                          "adapter.memory_inputs=pooled",
                                          NULL};

static void close_parts(trainer *t) {
    icae_feed_close(t->feed);
    icae_graph_free(t->graph);
    icae_adapter_free(t->adapter);
    icae_backend_free(t->be);
    icae_text_release(&t->pending);
    icae_settings_release(t->settings);
    free(t->feed_json);
}

/* What a step needs, on the base that is open already. */
static icae_status open_parts(const scenario_state *state, trainer *t, icae_settings *settings,
                              icae_error *error) {
    *t = (trainer){.settings = settings, .model = state->model, .folder = {.lock = -1}};
    *settings = (icae_settings){0};
    icae_adapter_settings shape;
    icae_status status =
        tiny_run_settings(settings, scenario_path(state, "parts"), small_steps, error);
    if (!status) status = icae_settings_check(settings, error);
    if (!status) status = icae_settings_adapter(settings, state->model, &shape, error);
    if (!status) status = icae_backend_create(&t->be, NULL, 1, error);
    if (!status)
        status = icae_adapter_create(&t->adapter, t->model, &shape, 1, t->be, true, error);
    if (!status) status = icae_graph_create(&t->graph, t->be, error);
    if (status) return status;
    icae_feed_settings options = icae_trainer_feed_settings(settings);
    options.paths = settings->data.train.list;
    options.n_paths = settings->data.train.count;
    t->optimizer = (icae_optimizer){.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip_norm = 1};
    return icae_feed_open(&t->feed, &options, t->model->tokenizer, &t->adapter->settings,
                          error);
}

static icae_status take_steps(scenario_state *state, icae_error *error) {
    trainer t;
    icae_settings settings;
    step_result result;
    icae_status status = open_parts(state, &t, &settings, error);
    for (int i = 0; i < 2 && !status; i++)
        status = icae_trainer_step(&t, &result, error);
    close_parts(&t);
    return status;
}

/* ---- going on in the data ---- */

static icae_json *position; /* of a feed after its first step; lives as long as the process */

static icae_status keep_position(scenario_state *state, icae_error *error) {
    if (position) return ICAE_OK;
    trainer t;
    icae_settings settings;
    step_result result;
    icae_status status = open_parts(state, &t, &settings, error);
    if (!status) status = icae_trainer_step(&t, &result, error);
    if (!status)
        status =
            icae_json_parse(&position, "position", t.feed_json, strlen(t.feed_json), error);
    close_parts(&t);
    return status;
}

static icae_status go_on(scenario_state *state, icae_error *error) {
    trainer t;
    icae_settings settings;
    icae_feed_step *step = NULL;
    icae_status status = open_parts(state, &t, &settings, error);
    if (!status) status = icae_feed_restore(t.feed, position, icae_json_root(position), error);
    if (!status) status = icae_feed_next(t.feed, 2, &step, error);
    if (step) icae_feed_step_free(step);
    close_parts(&t);
    return status;
}

/* ---- samples of a step without an update ---- */

static trainer skipping; /* with the folder and the step that is left out */
static icae_settings skipping_settings;
static icae_feed_step *left_out;

static icae_status keep_left_out(scenario_state *state, icae_error *error) {
    static char folder[4096];
    icae_status status = ICAE_OK;
    if (!left_out) {
        status = open_parts(state, &skipping, &skipping_settings, error);
        if (!status) status = icae_feed_next(skipping.feed, 2, &left_out, error);
        if (status) return status;
        strncpy(folder, scenario_path(state, "skipped"), sizeof folder - 1);
        skipping.folder.skipped = folder;
    }
    return icae_folder_remove(folder, error);
}

static icae_status write_left_out(scenario_state *state, icae_error *error) {
    static const double losses[16] = {7.25};
    const step_result result = {.loss = (double)NAN};
    (void)state;
    return icae_skipped_write(&skipping, &left_out->batch, losses, &result, error);
}

static icae_status check_left_out(scenario_state *state, icae_status status,
                                  icae_error *error) {
    int64_t bytes = icae_file_bytes(scenario_path(state, "skipped/step-0.jsonl"));
    static int64_t all; /* of the first run, in peace */
    if (!status && !all) all = bytes;
    return scenario_expect(bytes == all || (status && bytes < 0), "half a file", error);
}

/* ---- the folder ---- */

/* With what a killed run left, and what is somebody else's. */
static icae_status litter(scenario_state *state, icae_error *error) {
    static const char *const files[] = {"run/.config.json.tmp-123", "run/notes",
                                        "run/.adapter.tmp-77/x", "run/adapter/.icae.tmp-5/x",
                                        "run/checkpoints/.tmp-step-9/x"};
    static const char *const folders[] = {"run/.adapter.tmp-77", "run/adapter/.icae.tmp-5",
                                          "run/checkpoints/.tmp-step-9"};
    icae_status status = ICAE_OK;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0] && !status; i++)
        status = icae_folder_make(scenario_path(state, folders[i]), error);
    for (size_t i = 0; i < sizeof files / sizeof files[0] && !status; i++)
        status = icae_file_write(scenario_path(state, files[i]), "x", 1, error);
    return status;
}

static icae_status tidy(scenario_state *state, icae_error *error) {
    icae_run_folder folder;
    icae_status status = icae_run_folder_open(&folder, scenario_path(state, "run"), error);
    if (!status) status = icae_file_append(folder.metrics, "{}\n{}\n", 6, error);
    if (!status) status = icae_run_folder_cut_metrics(&folder, 3, error);
    icae_run_folder_close(&folder);
    return status;
}

static icae_status check_tidied(scenario_state *state, icae_status status, icae_error *error) {
    if (icae_file_bytes(scenario_path(state, "run/notes")) != 1)
        return icae_fail(error, ICAE_INVALID, "a file of somebody else's is gone");
    if (status) return ICAE_OK;
    return scenario_expect(
        !icae_path_exists(scenario_path(state, "run/.config.json.tmp-123")) &&
            !icae_path_exists(scenario_path(state, "run/.adapter.tmp-77")) &&
            !icae_path_exists(scenario_path(state, "run/adapter/.icae.tmp-5")) &&
            !icae_path_exists(scenario_path(state, "run/checkpoints/.tmp-step-9")) &&
            icae_file_bytes(scenario_path(state, "run/metrics.jsonl")) == 3,
        "something was left", error);
}

void run_scenarios_close(void) {
    icae_json_free(position);
    if (!left_out) return;
    icae_feed_step_free(left_out);
    close_parts(&skipping);
}

const scenario run_scenarios[] = {
    {"take two steps", true, NULL, take_steps, NULL},
    {"go on in the data", true, keep_position, go_on, NULL},
    {"keep a lost step", true, keep_left_out, write_left_out, check_left_out},
    {"open a run's folder", true, litter, tidy, check_tidied},
    {.name = NULL},
};
