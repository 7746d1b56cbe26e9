/* SPDX-License-Identifier: MIT */
/* GGUF as it is read: files built byte by byte, and the real base model. Broken ones: test_gguf_broken.c. */
#include <string.h>

#include "gguf_support.h"
#include "icae/gguf.h"
#include "suites.h"

START_TEST(reads_all_types_in_both_versions) {
    for (uint32_t version = 2; version <= 3; version++) {
        icae_error error = {0};
        icae_text bytes = good_gguf(version);
        const char *path = stored_gguf(test_folder("gguf-good"), &bytes);
        icae_gguf file;
        ck_ok(icae_gguf_open(&file, path, &error));
        ck_assert_uint_eq(file.version, version);
        ck_assert_uint_eq(file.n_items, 16);
        ck_assert_str_eq(file.items[0].key, "u8");

        static const struct {
            const char *key;
            bool is_integer;
            int64_t integer;
            double number;
        } rows[] = {
            {"u8", true, 254, 254},
            {"i8", true, -2, -2},
            {"u16", true, 0x8001, 0x8001},
            {"i16", true, -0x7FFF, -0x7FFF},
            {"u32", true, 0x80000002, 0x80000002},
            {"i32", true, -0x7FFFFFFE, -0x7FFFFFFE},
            {"f32", false, 0, 1.5},
            {"bool", true, 1, 1},
            {"u64", false, 0, 0x1p64},
            {"i64", true, -1, -1},
            {"f64", false, 0, -2.5},
        };
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            int64_t integer = 0;
            double number = 0;
            ck_assert_msg(icae_gguf_get_integer(&file, rows[i].key, &integer) ==
                                  rows[i].is_integer &&
                              integer == rows[i].integer,
                          "%s", rows[i].key);
            ck_assert_msg(icae_gguf_get_number(&file, rows[i].key, &number) &&
                              number == rows[i].number,
                          "%s", rows[i].key);
        }

        icae_gguf_string string = {0};
        ck_assert(icae_gguf_get_string(&file, "string", &string));
        ck_assert_uint_eq(string.bytes, 5);
        ck_assert_int_eq(memcmp(string.data, "a\0\xFF\nz", 5), 0);
        const icae_gguf_item *strings = icae_gguf_item_find(&file, "strings");
        ck_assert_uint_eq(strings->count, 3);
        ck_assert_int_eq(strings->element_type, ICAE_GGUF_STRING);
        ck_assert_uint_eq(strings->strings[1].bytes, 0);
        ck_assert_int_eq(memcmp(strings->strings[2].data, "three", 5), 0);
        const icae_gguf_item *numbers = icae_gguf_item_find(&file, "numbers");
        int64_t value = 0;
        ck_assert(icae_gguf_integer(numbers, 1, &value) && value == -9);
        ck_assert(!icae_gguf_integer(numbers, 2, &value) && value == -9);
        ck_assert(!icae_gguf_get_integer(&file, "numbers", &value));
        ck_assert(!icae_gguf_get_integer(&file, "string", &value));
        ck_assert(!icae_gguf_get_string(&file, "strings", &string));
        ck_assert(!icae_gguf_get_integer(&file, "absent", &value));
        ck_assert_uint_eq(icae_gguf_item_find(&file, "nothing")->count, 0);
        ck_assert_ptr_null(icae_gguf_item_find(&file, "absent"));
        icae_gguf_close(&file);
    }
}
END_TEST

START_TEST(answers_for_numbers_that_are_not_there) {
    icae_error error = {0};
    icae_text bytes = good_gguf(3);
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, stored_gguf(test_folder("gguf-absent"), &bytes), &error));
    int64_t integer = 5;
    double number = 6;
    icae_gguf_string string = {"x", 1};
    ck_assert(!icae_gguf_integer(NULL, 0, &integer) && !icae_gguf_number(NULL, 0, &number));
    const icae_gguf_item *numbers = icae_gguf_item_find(&file, "numbers");
    ck_assert(!icae_gguf_integer(numbers, 2, &integer));
    ck_assert(!icae_gguf_number(icae_gguf_item_find(&file, "string"), 0, &number));
    static const char *const keys[] = {"absent", "numbers", "string"};
    for (size_t i = 0; i < 3; i++) {
        ck_assert(!icae_gguf_get_integer(&file, keys[i], &integer));
        ck_assert(!icae_gguf_get_number(&file, keys[i], &number));
    }
    ck_assert(!icae_gguf_get_string(&file, "absent", &string));
    ck_assert(!icae_gguf_get_string(&file, "strings", &string));
    ck_assert(integer == 5 && number == 6 && string.bytes == 1);
    icae_gguf_close(&file);
}
END_TEST

