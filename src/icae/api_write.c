/* SPDX-License-Identifier: MIT */
/*
 * Writing from slots through the public API; the contract stands in icae.h.
 *
 * What is decided here: what a request looks like for each mode, and how much of it fits into the base's
 * context. A text is written in parts: a continuation or an answer is one, a text that is restored has
 * one for each span. Some parts are written side by side; a text's caller sees them in order, for
 * what a later part has written waits until those before it are over.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "icae/api_internal.h"
#include "icae/chat.h"
#include "icae/generate.h"
#include "icae/log.h"

enum {
    DEFAULT_TOKENS = 256,  /* of a continuation or an answer */
    MOST_TOKENS = 1 << 20, /* of one part: a typing error must not ask for all memory */
    SIDE_BY_SIDE = 8 /* parts at least, where there are as many: see docs/performance.md */
};

/* ---- questions ---- */

/* A request and the ids that it points to. */
typedef struct question {
    icae_request request;
    icae_chat_ids chat; /* its prefix is the request's */
    int32_t *prompt;
    int64_t input_tokens; /* all rows before the first new token */
} question;

static void question_release(question *q) {
    icae_chat_release(&q->chat);
    free(q->prompt);
}

static icae_status question_make(const icae_session *session, const icae_slots *slots,
                                 const icae_generation *what, question *q, icae_error *error) {
    static const icae_task task_of[] = {ICAE_TASK_AE, ICAE_TASK_LM, ICAE_TASK_FT};
    const icae_adapter_settings *settings = &session->adapter->settings;
    const icae_tokenizer *tokenizer = session->base->model->tokenizer;
    *q = (question){.request = {.slots = slots,
                                .task = task_of[what->mode],
                                .stop = icae_adapter_stop(settings, tokenizer)}};
    if (what->mode == ICAE_ASK) {
        icae_status status =
            icae_chat_encode(&q->chat, &session->adapter->settings, tokenizer, error);
        if (!status) {
            status = icae_chat_dialogue(&q->chat, tokenizer, what->turns, what->n_turns,
                                        what->prompt, &q->prompt, &q->request.n_prompt, error);
        }
        if (status) return status;
        q->request.prefix = q->chat.prefix;
        q->request.n_prefix = q->chat.n_prefix;
        q->request.prompt = q->prompt;
        q->request.stop = q->chat.end;
    }
    q->input_tokens = q->request.n_prefix + icae_slots_rows(slots) +
                      icae_adapter_task_tokens(settings, q->request.task) + q->request.n_prompt;
    return ICAE_OK;
}

/* The position id of the first new token. */
static int64_t first_position(const icae_session *session, const icae_slots *slots,
                              const icae_request *request) {
    const icae_adapter_settings *settings = &session->adapter->settings;
    int64_t after = icae_adapter_task_tokens(settings, request->task) + request->n_prompt;
    if (settings->layout == ICAE_LAYOUT_APPEND) {
        return request->n_prefix + icae_slots_rows(slots) + after;
    }
    if (request->task == ICAE_TASK_AE) return after;
    int64_t offset = request->n_prefix > 0 ? request->n_prefix - 1 : 0;
    return slots->n_tokens + offset + after;
}

static icae_status check_generation(const icae_session *session, const icae_slots *slots,
                                    const icae_generation *what, icae_error *error) {
    const icae_model *model = session->base->model;
    if ((int)what->mode < 0 || what->mode > ICAE_ASK) {
        return icae_fail(error, ICAE_INVALID, "mode %d is unknown", (int)what->mode);
    }
    if (what->mode == ICAE_ASK && !what->prompt) {
        return icae_fail(error, ICAE_INVALID, "a question needs a prompt");
    }
    for (size_t i = 0; what->mode == ICAE_ASK && i < what->n_turns; i++) {
        if (what->turns && what->turns[i].question && what->turns[i].answer) continue;
        return icae_fail(error, ICAE_INVALID, "turn %zu lacks its question or its answer", i);
    }
    if (what->max_tokens < 0 || what->least_tokens < 0 || what->top_k < 0) {
        return icae_fail(error, ICAE_INVALID,
                         "max_tokens, least_tokens and top_k cannot be negative");
    }
    if (!(what->temperature >= 0) || !(what->top_p >= 0 && what->top_p <= 1)) {
        return icae_fail(error, ICAE_INVALID,
                         "expected a temperature of 0 or more and a top_p from 0 to 1, not %g "
                         "and %g",
                         what->temperature, what->top_p);
    }
    if (slots->base_fingerprint != model->fingerprint ||
        slots->adapter_fingerprint != session->adapter->fingerprint) {
        return icae_fail(error, ICAE_MISMATCH,
                         "the slots are of base %016llx and adapter %016llx, the session has "
                         "%016llx and %016llx",
                         (unsigned long long)slots->base_fingerprint,
                         (unsigned long long)slots->adapter_fingerprint,
                         (unsigned long long)model->fingerprint,
                         (unsigned long long)session->adapter->fingerprint);
    }
    return ICAE_OK;
}

