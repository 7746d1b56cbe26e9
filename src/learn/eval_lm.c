/* SPDX-License-Identifier: MIT */
/*
 * Suites lm and ppl: how well the frozen base predicts text.
 *
 * lm scores the same continuation three times: behind the slots of the context, behind the context itself,
 * behind nothing. With several lengths the continuations are the same in all groups, and contexts end where
 * they begin: a group differs from another only in how much of the past it may see (the paper's table 3).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"

static const char *const lm_values[] = {EVAL_THREE_WAYS_NAMES, NULL};
_Static_assert(sizeof lm_values / sizeof *lm_values == EVAL_THREE_WAYS + 1, "a name each");

enum { DEFAULT_CONTINUATION = 128, DEFAULT_SKIP = 8, DEFAULT_WINDOW = 1024 };

/* ---- lm ---- */

static void lm_fill(const icae_eval_engine *engine, icae_eval_settings *settings) {
    settings->samples = icae_eval_or(settings->samples, EVAL_DEFAULT_SAMPLES);
    settings->tokens = icae_eval_or(settings->tokens, icae_eval_span(engine));
    settings->continuation = icae_eval_or(settings->continuation, DEFAULT_CONTINUATION);
    settings->skip = icae_eval_or(settings->skip, DEFAULT_SKIP);
    if (settings->skip < 1) settings->skip = 1; /* behind nothing the first cannot be scored */
}

static icae_status lm_collect(const icae_eval_engine *engine,
                              const icae_eval_settings *settings, icae_eval_items *items,
                              icae_error *error) {
    if (settings->continuation <= settings->skip) {
        return icae_fail(error, ICAE_INVALID,
                         "a continuation of %lld tokens of which the first %lld are not scored "
                         "leaves nothing: raise --continuation, or lower --skip",
                         (long long)settings->continuation, (long long)settings->skip);
    }
    bool has_lengths = settings->n_lengths > 0;
    int64_t n = has_lengths ? settings->n_lengths : 1, longest = 0;
    int64_t least = settings->continuation / 2;
    if (least <= settings->skip) least = settings->skip + 1;
    icae_eval_cutting *cuttings = calloc((size_t)n, sizeof *cuttings);
    if (!cuttings) return icae_fail_memory(error, "context lengths");
    for (int64_t i = 0; has_lengths && i < n; i++)
        if (settings->lengths[i] > longest) longest = settings->lengths[i];
    for (int64_t i = 0; i < n; i++) {
        int64_t length = has_lengths ? settings->lengths[i] : settings->tokens;
        cuttings[i] = (icae_eval_cutting){.tokens = length,
                                          .before = has_lengths ? longest - length : 0,
                                          .continuation = settings->continuation,
                                          .least_continuation = least,
                                          .samples = settings->samples};
        snprintf(cuttings[i].label, sizeof cuttings[i].label, "%lld -> %lld", (long long)length,
                 (long long)settings->continuation);
    }
    icae_status status = icae_eval_collect_texts(engine, settings, cuttings, n, items, error);
    free(cuttings);
    int64_t n_beyond = 0;
    for (int64_t i = 0; i < items->n; i++) {
        const icae_eval_item *item = &items->list[i];
        n_beyond += item->n + item->n_continuation > engine->model->config.context_length;
    }
    if (!status) icae_eval_warn_beyond(engine, items, n_beyond);
    return status;
}

/* The base's loss on the continuations of a batch, behind their texts or behind nothing. */
static icae_status base_losses(const icae_eval_engine *engine, const icae_eval_item *items,
                               int64_t count, int64_t skip, bool has_text, double *sums,
                               icae_error *error) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++)
        total += items[i].n + items[i].n_continuation;
    if (count < 1 || total < 1) return ICAE_OK; /* tells gcc that sizes are sane */
    int32_t *ids = calloc((size_t)total, sizeof *ids);
    icae_eval_sequence *sequences = calloc((size_t)count, sizeof *sequences);
    icae_status status = ids && sequences ? ICAE_OK : icae_fail_memory(error, "a batch");
    int64_t at = 0;
    for (int64_t i = 0; i < count && !status; i++) {
        const icae_eval_item *item = &items[i];
        int64_t before = has_text ? item->n : 0, start = at;
        if (before) memcpy(ids + at, item->ids, (size_t)before * sizeof *ids);
        at += before;
        memcpy(ids + at, item->continuation, (size_t)item->n_continuation * sizeof *ids);
        at += item->n_continuation;
        sequences[i] = (icae_eval_sequence){ids + start, at - start, before + skip};
    }
    if (!status) {
        status = icae_eval_base_nll(engine->graph, engine->model, sequences, count, sums, NULL,
                                    error);
    }
    free(ids);
    free(sequences);
    return status;
}

