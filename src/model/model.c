/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a base model: which format it is, then weight by weight with the shape that the
 * config promises. The formats themselves are model_gguf.c and model_folder.c with shards.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/rng.h"
#include "model/model_internal.h"

icae_status icae_model_check_config(const icae_model_config *config, const char *path,
                                    icae_error *error) {
    const struct {
        const char *name;
        int64_t value, most;
    } ranges[] = {
        {"vocabulary size", config->vocabulary, 1 << 24},
        {"hidden size", config->width, 1 << 17},
        {"number of layers", config->layers, 4096},
        {"number of attention heads", config->heads, 4096},
        {"number of key/value heads", config->kv_heads, 4096},
        {"head width", config->head_width, 1024},
        {"feed-forward size", config->feed_forward, 1 << 20},
        {"context length", config->context_length, 1 << 30},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (ranges[i].value < 1 || ranges[i].value > ranges[i].most) {
            return icae_fail(error, ICAE_FORMAT, "%s: the %s is %lld, expected 1 to %lld", path,
                             ranges[i].name, (long long)ranges[i].value,
                             (long long)ranges[i].most);
        }
    }
    if (config->heads % config->kv_heads) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: %lld attention heads are not a multiple of %lld key/value heads",
                         path, (long long)config->heads, (long long)config->kv_heads);
    }
    if (config->head_width % 2) {
        return icae_fail(error, ICAE_FORMAT, "%s: the head width %lld is odd; rope needs pairs",
                         path, (long long)config->head_width);
    }
    if (!(config->norm_eps > 0 && config->norm_eps < 1) ||
        !(config->rope_theta > 0 && isfinite(config->rope_theta)) ||
        !(config->local_rope_theta >= 0 && isfinite(config->local_rope_theta))) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: norm epsilon %g or rope theta %g (in windows %g) makes no sense",
                         path, config->norm_eps, config->rope_theta, config->local_rope_theta);
    }
    if (!(config->attention_scale > 0 && isfinite(config->attention_scale))) {
        return icae_fail(error, ICAE_FORMAT, "%s: the attention scale %g makes no sense", path,
                         config->attention_scale);
    }
    const char *rope_fault = icae_rope_check(&config->rope);
    if (rope_fault) {
        return icae_fail(error, ICAE_FORMAT, "%s: rope scaling: %s", path, rope_fault);
    }
    return ICAE_OK;
}

/* ---- weights ---- */

typedef struct loader {
    icae_model *model;
    const icae_weight_source *source;
    const icae_architecture *architecture;
    bool is_checking; /* names, shapes and types only: nothing is read or kept */
    icae_error *error;
} loader;

/* Finds a weight and insists on its shape. */
static icae_status find_weight(loader *load, int weight, int64_t layer, int rank,
                               const int64_t *shape, icae_weight_view *view, char name[128]) {
    icae_model *model = load->model;
    load->source->name(&model->config, weight, layer, name, 128);
    if (!load->source->find(model, name, view)) {
        return icae_fail(load->error, ICAE_FORMAT,
                         "%s: the tensor %s is missing; the file is incomplete or of another "
                         "architecture than it says",
                         model->path, name);
    }
    bool fits = view->rank == rank;
    for (int i = 0; fits && i < rank; i++)
        fits = view->shape[i] == shape[i];
    if (!fits) {
        return icae_fail(
            load->error, ICAE_MISMATCH,
            "%s: the tensor %s does not have the shape [%lld%s%lld] that the config asks "
            "for",
            model->path, name, (long long)shape[0], rank > 1 ? ", " : "] x [",
            rank > 1 ? (long long)shape[1] : 1LL);
    }
    return ICAE_OK;
}

