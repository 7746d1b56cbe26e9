/* SPDX-License-Identifier: MIT */
/*
 * What the names in PyTorch's pickles stand for; see pickle.h.
 *
 *     persistent id   ("storage", CLASS, key, location, number of values)
 *     tensor          _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks[, metadata])
 *     parameter       _rebuild_parameter(tensor, requires_grad, hooks)
 *
 * Value (i, j, ...) of a tensor stands at offset + i * stride_0 + j * stride_1 + ... of its storage, all
 * counted in values; the largest such place must be inside the storage.
 */
#include <string.h>

#include "pickle_internal.h"
#include "quote.h"

typedef enum global {
    GLOBAL_ORDERED_DICT,
    GLOBAL_TENSOR,
    GLOBAL_PARAMETER,
    GLOBAL_FIRST_STORAGE,
} global;

static const struct {
    const char *name;
    size_t value_bytes;
    icae_dtype dtype;
} storage_classes[] = {
#define STORAGE_CLASS(name, bytes, dtype) {#name, bytes, dtype},
    PICKLE_STORAGE_LIST(STORAGE_CLASS)
#undef STORAGE_CLASS
};
enum { N_STORAGE_CLASSES = sizeof storage_classes / sizeof storage_classes[0] };

static bool is_text(const char *text, size_t bytes, const char *wanted) {
    return bytes == strlen(wanted) && !memcmp(text, wanted, bytes);
}

icae_status icae_pickle_push_name(machine *m, const char *module, size_t module_bytes,
                                  const char *name, size_t name_bytes) {
    static const struct {
        const char *module, *name;
    } known[] = {[GLOBAL_ORDERED_DICT] = {"collections", "OrderedDict"},
                 [GLOBAL_TENSOR] = {"torch._utils", "_rebuild_tensor_v2"},
                 [GLOBAL_PARAMETER] = {"torch._utils", "_rebuild_parameter"}};
    for (int i = 0; i < GLOBAL_FIRST_STORAGE + N_STORAGE_CLASSES; i++) {
        bool is_storage = i >= GLOBAL_FIRST_STORAGE;
        const char *its_module = is_storage ? "torch" : known[i].module;
        const char *its_name =
            is_storage ? storage_classes[i - GLOBAL_FIRST_STORAGE].name : known[i].name;
        if (!is_text(module, module_bytes, its_module) || !is_text(name, name_bytes, its_name))
            continue;
        return icae_pickle_push(m, (pickle_value){.kind = PICKLE_GLOBAL, .global = (uint8_t)i});
    }
    return icae_pickle_fail(
        m, ICAE_UNSUPPORTED,
        "names %s.%s, which is none of the few things that plain tensors need; "
        "nothing was run; save the model's state_dict() alone",
        icae_quote(module, module_bytes).text, icae_quote(name, name_bytes).text);
}

/* The items of a tuple into out [most]; returns how many there are, or -1 when it is no tuple or larger. */
static int open_tuple(const pickle *p, pickle_ref tuple, int most, pickle_ref *out) {
    const pickle_value *value = &p->values[tuple];
    if (value->kind != PICKLE_TUPLE || value->n > (uint32_t)most) return -1;
    uint32_t cell = value->as.cells.first;
    for (uint32_t i = 0; i < value->n; i++, cell = p->cells[cell].next)
        out[i] = p->cells[cell].value;
    return (int)value->n;
}

static pickle_kind kind_of(const pickle *p, pickle_ref ref) {
    return (pickle_kind)p->values[ref].kind;
}

/* ---- storages ---- */

icae_status icae_pickle_persistent(machine *m) {
    pickle *p = m->p;
    pickle_ref id = 0, parts[5];
    icae_status status = icae_pickle_pop(m, &id);
    if (status) return status;
    const bool is_sound =
        open_tuple(p, id, 5, parts) == 5 && kind_of(p, parts[0]) == PICKLE_STRING &&
        is_text(p->values[parts[0]].as.text, p->values[parts[0]].n, "storage") &&
        kind_of(p, parts[1]) == PICKLE_GLOBAL &&
        p->values[parts[1]].global >= GLOBAL_FIRST_STORAGE &&
        kind_of(p, parts[2]) == PICKLE_STRING && kind_of(p, parts[3]) == PICKLE_STRING &&
        kind_of(p, parts[4]) == PICKLE_INT && p->values[parts[4]].as.integer >= 0;
    if (!is_sound) {
        return icae_pickle_fail(
            m, ICAE_FORMAT, "a persistent id is not ('storage', class, key, location, count)");
    }
    const pickle_value *key = &p->values[parts[2]];
    int which = p->values[parts[1]].global - GLOBAL_FIRST_STORAGE;
    uint64_t count = (uint64_t)p->values[parts[4]].as.integer;
    pickle_storage storage = {.values = (int64_t)count};
    size_t bytes, wanted;
    status = m->source(m->user, key->as.text, key->n, &storage.data, &bytes, m->error);
    if (status) return status;
    if (!icae_size_mul((size_t)count, storage_classes[which].value_bytes, &wanted) ||
        wanted != bytes) {
        return icae_pickle_fail(
            m, ICAE_FORMAT, "the storage '%s' has %zu bytes, not those of %llu values of a %s",
            icae_quote(key->as.text, key->n).text, bytes, (unsigned long long)count,
            storage_classes[which].name);
    }
    status = PICKLE_RESERVE(m, p->storages, p->storage_room, p->n_storages);
    if (status) return status;
    p->storages[p->n_storages] = storage;
    return icae_pickle_push(m, (pickle_value){.kind = PICKLE_STORAGE,
                                              .global = (uint8_t)which,
                                              .as.index = (uint32_t)p->n_storages++});
}

