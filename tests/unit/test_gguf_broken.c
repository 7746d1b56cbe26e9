/* SPDX-License-Identifier: MIT */
/*
 * Broken GGUF files: each is refused with the sentence that names what is wrong, wherever it is cut off, and
 * whichever byte of it is another.
 */
#include <stdio.h>
#include <string.h>

#include "gguf_support.h"
#include "icae/gguf.h"
#include "suites.h"

/* ---- one thing wrong ---- */

static void nothing(icae_text *out) {
    (void)out;
}
static void bad_magic(icae_text *out) {
    icae_text_append(out, "GGML", 4);
    put_u32(out, 3);
}
static void only_magic(icae_text *out) {
    icae_text_append(out, "GGUF", 4);
}
static void version_0(icae_text *out) {
    put_header(out, 0, 0, 0);
}
static void version_1(icae_text *out) {
    put_header(out, 1, 0, 0);
}
static void version_4(icae_text *out) {
    put_header(out, 4, 0, 0);
}
static void big_endian(icae_text *out) {
    put_header(out, 0x03000000, 0, 0);
}
static void many_tensors(icae_text *out) {
    put_header(out, 3, UINT64_C(1) << 40, 0);
}
static void all_tensors(icae_text *out) {
    put_header(out, 3, UINT64_MAX, 0);
}
static void many_items(icae_text *out) {
    put_header(out, 3, 0, 1000);
    put_item_u32(out, "k", 1);
}
static void key_past_end(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_u64(out, UINT64_MAX);
    icae_text_append_string(out, "0123456789");
}
static void empty_key(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_item_u32(out, "", 1);
}
static void long_key(icae_text *out) {
    static char key[65537];
    memset(key, 'k', 65536);
    put_header(out, 3, 0, 1);
    put_item_u32(out, key, 1);
}
static void key_with_zero(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_u64(out, 3);
    icae_text_append(out, "a\0b", 3);
    put_u32(out, ICAE_GGUF_U32);
    put_u32(out, 0);
}
static void unknown_value_type(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_string(out, "k");
    put_u32(out, 13);
    put_u64(out, 0);
}
static void value_cut_off(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_string(out, "k");
    put_u32(out, ICAE_GGUF_U64);
    put_u32(out, 0);
}
static void string_past_end(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_string(out, "k");
    put_u32(out, ICAE_GGUF_STRING);
    put_u64(out, 9);
    icae_text_append_string(out, "12345678");
}
static void bool_of_2(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_string(out, "k");
    put_u32(out, ICAE_GGUF_BOOL);
    icae_text_append_char(out, 2);
}
static void array_of(icae_text *out, uint32_t type, uint64_t count) {
    put_header(out, 3, 0, 1);
    put_string(out, "k");
    put_u32(out, ICAE_GGUF_ARRAY);
    put_u32(out, type);
    put_u64(out, count);
    icae_text_append(out, "0123456789abcdef", 16);
}
static void array_of_arrays(icae_text *out) {
    array_of(out, ICAE_GGUF_ARRAY, 1);
}
static void array_of_unknown(icae_text *out) {
    array_of(out, 99, 1);
}
static void array_too_long(icae_text *out) {
    array_of(out, ICAE_GGUF_U64, 3);
}
static void array_overflow(icae_text *out) {
    array_of(out, ICAE_GGUF_U64, UINT64_C(1) << 61);
}
static void strings_too_many(icae_text *out) {
    array_of(out, ICAE_GGUF_STRING, 3);
}
static void string_in_array_past_end(icae_text *out) {
    array_of(out, ICAE_GGUF_STRING, 2);
}
static void key_twice(icae_text *out) {
    put_header(out, 3, 0, 3);
    put_item_u32(out, "same", 1);
    put_item_u32(out, "other", 1);
    put_item_u32(out, "same", 1);
}
static void with_alignment(icae_text *out, uint32_t alignment) {
    put_header(out, 3, 0, 1);
    put_item_u32(out, "general.alignment", alignment);
}
static void alignment_0(icae_text *out) {
    with_alignment(out, 0);
}
static void alignment_24(icae_text *out) {
    with_alignment(out, 24);
}
static void alignment_4(icae_text *out) {
    with_alignment(out, 4);
}
static void alignment_2_pow_21(icae_text *out) {
    with_alignment(out, 1u << 21);
}
static void alignment_string(icae_text *out) {
    put_header(out, 3, 0, 1);
    put_string(out, "general.alignment");
    put_u32(out, ICAE_GGUF_STRING);
    put_string(out, "32");
}
/* A file of one tensor with 128 bytes of data. */
static void tensor(icae_text *out, uint32_t rank, const uint64_t *dims, uint32_t type,
                   uint64_t offset) {
    put_header(out, 3, 1, 0);
    put_tensor(out, "t", rank, dims, type, offset);
    put_padding(out, 32);
    for (int i = 0; i < 128; i++)
        icae_text_append_char(out, 0);
}
static void rank_0(icae_text *out) {
    tensor(out, 0, NULL, 0, 0);
}
static void rank_5(icae_text *out) {
    tensor(out, 5, (const uint64_t[]){1, 1, 1, 1, 1}, 0, 0);
}
static void dimension_0(icae_text *out) {
    tensor(out, 2, (const uint64_t[]){4, 0}, 0, 0);
}
static void dimension_negative(icae_text *out) {
    tensor(out, 1, (const uint64_t[]){UINT64_MAX}, 0, 0);
}
static void product_overflow(icae_text *out) {
    tensor(out, 2, (const uint64_t[]){UINT64_C(1) << 32, UINT64_C(1) << 32}, 0, 0);
}
static void bytes_overflow(icae_text *out) {
    tensor(out, 1, (const uint64_t[]){UINT64_C(1) << 62}, 28, 0);
}
static void type_q8_1(icae_text *out) {
    tensor(out, 1, (const uint64_t[]){256}, 9, 0);
}
static void row_of_half_blocks(icae_text *out) {
    tensor(out, 2, (const uint64_t[]){16, 2}, 8, 0);
}
static void offset_unaligned(icae_text *out) {
    tensor(out, 1, (const uint64_t[]){4}, 0, 16);
}
static void offset_past_end(icae_text *out) {
    tensor(out, 1, (const uint64_t[]){4}, 0, UINT64_MAX - 31);
}
static void data_past_end(icae_text *out) {
    tensor(out, 1, (const uint64_t[]){33}, 0, 0);
}
static void tensor_cut_off(icae_text *out) {
    put_header(out, 3, 1, 0);
    put_string(out, "a tensor with a long name");
    put_u32(out, 2);
}
static void empty_tensor_name(icae_text *out) {
    put_header(out, 3, 1, 0);
    put_tensor(out, "", 1, (const uint64_t[]){4}, 0, 0);
    put_padding(out, 64);
}
static void two_tensors(icae_text *out, const char *a, const char *b, uint64_t offset) {
    put_header(out, 3, 2, 0);
    put_tensor(out, a, 1, (const uint64_t[]){16}, 0, 0);
    put_tensor(out, b, 1, (const uint64_t[]){16}, 0, offset);
    put_padding(out, 32);
    for (int i = 0; i < 128; i++)
        icae_text_append_char(out, 0);
}
static void tensor_twice(icae_text *out) {
    two_tensors(out, "same", "same", 64);
}
static void overlap(icae_text *out) {
    two_tensors(out, "a", "b", 32);
}
static void names_with_newlines(icae_text *out) {
    two_tensors(out, "a\n\x1B[2J", "b", 32);
}

