/* SPDX-License-Identifier: MIT */
/*
 * The type that products with frozen weights are computed in: what bf16 does to gradients and to a
 * run, and that it keeps what f32 promises.
 *
 * The products themselves are held to exact sums of rounded numbers in test_kernels.c; that a run in
 * bf16 learns what one in f32 does stands in test_trainer.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/half.h"
#include "icae/objective.h"
#include "icae/ops.h"
#include "icae/rng.h"
#include "suites.h"
#include "train_support.h"

static icae_error error;

/* ---- gradients ---- */

enum { SAMPLES = 2, TOKENS = 48 };

/* Gradients of an autoencoding batch on a small golden base with a fresh adapter; the caller
 * frees them. Runs `order[i]` as the i-th sample, `n` of them; nll[order[i]] is the sample's. */
static icae_real *gradients_of(const char *level, icae_compute compute, bool is_checkpointed,
                               int n, const int *order, int64_t *count, double *nll) {
    icae_backend *be;
    icae_model *model;
    icae_graph *graph;
    icae_adapter *adapter;
    ck_ok(icae_backend_create(&be, level, 2, &error));
    icae_backend_set_compute(be, compute);
    ck_ok(icae_model_open(&model, "tests/golden/qwen3/model", &error));
    ck_ok(icae_graph_create(&graph, be, &error));
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = settings.compression_rate = settings.rank = 8;
    ck_ok(icae_adapter_create(&adapter, model, &settings, 1, be, true, &error));

    int32_t ids[SAMPLES][TOKENS];
    icae_rng rng = {.seed = 21};
    for (int i = 0; i < SAMPLES * TOKENS; i++)
        ids[i / TOKENS][i % TOKENS] =
            (int32_t)icae_rng_below(&rng, (uint64_t)model->config.vocabulary);
    icae_context contexts[SAMPLES];
    icae_job jobs[SAMPLES];
    for (int i = 0; i < n; i++) {
        int who = order[i];
        int64_t length = TOKENS - 11 * who;
        contexts[i] = (icae_context){ids[who], length, (uint64_t)who};
        jobs[i] = (icae_job){.context = i,
                             .task = ICAE_TASK_AE,
                             .target = ids[who],
                             .n_target = length,
                             .coef = (icae_real)(1.0 / (double)(SAMPLES * TOKENS))};
    }
    icae_batch batch = {contexts, n, jobs, n};
    icae_run run = {.is_training = true, .is_checkpointed = is_checkpointed, .seed = 3};
    double sums[SAMPLES];
    icae_graph_begin(graph, true, false);
    icae_params_zero_gradients(&adapter->params);
    icae_tensor *loss = icae_batch_loss(graph, model, adapter, &batch, &run, sums, NULL);
    ck_ok(icae_graph_status(graph, &error));
    ck_ok(icae_graph_backward(graph, loss, &error));
    for (int i = 0; i < n; i++)
        nll[order[i]] = sums[i];
    *count = adapter->params.count;
    icae_real *gradients = malloc((size_t)*count * sizeof *gradients);
    ck_assert_ptr_nonnull(gradients);
    memcpy(gradients, adapter->params.gradients, (size_t)*count * sizeof *gradients);
    icae_graph_free(graph);
    icae_adapter_free(adapter);
    icae_model_close(model);
    icae_backend_free(be);
    return gradients;
}

static const int in_order[SAMPLES] = {0, 1};

/* |a - b| / |b| */
static double distance(const icae_real *a, const icae_real *b, int64_t n) {
    double difference = 0, length = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        length += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / length);
}

/* bfloat16 has 8 bits: a factor is off by up to 0.4 %. The golden base has random weights, which make
 * more of that than trained ones do: 2.3 % of the gradient's length. Zero would mean that nothing was
 * rounded. */
START_TEST(gradients_are_those_of_f32_within_five_percent) {
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        int64_t n;
        double exact[SAMPLES], nll[SAMPLES];
        icae_real *f32 =
            gradients_of(*level, ICAE_COMPUTE_F32, false, SAMPLES, in_order, &n, exact);
        icae_real *bf16 =
            gradients_of(*level, ICAE_COMPUTE_BF16, false, SAMPLES, in_order, &n, nll);
        double off = distance(bf16, f32, n);
        ck_assert_msg(off > 1e-4 && off < 0.05, "level %s: gradients differ by %g", *level,
                      off);
        for (int i = 0; i < SAMPLES; i++)
            ck_assert_msg(fabs(nll[i] / exact[i] - 1) < 5e-3, "level %s: loss %g, in f32 %g",
                          *level, nll[i], exact[i]);
        free(f32);
        free(bf16);
    }
}
END_TEST

