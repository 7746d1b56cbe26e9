/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a base model: which format it is, then weight by weight with the shape that the
 * config promises. The formats themselves are model_gguf.c and model_folder.c.
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
        !(config->rope_theta > 0 && isfinite(config->rope_theta))) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: norm epsilon %g or rope theta %g makes no sense", path,
                         config->norm_eps, config->rope_theta);
    }
    return ICAE_OK;
}

/* ---- weights ---- */

typedef struct loader {
    icae_model *model;
    const icae_weight_source *source;
    icae_error *error;
} loader;

/* Finds a weight and insists on its shape. */
static icae_status find_weight(loader *load, int weight, int64_t layer, int rank,
                               const int64_t *shape, icae_weight_view *view, char name[128]) {
    icae_model *model = load->model;
    load->source->name(weight, layer, name, 128);
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

/* A norm's weight, widened. */
static icae_status load_vector(loader *load, int weight, int64_t layer, icae_tensor *out) {
    icae_weight_view view;
    char name[128];
    int64_t D = load->model->config.width;
    icae_status status = find_weight(load, weight, layer, 1, &D, &view, name);
    if (status) return status;
    icae_real *values = icae_arena_array(&load->model->arena, (size_t)D, sizeof *values);
    if (!values) return icae_fail_memory(load->error, name);
    if (D % icae_dtype_describe(view.dtype)->block_values) {
        return icae_fail(load->error, ICAE_UNSUPPORTED, "%s: the norm %s has the type %s",
                         load->model->path, name, icae_dtype_describe(view.dtype)->name);
    }
    icae_dtype_widen(view.dtype, view.data, D, values);
    *out = icae_leaf(ICAE_DTYPE_REAL, 1, &D, values, NULL);
    count_weight(load->model, name, &view);
    return ICAE_OK;
}

/* llama.cpp stores the two halves of every q and k head interleaved: its row 2i is our row i, its row
 * 2i+1 our row i + E/2. Rows are whole blocks in every type, so bytes can be moved. */
static const void *unpair_rows(icae_model *model, const icae_weight_view *view) {
    size_t row_bytes = view->bytes / (size_t)view->shape[0];
    unsigned char *rows = icae_arena_alloc(&model->arena, view->bytes);
    if (!rows) return NULL;
    int64_t E = model->config.head_width, half = E / 2;
    for (int64_t row = 0; row < view->shape[0]; row++) {
        int64_t head = row / E, i = row % E;
        int64_t from = head * E + (i < half ? 2 * i : 2 * (i - half) + 1);
        memcpy(rows + (size_t)row * row_bytes,
               (const unsigned char *)view->data + (size_t)from * row_bytes, row_bytes);
    }
    return rows;
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
    const void *data = view.data;
    bool is_paired = weight == ICAE_WEIGHT_MODULE + ICAE_MODULE_Q ||
                     weight == ICAE_WEIGHT_MODULE + ICAE_MODULE_K;
    if (is_paired && load->source->has_paired_rows) {
        data = unpair_rows(load->model, &view);
        if (!data) return icae_fail_memory(load->error, name);
    }
    *out = icae_leaf(view.dtype, 2, shape, data, NULL);
    count_weight(load->model, name, &view);
    return ICAE_OK;
}

static icae_status load_layer(loader *load, int64_t index) {
    const icae_model_config *config = &load->model->config;
    icae_layer *layer = &load->model->layers[index];
    icae_status status = load_vector(load, ICAE_WEIGHT_INPUT_NORM, index, &layer->input_norm);
    if (!status) status = load_vector(load, ICAE_WEIGHT_POST_NORM, index, &layer->post_norm);
    for (int m = 0; m < ICAE_MODULE_COUNT && !status; m++) {
        status = load_matrix(load, ICAE_WEIGHT_MODULE + m, index,
                             icae_module_rows(config, (icae_module)m),
                             icae_module_cols(config, (icae_module)m), &layer->modules[m]);
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
    model->embedding_mean = sum / count;
    double variance = squares / count - model->embedding_mean * model->embedding_mean;
    model->embedding_deviation = variance > 0 ? sqrt(variance) : 0;
    return ICAE_OK;
}

static icae_status load_weights(loader *load) {
    icae_model *model = load->model;
    const icae_model_config *config = &model->config;
    int64_t V = config->vocabulary, D = config->width;
    model->layers =
        icae_arena_array(&model->arena, (size_t)config->layers, sizeof *model->layers);
    if (!model->layers) return icae_fail_memory(load->error, model->path);
    const int64_t numbers[] = {V,
                               D,
                               config->layers,
                               config->heads,
                               config->kv_heads,
                               config->head_width,
                               config->feed_forward,
                               config->window};
    const double reals[] = {config->norm_eps, config->rope_theta};
    model->fingerprint = icae_hash64(numbers, sizeof numbers, 0);
    model->fingerprint = icae_hash64(reals, sizeof reals, model->fingerprint);
    icae_status status = load_matrix(load, ICAE_WEIGHT_EMBEDDING, 0, V, D, &model->embedding);
    for (int64_t i = 0; i < config->layers && !status; i++)
        status = load_layer(load, i);
    if (!status) status = load_vector(load, ICAE_WEIGHT_FINAL_NORM, 0, &model->final_norm);
    if (!status && config->has_own_head) {
        status = load_matrix(load, ICAE_WEIGHT_HEAD, 0, V, D, &model->head);
    } else if (!status) {
        model->head = model->embedding;
    }
    return status ? status : measure_embedding(load);
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
    loader load = {model, &icae_gguf_source, error};
    icae_status status;
    if (icae_path_is_folder(path)) {
        load.source = &icae_folder_source;
        status = icae_model_read_folder(model, path, error);
    } else {
        status = icae_model_read_gguf(model, path, error);
    }
    snprintf(model->file_type, sizeof model->file_type, "%s", load.source->file_type);
    if (!status) status = icae_model_check_config(&model->config, path, error);
    if (!status) status = load_weights(&load);
    if (!status && icae_tokenizer_size(model->tokenizer) > model->config.vocabulary) {
        status = icae_fail(
            error, ICAE_MISMATCH, "%s: the tokenizer has %d ids, the embedding only %lld rows",
            path, icae_tokenizer_size(model->tokenizer), (long long)model->config.vocabulary);
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
    icae_safetensors_close(&model->safetensors);
    icae_arena_release(&model->arena);
    free(model->path);
    free(model);
}
