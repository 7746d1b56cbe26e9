/* SPDX-License-Identifier: MIT */
/*
 * The public API over the library's own parts; the contract stands in icae.h. Writing from slots is in
 * api_write.c.
 *
 * A base is a model. A session is a backend, a graph on it and an adapter in its memory. Slots are the
 * library's own struct, on the heap.
 */
#include <stdlib.h>
#include <string.h>

#include "icae/api_internal.h"
#include "icae/generate.h"
#include "icae/refine.h"

const char *icae_version(void) {
    return ICAE_VERSION;
}

/* ---- the base ---- */

icae_status icae_base_open(icae_base **base, const char *path, icae_error *error) {
    *base = NULL;
    icae_base *made = calloc(1, sizeof *made);
    if (!made) return icae_fail_memory(error, "a base");
    icae_status status = icae_model_open(&made->model, path, error);
    if (status) {
        free(made);
        return status;
    }
    *base = made;
    return ICAE_OK;
}

void icae_base_close(icae_base *base) {
    if (!base) return;
    icae_model_close(base->model);
    free(base);
}

icae_base_info icae_base_describe(const icae_base *base) {
    const icae_model *model = base->model;
    return (icae_base_info){.path = model->path,
                            .architecture = model->config.architecture,
                            .file_type = model->file_type,
                            .parameters = model->n_parameters,
                            .layers = model->config.layers,
                            .width = model->config.width,
                            .vocabulary = model->config.vocabulary,
                            .context_length = model->config.context_length,
                            .weight_bytes = model->weight_bytes,
                            .fingerprint = model->fingerprint};
}

/* Text from outside: special tokens in it are plain text. */
static icae_status encode(const icae_base *base, const char *text, size_t bytes, int32_t **ids,
                          int64_t *n, icae_error *error) {
    size_t count = 0;
    icae_status status =
        icae_tokenizer_encode(base->model->tokenizer, text, bytes, false, ids, &count, error);
    *n = status ? 0 : (int64_t)count;
    return status;
}

icae_status icae_base_count_tokens(const icae_base *base, const char *text, size_t bytes,
                                   int64_t *tokens, icae_error *error) {
    int32_t *ids = NULL;
    icae_status status = encode(base, text, bytes, &ids, tokens, error);
    free(ids);
    return status;
}

size_t icae_base_cache_bytes(const icae_base *base, int64_t tokens) {
    return icae_cache_bytes(&base->model->config, tokens);
}

/* ---- a session ---- */

icae_status icae_session_open(icae_session **session, const icae_base *base,
                              const char *adapter, const icae_session_options *options,
                              icae_error *error) {
    *session = NULL;
    if (options && options->n_threads < 0) {
        return icae_fail(error, ICAE_INVALID, "%d threads were asked for; expected 0 or more",
                         options->n_threads);
    }
    if (options && options->refine_steps < 0) {
        return icae_fail(error, ICAE_INVALID,
                         "%lld steps of refinement were asked for; expected 0 or more",
                         (long long)options->refine_steps);
    }
    icae_compute compute = ICAE_COMPUTE_AUTO;
    if (options && options->compute && !icae_compute_from_name(options->compute, &compute)) {
        return icae_fail(error, ICAE_INVALID, "compute '%s': expected f32, bf16 or auto",
                         options->compute);
    }
    if (compute == ICAE_COMPUTE_AUTO) compute = ICAE_COMPUTE_F32;
    icae_session *made = calloc(1, sizeof *made);
    if (!made) return icae_fail_memory(error, "a session");
    made->base = base;
    made->refine_steps = options ? options->refine_steps : 0;
    icae_status status =
        icae_backend_create(&made->be, NULL, options ? options->n_threads : 0, error);
    if (!status) icae_backend_set_compute(made->be, compute);
    if (!status) status = icae_graph_create(&made->graph, made->be, error);
    if (!status) {
        status =
            icae_adapter_load(&made->adapter, adapter, base->model, made->be, false, error);
    }
    if (status) {
        icae_session_close(made);
        return status;
    }
    *session = made;
    return ICAE_OK;
}

void icae_session_close(icae_session *session) {
    if (!session) return;
    if (session->adapter) icae_adapter_free(session->adapter);
    if (session->graph) icae_graph_free(session->graph);
    if (session->be) icae_backend_free(session->be);
    free(session);
}

icae_status icae_session_check_free(const icae_session *session, icae_error *error) {
    if (!session->is_writing) return ICAE_OK;
    return icae_fail(error, ICAE_INVALID,
                     "the session is writing a text, and its callback cannot compress or write "
                     "with it; do so afterwards, or with a session of its own");
}

/* ---- slots ---- */

icae_status icae_session_compress(icae_session *session, const char *text, size_t bytes,
                                  icae_slots **slots, icae_error *error) {
    *slots = NULL;
    icae_status status = icae_session_check_free(session, error);
    if (status) return status;
    if (bytes == 0) {
        return icae_fail(error, ICAE_INVALID,
                         "the text is empty: there is nothing to compress");
    }
    icae_slots *made = calloc(1, sizeof *made);
    const icae_model *model = session->base->model;
    int32_t *ids = NULL;
    status = made ? icae_compress_text(session->graph, model, session->adapter, text, bytes,
                                       NULL, made, &ids, error)
                  : icae_fail_memory(error, "slots");
    if (!status && session->refine_steps > 0) {
        status = icae_refine(session->graph, model, session->adapter, ids,
                             session->refine_steps, NULL, made, NULL, error);
    }
    free(ids);
    if (status) {
        icae_slots_free(made);
        return status;
    }
    *slots = made;
    return ICAE_OK;
}

icae_status icae_session_load_slots(icae_session *session, const char *path, icae_slots **slots,
                                    icae_error *error) {
    *slots = NULL;
    icae_slots *made = calloc(1, sizeof *made);
    if (!made) return icae_fail_memory(error, "slots");
    icae_status status =
        icae_slots_load(made, path, session->base->model, session->adapter, error);
    if (status) {
        icae_slots_free(made);
        return status;
    }
    *slots = made;
    return ICAE_OK;
}

icae_slots_info icae_slots_describe(const icae_slots *slots) {
    int64_t rows = icae_slots_vectors(slots);
    return (icae_slots_info){.source_tokens = slots->n_tokens,
                             .source_bytes = slots->source_bytes,
                             .spans = slots->n_spans,
                             .slots = rows,
                             .raw_spans = slots->n_raw,
                             .raw_tokens = icae_slots_raw_tokens(slots),
                             .width = slots->width,
                             .value_bytes =
                                 (size_t)rows * (size_t)slots->width * sizeof(float)};
}

void icae_slots_free(icae_slots *slots) {
    if (!slots) return;
    icae_slots_release(slots);
    free(slots);
}
