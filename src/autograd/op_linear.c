/* SPDX-License-Identifier: MIT */
/*
 * linear: frozen matrix, optional frozen bias, residual and LoRA pair; see icae/ops.h.
 *
 *     y = residual + x w^T + bias + u b^T,   u = scale * dropout(x) a^T        [T,R]
 *
 * Backward, from dy [T,N]:
 *     d residual += dy            dx += dy w
 *     db += dy^T u                du  = scale * dy b
 *     da += du^T dropout(x)       dx += dropout'(du a)
 */
#include "autograd/graph_internal.h"

typedef struct linear_params {
    icae_lora lora; /* a = NULL: none */
} linear_params;

/* dropout(x) in a buffer of its own, or x itself; *owned tells which. */
static const icae_real *dropped(icae_graph *graph, const icae_tensor *x,
                                const icae_dropout *dropout, icae_real **owned) {
    *owned = NULL;
    if (dropout->rate <= 0) return icae_values(x);
    icae_backend *be = icae_graph_backend(graph);
    int64_t T = x->shape[0], K = x->shape[1];
    *owned = be->k.acquire(be, (size_t)(T * K) * sizeof **owned);
    if (!icae_graph_got(graph, *owned, "dropout")) return NULL;
    be->k.dropout(be, T, K, icae_values(x), dropout->seed, dropout->row_keys, dropout->rate,
                  false, *owned);
    return *owned;
}

static bool shapes_agree(icae_graph *graph, const icae_tensor *x, const icae_tensor *w,
                         const icae_tensor *bias, const icae_tensor *residual,
                         const icae_lora *lora) {
    int64_t N = w->shape[0], K = w->shape[1];
    if (!icae_graph_expect(graph, x->rank == 2 && x->shape[1] == K,
                           "linear: rows of %lld values, a weight [%lld, %lld]",
                           (long long)x->shape[x->rank - 1], (long long)N, (long long)K)) {
        return false;
    }
    if (bias &&
        !icae_graph_expect(graph,
                           bias->rank == 1 && bias->shape[0] == N &&
                               bias->dtype == ICAE_DTYPE_REAL && !bias->wants_gradient,
                           "linear: the bias is not frozen numbers [%lld]", (long long)N)) {
        return false;
    }
    if (residual &&
        !icae_graph_expect(
            graph,
            residual->rank == 2 && residual->shape[0] == x->shape[0] && residual->shape[1] == N,
            "linear: the residual is not [%lld, %lld]", (long long)x->shape[0], (long long)N)) {
        return false;
    }
    return !lora ||
           icae_graph_expect(graph,
                             lora->a->shape[1] == K && lora->b->shape[0] == N &&
                                 lora->a->shape[0] == lora->b->shape[1],
                             "linear: LoRA [%lld, %lld] and [%lld, %lld] do not fit a "
                             "weight [%lld, %lld]",
                             (long long)lora->a->shape[0], (long long)lora->a->shape[1],
                             (long long)lora->b->shape[0], (long long)lora->b->shape[1],
                             (long long)N, (long long)K);
}

/* u = scale * dropout(x) a^T, and y += u b^T; returns u. */
static icae_tensor *add_lora(icae_graph *graph, icae_tensor *x, const icae_lora *lora,
                             icae_tensor *y) {
    icae_backend *be = icae_graph_backend(graph);
    icae_product *multiply = icae_graph_is_generating(graph) ? be->k.linear_few : be->k.linear;
    int64_t T = x->shape[0], R = lora->a->shape[0], shape[2] = {T, R};
    icae_real *owned;
    const icae_real *input = dropped(graph, x, &lora->dropout, &owned);
    icae_tensor *u = input ? icae_graph_result(graph, 2, shape) : NULL;
    if (u) {
        icae_matrix a = icae_tensor_matrix(lora->a), b = icae_tensor_matrix(lora->b);
        multiply(be, T, R, x->shape[1], input, &a, false, icae_values(u));
        be->k.scale(be, T * R, lora->scale, icae_values(u), icae_values(u));
        multiply(be, T, y->shape[1], R, icae_values(u), &b, true, icae_values(y));
    }
    be->k.release(be, owned);
    return u;
}

