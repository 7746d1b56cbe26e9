/* SPDX-License-Identifier: MIT */
/*
 * linear_reading: products of many rows with quantised weights in integers. Compiled once per level.
 *
 *     y[t, n] (+)= x^[t,:] . w[n,:]       x^ = x with 16 bits for each value (cpu_int.h)
 *
 * As in cpu_linear.c the result is cut into panels of 32 columns, whose weights are unpacked into scratch
 * once for all rows of x; here as integers, two neighbours of a row in 32 bits:
 *
 *     panel [pairs][32 twos][32 columns], scale and offset [pieces][32 columns]
 *
 * where a pair's twos are in the order of pair.values. VPMADDWD multiplies a two of x with the panel's and
 * adds the products: twice what a float multiply-add does, and the additions find room beside it. After a
 * piece of 32 values the integer sums go into float ones:
 *
 *     sum += (sum of X q) (scale e);  sum += offset (e sum of X)
 *
 * A sum of at most STRETCH columns starts at 0 and is added to y at its end. It depends on nothing
 * but its row of x and its row of w; threads share panels and blocks of rows, never a sum.
 */
#include <assert.h>

#include "backend/cpu_int.h"
#include "backend/cpu_tile.h"

#if HAS_FLOAT_SIMD

/* Twos of a row in a pair of pieces. The tile is cpu_tile.h's: TILE_ROWS x 2 vectors of sums. */
enum { PAIR_TWOS = 32 };
/* Multiply-adds below which a team of threads costs more than it gives. */
static const int64_t WORTH_THREADS = 200000;

/* Quantised columns of w, for one stretch of its rows */
typedef struct panel {
    int32_t twos[PIECES / 2][PAIR_TWOS][PANEL] __attribute__((aligned(64)));
    real scale[PIECES][PANEL] __attribute__((aligned(64)));
    real offset[PIECES][PANEL] __attribute__((aligned(64)));
    scales row; /* of the row that is unpacked */
} panel;

/* x in 16 bits; rows is T, rounded up to whole tiles with zeros */
typedef struct rounded {
    int64_t rows;
    pair *values; /* [pairs][rows] */
    real *sums;   /* [ceil(pairs / 4)][rows][8] */
} rounded;

#if VECTOR_BYTES == 64
typedef __m512i ints;
#define splat_two  _mm512_set1_epi32
#define zero_ints  _mm512_setzero_si512
#define load_twos  _mm512_load_si512
#define add_ints   _mm512_add_epi32
#define two_by_two _mm512_madd_epi16
#define to_reals   (vec) _mm512_cvtepi32_ps
#else
typedef __m256i ints;
#define splat_two       _mm256_set1_epi32
#define zero_ints       _mm256_setzero_si256
#define load_twos(from) _mm256_load_si256((const __m256i *)(const void *)(from))
#define add_ints        _mm256_add_epi32
#define two_by_two      _mm256_madd_epi16
#define to_reals        (vec) _mm256_cvtepi32_ps
#endif

/* Types with one scale for a whole piece. */
ALWAYS_INLINE bool is_known(icae_dtype dtype) {
    return dtype != ICAE_DTYPE_Q6_K && (has_headers(dtype) || has_stretches(dtype));
}

