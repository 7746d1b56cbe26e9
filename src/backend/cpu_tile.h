/* SPDX-License-Identifier: MIT */
/*
 * The one matrix-product loop of the level-compiled files: a few rows times a panel 32 wide.
 *
 *     y[r, c] = (add ? y[r, c] : 0) + x[r, 0] p[0, c] + x[r, 1] p[1, c] + ...      c < 32
 *
 * Every y[r, c] is a sum of chains of CHAIN multiply-adds in the order of k, whatever the number of
 * rows, so a row's bits depend on nothing but that row and the panel. Each chain starts from 0 and is
 * added to y at its end: a residual is a thousand times larger than one product, and adding products
 * to it one by one cost a factor of twenty in the gradients of a 30-layer model. A library's product does not promise
 * this: OpenBLAS's sgemm changes a row's last bits with its place in the batch.
 *
 * TILE_ROWS x 2 vectors of sums stay in registers: 12 x 2 of AVX-512's 32, 6 x 2 of AVX2's 16,
 * 4 x 2 at the baseline; the panel's 32 columns are done 2 VL at a time.
 */
#ifndef ICAE_BACKEND_CPU_TILE_H
#define ICAE_BACKEND_CPU_TILE_H

#include <stdbool.h>

#include "backend/cpu_vector.h"

enum { PANEL = 32, CHAIN = 128 };
#if VECTOR_BYTES == 64
enum { TILE_ROWS = 12 };
#elif VECTOR_BYTES == 32
enum { TILE_ROWS = 6 };
#else
enum { TILE_ROWS = 4 };
#endif

/* Where a tile's operands stand: x[r, k] = x[r * row + k * step]; panel row k at panel + k * ld. */
typedef struct tile_operands {
    const real *x;
    int64_t x_row, x_step;
    const real *panel;
    int64_t panel_ld;
    real *y;
    int64_t y_ld;
    bool
        is_one_chain; /* with add: go on with the chain that y holds, so that pieces equal the whole */
} tile_operands;

/* x_row and x_step come as arguments of their own: one of them is the constant 1. */
ALWAYS_INLINE void tile_columns(const int rows, int64_t K, const tile_operands *o,
                                int64_t x_row, int64_t x_step, int column, bool add) {
    real *y = o->y + column;
    const real *panel = o->panel + column;
    const int64_t panel_ld = o->panel_ld;
    /* One pointer for three rows: with a pointer for each, the addresses spill. */
    const real *x[(TILE_ROWS + 2) / 3];
    UNROLL
    for (int g = 0; g < (rows + 2) / 3; g++)
        x[g] = o->x + 3 * g * x_row;
    const bool is_one_chain = add && o->is_one_chain;
    UNROLL
    for (int r = 0; r < rows; r++) { /* until the sums are done, y's lines can be here */
        __builtin_prefetch(y + r * o->y_ld, 1);
        if (VECTOR_BYTES == 64) __builtin_prefetch(y + r * o->y_ld + VL, 1);
    }
    int64_t k = 0;
    do {
        vec sums[TILE_ROWS][2];
        UNROLL
        for (int r = 0; r < rows; r++) {
            const real *row = y + r * o->y_ld;
            sums[r][0] = is_one_chain ? load(row) : (vec){0};
            sums[r][1] = is_one_chain ? load(row + VL) : (vec){0};
        }
        int64_t end = is_one_chain || K - k < CHAIN ? K : k + CHAIN;
        /* Counting and moving pointers compete with the multiply-adds for the same ports. */
        UNROLL_FOUR
        for (; k < end; k++) {
            vec left = load(panel), right = load(panel + VL);
            UNROLL
            for (int r = 0; r < rows; r++) {
                vec a = splat(x[r / 3][(r % 3) * x_row]);
                sums[r][0] += a * left;
                sums[r][1] += a * right;
            }
            UNROLL
            for (int g = 0; g < (rows + 2) / 3; g++)
                x[g] += x_step;
            panel += panel_ld;
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            real *row = y + r * o->y_ld;
            bool sums_y = add && !is_one_chain;
            store(row, sums_y ? load(row) + sums[r][0] : sums[r][0]);
            store(row + VL, sums_y ? load(row + VL) + sums[r][1] : sums[r][1]);
        }
        add = true;
    } while (k < K);
}

ALWAYS_INLINE void tile_rows(const int rows, int64_t K, const tile_operands *o, bool add) {
    UNROLL
    for (int column = 0; column < PANEL; column += 2 * VL) {
        if (o->x_step == 1) {
            tile_columns(rows, K, o, o->x_row, 1, column, add);
        } else {
            tile_columns(rows, K, o, 1, o->x_step, column, add);
        }
    }
}

