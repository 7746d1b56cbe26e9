/* SPDX-License-Identifier: MIT */
/*
 * Safetensors; the contract and the layout stand in icae/safetensors.h.
 *
 * Reading: the header is parsed as strict JSON, every tensor's description is checked by itself,
 * then all together, in the order of their offsets: each must begin where the one before ended,
 * the first at 0, the last ending with the file. So no byte is read twice, and none is hidden.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/json.h"
#include "icae/safetensors.h"
#include "quote.h"

enum { PREFIX = 8, LONGEST_HEADER = 100 * 1000 * 1000 };
static const char METADATA_KEY[] = "__metadata__";

/* ---- reading ---- */

typedef struct reader {
    icae_safetensors *file;
    const char *path;
    const unsigned char *buffer; /* where offsets count from */
    size_t buffer_bytes;
    icae_error *error;
} reader;

static icae_status refuse(reader *r, icae_status status, const char *name, const char *format,
                          ...) ICAE_PRINTF(4, 5);

/* "PATH: tensor 'NAME': sentence" */
static icae_status refuse(reader *r, icae_status status, const char *name, const char *format,
                          ...) {
    char sentence[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return icae_fail(r->error, status, "%s: tensor '%s': %s%s", r->path,
                     icae_quote_string(name).text, sentence, icae_remedy(status, sentence));
}

static icae_status read_metadata(reader *r, const icae_json_value *value) {
    icae_safetensors *file = r->file;
    size_t n = icae_json_count(value);
    if (!icae_json_is_object(value)) {
        return icae_fail(r->error, ICAE_FORMAT,
                         "%s: __metadata__: expected an object {...}; write it "
                         "anew",
                         r->path);
    }
    file->metadata = icae_arena_array(&file->arena, n, 2 * sizeof *file->metadata);
    if (!file->metadata) return icae_fail_memory(r->error, r->path);
    for (const icae_json_value *v = icae_json_first(value); v; v = icae_json_next(v)) {
        const char *key = icae_json_key(v), *string = icae_json_as_string(v);
        if (!string) {
            return icae_fail(
                r->error, ICAE_FORMAT,
                "%s: __metadata__: '%s': expected a string without \\u0000; write it anew",
                r->path, icae_quote_string(key).text);
        }
        const char *key_copy = icae_arena_copy(&file->arena, key, strlen(key));
        const char *string_copy = icae_arena_copy(&file->arena, string, strlen(string));
        if (!key_copy || !string_copy) return icae_fail_memory(r->error, r->path);
        file->metadata[2 * file->n_metadata] = key_copy;
        file->metadata[2 * file->n_metadata + 1] = string_copy;
        file->n_metadata++;
    }
    return ICAE_OK;
}

/* A whole number that is not negative. */
static bool read_size(const icae_json_value *value, int64_t *out) {
    return icae_json_as_integer(value, out) && *out >= 0;
}

static icae_status read_dtype(reader *r, const char *name, const icae_json_value *value,
                              icae_dtype *dtype) {
    const char *type = icae_json_as_string(value);
    if (!type) return refuse(r, ICAE_FORMAT, name, "\"dtype\": expected a string");
    *dtype = icae_dtype_from_safetensors(type);
    if (*dtype != ICAE_DTYPE_COUNT) return ICAE_OK;
    return refuse(r, ICAE_UNSUPPORTED, name,
                  "the type '%s' is not supported; expected F32, F64, F16 or BF16",
                  icae_quote_string(type).text);
}

static icae_status read_shape(reader *r, const icae_json_value *value,
                              icae_safetensors_entry *entry, int64_t *values) {
    if (!icae_json_is_array(value)) {
        return refuse(r, ICAE_FORMAT, entry->name, "\"shape\": expected an array");
    }
    size_t rank = icae_json_count(value);
    if (rank > ICAE_MAX_RANK) {
        return refuse(r, ICAE_UNSUPPORTED, entry->name,
                      "has %zu dimensions; at most %d are "
                      "supported",
                      rank, ICAE_MAX_RANK);
    }
    *values = 1;
    for (const icae_json_value *v = icae_json_first(value); v; v = icae_json_next(v)) {
        int64_t dimension;
        if (!read_size(v, &dimension)) {
            return refuse(r, ICAE_FORMAT, entry->name,
                          "\"shape\": expected whole numbers from 0 up");
        }
        if (__builtin_mul_overflow(*values, dimension, values)) {
            return refuse(r, ICAE_FORMAT, entry->name,
                          "the product of the dimensions is too large");
        }
        entry->shape[entry->rank++] = dimension;
    }
    return ICAE_OK;
}

static icae_status read_offsets(reader *r, const icae_json_value *value,
                                icae_safetensors_entry *entry) {
    const icae_json_value *first = icae_json_first(value);
    int64_t begin, end;
    if (!icae_json_is_array(value) || icae_json_count(value) != 2 ||
        !read_size(first, &begin) || !read_size(icae_json_next(first), &end)) {
        return refuse(r, ICAE_FORMAT, entry->name,
                      "\"data_offsets\": expected two whole numbers [begin, end]");
    }
    if (begin > end) {
        return refuse(r, ICAE_FORMAT, entry->name,
                      "\"data_offsets\": begin %lld is after end %lld", (long long)begin,
                      (long long)end);
    }
    if ((uint64_t)end > r->buffer_bytes) {
        return refuse(
            r, ICAE_FORMAT, entry->name,
            "\"data_offsets\": end %lld is past the end of the file (%zu bytes of data); "
            "fetch it again",
            (long long)end, r->buffer_bytes);
    }
    if ((uint64_t)(end - begin) != entry->bytes) {
        return refuse(r, ICAE_FORMAT, entry->name,
                      "\"data_offsets\" span %lld bytes, but shape and dtype need %zu",
                      (long long)(end - begin), entry->bytes);
    }
    entry->data = r->buffer + begin;
    return ICAE_OK;
}

static icae_status read_entry(reader *r, const icae_json_value *value,
                              icae_safetensors_entry *entry) {
    const char *name = icae_json_key(value);
    if (!icae_json_is_object(value)) {
        return refuse(r, ICAE_FORMAT, name, "expected an object {...}");
    }
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    const icae_json_value *parts[3];
    for (size_t i = 0; i < 3; i++) {
        parts[i] = icae_json_member(value, keys[i]);
        if (!parts[i]) return refuse(r, ICAE_FORMAT, name, "\"%s\" is missing", keys[i]);
    }
    if (icae_json_count(value) != 3) {
        return refuse(r, ICAE_FORMAT, name, "expected only dtype, shape and data_offsets");
    }
    entry->name = icae_arena_copy(&r->file->arena, name, strlen(name));
    if (!entry->name) return icae_fail_memory(r->error, r->path);
    int64_t values = 0;
    icae_status status = read_dtype(r, name, parts[0], &entry->dtype);
    if (!status) status = read_shape(r, parts[1], entry, &values);
    if (!status && !icae_dtype_bytes(entry->dtype, values, &entry->bytes)) {
        status = refuse(r, ICAE_FORMAT, name, "the tensor is too large");
    }
    if (!status) status = read_offsets(r, parts[2], entry);
    return status;
}

static int compare_places(const void *left, const void *right) {
    const icae_safetensors_entry *a = left, *b = right;
    const unsigned char *x = a->data, *y = b->data;
    if (x != y) return x < y ? -1 : 1;
    return (a->bytes > b->bytes) - (a->bytes < b->bytes); /* empty ones first */
}

static int compare_names(const void *left, const void *right) {
    const icae_safetensors_entry *a = left, *b = right;
    return strcmp(a->name, b->name);
}

/* Leaves the entries sorted by place. */
static icae_status check_cover(reader *r) {
    icae_safetensors *file = r->file;
    size_t reached = 0;
    if (file->n_entries) {
        qsort(file->entries, file->n_entries, sizeof *file->entries, compare_places);
    }
    for (size_t i = 0; i < file->n_entries; i++) {
        const icae_safetensors_entry *entry = &file->entries[i];
        size_t begin = (size_t)((const unsigned char *)entry->data - r->buffer);
        if (begin < reached) {
            return refuse(r, ICAE_FORMAT, entry->name, "overlaps with tensor '%s'",
                          icae_quote_string(file->entries[i - 1].name).text);
        }
        if (begin > reached) {
            return refuse(r, ICAE_FORMAT, entry->name,
                          "begins at byte %zu of the data, leaving a hole from byte %zu", begin,
                          reached);
        }
        reached = begin + entry->bytes;
    }
    if (reached == r->buffer_bytes) return ICAE_OK;
    return icae_fail(r->error, ICAE_FORMAT,
                     "%s: %zu bytes after the last tensor belong to none; fetch it again",
                     r->path, r->buffer_bytes - reached);
}

static icae_status read_header(reader *r, const icae_json_value *root) {
    icae_safetensors *file = r->file; /* its header began with '{', so the root is an object */
    file->entries =
        icae_arena_array(&file->arena, icae_json_count(root), sizeof *file->entries);
    if (!file->entries) return icae_fail_memory(r->error, r->path);
    for (const icae_json_value *v = icae_json_first(root); v; v = icae_json_next(v)) {
        icae_status status = strcmp(icae_json_key(v), METADATA_KEY)
                                 ? read_entry(r, v, &file->entries[file->n_entries++])
                                 : read_metadata(r, v);
        if (status) return status;
    }
    icae_status status = check_cover(r);
    if (!status && file->n_entries) {
        qsort(file->entries, file->n_entries, sizeof *file->entries, compare_names);
    }
    return status;
}

static icae_status read_mapping(icae_safetensors *file, const char *path, icae_error *error) {
    const unsigned char *data = file->mapping.data;
    size_t bytes = file->mapping.bytes;
    if (bytes < PREFIX) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: has %zu bytes, expected at least the 8 of the header's length; "
                         "fetch it again",
                         path, bytes);
    }
    uint64_t length = 0;
    for (int i = PREFIX - 1; i >= 0; i--)
        length = length << 8 | data[i];
    if (length > LONGEST_HEADER) {
        return icae_fail(
            error, ICAE_FORMAT,
            "%s: header length %llu is over %d; this is no safetensors file, nor one of slots",
            path, (unsigned long long)length, LONGEST_HEADER);
    }
    if (length > bytes - PREFIX) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: header length %llu, but only %zu bytes follow; fetch it again",
                         path, (unsigned long long)length, bytes - PREFIX);
    }
    if (!length || data[PREFIX] != '{') {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: header: expected '{' as its first byte; this is "
                         "no safetensors file, nor one of slots",
                         path);
    }
    char *name;
    if (asprintf(&name, "%s: header", path) < 0) return icae_fail_memory(error, path);
    icae_json *json;
    icae_status status =
        icae_json_parse(&json, name, (const char *)data + PREFIX, (size_t)length, error);
    free(name);
    if (status) return status;
    reader r = {.file = file,
                .path = path,
                .buffer = data + PREFIX + length,
                .buffer_bytes = bytes - PREFIX - (size_t)length,
                .error = error};
    status = read_header(&r, icae_json_root(json));
    icae_json_free(json);
    return status;
}

