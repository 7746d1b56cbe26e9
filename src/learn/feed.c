/* SPDX-License-Identifier: MIT */
/*
 * Steps of samples, made when asked for or ahead of time.
 *
 * A maker reads documents, tokenises them and fills batches (samples.c). With prefetching it belongs
 * to one thread, and finished steps wait in a ring:
 *
 *     thread:  make a step -> wait for a free place -> put it in -> again, until an end or an error
 *     caller:  wait for a step -> take it out
 *
 * Every step carries the maker's state as it was right after that step, so steps still in the ring
 * are simply forgotten when a run stops, and made again when it goes on. An end or an error is a last
 * entry that stays where it is: whoever asks again gets it again.
 *
 * limit_samples: when a pass reaches it, the corpus is opened anew, so the next pass reads the same
 * documents in the same order, and numbering the samples from 0 again gives the same windows.
 * Since every pass fills the shuffle buffer anew, a buffer larger than the limit is cut to it.
 */
#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "feed_internal.h"
#include "icae/log.h"
#include "icae/memory.h"

/* Keeps the streams of samples and keys apart from others that use the same seed. */
enum { STREAM_SAMPLES = 0x66656564, STREAM_KEYS = 0x6B657973 };

enum { MOST_PREFETCH = 1024 };

const char *const icae_objective_names[] = {"mixed", "both", "instruct", NULL};

typedef struct feed_entry {
    icae_feed_step *step; /* NULL: the end, or an error */
    icae_status status;
    icae_error error;
} feed_entry;

struct icae_feed {
    feed_maker maker;
    int64_t n_samples; /* of every step; 0 before the first, then never written again */
    bool has_ended;    /* without a thread: last is an end or an error */
    feed_entry last;

    /* With a thread. What follows is guarded by mutex once has_thread is set. */
    bool has_thread;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* one side waits for a full ring to shrink, one for an empty one to
                               grow: never both, so a single condition serves */
    feed_entry *ring;       /* [prefetch_steps] */
    int64_t first, count;
    bool must_stop;
};

/* ---- one sample ---- */

static icae_status open_corpus(feed_maker *maker, icae_error *error) {
    icae_corpus_close(maker->corpus);
    maker->corpus = NULL;
    return icae_corpus_open(&maker->corpus, &maker->options, error);
}

static uint64_t sample_key(const feed_maker *maker) {
    return icae_mix64(icae_mix64(STREAM_KEYS, maker->settings.seed),
                      (uint64_t)maker->stats.samples);
}

/* Texts may come from strangers: special tokens in them are plain text. */
static icae_status encode(const feed_maker *maker, const char *text, size_t bytes,
                          token_list *out, icae_error *error) {
    size_t count;
    icae_status status =
        icae_tokenizer_encode(maker->tokenizer, text, bytes, false, &out->ids, &count, error);
    out->n = status ? 0 : (int64_t)count;
    return status;
}

/* A text that is to be compressed. */
static icae_status encode_context(const feed_maker *maker, const char *text, size_t bytes,
                                  token_list *out, icae_error *error) {
    size_t count;
    icae_status status = icae_adapter_encode(maker->adapter, maker->tokenizer, text, bytes,
                                             &out->ids, &count, error);
    out->n = status ? 0 : (int64_t)count;
    return status;
}

/* Cuts part 0, 1 or 2 of a row to its limit; the first that is cut is told. `most`: what the limit grows
 * to, up to which being cut is meant. */
static bool trim(feed_maker *maker, const icae_document *document, int part, token_list *list,
                 int64_t limit, int64_t most) {
    static const struct {
        const char *name, *key;
    } parts[3] = {
        {"input", "context_tokens"}, {"prompt", "prompt_tokens"}, {"answer", "answer_tokens"}};
    if (list->n <= limit) return false;
    if (list->n > most && !maker->is_told[part]) {
        icae_log_warning("%s:%" PRId64 ": the %s has %" PRId64 " tokens, of which the first "
                         "%" PRId64 " are taken: objective.%s allows more; further ones are "
                         "cut and counted without a word",
                         document->file, document->line, parts[part].name, list->n, most,
                         parts[part].key);
        maker->is_told[part] = true;
    }
    list->n = limit;
    maker->stats.cut++;
    return true;
}

