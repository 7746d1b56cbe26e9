/* SPDX-License-Identifier: MIT */
/* Lines: plain and gzipped texts, places, limits, damaged streams. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "icae/file.h"
#include "icae/lines.h"
#include "icae/rng.h"
#include "icae/text.h"
#include "suites.h"

static void write_gzip(const char *path, const void *data, size_t bytes) {
    gzFile file = gzopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(gzwrite(file, data, (unsigned)bytes), (int)bytes);
    ck_assert_int_eq(gzclose(file), Z_OK);
}

/* The same text as a plain file and gzipped: paths of both. */
static void write_both(const char *folder, const void *data, size_t bytes,
                       const char *paths[2]) {
    icae_error error = {0};
    paths[0] = test_path(folder, "plain.txt");
    paths[1] = test_path(folder, "packed.txt.gz");
    ck_ok(icae_file_write(paths[0], data, bytes, &error));
    write_gzip(paths[1], data, bytes);
}

static void expect_line(icae_lines *lines, const char *expected, size_t bytes) {
    icae_error error = {0};
    const char *line;
    size_t length;
    ck_ok(icae_lines_next(lines, 1 << 20, &line, &length, &error));
    ck_assert_ptr_nonnull(line);
    ck_assert_uint_eq(length, bytes);
    ck_assert_int_eq(memcmp(line, expected, bytes + 1), 0); /* the final 0 too */
}

static void expect_end(icae_lines *lines) {
    icae_error error = {0};
    const char *line = "x";
    size_t length = 1;
    ck_ok(icae_lines_next(lines, 1 << 20, &line, &length, &error));
    ck_assert_ptr_null(line);
    ck_assert_uint_eq(length, 0);
}

START_TEST(splits_plain_and_gzipped_texts_alike) {
    icae_error error = {0};
    static const char text[] = "one\n\ntwo\r\n\r\nnul\0here\nlast \r";
    const char *paths[2];
    write_both(test_folder("lines-split"), text, sizeof text - 1, paths);
    for (int p = 0; p < 2; p++) {
        icae_lines *lines;
        ck_ok(icae_lines_open(&lines, paths[p], &error));
        ck_assert_int_eq(icae_lines_number(lines), 0);
        expect_line(lines, "one", 3);
        ck_assert_int_eq(icae_lines_number(lines), 1);
        ck_assert_uint_eq(icae_lines_offset(lines), 4);
        expect_line(lines, "", 0);
        expect_line(lines, "two", 3);
        ck_assert_uint_eq(icae_lines_offset(lines), 10);
        expect_line(lines, "", 0);
        expect_line(lines, "nul\0here", 8);
        expect_line(lines, "last \r", 6);
        ck_assert_uint_eq(icae_lines_offset(lines), sizeof text - 1);
        expect_end(lines);
        expect_end(lines);
        ck_assert_int_eq(icae_lines_number(lines), 6);
        icae_lines_close(lines);
    }
}
END_TEST

/* Shards are often made with cat: the members follow each other as one text. */
START_TEST(reads_on_from_one_gzip_member_to_the_next) {
    icae_error error = {0};
    const char *path = test_path(test_folder("lines-members"), "two.gz");
    write_gzip(path, "one\ntw", 6);
    char *first;
    size_t bytes;
    ck_ok(icae_file_read(path, SIZE_MAX, &first, &bytes, &error));
    write_gzip(path, "o\nthree\n", 8);
    char *second;
    size_t more;
    ck_ok(icae_file_read(path, SIZE_MAX, &second, &more, &error));
    ck_ok(icae_file_write(path, first, bytes, &error));
    ck_ok(icae_file_append(path, second, more, &error));
    free(first);
    free(second);
    icae_lines *lines;
    ck_ok(icae_lines_open(&lines, path, &error));
    expect_line(lines, "one", 3);
    expect_line(lines, "two", 3);
    expect_line(lines, "three", 5);
    expect_end(lines);
    ck_ok(icae_lines_seek(lines, 4, 1, &error));
    expect_line(lines, "two", 3);
    icae_lines_close(lines);
}
END_TEST

