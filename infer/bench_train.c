/* SPDX-License-Identifier: MIT */
/*
 * Training for icae bench: texts of random tokens, sorted by length and cut into batches, each a step of
 * forward, backward, clipping and AdamW. A round is a pass over all texts.
 */
#include "bench_train.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "icae/log.h"
#include "icae/objective.h"
#include "icae/optimizer.h"
#include "icae/rehearsal.h"
#include "icae/rng.h"
#include "report.h"

enum { DEFAULT_LENGTH = 128, MOST_TEXTS = 4096, LONGEST = 1 << 20 };

/* All texts of a round; batch b is texts b * BENCH_BATCH and on. */
typedef struct work {
    int64_t n_texts, n_batches, n_tokens;
    int64_t *lengths;
    int32_t *ids; /* of every text, and eos behind it, which is its target too */
    icae_context *contexts;
    icae_job *jobs;
    icae_batch *batches;
} work;

void bench_random_ids(int32_t *ids, int64_t n, int64_t vocabulary, uint64_t seed) {
    icae_rng rng = {.seed = seed};
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)icae_rng_below(&rng, (uint64_t)vocabulary);
}

static int by_length(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* "20,512,77" to lengths, sorted; NULL is one batch of the default. */
static icae_status read_lengths(const char *list, work *w, icae_error *error) {
    w->lengths = calloc(MOST_TEXTS, sizeof *w->lengths);
    if (!w->lengths) return icae_fail_memory(error, "the lengths of texts");
    if (!list) {
        for (w->n_texts = 0; w->n_texts < BENCH_BATCH; w->n_texts++)
            w->lengths[w->n_texts] = DEFAULT_LENGTH;
    }
    const char *at = list;
    while (at) {
        char *end;
        errno = 0;
        long long length = strtoll(at, &end, 10);
        bool is_sound = end > at && !errno && (*end == ',' || !*end) && length >= 1 &&
                        length <= LONGEST && w->n_texts < MOST_TEXTS;
        if (!is_sound) {
            return icae_fail(error, ICAE_INVALID,
                             "--lengths: at \"%.20s\": expected at most %d numbers of 1 to %d "
                             "with commas between",
                             at, MOST_TEXTS, LONGEST);
        }
        w->lengths[w->n_texts++] = length;
        at = *end ? end + 1 : NULL;
    }
    qsort(w->lengths, (size_t)w->n_texts, sizeof *w->lengths, by_length);
    for (int64_t i = 0; i < w->n_texts; i++)
        w->n_tokens += w->lengths[i];
    w->n_batches = (w->n_texts + BENCH_BATCH - 1) / BENCH_BATCH;
    return ICAE_OK;
}

static void release(work *w) {
    free(w->lengths);
    free(w->ids);
    free(w->contexts);
    free(w->jobs);
    free(w->batches);
}

icae_status bench_check_lengths(const char *list, icae_error *error) {
    work w = {0};
    icae_status status = read_lengths(list, &w, error);
    release(&w);
    return status;
}

static icae_status allocate(work *w, icae_error *error) {
    size_t n = (size_t)w->n_texts;
    w->ids = calloc((size_t)w->n_tokens + n, sizeof *w->ids);
    w->contexts = calloc(n, sizeof *w->contexts);
    w->jobs = calloc(n, sizeof *w->jobs);
    w->batches = calloc((size_t)w->n_batches, sizeof *w->batches);
    bool is_whole = w->ids && w->contexts && w->jobs && w->batches;
    return is_whole ? ICAE_OK : icae_fail_memory(error, "texts to train on");
}

/* New texts of the same lengths. */
static void fill(work *w, const icae_model *model, uint64_t seed) {
    int32_t eos = icae_tokenizer_eos(model->tokenizer), *ids = w->ids;
    for (int64_t b = 0; b < w->n_batches; b++) {
        int64_t first = b * BENCH_BATCH, n = w->n_texts - first, targets = 0;
        if (n > BENCH_BATCH) n = BENCH_BATCH;
        for (int64_t i = 0; i < n; i++)
            targets += w->lengths[first + i] + 1;
        for (int64_t i = 0; i < n; i++) {
            int64_t length = w->lengths[first + i];
            bench_random_ids(ids, length, model->config.vocabulary,
                             icae_mix64(seed, (uint64_t)(first + i)));
            ids[length] = eos >= 0 ? eos : 0;
            w->contexts[first + i] = (icae_context){ids, length, (uint64_t)i};
            w->jobs[first + i] = (icae_job){.context = i,
                                            .task = ICAE_TASK_AE,
                                            .target = ids,
                                            .n_target = length + 1,
                                            .coef = (icae_real)(1.0 / (double)targets)};
            ids += length + 1;
        }
        w->batches[b] = (icae_batch){w->contexts + first, n, w->jobs + first, n};
    }
}

/* Useful work of a round, in units of 1e9; how it is counted stands in bench.c. */
static double useful_gflop(const icae_model *model, const icae_adapter *adapter,
                           const work *w) {
    const icae_model_config *c = &model->config;
    double flop = 0;
    for (int64_t b = 0; b < w->n_batches; b++) {
        icae_batch_size size = icae_batch_measure(adapter, &w->batches[b]);
        double packed = (double)(size.encoder_tokens + size.decoder_tokens);
        double per_score = 4 * (double)(c->heads * c->head_width) * (double)c->layers;
        double pairs = (double)(adapter->params.count - icae_tensor_count(adapter->memory));
        flop += 4 * icae_model_linear_parameters(c) * packed +
                4 * (double)c->vocabulary * (double)c->width * (double)size.targets +
                3 * per_score * size.attention_products +
                6 * pairs * (double)size.encoder_tokens;
    }
    return 1e-9 * flop;
}

/* Texts are sorted: the last is the longest. */
static int64_t pass_limit(const engine *e, const work *w) {
    const icae_batch *batch = &w->batches[w->n_batches - 1];
    icae_job job = batch->jobs[batch->n_jobs - 1];
    job.context = 0;
    icae_batch one = {batch->contexts + batch->n_contexts - 1, 1, &job, 1};
    icae_batch_size size = icae_batch_measure(e->adapter, &one);
    return icae_pass_limit(size.encoder_tokens > size.decoder_tokens ? size.encoder_tokens
                                                                     : size.decoder_tokens);
}

/* Forward and backward of a batch, in passes as a training run makes them. */
static icae_status run_batch(engine *e, const icae_batch *batch, int64_t limit,
                             const icae_run *run, double *sum, icae_error *error) {
    for (int64_t first = 0, end; first < batch->n_jobs; first = end) {
        end = icae_pass_end(e->adapter, batch, first, limit, false);
        icae_graph_begin(e->graph, true, false);
        icae_batch part;
        if (!icae_batch_part(e->graph, batch, first, end, &part))
            return icae_graph_status(e->graph, error);
        double nll[BENCH_BATCH];
        icae_tensor *loss =
            icae_batch_loss(e->graph, e->model, e->adapter, &part, run, nll, NULL);
        icae_status status = icae_graph_status(e->graph, error);
        if (!status) status = icae_graph_backward(e->graph, loss, error);
        if (!status && signal_caught())
            status = icae_fail(error, ICAE_INTERRUPTED, "stopped by a signal");
        if (status) return status;
        for (int64_t i = 0; i < part.n_jobs; i++)
            *sum += nll[i];
    }
    return ICAE_OK;
}

static icae_status train_round(engine *e, const work *w, icae_optimizer *optimizer,
                               bool is_saving, uint64_t seed, double *loss_value,
                               icae_error *error) {
    icae_params *params = &e->adapter->params;
    double sum = 0;
    for (int64_t b = 0; b < w->n_batches; b++) {
        icae_params_zero_gradients(params);
        icae_run run = {.is_training = true,
                        .is_checkpointed = is_saving,
                        .seed = icae_mix64(seed, (uint64_t)b)};
        icae_status status = run_batch(e, &w->batches[b], pass_limit(e, w), &run, &sum, error);
        if (status) return status;
        icae_optimizer_step(optimizer, params, 1e-4);
    }
    *loss_value = sum / (double)(w->n_tokens + w->n_texts);
    return ICAE_OK;
}

static double peak_rss_bytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024; /* Linux counts KiB */
}

