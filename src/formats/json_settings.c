/* SPDX-License-Identifier: MIT */
/*
 * Settings out of a JSON object, and JSON output; the contract stands in icae/json.h.
 *
 * A cursor marks which keys of its object were asked for, and remembers the names that were asked
 * for in vain: a key nobody knows is most likely one of those, misspelt.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/json.h"
#include "quote.h"

enum { MAX_KEYS = 256 }; /* bits in icae_json_object.seen */

/* ---- complaints ---- */

void icae_json_complain(icae_json_object *object, const char *key, const char *format, ...) {
    if (object->status) return;
    char sentence[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);

    const icae_json_value *value = key ? icae_json_member(object->value, key) : NULL;
    int line = icae_json_line(object->json, value ? value : object->value);
    char place[160];
    snprintf(place, sizeof place, "%s%s", object->where,
             key ? icae_quote_string(key).text : "");
    size_t length = strlen(place);
    if (length && place[length - 1] == '.') place[length - 1] = 0; /* the object itself */
    object->status =
        icae_fail(object->error, ICAE_INVALID, "%s:%d: %s%s%s", icae_json_name(object->json),
                  line ? line : 1, place, *place ? ": " : "", sentence);
}

icae_json_object icae_json_begin(const icae_json *json, const icae_json_value *value,
                                 const char *where, icae_error *error) {
    icae_json_object object = {.json = json, .value = value, .error = error};
    snprintf(object.where, sizeof object.where, "%s", where);
    if (value && !icae_json_is_object(value)) {
        icae_json_complain(&object, NULL, "expected an object {...}");
    } else if (icae_json_count(value) > MAX_KEYS) {
        icae_json_complain(&object, NULL, "has more than %d keys", MAX_KEYS);
    }
    return object;
}

/* ---- one key ---- */

static void remember_missing(icae_json_object *object, const char *key) {
    size_t bytes = strlen(key) + 1;
    if (bytes > sizeof object->missing - object->missing_bytes) return;
    memcpy(object->missing + object->missing_bytes, key, bytes);
    object->missing_bytes += bytes;
}

/* The value of a key that is there and not null; marks the key as asked for. */
static const icae_json_value *ask(icae_json_object *object, const char *key) {
    if (object->status) return NULL;
    size_t index = 0;
    const icae_json_value *value = icae_json_first(object->value);
    for (; value; value = icae_json_next(value), index++) {
        if (!strcmp(icae_json_key(value), key)) {
            object->seen[index / 64] |= UINT64_C(1) << (index % 64);
            return icae_json_is_null(value) ? NULL : value;
        }
    }
    remember_missing(object, key);
    return NULL;
}

int64_t icae_json_get_integer(icae_json_object *object, const char *key, int64_t default_value,
                              int64_t least, int64_t most) {
    const icae_json_value *value = ask(object, key);
    if (!value) return default_value;
    int64_t number;
    if (!icae_json_as_integer(value, &number)) {
        icae_json_complain(object, key, "expected a whole number");
        return default_value;
    }
    if (number < least || number > most) {
        icae_json_complain(object, key, "expected %lld to %lld, got %lld", (long long)least,
                           (long long)most, (long long)number);
        return default_value;
    }
    return number;
}

double icae_json_get_number(icae_json_object *object, const char *key, double default_value,
                            double least, double most) {
    const icae_json_value *value = ask(object, key);
    if (!value) return default_value;
    double number;
    if (!icae_json_as_number(value, &number)) {
        icae_json_complain(object, key, "expected a number");
        return default_value;
    }
    if (number < least || number > most) {
        icae_json_complain(object, key, "expected %g to %g, got %g", least, most, number);
        return default_value;
    }
    return number;
}

bool icae_json_get_bool(icae_json_object *object, const char *key, bool default_value) {
    const icae_json_value *value = ask(object, key);
    bool flag = default_value;
    if (value && !icae_json_as_bool(value, &flag)) {
        icae_json_complain(object, key, "expected true or false");
    }
    return flag;
}

const char *icae_json_get_string(icae_json_object *object, const char *key,
                                 const char *default_value) {
    const icae_json_value *value = ask(object, key);
    if (!value) return default_value;
    const char *string = icae_json_as_string(value), *data;
    size_t bytes;
    if (!string) {
        bool has_zero = icae_json_as_bytes(value, &data, &bytes);
        icae_json_complain(object, key, "%s",
                           has_zero ? "holds \\u0000; remove it"
                                    : "expected a string in double quotes");
        return default_value;
    }
    return string;
}

