/* SPDX-License-Identifier: MIT */
/*
 * AdamW over the one trainable block, clipping by the global norm, and learning-rate schedules.
 *
 * A schedule is a pure function of the step, so a resumed run needs none of its history. The moments
 * live in icae_params; the only state beside them is the number of updates made.
 * Source: Loshchilov and Hutter, arXiv 1711.05101.
 */
#ifndef ICAE_OPTIMIZER_H
#define ICAE_OPTIMIZER_H

#include "icae/params.h"
#include "icae/settings.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The rate of step `step` (0-based) of a run of `steps`:
 *
 *     step < warmup    lr (step + 1) / warmup
 *     constant         lr
 *     cosine           lr (f + (1 - f) (1 + cos(pi t)) / 2),   t = (step - warmup) / (steps - warmup)
 *     linear           lr (f + (1 - f) (1 - t))
 *
 * with f = final_fraction. Beyond the last step t stays 1.
 */
double icae_schedule_rate(icae_schedule schedule, double lr, int64_t warmup, int64_t steps,
                          double final_fraction, int64_t step);

typedef struct icae_optimizer {
    double beta1, beta2, eps, weight_decay;
    double clip_norm; /* 0: none */
    int64_t updates;  /* made so far */
} icae_optimizer;

typedef struct icae_update {
    double norm;     /* of all gradients together, before clipping */
    bool is_clipped; /* the norm was larger than clip_norm */
    bool is_applied; /* false: the norm is NaN or infinite, and nothing was touched */
} icae_update;

/* One update of all parameters by their gradients; decay applies to every one of them, the memory
 * table included. Gradients are left as they are. */
icae_update icae_optimizer_step(icae_optimizer *optimizer, icae_params *params, double lr);

#ifdef __cplusplus
}
#endif
#endif
