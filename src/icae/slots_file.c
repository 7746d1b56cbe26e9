/* SPDX-License-Identifier: MIT */
/*
 * Files of compressed texts, written and read. A .slots file is a safetensors file with one tensor,
 * "slots" [vectors, D] f32, and these metadata (all strings):
 *
 *     format "icae-slots"     version "1", or "2" where spans are kept raw
 *     span_lengths            "512,512,87": tokens of each span, decimal
 *     raw_spans               version 2: "1": which of them, from 0, ascending
 *     raw_tokens              version 2: "17,4,...": their ids, span by span
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

#include "icae/rng.h"
#include "icae/slots_internal.h"

static const char format_name[] = "icae-slots";
/* Files without raw spans stay readable for programs that know nothing of them. */
static const char *const version_names[] = {"1", "2"};

static uint64_t hash_slots(const icae_slots *slots) {
    const uint64_t fields[] = {
        (uint64_t)slots->n_spans,     (uint64_t)slots->slots_per_span,
        (uint64_t)slots->width,       (uint64_t)slots->n_tokens,
        slots->source_bytes,          slots->source_hash,
        slots->base_fingerprint,      slots->adapter_fingerprint,
        slots->tokenizer_fingerprint,
    };
    size_t count = (size_t)(icae_slots_vectors(slots) * slots->width);
    uint64_t h = icae_hash64(fields, sizeof fields, 0);
    h = icae_hash64(slots->span_lengths, (size_t)slots->n_spans * sizeof *slots->span_lengths,
                    h);
    if (slots->n_raw) {
        h = icae_hash64(slots->is_raw, (size_t)slots->n_spans * sizeof *slots->is_raw, h);
        h = icae_hash64(slots->raw_ids,
                        (size_t)icae_slots_raw_tokens(slots) * sizeof *slots->raw_ids, h);
    }
    return icae_hash64(slots->values, count * sizeof *slots->values, h);
}

/* ---- writing ---- */

icae_status icae_slots_save(const icae_slots *slots, const char *path, icae_error *error) {
    assert(slots->values && slots->n_spans > 0);
    icae_text lengths = {0}, raw_spans = {0}, raw_tokens = {0};
    int64_t n_tokens = 0;
    for (int64_t i = 0; i < slots->n_spans; i++) {
        icae_text_printf(&lengths, "%s%" PRId32, i ? "," : "", slots->span_lengths[i]);
        n_tokens += slots->span_lengths[i];
        if (slots->is_raw && slots->is_raw[i]) {
            icae_text_printf(&raw_spans, "%s%" PRId64, raw_spans.length ? "," : "", i);
        }
    }
    for (int64_t i = 0; i < icae_slots_raw_tokens(slots); i++)
        icae_text_printf(&raw_tokens, "%s%" PRId32, i ? "," : "", slots->raw_ids[i]);
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
    enum { N_NUMBERS = sizeof numbers / sizeof numbers[0], N_TEXTS = 3, N_RAW = 2 };
    char digits[N_NUMBERS][24];
    bool has_raw = slots->n_raw > 0;
    const char *metadata[2 * (N_NUMBERS + N_TEXTS + N_RAW)] = {
        "format",       format_name,
        "version",      version_names[has_raw],
        "span_lengths", icae_text_string(&lengths)};
    for (size_t i = 0; i < N_NUMBERS; i++) {
        snprintf(digits[i], sizeof digits[i], numbers[i].is_hex ? "%016" PRIx64 : "%" PRIu64,
                 numbers[i].value);
        metadata[2 * (N_TEXTS + i)] = numbers[i].key;
        metadata[2 * (N_TEXTS + i) + 1] = digits[i];
    }
    const char **raw = metadata + 2 * (N_NUMBERS + N_TEXTS);
    raw[0] = "raw_spans";
    raw[1] = icae_text_string(&raw_spans);
    raw[2] = "raw_tokens";
    raw[3] = icae_text_string(&raw_tokens);
    icae_safetensors_source source = {.name = "slots",
                                      .dtype = ICAE_DTYPE_F32,
                                      .rank = 2,
                                      .shape = {icae_slots_vectors(slots), slots->width},
                                      .data = slots->values};
    bool is_whole = !lengths.failed && !raw_spans.failed && !raw_tokens.failed;
    icae_status status =
        is_whole ? icae_safetensors_write(path, &source, 1, metadata,
                                          N_NUMBERS + N_TEXTS + (has_raw ? N_RAW : 0), error)
                 : icae_fail_memory(error, path);
    icae_text_release(&lengths);
    icae_text_release(&raw_spans);
    icae_text_release(&raw_tokens);
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

static icae_status check_format(const icae_safetensors *file, bool *has_raw,
                                icae_error *error) {
    const char *format = icae_safetensors_metadata(file, "format");
    const char *version = icae_safetensors_metadata(file, "version");
    if (!format || strcmp(format, format_name)) {
        return icae_fail(error, ICAE_FORMAT,
                         "%s: is not a slots file; expected one that icae compress wrote",
                         file->mapping.path);
    }
    *has_raw = version && strcmp(version, version_names[1]) == 0;
    if (!*has_raw && (!version || strcmp(version, version_names[0]))) {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: is a slots file of another version, and this program reads "
                         "versions %s and %s; compress the text again",
                         file->mapping.path, version_names[0], version_names[1]);
    }
    return ICAE_OK;
}

