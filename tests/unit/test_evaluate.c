/* SPDX-License-Identifier: MIT */
/* The suites of icae/evaluate.h against the golden losses, whatever the batch; logs and tables. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/evaluate.h"
#include "icae/file.h"
#include "icae/json.h"
#include "suites.h"

enum { SAMPLES = 3, MOST_IDS = 512 };

static icae_error error;
static const double tolerance = ICAE_REAL_IS_DOUBLE ? 1e-9 : 1e-5;

/* The golden llama case: model, adapter, and its samples. */
typedef struct golden {
    icae_backend *be;
    icae_graph *graph;
    icae_model *model;
    icae_adapter *adapter;
    icae_json *json;
    int32_t ids[SAMPLES][2][MOST_IDS];
    icae_eval_engine engine;
    icae_eval_item list[SAMPLES];
    char label[1][64];
    icae_eval_items items; /* borrows the two above */
} golden;

static int64_t read_ids(const icae_json_value *list, int32_t *out) {
    int64_t n = 0;
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
        int64_t id;
        ck_assert(icae_json_as_integer(v, &id) && n < MOST_IDS);
        out[n++] = (int32_t)id;
    }
    return n;
}

static double number(const icae_json_value *object, const char *key) {
    double value = (double)NAN;
    ck_assert(icae_json_as_number(icae_json_member(object, key), &value));
    return value;
}

static golden *golden_open(void) {
    golden *g = calloc(1, sizeof *g);
    ck_ok(icae_backend_create(&g->be, NULL, 0, &error));
    ck_ok(icae_graph_create(&g->graph, g->be, &error));
    ck_ok(icae_model_open(&g->model, "tests/golden/llama/model", &error));
    ck_ok(icae_adapter_load(&g->adapter, "tests/golden/llama/adapter", g->model, g->be, false,
                            &error));
    ck_ok(icae_json_open(&g->json, "tests/golden/llama/expected.json", &error));
    const icae_json_value *s =
        icae_json_first(icae_json_member(icae_json_root(g->json), "samples"));
    for (int i = 0; i < SAMPLES; i++, s = icae_json_next(s)) {
        icae_eval_item *item = &g->list[i];
        item->n = read_ids(icae_json_member(s, "context"), g->ids[i][0]);
        item->n_continuation = read_ids(icae_json_member(s, "continuation"), g->ids[i][1]);
        item->ids = g->ids[i][0];
        item->continuation = g->ids[i][1];
    }
    snprintf(g->label[0], sizeof g->label[0], "golden");
    g->engine = (icae_eval_engine){g->graph, g->model, g->adapter};
    g->items =
        (icae_eval_items){.list = g->list, .n = SAMPLES, .labels = g->label, .n_groups = 1};
    return g;
}

static void golden_close(golden *g) {
    icae_json_free(g->json);
    icae_adapter_free(g->adapter);
    icae_model_close(g->model);
    icae_graph_free(g->graph);
    icae_backend_free(g->be);
    free(g);
}

/* The settings that a suite would run with, were nothing given. */
static icae_eval_settings settings_of(const golden *g, const icae_eval_suite *suite) {
    icae_eval_settings settings = {.samples = -1,
                                   .batch = -1,
                                   .tokens = -1,
                                   .continuation = -1,
                                   .skip = -1,
                                   .window = -1,
                                   .stride = -1,
                                   .generate = 8};
    suite->fill(&g->engine, &settings);
    return settings;
}

/* A column of the table over all samples. */
static double column_of(const golden *g, const char *suite_name, const char *key,
                        const icae_eval_settings *settings, const icae_eval_row *rows) {
    const icae_eval_suite *suite = icae_eval_suite_find(suite_name);
    icae_eval_table table;
    icae_eval_source source = {"base", "adapter", "data", "command"};
    ck_ok(icae_eval_table_make(&table, suite, settings, &g->items, rows, &source, &error));
    double value = (double)NAN;
    bool is_there = false;
    for (const icae_eval_column *c = suite->columns; c->key; c++) {
        if (strcmp(c->key, key) != 0) continue;
        value = icae_eval_column_value(c, &table.lines[0]);
        is_there = true;
    }
    ck_assert_msg(is_there, "%s has no column %s", suite_name, key);
    icae_eval_table_release(&table);
    return value;
}

