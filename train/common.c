/* SPDX-License-Identifier: MIT */
/*
 * Arguments -> settings -> icae_train -> exit code. The first SIGINT, SIGTERM or SIGHUP (its terminal was
 * closed) asks the trainer to finish its step, save and return; a second one ends the process at once.
 * What was ignored when the program started (nohup, or a shell's background) stays ignored.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "icae/json.h"
#include "icae/log.h"
#include "icae/startup.h"
#include "icae/trainer.h"

enum { EXIT_USAGE = 2 };

static volatile sig_atomic_t stop_signal;

static void on_signal(int number) {
    if (stop_signal) _exit(128 + number);
    stop_signal = number;
    /* Who read what we say ("| tee log") may have got the signal, too: it must not end us before we saved. */
    signal(SIGPIPE, SIG_IGN);
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction before;
        sigaction(numbers[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(numbers[i], &action, NULL);
    }
}

typedef struct arguments {
    const char *config;
    bool is_resuming, allows_changes, is_dry_run, is_json;
    int exit_code; /* -1: go on */
} arguments;

static int usage_error(const train_program *program, const char *format, const char *word) {
    fprintf(stderr, "%s: ", program->name);
    /* the formats are those below, each with one %s */
    for (const char *c = format; *c; c++) {
        if (c[0] == '%' && c[1] == 's') {
            fputs(word, stderr);
            c++;
        } else {
            fputc(*c, stderr);
        }
    }
    fprintf(stderr, "; see %s --help\n", program->name);
    return EXIT_USAGE;
}

/* Options that stand for a setting: "-t 2" is "--set train.threads=2". */
static const struct {
    const char *option, *key;
} shorthands[] = {{"--set", ""},
                  {"-t", "train.threads="},
                  {"--threads", "train.threads="},
                  {"--seed", "train.seed="},
                  {"--compute", "train.compute="}};

/* Tries argv[*i] as one of those; assignments are kept for later, as they come after the file. */
static bool take_assignment(int argc, char **argv, int *i, char **assignments, int *count) {
    for (size_t s = 0; s < sizeof shorthands / sizeof shorthands[0]; s++) {
        size_t length = strlen(shorthands[s].option);
        const char *value = NULL;
        if (!strcmp(argv[*i], shorthands[s].option)) {
            if (*i + 1 >= argc) return false;
            value = argv[++*i];
        } else if (length > 2 && !strncmp(argv[*i], shorthands[s].option, length) &&
                   argv[*i][length] == '=') {
            value = argv[*i] + length + 1;
        } else if (length == 2 && !strncmp(argv[*i], shorthands[s].option, length)) {
            value = argv[*i] + length; /* -t2 */
        } else {
            continue;
        }
        if (asprintf(&assignments[*count], "%s%s", shorthands[s].key, value) < 0) return false;
        ++*count;
        return true;
    }
    return false;
}

static arguments parse(const train_program *program, int argc, char **argv, char **assignments,
                       int *n_assignments) {
    arguments args = {.exit_code = -1};
    for (int i = 1; i < argc && args.exit_code < 0; i++) {
        const char *word = argv[i];
        if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
            fputs(program->help, stdout);
            args.exit_code = EXIT_SUCCESS;
        } else if (!strcmp(word, "--version")) {
            printf("%s %s\n", program->name, ICAE_VERSION);
            args.exit_code = EXIT_SUCCESS;
        } else if (!strcmp(word, "--resume")) {
            args.is_resuming = true;
        } else if (!strcmp(word, "--allow-changes")) {
            args.allows_changes = true;
        } else if (!strcmp(word, "--dry-run")) {
            args.is_dry_run = true;
        } else if (!strcmp(word, "--json")) {
            args.is_json = true;
        } else if (!strcmp(word, "-q") || !strcmp(word, "--quiet")) {
            icae_log_set_level(ICAE_LOG_QUIET);
        } else if (!strcmp(word, "-v") || !strcmp(word, "--verbose")) {
            icae_log_set_level(ICAE_LOG_VERBOSE);
        } else if (take_assignment(argc, argv, &i, assignments, n_assignments)) {
            continue;
        } else if (word[0] == '-' && word[1]) {
            args.exit_code = usage_error(program, "%s is unknown, or lacks its value", word);
        } else if (args.config) {
            args.exit_code = usage_error(program, "'%s': one config is enough", word);
        } else {
            args.config = word;
        }
    }
    if (args.exit_code < 0 && args.allows_changes && !args.is_resuming) {
        args.exit_code =
            usage_error(program, "%s has no meaning without --resume", "--allow-changes");
    }
    if (args.exit_code < 0 && !args.config) {
        args.exit_code = usage_error(program, "%s is missing", "CONFIG.json");
    }
    return args;
}

