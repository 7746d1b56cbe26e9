/* SPDX-License-Identifier: MIT */
/* Slots and their files: whole, changed byte by byte, cut, for others, joined. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "icae/file.h"
#include "icae/slots.h"
#include "suites.h"

static icae_error error;

/* n spans of 2 slots, 3 wide. */
static icae_slots sample(int64_t n_spans) {
    icae_slots slots = {0};
    ck_ok(icae_slots_allocate(&slots, n_spans, 2, 3, &error));
    for (int64_t i = 0; i < n_spans * 6; i++)
        slots.values[i] = (float)i * 0.25f - 1;
    for (int64_t i = 0; i < n_spans; i++) {
        slots.span_lengths[i] = 8 - (int32_t)(i % 2);
        slots.n_tokens += slots.span_lengths[i];
    }
    slots.source_bytes = 77;
    slots.source_hash = 0x123456789abcdef0;
    slots.base_fingerprint = 0xba5e;
    slots.adapter_fingerprint = 0xadab7e5;
    slots.tokenizer_fingerprint = UINT64_MAX;
    return slots;
}

/* The same with its second span raw: its tokens are 100, 101, ... */
static icae_slots sample_with_raw(int64_t n_spans) {
    icae_slots slots = sample(n_spans);
    bool is_raw[8] = {false, true};
    ck_ok(icae_slots_keep_raw(&slots, is_raw, &error));
    for (int32_t i = 0; i < 7; i++)
        slots.raw_ids[i] = 100 + i;
    return slots;
}

static void expect_equal(const icae_slots *a, const icae_slots *b) {
    ck_assert_int_eq(a->n_spans, b->n_spans);
    ck_assert_int_eq(a->slots_per_span, b->slots_per_span);
    ck_assert_int_eq(a->width, b->width);
    ck_assert_int_eq(a->n_tokens, b->n_tokens);
    ck_assert_uint_eq(a->source_bytes, b->source_bytes);
    ck_assert_uint_eq(a->source_hash, b->source_hash);
    ck_assert_uint_eq(a->base_fingerprint, b->base_fingerprint);
    ck_assert_uint_eq(a->adapter_fingerprint, b->adapter_fingerprint);
    ck_assert_uint_eq(a->tokenizer_fingerprint, b->tokenizer_fingerprint);
    ck_assert_mem_eq(a->span_lengths, b->span_lengths,
                     (size_t)a->n_spans * sizeof *a->span_lengths);
    ck_assert_mem_eq(a->values, b->values,
                     (size_t)(icae_slots_vectors(a) * a->width) * sizeof *a->values);
    ck_assert_int_eq(a->n_raw, b->n_raw);
    if (a->n_raw == 0) return;
    ck_assert_mem_eq(a->is_raw, b->is_raw, (size_t)a->n_spans * sizeof *a->is_raw);
    ck_assert_mem_eq(a->raw_ids, b->raw_ids,
                     (size_t)icae_slots_raw_tokens(a) * sizeof *a->raw_ids);
}

static char *read_whole(const char *path, size_t *bytes) {
    char *data;
    ck_ok(icae_file_read(path, 1 << 20, &data, bytes, &error));
    return data;
}

