/* SPDX-License-Identifier: MIT */
/*
 * Reading documents: one line or text file at a time, through the shuffle buffer.
 *
 * A call to next fills the buffer (to its size, or to the end of the epoch's files), draws one
 * item and moves the last item into the hole. So between two calls the whole state is: the place in
 * the current file, the number of draws made, and the buffered items in their order. That is what
 * corpus_state.c writes. Without shuffling the buffer simply has size 1.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus_internal.h"
#include "icae/log.h"
#include "icae/memory.h"
#include "icae/rng.h"

#define DEFAULT_SHUFFLE_BYTES ((size_t)256 << 20)
#define DEFAULT_LIMIT_BYTES   ((size_t)64 << 20)

enum { WARNINGS = 3 }; /* later broken lines, and later repairs, are only counted */

/* Streams of the generator; the epoch is mixed in. */
enum { STREAM_FILES = 1, STREAM_DRAWS = 2 };

static bool is_blank(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (!strchr(" \t\r\n\v\f", text[i]) || !text[i]) return false;
    return true;
}

/* ---- one document ---- */

/* Copies the fields into one block. Ill-formed UTF-8, which a text file may hold, is
 * repaired on the way: tokenizers expect clean text. */
static icae_status pack_item(icae_corpus *corpus, corpus_item *item, const char *const *fields,
                             const size_t *bytes, bool was_repaired, icae_error *error) {
    icae_text packed = {0};
    item->bytes = 0;
    for (size_t i = 0; i < corpus->n_fields; i++) {
        size_t start = packed.length;
        icae_utf8_repair(&packed, fields[i], bytes[i]);
        if (packed.failed) break;
        item->field_bytes[i] = packed.length - start;
        item->bytes += item->field_bytes[i];
        /* U+FFFD takes three bytes where one stood, so a repair always changes the length. */
        was_repaired |= item->field_bytes[i] != bytes[i];
        icae_text_append_char(&packed, 0);
    }
    if (packed.failed) {
        icae_text_release(&packed);
        return icae_fail_memory(error, "a document");
    }
    item->data = packed.data;
    if (!was_repaired) return ICAE_OK;
    if (corpus->stats.repaired++ < WARNINGS) {
        icae_log_warning("%s:%" PRId64 ": has bytes that are not UTF-8; each becomes U+FFFD",
                         corpus->files[item->place.file].path, item->place.lines_before + 1);
        if (corpus->stats.repaired == WARNINGS)
            icae_log_warning("further texts that are not UTF-8 are repaired without a word");
    }
    return ICAE_OK;
}

/* A broken line, or text file: an error when strict, else a warning and a count. */
static icae_status complain(icae_corpus *corpus, const char *what, bool is_again,
                            corpus_outcome *outcome, const icae_error *problem,
                            icae_error *error) {
    *outcome = CORPUS_NOTHING;
    if (corpus->strict || is_again) {
        return icae_fail(error, problem->status, "%s", problem->message);
    }
    if (!corpus->first_problem[0]) {
        snprintf(corpus->first_problem, sizeof corpus->first_problem, "%.400s",
                 problem->message);
    }
    corpus->stats.broken++;
    if (corpus->stats.broken <= WARNINGS) {
        icae_log_warning("%s; the %s is skipped", problem->message, what);
    }
    if (corpus->stats.broken == WARNINGS) {
        icae_log_warning("further broken lines are skipped and counted without a word");
    }
    return ICAE_OK;
}

static icae_status take_fields(icae_corpus *corpus, const char *path, int64_t line,
                               const icae_json *json, const char **fields, size_t *bytes,
                               icae_error *problem) {
    const icae_json_value *root = icae_json_root(json);
    if (!icae_json_is_object(root)) {
        return icae_fail(problem, ICAE_FORMAT,
                         "%s:%" PRId64
                         ": is no JSON object, expected {\"%s\": ...} on a line of "
                         "its own",
                         path, line, corpus->fields[0]);
    }
    for (size_t i = 0; i < corpus->n_fields; i++) {
        const icae_json_value *value = icae_json_member(root, corpus->fields[i]);
        if (!value) {
            return icae_fail(problem, ICAE_FORMAT,
                             "%s:%" PRId64 ": has no field \"%s\": %s, or repair the line",
                             path, line, corpus->fields[i], corpus->advice);
        }
        if (!icae_json_as_bytes(value, &fields[i], &bytes[i])) {
            return icae_fail(problem, ICAE_FORMAT,
                             "%s:%" PRId64 ": field \"%s\" is no string; expected a text", path,
                             line, corpus->fields[i]);
        }
    }
    return ICAE_OK;
}

