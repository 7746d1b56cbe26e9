/* SPDX-License-Identifier: MIT */
/*
 * What a run says: the plan before it, one progress line during it, metrics.jsonl and loss.svg, and
 * the watch for the plateau on which autoencoding is known to stay.
 *
 * A record of metrics.jsonl holds what the run computed first and what the clock said last
 * ("seconds", "tokens_per_second"): without those two, equal runs write equal bytes.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/log.h"
#include "icae/plot.h"
#include "learn/trainer_internal.h"

static double gigabytes(size_t bytes) {
    return (double)bytes / 1e9;
}

/* "1 h 05 m", "12 m 30 s", "8 s" */
static const char *duration(double seconds, char *out, size_t bytes) {
    int64_t s = seconds < 1e9 ? (int64_t)(seconds + 0.5) : 1000000000;
    if (s >= 86400)
        snprintf(out, bytes, "%lld d %02lld h", (long long)(s / 86400),
                 (long long)(s / 3600 % 24));
    else if (s >= 3600)
        snprintf(out, bytes, "%lld h %02lld m", (long long)(s / 3600),
                 (long long)(s / 60 % 60));
    else if (s >= 60)
        snprintf(out, bytes, "%lld m %02lld s", (long long)(s / 60), (long long)(s % 60));
    else
        snprintf(out, bytes, "%lld s", (long long)s);
    return out;
}

/* ---- before the run ---- */

void icae_train_estimate(icae_text *out, double step_s, int64_t steps) {
    char step[32], all[32];
    if (step_s < 100)
        snprintf(step, sizeof step, "%.3g s", step_s);
    else
        duration(step_s, step, sizeof step);
    icae_text_printf(out, "about %s a step, %s for %lld step%s", step,
                     duration(step_s * (double)steps, all, sizeof all), (long long)steps,
                     steps == 1 ? "" : "s");
}

void icae_report_plan(const trainer *t) {
    const icae_plan *plan = &t->report->plan;
    const icae_settings *s = t->settings;
    const icae_model_config *c = &t->model->config;
    double share = 100.0 * (double)plan->trained / (double)(plan->frozen + plan->trained);
    icae_log_info("base      %s (%s, %lld layers, width %lld)", t->model->path,
                  t->model->file_type, (long long)c->layers, (long long)c->width);
    icae_log_info("adapter   %lld slots for up to %lld tokens, layout %s, rank %lld, alpha %g",
                  (long long)s->adapter.memory_slots,
                  (long long)(s->adapter.memory_slots * s->adapter.compression_rate),
                  icae_layout_names[s->adapter.layout], (long long)s->adapter.rank,
                  s->adapter.alpha);
    icae_log_info("numbers   %lld frozen, %lld trained (%.2f %%)", (long long)plan->frozen,
                  (long long)plan->trained, share);
    icae_log_info(
        "memory    about %.2f GB: weights %.2f, trained block %.2f, activations %.2f%s",
        gigabytes(plan->peak_bytes), gigabytes(plan->memory[ICAE_MEMORY_WEIGHTS]),
        gigabytes(plan->memory[ICAE_MEMORY_TRAINED]),
        gigabytes(plan->memory[ICAE_MEMORY_ACTIVATIONS]),
        s->train.checkpointing ? " (recomputed)" : "");
    for (int i = 0; i < ICAE_MEMORY_COUNT; i++) {
        icae_log_detail("  %8.1f MB  %s", (double)plan->memory[i] / 1e6, icae_memory_names[i]);
    }
    if (s->memory_budget) {
        int64_t micro = t->report->plan.micro_batch;
        icae_log_info("budget    %.2f GB: %lld of %lld samples at once, %s",
                      gigabytes((size_t)s->memory_budget), (long long)micro,
                      (long long)s->train.batch,
                      s->train.checkpointing ? "activations recomputed" : "nothing recomputed");
    }
    icae_log_info("step      %lld sample%s, at most %lld context tokens; %lld encoder and %lld "
                  "decoder rows, %lld targets; %.3g useful GFLOP",
                  (long long)s->train.batch, s->train.batch == 1 ? "" : "s",
                  (long long)plan->step.context_tokens, (long long)plan->step.encoder_tokens,
                  (long long)plan->step.decoder_tokens, (long long)plan->step.targets,
                  plan->work / 1e9);
    icae_log_info("compute   %s on %s kernels", icae_compute_names[t->be->compute],
                  t->be->name);
    if (t->report->step_s > 0) {
        icae_text time = {0};
        icae_train_estimate(&time, t->report->step_s, s->train.steps - t->state.step);
        icae_log_info("time      %s (%d thread%s, %s %.0f GFLOP/s)", icae_text_string(&time),
                      t->be->n_threads, t->be->n_threads == 1 ? "" : "s", t->report->peak_name,
                      t->report->peak / 1e9);
        icae_text_release(&time);
    }
}

