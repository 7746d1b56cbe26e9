/* SPDX-License-Identifier: MIT */
/* Reading the command line; see options.h. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "icae.h"
#include "icae/backend.h"
#include "icae/log.h"
#include "report.h"

typedef enum option_kind {
    KIND_FLAG,
    KIND_STRING,
    KIND_INTEGER,
    KIND_NUMBER,
    KIND_COMPUTE,
    KIND_GOLDEN,
    KIND_HELP,
    KIND_VERSION
} option_kind;

/* Where an option means one thing here and another there, each command has a row of its own. */
typedef struct option_row {
    char letter;              /* 0: none */
    const char *name, *value; /* value: what to call it in the help */
    unsigned group;
    option_kind kind;
    size_t place; /* in options */
    double least, most;
    const char *help;
} option_row;

#define AT(member) offsetof(options, member)
#define COUNT      0x1p31 /* more of anything is a typing error */

/* clang-format off */
static const option_row rows[] = {
    {'m', "base", "BASE", TAKES_BASE, KIND_STRING, AT(base), 0, 0, "the base model: a .gguf file or a Hugging Face folder (else $ICAE_BASE)"},
    {'a', "adapter", "ADAPTER", TAKES_ADAPTER, KIND_STRING, AT(adapter), 0, 0, "the adapter folder (else $ICAE_ADAPTER)"},
    {'o', "output", "FILE", TAKES_OUTPUT, KIND_STRING, AT(output), 0, 0, "where the slots go"},
    {0, "report", "FILE.html", TAKES_REPORT, KIND_STRING, AT(report), 0, 0, "restore the text and write what was lost of it there"},
    {0, "min-fidelity", "X", TAKES_REPORT, KIND_NUMBER, AT(min_fidelity), 0, 1, "halve spans that keep less than X of their tokens, or keep them as text"},
    {0, "refine", "N", TAKES_REPORT, KIND_INTEGER, AT(refine), 0, 100000, "make the slots better for this very text, by at most N steps of gradient descent (0)"},
    {0, "refine", "N", TAKES_EVAL, KIND_INTEGER, AT(refine), 0, 100000, "ae, random, lm, qa: refine each text's slots by at most N steps, as compress does (0)"},
    {0, "into", "FOLDER", TAKES_INTO, KIND_STRING, AT(into), 0, 0, "write each file's text there, as NAME.txt"},
    {0, "together", NULL, TAKES_INTO, KIND_FLAG, AT(is_together), 0, 0, "let the base read all spans of a text at once"},
    {0, "together", NULL, TAKES_EVAL, KIND_FLAG, AT(is_together), 0, 0, "ae, random: let the base read all spans of a text at once"},
    {'n', "length", "TOKENS", TAKES_LENGTH, KIND_INTEGER, AT(length), 1, COUNT, "write at most so many tokens"},
    {0, "data", "FILE", TAKES_EVAL, KIND_STRING, AT(data), 0, 0, "texts to evaluate on: .jsonl or .txt, also .gz, or a folder or pattern of them; qa: questions"},
    {0, "questions", "FILE", TAKES_EVAL, KIND_STRING, AT(questions), 0, 0, "all: questions for qa, JSON lines with input, prompt, answer"},
    {0, "out", "DIR", TAKES_EVAL, KIND_STRING, AT(out_folder), 0, 0, "write samples, tables and a page there, or go on with what is there"},
    {0, "out", "DIR", TAKES_BENCH, KIND_STRING, AT(out_folder), 0, 0, "measure more, and write all tables and pictures there"},
    {0, "tokens", "N", TAKES_EVAL, KIND_INTEGER, AT(tokens), 1, COUNT, "not latency: cut contexts to N tokens (one span, slots * rate; ppl: whole texts); qa: pass over longer ones"},
    {0, "continuation", "N", TAKES_EVAL, KIND_INTEGER, AT(continuation), 2, COUNT, "lm: tokens to predict behind the context (128)"},
    {0, "skip", "N", TAKES_EVAL, KIND_INTEGER, AT(skip), 1, COUNT, "lm: first tokens of the continuation that are not scored (8)"},
    {0, "samples", "N", TAKES_EVAL, KIND_INTEGER, AT(samples), 0, COUNT, "the first N samples only; 0 = all (100; ppl: all); latency: rounds (3)"},
    {0, "batch", "N", TAKES_EVAL, KIND_INTEGER, AT(batch), 1, 4096, "samples worked on side by side (8)"},
    {0, "window", "N", TAKES_EVAL, KIND_INTEGER, AT(window), 2, COUNT, "ppl: tokens that the base sees at a time (1024, or its context)"},
    {0, "stride", "N", TAKES_EVAL, KIND_INTEGER, AT(stride), 1, COUNT, "ppl: how far the window moves (half of it)"},
    {0, "generate", "N", TAKES_EVAL, KIND_INTEGER, AT(generate), 1, COUNT, "qa: longest answer; latency: tokens written (128)"},
    {0, "grid", "BxL,...", TAKES_EVAL, KIND_STRING, AT(grid), 0, 0, "latency: B texts of L tokens (8x512,8x2048,32x512)"},
    {0, "golden", "DIR", TAKES_GOLDEN, KIND_GOLDEN, 0, 0, 0, "a folder of expected numbers; may be given several times"},
    {0, "steps", "N", TAKES_BENCH, KIND_INTEGER, AT(steps), 0, 10000, "training rounds to time, after one to warm up; 0 = none (3)"},
    {0, "lengths", "N,N,...", TAKES_BENCH, KIND_STRING, AT(lengths), 0, 0, "train on texts of so many tokens, in batches of 8 (eight of 128)"},
    {0, "lengths", "N,N,...", TAKES_EVAL, KIND_STRING, AT(lengths), 0, 0, "ae, lm: a line for texts of each of these numbers of tokens"},
    {0, "checkpoint", NULL, TAKES_BENCH, KIND_FLAG, AT(is_checkpointed), 0, 0, "recompute blocks in backward: less memory, more work"},
    {0, "quick", NULL, TAKES_BENCH, KIND_FLAG, AT(is_quick), 0, 0, "the same tables in half a minute, from less work"},
    {0, "to", "FORMAT", TAKES_CONVERT, KIND_STRING, AT(to), 0, 0, "what TO shall be, where its name's ending does not say it"},
    {0, "dtype", "TYPE", TAKES_CONVERT, KIND_STRING, AT(dtype), 0, 0, "f32, bf16 or f16: type of the tensors written (f32)"},
    {0, "task", "TASK", TAKES_CONVERT, KIND_STRING, AT(task), 0, 0, "slots: ae to restore the text, lm to continue it (ae)"},
    {0, "base-name", "NAME", TAKES_CONVERT, KIND_STRING, AT(base_name), 0, 0, "peft: what it shall open as base (the full path of BASE)"},
    {0, "memory", "FILE", TAKES_CONVERT, KIND_STRING, AT(memory), 0, 0, "from peft, gguf: the memory table, where it is not beside the LoRA"},
    {0, "slots", "N", TAKES_CONVERT, KIND_INTEGER, AT(memory_slots), 1, 65536, "from peft, gguf: memory slots, where the table does not say it"},
    {0, "rate", "N", TAKES_REPORT, KIND_INTEGER, AT(rate), 1, 65536, "tokens a slot, instead of the adapter's"},
    {0, "rate", "N", TAKES_EVAL, KIND_INTEGER, AT(rate), 1, 65536, "not ppl: tokens a slot, instead of the adapter's"},
    {0, "rate", "N", TAKES_CONVERT, KIND_INTEGER, AT(rate), 1, 65536, "from peft, gguf, released weights: tokens a slot, where they do not say it"},
    {0, "alpha", "X", TAKES_CONVERT, KIND_NUMBER, AT(alpha), 1e-6, 1e6, "from released weights: LoRA's alpha (32)"},
    {0, "layout", "LAYOUT", TAKES_CONVERT, KIND_STRING, AT(layout), 0, 0, "from peft, gguf: uniform or append, where the table does not say it"},
    {0, "force", NULL, TAKES_CONVERT | TAKES_INTO | TAKES_REPORT, KIND_FLAG, AT(is_forced), 0, 0, "replace what is there already"},
    {'t', "threads", "N", TAKES_THREADS, KIND_INTEGER, AT(threads), 1, 1024, "threads (all processors)"},
    {0, "compute", "TYPE", TAKES_COMPUTE, KIND_COMPUTE, AT(compute), 0, 0, "f32, bf16 or auto: the type of products with the base (auto)"},
    {0, "temperature", "X", TAKES_SAMPLING, KIND_NUMBER, AT(temperature), 0, 1000, "draw tokens at random, the larger the more freely; 0 = always the likeliest (0; 1 with any of the next three)"},
    {0, "top-p", "X", TAKES_SAMPLING, KIND_NUMBER, AT(top_p), 0.001, 1, "draw from the likeliest tokens of this total probability"},
    {0, "top-k", "N", TAKES_SAMPLING, KIND_INTEGER, AT(top_k), 1, COUNT, "draw from the N likeliest tokens"},
    {0, "seed", "N", TAKES_SAMPLING, KIND_INTEGER, AT(draw_seed), 0, 0x1p53, "draw other tokens with another number (0)"},
    {0, "seed", "N", TAKES_EVAL, KIND_INTEGER, AT(seed), 0, 0x1p53, "ae, random, latency: of all random numbers (0)"},
    {0, "seed", "N", TAKES_BENCH, KIND_INTEGER, AT(seed), 0, 0x1p53, "of all random numbers (0)"},
    {0, "json", NULL, TAKES_COMMON, KIND_FLAG, AT(is_json), 0, 0, "one JSON object on standard output"},
    {'q', "quiet", NULL, TAKES_COMMON, KIND_FLAG, AT(is_quiet), 0, 0, "warnings and errors only on standard error"},
    {'v', "verbose", NULL, TAKES_COMMON, KIND_FLAG, AT(is_verbose), 0, 0, "more on standard error"},
    {'h', "help", NULL, TAKES_COMMON, KIND_HELP, 0, 0, 0, "this page"},
    {0, "version", NULL, TAKES_COMMON, KIND_VERSION, 0, 0, 0, "the version"},
};
/* clang-format on */
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static bool is_taken(const command *self, const option_row *row) {
    return row->group & (self->takes | TAKES_COMMON);
}

