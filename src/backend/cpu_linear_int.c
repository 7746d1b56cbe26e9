/* SPDX-License-Identifier: MIT */
/*
 * linear_few and linear_reading for quantised weights, in integers: which function makes a product of how
 * many rows, and that of more than three. Compiled once per level, of which avx512vnni has VPDPWSSD (AVX512-VNNI),
 * and for AVX2's vectors with it.
 *
 *     y[t, n] (+)= x^[t,:] . w[n,:]       x^ = x with 16 bits for each value (cpu_int.h)
 *
 * Rows of x stand side by side in the lanes of a vector, so no sum is ever taken across lanes. Rows of w are
 * unpacked PANEL at a time into scratch, once for all rows of x; from there a two of w is spread over the lanes,
 * VPMADDWD multiplies it with a two of every row, and an addition follows. A tile's integer sums
 * stay in registers and go into float ones after every piece.
 *
 *     lanes   twos [vectors][pieces][TWOS][VL], scales and sums [vectors][pieces][VL]
 *     panel   twos [pairs][columns][4][2][4]: as read_pair leaves them; factors [pieces][columns][2]: scale, offset
 *
 * A sum depends on nothing but its row of x and its row of w; threads share panels and blocks of rows,
 * never a sum.
 */
#include <assert.h>

#include "backend/cpu_int.h"
#include "backend/cpu_tile.h" /* transpose_8x8 */

#if HAS_FLOAT_SIMD

/* Columns of a panel, and the tile: BROAD vectors of rows with BROAD_COLUMNS sums each, or one with all of a
 * panel's: 12 sums in AVX2's 16 registers, 24 in AVX-512's 32. */
enum { COLUMNS = 12, BROAD = 2, BROAD_COLUMNS = VECTOR_BYTES == 64 ? COLUMNS : COLUMNS / 2 };
/* Most rows whose sums cpu_few_int.c takes across lanes. */
enum { FEW_ROWS = 3 };
/* Rows that AVX2's vectors hold: AVX-512's would be half empty. */
enum { NARROW_ROWS = 8 };
/* More rows than these keep a thread long enough at one panel. */
enum { MANY_ROWS = 64 };
/* Pieces of eight rows that a thread rounds at a time: two parts of eight rows of 576 values. */
enum { ROUNDED = 9 };
/* Multiply-adds below which a team of threads costs more than it gives. */
static const int64_t WORTH_THREADS = 50000;

/* x in 16 bits */
typedef struct lanes {
    int64_t pieces;
    int32_t *twos;
    real *scales, *sums;
} lanes;

/* COLUMNS rows of w, for all of their pieces */
typedef struct panel {
    int32_t *twos;
    real *factors;
    scales *row;                /* of the row that is unpacked */
    const unsigned char *ahead; /* what is unpacked next, as it lies in memory */
    size_t ahead_bytes;         /* of it for each piece */
} panel;

#if VECTOR_BYTES == 64
typedef __m512i ints;
#define splat_two          _mm512_set1_epi32
#define zero_ints          _mm512_setzero_si512
#define load_twos          _mm512_load_si512
#define to_reals           (vec) _mm512_cvtepi32_ps
#define fused_sum(a, b, c) (vec) _mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c))
#if defined __AVX512VNNI__
#define add_two_wide(sum, a, b) _mm512_dpwssd_epi32(sum, a, b)
#else
#define add_two_wide(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
#endif
#else
typedef __m256i ints;
#define splat_two          _mm256_set1_epi32
#define zero_ints          _mm256_setzero_si256
#define load_twos(from)    _mm256_load_si256((const __m256i *)(const void *)(from))
#define to_reals           (vec) _mm256_cvtepi32_ps
#define fused_sum(a, b, c) (vec) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c))
#define add_two_wide       add_two
#endif

ALWAYS_INLINE bool is_known(icae_dtype dtype) {
    return has_headers(dtype) || has_stretches(dtype);
}

/* ---- unpacking ---- */

/* Scale and offset of a row's pieces, to every COLUMNS-th place of `to` */
ALWAYS_INLINE void unpack_factors(icae_dtype dtype, const unsigned char *row, int64_t pieces,
                                  scales *s, real (*to)[2]) {
    if (has_headers(dtype)) {
        for (int64_t i = 0; i < pieces; i++, to += COLUMNS) {
            int32_t header;
            memcpy(&header, row + (size_t)i * bytes_of_32(dtype), sizeof header);
            __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(header));
            if (dtype == ICAE_DTYPE_Q4_1) {
                _mm_storel_pi((__m64 *)(void *)to, both);
            } else {
                const real d = _mm_cvtss_f32(both);
                (*to)[0] = d;
                (*to)[1] = dtype == ICAE_DTYPE_Q4_0 ? -8 * d : 0;
            }
        }
        return;
    }
    for (int64_t start = 0; start < pieces; start += PIECES) {
        const int64_t n = least(PIECES, pieces - start);
        widen_scales(dtype, row + (size_t)start / 8 * bytes_of_eight(dtype), n, 0, s);
        for (int64_t i = 0; i < n; i++, to += COLUMNS) {
            (*to)[0] = s->scale[0][i];
            (*to)[1] = s->offset[0][i];
        }
    }
}

