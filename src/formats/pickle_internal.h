/* SPDX-License-Identifier: MIT */
/* The pickle machine (pickle_machine.c), for pickle.c (the language) and pickle_torch.c (what PyTorch's names
 * mean). */
#ifndef ICAE_FORMATS_PICKLE_INTERNAL_H
#define ICAE_FORMATS_PICKLE_INTERNAL_H

#include <stdarg.h>
#include <stdio.h>

#include "pickle.h"

enum { MOST_MARKS = 64 };

typedef struct machine {
    pickle *p;
    const unsigned char *begin, *at, *end;
    size_t place; /* of the opcode at work */
    pickle_ref *stack, *memo;
    size_t height, stack_room, memo_room;
    size_t marks[MOST_MARKS], n_marks;
    uint64_t n_memoized; /* by MEMOIZE */
    pickle_storage_source *source;
    void *user;
    icae_error *error;
} machine;

/* "PATH: byte N: sentence" */
icae_status icae_pickle_fail(machine *m, icae_status status, const char *format, ...)
    ICAE_PRINTF(3, 4);
/* Room for one more in a table of the pickle or the machine; table: the address of its pointer. */
icae_status icae_pickle_reserve(machine *m, void *table, size_t *room, size_t used,
                                size_t each);
#define PICKLE_RESERVE(m, table, room, used)                                                   \
    icae_pickle_reserve(m, &(table), &(room), used, sizeof *(table))
icae_status icae_pickle_push(machine *m, pickle_value value);
icae_status icae_pickle_push_ref(machine *m, pickle_ref ref);
icae_status icae_pickle_pop(machine *m, pickle_ref *out);
icae_status icae_pickle_top(machine *m, pickle_ref *out); /* stays where it is */
icae_status icae_pickle_mark(machine *m);
/* A tuple of the topmost n values; of those above the last mark, which is forgotten. */
icae_status icae_pickle_make_tuple(machine *m, size_t n);
icae_status icae_pickle_make_marked_tuple(machine *m);
/* Appends one item, the topmost n values, to the list or dictionary below it; all above the last mark. */
icae_status icae_pickle_fill_one(machine *m, size_t n, pickle_kind kind);
icae_status icae_pickle_fill_marked(machine *m, pickle_kind kind);
/* The topmost value into a place of the memo; that of a place onto the stack. */
icae_status icae_pickle_memo_put(machine *m, uint64_t index);
icae_status icae_pickle_memo_get(machine *m, uint64_t index);

/* pickle_torch.c */
icae_status icae_pickle_push_name(machine *m, const char *module, size_t module_bytes,
                                  const char *name, size_t name_bytes);
icae_status icae_pickle_reduce(machine *m);
icae_status icae_pickle_persistent(machine *m);

#endif
