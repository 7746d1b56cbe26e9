/* SPDX-License-Identifier: MIT */
#include "feed_support.h"

#include <zlib.h>

#include "icae/file.h"
#include "icae/rng.h"

const char feed_model_folder[] = "tests/golden/llama/model";

icae_tokenizer *feed_tokenizer(void) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, feed_model_folder, &error));
    return tokenizer;
}

/* Text `number` has 4 to 90 words; every seventh is one short word, so too short for any setting. */
void feed_text(icae_text *out, int number) {
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
const char *feed_texts(const char *name) {
    const char *folder = test_folder(name);
    icae_text lines = {0}, text = {0};
    icae_error error = {0};
    for (int i = 0; i < N_TEXTS; i++) {
        feed_text(&text, i);
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

/* Rows: inputs come in runs of 1 to 4; some parts are over the limits of feed_row_settings. */
const char *feed_rows(const char *name) {
    const char *folder = test_folder(name);
    icae_text lines = {0}, text = {0};
    icae_error error = {0};
    for (int row = 0, input = 0; row < 20; row++) {
        input += row % 3 == 0 || row % 7 == 0;
        feed_text(&text, input);
        icae_text_printf(&lines,
                         "{\"input\": \"%s\", \"prompt\": \"what %d?\", \"answer\": \"%s\"}\n",
                         text.data, row, row % 5 ? "yes" : "the men from both towns met there");
    }
    ck_ok(icae_file_write(test_path(folder, "rows.jsonl"), lines.data, lines.length, &error));
    icae_text_release(&lines);
    icae_text_release(&text);
    return folder;
}

const icae_feed_settings feed_text_settings = {
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

const icae_feed_settings feed_row_settings = {
    .n_paths = 1,
    .objective = ICAE_OBJECTIVE_INSTRUCT,
    .context_tokens = 40,
    .least_context = 2,
    .prompt_tokens = 4,
    .answer_tokens = 6,
    .seed = 5,
};

const icae_adapter_settings feed_chat = {.chat_prefix = "<|im_start|>user\n",
                                         .chat_suffix = "<|im_end|>\n"};

icae_feed *feed_open_on(const icae_feed_settings *settings, const char *path,
                        const icae_tokenizer *tokenizer) {
    icae_error error = {0};
    icae_feed_settings s = *settings;
    s.paths = &path; /* the feed keeps strings, not this list */
    icae_feed *feed;
    ck_ok(icae_feed_open(&feed, &s, tokenizer, &feed_chat, &error));
    return feed;
}

icae_feed_step *feed_next(icae_feed *feed, int64_t n_samples) {
    icae_error error = {0};
    icae_feed_step *step;
    ck_ok(icae_feed_next(feed, n_samples, &step, &error));
    return step;
}

static void dump_ids(icae_text *out, const char *name, const int32_t *ids, int64_t n) {
    icae_text_printf(out, "\n  %s", name);
    for (int64_t i = 0; i < n; i++)
        icae_text_printf(out, " %d", ids[i]);
}

/* All that a step says; keys and state only where wanted. */
void feed_dump(icae_text *out, const icae_feed_step *step, bool with_state) {
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
