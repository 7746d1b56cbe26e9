/* SPDX-License-Identifier: MIT */
/*
 * The authors' released weights; facts and assumptions stand in icae/released.h.
 *
 * Both containers become one list of tensors. Every name is taken apart once (which layer, module and
 * half of a pair); shapes are held against each other, then against the base, and then copied. A pair
 * that is missing shows in the count: a grid of layers x targets x 2 must be full.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/adapter_internal.h"
#include "icae/chat.h"
#include "icae/released.h"
#include "icae/torch_file.h"

static const char prefix[] = "icae.base_model.model.";
static const char table_name[] = "memory_token_embed.weight";

/* An open file as a list of tensors. */
typedef struct weights {
    icae_released kind;
    const char *path;
    icae_torch_file torch;
    icae_safetensors safetensors;
    icae_safetensors_entry *tensors;
    size_t n_tensors, n_placeholders;
} weights;

static void weights_close(weights *w) {
    free(w->tensors);
    icae_torch_file_close(&w->torch);
    icae_safetensors_close(&w->safetensors);
}

/* ---- both containers ---- */

/* v1: tensors, and a float 0.0 for every weight of the base, which was not to be handed on. */
static icae_status list_torch(weights *w, icae_error *error) {
    for (size_t i = 0; i < w->torch.n_entries; i++) {
        const icae_torch_entry *from = &w->torch.entries[i];
        icae_quoted name = icae_quote_string(from->name);
        if (from->kind == ICAE_TORCH_TENSOR) {
            icae_safetensors_entry *to = &w->tensors[w->n_tensors++];
            *to = (icae_safetensors_entry){.name = from->name,
                                           .dtype = from->dtype,
                                           .rank = from->rank,
                                           .data = from->data,
                                           .bytes = from->bytes};
            memcpy(to->shape, from->shape, sizeof to->shape);
        } else if (from->kind == ICAE_TORCH_OTHER) {
            return icae_fail(error, ICAE_UNSUPPORTED,
                             "%s: '%s' is a %s, expected f32, f16 or bf16 tensors and floats",
                             w->path, name.text, from->type);
        } else if (from->number != 0 || strncmp(from->name, prefix, sizeof prefix - 1)) {
            return icae_fail(
                error, ICAE_UNSUPPORTED,
                "%s: '%s' is the number %g, expected none but 0.0 in the place of a "
                "base weight (%s...)",
                w->path, name.text, from->number, prefix);
        } else {
            w->n_placeholders++;
        }
    }
    return ICAE_OK;
}

static icae_status weights_open(weights *w, const char *path, icae_error *error) {
    *w = (weights){.path = path};
    icae_mapping mapping;
    icae_status status = icae_mapping_open(&mapping, path, error);
    if (status) return status;
    bool is_torch = icae_torch_file_begins(mapping.data, mapping.bytes);
    icae_mapping_close(&mapping);
    w->kind = is_torch ? ICAE_RELEASED_V1 : ICAE_RELEASED_V2;
    status = is_torch ? icae_torch_file_open(&w->torch, path, error)
                      : icae_safetensors_open(&w->safetensors, path, error);
    if (status) return status;
    size_t n = is_torch ? w->torch.n_entries : w->safetensors.n_entries;
    w->tensors = calloc(n + 1, sizeof *w->tensors);
    if (!w->tensors) {
        status = icae_fail_memory(error, path);
    } else if (is_torch) {
        status = list_torch(w, error);
    } else {
        if (n) memcpy(w->tensors, w->safetensors.entries, n * sizeof *w->tensors);
        w->n_tensors = n;
    }
    if (status) weights_close(w);
    return status;
}

/* ---- names ---- */

typedef struct place {
    int64_t layer;
    icae_module module;
    bool is_b;
} place;

/* Takes the name of half a pair apart; false for every other name, other spellings of it included. */
static bool parse_name(const char *name, place *out) {
    static const char layers[] = "model.layers.", ending[] = ".default.weight";
    char path[96], wanted[160];
    size_t start = sizeof prefix - 1 + sizeof layers - 1;
    if (strlen(name) >= sizeof wanted || strncmp(name, prefix, sizeof prefix - 1) ||
        strncmp(name + sizeof prefix - 1, layers, sizeof layers - 1)) {
        return false;
    }
    char *end;
    long layer = strtol(name + start, &end, 10);
    if (layer < 0 || layer > 9999) return false;
    const char *half = strstr(end, ".lora_");
    out->layer = layer;
    out->is_b = half && half[6] == 'B';
    for (int m = 0; half && m < ICAE_MODULE_COUNT; m++) {
        out->module = (icae_module)m;
        icae_module_path(layer, out->module, path, sizeof path);
        snprintf(wanted, sizeof wanted, "%s%s.lora_%c%s", prefix, path, out->is_b ? 'B' : 'A',
                 ending);
        if (!strcmp(name, wanted)) return true;
    }
    return false;
}

