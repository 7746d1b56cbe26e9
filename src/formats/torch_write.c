/* SPDX-License-Identifier: MIT */
/*
 * A tensor for torch.load; the contract stands in icae/torch_write.h. The archive:
 *
 *     for each member   local header (30 bytes, name, extra), bytes
 *     directory         central header (46 bytes, name) for each member
 *     end               22 bytes
 *
 * All times are the zip format's first, 1 January 1980, so equal tensors are equal bytes. The pickle is of
 * protocol 2 and calls torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict()),
 * where storage is the persistent id ("storage", torch.FloatStorage, "0", "cpu", count).
 */
#include <string.h>
#include <zlib.h>

#include "icae/file.h"
#include "icae/text.h"
#include "icae/torch_write.h"

enum { N_MEMBERS = 4, DATA_ALIGNMENT = 64, LOCAL_BYTES = 30, FIRST_DAY = 1 << 5 | 1 };

typedef struct member {
    const char *name;
    const void *data;
    size_t bytes;
    uint32_t crc, offset; /* offset of its local header */
} member;

static void put(icae_text *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        icae_text_append_char(out, (char)(value >> (8 * i) & 255));
}

/* ---- the pickle ---- */

static void put_word(icae_text *out, const char *word) {
    icae_text_append_char(out, 'X'); /* BINUNICODE */
    put(out, strlen(word), 4);
    icae_text_append_string(out, word);
}

static void put_integer(icae_text *out, int64_t value) {
    icae_text_append_char(out, 'J'); /* BININT */
    put(out, (uint64_t)value, 4);
}

static void put_global(icae_text *out, const char *module, const char *name) {
    icae_text_printf(out, "c%s\n%s\n", module, name); /* GLOBAL */
}

static void put_pair(icae_text *out, int64_t first, int64_t second) {
    put_integer(out, first);
    put_integer(out, second);
    icae_text_append_char(out, (char)0x86); /* TUPLE2 */
}

static void make_pickle(icae_text *out, const char *storage, int64_t rows, int64_t cols) {
    icae_text_append(out, "\x80\x02", 2); /* PROTO 2 */
    put_global(out, "torch._utils", "_rebuild_tensor_v2");
    icae_text_append_string(out, "(("); /* MARK: its arguments, MARK: the persistent id */
    put_word(out, "storage");
    put_global(out, "torch", storage);
    put_word(out, "0");
    put_word(out, "cpu");
    put_integer(out, rows * cols);
    icae_text_append_string(out, "tQ"); /* TUPLE, BINPERSID */
    put_integer(out, 0);
    put_pair(out, rows, cols);
    put_pair(out, cols, 1);
    icae_text_append_char(out, (char)0x89); /* NEWFALSE: no gradient */
    put_global(out, "collections", "OrderedDict");
    icae_text_append_string(out, ")RtR."); /* no hooks; TUPLE, REDUCE, STOP */
}

/* ---- the archive ---- */

/* What local and central headers share, from "version needed" on. */
static void put_common(icae_text *out, const member *m, size_t extra) {
    put(out, 20, 2); /* version needed: 2.0 */
    put(out, 0, 2);  /* flags */
    put(out, 0, 2);  /* stored */
    put(out, 0, 2);  /* time */
    put(out, FIRST_DAY, 2);
    put(out, m->crc, 4);
    put(out, m->bytes, 4);
    put(out, m->bytes, 4);
    put(out, strlen(m->name), 2);
    put(out, extra, 2);
}

/* The padding that brings the data to its alignment is an extra field, as PyTorch's own writer does it. */
static void put_local(icae_text *out, const member *m) {
    size_t start = (size_t)m->offset + LOCAL_BYTES + strlen(m->name) + 4;
    size_t padding = (DATA_ALIGNMENT - start % DATA_ALIGNMENT) % DATA_ALIGNMENT;
    put(out, 0x04034b50, 4);
    put_common(out, m, 4 + padding);
    icae_text_append_string(out, m->name);
    icae_text_append_string(out, "FB");
    put(out, padding, 2);
    for (size_t i = 0; i < padding; i++)
        icae_text_append_char(out, 'Z');
}