static icae_status lm_measure(const icae_eval_engine *engine,
                              const icae_eval_settings *settings, const icae_eval_item *items,
                              int64_t n, icae_eval_row *rows, icae_error *error) {
    int64_t skip = settings->skip > 1 ? settings->skip : 1;
    for (int64_t i = 0; i < n; i++) {
        if (items[i].n_continuation > skip) continue;
        return icae_fail(error, ICAE_INVALID,
                         "a text has a continuation of %lld tokens; expected more than %lld",
                         (long long)items[i].n_continuation, (long long)skip);
    }
    double *nll = calloc((size_t)n, sizeof *nll);
    if (!nll) return icae_fail_memory(error, "losses");
    icae_eval_slots slots = {0};
    icae_status status =
        icae_eval_compress(engine, items, n, false, settings->refine, &slots, error);
    for (int way = EVAL_NLL_SLOTS; way <= EVAL_NLL_NONE && !status; way++) {
        status = way == EVAL_NLL_SLOTS
                     ? icae_eval_slot_losses(engine, items, slots.of, n, ICAE_TASK_LM, skip,
                                             NULL, nll, error)
                     : base_losses(engine, items, n, skip, way == EVAL_NLL_RAW, nll, error);
        for (int64_t i = 0; i < n && !status; i++)
            rows[i].values[way] = nll[i];
    }
    for (int64_t i = 0; i < n && !status; i++) {
        rows[i].values[EVAL_TOKENS] = (double)items[i].n;
        rows[i].values[EVAL_SLOTS] = (double)icae_slots_vectors(&slots.of[i]);
        rows[i].values[EVAL_TARGETS] = (double)(items[i].n_continuation - skip);
    }
    icae_eval_slots_release(&slots);
    free(nll);
    return status;
}

static const icae_eval_column lm_columns[] = {
    EVAL_THREE_WAYS_COLUMNS,
    {"ppl_raw", "perplexity, raw", 3, ICAE_EVAL_PPL, .a = EVAL_NLL_RAW, .b = EVAL_TARGETS},
    {"ppl", "perplexity, slots", 3, ICAE_EVAL_PPL, .a = EVAL_NLL_SLOTS, .b = EVAL_TARGETS},
    {"ppl_none", "perplexity, nothing", 3, ICAE_EVAL_PPL, .a = EVAL_NLL_NONE,
     .b = EVAL_TARGETS},
    EVAL_RECOVERED_COLUMN,
    {.key = NULL},
};

const icae_eval_suite icae_suite_lm = {
    .name = "lm",
    .title = "Text continuation: raw context, slots, nothing",
    .note = "The same tokens are scored behind the text itself (no adapter), behind its slots, "
            "and behind nothing; "
            "the first of a continuation are not. Recovered: (nothing - slots) / (nothing - "
            "raw) of the losses.",
    .paper = "perplexity from raw context and from 128 slots: 128 -> 128 9.99, 10.15; 256 -> "
             "128 9.45, 9.77; "
             "512 -> 128 9.01, 9.50.",
    .group_heading = "context -> continuation",
    .wants_adapter = true,
    .wants_data = true,
    .has_total = true,
    .values = lm_values,
    .columns = lm_columns,
    .fill = lm_fill,
    .collect = lm_collect,
    .measure = lm_measure,
};

/* ---- ppl ---- */

enum { PPL_TARGETS, PPL_NLL, N_PPL_VALUES };
static const char *const ppl_values[] = {"targets", "nll", NULL};
_Static_assert(sizeof ppl_values / sizeof *ppl_values == N_PPL_VALUES + 1, "a name each");

