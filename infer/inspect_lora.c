/* SPDX-License-Identifier: MIT */
/*
 * LoRA of other programs (PEFT folders, GGUF LoRA) and exported slots for icae inspect.
 *
 * A LoRA does not say which base it is for, but its tensors' names and shapes tell much: the layers it reaches,
 * the width that its matrices expect. What would keep icae convert from taking it is said as a note.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "icae/exchange.h"
#include "formats/quote.h"
#include "inspect.h"

/* ---- what the tensors of a LoRA tell ---- */

typedef struct survey {
    int64_t layers, rank, width; /* 0: not seen; rank -1: they differ */
    bool targets[ICAE_MODULE_COUNT];
    size_t n_a, n_b, n_strange;
    const char *strange; /* the first name that is none of ours */
    int64_t numbers;
} survey;

static const char *const gguf_modules[] = {
#define GGUF_MODULE(name, hf, folder, gguf) gguf,
    ICAE_MODULE_LIST(GGUF_MODULE)
#undef GGUF_MODULE
};

/* The module whose name, between two dots, stands in `name`. */
static icae_module find_module(const char *name, bool is_gguf) {
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        char dotted[32];
        snprintf(dotted, sizeof dotted, ".%s.",
                 is_gguf ? gguf_modules[m] : icae_module_name((icae_module)m));
        if (strstr(name, dotted)) return (icae_module)m;
    }
    return ICAE_MODULE_COUNT;
}

static void survey_tensor(survey *s, const char *name, bool is_gguf, int rank,
                          const int64_t *shape) {
    int64_t count = 1;
    for (int r = 0; r < rank; r++)
        count *= shape[r];
    s->numbers += count;
    const char *start = strstr(name, is_gguf ? "blk." : "layers."),
               *digits = start ? strchr(start, '.') + 1 : "";
    bool is_a = strstr(name, is_gguf ? ".lora_a" : ".lora_A") != NULL;
    bool is_b = strstr(name, is_gguf ? ".lora_b" : ".lora_B") != NULL;
    icae_module module = find_module(name, is_gguf);
    if (!isdigit((unsigned char)*digits) || is_a == is_b || module == ICAE_MODULE_COUNT ||
        rank != 2) {
        if (!s->n_strange++) s->strange = name;
        return;
    }
    int64_t layer = strtoll(digits, NULL, 10), r = shape[is_a ? 0 : 1];
    if (layer < INT32_MAX && layer >= s->layers) s->layers = layer + 1;
    s->rank = s->rank == 0 || s->rank == r ? r : -1;
    s->targets[module] = true;
    /* What o and down read is not the hidden state. */
    if (is_a && module != ICAE_MODULE_O && module != ICAE_MODULE_DOWN) s->width = shape[1];
    if (is_a)
        s->n_a++;
    else
        s->n_b++;
}

static void survey_facts(facts *f, const survey *s) {
    icae_text targets = {0};
    size_t expected = 0;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        if (!s->targets[m]) continue;
        expected += (size_t)s->layers;
        icae_text_printf(&targets, "%s%s", targets.length ? " " : "",
                         icae_module_name((icae_module)m));
    }
    if (s->rank > 0) fact_count(f, "rank", "LoRA rank", s->rank);
    fact_text(f, "targets", "LoRA on", "%s", icae_text_string(&targets));
    fact_count(f, "layers", "layers", s->layers);
    if (s->width) fact_count(f, "width", "for bases of width", s->width);
    fact_count(f, "trained_numbers", "trained numbers", s->numbers);
    icae_text_release(&targets);
    if (s->rank < 0) fact_note(f, "wrong: its pairs are not all of one rank.");
    if (s->n_strange) {
        fact_note(f, "wrong: %zu tensors are no LoRA of a module that icae knows, such as %s",
                  s->n_strange, icae_quote_string(s->strange).text);
    }
    if (s->n_a != s->n_b) {
        fact_note(f, "wrong: %zu matrices A, but %zu matrices B.", s->n_a, s->n_b);
    } else if (s->n_a != expected) {
        fact_note(f, "wrong: %zu pairs, where every layer would make %zu.", s->n_a, expected);
    }
}

