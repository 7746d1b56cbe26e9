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
    bool is_writing; /* a generation is under way, and its callback may be what calls */
};

/* Refuses to begin while a generation of the session is under way: the graph has its work memory. */
icae_status icae_session_check_free(const icae_session *session, icae_error *error);

#endif
