/* SPDX-License-Identifier: MIT */
/* Spans and positions: against hand-computed values, and against a plain simulation. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "icae/layout.h"
#include "suites.h"

static void expect_positions(const int32_t *got, const int32_t *wanted, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        ck_assert_msg(got[i] == wanted[i], "position %lld is %d, expected %d", (long long)i,
                      got[i], wanted[i]);
}

/* Cuts a text the plain way: spans of ceil(L / ceil(L / (k rate))) until nothing is left. */
static int64_t simulate_spans(int64_t length, int64_t per_span, int64_t *lengths) {
    int64_t wanted = 0, each = 0, count = 0;
    for (int64_t covered = 0; covered < length; covered += per_span)
        wanted++;
    while (each * wanted < length)
        each++;
    for (int64_t rest = length; rest > 0; rest -= each)
        lengths[count++] = rest < each ? rest : each;
    return count;
}

START_TEST(cuts_every_length_as_a_simulation_does) {
    static const int64_t settings[][2] = {{1, 1}, {1, 2}, {2, 1},   {1, 3},  {2, 2},
                                          {1, 5}, {1, 7}, {2, 4},   {4, 4},  {6, 3},
                                          {8, 4}, {5, 5}, {128, 4}, {32, 15}};
    enum { LONGEST = 3000 };
    static int64_t lengths[LONGEST];
    for (size_t s = 0; s < sizeof settings / sizeof settings[0]; s++) {
        int64_t k = settings[s][0], rate = settings[s][1];
        for (int64_t length = 1; length <= LONGEST; length++) {
            int64_t wanted = simulate_spans(length, k * rate, lengths);
            int64_t count = icae_span_count(length, k, rate);
            ck_assert_msg(count == wanted, "L %lld, k %lld, rate %lld: %lld spans, not %lld",
                          (long long)length, (long long)k, (long long)rate, (long long)count,
                          (long long)wanted);
            for (int64_t i = 0; i < count; i++)
                ck_assert_int_eq(icae_span_length(length, count, i), lengths[i]);
        }
    }
}
END_TEST

START_TEST(cuts_as_the_method_says) {
    ck_assert_int_eq(icae_span_count(0, 128, 4), 1);
    ck_assert_int_eq(icae_span_length(0, 1, 0), 0);
    ck_assert_int_eq(icae_span_count(512, 128, 4), 1);
    ck_assert_int_eq(icae_span_count(513, 128, 4), 2);
    ck_assert_int_eq(icae_span_length(513, 2, 0), 257);
    ck_assert_int_eq(icae_span_length(513, 2, 1), 256);
    /* 9 tokens, 2 a span: ceil(9/2) = 5 spans of 2; 10 tokens in 3s: 4 spans of 3, 3, 3, 1 */
    ck_assert_int_eq(icae_span_count(9, 1, 2), 5);
    ck_assert_int_eq(icae_span_count(10, 1, 3), 4);
    /* 25 at 4 a span: 7 of ceil(25/7) = 4; 21 at 5 a span: 5 of 5, the last has 1 */
    ck_assert_int_eq(icae_span_count(25, 1, 4), 7);
    ck_assert_int_eq(icae_span_length(21, 5, 4), 1);
    /* a count that no rate asks for may leave spans empty: 2 2 2 2 1 0 */
    ck_assert_int_eq(icae_span_length(9, 6, 4), 1);
    ck_assert_int_eq(icae_span_length(9, 6, 5), 0);
}
END_TEST

