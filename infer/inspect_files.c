/* SPDX-License-Identifier: MIT */
/* Models, GGUF files, safetensors files and slots files for icae inspect. */
#include <inttypes.h>
#include <string.h>

#include "icae/chat.h"
#include "icae/slots.h"
#include "inspect.h"

/* ---- models ---- */

static void token_fact(facts *f, const char *key, const char *label,
                       const icae_tokenizer *tokenizer, int32_t id) {
    icae_text text = {0};
    if (id >= 0) icae_tokenizer_append_token(tokenizer, id, false, &text);
    if (id < 0)
        fact_text(f, key, label, "none");
    else
        fact_text(f, key, label, "%s (%d)", icae_text_string(&text), id);
    icae_text_release(&text);
}

static void model_facts(facts *f, const icae_model *model) {
    const icae_model_config *c = &model->config;
    fact_text(f, "architecture", "architecture", "%s", c->architecture);
    fact_count(f, "parameters", "parameters", model->n_parameters);
    fact_bytes(f, "weight_bytes", "weights", model->weight_bytes);
    fact_count(f, "layers", "layers", c->layers);
    fact_count(f, "width", "width", c->width);
    fact_text(f, "heads", "heads",
              "%" PRId64 " of width %" PRId64 ", %" PRId64 " for keys and values", c->heads,
              c->head_width, c->kv_heads);
    fact_count(f, "feed_forward", "feed forward", c->feed_forward);
    fact_count(f, "vocabulary", "vocabulary", c->vocabulary);
    fact_text(f, "head", "output head", "%s",
              c->has_own_head ? "its own" : "the embedding again");
    fact_count(f, "context_length", "context", c->context_length);
    if (c->window) fact_count(f, "window", "sliding window", c->window);
    if (c->window_period) {
        fact_text(f, "window_period", "without a window", "every layer of number %" PRId64 "n",
                  c->window_period);
    }
    fact_text(f, "rope_theta", "rope theta", "%g", c->rope_theta);
    if (c->local_rope_theta > 0) {
        fact_text(f, "local_rope_theta", "rope theta in windows", "%g", c->local_rope_theta);
    }
    fact_bytes(f, "kv_cache_bytes_per_token", "KV cache a token", icae_cache_bytes(c, 1));
    if (model->tokenizer) {
        const icae_tokenizer *t = model->tokenizer;
        fact_count(f, "tokenizer_size", "tokens", icae_tokenizer_size(t));
        token_fact(f, "bos", "begin of text", t, icae_tokenizer_bos(t));
        token_fact(f, "eos", "end of text", t, icae_tokenizer_eos(t));
        bool is_known;
        fact_text(f, "chat_template", "chat template", "%s", icae_chat_choose(t, &is_known));
        if (!is_known)
            fact_note(f, "Its own chat template is none of those known here; this one was "
                         "chosen by the tokens of its vocabulary.");
    }
    fact_text(f, "fingerprint", "fingerprint", "%016" PRIx64, model->fingerprint);
}

icae_status inspect_model(facts *f, const char *path, icae_error *error) {
    icae_model *model = NULL;
    icae_status status = icae_model_open(&model, path, error);
    if (status) return status;
    fact_text(f, "kind", "this is", "a base model (Hugging Face folder)");
    model_facts(f, model);
    icae_model_close(model);
    return ICAE_OK;
}

icae_status inspect_gguf(facts *f, const char *path, const options *given, icae_error *error) {
    icae_gguf file = {0};
    icae_status status = icae_gguf_open(&file, path, error);
    if (status) return status;
    if (is_gguf_adapter(&file)) {
        status = inspect_gguf_lora(f, path, &file, given, error);
        icae_gguf_close(&file);
        return status;
    }
    fact_text(f, "kind", "this is", "a GGUF file, version %u", file.version);
    icae_gguf_string name;
    if (icae_gguf_get_string(&file, "general.name", &name)) {
        fact_text(f, "name", "name", "%.*s", (int)(name.bytes < 200 ? name.bytes : 200),
                  name.data);
    }
    fact_count(f, "metadata", "metadata keys", (int64_t)file.n_items);
    fact_count(f, "tensors", "tensors", (int64_t)file.n_tensors);
    int64_t of_type[ICAE_DTYPE_COUNT] = {0};
    for (size_t i = 0; i < file.n_tensors; i++)
        of_type[file.tensors[i].dtype]++;
    icae_text types = {0};
    for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
        if (!of_type[d]) continue;
        icae_text_printf(&types, "%s%lld %s", types.length ? ", " : "", (long long)of_type[d],
                         icae_dtype_describe((icae_dtype)d)->name);
    }
    fact_text(f, "types", "their types", "%s", icae_text_string(&types));
    icae_text_release(&types);
    icae_gguf_close(&file);
    icae_model *model = NULL;
    icae_error why = {0};
    if (icae_model_open(&model, path, &why)) {
        fact_note(f, "It cannot be used as a base model here: %s", why.message);
        return ICAE_OK;
    }
    model_facts(f, model);
    icae_model_close(model);
    return ICAE_OK;
}

