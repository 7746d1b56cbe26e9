/* SPDX-License-Identifier: MIT */
/* Writing GGUF: what is put comes back by our reader, and what it would refuse is never written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/gguf_write.h"
#include "suites.h"

static const float small[] = {1, 2, 3, 4, 5, 6};

/* One of every kind; 5 floats first, so that the second tensor needs padding. */
static void put_all(icae_gguf_writer *writer, const char *path) {
    static const char *const names[] = {"one", "", "three \xC3\xA9"};
    static const unsigned char numbers[] = {7, 0, 0, 0, 0xF7, 0xFF, 0xFF, 0xFF};
    icae_gguf_begin(writer, path);
    icae_gguf_put_string(writer, "general.architecture", "llama");
    icae_gguf_put_u32(writer, "u32", 0x80000002u);
    icae_gguf_put_u64(writer, "u64", UINT64_C(1) << 40);
    icae_gguf_put_f32(writer, "f32", -1.5f);
    icae_gguf_put_bool(writer, "bool", true);
    icae_gguf_put_strings(writer, "strings", names, 3);
    icae_gguf_put_strings(writer, "nothing", names, 0);
    icae_gguf_put_item(writer, &(icae_gguf_item){.key = "numbers",
                                                 .type = ICAE_GGUF_ARRAY,
                                                 .element_type = ICAE_GGUF_I32,
                                                 .count = 2,
                                                 .raw = numbers});
    icae_gguf_put_tensor(writer, "z", ICAE_DTYPE_F32, 1, (const int64_t[]){5});
    icae_gguf_put_tensor(writer, "a", ICAE_DTYPE_F32, 3, (const int64_t[]){1, 3, 2});
    icae_gguf_put_tensor(writer, "q", ICAE_DTYPE_Q8_0, 2, (const int64_t[]){3, 64});
}

static void write_all(icae_gguf_writer *writer) {
    unsigned char blocks[3 * 2 * 34];
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (unsigned char)i;
    icae_gguf_write_data(writer, small, 2 * sizeof *small);
    icae_gguf_write_data(writer, NULL, 0);
    icae_gguf_write_data(writer, small + 2, 3 * sizeof *small);
    icae_gguf_write_data(writer, small, sizeof small);
    for (size_t i = 0; i < sizeof blocks; i++) /* in the smallest pieces */
        icae_gguf_write_data(writer, blocks + i, 1);
}

static void check_tensors(const icae_gguf *file, size_t alignment) {
    ck_assert_uint_eq(file->n_tensors, 3);
    const icae_gguf_tensor *z = icae_gguf_find(file, "z"), *a = icae_gguf_find(file, "a"),
                           *q = icae_gguf_find(file, "q");
    ck_assert(z && a && q);
    ck_assert_ptr_eq(z, &file->tensors[0]);
    ck_assert_mem_eq(z->data, small, 5 * sizeof *small);
    ck_assert_int_eq(a->rank, 3);
    ck_assert_int_eq(a->shape[1], 3);
    ck_assert_int_eq(a->shape[2], 2);
    ck_assert_mem_eq(a->data, small, sizeof small);
    ck_assert_int_eq(q->dtype, ICAE_DTYPE_Q8_0);
    ck_assert_int_eq(q->shape[0], 3);
    ck_assert_uint_eq(q->bytes, 204);
    for (size_t i = 0; i < q->bytes; i++)
        ck_assert_uint_eq(((const unsigned char *)q->data)[i], i);
    for (size_t i = 0; i < file->n_tensors; i++) {
        const unsigned char *data = file->tensors[i].data;
        ck_assert_uint_eq((size_t)(data - file->mapping.data) % alignment, 0);
    }
}

