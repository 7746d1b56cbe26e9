/* SPDX-License-Identifier: MIT */
/*
 * The rules of icae/feed.h: where a text is cut, and what the jobs on it are.
 *
 *     AE   context = target:  [ c_1 ... c_n | eos ]     one array serves both
 *     LM   [ c_1 ... c_n ]  ->  [ o_1 ... o_m ]         what follows in the text
 *     FT   [ input ]  ->  prefix, (slots, FT), [ prompt | suffix ], [ answer | end ]
 *
 * A text bears one sample however long it is, as in the released code: an epoch shows a book of 200 KB
 * and a letter of 2 KB once each, the book through another window every time. To give long texts
 * more weight, cut them into several documents.
 */
#include <assert.h>
#include <string.h>

#include "icae/memory.h"
#include "samples_internal.h"

static int64_t draw(icae_rng *rng, int64_t least, int64_t most) {
    return least + (int64_t)icae_rng_below(rng, (uint64_t)(most - least) + 1);
}

/* The whole text, or a uniformly random window of it. */
static text_cut cut_window(const icae_feed_settings *settings, int64_t n_tokens,
                           icae_rng *rng) {
    int64_t limit = settings->context_tokens;
    text_cut cut = {.n_context = n_tokens, .has_ae = true};
    if (n_tokens > limit) {
        cut.start = draw(rng, 0, n_tokens - limit);
        cut.n_context = limit;
    }
    return cut;
}

/* AE's window as it is without LM, to the last draw; and what LM can have of it: what follows a window, or
 * the rest of a short text behind a beginning of its own. */
static text_cut cut_for_evaluation(const icae_feed_settings *settings, int64_t n_tokens,
                                   icae_rng *rng) {
    (void)icae_rng_uniform(rng);
    text_cut cut = cut_window(settings, n_tokens, rng);
    if (settings->objective != ICAE_OBJECTIVE_BOTH) return cut;
    int64_t n_read = cut.n_context;
    if (n_tokens <= settings->context_tokens) {
        n_read = draw(rng, settings->least_context, n_tokens);
    }
    int64_t following = n_tokens - cut.start - n_read;
    if (following <= settings->least_continuation) return cut;
    if (n_read < cut.n_context) cut.n_read = n_read;
    cut.n_continuation =
        following < settings->continuation_tokens ? following : settings->continuation_tokens;
    return cut;
}

text_cut icae_sample_cut_text(const icae_feed_settings *settings, int64_t n_tokens,
                              icae_rng *rng) {
    assert(settings->least_context >= 1 && n_tokens >= settings->least_context);
    if (settings->is_evaluation) return cut_for_evaluation(settings, n_tokens, rng);
    bool is_both = settings->objective == ICAE_OBJECTIVE_BOTH;
    if (!is_both && icae_rng_uniform(rng) >= settings->lm_ratio) {
        return cut_window(settings, n_tokens, rng);
    }
    /* What an LM job would read: a window, or a short text's beginning. */
    bool is_long = n_tokens > settings->context_tokens;
    text_cut cut = cut_window(settings, n_tokens, rng);
    if (!is_long) cut.n_context = draw(rng, settings->least_context, n_tokens);
    int64_t following = n_tokens - cut.start - cut.n_context;
    if (following > settings->least_continuation) {
        cut.n_continuation = following < settings->continuation_tokens
                                 ? following
                                 : settings->continuation_tokens;
        cut.has_ae = is_both;
        return cut;
    }
    /* AE after all. Only where every window bears AE may this one be kept: elsewhere windows near
     * the end of a text would come up more often than others. */
    return is_both && is_long ? cut : cut_window(settings, n_tokens, rng);
}

/* ---- batches ---- */

/* a, then b, in one array of the arena. */
static icae_status join(icae_arena *arena, const int32_t *a, int64_t n_a, const int32_t *b,
                        int64_t n_b, int32_t **out, icae_error *error) {
    int32_t *ids = icae_arena_array(arena, (size_t)(n_a + n_b), sizeof *ids);
    if (!ids) return icae_fail_memory(error, "the tokens of a sample");
    if (n_a) memcpy(ids, a, (size_t)n_a * sizeof *ids);
    if (n_b) memcpy(ids + n_a, b, (size_t)n_b * sizeof *ids);
    *out = ids;
    return ICAE_OK;
}