START_TEST(rounds_halves_to_the_even_position) {
    /* n = 32, k = 8: (64j + 32 - 8) / 16 = 4j + 1.5 -> 4j + 2 */
    for (int64_t j = 0; j < 8; j++)
        ck_assert_int_eq(icae_slot_position(j, 1, 32, 8), 1 + 4 * j + 2);
    /* n = 2, k = 4: (4j - 2) / 8 = -0.25, 0.25, 0.75, 1.25 */
    static const int32_t n2[] = {1, 1, 2, 2};
    for (int64_t j = 0; j < 4; j++)
        ck_assert_int_eq(icae_slot_position(j, 1, 2, 4), n2[j]);
    /* n = 6, k = 2: (12j + 4) / 4 = 1, 4; n = 8, k = 2: (16j + 6) / 4 = 1.5, 5.5 -> 2, 6;
     * n = 4, k = 4: whole: 0 1 2 3; n = 10, k = 4: (20j + 6) / 8 = 0.75, 3.25, 5.75, 8.25 */
    ck_assert_int_eq(icae_slot_position(0, 0, 6, 2), 1);
    ck_assert_int_eq(icae_slot_position(1, 0, 6, 2), 4);
    ck_assert_int_eq(icae_slot_position(0, 0, 8, 2), 2);
    ck_assert_int_eq(icae_slot_position(1, 0, 8, 2), 6);
    static const int32_t n10[] = {1, 3, 6, 8};
    for (int64_t j = 0; j < 4; j++) {
        ck_assert_int_eq(icae_slot_position(j, 7, 4, 4), 7 + j);
        ck_assert_int_eq(icae_slot_position(j, 0, 10, 4), n10[j]);
    }
    /* n = 2, k = 1: 0.5 -> 0; n = 4, k = 1: 1.5 -> 2; n = 6: 2.5 -> 2; an empty span: -0.5 -> 0.
     * The tie is broken before x1 is added, so an odd x1 changes nothing. */
    static const int32_t k1[][2] = {{0, 0}, {2, 0}, {4, 2}, {6, 2}, {8, 4}, {10, 4}};
    for (size_t i = 0; i < sizeof k1 / sizeof k1[0]; i++) {
        ck_assert_int_eq(icae_slot_position(0, 0, k1[i][0], 1), k1[i][1]);
        ck_assert_int_eq(icae_slot_position(0, 3, k1[i][0], 1), 3 + k1[i][1]);
    }
    /* one token: every slot stands on it */
    for (int64_t j = 0; j < 8; j++)
        ck_assert_int_eq(icae_slot_position(j, 5, 1, 8), 5);
}
END_TEST

START_TEST(agrees_with_rint_in_double_and_stays_inside_the_span) {
    /* nearbyint rounds halves to even; ((2j+1) n - k) / (2k) is exact enough here only where the
     * quotient's halves are: k a power of two makes it exact everywhere. */
    for (int64_t k = 1; k <= 64; k *= 2) {
        for (int64_t n = 0; n <= 300; n++) {
            int32_t last = INT32_MIN;
            for (int64_t j = 0; j < k; j++) {
                double exact = (double)((2 * j + 1) * n - k) / (double)(2 * k);
                int32_t got = icae_slot_position(j, 1, n, k);
                ck_assert_int_eq(got, 1 + (int32_t)nearbyint(exact));
                ck_assert_int_ge(got, last);
                ck_assert(got >= 1 && got <= (n > 0 ? n : 1));
                last = got;
            }
        }
    }
}
END_TEST

START_TEST(lays_out_the_encoder) {
    int32_t out[8];
    icae_encoder_positions(ICAE_LAYOUT_UNIFORM, 6, 2, out);
    expect_positions(out, (const int32_t[]){1, 2, 3, 4, 5, 6, 2, 5}, 8);
    icae_encoder_positions(ICAE_LAYOUT_APPEND, 6, 2, out);
    expect_positions(out, (const int32_t[]){0, 1, 2, 3, 4, 5, 6, 7}, 8);
    /* fewer tokens than slots, and none at all */
    icae_encoder_positions(ICAE_LAYOUT_UNIFORM, 2, 4, out);
    expect_positions(out, (const int32_t[]){1, 2, 1, 1, 2, 2}, 6);
    icae_encoder_positions(ICAE_LAYOUT_UNIFORM, 0, 3, out);
    expect_positions(out, (const int32_t[]){1, 1, 1}, 3);
}
END_TEST

