/* SPDX-License-Identifier: MIT */
/*
 * The life of a training run: open everything, go on from a checkpoint or start, loop, close.
 *
 * The order inside the loop is what makes a resumed run equal to one that was never stopped: step,
 * record, checkpoint, evaluation. A checkpoint knows the length of metrics.jsonl before the evaluation
 * that may follow it; a resumed run cuts the file there and begins with that evaluation if it is due.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "icae/corpus.h"
#include "icae/file.h"
#include "icae/log.h"
#include "icae/rng.h"
#include "learn/trainer_internal.h"

icae_feed_settings icae_trainer_feed_settings(const icae_settings *s) {
    return (icae_feed_settings){
        .text_field = s->data.text_field,
        .objective = (icae_objective)s->objective.kind,
        .lm_ratio = s->objective.lm_ratio,
        .has_ae = s->objective.ae_share > 0,
        .context_tokens = icae_settings_context(s),
        .first_context = s->objective.first_context,
        .grow_samples = s->objective.grow_steps * s->train.batch,
        .least_context = s->objective.least_context,
        .continuation_tokens = icae_settings_continuation(s),
        .least_continuation = s->objective.least_continuation,
        .skip_for_lm = s->objective.skip_for_lm,
        .prompt_tokens = s->objective.prompt_tokens,
        .answer_tokens = s->objective.answer_tokens,
        .seed = (uint64_t)s->train.seed,
        .shuffle_documents = s->data.shuffle_documents,
        .is_strict = s->data.strict,
        .is_endless = true,
        .prefetch_steps = s->data.prefetch_steps,
    };
}

/* ---- opening ---- */

static icae_status open_adapter(trainer *t, icae_error *error) {
    icae_settings *s = t->settings;
    icae_status status;
    if (*s->adapter.start) {
        status = icae_adapter_load(&t->adapter, s->adapter.start, t->model, t->be, true, error);
        if (!status) status = icae_settings_adopt(s, t->model, &t->adapter->settings, error);
        if (!status) t->adapter->lora.dropout = t->adapter->settings.dropout;
    } else {
        icae_adapter_settings fresh;
        status = icae_settings_adapter(s, t->model, &fresh, error);
        if (!status) {
            status = icae_adapter_create(&t->adapter, t->model, &fresh, (uint64_t)s->train.seed,
                                         t->be, true, error);
        }
    }
    if (!status) status = icae_settings_complete(s, &t->adapter->settings, error);
    return status;
}

/* The settings say from here on what is used, so that a resumed run is held to it. */
static icae_status open_backend(trainer *t, icae_error *error) {
    icae_settings *s = t->settings;
    icae_status status = icae_backend_create(&t->be, NULL, (int)s->train.threads, error);
    if (status) return status;
    icae_backend_set_compute(t->be, (icae_compute)s->train.compute);
    s->train.compute = (int)t->be->compute;
    return ICAE_OK;
}

/* What the next checkpoint says about where it was made. */
static void describe_machine(trainer *t) {
    t->state.settings_hash = icae_settings_hash(t->settings, false);
    t->state.base_fingerprint = t->model->fingerprint;
    t->state.threads = t->be->n_threads;
    snprintf(t->state.kernels, sizeof t->state.kernels, "%s", t->be->name);
}

static icae_status open_parts(trainer *t, icae_error *error) {
    const icae_settings *s = t->settings;
    icae_status status = open_backend(t, error);
    if (!status) status = icae_model_open(&t->model, s->base, error);
    if (!status && (!t->model->tokenizer || icae_tokenizer_eos(t->model->tokenizer) < 0)) {
        status = icae_fail(error, ICAE_UNSUPPORTED,
                           "%s: its tokenizer has no end-of-text token, which training needs",
                           s->base);
    }
    if (!status) status = open_adapter(t, error);
    if (!status) status = icae_graph_create(&t->graph, t->be, error);
    if (!status)
        status =
            icae_plan_fit(&t->report->plan, t->settings, t->be, t->model, t->adapter, error);
    if (status) return status;
    t->optimizer = (icae_optimizer){.beta1 = s->train.beta1,
                                    .beta2 = s->train.beta2,
                                    .eps = s->train.eps,
                                    .weight_decay = s->train.weight_decay,
                                    .clip_norm = s->train.clip_norm};
    describe_machine(t);
    return ICAE_OK;
}

