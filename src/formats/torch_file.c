/* SPDX-License-Identifier: MIT */
/*
 * PyTorch's .pt files; the contract stands in icae/torch_file.h. Three steps: the zip directory (zip.c),
 * the pickle (pickle*.c), and here the outermost dictionary as a sorted list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/torch_file.h"
#include "pickle.h"
#include "quote.h"
#include "zip.h"

/* The old format: a pickle of this number comes first (torch/serialization.py, MAGIC_NUMBER). */
static const unsigned char legacy_mark[] = {0x80, 0x02, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C,
                                            0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19};

typedef struct reader {
    icae_torch_file *file;
    const char *path;
    zip_archive zip;
    const char *folder; /* with its last '/' */
    size_t folder_bytes;
    bool *is_checked; /* [zip.n_entries] */
    icae_error *error;
} reader;

static bool is_legacy(const unsigned char *data, size_t bytes) {
    return bytes >= sizeof legacy_mark && !memcmp(data, legacy_mark, sizeof legacy_mark);
}

bool icae_torch_file_begins(const unsigned char *data, size_t bytes) {
    return (bytes >= 4 && !memcmp(data, "PK\3\4", 4)) || is_legacy(data, bytes);
}

/* ---- the archive ---- */

/* The folder is that of the one entry FOLDER/data.pkl. */
static icae_status find_folder(reader *r, const zip_entry **program) {
    static const char ending[] = "/data.pkl";
    size_t length = sizeof ending - 1;
    for (size_t i = 0; i < r->zip.n_entries; i++) {
        const zip_entry *entry = &r->zip.entries[i];
        if (entry->name_bytes <= length ||
            memcmp(entry->name + entry->name_bytes - length, ending, length)) {
            continue;
        }
        if (*program) {
            return icae_fail(r->error, ICAE_FORMAT,
                             "%s: has two data.pkl; expected a file that torch.save wrote",
                             r->path);
        }
        *program = entry;
        r->folder = entry->name;
        r->folder_bytes = entry->name_bytes - length + 1;
    }
    if (*program) return ICAE_OK;
    return icae_fail(
        r->error, ICAE_FORMAT,
        "%s: is a zip archive without data.pkl; expected a file that torch.save wrote",
        r->path);
}

static icae_status check_order(const reader *r) {
    const zip_entry *order = icae_zip_find(&r->zip, r->folder, r->folder_bytes, "byteorder");
    if (!order || (order->bytes == 6 && !memcmp(order->data, "little", 6))) return ICAE_OK;
    return icae_fail(r->error, ICAE_UNSUPPORTED,
                     "%s: its byte order is '%s', expected little; save it on a little-endian "
                     "machine",
                     r->path, icae_quote((const char *)order->data, order->bytes).text);
}

static icae_status check_once(reader *r, const zip_entry *entry) {
    bool *is_checked = &r->is_checked[entry - r->zip.entries];
    if (*is_checked) return ICAE_OK;
    *is_checked = true;
    return icae_zip_check(&r->zip, entry, r->error);
}

static icae_status find_storage(void *user, const char *key, size_t key_bytes,
                                const unsigned char **data, size_t *bytes, icae_error *error) {
    reader *r = user;
    char name[32];
    const zip_entry *entry = NULL;
    if (key_bytes <= 20) {
        snprintf(name, sizeof name, "data/%.*s", (int)key_bytes, key);
        entry = icae_zip_find(&r->zip, r->folder, r->folder_bytes, name);
    }
    if (!entry) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the bytes of the storage '%s' are missing; fetch the file again",
                         r->path, icae_quote(key, key_bytes).text);
    }
    *data = entry->data;
    *bytes = entry->bytes;
    return check_once(r, entry);
}

/* ---- the dictionary ---- */

/* One pair of the dictionary. */
typedef struct pair {
    const pickle_value *key, *value;
} pair;

