/* SPDX-License-Identifier: MIT */
/*
 * Every differentiable operation: a table of cases, at least one for each row of ops.def, whose
 * gradients are compared with central differences at every level this processor has (gradcheck.h).
 * Beside it what no difference shows: that checkpointing changes no bit, and that chunks of the
 * cross-entropy do not show in its result.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gradcheck.h"
#include "icae/rng.h"
#include "suites.h"

/* Three sequences of 1, 4 and 2 tokens. */
enum { T = 7, D = 8 };
static const int64_t starts[] = {0, 1, 5, 7};
static const int32_t positions[T] = {3, 0, 1, 2, 3, 5, 9};
static const uint64_t row_keys[T] = {40, 7, 8, 9, 10, 1000, UINT64_C(1) << 40};
static const icae_pack pack = {3, T, starts, positions, row_keys};

/* ---- builders ---- */

/* Row t comes from source which[t]; every source has rows that are used twice and rows never used. */
static icae_tensor *build_rows(icae_graph *graph, icae_tensor *const *in, const void *setting) {
    static const int32_t which[] = {0, 1, 2, 1, 0, 0, 2, 1, 2};
    static const int32_t rows[] = {4, 0, 1, 2, 4, 1, 1, 0, 0};
    (void)setting;
    return icae_rows(graph, 3, in, 9, which, rows);
}

static icae_tensor *build_rows_of_one(icae_graph *graph, icae_tensor *const *in,
                                      const void *setting) {
    static const int32_t rows[] = {2, 2, 0, 2};
    (void)setting;
    return icae_rows(graph, 1, in, 4, NULL, rows);
}

static icae_tensor *build_scaled_rows(icae_graph *graph, icae_tensor *const *in,
                                      const void *setting) {
    static const int32_t which[] = {0, 1, 1, 0, 0}, rows[] = {1, 0, 2, 0, 1};
    (void)setting;
    return icae_rows_scaled(graph, (icae_real)2.5, 2, in, 5, which, rows);
}

/* One tensor standing as two sources. */
static icae_tensor *build_rows_twice(icae_graph *graph, icae_tensor *const *in,
                                     const void *setting) {
    static const int32_t which[] = {0, 1, 1, 0}, rows[] = {0, 0, 2, 1};
    icae_tensor *sources[] = {in[0], in[0]};
    (void)setting;
    return icae_rows(graph, 2, sources, 4, which, rows);
}

/* in: x, the table, a constant as in build_rmsnorm. */
static icae_tensor *build_means(icae_graph *graph, icae_tensor *const *in,
                                const void *setting) {
    static const int64_t firsts[] = {0, 1, 5, 7};
    static const int32_t rows[] = {1, 0, 0, 1, 2, 2, 1}, to[] = {3, 0, 1};
    (void)setting;
    icae_tensor *y = icae_swiglu(graph, in[0], in[0]); /* it may take only what is no leaf */
    return icae_add_means(graph, y, in[1], (icae_real)1.5, 3, firsts, rows, to);
}

/* A result [T,H,E] is seen as [T,H*E] by gating a constant of that shape with it. */
static icae_tensor *build_rmsnorm(icae_graph *graph, icae_tensor *const *in,
                                  const void *setting) {
    (void)setting;
    icae_tensor *y = icae_rmsnorm(graph, in[0], in[1], (icae_real)1e-2);
    return in[2] ? icae_swiglu(graph, in[2], y) : y;
}

/* in: x, w, residual, a, b, bias. setting: the dropout rate. */
static icae_tensor *build_linear(icae_graph *graph, icae_tensor *const *in,
                                 const void *setting) {
    const double *rate = setting;
    icae_lora lora = {.a = in[3], .b = in[4], .scale = (icae_real)1.7};
    if (rate) lora.dropout = (icae_dropout){*rate, 77, row_keys};
    return icae_linear(graph, in[0], in[1], in[5], in[2], in[3] ? &lora : NULL);
}