/* Some 64-byte samples of a weight, enough to tell two models apart without reading gigabytes. */
static void add_to_fingerprint(icae_model *model, const char *name,
                               const icae_weight_view *view) {
    enum { SAMPLES = 16, SAMPLE_BYTES = 64 };
    uint64_t h = icae_hash64(name, strlen(name), model->fingerprint);
    h = icae_mix64(h, (uint64_t)view->dtype);
    for (int i = 0; i < view->rank; i++)
        h = icae_mix64(h, (uint64_t)view->shape[i]);
    if (view->bytes <= SAMPLES * SAMPLE_BYTES) {
        h = icae_hash64(view->data, view->bytes, h);
    } else {
        size_t step = (view->bytes - SAMPLE_BYTES) / (SAMPLES - 1);
        for (size_t i = 0; i < SAMPLES; i++) {
            h = icae_hash64((const unsigned char *)view->data + i * step, SAMPLE_BYTES, h);
        }
    }
    model->fingerprint = h;
}

static void count_weight(icae_model *model, const char *name, const icae_weight_view *view) {
    int64_t count = 1;
    for (int i = 0; i < view->rank; i++)
        count *= view->shape[i];
    model->n_parameters += count;
    model->weight_bytes += view->bytes;
    add_to_fingerprint(model, name, view);
}

/* Whether the rows of this weight, or the numbers of this bias, stand in llama.cpp's order. */
static bool is_paired(const loader *load, int module) {
    return load->source->is_gguf && load->architecture->has_paired_rows_in_gguf &&
           (module == ICAE_MODULE_Q || module == ICAE_MODULE_K);
}

/* llama.cpp stores the two halves of every q and k head interleaved: its row 2i is our row i, its row
 * 2i+1 our row i + E/2. Rows are whole blocks in every type, so bytes can be moved. */
static const void *unpair_rows(icae_model *model, int64_t n_rows, size_t row_bytes,
                               const void *data) {
    unsigned char *rows = icae_arena_array(&model->arena, (size_t)n_rows, row_bytes);
    if (!rows) return NULL;
    int64_t E = model->config.head_width, half = E / 2;
    for (int64_t row = 0; row < n_rows; row++) {
        int64_t head = row / E, i = row % E;
        int64_t from = head * E + (i < half ? 2 * i : 2 * (i - half) + 1);
        memcpy(rows + (size_t)row * row_bytes,
               (const unsigned char *)data + (size_t)from * row_bytes, row_bytes);
    }
    return rows;
}

/* A norm's weight or a bias, widened. */
static icae_status load_vector(loader *load, int weight, int64_t layer, int64_t n,
                               icae_tensor *out) {
    icae_weight_view view;
    char name[128];
    icae_status status = find_weight(load, weight, layer, 1, &n, &view, name);
    if (status) return status;
    if (n % icae_dtype_describe(view.dtype)->block_values) {
        return icae_fail(load->error, ICAE_UNSUPPORTED, "%s: the vector %s has the type %s",
                         load->model->path, name, icae_dtype_describe(view.dtype)->name);
    }
    if (load->is_checking) return ICAE_OK;
    icae_real *values = icae_arena_array(&load->model->arena, (size_t)n, sizeof *values);
    if (!values) return icae_fail_memory(load->error, name);
    icae_dtype_widen(view.dtype, view.data, n, values);
    bool is_offset = weight < ICAE_WEIGHT_MODULE && !load->source->is_gguf &&
                     load->architecture->has_offset_norms;
    for (int64_t i = 0; i < n && is_offset; i++)
        values[i] += 1;
    const void *data = values;
    if (weight >= ICAE_WEIGHT_BIAS && is_paired(load, weight - ICAE_WEIGHT_BIAS)) {
        data = unpair_rows(load->model, n, sizeof *values, values);
        if (!data) return icae_fail_memory(load->error, name);
    }
    *out = icae_leaf(ICAE_DTYPE_REAL, 1, &n, data, NULL);
    count_weight(load->model, name, &view);
    return ICAE_OK;
}

/* The same where the config promises it. A file that holds it all the same is of an architecture that
 * this one only resembles. */
