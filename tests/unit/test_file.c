/* SPDX-License-Identifier: MIT */
/* Files as the system has them: read, mapped, written whole, appended to; folders; and what stands in the
 * place of a file and is none. That failing calls do no harm is shown by make faults. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../fuzz/tiny_adapter.h"
#include "icae/corpus.h"
#include "icae/file.h"
#include "icae/lines.h"
#include "icae/model.h"
#include "icae/released.h"
#include "icae/rng.h"
#include "icae/settings.h"
#include "icae/slots.h"
#include "suites.h"
#include "train_support.h"

static icae_error error;

/* ---- named pipes ---- */

/* Nobody ever writes into them: who opens one and waits is ended by the alarm, and the test has failed. */
static void make_pipe(const char *path) {
    alarm(20);
    ck_assert_msg(mkfifo(path, 0600) == 0, "%s: %s", path, strerror(errno));
}

static void replace_by_pipe(const char *path) {
    ck_assert_int_eq(unlink(path), 0);
    make_pipe(path);
}

static icae_status read_settings(const char *path) {
    icae_settings settings;
    icae_settings_init(&settings);
    icae_status status = icae_settings_read(&settings, path, &error);
    icae_settings_release(&settings);
    return status;
}

static icae_status read_corpus(const char *path) {
    const icae_corpus_options options = {.paths = &path, .n_paths = 1, .epochs = 1};
    icae_corpus *corpus;
    icae_document document;
    icae_status status = icae_corpus_open(&corpus, &options, &error);
    if (status) return status;
    status = icae_corpus_next(corpus, &document, &error);
    icae_corpus_close(corpus);
    return status;
}

START_TEST(a_pipe_in_the_place_of_a_file_is_refused_at_once) {
    const char *path = test_path(test_folder("file-pipe"), "pipe.jsonl");
    make_pipe(path);
    icae_mapping mapping;
    icae_model *model;
    icae_slots slots = {0};
    icae_lines *lines;
    icae_released_facts facts;
    uint64_t hash;
    size_t bytes;
    char *data;
    static const char sentence[] = "pipe.jsonl: is not a regular file";
    ck_refused(icae_mapping_open(&mapping, path, &error), sentence);
    ck_refused(icae_file_read(path, 100, &data, &bytes, &error), sentence);
    ck_assert_ptr_null(data);
    ck_refused(icae_hash_file(path, &hash, &bytes, &error), sentence);
    ck_refused(icae_model_open(&model, path, &error), sentence);
    ck_refused(icae_slots_load(&slots, path, NULL, NULL, &error), sentence);
    ck_refused(icae_released_describe(&facts, path, &error), sentence);
    ck_refused(icae_lines_open(&lines, path, &error), sentence);
    ck_refused(read_settings(path), sentence);
    ck_refused(read_corpus(path), sentence);
    ck_refused(icae_file_append(path, "x\n", 2, &error), "pipe.jsonl: cannot write");
    int reader = open(path, O_RDONLY | O_NONBLOCK); /* even where somebody listens */
    ck_assert_int_ge(reader, 0);
    ck_refused(icae_file_append(path, "x\n", 2, &error), sentence);
    close(reader);
    /* the rename needs no partner, and would make a file of it */
    ck_refused(icae_file_write(path, "whole", 5, &error), "it is not a regular file");
    struct stat info;
    ck_assert(lstat(path, &info) == 0 && S_ISFIFO(info.st_mode));
}
END_TEST

START_TEST(a_pipe_among_the_files_of_a_base_is_refused) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char from[200];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *folder = test_folder("file-pipe-base");
        for (size_t k = 0; k < sizeof files / sizeof files[0]; k++) {
            size_t bytes;
            snprintf(from, sizeof from, "tests/golden/llama/model/%s", files[k]);
            char *data = slurp(from, &bytes);
            ck_ok(icae_file_write(test_path(folder, files[k]), data, bytes, &error));
            free(data);
        }
        icae_model *model;
        ck_ok(icae_model_open(&model, folder, &error));
        icae_model_close(model);
        replace_by_pipe(test_path(folder, files[i]));
        ck_refused(icae_model_open(&model, folder, &error), files[i]);
        ck_assert_msg(strstr(error.message, "regular file"), "%s", error.message);
    }
}
END_TEST

