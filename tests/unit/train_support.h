/* SPDX-License-Identifier: MIT */
/* Small training runs for tests: on the tiny Llama of tests/golden and a few sentences. */
#ifndef ICAE_TESTS_TRAIN_SUPPORT_H
#define ICAE_TESTS_TRAIN_SUPPORT_H

#include "icae/text.h"
#include "icae/trainer.h"

/* Settings of a tiny run that writes to `out`, then the given assignments (NULL at the end). */
void tiny_settings(icae_settings *settings, const char *out, const char *const *assignments);

/* A list of assignments, NULL at its end. */
#define RUN_WITH(...)                                                                          \
    (const char *const[]) {                                                                    \
        __VA_ARGS__, NULL                                                                      \
    }

/* One run with these settings and options; quiet. Returns its status. */
icae_status tiny_run(const char *out, const char *const *assignments,
                     const icae_train_options *options, icae_train_report *report,
                     icae_error *error);

/* A file as a 0-terminated string; the caller frees it. */
char *slurp(const char *path, size_t *bytes);
/* metrics.jsonl of a run without what the clock said; the caller frees it. */
char *metrics_without_times(const char *out);
/* Fails unless both files have the same bytes. */
void same_file(const char *a, const char *b);
/* Changes one byte in the middle of a file. */
void damage(const char *path);

#endif
