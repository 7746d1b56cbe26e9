/* SPDX-License-Identifier: MIT */
/*
 * Ten steps of AdamW against a golden folder; see learn/selftest_internal.h.
 *
 * AdamW divides by the size of the gradient, so entries near zero turn rounding into steps of full
 * length, and random models amplify what differs, some a thousandfold more than others: PyTorch's own
 * float32 ends between 2e-4 and 3e-2 away from its float64. No fixed limit is both fair and narrow, so
 * the amplification is measured: the course is run SHAKEN_RUNS times more, from values that differ in
 * their last bits. At each step a float build may be off by the strict limit or by SHAKEN_SHARE times what the
 * runs have come to differ, whichever is more. A wrong formula changes all runs alike and gains
 * nothing by it. A double build is held to the strict limits throughout.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "icae/rng.h"
#include "learn/selftest_internal.h"

static const double SHAKE = 0x1p-20, SHAKEN_SHARE = 4;
enum { SHAKEN_RUNS = 4 };

/* One run over all steps: what it computed before each, and where the trained values ended. */
typedef struct course {
    double *losses, *norms; /* [n_steps] */
    icae_real *values;      /* [n values] */
} course;

static bool course_init(golden *g, size_t n_steps, course *out) {
    out->losses = icae_arena_array(&g->arena, n_steps, sizeof *out->losses);
    out->norms = icae_arena_array(&g->arena, n_steps, sizeof *out->norms);
    out->values =
        icae_arena_array(&g->arena, (size_t)g->adapter->params.count, sizeof *out->values);
    return out->losses && out->norms && out->values;
}

/* Runs from the values in out->values, with fresh moments, and leaves the last ones there. */
static icae_status run_course(golden *g, icae_optimizer optimizer, double lr, size_t n_steps,
                              course *out) {
    static const double weight[ICAE_TASK_COUNT] = {[ICAE_TASK_AE] = 0.5, [ICAE_TASK_LM] = 0.5};
    icae_params *params = &g->adapter->params;
    icae_backend *be = params->be;
    size_t bytes = (size_t)params->count * sizeof *out->values;
    double *sums = icae_arena_array(&g->arena, 2 * (size_t)g->n_samples, sizeof *sums);
    if (!sums) return icae_fail_memory(g->error, "losses");
    be->k.copy_in(be, params->values, out->values, bytes);
    be->k.zero(be, params->moment1, bytes);
    be->k.zero(be, params->moment2, bytes);
    for (size_t step = 0; step < n_steps; step++) {
        icae_status status = icae_golden_gradients(g, weight, sums);
        if (status) return status;
        for (int64_t i = 0; i < g->n_samples; i++) { /* jobs: all AE, then all LM */
            out->losses[step] += 0.5 * sums[i] / (double)icae_golden_targets(g, ICAE_TASK_AE);
            out->losses[step] +=
                0.5 * sums[g->n_samples + i] / (double)icae_golden_targets(g, ICAE_TASK_LM);
        }
        out->norms[step] = icae_optimizer_step(&optimizer, params, lr).norm;
    }
    be->k.copy_out(be, out->values, params->values, bytes);
    return ICAE_OK;
}

/* How far runs that differ only in their first values' last bits have come apart. */
typedef struct spread {
    double *losses, *norms; /* [n_steps] relative, up to and including each step */
    double values;          /* at the end, as icae_golden_compare() says it */
} spread;

static double shaken_limit(double strict, double apart) {
    return ICAE_REAL_IS_DOUBLE ? strict : fmax(strict, fmin(1, SHAKEN_SHARE * apart));
}

/* One more run, from values shaken by `seed`, widens the spread. */
static icae_status widen_spread(golden *g, const icae_optimizer *optimizer, double lr,
                                size_t n_steps, const icae_real *start, uint64_t seed,
                                const course *made, spread *out) {
    const icae_params *params = &g->adapter->params;
    course shaken;
    if (!course_init(g, n_steps, &shaken)) return icae_fail_memory(g->error, "a shaken course");
    icae_rng rng = {.seed = seed};
    for (int64_t i = 0; i < params->count; i++) {
        double sign = icae_rng_uniform(&rng) < 0.5 ? -1 : 1;
        shaken.values[i] = (icae_real)((double)start[i] * (1 + sign * SHAKE));
    }
    icae_status status = run_course(g, *optimizer, lr, n_steps, &shaken);
    if (status) return status;
    double loss = 0, norm = 0;
    for (size_t step = 0; step < n_steps; step++) {
        loss = fmax(loss, icae_golden_relative(shaken.losses[step], made->losses[step]));
        norm = fmax(norm, icae_golden_relative(shaken.norms[step], made->norms[step]));
        out->losses[step] = fmax(out->losses[step], loss);
        out->norms[step] = fmax(out->norms[step], norm);
    }
    for (int p = 0; p < params->n_params; p++) {
        const icae_param *param = &params->list[p];
        double apart = icae_golden_compare(shaken.values + param->offset,
                                           made->values + param->offset, param->count);
        out->values = fmax(out->values, apart);
    }
    return ICAE_OK;
}

