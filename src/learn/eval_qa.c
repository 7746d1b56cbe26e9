/* SPDX-License-Identifier: MIT */
/*
 * Suite qa: questions about a text that is there as slots, as itself, or not at all.
 *
 *     slots    prefix, slots, FT, question, suffix                  as in instruction fine-tuning
 *     raw      prefix, text, blank line, question, suffix           the bare base
 *     nothing  prefix, question, suffix                             the bare base
 *
 * The right answer and its end are scored behind all three; from slots and from the text an answer is also
 * written freely and compared with the right one. Without a judge, "win" is told by likelihood: slots win a
 * question where the right answer is likelier behind them than behind the text, by more than MARGIN nats a
 * token, lose where it is the other way round, and tie in between. Rows of one input that follow each other
 * are compressed once.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate_internal.h"
#include "icae/metrics.h"

enum {
    ROUGE_SLOTS = EVAL_THREE_WAYS,
    ROUGE_RAW,
    F1_SLOTS,
    F1_RAW,
    EXACT_SLOTS,
    EXACT_RAW,
    N_VALUES
};
static const char *const value_names[] = {
    EVAL_THREE_WAYS_NAMES, "rouge_l", "rouge_l_raw", "f1", "f1_raw", "exact",
    "exact_raw",           NULL};
_Static_assert(sizeof value_names / sizeof *value_names == N_VALUES + 1, "a name each");

enum { DEFAULT_GENERATE = 128 };
static const double MARGIN = 0.1;

static void fill(const icae_eval_engine *engine, icae_eval_settings *settings) {
    (void)engine;
    settings->samples = icae_eval_or(settings->samples, EVAL_DEFAULT_SAMPLES);
    settings->tokens = icae_eval_or(settings->tokens, 0);
    settings->generate = icae_eval_or(settings->generate, DEFAULT_GENERATE);
}

/* ---- the base's side ---- */

/* A batch's sequences behind the raw text or behind nothing; parts of them are prompts to write from. */
typedef struct sequences {
    int32_t *ids;
    icae_eval_sequence *list; /* [n], with the answer */
    int64_t *prompts;         /* [n] tokens before the answer */
} sequences;

static void sequences_release(sequences *s) {
    free(s->ids);
    free(s->list);
    free(s->prompts);
    *s = (sequences){0};
}

static int64_t put(int32_t *out, int64_t at, const int32_t *ids, int64_t n) {
    if (n) memcpy(out + at, ids, (size_t)n * sizeof *ids);
    return at + n;
}

/* 1 where the template begins a sequence with BOS already, and the context has one of its own, for the encoder. */
static int64_t repeated_bos(const icae_eval_engine *engine, const icae_chat_ids *chat,
                            const icae_eval_item *item) {
    int32_t bos = icae_tokenizer_bos(engine->model->tokenizer);
    return engine->adapter->settings.context_bos && bos >= 0 && chat->n_prefix > 0 &&
           chat->prefix[0] == bos && item->n > 0 && item->ids[0] == bos;
}

