/* SPDX-License-Identifier: MIT */
/*
 * The tape: who owns which buffer and for how long, what is recorded, sticky errors, and what happens
 * when memory ends at any point of a step.
 */
#include <math.h>
#include <string.h>

#include "gradcheck.h"
#include "icae/half.h"
#include "icae/rng.h"
#include "icae/log.h"
#include "suites.h"

enum { T = 6, D = 8, R = 2, DEEP = 12 };

/* A backend and a graph; the frozen and trained leaves of a small net. */
typedef struct bench {
    icae_backend *backend;
    icae_graph *graph;
    icae_real x[T * D], norm[D], a[R * D], b[D * R], da[R * D], db[D * R];
    uint16_t w[D * D];
    icae_tensor leaf_norm, leaf_w, leaf_a, leaf_b;
} bench;

static const int64_t x_shape[] = {T, D}, w_shape[] = {D, D}, norm_shape[] = {D};
static const int64_t a_shape[] = {R, D}, b_shape[] = {D, R};
static const int64_t starts[] = {0, 2, T};
static const icae_pack pack = {.n_sequences = 2, .n_tokens = T, .starts = starts};
static const icae_attention_shape heads = {2, 2, 4, (icae_real)0.5, 0};
static const int32_t targets[T] = {0, 3, 7, 7, 1, 2};
static const icae_real coefs[T] = {1, 1, 1, 1, 1, 1};

static void fill(icae_real *values, int n, uint64_t stream) {
    icae_rng rng = {.seed = 21, .stream = stream};
    for (int i = 0; i < n; i++)
        values[i] = (icae_real)(0.6 * icae_rng_normal(&rng));
}

static void bench_open(bench *s, const char *level) {
    icae_error error = {0};
    *s = (bench){0};
    ck_ok(icae_backend_create(&s->backend, level, 2, &error));
    ck_ok(icae_graph_create(&s->graph, s->backend, &error));
    fill(s->x, T * D, 1);
    fill(s->norm, D, 2);
    fill(s->a, R * D, 3);
    fill(s->b, D * R, 4);
    icae_rng rng = {.seed = 22};
    for (int i = 0; i < D * D; i++)
        s->w[i] = icae_f32_to_bf16((float)icae_rng_normal(&rng) * 0.4f);
    s->leaf_norm = icae_leaf(ICAE_DTYPE_REAL, 1, norm_shape, s->norm, NULL);
    s->leaf_w = icae_leaf(ICAE_DTYPE_BF16, 2, w_shape, s->w, NULL);
    s->leaf_a = icae_leaf(ICAE_DTYPE_REAL, 2, a_shape, s->a, s->da);
    s->leaf_b = icae_leaf(ICAE_DTYPE_REAL, 2, b_shape, s->b, s->db);
}

static void bench_close(bench *s) {
    icae_graph_free(s->graph);
    icae_backend_free(s->backend); /* asserts that every buffer came back */
}

/* One layer of every kind; with `tidy`, each tensor is done with after its last use. Consumes x. */
static icae_tensor *layer(bench *s, icae_tensor *x, bool is_trained, bool tidy) {
    icae_graph *graph = s->graph;
    icae_lora lora = {.a = &s->leaf_a, .b = &s->leaf_b, .scale = 2};
    icae_tensor *n = icae_rmsnorm(graph, x, &s->leaf_norm, (icae_real)1e-3);
    icae_tensor *q = icae_linear(graph, n, &s->leaf_w, NULL, NULL, is_trained ? &lora : NULL);
    icae_tensor *y = icae_attention(graph, &heads, &pack, NULL, q, n, n);
    icae_tensor *g = icae_swiglu(graph, y, q);
    icae_tensor *z = icae_linear(graph, g, &s->leaf_w, NULL, x, NULL);
    icae_tensor *over[] = {x, n, q, y, g};
    for (int i = 0; tidy && i < 5; i++)
        icae_done(graph, over[i]);
    return z;
}

static icae_tensor *net(bench *s, int depth, bool is_trained, bool tidy) {
    icae_tensor *x = icae_constant(s->graph, 2, x_shape, s->x);
    for (int i = 0; i < depth; i++)
        x = layer(s, x, is_trained, tidy);
    icae_tensor *loss =
        icae_linear_cross_entropy(s->graph, x, &s->leaf_w, targets, coefs, NULL);
    if (tidy) icae_done(s->graph, x);
    return loss;
}

