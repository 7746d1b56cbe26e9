/* SPDX-License-Identifier: MIT */
/*
 * GGUF; the contract stands in icae/gguf.h. The bytes, all little-endian, without padding:
 *
 *     u32 "GGUF"   u32 version   u64 n_tensors   u64 n_items
 *     n_items   *  string key, u32 type, value
 *     n_tensors *  string name, u32 rank, u64 dims[rank] (contiguous axis first), u32 type,
 *                  u64 offset
 *     padding to general.alignment (32 when absent); offsets count from here
 *     tensor data, every tensor at a multiple of the alignment
 *
 *     string: u64 bytes, bytes       array: u32 element type, u64 count, elements
 *
 * A cursor walks the mapping once. Its failure is sticky: after the first complaint every read
 * gives 0 and the loops end. No count is believed before it was held against the bytes that are
 * left, so a file cannot ask for much more memory than it is long.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_internal.h"
#include "quote.h"

enum {
    OLDEST_VERSION = 2,
    NEWEST_VERSION = 3,
    LEAST_STRING = 8,           /* bytes that an empty string takes */
    LEAST_ITEM = 8 + 1 + 4 + 1, /* one-byte key, type, one-byte value */
    LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8
};

/* ---- the cursor ---- */

typedef struct cursor {
    const char *path;
    const unsigned char *start, *at, *end;
    char place[128]; /* what is being read, for messages */
    icae_status status;
    icae_error *error;
} cursor;

static size_t bytes_left(const cursor *c) {
    return (size_t)(c->end - c->at);
}

/* "PATH: byte N, PLACE: sentence" */
static void cursor_fail(cursor *c, icae_status status, const char *sentence) {
    if (c->status) return;
    c->status = icae_fail(c->error, status, "%s: byte %zu, %s: %s%s", c->path,
                          (size_t)(c->at - c->start), c->place, sentence,
                          icae_remedy(status, sentence));
}

static const unsigned char *take(cursor *c, uint64_t bytes) {
    if (c->status) return NULL;
    if (bytes > bytes_left(c)) {
        char sentence[160];
        snprintf(sentence, sizeof sentence,
                 "expected %llu more bytes, but the file ends after %zu; fetch it again",
                 (unsigned long long)bytes, bytes_left(c));
        cursor_fail(c, ICAE_FORMAT, sentence);
        return NULL;
    }
    const unsigned char *from = c->at;
    c->at += bytes;
    return from;
}

