/* SPDX-License-Identifier: MIT */
/*
 * Products with stored weights: linear, linear_dx, linear_few, gather. Compiled once per level.
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
 *
 * linear_few reads the weights as they are stored: a row of w is widened in registers and
 * multiplied by up to FEW_AT_ONCE rows of x, each with its own sums.
 */
#include <assert.h>

#include "backend/cpu_internal.h"
#include "backend/cpu_tile.h"
#include "backend/cpu_widen.h"

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

/* How many row blocks each panel is cut into, so that no thread waits long for the last one. Each
 * block packs its panel anew, so a block must have many rows. */
static int64_t row_blocks(int64_t T, int64_t panels, int64_t threads) {
    int64_t blocks = 1;
    while (panels * blocks % threads != 0 && panels * blocks < 8 * threads &&
           T / (blocks + 1) >= 96)
        blocks++;
    return blocks;
}

/* y[T,C] (+)= x[T,R] p[R,C], with p as `pack` brings it */
static void multiply(icae_backend *be, int64_t T, int64_t C, int64_t R, const real *x,
                     const icae_matrix *w, packer *pack, bool add, real *y) {
    if (T == 0 || C == 0) return;
    const int64_t panels = (C + PANEL - 1) / PANEL;
    const int threads = T * C * R >= WORTH_THREADS ? be->n_threads : 1;
    const int64_t blocks = row_blocks(T, panels, threads);
    const int64_t block_rows =
        ((T + blocks - 1) / blocks + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    size_t stride;
    char *scratch = icae_backend_scratch(
        be, (size_t)least(R + 1, SUM_BLOCK) * PANEL * sizeof(real), &stride);
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
    multiply(be, T, N, K, x, w, transposed_packers[w->dtype], add, y);
}

static void linear_dx(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *dy,
                      const icae_matrix *w, bool add, real *dx) {
    assert(w->rows == N && w->cols == K);
    multiply(be, T, K, N, dy, w, straight_packers[w->dtype], add, dx);
}

/* ---- few rows ---- */

/* Rows of x that share one widening; their sums must fit the registers. */
enum { FEW_AT_ONCE = VECTOR_BYTES == 64 ? 4 : 2 };

/* y[r, n] (+)= x[r,:] . w[n,:] for r < rows */
ALWAYS_INLINE void dot_rows(icae_dtype dtype, const int rows, int64_t K, const real *x,
                            const unsigned char *w, bool add, real *y, int64_t y_ld) {
    vec sums[FEW_AT_ONCE][WIDE_VECS] = {{{0}}};
    int64_t k = 0;
    for (; k + WIDE <= K; k += WIDE) {
        vec wide[WIDE_VECS];
        widen_at(dtype, w, k, wide);
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int i = 0; i < WIDE_VECS; i++)
                sums[r][i] += wide[i] * load(x + r * K + k + i * VL);
        }
    }
    if (k < K) {
        real wide[WIDE] = {0};
        icae_dtype_widen(dtype, w + (size_t)(k / WIDE) * bytes_of_32(dtype), K - k, wide);
        UNROLL
        for (int r = 0; r < rows; r++) {
            real rest[WIDE] = {0};
            memcpy(rest, x + r * K + k, (size_t)(K - k) * sizeof(real));
            UNROLL
            for (int i = 0; i < WIDE_VECS; i++)
                sums[r][i] += load(wide + i * VL) * load(rest + i * VL);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int half = WIDE_VECS / 2; half > 0; half /= 2) {
            UNROLL
            for (int i = 0; i < half; i++)
                sums[r][i] += sums[r][i + half];
        }
        real sum = lane_sum(sums[r][0]);
        y[r * y_ld] = add ? y[r * y_ld] + sum : sum;
    }
}

typedef struct few {
    int64_t T, N, K;
    const real *x;
    const icae_matrix *w;
    bool add;
    real *y;
} few;

ALWAYS_INLINE void few_columns(icae_dtype dtype, const few *f, int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) {
        const unsigned char *w =
            (const unsigned char *)f->w->data + (size_t)n * f->w->row_bytes;
        const real *x = f->x;
        real *y = f->y + n;
        int64_t t = 0;
        for (; t + FEW_AT_ONCE <= f->T; t += FEW_AT_ONCE) {
            dot_rows(dtype, FEW_AT_ONCE, f->K, x, w, f->add, y, f->N);
            x += FEW_AT_ONCE * f->K;
            y += FEW_AT_ONCE * f->N;
        }
        switch (f->T - t) {
#if VECTOR_BYTES == 64
        case 3:
            dot_rows(dtype, 3, f->K, x, w, f->add, y, f->N);
            break;
        case 2:
            dot_rows(dtype, 2, f->K, x, w, f->add, y, f->N);
            break;
#endif
        case 1:
            dot_rows(dtype, 1, f->K, x, w, f->add, y, f->N);
            break;
        default:
            break;
        }
    }
}

#define FEW(name, values, bytes, safetensors, ggml)                                            \
    static void few_##name(const few *f, int64_t from, int64_t to) {                           \
        few_columns(ICAE_DTYPE_##name, f, from, to);                                           \
    }
ICAE_DTYPE_LIST(FEW)
#undef FEW
static void (*const few_functions[])(const few *, int64_t, int64_t) = {
#define FEW(name, values, bytes, safetensors, ggml) few_##name,
    ICAE_DTYPE_LIST(FEW)
#undef FEW
};

static void linear_few(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                       const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    const few f = {T, N, K, x, w, add, y};
    const int threads = T * N * K >= WORTH_THREADS / 4 ? be->n_threads : 1;
    const int64_t parts = threads > 1 ? 4 * (int64_t)threads : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t part = 0; part < parts; part++)
        few_functions[w->dtype](&f, N * part / parts, N * (part + 1) / parts);
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
    table->linear_dx = linear_dx;
    table->linear_few = linear_few;
    table->gather = gather;
}
