/* SPDX-License-Identifier: MIT */
/*
 * Gradient descent on slots; the contract stands in icae/refine.h.
 *
 * A few spans are at work side by side, each in a lane: its part of one block of parameters, its own count
 * of Adam's steps. A span that is done leaves its lane to the next one, so the pack stays full.
 */
#include "icae/refine.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/params.h"

/* Steps as wide as a share of the slots' own root mean square; betas as for any short optimisation. */
static const double RATE = 0.05, BETA1 = 0.9, BETA2 = 0.95, EPS = 1e-12;
/* A token is certain from here on: -log 0.7. */
static const double CERTAIN = 0.35667494393873245;

typedef struct lane {
    int64_t span;  /* -1: free */
    int64_t value; /* where the span's slots begin in slots->values */
    const int32_t *ids;
    int64_t steps;
    double rate, best, first; /* sums of nll; best is of what stands in `values` */
} lane;

typedef struct refinement {
    icae_graph *graph;
    const icae_model *model;
    const icae_adapter *adapter;
    const icae_slots *slots;
    const int32_t *ids;
    int32_t stop;
    int64_t most;  /* steps of a span */
    float *values; /* what slots->values will be */
    icae_params params;
    lane *lanes;
    int64_t n_lanes;
    icae_slots view;    /* of the span that was given out last */
    int64_t next_token; /* behind it */
    icae_refined told;
} refinement;

static int64_t block(const refinement *r) {
    return r->slots->slots_per_span * r->slots->width;
}

static int64_t targets_of(const refinement *r, const lane *l) {
    return r->slots->span_lengths[l->span] + (r->stop >= 0);
}

/* ---- lanes ---- */

/* The next span that has slots and tokens; false when there is none. */
static bool take_span(refinement *r, lane *l) {
    while (icae_slots_next_span(r->slots, &r->view)) {
        *l = (lane){.span = r->view.span_lengths - r->slots->span_lengths,
                    .value = r->view.values - r->slots->values,
                    .ids = r->ids + r->next_token};
        r->next_token += r->view.n_tokens;
        if (r->view.n_raw == 0 && r->view.n_tokens > 0) return true;
    }
    *l = (lane){.span = -1};
    return false;
}

static void fill_lane(refinement *r, int64_t index) {
    lane *l = &r->lanes[index];
    if (!take_span(r, l)) return;
    const float *from = r->slots->values + l->value;
    int64_t at = index * block(r);
    double squares = 0;
    for (int64_t i = 0; i < block(r); i++) {
        r->params.values[at + i] = from[i];
        r->params.moment1[at + i] = r->params.moment2[at + i] = 0;
        squares += (double)from[i] * (double)from[i];
    }
    l->rate = RATE * sqrt(squares / (double)block(r));
    l->best = (double)INFINITY;
    r->told.spans++;
    r->told.targets += targets_of(r, l);
}

static int64_t lanes_at_work(const refinement *r) {
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_lanes; i++)
        n += r->lanes[i].span >= 0;
    return n;
}

/* ---- one step of all lanes ---- */

/* The losses of the spans at work and their gradients: nll [lanes at work], tokens [their targets]. */
static icae_status measure(refinement *r, double *nll, icae_real *tokens, icae_error *error) {
    icae_graph *graph = r->graph;
    int64_t n = lanes_at_work(r), at = 0;
    icae_graph_begin(graph, true, false);
    icae_context *contexts = icae_graph_arena(graph, (size_t)n * sizeof *contexts);
    icae_job *jobs = icae_graph_arena(graph, (size_t)n * sizeof *jobs);
    int64_t *firsts = icae_graph_arena(graph, ((size_t)n + 1) * sizeof *firsts);
    if (!contexts || !jobs || !firsts) return icae_graph_status(graph, error);
    for (int64_t i = 0; i < r->n_lanes; i++) {
        const lane *l = &r->lanes[i];
        if (l->span < 0) continue;
        int64_t length = r->slots->span_lengths[l->span], n_target = targets_of(r, l);
        int32_t *target = icae_graph_arena(graph, (size_t)n_target * sizeof *target);
        if (!target) return icae_graph_status(graph, error);
        memcpy(target, l->ids, (size_t)length * sizeof *target);
        if (r->stop >= 0) target[length] = r->stop;
        contexts[at] = (icae_context){l->ids, length, 0};
        firsts[at] = i * r->slots->slots_per_span;
        jobs[at] = (icae_job){.context = at,
                              .task = ICAE_TASK_AE,
                              .target = target,
                              .n_target = n_target,
                              .coef = (icae_real)(1.0 / (double)n_target)};
        at++;
    }
    icae_batch batch = {contexts, n, jobs, n};
    icae_run run = {0};
    icae_params_zero_gradients(&r->params);
    icae_tensor *loss = icae_decode_loss(graph, r->model, r->adapter, &batch,
                                         &r->params.list[0].tensor, firsts, &run, nll, tokens);
    icae_status status = icae_graph_status(graph, error);
    return status ? status : icae_graph_backward(graph, loss, error);
}

