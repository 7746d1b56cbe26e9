/* SPDX-License-Identifier: MIT */
/*
 * LoRA for llama.cpp, out and in; see icae/exchange.h. The file:
 *
 *     general.type = "adapter"     general.architecture = that of the base's GGUF
 *     adapter.type = "lora"        adapter.lora.alpha, F32 (0: the scale is 1)
 *     blk.{layer}.{attn_q ...}.weight.lora_a  [r,K]     .lora_b  [N,r]
 *
 * llama.cpp adds alpha / r * b(a x) to the product of the base's matrix. Where that matrix has its rows
 * reordered (its row 2i is our row i of a head, its row 2i+1 our row i + E/2, see src/model/model.c), so must
 * lora_b; lora_a multiplies the input and stays.
 * Source: llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/adapter_internal.h"
#include "icae/gguf_write.h"
#include "model/model_internal.h"

static const char *const gguf_modules[] = {
#define GGUF_MODULE(name, hf, folder, gguf) gguf,
    ICAE_MODULE_LIST(GGUF_MODULE)
#undef GGUF_MODULE
};

char *icae_memory_beside(const char *gguf_path) {
    static const char ending[] = ".gguf";
    size_t length = strlen(gguf_path), cut = sizeof ending - 1;
    bool has_ending = length > cut && !strcmp(gguf_path + length - cut, ending);
    char *path;
    return asprintf(&path, "%.*s.memory.safetensors", (int)(has_ending ? length - cut : length),
                    gguf_path) < 0
               ? NULL
               : path;
}

/* Whether the base's GGUF has the rows of this module reordered. */
static bool is_paired(const icae_model *model, icae_module module) {
    const icae_architecture *architecture = icae_architecture_find(model->config.architecture);
    return architecture && architecture->has_paired_rows_in_gguf &&
           (module == ICAE_MODULE_Q || module == ICAE_MODULE_K);
}

/* Where row `row` of ours stands in llama.cpp's order. */
static int64_t paired_row(int64_t row, int64_t E) {
    int64_t head = row / E, i = row % E, half = E / 2;
    return head * E + (i < half ? 2 * i : 2 * (i - half) + 1);
}

/* Moves the rows of lora_b [N,r] between the orders; `from` and `to` are apart. */
static void reorder(const float *from, int64_t N, int64_t r, int64_t E, bool to_paired,
                    float *to) {
    for (int64_t row = 0; row < N; row++) {
        int64_t theirs = paired_row(row, E);
        memcpy(to + (to_paired ? theirs : row) * r, from + (to_paired ? row : theirs) * r,
               (size_t)r * sizeof *to);
    }
}

static void tensor_name(int64_t layer, icae_module module, bool is_b, char *out, size_t bytes) {
    snprintf(out, bytes, "blk.%lld.%s.weight.lora_%c", (long long)layer, gguf_modules[module],
             is_b ? 'b' : 'a');
}

/* Calls `each` for every LoRA tensor of the adapter, in the order of its parameters. */
typedef icae_status each_tensor(void *user, const icae_param *param, int64_t layer,
                                icae_module module, bool is_b);

static icae_status walk(const icae_adapter *adapter, int64_t layers, each_tensor *each,
                        void *user) {
    const icae_param *param = adapter->params.list;
    icae_status status = ICAE_OK;
    for (int64_t i = 0; i < layers * ICAE_MODULE_COUNT && !status; i++) {
        icae_module module = (icae_module)(i % ICAE_MODULE_COUNT);
        if (!adapter->settings.targets[module]) continue;
        status = each(user, param++, i / ICAE_MODULE_COUNT, module, false);
        if (!status) status = each(user, param++, i / ICAE_MODULE_COUNT, module, true);
    }
    return status;
}

/* ---- out ---- */

typedef struct exporter {
    const icae_adapter *adapter;
    const icae_model *model;
    icae_dtype dtype;
    icae_gguf_writer writer;
    icae_error *error;
} exporter;

static icae_status describe(void *user, const icae_param *param, int64_t layer,
                            icae_module module, bool is_b) {
    exporter *out = user;
    char name[96];
    tensor_name(layer, module, is_b, name, sizeof name);
    icae_gguf_put_tensor(&out->writer, name, out->dtype, param->rank, param->shape);
    return ICAE_OK;
}

static icae_status write_values(void *user, const icae_param *param, int64_t layer,
                                icae_module module, bool is_b) {
    exporter *out = user;
    size_t bytes = (size_t)param->count * sizeof(float);
    float *values = malloc(bytes), *moved = malloc(bytes);
    icae_status status = ICAE_OK;
    if (!values || !moved) {
        status = icae_fail_memory(out->error, param->name);
    } else {
        const float *ordered = values;
        icae_adapter_get(out->adapter, param, 0, param->count, values);
        if (is_b && is_paired(out->model, module)) {
            reorder(values, param->shape[0], param->shape[1], out->model->config.head_width,
                    true, moved);
            ordered = moved;
        }
        float *narrowed = ordered == values ? moved : values;
        if (icae_narrow(out->dtype, ordered, param->count, narrowed)) {
            icae_gguf_write_data(&out->writer, narrowed,
                                 (size_t)param->count *
                                     icae_dtype_describe(out->dtype)->block_bytes);
        } else {
            status = icae_fail(out->error, ICAE_INVALID,
                               "%s of layer %lld holds a number that is too large for %s; take "
                               "another type",
                               icae_module_name(module), (long long)layer,
                               icae_dtype_describe(out->dtype)->name);
        }
    }
    free(values);
    free(moved);
    return status;
}

