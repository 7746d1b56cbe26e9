/* SPDX-License-Identifier: MIT */
/*
 * Compressed texts and their files. A .slots file is a safetensors file with one tensor,
 * "slots" [n*M, D] f32, and these metadata (all strings):
 *
 *     format "icae-slots"     version "1"
 *     span_lengths            "512,512,87": tokens of each span, decimal
 *     base, adapter, tokenizer, source_hash, slots_hash     16 digits 0-9a-f
 *     source_bytes, source_tokens                           decimal
 *
 * slots_hash covers the values and every other entry, so a changed byte is found wherever it stands.
 * Counts are bounded by the tensor's shape before anything is allocated for them.
 */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/memory.h"
#include "icae/rng.h"
#include "icae/slots.h"

/* So that positions, prefix and answer included, stay far inside int32. */
#define MOST_TOKENS (INT64_C(1) << 30)

static const char format_name[] = "icae-slots", version_name[] = "1";

/* ---- in memory ---- */

void icae_slots_release(icae_slots *slots) {
    free(slots->span_lengths);
    free(slots->values);
    *slots = (icae_slots){0};
}

/* n_spans * slots_per_span * width as a count of floats that fits in memory. */
static bool count_values(int64_t n_spans, int64_t slots_per_span, int64_t width,
                         size_t *count) {
    size_t bytes;
    return icae_size_mul((size_t)n_spans, (size_t)slots_per_span, count) &&
           icae_size_mul(*count, (size_t)width, count) &&
           icae_size_mul(*count, sizeof(float), &bytes) && bytes <= PTRDIFF_MAX;
}

icae_status icae_slots_allocate(icae_slots *slots, int64_t n_spans, int64_t slots_per_span,
                                int64_t width, icae_error *error) {
    assert(!slots->values && n_spans > 0 && slots_per_span > 0 && width > 0);
    size_t count;
    if (!count_values(n_spans, slots_per_span, width, &count))
        return icae_fail_memory(error, "memory slots");
    slots->values = calloc(count, sizeof *slots->values);
    slots->span_lengths = calloc((size_t)n_spans, sizeof *slots->span_lengths);
    if (!slots->values || !slots->span_lengths) {
        icae_slots_release(slots);
        return icae_fail_memory(error, "memory slots");
    }
    slots->n_spans = n_spans;
    slots->slots_per_span = slots_per_span;
    slots->width = width;
    return ICAE_OK;
}

static icae_status check_join(const icae_slots *slots, const icae_slots *more,
                              icae_error *error) {
    if (slots->adapter_fingerprint != more->adapter_fingerprint ||
        slots->base_fingerprint != more->base_fingerprint ||
        slots->tokenizer_fingerprint != more->tokenizer_fingerprint) {
        return icae_fail(error, ICAE_MISMATCH,
                         "slots made by adapter %016" PRIx64 " for base %016" PRIx64
                         " cannot be joined with slots made by adapter %016" PRIx64
                         " for base %016" PRIx64 "; compress both texts with one adapter",
                         slots->adapter_fingerprint, slots->base_fingerprint,
                         more->adapter_fingerprint, more->base_fingerprint);
    }
    if (slots->slots_per_span != more->slots_per_span || slots->width != more->width) {
        return icae_fail(
            error, ICAE_MISMATCH,
            "slots of %" PRId64 " a span, %" PRId64
            " wide, cannot be joined with slots of %" PRId64 " a span, %" PRId64 " wide",
            slots->slots_per_span, slots->width, more->slots_per_span, more->width);
    }
    if (slots->n_tokens > MOST_TOKENS - more->n_tokens) {
        return icae_fail(error, ICAE_INVALID,
                         "the joined slots stand for more than %" PRId64 " tokens; take fewer",
                         MOST_TOKENS);
    }
    return ICAE_OK;
}

