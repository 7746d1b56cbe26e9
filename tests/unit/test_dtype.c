/* SPDX-License-Identifier: MIT */
/* Storage types: 16-bit conversions over all their values, blocks computed by hand, sizes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/dtype.h"
#include "icae/half.h"
#include "icae/json.h"
#include "icae/rng.h"
#include "suites.h"

/* What the formats' definitions say, in double, without bit tricks. */
static double value_of_bits(uint32_t bits, int exponent_bits, int mantissa_bits) {
    uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
    int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
    int bias = (1 << (exponent_bits - 1)) - 1;
    double sign = bits >> (exponent_bits + mantissa_bits) & 1 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1u << mantissa_bits), exponent - bias - mantissa_bits);
}

static void check_all_values(float (*to_f32)(uint16_t), uint16_t (*from_f32)(float),
                             int exponent_bits, int mantissa_bits) {
    for (uint32_t h = 0; h < 65536; h++) {
        double expected = value_of_bits(h, exponent_bits, mantissa_bits);
        float f = to_f32((uint16_t)h);
        uint16_t back = from_f32(f);
        if (isnan(expected)) {
            ck_assert_msg(isnan(f), "%04X", h);
            ck_assert_msg(isnan(to_f32(back)), "%04X", h);
        } else {
            ck_assert_msg((double)f == expected && !signbit(f) == !signbit(expected), "%04X",
                          h);
            ck_assert_msg(back == h, "%04X came back as %04X", h, back);
        }
    }
}

START_TEST(f16_to_float_and_back_over_all_values) {
    check_all_values(icae_f16_to_f32, icae_f32_to_f16, 5, 10);
}
END_TEST

START_TEST(bf16_to_float_and_back_over_all_values) {
    check_all_values(icae_bf16_to_f32, icae_f32_to_bf16, 8, 7);
}
END_TEST

/* Between two neighbours: below the middle down, above up, the middle to the even one. */
static void check_rounding(float (*to_f32)(uint16_t), uint16_t (*from_f32)(float),
                           uint32_t infinity) {
    for (uint32_t h = 0; h + 1 < infinity; h++) {
        float low = to_f32((uint16_t)h), high = to_f32((uint16_t)(h + 1));
        float middle = (float)(((double)low + (double)high) / 2);
        uint32_t even = h & 1 ? h + 1 : h;
        ck_assert_msg(from_f32(middle) == even, "%04X", h);
        ck_assert_msg(from_f32(-middle) == (even | 0x8000u), "%04X", h);
        ck_assert_msg(from_f32(nextafterf(middle, low)) == h, "%04X", h);
        ck_assert_msg(from_f32(nextafterf(middle, high)) == h + 1, "%04X", h);
    }
}

START_TEST(halves_round_to_nearest_even) {
    check_rounding(icae_f16_to_f32, icae_f32_to_f16, 0x7C00);
    check_rounding(icae_bf16_to_f32, icae_f32_to_bf16, 0x7F80);
    ck_assert_uint_eq(icae_f32_to_f16(65519.0f), 0x7BFF); /* the largest, 65504 */
    ck_assert_uint_eq(icae_f32_to_f16(65520.0f), 0x7C00);
    ck_assert_uint_eq(icae_f32_to_f16(-1e30f), 0xFC00);
    ck_assert_uint_eq(icae_f32_to_f16(0x1p-25f), 0); /* half of the smallest: to even */
    ck_assert_uint_eq(icae_f32_to_f16(-0x1.8p-25f), 0x8001);
    ck_assert_uint_eq(icae_f32_to_bf16(3.4028235e38f), 0x7F80);
    ck_assert(isnan(icae_bf16_to_f32(icae_f32_to_bf16(NAN))));
    ck_assert(isnan(icae_f16_to_f32(icae_f32_to_f16(-NAN))));
}
END_TEST

/* ---- widening ---- */