static uint32_t take_u32(cursor *c) {
    const unsigned char *from = take(c, 4);
    return from ? (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
                      (uint32_t)from[3] << 24
                : 0;
}

static uint64_t take_u64(cursor *c) {
    uint64_t low = take_u32(c), high = take_u32(c);
    return low | high << 32;
}

/* A count of things that take at least `least` bytes each. */
static uint64_t take_count(cursor *c, size_t least, const char *what) {
    uint64_t count = take_u64(c);
    if (!c->status && count > bytes_left(c) / least) {
        char sentence[160];
        snprintf(sentence, sizeof sentence,
                 "%llu %s do not fit into the %zu bytes that are left",
                 (unsigned long long)count, what, bytes_left(c));
        cursor_fail(c, ICAE_FORMAT, sentence);
    }
    return c->status ? 0 : count;
}

static icae_gguf_string take_string(cursor *c) {
    uint64_t bytes = take_u64(c);
    const unsigned char *from = take(c, bytes);
    return from ? (icae_gguf_string){(const char *)from, (size_t)bytes}
                : (icae_gguf_string){"", 0};
}

/* A key or tensor name, as a C string in the arena. */
static const char *take_name(cursor *c, icae_arena *arena) {
    icae_gguf_string string = take_string(c);
    if (c->status) return NULL;
    if (!string.bytes) {
        cursor_fail(c, ICAE_FORMAT, "the name is empty");
    } else if (string.bytes > GGUF_LONGEST_NAME) {
        cursor_fail(c, ICAE_FORMAT, "the name is longer than 65535 bytes");
    } else if (memchr(string.data, 0, string.bytes)) {
        cursor_fail(c, ICAE_FORMAT, "the name holds a 0 byte");
    }
    if (c->status) return NULL;
    char *name = icae_arena_copy(arena, string.data, string.bytes);
    if (!name) c->status = icae_fail_memory(c->error, c->path);
    return name;
}

static void *take_memory(cursor *c, icae_arena *arena, uint64_t count, size_t bytes_each) {
    if (c->status) return NULL;
    void *memory = icae_arena_array(arena, (size_t)count, bytes_each);
    if (!memory) c->status = icae_fail_memory(c->error, c->path);
    return memory;
}

/* ---- metadata ---- */

static icae_gguf_type take_type(cursor *c) {
    uint32_t type = take_u32(c);
    if (!c->status && type >= GGUF_TYPE_COUNT) {
        char sentence[96];
        snprintf(sentence, sizeof sentence, "unknown value type %u; expected 0 to 12", type);
        cursor_fail(c, ICAE_FORMAT, sentence);
    }
    return c->status ? ICAE_GGUF_U8 : (icae_gguf_type)type;
}

static void take_values(cursor *c, icae_arena *arena, icae_gguf_type type,
                        icae_gguf_item *item) {
    if (type == ICAE_GGUF_STRING) {
        icae_gguf_string *strings = take_memory(c, arena, item->count, sizeof *strings);
        for (uint64_t i = 0; i < item->count && !c->status; i++)
            strings[i] = take_string(c);
        item->strings = strings;
        return;
    }
    /* No overflow: take_count held the count of an array against the bytes that are left. */
    const unsigned char *raw = take(c, item->count * icae_gguf_value_bytes[type]);
    if (raw && type == ICAE_GGUF_BOOL) {
        for (uint64_t i = 0; i < item->count; i++) {
            if (raw[i] > 1) cursor_fail(c, ICAE_FORMAT, "a bool is neither 0 nor 1");
        }
    }
    item->raw = raw;
}

static void take_item(cursor *c, icae_arena *arena, size_t number, icae_gguf_item *item) {
    snprintf(c->place, sizeof c->place, "key number %zu", number + 1);
    item->key = take_name(c, arena);
    if (c->status) return;
    snprintf(c->place, sizeof c->place, "key '%s'", icae_quote_string(item->key).text);
    item->type = take_type(c);
    item->element_type = item->type;
    item->count = 1;
    if (item->type == ICAE_GGUF_ARRAY) {
        item->element_type = take_type(c);
        if (item->element_type == ICAE_GGUF_ARRAY) {
            cursor_fail(c, ICAE_UNSUPPORTED,
                        "an array of arrays; expected numbers or strings: remove the key");
        }
        if (c->status) return;
        size_t least = icae_gguf_value_bytes[item->element_type];
        item->count = take_count(c, least ? least : LEAST_STRING, "elements");
    }
    if (!c->status) take_values(c, arena, item->element_type, item);
}

static int compare_items(const void *left, const void *right) {
    const icae_gguf_item *const *a = left, *const *b = right;
    return strcmp((*a)->key, (*b)->key);
}

static void index_items(cursor *c, icae_gguf *file) {
    file->items_by_key = take_memory(c, &file->arena, file->n_items, sizeof(void *));
    if (c->status) return;
    for (size_t i = 0; i < file->n_items; i++)
        file->items_by_key[i] = &file->items[i];
    if (!file->n_items) return;
    qsort(file->items_by_key, file->n_items, sizeof(void *), compare_items);
    for (size_t i = 1; i < file->n_items; i++) {
        if (!compare_items(&file->items_by_key[i - 1], &file->items_by_key[i])) {
            c->status = icae_fail(c->error, ICAE_FORMAT,
                                  "%s: the key '%s' stands twice; fetch it again", c->path,
                                  icae_quote_string(file->items_by_key[i]->key).text);
            return;
        }
    }
}

static uint64_t read_alignment(cursor *c, const icae_gguf *file) {
    const icae_gguf_item *item = icae_gguf_item_find(file, "general.alignment");
    if (!item) return GGUF_DEFAULT_ALIGNMENT;
    int64_t value = 0;
    if (!icae_gguf_get_integer(file, "general.alignment", &value) ||
        !icae_gguf_is_alignment(value)) {
        c->status = icae_fail(c->error, ICAE_FORMAT,
                              "%s: general.alignment: expected a power of two from %d to "
                              "%d; write it anew",
                              c->path, GGUF_LEAST_ALIGNMENT, GGUF_MOST_ALIGNMENT);
        return GGUF_DEFAULT_ALIGNMENT;
    }
    return (uint64_t)value;
}

/* ---- tensors ---- */

/* Axes are turned round here, and nowhere else. */
static int64_t take_shape(cursor *c, icae_gguf_tensor *tensor) {
    uint32_t rank = take_u32(c);
    if (!c->status && (rank < 1 || rank > ICAE_MAX_RANK)) {
        char sentence[96];
        snprintf(sentence, sizeof sentence, "%u dimensions; expected 1 to %d", rank,
                 ICAE_MAX_RANK);
        cursor_fail(c, ICAE_FORMAT, sentence);
    }
    if (c->status) return 0;
    tensor->rank = (int)rank;
    int64_t values = 1;
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
        uint64_t dimension = take_u64(c);
        if (c->status) return 0;
        if (dimension == 0) {
            cursor_fail(c, ICAE_FORMAT, "a dimension is 0");
        } else if (dimension > INT64_MAX ||
                   __builtin_mul_overflow(values, (int64_t)dimension, &values)) {
            cursor_fail(c, ICAE_FORMAT, "the product of the dimensions is too large");
        } else {
            tensor->shape[axis] = (int64_t)dimension;
        }
    }
    return values;
}