icae_status icae_slots_join(icae_slots *slots, const icae_slots *more, icae_error *error) {
    if (!more->values) return ICAE_OK;
    icae_status status = slots->values ? check_join(slots, more, error) : ICAE_OK;
    icae_slots joined = {0};
    if (!status) {
        status = icae_slots_allocate(&joined, slots->n_spans + more->n_spans,
                                     more->slots_per_span, more->width, error);
    }
    if (status) return status;
    joined.n_tokens = slots->n_tokens + more->n_tokens;
    joined.base_fingerprint = more->base_fingerprint;
    joined.adapter_fingerprint = more->adapter_fingerprint;
    joined.tokenizer_fingerprint = more->tokenizer_fingerprint;
    if (!slots->values) { /* one text is still one text */
        joined.source_bytes = more->source_bytes;
        joined.source_hash = more->source_hash;
    }
    const icae_slots *parts[] = {slots, more};
    float *values = joined.values;
    int32_t *lengths = joined.span_lengths;
    for (int i = 0; i < 2; i++) {
        if (!parts[i]->values) continue;
        size_t n_spans = (size_t)parts[i]->n_spans;
        size_t n_values = n_spans * (size_t)(joined.slots_per_span * joined.width);
        memcpy(values, parts[i]->values, n_values * sizeof *values);
        memcpy(lengths, parts[i]->span_lengths, n_spans * sizeof *lengths);
        values += n_values;
        lengths += n_spans;
    }
    icae_slots_release(slots);
    *slots = joined;
    return ICAE_OK;
}

static uint64_t hash_slots(const icae_slots *slots) {
    const uint64_t fields[] = {
        (uint64_t)slots->n_spans,     (uint64_t)slots->slots_per_span,
        (uint64_t)slots->width,       (uint64_t)slots->n_tokens,
        slots->source_bytes,          slots->source_hash,
        slots->base_fingerprint,      slots->adapter_fingerprint,
        slots->tokenizer_fingerprint,
    };
    size_t count = (size_t)(slots->n_spans * slots->slots_per_span * slots->width);
    uint64_t h = icae_hash64(fields, sizeof fields, 0);
    h = icae_hash64(slots->span_lengths, (size_t)slots->n_spans * sizeof *slots->span_lengths,
                    h);
    return icae_hash64(slots->values, count * sizeof *slots->values, h);
}

/* ---- writing ---- */

icae_status icae_slots_save(const icae_slots *slots, const char *path, icae_error *error) {
    assert(slots->values && slots->n_spans > 0);
    icae_text lengths = {0};
    int64_t n_tokens = 0;
    for (int64_t i = 0; i < slots->n_spans; i++) {
        icae_text_printf(&lengths, "%s%" PRId32, i ? "," : "", slots->span_lengths[i]);
        n_tokens += slots->span_lengths[i];
    }
    assert(n_tokens == slots->n_tokens);
    const struct {
        const char *key;
        bool is_hex;
        uint64_t value;
    } numbers[] = {
        {"base", true, slots->base_fingerprint},
        {"adapter", true, slots->adapter_fingerprint},
        {"tokenizer", true, slots->tokenizer_fingerprint},
        {"source_hash", true, slots->source_hash},
        {"source_bytes", false, slots->source_bytes},
        {"source_tokens", false, (uint64_t)n_tokens},
        {"slots_hash", true, hash_slots(slots)},
    };
    enum { N_NUMBERS = sizeof numbers / sizeof numbers[0], N_TEXTS = 3 };
    char digits[N_NUMBERS][24];
    const char *metadata[2 * (N_NUMBERS + N_TEXTS)] = {
        "format",     format_name,    "version",
        version_name, "span_lengths", icae_text_string(&lengths)};
    for (size_t i = 0; i < N_NUMBERS; i++) {
        snprintf(digits[i], sizeof digits[i], numbers[i].is_hex ? "%016" PRIx64 : "%" PRIu64,
                 numbers[i].value);
        metadata[2 * (N_TEXTS + i)] = numbers[i].key;
        metadata[2 * (N_TEXTS + i) + 1] = digits[i];
    }
    icae_safetensors_source source = {
        .name = "slots",
        .dtype = ICAE_DTYPE_F32,
        .rank = 2,
        .shape = {slots->n_spans * slots->slots_per_span, slots->width},
        .data = slots->values};
    icae_status status = lengths.failed ? icae_fail_memory(error, path)
                                        : icae_safetensors_write(path, &source, 1, metadata,
                                                                 N_NUMBERS + N_TEXTS, error);
    icae_text_release(&lengths);
    return status;
}

/* ---- reading ---- */

static icae_status damaged(const char *path, const char *what, icae_error *error) {
    return icae_fail(error, ICAE_FORMAT,
                     "%s: %s; the file is damaged or was changed, so compress the text again",
                     path, what);
}

