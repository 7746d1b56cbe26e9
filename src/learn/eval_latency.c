/* SPDX-License-Identifier: MIT */
/*
 * Suite latency: what slots save, in seconds and in bytes of key-value cache.
 *
 * A cell of the grid is B texts of L random tokens. Timed are: compressing all of them, writing N tokens for all
 * side by side from their slots, writing the same from the texts themselves. Nothing ends early. Rounds
 * are repeated and every number is the median (the paper's table 7 has batch 8 and 32, 512 and 2048 tokens).
 */
#include <math.h>
#include <stdlib.h>

#include "evaluate_internal.h"
#include "icae/log.h"
#include "icae/rng.h"

enum {
    BATCH,
    TOKENS,
    SLOTS,
    GENERATED,
    COMPRESS_S,
    SLOTS_S,
    RAW_S,
    SLOTS_KV,
    RAW_KV,
    N_VALUES
};
static const char *const value_names[] = {"batch",        "tokens",  "slots", "generated",
                                          "compress_s",   "slots_s", "raw_s", "slots_kv_bytes",
                                          "raw_kv_bytes", NULL};
_Static_assert(sizeof value_names / sizeof *value_names == N_VALUES + 1, "a name each");

enum { DEFAULT_ROUNDS = 3, DEFAULT_GENERATE = 128 };
static const int64_t paper_cells[] = {8, 512, 8, 2048, 32, 512};

static void fill(const icae_eval_engine *engine, icae_eval_settings *settings) {
    (void)engine;
    settings->samples = icae_eval_or(settings->samples, DEFAULT_ROUNDS);
    if (settings->samples == 0) settings->samples = DEFAULT_ROUNDS;
    settings->generate = icae_eval_or(settings->generate, DEFAULT_GENERATE);
    settings->batch = 1; /* rounds do not go side by side */
    if (settings->n_cells) return;
    settings->cells = paper_cells;
    settings->n_cells = sizeof paper_cells / sizeof *paper_cells / 2;
}

static icae_status collect(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           icae_eval_items *items, icae_error *error) {
    icae_status status = ICAE_OK;
    for (int64_t c = 0; c < settings->n_cells && !status; c++) {
        int64_t batch = settings->cells[2 * c], n = settings->cells[2 * c + 1];
        int32_t *ids = icae_arena_array(&items->arena, (size_t)n, sizeof *ids);
        if (!ids) return icae_fail_memory(error, "random tokens");
        icae_rng rng = {settings->seed, (uint64_t)c, 0};
        for (int64_t i = 0; i < n; i++) {
            ids[i] = (int32_t)icae_rng_below(&rng, (uint64_t)engine->model->config.vocabulary);
        }
        status =
            icae_eval_add_group(items, error, "%lld x %lld", (long long)batch, (long long)n);
        for (int64_t r = 0; r < settings->samples && !status; r++) {
            icae_eval_item item = {.ids = ids, .n = n, .copies = batch};
            status = icae_eval_add_item(items, item, error);
        }
    }
    return status;
}

/* Seconds to write `generate` tokens for all requests. */
static icae_status time_writing(const icae_eval_engine *engine, const icae_request *requests,
                                int64_t n, double *seconds, icae_error *error) {
    icae_result *results = calloc((size_t)n, sizeof *results);
    if (!results) return icae_fail_memory(error, "generated tokens");
    icae_sampling greedy = {.top_p = 1};
    double start_s = icae_clock_seconds();
    icae_status status = icae_generate(engine->graph, engine->model, engine->adapter, requests,
                                       n, &greedy, NULL, NULL, results, error);
    *seconds = icae_clock_seconds() - start_s;
    icae_results_release(results, n);
    free(results);
    return status;
}

