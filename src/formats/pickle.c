/* SPDX-License-Identifier: MIT */
/*
 * The pickle interpreter: the opcodes and their arguments. What it knows, and its bounds, stand in pickle.h.
 * What the opcodes work on is in pickle_machine.c; what names stand for (REDUCE, persistent ids) is in
 * pickle_torch.c.
 */
#include <stdlib.h>
#include <string.h>

#include "pickle_internal.h"

enum { MOST_BYTES = 64 << 20 };

/* The opcodes of Python's pickletools that torch.save has no use for. */
static const struct {
    unsigned char code;
    const char *name;
} refused_opcodes[] = {
    {'0', "POP"},
    {'1', "POP_MARK"},
    {'2', "DUP"},
    {'F', "FLOAT"},
    {'I', "INT"},
    {'L', "LONG"},
    {'P', "PERSID"},
    {'S', "STRING"},
    {'T', "BINSTRING"},
    {'U', "SHORT_BINSTRING"},
    {'V', "UNICODE"},
    {'d', "DICT"},
    {'g', "GET"},
    {'i', "INST"},
    {'l', "LIST"},
    {'o', "OBJ"},
    {'p', "PUT"},
    {'B', "BINBYTES"},
    {'C', "SHORT_BINBYTES"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x8B, "LONG4"},
    {0x8E, "BINBYTES8"},
    {0x8F, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
};

static const char *refused_name(unsigned char code) {
    for (size_t i = 0; i < sizeof refused_opcodes / sizeof refused_opcodes[0]; i++) {
        if (refused_opcodes[i].code == code) return refused_opcodes[i].name;
    }
    return NULL;
}

const char *icae_pickle_kind_name(pickle_kind kind) {
    static const char *const names[PICKLE_KIND_COUNT] = {
        "None", "truth value", "whole number",      "number",  "string", "tuple",
        "list", "dictionary",  "class or function", "storage", "tensor"};
    return names[kind];
}

/* ---- arguments in the program ---- */

static icae_status take(machine *m, size_t bytes, const unsigned char **out) {
    *out = m->at;
    if (bytes > (size_t)(m->end - m->at))
        return icae_pickle_fail(m, ICAE_FORMAT, "the pickle is cut off; fetch the file again");
    m->at += bytes;
    return ICAE_OK;
}

/* A little-endian number of 1, 2, 4 or 8 bytes. */
static icae_status take_number(machine *m, size_t bytes, uint64_t *out) {
    const unsigned char *at;
    icae_status status = take(m, bytes, &at);
    *out = 0;
    for (size_t i = bytes; i-- && !status;)
        *out = *out << 8 | at[i];
    return status;
}

static icae_status push_integer(machine *m, int64_t integer) {
    return icae_pickle_push(m, (pickle_value){.kind = PICKLE_INT, .as.integer = integer});
}

static icae_status push_small(machine *m, size_t bytes) {
    uint64_t number;
    icae_status status = take_number(m, bytes, &number);
    if (status) return status;
    return push_integer(m, bytes == 4 ? (int64_t)(int32_t)(uint32_t)number : (int64_t)number);
}

/* LONG1: a count, then so many bytes of two's complement. */
static icae_status push_long(machine *m) {
    uint64_t count, number = 0;
    const unsigned char *at;
    icae_status status = take_number(m, 1, &count);
    if (!status) status = take(m, (size_t)count, &at);
    if (status) return status;
    if (count > 8)
        return icae_pickle_fail(
            m, ICAE_UNSUPPORTED,
            "a whole number has over 64 bits; save the model's state_dict() alone");
    for (size_t i = 0; i < 8; i++) {
        unsigned char sign = count && at[count - 1] & 0x80 ? 0xFF : 0;
        number |= (uint64_t)(i < count ? at[i] : sign) << (8 * i);
    }
    return push_integer(m, (int64_t)number);
}

static icae_status push_float(machine *m) {
    const unsigned char *at;
    icae_status status = take(m, 8, &at);
    if (status) return status;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) /* the one big-endian number of the language */
        bits = bits << 8 | at[i];
    pickle_value value = {.kind = PICKLE_FLOAT};
    memcpy(&value.as.number, &bits, sizeof bits);
    return icae_pickle_push(m, value);
}

