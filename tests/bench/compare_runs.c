/* SPDX-License-Identifier: MIT */
/*
 * Up to six runs in one picture.
 *
 * compare-runs OUT.svg REACH NAME=METRICS.jsonl...: the AE losses of runs on the same samples, each a
 * running mean over 2 REACH + 1 steps, held-out losses as points. On standard output, as rows of a
 * Markdown table: the mean difference of each run to the first over all steps both have, the standard
 * error of that mean, and both held-out losses at the end.
 *
 * compare-runs --heldout TITLE OUT.svg NAME=METRICS.jsonl...: held-out AE losses over the context tokens
 * read until then, of runs that may differ in anything; no table.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/json.h"
#include "icae/lines.h"
#include "icae/memory.h"
#include "icae/plot.h"

enum { MOST_RUNS = 6, MOST_STEPS = 100000, LINE_LIMIT = 1 << 20 };

/* One loss in the order of the file. */
typedef struct column {
    double *step, *value;
    size_t n;
} column;

typedef struct run {
    const char *name;
    column train, heldout;
    double *smooth;
    double *tokens; /* [heldout.n] context tokens before each held-out loss */
} run;

static bool column_init(column *c, icae_arena *arena) {
    c->step = icae_arena_array(arena, MOST_STEPS, sizeof *c->step);
    c->value = icae_arena_array(arena, MOST_STEPS, sizeof *c->value);
    return c->step && c->value;
}

static bool run_init(run *r, icae_arena *arena) {
    r->smooth = icae_arena_array(arena, MOST_STEPS, sizeof *r->smooth);
    r->tokens = icae_arena_array(arena, MOST_STEPS, sizeof *r->tokens);
    return r->smooth && r->tokens && column_init(&r->train, arena) &&
           column_init(&r->heldout, arena);
}

static bool take(column *c, const icae_json_value *record, const char *key) {
    double step, value;
    if (c->n == MOST_STEPS || !icae_json_as_number(icae_json_member(record, "step"), &step) ||
        !icae_json_as_number(icae_json_member(record, key), &value)) {
        return false;
    }
    c->step[c->n] = step;
    c->value[c->n++] = value;
    return true;
}

/* Refused when it has none of the losses that are to be drawn. */
static icae_status read_run(run *r, bool is_heldout, const char *path, icae_error *error) {
    icae_lines *lines;
    icae_status status = icae_lines_open(&lines, path, error);
    if (status) return status;
    double tokens = 0;
    for (;;) {
        const char *line;
        size_t bytes;
        icae_json *json;
        status = icae_lines_next(lines, LINE_LIMIT, &line, &bytes, error);
        if (status || !line) break;
        if (icae_json_parse(&json, path, line, bytes, NULL)) continue; /* cut short by a stop */
        const icae_json_value *record = icae_json_root(json);
        icae_json_as_number(icae_json_member(record, "total_tokens"), &tokens);
        take(&r->train, record, "ae_loss");
        if (take(&r->heldout, record, "heldout_ae_loss")) r->tokens[r->heldout.n - 1] = tokens;
        icae_json_free(json);
    }
    icae_lines_close(lines);
    if (!status && (is_heldout ? r->heldout.n : r->train.n) == 0) {
        status = icae_fail(error, ICAE_FORMAT, "%s: holds no %sae_loss", path,
                           is_heldout ? "heldout_" : "");
    }
    return status;
}

static void print_row(const run *first, const run *other) {
    size_t n = first->train.n < other->train.n ? first->train.n : other->train.n;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        double d = other->train.value[i] - first->train.value[i];
        sum += d;
        squares += d * d;
    }
    double mean = sum / (double)n;
    double error = sqrt((squares / (double)n - mean * mean) / (double)n);
    printf("| %s | %zu | %+.3f | %.3f |", other->name, n, mean, error);
    for (size_t i = 0; i < other->heldout.n; i++)
        printf("%s%.3f", i ? ", " : " ", other->heldout.value[i]);
    puts(" |");
}