START_TEST(ae_and_lm_losses_are_the_golden_ones) {
    golden *g = golden_open();
    const icae_json_value *root = icae_json_root(g->json);
    static const char *const names[] = {"ae", "lm"}, *const keys[] = {"ae_loss", "lm_loss"};
    for (int64_t batch = 1; batch <= SAMPLES; batch++) {
        for (int i = 0; i < 2; i++) {
            const icae_eval_suite *suite = icae_eval_suite_find(names[i]);
            icae_eval_settings settings = settings_of(g, suite);
            settings.batch = batch;
            settings.is_loss_only = true;
            settings.spans_together = true; /* as the golden losses are */
            icae_eval_row *rows = calloc(SAMPLES, sizeof *rows);
            ck_ok(icae_eval_run(suite, &g->engine, &settings, &g->items, NULL, NULL, rows,
                                &error));
            double expected = number(root, keys[i]);
            ck_assert_double_eq_tol(column_of(g, names[i], "loss", &settings, rows), expected,
                                    tolerance * expected);
            icae_eval_rows_release(rows, SAMPLES);
        }
    }
    golden_close(g);
}
END_TEST

START_TEST(lengths_of_one_text_have_slots_of_their_own) {
    golden *g = golden_open();
    const icae_eval_suite *suite = icae_eval_suite_find("ae");
    icae_eval_settings settings = settings_of(g, suite);
    settings.is_loss_only = true;
    /* The beginning of one text, all of it, and it again: the last two may share their slots. */
    for (int i = 1; i < SAMPLES; i++)
        g->list[i] = g->list[0];
    g->list[0].n /= 2;
    double losses[2][SAMPLES];
    int nll = icae_eval_value(suite, "nll");
    for (int together = 0; together < 2; together++) {
        settings.batch = together ? SAMPLES : 1;
        icae_eval_row *rows = calloc(SAMPLES, sizeof *rows);
        ck_ok(icae_eval_run(suite, &g->engine, &settings, &g->items, NULL, NULL, rows, &error));
        for (int i = 0; i < SAMPLES; i++)
            losses[together][i] = rows[i].values[nll];
        icae_eval_rows_release(rows, SAMPLES);
    }
    for (int i = 0; i < SAMPLES; i++)
        ck_assert_double_eq_tol(losses[1][i], losses[0][i], tolerance * losses[0][i]);
    golden_close(g);
}
END_TEST

START_TEST(perplexity_is_the_golden_likelihood) {
    golden *g = golden_open();
    const icae_json_value *base = icae_json_member(icae_json_root(g->json), "base");
    int32_t ids[MOST_IDS];
    int64_t n = read_ids(icae_json_member(base, "ids"), ids), at = 1;
    double sum = 0;
    for (const icae_json_value *v = icae_json_first(icae_json_member(base, "nll")); v;
         v = icae_json_next(v), at++) {
        double nll;
        ck_assert(icae_json_as_number(v, &nll));
        sum += nll;
    }
    const icae_eval_suite *suite = icae_eval_suite_find("ppl");
    icae_eval_item text = {.ids = ids, .n = n};
    icae_eval_settings settings = {.window = 64, .stride = 32};
    icae_eval_row whole = {.texts = NULL}, narrow = {.texts = NULL};
    ck_ok(suite->measure(&g->engine, &settings, &text, 1, &whole, &error));
    int targets = icae_eval_value(suite, "targets"), nll = icae_eval_value(suite, "nll");
    ck_assert_double_eq(whole.values[targets], (double)(n - 1));
    ck_assert_double_eq_tol(whole.values[nll], sum, tolerance * sum);
    /* A window that sees less than the whole text finds it more surprising or less, not the same. */
    settings.window = 10;
    settings.stride = 3;
    ck_ok(suite->measure(&g->engine, &settings, &text, 1, &narrow, &error));
    ck_assert_double_eq(narrow.values[targets], (double)(n - 1));
    ck_assert_double_gt(fabs(narrow.values[nll] - whole.values[nll]), 1e-3);
    golden_close(g);
}
END_TEST

