/* SPDX-License-Identifier: MIT */
/*
 * Rows to lines, and lines as JSON, CSV, Markdown and text. Every line of a written table says which base,
 * adapter, data and command it is from, so that it stays true when it is copied elsewhere.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/json.h"

static icae_eval_line sum_up(const icae_eval_suite *suite, const char *label,
                             const icae_eval_row *rows, int64_t n) {
    icae_eval_line line = {.label = label, .n = n, .rows = rows};
    for (int64_t i = 0; i < n; i++) {
        for (int v = 0; suite->values[v]; v++)
            line.sums[v] += rows[i].values[v];
    }
    return line;
}

icae_status icae_eval_table_make(icae_eval_table *table, const icae_eval_suite *suite,
                                 const icae_eval_settings *settings,
                                 const icae_eval_items *items, const icae_eval_row *rows,
                                 const icae_eval_source *source, icae_error *error) {
    *table = (icae_eval_table){.suite = suite, .source = *source};
    icae_eval_write_settings(&table->settings, suite, settings);
    table->lines = calloc((size_t)items->n_groups + 1, sizeof *table->lines);
    if (!table->lines || table->settings.failed) {
        icae_eval_table_release(table);
        return icae_fail_memory(error, "a table");
    }
    for (int64_t first = 0; first < items->n;) {
        int64_t group = items->list[first].group, end = first;
        while (end < items->n && items->list[end].group == group)
            end++;
        table->lines[table->n_lines++] =
            sum_up(suite, items->labels[group], rows + first, end - first);
        first = end;
    }
    if (suite->has_total) table->total = sum_up(suite, "all", rows, items->n);
    return ICAE_OK;
}

void icae_eval_table_release(icae_eval_table *table) {
    free(table->lines);
    icae_text_release(&table->settings);
    *table = (icae_eval_table){0};
}

/* The lines as they are written: groups, and their sum where there are several. */
static int64_t written_lines(const icae_eval_table *table) {
    return table->n_lines + (table->total.n > 0 && table->n_lines > 1);
}

static const icae_eval_line *line_at(const icae_eval_table *table, int64_t i) {
    return i < table->n_lines ? &table->lines[i] : &table->total;
}

/* ---- columns ---- */

