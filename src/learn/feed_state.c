/* SPDX-License-Identifier: MIT */
/*
 * A feed's state as JSON, and back.
 *
 *     {"format": "icae-feed", "version": 1,
 *      "settings": {"objective": "mixed", "lm_ratio": "0.5", "context_tokens": "512", ...},
 *      "samples": 640, "epochs": 0, "context_tokens": 311270, "passed_over": 3, "cut": 0,
 *      "drawn": 640, "in_epoch": 640, "past_broken": 0,
 *      "corpus": {"format": "icae-corpus", ...}}
 *
 * "settings" has what decides about samples, so that a state is refused by the name of what differs;
 * what only decides how fast they come (prefetch_steps) or which errors end a run (is_strict) is free
 * to change. Seed, files, fields and shuffling are the corpus's part.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "feed_internal.h"

enum { STATE_VERSION = 1, MOST_SETTINGS = 16 };

/* Counts stay exact in JSON up to here. */
#define MOST ((int64_t)1 << 53)

typedef struct named_value {
    const char *name;
    char value[40];
} named_value;

typedef struct settings_list {
    named_value items[MOST_SETTINGS];
    size_t n;
} settings_list;

static void list_integer(settings_list *list, const char *name, int64_t value) {
    named_value *item = &list->items[list->n++];
    item->name = name;
    snprintf(item->value, sizeof item->value, "%" PRId64, value);
}

static void list_hash(settings_list *list, const char *name, uint64_t value) {
    named_value *item = &list->items[list->n++];
    item->name = name;
    snprintf(item->value, sizeof item->value, "%016" PRIx64, value);
}

static settings_list list_settings(const feed_maker *maker) {
    const icae_feed_settings *s = &maker->settings;
    settings_list list = {.n = 2};
    list.items[0].name = "objective";
    snprintf(list.items[0].value, sizeof list.items[0].value, "%s",
             icae_objective_names[s->objective]);
    list.items[1].name = "lm_ratio";
    snprintf(list.items[1].value, sizeof list.items[1].value, "%.17g",
             s->objective == ICAE_OBJECTIVE_MIXED ? s->lm_ratio : 0.0);
    list_integer(&list, "context_tokens", s->context_tokens);
    if (s->first_context) { /* states from before there was growth know neither */
        list_integer(&list, "first_context", s->first_context);
        list_integer(&list, "grow_samples", s->grow_samples);
    }
    list_integer(&list, "least_context", s->least_context);
    list_integer(&list, "limit_samples", s->limit_samples);
    list_integer(&list, "is_endless", s->is_endless);
    list_hash(&list, "tokenizer", icae_tokenizer_fingerprint(maker->tokenizer));
    list_integer(&list, "eos", maker->eos);
    if (maker->adapter && maker->adapter->context_bos) list_integer(&list, "context_bos", 1);
    if (s->objective == ICAE_OBJECTIVE_INSTRUCT) {
        list_integer(&list, "prompt_tokens", s->prompt_tokens);
        list_integer(&list, "answer_tokens", s->answer_tokens);
        const icae_chat_ids *chat = &maker->chat;
        list_hash(&list, "chat_prefix",
                  icae_hash64(chat->prefix, (size_t)chat->n_prefix * sizeof *chat->prefix, 0));
        list_hash(&list, "chat_suffix",
                  icae_hash64(chat->suffix, (size_t)chat->n_suffix * sizeof *chat->suffix, 1));
        list_integer(&list, "chat_end", chat->end);
        if (s->has_ae) list_integer(&list, "ae", 1); /* states from before know it not */
    } else {
        list_integer(&list, "continuation_tokens", s->continuation_tokens);
        list_integer(&list, "least_continuation", s->least_continuation);
        list_integer(&list, "skip_for_lm", s->skip_for_lm);
    }
    return list;
}