START_TEST(raw_loss_is_that_of_the_joined_text) {
    golden *g = golden_open();
    const icae_eval_suite *suite = icae_eval_suite_find("lm");
    icae_eval_settings settings = settings_of(g, suite);
    icae_eval_row row = {.texts = NULL};
    ck_ok(suite->measure(&g->engine, &settings, g->list, 1, &row, &error));
    int32_t joined[2 * MOST_IDS];
    int64_t n = g->list[0].n, more = g->list[0].n_continuation;
    memcpy(joined, g->list[0].ids, (size_t)n * sizeof *joined);
    memcpy(joined + n, g->list[0].continuation, (size_t)more * sizeof *joined);
    icae_eval_sequence ways[2] = {{joined, n + more, n + 8}, {joined + n, more, 8}};
    double sums[2];
    ck_ok(icae_eval_base_nll(g->graph, g->model, ways, 2, sums, NULL, &error));
    ck_assert_double_eq_tol(row.values[icae_eval_value(suite, "nll_raw")], sums[0],
                            1e-6 * sums[0]);
    ck_assert_double_eq_tol(row.values[icae_eval_value(suite, "nll_none")], sums[1],
                            1e-6 * sums[1]);
    golden_close(g);
}
END_TEST

START_TEST(questions_are_scored_behind_slots_text_and_nothing) {
    golden *g = golden_open();
    const icae_eval_suite *suite = icae_eval_suite_find("qa");
    /* Two questions about the first text, one about the second. */
    for (int i = 0; i < SAMPLES; i++) {
        if (i < 2) g->list[i].ids = g->ids[0][0], g->list[i].n = g->list[0].n;
        g->list[i].prompt = g->ids[i][1];
        g->list[i].n_prompt = 5;
        g->list[i].answer = g->ids[i][1] + 5;
        g->list[i].n_answer = 4;
        g->list[i].prompt_text = "What \"was\" it?";
        g->list[i].answer_text = "It was the ship.";
    }
    icae_eval_settings settings = settings_of(g, suite);
    icae_eval_row apart[SAMPLES], together[SAMPLES];
    memset(apart, 0, sizeof apart);
    memset(together, 0, sizeof together);
    ck_ok(suite->measure(&g->engine, &settings, g->list, SAMPLES, together, &error));
    for (int i = 0; i < SAMPLES; i++) {
        ck_ok(suite->measure(&g->engine, &settings, &g->list[i], 1, &apart[i], &error));
        for (int v = 0; suite->values[v]; v++)
            ck_assert_double_eq(apart[i].values[v], together[i].values[v]);
        ck_assert_str_eq(apart[i].texts, together[i].texts);
        ck_assert_ptr_nonnull(strstr(apart[i].texts, "\"question\": \"What \\\"was\\\" it?\""));
        free(apart[i].texts);
        free(together[i].texts);
    }
    int raw = icae_eval_value(suite, "nll_raw"), none = icae_eval_value(suite, "nll_none");
    ck_assert_double_ne(together[0].values[raw], together[0].values[none]);
    /* Behind nothing the second question about a text is what it is about any other. */
    ck_assert_double_eq(together[0].values[icae_eval_value(suite, "tokens")],
                        together[1].values[icae_eval_value(suite, "tokens")]);
    golden_close(g);
}
END_TEST

/* ---- logs ---- */

typedef struct seen {
    int progress, stop_at;
    int64_t last;
} seen;

static bool see_progress(void *user, int64_t done, int64_t total) {
    seen *s = user;
    ck_assert_int_eq(total, SAMPLES);
    ck_assert_int_gt(done, s->last);
    s->last = done;
    return ++s->progress != s->stop_at;
}

