/* SPDX-License-Identifier: MIT */
/* GGUF files made byte by byte: what the suites of the reader build whole and broken ones from. */
#ifndef ICAE_TESTS_GGUF_SUPPORT_H
#define ICAE_TESTS_GGUF_SUPPORT_H

#include "icae/text.h"

void put_u32(icae_text *out, uint32_t value);
void put_u64(icae_text *out, uint64_t value);
/* Its length in 64 bits, then its bytes. */
void put_string(icae_text *out, const char *string);
void put_header(icae_text *out, uint32_t version, uint64_t tensors, uint64_t items);
void put_item_u32(icae_text *out, const char *key, uint32_t value);
/* dims: the fastest axis first, as in the file. */
void put_tensor(icae_text *out, const char *name, uint32_t rank, const uint64_t *dims,
                uint32_t type, uint64_t offset);
void put_padding(icae_text *out, size_t alignment);

/* folder/x.gguf with these bytes, which are released. */
const char *stored_gguf(const char *folder, icae_text *bytes);
/* One of every type of value, then arrays of three kinds; two tensors. */
icae_text good_gguf(uint32_t version);

#endif