void options_help(FILE *out, const command *self) {
    fprintf(out, "usage: icae %s %s\n\n%s.\n", self->name, self->usage, self->summary);
    if (self->details) fprintf(out, "\n%s", self->details);
    fputs("\noptions:\n", out);
    for (int i = 0; i < N_ROWS; i++) {
        if (!is_taken(self, &rows[i])) continue;
        char left[64], letter[4] = "   ";
        if (rows[i].letter) snprintf(letter, sizeof letter, "-%c,", rows[i].letter);
        snprintf(left, sizeof left, "%s --%s%s%s", letter, rows[i].name,
                 rows[i].value ? " " : "", rows[i].value ? rows[i].value : "");
        fprintf(out, "  %-24s %s\n", left, rows[i].help);
    }
}

ICAE_PRINTF(3, 0)
static int usage_error_of(const char *command_name, const char *usage, const char *format,
                          va_list arguments) {
    fprintf(stderr, "icae %s: ", command_name);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\nusage: icae %s %s\n(icae %s --help tells more)\n", command_name, usage,
            command_name);
    return EXIT_USAGE;
}

int usage_error(const char *command_name, const char *usage, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int code = usage_error_of(command_name, usage, format, arguments);
    va_end(arguments);
    return code;
}

static int wrong(const command *self, const char *format, ...) ICAE_PRINTF(2, 3);
static int wrong(const command *self, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int code = usage_error_of(self->name, self->usage, format, arguments);
    va_end(arguments);
    return code;
}

