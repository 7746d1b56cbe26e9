/* SPDX-License-Identifier: MIT */
/* Safetensors: the golden files, written files read back, broken headers. */
#include <stdlib.h>
#include <string.h>

#include "icae/safetensors.h"
#include "icae/text.h"
#include "suites.h"

/* Stores length prefix + header + data_bytes of 0, 1, 2, ... */
static const char *stored(const char *folder, uint64_t length, const char *header,
                          size_t data_bytes) {
    icae_error error = {0};
    icae_text out = {0};
    for (int i = 0; i < 8; i++)
        icae_text_append_char(&out, (char)(length >> (8 * i) & 255));
    icae_text_append_string(&out, header);
    for (size_t i = 0; i < data_bytes; i++)
        icae_text_append_char(&out, (char)i);
    const char *path = test_path(folder, "x.safetensors");
    ck_ok(icae_file_write(path, out.data, out.length, &error));
    icae_text_release(&out);
    return path;
}

START_TEST(reads_golden_files) {
    icae_error error = {0};
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, "tests/golden/llama/model/model.safetensors", &error));
    ck_assert_str_eq(icae_safetensors_metadata(&file, "format"), "pt");
    ck_assert_ptr_null(icae_safetensors_metadata(&file, "absent"));
    const icae_safetensors_entry *table =
        icae_safetensors_find(&file, "model.embed_tokens.weight");
    ck_assert_ptr_nonnull(table);
    ck_assert_int_eq(table->dtype, ICAE_DTYPE_BF16);
    ck_assert(table->rank == 2 && table->shape[0] == 512 && table->shape[1] == 64);
    ck_assert_uint_eq(table->bytes, 65536);
    ck_assert_ptr_null(icae_safetensors_find(&file, "model.embed_tokens.weigh"));
    for (size_t i = 0; i < file.n_entries; i++) {
        ck_assert_ptr_eq(icae_safetensors_find(&file, file.entries[i].name), &file.entries[i]);
        ck_assert(!i || strcmp(file.entries[i - 1].name, file.entries[i].name) < 0);
    }
    icae_safetensors_close(&file);

    ck_ok(icae_safetensors_open(&file, "tests/golden/llama/expected.safetensors", &error));
    const icae_safetensors_entry *slots = icae_safetensors_find(&file, "2.slots");
    ck_assert_ptr_nonnull(slots);
    ck_assert_int_eq(slots->dtype, ICAE_DTYPE_F32);
    ck_assert(slots->shape[0] == 24 && slots->shape[1] == 64);
    icae_safetensors_close(&file);
}
END_TEST

START_TEST(reads_what_it_wrote) {
    icae_error error = {0};
    const char *path = test_path(test_folder("safetensors-round"), "x.safetensors");
    static const float a[6] = {1, -2, 3.5f, 0, 1e-30f, 6};
    static const uint16_t b[3] = {0x3C00, 0xBC00, 0x7BFF};
    static const double c[1] = {3.141592653589793};
    const icae_safetensors_source sources[] = {
        {"z \"quoted\"\n\xC3\xA9", ICAE_DTYPE_F32, 2, {2, 3}, a},
        {"b", ICAE_DTYPE_F16, 1, {3}, b},
        {"scalar", ICAE_DTYPE_F64, 0, {0}, c},
        {"brain", ICAE_DTYPE_BF16, 4, {1, 1, 3, 1}, b},
        {"empty", ICAE_DTYPE_F32, 2, {0, 5}, NULL},
    };
    const char *const metadata[] = {"purpose", "a \\ \"test\"", "format", "pt"};
    ck_ok(icae_safetensors_write(path, sources, 5, metadata, 2, &error));

    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, path, &error));
    ck_assert_uint_eq(file.n_entries, 5);
    ck_assert_uint_eq(file.n_metadata, 2);
    ck_assert_str_eq(icae_safetensors_metadata(&file, "purpose"), "a \\ \"test\"");
    for (size_t i = 0; i < 5; i++) {
        const icae_safetensors_source *source = &sources[i];
        const icae_safetensors_entry *entry = icae_safetensors_find(&file, source->name);
        ck_assert_ptr_nonnull(entry);
        ck_assert_int_eq(entry->dtype, source->dtype);
        ck_assert_int_eq(entry->rank, source->rank);
        for (int axis = 0; axis < entry->rank; axis++)
            ck_assert_int_eq(entry->shape[axis], source->shape[axis]);
        if (entry->bytes) ck_assert_mem_eq(entry->data, source->data, entry->bytes);
    }
    ck_assert_uint_eq(icae_safetensors_find(&file, "scalar")->bytes, 8);
    ck_assert_uint_eq(icae_safetensors_find(&file, "empty")->bytes, 0);
    ck_assert_uint_eq(file.mapping.data[0] % 8, 0); /* so data starts at a multiple of 8 */
    icae_safetensors_close(&file);
}
END_TEST

