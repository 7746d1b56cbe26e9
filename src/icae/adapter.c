/* SPDX-License-Identifier: MIT */
/*
 * Adapters in memory: settings, parameters, first values, hash. Their files are adapter_file.c
 * (reading) and adapter_save.c (writing).
 *
 * Every parameter draws its first values from a stream named after it, so the values of one do not
 * depend on which others there are, and the f32 and f64 builds start from the same floats.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/adapter_internal.h"
#include "icae/chat.h"
#include "icae/log.h"
#include "icae/rng.h"

enum { CHUNK = 4096 }; /* numbers that pass through the stack at a time */

const char *const icae_memory_init_names[] = {"base", "normal", NULL};
const char *const icae_memory_inputs_names[] = {"learned", "pooled", NULL};
const char *const icae_slot_values_names[] = {"hidden", "scaled", "residual", NULL};

/* ---- settings ---- */

icae_adapter_settings icae_adapter_defaults(const icae_model *model) {
    icae_adapter_settings settings = {.memory_slots = 128,
                                      .compression_rate = 4,
                                      .layout = ICAE_LAYOUT_UNIFORM,
                                      .memory_init = ICAE_MEMORY_INIT_BASE,
                                      .rank = 128,
                                      .alpha = 32,
                                      .dropout = 0.05};
    settings.targets[ICAE_MODULE_Q] = settings.targets[ICAE_MODULE_V] = true;
    icae_chat_wish wish = {.name = icae_chat_choose(model->tokenizer, NULL)};
    /* Without the tokenizer: the choice has asked it, and nothing can fail any more. */
    icae_status status = icae_chat_apply(&settings, &wish, NULL, "", NULL);
    assert(!status && "a preset that was chosen is a preset");
    (void)status;
    return settings;
}

static icae_status check_integer(const char *where, const char *name, int64_t value,
                                 int64_t most, icae_error *error) {
    if (value >= 1 && value <= most) return ICAE_OK;
    return icae_fail(error, ICAE_INVALID, "%s: %s is %lld, expected 1 to %lld", where, name,
                     (long long)value, (long long)most);
}

icae_status icae_adapter_check(const icae_adapter_settings *settings, const char *where,
                               icae_error *error) {
    const struct {
        const char *name;
        int64_t value, most;
    } counts[] = {
        {"memory_slots", settings->memory_slots, ICAE_ADAPTER_MOST_SLOTS},
        {"compression_rate", settings->compression_rate, ICAE_ADAPTER_MOST_RATE},
        {"the LoRA rank", settings->rank, ICAE_ADAPTER_MOST_RANK},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        icae_status status =
            check_integer(where, counts[i].name, counts[i].value, counts[i].most, error);
        if (status) return status;
    }
    if (!(settings->alpha > 0 && isfinite(settings->alpha))) {
        return icae_fail(error, ICAE_INVALID, "%s: alpha is %g, expected a number above 0",
                         where, settings->alpha);
    }
    if (!(settings->dropout >= 0 && settings->dropout < 1)) {
        return icae_fail(error, ICAE_INVALID, "%s: dropout is %g, expected 0 to below 1", where,
                         settings->dropout);
    }
    if ((unsigned)settings->layout >= ICAE_LAYOUT_COUNT ||
        (unsigned)settings->memory_init >= ICAE_MEMORY_INIT_COUNT ||
        (unsigned)settings->memory_inputs >= ICAE_MEMORY_INPUTS_COUNT ||
        (unsigned)settings->slot_values >= ICAE_SLOT_VALUES_COUNT) {
        return icae_fail(
            error, ICAE_INVALID,
            "%s: layout, memory_init, memory_inputs or slot_values is none of the known",
            where);
    }
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        if (settings->targets[m]) return ICAE_OK;
    }
    return icae_fail(error, ICAE_INVALID,
                     "%s: no target module; name at least one, such as q_proj", where);
}

int32_t icae_adapter_stop(const icae_adapter_settings *settings,
                          const icae_tokenizer *tokenizer) {
    if (settings && settings->has_stop_id) return settings->stop_id;
    return tokenizer ? icae_tokenizer_eos(tokenizer) : -1;
}

icae_status icae_adapter_encode(const icae_adapter_settings *settings,
                                const icae_tokenizer *tokenizer, const char *text, size_t bytes,
                                int32_t **ids, size_t *count, icae_error *error) {
    icae_status status =
        icae_tokenizer_encode(tokenizer, text, bytes, false, ids, count, error);
    int32_t bos = icae_tokenizer_bos(tokenizer);
    if (status || !settings || !settings->context_bos || bos < 0) return status;
    int32_t *more = realloc(*ids, (*count + 1) * sizeof *more);
    if (!more) {
        free(*ids);
        *ids = NULL;
        return icae_fail_memory(error, "the tokens of a text");
    }
    memmove(more + 1, more, *count * sizeof *more);
    more[0] = bos;
    *ids = more;
    ++*count;
    return ICAE_OK;
}

