/* SPDX-License-Identifier: MIT */
/*
 * The zip archives that PyTorch's .pt files are: other ones, changed and cut ones with the sentence that each
 * must give, and the records of zip64.
 */
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/torch_file.h"
#include "suites.h"
#include "torch_support.h"

static icae_error error;

#define PLAIN "\200\2}."

START_TEST(refuses_other_archives) {
    static const struct {
        stored_entry more;
        const char *sentence;
        icae_status status;
    } rows[] = {
        {{"any/byteorder", "MIDDLE", 6}, "byte order is 'MIDDLE'", ICAE_UNSUPPORTED},
        {{"any/byteorder", "big", 3}, "byte order is 'big', expected little", ICAE_UNSUPPORTED},
        {{"two/data.pkl", "x", 1}, "has two data.pkl", ICAE_FORMAT},
        {{"any/data/0", "x", 1}, "zip entry 'any/data/0': stands there twice", ICAE_FORMAT},
    };
    const char *folder = test_folder("torch-archives");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        refuses_torch(stored_torch(folder, PROGRAM(PLAIN), &rows[i].more), rows[i].sentence,
                      rows[i].status);
    }
    /* Entries that are not of the folder: before it, and its name cut off. */
    const stored_entry strangers[] = {{"aaa/x", "x", 1}, {"an", "x", 1}};
    for (size_t i = 0; i < 2; i++) {
        icae_torch_file with;
        ck_ok(icae_torch_file_open(&with, stored_torch(folder, PROGRAM(PLAIN), &strangers[i]),
                                   &error));
        icae_torch_file_close(&with);
    }
    const stored_entry little = {"any/byteorder", "little", 6};
    icae_torch_file file;
    ck_ok(icae_torch_file_open(&file, stored_torch(folder, PROGRAM(PLAIN), &little), &error));
    ck_assert_uint_eq(file.n_entries, 0);
    ck_assert_ptr_null(icae_torch_file_find(&file, "a"));
    icae_torch_file_close(&file);
    const stored_entry none = {"any/other", "x", 1};
    icae_text out = {0};
    stored_zip(&out, &none, 1);
    const char *path = test_path(folder, "other");
    ck_ok(icae_file_write(path, out.data, out.length, &error));
    refuses_torch(path, "is a zip archive without data.pkl", ICAE_FORMAT);
    icae_text_release(&out);
    static const char legacy[] =
        "\200\2\212\12l\374\234F\371 j\250P\31.\200\2M\351\3.\200\2}q\1(U\20protocol_version";
    ck_ok(icae_file_write(path, legacy, sizeof legacy - 1, &error));
    refuses_torch(path, "format from before 1.6; rewrite it", ICAE_UNSUPPORTED);
    ck_assert(icae_torch_file_begins((const unsigned char *)legacy, sizeof legacy - 1));
    ck_assert(!icae_torch_file_begins((const unsigned char *)legacy, 13));
    ck_ok(icae_file_write(path, "", 0, &error));
    refuses_torch(path, "does not begin as a zip archive", ICAE_FORMAT);
    icae_torch_file gone;
    ck_refused(icae_torch_file_open(&gone, "no/such", &error), "no/such: cannot open");
}
END_TEST

/* ---- changed bytes of an archive that is whole ---- */

/* The archive: local header 0 (30 + 12 bytes, then 4 of pickle), local header 1 at 46 (30 + 10, then 24),
 * directory at 110: 46 + 12, 46 + 10; end record at 224, 22 bytes. */
