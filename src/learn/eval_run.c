/* SPDX-License-Identifier: MIT */
/*
 * Items to rows, batch by batch, with a log to go on from.
 *
 *     {"icae_eval": 1, "suite": "ae", "base": "0636...", "adapter": ..., "settings": {...}, "data": ...}
 *     {"item": 0, "group": "100", "tokens": 99, "nll": 31.25, ..., "original": "...", "restored": "..."}
 *     ...
 *
 * The first line names all that the rows depend on; who finds another one there must not add to it. Numbers
 * are written with all their digits, so a table made of rows that were read is the same to the last bit.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/file.h"
#include "icae/json.h"

enum { LOG_VERSION = 1, DEFAULT_BATCH = 8 };
static const size_t MOST_LOG = (size_t)4 << 30;

void icae_eval_rows_release(icae_eval_row *rows, int64_t n) {
    for (int64_t i = 0; rows && i < n; i++)
        free(rows[i].texts);
    free(rows);
}

/* ---- settings ---- */

static void put_integer(icae_text *out, bool *is_first, const char *name, int64_t value) {
    if (value < 0) return;
    icae_text_printf(out, "%s\"%s\": %lld", *is_first ? "" : ", ", name, (long long)value);
    *is_first = false;
}

static void put_list(icae_text *out, bool *is_first, const char *name, const int64_t *list,
                     int64_t n) {
    if (n == 0) return;
    icae_text_printf(out, "%s\"%s\": [", *is_first ? "" : ", ", name);
    for (int64_t i = 0; i < n; i++)
        icae_text_printf(out, "%s%lld", i ? ", " : "", (long long)list[i]);
    icae_text_append_char(out, ']');
    *is_first = false;
}

void icae_eval_write_settings(icae_text *out, const icae_eval_suite *suite,
                              const icae_eval_settings *settings) {
    bool has_lengths = settings->n_lengths && !icae_eval_suite_ignores(suite, "lengths");
    const struct {
        const char *name;
        int64_t value;
    } integers[] = {
        {"samples", settings->samples},
        {"tokens", has_lengths ? -1 : settings->tokens},
        {"continuation", settings->continuation},
        {"skip", settings->skip},
        {"window", settings->window},
        {"stride", settings->stride},
        {"generate", settings->generate},
        {"refine", settings->refine},
        {"together", settings->spans_together},
        {"seed", (int64_t)settings->seed},
    };
    const struct {
        const char *name;
        const int64_t *list;
        int64_t n;
    } lists[] = {{"lengths", settings->lengths, settings->n_lengths},
                 {"grid", settings->cells, 2 * settings->n_cells}};
    bool is_first = true;
    icae_text_append_char(out, '{');
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        if (!icae_eval_suite_ignores(suite, integers[i].name))
            put_integer(out, &is_first, integers[i].name, integers[i].value);
    }
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        if (!icae_eval_suite_ignores(suite, lists[i].name))
            put_list(out, &is_first, lists[i].name, lists[i].list, lists[i].n);
    }
    icae_text_append_char(out, '}');
}

/* ---- the log's first line ---- */

static void write_head(icae_text *out, const icae_eval_suite *suite,
                       const icae_eval_engine *engine, const icae_eval_settings *settings,
                       const icae_eval_items *items) {
    const icae_backend *be = icae_graph_backend(engine->graph);
    icae_text_printf(out,
                     "{\"icae_eval\": %d, \"suite\": \"%s\", \"base\": \"%016" PRIx64 "\", ",
                     LOG_VERSION, suite->name, engine->model->fingerprint);
    if (engine->adapter) {
        icae_text_printf(out, "\"adapter\": \"%016" PRIx64 "\", \"rate\": %lld, ",
                         engine->adapter->fingerprint,
                         (long long)engine->adapter->settings.compression_rate);
    }
    icae_text_printf(out,
                     "\"compute\": \"%s\", \"settings\": ", icae_compute_names[be->compute]);
    icae_eval_write_settings(out, suite, settings);
    icae_text_printf(out, ", \"data\": \"%016" PRIx64 "\"}\n", icae_eval_items_hash(items));
}

static bool is_same_value(const icae_json_value *a, const icae_json_value *b) {
    double x, y;
    const char *s = icae_json_as_string(a), *t = icae_json_as_string(b);
    if (s || t) return s && t && strcmp(s, t) == 0;
    if (icae_json_as_number(a, &x)) {
        return icae_json_as_number(b, &y) && !(x < y) && !(x > y);
    }
    const icae_json_value *v = icae_json_first(a), *w = icae_json_first(b);
    for (; v && w; v = icae_json_next(v), w = icae_json_next(w))
        if (!is_same_value(v, w)) return false;
    return !v && !w;
}

/* Whether it says nothing that a key is missing: the suite ignores it; or earlier versions left it out, beside
 * lengths the tokens, whether or not the suite has lengths (`data` tells whether contexts are the same). */
