/* SPDX-License-Identifier: MIT */
/*
 * A reader's state as JSON, and back.
 *
 *     {"format": "icae-corpus", "version": 1,
 *      "seed": "7", "shuffle_documents": 1024, "shuffle_bytes": 268435456, "fields": ["text"],
 *      "files": [["texts/train-000.jsonl", 4331023], ...],
 *      "epoch": 0, "file": 3, "offset": 91820, "lines": 31, "draws": 512, "epoch_documents": 512,
 *      "documents": 512, "bytes": 1827364, "broken": 0, "empty": 0, "repaired": 0,
 *      "over": false, "buffer": [[3, 1200, 2], ...]}
 *
 * "file" counts in this epoch's permutation; in "buffer" every entry is file (in the order of
 * "files"), byte offset and number of lines before it. 64-bit numbers that JSON readers would round
 * (the seed) are strings.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus_internal.h"

enum { STATE_VERSION = 1 };

/* Counts stay exact in JSON up to here. */
#define MOST ((int64_t)1 << 53)

icae_status icae_corpus_save_state(const icae_corpus *corpus, icae_text *json,
                                   icae_error *error) {
    const icae_corpus_stats *stats = &corpus->stats;
    icae_status status = icae_corpus_hash_files(corpus, error);
    if (status) return status;
    icae_text_printf(json,
                     "{\"format\": \"icae-corpus\", \"version\": %d, \"seed\": \"%" PRIu64
                     "\", \"shuffle_documents\": %zu, \"shuffle_bytes\": %zu, \"fields\": [",
                     STATE_VERSION, corpus->seed, corpus->shuffle_documents,
                     corpus->shuffle_bytes);
    for (size_t i = 0; i < corpus->n_fields; i++) {
        if (i) icae_text_append_string(json, ", ");
        icae_json_write_string(json, corpus->fields[i], strlen(corpus->fields[i]));
    }
    icae_text_append_string(json, "], \"files\": [");
    for (size_t i = 0; i < corpus->n_files; i++) {
        icae_text_append_string(json, i ? ", [" : "[");
        icae_json_write_string(json, corpus->files[i].path, strlen(corpus->files[i].path));
        icae_text_printf(json, ", %" PRId64 ", \"%016" PRIx64 "\"]", corpus->files[i].bytes,
                         corpus->files[i].hash);
    }
    icae_text_printf(
        json,
        "], \"epoch\": %" PRId64 ", \"file\": %zu, \"offset\": %" PRIu64 ", \"lines\": %" PRId64
        ", \"draws\": %" PRIu64 ", \"epoch_documents\": %" PRIu64 ", \"documents\": %" PRIu64
        ", \"bytes\": %" PRIu64 ", \"broken\": %" PRIu64 ", \"empty\": %" PRIu64
        ", \"repaired\": %" PRIu64 ", \"over\": %s, \"buffer\": [",
        stats->epoch, corpus->order_at, corpus->lines ? icae_lines_offset(corpus->lines) : 0,
        corpus->lines ? icae_lines_number(corpus->lines) : 0, corpus->draws,
        corpus->epoch_documents, stats->documents, stats->bytes, stats->broken, stats->empty,
        stats->repaired, corpus->is_over ? "true" : "false");
    for (size_t i = 0; i < corpus->n_buffered; i++) {
        const corpus_place *place = &corpus->buffer[i].place;
        icae_text_printf(json, "%s[%zu, %" PRIu64 ", %" PRId64 "]", i ? ", " : "", place->file,
                         place->offset, place->lines_before);
    }
    icae_text_append_string(json, "]}");
    return json->failed ? icae_fail_memory(error, "the state of the document reader") : ICAE_OK;
}

/* ---- restoring ---- */

/* Numbers of an array such as [3, 1200, 2]; false when there are not exactly `count` of them. */
static bool read_integers(const icae_json_value *array, int64_t *out, size_t count) {
    if (!icae_json_is_array(array) || icae_json_count(array) != count) return false;
    const icae_json_value *value = icae_json_first(array);
    for (size_t i = 0; i < count; i++, value = icae_json_next(value))
        if (!icae_json_as_integer(value, out + i) || out[i] < 0) return false;
    return true;
}