/* What the memory table beside it says, or that there is none. */
static void memory_facts(facts *f, const char *path) {
    icae_safetensors file = {0};
    icae_error why = {0};
    if (!icae_path_exists(path)) {
        fact_note(f,
                  "It has no memory tokens (%s): a plain LoRA. To use it as an ICAE's "
                  "encoder, icae convert wants --memory.",
                  path);
        return;
    }
    if (icae_safetensors_open(&file, path, &why)) {
        fact_note(f, "wrong: %s", why.message);
        return;
    }
    const icae_safetensors_entry *table =
        icae_safetensors_find(&file, "memory_token_embed.weight");
    if (!table || table->rank != 2 || table->shape[0] <= ICAE_TASK_COUNT) {
        fact_note(f, "wrong: %s holds no memory_token_embed.weight [k+3, D]", path);
    } else {
        fact_count(f, "memory_rows", "memory rows", table->shape[0]);
    }
    const char *settings = icae_safetensors_metadata(&file, "icae");
    icae_json *json = NULL;
    if (!settings) {
        fact_note(f,
                  "It does not say rate and layout: icae convert wants --rate and --layout.");
    } else if (icae_json_parse(&json, path, settings, strlen(settings), &why)) {
        fact_note(f, "wrong: %s", why.message);
    } else {
        fact_members(f, icae_json_root(json));
    }
    icae_json_free(json);
    icae_safetensors_close(&file);
}

/* A rate and a layout do not change whether a LoRA fits. */
static const icae_import any_layout = {.compression_rate = 1, .layout = -1};

static icae_status read_peft(icae_adapter **adapter, const char *path, const icae_model *model,
                             icae_backend *be, icae_error *error) {
    return icae_adapter_import_peft(adapter, path, &any_layout, model, be, error);
}

static icae_status read_gguf(icae_adapter **adapter, const char *path, const icae_model *model,
                             icae_backend *be, icae_error *error) {
    return icae_adapter_import_gguf(adapter, path, &any_layout, model, be, error);
}

/* ---- PEFT ---- */

static icae_status config_facts(facts *f, const char *folder, icae_error *error) {
    char *path = icae_path_join(folder, "adapter_config.json");
    icae_json *json = NULL;
    icae_status status =
        path ? icae_json_open(&json, path, error) : icae_fail_memory(error, folder);
    free(path);
    if (status) return status;
    const icae_json_value *root = icae_json_root(json);
    const char *base = icae_json_as_string(icae_json_member(root, "base_model_name_or_path"));
    const char *kind = icae_json_as_string(icae_json_member(root, "peft_type"));
    double alpha;
    fact_text(f, "kind", "this is", "a PEFT folder (%s) without icae.json",
              kind ? kind : "of unknown type");
    fact_text(f, "base", "its base", "%s", base && *base ? base : "not said");
    if (icae_json_as_number(icae_json_member(root, "lora_alpha"), &alpha))
        fact_text(f, "alpha", "LoRA alpha", "%g", alpha);
    icae_json_free(json);
    icae_adapter_settings settings = {0};
    icae_error why = {0};
    if (icae_peft_settings(folder, &settings, &why)) fact_note(f, "wrong: %s", why.message);
    return ICAE_OK;
}

icae_status inspect_peft(facts *f, const char *path, const options *given, icae_error *error) {
    icae_status status = config_facts(f, path, error);
    if (status) return status;
    char *weights = icae_path_join(path, "adapter_model.safetensors");
    char *memory = icae_path_join(path, "memory.safetensors");
    icae_safetensors file = {0};
    icae_error why = {0};
    if (!weights || !memory) {
        status = icae_fail_memory(error, path);
    } else if (!icae_path_exists(weights)) {
        fact_note(f, "wrong: there is no adapter_model.safetensors%s",
                  has_file(path, "adapter_model.bin")
                      ? ", only adapter_model.bin; save it again with safe_serialization=True"
                      : "");
    } else if (icae_safetensors_open(&file, weights, &why)) {
        fact_note(f, "wrong: %s", why.message);
    } else {
        survey s = {0};
        for (size_t i = 0; i < file.n_entries; i++) {
            survey_tensor(&s, file.entries[i].name, false, file.entries[i].rank,
                          file.entries[i].shape);
        }
        survey_facts(f, &s);
        icae_safetensors_close(&file);
    }
    if (!status) memory_facts(f, memory);
    if (!status && given->base) status = try_on_base(f, path, given->base, read_peft, error);
    free(weights);
    free(memory);
    return status;
}