static void ppl_fill(const icae_eval_engine *engine, icae_eval_settings *settings) {
    int64_t context = engine->model->config.context_length;
    int64_t window = context < DEFAULT_WINDOW ? context : DEFAULT_WINDOW;
    settings->samples = icae_eval_or(settings->samples, 0);
    settings->tokens = icae_eval_or(settings->tokens, 0);
    settings->window = icae_eval_or(settings->window, window);
    settings->stride = icae_eval_or(settings->stride, settings->window / 2);
}

static icae_status check_window(const icae_eval_engine *engine,
                                const icae_eval_settings *settings, icae_error *error) {
    int64_t window = settings->window, stride = settings->stride;
    int64_t context = engine->model->config.context_length;
    if (window < 2 || stride < 1 || stride >= window) {
        return icae_fail(error, ICAE_INVALID,
                         "a window of %lld tokens with a stride of %lld; expected at least 2, "
                         "and a stride from 1 to the window less 1",
                         (long long)window, (long long)stride);
    }
    if (window > context) {
        return icae_fail(error, ICAE_INVALID,
                         "a window of %lld tokens (--window): the base was trained on contexts "
                         "of %lld",
                         (long long)window, (long long)context);
    }
    return ICAE_OK;
}

static icae_status ppl_collect(const icae_eval_engine *engine,
                               const icae_eval_settings *settings, icae_eval_items *items,
                               icae_error *error) {
    icae_eval_cutting cutting = {.tokens = settings->tokens, .samples = settings->samples};
    icae_eval_label_up_to(cutting.label, settings->tokens);
    icae_status status = check_window(engine, settings, error);
    if (!status) status = icae_eval_collect_texts(engine, settings, &cutting, 1, items, error);
    bool is_any = false;
    for (int64_t i = 0; i < items->n && !is_any; i++)
        is_any = items->list[i].n > 1;
    if (status || is_any) return status;
    return icae_fail(error, ICAE_INVALID,
                     "no text has more than one token: there is nothing to predict");
}

/* Every token but the first is scored once, in the first window that reaches it. */
static icae_status ppl_measure(const icae_eval_engine *engine,
                               const icae_eval_settings *settings, const icae_eval_item *items,
                               int64_t n, icae_eval_row *rows, icae_error *error) {
    int64_t window = settings->window, stride = settings->stride;
    icae_status status = check_window(engine, settings, error);
    for (int64_t s = 0; s < n && !status; s++) {
        const icae_eval_item *item = &items[s];
        int64_t scored = 1; /* tokens done with; the first has nothing before it */
        for (int64_t start = 0; scored < item->n && !status; start += stride) {
            int64_t end = item->n - start < window ? item->n : start + window;
            icae_eval_sequence piece = {item->ids + start, end - start, scored - start};
            double sum = 0;
            status =
                icae_eval_base_nll(engine->graph, engine->model, &piece, 1, &sum, NULL, error);
            rows[s].values[PPL_NLL] += sum;
            rows[s].values[PPL_TARGETS] += (double)(end - scored);
            scored = end;
        }
    }
    return status;
}

static const icae_eval_column ppl_columns[] = {
    {"tokens", "tokens scored", 0, ICAE_EVAL_SUM, .a = PPL_TARGETS},
    {"loss", "loss (nats/token)", 4, ICAE_EVAL_RATIO, .a = PPL_NLL, .b = PPL_TARGETS},
    {"ppl", "perplexity", 4, ICAE_EVAL_PPL, .a = PPL_NLL, .b = PPL_TARGETS},
    {.key = NULL},
};

const icae_eval_suite icae_suite_ppl = {
    .name = "ppl",
    .title = "Perplexity of the bare base",
    .note = "Every token but each text's first, once; in a text longer than the window each "
            "token is scored in "
            "the first window that reaches it.",
    .group_heading = "texts",
    .wants_adapter = false,
    .wants_data = true,
    .has_total = true,
    .values = ppl_values,
    .columns = ppl_columns,
    .fill = ppl_fill,
    .collect = ppl_collect,
    .measure = ppl_measure,
};