static const struct {
    void (*build)(icae_text *);
    const char *sentence;
    icae_status status;
} broken[] = {
    {nothing, "expected 4 more bytes, but the file ends after 0", ICAE_FORMAT},
    {bad_magic, "byte 0, header: expected \"GGUF\"", ICAE_FORMAT},
    {only_magic, "byte 4, header: expected 4 more bytes", ICAE_FORMAT},
    {version_0, "version 0; expected 2 or 3", ICAE_UNSUPPORTED},
    {version_1, "version 1; expected 2 or 3", ICAE_UNSUPPORTED},
    {version_4, "version 4; expected 2 or 3", ICAE_UNSUPPORTED},
    {big_endian, "big-endian", ICAE_UNSUPPORTED},
    {many_tensors, "1099511627776 tensors do not fit", ICAE_FORMAT},
    {all_tensors, "18446744073709551615 tensors do not fit", ICAE_FORMAT},
    {many_items, "1000 keys do not fit", ICAE_FORMAT},
    {key_past_end, "key number 1: expected 18446744073709551615 more bytes", ICAE_FORMAT},
    {empty_key, "key number 1: the name is empty", ICAE_FORMAT},
    {long_key, "longer than 65535", ICAE_FORMAT},
    {key_with_zero, "holds a 0 byte", ICAE_FORMAT},
    {unknown_value_type, "key 'k': unknown value type 13", ICAE_FORMAT},
    {value_cut_off, "key 'k': expected 8 more bytes, but the file ends after 4", ICAE_FORMAT},
    {string_past_end, "key 'k': expected 9 more bytes, but the file ends after 8", ICAE_FORMAT},
    {bool_of_2, "neither 0 nor 1", ICAE_FORMAT},
    {array_of_arrays, "array of arrays", ICAE_UNSUPPORTED},
    {array_of_unknown, "unknown value type 99", ICAE_FORMAT},
    {array_too_long, "3 elements do not fit into the 16 bytes", ICAE_FORMAT},
    {array_overflow, "2305843009213693952 elements do not fit", ICAE_FORMAT},
    {strings_too_many, "3 elements do not fit", ICAE_FORMAT},
    {string_in_array_past_end, "more bytes, but the file ends", ICAE_FORMAT},
    {key_twice, "the key 'same' stands twice", ICAE_FORMAT},
    {alignment_0, "general.alignment: expected a power of two", ICAE_FORMAT},
    {alignment_24, "general.alignment: expected a power of two", ICAE_FORMAT},
    {alignment_4, "general.alignment: expected a power of two", ICAE_FORMAT},
    {alignment_2_pow_21, "general.alignment: expected a power of two", ICAE_FORMAT},
    {alignment_string, "general.alignment: expected a power of two", ICAE_FORMAT},
    {rank_0, "tensor 't': 0 dimensions", ICAE_FORMAT},
    {rank_5, "tensor 't': 5 dimensions", ICAE_FORMAT},
    {dimension_0, "tensor 't': a dimension is 0", ICAE_FORMAT},
    {dimension_negative, "product of the dimensions is too large", ICAE_FORMAT},
    {product_overflow, "product of the dimensions is too large", ICAE_FORMAT},
    {bytes_overflow, "the tensor is too large", ICAE_FORMAT},
    {type_q8_1, "tensor 't': ggml type 9 is not supported; requantise to F32",
     ICAE_UNSUPPORTED},
    {row_of_half_blocks, "rows of 16 values are not whole blocks of 32 as Q8_0", ICAE_FORMAT},
    {offset_unaligned, "offset 16 is not a multiple of 32", ICAE_FORMAT},
    {offset_past_end, "past the end of the file", ICAE_FORMAT},
    {data_past_end, "132 bytes at offset 0 reach past the end", ICAE_FORMAT},
    {tensor_cut_off, "tensor 'a tensor with a long name': expected 4 more", ICAE_FORMAT},
    {empty_tensor_name, "tensor number 1: the name is empty", ICAE_FORMAT},
    {tensor_twice, "the tensor 'same' stands twice", ICAE_FORMAT},
    {overlap, "the tensors 'a' and 'b' overlap", ICAE_FORMAT},
    {names_with_newlines, "the tensors 'a??[2J' and 'b' overlap", ICAE_FORMAT},
};