static icae_status draw(const char *path, run *runs, size_t n_runs, size_t reach,
                        icae_error *error) {
    icae_plot_series series[2 * MOST_RUNS];
    for (size_t i = 0; i < n_runs; i++) {
        run *r = &runs[i];
        icae_plot_smooth(r->train.value, r->train.n, reach, r->smooth);
        series[i] = (icae_plot_series){r->name,    r->train.step,  r->smooth,
                                       r->train.n, ICAE_PLOT_LINE, (int)i};
        series[n_runs + i] = (icae_plot_series){
            NULL, r->heldout.step, r->heldout.value, r->heldout.n, ICAE_PLOT_POINTS, (int)i};
    }
    char subtitle[120];
    snprintf(subtitle, sizeof subtitle, "AE loss, mean of %zu steps; points: held out",
             2 * reach + 1);
    const icae_plot plot = {.title = "The same run in several types and on several kernels",
                            .subtitle = subtitle,
                            .x_label = "step",
                            .y_label = "nats per token",
                            .series = series,
                            .n_series = 2 * n_runs,
                            .y_axis = ICAE_PLOT_LINEAR};
    return icae_plot_write(path, &plot, error);
}

/* A solid line through the marks: with these few points it is the curve, not a guide for the eye. */
static icae_status draw_heldout(const char *path, const char *title, const run *runs,
                                size_t n_runs, icae_error *error) {
    icae_plot_series series[2 * MOST_RUNS];
    for (size_t i = 0; i < n_runs; i++) {
        const run *r = &runs[i];
        series[i] = (icae_plot_series){r->name,      r->tokens,      r->heldout.value,
                                       r->heldout.n, ICAE_PLOT_LINE, (int)i};
        series[n_runs + i] = series[i];
        series[n_runs + i].name = NULL;
        series[n_runs + i].style = ICAE_PLOT_POINTS;
    }
    const icae_plot plot = {.title = title,
                            .subtitle = "one run each; the number is the last value",
                            .x_label = "context tokens",
                            .y_label = "nats per token",
                            .series = series,
                            .n_series = 2 * n_runs,
                            .y_axis = ICAE_PLOT_LINEAR};
    return icae_plot_write(path, &plot, error);
}

/* "NAME=METRICS.jsonl"; the '=' is overwritten. */
static icae_status open_run(run *r, bool is_heldout, char *word, icae_arena *arena,
                            icae_error *error) {
    char *equals = strchr(word, '=');
    r->name = word;
    if (!equals) {
        return icae_fail(error, ICAE_INVALID, "%s: expected NAME=METRICS.jsonl", word);
    }
    if (!run_init(r, arena)) return icae_fail_memory(error, word);
    *equals = 0;
    return read_run(r, is_heldout, equals + 1, error);
}

int main(int argc, char **argv) {
    bool is_heldout = argc > 1 && !strcmp(argv[1], "--heldout");
    int first = is_heldout ? 4 : 3;
    if (argc <= first || argc > first + MOST_RUNS) {
        fprintf(stderr,
                "usage: %s OUT.svg REACH NAME=METRICS.jsonl...\n"
                "       %s --heldout TITLE OUT.svg NAME=METRICS.jsonl...    (up to %d runs)\n",
                argv[0], argv[0], MOST_RUNS);
        return 2;
    }
    icae_arena arena = {0};
    icae_error error = {0};
    run runs[MOST_RUNS] = {0};
    size_t n_runs = (size_t)(argc - first);
    icae_status status = ICAE_OK;
    if (!is_heldout) {
        puts("| run | steps | mean difference | standard error | held-out losses |");
        puts("| --- | --- | --- | --- | --- |");
    }
    for (size_t i = 0; i < n_runs && !status; i++) {
        status = open_run(&runs[i], is_heldout, argv[(size_t)first + i], &arena, &error);
        if (!status && !is_heldout) print_row(&runs[0], &runs[i]);
    }
    if (!status && is_heldout) {
        status = draw_heldout(argv[3], argv[2], runs, n_runs, &error);
    } else if (!status) {
        status = draw(argv[1], runs, n_runs, (size_t)atoi(argv[2]), &error);
    }
    if (status) fprintf(stderr, "%s: %s\n", argv[0], error.message);
    icae_arena_release(&arena);
    return status ? 1 : 0;
}
