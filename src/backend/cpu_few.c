/* SPDX-License-Identifier: MIT */
/*
 * Products of few rows with stored weights (linear_few): token by token, memory sets the pace, so the
 * weights are read once, as they are stored, and widened in registers. Compiled once per level.
 *
 *     y[t, n] (+)= x[t,:] . w[n,:]        one vector of sums for every t and n, lanes added at the end
 *
 * GROUP rows of w go side by side, so that x is loaded once for all of them, and up to MANY rows of x, so
 * that a weight is widened once for all of them. The scales of a stretch of columns are widened
 * before its values: as f16 among the values they cost more than the values themselves.
 *
 *     scale, offset   two floats for 32 values, whatever the type calls them
 *     value           scale * q + offset, or scale * (q - 8) and the like
 *
 * With 16 floats to a vector a nibble needs no conversion: all 16 values that a block can hold are made
 * by one multiply-add, and the nibbles pick among them. What comes out equals icae_dtype_widen's bits in
 * every type; sums stay in single precision, and no input is rounded.
 *
 * On processors that multiply bfloat16 a second copy of this file makes linear_few_bf16: rows of x are rounded
 * once, weights after widening, and VDPBF16PS takes two products to each of 16 float sums. One sequence alone
 * gains nothing by it, memory and widening set the pace; eight side by side do.
 *
 * The sums of a row of x are the same chain of multiply-adds wherever it stands. Threads share the rows
 * of w, in parts that stay in the second-level cache while all rows of x pass by.
 */
#include <assert.h>

#include "backend/cpu_internal.h"
#include "backend/cpu_widen.h"
#include "icae/half.h"

#if defined __AVX512BF16__
#define IS_BF16 1
typedef uint16_t input; /* bfloat16 */
#else
#define IS_BF16 0
typedef real input;
#endif

/* Rows of w, and rows of x with them: a vector of sums for each pair. With more rows of x than FEW_AT_ONCE
 * registers suffice for PAIR rows of w only. (Eight at once do not pay in float: multiply-adds take longer
 * than widening twice.) */
enum { GROUP = 4, FEW_AT_ONCE = VECTOR_BYTES == 64 ? 4 : 2, PAIR = 2, MANY = IS_BF16 ? 8 : 4 };
/* Columns whose scales are widened together, and the pieces of 32 values among them. */
enum { STRETCH = 2048, PIECES = STRETCH / WIDE };
/* The rows of w that threads take at a time: half of a second-level cache at most. */
enum { PART_BYTES = 128 << 10 };
/* How far ahead of the sums lines are called for: some hundred nanoseconds of memory's pace. The
 * processor's own prefetching loses its way between four rows at once (2.1 times slower). */
enum { AHEAD_BYTES = 8 << 10, LINE_BYTES = 64 };
/* Multiply-adds below which a team of threads costs more than it gives. */
static const int64_t WORTH_THREADS = 50000;

typedef struct few {
    int64_t T, N, K;
    const input *x; /* [T][x_row] */
    int64_t x_row;
    const icae_matrix *w;
    bool add;
    real *y;
} few;

/* Scale and offset of every 32 values of a stretch, for GROUP rows side by side. */
typedef struct scales {
    int32_t headers[PIECES][GROUP]
        __attribute__((aligned(64))); /* as stored: what comes next */
    real pairs[PIECES][GROUP][2] __attribute__((aligned(64)));
} scales;

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

#if HAS_FLOAT_SIMD

/* Types of large blocks, whose scales are widened for a stretch. */
ALWAYS_INLINE bool has_stretches(icae_dtype dtype) {
    return dtype == ICAE_DTYPE_Q4_K || dtype == ICAE_DTYPE_Q5_K || dtype == ICAE_DTYPE_Q6_K;
}

/* Types with one or two f16 in front of every block. */
ALWAYS_INLINE bool has_headers(icae_dtype dtype) {
    return dtype == ICAE_DTYPE_Q8_0 || dtype == ICAE_DTYPE_Q4_0 || dtype == ICAE_DTYPE_Q4_1;
}