static void check_widened(icae_dtype dtype, const void *data, int64_t count,
                          const double *expected) {
    float as_float[128];
    icae_real as_real[128];
    ck_assert_int_le(count, 128);
    icae_dtype_widen_f32(dtype, data, count, as_float);
    icae_dtype_widen(dtype, data, count, as_real);
    for (int64_t i = 0; i < count; i++) {
        const char *name = icae_dtype_describe(dtype)->name;
        ck_assert_msg(as_float[i] == (float)expected[i], "%s value %d", name, (int)i);
        icae_real real = (icae_real)expected[i];
        ck_assert_msg(as_real[i] == real, "%s value %d", name, (int)i);
    }
}

START_TEST(plain_types_widen_to_their_values) {
    static const double expected[3] = {1, -0.15625, 1024};
    static const float f32[3] = {1, -0.15625f, 1024};
    static const uint16_t f16[3] = {0x3C00, 0xB100, 0x6400};
    static const uint16_t bf16[3] = {0x3F80, 0xBE20, 0x4480};
    check_widened(ICAE_DTYPE_F32, f32, 3, expected);
    check_widened(ICAE_DTYPE_F64, expected, 3, expected);
    check_widened(ICAE_DTYPE_F16, f16, 3, expected);
    check_widened(ICAE_DTYPE_BF16, bf16, 3, expected);
    static const double third[1] = {1.0 / 3}; /* no float: the f64 build must keep it whole */
    check_widened(ICAE_DTYPE_F64, third, 1, third);
}
END_TEST

/* Files give no alignment: any address will do. */
START_TEST(unaligned_data_widens_too) {
    static const double expected[2] = {1.5, -2};
    static const float values[2] = {1.5f, -2};
    unsigned char bytes[sizeof values + 1];
    memcpy(bytes + 1, values, sizeof values);
    check_widened(ICAE_DTYPE_F32, bytes + 1, 2, expected);
}
END_TEST

START_TEST(q8_0_blocks_widen_as_computed_by_hand) {
    unsigned char blocks[2 * 34] = {0};
    double expected[64] = {0};
    blocks[0] = 0x00, blocks[1] = 0x38; /* d = 0.5 */
    blocks[2 + 0] = 1, expected[0] = 0.5;
    blocks[2 + 1] = 0xFF, expected[1] = -0.5;
    blocks[2 + 7] = 127, expected[7] = 63.5;
    blocks[2 + 31] = 0x80, expected[31] = -64;
    blocks[34] = 0x00, blocks[35] = 0xC0; /* d = -2 */
    blocks[34 + 2] = 3, expected[32] = -6;
    blocks[34 + 2 + 31] = 0xFB, expected[63] = 10;
    check_widened(ICAE_DTYPE_Q8_0, blocks, 64, expected);
}
END_TEST

/* Byte j holds value j low and value j + 16 high. */
START_TEST(q4_0_blocks_widen_as_computed_by_hand) {
    unsigned char blocks[2 * 18];
    double expected[64];
    memset(blocks, 0x88, sizeof blocks); /* nibble 8 is 0 */
    for (int i = 0; i < 64; i++)
        expected[i] = 0;
    blocks[0] = 0x00, blocks[1] = 0x34; /* d = 0.25 */
    blocks[2] = 0x0F, expected[0] = 0.25 * 7, expected[16] = 0.25 * -8;
    blocks[2 + 15] = 0x97, expected[15] = -0.25, expected[31] = 0.25;
    blocks[18] = 0x00, blocks[19] = 0x3C; /* d = 1 */
    blocks[18 + 2 + 5] = 0xC3, expected[32 + 5] = -5, expected[32 + 21] = 4;
    check_widened(ICAE_DTYPE_Q4_0, blocks, 64, expected);
}
END_TEST

START_TEST(q4_1_blocks_widen_as_computed_by_hand) {
    unsigned char blocks[2 * 20] = {0};
    double expected[64];
    blocks[0] = 0x00, blocks[1] = 0x38; /* d = 0.5, m = -1: nibble 0 is -1 */
    blocks[2] = 0x00, blocks[3] = 0xBC;
    blocks[20] = 0x00, blocks[21] = 0x40; /* d = 2, m = 0.5 */
    blocks[22] = 0x00, blocks[23] = 0x38;
    for (int i = 0; i < 32; i++) {
        expected[i] = -1;
        expected[32 + i] = 0.5;
    }
    blocks[4] = 0xF1, expected[0] = -0.5, expected[16] = 6.5;
    blocks[4 + 15] = 0x28, expected[15] = 3, expected[31] = 0;
    blocks[24 + 3] = 0x70, expected[32 + 3] = 0.5, expected[32 + 19] = 14.5;
    check_widened(ICAE_DTYPE_Q4_1, blocks, 64, expected);
}
END_TEST

