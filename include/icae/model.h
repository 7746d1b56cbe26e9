/* SPDX-License-Identifier: MIT */
/*
 * A frozen base model of the Llama family (src/model/architectures.c lists which): its settings, its
 * weights as the files hold them, its tokenizer, and the forward pass over packed sequences.
 *
 * The model is const after loading and may be shared; weights stay mapped read-only in their own
 * storage type (only the q and k rows of a GGUF are copied, to undo llama.cpp's permutation, and the
 * norms and biases, a few thousand numbers, are widened). One copy serves encoder and decoder.
 *
 * A block:  a = x + o(attention(rope(q(n)), rope(k(n)), v(n))),  n = rmsnorm(x)
 *           y = a + down(swiglu(gate(m), up(m))),                m = rmsnorm(a)
 * where the config says so, matrices add a bias, q and k are normed per head before rope, attention
 * looks back over a window only (and then may have a rope of its own), gelu stands for silu, and
 * what o and down give is normed before it is added (Gemma).
 * Sources: Touvron et al., arXiv 2302.13971; Ainslie et al. (grouped heads), arXiv 2305.13245; Gemma
 * Team, arXiv 2503.19786.
 */
#ifndef ICAE_MODEL_H
#define ICAE_MODEL_H

#include "icae/graph.h"
#include "icae/ops.h"
#include "icae/params.h"
#include "icae/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The matrices of a block: enum, name in LoRA targets and Hugging Face files, folder there, GGUF name. */
#define ICAE_MODULE_LIST(X)                                                                    \
    X(Q, "q_proj", "self_attn", "attn_q")                                                      \
    X(K, "k_proj", "self_attn", "attn_k")                                                      \
    X(V, "v_proj", "self_attn", "attn_v")                                                      \
    X(O, "o_proj", "self_attn", "attn_output")                                                 \
    X(GATE, "gate_proj", "mlp", "ffn_gate")                                                    \
    X(UP, "up_proj", "mlp", "ffn_up")                                                          \
    X(DOWN, "down_proj", "mlp", "ffn_down")

typedef enum icae_module {
#define ICAE_MODULE_ENUM(name, hf, folder, gguf) ICAE_MODULE_##name,
    ICAE_MODULE_LIST(ICAE_MODULE_ENUM)
#undef ICAE_MODULE_ENUM
        ICAE_MODULE_COUNT
} icae_module;

const char *icae_module_name(icae_module module);    /* "q_proj" */
icae_module icae_module_from_name(const char *name); /* ICAE_MODULE_COUNT when unknown */
/* "model.layers.{layer}.self_attn.q_proj": its name in Hugging Face files and in PEFT's. */
void icae_module_path(int64_t layer, icae_module module, char *out, size_t bytes);

typedef enum icae_rope_type {
    ICAE_ROPE_DEFAULT,
    ICAE_ROPE_LINEAR,
    ICAE_ROPE_LLAMA3,
    ICAE_ROPE_YARN
} icae_rope_type;

/* How rope's frequencies are stretched over longer texts; formulas in src/model/rope.c. */
typedef struct icae_rope_scaling {
    icae_rope_type type;     /* what the other fields are for, none of them for DEFAULT */
    double factor;           /* all others */
    int64_t original_length; /* llama3, yarn: tokens the base knew before */
    double low_frequency, high_frequency; /* llama3 */
    double beta_fast, beta_slow;          /* yarn */
    double magnitude;                     /* yarn: of cosines and sines */
    bool has_exact_ramp;                  /* yarn: the ends of the ramp are not rounded */
} icae_rope_scaling;

typedef enum icae_activation {
    ICAE_ACTIVATION_SILU,
    ICAE_ACTIVATION_GELU_TANH /* its tanh approximation */
} icae_activation;

typedef struct icae_model_config {
    char architecture[32];   /* "llama" */
    int64_t vocabulary;      /* V */
    int64_t width;           /* D */
    int64_t layers;          /* L */
    int64_t heads, kv_heads; /* H, K */
    int64_t head_width;      /* E */
    int64_t feed_forward;    /* F */
    int64_t context_length;  /* the longest position the base was trained for */
    int64_t window;          /* sliding window of attention, 0 = none */
    int64_t first_windowed;  /* the layer from which on it holds */
    int64_t window_period;   /* of these, every so manieth layer has none; 0: all have it */
    double norm_eps;
    double rope_theta;
    icae_rope_scaling rope;
    double local_rope_theta; /* of layers with a window, without scaling; 0: as in all others */
    double attention_scale;  /* of scores */
    double embedding_scale;  /* of a token's row in the embedding, as input; 1: none */
    icae_activation activation;
    bool has_result_norms;   /* what o and down give is normed before it is added */
    unsigned biased_modules; /* bit 1 << icae_module: that matrix has a bias */
    bool has_head_norms;     /* q and k are normed per head */
    bool has_own_head;       /* else the head is the embedding */
} icae_model_config;

