/* SPDX-License-Identifier: MIT */
/*
 * The suites ae, lm and ppl; the contract stands in icae/evaluate.h.
 *
 * Everything goes batch by batch: the losses of a batch are one packed step, its restorations are
 * decoded side by side. Sums are kept in double, sample by sample, so that the order of addition and
 * with it the result is the same for every batch size.
 */
#include "icae/evaluate.h"

#include <stdlib.h>
#include <string.h>

#include "icae/metrics.h"

enum { DEFAULT_BATCH = 8 };

int64_t icae_eval_restored_limit(int64_t context_tokens) {
    return context_tokens + context_tokens / 8 + 8;
}

static int64_t batch_of(const icae_eval_options *options) {
    return options->batch > 0 ? options->batch : DEFAULT_BATCH;
}

static icae_status tell(const icae_eval_options *options, int64_t done, int64_t total,
                        icae_error *error) {
    if (!options->progress || options->progress(options->user, done, total)) return ICAE_OK;
    return icae_fail(error, ICAE_INTERRUPTED, "the evaluation was stopped after %lld of %lld",
                     (long long)done, (long long)total);
}

static icae_status check_samples(const icae_eval_sample *samples, int64_t n_samples,
                                 icae_error *error) {
    if (n_samples < 1) return icae_fail(error, ICAE_INVALID, "there is no text to evaluate on");
    for (int64_t i = 0; i < n_samples; i++) {
        if (samples[i].n < 1) {
            return icae_fail(error, ICAE_INVALID, "sample %lld has no tokens", (long long)i);
        }
    }
    return ICAE_OK;
}

/* ---- the bare base ---- */

icae_status icae_eval_base_nll(icae_graph *graph, const icae_model *model,
                               const icae_eval_sequence *sequences, int64_t n_sequences,
                               double *sums, icae_real *tokens, icae_error *error) {
    icae_graph_begin(graph, false, false);
    int64_t T = 0, targets = 0;
    for (int64_t s = 0; s < n_sequences; s++) {
        T += sequences[s].n;
        targets += sequences[s].n - sequences[s].first;
    }
    size_t rows = (size_t)T + 1, scored = (size_t)targets + 1;
    int64_t *starts = icae_graph_arena(graph, ((size_t)n_sequences + 1) * sizeof *starts);
    int32_t *positions = icae_graph_arena(graph, rows * sizeof *positions);
    int32_t *ids = icae_graph_arena(graph, rows * sizeof *ids);
    int32_t *picked = icae_graph_arena(graph, scored * sizeof *picked);
    int32_t *wanted = icae_graph_arena(graph, scored * sizeof *wanted);
    icae_real *coefs = icae_graph_arena(graph, scored * sizeof *coefs);
    icae_real *nll = icae_graph_arena(graph, scored * sizeof *nll);
    if (!starts || !positions || !ids || !picked || !wanted || !coefs || !nll) {
        return icae_graph_status(graph, error);
    }
    int64_t at = 0, target = 0;
    for (int64_t s = 0; s < n_sequences; s++) {
        const icae_eval_sequence *q = &sequences[s];
        starts[s] = at;
        for (int64_t i = 0; i < q->n; i++, at++) {
            ids[at] = q->ids[i];
            positions[at] = (int32_t)i;
            if (i < q->first) continue;
            picked[target] = (int32_t)(at - 1); /* the row before a token predicts it */
            wanted[target++] = q->ids[i];
        }
    }
    starts[n_sequences] = at;
    icae_pack pack = {n_sequences, T, starts, positions, NULL};
    icae_forward options = {.pack = &pack};
    icae_tensor *head = (icae_tensor *)(uintptr_t)&model->head;
    icae_tensor *x = icae_model_inputs(graph, model, 0, NULL, T, NULL, ids);
    icae_tensor *h = icae_model_forward(graph, model, x, &options);
    icae_done(graph, x);
    icae_tensor *last = h ? icae_rows(graph, 1, &h, targets, NULL, picked) : NULL;
    icae_done(graph, h);
    icae_tensor *loss = icae_linear_cross_entropy(graph, last, head, wanted, coefs, nll);
    icae_status status = icae_graph_status(graph, error);
    if (status || !loss) return status;
    target = 0;
    for (int64_t s = 0; s < n_sequences; s++) {
        sums[s] = 0;
        for (int64_t i = sequences[s].first; i < sequences[s].n; i++, target++) {
            sums[s] += (double)nll[target];
            if (tokens) tokens[target] = nll[target];
        }
    }
    return ICAE_OK;
}

