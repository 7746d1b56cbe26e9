/* SPDX-License-Identifier: MIT */
/*
 * Slots made better for one text: a few steps of gradient descent on the slots themselves.
 *
 * The encoder makes slots in one pass, for any text alike. Here the frozen decoder's own loss on restoring a
 * span is followed back to that span's slots, and Adam moves them; base and adapter stay as they are. It
 * costs some forty times the time of the encoder's pass and takes nothing at reading: a refined slot is a
 * slot like any other. What is optimised is restoring alone, so the letter of a text gains most.
 *
 * Each span is a problem of its own: its slots depend on nothing but its own tokens, and with them on no
 * other span of the text. It is also what a span holds by itself: a decoder that reads several refined spans at
 * once sees what it was never refined for.
 * Source of the idea: Kuratov et al., "Cramming 1568 Tokens into a Single Vector and Back Again",
 * arXiv 2502.13063; of Adam: Kingma and Ba, arXiv 1412.6980.
 */
#ifndef ICAE_REFINE_H
#define ICAE_REFINE_H

#include "icae/slots.h"
#include "icae/objective.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What came of it, over all compressed spans. */
typedef struct icae_refined {
    int64_t spans;        /* refined ones: those kept raw, and empty ones, are left out */
    int64_t certain;      /* of them, whose every token the decoder is sure of */
    int64_t steps;        /* made, over all spans */
    int64_t targets;      /* tokens, ends included */
    double before, after; /* sums of their negative log-likelihood, nats */
} icae_refined;

/*
 * Refines the slots of a text in place.
 *
 *   graph     is begun and used
 *   ids       [slots->n_tokens] the text's tokens
 *   slots     made by this model and adapter; each span ends with the first values that make all its tokens
 *             certain, else with those of the least loss. On failure they are as they were.
 *   steps     the most a span gets; it ends earlier once every token is predicted with a probability of 0.7,
 *             for then greedy writing restores it exactly
 *   watch     told after every step of the spans at work ("refined"); may be NULL, as may refined
 */
icae_status icae_refine(icae_graph *graph, const icae_model *model, const icae_adapter *adapter,
                        const int32_t *ids, int64_t steps, const icae_span_watch *watch,
                        icae_slots *slots, icae_refined *refined, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
