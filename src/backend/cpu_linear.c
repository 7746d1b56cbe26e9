/* SPDX-License-Identifier: MIT */
/*
 * Products with stored weights: linear, linear_dx, their bf16 forms, gather. Compiled once per level.
 *
 * linear and linear_dx cut the result into panels of 32 columns. The weights that a panel needs are
 * widened into scratch once, [R][32] with R the axis of the sum, and multiplied by all rows of x
 * with cpu_tile.h's loop. For linear a panel is 32 rows of w and is transposed on the way; for
 * linear_dx it is 32 columns of w, which in every quantised type is a block of each row, or a part of one.
 * The sum is cut into blocks of SUM_BLOCK so that a panel stays in the second-level cache; the
 * next block goes on from the y that the last one stored, which changes no bit.
 *
 *     first block: sums start at 0, or at y when adding
 *
 * Threads share the panels, and blocks of rows where panels are few; never a sum.
 */
#include <assert.h>

#include "backend/cpu_internal.h"
#include "backend/cpu_tile.h"
#include "backend/cpu_widen.h"
#include "icae/half.h"

enum { SUM_BLOCK = 1024 };
/* Multiply-adds below which a team of threads costs more than it gives. */
static const int64_t WORTH_THREADS = 200000;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* `count` values of row `row` from column `start` on, widened; at most WIDE, zeros after the last. */
ALWAYS_INLINE void widen_part(icae_dtype dtype, const icae_matrix *w, int64_t row,
                              int64_t start, int64_t count, real *out) {
    const unsigned char *from = (const unsigned char *)w->data + (size_t)row * w->row_bytes;
    if (count == WIDE) {
        vec wide[WIDE_VECS];
        widen_at(dtype, from, start, wide);
        store_32(out, wide);
    } else { /* only plain types, of block 1, end in the middle */
        memset(out, 0, WIDE * sizeof *out);
        from += (size_t)(start / WIDE) * bytes_of_32(dtype);
        icae_dtype_widen(dtype, from, count, out);
    }
}

/* panel[k, c] = w[row + c, start + k], k < count; zeros where w has no such row. */
ALWAYS_INLINE void pack_transposed(icae_dtype dtype, const icae_matrix *w, int64_t row,
                                   int64_t start, int64_t count, real *panel) {
    real wide[PANEL * WIDE] __attribute__((aligned(64)));
    int64_t rows = least(PANEL, w->rows - row);
    if (rows < PANEL) memset(wide, 0, sizeof wide);
    for (int64_t k = 0; k < count; k += WIDE) {
        int64_t n = least(WIDE, count - k);
        for (int64_t r = 0; r < rows; r++)
            widen_part(dtype, w, row + r, start + k, n, wide + r * WIDE);
        transpose_to_panel(wide, WIDE, n, panel + k * PANEL);
    }
}

/* panel[k, c] = w[start + k, column + c], k < count; zeros where w has no such column. */
ALWAYS_INLINE void pack_straight(icae_dtype dtype, const icae_matrix *w, int64_t column,
                                 int64_t start, int64_t count, real *panel) {
    int64_t n = least(PANEL, w->cols - column);
    for (int64_t k = 0; k < count; k++)
        widen_part(dtype, w, start + k, column, n, panel + k * PANEL);
}

typedef void packer(const icae_matrix *w, int64_t first, int64_t start, int64_t count,
                    real *panel);

