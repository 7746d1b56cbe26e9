/* SPDX-License-Identifier: MIT */
/*
 * Slots refined for one text: the gradient they follow against central differences, no span ever worse, each
 * span on its own, what is certain comes back to the letter, and what stops midway leaves nothing behind.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/file.h"
#include "icae/json.h"
#include "icae/refine.h"
#include "icae/rng.h"
#include "scene_support.h"
#include "suites.h"

static icae_error error;

static size_t bytes_of(const icae_slots *slots) {
    return (size_t)(icae_slots_vectors(slots) * slots->width) * sizeof *slots->values;
}

static float *copy_of(const icae_slots *slots) {
    float *copy = malloc(bytes_of(slots));
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, slots->values, bytes_of(slots));
    return copy;
}

/* ---- the gradient ---- */

/* The loss of restoring the first span from `values`, and its gradient if wanted. */
static double loss_at(scene *s, const icae_real *values, icae_real *gradient) {
    int64_t n = s->slots.span_lengths[0], firsts[2] = {0, s->slots.slots_per_span};
    int64_t shape[2] = {s->slots.slots_per_span, s->slots.width};
    icae_graph_begin(s->graph, gradient != NULL, false);
    icae_tensor *slots = icae_variable(s->graph, 2, shape, values);
    icae_context context = {s->ids, n, 0};
    icae_job job = {.task = ICAE_TASK_AE, .target = s->ids, .n_target = n, .coef = 1};
    icae_batch batch = {&context, 1, &job, 1};
    icae_run run = {0};
    double nll;
    icae_tensor *loss = icae_decode_loss(s->graph, s->model, s->adapter, &batch, slots, firsts,
                                         &run, &nll, NULL);
    ck_ok(icae_graph_status(s->graph, &error));
    if (gradient) {
        ck_ok(icae_graph_backward(s->graph, loss, &error));
        icae_tensor_read_gradient(s->graph, slots, gradient);
    }
    return nll;
}

START_TEST(the_slots_gradient_is_that_of_central_differences) {
    scene s;
    scene_open(&s, 1);
    size_t n = (size_t)(s.slots.slots_per_span * s.slots.width);
    icae_real *x = calloc(n, sizeof *x), *g = calloc(n, sizeof *g), *to = calloc(n, sizeof *to);
    icae_real *moved = calloc(n, sizeof *moved);
    ck_assert(x && g && to && moved);
    for (size_t i = 0; i < n; i++)
        x[i] = s.slots.values[i];
    loss_at(&s, x, g);
    /* Along random directions: f32 cannot tell single numbers apart. */
    bool is_double = sizeof(icae_real) == sizeof(double);
    double h = is_double ? 1e-5 : 1e-2, tolerance = is_double ? 1e-7 : 2e-2;
    for (int trial = 0; trial < 5; trial++) {
        icae_rng rng = {.seed = 3, .stream = (uint64_t)trial};
        double slope = 0, squares = 0;
        for (size_t i = 0; i < n; i++) {
            to[i] = (icae_real)icae_rng_normal(&rng);
            slope += (double)to[i] * (double)g[i];
            squares += (double)g[i] * (double)g[i];
        }
        double sides[2];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < n; i++)
                moved[i] = x[i] + (icae_real)(side ? h : -h) * to[i];
            sides[side] = loss_at(&s, moved, NULL);
        }
        ck_assert_double_eq_tol((sides[1] - sides[0]) / (2 * h), slope,
                                tolerance * sqrt(squares));
    }
    free(x);
    free(g);
    free(to);
    free(moved);
    scene_close(&s);
}
END_TEST

/* ---- what refining does ---- */