START_TEST(a_stopped_run_goes_on_and_ends_like_one_that_was_not) {
    golden *g = golden_open();
    const icae_eval_suite *suite = icae_eval_suite_find("ae");
    const char *folder = test_folder("evaluate-log");
    const char *log = test_path(folder, "ae.jsonl"), *whole_log = test_path(folder, "w.jsonl");
    icae_eval_settings settings = settings_of(g, suite);
    settings.batch = 1;
    seen s = {.stop_at = 3, .last = -1};
    icae_eval_watch watch = {see_progress, &s};
    icae_eval_row *rows = calloc(SAMPLES, sizeof *rows);
    icae_eval_row *whole = calloc(SAMPLES, sizeof *whole);
    ck_ok(
        icae_eval_run(suite, &g->engine, &settings, &g->items, whole_log, NULL, whole, &error));
    ck_assert_int_eq(
        icae_eval_run(suite, &g->engine, &settings, &g->items, log, &watch, rows, &error),
        ICAE_INTERRUPTED);
    icae_eval_rows_release(rows, SAMPLES);
    /* A machine that stopped in the middle of a line. */
    ck_ok(icae_file_append(log, "{\"item\": 2, \"tok", 17, &error));
    rows = calloc(SAMPLES, sizeof *rows);
    s = (seen){.last = 1}; /* what the log holds is told first */
    ck_ok(icae_eval_run(suite, &g->engine, &settings, &g->items, log, &watch, rows, &error));
    ck_assert_int_eq(s.progress, 2); /* and only the third is measured */
    for (int i = 0; i < SAMPLES; i++) {
        for (int v = 0; suite->values[v]; v++)
            ck_assert_double_eq(rows[i].values[v], whole[i].values[v]);
    }
    char *a, *b;
    ck_ok(icae_file_read(log, 1 << 20, &a, NULL, &error));
    ck_ok(icae_file_read(whole_log, 1 << 20, &b, NULL, &error));
    ck_assert_str_eq(a, b);
    ck_assert_ptr_nonnull(strstr(a, "\"restored\": "));
    free(a);
    free(b);
    icae_eval_rows_release(rows, SAMPLES);
    icae_eval_rows_release(whole, SAMPLES);
    golden_close(g);
}
END_TEST

START_TEST(a_log_of_another_run_is_refused_by_what_differs) {
    golden *g = golden_open();
    const icae_eval_suite *suite = icae_eval_suite_find("lm");
    const char *log = test_path(test_folder("evaluate-other"), "lm.jsonl");
    icae_eval_settings settings = settings_of(g, suite), other = settings;
    icae_eval_row *rows = calloc(SAMPLES, sizeof *rows);
#define RUN(with) icae_eval_run(suite, &g->engine, with, &g->items, log, NULL, rows, &error)
    ck_ok(RUN(&settings));
    ck_ok(RUN(&settings));
    other.skip = 9;
    ck_refused(RUN(&other), "another --skip");
    other = settings;
    other.continuation = 7;
    ck_refused(RUN(&other), "another --continuation");
    g->ids[1][0][0]++;
    ck_refused(RUN(&settings), "another data");
    g->ids[1][0][0]--;
    g->adapter->fingerprint++;
    ck_refused(RUN(&settings), "another adapter");
    g->adapter->fingerprint--;
    g->model->fingerprint++;
    ck_refused(RUN(&settings), "another base");
    g->model->fingerprint--;
    ck_ok(RUN(&settings));
    char *text;
    size_t bytes;
    ck_ok(icae_file_read(log, 1 << 20, &text, &bytes, &error));
    for (char *c = strstr(text, "\"item\": 1"); *c != '}'; c++)
        if (*c == ':') *c = ',';
    ck_ok(icae_file_write(log, text, bytes, &error));
    ck_refused(RUN(&settings), "line 3");
    ck_ok(icae_file_write(log, "no log\n", 7, &error));
    ck_refused(RUN(&settings), "no log of icae eval");
    /* One line without an end may be all of somebody's text, or a log that was just begun. */
    ck_ok(icae_file_write(log, "{\"text\": 1}", 11, &error));
    ck_refused(RUN(&settings), "no log of icae eval");
    free(text);
    ck_ok(icae_file_read(log, 1 << 20, &text, NULL, &error));
    ck_assert_str_eq(text, "{\"text\": 1}");
    static const char *const begun[] = {"", "{\"icae", "{\"icae_eval\": 1, \"suite\": \"l"};
    for (size_t i = 0; i < sizeof begun / sizeof begun[0]; i++) {
        ck_ok(icae_file_write(log, begun[i], strlen(begun[i]), &error));
        ck_ok(RUN(&settings));
    }
#undef RUN
    free(text);
    icae_eval_rows_release(rows, SAMPLES);
    golden_close(g);
}
END_TEST

