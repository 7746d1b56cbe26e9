/* SPDX-License-Identifier: MIT */
/*
 * Series to SVG. Steps: the ranges of both axes, ticks at 1-2-5 numbers, then grid, curves (clipped
 * to the frame), frame labels, legend. All coordinates are printed with one decimal, a tenth of a pixel.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/memory.h"
#include "icae/plot.h"

enum { WIDTH = 960, HEIGHT = 540, LEFT = 78, RIGHT = 28, BOTTOM = 62, MOST_TICKS = 64 };

/* Okabe and Ito's palette, its yellow left out: it is too light for lines on white. */
static const char *const palette[6] = {"#0072b2", "#d55e00", "#009e73",
                                       "#cc79a7", "#56b4e9", "#e69f00"};

typedef struct axis {
    double low, high; /* of the data, in the axis's own measure (log10 when is_log) */
    double from, to;  /* pixels that low and high fall on */
    bool is_log;
    double ticks[MOST_TICKS]; /* values, not measures */
    size_t n_ticks;
} axis;

static double place_on(const axis *a, double value) {
    double measure = a->is_log ? log10(value) : value;
    return a->from + (measure - a->low) / (a->high - a->low) * (a->to - a->from);
}

static bool can_show(double x, double y, bool is_log) {
    return isfinite(x) && isfinite(y) && (!is_log || y > 0);
}

/* ---- ranges ---- */

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Least and greatest y to be shown. Of a pale series all but one per cent at each side: a spike
 * should leave the frame instead of flattening everything else. */
static icae_status series_range(const icae_plot_series *series, bool is_log, double *low,
                                double *high, size_t *count, icae_error *error) {
    size_t bytes, n = 0;
    if (!icae_size_mul(series->n + 1, sizeof(double), &bytes)) {
        return icae_fail_memory(error, "a plot");
    }
    double *sorted = malloc(bytes);
    if (!sorted) return icae_fail_memory(error, "a plot");
    for (size_t i = 0; i < series->n; i++)
        if (can_show(series->x[i], series->y[i], is_log)) sorted[n++] = series->y[i];
    *count = n;
    if (n) {
        qsort(sorted, n, sizeof *sorted, compare_doubles);
        size_t spared = series->style == ICAE_PLOT_THIN ? n / 100 : 0;
        *low = sorted[spared];
        *high = sorted[n - 1 - spared];
    }
    free(sorted);
    return ICAE_OK;
}

static icae_status y_range(const icae_plot *plot, bool is_log, double *low, double *high,
                           size_t *count, icae_error *error) {
    *low = (double)INFINITY;
    *high = -(double)INFINITY;
    *count = 0;
    for (size_t i = 0; i < plot->n_series; i++) {
        double a = 0, b = 0;
        size_t n = 0;
        icae_status status = series_range(&plot->series[i], is_log, &a, &b, &n, error);
        if (status) return status;
        if (!n) continue;
        *count += n;
        *low = fmin(*low, a);
        *high = fmax(*high, b);
    }
    return ICAE_OK;
}

/* ---- ticks ---- */

/* The least of 1, 2, 5, 10, 20, ... that is not below `least`. */
static double nice_step(double least) {
    double power = pow(10, floor(log10(least)));
    double part = least / power;
    return power * (part <= 1.0000001 ? 1 : part <= 2.0000001 ? 2 : part <= 5.0000001 ? 5 : 10);
}

static void linear_ticks(axis *a, int wanted, bool is_rounded) {
    double step = nice_step((a->high - a->low) / wanted);
    if (is_rounded) {
        a->low = floor(a->low / step + 1e-9) * step;
        a->high = ceil(a->high / step - 1e-9) * step;
    }
    double first = ceil(a->low / step - 1e-9);
    for (int i = 0; i < MOST_TICKS; i++) {
        double value = (first + i) * step;
        if (value > a->high + step * 1e-9) break;
        a->ticks[a->n_ticks++] = value;
    }
}

