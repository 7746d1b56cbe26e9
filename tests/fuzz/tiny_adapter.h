/* SPDX-License-Identifier: MIT */
/* A sound adapter for fuzzing, made for a base of one layer, four wide, that exists as a struct only. */
#ifndef ICAE_TESTS_FUZZ_TINY_ADAPTER_H
#define ICAE_TESTS_FUZZ_TINY_ADAPTER_H

#include "icae/adapter.h"
#include "icae/backend.h"
#include "icae/log.h"

/* All that an adapter asks of a base. */
static inline icae_model tiny_model(void) {
    static char path[] = "tiny";
    return (icae_model){.config = {.architecture = "llama",
                                   .vocabulary = 5,
                                   .width = 4,
                                   .layers = 1,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_width = 2,
                                   .feed_forward = 6},
                        .fingerprint = 0xba5e,
                        .path = path};
}

static inline icae_adapter *tiny_adapter(const icae_model *model, icae_backend *be,
                                         bool for_training) {
    icae_adapter *adapter;
    icae_error error = {0};
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = 2;
    settings.rank = 1;
    if (icae_adapter_create(&adapter, model, &settings, 1, be, for_training, &error)) abort();
    return adapter;
}

static inline icae_backend *tiny_backend(void) {
    icae_backend *be;
    icae_error error = {0};
    icae_log_set_level(ICAE_LOG_QUIET);
    if (icae_backend_create(&be, "reference", 1, &error)) abort();
    return be;
}

#endif
