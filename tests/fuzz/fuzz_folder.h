/* SPDX-License-Identifier: MIT */
/*
 * A folder of files in memory for readers that want one. An input is the bytes of the folder's first file,
 * or several parts: the byte 1E, a digit that says which file, and the bytes of that file up to the next
 * such mark. Files that no part names hold what they hold in a sound folder.
 */
#ifndef ICAE_TESTS_FUZZ_FOLDER_H
#define ICAE_TESTS_FUZZ_FOLDER_H

#include <sys/stat.h>

#include "fuzz.h"

enum { FUZZ_MOST_FILES = 8, FUZZ_MARK = 0x1E };

typedef struct fuzz_sound_file {
    const char *name;
    const void *data; /* of a sound folder */
    size_t bytes;
} fuzz_sound_file;

typedef struct fuzz_folder {
    char path[128];
    size_t n_files;
    const fuzz_sound_file *sound; /* [n_files] */
    fuzz_memory_file files[FUZZ_MOST_FILES];
    bool is_changed[FUZZ_MOST_FILES]; /* by the last input */
} fuzz_folder;

static fuzz_folder *fuzz_folder_to_remove;

static inline void fuzz_folder_remove(void) {
    fuzz_folder *folder = fuzz_folder_to_remove;
    char link[256];
    for (size_t i = 0; i < folder->n_files; i++) {
        snprintf(link, sizeof link, "%s/%s", folder->path, folder->sound[i].name);
        unlink(link);
    }
    rmdir(folder->path);
}

/* Makes a folder of links to files in memory; once in a program, and removed at its end. */
static inline void fuzz_folder_make(fuzz_folder *folder, const fuzz_sound_file *sound,
                                    size_t n_files) {
    if (n_files > FUZZ_MOST_FILES) abort();
    *folder = (fuzz_folder){.n_files = n_files, .sound = sound};
    snprintf(folder->path, sizeof folder->path, "/tmp/icae-fuzz-%d", (int)getpid());
    if (mkdir(folder->path, 0777)) abort();
    for (size_t i = 0; i < n_files; i++) {
        char link[256];
        snprintf(link, sizeof link, "%s/%s", folder->path, sound[i].name);
        fuzz_fill(&folder->files[i], sound[i].data, sound[i].bytes);
        if (symlink(folder->files[i].path, link)) abort();
    }
    fuzz_folder_to_remove = folder;
    atexit(fuzz_folder_remove);
}

/* Whether a part begins at data[at]; *file is the one that it names. */
static inline bool fuzz_is_mark(const fuzz_folder *folder, const uint8_t *data, size_t bytes,
                                size_t at, size_t *file) {
    if (bytes - at < 2 || data[at] != FUZZ_MARK || data[at + 1] < '0' ||
        (size_t)(data[at + 1] - '0') >= folder->n_files)
        return false;
    *file = (size_t)(data[at + 1] - '0');
    return true;
}

/* Fills the files; returns how many bytes they have together. */
static inline size_t fuzz_folder_fill(fuzz_folder *folder, const uint8_t *data, size_t bytes) {
    const uint8_t *parts[FUZZ_MOST_FILES] = {0};
    size_t sizes[FUZZ_MOST_FILES] = {0}, file = 0, at = 0, next = 0;
    if (fuzz_is_mark(folder, data, bytes, 0, &file)) at = 2;
    while (at <= bytes) {
        size_t end = at, following = file;
        while (end < bytes && !fuzz_is_mark(folder, data, bytes, end, &next))
            end++;
        if (end < bytes) following = next;
        parts[file] = data + at;
        sizes[file] = end - at;
        file = following;
        at = end + 2;
        if (end >= bytes) break;
    }
    size_t total = 0;
    for (size_t i = 0; i < folder->n_files; i++) {
        const fuzz_sound_file *sound = &folder->sound[i];
        if (parts[i])
            fuzz_fill(&folder->files[i], parts[i], sizes[i]);
        else if (folder->is_changed[i])
            fuzz_fill(&folder->files[i], sound->data, sound->bytes);
        folder->is_changed[i] = parts[i] != NULL;
        total += parts[i] ? sizes[i] : sound->bytes;
    }
    return total;
}

#endif