/* ---- tensors ---- */

/* A tuple of whole numbers from 0 up; returns how many, -1 when it is something else. */
static int open_sizes(const pickle *p, pickle_ref tuple, int64_t out[ICAE_MAX_RANK]) {
    pickle_ref items[ICAE_MAX_RANK];
    int n = open_tuple(p, tuple, ICAE_MAX_RANK, items);
    for (int i = 0; i < n; i++) {
        if (kind_of(p, items[i]) != PICKLE_INT || p->values[items[i]].as.integer < 0) return -1;
        out[i] = p->values[items[i]].as.integer;
    }
    return n;
}

/* Whether all values stand inside the storage; sets is_contiguous. */
static bool fits(pickle_tensor *tensor, const int64_t *strides, int64_t offset,
                 int64_t storage_values, int64_t *count) {
    int64_t last = offset;
    *count = 1;
    tensor->is_contiguous = true;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        int64_t size = tensor->shape[i], reach;
        if (size != 1 && strides[i] != *count) tensor->is_contiguous = false;
        if (__builtin_mul_overflow(*count, size, count)) return false;
        if (size == 0) continue;
        if (__builtin_mul_overflow(size - 1, strides[i], &reach) ||
            __builtin_add_overflow(last, reach, &last)) {
            return false;
        }
    }
    if (*count == 0) tensor->is_contiguous = true; /* there is nothing to be out of order */
    return *count ? last < storage_values : offset <= storage_values;
}

static icae_status rebuild_tensor(machine *m, const pickle_ref *args) {
    pickle *p = m->p;
    int64_t strides[ICAE_MAX_RANK] = {0}, count = 0;
    pickle_tensor tensor = {0};
    if (kind_of(p, args[0]) != PICKLE_STORAGE || kind_of(p, args[1]) != PICKLE_INT ||
        p->values[args[1]].as.integer < 0) {
        return icae_pickle_fail(m, ICAE_FORMAT,
                                "a tensor is not made of a storage and an offset");
    }
    tensor.rank = open_sizes(p, args[2], tensor.shape);
    if (tensor.rank < 0 || open_sizes(p, args[3], strides) != tensor.rank) {
        return icae_pickle_fail(
            m, ICAE_UNSUPPORTED,
            "a tensor's shape and strides are not two tuples of up to %d whole "
            "numbers from 0 up",
            ICAE_MAX_RANK);
    }
    const pickle_value *from = &p->values[args[0]];
    const pickle_storage *storage = &p->storages[from->as.index];
    size_t each = storage_classes[from->global].value_bytes;
    int64_t offset = p->values[args[1]].as.integer;
    tensor.type = storage_classes[from->global].name;
    tensor.dtype = storage_classes[from->global].dtype;
    if (!fits(&tensor, strides, offset, storage->values, &count)) {
        return icae_pickle_fail(
            m, ICAE_FORMAT,
            "a tensor's shape, strides and offset reach outside its storage of "
            "%lld values",
            (long long)storage->values);
    }
    if (tensor.is_contiguous) { /* so its values are a part of the storage: no overflow */
        tensor.data = storage->data + (size_t)offset * each;
        tensor.bytes = (size_t)count * each;
    }
    icae_status status = PICKLE_RESERVE(m, p->tensors, p->tensor_room, p->n_tensors);
    if (status) return status;
    p->tensors[p->n_tensors] = tensor;
    return icae_pickle_push(
        m, (pickle_value){.kind = PICKLE_TENSOR, .as.index = (uint32_t)p->n_tensors++});
}

icae_status icae_pickle_reduce(machine *m) {
    pickle *p = m->p;
    pickle_ref tuple = 0, callee = 0, args[7] = {0};
    icae_status status = icae_pickle_pop(m, &tuple);
    if (!status) status = icae_pickle_pop(m, &callee);
    if (status) return status;
    int n = open_tuple(p, tuple, 7, args);
    if (kind_of(p, callee) != PICKLE_GLOBAL) {
        return icae_pickle_fail(m, ICAE_FORMAT, "calls a %s, which is no function",
                                icae_pickle_kind_name(kind_of(p, callee)));
    }
    switch (p->values[callee].global) {
    case GLOBAL_ORDERED_DICT:
        if (n == 0) return icae_pickle_push(m, (pickle_value){.kind = PICKLE_DICT});
        return icae_pickle_fail(m, ICAE_UNSUPPORTED,
                                "makes an OrderedDict of something; expected "
                                "an empty one that is filled later");
    case GLOBAL_TENSOR:
        if (n == 6 || n == 7) return rebuild_tensor(m, args);
        return icae_pickle_fail(m, ICAE_FORMAT,
                                "_rebuild_tensor_v2 is not given 6 or 7 arguments");
    case GLOBAL_PARAMETER:
        if (n == 3 && kind_of(p, args[0]) == PICKLE_TENSOR)
            return icae_pickle_push_ref(m, args[0]);
        return icae_pickle_fail(m, ICAE_FORMAT, "_rebuild_parameter is not given a tensor");
    default:
        return icae_pickle_fail(
            m, ICAE_UNSUPPORTED,
            "makes a torch.%s of its own; expected persistent ids of storages",
            storage_classes[p->values[callee].global - GLOBAL_FIRST_STORAGE].name);
    }
}
