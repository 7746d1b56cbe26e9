/* SPDX-License-Identifier: MIT */
/*
 * Products in bfloat16 on processors that multiply it: linear_bf16 and linear_bf16_dx of the level
 * avx512bf16. Other levels round and multiply floats (cpu_linear.c).
 *
 * VDPBF16PS adds two products to each of 16 float sums: lane i gets a[2i] b[2i] + a[2i+1] b[2i+1].
 * So bfloat16 numbers travel in pairs along the axis of the sum, a pair in one 32-bit word:
 *
 *     x       [T][pairs]         rounded once per product, a row in whole cache lines
 *     panel   [pairs][32]        32 columns of weights, widened as stored and rounded
 *
 * The rest is as in cpu_linear.c: a panel is packed once and multiplied by all rows of x, tiles of 12
 * rows and 32 columns of sums stay in registers, the axis of the sum is cut into blocks whose sums
 * start from zero. Missing rows, columns and the second half of the last pair are zeros.
 *
 * A row's bits depend on nothing but that row and the panel. The instruction rounds each of its two
 * additions to nearest and takes subnormal numbers (below 1.2e-38) as zero.
 */
#include <assert.h>

#include "backend/cpu_internal.h"
#include "backend/cpu_tile.h"
#include "backend/cpu_widen.h"
#include "icae/log.h"

enum { SUM_BLOCK = 1024, WIDE_PAIRS = WIDE / 2 };
static const int64_t WORTH_THREADS =
    400000; /* multiply-adds, as in cpu_linear.c at twice its speed */

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ---- rounding and packing ---- */

/* Words of a row of n values: whole cache lines, an odd number of them, so that the rows of a tile
 * stand in different cache sets. */
static int64_t row_words(int64_t n) {
    return ((n + WIDE - 1) / WIDE | 1) * WIDE_PAIRS;
}

/* 32 values in order -> 16 pairs */
ALWAYS_INLINE __m512i pairs_of_32(vec low, vec high) {
    return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

static void round_row(const real *x, int64_t n, uint32_t *to) {
    for (int64_t k = 0; k < n; k += WIDE) {
        vec low = load_some(x + k, n - k), high = {0};
        if (n - k > VL) high = load_some(x + k + VL, n - k - VL);
        _mm512_store_si512(to + k / 2, pairs_of_32(low, high));
    }
}

/* `count` <= 32 values of row `row` from column `start` on; zeros after the last. */
ALWAYS_INLINE void widen_row(icae_dtype dtype, const icae_matrix *w, int64_t row, int64_t start,
                             int64_t count, vec wide[WIDE_VECS]) {
    const unsigned char *from = (const unsigned char *)w->data + (size_t)row * w->row_bytes;
    if (count == WIDE) {
        widen_at(dtype, from, start, wide);
    } else { /* only plain types, of block 1, end in the middle */
        real rest[WIDE] = {0};
        from += (size_t)(start / WIDE) * bytes_of_32(dtype);
        icae_dtype_widen(dtype, from, count, rest);
        wide[0] = load(rest);
        wide[1] = load(rest + VL);
    }
}

/* panel[p, c] = w[row + c, start + 2p] and the next, for count values; a multiple of 16 pairs. */
ALWAYS_INLINE void pack_transposed(icae_dtype dtype, const icae_matrix *w, int64_t row,
                                   int64_t start, int64_t count, uint32_t *panel) {
    uint32_t block[PANEL * WIDE_PAIRS] __attribute__((aligned(64)));
    int64_t rows = least(PANEL, w->rows - row);
    if (rows < PANEL) memset(block, 0, sizeof block);
    for (int64_t k = 0; k < count; k += WIDE) {
        for (int64_t r = 0; r < rows; r++) {
            vec wide[WIDE_VECS];
            widen_row(dtype, w, row + r, start + k, least(WIDE, count - k), wide);
            _mm512_store_si512(block + r * WIDE_PAIRS, pairs_of_32(wide[0], wide[1]));
        }
        /* A pair moves as the 32 bits of a float. */
        const float *from = (const float *)(const void *)block;
        float *to = (float *)(void *)(panel + k / 2 * PANEL);
        for (int i = 0; i < PANEL; i += 8) {
            transpose_8x8(from + i * WIDE_PAIRS, WIDE_PAIRS, to + i, PANEL);
            transpose_8x8(from + i * WIDE_PAIRS + 8, WIDE_PAIRS, to + 8 * PANEL + i, PANEL);
        }
    }
}

/* panel[p, c] = w[start + 2p, column + c] and w[start + 2p + 1, column + c] */
ALWAYS_INLINE void pack_straight(icae_dtype dtype, const icae_matrix *w, int64_t column,
                                 int64_t start, int64_t count, uint32_t *panel) {
    /* Words i and 16 + i of 32 become neighbours. */
    const __m512i zip =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    int64_t n = least(PANEL, w->cols - column);
    for (int64_t k = 0; k < count; k += 2) {
        vec first[WIDE_VECS], second[WIDE_VECS] = {{0}};
        widen_row(dtype, w, start + k, column, n, first);
        if (k + 1 < count) widen_row(dtype, w, start + k + 1, column, n, second);
        uint32_t *to = panel + k / 2 * PANEL;
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++) {
            __m512i both = pairs_of_32(first[i], second[i]);
            _mm512_store_si512(to + i * VL, _mm512_permutexvar_epi16(zip, both));
        }
    }
}

