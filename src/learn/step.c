/* SPDX-License-Identifier: MIT */
/*
 * One training step: samples from the feed, weights for their losses, forward and backward in
 * micro-batches, one update.
 *
 * The loss is a mean over the tokens of the whole step, whatever micro-batches it is cut into: the
 * coefficients are set before the first of them, and gradients add up. With T_x the targets of task x
 * in the step and nll summed over them:
 *
 *     mixed, instruct   sum of all nll / sum of all T
 *     both              lambda AE / T_AE + (1 - lambda) LM / T_LM, or the one that is there alone
 *     instruct with AE  the same of AE and FT
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/log.h"
#include "icae/rng.h"
#include "learn/trainer_internal.h"

/* The weight of one target of every task. */
static void weigh(const icae_settings *settings, const int64_t targets[ICAE_TASK_COUNT],
                  double coefs[ICAE_TASK_COUNT]) {
    int64_t all = 0;
    for (int task = 0; task < ICAE_TASK_COUNT; task++)
        all += targets[task];
    bool is_instruct = settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    icae_task other = is_instruct ? ICAE_TASK_FT : ICAE_TASK_LM;
    bool is_both = settings->objective.kind != ICAE_OBJECTIVE_MIXED &&
                   targets[ICAE_TASK_AE] > 0 && targets[other] > 0;
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        coefs[task] = all ? 1.0 / (double)all : 0;
    }
    if (!is_both) return;
    double lambda = is_instruct ? settings->objective.ae_share : settings->objective.ae_weight;
    coefs[ICAE_TASK_AE] = lambda / (double)targets[ICAE_TASK_AE];
    coefs[other] = (1 - lambda) / (double)targets[other];
}

icae_status icae_trainer_sort_jobs(icae_feed_step *samples, icae_batch *sorted,
                                   icae_error *error) {
    const icae_batch *batch = &samples->batch;
    size_t n_contexts = (size_t)batch->n_contexts;
    icae_job *jobs = icae_arena_array(&samples->arena, (size_t)batch->n_jobs, sizeof *jobs);
    int64_t *next = icae_arena_array(&samples->arena, n_contexts + 1, sizeof *next);
    if (!jobs || !next) return icae_fail_memory(error, "the jobs of a step");
    for (int64_t j = 0; j < batch->n_jobs; j++)
        next[batch->jobs[j].context + 1]++;
    for (size_t c = 0; c < n_contexts; c++)
        next[c + 1] += next[c];
    for (int64_t j = 0; j < batch->n_jobs; j++)
        jobs[next[batch->jobs[j].context]++] = batch->jobs[j];
    *sorted = *batch;
    sorted->jobs = jobs;
    return ICAE_OK;
}

/* Where the micro-batch that begins at job `first` ends. A sample is a job in fine-tuning, where rows
 * share contexts, and a context with all its jobs in pretraining. */
static int64_t micro_end(const trainer *t, const icae_batch *batch, int64_t first) {
    int64_t limit = t->settings->train.micro_batch;
    bool by_job = t->settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    if (limit == 0) {
        return icae_pass_end(t->adapter, batch, first, t->report->plan.pass_tokens, by_job);
    }
    if (by_job) {
        return first + limit < batch->n_jobs ? first + limit : batch->n_jobs;
    }
    int64_t end = first, last = batch->jobs[first].context + limit;
    while (end < batch->n_jobs && batch->jobs[end].context < last)
        end++;
    return end;
}

/* Forward and backward of one micro-batch, nll [end - first]; *is_finite turns false when its loss is
 * not. */
static icae_status run_micro(trainer *t, const icae_batch *batch, int64_t first, int64_t end,
                             const double coefs[ICAE_TASK_COUNT], double *nll,
                             step_result *result, bool *is_finite, icae_error *error) {
    icae_graph_begin(t->graph, true, false);
    icae_batch micro;
    icae_job *jobs = icae_batch_part(t->graph, batch, first, end, &micro);
    if (!jobs) return icae_graph_status(t->graph, error);
    for (int64_t j = 0; j < micro.n_jobs; j++)
        jobs[j].coef = (icae_real)coefs[jobs[j].task];
    icae_run run = {.is_training = true,
                    .is_checkpointed = t->settings->train.checkpointing,
                    .seed =
                        icae_mix64((uint64_t)t->settings->train.seed, (uint64_t)t->state.step)};
    icae_tensor *loss =
        icae_batch_loss(t->graph, t->model, t->adapter, &micro, &run, nll, NULL);
    icae_status status = icae_graph_status(t->graph, error);
    if (status) return icae_fail_within(error, "step %lld", (long long)t->state.step + 1);
    double sum = 0;
    for (int64_t j = 0; j < micro.n_jobs; j++) {
        result->sum[micro.jobs[j].task] += nll[j];
        sum += nll[j] * coefs[micro.jobs[j].task];
    }
    result->loss += sum;
    *is_finite = isfinite(sum);
    if (*is_finite) status = icae_graph_backward(t->graph, loss, error);
    if (status) return icae_fail_within(error, "step %lld", (long long)t->state.step + 1);
    return ICAE_OK;
}

