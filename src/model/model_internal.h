/* SPDX-License-Identifier: MIT */
/*
 * How a file format feeds the model: it fills the config, then answers for one weight after another.
 * A further format is one more icae_weight_source and one line in icae_model_open.
 */
#ifndef ICAE_MODEL_INTERNAL_H
#define ICAE_MODEL_INTERNAL_H

#include "icae/json.h"
#include "icae/model.h"

/* ---- architectures.c ---- */

typedef enum icae_window_rule {
    ICAE_WINDOW_NONE,    /* no window */
    ICAE_WINDOW_ALWAYS,  /* "sliding_window" in every layer; null: none; missing: 4096 */
    ICAE_WINDOW_IF_USED, /* only if "use_sliding_window", from layer "max_window_layers" on */
    ICAE_WINDOW_PERIODIC /* like ALWAYS, but not in every so manieth layer */
} icae_window_rule;

/* What sets an architecture apart. Sets of modules have bit 1 << icae_module for each. */
typedef struct icae_architecture {
    const char *name;      /* "model_type" in config.json */
    const char *gguf_name; /* "general.architecture"; of rows with the same the first counts */
    bool has_paired_rows_in_gguf; /* llama.cpp's converter reorders the rows of its q and k */
    unsigned biased;              /* modules that always have a bias */
    unsigned biased_if_attention; /* those that "attention_bias": true adds; 0: it is refused */
    unsigned biased_if_mlp;       /* the same for "mlp_bias" */
    bool has_head_norms;          /* q and k are normed per head, before rope */
    icae_window_rule window;
    int64_t window_period;      /* PERIODIC: unless "sliding_window_pattern" says another */
    double local_rope_theta;    /* of layers with a window, unless "rope_local_base_freq" says
                                 * another; 0: their rope is that of all layers */
    const char *activation_key; /* of the activation in config.json; NULL: "hidden_act" */
    icae_activation activation;
    bool has_result_norms; /* see icae_model_config */
    bool has_offset_norms; /* a folder (not a GGUF) holds w - 1 for every norm's weight w */
    bool scales_embedding; /* by the square root of the width */
    bool is_tied;          /* where the config says nothing about it */
    double query_width;    /* "query_pre_attn_scalar": scores are scaled by its inverse root;
                             * 0: no such key, it is the head width */
    int64_t plain_query_layers; /* a GGUF has no key for it; llama.cpp takes the head width, but
                                 * width / heads in the model that has so many layers */
} icae_architecture;

/* "silu": how config.json calls it. */
const char *icae_activation_name(icae_activation activation);

/* NULL when unknown. */
const icae_architecture *icae_architecture_find(const char *name);
const icae_architecture *icae_architecture_find_gguf(const char *name);
/* "llama, mistral, ..." in `out`, for messages; returns out. */
const char *icae_architecture_names(char *out, size_t bytes);

/* ---- rope.c ---- */

bool icae_rope_type_from_name(const char *name, icae_rope_type *type);
/* NULL, or what is wrong with it. */
const char *icae_rope_check(const icae_rope_scaling *rope);
double icae_rope_yarn_magnitude(double factor, double multiplier); /* 0.1 m ln s + 1 */

/* ---- weights ---- */

/* The weights of a model. Those from INPUT_NORM on are of a layer; MODULE and BIAS count up by
 * icae_module. */
typedef enum icae_model_weight {
    ICAE_WEIGHT_EMBEDDING,
    ICAE_WEIGHT_FINAL_NORM,
    ICAE_WEIGHT_HEAD,
    ICAE_WEIGHT_INPUT_NORM,
    ICAE_WEIGHT_POST_NORM,
    ICAE_WEIGHT_ATTENTION_NORM,
    ICAE_WEIGHT_FEED_FORWARD_NORM,
    ICAE_WEIGHT_Q_NORM,
    ICAE_WEIGHT_K_NORM,
    ICAE_WEIGHT_MODULE,
    ICAE_WEIGHT_BIAS = ICAE_WEIGHT_MODULE + ICAE_MODULE_COUNT
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
    void (*name)(const icae_model_config *config, int weight, int64_t layer, char *out,
                 size_t bytes);
    bool (*find)(const icae_model *model, const char *name, icae_weight_view *view);
    icae_status (*read_tokenizer)(icae_model *model, icae_error *error);
    bool is_gguf;
} icae_weight_source;

/* shards.c: the safetensors of a folder, one file or as many as an index names. */
icae_status icae_shards_open(icae_model *model, const char *folder, icae_error *error);
void icae_shards_close(icae_model *model);
const icae_safetensors_entry *icae_shards_find(const icae_model *model, const char *name);

/* Open the file(s) and read the config. On failure the model is released by the caller. */
icae_status icae_model_read_gguf(icae_model *model, const char *path,
                                 const icae_architecture **architecture, icae_error *error);
icae_status icae_model_read_folder(icae_model *model, const char *path,
                                   const icae_architecture **architecture, icae_error *error);
extern const icae_weight_source icae_gguf_source, icae_folder_source;

/* Ranges and divisibility of what a file claimed; names the file. */
icae_status icae_model_check_config(const icae_model_config *config, const char *path,
                                    icae_error *error);

#endif
