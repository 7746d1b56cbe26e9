/* SPDX-License-Identifier: MIT */
/*
 * What the files of the suites share:
 *
 *     evaluate.c       the list of suites, the bare base's loss
 *     eval_items.c     files -> items
 *     eval_ae.c        ae, random          eval_lm.c       lm, ppl
 *     eval_qa.c        qa                  eval_latency.c  latency
 *     eval_run.c       items -> rows, with a log to go on from
 *     eval_table.c     rows -> tables      eval_page.c     tables -> a page
 */
#ifndef ICAE_EVALUATE_INTERNAL_H
#define ICAE_EVALUATE_INTERNAL_H

#include "icae/chat.h"
#include "icae/evaluate.h"

extern const icae_eval_suite icae_suite_ae, icae_suite_random, icae_suite_lm, icae_suite_ppl,
    icae_suite_qa, icae_suite_latency;

enum {
    EVAL_LEAST_TOKENS = 8, /* a shorter text says nothing about compression */
    EVAL_BUCKET_REACH = 5, /* tokens that a text of a length bucket may be shorter or longer */
    EVAL_DEFAULT_SAMPLES = 100
};

/* The value where it was given, else `otherwise`. */
static inline int64_t icae_eval_or(int64_t given, int64_t otherwise) {
    return given >= 0 ? given : otherwise;
}

/* Tokens of one span of the adapter. */
int64_t icae_eval_span(const icae_eval_engine *engine);

/* ---- collecting ---- */

/* A new group; labels are printf'ed. */
icae_status icae_eval_add_group(icae_eval_items *items, icae_error *error, const char *format,
                                ...) ICAE_PRINTF(3, 4);
icae_status icae_eval_add_item(icae_eval_items *items, icae_eval_item item, icae_error *error);

/* "up to 64", or "whole texts" for 0 tokens. */
void icae_eval_label_up_to(char label[64], int64_t tokens);

/* How documents become items of one group. */
typedef struct icae_eval_cutting {
    int64_t tokens; /* of a context; 0: whole documents */
    int64_t before; /* tokens of the document that are passed over before a context */
    int64_t
        reach; /* a context has tokens +- reach, drawn from (seed, item); shorter ones are left out */
    int64_t continuation, least_continuation; /* what follows the context; 0: nothing wanted */
    int64_t samples;                          /* 0: all */
    char label[64];
} icae_eval_cutting;

/*
 * Items from texts, a group for each cutting. A document of a JSON-lines file gives one item a group, its first
 * tokens; a plain text file is one long document and is cut into consecutive pieces. Contexts of fewer than
 * EVAL_LEAST_TOKENS are passed over where contexts are cut. Fails when a group stays empty.
 */
icae_status icae_eval_collect_texts(const icae_eval_engine *engine,
                                    const icae_eval_settings *settings,
                                    const icae_eval_cutting *cuttings, int64_t n_cuttings,
                                    icae_eval_items *items, icae_error *error);
/* Questions with input, prompt and answer; rows of one input share its ids. */
icae_status icae_eval_collect_questions(const icae_eval_engine *engine,
                                        const icae_eval_settings *settings,
                                        icae_eval_items *items, icae_error *error);

/* Warns, where n_beyond is above 0, that the base reads so many of the items' raw texts beyond its context. */
void icae_eval_warn_beyond(const icae_eval_engine *engine, const icae_eval_items *items,
                           int64_t n_beyond);

/* ---- measuring ---- */

/* The slots of a batch, made once for its losses and for what is written from them. */
typedef struct icae_eval_slots {
    icae_slots all; /* owns everything */
    icae_slots *of; /* [n] each item's: views into all */
} icae_eval_slots;

/* Compresses the contexts of a batch as one pack, and refines them where `refine` steps are above 0. Items
 * whose ids are the same array are compressed once, unless are_apart. slots is empty before. */
icae_status icae_eval_compress(const icae_eval_engine *engine, const icae_eval_item *items,
                               int64_t n, bool are_apart, int64_t refine,
                               icae_eval_slots *slots, icae_error *error);
void icae_eval_slots_release(icae_eval_slots *slots); /* a zeroed struct, too */

/* The losses of one job an item behind its slots [n], all of one task; sums [n] receives each job's nll.
 * chat: for FT; may be NULL else. */
icae_status icae_eval_slot_losses(const icae_eval_engine *engine, const icae_eval_item *items,
                                  const icae_slots *slots, int64_t n, icae_task task,
                                  int64_t skip, const icae_chat_ids *chat, double *sums,
                                  icae_error *error);

/* Adds "name": "the text of ids" to what is kept of a row; false when memory ends. */
bool icae_eval_keep_text(icae_eval_row *row, const char *name, const char *text, size_t bytes);

/* ---- what lm and qa tell alike ---- */

/*
 * Both score the same targets three times: behind the slots, behind the text itself, behind nothing. Their rows
 * begin with these values, and their tables with these columns.
 */
enum {
    EVAL_TOKENS, /* of the context */
    EVAL_SLOTS,
    EVAL_TARGETS,
    EVAL_NLL_SLOTS,
    EVAL_NLL_RAW,
    EVAL_NLL_NONE,
    EVAL_THREE_WAYS /* where a suite's own values begin */
};
#define EVAL_THREE_WAYS_NAMES "tokens", "slots", "targets", "nll_slots", "nll_raw", "nll_none"
/* clang-format off */
#define EVAL_THREE_WAYS_COLUMNS                                                                \
    {"context_tokens", "tokens of context", 0, ICAE_EVAL_SUM, .a = EVAL_TOKENS},               \
    {"slots", "slots", 0, ICAE_EVAL_SUM, .a = EVAL_SLOTS},                                     \
    {"targets", "tokens scored", 0, ICAE_EVAL_SUM, .a = EVAL_TARGETS},                         \
    {"loss_raw", "loss, raw (nats/token)", 4, ICAE_EVAL_RATIO,                                 \
     .a = EVAL_NLL_RAW, .b = EVAL_TARGETS},                                                    \
    {"loss", "loss, slots (nats/token)", 4, ICAE_EVAL_RATIO,                                   \
     .a = EVAL_NLL_SLOTS, .b = EVAL_TARGETS},                                                  \
    {"loss_none", "loss, nothing (nats/token)", 4, ICAE_EVAL_RATIO,                            \
     .a = EVAL_NLL_NONE, .b = EVAL_TARGETS}
#define EVAL_RECOVERED_COLUMN                                                                  \
    {"recovered", "share of the gap recovered", 4, ICAE_EVAL_RECOVERED,                        \
     EVAL_NLL_SLOTS, EVAL_NLL_RAW, EVAL_NLL_NONE, NULL}
/* clang-format on */

/* The middle of a value over a line's rows; NaN for none. */
double icae_eval_median(const icae_eval_line *line, int value);

#endif
