/* SPDX-License-Identifier: MIT */
/*
 * Writing GGUF; the contract stands in icae/gguf_write.h, the bytes in gguf.c's head.
 *
 * Metadata and descriptions are made in memory as they come: their counts stand in front of them in the
 * file, and a tensor's place is known from those described before it. With the first data the header
 * goes out, and from there on bytes only pass through. What the reader would refuse (a name twice,
 * broken rows, a missing tail) is refused here, before a file appears.
 */
#include <stdlib.h>
#include <string.h>

#include "gguf_internal.h"
#include "icae/gguf_write.h"
#include "quote.h"

enum { VERSION = 3 };

/* ---- bytes ---- */

static void put_u32(icae_text *out, uint32_t value) {
    const unsigned char bytes[4] = {(unsigned char)value, (unsigned char)(value >> 8),
                                    (unsigned char)(value >> 16), (unsigned char)(value >> 24)};
    icae_text_append(out, bytes, sizeof bytes);
}

static void put_u64(icae_text *out, uint64_t value) {
    put_u32(out, (uint32_t)value);
    put_u32(out, (uint32_t)(value >> 32));
}

static void put_bytes(icae_text *out, const char *data, size_t bytes) {
    put_u64(out, bytes);
    icae_text_append(out, data, bytes);
}

/* ---- the writer ---- */

void icae_gguf_begin(icae_gguf_writer *writer, const char *path) {
    *writer = (icae_gguf_writer){.alignment = GGUF_DEFAULT_ALIGNMENT, .out.descriptor = -1};
    writer->path = strdup(path);
    if (!writer->path) icae_fail_memory(&writer->error, path);
}

/* Room for one more in a growing array. */
static bool grow(icae_gguf_writer *writer, void **list, size_t count, size_t *room,
                 size_t bytes_each) {
    if (count < *room) return true;
    size_t wanted = *room ? 2 * *room : 64, bytes;
    void *larger = icae_size_mul(wanted, bytes_each, &bytes) ? realloc(*list, bytes) : NULL;
    if (!larger) {
        icae_fail_memory(&writer->error, writer->path);
        return false;
    }
    *list = larger;
    *room = wanted;
    return true;
}

/* Whether more may be put under this name. */
static bool check_name(icae_gguf_writer *writer, const char *what, const char *name) {
    if (writer->error.status) return false;
    if (writer->has_header) {
        icae_fail(&writer->error, ICAE_INVALID, "%s: %s '%s' comes after the first data",
                  writer->path, what, icae_quote_string(name).text);
    } else if (!*name || strlen(name) > GGUF_LONGEST_NAME) {
        icae_fail(&writer->error, ICAE_INVALID, "%s: a %s has no name, or one over %d bytes",
                  writer->path, what, GGUF_LONGEST_NAME);
    }
    return !writer->error.status;
}

/* ---- metadata ---- */

static void obey_alignment(icae_gguf_writer *writer, const icae_gguf_item *item) {
    int64_t value = 0;
    if (item->type == ICAE_GGUF_ARRAY || !icae_gguf_integer(item, 0, &value) ||
        !icae_gguf_is_alignment(value)) {
        icae_fail(&writer->error, ICAE_INVALID,
                  "%s: general.alignment: expected a power of two from %d to %d", writer->path,
                  GGUF_LEAST_ALIGNMENT, GGUF_MOST_ALIGNMENT);
    } else if (writer->n_tensors) {
        icae_fail(&writer->error, ICAE_INVALID,
                  "%s: general.alignment comes after the first tensor", writer->path);
    } else {
        writer->alignment = (size_t)value;
    }
}

void icae_gguf_put_item(icae_gguf_writer *writer, const icae_gguf_item *item) {
    if (!check_name(writer, "key", item->key)) return;
    icae_gguf_type element = item->type == ICAE_GGUF_ARRAY ? item->element_type : item->type;
    if ((unsigned)item->type > ICAE_GGUF_F64 || (unsigned)element > ICAE_GGUF_F64 ||
        element == ICAE_GGUF_ARRAY || (item->type != ICAE_GGUF_ARRAY && item->count != 1)) {
        icae_fail(&writer->error, ICAE_INVALID,
                  "%s: key '%s': expected a number, a string or an array of either",
                  writer->path, icae_quote_string(item->key).text);
        return;
    }
    if (!strcmp(item->key, "general.alignment")) obey_alignment(writer, item);
    if (writer->error.status || !grow(writer, (void **)&writer->keys, writer->n_keys,
                                      &writer->room_keys, sizeof *writer->keys)) {
        return;
    }
    char *key = strdup(item->key);
    if (!key) {
        icae_fail_memory(&writer->error, writer->path);
        return;
    }
    writer->keys[writer->n_keys++] = key;
    icae_text *out = &writer->items;
    put_bytes(out, key, strlen(key));
    put_u32(out, item->type);
    if (item->type == ICAE_GGUF_ARRAY) {
        put_u32(out, element);
        put_u64(out, item->count);
    }
    if (element == ICAE_GGUF_STRING) {
        for (uint64_t i = 0; i < item->count; i++)
            put_bytes(out, item->strings[i].data, item->strings[i].bytes);
    } else {
        icae_text_append(out, item->raw, (size_t)item->count * icae_gguf_value_bytes[element]);
    }
}