/* Counts the numbers of "512,512,87": at most one for each two bytes of the file. */
static int64_t count_numbers(const char *list) {
    int64_t count = 1;
    for (; *list; list++)
        count += *list == ',';
    return count;
}

/* The next number of a list; at its end *list stays at the final 0. */
static bool next_number(const char **list, uint64_t *out) {
    const char *end = *list + strcspn(*list, ",");
    bool is_good = read_decimal(*list, end, out);
    *list = *end ? end + 1 : end;
    return is_good;
}

static icae_status read_lengths(icae_slots *slots, const char *path, const char *text,
                                icae_error *error) {
    for (int64_t i = 0; i < slots->n_spans; i++) {
        uint64_t length;
        if (!next_number(&text, &length) || length > (uint64_t)ICAE_SLOTS_MOST_TOKENS ||
            slots->n_tokens + (int64_t)length > ICAE_SLOTS_MOST_TOKENS) {
            return damaged(path, "the span lengths are no list of sensible numbers", error);
        }
        slots->span_lengths[i] = (int32_t)length;
        slots->n_tokens += (int64_t)length;
    }
    return ICAE_OK;
}

/* Version 2: which spans are raw, and their tokens. */
static icae_status read_raw(icae_slots *slots, const icae_safetensors *file, int64_t n_raw,
                            icae_error *error) {
    const char *path = file->mapping.path;
    const char *spans = icae_safetensors_metadata(file, "raw_spans");
    const char *tokens = icae_safetensors_metadata(file, "raw_tokens");
    bool *is_raw = calloc((size_t)slots->n_spans, sizeof *is_raw);
    if (!is_raw) return icae_fail_memory(error, path);
    icae_status status = ICAE_OK;
    uint64_t number = 0, least = 0;
    for (int64_t i = 0; i < n_raw && !status; i++, least = number + 1) {
        if (!next_number(&spans, &number) || number < least ||
            number >= (uint64_t)slots->n_spans)
            status = damaged(path, "the raw spans are no ascending list of its spans", error);
        else
            is_raw[number] = true;
    }
    if (!status) status = icae_slots_keep_raw(slots, is_raw, error);
    free(is_raw);
    if (status) return status;
    int64_t n = icae_slots_raw_tokens(slots);
    if (!tokens || n < 1 || count_numbers(tokens) != n)
        return damaged(path, "the raw tokens are not as many as their spans have", error);
    for (int64_t i = 0; i < n; i++) {
        if (!next_number(&tokens, &number) || number > INT32_MAX)
            return damaged(path, "the raw tokens are no list of ids", error);
        slots->raw_ids[i] = (int32_t)number;
    }
    return ICAE_OK;
}

/* Spans, shape and values. */
static icae_status read_tensor(icae_slots *slots, const icae_safetensors *file, bool has_raw,
                               icae_error *error) {
    const char *path = file->mapping.path;
    const char *lengths = icae_safetensors_metadata(file, "span_lengths");
    const icae_safetensors_entry *entry = icae_safetensors_find(file, "slots");
    if (!entry || file->n_entries != 1 || entry->dtype != ICAE_DTYPE_F32 || entry->rank != 2 ||
        entry->shape[0] < 1 || entry->shape[1] < 1) {
        return damaged(path, "expected one tensor named slots, F32, of rank 2", error);
    }
    if (!lengths) return damaged(path, "the list of span lengths is missing", error);
    const char *raw_spans = has_raw ? icae_safetensors_metadata(file, "raw_spans") : NULL;
    if (has_raw && !raw_spans) return damaged(path, "the list of raw spans is missing", error);
    int64_t rows = entry->shape[0], n_spans = count_numbers(lengths);
    int64_t n_raw = raw_spans ? count_numbers(raw_spans) : 0, n_compressed = n_spans - n_raw;
    if (n_compressed < 1 || n_compressed > rows || rows % n_compressed) {
        return icae_fail(
            error, ICAE_FORMAT,
            "%s: %" PRId64 " slots do not divide into %" PRId64
            " spans; the file is damaged or was changed, so compress the text again",
            path, rows, n_compressed);
    }
    icae_status status = icae_slots_allocate_compressed(
        slots, n_spans, n_compressed, rows / n_compressed, entry->shape[1], error);
    if (status) return status;
    memcpy(slots->values, entry->data, entry->bytes);
    status = read_lengths(slots, path, lengths, error);
    return status || !has_raw ? status : read_raw(slots, file, n_raw, error);
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
    enum { N_ENTRIES = 10, N_RAW = 2 };
    bool has_raw = false;
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
    icae_status status = check_format(file, &has_raw, error);
    if (!status) status = read_tensor(slots, file, has_raw, error);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && !status; i++)
        status = read_number(file, numbers[i].key, numbers[i].is_hex, numbers[i].out, error);
    if (status) return status;
    if (file->n_metadata != N_ENTRIES + (has_raw ? N_RAW : 0))
        return damaged(file->mapping.path, "the metadata holds unknown entries", error);
    int64_t count = icae_slots_vectors(slots) * slots->width;
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
    for (int64_t i = 0; model && i < icae_slots_raw_tokens(slots); i++) {
        if (slots->raw_ids[i] < model->config.vocabulary) continue;
        return icae_fail(error, ICAE_MISMATCH,
                         "%s: keeps the token %" PRId32 ", but the base given (%s) has %" PRId64
                         "; compress the text again",
                         path, slots->raw_ids[i], model->path ? model->path : "unnamed",
                         model->config.vocabulary);
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
