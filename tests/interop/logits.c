/* SPDX-License-Identifier: MIT */
/*
 * Logits of one sequence of token ids, for the scripts beside it.
 *
 *     logits BASE [ADAPTER] < IN > OUT
 *
 * IN: ids as i32. OUT: [n, V] f32. With ADAPTER its LoRA is on in every layer, as in the encoder; positions
 * count up from 0. Numbers are in the machine's order.
 */
#include <stdio.h>
#include <stdlib.h>

#include "icae/adapter.h"

enum { MOST_IDS = 1 << 16 };

static void stop(const char *why) {
    fprintf(stderr, "logits: %s\n", why);
    exit(1);
}

/* Forward pass and head; returns [n,V] on the host. */
static icae_real *compute(icae_graph *graph, const icae_model *model,
                          const icae_adapter *adapter, const int32_t *ids, int64_t n) {
    icae_graph_begin(graph, false, false);
    int64_t starts[2] = {0, n};
    int32_t *positions = icae_graph_arena(graph, (size_t)n * sizeof *positions);
    icae_real *host = calloc((size_t)(n * model->config.vocabulary), sizeof *host);
    if (!positions || !host) stop("not enough memory");
    for (int64_t i = 0; i < n; i++)
        positions[i] = (int32_t)i;
    icae_pack pack = {1, n, starts, positions, NULL};
    icae_forward options = {.pack = &pack, .lora = adapter ? &adapter->lora : NULL};
    icae_tensor *head = (icae_tensor *)(uintptr_t)&model->head;
    icae_tensor *x = icae_model_inputs(graph, model, 0, NULL, n, NULL, ids);
    icae_tensor *h = icae_model_forward(graph, model, x, &options);
    icae_tensor *logits = icae_linear(graph, h, head, NULL, NULL, NULL);
    icae_error error = {0};
    if (logits) icae_tensor_read(graph, logits, host);
    if (icae_graph_status(graph, &error)) stop(error.message);
    return host;
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3) stop("usage: logits BASE [ADAPTER] < IN > OUT");
    static int32_t ids[MOST_IDS];
    int64_t n = (int64_t)fread(ids, sizeof *ids, MOST_IDS, stdin);
    if (n < 1) stop("no ids on standard input");
    icae_error error = {0};
    icae_model *model;
    icae_backend *be;
    icae_graph *graph;
    icae_adapter *adapter = NULL;
    if (icae_model_open(&model, argv[1], &error) || icae_backend_create(&be, NULL, 0, &error) ||
        icae_graph_create(&graph, be, &error) ||
        (argc == 3 && icae_adapter_load(&adapter, argv[2], model, be, false, &error))) {
        stop(error.message);
    }
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= model->config.vocabulary) stop("an id is out of range");
    }
    icae_real *logits = compute(graph, model, adapter, ids, n);
    for (int64_t i = 0; i < n * model->config.vocabulary; i++) {
        float value = (float)logits[i];
        fwrite(&value, sizeof value, 1, stdout);
    }
    free(logits);
    icae_adapter_free(adapter);
    icae_graph_free(graph);
    icae_backend_free(be);
    icae_model_close(model);
    return fflush(stdout) ? 1 : 0;
}
