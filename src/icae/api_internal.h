/* SPDX-License-Identifier: MIT */
/* What stands behind icae.h's handles: api.c makes them, api_write.c writes with them. */
#ifndef ICAE_ICAE_API_INTERNAL_H
#define ICAE_ICAE_API_INTERNAL_H

#include "icae.h"
#include "icae/adapter.h"
#include "icae/graph.h"

struct icae_base {
    icae_model *model;
};

struct icae_session {
    const icae_base *base;
    icae_backend *be;
    icae_graph *graph;
    icae_adapter *adapter;
    int64_t refine_steps;
};

#endif