START_TEST(a_pipe_among_the_files_of_an_adapter_or_a_checkpoint_is_refused) {
    static const char *const files[] = {"hashes.json",
                                        "state.json",
                                        "optimizer.safetensors",
                                        "adapter/icae.json",
                                        "adapter/adapter_config.json",
                                        "adapter/adapter_model.safetensors",
                                        "adapter/memory.safetensors"};
    icae_model model = tiny_model();
    icae_backend *be = tiny_backend();
    icae_adapter *adapter = tiny_adapter(&model, be, true), *loaded;
    const icae_run_state state = {.step = 7, .feed_json = "{}"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *run = test_folder("file-pipe-checkpoint");
        const char *folder = test_path(run, "checkpoints/step-7");
        ck_ok(icae_checkpoint_save(run, adapter, &model, &state, 1, &error));
        ck_ok(icae_checkpoint_verify(folder, &error));
        replace_by_pipe(test_path(folder, files[i]));
        ck_refused(icae_checkpoint_verify(folder, &error), "is not a regular file");
        ck_refused(icae_checkpoint_verify(folder, &error), files[i]);
        char *path;
        ck_refused(icae_checkpoint_newest(run, &path, &error), "no undamaged checkpoint");
        if (strncmp(files[i], "adapter/", 8) != 0) continue;
        ck_refused(
            icae_adapter_load(&loaded, test_path(folder, "adapter"), &model, be, false, &error),
            "is not a regular file");
    }
    icae_adapter_free(adapter);
    icae_backend_free(be);
}
END_TEST

START_TEST(a_pipe_that_the_shell_names_is_read) {
    int ends[2];
    icae_lines *lines;
    const char *line;
    char path[64];
    size_t bytes;
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], "one\ntwo\n", 8), 8);
    close(ends[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    ck_ok(icae_lines_open(&lines, path, &error));
    ck_ok(icae_lines_next(lines, 100, &line, &bytes, &error));
    ck_assert_str_eq(line, "one");
    icae_lines_close(lines);
    close(ends[0]);
}
END_TEST

/* ---- reading ---- */

START_TEST(empty_files_and_those_over_the_limit) {
    const char *path = test_path(test_folder("file-read"), "a");
    icae_mapping mapping;
    uint64_t hash;
    size_t bytes;
    char *data;
    ck_ok(icae_file_write(path, "", 0, &error));
    ck_ok(icae_mapping_open(&mapping, path, &error));
    ck_assert_uint_eq(mapping.bytes, 0);
    icae_mapping_pass(&mapping, 100);
    icae_mapping_close(&mapping);
    ck_ok(icae_hash_file(path, &hash, &bytes, &error));
    ck_assert_uint_eq(bytes, 0);
    ck_ok(icae_file_read(path, 0, &data, &bytes, &error));
    ck_assert_str_eq(data, "");
    free(data);
    ck_ok(icae_file_write(path, "12345", 5, &error));
    ck_ok(icae_file_read(path, 5, &data, NULL, &error));
    ck_assert_str_eq(data, "12345");
    free(data);
    ck_refused(icae_file_read(path, 4, &data, NULL, &error), "has 5 bytes, expected at most 4");
    ck_refused(icae_file_read("no/such", 4, &data, NULL, &error), "no/such: cannot open: No");
    ck_refused(icae_file_read("tests", 4, &data, NULL, &error), "tests: is not a regular file");
    ck_refused(icae_file_read("/dev/null", 4, &data, NULL, &error), "is not a regular file");
    /* the kernel's own files claim a page and hold a line: such a one has become shorter */
    static const char shorter[] = "/sys/devices/system/cpu/online";
    if (icae_file_bytes(shorter) <= 0) return;
    ck_refused(icae_file_read(shorter, 1 << 20, &data, NULL, &error),
               "the file became shorter");
}
END_TEST

/* What was passed comes from the file again. */
START_TEST(a_mapping_gives_back_what_it_let_go) {
    enum { BYTES = 3 << 20 };
    const char *path = test_path(test_folder("file-pass"), "a");
    unsigned char *data = malloc(BYTES);
    ck_assert_ptr_nonnull(data);
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (unsigned char)(i * 31 >> 5);
    ck_ok(icae_file_write(path, data, BYTES, &error)); /* more than the writer's buffer holds */
    icae_mapping mapping;
    ck_ok(icae_mapping_open(&mapping, path, &error));
    for (size_t at = 0; at < BYTES; at += BYTES / 5) {
        icae_mapping_pass(&mapping, at);
        ck_assert_int_eq(memcmp(mapping.data, data, BYTES), 0);
    }
    icae_mapping_pass(&mapping, SIZE_MAX);
    ck_assert_int_eq(memcmp(mapping.data, data, BYTES), 0);
    icae_mapping_close(&mapping);
    free(data);
}
END_TEST

/* ---- writing ---- */

static size_t count_entries(const char *folder) {
    char **names;
    size_t count;
    ck_ok(icae_folder_list(folder, &names, &count, &error));
    icae_names_free(names, count);
    return count;
}

START_TEST(what_is_written_is_there_whole_or_not_at_all) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("file-write"));
    const char *path = test_path(folder, "a");
    icae_writer writer;
    ck_ok(icae_writer_begin(&writer, path, &error));
    icae_writer_write(&writer, "lost", 4);
    ck_assert_uint_eq(writer.bytes_written, 4);
    icae_writer_abort(&writer);
    ck_assert_uint_eq(count_entries(folder), 0);
    /* a folder in the way from the beginning, or of the last step; the temporary file is gone, too */
    ck_ok(icae_folder_make(test_path(folder, "taken/inner"), &error));
    ck_refused(icae_file_write(test_path(folder, "taken"), "x", 1, &error),
               "taken: cannot write: it is a folder");
    ck_ok(icae_writer_begin(&writer, test_path(folder, "late"), &error));
    icae_writer_write(&writer, "x", 1);
    ck_ok(icae_folder_make(test_path(folder, "late"), &error));
    ck_refused(icae_writer_commit(&writer, &error), "late: cannot write: Is a directory");
    ck_assert_uint_eq(count_entries(folder), 2);
    ck_refused(icae_file_write(test_path(folder, "none/a"), "x", 1, &error),
               "cannot write: No");
    /* a name without a folder is one in the working folder */
    char here[4096], name[64];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    ck_assert_int_eq(chdir(folder), 0);
    snprintf(name, sizeof name, "bare");
    ck_ok(icae_file_write(name, "x", 1, &error));
    ck_ok(icae_file_append("log", "y\n", 2, &error));
    ck_assert_int_eq(chdir(here), 0);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "bare")), 1);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "log")), 2);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "taken")), -1);
    ck_refused(icae_file_append(test_path(folder, "taken"), "x", 1, &error), "cannot write");
}
END_TEST