static icae_status sequences_make(sequences *s, const icae_eval_engine *engine,
                                  const icae_chat_ids *chat, const int32_t *blank,
                                  int64_t n_blank, const icae_eval_item *items, int64_t n,
                                  bool has_text, icae_error *error) {
    int64_t total = 1;
    for (int64_t i = 0; i < n; i++) {
        total += chat->n_prefix + items[i].n + n_blank + items[i].n_prompt + chat->n_suffix +
                 items[i].n_answer + 1;
    }
    s->ids = calloc((size_t)total, sizeof *s->ids);
    s->list = calloc((size_t)n, sizeof *s->list);
    s->prompts = calloc((size_t)n, sizeof *s->prompts);
    if (!s->ids || !s->list || !s->prompts) {
        sequences_release(s);
        return icae_fail_memory(error, "questions");
    }
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t start = at;
        at = put(s->ids, at, chat->prefix, chat->n_prefix);
        if (has_text) {
            int64_t first = repeated_bos(engine, chat, &items[i]);
            at = put(s->ids, at, items[i].ids + first, items[i].n - first);
            at = put(s->ids, at, blank, n_blank);
        }
        at = put(s->ids, at, items[i].prompt, items[i].n_prompt);
        at = put(s->ids, at, chat->suffix, chat->n_suffix);
        s->prompts[i] = at - start;
        at = put(s->ids, at, items[i].answer, items[i].n_answer);
        if (chat->end >= 0) s->ids[at++] = chat->end;
        s->list[i] = (icae_eval_sequence){s->ids + start, at - start, s->prompts[i]};
        if (s->prompts[i] < 1) {
            sequences_release(s);
            return icae_fail(error, ICAE_INVALID,
                             "question %lld is empty and the chat template has nothing before "
                             "an answer: its likelihood behind nothing cannot be told",
                             (long long)i);
        }
    }
    return ICAE_OK;
}

static icae_status collect(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           icae_eval_items *items, icae_error *error) {
    icae_chat_ids chat = {0};
    int32_t *blank = NULL;
    size_t n_blank = 0;
    icae_status status = icae_eval_collect_questions(engine, settings, items, error);
    if (!status) {
        status = icae_chat_encode(&chat, &engine->adapter->settings, engine->model->tokenizer,
                                  error);
    }
    if (!status) {
        status = icae_tokenizer_encode(engine->model->tokenizer, "\n\n", 2, false, &blank,
                                       &n_blank, error);
    }
    int64_t around = chat.n_prefix + (int64_t)n_blank + chat.n_suffix + (chat.end >= 0);
    int64_t n_beyond = 0;
    for (int64_t i = 0; i < items->n && !status; i++) {
        const icae_eval_item *item = &items->list[i];
        n_beyond += around + item->n + item->n_prompt + item->n_answer >
                    engine->model->config.context_length;
    }
    if (!status) icae_eval_warn_beyond(engine, items, n_beyond);
    icae_chat_release(&chat);
    free(blank);
    return status;
}

/* ---- answers ---- */

static icae_status score(const icae_eval_engine *engine, const icae_eval_item *item,
                         const icae_result *made, const char *name, int rouge,
                         icae_eval_row *row, icae_error *error) {
    icae_text answer = {0};
    bool is_exact = false;
    size_t bytes = strlen(item->answer_text);
    icae_status status = icae_tokenizer_decode(engine->model->tokenizer, made->ids,
                                               (size_t)made->n, true, &answer, error);
    if (!status) {
        status = icae_rouge_l(icae_text_string(&answer), answer.length, item->answer_text,
                              bytes, &row->values[rouge], error);
    }
    if (!status) {
        status = icae_answer_score(icae_text_string(&answer), answer.length, item->answer_text,
                                   bytes, &row->values[rouge + F1_SLOTS - ROUGE_SLOTS],
                                   &is_exact, error);
    }
    row->values[rouge + EXACT_SLOTS - ROUGE_SLOTS] = is_exact;
    if (!status && !icae_eval_keep_text(row, name, icae_text_string(&answer), answer.length))
        status = icae_fail_memory(error, "an answer");
    icae_text_release(&answer);
    return status;
}