static void check_options(const icae_corpus *corpus, icae_json_object *object) {
    const char *seed = icae_json_get_string(object, "seed", "");
    char *end;
    errno = 0;
    uint64_t number = strtoull(seed, &end, 10);
    if (!seed[0] || seed[0] == '-' || *end || errno) {
        icae_json_complain(object, "seed", "expected a whole number in quotes");
    } else if (number != corpus->seed) {
        icae_json_complain(object, "seed",
                           "the data were shuffled with seed %s, the settings say %" PRIu64
                           ": a run goes on only with the seed that it began with",
                           seed, corpus->seed);
    }
    int64_t documents = icae_json_get_integer(object, "shuffle_documents", -1, 0, MOST);
    if (documents >= 0 && (uint64_t)documents != corpus->shuffle_documents) {
        icae_json_complain(object, "shuffle_documents",
                           "was %" PRId64 ", the settings say %zu: a run goes on only with the "
                           "buffer that it began with",
                           documents, corpus->shuffle_documents);
    }
    int64_t bytes = icae_json_get_integer(object, "shuffle_bytes", -1, 0, MOST);
    if (bytes >= 0 && (uint64_t)bytes != corpus->shuffle_bytes) {
        icae_json_complain(object, "shuffle_bytes", "was %" PRId64 ", the settings say %zu",
                           bytes, corpus->shuffle_bytes);
    }
    const icae_json_value *fields = icae_json_get_value(object, "fields");
    size_t i = 0;
    const icae_json_value *field = icae_json_is_array(fields) ? icae_json_first(fields) : NULL;
    for (; field && i < corpus->n_fields; field = icae_json_next(field), i++) {
        const char *name = icae_json_as_string(field);
        if (!name || strcmp(name, corpus->fields[i]) != 0) break;
    }
    if (field || i < corpus->n_fields) {
        icae_json_complain(object, "fields", "are not those of the settings");
    }
}

/* One entry: [path, bytes, hash]; the oldest states have no hash. */
static void check_file(const corpus_file *file, const icae_json_value *entry,
                       icae_json_object *object) {
    size_t count = icae_json_is_array(entry) ? icae_json_count(entry) : 0;
    const icae_json_value *first = count == 2 || count == 3 ? icae_json_first(entry) : NULL;
    const char *path = icae_json_as_string(first), *hash = NULL;
    const icae_json_value *second = first ? icae_json_next(first) : NULL;
    int64_t bytes;
    bool is_good = path && icae_json_as_integer(second, &bytes);
    if (is_good && count == 3) is_good = (hash = icae_json_as_string(icae_json_next(second)));
    if (!is_good) {
        icae_json_complain(object, "files", "expected a list of [path, bytes, hash]");
        return;
    }
    if (!file || strcmp(path, file->path) != 0) {
        icae_json_complain(object, "files",
                           "the run read %s where the settings now name %s: give it the data "
                           "that it began with",
                           path, file ? file->path : "nothing");
        return;
    }
    char found[32];
    snprintf(found, sizeof found, "%016" PRIx64, file->hash);
    if (bytes != file->bytes) {
        icae_json_complain(object, "files",
                           "%s had %" PRId64 " bytes when the run stopped and has %" PRId64
                           " now: give the run the data that it began with",
                           path, bytes, file->bytes);
    } else if (hash && strcmp(hash, found) != 0) {
        icae_json_complain(object, "files",
                           "%s is as long as when the run stopped, but not the same: give the "
                           "run the data that it began with",
                           path);
    }
}

static void check_files(const icae_corpus *corpus, icae_json_object *object) {
    const icae_json_value *files = icae_json_get_value(object, "files");
    if (!icae_json_is_array(files)) {
        icae_json_complain(object, "files", "expected a list of [path, bytes, hash]");
        return;
    }
    size_t i = 0;
    for (const icae_json_value *entry = icae_json_first(files); entry && !object->status;
         entry = icae_json_next(entry), i++)
        check_file(i < corpus->n_files ? &corpus->files[i] : NULL, entry, object);
    if (i < corpus->n_files) {
        icae_json_complain(object, "files", "the run did not read %s: leave it out",
                           corpus->files[i].path);
    }
}

typedef struct place_slot {
    corpus_place place;
    size_t slot; /* in the buffer */
} place_slot;

