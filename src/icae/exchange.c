/* SPDX-License-Identifier: MIT */
/*
 * The memory table as a file that travels with a foreign LoRA; see icae/exchange.h.
 *
 * A PEFT folder and a GGUF LoRA say rank, alpha and targets. What they cannot say (slots, rate, layout, chat
 * texts) stands in the metadata of memory.safetensors, as strings under the keys of icae.json. A table that
 * another program made has no such metadata; then the caller must say it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/adapter_internal.h"

static const char tensor_name[] = "memory_token_embed.weight";

icae_status icae_adapter_write_memory(const icae_adapter *adapter, const char *path,
                                      icae_dtype dtype, icae_error *error) {
    const icae_adapter_settings *settings = &adapter->settings;
    char slots[24], rate[24];
    snprintf(slots, sizeof slots, "%" PRId64, settings->memory_slots);
    snprintf(rate, sizeof rate, "%" PRId64, settings->compression_rate);
    const char *const metadata[] = {
        "format",           "pt",
        "memory_slots",     slots,
        "compression_rate", rate,
        "layout",           icae_layout_names[settings->layout],
        "memory_init",      icae_memory_init_names[settings->memory_init],
        "memory_inputs",    icae_memory_inputs_names[settings->memory_inputs],
        "chat_prefix",      settings->chat_prefix,
        "chat_suffix",      settings->chat_suffix,
    };
    int table = adapter->params.n_params - 1;
    return icae_adapter_write_tensors(adapter, table, table + 1, path, dtype, metadata,
                                      sizeof metadata / sizeof metadata[0] / 2, error);
}

/* ---- reading the settings back ---- */

typedef struct importer {
    const icae_import *given;
    const char *from;
    icae_safetensors file;
    icae_adapter_settings *settings;
    icae_error *error;
} importer;

static icae_status bad_entry(const importer *in, const char *key, const char *value) {
    return icae_fail(in->error, ICAE_FORMAT,
                     "%s: the metadata key %s is '%s', which it cannot be; remove the metadata "
                     "and say it on the command line",
                     in->file.mapping.path, key, icae_quote_string(value).text);
}

/* A count from the metadata; stays 0 when it is not there. */
static icae_status read_count(const importer *in, const char *key, int64_t most, int64_t *out) {
    const char *text = icae_safetensors_metadata(&in->file, key);
    *out = 0;
    if (!text) return ICAE_OK;
    size_t length = strlen(text);
    if (!length || length > 9 || strspn(text, "0123456789") != length)
        return bad_entry(in, key, text);
    *out = strtoll(text, NULL, 10);
    return *out >= 1 && *out <= most ? ICAE_OK : bad_entry(in, key, text);
}

/* The index of a metadata value in a list of names; -1 when it is not there. */
static icae_status read_choice(const importer *in, const char *key, const char *const *names,
                               int *out) {
    const char *text = icae_safetensors_metadata(&in->file, key);
    *out = -1;
    if (!text) return ICAE_OK;
    for (int i = 0; names[i]; i++) {
        if (!strcmp(names[i], text)) *out = i;
    }
    return *out >= 0 ? ICAE_OK : bad_entry(in, key, text);
}

static icae_status read_chat(const importer *in, const char *key, char *out, size_t bytes) {
    const char *text = icae_safetensors_metadata(&in->file, key);
    if (!text) return ICAE_OK; /* the base's own stays */
    size_t length = strlen(text);
    if (length >= bytes) return bad_entry(in, key, text);
    memcpy(out, text, length + 1);
    return ICAE_OK;
}

static icae_status read_slots(const importer *in) {
    const icae_safetensors_entry *table = icae_safetensors_find(&in->file, tensor_name);
    if (!table || table->rank != 2 || table->shape[0] <= ICAE_TASK_COUNT) {
        return icae_fail(in->error, ICAE_FORMAT,
                         "%s: expected a tensor %s [k+%d, D]: the memory tokens, then the AE, "
                         "LM and FT tokens",
                         in->file.mapping.path, tensor_name, ICAE_TASK_COUNT);
    }
    int64_t rows = table->shape[0] - ICAE_TASK_COUNT, said;
    icae_status status = read_count(in, "memory_slots", ICAE_ADAPTER_MOST_SLOTS, &said);
    if (status) return status;
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

static icae_status read_all(const importer *in) {
    icae_adapter_settings *settings = in->settings;
    int layout = -1, init = -1, inputs = -1;
    int64_t rate = 0;
    icae_status status = read_slots(in);
    if (!status) status = read_count(in, "compression_rate", ICAE_ADAPTER_MOST_RATE, &rate);
    if (!status) status = read_choice(in, "layout", icae_layout_names, &layout);
    if (!status) status = read_choice(in, "memory_init", icae_memory_init_names, &init);
    if (!status) status = read_choice(in, "memory_inputs", icae_memory_inputs_names, &inputs);
    if (!status) {
        status =
            read_chat(in, "chat_prefix", settings->chat_prefix, sizeof settings->chat_prefix);
    }
    if (!status) {
        status =
            read_chat(in, "chat_suffix", settings->chat_suffix, sizeof settings->chat_suffix);
    }
    if (status) return status;
    if (in->given->compression_rate) rate = in->given->compression_rate;
    if (layout >= 0 && in->given->layout >= 0 && layout != in->given->layout) {
        return icae_fail(in->error, ICAE_MISMATCH,
                         "%s: was trained with layout %s, but %s is asked for; leave it out",
                         in->file.mapping.path, icae_layout_names[layout],
                         icae_layout_names[in->given->layout]);
    }
    if (layout < 0) layout = in->given->layout;
    if (!rate || layout < 0) {
        return icae_fail(in->error, ICAE_INVALID,
                         "%s: neither it nor %s says how the adapter was trained; pass --rate "
                         "(tokens a memory slot) and --layout (uniform or append)",
                         in->from, in->file.mapping.path);
    }
    settings->compression_rate = rate;
    settings->layout = (icae_layout)layout;
    if (init >= 0) settings->memory_init = (icae_memory_init)init;
    if (inputs >= 0) settings->memory_inputs = (icae_memory_inputs)inputs;
    return ICAE_OK;
}

icae_status icae_adapter_import_settings(const icae_import *given, const char *from,
                                         const char *memory_path,
                                         icae_adapter_settings *settings, icae_error *error) {
    if (!icae_path_exists(memory_path)) {
        return icae_fail(error, ICAE_IO,
                         "%s: is a LoRA without memory tokens (there is no %s); pass --memory "
                         "with a safetensors file that holds %s [k+%d, D]",
                         from, memory_path, tensor_name, ICAE_TASK_COUNT);
    }
    importer in = {.given = given, .from = from, .settings = settings, .error = error};
    icae_status status = icae_safetensors_open(&in.file, memory_path, error);
    if (status) return status;
    status = read_all(&in);
    icae_safetensors_close(&in.file);
    return status;
}