static icae_status run_batch(trainer *t, const icae_batch *batch, double *nll,
                             step_result *result, icae_error *error) {
    double coefs[ICAE_TASK_COUNT];
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        result->targets[batch->jobs[j].task] += icae_job_bearing(&batch->jobs[j]);
    }
    weigh(t->settings, result->targets, coefs);
    result->size = icae_batch_measure(t->adapter, batch);
    result->work = icae_useful_work(t->model, t->adapter, &result->size);

    icae_params_zero_gradients(&t->adapter->params);
    bool is_finite = true;
    icae_status status = ICAE_OK;
    for (int64_t first = 0; first < batch->n_jobs && is_finite && !status;) {
        int64_t end = micro_end(t, batch, first);
        status = run_micro(t, batch, first, end, coefs, nll + first, result, &is_finite, error);
        first = end;
    }
    icae_graph_begin(t->graph, false, false); /* gives the last buffers back */
    if (status) return status;
    if (is_finite) {
        result->update = icae_optimizer_step(&t->optimizer, &t->adapter->params, result->lr);
    }
    result->is_skipped = !result->update.is_applied;
    return ICAE_OK;
}

/* Warns of a gradient far longer than usual. The usual norm is a decaying mean that one outlier cannot
 * carry away; it belongs to the run's state, so a resumed run warns of the same steps. */
static void watch_norm(trainer *t, step_result *result) {
    enum { STEPS_TO_KNOW = 20 };
    static const double spike = 10, decay = 0.95;
    if (result->is_skipped) return;
    icae_run_state *state = &t->state;
    double norm = result->update.norm, most = spike * state->norm_mean;
    result->is_spike = state->norm_count >= STEPS_TO_KNOW && norm > most;
    if (result->is_spike) {
        icae_log_warning("step %lld: the gradient's norm is %.3g where %.3g is usual",
                         (long long)state->step + 1, norm, state->norm_mean);
        norm = most;
    }
    state->norm_mean = state->norm_count ? decay * state->norm_mean + (1 - decay) * norm : norm;
    state->norm_count++;
}

/* One number for each job, none of them known. */
static double *make_nll(icae_feed_step *samples, icae_error *error) {
    int64_t n = samples->batch.n_jobs;
    double *nll = icae_arena_array(&samples->arena, (size_t)n, sizeof *nll);
    if (!nll) icae_fail_memory(error, "the losses of a step");
    for (int64_t j = 0; nll && j < n; j++)
        nll[j] = (double)NAN;
    return nll;
}

/* A step without an update is a mishap that may pass; many in a row are not. */
static icae_status count_skipped(trainer *t, const icae_batch *batch, const double *nll,
                                 const step_result *result, icae_error *error) {
    enum { MOST_IN_ROW = 10 };
    if (!result->is_skipped) {
        t->state.skipped_in_row = 0;
        return ICAE_OK;
    }
    t->state.skipped++;
    t->state.skipped_in_row++;
    icae_log_warning("step %lld: the %s is not finite; the step is left out (%lld so far), its "
                     "samples are in %s",
                     (long long)t->state.step, isfinite(result->loss) ? "gradient" : "loss",
                     (long long)t->state.skipped, t->folder.skipped);
    icae_status status = icae_skipped_write(t, batch, nll, result, error);
    if (status) return status;
    if (t->state.skipped_in_row < MOST_IN_ROW) return ICAE_OK;
    return icae_fail(error, ICAE_INVALID,
                     "step %lld: loss or gradient was not finite %d times in a row; go on from "
                     "an older checkpoint with a lower train.lr or train.clip_norm",
                     (long long)t->state.step, MOST_IN_ROW);
}

icae_status icae_trainer_step(trainer *t, step_result *result, icae_error *error) {
    const icae_settings *s = t->settings;
    *result = (step_result){0};
    double start_s = icae_clock_seconds();
    icae_feed_step *samples;
    icae_status status = icae_feed_next(t->feed, s->train.batch, &samples, error);
    if (status) return status;
    if (!samples || samples->batch.n_jobs == 0) {
        icae_feed_step_free(samples);
        return icae_fail(error, ICAE_INVALID, "data.train: gave no samples for step %lld",
                         (long long)t->state.step + 1);
    }
    result->lr =
        icae_schedule_rate((icae_schedule)s->train.schedule, s->train.lr, s->train.warmup_steps,
                           s->train.steps, s->train.final_lr_fraction, t->state.step);
    icae_batch batch;
    status = icae_trainer_sort_jobs(samples, &batch, error);
    double *nll = status ? NULL : make_nll(samples, error);
    if (!status && !nll) status = ICAE_MEMORY;
    if (!status) status = run_batch(t, &batch, nll, result, error);
    if (!status) {
        watch_norm(t, result);
        t->state.step++;
        t->state.samples = samples->stats.samples;
        t->state.context_tokens = samples->stats.context_tokens;
        t->state.cut = samples->stats.cut;
        t->state.passed_over = samples->stats.passed_over;
        t->state.broken_lines = samples->stats.broken_lines;
        t->state.updates = t->optimizer.updates;
        free(t->feed_json);
        t->feed_json = strdup(samples->state_json);
        if (!t->feed_json) status = icae_fail_memory(error, "the feed's position");
    }
    if (!status) status = count_skipped(t, &batch, nll, result, error);
    icae_feed_step_free(samples);
    result->seconds = icae_clock_seconds() - start_s;
    t->state.seconds += result->seconds;
    return status;
}
