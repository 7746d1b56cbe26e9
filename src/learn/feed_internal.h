/* SPDX-License-Identifier: MIT */
/* What feed.c (steps and their thread) and feed_state.c share. */
#ifndef ICAE_LEARN_FEED_INTERNAL_H
#define ICAE_LEARN_FEED_INTERNAL_H

#include "icae/corpus.h"
#include "samples_internal.h"

/* Makes step after step; used by one thread only. */
typedef struct feed_maker {
    icae_feed_settings settings;
    const icae_tokenizer *tokenizer;
    const icae_adapter_settings *adapter; /* may be NULL */
    int32_t eos;
    icae_chat_ids chat; /* empty but for ICAE_OBJECTIVE_INSTRUCT */
    icae_corpus_options options;
    const char **paths; /* options.paths */
    icae_corpus *corpus;

    int64_t drawn;       /* samples since the last return to the first one: names the stream */
    int64_t in_epoch;    /* samples of this epoch */
    int64_t past_broken; /* lines, of passes that limit_samples has ended */
    int64_t past_passed; /* over, before icae_feed_count_from */
    icae_feed_stats stats;
    bool is_told[3]; /* that an input, a prompt, an answer was cut; of this session */
} feed_maker;

icae_status icae_feed_save_state(const feed_maker *maker, icae_text *out, icae_error *error);
icae_status icae_feed_restore_state(feed_maker *maker, const icae_json *json,
                                    const icae_json_value *state, icae_error *error);

#endif
