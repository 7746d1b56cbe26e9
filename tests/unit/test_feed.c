/* SPDX-License-Identifier: MIT */
/* Samples: where texts are cut and what the jobs on them are; data and settings that are refused. */
#include <stdlib.h>
#include <string.h>

#include "feed_support.h"
#include "icae/file.h"
#include "learn/samples_internal.h"

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
    const char *folder = feed_texts("feed-slices");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_text text = {0};
    for (int objective = ICAE_OBJECTIVE_MIXED; objective <= ICAE_OBJECTIVE_BOTH; objective++) {
        icae_feed_settings settings = feed_text_settings;
        settings.objective = (icae_objective)objective;
        icae_feed *feed = feed_open_on(&settings, folder, tokenizer);
        int64_t passed_over = 0, samples = 0, context_tokens = 0;
        int n_lm = 0;
        for (int i = 0; i < N_TEXTS; i++) {
            feed_text(&text, i);
            token_list document;
            encode_text(tokenizer, text.data, false, &document);
            if (document.n < settings.least_context) {
                passed_over++;
            } else {
                icae_feed_step *step = feed_next(feed, 1);
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
        ck_assert_ptr_null(feed_next(feed, 1));
        ck_assert_ptr_null(feed_next(feed, 1));
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
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_feed *feed = feed_open_on(&feed_row_settings, path, tokenizer);
    icae_feed_step *step = feed_next(feed, 5);
    icae_feed_close(feed); /* the step needs nothing of it */

    token_list prefix, suffix, input, prompt, answer, none = {0};
    int32_t eos_id = icae_tokenizer_eos(tokenizer);
    token_list eos = {&eos_id, 1};
    encode_text(tokenizer, feed_chat.chat_prefix, true, &prefix);
    encode_text(tokenizer, feed_chat.chat_suffix, true, &suffix);
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

START_TEST(contexts_of_rows_may_bear_their_restoring_too) {
    const char *path = write_rows("feed-rows-ae");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_feed *plain = feed_open_on(&feed_row_settings, path, tokenizer);
    icae_feed_settings settings = feed_row_settings;
    settings.has_ae = true;
    icae_feed *feed = feed_open_on(&settings, path, tokenizer);
    icae_feed_step *without = feed_next(plain, 5), *with = feed_next(feed, 5);
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

/* ---- broken data, refused settings ---- */

START_TEST(broken_lines_are_counted_or_with_strict_end_the_run) {
    const char *path = test_path(test_folder("feed-broken"), "a.jsonl");
    static const char lines[] = "{\"text\": \"the river was slow and men met there\"}\n"
                                "{\"text\": \"unfinished\n"
                                "{\"title\": \"no text\"}\n"
                                "{\"text\": \"both towns met again from the river\"}\n";
    icae_error error = {0};
    ck_ok(icae_file_write(path, lines, strlen(lines), &error));
    icae_tokenizer *tokenizer = feed_tokenizer();
    for (int64_t prefetch = 0; prefetch < 3; prefetch++) {
        icae_feed_settings settings = feed_text_settings;
        settings.prefetch_steps = prefetch;
        icae_feed *feed = feed_open_on(&settings, path, tokenizer);
        icae_feed_step *step = feed_next(feed, 1);
        ck_assert_int_eq(step->stats.broken_lines, 0);
        icae_feed_step_free(step);
        step = feed_next(feed, 1);
        ck_assert_int_eq(step->stats.broken_lines, 2);
        icae_feed_step_free(step);
        icae_feed_close(feed);

        settings.is_strict = true;
        feed = feed_open_on(&settings, path, tokenizer);
        icae_feed_step_free(feed_next(feed, 1));
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

/* The corpus leaves them out by itself, but nothing is learnt from them either. */
START_TEST(blank_texts_and_rows_with_a_blank_part_count_as_passed_over) {
    static const char rows[] =
        "{\"input\": \"the slow river\", \"prompt\": \"what?\", \"answer\": \"yes\"}\n"
        "{\"input\": \"the slow river\", \"prompt\": \"\", \"answer\": \"yes\"}\n\n"
        "{\"input\": \"the slow river\", \"prompt\": \"what?\", \"answer\": \" \\n\"}\n";
    static const char texts[] = "{\"text\": \"\"}\n{\"text\": \"the slow river met both "
                                "towns\"}\n\n{\"text\": \" \"}\n";
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_error error = {0};
    const struct {
        const char *name, *lines;
        icae_feed_settings settings;
    } cases[] = {{"rows.jsonl", rows, feed_row_settings},
                 {"texts.jsonl", texts, feed_text_settings}};
    for (size_t i = 0; i < 2; i++) {
        const char *path = test_path(test_folder("feed-blank"), cases[i].name);
        ck_ok(icae_file_write(path, cases[i].lines, strlen(cases[i].lines), &error));
        icae_feed_settings s = cases[i].settings;
        s.is_endless = true;
        s.shuffle_documents = 8; /* so that an epoch is read to its end at once */
        icae_feed *feed = feed_open_on(&s, path, tokenizer);
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            icae_feed_step *step = feed_next(feed, 1);
            ck_assert_int_eq(step->stats.epochs, epoch);
            ck_assert_int_eq(step->stats.samples, epoch + 1);
            ck_assert_int_eq(step->stats.passed_over, 2 * (epoch + 1));
            icae_feed_step_free(step);
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
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_feed_settings settings = feed_text_settings;
    settings.is_endless = true;
    settings.limit_samples = 1;
    icae_feed *feed = feed_open_on(&settings, path, tokenizer);
    for (int i = 1; i < 5; i++) {
        icae_feed_step *step = feed_next(feed, 1);
        ck_assert_int_eq(step->stats.broken_lines, i);
        icae_feed_step_free(step);
    }
    icae_feed_close(feed);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(texts_that_are_all_too_short_are_an_error_not_a_loop) {
    const char *folder = feed_texts("feed-short");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_error error = {0};
    for (int i = 0; i < 4; i++) {
        icae_feed_settings settings = feed_text_settings;
        settings.context_tokens = settings.least_context = 5000;
        settings.is_endless = i & 1;
        settings.prefetch_steps = i & 2;
        icae_feed *feed = feed_open_on(&settings, folder, tokenizer);
        icae_feed_step *step;
        ck_refused(icae_feed_next(feed, 2, &step, &error), "none of 23 texts");
        icae_feed_close(feed);
    }
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(settings_out_of_range_are_refused_by_name) {
    const char *folder = feed_texts("feed-range");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_error error = {0};
    icae_feed *feed;
    icae_feed_settings settings;
#define REFUSED(field, bad)                                                                    \
    settings = feed_text_settings;                                                             \
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
    settings = feed_text_settings;
    settings.n_paths = 0;
    ck_refused(icae_feed_open(&feed, &settings, tokenizer, NULL, &error), "paths");
    settings = feed_row_settings;
    settings.paths = &folder;
    settings.answer_tokens = 0;
    ck_refused(icae_feed_open(&feed, &settings, tokenizer, &feed_chat, &error),
               "answer_tokens");
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_tokenizer_without_eos_is_refused) {
    const char *folder = test_folder("feed-eos");
    icae_error error = {0};
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(test_path(feed_model_folder, "tokenizer.json"), 1 << 24, &data, &bytes,
                         &error));
    ck_ok(icae_file_write(test_path(folder, "tokenizer.json"), data, bytes, &error));
    free(data);
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    icae_feed_settings settings = feed_text_settings;
    settings.paths = &folder;
    icae_feed *feed;
    ck_refused(icae_feed_open(&feed, &settings, tokenizer, NULL, &error), "eos");
    icae_tokenizer_free(tokenizer);
}
END_TEST

SUITE_OF(feed, 60, blank_texts_and_rows_with_a_blank_part_count_as_passed_over,
         samples_are_slices_of_their_documents, rows_become_jobs_on_shared_contexts,
         contexts_of_rows_may_bear_their_restoring_too,
         broken_lines_are_counted_or_with_strict_end_the_run,
         broken_lines_add_up_over_limited_passes,
         texts_that_are_all_too_short_are_an_error_not_a_loop,
         settings_out_of_range_are_refused_by_name, a_tokenizer_without_eos_is_refused)
