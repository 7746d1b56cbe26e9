/* SPDX-License-Identifier: MIT */
/* Compression and writing by ids: the cached, batched way against the plain forward pass. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/generate.h"
#include "suites.h"

enum { REQUESTS = 3, LENGTH = 20, MOST_IDS = 600 };

static icae_error error;

/* A tiny base with requests of every task, of several lengths, with and without prefix and prompt. */
typedef struct bench {
    icae_backend *be;
    icae_graph *graph;
    icae_model *model;
    icae_adapter *adapter;
    int32_t n_ids; /* of the vocabulary */
    int32_t ids[REQUESTS][128];
    icae_slots slots[REQUESTS];
    icae_request requests[REQUESTS];
} bench;

static const int32_t prefix[] = {5, 6, 7}, prompt[] = {9, 10, 11, 12};
static const icae_sampling greedy = {.temperature = 0, .top_p = 1};

static bench *bench_open_base(const char *golden) {
    bench *b = calloc(1, sizeof *b);
    ck_ok(icae_backend_create(&b->be, NULL, 1, &error));
    ck_ok(icae_graph_create(&b->graph, b->be, &error));
    char path[64];
    snprintf(path, sizeof path, "tests/golden/%s/model", golden);
    ck_ok(icae_model_open(&b->model, path, &error));
    snprintf(path, sizeof path, "tests/golden/%s/adapter", golden);
    ck_ok(icae_adapter_load(&b->adapter, path, b->model, b->be, false, &error));
    b->n_ids = (int32_t)b->model->config.vocabulary;
    ck_assert_int_le(b->n_ids, MOST_IDS);
    for (int i = 0; i < REQUESTS; i++) {
        int n = 3 + 40 * i; /* one to three spans */
        for (int j = 0; j < n; j++)
            b->ids[i][j] = (j * 37 + i * 11 + 3) % b->n_ids;
        ck_ok(icae_compress_ids(b->graph, b->model, b->adapter, b->ids[i], n, NULL,
                                &b->slots[i], &error));
        icae_request *r = &b->requests[i];
        *r = (icae_request){.slots = &b->slots[i],
                            .task = (icae_task)(i % ICAE_TASK_COUNT),
                            .max_tokens = LENGTH - i,
                            .stop = -1};
        if (r->task != ICAE_TASK_FT) continue;
        r->prefix = prefix;
        r->n_prefix = 3;
        r->prompt = prompt;
        r->n_prompt = 4;
    }
    return b;
}

static bench *bench_open(void) {
    return bench_open_base("llama");
}

static void bench_close(bench *b) {
    for (int i = 0; i < REQUESTS; i++)
        icae_slots_release(&b->slots[i]);
    icae_graph_free(b->graph);
    icae_adapter_free(b->adapter);
    icae_model_close(b->model);
    icae_backend_free(b->be);
    free(b);
}

/* Negative log-likelihoods of all ids behind request i and the tokens `before`, without any cache. */
static void forced(const bench *b, int i, const int32_t *before, int64_t n_before,
                   double nll[MOST_IDS]) {
    const icae_request *r = &b->requests[i];
    int32_t target[LENGTH + 1];
    if (n_before > 0) memcpy(target, before, (size_t)n_before * sizeof *before);
    for (int32_t id = 0; id < b->n_ids; id++) {
        target[n_before] = id;
        icae_context context = {b->ids[i], b->slots[i].n_tokens, 0};
        icae_job job = {.context = 0,
                        .task = r->task,
                        .prefix = r->prefix,
                        .n_prefix = r->n_prefix,
                        .prompt = r->prompt,
                        .n_prompt = r->n_prompt,
                        .target = target,
                        .n_target = n_before + 1,
                        .skip = n_before,
                        .coef = 1};
        icae_batch batch = {&context, 1, &job, 1};
        icae_run run = {0};
        icae_graph_begin(b->graph, false, false);
        icae_batch_loss(b->graph, b->model, b->adapter, &batch, &run, &nll[id], NULL);
        ck_ok(icae_graph_status(b->graph, &error));
    }
}