/* A decimal number without sign, spaces or superfluous zeros, up to `end`. */
static bool read_decimal(const char *text, const char *end, uint64_t *out) {
    if (text == end || (*text == '0' && end - text > 1)) return false;
    *out = 0;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9') return false;
        uint64_t digit = (uint64_t)(*text - '0');
        if (*out > (UINT64_MAX - digit) / 10) return false;
        *out = *out * 10 + digit;
    }
    return true;
}

static icae_status read_number(const icae_safetensors *file, const char *key, bool is_hex,
                               uint64_t *out, icae_error *error) {
    const char *text = icae_safetensors_metadata(file, key);
    bool good = text != NULL;
    if (good && is_hex) {
        good = strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
        if (good) *out = strtoull(text, NULL, 16);
    } else if (good) {
        good = read_decimal(text, text + strlen(text), out);
    }
    if (good) return ICAE_OK;
    return icae_fail(error, ICAE_FORMAT,
                     "%s: the entry %s of the metadata is missing or no %s number; the file is "
                     "damaged or was changed, so compress the text again",
                     file->mapping.path, key, is_hex ? "16-digit hexadecimal" : "decimal");
}

static icae_status check_format(const icae_safetensors *file, icae_error *error) {
    const char *format = icae_safetensors_metadata(file, "format");
    const char *version = icae_safetensors_metadata(file, "version");
    if (!format || strcmp(format, format_name)) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: is not a slots file; expected one that icae compress wrote",
                         file->mapping.path);
    }
    if (!version || strcmp(version, version_name)) {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: is a slots file of another version, and this program reads "
                         "version %s; compress the text again",
                         file->mapping.path, version_name);
    }
    return ICAE_OK;
}

/* Counts the spans of "512,512,87": at most one for each row of the tensor. */
static int64_t count_spans(const char *lengths) {
    int64_t count = 1;
    for (; *lengths; lengths++)
        count += *lengths == ',';
    return count;
}

static icae_status read_lengths(icae_slots *slots, const char *path, const char *text,
                                icae_error *error) {
    for (int64_t i = 0; i < slots->n_spans; i++) {
        const char *end = text + strcspn(text, ",");
        uint64_t length;
        if (!read_decimal(text, end, &length) || length > (uint64_t)MOST_TOKENS ||
            slots->n_tokens + (int64_t)length > MOST_TOKENS) {
            return damaged(path, "the span lengths are no list of sensible numbers", error);
        }
        slots->span_lengths[i] = (int32_t)length;
        slots->n_tokens += (int64_t)length;
        text = *end ? end + 1 : end;
    }
    return ICAE_OK;
}

/* Spans, shape and values. */
static icae_status read_tensor(icae_slots *slots, const icae_safetensors *file,
                               icae_error *error) {
    const char *path = file->mapping.path;
    const char *lengths = icae_safetensors_metadata(file, "span_lengths");
    const icae_safetensors_entry *entry = icae_safetensors_find(file, "slots");
    if (!entry || file->n_entries != 1 || entry->dtype != ICAE_DTYPE_F32 || entry->rank != 2 ||
        entry->shape[0] < 1 || entry->shape[1] < 1) {
        return damaged(path, "expected one tensor named slots, F32, of rank 2", error);
    }
    if (!lengths) return damaged(path, "the list of span lengths is missing", error);
    int64_t rows = entry->shape[0], n_spans = count_spans(lengths);
    if (n_spans > rows || rows % n_spans) {
        return icae_fail(
            error, ICAE_FORMAT,
            "%s: %" PRId64 " slots do not divide into %" PRId64
            " spans; the file is damaged or was changed, so compress the text again",
            path, rows, n_spans);
    }
    icae_status status =
        icae_slots_allocate(slots, n_spans, rows / n_spans, entry->shape[1], error);
    if (status) return status;
    memcpy(slots->values, entry->data, entry->bytes);
    return read_lengths(slots, path, lengths, error);
}

/* The header is filled up with spaces. JSON allows other white space there, and no hash covers it. */
static bool has_plain_padding(const icae_safetensors *file) {
    const unsigned char *header = file->mapping.data + 8; /* behind its length */
    const unsigned char *end = icae_safetensors_find(file, "slots")->data; /* the only tensor */
    while (end > header && end[-1] == ' ')
        end--;
    return end > header && end[-1] == '}';
}