/* ---- safetensors and slots ---- */

bool is_slots_file(const char *path) {
    icae_safetensors file = {0};
    if (icae_safetensors_open(&file, path, NULL)) return false;
    const char *format = icae_safetensors_metadata(&file, "format");
    bool is_slots = format && strncmp(format, "icae-slots", 10) == 0;
    icae_safetensors_close(&file);
    return is_slots;
}

icae_status inspect_safetensors(facts *f, const char *path, icae_error *error) {
    icae_safetensors file = {0};
    icae_status status = icae_safetensors_open(&file, path, error);
    if (status) return status;
    fact_text(f, "kind", "this is", "a safetensors file, no slots file");
    int64_t numbers = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < file.n_entries; i++) {
        int64_t count = 1;
        for (int r = 0; r < file.entries[i].rank; r++)
            count *= file.entries[i].shape[r];
        numbers += count;
        bytes += file.entries[i].bytes;
    }
    fact_count(f, "tensors", "tensors", (int64_t)file.n_entries);
    fact_count(f, "numbers", "numbers in them", numbers);
    fact_bytes(f, "bytes", "bytes in them", bytes);
    enum { SHOWN = 8 };
    for (size_t i = 0; i < file.n_entries && i < SHOWN; i++) {
        const icae_safetensors_entry *e = &file.entries[i];
        icae_text shape = {0};
        for (int r = 0; r < e->rank; r++)
            icae_text_printf(&shape, "%s%lld", r ? ", " : "", (long long)e->shape[r]);
        fact_note(f, "  %s [%s] %s", e->name, icae_text_string(&shape),
                  icae_dtype_describe(e->dtype)->name);
        icae_text_release(&shape);
    }
    if (file.n_entries > SHOWN) fact_note(f, "  and %zu more", file.n_entries - SHOWN);
    icae_safetensors_close(&file);
    return ICAE_OK;
}

/* With -m and -a the slots must have been made by these. */
static icae_status try_slots(facts *f, const char *path, const options *given,
                             icae_error *error) {
    icae_model *model = NULL;
    icae_backend *be = NULL;
    icae_adapter *adapter = NULL;
    icae_slots slots = {0};
    icae_status status = icae_model_open(&model, given->base, error);
    if (status) return status;
    status = icae_backend_create(&be, NULL, 1, error);
    if (!status) status = icae_adapter_load(&adapter, given->adapter, model, be, false, error);
    if (!status) status = icae_slots_load(&slots, path, model, adapter, error);
    if (!status) fact_text(f, "fits", "fits", "%s with %s", given->base, given->adapter);
    icae_slots_release(&slots);
    if (adapter) icae_adapter_free(adapter);
    if (be) icae_backend_free(be);
    icae_model_close(model);
    return status;
}

icae_status inspect_slots(facts *f, const char *path, const options *given, icae_error *error) {
    icae_slots slots = {0};
    icae_status status = icae_slots_load(&slots, path, NULL, NULL, error);
    if (status) return status;
    int64_t rows = icae_slots_vectors(&slots);
    fact_text(f, "kind", "this is", "a slots file: a compressed text");
    fact_count(f, "tokens", "stands for tokens", slots.n_tokens);
    if (slots.source_bytes) {
        fact_bytes(f, "text_bytes", "of a text of", slots.source_bytes);
    } else {
        fact_note(f, "It was joined from several texts.");
    }
    fact_count(f, "spans", "spans", slots.n_spans);
    if (slots.n_raw) {
        fact_count(f, "raw_spans", "of them kept as text", slots.n_raw);
        fact_count(f, "raw_tokens", "with tokens", icae_slots_raw_tokens(&slots));
    }
    fact_count(f, "slots", "slots", rows);
    fact_count(f, "width", "width", slots.width);
    fact_bytes(f, "slot_bytes", "slots take",
               (uint64_t)rows * (uint64_t)slots.width * sizeof(float));
    fact_text(f, "base_fingerprint", "made with base", "%016" PRIx64, slots.base_fingerprint);
    fact_text(f, "adapter_fingerprint", "and adapter", "%016" PRIx64,
              slots.adapter_fingerprint);
    fact_text(f, "tokenizer_fingerprint", "and tokenizer", "%016" PRIx64,
              slots.tokenizer_fingerprint);
    icae_slots_release(&slots);
    return given->base && given->adapter ? try_slots(f, path, given, error) : ICAE_OK;
}
