/* SPDX-License-Identifier: MIT */
/*
 * The in-context autoencoder itself: contexts -> slots -> loss, for a batch of any mix of lengths.
 *
 * All spans of all contexts go through the encoder as one pack, all decoder sequences through the
 * frozen base as another. A context is compressed once, however many decoder jobs read it.
 *
 *     encoder   e(w_1..w_n), m_1..m_k           with LoRA; slots = final hidden states at m, or what
 *               icae_slot_values makes of them
 *     AE        slots, AE, w_1..w_L -> w_1..w_L, eos
 *     LM        slots, LM, o_1..    -> o, without its first `skip` targets
 *     FT        prefix, slots, FT, prompt, answer -> answer, eos
 * The adapter's settings may close the prompt with FT once more, and leave out LM (icae/adapter.h).
 * Source: Ge et al., arXiv 2307.06945, sections 2.2-2.4.
 */
#ifndef ICAE_OBJECTIVE_H
#define ICAE_OBJECTIVE_H

#include "icae/adapter.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_context {
    const int32_t *ids;
    int64_t n;
    uint64_t
        key; /* names the sample for dropout, so that its mask does not depend on the batch */
} icae_context;

typedef struct icae_job {
    int64_t context; /* index of the context whose slots it reads */
    icae_task task;
    const int32_t *prefix, *prompt, *target;
    int64_t n_prefix, n_prompt, n_target;
    int64_t skip;   /* the first targets that bear no loss */
    icae_real coef; /* weight of every target's negative log-likelihood in the loss */
} icae_job;

typedef struct icae_batch {
    const icae_context *contexts;
    int64_t n_contexts;
    const icae_job *jobs;
    int64_t n_jobs;
} icae_batch;

typedef struct icae_run {
    bool is_training;     /* dropout on */
    bool is_checkpointed; /* recompute blocks in backward */
    uint64_t seed;        /* of this step's dropout */
} icae_run;

/* Packed tokens that a batch costs, for planning: encoder rows, decoder rows, rows with loss. */
typedef struct icae_batch_size {
    int64_t encoder_tokens, decoder_tokens, targets, context_tokens;
    double
        attention_products; /* sum over sequences of length^2 / 2: scores to compute, per head */
} icae_batch_size;
icae_batch_size icae_batch_measure(const icae_adapter *adapter, const icae_batch *batch);

/*
 * A batch goes through in passes, whose gradients add up: as many samples in each as keep products at full
 * speed, for what tensors take grows with a pass and not with the batch.
 *
 *   limit    the most rows of encoder or decoder in a pass, when its longest sample has `longest` of them
 *   end      where the pass that begins at job `first` ends: before the sample that would go beyond limit, but
 *            behind one at least. Jobs are in the order of their contexts. by_job: jobs of one context may part.
 *   part     those jobs, copied into the graph's arena, and their contexts as a batch of their own; returns the
 *            copies, whose weights may be set, or NULL when memory ends
 */
int64_t icae_pass_limit(int64_t longest);
int64_t icae_pass_end(const icae_adapter *adapter, const icae_batch *batch, int64_t first,
                      int64_t limit, bool by_job);
icae_job *icae_batch_part(icae_graph *graph, const icae_batch *batch, int64_t first,
                          int64_t end, icae_batch *part);

/* The slots of all contexts, context by context, [sum of spans * k, D]; first_rows [n_contexts + 1]
 * receives where each context's begin. Gradient flows to LoRA and the memory table. */
icae_tensor *icae_encode(icae_graph *graph, const icae_model *model,
                         const icae_adapter *adapter, const icae_context *contexts,
                         int64_t n_contexts, const icae_run *run, int64_t *first_rows);

/*
 * Loss of a batch: sum over jobs and targets of coef * nll. job_nll [n_jobs] (may be NULL) receives
 * each job's sum of nll over its bearing targets, in nats, whatever coef is; token_nll (may be NULL)
 * every bearing target's nll, job by job.
 */
icae_tensor *icae_batch_loss(icae_graph *graph, const icae_model *model,
                             const icae_adapter *adapter, const icae_batch *batch,
                             const icae_run *run, double *job_nll, icae_real *token_nll);

/* The second half of it, on slots that are there already: rows [sum of spans * k, D], each context's from
 * first_rows[context] on, as icae_encode gives them. Of a context only n is read. Gradient flows to slots and
 * to the memory table. */
icae_tensor *icae_decode_loss(icae_graph *graph, const icae_model *model,
                              const icae_adapter *adapter, const icae_batch *batch,
                              icae_tensor *slots, const int64_t *first_rows,
                              const icae_run *run, double *job_nll, icae_real *token_nll);

/* Targets of a job that bear loss. */
int64_t icae_job_bearing(const icae_job *job);

#ifdef __cplusplus
}
#endif
#endif