/* ---- losses from slots ---- */

/* One job per sample of the batch, all of one task; sums [count] receives each job's nll. */
static icae_status slot_losses(icae_graph *graph, const icae_model *model,
                               const icae_adapter *adapter, const icae_eval_sample *samples,
                               int64_t count, icae_task task, int64_t skip, double *sums,
                               icae_error *error) {
    icae_graph_begin(graph, false, false);
    size_t n = (size_t)count;
    icae_context *contexts = icae_graph_arena(graph, n * sizeof *contexts);
    icae_job *jobs = icae_graph_arena(graph, n * sizeof *jobs);
    if (!contexts || !jobs) return icae_graph_status(graph, error);
    int32_t eos = icae_adapter_stop(&adapter->settings, model->tokenizer);
    for (int64_t i = 0; i < count; i++) {
        const icae_eval_sample *sample = &samples[i];
        contexts[i] = (icae_context){sample->ids, sample->n, (uint64_t)i};
        jobs[i] = (icae_job){.context = i,
                             .task = task,
                             .target = sample->continuation,
                             .n_target = sample->n_continuation,
                             .skip = skip,
                             .coef = 1};
        if (task != ICAE_TASK_AE) continue;
        int64_t length = sample->n + (eos >= 0 ? 1 : 0);
        int32_t *target = icae_graph_arena(graph, (size_t)length * sizeof *target);
        if (!target) return icae_graph_status(graph, error);
        memcpy(target, sample->ids, (size_t)sample->n * sizeof *target);
        if (eos >= 0) target[sample->n] = eos;
        jobs[i].target = target;
        jobs[i].n_target = length;
    }
    icae_batch batch = {contexts, count, jobs, count};
    icae_run run = {0};
    icae_batch_loss(graph, model, adapter, &batch, &run, sums, NULL);
    return icae_graph_status(graph, error);
}

/* ---- ae ---- */

/* Sums over samples while ae runs. */
typedef struct ae_sums {
    icae_bleu bleu;
    double nll, prefix, accuracy;
} ae_sums;

static icae_status score_text(const icae_model *model, const icae_eval_sample *sample,
                              const icae_result *made, ae_sums *sums, icae_error *error) {
    icae_text original = {0}, restored = {0};
    icae_status status = icae_tokenizer_decode(model->tokenizer, sample->ids, (size_t)sample->n,
                                               true, &original, error);
    if (!status) {
        status = icae_tokenizer_decode(model->tokenizer, made->ids, (size_t)made->n, true,
                                       &restored, error);
    }
    if (!status) {
        status = icae_bleu_add(&sums->bleu, icae_text_string(&restored), restored.length,
                               icae_text_string(&original), original.length, error);
    }
    icae_text_release(&original);
    icae_text_release(&restored);
    size_t n = (size_t)sample->n, n_made = (size_t)made->n;
    sums->prefix += icae_prefix_exact_match(made->ids, n_made, sample->ids, n);
    sums->accuracy += icae_token_accuracy(made->ids, n_made, sample->ids, n);
    return status;
}