/* ---- records ---- */

/* "name": value with a comma before it; null when it is no number. */
static void put_number(icae_text *out, const char *name, double value) {
    icae_text_printf(out, ", \"%s\": ", name);
    icae_json_write_number(out, value);
}

static void put_integer(icae_text *out, const char *name, int64_t value) {
    icae_text_printf(out, ", \"%s\": %lld", name, (long long)value);
}

icae_status icae_report_flush(trainer *t, icae_error *error) {
    t->flushed_s = icae_clock_seconds();
    if (t->pending.failed) return icae_fail_memory(error, t->folder.metrics);
    if (t->pending.length == 0) return ICAE_OK;
    icae_status status =
        icae_file_append(t->folder.metrics, t->pending.data, t->pending.length, error);
    icae_text_clear(&t->pending);
    return status;
}

/* Records are handed to the disk once a second: a flush for each would cost more than small steps. */
static icae_status finish_record(trainer *t, icae_error *error) {
    icae_text_append_string(&t->pending, "}\n");
    if (icae_clock_seconds() - t->flushed_s < 1) return ICAE_OK;
    return icae_report_flush(t, error);
}

static double mean_of(const step_result *result, icae_task task) {
    return result->targets[task] ? result->sum[task] / (double)result->targets[task]
                                 : (double)NAN;
}

static void write_step(trainer *t, const step_result *result) {
    icae_text *out = &t->pending;
    icae_text_printf(out, "{\"step\": %lld", (long long)t->state.step);
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        if (!result->targets[task]) continue;
        char name[32];
        snprintf(name, sizeof name, "%s_loss", icae_task_names[task]);
        put_number(out, name, mean_of(result, (icae_task)task));
        snprintf(name, sizeof name, "%s_tokens", icae_task_names[task]);
        put_integer(out, name, result->targets[task]);
    }
    put_number(out, "loss", result->loss);
    put_number(out, "lr", result->lr);
    put_number(out, "grad_norm", result->is_skipped ? (double)NAN : result->update.norm);
    icae_text_printf(out, ", \"clipped\": %s", result->update.is_clipped ? "true" : "false");
    if (result->is_skipped) icae_text_append_string(out, ", \"skipped\": true");
    if (result->is_spike) icae_text_append_string(out, ", \"spike\": true");
    put_integer(out, "tokens", result->size.context_tokens);
    put_integer(out, "total_tokens", t->state.context_tokens);
    if (t->state.cut) put_integer(out, "total_cut", t->state.cut);
    if (t->state.passed_over) put_integer(out, "total_passed_over", t->state.passed_over);
    if (t->state.broken_lines) put_integer(out, "total_broken_lines", t->state.broken_lines);
    put_number(out, "seconds", result->seconds);
    put_number(out, "tokens_per_second", (double)result->size.context_tokens / result->seconds);
}

/* ---- the plateau ---- */

