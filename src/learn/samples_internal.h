/* SPDX-License-Identifier: MIT */
/*
 * From one tokenised document or row to contexts and jobs. Nothing here reads files, keeps a state or
 * knows of threads: what comes out depends on the arguments alone.
 */
#ifndef ICAE_LEARN_SAMPLES_INTERNAL_H
#define ICAE_LEARN_SAMPLES_INTERNAL_H

#include "icae/chat.h"
#include "icae/feed.h"
#include "icae/rng.h"

/* Which tokens of a document become what. The continuation begins where the context that LM reads ends. */
typedef struct text_cut {
    int64_t start, n_context;
    int64_t n_read; /* LM's context is a shorter one, the first so many of it; 0: the same */
    int64_t n_continuation; /* 0: no LM job */
    bool has_ae;
} text_cut;

/* settings: objective MIXED or BOTH. n_tokens >= settings->least_context >= 1. */
text_cut icae_sample_cut_text(const icae_feed_settings *settings, int64_t n_tokens,
                              icae_rng *rng);

typedef struct token_list {
    int32_t *ids;
    int64_t n;
} token_list;

/* A batch being filled; all memory comes from the arena. */
typedef struct sample_batch {
    icae_arena *arena;
    icae_context *contexts;
    icae_job *jobs;
    int64_t n_contexts, n_jobs, capacity; /* capacity: samples */
    const icae_chat_ids *chat;            /* the caller's */
    token_list prefix;                    /* the chat template's, in the arena too */
} sample_batch;

/* chat: for fine-tuning rows, and only while the batch is being filled; NULL for texts. */
icae_status icae_sample_batch_begin(sample_batch *batch, icae_arena *arena, int64_t n_samples,
                                    const icae_chat_ids *chat, icae_error *error);

/* Adds a context with its AE job, LM job or both; where the cut has n_read, LM's context by itself. eos ends
 * an AE target. */
icae_status icae_sample_add_text(sample_batch *batch, const icae_feed_settings *settings,
                                 const token_list *text, const text_cut *cut, int32_t eos,
                                 uint64_t key, icae_error *error);

/* The parts of a row, already within their limits. */
typedef struct row_tokens {
    token_list input, prompt, answer;
    bool is_answer_whole; /* else it was cut, and no end may follow */
    bool has_ae;          /* a new context bears an AE job, too */
    int32_t eos;          /* ends it */
} row_tokens;

/* Adds an FT job (an AE job before it, if asked for), on a context of the batch with the same tokens if there is one. *is_new says
 * whether there was none. The answer ends with the chat template's end. */
icae_status icae_sample_add_row(sample_batch *batch, const row_tokens *row, uint64_t key,
                                bool *is_new, icae_error *error);

#endif