/* The same weight and LoRA pair in two layers, the second with its own input as residual. */
static icae_tensor *build_linear_twice(icae_graph *graph, icae_tensor *const *in,
                                       const void *setting) {
    (void)setting;
    icae_lora lora = {.a = in[3], .b = in[4], .scale = (icae_real)0.8};
    icae_tensor *y = icae_linear(graph, in[0], in[1], NULL, NULL, &lora);
    icae_tensor *z = icae_linear(graph, y, in[1], NULL, y, &lora);
    icae_done(graph, y);
    return z;
}

/* in: x, angles, a constant as in build_rmsnorm. */
static icae_tensor *build_rope(icae_graph *graph, icae_tensor *const *in, const void *setting) {
    (void)setting;
    icae_tensor *y = icae_rope(graph, in[0], 4, in[1]);
    return in[2] ? icae_swiglu(graph, in[2], y) : y;
}

static icae_tensor *build_attention(icae_graph *graph, icae_tensor *const *in,
                                    const void *setting) {
    return icae_attention(graph, setting, &pack, NULL, in[0], in[1], in[2]);
}

static icae_tensor *build_self_attention(icae_graph *graph, icae_tensor *const *in,
                                         const void *setting) {
    return icae_attention(graph, setting, &pack, NULL, in[0], in[0], in[0]);
}

/* Both results meet in a product, so every input's gradient has two parts. */
static icae_tensor *build_attention_twice(icae_graph *graph, icae_tensor *const *in,
                                          const void *setting) {
    icae_tensor *y = icae_attention(graph, setting, &pack, NULL, in[0], in[1], in[2]);
    icae_tensor *z = icae_attention(graph, setting, &pack, NULL, in[1], in[2], in[0]);
    return icae_swiglu(graph, y, z);
}

static icae_tensor *build_swiglu(icae_graph *graph, icae_tensor *const *in,
                                 const void *setting) {
    (void)setting;
    return icae_swiglu(graph, in[0], in[1] ? in[1] : in[0]);
}

static icae_tensor *build_geglu(icae_graph *graph, icae_tensor *const *in,
                                const void *setting) {
    (void)setting;
    return icae_geglu(graph, in[0], in[1] ? in[1] : in[0]);
}

/* add consumes its first input, so that is a result; one that has another use beside the sum. */
static icae_tensor *build_add(icae_graph *graph, icae_tensor *const *in, const void *setting) {
    (void)setting;
    icae_tensor *normed = icae_rmsnorm(graph, in[0], in[1], (icae_real)1e-2);
    return icae_add(graph, normed, in[2] ? in[2] : in[0]);
}

static icae_tensor *build_cross_entropy(icae_graph *graph, icae_tensor *const *in,
                                        const void *setting) {
    static const int32_t targets[] = {2, 0, 4, 4, 1};
    static const icae_real coefs[] = {(icae_real)0.3, 0, (icae_real)-1.5, 2, (icae_real)0.1};
    (void)setting;
    return icae_linear_cross_entropy(graph, in[0], in[1], targets, coefs, NULL);
}

/* x feeds every kind of op, directly and through others: its gradient has many parts. */
static icae_tensor *build_fan(icae_graph *graph, icae_tensor *const *in, const void *setting) {
    static const int32_t rows[T] = {6, 5, 4, 3, 3, 1, 0};
    icae_tensor *x = in[0], *w = in[1];
    icae_tensor *attended = icae_attention(graph, setting, &pack, NULL, x, x, x);
    icae_tensor *gated = icae_swiglu(graph, x, attended);
    icae_tensor *gated_again = icae_swiglu(graph, attended, x);
    icae_tensor *normed = icae_rmsnorm(graph, x, in[2], (icae_real)1e-2);
    icae_tensor *picked = icae_rows(graph, 1, &x, T, NULL, rows);
    icae_tensor *y = icae_linear(graph, gated, w, NULL, x, NULL);
    y = icae_linear(graph, gated_again, w, NULL, y, NULL);
    y = icae_linear(graph, normed, w, NULL, y, NULL);
    y = icae_linear(graph, picked, w, NULL, y, NULL);
    return icae_linear(graph, x, w, NULL, y, NULL);
}