icae_status icae_safetensors_open(icae_safetensors *file, const char *path, icae_error *error) {
    *file = (icae_safetensors){0};
    icae_status status = icae_mapping_open(&file->mapping, path, error);
    if (status) return status;
    status = read_mapping(file, path, error);
    if (status) icae_safetensors_close(file);
    return status;
}

void icae_safetensors_close(icae_safetensors *file) {
    icae_arena_release(&file->arena);
    icae_mapping_close(&file->mapping);
    *file = (icae_safetensors){0};
}

const icae_safetensors_entry *icae_safetensors_find(const icae_safetensors *file,
                                                    const char *name) {
    if (!file->n_entries) return NULL;
    const icae_safetensors_entry wanted = {.name = name};
    return bsearch(&wanted, file->entries, file->n_entries, sizeof wanted, compare_names);
}

const char *icae_safetensors_metadata(const icae_safetensors *file, const char *key) {
    for (size_t i = 0; i < file->n_metadata; i++) {
        if (!strcmp(file->metadata[2 * i], key)) return file->metadata[2 * i + 1];
    }
    return NULL;
}

/* ---- writing ---- */

typedef struct plan { /* one tensor of the file to be */
    const icae_safetensors_source *source;
    size_t bytes;
} plan;

typedef struct pair {
    const char *key, *value;
} pair;