/* ---- memory ---- */

START_TEST(begin_takes_every_buffer_back) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    for (int tidy = 0; tidy < 2; tidy++) {
        icae_graph_begin(s.graph, true, false);
        icae_tensor *loss = net(&s, 2, true, tidy != 0);
        ck_assert_uint_gt(icae_pool_buffers_out(s.backend->pool), 0);
        icae_graph_begin(s.graph, true, false); /* abandoned before backward */
        ck_assert_uint_eq(icae_pool_buffers_out(s.backend->pool), 0);
        loss = net(&s, 2, true, tidy != 0);
        ck_ok(icae_graph_backward(s.graph, loss, &error));
        icae_graph_begin(s.graph, false, false);
        ck_assert_uint_eq(icae_pool_buffers_out(s.backend->pool), 0);
        ck_assert_uint_eq(icae_pool_bytes_out(s.backend->pool), 0);
        ck_assert_int_eq(icae_graph_nodes(s.graph), 0);
    }
    bench_close(&s);
}
END_TEST

START_TEST(backward_returns_all_but_the_loss_when_everything_is_done_with) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    icae_graph_begin(s.graph, true, false);
    icae_tensor *loss = net(&s, 3, true, true);
    ck_assert_uint_gt(icae_pool_buffers_out(s.backend->pool), 10);
    ck_ok(icae_graph_backward(s.graph, loss, &error));
    ck_assert_uint_eq(icae_pool_buffers_out(s.backend->pool), 1);
    icae_done(s.graph, loss);
    ck_assert_uint_eq(icae_pool_buffers_out(s.backend->pool), 0);
    bench_close(&s);
}
END_TEST

static size_t peak_of(bool is_recording, bool tidy) {
    bench s;
    bench_open(&s, NULL);
    icae_graph_begin(s.graph, is_recording, false);
    ck_assert_ptr_nonnull(net(&s, DEEP, true, tidy));
    size_t peak = icae_graph_bytes_peak(s.graph);
    bench_close(&s);
    return peak;
}

START_TEST(done_lowers_the_peak) {
    /* without a tape a tidy net needs one layer's buffers, however deep it is */
    ck_assert_uint_lt(peak_of(false, true) * (DEEP / 2), peak_of(false, false));
    /* with one it still need not keep what no backward reads */
    ck_assert_uint_lt(peak_of(true, true), peak_of(true, false));
    ck_assert_uint_lt(peak_of(false, true), peak_of(true, true));
}
END_TEST

START_TEST(frozen_weights_get_no_gradient_and_keep_their_bytes) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    uint16_t before[D * D];
    memcpy(before, s.w, sizeof before);
    icae_graph_begin(s.graph, true, false);
    ck_ok(icae_graph_backward(s.graph, net(&s, 2, true, true), &error));
    ck_assert(memcmp(before, s.w, sizeof before) == 0);
    ck_assert_ptr_null(s.leaf_w.gradient);
    ck_assert_ptr_null(s.leaf_norm.gradient);
    ck_assert(!s.leaf_w.wants_gradient && !s.leaf_w.has_gradient);
    bench_close(&s);
}
END_TEST

/* ---- what is recorded ---- */

START_TEST(nothing_is_recorded_when_nothing_wants_a_gradient) {
    bench s;
    bench_open(&s, NULL);
    icae_graph_begin(s.graph, true, false);
    icae_tensor *loss = net(&s, 2, false, true);
    ck_assert_ptr_nonnull(loss);
    ck_assert(!loss->wants_gradient);
    ck_assert_int_eq(icae_graph_nodes(s.graph), 0);
    ck_assert_uint_eq(icae_pool_buffers_out(s.backend->pool),
                      1); /* the loss: nothing is kept */
    bench_close(&s);
}
END_TEST

START_TEST(nothing_is_recorded_when_not_recording) {
    bench s;
    bench_open(&s, NULL);
    icae_graph_begin(s.graph, false, false);
    ck_assert_ptr_nonnull(net(&s, 2, true, true));
    ck_assert_int_eq(icae_graph_nodes(s.graph), 0);
    ck_assert_uint_eq(icae_pool_buffers_out(s.backend->pool), 1);
    icae_graph_begin(s.graph, true, false);
    ck_assert_ptr_nonnull(net(&s, 2, true, true));
    /* the first norm is before anything trained; then 4 + 5 ops and the loss */
    ck_assert_int_eq(icae_graph_nodes(s.graph), 10);
    bench_close(&s);
}
END_TEST