icae_released icae_released_kind(const char *path) {
    weights w;
    if (weights_open(&w, path, NULL)) return ICAE_RELEASED_NONE;
    bool has_table = false, has_pair = false;
    place at;
    for (size_t i = 0; i < w.n_tensors; i++) {
        has_table = has_table || !strcmp(w.tensors[i].name, table_name);
        has_pair = has_pair || parse_name(w.tensors[i].name, &at);
    }
    icae_released kind = has_table && has_pair ? w.kind : ICAE_RELEASED_NONE;
    weights_close(&w);
    return kind;
}

/* ---- shapes ---- */

/* Which published bases have which shapes; the released adapters' first. */
static const struct {
    int64_t layers, width, q, v;
    const char *names;
} known_bases[] = {
    {32, 4096, 4096, 4096, "Llama-2-7B (v1 was trained on Llama-2-7b-chat)"},
    {32, 4096, 4096, 1024,
     "Mistral-7B (v2 was trained on Mistral-7B-Instruct-v0.2) or Llama-3-8B"},
    {40, 5120, 5120, 5120, "Llama-2-13B"},
};

static void name_base(icae_released_facts *facts) {
    const char *names = "no base that was released for";
    for (size_t i = 0; i < sizeof known_bases / sizeof known_bases[0]; i++) {
        if (facts->layers == known_bases[i].layers && facts->width == known_bases[i].width &&
            facts->rows[ICAE_MODULE_Q] == known_bases[i].q &&
            facts->rows[ICAE_MODULE_V] == known_bases[i].v) {
            names = known_bases[i].names;
        }
    }
    snprintf(facts->base, sizeof facts->base, "%s", names);
}

static icae_status refuse_shape(const weights *w, const icae_safetensors_entry *tensor,
                                const char *expectation, icae_error *error) {
    icae_text shape = {0};
    for (int i = 0; i < tensor->rank; i++)
        icae_text_printf(&shape, "%s%" PRId64, i ? ", " : "", tensor->shape[i]);
    icae_fail(error, ICAE_FORMAT, "%s: the tensor '%s' has the shape [%s], expected %s",
              w->path, icae_quote_string(tensor->name).text, icae_text_string(&shape),
              expectation);
    icae_text_release(&shape);
    return ICAE_FORMAT;
}

/* The first tensor that speaks of a number sets it (0: not known yet), all others must agree. */
static bool agrees(int64_t *number, int64_t said) {
    if (!*number) *number = said;
    return said > 0 && *number == said;
}

static icae_status read_table(const weights *w, const icae_safetensors_entry *tensor,
                              icae_released_facts *facts, icae_error *error) {
    if (tensor->rank != 2 || tensor->shape[0] <= ICAE_TASK_COUNT || tensor->shape[1] < 1)
        return refuse_shape(w, tensor, "[k+3, width] with k from 1 up", error);
    facts->memory_slots = tensor->shape[0] - ICAE_TASK_COUNT;
    facts->width = tensor->shape[1];
    return ICAE_OK;
}

static icae_status read_half(const weights *w, const icae_safetensors_entry *tensor, place at,
                             icae_released_facts *facts, icae_error *error) {
    bool fits = tensor->rank == 2;
    if (fits && at.is_b) {
        fits = agrees(&facts->rows[at.module], tensor->shape[0]) &&
               agrees(&facts->rank, tensor->shape[1]);
    } else if (fits) {
        fits = agrees(&facts->rank, tensor->shape[0]) &&
               agrees(&facts->cols[at.module], tensor->shape[1]);
    }
    facts->targets[at.module] = true;
    if (at.layer >= facts->layers) facts->layers = at.layer + 1;
    return fits ? ICAE_OK
                : refuse_shape(w, tensor,
                               at.is_b ? "[out, rank] as in the other layers"
                                       : "[rank, in] as in the other layers",
                               error);
}

static bool is_float(icae_dtype dtype) {
    return dtype == ICAE_DTYPE_F32 || dtype == ICAE_DTYPE_F16 || dtype == ICAE_DTYPE_BF16;
}

