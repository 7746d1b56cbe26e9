/* SPDX-License-Identifier: MIT */
/* checkpoint: forward without a tape, backward by running forward again; see icae/ops.h. */
#include "autograd/graph_internal.h"

typedef struct checkpoint_params {
    icae_block *function;
    void *context;
} checkpoint_params;

icae_tensor *icae_checkpoint(icae_graph *graph, icae_block *function, void *context,
                             icae_tensor *x) {
    if (!x) return NULL;
    bool was_recording = icae_graph_pause(graph);
    icae_tensor *y = function(graph, context, x);
    bool wants = icae_graph_resume(graph, was_recording);
    if (!y || !wants) return y;
    /* The block may want a gradient for its parameters although x itself wants none. */
    icae_tensor asking = {.wants_gradient = true};
    icae_tensor *inputs[] = {x, &asking};
    icae_node *node = icae_graph_record(graph, ICAE_OP_checkpoint, y, inputs, 2);
    checkpoint_params *params = node ? icae_graph_arena(graph, sizeof *params) : NULL;
    if (params) {
        *params = (checkpoint_params){function, context};
        node->params = params;
        node->inputs[1] = NULL;
        icae_node_keep(node, x);
    }
    return y;
}

void icae_checkpoint_backward(icae_graph *graph, icae_node *node) {
    const checkpoint_params *params = node->params;
    node->n_kept = 0; /* replay gives up the reference to x */
    icae_graph_replay(graph, params->function, params->context, node->inputs[0], node->output);
}
