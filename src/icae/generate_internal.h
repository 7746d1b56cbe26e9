/* SPDX-License-Identifier: MIT */
/* What compress.c and generate.c share. */
#ifndef ICAE_ICAE_GENERATE_INTERNAL_H
#define ICAE_ICAE_GENERATE_INTERNAL_H

#include "icae/generate.h"

/* A base or an adapter with broken numbers shows itself here, where its first result appears: values [n] that
 * are not all finite are ICAE_FORMAT. `what` in the plural. */
icae_status icae_check_finite(const icae_real *values, int64_t n, const char *what,
                              const icae_model *model, icae_error *error);

#endif
