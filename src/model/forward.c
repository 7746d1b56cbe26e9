/* SPDX-License-Identifier: MIT */
/*
 * The forward pass of a Llama-type model over packed sequences; backward comes out of the ops.
 *
 * What differs between architectures is data in icae_model_config and in the layers.
 *
 * Who keeps what for backward: rmsnorm its input, rope the angles, attention q, k, v and its result,
 * the activation gate and up; a frozen linear layer keeps nothing, one with LoRA its input. Everything else
 * goes back to the pool at the icae_done that follows its last use.
 */
#include <assert.h>

#include "icae/model.h"
#include "icae/rng.h"

/* One block's call, so that checkpointing can make it again. */
typedef struct block_call {
    const icae_model *model;
    const icae_forward *options;
    icae_tensor *angles;
    int64_t layer;
    int64_t window; /* of this layer */
} block_call;

static icae_tensor *adapted(icae_graph *graph, const block_call *call, icae_module module,
                            icae_tensor *x, icae_tensor *residual) {
    icae_layer *layer = &call->model->layers[call->layer];
    icae_tensor *w = &layer->modules[module];
    icae_tensor *bias = layer->biases[module].data ? &layer->biases[module] : NULL;
    int64_t index = call->layer * ICAE_MODULE_COUNT + module;
    const icae_forward *options = call->options;
    const icae_lora_set *set = options->lora;
    if (!set || !set->a[index]) return icae_linear(graph, x, w, bias, residual, NULL);
    icae_lora lora = {.a = set->a[index], .b = set->b[index], .scale = (icae_real)set->scale};
    if (options->is_training && set->dropout > 0) {
        lora.dropout =
            (icae_dropout){.rate = set->dropout,
                           .seed = icae_mix64(options->dropout_seed, (uint64_t)index),
                           .row_keys = options->pack->row_keys};
    }
    return icae_linear(graph, x, w, bias, residual, &lora);
}

/* q or k with its heads normed, where the layer has a norm for them, and turned by the angles. */
static icae_tensor *placed(icae_graph *graph, const block_call *call, icae_tensor *norm,
                           icae_tensor *x) {
    const icae_model_config *config = &call->model->config;
    if (norm->data) {
        icae_tensor *normed = icae_rmsnorm(graph, x, norm, (icae_real)config->norm_eps);
        icae_done(graph, x);
        x = normed;
    }
    return icae_rope(graph, x, config->head_width, call->angles);
}

/* What attention or feed-forward add to x: their last matrix, whose product is normed first where the
 * layer has a norm for it. */
static icae_tensor *added(icae_graph *graph, const block_call *call, icae_module module,
                          icae_tensor *norm, icae_tensor *input, icae_tensor *x) {
    if (!norm->data) return adapted(graph, call, module, input, x);
    icae_tensor *y = adapted(graph, call, module, input, NULL);
    icae_tensor *normed = icae_rmsnorm(graph, y, norm, (icae_real)call->model->config.norm_eps);
    icae_done(graph, y);
    return icae_add(graph, normed, x);
}

/* Attention over what the caches hold and the new rows, which are appended to them first. */
static icae_tensor *attend_cached(icae_graph *graph, const block_call *call,
                                  const icae_attention_shape *shape, icae_tensor *q,
                                  icae_tensor *k, icae_tensor *v) {
    icae_backend *be = icae_graph_backend(graph);
    const icae_pack *pack = call->options->pack;
    int64_t row = shape->kv_heads * shape->width;
    icae_attention_span *spans =
        icae_graph_arena(graph, (size_t)pack->n_sequences * sizeof *spans);
    if (!spans || !q || !k || !v) return NULL;
    for (int64_t s = 0; s < pack->n_sequences; s++) {
        icae_cache *cache = call->options->caches[s];
        int64_t start = pack->starts[s], n = pack->starts[s + 1] - start;
        assert(cache->length + n <= cache->capacity);
        icae_real *keys = cache->keys + call->layer * cache->capacity * row;
        icae_real *values = cache->values + call->layer * cache->capacity * row;
        size_t bytes = (size_t)(n * row) * sizeof *keys;
        be->k.copy(be, keys + cache->length * row, (const icae_real *)k->data + start * row,
                   bytes);
        be->k.copy(be, values + cache->length * row, (const icae_real *)v->data + start * row,
                   bytes);
        spans[s] = (icae_attention_span){.query_start = start,
                                         .n_queries = n,
                                         .n_keys = cache->length + n,
                                         .keys = keys,
                                         .values = values};
    }
    return icae_attention(graph, shape, pack, spans, q, NULL, NULL);
}