int64_t icae_adapter_task_tokens(const icae_adapter_settings *settings, icae_task task) {
    if (task == ICAE_TASK_LM) return settings->no_lm_token ? 0 : 1;
    return task == ICAE_TASK_FT && settings->closes_prompt ? 2 : 1;
}

/* ---- parameters ---- */

static bool add_pair(icae_adapter *adapter, const icae_model_config *config, int64_t layer,
                     icae_module module) {
    char path[96], name[128];
    const int64_t R = adapter->settings.rank;
    const int64_t a[] = {R, icae_module_cols(config, module)};
    const int64_t b[] = {icae_module_rows(config, module), R};
    icae_module_path(layer, module, path, sizeof path);
    snprintf(name, sizeof name, "%s.lora_A", path);
    if (icae_params_add(&adapter->params, name, 2, a) < 0) return false;
    snprintf(name, sizeof name, "%s.lora_B", path);
    return icae_params_add(&adapter->params, name, 2, b) >= 0;
}

static bool add_all(icae_adapter *adapter, const icae_model_config *config) {
    for (int64_t layer = 0; layer < config->layers; layer++) {
        for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
            if (adapter->settings.targets[m] &&
                !add_pair(adapter, config, layer, (icae_module)m)) {
                return false;
            }
        }
    }
    const int64_t table[] = {adapter->settings.memory_slots + ICAE_TASK_COUNT, config->width};
    return icae_params_add(&adapter->params, "memory_token_embed", 2, table) >= 0;
}

/* Points the LoRA set and the memory table at the leaves; the list does not move any more. */
static void connect(icae_adapter *adapter, const icae_model_config *config) {
    icae_param *next = adapter->params.list;
    for (int64_t i = 0; i < config->layers * ICAE_MODULE_COUNT; i++) {
        if (!adapter->settings.targets[i % ICAE_MODULE_COUNT]) continue;
        adapter->lora.a[i] = &next++->tensor;
        adapter->lora.b[i] = &next++->tensor;
    }
    adapter->memory = &next->tensor;
}

/* A span and its slots are one sequence, which the base should know the positions of. */
static void warn_of_long_spans(const icae_adapter_settings *settings, const icae_model *model) {
    int64_t span = settings->memory_slots * settings->compression_rate, positions = span;
    if (settings->layout == ICAE_LAYOUT_APPEND) positions += settings->memory_slots;
    if (positions <= model->config.context_length) return;
    icae_log_warning(
        "spans of up to %lld tokens for %lld slots take %lld positions, the base was "
        "trained on contexts of %lld: expect less of long ones",
        (long long)span, (long long)settings->memory_slots, (long long)positions,
        (long long)model->config.context_length);
}

icae_status icae_adapter_allocate(icae_adapter **out, const icae_model *model,
                                  const icae_adapter_settings *settings, icae_backend *be,
                                  bool for_training, icae_error *error) {
    *out = NULL;
    const int64_t V = model->config.vocabulary;
    if (settings->has_stop_id && (settings->stop_id < 0 || settings->stop_id >= V)) {
        return icae_fail(
            error, ICAE_MISMATCH,
            "the adapter's stop_id is %d, but the base given (%s) has the tokens 0 "
            "to %lld",
            settings->stop_id, model->path ? model->path : "unnamed", (long long)V - 1);
    }
    warn_of_long_spans(settings, model);
    icae_adapter *adapter = calloc(1, sizeof *adapter);
    if (!adapter) return icae_fail_memory(error, "an adapter");
    adapter->settings = *settings;
    adapter->base_fingerprint = model->fingerprint;
    if (model->tokenizer)
        adapter->tokenizer_fingerprint = icae_tokenizer_fingerprint(model->tokenizer);
    size_t n = (size_t)model->config.layers * ICAE_MODULE_COUNT;
    adapter->lora = (icae_lora_set){.rank = settings->rank,
                                    .scale = settings->alpha / (double)settings->rank,
                                    .dropout = settings->dropout,
                                    .a = calloc(n, sizeof *adapter->lora.a),
                                    .b = calloc(n, sizeof *adapter->lora.b)};
    icae_status status;
    if (!adapter->lora.a || !adapter->lora.b || !add_all(adapter, &model->config))
        status = icae_fail_memory(error, "the adapter's table of parameters");
    else
        status = icae_params_allocate(&adapter->params, be, for_training, error);
    if (status) {
        icae_adapter_free(adapter);
        return status;
    }
    connect(adapter, &model->config);
    *out = adapter;
    return ICAE_OK;
}

void icae_adapter_free(icae_adapter *adapter) {
    if (!adapter) return;
    icae_params_release(&adapter->params);
    free(adapter->lora.a);
    free(adapter->lora.b);
    free(adapter->path);
    free(adapter->summary_json);
    free(adapter);
}