#define TILE(rows)                                                                             \
    static void tile_##rows(int64_t K, const tile_operands *o, bool add) {                     \
        tile_rows(rows, K, o, add);                                                            \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
#if VECTOR_BYTES >= 32
TILE(5)
TILE(6)
#endif
#if VECTOR_BYTES >= 64
TILE(7)
TILE(8)
TILE(9)
TILE(10)
TILE(11)
TILE(12)
#endif
#undef TILE

static void (*const tiles[TILE_ROWS + 1])(int64_t, const tile_operands *, bool) = {
    NULL,   tile_1, tile_2, tile_3,  tile_4,
#if VECTOR_BYTES >= 32
    tile_5, tile_6,
#endif
#if VECTOR_BYTES >= 64
    tile_7, tile_8, tile_9, tile_10, tile_11, tile_12,
#endif
};

/*
 * Any number of rows and up to 32 columns: y[r, c] for r < rows, c < columns. x_step is 1, or x_row
 * is 1 (x transposed). A narrow panel must still have 32 readable columns; y is never touched past
 * `columns`.
 */
static inline void multiply_panel(int64_t rows, int64_t columns, int64_t K, tile_operands o,
                                  bool add) {
    real edge[TILE_ROWS * PANEL];
    for (int64_t r = 0; r < rows; r += TILE_ROWS) {
        int64_t n = rows - r < TILE_ROWS ? rows - r : TILE_ROWS;
        if (columns == PANEL) {
            tiles[n](K, &o, add);
        } else {
            tile_operands narrow = o;
            narrow.y = edge;
            narrow.y_ld = PANEL;
            memset(edge, 0, sizeof edge);
            for (int64_t i = 0; add && i < n; i++)
                memcpy(edge + i * PANEL, o.y + i * o.y_ld, (size_t)columns * sizeof(real));
            tiles[n](K, &narrow, add);
            for (int64_t i = 0; i < n; i++)
                memcpy(o.y + i * o.y_ld, edge + i * PANEL, (size_t)columns * sizeof(real));
        }
        o.x += n * o.x_row;
        o.y += n * o.y_ld;
    }
}

#if HAS_FLOAT_SIMD
/* 8 x 8 floats: to[j * to_ld + i] = from[i * from_ld + j]. Halves are joined while loading, so only
 * 16 shuffles are left for 64 values. */
ALWAYS_INLINE void transpose_8x8(const float *from, int64_t from_ld, float *to, int64_t to_ld) {
    __m256 rows[8], pairs[8];
    UNROLL
    for (int i = 0; i < 4; i++) {
        const float *low = from + i * from_ld, *high = from + (i + 4) * from_ld;
        rows[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)),
                                       _mm_loadu_ps(high), 1);
        rows[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low + 4)),
                                           _mm_loadu_ps(high + 4), 1);
    }
    UNROLL
    for (int h = 0; h < 8; h += 4) {
        pairs[h] = _mm256_unpacklo_ps(rows[h], rows[h + 1]);
        pairs[h + 1] = _mm256_unpackhi_ps(rows[h], rows[h + 1]);
        pairs[h + 2] = _mm256_unpacklo_ps(rows[h + 2], rows[h + 3]);
        pairs[h + 3] = _mm256_unpackhi_ps(rows[h + 2], rows[h + 3]);
        _mm256_storeu_ps(to + (h + 0) * to_ld, _mm256_shuffle_ps(pairs[h], pairs[h + 2], 0x44));
        _mm256_storeu_ps(to + (h + 1) * to_ld, _mm256_shuffle_ps(pairs[h], pairs[h + 2], 0xEE));
        _mm256_storeu_ps(to + (h + 2) * to_ld,
                         _mm256_shuffle_ps(pairs[h + 1], pairs[h + 3], 0x44));
        _mm256_storeu_ps(to + (h + 3) * to_ld,
                         _mm256_shuffle_ps(pairs[h + 1], pairs[h + 3], 0xEE));
    }
}
#endif

/* to[j, i] = from[i, j] for i < PANEL, j < columns; to has PANEL columns. */
static inline void transpose_to_panel(const real *from, int64_t from_ld, int64_t columns,
                                      real *to) {
    int64_t j = 0;
#if HAS_FLOAT_SIMD
    for (; j + 8 <= columns; j += 8) {
        UNROLL
        for (int i = 0; i < PANEL; i += 8)
            transpose_8x8(from + i * from_ld + j, from_ld, to + j * PANEL + i, PANEL);
    }
#endif
    for (; j < columns; j++) {
        for (int i = 0; i < PANEL; i++)
            to[j * PANEL + i] = from[i * from_ld + j];
    }
}

#endif
