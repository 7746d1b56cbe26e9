/* SPDX-License-Identifier: MIT */
/* rows: a matrix put together from rows of several others; see icae/ops.h. */
#include "autograd/graph_internal.h"

enum { MOST_SOURCES = 4 };

/* The rows that come from one source: which, and where they go. */
typedef struct row_list {
    int64_t n;
    int32_t *rows, *to;
} row_list;

typedef struct rows_params {
    row_list lists[MOST_SOURCES];
    icae_real scales[MOST_SOURCES];
} rows_params;

static rows_params *sort_by_source(icae_graph *graph, int n_sources,
                                   icae_tensor *const *sources, int64_t n, const int32_t *which,
                                   const int32_t *rows) {
    rows_params *params = icae_graph_arena(graph, sizeof *params);
    for (int s = 0; s < n_sources && params; s++) {
        row_list *list = &params->lists[s];
        for (int64_t t = 0; t < n; t++)
            list->n += (which ? which[t] : 0) == s;
        size_t bytes = (size_t)list->n * sizeof *list->rows;
        list->rows = icae_graph_arena(graph, bytes);
        list->to = icae_graph_arena(graph, bytes);
        if (!list->rows || !list->to) return NULL;
        int64_t i = 0;
        for (int64_t t = 0; t < n; t++) {
            if ((which ? which[t] : 0) != s) continue;
            if (!icae_graph_expect(graph, rows[t] >= 0 && rows[t] < sources[s]->shape[0],
                                   "rows: row %d of source %d, which has %lld rows", rows[t], s,
                                   (long long)sources[s]->shape[0])) {
                return NULL;
            }
            list->rows[i] = rows[t];
            list->to[i++] = (int32_t)t;
        }
    }
    return params;
}

icae_tensor *icae_rows(icae_graph *graph, int n_sources, icae_tensor *const *sources, int64_t n,
                       const int32_t *which, const int32_t *rows) {
    return icae_rows_scaled(graph, 1, n_sources, sources, n, which, rows);
}

icae_tensor *icae_rows_scaled(icae_graph *graph, icae_real scale, int n_sources,
                              icae_tensor *const *sources, int64_t n, const int32_t *which,
                              const int32_t *rows) {
    if (!icae_graph_expect(
            graph, n_sources >= 1 && n_sources <= MOST_SOURCES && n >= 0 && n < INT32_MAX,
            "rows: %d sources, %lld rows", n_sources, (long long)n)) {
        return NULL;
    }
    for (int s = 0; s < n_sources; s++) {
        if (!sources[s] ||
            !icae_graph_expect(graph, sources[s]->rank == 2,
                               "rows: source %d has %d axes, expected 2", s,
                               sources[s]->rank) ||
            !icae_graph_expect(graph, sources[s]->shape[1] == sources[0]->shape[1],
                               "rows: source %d has width %lld, the first %lld", s,
                               (long long)sources[s]->shape[1],
                               (long long)sources[0]->shape[1])) {
            return NULL;
        }
    }
    for (int64_t t = 0; which && t < n; t++) {
        if (!icae_graph_expect(graph, which[t] >= 0 && which[t] < n_sources,
                               "rows: source %d of %d", which[t], n_sources)) {
            return NULL;
        }
    }
    rows_params *params = sort_by_source(graph, n_sources, sources, n, which, rows);
    int64_t shape[2] = {n, sources[0]->shape[1]};
    icae_tensor *y = params ? icae_graph_result(graph, 2, shape) : NULL;
    if (!y) return NULL;
    icae_backend *be = icae_graph_backend(graph);
    for (int s = 0; s < n_sources; s++) {
        icae_matrix table = icae_tensor_matrix(sources[s]);
        const row_list *list = &params->lists[s];
        params->scales[s] = s ? 1 : scale;
        be->k.gather(be, list->n, &table, list->rows, list->to, params->scales[s],
                     icae_values(y));
    }
    icae_node *node = icae_graph_record(graph, ICAE_OP_rows, y, sources, n_sources);
    if (node) node->params = params;
    return y;
}

void icae_rows_backward(icae_graph *graph, icae_node *node) {
    icae_backend *be = icae_graph_backend(graph);
    const rows_params *params = node->params;
    for (int s = 0; s < MOST_SOURCES; s++) {
        bool add;
        icae_tensor *source = node->inputs[s];
        icae_real *gradient = icae_gradient(graph, source, &add);
        if (!gradient) continue;
        if (!add)
            be->k.zero(be, gradient, (size_t)icae_tensor_count(source) * sizeof *gradient);
        be->k.scatter_add(be, params->lists[s].n, source->shape[1], node->output->gradient,
                          params->lists[s].to, params->lists[s].rows, params->scales[s],
                          gradient);
    }
}