static int compare_plans(const void *left, const void *right) {
    const plan *a = left, *b = right;
    return strcmp(a->source->name, b->source->name);
}

static int compare_pairs(const void *left, const void *right) {
    const pair *a = left, *b = right;
    return strcmp(a->key, b->key);
}

static icae_status plan_tensor(const char *path, const icae_safetensors_source *source,
                               plan *out, icae_error *error) {
    icae_quoted name = icae_quote_string(source->name);
    const icae_dtype_info *info = icae_dtype_describe(source->dtype);
    if (!strcmp(source->name, METADATA_KEY) ||
        !icae_utf8_is_valid(source->name, strlen(source->name))) {
        return icae_fail(error, ICAE_INVALID, "%s: '%s' cannot be the name of a tensor", path,
                         name.text);
    }
    if (!info->safetensors_name) {
        return icae_fail(error, ICAE_INVALID, "%s: tensor '%s': safetensors has no type %s",
                         path, name.text, info->name);
    }
    if (source->rank < 0 || source->rank > ICAE_MAX_RANK) {
        return icae_fail(error, ICAE_INVALID, "%s: tensor '%s': rank %d; expected 0 to %d",
                         path, name.text, source->rank, ICAE_MAX_RANK);
    }
    int64_t values = 1;
    bool fits = true;
    for (int i = 0; i < source->rank; i++) {
        fits = fits && source->shape[i] >= 0 &&
               !__builtin_mul_overflow(values, source->shape[i], &values);
    }
    if (!fits || !icae_dtype_bytes(source->dtype, values, &out->bytes)) {
        return icae_fail(error, ICAE_INVALID,
                         "%s: tensor '%s': a dimension is negative or their product too large",
                         path, name.text);
    }
    out->source = source;
    return ICAE_OK;
}

