/* SPDX-License-Identifier: MIT */
/*
 * JSON documents; the contract stands in icae/json.h.
 *
 * Two walks. First a strict scan of the text (RFC 8259 to the letter, and our own limits), which
 * knows lines and writes the complaints (json_scan.c); then cJSON builds the tree. cJSON alone would
 * be too kind: it takes "01", raw control characters and duplicate keys.
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
#include "json_scan.h"
#include "quote.h"

enum { MAX_TEXT = 256 * 1024 * 1024 }; /* the largest tokenizer.json in use has 35 MB */

struct icae_json {
    char *name, *text;
    size_t bytes;
    cJSON *root;
};

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
    return icae_json_scan_line(json->text, json->bytes, number);
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
    bool has_zero;
    if (!icae_json_scan(name, text, bytes, &has_zero, error)) {
        status = ICAE_FORMAT;
    } else {
        size_t spelt_bytes = bytes;
        char *spelt = has_zero ? spell_zeros(text, bytes, &spelt_bytes) : text;
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