/* ---- gradients ---- */

static void run_step(bench *s, icae_real *da, icae_real *db) {
    icae_error error = {0};
    icae_graph_begin(s->graph, true, false);
    ck_ok(icae_graph_backward(s->graph, net(s, 3, true, true), &error));
    memcpy(da, s->da, sizeof s->da);
    memcpy(db, s->db, sizeof s->db);
}

START_TEST(a_step_gives_the_same_bits_on_every_run) {
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        bench s;
        bench_open(&s, *level);
        icae_real da[2][R * D], db[2][D * R];
        for (int run = 0; run < 2; run++) {
            memset(s.da, 0, sizeof s.da);
            memset(s.db, 0, sizeof s.db);
            run_step(&s, da[run], db[run]);
        }
        ck_assert(memcmp(da[0], da[1], sizeof da[0]) == 0);
        ck_assert(memcmp(db[0], db[1], sizeof db[0]) == 0);
        ck_assert(da[0][0] != 0 && db[0][0] != 0);
        bench_close(&s);
    }
}
END_TEST

START_TEST(parameters_accumulate_over_backwards) {
    bench s;
    bench_open(&s, NULL);
    icae_real da[2][R * D], db[2][D * R];
    for (int run = 0; run < 2; run++)
        run_step(&s, da[run], db[run]);
    for (int i = 0; i < R * D; i++) {
        double one_a = (double)da[0][i], one_b = (double)db[0][i];
        ck_assert(fabs((double)da[1][i] - 2 * one_a) <= 1e-5 * (1 + fabs(one_a)));
        ck_assert(fabs((double)db[1][i] - 2 * one_b) <= 1e-5 * (1 + fabs(one_b)));
    }
    bench_close(&s);
}
END_TEST

START_TEST(an_unreached_gradient_reads_as_zeros) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    icae_graph_begin(s.graph, true, false);
    icae_tensor *lonely = icae_variable(s.graph, 2, x_shape, s.x);
    ck_assert_ptr_nonnull(icae_rmsnorm(s.graph, lonely, &s.leaf_norm, 1));
    ck_ok(icae_graph_backward(s.graph, net(&s, 1, true, true), &error));
    icae_real gradient[T * D];
    memset(gradient, 1, sizeof gradient);
    icae_tensor_read_gradient(s.graph, lonely, gradient);
    for (int i = 0; i < T * D; i++)
        ck_assert(gradient[i] == 0);
    bench_close(&s);
}
END_TEST

/* An empty pack has an empty gradient: nothing is divided by its size. */
START_TEST(a_pack_without_tokens_passes_through) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    const int64_t none[] = {0, D};
    const icae_pack empty = {.starts = none}; /* no sequences: starts[0] = 0 */
    const uint64_t key = 0;
    icae_lora lora = {&s.leaf_a, &s.leaf_b, 1, {0.5, 1, &key}};
    icae_graph_begin(s.graph, true, false);
    icae_tensor *x = icae_variable(s.graph, 2, none, s.x);
    icae_tensor *angles = icae_constant(s.graph, 2, (int64_t[]){0, 4}, s.x);
    x = icae_rmsnorm(s.graph, x, &s.leaf_norm, 1);
    icae_tensor *q = icae_linear(s.graph, x, &s.leaf_w, NULL, x, &lora);
    q = icae_rope(s.graph, q, 4, angles);
    x = icae_attention(s.graph, &heads, &empty, NULL, q, x, x);
    x = icae_swiglu(s.graph, x, x);
    x = icae_rows(s.graph, 1, &x, 0, NULL, NULL);
    x = icae_linear_cross_entropy(s.graph, x, &s.leaf_w, NULL, NULL, NULL);
    ck_ok(icae_graph_status(s.graph, &error));
    icae_real loss = 1;
    icae_tensor_read(s.graph, x, &loss);
    ck_assert(loss == 0);
    ck_ok(icae_graph_backward(s.graph, x, &error));
    for (int i = 0; i < R * D; i++)
        ck_assert(s.da[i] == 0 && s.db[i] == 0);
    bench_close(&s);
}
END_TEST

/* ---- errors ---- */

