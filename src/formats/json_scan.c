/* SPDX-License-Identifier: MIT */
/*
 * The strict scan of a JSON text; see json_scan.h.
 *
 * A function for each rule of RFC 8259's grammar, named after it; all move one scanner over the text, and
 * the first that finds something else writes the complaint: line, what was expected, what stands there.
 * Nothing is built and nothing is allocated. Values are counted as they begin, so that a second scan can
 * tell the line of the value of a given number.
 */
#include <string.h>

#include "icae/text.h"
#include "json_scan.h"

enum {
    MAX_DEPTH = 64,
    MAX_NUMBER = 63, /* characters; cJSON's own buffer ends there */
};

typedef struct scanner {
    const char *name;
    const unsigned char *at, *end;
    int line, depth;
    size_t n_values; /* values begun so far */
    bool has_zero;   /* a string holds \u0000 */
    size_t target;   /* the number of the value whose line is wanted */
    int target_line; /* 0 until it was met */
    icae_error *error;
} scanner;

static bool scan_value(scanner *s, int leading_line);

static bool scan_fail(scanner *s, const char *expected) {
    if (s->at >= s->end) {
        icae_fail(s->error, ICAE_FORMAT, "%s:%d: expected %s, but the text ends: it is cut off",
                  s->name, s->line, expected);
    } else if (*s->at < 0x20 || *s->at >= 0x7F) {
        icae_fail(s->error, ICAE_FORMAT, "%s:%d: expected %s, got the byte 0x%02X", s->name,
                  s->line, expected, *s->at);
    } else {
        icae_fail(s->error, ICAE_FORMAT, "%s:%d: expected %s, got '%c'", s->name, s->line,
                  expected, *s->at);
    }
    return false;
}

static bool scan_refuse(scanner *s, const char *sentence) {
    icae_fail(s->error, ICAE_FORMAT, "%s:%d: %s", s->name, s->line, sentence);
    return false;
}

static void skip_space(scanner *s) {
    for (; s->at < s->end; s->at++) {
        if (*s->at == '\n') {
            s->line++;
        } else if (*s->at != ' ' && *s->at != '\t' && *s->at != '\r') {
            return;
        }
    }
}

static bool has_byte(const scanner *s, unsigned char byte) {
    return s->at < s->end && *s->at == byte;
}

static bool has_digit(const scanner *s) {
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

/* The four digits after "\u". */
static bool scan_hex(scanner *s, unsigned *value) {
    *value = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        unsigned char c = s->at < s->end ? *s->at : 0;
        unsigned lower = c | 0x20u;
        if (c >= '0' && c <= '9') {
            *value = *value << 4 | (c - '0');
        } else if (lower >= 'a' && lower <= 'f') {
            *value = *value << 4 | (lower - 'a' + 10);
        } else {
            return scan_fail(s, "four hexadecimal digits after \\u");
        }
    }
    return true;
}

static bool scan_escape(scanner *s) {
    s->at++; /* the backslash */
    if (s->at >= s->end || !strchr("\"\\/bfnrtu", *s->at) || !*s->at) {
        return scan_fail(s, "one of \" \\ / b f n r t u after a backslash");
    }
    if (*s->at++ != 'u') return true;
    unsigned first, second;
    if (!scan_hex(s, &first)) return false;
    if (first == 0) s->has_zero = true;
    if (first >= 0xDC00 && first <= 0xDFFF) {
        return scan_refuse(s, "a \\u escape holds the second half of a surrogate pair alone; "
                              "write the character itself");
    }
    if (first < 0xD800 || first > 0xDBFF) return true;
    if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u') {
        return scan_refuse(s, "a \\u escape holds the first half of a surrogate pair alone; "
                              "write the character itself");
    }
    s->at += 2;
    if (!scan_hex(s, &second)) return false;
    if (second < 0xDC00 || second > 0xDFFF) {
        return scan_refuse(s, "a \\u escape holds the first half of a surrogate pair alone; "
                              "write the character itself");
    }
    return true;
}

static bool scan_string(scanner *s) {
    s->at++; /* the opening quote */
    while (s->at < s->end && *s->at != '"') {
        unsigned char c = *s->at;
        if (c == '\\') {
            if (!scan_escape(s)) return false;
        } else if (c < 0x20) {
            return scan_fail(s, "control characters in strings to be escaped (\\n, \\u001B)");
        } else if (c < 0x80) {
            s->at++;
        } else {
            int32_t point;
            int length = icae_utf8_decode(s->at, (size_t)(s->end - s->at), &point);
            if (point < 0) return scan_fail(s, "well-formed UTF-8");
            s->at += length;
        }
    }
    if (s->at >= s->end) return scan_fail(s, "a closing quote");
    s->at++;
    return true;
}

