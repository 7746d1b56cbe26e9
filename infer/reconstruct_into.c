/* SPDX-License-Identifier: MIT */
/*
 * icae reconstruct --into FOLDER: many slots files, some of them side by side.
 *
 * A file is written when its text is whole, so that a run that is stopped leaves no half texts; those of
 * earlier groups stay.
 */
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/log.h"
#include "speak.h"

enum { SIDE_BY_SIDE = 8 };

typedef struct work {
    const options *given;
    speaker speaker;
    char **paths; /* [n_words] of the texts */
    icae_slots *slots[SIDE_BY_SIDE];
    icae_generated made[SIDE_BY_SIDE];
    int first, n;             /* the group at work: words first .. first + n - 1 */
    int64_t tokens, complete; /* of all groups so far */
    double start_s;
} work;

/* "a/notes.slots" -> "FOLDER/notes.txt"; malloc'ed. */
static char *text_path(const char *folder, const char *slots) {
    const char *slash = strrchr(slots, '/'), *name = slash ? slash + 1 : slots;
    size_t length = strlen(name), ending = strlen(".slots");
    if (length > ending && strcmp(name + length - ending, ".slots") == 0) length -= ending;
    char *file = malloc(length + sizeof ".txt");
    if (!file) return NULL;
    memcpy(file, name, length);
    memcpy(file + length, ".txt", sizeof ".txt");
    char *path = icae_path_join(folder, file);
    free(file);
    return path;
}

static icae_status name_texts(work *w, icae_error *error) {
    int n = w->given->n_words;
    w->paths = calloc((size_t)n, sizeof *w->paths);
    if (!w->paths) return icae_fail_memory(error, "file names");
    for (int i = 0; i < n; i++) {
        w->paths[i] = text_path(w->given->into, w->given->words[i]);
        if (!w->paths[i]) return icae_fail_memory(error, "file names");
        for (int j = 0; j < i; j++) {
            if (strcmp(w->paths[i], w->paths[j])) continue;
            return icae_fail(error, ICAE_INVALID,
                             "%s and %s would both become %s; give one of them another name",
                             w->given->words[j], w->given->words[i], w->paths[i]);
        }
        /* It may well be the text that the slots were made from. */
        icae_status status = check_unwritten(w->paths[i], w->given->is_forced, error);
        if (status) return status;
    }
    return icae_folder_make(w->given->into, error);
}

static bool watch(void *user, size_t text, const char *piece, size_t bytes) {
    (void)user, (void)text, (void)piece, (void)bytes;
    return signal_caught() == 0;
}

static void release_group(work *w) {
    for (int i = 0; i < w->n; i++) {
        icae_slots_free(w->slots[i]);
        icae_generated_release(&w->made[i]);
        w->slots[i] = NULL;
    }
    w->n = 0;
}

static icae_status restore_group(work *w, icae_error *error) {
    const icae_slots *slots[SIDE_BY_SIDE] = {NULL};
    icae_generation wish = speaker_wish(w->given, ICAE_RECONSTRUCT, NULL);
    icae_status status = ICAE_OK;
    while (w->n < SIDE_BY_SIDE && w->first + w->n < w->given->n_words && !status) {
        status = icae_session_load_slots(w->speaker.session, w->given->words[w->first + w->n],
                                         &w->slots[w->n], error);
        if (!status) slots[w->n] = w->slots[w->n];
        if (!status) w->n++;
    }
    if (!status) {
        status = icae_session_generate_batch(w->speaker.session, slots, (size_t)w->n, &wish,
                                             watch, NULL, w->made, error);
    }
    for (int i = 0; i < w->n && !status; i++) {
        status =
            icae_file_write(w->paths[w->first + i], w->made[i].text, w->made[i].bytes, error);
        w->tokens += w->made[i].generated_tokens;
        w->complete += w->made[i].is_complete;
    }
    if (!status) w->first += w->n;
    release_group(w);
    return status;
}

static int report(const work *w) {
    double elapsed_s = icae_clock_seconds() - w->start_s;
    int n = w->given->n_words;
    if (w->given->is_json) {
        json_object object;
        json_begin(&object);
        json_integer(&object, "texts", n);
        json_integer(&object, "complete", w->complete);
        json_integer(&object, "generated_tokens", w->tokens);
        json_number(&object, "seconds", elapsed_s);
        return json_end(&object);
    }
    printf(
        "%d text%s, %lld tokens in %.1f s (%.0f tokens/s), %lld of them ended by themselves\n",
        n, n == 1 ? "" : "s", (long long)w->tokens, elapsed_s, (double)w->tokens / elapsed_s,
        (long long)w->complete);
    return finish_output();
}

int reconstruct_into(const options *given) {
    work w = {.given = given};
    icae_error error = {0};
    signals_catch();
    icae_status status = name_texts(&w, &error);
    if (!status) status = speaker_open(&w.speaker, given, &error);
    w.start_s = icae_clock_seconds();
    while (!status && w.first < given->n_words) {
        status = restore_group(&w, &error);
        if (!status) icae_progress_show("restored %d of %d texts", w.first, given->n_words);
    }
    icae_progress_done();
    if (status && w.first > 0)
        icae_log_info("%d of %d texts are whole in %s", w.first, given->n_words, given->into);
    int code = status ? report_failure(&error) : report(&w);
    release_group(&w);
    speaker_close(&w.speaker);
    for (int i = 0; w.paths && i < given->n_words; i++)
        free(w.paths[i]);
    free(w.paths);
    return code;
}
