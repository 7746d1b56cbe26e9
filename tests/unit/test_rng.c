/* SPDX-License-Identifier: MIT */
/* Counter-based random numbers: published vectors, moments, independence of draw order. */
#include <math.h>
#include <string.h>

#include "icae/rng.h"
#include "suites.h"

/* Known-answer vectors of Random123's kat_vectors for philox4x32-10. */
START_TEST(agrees_with_published_philox_vectors) {
    uint32_t out[4];
    icae_philox(0, 0, 0, out);
    static const uint32_t zeros[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    ck_assert_int_eq(memcmp(out, zeros, sizeof zeros), 0);
    icae_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
    static const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    ck_assert_int_eq(memcmp(out, ones, sizeof ones), 0);
    icae_philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, out);
    static const uint32_t pi[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    ck_assert_int_eq(memcmp(out, pi, sizeof pi), 0);
}
END_TEST

START_TEST(normal_numbers_have_mean_zero_and_deviation_one) {
    icae_rng rng = {.seed = 7};
    double sum = 0, squares = 0;
    enum { N = 200000 };
    for (int i = 0; i < N; i++) {
        double x = icae_rng_normal(&rng);
        sum += x;
        squares += x * x;
    }
    ck_assert(fabs(sum / N) < 0.01);
    ck_assert(fabs(squares / N - 1) < 0.02);
}
END_TEST

START_TEST(below_reaches_every_value_about_equally) {
    icae_rng rng = {.seed = 3, .stream = 9};
    int counts[7] = {0};
    for (int i = 0; i < 70000; i++)
        counts[icae_rng_below(&rng, 7)]++;
    for (int i = 0; i < 7; i++)
        ck_assert(counts[i] > 9500 && counts[i] < 10500);
}
END_TEST

SUITE_OF(rng, 30, agrees_with_published_philox_vectors,
         normal_numbers_have_mean_zero_and_deviation_one,
         below_reaches_every_value_about_equally)