/* The settings of the sample that comes next: its longest context may still be growing. */
static icae_feed_settings settings_now(const feed_maker *maker) {
    icae_feed_settings now = maker->settings;
    int64_t made = maker->stats.samples;
    if (now.first_context && made < now.grow_samples) {
        double way = (double)made / (double)now.grow_samples;
        now.context_tokens = now.first_context +
                             (int64_t)(way * (double)(now.context_tokens - now.first_context));
    }
    return now;
}

/* Adds the document's sample, or passes over it when it is too short. */
static icae_status add_document(feed_maker *maker, const icae_document *document,
                                sample_batch *batch, icae_error *error) {
    const icae_feed_settings now = settings_now(maker), *settings = &now;
    token_list text = {0};
    icae_status status = encode_context(maker, document->text, document->bytes, &text, error);
    if (status) return status;
    if (text.n < settings->least_context) {
        maker->stats.passed_over++;
    } else {
        icae_rng rng = {.seed = settings->seed,
                        .stream = icae_mix64(STREAM_SAMPLES, (uint64_t)maker->drawn)};
        text_cut cut = icae_sample_cut_text(settings, text.n, &rng);
        status = icae_sample_add_text(batch, settings, &text, &cut, maker->eos,
                                      sample_key(maker), error);
        maker->stats.context_tokens += cut.n_context;
        maker->stats.samples++;
    }
    free(text.ids);
    return status;
}

static icae_status add_row(feed_maker *maker, const icae_document *document,
                           sample_batch *batch, icae_error *error) {
    const icae_feed_settings now = settings_now(maker), *settings = &now;
    token_list parts[3] = {{0}}; /* input, prompt, answer */
    icae_status status =
        encode_context(maker, document->fields[0], document->field_bytes[0], &parts[0], error);
    for (size_t i = 1; !status && i < 3; i++) {
        status = encode(maker, document->fields[i], document->field_bytes[i], &parts[i], error);
    }
    if (!status && (parts[0].n < settings->least_context || !parts[2].n)) {
        maker->stats.passed_over++;
    } else if (!status) {
        const int64_t limits[] = {settings->context_tokens, settings->prompt_tokens,
                                  settings->answer_tokens};
        bool is_answer_cut = false, is_new;
        for (int i = 0; i < 3; i++) {
            int64_t most = i ? limits[i] : maker->settings.context_tokens;
            is_answer_cut = trim(maker, document, i, &parts[i], limits[i], most);
        }
        row_tokens row = {parts[0],
                          parts[1],
                          parts[2],
                          .is_answer_whole = !is_answer_cut,
                          .has_ae = settings->has_ae,
                          .eos = maker->eos};
        status = icae_sample_add_row(batch, &row, sample_key(maker), &is_new, error);
        if (is_new) maker->stats.context_tokens += row.input.n;
        maker->stats.samples++;
    }
    for (size_t i = 0; i < 3; i++)
        free(parts[i].ids);
    return status;
}

static icae_status fail_too_short(const feed_maker *maker, icae_error *error) {
    return icae_fail(error, ICAE_INVALID,
                     "%s%s: none of %" PRId64 " texts gives a sample: least_context asks for "
                     "%" PRId64 " tokens; lower it, or give longer texts",
                     maker->options.paths[0], maker->options.n_paths > 1 ? ", ..." : "",
                     maker->stats.passed_over - maker->past_passed,
                     maker->settings.least_context);
}