icae_status icae_adapter_export_gguf(const icae_adapter *adapter, const char *path,
                                     const icae_model *model, icae_dtype dtype,
                                     icae_error *error) {
    const icae_architecture *architecture = icae_architecture_find(model->config.architecture);
    if (!architecture) {
        return icae_fail(error, ICAE_UNSUPPORTED, "%s: llama.cpp's name of '%s' is not known",
                         path, model->config.architecture);
    }
    char *memory = icae_memory_beside(path);
    if (!memory) return icae_fail_memory(error, path);
    exporter out = {.adapter = adapter, .model = model, .dtype = dtype, .error = error};
    icae_gguf_begin(&out.writer, path);
    icae_gguf_put_string(&out.writer, "general.architecture", architecture->gguf_name);
    icae_gguf_put_string(&out.writer, "general.type", "adapter");
    icae_gguf_put_string(&out.writer, "adapter.type", "lora");
    icae_gguf_put_f32(&out.writer, "adapter.lora.alpha", (float)adapter->settings.alpha);
    icae_gguf_put_string(&out.writer, "general.name", "ICAE encoder");
    icae_status status = walk(adapter, model->config.layers, describe, &out);
    if (!status) status = walk(adapter, model->config.layers, write_values, &out);
    /* The table first: a LoRA without one cannot be read back, a table alone is not mistaken. */
    if (!status) status = icae_adapter_write_memory(adapter, memory, dtype, error);
    if (status)
        icae_gguf_abort(&out.writer);
    else
        status = icae_gguf_commit(&out.writer, error);
    free(memory);
    return status;
}

/* ---- in ---- */

static bool has_text(const icae_gguf *file, const char *key, const char *expected) {
    icae_gguf_string text;
    return icae_gguf_get_string(file, key, &text) && text.bytes == strlen(expected) &&
           !memcmp(text.data, expected, text.bytes);
}

/* Takes "blk.12.attn_q.weight.lora_a" apart. */
static bool parse_name(const char *name, int64_t *layer, icae_module *module, bool *is_b) {
    if (strncmp(name, "blk.", 4)) return false;
    const char *at = name + 4;
    size_t digits = strspn(at, "0123456789");
    if (!digits || digits > 6 || at[digits] != '.') return false;
    *layer = strtoll(at, NULL, 10);
    at += digits + 1;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        size_t length = strlen(gguf_modules[m]);
        if (strncmp(at, gguf_modules[m], length) || at[length] != '.') continue;
        *module = (icae_module)m;
        *is_b = !strcmp(at + length, ".weight.lora_b");
        return *is_b || !strcmp(at + length, ".weight.lora_a");
    }
    return false;
}

/* Kind and architecture, then rank, alpha and targets into the settings. */
static icae_status read_settings(const icae_gguf *file, const char *path,
                                 const icae_model *model, icae_adapter_settings *settings,
                                 icae_error *error) {
    const icae_architecture *architecture = icae_architecture_find(model->config.architecture);
    if (!has_text(file, "general.type", "adapter") || !has_text(file, "adapter.type", "lora")) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: is no LoRA: expected general.type adapter and adapter.type lora",
                         path);
    }
    if (!architecture || !has_text(file, "general.architecture", architecture->gguf_name)) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: was not made for a base of the architecture %s, which that of %s "
                         "is; pass the base that it was made for",
                         path, architecture ? architecture->gguf_name : "unknown", model->path);
    }
    /* A LoRA that is on from certain tokens only: read as a plain one it would act on all. */
    static const char invocation[] = "adapter.alora.invocation_tokens";
    const icae_gguf_item *tokens = icae_gguf_item_find(file, invocation);
    if (tokens && tokens->count) {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: has %s, and this program knows plain LoRA only", path,
                         invocation);
    }
    memset(settings->targets, 0, sizeof settings->targets);
    settings->rank = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const icae_gguf_tensor *tensor = &file->tensors[i];
        int64_t layer;
        icae_module module;
        bool is_b;
        if (!parse_name(tensor->name, &layer, &module, &is_b) ||
            layer >= model->config.layers || tensor->rank != 2) {
            return icae_fail(error, ICAE_MISMATCH,
                             "%s: the tensor '%s' is no LoRA of a matrix that %s has in its "
                             "%lld layers",
                             path, icae_quote_string(tensor->name).text, model->path,
                             (long long)model->config.layers);
        }
        settings->targets[module] = true;
        if (!is_b && !settings->rank) settings->rank = tensor->shape[0];
    }
    /* llama.cpp takes an alpha of 0 for a scale of 1. */
    settings->alpha = 0;
    icae_gguf_get_number(file, "adapter.lora.alpha", &settings->alpha);
    if (settings->alpha == 0) settings->alpha = (double)settings->rank;
    settings->dropout = 0;
    return ICAE_OK;
}

