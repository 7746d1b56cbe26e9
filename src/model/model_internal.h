/* SPDX-License-Identifier: MIT */
/*
 * How a file format feeds the model: it fills the config, then answers for one weight after another.
 * A further format is one more icae_weight_source and one line in icae_model_open.
 */
#ifndef ICAE_MODEL_INTERNAL_H
#define ICAE_MODEL_INTERNAL_H

#include "icae/model.h"

/* The weights that are not a module of a layer. */
typedef enum icae_model_weight {
    ICAE_WEIGHT_EMBEDDING,
    ICAE_WEIGHT_FINAL_NORM,
    ICAE_WEIGHT_HEAD,
    ICAE_WEIGHT_INPUT_NORM, /* of a layer */
    ICAE_WEIGHT_POST_NORM,  /* of a layer */
    ICAE_WEIGHT_MODULE      /* of a layer: + icae_module */
} icae_model_weight;

/* A tensor as it stands in the file. */
typedef struct icae_weight_view {
    icae_dtype dtype;
    int rank;
    const int64_t *shape;
    const void *data;
    size_t bytes;
} icae_weight_view;

typedef struct icae_weight_source {
    const char *file_type;
    /* The weight's name in this format. */
    void (*name)(int weight, int64_t layer, char *out, size_t bytes);
    bool (*find)(const icae_model *model, const char *name, icae_weight_view *view);
    /* Whether q and k rows have llama.cpp's order (pairs 2i, 2i+1) instead of (i, i + E/2). */
    bool has_paired_rows;
} icae_weight_source;

/* Open the file(s), read config and tokenizer. On failure the model is released by the caller. */
icae_status icae_model_read_gguf(icae_model *model, const char *path, icae_error *error);
icae_status icae_model_read_folder(icae_model *model, const char *path, icae_error *error);
extern const icae_weight_source icae_gguf_source, icae_folder_source;

/* Ranges and divisibility of what a file claimed; names the file. */
icae_status icae_model_check_config(const icae_model_config *config, const char *path,
                                    icae_error *error);

#endif
