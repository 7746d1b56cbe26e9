/* SPDX-License-Identifier: MIT */
/*
 * Charts of few values, and the page around them. Steps: the axis (0 to a 1-2-5 number), legend, grid, marks with
 * their values, labels. Coordinates have one decimal, a tenth of a pixel.
 */
#include "icae/chart.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 760, HEIGHT = 420, LEFT = 74, RIGHT = 20, TOP = 84, BOTTOM = 66 };

/* ---- pages ---- */

void icae_html_escape(icae_text *out, const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (c == '&')
            icae_text_append_string(out, "&amp;");
        else if (c == '<')
            icae_text_append_string(out, "&lt;");
        else if (c == '>')
            icae_text_append_string(out, "&gt;");
        else if (c == '"')
            icae_text_append_string(out, "&quot;");
        else
            icae_text_append_char(out, (unsigned char)c < 32 && c != '\n' ? ' ' : c);
    }
}

static void put_escaped(icae_text *out, const char *text) {
    icae_html_escape(out, text, strlen(text));
}

/* Okabe and Ito's palette, told apart by colour-blind eyes, and lighter relatives for dark paper. */
static const char common_style[] =
    ":root{color-scheme:light "
    "dark;--paper:#ffffff;--ink:#1c2430;--faint:#5b6675;--line:#d9dee5;"
    "--series-0:#0072b2;--series-1:#d55e00;--series-2:#009e73;--series-3:#b0568b;--series-4:#"
    "56b4e9;"
    "--series-5:#b07a00}\n"
    "@media "
    "(prefers-color-scheme:dark){:root:not([data-theme=light]){--paper:#12161c;--ink:#e8ecf1;"
    "--faint:#9aa6b5;--line:#313a46;--series-0:#5bb8f0;--series-1:#ff9a57;--series-2:#3fd0a4;"
    "--series-3:#e79fc9;--series-4:#9bd6fb;--series-5:#f0c04d}}\n"
    ":root[data-theme=dark]{--paper:#12161c;--ink:#e8ecf1;--faint:#9aa6b5;--line:#313a46;"
    "--series-0:#5bb8f0;--series-1:#ff9a57;--series-2:#3fd0a4;--series-3:#e79fc9;--series-4:#"
    "9bd6fb;"
    "--series-5:#f0c04d}\n"
    "body{margin:0 auto;max-width:78rem;padding:2rem 1.2rem 4rem;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.7rem;margin:0 0 .4rem}h2{font-size:1.25rem;margin:2.6rem 0 .3rem}"
    "p{max-width:52rem}.faint{color:var(--faint)}\n"
    ".charts{display:flex;flex-wrap:wrap;gap:1.2rem}.charts svg{flex:1 1 30rem;max-width:100%;"
    "height:auto}svg text{font-family:inherit}\n"
    ".scroll{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.88rem;"
    "font-variant-numeric:tabular-nums}th,td{padding:.3rem .6rem;border-bottom:1px solid "
    "var(--line);"
    "text-align:right;white-space:nowrap;vertical-align:bottom}th{white-space:normal;"
    "font-weight:600}th:first-child,td:first-child,.left{text-align:left}\n"
    "code{font:.85em ui-monospace,monospace}\n"
    "@media print{body{max-width:none}.charts svg{break-inside:avoid}}\n";

void icae_html_begin(icae_text *out, const char *title, const char *style) {
    icae_text_append_string(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                                 "<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
                                 "content=\"width=device-width, initial-scale=1\">\n<title>");
    put_escaped(out, title);
    icae_text_printf(out, "</title>\n<style>\n%s%s</style>\n</head>\n<body>\n", common_style,
                     style ? style : "");
}

void icae_html_end(icae_text *out) {
    icae_text_append_string(out, "</body>\n</html>\n");
}

/* ---- the axis ---- */

typedef struct axis {
    double most, step;
} axis;

static bool is_shown(const icae_chart *chart, size_t s, size_t c) {
    double value = chart->values[s][c];
    return isfinite(value) && value >= 0;
}

static double largest(const icae_chart *chart) {
    double most = -1;
    for (size_t c = 0; c < chart->n_categories; c++) {
        double sum = 0;
        for (size_t s = 0; s < chart->n_series; s++) {
            if (!is_shown(chart, s, c)) continue;
            double value = chart->values[s][c];
            sum += value;
            most = fmax(most, chart->kind == ICAE_CHART_STACKED ? sum : value);
        }
    }
    return most;
}