void icae_gguf_put_string(icae_gguf_writer *writer, const char *key, const char *value) {
    icae_gguf_string string = {value, strlen(value)};
    icae_gguf_put_item(writer, &(icae_gguf_item){.key = key,
                                                 .type = ICAE_GGUF_STRING,
                                                 .element_type = ICAE_GGUF_STRING,
                                                 .count = 1,
                                                 .strings = &string});
}

void icae_gguf_put_strings(icae_gguf_writer *writer, const char *key, const char *const *values,
                           size_t count) {
    if (writer->error.status) return;
    icae_gguf_string *strings = calloc(count ? count : 1, sizeof *strings);
    if (!strings) {
        icae_fail_memory(&writer->error, writer->path);
        return;
    }
    for (size_t i = 0; i < count; i++)
        strings[i] = (icae_gguf_string){values[i], strlen(values[i])};
    icae_gguf_put_item(writer, &(icae_gguf_item){.key = key,
                                                 .type = ICAE_GGUF_ARRAY,
                                                 .element_type = ICAE_GGUF_STRING,
                                                 .count = count,
                                                 .strings = strings});
    free(strings);
}

static void put_number(icae_gguf_writer *writer, const char *key, icae_gguf_type type,
                       uint64_t bits) {
    unsigned char raw[8];
    for (int i = 0; i < 8; i++)
        raw[i] = (unsigned char)(bits >> (8 * i));
    icae_gguf_put_item(
        writer, &(icae_gguf_item){
                    .key = key, .type = type, .element_type = type, .count = 1, .raw = raw});
}

void icae_gguf_put_u32(icae_gguf_writer *writer, const char *key, uint32_t value) {
    put_number(writer, key, ICAE_GGUF_U32, value);
}

void icae_gguf_put_u64(icae_gguf_writer *writer, const char *key, uint64_t value) {
    put_number(writer, key, ICAE_GGUF_U64, value);
}

void icae_gguf_put_f32(icae_gguf_writer *writer, const char *key, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_number(writer, key, ICAE_GGUF_F32, bits);
}

void icae_gguf_put_bool(icae_gguf_writer *writer, const char *key, bool value) {
    put_number(writer, key, ICAE_GGUF_BOOL, value);
}

/* ---- tensors ---- */

/* *next: the first multiple of the alignment from `bytes` on. */
static bool aligned(const icae_gguf_writer *writer, size_t bytes, size_t *next) {
    if (!icae_size_add(bytes, writer->alignment - 1, next)) return false;
    *next &= ~(writer->alignment - 1);
    return true;
}

/* Where the next tensor begins. */
static bool next_offset(const icae_gguf_writer *writer, size_t *offset) {
    *offset = 0;
    if (!writer->n_tensors) return true;
    const icae_gguf_plan *last = &writer->tensors[writer->n_tensors - 1];
    return icae_size_add(last->offset, last->bytes, offset) && aligned(writer, *offset, offset);
}

void icae_gguf_put_tensor(icae_gguf_writer *writer, const char *name, icae_dtype dtype,
                          int rank, const int64_t *shape) {
    if (!check_name(writer, "tensor", name)) return;
    const icae_dtype_info *info = icae_dtype_describe(dtype);
    icae_gguf_plan plan = {0};
    int64_t values = 1;
    bool is_good = rank >= 1 && rank <= ICAE_MAX_RANK;
    for (int i = 0; is_good && i < rank; i++) {
        is_good = shape[i] >= 1 && !__builtin_mul_overflow(values, shape[i], &values);
    }
    if (!is_good || shape[rank - 1] % info->block_values ||
        !icae_dtype_bytes(dtype, values, &plan.bytes) || !next_offset(writer, &plan.offset)) {
        icae_fail(&writer->error, ICAE_INVALID,
                  "%s: tensor '%s': expected 1 to %d dimensions of at least 1, and rows of "
                  "whole blocks of %lld values as %s has",
                  writer->path, icae_quote_string(name).text, ICAE_MAX_RANK,
                  (long long)info->block_values, info->name);
        return;
    }
    if (!grow(writer, (void **)&writer->tensors, writer->n_tensors, &writer->room_tensors,
              sizeof *writer->tensors)) {
        return;
    }
    plan.name = strdup(name);
    if (!plan.name) {
        icae_fail_memory(&writer->error, writer->path);
        return;
    }
    writer->tensors[writer->n_tensors++] = plan;
    icae_text *out = &writer->descriptions;
    put_bytes(out, name, strlen(name));
    put_u32(out, (uint32_t)rank);
    for (int axis = rank - 1; axis >= 0; axis--)
        put_u64(out, (uint64_t)shape[axis]); /* the contiguous axis first */
    put_u32(out, (uint32_t)info->ggml_type);
    put_u64(out, plan.offset);
}

