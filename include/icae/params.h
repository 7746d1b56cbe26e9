/* SPDX-License-Identifier: MIT */
/*
 * Everything that is trained, as one block.
 *
 * Values, gradients and the two AdamW moments are four contiguous arrays of the same length; a table
 * of names lies on top. Clipping is one norm, the optimizer one loop, a checkpoint one write.
 *
 *     add ... add, allocate, then use params->list[i].tensor in graphs
 */
#ifndef ICAE_PARAMS_H
#define ICAE_PARAMS_H

#include "icae/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_param {
    char name[128]; /* as in PEFT files, e.g. "model.layers.0.self_attn.q_proj.lora_A" */
    int rank;
    int64_t shape[ICAE_MAX_RANK];
    int64_t offset, count; /* in the block */
    icae_tensor tensor;    /* a leaf over the block, after allocate */
} icae_param;

typedef struct icae_params {
    icae_backend *be;
    icae_param *list;
    int n_params, capacity;
    int64_t count; /* numbers in the block */
    icae_real *values;
    icae_real *gradients, *moment1, *moment2; /* NULL when made for inference */
} icae_params;

/* Appends a parameter; its index, or -1 when memory ends. Not after allocate. */
int icae_params_add(icae_params *params, const char *name, int rank, const int64_t *shape);
/* Zeroed arrays; for_training also gradients and moments. */
icae_status icae_params_allocate(icae_params *params, icae_backend *be, bool for_training,
                                 icae_error *error);
void icae_params_release(icae_params *params);
const icae_param *icae_params_find(const icae_params *params, const char *name);
void icae_params_zero_gradients(icae_params *params);

#ifdef __cplusplus
}
#endif
#endif
