/* SPDX-License-Identifier: MIT */
/*
 * Folders as one sequence of bytes, for fuzzing and for the tables of tests/broken: the bytes of the folder's
 * first file, or several parts: the byte 1E, a digit that says which file, and the bytes of that file up to the
 * next such mark. Files that no part names hold what they hold in a sound folder.
 */
#ifndef ICAE_TESTS_FUZZ_SOUND_H
#define ICAE_TESTS_FUZZ_SOUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SOUND_MOST_FILES = 8, SOUND_MARK = 0x1E };

typedef struct sound_file {
    const char *name;
    const void *data; /* of a sound folder */
    size_t bytes;
} sound_file;

/* Whether a part begins at data[at]; *file is the one that it names. */
static inline bool sound_is_mark(size_t n_files, const uint8_t *data, size_t bytes, size_t at,
                                 size_t *file) {
    if (bytes - at < 2 || data[at] != SOUND_MARK || data[at + 1] < '0' ||
        (size_t)(data[at + 1] - '0') >= n_files)
        return false;
    *file = (size_t)(data[at + 1] - '0');
    return true;
}

/* Where each of the files lies in the bytes; parts[i] is NULL for those that are as in a sound folder. */
static inline void sound_split(size_t n_files, const uint8_t *data, size_t bytes,
                               const uint8_t *parts[SOUND_MOST_FILES],
                               size_t sizes[SOUND_MOST_FILES]) {
    size_t file = 0, at = 0;
    for (size_t i = 0; i < n_files; i++)
        parts[i] = NULL;
    if (sound_is_mark(n_files, data, bytes, 0, &file)) at = 2;
    for (;;) {
        size_t end = at, next = file;
        while (end < bytes && !sound_is_mark(n_files, data, bytes, end, &next))
            end++;
        parts[file] = data + at;
        sizes[file] = end - at;
        if (end >= bytes) return;
        file = next;
        at = end + 2;
    }
}

#endif