/* ---- the file ---- */

static int compare_strings(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void refuse_twins(icae_gguf_writer *writer, const char *what, char **names,
                         size_t count) {
    if (count) qsort(names, count, sizeof *names, compare_strings);
    for (size_t i = 1; i < count && !writer->error.status; i++) {
        if (strcmp(names[i - 1], names[i])) continue;
        icae_fail(&writer->error, ICAE_INVALID, "%s: the %s '%s' is given twice", writer->path,
                  what, icae_quote_string(names[i]).text);
    }
}

static void check_twins(icae_gguf_writer *writer) {
    refuse_twins(writer, "key", writer->keys, writer->n_keys);
    char **names = calloc(writer->n_tensors + 1, sizeof *names);
    if (!names) {
        icae_fail_memory(&writer->error, writer->path);
        return;
    }
    for (size_t i = 0; i < writer->n_tensors; i++)
        names[i] = writer->tensors[i].name;
    refuse_twins(writer, "tensor", names, writer->n_tensors);
    free(names);
}

static void write_zeros(icae_gguf_writer *writer, size_t bytes) {
    static const char zeros[4096];
    while (bytes) {
        size_t n = bytes < sizeof zeros ? bytes : sizeof zeros;
        icae_writer_write(&writer->out, zeros, n);
        bytes -= n;
    }
}

/* Once, before the first data: all that stands in front of it. */
static void write_header(icae_gguf_writer *writer) {
    writer->has_header = true;
    check_twins(writer);
    if (writer->error.status) return;
    icae_text start = {0};
    icae_text_append(&start, "GGUF", 4);
    put_u32(&start, VERSION);
    put_u64(&start, writer->n_tensors);
    put_u64(&start, writer->n_keys);
    size_t length = start.length + writer->items.length + writer->descriptions.length, end;
    if (start.failed || writer->items.failed || writer->descriptions.failed ||
        !aligned(writer, length, &end)) {
        icae_fail_memory(&writer->error, writer->path);
    } else if (!icae_writer_begin(&writer->out, writer->path, &writer->error)) {
        icae_writer_write(&writer->out, start.data, start.length);
        icae_writer_write(&writer->out, writer->items.data, writer->items.length);
        icae_writer_write(&writer->out, writer->descriptions.data, writer->descriptions.length);
        write_zeros(writer, end - length);
    }
    icae_text_release(&start);
}

void icae_gguf_write_data(icae_gguf_writer *writer, const void *data, size_t bytes) {
    if (!writer->error.status && !writer->has_header) write_header(writer);
    if (writer->error.status || !bytes) return;
    if (writer->tensor == writer->n_tensors ||
        bytes > writer->tensors[writer->tensor].bytes - writer->written) {
        icae_fail(&writer->error, ICAE_INVALID, "%s: more data than the tensors take",
                  writer->path);
        return;
    }
    const icae_gguf_plan *plan = &writer->tensors[writer->tensor];
    icae_writer_write(&writer->out, data, bytes);
    writer->written += bytes;
    if (writer->written < plan->bytes) return;
    size_t end = plan->offset + plan->bytes, next = end;
    if (aligned(writer, end, &next)) write_zeros(writer, next - end);
    writer->tensor++;
    writer->written = 0;
}

icae_status icae_gguf_commit(icae_gguf_writer *writer, icae_error *error) {
    if (!writer->error.status && !writer->has_header) write_header(writer);
    if (!writer->error.status && writer->tensor < writer->n_tensors) {
        icae_fail(&writer->error, ICAE_INVALID, "%s: tensor '%s' has got %zu of its %zu bytes",
                  writer->path, icae_quote_string(writer->tensors[writer->tensor].name).text,
                  writer->written, writer->tensors[writer->tensor].bytes);
    }
    icae_status status = writer->error.status;
    if (status)
        icae_fail(error, status, "%s", writer->error.message);
    else
        status = icae_writer_commit(&writer->out, error); /* releases writer->out */
    icae_gguf_abort(writer);
    return status;
}

void icae_gguf_abort(icae_gguf_writer *writer) {
    icae_writer_abort(&writer->out);
    icae_names_free(writer->keys, writer->n_keys);
    for (size_t i = 0; i < writer->n_tensors; i++)
        free(writer->tensors[i].name);
    free(writer->tensors);
    free(writer->path);
    icae_text_release(&writer->items);
    icae_text_release(&writer->descriptions);
    *writer = (icae_gguf_writer){.out.descriptor = -1};
}
