/* SPDX-License-Identifier: MIT */
/* A golden folder while it is checked: what selftest.c reads and selftest_course.c goes on with. */
#ifndef ICAE_SELFTEST_INTERNAL_H
#define ICAE_SELFTEST_INTERNAL_H

#include "icae/json.h"
#include "icae/optimizer.h"
#include "icae/selftest.h"

typedef struct ids {
    int32_t *list;
    int64_t n;
} ids;

/* One sample of the folder, with its targets ended by eos where they should be. */
typedef struct sample {
    ids context, prefix, prompt;
    ids target[ICAE_TASK_COUNT];
    double sum[ICAE_TASK_COUNT];
    int64_t n[ICAE_TASK_COUNT];
    int64_t n_spans;
} sample;

typedef struct golden {
    icae_checks *checks;
    const char *folder;
    icae_arena arena;
    icae_json *json;
    icae_safetensors tensors;
    icae_model *model;
    icae_adapter *adapter;
    icae_graph *graph;
    sample *samples;
    int64_t n_samples;
    icae_error *error;
} golden;

double icae_golden_relative(double got, double expected);
/* Largest difference over the largest expected entry; a NaN anywhere comes out as NaN. */
double icae_golden_compare(const icae_real *got, const icae_real *expected, int64_t n);
/* Fails with the sentence that `what` of expected.json is not as it should be. */
icae_status icae_golden_broken(golden *g, const char *what);
icae_status icae_golden_number(golden *g, const icae_json_value *object, const char *key,
                               double *out);
/* Targets of a task, over all samples. */
int64_t icae_golden_targets(const golden *g, int task);
/* Runs forward and backward; sums [jobs] receives every job's loss. */
icae_status icae_golden_gradients(golden *g, const double weight[ICAE_TASK_COUNT],
                                  double *sums);
/* Every trained parameter's values or gradient against `{prefix}{parameter}`: one check. */
icae_status icae_golden_parameters(golden *g, const char *check, const char *prefix,
                                   const icae_real *made, double limit);
/* The optimizer's steps, where the folder has some. selftest_course.c. */
icae_status icae_golden_adamw(golden *g);

#endif