/* The four bytes in front of the block at `from` in each row. (Where a type has one f16, the other half
 * is noise that nobody looks at.) */
ALWAYS_INLINE void copy_header(const int columns, const unsigned char *from, size_t row_bytes,
                               int32_t headers[GROUP]) {
    UNROLL
    for (int g = 0; g < columns; g++)
        memcpy(&headers[g], from + (size_t)g * row_bytes, sizeof headers[g]);
}

ALWAYS_INLINE void widen_headers(int64_t n, scales *s) {
    for (int64_t i = 0; i < n; i++) {
        __m128i halves = _mm_load_si128((const __m128i *)(const void *)s->headers[i]);
        _mm256_store_ps(s->pairs[i][0], _mm256_cvtph_ps(halves));
    }
}

/* The 6-bit scales and mins of Q4_K and Q5_K (formats/dtype_k.c tells how they lie), all at once:
 * 8 bytes of scales, 8 of mins. */
ALWAYS_INLINE __m128i unpack_six_bits(const unsigned char *from) {
    uint32_t low, high, both;
    memcpy(&low, from, 4);
    memcpy(&high, from + 4, 4);
    memcpy(&both, from + 8, 4);
    const uint32_t six = 0x3F3F3F3F, four = 0x0F0F0F0F, two = 0x30303030;
    return _mm_setr_epi32((int)(low & six), (int)((both & four) | (low >> 2 & two)),
                          (int)(high & six), (int)((both >> 4 & four) | (high >> 2 & two)));
}

/* Eight pieces' scales and offsets, [left, right] for each. */
ALWAYS_INLINE void store_pairs(__m256 left, __m256 right, int g, real (*pairs)[GROUP][2]) {
    real both[2][8];
    _mm256_storeu_ps(both[0], left);
    _mm256_storeu_ps(both[1], right);
    UNROLL
    for (int i = 0; i < 8; i++) {
        pairs[i][g][0] = both[0][i];
        pairs[i][g][1] = both[1][i];
    }
}

ALWAYS_INLINE __m256 splat_half(const unsigned char *from) {
    int16_t h;
    memcpy(&h, from, sizeof h);
    return _mm256_cvtph_ps(_mm_set1_epi16(h));
}

/* Q4_K, Q5_K: d s and -dmin m */
ALWAYS_INLINE void read_min_scales(size_t block_bytes, const unsigned char *from, int64_t n,
                                   int g, scales *out) {
    const __m256 minus = _mm256_set1_ps(-0.0f);
    for (int64_t i = 0; i < n; i += 8, from += block_bytes) {
        __m128i small = unpack_six_bits(from + 4);
        __m256 s = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(small));
        __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(small, small)));
        s = _mm256_mul_ps(splat_half(from), s);
        m = _mm256_mul_ps(_mm256_xor_ps(splat_half(from + 2), minus), m);
        store_pairs(s, m, g, out->pairs + i);
    }
}

/* Q6_K: d s for each half of a piece */
ALWAYS_INLINE void read_half_scales(const unsigned char *from, int64_t n, int g, scales *out) {
    const __m256i even = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    for (int64_t i = 0; i < n; i += 8, from += 210) {
        __m128i s = load_16_bytes(from + 192);
        __m256 d = splat_half(from + 208);
        __m256 first = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(s)));
        s = _mm_unpackhi_epi64(s, s);
        __m256 second = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(s)));
        first = _mm256_permutevar8x32_ps(first, even);
        second = _mm256_permutevar8x32_ps(second, even);
        store_pairs(_mm256_permute2f128_ps(first, second, 0x20),
                    _mm256_permute2f128_ps(first, second, 0x31), g, out->pairs + i);
    }
}