START_TEST(refuses_changed_archives) {
    enum { FIRST = 0, SECOND = 46, DIRECTORY = 110, SECOND_OF_DIRECTORY = 168, END = 224 };
    static const struct {
        size_t place;
        const char *bytes;
        size_t n;
        const char *sentence;
        icae_status status;
    } changes[] = {
        {DIRECTORY + 10, "\10\0", 2, "'any/data.pkl': is compressed", ICAE_UNSUPPORTED},
        {FIRST + 8, "\10\0", 2, "its own header says that it is compressed", ICAE_FORMAT},
        {DIRECTORY + 8, "\1\0", 2, "is encrypted", ICAE_UNSUPPORTED},
        {DIRECTORY + 20, "\5\0", 2, "has two sizes that differ", ICAE_FORMAT},
        {DIRECTORY + 34, "\1\0", 2, "is on another disk", ICAE_UNSUPPORTED},
        {DIRECTORY + 42, "\1\0", 2, "own header is not where the directory says", ICAE_FORMAT},
        {DIRECTORY + 42, "\0\0\0\177", 4, "lies outside the file", ICAE_FORMAT},
        {DIRECTORY + 20, "\0\0\0\177\0\0\0\177", 8, "lies outside the file", ICAE_FORMAT},
        {DIRECTORY + 20, "\50\0\0\0\50\0\0\0", 8, "'any/data/0': overlaps", ICAE_FORMAT},
        {DIRECTORY + 24, "\377\377\377\377", 4, "its zip64 field is damaged", ICAE_FORMAT},
        {DIRECTORY + 28, "\377\377", 2, "the zip directory is cut off", ICAE_FORMAT},
        {DIRECTORY, "QK", 2, "the zip directory is damaged", ICAE_FORMAT},
        {FIRST + 30, "b", 1, "own header is not where the directory says", ICAE_FORMAT},
        {FIRST + 28, "\377\377", 2, "lies outside the file", ICAE_FORMAT},
        {FIRST + 30 + 12 + 2, "]", 1, "'any/data.pkl': its bytes do not give the checksum",
         ICAE_FORMAT},
        {DIRECTORY + 16, "x", 1, "do not give the checksum", ICAE_FORMAT},
        {END, "QK", 2, "has no zip directory at its end", ICAE_FORMAT},
        {END + 20, "\1\0", 2, "has no zip directory at its end", ICAE_FORMAT},
        {END + 10, "\377\377", 2, "claims 65535 entries, but has 114 bytes", ICAE_FORMAT},
        {END + 10, "\1\0", 2, "more than the entries it counts", ICAE_FORMAT},
        {END + 12, "\377\377\377\377", 4, "zip directory lies outside the file", ICAE_FORMAT},
        {END + 16, "\377\377\377\377", 4, "zip directory lies outside the file", ICAE_FORMAT},
        {FIRST, "QK", 2, "does not begin as a zip archive", ICAE_FORMAT},
    };
    const char *folder = test_folder("torch-changed"), *path = test_path(folder, "y.pt");
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(stored_torch(folder, PROGRAM(PLAIN), NULL), 1 << 20, &data, &bytes,
                         &error));
    ck_assert_uint_eq(bytes, END + 22);
    ck_assert(!memcmp(data + SECOND, "PK\3\4", 4) && !memcmp(data + DIRECTORY, "PK\1\2", 4));
    ck_assert(!memcmp(data + SECOND_OF_DIRECTORY, "PK\1\2", 4));
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char *copy = malloc(bytes);
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data, bytes);
        memcpy(copy + changes[i].place, changes[i].bytes, changes[i].n);
        ck_ok(icae_file_write(path, copy, bytes, &error));
        refuses_torch(path, changes[i].sentence, changes[i].status);
        free(copy);
    }
    free(data);
}
END_TEST

/* A file that was cut off anywhere is noticed, one of torch.save (with zip64 records) too. */
START_TEST(refuses_every_truncation) {
    const char *path = test_path(test_folder("torch-short"), "x.pt");
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(TORCH_GOLDEN, 1 << 20, &data, &bytes, &error));
    for (size_t n = 0; n < bytes; n += n + 64 < bytes && n > 64 ? 61 : 1) {
        icae_torch_file file;
        ck_ok(icae_file_write(path, data, n, &error));
        ck_assert_msg(icae_torch_file_open(&file, path, &error) != ICAE_OK, "%zu bytes", n);
    }
    free(data);
}
END_TEST

/* The records of zip64 in a file of torch.save: one changed number is noticed. */
START_TEST(refuses_changed_zip64_records) {
    static const struct {
        size_t behind; /* the zip64 end record begins 98 bytes before the end: 56 + 20 + 22 */
        const char *bytes, *sentence;
    } changes[] = {
        {32, "\1", "its two zip end records contradict each other"},
        {48, "\1", "its two zip end records contradict each other"},
        {0, "Q", "the zip64 end record is not where its locator says"},
        {16, "\1", "is one of several zip disks"},
        {20, "\1", "is one of several zip disks"},
        {56 + 9, "\377", "the zip64 end record is not where its locator says"},
        {56 + 8, "\1", "the zip64 end record is not where its locator says"},
    };
    const char *path = test_path(test_folder("torch-zip64"), "x.pt");
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char *data;
        size_t bytes;
        icae_torch_file file;
        ck_ok(icae_file_read(TORCH_GOLDEN, 1 << 20, &data, &bytes, &error));
        ck_assert(!memcmp(data + bytes - 98, "PK\6\6", 4));
        data[bytes - 98 + changes[i].behind] = changes[i].bytes[0];
        ck_ok(icae_file_write(path, data, bytes, &error));
        ck_refused(icae_torch_file_open(&file, path, &error), changes[i].sentence);
        free(data);
    }
}
END_TEST