START_TEST(reads_back_everything_that_was_put) {
    icae_error error = {0};
    const char *path = test_path(test_folder("gguf-write"), "x.gguf");
    icae_gguf_writer writer;
    put_all(&writer, path);
    write_all(&writer);
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    ck_assert_uint_eq(file.version, 3);
    ck_assert_uint_eq(file.n_items, 8);
    icae_gguf_string text;
    int64_t integer;
    double number;
    ck_assert(icae_gguf_get_string(&file, "general.architecture", &text));
    ck_assert_uint_eq(text.bytes, 5);
    ck_assert_mem_eq(text.data, "llama", 5);
    ck_assert(icae_gguf_get_integer(&file, "u32", &integer) && integer == 0x80000002LL);
    ck_assert(icae_gguf_get_integer(&file, "u64", &integer) && integer == 1LL << 40);
    ck_assert(icae_gguf_get_number(&file, "f32", &number) && number == -1.5);
    ck_assert_int_eq(icae_gguf_item_find(&file, "bool")->type, ICAE_GGUF_BOOL);
    ck_assert(icae_gguf_get_integer(&file, "bool", &integer) && integer == 1);
    const icae_gguf_item *strings = icae_gguf_item_find(&file, "strings");
    ck_assert(strings && strings->count == 3 && strings->strings[1].bytes == 0);
    ck_assert_mem_eq(strings->strings[2].data, "three \xC3\xA9", 8);
    ck_assert_uint_eq(icae_gguf_item_find(&file, "nothing")->count, 0);
    const icae_gguf_item *numbers = icae_gguf_item_find(&file, "numbers");
    ck_assert(icae_gguf_integer(numbers, 1, &integer) && integer == -9);
    check_tensors(&file, 32);
    icae_gguf_close(&file);
}
END_TEST

/* A file copied item by item and tensor by tensor is the file again; so are equal calls. */
START_TEST(copies_a_file_to_the_byte) {
    icae_error error = {0};
    const char *folder = test_folder("gguf-copy");
    const char *first = test_path(folder, "first.gguf"), *second = test_path(folder, "b.gguf");
    icae_gguf_writer writer;
    put_all(&writer, first);
    write_all(&writer);
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, first, &error));
    icae_gguf_begin(&writer, second);
    for (size_t i = 0; i < file.n_items; i++)
        icae_gguf_put_item(&writer, &file.items[i]);
    for (size_t i = 0; i < file.n_tensors; i++) {
        const icae_gguf_tensor *t = &file.tensors[i];
        icae_gguf_put_tensor(&writer, t->name, t->dtype, t->rank, t->shape);
    }
    for (size_t i = 0; i < file.n_tensors; i++)
        icae_gguf_write_data(&writer, file.tensors[i].data, file.tensors[i].bytes);
    ck_ok(icae_gguf_commit(&writer, &error));
    char *bytes;
    size_t length;
    ck_ok(icae_file_read(second, 1 << 20, &bytes, &length, &error));
    ck_assert_uint_eq(length, file.mapping.bytes);
    ck_assert_mem_eq(bytes, file.mapping.data, length);
    free(bytes);
    icae_gguf_close(&file);
}
END_TEST

START_TEST(obeys_the_alignment_key) {
    icae_error error = {0};
    const char *path = test_path(test_folder("gguf-align"), "x.gguf");
    icae_gguf_writer writer;
    icae_gguf_begin(&writer, path);
    icae_gguf_put_u32(&writer, "general.alignment", 256);
    icae_gguf_put_tensor(&writer, "z", ICAE_DTYPE_F32, 1, (const int64_t[]){5});
    icae_gguf_put_tensor(&writer, "a", ICAE_DTYPE_F32, 3, (const int64_t[]){1, 3, 2});
    icae_gguf_put_tensor(&writer, "q", ICAE_DTYPE_Q8_0, 2, (const int64_t[]){3, 64});
    write_all(&writer);
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    check_tensors(&file, 256);
    icae_gguf_close(&file);
}
END_TEST

START_TEST(writes_a_file_without_tensors) {
    icae_error error = {0};
    const char *path = test_path(test_folder("gguf-empty"), "x.gguf");
    icae_gguf_writer writer;
    icae_gguf_begin(&writer, path);
    icae_gguf_put_u32(&writer, "one", 1);
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    ck_assert_uint_eq(file.n_tensors, 0);
    ck_assert_uint_eq(file.n_items, 1);
    icae_gguf_close(&file);
}
END_TEST

/* More than the first room for names holds. */
START_TEST(takes_many_keys_and_tensors) {
    enum { N = 200 };
    icae_error error = {0};
    const char *path = test_path(test_folder("gguf-many"), "x.gguf");
    icae_gguf_writer writer;
    char name[16];
    icae_gguf_begin(&writer, path);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "%u", i);
        icae_gguf_put_u32(&writer, name, i);
    }
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "%u", i);
        icae_gguf_put_tensor(&writer, name, ICAE_DTYPE_F32, 1, (const int64_t[]){1});
    }
    for (uint32_t i = 0; i < N; i++) {
        float value = (float)i;
        icae_gguf_write_data(&writer, &value, sizeof value);
    }
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    ck_assert(file.n_items == N && file.n_tensors == N);
    int64_t number = 0;
    ck_assert(icae_gguf_get_integer(&file, "199", &number) && number == 199);
    float last;
    memcpy(&last, icae_gguf_find(&file, "199")->data, sizeof last);
    ck_assert(last == 199);
    icae_gguf_close(&file);
}
END_TEST

