/* SPDX-License-Identifier: MIT */
/* Which files a list of paths, folders and patterns means; see icae/corpus.h. */
#include <glob.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "corpus_internal.h"
#include "icae/file.h"
#include "icae/rng.h"

#define KNOWN_ENDINGS ".jsonl, .json or .txt, each also with .gz"

enum { MOST_FILES = 1000000 };

typedef struct file_list {
    corpus_file *files;
    size_t count, capacity;
} file_list;

static bool ends_with(const char *string, size_t length, const char *ending) {
    size_t n = strlen(ending);
    return length > n && !memcmp(string + length - n, ending, n);
}

static bool has_known_ending(const char *path, bool *is_text) {
    size_t length = strlen(path);
    if (ends_with(path, length, ".gz")) length -= 3;
    *is_text = ends_with(path, length, ".txt");
    return *is_text || ends_with(path, length, ".jsonl") || ends_with(path, length, ".json");
}

/* Takes over `path`, also when it fails. */
static icae_status add_file(file_list *list, char *path, icae_error *error) {
    if (!path) return icae_fail_memory(error, "the list of data files");
    corpus_file file = {.path = path, .bytes = icae_file_bytes(path)};
    icae_status status = ICAE_OK;
    if (file.bytes < 0) {
        status = icae_fail(error, ICAE_IO, "%s: is not a regular file", path);
    } else if (!has_known_ending(path, &file.is_text)) {
        status = icae_fail(
            error, ICAE_INVALID,
            "%s: unknown kind of data file, expected a name ending in " KNOWN_ENDINGS, path);
    } else if (list->count == MOST_FILES) {
        status = icae_fail(error, ICAE_INVALID,
                           "%s: more than %d data files: join some of them", path, MOST_FILES);
    } else if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        corpus_file *larger = realloc(list->files, capacity * sizeof *larger);
        if (larger) {
            list->files = larger;
            list->capacity = capacity;
        } else {
            status = icae_fail_memory(error, "the list of data files");
        }
    }
    if (status) {
        free(path);
        return status;
    }
    list->files[list->count++] = file;
    return ICAE_OK;
}

