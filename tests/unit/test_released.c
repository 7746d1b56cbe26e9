/* SPDX-License-Identifier: MIT */
/*
 * Released weights as adapters: small files in their layout, read here and by PyTorch (see
 * tests/interop/released.py), must give the same slots, losses and answers. What is known of a file before it
 * becomes an adapter, and what is refused, is in test_released_files.c.
 */
#include <icae.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/feed.h"
#include "icae/file.h"
#include "icae/generate.h"
#include "icae/json.h"
#include "icae/refine.h"
#include "icae/released.h"
#include "icae/safetensors.h"
#include "suites.h"

#define FOLDER "tests/golden/released/"

static icae_error error;

static const struct {
    const char *name, *file, *base;
    icae_released kind;
    int64_t rank;
} cases[] = {
    {"v1", FOLDER "v1.pt", "tests/golden/llama2/model", ICAE_RELEASED_V1, 4},
    {"v2", FOLDER "v2.safetensors", "tests/golden/mistral/model", ICAE_RELEASED_V2, 6},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* A base, the adapter made for it, and what PyTorch computed. */
typedef struct bench {
    icae_backend *be;
    icae_graph *graph;
    icae_model *model;
    icae_adapter *adapter;
    icae_json *json;
    const icae_json_value *expected;
    icae_safetensors slots;
} bench;

static bench *bench_open(int i, const char *level) {
    bench *b = calloc(1, sizeof *b);
    ck_assert_ptr_nonnull(b);
    ck_ok(icae_backend_create(&b->be, level, 1, &error));
    ck_ok(icae_graph_create(&b->graph, b->be, &error));
    ck_ok(icae_model_open(&b->model, cases[i].base, &error));
    ck_ok(icae_released_convert(&b->adapter, cases[i].file, b->model, NULL, b->be, false,
                                &error));
    ck_ok(icae_json_open(&b->json, FOLDER "released.json", &error));
    b->expected = icae_json_member(icae_json_root(b->json), cases[i].name);
    ck_ok(icae_safetensors_open(&b->slots, FOLDER "slots.safetensors", &error));
    return b;
}

static void bench_close(bench *b) {
    icae_safetensors_close(&b->slots);
    icae_json_free(b->json);
    icae_graph_free(b->graph);
    icae_adapter_free(b->adapter);
    icae_model_close(b->model);
    icae_backend_free(b->be);
    free(b);
}

/* ---- expectations ---- */

typedef struct ids {
    int64_t n;
    int32_t list[256];
} ids;

static ids ids_of(const icae_json_value *object, const char *key) {
    ids out = {0};
    const icae_json_value *list = icae_json_member(object, key);
    ck_assert_msg(icae_json_is_array(list), "%s is missing", key);
    for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
        int64_t id;
        ck_assert(icae_json_as_integer(v, &id) && out.n < 256);
        out.list[out.n++] = (int32_t)id;
    }
    return out;
}

static const char *text_of(const icae_json_value *object, const char *key) {
    return icae_json_as_string(icae_json_member(object, key));
}

static void expect_ids(const char *what, ids wanted, const int32_t *list, int64_t n) {
    ck_assert_msg(n == wanted.n, "%s: %lld ids, expected %lld", what, (long long)n,
                  (long long)wanted.n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(list[i] == wanted.list[i], "%s: id %lld is %d, expected %d", what,
                      (long long)i, list[i], wanted.list[i]);
}

static void expect_encoding(const bench *b, const char *text, bool parse_special, ids wanted) {
    int32_t *list;
    size_t n;
    ck_ok(icae_tokenizer_encode(b->model->tokenizer, text, strlen(text), parse_special, &list,
                                &n, &error));
    ck_assert_msg((int64_t)n <= wanted.n, "\"%s\"", text);
    wanted.n = (int64_t)n < wanted.n ? (int64_t)n : wanted.n; /* a prompt has a suffix */
    expect_ids(text, wanted, list, (int64_t)n);
    free(list);
}

static void expect_context(const bench *b, const char *text, ids wanted) {
    int32_t *list;
    size_t n;
    ck_ok(icae_adapter_encode(&b->adapter->settings, b->model->tokenizer, text, strlen(text),
                              &list, &n, &error));
    expect_ids(text, wanted, list, (int64_t)n);
    free(list);
}

static void expect_slots(const bench *b, const char *name, const icae_slots *slots) {
    const icae_safetensors_entry *entry = icae_safetensors_find(&b->slots, name);
    ck_assert_ptr_nonnull(entry);
    int64_t rows = slots->n_spans * slots->slots_per_span;
    ck_assert(entry->shape[0] == rows && entry->shape[1] == slots->width);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < rows * slots->width; i++) {
        float wanted;
        memcpy(&wanted, (const unsigned char *)entry->data + i * 4, 4);
        worst = fmax(worst, fabs((double)wanted - (double)slots->values[i]));
        largest = fmax(largest, fabs((double)wanted));
    }
    ck_assert_msg(worst <= 1e-5 * largest, "%s: off by %g of %g", name, worst, largest);
}

