/* SPDX-License-Identifier: MIT */
/*
 * icae eval: runs the suites of icae/evaluate.h and writes what they give.
 *
 *     --out DIR   SUITE.jsonl     a line a sample; what a run that is started again goes on from
 *                 SUITE.csv       a line a group
 *                 results.json, results.md, report.html     of the last command
 *
 * `all` runs every suite that it has data for, and writes its results after each; a suite by itself refuses
 * options that mean nothing to it.
 */
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "icae/evaluate.h"
#include "icae/file.h"
#include "icae/log.h"
#include "report.h"

enum { MOST_LENGTHS = 64, MOST_SUITES = 8 };

/* One suite of a command. Lives until the page is written: tables point into rows and items. */
typedef struct evaluation {
    const icae_eval_suite *suite;
    icae_eval_settings settings;
    icae_eval_items items;
    icae_eval_row *rows;
    icae_eval_table table;
    double start_s;
    int64_t
        first_done; /* at the first report of progress: what the log held is no work of this run */
} evaluation;

typedef struct command_run {
    const options *given;
    engine engine;
    int64_t lengths[MOST_LENGTHS], cells[2 * MOST_LENGTHS];
    int64_t n_lengths, n_cells;
    evaluation list[MOST_SUITES];
    size_t n;
    bool is_all;
} command_run;

/* ---- options ---- */

/* "100,200" (per = 1) or "8x512,32x512" (per = 2) into out; -1 when it is no such list. */
static int64_t read_list(const char *text, int per, int64_t *out) {
    int64_t n = 0;
    while (n < MOST_LENGTHS) {
        for (int i = 0; i < per; i++) {
            char *end;
            long long value = strtoll(text, &end, 10);
            if (end == text || value < 1 || value > 1 << 24) return -1;
            out[n * per + i] = value;
            text = end;
            if (i + 1 < per && *text++ != 'x') return -1;
        }
        n++;
        if (*text == 0) return n;
        if (*text++ != ',') return -1;
    }
    return -1;
}

/* An option that was given and means nothing to the suite, or NULL. */
static const char *ignored_option(const options *given, const icae_eval_suite *suite) {
    const struct {
        const char *name;
        bool is_given;
    } all[] = {
        {"data", given->data != NULL},
        {"samples", given->samples >= 0},
        {"batch", given->batch >= 0},
        {"tokens", given->tokens >= 0},
        {"lengths", given->lengths != NULL},
        {"rate", given->rate > 0},
        {"refine", given->refine >= 0},
        {"together", given->is_together},
        {"continuation", given->continuation >= 0},
        {"skip", given->skip >= 0},
        {"window", given->window >= 0},
        {"stride", given->stride >= 0},
        {"generate", given->generate >= 0},
        {"grid", given->grid != NULL},
        {"seed", given->seed != 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].is_given && icae_eval_suite_ignores(suite, all[i].name)) return all[i].name;
    }
    return NULL;
}

static int check_options(command_run *run) {
    const options *given = run->given;
    const icae_eval_suite *suite = icae_eval_suite_find(given->words[0]);
    run->is_all = strcmp(given->words[0], "all") == 0;
    if (!suite && !run->is_all) {
        return usage_error("eval", EVAL_USAGE,
                           "unknown suite \"%s\"; known: ae, lm, random, qa, latency, ppl, all",
                           given->words[0]);
    }
    const char *ignored = suite ? ignored_option(given, suite) : NULL;
    if (ignored) {
        return usage_error("eval", EVAL_USAGE, "--%s means nothing to suite %s", ignored,
                           suite->name);
    }
    if (!given->data && (run->is_all || suite->wants_data))
        return usage_error("eval", EVAL_USAGE, "which texts? Give --data FILE");
    if (!given->adapter && (run->is_all || suite->wants_adapter)) {
        return usage_error("eval", EVAL_USAGE,
                           "which adapter? Give -a ADAPTER, or set ICAE_ADAPTER");
    }
    if (given->questions && !run->is_all) {
        return usage_error(
            "eval", EVAL_USAGE,
            "--questions belongs to \"all\"; qa takes its questions from --data");
    }
    if (given->lengths) run->n_lengths = read_list(given->lengths, 1, run->lengths);
    if (given->grid) run->n_cells = read_list(given->grid, 2, run->cells);
    if (run->n_lengths < 0) {
        return usage_error("eval", EVAL_USAGE,
                           "--lengths %s: expected numbers of tokens with commas between",
                           given->lengths);
    }
    if (run->n_cells < 0) {
        return usage_error(
            "eval", EVAL_USAGE,
            "--grid %s: expected TEXTSxTOKENS with commas between, as 8x512,8x2048",
            given->grid);
    }
    return -1;
}