/* ---- blocks of every type, widened elsewhere ---- */

static icae_error error;

static unsigned hex_digit(char c) {
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* malloc'ed bytes of a string of hexadecimal digits. */
static unsigned char *unhex(const icae_json_value *value, size_t *bytes) {
    const char *text = icae_json_as_string(value);
    ck_assert_ptr_nonnull(text);
    *bytes = strlen(text) / 2;
    unsigned char *data = malloc(*bytes);
    ck_assert_ptr_nonnull(data);
    for (size_t i = 0; i < *bytes; i++)
        data[i] = (unsigned char)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    return data;
}

static void check_blocks(icae_dtype dtype, const icae_json_value *value) {
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    size_t block_bytes, float_bytes, stored;
    unsigned char *blocks = unhex(icae_json_member(value, "blocks"), &block_bytes);
    unsigned char *floats = unhex(icae_json_member(value, "floats"), &float_bytes);
    int64_t count = (int64_t)(float_bytes / 4);
    ck_assert_int_ge(count, 4 * info->block_values);
    ck_assert(icae_dtype_bytes(dtype, count, &stored) && stored == block_bytes);
    float *as_float = calloc((size_t)count, sizeof *as_float);
    icae_real *as_real = calloc((size_t)count, sizeof *as_real), part[32];
    ck_assert(as_float && as_real);
    icae_dtype_widen_f32(dtype, blocks, count, as_float);
    icae_dtype_widen(dtype, blocks, count, as_real);
    for (int64_t i = 0; i < count; i++) {
        const unsigned char *b = floats + 4 * i;
        uint32_t want =
            (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
        uint32_t got;
        memcpy(&got, as_float + i, sizeof got);
        if (got != want)
            ck_abort_msg("%s value %d: %08X, expected %08X", info->name, (int)i, got, want);
        icae_real real = (icae_real)as_float[i];
        if (memcmp(&real, as_real + i, sizeof real))
            ck_abort_msg("%s value %d differs as real", info->name, (int)i);
    }
    for (int64_t start = 0; start < count; start += 32) {
        icae_dtype_widen_32(dtype, blocks, start, part);
        ck_assert_msg(!memcmp(part, as_real + start, sizeof part), "%s from %d on", info->name,
                      (int)start);
    }
    free(blocks), free(floats), free(as_float), free(as_real);
}

START_TEST(blocks_widen_to_the_bits_of_an_independent_reader) {
    icae_json *json;
    ck_ok(icae_json_open(&json, "tests/golden/blocks.json", &error));
    int n = 0;
    for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
        const icae_dtype_info *info = icae_dtype_describe((icae_dtype)d);
        if (info->block_values == 1) continue;
        const icae_json_value *value = icae_json_member(icae_json_root(json), info->name);
        ck_assert_msg(value != NULL, "tests/golden/blocks.json lacks %s", info->name);
        check_blocks((icae_dtype)d, value);
        n++;
    }
    ck_assert_int_eq(n, 10);
    icae_json_free(json);
}
END_TEST

/* ---- the table ---- */

START_TEST(types_are_found_by_the_names_and_numbers_of_formats) {
    for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
        const icae_dtype_info *info = icae_dtype_describe((icae_dtype)d);
        if (info->safetensors_name)
            ck_assert_int_eq(icae_dtype_from_safetensors(info->safetensors_name), d);
        ck_assert_int_eq(icae_dtype_from_ggml(info->ggml_type), d);
    }
    ck_assert_int_eq(icae_dtype_from_safetensors("BF16"), ICAE_DTYPE_BF16);
    ck_assert_int_eq(icae_dtype_from_safetensors("Q8_0"), ICAE_DTYPE_COUNT);
    ck_assert_int_eq(icae_dtype_from_safetensors(""), ICAE_DTYPE_COUNT);
    ck_assert_int_eq(icae_dtype_from_ggml(0), ICAE_DTYPE_F32);
    ck_assert_int_eq(icae_dtype_from_ggml(3), ICAE_DTYPE_Q4_1);
    ck_assert_int_eq(icae_dtype_from_ggml(-1), ICAE_DTYPE_COUNT);
    ck_assert_int_eq(icae_dtype_from_ggml(INT64_MAX), ICAE_DTYPE_COUNT);
}
END_TEST