static void expect_loss(const bench *b, const icae_json_value *sample, icae_task task,
                        const icae_job *job, const ids *context) {
    const icae_json_value *wanted = icae_json_member(sample, icae_task_names[task]);
    double sum = 0, got = 0;
    int64_t n = 0;
    ck_assert(icae_json_as_number(icae_json_member(wanted, "sum"), &sum));
    ck_assert(icae_json_as_integer(icae_json_member(wanted, "n"), &n));
    icae_graph_begin(b->graph, false, false);
    icae_context read = {context->list, context->n, 0};
    icae_batch batch = {&read, 1, job, 1};
    icae_run run = {0};
    ck_assert_int_eq(icae_job_bearing(job), n);
    icae_batch_loss(b->graph, b->model, b->adapter, &batch, &run, &got, NULL);
    ck_ok(icae_graph_status(b->graph, &error));
    ck_assert_msg(fabs(got - sum) <= 1e-5 * sum, "%s: loss %.9g, expected %.9g",
                  icae_task_names[task], got, sum);
}

static void expect_writing(const bench *b, const icae_json_value *sample, const char *key,
                           icae_request request) {
    static const icae_sampling greedy = {.top_p = 1};
    icae_result made;
    request.max_tokens = 12;
    request.stop = icae_adapter_stop(&b->adapter->settings, b->model->tokenizer);
    ck_ok(icae_generate(b->graph, b->model, b->adapter, &request, 1, &greedy, NULL, NULL, &made,
                        &error));
    expect_ids(key, ids_of(sample, key), made.ids, made.n);
    icae_results_release(&made, 1);
}

static void check_sample(const bench *b, const char *slots_name,
                         const icae_json_value *sample) {
    ids context = ids_of(sample, "context"), prefix = ids_of(b->expected, "prefix");
    ids prompt = ids_of(sample, "prompt"), answer = ids_of(sample, "answer");
    ids following = ids_of(sample, "continuation"), again = context;
    expect_context(b, text_of(sample, "text"), context);
    expect_encoding(b, text_of(sample, "question"), false, prompt);
    icae_slots slots = {0};
    ck_ok(icae_compress_ids(b->graph, b->model, b->adapter, context.list, context.n, NULL,
                            &slots, &error));
    expect_slots(b, slots_name, &slots);
    again.list[again.n++] = icae_adapter_stop(&b->adapter->settings, b->model->tokenizer);
    const icae_job ae = {.task = ICAE_TASK_AE, .target = again.list, .n_target = again.n},
                   lm = {.task = ICAE_TASK_LM,
                         .target = following.list,
                         .n_target = following.n,
                         .skip = 8},
                   ft = {.task = ICAE_TASK_FT,
                         .prefix = prefix.list,
                         .n_prefix = prefix.n,
                         .prompt = prompt.list,
                         .n_prompt = prompt.n,
                         .target = answer.list,
                         .n_target = answer.n};
    expect_loss(b, sample, ICAE_TASK_AE, &ae, &context);
    expect_loss(b, sample, ICAE_TASK_LM, &lm, &context);
    expect_loss(b, sample, ICAE_TASK_FT, &ft, &context);
    expect_writing(b, sample, "restored",
                   (icae_request){.slots = &slots, .task = ICAE_TASK_AE});
    expect_writing(b, sample, "answered",
                   (icae_request){.slots = &slots,
                                  .task = ICAE_TASK_FT,
                                  .prefix = prefix.list,
                                  .n_prefix = prefix.n,
                                  .prompt = prompt.list,
                                  .n_prompt = prompt.n});
    icae_slots_release(&slots);
}

START_TEST(slots_losses_and_answers_are_those_of_pytorch) {
    const char *const *levels = icae_backend_levels();
    for (int i = 0; i < N_CASES; i++) {
        for (int level = 0; levels[level]; level++) {
            bench *b = bench_open(i, levels[level]);
            const icae_json_value *list = icae_json_member(b->expected, "samples");
            int n = 0;
            for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
                char name[32];
                snprintf(name, sizeof name, "%s.%d.slots", cases[i].name, n++);
                check_sample(b, name, v);
            }
            ck_assert_int_eq(n, 2);
            bench_close(b);
        }
    }
}
END_TEST

