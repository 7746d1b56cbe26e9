/* SPDX-License-Identifier: MIT */
/*
 * The whole ICAE graph on the small golden base: gradients of AE, LM and FT against central
 * differences (several spans, dropout, checkpointing), and that a sample's slots and loss do not
 * depend on what else is in the batch, nor on its place in it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/objective.h"
#include "icae/rng.h"
#include "suites.h"

static icae_error error;

enum { SAMPLES = 3, MOST = 90 };

typedef struct scene {
    icae_model *model;
    icae_backend *be;
    icae_graph *graph;
    icae_adapter *adapter;
    int32_t ids[SAMPLES][MOST + 1], answer[SAMPLES][16];
    icae_context contexts[SAMPLES];
    icae_job jobs[3 * SAMPLES]; /* AE, LM and FT of every sample */
    icae_batch batch;
} scene;

/* Contexts of one, several and a fraction of a span; 8 slots at rate 4 make spans of 32. */
static const int64_t lengths[SAMPLES] = {20, 75, 33};

/* level: a name out of icae_backend_levels(), or NULL for the best */
static void open_scene_at(scene *s, const char *level, bool with_dropout) {
    memset(s, 0, sizeof *s);
    ck_ok(icae_model_open(&s->model, "tests/golden/llama/model", &error));
    ck_ok(icae_backend_create(&s->be, level, 2, &error));
    ck_ok(icae_graph_create(&s->graph, s->be, &error));
    ck_ok(icae_adapter_load(&s->adapter, "tests/golden/llama/adapter", s->model, s->be, true,
                            &error));
    s->adapter->lora.dropout = with_dropout ? 0.2 : 0;
    icae_rng rng = {.seed = 11};
    int64_t V = s->model->config.vocabulary;
    for (int i = 0; i < SAMPLES; i++) {
        int64_t n = lengths[i];
        for (int t = 0; t <= MOST; t++)
            s->ids[i][t] = (int32_t)icae_rng_below(&rng, (uint64_t)V);
        for (int t = 0; t < 16; t++)
            s->answer[i][t] = (int32_t)icae_rng_below(&rng, (uint64_t)V);
        s->contexts[i] = (icae_context){s->ids[i], n, icae_mix64(77, (uint64_t)i)};
        s->jobs[3 * i] = (icae_job){.context = i,
                                    .task = ICAE_TASK_AE,
                                    .target = s->ids[i],
                                    .n_target = n,
                                    .coef = 0.01f};
        s->jobs[3 * i + 1] = (icae_job){.context = i,
                                        .task = ICAE_TASK_LM,
                                        .target = s->answer[i],
                                        .n_target = 12,
                                        .skip = 8,
                                        .coef = 0.02f};
        s->jobs[3 * i + 2] = (icae_job){.context = i,
                                        .task = ICAE_TASK_FT,
                                        .prefix = s->answer[i],
                                        .n_prefix = i,
                                        .prompt = s->answer[i] + 4,
                                        .n_prompt = 3,
                                        .target = s->answer[i] + 8,
                                        .n_target = 5,
                                        .coef = 0.03f};
    }
    s->batch = (icae_batch){s->contexts, SAMPLES, s->jobs, 3 * SAMPLES};
}

static void open_scene(scene *s, bool with_dropout) {
    open_scene_at(s, NULL, with_dropout);
}

static void close_scene(scene *s) {
    icae_graph_free(s->graph);
    icae_adapter_free(s->adapter);
    icae_backend_free(s->be);
    icae_model_close(s->model);
}

static double loss_of(scene *s, const icae_run *run, bool with_gradient) {
    icae_graph_begin(s->graph, with_gradient, false);
    if (with_gradient) icae_params_zero_gradients(&s->adapter->params);
    icae_tensor *loss =
        icae_batch_loss(s->graph, s->model, s->adapter, &s->batch, run, NULL, NULL);
    ck_ok(icae_graph_status(s->graph, &error));
    icae_real value;
    icae_tensor_read(s->graph, loss, &value);
    if (with_gradient) ck_ok(icae_graph_backward(s->graph, loss, &error));
    return (double)value;
}