/* A block's f16 numbers stand inside it, one after the other; other types have none. */
START_TEST(halves_stand_inside_their_blocks) {
    for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
        size_t offsets[2];
        const icae_dtype_info *info = icae_dtype_describe((icae_dtype)d);
        int n = icae_dtype_halves((icae_dtype)d, offsets);
        bool has_any = d == ICAE_DTYPE_F16 || info->block_values > 1;
        ck_assert_msg(has_any ? n == 1 || n == 2 : n == 0, "%s", info->name);
        for (int i = 0; i < n; i++)
            ck_assert_uint_le(offsets[i] + 2, info->block_bytes);
        if (n == 2) ck_assert_uint_eq(offsets[1], offsets[0] + 2);
    }
}
END_TEST

START_TEST(sizes_are_whole_blocks_and_never_overflow) {
    static const struct {
        icae_dtype dtype;
        int64_t values;
        bool is_good;
        size_t bytes;
    } rows[] = {
        {ICAE_DTYPE_F32, 0, true, 0},
        {ICAE_DTYPE_F32, 3, true, 12},
        {ICAE_DTYPE_F16, 5, true, 10},
        {ICAE_DTYPE_Q8_0, 64, true, 68},
        {ICAE_DTYPE_Q4_0, 32, true, 18},
        {ICAE_DTYPE_Q4_1, 96, true, 60},
        {ICAE_DTYPE_Q5_0, 64, true, 44},
        {ICAE_DTYPE_Q5_1, 32, true, 24},
        {ICAE_DTYPE_Q2_K, 256, true, 84},
        {ICAE_DTYPE_Q3_K, 512, true, 220},
        {ICAE_DTYPE_Q4_K, 256, true, 144},
        {ICAE_DTYPE_Q5_K, 256, true, 176},
        {ICAE_DTYPE_Q6_K, 256, true, 210},
        {ICAE_DTYPE_Q6_K, 128, false, 0},
        {ICAE_DTYPE_Q8_0, 31, false, 0},
        {ICAE_DTYPE_Q8_0, 33, false, 0},
        {ICAE_DTYPE_F32, -1, false, 0},
        {ICAE_DTYPE_Q4_1, -32, false, 0},
        {ICAE_DTYPE_F32, INT64_MIN, false, 0},
        {ICAE_DTYPE_F64, INT64_MAX, false, 0},
        {ICAE_DTYPE_F32, INT64_C(1) << 62, false, 0},
        {ICAE_DTYPE_F64, INT64_C(1) << 61, false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t bytes = 0;
        bool is_good = icae_dtype_bytes(rows[i].dtype, rows[i].values, &bytes);
        ck_assert_msg(is_good == rows[i].is_good, "row %zu", i);
        if (is_good) ck_assert_uint_eq(bytes, rows[i].bytes);
    }
}
END_TEST

SUITE_OF(dtype, 30, f16_to_float_and_back_over_all_values,
         bf16_to_float_and_back_over_all_values, halves_round_to_nearest_even,
         plain_types_widen_to_their_values, unaligned_data_widens_too,
         q8_0_blocks_widen_as_computed_by_hand, q4_0_blocks_widen_as_computed_by_hand,
         q4_1_blocks_widen_as_computed_by_hand,
         blocks_widen_to_the_bits_of_an_independent_reader,
         types_are_found_by_the_names_and_numbers_of_formats, halves_stand_inside_their_blocks,
         sizes_are_whole_blocks_and_never_overflow)
