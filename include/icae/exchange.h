/* SPDX-License-Identifier: MIT */
/*
 * Adapters and slots in the formats of other programs.
 *
 *     PEFT folder   adapter_config.json, adapter_model.safetensors: what Hugging Face's peft loads
 *     GGUF LoRA     one .gguf, what llama.cpp takes as --lora
 *     embeddings    a decoder's input rows: safetensors with position ids, or a torch tensor
 *
 * None of them has a place for memory tokens, so memory.safetensors stands beside the LoRA: the table
 * memory_token_embed.weight [k+3, D], and in its metadata the settings of icae.json. With it the way back
 * needs nothing else. The LoRA of an ICAE belongs to its encoder: another program that merges it into a base
 * gets an encoder, not a better base.
 */
#ifndef ICAE_EXCHANGE_H
#define ICAE_EXCHANGE_H

#include "icae/adapter.h"
#include "icae/slots.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- adapters out ---- */

/* Writes a PEFT folder, whole or not at all when there is none yet; in an existing one the three files are
 * replaced. dtype: F32, F16 or BF16; a value that F16 cannot hold is refused. base_name: what peft shall
 * open as base, base_model_name_or_path; NULL: the model's path. */
icae_status icae_adapter_export_peft(const icae_adapter *adapter, const char *folder,
                                     const icae_model *model, icae_dtype dtype,
                                     const char *base_name, icae_error *error);

/*
 * Writes a LoRA for llama.cpp, and beside it the memory table (icae_memory_beside). Tensors are
 * blk.N.attn_q.weight.lora_a [r,K] and .lora_b [N,r]; where llama.cpp's converter interleaves the halves of
 * every q and k head (architecture llama), the rows of their lora_b are interleaved alike.
 * Source: llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp.
 */
icae_status icae_adapter_export_gguf(const icae_adapter *adapter, const char *path,
                                     const icae_model *model, icae_dtype dtype,
                                     icae_error *error);

/* "x.memory.safetensors" for "x.gguf", malloc'ed; NULL when memory ends. */
char *icae_memory_beside(const char *gguf_path);

/* ---- adapters in ---- */

/* What a foreign adapter may not say by itself. Where the memory table's metadata says it too, both must
 * agree, but for the rate, which may be changed. */
typedef struct icae_import {
    const char *memory_path;  /* NULL: memory.safetensors in the folder, or beside the .gguf */
    int64_t memory_slots;     /* 0: rows of the table less 3 */
    int64_t compression_rate; /* 0: as the metadata says */
    int layout;               /* an icae_layout; -1: as the metadata says */
} icae_import;

/* Rank, alpha, dropout and targets of a PEFT folder, into *settings; what this library cannot compute (DoRA,
 * trained biases, other modules) is refused by name. Nothing else of *settings is touched. */
icae_status icae_peft_settings(const char *folder, icae_adapter_settings *settings,
                               icae_error *error);

/* The base is taken on trust, as far as shapes go: neither format tells it apart from its like. */
icae_status icae_adapter_import_peft(icae_adapter **adapter, const char *folder,
                                     const icae_import *given, const icae_model *model,
                                     icae_backend *be, icae_error *error);
icae_status icae_adapter_import_gguf(icae_adapter **adapter, const char *path,
                                     const icae_import *given, const icae_model *model,
                                     icae_backend *be, icae_error *error);

/* ---- slots out ---- */

/*
 * The rows that a decoder reads before its first new token, for task AE (restore) or LM (continue):
 * slots, then the task token.
 *
 * embeds: a safetensors file with inputs_embeds [n,D] in dtype (F32, F16, BF16) and position_ids [n], F32;
 * metadata: task, layout, next_position (of the first new token; they count up from there), stop_token, the
 * tokens that the slots stand for, and the fingerprints.
 *
 * torch: the rows alone as one tensor [n,D] that torch.load reads (also with weights_only), for programs that
 * count positions by themselves, such as vLLM: refused unless the positions are 0..n-1, as layout "append"
 * makes them.
 */
icae_status icae_slots_export_embeds(const icae_slots *slots, const char *path,
                                     const icae_model *model, const icae_adapter *adapter,
                                     icae_task task, icae_dtype dtype, icae_error *error);
icae_status icae_slots_export_torch(const icae_slots *slots, const char *path,
                                    const icae_adapter *adapter, icae_task task,
                                    icae_dtype dtype, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