static icae_tensor *wide(bench *s) {
    static const int64_t shape[] = {T, D / 2};
    return icae_variable(s->graph, 2, shape, s->x);
}

static icae_tensor *fitting(bench *s) {
    return icae_variable(s->graph, 2, x_shape, s->x);
}

static icae_tensor *deep(bench *s) {
    static const int64_t shape[] = {T, 2, D / 2};
    return icae_variable(s->graph, 3, shape, s->x);
}

static icae_tensor *bad_rmsnorm(bench *s) {
    return icae_rmsnorm(s->graph, wide(s), &s->leaf_norm, 1);
}
static icae_tensor *bad_linear(bench *s) {
    return icae_linear(s->graph, wide(s), &s->leaf_w, NULL, NULL, NULL);
}
static icae_tensor *bad_residual(bench *s) {
    return icae_linear(s->graph, fitting(s), &s->leaf_w, NULL, wide(s), NULL);
}
static icae_tensor *bad_lora(bench *s) {
    icae_lora lora = {.a = &s->leaf_b, .b = &s->leaf_a, .scale = 1};
    return icae_linear(s->graph, fitting(s), &s->leaf_w, NULL, NULL, &lora);
}
static icae_tensor *bad_rope(bench *s) {
    return icae_rope(s->graph, fitting(s), 4, fitting(s));
}
static icae_tensor *bad_attention(bench *s) {
    return icae_attention(s->graph, &heads, &pack, NULL, fitting(s), wide(s), fitting(s));
}
static icae_tensor *bad_attention_values(bench *s) {
    static const int64_t shape[] = {T - 1, D};
    icae_tensor *v = icae_variable(s->graph, 2, shape, s->x);
    return icae_attention(s->graph, &heads, &pack, NULL, fitting(s), fitting(s), v);
}
static icae_tensor *bad_swiglu(bench *s) {
    return icae_swiglu(s->graph, fitting(s), wide(s));
}
static icae_tensor *bad_geglu(bench *s) {
    return icae_geglu(s->graph, fitting(s), wide(s));
}
static icae_tensor *bad_add(bench *s) {
    return icae_add(s->graph, fitting(s), wide(s));
}
static icae_tensor *bad_add_twice(bench *s) {
    icae_tensor *x = fitting(s);
    return icae_add(s->graph, x, x);
}
static icae_tensor *bad_rows(bench *s) {
    icae_tensor *sources[] = {fitting(s), wide(s)};
    static const int32_t rows[] = {0};
    return icae_rows(s->graph, 2, sources, 1, NULL, rows);
}
static icae_tensor *bad_rows_index(bench *s) {
    icae_tensor *source = fitting(s);
    static const int32_t rows[] = {0, T};
    return icae_rows(s->graph, 1, &source, 2, NULL, rows);
}
static icae_tensor *bad_rows_source(bench *s) {
    icae_tensor *source = fitting(s);
    static const int32_t which[] = {0, -1}, rows[] = {0, 0};
    return icae_rows(s->graph, 1, &source, 2, which, rows);
}
static icae_tensor *bad_rows_rank(bench *s) {
    icae_tensor *source = deep(s);
    static const int32_t rows[] = {0};
    return icae_rows(s->graph, 1, &source, 1, NULL, rows);
}
static icae_tensor *bad_target(bench *s) {
    static const int32_t beyond[T] = {0, 0, D, 0, 0, 0};
    return icae_linear_cross_entropy(s->graph, fitting(s), &s->leaf_w, beyond, coefs, NULL);
}
static icae_tensor *bad_head(bench *s) {
    return icae_linear_cross_entropy(s->graph, wide(s), &s->leaf_w, targets, coefs, NULL);
}
static icae_tensor *bad_head_rank(bench *s) {
    static const int64_t shape[] = {D, D / 2};
    icae_tensor head = icae_leaf(ICAE_DTYPE_BF16, 2, shape, s->w, NULL);
    static const int64_t thick[] = {T, D / 2, 2};
    icae_tensor *h = icae_variable(s->graph, 3, thick, s->x);
    return icae_linear_cross_entropy(s->graph, h, &head, targets, coefs, NULL);
}