icae_status icae_sample_batch_begin(sample_batch *batch, icae_arena *arena, int64_t n_samples,
                                    const icae_chat_ids *chat, icae_error *error) {
    *batch = (sample_batch){.arena = arena, .capacity = n_samples, .chat = chat};
    size_t n = (size_t)n_samples;
    batch->contexts =
        icae_arena_array(arena, n, 2 * sizeof *batch->contexts); /* AE's and LM's */
    batch->jobs =
        icae_arena_array(arena, n, 2 * sizeof *batch->jobs); /* AE and LM, or AE and FT */
    if (!batch->contexts || !batch->jobs) return icae_fail_memory(error, "a batch of samples");
    if (!chat) return ICAE_OK;
    batch->prefix.n = chat->n_prefix;
    return join(arena, chat->prefix, chat->n_prefix, NULL, 0, &batch->prefix.ids, error);
}

static int64_t add_context(sample_batch *batch, const int32_t *ids, int64_t n, uint64_t key) {
    assert(batch->n_contexts < 2 * batch->capacity);
    batch->contexts[batch->n_contexts] = (icae_context){.ids = ids, .n = n, .key = key};
    return batch->n_contexts++;
}

static void add_job(sample_batch *batch, icae_job job) {
    assert(batch->n_jobs < 2 * batch->capacity);
    batch->jobs[batch->n_jobs++] = job;
}

icae_status icae_sample_add_text(sample_batch *batch, const icae_feed_settings *settings,
                                 const token_list *text, const text_cut *cut, int32_t eos,
                                 uint64_t key, icae_error *error) {
    const int32_t *from = text->ids + cut->start;
    int64_t end = cut->start + (cut->n_read ? cut->n_read : cut->n_context);
    assert(cut->start >= 0 && end + cut->n_continuation <= text->n);
    int32_t *ids = NULL, *following = NULL;
    icae_status status = join(batch->arena, from, cut->n_context, &eos, 1, &ids, error);
    if (!status && cut->n_continuation) {
        status = join(batch->arena, text->ids + end, cut->n_continuation, NULL, 0, &following,
                      error);
    }
    if (status) return status;
    int64_t context = add_context(batch, ids, cut->n_context, key);
    if (cut->has_ae) {
        add_job(batch, (icae_job){.context = context,
                                  .task = ICAE_TASK_AE,
                                  .target = ids,
                                  .n_target = cut->n_context + 1});
    }
    if (following) {
        if (cut->n_read) context = add_context(batch, ids, cut->n_read, key);
        add_job(batch, (icae_job){.context = context,
                                  .task = ICAE_TASK_LM,
                                  .target = following,
                                  .n_target = cut->n_continuation,
                                  .skip = settings->skip_for_lm});
    }
    return ICAE_OK;
}

static int64_t find_context(const sample_batch *batch, const token_list *input) {
    for (int64_t i = 0; i < batch->n_contexts; i++) {
        const icae_context *context = &batch->contexts[i];
        if (context->n == input->n &&
            !memcmp(context->ids, input->ids, (size_t)input->n * sizeof *input->ids)) {
            return i;
        }
    }
    return -1;
}

icae_status icae_sample_add_row(sample_batch *batch, const row_tokens *row, uint64_t key,
                                bool *is_new, icae_error *error) {
    const icae_chat_ids *chat = batch->chat;
    int64_t context = find_context(batch, &row->input), n_end = row->is_answer_whole;
    int64_t n_prompt = row->prompt.n + chat->n_suffix;
    int32_t *input = NULL, *target = NULL;
    int32_t *prompt = icae_arena_array(batch->arena, (size_t)n_prompt, sizeof *prompt);
    if (!prompt) return icae_fail_memory(error, "the tokens of a sample");
    icae_chat_prompt(chat, row->prompt.ids, row->prompt.n, prompt);
    *is_new = context < 0;
    icae_status status = ICAE_OK;
    if (*is_new) {
        status = join(batch->arena, row->input.ids, row->input.n, &row->eos, 1, &input, error);
    }
    if (!status) {
        status = join(batch->arena, row->answer.ids, row->answer.n, &chat->end, n_end, &target,
                      error);
    }
    if (status) return status;
    if (*is_new) context = add_context(batch, input, row->input.n, key);
    if (*is_new && row->has_ae) {
        add_job(batch, (icae_job){.context = context,
                                  .task = ICAE_TASK_AE,
                                  .target = input,
                                  .n_target = row->input.n + 1});
    }
    add_job(batch, (icae_job){.context = context,
                              .task = ICAE_TASK_FT,
                              .prefix = batch->prefix.ids,
                              .n_prefix = batch->prefix.n,
                              .prompt = prompt,
                              .n_prompt = n_prompt,
                              .target = target,
                              .n_target = row->answer.n + n_end});
    return ICAE_OK;
}