static icae_status push_string(machine *m, size_t length_bytes) {
    uint64_t count;
    const unsigned char *at;
    icae_status status = take_number(m, length_bytes, &count);
    if (!status && count > (uint64_t)(m->end - m->at)) {
        return icae_pickle_fail(m, ICAE_FORMAT,
                                "a string of %llu bytes is cut off; fetch the file again",
                                (unsigned long long)count);
    }
    if (!status) status = take(m, (size_t)count, &at);
    if (status) return status;
    return icae_pickle_push(m, (pickle_value){.kind = PICKLE_STRING,
                                              .n = (uint32_t)count,
                                              .as.text = (const char *)at});
}

/* ---- the memo ---- */

static icae_status get_numbered(machine *m, size_t bytes) {
    uint64_t index;
    icae_status status = take_number(m, bytes, &index);
    return status ? status : icae_pickle_memo_get(m, index);
}

static icae_status put_numbered(machine *m, size_t bytes) {
    uint64_t index;
    icae_status status = take_number(m, bytes, &index);
    return status ? status : icae_pickle_memo_put(m, index);
}

/* ---- names ---- */

/* GLOBAL: two lines, module and name. */
static icae_status push_global(machine *m) {
    const char *parts[2];
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        const unsigned char *line = memchr(m->at, '\n', (size_t)(m->end - m->at));
        if (!line)
            return icae_pickle_fail(m, ICAE_FORMAT, "a name is cut off; fetch the file again");
        parts[i] = (const char *)m->at;
        bytes[i] = (size_t)(line - m->at);
        m->at = line + 1;
    }
    return icae_pickle_push_name(m, parts[0], bytes[0], parts[1], bytes[1]);
}

static icae_status push_stack_global(machine *m) {
    pickle_ref refs[2] = {0};
    icae_status status = icae_pickle_pop(m, &refs[1]);
    if (!status) status = icae_pickle_pop(m, &refs[0]);
    if (status) return status;
    const pickle_value *module = &m->p->values[refs[0]], *name = &m->p->values[refs[1]];
    if (module->kind != PICKLE_STRING || name->kind != PICKLE_STRING)
        return icae_pickle_fail(m, ICAE_FORMAT,
                                "a class is named by something else than two strings");
    return icae_pickle_push_name(m, module->as.text, module->n, name->as.text, name->n);
}

/* BUILD gives a state to the object below it. PyTorch hangs _metadata (versions of modules) on an
 * OrderedDict that way; numbers do not depend on it. */
static icae_status build(machine *m) {
    pickle_ref state = 0, object = 0;
    icae_status status = icae_pickle_pop(m, &state);
    if (!status) status = icae_pickle_top(m, &object);
    if (status) return status;
    pickle_kind kind = (pickle_kind)m->p->values[object].kind;
    if (kind == PICKLE_DICT && m->p->values[state].kind == PICKLE_DICT) return ICAE_OK;
    return icae_pickle_fail(m, ICAE_UNSUPPORTED,
                            "gives a state to a %s; expected a dictionary's _metadata",
                            icae_pickle_kind_name(kind));
}

/* ---- the program ---- */

static icae_status proto(machine *m) {
    uint64_t version;
    icae_status status = take_number(m, 1, &version);
    if (status || (version >= 2 && version <= 5)) return status;
    return icae_pickle_fail(
        m, ICAE_UNSUPPORTED,
        "is pickle protocol %llu; expected 2 to 5: save it with a newer PyTorch",
        (unsigned long long)version);
}

/* Frames only help streaming readers; the length must not lie all the same. */
static icae_status frame(machine *m) {
    uint64_t length;
    icae_status status = take_number(m, 8, &length);
    if (status || length <= (uint64_t)(m->end - m->at)) return status;
    return icae_pickle_fail(m, ICAE_FORMAT,
                            "a frame of %llu bytes is cut off; fetch the file again",
                            (unsigned long long)length);
}

static icae_status refuse_opcode(machine *m, unsigned char code) {
    const char *name = refused_name(code);
    if (!name) return icae_pickle_fail(m, ICAE_FORMAT, "0x%02x is no opcode of a pickle", code);
    return icae_pickle_fail(
        m, ICAE_UNSUPPORTED,
        "the opcode %s stands in no file of plain tensors, and is not run; save "
        "the model's state_dict() alone",
        name);
}

