/* SPDX-License-Identifier: MIT */
/*
 * The architectures that can be opened, as data: one row each. Nothing else in the project asks for an
 * architecture by name; readers copy a row's facts into icae_model_config, and forward.c reads those.
 *
 * All rows share the block of icae/model.h and its names of weights (ICAE_MODULE_LIST). A row says
 * where an architecture departs from the plain Llama. docs/adding-an-architecture.md shows how one
 * more row is added.
 *
 * Sources: Touvron et al., arXiv 2302.13971 (Llama); Jiang et al., arXiv 2310.06825 (Mistral); Yang et
 * al., arXiv 2407.10671 (Qwen2) and arXiv 2505.09388 (Qwen3); Gemma Team, arXiv 2503.19786 (Gemma 3);
 * the key names are those of config.json as Hugging Face writes it, and of ggml's docs/gguf.md.
 */
#include <stdio.h>
#include <string.h>

#include "model/model_internal.h"

#define BIT(module) (1u << ICAE_MODULE_##module)
#define Q_K_V       (BIT(Q) | BIT(K) | BIT(V))
#define ATTENTION   (Q_K_V | BIT(O))
#define MLP         (BIT(GATE) | BIT(UP) | BIT(DOWN))

static const icae_architecture architectures[] = {
    {
        .name = "llama",
        .gguf_name = "llama",
        .has_paired_rows_in_gguf = true,
        .biased_if_attention = ATTENTION,
        .biased_if_mlp = MLP,
        .window = ICAE_WINDOW_NONE,
    },
    {
        .name = "mistral",
        .gguf_name = "llama",
        .has_paired_rows_in_gguf = true,
        .window = ICAE_WINDOW_ALWAYS,
    },
    {
        .name = "qwen2",
        .gguf_name = "qwen2",
        .biased = Q_K_V,
        .window = ICAE_WINDOW_IF_USED,
    },
    {
        .name = "qwen3",
        .gguf_name = "qwen3",
        .biased_if_attention = ATTENTION,
        .has_head_norms = true,
        .window = ICAE_WINDOW_IF_USED,
    },
    {
        .name = "gemma3_text",
        .gguf_name = "gemma3",
        .has_head_norms = true,
        .window = ICAE_WINDOW_PERIODIC,
        .window_period = 6,
        .local_rope_theta = 10000,
        .activation_key = "hidden_activation",
        .activation = ICAE_ACTIVATION_GELU_TANH,
        .has_result_norms = true,
        .has_offset_norms = true,
        .scales_embedding = true,
        .is_tied = true,
        .query_width = 256,
        .plain_query_layers = 62,
    },
};

enum { COUNT = sizeof architectures / sizeof architectures[0] };

const icae_architecture *icae_architecture_find(const char *name) {
    for (int i = 0; i < COUNT; i++) {
        if (!strcmp(architectures[i].name, name)) return &architectures[i];
    }
    return NULL;
}

const icae_architecture *icae_architecture_find_gguf(const char *name) {
    for (int i = 0; i < COUNT; i++) {
        if (!strcmp(architectures[i].gguf_name, name)) return &architectures[i];
    }
    return NULL;
}

const char *icae_activation_name(icae_activation activation) {
    return activation == ICAE_ACTIVATION_GELU_TANH ? "gelu_pytorch_tanh" : "silu";
}

const char *icae_architecture_names(char *out, size_t bytes) {
    size_t length = 0;
    out[0] = '\0';
    for (int i = 0; i < COUNT && length < bytes; i++) {
        length += (size_t)snprintf(out + length, bytes - length, "%s%s", i ? ", " : "",
                                   architectures[i].name);
    }
    return out;
}