static void move_slots(refinement *r, int64_t index) {
    lane *l = &r->lanes[index];
    int64_t at = index * block(r);
    double n = (double)++l->steps;
    icae_adamw_step step = {.lr = l->rate,
                            .beta1 = BETA1,
                            .beta2 = BETA2,
                            .eps = EPS,
                            .correction1 = 1 - pow(BETA1, n),
                            .correction2 = 1 - pow(BETA2, n),
                            .gradient_scale = 1};
    icae_backend *be = r->params.be;
    be->k.adamw(be, block(r), &step, r->params.values + at, r->params.gradients + at,
                r->params.moment1 + at, r->params.moment2 + at);
    r->told.steps++;
}

/* What the measured loss means for a lane: better values are kept, a span that is done makes room. */
static void judge(refinement *r, int64_t index, double nll, const icae_real *tokens) {
    lane *l = &r->lanes[index];
    bool is_certain = true;
    for (int64_t t = 0; t < targets_of(r, l); t++)
        is_certain &= (double)tokens[t] <= CERTAIN; /* false for NaN */
    if (l->steps == 0) l->first = nll;
    if (nll < l->best || is_certain) {
        l->best = nll;
        for (int64_t i = 0; i < block(r); i++)
            r->values[l->value + i] = (float)r->params.values[index * block(r) + i];
    }
    if (is_certain || l->steps == r->most || !isfinite(nll)) {
        r->told.before += l->first;
        r->told.after += l->best;
        r->told.certain += is_certain;
        fill_lane(r, index);
    } else {
        move_slots(r, index);
    }
}

static icae_status step_all(refinement *r, icae_error *error) {
    int64_t n = lanes_at_work(r), n_tokens = 0, job = 0;
    for (int64_t i = 0; i < r->n_lanes; i++)
        if (r->lanes[i].span >= 0) n_tokens += targets_of(r, &r->lanes[i]);
    double *nll = calloc((size_t)n, sizeof *nll);
    icae_real *tokens = calloc((size_t)n_tokens, sizeof *tokens);
    icae_status status =
        nll && tokens ? measure(r, nll, tokens, error) : icae_fail_memory(error, "losses");
    const icae_real *of = tokens;
    for (int64_t i = 0; i < r->n_lanes && !status; i++) {
        if (r->lanes[i].span < 0) continue;
        int64_t count = targets_of(r, &r->lanes[i]);
        judge(r, i, nll[job++], of);
        of += count;
    }
    free(nll);
    free(tokens);
    return status;
}

/* ---- all spans ---- */

static icae_status prepare(refinement *r, icae_error *error) {
    const icae_slots *slots = r->slots;
    int64_t longest = 0, n_compressed = slots->n_spans - slots->n_raw;
    for (int64_t s = 0; s < slots->n_spans; s++)
        if (slots->span_lengths[s] > longest) longest = slots->span_lengths[s];
    int64_t rows = longest + slots->slots_per_span +
                   icae_adapter_task_tokens(&r->adapter->settings, ICAE_TASK_AE);
    r->n_lanes = icae_pass_limit(rows) / rows; /* as a pass of training has them */
    if (r->n_lanes > n_compressed) r->n_lanes = n_compressed;
    size_t count = (size_t)(icae_slots_vectors(slots) * slots->width);
    int64_t shape[2] = {r->n_lanes * slots->slots_per_span, slots->width};
    r->values = malloc(count * sizeof *r->values);
    r->lanes = calloc((size_t)r->n_lanes, sizeof *r->lanes);
    if (!r->values || !r->lanes || icae_params_add(&r->params, "slots", 2, shape) < 0)
        return icae_fail_memory(error, "slots to refine");
    memcpy(r->values, slots->values, count * sizeof *r->values);
    return icae_params_allocate(&r->params, icae_graph_backend(r->graph), true, error);
}

icae_status icae_refine(icae_graph *graph, const icae_model *model, const icae_adapter *adapter,
                        const int32_t *ids, int64_t steps, const icae_span_watch *watch,
                        icae_slots *slots, icae_refined *refined, icae_error *error) {
    assert(slots->slots_per_span == adapter->settings.memory_slots && steps >= 0);
    refinement r = {.graph = graph,
                    .model = model,
                    .adapter = adapter,
                    .slots = slots,
                    .ids = ids,
                    .stop = icae_adapter_stop(&adapter->settings, model->tokenizer),
                    .most = steps};
    icae_status status = prepare(&r, error);
    for (int64_t i = 0; i < r.n_lanes && !status; i++)
        fill_lane(&r, i);
    while (!status && lanes_at_work(&r) > 0) {
        status = step_all(&r, error);
        int64_t done = r.told.spans - lanes_at_work(&r), total = slots->n_spans - slots->n_raw;
        if (!status) status = icae_span_watch_tell(watch, "refined", done, total, error);
    }
    if (!status) {
        size_t count = (size_t)(icae_slots_vectors(slots) * slots->width);
        memcpy(slots->values, r.values, count * sizeof *r.values);
        if (refined) *refined = r.told;
    }
    icae_graph_begin(graph, false, false); /* what it remembers of the parameters goes first */
    icae_params_release(&r.params);
    free(r.lanes);
    free(r.values);
    return status;
}