START_TEST(reads_empty_files) {
    icae_error error = {0};
    const char *paths[2];
    write_both(test_folder("lines-empty"), "", 0, paths);
    for (int p = 0; p < 2; p++) {
        icae_lines *lines;
        ck_ok(icae_lines_open(&lines, paths[p], &error));
        expect_end(lines);
        ck_ok(icae_lines_seek(lines, 0, 0, &error));
        expect_end(lines);
        icae_lines_close(lines);
    }
}
END_TEST

/* A text of some 2 MB: lengths from 0 to 3000, one line longer than every buffer. */
static icae_text long_text(size_t *starts, int n_lines) {
    icae_text text = {0};
    icae_rng rng = {.seed = 5};
    for (int i = 0; i < n_lines; i++) {
        starts[i] = text.length;
        size_t length = i == n_lines / 2 ? 900000 : (size_t)icae_rng_below(&rng, 3000);
        for (size_t j = 0; j < length; j++)
            icae_text_append_char(&text, (char)('a' + icae_rng_below(&rng, 26)));
        icae_text_append(&text, "\n", 1);
    }
    starts[n_lines] = text.length;
    return text;
}

START_TEST(comes_back_to_every_place) {
    enum { N = 700 };
    icae_error error = {0};
    static size_t starts[N + 1];
    icae_text text = long_text(starts, N);
    const char *paths[2];
    write_both(test_folder("lines-seek"), text.data, text.length, paths);
    for (int p = 0; p < 2; p++) {
        icae_lines *lines;
        ck_ok(icae_lines_open(&lines, paths[p], &error));
        const char *line;
        size_t bytes;
        for (int i = 0; i < N; i++) {
            ck_assert_uint_eq(icae_lines_offset(lines), starts[i]);
            ck_ok(icae_lines_next(lines, 1 << 20, &line, &bytes, &error));
            ck_assert_ptr_nonnull(line);
            ck_assert_uint_eq(bytes, starts[i + 1] - starts[i] - 1);
            ck_assert_mem_eq(line, text.data + starts[i], bytes);
        }
        expect_end(lines);
        icae_rng rng = {.seed = 6};
        for (int n = 0; n < 40; n++) {
            int i = (int)icae_rng_below(&rng, N);
            ck_ok(icae_lines_seek(lines, starts[i], i, &error));
            ck_assert_int_eq(icae_lines_number(lines), i);
            ck_assert_uint_eq(icae_lines_offset(lines), starts[i]);
            ck_ok(icae_lines_next(lines, 1 << 20, &line, &bytes, &error));
            ck_assert_ptr_nonnull(line);
            ck_assert_int_eq(icae_lines_number(lines), i + 1);
            ck_assert_uint_eq(bytes, starts[i + 1] - starts[i] - 1);
            ck_assert_mem_eq(line, text.data + starts[i], bytes);
        }
        ck_ok(icae_lines_seek(lines, starts[N], N, &error));
        expect_end(lines);
        icae_lines_close(lines);

        ck_ok(icae_lines_open(&lines, paths[p], &error)); /* the first thing after open, too */
        ck_ok(icae_lines_seek(lines, starts[3], 3, &error));
        ck_ok(icae_lines_next(lines, 1 << 20, &line, &bytes, &error));
        ck_assert_ptr_nonnull(line);
        ck_assert_uint_eq(bytes, starts[4] - starts[3] - 1);
        ck_assert_mem_eq(line, text.data + starts[3], bytes);
        icae_lines_close(lines);
    }
    icae_text_release(&text);
}
END_TEST