/* Order of the arguments must not show in the file; nor may a golden file change by a copy. */
START_TEST(equal_content_gives_equal_bytes) {
    icae_error error = {0};
    const char *folder = test_folder("safetensors-equal");
    static const float x[2] = {1, 2}, y[1] = {3};
    const icae_safetensors_source there[] = {{"x", ICAE_DTYPE_F32, 1, {2}, x},
                                             {"y", ICAE_DTYPE_F32, 1, {1}, y}};
    const icae_safetensors_source back[] = {there[1], there[0]};
    const char *const pairs[] = {"k", "1", "l", "2"}, *const swapped[] = {"l", "2", "k", "1"};
    const char *one = test_path(folder, "one"), *two = test_path(folder, "two");
    ck_ok(icae_safetensors_write(one, there, 2, pairs, 2, &error));
    ck_ok(icae_safetensors_write(two, back, 2, swapped, 2, &error));
    icae_mapping a, b;
    ck_ok(icae_mapping_open(&a, one, &error));
    ck_ok(icae_mapping_open(&b, two, &error));
    ck_assert_uint_eq(a.bytes, b.bytes);
    ck_assert_mem_eq(a.data, b.data, a.bytes);
    icae_mapping_close(&a);
    icae_mapping_close(&b);
}
END_TEST

START_TEST(copies_a_golden_file_entry_by_entry) {
    icae_error error = {0};
    icae_safetensors file, copy;
    ck_ok(icae_safetensors_open(&file, "tests/golden/llama/expected.safetensors", &error));
    icae_safetensors_source *sources = calloc(file.n_entries, sizeof *sources);
    ck_assert_ptr_nonnull(sources);
    for (size_t i = 0; i < file.n_entries; i++) {
        const icae_safetensors_entry *e = &file.entries[i];
        sources[i] = (icae_safetensors_source){
            .name = e->name, .dtype = e->dtype, .rank = e->rank, .data = e->data};
        memcpy(sources[i].shape, e->shape, sizeof e->shape);
    }
    const char *path = test_path(test_folder("safetensors-copy"), "copy.safetensors");
    ck_ok(icae_safetensors_write(path, sources, file.n_entries, file.metadata, file.n_metadata,
                                 &error));
    ck_ok(icae_safetensors_open(&copy, path, &error));
    ck_assert_uint_eq(copy.n_entries, file.n_entries);
    for (size_t i = 0; i < file.n_entries; i++) {
        const icae_safetensors_entry *a = &file.entries[i], *b = &copy.entries[i];
        ck_assert_str_eq(a->name, b->name);
        ck_assert(a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes);
        ck_assert_mem_eq(a->shape, b->shape, sizeof a->shape);
        ck_assert_mem_eq(a->data, b->data, a->bytes);
    }
    free(sources);
    icae_safetensors_close(&file);
    icae_safetensors_close(&copy);
}
END_TEST

