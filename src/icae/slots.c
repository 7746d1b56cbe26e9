/* SPDX-License-Identifier: MIT */
/*
 * Compressed texts in memory: made room for, counted, walked over span by span, joined. Their files are
 * slots_file.c's.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "icae/memory.h"
#include "icae/slots_internal.h"

void icae_slots_release(icae_slots *slots) {
    free(slots->span_lengths);
    free(slots->is_raw);
    free(slots->raw_ids);
    free(slots->values);
    *slots = (icae_slots){0};
}

/* n_spans * slots_per_span * width as a count of floats that fits in memory. */
static bool count_values(int64_t n_spans, int64_t slots_per_span, int64_t width,
                         size_t *count) {
    size_t bytes;
    return icae_size_mul((size_t)n_spans, (size_t)slots_per_span, count) &&
           icae_size_mul(*count, (size_t)width, count) &&
           icae_size_mul(*count, sizeof(float), &bytes) && bytes <= PTRDIFF_MAX;
}

static icae_status fail_slots(int64_t n_spans, int64_t slots_per_span, int64_t width,
                              icae_error *error) {
    return icae_fail(error, ICAE_MEMORY,
                     "not enough memory for %lld spans of %lld memory slots: %.3g GB; cut the "
                     "text into parts",
                     (long long)n_spans, (long long)slots_per_span,
                     1e-9 * (double)n_spans * (double)slots_per_span * (double)width *
                         (double)sizeof(float));
}

icae_status icae_slots_allocate_compressed(icae_slots *slots, int64_t n_spans,
                                           int64_t n_compressed, int64_t slots_per_span,
                                           int64_t width, icae_error *error) {
    assert(!slots->values && n_spans > 0 && slots_per_span > 0 && width > 0);
    size_t count;
    if (!count_values(n_compressed, slots_per_span, width, &count))
        return fail_slots(n_compressed, slots_per_span, width, error);
    slots->values = calloc(count, sizeof *slots->values);
    slots->span_lengths = calloc((size_t)n_spans, sizeof *slots->span_lengths);
    if (!slots->values || !slots->span_lengths) {
        icae_slots_release(slots);
        return fail_slots(n_compressed, slots_per_span, width, error);
    }
    slots->n_spans = n_spans;
    slots->slots_per_span = slots_per_span;
    slots->width = width;
    return ICAE_OK;
}

icae_status icae_span_watch_tell(const icae_span_watch *watch, const char *verb, int64_t done,
                                 int64_t total, icae_error *error) {
    if (!watch || !watch->progress || watch->progress(watch->user, verb, done, total))
        return ICAE_OK;
    return icae_fail(error, ICAE_INTERRUPTED, "stopped: %lld of %lld spans were %s",
                     (long long)done, (long long)total, verb);
}

icae_status icae_slots_allocate(icae_slots *slots, int64_t n_spans, int64_t slots_per_span,
                                int64_t width, icae_error *error) {
    return icae_slots_allocate_compressed(slots, n_spans, n_spans, slots_per_span, width,
                                          error);
}

int64_t icae_slots_vectors(const icae_slots *slots) {
    return (slots->n_spans - slots->n_raw) * slots->slots_per_span;
}

int64_t icae_slots_raw_tokens(const icae_slots *slots) {
    int64_t n = 0;
    for (int64_t s = 0; slots->is_raw && s < slots->n_spans; s++)
        n += slots->is_raw[s] ? slots->span_lengths[s] : 0;
    return n;
}

int64_t icae_slots_rows(const icae_slots *slots) {
    return icae_slots_vectors(slots) + icae_slots_raw_tokens(slots);
}

bool icae_slots_next_span(const icae_slots *all, icae_slots *view) {
    const bool is_first = view->n_spans == 0;
    const int64_t s = is_first ? 0 : view->span_lengths - all->span_lengths + 1;
    if (s == all->n_spans) return false;
    icae_slots next = *all;
    if (!is_first) {
        const bool was_raw = view->n_raw > 0;
        next.values = view->values + (was_raw ? 0 : all->slots_per_span * all->width);
        next.raw_ids = was_raw ? view->raw_ids + view->n_tokens : view->raw_ids;
    }
    next.n_spans = 1;
    next.span_lengths = all->span_lengths + s;
    next.n_tokens = all->span_lengths[s];
    next.is_raw = all->is_raw ? all->is_raw + s : NULL;
    next.n_raw = next.is_raw && *next.is_raw ? 1 : 0;
    next.source_bytes = next.source_hash = 0;
    *view = next;
    return true;
}

