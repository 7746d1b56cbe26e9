/* SPDX-License-Identifier: MIT */
/*
 * Reading an adapter folder:
 *
 *     icae.json                   settings, fingerprints, training summary; unknown keys are errors
 *     adapter_config.json         PEFT's; keys that do not concern us are skipped, keys that would
 *                                 change what is computed are refused unless they are off
 *     adapter_model.safetensors   base_model.model.{module path}.lora_{A,B}[.default].weight
 *     memory.safetensors          memory_token_embed.weight [k+3, D]
 *
 * icae.json comes first, since it knows the base: a wrong base is the likeliest mistake and must be
 * called by its name, not by some shape that happens to differ. Tensors may be f32, f16 or bf16; each
 * must be there once, in its shape, and none may be left over. The hash in icae.json covers them all,
 * so a folder whose files are of two adapters is refused.
 *
 * A PEFT folder of another program is read by the same steps; in place of icae.json come the caller's
 * settings and the metadata of the memory table (exchange.c). Here are the order of the steps and the
 * tensors; the two JSON files are read in adapter_json.c.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/adapter_internal.h"
#include "icae/log.h"

/* ---- tensors ---- */

/* Turns "memory_token_embed.weight", or "base_model.model.{path}.lora_A[.default].weight", into the name
 * of a parameter; false when it is neither. */
static bool parameter_name(const char *tensor, char out[128]) {
    static const char prefix[] = "base_model.model.", table[] = "memory_token_embed.weight";
    static const char *const endings[] = {".default.weight", ".weight"};
    size_t length = strlen(tensor), start = sizeof prefix - 1;
    if (!strcmp(tensor, table)) {
        start = 0;
    } else if (strncmp(tensor, prefix, start)) {
        return false;
    }
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t ending = strlen(endings[i]);
        if (length < start + ending || strcmp(tensor + length - ending, endings[i])) continue;
        if (length - ending - start >= 128) return false;
        memcpy(out, tensor + start, length - ending - start);
        out[length - ending - start] = 0;
        return true;
    }
    return false;
}

static icae_status check_tensor(const icae_adapter_loader *load, const icae_safetensors *file,
                                const icae_safetensors_entry *entry, const icae_param *param) {
    bool fits = entry->rank == param->rank;
    for (int i = 0; fits && i < param->rank; i++)
        fits = entry->shape[i] == param->shape[i];
    if (!fits) {
        return icae_fail(load->error, ICAE_MISMATCH,
                         "%s: the tensor %s does not have the shape [%lld, %lld] that settings "
                         "and base ask for",
                         file->mapping.path, icae_quote_string(entry->name).text,
                         (long long)param->shape[0], (long long)param->shape[1]);
    }
    if (entry->dtype == ICAE_DTYPE_F32 || entry->dtype == ICAE_DTYPE_F16 ||
        entry->dtype == ICAE_DTYPE_BF16) {
        return ICAE_OK;
    }
    return icae_fail(load->error, ICAE_UNSUPPORTED,
                     "%s: the tensor %s has the type %s, expected F32, F16 or BF16",
                     file->mapping.path, icae_quote_string(entry->name).text,
                     icae_dtype_describe(entry->dtype)->name);
}

static icae_status copy_tensor(const icae_adapter_loader *load, const icae_safetensors *file,
                               const icae_safetensors_entry *entry, icae_adapter *adapter,
                               const icae_param *param) {
    enum { CHUNK = 4096 };
    float values[CHUNK];
    size_t each = icae_dtype_describe(entry->dtype)->block_bytes;
    for (int64_t first = 0; first < param->count; first += CHUNK) {
        int64_t n = param->count - first < CHUNK ? param->count - first : CHUNK;
        icae_dtype_widen_f32(
            entry->dtype, (const unsigned char *)entry->data + (size_t)first * each, n, values);
        for (int64_t i = 0; i < n; i++) {
            if (isfinite(values[i])) continue;
            return icae_fail(load->error, ICAE_FORMAT,
                             "%s: the tensor %s holds %s at place %lld; its training went "
                             "wrong or the file is damaged, so take an earlier checkpoint",
                             file->mapping.path, icae_quote_string(entry->name).text,
                             isnan(values[i]) ? "a NaN" : "an infinity",
                             (long long)(first + i));
        }
        icae_adapter_set(adapter, param, first, n, values);
    }
    return ICAE_OK;
}

