/* SPDX-License-Identifier: MIT */
/* A folder of files in memory for readers that want one; how an input becomes files stands in sound.h. */
#ifndef ICAE_TESTS_FUZZ_FOLDER_H
#define ICAE_TESTS_FUZZ_FOLDER_H

#include <sys/stat.h>

#include "fuzz.h"
#include "sound.h"

typedef struct fuzz_folder {
    char path[128];
    size_t n_files;
    const sound_file *sound; /* [n_files] */
    fuzz_memory_file files[SOUND_MOST_FILES];
    bool is_changed[SOUND_MOST_FILES]; /* by the last input */
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
static inline void fuzz_folder_make(fuzz_folder *folder, const sound_file *sound,
                                    size_t n_files) {
    if (n_files > SOUND_MOST_FILES) abort();
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

/* Fills the files; returns how many bytes they have together. */
static inline size_t fuzz_folder_fill(fuzz_folder *folder, const uint8_t *data, size_t bytes) {
    const uint8_t *parts[SOUND_MOST_FILES];
    size_t sizes[SOUND_MOST_FILES];
    sound_split(folder->n_files, data, bytes, parts, sizes);
    size_t total = 0;
    for (size_t i = 0; i < folder->n_files; i++) {
        const sound_file *sound = &folder->sound[i];
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
