/* SPDX-License-Identifier: MIT */
/*
 * Files to items. Which items a file gives depends on the file, the settings and the tokenizer alone, so two
 * runs measure the same ones. Documents are read once, whatever the number of groups, and reading stops when
 * every group has its items.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/corpus.h"
#include "icae/log.h"
#include "icae/rng.h"

void icae_eval_items_release(icae_eval_items *items) {
    free(items->list);
    free(items->labels);
    icae_arena_release(&items->arena);
    *items = (icae_eval_items){0};
}

void icae_eval_label_up_to(char label[64], int64_t tokens) {
    if (tokens > 0)
        snprintf(label, 64, "up to %lld", (long long)tokens);
    else
        snprintf(label, 64, "whole texts");
}

icae_status icae_eval_add_group(icae_eval_items *items, icae_error *error, const char *format,
                                ...) {
    size_t n = (size_t)items->n_groups + 1;
    char(*grown)[64] = realloc(items->labels, n * sizeof *grown);
    if (!grown) return icae_fail_memory(error, "groups of samples");
    items->labels = grown;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(grown[items->n_groups++], sizeof *grown, format, arguments);
    va_end(arguments);
    return ICAE_OK;
}

void icae_eval_warn_beyond(const icae_eval_engine *engine, const icae_eval_items *items,
                           int64_t n_beyond) {
    if (n_beyond < 1) return;
    icae_log_warning(
        "%lld of %lld texts are, with what follows them, longer than the contexts of %lld "
        "tokens "
        "that the base was trained on: its figures behind the text itself say little",
        (long long)n_beyond, (long long)items->n,
        (long long)engine->model->config.context_length);
}

/* Lists of items grow by doubling. */
static icae_status append(icae_eval_item **list, int64_t *n, int64_t *capacity,
                          icae_eval_item item, icae_error *error) {
    if (*n == *capacity) {
        int64_t wanted = *capacity ? 2 * *capacity : 64;
        icae_eval_item *grown = realloc(*list, (size_t)wanted * sizeof *grown);
        if (!grown) return icae_fail_memory(error, "samples");
        *list = grown;
        *capacity = wanted;
    }
    (*list)[(*n)++] = item;
    return ICAE_OK;
}

icae_status icae_eval_add_item(icae_eval_items *items, icae_eval_item item, icae_error *error) {
    item.group = items->n_groups - 1;
    return append(&items->list, &items->n, &items->capacity, item, error);
}

uint64_t icae_eval_items_hash(const icae_eval_items *items) {
    uint64_t h = icae_mix64((uint64_t)items->n, (uint64_t)items->n_groups);
    for (int64_t g = 0; g < items->n_groups; g++)
        h = icae_hash64(items->labels[g], strlen(items->labels[g]), h);
    for (int64_t i = 0; i < items->n; i++) {
        const icae_eval_item *item = &items->list[i];
        const struct {
            const int32_t *ids;
            int64_t n;
        } parts[] = {{item->ids, item->n},
                     {item->continuation, item->n_continuation},
                     {item->prompt, item->n_prompt},
                     {item->answer, item->n_answer}};
        for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
            h = icae_mix64(h, (uint64_t)parts[p].n);
            if (parts[p].n)
                h = icae_hash64(parts[p].ids, (uint64_t)parts[p].n * sizeof(int32_t), h);
        }
        h = icae_mix64(h, (uint64_t)item->group);
        h = icae_mix64(h, (uint64_t)item->copies);
    }
    return h;
}

/* ids [n] of the tokenizer become the arena's. */
static icae_status keep_ids(icae_eval_items *items, int32_t *ids, size_t n,
                            const int32_t **kept, icae_error *error) {
    int32_t *copy = icae_arena_array(&items->arena, n + 1, sizeof *copy);
    if (copy && n) memcpy(copy, ids, n * sizeof *copy);
    free(ids);
    *kept = copy;
    return copy ? ICAE_OK : icae_fail_memory(error, "samples");
}

/* ---- texts ---- */

/* One group while documents come in: its items are put together at the end, group by group. */
typedef struct group {
    const icae_eval_cutting *cut;
    icae_eval_item *list;
    int64_t n, capacity;
    int32_t bos;       /* what contexts begin with, or -1 */
    icae_arena *arena; /* the items' */
} group;

static bool is_full(const group *g) {
    return g->cut->samples > 0 && g->n >= g->cut->samples;
}

/* Tokens of the next context of a group, from a place with so many left; 0: too few. */
static int64_t next_length(const group *g, uint64_t seed, int64_t left) {
    const icae_eval_cutting *cut = g->cut;
    if (cut->tokens == 0) return left;
    int64_t length = cut->tokens < left ? cut->tokens : left;
    if (cut->reach > 0) {
        icae_rng rng = {seed, (uint64_t)cut->tokens, 4 * (uint64_t)g->n};
        uint64_t spread = 2 * (uint64_t)cut->reach + 1;
        if (cut->tokens + cut->reach > left) return 0;
        length = cut->tokens - cut->reach + (int64_t)icae_rng_below(&rng, spread);
        if (length < EVAL_LEAST_TOKENS) length = EVAL_LEAST_TOKENS;
    }
    return length >= EVAL_LEAST_TOKENS && length <= left ? length : 0;
}