static icae_status open_feed(trainer *t, icae_error *error) {
    icae_feed_settings options = icae_trainer_feed_settings(t->settings);
    options.paths = t->settings->data.train.list;
    options.n_paths = t->settings->data.train.count;
    icae_status status =
        icae_feed_open(&t->feed, &options, t->model->tokenizer, &t->adapter->settings, error);
    return status ? icae_fail_within(error, "data.train") : ICAE_OK;
}

static void close_parts(trainer *t) {
    icae_feed_close(t->feed);
    icae_heldout_close(&t->heldout);
    icae_graph_free(t->graph);
    icae_adapter_free(t->adapter);
    icae_model_close(t->model);
    icae_backend_free(t->be);
    icae_run_folder_close(&t->folder);
    icae_run_state_release(&t->state);
    icae_text_release(&t->pending);
    free(t->feed_json);
}

/* ---- fresh or resumed ---- */

static icae_status write_config(trainer *t, icae_error *error) {
    icae_text text = {0};
    icae_settings_write(t->settings, &text);
    icae_status status = text.failed
                             ? icae_fail_memory(error, t->folder.config)
                             : icae_file_write(t->folder.config, text.data, text.length, error);
    icae_text_release(&text);
    return status;
}

/* A config.json that is no run's is that of a base, or of another program: it must not be written over. */
static icae_status check_config(const trainer *t, icae_error *error) {
    bool is_there;
    icae_status status = icae_path_find(t->folder.config, &is_there, error);
    if (status || !is_there) return status;
    icae_settings earlier;
    icae_settings_init(&earlier);
    status = icae_settings_read(&earlier, t->folder.config, error);
    icae_settings_release(&earlier);
    if (status == ICAE_MEMORY || !status) return status;
    return icae_fail(error, ICAE_INVALID,
                     "%s: is there already and is not of a run; give another folder (--set "
                     "out=FOLDER)",
                     t->folder.config);
}

static icae_status begin_fresh(trainer *t, icae_error *error) {
    bool has_any;
    icae_status status = icae_checkpoint_any(t->folder.path, &has_any, error);
    if (status) return status; /* what cannot be seen must not be written over */
    if (has_any) {
        return icae_fail(error, ICAE_INVALID,
                         "%s: has checkpoints of an earlier run; go on with it by --resume, or "
                         "give another folder (--set out=FOLDER)",
                         t->folder.path);
    }
    status = check_config(t, error);
    if (!status) status = icae_folder_remove(t->folder.metrics, error);
    if (!status) status = write_config(t, error);
    if (!status) status = open_feed(t, error);
    return status;
}

/* Something is not as the run had it: refused, or, when that was asked for, said. `change` is cut where a
 * refusal would not hold it and the advice behind it. */
static icae_status note_change(const trainer *t, icae_error *error, const char *lost,
                               const char *where, const char *change) {
    if (t->options->allows_changes) {
        icae_log_warning("%s: %s: %s", where, change, lost);
        return ICAE_OK;
    }
    const int most = 600;
    return icae_fail(error, ICAE_MISMATCH,
                     "%.150s: %.*s%s; set it back, start another run (--set out=FOLDER), or go "
                     "on with --allow-changes, but then %s",
                     where, most, change, strlen(change) > (size_t)most ? " ..." : "", lost);
}

static const char not_as_begun[] = "the result is not that of the run as it was begun";

/* The run's own settings, as it wrote them, against those of now. written: their hash, without and with the
 * base. */
static icae_status compare_config(const trainer *t, uint64_t written[2], icae_error *error) {
    icae_settings old;
    icae_settings_init(&old);
    icae_text change = {0};
    icae_status status = icae_settings_read(&old, t->folder.config, error);
    for (int i = 0; i < 2; i++)
        written[i] = icae_settings_hash(&old, i);
    /* "auto" in it is from a time when runs did not write down what they took. */
    if (!status && old.train.compute == ICAE_COMPUTE_AUTO) {
        old.train.compute = t->settings->train.compute;
        icae_log_warning("%s does not tell what the run computed in; it goes on in %s",
                         t->folder.config, icae_compute_names[old.train.compute]);
    }
    icae_text_append_string(&change, "the run to be resumed has ");
    if (!status && icae_settings_difference(&old, t->settings, &change)) {
        status = change.failed ? icae_fail_memory(error, t->folder.config)
                               : note_change(t, error, not_as_begun, t->folder.config,
                                             icae_text_string(&change));
    }
    /* A checkpoint has its numbers in a row: as many would be taken for others'. */
    if (!status && !icae_settings_same_adapter(&old, t->settings))
        status = icae_fail(error, ICAE_MISMATCH,
                           "%s: what this run has learnt fits no adapter of other "
                           "adapter.memory_slots, rank or targets, --allow-changes or not; set "
                           "them back, or start another run (--set out=FOLDER)",
                           t->folder.config);
    icae_text_release(&change);
    icae_settings_release(&old);
    return status;
}

