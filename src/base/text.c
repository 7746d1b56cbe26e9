/* SPDX-License-Identifier: MIT */
/* Growing byte strings and UTF-8; see icae/text.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/text.h"

void icae_text_release(icae_text *text) {
    free(text->data);
    *text = (icae_text){0};
}

void icae_text_clear(icae_text *text) {
    text->length = 0;
    if (text->data) text->data[0] = 0;
}

static bool text_reserve(icae_text *text, size_t extra) {
    if (text->failed) return false;
    if (extra >= SIZE_MAX / 4 || text->length >= SIZE_MAX / 4) {
        text->failed = true;
        return false;
    }
    size_t needed = text->length + extra + 1;
    if (needed > text->capacity) {
        size_t capacity = text->capacity ? text->capacity : 64;
        while (capacity < needed)
            capacity *= 2;
        char *larger = realloc(text->data, capacity);
        if (!larger) {
            text->failed = true;
            return false;
        }
        text->data = larger;
        text->capacity = capacity;
    }
    return true;
}

void icae_text_append(icae_text *text, const void *data, size_t bytes) {
    if (!text_reserve(text, bytes)) return;
    if (bytes) memcpy(text->data + text->length, data, bytes);
    text->length += bytes;
    text->data[text->length] = 0;
}

void icae_text_append_string(icae_text *text, const char *string) {
    icae_text_append(text, string, strlen(string));
}

void icae_text_append_char(icae_text *text, char c) {
    icae_text_append(text, &c, 1);
}

void icae_text_printf(icae_text *text, const char *format, ...) {
    char *piece;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&piece, format, arguments);
    va_end(arguments);
    if (length < 0) {
        text->failed = true;
        return;
    }
    icae_text_append(text, piece, (size_t)length);
    free(piece);
}

const char *icae_text_string(const icae_text *text) {
    return text->data ? text->data : "";
}

int icae_utf8_decode(const unsigned char *data, size_t bytes, int32_t *point) {
    unsigned char first = data[0];
    *point = -1;
    if (first < 0x80) {
        *point = first;
        return 1;
    }
    int length = first >= 0xC2 && first <= 0xDF   ? 2
                 : first >= 0xE0 && first <= 0xEF ? 3
                 : first >= 0xF0 && first <= 0xF4 ? 4
                                                  : 0;
    if (!length || bytes < (size_t)length) return 1;
    int32_t value = first & (0x7F >> length);
    for (int i = 1; i < length; i++) {
        if ((data[i] & 0xC0) != 0x80) return 1;
        value = value << 6 | (data[i] & 0x3F);
    }
    static const int32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < smallest[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return 1;
    }
    *point = value;
    return length;
}

int icae_utf8_encode(int32_t point, char out[4]) {
    if (point < 0 || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return 0;
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    int length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (point & 0x3F));
        point >>= 6;
    }
    static const unsigned char mark[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(mark[length] | point);
    return length;
}

bool icae_utf8_is_valid(const char *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        int32_t point;
        at += (size_t)icae_utf8_decode((const unsigned char *)text + at, bytes - at, &point);
        if (point < 0) return false;
    }
    return true;
}

icae_utf8_flaws icae_utf8_examine(const char *text, size_t bytes) {
    const unsigned char *data = (const unsigned char *)text;
    icae_utf8_flaws flaws = {0};
    for (size_t at = 0; at < bytes;) {
        int32_t point;
        int length = icae_utf8_decode(data + at, bytes - at, &point);
        if (point < 0 && flaws.wrong++ == 0) flaws.first = at;
        flaws.zeros += point == 0;
        at += (size_t)length;
    }
    return flaws;
}

bool icae_utf8_is_text(icae_utf8_flaws flaws, size_t bytes) {
    enum { SHORT = 64, MOST_SHARE = 10, MOST_ZEROS = 4 };
    if (bytes < SHORT) return flaws.zeros <= bytes / MOST_ZEROS;
    return flaws.wrong + flaws.zeros <= bytes / MOST_SHARE;
}

/*
 * Bytes of the longest start of data that begins a well-formed sequence without finishing it (a
 * "maximal subpart", Unicode 15, section 3.9), at least 1. data does not begin with a whole one.
 */
static size_t utf8_subpart(const unsigned char *data, size_t bytes) {
    unsigned char first = data[0];
    size_t length = first >= 0xC2 && first <= 0xDF   ? 2
                    : first >= 0xE0 && first <= 0xEF ? 3
                    : first >= 0xF0 && first <= 0xF4 ? 4
                                                     : 1;
    /* Four first bytes narrow what the second may be (table 3-7). */
    unsigned char least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned char most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    size_t have = 1;
    while (have < length && have < bytes && data[have] >= least && data[have] <= most) {
        have++;
        least = 0x80;
        most = 0xBF;
    }
    return have;
}

size_t icae_utf8_complete(const unsigned char *data, size_t bytes) {
    /* Only the last three bytes can begin a sequence that is still to be finished. */
    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        const unsigned char *at = data + bytes - back;
        if ((*at & 0xC0) == 0x80) continue;
        int32_t point;
        if (*at < 0xC2 || *at > 0xF4 || icae_utf8_decode(at, back, &point) > 1) return bytes;
        return utf8_subpart(at, back) == back ? bytes - back : bytes;
    }
    return bytes;
}

void icae_utf8_repair(icae_text *out, const void *data, size_t bytes) {
    const unsigned char *at = data, *end = at + bytes, *from = at;
    while (at < end) {
        int32_t point = *at;
        size_t length = 1;
        if (point >= 0x80) length = (size_t)icae_utf8_decode(at, (size_t)(end - at), &point);
        if (point < 0) {
            icae_text_append(out, from, (size_t)(at - from));
            icae_text_append(out, "\xEF\xBF\xBD", 3);
            from = at + utf8_subpart(at, (size_t)(end - at));
            at = from;
        } else {
            at += length;
        }
    }
    if (at > from) icae_text_append(out, from, (size_t)(at - from));
}

/* ---- names ---- */

/* Insertions, deletions and replacements that turn a into b; only for short names. */
static size_t edit_distance(const char *a, const char *b) {
    enum { LONGEST = 64 };
    size_t n = strlen(a), m = strlen(b), row[LONGEST + 1];
    if (n > LONGEST || m > LONGEST) return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[m];
}

void icae_name_suggest(const char *word, const char *name, const char **nearest) {
    size_t least = *nearest ? edit_distance(word, *nearest) : (strlen(word) + 2) / 3 + 1;
    if (edit_distance(word, name) < least) *nearest = name;
}