static const struct {
    icae_tensor *(*build)(bench *s);
    const char *says;
} refusals[] = {
    {bad_rmsnorm, "rmsnorm: rows of 4 values, a weight of 8"},
    {bad_linear, "linear: rows of 4 values, a weight [8, 8]"},
    {bad_residual, "linear: the residual is not [6, 8]"},
    {bad_lora, "linear: LoRA [8, 2] and [2, 8] do not fit a weight [8, 8]"},
    {bad_rope, "rope: rows of 8 values, heads of 4, angles [6, 8]"},
    {bad_attention, "attention: q, k, v do not fit 6 tokens, 2/2 heads of 4"},
    {bad_attention_values, "attention: q, k, v do not fit 6 tokens"},
    {bad_swiglu, "swiglu: 48 gate values, 24 up values"},
    {bad_geglu, "geglu: 48 gate values, 24 up values"},
    {bad_add, "add: 48 values and 24"},
    {bad_add_twice, "add: 48 values and 48 of the same tensor"},
    {bad_rows, "rows: source 1 has width 4, the first 8"},
    {bad_rows_index, "rows: row 6 of source 0, which has 6 rows"},
    {bad_rows_source, "rows: source -1 of 1"},
    {bad_rows_rank, "rows: source 0 has 3 axes"},
    {bad_target, "cross entropy: target 8 at row 2, the vocabulary has 8"},
    {bad_head, "cross entropy: rows of 4 values, a head [8, 8]"},
    {bad_head_rank, "cross entropy: "},
};

START_TEST(shapes_that_do_not_fit_are_refused_in_a_sentence) {
    bench s;
    bench_open(&s, NULL);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        icae_error error = {0};
        icae_graph_begin(s.graph, true, false);
        ck_assert_msg(refusals[i].build(&s) == NULL, "accepted: %s", refusals[i].says);
        ck_refused(icae_graph_status(s.graph, &error), refusals[i].says);
        ck_assert_int_eq(error.status, ICAE_INVALID);
    }
    bench_close(&s);
}
END_TEST

START_TEST(the_first_error_stays_until_begin) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    icae_graph_begin(s.graph, true, false);
    icae_tensor *before = fitting(&s);
    ck_assert_ptr_nonnull(before);
    ck_assert_ptr_null(bad_linear(&s));
    /* Every constructor, on sound input */
    static const int32_t rows[] = {0};
    ck_assert_ptr_null(icae_rmsnorm(s.graph, before, &s.leaf_norm, 1));
    ck_assert_ptr_null(icae_linear(s.graph, before, &s.leaf_w, NULL, NULL, NULL));
    ck_assert_ptr_null(icae_attention(s.graph, &heads, &pack, NULL, before, before, before));
    ck_assert_ptr_null(icae_swiglu(s.graph, before, before));
    ck_assert_ptr_null(icae_rows(s.graph, 1, &before, 1, NULL, rows));
    ck_assert_ptr_null(icae_rope(s.graph, before, D, before));
    ck_assert_ptr_null(
        icae_linear_cross_entropy(s.graph, before, &s.leaf_w, targets, coefs, NULL));
    ck_assert_ptr_null(icae_constant(s.graph, 2, x_shape, s.x));
    ck_assert_ptr_null(bad_swiglu(&s));
    ck_refused(icae_graph_status(s.graph, &error), "linear: rows of 4");
    ck_refused(icae_graph_backward(s.graph, NULL, &error), "linear: rows of 4");
    icae_graph_begin(s.graph, true, false);
    ck_ok(icae_graph_status(s.graph, &error));
    ck_ok(icae_graph_backward(s.graph, net(&s, 1, true, true), &error));
    bench_close(&s);
}
END_TEST

START_TEST(a_loss_of_several_values_is_refused) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    icae_graph_begin(s.graph, true, false);
    ck_refused(icae_graph_backward(s.graph, fitting(&s), &error),
               "the loss has 48 values, expected 1");
    bench_close(&s);
}
END_TEST

/* ---- the Nth allocation fails, alone or with all that follow ---- */

static void *(*sound_acquire)(icae_backend *be, size_t bytes);
static int acquires_left;
static bool fails_once;

static void *failing_acquire(icae_backend *be, size_t bytes) {
    int left = acquires_left--;
    return left > 0 || (fails_once && left < 0) ? sound_acquire(be, bytes) : NULL;
}