/* ---- results on stdout ---- */

static void put(icae_text *out, const char *name, double value) {
    icae_text_printf(out, ", \"%s\": ", name);
    icae_json_write_number(out, value);
}

static void put_plan(icae_text *out, const icae_settings *settings,
                     const icae_train_report *report) {
    const icae_plan *plan = &report->plan;
    icae_text_printf(out, "{\"frozen\": %lld, \"trained\": %lld", (long long)plan->frozen,
                     (long long)plan->trained);
    put(out, "context_tokens_per_step", (double)plan->step.context_tokens);
    put(out, "useful_flop_per_step", plan->work);
    put(out, "predicted_peak_bytes", (double)plan->peak_bytes);
    put(out, "micro_batch", (double)settings->train.micro_batch);
    icae_text_printf(out, ", \"checkpointing\": %s",
                     settings->train.checkpointing ? "true" : "false");
    icae_text_printf(out, ", \"compute\": \"%s\"", icae_compute_names[settings->train.compute]);
    put(out, "processor_flops", report->peak);
    put(out, "expected_step_seconds", report->step_s);
    icae_text_append_char(out, '}');
}

static void put_heldout(icae_text *out, const icae_heldout *heldout) {
    icae_text_printf(out, "{\"n\": %lld", (long long)heldout->samples);
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        if (!heldout->targets[task]) continue;
        char name[32];
        snprintf(name, sizeof name, "%s_loss", icae_task_names[task]);
        put(out, name, heldout->loss[task]);
    }
    put(out, "restored", (double)heldout->restored);
    put(out, "bleu4", heldout->bleu4);
    put(out, "prefix_em", heldout->prefix_em);
    put(out, "exact", (double)heldout->exact);
    icae_text_append_char(out, '}');
}

static void print_json(const icae_settings *settings, const icae_train_report *report) {
    icae_text out = {0};
    icae_text_printf(&out,
                     "{\"step\": %lld, \"skipped\": %lld, \"cut\": %lld, "
                     "\"passed_over\": %lld, \"broken_lines\": %lld, \"out\": ",
                     (long long)report->step, (long long)report->skipped,
                     (long long)report->cut, (long long)report->passed_over,
                     (long long)report->broken_lines);
    icae_json_write_string(&out, settings->out, strlen(settings->out));
    if (report->seconds > 0) {
        put(&out, "seconds", report->seconds);
        put(&out, "tokens_per_second", report->context_tokens / report->seconds);
        put(&out, "useful_flops", report->work / report->seconds);
        put(&out, "peak_activation_bytes", (double)report->peak_activations);
        put(&out, "peak_rss_bytes", (double)report->peak_rss);
    }
    icae_text_append_string(&out, ", \"plan\": ");
    put_plan(&out, settings, report);
    if (report->has_heldout) {
        icae_text_append_string(&out, ", \"heldout_before\": ");
        put_heldout(&out, &report->before);
        icae_text_append_string(&out, ", \"heldout_after\": ");
        put_heldout(&out, &report->after);
    }
    icae_text_append_char(&out, '}');
    puts(icae_text_string(&out));
    icae_text_release(&out);
}

static void print_plan(const icae_settings *settings, const icae_train_report *report) {
    const icae_plan *plan = &report->plan;
    double all = (double)(plan->frozen + plan->trained);
    printf("parameters   %lld frozen, %lld trained (%.2f %%)\n", (long long)plan->frozen,
           (long long)plan->trained, 100 * (double)plan->trained / all);
    printf("peak memory  %.2f GB predicted\n", (double)plan->peak_bytes / 1e9);
    for (int i = 0; i < ICAE_MEMORY_COUNT; i++) {
        printf("%12.2f GB %s\n", (double)plan->memory[i] / 1e9, icae_memory_names[i]);
    }
    if (settings->memory_budget) {
        printf("budget       %.2f GB: train.micro_batch %lld, train.checkpointing %s\n",
               (double)settings->memory_budget / 1e9, (long long)settings->train.micro_batch,
               settings->train.checkpointing ? "true" : "false");
    }
    printf("a step       at most %lld context tokens in %lld sample%s; %lld encoder rows, %lld "
           "decoder rows, %lld targets\n",
           (long long)plan->step.context_tokens, (long long)settings->train.batch,
           settings->train.batch == 1 ? "" : "s", (long long)plan->step.encoder_tokens,
           (long long)plan->step.decoder_tokens, (long long)plan->step.targets);
    printf("work         %.1f useful GFLOP a step\n", plan->work / 1e9);
    if (report->step_s > 0) {
        icae_text time = {0};
        icae_train_estimate(&time, report->step_s, settings->train.steps);
        printf("time         %s\n", icae_text_string(&time));
        icae_text_release(&time);
    }
}

