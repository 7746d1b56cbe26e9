/* SPDX-License-Identifier: MIT */
/*
 * How good an adapter is, on texts it was not trained on; used by `icae eval` and by the trainer.
 *
 *     ae    teacher-forced loss of the text and its eos from its slots; and the text that is written
 *           from the slots alone (greedy), against the original: BLEU-4, exact prefix, tokens in place
 *     lm    loss of what follows a text: from its slots, from the text itself, from neither
 *     ppl   loss of the bare base on a text, in overlapping windows
 *
 * All losses are nats a token, averaged over tokens (long samples weigh more). No BOS is put before
 * anything. Results do not depend on `batch`.
 */
#ifndef ICAE_EVALUATE_H
#define ICAE_EVALUATE_H

#include "icae/generate.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_eval_sample {
    const int32_t *ids; /* the context, n > 0 */
    int64_t n;
    const int32_t *continuation; /* what follows it; for lm */
    int64_t n_continuation;
} icae_eval_sample;

/* After every batch; false stops with ICAE_INTERRUPTED. */
typedef bool icae_eval_progress(void *user, int64_t done, int64_t total);
/* What was written for sample `index` (without eos). */
typedef void icae_eval_restored(void *user, int64_t index, const int32_t *ids, int64_t n,
                                bool is_stopped);

typedef struct icae_eval_options {
    int64_t batch;                /* samples side by side; 0 = 8 */
    bool is_loss_only;            /* ae: no free-running restoration */
    int64_t skip;                 /* lm: first targets of a continuation that are not scored */
    int64_t window, stride;       /* ppl: tokens seen at a time, and how far the window moves */
    icae_eval_progress *progress; /* may be NULL */
    icae_eval_restored *restored; /* may be NULL */
    void *user;
} icae_eval_options;

/* The longest a restoration may get: an eighth and a little more than the original, so that running
 * on behind its end is seen and counted against it. */
int64_t icae_eval_restored_limit(int64_t context_tokens);

typedef struct icae_eval_ae_result {
    int64_t n;              /* samples */
    int64_t context_tokens; /* of all samples */
    int64_t targets;        /* tokens that bear loss: context_tokens + n */
    int64_t slots;          /* of all samples */
    double loss;
    double bleu4;     /* 0-100, sacrebleu's corpus score of the decoded texts */
    double prefix_em; /* 0-1: mean over samples of (exact leading tokens / tokens) */
    double
        token_accuracy; /* 0-1: mean over samples of the share of places with the right token,
                              free-running, over the longer of the two lengths */
    int64_t exact;      /* samples restored to the last token, and ended there */
} icae_eval_ae_result;

icae_status icae_eval_ae(icae_graph *graph, const icae_model *model,
                         const icae_adapter *adapter, const icae_eval_sample *samples,
                         int64_t n_samples, const icae_eval_options *options,
                         icae_eval_ae_result *result, icae_error *error);

typedef struct icae_eval_lm_result {
    int64_t n, context_tokens, targets;
    double loss_slots; /* the continuation behind the slots and the LM token */
    double loss_raw;   /* behind the text itself, no adapter */
    double loss_none;  /* behind nothing: the skipped targets are all it has seen before */
} icae_eval_lm_result;

/* Every sample needs a continuation longer than options->skip (and than 1). The same targets are
 * scored all three times. */
icae_status icae_eval_lm(icae_graph *graph, const icae_model *model,
                         const icae_adapter *adapter, const icae_eval_sample *samples,
                         int64_t n_samples, const icae_eval_options *options,
                         icae_eval_lm_result *result, icae_error *error);

typedef struct icae_eval_ppl_result {
    int64_t n;      /* texts */
    int64_t tokens; /* scored: every token but each text's first, once */
    double loss;    /* ppl = exp(loss) */
} icae_eval_ppl_result;

/* A text longer than the window is read in windows that overlap by window - stride tokens; of each only
 * the tokens that were not scored yet count. */
icae_status icae_eval_ppl(icae_graph *graph, const icae_model *model,
                          const icae_eval_sample *samples, int64_t n_samples,
                          const icae_eval_options *options, icae_eval_ppl_result *result,
                          icae_error *error);

/* A sequence read by the bare base; targets are ids[first .. n-1], first >= 1. */
typedef struct icae_eval_sequence {
    const int32_t *ids;
    int64_t n, first;
} icae_eval_sequence;

/* Negative log-likelihoods under the base, all sequences as one pack: sums [n_sequences], and, if
 * tokens is not NULL, every target's, sequence by sequence. */
icae_status icae_eval_base_nll(icae_graph *graph, const icae_model *model,
                               const icae_eval_sequence *sequences, int64_t n_sequences,
                               double *sums, icae_real *tokens, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