/* Without fsync: the flipping test writes hundreds of files. */
static void write_quickly(const char *path, const char *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

static icae_status inspect(const char *path) {
    icae_slots slots = {0};
    icae_status status = icae_slots_load(&slots, path, NULL, NULL, &error);
    if (status) ck_assert_ptr_null(slots.values);
    icae_slots_release(&slots);
    return status;
}

START_TEST(reads_what_it_wrote_and_writes_equal_bytes) {
    const char *folder = test_folder("slots-whole");
    const char *first = test_path(folder, "a.slots"), *second = test_path(folder, "b.slots");
    icae_slots slots = sample(3), again = {0};
    ck_ok(icae_slots_save(&slots, first, &error));
    ck_ok(icae_slots_load(&again, first, NULL, NULL, &error));
    expect_equal(&slots, &again);
    ck_ok(icae_slots_save(&again, second, &error));
    size_t n_first, n_second;
    char *a = read_whole(first, &n_first), *b = read_whole(second, &n_second);
    ck_assert_uint_eq(n_first, n_second);
    ck_assert_mem_eq(a, b, n_first);
    free(a);
    free(b);
    icae_slots_release(&slots);
    icae_slots_release(&again);
}
END_TEST

START_TEST(keeps_an_empty_text) {
    const char *path = test_path(test_folder("slots-empty"), "a.slots");
    icae_slots slots = {0}, again = {0};
    ck_ok(icae_slots_allocate(&slots, 1, 4, 5, &error));
    ck_ok(icae_slots_save(&slots, path, &error));
    ck_ok(icae_slots_load(&again, path, NULL, NULL, &error));
    expect_equal(&slots, &again);
    icae_slots_release(&slots);
    icae_slots_release(&again);
}
END_TEST

START_TEST(refuses_every_changed_byte) {
    static const unsigned char masks[] = {0x01, 0x80, 0x20};
    const char *folder = test_folder("slots-flipped");
    const char *path = test_path(folder, "a.slots"), *other = test_path(folder, "b.slots");
    icae_slots slots = sample(2);
    ck_ok(icae_slots_save(&slots, path, &error));
    icae_slots_release(&slots);
    size_t bytes;
    char *data = read_whole(path, &bytes);
    for (size_t i = 0; i < bytes; i++) {
        for (size_t m = 0; m < sizeof masks; m++) {
            data[i] = (char)(data[i] ^ masks[m]);
            write_quickly(other, data, bytes);
            ck_assert_msg(inspect(other) != ICAE_OK, "byte %zu xor 0x%02x was accepted", i,
                          masks[m]);
            ck_assert_msg(strstr(error.message, "b.slots"), "%s", error.message);
            data[i] = (char)(data[i] ^ masks[m]);
        }
    }
    write_quickly(other, data, bytes);
    ck_ok(inspect(other));
    free(data);
}
END_TEST

START_TEST(refuses_a_file_cut_or_lengthened_anywhere) {
    const char *folder = test_folder("slots-cut");
    const char *path = test_path(folder, "a.slots"), *other = test_path(folder, "b.slots");
    icae_slots slots = sample(2);
    ck_ok(icae_slots_save(&slots, path, &error));
    icae_slots_release(&slots);
    size_t bytes;
    char *data = read_whole(path, &bytes); /* a 0 stands behind the last byte */
    for (size_t n = 0; n < bytes; n++) {
        write_quickly(other, data, n);
        ck_assert_msg(inspect(other) != ICAE_OK, "%zu of %zu bytes were accepted", n, bytes);
    }
    write_quickly(other, data, bytes + 1);
    ck_assert(inspect(other) != ICAE_OK);
    free(data);
}
END_TEST

/* Writes the sample's tensor with these span lengths and an arbitrary hash. */
static icae_status load_with_lengths(const char *path, const char *lengths) {
    const char *const metadata[] = {"format",        "icae-slots",
                                    "version",       "1",
                                    "span_lengths",  lengths,
                                    "base",          "000000000000ba5e",
                                    "adapter",       "000000000000ba5e",
                                    "tokenizer",     "000000000000ba5e",
                                    "source_hash",   "000000000000ba5e",
                                    "source_bytes",  "1",
                                    "slots_hash",    "000000000000ba5e",
                                    "source_tokens", "1"};
    static const float values[12] = {0};
    const icae_safetensors_source source = {
        .name = "slots", .dtype = ICAE_DTYPE_F32, .rank = 2, .shape = {4, 3}, .data = values};
    ck_ok(icae_safetensors_write(path, &source, 1, metadata, 10, &error));
    return inspect(path);
}

START_TEST(refuses_span_lengths_that_make_no_sense) {
    const char *path = test_path(test_folder("slots-lengths"), "a.slots");
    static const char *const bad[] = {"",           "1,",   ",1",   "1,-1",
                                      "1, 1",       "01,1", "1;1",  "1,99999999999999999999999",
                                      "2000000000", "1e3",  "0x10", "1000000000,1000000000",
                                      "+1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_refused(load_with_lengths(path, bad[i]), "span lengths");
    ck_refused(load_with_lengths(path, "1,1,1"), "4 slots do not divide into 3 spans");
    ck_refused(load_with_lengths(path, "1,1,1,1,1,1,1,1"), "do not divide into 8 spans");
    ck_refused(load_with_lengths(path, "1,1"), "hash");
}
END_TEST

START_TEST(refuses_what_is_no_slots_file) {
    const char *path = test_path(test_folder("slots-none"), "a.slots");
    ck_refused(inspect(path), "a.slots");
    static const float value = 1;
    const icae_safetensors_source source = {
        .name = "slots", .dtype = ICAE_DTYPE_F32, .rank = 2, .shape = {1, 1}, .data = &value};
    ck_ok(icae_safetensors_write(path, &source, 1, NULL, 0, &error));
    ck_refused(inspect(path), "is not a slots file");
    static const char *const newer[] = {"format", "icae-slots", "version", "3"};
    ck_ok(icae_safetensors_write(path, &source, 1, newer, 2, &error));
    ck_refused(inspect(path), "reads versions 1 and 2");
    static const char *const bare[] = {"format", "icae-slots", "version", "1"};
    ck_ok(icae_safetensors_write(path, &source, 1, bare, 2, &error));
    ck_refused(inspect(path), "span lengths is missing");
}
END_TEST

START_TEST(names_both_sides_when_slots_are_for_others) {
    const char *path = test_path(test_folder("slots-owner"), "a.slots");
    char name[] = "base.gguf", folder[] = "runs/a/adapter";
    icae_slots slots = sample(1), again = {0};
    ck_ok(icae_slots_save(&slots, path, &error));
    icae_model model = {.config = {.width = 3}, .fingerprint = 0xba5e, .path = name};
    icae_adapter adapter = {
        .settings = {.memory_slots = 2}, .fingerprint = 0xadab7e5, .path = folder};
    ck_ok(icae_slots_load(&again, path, &model, &adapter, &error));
    icae_slots_release(&again);

    adapter.fingerprint = 0x9b2d;
    ck_refused(
        icae_slots_load(&again, path, &model, &adapter, &error),
        "was made by adapter 000000000adab7e5 for base 000000000000ba5e, but the adapter "
        "given (runs/a/adapter) is 0000000000009b2d; compress the text again");
    ck_assert_int_eq(error.status, ICAE_MISMATCH);
    adapter.fingerprint = 0xadab7e5;
    model.fingerprint = 0xcafe;
    ck_refused(icae_slots_load(&again, path, &model, &adapter, &error),
               "was made for base 000000000000ba5e, but the base given (base.gguf) is "
               "000000000000cafe");
    model.fingerprint = 0xba5e;
    model.config.width = 4;
    ck_refused(icae_slots_load(&again, path, &model, &adapter, &error), "3 wide");
    model.config.width = 3;
    adapter.settings.memory_slots = 4;
    ck_refused(icae_slots_load(&again, path, &model, &adapter, &error), "2 slots a span");
    ck_assert_ptr_null(again.values);
    icae_slots_release(&slots);
}
END_TEST

START_TEST(joins_texts_in_order) {
    icae_slots all = {0}, first = sample(2), second = sample(1), one = {0};
    second.values[0] = 42;
    ck_ok(icae_slots_join(&all, &first, &error));
    expect_equal(&all, &first);
    ck_ok(icae_slots_join(&all, &second, &error));
    ck_assert_int_eq(all.n_spans, 3);
    ck_assert_int_eq(all.n_tokens, 8 + 7 + 8);
    ck_assert_int_eq(all.span_lengths[1], 7);
    ck_assert_int_eq(all.span_lengths[2], 8);
    ck_assert_mem_eq(all.values, first.values, 12 * sizeof(float));
    ck_assert_mem_eq(all.values + 12, second.values, 6 * sizeof(float));
    ck_assert_uint_eq(all.source_bytes, 0);
    ck_assert_uint_eq(all.source_hash, 0);
    ck_assert_uint_eq(all.adapter_fingerprint, 0xadab7e5);
    ck_ok(icae_slots_join(&all, &one, &error)); /* nothing changes nothing */
    ck_assert_int_eq(all.n_spans, 3);

    const icae_slots sound = second;
    second.adapter_fingerprint = 5;
    ck_refused(icae_slots_join(&all, &second, &error), "compress both texts with one adapter");
    second = sound;
    second.base_fingerprint = 5;
    ck_refused(icae_slots_join(&all, &second, &error), "compress both texts with one adapter");
    second = sound;
    second.tokenizer_fingerprint = 5;
    ck_refused(icae_slots_join(&all, &second, &error), "compress both texts with one adapter");
    second = sound;
    second.slots_per_span = 1;
    ck_refused(icae_slots_join(&all, &second, &error), "with slots of 1 a span, 3 wide");
    second = sound;
    second.n_tokens = INT64_C(1) << 30;
    ck_refused(icae_slots_join(&all, &second, &error), "more than 1073741824 tokens");
    second = sound;
    ck_ok(icae_slots_allocate(&one, 1, 2, 4, &error));
    one.base_fingerprint = all.base_fingerprint;
    one.adapter_fingerprint = all.adapter_fingerprint;
    one.tokenizer_fingerprint = all.tokenizer_fingerprint;
    ck_refused(icae_slots_join(&all, &one, &error), "4 wide");
    ck_assert_int_eq(all.n_spans, 3);
    icae_slots_release(&all);
    icae_slots_release(&first);
    icae_slots_release(&second);
    icae_slots_release(&one);
}
END_TEST

/* ---- spans kept as text ---- */

static const char *version_of(const char *path, char version[8]) {
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, path, &error));
    snprintf(version, 8, "%s", icae_safetensors_metadata(&file, "version"));
    icae_safetensors_close(&file);
    return version;
}