/* One more sample. *is_over: there is none. */
static icae_status add_sample(feed_maker *maker, sample_batch *batch, bool *is_over,
                              icae_error *error) {
    const icae_feed_settings *settings = &maker->settings;
    icae_status status = ICAE_OK;
    if (settings->limit_samples && maker->in_epoch >= settings->limit_samples) {
        *is_over = !settings->is_endless;
        if (*is_over) return ICAE_OK;
        maker->past_broken += (int64_t)icae_corpus_get_stats(maker->corpus).broken;
        maker->drawn = maker->in_epoch = 0;
        maker->stats.epochs++;
        status = open_corpus(maker, error);
    }
    int64_t before = maker->stats.samples;
    while (!status && maker->stats.samples == before) {
        const icae_corpus_stats last = icae_corpus_get_stats(maker->corpus);
        icae_document document;
        status = icae_corpus_next(maker->corpus, &document, error);
        if (status) break;
        const icae_corpus_stats now = icae_corpus_get_stats(maker->corpus);
        maker->stats.broken_lines = maker->past_broken + (int64_t)now.broken;
        /* What is blank, the corpus itself leaves out. */
        maker->stats.passed_over += (int64_t)(now.empty - last.empty);
        *is_over = !document.text;
        if (*is_over || document.epoch != last.epoch) {
            /* After an epoch without a sample all others would be like it, for ever. */
            if (!maker->in_epoch) return fail_too_short(maker, error);
            if (*is_over) break;
            maker->in_epoch = 0;
            maker->stats.epochs++;
        }
        status = settings->objective == ICAE_OBJECTIVE_INSTRUCT
                     ? add_row(maker, &document, batch, error)
                     : add_document(maker, &document, batch, error);
        if (!status && maker->stats.samples != before) {
            maker->drawn++;
            maker->in_epoch++;
        }
    }
    return status;
}

/* ---- one step ---- */

static icae_status fill_step(feed_maker *maker, int64_t n_samples, icae_feed_step *step,
                             icae_error *error) {
    bool is_instruct = maker->settings.objective == ICAE_OBJECTIVE_INSTRUCT, is_over = false;
    sample_batch batch;
    icae_status status = icae_sample_batch_begin(&batch, &step->arena, n_samples,
                                                 is_instruct ? &maker->chat : NULL, error);
    for (int64_t i = 0; !status && !is_over && i < n_samples; i++)
        status = add_sample(maker, &batch, &is_over, error);
    if (status) return status;
    step->batch = (icae_batch){batch.contexts, batch.n_contexts, batch.jobs, batch.n_jobs};
    step->stats = maker->stats;
    icae_text state = {0};
    status = icae_feed_save_state(maker, &state, error);
    if (!status) {
        step->state_json = icae_arena_copy(&step->arena, state.data, state.length);
        if (!step->state_json) status = icae_fail_memory(error, "the state of the samples");
    }
    icae_text_release(&state);
    return status;
}

static void make_entry(feed_maker *maker, int64_t n_samples, feed_entry *entry) {
    *entry = (feed_entry){.step = calloc(1, sizeof *entry->step)};
    if (!entry->step) {
        entry->status = icae_fail_memory(&entry->error, "a step of samples");
        return;
    }
    entry->status = fill_step(maker, n_samples, entry->step, &entry->error);
    if (entry->status || !entry->step->batch.n_jobs) {
        icae_feed_step_free(entry->step);
        entry->step = NULL;
    }
}

void icae_feed_step_free(icae_feed_step *step) {
    if (!step) return;
    icae_arena_release(&step->arena);
    free(step);
}

/* ---- the thread ---- */

/* Waits until there is a free place, or until the feed is being closed: then false. */
static bool wait_for_place(icae_feed *feed) {
    pthread_mutex_lock(&feed->mutex);
    while (!feed->must_stop && feed->count == feed->maker.settings.prefetch_steps)
        pthread_cond_wait(&feed->changed, &feed->mutex);
    bool may_go_on = !feed->must_stop;
    pthread_mutex_unlock(&feed->mutex);
    return may_go_on;
}

static void *produce(void *argument) {
    icae_feed *feed = argument;
    bool is_last = false;
    while (!is_last && wait_for_place(feed)) {
        feed_entry entry;
        make_entry(&feed->maker, feed->n_samples, &entry);
        is_last = !entry.step;
        pthread_mutex_lock(&feed->mutex);
        int64_t at = (feed->first + feed->count++) % feed->maker.settings.prefetch_steps;
        feed->ring[at] = entry;
        pthread_cond_signal(&feed->changed);
        pthread_mutex_unlock(&feed->mutex);
    }
    return NULL;
}