static void warn_plateau(trainer *t, double ae_loss) {
    double mean;
    if (!icae_plateau_reached(&t->progress.plateau, ae_loss, &mean)) return;
    bool is_append = t->settings->adapter.layout == ICAE_LAYOUT_APPEND;
    icae_log_warning("the AE loss has stood at %.2f for %d steps, the plateau on which "
                     "autoencoding is known to stay; %s",
                     mean, 2 * ICAE_PLATEAU_STEPS,
                     is_append
                         ? "train with adapter.layout \"uniform\" and adapter.memory_init "
                           "\"base\", which do not have it"
                         : "shorter spans (adapter.memory_slots), a scale alpha/rank of 2, "
                           "smaller batches with more steps, or adapters on all linear "
                           "layers (adapter.targets) help it over");
}

/* ---- the progress line ---- */

static void smooth(double *value, double now) {
    if (!isfinite(now)) return;
    *value = *value > 0 || *value < 0 ? 0.9 * *value + 0.1 * now : now;
}

static void show_progress(trainer *t, const step_result *result) {
    progress *p = &t->progress;
    icae_text line = {0};
    static const char *const names[ICAE_TASK_COUNT] = {"AE", "LM", "FT"};
    icae_text_printf(&line, "step %lld/%lld", (long long)t->state.step,
                     (long long)t->settings->train.steps);
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        smooth(&p->loss[task], mean_of(result, (icae_task)task));
        if (p->loss[task] > 0) icae_text_printf(&line, "  %s %.3f", names[task], p->loss[task]);
    }
    /* Sums that forget: rates follow what the machine does now, without jumping at every step. */
    p->seconds = 0.9 * p->seconds + result->seconds;
    p->tokens = 0.9 * p->tokens + (double)result->size.context_tokens;
    p->work = 0.9 * p->work + result->work;
    double rate = p->work / p->seconds;
    icae_text_printf(&line, "  lr %.2g  %.0f tok/s  %.1f GFLOP/s", result->lr,
                     p->tokens / p->seconds, rate / 1e9);
    if (t->report->peak > 0) {
        icae_text_printf(&line, " (%.0f %%)", 100 * rate / t->report->peak);
    }
    double mean_step = t->report->seconds / (double)(t->report->step);
    char left[32];
    icae_text_printf(&line, "  left %s",
                     duration(mean_step * (double)(t->settings->train.steps - t->state.step),
                              left, sizeof left));
    icae_progress_show("%s", icae_text_string(&line));
    icae_text_release(&line);
}

icae_status icae_report_step(trainer *t, const step_result *result, icae_error *error) {
    icae_train_report *report = t->report;
    report->step++; /* of this session; icae_train sets the total at its end */
    report->seconds += result->seconds;
    report->context_tokens += (double)result->size.context_tokens;
    report->work += result->work;
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        report->loss[task] = mean_of(result, (icae_task)task);
    }
    write_step(t, result);
    warn_plateau(t, mean_of(result, ICAE_TASK_AE));
    show_progress(t, result);
    return finish_record(t, error);
}

/* ---- evaluations ---- */

icae_status icae_report_heldout(trainer *t, const icae_heldout *result, icae_error *error) {
    icae_text line = {0};
    icae_text *out = &t->pending;
    icae_text_printf(out, "{\"step\": %lld", (long long)t->state.step);
    put_integer(out, "heldout_samples", result->samples);
    icae_text_printf(&line, "step %lld: held-out", (long long)t->state.step);
    static const char *const names[ICAE_TASK_COUNT] = {"AE", "LM", "FT"};
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        if (!result->targets[task]) continue;
        char name[32];
        snprintf(name, sizeof name, "heldout_%s_loss", icae_task_names[task]);
        put_number(out, name, result->loss[task]);
        icae_text_printf(&line, " %s %.3f", names[task], result->loss[task]);
    }
    icae_text_printf(&line, " (%lld samples)", (long long)result->samples);
    if (result->restored) {
        put_integer(out, "restored", result->restored);
        put_number(out, "bleu4", result->bleu4);
        put_number(out, "prefix_em", result->prefix_em);
        put_integer(out, "exact", result->exact);
        icae_text_printf(&line,
                         "; restored freely: BLEU-4 %.1f, exact prefix %.2f, %lld of %lld "
                         "whole",
                         result->bleu4, result->prefix_em, (long long)result->exact,
                         (long long)result->restored);
    }
    icae_log_info("%s", icae_text_string(&line));
    icae_text_release(&line);
    icae_text_append_string(out, "}\n");
    icae_status status = icae_report_flush(t, error);
    if (status) return status;
    char title[600];
    snprintf(title, sizeof title, "%s", t->folder.path);
    icae_error reason = {0};
    /* A picture that cannot be drawn is no reason to lose a run. */
    if (icae_plot_metrics(t->folder.metrics, t->folder.svg, title, &reason)) {
        icae_log_warning("%s is not drawn: %s", t->folder.svg, reason.message);
    }
    return ICAE_OK;
}

