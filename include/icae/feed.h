/* SPDX-License-Identifier: MIT */
/*
 * From documents to training batches: tokenising, random windows, objectives, prefetched on a thread.
 *
 * Pretraining (arXiv 2307.06945 and its released code). A document of L tokens and limits C (context)
 * and O (continuation) gives one sample, however long it is:
 *     AE       context = the text; a uniformly random window of C tokens when it is longer.
 *     LM       long text: a random window of C tokens is the context, what follows (cut to O) the
 *              continuation; short text: split at a uniform random point that leaves at least
 *              `least_context` tokens. Needs more than `least_continuation` tokens of continuation,
 *              else the sample becomes AE, cut as AE samples are.
 *     mixed    one draw per sample: LM with probability lm_ratio, else AE (the released rule)
 *     both     every sample is cut as for LM and bears AE on its context and, where enough follows,
 *              LM on that; a short text with too little after its split is kept whole, for AE alone
 * So in one epoch a book counts no more than a letter: cut long texts into several documents to give
 * them more weight.
 *
 * Fine-tuning: rows {input, prompt, answer}; rows of one step that have the same input are jobs on one
 * context, compressed once. Shuffling mixes rows, and so tears such rows apart: where compressing is
 * what costs time, shuffle the file by inputs beforehand and set shuffle_documents to 0. An input
 * longer than C, a prompt or an answer over its limit: cut at its end, counted, and the first one warned
 * about; an answer that lost its end gets no eos, which would teach to stop there. Special tokens spelled in texts and rows are
 * plain text; those in the adapter's chat template are meant; an answer ends with
 * the template's end.
 *
 * Determinism: sample number i draws from the stream (seed, i) whatever thread makes it; the state
 * saved with a step is the state right after that step, however far prefetching has run ahead.
 *
 * limit_samples: an endless feed returns after so many samples to the first one, to the same
 * documents, windows and draws; only the contexts' keys go on counting, so that dropout differs. For that
 * the corpus is opened anew, and a shuffle buffer larger than the limit is cut to the limit.
 */
#ifndef ICAE_FEED_H
#define ICAE_FEED_H

#include "icae/json.h"
#include "icae/objective.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_objective {
    ICAE_OBJECTIVE_MIXED,
    ICAE_OBJECTIVE_BOTH,
    ICAE_OBJECTIVE_INSTRUCT, /* fine-tuning rows */
    ICAE_OBJECTIVE_COUNT
} icae_objective;
extern const char *const icae_objective_names[]; /* "mixed", "both", "instruct", NULL */

typedef struct icae_feed_settings {
    const char *const *paths; /* files and folders, see icae/corpus.h */
    size_t n_paths;
    const char *text_field; /* of a JSON line; "text" */
    icae_objective objective;
    double lm_ratio;
    bool has_ae; /* instruct: every context bears its AE job, too */
    bool
        is_evaluation; /* texts: cut for AE as mixed with lm_ratio 0 does, whatever the objective; with
                               both, an LM job beside it, of a short text on a shorter context of its own */
    int64_t context_tokens; /* C */
    int64_t
        first_context; /* the limit grows evenly from this, over grow_samples samples; 0 = is C */
    int64_t grow_samples;
    int64_t least_context;       /* shorter texts are passed over and counted */
    int64_t continuation_tokens; /* O */
    int64_t least_continuation;  /* 64 */
    int64_t skip_for_lm;         /* first targets of a continuation that bear no loss; 8 */
    int64_t prompt_tokens, answer_tokens; /* limits of fine-tuning */
    uint64_t seed;
    int64_t shuffle_documents; /* size of the shuffle buffer; 0 = in order */
    bool is_strict;            /* a broken line is an error, not a counted warning */
    bool is_endless;           /* epoch after epoch; else one pass */
    int64_t prefetch_steps; /* prepared ahead on a thread of its own; 0 = made when asked for */
    int64_t limit_samples;  /* 0 = none; end, or begin again, after so many samples */
} icae_feed_settings;

typedef struct icae_feed_stats {
    int64_t samples, context_tokens; /* a context that several rows share counts once */
    int64_t epochs;                  /* begun after the first: 0 while the first one runs */
    int64_t passed_over; /* texts and inputs that were short or blank, rows that lack a part */
    int64_t cut;         /* prompts, answers or inputs that lost their end */
    int64_t broken_lines;
} icae_feed_stats;

/* One step's samples. Owned by the caller until icae_feed_step_free; self-contained. */
typedef struct icae_feed_step {
    icae_batch batch;      /* coef of every job is 0: the trainer weighs them */
    icae_feed_stats stats; /* totals after this step */
    char *state_json;      /* where to go on after this step */
    icae_arena arena;      /* everything above lives here */
} icae_feed_step;

typedef struct icae_feed icae_feed;

/* The tokenizer and the strings of settings must outlive the feed. Refuses settings out of range, and a
 * tokenizer without eos. adapter: for its chat template, its BOS and its stop id; it must outlive the feed
 * and may be NULL but for fine-tuning. */
icae_status icae_feed_open(icae_feed **feed, const icae_feed_settings *settings,
                           const icae_tokenizer *tokenizer,
                           const icae_adapter_settings *adapter, icae_error *error);
/* Goes on where a saved state says; before the first icae_feed_next only. Refuses a state of other
 * files or settings, and names the first that differs; prefetch_steps and is_strict are free. */
icae_status icae_feed_restore(icae_feed *feed, const icae_json *json,
                              const icae_json_value *state, icae_error *error);
/* Counts on from these instead of from 0; before the first icae_feed_next only. For a run whose data begin anew:
 * what grows and what is drawn by the number of a sample goes on. */
void icae_feed_count_from(icae_feed *feed, const icae_feed_stats *stats);
/* n_samples samples (fine-tuning: rows). *step is NULL at the end of a one-pass feed; the last step of
 * such a feed may have fewer. All calls must ask for the same n_samples. An end or an error is final:
 * every later call gives it again. Prefetching begins with the first call. */
icae_status icae_feed_next(icae_feed *feed, int64_t n_samples, icae_feed_step **step,
                           icae_error *error);
void icae_feed_step_free(icae_feed_step *step);
/* Stops the thread, too, which may first have to finish the step that it is making. */
void icae_feed_close(icae_feed *feed);

#ifdef __cplusplus
}
#endif
#endif