typedef void packer(const icae_matrix *w, int64_t first, int64_t start, int64_t count,
                    uint32_t *panel);

#define PACKERS(name, values, bytes, safetensors, ggml)                                        \
    static void pack_transposed_##name(const icae_matrix *w, int64_t first, int64_t start,     \
                                       int64_t count, uint32_t *panel) {                       \
        pack_transposed(ICAE_DTYPE_##name, w, first, start, count, panel);                     \
    }                                                                                          \
    static void pack_straight_##name(const icae_matrix *w, int64_t first, int64_t start,       \
                                     int64_t count, uint32_t *panel) {                         \
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

/* ---- the tile ---- */

/* y[r, c] (+)= sum over pairs of x[r, p] . panel[p, c], c < 32 */
ALWAYS_INLINE void bf16_tile(const int rows, int64_t pairs, const uint32_t *x_first,
                             int64_t x_row, const uint32_t *panel, float *y, int64_t y_ld,
                             bool add) {
    /* One pointer for three rows: with a pointer for each, the addresses spill. */
    const uint32_t *x[(TILE_ROWS + 2) / 3];
    __m512 sums[TILE_ROWS][2];
    UNROLL
    for (int g = 0; g < (rows + 2) / 3; g++)
        x[g] = x_first + 3 * g * x_row;
    UNROLL
    for (int r = 0; r < rows; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; p++) {
        __m512bh left = (__m512bh)_mm512_load_si512(panel);
        __m512bh right = (__m512bh)_mm512_load_si512(panel + VL);
        UNROLL
        for (int r = 0; r < rows; r++) {
            __m512bh a = (__m512bh)_mm512_set1_epi32((int)x[r / 3][(r % 3) * x_row]);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], a, left);
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], a, right);
        }
        UNROLL
        for (int g = 0; g < (rows + 2) / 3; g++)
            x[g]++;
        panel += PANEL;
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        float *row = y + r * y_ld;
        vec left = (vec)sums[r][0], right = (vec)sums[r][1];
        store(row, add ? load(row) + left : left);
        store(row + VL, add ? load(row + VL) + right : right);
    }
}

#define BF16_TILE(rows)                                                                        \
    static void bf16_tile_##rows(int64_t pairs, const uint32_t *x, int64_t x_row,              \
                                 const uint32_t *panel, float *y, int64_t y_ld, bool add) {    \
        bf16_tile(rows, pairs, x, x_row, panel, y, y_ld, add);                                 \
    }
BF16_TILE(1)
BF16_TILE(2)
BF16_TILE(3)
BF16_TILE(4)
BF16_TILE(5)
BF16_TILE(6)
BF16_TILE(7)
BF16_TILE(8)
BF16_TILE(9)
BF16_TILE(10)
BF16_TILE(11)
BF16_TILE(12)
#undef BF16_TILE

static void (*const bf16_tiles[TILE_ROWS + 1])(int64_t, const uint32_t *, int64_t,
                                               const uint32_t *, float *, int64_t, bool) = {
    NULL,         bf16_tile_1,  bf16_tile_2,  bf16_tile_3, bf16_tile_4,
    bf16_tile_5,  bf16_tile_6,  bf16_tile_7,  bf16_tile_8, bf16_tile_9,
    bf16_tile_10, bf16_tile_11, bf16_tile_12,
};