/* Every tensor of one file, which must be parameters first..end-1 exactly. */
static icae_status read_tensors(const icae_adapter_loader *load, const char *path,
                                icae_adapter *adapter, int first, int end) {
    icae_safetensors file = {0};
    const icae_params *params = &adapter->params;
    bool *seen = calloc((size_t)params->n_params, sizeof *seen);
    char wanted[128];
    icae_status status = seen ? icae_safetensors_open(&file, path, load->error)
                              : icae_fail_memory(load->error, load->folder);
    for (size_t i = 0; !status && i < file.n_entries; i++) {
        const icae_safetensors_entry *entry = &file.entries[i];
        const icae_param *param =
            parameter_name(entry->name, wanted) ? icae_params_find(params, wanted) : NULL;
        int64_t index = param ? param - params->list : -1;
        if (index < first || index >= end || seen[index]) {
            status = icae_fail(load->error, ICAE_MISMATCH, "%s: the tensor %s %s", path,
                               icae_quote_string(entry->name).text,
                               index >= first && index < end
                                   ? "stands there under two names; remove one"
                                   : "is none that the settings and the base have a place for");
            break;
        }
        seen[index] = true;
        status = check_tensor(load, &file, entry, param);
        if (!status) status = copy_tensor(load, &file, entry, adapter, param);
    }
    for (int p = first; !status && p < end; p++) {
        if (seen[p]) continue;
        status = icae_fail(load->error, ICAE_FORMAT,
                           "%s: the tensor %s is missing; the file is incomplete, or "
                           "adapter_config.json is another adapter's",
                           path, params->list[p].name);
    }
    icae_safetensors_close(&file);
    free(seen);
    return status;
}

icae_status icae_adapter_read_memory(icae_adapter *adapter, const char *path,
                                     const icae_model *model, icae_error *error) {
    const icae_adapter_loader load = {.folder = path, .model = model, .error = error};
    int table = adapter->params.n_params - 1;
    return read_tensors(&load, path, adapter, table, table + 1);
}

static icae_status read_values(icae_adapter_loader *load, icae_adapter *adapter) {
    int table = adapter->params.n_params - 1; /* LoRA pairs, then the memory table */
    char *lora = icae_path_join(load->folder, "adapter_model.safetensors");
    icae_status status = lora ? read_tensors(load, lora, adapter, 0, table)
                              : icae_fail_memory(load->error, load->folder);
    free(lora);
    if (!status) status = read_tensors(load, load->memory_path, adapter, table, table + 1);
    if (status) return status;
    adapter->fingerprint = icae_adapter_hash(adapter);
    if (!load->has_values || load->values == adapter->fingerprint) return ICAE_OK;
    return icae_fail(load->error, ICAE_MISMATCH,
                     "%s: its icae.json was written for %016" PRIx64
                     ", its tensors and adapter_config.json are %016" PRIx64
                     ": saving was interrupted or a file was changed; take an earlier copy, or "
                     "remove the key \"adapter\" from icae.json if you changed it yourself",
                     load->folder, load->values, adapter->fingerprint);
}

/* Settings may claim anything; before memory is asked for, the files must be large enough to hold at
 * least two bytes for each number. */
static icae_status check_sizes(const icae_adapter_loader *load) {
    const icae_adapter_settings *settings = &load->settings;
    const icae_model_config *config = &load->model->config;
    int64_t per_layer = 0;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        if (!settings->targets[m]) continue;
        per_layer += settings->rank * (icae_module_rows(config, (icae_module)m) +
                                       icae_module_cols(config, (icae_module)m));
    }
    const int64_t counts[] = {config->layers * per_layer,
                              (settings->memory_slots + ICAE_TASK_COUNT) * config->width};
    for (int i = 0; i < 2; i++) {
        char *path = i ? strdup(load->memory_path)
                       : icae_path_join(load->folder, "adapter_model.safetensors");
        if (!path) return icae_fail_memory(load->error, load->folder);
        int64_t bytes = icae_file_bytes(path);
        icae_status status = ICAE_OK;
        if (bytes >= 0 && bytes / 2 < counts[i]) {
            status = icae_fail(load->error, ICAE_MISMATCH,
                               "%s: has %" PRId64 " bytes, too few for the %" PRId64
                               " numbers that the settings beside it ask for; the file is "
                               "incomplete or another adapter's",
                               path, bytes, counts[i]);
        } else if (bytes < 0) {
            status = icae_fail(load->error, ICAE_IO, "%s: is missing or no regular file", path);
        }
        free(path);
        if (status) return status;
    }
    return ICAE_OK;
}