/* Compresses and restores the samples of a batch, and scores what came out. */
static icae_status restore_batch(icae_graph *graph, const icae_model *model,
                                 const icae_adapter *adapter, const icae_eval_sample *samples,
                                 int64_t count, int64_t first, const icae_eval_options *options,
                                 ae_sums *sums, icae_eval_ae_result *result,
                                 icae_error *error) {
    size_t n = (size_t)count;
    icae_slots *slots = calloc(n, sizeof *slots);
    icae_request *requests = calloc(n, sizeof *requests);
    icae_result *made = calloc(n, sizeof *made);
    icae_status status =
        slots && requests && made ? ICAE_OK : icae_fail_memory(error, "a batch to restore");
    for (int64_t i = 0; i < count && !status; i++) {
        status = icae_compress_ids(graph, model, adapter, samples[i].ids, samples[i].n,
                                   &slots[i], error);
        requests[i] =
            (icae_request){.slots = &slots[i],
                           .task = ICAE_TASK_AE,
                           .max_tokens = icae_eval_restored_limit(samples[i].n),
                           .stop = icae_adapter_stop(&adapter->settings, model->tokenizer)};
        result->slots += slots[i].n_spans * slots[i].slots_per_span;
    }
    icae_sampling greedy = {.top_p = 1};
    if (!status) {
        status = icae_generate(graph, model, adapter, requests, count, &greedy, NULL, NULL,
                               made, error);
    }
    for (int64_t i = 0; i < count && !status; i++) {
        const icae_result *r = &made[i];
        status = score_text(model, &samples[i], r, sums, error);
        bool is_exact = r->is_stopped && r->n == samples[i].n &&
                        memcmp(r->ids, samples[i].ids, (size_t)r->n * sizeof *r->ids) == 0;
        if (is_exact) result->exact++;
        if (options->restored && !status)
            options->restored(options->user, first + i, r->ids, r->n, r->is_stopped);
    }
    if (made) icae_results_release(made, count);
    for (size_t i = 0; slots && i < n; i++)
        icae_slots_release(&slots[i]);
    free(made);
    free(requests);
    free(slots);
    return status;
}

icae_status icae_eval_ae(icae_graph *graph, const icae_model *model,
                         const icae_adapter *adapter, const icae_eval_sample *samples,
                         int64_t n_samples, const icae_eval_options *options,
                         icae_eval_ae_result *result, icae_error *error) {
    *result = (icae_eval_ae_result){0};
    icae_status status = check_samples(samples, n_samples, error);
    if (status) return status;
    int64_t batch = batch_of(options);
    int64_t eos = icae_adapter_stop(&adapter->settings, model->tokenizer) >= 0 ? 1 : 0;
    double *nll = calloc((size_t)batch, sizeof *nll);
    if (!nll) return icae_fail_memory(error, "losses");
    ae_sums sums = {0};
    for (int64_t first = 0; first < n_samples && !status; first += batch) {
        int64_t count = n_samples - first < batch ? n_samples - first : batch;
        const icae_eval_sample *some = samples + first;
        status = slot_losses(graph, model, adapter, some, count, ICAE_TASK_AE, 0, nll, error);
        for (int64_t i = 0; i < count && !status; i++) {
            sums.nll += nll[i];
            result->context_tokens += some[i].n;
            result->targets += some[i].n + eos;
        }
        if (!status && !options->is_loss_only) {
            status = restore_batch(graph, model, adapter, some, count, first, options, &sums,
                                   result, error);
        }
        if (!status) status = tell(options, first + count, n_samples, error);
    }
    free(nll);
    if (status) return status;
    result->n = n_samples;
    result->loss = sums.nll / (double)result->targets;
    result->bleu4 = icae_bleu_score(&sums.bleu);
    result->prefix_em = sums.prefix / (double)n_samples;
    result->token_accuracy = sums.accuracy / (double)n_samples;
    return ICAE_OK;
}

/* ---- lm ---- */

/* The base's loss on the continuations of a batch, behind their texts or behind nothing. */
static icae_status base_losses(icae_graph *graph, const icae_model *model,
                               const icae_eval_sample *samples, int64_t count, int64_t skip,
                               bool has_text, double *sums, icae_error *error) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++)
        total += samples[i].n + samples[i].n_continuation;
    if (count < 1 || total < 1) return ICAE_OK; /* tells gcc that sizes are sane */
    int32_t *ids = calloc((size_t)total, sizeof *ids);
    icae_eval_sequence *sequences = calloc((size_t)count, sizeof *sequences);
    icae_status status = ids && sequences ? ICAE_OK : icae_fail_memory(error, "a batch");
    int64_t at = 0;
    for (int64_t i = 0; i < count && !status; i++) {
        const icae_eval_sample *sample = &samples[i];
        int64_t before = has_text ? sample->n : 0, start = at;
        if (before) memcpy(ids + at, sample->ids, (size_t)before * sizeof *ids);
        at += before;
        memcpy(ids + at, sample->continuation, (size_t)sample->n_continuation * sizeof *ids);
        at += sample->n_continuation;
        sequences[i] = (icae_eval_sequence){ids + start, at - start, before + skip};
    }
    if (!status) {
        status = icae_eval_base_nll(graph, model, sequences, count, sums, NULL, error);
    }
    free(ids);
    free(sequences);
    return status;
}