/* Two threads that save under one name: the writers know nothing of each other. */
START_TEST(two_writers_of_one_file_do_not_mix) {
    char folder[600], *data;
    snprintf(folder, sizeof folder, "%s", test_folder("file-two"));
    const char *path = test_path(folder, "a");
    icae_writer one, other, third;
    ck_ok(icae_writer_begin(&one, path, &error));
    icae_writer_write(&one, "first", 5);
    ck_ok(icae_writer_begin(&other, path, &error));
    icae_writer_write(&other, "second one", 10);
    ck_ok(icae_writer_begin(&third, path, &error));
    icae_writer_abort(&third);
    ck_ok(icae_writer_commit(&other, &error));
    ck_ok(icae_file_read(path, 99, &data, NULL, &error));
    ck_assert_str_eq(data, "second one");
    free(data);
    ck_ok(icae_writer_commit(&one, &error));
    ck_ok(icae_file_read(path, 99, &data, NULL, &error));
    ck_assert_str_eq(data, "first");
    free(data);
    ck_assert_uint_eq(count_entries(folder), 1);
}
END_TEST

/* 255 bytes are a file's name, 256 are none; the temporary file's is longer than either. */
START_TEST(a_name_as_long_as_names_can_be_is_written) {
    char folder[600], name[257] = "";
    snprintf(folder, sizeof folder, "%s", test_folder("file-long"));
    for (int i = 0; i < 254; i += 2)
        memcpy(name + i, "\xc3\xa4", 2);
    strcpy(name + 254, "x");
    ck_ok(icae_file_write(test_path(folder, name), "x", 1, &error));
    ck_assert_int_eq(icae_file_bytes(test_path(folder, name)), 1);
    ck_assert_uint_eq(count_entries(folder), 1);
    strcpy(name + 254, "xy");
    ck_refused(icae_file_write(test_path(folder, name), "x", 1, &error), "name too long");
}
END_TEST

