/* SPDX-License-Identifier: MIT */
/* add_means: means of frozen rows added to some rows, in place; see icae/ops.h. */
#include "autograd/graph_internal.h"

static bool is_sound(icae_graph *graph, const icae_tensor *x, const icae_tensor *table,
                     int64_t n, const int64_t *starts, const int32_t *rows, const int32_t *to) {
    if (!icae_graph_expect(
            graph, x->rank == 2 && table->rank == 2 && x->shape[1] == table->shape[1] && n >= 0,
            "add_means: x of %d axes, a table of %d, widths %lld and %lld", x->rank,
            table->rank, (long long)x->shape[1], (long long)table->shape[1])) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!icae_graph_expect(
                graph, starts[i] < starts[i + 1] && to[i] >= 0 && to[i] < x->shape[0],
                "add_means: mean %lld is of rows %lld to %lld and goes to %d", (long long)i,
                (long long)starts[i], (long long)starts[i + 1], to[i])) {
            return false;
        }
        for (int64_t r = starts[i]; r < starts[i + 1]; r++) {
            if (!icae_graph_expect(graph, rows[r] >= 0 && rows[r] < table->shape[0],
                                   "add_means: row %d of a table of %lld", rows[r],
                                   (long long)table->shape[0])) {
                return false;
            }
        }
    }
    return true;
}

icae_tensor *icae_add_means(icae_graph *graph, icae_tensor *x, icae_tensor *table,
                            icae_real scale, int64_t n, const int64_t *starts,
                            const int32_t *rows, const int32_t *to) {
    if (!x || !table || !is_sound(graph, x, table, n, starts, rows, to)) return NULL;
    icae_tensor *y = icae_graph_take(graph, x);
    if (!y) return NULL;
    icae_backend *be = icae_graph_backend(graph);
    icae_matrix matrix = icae_tensor_matrix(table);
    be->k.add_means(be, n, &matrix, starts, rows, to, scale, icae_values(y));
    icae_graph_record(graph, ICAE_OP_add_means, y, &x, 1);
    return y;
}

void icae_add_means_backward(icae_graph *graph, icae_node *node) {
    icae_gradient_move(graph, node->output, node->inputs[0]);
}
