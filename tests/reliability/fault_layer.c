/* SPDX-License-Identifier: MIT */
/* See fault_layer.h. A fault is counted and fired under one lock, as the feed has a thread of its own. */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "fault_layer.h"
#include "icae/checkpoint.h"
#include "icae/memory.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fault_kind armed = FAULT_COUNT;
static long seen, wanted;

static const int number_of[] = {
#define FAULT(name, number, copes) number,
    FAULT_LIST(FAULT)
#undef FAULT
};

void fault_arm(fault_kind kind, long nth) {
    pthread_mutex_lock(&lock);
    armed = kind;
    seen = 0;
    wanted = nth;
    pthread_mutex_unlock(&lock);
}

long fault_disarm(void) {
    pthread_mutex_lock(&lock);
    armed = FAULT_COUNT;
    long count = seen;
    pthread_mutex_unlock(&lock);
    return count;
}

static bool spares_bases;

void fault_spare_bases(bool spares) {
    spares_bases = spares;
}

/* Whether this call is the one that fails; then errno is set. */
static bool fires(fault_kind kind) {
    if (armed != kind) return false;
    pthread_mutex_lock(&lock);
    bool now = armed == kind && ++seen == wanted;
    pthread_mutex_unlock(&lock);
    if (now) errno = number_of[kind];
    return now;
}

/* ---- allocations ---- */

enum { TABLE = 1 << 20 };
static uintptr_t alive[TABLE]; /* open addressing; 1: a place that was left */
static long n_alive;