static int compare_places(const void *a, const void *b) {
    const corpus_place *x = &((const place_slot *)a)->place;
    const corpus_place *y = &((const place_slot *)b)->place;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Reads the buffered documents in the order of the files, which a gzip stream can only be read in,
 * and puts each into its own slot. */
static icae_status reload(icae_corpus *corpus, place_slot *places, size_t count,
                          icae_error *error) {
    qsort(places, count, sizeof *places, compare_places);
    icae_lines *lines = NULL;
    icae_status status = ICAE_OK;
    for (size_t i = 0; !status && i < count; i++) {
        const corpus_place *place = &places[i].place;
        if (!lines || places[i - 1].place.file != place->file) {
            if (lines) icae_lines_close(lines);
            lines = NULL;
            status = icae_lines_open(&lines, corpus->files[place->file].path, error);
            if (status) break;
        }
        if (icae_lines_offset(lines) != place->offset) {
            status = icae_lines_seek(lines, place->offset, place->lines_before, error);
            if (status) break;
        }
        corpus_item item;
        corpus_outcome outcome;
        status = icae_corpus_read(corpus, place->file, lines, true, &item, &outcome, error);
        if (!status && outcome != CORPUS_ITEM) {
            status = icae_fail(error, ICAE_MISMATCH,
                               "%s: holds no document at byte %" PRIu64
                               " any more: give the run the data that it began with",
                               corpus->files[place->file].path, place->offset);
        }
        if (!status) {
            item.place = *place;
            corpus->buffer[places[i].slot] = item;
            corpus->buffered_bytes += item.bytes;
        }
    }
    if (lines) icae_lines_close(lines);
    return status;
}

static icae_status restore_buffer(icae_corpus *corpus, const icae_json *json,
                                  const icae_json_value *buffer, icae_error *error) {
    size_t count = icae_json_is_array(buffer) ? icae_json_count(buffer) : 0;
    if (!icae_json_is_array(buffer) || count > corpus->shuffle_documents) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: buffer: expected a list of at most %zu places",
                         icae_json_name(json), corpus->shuffle_documents);
    }
    if (!count) return ICAE_OK;
    place_slot *places = calloc(count, sizeof *places);
    corpus->buffer = calloc(count, sizeof *corpus->buffer);
    if (!places || !corpus->buffer) {
        free(places);
        return icae_fail_memory(error, "the shuffle buffer");
    }
    corpus->n_buffered = corpus->capacity =
        count; /* items not yet read are NULL: close is safe */
    icae_status status = ICAE_OK;
    size_t i = 0;
    for (const icae_json_value *entry = icae_json_first(buffer); !status && entry;
         entry = icae_json_next(entry), i++) {
        int64_t numbers[3];
        if (!read_integers(entry, numbers, 3) || (uint64_t)numbers[0] >= corpus->n_files) {
            status = icae_fail(error, ICAE_FORMAT,
                               "%s:%d: buffer: entry %zu is no [file, offset, line]",
                               icae_json_name(json), icae_json_line(json, entry), i);
        } else {
            places[i] = (place_slot){{(size_t)numbers[0], (uint64_t)numbers[1], numbers[2]}, i};
        }
    }
    if (!status) status = reload(corpus, places, count, error);
    free(places);
    return status;
}

icae_status icae_corpus_restore_state(icae_corpus *corpus, const icae_json *json,
                                      const icae_json_value *state, icae_error *error) {
    icae_status status = icae_corpus_hash_files(corpus, error);
    if (status) return status;
    icae_json_object object = icae_json_begin(json, state, "", error);
    const char *format = icae_json_get_string(&object, "format", "");
    if (strcmp(format, "icae-corpus") != 0) {
        icae_json_complain(&object, "format", "expected \"icae-corpus\"");
    }
    icae_json_get_integer(&object, "version", 0, STATE_VERSION, STATE_VERSION);
    check_options(corpus, &object);
    check_files(corpus, &object);

    int64_t epoch = icae_json_get_integer(&object, "epoch", 0, 0, MOST);
    int64_t file = icae_json_get_integer(&object, "file", 0, 0, (int64_t)corpus->n_files);
    int64_t offset = icae_json_get_integer(&object, "offset", 0, 0, MOST);
    int64_t lines = icae_json_get_integer(&object, "lines", 0, 0, MOST);
    int64_t draws = icae_json_get_integer(&object, "draws", 0, 0, MOST);
    int64_t epoch_documents = icae_json_get_integer(&object, "epoch_documents", 0, 0, MOST);
    icae_corpus_stats stats = {.epoch = epoch, .n_files = corpus->n_files};
    stats.documents = (uint64_t)icae_json_get_integer(&object, "documents", 0, 0, MOST);
    stats.bytes = (uint64_t)icae_json_get_integer(&object, "bytes", 0, 0, MOST);
    stats.broken = (uint64_t)icae_json_get_integer(&object, "broken", 0, 0, MOST);
    stats.empty = (uint64_t)icae_json_get_integer(&object, "empty", 0, 0, MOST);
    stats.repaired = (uint64_t)icae_json_get_integer(&object, "repaired", 0, 0, MOST);
    bool is_over = icae_json_get_bool(&object, "over", false);
    const icae_json_value *buffer = icae_json_get_value(&object, "buffer");
    status = icae_json_end(&object);
    if (status) return status;

    corpus->stats = stats;
    icae_corpus_begin_epoch(corpus);
    corpus->order_at = (size_t)file;
    corpus->draws = (uint64_t)draws;
    corpus->epoch_documents = (uint64_t)epoch_documents;
    corpus->is_over = is_over;
    if (offset && corpus->order_at < corpus->n_files) {
        const char *path = corpus->files[corpus->order[corpus->order_at]].path;
        status = icae_lines_open(&corpus->lines, path, error);
        if (!status) status = icae_lines_seek(corpus->lines, (uint64_t)offset, lines, error);
    }
    if (!status) status = restore_buffer(corpus, json, buffer, error);
    /* Documents repaired or found empty while reading again were counted the first time. */
    corpus->stats = stats;
    return status;
}
