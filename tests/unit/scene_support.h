/* SPDX-License-Identifier: MIT */
/* A short text of several spans, compressed by the golden llama: what the suites about single texts start from. */
#ifndef ICAE_TESTS_SCENE_SUPPORT_H
#define ICAE_TESTS_SCENE_SUPPORT_H

#include "icae/generate.h"
#include "suites.h"

/* Numbers, names, letters beyond ASCII and what HTML has to escape: more than two spans. */
extern const char scene_text[];

typedef struct scene {
    icae_backend *be;
    icae_graph *graph;
    icae_model *model;
    icae_adapter *adapter;
    int32_t *ids;     /* [slots.n_tokens], of scene_text */
    icae_slots slots; /* made from them */
} scene;

/* threads: as for icae_backend_create, 0 for all processors. */
void scene_open(scene *s, int threads);
void scene_close(scene *s);

#endif
