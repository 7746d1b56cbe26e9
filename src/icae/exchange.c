/* SPDX-License-Identifier: MIT */
/*
 * The memory table as a file that travels with a foreign LoRA; see icae/exchange.h.
 *
 * A PEFT folder and a GGUF LoRA say rank, alpha and targets. What they cannot say stands in the metadata of
 * memory.safetensors, under the key "icae": the settings, written and read by the code of icae.json, so that
 * none is forgotten here. Fingerprints are left out: rounding to 16 bits changes the adapter's, and the same
 * base has another in another file. A table that another program made has no such key; then the caller must
 * say what is needed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/adapter_internal.h"

static const char tensor_name[] = "memory_token_embed.weight", settings_key[] = "icae";

icae_status icae_adapter_write_memory(const icae_adapter *adapter, const char *path,
                                      icae_dtype dtype, icae_error *error) {
    icae_text json = {0};
    icae_adapter_write_settings(adapter, &json);
    if (!json.failed) json.length -= strlen(",\n");
    icae_text_append_string(&json, "\n}\n");
    const char *const metadata[] = {"format", "pt", settings_key, icae_text_string(&json)};
    int table = adapter->params.n_params - 1;
    icae_status status = json.failed
                             ? icae_fail_memory(error, path)
                             : icae_adapter_write_tensors(adapter, table, table + 1, path,
                                                          dtype, metadata, 2, error);
    icae_text_release(&json);
    return status;
}

/* ---- reading the settings back ---- */

typedef struct importer {
    const icae_import *given;
    const char *from;
    const icae_model *model;
    icae_safetensors file;
    icae_adapter_settings *settings;
    icae_error *error;
} importer;

/* The table's rows decide; what the settings or the caller say must agree. */
static icae_status check_slots(const importer *in, int64_t said) {
    const icae_safetensors_entry *table = icae_safetensors_find(&in->file, tensor_name);
    if (!table || table->rank != 2 || table->shape[0] <= ICAE_TASK_COUNT) {
        return icae_fail(in->error, ICAE_FORMAT,
                         "%s: expected a tensor %s [k+%d, D]: the memory tokens, then the AE, "
                         "LM and FT tokens",
                         in->file.mapping.path, tensor_name, ICAE_TASK_COUNT);
    }
    int64_t rows = table->shape[0] - ICAE_TASK_COUNT;
    if (in->given->memory_slots) said = in->given->memory_slots;
    if (said && said != rows) {
        return icae_fail(in->error, ICAE_MISMATCH,
                         "%s: has %" PRId64 " rows, so %" PRId64 " memory slots and %d tasks, "
                         "but %" PRId64 " slots are asked for",
                         in->file.mapping.path, rows + ICAE_TASK_COUNT, rows, ICAE_TASK_COUNT,
                         said);
    }
    in->settings->memory_slots = rows;
    return ICAE_OK;
}

static icae_status read_settings(const importer *in, const char *json) {
    char *name;
    if (asprintf(&name, "%s: metadata %s", in->file.mapping.path, settings_key) < 0)
        return icae_fail_memory(in->error, in->from);
    icae_status status =
        icae_adapter_read_settings(json, name, in->model, in->settings, in->error);
    free(name);
    return status;
}

static icae_status read_all(const importer *in) {
    const icae_import *given = in->given;
    icae_adapter_settings *settings = in->settings;
    const char *json = icae_safetensors_metadata(&in->file, settings_key);
    icae_status status = json ? read_settings(in, json) : ICAE_OK;
    if (!status) status = check_slots(in, json ? settings->memory_slots : 0);
    if (status) return status;
    if (!json && (!given->compression_rate || given->layout < 0)) {
        return icae_fail(in->error, ICAE_INVALID,
                         "%s: neither it nor %s says how the adapter was trained; pass --rate "
                         "(tokens a memory slot) and --layout (uniform or append)",
                         in->from, in->file.mapping.path);
    }
    if (json && given->layout >= 0 && (int)settings->layout != given->layout) {
        return icae_fail(in->error, ICAE_MISMATCH,
                         "%s: was trained with layout %s, but %s is asked for; leave it out",
                         in->file.mapping.path, icae_layout_names[settings->layout],
                         icae_layout_names[given->layout]);
    }
    if (given->layout >= 0) settings->layout = (icae_layout)given->layout;
    if (given->compression_rate) settings->compression_rate = given->compression_rate;
    return ICAE_OK;
}

icae_status icae_adapter_import_settings(const icae_import *given, const char *from,
                                         const char *memory_path, const icae_model *model,
                                         icae_adapter_settings *settings, icae_error *error) {
    if (!icae_path_exists(memory_path)) {
        return icae_fail(error, ICAE_IO,
                         "%s: is a LoRA without memory tokens (there is no %s); pass --memory "
                         "with a safetensors file that holds %s [k+%d, D]",
                         from, memory_path, tensor_name, ICAE_TASK_COUNT);
    }
    importer in = {
        .given = given, .from = from, .model = model, .settings = settings, .error = error};
    icae_status status = icae_safetensors_open(&in.file, memory_path, error);
    if (status) return status;
    status = read_all(&in);
    icae_safetensors_close(&in.file);
    return status;
}
