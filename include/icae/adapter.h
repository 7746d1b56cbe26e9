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

/* What a slot is, made from the final hidden state h (after the final norm) at its memory token. Final
 * states are many times larger than embeddings in most bases (15 times in SmolLM2-135M), and a frozen
 * decoder has never read anything of that size. With e = the root mean square of the base's embeddings: */
typedef enum icae_slot_values {
    ICAE_SLOT_VALUES_HIDDEN,   /* h: the paper's */
    ICAE_SLOT_VALUES_SCALED,   /* h e / rms(h): as large as an embedding */
    ICAE_SLOT_VALUES_RESIDUAL, /* the same, plus the mean embedding of the tokens it stands for */
    ICAE_SLOT_VALUES_COUNT
} icae_slot_values;
extern const char *const icae_slot_values_names[]; /* "hidden", "scaled", "residual", NULL */

typedef struct icae_adapter_settings {
    int64_t memory_slots;     /* k */
    int64_t compression_rate; /* tokens per slot, so a span has at most k * rate */
    icae_layout layout;
    icae_memory_init memory_init;
    icae_memory_inputs memory_inputs;
    icae_slot_values slot_values;
    int64_t rank;
    double alpha;   /* LoRA scale = alpha / rank */
    double dropout; /* on the input of LoRA, in training */
    bool targets[ICAE_MODULE_COUNT];
    /* What stands around slots and questions; see icae/chat.h. */
    char chat_template[32]; /* the preset's name, or "custom" */
    char chat_prefix[256];  /* before the slots when a question is asked */
    char chat_suffix[256];  /* after the question, before the answer */
    char chat_turn[256];    /* after an earlier answer, before the next question; "": as text */
    char chat_end[64];      /* the token that ends an answer; "": the tokenizer's eos */
    /* What released weights need (icae/released.h). */
    bool closes_prompt; /* the FT token stands again right before the answer */
    bool no_lm_token;   /* a continuation follows the slots at once, without the LM token */
    bool context_bos;   /* a text to compress begins with the tokenizer's BOS */
    bool
        has_stop_id; /* restored texts and answers end with stop_id, not with eos or chat_end */
    int32_t stop_id;
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

/* k = 128, rate 4, uniform, base, rank 128 with alpha 32, dropout 0.05, on q_proj and v_proj; the chat
 * texts are those of the preset that icae_chat_choose finds for the base. */
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
 * Writes the folder, whole or not at all: at once when there is none yet or one with nothing but an
 * adapter in it. Where other files lie beside it the four files are
 * replaced one by one, icae.json last: its hash refuses a mixture should the machine stop in between.
 * Sets the fingerprint. Equal adapters give equal bytes.
 */
icae_status icae_adapter_save(icae_adapter *adapter, const char *folder,
                              const icae_model *model, icae_error *error);
/* The same in F32, BF16 or F16. The two short ones round the adapter's own values first, so that its
 * fingerprint is that of what will be read; a value that F16 cannot hold is refused, and lost here. */
icae_status icae_adapter_save_as(icae_adapter *adapter, const char *folder,
                                 const icae_model *model, icae_dtype dtype, icae_error *error);
void icae_adapter_free(icae_adapter *adapter);

/* The id that ends restored texts, and answers where chat_end names no other: the adapter's own, else
 * the tokenizer's eos, else -1. settings may be NULL. */
int32_t icae_adapter_stop(const icae_adapter_settings *settings,
                          const icae_tokenizer *tokenizer);
/* A text to compress as ids: special tokens in it are plain text, BOS comes first where the settings say
 * so. settings may be NULL. *ids is malloc'ed. */
icae_status icae_adapter_encode(const icae_adapter_settings *settings,
                                const icae_tokenizer *tokenizer, const char *text, size_t bytes,
                                int32_t **ids, size_t *count, icae_error *error);
/* Tokens of the memory table in a decoder sequence of this task, beside the slots: 0 to 2. */
int64_t icae_adapter_task_tokens(const icae_adapter_settings *settings, icae_task task);

/* Hash of what makes slots: all trained values with their names and shapes, LoRA scale, layout, memory
 * inputs and slot values. */
uint64_t icae_adapter_hash(const icae_adapter *adapter);

#ifdef __cplusplus
}
#endif
#endif
