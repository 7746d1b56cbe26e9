/* SPDX-License-Identifier: MIT */
/* The words of two texts as numbers; shared by BLEU (metrics.c) and the answer metrics (metrics_text.c). */
#ifndef ICAE_LEARN_WORDS_H
#define ICAE_LEARN_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"
#include "icae/text.h"

/*
 * texts are words with one space between them. Equal words get equal numbers, 0, 1, ...
 *
 *   ids     malloc'ed [counts[0] + counts[1]], the first text's words first, in their order
 *   counts  words of each text
 *
 * Fails only when memory ends, which a text's `failed` mark tells, too.
 */
icae_status icae_words_number(const icae_text texts[2], int64_t **ids, size_t counts[2],
                              icae_error *error);

#endif