/* Moves one parameter along a direction. */
static void shift(icae_real *values, const icae_real *kept, const double *direction, int64_t n,
                  double by) {
    for (int64_t i = 0; i < n; i++)
        values[i] = (icae_real)((double)kept[i] + by * direction[i]);
}

/* Derivative along a random direction of every parameter, against a difference of fourth order. The
 * float build checks the same with the step and the limit that its rounding allows. */
static void check_gradients_of(icae_memory_inputs inputs, icae_slot_values values,
                               bool with_dropout, bool is_checkpointed) {
    scene s;
    open_scene(&s, with_dropout);
    s.adapter->settings.memory_inputs = inputs;
    s.adapter->settings.slot_values = values;
    icae_run run = {.is_training = true, .is_checkpointed = is_checkpointed, .seed = 5};
    loss_of(&s, &run, true);
    icae_params *params = &s.adapter->params;
    const double h = ICAE_REAL_IS_DOUBLE ? 2e-4 : 2e-2;
    const double limit = ICAE_REAL_IS_DOUBLE ? 1e-6 : 2e-2;
    size_t bytes = (size_t)params->count * sizeof(icae_real);
    icae_real *kept = malloc(bytes), *gradients = malloc(bytes);
    double *direction = malloc((size_t)params->count * sizeof *direction);
    ck_assert(kept && gradients && direction);
    memcpy(kept, params->values, bytes);
    memcpy(gradients, params->gradients, bytes);
    icae_rng rng = {.seed = 3};
    for (int p = 0; p < params->n_params; p++) {
        const icae_param *param = &params->list[p];
        double analytic = 0, length = 0;
        for (int64_t i = 0; i < param->count; i++) {
            direction[i] = icae_rng_normal(&rng);
            length += direction[i] * direction[i];
        }
        for (int64_t i = 0; i < param->count; i++) {
            direction[i] /= sqrt(length);
            analytic += direction[i] * (double)gradients[param->offset + i];
        }
        double at[4];
        static const int steps[4] = {-2, -1, 1, 2};
        for (int k = 0; k < 4; k++) {
            shift(params->values + param->offset, kept + param->offset, direction, param->count,
                  steps[k] * h);
            at[k] = loss_of(&s, &run, false);
        }
        memcpy(params->values, kept, bytes);
        double numeric = (8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * h);
        double scale = fmax(fabs(numeric), ICAE_REAL_IS_DOUBLE ? 1e-3 : 1.0);
        ck_assert_msg(fabs(numeric - analytic) <= limit * scale, "%s: %.12g, difference %.12g",
                      param->name, analytic, numeric);
    }
    free(kept);
    free(gradients);
    free(direction);
    close_scene(&s);
}

static void check_gradients(bool with_dropout, bool is_checkpointed) {
    check_gradients_of(ICAE_MEMORY_INPUTS_LEARNED, ICAE_SLOT_VALUES_HIDDEN, with_dropout,
                       is_checkpointed);
}

START_TEST(gradients_agree_with_differences) {
    check_gradients(false, false);
}
END_TEST

START_TEST(gradients_agree_with_dropout) {
    check_gradients(true, false);
}
END_TEST

START_TEST(gradients_agree_with_dropout_and_checkpointing) {
    check_gradients(true, true);
}
END_TEST

START_TEST(checkpointing_changes_no_bit) {
    scene s;
    open_scene(&s, true);
    icae_params *params = &s.adapter->params;
    size_t bytes = (size_t)params->count * sizeof(icae_real);
    icae_real *plain = malloc(bytes);
    ck_assert_ptr_nonnull(plain);
    icae_run run = {.is_training = true, .seed = 9};
    double a = loss_of(&s, &run, true);
    memcpy(plain, params->gradients, bytes);
    run.is_checkpointed = true;
    double b = loss_of(&s, &run, true);
    ck_assert(a == b);
    ck_assert_int_eq(memcmp(plain, params->gradients, bytes), 0);
    free(plain);
    close_scene(&s);
}
END_TEST

