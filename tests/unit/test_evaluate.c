/* SPDX-License-Identifier: MIT */
/* The suites of icae/evaluate.h against the golden losses, whatever the batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/evaluate.h"
#include "icae/json.h"
#include "suites.h"

enum { SAMPLES = 3, MOST_IDS = 512 };

static icae_error error;
static const double tolerance = ICAE_REAL_IS_DOUBLE ? 1e-9 : 1e-5;

/* The golden llama case: model, adapter, and its samples. */
typedef struct golden {
    icae_backend *be;
    icae_graph *graph;
    icae_model *model;
    icae_adapter *adapter;
    icae_json *json;
    int32_t ids[SAMPLES][2][MOST_IDS];
    icae_eval_sample samples[SAMPLES];
} golden;

static int64_t read_ids(const icae_json_value *list, int32_t *out) {
    int64_t n = 0;
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
        int64_t id;
        ck_assert(icae_json_as_integer(v, &id) && n < MOST_IDS);
        out[n++] = (int32_t)id;
    }
    return n;
}

static double number(const icae_json_value *object, const char *key) {
    double value = (double)NAN;
    ck_assert(icae_json_as_number(icae_json_member(object, key), &value));
    return value;
}

static golden *golden_open(void) {
    golden *g = calloc(1, sizeof *g);
    ck_ok(icae_backend_create(&g->be, NULL, 0, &error));
    ck_ok(icae_graph_create(&g->graph, g->be, &error));
    ck_ok(icae_model_open(&g->model, "tests/golden/llama/model", &error));
    ck_ok(icae_adapter_load(&g->adapter, "tests/golden/llama/adapter", g->model, g->be, false,
                            &error));
    ck_ok(icae_json_open(&g->json, "tests/golden/llama/expected.json", &error));
    const icae_json_value *s =
        icae_json_first(icae_json_member(icae_json_root(g->json), "samples"));
    for (int i = 0; i < SAMPLES; i++, s = icae_json_next(s)) {
        icae_eval_sample *sample = &g->samples[i];
        sample->n = read_ids(icae_json_member(s, "context"), g->ids[i][0]);
        sample->n_continuation = read_ids(icae_json_member(s, "continuation"), g->ids[i][1]);
        sample->ids = g->ids[i][0];
        sample->continuation = g->ids[i][1];
    }
    return g;
}

static void golden_close(golden *g) {
    icae_json_free(g->json);
    icae_adapter_free(g->adapter);
    icae_model_close(g->model);
    icae_graph_free(g->graph);
    icae_backend_free(g->be);
    free(g);
}

START_TEST(ae_and_lm_losses_are_the_golden_ones) {
    golden *g = golden_open();
    const icae_json_value *root = icae_json_root(g->json);
    for (int64_t batch = 1; batch <= SAMPLES; batch++) {
        icae_eval_options wishes = {.batch = batch, .is_loss_only = true, .skip = 8};
        icae_eval_ae_result ae;
        icae_eval_lm_result lm;
        ck_ok(icae_eval_ae(g->graph, g->model, g->adapter, g->samples, SAMPLES, &wishes, &ae,
                           &error));
        ck_ok(icae_eval_lm(g->graph, g->model, g->adapter, g->samples, SAMPLES, &wishes, &lm,
                           &error));
        double expected_ae = number(root, "ae_loss"), expected_lm = number(root, "lm_loss");
        ck_assert_double_eq_tol(ae.loss, expected_ae, tolerance * expected_ae);
        ck_assert_double_eq_tol(lm.loss_slots, expected_lm, tolerance * expected_lm);
        ck_assert_int_eq(ae.targets, ae.context_tokens + SAMPLES);
    }
    golden_close(g);
}
END_TEST

START_TEST(perplexity_is_the_golden_likelihood) {
    golden *g = golden_open();
    const icae_json_value *base = icae_json_member(icae_json_root(g->json), "base");
    int32_t ids[MOST_IDS];
    int64_t n = read_ids(icae_json_member(base, "ids"), ids), at = 1;
    double sum = 0;
    for (const icae_json_value *v = icae_json_first(icae_json_member(base, "nll")); v;
         v = icae_json_next(v), at++) {
        double nll;
        ck_assert(icae_json_as_number(v, &nll));
        sum += nll;
    }
    icae_eval_sample text = {.ids = ids, .n = n};
    icae_eval_options wishes = {.window = 64, .stride = 32};
    icae_eval_ppl_result r;
    ck_ok(icae_eval_ppl(g->graph, g->model, &text, 1, &wishes, &r, &error));
    ck_assert_int_eq(r.tokens, n - 1);
    ck_assert_double_eq_tol(r.loss, sum / (double)(n - 1), tolerance * r.loss);
    /* A window that sees less than the whole text finds it more surprising or less, not the same. */
    wishes = (icae_eval_options){.window = 10, .stride = 3};
    icae_eval_ppl_result narrow;
    ck_ok(icae_eval_ppl(g->graph, g->model, &text, 1, &wishes, &narrow, &error));
    ck_assert_int_eq(narrow.tokens, n - 1);
    ck_assert_double_gt(fabs(narrow.loss - r.loss), 1e-4);
    golden_close(g);
}
END_TEST