/* ---- a block, as a model would write it ---- */

static const icae_attention_shape block_shape = {2, 1, 4, (icae_real)0.5, 0};

/* context: the case's inputs x, norm, wq, wk, angles, a, b. */
static icae_tensor *block(icae_graph *graph, void *context, icae_tensor *x) {
    icae_tensor *const *in = *(icae_tensor *const **)context;
    icae_lora first = {in[5], in[6], (icae_real)1.5, {0.25, 5, row_keys}};
    icae_lora second = {in[5], in[6], (icae_real)0.5, {0.5, 6, row_keys}};
    icae_tensor *normed = icae_rmsnorm(graph, x, in[1], (icae_real)1e-2);
    icae_tensor *q = icae_linear(graph, normed, in[2], NULL, NULL, &first);
    icae_tensor *k = icae_linear(graph, normed, in[3], NULL, NULL, NULL);
    icae_tensor *v = icae_linear(graph, normed, in[3], NULL, NULL, NULL);
    icae_done(graph, normed);
    q = icae_rope(graph, q, 4, in[4]);
    k = icae_rope(graph, k, 4, in[4]);
    icae_tensor *y = icae_attention(graph, &block_shape, &pack, NULL, q, k, v);
    icae_done(graph, q);
    icae_done(graph, k);
    icae_done(graph, v);
    icae_tensor *z = icae_linear(graph, y, in[2], NULL, x, &second);
    icae_done(graph, y);
    return z;
}

static icae_tensor *block_of_blocks(icae_graph *graph, void *context, icae_tensor *x) {
    icae_tensor *y = icae_checkpoint(graph, block, context, x);
    icae_tensor *z = icae_checkpoint(graph, block, context, y);
    icae_done(graph, y);
    return z;
}

static icae_tensor *frozen_block(icae_graph *graph, void *context, icae_tensor *x) {
    icae_tensor *const *in = *(icae_tensor *const **)context;
    return icae_rmsnorm(graph, x, in[1], (icae_real)1e-2);
}

/* What is trained comes first; the checkpoint within holds nothing trained. */
static icae_tensor *trained_then_frozen(icae_graph *graph, void *context, icae_tensor *x) {
    icae_tensor *const *in = *(icae_tensor *const **)context;
    icae_lora lora = {.a = in[5], .b = in[6], .scale = 1};
    icae_tensor *y = icae_linear(graph, x, in[2], NULL, NULL, &lora);
    icae_tensor *z = icae_checkpoint(graph, frozen_block, context, y);
    icae_done(graph, y);
    return z;
}

typedef enum nesting { NEST_NONE, NEST_EACH, NEST_BOTH, NEST_FROZEN } nesting;

static icae_tensor *build_blocks(icae_graph *graph, icae_tensor *const *in,
                                 const void *setting) {
    const nesting *how = setting;
    icae_tensor *const **context = icae_graph_arena(graph, sizeof *context);
    ck_assert_ptr_nonnull(context);
    *context = in;
    if (*how == NEST_EACH) return block_of_blocks(graph, context, in[0]);
    if (*how == NEST_BOTH) return icae_checkpoint(graph, block_of_blocks, context, in[0]);
    if (*how == NEST_FROZEN) return icae_checkpoint(graph, trained_then_frozen, context, in[0]);
    icae_tensor *y = block(graph, context, in[0]);
    icae_tensor *z = block(graph, context, y);
    icae_done(graph, y);
    return z;
}

/* ---- the table ---- */

static const double rate = 0.4;
static const nesting nest_none = NEST_NONE, nest_each = NEST_EACH, nest_both = NEST_BOTH,
                     nest_frozen = NEST_FROZEN;
static const icae_attention_shape grouped = {4, 2, 2, (icae_real)0.9, 0};
static const icae_attention_shape windowed = {2, 2, 4, (icae_real)1.1, 2};
static const icae_attention_shape plain = {2, 2, 4, (icae_real)0.7, 0};

