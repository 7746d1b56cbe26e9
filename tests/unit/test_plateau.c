/* SPDX-License-Identifier: MIT */
/* When a run is warned that its AE loss stands where it is known to stay. */
#include <math.h>

#include "icae/rng.h"
#include "learn/trainer_internal.h"
#include "suites.h"

/* The step at which a curve is reported, or -1; loss = level + fall * exp(-step / 100) with noise. */
static int reported_at(double level, double fall_per_step, bool with_gaps, double *mean) {
    icae_plateau plateau = {0};
    icae_rng rng = {.seed = 5};
    int found = -1;
    for (int step = 1; step <= 2000; step++) {
        double noise = 0.3 * (icae_rng_uniform(&rng) - 0.5);
        double loss = level - fall_per_step * step + 3 * exp(-step / 50.0) + noise;
        if (with_gaps && step % 2) loss = (double)NAN;
        if (!icae_plateau_reached(&plateau, loss, mean)) continue;
        ck_assert_int_eq(found, -1); /* said once */
        found = step;
    }
    return found;
}

START_TEST(a_loss_that_stands_at_two_is_reported_once) {
    double mean = 0;
    int step = reported_at(2.0, 0, false, &mean);
    ck_assert_int_ge(step, 400);
    ck_assert_int_le(step, 800);
    ck_assert_double_eq_tol(mean, 2.0, 0.05);
}
END_TEST

START_TEST(steps_without_autoencoding_do_not_count) {
    double mean = 0;
    int step = reported_at(2.0, 0, true, &mean);
    ck_assert_int_ge(step, 800);
    ck_assert_double_eq_tol(mean, 2.0, 0.05);
}
END_TEST

START_TEST(falling_high_and_low_losses_are_left_alone) {
    double mean;
    ck_assert_int_eq(reported_at(2.5, 0.0011, false, &mean), -1); /* falls through it */
    ck_assert_int_eq(reported_at(4.9, 0, false, &mean), -1); /* has not begun to use slots */
    ck_assert_int_eq(reported_at(0.4, 0, false, &mean), -1); /* has learnt */
}
END_TEST

SUITE_OF(plateau, 10, a_loss_that_stands_at_two_is_reported_once,
         steps_without_autoencoding_do_not_count, falling_high_and_low_losses_are_left_alone)
