/* SPDX-License-Identifier: MIT */
/*
 * Lines out of plain or gzipped files; the contract stands in icae/lines.h.
 *
 * One buffer holds the text that was read but not handed out, data[start..end). It begins with
 * 256 KB and grows only for a longer line, up to the caller's limit. A line is handed out in place:
 * the 0 goes where its "\n" stood. (gzgets would stop at 0 bytes and is slow.)
 *
 * When a gzip stream breaks off, the lines before the break are still handed out; the call that
 * needs what is missing fails, and so does every call after it.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <zlib.h>

#include "icae/lines.h"

enum { FIRST_CAPACITY = 256 * 1024, ZLIB_BUFFER = 128 * 1024 };

struct icae_lines {
    char *path;
    gzFile file;
    char *data;
    size_t start, end, capacity; /* capacity leaves out one byte for a final 0 */
    uint64_t offset;             /* of data[start] in the uncompressed text */
    int64_t number;
    bool at_end;
};

/* A named pipe would keep the program waiting for somebody who writes into it; those that a shell or the
 * system names, /dev/stdin and /dev/fd/N, have a writer. */
static bool may_wait_for_ever(const char *path) {
    struct stat info;
    return strncmp(path, "/dev/", 5) != 0 && !stat(path, &info) && S_ISFIFO(info.st_mode);
}

icae_status icae_lines_open(icae_lines **result, const char *path, icae_error *error) {
    *result = NULL;
    if (may_wait_for_ever(path))
        return icae_fail(error, ICAE_IO, "%s: is not a regular file", path);
    icae_lines *lines = calloc(1, sizeof *lines);
    if (lines) {
        lines->capacity = FIRST_CAPACITY;
        lines->path = strdup(path);
        lines->data = malloc(lines->capacity + 1);
    }
    if (!lines || !lines->path || !lines->data) {
        icae_lines_close(lines);
        return icae_fail_memory(error, path);
    }
    errno = 0;
    lines->file = gzopen(path, "rbe"); /* e: closed in programs that this one starts */
    if (!lines->file) {
        int code = errno;
        icae_lines_close(lines);
        return code == ENOMEM
                   ? icae_fail_memory(error, path)
                   : icae_fail(error, ICAE_IO, "%s: cannot open: %s", path, strerror(code));
    }
    gzbuffer(lines->file, ZLIB_BUFFER);
    *result = lines;
    return ICAE_OK;
}

void icae_lines_close(icae_lines *lines) {
    if (!lines) return;
    if (lines->file) gzclose_r(lines->file);
    free(lines->data);
    free(lines->path);
    free(lines);
}

/* The sentence for what zlib last complained about; ICAE_OK when it did not. */
static icae_status stream_status(const icae_lines *lines, icae_error *error) {
    int code = Z_OK;
    const char *reason = gzerror(lines->file, &code); /* "PATH: reason" */
    size_t path_bytes = strlen(lines->path);
    if (!strncmp(reason, lines->path, path_bytes) && !strncmp(reason + path_bytes, ": ", 2))
        reason += path_bytes + 2;
    unsigned long long reached =
        (unsigned long long)(lines->offset + (lines->end - lines->start));
    switch (code) {
    case Z_OK:
    case Z_STREAM_END:
        return ICAE_OK;
    case Z_BUF_ERROR:
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the gzip stream is cut off after byte %llu of its text (line "
                         "%lld); fetch it again",
                         lines->path, reached, (long long)lines->number + 1);
    case Z_ERRNO:
        return icae_fail(error, ICAE_IO, "%s: cannot read past byte %llu: %s", lines->path,
                         reached, strerror(errno));
    case Z_MEM_ERROR:
        return icae_fail_memory(error, lines->path);
    default:
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the gzip stream is damaged after byte %llu of its text (line "
                         "%lld): %s; fetch it again",
                         lines->path, reached, (long long)lines->number + 1, reason);
    }
}

