/* SPDX-License-Identifier: MIT */
/*
 * JSON, strictly: the parsed document knows its file name and text, so that every complaint can
 * name file, line and key. The parser underneath is cJSON; nobody else includes it.
 *
 * Reading settings: an icae_json_object cursor hands out keys one by one; icae_json_end complains
 * about every key that was never asked for. All complaints of one cursor are sticky: the first
 * one stands, later gets return the default, and icae_json_end returns it.
 */
#ifndef ICAE_JSON_H
#define ICAE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_json icae_json; /* a parsed document; owns everything below it */
typedef struct icae_json_value icae_json_value; /* a node; lives as long as its document */

/* name: what messages call it (a path, or "line 7 of x.jsonl"). Refused with a line: all that RFC
 * 8259 does not allow, and duplicate keys, depth over 64, \u0000 in a key, numbers too large
 * for a double. */
icae_status icae_json_parse(icae_json **json, const char *name, const char *text, size_t bytes,
                            icae_error *error);
icae_status icae_json_open(icae_json **json, const char *path, icae_error *error);
void icae_json_free(icae_json *json);
const icae_json_value *icae_json_root(const icae_json *json);
const char *icae_json_name(const icae_json *json);
const char *icae_json_text(const icae_json *json, size_t *bytes); /* as it was read */
/* 1-based line on which the key or element that leads to `value` stands; 0 when unknown. */
int icae_json_line(const icae_json *json, const icae_json_value *value);

/* Nodes. Wrong type: NULL, or false. */
bool icae_json_is_object(const icae_json_value *value);
bool icae_json_is_array(const icae_json_value *value);
bool icae_json_is_null(const icae_json_value *value); /* also for NULL */
/* A string that holds \u0000 is not a C string: NULL here, whole in as_bytes (which takes every
 * string and is the one to use for texts). Both are 0-terminated UTF-8. */
const char *icae_json_as_string(const icae_json_value *value);
bool icae_json_as_bytes(const icae_json_value *value, const char **data, size_t *bytes);
bool icae_json_as_number(const icae_json_value *value, double *out);
bool icae_json_as_integer(const icae_json_value *value, int64_t *out); /* whole, |x| <= 2^53 */
bool icae_json_as_bool(const icae_json_value *value, bool *out);
size_t
icae_json_count(const icae_json_value *value); /* elements of an array, keys of an object */
const icae_json_value *icae_json_member(const icae_json_value *object, const char *key);
/* First child, next sibling: the way to walk long arrays and objects in linear time. */
const icae_json_value *icae_json_first(const icae_json_value *value);
const icae_json_value *icae_json_next(const icae_json_value *value);
const char *icae_json_key(const icae_json_value *value); /* NULL in arrays */

/* Settings. `where` is put before key names in messages ("train." or ""). */
typedef struct icae_json_object {
    const icae_json *json;
    const icae_json_value *value;
    char where[64];
    icae_error *error;
    icae_status status;
    uint64_t seen[4];   /* which of the first 256 keys were asked for; more are refused */
    char missing[1024]; /* names asked for in vain, each with its 0: for "did you mean" */
    size_t missing_bytes;
} icae_json_object;

/* value NULL (a key that is missing) reads like an object without keys: all defaults. */
icae_json_object icae_json_begin(const icae_json *json, const icae_json_value *value,
                                 const char *where, icae_error *error);
/* Each returns the default when the key is missing or null, and complains about type and range. */
int64_t icae_json_get_integer(icae_json_object *object, const char *key, int64_t default_value,
                              int64_t least, int64_t most);
double icae_json_get_number(icae_json_object *object, const char *key, double default_value,
                            double least, double most);
bool icae_json_get_bool(icae_json_object *object, const char *key, bool default_value);
const char *icae_json_get_string(icae_json_object *object, const char *key,
                                 const char *default_value);
/* The index of the string in choices (NULL-terminated); complains with the list of them. */
int icae_json_get_choice(icae_json_object *object, const char *key, const char *const *choices,
                         int default_value);
/* NULL when missing or null. */
const icae_json_value *icae_json_get_value(icae_json_object *object, const char *key);
bool icae_json_has(icae_json_object *object, const char *key); /* does not count as asked for */
void icae_json_complain(icae_json_object *object, const char *key, const char *format, ...)
    ICAE_PRINTF(3, 4); /* "FILE:LINE: key: ..." */
/* The sticky status, or a complaint that names the first key nobody asked for. */
icae_status icae_json_end(icae_json_object *object);
/* The sticky status without the check for unknown keys (for files of other programs). */
icae_status icae_json_end_lenient(icae_json_object *object);

/* Writing: strings are escaped, numbers get the digits they need to read back equal, NaN and
 * infinities become null. Valid JSON is up to the caller's punctuation. */
void icae_json_write_string(icae_text *out, const char *string, size_t bytes);
void icae_json_write_number(icae_text *out, double number);

/* Ends an object whose last value was written: a key "checksum" over all of the text so far, and the closing
 * brace (src/formats/json_seal.c). */
void icae_json_write_seal(icae_text *out);
/* The same for a document that was read: ICAE_OK when its root has no "checksum", or one that fits every
 * byte of the text; else a sentence, which `advice` ends ("take an earlier copy"). */
icae_status icae_json_check_seal(const icae_json *json, const char *advice, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
