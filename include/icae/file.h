/* SPDX-License-Identifier: MIT */
/*
 * Files: read whole, mapped read-only, and written whole or not at all.
 *
 * A writer puts its bytes into a temporary file beside the target; commit flushes it to the disk
 * (fsync), renames it over the target and flushes the folder. Until then the old file stands
 * untouched; after abort, or a crash, at most a file named `.NAME.tmp-PID` is left behind
 * (`.NAME.tmp-PID-N` where that is there already; NAME is cut where it is too long). Several writers of one file do
 * not mix: the last one to commit stays.
 */
#ifndef ICAE_FILE_H
#define ICAE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A file mapped read-only. An empty file has bytes = 0 and data = "". */
typedef struct icae_mapping {
    const unsigned char *data;
    size_t bytes;
    char *path; /* as given; owned */
} icae_mapping;

icae_status icae_mapping_open(icae_mapping *mapping, const char *path, icae_error *error);
void icae_mapping_close(icae_mapping *mapping); /* views into it die here */
/* The bytes so far, offset 0 to `bytes`, will not be looked at soon: they need not stay in memory. They
 * can still be read, and come from the file again. */
void icae_mapping_pass(const icae_mapping *mapping, size_t bytes);

/* The whole file as malloc'ed bytes with a 0 after the last; *bytes may be NULL. Refuses a file
 * larger than limit_bytes. The caller frees *data. */
icae_status icae_file_read(const char *path, size_t limit_bytes, char **data, size_t *bytes,
                           icae_error *error);

typedef struct icae_writer {
    char *path, *temporary; /* owned */
    int descriptor;         /* -1 when closed */
    unsigned char *buffer;
    size_t used;
    uint64_t bytes_written;
    icae_status failed; /* sticky: the first failure is what commit reports */
    char reason[256];
} icae_writer;

/*
 * begin, write as often as you like (failures are kept), then commit or abort, which release.
 *
 * begin refuses a path that is there and is no regular file: a folder, a pipe, a device. A link is written through:
 * the file that it leads to is replaced.
 */
icae_status icae_writer_begin(icae_writer *writer, const char *path, icae_error *error);
void icae_writer_write(icae_writer *writer, const void *data, size_t bytes);
icae_status icae_writer_commit(icae_writer *writer, icae_error *error);
void icae_writer_abort(icae_writer *writer);

/* begin + write + commit. */
icae_status icae_file_write(const char *path, const void *data, size_t bytes,
                            icae_error *error);

/* Whether a file can be begun at path, which stays as it is: for those who work for long before they write. */
icae_status icae_file_check_writable(const char *path, icae_error *error);

/* Appends whole records to a log such as metrics.jsonl; flushed to the disk before return. */
icae_status icae_file_append(const char *path, const void *data, size_t bytes,
                             icae_error *error);

bool icae_path_exists(const char *path);
/* The same where a mistake would cost something: "not there" is told from "cannot be seen". */
icae_status icae_path_find(const char *path, bool *is_there, icae_error *error);
bool icae_path_is_folder(const char *path);
int64_t icae_file_bytes(const char *path); /* -1 when there is no such file */

/* mkdir -p; every folder made is flushed into its parent. Existing folders are fine. */
icae_status icae_folder_make(const char *path, icae_error *error);
/* rm -r of a folder that this program made. A missing folder is fine. */
icae_status icae_folder_remove(const char *path, icae_error *error);
/* Names in a folder, without "." and "..", sorted by bytes; free each and the array, or use
 * icae_names_free. */
icae_status icae_folder_list(const char *path, char ***names, size_t *count, icae_error *error);
void icae_names_free(char **names, size_t count);
/* fsync of a folder, so that renames in it survive a power cut. */
icae_status icae_folder_sync(const char *path, icae_error *error);

/* malloc'ed "folder/name"; NULL when memory ends. */
char *icae_path_join(const char *folder, const char *name);

#ifdef __cplusplus
}
#endif
#endif
