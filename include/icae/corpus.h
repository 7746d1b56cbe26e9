/* SPDX-License-Identifier: MIT */
/*
 * Documents out of files: pretraining texts, and rows of several fields for fine-tuning.
 *
 * Files are JSON lines (.jsonl, .json), one object a line, or plain text (.txt), one document a
 * file; each may be gzipped (.gz). Nothing but the shuffle buffer is held in memory.
 *
 * Order. Without shuffling: files as given, lines as they stand. With it, every epoch has its own
 * order: the files are permuted by (seed, epoch); their documents pass through a buffer from which
 * one is drawn at random (seed, epoch, draw). The buffer runs empty at the end of each epoch, so an
 * epoch shows every document exactly once. The order depends on nothing but files, seed and sizes.
 *
 * State. Where the reader is can be written as JSON and taken up again by a reader opened with the
 * same options: it then gives exactly the documents that the first would have given, the
 * buffer's included. The buffer is stored as places, not texts: restoring reads those lines again.
 *
 * A broken line (no valid JSON, no object, a missing field, a field that is no string) is
 * skipped, counted and, the first few times, warned about; with `strict` it is an error. So is a text
 * file that is none: one in UTF-16, or not a text at all (icae_utf8_is_text). A damaged
 * gzip stream, a line longer than the limit or a read error is an error always. Lines without any
 * text, and documents one of whose fields is only white space, are left out. Bytes that are not
 * UTF-8 become U+FFFD; such documents are counted and, the first few times, warned about.
 *
 * One reader serves one thread at a time; any thread may be the one.
 */
#ifndef ICAE_CORPUS_H
#define ICAE_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/json.h"
#include "icae/status.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ICAE_CORPUS_FIELDS = 4 }; /* the most fields that a row can have */

typedef struct icae_corpus_options {
    /* Files, folders (their files with a known ending, sorted by name, no sub-folders) and patterns
     * such as "texts/train-*.jsonl" (sorted by name). The same file twice is refused. */
    const char *const *paths;
    size_t n_paths;
    /* The keys wanted of every JSON line, in this order. 0 fields means {"text"}. Text files have
     * one field and can be read only then. Strings are copied. */
    const char *fields[ICAE_CORPUS_FIELDS];
    size_t n_fields;
    uint64_t seed;
    size_t shuffle_documents; /* size of the buffer; 0: no shuffling at all */
    size_t shuffle_bytes;     /* the buffer is full at this many bytes, too; 0: 256 MiB */
    size_t limit_bytes;       /* longest line, and largest text file; 0: 64 MiB */
    int64_t epochs;           /* 0: for ever */
    bool strict;
    /* What to do about a line that lacks a field; NULL: to name the right one in the settings. Not
     * copied: it must live as long as the reader. */
    const char *advice;
} icae_corpus_options;

/* Valid until the next call with the same corpus. Strings are UTF-8 with a 0 after their last byte;
 * a text may hold U+0000 itself, so the counts of bytes are what to go by. */
typedef struct icae_document {
    const char *text; /* fields[0]; NULL when the last epoch is over */
    size_t bytes;
    const char *fields[ICAE_CORPUS_FIELDS];
    size_t field_bytes[ICAE_CORPUS_FIELDS];
    const char *file; /* path */
    bool is_text;     /* a text file, whole; else a line of JSON */
    int64_t line;     /* 1-based; 1 for a text file */
    int64_t epoch;    /* 0-based */
    uint64_t number;  /* of documents given before this one */
} icae_document;

/* Everything since the start of the run, carried over by save and restore. What is still in the
 * buffer is counted as read. */
typedef struct icae_corpus_stats {
    int64_t epoch;
    size_t n_files, n_buffered;
    uint64_t documents; /* given out */
    uint64_t bytes;     /* of all their fields */
    uint64_t broken, empty, repaired;
} icae_corpus_stats;

typedef struct icae_corpus icae_corpus;

/* Finds the files and opens none. Fails when a path does not exist, has an unknown ending, names a
 * file twice, or when a folder or pattern holds no file. */
icae_status icae_corpus_open(icae_corpus **corpus, const icae_corpus_options *options,
                             icae_error *error);
void icae_corpus_close(icae_corpus *corpus);

/* The next document. A whole epoch without any is an error, so that nobody waits for ever. After
 * an error the corpus can only be closed. */
icae_status icae_corpus_next(icae_corpus *corpus, icae_document *document, icae_error *error);

/* How many files both lists of paths mean, whatever they are called there; *first names one of them as the
 * second list does (malloc'ed, NULL when there is none). Fails where opening either would. */
icae_status icae_corpus_find_shared(const char *const *paths, size_t n_paths,
                                    const char *const *others, size_t n_others, size_t *count,
                                    char **first, icae_error *error);

icae_corpus_stats icae_corpus_get_stats(const icae_corpus *corpus);

/* Appends one JSON object. Documents given out count as used. Fails only when memory ends. */
icae_status icae_corpus_save_state(const icae_corpus *corpus, icae_text *json,
                                   icae_error *error);
/* For a corpus just opened. `json` is the document that holds `state`. Refused, with the
 * first difference named, when files (path, size), seed, fields or buffer sizes are not those of
 * the state. Cost: the buffered documents are read again, each file at most once through. */
icae_status icae_corpus_restore_state(icae_corpus *corpus, const icae_json *json,
                                      const icae_json_value *state, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