START_TEST(dropout_differs_from_step_to_step_and_is_off_outside_training) {
    scene s;
    open_scene(&s, true);
    icae_run one = {.is_training = true, .seed = 1}, two = {.is_training = true, .seed = 2},
             off = {0};
    double a = loss_of(&s, &one, false), b = loss_of(&s, &two, false);
    ck_assert(a != b);
    ck_assert(a == loss_of(&s, &one, false));
    double c = loss_of(&s, &off, false);
    s.adapter->lora.dropout = 0;
    ck_assert(c == loss_of(&s, &one, false));
    close_scene(&s);
}
END_TEST

/* ---- independence of the batch ---- */

/* Every job's nll and every context's slots when the samples come in this order. */
static void run_order(scene *s, const int *order, int n, bool with_dropout,
                      double nll[SAMPLES][3], icae_real *slots[SAMPLES]) {
    icae_context contexts[SAMPLES];
    icae_job jobs[3 * SAMPLES];
    for (int i = 0; i < n; i++) {
        contexts[i] = s->contexts[order[i]];
        for (int k = 0; k < 3; k++) {
            jobs[3 * i + k] = s->jobs[3 * order[i] + k];
            jobs[3 * i + k].context = i;
        }
    }
    icae_batch batch = {contexts, n, jobs, 3 * n};
    icae_run run = {.is_training = with_dropout, .seed = 4};
    double sums[3 * SAMPLES];
    icae_graph_begin(s->graph, false, false);
    icae_batch_loss(s->graph, s->model, s->adapter, &batch, &run, sums, NULL);
    ck_ok(icae_graph_status(s->graph, &error));
    for (int i = 0; i < n; i++)
        memcpy(nll[order[i]], sums + 3 * i, 3 * sizeof *sums);
    int64_t firsts[SAMPLES + 1], D = s->model->config.width;
    icae_graph_begin(s->graph, false, false);
    icae_tensor *made = icae_encode(s->graph, s->model, s->adapter, contexts, n, &run, firsts);
    ck_ok(icae_graph_status(s->graph, &error));
    icae_real *all = malloc((size_t)icae_tensor_count(made) * sizeof *all);
    ck_assert_ptr_nonnull(all);
    icae_tensor_read(s->graph, made, all);
    for (int i = 0; i < n; i++) {
        size_t bytes = (size_t)((firsts[i + 1] - firsts[i]) * D) * sizeof *all;
        slots[order[i]] = malloc(bytes);
        ck_assert_ptr_nonnull(slots[order[i]]);
        memcpy(slots[order[i]], all + firsts[i] * D, bytes);
    }
    free(all);
}

START_TEST(a_sample_does_not_depend_on_its_batch) {
    static const struct {
        int n, order[SAMPLES];
    } orders[] = {{1, {0}}, {1, {1}}, {1, {2}}, {2, {1, 0}}, {3, {0, 1, 2}}, {3, {2, 1, 0}}};
    const char *const *levels = icae_backend_levels();
    for (int l = 1; levels[l]; l++) { /* level 0, the reference, is slow and has no blocks */
        for (int with_dropout = 0; with_dropout < 2; with_dropout++) {
            scene s;
            open_scene_at(&s, levels[l], with_dropout);
            icae_real *want_slots[SAMPLES], *slots[SAMPLES];
            double want[SAMPLES][3], nll[SAMPLES][3];
            static const int all[SAMPLES] = {1, 2, 0};
            run_order(&s, all, SAMPLES, with_dropout, want, want_slots);
            for (size_t o = 0; o < sizeof orders / sizeof orders[0]; o++) {
                run_order(&s, orders[o].order, orders[o].n, with_dropout, nll, slots);
                for (int i = 0; i < orders[o].n; i++) {
                    int who = orders[o].order[i];
                    int64_t count = 8 * ((lengths[who] + 31) / 32) * s.model->config.width;
                    ck_assert_int_eq(memcmp(nll[who], want[who], sizeof nll[who]), 0);
                    ck_assert_int_eq(
                        memcmp(slots[who], want_slots[who], (size_t)count * sizeof(icae_real)),
                        0);
                    free(slots[who]);
                }
            }
            for (int i = 0; i < SAMPLES; i++)
                free(want_slots[i]);
            close_scene(&s);
        }
    }
}
END_TEST

