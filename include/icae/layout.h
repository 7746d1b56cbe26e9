/* SPDX-License-Identifier: MIT */
/*
 * Which spans a text is cut into, and which position id every token and slot gets.
 *
 * Spans: n = ceil(L / (k * rate)), all of length ceil(L / n) but the last; each is encoded alone with
 * the same k memory tokens, and the slots are laid end to end.
 *
 * Positions, layout "uniform" (a slot keeps the position of the text it stands for; EPL, arXiv
 * 2409.14364), in integers, halves rounded to even:
 *     slot_position(j; x1, n, k) = x1 + round_half_even(((2j+1) n - k) / (2k))
 *     encoder   text 1..n, memory slot_position(j; 1, n, k)
 *     decoder   prefix of p tokens 0..p-1; off = max(0, p-1); slots of the span that starts at o:
 *               slot_position(j; 1 + off + o, n, k); then AE: 0, 1, 2, ...; LM and FT: L+off, L+off+1, ...
 * Layout "append" (the released code, arXiv 2307.06945): positions count up from 0 over everything.
 */
#ifndef ICAE_LAYOUT_H
#define ICAE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_layout {
    ICAE_LAYOUT_UNIFORM,
    ICAE_LAYOUT_APPEND,
    ICAE_LAYOUT_COUNT
} icae_layout;
extern const char *const icae_layout_names[]; /* "uniform", "append", NULL */

/* Row of the memory table, counted from k: what follows the slots in the decoder. */
typedef enum icae_task { ICAE_TASK_AE, ICAE_TASK_LM, ICAE_TASK_FT, ICAE_TASK_COUNT } icae_task;
extern const char *const icae_task_names[]; /* "ae", "lm", "ft", NULL */

/* Number of spans of a text of `length` tokens (1 for an empty one). */
int64_t icae_span_count(int64_t length, int64_t slots, int64_t rate);
/* Tokens in span `index` of `count`; 0 for spans that equalising left empty. */
int64_t icae_span_length(int64_t length, int64_t count, int64_t index);

/* The tokens of a span of n that slot j of k stands for: first <= t < end, 0-based, at least one where
 * n > 0. Neighbours share a token where k does not divide n. */
void icae_slot_share(int64_t j, int64_t n, int64_t k, int64_t *first, int64_t *end);

int32_t icae_slot_position(int64_t j, int64_t x1, int64_t n, int64_t k);

/* Positions of one encoder sequence, n text tokens then k memory tokens: out [n + k]. */
void icae_encoder_positions(icae_layout layout, int64_t n, int64_t k, int32_t *out);

/* Positions of one decoder sequence: prefix, slots of all spans, then n_after tokens, the task token
 * first: out [n_prefix + rows of the spans + n_after]. span_lengths [n_spans]. is_raw [n_spans], or NULL
 * for none: spans that stand there as their own tokens, at their own positions; others have k rows. */
void icae_decoder_positions(icae_layout layout, icae_task task, int64_t n_prefix,
                            int64_t n_spans, const int32_t *span_lengths, const bool *is_raw,
                            int64_t k, int64_t n_after, int32_t *out);

#ifdef __cplusplus
}
#endif
#endif