static bool may_be_missing(const icae_eval_suite *suite, const icae_json_value *object,
                           const char *key) {
    return icae_eval_suite_ignores(suite, key) ||
           (strcmp(key, "tokens") == 0 && icae_json_member(object, "lengths"));
}

/* The first key of `now` whose value `then` does not have; NULL when all are the same. What means nothing to
 * the suite is no difference: logs from when it was written have it. */
static const char *first_difference(const icae_eval_suite *suite, const icae_json_value *then,
                                    const icae_json_value *now) {
    for (const icae_json_value *v = icae_json_first(now); v; v = icae_json_next(v)) {
        const char *key = icae_json_key(v);
        const icae_json_value *other = icae_json_member(then, key);
        if (icae_json_is_object(v) && other) {
            const char *inner = first_difference(suite, other, v);
            if (!inner) {
                inner = first_difference(suite, v, other); /* what only the log has */
            }
            if (inner) return inner;
        } else if (!other ? !may_be_missing(suite, then, key) : !is_same_value(other, v)) {
            return key;
        }
    }
    return NULL;
}

/* What the key of a first difference is called for people. */
static const char *name_of(const char *key) {
    static const char *const names[][2] = {
        {"icae_eval", "version of this format"},
        {"suite", "suite"},
        {"base", "base"},
        {"adapter", "adapter"},
        {"rate", "compression rate (--rate)"},
        {"compute", "type of computing (--compute)"},
        {"data", "data"},
        {"grid", "--grid"},
        {"samples", "--samples"},
        {"tokens", "--tokens"},
        {"lengths", "--lengths"},
        {"continuation", "--continuation"},
        {"skip", "--skip"},
        {"refine", "--refine"},
        {"together", "--together"},
        {"window", "--window"},
        {"stride", "--stride"},
        {"generate", "--generate"},
        {"seed", "--seed"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(key, names[i][0]) == 0) return names[i][1];
    return key;
}

static icae_status fail_no_log(const char *path, icae_error *error) {
    return icae_fail(error, ICAE_FORMAT,
                     "%s is no log of icae eval; remove it or choose another --out", path);
}

static icae_status check_head(const icae_eval_suite *suite, const char *path, const char *line,
                              size_t bytes, const icae_text *wanted, icae_error *error) {
    if (bytes == wanted->length && !memcmp(line, wanted->data, bytes)) return ICAE_OK;
    icae_json *then = NULL, *now = NULL;
    icae_error reason;
    icae_status status = icae_json_parse(&then, path, line, bytes, &reason);
    if (!status) status = icae_json_parse(&now, path, wanted->data, wanted->length, error);
    if (status || !icae_json_member(icae_json_root(then), "icae_eval")) {
        status = fail_no_log(path, error);
    } else {
        const char *key = first_difference(suite, icae_json_root(then), icae_json_root(now));
        if (key) {
            status = icae_fail(error, ICAE_MISMATCH,
                               "%s was begun with another %s: remove it to measure anew, or "
                               "choose another --out",
                               path, name_of(key));
        }
    }
    icae_json_free(then);
    icae_json_free(now);
    return status;
}

/* ---- rows ---- */

static void write_row(icae_text *out, const icae_eval_suite *suite,
                      const icae_eval_items *items, int64_t i, const icae_eval_row *row) {
    const char *label = items->labels[items->list[i].group];
    icae_text_printf(out, "{\"item\": %lld, \"group\": ", (long long)i);
    icae_json_write_string(out, label, strlen(label));
    for (int v = 0; suite->values[v]; v++) {
        icae_text_printf(out, ", \"%s\": ", suite->values[v]);
        icae_json_write_number(out, row->values[v]);
    }
    if (row->texts) icae_text_printf(out, ", %s", row->texts);
    icae_text_append_string(out, "}\n");
}

static icae_status read_row(const icae_eval_suite *suite, const char *path, int64_t number,
                            const char *line, size_t bytes, const icae_eval_items *items,
                            icae_eval_row *rows, icae_error *error) {
    icae_json *json;
    char name[600];
    snprintf(name, sizeof name, "line %lld of %.500s", (long long)number, path);
    icae_status status = icae_json_parse(&json, name, line, bytes, error);
    if (status) return status;
    int64_t item = -1;
    const icae_json_value *root = icae_json_root(json);
    bool is_good = icae_json_as_integer(icae_json_member(root, "item"), &item) && item >= 0 &&
                   item < items->n;
    for (int v = 0; is_good && suite->values[v]; v++) {
        const icae_json_value *value = icae_json_member(root, suite->values[v]);
        rows[item].values[v] = (double)NAN;
        is_good = value && (icae_json_is_null(value) ||
                            icae_json_as_number(value, &rows[item].values[v]));
    }
    if (is_good) rows[item].is_done = true;
    icae_json_free(json);
    if (is_good) return ICAE_OK;
    return icae_fail(error, ICAE_FORMAT,
                     "%s is no row of suite %s; remove the line, or the file, to measure anew",
                     name, suite->name);
}

/* Whether a file without a whole line is a log whose first was cut short, and not somebody's text. */
static bool is_begun(const char *data, size_t bytes) {
    static const char key[] = "{\"icae_eval\": ";
    size_t n = bytes < sizeof key - 1 ? bytes : sizeof key - 1;
    return !n || memcmp(data, key, n) == 0;
}

/* Takes the rows of an existing log; begins one where there is none. A last line that was cut short is
 * dropped from the file. */
static icae_status take_log(const char *path, const icae_eval_suite *suite,
                            const icae_eval_items *items, const icae_text *head,
                            icae_eval_row *rows, icae_error *error) {
    if (!icae_path_exists(path)) return icae_file_write(path, head->data, head->length, error);
    char *data;
    size_t bytes, whole = 0;
    icae_status status = icae_file_read(path, MOST_LOG, &data, &bytes, error);
    if (status) return status;
    int64_t number = 0;
    for (size_t at = 0; at < bytes && !status; at = whole) {
        const char *end = memchr(data + at, '\n', bytes - at);
        if (!end) break;
        size_t length = (size_t)(end - data) + 1 - at;
        status = ++number == 1
                     ? check_head(suite, path, data + at, length, head, error)
                     : read_row(suite, path, number, data + at, length, items, rows, error);
        whole = at + length;
    }
    if (!status && number == 0) {
        status = is_begun(data, bytes) ? icae_file_write(path, head->data, head->length, error)
                                       : fail_no_log(path, error);
    } else if (!status && whole < bytes) {
        status = icae_file_write(path, data, whole, error);
    }
    free(data);
    return status;
}

/* ---- the run ---- */

/* The end of the batch that begins at `from`: items without a row, and of questions about one text all. */
static int64_t batch_end(const icae_eval_items *items, const icae_eval_row *rows, int64_t from,
                         int64_t batch) {
    int64_t end = from;
    while (end < items->n && !rows[end].is_done && end - from < batch)
        end++;
    while (end < items->n && !rows[end].is_done && end - from < 4 * batch &&
           items->list[end].prompt && items->list[end].ids == items->list[end - 1].ids)
        end++;
    return end;
}

static icae_status keep(const icae_eval_suite *suite, const icae_eval_items *items,
                        int64_t from, int64_t end, const char *log_path, icae_eval_row *rows,
                        icae_error *error) {
    icae_text lines = {0};
    for (int64_t i = from; i < end; i++) {
        rows[i].is_done = true;
        write_row(&lines, suite, items, i, &rows[i]);
        free(rows[i].texts);
        rows[i].texts = NULL;
    }
    icae_status status = ICAE_OK;
    if (lines.failed)
        status = icae_fail_memory(error, "rows");
    else if (log_path)
        status = icae_file_append(log_path, lines.data, lines.length, error);
    icae_text_release(&lines);
    return status;
}

static icae_status tell(const icae_eval_watch *watch, int64_t done, int64_t total,
                        icae_error *error) {
    if (!watch || !watch->progress || watch->progress(watch->user, done, total)) return ICAE_OK;
    return icae_fail(error, ICAE_INTERRUPTED, "the evaluation was stopped after %lld of %lld",
                     (long long)done, (long long)total);
}

icae_status icae_eval_run(const icae_eval_suite *suite, const icae_eval_engine *engine,
                          const icae_eval_settings *settings, const icae_eval_items *items,
                          const char *log_path, const icae_eval_watch *watch,
                          icae_eval_row *rows, icae_error *error) {
    if (items->n < 1) return icae_fail(error, ICAE_INVALID, "there is no text to evaluate on");
    int64_t batch = settings->batch > 0 ? settings->batch : DEFAULT_BATCH, done = 0;
    icae_status status = ICAE_OK;
    if (log_path) {
        icae_text head = {0};
        write_head(&head, suite, engine, settings, items);
        status = head.failed ? icae_fail_memory(error, "a log")
                             : take_log(log_path, suite, items, &head, rows, error);
        icae_text_release(&head);
    }
    for (int64_t i = 0; i < items->n; i++)
        done += rows[i].is_done;
    if (!status && done < items->n) status = tell(watch, done, items->n, error);
    for (int64_t i = 0; i < items->n && !status;) {
        if (rows[i].is_done) {
            i++;
            continue;
        }
        int64_t end = batch_end(items, rows, i, batch);
        status = suite->measure(engine, settings, items->list + i, end - i, rows + i, error);
        if (!status) status = keep(suite, items, i, end, log_path, rows, error);
        done += end - i;
        if (!status) status = tell(watch, done, items->n, error);
        i = end;
    }
    return status;
}