START_TEST(raw_loss_is_that_of_the_joined_text) {
    golden *g = golden_open();
    icae_eval_options wishes = {.skip = 8};
    icae_eval_lm_result lm;
    ck_ok(icae_eval_lm(g->graph, g->model, g->adapter, g->samples, 1, &wishes, &lm, &error));
    int32_t joined[2 * MOST_IDS];
    int64_t n = g->samples[0].n, more = g->samples[0].n_continuation;
    memcpy(joined, g->samples[0].ids, (size_t)n * sizeof *joined);
    memcpy(joined + n, g->samples[0].continuation, (size_t)more * sizeof *joined);
    icae_eval_sequence ways[2] = {{joined, n + more, n + 8}, {joined + n, more, 8}};
    double sums[2];
    ck_ok(icae_eval_base_nll(g->graph, g->model, ways, 2, sums, NULL, &error));
    ck_assert_double_eq_tol(lm.loss_raw, sums[0] / (double)(more - 8), 1e-6 * lm.loss_raw);
    ck_assert_double_eq_tol(lm.loss_none, sums[1] / (double)(more - 8), 1e-6 * lm.loss_none);
    golden_close(g);
}
END_TEST

typedef struct seen {
    int restored, progress, stop_at;
} seen;

static void see_restored(void *user, int64_t index, const int32_t *ids, int64_t n,
                         bool is_stopped) {
    seen *s = user;
    ck_assert_int_eq(index, s->restored++);
    ck_assert(ids != NULL && n >= 0 && (is_stopped || n > 0));
}

static bool see_progress(void *user, int64_t done, int64_t total) {
    seen *s = user;
    ck_assert_int_eq(done, ++s->progress);
    ck_assert_int_eq(total, SAMPLES);
    return s->progress != s->stop_at;
}

START_TEST(tells_progress_and_can_be_stopped) {
    golden *g = golden_open();
    seen s = {0};
    icae_eval_options wishes = {
        .batch = 1, .progress = see_progress, .restored = see_restored, .user = &s};
    icae_eval_ae_result r;
    ck_ok(
        icae_eval_ae(g->graph, g->model, g->adapter, g->samples, SAMPLES, &wishes, &r, &error));
    ck_assert_int_eq(s.restored, SAMPLES);
    ck_assert_int_eq(s.progress, SAMPLES);
    ck_assert(r.bleu4 >= 0 && r.bleu4 < 50 && r.prefix_em < 0.5); /* nobody trained it */
    s = (seen){.stop_at = 2};
    ck_assert_int_eq(
        icae_eval_ae(g->graph, g->model, g->adapter, g->samples, SAMPLES, &wishes, &r, &error),
        ICAE_INTERRUPTED);
    ck_assert_int_eq(s.progress, 2);
    golden_close(g);
}
END_TEST

START_TEST(refuses_samples_without_anything_to_score) {
    golden *g = golden_open();
    icae_eval_options wishes = {.skip = 30, .window = 8, .stride = 8};
    icae_eval_ae_result ae;
    icae_eval_lm_result lm;
    icae_eval_ppl_result ppl;
    ck_refused(
        icae_eval_ae(g->graph, g->model, g->adapter, g->samples, 0, &wishes, &ae, &error),
        "no text");
    ck_refused(
        icae_eval_lm(g->graph, g->model, g->adapter, g->samples, 1, &wishes, &lm, &error),
        "expected more than 30");
    ck_refused(icae_eval_ppl(g->graph, g->model, g->samples, 1, &wishes, &ppl, &error),
               "stride");
    icae_eval_sample one = {.ids = g->ids[0][0], .n = 1};
    wishes.stride = 4;
    ck_refused(icae_eval_ppl(g->graph, g->model, &one, 1, &wishes, &ppl, &error),
               "nothing to predict");
    golden_close(g);
}
END_TEST

SUITE_OF(evaluate, 120, ae_and_lm_losses_are_the_golden_ones,
         perplexity_is_the_golden_likelihood, raw_loss_is_that_of_the_joined_text,
         tells_progress_and_can_be_stopped, refuses_samples_without_anything_to_score)
