/* SPDX-License-Identifier: MIT */
/* See engine.h. */
#include "engine.h"

icae_status engine_open(engine *e, const options *given, icae_error *error) {
    *e = (engine){0};
    icae_status status = icae_backend_create(&e->be, NULL, (int)given->threads, error);
    icae_compute compute = ICAE_COMPUTE_AUTO;
    if (!status && given->compute) icae_compute_from_name(given->compute, &compute);
    if (compute == ICAE_COMPUTE_AUTO) compute = ICAE_COMPUTE_F32;
    if (!status) icae_backend_set_compute(e->be, compute);
    if (!status) status = icae_graph_create(&e->graph, e->be, error);
    if (!status && given->base) status = icae_model_open(&e->model, given->base, error);
    if (!status && e->model && given->adapter) {
        status = icae_adapter_load(&e->adapter, given->adapter, e->model, e->be, false, error);
    }
    return status;
}

void engine_close(engine *e) {
    if (e->adapter) icae_adapter_free(e->adapter);
    if (e->model) icae_model_close(e->model);
    if (e->graph) icae_graph_free(e->graph);
    if (e->be) icae_backend_free(e->be);
    *e = (engine){0};
}
