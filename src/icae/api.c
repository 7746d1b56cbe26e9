/* SPDX-License-Identifier: MIT */
/*
 * The public API over the library's own parts; the contract stands in icae.h.
 *
 * A base is a model. A session is a backend, a graph on it and an adapter in its memory. Slots are the
 * library's own struct, on the heap. All that is decided here is what a request looks like for each
 * mode, and how much of it fits into the base's context.
 */
#include "icae.h"

#include <stdlib.h>
#include <string.h>

#include "icae/chat.h"
#include "icae/generate.h"
#include "icae/refine.h"
#include "icae/log.h"

struct icae_base {
    icae_model *model;
};

struct icae_session {
    const icae_base *base;
    icae_backend *be;
    icae_graph *graph;
    icae_adapter *adapter;
    int64_t refine_steps;
};

enum {
    DEFAULT_TOKENS = 256, /* of a continuation or an answer */
    MOST_TOKENS = 1 << 20 /* of one generation: a typing error must not ask for all memory */
};

const char *icae_version(void) {
    return ICAE_VERSION;
}

/* ---- the base ---- */

icae_status icae_base_open(icae_base **base, const char *path, icae_error *error) {
    *base = NULL;
    icae_base *made = calloc(1, sizeof *made);
    if (!made) return icae_fail_memory(error, "a base");
    icae_status status = icae_model_open(&made->model, path, error);
    if (status) {
        free(made);
        return status;
    }
    *base = made;
    return ICAE_OK;
}

void icae_base_close(icae_base *base) {
    if (!base) return;
    icae_model_close(base->model);
    free(base);
}

icae_base_info icae_base_describe(const icae_base *base) {
    const icae_model *model = base->model;
    return (icae_base_info){.path = model->path,
                            .architecture = model->config.architecture,
                            .file_type = model->file_type,
                            .parameters = model->n_parameters,
                            .layers = model->config.layers,
                            .width = model->config.width,
                            .vocabulary = model->config.vocabulary,
                            .context_length = model->config.context_length,
                            .weight_bytes = model->weight_bytes,
                            .fingerprint = model->fingerprint};
}

/* Text from outside: special tokens in it are plain text. */
static icae_status encode(const icae_base *base, const char *text, size_t bytes, int32_t **ids,
                          int64_t *n, icae_error *error) {
    size_t count = 0;
    icae_status status =
        icae_tokenizer_encode(base->model->tokenizer, text, bytes, false, ids, &count, error);
    *n = status ? 0 : (int64_t)count;
    return status;
}

icae_status icae_base_count_tokens(const icae_base *base, const char *text, size_t bytes,
                                   int64_t *tokens, icae_error *error) {
    int32_t *ids = NULL;
    icae_status status = encode(base, text, bytes, &ids, tokens, error);
    free(ids);
    return status;
}

size_t icae_base_cache_bytes(const icae_base *base, int64_t tokens) {
    return icae_cache_bytes(&base->model->config, tokens);
}

/* ---- a session ---- */

icae_status icae_session_open(icae_session **session, const icae_base *base,
                              const char *adapter, const icae_session_options *options,
                              icae_error *error) {
    *session = NULL;
    if (options && options->n_threads < 0) {
        return icae_fail(error, ICAE_INVALID, "%d threads were asked for; expected 0 or more",
                         options->n_threads);
    }
    icae_compute compute = ICAE_COMPUTE_AUTO;
    if (options && options->compute && !icae_compute_from_name(options->compute, &compute)) {
        return icae_fail(error, ICAE_INVALID, "compute '%s': expected f32, bf16 or auto",
                         options->compute);
    }
    if (compute == ICAE_COMPUTE_AUTO) compute = ICAE_COMPUTE_F32;
    icae_session *made = calloc(1, sizeof *made);
    if (!made) return icae_fail_memory(error, "a session");
    made->base = base;
    made->refine_steps = options ? options->refine_steps : 0;
    icae_status status =
        icae_backend_create(&made->be, NULL, options ? options->n_threads : 0, error);
    if (!status) icae_backend_set_compute(made->be, compute);
    if (!status) status = icae_graph_create(&made->graph, made->be, error);
    if (!status) {
        status =
            icae_adapter_load(&made->adapter, adapter, base->model, made->be, false, error);
    }
    if (status) {
        icae_session_close(made);
        return status;
    }
    *session = made;
    return ICAE_OK;
}

