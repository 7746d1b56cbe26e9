/* SPDX-License-Identifier: MIT */
/* What the two training programs share: arguments, signals, exit codes. */
#ifndef ICAE_TRAIN_COMMON_H
#define ICAE_TRAIN_COMMON_H

#include <stdbool.h>

typedef struct train_program {
    const char *name; /* "icae-pretrain" */
    const char *help; /* the whole page */
    bool is_instruct; /* fine-tuning rows instead of texts */
} train_program;

/* Runs the program; what main returns: 0 done, 1 failed, 2 wrong usage, 129/130/143
 * stopped after saving. */
int train_main(const train_program *program, int argc, char **argv);

#endif
