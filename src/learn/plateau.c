/* SPDX-License-Identifier: MIT */
/*
 * The plateau on which autoencoding is known to stay: with the released position layout the AE loss
 * falls to about 2 and does not move for thousands of steps (the official code's issue 21; the logs of
 * arXiv 2409.14364 show 2.21, 1.88, 1.99 over the first 5,000).
 *
 * Watched over two windows: both near 2, and hardly a fall from the first to the second.
 */
#include <math.h>

#include "learn/trainer_internal.h"

bool icae_plateau_reached(icae_plateau *plateau, double ae_loss, double *mean) {
    enum { N = ICAE_PLATEAU_STEPS };
    static const double highest = 2.6, lowest = 1.5, least_fall = 0.03;
    if (!isfinite(ae_loss) || plateau->is_reported) return false;
    plateau->window[plateau->count++ % (2 * N)] = ae_loss;
    if (plateau->count < 2 * N || plateau->count % N) return false;
    double means[2] = {0, 0};
    for (int64_t i = 0; i < 2 * N; i++) {
        means[i / N] += plateau->window[(plateau->count + i) % (2 * N)] / N; /* oldest first */
    }
    if (means[0] > highest || means[1] < lowest || means[1] < (1 - least_fall) * means[0]) {
        return false;
    }
    plateau->is_reported = true;
    *mean = means[1];
    return true;
}