/* ---- parts ---- */

/* What is written in one go: from all slots of a text, or from those of one span. */
typedef struct part {
    size_t text;
    icae_slots slots; /* a view */
    question question;
} part;

/* A text on its way to the caller: tokens become pieces of whole characters. */
typedef struct writer {
    size_t first, end; /* its parts */
    size_t part;       /* whose tokens are being told */
    int64_t taken;     /* tokens of that part that were told */
    int64_t left;      /* tokens that may still be written */
    int64_t input_tokens, generated;
    bool is_complete; /* so far: every part that was told ended by itself */
    icae_token_stream stream;
    icae_text text; /* everything so far */
    size_t told;    /* bytes of it that the callback has seen */
} writer;

/* A call: n texts, whose parts are written in groups. */
typedef struct generation {
    const icae_session *session;
    const icae_generation *what;
    size_t n, n_parts;
    writer *writers; /* [n] */
    part *parts;     /* [n_parts], text by text */
    /* the group at work */
    size_t most;   /* parts in a group */
    size_t *group; /* [most] */
    size_t n_group;
    icae_request *requests; /* [most] those of the group's parts */
    icae_result *made;      /* [most] */
    icae_batch_callback *callback;
    void *user;
} generation;

/* Its tokens are known already, or there are none. */
static bool is_given(const generation *g, const part *p) {
    return g->what->mode == ICAE_RECONSTRUCT && !g->what->spans_together &&
           (p->slots.n_raw > 0 || p->slots.n_tokens == 0);
}

/* How many tokens to write: what was asked for, as far as positions last. */
static icae_status choose_length(const generation *g, part *p, icae_error *error) {
    const icae_generation *what = g->what;
    question *q = &p->question;
    const writer *w = &g->writers[p->text];
    int64_t context = g->session->base->model->config.context_length;
    int64_t first = first_position(g->session, &p->slots, &q->request), room = context - first;
    int64_t wanted = what->max_tokens;
    if (what->mode == ICAE_RECONSTRUCT) {
        /* A span ends somewhere: more of it than that would push what follows out of the text. */
        int64_t limit = icae_restored_limit(p->slots.n_tokens);
        if (wanted == 0 || (wanted > limit && !what->spans_together)) wanted = limit;
    } else if (wanted == 0) {
        wanted = DEFAULT_TOKENS;
    }
    if (wanted > MOST_TOKENS) wanted = MOST_TOKENS;
    if (room < 1) {
        return icae_fail(error, ICAE_INVALID,
                         "nothing can be written behind these slots: the first new token would "
                         "stand at position %lld, the base's context ends at %lld; use a "
                         "shorter %s",
                         (long long)first, (long long)context,
                         what->mode == ICAE_ASK ? "prompt or text" : "text");
    }
    if (room < what->least_tokens) {
        return icae_fail(
            error, ICAE_INVALID,
            "only %lld new tokens fit into the base's context of %lld behind these "
            "slots, expected room for %lld",
            (long long)room, (long long)context, (long long)what->least_tokens);
    }
    const bool is_first = p == &g->parts[w->first]; /* one warning a text */
    const bool has_text_positions = g->session->adapter->settings.layout == ICAE_LAYOUT_UNIFORM;
    if (p->slots.n_tokens > context && has_text_positions && is_first) {
        icae_log_warning("the slots stand for %lld tokens, the base was trained on contexts of "
                         "%lld: expect less of it",
                         (long long)p->slots.n_tokens, (long long)context);
    }
    if (wanted > room && is_first) {
        icae_log_warning("only %lld new tokens fit into the base's context of %lld",
                         (long long)room, (long long)context);
    }
    q->request.max_tokens = wanted < room ? wanted : room;
    return ICAE_OK;
}

static icae_status part_prepare(generation *g, part *p, icae_error *error) {
    if (is_given(g, p)) return ICAE_OK;
    icae_status status = question_make(g->session, &p->slots, g->what, &p->question, error);
    if (!status) status = choose_length(g, p, error);
    g->writers[p->text].input_tokens += p->question.input_tokens;
    return status;
}

