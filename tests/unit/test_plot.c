/* SPDX-License-Identifier: MIT */
/* Loss curves: well-formed SVG, points where they belong, records that do not fit, same bytes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/plot.h"
#include "suites.h"

static size_t count_of(const char *text, const char *what) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        count++;
    return count;
}

/* Every element is closed in order, attributes are quoted, no bare & or < is in the text. */
static void check_well_formed(const char *svg) {
    char open[32][32];
    size_t depth = 0;
    for (const char *at = svg; *at;) {
        if (*at == '&') {
            const char *end = strchr(at, ';');
            ck_assert_msg(end && end - at <= 6, "bare & at %.20s", at);
        }
        if (*at != '<') {
            at++;
            continue;
        }
        const char *end = at;
        bool is_quoted = false;
        while (*++end && (is_quoted || *end != '>')) {
            ck_assert_msg(*end != '<', "< inside of %.30s", at);
            if (*end == '"') is_quoted = !is_quoted;
        }
        ck_assert_msg(*end == '>', "unclosed: %.30s", at);
        char name[32];
        int length = (int)strcspn(at + 1 + (at[1] == '/'), " />");
        snprintf(name, sizeof name, "%.*s", length, at + 1 + (at[1] == '/'));
        if (at[1] == '/') {
            ck_assert_msg(depth && !strcmp(open[depth - 1], name), "</%s> closes nothing",
                          name);
            depth--;
        } else if (end[-1] != '/') {
            ck_assert_uint_lt(depth, 32);
            memcpy(open[depth++], name, sizeof name);
        }
        at = end + 1;
    }
    ck_assert_uint_eq(depth, 0);
    ck_assert_msg(!strstr(svg, "nan") && !strstr(svg, "inf"), "a coordinate is no number");
}

static char *plot_lines(const char *name, const char *lines) {
    icae_error error = {0};
    const char *folder = test_folder(name);
    char in[256], out[256];
    snprintf(in, sizeof in, "%s/metrics.jsonl", folder);
    snprintf(out, sizeof out, "%s/loss.svg", folder);
    ck_ok(icae_file_write(in, lines, strlen(lines), &error));
    ck_ok(icae_plot_metrics(in, out, "A <run> & \"more\"", &error));
    char *svg;
    ck_ok(icae_file_read(out, 1 << 24, &svg, NULL, &error));
    return svg;
}

static char *plot_run(const char *name, int steps, double floor_loss) {
    icae_text lines = {0};
    for (int i = 1; i <= steps; i++) {
        icae_text_printf(
            &lines, "{\"step\": %d, \"ae_loss\": %.6f, \"lm_loss\": %.6f, \"lr\": 1e-4}\n", i,
            floor_loss + 4.5 * exp(-8.0 * i / steps) + 0.01 * (i * 7 % 5), 2.9 + 0.1 * (i % 3));
        if (i % (steps / 10) == 0) {
            icae_text_printf(&lines, "{\"step\": %d, \"heldout_ae_loss\": %.6f}\n", i,
                             floor_loss + 4.6 * exp(-8.0 * i / steps));
        }
    }
    char *svg = plot_lines(name, icae_text_string(&lines));
    icae_text_release(&lines);
    return svg;
}

START_TEST(a_run_becomes_one_well_formed_picture) {
    char *svg = plot_run("plot-run", 500, 0.05);
    check_well_formed(svg);
    ck_assert_uint_eq(count_of(svg, "<circle"), 10 + 1); /* ten points and the legend's */
    ck_assert_ptr_nonnull(strstr(svg, "A &lt;run&gt; &amp; &quot;more&quot;"));
    ck_assert_ptr_nonnull(strstr(svg, "loss (nats per token), logarithmic"));
    ck_assert_ptr_nonnull(strstr(svg, "AE, training"));
    ck_assert_ptr_nonnull(strstr(svg, "AE, held out"));
    ck_assert_ptr_null(strstr(svg, "LM, held out")); /* it has no value */
    free(svg);
}
END_TEST