/* ---- one option ---- */

static const option_row *find_letter(char letter) {
    for (int i = 0; i < N_ROWS; i++) {
        if (rows[i].letter && rows[i].letter == letter) return &rows[i];
    }
    return NULL;
}

/* The command's own row of that name; else another's, which the command does not take. */
static const option_row *find_name(const command *self, const char *name, size_t length) {
    const option_row *found = NULL;
    for (int i = 0; i < N_ROWS && !(found && is_taken(self, found)); i++) {
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0)
            found = &rows[i];
    }
    return found;
}

static int read_number(options *given, const command *self, const option_row *row,
                       const char *value) {
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    bool is_whole = row->kind == KIND_NUMBER || floor(number) == number;
    if (end == value || *end || errno || !isfinite(number) || !is_whole ||
        number < row->least || number > row->most) {
        return wrong(self, "--%s %s: expected %s from %.16g to %.16g", row->name, value,
                     row->kind == KIND_NUMBER ? "a number" : "a whole number", row->least,
                     row->most);
    }
    char *place = (char *)given + row->place;
    if (row->kind == KIND_NUMBER) {
        memcpy(place, &number, sizeof number);
    } else {
        int64_t integer = (int64_t)number;
        memcpy(place, &integer, sizeof integer);
    }
    return -1;
}

static int set_option(options *given, const command *self, const option_row *row,
                      const char *value) {
    char *place = (char *)given + row->place;
    switch (row->kind) {
    case KIND_FLAG:
        *(bool *)place = true;
        return -1;
    case KIND_STRING:
        if (!*value) return wrong(self, "--%s is empty", row->name);
        memcpy(place, &value, sizeof value);
        return -1;
    case KIND_INTEGER:
    case KIND_NUMBER:
        return read_number(given, self, row, value);
    case KIND_COMPUTE: {
        icae_compute unused;
        if (!icae_compute_from_name(value, &unused)) {
            return wrong(self, "--compute %s: expected f32, bf16 or auto", value);
        }
        memcpy(place, &value, sizeof value);
        return -1;
    }
    case KIND_GOLDEN:
        if (given->n_golden == MOST_GOLDEN) {
            return wrong(self, "more than %d golden folders", MOST_GOLDEN);
        }
        given->golden[given->n_golden++] = value;
        return -1;
    case KIND_HELP:
        options_help(stdout, self);
        return finish_output();
    case KIND_VERSION:
        printf("icae %s\n", icae_version());
        return finish_output();
    }
    return -1;
}

