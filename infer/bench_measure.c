/* SPDX-License-Identifier: MIT */
/*
 * What is measured for the report of icae bench: training in each type, generation, the machine's ceilings,
 * and how a training step's cost grows with length, batch, rank and threads, one of them at a time.
 * bench_report.c shows it.
 *
 * A point of a sweep is the fastest of its rounds: other programs can only make one slower.
 */
#include <math.h>
#include <stdio.h>

#include "bench_train.h"

const report_extent bench_full_extent = {.rounds = 3,
                                         .sweep_rounds = 2,
                                         .generation_rounds = 3,
                                         .ceiling_s = 1,
                                         .length_tokens = 512,
                                         .text_tokens = 64,
                                         .n_texts = 4,
                                         .by_length = {32, 64, 128, 256, 512},
                                         .by_batch = {1, 2, 4, 8},
                                         .by_rank = {8, 32, 128, 512},
                                         .both_types = true};
const report_extent bench_quick_extent = {.rounds = 1,
                                          .sweep_rounds = 1,
                                          .generation_rounds = 1,
                                          .ceiling_s = 0.3,
                                          .lengths = "64,64,64,64",
                                          .length_tokens = 128,
                                          .text_tokens = 32,
                                          .n_texts = 2,
                                          .by_length = {32, 64, 128},
                                          .by_batch = {1, 4},
                                          .by_rank = {8, 128}};

/* "64,64,64" */
static const char *repeat(int64_t length, int64_t n, char *out, size_t bytes) {
    size_t used = 0;
    for (int64_t i = 0; i < n && used + 24 < bytes; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%lld", i ? "," : "",
                                 (long long)length);
    return out;
}

static icae_status measure_point(engine *e, const options *given, const report_extent *x,
                                 sweep_kind kind, int64_t value, sweep_point *p,
                                 icae_error *error) {
    char lengths[1024];
    int64_t length = x->text_tokens, n = x->n_texts, rank = BENCH_RANK;
    if (kind == BY_LENGTH) length = value, n = x->length_tokens / value;
    if (kind == BY_BATCH) n = value;
    if (kind == BY_RANK) rank = value;
    training_case c = {.lengths = repeat(length, n > 0 ? n : 1, lengths, sizeof lengths),
                       .rank = rank,
                       .rounds = x->sweep_rounds,
                       .is_checkpointed = given->is_checkpointed,
                       .seed = given->seed};
    p->x = (double)value;
    return bench_training(e, &c, &p->training, error);
}

/* The same model on a backend of its own with so many threads. */
static icae_status measure_threads(engine *e, const options *given, const report_extent *x,
                                   int64_t threads, sweep_point *p, icae_error *error) {
    engine other = {.model = e->model};
    icae_status status = icae_backend_create(&other.be, NULL, (int)threads, error);
    if (status) return status;
    icae_backend_set_compute(other.be, e->be->compute);
    status = icae_graph_create(&other.graph, other.be, error);
    if (!status) status = measure_point(&other, given, x, BY_THREADS, threads, p, error);
    other.model = NULL;
    engine_close(&other);
    return status;
}

/* 1, 2, 4, .. and all. */
static int thread_counts(int all, int64_t *counts) {
    int n = 0;
    for (int64_t t = 1; t < all && n < BENCH_MOST_POINTS - 1; t *= 2)
        counts[n++] = t;
    counts[n++] = all;
    return n;
}

static icae_status measure_sweeps(engine *e, const options *given, report_figures *r,
                                  icae_error *error) {
    const report_extent *x = r->extent;
    const int64_t *values[] = {x->by_length, x->by_batch, x->by_rank};
    int64_t threads[BENCH_MOST_POINTS];
    icae_status status = ICAE_OK;
    for (int kind = 0; kind < SWEEP_COUNT; kind++) {
        int n = kind == BY_THREADS ? thread_counts(e->be->n_threads, threads) : 0;
        while (kind != BY_THREADS && n < BENCH_MOST_POINTS && values[kind][n])
            n++;
        r->n_points[kind] = n;
        for (int type = 0; type < r->n_types; type++) {
            icae_backend_set_compute(e->be, r->types[type]);
            for (int i = 0; i < n && !status; i++) {
                sweep_point *p = &r->points[kind][type][i];
                status = kind == BY_THREADS ? measure_threads(e, given, x, threads[i], p, error)
                                            : measure_point(e, given, x, (sweep_kind)kind,
                                                            values[kind][i], p, error);
            }
        }
    }
    /* The last backend has set the number of threads of the whole process. */
    icae_backend *last;
    if (!status) status = icae_backend_create(&last, NULL, e->be->n_threads, error);
    if (!status) icae_backend_free(last);
    return status;
}

icae_status bench_measure(engine *e, const options *given, report_figures *r,
                          icae_error *error) {
    const report_extent *x = r->extent;
    icae_status status = ICAE_OK;
    for (int type = 0; type < r->n_types && !status; type++) {
        icae_backend_set_compute(e->be, r->types[type]);
        training_case c = {.lengths = given->lengths ? given->lengths : x->lengths,
                           .rank = BENCH_RANK,
                           .rounds = x->rounds,
                           .is_checkpointed = given->is_checkpointed,
                           .with_sgemm = true,
                           .seed = given->seed};
        status = bench_training(e, &c, &r->training[type], error);
        if (!status)
            status = bench_generation(e, given->seed, x->generation_rounds,
                                      &r->generation[type], error);
    }
    if (!status) r->peak = bench_ceilings(e->be->n_threads, x->ceiling_s);
    for (int type = 0; type < r->n_types; type++)
        r->peak.sgemm_gflops = fmax(r->peak.sgemm_gflops, r->training[type].sgemm_best);
    if (!status) status = measure_sweeps(e, given, r, error);
    return status;
}
