/* SPDX-License-Identifier: MIT */
/*
 * icae bench: what this machine does a second, measured in one run.
 *
 *     training   8 texts of 128 random tokens -> 32 slots each, rank 32 on q and v, autoencoding
 *                (bench_train.c), or texts of the lengths given, in spans of at most 128 tokens
 *     prefill    512 tokens read by the base;  decode: 128 tokens written one by one from an empty
 *                context, by one sequence and by eight side by side; the best of three rounds each
 *     ceilings   what the processor can do at most (bench_ceilings.c)
 *
 * With --out or --quick all of that becomes a report with tables and pictures (bench_report.c).
 *
 * Useful work of a step, multiplications and additions (recomputation does not count; P = numbers in the
 * linear layers without head and embedding, s = scores per head that attention has to make):
 *     encoder, decoder   4 P a packed token: forward, and backward to the input
 *     head               4 V D a target
 *     attention          4 D s L forward, twice that backward
 *     LoRA               6 numbers of the pairs a packed encoder token
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_train.h"
#include "icae/generate.h"
#include "icae/log.h"
#include "report.h"

enum { PREFILL = 512, DECODE = 128, ABREAST = 8, ROUNDS = 3 };

typedef struct figures {
    training_figures training;
    icae_compute training_compute;
    ceilings peak;
    generation_figures generation;
} figures;

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

icae_status bench_generation(engine *e, int64_t seed, int rounds, generation_figures *f,
                             icae_error *error) {
    int64_t context = e->model->config.context_length;
    int64_t n_prompt = context < PREFILL + 1 ? context / 2 : PREFILL;
    int64_t n_new = context < DECODE + 2 ? context - 1 : DECODE + 1;
    int32_t prompt[PREFILL];
    bench_random_ids(prompt, PREFILL, e->model->config.vocabulary, (uint64_t)seed);
    *f = (generation_figures){.n_read = n_prompt, .n_written = n_new - 1};
    for (int round = 0; round <= rounds; round++) { /* the first one warms up */
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

static double percent(double part, double whole) {
    return whole > 0 ? 100 * part / whole : 0;
}

/* Shares of the time of training, an op each, forward and backward together; the largest first. */
static void print_shares(const icae_profile *profile) {
    double total_s = 0, of[ICAE_OP_COUNT];
    for (int op = 0; op < ICAE_OP_COUNT; op++) {
        of[op] = profile->forward_s[op] + profile->backward_s[op];
        total_s += of[op];
    }
    printf("           of its time:");
    for (int shown = 0;; shown++) {
        int best = 0;
        for (int op = 1; op < ICAE_OP_COUNT; op++) {
            if (of[op] > of[best]) best = op;
        }
        if (percent(of[best], total_s) < 0.5) break;
        printf("%s %s %.0f %%", shown ? "," : "", icae_op_names[best],
               percent(of[best], total_s));
        of[best] = 0;
    }
    putchar('\n');
}

static void print_training(const options *given, const figures *f) {
    const training_figures *t = &f->training;
    char bytes[32], what[96];
    if (given->lengths) {
        snprintf(what, sizeof what, "%lld texts, %lld tokens", (long long)t->texts,
                 (long long)t->context_tokens);
    } else {
        snprintf(what, sizeof what, "%lld x %lld tokens -> %d slots", (long long)t->texts,
                 (long long)(t->context_tokens / t->texts), BENCH_SLOTS);
    }
    printf("training   %.1f context tokens/s (%s, rank %d; a round takes %.2f s, the best "
           "%.2f s)\n",
           t->context_tokens_s, what, BENCH_RANK, t->round_s, t->best_round_s);
    printf("           %.1f GFLOP/s of useful work (%.0f GFLOP a round) = %.1f %% of sgemm's "
           "best",
           t->gflops, t->gflop, percent(t->gflops, f->peak.sgemm_gflops));
    if (t->sgemm_mean > 0)
        printf(", %.1f %% of its mean between rounds (%.0f)", percent(t->gflops, t->sgemm_mean),
               t->sgemm_mean);
    if (f->peak.bf16_gflops > 0)
        printf(", %.1f %% of bf16", percent(t->gflops, f->peak.bf16_gflops));
    putchar('\n');
    print_shares(&t->profile);
    printf("           peak memory %s%s\n", human_bytes(t->peak_rss_bytes, bytes),
           given->is_checkpointed ? ", with checkpointing" : "");
}

