/* SPDX-License-Identifier: MIT */
/* Where a text is cut: every window equally often, and no LM where too little follows. */
#include <stdlib.h>

#include "learn/samples_internal.h"
#include "suites.h"

static const icae_feed_settings text_settings = {
    .lm_ratio = 0.5,
    .context_tokens = 24,
    .least_context = 4,
    .continuation_tokens = 16,
    .least_continuation = 6,
    .skip_for_lm = 3,
};

/* Chi-square of counts against equal ones: its mean is n - 1, its deviation sqrt(2 (n - 1)). */
static double chi_square(const int *counts, int n) {
    double sum = 0, total = 0;
    for (int i = 0; i < n; i++)
        total += counts[i];
    for (int i = 0; i < n; i++) {
        double off = counts[i] - total / n;
        sum += off * off / (total / n);
    }
    return sum;
}

/* 41 places for a window of 24 in 64 tokens. 5 deviations above the mean of chi-square: 85. */
START_TEST(every_window_comes_up_equally_often) {
    static const struct {
        icae_objective objective;
        double lm_ratio;
    } cases[] = {{ICAE_OBJECTIVE_MIXED, 0},
                 {ICAE_OBJECTIVE_MIXED, 0.5},
                 {ICAE_OBJECTIVE_MIXED, 1},
                 {ICAE_OBJECTIVE_BOTH, 0}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        icae_feed_settings settings = text_settings;
        settings.objective = cases[c].objective;
        settings.lm_ratio = cases[c].lm_ratio;
        int ae[41] = {0}, lm[41] = {0}, n_ae = 0, n_lm = 0;
        for (uint64_t i = 0; i < 50000; i++) {
            icae_rng rng = {.seed = 9, .stream = i};
            text_cut cut = icae_sample_cut_text(&settings, 64, &rng);
            ck_assert(cut.start >= 0 && cut.start <= 40 && cut.n_context == 24);
            ae[cut.start] += cut.has_ae;
            n_ae += cut.has_ae;
            lm[cut.start] += cut.n_continuation > 0;
            n_lm += cut.n_continuation > 0;
        }
        /* Windows that begin at 34 or later leave 6 tokens or fewer: AE. */
        for (int i = 34; i < 41; i++)
            ck_assert_int_eq(lm[i], 0);
        if (n_ae) ck_assert_msg(chi_square(ae, 41) < 85, "AE: %g", chi_square(ae, 41));
        if (n_lm) ck_assert_msg(chi_square(lm, 34) < 75, "LM: %g", chi_square(lm, 34));
        double share = cases[c].objective == ICAE_OBJECTIVE_BOTH ? 1 : cases[c].lm_ratio;
        ck_assert_double_eq_tol(n_lm / 50000.0, share * 34 / 41, 0.01);
        ck_assert_int_eq(n_ae,
                         cases[c].objective == ICAE_OBJECTIVE_BOTH ? 50000 : 50000 - n_lm);
    }
}
END_TEST

/* A text of 20 tokens is cut after 4..20 of them; from 14 on too little follows. */
START_TEST(short_texts_are_split_uniformly) {
    icae_feed_settings settings = text_settings;
    for (int both = 0; both < 2; both++) {
        settings.objective = both ? ICAE_OBJECTIVE_BOTH : ICAE_OBJECTIVE_MIXED;
        settings.lm_ratio = 1;
        int lm[21] = {0}, whole = 0;
        for (uint64_t i = 0; i < 34000; i++) {
            icae_rng rng = {.seed = 3, .stream = i};
            text_cut cut = icae_sample_cut_text(&settings, 20, &rng);
            ck_assert_int_eq(cut.start, 0);
            if (cut.n_continuation) {
                ck_assert_int_eq(cut.n_context + cut.n_continuation, 20);
                ck_assert_int_eq(cut.has_ae, both);
                lm[cut.n_context]++;
            } else {
                ck_assert(cut.has_ae && cut.n_context == 20);
                whole++;
            }
        }
        for (int i = 0; i < 21; i++)
            ck_assert_int_eq(lm[i] > 0, i >= 4 && i < 14);
        ck_assert_msg(chi_square(lm + 4, 10) < 30, "%g", chi_square(lm + 4, 10));
        ck_assert_int_lt(abs(whole - 14000), 500);
    }
}
END_TEST

START_TEST(no_lm_without_enough_to_follow) {
    icae_feed_settings settings = text_settings;
    settings.lm_ratio = 1;
    for (int64_t n = 4; n <= 40; n++) {
        for (uint64_t i = 0; i < 300; i++) {
            settings.objective = i % 2 ? ICAE_OBJECTIVE_BOTH : ICAE_OBJECTIVE_MIXED;
            icae_rng rng = {.seed = 1, .stream = i};
            text_cut cut = icae_sample_cut_text(&settings, n, &rng);
            int64_t following = n - cut.start - cut.n_context;
            ck_assert(following >= 0 && cut.n_continuation <= following);
            ck_assert(!cut.n_continuation || following > 6);
            ck_assert(cut.n_continuation <= 16);
            /* 4 + 6 tokens leave no room; nor does a window of 24 in 25 to 30. */
            if (n <= 10 || (n > 24 && n <= 30)) ck_assert_int_eq(cut.n_continuation, 0);
        }
    }
}
END_TEST

SUITE_OF(samples, 30, every_window_comes_up_equally_often, short_texts_are_split_uniformly,
         no_lm_without_enough_to_follow)