START_TEST(the_same_numbers_give_the_same_bytes) {
    char *first = plot_run("plot-same-1", 300, 2.5),
         *second = plot_run("plot-same-2", 300, 2.5);
    ck_assert_str_eq(first, second);
    ck_assert_ptr_null(strstr(first, "logarithmic"));
    char *other = plot_run("plot-same-3", 300, 2.6);
    ck_assert_str_ne(first, other);
    free(first);
    free(second);
    free(other);
}
END_TEST

START_TEST(a_long_run_makes_a_small_file) {
    char *svg = plot_run("plot-long", 60000, 0.02);
    check_well_formed(svg);
    ck_assert_uint_lt(strlen(svg), 300000);
    free(svg);
}
END_TEST

START_TEST(a_resumed_run_counts_only_its_later_records) {
    char *svg = plot_lines("plot-resumed", "{\"step\": 1, \"heldout_ae_loss\": 4}\n"
                                           "{\"step\": 2, \"heldout_ae_loss\": 3.5}\n"
                                           "{\"step\": 3, \"heldout_ae_loss\": 9.25}\n"
                                           "{\"step\": 2, \"heldout_ae_loss\": 3.25}\n"
                                           "{\"step\": 3, \"heldout_ae_loss\": null}\n"
                                           "{\"note\": \"no step\"}\n[1]\n\n"
                                           "{\"step\": 4, \"heldout_ae_loss\": 3}\n"
                                           "{\"step\": 5, \"heldout_a");
    ck_assert_uint_eq(count_of(svg, "<title>"), 3);
    ck_assert_ptr_nonnull(strstr(svg, "<title>1: 4</title>"));
    ck_assert_ptr_nonnull(strstr(svg, "<title>2: 3.25</title>"));
    ck_assert_ptr_nonnull(strstr(svg, "<title>4: 3</title>"));
    ck_assert_ptr_nonnull(strstr(svg, "4 steps"));
    check_well_formed(svg);
    free(svg);
}
END_TEST

START_TEST(a_point_lies_where_its_value_says) {
    static const double x[] = {0, 50, 100}, y[] = {0, 5, 10};
    const icae_plot_series series = {"s", x, y, 3, ICAE_PLOT_POINTS, 2};
    const icae_plot plot = {.x_label = "x", .y_label = "y", .series = &series, .n_series = 1};
    icae_text svg = {0};
    icae_error error = {0};
    ck_ok(icae_plot_render(&svg, &plot, &error));
    double cx[3], cy[3];
    const char *at = strstr(svg.data, "clip-path=\"url");
    for (int i = 0; i < 3; i++) {
        at = strstr(at + 1, "<circle");
        ck_assert_int_eq(sscanf(at, "<circle cx=\"%lf\" cy=\"%lf\"", &cx[i], &cy[i]), 2);
    }
    ck_assert_double_lt(cx[0], cx[2]);
    ck_assert_double_gt(cy[0], cy[2]); /* SVG counts downwards */
    ck_assert_double_eq_tol(cx[1], (cx[0] + cx[2]) / 2, 0.11);
    ck_assert_double_eq_tol(cy[1], (cy[0] + cy[2]) / 2, 0.11);
    icae_text_release(&svg);
}
END_TEST

