/* SPDX-License-Identifier: MIT */
/*
 * An adapter: what training makes of a frozen base. LoRA pairs, and the memory table [k+3, D]: k
 * memory tokens, then the AE, LM and FT tokens. Nothing else is trained.
 *
 * On disk it is a folder: icae.json (settings, fingerprints, training summary), adapter_config.json +
 * adapter_model.safetensors (PEFT's layout and names: base_model.model.{module}.lora_A.weight), and
 * memory.safetensors (memory_token_embed.weight). See docs/formats.md.
 */
#ifndef ICAE_ADAPTER_H
#define ICAE_ADAPTER_H

#include "icae/layout.h"
#include "icae/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_memory_init {
    ICAE_MEMORY_INIT_BASE,   /* normal with mean and deviation of the base's embedding table */
    ICAE_MEMORY_INIT_NORMAL, /* N(0,1), as the released code */
    ICAE_MEMORY_INIT_COUNT
} icae_memory_init;
extern const char *const icae_memory_init_names[]; /* "base", "normal", NULL */

/* What the encoder reads at a memory token. Pooled: slot j of a span of n tokens adds the mean of the
 * embeddings of the tokens that it stands for, floor(j n / k) .. ceil((j+1) n / k) - 1, to the learned
 * token, so that the encoder starts from a bag of words in the right place. */
typedef enum icae_memory_inputs {
    ICAE_MEMORY_INPUTS_LEARNED, /* the learned tokens alone: the paper's */
    ICAE_MEMORY_INPUTS_POOLED,
    ICAE_MEMORY_INPUTS_COUNT
} icae_memory_inputs;
extern const char *const icae_memory_inputs_names[]; /* "learned", "pooled", NULL */

typedef struct icae_adapter_settings {
    int64_t memory_slots;     /* k */
    int64_t compression_rate; /* tokens per slot, so a span has at most k * rate */
    icae_layout layout;
    icae_memory_init memory_init;
    icae_memory_inputs memory_inputs;
    int64_t rank;
    double alpha;   /* LoRA scale = alpha / rank */
    double dropout; /* on the input of LoRA, in training */
    bool targets[ICAE_MODULE_COUNT];
    char chat_prefix[256]; /* before the slots when a question is asked */
    char chat_suffix[256]; /* after the question, before the answer */
} icae_adapter_settings;

typedef struct icae_adapter {
    icae_adapter_settings settings;
    icae_params params; /* LoRA pairs in order of layer and module, then the memory table */
    icae_lora_set lora;
    icae_tensor *memory;       /* [k+3, D], in params */
    uint64_t fingerprint;      /* of the trained values; set by load and save */
    uint64_t base_fingerprint; /* of the base it was made for */
    uint64_t tokenizer_fingerprint;
    char *path;         /* where it was loaded from, or NULL */
    char *summary_json; /* training summary, an object as text; or NULL */
} icae_adapter;

/* k = 128, rate 4, uniform, base, rank 128 with alpha 32, dropout 0.05, on q_proj and v_proj; chat
 * prefix and suffix from the family of the base's chat template ("" when it has none). */
icae_adapter_settings icae_adapter_defaults(const icae_model *model);

/* Fresh: A uniform in +-1/sqrt(K) and B zero (as PEFT does), memory as memory_init says, drawn from
 * `seed`. Refuses settings out of range. */
icae_status icae_adapter_create(icae_adapter **adapter, const icae_model *model,
                                const icae_adapter_settings *settings, uint64_t seed,
                                icae_backend *be, bool for_training, icae_error *error);

/* Loads a folder made for this base; another base's fingerprint, tokenizer or shapes are refused by a
 * sentence that names both; a folder without fingerprint gives a warning. All or nothing. */
icae_status icae_adapter_load(icae_adapter **adapter, const char *folder,
                              const icae_model *model, icae_backend *be, bool for_training,
                              icae_error *error);
/*
 * Writes the folder, whole or not at all when there is none yet. In an existing one the four files are
 * replaced one by one, icae.json last: its hash refuses a mixture should the machine stop in between.
 * Sets the fingerprint. Equal adapters give equal bytes.
 */
icae_status icae_adapter_save(icae_adapter *adapter, const char *folder,
                              const icae_model *model, icae_error *error);
void icae_adapter_free(icae_adapter *adapter);

/* Hash of what makes slots: all trained values with their names and shapes, LoRA scale, layout and memory
 * inputs. */
uint64_t icae_adapter_hash(const icae_adapter *adapter);

#ifdef __cplusplus
}
#endif
#endif