START_TEST(refuses_places_that_begin_no_line) {
    icae_error error = {0};
    static const char text[] = "first\nsecond\nlast";
    const char *paths[2];
    write_both(test_folder("lines-places"), text, sizeof text - 1, paths);
    for (int p = 0; p < 2; p++) {
        icae_lines *lines;
        ck_ok(icae_lines_open(&lines, paths[p], &error));
        ck_refused(icae_lines_seek(lines, 8, 1, &error), "no line begins at byte 8");
        ck_refused(icae_lines_seek(lines, 18, 3, &error), "ends before byte 18");
        ck_refused(icae_lines_seek(lines, UINT64_C(1) << 40, 3, &error), "ends before byte");
        ck_refused(icae_lines_seek(lines, UINT64_MAX, 3, &error), paths[p]);
        ck_ok(icae_lines_seek(lines, 17, 3, &error)); /* behind the unfinished last line */
        expect_end(lines);
        ck_ok(icae_lines_seek(lines, 6, 1, &error)); /* as good as ever */
        expect_line(lines, "second", 6);
        icae_lines_close(lines);
    }
}
END_TEST

START_TEST(limits_the_length_of_lines) {
    icae_error error = {0};
    static const char text[] = "1234\n12345\r\n123456\n";
    const char *paths[2];
    write_both(test_folder("lines-limit"), text, sizeof text - 1, paths);
    for (int p = 0; p < 2; p++) {
        icae_lines *lines;
        const char *line;
        size_t bytes;
        ck_ok(icae_lines_open(&lines, paths[p], &error));
        ck_ok(icae_lines_next(lines, 5, &line, &bytes, &error));
        ck_ok(icae_lines_next(lines, 5, &line, &bytes, &error));
        ck_assert_str_eq(line, "12345");
        ck_refused(icae_lines_next(lines, 5, &line, &bytes, &error),
                   "line 3 is longer than 5 bytes");
        ck_assert_ptr_null(line);
        ck_assert_int_eq(error.status, ICAE_INVALID);
        ck_ok(icae_lines_next(lines, 6, &line, &bytes, &error)); /* nothing was lost */
        ck_assert_str_eq(line, "123456");
        icae_lines_close(lines);
    }
}
END_TEST

/* 64 MB of zeros in some 64 KB: the limit must stop it before the memory is spent. */
START_TEST(stops_at_the_limit_in_a_bomb) {
    icae_error error = {0};
    const char *path = test_path(test_folder("lines-bomb"), "bomb.gz");
    enum { CHUNK = 1 << 20 };
    char *zeros = calloc(1, CHUNK);
    ck_assert_ptr_nonnull(zeros);
    gzFile file = gzopen(path, "wb1");
    for (int i = 0; i < 64; i++)
        ck_assert_int_eq(gzwrite(file, zeros, CHUNK), CHUNK);
    ck_assert_int_eq(gzclose(file), Z_OK);
    free(zeros);
    icae_lines *lines;
    const char *line;
    size_t bytes;
    ck_ok(icae_lines_open(&lines, path, &error));
    ck_refused(icae_lines_next(lines, 1000, &line, &bytes, &error),
               "line 1 is longer than 1000 bytes");
    ck_assert_uint_eq(icae_lines_offset(lines), 0);
    icae_lines_close(lines);
}
END_TEST

/* Reads to the failure; the lines before it must be as in text, if given. Returns how many there
 * were. */
static int read_to_failure(const char *path, const char *text, icae_error *error) {
    icae_lines *lines;
    const char *line;
    size_t bytes;
    int n = 0;
    *error = (icae_error){0};
    ck_assert_int_eq(icae_lines_open(&lines, path, error), ICAE_OK);
    for (;;) {
        uint64_t at = icae_lines_offset(lines);
        if (icae_lines_next(lines, 1 << 20, &line, &bytes, error)) break;
        ck_assert_msg(line != NULL, "%s: the damage was not noticed", path);
        if (text) ck_assert_mem_eq(line, text + at, bytes);
        n++;
    }
    icae_error again = {0};
    ck_assert_int_ne(icae_lines_next(lines, 1 << 20, &line, &bytes, &again), ICAE_OK);
    icae_lines_close(lines);
    return n;
}

