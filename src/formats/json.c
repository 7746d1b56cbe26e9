/* SPDX-License-Identifier: MIT */
/*
 * JSON documents; the contract stands in icae/json.h.
 *
 * Two walks. First a strict scan of the text (RFC 8259 to the letter, and our own limits), which
 * knows lines and writes the complaints; then cJSON builds the tree. cJSON alone would be too
 * kind: it takes "01", raw control characters and duplicate keys.
 *
 * \u0000 is legal in strings, and texts do hold it. The tree is built from a copy of the text where
 * it is spelt with the bytes C0 80, which well-formed UTF-8 never has; afterwards they are turned
 * into 0 in place. Every string node keeps its length in cJSON's idle `valueint`.
 *
 * A node remembers no line. When a complaint needs one, the node's number in document order is
 * counted in the tree, and the scan runs again up to the value of that number.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "icae/file.h"
#include "icae/json.h"
#include "quote.h"

enum {
    MAX_DEPTH = 64,
    MAX_NUMBER = 63,              /* characters; cJSON's own buffer ends there */
    MAX_TEXT = 256 * 1024 * 1024, /* the largest tokenizer.json in use has 35 MB */
};

struct icae_json {
    char *name, *text;
    size_t bytes;
    cJSON *root;
};

/* ---- the scan ---- */

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

/* ---- lines ---- */

/* Counts nodes in document order up to `wanted`; true when it was met. */
static bool count_up_to(const cJSON *node, const cJSON *wanted, size_t *n) {
    for (; node; node = node->next) {
        if (node == wanted) return true;
        ++*n;
        if (count_up_to(node->child, wanted, n)) return true;
    }
    return false;
}

static const cJSON *node_of(const icae_json_value *value) {
    return (const cJSON *)(const void *)value;
}

static const icae_json_value *value_of(const cJSON *node) {
    return (const icae_json_value *)(const void *)node;
}

int icae_json_line(const icae_json *json, const icae_json_value *value) {
    size_t number = 0;
    if (!value || !count_up_to(json->root, node_of(value), &number)) return 0;
    scanner s = {.name = json->name,
                 .at = (const unsigned char *)json->text,
                 .end = (const unsigned char *)json->text + json->bytes,
                 .line = 1,
                 .target = number};
    scan_document(&s);
    return s.target_line;
}

/* ---- \u0000 in strings ---- */

/* A copy of scanned text with every \u0000 spelt C0 80. A backslash stands only in strings. */
static char *spell_zeros(const char *text, size_t bytes, size_t *new_bytes) {
    char *copy = malloc(bytes + 1);
    if (!copy) return NULL;
    size_t used = 0;
    for (size_t i = 0; i < bytes;) {
        if (text[i] != '\\') {
            copy[used++] = text[i++];
        } else if (!strncmp(text + i + 1, "u0000", 5)) {
            memcpy(copy + used, "\xC0\x80", 2);
            used += 2;
            i += 6;
        } else {
            memcpy(copy + used, text + i, 2);
            used += 2;
            i += 2;
        }
    }
    copy[used] = 0;
    *new_bytes = used;
    return copy;
}

static void measure_string(cJSON *node) {
    char *from = node->valuestring, *to = from;
    for (; *from; from++) {
        bool is_zero = (unsigned char)*from == 0xC0;
        *to++ = is_zero ? 0 : *from;
        from += is_zero;
    }
    *to = 0;
    node->valueint = (int)(to - node->valuestring);
}

static void measure_strings(cJSON *node) {
    for (; node; node = node->next) {
        if (cJSON_IsString(node)) measure_string(node);
        measure_strings(node->child);
    }
}

/* ---- what only the tree shows: duplicate keys and numbers out of range ---- */

static uint64_t hash_string(const char *string, uint64_t seed) {
    uint64_t hash =
        seed ^ 0xCBF29CE484222325u; /* FNV-1a, its upper bits folded in at the end */
    for (; *string; string++)
        hash = (hash ^ (unsigned char)*string) * 0x100000001B3u;
    return hash ^ hash >> 29;
}

/* *duplicate: the later of two children with one key, or NULL. False when memory ends. */
static bool find_duplicate(const cJSON *object, const cJSON **duplicate) {
    size_t count = 0, capacity = 32;
    for (const cJSON *child = object->child; child; child = child->next)
        count++;
    *duplicate = NULL;
    if (count < 2) return true;
    while (capacity < 2 * count)
        capacity *= 2;
    const cJSON **table = calloc(capacity, sizeof *table);
    if (!table) return false;
    /* The address differs from run to run, so a file cannot be made to collide. */
    uint64_t seed = (uint64_t)(uintptr_t)table >> 4;
    for (const cJSON *child = object->child; child && !*duplicate; child = child->next) {
        size_t slot = (size_t)hash_string(child->string, seed) & (capacity - 1);
        while (table[slot] && strcmp(table[slot]->string, child->string))
            slot = (slot + 1) & (capacity - 1);
        if (table[slot]) *duplicate = child;
        table[slot] = child;
    }
    free(table);
    return true;
}

static icae_status check_tree(const icae_json *json, const cJSON *node, icae_error *error) {
    icae_status status = ICAE_OK;
    for (; node && !status; node = node->next) {
        if (cJSON_IsNumber(node) && !isfinite(node->valuedouble)) {
            return icae_fail(
                error, ICAE_FORMAT,
                "%s:%d: a number is too large for a double; expected less than 1.8e308",
                json->name, icae_json_line(json, value_of(node)));
        }
        if (cJSON_IsObject(node)) {
            const cJSON *duplicate;
            if (!find_duplicate(node, &duplicate)) return icae_fail_memory(error, json->name);
            if (duplicate) {
                return icae_fail(error, ICAE_FORMAT,
                                 "%s:%d: the key '%s' stands twice in one object; remove one",
                                 json->name, icae_json_line(json, value_of(duplicate)),
                                 icae_quote_string(duplicate->string).text);
            }
        }
        status = check_tree(json, node->child, error);
    }
    return status;
}

