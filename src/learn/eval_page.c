/* SPDX-License-Identifier: MIT */
/*
 * Tables and their charts as one page, fit to be shown: what was measured, the picture, the numbers, where
 * they are from. Which columns a suite's charts show stands in one table here.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/chart.h"

enum { MOST_BARS = 3 }; /* more groups than this are drawn as lines where that makes sense */

typedef struct picture {
    const char *suite, *title, *y_label;
    icae_chart_kind kind; /* LINES: bars for a few groups */
    double most;
    int digits;
    struct {
        const char *key, *name;
    } series[4];
} picture;

static const picture pictures[] = {
    {"ae",
     "Restored from slots",
     "BLEU-4, and percent of tokens",
     ICAE_CHART_LINES,
     100,
     1,
     {{"bleu4", "BLEU-4"},
      {"prefix_em%", "exact prefix"},
      {"token_accuracy%", "tokens right"}}},
    {"ae",
     "Loss of the text from its slots",
     "nats a token",
     ICAE_CHART_LINES,
     0,
     3,
     {{"loss", "teacher-forced loss"}}},
    {"random",
     "What is restored",
     "BLEU-4, and percent of tokens",
     ICAE_CHART_BARS,
     100,
     1,
     {{"bleu4", "BLEU-4"}, {"token_accuracy%", "tokens right"}}},
    {"random",
     "Loss by kind of content",
     "nats a token",
     ICAE_CHART_BARS,
     0,
     2,
     {{"loss", "teacher-forced loss"}}},
    {"lm",
     "What follows the text",
     "perplexity of the continuation",
     ICAE_CHART_LINES,
     0,
     2,
     {{"ppl_raw", "raw context"}, {"ppl", "slots"}, {"ppl_none", "nothing"}}},
    {"qa",
     "The right answer's loss",
     "nats a token",
     ICAE_CHART_BARS,
     0,
     3,
     {{"loss_raw", "raw context"}, {"loss", "slots"}, {"loss_none", "nothing"}}},
    {"qa",
     "Slots against the raw context",
     "percent of questions",
     ICAE_CHART_STACKED,
     100,
     1,
     {{"win", "slots win"}, {"tie", "tie"}, {"lose", "slots lose"}}},
    {"qa",
     "Answers against the right one",
     "percent",
     ICAE_CHART_BARS,
     100,
     1,
     {{"rouge_l%", "ROUGE-L, slots"},
      {"rouge_l_raw%", "raw"},
      {"f1%", "F1, slots"},
      {"f1_raw%", "raw"}}},
    {"latency",
     "Time to read and write",
     "seconds",
     ICAE_CHART_BARS,
     0,
     2,
     {{"raw_s", "raw context"},
      {"total_s", "compress, write from slots"},
      {"slots_s", "slots at hand"}}},
    {"latency",
     "Key-value cache",
     "MiB at 16 bits",
     ICAE_CHART_BARS,
     0,
     1,
     {{"raw_kv_mib", "raw context"}, {"slots_kv_mib", "slots"}}},
};

/* A column's value of a line; "key%" is 100 times it, "total_s" what compressing and writing take. */
static double value_of(const icae_eval_suite *suite, const char *key,
                       const icae_eval_line *line) {
    if (strcmp(key, "total_s") == 0)
        return value_of(suite, "compress_s", line) + value_of(suite, "slots_s", line);
    size_t n = strlen(key);
    bool is_percent = n && key[n - 1] == '%';
    for (const icae_eval_column *c = suite->columns; c->key; c++) {
        if (strlen(c->key) == n - is_percent && !strncmp(c->key, key, n - is_percent))
            return (is_percent ? 100 : 1) * icae_eval_column_value(c, line);
    }
    return (double)NAN;
}

static icae_status write_picture(icae_text *out, const icae_eval_table *table, const picture *p,
                                 icae_error *error) {
    size_t n = (size_t)table->n_lines, n_series = 0;
    const char **labels = calloc(n + 1, sizeof *labels);
    double *values = calloc(ICAE_CHART_SERIES * (n + 1), sizeof *values);
    icae_chart chart = {.kind = p->kind,
                        .title = p->title,
                        .x_label = table->suite->group_heading,
                        .y_label = p->y_label,
                        .categories = labels,
                        .n_categories = n,
                        .most = p->most,
                        .digits = p->digits};
    icae_status status = labels && values ? ICAE_OK : icae_fail_memory(error, "a chart");
    if (!status && chart.kind == ICAE_CHART_LINES && n < MOST_BARS)
        chart.kind = ICAE_CHART_BARS;
    bool is_any = false;
    for (; !status && n_series < 4 && p->series[n_series].key; n_series++) {
        double *of_series = values + n_series * (n + 1);
        for (size_t i = 0; i < n; i++) {
            labels[i] = table->lines[i].label;
            of_series[i] = value_of(table->suite, p->series[n_series].key, &table->lines[i]);
            is_any |= isfinite(of_series[i]) && of_series[i] >= 0;
        }
        chart.names[n_series] = p->series[n_series].name;
        chart.values[n_series] = of_series;
    }
    chart.n_series = n_series;
    if (!status && is_any) status = icae_chart_render(out, &chart, error);
    free(labels);
    free(values);
    return status;
}