/* tensor->data stays NULL: where the data begins is known only after the last description. */
static void take_tensor(cursor *c, icae_arena *arena, size_t number, icae_gguf_tensor *tensor,
                        uint64_t *offset) {
    snprintf(c->place, sizeof c->place, "tensor number %zu", number + 1);
    tensor->name = take_name(c, arena);
    if (c->status) return;
    snprintf(c->place, sizeof c->place, "tensor '%s'", icae_quote_string(tensor->name).text);
    int64_t values = take_shape(c, tensor);
    uint32_t type = take_u32(c);
    *offset = take_u64(c);
    if (c->status) return;
    tensor->dtype = icae_dtype_from_ggml(type);
    if (tensor->dtype == ICAE_DTYPE_COUNT) {
        char known[128] = "";
        for (int d = 0; d < ICAE_DTYPE_COUNT; d++) {
            const icae_dtype_info *info = icae_dtype_describe((icae_dtype)d);
            strncat(known, *known ? ", " : "", sizeof known - strlen(known) - 1);
            strncat(known, info->name, sizeof known - strlen(known) - 1);
        }
        char sentence[256];
        snprintf(sentence, sizeof sentence, "ggml type %u is not supported; requantise to %s",
                 type, known);
        cursor_fail(c, ICAE_UNSUPPORTED, sentence);
        return;
    }
    const icae_dtype_info *info = icae_dtype_describe(tensor->dtype);
    if (tensor->shape[tensor->rank - 1] % info->block_values) {
        char sentence[128];
        snprintf(sentence, sizeof sentence,
                 "rows of %lld values are not whole blocks of %lld as %s has",
                 (long long)tensor->shape[tensor->rank - 1], (long long)info->block_values,
                 info->name);
        cursor_fail(c, ICAE_FORMAT, sentence);
    } else if (!icae_dtype_bytes(tensor->dtype, values, &tensor->bytes)) {
        cursor_fail(c, ICAE_FORMAT, "the tensor is too large");
    }
}

static void place_tensor(cursor *c, const icae_gguf *file, size_t data_start,
                         uint64_t alignment, icae_gguf_tensor *tensor, uint64_t offset) {
    icae_quoted name = icae_quote_string(tensor->name);
    size_t size = file->mapping.bytes > data_start ? file->mapping.bytes - data_start : 0;
    if (offset % alignment) {
        c->status = icae_fail(
            c->error, ICAE_FORMAT,
            "%s: tensor '%s': offset %llu is not a multiple of %llu; fetch it again", c->path,
            name.text, (unsigned long long)offset, (unsigned long long)alignment);
    } else if (offset > size || tensor->bytes > size - offset) {
        c->status = icae_fail(
            c->error, ICAE_FORMAT,
            "%s: tensor '%s': %zu bytes at offset %llu reach past the end of the file (%zu "
            "bytes of data); fetch it again",
            c->path, name.text, tensor->bytes, (unsigned long long)offset, size);
    } else {
        tensor->data = file->mapping.data + data_start + offset;
    }
}

static int compare_places(const void *left, const void *right) {
    const icae_gguf_tensor *const *a = left, *const *b = right;
    const char *x = (*a)->data, *y = (*b)->data;
    return (x > y) - (x < y);
}

static int compare_tensors(const void *left, const void *right) {
    const icae_gguf_tensor *const *a = left, *const *b = right;
    return strcmp((*a)->name, (*b)->name);
}