/* Any number of rows and up to 32 columns; y is never touched past `columns`. */
static void multiply_rows(int64_t rows, int64_t columns, int64_t pairs, const uint32_t *x,
                          int64_t x_row, const uint32_t *panel, float *y, int64_t y_ld,
                          bool add) {
    float edge[TILE_ROWS * PANEL];
    for (int64_t r = 0; r < rows; r += TILE_ROWS, x += TILE_ROWS * x_row) {
        int64_t n = least(TILE_ROWS, rows - r);
        float *to = y + r * y_ld;
        if (columns == PANEL) {
            bf16_tiles[n](pairs, x, x_row, panel, to, y_ld, add);
            continue;
        }
        bf16_tiles[n](pairs, x, x_row, panel, edge, PANEL, false);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t c = 0; c < columns; c++) {
                float sum = edge[i * PANEL + c];
                to[i * y_ld + c] = add ? to[i * y_ld + c] + sum : sum;
            }
        }
    }
}

/* ---- the products ---- */

/* y[T,C] (+)= x[T,R] p[R,C], with p as `pack` brings it */
static void multiply(icae_backend *be, int64_t T, int64_t C, int64_t R, const real *x,
                     const icae_matrix *w, packer *pack, bool add, real *y) {
    if (T == 0 || C == 0) return;
    const int64_t panels = (C + PANEL - 1) / PANEL, x_row = row_words(R);
    const int threads = T * C * R >= WORTH_THREADS ? be->n_threads : 1;
    const int64_t blocks = icae_cpu_row_blocks(T, panels, threads);
    const int64_t block_rows =
        ((T + blocks - 1) / blocks + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    const int64_t panel_words = (least(R, SUM_BLOCK) + WIDE - 1) / WIDE * WIDE_PAIRS * PANEL;
    size_t stride;
    char *scratch = icae_backend_scratch(be, (size_t)panel_words * sizeof(uint32_t), &stride);
    uint32_t *rounded =
        scratch ? icae_backend_work_space(be, (size_t)(T * x_row) * sizeof *rounded) : NULL;
    if (!rounded) return;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < T; t++)
            round_row(x + t * R, R, rounded + t * x_row);
            /* Dynamic: bits do not depend on who takes a panel, and a thread that another program
         * pushes off its core must not hold up the rest. */
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < panels * blocks; task++) {
            uint32_t *panel =
                (uint32_t *)(void *)(scratch + (size_t)icae_cpu_thread() * stride);
            int64_t column = task / blocks * PANEL, row = task % blocks * block_rows;
            int64_t rows = least(block_rows, T - row), start = 0;
            if (rows <= 0) continue;
            do {
                int64_t count = least(SUM_BLOCK, R - start);
                pack(w, column, start, count, panel);
                multiply_rows(rows, least(PANEL, C - column), (count + 1) / 2,
                              rounded + row * x_row + start / 2, x_row, panel,
                              y + row * C + column, C, add || start > 0);
                start += count;
            } while (start < R);
        }
    }
    be->k.release(be, rounded);
}

static void linear_bf16(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                        const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    multiply(be, T, N, K, x, w, transposed_packers[w->dtype], add, y);
}

static void linear_bf16_dx(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *dy,
                           const icae_matrix *w, bool add, real *dx) {
    assert(w->rows == N && w->cols == K);
    multiply(be, T, K, N, dy, w, straight_packers[w->dtype], add, dx);
}

void icae_cpu_bf16(icae_kernels *table) {
    table->linear_bf16 = linear_bf16;
    table->linear_bf16_dx = linear_bf16_dx;
    icae_cpu_few_avx512bf16(table);
}

/* ---- what the processor can do ---- */

enum { BURST_ROUNDS = 20000, BURST_SUMS = 24 };

static void multiply_in_registers(void) {
    __m512 sums[BURST_SUMS];
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3F803F80); /* ones */
    UNROLL
    for (int i = 0; i < BURST_SUMS; i++)
        sums[i] = _mm512_set1_ps((float)i); /* different, or one chain would serve for all */
    for (int round = 0; round < BURST_ROUNDS; round++) {
        UNROLL
        for (int i = 0; i < BURST_SUMS; i++)
            sums[i] = _mm512_dpbf16_ps(sums[i], a, a);
    }
    volatile float used;
    UNROLL
    for (int i = 0; i < BURST_SUMS; i++)
        used = sums[i][0];
    (void)used;
}

double icae_cpu_bf16_burst(int n_threads, double *seconds) {
    double slowest = 0;
#pragma omp parallel num_threads(n_threads) reduction(max : slowest)
    {
        double start = icae_clock_seconds();
        multiply_in_registers();
        slowest = icae_clock_seconds() - start;
    }
    *seconds = slowest;
    return 1e-9 * n_threads * BURST_ROUNDS * BURST_SUMS * 4 * VL;
}