static icae_tensor *checkpointed_layer(icae_graph *graph, void *context, icae_tensor *x) {
    bench *s = context;
    static const uint64_t keys[T] = {1, 2, 3, 4, 5, 6};
    icae_lora lora = {&s->leaf_a, &s->leaf_b, 1, {0.5, 3, keys}};
    icae_tensor *q = icae_linear(graph, x, &s->leaf_w, NULL, x, &lora);
    icae_tensor *g = icae_swiglu(graph, q, x);
    icae_tensor *y = icae_attention(graph, &heads, &pack, NULL, g, q, q);
    icae_done(graph, q);
    icae_done(graph, g);
    return y;
}

static icae_status whole_step(bench *s, icae_error *error) {
    icae_graph_begin(s->graph, true, false);
    icae_tensor *x = icae_variable(s->graph, 2, x_shape, s->x);
    icae_tensor *y = icae_checkpoint(s->graph, checkpointed_layer, s, x);
    y = y ? layer(s, y, true, true) : NULL;
    y = icae_linear_cross_entropy(s->graph, y, &s->leaf_w, targets, coefs, NULL);
    return icae_graph_backward(s->graph, y, error);
}

START_TEST(memory_may_end_at_any_point_of_a_step) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    sound_acquire = s.backend->k.acquire;
    s.backend->k.acquire = failing_acquire;
    for (int once = 0; once < 2; once++) {
        fails_once = once;
        icae_status status = ICAE_MEMORY;
        int n;
        for (n = 0; status != ICAE_OK && n < 1000; n++) {
            acquires_left = n;
            error = (icae_error){0};
            status = whole_step(&s, &error);
            ck_assert_msg(status == ICAE_OK || status == ICAE_MEMORY, "%d: %s", n,
                          error.message);
            ck_assert_msg(status == ICAE_OK || strstr(error.message, "memory"), "%s",
                          error.message);
            icae_graph_begin(s.graph, true, false);
            ck_assert_uint_eq(icae_pool_buffers_out(s.backend->pool), 0);
        }
        ck_assert_int_gt(n, 20);
        ck_assert_int_eq(status, ICAE_OK);
    }
    bench_close(&s);
}
END_TEST

/* Every second of the step belongs to an op that it has, and to no other. */
START_TEST(a_profile_accounts_for_a_step) {
    bench s;
    icae_error error = {0};
    bench_open(&s, NULL);
    icae_profile profile = {0};
    double start_s = icae_clock_seconds();
    icae_graph_profile(s.graph, &profile);
    ck_ok(whole_step(&s, &error));
    icae_graph_profile(s.graph, NULL);
    double wall_s = icae_clock_seconds() - start_s, sum_s = 0;
    for (int op = 0; op < ICAE_OP_COUNT; op++) {
        double both_s = profile.forward_s[op] + profile.backward_s[op];
        bool is_there = op == ICAE_OP_linear || op == ICAE_OP_swiglu ||
                        op == ICAE_OP_attention || op == ICAE_OP_checkpoint ||
                        op == ICAE_OP_linear_cross_entropy;
        if (op == ICAE_OP_rows) ck_assert(both_s == 0);
        if (is_there)
            ck_assert_msg(profile.forward_s[op] > 0 && profile.backward_s[op] > 0, "%s",
                          icae_op_names[op]);
        sum_s += both_s;
    }
    ck_assert(sum_s > 0 && sum_s <= wall_s);
    ck_assert_ptr_null(icae_op_names[ICAE_OP_COUNT]);
    icae_profile before = profile;
    ck_ok(whole_step(&s, &error));
    ck_assert_int_eq(memcmp(&before, &profile, sizeof profile), 0);
    bench_close(&s);
}
END_TEST

SUITE_OF(graph, 60, begin_takes_every_buffer_back,
         backward_returns_all_but_the_loss_when_everything_is_done_with, done_lowers_the_peak,
         frozen_weights_get_no_gradient_and_keep_their_bytes,
         nothing_is_recorded_when_nothing_wants_a_gradient,
         nothing_is_recorded_when_not_recording, a_step_gives_the_same_bits_on_every_run,
         parameters_accumulate_over_backwards, an_unreached_gradient_reads_as_zeros,
         a_pack_without_tokens_passes_through, shapes_that_do_not_fit_are_refused_in_a_sentence,
         the_first_error_stays_until_begin, a_loss_of_several_values_is_refused,
         memory_may_end_at_any_point_of_a_step, a_profile_accounts_for_a_step)