/* In Gemma's, windows of 16 in some layers, shorter than what stands in the cache. */
static void generates_the_likeliest(const char *golden) {
    bench *b = bench_open_base(golden);
    icae_result results[REQUESTS];
    ck_ok(icae_generate(b->graph, b->model, b->adapter, b->requests, REQUESTS, &greedy, NULL,
                        NULL, results, &error));
    for (int i = 0; i < REQUESTS; i++) {
        ck_assert_int_eq(results[i].n, LENGTH - i);
        const int64_t places[] = {1, results[i].n - 1};
        for (int p = 0; p < 2; p++) {
            double nll[MOST_IDS];
            forced(b, i, results[i].ids, places[p], nll);
            int32_t made = results[i].ids[places[p]];
            for (int id = 0; id < b->n_ids; id++)
                ck_assert_msg(nll[made] <= nll[id], "request %d, token %d: %d, expected %d", i,
                              (int)places[p], made, id);
        }
    }
    icae_results_release(results, REQUESTS);
    bench_close(b);
}

START_TEST(what_is_generated_is_the_likeliest_without_a_cache) {
    generates_the_likeliest("llama");
    generates_the_likeliest("gemma3");
}
END_TEST

START_TEST(a_request_is_answered_alike_alone_and_among_others) {
    bench *b = bench_open();
    const icae_sampling ways[] = {greedy, {.temperature = 3, .top_p = 0.9, .seed = 4}};
    for (int w = 0; w < 2; w++) {
        icae_result together[REQUESTS], alone;
        ck_ok(icae_generate(b->graph, b->model, b->adapter, b->requests, REQUESTS, &ways[w],
                            NULL, NULL, together, &error));
        /* A draw depends on the request's number, so only the first is drawn alike alone. */
        for (int i = 0; i < (w ? 1 : REQUESTS); i++) {
            ck_ok(icae_generate(b->graph, b->model, b->adapter, &b->requests[i], 1, &ways[w],
                                NULL, NULL, &alone, &error));
            ck_assert_int_eq(alone.n, together[i].n);
            ck_assert_mem_eq(alone.ids, together[i].ids, (size_t)alone.n * sizeof(int32_t));
            icae_results_release(&alone, 1);
        }
        icae_results_release(together, REQUESTS);
    }
    bench_close(b);
}
END_TEST

/* Smallest set of likeliest ids that top_k and top_p leave; kept[id]. Returns its size. */
static int nucleus(const double nll[MOST_IDS], int32_t n_ids, const icae_sampling *s,
                   bool kept[MOST_IDS]) {
    int n = 0, most = s->top_k ? (int)s->top_k : n_ids;
    double total = 0, sum = 0;
    bool in_k[MOST_IDS] = {false};
    for (int pass = 0; pass < 2; pass++) { /* the likeliest top_k, then their nucleus */
        for (int rank = 0; rank < most && (pass == 0 || sum < s->top_p * total); rank++) {
            int best = -1;
            for (int id = 0; id < n_ids; id++) {
                bool is_free = pass == 0 ? !in_k[id] : in_k[id] && !kept[id];
                if (is_free && (best < 0 || nll[id] < nll[best])) best = id;
            }
            double weight = exp((nll[0] - nll[best]) / s->temperature);
            if (pass == 0) {
                in_k[best] = true;
                total += weight;
            } else {
                kept[best] = true;
                sum += weight;
                n++;
            }
        }
    }
    return n;
}

