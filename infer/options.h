/* SPDX-License-Identifier: MIT */
/*
 * The command line of `icae`: which commands and options there are, and what the user gave.
 *
 * Every fact stands once: commands in main.c's table, options in options.c's. A command names the
 * options that mean something to it, and refuses all others; the common ones are taken everywhere.
 */
#ifndef ICAE_INFER_OPTIONS_H
#define ICAE_INFER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "icae/status.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { MOST_GOLDEN = 32 };

/* Groups of options; a command takes COMMON and its own. */
enum {
    TAKES_COMMON = 1 << 0,
    TAKES_BASE = 1 << 1,
    TAKES_ADAPTER = 1 << 2,
    TAKES_OUTPUT = 1 << 3,
    TAKES_LENGTH = 1 << 4,
    TAKES_EVAL = 1 << 5,
    TAKES_GOLDEN = 1 << 6,
    TAKES_BENCH = 1 << 7,
    TAKES_CONVERT = 1 << 8,
    TAKES_REPORT = 1 << 9,
    TAKES_INTO = 1 << 10,
    TAKES_THREADS = 1 << 11,
    TAKES_COMPUTE = 1 << 12,
    TAKES_SAMPLING = 1 << 13
};

typedef struct options {
    const char *base, *adapter, *output, *report, *into;
    int64_t length; /* -n, 0: not given */
    int64_t threads;
    const char *compute; /* "auto", "f32", "bf16"; NULL: not given */
    int64_t seed;        /* eval, bench */
    int64_t draw_seed;   /* of sampling; -1: not given */
    bool is_json, is_quiet, is_verbose;
    double temperature;                               /* -1: not given */
    double top_p, alpha;                              /* 0: not given */
    double min_fidelity;                              /* compress; -1: not given */
    int64_t refine;                                   /* compress, eval; -1: not given */
    int64_t top_k;                                    /* 0: not given */
    const char *data, *out_folder, *questions, *grid; /* eval */
    int64_t tokens, continuation, samples, batch, window, stride, skip; /* -1: not given */
    int64_t generate;                                                   /* -1: not given */
    const char *golden[MOST_GOLDEN];
    int64_t n_golden;
    int64_t steps;       /* bench */
    const char *lengths; /* bench and eval */
    bool is_checkpointed, is_quick;
    bool is_together;                                            /* reconstruct, eval */
    const char *to, *dtype, *task, *base_name, *memory, *layout; /* convert */
    int64_t memory_slots, rate; /* 0: not given; compress and eval take the rate, too */
    bool is_forced;
    const char *const *words; /* what is not an option */
    int n_words;
    char command_line[2048]; /* as a shell would take it; "..." stands for what did not fit */
} options;

typedef struct command {
    const char *name;
    const char *usage;           /* behind "icae NAME " */
    const char *summary;         /* one line */
    const char *details;         /* paragraphs for --help, or NULL */
    unsigned takes, needs;       /* groups of options; BASE and ADAPTER may be needed */
    int least_words, most_words; /* most: -1 = any number */
    int (*run)(const options *given);
} command;

/* Reads argv behind the command's name; words is filled with what is not an option (argc entries).
 * Returns -1 to go on, or an exit code: EXIT_DONE after --help and --version, EXIT_USAGE with the
 * reason and the right usage on stderr. */
int options_read(options *given, const command *self, int argc, char **argv,
                 const char **words);

/* "usage: icae compress ..." and every option that the command takes. */
void options_help(FILE *out, const command *self);

/* What is wrong with the words of a command, the usage, and EXIT_USAGE. */
int usage_error(const char *command_name, const char *usage, const char *format, ...)
    ICAE_PRINTF(3, 4);

#endif