/* ---- documents ---- */

/* Takes `text`, malloc'ed and 0-terminated, in every case. */
static icae_status parse_owned(icae_json **result, const char *name, char *text, size_t bytes,
                               icae_error *error) {
    *result = NULL;
    icae_json *json = calloc(1, sizeof *json);
    if (json) json->name = strdup(name);
    if (!json || !json->name) {
        free(json);
        free(text);
        return icae_fail_memory(error, name);
    }
    json->text = text;
    json->bytes = bytes;
    icae_status status = ICAE_OK;
    scanner s = {.name = name,
                 .at = (const unsigned char *)text,
                 .end = (const unsigned char *)text + bytes,
                 .line = 1,
                 .target = SIZE_MAX,
                 .error = error};
    if (!scan_document(&s)) {
        status = ICAE_FORMAT;
    } else {
        size_t spelt_bytes = bytes;
        char *spelt = s.has_zero ? spell_zeros(text, bytes, &spelt_bytes) : text;
        if (spelt) json->root = cJSON_ParseWithLengthOpts(spelt, spelt_bytes, NULL, 0);
        if (spelt != text) free(spelt);
        measure_strings(json->root);
        /* The scan let through only what cJSON can read, so nothing but memory is left. */
        status =
            json->root ? check_tree(json, json->root, error) : icae_fail_memory(error, name);
    }
    if (status) {
        icae_json_free(json);
        return status;
    }
    *result = json;
    return ICAE_OK;
}

icae_status icae_json_parse(icae_json **json, const char *name, const char *text, size_t bytes,
                            icae_error *error) {
    *json = NULL;
    if (bytes > MAX_TEXT) {
        return icae_fail(error, ICAE_INVALID, "%s: has %zu bytes, expected at most %d", name,
                         bytes, MAX_TEXT);
    }
    char *copy = malloc(bytes + 1);
    if (!copy) return icae_fail_memory(error, name);
    if (bytes) memcpy(copy, text, bytes);
    copy[bytes] = 0;
    return parse_owned(json, name, copy, bytes, error);
}

icae_status icae_json_open(icae_json **json, const char *path, icae_error *error) {
    *json = NULL;
    char *text;
    size_t bytes;
    icae_status status = icae_file_read(path, MAX_TEXT, &text, &bytes, error);
    return status ? status : parse_owned(json, path, text, bytes, error);
}

void icae_json_free(icae_json *json) {
    if (!json) return;
    cJSON_Delete(json->root);
    free(json->text);
    free(json->name);
    free(json);
}

const icae_json_value *icae_json_root(const icae_json *json) {
    return value_of(json->root);
}

const char *icae_json_name(const icae_json *json) {
    return json->name;
}

const char *icae_json_text(const icae_json *json, size_t *bytes) {
    *bytes = json->bytes;
    return json->text;
}

/* ---- nodes ---- */

bool icae_json_is_object(const icae_json_value *value) {
    return value && cJSON_IsObject(node_of(value));
}

bool icae_json_is_array(const icae_json_value *value) {
    return value && cJSON_IsArray(node_of(value));
}

bool icae_json_is_null(const icae_json_value *value) {
    return !value || cJSON_IsNull(node_of(value));
}

bool icae_json_as_bytes(const icae_json_value *value, const char **data, size_t *bytes) {
    if (!value || !cJSON_IsString(node_of(value))) return false;
    *data = node_of(value)->valuestring;
    *bytes = (size_t)node_of(value)->valueint;
    return true;
}

const char *icae_json_as_string(const icae_json_value *value) {
    const char *data;
    size_t bytes;
    return icae_json_as_bytes(value, &data, &bytes) && !memchr(data, 0, bytes) ? data : NULL;
}

bool icae_json_as_number(const icae_json_value *value, double *out) {
    if (!value || !cJSON_IsNumber(node_of(value))) return false;
    *out = node_of(value)->valuedouble;
    return true;
}

bool icae_json_as_integer(const icae_json_value *value, int64_t *out) {
    double number;
    if (!icae_json_as_number(value, &number)) return false;
    if (fabs(number) > 0x1p53 || floor(number) != number) return false;
    *out = (int64_t)number;
    return true;
}

bool icae_json_as_bool(const icae_json_value *value, bool *out) {
    if (!value || !cJSON_IsBool(node_of(value))) return false;
    *out = cJSON_IsTrue(node_of(value));
    return true;
}

const icae_json_value *icae_json_first(const icae_json_value *value) {
    bool is_container = icae_json_is_object(value) || icae_json_is_array(value);
    return is_container ? value_of(node_of(value)->child) : NULL;
}

const icae_json_value *icae_json_next(const icae_json_value *value) {
    return value ? value_of(node_of(value)->next) : NULL;
}

const char *icae_json_key(const icae_json_value *value) {
    return value ? node_of(value)->string : NULL;
}

size_t icae_json_count(const icae_json_value *value) {
    size_t count = 0;
    for (const icae_json_value *v = icae_json_first(value); v; v = icae_json_next(v))
        count++;
    return count;
}

const icae_json_value *icae_json_member(const icae_json_value *object, const char *key) {
    if (!icae_json_is_object(object)) return NULL;
    const icae_json_value *value = icae_json_first(object);
    while (value && strcmp(icae_json_key(value), key))
        value = icae_json_next(value);
    return value;
}
