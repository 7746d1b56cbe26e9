/* SPDX-License-Identifier: MIT */
/* The pieces of work that faults.c disturbs; see scenarios.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/exchange.h"
#include "icae/file.h"
#include "icae/rehearsal.h"
#include "icae/slots.h"
#include "icae/trainer.h"
#include "scenarios.h"
#include "tiny_run.h"

#define BASE    "tests/golden/llama/model"
#define ADAPTER "tests/golden/llama/adapter"

const char scenario_adapter[] = ADAPTER;

static const char text_of_test[] =
    "The library opens at nine on weekdays, at ten on Saturdays.";

static const char *at(const scenario_state *state, const char *name) {
    static char ring[4][4096];
    static unsigned next;
    char *path = ring[next++ % 4];
    snprintf(path, sizeof ring[0], "%s/%s", state->folder, name);
    return path;
}

icae_status scenario_expect(bool condition, const char *what, icae_error *error) {
    return condition ? ICAE_OK : icae_fail(error, ICAE_INVALID, "%s", what);
}

/* ---- one file ---- */

static icae_status write_old_file(scenario_state *state, icae_error *error) {
    return icae_file_write(at(state, "file"), "old", 3, error);
}

static icae_status write_new_file(scenario_state *state, icae_error *error) {
    return icae_file_write(at(state, "file"), "brand new", 9, error);
}

/* Whole, old or new; new where that was said. */
static icae_status check_file(scenario_state *state, icae_status status, icae_error *error) {
    char *data;
    icae_status read = icae_file_read(at(state, "file"), 100, &data, NULL, error);
    if (read) return read;
    bool is_new = !strcmp(data, "brand new"), is_old = !strcmp(data, "old");
    free(data);
    return scenario_expect(status ? is_old || is_new : is_new,
                           "the file is neither old nor new", error);
}

static icae_status append_record(scenario_state *state, icae_error *error) {
    return icae_file_append(at(state, "file"), " and more\n", 10, error);
}

static icae_status check_record(scenario_state *state, icae_status status, icae_error *error) {
    char *data;
    icae_status read = icae_file_read(at(state, "file"), 100, &data, NULL, error);
    if (read) return read;
    bool is_there = !strncmp(data, "old", 3), is_whole = !strcmp(data, "old and more\n");
    free(data);
    return scenario_expect(status ? is_there : is_whole, "the log lost a record", error);
}

/* ---- adapters ---- */

static icae_status forget_adapter(scenario_state *state, icae_error *error) {
    return icae_folder_remove(at(state, "adapter"), error);
}

static icae_status save_first(scenario_state *state, icae_error *error) {
    return icae_adapter_save(state->adapters[0], at(state, "adapter"), state->model, error);
}

static icae_status save_second(scenario_state *state, icae_error *error) {
    return icae_adapter_save(state->adapters[1], at(state, "adapter"), state->model, error);
}

/* An adapter that another file lies beside is replaced file by file. */
static icae_status save_with_company(scenario_state *state, icae_error *error) {
    icae_status status = save_first(state, error);
    return status ? status : icae_file_write(at(state, "adapter/notes"), "mine", 4, error);
}

/* *which: of the two, -1 when there is none to be loaded. */
static icae_status load_saved(scenario_state *state, int *which, icae_error *error) {
    *which = -1;
    icae_adapter *loaded;
    icae_status status =
        icae_adapter_load(&loaded, at(state, "adapter"), state->model, state->be, false, error);
    if (status) return status;
    for (int i = 0; i < 2; i++) {
        if (loaded->fingerprint == icae_adapter_hash(state->adapters[i])) *which = i;
    }
    icae_adapter_free(loaded);
    return scenario_expect(*which >= 0, "the adapter is neither of the two", error);
}

static icae_status check_fresh_adapter(scenario_state *state, icae_status status,
                                       icae_error *error) {
    if (status && !icae_path_exists(at(state, "adapter"))) return ICAE_OK;
    int which;
    icae_status loaded = load_saved(state, &which, error);
    return loaded ? loaded : scenario_expect(which == 0, "another adapter", error);
}

static icae_status check_second_adapter(scenario_state *state, icae_status status,
                                        icae_error *error) {
    int which;
    icae_status loaded = load_saved(state, &which, error);
    return loaded ? loaded : scenario_expect(status || which == 1, "the old adapter", error);
}