START_TEST(turns_shapes_round_and_places_tensors) {
    icae_error error = {0};
    icae_text bytes = good_gguf(3);
    const char *path = stored_gguf(test_folder("gguf-tensors"), &bytes);
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    ck_assert_uint_eq(file.n_tensors, 2);
    ck_assert_str_eq(file.tensors[0].name, "second"); /* file order */
    const icae_gguf_tensor *first = icae_gguf_find(&file, "first");
    ck_assert_ptr_eq(first, &file.tensors[1]);
    ck_assert_int_eq(first->dtype, ICAE_DTYPE_F32);
    ck_assert_int_eq(first->rank, 3);
    ck_assert(first->shape[0] == 1 && first->shape[1] == 3 && first->shape[2] == 2);
    ck_assert_uint_eq(first->bytes, 24);
    const icae_gguf_tensor *second = icae_gguf_find(&file, "second");
    ck_assert_int_eq(second->dtype, ICAE_DTYPE_Q8_0);
    ck_assert(second->rank == 2 && second->shape[0] == 3 && second->shape[1] == 64);
    ck_assert_uint_eq(second->bytes, 3 * 2 * 34);
    ck_assert_ptr_eq(second->data, (const char *)first->data + 64);
    ck_assert_int_eq(*(const unsigned char *)second->data, 64);
    ck_assert_uint_eq((size_t)((const unsigned char *)first->data - file.mapping.data) % 64, 0);
    ck_assert_ptr_null(icae_gguf_find(&file, "third"));
    icae_gguf_close(&file);
}
END_TEST

START_TEST(reads_a_file_without_keys_and_tensors) {
    icae_error error = {0};
    icae_text bytes = {0};
    put_header(&bytes, 3, 0, 0);
    const char *path = stored_gguf(test_folder("gguf-empty"), &bytes);
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    ck_assert_ptr_null(icae_gguf_find(&file, "x"));
    ck_assert_ptr_null(icae_gguf_item_find(&file, "x"));
    icae_gguf_close(&file);
}
END_TEST

START_TEST(names_a_file_that_is_not_there) {
    icae_error error = {0};
    icae_gguf file;
    ck_refused(icae_gguf_open(&file, "no/such.gguf", &error), "no/such.gguf: cannot open");
    ck_assert_int_eq(error.status, ICAE_IO);
}
END_TEST

/* Only where the base model was fetched (`make base`) or ICAE_BASE names one. */
START_TEST(reads_the_real_base_model) {
    const char *path = test_base_model();
    ck_assert_msg(path != NULL,
                  "the base model is not there: run `make base` first, or set ICAE_BASE");
    icae_error error = {0};
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    const icae_gguf_tensor *table = icae_gguf_find(&file, "token_embd.weight");
    const icae_gguf_item *tokens = icae_gguf_item_find(&file, "tokenizer.ggml.tokens");
    int64_t width = 0;
    ck_assert_ptr_nonnull(table);
    ck_assert_ptr_nonnull(tokens);
    ck_assert(icae_gguf_get_integer(&file, "llama.embedding_length", &width));
    ck_assert_int_eq(table->shape[0], (int64_t)tokens->count);
    ck_assert_int_eq(table->shape[1], width);
    for (size_t i = 0; i < file.n_tensors; i++)
        ck_assert_ptr_eq(icae_gguf_find(&file, file.tensors[i].name), &file.tensors[i]);
    icae_gguf_close(&file);
}
END_TEST

SUITE_OF(gguf, 60, answers_for_numbers_that_are_not_there, reads_all_types_in_both_versions,
         turns_shapes_round_and_places_tensors, reads_a_file_without_keys_and_tensors,
         names_a_file_that_is_not_there, reads_the_real_base_model)
