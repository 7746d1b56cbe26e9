/* SPDX-License-Identifier: MIT */
/*
 * icae bench: what this machine does a second, measured in one run.
 *
 *     training   8 texts of 128 random tokens -> 32 slots each, rank 32 on q and v, autoencoding:
 *                forward, backward, clipping and AdamW. Random tokens cost what real ones cost.
 *     prefill    512 tokens read by the base;  decode: 128 tokens written one by one from an empty
 *                context, by one sequence and by eight side by side; the best of three rounds each
 *     sgemm      OpenBLAS, 1024 x 1024: what the processor can do in single precision
 *     bf16       products of bfloat16 on registers alone, where the processor has them
 *
 * Useful work of a step, multiplications and additions (recomputation does not count; P = numbers in the
 * linear layers without head and embedding, s = scores per head that attention has to make):
 *     encoder, decoder   4 P a packed token: forward, and backward to the input
 *     head               4 V D a target
 *     attention          4 D s L forward, twice that backward
 *     LoRA               6 numbers of the pairs a packed encoder token
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine.h"
#include "icae/generate.h"
#include "icae/log.h"
#include "icae/optimizer.h"
#include "icae/rng.h"
#include "report.h"

enum {
    SAMPLES = 8,
    TEXT_TOKENS = 128,
    SLOTS = 32,
    RANK = 32,
    PREFILL = 512,
    DECODE = 128,
    ABREAST = 8,
    ROUNDS = 3
};

typedef struct figures {
    double step_s, best_step_s; /* median, and the fastest */
    double context_tokens_s, gflop, gflops, sgemm_gflops, bf16_gflops;
    double prefill_tokens_s, decode_tokens_s, abreast_tokens_s;
    double peak_rss_bytes;
    double loss;
} figures;

static double peak_rss(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024; /* Linux counts KiB */
}

static void random_ids(int32_t *ids, int64_t n, int64_t vocabulary, uint64_t seed) {
    icae_rng rng = {.seed = seed};
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)icae_rng_below(&rng, (uint64_t)vocabulary);
}

/* ---- training ---- */

typedef struct work {
    int32_t ids[SAMPLES][TEXT_TOKENS + 1]; /* the text and eos, which is its target too */
    icae_context contexts[SAMPLES];
    icae_job jobs[SAMPLES];
    icae_batch batch;
} work;

static void make_work(work *w, const icae_model *model, uint64_t seed) {
    int32_t eos = icae_tokenizer_eos(model->tokenizer);
    for (int64_t i = 0; i < SAMPLES; i++) {
        random_ids(w->ids[i], TEXT_TOKENS, model->config.vocabulary,
                   icae_mix64(seed, (uint64_t)i));
        w->ids[i][TEXT_TOKENS] = eos >= 0 ? eos : 0;
        w->contexts[i] = (icae_context){w->ids[i], TEXT_TOKENS, (uint64_t)i};
        w->jobs[i] = (icae_job){.context = i,
                                .task = ICAE_TASK_AE,
                                .target = w->ids[i],
                                .n_target = TEXT_TOKENS + 1,
                                .coef = (icae_real)(1.0 / (SAMPLES * (TEXT_TOKENS + 1)))};
    }
    w->batch = (icae_batch){w->contexts, SAMPLES, w->jobs, SAMPLES};
}

/* Useful work of one step, in units of 1e9. */
static double useful_gflop(const icae_model *model, const icae_adapter *adapter,
                           const icae_batch *batch) {
    const icae_model_config *c = &model->config;
    icae_batch_size size = icae_batch_measure(adapter, batch);
    double packed = (double)(size.encoder_tokens + size.decoder_tokens);
    double linear = 4 * icae_model_linear_parameters(c) * packed;
    double head = 4 * (double)c->vocabulary * (double)c->width * (double)size.targets;
    double per_score = 4 * (double)(c->heads * c->head_width) * (double)c->layers;
    double attention = 3 * per_score * size.attention_products;
    double pairs = (double)(adapter->params.count - icae_tensor_count(adapter->memory));
    double lora = 6 * pairs * (double)size.encoder_tokens;
    return 1e-9 * (linear + head + attention + lora);
}