/* clang-format off */
#define VARIABLE(...)      {GRAD_VARIABLE, RANK(__VA_ARGS__), {__VA_ARGS__}, ICAE_DTYPE_REAL}
#define PARAMETER(...)     {GRAD_PARAMETER, RANK(__VA_ARGS__), {__VA_ARGS__}, ICAE_DTYPE_REAL}
#define CONSTANT(...)      {GRAD_CONSTANT, RANK(__VA_ARGS__), {__VA_ARGS__}, ICAE_DTYPE_REAL}
#define FROZEN(dtype, ...) {GRAD_FROZEN, RANK(__VA_ARGS__), {__VA_ARGS__}, ICAE_DTYPE_##dtype}
#define NOTHING            {GRAD_NONE, 0, {0}, ICAE_DTYPE_REAL}
#define RANK(...)          ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define BLOCK_INPUTS                                                                      \
    FROZEN(REAL, D), FROZEN(BF16, D, D), FROZEN(F16, D / 2, D), CONSTANT(T, 4), PARAMETER(3, D), \
    PARAMETER(D, 3)

/* A linear layer over a weight of every storage type. */
#define LINEAR_STORED(name, values, bytes, safetensors, ggml)             \
    {"linear over " #name, ICAE_OP_linear, build_linear, NULL,            \
     {VARIABLE(3, (values) > 64 ? (values) : 64), FROZEN(name, 5, (values) > 64 ? (values) : 64)}},
#define ROWS_STORED(name, values, bytes, safetensors, ggml)               \
    {"rows of frozen " #name, ICAE_OP_rows, build_rows, NULL,             \
     {PARAMETER(5, (values) > 32 ? (values) : 32), FROZEN(name, 3, (values) > 32 ? (values) : 32),  \
      VARIABLE(2, (values) > 32 ? (values) : 32)}},