/* Names stand once each in either container, so a full count means that none is missing. */
static icae_status check_complete(const weights *w, const icae_released_facts *facts,
                                  size_t n_halves, icae_error *error) {
    if (!facts->memory_slots) {
        return icae_fail(error, ICAE_FORMAT, "%s: %s is missing; the file is incomplete",
                         w->path, table_name);
    }
    size_t n_targets = 0;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++)
        n_targets += facts->targets[m];
    size_t wanted = (size_t)facts->layers * n_targets * 2;
    if (wanted && n_halves == wanted) return ICAE_OK;
    return icae_fail(error, ICAE_FORMAT,
                     "%s: has %zu LoRA tensors where %" PRId64
                     " layers with %zu modules each need %zu; the file is incomplete",
                     w->path, n_halves, facts->layers, n_targets, wanted);
}

static icae_status describe(const weights *w, icae_released_facts *facts, icae_error *error) {
    *facts = (icae_released_facts){.kind = w->kind,
                                   .tensors = (int64_t)w->n_tensors,
                                   .placeholders = (int64_t)w->n_placeholders};
    size_t n_halves = 0;
    icae_status status = ICAE_OK;
    for (size_t i = 0; i < w->n_tensors && !status; i++) {
        const icae_safetensors_entry *tensor = &w->tensors[i];
        icae_quoted name = icae_quote_string(tensor->name);
        place at;
        if (!is_float(tensor->dtype)) {
            status = icae_fail(error, ICAE_UNSUPPORTED,
                               "%s: the tensor '%s' has the type %s, expected F32, F16 or BF16",
                               w->path, name.text, icae_dtype_describe(tensor->dtype)->name);
        } else if (!strcmp(tensor->name, table_name)) {
            status = read_table(w, tensor, facts, error);
        } else if (parse_name(tensor->name, &at)) {
            status = read_half(w, tensor, at, facts, error);
            n_halves++;
        } else {
            status =
                icae_fail(error, ICAE_UNSUPPORTED,
                          "%s: the tensor '%s' has no place in an adapter; expected %s and "
                          "%smodel.layers.N.MODULE.lora_{A,B}.default.weight",
                          w->path, name.text, table_name, prefix);
        }
    }
    if (!status) status = check_complete(w, facts, n_halves, error);
    if (!status) name_base(facts);
    return status;
}

icae_status icae_released_describe(icae_released_facts *facts, const char *path,
                                   icae_error *error) {
    weights w;
    icae_status status = weights_open(&w, path, error);
    if (status) return status;
    status = describe(&w, facts, error);
    weights_close(&w);
    return status;
}

/* ---- the base ---- */

static icae_status check_base(const weights *w, const icae_released_facts *facts,
                              const icae_model *model, icae_error *error) {
    const icae_model_config *config = &model->config;
    if (facts->layers != config->layers || facts->width != config->width) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: was made for a base of %" PRId64 " layers of width %" PRId64
                         " (%s), but the base given (%s) has %" PRId64 " of width %" PRId64
                         "; pass the base that it was trained on",
                         w->path, facts->layers, facts->width, facts->base, model->path,
                         config->layers, config->width);
    }
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        icae_module module = (icae_module)m;
        int64_t rows = icae_module_rows(config, module),
                cols = icae_module_cols(config, module);
        if (!facts->targets[m] || (facts->rows[m] == rows && facts->cols[m] == cols)) continue;
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: was made for a base whose %s is [%" PRId64 ", %" PRId64
                         "] (%s), but that of the base given (%s) is [%" PRId64 ", %" PRId64
                         "]; pass the base that it was trained on",
                         w->path, icae_module_name(module), facts->rows[m], facts->cols[m],
                         facts->base, model->path, rows, cols);
    }
    return ICAE_OK;
}

/* ---- settings and values ---- */

static icae_status choose_settings(const icae_released_facts *facts, const icae_model *model,
                                   const icae_released_options *options, const char *where,
                                   icae_adapter_settings *settings, icae_error *error) {
    icae_chat_wish wish = {.name = "none"};
    *settings = (icae_adapter_settings){
        .memory_slots = facts->memory_slots,
        .compression_rate = options->compression_rate ? options->compression_rate : 4,
        .layout = ICAE_LAYOUT_APPEND,
        .memory_init = ICAE_MEMORY_INIT_NORMAL,
        .rank = facts->rank,
        .alpha = options->alpha != 0 ? options->alpha : 32,
        .dropout = 0.05,
    };
    memcpy(settings->targets, facts->targets, sizeof settings->targets);
    settings->context_bos = true; /* both scripts let the tokenizer put it there */
    if (facts->kind == ICAE_RELEASED_V1) {
        settings->closes_prompt = true;
        settings->has_stop_id = true;
        settings->stop_id = 1; /* Llama-2's <s>: the code of v1 takes it for the end */
        return icae_chat_apply(settings, &wish, model->tokenizer, where, error);
    }
    settings->no_lm_token = true;
    wish.name = "mistral";
    return icae_chat_apply(settings, &wish, model->tokenizer, where, error);
}

