/* SPDX-License-Identifier: MIT */
/*
 * Gradients against central differences.
 *
 * A case names an op, describes its inputs, and builds a tensor from them. The checker fills the
 * inputs with numbers that depend on nothing but their place and size, ends the graph in a scalar
 *
 *     f = sum_i coefs[i] * -log softmax(y[i,:] head^T)[targets[i]]
 *
 * over fixed random coefs, head and targets (so every element of y matters, each differently), and
 * compares what the tape says with
 *
 *     df/dx = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h + O(h^4)
 *
 * The differences are made once, on the reference kernels; the gradients of every level are compared
 * with them, so a level agrees with the oracle's forward too. A case may also return a [1] of its own.
 */
#ifndef ICAE_TESTS_GRADCHECK_H
#define ICAE_TESTS_GRADCHECK_H

#include "icae/graph.h"
#include "icae/ops.h"

enum { GRAD_INPUTS = 8, GRAD_RANK = 3 };

typedef enum grad_kind {
    GRAD_NONE,      /* no input */
    GRAD_VARIABLE,  /* a tensor of the step that wants a gradient */
    GRAD_PARAMETER, /* a leaf that wants one */
    GRAD_CONSTANT,  /* a tensor of the step that wants none */
    GRAD_FROZEN     /* a leaf that wants none, of any storage type */
} grad_kind;

typedef struct grad_input {
    grad_kind kind;
    int rank;
    int64_t shape[GRAD_RANK];
    icae_dtype stored; /* of a frozen leaf; real for the others */
} grad_input;

typedef struct grad_case grad_case;
typedef icae_tensor *grad_build(icae_graph *graph, icae_tensor *const *in, const void *setting);
struct grad_case {
    const char *name;
    icae_op op;
    grad_build *build;
    const void *setting; /* passed to build */
    grad_input inputs[GRAD_INPUTS];
};

/* One input's numbers, one struct per input of the case. */
typedef struct grad_values {
    int64_t count;
    void *stored;        /* as the leaf or tensor has them */
    size_t stored_bytes; /* of that */
    icae_real *gradient; /* what the last grad_analytic said; NULL when none is wanted */
    double *numeric;     /* what grad_numeric said */
} grad_values;

typedef struct grad_check {
    const grad_case *what;
    icae_arena arena;
    grad_values inputs[GRAD_INPUTS];
    icae_real *head, *coefs; /* of the closing loss, made by the first run */
    int32_t *targets;
    double loss;         /* of the last grad_analytic */
    double numeric_loss; /* f at the point itself, on the reference kernels */
    int64_t nodes;       /* on the tape of the last grad_analytic */
} grad_check;

/* Fails the running test when memory ends. */
void grad_open(grad_check *check, const grad_case *what);
void grad_close(grad_check *check);

/* Runs the case forwards and backwards at a level; asserts that no error came up, that frozen inputs kept
 * their bytes, and that nothing is left in the pool afterwards. */
void grad_analytic(grad_check *check, const char *level);
/* Fills numeric and numeric_loss, on the reference kernels. */
void grad_numeric(grad_check *check);

/* How far two gradients of one tensor may be apart: |a - n| <= relative * max(|a|, |n|, floor * largest),
 * largest being the largest entry of n. NaN never agrees. */
typedef struct grad_limit {
    double relative, floor;
} grad_limit;
extern const grad_limit grad_limit_of_build; /* strict in the f64 build */
/* -1 when all agree, else the first entry that does not. */
int64_t grad_disagreement(grad_limit limit, int64_t count, const icae_real *analytic,
                          const double *numeric);

#endif