static icae_status read_file(icae_slots *slots, const icae_safetensors *file,
                             icae_error *error) {
    enum { N_ENTRIES = 10 };
    uint64_t hash = 0, tokens = 0;
    const struct {
        const char *key;
        bool is_hex;
        uint64_t *out;
    } numbers[] = {
        {"base", true, &slots->base_fingerprint},
        {"adapter", true, &slots->adapter_fingerprint},
        {"tokenizer", true, &slots->tokenizer_fingerprint},
        {"source_hash", true, &slots->source_hash},
        {"source_bytes", false, &slots->source_bytes},
        {"source_tokens", false, &tokens},
        {"slots_hash", true, &hash},
    };
    icae_status status = check_format(file, error);
    if (!status) status = read_tensor(slots, file, error);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && !status; i++)
        status = read_number(file, numbers[i].key, numbers[i].is_hex, numbers[i].out, error);
    if (status) return status;
    if (file->n_metadata != N_ENTRIES)
        return damaged(file->mapping.path, "the metadata holds unknown entries", error);
    int64_t count = slots->n_spans * slots->slots_per_span * slots->width;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(slots->values[i])) continue;
        return icae_fail(error, ICAE_FORMAT,
                         "%s: slot %" PRId64 " holds %s at place %" PRId64
                         "; compress the text again, and check the adapter if it is so again",
                         file->mapping.path, i / slots->width,
                         isnan(slots->values[i]) ? "a NaN" : "an infinity", i % slots->width);
    }
    if (!has_plain_padding(file))
        return damaged(file->mapping.path, "its header does not end with spaces", error);
    if (tokens != (uint64_t)slots->n_tokens || hash != hash_slots(slots))
        return damaged(file->mapping.path, "the hash does not fit what the file holds", error);
    return ICAE_OK;
}

/* ---- whether they belong to a base and an adapter ---- */

static icae_status check_owner(const icae_slots *slots, const char *path,
                               const icae_model *model, const icae_adapter *adapter,
                               icae_error *error) {
    if (adapter && slots->adapter_fingerprint != adapter->fingerprint) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: was made by adapter %016" PRIx64 " for base %016" PRIx64
                         ", but the adapter given (%s) is %016" PRIx64
                         "; compress the text again with this adapter, or pass the one that "
                         "made it",
                         path, slots->adapter_fingerprint, slots->base_fingerprint,
                         adapter->path ? adapter->path : "not saved yet", adapter->fingerprint);
    }
    if (model && slots->base_fingerprint != model->fingerprint) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: was made for base %016" PRIx64 ", but the base given (%s) is "
                         "%016" PRIx64 "; compress the text again with this base, or pass the "
                         "one that made it",
                         path, slots->base_fingerprint, model->path ? model->path : "unnamed",
                         model->fingerprint);
    }
    uint64_t tokenizer = model && model->tokenizer
                             ? icae_tokenizer_fingerprint(model->tokenizer)
                             : slots->tokenizer_fingerprint;
    if (slots->tokenizer_fingerprint != tokenizer) {
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: was made with tokenizer %016" PRIx64 ", but that of the base "
                         "given (%s) is %016" PRIx64 "; compress the text again",
                         path, slots->tokenizer_fingerprint,
                         model->path ? model->path : "unnamed", tokenizer);
    }
    int64_t width = model ? model->config.width : slots->width;
    int64_t per_span = adapter ? adapter->settings.memory_slots : slots->slots_per_span;
    if (slots->width == width && slots->slots_per_span == per_span) return ICAE_OK;
    return icae_fail(error, ICAE_MISMATCH,
                     "%s: has %" PRId64 " slots a span, %" PRId64
                     " wide, but base and adapter have %" PRId64 ", %" PRId64
                     " wide; compress the text again",
                     path, slots->slots_per_span, slots->width, per_span, width);
}

icae_status icae_slots_load(icae_slots *slots, const char *path, const icae_model *model,
                            const icae_adapter *adapter, icae_error *error) {
    assert(!slots->values);
    icae_slots loaded = {0};
    icae_safetensors file;
    icae_status status = icae_safetensors_open(&file, path, error);
    if (status) return status;
    status = read_file(&loaded, &file, error);
    icae_safetensors_close(&file);
    if (!status) status = check_owner(&loaded, path, model, adapter, error);
    if (status) {
        icae_slots_release(&loaded);
        return status;
    }
    *slots = loaded;
    return ICAE_OK;
}