/* Writes answers from slots [n], or, with raw, from the texts; scores them. */
static icae_status answer(const icae_eval_engine *engine, const icae_eval_settings *settings,
                          const icae_chat_ids *chat, const icae_eval_item *items, int64_t n,
                          const icae_slots *slots, const sequences *raw, icae_eval_row *rows,
                          icae_error *error) {
    size_t count = (size_t)n;
    icae_request *requests = calloc(count, sizeof *requests);
    icae_result *results = calloc(count, sizeof *results);
    icae_arena prompts = {0};
    icae_status status = requests && results ? ICAE_OK : icae_fail_memory(error, "answers");
    for (int64_t i = 0; i < n && !status; i++) {
        requests[i] = (icae_request){
            .task = ICAE_TASK_FT, .max_tokens = settings->generate, .stop = chat->end};
        if (raw) {
            requests[i].prompt = raw->list[i].ids;
            requests[i].n_prompt = raw->prompts[i];
            continue;
        }
        int64_t n_prompt = items[i].n_prompt + chat->n_suffix;
        int32_t *prompt = icae_arena_array(&prompts, (size_t)n_prompt + 1, sizeof *prompt);
        if (!prompt) {
            status = icae_fail_memory(error, "questions");
            break;
        }
        icae_chat_prompt(chat, items[i].prompt, items[i].n_prompt, prompt);
        requests[i].slots = &slots[i];
        requests[i].prefix = chat->prefix;
        requests[i].n_prefix = chat->n_prefix;
        requests[i].prompt = prompt;
        requests[i].n_prompt = n_prompt;
    }
    icae_sampling greedy = {.top_p = 1};
    if (!status) {
        status = icae_generate(engine->graph, engine->model, engine->adapter, requests, n,
                               &greedy, NULL, NULL, results, error);
    }
    for (int64_t i = 0; i < n && !status; i++) {
        status = score(engine, &items[i], &results[i], raw ? "from_raw" : "from_slots",
                       raw ? ROUGE_RAW : ROUGE_SLOTS, &rows[i], error);
    }
    if (results) icae_results_release(results, n);
    icae_arena_release(&prompts);
    free(requests);
    free(results);
    return status;
}

/* ---- measuring ---- */

static icae_status base_side(const icae_eval_engine *engine, const icae_eval_settings *settings,
                             const icae_chat_ids *chat, const icae_eval_item *items, int64_t n,
                             bool has_text, double *nll, icae_eval_row *rows,
                             icae_error *error) {
    int32_t *blank = NULL;
    size_t n_blank = 0;
    sequences s = {0};
    icae_status status = icae_tokenizer_encode(engine->model->tokenizer, "\n\n", 2, false,
                                               &blank, &n_blank, error);
    if (!status) {
        status = sequences_make(&s, engine, chat, blank, (int64_t)n_blank, items, n, has_text,
                                error);
    }
    free(blank);
    if (!status) {
        status = icae_eval_base_nll(engine->graph, engine->model, s.list, n, nll, NULL, error);
    }
    for (int64_t i = 0; i < n && !status; i++)
        rows[i].values[has_text ? EVAL_NLL_RAW : EVAL_NLL_NONE] = nll[i];
    if (!status && has_text && !settings->is_loss_only)
        status = answer(engine, settings, chat, items, n, NULL, &s, rows, error);
    sequences_release(&s);
    return status;
}

static icae_status slot_side(const icae_eval_engine *engine, const icae_eval_settings *settings,
                             const icae_chat_ids *chat, const icae_eval_item *items, int64_t n,
                             double *nll, icae_eval_row *rows, icae_error *error) {
    icae_eval_slots slots = {0};
    icae_status status =
        icae_eval_compress(engine, items, n, false, settings->refine, &slots, error);
    if (!status) {
        status = icae_eval_slot_losses(engine, items, slots.of, n, ICAE_TASK_FT, 0, chat, nll,
                                       error);
    }
    for (int64_t i = 0; i < n && !status; i++) {
        double *values = rows[i].values;
        values[EVAL_TOKENS] = (double)items[i].n;
        values[EVAL_SLOTS] = (double)icae_slots_vectors(&slots.of[i]);
        values[EVAL_TARGETS] = (double)(items[i].n_answer + (chat->end >= 0));
        values[EVAL_NLL_SLOTS] = nll[i];
        if (!icae_eval_keep_text(&rows[i], "question", items[i].prompt_text,
                                 strlen(items[i].prompt_text)) ||
            !icae_eval_keep_text(&rows[i], "answer", items[i].answer_text,
                                 strlen(items[i].answer_text)))
            status = icae_fail_memory(error, "questions");
    }
    if (!status && !settings->is_loss_only)
        status = answer(engine, settings, chat, items, n, slots.of, NULL, rows, error);
    icae_eval_slots_release(&slots);
    return status;
}