/* The checkpoint just read against the settings, the base and the machine of now. */
static icae_status compare_state(const trainer *t, const char *path, const uint64_t written[2],
                                 icae_error *error) {
    const icae_run_state *state = &t->state;
    icae_status status = ICAE_OK;
    if (state->base_fingerprint != t->model->fingerprint) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: belongs to a base with fingerprint %016llx, but %s has %016llx",
                         path, (unsigned long long)state->base_fingerprint, t->model->path,
                         (unsigned long long)t->model->fingerprint);
    }
    bool is_known = false;
    for (int i = 0; i < 2; i++) {
        is_known |= state->settings_hash == icae_settings_hash(t->settings, i) ||
                    state->settings_hash == written[i];
    }
    if (!is_known) {
        char change[200];
        snprintf(change, sizeof change, "was written with other settings than %.150s",
                 t->folder.config);
        status = note_change(t, error, not_as_begun, path, change);
    }
    char threads[80] = "", kernels[100] = "", change[200];
    if (state->threads && state->threads != t->be->n_threads) {
        snprintf(threads, sizeof threads, "with train.threads = %lld, now it is %d",
                 (long long)state->threads, t->be->n_threads);
    }
    if (*state->kernels && strcmp(state->kernels, t->be->name) != 0) {
        snprintf(kernels, sizeof kernels, "by %s kernels, now they are %s (ICAE_CPU)",
                 state->kernels, t->be->name);
    }
    if (!status && (*threads || *kernels)) {
        snprintf(change, sizeof change, "was computed %s%s%s", threads,
                 *threads && *kernels ? "; " : "", kernels);
        status = note_change(t, error, "it goes on to other last bits", path, change);
    }
    return status;
}

/* The samples go on where they were; with --allow-changes changed data begin anew. */
static icae_status resume_feed(trainer *t, icae_error *error) {
    icae_status status = open_feed(t, error);
    if (status) return status;
    status = icae_feed_restore(t->feed, t->state.json, t->state.feed, error);
    if (!status || status == ICAE_MEMORY) return status;
    if (!t->options->allows_changes)
        return icae_fail(error, status, "%s; --allow-changes begins them anew", error->message);
    icae_log_warning("%s: the data begin anew, and some samples come twice", error->message);
    icae_feed_close(t->feed);
    t->feed = NULL;
    status = open_feed(t, error);
    if (status) return status;
    const icae_feed_stats so_far = {.samples = t->state.samples,
                                    .context_tokens = t->state.context_tokens,
                                    .passed_over = t->state.passed_over,
                                    .cut = t->state.cut,
                                    .broken_lines = t->state.broken_lines};
    icae_feed_count_from(t->feed, &so_far);
    return ICAE_OK;
}

/* A run does not go back: what it did beyond fewer steps would stay in the adapter. */
static icae_status check_steps(const trainer *t, icae_error *error) {
    long long done = (long long)t->state.step, steps = (long long)t->settings->train.steps;
    if (done <= steps) return ICAE_OK;
    return icae_fail(error, ICAE_INVALID,
                     "%s: has done %lld steps already, more than train.steps, %lld; give more "
                     "to go on, %lld to end it here, or begin another run (--set out=FOLDER)",
                     t->folder.path, done, steps, done);
}

static icae_status begin_resumed(trainer *t, icae_error *error) {
    char *path;
    uint64_t written[2];
    icae_status status = icae_checkpoint_newest(t->folder.path, &path, error);
    if (status) return status;
    status = compare_config(t, written, error);
    if (!status) status = icae_checkpoint_load(path, t->adapter, &t->state, error);
    if (!status) status = compare_state(t, path, written, error);
    if (!status) status = check_steps(t, error);
    if (!status) status = resume_feed(t, error);
    if (!status)
        status = icae_run_folder_cut_metrics(&t->folder, t->state.metrics_bytes, error);
    if (!status) status = write_config(t, error);
    if (!status) {
        describe_machine(t);
        t->optimizer.updates = t->state.updates;
        icae_log_info("goes on from %s", path);
    }
    free(path);
    return status;
}

