/* SPDX-License-Identifier: MIT */
/* See scene_support.h. */
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "scene_support.h"

const char scene_text[] =
    "The ship <Anna> came to Malmö in 1912 & left. 日本 saw it in May, for 3.50 "
    "a ton; nobody else did, and the captain Olaf never came back to tell.";

void scene_open(scene *s, int threads) {
    icae_error error = {0};
    *s = (scene){0};
    ck_ok(icae_backend_create(&s->be, NULL, threads, &error));
    ck_ok(icae_graph_create(&s->graph, s->be, &error));
    ck_ok(icae_model_open(&s->model, TINY_BASE, &error));
    ck_ok(icae_adapter_load(&s->adapter, TINY_ADAPTER, s->model, s->be, false, &error));
    ck_ok(icae_compress_text(s->graph, s->model, s->adapter, scene_text, strlen(scene_text),
                             NULL, &s->slots, &s->ids, &error));
    ck_assert_int_gt(s->slots.n_spans, 2);
}

void scene_close(scene *s) {
    icae_slots_release(&s->slots);
    free(s->ids);
    icae_graph_free(s->graph);
    icae_adapter_free(s->adapter);
    icae_model_close(s->model);
    icae_backend_free(s->be); /* asserts that all buffers came back */
}