static icae_status measure(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           const icae_eval_item *items, int64_t n, icae_eval_row *rows,
                           icae_error *error) {
    icae_chat_ids chat = {0};
    double *nll = calloc((size_t)n, sizeof *nll);
    icae_status status = nll ? ICAE_OK : icae_fail_memory(error, "losses");
    if (!status) {
        status = icae_chat_encode(&chat, &engine->adapter->settings, engine->model->tokenizer,
                                  error);
    }
    if (!status) status = slot_side(engine, settings, &chat, items, n, nll, rows, error);
    for (int has_text = 1; has_text >= 0 && !status; has_text--)
        status = base_side(engine, settings, &chat, items, n, has_text, nll, rows, error);
    icae_chat_release(&chat);
    free(nll);
    return status;
}

/* ---- columns ---- */

/* Percent of the rows whose nats a token from slots lie below (-1), beside (0), above (1) those of the
 * raw text. */
static double share(const icae_eval_line *line, int side) {
    int64_t count = 0;
    for (int64_t i = 0; i < line->n; i++) {
        const double *values = line->rows[i].values;
        double over = (values[EVAL_NLL_SLOTS] - values[EVAL_NLL_RAW]) / values[EVAL_TARGETS];
        count += (over > MARGIN) - (over < -MARGIN) == side;
    }
    return 100 * (double)count / (double)line->n;
}
static double of_win(const icae_eval_line *line) {
    return share(line, -1);
}
static double of_tie(const icae_eval_line *line) {
    return share(line, 0);
}
static double of_lose(const icae_eval_line *line) {
    return share(line, 1);
}

static const icae_eval_column columns[] = {
    EVAL_THREE_WAYS_COLUMNS,
    EVAL_RECOVERED_COLUMN,
    {"win", "slots win (%)", 1, ICAE_EVAL_OWN, .of = of_win},
    {"lose", "lose (%)", 1, ICAE_EVAL_OWN, .of = of_lose},
    {"tie", "tie (%)", 1, ICAE_EVAL_OWN, .of = of_tie},
    {"rouge_l", "ROUGE-L, slots (0-1)", 4, ICAE_EVAL_MEAN, .a = ROUGE_SLOTS},
    {"rouge_l_raw", "ROUGE-L, raw", 4, ICAE_EVAL_MEAN, .a = ROUGE_RAW},
    {"f1", "token F1, slots (0-1)", 4, ICAE_EVAL_MEAN, .a = F1_SLOTS},
    {"f1_raw", "token F1, raw", 4, ICAE_EVAL_MEAN, .a = F1_RAW},
    {"exact_match", "exact match, slots (0-1)", 4, ICAE_EVAL_MEAN, .a = EXACT_SLOTS},
    {"exact_match_raw", "exact match, raw", 4, ICAE_EVAL_MEAN, .a = EXACT_RAW},
    {.key = NULL},
};

const icae_eval_suite icae_suite_qa = {
    .name = "qa",
    .title = "Questions: from slots, from the text, from nothing",
    .note = "The right answer's loss behind the slots (with the adapter's FT token), the text "
            "itself and no text at "
            "all. Slots win a question where the right answer is likelier behind them than "
            "behind the text by more "
            "than 0.1 nats a token. ROUGE-L, token F1 and exact match are of freely written, "
            "greedy answers.",
    .paper = "against the full context, judged by GPT-4, k = 128: 19.6 % win, 45.4 % lose, "
             "35.0 % tie; k = 256: "
             "22.0, 22.2, 55.8.",
    .group_heading = "data",
    .wants_adapter = true,
    .wants_data = true,
    .has_total = true,
    .values = value_names,
    .columns = columns,
    .fill = fill,
    .collect = collect,
    .measure = measure,
};
