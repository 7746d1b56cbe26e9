/* SPDX-License-Identifier: MIT */
/*
 * The differentiable operations. Each computes at once, returns a new tensor (NULL after a failure,
 * see icae/graph.h), and is differentiated with respect to every input that wants a gradient.
 * Letters: T packed tokens, D width, N, K matrix sides, H heads, E head width, V vocabulary, R rank.
 */
#ifndef ICAE_OPS_H
#define ICAE_OPS_H

#include "icae/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A batch: sequences laid end to end, no padding anywhere. Linear layers see T rows; only attention
 * and rope look at the descriptor. The arrays are the caller's and live until the step is over.
 */
typedef struct icae_pack {
    int64_t n_sequences, n_tokens;
    const int64_t *starts;    /* [n_sequences + 1]; starts[0] = 0, the last = n_tokens */
    const int32_t *positions; /* [n_tokens], rope's; causality goes by order, never by these */
    const uint64_t
        *row_keys; /* [n_tokens] dropout's name of each row, or NULL without dropout */
} icae_pack;

/*
 * y[t,:] = sources[which[t]][rows[t],:], in type real.
 *
 *   sources   up to 4 tensors [*, D] of any dtype; only real ones can want a gradient
 *   n         rows of the result
 *   which     [n] host, index into sources (NULL: all 0)
 *   rows      [n] host, row of that source
 *
 * Embedding lookup, memory tokens, slots placed among embeddings, and picking rows out of a hidden
 * state are all this one op. Returns [n,D]. Backward adds dy[t,:] to row rows[t] of its source.
 */
icae_tensor *icae_rows(icae_graph *graph, int n_sources, icae_tensor *const *sources, int64_t n,
                       const int32_t *which, const int32_t *rows);
/* The same with the rows of the first source times `scale`, for bases that scale their embedding. */
icae_tensor *icae_rows_scaled(icae_graph *graph, icae_real scale, int n_sources,
                              icae_tensor *const *sources, int64_t n, const int32_t *which,
                              const int32_t *rows);

/*
 * Adds to some rows of x the mean of several rows of a frozen table:
 *
 *     y[to[i],:] += scale * mean of table[rows[r],:] over starts[i] <= r < starts[i+1],  i < n
 *
 * CONSUMES x [T,D]: its buffer becomes the result's.
 *
 *   table   [*, D] of any dtype, without gradient
 *   starts  [n + 1] host, rising: no mean is of nothing
 *   rows    [starts[n]] host, rows of the table
 *   to      [n] host, rows of x, none twice
 *
 * Memory inputs that begin as the mean of the text they stand for. Gradient flows to x unchanged.
 */
icae_tensor *icae_add_means(icae_graph *graph, icae_tensor *x, icae_tensor *table,
                            icae_real scale, int64_t n, const int64_t *starts,
                            const int32_t *rows, const int32_t *to);

/*
 * Root-mean-square normalisation of every row: y[t,:] = w * x[t,:] / sqrt(mean(x[t,:]^2) + eps).
 *
 *   x   [T,D]; or [T,H,D] or [T,H*D], of which every D numbers are a row: heads, each by itself
 *   w   [D], real, frozen
 *   eps inside the root, from the model's config
 *
 * Returns the shape of x. Gradient flows to x. Kept: x, and 1/rms, a number per row.
 * Source: Zhang and Sennrich, arXiv 1910.07467.
 */
icae_tensor *icae_rmsnorm(icae_graph *graph, icae_tensor *x, icae_tensor *w, icae_real eps);

/* Dropout on the input of a LoRA pair: a row's mask depends on (seed, row_keys[t]) alone. */
typedef struct icae_dropout {
    double rate;              /* 0..1, exclusive of 1; 0 = off; rounded to 1/65536 */
    uint64_t seed;            /* of this step and this module */
    const uint64_t *row_keys; /* [T], alive until backward */
} icae_dropout;

/* A low-rank update of a frozen matrix: scale * b a. Source: Hu et al., arXiv 2106.09685. */
typedef struct icae_lora {
    icae_tensor *a;  /* [R,K] */
    icae_tensor *b;  /* [N,R] */
    icae_real scale; /* alpha / R */
    icae_dropout dropout;
} icae_lora;

