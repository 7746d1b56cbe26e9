/* SPDX-License-Identifier: MIT */
/*
 * How good an adapter is, on texts it was not trained on: the suites of `icae eval`.
 *
 *     ae       loss of a text and its end from its slots, and the text restored from them alone
 *     lm       loss of what follows a text: from its slots, from the text itself, from nothing
 *     random   ae on normal text, on the same with every id + 1, on random tokens
 *     qa       answers about a text: from its slots, from the text itself; and the right answer's loss
 *     latency  seconds and cache bytes: compress and write from slots, against the text itself
 *     ppl      loss of the bare base, in overlapping windows
 *
 * A suite collects items from files, measures them batch by batch into rows of numbers, one row an item,
 * and sums rows into the lines of a table, one line a group (a length, a kind of text). Rows are what is
 * kept when a run is stopped. All losses are nats a token, averaged over tokens (long samples weigh more).
 * No BOS is put before anything but contexts whose adapter wants one. No row depends on `batch`.
 * Source of the experiments: Ge et al., arXiv 2307.06945, section 3.
 */
#ifndef ICAE_EVALUATE_H
#define ICAE_EVALUATE_H

#include "icae/generate.h"
#include "icae/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_eval_engine {
    icae_graph *graph;
    const icae_model *model;
    const icae_adapter *adapter; /* NULL where the suite wants none */
} icae_eval_engine;

/* What was asked for; -1, NULL, 0 lengths and 0 cells stand for the suite's own. */
typedef struct icae_eval_settings {
    const char *data; /* file, folder or pattern of texts; qa: of questions */
    int64_t samples; /* items of a group, 0: all; latency: rounds, of which the median counts */
    int64_t batch;   /* items side by side */
    int64_t tokens;  /* of a context: longer ones are cut (qa: passed over); 0: as they are */
    const int64_t
        *lengths; /* [n_lengths] ae: buckets, +-5 tokens; lm: contexts of exactly so many */
    int64_t n_lengths;
    int64_t continuation,
        skip;               /* lm: tokens that follow, and how many of them are not scored */
    int64_t window, stride; /* ppl: tokens seen at a time, and how far the window moves */
    int64_t generate;       /* qa: longest answer; latency: tokens written */
    int64_t refine;       /* ae, random, lm, qa: steps that every text's slots are refined by */
    const int64_t *cells; /* [2 n_cells] latency: texts side by side, tokens of each */
    int64_t n_cells;
    uint64_t seed;
    bool spans_together; /* ae, random: the base reads all spans of a text at once */
    bool is_loss_only;   /* ae, random, qa: no free-running text */
} icae_eval_settings;

/* What one row is measured on; a suite reads the fields that it collected. */
typedef struct icae_eval_item {
    const int32_t *ids; /* the context, n > 0 */
    int64_t n;
    const int32_t *continuation; /* lm: what follows it */
    int64_t n_continuation;
    const int32_t *prompt, *answer; /* qa */
    int64_t n_prompt, n_answer;
    const char *prompt_text, *answer_text; /* qa, UTF-8 with a 0 behind */
    int64_t copies;                        /* latency: texts side by side */
    int64_t group;                         /* items of a group follow each other */
} icae_eval_item;

typedef struct icae_eval_items {
    icae_eval_item *list; /* [n]; the fields' memory is the arena's */
    int64_t n, capacity;
    char (*labels)[64]; /* [n_groups] what a table's line is called */
    int64_t n_groups;
    int64_t passed_over; /* texts that are too short, or too long */
    icae_arena arena;
} icae_eval_items;

enum { ICAE_EVAL_VALUES = 24 }; /* the most numbers a suite has in a row */

typedef struct icae_eval_row {
    double values[ICAE_EVAL_VALUES]; /* in the order of the suite's `values` */
    char *texts;  /* JSON members for readers, "\"original\": ...", malloc'ed; or NULL */
    bool is_done; /* measured, now or before a stop */
} icae_eval_row;

/* A line of a table: sums over the rows of a group. */
typedef struct icae_eval_line {
    const char *label;
    int64_t n;
    double sums[ICAE_EVAL_VALUES];
    const icae_eval_row *rows; /* [n] */
} icae_eval_line;

/* How a column comes from the values a, b, c of a line's rows. */
typedef enum icae_eval_form {
    ICAE_EVAL_SUM,       /* of a */
    ICAE_EVAL_MEAN,      /* of a, over the rows */
    ICAE_EVAL_RATIO,     /* sum of a / sum of b */
    ICAE_EVAL_PPL,       /* exp of that */
    ICAE_EVAL_MEDIAN,    /* of a */
    ICAE_EVAL_RECOVERED, /* of sums of losses: (c - a) / (c - b), slots, raw text, nothing */
    ICAE_EVAL_OWN        /* `of` tells */
} icae_eval_form;

typedef struct icae_eval_column {
    const char *key;     /* in JSON and CSV */
    const char *heading; /* in tables, its unit included */
    int digits;          /* behind the point, in tables */
    icae_eval_form form;
    int a, b, c; /* indices of values */
    double (*of)(const icae_eval_line *line);
} icae_eval_column;

