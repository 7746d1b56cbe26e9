/* SPDX-License-Identifier: MIT */
/* A run's metrics.jsonl to loss.svg; the keys stand in icae/plot.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "icae/json.h"
#include "icae/lines.h"
#include "icae/memory.h"
#include "icae/plot.h"

enum { N_TASKS = 3, N_LOSSES = 2 * N_TASKS, LINE_LIMIT = 1 << 20, MOST_ROWS = 1 << 15 };

static const char *const keys[N_LOSSES] = {
    "ae_loss", "lm_loss", "ft_loss", "heldout_ae_loss", "heldout_lm_loss", "heldout_ft_loss"};

/* One column per key, NaN where a record lacks it; at most MOST_ROWS rows. */
typedef struct table {
    double *step, *loss[N_LOSSES];
    size_t count, capacity;
} table;

static void table_release(table *t) {
    free(t->step);
    for (int k = 0; k < N_LOSSES; k++)
        free(t->loss[k]);
}

static bool grow_column(double **column, size_t capacity) {
    size_t bytes;
    if (!icae_size_mul(capacity, sizeof **column, &bytes)) return false;
    double *larger = realloc(*column, bytes);
    if (larger) *column = larger;
    return larger != NULL;
}

static double mean_of_two(double a, double b) {
    if (isnan(a)) return b;
    return isnan(b) ? a : 0.5 * (a + b);
}

/* Two rows become one, their mean: a run of a million steps is drawn in the memory of a short one, and
 * a screen shows no more. */
static void halve(table *t) {
    size_t n = t->count / 2;
    for (size_t i = 0; i < n; i++) {
        t->step[i] = t->step[2 * i + 1];
        for (int k = 0; k < N_LOSSES; k++)
            t->loss[k][i] = mean_of_two(t->loss[k][2 * i], t->loss[k][2 * i + 1]);
    }
    t->count = n;
}

static icae_status add_record(table *t, double step, const double *losses, icae_error *error) {
    /* A resumed run goes back to its checkpoint: what it had written after that is void. */
    while (t->count && t->step[t->count - 1] > step)
        t->count--;
    if (t->count && t->step[t->count - 1] >= step) {
        /* The same step once more: held-out losses may come in a record of their own. */
        for (int k = 0; k < N_LOSSES; k++)
            if (!isnan(losses[k])) t->loss[k][t->count - 1] = losses[k];
        return ICAE_OK;
    }
    if (t->count == MOST_ROWS) halve(t);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 1024;
        bool is_grown = grow_column(&t->step, capacity);
        for (int k = 0; k < N_LOSSES; k++)
            is_grown = is_grown && grow_column(&t->loss[k], capacity);
        if (!is_grown) return icae_fail_memory(error, "the loss curves");
        t->capacity = capacity;
    }
    t->step[t->count] = step;
    for (int k = 0; k < N_LOSSES; k++)
        t->loss[k][t->count] = losses[k];
    t->count++;
    return ICAE_OK;
}

static icae_status read_table(table *t, const char *path, icae_error *error) {
    icae_lines *lines;
    icae_status status = icae_lines_open(&lines, path, error);
    if (status) return status;
    while (!status) {
        const char *line;
        size_t bytes;
        status = icae_lines_next(lines, LINE_LIMIT, &line, &bytes, error);
        if (status || !line) break;
        icae_json *json;
        icae_status parsed = icae_json_parse(&json, path, line, bytes, NULL);
        if (parsed == ICAE_MEMORY) status = icae_fail_memory(error, path);
        if (parsed) continue; /* a line that a crash cut short must not cost the picture */
        const icae_json_value *root = icae_json_root(json);
        int64_t step;
        if (icae_json_as_integer(icae_json_member(root, "step"), &step)) {
            double losses[N_LOSSES];
            for (int k = 0; k < N_LOSSES; k++) {
                losses[k] = (double)NAN;
                icae_json_as_number(icae_json_member(root, keys[k]), &losses[k]);
            }
            status = add_record(t, (double)step, losses, error);
        }
        icae_json_free(json);
    }
    icae_lines_close(lines);
    return status;
}

/* Keeps the records that have this loss: a gap would break the line where a run logs AE and LM
 * steps in turns. */
static size_t pick(const table *t, int key, double *x, double *y) {
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (!isfinite(t->loss[key][i])) continue;
        x[n] = t->step[i];
        y[n++] = t->loss[key][i];
    }
    return n;
}

static icae_status draw(const table *t, const char *path, const char *title,
                        icae_error *error) {
    static const char *const names[N_LOSSES] = {"AE, training", "LM, training", "FT, training",
                                                "AE, held out", "LM, held out", "FT, held out"};
    /* x and y of every loss, and a smoothed line of every training loss. */
    enum { N_COLUMNS = 2 * N_LOSSES + N_TASKS };
    double *columns = icae_aligned_calloc(N_COLUMNS, (t->count + 1) * sizeof *columns);
    if (!columns) return icae_fail_memory(error, "the loss curves");
    double *column[N_COLUMNS];
    for (size_t i = 0; i < N_COLUMNS; i++)
        column[i] = columns + i * (t->count + 1);
    icae_plot_series series[3 * N_TASKS];
    size_t counts[N_LOSSES];
    for (int k = 0; k < N_LOSSES; k++)
        counts[k] = pick(t, k, column[2 * k], column[2 * k + 1]);
    for (int k = 0; k < N_TASKS; k++) {
        /* A 25th of the run in all; of a run just begun rather more, or nothing is smoothed. */
        size_t n = counts[k], reach = n / 50 < 500 ? n / 50 : 500;
        if (reach < 4) reach = n / 8 < 4 ? n / 8 : 4;
        double *smoothed = column[2 * N_LOSSES + k];
        icae_plot_smooth(column[2 * k + 1], counts[k], reach, smoothed);
        series[k] = (icae_plot_series){NULL,      column[2 * k],  column[2 * k + 1],
                                       counts[k], ICAE_PLOT_THIN, k};
        series[N_TASKS + k] =
            (icae_plot_series){names[k], column[2 * k], smoothed, counts[k], ICAE_PLOT_LINE, k};
        int held = N_TASKS + k;
        series[2 * N_TASKS + k] =
            (icae_plot_series){names[held],  column[2 * held], column[2 * held + 1],
                               counts[held], ICAE_PLOT_POINTS, k};
    }
    bool is_tuning = counts[2] > 0 || counts[N_TASKS + 2] > 0;
    char subtitle[160];
    snprintf(subtitle, sizeof subtitle, "%.0f steps; %s", t->count ? t->step[t->count - 1] : 0,
             is_tuning ? "fine-tuning (FT)" : "autoencoding (AE) and continuation (LM)");
    const icae_plot plot = {.title = title,
                            .subtitle = subtitle,
                            .x_label = "step",
                            .y_label = "loss (nats per token)",
                            .series = series,
                            .n_series = 3 * N_TASKS};
    icae_status status = icae_plot_write(path, &plot, error);
    icae_aligned_free(columns);
    return status;
}

icae_status icae_plot_metrics(const char *metrics_path, const char *svg_path, const char *title,
                              icae_error *error) {
    table t = {0};
    icae_status status = read_table(&t, metrics_path, error);
    if (!status) status = draw(&t, svg_path, title, error);
    table_release(&t);
    return status;
}
