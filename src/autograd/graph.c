/* SPDX-License-Identifier: MIT */
/*
 * The tape and the life of tensors; the contract stands in icae/graph.h.
 *
 * Tensor structs live in the graph's arena until the next begin. Their buffers come from the backend
 * and go back when the last reference drops: one reference for the code that made the tensor
 * (icae_done), one for each node that keeps the values. Gradients of inner tensors have one owner,
 * the tensor, and are released as soon as the node that made the tensor has read them.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/graph_internal.h"
#include "icae/log.h"

struct icae_graph {
    icae_backend *be;
    icae_arena arena;
    icae_node **nodes;
    int64_t n_nodes, node_capacity;
    icae_tensor **tensors; /* all of this step, to release what nobody said icae_done to */
    int64_t n_tensors, tensor_capacity;
    bool is_recording, is_generating, is_reading;
    bool would_record; /* something asked to be recorded while recording was paused */
    icae_error error;  /* sticky */
    icae_profile *profile;
    uint64_t sizes; /* of the last steps; 0: of none yet */
};

const char *const icae_op_names[] = {
#define OP(name) #name,
#include "autograd/ops.def"
#undef OP
    NULL};

static void (*const backward_of[])(icae_graph *graph, icae_node *node) = {
#define OP(name) icae_##name##_backward,
#include "autograd/ops.def"
#undef OP
};

/* ---- life of a graph ---- */

icae_status icae_graph_create(icae_graph **graph, icae_backend *backend, icae_error *error) {
    *graph = calloc(1, sizeof **graph);
    if (!*graph) return icae_fail_memory(error, "a graph");
    (*graph)->be = backend;
    return ICAE_OK;
}

static void release_buffers(icae_graph *graph, icae_tensor *tensor) {
    if (tensor->is_leaf) return;
    graph->be->k.release(graph->be, (void *)(uintptr_t)tensor->data);
    graph->be->k.release(graph->be, tensor->gradient);
    tensor->data = NULL;
    tensor->gradient = NULL;
    tensor->has_gradient = false;
}

static void forget_step(icae_graph *graph) {
    for (int64_t i = 0; i < graph->n_tensors; i++)
        release_buffers(graph, graph->tensors[i]);
    graph->n_tensors = graph->n_nodes = 0;
    icae_arena_clear(&graph->arena);
}

void icae_graph_free(icae_graph *graph) {
    if (!graph) return;
    forget_step(graph);
    icae_arena_release(&graph->arena);
    free(graph->nodes);
    free(graph->tensors);
    free(graph);
}

void icae_graph_begin(icae_graph *graph, bool is_recording, bool is_generating) {
    forget_step(graph);
    graph->is_recording = is_recording;
    graph->is_generating = is_generating;
    graph->is_reading = false;
    graph->would_record = false;
    graph->error = (icae_error){0};
    graph->be->is_out_of_memory = false;
}

void icae_graph_resize(icae_graph *graph, uint64_t sizes) {
    if (graph->sizes && graph->sizes != sizes && graph->be->pool)
        icae_pool_trim(graph->be->pool);
    graph->sizes = sizes;
}

icae_backend *icae_graph_backend(const icae_graph *graph) {
    return graph->be;
}

bool icae_graph_is_generating(const icae_graph *graph) {
    return graph->is_generating;
}

bool icae_graph_is_reading(const icae_graph *graph) {
    return graph->is_reading;
}

void icae_graph_set_reading(icae_graph *graph) {
    graph->is_reading = true;
}

void icae_graph_set_generating(icae_graph *graph, bool is_generating) {
    graph->is_generating = is_generating;
}

icae_status icae_graph_status(const icae_graph *graph, icae_error *error) {
    if (!graph->error.status && graph->be->is_out_of_memory)
        return icae_fail_memory(error, "a kernel's work space");
    if (graph->error.status && error) *error = graph->error;
    return graph->error.status;
}

size_t icae_graph_bytes_peak(const icae_graph *graph) {
    return icae_pool_bytes_peak(graph->be->pool);
}

int64_t icae_graph_nodes(const icae_graph *graph) {
    return graph->n_nodes;
}

bool icae_graph_expect(icae_graph *graph, bool condition, const char *format, ...) {
    if (graph->error.status) return false;
    if (condition) return true;
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    icae_fail(&graph->error, ICAE_INVALID, "%s", message);
    return false;
}

