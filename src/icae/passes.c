/* SPDX-License-Identifier: MIT */
/* Cutting a batch into passes; the contract stands in icae/objective.h. */
#include "icae/objective.h"

/* Products are at full speed from a few hundred rows on, and tensors grow with every row. */
enum { FULL_SPEED = 768 };

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int64_t icae_pass_limit(int64_t longest) {
    return longest > 0 && longest < FULL_SPEED ? FULL_SPEED / longest * longest : longest;
}

int64_t icae_pass_end(const icae_adapter *adapter, const icae_batch *batch, int64_t first,
                      int64_t limit, bool by_job) {
    int64_t encoder = 0, decoder = 0, end = first, last_context = -1;
    while (end < batch->n_jobs) {
        int64_t context = batch->jobs[end].context, next = end + 1;
        while (!by_job && next < batch->n_jobs && batch->jobs[next].context == context)
            next++;
        icae_batch unit = {
            .contexts = batch->contexts, .jobs = batch->jobs + end, .n_jobs = next - end};
        decoder += icae_batch_measure(adapter, &unit).decoder_tokens;
        if (context != last_context) {
            unit = (icae_batch){.contexts = batch->contexts + context, .n_contexts = 1};
            encoder += icae_batch_measure(adapter, &unit).encoder_tokens;
        }
        if (end > first && larger(encoder, decoder) > limit) break;
        last_context = context;
        end = next;
    }
    return end;
}

icae_job *icae_batch_part(icae_graph *graph, const icae_batch *batch, int64_t first,
                          int64_t end, icae_batch *part) {
    int64_t first_context = batch->jobs[first].context;
    icae_job *jobs = icae_graph_arena(graph, (size_t)(end - first) * sizeof *jobs);
    for (int64_t j = first; jobs && j < end; j++) {
        jobs[j - first] = batch->jobs[j];
        jobs[j - first].context -= first_context;
    }
    *part = (icae_batch){.contexts = batch->contexts + first_context,
                         .n_contexts = batch->jobs[end - 1].context - first_context + 1,
                         .jobs = jobs,
                         .n_jobs = end - first};
    return jobs;
}