static icae_status train_step(engine *e, const work *w, icae_optimizer *optimizer,
                              bool is_saving, uint64_t seed, double *loss_value,
                              icae_error *error) {
    icae_params *params = &e->adapter->params;
    icae_params_zero_gradients(params);
    icae_graph_begin(e->graph, true, false);
    icae_run run = {.is_training = true, .is_checkpointed = is_saving, .seed = seed};
    double nll[SAMPLES];
    icae_tensor *loss =
        icae_batch_loss(e->graph, e->model, e->adapter, &w->batch, &run, nll, NULL);
    icae_status status = icae_graph_status(e->graph, error);
    if (!status) status = icae_graph_backward(e->graph, loss, error);
    if (status) return status;
    icae_optimizer_step(optimizer, params, 1e-4);
    *loss_value = 0;
    for (int i = 0; i < SAMPLES; i++)
        *loss_value += nll[i] / (SAMPLES * (TEXT_TOKENS + 1));
    return ICAE_OK;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static icae_status time_training(engine *e, const options *given, figures *f,
                                 icae_error *error) {
    icae_adapter_settings settings = icae_adapter_defaults(e->model);
    settings.memory_slots = SLOTS;
    settings.compression_rate = TEXT_TOKENS / SLOTS;
    settings.rank = RANK;
    memset(settings.targets, 0, sizeof settings.targets);
    settings.targets[ICAE_MODULE_Q] = settings.targets[ICAE_MODULE_V] = true;
    icae_status status = icae_adapter_create(&e->adapter, e->model, &settings,
                                             (uint64_t)given->seed, e->be, true, error);
    if (status) return status;
    work *w = calloc(1, sizeof *w);
    double *times = calloc((size_t)given->steps, sizeof *times);
    if (!w || !times) status = icae_fail_memory(error, "a batch");
    icae_optimizer optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip_norm = 2};
    for (int64_t s = -1; s < given->steps && !status; s++) { /* the first one warms up */
        make_work(w, e->model, icae_mix64((uint64_t)given->seed, (uint64_t)(s + 1)));
        double start_s = icae_clock_seconds();
        status = train_step(e, w, &optimizer, given->is_checkpointed, (uint64_t)(s + 1),
                            &f->loss, error);
        if (s >= 0) times[s] = icae_clock_seconds() - start_s;
        icae_progress_show("bench  training step %lld of %lld", (long long)(s + 1),
                           (long long)given->steps);
        if (!status && signal_caught())
            status = icae_fail(error, ICAE_INTERRUPTED, "stopped by a signal");
    }
    if (!status) {
        qsort(times, (size_t)given->steps, sizeof *times, by_value);
        f->step_s = times[given->steps / 2];
        f->best_step_s = times[0];
        f->context_tokens_s = SAMPLES * TEXT_TOKENS / f->step_s;
        f->gflop = useful_gflop(e->model, e->adapter, &w->batch);
        f->gflops = f->gflop / f->step_s;
    }
    f->peak_rss_bytes = peak_rss();
    free(times);
    free(w);
    return status;
}

/* ---- generation ---- */

typedef struct stopwatch {
    int64_t n_requests, tokens;
    double start_s, first_s, last_s; /* when every request had its first token, and the end */
} stopwatch;

static bool note_time(void *user, int64_t request, int32_t id) {
    stopwatch *watch = user;
    (void)request;
    (void)id;
    watch->last_s = icae_clock_seconds();
    if (++watch->tokens == watch->n_requests) watch->first_s = watch->last_s;
    return signal_caught() == 0;
}

/* n requests of n_prompt tokens each write max_tokens more; *watch tells when. */
static icae_status time_requests(engine *e, const int32_t *prompt, int64_t n_prompt, int64_t n,
                                 int64_t max_tokens, stopwatch *watch, icae_error *error) {
    icae_request requests[ABREAST];
    icae_result results[ABREAST] = {{0}};
    icae_sampling greedy = {.top_p = 1};
    for (int64_t i = 0; i < n; i++) {
        requests[i] = (icae_request){.prompt = prompt + i * n_prompt,
                                     .n_prompt = n_prompt,
                                     .max_tokens = max_tokens,
                                     .stop = -1};
    }
    *watch = (stopwatch){.n_requests = n, .start_s = icae_clock_seconds()};
    icae_status status = icae_generate(e->graph, e->model, NULL, requests, n, &greedy,
                                       note_time, watch, results, error);
    icae_results_release(results, n);
    return status;
}

static icae_status time_generation(engine *e, const options *given, figures *f,
                                   icae_error *error) {
    int64_t context = e->model->config.context_length;
    int64_t n_prompt = context < PREFILL + 1 ? context / 2 : PREFILL;
    int64_t n_new = context < DECODE + 2 ? context - 1 : DECODE + 1;
    int32_t prompt[PREFILL];
    random_ids(prompt, PREFILL, e->model->config.vocabulary, (uint64_t)given->seed);
    for (int round = 0; round <= ROUNDS; round++) { /* the first one warms up */
        stopwatch read, alone, abreast;
        icae_status status = time_requests(e, prompt, n_prompt, 1, 1, &read, error);
        if (!status) status = time_requests(e, prompt, 1, 1, n_new, &alone, error);
        if (!status) status = time_requests(e, prompt, 1, ABREAST, n_new, &abreast, error);
        if (status) return status;
        if (round == 0) continue;
        double steps = (double)(n_new - 1);
        f->prefill_tokens_s =
            fmax(f->prefill_tokens_s, (double)n_prompt / (read.first_s - read.start_s));
        f->decode_tokens_s = fmax(f->decode_tokens_s, steps / (alone.last_s - alone.first_s));
        f->abreast_tokens_s =
            fmax(f->abreast_tokens_s, ABREAST * steps / (abreast.last_s - abreast.first_s));
    }
    return ICAE_OK;
}

