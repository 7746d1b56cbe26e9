/* SPDX-License-Identifier: MIT */
/*
 * A compressed text: its memory slots, and the file that keeps them (.slots).
 *
 * The file is a safetensors file with one tensor "slots" [n*M, D] f32 and metadata: format, version,
 * span lengths, the fingerprints of base, adapter and tokenizer, a hash and the lengths (bytes, tokens)
 * of the source text, and a hash of the slots themselves. Loading is all or nothing.
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
    float *values;                          /* [n*M, D] */
    int64_t n_tokens;                       /* of the source text: the sum of span_lengths */
    uint64_t source_bytes, source_hash;     /* of the source text, 0 when several were joined */
    uint64_t base_fingerprint, adapter_fingerprint, tokenizer_fingerprint;
} icae_slots;

/* A zeroed struct is empty. */
void icae_slots_release(icae_slots *slots);
icae_status icae_slots_allocate(icae_slots *slots, int64_t n_spans, int64_t slots_per_span,
                                int64_t width, icae_error *error);
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
