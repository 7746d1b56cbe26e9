/* SPDX-License-Identifier: MIT */
/* The hash of a file's bytes; see icae/rng.h. */
#include "icae/file.h"
#include "icae/rng.h"

/* In windows that are let go of: hashing a checkpoint must not need memory beside training's. */
icae_status icae_hash_file(const char *path, uint64_t *hash, size_t *bytes, icae_error *error) {
    static const size_t window = 1u << 20;
    icae_mapping mapping;
    icae_status status = icae_mapping_open(&mapping, path, error);
    if (status) return status;
    *bytes = mapping.bytes;
    *hash = icae_mix64(0, mapping.bytes);
    for (size_t at = 0; at < mapping.bytes; at += window) {
        size_t left = mapping.bytes - at;
        *hash = icae_hash64_more((const char *)mapping.data + at, left < window ? left : window,
                                 *hash);
        icae_mapping_pass(&mapping, at + window);
    }
    icae_mapping_close(&mapping);
    return ICAE_OK;
}
