/* SPDX-License-Identifier: MIT */
/*
 * linear_cross_entropy: head product and loss in chunks of rows; see icae/ops.h.
 *
 * A chunk's logits live in one buffer of at most CHUNK_BYTES. When the gradient of h is wanted the
 * cross-entropy kernel turns the logits into their gradient in place, and one product with the head
 * makes the chunk's rows of dh at once: the head is multiplied twice instead of three times.
 */
#include "autograd/graph_internal.h"

/* Large enough that widening a quantised head is paid once per several hundred rows, small enough to
 * be a minor part of a step's memory. */
enum { CHUNK_BYTES = 64 << 20 };

icae_tensor *icae_linear_cross_entropy(icae_graph *graph, icae_tensor *h, icae_tensor *w,
                                       const int32_t *targets, const icae_real *coefs,
                                       icae_real *nll) {
    if (!h || !w) return NULL;
    int64_t n = h->shape[0], D = h->shape[1], V = w->shape[0], one = 1;
    if (!icae_graph_expect(graph, h->rank == 2 && w->shape[1] == D && V > 0 && n < INT32_MAX,
                           "cross entropy: rows of %lld values, a head [%lld, %lld]",
                           (long long)D, (long long)V, (long long)w->shape[1])) {
        return NULL;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!icae_graph_expect(graph, targets[i] >= 0 && targets[i] < V,
                               "cross entropy: target %d at row %lld, the vocabulary has %lld",
                               targets[i], (long long)i, (long long)V)) {
            return NULL;
        }
    }
    icae_tensor *loss = icae_graph_result(graph, 1, &one);
    if (!loss) return NULL;
    icae_tensor *inputs[] = {h, w};
    icae_node *node = icae_graph_record(graph, ICAE_OP_linear_cross_entropy, loss, inputs, 2);
    icae_tensor *dh = node ? icae_graph_result(graph, 2, h->shape) : NULL;
    int64_t chunk = CHUNK_BYTES / (V * (int64_t)sizeof(icae_real));
    if (chunk < 1) chunk = 1;
    if (chunk > n) chunk = n;
    icae_backend *be = icae_graph_backend(graph);
    icae_real *logits = be->k.acquire(be, (size_t)(chunk * V) * sizeof *logits);
    icae_real *row_nll = be->k.acquire(be, (size_t)chunk * sizeof *row_nll);
    icae_real *row_coefs = be->k.acquire(be, (size_t)chunk * sizeof *row_coefs);
    icae_real *host = icae_graph_arena(graph, (size_t)(chunk ? chunk : 1) * sizeof *host);
    double sum = 0;
    bool has_all = logits && row_nll && row_coefs && host && (dh || !node);
    if (icae_graph_got(graph, has_all ? logits : NULL, "a chunk of logits")) {
        icae_matrix head = icae_tensor_matrix(w);
        for (int64_t start = 0; start < n; start += chunk) {
            int64_t rows = n - start < chunk ? n - start : chunk;
            size_t bytes = (size_t)rows * sizeof *row_nll;
            icae_frozen_product(be)(be, rows, V, D, icae_values(h) + start * D, &head, false,
                                    logits);
            be->k.copy_in(be, row_coefs, coefs + start, bytes);
            be->k.cross_entropy(be, rows, V, logits, targets + start, dh ? row_coefs : NULL,
                                row_nll);
            if (dh) {
                icae_frozen_product_dx(be)(be, rows, V, D, logits, &head, false,
                                           icae_values(dh) + start * D);
            }
            be->k.copy_out(be, host, row_nll, bytes);
            for (int64_t i = 0; i < rows; i++) {
                sum += (double)coefs[start + i] * (double)host[i];
                if (nll) nll[start + i] = host[i];
            }
        }
    }
    be->k.release(be, logits);
    be->k.release(be, row_nll);
    be->k.release(be, row_coefs);
    if (icae_graph_status(graph, NULL)) return NULL;
    icae_real value = (icae_real)sum;
    be->k.copy_in(be, icae_values(loss), &value, sizeof value);
    if (dh) icae_node_keep(node, dh);
    icae_done(graph, dh);
    return loss;
}

/* dh was made for d loss = 1 */
void icae_linear_cross_entropy_backward(icae_graph *graph, icae_node *node) {
    icae_backend *be = icae_graph_backend(graph);
    icae_tensor *h = node->inputs[0], *dh = node->kept[0];
    icae_real d_loss;
    be->k.copy_out(be, &d_loss, node->output->gradient, sizeof d_loss);
    int64_t count = icae_tensor_count(h);
    bool add;
    icae_real *gradient = icae_gradient(graph, h, &add);
    if (!gradient) return;
    if (add) {
        be->k.scale(be, count, d_loss, icae_values(dh), icae_values(dh));
        be->k.accumulate(be, count, icae_values(dh), gradient);
    } else {
        be->k.scale(be, count, d_loss, icae_values(dh), gradient);
    }
}