/* Five steps or so of 1, 2 or 5 times a power of ten, the last at or above the largest value. */
static axis axis_of(double most) {
    if (most <= 0) most = 1;
    double power = pow(10, floor(log10(most / 5))), step = power;
    static const double steps[] = {1, 2, 5, 10};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        step = steps[i] * power;
        if (most <= 6 * step) break;
    }
    return (axis){ceil(most / step - 1e-9) * step, step};
}

static double height_of(const axis *y, double value) {
    double full = HEIGHT - TOP - BOTTOM;
    return HEIGHT - BOTTOM - full * fmin(value, y->most) / y->most;
}

/* Where category c of n has its middle, and how wide its share is. */
static double middle_of(const icae_chart *chart, size_t c) {
    double share = (WIDTH - LEFT - RIGHT) / (double)chart->n_categories;
    return LEFT + share * ((double)c + 0.5);
}

/* ---- drawing ---- */

static void put_text(icae_text *svg, double x, double y, const char *attributes,
                     const char *text) {
    icae_text_printf(svg, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    put_escaped(svg, text);
    icae_text_append_string(svg, "</text>\n");
}

/* The mark of series s around a place: circle, square, diamond, triangle. */
static void put_mark(icae_text *svg, size_t s, double x, double y) {
    static const char *const shapes[] = {
        "m-5,0a5,5 0 1 0 10,0a5,5 0 1 0 -10,0z", "m-4.6,-4.6h9.2v9.2h-9.2z",
        "m0,-6.2l6.2,6.2l-6.2,6.2l-6.2,-6.2z", "m0,-6l5.6,10h-11.2z"};
    icae_text_printf(
        svg,
        "<path d=\"M%.1f,%.1f%s\" fill=\"var(--series-%zu)\" stroke=\"var(--paper)\" "
        "stroke-width=\"1.5\"/>\n",
        x, y, shapes[s % 4], s);
}

static void put_legend(icae_text *svg, const icae_chart *chart) {
    double x = LEFT;
    for (size_t s = 0; s < chart->n_series; s++) {
        if (chart->kind == ICAE_CHART_LINES) {
            put_mark(svg, s, x + 7, 55);
        } else {
            icae_text_printf(svg,
                             "<rect x=\"%.1f\" y=\"48\" width=\"14\" height=\"14\" rx=\"2\" "
                             "fill=\"var(--series-%zu)\"/>\n",
                             x, s);
        }
        put_text(svg, x + 20, 60, "font-size=\"14\" fill=\"var(--ink)\"", chart->names[s]);
        x += 44 + 7.2 * (double)strlen(chart->names[s]);
    }
}

static void put_frame(icae_text *svg, const icae_chart *chart, const axis *y) {
    int decimals = y->step >= 1 ? 0 : (int)ceil(-log10(y->step) - 1e-9);
    for (double value = 0; value <= y->most * (1 + 1e-9); value += y->step) {
        double at = height_of(y, value);
        icae_text_printf(
            svg,
            "<path d=\"M%d %.1fH%d\" stroke=\"var(--line)\"/>\n<text x=\"%d\" "
            "y=\"%.1f\" text-anchor=\"end\" font-size=\"13\" fill=\"var(--faint)\">"
            "%.*f</text>\n",
            LEFT, at, WIDTH - RIGHT, LEFT - 8, at + 4.5, decimals, value);
    }
    for (size_t c = 0; c < chart->n_categories; c++) {
        put_text(svg, middle_of(chart, c), HEIGHT - BOTTOM + 20,
                 "text-anchor=\"middle\" font-size=\"13\" fill=\"var(--ink)\"",
                 chart->categories[c]);
    }
    icae_text_printf(svg, "<path d=\"M%d %dH%d\" stroke=\"var(--faint)\"/>\n", LEFT,
                     HEIGHT - BOTTOM, WIDTH - RIGHT);
    put_text(svg, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14,
             "text-anchor=\"middle\" font-size=\"14\" fill=\"var(--faint)\"", chart->x_label);
    icae_text_printf(svg, "<g transform=\"translate(18 %d) rotate(-90)\">",
                     (TOP + HEIGHT - BOTTOM) / 2);
    put_text(svg, 0, 0, "text-anchor=\"middle\" font-size=\"14\" fill=\"var(--faint)\"",
             chart->y_label);
    icae_text_append_string(svg, "</g>\n");
    put_text(svg, LEFT, 26, "font-size=\"17\" font-weight=\"600\" fill=\"var(--ink)\"",
             chart->title);
}

static void put_value(icae_text *svg, double x, double y, const char *fill, int digits,
                      double value) {
    icae_text_printf(svg,
                     "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"12\" "
                     "fill=\"%s\">%.*f</text>\n",
                     x, y, fill, digits, value);
}

static void put_bars(icae_text *svg, const icae_chart *chart, const axis *y) {
    bool is_stacked = chart->kind == ICAE_CHART_STACKED;
    double share = (WIDTH - LEFT - RIGHT) / (double)chart->n_categories;
    double n = is_stacked ? 1 : (double)chart->n_series;
    double width = fmin(0.8 * share / n, 84);
    for (size_t c = 0; c < chart->n_categories; c++) {
        double below = 0;
        for (size_t s = 0; s < chart->n_series; s++) {
            if (!is_shown(chart, s, c)) continue;
            double value = chart->values[s][c];
            double x = middle_of(chart, c) + width * ((is_stacked ? 0 : (double)s) - n / 2);
            double top = height_of(y, below + value), base = height_of(y, below);
            icae_text_printf(svg,
                             "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                             "fill=\"var(--series-%zu)\" stroke=\"var(--paper)\"/>\n",
                             x, top, width, base - top, s);
            if (is_stacked && base - top > 15)
                put_value(svg, x + width / 2, (top + base) / 2 + 4, "var(--paper)",
                          chart->digits, value);
            if (!is_stacked)
                put_value(svg, x + width / 2, top - 5, "var(--ink)", chart->digits, value);
            if (is_stacked) below += value;
        }
    }
}

/* The values of one category, right of their marks in the colours of their lines; those of marks that are close to
 * each other are moved apart, down first, then up from the axis. */
static void put_line_values(icae_text *svg, const icae_chart *chart, const axis *y, size_t c) {
    enum { APART = 13, LOWEST = HEIGHT - BOTTOM - 5 };
    size_t order[ICAE_CHART_SERIES], n = 0;
    double at[ICAE_CHART_SERIES];
    for (size_t s = 0; s < chart->n_series; s++) {
        if (!is_shown(chart, s, c)) continue;
        size_t i = n++;
        for (; i > 0 && chart->values[order[i - 1]][c] < chart->values[s][c]; i--)
            order[i] = order[i - 1];
        order[i] = s;
    }
    for (size_t i = 0; i < n; i++) {
        at[i] = height_of(y, chart->values[order[i]][c]) + 4;
        if (i && at[i] < at[i - 1] + APART) at[i] = at[i - 1] + APART;
    }
    double lowest = LOWEST;
    for (size_t i = n; i-- > 0; lowest = at[i] - APART)
        if (at[i] > lowest) at[i] = lowest;
    for (size_t i = 0; i < n; i++) {
        icae_text_printf(svg,
                         "<text x=\"%.1f\" y=\"%.1f\" font-size=\"12\" "
                         "fill=\"var(--series-%zu)\">%.*f</text>\n",
                         middle_of(chart, c) + 10, at[i], order[i], chart->digits,
                         chart->values[order[i]][c]);
    }
}

static void put_lines(icae_text *svg, const icae_chart *chart, const axis *y) {
    for (size_t s = 0; s < chart->n_series; s++) {
        char pen = 'M';
        icae_text_printf(
            svg, "<path fill=\"none\" stroke=\"var(--series-%zu)\" stroke-width=\"2.4\" d=\"",
            s);
        for (size_t c = 0; c < chart->n_categories; c++) {
            if (!is_shown(chart, s, c)) {
                pen = 'M';
                continue;
            }
            icae_text_printf(svg, "%c%.1f %.1f", pen, middle_of(chart, c),
                             height_of(y, chart->values[s][c]));
            pen = 'L';
        }
        icae_text_append_string(svg, "\"/>\n");
        for (size_t c = 0; c < chart->n_categories; c++)
            if (is_shown(chart, s, c))
                put_mark(svg, s, middle_of(chart, c), height_of(y, chart->values[s][c]));
    }
    for (size_t c = 0; c < chart->n_categories; c++)
        put_line_values(svg, chart, y, c);
}

icae_status icae_chart_render(icae_text *svg, const icae_chart *chart, icae_error *error) {
    double most = largest(chart);
    if (chart->n_series > ICAE_CHART_SERIES || most < 0) {
        return icae_fail(error, ICAE_INVALID, "\"%s\" has nothing that a chart can show",
                         chart->title);
    }
    axis y = axis_of(chart->most > 0 ? chart->most : most);
    icae_text_printf(svg, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH,
                     HEIGHT);
    put_escaped(svg, chart->title);
    icae_text_append_string(svg, "\">\n");
    put_frame(svg, chart, &y);
    put_legend(svg, chart);
    if (chart->kind == ICAE_CHART_LINES)
        put_lines(svg, chart, &y);
    else
        put_bars(svg, chart, &y);
    icae_text_append_string(svg, "</svg>\n");
    return svg->failed ? icae_fail_memory(error, "a chart") : ICAE_OK;
}