static void write_training(json_object *object, const figures *f) {
    const training_figures *t = &f->training;
    json_integer(object, "train_texts", t->texts);
    json_integer(object, "train_context_tokens", t->context_tokens);
    json_number(object, "train_round_seconds", t->round_s);
    json_number(object, "train_best_round_seconds", t->best_round_s);
    json_number(object, "train_context_tokens_per_second", t->context_tokens_s);
    json_number(object, "train_gflop_per_round", t->gflop);
    json_number(object, "train_gflops", t->gflops);
    json_number(object, "percent_of_sgemm", percent(t->gflops, f->peak.sgemm_gflops));
    json_number(object, "sgemm_gflops_between_rounds", t->sgemm_mean);
    json_number(object, "percent_of_sgemm_between_rounds", percent(t->gflops, t->sgemm_mean));
    json_number(object, "percent_of_bf16", percent(t->gflops, f->peak.bf16_gflops));
    json_number(object, "train_peak_rss_bytes", t->peak_rss_bytes);
    json_number(object, "train_loss", t->loss);
    for (int op = 0; op < ICAE_OP_COUNT; op++) {
        char name[64];
        snprintf(name, sizeof name, "%s_forward_seconds", icae_op_names[op]);
        json_number(object, name, t->profile.forward_s[op]);
        snprintf(name, sizeof name, "%s_backward_seconds", icae_op_names[op]);
        json_number(object, name, t->profile.backward_s[op]);
    }
}

static int print_figures(const options *given, const engine *e, const figures *f) {
    const char *compute = icae_compute_names[f->training_compute];
    const char *inference = icae_compute_names[e->be->compute];
    if (given->is_json) {
        json_object object;
        json_begin(&object);
        json_string(&object, "base", given->base, strlen(given->base));
        json_string(&object, "cpu_level", e->be->name, strlen(e->be->name));
        json_string(&object, "compute", compute, strlen(compute));
        json_string(&object, "inference_compute", inference, strlen(inference));
        json_integer(&object, "threads", e->be->n_threads);
        json_bool(&object, "checkpointing", given->is_checkpointed);
        json_number(&object, "fma_gflops", f->peak.fma_gflops);
        json_number(&object, "sgemm_gflops", f->peak.sgemm_gflops);
        const char *core = icae_cpu_sgemm_core();
        json_string(&object, "sgemm_core", core, strlen(core));
        json_number(&object, "memory_read_gb_s", f->peak.read_gb_s);
        json_number(&object, "bf16_gflops", f->peak.bf16_gflops);
        if (given->steps > 0) write_training(&object, f);
        json_number(&object, "prefill_tokens_per_second", f->generation.prefill_tokens_s);
        json_number(&object, "decode_tokens_per_second", f->generation.decode_tokens_s);
        json_number(&object, "decode_8_abreast_tokens_per_second",
                    f->generation.abreast_tokens_s);
        return json_end(&object);
    }
    printf("machine    %s kernels, %d thread%s; OpenBLAS (%s) sgemm %.0f GFLOP/s", e->be->name,
           e->be->n_threads, e->be->n_threads == 1 ? "" : "s", icae_cpu_sgemm_core(),
           f->peak.sgemm_gflops);
    if (f->peak.bf16_gflops > 0) printf(", bf16 in registers %.0f", f->peak.bf16_gflops);
    printf("\ncompute    %s in training, %s in reading and writing\n", compute, inference);
    if (given->steps > 0) print_training(given, f);
    const generation_figures *g = &f->generation;
    printf("prefill    %.1f tokens/s (%lld tokens)\n", g->prefill_tokens_s,
           (long long)g->n_read);
    printf("decode     %.1f tokens/s (%lld tokens), %.1f in %d sequences side by side\n",
           g->decode_tokens_s, (long long)g->n_written, g->abreast_tokens_s, ABREAST);
    return finish_output();
}

static int run_plain(engine *e, const options *given) {
    figures f = {0};
    icae_error error = {0};
    icae_status status = ICAE_OK;
    /* the same type as the programs take: auto is not the same for both */
    icae_compute inference = e->be->compute;
    bool is_auto = !given->compute || !strcmp(given->compute, "auto");
    if (is_auto) icae_backend_set_compute(e->be, ICAE_COMPUTE_AUTO);
    f.training_compute = e->be->compute;
    training_case c = {.lengths = given->lengths,
                       .rank = BENCH_RANK,
                       .rounds = given->steps,
                       .is_checkpointed = given->is_checkpointed,
                       .with_sgemm = true,
                       .seed = given->seed};
    if (given->steps > 0) status = bench_training(e, &c, &f.training, &error);
    icae_backend_set_compute(e->be, inference);
    if (!status) status = bench_generation(e, given->seed, ROUNDS, &f.generation, &error);
    if (!status) f.peak = bench_ceilings(e->be->n_threads, 0.5);
    f.peak.sgemm_gflops = fmax(f.peak.sgemm_gflops, f.training.sgemm_best);
    icae_progress_done();
    return status ? report_failure(&error) : print_figures(given, e, &f);
}

int run_bench(const options *given) {
    engine e;
    icae_error error = {0};
    if (bench_check_lengths(given->lengths, &error))
        return usage_error("bench", BENCH_USAGE, "%s", error.message);
    signals_catch();
    icae_status status = engine_open(&e, given, &error);
    int code = status                                 ? report_failure(&error)
               : given->is_quick || given->out_folder ? bench_report(&e, given)
                                                      : run_plain(&e, given);
    engine_close(&e);
    return code;
}