START_TEST(draws_stay_in_the_nucleus_and_follow_its_probabilities) {
    enum { DRAWS = 600 };
    static const icae_sampling ways[] = {{.temperature = 5, .top_p = 1, .top_k = 3},
                                         {.temperature = 3, .top_p = 0.3},
                                         {.temperature = 5, .top_p = 0.5, .top_k = 6}};
    bench *b = bench_open();
    double nll[MOST_IDS];
    forced(b, 0, NULL, 0, nll);
    b->requests[0].max_tokens = 1;
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        bool kept[MOST_IDS] = {false};
        int counts[MOST_IDS] = {0}, n = nucleus(nll, b->n_ids, &ways[w], kept);
        ck_assert_int_ge(n, 2);
        icae_sampling sampling = ways[w];
        for (uint64_t seed = 0; seed < DRAWS; seed++) {
            icae_result result;
            sampling.seed = seed;
            ck_ok(icae_generate(b->graph, b->model, b->adapter, b->requests, 1, &sampling, NULL,
                                NULL, &result, &error));
            counts[result.ids[0]]++;
            icae_results_release(&result, 1);
        }
        double total = 0, chi2 = 0;
        for (int id = 0; id < b->n_ids; id++)
            total += kept[id] ? exp(-nll[id] / sampling.temperature) : 0;
        for (int id = 0; id < b->n_ids; id++) {
            ck_assert_msg(kept[id] || counts[id] == 0, "way %zu drew %d", w, id);
            if (!kept[id]) continue;
            double expected = DRAWS * exp(-nll[id] / sampling.temperature) / total;
            chi2 += (counts[id] - expected) * (counts[id] - expected) / expected;
        }
        /* mean n - 1, deviation sqrt(2 (n - 1)); the draws are fixed, so this never flickers */
        ck_assert_msg(chi2 < n - 1 + 5 * sqrt(2.0 * (n - 1)), "way %zu: chi2 %g for %d ids", w,
                      chi2, n);
    }
    bench_close(b);
}
END_TEST

START_TEST(numbers_that_are_not_finite_are_refused) {
    bench *b = bench_open();
    icae_result result;
    icae_slots slots = {0};
    icae_real *norm = (icae_real *)(uintptr_t)b->model->final_norm.data;
    norm[3] = (icae_real)NAN;
    ck_refused(
        icae_compress_ids(b->graph, b->model, b->adapter, prefix, 3, NULL, &slots, &error),
        "the memory slots are not finite");
    ck_assert_ptr_null(slots.values);
    ck_refused(icae_generate(b->graph, b->model, b->adapter, b->requests, 1, &greedy, NULL,
                             NULL, &result, &error),
               "the scores of the next token are not finite");
    bench_close(b);
}
END_TEST

START_TEST(requests_that_make_no_sense_are_refused) {
    bench *b = bench_open();
    icae_result result;
    icae_slots slots = {0}, none = {0};
    ck_ok(icae_compress_ids(b->graph, b->model, b->adapter, prefix, 3, NULL, &slots, &error));
    icae_request request = {.slots = &slots, .task = ICAE_TASK_LM, .max_tokens = 1, .stop = -1};
#define GENERATE(adapter)                                                                      \
    icae_generate(b->graph, b->model, adapter, &request, 1, &greedy, NULL, NULL, &result,      \
                  &error)
    ck_refused(GENERATE(NULL), "slots cannot be read without their adapter");
    slots.width++;
    ck_refused(GENERATE(b->adapter), "slots of width 65, a base of width 64");
    slots.width--;
    request.max_tokens = 0;
    ck_refused(GENERATE(b->adapter), "needs an input and at least 1 new token");
    request = (icae_request){.max_tokens = 1, .stop = -1};
    ck_refused(GENERATE(b->adapter), "needs an input and at least 1 new token");
    ck_refused(GENERATE(NULL), "needs an input and at least 1 new token");
#undef GENERATE
    ck_refused(
        icae_compress_ids(b->graph, b->model, b->adapter, prefix, 0, NULL, &none, &error),
        "there is no text to compress");
    const int32_t length = 3;
    const bool is_raw = true;
    ck_refused(icae_compress_spans(b->graph, b->model, b->adapter, prefix, 1, &length, &is_raw,
                                   NULL, &none, &error),
               "every span would be kept raw");
    ck_assert_ptr_null(none.values);
    icae_slots_release(&slots);
    bench_close(b);
}
END_TEST