/* ---- tables ---- */

static icae_text written(const golden *g, const icae_eval_row *rows,
                         const icae_eval_settings *settings,
                         void (*write)(icae_text *, const icae_eval_table *)) {
    icae_eval_table table;
    icae_eval_source source = {"b|ase.gguf", "ad\"apter", NULL, "icae eval 'd*/* <b>\\|\n'"};
    ck_ok(icae_eval_table_make(&table, icae_eval_suite_find("ae"), settings, &g->items, rows,
                               &source, &error));
    icae_text text = {0};
    if (write) {
        write(&text, &table);
    } else {
        const icae_eval_table *const tables[] = {&table};
        ck_ok(icae_eval_write_page(&text, tables, 1, &error));
    }
    icae_eval_table_release(&table);
    ck_assert(!text.failed);
    return text;
}

START_TEST(every_line_of_a_table_says_what_it_is_from) {
    golden *g = golden_open();
    const icae_eval_suite *suite = icae_eval_suite_find("ae");
    icae_eval_settings settings = settings_of(g, suite);
    icae_eval_row *rows = calloc(SAMPLES, sizeof *rows);
    ck_ok(icae_eval_run(suite, &g->engine, &settings, &g->items, NULL, NULL, rows, &error));
    icae_text json = written(g, rows, &settings, icae_eval_write_json);
    icae_json *parsed;
    ck_ok(icae_json_parse(&parsed, "json", json.data, json.length, &error));
    const icae_json_value *root = icae_json_root(parsed);
    ck_assert_double_eq(number(root, "n"), SAMPLES);
    ck_assert_double_eq(number(icae_json_first(icae_json_member(root, "lines")), "loss"),
                        number(root, "loss"));
    ck_assert_str_eq(icae_json_as_string(icae_json_member(root, "adapter")), "ad\"apter");
    icae_text csv = written(g, rows, &settings, icae_eval_write_csv);
    ck_assert_ptr_nonnull(strstr(
        csv.data, "\"b|ase.gguf\",\"ad\"\"apter\",\"\",\"icae eval 'd*/* <b>\\|\n'\"\r\n"));
    icae_text markdown = written(g, rows, &settings, icae_eval_write_markdown);
    ck_assert_ptr_nonnull(
        strstr(markdown.data,
               "| b\\|ase.gguf | ad\"apter | - | icae eval 'd\\*/\\* \\<b>\\\\\\| ' |\n"));
    icae_text page = written(g, rows, &settings, NULL);
    ck_assert_ptr_nonnull(strstr(page.data, "<svg"));
    ck_assert_ptr_nonnull(strstr(page.data, "ad&quot;apter"));
    ck_assert_ptr_nonnull(strstr(page.data, "prefers-color-scheme:dark"));
    ck_assert_ptr_null(strstr(page.data, "<script"));
    ck_assert_ptr_null(strstr(page.data, "http"));
    icae_json_free(parsed);
    icae_text_release(&json);
    icae_text_release(&csv);
    icae_text_release(&markdown);
    icae_text_release(&page);
    icae_eval_rows_release(rows, SAMPLES);
    golden_close(g);
}
END_TEST

/* A name's ending tells what a file is, not what stands before it. */
START_TEST(text_files_are_told_by_their_ending) {
    static const struct {
        const char *name;
        bool is_text;
    } files[] = {{"a.txt", true}, {"a.txt.v2.txt", true}, {"a.txt.jsonl", false}};
    static const char text[] =
        "{\"text\": \"The ship came in on a Monday, and nobody was at the harbour to see it; "
        "but "
        "on the Tuesday all of them were there, and there was no ship.\"}\n";
    golden *g = golden_open();
    const char *folder = test_folder("evaluate-endings");
    const icae_eval_suite *suite = icae_eval_suite_find("ppl");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        icae_eval_settings settings = settings_of(g, suite);
        icae_eval_items items = {0};
        settings.data = test_path(folder, files[i].name);
        settings.tokens = 10;
        ck_ok(icae_file_write(settings.data, text, sizeof text - 1, &error));
        ck_ok(suite->collect(&g->engine, &settings, &items, &error));
        ck_assert_msg((items.n > 1) == files[i].is_text, "%s: %lld pieces", files[i].name,
                      (long long)items.n);
        icae_eval_items_release(&items);
    }
    golden_close(g);
}
END_TEST

