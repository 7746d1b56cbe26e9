/* SPDX-License-Identifier: MIT */
/*
 * Slots as input embeddings for other engines; see icae/exchange.h.
 *
 * The rows are those that icae_generate feeds first: the slots as they are, then the row of the memory table
 * that names the task. What must follow is the engine's own: the embedding of each new token, at position
 * next_position, next_position + 1, ... With layout "uniform" positions have gaps, and for task AE they begin
 * again at 0 behind the slots; an engine that masks by position, or counts by itself, cannot read them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/adapter_internal.h"
#include "icae/torch_write.h"

typedef struct rows {
    int64_t n, width;
    void *values;       /* [n,D] in the wanted type */
    int32_t *positions; /* [n+1]: also that of the first new token */
} rows;

static void release(rows *r) {
    free(r->values);
    free(r->positions);
}

static icae_status make_rows(rows *r, const icae_slots *slots, const char *path,
                             const icae_adapter *adapter, icae_task task, icae_dtype dtype,
                             icae_error *error) {
    int64_t n_slots = icae_slots_vectors(slots), D = slots->width;
    const int64_t n_task = icae_adapter_task_tokens(&adapter->settings, task); /* 0 or 1 */
    *r = (rows){.n = n_slots + n_task, .width = D};
    if (task != ICAE_TASK_AE && task != ICAE_TASK_LM) {
        return icae_fail(error, ICAE_INVALID,
                         "%s: the task %s asks with a prompt, which these rows do not hold; "
                         "expected ae or lm",
                         path, icae_task_names[task]);
    }
    if (slots->n_raw) {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: %" PRId64
                         " spans are kept as text, which has no vectors to write; "
                         "compress the text without --min-fidelity",
                         path, slots->n_raw);
    }
    float *values = icae_aligned_calloc((size_t)r->n * (size_t)D, sizeof *values);
    r->values = values ? calloc((size_t)r->n * (size_t)D, sizeof(float)) : NULL;
    r->positions = calloc((size_t)r->n + 1, sizeof *r->positions);
    icae_status status = ICAE_OK;
    if (!r->values || !r->positions) {
        status = icae_fail_memory(error, path);
    } else {
        const icae_param *table = &adapter->params.list[adapter->params.n_params - 1];
        int64_t row = adapter->settings.memory_slots + (int64_t)task;
        memcpy(values, slots->values, (size_t)(n_slots * D) * sizeof *values);
        icae_adapter_get(adapter, table, row * D, n_task * D, values + n_slots * D);
        icae_decoder_positions(adapter->settings.layout, task, 0, slots->n_spans,
                               slots->span_lengths, NULL, slots->slots_per_span, n_task + 1,
                               r->positions);
        if (!icae_narrow(dtype, values, r->n * D, r->values)) {
            status = icae_fail(error, ICAE_INVALID,
                               "%s: a slot holds a number that is too large for %s; take "
                               "another type",
                               path, icae_dtype_describe(dtype)->name);
        }
    }
    icae_aligned_free(values);
    return status;
}

static icae_status write_embeds(const rows *r, const char *path, const icae_slots *slots,
                                const icae_model *model, const icae_adapter *adapter,
                                icae_task task, icae_dtype dtype, icae_error *error) {
    int32_t stop = icae_adapter_stop(&adapter->settings, model->tokenizer);
    char next[24], stop_token[24], tokens[24], prints[2][24];
    snprintf(next, sizeof next, "%" PRId32, r->positions[r->n]);
    snprintf(stop_token, sizeof stop_token, "%" PRId32, stop);
    snprintf(tokens, sizeof tokens, "%" PRId64, slots->n_tokens);
    snprintf(prints[0], sizeof prints[0], "%016" PRIx64, slots->base_fingerprint);
    snprintf(prints[1], sizeof prints[1], "%016" PRIx64, slots->adapter_fingerprint);
    const char *const metadata[] = {
        "format",        "icae-embeds",
        "version",       "1",
        "task",          icae_task_names[task],
        "layout",        icae_layout_names[adapter->settings.layout],
        "next_position", next,
        "stop_token",    stop_token,
        "source_tokens", tokens,
        "base",          prints[0],
        "adapter",       prints[1],
    };
    float *positions = calloc((size_t)r->n, sizeof *positions);
    if (!positions) return icae_fail_memory(error, path);
    for (int64_t i = 0; i < r->n; i++)
        positions[i] = (float)r->positions[i];
    const icae_safetensors_source sources[] = {
        {.name = "inputs_embeds",
         .dtype = dtype,
         .rank = 2,
         .shape = {r->n, r->width},
         .data = r->values},
        {.name = "position_ids",
         .dtype = ICAE_DTYPE_F32,
         .rank = 1,
         .shape = {r->n},
         .data = positions},
    };
    icae_status status = icae_safetensors_write(
        path, sources, 2, metadata, sizeof metadata / sizeof metadata[0] / 2, error);
    free(positions);
    return status;
}

icae_status icae_slots_export_embeds(const icae_slots *slots, const char *path,
                                     const icae_model *model, const icae_adapter *adapter,
                                     icae_task task, icae_dtype dtype, icae_error *error) {
    rows r;
    icae_status status = make_rows(&r, slots, path, adapter, task, dtype, error);
    /* Positions are floats in the file: safetensors' integers are none of the types this library has. */
    if (!status && r.positions[r.n] > 1 << 24) {
        status = icae_fail(error, ICAE_INVALID, "%s: positions above %d cannot be written",
                           path, 1 << 24);
    }
    if (!status) status = write_embeds(&r, path, slots, model, adapter, task, dtype, error);
    release(&r);
    return status;
}

icae_status icae_slots_export_torch(const icae_slots *slots, const char *path,
                                    const icae_adapter *adapter, icae_task task,
                                    icae_dtype dtype, icae_error *error) {
    rows r;
    icae_status status = make_rows(&r, slots, path, adapter, task, dtype, error);
    for (int64_t i = 0; i <= r.n && !status; i++) {
        if (r.positions[i] == (int32_t)i) continue;
        status = icae_fail(error, ICAE_UNSUPPORTED,
                           "%s: a torch tensor has no place for positions, and the layout "
                           "%s of %s needs them; export safetensors (--to embeds), or train "
                           "with layout append",
                           path, icae_layout_names[adapter->settings.layout],
                           adapter->path ? adapter->path : "this adapter");
    }
    if (!status) status = icae_torch_write(path, dtype, r.n, r.width, r.values, error);
    release(&r);
    return status;
}