static icae_status load_optional(loader *load, bool is_promised, int weight, int64_t layer,
                                 int64_t n, icae_tensor *out) {
    if (is_promised) return load_vector(load, weight, layer, n, out);
    icae_weight_view view;
    char name[128];
    load->source->name(&load->model->config, weight, layer, name, sizeof name);
    if (!load->source->find(load->model, name, &view)) return ICAE_OK;
    return icae_fail(load->error, ICAE_MISMATCH,
                     "%s: holds the tensor %s, which its config does not promise and the "
                     "architecture '%s' does not have by itself",
                     load->model->path, name, load->model->config.architecture);
}

static icae_status load_matrix(loader *load, int weight, int64_t layer, int64_t rows,
                               int64_t cols, icae_tensor *out) {
    icae_weight_view view;
    char name[128];
    int64_t shape[2] = {rows, cols};
    icae_status status = find_weight(load, weight, layer, 2, shape, &view, name);
    if (status) return status;
    if (cols % icae_dtype_describe(view.dtype)->block_values) {
        return icae_fail(load->error, ICAE_FORMAT,
                         "%s: rows of %s have %lld values, not whole blocks of its type %s",
                         load->model->path, name, (long long)cols,
                         icae_dtype_describe(view.dtype)->name);
    }
    if (load->is_checking) return ICAE_OK;
    const void *data = view.data;
    if (weight >= ICAE_WEIGHT_MODULE && is_paired(load, weight - ICAE_WEIGHT_MODULE)) {
        data = unpair_rows(load->model, rows, view.bytes / (size_t)rows, view.data);
        if (!data) return icae_fail_memory(load->error, name);
    }
    *out = icae_leaf(view.dtype, 2, shape, data, NULL);
    count_weight(load->model, name, &view);
    return ICAE_OK;
}

static icae_status load_layer(loader *load, int64_t index) {
    const icae_model_config *config = &load->model->config;
    icae_layer unused, *layer = load->is_checking ? &unused : &load->model->layers[index];
    int64_t D = config->width, E = config->head_width;
    bool has_norms = config->has_head_norms;
    icae_status status =
        load_vector(load, ICAE_WEIGHT_INPUT_NORM, index, D, &layer->input_norm);
    if (!status) status = load_vector(load, ICAE_WEIGHT_POST_NORM, index, D, &layer->post_norm);
    const struct {
        int weight;
        icae_tensor *out;
    } results[] = {{ICAE_WEIGHT_ATTENTION_NORM, &layer->attention_norm},
                   {ICAE_WEIGHT_FEED_FORWARD_NORM, &layer->feed_forward_norm}};
    for (int i = 0; i < 2 && !status; i++) {
        status = load_optional(load, config->has_result_norms, results[i].weight, index, D,
                               results[i].out);
    }
    if (!status)
        status = load_optional(load, has_norms, ICAE_WEIGHT_Q_NORM, index, E, &layer->q_norm);
    if (!status)
        status = load_optional(load, has_norms, ICAE_WEIGHT_K_NORM, index, E, &layer->k_norm);
    for (int m = 0; m < ICAE_MODULE_COUNT && !status; m++) {
        int64_t rows = icae_module_rows(config, (icae_module)m);
        status = load_matrix(load, ICAE_WEIGHT_MODULE + m, index, rows,
                             icae_module_cols(config, (icae_module)m), &layer->modules[m]);
        if (!status)
            status = load_optional(load, config->biased_modules >> m & 1, ICAE_WEIGHT_BIAS + m,
                                   index, rows, &layer->biases[m]);
    }
    return status;
}

/* Mean and deviation over evenly spaced rows of the embedding: what memory tokens start from. */
static icae_status measure_embedding(loader *load) {
    enum { MOST_ROWS = 4096 };
    icae_model *model = load->model;
    int64_t V = model->config.vocabulary, D = model->config.width;
    int64_t step = V > MOST_ROWS ? V / MOST_ROWS : 1;
    float *row = malloc((size_t)D * sizeof *row);
    if (!row) return icae_fail_memory(load->error, model->path);
    icae_matrix table = icae_tensor_matrix(&model->embedding);
    double sum = 0, squares = 0, count = 0;
    for (int64_t v = 0; v < V; v += step) {
        icae_dtype_widen_f32(table.dtype,
                             (const unsigned char *)table.data + (size_t)v * table.row_bytes, D,
                             row);
        for (int64_t d = 0; d < D; d++) {
            sum += (double)row[d];
            squares += (double)row[d] * (double)row[d];
        }
        count += (double)D;
    }
    free(row);
    double mean = sum / count, variance = squares / count - mean * mean;
    double scale = model->config.embedding_scale;
    model->embedding_mean = scale * mean;
    model->embedding_deviation = variance > 0 ? scale * sqrt(variance) : 0;
    return ICAE_OK;
}

