/* SPDX-License-Identifier: MIT */
/*
 * Held-out evaluation: losses on samples that are the same at every evaluation of a run, and what
 * comes back when slots are decoded freely, greedily and token by token - teacher-forced loss can be
 * low while free generation is blank, so both are shown.
 *
 * The samples are read once and kept, and cut into passes of micro-batches only when they are measured: a
 * text that several questions are about bears AE once, however few of them go through at a time. No
 * dropout; nothing here touches the state of training. A signal ends it after the pass, or the token,
 * that it is at.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/chat.h"
#include "icae/log.h"
#include "icae/metrics.h"
#include "learn/trainer_internal.h"

/* The windows to restore are the same in all runs, whatever train.seed and the objective are, so that runs
 * can be compared. */
static const uint64_t HELDOUT_SEED = 20240501;

/* Samples that are read at a time, among which equal contexts are one. Of no setting that could change
 * from run to run; and few enough that a signal is heard in between. */
enum { HELDOUT_GROUP = 256 };

/* Takes over the step, also when it fails. */
static icae_status keep_step(heldout_set *set, icae_feed_step *step, icae_error *error) {
    icae_status status = icae_trainer_sort_jobs(step, &step->batch, error);
    if (!status && set->n_steps == set->capacity) {
        int64_t larger = set->capacity ? 2 * set->capacity : 16;
        icae_feed_step **moved = realloc(set->steps, (size_t)larger * sizeof *moved);
        if (moved) {
            set->steps = moved;
            set->capacity = larger;
        } else {
            status = icae_fail_memory(error, "the held-out samples");
        }
    }
    if (status) {
        icae_feed_step_free(step);
        return status;
    }
    set->steps[set->n_steps++] = step;
    return ICAE_OK;
}

icae_status icae_heldout_open(trainer *t, icae_error *error) {
    const icae_settings *s = t->settings;
    if (s->data.heldout.count == 0 || s->evaluate.samples == 0) return ICAE_OK;
    icae_feed_settings options = icae_trainer_feed_settings(s);
    options.paths = s->data.heldout.list;
    options.n_paths = s->data.heldout.count;
    options.seed = HELDOUT_SEED;
    options.shuffle_documents = 0;
    options.prefetch_steps = 0;
    options.is_endless = false;
    options.limit_samples = s->evaluate.samples;
    options.first_context = options.grow_samples = 0; /* whole from the first evaluation on */
    options.is_evaluation = true;
    /* Every sample bears both losses, where training draws one of the two. */
    if (options.objective == ICAE_OBJECTIVE_MIXED && options.lm_ratio > 0) {
        options.objective = ICAE_OBJECTIVE_BOTH;
    }
    const icae_adapter_settings *settings = &t->adapter->settings;
    t->heldout.stop[ICAE_TASK_AE] = icae_adapter_stop(settings, t->model->tokenizer);
    icae_chat_ids chat = {0};
    icae_status status = icae_chat_encode(&chat, settings, t->model->tokenizer, error);
    t->heldout.stop[ICAE_TASK_FT] = chat.end;
    icae_chat_release(&chat);
    icae_feed *feed;
    if (!status) {
        status = icae_feed_open(&feed, &options, t->model->tokenizer, settings, error);
    }
    if (status) return icae_fail_within(error, "data.heldout");
    int64_t group = s->evaluate.samples < HELDOUT_GROUP ? s->evaluate.samples : HELDOUT_GROUP;
    while (!status && !icae_trainer_is_signalled(t)) { /* then it is never looked at */
        icae_feed_step *step;
        status = icae_feed_next(feed, group, &step, error);
        if (status || !step) break;
        status = keep_step(&t->heldout, step, error);
    }
    icae_feed_close(feed);
    if (!status && t->heldout.n_steps == 0 && !icae_trainer_is_signalled(t)) {
        status = icae_fail(error, ICAE_INVALID,
                           "data.heldout: no text in it is long enough for a sample; give "
                           "others, or an empty list to train without evaluation");
    }
    return status;
}

