/* SPDX-License-Identifier: MIT */
/*
 * What the files of icae bench share: bench.c, bench_train.c, bench_ceilings.c, bench_measure.c,
 * bench_report.c.
 */
#ifndef ICAE_INFER_BENCH_TRAIN_H
#define ICAE_INFER_BENCH_TRAIN_H

#include "engine.h"

enum { BENCH_BATCH = 8, BENCH_SLOTS = 32, BENCH_RATE = 4, BENCH_RANK = 32 };

/* ---- bench_train.c ---- */

/* What is trained on, and how often. */
typedef struct training_case {
    const char *lengths; /* "128,20": tokens of the texts; NULL: BENCH_BATCH of 128 */
    int64_t rank, rounds;
    bool is_checkpointed;
    bool with_sgemm; /* time sgemm between the rounds */
    int64_t seed;
} training_case;

typedef struct training_figures {
    int64_t texts, context_tokens; /* of a round */
    double round_s, best_round_s;  /* a pass over all texts: median, and the fastest */
    double context_tokens_s, gflop, gflops;
    double sgemm_best,
        sgemm_mean;        /* GFLOP/s of OpenBLAS between the timed rounds; 0: not timed */
    double peak_rss_bytes; /* of the process, after the first round */
    double tensor_bytes;   /* of the largest batch, as rehearsed (icae/rehearsal.h) */
    double loss;           /* nats a token, over the last round */
    double all_rounds_s;   /* timed rounds together: what the profile is a part of */
    icae_profile profile;  /* of all timed rounds */
} training_figures;

/* Whether a list of lengths can be read; if not, the error says what is wrong. */
icae_status bench_check_lengths(const char *list, icae_error *error);
/* Random token ids: they cost what real ones cost. */
void bench_random_ids(int32_t *ids, int64_t n, int64_t vocabulary, uint64_t seed);
/* Makes a fresh adapter (e->adapter, in the place of the last one) and times c->rounds rounds after one to
 * warm up, in the type of e->be. */
icae_status bench_training(engine *e, const training_case *c, training_figures *f,
                           icae_error *error);

/* ---- bench.c ---- */

/* Tokens a second, the best of some rounds. */
typedef struct generation_figures {
    double prefill_tokens_s, decode_tokens_s, abreast_tokens_s;
    int64_t n_read, n_written; /* fewer than usual in a base with short contexts */
} generation_figures;
icae_status bench_generation(engine *e, int64_t seed, int rounds, generation_figures *f,
                             icae_error *error);

/* ---- bench_ceilings.c ---- */

/* What the machine can do with n_threads threads, tried for about `seconds` each; 0: it cannot. */
typedef struct ceilings {
    double fma_gflops;   /* multiply-adds of floats on registers alone */
    double sgemm_gflops; /* OpenBLAS, 1024 x 1024 */
    double bf16_gflops;  /* products of bfloat16 on registers alone */
    double read_gb_s;    /* reading memory that no cache holds, in 1e9 bytes a second */
} ceilings;
ceilings bench_ceilings(int n_threads, double seconds);

/* ---- bench_measure.c ---- */

enum { BENCH_MOST_POINTS = 10, BENCH_MOST_TYPES = 2 };

/* What is done, full or quick. Sweeps end with 0. */
typedef struct report_extent {
    int64_t rounds, sweep_rounds;
    int generation_rounds;
    double ceiling_s;
    const char *lengths;          /* of the main training; NULL: eight of 128 */
    int64_t length_tokens;        /* tokens of a step while the length of texts changes */
    int64_t text_tokens, n_texts; /* of the other sweeps */
    int64_t by_length[BENCH_MOST_POINTS], by_batch[BENCH_MOST_POINTS],
        by_rank[BENCH_MOST_POINTS];
    bool both_types; /* f32 too where training takes bf16 */
} report_extent;

extern const report_extent bench_full_extent, bench_quick_extent; /* --out alone; --quick */

/* A training step at one place of a sweep. */
typedef struct sweep_point {
    double x;
    training_figures training;
} sweep_point;

typedef enum sweep_kind { BY_LENGTH, BY_BATCH, BY_RANK, BY_THREADS, SWEEP_COUNT } sweep_kind;

/* All that a report shows. */
typedef struct report_figures {
    const report_extent *extent;
    ceilings peak;
    int n_types;
    icae_compute types[BENCH_MOST_TYPES]; /* of training; the first is what programs take */
    training_figures training[BENCH_MOST_TYPES];
    generation_figures generation[BENCH_MOST_TYPES]; /* f32, and bf16 where it is fast */
    sweep_point points[SWEEP_COUNT][BENCH_MOST_TYPES][BENCH_MOST_POINTS];
    int n_points[SWEEP_COUNT];
    double seconds;
} report_figures;

/* Fills in what is measured: all but extent, types and seconds, which the caller sets. */
icae_status bench_measure(engine *e, const options *given, report_figures *r,
                          icae_error *error);

/* ---- bench_report.c ---- */

/* Everything, as bench.md, bench.json and pictures in given->out_folder (NULL: nothing is written), and
 * bench.md on standard output. Returns the exit code. */
int bench_report(engine *e, const options *given);

#endif