START_TEST(checkpointing_and_the_batch_change_no_bit) {
    const char *const *levels = icae_backend_levels();
    for (int l = 1; levels[l]; l++) { /* level 0, the reference, has no blocks */
        int64_t n;
        double want[SAMPLES], nll[SAMPLES];
        icae_real *kept =
            gradients_of(levels[l], ICAE_COMPUTE_BF16, false, SAMPLES, in_order, &n, want);
        icae_real *again =
            gradients_of(levels[l], ICAE_COMPUTE_BF16, true, SAMPLES, in_order, &n, nll);
        ck_assert_int_eq(memcmp(kept, again, (size_t)n * sizeof *kept), 0);
        static const int orders[][SAMPLES] = {{1, 0}, {0, 0}, {1, 1}};
        for (int o = 0; o < 3; o++) { /* the other way round, then each alone */
            memcpy(nll, want, sizeof nll);
            icae_real *unused = gradients_of(levels[l], ICAE_COMPUTE_BF16, false, o ? 1 : 2,
                                             orders[o], &n, nll);
            ck_assert_int_eq(memcmp(nll, want, sizeof nll), 0);
            free(unused);
        }
        free(kept);
        free(again);
    }
}
END_TEST

enum { ROWS = 4, WIDTH = 32, KEPT = ROWS * WIDTH };

/* The gradients that a loss on y sends to y itself (gate = NULL), or through y = silu(gate) up to both;
 * *was_rounded: whether gate and up waited for backward in bfloat16. */
static void gradients_through(icae_graph *graph, icae_tensor *head, const icae_real *y,
                              const icae_real *gate, const icae_real *up, icae_real *d_first,
                              icae_real *d_second, bool *was_rounded) {
    static const int32_t targets[ROWS] = {0, 3, 7, 1};
    static const icae_real coefs[ROWS] = {1, 1, 1, 1};
    const int64_t shape[] = {ROWS, WIDTH};
    icae_real nll[ROWS];
    icae_graph_begin(graph, true, false);
    icae_tensor *first = icae_variable(graph, 2, shape, gate ? gate : y);
    icae_tensor *second = gate ? icae_variable(graph, 2, shape, up) : NULL;
    icae_tensor *result = gate ? icae_swiglu(graph, first, second) : first;
    icae_tensor *loss = icae_linear_cross_entropy(graph, result, head, targets, coefs, nll);
    if (gate) {
        icae_done(graph, first);
        icae_done(graph, second);
        *was_rounded = first->is_rounded && second->is_rounded;
    }
    ck_ok(icae_graph_backward(graph, loss, &error));
    icae_tensor_read_gradient(graph, first, d_first);
    if (gate) icae_tensor_read_gradient(graph, second, d_second);
}

