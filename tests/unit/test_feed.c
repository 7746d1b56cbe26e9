/* SPDX-License-Identifier: MIT */
/* Samples: where texts are cut, what the jobs on them are, and going on after a stop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "icae/feed.h"
#include "icae/file.h"
#include "icae/log.h"
#include "learn/samples_internal.h"
#include "suites.h"

enum { N_TEXTS = 23, MOST_STEPS = 64 };

static const char model_folder[] = "tests/golden/llama/model";

static icae_tokenizer *open_tokenizer(void) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, model_folder, &error));
    return tokenizer;
}

/* Text `number` has 4 to 90 words; every seventh is one short word, so too short for any setting. */
static void make_text(icae_text *out, int number) {
    static const char *const words[] = {"the",  "river", "was",   "slow", "and",   "men",
                                        "from", "both",  "towns", "met",  "there", "again"};
    icae_rng rng = {.seed = 11, .stream = (uint64_t)number};
    int n = number % 7 == 3 ? 0 : 4 + (int)icae_rng_below(&rng, 87);
    icae_text_clear(out);
    if (!n) icae_text_append_string(out, "met");
    for (int i = 0; i < n; i++) {
        icae_text_printf(out, "%s%s", i ? " " : "", words[icae_rng_below(&rng, 12)]);
    }
}

static void write_gz(const char *path, const icae_text *text) {
    gzFile gz = gzopen(path, "wb");
    ck_assert_int_eq(gzwrite(gz, text->data, (unsigned)text->length), (int)text->length);
    ck_assert_int_eq(gzclose(gz), Z_OK);
}

/* N_TEXTS texts in a.jsonl and b.jsonl.gz. */
static const char *make_texts(const char *name) {
    const char *folder = test_folder(name);
    icae_text lines = {0}, text = {0};
    icae_error error = {0};
    for (int i = 0; i < N_TEXTS; i++) {
        make_text(&text, i);
        icae_text_printf(&lines, "{\"text\": \"%s\"}\n", text.data);
        if (i == 9) {
            ck_ok(icae_file_write(test_path(folder, "a.jsonl"), lines.data, lines.length,
                                  &error));
            icae_text_clear(&lines);
        }
    }
    write_gz(test_path(folder, "b.jsonl.gz"), &lines);
    icae_text_release(&lines);
    icae_text_release(&text);
    return folder;
}

/* Rows: inputs come in runs of 1 to 4; some parts are over the limits of row_settings. */
static const char *make_rows(const char *name) {
    const char *folder = test_folder(name);
    icae_text lines = {0}, text = {0};
    icae_error error = {0};
    for (int row = 0, input = 0; row < 20; row++) {
        input += row % 3 == 0 || row % 7 == 0;
        make_text(&text, input);
        icae_text_printf(&lines,
                         "{\"input\": \"%s\", \"prompt\": \"what %d?\", \"answer\": \"%s\"}\n",
                         text.data, row, row % 5 ? "yes" : "the men from both towns met there");
    }
    ck_ok(icae_file_write(test_path(folder, "rows.jsonl"), lines.data, lines.length, &error));
    icae_text_release(&lines);
    icae_text_release(&text);
    return folder;
}

static const icae_feed_settings text_settings = {
    .n_paths = 1,
    .text_field = "text",
    .lm_ratio = 0.5,
    .context_tokens = 24,
    .least_context = 4,
    .continuation_tokens = 16,
    .least_continuation = 6,
    .skip_for_lm = 3,
    .seed = 5,
};

static const icae_feed_settings row_settings = {
    .n_paths = 1,
    .objective = ICAE_OBJECTIVE_INSTRUCT,
    .context_tokens = 40,
    .least_context = 2,
    .prompt_tokens = 4,
    .answer_tokens = 6,
    .seed = 5,
};

static const icae_adapter_settings chat = {.chat_prefix = "<|im_start|>user\n",
                                           .chat_suffix = "<|im_end|>\n"};

static icae_feed *open_feed(const icae_feed_settings *settings, const char *path,
                            const icae_tokenizer *tokenizer) {
    icae_error error = {0};
    icae_feed_settings s = *settings;
    s.paths = &path; /* the feed keeps strings, not this list */
    icae_feed *feed;
    ck_ok(icae_feed_open(&feed, &s, tokenizer, &chat, &error));
    return feed;
}

static icae_feed_step *next(icae_feed *feed, int64_t n_samples) {
    icae_error error = {0};
    icae_feed_step *step;
    ck_ok(icae_feed_next(feed, n_samples, &step, &error));
    return step;
}

/* ---- what samples look like ---- */

