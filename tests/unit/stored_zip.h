/* SPDX-License-Identifier: MIT */
/*
 * Makes a zip archive without compression around a pickle, as torch.save does: for tests and fuzzing. The
 * caller may change the bytes before they are read.
 */
#ifndef ICAE_TESTS_STORED_ZIP_H
#define ICAE_TESTS_STORED_ZIP_H

#include <string.h>
#include <zlib.h>

#include "icae/text.h"

typedef struct stored_entry {
    const char *name;
    const void *data;
    size_t bytes;
} stored_entry;

/* Little-endian, at most 8 bytes. */
static inline void stored_number(icae_text *out, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++)
        icae_text_append_char(out, (char)(number >> (8 * i) & 255));
}

/* Appends the archive to out, which is empty. */
static inline void stored_zip(icae_text *out, const stored_entry *entries, size_t n) {
    icae_text directory = {0};
    for (size_t i = 0; i < n; i++) {
        const stored_entry *e = &entries[i];
        uint64_t crc = crc32_z(0, (const unsigned char *)e->data, e->bytes), at = out->length;
        size_t name = strlen(e->name);
        icae_text_append(out, "PK\3\4\0\0\0\0\0\0\0\0\0\0", 14);
        icae_text_append(&directory, "PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0", 16);
        icae_text *const both[] = {out, &directory};
        for (int k = 0; k < 2; k++) {
            stored_number(both[k], crc, 4);
            stored_number(both[k], e->bytes, 4);
            stored_number(both[k], e->bytes, 4);
            stored_number(both[k], name, 2);
            icae_text_append(both[k], "\0\0\0\0\0\0\0\0\0\0\0", k ? 12 : 2);
        }
        stored_number(&directory, at, 4);
        icae_text_append_string(&directory, e->name);
        icae_text_append_string(out, e->name);
        icae_text_append(out, e->data, e->bytes);
    }
    size_t start = out->length;
    if (directory.length) icae_text_append(out, directory.data, directory.length);
    icae_text_append(out, "PK\5\6\0\0\0\0", 8);
    stored_number(out, n, 2);
    stored_number(out, n, 2);
    stored_number(out, directory.length, 4);
    stored_number(out, start, 4);
    stored_number(out, 0, 2);
    icae_text_release(&directory);
}

#endif