static int compare_pairs(const void *left, const void *right) {
    const pickle_value *a = ((const pair *)left)->key, *b = ((const pair *)right)->key;
    if (a == b) return 0; /* a long key that the memo repeats is not read again and again */
    int order = memcmp(a->as.text, b->as.text, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

/* The pairs sorted by key. Keys are compared before any is copied: all of them being different, their
 * bytes are a part of the file's. */
static icae_status sort_pairs(const reader *r, const pickle *p, const pickle_value *dictionary,
                              pair *pairs) {
    size_t n = dictionary->n / 2;
    uint32_t cell = dictionary->as.cells.first;
    for (size_t i = 0; i < n; i++) {
        const pickle_cell *key = &p->cells[cell], *value = &p->cells[key->next];
        pairs[i] = (pair){&p->values[key->value], &p->values[value->value]};
        cell = value->next;
        if (pairs[i].key->kind != PICKLE_STRING) {
            return icae_fail(
                r->error, ICAE_UNSUPPORTED,
                "%s: a key is a %s, expected a string; save a model's state_dict()", r->path,
                icae_pickle_kind_name((pickle_kind)pairs[i].key->kind));
        }
        if (!pairs[i].key->n || memchr(pairs[i].key->as.text, 0, pairs[i].key->n)) {
            return icae_fail(r->error, ICAE_FORMAT,
                             "%s: a key is empty or holds a 0 byte; save it anew", r->path);
        }
    }
    if (n) qsort(pairs, n, sizeof *pairs, compare_pairs);
    for (size_t i = 1; i < n; i++) {
        if (compare_pairs(&pairs[i - 1], &pairs[i])) continue;
        const pickle_value *key = pairs[i].key;
        return icae_fail(r->error, ICAE_FORMAT, "%s: the key '%s' stands twice; save it anew",
                         r->path, icae_quote(key->as.text, key->n).text);
    }
    return ICAE_OK;
}

static icae_status make_entry(const reader *r, const pickle *p, pair from,
                              icae_torch_entry *entry) {
    *entry = (icae_torch_entry){.kind = ICAE_TORCH_OTHER,
                                .type = icae_pickle_kind_name((pickle_kind)from.value->kind)};
    entry->name = icae_arena_copy(&r->file->arena, from.key->as.text, from.key->n);
    if (!entry->name) return icae_fail_memory(r->error, r->path);
    if (from.value->kind == PICKLE_FLOAT) {
        entry->kind = ICAE_TORCH_NUMBER;
        entry->number = from.value->as.number;
    }
    if (from.value->kind != PICKLE_TENSOR) return ICAE_OK;
    const pickle_tensor *tensor = &p->tensors[from.value->as.index];
    entry->type = tensor->type;
    if (tensor->dtype == ICAE_DTYPE_COUNT) return ICAE_OK;
    if (!tensor->is_contiguous) {
        return icae_fail(r->error, ICAE_UNSUPPORTED,
                         "%s: the values of the tensor '%s' are not in row order; save "
                         "tensor.contiguous()",
                         r->path, icae_quote_string(entry->name).text);
    }
    entry->kind = ICAE_TORCH_TENSOR;
    entry->dtype = tensor->dtype;
    entry->rank = tensor->rank;
    memcpy(entry->shape, tensor->shape, sizeof entry->shape);
    entry->data = tensor->data;
    entry->bytes = tensor->bytes;
    return ICAE_OK;
}

static icae_status list_entries(const reader *r, const pickle *p, pickle_ref top) {
    icae_torch_file *file = r->file;
    const pickle_value *dictionary = &p->values[top];
    if (dictionary->kind != PICKLE_DICT) {
        return icae_fail(r->error, ICAE_UNSUPPORTED,
                         "%s: holds a %s, expected a dictionary: a model's state_dict()",
                         r->path, icae_pickle_kind_name((pickle_kind)dictionary->kind));
    }
    size_t n = dictionary->n / 2;
    pair *pairs = calloc(n + 1, sizeof *pairs);
    if (!pairs) return icae_fail_memory(r->error, r->path);
    icae_status status = sort_pairs(r, p, dictionary, pairs);
    if (!status) {
        file->entries = icae_arena_array(&file->arena, n, sizeof *file->entries);
        if (!file->entries) status = icae_fail_memory(r->error, r->path);
    }
    for (size_t i = 0; i < n && !status; i++)
        status = make_entry(r, p, pairs[i], &file->entries[file->n_entries++]);
    free(pairs);
    return status;
}

static icae_status run_program(reader *r, const zip_entry *program) {
    char *where;
    if (asprintf(&where, "%s: data.pkl", r->path) < 0)
        return icae_fail_memory(r->error, r->path);
    pickle p = {0};
    pickle_ref top = 0;
    icae_status status = icae_pickle_read(&p, where, program->data, program->bytes,
                                          find_storage, r, &top, r->error);
    if (!status) status = list_entries(r, &p, top);
    icae_pickle_release(&p);
    free(where);
    return status;
}

static icae_status read_mapping(icae_torch_file *file, const char *path, icae_error *error) {
    const icae_mapping *mapping = &file->mapping;
    if (is_legacy(mapping->data, mapping->bytes)) {
        return icae_fail(
            error, ICAE_UNSUPPORTED,
            "%s: has PyTorch's format from before 1.6; rewrite it with a newer one: "
            "torch.save(torch.load(FILE, map_location=\"cpu\"), NEW)",
            path);
    }
    if (!icae_torch_file_begins(mapping->data, mapping->bytes)) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: does not begin as a zip archive; expected a file that torch.save "
                         "wrote",
                         path);
    }
    reader r = {.file = file, .path = path, .error = error};
    const zip_entry *program = NULL;
    icae_status status = icae_zip_read(&r.zip, mapping, &file->arena, error);
    if (!status) {
        r.is_checked = icae_arena_array(&file->arena, r.zip.n_entries, sizeof *r.is_checked);
        if (!r.is_checked) status = icae_fail_memory(error, path);
    }
    if (!status) status = find_folder(&r, &program);
    if (!status) status = check_order(&r);
    if (!status) status = check_once(&r, program);
    return status ? status : run_program(&r, program);
}

icae_status icae_torch_file_open(icae_torch_file *file, const char *path, icae_error *error) {
    *file = (icae_torch_file){0};
    icae_status status = icae_mapping_open(&file->mapping, path, error);
    if (status) return status;
    status = read_mapping(file, path, error);
    if (status) icae_torch_file_close(file);
    return status;
}

void icae_torch_file_close(icae_torch_file *file) {
    icae_arena_release(&file->arena);
    icae_mapping_close(&file->mapping);
    *file = (icae_torch_file){0};
}

static int compare_names(const void *left, const void *right) {
    const icae_torch_entry *a = left, *b = right;
    return strcmp(a->name, b->name);
}

const icae_torch_entry *icae_torch_file_find(const icae_torch_file *file, const char *name) {
    if (!file->n_entries) return NULL;
    const icae_torch_entry wanted = {.name = name};
    return bsearch(&wanted, file->entries, file->n_entries, sizeof wanted, compare_names);
}
