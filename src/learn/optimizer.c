/* SPDX-License-Identifier: MIT */
/* Schedules, clipping and the AdamW step; the formulas stand in icae/optimizer.h. */
#include <math.h>

#include "icae/optimizer.h"

double icae_schedule_rate(icae_schedule schedule, double lr, int64_t warmup, int64_t steps,
                          double final_fraction, int64_t step) {
    static const double pi = 3.14159265358979323846;
    if (step < warmup) return lr * (double)(step + 1) / (double)warmup;
    if (schedule == ICAE_SCHEDULE_CONSTANT) return lr;
    double t = steps > warmup ? (double)(step - warmup) / (double)(steps - warmup) : 1;
    if (t > 1) t = 1;
    double left = schedule == ICAE_SCHEDULE_COSINE ? 0.5 * (1 + cos(pi * t)) : 1 - t;
    return lr * (final_fraction + (1 - final_fraction) * left);
}

icae_update icae_optimizer_step(icae_optimizer *optimizer, icae_params *params, double lr) {
    icae_backend *be = params->be;
    icae_update update = {.norm =
                              sqrt(be->k.sum_squares(be, params->count, params->gradients))};
    if (!isfinite(update.norm)) return update;
    update.is_applied = true;
    update.is_clipped = optimizer->clip_norm > 0 && update.norm > optimizer->clip_norm;
    double n = (double)++optimizer->updates;
    icae_adamw_step step = {
        .lr = lr,
        .beta1 = optimizer->beta1,
        .beta2 = optimizer->beta2,
        .eps = optimizer->eps,
        .weight_decay = optimizer->weight_decay,
        .correction1 = 1 - pow(optimizer->beta1, n),
        .correction2 = 1 - pow(optimizer->beta2, n),
        /* 1e-6 as in torch.nn.utils.clip_grad_norm_, so that the two agree to the last digits */
        .gradient_scale = update.is_clipped ? optimizer->clip_norm / (update.norm + 1e-6) : 1,
    };
    be->k.adamw(be, params->count, &step, params->values, params->gradients, params->moment1,
                params->moment2);
    return update;
}
