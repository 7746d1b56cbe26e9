/* SPDX-License-Identifier: MIT */
/*
 * The gated activations: swiglu, silu(gate) * up, and geglu, gelu(gate) * up; see icae/ops.h and
 * kernels.def. They are one operation over two pairs of kernels.
 */
#include "autograd/graph_internal.h"

static icae_tensor *gated(icae_graph *graph, icae_op op, icae_tensor *gate, icae_tensor *up) {
    if (!gate || !up) return NULL;
    if (!icae_graph_expect(
            graph, icae_tensor_count(gate) == icae_tensor_count(up),
            "%s: %lld gate values, %lld up values", op == ICAE_OP_swiglu ? "swiglu" : "geglu",
            (long long)icae_tensor_count(gate), (long long)icae_tensor_count(up))) {
        return NULL;
    }
    icae_tensor *y = icae_graph_result(graph, gate->rank, gate->shape);
    if (!y) return NULL;
    icae_backend *be = icae_graph_backend(graph);
    (op == ICAE_OP_swiglu ? be->k.swiglu : be->k.geglu)(
        be, icae_tensor_count(y), icae_values(gate), icae_values(up), icae_values(y));
    icae_tensor *inputs[] = {gate, up};
    icae_node *node = icae_graph_record(graph, op, y, inputs, 2);
    if (node) {
        icae_node_keep_rounded(node, gate);
        icae_node_keep_rounded(node, up);
    }
    return y;
}

static void gated_backward(icae_graph *graph, icae_node *node) {
    icae_backend *be = icae_graph_backend(graph);
    icae_tensor *gate = node->inputs[0], *up = node->inputs[1];
    int64_t n = icae_tensor_count(gate);
    bool add_gate, add_up;
    icae_real *d_gate = icae_gradient(graph, gate, &add_gate);
    icae_real *d_up = icae_gradient(graph, up, &add_up);
    bool is_swiglu = node->op == ICAE_OP_swiglu;
    /* Both come out of one kernel, so one that lacks a destination or differs in `add` gets one, and
     * so do both when they are one tensor: the kernel's results may not overlap. */
    icae_real *other = NULL;
    if (!d_gate || !d_up || add_gate != add_up || gate == up) {
        other = be->k.acquire(be, (size_t)n * sizeof *other * 2);
        if (!icae_graph_got(graph, other, "the gradients of a gated activation")) {
            be->k.release(be, other); /* d_gate or d_up may be what was not got */
            return;
        }
        (is_swiglu ? be->k.swiglu_dx : be->k.geglu_dx)(be, n, icae_values(gate),
                                                       icae_values(up), node->output->gradient,
                                                       false, other, other + n);
        if (d_gate && !add_gate) be->k.copy(be, d_gate, other, (size_t)n * sizeof *other);
        if (d_gate && add_gate) be->k.accumulate(be, n, other, d_gate);
        if (d_up && !add_up) be->k.copy(be, d_up, other + n, (size_t)n * sizeof *other);
        if (d_up && add_up) be->k.accumulate(be, n, other + n, d_up);
        be->k.release(be, other);
        return;
    }
    (is_swiglu ? be->k.swiglu_dx : be->k.geglu_dx)(be, n, icae_values(gate), icae_values(up),
                                                   node->output->gradient, add_gate, d_gate,
                                                   d_up);
}

icae_tensor *icae_swiglu(icae_graph *graph, icae_tensor *gate, icae_tensor *up) {
    return gated(graph, ICAE_OP_swiglu, gate, up);
}

void icae_swiglu_backward(icae_graph *graph, icae_node *node) {
    gated_backward(graph, node);
}

icae_tensor *icae_geglu(icae_graph *graph, icae_tensor *gate, icae_tensor *up) {
    return gated(graph, ICAE_OP_geglu, gate, up);
}

void icae_geglu_backward(icae_graph *graph, icae_node *node) {
    gated_backward(graph, node);
}
