/* SPDX-License-Identifier: MIT */
/*
 * Suites ae and random: what comes back from the slots of a text.
 *
 * Every item gets its teacher-forced loss, then it is written again freely, greedy, from its slots alone:
 * span after span, as icae_session_generate restores a text, or from all of them at once.
 * `random` measures the same on a text, on the same text with every id + 1, and on random tokens: what
 * only the first restores, the slots hold as language and not as ids (the paper's table 2).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/metrics.h"
#include "icae/rng.h"

enum {
    TOKENS,
    SLOTS,
    TARGETS,
    NLL,
    RESTORED, /* tokens written */
    PREFIX,   /* leading tokens that are right */
    PREFIX_EM,
    ACCURACY,
    EXACT,
    MATCHES, /* BLEU's counts, four each */
    NGRAMS = MATCHES + ICAE_BLEU_ORDER,
    WORDS = NGRAMS + ICAE_BLEU_ORDER, /* of the restored text */
    ORIGINAL_WORDS,
    BLEU, /* of the text alone */
    N_VALUES
};
static const char *const value_names[] = {
    "tokens",   "slots",   "targets", "nll",    "restored_tokens", "prefix_tokens", "prefix",
    "accuracy", "exact",   "match1",  "match2", "match3",          "match4",        "ngrams1",
    "ngrams2",  "ngrams3", "ngrams4", "words",  "original_words",  "bleu",          NULL};
_Static_assert(sizeof value_names / sizeof *value_names == N_VALUES + 1, "a name each");
_Static_assert((int)N_VALUES <= (int)ICAE_EVAL_VALUES, "rows have room");

/* ---- measuring ---- */

static void put_bleu(double *values, const icae_bleu *bleu) {
    for (int n = 0; n < ICAE_BLEU_ORDER; n++) {
        values[MATCHES + n] = (double)bleu->matches[n];
        values[NGRAMS + n] = (double)bleu->ngrams[n];
    }
    values[WORDS] = (double)bleu->hypothesis_tokens;
    values[ORIGINAL_WORDS] = (double)bleu->reference_tokens;
}

static icae_bleu get_bleu(const double *values) {
    icae_bleu bleu = {.hypothesis_tokens = (int64_t)values[WORDS],
                      .reference_tokens = (int64_t)values[ORIGINAL_WORDS]};
    for (int n = 0; n < ICAE_BLEU_ORDER; n++) {
        bleu.matches[n] = (int64_t)values[MATCHES + n];
        bleu.ngrams[n] = (int64_t)values[NGRAMS + n];
    }
    return bleu;
}

static icae_status score(const icae_model *model, const icae_eval_item *item,
                         const icae_result *made, icae_eval_row *row, icae_error *error) {
    icae_text original = {0}, restored = {0};
    icae_bleu bleu = {0};
    icae_status status = icae_tokenizer_decode(model->tokenizer, item->ids, (size_t)item->n,
                                               true, &original, error);
    if (!status) {
        status = icae_tokenizer_decode(model->tokenizer, made->ids, (size_t)made->n, true,
                                       &restored, error);
    }
    if (!status) {
        status = icae_bleu_add(&bleu, icae_text_string(&restored), restored.length,
                               icae_text_string(&original), original.length, error);
    }
    if (!status &&
        (!icae_eval_keep_text(row, "original", icae_text_string(&original), original.length) ||
         !icae_eval_keep_text(row, "restored", icae_text_string(&restored), restored.length))) {
        status = icae_fail_memory(error, "a restored text");
    }
    icae_text_release(&original);
    icae_text_release(&restored);
    size_t n = (size_t)item->n, n_made = (size_t)made->n;
    size_t prefix = icae_prefix_match(made->ids, n_made, item->ids, n);
    put_bleu(row->values, &bleu);
    row->values[BLEU] = icae_bleu_sentence_score(&bleu);
    row->values[RESTORED] = (double)made->n;
    row->values[PREFIX] = (double)prefix;
    row->values[PREFIX_EM] = icae_prefix_exact_match(made->ids, n_made, item->ids, n);
    row->values[ACCURACY] = icae_token_accuracy(made->ids, n_made, item->ids, n);
    row->values[EXACT] = made->is_stopped && prefix == n && n_made == n;
    return status;
}