/* OpenBLAS's speed for a while between two rounds, so that both are taken from the same minutes. */
static void time_sgemm(const engine *e, double round_s, training_figures *f, int *n) {
    double seconds = round_s / 5 < 2 ? round_s / 5 : 2, mean;
    double best = icae_cpu_sgemm_peak(e->be->n_threads, seconds, &mean);
    if (best <= 0) return; /* no memory for it */
    if (best > f->sgemm_best) f->sgemm_best = best;
    f->sgemm_mean += (mean - f->sgemm_mean) / ++*n;
}

static icae_status time_rounds(engine *e, const training_case *c, work *w, training_figures *f,
                               icae_error *error) {
    double *times = calloc((size_t)c->rounds, sizeof *times);
    if (!times) return icae_fail_memory(error, "a list of times");
    icae_optimizer optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip_norm = 2};
    icae_status status = ICAE_OK;
    int n_sgemm = 0;
    for (int64_t s = -1; s < c->rounds && !status; s++) { /* the first one warms up */
        fill(w, e->model, icae_mix64((uint64_t)c->seed, (uint64_t)(s + 1)));
        if (s >= 0) icae_graph_profile(e->graph, &f->profile);
        double start_s = icae_clock_seconds();
        status = train_round(e, w, &optimizer, c->is_checkpointed, (uint64_t)(s + 1), &f->loss,
                             error);
        double round_s = icae_clock_seconds() - start_s;
        if (s >= 0) f->all_rounds_s += times[s] = round_s;
        if (s < 0) f->peak_rss_bytes = peak_rss_bytes(); /* without sgemm's matrices */
        if (!status && c->with_sgemm) time_sgemm(e, round_s, f, &n_sgemm);
        icae_progress_show("bench  training round %lld of %lld", (long long)(s + 1),
                           (long long)c->rounds);
    }
    icae_graph_profile(e->graph, NULL);
    if (!status) {
        qsort(times, (size_t)c->rounds, sizeof *times, by_value);
        f->round_s = (times[(c->rounds - 1) / 2] + times[c->rounds / 2]) / 2;
        f->best_round_s = times[0];
        f->context_tokens_s = (double)w->n_tokens / f->round_s;
        f->gflop = useful_gflop(e->model, e->adapter, w);
        f->gflops = f->gflop / f->round_s;
    }
    free(times);
    return status;
}

