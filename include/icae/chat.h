/* SPDX-License-Identifier: MIT */
/*
 * Chat templates: what stands around slots, questions and answers, and the tokens that it becomes.
 *
 *     prefix  [slots] FT  question  suffix  answer  end            the first turn, in training and use
 *     prefix  [slots] FT  q1  suffix  a1  turn  q2  suffix  a2  end          a dialogue's second turn
 *
 * `turn` holds what ends an answer, too; `end` is the one token that an answer's target ends with and
 * that generation stops at. Templates are named presets in one table (src/icae/chat.c); Jinja is not
 * interpreted. An adapter stores the preset's name and its texts, so a later change of the table
 * changes no adapter. Training (feed) and use (api) both get their ids from icae_chat_encode and
 * icae_chat_prompt. In the texts of a template special tokens are meant; in questions, answers and
 * contexts, which may come from strangers, they are never read.
 */
#ifndef ICAE_CHAT_H
#define ICAE_CHAT_H

#include "icae.h"
#include "icae/adapter.h"
#include "icae/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The name of texts that are no preset's. */
#define ICAE_CHAT_CUSTOM "custom"

/* Name of preset i ("none" is the first), or NULL after the last. */
const char *icae_chat_name(size_t i);

/*
 * The preset of a base, by marks in its chat template and the tokens of its vocabulary; "none" without
 * tokenizer or template. *is_known (may be NULL): false when there is a template that no preset knows;
 * what is returned then was chosen by vocabulary alone, and deserves a warning.
 */
const char *icae_chat_choose(const icae_tokenizer *tokenizer, bool *is_known);
/* That warning: path is the base's. */
void icae_chat_warn(const char *path, const char *chosen);

/* Texts that were asked for; NULL: not this one. */
typedef struct icae_chat_wish {
    const char *name, *prefix, *suffix, *turn, *end;
} icae_chat_wish;

/*
 * Puts the wish into the settings, over what they have.
 *
 *   name       a preset, whose texts all come in; or "custom": empty texts
 *   the texts  replace single ones, and the name becomes "custom" when that changes something. Another
 *              suffix empties turn and end, which belong to the format that it replaces, unless they are
 *              wished for, too.
 *   tokenizer  of the base; NULL leaves out what needs one
 *
 * Refused: an unknown preset, one whose tokens the tokenizer lacks, a text that contradicts the preset
 * named beside it, a text that is too long, an end that is not one token. `where` begins the sentence.
 */
icae_status icae_chat_apply(icae_adapter_settings *settings, const icae_chat_wish *wish,
                            const icae_tokenizer *tokenizer, const char *where,
                            icae_error *error);

/* Refuses texts without a 0 at their end, the preset's tokens missing from the tokenizer (may be NULL),
 * and an end that is not one token of it. */
icae_status icae_chat_check(const icae_adapter_settings *settings,
                            const icae_tokenizer *tokenizer, const char *where,
                            icae_error *error);

/* The texts as tokens. */
typedef struct icae_chat_ids {
    int32_t *prefix, *suffix, *turn; /* malloc'ed */
    int64_t n_prefix, n_suffix, n_turn;
    int32_t
        end; /* the adapter's stop_id, else the template's, else the tokenizer's eos; -1: none */
} icae_chat_ids;

icae_status icae_chat_encode(icae_chat_ids *chat, const icae_adapter_settings *settings,
                             const icae_tokenizer *tokenizer, icae_error *error);
void icae_chat_release(icae_chat_ids *chat); /* a zeroed struct, too */

/* What follows the FT token: question [n], then the suffix. out [n + n_suffix]. */
void icae_chat_prompt(const icae_chat_ids *chat, const int32_t *question, int64_t n,
                      int32_t *out);

/*
 * What follows the FT token in a dialogue: all turns so far and the next question. With n_turns = 0
 * exactly icae_chat_prompt of the encoded question. A template without `turn` gets the dialogue as text:
 * "User: ...", "Assistant: ...", a line each.
 *
 *   ids  malloc'ed; *n its length
 */
icae_status icae_chat_dialogue(const icae_chat_ids *chat, const icae_tokenizer *tokenizer,
                               const icae_turn *turns, size_t n_turns, const char *question,
                               int32_t **ids, int64_t *n, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