START_TEST(lays_out_the_decoder) {
    static const int32_t lengths[] = {6, 4};
    int32_t out[16];
    /* AE: slots of 6 tokens from 1 and of 4 from 7, k = 2: 1 + {1, 4}, 7 + round({0.5, 2.5}) */
    icae_decoder_positions(ICAE_LAYOUT_UNIFORM, ICAE_TASK_AE, 0, 2, lengths, NULL, 2, 4, out);
    expect_positions(out, (const int32_t[]){2, 5, 7, 9, 0, 1, 2, 3}, 8);
    icae_decoder_positions(ICAE_LAYOUT_UNIFORM, ICAE_TASK_LM, 0, 2, lengths, NULL, 2, 3, out);
    expect_positions(out, (const int32_t[]){2, 5, 7, 9, 10, 11, 12}, 7);
    /* a prefix of 1 takes position 0 and moves nothing; one of 3 moves the text by 2 */
    icae_decoder_positions(ICAE_LAYOUT_UNIFORM, ICAE_TASK_FT, 1, 2, lengths, NULL, 2, 2, out);
    expect_positions(out, (const int32_t[]){0, 2, 5, 7, 9, 10, 11}, 7);
    icae_decoder_positions(ICAE_LAYOUT_UNIFORM, ICAE_TASK_FT, 3, 2, lengths, NULL, 2, 3, out);
    expect_positions(out, (const int32_t[]){0, 1, 2, 4, 7, 9, 11, 12, 13, 14}, 10);
    /* the second span as its own three tokens, at their own positions */
    const bool is_raw[] = {false, true};
    icae_decoder_positions(ICAE_LAYOUT_UNIFORM, ICAE_TASK_AE, 0, 2, (const int32_t[]){7, 3},
                           is_raw, 2, 2, out);
    expect_positions(out, (const int32_t[]){2, 6, 8, 9, 10, 0, 1}, 7);
    icae_decoder_positions(ICAE_LAYOUT_UNIFORM, ICAE_TASK_FT, 3, 2, (const int32_t[]){7, 3},
                           is_raw, 2, 2, out);
    expect_positions(out, (const int32_t[]){0, 1, 2, 4, 8, 10, 11, 12, 12, 13}, 10);
    icae_decoder_positions(ICAE_LAYOUT_APPEND, ICAE_TASK_FT, 1, 2, (const int32_t[]){7, 3},
                           is_raw, 2, 2, out);
    expect_positions(out, (const int32_t[]){0, 1, 2, 3, 4, 5, 6, 7}, 8);
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        icae_decoder_positions(ICAE_LAYOUT_APPEND, (icae_task)task, 3, 2, lengths, NULL, 2, 3,
                               out);
        expect_positions(out, (const int32_t[]){0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 10);
    }
}
END_TEST

START_TEST(shares_a_span_among_its_slots) {
    int64_t first, end;
    for (int64_t n = 1; n <= 70; n++) {
        for (int64_t k = 1; k <= 40; k++) {
            int64_t reached = 0;
            for (int64_t j = 0; j < k; j++) {
                icae_slot_share(j, n, k, &first, &end);
                ck_assert(first >= 0 && first < end && end <= n);
                ck_assert_int_le(first, reached); /* no token is left out */
                ck_assert_int_le(end - first, n / k + 2);
                if (n % k == 0) ck_assert(first == reached && end - first == n / k);
                reached = end;
            }
            ck_assert_int_eq(reached, n);
        }
    }
    icae_slot_share(2, 10, 4, &first, &end); /* 5 .. 7.5 */
    ck_assert(first == 5 && end == 8);
    icae_slot_share(5, 3, 8, &first, &end); /* 1.875 .. 2.25 */
    ck_assert(first == 1 && end == 3);
}
END_TEST

START_TEST(names_every_layout_and_task) {
    ck_assert_str_eq(icae_layout_names[ICAE_LAYOUT_UNIFORM], "uniform");
    ck_assert_str_eq(icae_layout_names[ICAE_LAYOUT_APPEND], "append");
    ck_assert_ptr_null(icae_layout_names[ICAE_LAYOUT_COUNT]);
    ck_assert_str_eq(icae_task_names[ICAE_TASK_AE], "ae");
    ck_assert_str_eq(icae_task_names[ICAE_TASK_FT], "ft");
    ck_assert_ptr_null(icae_task_names[ICAE_TASK_COUNT]);
}
END_TEST

SUITE_OF(layout, 60, cuts_every_length_as_a_simulation_does, cuts_as_the_method_says,
         rounds_halves_to_the_even_position,
         agrees_with_rint_in_double_and_stays_inside_the_span, lays_out_the_encoder,
         lays_out_the_decoder, shares_a_span_among_its_slots, names_every_layout_and_task)
