/* SPDX-License-Identifier: MIT */
/* Keys and values of one sequence that is being written, for all layers; see icae/model.h. */
#include <stdlib.h>

#include "icae/model.h"

icae_status icae_cache_create(icae_cache **out, icae_backend *be,
                              const icae_model_config *config, int64_t capacity,
                              icae_error *error) {
    *out = NULL;
    icae_cache *cache = calloc(1, sizeof *cache);
    if (!cache) return icae_fail_memory(error, "a KV cache");
    *cache = (icae_cache){.be = be,
                          .layers = config->layers,
                          .row = config->kv_heads * config->head_width,
                          .capacity = capacity};
    size_t bytes = (size_t)(cache->layers * capacity * cache->row) * sizeof *cache->keys;
    cache->keys = be->k.acquire(be, bytes);
    cache->values = be->k.acquire(be, bytes);
    if (!cache->keys || !cache->values) {
        icae_cache_free(cache);
        return icae_fail(error, ICAE_MEMORY, "not enough memory for a KV cache of %lld tokens",
                         (long long)capacity);
    }
    *out = cache;
    return ICAE_OK;
}

void icae_cache_free(icae_cache *cache) {
    if (!cache) return;
    cache->be->k.release(cache->be, cache->keys);
    cache->be->k.release(cache->be, cache->values);
    free(cache);
}
