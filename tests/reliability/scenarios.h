/* SPDX-License-Identifier: MIT */
/* What faults.c lets fail, and the power cuts beside it. */
#ifndef ICAE_TESTS_SCENARIOS_H
#define ICAE_TESTS_SCENARIOS_H

#include <stdbool.h>

#include "icae.h"
#include "icae/adapter.h"
#include "icae/checkpoint.h"

/* What scenarios share: opened once in each process. */
typedef struct scenario_state {
    char folder[2048];
    icae_backend *be;
    icae_model *model;
    icae_adapter *adapters[2]; /* two that differ, as a training run has them */
    icae_run_state run;
    icae_base *base;
    icae_session *session;
    icae_slots *slots;
    char *reference; /* bytes of what an undisturbed run leaves */
    size_t reference_bytes;
} scenario_state;

typedef icae_status scenario_step(scenario_state *state, icae_error *error);

typedef struct scenario {
    const char *name;
    bool is_saving;         /* short enough to let every single call fail */
    scenario_step *prepare; /* before every run, undisturbed. May be NULL */
    scenario_step *run;
    /* What the files must be like after it, whatever `status` it gave. May be NULL */
    icae_status (*check)(scenario_state *state, icae_status status, icae_error *error);
} scenario;

/* Each ends with name = NULL. format_scenarios: readers and writers of src/formats, which need nothing of the
 * state but its folder. training_scenarios: whole runs; opening their base, which has a row of its own, is left
 * in peace. */
extern const scenario scenarios[], format_scenarios[], exchange_scenarios[], run_scenarios[],
    training_scenarios[];

extern const char scenario_adapter[]; /* the golden adapter's folder */
/* "FOLDER/name" in a ring of buffers. */
const char *scenario_path(const scenario_state *state, const char *name);
/* An error of one sentence unless the condition holds. */
icae_status scenario_expect(bool condition, const char *what, icae_error *error);

icae_status scenario_open(scenario_state *state, const char *folder, icae_error *error);
void scenario_close(scenario_state *state); /* and what the tables keep */
void exchange_scenarios_close(void);
void run_scenarios_close(void);

/* Replays a training run with checkpoints, a stop and a resume on a disk that forgets: after each event
 * and for each kind of loss the newest checkpoint whose save had returned must be there. Exit code. */
int power_cuts(const char *folder);

#endif
