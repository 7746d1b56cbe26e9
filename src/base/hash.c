/* SPDX-License-Identifier: MIT */
/* Hashes of whole files; see icae/rng.h. */
#include "icae/file.h"
#include "icae/rng.h"

icae_status icae_hash_file(const char *path, uint64_t *hash, size_t *bytes, icae_error *error) {
    icae_mapping mapping;
    icae_status status = icae_mapping_open(&mapping, path, error);
    if (status) return status;
    *bytes = mapping.bytes;
    *hash = icae_hash64(mapping.data, mapping.bytes, 0);
    icae_mapping_close(&mapping);
    return ICAE_OK;
}