/* A piece is a text of its own: where contexts begin with BOS, it does, too, in the place of its first token. */
static const int32_t *begin_with_bos(const group *g, const int32_t *ids, int64_t n) {
    int32_t *copy = icae_arena_array(g->arena, (size_t)n, sizeof *copy);
    if (!copy) return NULL;
    memcpy(copy, ids, (size_t)n * sizeof *copy);
    copy[0] = g->bos;
    return copy;
}

/* Items of one group from one document; *is_used when there is at least one. */
static icae_status cut_document(group *g, uint64_t seed, const int32_t *ids, int64_t n,
                                bool is_text, bool *is_used, icae_error *error) {
    const icae_eval_cutting *cut = g->cut;
    icae_status status = ICAE_OK;
    for (int64_t at = cut->before; at < n && !status && !is_full(g); at += cut->before) {
        int64_t length = next_length(g, seed, n - at), follows = n - at - length;
        if (follows > cut->continuation) follows = cut->continuation;
        if (length < 1 || (cut->continuation > 0 && follows < cut->least_continuation)) break;
        icae_eval_item item = {
            .ids = at > 0 && g->bos >= 0 ? begin_with_bos(g, ids + at, length) : ids + at,
            .n = length,
            .continuation = ids + at + length,
            .n_continuation = follows};
        status = item.ids ? append(&g->list, &g->n, &g->capacity, item, error)
                          : icae_fail_memory(error, "samples");
        *is_used = true;
        at += length + follows;
        if (!is_text) break;
    }
    return status;
}

/* The likeliest reason for a field that is missing. */
static const char other_suite[] = "\"qa\" reads \"input\", \"prompt\" and \"answer\", the "
                                  "other suites \"text\"; give another "
                                  "file";

/* Blank texts, and rows with a blank field, the corpus has passed over by itself. */
static void close_corpus(icae_corpus *corpus, icae_eval_items *items) {
    if (!corpus) return;
    items->passed_over += (int64_t)icae_corpus_get_stats(corpus).empty;
    icae_corpus_close(corpus);
}

static icae_status read_texts(const icae_eval_engine *engine,
                              const icae_eval_settings *settings, group *groups, int64_t n,
                              icae_eval_items *items, icae_error *error) {
    const icae_adapter_settings *adapter = engine->adapter ? &engine->adapter->settings : NULL;
    icae_corpus *corpus = NULL;
    icae_corpus_options wishes = {
        .paths = &settings->data, .n_paths = 1, .epochs = 1, .advice = other_suite};
    icae_status status = icae_corpus_open(&corpus, &wishes, error);
    int64_t n_full = 0;
    while (!status && n_full < n) {
        icae_document document;
        status = icae_corpus_next(corpus, &document, error);
        if (status || !document.text) break;
        int32_t *ids = NULL;
        const int32_t *kept;
        size_t count = 0;
        status = icae_adapter_encode(adapter, engine->model->tokenizer, document.text,
                                     document.bytes, &ids, &count, error);
        if (!status) status = keep_ids(items, ids, count, &kept, error);
        bool is_used = false;
        n_full = 0;
        for (int64_t g = 0; g < n && !status; g++) {
            status = cut_document(&groups[g], settings->seed, kept, (int64_t)count,
                                  document.is_text, &is_used, error);
            n_full += is_full(&groups[g]);
        }
        if (!is_used) items->passed_over++;
    }
    close_corpus(corpus, items);
    return status;
}

/* The groups' items one after the other. */
static icae_status put_together(const icae_eval_settings *settings, const group *groups,
                                int64_t n, icae_eval_items *items, icae_error *error) {
    icae_status status = ICAE_OK;
    for (int64_t g = 0; g < n && !status; g++) {
        const icae_eval_cutting *cut = groups[g].cut;
        if (groups[g].n == 0) {
            return icae_fail(error, ICAE_INVALID,
                             "%s: no text is long enough for \"%s\"; %lld were passed over",
                             settings->data, cut->label, (long long)items->passed_over);
        }
        if (cut->samples > groups[g].n && n > 1) {
            icae_log_warning("%s: only %lld texts are long enough for \"%s\"", settings->data,
                             (long long)groups[g].n, cut->label);
        }
        status = icae_eval_add_group(items, error, "%s", cut->label);
        for (int64_t i = 0; i < groups[g].n && !status; i++)
            status = icae_eval_add_item(items, groups[g].list[i], error);
    }
    if (!status && items->passed_over > 0 && n == 1) {
        icae_log_info("%lld texts of %s are too short and were passed over",
                      (long long)items->passed_over, settings->data);
    }
    return status;
}

