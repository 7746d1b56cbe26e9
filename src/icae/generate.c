/* SPDX-License-Identifier: MIT */
/*
 * Compression of one text, and writing from slots with a KV cache; see icae/generate.h.
 *
 * Prefill runs every request by itself (their lengths differ and each is one matrix product deep);
 * after that all running requests go side by side, one row each.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/generate.h"
#include "icae/rng.h"

/* Loops over a vocabulary keep so many results side by side, for the compiler's vectors. */
enum { LANES = 16 };

/* A base or an adapter with broken numbers shows itself here, where its first result appears. */
static icae_status check_finite(const icae_real *values, int64_t n, const char *what,
                                const icae_model *model, icae_error *error) {
    icae_real zeros[LANES] = {0}; /* 0 * x is NaN for what is not finite, and stays so */
    for (int64_t i = 0; i < n / LANES * LANES; i += LANES) {
        for (int j = 0; j < LANES; j++)
            zeros[j] += 0 * values[i + j];
    }
    for (int64_t i = n / LANES * LANES; i < n; i++)
        zeros[0] += 0 * values[i];
    for (int j = 1; j < LANES; j++)
        zeros[0] += zeros[j];
    if (isfinite(zeros[0])) return ICAE_OK;
    return icae_fail(error, ICAE_FORMAT,
                     "%s are not finite numbers: the base %s or the adapter is damaged, or "
                     "was made with values too large for it",
                     what, model->path);
}

/* ---- compression ---- */

/* Spans on their way through the encoder. */
typedef struct encoding {
    icae_graph *graph;
    const icae_model *model;
    const icae_adapter *adapter;
    const int32_t *ids;
    icae_slots *slots;
    int64_t span, token; /* the next span, and where it begins */
    int64_t encoded;     /* spans whose slots are there */
} encoding;

/* Encodes up to `most` compressed spans as one pack; raw ones between them are copied. */
static icae_status encode_some(encoding *e, int64_t most, icae_error *error) {
    icae_graph *graph = e->graph;
    icae_slots *slots = e->slots;
    int64_t row = slots->slots_per_span * slots->width, count = 0;
    icae_graph_begin(graph, false, false);
    icae_graph_set_reading(graph);
    icae_context *contexts = icae_graph_arena(graph, (size_t)most * sizeof *contexts);
    int64_t *firsts = icae_graph_arena(graph, ((size_t)most + 1) * sizeof *firsts);
    icae_real *host = icae_graph_arena(graph, (size_t)(most * row) * sizeof *host);
    if (!contexts || !firsts || !host) return icae_graph_status(graph, error);
    for (; e->span < slots->n_spans && count < most; e->span++) {
        int64_t n = slots->span_lengths[e->span];
        if (!slots->is_raw || !slots->is_raw[e->span])
            contexts[count++] = (icae_context){e->ids + e->token, n, 0};
        e->token += n;
    }
    if (count == 0) return ICAE_OK;
    icae_run run = {0};
    icae_tensor *made = icae_encode(graph, e->model, e->adapter, contexts, count, &run, firsts);
    if (!made) return icae_graph_status(graph, error);
    assert(icae_tensor_count(made) == count * row);
    icae_tensor_read(graph, made, host);
    icae_status status = check_finite(host, count * row, "the memory slots", e->model, error);
    for (int64_t i = 0; i < count * row; i++)
        slots->values[e->encoded * row + i] = (float)host[i];
    e->encoded += count;
    return status ? status : icae_graph_status(graph, error);
}

static void copy_raw(const int32_t *ids, icae_slots *slots) {
    int32_t *out = slots->raw_ids;
    for (int64_t s = 0; s < slots->n_spans; s++) {
        int64_t n = slots->span_lengths[s];
        if (slots->is_raw && slots->is_raw[s] && n) {
            memcpy(out, ids, (size_t)n * sizeof *out);
            out += n;
        }
        ids += n;
    }
}

