/* SPDX-License-Identifier: MIT */
/* Samples: in which order, and going on after a stop with the same ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "feed_support.h"

enum { MOST_STEPS = 64 };

/* n_steps steps of a fresh feed, dumped each by itself; stops after "end". */
static int run_feed(icae_feed *feed, int64_t n_samples, int n_steps, icae_text *dumps,
                    char **states) {
    for (int i = 0; i < n_steps; i++) {
        icae_feed_step *step = feed_next(feed, n_samples);
        feed_dump(&dumps[i], step, true);
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
    icae_feed *feed = feed_open_on(settings, path, tokenizer);
    int n = run_feed(feed, 3, n_steps, whole, states);
    icae_feed_close(feed);
    ck_assert_int_ge(n, 3);
    for (int i = 0; i < n && states[i]; i++) {
        for (int prefetch = 0; prefetch <= 4; prefetch += 4) {
            icae_feed_settings other = *settings;
            other.prefetch_steps = prefetch;
            feed = feed_open_on(&other, path, tokenizer);
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

START_TEST(goes_on_exactly_after_every_step) {
    char texts[512], rows[512];
    snprintf(texts, sizeof texts, "%s", feed_texts("feed-resume"));
    snprintf(rows, sizeof rows, "%s", feed_rows("feed-resume-rows"));
    icae_tokenizer *tokenizer = feed_tokenizer();
    for (int objective = 0; objective < ICAE_OBJECTIVE_COUNT; objective++) {
        bool is_instruct = objective == ICAE_OBJECTIVE_INSTRUCT;
        for (int way = 0; way < 8; way++) {
            icae_feed_settings settings = is_instruct ? feed_row_settings : feed_text_settings;
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
    const char *folder = feed_texts("feed-sizes");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_text dumps[3] = {{0}};
    static const int64_t sizes[] = {1, 4, 12}, ahead[] = {0, 1, 5};
    for (size_t i = 0; i < 3; i++) {
        icae_feed_settings settings = feed_text_settings;
        settings.is_endless = true;
        settings.shuffle_documents = 6;
        settings.prefetch_steps = ahead[i];
        icae_feed *feed = feed_open_on(&settings, folder, tokenizer);
        for (int64_t n = 0; n < 60; n += sizes[i]) {
            icae_feed_step *step = feed_next(feed, sizes[i]);
            feed_dump(&dumps[i], step, false);
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
    const char *folder = feed_texts("feed-epochs");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_feed_settings settings = feed_text_settings;
    settings.is_endless = true;
    icae_feed *feed = feed_open_on(&settings, folder, tokenizer);
    icae_text epochs[3] = {{0}};
    icae_feed_step *step = feed_next(feed, 1);
    for (int epoch = 0; epoch < 3; epoch++) {
        int n = 0;
        for (; step->stats.epochs == epoch; n++) {
            feed_dump(&epochs[epoch], step, false);
            icae_feed_step_free(step);
            step = feed_next(feed, 1);
        }
        ck_assert_int_eq(step->stats.epochs, epoch + 1);
        ck_assert_int_eq(n, N_TEXTS - 3); /* 3, 10 and 17 are too short */
    }
    ck_assert_str_ne(epochs[0].data, epochs[1].data);
    ck_assert_str_ne(epochs[1].data, epochs[2].data);
    icae_feed_step_free(step);
    icae_feed_close(feed);

    settings.seed++;
    feed = feed_open_on(&settings, folder, tokenizer);
    icae_text_clear(&epochs[1]);
    for (int i = 0; i < N_TEXTS - 3; i++) {
        step = feed_next(feed, 1);
        feed_dump(&epochs[1], step, false);
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
    const char *folder = feed_texts("feed-limit");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_feed_settings settings = feed_text_settings;
    settings.is_endless = true;
    settings.shuffle_documents = 1000;
    settings.limit_samples = 6;
    icae_feed *feed = feed_open_on(&settings, folder, tokenizer);
    icae_text passes[3] = {{0}};
    uint64_t keys[18];
    for (int i = 0; i < 18; i++) {
        icae_feed_step *step = feed_next(feed, 1);
        feed_dump(&passes[i / 6], step, false);
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
    feed = feed_open_on(&settings, folder, tokenizer);
    icae_text_clear(&passes[1]);
    for (int size = 4; size >= 2; size -= 2) {
        icae_feed_step *step = feed_next(feed, 4);
        feed_dump(&passes[1], step, false);
        ck_assert_int_eq(step->batch.n_contexts, size);
        icae_feed_step_free(step);
    }
    ck_assert_str_eq(passes[0].data, passes[1].data);
    ck_assert_ptr_null(feed_next(feed, 4));
    icae_feed_close(feed);
    for (size_t i = 0; i < 3; i++)
        icae_text_release(&passes[i]);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* From 6 tokens to 24 within 40 samples, and the same after going on in the middle. */
START_TEST(the_longest_context_grows_evenly) {
    enum { GROWING = 40, ALL = 60 };
    const char *folder = feed_texts("feed-growth");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_error error = {0};
    icae_feed_settings settings = feed_text_settings;
    settings.lm_ratio = 0;
    settings.is_endless = true;
    settings.first_context = 6;
    settings.grow_samples = GROWING;
    icae_feed *feed = feed_open_on(&settings, folder, tokenizer), *later = NULL;
    int at_limit[2] = {0};
    for (int i = 0; i < ALL; i++) {
        icae_feed_step *step = feed_next(feed, 1), *again = later ? feed_next(later, 1) : NULL;
        int64_t limit = i < GROWING ? 6 + 18 * i / GROWING : 24, n = step->batch.contexts[0].n;
        ck_assert_msg(n <= limit, "sample %d has %lld tokens", i, (long long)n);
        at_limit[i >= GROWING] += n == limit;
        if (again) {
            ck_assert_int_eq(again->batch.contexts[0].n, n);
            ck_assert_mem_eq(again->batch.contexts[0].ids, step->batch.contexts[0].ids,
                             (size_t)n * sizeof(int32_t));
        }
        if (i == GROWING / 2) {
            icae_json *json;
            later = feed_open_on(&settings, folder, tokenizer);
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

START_TEST(closing_never_waits_for_ever) {
    const char *folder = feed_texts("feed-close");
    icae_tokenizer *tokenizer = feed_tokenizer();
    for (int i = 0; i < 40; i++) {
        icae_feed_settings settings = feed_text_settings;
        settings.is_endless = i % 2;
        settings.prefetch_steps = 1 + i % 3;
        icae_feed *feed = feed_open_on(&settings, folder, tokenizer);
        for (int j = 0; j < i % 4; j++)
            icae_feed_step_free(feed_next(feed, 2));
        /* Now and then long enough for the ring to fill, or for the pass to end. */
        if (i % 8 == 5) usleep(5000);
        icae_feed_close(feed);
    }
    icae_tokenizer_free(tokenizer);
    icae_feed_close(NULL);
    icae_feed_step_free(NULL);
}
END_TEST

/* ---- states that do not fit ---- */

static void ck_state_refused(const icae_feed_settings *settings, const char *path,
                             const icae_tokenizer *tokenizer, const char *state,
                             const char *part) {
    icae_error error = {0};
    icae_feed *feed = feed_open_on(settings, path, tokenizer);
    icae_json *json;
    ck_ok(icae_json_parse(&json, "state.json", state, strlen(state), &error));
    ck_refused(icae_feed_restore(feed, json, icae_json_root(json), &error), part);
    icae_json_free(json);
    icae_feed_close(feed);
}

START_TEST(a_state_of_other_settings_is_refused_by_name) {
    const char *folder = feed_texts("feed-states");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_feed *feed = feed_open_on(&feed_text_settings, folder, tokenizer);
    icae_feed_step *step = feed_next(feed, 3);
    icae_feed_close(feed);
    const char *state = step->state_json;
    icae_feed_settings settings;
#define REFUSED(field, value, part)                                                            \
    settings = feed_text_settings;                                                             \
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
    ck_state_refused(&feed_text_settings, folder, tokenizer, "{}", "icae-feed");
    ck_state_refused(&feed_text_settings, folder, tokenizer, "[]", "object");
    ck_state_refused(&feed_text_settings, folder, tokenizer,
                     "{\"format\": \"icae-feed\", \"version\": 1, \"drawn\": -1}", "drawn");
    ck_state_refused(&feed_text_settings, folder, tokenizer,
                     "{\"format\": \"icae-feed\", \"version\": 1, \"samples\": 1}", "missing");
    const char *one = test_path(folder, "a.jsonl");
    ck_state_refused(&feed_text_settings, one, tokenizer, state, "b.jsonl.gz");
    icae_feed_step_free(step);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_state_of_another_chat_template_is_refused) {
    const char *folder = feed_rows("feed-chat");
    icae_tokenizer *tokenizer = feed_tokenizer();
    icae_feed *feed = feed_open_on(&feed_row_settings, folder, tokenizer);
    icae_feed_step *step = feed_next(feed, 3);
    icae_feed_close(feed);
    icae_error error = {0};
    icae_json *json;
    ck_ok(icae_json_parse(&json, "state.json", step->state_json, strlen(step->state_json),
                          &error));
    icae_feed_settings settings = feed_row_settings;
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

SUITE_OF(feed_order, 60, goes_on_exactly_after_every_step,
         prefetching_and_batch_size_change_no_sample,
         epochs_show_other_windows_and_another_seed_too, a_limit_returns_to_the_same_samples,
         the_longest_context_grows_evenly, closing_never_waits_for_ever,
         a_state_of_other_settings_is_refused_by_name,
         a_state_of_another_chat_template_is_refused)