/* ---- the program ---- */

/* *code becomes EXIT_USAGE when the command line, not the file, is at fault. */
static icae_status read_settings(const train_program *program, const arguments *args,
                                 char **assignments, int n_assignments, icae_settings *settings,
                                 int *code, icae_error *error) {
    icae_settings_init(settings);
    if (program->is_instruct) settings->objective.kind = ICAE_OBJECTIVE_INSTRUCT;
    icae_status status = icae_settings_read(settings, args->config, error);
    for (int i = 0; i < n_assignments && !status; i++) {
        status = icae_settings_set(settings, assignments[i], error);
        if (status) *code = EXIT_USAGE;
    }
    bool is_instruct = settings->objective.kind == ICAE_OBJECTIVE_INSTRUCT;
    if (!status && is_instruct != program->is_instruct) {
        status = icae_fail(error, ICAE_INVALID,
                           "%s: objective.kind is \"%s\", which is the business of %s",
                           args->config, icae_objective_names[settings->objective.kind],
                           is_instruct ? "icae-finetune" : "icae-pretrain");
    }
    if (!status && program->is_instruct && !*settings->adapter.start) {
        status =
            icae_fail(error, ICAE_INVALID,
                      "%s: adapter.start: missing; name the pretrained adapter's folder to "
                      "start from",
                      args->config);
    }
    return status;
}

/* A word as a shell reads it back: inside '...' everything stands for itself but the quote. */
static void print_word(const char *word) {
    bool is_plain = *word && !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST"
                                                "UVWXYZ0123456789_-./=+,:@%")];
    fputs(is_plain ? " " : " '", stderr);
    for (; *word; word++) {
        if (*word == '\'')
            fputs("'\\''", stderr);
        else
            fputc(*word, stderr);
    }
    if (!is_plain) fputc('\'', stderr);
}

/* The command that goes on with the run, to be pasted into a shell. Before the first step there is
 * nothing to go on from: the same command starts again. */
static void print_resume(const train_program *program, const arguments *args, bool has_steps,
                         int argc, char **argv) {
    fputs("go on with: ", stderr);
    print_word(argc > 0 ? argv[0] : program->name); /* the way to it that was taken */
    for (int i = 1; i < argc; i++)
        print_word(argv[i]);
    fputs(has_steps && !args->is_resuming ? " --resume\n" : "\n", stderr);
}

static int finish_output(const train_program *program) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_SUCCESS;
    fprintf(stderr, "%s: standard output could not be written: %s\n", program->name,
            strerror(errno));
    return EXIT_FAILURE;
}

static int run(const train_program *program, const arguments *args, char **assignments,
               int n_assignments, int argc, char **argv) {
    icae_error error = {0};
    icae_settings settings;
    icae_train_report report = {0};
    int code = EXIT_FAILURE;
    icae_status status =
        read_settings(program, args, assignments, n_assignments, &settings, &code, &error);
    if (!status) {
        catch_signals();
        icae_train_options options = {.is_resuming = args->is_resuming,
                                      .allows_changes = args->allows_changes,
                                      .is_dry_run = args->is_dry_run,
                                      .signal = &stop_signal};
        status = icae_train(&settings, &options, &report, &error);
    }
    if (status) {
        fprintf(stderr, "%s: %s\n", program->name, error.message);
        if (status == ICAE_INTERRUPTED) {
            print_resume(program, args, report.step > 0, argc, argv);
        }
    } else if (args->is_json) {
        print_json(&settings, &report);
    } else if (args->is_dry_run) {
        print_plan(&settings, &report);
    }
    icae_settings_release(&settings);
    if (status == ICAE_INTERRUPTED) return 128 + (stop_signal ? (int)stop_signal : SIGINT);
    return status ? code : finish_output(program);
}

int train_main(const train_program *program, int argc, char **argv) {
    icae_startup_tune(argv);
    char **assignments = calloc((size_t)argc + 1, sizeof *assignments);
    if (!assignments) {
        fprintf(stderr, "%s: not enough memory\n", program->name);
        return EXIT_FAILURE;
    }
    int n_assignments = 0;
    arguments args = parse(program, argc, argv, assignments, &n_assignments);
    int code = args.exit_code == EXIT_SUCCESS ? finish_output(program) : args.exit_code;
    if (code < 0) code = run(program, &args, assignments, n_assignments, argc, argv);
    for (int i = 0; i < n_assignments; i++)
        free(assignments[i]);
    free(assignments);
    return code;
}