/* The scales of columns start .. start + 32 n - 1 of row g at `row`; start is a multiple of 256. */
ALWAYS_INLINE void read_scales(icae_dtype dtype, const unsigned char *row, int64_t start,
                               int64_t n, int g, scales *out) {
    const size_t block = (size_t)start / 256;
    switch (dtype) {
    case ICAE_DTYPE_Q4_K:
        read_min_scales(144, row + block * 144, n, g, out);
        break;
    case ICAE_DTYPE_Q5_K:
        read_min_scales(176, row + block * 176, n, g, out);
        break;
    case ICAE_DTYPE_Q6_K:
        read_half_scales(row + block * 210, n, g, out);
        break;
    default:
        break;
    }
}

/* scale q + offset of 32 integers of four bits: bits `shift` .. shift + 3 of 16 bytes at `first`, then of
 * 16 at `second` with its own shift */
ALWAYS_INLINE void pick_nibbles(const unsigned char *first, int first_shift,
                                const unsigned char *second, int second_shift,
                                const real pair[2], vec out[WIDE_VECS]) {
#if VECTOR_BYTES == 64
    const __m512 count = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 values = _mm512_fmadd_ps(count, _mm512_set1_ps(pair[0]), _mm512_set1_ps(pair[1]));
    __m512i left = _mm512_cvtepu8_epi32(load_16_bytes(first));
    __m512i right = first == second ? left : _mm512_cvtepu8_epi32(load_16_bytes(second));
    if (first_shift) left = _mm512_srli_epi32(left, 4);
    if (second_shift) right = _mm512_srli_epi32(right, 4);
    out[0] = (vec)_mm512_permutexvar_ps(left, values);
    out[1] = (vec)_mm512_permutexvar_ps(right, values);
#else
    const __m128i mask = _mm_set1_epi8(15);
    __m128i left = load_16_bytes(first), right = load_16_bytes(second);
    if (first_shift) left = _mm_srli_epi16(left, 4);
    if (second_shift) right = _mm_srli_epi16(right, 4);
    floats_of_u8(_mm_and_si128(left, mask), out);
    floats_of_u8(_mm_and_si128(right, mask), out + WIDE_VECS / 2);
    vec scale = splat(pair[0]), offset = splat(pair[1]);
    UNROLL
    for (int i = 0; i < WIDE_VECS; i++)
        out[i] = scale * out[i] + offset;
#endif
}

/* One piece of Q5_K: nibbles and, in bit `part` of 32 bytes, the fifth bits. */
ALWAYS_INLINE void pick_fives(const unsigned char *block, int part, const real pair[2],
                              vec out[WIDE_VECS]) {
    const unsigned char *nibbles = block + 48 + 32 * (part / 2);
    const __m128i mask = _mm_set1_epi8(15), sixteen = _mm_set1_epi8(16);
    vec scale = splat(pair[0]), offset = splat(pair[1]);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m128i low = load_16_bytes(nibbles + 16 * h),
                fifth = load_16_bytes(block + 16 + 16 * h);
        low = _mm_and_si128(_mm_srl_epi16(low, _mm_cvtsi32_si128(4 * (part % 2))), mask);
        fifth = _mm_srl_epi16(fifth, _mm_cvtsi32_si128(part));
        fifth = _mm_and_si128(_mm_slli_epi16(fifth, 4), sixteen);
        floats_of_u8(_mm_or_si128(low, fifth), out + h * WIDE_VECS / 2);
    }
    UNROLL
    for (int i = 0; i < WIDE_VECS; i++)
        out[i] = scale * out[i] + offset;
}