/* Rope's frequencies from the config; a GGUF may bring a divisor for each (Llama 3's scaling). */
static icae_status set_frequencies(loader *load) {
    icae_model *model = load->model;
    int64_t half = model->config.head_width / 2;
    model->rope_frequencies =
        icae_arena_array(&model->arena, (size_t)half, sizeof *model->rope_frequencies);
    if (!model->rope_frequencies) return icae_fail_memory(load->error, model->path);
    icae_rope_frequencies(&model->config, false, model->rope_frequencies);
    if (model->config.window && model->config.local_rope_theta > 0) {
        model->local_rope_frequencies =
            icae_arena_array(&model->arena, (size_t)half, sizeof *model->rope_frequencies);
        if (!model->local_rope_frequencies) return icae_fail_memory(load->error, model->path);
        icae_rope_frequencies(&model->config, true, model->local_rope_frequencies);
    }
    const icae_gguf_tensor *divisors =
        load->source->is_gguf ? icae_gguf_find(&model->gguf, "rope_freqs.weight") : NULL;
    if (!divisors) return ICAE_OK;
    if (divisors->dtype != ICAE_DTYPE_F32 || divisors->rank != 1 ||
        divisors->shape[0] != half || model->config.rope.type != ICAE_ROPE_DEFAULT) {
        return icae_fail(
            load->error, ICAE_MISMATCH,
            "%s: rope_freqs.weight: expected %lld numbers of type F32, and no other "
            "rope scaling beside them",
            model->path, (long long)half);
    }
    for (int64_t i = 0; i < half; i++) {
        float divisor;
        memcpy(&divisor, (const unsigned char *)divisors->data + (size_t)i * sizeof divisor,
               sizeof divisor);
        if (!(divisor > 0 && isfinite(divisor))) {
            return icae_fail(load->error, ICAE_FORMAT,
                             "%s: rope_freqs.weight: number %lld is %g, expected more than 0",
                             model->path, (long long)i, (double)divisor);
        }
        model->rope_frequencies[i] /= (double)divisor;
    }
    model->fingerprint = icae_hash64(divisors->data, divisors->bytes, model->fingerprint);
    return ICAE_OK;
}

/* The config's own part of the fingerprint. What a plain Llama does not have is added only where it is
 * there, so that a base keeps its fingerprint when this program learns something new. */
static uint64_t config_fingerprint(const icae_model_config *config) {
    const int64_t numbers[] = {config->vocabulary,   config->width,    config->layers,
                               config->heads,        config->kv_heads, config->head_width,
                               config->feed_forward, config->window};
    const double reals[] = {config->norm_eps, config->rope_theta};
    uint64_t h = icae_hash64(numbers, sizeof numbers, 0);
    h = icae_hash64(reals, sizeof reals, h);
    const icae_rope_scaling *rope = &config->rope;
    if (rope->type != ICAE_ROPE_DEFAULT) {
        const double scaling[] = {
            (double)rope->type,  rope->factor,         (double)rope->original_length,
            rope->low_frequency, rope->high_frequency, rope->beta_fast,
            rope->beta_slow,     rope->magnitude,      rope->has_exact_ramp ? 1 : 0};
        h = icae_hash64(scaling, sizeof scaling, h);
    }
    if (config->first_windowed) h = icae_mix64(h, (uint64_t)config->first_windowed);
    double plain_scale = 1 / sqrt((double)config->head_width);
    if (config->window_period || config->local_rope_theta > 0 || config->activation ||
        config->has_result_norms || config->embedding_scale != 1 ||
        config->attention_scale != plain_scale) {
        const double more[] = {(double)config->window_period, config->local_rope_theta,
                               (double)config->activation,    config->has_result_norms,
                               config->embedding_scale,       config->attention_scale};
        h = icae_hash64(more, sizeof more, h);
    }
    return h;
}

