/* SPDX-License-Identifier: MIT */
/* What slots in memory (slots.c) and their files (slots_file.c) share. */
#ifndef ICAE_ICAE_SLOTS_INTERNAL_H
#define ICAE_ICAE_SLOTS_INTERNAL_H

#include "icae/slots.h"

/* So that positions, prefix and answer included, stay far inside int32. */
#define ICAE_SLOTS_MOST_TOKENS (INT64_C(1) << 30)

/* Like icae_slots_allocate, with values for n_compressed of the spans: of hostile files, no more than they
 * hold. */
icae_status icae_slots_allocate_compressed(icae_slots *slots, int64_t n_spans,
                                           int64_t n_compressed, int64_t slots_per_span,
                                           int64_t width, icae_error *error);

#endif