START_TEST(no_span_gets_worse_and_what_is_certain_comes_back_to_the_letter) {
    scene s;
    scene_open(&s, 1);
    icae_refined told, again;
    ck_ok(icae_refine(s.graph, s.model, s.adapter, s.ids, 400, NULL, &s.slots, &told, &error));
    ck_assert_int_eq(told.spans, s.slots.n_spans);
    ck_assert_int_eq(told.targets, s.slots.n_tokens + s.slots.n_spans);
    ck_assert_double_lt(told.after, told.before / 2);
    ck_assert_int_gt(told.certain, 0);
    ck_assert_int_le(told.steps, 400 * told.spans);
    /* Without a step nothing changes, and what is told is what the values give. */
    float *before = copy_of(&s.slots);
    ck_ok(icae_refine(s.graph, s.model, s.adapter, s.ids, 0, NULL, &s.slots, &again, &error));
    ck_assert_mem_eq(before, s.slots.values, bytes_of(&s.slots));
    ck_assert_double_eq_tol(again.before, told.after, 1e-4 * (1 + told.after));
    ck_assert_int_eq(again.certain, told.certain);
    ck_assert_int_eq(again.steps, 0);
    free(before);
    /* Greedy writing from each span alone. */
    int64_t exact = 0, first = 0;
    for (int64_t i = 0; i < s.slots.n_spans; i++) {
        icae_slots one = s.slots;
        one.n_spans = 1;
        one.span_lengths += i;
        one.n_tokens = one.span_lengths[0];
        one.values += i * one.slots_per_span * one.width;
        icae_request request = {
            .slots = &one,
            .task = ICAE_TASK_AE,
            .max_tokens = one.n_tokens + 8,
            .stop = icae_adapter_stop(&s.adapter->settings, s.model->tokenizer)};
        icae_sampling greedy = {.top_p = 1};
        icae_result made;
        ck_ok(icae_generate(s.graph, s.model, s.adapter, &request, 1, &greedy, NULL, NULL,
                            &made, &error));
        exact += made.is_stopped && made.n == one.n_tokens &&
                 !memcmp(made.ids, s.ids + first, (size_t)made.n * sizeof *made.ids);
        first += one.n_tokens;
        icae_results_release(&made, 1);
    }
    ck_assert_int_ge(exact, told.certain);
    scene_close(&s);
}
END_TEST

START_TEST(a_span_does_not_depend_on_the_others) {
    scene s;
    scene_open(&s, 1);
    float *as_made = copy_of(&s.slots);
    ck_ok(icae_refine(s.graph, s.model, s.adapter, s.ids, 12, NULL, &s.slots, NULL, &error));
    int64_t count = s.slots.slots_per_span * s.slots.width, first = 0;
    for (int64_t i = 0; i < s.slots.n_spans; i++) {
        icae_slots one = s.slots;
        one.n_spans = 1;
        one.span_lengths += i;
        one.n_tokens = one.span_lengths[0];
        one.values = as_made + i * count;
        ck_ok(icae_refine(s.graph, s.model, s.adapter, s.ids + first, 12, NULL, &one, NULL,
                          &error));
        ck_assert_mem_eq(one.values, s.slots.values + i * count,
                         (size_t)count * sizeof *one.values);
        first += one.n_tokens;
    }
    free(as_made);
    scene_close(&s);
}
END_TEST

/* More spans than are refined side by side: the text ten times over, whose spans must all become what those of the
 * first time become. Some are certain early, so lanes change hands at different steps. */
START_TEST(spans_that_wait_are_refined_like_the_first) {
    enum { TIMES = 10, STEPS = 60 };
    scene s;
    scene_open(&s, 1);
    int64_t n = s.slots.n_tokens, n_spans = s.slots.n_spans;
    size_t bytes = bytes_of(&s.slots);
    int32_t *ids = malloc((size_t)(TIMES * n) * sizeof *ids);
    int32_t *lengths = malloc((size_t)(TIMES * n_spans) * sizeof *lengths);
    ck_assert(ids && lengths);
    for (int i = 0; i < TIMES; i++) {
        memcpy(ids + i * n, s.ids, (size_t)n * sizeof *ids);
        memcpy(lengths + i * n_spans, s.slots.span_lengths, (size_t)n_spans * sizeof *lengths);
    }
    icae_slots many = {0};
    icae_refined told, once;
    ck_ok(icae_compress_spans(s.graph, s.model, s.adapter, ids, TIMES * n_spans, lengths, NULL,
                              NULL, &many, &error));
    ck_ok(
        icae_refine(s.graph, s.model, s.adapter, s.ids, STEPS, NULL, &s.slots, &once, &error));
    ck_ok(icae_refine(s.graph, s.model, s.adapter, ids, STEPS, NULL, &many, &told, &error));
    ck_assert_int_ge(TIMES * n_spans, 20); /* 768 rows of a pass, 41 of a span */
    ck_assert_int_eq(told.spans, TIMES * once.spans);
    ck_assert_int_eq(told.steps, TIMES * once.steps);
    ck_assert_int_eq(told.certain, TIMES * once.certain);
    for (int i = 0; i < TIMES; i++)
        ck_assert_mem_eq((char *)many.values + (size_t)i * bytes, s.slots.values, bytes);
    icae_slots_release(&many);
    free(ids);
    free(lengths);
    scene_close(&s);
}
END_TEST

