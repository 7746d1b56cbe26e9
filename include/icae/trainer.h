/* SPDX-License-Identifier: MIT */
/*
 * A training run: from settings to an adapter.
 *
 *     OUT/config.json       all values as used; can be given to the trainer again
 *     OUT/metrics.jsonl     one object a step and one an evaluation; what is measured time stands last
 *     OUT/loss.svg          redrawn at every evaluation
 *     OUT/skipped/step-N.jsonl  the samples of a step that was left out, see below
 *     OUT/checkpoints/      see icae/checkpoint.h
 *     OUT/adapter/          the result
 *
 * A run is a function of its settings, its data, the number of threads and the level of the kernels:
 * stopped and resumed it gives the same bytes as one that was not, times aside. What has changed since
 * the checkpoint is refused by name, unless allows_changes; then a warning tells what is lost. Another
 * base, or an adapter of another shape, is refused in any case.
 *
 * A step whose loss or gradient is not finite makes no update. Its samples are kept in
 * OUT/skipped/step-N.jsonl: a line {"step", "reason": "loss" or "gradient", "loss", "lr", "samples"}, then
 * one for each sample {"task", "nll", "targets", "context_ids", "context", "prefix_ids", "prompt_ids",
 * "target_ids", "target"}; nll is null where it is not finite or was not reached. Ten in a row end the run.
 * A gradient ten times as long as those before it is reported, in words and in metrics.jsonl ("spike").
 */
#ifndef ICAE_TRAINER_H
#define ICAE_TRAINER_H

#include <signal.h>

#include "icae/plan.h"
#include "icae/settings.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_train_options {
    bool is_resuming; /* go on from the newest good checkpoint */
    bool
        allows_changes; /* resume although settings, data, threads or kernels are not the run's */
    bool is_dry_run;    /* say what the run would cost, write nothing */
    int64_t stop_at;    /* as if a signal came in this step; 0: never */
    const volatile sig_atomic_t *signal; /* not 0: finish the step, save, stop. May be NULL */
} icae_train_options;

/* Losses on the fixed held-out samples, and what comes back when their slots are decoded freely. */
typedef struct icae_heldout {
    int64_t samples;
    double
        loss[ICAE_TASK_COUNT]; /* mean negative log-likelihood in nats; NaN without targets */
    int64_t targets[ICAE_TASK_COUNT];
    int64_t restored; /* passages decoded (fine-tuning: answers) */
    double bleu4;     /* 0..100 */
    double prefix_em; /* 0..1, mean share of the passage before the first difference */
    int64_t exact;    /* passages that came back whole */
} icae_heldout;

typedef struct icae_train_report {
    icae_plan plan;
    /* What the processor multiplies, FLOP/s, 0 when not measured: OpenBLAS's sgemm ("sgemm"), or
     * registers alone where the run computes in bf16 ("bf16"). */
    double peak;
    const char *peak_name;
    double step_s;   /* seconds that a step is expected to take, 0 when not measured */
    int64_t step;    /* steps done, over all sessions */
    int64_t skipped; /* steps whose loss or gradient was not finite */
    int64_t cut, passed_over, broken_lines; /* as icae_feed_stats has them, over all sessions */
    double loss[ICAE_TASK_COUNT];           /* of the last step; NaN for absent tasks */
    bool has_heldout;
    icae_heldout before, after; /* at the beginning of this session and at its end */
    double seconds;             /* in steps of this session */
    double context_tokens;      /* of them */
    double work;                /* useful FLOP of them */
    size_t peak_activations;    /* the most that buffers held */
    size_t peak_rss; /* the most that the process had in use, at the end of the run */
} icae_train_report;

/* Appends "about 1.83 s a step, 1 h 05 m for 2000 steps". */
void icae_train_estimate(icae_text *out, double step_s, int64_t steps);

/*
 * Trains. `settings` is completed on the way (what was left open is filled in). Returns
 * ICAE_INTERRUPTED, after a checkpoint, when the signal flag or stop_at said so.
 */
icae_status icae_train(icae_settings *settings, const icae_train_options *options,
                       icae_train_report *report, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