/* Labels at 1, 2, 5 of every decade where there are few decades, else at powers of ten; the axis
 * ends at such numbers. */
static void log_ticks(axis *a) {
    static const double fine[] = {1, 2, 5}, coarse[] = {1};
    bool is_fine = a->high - a->low < 3;
    const double *parts = is_fine ? fine : coarse;
    int n_parts = is_fine ? 3 : 1;
    double below = pow(10, a->low), above = pow(10, a->high), low = 0, high = 0;
    int decades = (int)ceil(a->high - a->low) + 2, stride = decades / 20 + 1;
    for (int d = 0; d <= decades && high <= 0; d++) {
        for (int i = 0; i < n_parts; i++) {
            double value = parts[i] * pow(10, floor(a->low) + d);
            if (value <= below * (1 + 1e-9)) {
                low = value;
                a->n_ticks = 0;
            }
            if ((d % stride == 0 || value >= above) && a->n_ticks < MOST_TICKS) {
                a->ticks[a->n_ticks++] = value;
            }
            if (value >= above * (1 - 1e-9)) {
                high = value;
                break;
            }
        }
    }
    a->low = log10(low);
    a->high = log10(high);
}

static void set_y_axis(axis *y, double low, double high) {
    if (y->is_log) {
        y->low = log10(low);
        y->high = log10(high);
        if (y->high - y->low < 1e-6) {
            y->low -= 0.2;
            y->high += 0.2;
        }
        log_ticks(y);
        return;
    }
    /* Zero belongs into the picture unless that would squeeze the curves into half of it. */
    if (low > 0 && low < 0.5 * high) low = 0;
    double least = 1e-6 * fmax(fabs(low), fabs(high));
    if (high - low <= least) {
        double room = fmax(0.1 * fabs(high), 1e-3);
        low -= room;
        high += room;
    }
    y->low = low;
    y->high = high;
    linear_ticks(y, 7, true);
}

static void set_x_axis(axis *x, const icae_plot *plot) {
    x->low = (double)INFINITY;
    x->high = -(double)INFINITY;
    for (size_t i = 0; i < plot->n_series; i++) {
        for (size_t k = 0; k < plot->series[i].n; k++) {
            if (!isfinite(plot->series[i].x[k])) continue;
            x->low = fmin(x->low, plot->series[i].x[k]);
            x->high = fmax(x->high, plot->series[i].x[k]);
        }
    }
    /* Runs begin at 0 or 1: then the axis does, too. */
    if (x->low > 0 && x->low < 0.1 * x->high) x->low = 0;
    if (x->high - x->low < 1e-9 * fmax(1, fabs(x->high))) {
        x->low -= 1;
        x->high += 1;
    }
    linear_ticks(x, 9, false);
}

/* ---- writing ---- */

/* A title is a folder's name, and may be of any bytes: a picture that is no UTF-8 is not shown at all. */
static void escaped(icae_text *svg, const char *string) {
    icae_text repaired = {0};
    icae_utf8_repair(&repaired, string, strlen(string));
    for (const char *c = icae_text_string(&repaired); *c; c++) {
        switch (*c) {
        case '&':
            icae_text_append_string(svg, "&amp;");
            break;
        case '<':
            icae_text_append_string(svg, "&lt;");
            break;
        case '>':
            icae_text_append_string(svg, "&gt;");
            break;
        case '"':
            icae_text_append_string(svg, "&quot;");
            break;
        default:
            /* XML knows no other control characters, not even escaped. */
            icae_text_append_char(svg, (unsigned char)*c < 32 ? ' ' : *c);
        }
    }
    svg->failed |= repaired.failed;
    icae_text_release(&repaired);
}

/* 20000 -> 20k, 1500000 -> 1.5M: step counts are long. */
static void write_count(icae_text *svg, double value) {
    double size = fabs(value);
    if (size >= 1e6) {
        icae_text_printf(svg, "%.4gM", value / 1e6);
    } else if (size >= 1e4) {
        icae_text_printf(svg, "%.4gk", value / 1e3);
    } else {
        icae_text_printf(svg, "%.6g", fabs(value) < 1e-12 ? 0 : value);
    }
}

