/* SPDX-License-Identifier: MIT */
/*
 * Writing from slots with a KV cache; see icae/generate.h.
 *
 * Prefill packs as many requests as fill PREFILL_ROWS; after that all running requests go side by side, one
 * row each.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/generate_internal.h"
#include "icae/rng.h"

/* Rows of inputs that are read in one go: enough for matrix products at full speed. */
enum { PREFILL_ROWS = 512 };
/* Loops over a vocabulary keep so many results side by side, for the compiler's vectors. */
enum { LANES = 16 };

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

/* Rows of the spans in order: slots are rows of the second other input, from *slot on, raw spans are tokens.
 * Returns how many there are. */
static int64_t put_spans(const icae_slots *slots, int32_t *which, int32_t *row, int64_t *slot) {
    int64_t at = 0, raw = 0;
    for (int64_t s = 0; s < slots->n_spans; s++) {
        bool is_raw = slots->is_raw && slots->is_raw[s];
        int64_t n = is_raw ? slots->span_lengths[s] : slots->slots_per_span;
        for (int64_t i = 0; i < n; i++, at++) {
            which[at] = is_raw ? 0 : 2;
            row[at] = is_raw ? slots->raw_ids[raw++] : (int32_t)(*slot)++;
        }
    }
    return at;
}

/* Rows of one request: prefix, slots, task token, prompt, closing task token. Returns how many. */
static int64_t put_request(const generator *gen, const icae_request *request, int32_t *which,
                           int32_t *row, int64_t *slot) {
    int64_t n_task = task_tokens(gen, request);
    int64_t at = 0, k = gen->adapter ? gen->adapter->settings.memory_slots : 0;
    for (int64_t i = 0; i < request->n_prefix; i++)
        row[at++] = request->prefix[i];
    if (request->slots) at += put_spans(request->slots, which + at, row + at, slot);
    if (n_task > 0) {
        which[at] = 1;
        row[at++] = (int32_t)(k + (int64_t)request->task);
    }
    for (int64_t i = 0; i < request->n_prompt; i++)
        row[at++] = request->prompt[i];
    if (n_task > 1) {
        which[at] = 1;
        row[at++] = (int32_t)(k + (int64_t)request->task);
    }
    return at;
}

/* The slots of requests first .. end - 1 as one tensor; NULL when there are none, or memory ends. */
static icae_tensor *slots_tensor(const generator *gen, int64_t first, int64_t end) {
    int64_t shape[2] = {0, gen->model->config.width}, at = 0;
    for (int64_t r = first; r < end; r++)
        if (gen->requests[r].slots) shape[0] += icae_slots_vectors(gen->requests[r].slots);
    if (shape[0] == 0) return NULL;
    icae_real *host =
        icae_graph_arena(gen->graph, (size_t)(shape[0] * shape[1]) * sizeof *host);
    if (!host) return NULL;
    for (int64_t r = first; r < end; r++) {
        const icae_slots *slots = gen->requests[r].slots;
        int64_t n = slots ? icae_slots_vectors(slots) * shape[1] : 0;
        for (int64_t i = 0; i < n; i++)
            host[at++] = (icae_real)slots->values[i];
    }
    return icae_constant(gen->graph, 2, shape, host);
}

