/* SPDX-License-Identifier: MIT */
/* What making and loading an adapter share. */
#ifndef ICAE_ADAPTER_INTERNAL_H
#define ICAE_ADAPTER_INTERNAL_H

#include "icae/adapter.h"
#include "icae/json.h"

enum {
    ICAE_ADAPTER_MOST_SLOTS = 65536,
    ICAE_ADAPTER_MOST_RATE = 65536,
    ICAE_ADAPTER_MOST_RANK = 65536
};

/* Names the first setting that is out of range; `where` comes first: a file, or "adapter settings". */
icae_status icae_adapter_check(const icae_adapter_settings *settings, const char *where,
                               icae_error *error);
/* An adapter with all its parameters, every value 0. Settings are checked already. */
icae_status icae_adapter_allocate(icae_adapter **adapter, const icae_model *model,
                                  const icae_adapter_settings *settings, icae_backend *be,
                                  bool for_training, icae_error *error);

/* Values of a parameter, first.. of count, between the device and floats on the host. */
void icae_adapter_get(const icae_adapter *adapter, const icae_param *param, int64_t first,
                      int64_t count, float *out);
void icae_adapter_set(icae_adapter *adapter, const icae_param *param, int64_t first,
                      int64_t count, const float *values);

/* A parsed value as JSON text again, in one spelling. */
void icae_adapter_write_json(icae_text *out, const icae_json_value *value);

#endif