static const grad_case cases[] = {
    {"rows of three", ICAE_OP_rows, build_rows, NULL,
     {VARIABLE(5, 4), PARAMETER(3, 4), VARIABLE(2, 4)}},
    {"rows of one", ICAE_OP_rows, build_rows_of_one, NULL, {PARAMETER(3, 4)}},
    {"rows of one tensor twice", ICAE_OP_rows, build_rows_twice, NULL, {VARIABLE(3, 4)}},
    {"rows, the first source scaled", ICAE_OP_rows, build_scaled_rows, NULL,
     {VARIABLE(2, 4), PARAMETER(3, 4)}},
    ICAE_DTYPE_LIST(ROWS_STORED)

    {"means of frozen rows", ICAE_OP_add_means, build_means, NULL,
     {VARIABLE(5, 32), FROZEN(Q8_0, 3, 32)}},

    {"rmsnorm", ICAE_OP_rmsnorm, build_rmsnorm, NULL, {VARIABLE(5, 12), FROZEN(REAL, 12)}},
    {"rmsnorm of heads", ICAE_OP_rmsnorm, build_rmsnorm, NULL,
     {VARIABLE(3, 2, 6), FROZEN(REAL, 6), CONSTANT(3, 12)}},

    {"rmsnorm of heads side by side", ICAE_OP_rmsnorm, build_rmsnorm, NULL,
     {VARIABLE(3, 12), FROZEN(REAL, 6)}},

    ICAE_DTYPE_LIST(LINEAR_STORED)
    {"linear + bias", ICAE_OP_linear, build_linear, NULL,
     {VARIABLE(T, D), FROZEN(REAL, 6, D), NOTHING, NOTHING, NOTHING, FROZEN(REAL, 6)}},
    {"linear + residual + lora with dropout + bias", ICAE_OP_linear, build_linear, &rate,
     {VARIABLE(T, D), FROZEN(REAL, 6, D), VARIABLE(T, 6), PARAMETER(3, D), PARAMETER(6, 3),
      FROZEN(REAL, 6)}},
    {"linear + residual", ICAE_OP_linear, build_linear, NULL,
     {VARIABLE(T, D), FROZEN(REAL, 6, D), VARIABLE(T, 6)}},
    {"linear, the residual alone wanted", ICAE_OP_linear, build_linear, NULL,
     {CONSTANT(T, D), FROZEN(REAL, 6, D), PARAMETER(T, 6)}},
    {"linear + lora", ICAE_OP_linear, build_linear, NULL,
     {VARIABLE(T, D), FROZEN(REAL, 6, D), NOTHING, PARAMETER(3, D), PARAMETER(6, 3)}},
    {"linear + lora with dropout", ICAE_OP_linear, build_linear, &rate,
     {VARIABLE(T, D), FROZEN(REAL, 6, D), NOTHING, PARAMETER(3, D), PARAMETER(6, 3)}},
    {"linear + lora, x not wanted", ICAE_OP_linear, build_linear, &rate,
     {CONSTANT(T, D), FROZEN(REAL, 6, D), NOTHING, PARAMETER(3, D), PARAMETER(6, 3)}},
    {"linear + lora, a frozen", ICAE_OP_linear, build_linear, &rate,
     {VARIABLE(T, D), FROZEN(REAL, 6, D), NOTHING, FROZEN(BF16, 3, D), PARAMETER(6, 3)}},
    {"linear + lora, b frozen", ICAE_OP_linear, build_linear, NULL,
     {VARIABLE(T, D), FROZEN(REAL, 6, D), NOTHING, PARAMETER(3, D), FROZEN(F16, 6, 3)}},
    {"linear + residual + lora with dropout", ICAE_OP_linear, build_linear, &rate,
     {VARIABLE(T, 32), FROZEN(Q4_1, 6, 32), VARIABLE(T, 6), PARAMETER(2, 32), PARAMETER(6, 2)}},
    {"linear twice with the same parameters", ICAE_OP_linear, build_linear_twice, NULL,
     {VARIABLE(T, D), FROZEN(REAL, D, D), NOTHING, PARAMETER(2, D), PARAMETER(D, 2)}},

    {"rope", ICAE_OP_rope, build_rope, NULL, {VARIABLE(3, 8), CONSTANT(3, 4)}},
    {"rope of heads", ICAE_OP_rope, build_rope, NULL,
     {VARIABLE(3, 3, 4), CONSTANT(3, 4), CONSTANT(3, 12)}},

    {"attention", ICAE_OP_attention, build_attention, &plain,
     {VARIABLE(T, 8), VARIABLE(T, 8), VARIABLE(T, 8)}},
    {"attention, grouped heads", ICAE_OP_attention, build_attention, &grouped,
     {VARIABLE(T, 8), PARAMETER(T, 4), VARIABLE(T, 4)}},
    {"attention in a window", ICAE_OP_attention, build_attention, &windowed,
     {VARIABLE(T, 8), VARIABLE(T, 8), VARIABLE(T, 8)}},
    {"attention, k alone wanted", ICAE_OP_attention, build_attention, &grouped,
     {CONSTANT(T, 8), VARIABLE(T, 4), CONSTANT(T, 4)}},
    {"attention, q not wanted", ICAE_OP_attention, build_attention, &plain,
     {CONSTANT(T, 8), VARIABLE(T, 8), VARIABLE(T, 8)}},
    {"attention of one tensor to itself", ICAE_OP_attention, build_self_attention, &plain,
     {VARIABLE(T, 8)}},
    {"attention twice", ICAE_OP_attention, build_attention_twice, &windowed,
     {VARIABLE(T, 8), VARIABLE(T, 8), VARIABLE(T, 8)}},

    {"swiglu", ICAE_OP_swiglu, build_swiglu, NULL, {VARIABLE(3, 9), VARIABLE(3, 9)}},
    {"swiglu, gate == up", ICAE_OP_swiglu, build_swiglu, NULL, {VARIABLE(3, 9)}},
    {"swiglu, gate == up, a parameter", ICAE_OP_swiglu, build_swiglu, NULL, {PARAMETER(3, 9)}},
    {"swiglu, up a constant", ICAE_OP_swiglu, build_swiglu, NULL,
     {VARIABLE(3, 9), CONSTANT(3, 9)}},
    {"swiglu, gate a constant", ICAE_OP_swiglu, build_swiglu, NULL,
     {CONSTANT(3, 9), PARAMETER(3, 9)}},
    {"swiglu, one a parameter", ICAE_OP_swiglu, build_swiglu, NULL,
     {VARIABLE(3, 9), PARAMETER(3, 9)}},

    {"geglu", ICAE_OP_geglu, build_geglu, NULL, {VARIABLE(3, 9), VARIABLE(3, 9)}},
    {"geglu, gate == up", ICAE_OP_geglu, build_geglu, NULL, {VARIABLE(3, 9)}},
    {"geglu, up a constant", ICAE_OP_geglu, build_geglu, NULL, {VARIABLE(3, 9), CONSTANT(3, 9)}},
    {"geglu, gate a constant", ICAE_OP_geglu, build_geglu, NULL,
     {CONSTANT(3, 9), PARAMETER(3, 9)}},

    {"add", ICAE_OP_add, build_add, NULL, {VARIABLE(T, D), FROZEN(REAL, D), VARIABLE(T, D)}},
    {"add, the residual a parameter", ICAE_OP_add, build_add, NULL,
     {VARIABLE(T, D), FROZEN(REAL, D), PARAMETER(T, D)}},
    {"add, the residual a constant", ICAE_OP_add, build_add, NULL,
     {VARIABLE(T, D), FROZEN(REAL, D), CONSTANT(T, D)}},
    {"add, the residual alone wanted", ICAE_OP_add, build_add, NULL,
     {CONSTANT(T, D), FROZEN(REAL, D), VARIABLE(T, D)}},
    {"add, the residual what was normed", ICAE_OP_add, build_add, NULL,
     {VARIABLE(T, D), FROZEN(REAL, D)}},

    {"cross entropy", ICAE_OP_linear_cross_entropy, build_cross_entropy, NULL,
     {VARIABLE(5, 6), FROZEN(REAL, 5, 6)}},
    {"cross entropy of a parameter", ICAE_OP_linear_cross_entropy, build_cross_entropy, NULL,
     {PARAMETER(5, 32), FROZEN(Q8_0, 9, 32)}},

    {"one tensor in many ops", ICAE_OP_rows, build_fan, &plain,
     {VARIABLE(T, D), FROZEN(REAL, D, D), FROZEN(REAL, D)}},

    {"two blocks", ICAE_OP_checkpoint, build_blocks, &nest_none, {VARIABLE(T, D), BLOCK_INPUTS}},
    {"two blocks, each checkpointed", ICAE_OP_checkpoint, build_blocks, &nest_each,
     {VARIABLE(T, D), BLOCK_INPUTS}},
    {"checkpoints in a checkpoint", ICAE_OP_checkpoint, build_blocks, &nest_both,
     {VARIABLE(T, D), BLOCK_INPUTS}},
    {"checkpoints over an input not wanted", ICAE_OP_checkpoint, build_blocks, &nest_both,
     {CONSTANT(T, D), BLOCK_INPUTS}},
    {"a frozen checkpoint in a trained one", ICAE_OP_checkpoint, build_blocks, &nest_frozen,
     {CONSTANT(T, D), BLOCK_INPUTS}},
};
/* clang-format on */