START_TEST(refuses_broken_files_with_the_reason) {
    const char *folder = test_folder("gguf-broken");
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        icae_error error = {0};
        icae_text bytes = {0};
        icae_text_append(&bytes, "", 0);
        broken[i].build(&bytes);
        const char *path = stored_gguf(folder, &bytes);
        icae_gguf file;
        ck_refused(icae_gguf_open(&file, path, &error), broken[i].sentence);
        ck_assert_msg(error.status == broken[i].status, "%s", error.message);
        ck_assert_msg(!strncmp(error.message, path, strlen(path)), "%s", error.message);
        ck_assert_ptr_null(file.mapping.data); /* nothing is left open */
    }
}
END_TEST

/* ---- a good file, cut off or changed ---- */

/* Without icae_file_write's flush to the disk, which would take most of the time of a long loop. */
static void store_quickly(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

/* Wherever a good file is cut, it is refused. */
START_TEST(refuses_every_truncation) {
    const char *folder = test_folder("gguf-cut");
    icae_text bytes = good_gguf(3);
    for (size_t length = 0; length < bytes.length; length++) {
        icae_error error = {0};
        const char *path = test_path(folder, "x.gguf");
        store_quickly(path, bytes.data, length);
        icae_gguf file;
        ck_refused(icae_gguf_open(&file, path, &error), "x.gguf: ");
    }
    icae_text_release(&bytes);
}
END_TEST

/* Any byte of the description may become any of a few others: open refuses or reads, no more. */
START_TEST(survives_changed_bytes) {
    const char *folder = test_folder("gguf-changed");
    static const unsigned char values[] = {0x00, 0x01, 0x7F, 0xFF};
    icae_text bytes = good_gguf(3);
    int n_refused = 0;
    for (size_t at = 0; at + 268 < bytes.length; at += 3) {
        for (size_t v = 0; v < sizeof values; v++) {
            icae_error error = {0};
            const char *path = test_path(folder, "x.gguf");
            char was = bytes.data[at];
            bytes.data[at] = (char)values[v];
            store_quickly(path, bytes.data, bytes.length);
            bytes.data[at] = was;
            icae_gguf file;
            if (icae_gguf_open(&file, path, &error)) {
                ck_assert_str_ne(error.message, "");
                n_refused++;
                continue;
            }
            for (size_t i = 0; i < file.n_tensors; i++) {
                const icae_gguf_tensor *t = &file.tensors[i];
                const unsigned char *data = t->data;
                ck_assert(data >= file.mapping.data);
                ck_assert(data + t->bytes <= file.mapping.data + file.mapping.bytes);
                ck_assert_ptr_eq(icae_gguf_find(&file, t->name), t);
            }
            icae_gguf_close(&file);
        }
    }
    ck_assert_int_gt(n_refused, 100);
    icae_text_release(&bytes);
}
END_TEST

SUITE_OF(gguf_broken, 60, refuses_broken_files_with_the_reason, refuses_every_truncation,
         survives_changed_bytes)
