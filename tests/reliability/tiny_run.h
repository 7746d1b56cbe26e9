/* SPDX-License-Identifier: MIT */
/* Training runs of the tests' tiny base as processes of their own, for torture, faults and soak. */
#ifndef ICAE_TESTS_TINY_RUN_H
#define ICAE_TESTS_TINY_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "icae/settings.h"
#include "icae/status.h"

/* Settings that use all that a run's state is made of: dropout, a shuffle buffer, both kinds of samples,
 * micro-batches, prefetching, evaluations; then the given assignments (NULL at the end). */
icae_status tiny_run_settings(icae_settings *settings, const char *out,
                              const char *const *assignments, icae_error *error);

/* Writes FOLDER/config.json for a run in FOLDER/run. */
icae_status tiny_run_config(const char *folder, const char *const *assignments,
                            icae_error *error);

/* Starts TRAINER FOLDER/config.json [--resume] quietly, with one thread; what it says is added to
 * FOLDER/log. */
icae_status tiny_run_start(const char *trainer, const char *folder, bool is_resuming,
                           const char *log, pid_t *pid, icae_error *error);

/* Exit code, or 128 + signal. */
int tiny_run_wait(pid_t pid);

/* Checks every checkpoint of FOLDER/run: the newest one's step, 0 when there is none, -1 when one is
 * damaged, with the sentence. */
int64_t tiny_run_newest_step(const char *folder, icae_error *error);

#endif