/* One piece of Q6_K: nibbles, two more bits, 32 taken off, a scale for each half. */
ALWAYS_INLINE void pick_sixes(const unsigned char *block, int part, const real pair[2],
                              vec out[WIDE_VECS]) {
    const unsigned char *low = block + 64 * (part / 4) + 32 * (part % 2);
    const unsigned char *high = block + 128 + 32 * (part / 4);
    const __m128i mask = _mm_set1_epi8(15), upper = _mm_set1_epi8(48);
    const __m128i low_shift = _mm_cvtsi32_si128(part % 4 / 2 * 4);
    const __m128i high_shift = _mm_cvtsi32_si128(part % 4 * 2);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m128i q = _mm_and_si128(_mm_srl_epi16(load_16_bytes(low + 16 * h), low_shift), mask);
        __m128i pairs = _mm_srl_epi16(load_16_bytes(high + 16 * h), high_shift);
        q = _mm_or_si128(q, _mm_and_si128(_mm_slli_epi16(pairs, 4), upper));
        q = _mm_sub_epi8(q, _mm_set1_epi8(32));
        floats_of_s8(q, out + h * WIDE_VECS / 2);
        UNROLL
        for (int i = 0; i < WIDE_VECS / 2; i++)
            out[h * WIDE_VECS / 2 + i] *= pair[h];
    }
}

/* The 32 values from column k on of a row, whose scale and offset are known. */
ALWAYS_INLINE void read_32(icae_dtype dtype, const unsigned char *row, int64_t k,
                           const real pair[2], vec out[WIDE_VECS]) {
    const unsigned char *block = row + (size_t)k / WIDE * bytes_of_32(dtype);
    const size_t large = (size_t)k / 256;
    const int part = (int)(k / WIDE % 8);
    switch (dtype) {
    case ICAE_DTYPE_Q4_1:
        pick_nibbles(block + 4, 0, block + 4, 4, pair, out);
        break;
    case ICAE_DTYPE_Q4_0: { /* d (q - 8) = d q - 8 d, exact either way */
        const real around[2] = {pair[0], -8 * pair[0]};
        pick_nibbles(block + 2, 0, block + 2, 4, around, out);
        break;
    }
    case ICAE_DTYPE_Q8_0: {
        vec scale = splat(pair[0]);
        floats_of_s8(load_16_bytes(block + 2), out);
        floats_of_s8(load_16_bytes(block + 18), out + WIDE_VECS / 2);
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            out[i] *= scale;
        break;
    }
    case ICAE_DTYPE_Q4_K: {
        const unsigned char *from = row + large * 144 + 16 + 32 * (part / 2);
        pick_nibbles(from, 4 * (part % 2), from + 16, 4 * (part % 2), pair, out);
        break;
    }
    case ICAE_DTYPE_Q5_K:
        pick_fives(row + large * 176, part, pair, out);
        break;
    case ICAE_DTYPE_Q6_K:
        pick_sixes(row + large * 210, part, pair, out);
        break;
    default:
        widen_at(dtype, row, k, out);
        break;
    }
}

#else

/* Without vectors of the processor's own, the one way to widen is as good as any. */
ALWAYS_INLINE bool has_stretches(icae_dtype dtype) {
    (void)dtype;
    return false;
}

ALWAYS_INLINE bool has_headers(icae_dtype dtype) {
    (void)dtype;
    return false;
}

ALWAYS_INLINE void copy_header(const int columns, const unsigned char *from, size_t row_bytes,
                               int32_t headers[GROUP]) {
    (void)columns, (void)from, (void)row_bytes, (void)headers;
}

ALWAYS_INLINE void widen_headers(int64_t n, scales *s) {
    (void)n, (void)s;
}

ALWAYS_INLINE void read_scales(icae_dtype dtype, const unsigned char *row, int64_t start,
                               int64_t n, int g, scales *out) {
    (void)dtype, (void)row, (void)start, (void)n, (void)g, (void)out;
}

ALWAYS_INLINE void read_32(icae_dtype dtype, const unsigned char *row, int64_t k,
                           const real pair[2], vec out[WIDE_VECS]) {
    (void)pair;
    widen_at(dtype, row, k, out);
}

#endif