static size_t place_of(uintptr_t address) {
    return (size_t)((address >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 44);
}

static void *remember(void *memory) {
    if (!memory) return NULL;
    pthread_mutex_lock(&lock);
    size_t at = place_of((uintptr_t)memory);
    while (alive[at] > 1)
        at = (at + 1) % TABLE;
    alive[at] = (uintptr_t)memory;
    n_alive++;
    pthread_mutex_unlock(&lock);
    return memory;
}

/* What the C library allocated itself is not in the table, and nothing is forgotten. */
static void forget(const void *memory) {
    if (!memory) return;
    pthread_mutex_lock(&lock);
    size_t at = place_of((uintptr_t)memory);
    while (alive[at] && alive[at] != (uintptr_t)memory)
        at = (at + 1) % TABLE;
    if (alive[at]) {
        alive[at] = 1;
        n_alive--;
    }
    pthread_mutex_unlock(&lock);
}

long fault_alive(void) {
    pthread_mutex_lock(&lock);
    long count = n_alive;
    pthread_mutex_unlock(&lock);
    return count;
}

#define WRAP(type, name, ...)                                                                  \
    type __real_##name(__VA_ARGS__);                                                           \
    type __wrap_##name(__VA_ARGS__);                                                           \
    type __wrap_##name(__VA_ARGS__)

WRAP(void *, malloc, size_t bytes) {
    return fires(FAULT_allocation) ? NULL : remember(__real_malloc(bytes));
}
WRAP(void *, calloc, size_t count, size_t bytes) {
    return fires(FAULT_allocation) ? NULL : remember(__real_calloc(count, bytes));
}
WRAP(void *, realloc, void *memory, size_t bytes) {
    if (fires(FAULT_allocation)) return NULL;
    uintptr_t before = (uintptr_t)memory;
    forget((const void *)before);
    void *moved = __real_realloc(memory, bytes);
    return moved ? remember(moved) : (remember((void *)before), NULL);
}
WRAP(void *, aligned_alloc, size_t alignment, size_t bytes) {
    return fires(FAULT_allocation) ? NULL : remember(__real_aligned_alloc(alignment, bytes));
}
WRAP(void, free, void *memory) {
    forget(memory);
    __real_free(memory);
}
WRAP(char *, strdup, const char *text) {
    return fires(FAULT_allocation) ? NULL : remember(__real_strdup(text));
}
WRAP(char *, strndup, const char *text, size_t most) {
    return fires(FAULT_allocation) ? NULL : remember(__real_strndup(text, most));
}
WRAP(int, vasprintf, char **text, const char *format, va_list arguments) {
    if (fires(FAULT_allocation)) return -1;
    int length = __real_vasprintf(text, format, arguments);
    if (length >= 0) remember(*text);
    return length;
}
int __wrap_asprintf(char **text, const char *format, ...);
int __wrap_asprintf(char **text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = __wrap_vasprintf(text, format, arguments);
    va_end(arguments);
    return length;
}
WRAP(int, inflateInit2_, z_streamp stream, int bits, const char *version, int size) {
    return fires(FAULT_allocation) ? Z_MEM_ERROR
                                   : __real_inflateInit2_(stream, bits, version, size);
}

/* An arena asks the system for a block at a time; a caller must cope with every NULL that it might get. */
WRAP(void *, icae_arena_alloc, icae_arena *arena, size_t bytes) {
    return fires(FAULT_allocation) ? NULL : __real_icae_arena_alloc(arena, bytes);
}
WRAP(void *, icae_arena_array, icae_arena *arena, size_t count, size_t bytes_each) {
    return fires(FAULT_allocation) ? NULL : __real_icae_arena_array(arena, count, bytes_each);
}
WRAP(char *, icae_arena_copy, icae_arena *arena, const char *text, size_t length) {
    return fires(FAULT_allocation) ? NULL : __real_icae_arena_copy(arena, text, length);
}

void fault_hook_json(void) {
    static cJSON_Hooks hooks = {__wrap_malloc, __wrap_free};
    cJSON_InitHooks(&hooks);
}

/* ---- recording ---- */

static file_record *record;
static char recorded[4096];
static bool is_ours[1024]; /* descriptors */

void fault_record(file_record *into, const char *folder) {
    record = into;
    snprintf(recorded, sizeof recorded, "%s", folder ? folder : "");
}

void fault_record_release(file_record *r) {
    for (size_t i = 0; i < r->n; i++) {
        __real_free(r->events[i].a);
        __real_free(r->events[i].b);
        __real_free(r->events[i].data);
    }
    __real_free(r->events);
    *r = (file_record){0};
}

static bool is_below(const char *path) {
    return record && !strncmp(path, recorded, strlen(recorded));
}

static void note(file_event event, const char *a, const char *b, const void *data) {
    pthread_mutex_lock(&lock);
    if (record->n == record->capacity) {
        record->capacity = record->capacity ? 2 * record->capacity : 1024;
        record->events =
            __real_realloc(record->events, record->capacity * sizeof *record->events);
    }
    if (!record->events) abort();
    event.a = a ? __real_strdup(a) : NULL;
    event.b = b ? __real_strdup(b) : NULL;
    if (data && event.bytes) {
        event.data = __real_malloc(event.bytes);
        if (!event.data) abort();
        memcpy(event.data, data, event.bytes);
    }
    record->events[record->n++] = event;
    pthread_mutex_unlock(&lock);
}

/* ---- files ---- */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list arguments;
        va_start(arguments, flags);
        mode = (mode_t)va_arg(arguments, unsigned);
        va_end(arguments);
    }
    if (fires(FAULT_open) || fires(FAULT_interrupt)) return -1;
    bool was_there = access(path, F_OK) == 0;
    int fd = __real_open(path, flags, mode);
    if (fd >= 0 && fd < 1024) is_ours[fd] = is_below(path);
    if (fd >= 0 && fd < 1024 && is_ours[fd]) {
        note((file_event){.act = ACT_OPEN, .fd = fd, .is_new = !was_there || (flags & O_TRUNC)},
             path, NULL, NULL);
    }
    return fd;
}
WRAP(int, close, int fd) {
    if (fd >= 0 && fd < 1024 && is_ours[fd]) {
        is_ours[fd] = false;
        if (record) note((file_event){.act = ACT_CLOSE, .fd = fd}, NULL, NULL, NULL);
    }
    int result = __real_close(fd);
    return fires(FAULT_close) ? -1 : result;
}
WRAP(ssize_t, read, int fd, void *data, size_t bytes) {
    if (fires(FAULT_read) || fires(FAULT_interrupt)) return -1;
    if (bytes > 1 && fires(FAULT_short_read)) bytes /= 2;
    return __real_read(fd, data, bytes);
}
WRAP(ssize_t, write, int fd, const void *data, size_t bytes) {
    if (fires(FAULT_write) || fires(FAULT_interrupt)) return -1;
    if (bytes > 1 && fires(FAULT_short_write)) bytes /= 2;
    ssize_t done = __real_write(fd, data, bytes);
    if (done > 0 && fd >= 0 && fd < 1024 && is_ours[fd] && record)
        note((file_event){.act = ACT_WRITE, .fd = fd, .bytes = (size_t)done}, NULL, NULL, data);
    return done;
}
WRAP(int, fsync, int fd) {
    if (fires(FAULT_sync) || fires(FAULT_interrupt)) return -1;
#ifdef CONTROL_SYNC /* a broken control: as if the bytes of files were never flushed */
    struct stat info;
    if (!fstat(fd, &info) && S_ISREG(info.st_mode)) return 0;
#endif
    if (fd >= 0 && fd < 1024 && is_ours[fd] && record)
        note((file_event){.act = ACT_SYNC, .fd = fd}, NULL, NULL, NULL);
    /* Nothing here needs to outlive a power cut, and thousands of real ones take minutes. */
    return 0;
}
WRAP(int, rename, const char *from, const char *to) {
    if (fires(FAULT_rename)) return -1;
    int result = __real_rename(from, to);
    if (!result && is_below(from)) note((file_event){.act = ACT_RENAME}, from, to, NULL);
    return result;
}
WRAP(int, renameat2, int a, const char *from, int b, const char *to, unsigned flags) {
    if (fires(FAULT_rename)) return -1;
    int result = __real_renameat2(a, from, b, to, flags);
    if (!result && is_below(from)) note((file_event){.act = ACT_EXCHANGE}, from, to, NULL);
    return result;
}
WRAP(int, mkdir, const char *path, mode_t mode) {
    if (access(path, F_OK) && fires(FAULT_make_folder)) return -1;
    int result = __real_mkdir(path, mode);
    if (!result && is_below(path)) note((file_event){.act = ACT_FOLDER}, path, NULL, NULL);
    return result;
}
WRAP(int, remove, const char *path) {
    if (fires(FAULT_remove)) return -1;
    int result = __real_remove(path);
    if (!result && is_below(path)) note((file_event){.act = ACT_REMOVE}, path, NULL, NULL);
    return result;
}
WRAP(int, unlink, const char *path) {
    if (fires(FAULT_remove)) return -1;
    int result = __real_unlink(path);
    if (!result && is_below(path)) note((file_event){.act = ACT_REMOVE}, path, NULL, NULL);
    return result;
}
WRAP(int, truncate, const char *path, off_t bytes) {
    if (fires(FAULT_truncate)) return -1;
    int result = __real_truncate(path, bytes);
    if (!result && is_below(path))
        note((file_event){.act = ACT_TRUNCATE, .bytes = (size_t)bytes}, path, NULL, NULL);
    return result;
}
WRAP(void *, mmap, void *at, size_t bytes, int how, int flags, int fd, off_t offset) {
    return fires(FAULT_map) ? MAP_FAILED : __real_mmap(at, bytes, how, flags, fd, offset);
}
WRAP(DIR *, opendir, const char *path) {
    return fires(FAULT_list) ? NULL : __real_opendir(path);
}
WRAP(struct dirent *, readdir, DIR *folder) {
    return fires(FAULT_list) ? NULL : __real_readdir(folder);
}
WRAP(int, stat, const char *path, struct stat *info) {
    return fires(FAULT_examine) ? -1 : __real_stat(path, info);
}
WRAP(int, lstat, const char *path, struct stat *info) {
    return fires(FAULT_examine) ? -1 : __real_lstat(path, info);
}
WRAP(int, fstat, int fd, struct stat *info) {
    return fires(FAULT_examine) ? -1 : __real_fstat(fd, info);
}
WRAP(int, flock, int fd, int operation) {
    return fires(FAULT_lock) ? -1 : __real_flock(fd, operation);
}
WRAP(gzFile, gzopen, const char *path, const char *mode) {
    return fires(FAULT_open) || fires(FAULT_allocation) ? NULL : __real_gzopen(path, mode);
}
static int gz_failure; /* Z_OK: none */
WRAP(int, gzread, gzFile file, voidp data, unsigned bytes) {
    gz_failure = fires(FAULT_read) ? Z_ERRNO : fires(FAULT_allocation) ? Z_MEM_ERROR : Z_OK;
    return gz_failure ? -1 : __real_gzread(file, data, bytes);
}
WRAP(const char *, gzerror, gzFile file, int *code) {
    if (!gz_failure) return __real_gzerror(file, code);
    *code = gz_failure;
    return "a fault of the test";
}
WRAP(icae_status, icae_checkpoint_save, const char *run_folder, icae_adapter *adapter,
     const icae_model *model, const icae_run_state *state, int64_t keep, icae_error *error) {
    icae_status status =
        __real_icae_checkpoint_save(run_folder, adapter, model, state, keep, error);
    if (!status && record)
        note((file_event){.act = ACT_SAVED, .number = (long)state->step}, NULL, NULL, NULL);
    return status;
}
WRAP(icae_status, icae_model_open, icae_model **model, const char *path, icae_error *error) {
    fault_kind kind = armed;
    if (spares_bases) armed = FAULT_COUNT;
    icae_status status = __real_icae_model_open(model, path, error);
    if (spares_bases) armed = kind;
    return status;
}