/* ---- the whole line ---- */

static int read_one(options *given, const command *self, int argc, char **argv, int *at) {
    const char *word = argv[*at], *value = NULL;
    const option_row *row;
    if (word[1] == '-') {
        const char *equals = strchr(word, '=');
        row =
            find_name(self, word + 2, equals ? (size_t)(equals - word - 2) : strlen(word + 2));
        if (equals) value = equals + 1;
    } else {
        row = find_letter(word[1]);
        if (word[2]) value = word + 2;
    }
    if (!row || !is_taken(self, row)) {
        return wrong(self, "option %s is unknown%s", word, row ? " to this command" : "");
    }
    bool wants_value = row->value != NULL;
    if (!wants_value && value) return wrong(self, "option --%s takes no value", row->name);
    if (wants_value && !value) {
        if (*at + 1 >= argc) {
            return wrong(self, "option --%s wants a value: %s", row->name, row->value);
        }
        value = argv[++*at];
    }
    return set_option(given, self, row, value);
}

static int check_words(const options *given, const command *self) {
    if ((self->needs & TAKES_BASE) && !given->base) {
        return wrong(self, "which base model? Give -m BASE, or set ICAE_BASE");
    }
    if ((self->needs & TAKES_ADAPTER) && !given->adapter) {
        return wrong(self, "which adapter? Give -a ADAPTER, or set ICAE_ADAPTER");
    }
    if (given->n_words < self->least_words) {
        return wrong(self, "%d more %s wanted", self->least_words - given->n_words,
                     self->least_words - given->n_words == 1 ? "argument is" : "arguments are");
    }
    if (self->most_words >= 0 && given->n_words > self->most_words) {
        return wrong(self, "\"%s\" is one argument too many", given->words[self->most_words]);
    }
    return -1;
}

static const char *from_environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* Words with anything but these are quoted. */
static bool is_plain(const char *word) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:+@%";
    return *word && word[strspn(word, plain)] == 0;
}

static void keep_command_line(options *given, const command *self, int argc, char **argv) {
    icae_text line = {0};
    icae_text_printf(&line, "icae %s", self->name);
    for (int i = 0; i < argc; i++) {
        icae_text_append_string(&line, is_plain(argv[i]) ? " " : " '");
        for (const char *c = argv[i]; *c; c++) {
            if (*c == '\'')
                icae_text_append_string(&line, "'\\''");
            else
                icae_text_append_char(&line, *c);
        }
        if (!is_plain(argv[i])) icae_text_append_char(&line, '\'');
    }
    size_t room = sizeof given->command_line - 4;
    snprintf(given->command_line, sizeof given->command_line, "%.*s%s", (int)room,
             icae_text_string(&line), line.length > room ? "..." : "");
    icae_text_release(&line);
}

/* Threads without a processor of their own wait for each other at the end of every operation. */
static void warn_of_threads(int64_t n_threads) {
    int n_processors = omp_get_num_procs();
    if (n_threads <= n_processors) return;
    icae_log_warning("-t %lld: more threads than processors (%d) are far slower; without -t "
                     "every processor has one",
                     (long long)n_threads, n_processors);
}

int options_read(options *given, const command *self, int argc, char **argv,
                 const char **words) {
    *given = (options){.tokens = -1,
                       .continuation = -1,
                       .samples = -1,
                       .batch = -1,
                       .window = -1,
                       .stride = -1,
                       .skip = -1,
                       .generate = -1,
                       .min_fidelity = -1,
                       .refine = -1,
                       .temperature = -1,
                       .draw_seed = -1,
                       .steps = 3,
                       .words = words};
    keep_command_line(given, self, argc, argv);
    if (self->takes & TAKES_BASE) given->base = from_environment("ICAE_BASE");
    if (self->takes & TAKES_ADAPTER) given->adapter = from_environment("ICAE_ADAPTER");
    bool is_rest = false; /* behind "--" nothing is an option */
    for (int i = 0; i < argc; i++) {
        if (!is_rest && strcmp(argv[i], "--") == 0) {
            is_rest = true;
        } else if (!is_rest && argv[i][0] == '-' && argv[i][1]) {
            int code = read_one(given, self, argc, argv, &i);
            if (code >= 0) return code;
        } else {
            words[given->n_words++] = argv[i];
        }
    }
    if (given->is_quiet) icae_log_set_level(ICAE_LOG_QUIET);
    if (given->is_verbose) icae_log_set_level(ICAE_LOG_VERBOSE);
    int code = check_words(given, self);
    if (code < 0) warn_of_threads(given->threads);
    return code;
}