/* Reads on behind data[end), making room first; at_end when there is no more. */
static icae_status fill(icae_lines *lines, icae_error *error) {
    if (lines->start) {
        memmove(lines->data, lines->data + lines->start, lines->end - lines->start);
        lines->end -= lines->start;
        lines->start = 0;
    }
    if (lines->end == lines->capacity) {
        size_t capacity = 2 * lines->capacity;
        char *larger = realloc(lines->data, capacity + 1);
        if (!larger) return icae_fail_memory(error, lines->path);
        lines->data = larger;
        lines->capacity = capacity;
    }
    size_t room = lines->capacity - lines->end;
    if (room > INT_MAX) room = INT_MAX;
    errno = 0;
    int n = gzread(lines->file, lines->data + lines->end, (unsigned)room);
    if (n > 0) {
        lines->end += (size_t)n; /* a complaint that came with it is met by the next call */
        return ICAE_OK;
    }
    icae_status status = stream_status(lines, error);
    if (!status) lines->at_end = true;
    return status;
}

static icae_status refuse_long(const icae_lines *lines, size_t limit_bytes, icae_error *error) {
    return icae_fail(error, ICAE_INVALID,
                     "%s: line %lld is longer than %zu bytes; split it or raise the limit",
                     lines->path, (long long)lines->number + 1, limit_bytes);
}

icae_status icae_lines_next(icae_lines *lines, size_t limit_bytes, const char **line,
                            size_t *bytes, icae_error *error) {
    *line = NULL;
    *bytes = 0;
    size_t searched = 0; /* bytes from start that hold no newline */
    char *newline = NULL;
    for (;;) {
        size_t held = lines->end - lines->start;
        char *from = lines->data + lines->start;
        newline = memchr(from + searched, '\n', held - searched);
        if (newline || lines->at_end) break;
        searched = held;
        /* One byte more than the limit may be the "\r" of a line end. */
        if (held > limit_bytes && held - limit_bytes > 1) {
            return refuse_long(lines, limit_bytes, error);
        }
        icae_status status = fill(lines, error);
        if (status) return status;
    }
    char *from = lines->data + lines->start;
    size_t taken = newline ? (size_t)(newline - from) + 1 : lines->end - lines->start;
    if (!taken) return ICAE_OK; /* the end of the file */
    size_t length = newline ? taken - 1 : taken;
    if (newline && length && from[length - 1] == '\r') length--;
    if (length > limit_bytes) return refuse_long(lines, limit_bytes, error);
    from[length] = 0;
    lines->start += taken;
    lines->offset += taken;
    lines->number++;
    *line = from;
    *bytes = length;
    return ICAE_OK;
}

int64_t icae_lines_number(const icae_lines *lines) {
    return lines->number;
}

uint64_t icae_lines_offset(const icae_lines *lines) {
    return lines->offset;
}

icae_status icae_lines_seek(icae_lines *lines, uint64_t offset, int64_t lines_before,
                            icae_error *error) {
    assert(lines_before >= 0);
    /* The byte before the place is read too: it shows that the place begins a line. */
    uint64_t before = offset ? offset - 1 : 0;
    lines->start = lines->end = 0;
    lines->offset = before;
    lines->number = lines_before;
    lines->at_end = false;
    gzclearerr(lines->file);
    gzdirect(
        lines->file); /* lets zlib look at the first bytes: plain files are not read through */
    z_off_t target = (z_off_t)before;
    if (target < 0 || (uint64_t)target != before ||
        gzseek(lines->file, target, SEEK_SET) != target) {
        icae_status status = stream_status(lines, error);
        return status ? status
                      : icae_fail(error, ICAE_IO, "%s: cannot go to byte %llu", lines->path,
                                  (unsigned long long)offset);
    }
    if (!offset) return ICAE_OK;
    icae_status status = fill(lines, error);
    if (status) return status;
    if (lines->at_end) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: ends before byte %llu, where line %lld was to begin; the file "
                         "is not the one that was read before",
                         lines->path, (unsigned long long)offset, (long long)lines_before + 1);
    }
    bool is_line_end = lines->data[0] == '\n';
    lines->start = 1;
    lines->offset = offset;
    if (!is_line_end && lines->start == lines->end) status = fill(lines, error);
    if (status) return status;
    /* Behind a last line without "\n" only the end of the file may come. */
    if (!is_line_end && !lines->at_end) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: no line begins at byte %llu; the file is not the one that was "
                         "read before",
                         lines->path, (unsigned long long)offset);
    }
    return ICAE_OK;
}