/* What is restored by itself: the spans of all items, or, together, the items. */
typedef struct pieces {
    icae_eval_item *items; /* [n] with the spans' ids */
    icae_slots *slots;     /* [n] views */
    int64_t *first;        /* [items + 1] pieces of each item */
    icae_request *requests;
    icae_result *made;
    double *nll;
    int64_t n;
} pieces;

static void pieces_release(pieces *p) {
    if (p->made) icae_results_release(p->made, p->n);
    free(p->items);
    free(p->slots);
    free(p->first);
    free(p->requests);
    free(p->made);
    free(p->nll);
}

static icae_status pieces_make(pieces *p, const icae_eval_item *items, const icae_slots *slots,
                               int64_t n_items, bool are_together, icae_error *error) {
    int64_t most = 0;
    for (int64_t i = 0; i < n_items; i++)
        most += are_together ? 1 : slots[i].n_spans;
    *p = (pieces){.items = calloc((size_t)most, sizeof *p->items),
                  .slots = calloc((size_t)most, sizeof *p->slots),
                  .first = calloc((size_t)n_items + 1, sizeof *p->first),
                  .requests = calloc((size_t)most, sizeof *p->requests),
                  .made = calloc((size_t)most, sizeof *p->made),
                  .nll = calloc((size_t)most, sizeof *p->nll)};
    if (!p->items || !p->slots || !p->first || !p->requests || !p->made || !p->nll)
        return icae_fail_memory(error, "a batch to restore");
    for (int64_t i = 0; i < n_items; i++) {
        icae_slots view = {0};
        const int32_t *ids = items[i].ids;
        while (are_together ? view.n_spans == 0 : icae_slots_next_span(&slots[i], &view)) {
            if (are_together) view = slots[i];
            p->items[p->n] = (icae_eval_item){.ids = ids, .n = view.n_tokens};
            p->slots[p->n++] = view;
            ids += view.n_tokens;
        }
        p->first[i + 1] = p->n;
    }
    return ICAE_OK;
}

/* Writes all pieces again from their slots. */
static icae_status pieces_restore(const icae_eval_engine *engine, pieces *p,
                                  icae_error *error) {
    for (int64_t i = 0; i < p->n; i++) {
        p->requests[i] = (icae_request){
            .slots = &p->slots[i],
            .task = ICAE_TASK_AE,
            .max_tokens = icae_restored_limit(p->items[i].n),
            .stop = icae_adapter_stop(&engine->adapter->settings, engine->model->tokenizer)};
    }
    icae_sampling greedy = {.top_p = 1};
    return icae_generate(engine->graph, engine->model, engine->adapter, p->requests, p->n,
                         &greedy, NULL, NULL, p->made, error);
}

/* What pieces first .. end - 1 became, as one text; its ids are malloc'ed. */
static icae_status pieces_join(const pieces *p, int64_t first, int64_t end, icae_result *whole,
                               icae_error *error) {
    size_t n = 0;
    for (int64_t i = first; i < end; i++)
        n += (size_t)p->made[i].n;
    *whole = (icae_result){.ids = calloc(n + 1, sizeof *whole->ids), .is_stopped = true};
    if (!whole->ids) return icae_fail_memory(error, "a restored text");
    for (int64_t i = first; i < end; i++) {
        if (p->made[i].n)
            memcpy(whole->ids + whole->n, p->made[i].ids,
                   (size_t)p->made[i].n * sizeof *whole->ids);
        whole->n += p->made[i].n;
        whole->is_stopped &= p->made[i].is_stopped;
    }
    return ICAE_OK;
}

