/* SPDX-License-Identifier: MIT */
/*
 * Tensors and the tape.
 *
 * Define by run: an op's constructor (icae/ops.h) computes at once and appends a node, so the tape is
 * in topological order and backward is one reverse loop. The engine decides what is recorded: a node
 * none of whose inputs wants a gradient is not, and nothing is computed or kept towards frozen
 * weights. Backward always adds.
 *
 * Memory. A tensor's buffer is returned to the pool when nobody needs it any more: the code that made
 * the tensor says icae_done(graph, tensor) after its last use, and a node that needs the values for
 * its backward keeps its own reference until that backward has run. Forgetting icae_done costs memory
 * until the next icae_graph_begin, never correctness. What is computed in bfloat16 is kept in it too: from
 * the icae_done that leaves only such references until the backward of the first node that has one.
 *
 * Errors are sticky: after the first failure every constructor returns NULL, and icae_graph_status
 * tells what it was. So a model's forward pass needs one check at its end.
 */
#ifndef ICAE_GRAPH_H
#define ICAE_GRAPH_H

#include "icae/backend.h"
#include "icae/safetensors.h" /* ICAE_MAX_RANK */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_tensor {
    icae_dtype dtype; /* ICAE_DTYPE_REAL, except for frozen weights */
    int rank;
    int64_t shape[ICAE_MAX_RANK];
    const void *data;    /* device memory; owned by the pool, a file or the trainable block */
    icae_real *gradient; /* NULL until something flows */
    bool wants_gradient;
    bool is_leaf;      /* data and gradient belong to somebody else: a weight or a parameter */
    bool has_gradient; /* leaf: always added to; else: whether gradient holds a value yet */
    bool is_rounded;   /* data is bfloat16, and only backward will read it, widened again */
    int references;
    int rounding_references; /* how many of them allow that */
} icae_tensor;

typedef enum icae_op {
#define OP(name) ICAE_OP_##name,
#include "autograd/ops.def"
#undef OP
    ICAE_OP_COUNT
} icae_op;

enum { ICAE_NODE_INPUTS = 6, ICAE_NODE_KEPT = 6 };

typedef struct icae_node {
    icae_op op;
    icae_tensor *output;
    icae_tensor *inputs[ICAE_NODE_INPUTS]; /* NULL where an optional one is absent */
    icae_tensor *kept[ICAE_NODE_KEPT];     /* references released after backward */
    int n_kept;
    void *params; /* the op's own struct, in the graph's arena */
} icae_node;

typedef struct icae_graph icae_graph;

icae_status icae_graph_create(icae_graph **graph, icae_backend *backend, icae_error *error);
void icae_graph_free(icae_graph *graph);

/* Forgets all tensors, nodes and errors of the last step. is_recording: whether a backward will
 * follow. is_generating: few rows per product; linear uses the kernel made for that. */
void icae_graph_begin(icae_graph *graph, bool is_recording, bool is_generating);
/* What follows has other sizes than the steps before, if `sizes`, any number that stands for them, is another:
 * buffers that wait for the old ones are given back to the system first. */
void icae_graph_resize(icae_graph *graph, uint64_t sizes);
icae_backend *icae_graph_backend(const icae_graph *graph);
bool icae_graph_is_generating(const icae_graph *graph);
void icae_graph_set_generating(icae_graph *graph, bool is_generating); /* from here on */
/* ICAE_OK, or the first failure since begin with its sentence. */
icae_status icae_graph_status(const icae_graph *graph, icae_error *error);

/* Runs the tape backwards from `loss` [1] with d loss = 1. Gradients of parameters are added to; all
 * other buffers of the step are released on the way. */
icae_status icae_graph_backward(icae_graph *graph, icae_tensor *loss, icae_error *error);

/* The caller will not use this tensor again. NULL is allowed. */
void icae_done(icae_graph *graph, icae_tensor *tensor);