void icae_heldout_close(heldout_set *set) {
    for (int64_t i = 0; i < set->n_steps; i++)
        icae_feed_step_free(set->steps[i]);
    free(set->steps);
    *set = (heldout_set){0};
}

/* ---- losses ---- */

/* Where the pass that begins at job `first` ends: no more rows, or texts, than the plan has found room
 * for. */
static int64_t pass_end(const trainer *t, const icae_batch *batch, int64_t first) {
    bool is_instruct = t->settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    int64_t limit = t->report->plan.micro_batch, rows = 0, end = first;
    int64_t last = batch->jobs[first].context + limit;
    while (end < batch->n_jobs &&
           (is_instruct ? rows < limit : batch->jobs[end].context < last))
        rows += batch->jobs[end++].task == ICAE_TASK_FT;
    return end;
}

static icae_status add_losses(trainer *t, const icae_batch *batch, int64_t first, int64_t end,
                              icae_heldout *result, icae_error *error) {
    icae_graph_begin(t->graph, false, false);
    icae_batch pass = {0};
    const icae_job *jobs = icae_batch_part(t->graph, batch, first, end, &pass);
    icae_run run = {0};
    double *nll = icae_graph_arena(t->graph, (size_t)(end - first) * sizeof *nll);
    if (jobs && nll) icae_batch_loss(t->graph, t->model, t->adapter, &pass, &run, nll, NULL);
    icae_status status = icae_graph_status(t->graph, error);
    for (int64_t j = 0; !status && j < pass.n_jobs; j++) {
        result->loss[jobs[j].task] += nll[j];
        result->targets[jobs[j].task] += icae_job_bearing(&jobs[j]);
    }
    return status;
}

/* ---- free-running reconstruction ---- */

/* The passages to restore: contexts for AE, answers for FT. */
typedef struct passage {
    icae_slots slots;
    const int32_t *expected;
    int64_t n_expected;
    bool has_end; /* else it was cut, and nothing says that it must stop there */
} passage;

/* In fine-tuning answers are restored, else contexts. */
static bool is_restorable(const trainer *t, const icae_job *job) {
    bool is_instruct = t->settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    return job->task == (is_instruct ? ICAE_TASK_FT : ICAE_TASK_AE) && job->n_target > 1;
}

/* Job `job` as a passage and a request. */
static icae_status prepare(trainer *t, const icae_batch *batch, const icae_job *job, passage *p,
                           icae_request *request, icae_error *error) {
    const icae_context *context = &batch->contexts[job->context];
    int64_t limit = t->settings->evaluate.reconstruct_tokens;
    int64_t n = context->n;
    int32_t stop = t->heldout.stop[job->task];
    p->has_end = job->target[job->n_target - 1] == stop;
    p->expected = job->target;
    p->n_expected = job->n_target - p->has_end;
    if (job->task == ICAE_TASK_AE && limit && n > limit) {
        n = limit;
        p->expected = context->ids;
        p->n_expected = n;
    }
    *request =
        (icae_request){.slots = &p->slots,
                       .task = job->task,
                       .prefix = job->prefix,
                       .n_prefix = job->n_prefix,
                       .prompt = job->prompt,
                       .n_prompt = job->n_prompt,
                       /* room to go on after the end, which is then a fault to be seen */
                       .max_tokens = p->n_expected + (p->has_end ? 8 : 0),
                       .stop = stop};
    return icae_compress_ids(t->graph, t->model, t->adapter, context->ids, n, NULL, &p->slots,
                             error);
}