icae_status icae_slots_keep_raw(icae_slots *slots, const bool *is_raw, icae_error *error) {
    assert(slots->values && !slots->is_raw);
    size_t n = (size_t)slots->n_spans;
    int64_t n_raw = 0;
    for (size_t s = 0; s < n; s++)
        n_raw += is_raw[s];
    if (n_raw == 0) return ICAE_OK;
    if (n_raw == slots->n_spans)
        return icae_fail(error, ICAE_INVALID,
                         "every span would be kept raw: nothing is compressed");
    slots->is_raw = calloc(n, sizeof *slots->is_raw);
    if (!slots->is_raw) return icae_fail_memory(error, "raw spans");
    memcpy(slots->is_raw, is_raw, n * sizeof *is_raw);
    slots->n_raw = n_raw;
    slots->raw_ids = calloc((size_t)icae_slots_raw_tokens(slots) + 1, sizeof *slots->raw_ids);
    return slots->raw_ids ? ICAE_OK : icae_fail_memory(error, "raw spans");
}

static icae_status check_join(const icae_slots *slots, const icae_slots *more,
                              icae_error *error) {
    if (slots->adapter_fingerprint != more->adapter_fingerprint ||
        slots->base_fingerprint != more->base_fingerprint ||
        slots->tokenizer_fingerprint != more->tokenizer_fingerprint) {
        return icae_fail(error, ICAE_MISMATCH,
                         "slots made by adapter %016" PRIx64 " for base %016" PRIx64
                         " cannot be joined with slots made by adapter %016" PRIx64
                         " for base %016" PRIx64 "; compress both texts with one adapter",
                         slots->adapter_fingerprint, slots->base_fingerprint,
                         more->adapter_fingerprint, more->base_fingerprint);
    }
    if (slots->slots_per_span != more->slots_per_span || slots->width != more->width) {
        return icae_fail(
            error, ICAE_MISMATCH,
            "slots of %" PRId64 " a span, %" PRId64
            " wide, cannot be joined with slots of %" PRId64 " a span, %" PRId64 " wide",
            slots->slots_per_span, slots->width, more->slots_per_span, more->width);
    }
    if (slots->n_tokens > ICAE_SLOTS_MOST_TOKENS - more->n_tokens) {
        return icae_fail(error, ICAE_INVALID,
                         "the joined slots stand for more than %" PRId64 " tokens; take fewer",
                         ICAE_SLOTS_MOST_TOKENS);
    }
    return ICAE_OK;
}

icae_status icae_slots_join(icae_slots *slots, const icae_slots *more, icae_error *error) {
    if (!more->values) return ICAE_OK;
    icae_status status = slots->values ? check_join(slots, more, error) : ICAE_OK;
    icae_slots joined = {0};
    if (!status) {
        status = icae_slots_allocate(&joined, slots->n_spans + more->n_spans,
                                     more->slots_per_span, more->width, error);
    }
    if (status) return status;
    joined.n_tokens = slots->n_tokens + more->n_tokens;
    joined.base_fingerprint = more->base_fingerprint;
    joined.adapter_fingerprint = more->adapter_fingerprint;
    joined.tokenizer_fingerprint = more->tokenizer_fingerprint;
    if (!slots->values) { /* one text is still one text */
        joined.source_bytes = more->source_bytes;
        joined.source_hash = more->source_hash;
    }
    const icae_slots *parts[] = {slots, more};
    bool *is_raw = calloc((size_t)joined.n_spans, sizeof *is_raw);
    if (!is_raw) status = icae_fail_memory(error, "joined slots");
    for (int64_t i = 0, at = 0; i < 2 && !status; i++) {
        for (int64_t s = 0; parts[i]->values && s < parts[i]->n_spans; s++, at++) {
            joined.span_lengths[at] = parts[i]->span_lengths[s];
            is_raw[at] = parts[i]->is_raw && parts[i]->is_raw[s];
        }
    }
    if (!status) status = icae_slots_keep_raw(&joined, is_raw, error);
    free(is_raw);
    if (status) {
        icae_slots_release(&joined);
        return status;
    }
    float *values = joined.values;
    int32_t *ids = joined.raw_ids;
    for (int i = 0; i < 2; i++) {
        if (!parts[i]->values) continue;
        size_t n_values = (size_t)(icae_slots_vectors(parts[i]) * joined.width);
        size_t n_ids = (size_t)icae_slots_raw_tokens(parts[i]);
        memcpy(values, parts[i]->values, n_values * sizeof *values);
        if (n_ids) memcpy(ids, parts[i]->raw_ids, n_ids * sizeof *ids);
        values += n_values;
        if (n_ids) ids += n_ids;
    }
    icae_slots_release(slots);
    *slots = joined;
    return ICAE_OK;
}