static void put_escaped(icae_text *out, const char *text) {
    icae_html_escape(out, text, strlen(text));
}

static void write_line(icae_text *out, const icae_eval_table *table,
                       const icae_eval_line *line) {
    icae_text_append_string(out, "<tr><td>");
    put_escaped(out, line->label);
    icae_text_printf(out, "</td><td>%lld</td>", (long long)line->n);
    for (const icae_eval_column *c = table->suite->columns; c->key; c++) {
        double value = icae_eval_column_value(c, line);
        if (isfinite(value))
            icae_text_printf(out, "<td>%.*f</td>", c->digits, value);
        else
            icae_text_append_string(out, "<td>&ndash;</td>");
    }
    const char *const origin[] = {table->source.base, table->source.adapter, table->source.data,
                                  table->source.command};
    for (size_t s = 0; s < sizeof origin / sizeof origin[0]; s++) {
        icae_text_append_string(out, "<td class=\"left\"><code>");
        put_escaped(out, origin[s] ? origin[s] : "-");
        icae_text_append_string(out, "</code></td>");
    }
    icae_text_append_string(out, "</tr>\n");
}

static void write_table(icae_text *out, const icae_eval_table *table) {
    const icae_eval_suite *suite = table->suite;
    icae_text_append_string(out, "<div class=\"scroll\"><table>\n<tr><th>");
    put_escaped(out, suite->group_heading);
    icae_text_append_string(out, "</th><th>samples</th>");
    for (const icae_eval_column *c = suite->columns; c->key; c++) {
        icae_text_append_string(out, "<th>");
        put_escaped(out, c->heading);
        icae_text_append_string(out, "</th>");
    }
    icae_text_append_string(out, "<th class=\"left\">base</th><th class=\"left\">adapter</th>"
                                 "<th class=\"left\">data</th><th class=\"left\">command</th>"
                                 "</tr>\n");
    for (int64_t i = 0; i < table->n_lines; i++)
        write_line(out, table, &table->lines[i]);
    if (table->total.n > 0 && table->n_lines > 1) write_line(out, table, &table->total);
    icae_text_append_string(out, "</table></div>\n");
}

static icae_status write_section(icae_text *out, const icae_eval_table *table,
                                 icae_error *error) {
    icae_text_append_string(out, "<section>\n<h2>");
    put_escaped(out, table->suite->title);
    icae_text_append_string(out, "</h2>\n<p>");
    put_escaped(out, table->suite->note);
    if (table->suite->paper) {
        icae_text_append_string(out, " <span class=\"faint\">In the paper: ");
        put_escaped(out, table->suite->paper);
        icae_text_append_string(out, "</span>");
    }
    icae_text_append_string(out, "</p>\n<div class=\"charts\">\n");
    icae_status status = ICAE_OK;
    for (size_t p = 0; p < sizeof pictures / sizeof pictures[0] && !status; p++) {
        if (strcmp(pictures[p].suite, table->suite->name) == 0)
            status = write_picture(out, table, &pictures[p], error);
    }
    icae_text_append_string(out, "</div>\n");
    write_table(out, table);
    icae_text_append_string(out, "</section>\n");
    return status;
}

icae_status icae_eval_write_page(icae_text *out, const icae_eval_table *const *tables,
                                 size_t n_tables, icae_error *error) {
    icae_html_begin(out, "icae eval", NULL);
    icae_text_append_string(out, "<h1>In-context autoencoder: what its slots hold</h1>\n");
    icae_text_append_string(out, "<p class=\"faint\">Losses are nats a token. Every line of a "
                                 "table ends with what it was measured on.</p>\n");
    icae_status status = ICAE_OK;
    for (size_t i = 0; i < n_tables && !status; i++)
        status = write_section(out, tables[i], error);
    icae_html_end(out);
    if (!status && out->failed) status = icae_fail_memory(error, "a page");
    return status;
}