/* Three digits that count, and as many zeros as show it: 4.60, 0.458, 0.0061. */
static void write_value(icae_text *svg, double value) {
    double size = fabs(value);
    int decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4;
    if (size < 1e6 && (size >= 1e-3 || size <= 0)) {
        icae_text_printf(svg, "%.*f", decimals, value);
    } else {
        icae_text_printf(svg, "%.2e", value);
    }
}

static void write_grid(icae_text *svg, const axis *x, const axis *y) {
    icae_text_append_string(svg, "<g stroke=\"#e3e6ea\" stroke-width=\"1\">\n");
    for (size_t i = 0; i < y->n_ticks; i++) {
        double at = place_on(y, y->ticks[i]);
        icae_text_printf(svg, "<path d=\"M%.1f %.1fH%.1f\"/>\n", x->from, at, x->to);
    }
    for (size_t i = 0; i < x->n_ticks; i++) {
        icae_text_printf(svg, "<path d=\"M%.1f %.1fV%.1f\"/>\n", place_on(x, x->ticks[i]),
                         y->from, y->to);
    }
    icae_text_append_string(svg, "</g>\n<g font-size=\"14\" fill=\"#4b5563\">\n");
    for (size_t i = 0; i < y->n_ticks; i++) {
        double value = y->ticks[i];
        icae_text_printf(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n",
                         x->from - 9, place_on(y, value) + 5,
                         fabs(value) < 1e-12 && !y->is_log ? 0 : value);
    }
    for (size_t i = 0; i < x->n_ticks; i++) {
        icae_text_printf(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                         place_on(x, x->ticks[i]), y->from + 21);
        write_count(svg, x->ticks[i]);
        icae_text_append_string(svg, "</text>\n");
    }
    icae_text_printf(svg,
                     "</g>\n<path d=\"M%.1f %.1fV%.1fH%.1f\" fill=\"none\" "
                     "stroke=\"#6b7280\" stroke-width=\"1.2\"/>\n",
                     x->from, y->to, y->from, x->to);
}

/* A pen that puts down a path and knows whether it was lifted by a gap. */
typedef struct pen {
    icae_text *svg;
    bool is_down;
} pen;

static void pen_to(pen *p, double x, double y) {
    icae_text_printf(p->svg, "%c%.1f %.1f", p->is_down ? 'L' : 'M', x, y);
    p->is_down = true;
}

/* Where several points share a pixel column, its first, least, greatest and last are drawn, in
 * their order: the picture is the same, and a million steps make a file of 100 kB. */
static void write_curve(icae_text *svg, const icae_plot_series *series, const axis *x,
                        const axis *y) {
    pen p = {svg, false};
    for (size_t i = 0; i < series->n;) {
        if (!can_show(series->x[i], series->y[i], y->is_log)) {
            p.is_down = false;
            i++;
            continue;
        }
        double column = floor(place_on(x, series->x[i]));
        size_t first = i, least = i, greatest = i, last = i;
        for (; i < series->n && can_show(series->x[i], series->y[i], y->is_log) &&
               floor(place_on(x, series->x[i])) <= column;
             i++) {
            if (series->y[i] < series->y[least]) least = i;
            if (series->y[i] > series->y[greatest]) greatest = i;
            last = i;
        }
        size_t shown[4] = {first, least < greatest ? least : greatest,
                           least < greatest ? greatest : least, last};
        for (int k = 0; k < 4; k++) {
            if (k && shown[k] == shown[k - 1]) continue;
            pen_to(&p, place_on(x, series->x[shown[k]]), place_on(y, series->y[shown[k]]));
        }
    }
}