START_TEST(reads_padding_and_no_tensors) {
    icae_error error = {0};
    icae_safetensors file;
    const char *path = stored(test_folder("safetensors-none"), 8, "{}      ", 0);
    ck_ok(icae_safetensors_open(&file, path, &error));
    ck_assert_uint_eq(file.n_entries, 0);
    ck_assert_ptr_null(icae_safetensors_find(&file, "x"));
    icae_safetensors_close(&file);
}
END_TEST

/* Descriptions in any order, and tensors without values, which share their place with others. */
START_TEST(reads_tensors_in_any_order_and_empty_ones) {
    icae_error error = {0};
    icae_safetensors file;
#define TENSOR(name, shape, begin, end)                                                        \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end   \
    "]}"
    static const char header[] = "{" TENSOR("e", "[0]", 8, 8) "," TENSOR(
        "d", "[1]", 4, 8) "," TENSOR("c", "[0,3]", 4, 4) //
        "," TENSOR("b", "[0]", 0, 0) "," TENSOR("a", "[1]", 0, 4) "}";
    const char *path =
        stored(test_folder("safetensors-empty"), sizeof header - 1, header, 2 * sizeof(float));
    ck_ok(icae_safetensors_open(&file, path, &error));
    ck_assert_uint_eq(file.n_entries, 5);
    for (int i = 0; i < 5; i++) {
        const icae_safetensors_entry *entry =
            icae_safetensors_find(&file, (const char[]){(char)('a' + i), 0});
        ck_assert_ptr_eq(entry, &file.entries[i]);
        ck_assert_uint_eq(entry->bytes, i == 0 || i == 3 ? 4 : 0);
    }
    icae_safetensors_close(&file);
#undef TENSOR
}
END_TEST

