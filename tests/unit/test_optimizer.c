/* SPDX-License-Identifier: MIT */
/* Schedules, clipping, and AdamW steps computed by hand. */
#include <math.h>
#include <string.h>

#include "icae/optimizer.h"
#include "suites.h"

#define near(a, b) ck_assert_double_eq_tol(a, b, 1e-12)

START_TEST(warm_up_rises_in_equal_steps_to_the_full_rate) {
    for (int schedule = 0; schedule < ICAE_SCHEDULE_COUNT; schedule++) {
        for (int step = 0; step < 10; step++) {
            near(icae_schedule_rate((icae_schedule)schedule, 2.0, 10, 110, 0.1, step),
                 2.0 * (step + 1) / 10);
        }
        near(icae_schedule_rate((icae_schedule)schedule, 2.0, 10, 110, 0.1, 10), 2.0);
    }
}
END_TEST

START_TEST(schedules_end_where_they_should) {
    near(icae_schedule_rate(ICAE_SCHEDULE_CONSTANT, 0.5, 0, 100, 0.1, 99), 0.5);
    near(icae_schedule_rate(ICAE_SCHEDULE_COSINE, 1, 0, 100, 0.2, 50), 0.2 + 0.8 * 0.5);
    near(icae_schedule_rate(ICAE_SCHEDULE_COSINE, 1, 0, 100, 0.2, 100), 0.2);
    near(icae_schedule_rate(ICAE_SCHEDULE_LINEAR, 1, 20, 100, 0, 40), 0.75);
    near(icae_schedule_rate(ICAE_SCHEDULE_LINEAR, 1, 20, 100, 0.5, 100), 0.5);
    /* beyond the end, and a run that is all warm-up */
    near(icae_schedule_rate(ICAE_SCHEDULE_COSINE, 1, 0, 100, 0.2, 1000), 0.2);
    near(icae_schedule_rate(ICAE_SCHEDULE_LINEAR, 1, 10, 10, 0.25, 10), 0.25);
}
END_TEST

START_TEST(decay_never_rises_after_warm_up) {
    for (int schedule = 0; schedule < ICAE_SCHEDULE_COUNT; schedule++) {
        double last = 1;
        for (int step = 5; step < 130; step++) {
            double now = icae_schedule_rate((icae_schedule)schedule, 1, 5, 100, 0.05, step);
            ck_assert(now <= last && now >= 0.05 - 1e-15);
            last = now;
        }
    }
}
END_TEST

static void make_params(icae_params *params, icae_backend *be) {
    icae_error error = {0};
    *params = (icae_params){0};
    ck_assert_int_eq(icae_params_add(params, "a", 2, (int64_t[]){1, 2}), 0);
    ck_assert_int_eq(icae_params_add(params, "b", 1, (int64_t[]){1}), 1);
    ck_ok(icae_params_allocate(params, be, true, &error));
}

/* The first update of AdamW moves every parameter by lr * sign(g) (up to eps), after decay. */
START_TEST(first_step_moves_by_the_rate_and_decays_every_parameter) {
    icae_error error = {0};
    icae_backend *be;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    icae_params params;
    make_params(&params, be);
    const icae_real p[3] = {1, -2, 4}, g[3] = {(icae_real)0.3, (icae_real)-0.4, 0};
    memcpy(params.values, p, sizeof p);
    memcpy(params.gradients, g, sizeof g);
    icae_optimizer optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-12, .weight_decay = 0.1};
    icae_update update = icae_optimizer_step(&optimizer, &params, 0.01);
    ck_assert(update.is_applied && !update.is_clipped);
    ck_assert_double_eq_tol(update.norm, 0.5, 1e-6);
    ck_assert_int_eq(optimizer.updates, 1);
    const double expected[3] = {1 - 0.01 * 0.1 - 0.01, -2 + 2 * 0.01 * 0.1 + 0.01,
                                4 - 4 * 0.01 * 0.1};
    for (int i = 0; i < 3; i++)
        ck_assert_double_eq_tol((double)params.values[i], expected[i], 1e-6);
    icae_params_release(&params);
    icae_backend_free(be);
}
END_TEST

/* Three steps by hand, in double, with the norm clipped to 0.25 in each. */
START_TEST(three_clipped_steps_agree_with_the_formula) {
    icae_error error = {0};
    icae_backend *be;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    icae_params params;
    make_params(&params, be);
    double p[3] = {0.5, -1, 2}, m[3] = {0}, v[3] = {0};
    for (int i = 0; i < 3; i++)
        params.values[i] = (icae_real)p[i];
    icae_optimizer optimizer = {
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip_norm = 0.25};
    for (int step = 1; step <= 3; step++) {
        const double g[3] = {0.3 * step, -0.4, 0.5 / step};
        double norm = sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2]);
        for (int i = 0; i < 3; i++) {
            params.gradients[i] = (icae_real)g[i];
            double s = g[i] * 0.25 / (norm + 1e-6);
            m[i] = 0.9 * m[i] + 0.1 * s;
            v[i] = 0.95 * v[i] + 0.05 * s * s;
            p[i] -= 0.02 * 0.1 * p[i];
            p[i] -= 0.02 * (m[i] / (1 - pow(0.9, step))) /
                    (sqrt(v[i] / (1 - pow(0.95, step))) + 1e-8);
        }
        icae_update update = icae_optimizer_step(&optimizer, &params, 0.02);
        ck_assert(update.is_clipped);
        ck_assert_double_eq_tol(update.norm, norm, 1e-6);
    }
    for (int i = 0; i < 3; i++)
        ck_assert_double_eq_tol((double)params.values[i], p[i], 1e-6);
    icae_params_release(&params);
    icae_backend_free(be);
}
END_TEST

START_TEST(a_gradient_that_is_not_finite_touches_nothing) {
    icae_error error = {0};
    icae_backend *be;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    const double bad[2] = {(double)NAN, (double)INFINITY};
    for (int i = 0; i < 2; i++) {
        icae_params params;
        make_params(&params, be);
        params.values[0] = 7;
        params.gradients[2] = (icae_real)bad[i];
        icae_optimizer optimizer = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip_norm = 1};
        icae_update update = icae_optimizer_step(&optimizer, &params, 0.1);
        ck_assert(!update.is_applied);
        ck_assert_int_eq(optimizer.updates, 0);
        ck_assert(params.values[0] == 7 && params.values[2] == 0);
        ck_assert(params.moment1[2] == 0 && params.moment2[2] == 0);
        icae_params_release(&params);
    }
    icae_backend_free(be);
}
END_TEST

SUITE_OF(optimizer, 30, warm_up_rises_in_equal_steps_to_the_full_rate,
         schedules_end_where_they_should, decay_never_rises_after_warm_up,
         first_step_moves_by_the_rate_and_decays_every_parameter,
         three_clipped_steps_agree_with_the_formula,
         a_gradient_that_is_not_finite_touches_nothing)