/* In bf16 values wait for backward in half the room, and it sees what to_bf16 makes of them. */
START_TEST(values_kept_for_backward_are_rounded_in_bf16_alone) {
    enum { VOCABULARY = 8 };
    const int64_t head_shape[] = {VOCABULARY, WIDTH};
    static icae_real gate[KEPT], up[KEPT], y[KEPT], dy[KEPT], weights[VOCABULARY * WIDTH];
    icae_real rounded_gate[KEPT], rounded_up[KEPT], d_gate[KEPT], d_up[KEPT];
    icae_real want_gate[KEPT], want_up[KEPT];
    icae_rng rng = {.seed = 8};
    for (int i = 0; i < KEPT; i++) {
        gate[i] = (icae_real)icae_rng_normal(&rng);
        up[i] = (icae_real)icae_rng_normal(&rng);
        rounded_gate[i] = icae_bf16_to_f32(icae_f32_to_bf16((float)gate[i]));
        rounded_up[i] = icae_bf16_to_f32(icae_f32_to_bf16((float)up[i]));
    }
    for (int i = 0; i < VOCABULARY * WIDTH; i++)
        weights[i] = (icae_real)icae_rng_normal(&rng);
    icae_tensor head = icae_leaf(ICAE_DTYPE_REAL, 2, head_shape, weights, NULL);
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
        icae_backend *be;
        icae_graph *graph;
        bool was_rounded;
        ck_ok(icae_backend_create(&be, NULL, 1, &error));
        icae_backend_set_compute(be, is_bf16 ? ICAE_COMPUTE_BF16 : ICAE_COMPUTE_F32);
        ck_ok(icae_graph_create(&graph, be, &error));
        be->k.swiglu(be, KEPT, gate, up,
                     y); /* of the values as they are: forward sees no others */
        gradients_through(graph, &head, y, NULL, NULL, dy, NULL, NULL);
        gradients_through(graph, &head, NULL, gate, up, d_gate, d_up, &was_rounded);
        ck_assert(was_rounded == is_bf16);
        be->k.swiglu_dx(be, KEPT, is_bf16 ? rounded_gate : gate, is_bf16 ? rounded_up : up, dy,
                        false, want_gate, want_up);
        ck_assert_int_eq(memcmp(d_gate, want_gate, sizeof d_gate), 0);
        ck_assert_int_eq(memcmp(d_up, want_up, sizeof d_up), 0);
        icae_graph_free(graph);
        icae_backend_free(be);
    }
}
END_TEST

/* Queries and keys of one sequence; keys have the large values in a few dimensions that biases give
 * them in some bases (Qwen2), which no query cares about: they are the same for all keys. */
enum { QUERIES = 48, HEADS = 2, HEAD_WIDTH = 32, ATTENDED = QUERIES * HEADS * HEAD_WIDTH };

static void attention_gradients(const char *level, icae_compute compute, const icae_real *q,
                                const icae_real *k, const icae_real *v,
                                const icae_real *weights, icae_real *d_q) {
    enum { VOCABULARY = 8 };
    const int64_t wide[] = {QUERIES, HEADS * HEAD_WIDTH}, narrow[] = {QUERIES, HEAD_WIDTH};
    const int64_t head_shape[] = {VOCABULARY, HEADS * HEAD_WIDTH}, starts[] = {0, QUERIES};
    int32_t targets[QUERIES], positions[QUERIES];
    icae_real coefs[QUERIES], nll[QUERIES];
    for (int i = 0; i < QUERIES; i++) {
        positions[i] = i;
        targets[i] = i % VOCABULARY;
        coefs[i] = (icae_real)(1.0 / QUERIES);
    }
    icae_backend *be;
    icae_graph *graph;
    ck_ok(icae_backend_create(&be, level, 1, &error));
    icae_backend_set_compute(be, compute);
    ck_ok(icae_graph_create(&graph, be, &error));
    icae_graph_begin(graph, true, false);
    icae_tensor *parts[] = {icae_variable(graph, 2, wide, q),
                            icae_variable(graph, 2, narrow, k),
                            icae_variable(graph, 2, narrow, v)};
    icae_attention_shape shape = {
        .heads = HEADS, .kv_heads = 1, .width = HEAD_WIDTH, .scale = (icae_real)0.18};
    icae_pack pack = {1, QUERIES, starts, positions, NULL};
    icae_tensor *y = icae_attention(graph, &shape, &pack, NULL, parts[0], parts[1], parts[2]);
    for (int i = 0; i < 3; i++)
        icae_done(graph, parts[i]);
    icae_tensor head = icae_leaf(ICAE_DTYPE_REAL, 2, head_shape, weights, NULL);
    icae_tensor *loss = icae_linear_cross_entropy(graph, y, &head, targets, coefs, nll);
    icae_done(graph, y);
    ck_ok(icae_graph_backward(graph, loss, &error));
    icae_tensor_read_gradient(graph, parts[0], d_q);
    icae_graph_free(graph);
    icae_backend_free(be);
}

/* What rounds a score rounds it for forward and backward alike: weights that were made of other scores
 * than their log-sum-exp do not add up to one, and large keys multiply what is missing. */
