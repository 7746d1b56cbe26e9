/* SPDX-License-Identifier: MIT */
/* Mapped, read and atomically written files; the promises stand in icae/file.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "icae/file.h"
#include "icae/memory.h"

enum { WRITER_BUFFER = 1 << 20 };

/* ---- reading ---- */

/* Opens a regular file and nothing else. O_NONBLOCK: a named pipe in its place would keep open() waiting for
 * a partner, and a device might do anything. Once the kind is known the flag is taken off again. */
static icae_status open_regular(const char *path, int flags, int *descriptor, size_t *bytes,
                                icae_error *error) {
    const char *purpose = flags & O_WRONLY ? "write" : "open";
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return icae_fail(error, ICAE_IO, "%s: cannot %s: %s", path, purpose, strerror(errno));
    }
    struct stat info;
    if (fstat(fd, &info)) {
        icae_fail(error, ICAE_IO, "%s: cannot examine: %s", path, strerror(errno));
        close(fd);
        return ICAE_IO;
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return icae_fail(error, ICAE_IO, "%s: is not a regular file", path);
    }
    fcntl(fd, F_SETFL, flags & O_APPEND);
    *descriptor = fd;
    if (bytes) *bytes = (size_t)info.st_size;
    return ICAE_OK;
}

icae_status icae_mapping_open(icae_mapping *mapping, const char *path, icae_error *error) {
    *mapping = (icae_mapping){0};
    int fd;
    size_t bytes;
    icae_status status = open_regular(path, O_RDONLY, &fd, &bytes, error);
    if (status) return status;
    const void *data = "";
    if (bytes) {
        data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            icae_fail(error, ICAE_IO, "%s: cannot map %zu bytes: %s", path, bytes,
                      strerror(errno));
            close(fd);
            return ICAE_IO;
        }
    }
    close(fd);
    mapping->path = strdup(path);
    if (!mapping->path) {
        if (bytes) munmap((void *)(uintptr_t)data, bytes);
        return icae_fail_memory(error, path);
    }
    mapping->data = data;
    mapping->bytes = bytes;
    return ICAE_OK;
}

void icae_mapping_close(icae_mapping *mapping) {
    if (mapping->bytes) munmap((void *)(uintptr_t)mapping->data, mapping->bytes);
    free(mapping->path);
    *mapping = (icae_mapping){0};
}

void icae_mapping_pass(const icae_mapping *mapping, size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bytes = (bytes < mapping->bytes ? bytes : mapping->bytes) / page * page;
    if (bytes) madvise((void *)(uintptr_t)mapping->data, bytes, MADV_DONTNEED);
}

icae_status icae_file_read(const char *path, size_t limit_bytes, char **data, size_t *bytes,
                           icae_error *error) {
    *data = NULL;
    int fd;
    size_t size;
    icae_status status = open_regular(path, O_RDONLY, &fd, &size, error);
    if (status) return status;
    if (size > limit_bytes) {
        close(fd);
        return icae_fail(error, ICAE_INVALID, "%s: has %zu bytes, expected at most %zu", path,
                         size, limit_bytes);
    }
    char *buffer = malloc(size + 1);
    if (!buffer) {
        close(fd);
        return icae_fail_memory(error, path);
    }
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, buffer + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            icae_fail(error, ICAE_IO, "%s: cannot read byte %zu of %zu: %s", path, done, size,
                      n < 0 ? strerror(errno) : "the file became shorter");
            free(buffer);
            close(fd);
            return ICAE_IO;
        }
        done += (size_t)n;
    }
    close(fd);
    buffer[size] = 0;
    *data = buffer;
    if (bytes) *bytes = size;
    return ICAE_OK;
}

/* ---- writing ---- */

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* Makes what was done to the name `path` last: its folder is flushed. */
static icae_status sync_parent(const char *path, icae_error *error) {
    char *folder = folder_of(path);
    if (!folder) return icae_fail_memory(error, path);
    icae_status status = icae_folder_sync(folder, error);
    free(folder);
    return status;
}

/* The number-th hidden name beside `path` for what is being written: .NAME.tmp-PID, then .NAME.tmp-PID-1 and so
 * on. A name that leaves no room for the ending within the 255 bytes of a file's name stands there cut. */
static char *temporary_name(const char *path, int number) {
    enum { MOST_OF_NAME = 200 };
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t length = strlen(name);
    if (length > MOST_OF_NAME) {
        length = MOST_OF_NAME;
        while (length > 0 && ((unsigned char)name[length] & 0xC0) == 0x80)
            length--; /* not within a character */
    }
    char ending[16] = "", *temporary;
    if (number > 0) snprintf(ending, sizeof ending, "-%d", number);
    if (asprintf(&temporary, "%.*s.%.*s.tmp-%ld%s", (int)(name - path), path, (int)length, name,
                 (long)getpid(), ending) < 0) {
        return NULL;
    }
    return temporary;
}

/* Opens a temporary file that nobody else writes: another thread may be writing the same file, and a process of
 * another container may have our number. */