/* ---- memory inputs ---- */

/* The slots of the first n tokens of sample 0; the caller frees. */
static icae_real *encode_one(scene *s, int64_t n) {
    icae_context context = {s->ids[0], n, 1};
    icae_run run = {0};
    int64_t firsts[2];
    icae_graph_begin(s->graph, false, false);
    icae_tensor *made = icae_encode(s->graph, s->model, s->adapter, &context, 1, &run, firsts);
    ck_ok(icae_graph_status(s->graph, &error));
    icae_real *slots = malloc((size_t)icae_tensor_count(made) * sizeof *slots);
    ck_assert_ptr_nonnull(slots);
    icae_tensor_read(s->graph, made, slots);
    return slots;
}

/* Pooled inputs of one span are learned ones to which somebody has added the means by hand. */
START_TEST(pools_the_text_that_a_slot_stands_for) {
    scene s;
    open_scene(&s, false);
    const int64_t D = s.model->config.width, k = 8, n = 21;
    icae_matrix table = icae_tensor_matrix(&s.model->embedding);
    icae_real *learned = encode_one(&s, n), *row = malloc((size_t)D * sizeof *row);
    ck_assert_ptr_nonnull(row);
    s.adapter->settings.memory_inputs = ICAE_MEMORY_INPUTS_POOLED;
    uint64_t pooled_hash = icae_adapter_hash(s.adapter);
    icae_real *pooled = encode_one(&s, n);
    s.adapter->settings.memory_inputs = ICAE_MEMORY_INPUTS_LEARNED;
    ck_assert(pooled_hash != icae_adapter_hash(s.adapter));
    icae_real *memory = (icae_real *)(uintptr_t)s.adapter->memory->data;
    for (int64_t j = 0; j < k; j++) {
        int64_t first, end;
        icae_slot_share(j, n, k, &first, &end);
        for (int64_t t = first; t < end; t++) {
            icae_dtype_widen(table.dtype,
                             (const char *)table.data + (size_t)s.ids[0][t] * table.row_bytes,
                             D, row);
            for (int64_t d = 0; d < D; d++)
                memory[j * D + d] += row[d] / (icae_real)(end - first);
        }
    }
    icae_real *by_hand = encode_one(&s, n);
    double apart = 0, differ = 0;
    for (int64_t i = 0; i < k * D; i++) {
        apart = fmax(apart, fabs((double)(pooled[i] - learned[i])));
        differ = fmax(differ, fabs((double)(pooled[i] - by_hand[i])));
    }
    ck_assert(apart > 1e-3);
    ck_assert(differ < (sizeof(icae_real) == 8 ? 1e-12 : 1e-5));
    free(learned);
    free(pooled);
    free(by_hand);
    free(row);
    close_scene(&s);
}
END_TEST

/* Scaled slots have the direction of hidden ones and the size of embeddings; residual ones differ from
 * them by the mean of the text. */
