/* SPDX-License-Identifier: MIT */
/*
 * Between the library and the system: fails the Nth call of a kind, counts what is alive, and records
 * what is done to files. Linked by -Wl,--wrap=NAME for every NAME in fault_layer.c, so the library's own
 * objects are those of every other build. cJSON's allocations pass here through its hooks.
 */
#ifndef ICAE_TESTS_FAULT_LAYER_H
#define ICAE_TESTS_FAULT_LAYER_H

#include <stdbool.h>
#include <stddef.h>

/* FAULT(name, errno it fails with, whether the caller must cope with it and succeed) */
#define FAULT_LIST(FAULT)                                                                      \
    FAULT(allocation, ENOMEM, false)                                                           \
    FAULT(open, EIO, false)                                                                    \
    FAULT(read, EIO, false)                                                                    \
    FAULT(map, ENOMEM, false)                                                                  \
    FAULT(list, EMFILE, false)                                                                 \
    FAULT(write, ENOSPC, false)                                                                \
    FAULT(sync, EIO, false)                                                                    \
    FAULT(rename, EIO, false)                                                                  \
    FAULT(make_folder, ENOSPC, false)                                                          \
    FAULT(remove, EIO, false)                                                                  \
    FAULT(lock, EIO, false)                                                                    \
    FAULT(truncate, EIO, false)                                                                \
    FAULT(examine, EIO, false)                                                                 \
    FAULT(close, EIO, false)                                                                   \
    FAULT(short_read, 0, true)                                                                 \
    FAULT(short_write, 0, true)                                                                \
    FAULT(interrupt, EINTR, true)

typedef enum fault_kind {
#define FAULT(name, number, copes) FAULT_##name,
    FAULT_LIST(FAULT)
#undef FAULT
        FAULT_COUNT
} fault_kind;

/* From now on the nth call (1-based) of this kind fails, once. */
void fault_arm(fault_kind kind, long nth);
/* Nothing fails any more. Returns how many calls of the kind there were since arming. */
long fault_disarm(void);
/* Calls made while a base is opened are neither counted nor disturbed. */
void fault_spare_bases(bool spares);
/* The number of blocks allocated and not yet freed. */
long fault_alive(void);
/* Hooks cJSON; once, before anything is parsed. */
void fault_hook_json(void);

/* ---- the record of what was done to files ---- */

typedef enum file_act {
    ACT_OPEN,     /* a: path; fd; truncated or made where is_new */
    ACT_WRITE,    /* fd, data */
    ACT_SYNC,     /* fd: a file or a folder */
    ACT_CLOSE,    /* fd */
    ACT_RENAME,   /* a -> b */
    ACT_EXCHANGE, /* a <-> b */
    ACT_FOLDER,   /* a is made */
    ACT_REMOVE,   /* a */
    ACT_TRUNCATE, /* a, to `bytes` */
    ACT_SAVED     /* a checkpoint's save has returned; number: its step */
} file_act;

typedef struct file_event {
    file_act act;
    char *a, *b;
    int fd;
    bool is_new;
    unsigned char *data;
    size_t bytes;
    long number;
} file_event;

typedef struct file_record {
    file_event *events;
    size_t n, capacity;
} file_record;

/* Everything done to files under `folder` (as the caller spells it) is added to the record; NULL: no
 * more. */
void fault_record(file_record *record, const char *folder);
void fault_record_release(file_record *record);

#endif
