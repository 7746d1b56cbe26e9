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

/* In bf16 compute: the tensor's values become, in place, what icae_node_keep_rounded would give backward of
 * them. For an op whose backward must compute from the very values that its forward had. */
void icae_graph_round(icae_graph *graph, icae_tensor *tensor);

/* Values of a tensor of type real. */
static inline icae_real *icae_values(const icae_tensor *tensor) {
    return (icae_real *)(uintptr_t)tensor->data;
}

/* The kernels that multiply frozen weights [N,K] in the backend's type: y (+)= x w^T and
 * dx (+)= dy w. Trained ones are always multiplied as they are. */
typedef void icae_product(icae_backend *be, int64_t T, int64_t N, int64_t K, const icae_real *x,
                          const icae_matrix *w, bool add, icae_real *y);

static inline icae_product *icae_frozen_product(const icae_backend *be) {
    return be->compute == ICAE_COMPUTE_BF16 ? be->k.linear_bf16 : be->k.linear;
}

static inline icae_product *icae_frozen_product_few(const icae_backend *be) {
    return be->compute == ICAE_COMPUTE_BF16 ? be->k.linear_few_bf16 : be->k.linear_few;
}

static inline icae_product *icae_frozen_product_reading(const icae_backend *be) {
    return be->compute == ICAE_COMPUTE_BF16 ? be->k.linear_bf16 : be->k.linear_reading;
}

static inline icae_product *icae_frozen_product_dx(const icae_backend *be) {
    return be->compute == ICAE_COMPUTE_BF16 ? be->k.linear_bf16_dx : be->k.linear_dx;
}

#endif