icae_status icae_compress_spans(icae_graph *graph, const icae_model *model,
                                const icae_adapter *adapter, const int32_t *ids,
                                int64_t n_spans, const int32_t *lengths, const bool *is_raw,
                                icae_slots *slots, icae_error *error) {
    const icae_adapter_settings *settings = &adapter->settings;
    icae_status status =
        icae_slots_allocate(slots, n_spans, settings->memory_slots, model->config.width, error);
    if (status) return status;
    int64_t longest = 0;
    for (int64_t s = 0; s < n_spans; s++) {
        assert(lengths[s] <= settings->memory_slots * settings->compression_rate);
        slots->span_lengths[s] = lengths[s];
        slots->n_tokens += lengths[s];
        if (lengths[s] > longest) longest = lengths[s];
    }
    slots->base_fingerprint = model->fingerprint;
    slots->adapter_fingerprint = adapter->fingerprint;
    slots->tokenizer_fingerprint =
        model->tokenizer ? icae_tokenizer_fingerprint(model->tokenizer) : 0;
    if (is_raw) status = icae_slots_keep_raw(slots, is_raw, error);
    if (!status) copy_raw(ids, slots);

    /* A few spans at a time, so that a long book needs no more memory than a page. */
    enum { TOKENS_AT_ONCE = 2048 };
    int64_t per_span = longest + settings->memory_slots;
    int64_t group = TOKENS_AT_ONCE / per_span > 0 ? TOKENS_AT_ONCE / per_span : 1;
    if (group > n_spans) group = n_spans;
    encoding e = {graph, model, adapter, ids, slots, 0, 0, 0};
    while (e.span < n_spans && !status)
        status = encode_some(&e, group, error);
    if (status) icae_slots_release(slots);
    return status;
}

icae_status icae_compress_ids(icae_graph *graph, const icae_model *model,
                              const icae_adapter *adapter, const int32_t *ids, int64_t n,
                              icae_slots *slots, icae_error *error) {
    const icae_adapter_settings *settings = &adapter->settings;
    if (n < 1) return icae_fail(error, ICAE_INVALID, "there is no text to compress");
    int64_t n_spans = icae_span_count(n, settings->memory_slots, settings->compression_rate);
    int32_t *lengths = calloc((size_t)n_spans, sizeof *lengths);
    if (!lengths) return icae_fail_memory(error, "spans");
    for (int64_t s = 0; s < n_spans; s++)
        lengths[s] = (int32_t)icae_span_length(n, n_spans, s);
    icae_status status =
        icae_compress_spans(graph, model, adapter, ids, n_spans, lengths, NULL, slots, error);
    free(lengths);
    return status;
}

icae_status icae_compress_text(icae_graph *graph, const icae_model *model,
                               const icae_adapter *adapter, const char *text, size_t bytes,
                               icae_slots *slots, int32_t **ids, icae_error *error) {
    int32_t *made = NULL;
    size_t n;
    icae_status status = icae_adapter_encode(&adapter->settings, model->tokenizer, text, bytes,
                                             &made, &n, error);
    if (status) return status;
    status = icae_compress_ids(graph, model, adapter, made, (int64_t)n, slots, error);
    if (!status) {
        slots->source_bytes = bytes;
        slots->source_hash = icae_hash64(text, bytes, 0);
    }
    if (!status && ids)
        *ids = made;
    else
        free(made);
    return status;
}

/* ---- sampling ---- */

typedef struct candidate {
    icae_real logit;
    int32_t id;
} candidate;

