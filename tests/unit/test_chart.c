/* SPDX-License-Identifier: MIT */
/* Charts: what is drawn, that nothing from outside gets into the page unescaped, and what is refused. */
#include <math.h>
#include <string.h>

#include "icae/chart.h"
#include "suites.h"

static icae_error error;

static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
        n++;
    return n;
}

static const char *const categories[] = {"100", "200", "<300>"};
static const double high[] = {99.25, 80, 61.5}, low[] = {50, (double)NAN, 10};

static icae_chart chart_of(icae_chart_kind kind) {
    return (icae_chart){.kind = kind,
                        .title = "A & B",
                        .x_label = "tokens",
                        .y_label = "BLEU-4",
                        .categories = categories,
                        .n_categories = 3,
                        .names = {"first", "second"},
                        .values = {high, low},
                        .n_series = 2,
                        .most = 100,
                        .digits = 1};
}

START_TEST(every_value_has_a_mark_and_its_number) {
    static const icae_chart_kind kinds[] = {ICAE_CHART_BARS, ICAE_CHART_LINES};
    for (int k = 0; k < 2; k++) {
        icae_chart chart = chart_of(kinds[k]);
        icae_text svg = {0}, again = {0};
        ck_ok(icae_chart_render(&svg, &chart, &error));
        ck_ok(icae_chart_render(&again, &chart, &error));
        ck_assert_str_eq(svg.data, again.data);
        static const char *const numbers[] = {">99.2<", ">80.0<", ">61.5<", ">50.0<", ">10.0<"};
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
            ck_assert_msg(strstr(svg.data, numbers[i]) != NULL, "no %s", numbers[i]);
        ck_assert_ptr_null(strstr(svg.data, "nan"));
        ck_assert_ptr_nonnull(strstr(svg.data, "&lt;300&gt;"));
        ck_assert_ptr_nonnull(strstr(svg.data, "A &amp; B"));
        ck_assert_ptr_nonnull(strstr(svg.data, ">tokens<"));
        ck_assert_ptr_nonnull(strstr(svg.data, ">BLEU-4<"));
        if (kinds[k] == ICAE_CHART_BARS) ck_assert_int_eq(count(svg.data, "<rect"), 5 + 2);
        icae_text_release(&svg);
        icae_text_release(&again);
    }
}
END_TEST

START_TEST(stacked_bars_stand_on_each_other) {
    const double parts[] = {30, 30, 30}, rest[] = {70, 70, 70};
    icae_chart chart = chart_of(ICAE_CHART_STACKED);
    chart.values[0] = parts;
    chart.values[1] = rest;
    icae_text svg = {0};
    ck_ok(icae_chart_render(&svg, &chart, &error));
    /* 270 pixels are 100: the second bar is 189 high, from the top of the frame at 84. */
    ck_assert_int_eq(count(svg.data, "y=\"84.0\" width=\"84.0\" height=\"189.0\""), 3);
    ck_assert_int_eq(count(svg.data, "y=\"273.0\" width=\"84.0\" height=\"81.0\""), 3);
    icae_text_release(&svg);
}
END_TEST

START_TEST(the_axis_ends_at_a_round_number_above_the_values) {
    static const struct {
        double value;
        const char *last;
    } cases[] = {
        {0.017, ">0.020<"}, {9.5, ">10<"}, {123, ">150<"}, {1e6, ">1000000<"}, {0, ">1.0<"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_chart chart = chart_of(ICAE_CHART_BARS);
        const double *value = &cases[i].value;
        chart.n_categories = chart.n_series = 1;
        chart.values[0] = value;
        chart.most = 0;
        icae_text svg = {0};
        ck_ok(icae_chart_render(&svg, &chart, &error));
        ck_assert_msg(strstr(svg.data, cases[i].last) != NULL, "%g: no %s in %s", *value,
                      cases[i].last, svg.data);
        icae_text_release(&svg);
    }
}
END_TEST

START_TEST(refuses_a_chart_of_nothing) {
    const double none[] = {(double)NAN, -1, (double)INFINITY};
    icae_chart chart = chart_of(ICAE_CHART_LINES);
    chart.n_series = 1;
    chart.values[0] = none;
    icae_text svg = {0};
    ck_refused(icae_chart_render(&svg, &chart, &error), "nothing that a chart can show");
    icae_text_release(&svg);
}
END_TEST

START_TEST(pages_hold_what_they_are_given_as_text) {
    icae_text page = {0};
    icae_html_begin(&page, "<b>\"x\" & y</b>", ".mine{color:red}");
    icae_html_escape(&page, "a<b\x01\n", 5);
    icae_html_end(&page);
    ck_assert_ptr_nonnull(
        strstr(page.data, "<title>&lt;b&gt;&quot;x&quot; &amp; y&lt;/b&gt;</title>"));
    ck_assert_ptr_nonnull(strstr(page.data, ".mine{color:red}</style>"));
    ck_assert_ptr_nonnull(strstr(page.data, "<body>\na&lt;b \n</body>"));
    icae_text_release(&page);
}
END_TEST

SUITE_OF(chart, 30, every_value_has_a_mark_and_its_number, stacked_bars_stand_on_each_other,
         the_axis_ends_at_a_round_number_above_the_values, refuses_a_chart_of_nothing,
         pages_hold_what_they_are_given_as_text)