/* Rows first .. first + n - 1 of w, n <= COLUMNS; whatever was there stays in columns that w lacks. */
ALWAYS_INLINE void unpack_panel(icae_dtype dtype, const icae_matrix *w, int64_t first,
                                int64_t n, panel *p) {
    const int64_t pieces = w->cols / WIDE;
    const unsigned char *row = (const unsigned char *)w->data + (size_t)first * w->row_bytes;
    for (int64_t c = 0; c < n; c++, row += w->row_bytes) {
        unpack_factors(dtype, row, pieces, p->row, (real(*)[2])p->factors + c);
        int32_t *to = p->twos + c * 2 * TWOS;
        for (int64_t i = 0; i < pieces; i += 2, to += COLUMNS * 2 * TWOS) {
            __m256i q[4];
            read_pair(dtype, row, i / 2, i + 1 == pieces, q);
            UNROLL
            for (int j = 0; j < 4; j++)
                _mm256_store_si256((__m256i *)(void *)(to + 8 * j), q[j]);
        }
    }
}

typedef void unpacker(const icae_matrix *w, int64_t first, int64_t n, panel *p);

/* One function for each type, so that the type is a constant inside the loops. */
#define UNPACK(name, values, bytes, safetensors, ggml)                                         \
    static void unpack_##name(const icae_matrix *w, int64_t first, int64_t n, panel *p) {      \
        if (is_known(ICAE_DTYPE_##name)) unpack_panel(ICAE_DTYPE_##name, w, first, n, p);      \
    }
ICAE_DTYPE_LIST(UNPACK)
#undef UNPACK
static unpacker *const unpackers[] = {
#define UNPACKER(name, values, bytes, safetensors, ggml) unpack_##name,
    ICAE_DTYPE_LIST(UNPACKER)
#undef UNPACKER
};

/* Pieces first .. end - 1 of rows t .. t + 7 of x; zeros for those that x lacks. */
static void round_eight(const real *x, int64_t T, int64_t K, int64_t t, int64_t first,
                        int64_t end, const lanes *to) {
    int32_t twos[8][TWOS] __attribute__((aligned(32))) = {{0}};
    for (int64_t i = first; i < end; i++) {
        const int64_t at = (t / VL * to->pieces + i) * VL + t % VL;
        for (int r = 0; r < 8; r++) {
            to->scales[at + r] = to->sums[at + r] = 0;
            if (t + r >= T) continue;
            __m256i two[2];
            to->sums[at + r] =
                round_piece(x + (t + r) * K + i * WIDE, two, &to->scales[at + r]);
            _mm256_store_si256((__m256i *)(void *)twos[r], two[0]);
            _mm256_store_si256((__m256i *)(void *)(twos[r] + 8), two[1]);
        }
        int32_t *out = to->twos + (t / VL * to->pieces + i) * VL * TWOS + t % VL;
        UNROLL
        for (int j = 0; j < TWOS; j += 8)
            transpose_8x8((const float *)(const void *)(twos[0] + j), TWOS,
                          (float *)(void *)(out + j * VL), VL);
    }
}

/* ---- the product ---- */

/*
 * `vectors` vectors of rows from row t on times `columns` columns of the panel from `first` on: out [columns]
 * [vectors VL]. With has_halves (Q6_K) a piece's factors are of its first 16 values and of its second.
 */
ALWAYS_INLINE void tile_of(const bool has_halves, const int vectors, const int columns,
                           const lanes *x, int64_t t, const panel *p, int first, real *out) {
    const int halves = has_halves ? 2 : 1, steps = TWOS / halves;
    const int64_t pieces = x->pieces, vector = t / VL * pieces * VL;
    real both[2][COLUMNS * BROAD * VL] __attribute__((aligned(64))) = {{0}};
    const int32_t *at = x->twos + vector * TWOS;
    for (int64_t i = 0; i < pieces; i++) {
        const int32_t *w = p->twos + (i / 2 * COLUMNS + first) * 2 * TWOS + i % 2 * 4;
        const real *e = x->scales + vector + i * VL, *x_sum = x->sums + vector + i * VL;
        const real *factors = p->factors + (i * COLUMNS + first) * 2;
        real *sums = both[i % 2];
        /* With few rows unpacking is a fifth of the work, too little for memory's share of it. */
        if (vectors == 1)
            for (size_t b = 0; b < p->ahead_bytes; b += LINE_BYTES)
                __builtin_prefetch(p->ahead + (size_t)i * p->ahead_bytes + b);
        for (int half = 0; half < halves; half++, w += TWOS) {
            ints whole[COLUMNS][BROAD];
            UNROLL
            for (int c = 0; c < columns; c++) {
                UNROLL
                for (int v = 0; v < vectors; v++)
                    whole[c][v] = zero_ints();
            }
            UNROLL
            for (int k = 0; k < steps; k++, at += VL) {
                ints twos[BROAD];
                UNROLL
                for (int v = 0; v < vectors; v++)
                    twos[v] = load_twos(at + v * pieces * VL * TWOS);
                UNROLL
                for (int c = 0; c < columns; c++) {
                    const ints two = splat_two(w[c * 2 * TWOS + k / 4 * 8 + k % 4]);
                    UNROLL
                    for (int v = 0; v < vectors; v++) {
                        whole[c][v] = add_two_wide(whole[c][v], two, twos[v]);
                        /* Otherwise GCC does all multiplications of a step first and runs out of
                         * registers. */
                        __asm__("" : "+v"(whole[c][v]));
                    }
                }
            }
            UNROLL
            for (int c = 0; c < columns; c++) {
                UNROLL
                for (int v = 0; v < vectors; v++) {
                    const vec scale = splat(factors[2 * c + half]) * load(e + v * pieces * VL);
                    real *to = sums + (c * vectors + v) * VL;
                    vec sum = fused_sum(to_reals(whole[c][v]), scale, load(to));
                    if (!has_halves)
                        sum = fused_sum(splat(factors[2 * c + 1]),
                                        load(x_sum + v * pieces * VL), sum);
                    store(to, sum);
                }
            }
        }
    }
    UNROLL
    for (int i = 0; i < columns * vectors * VL; i += VL)
        store(out + i, load(both[0] + i) + load(both[1] + i));
}

/* The same for any number of rows up to BROAD VL and all of a panel's columns: y [rows][n_columns], N wide */
ALWAYS_INLINE void lane_rows(const bool has_halves, const int vectors, const lanes *x,
                             int64_t t, int64_t rows, const panel *p, int64_t n_columns,
                             bool add, int64_t N, real *y) {
    const int columns = vectors == 1 ? COLUMNS : BROAD_COLUMNS;
    real out[COLUMNS * BROAD * VL] __attribute__((aligned(64)));
    UNROLL
    for (int first = 0; first < COLUMNS; first += columns) {
        if (first >= n_columns) break;
        tile_of(has_halves, vectors, columns, x, t, p, first, out);
        for (int64_t r = 0; r < rows; r++) {
            real *to = y + r * N + first;
            for (int64_t c = 0; c < least(columns, n_columns - first); c++) {
                real sum = out[c * vectors * VL + r];
                to[c] = add ? to[c] + sum : sum;
            }
        }
    }
}

/* Rows t .. t + n - 1 of x with columns first .. first + n_columns - 1 of y */
static void multiply_block(const icae_matrix *w, const lanes *x, int64_t t, int64_t n,
                           int64_t first, bool add, panel *p, real *y) {
    const int64_t N = w->rows, n_columns = least(COLUMNS, N - first);
    const bool has_halves = w->dtype == ICAE_DTYPE_Q6_K;
    unpackers[w->dtype](w, first, n_columns, p);
    p->ahead_bytes = (size_t)COLUMNS * bytes_of_eight(w->dtype) / 8;
    p->ahead = (const unsigned char *)w->data + (size_t)(first + COLUMNS) * w->row_bytes;
    for (int64_t end = t + n; t < end; t += BROAD * VL) {
        const int64_t rows = least(BROAD * VL, end - t);
        real *to = y + t * N + first;
        if (rows <= VL && has_halves)
            lane_rows(true, 1, x, t, rows, p, n_columns, add, N, to);
        else if (rows <= VL)
            lane_rows(false, 1, x, t, rows, p, n_columns, add, N, to);
        else if (has_halves)
            lane_rows(true, BROAD, x, t, rows, p, n_columns, add, N, to);
        else
            lane_rows(false, BROAD, x, t, rows, p, n_columns, add, N, to);
    }
}

static void multiply_many(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                          const icae_matrix *w, bool add, real *y) {
    const int64_t pieces = K / WIDE, pairs = (pieces + 1) / 2;
    const int64_t rows = (T + VL - 1) / VL * VL;
    const size_t twos_bytes = (size_t)(pieces * TWOS * rows) * sizeof(int32_t);
    const size_t lane_bytes = (size_t)(pieces * rows) * sizeof(real);
    const size_t panel_bytes = (size_t)(pairs * COLUMNS * 2 * TWOS) * sizeof(int32_t);
    const size_t factor_bytes = (size_t)(pieces * COLUMNS * 2) * sizeof(real);
    size_t stride;
    char *scratch =
        icae_backend_scratch(be, sizeof(scales) + panel_bytes + factor_bytes, &stride);
    char *memory = scratch ? icae_backend_work_space(be, twos_bytes + 2 * lane_bytes) : NULL;
    if (!memory) return;
    const lanes all = {pieces, (int32_t *)(void *)memory, (real *)(void *)(memory + twos_bytes),
                       (real *)(void *)(memory + twos_bytes + lane_bytes)};
    const int threads = T * N * K >= WORTH_THREADS ? be->n_threads : 1;
    /* Few rows make short work of a panel: the neighbours that share its lines of y go to the same thread. */
    const int64_t together =
        T > MANY_ROWS ? COLUMNS : part_rows(w, threads) / COLUMNS * COLUMNS;
    const int64_t columns = together ? together : COLUMNS, parts = (N + columns - 1) / columns;
    const int64_t blocks = icae_cpu_row_blocks(T, parts, threads);
    const int64_t block_rows =
        ((T + blocks - 1) / blocks + BROAD * VL - 1) / (BROAD * VL) * (BROAD * VL);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static) collapse(2)
        for (int64_t t = 0; t < rows; t += 8)
            for (int64_t i = 0; i < pieces; i += ROUNDED)
                round_eight(x, T, K, t, i, least(pieces, i + ROUNDED), &all);
        char *own = scratch + (size_t)icae_cpu_thread() * stride;
        panel p = {.row = (scales *)(void *)own,
                   .twos = (int32_t *)(void *)(own + sizeof(scales)),
                   .factors = (real *)(void *)(own + sizeof(scales) + panel_bytes)};
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < parts * blocks; task++) {
            int64_t t = task % blocks * block_rows, n = least(block_rows, T - t);
            int64_t first = task / blocks * columns, end = least(N, first + columns);
            for (; n > 0 && first < end; first += COLUMNS)
                multiply_block(w, &all, t, n, first, add, &p, y);
        }
    }
    be->k.release(be, memory);
}