static void ck_ids(const int32_t *a, const int32_t *b, int64_t n) {
    ck_assert(n >= 0);
    for (int64_t i = 0; i < n; i++)
        ck_assert_int_eq(a[i], b[i]);
}

static void encode_text(const icae_tokenizer *tokenizer, const char *text, bool parse_special,
                        token_list *out) {
    icae_error error = {0};
    size_t n;
    ck_ok(icae_tokenizer_encode(tokenizer, text, strlen(text), parse_special, &out->ids, &n,
                                &error));
    out->n = (int64_t)n;
}

/* Where `part` begins in `whole` such that `after` follows; -1: nowhere. */
static int64_t find_slice(const token_list *whole, const int32_t *part, int64_t n,
                          const int32_t *after, int64_t n_after) {
    for (int64_t at = 0; at + n + n_after <= whole->n; at++) {
        if (!memcmp(whole->ids + at, part, (size_t)n * sizeof *part) &&
            (!n_after ||
             !memcmp(whole->ids + at + n, after, (size_t)n_after * sizeof *after))) {
            return at;
        }
    }
    return -1;
}

static void ck_sample(const icae_tokenizer *tokenizer, const icae_feed_settings *s,
                      const icae_batch *batch, const token_list *document, int *n_lm) {
    ck_assert_int_eq(batch->n_contexts, 1);
    const icae_context *context = &batch->contexts[0];
    ck_assert(context->n >= s->least_context && context->n <= s->context_tokens);
    const icae_job *ae = NULL, *lm = NULL;
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        const icae_job *job = &batch->jobs[j];
        ck_assert(job->context == 0 && job->n_prefix == 0 && job->n_prompt == 0);
        ck_assert((double)job->coef == 0);
        if (job->task == ICAE_TASK_AE) ae = job;
        if (job->task == ICAE_TASK_LM) lm = job;
    }
    ck_assert_int_eq(batch->n_jobs, !!ae + !!lm);
    ck_assert_msg(ae || lm, "a sample without a job");
    if (ae) {
        ck_assert_int_eq(ae->n_target, context->n + 1);
        ck_ids(ae->target, context->ids, context->n);
        ck_assert_int_eq(ae->target[context->n], icae_tokenizer_eos(tokenizer));
        ck_assert_int_eq(ae->skip, 0);
    }
    if (lm) {
        ck_assert(lm->n_target > s->least_continuation);
        ck_assert(lm->n_target <= s->continuation_tokens);
        ck_assert_int_eq(lm->skip, s->skip_for_lm);
        ++*n_lm;
    }
    int64_t at = find_slice(document, context->ids, context->n, lm ? lm->target : NULL,
                            lm ? lm->n_target : 0);
    ck_assert_msg(at >= 0, "context and continuation are no slice of the document");
    if (s->objective == ICAE_OBJECTIVE_BOTH) ck_assert_ptr_nonnull(ae);
    if (s->objective == ICAE_OBJECTIVE_MIXED) ck_assert_int_eq(batch->n_jobs, 1);
    bool is_long = document->n > s->context_tokens;
    if (is_long || !lm) {
        ck_assert_int_eq(context->n, is_long ? s->context_tokens : document->n);
    }
}

