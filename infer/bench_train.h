/* SPDX-License-Identifier: MIT */
/* Timing of training steps for icae bench; bench_train.c. */
#ifndef ICAE_INFER_BENCH_TRAIN_H
#define ICAE_INFER_BENCH_TRAIN_H

#include "engine.h"

enum { BENCH_BATCH = 8, BENCH_SLOTS = 32, BENCH_RATE = 4, BENCH_RANK = 32 };

typedef struct training_figures {
    int64_t texts, context_tokens; /* of a round */
    double round_s, best_round_s;  /* a pass over all texts: median, and the fastest */
    double context_tokens_s, gflop, gflops;
    double peak_rss_bytes; /* of the process */
    double loss;           /* nats a token, over the last round */
    icae_profile profile;  /* of all timed rounds */
} training_figures;

/* Random token ids: they cost what real ones cost. */
void bench_random_ids(int32_t *ids, int64_t n, int64_t vocabulary, uint64_t seed);
/* Reads given->lengths, makes an adapter, and times given->steps rounds after one to warm up. */
icae_status bench_training(engine *e, const options *given, training_figures *f,
                           icae_error *error);

#endif