#if VECTOR_BYTES == 32
void LEVEL_NAME(icae_cpu_linear_int_)(icae_backend *be, int64_t T, int64_t N, int64_t K,
                                      const real *x, const icae_matrix *w, bool add, real *y) {
    multiply_many(be, T, N, K, x, w, add, y);
}
#endif

/* ---- which function for how many rows ---- */

#if defined __AVX512VNNI__
#define FEW    icae_cpu_few_int_avx2vnni
#define NARROW icae_cpu_linear_int_avx2vnni
#else
#define FEW    icae_cpu_few_int_avx2
#define NARROW icae_cpu_linear_int_avx2
#endif
#if VECTOR_BYTES == 64
#define FLOATS icae_cpu_linear_few_avx512
#else
#define FLOATS icae_cpu_linear_few_avx2
#endif

static void multiply_integers(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                              const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    if (K == 0 && !add) memset(y, 0, (size_t)(T * N) * sizeof *y);
    if (T == 0 || N == 0 || K == 0) return;
    if (T <= FEW_ROWS)
        FEW(be, T, N, K, x, w, add, y);
    else if (T <= NARROW_ROWS)
        NARROW(be, T, N, K, x, w, add, y);
    else
        multiply_many(be, T, N, K, x, w, add, y);
}

static void linear_few(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                       const icae_matrix *w, bool add, real *y) {
    icae_cpu_product *product = is_known(w->dtype) ? multiply_integers : FLOATS;
    product(be, T, N, K, x, w, add, y);
}

static void linear_reading(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                           const icae_matrix *w, bool add, real *y) {
    icae_cpu_product *product = is_known(w->dtype) ? multiply_integers : be->k.linear;
    product(be, T, N, K, x, w, add, y);
}

void LEVEL_NAME(icae_cpu_integers_)(icae_kernels *table) {
    table->linear_few = linear_few;
    table->linear_reading = linear_reading;
}

#else

void LEVEL_NAME(icae_cpu_integers_)(icae_kernels *table) {
    (void)table; /* floats serve */
}

#endif