START_TEST(samples_are_slices_of_their_documents) {
    const char *folder = make_texts("feed-slices");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_text text = {0};
    for (int objective = ICAE_OBJECTIVE_MIXED; objective <= ICAE_OBJECTIVE_BOTH; objective++) {
        icae_feed_settings settings = text_settings;
        settings.objective = (icae_objective)objective;
        icae_feed *feed = open_feed(&settings, folder, tokenizer);
        int64_t passed_over = 0, samples = 0, context_tokens = 0;
        int n_lm = 0;
        for (int i = 0; i < N_TEXTS; i++) {
            make_text(&text, i);
            token_list document;
            encode_text(tokenizer, text.data, false, &document);
            if (document.n < settings.least_context) {
                passed_over++;
            } else {
                icae_feed_step *step = next(feed, 1);
                ck_sample(tokenizer, &settings, &step->batch, &document, &n_lm);
                context_tokens += step->batch.contexts[0].n;
                ck_assert_int_eq(step->stats.samples, ++samples);
                ck_assert_int_eq(step->stats.context_tokens, context_tokens);
                ck_assert_int_eq(step->stats.passed_over, passed_over);
                ck_assert_int_eq(step->stats.epochs, 0);
                icae_feed_step_free(step);
            }
            free(document.ids);
        }
        ck_assert(passed_over == 3 && n_lm >= 4 && n_lm < samples);
        ck_assert_ptr_null(next(feed, 1));
        ck_assert_ptr_null(next(feed, 1));
        icae_feed_close(feed);
    }
    icae_text_release(&text);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- fine-tuning rows ---- */

static void ck_list(const int32_t *ids, int64_t n, const token_list *a, const token_list *b) {
    ck_assert_int_eq(n, a->n + b->n);
    ck_ids(ids, a->ids, a->n);
    ck_ids(ids + a->n, b->ids, b->n);
}

/* Three rows, the first and the last of one input, and one that is too short. */
static const char *write_rows(const char *folder) {
    const char *path = test_path(test_folder(folder), "rows.jsonl");
    static const char rows[] =
        "{\"input\": \"the river was slow\", \"prompt\": \"who<|im_end|>\", \"answer\": "
        "\"men\"}\n"
        "{\"input\": \"men met\", \"prompt\": \"a b c d e f g h i\", \"answer\": \"yes\"}\n"
        "{\"input\": \"a\", \"prompt\": \"too short\", \"answer\": \"yes\"}\n"
        "{\"input\": \"the river was slow\", \"prompt\": \"why\", \"answer\": \"a b c d e f "
        "g\"}\n";
    icae_error error = {0};
    ck_ok(icae_file_write(path, rows, strlen(rows), &error));
    return path;
}

START_TEST(rows_become_jobs_on_shared_contexts) {
    const char *path = write_rows("feed-rows");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_feed *feed = open_feed(&row_settings, path, tokenizer);
    icae_feed_step *step = next(feed, 5);
    icae_feed_close(feed); /* the step needs nothing of it */

    token_list prefix, suffix, input, prompt, answer, none = {0};
    int32_t eos_id = icae_tokenizer_eos(tokenizer);
    token_list eos = {&eos_id, 1};
    encode_text(tokenizer, chat.chat_prefix, true, &prefix);
    encode_text(tokenizer, chat.chat_suffix, true, &suffix);
    ck_assert(icae_tokenizer_is_special(tokenizer, prefix.ids[0]));
    ck_assert(icae_tokenizer_is_special(tokenizer, suffix.ids[0]));

    const icae_batch *batch = &step->batch;
    ck_assert_int_eq(batch->n_contexts, 2);
    ck_assert_int_eq(batch->n_jobs, 3);
    static const struct {
        const char *input, *prompt, *answer;
        int64_t context;
    } expected[] = {{"the river was slow", "who<|im_end|>", "men", 0},
                    {"men met", "a b c d e f g h i", "yes", 1},
                    {"the river was slow", "why", "a b c d e f g", 0}};
    for (int i = 0; i < 3; i++) {
        const icae_job *job = &batch->jobs[i];
        const icae_context *context = &batch->contexts[job->context];
        encode_text(tokenizer, expected[i].input, false, &input);
        encode_text(tokenizer, expected[i].prompt, false, &prompt);
        encode_text(tokenizer, expected[i].answer, false, &answer);
        ck_assert_int_eq(job->context, expected[i].context);
        ck_assert_int_eq(job->task, ICAE_TASK_FT);
        ck_list(context->ids, context->n, &input, &none);
        ck_list(job->prefix, job->n_prefix, &prefix, &none);
        if (prompt.n > 4) prompt.n = 4;
        ck_list(job->prompt, job->n_prompt, &prompt, &suffix);
        bool is_cut = answer.n > 6;
        ck_assert_int_eq(is_cut, i == 2);
        if (is_cut) answer.n = 6;
        ck_list(job->target, job->n_target, &answer, is_cut ? &none : &eos);
        for (int64_t t = 0; t < prompt.n; t++)
            ck_assert(!icae_tokenizer_is_special(tokenizer, job->prompt[t]));
        free(input.ids);
        free(prompt.ids);
        free(answer.ids);
    }
    ck_assert_int_eq(step->stats.samples, 3);
    ck_assert_int_eq(step->stats.passed_over, 1);
    ck_assert_int_ge(step->stats.cut, 2);
    ck_assert_int_eq(step->stats.context_tokens, batch->contexts[0].n + batch->contexts[1].n);
    free(prefix.ids);
    free(suffix.ids);
    icae_feed_step_free(step);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- order, epochs, going on ---- */

static void dump_ids(icae_text *out, const char *name, const int32_t *ids, int64_t n) {
    icae_text_printf(out, "\n  %s", name);
    for (int64_t i = 0; i < n; i++)
        icae_text_printf(out, " %d", ids[i]);
}

/* All that a step says; keys and state only where wanted. */
static void dump_step(icae_text *out, const icae_feed_step *step, bool with_state) {
    if (!step) {
        icae_text_append_string(out, "end\n");
        return;
    }
    const icae_batch *batch = &step->batch;
    for (int64_t j = 0; j < batch->n_jobs; j++) {
        const icae_job *job = &batch->jobs[j];
        const icae_context *context = &batch->contexts[job->context];
        icae_text_printf(out, "\n%s of", icae_task_names[job->task]);
        if (with_state) {
            icae_text_printf(out, " %lld key %llx", (long long)job->context,
                             (unsigned long long)context->key);
        }
        dump_ids(out, "context", context->ids, context->n);
        dump_ids(out, "prefix", job->prefix, job->n_prefix);
        dump_ids(out, "prompt", job->prompt, job->n_prompt);
        dump_ids(out, "target", job->target, job->n_target);
    }
    if (!with_state) return;
    const icae_feed_stats *s = &step->stats;
    icae_text_printf(out, "\nstats %lld %lld %lld %lld %lld %lld\n%s\n", (long long)s->samples,
                     (long long)s->epochs, (long long)s->context_tokens,
                     (long long)s->passed_over, (long long)s->cut, (long long)s->broken_lines,
                     step->state_json);
}

/* n_steps steps of a fresh feed, dumped each by itself; stops after "end". */
static int run_feed(icae_feed *feed, int64_t n_samples, int n_steps, icae_text *dumps,
                    char **states) {
    for (int i = 0; i < n_steps; i++) {
        icae_feed_step *step = next(feed, n_samples);
        dump_step(&dumps[i], step, true);
        if (step && states) states[i] = strdup(step->state_json);
        bool is_end = !step;
        icae_feed_step_free(step);
        if (is_end) return i + 1;
    }
    return n_steps;
}

static void ck_resumes_everywhere(const icae_feed_settings *settings, const char *path,
                                  const icae_tokenizer *tokenizer, int n_steps) {
    icae_error error = {0};
    static icae_text whole[MOST_STEPS], rest[MOST_STEPS];
    static char *states[MOST_STEPS];
    memset(states, 0, sizeof states);
    icae_feed *feed = open_feed(settings, path, tokenizer);
    int n = run_feed(feed, 3, n_steps, whole, states);
    icae_feed_close(feed);
    ck_assert_int_ge(n, 3);
    for (int i = 0; i < n && states[i]; i++) {
        for (int prefetch = 0; prefetch <= 4; prefetch += 4) {
            icae_feed_settings other = *settings;
            other.prefetch_steps = prefetch;
            feed = open_feed(&other, path, tokenizer);
            icae_json *json;
            ck_ok(icae_json_parse(&json, "state.json", states[i], strlen(states[i]), &error));
            ck_ok(icae_feed_restore(feed, json, icae_json_root(json), &error));
            icae_json_free(json);
            int n_rest = run_feed(feed, 3, n - i - 1, rest, NULL);
            ck_assert_int_eq(n_rest, n - i - 1);
            for (int j = 0; j < n_rest; j++) {
                ck_assert_msg(!strcmp(rest[j].data, whole[i + 1 + j].data),
                              "stopped after step %d: step %d differs", i, i + 1 + j);
                icae_text_release(&rest[j]);
            }
            icae_feed_close(feed);
        }
    }
    for (int i = 0; i < n; i++) {
        icae_text_release(&whole[i]);
        free(states[i]);
    }
}

START_TEST(contexts_of_rows_may_bear_their_restoring_too) {
    const char *path = write_rows("feed-rows-ae");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_feed *plain = open_feed(&row_settings, path, tokenizer);
    icae_feed_settings settings = row_settings;
    settings.has_ae = true;
    icae_feed *feed = open_feed(&settings, path, tokenizer);
    icae_feed_step *without = next(plain, 5), *with = next(feed, 5);
    icae_feed_close(plain);
    icae_feed_close(feed);
    const icae_batch *a = &without->batch, *b = &with->batch;
    ck_assert_int_eq(b->n_contexts, a->n_contexts);
    ck_assert_int_eq(b->n_jobs, a->n_jobs + a->n_contexts);
    int64_t seen = 0, n_ft = 0;
    for (int64_t j = 0; j < b->n_jobs; j++) {
        const icae_job *job = &b->jobs[j];
        const icae_context *context = &b->contexts[job->context];
        if (job->task == ICAE_TASK_AE) {
            ck_assert_int_eq(job->context, seen++); /* once, before the context's answers */
            ck_assert_int_eq(job->n_target, context->n + 1);
            ck_ids(job->target, context->ids, context->n);
            ck_assert_int_eq(job->target[context->n], icae_tokenizer_eos(tokenizer));
            ck_assert_int_eq(job->skip + job->n_prefix + job->n_prompt, 0);
            continue;
        }
        const icae_job *same = &a->jobs[n_ft++];
        ck_assert_int_eq(job->task, ICAE_TASK_FT);
        ck_assert_int_eq(job->context, same->context);
        ck_assert_int_lt(job->context, seen);
        ck_assert_int_eq(job->n_target, same->n_target);
        ck_ids(job->target, same->target, same->n_target);
    }
    ck_assert_int_eq(seen, a->n_contexts);
    ck_assert_int_eq(n_ft, a->n_jobs);
    icae_feed_step_free(without);
    icae_feed_step_free(with);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(goes_on_exactly_after_every_step) {
    char texts[512], rows[512];
    snprintf(texts, sizeof texts, "%s", make_texts("feed-resume"));
    snprintf(rows, sizeof rows, "%s", make_rows("feed-resume-rows"));
    icae_tokenizer *tokenizer = open_tokenizer();
    for (int objective = 0; objective < ICAE_OBJECTIVE_COUNT; objective++) {
        bool is_instruct = objective == ICAE_OBJECTIVE_INSTRUCT;
        for (int way = 0; way < 8; way++) {
            icae_feed_settings settings = is_instruct ? row_settings : text_settings;
            settings.objective = (icae_objective)objective;
            settings.has_ae = is_instruct && way & 1;
            settings.shuffle_documents = way & 1 ? 5 : 0;
            settings.is_endless = way & 2;
            settings.limit_samples = way & 4 ? 7 : 0;
            settings.prefetch_steps = way % 3;
            ck_resumes_everywhere(&settings, is_instruct ? rows : texts, tokenizer, 20);
        }
    }
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(prefetching_and_batch_size_change_no_sample) {
    const char *folder = make_texts("feed-sizes");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_text dumps[3] = {{0}};
    static const int64_t sizes[] = {1, 4, 12}, ahead[] = {0, 1, 5};
    for (size_t i = 0; i < 3; i++) {
        icae_feed_settings settings = text_settings;
        settings.is_endless = true;
        settings.shuffle_documents = 6;
        settings.prefetch_steps = ahead[i];
        icae_feed *feed = open_feed(&settings, folder, tokenizer);
        for (int64_t n = 0; n < 60; n += sizes[i]) {
            icae_feed_step *step = next(feed, sizes[i]);
            dump_step(&dumps[i], step, false);
            icae_feed_step_free(step);
        }
        icae_feed_close(feed);
        ck_assert_str_eq(dumps[i].data, dumps[0].data);
    }
    for (size_t i = 0; i < 3; i++)
        icae_text_release(&dumps[i]);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(epochs_show_other_windows_and_another_seed_too) {
    const char *folder = make_texts("feed-epochs");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_feed_settings settings = text_settings;
    settings.is_endless = true;
    icae_feed *feed = open_feed(&settings, folder, tokenizer);
    icae_text epochs[3] = {{0}};
    icae_feed_step *step = next(feed, 1);
    for (int epoch = 0; epoch < 3; epoch++) {
        int n = 0;
        for (; step->stats.epochs == epoch; n++) {
            dump_step(&epochs[epoch], step, false);
            icae_feed_step_free(step);
            step = next(feed, 1);
        }
        ck_assert_int_eq(step->stats.epochs, epoch + 1);
        ck_assert_int_eq(n, N_TEXTS - 3); /* 3, 10 and 17 are too short */
    }
    ck_assert_str_ne(epochs[0].data, epochs[1].data);
    ck_assert_str_ne(epochs[1].data, epochs[2].data);
    icae_feed_step_free(step);
    icae_feed_close(feed);

    settings.seed++;
    feed = open_feed(&settings, folder, tokenizer);
    icae_text_clear(&epochs[1]);
    for (int i = 0; i < N_TEXTS - 3; i++) {
        step = next(feed, 1);
        dump_step(&epochs[1], step, false);
        icae_feed_step_free(step);
    }
    ck_assert_str_ne(epochs[0].data, epochs[1].data);
    icae_feed_close(feed);
    for (size_t i = 0; i < 3; i++)
        icae_text_release(&epochs[i]);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_limit_returns_to_the_same_samples) {
    const char *folder = make_texts("feed-limit");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_feed_settings settings = text_settings;
    settings.is_endless = true;
    settings.shuffle_documents = 1000;
    settings.limit_samples = 6;
    icae_feed *feed = open_feed(&settings, folder, tokenizer);
    icae_text passes[3] = {{0}};
    uint64_t keys[18];
    for (int i = 0; i < 18; i++) {
        icae_feed_step *step = next(feed, 1);
        dump_step(&passes[i / 6], step, false);
        keys[i] = step->batch.contexts[0].key;
        for (int j = 0; j < i; j++)
            ck_assert(keys[i] != keys[j]);
        ck_assert_int_eq(step->stats.epochs, i / 6);
        ck_assert_int_eq(step->stats.samples, i + 1);
        icae_feed_step_free(step);
    }
    ck_assert_str_eq(passes[0].data, passes[1].data);
    ck_assert_str_eq(passes[0].data, passes[2].data);
    icae_feed_close(feed);

    settings.is_endless = false;
    feed = open_feed(&settings, folder, tokenizer);
    icae_text_clear(&passes[1]);
    for (int size = 4; size >= 2; size -= 2) {
        icae_feed_step *step = next(feed, 4);
        dump_step(&passes[1], step, false);
        ck_assert_int_eq(step->batch.n_contexts, size);
        icae_feed_step_free(step);
    }
    ck_assert_str_eq(passes[0].data, passes[1].data);
    ck_assert_ptr_null(next(feed, 4));
    icae_feed_close(feed);
    for (size_t i = 0; i < 3; i++)
        icae_text_release(&passes[i]);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- the thread ---- */

START_TEST(closing_never_waits_for_ever) {
    const char *folder = make_texts("feed-close");
    icae_tokenizer *tokenizer = open_tokenizer();
    for (int i = 0; i < 40; i++) {
        icae_feed_settings settings = text_settings;
        settings.is_endless = i % 2;
        settings.prefetch_steps = 1 + i % 3;
        icae_feed *feed = open_feed(&settings, folder, tokenizer);
        for (int j = 0; j < i % 4; j++)
            icae_feed_step_free(next(feed, 2));
        /* Now and then long enough for the ring to fill, or for the pass to end. */
        if (i % 8 == 5) usleep(5000);
        icae_feed_close(feed);
    }
    icae_tokenizer_free(tokenizer);
    icae_feed_close(NULL);
    icae_feed_step_free(NULL);
}
END_TEST

/* ---- broken data, refused settings ---- */

START_TEST(broken_lines_are_counted_or_with_strict_end_the_run) {
    const char *path = test_path(test_folder("feed-broken"), "a.jsonl");
    static const char lines[] = "{\"text\": \"the river was slow and men met there\"}\n"
                                "{\"text\": \"unfinished\n"
                                "{\"title\": \"no text\"}\n"
                                "{\"text\": \"both towns met again from the river\"}\n";
    icae_error error = {0};
    ck_ok(icae_file_write(path, lines, strlen(lines), &error));
    icae_tokenizer *tokenizer = open_tokenizer();
    for (int64_t prefetch = 0; prefetch < 3; prefetch++) {
        icae_feed_settings settings = text_settings;
        settings.prefetch_steps = prefetch;
        icae_feed *feed = open_feed(&settings, path, tokenizer);
        icae_feed_step *step = next(feed, 1);
        ck_assert_int_eq(step->stats.broken_lines, 0);
        icae_feed_step_free(step);
        step = next(feed, 1);
        ck_assert_int_eq(step->stats.broken_lines, 2);
        icae_feed_step_free(step);
        icae_feed_close(feed);

        settings.is_strict = true;
        feed = open_feed(&settings, path, tokenizer);
        icae_feed_step_free(next(feed, 1));
        for (int i = 0; i < 3; i++) {
            ck_refused(icae_feed_next(feed, 1, &step, &error), "a.jsonl:2");
            ck_assert_ptr_null(step);
            ck_assert_int_eq(error.status, ICAE_FORMAT);
        }
        icae_feed_close(feed);
    }
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* Lines broken in a pass that limit_samples has ended stay counted. */
START_TEST(broken_lines_add_up_over_limited_passes) {
    const char *path = test_path(test_folder("feed-broken-limit"), "a.jsonl");
    static const char lines[] = "{}\n{\"text\": \"the river was slow and men met there\"}\n"
                                "{\"text\": \"both towns met again from the river\"}\n";
    icae_error error = {0};
    ck_ok(icae_file_write(path, lines, strlen(lines), &error));
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_feed_settings settings = text_settings;
    settings.is_endless = true;
    settings.limit_samples = 1;
    icae_feed *feed = open_feed(&settings, path, tokenizer);
    for (int i = 1; i < 5; i++) {
        icae_feed_step *step = next(feed, 1);
        ck_assert_int_eq(step->stats.broken_lines, i);
        icae_feed_step_free(step);
    }
    icae_feed_close(feed);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* From 6 tokens to 24 within 40 samples, and the same after going on in the middle. */
START_TEST(the_longest_context_grows_evenly) {
    enum { GROWING = 40, ALL = 60 };
    const char *folder = make_texts("feed-growth");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_error error = {0};
    icae_feed_settings settings = text_settings;
    settings.lm_ratio = 0;
    settings.is_endless = true;
    settings.first_context = 6;
    settings.grow_samples = GROWING;
    icae_feed *feed = open_feed(&settings, folder, tokenizer), *later = NULL;
    int at_limit[2] = {0};
    for (int i = 0; i < ALL; i++) {
        icae_feed_step *step = next(feed, 1), *again = later ? next(later, 1) : NULL;
        int64_t limit = i < GROWING ? 6 + 18 * i / GROWING : 24, n = step->batch.contexts[0].n;
        ck_assert_msg(n <= limit, "sample %d has %lld tokens", i, (long long)n);
        at_limit[i >= GROWING] += n == limit;
        if (again) {
            ck_assert_int_eq(again->batch.contexts[0].n, n);
            ck_ids(again->batch.contexts[0].ids, step->batch.contexts[0].ids, n);
        }
        if (i == GROWING / 2) {
            icae_json *json;
            later = open_feed(&settings, folder, tokenizer);
            ck_ok(icae_json_parse(&json, "state.json", step->state_json,
                                  strlen(step->state_json), &error));
            ck_ok(icae_feed_restore(later, json, icae_json_root(json), &error));
            icae_json_free(json);
        }
        icae_feed_step_free(step);
        icae_feed_step_free(again);
    }
    ck_assert_msg(at_limit[0] > GROWING / 2 && at_limit[1] > 5, "%d and %d windows are full",
                  at_limit[0], at_limit[1]);
    icae_feed_close(feed);
    icae_feed_close(later);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(texts_that_are_all_too_short_are_an_error_not_a_loop) {
    const char *folder = make_texts("feed-short");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_error error = {0};
    for (int i = 0; i < 4; i++) {
        icae_feed_settings settings = text_settings;
        settings.context_tokens = settings.least_context = 5000;
        settings.is_endless = i & 1;
        settings.prefetch_steps = i & 2;
        icae_feed *feed = open_feed(&settings, folder, tokenizer);
        icae_feed_step *step;
        ck_refused(icae_feed_next(feed, 2, &step, &error), "none of 23 texts");
        icae_feed_close(feed);
    }
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(settings_out_of_range_are_refused_by_name) {
    const char *folder = make_texts("feed-range");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_error error = {0};
    icae_feed *feed;
    icae_feed_settings settings;
#define REFUSED(field, bad)                                                                    \
    settings = text_settings;                                                                  \
    settings.paths = &folder;                                                                  \
    settings.field = bad;                                                                      \
    ck_refused(icae_feed_open(&feed, &settings, tokenizer, NULL, &error), #field);             \
    ck_assert_ptr_null(feed)
    REFUSED(context_tokens, 0);
    REFUSED(least_context, 0);
    REFUSED(least_context, 25);
    REFUSED(first_context, 3);
    REFUSED(first_context, 25);
    REFUSED(grow_samples, 5); /* from nothing */
    REFUSED(lm_ratio, 1.5);
    REFUSED(lm_ratio, -0.1);
    REFUSED(continuation_tokens, 3);
    REFUSED(least_continuation, 2);
    REFUSED(skip_for_lm, -1);
    REFUSED(shuffle_documents, -1);
    REFUSED(prefetch_steps, -1);
    REFUSED(prefetch_steps, 99999);
    REFUSED(limit_samples, -1);
    REFUSED(objective, (icae_objective)7);
#undef REFUSED
    settings = text_settings;
    settings.n_paths = 0;
    ck_refused(icae_feed_open(&feed, &settings, tokenizer, NULL, &error), "paths");
    settings = row_settings;
    settings.paths = &folder;
    settings.answer_tokens = 0;
    ck_refused(icae_feed_open(&feed, &settings, tokenizer, &chat, &error), "answer_tokens");
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_tokenizer_without_eos_is_refused) {
    const char *folder = test_folder("feed-eos");
    icae_error error = {0};
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(test_path(model_folder, "tokenizer.json"), 1 << 24, &data, &bytes,
                         &error));
    ck_ok(icae_file_write(test_path(folder, "tokenizer.json"), data, bytes, &error));
    free(data);
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    icae_feed_settings settings = text_settings;
    settings.paths = &folder;
    icae_feed *feed;
    ck_refused(icae_feed_open(&feed, &settings, tokenizer, NULL, &error), "eos");
    icae_tokenizer_free(tokenizer);
}
END_TEST

static void ck_state_refused(const icae_feed_settings *settings, const char *path,
                             const icae_tokenizer *tokenizer, const char *state,
                             const char *part) {
    icae_error error = {0};
    icae_feed *feed = open_feed(settings, path, tokenizer);
    icae_json *json;
    ck_ok(icae_json_parse(&json, "state.json", state, strlen(state), &error));
    ck_refused(icae_feed_restore(feed, json, icae_json_root(json), &error), part);
    icae_json_free(json);
    icae_feed_close(feed);
}

START_TEST(a_state_of_other_settings_is_refused_by_name) {
    const char *folder = make_texts("feed-states");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_feed *feed = open_feed(&text_settings, folder, tokenizer);
    icae_feed_step *step = next(feed, 3);
    icae_feed_close(feed);
    const char *state = step->state_json;
    icae_feed_settings settings;
#define REFUSED(field, value, part)                                                            \
    settings = text_settings;                                                                  \
    settings.field = value;                                                                    \
    ck_state_refused(&settings, folder, tokenizer, state, part)
    REFUSED(objective, ICAE_OBJECTIVE_BOTH, "objective");
    REFUSED(lm_ratio, 0.25, "lm_ratio");
    REFUSED(context_tokens, 25, "context_tokens: was 24, the settings say 25");
    REFUSED(least_context, 5, "least_context");
    REFUSED(continuation_tokens, 17, "continuation_tokens");
    REFUSED(least_continuation, 7, "least_continuation");
    REFUSED(skip_for_lm, 2, "skip_for_lm");
    REFUSED(is_endless, true, "is_endless");
    REFUSED(limit_samples, 9, "limit_samples");
    REFUSED(seed, 6, "seed");
    REFUSED(shuffle_documents, 2, "shuffle_documents");
#undef REFUSED
    ck_state_refused(&text_settings, folder, tokenizer, "{}", "icae-feed");
    ck_state_refused(&text_settings, folder, tokenizer, "[]", "object");
    ck_state_refused(&text_settings, folder, tokenizer,
                     "{\"format\": \"icae-feed\", \"version\": 1, \"drawn\": -1}", "drawn");
    ck_state_refused(&text_settings, folder, tokenizer,
                     "{\"format\": \"icae-feed\", \"version\": 1, \"samples\": 1}", "missing");
    const char *one = test_path(folder, "a.jsonl");
    ck_state_refused(&text_settings, one, tokenizer, state, "b.jsonl.gz");
    icae_feed_step_free(step);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_state_of_another_chat_template_is_refused) {
    const char *folder = make_rows("feed-chat");
    icae_tokenizer *tokenizer = open_tokenizer();
    icae_feed *feed = open_feed(&row_settings, folder, tokenizer);
    icae_feed_step *step = next(feed, 3);
    icae_feed_close(feed);
    icae_error error = {0};
    icae_json *json;
    ck_ok(icae_json_parse(&json, "state.json", step->state_json, strlen(step->state_json),
                          &error));
    icae_feed_settings settings = row_settings;
    settings.paths = &folder;
    icae_adapter_settings other = {.chat_prefix = "<|im_start|>user\n"};
    ck_ok(icae_feed_open(&feed, &settings, tokenizer, &other, &error));
    ck_refused(icae_feed_restore(feed, json, icae_json_root(json), &error), "chat_suffix");
    icae_feed_close(feed);
    icae_json_free(json);
    icae_feed_step_free(step);
    icae_tokenizer_free(tokenizer);
}
END_TEST

SUITE_OF(feed, 60, samples_are_slices_of_their_documents, rows_become_jobs_on_shared_contexts,
         contexts_of_rows_may_bear_their_restoring_too, goes_on_exactly_after_every_step,
         prefetching_and_batch_size_change_no_sample,
         epochs_show_other_windows_and_another_seed_too, a_limit_returns_to_the_same_samples,
         closing_never_waits_for_ever, broken_lines_are_counted_or_with_strict_end_the_run,
         broken_lines_add_up_over_limited_passes, the_longest_context_grows_evenly,
         texts_that_are_all_too_short_are_an_error_not_a_loop,
         settings_out_of_range_are_refused_by_name, a_tokenizer_without_eos_is_refused,
         a_state_of_other_settings_is_refused_by_name,
         a_state_of_another_chat_template_is_refused)
