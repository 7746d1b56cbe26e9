/* SPDX-License-Identifier: MIT */
/*
 * A backend: a device's memory and its kernels, as one table of functions.
 *
 * src/backend/kernels.def lists the kernels with their formulas. The reference table (cpu_ref.c) is
 * plain C and stays for ever as the oracle; the CPU tables start from it and are overridden entry
 * by entry. Which one runs is decided when a backend is created, from what the processor has:
 *
 *     reference   plain loops, one thread
 *     portable    blocked kernels, baseline instructions
 *     avx2        AVX2 + FMA
 *     avx512      AVX-512 F/BW/VL/DQ
 *     avx512vnni  the same, and sums of products of 16-bit integers (AVX512-VNNI)
 *     avx512bf16  the same, and products of bfloat16
 *
 * The environment variable ICAE_CPU=LEVEL forces one; a level that the processor lacks is refused.
 * A level is the set of instructions; the type that products with frozen weights are computed in is
 * another choice, icae_backend_set_compute:
 *
 *     f32         activations and widened weights as they are
 *     bf16        both rounded to bfloat16, sums in float; every level can, avx512bf16 at twice the
 *                 speed of f32. Everything that is no product with frozen weights stays f32.
 *
 * A backend serves one thread of control at a time; two sessions in two threads have one each.
 */
#ifndef ICAE_BACKEND_H
#define ICAE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/dtype.h"
#include "icae/memory.h"
#include "icae/real.h"
#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_backend icae_backend;

/* A matrix [rows, cols] in whatever type it is stored; a view, rows contiguous. cols is a multiple of
 * the dtype's block. data needs no alignment. */
typedef struct icae_matrix {
    icae_dtype dtype;
    int64_t rows, cols;
    size_t row_bytes;
    const void *data;
} icae_matrix;

typedef struct icae_attention_shape {
    int64_t heads, kv_heads; /* H, K; H is a multiple of K; head h reads kv head h / (H/K) */
    int64_t width;           /* E, per head */
    icae_real scale;         /* usually 1/sqrt(E) */
    int64_t window;          /* keys a query sees, itself included; 0 = all */
} icae_attention_shape;

/* One sequence of a pack. Its queries are rows query_start.. of q; its keys and values stand
 * anywhere (in the pack, or in a cache), [n_keys, K, E], the last n_queries of them the queries' own. */
typedef struct icae_attention_span {
    int64_t query_start, n_queries, n_keys;
    const icae_real *keys, *values;
    icae_real *d_keys, *d_values; /* NULL in forward */
} icae_attention_span;

/* p -= lr * wd * p;  m = b1 m + (1-b1) g s;  v = b2 v + (1-b2) (g s)^2;
 * p -= lr * (m / c1) / (sqrt(v / c2) + eps), with s = gradient_scale (clipping).
 * Source: Loshchilov and Hutter, arXiv 1711.05101, as PyTorch orders it. */
typedef struct icae_adamw_step {
    double lr, beta1, beta2, eps, weight_decay;
    double correction1, correction2; /* 1 - beta^step */
    double gradient_scale;
} icae_adamw_step;

typedef struct icae_kernels {
#define KERNEL(type, name, arguments) type(*name) arguments;
#include "backend/kernels.def"
#undef KERNEL
} icae_kernels;

typedef enum icae_compute {
    ICAE_COMPUTE_AUTO, /* bf16 where the processor multiplies it, else f32; never in a backend */
    ICAE_COMPUTE_F32,
    ICAE_COMPUTE_BF16
} icae_compute;
extern const char *const icae_compute_names[]; /* "auto", "f32", "bf16", NULL */

struct icae_backend {
    icae_kernels k;
    const char *name;     /* "avx2" */
    icae_compute compute; /* f32 unless set */
    bool has_fast_bf16;   /* this level multiplies bfloat16 faster than float */
    int n_threads;
    icae_pool *pool;      /* behind k.acquire on a CPU */
    void *scratch;        /* per-thread work space of the kernels, grown on demand */
    size_t scratch_bytes; /* per thread */
    /* A kernel found no memory and left its result unwritten. Stays set until its owner clears it: a
     * graph tells it as its error and clears it at the next begin. */
    bool is_out_of_memory;
};

/* level: a name from the list above, or NULL for ICAE_CPU or else the best. n_threads: 0 = as many as
 * OpenMP would take; what other parts of the process take stays as it is. */
icae_status icae_backend_create(icae_backend **backend, const char *level, int n_threads,
                                icae_error *error);
void icae_backend_free(icae_backend *backend); /* all buffers must have been released */

/* What ops multiply frozen weights in from now on. AUTO takes bf16 where has_fast_bf16. Without that
 * bf16 rounds the same numbers and multiplies floats: as exact as the instructions, and a little slower
 * than f32. */
void icae_backend_set_compute(icae_backend *backend, icae_compute compute);
/* "auto", "f32" or "bf16"; false when it is none of them. */
bool icae_compute_from_name(const char *name, icae_compute *compute);

/* Names of the levels this processor can run, best last, "reference" first; NULL-terminated. */
const char *const *icae_backend_levels(void);

/* At least `bytes` for each thread, 64-byte aligned; thread i's part starts at i * *stride. Contents do
 * not survive the next call. NULL when memory ends: the kernel returns at once, is_out_of_memory tells. */
char *icae_backend_scratch(icae_backend *backend, size_t bytes, size_t *stride);

/* Of the size asked for, until k.release. NULL as above. */
void *icae_backend_work_space(icae_backend *backend, size_t bytes);

/* The most GFLOP/s that n_threads threads can multiply in bfloat16, measured on
 * registers alone for about `seconds`; 0 where this processor has no instruction for it. */
double icae_cpu_bf16_peak(int n_threads, double seconds);

/* The best GFLOP/s of OpenBLAS's sgemm on 1024 x 1024 matrices, tried again and again for about
 * `seconds` (at least once), with n_threads threads: what the processor can do, for the bench and the
 * progress line. *mean, unless NULL: that of all tries, by their time. 0 when memory
 * ends. */
double icae_cpu_sgemm_peak(int n_threads, double seconds, double *mean);

/* OpenBLAS's name for its kernels in use, as "Haswell"; not to be freed. */
const char *icae_cpu_sgemm_core(void);

/* The matrix view of row-major data. */
icae_matrix icae_matrix_of(icae_dtype dtype, int64_t rows, int64_t cols, const void *data);

#ifdef __cplusplus
}
#endif
#endif
