/* SPDX-License-Identifier: MIT */
/*
 * What reconstruct, continue, ask and chat share: a base with a session on it, slots from
 * files, and text that appears on standard output as it is made. All of it through <icae.h>.
 */
#ifndef ICAE_INFER_SPEAK_H
#define ICAE_INFER_SPEAK_H

#include "icae.h"
#include "options.h"
#include "report.h"

typedef struct speaker {
    icae_base *base;
    icae_session *session;
    icae_slots *slots; /* NULL until loaded */
} speaker;

icae_status speaker_open(speaker *s, const options *given, icae_error *error);
/* Several files are joined in the order given. */
icae_status speaker_load(speaker *s, const char *const *paths, int n_paths, icae_error *error);
void speaker_close(speaker *s);

/* The generation that the options ask for. */
icae_generation speaker_wish(const options *given, icae_mode mode, const char *prompt);

/* Writes from the slots: streamed to standard output, unless is_silent. *elapsed_s (may be NULL). */
icae_status speaker_write(speaker *s, const icae_generation *wish, bool is_silent,
                          icae_generated *result, double *elapsed_s, icae_error *error);

/* text, prompt_tokens, generated_tokens, complete, seconds: the keys that all have. */
void json_generated(json_object *object, const icae_generated *result, double elapsed_s);

/* reconstruct --into: all files, into given->into. */
int reconstruct_into(const options *given);

/* The commands behind them; see main.c. */
int run_reconstruct(const options *given);
int run_continue(const options *given);
int run_ask(const options *given);
int run_chat(const options *given);

#endif
