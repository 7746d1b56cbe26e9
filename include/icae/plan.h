/* SPDX-License-Identifier: MIT */
/*
 * What a step will cost, known before it runs: tokens, useful work, memory.
 *
 * Useful work is what a step must do at least: 2 FLOP per multiplication and addition; encoder and
 * decoder 2P forward and 2P backward a packed token (frozen weights need no gradient), the head 2VD
 * and 2VD a target row, attention 4 S E a head forward and twice that backward, LoRA 2 forward and 4
 * backward per trained number. Recomputing activations does not count.
 *
 * Memory is what the process will have in use at its worst moment (peak RSS, the base's mapped file
 * included), the sum of a table's rows (icae_memory_part). What tensors take is found by rehearsal
 * (icae/rehearsal.h), the rest is counted or was measured; measured runs stay within a tenth of it.
 */
#ifndef ICAE_PLAN_H
#define ICAE_PLAN_H

#include "icae/objective.h"
#include "icae/settings.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What memory goes to, and what is said of it. */
#define ICAE_MEMORY_LIST(X)                                                                    \
    X(WEIGHTS, "frozen weights, mapped")                                                       \
    X(COPIES, "rows of q and k in our order, norms")                                           \
    X(TOKENIZER, "tokenizer")                                                                  \
    X(TRAINED, "values, gradients, two moments")                                               \
    X(ACTIVATIONS, "tensors of a step, or of an evaluation")                                   \
    X(SAVING, "the adapter on its way to the disk")                                            \
    X(TEXTS, "texts in the shuffle buffer")                                                    \
    X(PROCESS, "program, libraries, threads")

typedef enum icae_memory_part {
#define ICAE_MEMORY_ENUM(name, what) ICAE_MEMORY_##name,
    ICAE_MEMORY_LIST(ICAE_MEMORY_ENUM)
#undef ICAE_MEMORY_ENUM
        ICAE_MEMORY_COUNT
} icae_memory_part;
extern const char *const icae_memory_names[]; /* what the list says; NULL at the end */

typedef struct icae_plan {
    int64_t frozen, trained; /* parameters */
    icae_batch_size step;    /* a step whose samples are all as long as the limits allow */
    icae_batch_size forward; /* its largest micro-batch */
    int64_t micro_batch;     /* samples in that: train.micro_batch, or what 0 stands for */
    int64_t pass_tokens;     /* for 0: rows of encoder or decoder that a pass has at most */
    int64_t positions;       /* that the decoder of the longest sample comes to */
    double work;             /* useful FLOP of such a step */
    size_t memory[ICAE_MEMORY_COUNT];
    size_t
        held_bytes; /* the most that tensors of a step hold at one time; the pool keeps some more */
    size_t peak_bytes; /* all of memory */
} icae_plan;

double icae_useful_work(const icae_model *model, const icae_adapter *adapter,
                        const icae_batch_size *size);

/* What a run with these settings will cost on this backend. */
icae_status icae_plan_make(icae_plan *plan, const icae_settings *settings,
                           const icae_backend *be, const icae_model *model,
                           const icae_adapter *adapter, icae_error *error);

/*
 * The same, and where settings->memory_budget is not 0 it sets train.micro_batch and train.checkpointing,
 * those of the two that were not given, so that peak_bytes fits: nothing recomputed and passes as without a
 * budget (icae_pass_limit); else the largest micro-batch (of equal ones) that needs no recomputation; else the largest
 * with it. Fails with the least that would do when nothing fits.
 */
icae_status icae_plan_fit(icae_plan *plan, icae_settings *settings, const icae_backend *be,
                          const icae_model *model, const icae_adapter *adapter,
                          icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