bool icae_graph_got(icae_graph *graph, const void *memory, const char *what) {
    if (!memory && !graph->error.status) icae_fail_memory(&graph->error, what);
    return !graph->error.status;
}

static void out_of_memory(icae_graph *graph) {
    icae_graph_got(graph, NULL, "a tensor of this step");
}

void *icae_graph_arena(icae_graph *graph, size_t bytes) {
    void *memory = icae_arena_alloc(&graph->arena, bytes);
    if (!memory) out_of_memory(graph);
    return memory;
}

/* ---- tensors ---- */

int64_t icae_tensor_count(const icae_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= tensor->shape[i];
    return count;
}

icae_matrix icae_tensor_matrix(const icae_tensor *tensor) {
    int64_t rows = tensor->shape[0];
    int64_t cols = 1;
    for (int i = 1; i < tensor->rank; i++)
        cols *= tensor->shape[i];
    return icae_matrix_of(tensor->dtype, rows, cols, tensor->data);
}

icae_tensor icae_leaf(icae_dtype dtype, int rank, const int64_t *shape, const void *data,
                      icae_real *gradient) {
    icae_tensor leaf = {.dtype = dtype, .rank = rank, .data = data, .gradient = gradient};
    assert(rank >= 1 && rank <= ICAE_MAX_RANK);
    for (int i = 0; i < rank; i++)
        leaf.shape[i] = shape[i];
    leaf.is_leaf = true;
    leaf.wants_gradient = leaf.has_gradient = gradient != NULL;
    return leaf;
}

/* Makes room for one more pointer in a growing array. */
static bool reserve(void *array, int64_t count, int64_t *capacity) {
    if (count < *capacity) return true;
    int64_t larger = *capacity ? 2 * *capacity : 1024;
    void **pointers;
    memcpy(&pointers, array, sizeof pointers);
    void **moved = realloc(pointers, (size_t)larger * sizeof *moved);
    if (!moved) return false;
    memcpy(array, &moved, sizeof moved);
    *capacity = larger;
    return true;
}

/* A tensor without a buffer. */
static icae_tensor *new_tensor(icae_graph *graph, int rank, const int64_t *shape) {
    if (graph->error.status) return NULL;
    icae_tensor *tensor = icae_graph_arena(graph, sizeof *tensor);
    if (!tensor) return NULL;
    if (!reserve(&graph->tensors, graph->n_tensors, &graph->tensor_capacity)) {
        out_of_memory(graph);
        return NULL;
    }
    graph->tensors[graph->n_tensors++] = tensor;
    tensor->dtype = ICAE_DTYPE_REAL;
    tensor->rank = rank;
    for (int i = 0; i < rank; i++)
        tensor->shape[i] = shape[i];
    tensor->references = 1;
    return tensor;
}

icae_tensor *icae_graph_result(icae_graph *graph, int rank, const int64_t *shape) {
    icae_tensor *tensor = new_tensor(graph, rank, shape);
    if (!tensor) return NULL;
    size_t bytes = (size_t)icae_tensor_count(tensor) * sizeof(icae_real);
    tensor->data = graph->be->k.acquire(graph->be, bytes);
    if (tensor->data) return tensor;
    out_of_memory(graph);
    return NULL;
}

icae_tensor *icae_constant(icae_graph *graph, int rank, const int64_t *shape,
                           const icae_real *values) {
    icae_tensor *tensor = icae_graph_result(graph, rank, shape);
    if (!tensor) return NULL;
    graph->be->k.copy_in(graph->be, (void *)(uintptr_t)tensor->data, values,
                         (size_t)icae_tensor_count(tensor) * sizeof *values);
    return tensor;
}

icae_tensor *icae_variable(icae_graph *graph, int rank, const int64_t *shape,
                           const icae_real *values) {
    icae_tensor *tensor = icae_constant(graph, rank, shape, values);
    if (tensor) tensor->wants_gradient = true;
    return tensor;
}

static void read_device(icae_graph *graph, const void *from, int64_t count, icae_real *out) {
    size_t bytes = (size_t)count * sizeof *out;
    if (from)
        graph->be->k.copy_out(graph->be, out, from, bytes);
    else
        memset(out, 0, bytes);
}