/* Between the renames a mixture may stand there; it must be refused, never taken. */
static icae_status check_mixed_adapter(scenario_state *state, icae_status status,
                                       icae_error *error) {
    int which;
    icae_error reason = {0};
    icae_status loaded = load_saved(state, &which, &reason);
    if (loaded && status) return ICAE_OK;
    if (loaded) return icae_fail(error, loaded, "%s", reason.message);
    return scenario_expect(status || which == 1, "the old adapter", error);
}

static icae_status load_adapter(scenario_state *state, icae_error *error) {
    icae_backend *be; /* of its own, as a pool keeps what it was given back */
    icae_adapter *adapter = NULL;
    icae_status status = icae_backend_create(&be, NULL, 1, error);
    if (!status) status = icae_adapter_load(&adapter, ADAPTER, state->model, be, true, error);
    icae_adapter_free(adapter);
    icae_backend_free(be);
    return status;
}

static icae_status export_adapter(scenario_state *state, icae_error *error) {
    return icae_adapter_export_gguf(state->adapters[0], at(state, "adapter.gguf"), state->model,
                                    ICAE_DTYPE_F16, error);
}

static icae_status forget_export(scenario_state *state, icae_error *error) {
    icae_status status = icae_folder_remove(at(state, "adapter.gguf"), error);
    if (!status) status = icae_folder_remove(at(state, "adapter.memory.safetensors"), error);
    return status;
}

static icae_status check_export(scenario_state *state, icae_status status, icae_error *error) {
    if (status) return ICAE_OK; /* the next check is of what is there in the end */
    return scenario_expect(icae_file_bytes(at(state, "adapter.gguf")) > 1000, "no file", error);
}

/* ---- checkpoints ---- */

static icae_status save_step(scenario_state *state, int64_t step, icae_error *error) {
    state->run.step = step;
    return icae_checkpoint_save(at(state, "run"), state->adapters[step % 2], state->model,
                                &state->run, 1, error);
}

static icae_status begin_run(scenario_state *state, icae_error *error) {
    icae_status status = icae_folder_remove(at(state, "run"), error);
    return status ? status : save_step(state, 1, error);
}

static icae_status save_checkpoint(scenario_state *state, icae_error *error) {
    return save_step(state, 2, error);
}

static icae_status load_newest(scenario_state *state, int64_t *step, icae_error *error) {
    char *path;
    icae_run_state loaded = {0};
    icae_status status = icae_checkpoint_newest(at(state, "run"), &path, error);
    if (!status) status = icae_checkpoint_load(path, state->adapters[0], &loaded, error);
    *step = loaded.step;
    icae_run_state_release(&loaded);
    free(path);
    return status;
}

static icae_status check_checkpoint(scenario_state *state, icae_status status,
                                    icae_error *error) {
    int64_t step;
    icae_status loaded = load_newest(state, &step, error);
    if (loaded) return loaded;
    return scenario_expect(status ? step == 1 || step == 2 : step == 2,
                           "not the checkpoint saved", error);
}

static icae_status load_checkpoint(scenario_state *state, icae_error *error) {
    int64_t step;
    icae_status status = load_newest(state, &step, error);
    return status ? status : scenario_expect(step == 1, "another checkpoint", error);
}

/* ---- models, compressing, asking ---- */

static icae_status open_model(scenario_state *state, icae_error *error) {
    (void)state;
    icae_model *model = NULL;
    icae_status status = icae_model_open(&model, BASE, error);
    if (!status) icae_model_close(model);
    return status;
}

/* Every scenario opens its own: a session keeps what it has grown to. */
static icae_status begin_session(scenario_state *state, icae_session **session,
                                 icae_error *error) {
    const icae_session_options one = {.n_threads = 1};
    *session = NULL;
    return icae_session_open(session, state->base, ADAPTER, &one, error);
}

static icae_status open_session(scenario_state *state, icae_error *error) {
    icae_session *session;
    icae_status status = begin_session(state, &session, error);
    icae_session_close(session);
    return status;
}