static icae_status score(const trainer *t, const passage *p, const icae_result *restored,
                         icae_bleu *bleu, icae_heldout *result, icae_error *error) {
    const icae_tokenizer *tokenizer = t->model->tokenizer;
    icae_text expected = {0}, got = {0};
    icae_status status = icae_tokenizer_decode(tokenizer, p->expected, (size_t)p->n_expected,
                                               true, &expected, error);
    if (!status) {
        status = icae_tokenizer_decode(tokenizer, restored->ids, (size_t)restored->n, true,
                                       &got, error);
    }
    if (!status) {
        status = icae_bleu_add(bleu, icae_text_string(&got), got.length,
                               icae_text_string(&expected), expected.length, error);
    }
    if (!status) {
        size_t same = icae_prefix_match(restored->ids, (size_t)restored->n, p->expected,
                                        (size_t)p->n_expected);
        result->restored++;
        result->prefix_em += icae_prefix_exact_match(restored->ids, (size_t)restored->n,
                                                     p->expected, (size_t)p->n_expected);
        result->exact += (int64_t)same == p->n_expected && restored->n == p->n_expected;
        icae_log_detail("  original: %.200s", icae_text_string(&expected));
        icae_log_detail("  restored: %.200s", icae_text_string(&got));
    }
    icae_text_release(&expected);
    icae_text_release(&got);
    return status;
}

static bool go_on(void *user, int64_t request, int32_t id) {
    (void)request;
    (void)id;
    return !icae_trainer_is_signalled(user);
}

static icae_status stop_here(icae_error *error) {
    return icae_fail(error, ICAE_INTERRUPTED, "stopped by a signal");
}

static icae_status restore(trainer *t, icae_heldout *result, icae_error *error) {
    int64_t wanted = t->settings->evaluate.reconstruct_samples, n = 0;
    if (wanted == 0) return ICAE_OK;
    icae_graph_begin(t->graph, false, false);
    if (t->be->pool) icae_pool_trim(t->be->pool);
    passage *passages = calloc((size_t)wanted, sizeof *passages);
    icae_request *requests = calloc((size_t)wanted, sizeof *requests);
    icae_result *results = calloc((size_t)wanted, sizeof *results);
    icae_status status = passages && requests && results
                             ? ICAE_OK
                             : icae_fail_memory(error, "the restored passages");
    for (int64_t i = 0; i < t->heldout.n_steps && !status; i++) {
        const icae_batch *batch = &t->heldout.steps[i]->batch;
        for (int64_t j = 0; j < batch->n_jobs && n < wanted && !status; j++) {
            if (!is_restorable(t, &batch->jobs[j])) continue;
            if (icae_trainer_is_signalled(t)) {
                status = stop_here(error);
                break;
            }
            status = prepare(t, batch, &batch->jobs[j], &passages[n], &requests[n], error);
            n++;
        }
    }
    icae_sampling greedy = {.temperature = 0, .top_p = 1};
    icae_bleu bleu = {0};
    if (!status && n) {
        status = icae_generate(t->graph, t->model, t->adapter, requests, n, &greedy, go_on, t,
                               results, error);
        for (int64_t i = 0; i < n && !status; i++) {
            status = score(t, &passages[i], &results[i], &bleu, result, error);
        }
        icae_results_release(results, n);
    }
    result->bleu4 = icae_bleu_score(&bleu);
    if (result->restored) result->prefix_em /= (double)result->restored;
    for (int64_t i = 0; passages && i < n; i++)
        icae_slots_release(&passages[i].slots);
    free(passages);
    free(requests);
    free(results);
    return status;
}

icae_status icae_heldout_run(trainer *t, icae_heldout *result, icae_error *error) {
    *result = (icae_heldout){0};
    icae_status status = ICAE_OK;
    for (int64_t i = 0; i < t->heldout.n_steps; i++) {
        const icae_batch *batch = &t->heldout.steps[i]->batch;
        for (int64_t first = 0; first < batch->n_jobs && !status;) {
            int64_t end = pass_end(t, batch, first);
            status = icae_trainer_is_signalled(t)
                         ? stop_here(error)
                         : add_losses(t, batch, first, end, result, error);
            first = end;
        }
        result->samples = t->heldout.steps[i]->stats.samples;
    }
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        double n = (double)result->targets[task];
        result->loss[task] = n > 0 ? result->loss[task] / n : (double)NAN;
    }
    if (!status) status = restore(t, result, error);
    icae_graph_begin(t->graph, false, false);
    /* Other sizes than training has: their buffers would only wait. */
    if (t->be->pool) icae_pool_trim(t->be->pool);
    icae_memory_return();
    return status ? icae_fail_within(error, "evaluation at step %lld", (long long)t->state.step)
                  : ICAE_OK;
}