/* Pieces first .. first + n - 1 of 32 rows of w, from row `row` on; zeros where w has no such row. */
ALWAYS_INLINE void unpack_panel(icae_dtype dtype, const icae_matrix *w, int64_t row,
                                int64_t first, int64_t n, panel *p) {
    int32_t twos[PANEL][PAIR_TWOS] __attribute__((aligned(64))) = {{0}};
    const int64_t rows = least(PANEL, w->rows - row);
    const unsigned char *from = (const unsigned char *)w->data + (size_t)row * w->row_bytes +
                                (size_t)first / 8 * bytes_of_eight(dtype);
    if (rows < PANEL) {
        memset(p->scale, 0, sizeof p->scale);
        memset(p->offset, 0, sizeof p->offset);
    }
    for (int64_t c = 0; c < rows; c++) {
        const unsigned char *stretch = from + (size_t)c * w->row_bytes;
        copy_headers(dtype, 1, stretch, w->row_bytes, 0, n, &p->row);
        widen_scales(dtype, stretch, n, 0, &p->row);
        for (int64_t i = 0; i < n; i++) {
            p->scale[i][c] = p->row.scale[0][i];
            p->offset[i][c] = dtype == ICAE_DTYPE_Q8_0 ? 0 : p->row.offset[0][i];
        }
    }
    for (int64_t i = 0; i < n; i += 2) {
        for (int64_t c = 0; c < rows; c++) {
            __m256i q[4];
            read_pair(dtype, from + (size_t)c * w->row_bytes, i / 2, i + 1 == n, q);
            UNROLL
            for (int j = 0; j < 4; j++)
                _mm256_store_si256((__m256i *)(void *)(twos[c] + 8 * j), q[j]);
        }
        for (int j = 0; j < PAIR_TWOS; j += 8) {
            UNROLL
            for (int c = 0; c < PANEL; c += 8)
                transpose_8x8((const float *)(const void *)(twos[c] + j), PAIR_TWOS,
                              (float *)(void *)(p->twos[i / 2][j] + c), PANEL);
        }
    }
}

/* sums[r][c] of rows of x and pieces 0 .. n-1 of the panel; x and x_sums begin at the tile's first row. */
ALWAYS_INLINE void multiply_columns(const rounded *all, const pair *x, const real *x_sums,
                                    int64_t n, const panel *p, int column,
                                    real out[TILE_ROWS][PANEL]) {
    vec sums[TILE_ROWS][2];
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++)
        sums[r][0] = sums[r][1] = (vec){0};
    for (int64_t i = 0; i < n; i++) {
        const pair *at = x + i / 2 * all->rows;
        const real *x_sum = x_sums + i / 8 * all->rows * 8 + i % 8;
        ints whole[TILE_ROWS][2];
        UNROLL
        for (int r = 0; r < TILE_ROWS; r++)
            whole[r][0] = whole[r][1] = zero_ints();
        for (int j = 0; j < 4; j++) {
            const char *two = (const char *)(at->values[j] + i % 2 * 8);
            const int32_t *w = p->twos[i / 2][j * 8 + i % 2 * 4] + column;
            UNROLL
            for (int k = 0; k < 4; k++) {
                ints left = load_twos(w + k * PANEL), right = load_twos(w + k * PANEL + VL);
                UNROLL
                for (int r = 0; r < TILE_ROWS; r++) {
                    int32_t value;
                    memcpy(&value, two + (size_t)r * sizeof *x + 4 * (size_t)k, sizeof value);
                    ints a = splat_two(value);
                    whole[r][0] = add_ints(whole[r][0], two_by_two(a, left));
                    whole[r][1] = add_ints(whole[r][1], two_by_two(a, right));
                    /* Otherwise GCC does all multiplications of a step first and runs out of registers:
                     * half as fast. */
                    __asm__("" : "+v"(whole[r][0]), "+v"(whole[r][1]));
                }
            }
        }
        const real *scale = p->scale[i] + column, *offset = p->offset[i] + column;
        UNROLL
        for (int r = 0; r < TILE_ROWS; r++) {
            vec e = splat(at[r].scales[i % 2 * 4]), x_whole = splat(x_sum[8 * r]);
            UNROLL
            for (int v = 0; v < 2; v++) {
                sums[r][v] += to_reals(whole[r][v]) * (load(scale + v * VL) * e);
                sums[r][v] += load(offset + v * VL) * x_whole;
            }
        }
    }
    UNROLL
    for (int r = 0; r < TILE_ROWS; r++) {
        store(out[r] + column, sums[r][0]);
        store(out[r] + column + VL, sums[r][1]);
    }
}

typedef void unpacker(const icae_matrix *w, int64_t row, int64_t first, int64_t n, panel *p);