/* Input embeddings of requests first .. end - 1, end to end: `rows` in all. */
static icae_tensor *input_embeddings(const generator *gen, int64_t first, int64_t end,
                                     int64_t rows) {
    icae_graph *graph = gen->graph;
    int32_t *which = icae_graph_arena(graph, (size_t)rows * sizeof *which);
    int32_t *row = icae_graph_arena(graph, (size_t)rows * sizeof *row);
    if (!which || !row) return NULL;
    int64_t at = 0, slot = 0;
    for (int64_t r = first; r < end; r++)
        at += put_request(gen, &gen->requests[r], which + at, row + at, &slot);
    assert(at == rows);
    icae_tensor *others[2] = {NULL, NULL};
    int n_others = 0;
    if (gen->adapter) {
        others[n_others++] = gen->adapter->memory;
        others[n_others] = slots_tensor(gen, first, end);
        n_others += others[n_others] != NULL;
    }
    if (icae_graph_status(graph, NULL)) return NULL;
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

/* Whether this token ends the text. Where contexts begin with BOS, restored ones do, too; released weights v1 take
 * the same token for the end, so it cannot be one there before anything was written. */
static bool is_end(const generator *gen, int64_t r, int32_t id) {
    const icae_request *request = &gen->requests[r];
    if (id != request->stop) return false;
    if (!request->slots || request->task != ICAE_TASK_AE || gen->results[r].n > 0) return true;
    return !gen->adapter->settings.context_bos || !gen->model->tokenizer ||
           id != icae_tokenizer_bos(gen->model->tokenizer);
}

/* A new token of request r was drawn from the logits in `row`: keep it, tell it, or stop there. */
static icae_status accept(generator *gen, int64_t r, int64_t row, icae_error *error) {
    const icae_request *request = &gen->requests[r];
    icae_result *result = &gen->results[r];
    writing *w = &gen->writings[r];
    int64_t V = gen->model->config.vocabulary;
    const icae_real *logits = gen->logits + row * V;
    icae_status status =
        icae_check_finite(logits, V, "the scores of the next token", gen->model, error);
    if (status) return status;
    int32_t id = draw(gen->sampling, logits, V, r, result->n, gen->work);
    w->token = id;
    if (is_end(gen, r, id)) {
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

/* Reads the inputs of requests first .. end - 1, `rows` in all, and draws the first token of each. */
static icae_status prefill(generator *gen, int64_t first, int64_t end, int64_t rows,
                           icae_error *error) {
    icae_graph *graph = gen->graph;
    icae_graph_begin(graph, false, false);
    icae_graph_set_reading(graph);
    int64_t n = end - first, at = 0;
    int64_t *starts = icae_graph_arena(graph, ((size_t)n + 1) * sizeof *starts);
    int32_t *positions = icae_graph_arena(graph, (size_t)(rows + 1) * sizeof *positions);
    int32_t *last = icae_graph_arena(graph, (size_t)n * sizeof *last);
    icae_cache **caches = icae_graph_arena(graph, (size_t)n * sizeof *caches);
    if (!starts || !positions || !last || !caches) return icae_graph_status(graph, error);
    for (int64_t i = 0; i < n; i++) {
        const icae_request *request = &gen->requests[first + i];
        writing *w = &gen->writings[first + i];
        int64_t own = input_rows(gen, request);
        input_positions(gen, request, own, 1, positions + at); /* the next one overwrites it */
        at += own;
        w->next_position = positions[at];
        caches[i] = w->cache;
        last[i] = (int32_t)at - 1;
        starts[i + 1] = at;
    }
    icae_pack pack = {n, rows, starts, positions, NULL};
    run_rows(gen, input_embeddings(gen, first, end, rows), &pack, caches, n, last);
    icae_status status = icae_graph_status(graph, error);
    for (int64_t i = 0; i < n && !status; i++)
        status = accept(gen, first + i, i, error);
    return status;
}

static icae_status prefill_all(generator *gen, int64_t n_requests, icae_error *error) {
    icae_status status = ICAE_OK;
    for (int64_t first = 0, end; first < n_requests && !status; first = end) {
        int64_t rows = input_rows(gen, &gen->requests[first]);
        for (end = first + 1; end < n_requests; end++) {
            int64_t more = input_rows(gen, &gen->requests[end]);
            if (rows + more > PREFILL_ROWS) break;
            rows += more;
        }
        status = prefill(gen, first, end, rows, error);
    }
    return status;
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

/* Memory for all requests, then prefill, then steps until none is running. */
static icae_status run_generator(generator *gen, int64_t n_requests, icae_error *error) {
    icae_backend *be = icae_graph_backend(gen->graph);
    icae_status status = ICAE_OK;
    uint64_t sizes = 1;
    for (int64_t r = 0; r < n_requests && !status; r++) {
        const icae_request *request = &gen->requests[r];
        status = check_request(gen, r, error);
        if (status) break;
        gen->results[r].ids = malloc((size_t)request->max_tokens * sizeof(int32_t));
        if (!gen->results[r].ids) return icae_fail_memory(error, "generated tokens");
        sizes = icae_mix64(sizes, (uint64_t)(input_rows(gen, request) + request->max_tokens));
    }
    if (!status) icae_graph_resize(gen->graph, sizes);
    for (int64_t r = 0; r < n_requests && !status; r++) {
        const icae_request *request = &gen->requests[r];
        status = icae_cache_create(&gen->writings[r].cache, be, &gen->model->config,
                                   input_rows(gen, request) + request->max_tokens, error);
    }
    if (!status) status = prefill_all(gen, n_requests, error);
    int64_t n_running = 1;
    while (!status && n_running > 0)
        status = step(gen, n_requests, &n_running, error);
    return status;
}

int64_t icae_restored_limit(int64_t tokens) {
    return tokens + tokens / 8 + 8;
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
