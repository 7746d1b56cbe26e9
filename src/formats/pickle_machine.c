/* SPDX-License-Identifier: MIT */
/*
 * The machine that pickles are programs for: a stack of values, a stack of marks into it, and a memo. Values
 * never move out of their table, so a reference is an index, and a container's content is a chain of cells.
 *
 * What the opcodes are is pickle.c's; here is what they do to the machine, and what they must not: touch
 * values below the last mark, fill what is no container, nest too deep, number the memo past the program.
 */
#include <stdlib.h>
#include <string.h>

#include "pickle_internal.h"
#include "quote.h"

enum { MOST_DEPTH = 64 };

/* ---- memory and values ---- */

/* The error says at which byte, so that pickletools.dis shows the place. */
icae_status icae_pickle_fail(machine *m, icae_status status, const char *format, ...) {
    char sentence[384];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return icae_fail(m->error, status, "%s: byte %zu: %s%s", m->p->path, m->place, sentence,
                     icae_remedy(status, sentence));
}

/* At least doubled, so that growing stays linear; copied, because only void * aliases any pointer. */
icae_status icae_pickle_reserve(machine *m, void *table, size_t *room, size_t used,
                                size_t each) {
    if (used < *room) return ICAE_OK;
    size_t wanted = *room ? 2 * *room : 64;
    void *memory;
    memcpy(&memory, table, sizeof memory);
    memory = realloc(memory, wanted * each); /* used is below 2^26 */
    if (!memory) return icae_fail_memory(m->error, m->p->path);
    memcpy(table, &memory, sizeof memory);
    *room = wanted;
    return ICAE_OK;
}

icae_status icae_pickle_push(machine *m, pickle_value value) {
    pickle *p = m->p;
    icae_status status = PICKLE_RESERVE(m, p->values, p->value_room, p->n_values);
    if (status) return status;
    p->values[p->n_values++] = value;
    return icae_pickle_push_ref(m, (pickle_ref)(p->n_values - 1));
}

icae_status icae_pickle_push_ref(machine *m, pickle_ref ref) {
    icae_status status = PICKLE_RESERVE(m, m->stack, m->stack_room, m->height);
    if (!status) m->stack[m->height++] = ref;
    return status;
}

/* Where the values above the last mark begin: what lies below is not to be touched. */
static size_t floor_of(const machine *m) {
    return m->n_marks ? m->marks[m->n_marks - 1] : 0;
}

static icae_status underflow(machine *m) {
    return icae_pickle_fail(m, ICAE_FORMAT, "takes more values than there are on the stack");
}

icae_status icae_pickle_pop(machine *m, pickle_ref *out) {
    if (m->height <= floor_of(m)) return underflow(m);
    *out = m->stack[--m->height];
    return ICAE_OK;
}

icae_status icae_pickle_top(machine *m, pickle_ref *out) {
    if (m->height <= floor_of(m)) return underflow(m);
    *out = m->stack[m->height - 1];
    return ICAE_OK;
}

static icae_status add_cell(machine *m, pickle_ref container, pickle_ref item) {
    pickle *p = m->p;
    icae_status status = PICKLE_RESERVE(m, p->cells, p->cell_room, p->n_cells);
    if (status) return status;
    pickle_value *into = &p->values[container];
    uint32_t cell = (uint32_t)p->n_cells++;
    p->cells[cell] = (pickle_cell){.value = item};
    if (into->n++)
        p->cells[into->as.cells.last].next = cell;
    else
        into->as.cells.first = cell;
    into->as.cells.last = cell;
    unsigned depth = p->values[item].depth + 1u;
    if (depth > MOST_DEPTH)
        return icae_pickle_fail(m, ICAE_FORMAT, "values are nested over %d deep", MOST_DEPTH);
    if (depth > into->depth) into->depth = (uint8_t)depth;
    return ICAE_OK;
}

/* ---- containers ---- */