static icae_status start_thread(icae_feed *feed, icae_error *error) {
    /* Signals are for the program's main thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int problem = pthread_create(&feed->thread, NULL, produce, feed);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (problem) {
        return icae_fail(error, ICAE_MEMORY,
                         "no thread to prepare samples on (%s): set prefetch_steps to 0 to do "
                         "without",
                         strerror(problem));
    }
    feed->has_thread = true;
    return ICAE_OK;
}

/* The oldest entry; an end or an error is left in the ring. */
static feed_entry take_entry(icae_feed *feed) {
    pthread_mutex_lock(&feed->mutex);
    while (!feed->count)
        pthread_cond_wait(&feed->changed, &feed->mutex);
    feed_entry entry = feed->ring[feed->first];
    if (entry.step) {
        feed->first = (feed->first + 1) % feed->maker.settings.prefetch_steps;
        feed->count--;
        pthread_cond_signal(&feed->changed);
    }
    pthread_mutex_unlock(&feed->mutex);
    return entry;
}

icae_status icae_feed_next(icae_feed *feed, int64_t n_samples, icae_feed_step **step,
                           icae_error *error) {
    *step = NULL;
    assert(n_samples > 0 && (!feed->n_samples || feed->n_samples == n_samples));
    if (!feed->n_samples) feed->n_samples = n_samples;
    feed_entry entry = feed->last;
    if (feed->maker.settings.prefetch_steps) {
        icae_status status = feed->has_thread ? ICAE_OK : start_thread(feed, error);
        if (status) return status;
        entry = take_entry(feed);
    } else if (!feed->has_ended) {
        make_entry(&feed->maker, n_samples, &entry);
        feed->has_ended = !entry.step;
        if (feed->has_ended) feed->last = entry;
    }
    *step = entry.step;
    return entry.status ? icae_fail(error, entry.status, "%s", entry.error.message) : ICAE_OK;
}

/* ---- life ---- */

typedef struct setting_limit {
    const char *name;
    int64_t value, least, most;
} setting_limit;

static icae_status check_settings(const icae_feed_settings *s, icae_error *error) {
    if ((unsigned)s->objective >= ICAE_OBJECTIVE_COUNT || !s->n_paths) {
        return icae_fail(error, ICAE_INVALID, "%s: %s", s->n_paths ? "objective" : "paths",
                         s->n_paths ? "expected mixed, both or instruct"
                                    : "name at least one file or folder of texts");
    }
    const int64_t many = (int64_t)1 << 30;
    bool is_instruct = s->objective == ICAE_OBJECTIVE_INSTRUCT;
    bool has_lm =
        s->objective == ICAE_OBJECTIVE_BOTH || (!is_instruct && !(s->lm_ratio == 0.0));
    const setting_limit limits[] = {
        {"context_tokens", s->context_tokens, 1, many},
        {"least_context", s->least_context, 1, s->context_tokens},
        {"first_context", s->first_context ? s->first_context : s->least_context,
         s->least_context, s->context_tokens},
        {"grow_samples", s->grow_samples, s->first_context ? 1 : 0,
         s->first_context ? INT64_MAX : 0},
        {"shuffle_documents", s->shuffle_documents, 0, many},
        {"prefetch_steps", s->prefetch_steps, 0, MOST_PREFETCH},
        {"limit_samples", s->limit_samples, 0, INT64_MAX},
        {"prompt_tokens", is_instruct ? s->prompt_tokens : 1, 1, many},
        {"answer_tokens", is_instruct ? s->answer_tokens : 1, 1, many},
        {"skip_for_lm", has_lm ? s->skip_for_lm : 0, 0, many},
        /* Every LM job must have a target that bears loss. */
        {"least_continuation", has_lm ? s->least_continuation : many,
         has_lm ? s->skip_for_lm : 0, many},
        {"continuation_tokens", has_lm ? s->continuation_tokens : many,
         has_lm ? s->skip_for_lm + 1 : 1, many},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const setting_limit *limit = &limits[i];
        if (limit->value < limit->least || limit->value > limit->most) {
            return icae_fail(error, ICAE_INVALID,
                             "%s: expected %" PRId64 " to %" PRId64 ", got %" PRId64,
                             limit->name, limit->least, limit->most, limit->value);
        }
    }
    if (!is_instruct && !(s->lm_ratio >= 0.0 && s->lm_ratio <= 1.0)) {
        return icae_fail(error, ICAE_INVALID, "lm_ratio: expected 0 to 1, got %g", s->lm_ratio);
    }
    return ICAE_OK;
}

static icae_status begin_maker(feed_maker *maker, const icae_feed_settings *settings,
                               const icae_tokenizer *tokenizer,
                               const icae_adapter_settings *adapter, icae_error *error) {
    maker->settings = *settings;
    maker->tokenizer = tokenizer;
    maker->adapter = adapter;
    maker->eos = icae_adapter_stop(adapter, tokenizer);
    if (maker->eos < 0) {
        return icae_fail(
            error, ICAE_UNSUPPORTED,
            "the base's tokenizer names no end-of-text token (eos), which must end "
            "every restored text and answer: name one in tokenizer_config.json");
    }
    bool is_instruct = settings->objective == ICAE_OBJECTIVE_INSTRUCT;
    if (is_instruct) {
        icae_status status = icae_chat_encode(&maker->chat, adapter, tokenizer, error);
        if (status) return status;
    }
    maker->paths = calloc(settings->n_paths, sizeof *maker->paths);
    if (!maker->paths) return icae_fail_memory(error, "a list of paths");
    memcpy(maker->paths, settings->paths, settings->n_paths * sizeof *maker->paths);
    int64_t shuffle = settings->shuffle_documents, limit = settings->limit_samples;
    if (limit && shuffle > limit) shuffle = limit;
    maker->options = (icae_corpus_options){
        .paths = maker->paths,
        .n_paths = settings->n_paths,
        .fields = {settings->text_field ? settings->text_field : "text"},
        .n_fields = 1,
        .seed = settings->seed,
        .shuffle_documents = (size_t)shuffle,
        .epochs = !settings->is_endless,
        .strict = settings->is_strict,
    };
    if (is_instruct) {
        maker->options.n_fields = 3;
        maker->options.fields[0] = "input";
        maker->options.fields[1] = "prompt";
        maker->options.fields[2] = "answer";
    }
    return open_corpus(maker, error);
}

icae_status icae_feed_open(icae_feed **feed_out, const icae_feed_settings *settings,
                           const icae_tokenizer *tokenizer,
                           const icae_adapter_settings *adapter, icae_error *error) {
    *feed_out = NULL;
    icae_status status = check_settings(settings, error);
    if (status) return status;
    icae_feed *feed = calloc(1, sizeof *feed);
    if (!feed) return icae_fail_memory(error, "a feed of samples");
    pthread_mutex_init(&feed->mutex,
                       NULL); /* with default attributes neither can fail on Linux */
    pthread_cond_init(&feed->changed, NULL);
    status = begin_maker(&feed->maker, settings, tokenizer, adapter, error);
    if (!status && settings->prefetch_steps) {
        feed->ring = calloc((size_t)settings->prefetch_steps, sizeof *feed->ring);
        if (!feed->ring) status = icae_fail_memory(error, "a feed of samples");
    }
    if (status) {
        icae_feed_close(feed);
        return status;
    }
    *feed_out = feed;
    return ICAE_OK;
}

icae_status icae_feed_restore(icae_feed *feed, const icae_json *json,
                              const icae_json_value *state, icae_error *error) {
    assert(!feed->n_samples && "restore before the first next");
    return icae_feed_restore_state(&feed->maker, json, state, error);
}

void icae_feed_count_from(icae_feed *feed, const icae_feed_stats *stats) {
    assert(!feed->n_samples && "count before the first next");
    feed->maker.stats = *stats;
    feed->maker.drawn = stats->samples;
    feed->maker.past_broken = stats->broken_lines;
    feed->maker.past_passed = stats->passed_over;
}

void icae_feed_close(icae_feed *feed) {
    if (!feed) return;
    if (feed->has_thread) {
        pthread_mutex_lock(&feed->mutex);
        feed->must_stop = true;
        pthread_cond_signal(&feed->changed);
        pthread_mutex_unlock(&feed->mutex);
        pthread_join(feed->thread, NULL); /* at most one step later */
        for (int64_t i = 0; i < feed->count; i++) {
            int64_t at = (feed->first + i) % feed->maker.settings.prefetch_steps;
            icae_feed_step_free(feed->ring[at].step);
        }
    }
    pthread_cond_destroy(&feed->changed);
    pthread_mutex_destroy(&feed->mutex);
    free(feed->ring);
    icae_corpus_close(feed->maker.corpus);
    free(feed->maker.paths);
    icae_chat_release(&feed->maker.chat);
    free(feed);
}