typedef struct importer {
    const icae_gguf *file;
    const char *path;
    const icae_model *model;
    icae_adapter *adapter;
    icae_error *error;
} importer;

static icae_status find_tensor(const importer *in, int64_t layer, icae_module module, bool is_b,
                               int64_t rows, int64_t cols, const icae_gguf_tensor **out) {
    char name[96];
    tensor_name(layer, module, is_b, name, sizeof name);
    *out = icae_gguf_find(in->file, name);
    if (*out && (*out)->rank == 2 && (*out)->shape[0] == rows && (*out)->shape[1] == cols)
        return ICAE_OK;
    return icae_fail(in->error, ICAE_MISMATCH,
                     "%s: expected the tensor %s [%lld, %lld] that rank, targets and base ask "
                     "for, but it %s",
                     in->path, name, (long long)rows, (long long)cols,
                     *out ? "has another shape" : "is missing");
}

/* Every pair must be there before memory is asked for it. */
static icae_status check_tensors(const importer *in, const icae_adapter_settings *settings) {
    const icae_model_config *config = &in->model->config;
    const icae_gguf_tensor *tensor;
    icae_status status = ICAE_OK;
    for (int64_t i = 0; i < config->layers * ICAE_MODULE_COUNT && !status; i++) {
        icae_module module = (icae_module)(i % ICAE_MODULE_COUNT);
        if (!settings->targets[module]) continue;
        status = find_tensor(in, i / ICAE_MODULE_COUNT, module, false, settings->rank,
                             icae_module_cols(config, module), &tensor);
        if (!status)
            status = find_tensor(in, i / ICAE_MODULE_COUNT, module, true,
                                 icae_module_rows(config, module), settings->rank, &tensor);
    }
    return status;
}

static icae_status read_values(void *user, const icae_param *param, int64_t layer,
                               icae_module module, bool is_b) {
    const importer *in = user;
    const icae_gguf_tensor *tensor;
    icae_status status =
        find_tensor(in, layer, module, is_b, param->shape[0], param->shape[1], &tensor);
    if (status) return status;
    size_t bytes = (size_t)param->count * sizeof(float);
    float *values = malloc(bytes), *moved = malloc(bytes);
    if (!values || !moved) {
        status = icae_fail_memory(in->error, param->name);
    } else {
        const float *ordered = values;
        icae_dtype_widen_f32(tensor->dtype, tensor->data, param->count, values);
        for (int64_t i = 0; i < param->count && !status; i++) {
            if (isfinite(values[i])) continue;
            status = icae_fail(in->error, ICAE_FORMAT,
                               "%s: the tensor %s holds a NaN or an infinity at place %lld; "
                               "the file is damaged",
                               in->path, tensor->name, (long long)i);
        }
        if (is_b && is_paired(in->model, module)) {
            reorder(values, param->shape[0], param->shape[1], in->model->config.head_width,
                    false, moved);
            ordered = moved;
        }
        icae_adapter_set(in->adapter, param, 0, param->count, ordered);
    }
    free(values);
    free(moved);
    return status;
}

/* settings hold what the caller and the memory table say. */
static icae_status import_file(importer *in, const char *memory,
                               icae_adapter_settings *settings, icae_backend *be) {
    icae_status status = read_settings(in->file, in->path, in->model, settings, in->error);
    if (!status) status = icae_adapter_check(settings, in->path, in->error);
    if (!status) status = check_tensors(in, settings);
    if (!status) {
        status = icae_adapter_allocate(&in->adapter, in->model, settings, be, false, in->error);
    }
    if (!status) status = walk(in->adapter, in->model->config.layers, read_values, in);
    if (!status) status = icae_adapter_read_memory(in->adapter, memory, in->model, in->error);
    if (!status) in->adapter->fingerprint = icae_adapter_hash(in->adapter);
    return status;
}

icae_status icae_adapter_import_gguf(icae_adapter **adapter, const char *path,
                                     const icae_import *given, const icae_model *model,
                                     icae_backend *be, icae_error *error) {
    *adapter = NULL;
    icae_gguf file = {0};
    icae_adapter_settings settings = icae_adapter_defaults(model);
    importer in = {.file = &file, .path = path, .model = model, .error = error};
    icae_status status = icae_gguf_open(&file, path, error);
    if (status) return status;
    char *memory = given->memory_path ? strdup(given->memory_path) : icae_memory_beside(path);
    if (!memory) {
        status = icae_fail_memory(error, path);
    } else {
        status = icae_adapter_import_settings(given, path, memory, model, &settings, error);
        if (!status) status = import_file(&in, memory, &settings, be);
    }
    free(memory);
    icae_gguf_close(&file);
    if (status)
        icae_adapter_free(in.adapter);
    else
        *adapter = in.adapter;
    return status;
}