enum { CASE_COUNT = sizeof cases / sizeof cases[0] };

/* ---- tests ---- */

START_TEST(every_row_of_the_table_of_ops_has_a_case) {
    static const char *const names[] = {
#define OP(name) #name,
#include "autograd/ops.def"
#undef OP
    };
    for (int op = 0; op < ICAE_OP_COUNT; op++) {
        int count = 0;
        for (int i = 0; i < CASE_COUNT; i++)
            count += cases[i].op == (icae_op)op;
        ck_assert_msg(count > 0, "op %s of ops.def has no case in tests/unit/test_ops.c",
                      names[op]);
    }
}
END_TEST

/* Asserts that one gradient agrees, and that it is not trivially zero. */
static void expect_agreement(const grad_check *check, int input, const char *level) {
    const grad_values *values = &check->inputs[input];
    double largest = 0;
    for (int64_t j = 0; j < values->count; j++)
        largest = fmax(largest, fabs(values->numeric[j]));
    ck_assert_msg(largest > 1e-3, "%s: input %d has no influence", check->what->name, input);
    int64_t at = grad_disagreement(grad_limit_of_build, values->count, values->gradient,
                                   values->numeric);
    ck_assert_msg(at < 0, "%s at level %s, input %d, entry %lld: the tape says %.9g, %s %.9g",
                  check->what->name, level, input, (long long)at,
                  (double)values->gradient[at < 0 ? 0 : at], "differences say",
                  values->numeric[at < 0 ? 0 : at]);
}