static void write_key(icae_text *header, const char *key) {
    if (header->length > 1) icae_text_append_char(header, ',');
    icae_json_write_string(header, key, strlen(key));
    icae_text_append_char(header, ':');
}

static void make_header(icae_text *header, const plan *plans, size_t n_plans, const pair *pairs,
                        size_t n_pairs) {
    icae_text_append_char(header, '{');
    if (n_pairs) {
        write_key(header, METADATA_KEY);
        for (size_t i = 0; i < n_pairs; i++) {
            icae_text_append_char(header, i ? ',' : '{');
            icae_json_write_string(header, pairs[i].key, strlen(pairs[i].key));
            icae_text_append_char(header, ':');
            icae_json_write_string(header, pairs[i].value, strlen(pairs[i].value));
        }
        icae_text_append_char(header, '}');
    }
    size_t offset = 0;
    for (size_t i = 0; i < n_plans; i++) {
        const icae_safetensors_source *source = plans[i].source;
        write_key(header, source->name);
        icae_text_printf(header, "{\"dtype\":\"%s\",\"shape\":[",
                         icae_dtype_describe(source->dtype)->safetensors_name);
        for (int axis = 0; axis < source->rank; axis++) {
            icae_text_printf(header, "%s%lld", axis ? "," : "", (long long)source->shape[axis]);
        }
        icae_text_printf(header, "],\"data_offsets\":[%zu,%zu]}", offset,
                         offset + plans[i].bytes);
        offset += plans[i].bytes;
    }
    icae_text_append_char(header, '}');
    while (header->length % 8 && !header->failed)
        icae_text_append_char(header, ' ');
}

/* Where the data of all tensors is: NULL bring: in host memory. */
typedef struct origin {
    icae_safetensors_bring *bring;
    const void *user;
} origin;

static void write_data(icae_writer *writer, const plan *tensor, origin from) {
    const void *data = tensor->source->data;
    if (!from.bring) {
        icae_writer_write(writer, data, tensor->bytes);
        return;
    }
    unsigned char piece[16384];
    for (size_t at = 0; at < tensor->bytes; at += sizeof piece) {
        size_t left = tensor->bytes - at, n = left < sizeof piece ? left : sizeof piece;
        from.bring(from.user, data, at, n, piece);
        icae_writer_write(writer, piece, n);
    }
}