START_TEST(a_link_is_written_through) {
    char folder[600], kept[16] = "", *data;
    snprintf(folder, sizeof folder, "%s", test_folder("file-link"));
    ck_ok(icae_folder_make(test_path(folder, "b"), &error));
    ck_ok(icae_file_write(test_path(folder, "b/a"), "old", 3, &error));
    ck_assert_int_eq(symlink("b/a", test_path(folder, "link")), 0);
    ck_ok(icae_file_write(test_path(folder, "link"), "newer", 5, &error));
    ck_assert_int_eq(readlink(test_path(folder, "link"), kept, sizeof kept - 1), 3);
    ck_ok(icae_file_read(test_path(folder, "b/a"), 9, &data, NULL, &error));
    ck_assert_str_eq(data, "newer");
    free(data);
    ck_assert_uint_eq(count_entries(folder), 2);
    /* one that leads nowhere becomes the file */
    ck_assert_int_eq(symlink("b/none", test_path(folder, "loose")), 0);
    ck_ok(icae_file_write(test_path(folder, "loose"), "x", 1, &error));
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "loose")), 1);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "b/none")), -1);
    /* one that leads to itself is nothing */
    ck_assert_int_eq(symlink("round", test_path(folder, "round")), 0);
    ck_refused(icae_file_write(test_path(folder, "round"), "x", 1, &error),
               "round: cannot write: Too many levels");
}
END_TEST

START_TEST(whether_a_file_can_be_written_is_told_without_a_trace) {
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("file-check"));
    ck_ok(icae_file_check_writable(test_path(folder, "a"), &error));
    ck_assert_uint_eq(count_entries(folder), 0);
    ck_ok(icae_file_write(test_path(folder, "a"), "old", 3, &error));
    ck_ok(icae_file_check_writable(test_path(folder, "a"), &error));
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "a")), 3);
    ck_refused(icae_file_check_writable(test_path(folder, "none/a"), &error),
               "none/a: cannot write: No such file");
    ck_refused(icae_file_check_writable(test_path(folder, "a/b"), &error),
               "a/b: cannot write: Not a directory");
    ck_assert_uint_eq(count_entries(folder), 1);
}
END_TEST

/* A disk that is full in the middle, as far as the program can tell. */
START_TEST(a_write_that_fails_leaves_the_earlier_file) {
    enum { BYTES = 6 << 20 };
    const char *path = test_path(test_folder("file-full"), "a");
    char *data = calloc(1, BYTES);
    struct rlimit sound, small;
    ck_assert_ptr_nonnull(data);
    ck_ok(icae_file_write(path, "old", 3, &error));
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &sound), 0);
    small = sound;
    small.rlim_cur = BYTES / 3;
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    icae_status status = icae_file_write(path, data, BYTES, &error);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &sound), 0);
    ck_assert_int_eq(status, ICAE_IO);
    ck_assert_ptr_nonnull(strstr(error.message, "cannot write: File too large; an earlier"));
    ck_assert_int_eq(icae_file_bytes(path), 3);
    free(data);
}
END_TEST

/* ---- folders ---- */

