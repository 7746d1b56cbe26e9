/* SPDX-License-Identifier: MIT */
/*
 * Curves as one self-contained SVG file: no script, no font and no link is needed to look at it.
 *
 * icae_plot_render draws any named series; icae_plot_metrics draws a run's losses from its
 * metrics.jsonl. The same numbers give the same bytes. Long series are thinned to what a screen
 * shows (least and greatest value of each column), so the file stays small.
 */
#ifndef ICAE_PLOT_H
#define ICAE_PLOT_H

#include <stdbool.h>
#include <stddef.h>

#include "icae/status.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_plot_style {
    ICAE_PLOT_LINE,  /* strong */
    ICAE_PLOT_THIN,  /* pale: the noisy numbers behind a smoothed line */
    ICAE_PLOT_POINTS /* marks, joined by a dashed line */
} icae_plot_style;

typedef enum icae_plot_axis {
    ICAE_PLOT_AUTO, /* logarithmic when all values are positive and span a factor of 8 or more */
    ICAE_PLOT_LINEAR,
    ICAE_PLOT_LOG /* values that are not positive are left out */
} icae_plot_axis;

typedef struct icae_plot_series {
    const char *name; /* for the legend, which adds the last value; NULL: not listed */
    const double *x;  /* [n], rising; NaN and infinities are gaps */
    const double *y;  /* [n] */
    size_t n;
    icae_plot_style style;
    int color; /* 0..5, a palette that colour-blind eyes can tell apart */
} icae_plot_series;

typedef struct icae_plot {
    const char *title;    /* NULL: none */
    const char *subtitle; /* smaller, below; NULL: none */
    const char *x_label, *y_label;
    const icae_plot_series *series; /* drawn in this order */
    size_t n_series;
    icae_plot_axis y_axis;
} icae_plot;

/* Appends the SVG document. Fails when no series has a point that can be shown. */
icae_status icae_plot_render(icae_text *svg, const icae_plot *plot, icae_error *error);
/* Renders and writes the file, whole or not at all. */
icae_status icae_plot_write(const char *path, const icae_plot *plot, icae_error *error);

/* out[i] = mean of the finite y[i - reach .. i + reach], of those that exist; NaN where none is
 * finite. out is not y. O(n). */
void icae_plot_smooth(const double *y, size_t n, size_t reach, double *out);

/*
 * A run's loss curves. Reads the JSON lines of metrics_path and writes svg_path:
 *
 *     step                              required, a whole number; other lines are passed over
 *     ae_loss, lm_loss, ft_loss         training losses, nats per token: pale, with a smoothed line
 *     heldout_ae_loss and so on         points
 *
 * Any of the losses may be missing or null in any line. A run that was stopped and resumed may
 * have written some steps twice: the later record stands. A last line cut short is passed over. Fails when
 * the file cannot be read or holds no loss.
 */
icae_status icae_plot_metrics(const char *metrics_path, const char *svg_path, const char *title,
                              icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