/* One function for each type, so that the type is a constant inside the loops. */
#define UNPACK(name, values, bytes, safetensors, ggml)                                         \
    static void unpack_##name(const icae_matrix *w, int64_t row, int64_t first, int64_t n,     \
                              panel *p) {                                                      \
        if (is_known(ICAE_DTYPE_##name)) unpack_panel(ICAE_DTYPE_##name, w, row, first, n, p); \
    }
ICAE_DTYPE_LIST(UNPACK)
#undef UNPACK
static unpacker *const unpackers[] = {
#define UNPACKER(name, values, bytes, safetensors, ggml) unpack_##name,
    ICAE_DTYPE_LIST(UNPACKER)
#undef UNPACKER
};

/* y[row .. row + n - 1, 32 columns from `column` on] */
static void multiply_block(const icae_matrix *w, const rounded *x, int64_t row, int64_t n,
                           int64_t column, bool add, panel *p, real *y) {
    const int64_t pieces = w->cols / WIDE, columns = least(PANEL, w->rows - column);
    real out[TILE_ROWS][PANEL] __attribute__((aligned(64)));
    for (int64_t first = 0; first < pieces; first += PIECES, add = true) {
        const int64_t count = least(PIECES, pieces - first);
        unpackers[w->dtype](w, column, first, count, p);
        for (int64_t t = row; t < row + n; t += TILE_ROWS) {
            const pair *values = x->values + first / 2 * x->rows + t;
            const real *sums = x->sums + (first / 8 * x->rows + t) * 8;
            UNROLL
            for (int c = 0; c < PANEL; c += 2 * VL)
                multiply_columns(x, values, sums, count, p, c, out);
            for (int64_t r = 0; r < least(TILE_ROWS, row + n - t); r++) {
                real *to = y + (t + r) * w->rows + column;
                for (int64_t c = 0; c < columns; c++)
                    to[c] = add ? to[c] + out[r][c] : out[r][c];
            }
        }
    }
}

static void linear_reading(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                           const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    if (T == 0 || N == 0 || K == 0 || !is_known(w->dtype)) {
        be->k.linear(be, T, N, K, x, w, add, y);
        return;
    }
    const int64_t pairs = (K + PAIR - 1) / PAIR, eights = (pairs + 3) / 4;
    const int64_t rows = (T + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    const size_t values_bytes = (size_t)(pairs * rows) * sizeof(pair);
    const size_t sums_bytes = (size_t)(eights * rows * 8) * sizeof(real);
    size_t stride;
    char *scratch = icae_backend_scratch(be, sizeof(panel), &stride);
    char *memory = scratch ? icae_backend_work_space(be, values_bytes + sums_bytes) : NULL;
    if (!memory) return;
    const rounded all = {rows, (pair *)(void *)memory, (real *)(void *)(memory + values_bytes)};
    const int threads = T * N * K >= WORTH_THREADS ? be->n_threads : 1;
    const int64_t panels = (N + PANEL - 1) / PANEL;
    const int64_t blocks = icae_cpu_row_blocks(T, panels, threads);
    const int64_t block_rows =
        ((T + blocks - 1) / blocks + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < rows; t++)
            round_row(x + least(t, T - 1) * K, K, rows, t, all.values, all.sums);
        panel *p = (panel *)(void *)(scratch + (size_t)icae_cpu_thread() * stride);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < panels * blocks; task++) {
            int64_t row = task % blocks * block_rows, n = least(block_rows, T - row);
            if (n > 0) multiply_block(w, &all, row, n, task / blocks * PANEL, add, p, y);
        }
    }
    be->k.release(be, memory);
}

void LEVEL_NAME(icae_cpu_linear_int_)(icae_kernels *table) {
    table->linear_reading = linear_reading;
}

#else

void LEVEL_NAME(icae_cpu_linear_int_)(icae_kernels *table) {
    (void)table; /* linear serves */
}

#endif