/* ---- all of it ---- */

/* A folder without icae.json is something else, and often a known one. */
static icae_status expect_adapter(const icae_adapter_loader *load) {
    static const struct {
        const char *name, *what;
    } files[] = {
        {"icae.json", NULL},
        {"adapter_config.json",
         "is a PEFT folder without icae.json; icae convert makes an adapter of it"},
        {"config.json",
         "is a base or a run, expected an adapter: a folder with icae.json in it"},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        bool is_there;
        char *path = icae_path_join(load->folder, files[i].name);
        icae_status status = path ? icae_path_find(path, &is_there, load->error)
                                  : icae_fail_memory(load->error, load->folder);
        free(path);
        if (status) return status;
        if (is_there && !files[i].what) return ICAE_OK;
        if (!is_there) continue;
        return icae_fail(load->error, ICAE_IO, "%s: %s", load->folder, files[i].what);
    }
    return icae_fail(load->error, ICAE_IO,
                     "%s: has no icae.json; an adapter is a folder with that in it",
                     load->folder);
}

static icae_status load_folder(icae_adapter_loader *load, icae_adapter **out, icae_backend *be,
                               bool for_training) {
    if (!icae_path_is_folder(load->folder)) {
        return icae_fail(load->error, ICAE_IO,
                         "%s: is not a folder; an adapter is one, with "
                         "%s in it",
                         load->folder, load->import ? "adapter_config.json" : "icae.json");
    }
    icae_status status = load->import ? ICAE_OK : expect_adapter(load);
    if (status) return status;
    if (load->import)
        status = icae_adapter_import_settings(load->import, load->folder, load->memory_path,
                                              load->model, &load->settings, load->error);
    else
        status = icae_adapter_read_icae_json(load);
    if (!status) status = icae_adapter_read_peft_json(load);
    if (!status) status = icae_adapter_check(&load->settings, load->folder, load->error);
    if (!status) status = check_sizes(load);
    if (!status) {
        status = icae_adapter_allocate(out, load->model, &load->settings, be, for_training,
                                       load->error);
    }
    if (status) return status;
    (*out)->path = strdup(load->folder);
    if (load->summary.length) (*out)->summary_json = strdup(load->summary.data);
    if (!(*out)->path || (load->summary.length && !(*out)->summary_json))
        return icae_fail_memory(load->error, load->folder);
    status = read_values(load, *out);
    if (!status && !load->has_base && !load->import) {
        icae_log_warning("%s/icae.json does not say which base the adapter was made for; with "
                         "another than %s expect garbage",
                         load->folder, load->model->path);
    }
    return status;
}

static icae_status load_adapter(icae_adapter **adapter, const char *folder,
                                const icae_import *import, const icae_model *model,
                                icae_backend *be, bool for_training, icae_error *error) {
    *adapter = NULL;
    icae_adapter_loader load = {.folder = folder,
                                .model = model,
                                .settings = icae_adapter_defaults(model),
                                .import = import,
                                .error = error};
    load.memory_path = import && import->memory_path
                           ? strdup(import->memory_path)
                           : icae_path_join(folder, "memory.safetensors");
    icae_status status = load.memory_path ? load_folder(&load, adapter, be, for_training)
                                          : icae_fail_memory(error, folder);
    icae_text_release(&load.summary);
    free(load.memory_path);
    if (status) {
        icae_adapter_free(*adapter);
        *adapter = NULL;
    }
    return status;
}

icae_status icae_adapter_load(icae_adapter **adapter, const char *folder,
                              const icae_model *model, icae_backend *be, bool for_training,
                              icae_error *error) {
    return load_adapter(adapter, folder, NULL, model, be, for_training, error);
}

icae_status icae_adapter_import_peft(icae_adapter **adapter, const char *folder,
                                     const icae_import *given, const icae_model *model,
                                     icae_backend *be, icae_error *error) {
    return load_adapter(adapter, folder, given, model, be, false, error);
}
