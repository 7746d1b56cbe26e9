/* SPDX-License-Identifier: MIT */
/*
 * A compressed text: its memory slots, and the file that keeps them (.slots).
 *
 * Some spans may be kept raw, as their own tokens: what slots cannot hold well enough, a decoder reads as
 * text in its place.
 *
 * The file is a safetensors file with one tensor "slots" [vectors, D] f32 and metadata: format, version,
 * span lengths, raw spans and their tokens where there are any, the fingerprints of base, adapter and
 * tokenizer, a hash and the lengths (bytes, tokens) of the source text, and a hash of it all. Loading is
 * all or nothing.
 */
#ifndef ICAE_SLOTS_H
#define ICAE_SLOTS_H

#include "icae/adapter.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_slots {
    int64_t n_spans, slots_per_span, width; /* n, M, D */
    int32_t *span_lengths;                  /* [n] tokens that each span stands for */
    bool *is_raw;                           /* [n] spans that have no slots; NULL: none */
    int64_t n_raw;                          /* how many */
    int32_t *raw_ids; /* tokens of the raw spans, one span after the other; NULL: none */
    float *values;    /* [(n - n_raw)*M, D] */
    int64_t n_tokens; /* of the source text: the sum of span_lengths */
    uint64_t source_bytes, source_hash; /* of the source text, 0 when several were joined */
    uint64_t base_fingerprint, adapter_fingerprint, tokenizer_fingerprint;
} icae_slots;

/* Who is told how far work on the spans of a text has come: what was done with them, of how many of how
 * many. false stops it with ICAE_INTERRUPTED. */
typedef struct icae_span_watch {
    bool (*progress)(void *user, const char *verb, int64_t done, int64_t total);
    void *user;
} icae_span_watch;
/* Tells; watch may be NULL. */
icae_status icae_span_watch_tell(const icae_span_watch *watch, const char *verb, int64_t done,
                                 int64_t total, icae_error *error);

/* A zeroed struct is empty. */
void icae_slots_release(icae_slots *slots);
icae_status icae_slots_allocate(icae_slots *slots, int64_t n_spans, int64_t slots_per_span,
                                int64_t width, icae_error *error);
/* Makes spans of freshly allocated slots, whose span_lengths are set, raw; their tokens and the values of the
 * others are to be filled in. At least one span has to stay compressed. */
icae_status icae_slots_keep_raw(icae_slots *slots, const bool *is_raw, icae_error *error);
/* Vectors in all; tokens of raw spans; rows that a decoder reads: both together. */
int64_t icae_slots_vectors(const icae_slots *slots);
int64_t icae_slots_raw_tokens(const icae_slots *slots);
int64_t icae_slots_rows(const icae_slots *slots);
/* Walks over the spans: a zeroed view becomes the first span of `all`, then each time the next one; false
 * behind the last. A view is slots of one span, raw or not, for reading: all of it points into `all`. */
bool icae_slots_next_span(const icae_slots *all, icae_slots *view);
icae_status icae_slots_save(const icae_slots *slots, const char *path, icae_error *error);
/* model, adapter: refuse slots made for others, naming both; both NULL: only inspect. */
icae_status icae_slots_load(icae_slots *slots, const char *path, const icae_model *model,
                            const icae_adapter *adapter, icae_error *error);
/* Appends `more` behind `slots`: several texts as one context, in that order. */
icae_status icae_slots_join(icae_slots *slots, const icae_slots *more, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