/* ---- the loop ---- */

static bool is_due(int64_t every, int64_t step) {
    return every > 0 && step % every == 0;
}

static icae_status evaluate(trainer *t, bool is_first, icae_error *error) {
    if (t->heldout.n_steps == 0) return ICAE_OK;
    icae_heldout result;
    icae_status status = icae_heldout_run(t, &result, error);
    if (status) return status;
    if (is_first) t->report->before = result;
    t->report->after = result;
    t->report->has_heldout = true;
    return icae_report_heldout(t, &result, error);
}

static icae_status save(trainer *t, icae_error *error) {
    icae_status status = icae_report_flush(t, error);
    if (!status) status = icae_report_summary(t, error);
    if (status) return status;
    int64_t bytes = icae_file_bytes(t->folder.metrics);
    t->state.metrics_bytes = bytes > 0 ? bytes : 0;
    t->state.feed_json = t->feed_json;
    status = icae_checkpoint_save(t->folder.path, t->adapter, t->model, &t->state,
                                  t->settings->checkpoint.keep, error);
    t->state.feed_json = NULL;
    if (!status) icae_log_detail("step %lld: checkpoint written", (long long)t->state.step);
    return status;
}

static bool wants_stop(const trainer *t) {
    return icae_trainer_is_signalled(t) ||
           (t->options->stop_at && t->state.step >= t->options->stop_at);
}

bool icae_trainer_is_signalled(const trainer *t) {
    return t->options->signal && *t->options->signal;
}

static icae_status stopped(const trainer *t, bool is_saved, icae_error *error) {
    if (!is_saved) {
        return icae_fail(error, ICAE_INTERRUPTED, "stopped at step %lld; nothing new to save",
                         (long long)t->state.step);
    }
    return icae_fail(
        error, ICAE_INTERRUPTED,
        "stopped at step %lld of %lld; a checkpoint is in %s/checkpoints, the same "
        "command with --resume goes on",
        (long long)t->state.step, (long long)t->settings->train.steps, t->folder.path);
}

/* One step, its record, its checkpoint and its evaluation. A signal ends the evaluation at once: the
 * run goes on with it when it is resumed. */
static icae_status do_step(trainer *t, icae_error *error) {
    const icae_settings *s = t->settings;
    step_result result;
    icae_status status = icae_trainer_step(t, &result, error);
    if (!status) status = icae_report_step(t, &result, error);
    if (status) return status;
    bool is_last = t->state.step == s->train.steps, is_stopping = wants_stop(t);
    bool is_saved = is_last || is_stopping || is_due(s->checkpoint.every, t->state.step);
    if (is_saved) status = save(t, error);
    if (status) return status;
    if (is_stopping && !is_last) return stopped(t, true, error);
    if (is_last || is_due(s->evaluate.every, t->state.step)) status = evaluate(t, false, error);
    if (status != ICAE_INTERRUPTED) return status;
    status = is_saved ? ICAE_OK : save(t, error);
    return status ? status : stopped(t, true, error);
}

static icae_status loop(trainer *t, icae_error *error) {
    const icae_settings *s = t->settings;
    icae_status status = ICAE_OK;
    /* The last step's evaluation is due whatever its number: a run may have ended before it. */
    if (t->state.step == 0 || t->state.step >= s->train.steps ||
        is_due(s->evaluate.every, t->state.step)) {
        status = evaluate(t, true, error);
    }
    if (status == ICAE_INTERRUPTED || (!status && wants_stop(t)))
        return stopped(t, false, error);
    while (!status && t->state.step < s->train.steps)
        status = do_step(t, error);
    return status;
}

static icae_status finish(trainer *t, icae_error *error) {
    icae_status status = icae_report_flush(t, error);
    if (!status) status = icae_report_summary(t, error);
    if (!status) status = icae_adapter_save(t->adapter, t->folder.adapter, t->model, error);
    if (!status) icae_log_info("the adapter is in %s", t->folder.adapter);
    return status;
}