START_TEST(gradients_agree_with_central_differences_at_every_level) {
    for (int i = 0; i < CASE_COUNT; i++) {
        grad_check check;
        grad_open(&check, &cases[i]);
        grad_numeric(&check);
        for (const char *const *level = icae_backend_levels(); *level; level++) {
            grad_analytic(&check, *level);
            double loss_limit =
                (ICAE_REAL_IS_DOUBLE ? 1e-10 : 1e-5) * fmax(1, fabs(check.numeric_loss));
            ck_assert_msg(fabs(check.loss - check.numeric_loss) <= loss_limit,
                          "%s at level %s: the loss is %.9g, the reference's %.9g",
                          cases[i].name, *level, check.loss, check.numeric_loss);
            for (int in = 0; in < GRAD_INPUTS; in++) {
                if (check.inputs[in].numeric) expect_agreement(&check, in, *level);
            }
        }
        grad_close(&check);
    }
}
END_TEST

/* A wrong entry as small as a hundred times the limit is noticed, wherever it stands. */
START_TEST(a_perturbed_gradient_is_noticed) {
    grad_check check;
    grad_open(&check, &cases[0]);
    grad_numeric(&check);
    grad_analytic(&check, "reference");
    const grad_limit limit = grad_limit_of_build;
    int noticed = 0;
    for (int in = 0; in < GRAD_INPUTS; in++) {
        grad_values *values = &check.inputs[in];
        for (int64_t j = 0; values->numeric && j < values->count; j++) {
            icae_real before = values->gradient[j];
            if (before == 0) continue;
            /* 1e-4 of the entry itself in double; in float the limit goes by the largest entry */
            values->gradient[j] = (icae_real)((double)before * (1 + 100 * limit.relative)) +
                                  (icae_real)(limit.floor == 1 ? 0.1 : 0);
            int64_t at =
                grad_disagreement(limit, values->count, values->gradient, values->numeric);
            ck_assert_int_eq(at, j);
            values->gradient[j] = (icae_real)NAN;
            at = grad_disagreement(limit, values->count, values->gradient, values->numeric);
            ck_assert_int_eq(at, j);
            values->gradient[j] = before;
            noticed++;
        }
    }
    ck_assert_int_gt(noticed, 10);
    grad_close(&check);
}
END_TEST

/* Runs two cases that differ in their checkpoints alone. */
static void expect_same_bits(const char *one_name, const char *other_name) {
    const grad_case *one = NULL, *other = NULL;
    for (int i = 0; i < CASE_COUNT; i++) {
        if (!strcmp(cases[i].name, one_name)) one = &cases[i];
        if (!strcmp(cases[i].name, other_name)) other = &cases[i];
    }
    ck_assert(one && other);
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        grad_check a, b;
        grad_open(&a, one);
        grad_open(&b, other);
        grad_analytic(&a, *level);
        grad_analytic(&b, *level);
        ck_assert_int_gt(a.nodes, b.nodes); /* b really did leave nodes out */
        ck_assert(memcmp(&a.loss, &b.loss, sizeof a.loss) == 0);
        for (int in = 0; in < GRAD_INPUTS; in++) {
            const grad_values *x = &a.inputs[in], *y = &b.inputs[in];
            ck_assert_int_eq(x->count, y->count);
            if (!x->gradient) continue;
            ck_assert_msg(
                memcmp(x->gradient, y->gradient, (size_t)x->count * sizeof *x->gradient) == 0,
                "%s and %s at level %s differ in the gradient of input %d", one_name,
                other_name, *level, in);
        }
        grad_close(&a);
        grad_close(&b);
    }
}