/* The parts of a text, from index `at` on; returns where they end. parts may be NULL: only to count. */
static size_t list_parts(const generation *g, size_t text, const icae_slots *slots, size_t at,
                         part *parts) {
    icae_slots view = {0};
    if (g->what->mode != ICAE_RECONSTRUCT || g->what->spans_together) {
        if (parts) parts[at] = (part){.text = text, .slots = *slots};
        return at + 1;
    }
    for (; icae_slots_next_span(slots, &view); at++)
        if (parts) parts[at] = (part){.text = text, .slots = view};
    return at;
}

static icae_status prepare(generation *g, const icae_slots *const *slots, icae_error *error) {
    for (size_t i = 0; i < g->n; i++) {
        icae_status status = check_generation(g->session, slots[i], g->what, error);
        if (status) return status;
        g->n_parts = list_parts(g, i, slots[i], g->n_parts, NULL);
    }
    g->most = g->n > SIDE_BY_SIDE ? g->n : SIDE_BY_SIDE;
    g->writers = calloc(g->n, sizeof *g->writers);
    g->parts = calloc(g->n_parts, sizeof *g->parts);
    g->group = calloc(g->most, sizeof *g->group);
    g->requests = calloc(g->most, sizeof *g->requests);
    g->made = calloc(g->most, sizeof *g->made);
    if (!g->writers || !g->parts || !g->group || !g->requests || !g->made)
        return icae_fail_memory(error, "texts to write");
    size_t at = 0;
    for (size_t i = 0; i < g->n; i++) {
        writer *w = &g->writers[i];
        w->first = w->part = at;
        w->end = at = list_parts(g, i, slots[i], at, g->parts);
        w->is_complete = true;
        w->left = g->what->max_tokens > 0 ? g->what->max_tokens : INT64_MAX;
    }
    icae_status status = ICAE_OK;
    for (size_t p = 0; p < g->n_parts && !status; p++)
        status = part_prepare(g, &g->parts[p], error);
    return status;
}

static void generation_release(generation *g) {
    for (size_t p = 0; g->parts && p < g->n_parts; p++)
        question_release(&g->parts[p].question);
    for (size_t i = 0; g->writers && i < g->n; i++) {
        /* half a character may wait in the stream of a text that was given up */
        icae_token_stream_finish(&g->writers[i].stream, &g->writers[i].text);
        icae_text_release(&g->writers[i].text);
    }
    free(g->writers);
    free(g->parts);
    free(g->group);
    free(g->requests);
    free(g->made);
}

/* ---- telling ---- */

static bool tell(generation *g, size_t i) {
    writer *w = &g->writers[i];
    size_t from = w->told;
    w->told = w->text.length;
    if (!g->callback || w->told == from) return true;
    return g->callback(g->user, i, w->text.data + from, w->told - from);
}

/* The part's tokens up to its n-th, those that were not taken yet. */
static void take(const generation *g, writer *w, const int32_t *ids, int64_t n) {
    const icae_tokenizer *tokenizer = g->session->base->model->tokenizer;
    for (; w->taken < n; w->taken++, w->left--) {
        int32_t id = ids[w->taken];
        if (!icae_tokenizer_is_special(tokenizer, id))
            icae_token_stream_push(&w->stream, tokenizer, id, &w->text);
    }
}

/* What the group at work has made of a part; NULL: it is not in it. */
static const icae_result *result_of(const generation *g, size_t at) {
    for (size_t i = 0; i < g->n_group; i++)
        if (g->group[i] == at) return &g->made[i];
    return NULL;
}

/* Takes what there is of the text's parts, in order. */
static void catch_up(const generation *g, writer *w) {
    while (w->part < w->end && w->left > 0) {
        const part *p = &g->parts[w->part];
        if (is_given(g, p)) {
            int64_t n = p->slots.n_tokens;
            take(g, w, p->slots.raw_ids, n < w->left ? n : w->left);
            if (w->taken < n) return;
        } else {
            const icae_result *made = result_of(g, w->part);
            if (!made) return; /* its group is still to come */
            int64_t before = w->taken, most = before + w->left;
            take(g, w, made->ids, made->n < most ? made->n : most);
            w->generated += w->taken - before;
            if (!made->is_stopped && made->n < p->question.request.max_tokens) return;
            w->is_complete &= made->is_stopped && w->taken == made->n;
        }
        w->part++;
        w->taken = 0;
    }
}