START_TEST(keeps_spans_as_text_under_a_version_of_their_own) {
    const char *folder = test_folder("slots-raw");
    const char *path = test_path(folder, "a.slots"), *plain = test_path(folder, "b.slots");
    char version[8];
    icae_slots raw = sample_with_raw(3), again = {0}, none = sample(3), joined = {0};
    ck_assert_int_eq(icae_slots_vectors(&raw), 4);
    ck_assert_int_eq(icae_slots_raw_tokens(&raw), 7);
    ck_assert_int_eq(icae_slots_rows(&raw), 11);
    ck_ok(icae_slots_save(&raw, path, &error));
    ck_assert_str_eq(version_of(path, version), "2");
    ck_ok(icae_slots_load(&again, path, NULL, NULL, &error));
    expect_equal(&raw, &again);
    ck_ok(icae_slots_save(&none, plain, &error));
    ck_assert_str_eq(version_of(plain, version), "1"); /* for readers that know no other */
    ck_ok(icae_slots_join(&joined, &none, &error));
    ck_ok(icae_slots_join(&joined, &raw, &error));
    ck_ok(icae_slots_join(&joined, &raw, &error));
    ck_assert_int_eq(joined.n_spans, 9);
    ck_assert_int_eq(joined.n_raw, 2);
    ck_assert(joined.is_raw[4] && joined.is_raw[7] && !joined.is_raw[3] && !joined.is_raw[5]);
    ck_assert_int_eq(icae_slots_rows(&joined), 6 + 11 + 11);
    ck_assert_int_eq(joined.raw_ids[7 + 6], 106);
    ck_assert_mem_eq(joined.values + 18, raw.values, 12 * sizeof(float));
    ck_assert_mem_eq(joined.values + 30, raw.values, 12 * sizeof(float));
    /* A base whose vocabulary ends before the last token. */
    char name[] = "base.gguf";
    icae_model model = {
        .config = {.width = 3, .vocabulary = 107}, .fingerprint = 0xba5e, .path = name};
    icae_slots_release(&again);
    ck_ok(icae_slots_load(&again, path, &model, NULL, &error));
    model.config.vocabulary = 106;
    icae_slots_release(&again);
    ck_refused(icae_slots_load(&again, path, &model, NULL, &error), "keeps the token 106");
    const bool all[] = {true, true, true};
    ck_refused(icae_slots_keep_raw(&none, all, &error), "nothing is compressed");
    icae_slots_release(&raw);
    icae_slots_release(&none);
    icae_slots_release(&joined);
}
END_TEST