START_TEST(notices_damaged_gzip_streams) {
    enum { N = 700 };
    icae_error error = {0};
    static size_t starts[N + 1];
    icae_text text = long_text(starts, N);
    const char *folder = test_folder("lines-damaged"), *paths[2];
    write_both(folder, text.data, text.length, paths);
    char *packed;
    size_t bytes;
    ck_ok(icae_file_read(paths[1], SIZE_MAX, &packed, &bytes, &error));
    const char *path = test_path(folder, "damaged.gz");

    /* Cut: inside the header, the stream, and the check sum at its end. */
    const size_t cuts[] = {3, 9, 10, 11, bytes / 2, bytes - 9, bytes - 8, bytes - 4, bytes - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        ck_ok(icae_file_write(path, packed, cuts[i], &error));
        int n = read_to_failure(path, text.data, &error);
        ck_assert_msg(strstr(error.message, "is cut off after byte") != NULL, "cut at %zu: %s",
                      cuts[i], error.message);
        ck_assert_int_eq(error.status, ICAE_FORMAT);
        if (cuts[i] == bytes / 2) ck_assert_int_gt(n, N / 4);
        if (cuts[i] == bytes - 4) {
            char place[64];
            snprintf(place, sizeof place, "after byte %zu of its text", text.length);
            ck_assert_msg(strstr(error.message, place) != NULL, "%s", error.message);
        }
    }

    /* Changed: the check sum, the length, the stream itself (whose lines may differ then: that they
     * do is known only at its end), the method. */
    const size_t places[] = {bytes - 8, bytes - 1, bytes / 2, 2};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        packed[places[i]] = (char)(packed[places[i]] ^ 0x55);
        ck_ok(icae_file_write(path, packed, bytes, &error));
        packed[places[i]] = (char)(packed[places[i]] ^ 0x55);
        read_to_failure(path, NULL, &error);
        ck_assert_msg(strstr(error.message, "is damaged after byte") != NULL, "at %zu: %s",
                      places[i], error.message);
    }
    free(packed);
    icae_text_release(&text);
}
END_TEST

/* The byte before the place is still there, the one at it is not. */
START_TEST(notices_a_break_at_the_place_to_come_back_to) {
    icae_error error = {0};
    const char *path = test_path(test_folder("lines-break"), "cut.gz");
    char *packed;
    size_t bytes;
    write_gzip(path, "one\ntwo", 7);
    ck_ok(icae_file_read(path, SIZE_MAX, &packed, &bytes, &error));
    ck_ok(icae_file_write(path, packed, bytes - 1, &error));
    free(packed);
    icae_lines *lines;
    ck_ok(icae_lines_open(&lines, path, &error));
    ck_refused(icae_lines_seek(lines, 7, 2, &error), "is cut off after byte 7 of its text");
    ck_refused(icae_lines_seek(lines, 9, 2, &error), "the gzip stream is cut off");
    icae_lines_close(lines);
}
END_TEST

START_TEST(names_what_cannot_be_read) {
    icae_error error = {0};
    icae_lines *lines;
    ck_refused(icae_lines_open(&lines, "no/such.jsonl", &error), "no/such.jsonl: cannot open");
    ck_assert_ptr_null(lines);
    ck_assert_int_eq(error.status, ICAE_IO);
    const char *line, *folder = test_folder("lines-folder");
    size_t bytes;
    if (icae_lines_open(&lines, folder, &error) == ICAE_OK) {
        ck_refused(icae_lines_next(lines, 100, &line, &bytes, &error), "Is a directory");
        ck_refused(icae_lines_seek(lines, 4, 1, &error), "Is a directory");
        icae_lines_close(lines);
    }
    ck_assert_int_eq(error.status, ICAE_IO);
    icae_lines_close(NULL);
}
END_TEST

SUITE_OF(lines, 60, splits_plain_and_gzipped_texts_alike,
         reads_on_from_one_gzip_member_to_the_next, reads_empty_files,
         comes_back_to_every_place, refuses_places_that_begin_no_line,
         limits_the_length_of_lines, stops_at_the_limit_in_a_bomb, notices_damaged_gzip_streams,
         notices_a_break_at_the_place_to_come_back_to, names_what_cannot_be_read)