void icae_tensor_read(icae_graph *graph, const icae_tensor *tensor, icae_real *out) {
    read_device(graph, tensor->data, icae_tensor_count(tensor), out);
}

void icae_tensor_read_gradient(icae_graph *graph, const icae_tensor *tensor, icae_real *out) {
    const icae_real *gradient = tensor->has_gradient ? tensor->gradient : NULL;
    read_device(graph, gradient, icae_tensor_count(tensor), out);
}

static void drop_reference(icae_graph *graph, icae_tensor *tensor) {
    if (tensor->is_leaf) return;
    assert(tensor->references > 0);
    if (--tensor->references == 0) {
        graph->be->k.release(graph->be, (void *)(uintptr_t)tensor->data);
        tensor->data = NULL;
    }
}

/* Values that only backward will read again, in half the room. Where memory ends they stay whole. */
static void round_values(icae_graph *graph, icae_tensor *tensor) {
    icae_backend *be = graph->be;
    int64_t n = icae_tensor_count(tensor);
    uint16_t *rounded = be->k.acquire(be, (size_t)n * sizeof *rounded);
    if (!rounded) return;
    be->k.to_bf16(be, n, tensor->data, rounded);
    be->k.release(be, (void *)(uintptr_t)tensor->data);
    tensor->data = rounded;
    tensor->is_rounded = true;
}

static void widen_values(icae_graph *graph, icae_tensor *tensor) {
    icae_backend *be = graph->be;
    int64_t n = icae_tensor_count(tensor);
    icae_real *wide = be->k.acquire(be, (size_t)n * sizeof *wide);
    if (!wide) {
        out_of_memory(graph);
        return;
    }
    be->k.from_bf16(be, n, tensor->data, wide);
    be->k.release(be, (void *)(uintptr_t)tensor->data);
    tensor->data = wide;
    tensor->is_rounded = false;
}

void icae_graph_round(icae_graph *graph, icae_tensor *tensor) {
    if (tensor->is_leaf || graph->be->compute != ICAE_COMPUTE_BF16) return;
    round_values(graph, tensor);
    if (tensor->is_rounded) widen_values(graph, tensor);
}

void icae_done(icae_graph *graph, icae_tensor *tensor) {
    if (!tensor || tensor->is_leaf) return;
    drop_reference(graph, tensor);
    if (tensor->references > 0 && tensor->references == tensor->rounding_references &&
        graph->be->compute == ICAE_COMPUTE_BF16) {
        round_values(graph, tensor);
    }
}

icae_tensor *icae_graph_take(icae_graph *graph, icae_tensor *from) {
    assert(!from->is_leaf && from->references == 1 && from->data);
    icae_tensor *to = new_tensor(graph, from->rank, from->shape);
    if (!to) return NULL;
    to->data = from->data;
    from->data = NULL;
    from->references = 0;
    return to;
}

/* ---- profile ---- */

void icae_graph_profile(icae_graph *graph, icae_profile *profile) {
    graph->profile = profile;
    if (profile) profile->last_s = icae_clock_seconds();
}

/* An op has just ended: the time since the one before is its own. */
static void note_time(icae_graph *graph, double *seconds) {
    double now = icae_clock_seconds();
    *seconds += now - graph->profile->last_s;
    graph->profile->last_s = now;
}

/* ---- recording ---- */

icae_node *icae_graph_record(icae_graph *graph, icae_op op, icae_tensor *output,
                             icae_tensor *const *inputs, int n_inputs) {
    assert(n_inputs <= ICAE_NODE_INPUTS);
    if (graph->profile) note_time(graph, &graph->profile->forward_s[op]);
    bool wants = false;
    for (int i = 0; i < n_inputs; i++)
        wants |= inputs[i] && inputs[i]->wants_gradient;
    graph->would_record |= wants;
    if (!wants || !graph->is_recording || graph->error.status) return NULL;
    icae_node *node = icae_graph_arena(graph, sizeof *node);
    if (!node) return NULL;
    if (!reserve(&graph->nodes, graph->n_nodes, &graph->node_capacity)) {
        out_of_memory(graph);
        return NULL;
    }
    graph->nodes[graph->n_nodes++] = node;
    node->op = op;
    node->output = output;
    for (int i = 0; i < n_inputs; i++)
        node->inputs[i] = inputs[i];
    output->wants_gradient = true;
    return node;
}