#define F32(shape, begin, end)                                                                 \
    "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static const struct {
    const char *header;
    size_t data_bytes;
    const char *sentence;
    icae_status status;
} broken[] = {
    {"", 0, "header: expected '{'", ICAE_FORMAT},
    {" {}", 0, "header: expected '{'", ICAE_FORMAT},
    {"[]", 0, "header: expected '{'", ICAE_FORMAT},
    {"{\"a\":", 0, "header:1: expected a value", ICAE_FORMAT},
    {"{}x", 0, "header:1: expected nothing after the value, got 'x'", ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 0, 4) ",\"a\":" F32("[1]", 4, 8) "}", 8, "'a' stands twice",
     ICAE_FORMAT},
    {"{\"a\":5}", 0, "tensor 'a': expected an object", ICAE_FORMAT},
    {"{\"a\":{}}", 0, "tensor 'a': \"dtype\" is missing", ICAE_FORMAT},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "\"shape\" is missing",
     ICAE_FORMAT},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "\"data_offsets\" is missing",
     ICAE_FORMAT},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", 4,
     "expected only dtype, shape and data_offsets", ICAE_FORMAT},
    {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "\"dtype\": expected a string", ICAE_FORMAT},
    {"{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
     "tensor 'a': the type 'I64' is not supported", ICAE_UNSUPPORTED},
    {"{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "the type 'F8_E4M3' is not supported", ICAE_UNSUPPORTED},
    {"{\"a\":{\"dtype\":\"Q8_0\",\"shape\":[32],\"data_offsets\":[0,34]}}", 34,
     "the type 'Q8_0' is not supported", ICAE_UNSUPPORTED},
    {"{\"a\":" F32("4", 0, 4) "}", 4, "\"shape\": expected an array", ICAE_FORMAT},
    {"{\"a\":" F32("[1,1,1,1,1]", 0, 4) "}", 4, "has 5 dimensions", ICAE_UNSUPPORTED},
    {"{\"a\":" F32("[-1]", 0, 4) "}", 4, "\"shape\": expected whole numbers", ICAE_FORMAT},
    {"{\"a\":" F32("[0.5,2]", 0, 4) "}", 4, "\"shape\": expected whole numbers", ICAE_FORMAT},
    {"{\"a\":" F32("[\"1\"]", 0, 4) "}", 4, "\"shape\": expected whole numbers", ICAE_FORMAT},
    {"{\"a\":" F32("[1e300]", 0, 4) "}", 4, "\"shape\": expected whole numbers", ICAE_FORMAT},
    {"{\"a\":" F32("[9007199254740992,9007199254740992]", 0, 4) "}", 4,
     "product of the dimensions is too large", ICAE_FORMAT},
    {"{\"a\":" F32("[4503599627370496,1024]", 0, 4) "}", 4, "the tensor is too large",
     ICAE_FORMAT},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4,
     "expected two whole numbers", ICAE_FORMAT},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4,
     "expected two whole numbers", ICAE_FORMAT},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"a\":0,\"b\":4}}}", 4,
     "expected two whole numbers", ICAE_FORMAT},
    {"{\"a\":" F32("[1]", -4, 0) "}", 4, "expected two whole numbers", ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 4, 0) "}", 4, "begin 4 is after end 0", ICAE_FORMAT},
    {"{\"a\":" F32("[2]", 0, 8) "}", 4, "end 8 is past the end of the file (4 bytes",
     ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 9007199254740988, 9007199254740992) "}", 4,
     "past the end of the file", ICAE_FORMAT},
    {"{\"a\":" F32("[2]", 0, 4) "}", 4, "span 4 bytes, but shape and dtype need 8",
     ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 0, 8) "}", 8, "span 8 bytes, but shape and dtype need 4",
     ICAE_FORMAT},
    {"{\"a\":" F32("[2]", 0, 8) ",\"b\":" F32("[2]", 4, 12) "}", 12,
     "tensor 'b': overlaps with tensor 'a'", ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 0, 4) ",\"b\":" F32("[1]", 0, 4) "}", 4, "overlaps with",
     ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 0, 4) ",\"b\":" F32("[1]", 8, 12) "}", 12,
     "tensor 'b': begins at byte 8 of the data, leaving a hole from byte 4", ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 4, 8) "}", 8, "leaving a hole from byte 0", ICAE_FORMAT},
    {"{\"a\":" F32("[1]", 0, 4) "}", 7, "3 bytes after the last tensor", ICAE_FORMAT},
    {"{}", 1, "1 bytes after the last tensor", ICAE_FORMAT},
    {"{\"__metadata__\":[]}", 0, "__metadata__: expected an object", ICAE_FORMAT},
    {"{\"__metadata__\":{\"epoch\":3}}", 0, "__metadata__: 'epoch': expected a string",
     ICAE_FORMAT},
    {"{\"a\\n\":5}", 0, "tensor 'a?': expected an object", ICAE_FORMAT},
};

START_TEST(refuses_broken_headers_with_the_reason) {
    const char *folder = test_folder("safetensors-broken");
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        icae_error error = {0};
        const char *header = broken[i].header;
        const char *path = stored(folder, strlen(header), header, broken[i].data_bytes);
        icae_safetensors file;
        ck_refused(icae_safetensors_open(&file, path, &error), broken[i].sentence);
        ck_assert_msg(error.status == broken[i].status, "%s", error.message);
        ck_assert_msg(!strncmp(error.message, path, strlen(path)), "%s", error.message);
        ck_assert_ptr_null(file.mapping.data);
    }
}
END_TEST

START_TEST(refuses_false_header_lengths) {
    const char *folder = test_folder("safetensors-length");
    icae_error error = {0};
    icae_safetensors file;
    const char *path = test_path(folder, "short");
    ck_ok(icae_file_write(path, "1234567", 7, &error));
    ck_refused(icae_safetensors_open(&file, path, &error), "has 7 bytes, expected at least");
    ck_ok(icae_file_write(path, "", 0, &error));
    ck_refused(icae_safetensors_open(&file, path, &error), "has 0 bytes");
    ck_refused(icae_safetensors_open(&file, stored(folder, UINT64_MAX, "{}", 0), &error),
               "18446744073709551615 is over 100000000");
    ck_refused(icae_safetensors_open(&file, stored(folder, 100000001, "{}", 0), &error),
               "100000001 is over 100000000");
    ck_refused(icae_safetensors_open(&file, stored(folder, 3, "{}", 0), &error),
               "header length 3, but only 2 bytes follow");
    ck_refused(icae_safetensors_open(&file, "no/such", &error), "no/such: cannot open");
}
END_TEST

