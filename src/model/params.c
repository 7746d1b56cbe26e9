/* SPDX-License-Identifier: MIT */
/*
 * The block of trained numbers; the contract stands in icae/params.h.
 *
 * Names and shapes are on the host, the four arrays are memory of the backend. Parameters lie in the
 * block in the order in which they were added, without gaps.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "icae/params.h"

static bool count_of(int rank, const int64_t *shape, int64_t *count) {
    size_t product = 1, bytes;
    for (int i = 0; i < rank; i++) {
        assert(shape[i] >= 0);
        if (!icae_size_mul(product, (size_t)shape[i], &product)) return false;
    }
    *count = (int64_t)product;
    return product <= INT64_MAX && icae_size_mul(product, sizeof(icae_real), &bytes);
}

int icae_params_add(icae_params *params, const char *name, int rank, const int64_t *shape) {
    assert(!params->values && "parameters are added before icae_params_allocate");
    assert(rank >= 1 && rank <= ICAE_MAX_RANK && strlen(name) < sizeof params->list->name);
    int64_t count;
    if (!count_of(rank, shape, &count) || count > INT64_MAX - params->count) return -1;
    if (params->n_params == params->capacity) {
        int larger = params->capacity ? 2 * params->capacity : 64;
        icae_param *moved = realloc(params->list, (size_t)larger * sizeof *moved);
        if (!moved) return -1;
        params->list = moved;
        params->capacity = larger;
    }
    icae_param *param = &params->list[params->n_params];
    *param = (icae_param){.rank = rank, .offset = params->count, .count = count};
    memcpy(param->name, name, strlen(name) + 1);
    memcpy(param->shape, shape, (size_t)rank * sizeof *shape);
    params->count += count;
    return params->n_params++;
}

static icae_real *zeroed_array(icae_backend *be, size_t bytes) {
    icae_real *array = be->k.acquire(be, bytes);
    if (array) be->k.zero(be, array, bytes);
    return array;
}

static void release_arrays(icae_params *params) {
    icae_real **arrays[] = {&params->values, &params->gradients, &params->moment1,
                            &params->moment2};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        if (*arrays[i]) params->be->k.release(params->be, *arrays[i]);
        *arrays[i] = NULL;
    }
}

icae_status icae_params_allocate(icae_params *params, icae_backend *be, bool for_training,
                                 icae_error *error) {
    assert(!params->values && params->n_params > 0);
    size_t bytes;
    if (!icae_size_mul((size_t)params->count, sizeof(icae_real), &bytes))
        return icae_fail_memory(error, "the trained parameters");
    params->be = be;
    icae_real **arrays[] = {&params->values, &params->gradients, &params->moment1,
                            &params->moment2};
    for (int i = 0; i < (for_training ? 4 : 1); i++) {
        *arrays[i] = zeroed_array(be, bytes);
        if (*arrays[i]) continue;
        release_arrays(params);
        return icae_fail(error, ICAE_MEMORY,
                         "not enough memory for %lld trained parameters%s: %d arrays of %zu "
                         "bytes; take a smaller LoRA rank or fewer target modules",
                         (long long)params->count,
                         for_training ? " with gradients and moments" : "",
                         for_training ? 4 : 1, bytes);
    }
    for (int i = 0; i < params->n_params; i++) {
        icae_param *param = &params->list[i];
        icae_real *gradient = for_training ? params->gradients + param->offset : NULL;
        param->tensor = icae_leaf(ICAE_DTYPE_REAL, param->rank, param->shape,
                                  params->values + param->offset, gradient);
    }
    return ICAE_OK;
}

void icae_params_release(icae_params *params) {
    release_arrays(params);
    free(params->list);
    *params = (icae_params){0};
}

const icae_param *icae_params_find(const icae_params *params, const char *name) {
    for (int i = 0; i < params->n_params; i++) {
        if (!strcmp(params->list[i].name, name)) return &params->list[i];
    }
    return NULL;
}

void icae_params_zero_gradients(icae_params *params) {
    if (!params->gradients) return;
    size_t bytes = (size_t)params->count * sizeof *params->gradients;
    params->be->k.zero(params->be, params->gradients, bytes);
}