/* Four vectors' sums of lanes, in one fixed order for each level. */
ALWAYS_INLINE void four_lane_sums(const vec v[GROUP], real out[GROUP]) {
#if HAS_FLOAT_SIMD
    __m256 half[GROUP];
    UNROLL
    for (int g = 0; g < GROUP; g++) {
#if VECTOR_BYTES == 64
        half[g] = _mm256_add_ps(_mm512_castps512_ps256((__m512)v[g]),
                                _mm512_extractf32x8_ps((__m512)v[g], 1));
#else
        half[g] = (__m256)v[g];
#endif
    }
    __m256 pairs =
        _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    _mm_storeu_ps(out,
                  _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
    UNROLL
    for (int g = 0; g < GROUP; g++)
        out[g] = lane_sum(v[g]);
#endif
}

/* A vector of sums, and what 32 weights times 32 values of x add to it. */
ALWAYS_INLINE vec add_products(vec sum, const vec wide[WIDE_VECS], const input *x) {
#if IS_BF16
    __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)wide[1], (__m512)wide[0]);
    return (vec)_mm512_dpbf16_ps((__m512)sum, rounded, (__m512bh)_mm512_loadu_si512(x));
#else
    UNROLL
    for (int j = 0; j < WIDE_VECS; j++)
        sum += wide[j] * load(x + j * VL);
    return sum;
#endif
}

/* Columns k .. K-1, fewer than 32, which only plain types have. */
ALWAYS_INLINE void add_rest(icae_dtype dtype, const int columns, const int rows, int64_t k,
                            const few *f, const input *x, const unsigned char *w,
                            vec sums[MANY][GROUP]) {
    const int64_t n = f->K - k;
    UNROLL
    for (int g = 0; g < columns; g++) {
        real values[WIDE] = {0};
        input rest[WIDE] = {0};
        vec wide[WIDE_VECS];
        const unsigned char *from = w + (size_t)g * f->w->row_bytes;
        icae_dtype_widen(dtype, from + (size_t)(k / WIDE) * bytes_of_32(dtype), n, values);
        UNROLL
        for (int i = 0; i < WIDE_VECS; i++)
            wide[i] = load(values + i * VL);
        UNROLL
        for (int r = 0; r < rows; r++) {
            memcpy(rest, x + r * f->x_row + k, (size_t)n * sizeof *rest);
            sums[r][g] = add_products(sums[r][g], wide, rest);
        }
    }
}

/* Bytes that 32 values take, in types of large blocks too. */
ALWAYS_INLINE size_t bytes_of_piece(icae_dtype dtype) {
    switch (dtype) {
#define PIECE_BYTES(name, values, bytes, safetensors, ggml)                                    \
    case ICAE_DTYPE_##name:                                                                    \
        return (size_t)WIDE * bytes / values;
        ICAE_DTYPE_LIST(PIECE_BYTES)
#undef PIECE_BYTES
    default:
        return 0;
    }
}

/* Calls for what lies AHEAD_BYTES behind piece i of a group that begins at w: in the order in which it
 * lies there, not in the order in which it will be used. */
ALWAYS_INLINE void call_ahead(icae_dtype dtype, const int columns, const unsigned char *w,
                              int64_t i) {
    const size_t bytes = (size_t)columns * bytes_of_piece(dtype);
    const unsigned char *from = w + AHEAD_BYTES + (size_t)i * bytes;
    UNROLL
    for (size_t b = 0; b < bytes; b += LINE_BYTES)
        __builtin_prefetch(from + b);
}

/* The headers of a stretch, all at once: for the first group of a part. */
ALWAYS_INLINE void copy_headers(icae_dtype dtype, const int columns, const unsigned char *from,
                                size_t row_bytes, int64_t first, int64_t n, scales *s) {
    if (!has_headers(dtype)) return;
    for (int64_t i = first; i < n; i++)
        copy_header(columns, from + (size_t)i * bytes_of_32(dtype), row_bytes, s->headers[i]);
}

