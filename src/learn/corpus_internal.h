/* SPDX-License-Identifier: MIT */
/* What corpus.c (reading), corpus_files.c (finding files) and corpus_state.c share. */
#ifndef ICAE_LEARN_CORPUS_INTERNAL_H
#define ICAE_LEARN_CORPUS_INTERNAL_H

#include "icae/corpus.h"
#include "icae/lines.h"

typedef struct corpus_file {
    char *path;
    int64_t bytes;
    bool is_text;  /* one document, else JSON lines */
    uint64_t hash; /* see icae_corpus_hash_files; 0: not yet made */
} corpus_file;

/* Where a document begins: enough to read it again. */
typedef struct corpus_place {
    size_t file; /* index into icae_corpus.files */
    uint64_t offset;
    int64_t lines_before;
} corpus_place;

/* A document in memory: its fields one after another, each with a final 0. */
typedef struct corpus_item {
    corpus_place place;
    char *data;
    size_t field_bytes[ICAE_CORPUS_FIELDS];
    size_t bytes; /* of all fields */
} corpus_item;

struct icae_corpus {
    corpus_file *files;
    size_t n_files;
    char *fields[ICAE_CORPUS_FIELDS];
    size_t n_fields;
    uint64_t seed;
    size_t shuffle_documents, shuffle_bytes, limit_bytes;
    int64_t epochs;
    bool strict;
    const char *advice;

    size_t *order;     /* [n_files]: this epoch's permutation */
    size_t order_at;   /* how many files of it are done */
    icae_lines *lines; /* the file order[order_at], or NULL before it is opened */
    uint64_t draws;    /* made in this epoch */
    bool is_over;      /* the last epoch has ended */

    corpus_item *buffer; /* [capacity] */
    size_t n_buffered, capacity;
    size_t buffered_bytes;
    corpus_item given; /* what the last call to next handed out */

    uint64_t epoch_documents; /* given out in this epoch */
    icae_corpus_stats stats;
    icae_text scratch;       /* a text file being read, or a line being repaired */
    char first_problem[512]; /* the first broken line's complaint, for "no document found" */
};

typedef enum corpus_outcome { CORPUS_ITEM, CORPUS_NOTHING, CORPUS_FILE_END } corpus_outcome;

/* corpus_files.c */
icae_status icae_corpus_find_files(icae_corpus *corpus, const icae_corpus_options *options,
                                   icae_error *error);

/* Makes the hashes that are not made yet: of a whole file up to 4 MB, of 64 stretches of 64 kB spread
 * evenly over a larger one. That another file of the same length stands in the place of the one that a
 * run began with is noticed without reading terabytes of shards. */
icae_status icae_corpus_hash_files(const icae_corpus *corpus, icae_error *error);

/* corpus.c: reads on in `lines`, which belongs to files[file]. CORPUS_NOTHING: a blank, empty or
 * broken line was passed over. is_again: a document that was good once; a problem is an error. */
icae_status icae_corpus_read(icae_corpus *corpus, size_t file, icae_lines *lines, bool is_again,
                             corpus_item *item, corpus_outcome *outcome, icae_error *error);
void icae_corpus_begin_epoch(icae_corpus *corpus);
icae_status icae_corpus_append_item(icae_corpus *corpus, const corpus_item *item,
                                    icae_error *error);

#endif
