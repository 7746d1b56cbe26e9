/* SPDX-License-Identifier: MIT */
/*
 * icae ask and icae chat: answers from slots.
 *
 * A dialogue has no memory but its text: every turn is asked afresh, with the slots and all turns so
 * far, laid out as the adapter's chat template has them. The first turn is the plain question, exactly
 * as `ask` would put it. When the dialogue leaves an answer too little of the base's context, the oldest turn is
 * forgotten, and said to be.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "icae/json.h"
#include "icae/log.h"
#include "speak.h"

/* An adapter says what its last run trained; older ones and other programs' say nothing. */
static void warn_about_training(const char *adapter) {
    icae_error ignored = {0};
    icae_json *json = NULL;
    char *path = NULL;
    if (asprintf(&path, "%s/icae.json", adapter) < 0) return;
    if (icae_json_open(&json, path, &ignored) == ICAE_OK) {
        const icae_json_value *training = icae_json_member(icae_json_root(json), "training");
        const char *objective = icae_json_as_string(icae_json_member(training, "objective"));
        if (objective && strcmp(objective, "instruct") != 0) {
            icae_log_warning(
                "%s was last trained to restore and continue texts (objective %s), not "
                "to answer: expect little of its answers, or fine-tune it with "
                "icae-finetune",
                adapter, objective);
        }
        icae_json_free(json);
    }
    free(path);
}

/* ---- ask ---- */

static int answer(const options *given, speaker *s, const char *prompt, icae_error *error) {
    icae_generated result = {0};
    double elapsed_s = 0;
    icae_generation wish = speaker_wish(given, ICAE_ASK, prompt);
    icae_status status = speaker_write(s, &wish, given->is_json, &result, &elapsed_s, error);
    int code;
    if (status) {
        code = ferror(stdout) ? finish_output() : report_failure(error);
    } else if (given->is_json) {
        json_object object;
        json_begin(&object);
        json_generated(&object, &result, elapsed_s);
        json_integer(&object, "source_tokens", icae_slots_describe(s->slots).source_tokens);
        code = json_end(&object);
    } else {
        putchar('\n');
        code = finish_output();
        if (!result.is_complete) {
            icae_log_info("(cut after %lld tokens; -n TOKENS asks for more)",
                          (long long)result.generated_tokens);
        }
    }
    icae_generated_release(&result);
    return code;
}

/* "-" as the prompt: standard input, without the line's end that a shell puts there. */
static icae_status read_prompt(const char *word, char **prompt, icae_error *error) {
    size_t bytes = 0;
    *prompt = NULL;
    if (strcmp(word, "-") != 0) {
        *prompt = strdup(word);
        if (!*prompt) return icae_fail_memory(error, "a prompt");
        bytes = strlen(word);
    } else {
        icae_status status = read_text(word, prompt, &bytes, error);
        if (status) return status;
        while (bytes > 0 && strchr("\r\n", (*prompt)[bytes - 1]))
            (*prompt)[--bytes] = 0;
        if (strlen(*prompt) < bytes) {
            return icae_fail(error, ICAE_INVALID,
                             "the prompt on standard input holds a zero byte");
        }
    }
    if (bytes == 0) return icae_fail(error, ICAE_INVALID, "the prompt is empty");
    return check_text("the prompt", *prompt, bytes, error);
}

int run_ask(const options *given) {
    speaker s = {0};
    icae_error error = {0};
    char *prompt;
    int n_files = given->n_words - 1;
    icae_status status = read_prompt(given->words[n_files], &prompt, &error);
    signals_catch();
    if (!status) status = speaker_open(&s, given, &error);
    if (!status) warn_about_training(given->adapter);
    if (!status) status = speaker_load(&s, given->words, n_files, &error);
    int code = status ? report_failure(&error) : answer(given, &s, prompt, &error);
    speaker_close(&s);
    free(prompt);
    return code;
}

/* ---- chat ---- */

typedef struct dialogue {
    icae_turn *turns; /* their texts are the dialogue's own */
    size_t n_turns, capacity;
    size_t first; /* the oldest turn that is not forgotten */
} dialogue;

static void dialogue_release(dialogue *d) {
    for (size_t i = 0; i < d->n_turns; i++) {
        free((char *)(uintptr_t)d->turns[i].question);
        free((char *)(uintptr_t)d->turns[i].answer);
    }
    free(d->turns);
}

static icae_status dialogue_add(dialogue *d, const char *question, const char *answer_text,
                                icae_error *error) {
    if (d->n_turns == d->capacity) {
        size_t capacity = d->capacity ? 2 * d->capacity : 16;
        icae_turn *grown = realloc(d->turns, capacity * sizeof *grown);
        if (!grown) return icae_fail_memory(error, "the dialogue");
        d->turns = grown;
        d->capacity = capacity;
    }
    icae_turn made = {strdup(question), strdup(answer_text)};
    d->turns[d->n_turns++] = made;
    return made.question && made.answer ? ICAE_OK : icae_fail_memory(error, "the dialogue");
}