/* How fast the machine multiplies, for the estimate and the progress line; no result depends on it. */
static void measure_machine(trainer *t) {
    /* Share of it that training reached on the machines it was measured on. */
    static const double typical_share = 0.6;
    if (icae_log_get_level() == ICAE_LOG_QUIET && !t->options->is_dry_run) return;
    bool is_bf16 = t->be->compute == ICAE_COMPUTE_BF16 && t->be->has_fast_bf16;
    t->report->peak_name = is_bf16 ? "bf16" : "sgemm";
    t->report->peak = 1e9 * (is_bf16 ? icae_cpu_bf16_peak(t->be->n_threads, 0.2)
                                     : icae_cpu_sgemm_peak(t->be->n_threads, 0.2, NULL));
    if (t->report->peak <= 0) return;
    t->report->step_s = t->report->plan.work / (t->report->peak * typical_share);
}

/* A run that goes on keeps the micro-batch and the recomputation that its budget led to, whatever would be
 * chosen now, with another budget or none: other micro-batches give other last bits. */
static icae_status adopt_plan(trainer *t, icae_error *error) {
    icae_settings *s = t->settings;
    char *path = icae_path_join(s->out, "config.json");
    if (!path) return icae_fail_memory(error, "the settings");
    icae_settings old;
    icae_settings_init(&old);
    icae_status status = ICAE_OK;
    /* A file that is missing or broken is refused later, with the sentence for it. */
    if (!icae_settings_read(&old, path, NULL)) {
        char micro[64];
        const char *mode =
            old.train.checkpointing ? "train.checkpointing=true" : "train.checkpointing=false";
        snprintf(micro, sizeof micro, "train.micro_batch=%lld",
                 (long long)old.train.micro_batch);
        if (!icae_settings_has(s, "train.micro_batch"))
            status = icae_settings_set(s, micro, error);
        bool has_budget = s->memory_budget || old.memory_budget;
        if (!status && has_budget && !icae_settings_has(s, "train.checkpointing"))
            status = icae_settings_set(s, mode, error);
    }
    icae_settings_release(&old);
    free(path);
    return status;
}

/* Of the process, since it began. */
static size_t peak_rss(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss * 1024; /* Linux counts KiB */
}

/* Before anything is made: a run that is not there leaves no folder and no lock behind. */
static icae_status find_run(const trainer *t, icae_error *error) {
    const char *folder = t->settings->out;
    bool has_any;
    icae_status status = icae_checkpoint_any(folder, &has_any, error);
    if (status || has_any) return status;
    char *path; /* there is none, and the sentence for it is there */
    status = icae_checkpoint_newest(folder, &path, error);
    free(path);
    return status;
}

static icae_status run(trainer *t, icae_error *error) {
    icae_status status = icae_settings_check(t->settings, error);
    if (!status) icae_trainer_warn_of_settings(t->settings);
    if (!status && t->options->is_resuming && !t->options->is_dry_run)
        status = find_run(t, error);
    if (!status && t->options->is_resuming) status = adopt_plan(t, error);
    if (!status) status = open_parts(t, error);
    if (status) return status;
    icae_trainer_warn_of_parts(t);
    measure_machine(t);
    if (t->options->is_dry_run) { /* missing files are told now */
        status = open_feed(t, error);
        return status ? status : icae_heldout_open(t, error);
    }
    status = icae_run_folder_open(&t->folder, t->settings->out, error);
    if (status) return status;
    status = t->options->is_resuming ? begin_resumed(t, error) : begin_fresh(t, error);
    if (!status) icae_report_plan(t);
    if (!status) status = icae_heldout_open(t, error);
    if (!status) status = loop(t, error);
    icae_progress_done();
    if (!status) status = finish(t, error);
    t->report->peak_rss = peak_rss();
    icae_report_end(t);
    return status;
}

icae_status icae_train(icae_settings *settings, const icae_train_options *options,
                       icae_train_report *report, icae_error *error) {
    *report = (icae_train_report){0};
    trainer t = {.settings = settings, .options = options, .report = report};
    t.folder.lock = -1;
    icae_status status = run(&t, error);
    report->step = t.state.step;
    report->skipped = t.state.skipped;
    report->cut = t.state.cut;
    report->passed_over = t.state.passed_over;
    report->broken_lines = t.state.broken_lines;
    if (t.graph) { /* the pool holds the trained block, too */
        size_t peak = icae_graph_bytes_peak(t.graph);
        size_t block = report->plan.memory[ICAE_MEMORY_TRAINED];
        report->peak_activations = peak > block ? peak - block : 0;
    }
    close_parts(&t);
    return status;
}