/*
 * A span of k tokens whose slots are those tokens' embeddings is the span itself: k slots of k tokens stand at
 * the tokens' own positions. So slots with such a span write what slots with the raw span write.
 */
START_TEST(a_raw_span_is_read_as_its_tokens) {
    bench *b = bench_open();
    int64_t k = b->adapter->settings.memory_slots, D = b->model->config.width;
    int32_t ids[64];
    for (int i = 0; i < 64; i++)
        ids[i] = (i * 29 + 7) % b->n_ids;
    const int32_t lengths[] = {12, (int32_t)k, 9};
    const bool is_raw[] = {false, true, false};
    icae_slots raw = {0}, equal = {0};
    ck_ok(icae_compress_spans(b->graph, b->model, b->adapter, ids, 3, lengths, is_raw, NULL,
                              &raw, &error));
    ck_ok(icae_compress_spans(b->graph, b->model, b->adapter, ids, 3, lengths, NULL, NULL,
                              &equal, &error));
    ck_assert_mem_eq(raw.raw_ids, ids + 12, (size_t)k * sizeof *ids);
    ck_assert_mem_eq(raw.values, equal.values, (size_t)(k * D) * sizeof(float));
    ck_assert_mem_eq(raw.values + k * D, equal.values + 2 * k * D,
                     (size_t)(k * D) * sizeof(float));
    icae_graph_begin(b->graph, false, false);
    icae_tensor *embedded =
        icae_model_inputs(b->graph, b->model, 0, NULL, k, NULL, raw.raw_ids);
    icae_real *host = icae_graph_arena(b->graph, (size_t)(k * D) * sizeof *host);
    icae_tensor_read(b->graph, embedded, host);
    for (int64_t i = 0; i < k * D; i++)
        equal.values[k * D + i] = (float)host[i];
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        icae_request requests[2];
        for (int i = 0; i < 2; i++) {
            requests[i] = (icae_request){.slots = i ? &equal : &raw,
                                         .task = (icae_task)task,
                                         .max_tokens = LENGTH,
                                         .stop = -1};
            if (task != ICAE_TASK_FT) continue;
            requests[i].prefix = prefix;
            requests[i].n_prefix = 3;
            requests[i].prompt = prompt;
            requests[i].n_prompt = 4;
        }
        icae_result results[2];
        ck_ok(icae_generate(b->graph, b->model, b->adapter, requests, 2, &greedy, NULL, NULL,
                            results, &error));
        ck_assert_int_eq(results[0].n, LENGTH);
        ck_assert_mem_eq(results[0].ids, results[1].ids, LENGTH * sizeof(int32_t));
        icae_results_release(results, 2);
    }
    /* Other tokens are read as others. */
    raw.raw_ids[0] = (raw.raw_ids[0] + 1) % b->n_ids;
    icae_request requests[2] = {{.slots = &raw, .max_tokens = LENGTH, .stop = -1},
                                {.slots = &equal, .max_tokens = LENGTH, .stop = -1}};
    icae_result results[2];
    ck_ok(icae_generate(b->graph, b->model, b->adapter, requests, 2, &greedy, NULL, NULL,
                        results, &error));
    ck_assert_mem_ne(results[0].ids, results[1].ids, LENGTH * sizeof(int32_t));
    icae_results_release(results, 2);
    icae_slots_release(&raw);
    icae_slots_release(&equal);
    bench_close(b);
}
END_TEST

SUITE_OF(generate, 120, what_is_generated_is_the_likeliest_without_a_cache,
         a_request_is_answered_alike_alone_and_among_others,
         draws_stay_in_the_nucleus_and_follow_its_probabilities,
         numbers_that_are_not_finite_are_refused, requests_that_make_no_sense_are_refused,
         a_raw_span_is_read_as_its_tokens)
