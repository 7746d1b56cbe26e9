/* SPDX-License-Identifier: MIT */
/* add: x + residual, into x's own buffer; see icae/ops.h. */
#include "autograd/graph_internal.h"

icae_tensor *icae_add(icae_graph *graph, icae_tensor *x, icae_tensor *residual) {
    if (!x || !residual) return NULL;
    int64_t n = icae_tensor_count(x);
    if (!icae_graph_expect(graph, x != residual && n == icae_tensor_count(residual),
                           "add: %lld values and %lld%s", (long long)n,
                           (long long)icae_tensor_count(residual),
                           x == residual ? " of the same tensor" : "")) {
        return NULL;
    }
    icae_tensor *y = icae_graph_take(graph, x);
    if (!y) return NULL;
    icae_backend *be = icae_graph_backend(graph);
    be->k.accumulate(be, n, icae_values(residual), icae_values(y));
    icae_tensor *inputs[] = {x, residual};
    icae_graph_record(graph, ICAE_OP_add, y, inputs, 2);
    return y;
}

/* dx = dy and d_residual = dy; the buffer of dy becomes that of dx, so it is moved last. */
void icae_add_backward(icae_graph *graph, icae_node *node) {
    icae_backend *be = icae_graph_backend(graph);
    icae_tensor *y = node->output, *residual = node->inputs[1];
    int64_t n = icae_tensor_count(y);
    bool add;
    icae_real *gradient = icae_gradient(graph, residual, &add);
    if (gradient && add) be->k.accumulate(be, n, y->gradient, gradient);
    if (gradient && !add) be->k.copy(be, gradient, y->gradient, (size_t)n * sizeof *gradient);
    icae_gradient_move(graph, y, node->inputs[0]);
}