static icae_tensor *run_block(icae_graph *graph, void *context, icae_tensor *x) {
    const block_call *call = context;
    const icae_model_config *config = &call->model->config;
    icae_layer *layer = &call->model->layers[call->layer];
    icae_attention_shape shape = {.heads = config->heads,
                                  .kv_heads = config->kv_heads,
                                  .width = config->head_width,
                                  .scale = (icae_real)config->attention_scale,
                                  .window = call->window};
    icae_real eps = (icae_real)config->norm_eps;

    icae_tensor *n = icae_rmsnorm(graph, x, &layer->input_norm, eps);
    icae_tensor *q = adapted(graph, call, ICAE_MODULE_Q, n, NULL);
    icae_tensor *k = adapted(graph, call, ICAE_MODULE_K, n, NULL);
    icae_tensor *v = adapted(graph, call, ICAE_MODULE_V, n, NULL);
    icae_done(graph, n);
    q = placed(graph, call, &layer->q_norm, q);
    k = placed(graph, call, &layer->k_norm, k);
    icae_tensor *mixed =
        call->options->caches
            ? attend_cached(graph, call, &shape, q, k, v)
            : icae_attention(graph, &shape, call->options->pack, NULL, q, k, v);
    icae_done(graph, q);
    icae_done(graph, k);
    icae_done(graph, v);
    icae_tensor *a = added(graph, call, ICAE_MODULE_O, &layer->attention_norm, mixed, x);
    icae_done(graph, mixed);

    icae_tensor *m = icae_rmsnorm(graph, a, &layer->post_norm, eps);
    icae_tensor *gate = adapted(graph, call, ICAE_MODULE_GATE, m, NULL);
    icae_tensor *up = adapted(graph, call, ICAE_MODULE_UP, m, NULL);
    icae_done(graph, m);
    icae_tensor *active = config->activation == ICAE_ACTIVATION_GELU_TANH
                              ? icae_geglu(graph, gate, up)
                              : icae_swiglu(graph, gate, up);
    icae_done(graph, gate);
    icae_done(graph, up);
    icae_tensor *y = added(graph, call, ICAE_MODULE_DOWN, &layer->feed_forward_norm, active, a);
    icae_done(graph, active);
    icae_done(graph, a);
    return y;
}

icae_tensor *icae_model_inputs(icae_graph *graph, const icae_model *model, int n_others,
                               icae_tensor *const *others, int64_t n, const int32_t *which,
                               const int32_t *rows) {
    enum { MOST_OTHERS = 3 };
    assert(n_others <= MOST_OTHERS);
    icae_tensor *sources[1 + MOST_OTHERS] = {(icae_tensor *)(uintptr_t)&model->embedding};
    for (int i = 0; i < n_others; i++)
        sources[1 + i] = others[i];
    return icae_rows_scaled(graph, (icae_real)model->config.embedding_scale, 1 + n_others,
                            sources, n, which, rows);
}

icae_tensor *icae_model_forward(icae_graph *graph, const icae_model *model, icae_tensor *x,
                                const icae_forward *options) {
    const icae_pack *pack = options->pack;
    if (!x || !icae_graph_expect(
                  graph, x->shape[0] == pack->n_tokens && x->shape[1] == model->config.width,
                  "forward: the input is [%lld, %lld], expected [%lld, %lld]",
                  (long long)x->shape[0], (long long)x->shape[1], (long long)pack->n_tokens,
                  (long long)model->config.width)) {
        return NULL;
    }
    /* Those of layers without and with a window. */
    icae_tensor *angles[2] = {NULL, NULL};
    icae_tensor *h = x;
    for (int64_t i = 0; i < model->config.layers; i++) {
        block_call *call = icae_graph_arena(graph, sizeof *call);
        if (!call) return NULL;
        int64_t window = icae_layer_window(&model->config, i);
        bool is_local = window && model->local_rope_frequencies;
        if (!angles[is_local]) {
            angles[is_local] =
                icae_rope_angles(graph, model, is_local, pack->n_tokens, pack->positions);
        }
        *call = (block_call){model, options, angles[is_local], i, window};
        icae_tensor *next = options->is_checkpointed
                                ? icae_checkpoint(graph, run_block, call, h)
                                : run_block(graph, call, h);
        if (h != x) icae_done(graph, h);
        h = next;
    }
    /* Replay needs the angles again, so with checkpointing they live until the step is over. */
    for (int i = 0; i < 2 && !options->is_checkpointed; i++)
        icae_done(graph, angles[i]);
    icae_tensor *y = icae_rmsnorm(graph, h, (icae_tensor *)(uintptr_t)&model->final_norm,
                                  (icae_real)model->config.norm_eps);
    if (h != x) icae_done(graph, h);
    for (int64_t s = 0; y && options->caches && s < pack->n_sequences; s++) {
        options->caches[s]->length += pack->starts[s + 1] - pack->starts[s];
    }
    return y;
}