START_TEST(strange_series_are_drawn_or_refused_but_never_break) {
    static const double x[] = {1, 2, 3, 4}, lone[] = {(double)NAN, 7, (double)NAN, (double)NAN},
                        flat[] = {3, 3, 3, 3}, zero[] = {0, 0, 0, 0}, mixed[] = {-1, 0, 1, 1e9},
                        none[] = {(double)NAN, (double)INFINITY, -(double)INFINITY,
                                  (double)NAN},
                        tiny[] = {1e-300, 1e-200, 1, 1e300};
    const struct {
        const double *y;
        icae_plot_axis axis;
        bool is_drawn;
    } cases[] = {
        {lone, ICAE_PLOT_AUTO, true},   {lone, ICAE_PLOT_LOG, true},
        {flat, ICAE_PLOT_AUTO, true},   {flat, ICAE_PLOT_LOG, true},
        {zero, ICAE_PLOT_AUTO, true},   {zero, ICAE_PLOT_LOG, false},
        {mixed, ICAE_PLOT_AUTO, true},  {mixed, ICAE_PLOT_LOG, true},
        {none, ICAE_PLOT_AUTO, false},  {tiny, ICAE_PLOT_LOG, true},
        {tiny, ICAE_PLOT_LINEAR, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int style = ICAE_PLOT_LINE; style <= ICAE_PLOT_POINTS; style++) {
            const icae_plot_series series = {"s", x, cases[i].y, 4, (icae_plot_style)style, 0};
            const icae_plot plot = {.title = "t",
                                    .x_label = "x",
                                    .y_label = "y",
                                    .series = &series,
                                    .n_series = 1,
                                    .y_axis = cases[i].axis};
            icae_text svg = {0};
            icae_error error = {0};
            if (cases[i].is_drawn) {
                ck_ok(icae_plot_render(&svg, &plot, &error));
                check_well_formed(svg.data);
            } else {
                ck_refused(icae_plot_render(&svg, &plot, &error), "no point");
            }
            icae_text_release(&svg);
        }
    }
}
END_TEST

START_TEST(smoothing_is_the_mean_of_the_window) {
    static const double y[] = {1, 2, (double)NAN, 4, 9, (double)INFINITY, 7};
    double out[7];
    icae_plot_smooth(y, 7, 1, out);
    static const double expected[] = {1.5, 1.5, 3, 6.5, 6.5, 8, 7};
    for (int i = 0; i < 7; i++)
        ck_assert_double_eq_tol(out[i], expected[i], 1e-12);
    icae_plot_smooth(y, 7, 100, out);
    for (int i = 0; i < 7; i++)
        ck_assert_double_eq_tol(out[i], 23.0 / 5, 1e-12);
    icae_plot_smooth(y, 7, 0, out);
    ck_assert(isnan(out[2]) && out[3] >= 4 && out[3] <= 4);
}
END_TEST

START_TEST(a_file_without_losses_is_refused) {
    icae_error error = {0};
    const char *folder = test_folder("plot-empty");
    char in[256], out[256];
    snprintf(in, sizeof in, "%s/metrics.jsonl", folder);
    snprintf(out, sizeof out, "%s/loss.svg", folder);
    ck_refused(icae_plot_metrics(in, out, "run", &error), "metrics.jsonl");
    ck_ok(icae_file_write(in, "{\"step\": 3}\n", 12, &error));
    ck_refused(icae_plot_metrics(in, out, "run", &error), "no point");
    ck_assert(!icae_path_exists(out));
}
END_TEST

START_TEST(a_title_of_any_bytes_leaves_a_picture) {
    icae_error error = {0};
    const double x[] = {1, 2}, y[] = {3, 4};
    icae_plot_series series = {.name = "loss", .x = x, .y = y, .n = 2};
    icae_plot plot = {.title = "runs/caf\xE9 \xE2\x82",
                      .x_label = "step",
                      .y_label = "loss",
                      .series = &series,
                      .n_series = 1};
    icae_text svg = {0};
    ck_ok(icae_plot_render(&svg, &plot, &error));
    ck_assert(icae_utf8_is_valid(svg.data, svg.length));
    ck_assert_ptr_nonnull(strstr(svg.data, "runs/caf\xEF\xBF\xBD \xEF\xBF\xBD<"));
    icae_text_release(&svg);
}
END_TEST

SUITE_OF(plot, 60, a_title_of_any_bytes_leaves_a_picture, a_run_becomes_one_well_formed_picture,
         the_same_numbers_give_the_same_bytes, a_long_run_makes_a_small_file,
         a_resumed_run_counts_only_its_later_records, a_point_lies_where_its_value_says,
         strange_series_are_drawn_or_refused_but_never_break,
         smoothing_is_the_mean_of_the_window, a_file_without_losses_is_refused)