START_TEST(folders_are_made_listed_and_removed) {
    char folder[600];
    bool is_there = true;
    snprintf(folder, sizeof folder, "%s", test_folder("file-folders"));
    ck_ok(icae_folder_make(test_path(folder, "a//b/c/"), &error));
    ck_ok(icae_folder_make(test_path(folder, "a/b"), &error));
    ck_ok(icae_folder_make("/", &error));
    ck_ok(icae_file_write(test_path(folder, "a/b/file"), "x", 1, &error));
    ck_refused(icae_folder_make(test_path(folder, "a/b/file/d"), &error),
               "a/b/file: cannot make the folder");
    /* more names than the list begins with, sorted */
    char name[32];
    for (int i = 0; i < 150; i++) {
        snprintf(name, sizeof name, "a/%03d", 149 - i);
        ck_ok(icae_folder_make(test_path(folder, name), &error));
    }
    char **names;
    size_t count;
    ck_ok(icae_folder_list(test_path(folder, "a"), &names, &count, &error));
    ck_assert_uint_eq(count, 151);
    ck_assert_str_eq(names[0], "000");
    ck_assert_str_eq(names[149], "149");
    ck_assert_str_eq(names[150], "b");
    icae_names_free(names, count);
    ck_refused(icae_folder_list(test_path(folder, "a/b/file"), &names, &count, &error),
               "cannot list: Not a directory");
    /* a link is removed, not what it leads to */
    ck_assert_int_eq(symlink("a/b", test_path(folder, "link")), 0);
    ck_ok(icae_folder_remove(test_path(folder, "link"), &error));
    ck_assert(icae_path_is_folder(test_path(folder, "a/b")));
    ck_ok(icae_folder_remove(test_path(folder, "none"), &error));
    ck_refused(icae_folder_remove(test_path(folder, "a/b/file/x"), &error), "cannot examine");
    ck_ok(icae_folder_remove(test_path(folder, "a"), &error));
    ck_ok(icae_path_find(test_path(folder, "a"), &is_there, &error));
    ck_assert(!is_there);
    is_there = true;
    ck_ok(icae_path_find("LICENSE/a", &is_there, &error)); /* nothing can be below a file */
    ck_assert(!is_there);
    static const char *const joined[][2] = {{"a", "a/b"}, {"a/", "a/b"}, {"", "/b"}};
    for (int i = 0; i < 3; i++) {
        char *path = icae_path_join(joined[i][0], "b");
        ck_assert_str_eq(path, joined[i][1]);
        free(path);
    }
    ck_ok(icae_folder_sync(folder, &error));
    ck_refused(icae_folder_sync(test_path(folder, "a"), &error), "cannot open");
}
END_TEST

/* Root may do everything, so it is somebody else for a while. */
enum { NOBODY = 65534 };
static void be_nobody(const char *folder) {
    if (geteuid() != 0) return;
    ck_assert_int_eq(chown(folder, NOBODY, NOBODY), 0);
    ck_assert_int_eq(seteuid(NOBODY), 0);
}

START_TEST(what_may_not_be_looked_at_is_no_missing_file) {
    char folder[600], inner[700], path[800];
    bool is_there;
    const char *made = mkdtemp(strcpy(folder, "/tmp/icae-file-XXXXXX"));
    ck_assert_ptr_nonnull(made);
    be_nobody(folder);
    snprintf(inner, sizeof inner, "%s/inner", folder);
    snprintf(path, sizeof path, "%s/file", inner);
    ck_ok(icae_folder_make(inner, &error));
    ck_ok(icae_file_write(path, "x", 1, &error));
    ck_assert_int_eq(chmod(inner, 0300), 0); /* may be written, but not listed nor flushed */
    ck_ok(icae_file_write(path, "y", 1, &error));
    ck_refused(icae_folder_remove(inner, &error), "cannot list: Permission denied");
    ck_assert_int_eq(chmod(inner, 0), 0);
    ck_refused(icae_path_find(path, &is_there, &error), "cannot examine: Permission denied");
    ck_assert(!is_there);
    ck_refused(icae_folder_remove(path, &error), "cannot examine: Permission denied");
    ck_assert_int_eq(chmod(inner, 0700), 0);
    ck_assert_int_eq(chmod(folder, 0500), 0);
    ck_refused(icae_folder_remove(inner, &error), "inner: cannot remove: Permission denied");
    ck_assert_int_eq(chmod(folder, 0700), 0);
    ck_ok(icae_folder_remove(inner, &error));
    if (geteuid() == NOBODY) ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

SUITE_OF(file, 60, a_pipe_in_the_place_of_a_file_is_refused_at_once,
         a_pipe_among_the_files_of_a_base_is_refused,
         a_pipe_among_the_files_of_an_adapter_or_a_checkpoint_is_refused,
         a_pipe_that_the_shell_names_is_read, empty_files_and_those_over_the_limit,
         a_mapping_gives_back_what_it_let_go, what_is_written_is_there_whole_or_not_at_all,
         two_writers_of_one_file_do_not_mix, a_name_as_long_as_names_can_be_is_written,
         a_link_is_written_through, whether_a_file_can_be_written_is_told_without_a_trace,
         a_write_that_fails_leaves_the_earlier_file, folders_are_made_listed_and_removed,
         what_may_not_be_looked_at_is_no_missing_file)
