/* SPDX-License-Identifier: MIT */
/*
 * What a pass over a batch will take in memory, found by going through it without computing.
 *
 * The tape, the ops and the model are run as they are, forward and backward, on a backend whose kernels do
 * nothing and whose buffers are only counted, with the size classes and waiting lists of the pool
 * (icae/memory.h). So no second list says what an op keeps: a change to the ops is a change to the plan.
 * What kernels take for themselves is the one thing that has to be told, in src/learn/rehearsal.c's table.
 *
 * A pass of thirty layers takes milliseconds, whatever the lengths are.
 */
#ifndef ICAE_REHEARSAL_H
#define ICAE_REHEARSAL_H

#include "icae/objective.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_footprint {
    size_t held_bytes; /* the most that is in use at one time, as the pool counts it */
    size_t
        resident_bytes; /* written pages of all buffers, those that wait for their next use too */
} icae_footprint;

/*
 * One forward over `batch`, and the backward where is_recording, as a process that trains `adapter` with
 * the levels and threads of `like` would run it. Only lengths matter: contexts and jobs may leave their
 * ids NULL. Parameters, gradients and the rest of the trained block are not counted, nor is `like` used.
 *
 * Fails when memory for the list of buffers ends, or with the sentence of an op that refuses the batch.
 */
icae_status icae_rehearse(icae_footprint *footprint, const icae_backend *like,
                          const icae_model *model, const icae_adapter *adapter,
                          const icae_batch *batch, icae_compute compute, bool is_recording,
                          bool is_checkpointed, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