void icae_node_keep(icae_node *node, icae_tensor *tensor) {
    assert(node->n_kept < ICAE_NODE_KEPT);
    node->kept[node->n_kept++] = tensor;
    if (!tensor->is_leaf) tensor->references++;
}

void icae_node_keep_rounded(icae_node *node, icae_tensor *tensor) {
    icae_node_keep(node, tensor);
    if (!tensor->is_leaf) tensor->rounding_references++;
}

/* ---- gradients ---- */

icae_real *icae_gradient(icae_graph *graph, icae_tensor *tensor, bool *add) {
    *add = false;
    if (!tensor || !tensor->wants_gradient || graph->error.status) return NULL;
    if (!tensor->gradient) {
        size_t bytes = (size_t)icae_tensor_count(tensor) * sizeof(icae_real);
        tensor->gradient = graph->be->k.acquire(graph->be, bytes);
        if (!tensor->gradient) {
            out_of_memory(graph);
            return NULL;
        }
    }
    *add = tensor->has_gradient;
    tensor->has_gradient = true;
    return tensor->gradient;
}

void icae_gradient_move(icae_graph *graph, icae_tensor *from, icae_tensor *to) {
    if (!to || !to->wants_gradient || !from->has_gradient) return;
    if (to->has_gradient) {
        graph->be->k.accumulate(graph->be, icae_tensor_count(to), from->gradient, to->gradient);
        return;
    }
    graph->be->k.release(graph->be, to->gradient);
    to->gradient = from->gradient;
    to->has_gradient = true;
    from->gradient = NULL;
    from->has_gradient = false;
}

/* Nodes first..end-1 backwards. A node may append nodes behind the tape's end while it runs (replay)
 * and takes them away again; what lies behind it has been consumed. */
static void run_backward(icae_graph *graph, int64_t first) {
    while (graph->n_nodes > first) {
        icae_node *node = graph->nodes[--graph->n_nodes];
        icae_tensor *output = node->output;
        for (int i = 0; i < node->n_kept && output->has_gradient; i++) {
            if (node->kept[i]->is_rounded) widen_values(graph, node->kept[i]);
        }
        if (output->has_gradient && !graph->error.status) backward_of[node->op](graph, node);
        if (graph->profile) note_time(graph, &graph->profile->backward_s[node->op]);
        if (!output->is_leaf) {
            graph->be->k.release(graph->be, output->gradient);
            output->gradient = NULL;
            output->has_gradient = false;
        }
        for (int i = 0; i < node->n_kept; i++)
            drop_reference(graph, node->kept[i]);
    }
}

icae_status icae_graph_backward(icae_graph *graph, icae_tensor *loss, icae_error *error) {
    if (loss && icae_graph_expect(graph, icae_tensor_count(loss) == 1,
                                  "backward: the loss has %lld values, expected 1",
                                  (long long)icae_tensor_count(loss))) {
        bool add;
        icae_real one = 1, *seed = icae_gradient(graph, loss, &add);
        if (seed) graph->be->k.copy_in(graph->be, seed, &one, sizeof one);
    }
    run_backward(graph, 0);
    return icae_graph_status(graph, error);
}

/* ---- checkpointing ---- */

bool icae_graph_pause(icae_graph *graph) {
    bool was_recording = graph->is_recording;
    /* In a checkpoint within a paused one the outer's answer must outlive the inner's question. */
    if (was_recording) graph->would_record = false;
    graph->is_recording = false;
    return was_recording;
}

bool icae_graph_resume(icae_graph *graph, bool was_recording) {
    graph->is_recording = was_recording;
    return graph->would_record;
}

void icae_graph_replay(icae_graph *graph, icae_block *function, void *context, icae_tensor *x,
                       icae_tensor *output) {
    int64_t first = graph->n_nodes;
    bool was_recording = graph->is_recording;
    graph->is_recording = true;
    icae_tensor *again = function(graph, context, x);
    graph->is_recording = was_recording;
    icae_done(graph, x);
    if (!again) return;
    icae_gradient_move(graph, output, again);
    icae_done(graph, again);
    run_backward(graph, first);
}