static void index_tensors(cursor *c, icae_gguf *file) {
    size_t n = file->n_tensors;
    const icae_gguf_tensor **order = take_memory(c, &file->arena, n, sizeof *order);
    file->tensors_by_name = order;
    if (c->status || !n) return;
    for (size_t i = 0; i < n; i++)
        order[i] = &file->tensors[i];
    qsort(order, n, sizeof *order, compare_places);
    for (size_t i = 1; i < n; i++) {
        const char *end = (const char *)order[i - 1]->data + order[i - 1]->bytes;
        if (end > (const char *)order[i]->data) {
            c->status = icae_fail(c->error, ICAE_FORMAT,
                                  "%s: the tensors '%s' and '%s' overlap; fetch it again",
                                  c->path, icae_quote_string(order[i - 1]->name).text,
                                  icae_quote_string(order[i]->name).text);
            return;
        }
    }
    qsort(order, n, sizeof *order, compare_tensors);
    for (size_t i = 1; i < n; i++) {
        if (!strcmp(order[i - 1]->name, order[i]->name)) {
            c->status = icae_fail(c->error, ICAE_FORMAT,
                                  "%s: the tensor '%s' stands twice; fetch it again", c->path,
                                  icae_quote_string(order[i]->name).text);
            return;
        }
    }
}

/* ---- the file ---- */

static void take_header(cursor *c, icae_gguf *file) {
    snprintf(c->place, sizeof c->place, "header");
    const unsigned char *magic = take(c, 4);
    if (magic && memcmp(magic, "GGUF", 4)) {
        c->at = c->start;
        cursor_fail(c, ICAE_FORMAT, "expected \"GGUF\"; this is another kind of file");
    }
    file->version = take_u32(c);
    if (c->status) return;
    if (file->version && !(file->version & 0xFFFFu)) {
        cursor_fail(c, ICAE_UNSUPPORTED, "the file is big-endian; convert it to little-endian");
    } else if (file->version < OLDEST_VERSION || file->version > NEWEST_VERSION) {
        char sentence[96];
        snprintf(sentence, sizeof sentence,
                 "version %u; expected %d or %d, which newer converters write", file->version,
                 OLDEST_VERSION, NEWEST_VERSION);
        cursor_fail(c, ICAE_UNSUPPORTED, sentence);
    }
}

static void read_all(cursor *c, icae_gguf *file) {
    take_header(c, file);
    uint64_t n_tensors = take_count(c, LEAST_TENSOR, "tensors");
    uint64_t n_items = take_count(c, LEAST_ITEM, "keys");
    file->items = take_memory(c, &file->arena, n_items, sizeof *file->items);
    file->tensors = take_memory(c, &file->arena, n_tensors, sizeof *file->tensors);
    if (c->status) return;
    file->n_items = (size_t)n_items;
    file->n_tensors = (size_t)n_tensors;
    for (size_t i = 0; i < file->n_items && !c->status; i++)
        take_item(c, &file->arena, i, &file->items[i]);
    if (!c->status) index_items(c, file);
    uint64_t alignment = c->status ? GGUF_DEFAULT_ALIGNMENT : read_alignment(c, file);

    uint64_t *offsets = take_memory(c, &file->arena, n_tensors, sizeof *offsets);
    for (size_t i = 0; i < file->n_tensors && !c->status; i++)
        take_tensor(c, &file->arena, i, &file->tensors[i], &offsets[i]);
    size_t data_start = (size_t)(c->at - c->start);
    data_start = (data_start + alignment - 1) & ~(size_t)(alignment - 1);
    for (size_t i = 0; i < file->n_tensors && !c->status; i++)
        place_tensor(c, file, data_start, alignment, &file->tensors[i], offsets[i]);
    if (!c->status) index_tensors(c, file);
}

icae_status icae_gguf_open(icae_gguf *file, const char *path, icae_error *error) {
    *file = (icae_gguf){0};
    icae_status status = icae_mapping_open(&file->mapping, path, error);
    if (status) return status;
    cursor c = {.path = path,
                .start = file->mapping.data,
                .at = file->mapping.data,
                .end = file->mapping.data + file->mapping.bytes,
                .error = error};
    read_all(&c, file);
    if (c.status) icae_gguf_close(file);
    return c.status;
}