/* ---- values ---- */

void icae_adapter_get(const icae_adapter *adapter, const icae_param *param, int64_t first,
                      int64_t count, float *out) {
    assert(first >= 0 && count >= 0 && first + count <= param->count);
    icae_backend *be = adapter->params.be;
    const icae_real *from = adapter->params.values + param->offset + first;
    icae_real chunk[CHUNK];
    for (int64_t done = 0; done < count; done += CHUNK) {
        int64_t n = count - done < CHUNK ? count - done : CHUNK;
        be->k.copy_out(be, chunk, from + done, (size_t)n * sizeof *chunk);
        for (int64_t i = 0; i < n; i++)
            out[done + i] = (float)chunk[i];
    }
}

void icae_adapter_set(icae_adapter *adapter, const icae_param *param, int64_t first,
                      int64_t count, const float *values) {
    assert(first >= 0 && count >= 0 && first + count <= param->count);
    icae_backend *be = adapter->params.be;
    icae_real *to = adapter->params.values + param->offset + first;
    icae_real chunk[CHUNK];
    for (int64_t done = 0; done < count; done += CHUNK) {
        int64_t n = count - done < CHUNK ? count - done : CHUNK;
        for (int64_t i = 0; i < n; i++)
            chunk[i] = (icae_real)values[done + i];
        be->k.copy_in(be, to + done, chunk, (size_t)n * sizeof *chunk);
    }
}

uint64_t icae_adapter_hash(const icae_adapter *adapter) {
    float chunk[CHUNK];
    double scale = adapter->lora.scale;
    uint64_t kind = (uint64_t)adapter->settings.layout |
                    (uint64_t)adapter->settings.memory_inputs << 8 |
                    (uint64_t)adapter->settings.slot_values << 16;
    uint64_t h = icae_hash64(&scale, sizeof scale, kind);
    for (int p = 0; p < adapter->params.n_params; p++) {
        const icae_param *param = &adapter->params.list[p];
        h = icae_hash64(param->name, strlen(param->name), h);
        h = icae_hash64(param->shape, (size_t)param->rank * sizeof *param->shape, h);
        for (int64_t first = 0; first < param->count; first += CHUNK) {
            int64_t n = param->count - first < CHUNK ? param->count - first : CHUNK;
            icae_adapter_get(adapter, param, first, n, chunk);
            h = icae_hash64(chunk, (size_t)n * sizeof *chunk, h);
        }
    }
    return h;
}

/* ---- first values ---- */

typedef struct distribution {
    bool is_normal; /* else uniform */
    double center, spread;
} distribution;

static void draw(icae_adapter *adapter, const icae_param *param, uint64_t seed,
                 distribution from) {
    icae_rng rng = {.seed = seed, .stream = icae_hash64(param->name, strlen(param->name), 0)};
    float chunk[CHUNK];
    for (int64_t first = 0; first < param->count; first += CHUNK) {
        int64_t n = param->count - first < CHUNK ? param->count - first : CHUNK;
        for (int64_t i = 0; i < n; i++) {
            double x = from.is_normal ? icae_rng_normal(&rng) : 2 * icae_rng_uniform(&rng) - 1;
            chunk[i] = (float)(from.center + from.spread * x);
        }
        icae_adapter_set(adapter, param, first, n, chunk);
    }
}

icae_status icae_adapter_create(icae_adapter **out, const icae_model *model,
                                const icae_adapter_settings *settings, uint64_t seed,
                                icae_backend *be, bool for_training, icae_error *error) {
    *out = NULL;
    icae_status status = icae_adapter_check(settings, "adapter settings", error);
    if (!status)
        status = icae_chat_check(settings, model->tokenizer, "adapter settings: ", error);
    if (!status) status = icae_adapter_allocate(out, model, settings, be, for_training, error);
    if (status) return status;
    icae_adapter *adapter = *out;
    /* lora_B stays zero: a fresh adapter changes nothing. PEFT draws A with He's rule at a = sqrt(5),
     * which is uniform in +-1/sqrt(K). */
    int table = adapter->params.n_params - 1; /* pairs of A and B, then the memory table */
    for (int p = 0; p < table; p += 2) {
        const icae_param *a = &adapter->params.list[p];
        draw(adapter, a, seed, (distribution){.spread = 1 / sqrt((double)a->shape[1])});
    }
    distribution memory = {.is_normal = true, .center = 0, .spread = 1};
    if (settings->memory_init == ICAE_MEMORY_INIT_BASE) {
        memory.center = model->embedding_mean;
        memory.spread = model->embedding_deviation;
    }
    draw(adapter, &adapter->params.list[table], seed, memory);
    adapter->fingerprint = icae_adapter_hash(adapter);
    return ICAE_OK;
}