void icae_session_close(icae_session *session) {
    if (!session) return;
    if (session->adapter) icae_adapter_free(session->adapter);
    if (session->graph) icae_graph_free(session->graph);
    if (session->be) icae_backend_free(session->be);
    free(session);
}

/* ---- slots ---- */

icae_status icae_session_compress(icae_session *session, const char *text, size_t bytes,
                                  icae_slots **slots, icae_error *error) {
    *slots = NULL;
    if (bytes == 0) {
        return icae_fail(error, ICAE_INVALID,
                         "the text is empty: there is nothing to compress");
    }
    icae_slots *made = calloc(1, sizeof *made);
    const icae_model *model = session->base->model;
    int32_t *ids = NULL;
    icae_status status = made ? icae_compress_text(session->graph, model, session->adapter,
                                                   text, bytes, made, &ids, error)
                              : icae_fail_memory(error, "slots");
    if (!status && session->refine_steps > 0) {
        status = icae_refine(session->graph, model, session->adapter, ids,
                             session->refine_steps, NULL, NULL, made, NULL, error);
    }
    free(ids);
    if (status) {
        icae_slots_free(made);
        return status;
    }
    *slots = made;
    return ICAE_OK;
}

icae_status icae_session_load_slots(icae_session *session, const char *path, icae_slots **slots,
                                    icae_error *error) {
    *slots = NULL;
    icae_slots *made = calloc(1, sizeof *made);
    if (!made) return icae_fail_memory(error, "slots");
    icae_status status =
        icae_slots_load(made, path, session->base->model, session->adapter, error);
    if (status) {
        icae_slots_free(made);
        return status;
    }
    *slots = made;
    return ICAE_OK;
}

icae_slots_info icae_slots_describe(const icae_slots *slots) {
    int64_t rows = icae_slots_vectors(slots);
    return (icae_slots_info){.source_tokens = slots->n_tokens,
                             .source_bytes = slots->source_bytes,
                             .spans = slots->n_spans,
                             .slots = rows,
                             .raw_spans = slots->n_raw,
                             .raw_tokens = icae_slots_raw_tokens(slots),
                             .width = slots->width,
                             .value_bytes =
                                 (size_t)rows * (size_t)slots->width * sizeof(float)};
}

void icae_slots_free(icae_slots *slots) {
    if (!slots) return;
    icae_slots_release(slots);
    free(slots);
}

/* ---- writing from slots ---- */

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