static icae_status read_json_line(icae_corpus *corpus, size_t file, icae_lines *lines,
                                  bool is_again, corpus_item *item, corpus_outcome *outcome,
                                  icae_error *error) {
    const char *path = corpus->files[file].path, *line;
    size_t bytes;
    icae_status status = icae_lines_next(lines, corpus->limit_bytes, &line, &bytes, error);
    if (status) return status;
    if (!line) {
        *outcome = CORPUS_FILE_END;
        return ICAE_OK;
    }
    int64_t number = icae_lines_number(lines);
    if (number == 1 && bytes >= 3 && !memcmp(line, "\xEF\xBB\xBF", 3)) {
        line += 3; /* a byte order mark, as some editors write it */
        bytes -= 3;
    }
    *outcome = CORPUS_NOTHING;
    if (is_blank(line, bytes)) return ICAE_OK;
    bool was_repaired = false;

    if (!icae_utf8_is_valid(line, bytes)) {
        /* Parsers of JSON refuse such a line; one bad byte should not cost the document. */
        icae_text_clear(&corpus->scratch);
        icae_utf8_repair(&corpus->scratch, line, bytes);
        if (corpus->scratch.failed) return icae_fail_memory(error, "a line");
        line = corpus->scratch.data;
        bytes = corpus->scratch.length;
        was_repaired = true;
    }
    char name[256];
    snprintf(name, sizeof name, "%.200s:%" PRId64, path, number);
    icae_error problem = {0};
    icae_json *json;
    status = icae_json_parse(&json, name, line, bytes, &problem);
    if (status == ICAE_MEMORY) return icae_fail(error, status, "%s", problem.message);
    if (status) {
        if (number == 1 && line[strspn(line, " \t")] == '[') {
            icae_fail(&problem, ICAE_FORMAT,
                      "%s:1: is one JSON array, expected one object on each line (jq -c '.[]' "
                      "makes JSON lines of it)",
                      path);
        }
        return complain(corpus, "line", is_again, outcome, &problem, error);
    }
    const char *fields[ICAE_CORPUS_FIELDS];
    size_t field_bytes[ICAE_CORPUS_FIELDS];
    if (take_fields(corpus, path, number, json, fields, field_bytes, &problem)) {
        status = complain(corpus, "line", is_again, outcome, &problem, error);
    } else {
        bool is_empty = false;
        for (size_t i = 0; i < corpus->n_fields; i++)
            is_empty |= is_blank(fields[i], field_bytes[i]);
        if (is_empty) {
            corpus->stats.empty++;
        } else {
            status = pack_item(corpus, item, fields, field_bytes, was_repaired, error);
            *outcome = CORPUS_ITEM;
        }
    }
    icae_json_free(json);
    return status;
}

/* The whole file is one document. Line ends become "\n"; the last one is not part of it. */
static icae_status read_text_file(icae_corpus *corpus, size_t file, icae_lines *lines,
                                  bool is_again, corpus_item *item, corpus_outcome *outcome,
                                  icae_error *error) {
    icae_text *text = &corpus->scratch;
    icae_text_clear(text);
    for (bool is_first = true;; is_first = false) {
        const char *line;
        size_t bytes;
        icae_status status = icae_lines_next(lines, corpus->limit_bytes, &line, &bytes, error);
        if (status) return status;
        if (!line) {
            if (is_first) {
                *outcome = CORPUS_FILE_END;
                return ICAE_OK;
            }
            break;
        }
        if (is_first && bytes >= 3 && !memcmp(line, "\xEF\xBB\xBF", 3)) {
            line += 3;
            bytes -= 3;
        }
        if (!is_first) icae_text_append_char(text, '\n');
        icae_text_append(text, line, bytes);
        if (text->failed) return icae_fail_memory(error, corpus->files[file].path);
        if (text->length > corpus->limit_bytes) {
            return icae_fail(
                error, ICAE_INVALID,
                "%s: has more than %zu bytes, the most for a text file, which is one "
                "document: split it, or make JSON lines of it",
                corpus->files[file].path, corpus->limit_bytes);
        }
    }
    *outcome = CORPUS_NOTHING;
    if (is_blank(icae_text_string(text), text->length)) {
        corpus->stats.empty++;
        return ICAE_OK;
    }
    const icae_utf8_flaws flaws = icae_utf8_examine(text->data, text->length);
    if (!icae_utf8_is_text(flaws, text->length)) {
        icae_error problem = {0};
        icae_fail(&problem, ICAE_FORMAT,
                  "%s: is no text in UTF-8: %zu of its %zu bytes are not UTF-8, %zu are zeros; "
                  "iconv converts texts in other encodings",
                  corpus->files[file].path, flaws.wrong, text->length, flaws.zeros);
        return complain(corpus, "file", is_again, outcome, &problem, error);
    }
    const char *data = text->data;
    *outcome = CORPUS_ITEM;
    return pack_item(corpus, item, &data, &text->length, false, error);
}

