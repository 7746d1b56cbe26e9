/* SPDX-License-Identifier: MIT */
/* What the files of the trainer share: trainer.c, step.c, skipped.c, heldout.c, report.c, run_folder.c. */
#ifndef ICAE_LEARN_TRAINER_INTERNAL_H
#define ICAE_LEARN_TRAINER_INTERNAL_H

#include "icae/checkpoint.h"
#include "icae/feed.h"
#include "icae/generate.h"
#include "icae/optimizer.h"
#include "icae/trainer.h"

/* ---- run_folder.c ---- */

typedef struct icae_run_folder {
    char *path, *config, *metrics, *svg, *adapter, *skipped; /* malloc'ed */
    int lock; /* descriptor that holds the lock, -1: none */
} icae_run_folder;

/* Makes the folder and takes its lock. A folder that another process trains in is refused. */
icae_status icae_run_folder_open(icae_run_folder *folder, const char *path, icae_error *error);
void icae_run_folder_close(icae_run_folder *folder);
/* Cuts metrics.jsonl to its first `bytes` bytes; warns when it is shorter. */
icae_status icae_run_folder_cut_metrics(const icae_run_folder *folder, int64_t bytes,
                                        icae_error *error);

/* ---- the session ---- */

typedef struct trainer trainer;

/* What one step did. */
typedef struct step_result {
    double sum[ICAE_TASK_COUNT]; /* of negative log-likelihoods */
    int64_t targets[ICAE_TASK_COUNT];
    double loss; /* that was minimised */
    double lr;
    icae_update update;
    bool is_skipped, is_spike; /* no update made; a gradient far longer than those before it */
    icae_batch_size size;
    double work, seconds;
} step_result;

/* ---- plateau.c ---- */

enum { ICAE_PLATEAU_STEPS = 200 };
typedef struct icae_plateau {
    double window[2 * ICAE_PLATEAU_STEPS]; /* the last AE losses, a ring */
    int64_t count;
    bool is_reported;
} icae_plateau;
/* Takes the next AE loss (NaN: a step without one). True once, with the mean of the last steps, when
 * the loss has stood near 2 for 2 * ICAE_PLATEAU_STEPS steps. */
bool icae_plateau_reached(icae_plateau *plateau, double ae_loss, double *mean);

/* Smoothed numbers for the progress line, and the watch for the plateau. Of this session only. */
typedef struct progress {
    double loss[ICAE_TASK_COUNT]; /* 0 until there is one */
    double seconds, tokens, work; /* exponentially decayed sums */
    icae_plateau plateau;
} progress;

/* The held-out samples, kept in memory. */
typedef struct heldout_set {
    icae_feed_step **steps; /* jobs in the order of their contexts */
    int64_t n_steps, capacity;
    int32_t stop[ICAE_TASK_COUNT]; /* what ends a restored text, and an answer */
} heldout_set;

struct trainer {
    icae_settings *settings;
    const icae_train_options *options;
    icae_train_report *report;
    icae_run_folder folder;
    icae_backend *be;
    icae_model *model;
    icae_adapter *adapter;
    icae_graph *graph;
    icae_feed *feed;
    heldout_set heldout;
    icae_optimizer optimizer;
    icae_run_state state;
    char *feed_json;   /* position after the last step */
    icae_text pending; /* records not yet in metrics.jsonl */
    double flushed_s;
    progress progress;
};

/* Whether the run was asked to stop. */
bool icae_trainer_is_signalled(const trainer *t);
/* The feed's settings as the config has them, without paths. */
icae_feed_settings icae_trainer_feed_settings(const icae_settings *settings);

/* ---- trainer_warnings.c ---- */
void icae_trainer_warn_of_settings(const icae_settings *settings);
void icae_trainer_warn_of_parts(const trainer *t); /* base, adapter and plan are there */

/* ---- step.c ---- */
icae_status icae_trainer_step(trainer *t, step_result *result, icae_error *error);
/* The jobs in the order of their contexts, which a feed that shares contexts among shuffled rows does
 * not promise. The arena of samples owns them. */
icae_status icae_trainer_sort_jobs(icae_feed_step *samples, icae_batch *sorted,
                                   icae_error *error);

/* ---- skipped.c ---- */
/* Writes the samples of a step that makes no update into the run folder, for inspection. nll [n_jobs]:
 * NaN where the step did not get to. */
icae_status icae_skipped_write(const trainer *t, const icae_batch *batch, const double *nll,
                               const step_result *result, icae_error *error);

/* ---- heldout.c ---- */
icae_status icae_heldout_open(trainer *t, icae_error *error);
void icae_heldout_close(heldout_set *set);
icae_status icae_heldout_run(trainer *t, icae_heldout *result, icae_error *error);

/* ---- report.c ---- */
void icae_report_plan(const trainer *t);
icae_status icae_report_step(trainer *t, const step_result *result, icae_error *error);
icae_status icae_report_heldout(trainer *t, const icae_heldout *result, icae_error *error);
icae_status icae_report_flush(trainer *t, icae_error *error);
/* Puts the run's numbers into adapter->summary_json. */
icae_status icae_report_summary(trainer *t, icae_error *error);
void icae_report_end(const trainer *t);

#endif