icae_tensor *icae_linear(icae_graph *graph, icae_tensor *x, icae_tensor *w, icae_tensor *bias,
                         icae_tensor *residual, const icae_lora *lora) {
    if (!x || !w || !shapes_agree(graph, x, w, bias, residual, lora)) return NULL;
    int64_t T = x->shape[0], N = w->shape[0], K = w->shape[1], shape[2] = {T, N};
    icae_tensor *y = icae_graph_result(graph, 2, shape);
    if (!y) return NULL;
    icae_backend *be = icae_graph_backend(graph);
    icae_product *multiply = icae_graph_is_generating(graph) ? icae_frozen_product_few(be)
                             : icae_graph_is_reading(graph)  ? icae_frozen_product_reading(be)
                                                             : icae_frozen_product(be);
    icae_matrix matrix = icae_tensor_matrix(w);
    if (residual) {
        be->k.copy(be, icae_values(y), residual->data, (size_t)(T * N) * sizeof(icae_real));
    }
    multiply(be, T, N, K, icae_values(x), &matrix, residual != NULL, icae_values(y));
    if (bias) be->k.add_row(be, T, N, icae_values(bias), icae_values(y));
    icae_tensor *u = NULL;
    if (lora && !(u = add_lora(graph, x, lora, y))) return NULL;
    icae_tensor *inputs[] = {x, w, residual, lora ? lora->a : NULL, lora ? lora->b : NULL};
    icae_node *node = icae_graph_record(graph, ICAE_OP_linear, y, inputs, 5);
    linear_params *params = node ? icae_graph_arena(graph, sizeof *params) : NULL;
    if (params) {
        node->params = params;
        if (lora) {
            params->lora = *lora;
            icae_node_keep_rounded(node, x);
            icae_node_keep_rounded(node, u);
        }
    }
    icae_done(graph, u);
    return y;
}

static void lora_backward(icae_graph *graph, icae_node *node, const icae_lora *lora) {
    icae_backend *be = icae_graph_backend(graph);
    icae_tensor *x = node->inputs[0], *u = node->kept[1];
    const icae_real *dy = node->output->gradient;
    int64_t T = x->shape[0], K = x->shape[1], N = node->output->shape[1], R = u->shape[1];
    bool add;
    icae_real *db = icae_gradient(graph, lora->b, &add);
    if (db) {
        be->k.matmul(be, true, false, N, R, T, 1, dy, N, icae_values(u), R, add ? 1 : 0, db, R);
    }
    icae_real *du = be->k.acquire(be, (size_t)(T * R) * sizeof *du), *owned = NULL;
    const icae_real *input = dropped(graph, x, &lora->dropout, &owned);
    if (input && icae_graph_got(graph, du, "a LoRA gradient")) {
        icae_matrix a = icae_tensor_matrix(lora->a), b = icae_tensor_matrix(lora->b);
        be->k.linear_dx(be, T, N, R, dy, &b, false, du);
        be->k.scale(be, T * R, lora->scale, du, du);
        icae_real *da = icae_gradient(graph, lora->a, &add);
        if (da) be->k.matmul(be, true, false, R, K, T, 1, du, R, input, K, add ? 1 : 0, da, K);
        icae_real *dx = icae_gradient(graph, x, &add);
        if (dx && lora->dropout.rate <= 0) {
            be->k.linear_dx(be, T, R, K, du, &a, add, dx);
        } else if (dx) { /* the mask lies between a and x; `owned` is free to hold du a now */
            be->k.linear_dx(be, T, R, K, du, &a, false, owned);
            be->k.dropout(be, T, K, owned, lora->dropout.seed, lora->dropout.row_keys,
                          lora->dropout.rate, add, dx);
        }
    }
    be->k.release(be, owned);
    be->k.release(be, du);
}

void icae_linear_backward(icae_graph *graph, icae_node *node) {
    icae_backend *be = icae_graph_backend(graph);
    const linear_params *params = node->params;
    icae_tensor *x = node->inputs[0], *w = node->inputs[1], *residual = node->inputs[2];
    bool add;
    icae_real *dx = icae_gradient(graph, x, &add);
    if (dx) {
        icae_matrix matrix = icae_tensor_matrix(w);
        icae_frozen_product_dx(be)(be, node->output->shape[0], w->shape[0], w->shape[1],
                                   node->output->gradient, &matrix, add, dx);
    }
    if (params->lora.a) lora_backward(graph, node, &params->lora);
    icae_gradient_move(graph, node->output, residual); /* last: the buffer may change hands */
}
