/* SPDX-License-Identifier: MIT */
/*
 * Numbers by category as an inline SVG picture: bars side by side, bars on top of each other, or lines.
 *
 * For a few values that are read one by one (icae/plot.h draws long curves): every value is written at its
 * mark. Series differ by shape, too (marks of lines, order of bars), not by colour alone. Colours are the
 * CSS variables of the page, --series-0 to --series-5, --ink, --faint and --paper, so that one picture serves
 * light and dark; icae_html_style has them. The same numbers give the same bytes.
 */
#ifndef ICAE_CHART_H
#define ICAE_CHART_H

#include <stddef.h>

#include "icae/status.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_chart_kind {
    ICAE_CHART_BARS,
    ICAE_CHART_STACKED,
    ICAE_CHART_LINES
} icae_chart_kind;

enum { ICAE_CHART_SERIES = 6 };

typedef struct icae_chart {
    icae_chart_kind kind;
    const char *title;
    const char *x_label, *y_label; /* units included */
    const char *const *categories; /* [n_categories] */
    size_t n_categories;
    const char *names[ICAE_CHART_SERIES]; /* for the legend */
    const double
        *values[ICAE_CHART_SERIES]; /* [n_categories] each, 0 or more; NaN: not drawn */
    size_t n_series;
    double most; /* the axis ends here; 0: where the values do */
    int digits;  /* behind the point of values at marks */
} icae_chart;

/* Appends an <svg> element. Fails when nothing can be shown or memory ends. */
icae_status icae_chart_render(icae_text *svg, const icae_chart *chart, icae_error *error);

/* Appends text with &, <, > and quotes escaped; control characters become spaces. */
void icae_html_escape(icae_text *out, const char *text, size_t bytes);

/* Appends the begin of a page up to <body>, style included: no scripts, no links, light and dark by the
 * reader's preference, or by data-theme="light|dark" on <html>. `style` is put behind the common one; may
 * be NULL. */
void icae_html_begin(icae_text *out, const char *title, const char *style);
void icae_html_end(icae_text *out);

#ifdef __cplusplus
}
#endif
#endif