/* How many tokens to write: what was asked for, as far as positions last. */
static icae_status choose_length(const icae_session *session, const icae_slots *slots,
                                 const icae_generation *what, question *q, icae_error *error) {
    int64_t context = session->base->model->config.context_length;
    int64_t first = first_position(session, slots, &q->request), room = context - first;
    int64_t wanted = what->max_tokens;
    if (wanted == 0) {
        wanted = what->mode == ICAE_RECONSTRUCT ? slots->n_tokens + slots->n_tokens / 8 + 8
                                                : DEFAULT_TOKENS;
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
    if (slots->n_tokens > context) {
        icae_log_warning("the slots stand for %lld tokens, the base was trained on contexts of "
                         "%lld: expect less of it",
                         (long long)slots->n_tokens, (long long)context);
    }
    if (wanted > room) {
        icae_log_warning("only %lld new tokens fit into the base's context of %lld",
                         (long long)room, (long long)context);
        wanted = room;
    }
    q->request.max_tokens = wanted;
    return ICAE_OK;
}

/* Tokens become pieces of whole characters on their way to the caller. */
typedef struct writer {
    icae_token_stream stream;
    icae_text text; /* everything so far */
    size_t told;    /* bytes of it that the callback has seen */
} writer;

/* A call: n texts side by side. */
typedef struct generation {
    const icae_tokenizer *tokenizer;
    size_t n;
    question *questions;    /* [n] */
    icae_request *requests; /* [n] those of the questions */
    icae_result *made;      /* [n] */
    writer *writers;        /* [n] */
    icae_batch_callback *callback;
    void *user;
} generation;

static bool tell(generation *g, size_t i) {
    writer *w = &g->writers[i];
    size_t from = w->told;
    w->told = w->text.length;
    if (!g->callback || w->told == from) return true;
    return g->callback(g->user, i, w->text.data + from, w->told - from);
}

static bool take_token(void *user, int64_t request, int32_t id) {
    generation *g = user;
    writer *w = &g->writers[request];
    if (!icae_tokenizer_is_special(g->tokenizer, id)) {
        icae_token_stream_push(&w->stream, g->tokenizer, id, &w->text);
    }
    return tell(g, (size_t)request);
}

static void generation_release(generation *g) {
    for (size_t i = 0; i < g->n; i++) {
        if (g->questions) question_release(&g->questions[i]);
        if (!g->writers) continue;
        /* half a character may wait in the stream of a text that was given up */
        icae_token_stream_finish(&g->writers[i].stream, &g->writers[i].text);
        icae_text_release(&g->writers[i].text);
    }
    if (g->made) icae_results_release(g->made, (int64_t)g->n);
    free(g->questions);
    free(g->requests);
    free(g->made);
    free(g->writers);
}

/* What the tokens of text i became, handed over. */
static icae_status hand_over(generation *g, size_t i, icae_generated *result,
                             icae_error *error) {
    writer *w = &g->writers[i];
    if (w->text.failed) return icae_fail_memory(error, "the generated text");
    if (!result) return ICAE_OK;
    *result = (icae_generated){.text = w->text.data ? w->text.data : calloc(1, 1),
                               .bytes = w->text.length,
                               .prompt_tokens = g->questions[i].input_tokens,
                               .generated_tokens = g->made[i].n,
                               .is_complete = g->made[i].is_stopped};
    w->text = (icae_text){0};
    return result->text ? ICAE_OK : icae_fail_memory(error, "the generated text");
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
    if (what->max_tokens < 0 || what->top_k < 0) {
        return icae_fail(error, ICAE_INVALID, "max_tokens and top_k cannot be negative");
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

static icae_status prepare(generation *g, const icae_session *session,
                           const icae_slots *const *slots, const icae_generation *what,
                           icae_error *error) {
    g->questions = calloc(g->n, sizeof *g->questions);
    g->requests = calloc(g->n, sizeof *g->requests);
    g->made = calloc(g->n, sizeof *g->made);
    g->writers = calloc(g->n, sizeof *g->writers);
    if (!g->questions || !g->requests || !g->made || !g->writers)
        return icae_fail_memory(error, "texts to write");
    for (size_t i = 0; i < g->n; i++) {
        question *q = &g->questions[i];
        icae_status status = check_generation(session, slots[i], what, error);
        if (!status) status = question_make(session, slots[i], what, q, error);
        if (!status) status = choose_length(session, slots[i], what, q, error);
        if (status) return status;
        g->requests[i] = q->request;
    }
    return ICAE_OK;
}

icae_status icae_session_generate_batch(icae_session *session, const icae_slots *const *slots,
                                        size_t n, const icae_generation *what,
                                        icae_batch_callback *callback, void *user,
                                        icae_generated *results, icae_error *error) {
    for (size_t i = 0; results && i < n; i++)
        results[i] = (icae_generated){0};
    if (n == 0) return ICAE_OK;
    const icae_model *model = session->base->model;
    generation g = {.tokenizer = model->tokenizer, .n = n, .callback = callback, .user = user};
    icae_sampling sampling = {.temperature = what->temperature,
                              .top_p = what->top_p > 0 ? what->top_p : 1,
                              .top_k = what->top_k,
                              .seed = what->seed};
    icae_status status = prepare(&g, session, slots, what, error);
    if (!status) {
        status = icae_generate(session->graph, model, session->adapter, g.requests, (int64_t)n,
                               &sampling, take_token, &g, g.made, error);
    }
    for (size_t i = 0; i < n && !status; i++) {
        icae_token_stream_finish(&g.writers[i].stream, &g.writers[i].text);
        if (!tell(&g, i))
            status = icae_fail(error, ICAE_INTERRUPTED, "generation was stopped");
        else
            status = hand_over(&g, i, results ? &results[i] : NULL, error);
    }
    for (size_t i = 0; results && status && i < n; i++)
        icae_generated_release(&results[i]);
    generation_release(&g);
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
