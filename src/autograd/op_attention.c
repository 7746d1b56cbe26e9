/* SPDX-License-Identifier: MIT */
/* attention: causal, grouped heads, every sequence of a pack by itself; see icae/ops.h. */
#include "autograd/graph_internal.h"

typedef struct attention_params {
    icae_attention_shape shape;
    int64_t n_spans;
    icae_attention_span *spans;
} attention_params;

icae_tensor *icae_attention(icae_graph *graph, const icae_attention_shape *shape,
                            const icae_pack *pack, const icae_attention_span *cached,
                            icae_tensor *q, icae_tensor *k, icae_tensor *v) {
    if (!q || (!cached && (!k || !v))) return NULL;
    int64_t T = pack->n_tokens, q_row = shape->heads * shape->width;
    int64_t kv_row = shape->kv_heads * shape->width;
    bool fits = q->shape[0] == T && q->shape[1] == q_row && shape->heads % shape->kv_heads == 0;
    if (!cached)
        fits = fits && k->shape[0] == T && k->shape[1] == kv_row && v->shape[0] == T &&
               v->shape[1] == kv_row;
    if (!icae_graph_expect(graph, fits,
                           "attention: q, k, v do not fit %lld tokens, %lld/%lld "
                           "heads of %lld",
                           (long long)T, (long long)shape->heads, (long long)shape->kv_heads,
                           (long long)shape->width)) {
        return NULL;
    }
    int64_t n = pack->n_sequences, lse_shape[2] = {T, shape->heads};
    icae_attention_span *spans = icae_graph_arena(graph, (size_t)n * sizeof *spans);
    icae_tensor *y = icae_graph_result(graph, 2, q->shape);
    icae_tensor *lse = icae_graph_result(graph, 2, lse_shape);
    if (!spans || !y || !lse) return NULL;
    if (!cached) {
        /* Backward makes the weights anew from q and k, and lse belongs to the scores of these: were
         * they rounded in between only, an error of 0.4 % of a score would stand in an exponent. */
        icae_graph_round(graph, q);
        icae_graph_round(graph, k);
        icae_graph_round(graph, v);
        if (icae_graph_status(graph, NULL)) return NULL;
    }
    for (int64_t s = 0; s < n; s++) {
        int64_t start = pack->starts[s], length = pack->starts[s + 1] - start;
        spans[s] = cached ? cached[s]
                          : (icae_attention_span){.query_start = start,
                                                  .n_queries = length,
                                                  .n_keys = length,
                                                  .keys = icae_values(k) + start * kv_row,
                                                  .values = icae_values(v) + start * kv_row};
    }
    icae_backend *be = icae_graph_backend(graph);
    be->k.attention(be, shape, n, spans, icae_values(q), icae_values(y), icae_values(lse));
    icae_tensor *inputs[] = {q, k, v};
    icae_node *node = cached ? NULL : icae_graph_record(graph, ICAE_OP_attention, y, inputs, 3);
    attention_params *params = node ? icae_graph_arena(graph, sizeof *params) : NULL;
    if (params) {
        *params = (attention_params){*shape, n, spans};
        node->params = params;
        icae_node_keep_rounded(node, q);
        icae_node_keep_rounded(node, k);
        icae_node_keep_rounded(node, v);
        icae_node_keep_rounded(node, y);
        icae_node_keep(node, lse);
    }
    icae_done(graph, lse);
    return y;
}

void icae_attention_backward(icae_graph *graph, icae_node *node) {
    icae_backend *be = icae_graph_backend(graph);
    const attention_params *params = node->params;
    icae_tensor *q = node->inputs[0], *k = node->inputs[1], *v = node->inputs[2];
    int64_t kv_row = params->shape.kv_heads * params->shape.width;
    /* The three gradients are made together. In a model all three are wanted and this is their only
     * user, so nothing is there yet; where that is not so, scratch is made and added. */
    icae_tensor *targets[3] = {q, k, v};
    icae_real *gradients[3] = {0};
    bool adds[3] = {0}, is_owned[3] = {0};
    for (int i = 0; i < 3; i++) {
        gradients[i] = icae_gradient(graph, targets[i], &adds[i]);
        is_owned[i] = !gradients[i] || adds[i];
    }
    icae_real *destinations[3];
    for (int i = 0; i < 3; i++) {
        size_t bytes = (size_t)icae_tensor_count(targets[i]) * sizeof(icae_real);
        destinations[i] = is_owned[i] ? be->k.acquire(be, bytes) : gradients[i];
        icae_graph_got(graph, destinations[i], "the gradients of attention");
    }
    if (!icae_graph_status(graph, NULL)) {
        for (int64_t s = 0; s < params->n_spans; s++) {
            icae_attention_span *span = &params->spans[s];
            span->keys = icae_values(k) + span->query_start * kv_row;
            span->values = icae_values(v) + span->query_start * kv_row;
            span->d_keys = destinations[1] + span->query_start * kv_row;
            span->d_values = destinations[2] + span->query_start * kv_row;
        }
        be->k.attention_dx(be, &params->shape, params->n_spans, params->spans, icae_values(q),
                           icae_values(node->kept[3]), icae_values(node->kept[4]),
                           node->output->gradient, false, destinations[0]);
    }
    for (int i = 0; i < 3; i++) {
        if (!is_owned[i]) continue;
        if (gradients[i] && destinations[i]) {
            be->k.accumulate(be, icae_tensor_count(targets[i]), destinations[i], gradients[i]);
        }
        be->k.release(be, destinations[i]);
    }
}