void icae_gguf_close(icae_gguf *file) {
    icae_arena_release(&file->arena);
    icae_mapping_close(&file->mapping);
    *file = (icae_gguf){0};
}

/* ---- looking up ---- */

const icae_gguf_tensor *icae_gguf_find(const icae_gguf *file, const char *name) {
    const icae_gguf_tensor wanted = {.name = name}, *key = &wanted;
    const icae_gguf_tensor **found =
        file->n_tensors
            ? bsearch(&key, file->tensors_by_name, file->n_tensors, sizeof key, compare_tensors)
            : NULL;
    return found ? *found : NULL;
}

const icae_gguf_item *icae_gguf_item_find(const icae_gguf *file, const char *key) {
    const icae_gguf_item wanted = {.key = key}, *pointer = &wanted;
    const icae_gguf_item **found = file->n_items
                                       ? bsearch(&pointer, file->items_by_key, file->n_items,
                                                 sizeof pointer, compare_items)
                                       : NULL;
    return found ? *found : NULL;
}

/* A number as its file spells it, in three readings, of which the kind says which one is meant. */
typedef struct number {
    enum { NO_NUMBER, SIGNED, UNSIGNED, FLOATING } kind;
    int64_t s;
    uint64_t u;
    double f;
} number;

static number read_number(const icae_gguf_item *item, uint64_t index) {
    number n = {NO_NUMBER, 0, 0, 0};
    if (!item || !item->raw || index >= item->count) return n;
    static const unsigned char kinds[GGUF_TYPE_COUNT] = {
        [ICAE_GGUF_U8] = UNSIGNED,  [ICAE_GGUF_U16] = UNSIGNED,  [ICAE_GGUF_U32] = UNSIGNED,
        [ICAE_GGUF_U64] = UNSIGNED, [ICAE_GGUF_BOOL] = UNSIGNED, [ICAE_GGUF_I8] = SIGNED,
        [ICAE_GGUF_I16] = SIGNED,   [ICAE_GGUF_I32] = SIGNED,    [ICAE_GGUF_I64] = SIGNED,
        [ICAE_GGUF_F32] = FLOATING, [ICAE_GGUF_F64] = FLOATING};
    size_t bytes = icae_gguf_value_bytes[item->element_type];
    const unsigned char *from = (const unsigned char *)item->raw + index * bytes;
    for (size_t i = 0; i < bytes; i++)
        n.u |= (uint64_t)from[i] << (8 * i);
    uint64_t sign = UINT64_C(1) << ((8 * bytes - 1) & 63); /* of 1 to 8 bytes */
    n.s = (int64_t)((n.u ^ sign) - sign);
    uint32_t low = (uint32_t)n.u;
    float single;
    memcpy(&single, &low, sizeof single);
    memcpy(&n.f, &n.u, sizeof n.f);
    if (bytes == sizeof single) n.f = (double)single;
    n.kind = kinds[item->element_type];
    return n;
}

bool icae_gguf_integer(const icae_gguf_item *item, uint64_t index, int64_t *out) {
    number n = read_number(item, index);
    if (n.kind == UNSIGNED && n.u <= INT64_MAX) {
        *out = (int64_t)n.u;
    } else if (n.kind == SIGNED) {
        *out = n.s;
    } else {
        return false;
    }
    return true;
}

bool icae_gguf_number(const icae_gguf_item *item, uint64_t index, double *out) {
    number n = read_number(item, index);
    if (n.kind == NO_NUMBER) return false;
    *out = n.kind == FLOATING ? n.f : n.kind == SIGNED ? (double)n.s : (double)n.u;
    return true;
}

bool icae_gguf_get_integer(const icae_gguf *file, const char *key, int64_t *out) {
    const icae_gguf_item *item = icae_gguf_item_find(file, key);
    return item && item->type != ICAE_GGUF_ARRAY && icae_gguf_integer(item, 0, out);
}

bool icae_gguf_get_number(const icae_gguf *file, const char *key, double *out) {
    const icae_gguf_item *item = icae_gguf_item_find(file, key);
    return item && item->type != ICAE_GGUF_ARRAY && icae_gguf_number(item, 0, out);
}

bool icae_gguf_get_string(const icae_gguf *file, const char *key, icae_gguf_string *out) {
    const icae_gguf_item *item = icae_gguf_item_find(file, key);
    if (!item || item->type != ICAE_GGUF_STRING) return false;
    *out = item->strings[0];
    return true;
}