static icae_status measure_pieces(const icae_eval_engine *engine,
                                  const icae_eval_settings *settings,
                                  const icae_eval_item *items, int64_t n, pieces *p,
                                  icae_eval_row *rows, icae_error *error) {
    int eos = icae_adapter_stop(&engine->adapter->settings, engine->model->tokenizer) >= 0;
    icae_status status = icae_eval_slot_losses(engine, p->items, p->slots, p->n, ICAE_TASK_AE,
                                               0, NULL, p->nll, error);
    if (!status && !settings->is_loss_only) status = pieces_restore(engine, p, error);
    for (int64_t i = 0; i < n && !status; i++) {
        double *values = rows[i].values;
        values[TOKENS] = (double)items[i].n;
        for (int64_t j = p->first[i]; j < p->first[i + 1]; j++) {
            values[SLOTS] += (double)icae_slots_vectors(&p->slots[j]);
            values[TARGETS] += (double)(p->items[j].n + eos);
            values[NLL] += p->nll[j];
        }
        if (settings->is_loss_only) continue;
        icae_result whole;
        status = pieces_join(p, p->first[i], p->first[i + 1], &whole, error);
        if (!status) status = score(engine->model, &items[i], &whole, &rows[i], error);
        icae_results_release(&whole, 1);
    }
    return status;
}

static icae_status measure(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           const icae_eval_item *items, int64_t n, icae_eval_row *rows,
                           icae_error *error) {
    icae_eval_slots slots = {0};
    pieces p = {0};
    icae_status status =
        icae_eval_compress(engine, items, n, false, settings->refine, &slots, error);
    if (!status) status = pieces_make(&p, items, slots.of, n, settings->spans_together, error);
    if (!status) status = measure_pieces(engine, settings, items, n, &p, rows, error);
    pieces_release(&p);
    icae_eval_slots_release(&slots);
    return status;
}

/* ---- collecting ---- */

static void fill(const icae_eval_engine *engine, icae_eval_settings *settings) {
    settings->samples = icae_eval_or(settings->samples, EVAL_DEFAULT_SAMPLES);
    settings->tokens = icae_eval_or(settings->tokens, icae_eval_span(engine));
}

static icae_status collect(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           icae_eval_items *items, icae_error *error) {
    icae_eval_cutting one = {.tokens = settings->tokens, .samples = settings->samples};
    icae_eval_label_up_to(one.label, settings->tokens);
    if (settings->n_lengths == 0) {
        return icae_eval_collect_texts(engine, settings, &one, 1, items, error);
    }
    icae_eval_cutting *cuttings = calloc((size_t)settings->n_lengths, sizeof *cuttings);
    if (!cuttings) return icae_fail_memory(error, "length buckets");
    for (int64_t i = 0; i < settings->n_lengths; i++) {
        int64_t length = settings->lengths[i];
        cuttings[i] = (icae_eval_cutting){
            .tokens = length, .reach = EVAL_BUCKET_REACH, .samples = settings->samples};
        snprintf(cuttings[i].label, sizeof cuttings[i].label, "%lld", (long long)length);
    }
    icae_status status =
        icae_eval_collect_texts(engine, settings, cuttings, settings->n_lengths, items, error);
    free(cuttings);
    return status;
}

/* A random id that is no special token. */
static int32_t draw_id(const icae_tokenizer *tokenizer, icae_rng *rng) {
    int32_t id;
    do {
        id = (int32_t)icae_rng_below(rng, (uint64_t)icae_tokenizer_size(tokenizer));
    } while (icae_tokenizer_is_special(tokenizer, id));
    return id;
}

/* The next id that is no special token, around the end of the vocabulary. */
static int32_t next_id(const icae_tokenizer *tokenizer, int32_t id) {
    do {
        id = (id + 1) % icae_tokenizer_size(tokenizer);
    } while (icae_tokenizer_is_special(tokenizer, id));
    return id;
}

/* One item a kind; `kind` 1 is the shifted text, 2 random tokens. */
static icae_status add_changed(const icae_eval_engine *engine,
                               const icae_eval_settings *settings, icae_eval_items *items,
                               int64_t index, int kind, icae_error *error) {
    const icae_tokenizer *tokenizer = engine->model->tokenizer;
    icae_eval_item item = items->list[index];
    int32_t *ids = icae_arena_array(&items->arena, (size_t)item.n, sizeof *ids);
    if (!ids) return icae_fail_memory(error, "random tokens");
    icae_rng rng = {settings->seed, (uint64_t)index, 0};
    for (int64_t i = 0; i < item.n; i++)
        ids[i] = kind == 1 ? next_id(tokenizer, item.ids[i]) : draw_id(tokenizer, &rng);
    item.ids = ids;
    return icae_eval_add_item(items, item, error);
}