START_TEST(refuses_every_changed_byte_of_raw_spans) {
    const char *folder = test_folder("slots-raw-flip");
    const char *path = test_path(folder, "a.slots"), *other = test_path(folder, "b.slots");
    icae_slots slots = sample_with_raw(2);
    ck_ok(icae_slots_save(&slots, path, &error));
    icae_slots_release(&slots);
    size_t bytes;
    char *data = read_whole(path, &bytes);
    for (size_t i = 0; i < bytes; i++) {
        data[i] ^= 1;
        write_quickly(other, data, bytes);
        ck_assert_msg(inspect(other) != ICAE_OK, "byte %zu changed and accepted", i);
        data[i] ^= 1;
    }
    free(data);
}
END_TEST

static icae_status load_with_raw(const char *path, const char *spans, const char *tokens) {
    const char *const metadata[] = {"format",        "icae-slots",
                                    "version",       "2",
                                    "span_lengths",  "3,2,3",
                                    "base",          "000000000000ba5e",
                                    "adapter",       "000000000000ba5e",
                                    "tokenizer",     "000000000000ba5e",
                                    "source_hash",   "000000000000ba5e",
                                    "source_bytes",  "1",
                                    "slots_hash",    "000000000000ba5e",
                                    "source_tokens", "8",
                                    "raw_spans",     spans,
                                    "raw_tokens",    tokens};
    static const float values[12] = {0};
    const icae_safetensors_source source = {
        .name = "slots", .dtype = ICAE_DTYPE_F32, .rank = 2, .shape = {4, 3}, .data = values};
    ck_ok(icae_safetensors_write(path, &source, 1, metadata, 12, &error));
    return inspect(path);
}