static icae_eval_settings settings_of(const command_run *run, const icae_eval_suite *suite) {
    const options *given = run->given;
    bool is_questions = run->is_all && strcmp(suite->name, "qa") == 0;
    icae_eval_settings settings = {.data = is_questions ? given->questions : given->data,
                                   .samples = given->samples,
                                   .batch = given->batch,
                                   .tokens = given->tokens,
                                   .lengths = run->lengths,
                                   .n_lengths = run->n_lengths,
                                   .continuation = given->continuation,
                                   .skip = given->skip,
                                   .window = given->window,
                                   .stride = given->stride,
                                   .generate = given->generate,
                                   .refine = given->refine,
                                   .spans_together = given->is_together,
                                   .cells = run->cells,
                                   .n_cells = run->n_cells,
                                   .seed = (uint64_t)given->seed};
    /* In `all` these count texts and cut them; rounds and questions are another matter. */
    if (run->is_all && strcmp(suite->name, "latency") == 0) settings.samples = -1;
    if (is_questions) settings.tokens = -1;
    return settings;
}

/* ---- results ---- */

static icae_status write_into(const char *folder, const char *name, icae_text *text,
                              icae_error *error) {
    char *path = icae_path_join(folder, name);
    icae_status status = path && !text->failed
                             ? icae_file_write(path, text->data, text->length, error)
                             : icae_fail_memory(error, name);
    free(path);
    icae_text_release(text);
    return status;
}

static void write_json(icae_text *out, const command_run *run) {
    if (run->is_all) icae_text_append_string(out, "{\"suites\": [");
    for (size_t i = 0; i < run->n; i++) {
        if (i) icae_text_append_string(out, ", ");
        icae_eval_write_json(out, &run->list[i].table);
    }
    icae_text_append_string(out, run->is_all ? "]}\n" : "\n");
}

static icae_status write_results(const command_run *run, icae_error *error) {
    const char *folder = run->given->out_folder;
    if (!folder) return ICAE_OK;
    icae_text json = {0}, markdown = {0}, csv = {0}, page = {0};
    const icae_eval_table *tables[MOST_SUITES];
    write_json(&json, run);
    for (size_t i = 0; i < run->n; i++) {
        tables[i] = &run->list[i].table;
        icae_eval_write_markdown(&markdown, tables[i]);
    }
    char name[64];
    snprintf(name, sizeof name, "%s.csv", tables[run->n - 1]->suite->name);
    icae_eval_write_csv(&csv, tables[run->n - 1]);
    icae_status status = icae_eval_write_page(&page, tables, run->n, error);
    if (!status) status = write_into(folder, name, &csv, error);
    if (!status) status = write_into(folder, "results.md", &markdown, error);
    if (!status) status = write_into(folder, "report.html", &page, error);
    if (!status) status = write_into(folder, "results.json", &json, error);
    icae_text_release(&json);
    icae_text_release(&markdown);
    icae_text_release(&csv);
    icae_text_release(&page);
    return status;
}

static void print_table(const icae_eval_table *table) {
    icae_text text = {0};
    icae_eval_write_text(&text, table);
    printf("%s\n%s\n", table->suite->title, icae_text_string(&text));
    icae_text_release(&text);
}

/* ---- running ---- */

static bool show_progress(void *user, int64_t done, int64_t total) {
    evaluation *e = user;
    double elapsed_s = icae_clock_seconds() - e->start_s;
    if (e->first_done < 0) e->first_done = done;
    if (done == e->first_done) return signal_caught() == 0;
    double each_s = elapsed_s / (double)(done - e->first_done);
    icae_progress_show("eval %s  %lld/%lld  %.0f s, %.0f s to go", e->suite->name,
                       (long long)done, (long long)total, elapsed_s,
                       each_s * (double)(total - done));
    return signal_caught() == 0;
}