/* Where an adapter's contexts begin with BOS, so does every piece of a text file, not the first alone. */
START_TEST(every_piece_of_a_text_begins_as_contexts_do) {
    static const char text[] =
        "The ship came in on a Monday, and nobody was at the harbour to see it; but on the "
        "Tuesday all of them were there, and there was no ship.";
    golden *g = golden_open();
    const icae_eval_suite *suite = icae_eval_suite_find("ae");
    const int32_t bos = icae_tokenizer_bos(g->model->tokenizer);
    ck_assert_int_ge(bos, 0);
    icae_eval_settings settings = settings_of(g, suite);
    settings.data = test_path(test_folder("evaluate-pieces"), "a.txt");
    settings.tokens = 10;
    ck_ok(icae_file_write(settings.data, text, sizeof text - 1, &error));
    icae_eval_items plain = {0}, begun = {0};
    ck_ok(suite->collect(&g->engine, &settings, &plain, &error));
    g->adapter->settings.context_bos = true;
    ck_ok(suite->collect(&g->engine, &settings, &begun, &error));
    ck_assert_int_gt(begun.n, 2);
    for (int64_t i = 0; i < begun.n; i++) {
        ck_assert_int_eq(begun.list[i].ids[0], bos);
        ck_assert_int_ne(plain.list[i < plain.n ? i : 0].ids[0], bos);
        /* the text stands one token later in pieces that begin with BOS */
        if (i < plain.n && begun.list[i].n == plain.list[i].n)
            ck_assert_mem_eq(begun.list[i].ids + 2, plain.list[i].ids + 1,
                             (size_t)(plain.list[i].n - 2) * sizeof(int32_t));
    }
    icae_eval_items_release(&plain);
    icae_eval_items_release(&begun);
    golden_close(g);
}
END_TEST

START_TEST(refuses_samples_without_anything_to_score) {
    golden *g = golden_open();
    icae_eval_settings settings = {.skip = 30, .window = 8, .stride = 8};
    icae_eval_row row = {.texts = NULL};
    icae_eval_items none = {0};
    const icae_eval_suite *lm = icae_eval_suite_find("lm"), *ppl = icae_eval_suite_find("ppl");
    ck_refused(icae_eval_run(lm, &g->engine, &settings, &none, NULL, NULL, &row, &error),
               "no text");
    ck_refused(lm->measure(&g->engine, &settings, g->list, 1, &row, &error),
               "expected more than 30");
    settings.continuation = 30;
    ck_refused(lm->collect(&g->engine, &settings, &none, &error),
               "leaves nothing: raise --cont");
    ck_refused(ppl->measure(&g->engine, &settings, g->list, 1, &row, &error), "stride");
    settings.window = g->model->config.context_length + 1;
    ck_refused(ppl->measure(&g->engine, &settings, g->list, 1, &row, &error), "--window");
    ck_assert_ptr_null(icae_eval_suite_find("nothing"));
    golden_close(g);
}
END_TEST

SUITE_OF(evaluate, 120, ae_and_lm_losses_are_the_golden_ones,
         lengths_of_one_text_have_slots_of_their_own, perplexity_is_the_golden_likelihood,
         raw_loss_is_that_of_the_joined_text,
         questions_are_scored_behind_slots_text_and_nothing,
         a_stopped_run_goes_on_and_ends_like_one_that_was_not,
         a_log_of_another_run_is_refused_by_what_differs,
         every_line_of_a_table_says_what_it_is_from, text_files_are_told_by_their_ending,
         every_piece_of_a_text_begins_as_contexts_do, refuses_samples_without_anything_to_score)
