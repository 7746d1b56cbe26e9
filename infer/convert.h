/* SPDX-License-Identifier: MIT */
/*
 * icae convert: what it knows. Two lists say everything: kinds of things, and conversions between them. The
 * help page, the choice of a conversion and its refusals are made from them; another conversion is one more
 * row and its function in convert.c.
 */
#ifndef ICAE_INFER_CONVERT_H
#define ICAE_INFER_CONVERT_H

#include "options.h"

/* enum, name for --to, ending of its files ("" for folders), what it is */
#define CONVERT_KINDS(X)                                                                       \
    X(ADAPTER, "adapter", "", "an ICAE adapter folder")                                        \
    X(PEFT, "peft", "", "a PEFT LoRA folder")                                                  \
    X(GGUF, "gguf", ".gguf", "a GGUF LoRA")                                                    \
    X(RELEASED, "released", "", "weights released by ICAE's authors")                          \
    X(SLOTS, "slots", ".slots", "a slots file")                                                \
    X(EMBEDS, "embeds", ".safetensors", "input embeddings with positions (safetensors)")       \
    X(TORCH, "torch", ".pt", "input embeddings as one torch tensor")

/* from, to, function, options that it needs, what for */
#define CONVERSIONS(X)                                                                         \
    X(ADAPTER, PEFT, adapter_to_peft, TAKES_BASE,                                              \
      "the encoder's LoRA for Hugging Face's peft, memory.safetensors beside it")              \
    X(ADAPTER, GGUF, adapter_to_gguf, TAKES_BASE,                                              \
      "the encoder's LoRA for llama.cpp, its memory table beside it")                          \
    X(ADAPTER, ADAPTER, adapter_to_adapter, TAKES_BASE,                                        \
      "the same in another type: half the size with --to adapter --dtype bf16")                \
    X(PEFT, ADAPTER, peft_to_adapter, TAKES_BASE,                                              \
      "a LoRA from peft, with memory.safetensors in the folder or --memory")                   \
    X(GGUF, ADAPTER, gguf_to_adapter, TAKES_BASE,                                              \
      "a LoRA from llama.cpp, with X.memory.safetensors beside X.gguf or --memory")            \
    X(RELEASED, ADAPTER, released_to_adapter, TAKES_BASE,                                      \
      "v1 .pt or v2 .safetensors of the authors, checked against the base's shapes")           \
    X(SLOTS, EMBEDS, slots_to_embeds, TAKES_BASE | TAKES_ADAPTER,                              \
      "slots and task token for inputs_embeds in transformers or llama.cpp")                   \
    X(SLOTS, TORCH, slots_to_torch, TAKES_BASE | TAKES_ADAPTER,                                \
      "the same for vLLM's prompt embeddings (layout append only)")

#define CONVERT_NAME_ADAPTER  "adapter "
#define CONVERT_NAME_PEFT     "peft    "
#define CONVERT_NAME_GGUF     "gguf    "
#define CONVERT_NAME_RELEASED "released"
#define CONVERT_NAME_SLOTS    "slots   "
#define CONVERT_NAME_EMBEDS   "embeds  "
#define CONVERT_NAME_TORCH    "torch   "
#define CONVERT_HELP_ROW(from, to, function, needs, help)                                      \
    "  " CONVERT_NAME_##from " -> " CONVERT_NAME_##to "  " help "\n"
#define CONVERT_DETAILS                                                                        \
    "What FROM is, is told by its content; what TO shall be, by --to or the ending of its "    \
    "name: .gguf,\n"                                                                           \
    ".safetensors (embeds), .pt (torch), none (a folder). An existing TO is refused without "  \
    "--force.\n\n" CONVERSIONS(CONVERT_HELP_ROW)

int run_convert(const options *given);

#endif