/*
 * y[r, c] (+)= x[r,:] . w[c,:] for r < rows, c < columns. `next`, rows of w like these, come after
 * them: their headers are collected on the way, which also brings their lines into the cache.
 */
ALWAYS_INLINE void few_tile(icae_dtype dtype, const int columns, const int rows, const few *f,
                            const input *x, const unsigned char *w, const unsigned char *next,
                            scales *s, real *y) {
    const size_t row_bytes = f->w->row_bytes, step = bytes_of_32(dtype);
    const int64_t whole = f->K / WIDE * WIDE;
    /* One pointer for three rows: with a pointer for each, the addresses spill. */
    const input *at[(MANY + 2) / 3];
    UNROLL
    for (int i = 0; i < (rows + 2) / 3; i++)
        at[i] = x + 3 * i * f->x_row;
    vec sums[MANY][GROUP] = {{{0}}};
    for (int64_t start = 0; start < whole; start += STRETCH) {
        const int64_t n = least(STRETCH, whole - start) / WIDE;
        const unsigned char *block = w + (size_t)start / WIDE * step;
        const bool is_last = start + STRETCH >= whole;
        const unsigned char *coming = is_last ? next : block + (size_t)n * step;
        /* A row's last stretch may be shorter than this one: beyond it nothing may be read. */
        const int64_t n_coming = is_last ? n : least(n, (whole - start) / WIDE - n);
        if (has_headers(dtype)) widen_headers(n, s);
        for (int g = 0; has_stretches(dtype) && g < columns; g++)
            read_scales(dtype, w + (size_t)g * row_bytes, start, n, g, s);
        for (int64_t i = 0; i < n; i++) {
            const int64_t k = start + i * WIDE;
            call_ahead(dtype, columns, w, k / WIDE);
            UNROLL
            for (int g = 0; g < columns; g++) {
                vec wide[WIDE_VECS];
                read_32(dtype, w + (size_t)g * row_bytes, k, s->pairs[i][g], wide);
                UNROLL
                for (int r = 0; r < rows; r++)
                    sums[r][g] = add_products(sums[r][g], wide, at[r / 3] + r % 3 * f->x_row);
            }
            UNROLL
            for (int j = 0; j < (rows + 2) / 3; j++)
                at[j] += WIDE;
            if (has_headers(dtype) && i < n_coming)
                copy_header(columns, coming + (size_t)i * step, row_bytes, s->headers[i]);
        }
        if (is_last && start > 0) /* the stretch to come, a row's first, may be longer */
            copy_headers(dtype, columns, next, row_bytes, n, PIECES, s);
    }
    if (whole < f->K) add_rest(dtype, columns, rows, whole, f, x, w, sums);
    UNROLL
    for (int r = 0; r < rows; r++) {
        real row[GROUP];
        four_lane_sums(sums[r], row);
        for (int g = 0; g < columns; g++) {
            real *to = y + r * f->N + g;
            *to = f->add ? *to + row[g] : row[g];
        }
    }
}

/* Columns from .. to-1 of y, in groups of `columns` as far as they go; returns where they end. */
ALWAYS_INLINE int64_t few_groups(icae_dtype dtype, const int columns, const int rows,
                                 const few *f, const input *x, int64_t from, int64_t to,
                                 real *y) {
    const int64_t pieces = least(STRETCH, f->K) / WIDE;
    const size_t group_bytes = (size_t)columns * f->w->row_bytes;
    const unsigned char *w = (const unsigned char *)f->w->data + (size_t)from * f->w->row_bytes;
    scales s;
    if (columns < GROUP) memset(s.headers, 0, sizeof s.headers);
    if (from + columns <= to) copy_headers(dtype, columns, w, f->w->row_bytes, 0, pieces, &s);
    int64_t n = from;
    for (; n + columns <= to; n += columns, w += group_bytes) {
        bool is_last = n + 2 * columns > to;
        few_tile(dtype, columns, rows, f, x, w, is_last ? w : w + group_bytes, &s, y + n);
    }
    return n;
}

