/* SPDX-License-Identifier: MIT */
/* Inputs, guarded outputs and comparisons of the kernel tests; see kernel_support.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/half.h"
#include "icae/rng.h"
#include "kernel_support.h"
#include "suites.h"

enum { GUARD = 40 }; /* more than a panel's width */
static const real MARK = (real)-12345.5;

icae_backend *test_backend(const char *level, int n_threads) {
    icae_error error = {0};
    icae_backend *be = NULL;
    ck_ok(icae_backend_create(&be, level, n_threads, &error));
    ck_assert_str_eq(be->name, level);
    return be;
}

/* What this process's test has asked for. It lives until the process ends; the table keeps it in
 * sight of the leak checker, whose reports are to be about the library. */
static struct {
    void **pieces;
    size_t count, capacity;
} asked;

static void *must_alloc(size_t bytes) {
    if (asked.count == asked.capacity) {
        asked.capacity = asked.capacity ? 2 * asked.capacity : 256;
        asked.pieces = realloc(asked.pieces, asked.capacity * sizeof *asked.pieces);
        ck_assert_ptr_nonnull(asked.pieces);
    }
    void *memory = malloc(bytes ? bytes : 1);
    ck_assert_ptr_nonnull(memory);
    asked.pieces[asked.count++] = memory;
    return memory;
}

real *random_reals(int64_t n, uint64_t seed) {
    icae_rng rng = {.seed = seed};
    real *x = must_alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (real)(2 * icae_rng_uniform(&rng) - 1);
    return x;
}

real *output(int64_t n) {
    real *y = must_alloc((size_t)(n + GUARD) * sizeof *y);
    for (int64_t i = 0; i < n; i++)
        y[i] = (real)NAN;
    for (int64_t i = n; i < n + GUARD; i++)
        y[i] = MARK;
    return y;
}

real *output_from(const real *from, int64_t n) {
    real *y = output(n);
    if (n) memcpy(y, from, (size_t)n * sizeof *y);
    return y;
}

/* Check writes to its pipe at every assertion that holds; millions of values cannot afford it. */
#define REQUIRE(condition, ...)                                                                \
    do {                                                                                       \
        if (!(condition)) ck_abort_msg(__VA_ARGS__);                                           \
    } while (0)

/* One block of the dtype from random numbers: scales small, integers anything. */
static void random_block(icae_dtype dtype, icae_rng *rng, unsigned char *block) {
    double u = 2 * icae_rng_uniform(rng) - 1;
    float f = (float)u;
    uint16_t half = icae_f32_to_f16(f), bf16 = icae_f32_to_bf16(f);
    for (size_t i = 0; i < icae_dtype_describe(dtype)->block_bytes; i++)
        block[i] = (unsigned char)icae_rng_u64(rng);
    switch (dtype) {
    case ICAE_DTYPE_F32:
        memcpy(block, &f, sizeof f);
        break;
    case ICAE_DTYPE_F64:
        memcpy(block, &u, sizeof u);
        break;
    case ICAE_DTYPE_F16:
        memcpy(block, &half, sizeof half);
        break;
    case ICAE_DTYPE_BF16:
        memcpy(block, &bf16, sizeof bf16);
        break;
    default: { /* a scale, and an offset where the type has one; the larger its integers, the smaller */
        bool is_large = icae_dtype_describe(dtype)->block_values > 32;
        float by = is_large ? 1024 : dtype == ICAE_DTYPE_Q8_0 ? 128 : 16;
        uint16_t halves[2] = {icae_f32_to_f16(f / by),
                              icae_f32_to_f16(is_large ? f / 64 : f - 0.3f)};
        size_t offsets[2];
        int n_halves = icae_dtype_halves(dtype, offsets);
        if (n_halves == 0)
            ck_abort_msg("no random block for dtype %s", icae_dtype_describe(dtype)->name);
        for (int h = 0; h < n_halves; h++)
            memcpy(block + offsets[h], &halves[h], sizeof halves[h]);
    }
    }
}

icae_matrix random_matrix(icae_dtype dtype, int64_t rows, int64_t cols, uint64_t seed) {
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    icae_matrix w = icae_matrix_of(dtype, rows, cols, NULL);
    w.row_bytes += 6;
    unsigned char *data = must_alloc((size_t)rows * w.row_bytes + 1);
    w.data = data + 1;
    icae_rng rng = {.seed = seed};
    for (int64_t n = 0; n < rows; n++) {
        unsigned char *at = data + 1 + (size_t)n * w.row_bytes;
        for (int64_t k = 0; k < cols; k += info->block_values, at += info->block_bytes)
            random_block(dtype, &rng, at);
    }
    return w;
}

static void guards_hold(const char *what, const real *y, int64_t n) {
    for (int64_t i = n; i < n + GUARD; i++)
        REQUIRE(y[i] == MARK, "%s wrote %lld past its end", what, (long long)(i - n + 1));
}

void same_values(const char *what, const real *got, const real *want, int64_t n,
                 double tolerance) {
    if (ICAE_REAL_IS_DOUBLE) tolerance *= 1e-9;
    for (int64_t i = 0; i < n; i++) {
        double a = (double)got[i], b = (double)want[i];
        bool agree = isnan(b) ? isnan(a) : a == b || fabs(a - b) <= tolerance * (1 + fabs(b));
        REQUIRE(agree, "%s: value %lld is %.9g, expected %.9g", what, (long long)i, a, b);
    }
    guards_hold(what, got, n);
}

void same_bits(const char *what, const real *got, const real *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        REQUIRE(memcmp(got + i, want + i, sizeof *got) == 0,
                "%s: value %lld is %.9g, expected the bits of %.9g", what, (long long)i,
                (double)got[i], (double)want[i]);
    }
}