icae_status icae_feed_save_state(const feed_maker *maker, icae_text *out, icae_error *error) {
    const icae_feed_stats *stats = &maker->stats;
    icae_text_printf(out, "{\"format\": \"icae-feed\", \"version\": %d, \"settings\": {",
                     STATE_VERSION);
    settings_list list = list_settings(maker);
    for (size_t i = 0; i < list.n; i++) {
        icae_text_printf(out, "%s\"%s\": \"%s\"", i ? ", " : "", list.items[i].name,
                         list.items[i].value);
    }
    icae_text_printf(out,
                     "}, \"samples\": %" PRId64 ", \"epochs\": %" PRId64
                     ", \"context_tokens\": %" PRId64 ", \"passed_over\": %" PRId64
                     ", \"cut\": %" PRId64 ", \"drawn\": %" PRId64 ", \"in_epoch\": %" PRId64
                     ", \"past_broken\": %" PRId64 ", \"corpus\": ",
                     stats->samples, stats->epochs, stats->context_tokens, stats->passed_over,
                     stats->cut, maker->drawn, maker->in_epoch, maker->past_broken);
    icae_status status = icae_corpus_save_state(maker->corpus, out, error);
    icae_text_append_char(out, '}');
    if (!status && out->failed) status = icae_fail_memory(error, "the state of the samples");
    return status;
}

static icae_status check_settings(const feed_maker *maker, const icae_json *json,
                                  const icae_json_value *saved, icae_error *error) {
    icae_json_object object = icae_json_begin(json, saved, "settings.", error);
    settings_list list = list_settings(maker);
    for (size_t i = 0; i < list.n; i++) {
        const char *name = list.items[i].name;
        const char *value = icae_json_get_string(&object, name, "missing");
        if (strcmp(value, list.items[i].value) != 0) {
            icae_json_complain(&object, name,
                               "was %s, the settings say %s: a run goes on only with the "
                               "settings that it began with",
                               value, list.items[i].value);
        }
    }
    return icae_json_end(&object);
}

icae_status icae_feed_restore_state(feed_maker *maker, const icae_json *json,
                                    const icae_json_value *state, icae_error *error) {
    icae_json_object object = icae_json_begin(json, state, "", error);
    if (strcmp(icae_json_get_string(&object, "format", ""), "icae-feed") != 0) {
        icae_json_complain(&object, "format", "expected \"icae-feed\"");
    }
    icae_json_get_integer(&object, "version", 0, STATE_VERSION, STATE_VERSION);
    const icae_json_value *settings = icae_json_get_value(&object, "settings");
    icae_feed_stats stats = {
        .samples = icae_json_get_integer(&object, "samples", 0, 0, MOST),
        .epochs = icae_json_get_integer(&object, "epochs", 0, 0, MOST),
        .context_tokens = icae_json_get_integer(&object, "context_tokens", 0, 0, MOST),
        .passed_over = icae_json_get_integer(&object, "passed_over", 0, 0, MOST),
        .cut = icae_json_get_integer(&object, "cut", 0, 0, MOST),
    };
    int64_t drawn = icae_json_get_integer(&object, "drawn", 0, 0, MOST);
    int64_t in_epoch = icae_json_get_integer(&object, "in_epoch", 0, 0, MOST);
    int64_t past_broken = icae_json_get_integer(&object, "past_broken", 0, 0, MOST);
    const icae_json_value *corpus = icae_json_get_value(&object, "corpus");
    icae_status status = icae_json_end(&object);
    if (!status) status = check_settings(maker, json, settings, error);
    if (!status) status = icae_corpus_restore_state(maker->corpus, json, corpus, error);
    if (status) return status;
    maker->drawn = drawn;
    maker->in_epoch = in_epoch;
    maker->past_broken = past_broken;
    maker->stats = stats;
    maker->stats.broken_lines =
        past_broken + (int64_t)icae_corpus_get_stats(maker->corpus).broken;
    return ICAE_OK;
}
