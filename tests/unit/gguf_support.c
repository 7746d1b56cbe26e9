/* SPDX-License-Identifier: MIT */
/* See gguf_support.h. */
#include <string.h>

#include "gguf_support.h"
#include "icae/file.h"
#include "icae/gguf.h"
#include "suites.h"

void put_u32(icae_text *out, uint32_t value) {
    for (int i = 0; i < 4; i++)
        icae_text_append_char(out, (char)(value >> (8 * i) & 255));
}

void put_u64(icae_text *out, uint64_t value) {
    put_u32(out, (uint32_t)value);
    put_u32(out, (uint32_t)(value >> 32));
}

void put_string(icae_text *out, const char *string) {
    put_u64(out, strlen(string));
    icae_text_append_string(out, string);
}

void put_header(icae_text *out, uint32_t version, uint64_t tensors, uint64_t items) {
    icae_text_append(out, "GGUF", 4);
    put_u32(out, version);
    put_u64(out, tensors);
    put_u64(out, items);
}

void put_item_u32(icae_text *out, const char *key, uint32_t value) {
    put_string(out, key);
    put_u32(out, ICAE_GGUF_U32);
    put_u32(out, value);
}

void put_tensor(icae_text *out, const char *name, uint32_t rank, const uint64_t *dims,
                uint32_t type, uint64_t offset) {
    put_string(out, name);
    put_u32(out, rank);
    for (uint32_t i = 0; i < rank; i++)
        put_u64(out, dims[i]);
    put_u32(out, type);
    put_u64(out, offset);
}

void put_padding(icae_text *out, size_t alignment) {
    while (out->length % alignment)
        icae_text_append_char(out, 0);
}

const char *stored_gguf(const char *folder, icae_text *bytes) {
    icae_error error = {0};
    const char *path = test_path(folder, "x.gguf");
    ck_assert(!bytes->failed);
    ck_ok(icae_file_write(path, bytes->data, bytes->length, &error));
    icae_text_release(bytes);
    return path;
}

icae_text good_gguf(uint32_t version) {
    icae_text out = {0};
    put_header(&out, version, 2, 16);
    static const struct {
        const char *key;
        uint32_t type;
        const char *bytes;
        size_t length;
    } plain[] = {
        {"u8", ICAE_GGUF_U8, "\xFE", 1},
        {"i8", ICAE_GGUF_I8, "\xFE", 1},
        {"u16", ICAE_GGUF_U16, "\x01\x80", 2},
        {"i16", ICAE_GGUF_I16, "\x01\x80", 2},
        {"u32", ICAE_GGUF_U32, "\x02\x00\x00\x80", 4},
        {"i32", ICAE_GGUF_I32, "\x02\x00\x00\x80", 4},
        {"f32", ICAE_GGUF_F32, "\x00\x00\xC0\x3F", 4},
        {"bool", ICAE_GGUF_BOOL, "\x01", 1},
        {"u64", ICAE_GGUF_U64, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8},
        {"i64", ICAE_GGUF_I64, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8},
        {"f64", ICAE_GGUF_F64, "\x00\x00\x00\x00\x00\x00\x04\xC0", 8},
    };
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        put_string(&out, plain[i].key);
        put_u32(&out, plain[i].type);
        icae_text_append(&out, plain[i].bytes, plain[i].length);
    }
    put_item_u32(&out, "general.alignment", 64);
    put_string(&out, "string");
    put_u32(&out, ICAE_GGUF_STRING);
    put_u64(&out, 5);
    icae_text_append(&out, "a\0\xFF\nz", 5);
    put_string(&out, "strings");
    put_u32(&out, ICAE_GGUF_ARRAY);
    put_u32(&out, ICAE_GGUF_STRING);
    put_u64(&out, 3);
    put_string(&out, "one");
    put_string(&out, "");
    put_string(&out, "three");
    put_string(&out, "numbers");
    put_u32(&out, ICAE_GGUF_ARRAY);
    put_u32(&out, ICAE_GGUF_I32);
    put_u64(&out, 2);
    put_u32(&out, 7);
    put_u32(&out, (uint32_t)-9);
    put_string(&out, "nothing");
    put_u32(&out, ICAE_GGUF_ARRAY);
    put_u32(&out, ICAE_GGUF_F32);
    put_u64(&out, 0);
    put_tensor(&out, "second", 2, (const uint64_t[]){64, 3}, 8, 64); /* Q8_0 [3,64] */
    put_tensor(&out, "first", 3, (const uint64_t[]){2, 3, 1}, 0, 0); /* F32 [1,3,2] */
    put_padding(&out, 64);
    for (int i = 0; i < 64 + 3 * 2 * 34; i++)
        icae_text_append_char(&out, (char)i);
    return out;
}