START_TEST(spans_kept_as_text_stay_text) {
    scene s;
    scene_open(&s, 1);
    bool is_raw[64] = {false, true}; /* the second of at least three */
    icae_slots mixed = {0};
    ck_ok(icae_compress_spans(s.graph, s.model, s.adapter, s.ids, s.slots.n_spans,
                              s.slots.span_lengths, is_raw, NULL, &mixed, &error));
    icae_refined told;
    ck_ok(icae_refine(s.graph, s.model, s.adapter, s.ids, 5, NULL, &mixed, &told, &error));
    ck_ok(icae_refine(s.graph, s.model, s.adapter, s.ids, 5, NULL, &s.slots, NULL, &error));
    ck_assert_int_eq(told.spans, s.slots.n_spans - 1);
    size_t count = (size_t)(s.slots.slots_per_span * s.slots.width);
    ck_assert_mem_eq(mixed.values, s.slots.values, count * sizeof(float));
    ck_assert_mem_eq(mixed.values + count, s.slots.values + 2 * count, count * sizeof(float));
    ck_assert_mem_eq(mixed.raw_ids, s.ids + s.slots.span_lengths[0],
                     (size_t)s.slots.span_lengths[1] * sizeof *s.ids);
    icae_slots_release(&mixed);
    scene_close(&s);
}
END_TEST

/* As many spans as are encoded in one pass, and one kept as text behind them. */
START_TEST(a_raw_span_behind_a_full_pass_is_kept) {
    enum { PASS = 2048 / (8 + 1), SPANS = PASS + 1 };
    scene s;
    scene_open(&s, 1);
    ck_assert_int_eq(s.slots.slots_per_span, 8);
    int32_t ids[SPANS], lengths[SPANS];
    bool is_raw[SPANS] = {false};
    is_raw[PASS] = true;
    for (int i = 0; i < SPANS; i++) {
        ids[i] = s.ids[i % s.slots.n_tokens];
        lengths[i] = 1;
    }
    icae_slots mixed = {0}, compressed = {0};
    ck_ok(icae_compress_spans(s.graph, s.model, s.adapter, ids, SPANS, lengths, is_raw, NULL,
                              &mixed, &error));
    ck_ok(icae_compress_spans(s.graph, s.model, s.adapter, ids, PASS, lengths, NULL, NULL,
                              &compressed, &error));
    ck_assert_int_eq(icae_slots_vectors(&mixed), 8 * PASS);
    ck_assert_mem_eq(mixed.values, compressed.values, bytes_of(&compressed));
    ck_assert_int_eq(mixed.raw_ids[0], ids[PASS]);
    icae_slots_release(&compressed);
    icae_slots_release(&mixed);
    scene_close(&s);
}
END_TEST

static bool stop(void *user, const char *verb, int64_t done, int64_t total) {
    ck_assert_str_eq(verb, "refined");
    ck_assert_int_le(done, total);
    return (*(int *)user)-- > 0;
}

START_TEST(what_is_stopped_leaves_the_slots_as_they_were) {
    scene s;
    scene_open(&s, 1);
    float *before = copy_of(&s.slots);
    int left = 3;
    const icae_span_watch watch = {stop, &left};
    ck_assert_int_eq(
        icae_refine(s.graph, s.model, s.adapter, s.ids, 50, &watch, &s.slots, NULL, &error),
        ICAE_INTERRUPTED);
    ck_assert_mem_eq(before, s.slots.values, bytes_of(&s.slots));
    free(before);
    scene_close(&s);
}
END_TEST

static bool stop_at_once(void *user, const char *verb, int64_t done, int64_t total) {
    ck_assert_str_eq(verb, "compressed");
    ck_assert(done > 0 && done <= total);
    ++*(int *)user;
    return false;
}