static bool scan_digits(scanner *s) {
    if (!has_digit(s)) return scan_fail(s, "a digit");
    while (has_digit(s))
        s->at++;
    return true;
}

static bool scan_number(scanner *s) {
    const unsigned char *start = s->at;
    if (has_byte(s, '-')) s->at++;
    if (has_byte(s, '0')) {
        s->at++;
        if (has_digit(s))
            return scan_refuse(s, "a number begins with a superfluous 0; remove it");
    } else if (!scan_digits(s)) {
        return false;
    }
    if (has_byte(s, '.')) {
        s->at++;
        if (!scan_digits(s)) return false;
    }
    if (has_byte(s, 'e') || has_byte(s, 'E')) {
        s->at++;
        if (has_byte(s, '+') || has_byte(s, '-')) s->at++;
        if (!scan_digits(s)) return false;
    }
    if (s->at - start > MAX_NUMBER) {
        return scan_refuse(s,
                           "a number has more than 63 characters; write it with fewer digits");
    }
    return true;
}

static bool scan_word(scanner *s, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length)) {
        return scan_fail(s, "a value (strings stand in double quotes)");
    }
    s->at += length;
    return true;
}

static bool scan_array(scanner *s) {
    s->at++;
    skip_space(s);
    if (has_byte(s, ']')) {
        s->at++;
        return true;
    }
    for (;;) {
        skip_space(s);
        if (!scan_value(s, s->line)) return false;
        skip_space(s);
        if (has_byte(s, ']')) {
            s->at++;
            return true;
        }
        if (!has_byte(s, ',')) return scan_fail(s, "',' or ']'");
        s->at++;
    }
}

static bool scan_object(scanner *s) {
    s->at++;
    skip_space(s);
    if (has_byte(s, '}')) {
        s->at++;
        return true;
    }
    for (;;) {
        skip_space(s);
        int line = s->line;
        if (!has_byte(s, '"')) return scan_fail(s, "a key in double quotes");
        bool had_zero = s->has_zero;
        s->has_zero = false;
        if (!scan_string(s)) return false;
        if (s->has_zero) return scan_refuse(s, "\\u0000 cannot stand in a key; remove it");
        s->has_zero = had_zero;
        skip_space(s);
        if (!has_byte(s, ':')) return scan_fail(s, "':' after a key");
        s->at++;
        skip_space(s);
        if (!scan_value(s, line)) return false;
        skip_space(s);
        if (has_byte(s, '}')) {
            s->at++;
            return true;
        }
        if (!has_byte(s, ',')) return scan_fail(s, "',' or '}'");
        s->at++;
    }
}

static bool scan_nested(scanner *s, bool (*scan)(scanner *)) {
    if (s->depth == MAX_DEPTH) {
        return scan_refuse(
            s, "objects and arrays are nested more than 64 deep, the most that is read");
    }
    s->depth++;
    bool good = scan(s);
    s->depth--;
    return good;
}

/* leading_line: where the key, or the element itself, begins. */
static bool scan_value(scanner *s, int leading_line) {
    if (s->n_values++ == s->target) s->target_line = leading_line;
    switch (s->at < s->end ? *s->at : 0) {
    case '{':
        return scan_nested(s, scan_object);
    case '[':
        return scan_nested(s, scan_array);
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        if (has_byte(s, '-') || has_digit(s)) return scan_number(s);
        return scan_fail(s, "a value (strings stand in double quotes)");
    }
}

static bool scan_document(scanner *s) {
    if (s->end - s->at >= 3 && !memcmp(s->at, "\xEF\xBB\xBF", 3)) {
        return scan_refuse(s, "begins with a byte order mark; save it as UTF-8 without one");
    }
    skip_space(s);
    if (!scan_value(s, s->line)) return false;
    skip_space(s);
    if (s->at == s->end) return true;
    return scan_fail(s, "nothing after the value");
}

bool icae_json_scan(const char *name, const char *text, size_t bytes, bool *has_zero,
                    icae_error *error) {
    scanner s = {.name = name,
                 .at = (const unsigned char *)text,
                 .end = (const unsigned char *)text + bytes,
                 .line = 1,
                 .target = SIZE_MAX,
                 .error = error};
    bool good = scan_document(&s);
    *has_zero = s.has_zero;
    return good;
}

int icae_json_scan_line(const char *text, size_t bytes, size_t number) {
    scanner s = {.name = "", /* of a good text there is nothing to complain */
                 .at = (const unsigned char *)text,
                 .end = (const unsigned char *)text + bytes,
                 .line = 1,
                 .target = number};
    scan_document(&s);
    return s.target_line;
}