static void write_series(icae_text *svg, const icae_plot_series *series, const axis *x,
                         const axis *y) {
    static const char *const looks[] = {
        [ICAE_PLOT_LINE] = "stroke-width=\"2.4\"",
        [ICAE_PLOT_THIN] = "stroke-width=\"1\" stroke-opacity=\"0.28\"",
        [ICAE_PLOT_POINTS] = "stroke-width=\"1.4\" stroke-dasharray=\"5 4\"",
    };
    const char *color = palette[series->color];
    icae_text_printf(svg,
                     "<path fill=\"none\" stroke=\"%s\" stroke-linejoin=\"round\" "
                     "stroke-linecap=\"round\" %s d=\"",
                     color, looks[series->style]);
    write_curve(svg, series, x, y);
    icae_text_append_string(svg, "\"/>\n");
    if (series->style != ICAE_PLOT_POINTS) return;
    /* Hundreds of marks would touch each other and hide the curve. */
    size_t stride = series->n / 120 + 1;
    icae_text_printf(svg, "<g fill=\"#ffffff\" stroke=\"%s\" stroke-width=\"2\">\n", color);
    for (size_t i = 0; i < series->n; i++) {
        if ((series->n - 1 - i) % stride || !can_show(series->x[i], series->y[i], y->is_log)) {
            continue;
        }
        icae_text_printf(svg,
                         "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%.10g: %.4g</title>"
                         "</circle>\n",
                         place_on(x, series->x[i]), place_on(y, series->y[i]), series->x[i],
                         series->y[i]);
    }
    icae_text_append_string(svg, "</g>\n");
}

/* How wide a text of 14 pixels is, more or less: there is no font here to ask. */
static double text_width(const char *string) {
    double width = 0;
    for (; *string; string++)
        if ((*string & 0xC0) != 0x80) width += strchr("iljtf.,:; ()'", *string) ? 4.6 : 7.9;
    return width;
}

/* Entries from left to right, in as many rows as needed; returns where the frame may begin.
 * A NULL svg only measures. */
static double write_legend(icae_text *svg, const icae_plot *plot, double top, bool is_log) {
    double left = LEFT, row = top + 18;
    bool is_any = false;
    for (size_t i = 0; i < plot->n_series; i++) {
        const icae_plot_series *series = &plot->series[i];
        if (!series->name) continue;
        double last = (double)NAN;
        for (size_t k = 0; k < series->n; k++)
            if (can_show(series->x[k], series->y[k], is_log)) last = series->y[k];
        if (isnan(last)) continue;
        double width = 34 + text_width(series->name) + 58;
        if (is_any && left + width > WIDTH - RIGHT) {
            left = LEFT;
            row += 24;
        }
        is_any = true;
        if (svg) {
            const char *color = palette[series->color];
            icae_text_printf(svg, "<path d=\"M%.1f %.1fh26\" stroke=\"%s\" %s/>", left, row - 5,
                             color,
                             series->style == ICAE_PLOT_LINE   ? "stroke-width=\"2.8\""
                             : series->style == ICAE_PLOT_THIN ? "stroke-opacity=\"0.4\""
                                                               : "stroke-width=\"1.4\" "
                                                                 "stroke-dasharray=\"5 4\"");
            if (series->style == ICAE_PLOT_POINTS) {
                icae_text_printf(svg,
                                 "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"#ffffff\" "
                                 "stroke=\"%s\" stroke-width=\"2\"/>",
                                 left + 13, row - 5, color);
            }
            icae_text_printf(svg,
                             "<text x=\"%.1f\" y=\"%.1f\" font-size=\"14\" "
                             "fill=\"#1f2937\">",
                             left + 34, row);
            escaped(svg, series->name);
            icae_text_append_string(svg, "<tspan dx=\"7\" fill=\"#6b7280\">");
            write_value(svg, last);
            icae_text_append_string(svg, "</tspan></text>\n");
        }
        left += width + 14;
    }
    return is_any ? row + 16 : top;
}