static int by_logit(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The first of the largest; all are finite. */
static int32_t likeliest(const icae_real *logits, int64_t V) {
    icae_real tops[LANES];
    for (int j = 0; j < LANES; j++)
        tops[j] = logits[0];
    for (int64_t v = 0; v < V / LANES * LANES; v += LANES) {
        for (int j = 0; j < LANES; j++)
            tops[j] = logits[v + j] > tops[j] ? logits[v + j] : tops[j];
    }
    icae_real top = tops[0];
    for (int j = 1; j < LANES; j++)
        top = tops[j] > top ? tops[j] : top;
    for (int64_t v = V / LANES * LANES; v < V; v++)
        top = logits[v] > top ? logits[v] : top;
    int32_t first = 0;
    while (logits[first] < top)
        first++;
    return first;
}

/* Temperature, then the top_k likeliest, then the fewest of those with total probability top_p. The
 * draw is a function of (seed, request, position) alone. */
static int32_t draw(const icae_sampling *sampling, const icae_real *logits, int64_t V,
                    int64_t request, int64_t position, candidate *work) {
    if (sampling->temperature <= 0) return likeliest(logits, V);
    for (int64_t v = 0; v < V; v++)
        work[v] = (candidate){logits[v], (int32_t)v};
    qsort(work, (size_t)V, sizeof *work, by_logit);
    int64_t kept = sampling->top_k > 0 && sampling->top_k < V ? sampling->top_k : V;
    double total = 0;
    for (int64_t i = 0; i < kept; i++) {
        total += exp(((double)work[i].logit - (double)work[0].logit) / sampling->temperature);
    }
    double nucleus = 0;
    for (int64_t i = 0; i < kept; i++) {
        nucleus += exp(((double)work[i].logit - (double)work[0].logit) / sampling->temperature);
        if (nucleus >= sampling->top_p * total) kept = i + 1;
    }
    icae_rng rng = {sampling->seed, (uint64_t)request, (uint64_t)position};
    double left = icae_rng_uniform(&rng) * nucleus;
    for (int64_t i = 0; i < kept; i++) {
        left -= exp(((double)work[i].logit - (double)work[0].logit) / sampling->temperature);
        if (left < 0) return work[i].id;
    }
    return work[kept - 1].id;
}

/* ---- generation ---- */

/* One request while it is being written. */
typedef struct writing {
    icae_cache *cache;
    int32_t next_position; /* of the next token that is fed in */
    int32_t token;         /* drawn last, to be fed in */
    bool is_running;
} writing;

typedef struct generator {
    icae_graph *graph;
    const icae_model *model;
    const icae_adapter *adapter;
    const icae_request *requests;
    const icae_sampling *sampling;
    icae_token_callback *callback;
    void *user;
    icae_result *results;
    writing *writings;
    icae_real *logits; /* [n_requests, V] host */
    candidate *work;   /* [V] */
} generator;

static int64_t slot_rows(const icae_request *request) {
    return request->slots ? icae_slots_rows(request->slots) : 0;
}

/* Task tokens: one before the prompt, a second one behind it where the adapter closes prompts. */
static int64_t task_tokens(const generator *gen, const icae_request *request) {
    return request->slots ? icae_adapter_task_tokens(&gen->adapter->settings, request->task)
                          : 0;
}

/* Rows of the request before its first new token. */
static int64_t input_rows(const generator *gen, const icae_request *request) {
    return request->n_prefix + slot_rows(request) + task_tokens(gen, request) +
           request->n_prompt;
}

/* Positions of all input rows and of the `extra` tokens after them; out [rows + extra]. */
static void input_positions(const generator *gen, const icae_request *request, int64_t rows,
                            int64_t extra, int32_t *out) {
    if (!request->slots) {
        for (int64_t i = 0; i < rows + extra; i++)
            out[i] = (int32_t)i;
        return;
    }
    const icae_slots *slots = request->slots;
    int64_t before = request->n_prefix + slot_rows(request), after = rows - before + extra;
    icae_decoder_positions(gen->adapter->settings.layout, request->task, request->n_prefix,
                           slots->n_spans, slots->span_lengths, slots->is_raw,
                           slots->slots_per_span, after, out);
}

/* Rows of the spans in order: slots are rows of the second other input, raw spans are tokens. Returns how
 * many there are. */
static int64_t put_spans(const icae_slots *slots, int32_t *which, int32_t *row) {
    int64_t at = 0, slot = 0, raw = 0;
    for (int64_t s = 0; s < slots->n_spans; s++) {
        bool is_raw = slots->is_raw && slots->is_raw[s];
        int64_t n = is_raw ? slots->span_lengths[s] : slots->slots_per_span;
        for (int64_t i = 0; i < n; i++, at++) {
            which[at] = is_raw ? 0 : 2;
            row[at] = is_raw ? slots->raw_ids[raw++] : (int32_t)slot++;
        }
    }
    return at;
}

/* Input embeddings of one request: prefix, slots, task token, prompt, closing task token. */
static icae_tensor *input_embeddings(generator *gen, const icae_request *request,
                                     int64_t rows) {
    icae_graph *graph = gen->graph;
    int32_t *which = icae_graph_arena(graph, (size_t)rows * sizeof *which);
    int32_t *row = icae_graph_arena(graph, (size_t)rows * sizeof *row);
    if (!which || !row) return NULL;
    icae_tensor *others[2];
    int n_others = 0;
    int64_t n_task = task_tokens(gen, request);
    int64_t at = 0, k = gen->adapter ? gen->adapter->settings.memory_slots : 0;
    for (int64_t i = 0; i < request->n_prefix; i++)
        row[at++] = request->prefix[i];
    if (request->slots) {
        int64_t count = icae_slots_vectors(request->slots);
        int64_t shape[2] = {count, request->slots->width};
        icae_real *host = icae_graph_arena(graph, (size_t)(count * shape[1]) * sizeof *host);
        if (!host) return NULL;
        for (int64_t i = 0; i < count * shape[1]; i++) {
            host[i] = (icae_real)request->slots->values[i];
        }
        others[0] = gen->adapter->memory;
        others[1] = icae_constant(graph, 2, shape, host);
        n_others = 2;
        at += put_spans(request->slots, which + at, row + at);
        if (n_task > 0) {
            which[at] = 1;
            row[at++] = (int32_t)(k + (int64_t)request->task);
        }
    }
    for (int64_t i = 0; i < request->n_prompt; i++)
        row[at++] = request->prompt[i];
    if (n_task > 1) {
        which[at] = 1;
        row[at++] = (int32_t)(k + (int64_t)request->task);
    }
    assert(at == rows);
    return icae_model_inputs(graph, gen->model, n_others, others, rows, which, row);
}

/* Runs the pack over the caches and leaves the logits of the rows `last` [n] in gen->logits. */
static void run_rows(generator *gen, icae_tensor *x, const icae_pack *pack,
                     icae_cache *const *caches, int64_t n, const int32_t *last) {
    icae_forward options = {.pack = pack, .caches = caches};
    icae_tensor *h = icae_model_forward(gen->graph, gen->model, x, &options);
    icae_tensor *picked = h ? icae_rows(gen->graph, 1, &h, n, NULL, last) : NULL;
    icae_tensor *logits = icae_linear(
        gen->graph, picked, (icae_tensor *)(uintptr_t)&gen->model->head, NULL, NULL, NULL);
    if (logits) icae_tensor_read(gen->graph, logits, gen->logits);
}

/* A new token of request r was drawn from the logits in `row`: keep it, tell it, or stop there. */
static icae_status accept(generator *gen, int64_t r, int64_t row, icae_error *error) {
    const icae_request *request = &gen->requests[r];
    icae_result *result = &gen->results[r];
    writing *w = &gen->writings[r];
    int64_t V = gen->model->config.vocabulary;
    const icae_real *logits = gen->logits + row * V;
    icae_status status =
        check_finite(logits, V, "the scores of the next token", gen->model, error);
    if (status) return status;
    int32_t id = draw(gen->sampling, logits, V, r, result->n, gen->work);
    w->token = id;
    if (id == request->stop) {
        result->is_stopped = true;
        w->is_running = false;
        return ICAE_OK;
    }
    result->ids[result->n++] = id;
    w->is_running = result->n < request->max_tokens;
    if (gen->callback && !gen->callback(gen->user, r, id)) {
        return icae_fail(error, ICAE_INTERRUPTED, "generation was stopped");
    }
    return ICAE_OK;
}

static icae_status prefill(generator *gen, int64_t r, icae_error *error) {
    const icae_request *request = &gen->requests[r];
    writing *w = &gen->writings[r];
    int64_t rows = input_rows(gen, request);
    icae_graph_begin(gen->graph, false, false);
    icae_graph_set_reading(gen->graph);
    int64_t starts[2] = {0, rows};
    int32_t *positions = icae_graph_arena(gen->graph, (size_t)(rows + 1) * sizeof *positions);
    if (positions) {
        input_positions(gen, request, rows, 1, positions);
        w->next_position = positions[rows];
        icae_pack pack = {1, rows, starts, positions, NULL};
        int32_t last = (int32_t)rows - 1;
        run_rows(gen, input_embeddings(gen, request, rows), &pack, &w->cache, 1, &last);
    }
    icae_status status = icae_graph_status(gen->graph, error);
    return status ? status : accept(gen, r, 0, error);
}

/* One more token for every running request; *n_running tells how many there were. */
static icae_status step(generator *gen, int64_t n_requests, int64_t *n_running,
                        icae_error *error) {
    icae_graph_begin(gen->graph, false, true);
    size_t most = (size_t)n_requests;
    int64_t *starts = icae_graph_arena(gen->graph, (most + 1) * sizeof *starts);
    int64_t *who = icae_graph_arena(gen->graph, most * sizeof *who);
    int32_t *positions = icae_graph_arena(gen->graph, most * sizeof *positions);
    int32_t *ids = icae_graph_arena(gen->graph, most * sizeof *ids);
    int32_t *last = icae_graph_arena(gen->graph, most * sizeof *last);
    icae_cache **caches = icae_graph_arena(gen->graph, most * sizeof *caches);
    if (!starts || !who || !positions || !ids || !last || !caches) {
        return icae_graph_status(gen->graph, error);
    }
    int64_t n = 0;
    for (int64_t r = 0; r < n_requests; r++) {
        writing *w = &gen->writings[r];
        if (!w->is_running) continue;
        who[n] = r;
        ids[n] = w->token;
        positions[n] = w->next_position++;
        caches[n] = w->cache;
        last[n] = (int32_t)n;
        n++;
        starts[n] = n;
    }
    *n_running = n;
    if (n == 0) return ICAE_OK;
    icae_pack pack = {n, n, starts, positions, NULL};
    run_rows(gen, icae_model_inputs(gen->graph, gen->model, 0, NULL, n, NULL, ids), &pack,
             caches, n, last);
    icae_status status = icae_graph_status(gen->graph, error);
    for (int64_t i = 0; i < n && !status; i++)
        status = accept(gen, who[i], i, error);
    return status;
}

static icae_status check_request(const generator *gen, int64_t r, icae_error *error) {
    const icae_request *request = &gen->requests[r];
    if (request->slots && !gen->adapter) {
        return icae_fail(error, ICAE_INVALID, "slots cannot be read without their adapter");
    }
    if (request->slots && request->slots->width != gen->model->config.width) {
        return icae_fail(error, ICAE_MISMATCH, "slots of width %lld, a base of width %lld",
                         (long long)request->slots->width, (long long)gen->model->config.width);
    }
    if (request->max_tokens < 1 || input_rows(gen, request) < 1) {
        return icae_fail(error, ICAE_INVALID,
                         "a request needs an input and at least 1 new token");
    }
    return ICAE_OK;
}

/* Memory for all requests, then prefill one by one, then steps until none is running. */
static icae_status run_generator(generator *gen, int64_t n_requests, icae_error *error) {
    icae_backend *be = icae_graph_backend(gen->graph);
    icae_status status = ICAE_OK;
    for (int64_t r = 0; r < n_requests && !status; r++) {
        const icae_request *request = &gen->requests[r];
        status = check_request(gen, r, error);
        if (status) break;
        gen->results[r].ids = malloc((size_t)request->max_tokens * sizeof(int32_t));
        if (!gen->results[r].ids) return icae_fail_memory(error, "generated tokens");
        status = icae_cache_create(&gen->writings[r].cache, be, &gen->model->config,
                                   input_rows(gen, request) + request->max_tokens, error);
    }
    for (int64_t r = 0; r < n_requests && !status; r++)
        status = prefill(gen, r, error);
    int64_t n_running = 1;
    while (!status && n_running > 0)
        status = step(gen, n_requests, &n_running, error);
    return status;
}

icae_status icae_generate(icae_graph *graph, const icae_model *model,
                          const icae_adapter *adapter, const icae_request *requests,
                          int64_t n_requests, const icae_sampling *sampling,
                          icae_token_callback *callback, void *user, icae_result *results,
                          icae_error *error) {
    size_t V = (size_t)model->config.vocabulary, n = (size_t)n_requests;
    memset(results, 0, n * sizeof *results);
    generator gen = {.graph = graph,
                     .model = model,
                     .adapter = adapter,
                     .requests = requests,
                     .sampling = sampling,
                     .callback = callback,
                     .user = user,
                     .results = results,
                     .writings = calloc(n ? n : 1, sizeof(writing)),
                     .logits = calloc(n ? n : 1, V * sizeof(icae_real)),
                     .work = calloc(V, sizeof(candidate))};
    icae_status status = gen.writings && gen.logits && gen.work
                             ? run_generator(&gen, n_requests, error)
                             : icae_fail_memory(error, "generation");
    icae_graph_begin(graph, false, false); /* nothing of the last step may outlive the caches */
    for (size_t r = 0; r < n && gen.writings; r++)
        icae_cache_free(gen.writings[r].cache);
    free(gen.writings);
    free(gen.logits);
    free(gen.work);
    if (status && status != ICAE_INTERRUPTED) icae_results_release(results, n_requests);
    return status;
}

void icae_results_release(icae_result *results, int64_t n) {
    for (int64_t r = 0; r < n; r++) {
        free(results[r].ids);
        results[r] = (icae_result){0};
    }
}