/* NaN: there is none. */
double icae_eval_column_value(const icae_eval_column *column, const icae_eval_line *line);

typedef struct icae_eval_suite {
    const char *name, *title;
    const char *note;  /* how to read the table, a sentence or two */
    const char *paper; /* what the paper measured; NULL: nothing of the kind */
    const char *group_heading;
    bool wants_adapter, wants_data;
    bool has_total;                  /* the groups together make a line that means something */
    const char *const *values;       /* NULL-terminated */
    const icae_eval_column *columns; /* up to one without key */
    /* Puts the suite's own values where settings have none. */
    void (*fill)(const icae_eval_engine *engine, icae_eval_settings *settings);
    icae_status (*collect)(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           icae_eval_items *items, icae_error *error);
    /* items [n] of any groups -> rows [n], zeroed before. */
    icae_status (*measure)(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           const icae_eval_item *items, int64_t n, icae_eval_row *rows,
                           icae_error *error);
} icae_eval_suite;

/* Suite i in the order of the list above, NULL after the last; and by name. */
const icae_eval_suite *icae_eval_suite_at(size_t i);
const icae_eval_suite *icae_eval_suite_find(const char *name);
/* Whether an option of `icae eval`, named as there and in logs ("window"), means nothing to a suite: then it
 * is refused there, and neither logs nor results have it. False for names that are none. */
bool icae_eval_suite_ignores(const icae_eval_suite *suite, const char *option);

/* Where a suite's number stands in a row; asserts that it has it. */
int icae_eval_value(const icae_eval_suite *suite, const char *name);

void icae_eval_items_release(icae_eval_items *items); /* a zeroed struct, too */
/* All that rows depend on besides base, adapter and settings: tokens, texts, groups. */
uint64_t icae_eval_items_hash(const icae_eval_items *items);

/* ---- running ---- */

typedef struct icae_eval_watch {
    /* Before the first batch that is measured and after every one; false stops with ICAE_INTERRUPTED, what was
     * measured stays. May be NULL. */
    bool (*progress)(void *user, int64_t done, int64_t total);
    void *user;
} icae_eval_watch;

/*
 * Measures all items that the log does not hold yet.
 *
 *   log_path  JSON lines, the first says what the run is of, then one line an item; appended batch by
 *             batch. Rows found there are taken as they are, so that a run that was stopped and goes on
 *             ends like one that was not. A log of another base, adapter, data or settings is refused, and
 *             the sentence names the first difference; settings that mean nothing to the suite are none. A last line cut short is dropped. NULL: no log.
 *   rows      [items->n], zeroed; to be released
 */
icae_status icae_eval_run(const icae_eval_suite *suite, const icae_eval_engine *engine,
                          const icae_eval_settings *settings, const icae_eval_items *items,
                          const char *log_path, const icae_eval_watch *watch,
                          icae_eval_row *rows, icae_error *error);
void icae_eval_rows_release(icae_eval_row *rows, int64_t n); /* the texts and the array */

/* ---- results ---- */

/* Where a table's numbers are from; every line of a written table says it. */
typedef struct icae_eval_source {
    const char *base, *adapter, *data, *command; /* adapter, data: may be NULL */
} icae_eval_source;

typedef struct icae_eval_table {
    const icae_eval_suite *suite;
    icae_eval_source source;
    icae_text settings; /* a JSON object */
    icae_eval_line *lines;
    int64_t n_lines;
    icae_eval_line total; /* n = 0: the suite has none */
    double seconds;       /* of this run, what a log held left out */
} icae_eval_table;

/* items and rows must outlive the table. */
icae_status icae_eval_table_make(icae_eval_table *table, const icae_eval_suite *suite,
                                 const icae_eval_settings *settings,
                                 const icae_eval_items *items, const icae_eval_row *rows,
                                 const icae_eval_source *source, icae_error *error);
void icae_eval_table_release(icae_eval_table *table);

/* Each appends to out; of the settings, those that mean something to the suite. */
void icae_eval_write_settings(icae_text *out, const icae_eval_suite *suite,
                              const icae_eval_settings *settings);
void icae_eval_write_text(icae_text *out, const icae_eval_table *table); /* for a terminal */
void icae_eval_write_json(icae_text *out, const icae_eval_table *table); /* one object */
void icae_eval_write_csv(icae_text *out, const icae_eval_table *table);
void icae_eval_write_markdown(icae_text *out, const icae_eval_table *table);
/* One HTML page with all tables and their plots: no scripts, no links, light and dark. */
icae_status icae_eval_write_page(icae_text *out, const icae_eval_table *const *tables,
                                 size_t n_tables, icae_error *error);

/* ---- parts ---- */

/* A sequence read by the bare base; targets are ids[first .. n-1], first >= 1. */
typedef struct icae_eval_sequence {
    const int32_t *ids;
    int64_t n, first;
} icae_eval_sequence;

/* Negative log-likelihoods under the base, all sequences as one pack: sums [n_sequences], and, if
 * tokens is not NULL, every target's, sequence by sequence. */
icae_status icae_eval_base_nll(icae_graph *graph, const icae_model *model,
                               const icae_eval_sequence *sequences, int64_t n_sequences,
                               double *sums, icae_real *tokens, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
