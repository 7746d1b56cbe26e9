/* SPDX-License-Identifier: MIT */
/*
 * Lines and whole texts from files that may be gzipped (zlib decides by the first bytes).
 *
 * A reader knows its place exactly: the byte offset in the *uncompressed* text at which the next
 * line starts, and that line's number. Seeking there again gives the same lines.
 */
#ifndef ICAE_LINES_H
#define ICAE_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_lines icae_lines;

icae_status icae_lines_open(icae_lines **lines, const char *path, icae_error *error);
void icae_lines_close(icae_lines *lines);

/*
 * The next line without its "\n" (or "\r\n"), 0-terminated; valid until the next call. *line is
 * NULL at the end of the file. A line longer than limit_bytes is an error that names its number; a
 * truncated or damaged gzip stream is an error that names the byte.
 */
icae_status icae_lines_next(icae_lines *lines, size_t limit_bytes, const char **line,
                            size_t *bytes, icae_error *error);

int64_t
icae_lines_number(const icae_lines *lines); /* 1-based number of the line last returned */
uint64_t icae_lines_offset(const icae_lines *lines); /* uncompressed offset of the next line */
icae_status icae_lines_seek(icae_lines *lines, uint64_t offset, int64_t lines_before,
                            icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