/* The settings that come from no file, and the prompt around a question, through the public interface. */
START_TEST(saved_adapter_answers_in_its_own_format) {
    for (int i = 0; i < N_CASES; i++) {
        const char *folder = test_path(test_folder("released-saved"), "adapter");
        bench *b = bench_open(i, NULL);
        uint64_t fingerprint = b->adapter->fingerprint;
        ck_ok(icae_adapter_save(b->adapter, folder, b->model, &error));
        ck_assert_uint_eq(b->adapter->fingerprint, fingerprint);
        const icae_json_value *sample =
            icae_json_first(icae_json_member(b->expected, "samples"));
        icae_base *base;
        icae_session *session;
        icae_slots *slots;
        icae_generated made = {0};
        ck_ok(icae_base_open(&base, cases[i].base, &error));
        ck_ok(icae_session_open(&session, base, folder, NULL, &error));
        const char *text = text_of(sample, "text");
        ck_ok(icae_session_compress(session, text, strlen(text), &slots, &error));
        const icae_generation what = {
            .mode = ICAE_ASK, .prompt = text_of(sample, "question"), .max_tokens = 12};
        ck_ok(icae_session_generate(session, slots, &what, NULL, NULL, &made, &error));
        ids answered = ids_of(sample, "answered");
        icae_text wanted = {0};
        ck_ok(icae_tokenizer_decode(b->model->tokenizer, answered.list, (size_t)answered.n,
                                    true, &wanted, &error));
        ck_assert_str_eq(made.text, icae_text_string(&wanted));
        int64_t closing = cases[i].kind == ICAE_RELEASED_V1;
        ck_assert_int_eq(made.prompt_tokens, ids_of(b->expected, "prefix").n + 8 + 1 +
                                                 ids_of(sample, "prompt").n + closing);
        icae_text_release(&wanted);
        icae_generated_release(&made);
        icae_slots_free(slots);
        icae_session_close(session);
        icae_base_close(base);
        bench_close(b);
    }
}
END_TEST

START_TEST(settings_are_those_of_the_released_code) {
    for (int i = 0; i < N_CASES; i++) {
        bench *b = bench_open(i, NULL);
        const icae_adapter_settings *s = &b->adapter->settings;
        bool is_v1 = cases[i].kind == ICAE_RELEASED_V1;
        ck_assert_int_eq(s->layout, ICAE_LAYOUT_APPEND);
        ck_assert(s->memory_slots == 8 && s->compression_rate == 4);
        ck_assert(s->rank == cases[i].rank && s->alpha == 32 && s->dropout == 0.05);
        ck_assert(b->adapter->lora.scale == 32.0 / (double)cases[i].rank);
        ck_assert(s->closes_prompt == is_v1 && s->has_stop_id == is_v1);
        ck_assert_int_eq(icae_adapter_stop(s, b->model->tokenizer), is_v1 ? 1 : 2);
        ck_assert(s->no_lm_token != is_v1 && s->context_bos);
        ck_assert_str_eq(s->chat_prefix, is_v1 ? "" : "<s>[INST]");
        ck_assert_str_eq(s->chat_suffix, is_v1 ? "" : "[/INST]");
        expect_encoding(b, s->chat_prefix, true, ids_of(b->expected, "prefix"));
        const icae_released_options options = {.alpha = 48, .compression_rate = 2};
        icae_adapter *other;
        ck_ok(icae_released_convert(&other, cases[i].file, b->model, &options, b->be, true,
                                    &error));
        ck_assert(other->lora.scale == 48.0 / (double)cases[i].rank);
        ck_assert_int_eq(other->settings.compression_rate, 2);
        ck_assert(other->fingerprint != b->adapter->fingerprint);
        icae_adapter_free(other);
        bench_close(b);
    }
}
END_TEST

static void expect_job(const icae_batch *batch, int64_t j, int32_t bos, int32_t stop) {
    const icae_job *job = &batch->jobs[j];
    const icae_context *context = &batch->contexts[job->context];
    ck_assert_int_eq(context->ids[0], bos);
    ck_assert_int_ne(context->ids[1], bos);
    ck_assert_int_eq(job->target[job->n_target - 1], stop);
}