icae_status icae_corpus_read(icae_corpus *corpus, size_t file, icae_lines *lines, bool is_again,
                             corpus_item *item, corpus_outcome *outcome, icae_error *error) {
    *item = (corpus_item){
        .place = {file, icae_lines_offset(lines), icae_lines_number(lines)},
    };
    if (corpus->files[file].is_text) {
        return read_text_file(corpus, file, lines, is_again, item, outcome, error);
    }
    return read_json_line(corpus, file, lines, is_again, item, outcome, error);
}

/* ---- epochs and the buffer ---- */

void icae_corpus_begin_epoch(icae_corpus *corpus) {
    corpus->order_at = 0;
    corpus->draws = 0;
    corpus->epoch_documents = 0;
    for (size_t i = 0; i < corpus->n_files; i++)
        corpus->order[i] = i;
    if (!corpus->shuffle_documents) return;
    icae_rng rng = {.seed = corpus->seed,
                    .stream = icae_mix64(STREAM_FILES, (uint64_t)corpus->stats.epoch)};
    for (size_t i = corpus->n_files; i > 1; i--) {
        size_t j = (size_t)icae_rng_below(&rng, i), kept = corpus->order[i - 1];
        corpus->order[i - 1] = corpus->order[j];
        corpus->order[j] = kept;
    }
}

icae_status icae_corpus_append_item(icae_corpus *corpus, const corpus_item *item,
                                    icae_error *error) {
    if (corpus->n_buffered == corpus->capacity) {
        size_t capacity = corpus->capacity ? 2 * corpus->capacity : 16, bytes;
        corpus_item *larger = NULL;
        if (icae_size_mul(capacity, sizeof *larger, &bytes)) {
            larger = realloc(corpus->buffer, bytes);
        }
        if (!larger) return icae_fail_memory(error, "the shuffle buffer");
        corpus->buffer = larger;
        corpus->capacity = capacity;
    }
    corpus->buffer[corpus->n_buffered++] = *item;
    corpus->buffered_bytes += item->bytes;
    return ICAE_OK;
}

static icae_status fill_buffer(icae_corpus *corpus, icae_error *error) {
    size_t wanted = corpus->shuffle_documents ? corpus->shuffle_documents : 1;
    while (corpus->n_buffered < wanted && corpus->order_at < corpus->n_files &&
           (!corpus->n_buffered || corpus->buffered_bytes < corpus->shuffle_bytes)) {
        size_t file = corpus->order[corpus->order_at];
        icae_status status = ICAE_OK;
        if (!corpus->lines) {
            status = icae_lines_open(&corpus->lines, corpus->files[file].path, error);
            if (status) return status;
        }
        corpus_item item;
        corpus_outcome outcome;
        status = icae_corpus_read(corpus, file, corpus->lines, false, &item, &outcome, error);
        if (status) return status;
        if (outcome == CORPUS_ITEM &&
            (status = icae_corpus_append_item(corpus, &item, error))) {
            free(item.data);
            return status;
        }
        if (outcome == CORPUS_FILE_END || corpus->files[file].is_text) {
            icae_lines_close(corpus->lines);
            corpus->lines = NULL;
            corpus->order_at++;
        }
    }
    return ICAE_OK;
}

static icae_status fail_without_documents(const icae_corpus *corpus, icae_error *error) {
    return icae_fail(error, ICAE_INVALID,
                     "no document found in %zu data file%s (%s%s): %" PRIu64
                     " broken and %" PRIu64 " empty lines; expected JSON lines "
                     "with texts, or text files%s%s",
                     corpus->n_files, corpus->n_files == 1 ? "" : "s", corpus->files[0].path,
                     corpus->n_files == 1 ? "" : ", ...", corpus->stats.broken,
                     corpus->stats.empty, corpus->first_problem[0] ? "; the first: " : "",
                     corpus->first_problem);
}