/* ---- the report ---- */

static int print_figures(const options *given, const engine *e, const figures *f) {
    double share = f->sgemm_gflops > 0 ? 100 * f->gflops / f->sgemm_gflops : 0;
    double bf16_share = f->bf16_gflops > 0 ? 100 * f->gflops / f->bf16_gflops : 0;
    const char *compute = icae_compute_names[e->be->compute];
    if (given->is_json) {
        json_object object;
        json_begin(&object);
        json_string(&object, "base", given->base, strlen(given->base));
        json_string(&object, "cpu_level", e->be->name, strlen(e->be->name));
        json_string(&object, "compute", compute, strlen(compute));
        json_integer(&object, "threads", e->be->n_threads);
        json_bool(&object, "checkpointing", given->is_checkpointed);
        json_number(&object, "sgemm_gflops", f->sgemm_gflops);
        json_number(&object, "bf16_gflops", f->bf16_gflops);
        if (given->steps > 0) {
            json_number(&object, "train_step_seconds", f->step_s);
            json_number(&object, "train_best_step_seconds", f->best_step_s);
            json_number(&object, "train_context_tokens_per_second", f->context_tokens_s);
            json_number(&object, "train_gflop_per_step", f->gflop);
            json_number(&object, "train_gflops", f->gflops);
            json_number(&object, "percent_of_sgemm", share);
            json_number(&object, "percent_of_bf16", bf16_share);
            json_number(&object, "train_peak_rss_bytes", f->peak_rss_bytes);
            json_number(&object, "train_loss", f->loss);
        }
        json_number(&object, "prefill_tokens_per_second", f->prefill_tokens_s);
        json_number(&object, "decode_tokens_per_second", f->decode_tokens_s);
        json_number(&object, "decode_8_abreast_tokens_per_second", f->abreast_tokens_s);
        return json_end(&object);
    }
    char bytes[32];
    printf("machine    %s kernels, %d threads; OpenBLAS sgemm %.0f GFLOP/s", e->be->name,
           e->be->n_threads, f->sgemm_gflops);
    if (f->bf16_gflops > 0) printf(", bf16 in registers %.0f", f->bf16_gflops);
    printf("\ncompute    %s\n", compute);
    if (given->steps > 0) {
        printf("training   %.1f context tokens/s (%d x %d tokens -> %d slots, rank %d; a step "
               "takes "
               "%.2f s, the best %.2f s)\n",
               f->context_tokens_s, SAMPLES, TEXT_TOKENS, SLOTS, RANK, f->step_s,
               f->best_step_s);
        printf("           %.1f GFLOP/s of useful work (%.0f GFLOP a step) = %.1f %% of sgemm",
               f->gflops, f->gflop, share);
        if (f->bf16_gflops > 0) printf(", %.1f %% of bf16", bf16_share);
        putchar('\n');
        printf("           peak memory %s%s\n", human_bytes(f->peak_rss_bytes, bytes),
               given->is_checkpointed ? ", with checkpointing" : "");
    }
    printf("prefill    %.1f tokens/s (%d tokens)\n", f->prefill_tokens_s, PREFILL);
    printf("decode     %.1f tokens/s (%d tokens), %.1f in %d sequences side by side\n",
           f->decode_tokens_s, DECODE, f->abreast_tokens_s, ABREAST);
    return finish_output();
}

int run_bench(const options *given) {
    engine e;
    figures f = {0};
    icae_error error = {0};
    signals_catch();
    icae_status status = engine_open(&e, given, &error);
    if (!status && (!given->compute || !strcmp(given->compute, "auto"))) {
        icae_backend_set_compute(e.be, ICAE_COMPUTE_AUTO); /* as training takes it */
    }
    if (!status && given->steps > 0) status = time_training(&e, given, &f, &error);
    if (!status) status = time_generation(&e, given, &f, &error);
    if (!status) f.sgemm_gflops = icae_cpu_sgemm_peak(e.be->n_threads, 1.0);
    if (!status) f.bf16_gflops = icae_cpu_bf16_peak(e.be->n_threads, 0.5);
    icae_progress_done();
    int code = status ? report_failure(&error) : print_figures(given, &e, &f);
    engine_close(&e);
    return code;
}