static icae_status evaluate(command_run *run, evaluation *e, icae_error *error) {
    const options *given = run->given;
    icae_eval_engine parts = {run->engine.graph, run->engine.model,
                              e->suite->wants_adapter ? run->engine.adapter : NULL};
    e->settings = settings_of(run, e->suite);
    e->suite->fill(&parts, &e->settings);
    icae_status status = e->suite->collect(&parts, &e->settings, &e->items, error);
    if (status) return status;
    e->rows = calloc((size_t)e->items.n, sizeof *e->rows);
    if (!e->rows) return icae_fail_memory(error, "rows");
    char *log_path = NULL, name[64];
    if (given->out_folder) {
        snprintf(name, sizeof name, "%s.jsonl", e->suite->name);
        status = icae_folder_make(given->out_folder, error);
        log_path = icae_path_join(given->out_folder, name);
        if (!status && !log_path) status = icae_fail_memory(error, name);
    }
    e->start_s = icae_clock_seconds();
    e->first_done = -1;
    icae_eval_watch watch = {show_progress, e};
    if (!status) {
        status = icae_eval_run(e->suite, &parts, &e->settings, &e->items, log_path, &watch,
                               e->rows, error);
    }
    free(log_path);
    icae_progress_done();
    if (status == ICAE_INTERRUPTED && given->out_folder) {
        icae_log_info("what was measured is kept; the same command goes on from there");
    }
    icae_eval_source source = {given->base, e->suite->wants_adapter ? given->adapter : NULL,
                               e->suite->wants_data ? e->settings.data : NULL,
                               given->command_line};
    if (!status) {
        status = icae_eval_table_make(&e->table, e->suite, &e->settings, &e->items, e->rows,
                                      &source, error);
        e->table.seconds = icae_clock_seconds() - e->start_s;
    }
    return status;
}

static icae_status evaluate_all(command_run *run, icae_error *error) {
    icae_status status = ICAE_OK;
    for (size_t i = 0; icae_eval_suite_at(i) && !status; i++) {
        const icae_eval_suite *suite = icae_eval_suite_at(i);
        if (!run->is_all && strcmp(suite->name, run->given->words[0]) != 0) continue;
        if (run->is_all && strcmp(suite->name, "qa") == 0 && !run->given->questions) {
            icae_log_info("qa is left out: give --questions FILE for it");
            continue;
        }
        evaluation *e = &run->list[run->n];
        e->suite = suite;
        status = evaluate(run, e, error);
        if (status) break;
        run->n++;
        if (!run->given->is_json) print_table(&e->table);
        status = write_results(run, error);
    }
    return status;
}

static void release(command_run *run) {
    for (size_t i = 0; i < MOST_SUITES; i++) {
        evaluation *e = &run->list[i];
        icae_eval_table_release(&e->table);
        icae_eval_rows_release(e->rows, e->items.n);
        icae_eval_items_release(&e->items);
    }
    engine_close(&run->engine);
    free(run);
}

int run_eval(const options *given) {
    icae_error error = {0};
    command_run *run = calloc(1, sizeof *run);
    if (!run) {
        icae_fail_memory(&error, "an evaluation");
        return report_failure(&error);
    }
    run->given = given;
    int code = check_options(run);
    if (code >= 0) {
        free(run);
        return code;
    }
    options used = *given;
    const icae_eval_suite *suite = icae_eval_suite_find(given->words[0]);
    if (suite && !suite->wants_adapter) used.adapter = NULL;
    signals_catch();
    icae_status status = engine_open(&run->engine, &used, &error);
    if (!status && used.adapter && given->rate > 0) {
        run->engine.adapter->settings.compression_rate = given->rate;
    }
    if (!status) status = evaluate_all(run, &error);
    if (status) {
        release(run);
        return report_failure(&error);
    }
    if (given->is_json) {
        icae_text json = {0};
        write_json(&json, run);
        if (json.failed) fprintf(stderr, "icae: not enough memory for the result\n");
        code = json.failed ? EXIT_FAILED : EXIT_DONE;
        fputs(icae_text_string(&json), stdout);
        icae_text_release(&json);
    }
    release(run);
    return code == EXIT_FAILED ? code : finish_output();
}