ALWAYS_INLINE void few_rows(icae_dtype dtype, const int rows, const few *f, const input *x,
                            int64_t from, int64_t to, real *y) {
    from = few_groups(dtype, rows > FEW_AT_ONCE ? PAIR : GROUP, rows, f, x, from, to, y);
    few_groups(dtype, 1, rows, f, x, from, to, y);
}

ALWAYS_INLINE void few_part(icae_dtype dtype, const few *f, int64_t from, int64_t to) {
    int64_t rows;
    for (int64_t t = 0; t < f->T; t += rows) {
        const input *x = f->x + t * f->x_row;
        real *y = f->y + t * f->N;
        rows = f->T - t >= MANY ? MANY : least(FEW_AT_ONCE, f->T - t);
        switch (rows) {
        case MANY:
            few_rows(dtype, MANY, f, x, from, to, y);
            break;
#if IS_BF16
        case 4:
            few_rows(dtype, 4, f, x, from, to, y);
            break;
#endif
#if VECTOR_BYTES == 64
        case 3:
            few_rows(dtype, 3, f, x, from, to, y);
            break;
#endif
        case 2:
            few_rows(dtype, 2, f, x, from, to, y);
            break;
        default:
            few_rows(dtype, 1, f, x, from, to, y);
            break;
        }
    }
}

/* One function for each type, so that the type is a constant inside the loops. */
#define FEW(name, values, bytes, safetensors, ggml)                                            \
    static void few_##name(const few *f, int64_t from, int64_t to) {                           \
        few_part(ICAE_DTYPE_##name, f, from, to);                                              \
    }
ICAE_DTYPE_LIST(FEW)
#undef FEW
static void (*const few_functions[])(const few *, int64_t, int64_t) = {
#define FEW(name, values, bytes, safetensors, ggml) few_##name,
    ICAE_DTYPE_LIST(FEW)
#undef FEW
};

/* Rows of w in a part: whole groups, at most PART_BYTES, and several parts for each thread. */
static int64_t part_rows(const few *f, int threads) {
    int64_t most = (int64_t)(PART_BYTES / (f->w->row_bytes + 1));
    int64_t rows = least(most, f->N / (2 * threads));
    return rows < GROUP ? GROUP : rows / GROUP * GROUP;
}

static void multiply(icae_backend *be, const few *f) {
    const int threads = f->T * f->N * f->K >= WORTH_THREADS ? be->n_threads : 1;
    const int64_t rows = part_rows(f, threads), parts = (f->N + rows - 1) / rows;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t part = 0; part < parts; part++)
        few_functions[f->w->dtype](f, part * rows, least(f->N, (part + 1) * rows));
}

#if IS_BF16

static void linear_few_bf16(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                            const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    const int64_t x_row = (K + WIDE - 1) / WIDE * WIDE; /* whole cache lines */
    input *rounded = icae_backend_work_space(be, (size_t)(T * x_row) * sizeof *rounded);
    if (!rounded) return;
    for (int64_t t = 0; t < T; t++) {
        for (int64_t k = 0; k < K; k++)
            rounded[t * x_row + k] = icae_f32_to_bf16(x[t * K + k]);
    }
    multiply(be, &(few){T, N, K, rounded, x_row, w, add, y});
    be->k.release(be, rounded);
}

void LEVEL_NAME(icae_cpu_few_)(icae_kernels *table) {
    table->linear_few_bf16 = linear_few_bf16;
}

#else

static void linear_few(icae_backend *be, int64_t T, int64_t N, int64_t K, const real *x,
                       const icae_matrix *w, bool add, real *y) {
    assert(w->rows == N && w->cols == K);
    multiply(be, &(few){T, N, K, x, K, w, add, y});
}

void LEVEL_NAME(icae_cpu_few_)(icae_kernels *table) {
    table->linear_few = linear_few;
}

#endif
