/* SPDX-License-Identifier: MIT */
/*
 * Compression of one text; see icae/generate.h.
 *
 * Spans go through the encoder a few at a time, as one pack.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/generate_internal.h"
#include "icae/rng.h"

/* Sums side by side, for the compiler's vectors. */
enum { LANES = 16 };

icae_status icae_check_finite(const icae_real *values, int64_t n, const char *what,
                              const icae_model *model, icae_error *error) {
    icae_real zeros[LANES] = {0}; /* 0 * x is NaN for what is not finite, and stays so */
    for (int64_t i = 0; i < n / LANES * LANES; i += LANES) {
        for (int j = 0; j < LANES; j++)
            zeros[j] += 0 * values[i + j];
    }
    for (int64_t i = n / LANES * LANES; i < n; i++)
        zeros[0] += 0 * values[i];
    for (int j = 1; j < LANES; j++)
        zeros[0] += zeros[j];
    if (isfinite(zeros[0])) return ICAE_OK;
    return icae_fail(error, ICAE_FORMAT,
                     "%s are not finite numbers: the base %s or the adapter is damaged, or "
                     "was made with values too large for it",
                     what, model->path);
}

/* Spans on their way through the encoder. */
typedef struct encoding {
    icae_graph *graph;
    const icae_model *model;
    const icae_adapter *adapter;
    const int32_t *ids;
    icae_slots *slots;
    int64_t span, token; /* the next span, and where it begins */
    int64_t encoded;     /* spans whose slots are there */
} encoding;

/* Encodes up to `most` compressed spans as one pack; raw ones between them are copied. */
static icae_status encode_some(encoding *e, int64_t most, icae_error *error) {
    icae_graph *graph = e->graph;
    icae_slots *slots = e->slots;
    int64_t row = slots->slots_per_span * slots->width, count = 0;
    icae_graph_begin(graph, false, false);
    icae_graph_resize(graph, icae_mix64((uint64_t)most, (uint64_t)slots->n_tokens));
    icae_graph_set_reading(graph);
    icae_context *contexts = icae_graph_arena(graph, (size_t)most * sizeof *contexts);
    int64_t *firsts = icae_graph_arena(graph, ((size_t)most + 1) * sizeof *firsts);
    icae_real *host = icae_graph_arena(graph, (size_t)(most * row) * sizeof *host);
    if (!contexts || !firsts || !host) return icae_graph_status(graph, error);
    for (; e->span < slots->n_spans && count < most; e->span++) {
        int64_t n = slots->span_lengths[e->span];
        if (!slots->is_raw || !slots->is_raw[e->span])
            contexts[count++] = (icae_context){e->ids + e->token, n, 0};
        e->token += n;
    }
    if (count == 0) return ICAE_OK;
    icae_run run = {0};
    icae_tensor *made = icae_encode(graph, e->model, e->adapter, contexts, count, &run, firsts);
    if (!made) return icae_graph_status(graph, error);
    assert(icae_tensor_count(made) == count * row);
    icae_tensor_read(graph, made, host);
    icae_status status =
        icae_check_finite(host, count * row, "the memory slots", e->model, error);
    for (int64_t i = 0; i < count * row; i++)
        slots->values[e->encoded * row + i] = (float)host[i];
    e->encoded += count;
    return status ? status : icae_graph_status(graph, error);
}

static void copy_raw(const int32_t *ids, icae_slots *slots) {
    int32_t *out = slots->raw_ids;
    for (int64_t s = 0; s < slots->n_spans; s++) {
        int64_t n = slots->span_lengths[s];
        if (slots->is_raw && slots->is_raw[s] && n) {
            memcpy(out, ids, (size_t)n * sizeof *out);
            out += n;
        }
        ids += n;
    }
}

icae_status icae_compress_spans(icae_graph *graph, const icae_model *model,
                                const icae_adapter *adapter, const int32_t *ids,
                                int64_t n_spans, const int32_t *lengths, const bool *is_raw,
                                const icae_span_watch *watch, icae_slots *slots,
                                icae_error *error) {
    const icae_adapter_settings *settings = &adapter->settings;
    icae_status status =
        icae_slots_allocate(slots, n_spans, settings->memory_slots, model->config.width, error);
    if (status) return status;
    int64_t longest = 0;
    for (int64_t s = 0; s < n_spans; s++) {
        assert(lengths[s] <= settings->memory_slots * settings->compression_rate);
        slots->span_lengths[s] = lengths[s];
        slots->n_tokens += lengths[s];
        if (lengths[s] > longest) longest = lengths[s];
    }
    slots->base_fingerprint = model->fingerprint;
    slots->adapter_fingerprint = adapter->fingerprint;
    slots->tokenizer_fingerprint =
        model->tokenizer ? icae_tokenizer_fingerprint(model->tokenizer) : 0;
    if (is_raw) status = icae_slots_keep_raw(slots, is_raw, error);
    if (!status) copy_raw(ids, slots);

    /* A few spans at a time, so that a long book needs no more memory than a page. */
    enum { TOKENS_AT_ONCE = 2048 };
    int64_t per_span = longest + settings->memory_slots;
    int64_t group = TOKENS_AT_ONCE / per_span > 0 ? TOKENS_AT_ONCE / per_span : 1;
    if (group > n_spans) group = n_spans;
    encoding e = {graph, model, adapter, ids, slots, 0, 0, 0};
    while (e.span < n_spans && !status) {
        status = encode_some(&e, group, error);
        if (!status) status = icae_span_watch_tell(watch, "compressed", e.span, n_spans, error);
    }
    if (status) icae_slots_release(slots);
    return status;
}

icae_status icae_compress_ids(icae_graph *graph, const icae_model *model,
                              const icae_adapter *adapter, const int32_t *ids, int64_t n,
                              const icae_span_watch *watch, icae_slots *slots,
                              icae_error *error) {
    const icae_adapter_settings *settings = &adapter->settings;
    if (n < 1) return icae_fail(error, ICAE_INVALID, "there is no text to compress");
    int64_t n_spans = icae_span_count(n, settings->memory_slots, settings->compression_rate);
    int32_t *lengths = calloc((size_t)n_spans, sizeof *lengths);
    if (!lengths) return icae_fail_memory(error, "spans");
    for (int64_t s = 0; s < n_spans; s++)
        lengths[s] = (int32_t)icae_span_length(n, n_spans, s);
    icae_status status = icae_compress_spans(graph, model, adapter, ids, n_spans, lengths, NULL,
                                             watch, slots, error);
    free(lengths);
    return status;
}

icae_status icae_compress_text(icae_graph *graph, const icae_model *model,
                               const icae_adapter *adapter, const char *text, size_t bytes,
                               const icae_span_watch *watch, icae_slots *slots, int32_t **ids,
                               icae_error *error) {
    int32_t *made = NULL;
    size_t n;
    icae_status status = icae_adapter_encode(&adapter->settings, model->tokenizer, text, bytes,
                                             &made, &n, error);
    if (status) return status;
    status = icae_compress_ids(graph, model, adapter, made, (int64_t)n, watch, slots, error);
    if (!status) {
        slots->source_bytes = bytes;
        slots->source_hash = icae_hash64(text, bytes, 0);
    }
    if (!status && ids)
        *ids = made;
    else
        free(made);
    return status;
}