/* The record would reach into its locator. */
START_TEST(refuses_a_zip64_record_that_is_cut) {
    const char *path = test_path(test_folder("torch-zip64-cut"), "x.pt");
    char *data;
    size_t bytes;
    icae_torch_file file;
    ck_ok(icae_file_read(TORCH_GOLDEN, 1 << 20, &data, &bytes, &error));
    data[bytes - 98 + 56 + 8] = (char)(data[bytes - 98 + 56 + 8] + 8);
    ck_ok(icae_file_write(path, data, bytes, &error));
    ck_refused(icae_torch_file_open(&file, path, &error),
               "the zip64 end record is not where its locator says");
    free(data);
}
END_TEST

/* The 32-bit record may leave everything to that of zip64. */
START_TEST(takes_the_directory_from_zip64_records_alone) {
    const char *path = test_path(test_folder("torch-zip64-alone"), "x.pt");
    char *data;
    size_t bytes;
    icae_torch_file file;
    ck_ok(icae_file_read(TORCH_GOLDEN, 1 << 20, &data, &bytes, &error));
    memset(data + bytes - 22 + 10, 0xFF, 10); /* entries, size and place of the directory */
    ck_ok(icae_file_write(path, data, bytes, &error));
    ck_ok(icae_torch_file_open(&file, path, &error));
    ck_assert_uint_eq(file.n_entries, 32);
    icae_torch_file_close(&file);
    free(data);
}
END_TEST

/* The zip64 field of an entry: 64-bit values for those that are full, among fields of other programs. The
 * archive is the one above; its first entry has 4 bytes at place 0. */
START_TEST(reads_the_zip64_fields_of_entries) {
    enum { DIRECTORY = 110, NAME = 12, FIELD = DIRECTORY + 46 + NAME, END = 224 };
    static const char full[] = "\377\377\377\377\377\377\377\377";
#define FOUR "\4\0\0\0\0\0\0\0"
    static const struct {
        int full_sizes; /* bytes: 4, the stored size alone; 8, both */
        bool is_place_full;
        const char *field;
        size_t n;
        const char *sentence; /* NULL: accepted */
    } rows[] = {
        {8, false, "\1\0\20\0" FOUR FOUR, 20, NULL},
        {8, true, "\1\0\30\0" FOUR FOUR "\0\0\0\0\0\0\0\0", 28, NULL},
        {0, true, "ab\2\0xy\1\0\10\0\0\0\0\0\0\0\0\0", 18, NULL},
        {0, false, "ab\2\0xy", 6, NULL},
        {0, false, "abc", 3, NULL},
        {0, false, "ab\3\0xy", 6, "its zip64 field is damaged"},
        {8, false, "\1\0\10\0" FOUR, 12, "its zip64 field is damaged"},
        {4, false, "abc", 3, "its zip64 field is damaged"},
        {8, false, "ab\2\0xy", 6, "its zip64 field is damaged"},
        {0, true, "abc", 3, "its zip64 field is damaged"},
        {0, true, "\1\0\10\0\0\0\0\0\0\0\0\200", 12, "lies outside the file"},
    };
    const char *folder = test_folder("torch-zip64-fields"), *path = test_path(folder, "y.pt");
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(stored_torch(folder, PROGRAM(PLAIN), NULL), 1 << 20, &data, &bytes,
                         &error));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        icae_text out = {0};
        icae_text_append(&out, data, FIELD);
        icae_text_append(&out, rows[i].field, rows[i].n);
        icae_text_append(&out, data + FIELD, bytes - FIELD);
        memcpy(out.data + DIRECTORY + 20, full, (size_t)rows[i].full_sizes);
        if (rows[i].is_place_full) memcpy(out.data + DIRECTORY + 42, full, 4);
        out.data[DIRECTORY + 30] = (char)rows[i].n;
        out.data[END + rows[i].n + 12] = (char)(END - DIRECTORY + rows[i].n);
        ck_ok(icae_file_write(path, out.data, out.length, &error));
        icae_text_release(&out);
        if (rows[i].sentence) {
            refuses_torch(path, rows[i].sentence, ICAE_FORMAT);
            continue;
        }
        icae_torch_file file;
        ck_ok(icae_torch_file_open(&file, path, &error));
        icae_torch_file_close(&file);
    }
    free(data);
}
END_TEST

SUITE_OF(torch_archive, 60, refuses_other_archives, refuses_changed_archives,
         refuses_every_truncation, refuses_changed_zip64_records,
         refuses_a_zip64_record_that_is_cut, takes_the_directory_from_zip64_records_alone,
         reads_the_zip64_fields_of_entries)
