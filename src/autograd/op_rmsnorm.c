/* SPDX-License-Identifier: MIT */
/* rmsnorm: root-mean-square normalisation; see icae/ops.h and kernels.def. */
#include "autograd/graph_internal.h"

icae_tensor *icae_rmsnorm(icae_graph *graph, icae_tensor *x, icae_tensor *w, icae_real eps) {
    if (!x || !w) return NULL;
    int64_t D = w->shape[0], rows = icae_tensor_count(x) / D;
    if (!icae_graph_expect(graph, x->shape[x->rank - 1] % D == 0 && w->dtype == ICAE_DTYPE_REAL,
                           "rmsnorm: rows of %lld values, a weight of %lld",
                           (long long)x->shape[x->rank - 1], (long long)D)) {
        return NULL;
    }
    icae_tensor *y = icae_graph_result(graph, x->rank, x->shape);
    icae_tensor *r = icae_graph_result(graph, 1, &rows);
    if (!y || !r) return NULL;
    icae_backend *be = icae_graph_backend(graph);
    be->k.rmsnorm(be, rows, D, icae_values(x), icae_values(w), eps, icae_values(y),
                  icae_values(r));
    icae_tensor *inputs[] = {x, w};
    icae_node *node = icae_graph_record(graph, ICAE_OP_rmsnorm, y, inputs, 2);
    if (node) {
        icae_node_keep_rounded(node, x);
        icae_node_keep(node, r);
    }
    icae_done(graph, r);
    return y;
}

void icae_rmsnorm_backward(icae_graph *graph, icae_node *node) {
    icae_tensor *x = node->inputs[0], *w = node->inputs[1], *r = node->kept[1];
    bool add;
    icae_real *dx = icae_gradient(graph, x, &add);
    if (!dx) return;
    icae_backend *be = icae_graph_backend(graph);
    int64_t D = w->shape[0];
    be->k.rmsnorm_dx(be, icae_tensor_count(x) / D, D, icae_values(x), icae_values(w),
                     icae_values(r), node->output->gradient, add, dx);
}