/* ---- the end ---- */

icae_status icae_report_summary(trainer *t, icae_error *error) {
    const icae_settings *s = t->settings;
    icae_text out = {0};
    const char *kind = icae_objective_names[s->objective.kind];
    icae_text_printf(&out, "{\"steps\": %lld", (long long)t->state.step);
    put_integer(&out, "updates", t->state.updates);
    put_integer(&out, "samples", t->state.samples);
    put_integer(&out, "context_tokens", t->state.context_tokens);
    icae_text_printf(&out, ", \"objective\": \"%s\"", kind);
    put_number(&out, "lr", s->train.lr);
    put_integer(&out, "batch", s->train.batch);
    put_integer(&out, "seed", s->train.seed);
    icae_text_append_char(&out, '}');
    if (out.failed) {
        icae_text_release(&out);
        return icae_fail_memory(error, "the training summary");
    }
    free(t->adapter->summary_json);
    t->adapter->summary_json = out.data; /* owned by the adapter from here on */
    return ICAE_OK;
}

/* "12 answers" with a comma before it where something stands there already; nothing for 0. */
static void put_count(icae_text *line, int64_t n, const char *one, const char *many) {
    if (!n) return;
    icae_text_printf(line, "%s%lld %s", line->length ? ", " : "", (long long)n,
                     n == 1 ? one : many);
}

/* What of the data was not learnt from as it stands there. */
static void say_lost(const trainer *t) {
    bool is_instruct = t->settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    icae_text line = {0};
    put_count(&line, t->state.cut,
              "input, prompt or answer was cut (objective.context_tokens, prompt_tokens, "
              "answer_tokens)",
              "inputs, prompts and answers were cut (objective.context_tokens, prompt_tokens, "
              "answer_tokens)");
    if (is_instruct) {
        put_count(
            &line, t->state.passed_over,
            "row passed over: its input too short (objective.least_context), or no prompt or "
            "answer",
            "rows passed over: their input too short (objective.least_context), or no prompt "
            "or answer");
    } else {
        put_count(&line, t->state.passed_over,
                  "text passed over as too short (objective.least_context)",
                  "texts passed over as too short (objective.least_context)");
    }
    put_count(&line, t->state.broken_lines, "broken line skipped", "broken lines skipped");
    if (line.length) icae_log_info("data: %s", icae_text_string(&line));
    icae_text_release(&line);
}

void icae_report_end(const trainer *t) {
    const icae_train_report *report = t->report;
    char time[32];
    say_lost(t);
    if (report->seconds <= 0) return;
    icae_log_info("trained %lld step%s in %s: %.1f context tokens/s, %.1f useful GFLOP/s%s",
                  (long long)report->step, report->step == 1 ? "" : "s",
                  duration(report->seconds, time, sizeof time),
                  report->context_tokens / report->seconds,
                  report->work / report->seconds / 1e9,
                  t->state.skipped ? "; some steps were left out, see above" : "");
    icae_log_info("memory: %.2f GB at the most, %.2f were predicted",
                  gigabytes(report->peak_rss), gigabytes(report->plan.peak_bytes));
}