START_TEST(refuses_to_write_what_no_reader_takes) {
    static const float x[2] = {1, 2};
    static const struct {
        icae_safetensors_source source;
        const char *sentence;
    } rows[] = {
        {{"__metadata__", ICAE_DTYPE_F32, 1, {2}, x}, "cannot be the name"},
        {{"\xFF", ICAE_DTYPE_F32, 1, {2}, x}, "'?' cannot be the name"},
        {{"q", ICAE_DTYPE_Q8_0, 1, {32}, x}, "safetensors has no type Q8_0"},
        {{"q", ICAE_DTYPE_F32, 5, {2}, x}, "rank 5"},
        {{"q", ICAE_DTYPE_F32, -1, {2}, x}, "rank -1"},
        {{"q", ICAE_DTYPE_F32, 1, {-2}, x}, "a dimension is negative"},
        {{"q", ICAE_DTYPE_F32, 2, {-2, 3}, x}, "a dimension is negative"},
        {{"q", ICAE_DTYPE_F64, 1, {INT64_MAX}, x}, "too large"},
        {{"q", ICAE_DTYPE_F32, 2, {INT64_MAX, 4}, x}, "too large"},
        {{"twin", ICAE_DTYPE_F32, 1, {2}, x}, "two tensors have the name 'twin'"},
    };
    const char *path = test_path(test_folder("safetensors-refused"), "x.safetensors");
    icae_error error = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const icae_safetensors_source both[] = {{"twin", ICAE_DTYPE_F32, 1, {2}, x},
                                                rows[i].source};
        ck_refused(icae_safetensors_write(path, both, 2, NULL, 0, &error), rows[i].sentence);
        ck_assert(!icae_path_exists(path));
    }
    const icae_safetensors_source huge[] = {
        {"a", ICAE_DTYPE_F32, 1, {INT64_C(1) << 61}, x}, /* 2^63 bytes each */
        {"b", ICAE_DTYPE_F32, 1, {INT64_C(1) << 61}, x}};
    ck_refused(icae_safetensors_write(path, huge, 2, NULL, 0, &error),
               "the tensors are too large");
    const char *const pairs[] = {"k", "1", "k", "2"};
    ck_refused(icae_safetensors_write(path, NULL, 0, pairs, 2, &error), "'k' is given twice");
    ck_refused(icae_safetensors_write("no/such/folder/x", NULL, 0, NULL, 0, &error),
               "no/such/folder/x: cannot write");
}
END_TEST

/* What no reader of the format takes is not written: a header of more than 100 million bytes. */
START_TEST(refuses_to_write_a_header_past_the_limit) {
    enum { BYTES = 100000000 };
    icae_error error = {0};
    const char *path = test_path(test_folder("safetensors-header"), "x.safetensors");
    char *value = malloc(BYTES + 1);
    ck_assert_ptr_nonnull(value);
    memset(value, 'v', BYTES);
    value[BYTES] = 0;
    const char *const pairs[] = {"k", value};
    ck_refused(icae_safetensors_write(path, NULL, 0, pairs, 1, &error),
               "the header would have 100000032 bytes, over 100000000");
    ck_assert(!icae_path_exists(path));
    free(value);
}
END_TEST

SUITE_OF(safetensors, 30, reads_golden_files, reads_what_it_wrote,
         equal_content_gives_equal_bytes, copies_a_golden_file_entry_by_entry,
         reads_padding_and_no_tensors, reads_tensors_in_any_order_and_empty_ones,
         refuses_broken_headers_with_the_reason, refuses_false_header_lengths,
         refuses_to_write_what_no_reader_takes, refuses_to_write_a_header_past_the_limit)
