/* SPDX-License-Identifier: MIT */
/* Running the built programs from tests. */
#ifndef ICAE_TESTS_COMMAND_H
#define ICAE_TESTS_COMMAND_H

#include <sys/types.h>

#include "icae/status.h"

#include "suites.h"

/* Small enough to do everything in a moment. */
#define TINY_BASE    "tests/golden/llama/model"
#define TINY_ADAPTER "tests/golden/llama/adapter"
/* As small, of another architecture. */
#define QWEN3_BASE    "tests/golden/qwen3/model"
#define QWEN3_ADAPTER "tests/golden/qwen3/adapter"

typedef struct outcome {
    int code;        /* exit code; 128 + signal when killed by one */
    char *out, *err; /* what it printed; live until the test's process ends */
} outcome;

/* A shell command, with the variable ICAE standing for the built program and no ICAE_BASE or
 * ICAE_ADAPTER around. Its output passes through files in `folder`. */
outcome run_in(const char *folder, const char *format, ...) ICAE_PRINTF(2, 3);

/* A program that is talked to while it runs. */
typedef struct talk {
    pid_t pid;
    int to, from; /* its standard input and output */
} talk;
talk talk_begin(const char *const *arguments); /* NULL-terminated, the path first */
int talk_end(talk *t);                         /* closes both, waits; as outcome.code */

#endif
