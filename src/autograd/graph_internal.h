/* SPDX-License-Identifier: MIT */
/* The backward function of every row of ops.def. */
#ifndef ICAE_GRAPH_INTERNAL_H
#define ICAE_GRAPH_INTERNAL_H

#include "icae/graph.h"
#include "icae/ops.h"

#define OP(name) void icae_##name##_backward(icae_graph *graph, icae_node *node);
#include "autograd/ops.def"
#undef OP

/* False, with the sticky error set, when a failure stands or memory is NULL. */
bool icae_graph_got(icae_graph *graph, const void *memory, const char *what);

/* Values of a tensor of type real. */
static inline icae_real *icae_values(const icae_tensor *tensor) {
    return (icae_real *)(uintptr_t)tensor->data;
}

#endif
