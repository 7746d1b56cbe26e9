/* SPDX-License-Identifier: MIT */
/* See broken.h. */
#include "broken.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "icae/file.h"
#include "stored_zip.h"

enum { MOST_DEFINITIONS = 64 };

typedef struct definition {
    char name[32];
    icae_text bytes;
} definition;

typedef struct parser {
    const char *path;
    int line;
    definition definitions[MOST_DEFINITIONS];
    size_t n_definitions;
} parser;

static _Noreturn void stop(const parser *p, const char *format, ...) ICAE_PRINTF(2, 3);
static _Noreturn void stop(const parser *p, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: ", p->path, p->line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/* ---- items ---- */

static const char *take_items(parser *p, const char *at, char end, icae_text *out);

static void append_number(icae_text *out, uint64_t number, unsigned long bytes) {
    for (unsigned long i = 0; i < bytes; i++)
        icae_text_append_char(out, (char)(i < 8 ? number >> (8 * i) & 255 : 0));
}

static void append_gzip(parser *p, icae_text *out, const icae_text *inner) {
    z_stream z = {0};
    enum { WINDOW_AND_GZIP = 15 + 16, MEMORY = 8, ROOM = 1 << 16 };
    static unsigned char room[ROOM];
    if (deflateInit2(&z, 9, Z_DEFLATED, WINDOW_AND_GZIP, MEMORY, Z_DEFAULT_STRATEGY))
        stop(p, "gzip");
    z.next_in = (unsigned char *)(uintptr_t)icae_text_string(inner);
    z.avail_in = (unsigned)inner->length;
    z.next_out = room;
    z.avail_out = ROOM;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END) stop(p, "too much for gzip");
    icae_text_append(out, (const char *)room, ROOM - z.avail_out);
    deflateEnd(&z);
}

static void append_pickle(icae_text *out, const icae_text *inner) {
    static const char numbers[64];
    const stored_entry entries[] = {{"x/data.pkl", icae_text_string(inner), inner->length},
                                    {"x/data/0", numbers, sizeof numbers}};
    icae_text archive = {0};
    stored_zip(&archive, entries, 2);
    icae_text_append(out, archive.data, archive.length);
    icae_text_release(&archive);
}

static const char *take_hex(parser *p, const char *at, icae_text *out) {
    while (isxdigit((unsigned char)at[0]) && isxdigit((unsigned char)at[1])) {
        const char digits[3] = {at[0], at[1], 0};
        icae_text_append_char(out, (char)strtoul(digits, NULL, 16));
        at += 2;
    }
    if (isxdigit((unsigned char)*at)) stop(p, "half a byte");
    return at;
}

static const char *take_name(parser *p, const char *at, icae_text *out) {
    size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz_0123456789");
    for (size_t i = 0; i < p->n_definitions; i++) {
        const definition *d = &p->definitions[i];
        if (strlen(d->name) != length || strncmp(d->name, at, length)) continue;
        if (d->bytes.length) icae_text_append(out, d->bytes.data, d->bytes.length);
        return at + length;
    }
    stop(p, "'%.*s' is not defined", (int)length, at);
}

static const char *take_item(parser *p, const char *at, icae_text *out);

/* What begins with digits: a number, a length in front, or a repetition. */
static const char *take_counted(parser *p, const char *at, icae_text *out) {
    char *behind;
    unsigned long count = strtoul(at, &behind, 10);
    icae_text inner = {0};
    if (*behind == ':') {
        bool is_negative = behind[1] == '-';
        unsigned long long number = strtoull(behind + 1 + is_negative, &behind, 10);
        append_number(out, is_negative ? 0 - (uint64_t)number : (uint64_t)number, count);
        return behind;
    }
    if (*behind == '[') {
        at = take_items(p, behind + 1, ']', &inner);
        append_number(out, inner.length, count);
        if (inner.length) icae_text_append(out, inner.data, inner.length);
    } else if (*behind == '*') {
        at = take_item(p, behind + 1, &inner);
        for (unsigned long i = 0; i < count; i++)
            icae_text_append(out, inner.data, inner.length);
    } else {
        stop(p, "expected ':', '[' or '*' after a number");
    }
    icae_text_release(&inner);
    return at;
}

static const char *take_packed(parser *p, const char *at, icae_text *out) {
    bool is_gzip = !strncmp(at, "gz[", 3);
    if (!is_gzip && strncmp(at, "pickle[", 7)) stop(p, "no item begins so: %s", at);
    icae_text inner = {0};
    at = take_items(p, strchr(at, '[') + 1, ']', &inner);
    if (is_gzip)
        append_gzip(p, out, &inner);
    else
        append_pickle(out, &inner);
    icae_text_release(&inner);
    return at;
}

