/* SPDX-License-Identifier: MIT */
/* rope: rotary positions, in place; a rotation's backward is the rotation back. See icae/ops.h. */
#include "autograd/graph_internal.h"

typedef struct rope_params {
    int64_t heads, width;
} rope_params;

icae_tensor *icae_rope(icae_graph *graph, icae_tensor *x, int64_t head_width,
                       icae_tensor *angles) {
    if (!x || !angles) return NULL;
    int64_t T = x->shape[0], row = icae_tensor_count(x) / (T ? T : 1);
    if (!icae_graph_expect(graph,
                           head_width % 2 == 0 && row % head_width == 0 &&
                               angles->shape[0] == T && angles->shape[1] == head_width,
                           "rope: rows of %lld values, heads of %lld, angles [%lld, %lld]",
                           (long long)row, (long long)head_width, (long long)angles->shape[0],
                           (long long)angles->shape[1])) {
        return NULL;
    }
    icae_tensor *y = icae_graph_take(graph, x);
    if (!y) return NULL;
    icae_backend *be = icae_graph_backend(graph);
    be->k.rope(be, T, row / head_width, head_width, icae_values(angles), false, icae_values(y));
    icae_tensor *inputs[] = {x, angles};
    icae_node *node = icae_graph_record(graph, ICAE_OP_rope, y, inputs, 2);
    rope_params *params = node ? icae_graph_arena(graph, sizeof *params) : NULL;
    if (params) {
        *params = (rope_params){row / head_width, head_width};
        node->params = params;
        icae_node_keep(node, angles);
    }
    return y;
}

void icae_rope_backward(icae_graph *graph, icae_node *node) {
    const rope_params *params = node->params;
    icae_backend *be = icae_graph_backend(graph);
    be->k.rope(be, node->output->shape[0], params->heads, params->width,
               icae_values(node->inputs[1]), true, node->output->gradient);
    icae_gradient_move(graph, node->output, node->inputs[0]);
}