static icae_status compress(scenario_state *state, icae_error *error) {
    icae_slots *slots = NULL;
    icae_session *session;
    icae_status status = begin_session(state, &session, error);
    if (!status) {
        status = icae_session_compress(session, text_of_test, sizeof text_of_test - 1, &slots,
                                       error);
    }
    if (!status) status = icae_slots_save(slots, at(state, "text.slots"), error);
    icae_slots_free(slots);
    icae_session_close(session);
    return status;
}

static icae_status forget_slots(scenario_state *state, icae_error *error) {
    return icae_folder_remove(at(state, "text.slots"), error);
}

static icae_status check_slots(scenario_state *state, icae_status status, icae_error *error) {
    if (status && !icae_path_exists(at(state, "text.slots"))) return ICAE_OK;
    icae_slots *slots = NULL;
    icae_status loaded =
        icae_session_load_slots(state->session, at(state, "text.slots"), &slots, error);
    icae_slots_free(slots);
    return loaded;
}

static icae_status load_slots(scenario_state *state, icae_error *error) {
    icae_slots *slots = NULL;
    icae_session *session;
    icae_status status = begin_session(state, &session, error);
    if (!status)
        status = icae_session_load_slots(session, at(state, "kept.slots"), &slots, error);
    icae_slots_free(slots);
    icae_session_close(session);
    return status;
}

static icae_status ask(scenario_state *state, icae_error *error) {
    const icae_generation what = {.mode = ICAE_ASK, .prompt = "When?", .max_tokens = 6};
    icae_generated result = {0};
    icae_session *session;
    icae_status status = begin_session(state, &session, error);
    if (!status) {
        status =
            icae_session_generate(session, state->slots, &what, NULL, NULL, &result, error);
    }
    icae_generated_release(&result);
    icae_session_close(session);
    return status;
}

/* One step, forward and backward, whole and checkpointed, in either arithmetic. Rehearsed: all of its
 * allocations, none of its products, so that every single one can fail. */
static icae_status rehearse(scenario_state *state, icae_error *error) {
    const icae_context context = {.n = 7};
    const icae_job jobs[] = {{.task = ICAE_TASK_AE, .n_target = 7, .coef = 1},
                             {.task = ICAE_TASK_LM, .n_target = 5, .coef = 1}};
    const icae_batch batch = {&context, 1, jobs, 2};
    icae_status status = ICAE_OK;
    for (int way = 0; way < 4 && !status; way++) {
        icae_footprint footprint;
        status =
            icae_rehearse(&footprint, state->be, state->model, state->adapters[0], &batch,
                          way & 1 ? ICAE_COMPUTE_BF16 : ICAE_COMPUTE_F32, true, way & 2, error);
    }
    return status;
}

/* ---- training ---- */

static const char *const short_run[] = {
    "train.steps=3",         "checkpoint.every=2", "evaluate.every=2",    "evaluate.samples=2",
    "data.prefetch_steps=0", "train.batch=2",      "train.micro_batch=1", NULL};
static const char *const ahead_run[] = {
    "train.steps=3",         "checkpoint.every=2", "evaluate.every=0",    "evaluate.samples=0",
    "data.prefetch_steps=2", "train.batch=2",      "train.micro_batch=1", NULL};

static icae_status train(scenario_state *state, const char *const *assignments,
                         bool is_resuming, int64_t stop_at, icae_error *error) {
    icae_settings settings = {0};
    icae_train_report report;
    const icae_train_options options = {.is_resuming = is_resuming, .stop_at = stop_at};
    icae_status status = tiny_run_settings(&settings, at(state, "train"), assignments, error);
    if (!status) status = icae_train(&settings, &options, &report, error);
    icae_settings_release(&settings);
    return status;
}

static icae_status forget_training(scenario_state *state, icae_error *error) {
    return icae_folder_remove(at(state, "train"), error);
}

static icae_status train_afresh(scenario_state *state, icae_error *error) {
    return train(state, short_run, false, 0, error);
}

static icae_status train_ahead(scenario_state *state, icae_error *error) {
    return train(state, ahead_run, false, 0, error);
}

static icae_status stop_training(scenario_state *state, icae_error *error) {
    icae_status status = forget_training(state, error);
    if (status) return status;
    status = train(state, short_run, false, 2, error);
    return status == ICAE_INTERRUPTED ? ICAE_OK : ICAE_INVALID;
}

static icae_status resume_training(scenario_state *state, icae_error *error) {
    return train(state, short_run, true, 0, error);
}