static void put_central(icae_text *out, const member *m) {
    put(out, 0x02014b50, 4);
    put(out, 20, 2); /* made by version 2.0 */
    put_common(out, m, 0);
    put(out, 0, 2); /* comment */
    put(out, 0, 2); /* disk */
    put(out, 0, 2); /* internal attributes */
    put(out, 0, 4); /* external attributes */
    put(out, m->offset, 4);
    icae_text_append_string(out, m->name);
}

static void put_end(icae_text *out, size_t directory, size_t directory_bytes) {
    put(out, 0x06054b50, 4);
    put(out, 0, 4); /* this disk, the directory's disk */
    put(out, N_MEMBERS, 2);
    put(out, N_MEMBERS, 2);
    put(out, directory_bytes, 4);
    put(out, directory, 4);
    put(out, 0, 2); /* comment */
}

static icae_status write_archive(const char *path, member *members, icae_error *error) {
    icae_writer writer;
    icae_text head = {0}, directory = {0};
    icae_status status = icae_writer_begin(&writer, path, error);
    if (status) return status;
    for (int i = 0; i < N_MEMBERS; i++) {
        member *m = &members[i];
        m->offset = (uint32_t)writer.bytes_written;
        m->crc = (uint32_t)crc32_z(0, m->data, m->bytes);
        icae_text_clear(&head);
        put_local(&head, m);
        icae_writer_write(&writer, head.data, head.length);
        icae_writer_write(&writer, m->data, m->bytes);
        put_central(&directory, m);
    }
    size_t start = (size_t)writer.bytes_written, length = directory.length;
    put_end(&directory, start, length);
    icae_writer_write(&writer, directory.data, directory.length);
    if (head.failed || directory.failed) {
        icae_writer_abort(&writer);
        status = icae_fail_memory(error, path);
    } else {
        status = icae_writer_commit(&writer, error);
    }
    icae_text_release(&head);
    icae_text_release(&directory);
    return status;
}

icae_status icae_torch_write(const char *path, icae_dtype dtype, int64_t rows, int64_t cols,
                             const void *data, icae_error *error) {
    const char *storage = dtype == ICAE_DTYPE_F32    ? "FloatStorage"
                          : dtype == ICAE_DTYPE_F16  ? "HalfStorage"
                          : dtype == ICAE_DTYPE_BF16 ? "BFloat16Storage"
                                                     : NULL;
    if (!storage) {
        return icae_fail(error, ICAE_INVALID, "%s: expected F32, F16 or BF16, not %s", path,
                         icae_dtype_describe(dtype)->name);
    }
    /* Sizes and places in a zip archive of this kind are 32 bits. */
    const int64_t most = (INT64_C(1) << 29) - 1;
    if (rows < 1 || cols < 1 || rows > most / cols) {
        return icae_fail(error, ICAE_INVALID,
                         "%s: a tensor of %lld x %lld numbers; expected 1 to %lld in all", path,
                         (long long)rows, (long long)cols, (long long)most);
    }
    icae_text pickle = {0};
    make_pickle(&pickle, storage, rows, cols);
    size_t bytes = (size_t)(rows * cols) * icae_dtype_describe(dtype)->block_bytes;
    member members[N_MEMBERS] = {
        {.name = "archive/data.pkl", .data = pickle.data, .bytes = pickle.length},
        {.name = "archive/byteorder", .data = "little", .bytes = 6},
        {.name = "archive/data/0", .data = data, .bytes = bytes},
        {.name = "archive/version", .data = "3\n", .bytes = 2},
    };
    icae_status status =
        pickle.failed ? icae_fail_memory(error, path) : write_archive(path, members, error);
    icae_text_release(&pickle);
    return status;
}
