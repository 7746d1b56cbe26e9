/* SPDX-License-Identifier: MIT */
/*
 * Reading a text into slots, and writing text from slots, token by token with a KV cache.
 *
 * Several requests are decoded side by side: one pack per step with one row for each sequence that is
 * still running. What a request yields does not depend on the others.
 */
#ifndef ICAE_GENERATE_H
#define ICAE_GENERATE_H

#include "icae/objective.h"
#include "icae/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_sampling {
    double temperature; /* 0: greedy */
    double top_p;       /* keep the likeliest tokens of this total probability; 1 = all */
    int64_t top_k;      /* keep this many; 0 = all */
    uint64_t seed;
} icae_sampling;

typedef struct icae_request {
    const icae_slots *slots; /* NULL: no compressed context (chat prefix and prompt alone) */
    icae_task task;          /* which task token follows the slots (ignored without slots) */
    const int32_t *prefix, *prompt; /* ids before the slots, and after the task token */
    int64_t n_prefix, n_prompt;
    int64_t max_tokens;
    int32_t stop; /* id that ends it (not part of the result), -1: none */
} icae_request;

typedef struct icae_result {
    int32_t *ids; /* malloc'ed; free with icae_results_release */
    int64_t n;
    bool is_stopped; /* by the stop token, not by max_tokens */
} icae_result;

/* Called for every new token; false stops everything with ICAE_INTERRUPTED. May be NULL. */
typedef bool icae_token_callback(void *user, int64_t request, int32_t id);

/*
 * Compresses token ids in spans as the caller has them.
 *
 *   graph    is begun and used
 *   lengths  [n_spans] tokens of each, at most slots * rate of the adapter; their sum is that of ids
 *   is_raw   [n_spans] spans that are kept as they are, or NULL for none; one at least has to be compressed
 *   watch    told after every pass ("compressed"); may be NULL
 *   slots    empty before
 */
icae_status icae_compress_spans(icae_graph *graph, const icae_model *model,
                                const icae_adapter *adapter, const int32_t *ids,
                                int64_t n_spans, const int32_t *lengths, const bool *is_raw,
                                const icae_span_watch *watch, icae_slots *slots,
                                icae_error *error);
/* In equal spans, as many as the adapter's slots and rate ask for. */
icae_status icae_compress_ids(icae_graph *graph, const icae_model *model,
                              const icae_adapter *adapter, const int32_t *ids, int64_t n,
                              const icae_span_watch *watch, icae_slots *slots,
                              icae_error *error);
/* The same of a text (see icae_adapter_encode), whose bytes and hash the slots remember. ids (may be NULL)
 * receives its slots->n_tokens tokens, malloc'ed. */
icae_status icae_compress_text(icae_graph *graph, const icae_model *model,
                               const icae_adapter *adapter, const char *text, size_t bytes,
                               const icae_span_watch *watch, icae_slots *slots, int32_t **ids,
                               icae_error *error);

/* The longest that so many tokens may become when they are restored: an eighth and 8 more, so that running on
 * behind their end is seen. */
int64_t icae_restored_limit(int64_t tokens);

/* results [n_requests]; while the callback runs they hold all tokens so far. */
icae_status icae_generate(icae_graph *graph, const icae_model *model,
                          const icae_adapter *adapter, const icae_request *requests,
                          int64_t n_requests, const icae_sampling *sampling,
                          icae_token_callback *callback, void *user, icae_result *results,
                          icae_error *error);
void icae_results_release(icae_result *results, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
