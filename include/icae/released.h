/* SPDX-License-Identifier: MIT */
/*
 * The weights that the method's authors released, as adapters.
 *
 *     v1   .pt            Llama-2-7b-chat; LoRA and memory table f32, and a Python float 0.0 in the
 *                         place of every frozen base weight
 *     v2   .safetensors   Mistral-7B-Instruct-v0.2, pretrained and fine-tuned; LoRA bf16, table f32
 *
 * Both hold, and nothing else:
 *     icae.base_model.model.model.layers.{i}.self_attn.{q,v}_proj.lora_{A,B}.default.weight
 *                                                                     A [r, D], B [out, r]
 *     memory_token_embed.weight                                       [k+3, D]: memory, AE, LM, FT
 * Layers, width, rank and k come from the shapes; other modules of a block are taken as well. What no
 * file says is taken from the released code: layout "append", 4 tokens a slot, alpha 32 at every rank
 * (scale alpha / r), dropout 0.05, and in the decoder
 *
 *     v1   slots, FT, question, FT                                    ends with id 1
 *     v2   <s>[INST], slots, FT, question, [/INST]                    ends with eos; LM without token
 *
 * Shapes tell a Llama-2-7B from a Mistral-7B, but not a chat model from the model it was made of: with
 * another base than the one above, of equal shape, an adapter gives garbage and nobody can know.
 */
#ifndef ICAE_RELEASED_H
#define ICAE_RELEASED_H

#include "icae/adapter.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_released {
    ICAE_RELEASED_NONE,
    ICAE_RELEASED_V1,
    ICAE_RELEASED_V2
} icae_released;

typedef struct icae_released_facts {
    icae_released kind;
    int64_t tensors, placeholders; /* v1: floats that stand for base weights */
    int64_t layers, width, rank, memory_slots;
    bool targets[ICAE_MODULE_COUNT];
    int64_t rows[ICAE_MODULE_COUNT],
        cols[ICAE_MODULE_COUNT]; /* of a target's matrix, [out, in] */
    char base[96];               /* which known bases have these shapes, in words */
} icae_released_facts;

typedef struct icae_released_options { /* 0: as the released code has it */
    double alpha;
    int64_t compression_rate;
} icae_released_options;

/* What the file is, by its keys; NONE also when it cannot be read. */
icae_released icae_released_kind(const char *path);
/* Reads and checks the whole file: every pair there once in its shape, nothing left over. */
icae_status icae_released_describe(icae_released_facts *facts, const char *path,
                                   icae_error *error);
/* The file as an adapter for this base, ready for icae_adapter_save. A base of another shape is refused
 * by a sentence that names both. options may be NULL. All or nothing. */
icae_status icae_released_convert(icae_adapter **adapter, const char *path,
                                  const icae_model *model, const icae_released_options *options,
                                  icae_backend *be, bool for_training, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