static icae_status run_opcode(machine *m, unsigned char code) {
    switch (code) {
    case 0x80:
        return proto(m);
    case 0x95:
        return frame(m);
    case '(':
        return icae_pickle_mark(m);
    case 'N':
        return icae_pickle_push(m, (pickle_value){.kind = PICKLE_NONE});
    case 0x88:
        return icae_pickle_push(m, (pickle_value){.kind = PICKLE_BOOL, .as.integer = 1});
    case 0x89:
        return icae_pickle_push(m, (pickle_value){.kind = PICKLE_BOOL});
    case 'K':
        return push_small(m, 1);
    case 'M':
        return push_small(m, 2);
    case 'J':
        return push_small(m, 4);
    case 0x8A:
        return push_long(m);
    case 'G':
        return push_float(m);
    case 0x8C:
        return push_string(m, 1);
    case 'X':
        return push_string(m, 4);
    case 0x8D:
        return push_string(m, 8);
    case ')':
        return icae_pickle_make_tuple(m, 0);
    case 0x85:
        return icae_pickle_make_tuple(m, 1);
    case 0x86:
        return icae_pickle_make_tuple(m, 2);
    case 0x87:
        return icae_pickle_make_tuple(m, 3);
    case 't':
        return icae_pickle_make_marked_tuple(m);
    case ']':
        return icae_pickle_push(m, (pickle_value){.kind = PICKLE_LIST});
    case '}':
        return icae_pickle_push(m, (pickle_value){.kind = PICKLE_DICT});
    case 'a':
        return icae_pickle_fill_one(m, 1, PICKLE_LIST);
    case 'e':
        return icae_pickle_fill_marked(m, PICKLE_LIST);
    case 's':
        return icae_pickle_fill_one(m, 2, PICKLE_DICT);
    case 'u':
        return icae_pickle_fill_marked(m, PICKLE_DICT);
    case 'q':
        return put_numbered(m, 1);
    case 'r':
        return put_numbered(m, 4);
    case 0x94:
        return icae_pickle_memo_put(m, m->n_memoized++);
    case 'h':
        return get_numbered(m, 1);
    case 'j':
        return get_numbered(m, 4);
    case 'c':
        return push_global(m);
    case 0x93:
        return push_stack_global(m);
    case 'R':
        return icae_pickle_reduce(m);
    case 'Q':
        return icae_pickle_persistent(m);
    case 'b':
        return build(m);
    default:
        return refuse_opcode(m, code);
    }
}

static icae_status run(machine *m, pickle_ref *top) {
    while (m->at < m->end) {
        m->place = (size_t)(m->at - m->begin);
        unsigned char code = *m->at++;
        if (code == '.') {
            if (m->height != 1 || m->n_marks)
                return icae_pickle_fail(m, ICAE_FORMAT, "ends with %zu values, expected 1",
                                        m->height);
            if (m->at != m->end)
                return icae_pickle_fail(m, ICAE_FORMAT,
                                        "%zu bytes follow the end of the pickle",
                                        (size_t)(m->end - m->at));
            *top = m->stack[0];
            return ICAE_OK;
        }
        icae_status status = run_opcode(m, code);
        if (status) return status;
    }
    m->place = (size_t)(m->end - m->begin);
    return icae_pickle_fail(m, ICAE_FORMAT, "the pickle is cut off; fetch the file again");
}

icae_status icae_pickle_read(pickle *p, const char *path, const unsigned char *data,
                             size_t bytes, pickle_storage_source *source, void *user,
                             pickle_ref *top, icae_error *error) {
    *p = (pickle){.path = path};
    if (bytes > MOST_BYTES) {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: has %zu bytes of pickle, at most %d are read; save the model's "
                         "state_dict() alone",
                         path, bytes, MOST_BYTES);
    }
    if (bytes < 2 || data[0] != 0x80)
        return icae_fail(error, ICAE_FORMAT,
                         "%s: is no pickle of protocol 2 to 5; fetch it again", path);
    machine m = {.p = p,
                 .begin = data,
                 .at = data,
                 .end = data + bytes,
                 .source = source,
                 .user = user,
                 .error = error};
    icae_status status = run(&m, top);
    free(m.stack);
    free(m.memo);
    return status;
}

void icae_pickle_release(pickle *p) {
    free(p->values);
    free(p->cells);
    free(p->storages);
    free(p->tensors);
    *p = (pickle){0};
}