/* What the tensors of the last batch's first pass take: it has the longest texts. */
static icae_status measure_tensors(const engine *e, const training_case *c, const work *w,
                                   training_figures *f, icae_error *error) {
    icae_footprint footprint;
    const icae_batch *last = &w->batches[w->n_batches - 1];
    icae_batch part;
    icae_graph_begin(e->graph, false, false);
    int64_t end = icae_pass_end(e->adapter, last, 0, pass_limit(e, w), false);
    if (!icae_batch_part(e->graph, last, 0, end, &part))
        return icae_graph_status(e->graph, error);
    icae_status status = icae_rehearse(&footprint, e->be, e->model, e->adapter, &part,
                                       e->be->compute, true, c->is_checkpointed, error);
    f->tensor_bytes = (double)footprint.resident_bytes;
    return status;
}

icae_status bench_training(engine *e, const training_case *c, training_figures *f,
                           icae_error *error) {
    *f = (training_figures){0};
    icae_adapter_settings settings = icae_adapter_defaults(e->model);
    settings.memory_slots = BENCH_SLOTS;
    settings.compression_rate = BENCH_RATE;
    settings.rank = c->rank;
    memset(settings.targets, 0, sizeof settings.targets);
    settings.targets[ICAE_MODULE_Q] = settings.targets[ICAE_MODULE_V] = true;
    icae_graph_begin(e->graph, false, false);
    icae_adapter_free(e->adapter);
    e->adapter = NULL;
    if (e->be->pool) icae_pool_trim(e->be->pool);
    work w = {0};
    icae_status status = read_lengths(c->lengths, &w, error);
    if (!status) status = allocate(&w, error);
    if (!status)
        status = icae_adapter_create(&e->adapter, e->model, &settings, (uint64_t)c->seed, e->be,
                                     true, error);
    if (!status) status = time_rounds(e, c, &w, f, error);
    if (!status) status = measure_tensors(e, c, &w, f, error);
    f->texts = w.n_texts;
    f->context_tokens = w.n_tokens;
    release(&w);
    return status;
}