icae_status icae_pickle_make_tuple(machine *m, size_t n) {
    if (m->height - floor_of(m) < n) return underflow(m);
    size_t first = m->height - n;
    icae_status status = icae_pickle_push(m, (pickle_value){.kind = PICKLE_TUPLE});
    if (status) return status;
    pickle_ref tuple = m->stack[m->height - 1];
    for (size_t i = 0; i < n && !status; i++)
        status = add_cell(m, tuple, m->stack[first + i]);
    m->stack[first] = tuple;
    m->height = first + 1;
    return status;
}

/* Forgets the last mark; *first is where the values above it begin. */
static icae_status pop_mark(machine *m, size_t *first) {
    if (!m->n_marks) return icae_pickle_fail(m, ICAE_FORMAT, "has no MARK that belongs to it");
    *first = m->marks[--m->n_marks];
    return ICAE_OK;
}

icae_status icae_pickle_mark(machine *m) {
    if (m->n_marks == MOST_MARKS)
        return icae_pickle_fail(m, ICAE_FORMAT, "values are nested over %d deep", MOST_MARKS);
    m->marks[m->n_marks++] = m->height;
    return ICAE_OK;
}

icae_status icae_pickle_make_marked_tuple(machine *m) {
    size_t first = 0;
    icae_status status = pop_mark(m, &first);
    return status ? status : icae_pickle_make_tuple(m, m->height - first);
}

/* Appends the values from `first` on to the list or dictionary below them. */
static icae_status fill(machine *m, size_t first, pickle_kind kind) {
    if (first <= floor_of(m)) return underflow(m);
    pickle_ref container = m->stack[first - 1];
    if (m->p->values[container].kind != kind) {
        return icae_pickle_fail(
            m, ICAE_FORMAT, "adds to a %s, expected a %s",
            icae_pickle_kind_name((pickle_kind)m->p->values[container].kind),
            icae_pickle_kind_name(kind));
    }
    if (kind == PICKLE_DICT && (m->height - first) % 2)
        return icae_pickle_fail(m, ICAE_FORMAT, "a key of a dictionary has no value");
    icae_status status = ICAE_OK;
    for (size_t i = first; i < m->height && !status; i++)
        status = add_cell(m, container, m->stack[i]);
    m->height = first;
    return status;
}

icae_status icae_pickle_fill_marked(machine *m, pickle_kind kind) {
    size_t first = 0;
    icae_status status = pop_mark(m, &first);
    return status ? status : fill(m, first, kind);
}

icae_status icae_pickle_fill_one(machine *m, size_t n, pickle_kind kind) {
    return m->height - floor_of(m) < n + 1 ? underflow(m) : fill(m, m->height - n, kind);
}

/* ---- the memo ---- */

icae_status icae_pickle_memo_put(machine *m, uint64_t index) {
    if (m->height <= floor_of(m)) return underflow(m);
    /* Writers number the memo from 0 on, so a true index is below the number of bytes. */
    if (index >= (uint64_t)(m->end - m->begin)) {
        return icae_pickle_fail(m, ICAE_FORMAT,
                                "the memo's place %llu is past every possible one",
                                (unsigned long long)index);
    }
    while (m->memo_room <= index) {
        size_t old = m->memo_room;
        icae_status status = PICKLE_RESERVE(m, m->memo, m->memo_room, old);
        if (status) return status;
        memset(m->memo + old, 0xFF, (m->memo_room - old) * sizeof *m->memo);
    }
    m->memo[index] = m->stack[m->height - 1];
    return ICAE_OK;
}

icae_status icae_pickle_memo_get(machine *m, uint64_t index) {
    if (index >= m->memo_room || m->memo[index] == UINT32_MAX) {
        return icae_pickle_fail(m, ICAE_FORMAT, "nothing was put into the memo's place %llu",
                                (unsigned long long)index);
    }
    return icae_pickle_push_ref(m, m->memo[index]);
}