static icae_status add_folder(file_list *list, const char *folder, icae_error *error) {
    char **names;
    size_t count, before = list->count;
    icae_status status = icae_folder_list(folder, &names, &count, error);
    if (status) return status;
    for (size_t i = 0; !status && i < count; i++) {
        bool is_text;
        /* A name that begins with a dot is somebody's unfinished file. */
        if (names[i][0] == '.' || !has_known_ending(names[i], &is_text)) continue;
        char *path = icae_path_join(folder, names[i]);
        if (path && icae_path_is_folder(path)) {
            free(path);
            continue;
        }
        status = add_file(list, path, error);
    }
    icae_names_free(names, count);
    if (!status && list->count == before) {
        return icae_fail(error, ICAE_INVALID,
                         "%s: holds no data file, expected names ending in " KNOWN_ENDINGS,
                         folder);
    }
    return status;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static icae_status add_pattern(file_list *list, const char *pattern, icae_error *error) {
    glob_t matches = {0};
    int result = glob(pattern, GLOB_NOSORT, NULL, &matches);
    icae_status status = ICAE_OK;
    if (result == GLOB_NOMATCH) {
        status = icae_fail(error, ICAE_IO, "%s: no file matches this pattern", pattern);
    } else if (result) {
        status =
            icae_fail(error, ICAE_IO, "%s: cannot look for files of this pattern", pattern);
    } else {
        /* By bytes, so that the order is the same under every locale. */
        qsort(matches.gl_pathv, matches.gl_pathc, sizeof *matches.gl_pathv, compare_strings);
        for (size_t i = 0; !status && i < matches.gl_pathc; i++)
            status = add_file(list, strdup(matches.gl_pathv[i]), error);
    }
    globfree(&matches);
    return status;
}

typedef struct file_identity {
    uint64_t device, inode;
    const char *path;
} file_identity;

static int compare_identities(const void *a, const void *b) {
    const file_identity *x = a, *y = b;
    if (x->device != y->device) return x->device < y->device ? -1 : 1;
    return (x->inode > y->inode) - (x->inode < y->inode);
}

/* The same file under two names would silently count double, so identity is what the system says,
 * not the spelling of the path. */
static icae_status refuse_duplicates(const file_list *list, icae_error *error) {
    file_identity *identities = calloc(list->count, sizeof *identities);
    if (!identities) return icae_fail_memory(error, "the list of data files");
    icae_status status = ICAE_OK;
    for (size_t i = 0; !status && i < list->count; i++) {
        struct stat info;
        const char *path = list->files[i].path;
        if (stat(path, &info)) status = icae_fail(error, ICAE_IO, "%s: has vanished", path);
        identities[i] = (file_identity){(uint64_t)info.st_dev, (uint64_t)info.st_ino, path};
    }
    if (!status) qsort(identities, list->count, sizeof *identities, compare_identities);
    for (size_t i = 1; !status && i < list->count; i++) {
        if (!compare_identities(identities + i - 1, identities + i)) {
            status = icae_fail(error, ICAE_INVALID,
                               "%s and %s are the same file: name every data file once",
                               identities[i - 1].path, identities[i].path);
        }
    }
    free(identities);
    return status;
}

/* Sorted, in *identities [corpus->n_files], malloc'ed; the paths stay the corpus's. */
static icae_status identify(const icae_corpus *corpus, file_identity **identities,
                            icae_error *error) {
    *identities = calloc(corpus->n_files, sizeof **identities);
    if (!*identities) return icae_fail_memory(error, "the list of data files");
    for (size_t i = 0; i < corpus->n_files; i++) {
        struct stat info;
        const char *path = corpus->files[i].path;
        if (stat(path, &info)) return icae_fail(error, ICAE_IO, "%s: has vanished", path);
        (*identities)[i] = (file_identity){(uint64_t)info.st_dev, (uint64_t)info.st_ino, path};
    }
    qsort(*identities, corpus->n_files, sizeof **identities, compare_identities);
    return ICAE_OK;
}

icae_status icae_corpus_find_shared(const char *const *paths, size_t n_paths,
                                    const char *const *others, size_t n_others, size_t *count,
                                    char **first, icae_error *error) {
    *count = 0;
    *first = NULL;
    const icae_corpus_options options[2] = {{.paths = paths, .n_paths = n_paths},
                                            {.paths = others, .n_paths = n_others}};
    icae_corpus *corpora[2] = {NULL, NULL};
    file_identity *identities[2] = {NULL, NULL};
    icae_status status = ICAE_OK;
    for (int i = 0; i < 2 && !status; i++) {
        status = icae_corpus_open(&corpora[i], &options[i], error);
        if (!status) status = identify(corpora[i], &identities[i], error);
    }
    for (size_t i = 0; !status && i < corpora[1]->n_files; i++) {
        const file_identity *other = &identities[1][i];
        if (!bsearch(other, identities[0], corpora[0]->n_files, sizeof *other,
                     compare_identities))
            continue;
        if (!(*count)++) *first = strdup(other->path);
        if (!*first) status = icae_fail_memory(error, "the list of data files");
    }
    for (int i = 0; i < 2; i++) {
        free(identities[i]);
        icae_corpus_close(corpora[i]);
    }
    return status;
}

static icae_status hash_file(corpus_file *file, icae_error *error) {
    enum { STRETCHES = 64, STRETCH_BYTES = 64 * 1024 };
    icae_mapping mapping;
    icae_status status = icae_mapping_open(&mapping, file->path, error);
    if (status) return status;
    uint64_t hash = mapping.bytes;
    size_t whole = (size_t)STRETCHES * STRETCH_BYTES;
    if (mapping.bytes <= whole) {
        hash = icae_hash64(mapping.data, mapping.bytes, hash);
    } else {
        size_t step = (mapping.bytes - STRETCH_BYTES) / (STRETCHES - 1);
        for (size_t i = 0; i < STRETCHES; i++)
            hash = icae_hash64(mapping.data + i * step, STRETCH_BYTES, hash);
    }
    icae_mapping_close(&mapping);
    file->hash = hash ? hash : 1;
    return ICAE_OK;
}

icae_status icae_corpus_hash_files(const icae_corpus *corpus, icae_error *error) {
    icae_status status = ICAE_OK;
    for (size_t i = 0; !status && i < corpus->n_files; i++) {
        if (!corpus->files[i].hash) status = hash_file(&corpus->files[i], error);
    }
    return status;
}

icae_status icae_corpus_find_files(icae_corpus *corpus, const icae_corpus_options *options,
                                   icae_error *error) {
    file_list list = {0};
    icae_status status = ICAE_OK;
    for (size_t i = 0; !status && i < options->n_paths; i++) {
        const char *path = options->paths[i];
        if (icae_path_is_folder(path)) {
            status = add_folder(&list, path, error);
        } else if (icae_path_exists(path)) {
            status = add_file(&list, strdup(path), error);
        } else if (strpbrk(path, "*?[")) {
            status = add_pattern(&list, path, error);
        } else {
            status = icae_fail(error, ICAE_IO, "%s: there is no such file or folder", path);
        }
    }
    if (!status && !list.count) {
        status = icae_fail(error, ICAE_INVALID, "no data files are named");
    }
    if (!status) status = refuse_duplicates(&list, error);
    for (size_t i = 0; !status && i < list.count; i++) {
        if (list.files[i].is_text && corpus->n_fields > 1) {
            status =
                icae_fail(error, ICAE_INVALID,
                          "%s: is plain text, but rows with the fields \"%s\", \"%s\"... are "
                          "wanted: use JSON lines",
                          list.files[i].path, corpus->fields[0], corpus->fields[1]);
        }
    }
    /* Even after a failure: the corpus owns the list and its close frees it. */
    corpus->files = list.files;
    corpus->n_files = list.count;
    corpus->stats.n_files = list.count;
    return status;
}