static icae_status open_temporary(icae_writer *writer, const char *path, icae_error *error) {
    enum { MOST_NAMES = 1000 };
    for (int number = 0; number < MOST_NAMES; number++) {
        char *name = temporary_name(writer->path, number);
        if (!name) return icae_fail_memory(error, path);
        do
            writer->descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        while (writer->descriptor < 0 && errno == EINTR);
        if (writer->descriptor >= 0) {
            writer->temporary = name;
            return ICAE_OK;
        }
        int reason = errno;
        free(name);
        errno = reason;
        if (reason != EEXIST) break;
    }
    return icae_fail(error, ICAE_IO, "%s: cannot write: %s", path, strerror(errno));
}

/* The name that the written file shall carry, malloc'ed; NULL when memory ends. Behind a link that is the file it
 * leads to, so that the link stays; a link that leads nowhere is replaced. */
static char *target_of(const char *path) {
    struct stat info;
    bool is_link = lstat(path, &info) == 0 && S_ISLNK(info.st_mode);
    char *target = is_link ? realpath(path, NULL) : strdup(path);
    return !target && is_link && errno != ENOMEM ? strdup(path) : target;
}

/* The rename takes any name but a folder's: without this, a device or a pipe would become a file. */
static icae_status check_target(const char *path, icae_error *error) {
    struct stat info;
    const char *reason = NULL;
    if (stat(path, &info) == 0) {
        if (S_ISDIR(info.st_mode))
            reason = "it is a folder";
        else if (!S_ISREG(info.st_mode))
            reason = "it is not a regular file";
    } else if (errno != ENOENT && errno != ENOTDIR) {
        reason = strerror(errno);
    }
    return reason ? icae_fail(error, ICAE_IO, "%s: cannot write: %s", path, reason) : ICAE_OK;
}

icae_status icae_writer_begin(icae_writer *writer, const char *path, icae_error *error) {
    *writer = (icae_writer){.descriptor = -1};
    icae_status status = check_target(path, error);
    if (status) return status;
    writer->path = target_of(path);
    writer->buffer = malloc(WRITER_BUFFER);
    status = writer->path && writer->buffer ? open_temporary(writer, path, error)
                                            : icae_fail_memory(error, path);
    if (status) icae_writer_abort(writer);
    return status;
}

static void writer_fail(icae_writer *writer, icae_status status, const char *reason) {
    if (writer->failed) return;
    writer->failed = status;
    snprintf(writer->reason, sizeof writer->reason, "%s", reason);
}