START_TEST(large_keys_leave_the_gradient_of_attention_whole) {
    static icae_real q[ATTENDED], k[QUERIES * HEAD_WIDTH], v[QUERIES * HEAD_WIDTH];
    static icae_real weights[8 * HEADS * HEAD_WIDTH], exact[ATTENDED], rounded[ATTENDED];
    icae_rng rng = {.seed = 5};
    for (int i = 0; i < ATTENDED; i++)
        q[i] = (icae_real)icae_rng_normal(&rng);
    for (int i = 0; i < QUERIES * HEAD_WIDTH; i++) {
        k[i] = (icae_real)icae_rng_normal(&rng);
        v[i] = (icae_real)icae_rng_normal(&rng);
        if (i % HEAD_WIDTH % 8 == 0) k[i] += i % HEAD_WIDTH % 16 ? -100 : 100;
    }
    for (int i = 0; i < 8 * HEADS * HEAD_WIDTH; i++)
        weights[i] = (icae_real)(0.3 * icae_rng_normal(&rng));
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        attention_gradients(*level, ICAE_COMPUTE_F32, q, k, v, weights, exact);
        attention_gradients(*level, ICAE_COMPUTE_BF16, q, k, v, weights, rounded);
        double off = distance(rounded, exact, ATTENDED);
        ck_assert_msg(off > 1e-4 && off < 0.15, "level %s: gradients differ by %g", *level,
                      off);
    }
}
END_TEST

/* ---- runs ---- */

START_TEST(equal_runs_in_bf16_write_equal_bytes) {
    const char *folder = test_folder("equal");
    char first[700], second[700];
    snprintf(first, sizeof first, "%s/first", folder);
    snprintf(second, sizeof second, "%s/second", folder);
    ck_ok(tiny_run(first, RUN_WITH("train.compute=bf16"), NULL, NULL, &error));
    ck_ok(tiny_run(second, RUN_WITH("train.compute=bf16"), NULL, NULL, &error));
    char *a = metrics_without_times(first), *b = metrics_without_times(second);
    ck_assert_str_eq(a, b);
    free(a);
    free(b);
}
END_TEST

START_TEST(a_run_keeps_the_type_that_auto_stood_for) {
    const char *folder = test_folder("auto");
    icae_backend *be;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    const char *used = be->has_fast_bf16 ? "bf16" : "f32",
               *other = used[0] == 'b' ? "f32" : "bf16";
    icae_backend_free(be);
    const char *out = test_path(folder, "run");
    ck_ok(tiny_run(out, RUN_WITH("train.compute=auto"), NULL, NULL, &error));
    char path[800], line[64], assignment[64];
    snprintf(path, sizeof path, "%s/config.json", out);
    snprintf(line, sizeof line, "\"compute\": \"%s\"", used);
    char *config = slurp(path, NULL);
    ck_assert_ptr_nonnull(strstr(config, line));
    free(config);
    const icae_train_options resume = {.is_resuming = true};
    snprintf(assignment, sizeof assignment, "train.compute=%s", other);
    ck_refused(tiny_run(out, RUN_WITH(assignment, "train.steps=5"), &resume, NULL, &error),
               "train.compute");
    ck_ok(
        tiny_run(out, RUN_WITH("train.compute=auto", "train.steps=5"), &resume, NULL, &error));
}
END_TEST

START_TEST(names_are_those_of_the_settings) {
    icae_compute compute;
    ck_assert(icae_compute_from_name("bf16", &compute) && compute == ICAE_COMPUTE_BF16);
    ck_assert(icae_compute_from_name("f32", &compute) && compute == ICAE_COMPUTE_F32);
    ck_assert(icae_compute_from_name("auto", &compute) && compute == ICAE_COMPUTE_AUTO);
    ck_assert(!icae_compute_from_name("f16", &compute));
    icae_settings settings;
    icae_settings_init(&settings);
    ck_ok(icae_settings_set(&settings, "train.compute=bf16", &error));
    ck_assert_int_eq(settings.train.compute, ICAE_COMPUTE_BF16);
    ck_refused(icae_settings_set(&settings, "train.compute=f16", &error), "bf16");
    icae_settings_release(&settings);
}
END_TEST

SUITE_OF(compute, 300, gradients_are_those_of_f32_within_five_percent,
         values_kept_for_backward_are_rounded_in_bf16_alone,
         large_keys_leave_the_gradient_of_attention_whole,
         checkpointing_and_the_batch_change_no_bit, equal_runs_in_bf16_write_equal_bytes,
         a_run_keeps_the_type_that_auto_stood_for, names_are_those_of_the_settings)