/* An answer that has less room is cut off before it says much: better without the oldest turn. */
enum { LEAST_ROOM = 64 };

/* Asks with as much of the dialogue as fits. ICAE_INVALID: the question alone is too long; the dialogue is as it
 * was, and nothing was written. */
static icae_status ask_turn(const options *given, speaker *s, dialogue *d, const char *question,
                            icae_generated *result, icae_error *error) {
    size_t first = d->first;
    for (;; first++) {
        icae_generation wish = speaker_wish(given, ICAE_ASK, question);
        wish.turns = d->turns ? d->turns + first : NULL;
        wish.n_turns = d->n_turns - first;
        wish.seed +=
            (uint64_t)d->n_turns; /* else token n of every turn is drawn by the same number */
        if (wish.n_turns > 0) {
            bool is_short = wish.max_tokens > 0 && wish.max_tokens < LEAST_ROOM;
            wish.least_tokens = is_short ? wish.max_tokens : LEAST_ROOM;
        }
        icae_status status = speaker_write(s, &wish, given->is_json, result, NULL, error);
        if (!status) d->first = first;
        /* Only a prompt that does not fit is ICAE_INVALID here. */
        if (status != ICAE_INVALID || first == d->n_turns) return status;
    }
}

static icae_status chat_turn(const options *given, speaker *s, dialogue *d,
                             const char *question, icae_text *turns, icae_error *error) {
    icae_generated result = {0};
    const size_t first = d->first;
    icae_status status = ask_turn(given, s, d, question, &result, error);
    if (status == ICAE_INVALID) {
        icae_log_warning("%s: the question is passed over", error->message);
        return ICAE_OK;
    }
    if (!status) status = dialogue_add(d, question, result.text, error);
    if (!status && given->is_json) {
        json_object object;
        json_begin(&object);
        json_string(&object, "question", question, strlen(question));
        json_string(&object, "text", result.text, result.bytes);
        json_integer(&object, "prompt_tokens", result.prompt_tokens);
        json_integer(&object, "generated_tokens", result.generated_tokens);
        json_bool(&object, "complete", result.is_complete);
        icae_text_printf(turns, "%s%s}", turns->length ? ", " : "[",
                         icae_text_string(&object.text));
        icae_text_release(&object.text);
    } else if (!status) {
        putchar('\n');
        fflush(stdout);
    }
    if (!status && d->first > first) {
        icae_log_info(
            "(the dialogue is too long for the base: of its oldest turns %zu %s forgotten)",
            d->first - first, d->first - first == 1 ? "was" : "were");
    }
    icae_generated_release(&result);
    return status;
}

int run_chat(const options *given) {
    speaker s;
    icae_error error = {0};
    dialogue d = {0};
    icae_text turns = {0};
    char *line = NULL;
    size_t capacity = 0;
    signals_catch();
    icae_status status = speaker_open(&s, given, &error);
    if (!status) warn_about_training(given->adapter);
    if (!status) status = speaker_load(&s, given->words, given->n_words, &error);
    bool is_person = isatty(STDIN_FILENO);
    if (!status && is_person) icae_log_info("A question a line; Ctrl-D ends.");
    while (!status && !signal_caught()) {
        if (is_person) {
            fputs("> ", stderr);
            if (!signals_wait_for_input()) break;
        }
        ssize_t got = getline(&line, &capacity, stdin);
        if (got < 0) break;
        while (got > 0 && strchr("\r\n", line[got - 1]))
            line[--got] = 0;
        if (strlen(line) < (size_t)got) {
            icae_log_warning("this line holds a zero byte: it is passed over");
            continue;
        }
        if (got == 0) continue;
        icae_error unreadable = {0};
        if (check_text("this line", line, strlen(line), &unreadable)) {
            icae_log_warning("%s: it is passed over", unreadable.message);
            continue;
        }
        status = chat_turn(given, &s, &d, line, &turns, &error);
    }
    if (!status && signal_caught()) {
        status = icae_fail(&error, ICAE_INTERRUPTED, "stopped by a signal");
    }
    int code;
    if (status) {
        code = ferror(stdout) ? finish_output() : report_failure(&error);
    } else if (given->is_json) {
        icae_text_append_string(&turns, turns.length ? "]" : "[]");
        json_object object;
        json_begin(&object);
        json_raw(&object, "turns", icae_text_string(&turns));
        object.text.failed |= turns.failed;
        code = json_end(&object);
    } else {
        code = finish_output();
    }
    free(line);
    icae_text_release(&turns);
    dialogue_release(&d);
    speaker_close(&s);
    return code;
}