/* Fine-tuning and pretraining go on in the format in which the adapter was trained. */
START_TEST(training_samples_begin_and_end_as_the_adapter_wants) {
    static const char row[] = "{\"text\": \"The ferry had not run since Sunday.\", \"input\": "
                              "\"The river was low.\", \"prompt\": \"Was it?\", \"answer\": "
                              "\"Yes.\"}\n";
    const char *path = test_path(test_folder("released-feed"), "rows.jsonl");
    ck_ok(icae_file_write(path, row, strlen(row), &error));
    for (int i = 0; i < N_CASES; i++) {
        bench *b = bench_open(i, NULL);
        for (int objective = 0; objective < ICAE_OBJECTIVE_COUNT; objective++) {
            const icae_feed_settings settings = {.paths = &path,
                                                 .n_paths = 1,
                                                 .text_field = "text",
                                                 .objective = (icae_objective)objective,
                                                 .context_tokens = 64,
                                                 .least_context = 2,
                                                 .continuation_tokens = 64,
                                                 .least_continuation = 64,
                                                 .skip_for_lm = 8,
                                                 .prompt_tokens = 32,
                                                 .answer_tokens = 32};
            icae_feed *feed;
            icae_feed_step *step;
            ck_ok(icae_feed_open(&feed, &settings, b->model->tokenizer, &b->adapter->settings,
                                 &error));
            ck_ok(icae_feed_next(feed, 1, &step, &error));
            ck_assert(step && step->batch.n_jobs == 1);
            expect_job(&step->batch, 0, 1, cases[i].kind == ICAE_RELEASED_V1 ? 1 : 2);
            icae_feed_step_free(step);
            icae_feed_close(feed);
        }
        bench_close(b);
    }
}
END_TEST

/* A text begins with BOS, which v1 takes for the end of answers, too: it must not end a text before its first word. */
START_TEST(slots_refined_to_the_letter_give_the_text) {
    static const char text[] = "The ferry had not run.";
    for (int i = 0; i < N_CASES; i++) {
        bench *b = bench_open(i, NULL);
        icae_slots slots = {0};
        icae_refined told;
        int32_t *wanted;
        ck_ok(icae_compress_text(b->graph, b->model, b->adapter, text, strlen(text), NULL,
                                 &slots, &wanted, &error));
        ck_ok(icae_refine(b->graph, b->model, b->adapter, wanted, 2000, NULL, &slots, &told,
                          &error));
        ck_assert(told.spans == 1 && told.certain == 1);
        const icae_request request = {
            .slots = &slots,
            .task = ICAE_TASK_AE,
            .max_tokens = slots.n_tokens + 8,
            .stop = icae_adapter_stop(&b->adapter->settings, b->model->tokenizer)};
        static const icae_sampling greedy = {.top_p = 1};
        icae_result made;
        ck_ok(icae_generate(b->graph, b->model, b->adapter, &request, 1, &greedy, NULL, NULL,
                            &made, &error));
        ck_assert_int_eq(made.n, slots.n_tokens);
        ck_assert_mem_eq(made.ids, wanted, (size_t)made.n * sizeof *wanted);
        ck_assert(made.is_stopped);
        icae_results_release(&made, 1);
        icae_slots_release(&slots);
        free(wanted);
        bench_close(b);
    }
}
END_TEST

static icae_status load_with(const bench *b, const char *folder, const char *text) {
    icae_adapter *adapter;
    ck_ok(icae_file_write(test_path(folder, "icae.json"), text, strlen(text), &error));
    icae_status status = icae_adapter_load(&adapter, folder, b->model, b->be, false, &error);
    icae_adapter_free(adapter);
    return status;
}

START_TEST(a_stop_id_must_be_a_token_of_the_base) {
#define LEAST                                                                                  \
    "{\"format\": \"icae-adapter\", \"version\": 1, \"memory_slots\": 8, "                     \
    "\"compression_rate\": 4, \"layout\": \"append\", \"stop_id\": "
    const char *folder = test_path(test_folder("released-stop"), "adapter");
    bench *b = bench_open(0, NULL);
    ck_ok(icae_adapter_save(b->adapter, folder, b->model, &error));
    ck_ok(load_with(b, folder, LEAST "599}"));
    ck_ok(load_with(b, folder, LEAST "null}"));
    ck_refused(load_with(b, folder, LEAST "600}"), "stop_id");
    ck_refused(load_with(b, folder, LEAST "-1}"), "stop_id");
    icae_adapter_settings settings = b->adapter->settings;
    icae_adapter *adapter;
    settings.stop_id = 600;
    ck_refused(icae_adapter_create(&adapter, b->model, &settings, 0, b->be, false, &error),
               "stop_id is 600, but the base given");
    bench_close(b);
#undef LEAST
}
END_TEST

SUITE_OF(released, 120, slots_losses_and_answers_are_those_of_pytorch,
         saved_adapter_answers_in_its_own_format, settings_are_those_of_the_released_code,
         training_samples_begin_and_end_as_the_adapter_wants,
         slots_refined_to_the_letter_give_the_text, a_stop_id_must_be_a_token_of_the_base)