static icae_status walk_weights(loader *load) {
    icae_model *model = load->model;
    const icae_model_config *config = &model->config;
    int64_t V = config->vocabulary, D = config->width;
    icae_status status = load_matrix(load, ICAE_WEIGHT_EMBEDDING, 0, V, D, &model->embedding);
    for (int64_t i = 0; i < config->layers && !status; i++)
        status = load_layer(load, i);
    if (!status) status = load_vector(load, ICAE_WEIGHT_FINAL_NORM, 0, D, &model->final_norm);
    if (!status && config->has_own_head)
        status = load_matrix(load, ICAE_WEIGHT_HEAD, 0, V, D, &model->head);
    return status;
}

/* All is looked at before anything is read: a large base that lacks something says so at once, and layers
 * get memory only when the files hold them. */
static icae_status load_weights(loader *load) {
    icae_model *model = load->model;
    model->fingerprint = config_fingerprint(&model->config);
    load->is_checking = true;
    icae_status status = walk_weights(load);
    load->is_checking = false;
    if (status) return status;
    model->layers =
        icae_arena_array(&model->arena, (size_t)model->config.layers, sizeof *model->layers);
    if (!model->layers) return icae_fail_memory(load->error, model->path);
    status = walk_weights(load);
    if (!status && !model->config.has_own_head) model->head = model->embedding;
    if (!status) status = set_frequencies(load);
    return status ? status : measure_embedding(load);
}

/* What follows from the row alone; readers set the rest. */
static void apply_architecture(icae_model_config *config, const icae_architecture *row) {
    config->has_head_norms = row->has_head_norms;
    config->has_result_norms = row->has_result_norms;
    config->activation = row->activation;
    config->embedding_scale = row->scales_embedding ? sqrt((double)config->width) : 1;
    if (!(config->attention_scale > 0)) {
        config->attention_scale = 1 / sqrt((double)config->head_width);
    }
}

/* ---- life ---- */

icae_status icae_model_open(icae_model **out, const char *path, icae_error *error) {
    *out = NULL;
    icae_model *model = calloc(1, sizeof *model);
    if (!model) return icae_fail_memory(error, path);
    model->path = strdup(path);
    if (!model->path) {
        icae_model_close(model);
        return icae_fail_memory(error, path);
    }
    loader load = {.model = model, .source = &icae_gguf_source, .error = error};
    icae_status status;
    if (icae_path_is_folder(path)) {
        load.source = &icae_folder_source;
        status = icae_model_read_folder(model, path, &load.architecture, error);
    } else {
        status = icae_model_read_gguf(model, path, &load.architecture, error);
    }
    snprintf(model->file_type, sizeof model->file_type, "%s", load.source->file_type);
    if (!status) apply_architecture(&model->config, load.architecture);
    if (!status) status = icae_model_check_config(&model->config, path, error);
    if (!status) status = load_weights(&load);
    if (!status) status = load.source->read_tokenizer(model, error);
    if (!status && icae_tokenizer_size(model->tokenizer) > model->config.vocabulary) {
        status = icae_fail(error, ICAE_MISMATCH,
                           "%s: the tokenizer has %d ids, the embedding only %lld rows; "
                           "they are of two bases",
                           path, icae_tokenizer_size(model->tokenizer),
                           (long long)model->config.vocabulary);
    }
    if (status) {
        icae_model_close(model);
        return status;
    }
    *out = model;
    return ICAE_OK;
}

void icae_model_close(icae_model *model) {
    if (!model) return;
    icae_tokenizer_free(model->tokenizer);
    icae_gguf_close(&model->gguf);
    icae_shards_close(model);
    icae_arena_release(&model->arena);
    free(model->path);
    free(model);
}