typedef struct icae_layer {
    icae_tensor modules[ICAE_MODULE_COUNT]; /* [N,K], frozen */
    icae_tensor biases[ICAE_MODULE_COUNT];  /* [N], real; data NULL: none */
    icae_tensor input_norm,
        post_norm; /* [D], real; before attention, before the feed-forward */
    icae_tensor attention_norm, feed_forward_norm; /* [D], of their results; data NULL: none */
    icae_tensor q_norm, k_norm;                    /* [E], real; data NULL: none */
} icae_layer;

typedef struct icae_model {
    icae_model_config config;
    icae_tensor embedding;  /* [V,D] */
    icae_tensor final_norm; /* [D] */
    icae_tensor head;       /* [V,D]; the embedding again when tied */
    icae_layer *layers;
    double *rope_frequencies;       /* [E/2] */
    double *local_rope_frequencies; /* the same for layers with a window; NULL: those above */
    icae_tokenizer *tokenizer;
    uint64_t
        fingerprint; /* of config, names, shapes, types and samples of every weight's bytes */
    int64_t n_parameters; /* numbers in all weights, a tied head counted once */
    size_t weight_bytes;  /* as stored */
    double embedding_mean, embedding_deviation; /* of evenly spaced rows of the table, scaled */
    char *path;                                 /* as given */
    char file_type[16];                         /* "GGUF" or "safetensors" */
    icae_arena arena;
    icae_gguf gguf; /* whichever of the two is open */
    icae_safetensors *shards;
    size_t n_shards;
} icae_model;

/* Opens a .gguf file or a Hugging Face folder. An architecture, tensor type, rope type or tokenizer
 * that this program does not know is refused by name. */
icae_status icae_model_open(icae_model **model, const char *path, icae_error *error);
void icae_model_close(icae_model *model);
int64_t icae_module_rows(const icae_model_config *config, icae_module module); /* N */
int64_t icae_module_cols(const icae_model_config *config, icae_module module); /* K */
/* Tokens that a layer's attention looks back over, its own included; 0: all. */
int64_t icae_layer_window(const icae_model_config *config, int64_t layer);

/* LoRA pairs on some modules of every layer; the tensors are leaves of a parameter block. */
typedef struct icae_lora_set {
    int64_t rank;
    double scale;         /* alpha / rank */
    double dropout;       /* 0..1 */
    icae_tensor **a, **b; /* [L * ICAE_MODULE_COUNT]; NULL where a module has none */
} icae_lora_set;

/* Keys and values of one sequence, for all layers; a session owns it. */
typedef struct icae_cache {
    icae_backend *be;
    int64_t layers, row;      /* row = kv_heads * head_width */
    int64_t capacity, length; /* tokens */
    icae_real *keys, *values; /* [L, capacity, row] */
} icae_cache;

icae_status icae_cache_create(icae_cache **cache, icae_backend *be,
                              const icae_model_config *config, int64_t capacity,
                              icae_error *error);
void icae_cache_free(icae_cache *cache);
size_t icae_cache_bytes(const icae_model_config *config,
                        int64_t tokens); /* as 16-bit K and V */

typedef struct icae_forward {
    const icae_pack *pack;
    const icae_lora_set *lora; /* NULL: the frozen base alone */
    uint64_t dropout_seed;     /* of this step */
    bool is_training;          /* whether dropout is on */
    bool is_checkpointed;      /* keep only every block's input, run it again in backward */
    icae_cache *const
        *caches; /* NULL, or one per sequence: keys so far; grows by the new tokens */
} icae_forward;

/*
 * Input embeddings [n,D]: row t is that of the token rows[t], scaled as the base wants it, where
 * which[t] is 0 (or which is NULL), else row rows[t] of others[which[t] - 1], as it stands: memory
 * tokens and slots live where scaled embeddings do. Gradient flows to `others`; see icae_rows.
 */
icae_tensor *icae_model_inputs(icae_graph *graph, const icae_model *model, int n_others,
                               icae_tensor *const *others, int64_t n, const int32_t *which,
                               const int32_t *rows);

/*
 * x [T,D] input embeddings -> [T,D] hidden states after the final norm. Does not consume x.
 * Gradient flows to x and to the LoRA pairs. With caches nothing is recorded.
 */
icae_tensor *icae_model_forward(icae_graph *graph, const icae_model *model, icae_tensor *x,
                                const icae_forward *options);

/* out [E/2]: how far each pair turns from one position to the next, scaling included; in layers with a
 * window where is_local. */
void icae_rope_frequencies(const icae_model_config *config, bool is_local, double *out);
/* angles [T,E] for rope: frequency * position, cosines then sines. */
icae_tensor *icae_rope_angles(icae_graph *graph, const icae_model *model, bool is_local,
                              int64_t T, const int32_t *positions);

/* Numbers in the matrices of all layers, without embedding and head: 2 FLOP each per token and pass. */
double icae_model_linear_parameters(const icae_model_config *config);

#ifdef __cplusplus
}
#endif
#endif