int icae_json_get_choice(icae_json_object *object, const char *key, const char *const *choices,
                         int default_value) {
    const icae_json_value *value = ask(object, key);
    if (!value) return default_value;
    const char *string = icae_json_as_string(value);
    char list[400];
    size_t used = 0;
    list[0] = 0;
    for (int i = 0; choices[i]; i++) {
        if (string && !strcmp(choices[i], string)) return i;
        int n =
            snprintf(list + used, sizeof list - used, "%s\"%s\"", i ? ", " : "", choices[i]);
        if ((size_t)n < sizeof list - used) used += (size_t)n;
    }
    if (string) {
        icae_json_complain(object, key, "expected one of %s, got \"%s\"", list,
                           icae_quote_string(string).text);
    } else {
        icae_json_complain(object, key, "expected one of %s", list);
    }
    return default_value;
}

const icae_json_value *icae_json_get_value(icae_json_object *object, const char *key) {
    return ask(object, key);
}

bool icae_json_has(icae_json_object *object, const char *key) {
    return icae_json_member(object->value, key) != NULL;
}

/* ---- the end ---- */

/* The key that was asked for in vain and is the nearest to `key`, or NULL. */
static const char *nearest_missing(const icae_json_object *object, const char *key) {
    const char *nearest = NULL;
    for (size_t at = 0; at < object->missing_bytes;) {
        const char *name = object->missing + at;
        icae_name_suggest(key, name, &nearest);
        at += strlen(name) + 1;
    }
    return nearest;
}

icae_status icae_json_end(icae_json_object *object) {
    if (object->status) return object->status;
    size_t index = 0;
    const icae_json_value *value = icae_json_first(object->value);
    for (; value; value = icae_json_next(value), index++) {
        if (object->seen[index / 64] >> (index % 64) & 1) continue;
        const char *key = icae_json_key(value), *nearest = nearest_missing(object, key);
        if (nearest) {
            icae_json_complain(object, key, "unknown key '%s'; did you mean '%s'?",
                               icae_quote_string(key).text, nearest);
        } else {
            icae_json_complain(object, key, "unknown key '%s'; remove it",
                               icae_quote_string(key).text);
        }
        break;
    }
    return object->status;
}

icae_status icae_json_end_lenient(icae_json_object *object) {
    return object->status;
}

/* ---- writing ---- */

void icae_json_write_string(icae_text *out, const char *string, size_t bytes) {
    const unsigned char *at = (const unsigned char *)string, *end = at + bytes;
    icae_text_append_char(out, '"');
    while (at < end) {
        /* As long a run as needs no change, in one piece. */
        const unsigned char *run = at;
        int32_t point = 0;
        int length = 1;
        while (at < end) {
            length = icae_utf8_decode(at, (size_t)(end - at), &point);
            if (point < 0x20 || point == '"' || point == '\\') break;
            at += length;
        }
        icae_text_append(out, run, (size_t)(at - run));
        if (at == end) break;
        if (point < 0) {
            icae_text_append(out, "\xEF\xBF\xBD", 3);
        } else if (point == '\n') {
            icae_text_append(out, "\\n", 2);
        } else if (point == '\t') {
            icae_text_append(out, "\\t", 2);
        } else if (point == '\r') {
            icae_text_append(out, "\\r", 2);
        } else if (point < 0x20) {
            icae_text_printf(out, "\\u%04X", (unsigned)point);
        } else {
            icae_text_append_char(out, '\\');
            icae_text_append_char(out, (char)point);
        }
        at += length;
    }
    icae_text_append_char(out, '"');
}

void icae_json_write_number(icae_text *out, double number) {
    if (!isfinite(number)) {
        icae_text_append_string(out, "null");
        return;
    }
    char digits[40];
    for (int precision = 15;; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (precision == 17 || strtod(digits, NULL) == number) break; /* 17 always do */
    }
    /* A program that embeds the library may have set a locale whose decimal point is a comma. */
    for (char *c = digits; *c; c++) {
        if (!strchr("+-0123456789e", *c)) *c = '.';
    }
    icae_text_append_string(out, digits);
}