START_TEST(checkpointing_changes_no_bit) {
    expect_same_bits("two blocks", "two blocks, each checkpointed");
    expect_same_bits("two blocks, each checkpointed", "checkpoints in a checkpoint");
}
END_TEST

/* The vocabulary is so large that the rows need several chunks; each row by itself needs one. */
START_TEST(chunks_of_the_cross_entropy_do_not_show) {
    enum { N = 20, V = 1 << 20, W = 2 };
    icae_error error = {0};
    icae_rng rng = {.seed = 5};
    int64_t head_shape[2] = {V, W}, h_shape[2] = {N, W}, row_shape[2] = {1, W};
    float *head = malloc(sizeof *head * V * W);
    ck_assert_ptr_nonnull(head);
    for (int64_t i = 0; i < (int64_t)V * W; i++)
        head[i] = (float)icae_rng_normal(&rng);
    icae_real h[N * W], coefs[N], nll[N], dh[N * W];
    int32_t targets[N];
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < W; j++)
            h[i * W + j] = (icae_real)icae_rng_normal(&rng);
        coefs[i] = (icae_real)(0.1 * i - 0.7);
        targets[i] = (int32_t)icae_rng_below(&rng, V);
    }
    icae_tensor w = icae_leaf(ICAE_DTYPE_F32, 2, head_shape, head, NULL);
    for (const char *const *level = icae_backend_levels(); *level; level++) {
        icae_backend *backend = NULL;
        icae_graph *graph = NULL;
        ck_ok(icae_backend_create(&backend, *level, 2, &error));
        ck_ok(icae_graph_create(&graph, backend, &error));
        icae_graph_begin(graph, true, false);
        icae_tensor *x = icae_variable(graph, 2, h_shape, h);
        icae_tensor *loss = icae_linear_cross_entropy(graph, x, &w, targets, coefs, nll);
        icae_real whole;
        icae_tensor_read(graph, loss, &whole);
        ck_ok(icae_graph_backward(graph, loss, &error));
        icae_tensor_read_gradient(graph, x, dh);
        size_t all_rows = (size_t)N * V * sizeof(icae_real);
        ck_assert_uint_lt(icae_graph_bytes_peak(graph), all_rows); /* there were chunks */
        double sum = 0;
        for (int i = 0; i < N; i++) {
            icae_graph_begin(graph, true, false);
            icae_real row_nll, row_dh[W];
            icae_tensor *row = icae_variable(graph, 2, row_shape, h + i * W);
            loss = icae_linear_cross_entropy(graph, row, &w, targets + i, coefs + i, &row_nll);
            ck_ok(icae_graph_backward(graph, loss, &error));
            icae_tensor_read_gradient(graph, row, row_dh);
            ck_assert(row_nll > 5 && row_nll < 40); /* log V is 13.9 */
            ck_assert(memcmp(&row_nll, nll + i, sizeof row_nll) == 0);
            ck_assert(memcmp(row_dh, dh + i * W, sizeof row_dh) == 0);
            sum += (double)coefs[i] * (double)row_nll;
        }
        ck_assert_double_eq_tol((double)whole, sum, 1e-4);
        icae_graph_free(graph);
        icae_backend_free(backend);
    }
    free(head);
}
END_TEST

SUITE_OF(ops, 120, every_row_of_the_table_of_ops_has_a_case,
         gradients_agree_with_central_differences_at_every_level,
         a_perturbed_gradient_is_noticed, checkpointing_changes_no_bit,
         chunks_of_the_cross_entropy_do_not_show)
