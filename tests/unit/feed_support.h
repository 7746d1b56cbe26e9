/* SPDX-License-Identifier: MIT */
/* Texts and rows made for the feed's suites, the settings they are cut with, and what a step of them says. */
#ifndef ICAE_TESTS_FEED_SUPPORT_H
#define ICAE_TESTS_FEED_SUPPORT_H

#include "icae/feed.h"
#include "icae/text.h"
#include "suites.h"

enum { N_TEXTS = 23 };

/* The golden llama's, and its tokenizer; the caller frees that. */
extern const char feed_model_folder[];
icae_tokenizer *feed_tokenizer(void);
/* Text `number` has 4 to 90 words; every seventh is one short word, so too short for any setting. */
void feed_text(icae_text *out, int number);
/* A test_folder with N_TEXTS texts in a.jsonl and b.jsonl.gz. */
const char *feed_texts(const char *name);
/* A test_folder with rows.jsonl: inputs come in runs of 1 to 4; some parts are over the limits of feed_row_settings. */
const char *feed_rows(const char *name);

extern const icae_feed_settings feed_text_settings, feed_row_settings; /* without paths */
extern const icae_adapter_settings feed_chat;

/* A feed of one file or folder, with feed_chat. */
icae_feed *feed_open_on(const icae_feed_settings *settings, const char *path,
                        const icae_tokenizer *tokenizer);
/* NULL at the end; the caller frees it. */
icae_feed_step *feed_next(icae_feed *feed, int64_t n_samples);
/* All that a step says; keys and state only where wanted. */
void feed_dump(icae_text *out, const icae_feed_step *step, bool with_state);

#endif