/* A leaf over memory that outlives the graph: a frozen weight (gradient NULL) or a parameter. */
icae_tensor icae_leaf(icae_dtype dtype, int rank, const int64_t *shape, const void *data,
                      icae_real *gradient);
/* A tensor of this step with values copied from the host; never wants a gradient. */
icae_tensor *icae_constant(icae_graph *graph, int rank, const int64_t *shape,
                           const icae_real *values);
/* The same with a gradient of its own, for tests and for inputs that are themselves optimised. */
icae_tensor *icae_variable(icae_graph *graph, int rank, const int64_t *shape,
                           const icae_real *values);
/* Copies a tensor's values (or gradient) to the host. A gradient nobody wrote reads as zeros. */
void icae_tensor_read(icae_graph *graph, const icae_tensor *tensor, icae_real *out);
void icae_tensor_read_gradient(icae_graph *graph, const icae_tensor *tensor, icae_real *out);
int64_t icae_tensor_count(const icae_tensor *tensor);      /* elements */
icae_matrix icae_tensor_matrix(const icae_tensor *tensor); /* [shape[0], rest] */

/* The scores that the pool kept: bytes in use now, and the most since create. */
size_t icae_graph_bytes_peak(const icae_graph *graph);
int64_t icae_graph_nodes(const icae_graph *graph);

/* Seconds of wall clock that each op took, forward (recomputation included) and backward. What happens
 * between two ops counts for the later one. */
typedef struct icae_profile {
    double forward_s[ICAE_OP_COUNT], backward_s[ICAE_OP_COUNT];
    double last_s; /* the clock when the last op ended */
} icae_profile;
extern const char *const icae_op_names[]; /* of ops.def; NULL at the end */
/* From here on adds to *profile, which is the caller's; NULL: no more. */
void icae_graph_profile(icae_graph *graph, icae_profile *profile);

/* ---- for the files that define ops ---- */

/* False, with the sticky error set, when a failure stands or condition is false. */
bool icae_graph_expect(icae_graph *graph, bool condition, const char *format, ...)
    ICAE_PRINTF(3, 4);
icae_tensor *icae_graph_result(icae_graph *graph, int rank, const int64_t *shape);
void *icae_graph_arena(icae_graph *graph, size_t bytes); /* host, zeroed, lives until begin */
/* NULL when no gradient will be wanted through this op; else the node, output->wants_gradient set. */
icae_node *icae_graph_record(icae_graph *graph, icae_op op, icae_tensor *output,
                             icae_tensor *const *inputs, int n_inputs);
void icae_node_keep(icae_node *node, icae_tensor *tensor);
/* The same where bfloat16 is enough when the backend computes in it. Only backward may read the values
 * then, through tensor->data, which may have moved since forward. */
void icae_node_keep_rounded(icae_node *node, icae_tensor *tensor);
/* Where the gradient of `tensor` goes: NULL if it wants none (or memory ended; sticky); *add tells
 * whether there is a value already, that must be added to. */
icae_real *icae_gradient(icae_graph *graph, icae_tensor *tensor, bool *add);
/* Adds the gradient of `from` to `to`, or hands the buffer over when `to` has none. `from` loses it. */
void icae_gradient_move(icae_graph *graph, icae_tensor *from, icae_tensor *to);
/* `to` takes over the buffer of `from`, whose values are gone then; same element count. */
icae_tensor *icae_graph_take(icae_graph *graph, icae_tensor *from);
/* For checkpointing: recording off and on again; whether anything asked to be recorded meanwhile. */
bool icae_graph_pause(icae_graph *graph);
bool icae_graph_resume(icae_graph *graph, bool was_recording);
/* Reruns `function` with recording and pushes output's gradient through what it recorded. Takes over a
 * reference to x: when the function has run, x is kept as the nodes inside need it. */
typedef icae_tensor *icae_block(icae_graph *graph, void *context, icae_tensor *x);
void icae_graph_replay(icae_graph *graph, icae_block *function, void *context, icae_tensor *x,
                       icae_tensor *output);

#ifdef __cplusplus
}
#endif
#endif