static icae_status write_file(const char *path, const icae_text *header, const plan *plans,
                              size_t n_plans, origin from, icae_error *error) {
    icae_writer writer;
    icae_status status = icae_writer_begin(&writer, path, error);
    if (status) return status;
    unsigned char prefix[PREFIX];
    for (int i = 0; i < PREFIX; i++)
        prefix[i] = (unsigned char)((uint64_t)header->length >> (8 * i));
    icae_writer_write(&writer, prefix, sizeof prefix);
    icae_writer_write(&writer, header->data, header->length);
    for (size_t i = 0; i < n_plans; i++)
        write_data(&writer, &plans[i], from);
    return icae_writer_commit(&writer, error);
}

/* Fills plans and pairs in file order and refuses what no reader would take. */
static icae_status make_plan(const char *path, const icae_safetensors_source *sources,
                             plan *plans, size_t n_sources, const char *const *metadata,
                             pair *pairs, size_t n_metadata, icae_error *error) {
    size_t total = 0;
    for (size_t i = 0; i < n_sources; i++) {
        icae_status status = plan_tensor(path, &sources[i], &plans[i], error);
        if (status) return status;
        if (!icae_size_add(total, plans[i].bytes, &total)) {
            return icae_fail(error, ICAE_INVALID, "%s: the tensors are too large", path);
        }
    }
    for (size_t i = 0; i < n_metadata; i++)
        pairs[i] = (pair){metadata[2 * i], metadata[2 * i + 1]};
    if (n_sources) qsort(plans, n_sources, sizeof *plans, compare_plans);
    if (n_metadata) qsort(pairs, n_metadata, sizeof *pairs, compare_pairs);
    for (size_t i = 1; i < n_sources; i++) {
        if (!compare_plans(&plans[i - 1], &plans[i])) {
            return icae_fail(error, ICAE_INVALID, "%s: two tensors have the name '%s'", path,
                             icae_quote_string(plans[i].source->name).text);
        }
    }
    for (size_t i = 1; i < n_metadata; i++) {
        if (!compare_pairs(&pairs[i - 1], &pairs[i])) {
            return icae_fail(error, ICAE_INVALID, "%s: metadata key '%s' is given twice", path,
                             icae_quote_string(pairs[i].key).text);
        }
    }
    return ICAE_OK;
}

static icae_status write_sources(const char *path, const icae_safetensors_source *sources,
                                 size_t n_sources, const char *const *metadata,
                                 size_t n_metadata, origin from, icae_error *error) {
    plan *plans = calloc(n_sources + 1, sizeof *plans);
    pair *pairs = calloc(n_metadata + 1, sizeof *pairs);
    icae_text header = {0};
    icae_status status = ICAE_OK;
    if (!plans || !pairs) status = icae_fail_memory(error, path);
    if (!status) {
        status = make_plan(path, sources, plans, n_sources, metadata, pairs, n_metadata, error);
    }
    if (!status) {
        make_header(&header, plans, n_sources, pairs, n_metadata);
        if (header.failed) {
            status = icae_fail_memory(error, path);
        } else if (header.length > LONGEST_HEADER) {
            status =
                icae_fail(error, ICAE_INVALID, "%s: the header would have %zu bytes, over %d",
                          path, header.length, LONGEST_HEADER);
        }
    }
    if (!status) status = write_file(path, &header, plans, n_sources, from, error);
    icae_text_release(&header);
    free(pairs);
    free(plans);
    return status;
}

icae_status icae_safetensors_write(const char *path, const icae_safetensors_source *sources,
                                   size_t n_sources, const char *const *metadata,
                                   size_t n_metadata, icae_error *error) {
    return write_sources(path, sources, n_sources, metadata, n_metadata, (origin){0}, error);
}

icae_status icae_safetensors_write_from(const char *path,
                                        const icae_safetensors_source *sources,
                                        size_t n_sources, icae_safetensors_bring *bring,
                                        const void *user, icae_error *error) {
    return write_sources(path, sources, n_sources, NULL, 0, (origin){bring, user}, error);
}