/* ---- GGUF LoRA ---- */

static bool is_text(const icae_gguf *file, const char *key, const char *expected) {
    icae_gguf_string text;
    return icae_gguf_get_string(file, key, &text) && text.bytes == strlen(expected) &&
           !memcmp(text.data, expected, text.bytes);
}

bool is_gguf_adapter(const icae_gguf *file) {
    return is_text(file, "general.type", "adapter");
}

icae_status inspect_gguf_lora(facts *f, const char *path, const icae_gguf *file,
                              const options *given, icae_error *error) {
    fact_text(f, "kind", "this is", "a GGUF adapter for llama.cpp");
    icae_gguf_string text;
    if (icae_gguf_get_string(file, "general.architecture", &text)) {
        fact_text(f, "architecture", "for bases of", "%.*s",
                  (int)(text.bytes < 64 ? text.bytes : 64), text.data);
    } else {
        fact_note(f, "wrong: it does not say general.architecture.");
    }
    if (!is_text(file, "adapter.type", "lora"))
        fact_note(f, "wrong: adapter.type is not lora.");
    double alpha = 0;
    if (icae_gguf_get_number(file, "adapter.lora.alpha", &alpha))
        fact_text(f, "alpha", "LoRA alpha", "%g", alpha);
    else
        fact_note(f, "It does not say adapter.lora.alpha: llama.cpp takes a scale of 1.");
    survey s = {0};
    for (size_t i = 0; i < file->n_tensors; i++) {
        survey_tensor(&s, file->tensors[i].name, true, file->tensors[i].rank,
                      file->tensors[i].shape);
    }
    survey_facts(f, &s);
    char *memory = icae_memory_beside(path);
    if (!memory) return icae_fail_memory(error, path);
    memory_facts(f, memory);
    free(memory);
    return given->base ? try_on_base(f, path, given->base, read_gguf, error) : ICAE_OK;
}

/* ---- exported slots ---- */

bool is_embeds_file(const char *path) {
    icae_safetensors file = {0};
    if (icae_safetensors_open(&file, path, NULL)) return false;
    bool is_embeds = icae_safetensors_find(&file, "inputs_embeds") != NULL;
    icae_safetensors_close(&file);
    return is_embeds;
}

icae_status inspect_embeds(facts *f, const char *path, icae_error *error) {
    icae_safetensors file = {0};
    icae_status status = icae_safetensors_open(&file, path, error);
    if (status) return status;
    const icae_safetensors_entry *rows = icae_safetensors_find(&file, "inputs_embeds"),
                                 *places = icae_safetensors_find(&file, "position_ids");
    fact_text(f, "kind", "this is", "slots exported as input embeddings for other programs");
    if (rows && rows->rank == 2) {
        fact_count(f, "rows", "rows", rows->shape[0]);
        fact_count(f, "width", "for bases of width", rows->shape[1]);
        fact_text(f, "type", "type", "%s", icae_dtype_describe(rows->dtype)->name);
    } else {
        fact_note(f, "wrong: inputs_embeds is no matrix [n, D].");
    }
    if (!places) {
        fact_note(f, "wrong: position_ids are missing.");
    } else if (rows && (places->rank != 1 || places->shape[0] != rows->shape[0])) {
        fact_note(f, "wrong: position_ids are not one for each row.");
    }
    static const struct {
        const char *key, *label;
    } entries[] = {
        {"task", "task"},
        {"layout", "layout"},
        {"next_position", "next position"},
        {"stop_token", "stop token"},
        {"source_tokens", "stands for tokens"},
        {"base", "made with base"},
        {"adapter", "and adapter"},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        const char *value = icae_safetensors_metadata(&file, entries[i].key);
        if (value)
            fact_text(f, entries[i].key, entries[i].label, "%s", value);
        else
            fact_note(f, "It does not say its %s.", entries[i].key);
    }
    icae_safetensors_close(&file);
    return ICAE_OK;
}