/* The result is what an undisturbed run gives; one that was disturbed goes on to it. */
static icae_status check_training(scenario_state *state, icae_status status,
                                  icae_error *error) {
    icae_status again = ICAE_OK;
    if (status) {
        bool has_any = false;
        again = icae_checkpoint_any(at(state, "train"), &has_any, error);
        if (!again) again = train(state, short_run, has_any, 0, error);
    }
    char *data = NULL;
    size_t bytes;
    if (!again) {
        again = icae_file_read(at(state, "train/adapter/adapter_model.safetensors"), 1 << 24,
                               &data, &bytes, error);
    }
    if (!again && !state->reference) { /* the first run, in peace */
        state->reference = data;
        state->reference_bytes = bytes;
        return ICAE_OK;
    }
    if (!again && (bytes != state->reference_bytes || memcmp(data, state->reference, bytes)))
        again = icae_fail(error, ICAE_INVALID, "another adapter than the undisturbed run's");
    free(data);
    return again;
}

/* ---- the table ---- */

const scenario scenarios[] = {
    {"write a file", true, write_old_file, write_new_file, check_file},
    {"append to a log", true, write_old_file, append_record, check_record},
    {"save an adapter", true, forget_adapter, save_first, check_fresh_adapter},
    {"replace an adapter", true, save_first, save_second, check_second_adapter},
    {"replace its files", true, save_with_company, save_second, check_mixed_adapter},
    {"export to gguf", true, forget_export, export_adapter, check_export},
    {"save a checkpoint", true, begin_run, save_checkpoint, check_checkpoint},
    {"load a checkpoint", false, begin_run, load_checkpoint, NULL},
    {"load an adapter", false, NULL, load_adapter, NULL},
    {"open a base", false, NULL, open_model, NULL},
    {"open a session", false, NULL, open_session, NULL},
    {"compress", false, forget_slots, compress, check_slots},
    {"load slots", false, NULL, load_slots, NULL},
    {"ask", false, NULL, ask, NULL},
    {"rehearse a step", true, NULL, rehearse, NULL},
    {.name = NULL},
};

const scenario training_scenarios[] = {
    {"train", false, forget_training, train_afresh, check_training},
    {"resume", false, stop_training, resume_training, check_training},
    {"train with prefetch", false, forget_training, train_ahead, NULL},
    {.name = NULL},
};

/* ---- what they share ---- */

const char *scenario_path(const scenario_state *state, const char *name) {
    return at(state, name);
}

static icae_status open_adapters(scenario_state *state, icae_error *error) {
    icae_adapter_settings settings = icae_adapter_defaults(state->model);
    settings.memory_slots = 4;
    settings.rank = 2;
    icae_status status = ICAE_OK;
    for (uint64_t i = 0; i < 2 && !status; i++) {
        status = icae_adapter_create(&state->adapters[i], state->model, &settings, i + 1,
                                     state->be, true, error);
    }
    return status;
}

icae_status scenario_open(scenario_state *state, const char *folder, icae_error *error) {
    *state = (scenario_state){.run = {.feed_json = "{\"place\": 1}"}};
    snprintf(state->folder, sizeof state->folder, "%s", folder);
    const icae_session_options one = {.n_threads = 1};
    icae_status status = icae_backend_create(&state->be, NULL, 1, error);
    if (!status) status = icae_model_open(&state->model, BASE, error);
    if (!status) status = open_adapters(state, error);
    if (!status) status = icae_base_open(&state->base, BASE, error);
    if (!status) status = icae_session_open(&state->session, state->base, ADAPTER, &one, error);
    if (!status) {
        status = icae_session_compress(state->session, text_of_test, sizeof text_of_test - 1,
                                       &state->slots, error);
    }
    if (!status) status = icae_slots_save(state->slots, at(state, "kept.slots"), error);
    return status;
}

void scenario_close(scenario_state *state) {
    exchange_scenarios_close();
    run_scenarios_close();
    free(state->reference);
    icae_slots_free(state->slots);
    icae_session_close(state->session);
    icae_base_close(state->base);
    icae_adapter_free(state->adapters[0]);
    icae_adapter_free(state->adapters[1]);
    icae_model_close(state->model);
    icae_backend_free(state->be);
}