static icae_status collect_random(const icae_eval_engine *engine,
                                  const icae_eval_settings *settings, icae_eval_items *items,
                                  icae_error *error) {
    static const char *const labels[] = {"normal text", "every id + 1", "random tokens"};
    icae_eval_cutting cutting = {.tokens = settings->tokens, .samples = settings->samples};
    snprintf(cutting.label, sizeof cutting.label, "%s", labels[0]);
    icae_status status = icae_eval_collect_texts(engine, settings, &cutting, 1, items, error);
    int64_t n = items->n;
    for (int kind = 1; kind < 3 && !status; kind++) {
        status = icae_eval_add_group(items, error, "%s", labels[kind]);
        for (int64_t i = 0; i < n && !status; i++)
            status = add_changed(engine, settings, items, i, kind, error);
    }
    return status;
}

/* ---- columns ---- */

static double of_bleu(const icae_eval_line *line) {
    icae_bleu bleu = get_bleu(line->sums);
    return icae_bleu_score(&bleu);
}

static const icae_eval_column columns[] = {
    {"context_tokens", "tokens", 0, ICAE_EVAL_SUM, .a = TOKENS},
    {"slots", "slots", 0, ICAE_EVAL_SUM, .a = SLOTS},
    {"targets", "tokens scored", 0, ICAE_EVAL_SUM, .a = TARGETS},
    {"tokens_per_slot", "tokens a slot", 2, ICAE_EVAL_RATIO, .a = TOKENS, .b = SLOTS},
    {"loss", "loss (nats/token)", 4, ICAE_EVAL_RATIO, .a = NLL, .b = TARGETS},
    {"bleu4", "BLEU-4 (0-100)", 2, ICAE_EVAL_OWN, .of = of_bleu},
    {"median_bleu4", "median BLEU-4", 2, ICAE_EVAL_MEDIAN, .a = BLEU},
    {"prefix_em", "exact prefix (0-1)", 4, ICAE_EVAL_MEAN, .a = PREFIX_EM},
    {"median_prefix_em", "median exact prefix", 4, ICAE_EVAL_MEDIAN, .a = PREFIX_EM},
    {"token_accuracy", "token accuracy (0-1)", 4, ICAE_EVAL_MEAN, .a = ACCURACY},
    {"exact", "exact texts", 0, ICAE_EVAL_SUM, .a = EXACT},
    {.key = NULL},
};

const icae_eval_suite icae_suite_ae = {
    .name = "ae",
    .title = "Autoencoding: the text again, from its slots",
    .note = "Loss is teacher-forced, the end token of every span included. All else is "
            "free-running and greedy: BLEU-4 as "
            "sacrebleu's corpus score (medians over texts: its sentence score), exactly "
            "restored leading "
            "tokens over all tokens, places with the right token over the longer length.",
    .paper =
        "512 tokens -> 128 slots, BLEU-4 / loss: Llama-7b 99.1 / 0.017, Llama-2-7b 99.5 / "
        "0.009, Llama-2-13b "
        "99.8 / 0.004; at 500 tokens BLEU-4 over 95 and a median exact prefix of about 0.6.",
    .group_heading = "tokens a text",
    .wants_adapter = true,
    .wants_data = true,
    .has_total = true,
    .values = value_names,
    .columns = columns,
    .fill = fill,
    .collect = collect,
    .measure = measure,
};

const icae_eval_suite icae_suite_random = {
    .name = "random",
    .title = "What kind of content slots hold",
    .note = "The same texts, with every token id raised by one, and as many random tokens "
            "(special tokens are "
            "left out): the further from language, the less a slot holds.",
    .paper = "loss, BLEU-4: normal text 0.01, 99.3; every id + 1 1.63, 3.5; random tokens "
             "4.55, 0.2.",
    .group_heading = "content",
    .wants_adapter = true,
    .wants_data = true,
    .has_total = false,
    .values = value_names,
    .columns = columns,
    .fill = fill,
    .collect = collect_random,
    .measure = measure,
};
