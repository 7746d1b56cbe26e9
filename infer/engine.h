/* SPDX-License-Identifier: MIT */
/* Model, backend, graph and adapter for the commands that need more than <icae.h>: compress, eval, bench,
 * selftest. */
#ifndef ICAE_INFER_ENGINE_H
#define ICAE_INFER_ENGINE_H

#include "icae/adapter.h"
#include "icae/graph.h"
#include "icae/model.h"
#include "options.h"

typedef struct engine {
    icae_model *model;
    icae_backend *be;
    icae_graph *graph;
    icae_adapter *adapter; /* NULL when the options name none */
} engine;

/* Opens the backend and graph, and what of base and adapter the options name. Computes in f32 unless
 * --compute bf16 was given: auto leaves results as they are on every machine. */
icae_status engine_open(engine *e, const options *given, icae_error *error);
void engine_close(engine *e);

/* Told by main.c's table, and by the commands themselves. */
#define EVAL_USAGE "SUITE -m BASE [-a ADAPTER] [--data FILE] [--out DIR]"
#define BENCH_USAGE                                                                            \
    "-m BASE [--out DIR] [--quick] [--steps N] [--lengths N,N,...] [--checkpoint]"

int run_compress(const options *given);
int run_eval(const options *given);
int run_bench(const options *given);
int run_selftest(const options *given);

#endif