/*
 * y = residual + x w^T + bias + scale * (dropout(x) a^T) b^T.
 *
 *   x         [T,K]
 *   w         [N,K], frozen, any dtype
 *   bias      [N], real, frozen, or NULL
 *   residual  [T,N] or NULL
 *   lora      or NULL; copied
 *
 * Returns [T,N]. Gradient flows to x, residual, a and b. Kept: nothing for the frozen part (its
 * backward needs only w); with lora x and the scaled dropout(x) a^T, [T,R].
 */
icae_tensor *icae_linear(icae_graph *graph, icae_tensor *x, icae_tensor *w, icae_tensor *bias,
                         icae_tensor *residual, const icae_lora *lora);

/*
 * Rotary position embedding of every head, pairs (i, i + E/2). CONSUMES x: its buffer becomes the
 * result's, so the caller neither uses x again nor calls icae_done on it.
 *
 *   x       [T,H,E] or [T,H*E]
 *   angles  [T,E] constant: E/2 cosines, E/2 sines a row (see icae_rope_angles)
 *
 * Gradient flows to x. Kept: angles. Source: Su et al., arXiv 2104.09864.
 */
icae_tensor *icae_rope(icae_graph *graph, icae_tensor *x, int64_t head_width,
                       icae_tensor *angles);

/*
 * Causal attention inside every sequence of the pack.
 *
 *   q       [T, heads * width];  k, v [T, kv_heads * width]
 *   cached  NULL, or one span per sequence whose keys and values stand in a cache (k and v are then
 *           NULL, and no gradient flows)
 *
 * Returns [T, heads * width]. Gradient flows to q, k and v. Kept: q, k, v, the result, and one
 * log-sum-exp per row and head; never the T x S matrix. In bf16 compute q, k and v are rounded to
 * bfloat16 in place first (not where keys are cached), so that backward's weights are forward's.
 * Source: Vaswani et al., arXiv 1706.03762; the blocked form, Dao et al., arXiv 2205.14135.
 */
icae_tensor *icae_attention(icae_graph *graph, const icae_attention_shape *shape,
                            const icae_pack *pack, const icae_attention_span *cached,
                            icae_tensor *q, icae_tensor *k, icae_tensor *v);

/* y = silu(gate) * up, elementwise. Gradient flows to both; both are kept.
 * Source: Shazeer, arXiv 2002.05202. */
icae_tensor *icae_swiglu(icae_graph *graph, icae_tensor *gate, icae_tensor *up);

/* y = gelu(gate) * up, elementwise, gelu by its tanh approximation (kernels.def has the formula).
 * Gradient flows to both; both are kept.
 * Sources: Shazeer, arXiv 2002.05202; Hendrycks and Gimpel, arXiv 1606.08415. */
icae_tensor *icae_geglu(icae_graph *graph, icae_tensor *gate, icae_tensor *up);

/* y = x + residual, of one shape. CONSUMES x (see icae_rope); residual is only read. Gradient flows to
 * both. Nothing is kept. A residual that a linear layer can add (icae_linear) needs no op of its own. */
icae_tensor *icae_add(icae_graph *graph, icae_tensor *x, icae_tensor *residual);

/*
 * Head and loss in one: loss = sum_i coefs[i] * nll_i, with nll_i = -log softmax(h[i,:] w^T)[targets[i]].
 *
 *   h        [n,D], after the final norm
 *   w        [V,D], the head (or the tied embedding), frozen
 *   targets  [n] host, in [0,V)
 *   coefs    [n] host; 1/n for a mean over tokens
 *   nll      [n] host, receives every row's negative log-likelihood in nats; may be NULL
 *
 * Returns [1]. Works in chunks of rows: the logits of the whole batch never exist. The gradient of h
 * is made on the way, while a chunk's logits are at hand, so backward costs nothing more. Kept: [n,D].
 */
icae_tensor *icae_linear_cross_entropy(icae_graph *graph, icae_tensor *h, icae_tensor *w,
                                       const int32_t *targets, const icae_real *coefs,
                                       icae_real *nll);

/*
 * Activation checkpointing: y = function(graph, context, x), of which only x is kept. Backward runs
 * the function again, to the same bits, and differentiates it. context must live until backward.
 * CONSUMES nothing: the function must not call icae_done on x.
 * Source: Chen et al., arXiv 1604.06174.
 */
icae_tensor *icae_checkpoint(icae_graph *graph, icae_block *function, void *context,
                             icae_tensor *x);

#ifdef __cplusplus
}
#endif
#endif
