/* SPDX-License-Identifier: MIT */
/*
 * A broken control: the gradient through a norm is two hundredths too long. Linked into the test program
 * by -Wl,--wrap; the comparison with central differences must notice.
 */
#include "autograd/graph_internal.h"

void __real_icae_rmsnorm_backward(icae_graph *graph, icae_node *node);
void __wrap_icae_rmsnorm_backward(icae_graph *graph, icae_node *node);
void __wrap_icae_rmsnorm_backward(icae_graph *graph, icae_node *node) {
    __real_icae_rmsnorm_backward(graph, node);
    icae_backend *be = icae_graph_backend(graph);
    icae_tensor *x = node->inputs[0];
    if (x->gradient) {
        be->k.scale(be, icae_tensor_count(x), (icae_real)1.02, x->gradient, x->gradient);
    }
}