START_TEST(brings_slots_to_the_size_of_embeddings) {
    scene s;
    open_scene(&s, false);
    const int64_t D = s.model->config.width, k = 8, n = 21;
    const double limit = sizeof(icae_real) == 8 ? 1e-5 : 1e-4;
    double size = hypot(s.model->embedding_mean, s.model->embedding_deviation);
    icae_matrix table = icae_tensor_matrix(&s.model->embedding);
    icae_real *made[ICAE_SLOT_VALUES_COUNT], *row = malloc((size_t)D * sizeof *row);
    ck_assert_ptr_nonnull(row);
    uint64_t hashes[ICAE_SLOT_VALUES_COUNT];
    for (int v = 0; v < ICAE_SLOT_VALUES_COUNT; v++) {
        s.adapter->settings.slot_values = (icae_slot_values)v;
        hashes[v] = icae_adapter_hash(s.adapter);
        made[v] = encode_one(&s, n);
        for (int other = 0; other < v; other++)
            ck_assert(hashes[other] != hashes[v]);
    }
    for (int64_t j = 0; j < k; j++) {
        const icae_real *hidden = made[ICAE_SLOT_VALUES_HIDDEN] + j * D;
        const icae_real *scaled = made[ICAE_SLOT_VALUES_SCALED] + j * D;
        const icae_real *residual = made[ICAE_SLOT_VALUES_RESIDUAL] + j * D;
        double squares = 0;
        for (int64_t d = 0; d < D; d++)
            squares += (double)hidden[d] * (double)hidden[d];
        double factor = size / sqrt(squares / (double)D);
        int64_t first, end;
        icae_slot_share(j, n, k, &first, &end);
        for (int64_t d = 0; d < D; d++)
            ck_assert(fabs((double)scaled[d] - factor * (double)hidden[d]) < limit * size);
        double *mean = calloc((size_t)D, sizeof *mean);
        ck_assert_ptr_nonnull(mean);
        for (int64_t t = first; t < end; t++) {
            icae_dtype_widen(table.dtype,
                             (const char *)table.data + (size_t)s.ids[0][t] * table.row_bytes,
                             D, row);
            for (int64_t d = 0; d < D; d++)
                mean[d] += (double)row[d] / (double)(end - first);
        }
        for (int64_t d = 0; d < D; d++)
            ck_assert(fabs((double)(residual[d] - scaled[d]) - mean[d]) < limit * size);
        free(mean);
    }
    for (int v = 0; v < ICAE_SLOT_VALUES_COUNT; v++)
        free(made[v]);
    free(row);
    close_scene(&s);
}
END_TEST

START_TEST(gradients_agree_with_pooled_inputs) {
    check_gradients_of(ICAE_MEMORY_INPUTS_POOLED, ICAE_SLOT_VALUES_SCALED, true, true);
    check_gradients_of(ICAE_MEMORY_INPUTS_POOLED, ICAE_SLOT_VALUES_RESIDUAL, false, false);
    check_gradients_of(ICAE_MEMORY_INPUTS_LEARNED, ICAE_SLOT_VALUES_RESIDUAL, true, false);
}
END_TEST

START_TEST(refuses_jobs_that_make_no_sense) {
    scene s;
    open_scene(&s, false);
    icae_run run = {0};
    s.jobs[0].context = SAMPLES;
    icae_graph_begin(s.graph, false, false);
    ck_assert_ptr_null(
        icae_batch_loss(s.graph, s.model, s.adapter, &s.batch, &run, NULL, NULL));
    ck_refused(icae_graph_status(s.graph, &error), "context 3 of 3");
    s.jobs[0].context = 0;
    s.contexts[1].n = 0;
    icae_graph_begin(s.graph, false, false);
    ck_assert_ptr_null(
        icae_batch_loss(s.graph, s.model, s.adapter, &s.batch, &run, NULL, NULL));
    ck_refused(icae_graph_status(s.graph, &error), "context 1 is empty");
    close_scene(&s);
}
END_TEST

START_TEST(counts_what_a_batch_costs) {
    scene s;
    open_scene(&s, false);
    icae_batch_size size = icae_batch_measure(s.adapter, &s.batch);
    /* spans: 1, 3 and 2 of 8 slots each */
    ck_assert_int_eq(size.context_tokens, 20 + 75 + 33);
    ck_assert_int_eq(size.encoder_tokens, 128 + 6 * 8);
    ck_assert_int_eq(size.targets, 128 + 3 * 4 + 3 * 5);
    int64_t ae = (8 + 20) + (24 + 75) + (16 + 33), lm = 3 * 12 + 48;
    int64_t ft = (0 + 1 + 2) + 48 + 3 * (1 + 3 + 4);
    ck_assert_int_eq(size.decoder_tokens, ae + lm + ft);
    close_scene(&s);
}
END_TEST

SUITE_OF(objective, 300, gradients_agree_with_differences, gradients_agree_with_dropout,
         gradients_agree_with_dropout_and_checkpointing, checkpointing_changes_no_bit,
         dropout_differs_from_step_to_step_and_is_off_outside_training,
         a_sample_does_not_depend_on_its_batch, pools_the_text_that_a_slot_stands_for,
         brings_slots_to_the_size_of_embeddings, gradients_agree_with_pooled_inputs,
         refuses_jobs_that_make_no_sense, counts_what_a_batch_costs)