START_TEST(a_compression_that_is_stopped_leaves_nothing) {
    scene s;
    scene_open(&s, 1);
    int told = 0;
    const icae_span_watch watch = {stop_at_once, &told};
    icae_slots slots = {0};
    ck_assert_int_eq(icae_compress_ids(s.graph, s.model, s.adapter, s.ids, s.slots.n_tokens,
                                       &watch, &slots, &error),
                     ICAE_INTERRUPTED);
    ck_assert_int_eq(told, 1);
    ck_assert_ptr_null(slots.values);
    scene_close(&s);
}
END_TEST

/* ---- from the command line ---- */

START_TEST(compress_refines_and_tells) {
    const char *folder = test_folder("refine-cli");
    ck_ok(
        icae_file_write(test_path(folder, "text.txt"), scene_text, strlen(scene_text), &error));
    outcome made = run_in(folder,
                          "$ICAE compress --json " WITH " --refine 400 --report %s/page.html "
                          "%s/text.txt",
                          folder, folder);
    ck_assert_msg(made.code == 0, "%s", made.err);
    icae_json *json;
    ck_ok(icae_json_parse(&json, "standard output", made.out, strlen(made.out), &error));
    const char *const names[] = {"ppl_before_refining", "ppl_refined", "certain_spans",
                                 "exact_spans",         "tokens_kept", "ppl_from_slots"};
    enum { BEFORE, AFTER, CERTAIN, EXACT, KEPT, FROM_SLOTS, N };
    double of[N];
    for (int i = 0; i < N; i++) {
        ck_assert_msg(
            icae_json_as_number(icae_json_member(icae_json_root(json), names[i]), &of[i]),
            "no %s", names[i]);
    }
    ck_assert_double_lt(of[AFTER], of[BEFORE] / 2);
    /* The report is of the refined slots, not of those that the encoder made. */
    ck_assert_double_eq_tol(of[FROM_SLOTS], of[AFTER], 1e-3 * of[AFTER]);
    ck_assert_double_gt(of[CERTAIN], 0);
    ck_assert_double_ge(of[EXACT], of[CERTAIN]);
    ck_assert_double_gt(of[KEPT], 0.5);
    icae_json_free(json);
    made = run_in(folder, "$ICAE compress " WITH " --refine 400 --min-fidelity 0.5 %s/text.txt",
                  folder);
    ck_assert_int_eq(made.code, 0);
    ck_assert_ptr_nonnull(strstr(made.out, "spans to the letter"));
    made = run_in(folder, "$ICAE compress " WITH " --refine 3 %s/text.txt", folder);
    ck_assert_int_eq(made.code, 0);
    ck_assert_ptr_nonnull(strstr(made.out, "in 3 steps a span"));
}
END_TEST

START_TEST(refined_slots_are_what_the_suites_measure) {
    const char *folder = test_folder("refine-eval");
    ck_ok(
        icae_file_write(test_path(folder, "text.txt"), scene_text, strlen(scene_text), &error));
    double loss[2];
    for (int i = 0; i < 2; i++) {
        outcome made =
            run_in(folder, "$ICAE eval ae --json " WITH " --data %s/text.txt --refine %d",
                   folder, i ? 40 : 0);
        ck_assert_msg(made.code == 0, "%s", made.err);
        icae_json *json;
        ck_ok(icae_json_parse(&json, "standard output", made.out, strlen(made.out), &error));
        ck_assert(
            icae_json_as_number(icae_json_member(icae_json_root(json), "loss"), &loss[i]));
        icae_json_free(json);
    }
    ck_assert_double_lt(loss[1], loss[0]);
}
END_TEST

SUITE_OF(refine, 60, the_slots_gradient_is_that_of_central_differences,
         no_span_gets_worse_and_what_is_certain_comes_back_to_the_letter,
         a_span_does_not_depend_on_the_others, spans_that_wait_are_refined_like_the_first,
         spans_kept_as_text_stay_text, a_raw_span_behind_a_full_pass_is_kept,
         what_is_stopped_leaves_the_slots_as_they_were,
         a_compression_that_is_stopped_leaves_nothing, compress_refines_and_tells,
         refined_slots_are_what_the_suites_measure)