icae_status icae_eval_lm(icae_graph *graph, const icae_model *model,
                         const icae_adapter *adapter, const icae_eval_sample *samples,
                         int64_t n_samples, const icae_eval_options *options,
                         icae_eval_lm_result *result, icae_error *error) {
    *result = (icae_eval_lm_result){0};
    icae_status status = check_samples(samples, n_samples, error);
    /* Behind nothing the first token of a continuation cannot be scored. */
    int64_t skip = options->skip > 1 ? options->skip : 1, batch = batch_of(options);
    for (int64_t i = 0; i < n_samples && !status; i++) {
        if (samples[i].n_continuation <= skip) {
            status =
                icae_fail(error, ICAE_INVALID,
                          "sample %lld has a continuation of %lld tokens; expected more "
                          "than %lld",
                          (long long)i, (long long)samples[i].n_continuation, (long long)skip);
        }
    }
    if (status) return status;
    double *nll = calloc((size_t)batch, sizeof *nll), sums[3] = {0};
    if (!nll) return icae_fail_memory(error, "losses");
    for (int64_t first = 0; first < n_samples && !status; first += batch) {
        int64_t count = n_samples - first < batch ? n_samples - first : batch;
        const icae_eval_sample *some = samples + first;
        for (int way = 0; way < 3 && !status; way++) {
            status = way == 0
                         ? slot_losses(graph, model, adapter, some, count, ICAE_TASK_LM, skip,
                                       nll, error)
                         : base_losses(graph, model, some, count, skip, way == 1, nll, error);
            for (int64_t i = 0; i < count && !status; i++)
                sums[way] += nll[i];
        }
        for (int64_t i = 0; i < count; i++) {
            result->context_tokens += some[i].n;
            result->targets += some[i].n_continuation - skip;
        }
        if (!status) status = tell(options, first + count, n_samples, error);
    }
    free(nll);
    if (status) return status;
    result->n = n_samples;
    result->loss_slots = sums[0] / (double)result->targets;
    result->loss_raw = sums[1] / (double)result->targets;
    result->loss_none = sums[2] / (double)result->targets;
    return ICAE_OK;
}

/* ---- ppl ---- */

icae_status icae_eval_ppl(icae_graph *graph, const icae_model *model,
                          const icae_eval_sample *samples, int64_t n_samples,
                          const icae_eval_options *options, icae_eval_ppl_result *result,
                          icae_error *error) {
    *result = (icae_eval_ppl_result){0};
    icae_status status = check_samples(samples, n_samples, error);
    int64_t window = options->window, stride = options->stride;
    if (!status && (window < 2 || stride < 1 || stride >= window)) {
        status =
            icae_fail(error, ICAE_INVALID,
                      "a window of %lld tokens with a stride of %lld; expected at least 2, "
                      "and a stride from 1 to the window less 1",
                      (long long)window, (long long)stride);
    }
    if (status) return status;
    double total = 0;
    for (int64_t s = 0; s < n_samples && !status; s++) {
        const icae_eval_sample *sample = &samples[s];
        int64_t scored =
            1; /* tokens that need no more scoring: the first has nothing before it */
        for (int64_t start = 0; scored < sample->n && !status; start += stride) {
            int64_t end = sample->n - start < window ? sample->n : start + window;
            icae_eval_sequence piece = {sample->ids + start, end - start, scored - start};
            double sum = 0;
            status = icae_eval_base_nll(graph, model, &piece, 1, &sum, NULL, error);
            total += sum;
            result->tokens += end - scored;
            scored = end;
        }
        if (!status) status = tell(options, s + 1, n_samples, error);
    }
    if (!status && result->tokens == 0) {
        status = icae_fail(error, ICAE_INVALID,
                           "no text has more than one token: there is nothing to predict");
    }
    if (status) return status;
    result->n = n_samples;
    result->loss = total / (double)result->tokens;
    return ICAE_OK;
}
