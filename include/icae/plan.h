/* SPDX-License-Identifier: MIT */
/*
 * What a step will cost, known before it runs: tokens, useful work, memory.
 *
 * Useful work is what a step must do at least: 2 FLOP per multiplication and addition; encoder and
 * decoder 2P forward and 2P backward a packed token (frozen weights need no gradient), the head 2VD
 * and 2VD a target row, attention 4 S E a head forward and twice that backward, LoRA 2 forward and 4
 * backward per trained number. Recomputing activations does not count.
 *
 * Memory is counted from what the ops keep for backward (icae/ops.h says it for each). Measured runs
 * stay within a tenth of it.
 */
#ifndef ICAE_PLAN_H
#define ICAE_PLAN_H

#include "icae/objective.h"
#include "icae/settings.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_plan {
    int64_t frozen, trained; /* parameters */
    icae_batch_size step;    /* a step whose samples are all as long as the limits allow */
    icae_batch_size forward; /* its largest micro-batch */
    double work;             /* useful FLOP of such a step */
    size_t weight_bytes;     /* frozen weights, as stored */
    size_t trained_bytes;    /* values, gradients, two moments */
    size_t activation_bytes; /* the most that a forward and backward hold at one time */
    size_t peak_bytes;       /* all of it, with the program itself */
} icae_plan;

double icae_useful_work(const icae_model *model, const icae_adapter *adapter,
                        const icae_batch_size *size);

/* Bytes of all tensors at the worst moment of one forward and backward. bf16 takes work space for the
 * rounded rows of one product; weights are rounded panel by panel and never kept. */
size_t icae_predict_activations(const icae_model *model, const icae_adapter *adapter,
                                const icae_batch_size *size, bool is_checkpointed,
                                icae_compute compute);

icae_status icae_plan_make(icae_plan *plan, const icae_settings *settings,
                           const icae_model *model, const icae_adapter *adapter,
                           icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