static icae_status copy_values(const weights *w, const icae_safetensors_entry *tensor,
                               icae_adapter *adapter, const icae_param *param,
                               icae_error *error) {
    enum { CHUNK = 4096 };
    float values[CHUNK];
    size_t each = icae_dtype_describe(tensor->dtype)->block_bytes;
    for (int64_t first = 0; first < param->count; first += CHUNK) {
        int64_t n = param->count - first < CHUNK ? param->count - first : CHUNK;
        icae_dtype_widen_f32(tensor->dtype,
                             (const unsigned char *)tensor->data + (size_t)first * each, n,
                             values);
        for (int64_t i = 0; i < n; i++) {
            if (isfinite(values[i])) continue;
            return icae_fail(error, ICAE_FORMAT,
                             "%s: the tensor '%s' holds a number that is not finite at place "
                             "%" PRId64 "; the file is damaged, fetch it again",
                             w->path, icae_quote_string(tensor->name).text, first + i);
        }
        icae_adapter_set(adapter, param, first, n, values);
    }
    return ICAE_OK;
}

/* The file's names are ours between its prefix and ending. */
static icae_status copy_all(const weights *w, icae_adapter *adapter, icae_error *error) {
    const icae_params *params = &adapter->params;
    icae_status status = ICAE_OK;
    for (size_t i = 0; i < w->n_tensors && !status; i++) {
        const icae_safetensors_entry *tensor = &w->tensors[i];
        char path[96], name[128];
        place at;
        const icae_param *param = &params->list[params->n_params - 1]; /* the table */
        if (parse_name(tensor->name, &at)) {
            icae_module_path(at.layer, at.module, path, sizeof path);
            snprintf(name, sizeof name, "%s.lora_%c", path, at.is_b ? 'B' : 'A');
            param = icae_params_find(params, name);
        }
        status = param ? copy_values(w, tensor, adapter, param, error)
                       : icae_fail(error, ICAE_MISMATCH, "%s: the base has no place for '%s'",
                                   w->path, icae_quote_string(tensor->name).text);
    }
    return status;
}

static icae_status convert(const weights *w, icae_adapter **adapter, const icae_model *model,
                           const icae_released_options *options, icae_backend *be,
                           bool for_training, icae_error *error) {
    icae_released_facts facts;
    icae_adapter_settings settings;
    icae_status status = describe(w, &facts, error);
    if (!status) status = check_base(w, &facts, model, error);
    if (status) return status;
    char where[256];
    snprintf(where, sizeof where, "%.240s: ", w->path);
    status = choose_settings(&facts, model, options, where, &settings, error);
    if (!status) status = icae_adapter_check(&settings, w->path, error);
    if (!status)
        status = icae_adapter_allocate(adapter, model, &settings, be, for_training, error);
    if (!status) status = copy_all(w, *adapter, error);
    if (status) return status;
    bool is_v1 = w->kind == ICAE_RELEASED_V1;
    if (asprintf(&(*adapter)->summary_json, "{\"converted_from\": \"released ICAE %s\"}",
                 is_v1 ? "v1" : "v2") < 0) {
        (*adapter)->summary_json = NULL;
        return icae_fail_memory(error, w->path);
    }
    (*adapter)->fingerprint = icae_adapter_hash(*adapter);
    return ICAE_OK;
}

icae_status icae_released_convert(icae_adapter **adapter, const char *path,
                                  const icae_model *model, const icae_released_options *options,
                                  icae_backend *be, bool for_training, icae_error *error) {
    static const icae_released_options as_released = {0};
    *adapter = NULL;
    weights w;
    icae_status status = weights_open(&w, path, error);
    if (status) return status;
    status =
        convert(&w, adapter, model, options ? options : &as_released, be, for_training, error);
    weights_close(&w);
    if (status) {
        icae_adapter_free(*adapter);
        *adapter = NULL;
    }
    return status;
}