static const char *take_item(parser *p, const char *at, icae_text *out) {
    if (*at == '\'') {
        const char *end = strchr(at + 1, '\'');
        if (!end) stop(p, "a text has no end");
        icae_text_append(out, at + 1, (size_t)(end - at) - 1);
        return end + 1;
    }
    if (*at == '$') return take_name(p, at + 1, out);
    if (*at == 'x') return take_hex(p, at + 1, out);
    if (isdigit((unsigned char)*at)) return take_counted(p, at, out);
    return take_packed(p, at, out);
}

/* Items up to `end`, which is 0 for the end of the line; returns what follows. */
static const char *take_items(parser *p, const char *at, char end, icae_text *out) {
    for (;;) {
        at += strspn(at, " ");
        if (*at == end) return end ? at + 1 : at;
        if (!*at) stop(p, "a ']' is missing");
        at = take_item(p, at, out);
    }
}

/* ---- lines ---- */

static void define(parser *p, const char *rest) {
    size_t length = strcspn(rest, " ");
    if (p->n_definitions == MOST_DEFINITIONS || length >= sizeof p->definitions[0].name)
        stop(p, "too many definitions, or too long a name");
    icae_text bytes = {0};
    take_items(p, rest + length, 0, &bytes);
    definition *d = &p->definitions[p->n_definitions++];
    memcpy(d->name, rest, length);
    d->bytes = bytes;
}

static void patch(parser *p, broken_case *c, const char *rest) {
    char *behind;
    long place = strtol(rest, &behind, 10);
    icae_text bytes = {0};
    take_items(p, behind, 0, &bytes);
    size_t at = place < 0 ? c->bytes.length - (size_t)-place : (size_t)place;
    if (at > c->bytes.length || bytes.length > c->bytes.length - at)
        stop(p, "the place is outside the file");
    memcpy(c->bytes.data + at, bytes.data, bytes.length);
    icae_text_release(&bytes);
}

static void cut(parser *p, broken_case *c, const char *rest) {
    long length = strtol(rest, NULL, 10);
    size_t left = length < 0 ? c->bytes.length - (size_t)-length : (size_t)length;
    if (left >= c->bytes.length) stop(p, "the file is shorter");
    c->bytes.length = left;
}

static broken_case *begin_case(parser *p, broken_table *table, const char *name) {
    broken_case *larger = realloc(table->cases, (table->n_cases + 1) * sizeof *table->cases);
    if (!larger || strlen(name) >= sizeof larger->name) stop(p, "no room for the case");
    table->cases = larger;
    broken_case *c = &table->cases[table->n_cases++];
    *c = (broken_case){.name = ""};
    memcpy(c->name, name, strlen(name));
    return c;
}

static void take_line(parser *p, broken_table *table, const char *line) {
    static const char *const words[] = {"define ", "case ", "how ", "bytes ",
                                        "patch ",  "cut ",  "says "};
    size_t word = 0;
    while (word < 7 && strncmp(line, words[word], strlen(words[word])))
        word++;
    if (!*line || *line == '#') return;
    if (word == 7) stop(p, "no line begins so: %s", line);
    const char *rest = line + strlen(words[word]);
    if (word == 0) {
        define(p, rest);
    } else if (word == 1) {
        begin_case(p, table, rest);
    } else if (!table->n_cases) {
        stop(p, "there is no case yet");
    } else {
        broken_case *c = &table->cases[table->n_cases - 1];
        if (word == 2) icae_text_append_string(&c->how, rest);
        if (word == 3) take_items(p, rest, 0, &c->bytes);
        if (word == 4) patch(p, c, rest);
        if (word == 5) cut(p, c, rest);
        if (word == 6) icae_text_append_string(&c->says, rest);
    }
}

broken_table broken_table_read(const char *path) {
    static parser p;
    broken_table table = {0};
    icae_error error = {0};
    char *text;
    p = (parser){.path = path};
    if (icae_file_read(path, 1 << 22, &text, NULL, &error)) stop(&p, "%s", error.message);
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        p.line++;
        take_line(&p, &table, line);
    }
    for (size_t i = 0; i < p.n_definitions; i++)
        icae_text_release(&p.definitions[i].bytes);
    free(text);
    return table;
}

void broken_table_release(broken_table *table) {
    for (size_t i = 0; i < table->n_cases; i++) {
        icae_text_release(&table->cases[i].how);
        icae_text_release(&table->cases[i].bytes);
        icae_text_release(&table->cases[i].says);
    }
    free(table->cases);
    *table = (broken_table){0};
}