static bool take_token(void *user, int64_t request, int32_t id) {
    (void)id; /* the results have it */
    generation *g = user;
    size_t text = g->parts[g->group[request]].text;
    catch_up(g, &g->writers[text]);
    return tell(g, text);
}

/* ---- groups ---- */

/* The next parts that are to be written, from `at` on; returns where they end. Of a text that may not grow
 * any more, or will not when the parts of the group are there, none. */
static size_t fill_group(generation *g, size_t at) {
    size_t text = SIZE_MAX;
    int64_t expected = 0; /* of the text's parts in this group */
    for (g->n_group = 0; at < g->n_parts && g->n_group < g->most; at++) {
        const part *p = &g->parts[at];
        const writer *w = &g->writers[p->text];
        if (p->text != text) expected = 0;
        text = p->text;
        if (w->left <= 0 || is_given(g, p)) continue;
        if (expected >= w->left) break;
        expected += p->slots.n_tokens;
        g->group[g->n_group] = at;
        g->requests[g->n_group++] = p->question.request;
    }
    return at;
}

static icae_status write_parts(generation *g, icae_error *error) {
    const icae_generation *what = g->what;
    icae_sampling sampling = {.temperature = what->temperature,
                              .top_p = what->top_p > 0 ? what->top_p : 1,
                              .top_k = what->top_k,
                              .seed = what->seed};
    icae_status status = ICAE_OK;
    for (size_t at = 0; at < g->n_parts && !status; sampling.seed++) {
        at = fill_group(g, at);
        if (g->n_group > 0) {
            status = icae_generate(g->session->graph, g->session->base->model,
                                   g->session->adapter, g->requests, (int64_t)g->n_group,
                                   &sampling, take_token, g, g->made, error);
        }
        for (size_t i = 0; i < g->n && !status; i++) {
            catch_up(g, &g->writers[i]);
            if (!tell(g, i))
                status = icae_fail(error, ICAE_INTERRUPTED, "generation was stopped");
        }
        icae_results_release(g->made, (int64_t)g->n_group);
        g->n_group = 0;
    }
    return status;
}

/* What the tokens of text i became, handed over. */
static icae_status hand_over(generation *g, size_t i, icae_generated *result,
                             icae_error *error) {
    writer *w = &g->writers[i];
    icae_token_stream_finish(&w->stream, &w->text);
    if (!tell(g, i)) return icae_fail(error, ICAE_INTERRUPTED, "generation was stopped");
    if (w->text.failed) return icae_fail_memory(error, "the generated text");
    if (!result) return ICAE_OK;
    *result = (icae_generated){.text = w->text.data ? w->text.data : calloc(1, 1),
                               .bytes = w->text.length,
                               .prompt_tokens = w->input_tokens,
                               .generated_tokens = w->generated,
                               .is_complete = w->is_complete && w->part == w->end};
    w->text = (icae_text){0};
    return result->text ? ICAE_OK : icae_fail_memory(error, "the generated text");
}

icae_status icae_session_generate_batch(icae_session *session, const icae_slots *const *slots,
                                        size_t n, const icae_generation *what,
                                        icae_batch_callback *callback, void *user,
                                        icae_generated *results, icae_error *error) {
    for (size_t i = 0; results && i < n; i++)
        results[i] = (icae_generated){0};
    icae_status status = icae_session_check_free(session, error);
    if (status || n == 0) return status;
    generation g = {
        .session = session, .what = what, .n = n, .callback = callback, .user = user};
    session->is_writing = true;
    status = prepare(&g, slots, error);
    if (!status) status = write_parts(&g, error);
    for (size_t i = 0; i < n && !status; i++)
        status = hand_over(&g, i, results ? &results[i] : NULL, error);
    for (size_t i = 0; results && status && i < n; i++)
        icae_generated_release(&results[i]);
    generation_release(&g);
    session->is_writing = false;
    return status;
}

typedef struct single {
    icae_piece_callback *callback;
    void *user;
} single;

static bool take_piece(void *user, size_t text, const char *piece, size_t bytes) {
    const single *s = user;
    (void)text;
    return !s->callback || s->callback(s->user, piece, bytes);
}

icae_status icae_session_generate(icae_session *session, const icae_slots *slots,
                                  const icae_generation *what, icae_piece_callback *callback,
                                  void *user, icae_generated *result, icae_error *error) {
    single s = {callback, user};
    return icae_session_generate_batch(session, &slots, 1, what, take_piece, &s, result, error);
}

void icae_generated_release(icae_generated *result) {
    free(result->text);
    *result = (icae_generated){0};
}