/* The step that used up the largest share of its limit, as one check. */
static icae_status check_course(golden *g, const char *name, const icae_json_value *list,
                                size_t n_steps, const double *made, const double *apart,
                                double strict) {
    double worst = -1, error_there = 0, limit_there = strict;
    size_t step = 0, at = 0;
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v), step++) {
        double expected;
        if (!icae_json_as_number(v, &expected)) return icae_golden_broken(g, name);
        double limit = shaken_limit(strict, apart[step]);
        double error = icae_golden_relative(made[step], expected);
        if (error / limit <= worst) continue; /* not so for a NaN */
        worst = error / limit;
        error_there = error;
        limit_there = limit;
        at = step;
        if (isnan(error)) break;
    }
    char note[64];
    snprintf(note, sizeof note, "step %zu of %zu", at + 1, n_steps);
    icae_check_report(g->checks, name, error_there, limit_there, note);
    return ICAE_OK;
}

icae_status icae_golden_adamw(golden *g) {
    const icae_json_value *adamw = icae_json_member(icae_json_root(g->json), "adamw");
    if (icae_json_is_null(adamw)) return ICAE_OK; /* the folder has none */
    double lr;
    icae_optimizer optimizer = {0};
    icae_status status = icae_golden_number(g, adamw, "lr", &lr);
    if (!status) status = icae_golden_number(g, adamw, "beta1", &optimizer.beta1);
    if (!status) status = icae_golden_number(g, adamw, "beta2", &optimizer.beta2);
    if (!status) status = icae_golden_number(g, adamw, "eps", &optimizer.eps);
    if (!status) status = icae_golden_number(g, adamw, "weight_decay", &optimizer.weight_decay);
    if (!status) status = icae_golden_number(g, adamw, "clip_norm", &optimizer.clip_norm);
    if (status) return status;
    const icae_json_value *losses = icae_json_member(adamw, "losses");
    const icae_json_value *norms = icae_json_member(adamw, "grad_norms");
    size_t n_steps = icae_json_count(losses);
    if (n_steps == 0 || n_steps != icae_json_count(norms))
        return icae_golden_broken(g, "adamw.losses");

    const icae_params *params = &g->adapter->params;
    size_t bytes = (size_t)params->count * sizeof(icae_real);
    course made;
    spread apart = {.losses = icae_arena_array(&g->arena, n_steps, sizeof(double)),
                    .norms = icae_arena_array(&g->arena, n_steps, sizeof(double))};
    icae_real *start = icae_arena_alloc(&g->arena, bytes);
    if (!apart.losses || !apart.norms || !start || !course_init(g, n_steps, &made)) {
        return icae_fail_memory(g->error, "the course of the optimizer");
    }
    params->be->k.copy_out(params->be, start, params->values, bytes);
    memcpy(made.values, start, bytes);
    status = run_course(g, optimizer, lr, n_steps, &made);
    for (uint64_t seed = 1; seed <= SHAKEN_RUNS && !ICAE_REAL_IS_DOUBLE && !status; seed++) {
        status = widen_spread(g, &optimizer, lr, n_steps, start, seed, &made, &apart);
    }
    if (!status) {
        status = check_course(g, "adamw.losses", losses, n_steps, made.losses, apart.losses,
                              icae_check_limit_loss());
    }
    if (!status) {
        status = check_course(g, "adamw.grad_norms", norms, n_steps, made.norms, apart.norms,
                              icae_check_limit_tensor());
    }
    if (status) return status;
    params->be->k.copy_in(params->be, params->values, made.values, bytes);
    return icae_golden_parameters(g, "adamw.parameters", "adamw.", params->values,
                                  shaken_limit(icae_check_limit_tensor(), apart.values));
}