/* One function per type and direction, so that the type is a constant inside the loops. */
#define PACKERS(name, values, bytes, safetensors, ggml)                                        \
    static void pack_transposed_##name(const icae_matrix *w, int64_t first, int64_t start,     \
                                       int64_t count, real *panel) {                           \
        pack_transposed(ICAE_DTYPE_##name, w, first, start, count, panel);                     \
    }                                                                                          \
    static void pack_straight_##name(const icae_matrix *w, int64_t first, int64_t start,       \
                                     int64_t count, real *panel) {                             \
        pack_straight(ICAE_DTYPE_##name, w, first, start, count, panel);                       \
    }
ICAE_DTYPE_LIST(PACKERS)
#undef PACKERS

static packer *const transposed_packers[] = {
#define PACKER(name, values, bytes, safetensors, ggml) pack_transposed_##name,
    ICAE_DTYPE_LIST(PACKER)
#undef PACKER
};
static packer *const straight_packers[] = {
#define PACKER(name, values, bytes, safetensors, ggml) pack_straight_##name,
    ICAE_DTYPE_LIST(PACKER)
#undef PACKER
};

/* The nearest bfloat16, ties to even; a NaN stays one. */
static void round_to_bf16(const real *x, int64_t n, real *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = icae_bf16_to_f32(icae_f32_to_bf16((float)x[i]));
}

/* y[T,C] (+)= x[T,R] p[R,C], with p as `pack` brings it, rounded to bfloat16 when is_rounding */
static void multiply(icae_backend *be, int64_t T, int64_t C, int64_t R, const real *x,
                     const icae_matrix *w, packer *pack, bool is_rounding, bool add, real *y) {
    if (T == 0 || C == 0) return;
    const int64_t panels = (C + PANEL - 1) / PANEL;
    const int threads = T * C * R >= WORTH_THREADS ? be->n_threads : 1;
    const int64_t blocks = icae_cpu_row_blocks(T, panels, threads);
    const int64_t block_rows =
        ((T + blocks - 1) / blocks + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    size_t stride;
    char *scratch = icae_backend_scratch(
        be, (size_t)least(R + 1, SUM_BLOCK) * PANEL * sizeof(real), &stride);
    if (!scratch) return;
        /* Dynamic: bits do not depend on who takes a panel, and a thread that another program pushes off
     * its core must not hold up the rest. */
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < panels * blocks; task++) {
        real *panel = (real *)(void *)(scratch + (size_t)icae_cpu_thread() * stride);
        int64_t column = task / blocks * PANEL, row = task % blocks * block_rows;
        int64_t rows = least(block_rows, T - row);
        if (rows <= 0) continue;
        int64_t start = 0;
        do {
            int64_t count = least(SUM_BLOCK, R - start);
            pack(w, column, start, count, panel);
            if (is_rounding) round_to_bf16(panel, count * PANEL, panel);
            tile_operands o = {.x = x + row * R + start,
                               .x_row = R,
                               .x_step = 1,
                               .panel = panel,
                               .panel_ld = PANEL,
                               .y = y + row * C + column,
                               .y_ld = C};
            multiply_panel(rows, least(PANEL, C - column), count, o, add || start > 0);
            start += count;
        } while (start < R);
    }
}

static void linear(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                   const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    multiply(be, T, N, K, x, w, transposed_packers[w->dtype], false, add, y);
}

static void linear_dx(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *dy,
                      const icae_matrix *w, bool add, real *dx) {
    assert(w->rows == N && w->cols == K);
    multiply(be, T, K, N, dy, w, straight_packers[w->dtype], false, add, dx);
}

/* bfloat16 without instructions for it: a product of two is exact in float, so rounding both sides
 * first and multiplying floats gives the same numbers up to the order of the sum. */
static void multiply_rounded(icae_backend *be, int64_t T, int64_t C, int64_t R, const real *x,
                             const icae_matrix *w, packer *pack, bool add, real *y) {
    real *rounded = icae_backend_work_space(be, (size_t)(T * R) * sizeof *rounded);
    if (!rounded) return;
    const int threads = T * R >= WORTH_THREADS ? be->n_threads : 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < T; t++)
        round_to_bf16(x + t * R, R, rounded + t * R);
    multiply(be, T, C, R, rounded, w, pack, true, add, y);
    be->k.release(be, rounded);
}

static void linear_bf16(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                        const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    multiply_rounded(be, T, N, K, x, w, transposed_packers[w->dtype], add, y);
}

static void linear_bf16_dx(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *dy,
                           const icae_matrix *w, bool add, real *dx) {
    assert(w->rows == N && w->cols == K);
    multiply_rounded(be, T, K, N, dy, w, straight_packers[w->dtype], add, dx);
}

/* ---- rows of a table ---- */

static void gather(icae_backend *be, int64_t n, const icae_matrix *w, const int32_t *rows,
                   const int32_t *to, real scale, real *y) {
    const int threads = n * w->cols >= WORTH_THREADS ? be->n_threads : 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i++) {
        real part[WIDE];
        for (int64_t k = 0; k < w->cols; k += WIDE) {
            int64_t count = least(WIDE, w->cols - k);
            widen_part(w->dtype, w, rows[i], k, count, part);
            for (int64_t j = 0; j < count; j++)
                y[to[i] * w->cols + k + j] = scale * part[j];
        }
    }
}

void LEVEL_NAME(icae_cpu_linear_)(icae_kernels *table) {
    table->linear = linear;
    table->linear_reading = linear; /* where cpu_linear_int.c has nothing better */
    table->linear_dx = linear_dx;
    table->linear_bf16 = linear_bf16;
    table->linear_bf16_dx = linear_bf16_dx;
    table->linear_few_bf16 = linear_bf16;
    table->gather = gather;
}