icae_status icae_eval_collect_texts(const icae_eval_engine *engine,
                                    const icae_eval_settings *settings,
                                    const icae_eval_cutting *cuttings, int64_t n_cuttings,
                                    icae_eval_items *items, icae_error *error) {
    group *groups = calloc((size_t)n_cuttings, sizeof *groups);
    if (!groups) return icae_fail_memory(error, "groups of samples");
    const bool has_bos = engine->adapter && engine->adapter->settings.context_bos;
    const int32_t bos = has_bos ? icae_tokenizer_bos(engine->model->tokenizer) : -1;
    for (int64_t g = 0; g < n_cuttings; g++)
        groups[g] = (group){.cut = &cuttings[g], .bos = bos, .arena = &items->arena};
    icae_status status = read_texts(engine, settings, groups, n_cuttings, items, error);
    if (!status) status = put_together(settings, groups, n_cuttings, items, error);
    for (int64_t g = 0; g < n_cuttings; g++)
        free(groups[g].list);
    free(groups);
    return status;
}

/* ---- questions ---- */

enum { INPUT, PROMPT, ANSWER, N_FIELDS };

/* The input of the last item, in the items' arena; NULL: none. It may hold zeros. */
typedef struct last_input {
    const char *text;
    size_t bytes;
} last_input;

static icae_status add_question(const icae_eval_engine *engine,
                                const icae_eval_settings *settings,
                                const icae_document *document, icae_eval_items *items,
                                last_input *last, icae_error *error) {
    const icae_tokenizer *tokenizer = engine->model->tokenizer;
    icae_eval_item item = {0};
    const icae_eval_item *before = items->n ? &items->list[items->n - 1] : NULL;
    const char *input = document->fields[INPUT];
    size_t input_bytes = document->field_bytes[INPUT];
    bool is_same = before && last->text && last->bytes == input_bytes &&
                   !memcmp(last->text, input, input_bytes);
    icae_status status = ICAE_OK;
    int32_t *ids;
    size_t n;
    if (is_same) {
        item.ids = before->ids;
        item.n = before->n;
    } else {
        status = icae_adapter_encode(&engine->adapter->settings, tokenizer, input, input_bytes,
                                     &ids, &n, error);
        if (!status) status = keep_ids(items, ids, n, &item.ids, error);
        if (status) return status;
        item.n = (int64_t)n;
        *last = (last_input){icae_arena_copy(&items->arena, input, input_bytes), input_bytes};
        if (!last->text) return icae_fail_memory(error, "questions");
    }
    for (int field = PROMPT; field < N_FIELDS && !status; field++) {
        const char *text = document->fields[field];
        size_t bytes = document->field_bytes[field];
        status = icae_tokenizer_encode(tokenizer, text, bytes, false, &ids, &n, error);
        if (status) break;
        status = keep_ids(items, ids, n, field == PROMPT ? &item.prompt : &item.answer, error);
        *(field == PROMPT ? &item.n_prompt : &item.n_answer) = (int64_t)n;
        const char *copy = icae_arena_copy(&items->arena, text, bytes);
        if (!status && !copy) status = icae_fail_memory(error, "questions");
        *(field == PROMPT ? &item.prompt_text : &item.answer_text) = copy;
    }
    if (status) return status;
    bool is_too_long = settings->tokens > 0 && item.n > settings->tokens;
    if (item.n == 0 || item.n_answer == 0 || is_too_long) {
        items->passed_over++;
        if (!is_same) last->text = NULL;
        return ICAE_OK;
    }
    return icae_eval_add_item(items, item, error);
}

icae_status icae_eval_collect_questions(const icae_eval_engine *engine,
                                        const icae_eval_settings *settings,
                                        icae_eval_items *items, icae_error *error) {
    icae_corpus *corpus = NULL;
    icae_corpus_options wishes = {.paths = &settings->data,
                                  .n_paths = 1,
                                  .epochs = 1,
                                  .advice = other_suite,
                                  .fields = {"input", "prompt", "answer"},
                                  .n_fields = N_FIELDS};
    icae_status status = icae_corpus_open(&corpus, &wishes, error);
    if (!status) status = icae_eval_add_group(items, error, "questions");
    last_input last = {NULL, 0};
    while (!status && !(settings->samples > 0 && items->n >= settings->samples)) {
        icae_document document;
        status = icae_corpus_next(corpus, &document, error);
        if (status || !document.text) break;
        status = add_question(engine, settings, &document, items, &last, error);
    }
    close_corpus(corpus, items);
    if (!status && items->n == 0) {
        status = icae_fail(error, ICAE_INVALID,
                           "%s: no question can be asked; %lld were passed over",
                           settings->data, (long long)items->passed_over);
    }
    if (!status && items->passed_over > 0) {
        icae_log_info("%lld questions of %s were passed over: no tokens, or a longer text than "
                      "--tokens allows",
                      (long long)items->passed_over, settings->data);
    }
    return status;
}