static int compare_doubles(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

double icae_eval_median(const icae_eval_line *line, int value) {
    if (line->n < 1) return (double)NAN;
    size_t n = (size_t)line->n;
    double *values = calloc(n, sizeof *values);
    if (!values) return (double)NAN;
    for (size_t i = 0; i < n; i++)
        values[i] = line->rows[i].values[value];
    qsort(values, n, sizeof *values, compare_doubles);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    free(values);
    return median;
}

double icae_eval_column_value(const icae_eval_column *column, const icae_eval_line *line) {
    const double *sums = line->sums;
    const double a = sums[column->a], b = sums[column->b], c = sums[column->c];
    switch (column->form) {
    case ICAE_EVAL_SUM:
        return a;
    case ICAE_EVAL_MEAN:
        return a / (double)line->n;
    case ICAE_EVAL_RATIO:
        return a / b;
    case ICAE_EVAL_PPL:
        return exp(a / b);
    case ICAE_EVAL_MEDIAN:
        return icae_eval_median(line, column->a);
    case ICAE_EVAL_RECOVERED: /* where the text is worth nothing there is no share of it */
        return c - b > 0 ? (c - a) / (c - b) : (double)NAN;
    case ICAE_EVAL_OWN:
    default:
        return column->of(line);
    }
}

/* ---- JSON ---- */

static void put_string(icae_text *out, const char *key, const char *value) {
    icae_text_printf(out, ", \"%s\": ", key);
    if (value)
        icae_json_write_string(out, value, strlen(value));
    else
        icae_text_append_string(out, "null");
}

static void put_numbers(icae_text *out, const icae_eval_suite *suite,
                        const icae_eval_line *line) {
    icae_text_printf(out, ", \"n\": %lld", (long long)line->n);
    for (const icae_eval_column *c = suite->columns; c->key; c++) {
        icae_text_printf(out, ", \"%s\": ", c->key);
        icae_json_write_number(out, icae_eval_column_value(c, line));
    }
}

void icae_eval_write_json(icae_text *out, const icae_eval_table *table) {
    icae_text_printf(out, "{\"suite\": \"%s\"", table->suite->name);
    put_string(out, "base", table->source.base);
    put_string(out, "adapter", table->source.adapter);
    put_string(out, "data", table->source.data);
    put_string(out, "command", table->source.command);
    icae_text_printf(out, ", \"settings\": %s", icae_text_string(&table->settings));
    if (table->total.n > 0) put_numbers(out, table->suite, &table->total);
    icae_text_append_string(out, ", \"lines\": [");
    for (int64_t i = 0; i < table->n_lines; i++) {
        icae_text_append_string(out, i ? ", {\"group\": " : "{\"group\": ");
        icae_json_write_string(out, table->lines[i].label, strlen(table->lines[i].label));
        put_numbers(out, table->suite, &table->lines[i]);
        icae_text_append_char(out, '}');
    }
    icae_text_append_string(out, "], \"seconds\": ");
    icae_json_write_number(out, table->seconds);
    icae_text_append_char(out, '}');
}

/* ---- CSV (RFC 4180) ---- */

static void put_cell(icae_text *out, const char *value) {
    icae_text_append_char(out, '"');
    for (; value && *value; value++) {
        if (*value == '"') icae_text_append_char(out, '"');
        icae_text_append_char(out, *value);
    }
    icae_text_append_char(out, '"');
}

void icae_eval_write_csv(icae_text *out, const icae_eval_table *table) {
    icae_text_append_string(out, "suite,group,n");
    for (const icae_eval_column *c = table->suite->columns; c->key; c++)
        icae_text_printf(out, ",%s", c->key);
    icae_text_append_string(out, ",base,adapter,data,command\r\n");
    for (int64_t i = 0; i < written_lines(table); i++) {
        const icae_eval_line *line = line_at(table, i);
        icae_text_printf(out, "%s,", table->suite->name);
        put_cell(out, line->label);
        icae_text_printf(out, ",%lld", (long long)line->n);
        for (const icae_eval_column *c = table->suite->columns; c->key; c++) {
            double value = icae_eval_column_value(c, line);
            icae_text_append_char(out, ',');
            if (isfinite(value)) icae_json_write_number(out, value);
        }
        const char *const origin[] = {table->source.base, table->source.adapter,
                                      table->source.data, table->source.command};
        for (size_t s = 0; s < sizeof origin / sizeof origin[0]; s++) {
            icae_text_append_char(out, ',');
            put_cell(out, origin[s]);
        }
        icae_text_append_string(out, "\r\n");
    }
}

/* ---- Markdown ---- */

static void put_value(icae_text *out, const icae_eval_column *column,
                      const icae_eval_line *line) {
    double value = icae_eval_column_value(column, line);
    if (isfinite(value))
        icae_text_printf(out, "%.*f", column->digits, value);
    else
        icae_text_append_string(out, "-");
}

/* A bar or a line's end would end the cell; stars, quotes and brackets of a name would be taken for markup. */
static void put_plain(icae_text *out, const char *value) {
    for (; value && *value; value++) {
        if (strchr("|*`<\\", *value)) icae_text_append_char(out, '\\');
        icae_text_append_char(out, (unsigned char)*value < 32 ? ' ' : *value);
    }
}

void icae_eval_write_markdown(icae_text *out, const icae_eval_table *table) {
    const icae_eval_suite *suite = table->suite;
    icae_text_printf(out, "## %s\n\n%s\n\n", suite->title, suite->note);
    if (suite->paper) icae_text_printf(out, "In the paper: %s\n\n", suite->paper);
    icae_text_printf(out, "| %s | samples |", suite->group_heading);
    size_t n = 2;
    for (const icae_eval_column *c = suite->columns; c->key; c++, n++)
        icae_text_printf(out, " %s |", c->heading);
    icae_text_append_string(out, " base | adapter | data | command |\n|");
    for (size_t i = 0; i < n + 4; i++)
        icae_text_append_string(out, i == 0 || i >= n ? " --- |" : " ---: |");
    icae_text_append_char(out, '\n');
    for (int64_t i = 0; i < written_lines(table); i++) {
        const icae_eval_line *line = line_at(table, i);
        icae_text_printf(out, "| %s | %lld |", line->label, (long long)line->n);
        for (const icae_eval_column *c = suite->columns; c->key; c++) {
            icae_text_append_char(out, ' ');
            put_value(out, c, line);
            icae_text_append_string(out, " |");
        }
        const char *const origin[] = {table->source.base, table->source.adapter,
                                      table->source.data, table->source.command};
        for (size_t s = 0; s < sizeof origin / sizeof origin[0]; s++) {
            icae_text_append_char(out, ' ');
            put_plain(out, origin[s] ? origin[s] : "-");
            icae_text_append_string(out, " |");
        }
        icae_text_append_char(out, '\n');
    }
    icae_text_append_char(out, '\n');
}

/* ---- for a terminal: a line a number, a column a group ---- */

static void pad_to(icae_text *out, size_t start, int width) {
    while (out->length - start < (size_t)width && !out->failed)
        icae_text_append_char(out, ' ');
}

static void put_right(icae_text *out, const char *cell, int width) {
    for (int i = (int)strlen(cell); i < width; i++)
        icae_text_append_char(out, ' ');
    icae_text_append_string(out, cell);
}

static double count_samples(const icae_eval_line *line) {
    return (double)line->n;
}

void icae_eval_write_text(icae_text *out, const icae_eval_table *table) {
    enum { NAME_WIDTH = 28, LEAST_WIDTH = 10 };
    int64_t n = written_lines(table);
    size_t start = out->length;
    icae_text_append_string(out, table->suite->group_heading);
    pad_to(out, start, NAME_WIDTH);
    for (int64_t i = 0; i < n; i++) {
        icae_text_append_string(out, "  ");
        put_right(out, line_at(table, i)->label, LEAST_WIDTH);
    }
    icae_text_append_char(out, '\n');
    static const icae_eval_column samples = {"n", "samples", 0, ICAE_EVAL_OWN,
                                             .of = count_samples};
    for (const icae_eval_column *c = &samples; c->key;
         c = c == &samples ? table->suite->columns : c + 1) {
        start = out->length;
        icae_text_append_string(out, c->heading);
        pad_to(out, start, NAME_WIDTH);
        for (int64_t i = 0; i < n; i++) {
            const icae_eval_line *line = line_at(table, i);
            icae_text cell = {0};
            put_value(&cell, c, line);
            int width = (int)strlen(line->label);
            icae_text_append_string(out, "  ");
            put_right(out, icae_text_string(&cell), width > LEAST_WIDTH ? width : LEAST_WIDTH);
            icae_text_release(&cell);
        }
        icae_text_append_char(out, '\n');
    }
}