static void key_twice(icae_gguf_writer *w) {
    icae_gguf_put_u32(w, "u32", 1);
}
static void tensor_twice(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "a", ICAE_DTYPE_F32, 1, (const int64_t[]){1});
}
static void no_name(icae_gguf_writer *w) {
    icae_gguf_put_u32(w, "", 1);
}
static void empty_name(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "", ICAE_DTYPE_F32, 1, (const int64_t[]){1});
}
static void broken_rows(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "b", ICAE_DTYPE_Q8_0, 1, (const int64_t[]){33});
}
static void no_values(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "b", ICAE_DTYPE_F32, 2, (const int64_t[]){3, 0});
}
static void huge_shape(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "b", ICAE_DTYPE_F32, 2,
                         (const int64_t[]){INT64_C(1) << 40, INT64_C(1) << 40});
}
static void huge_sum(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "b", ICAE_DTYPE_F32, 1, (const int64_t[]){INT64_C(1) << 61});
    icae_gguf_put_tensor(w, "c", ICAE_DTYPE_F32, 1, (const int64_t[]){INT64_C(1) << 61});
    icae_gguf_put_tensor(w, "d", ICAE_DTYPE_F32, 1, (const int64_t[]){1});
}
static void late_alignment(icae_gguf_writer *w) {
    icae_gguf_put_u32(w, "general.alignment", 64);
}
static void nested_array(icae_gguf_writer *w) {
    icae_gguf_put_item(w, &(icae_gguf_item){.key = "deep",
                                            .type = ICAE_GGUF_ARRAY,
                                            .element_type = ICAE_GGUF_ARRAY});
}
static void long_name(icae_gguf_writer *w) {
    static char name[65537];
    memset(name, 'k', sizeof name - 1);
    icae_gguf_put_u32(w, name, 1);
}
/* A scalar or, with an element type, an array; raw is enough for eight bytes. */
static void put_odd(icae_gguf_writer *w, const char *key, int type, int element, uint64_t count,
                    uint64_t value) {
    icae_gguf_put_item(w, &(icae_gguf_item){.key = key,
                                            .type = (icae_gguf_type)type,
                                            .element_type = (icae_gguf_type)element,
                                            .count = count,
                                            .raw = &value});
}
static void unknown_type(icae_gguf_writer *w) {
    put_odd(w, "odd", 13, 13, 1, 0);
}
static void unknown_element(icae_gguf_writer *w) {
    put_odd(w, "odd", ICAE_GGUF_ARRAY, 13, 1, 0);
}
static void two_scalars(icae_gguf_writer *w) {
    put_odd(w, "odd", ICAE_GGUF_U8, ICAE_GGUF_U8, 2, 0);
}
static void alignment_of_array(icae_gguf_writer *w) {
    put_odd(w, "general.alignment", ICAE_GGUF_ARRAY, ICAE_GGUF_U32, 1, 32);
}
static void alignment_of_fraction(icae_gguf_writer *w) {
    icae_gguf_put_f32(w, "general.alignment", 32);
}
static void alignment_of_twelve(icae_gguf_writer *w) {
    icae_gguf_put_u32(w, "general.alignment", 12);
}
static void all_after_a_mistake(icae_gguf_writer *w) { /* the first one is told */
    static const char *const none[] = {"x"};
    no_name(w);
    icae_gguf_put_strings(w, "strings", none, 1);
    tensor_twice(w);
    icae_gguf_write_data(w, small, 4);
}
static void no_dimensions(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "b", ICAE_DTYPE_F32, 0, NULL);
}
static void five_dimensions(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "b", ICAE_DTYPE_F32, 5, (const int64_t[]){1, 1, 1, 1, 1});
}
static void huge_bytes(icae_gguf_writer *w) {
    icae_gguf_put_tensor(w, "b", ICAE_DTYPE_F64, 1, (const int64_t[]){INT64_C(1) << 62});
}
static void huge_end(icae_gguf_writer *w) { /* only the padding behind it is too much */
    for (int i = 0; i < 7; i++)
        icae_gguf_put_tensor(
            w, &"1234567" [i], ICAE_DTYPE_F32, 1, (const int64_t[]) { INT64_C(1) << 59 });
    icae_gguf_put_tensor(w, "8", ICAE_DTYPE_F16, 1,
                         (const int64_t[]){(INT64_C(1) << 60) - 152});
    icae_gguf_put_tensor(w, "9", ICAE_DTYPE_F32, 1, (const int64_t[]){1});
}
static void late_key(icae_gguf_writer *w) {
    icae_gguf_write_data(w, small, 4);
    icae_gguf_put_u32(w, "late", 1);
}
static void missing_data(icae_gguf_writer *w) {
    icae_gguf_write_data(w, small, 4);
}
static void no_data(icae_gguf_writer *w) {
    (void)w;
}
static void too_much_at_once(icae_gguf_writer *w) {
    icae_gguf_write_data(w, small, sizeof small);
}
static void data_behind_the_end(icae_gguf_writer *w) {
    write_all(w);
    icae_gguf_write_data(w, small, 1);
}