icae_status icae_plot_render(icae_text *svg, const icae_plot *plot, icae_error *error) {
    double low, high;
    size_t count;
    axis x = {.from = LEFT, .to = WIDTH - RIGHT}, y = {.from = HEIGHT - BOTTOM};
    icae_status status =
        y_range(plot, plot->y_axis == ICAE_PLOT_LOG, &low, &high, &count, error);
    if (status) return status;
    if (!count) {
        return icae_fail(error, ICAE_INVALID, "%s: there is no point to draw yet",
                         plot->title ? plot->title : "plot");
    }
    y.is_log = plot->y_axis == ICAE_PLOT_LOG ||
               (plot->y_axis == ICAE_PLOT_AUTO && low > 0 && high / low >= 8);
    for (size_t i = 0; i < plot->n_series; i++)
        assert(plot->series[i].color >= 0 && plot->series[i].color < 6);

    double top = 16;
    if (plot->title) top += 26;
    if (plot->subtitle) top += 22;
    y.to = write_legend(NULL, plot, top, y.is_log) + 6;
    set_x_axis(&x, plot);
    set_y_axis(&y, low, high);

    icae_text_printf(svg,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                     "width=\"%d\" height=\"%d\" font-family=\"system-ui, 'Segoe UI', "
                     "Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\">\n"
                     "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
                     WIDTH, HEIGHT, WIDTH, HEIGHT);
    if (plot->title) {
        icae_text_printf(svg,
                         "<text x=\"%d\" y=\"34\" font-size=\"20\" font-weight=\"600\" "
                         "fill=\"#111827\">",
                         LEFT);
        escaped(svg, plot->title);
        icae_text_append_string(svg, "</text>\n");
    }
    if (plot->subtitle) {
        icae_text_printf(svg, "<text x=\"%d\" y=\"%d\" font-size=\"14\" fill=\"#6b7280\">",
                         LEFT, plot->title ? 57 : 30);
        escaped(svg, plot->subtitle);
        icae_text_append_string(svg, "</text>\n");
    }
    write_legend(svg, plot, top, y.is_log);
    write_grid(svg, &x, &y);
    icae_text_printf(svg,
                     "<clipPath id=\"frame\"><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                     "height=\"%.1f\"/></clipPath>\n<g clip-path=\"url(#frame)\">\n",
                     x.from, y.to - 6, x.to - x.from + 6, y.from - y.to + 12);
    for (size_t i = 0; i < plot->n_series; i++)
        write_series(svg, &plot->series[i], &x, &y);
    icae_text_printf(svg,
                     "</g>\n<g font-size=\"15\" fill=\"#374151\" text-anchor=\"middle\">\n"
                     "<text x=\"%.1f\" y=\"%d\">",
                     (x.from + x.to) / 2, HEIGHT - 16);
    escaped(svg, plot->x_label);
    icae_text_printf(svg, "</text>\n<text transform=\"translate(22 %.1f) rotate(-90)\">",
                     (y.from + y.to) / 2);
    escaped(svg, plot->y_label);
    icae_text_append_string(svg, y.is_log ? ", logarithmic" : "");
    icae_text_append_string(svg, "</text>\n</g>\n</svg>\n");
    return svg->failed ? icae_fail_memory(error, "a plot") : ICAE_OK;
}

icae_status icae_plot_write(const char *path, const icae_plot *plot, icae_error *error) {
    icae_text svg = {0};
    icae_status status = icae_plot_render(&svg, plot, error);
    if (!status) status = icae_file_write(path, svg.data, svg.length, error);
    icae_text_release(&svg);
    return status;
}

void icae_plot_smooth(const double *y, size_t n, size_t reach, double *out) {
    /* A window that slides: each place enters once and leaves once. The sum is
     * kept in long double and infinities never enter it, so nothing drifts or turns to NaN. */
    long double sum = 0;
    size_t from = 0, to = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        size_t end = reach < n - 1 - i ? i + reach + 1 : n;
        for (; to < end; to++)
            if (isfinite(y[to])) sum += (long double)y[to], count++;
        for (; i > reach && from < i - reach; from++)
            if (isfinite(y[from])) sum -= (long double)y[from], count--;
        out[i] = count ? (double)(sum / (long double)count) : (double)NAN;
    }
}