static void give(icae_corpus *corpus, icae_document *document) {
    /* Every draw has its own stream position, so the count of draws is the generator's state. */
    icae_rng rng = {.seed = corpus->seed,
                    .stream =
                        icae_mix64(icae_mix64(STREAM_DRAWS, (uint64_t)corpus->stats.epoch),
                                   corpus->draws++)};
    size_t at = (size_t)icae_rng_below(&rng, corpus->n_buffered);
    corpus->given = corpus->buffer[at];
    corpus->buffer[at] = corpus->buffer[--corpus->n_buffered];
    corpus->buffered_bytes -= corpus->given.bytes;

    const corpus_item *item = &corpus->given;
    const char *data = item->data;
    for (size_t i = 0; i < corpus->n_fields; i++) {
        document->fields[i] = data;
        document->field_bytes[i] = item->field_bytes[i];
        data += item->field_bytes[i] + 1;
    }
    document->text = document->fields[0];
    document->bytes = document->field_bytes[0];
    document->file = corpus->files[item->place.file].path;
    document->is_text = corpus->files[item->place.file].is_text;
    document->line = item->place.lines_before + 1;
    document->epoch = corpus->stats.epoch;
    document->number = corpus->stats.documents++;
    corpus->stats.bytes += item->bytes;
    corpus->epoch_documents++;
}

icae_status icae_corpus_next(icae_corpus *corpus, icae_document *document, icae_error *error) {
    *document = (icae_document){.epoch = corpus->stats.epoch};
    free(corpus->given.data);
    corpus->given = (corpus_item){0};
    while (!corpus->is_over) {
        icae_status status = fill_buffer(corpus, error);
        if (status) return status;
        if (corpus->n_buffered) {
            give(corpus, document);
            return ICAE_OK;
        }
        if (!corpus->epoch_documents) return fail_without_documents(corpus, error);
        corpus->stats.epoch++;
        if (corpus->epochs && corpus->stats.epoch >= corpus->epochs) corpus->is_over = true;
        icae_corpus_begin_epoch(corpus);
    }
    return ICAE_OK;
}

/* ---- life ---- */

icae_status icae_corpus_open(icae_corpus **corpus_out, const icae_corpus_options *options,
                             icae_error *error) {
    *corpus_out = NULL;
    assert(options->n_fields <= ICAE_CORPUS_FIELDS && options->epochs >= 0);
    icae_corpus *corpus = calloc(1, sizeof *corpus);
    if (!corpus) return icae_fail_memory(error, "a document reader");
    corpus->seed = options->seed;
    corpus->shuffle_documents = options->shuffle_documents;
    corpus->shuffle_bytes =
        options->shuffle_bytes ? options->shuffle_bytes : DEFAULT_SHUFFLE_BYTES;
    corpus->limit_bytes = options->limit_bytes ? options->limit_bytes : DEFAULT_LIMIT_BYTES;
    corpus->epochs = options->epochs;
    corpus->strict = options->strict;
    corpus->advice = options->advice ? options->advice : "name the right one in the settings";
    corpus->n_fields = options->n_fields ? options->n_fields : 1;
    icae_status status = ICAE_OK;
    for (size_t i = 0; !status && i < corpus->n_fields; i++) {
        corpus->fields[i] = strdup(options->n_fields ? options->fields[i] : "text");
        if (!corpus->fields[i]) status = icae_fail_memory(error, "a document reader");
    }
    if (!status) status = icae_corpus_find_files(corpus, options, error);
    if (!status) {
        corpus->order = calloc(corpus->n_files, sizeof *corpus->order);
        if (!corpus->order) status = icae_fail_memory(error, "a document reader");
    }
    if (status) {
        icae_corpus_close(corpus);
        return status;
    }
    icae_corpus_begin_epoch(corpus);
    *corpus_out = corpus;
    return ICAE_OK;
}

void icae_corpus_close(icae_corpus *corpus) {
    if (!corpus) return;
    if (corpus->lines) icae_lines_close(corpus->lines);
    for (size_t i = 0; i < corpus->n_buffered; i++)
        free(corpus->buffer[i].data);
    for (size_t i = 0; i < corpus->n_files; i++)
        free(corpus->files[i].path);
    for (size_t i = 0; i < corpus->n_fields; i++)
        free(corpus->fields[i]);
    free(corpus->given.data);
    free(corpus->buffer);
    free(corpus->files);
    free(corpus->order);
    icae_text_release(&corpus->scratch);
    free(corpus);
}

icae_corpus_stats icae_corpus_get_stats(const icae_corpus *corpus) {
    icae_corpus_stats stats = corpus->stats;
    stats.n_buffered = corpus->n_buffered;
    return stats;
}