START_TEST(refuses_raw_spans_that_make_no_sense) {
    const char *path = test_path(test_folder("slots-raw-lists"), "a.slots");
    static const char *const spans[] = {"", "3", "-1", "1x", "01", "99999999999999999999"};
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++)
        ck_refused(load_with_raw(path, spans[i], "7,8"), "raw spans");
    ck_refused(load_with_raw(path, "0,0", "7,8,9,7,8,9"), "raw spans");
    ck_refused(load_with_raw(path, "1,0", "7,8,9,7,8"), "raw spans");
    ck_refused(load_with_raw(path, "0,1,2", "7,8"), "do not divide");
    static const char *const tokens[] = {"", "7", "7,8,9"};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        ck_refused(load_with_raw(path, "1", tokens[i]), "raw tokens");
    ck_refused(load_with_raw(path, "1", "7,-8"), "list of ids");
    ck_refused(load_with_raw(path, "1", "7,2147483648"), "list of ids");
    ck_refused(load_with_raw(path, "1", "7,8"), "hash");
}
END_TEST

START_TEST(refuses_sizes_beyond_memory) {
    icae_slots slots = {0};
    ck_refused(icae_slots_allocate(&slots, INT64_C(1) << 40, INT64_C(1) << 40, 2, &error),
               "memory");
    ck_refused(icae_slots_allocate(&slots, INT64_C(1) << 61, 1, 1, &error), "memory");
    ck_refused(icae_slots_allocate(&slots, INT64_C(1) << 40, 2, INT64_C(1) << 40, &error),
               "memory");
    ck_refused(icae_slots_allocate(&slots, INT64_C(1) << 62, 4, 1, &error), "memory");
    ck_assert_ptr_null(slots.values);
}
END_TEST

SUITE_OF(slots, 60, reads_what_it_wrote_and_writes_equal_bytes, keeps_an_empty_text,
         refuses_every_changed_byte, refuses_a_file_cut_or_lengthened_anywhere,
         refuses_span_lengths_that_make_no_sense, refuses_what_is_no_slots_file,
         names_both_sides_when_slots_are_for_others, joins_texts_in_order,
         keeps_spans_as_text_under_a_version_of_their_own,
         refuses_every_changed_byte_of_raw_spans, refuses_raw_spans_that_make_no_sense,
         refuses_sizes_beyond_memory)