static bool write_all(int fd, const unsigned char *data, size_t bytes) {
    while (bytes) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool flush_to_disk(int fd) {
    int result;
    do
        result = fsync(fd);
    while (result && errno == EINTR);
    return result == 0;
}

static void writer_flush(icae_writer *writer) {
    if (!writer->failed && writer->used &&
        !write_all(writer->descriptor, writer->buffer, writer->used)) {
        writer_fail(writer, ICAE_IO, strerror(errno));
    }
    writer->used = 0;
}

void icae_writer_write(icae_writer *writer, const void *data, size_t bytes) {
    writer->bytes_written += bytes;
    const unsigned char *from = data;
    while (bytes && !writer->failed) {
        size_t room = WRITER_BUFFER - writer->used, n = bytes < room ? bytes : room;
        memcpy(writer->buffer + writer->used, from, n);
        writer->used += n;
        from += n;
        bytes -= n;
        if (writer->used == WRITER_BUFFER) writer_flush(writer);
    }
}

icae_status icae_writer_commit(icae_writer *writer, icae_error *error) {
    writer_flush(writer);
    if (!writer->failed && !flush_to_disk(writer->descriptor)) {
        writer_fail(writer, ICAE_IO, strerror(errno));
    }
    if (close(writer->descriptor) && errno != EINTR)
        writer_fail(writer, ICAE_IO, strerror(errno));
    writer->descriptor = -1;
    if (!writer->failed && rename(writer->temporary, writer->path)) {
        writer_fail(writer, ICAE_IO, strerror(errno));
    }
    icae_status status = writer->failed;
    if (status) {
        icae_fail(error, status,
                  "%s: cannot write: %s; an earlier file of this name is unharmed",
                  writer->path, writer->reason);
    } else {
        free(writer->temporary); /* it carries the final name now: abort must not remove it */
        writer->temporary = NULL;
        status = sync_parent(writer->path, error);
    }
    icae_writer_abort(writer);
    return status;
}

void icae_writer_abort(icae_writer *writer) {
    if (writer->descriptor >= 0) close(writer->descriptor);
    if (writer->temporary) unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    free(writer->buffer);
    *writer = (icae_writer){.descriptor = -1};
}

icae_status icae_file_write(const char *path, const void *data, size_t bytes,
                            icae_error *error) {
    icae_writer writer;
    icae_status status = icae_writer_begin(&writer, path, error);
    if (status) return status;
    icae_writer_write(&writer, data, bytes);
    return icae_writer_commit(&writer, error);
}

icae_status icae_file_check_writable(const char *path, icae_error *error) {
    icae_writer writer;
    icae_status status = icae_writer_begin(&writer, path, error);
    if (!status) icae_writer_abort(&writer);
    return status;
}

icae_status icae_file_append(const char *path, const void *data, size_t bytes,
                             icae_error *error) {
    bool is_new = !icae_path_exists(path);
    int fd;
    icae_status status = open_regular(path, O_WRONLY | O_CREAT | O_APPEND, &fd, NULL, error);
    if (status) return status;
    bool good = write_all(fd, data, bytes) && flush_to_disk(fd);
    int reason = errno;
    close(fd);
    if (!good)
        return icae_fail(error, ICAE_IO, "%s: cannot append: %s", path, strerror(reason));
    return is_new ? sync_parent(path, error) : ICAE_OK; /* its name, too, must last */
}

/* ---- paths and folders ---- */

bool icae_path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

icae_status icae_path_find(const char *path, bool *is_there, icae_error *error) {
    struct stat info;
    *is_there = stat(path, &info) == 0;
    if (*is_there || errno == ENOENT || errno == ENOTDIR) return ICAE_OK;
    return icae_fail(error, ICAE_IO, "%s: cannot examine: %s", path, strerror(errno));
}

bool icae_path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int64_t icae_file_bytes(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1;
}

icae_status icae_folder_make(const char *path, icae_error *error) {
    char *copy = strdup(path);
    if (!copy) return icae_fail_memory(error, path);
    icae_status status = ICAE_OK;
    for (char *at = copy;; at++) {
        if (*at != '/' && *at != 0) continue;
        char kept = *at;
        *at = 0;
        if (at != copy && !mkdir(copy, 0777)) {
            status =
                sync_parent(copy, error); /* a folder that a crash forgets loses all in it */
        } else if (at != copy && !(errno == EEXIST && icae_path_is_folder(copy))) {
            status = icae_fail(error, ICAE_IO, "%s: cannot make the folder: %s", copy,
                               strerror(errno));
        }
        if (status) break;
        *at = kept;
        if (!kept) break;
    }
    free(copy);
    return status;
}

icae_status icae_folder_remove(const char *path, icae_error *error) {
    struct stat info;
    if (lstat(path, &info)) {
        if (errno == ENOENT) return ICAE_OK;
        return icae_fail(error, ICAE_IO, "%s: cannot examine: %s", path, strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        char **names;
        size_t count;
        icae_status status = icae_folder_list(path, &names, &count, error);
        for (size_t i = 0; !status && i < count; i++) {
            char *inner = icae_path_join(path, names[i]);
            status = inner ? icae_folder_remove(inner, error) : icae_fail_memory(error, path);
            free(inner);
        }
        icae_names_free(names, count);
        if (status) return status;
    }
    if (remove(path)) {
        return icae_fail(error, ICAE_IO, "%s: cannot remove: %s", path, strerror(errno));
    }
    return ICAE_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

icae_status icae_folder_list(const char *path, char ***names, size_t *count,
                             icae_error *error) {
    *names = NULL;
    *count = 0;
    DIR *folder = opendir(path);
    if (!folder) {
        return icae_fail(error, ICAE_IO, "%s: cannot list: %s", path, strerror(errno));
    }
    size_t capacity = 0;
    icae_status status = ICAE_OK;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry && errno) {
            status = icae_fail(error, ICAE_IO, "%s: cannot list: %s", path, strerror(errno));
        }
        if (!entry) break;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            char **larger = realloc(*names, capacity * sizeof **names);
            if (!larger) {
                status = icae_fail_memory(error, path);
                break;
            }
            *names = larger;
        }
        if (!((*names)[*count] = strdup(entry->d_name))) {
            status = icae_fail_memory(error, path);
            break;
        }
        ++*count;
    }
    closedir(folder);
    if (status) {
        icae_names_free(*names, *count);
        *names = NULL;
        *count = 0;
    } else if (*count) {
        qsort(*names, *count, sizeof **names, compare_names);
    }
    return status;
}

void icae_names_free(char **names, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

icae_status icae_folder_sync(const char *path, icae_error *error) {
    int fd;
    do
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    /* A folder that may be written but not listed cannot be flushed. */
    if (fd < 0 && errno == EACCES) return ICAE_OK;
    if (fd < 0) return icae_fail(error, ICAE_IO, "%s: cannot open: %s", path, strerror(errno));
    /* Some file systems cannot flush a folder and say EINVAL; there is nothing more to do then. */
    bool good = flush_to_disk(fd) || errno == EINVAL;
    int reason = errno;
    close(fd);
    return good ? ICAE_OK
                : icae_fail(error, ICAE_IO, "%s: cannot flush: %s", path, strerror(reason));
}

char *icae_path_join(const char *folder, const char *name) {
    size_t length = strlen(folder);
    const char *separator = length && folder[length - 1] == '/' ? "" : "/";
    char *path;
    return asprintf(&path, "%s%s%s", folder, separator, name) < 0 ? NULL : path;
}