START_TEST(leaves_no_file_when_something_is_wrong) {
    static const struct {
        void (*spoil)(icae_gguf_writer *);
        const char *expected;
    } cases[] = {
        {key_twice, "the key 'u32' is given twice"},
        {tensor_twice, "the tensor 'a' is given twice"},
        {empty_name, "has no name"},
        {broken_rows, "whole blocks of 32 values as Q8_0"},
        {no_values, "dimensions of at least 1"},
        {huge_shape, "dimensions of at least 1"},
        {huge_sum, "tensor 'd'"},
        {late_alignment, "after the first tensor"},
        {no_name, "a key has no name"},
        {long_name, "a key has no name, or one over 65535 bytes"},
        {unknown_type, "key 'odd': expected a number"},
        {unknown_element, "key 'odd': expected a number"},
        {two_scalars, "key 'odd': expected a number"},
        {alignment_of_array, "general.alignment: expected a power of two"},
        {alignment_of_fraction, "general.alignment: expected a power of two"},
        {alignment_of_twelve, "general.alignment: expected a power of two"},
        {all_after_a_mistake, "a key has no name"},
        {no_dimensions, "tensor 'b': expected 1 to 4 dimensions"},
        {five_dimensions, "tensor 'b': expected 1 to 4 dimensions"},
        {huge_bytes, "tensor 'b': expected"},
        {huge_end, "tensor '9'"},
        {nested_array, "key 'deep': expected a number, a string or an array"},
        {late_key, "key 'late' comes after the first data"},
        {missing_data, "tensor 'z' has got 4 of its 20 bytes"},
        {no_data, "tensor 'z' has got 0 of its 20 bytes"},
        {too_much_at_once, "more data than the tensors take"},
        {data_behind_the_end, "more data than the tensors take"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_error error = {0};
        const char *folder = test_folder("gguf-wrong");
        const char *path = test_path(folder, "x.gguf");
        icae_gguf_writer writer;
        put_all(&writer, path);
        cases[i].spoil(&writer);
        ck_assert_int_eq(icae_gguf_commit(&writer, &error), ICAE_INVALID);
        ck_assert_msg(strstr(error.message, cases[i].expected), "%s", error.message);
        char **names;
        size_t count;
        ck_ok(icae_folder_list(folder, &names, &count, &error));
        ck_assert_uint_eq(count, 0);
        icae_names_free(names, count);
    }
}
END_TEST

START_TEST(abort_leaves_the_old_file) {
    icae_error error = {0};
    const char *path = test_path(test_folder("gguf-abort"), "x.gguf");
    ck_ok(icae_file_write(path, "old", 3, &error));
    icae_gguf_writer writer;
    put_all(&writer, path);
    icae_gguf_write_data(&writer, small, 4);
    icae_gguf_abort(&writer);
    ck_assert_int_eq(icae_file_bytes(path), 3);
}
END_TEST

SUITE_OF(gguf_write, 20, takes_many_keys_and_tensors, reads_back_everything_that_was_put,
         copies_a_file_to_the_byte, obeys_the_alignment_key, writes_a_file_without_tensors,
         leaves_no_file_when_something_is_wrong, abort_leaves_the_old_file)