static icae_status measure_round(const icae_eval_engine *engine,
                                 const icae_eval_settings *settings, const icae_eval_item *item,
                                 double *values, icae_error *error) {
    size_t copies = (size_t)item->copies;
    icae_eval_slots slots = {0};
    icae_eval_item *texts = calloc(copies, sizeof *texts);
    icae_request *requests = calloc(copies, sizeof *requests);
    icae_status status =
        texts && requests ? ICAE_OK : icae_fail_memory(error, "a round of texts");
    for (size_t i = 0; texts && i < copies; i++)
        texts[i] = *item;
    double start_s = icae_clock_seconds();
    if (!status) {
        status = icae_eval_compress(engine, texts, item->copies, true, 0, &slots, error);
    }
    values[COMPRESS_S] = icae_clock_seconds() - start_s;
    for (size_t i = 0; i < copies && !status; i++) {
        requests[i] = (icae_request){.slots = &slots.of[i],
                                     .task = ICAE_TASK_LM,
                                     .max_tokens = settings->generate,
                                     .stop = -1};
    }
    if (!status) status = time_writing(engine, requests, item->copies, &values[SLOTS_S], error);
    int64_t n_slots = status ? 0 : icae_slots_vectors(&slots.of[0]);
    for (size_t i = 0; i < copies && !status; i++) {
        requests[i] = (icae_request){.prompt = item->ids,
                                     .n_prompt = item->n,
                                     .max_tokens = settings->generate,
                                     .stop = -1};
    }
    if (!status) status = time_writing(engine, requests, item->copies, &values[RAW_S], error);
    int64_t n_task = icae_adapter_task_tokens(&engine->adapter->settings, ICAE_TASK_LM);
    const icae_model_config *config = &engine->model->config;
    double batch = (double)item->copies;
    values[BATCH] = batch;
    values[TOKENS] = (double)item->n;
    values[SLOTS] = (double)n_slots;
    values[GENERATED] = (double)settings->generate;
    values[SLOTS_KV] =
        batch * (double)icae_cache_bytes(config, n_slots + n_task + settings->generate);
    values[RAW_KV] = batch * (double)icae_cache_bytes(config, item->n + settings->generate);
    icae_eval_slots_release(&slots);
    free(texts);
    free(requests);
    return status;
}

static icae_status measure(const icae_eval_engine *engine, const icae_eval_settings *settings,
                           const icae_eval_item *items, int64_t n, icae_eval_row *rows,
                           icae_error *error) {
    icae_status status = ICAE_OK;
    for (int64_t i = 0; i < n && !status; i++)
        status = measure_round(engine, settings, &items[i], rows[i].values, error);
    return status;
}

/* ---- columns ---- */

static double of_speedup(const icae_eval_line *line) {
    return icae_eval_median(line, RAW_S) /
           (icae_eval_median(line, COMPRESS_S) + icae_eval_median(line, SLOTS_S));
}
static double of_speedup_cached(const icae_eval_line *line) {
    return icae_eval_median(line, RAW_S) / icae_eval_median(line, SLOTS_S);
}
static double mib_of(const icae_eval_line *line, int value) {
    return line->sums[value] / (double)line->n / 0x1p20;
}
static double of_slots_kv(const icae_eval_line *line) {
    return mib_of(line, SLOTS_KV);
}
static double of_raw_kv(const icae_eval_line *line) {
    return mib_of(line, RAW_KV);
}

static const icae_eval_column columns[] = {
    {"batch", "texts", 0, ICAE_EVAL_MEAN, .a = BATCH},
    {"tokens", "tokens of each", 0, ICAE_EVAL_MEAN, .a = TOKENS},
    {"slots", "slots of each", 0, ICAE_EVAL_MEAN, .a = SLOTS},
    {"generated", "tokens written", 0, ICAE_EVAL_MEAN, .a = GENERATED},
    {"raw_s", "raw (s)", 2, ICAE_EVAL_MEDIAN, .a = RAW_S},
    {"compress_s", "compress (s)", 2, ICAE_EVAL_MEDIAN, .a = COMPRESS_S},
    {"slots_s", "from slots (s)", 2, ICAE_EVAL_MEDIAN, .a = SLOTS_S},
    {"speedup", "faster, compression included", 2, ICAE_EVAL_OWN, .of = of_speedup},
    {"speedup_cached", "faster, slots at hand", 2, ICAE_EVAL_OWN, .of = of_speedup_cached},
    {"raw_kv_mib", "KV cache, raw (MiB)", 1, ICAE_EVAL_OWN, .of = of_raw_kv},
    {"slots_kv_mib", "KV cache, slots (MiB)", 1, ICAE_EVAL_OWN, .of = of_slots_kv},
    {"kv_ratio", "times smaller", 2, ICAE_EVAL_RATIO, .a = RAW_KV, .b = SLOTS_KV},
    {.key = NULL},
};

const icae_eval_suite icae_suite_latency = {
    .name = "latency",
    .title = "Latency and memory: slots against the raw context",
    .note =
        "Median seconds for all texts of a cell, read and written side by side on this "
        "machine; random tokens, "
        "nothing ends early. Cache bytes are of 16-bit keys and values at the end of writing.",
    .paper = "128 tokens written: 8 x 2048 3.3 times faster, 8 x 512 2.2, 32 x 512 3.6.",
    .group_heading = "texts x tokens",
    .wants_adapter = true,
    .wants_data = false,
    .has_total = false,
    .values = value_names,
    .columns = columns,
    .fill = fill,
    .collect = collect,
    .measure = measure,
};
