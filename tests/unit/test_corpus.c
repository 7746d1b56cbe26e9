/* SPDX-License-Identifier: MIT */
/* The document reader: which files, which lines, in which order, and going on after a stop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "icae/corpus.h"
#include "icae/file.h"
#include "icae/log.h"
#include "suites.h"

enum { MANY = 97 };

static void write_text(const char *path, const char *text) {
    icae_error error = {0};
    ck_ok(icae_file_write(path, text, strlen(text), &error));
}

/* Files a..d of MANY documents in all, "doc 0" upwards; c is gzipped. */
static const char *make_folder(const char *name) {
    const char *folder = test_folder(name);
    static const struct {
        const char *name;
        int first, last;
    } files[] = {
        {"a.jsonl", 0, 40}, {"b.json", 40, 41}, {"c.jsonl.gz", 41, 90}, {"d.jsonl", 90, MANY}};
    for (size_t f = 0; f < 4; f++) {
        icae_text text = {0};
        for (int i = files[f].first; i < files[f].last; i++)
            icae_text_printf(&text, "{\"id\": %d, \"text\": \"doc %d\"}\n%s", i, i,
                             i % 5 ? "" : "\n");
        const char *path = test_path(folder, files[f].name);
        if (strstr(files[f].name, ".gz")) {
            gzFile gz = gzopen(path, "wb");
            ck_assert_int_eq(gzwrite(gz, text.data, (unsigned)text.length), (int)text.length);
            ck_assert_int_eq(gzclose(gz), Z_OK);
        } else {
            write_text(path, text.data);
        }
        icae_text_release(&text);
    }
    return folder;
}

static icae_corpus *open_one(const char *path, icae_corpus_options options) {
    icae_error error = {0};
    icae_corpus *corpus;
    const char *paths[] = {path};
    options.paths = paths;
    options.n_paths = 1;
    ck_ok(icae_corpus_open(&corpus, &options, &error));
    return corpus;
}

/* The number in "doc N", or -1 at the end. */
static int next_number(icae_corpus *corpus) {
    icae_error error = {0};
    icae_document document;
    ck_ok(icae_corpus_next(corpus, &document, &error));
    if (!document.text) return -1;
    ck_assert_int_eq(strncmp(document.text, "doc ", 4), 0);
    ck_assert_uint_eq(document.bytes, strlen(document.text));
    return atoi(document.text + 4);
}

START_TEST(without_shuffling_documents_come_as_they_stand) {
    icae_corpus *corpus =
        open_one(make_folder("corpus-plain"), (icae_corpus_options){.epochs = 2});
    for (int i = 0; i < 2 * MANY; i++)
        ck_assert_int_eq(next_number(corpus), i % MANY);
    ck_assert_int_eq(next_number(corpus), -1);
    ck_assert_int_eq(next_number(corpus), -1);
    icae_corpus_stats stats = icae_corpus_get_stats(corpus);
    ck_assert_uint_eq(stats.documents, 2 * MANY);
    ck_assert_uint_eq(stats.n_files, 4);
    icae_corpus_close(corpus);
}
END_TEST

START_TEST(every_epoch_shows_every_document_once_in_its_own_order) {
    const char *folder = make_folder("corpus-epochs");
    const icae_corpus_options options = {.shuffle_documents = 20, .seed = 5};
    icae_corpus *corpus = open_one(folder, options), *twin = open_one(folder, options);
    int orders[3][MANY], in_place = 0;
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[MANY] = {false};
        for (int i = 0; i < MANY; i++) {
            int n = orders[epoch][i] = next_number(corpus);
            ck_assert_msg(n >= 0 && n < MANY && !seen[n], "epoch %d gives %d twice", epoch, n);
            seen[n] = true;
            in_place += n == i;
            ck_assert_int_eq(next_number(twin), n);
        }
    }
    ck_assert_int_ne(memcmp(orders[0], orders[1], sizeof orders[0]), 0);
    ck_assert_int_ne(memcmp(orders[1], orders[2], sizeof orders[0]), 0);
    ck_assert_int_lt(in_place, MANY / 4);
    icae_corpus_close(corpus);
    icae_corpus_close(twin);

    icae_corpus *other =
        open_one(folder, (icae_corpus_options){.shuffle_documents = 20, .seed = 6});
    int same = 0;
    for (int i = 0; i < MANY; i++)
        same += next_number(other) == orders[0][i];
    ck_assert_int_lt(same, MANY / 4);
    icae_corpus_close(other);
}
END_TEST

/* Stops after `stop` documents, saves, restores into a fresh reader, compares what follows. */
static void stop_and_go_on(const char *folder, icae_corpus_options options, int stop) {
    icae_error error = {0};
    icae_corpus *first = open_one(folder, options);
    for (int i = 0; i < stop; i++)
        next_number(first);
    icae_text text = {0};
    ck_ok(icae_corpus_save_state(first, &text, &error));

    icae_json *json;
    ck_ok(icae_json_parse(&json, "state.json", text.data, text.length, &error));
    icae_corpus *second = open_one(folder, options);
    ck_ok(icae_corpus_restore_state(second, json, icae_json_root(json), &error));
    icae_text again = {0};
    ck_ok(icae_corpus_save_state(second, &again, &error));
    ck_assert_str_eq(again.data, text.data);
    for (int i = 0; i < 2 * MANY + 3; i++) {
        int n = next_number(first);
        ck_assert_msg(next_number(second) == n, "stopped at %d: document %d differs", stop, i);
    }
    ck_assert_uint_eq(icae_corpus_get_stats(first).documents,
                      icae_corpus_get_stats(second).documents);
    ck_assert_uint_eq(icae_corpus_get_stats(first).bytes, icae_corpus_get_stats(second).bytes);
    icae_json_free(json);
    icae_text_release(&text);
    icae_text_release(&again);
    icae_corpus_close(first);
    icae_corpus_close(second);
}

START_TEST(a_restored_reader_goes_on_exactly) {
    const char *folder = make_folder("corpus-state");
    static const int stops[] = {0, 1, 39, 40, 41, 76, 77, 78, MANY - 1, MANY, MANY + 1, 250};
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        stop_and_go_on(folder, (icae_corpus_options){0}, stops[i]);
        stop_and_go_on(folder, (icae_corpus_options){.epochs = 1}, stops[i]);
        stop_and_go_on(folder,
                       (icae_corpus_options){.shuffle_documents = 20, .seed = 1ull << 63},
                       stops[i]);
        stop_and_go_on(folder, (icae_corpus_options){.shuffle_documents = 1000, .seed = 3},
                       stops[i]);
        stop_and_go_on(
            folder,
            (icae_corpus_options){
                .shuffle_documents = 1000, .shuffle_bytes = 30, .seed = 3, .epochs = 3},
            stops[i]);
    }
}
END_TEST

START_TEST(a_state_of_other_data_or_settings_is_refused) {
    const char *folder = make_folder("corpus-refuse");
    icae_error error = {0};
    const icae_corpus_options options = {.shuffle_documents = 8, .seed = 4};
    icae_corpus *corpus = open_one(folder, options);
    next_number(corpus);
    icae_text text = {0};
    ck_ok(icae_corpus_save_state(corpus, &text, &error));
    icae_corpus_close(corpus);
    icae_json *json;
    ck_ok(icae_json_parse(&json, "state.json", text.data, text.length, &error));

    static const struct {
        icae_corpus_options options;
        const char *part;
    } cases[] = {
        {{.shuffle_documents = 8, .seed = 5}, "seed 4"},
        {{.shuffle_documents = 9, .seed = 4}, "was 8, the settings say 9"},
        {{.shuffle_documents = 8, .seed = 4, .shuffle_bytes = 7}, "shuffle_bytes"},
        {{.shuffle_documents = 8, .seed = 4, .fields = {"id"}, .n_fields = 1}, "fields"},
        {{.shuffle_documents = 8, .seed = 4, .fields = {"text", "id"}, .n_fields = 2},
         "fields"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        corpus = open_one(folder, cases[i].options);
        ck_refused(icae_corpus_restore_state(corpus, json, icae_json_root(json), &error),
                   cases[i].part);
        icae_corpus_close(corpus);
    }
    corpus = open_one(test_path(folder, "a.jsonl"), options);
    ck_refused(icae_corpus_restore_state(corpus, json, icae_json_root(json), &error), "b.json");
    icae_corpus_close(corpus);

    write_text(test_path(folder, "b.json"), "{\"text\": \"doc 40, and a half\"}\n");
    corpus = open_one(folder, options);
    ck_refused(icae_corpus_restore_state(corpus, json, icae_json_root(json), &error),
               "b.json had");
    icae_corpus_close(corpus);
    icae_json_free(json);
    icae_text_release(&text);
}
END_TEST

/* Hand-made changes of a good state: each must be refused, none may crash. */
START_TEST(a_damaged_state_is_refused) {
    const char *folder = test_folder("corpus-damaged");
    write_text(test_path(folder, "a.jsonl"), "{\"text\": \"doc 0\"}\n{\"text\": \"doc 1\"}\n");
    icae_error error = {0};
    const icae_corpus_options options = {.shuffle_documents = 2, .seed = 4};
    icae_corpus *corpus = open_one(folder, options);
    next_number(corpus);
    icae_text good = {0};
    ck_ok(icae_corpus_save_state(corpus, &good, &error));
    icae_corpus_close(corpus);
    static const char *const changes[][2] = {
        {"\"buffer\": [[", "\"buffer\": [[7"},
        {"\"buffer\": [[", "\"buffer\": [[0, 5, 5], [0, 6, 6], ["},
        {"\"buffer\": [[", "\"buffer\": [[0.5"},
        {"\"buffer\": [[", "\"buffer\": [[\"x\", "},
        {"\"buffer\": ", "\"buffer\": 3, \"x\": "},
        {"\"file\": ", "\"file\": 9"},
        {"\"draws\": ", "\"draws\": -"},
        {"\"seed\": \"", "\"seed\": \"-"},
        {"\"seed\": \"", "\"seed\": \"99999999999999999999"},
        {"\"format\": \"", "\"format\": \"x"},
        {"\"version\": ", "\"version\": 9"},
        {"\"files\": [[", "\"files\": [[0, 0], ["},
        {"\"files\": [[", "\"files\": [3, ["},
        {"\"files\": [[", "\"files\": [[["},
        {"\"files\": [[", "\"files\": 3, \"x\": [["},
        {"\"files\": [[", "\"files\": [[\"a\", \"b\", \"c\"], ["},
        {"\"files\": [[", "\"files\": [[\"a\", 1, 2], ["},
        {"\"buffer\": [[", "\"buffer\": [3, ["},
        {"\"buffer\": [[", "\"buffer\": [[0, -1, 0], ["},
        {"\"seed\": \"4", "\"seed\": \""},
        {"\"seed\": \"4", "\"seed\": \"4x"},
        {"\"fields\": [\"text\"", "\"fields\": [3"},
        {"\"fields\": [\"text\"", "\"fields\": [\"text\", \"more\""},
        {"\"fields\": [\"text\"", "\"fields\": ["},
        {"\"over\": ", "\"unheard_of\": 1, \"over\": "},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        const char *at = strstr(good.data, changes[i][0]);
        ck_assert_msg(at != NULL, "%s is not in %s", changes[i][0], good.data);
        icae_text bad = {0};
        icae_text_append(&bad, good.data, (size_t)(at - good.data));
        icae_text_append_string(&bad, changes[i][1]);
        icae_text_append_string(&bad, at + strlen(changes[i][0]));
        icae_json *json;
        if (!icae_json_parse(&json, "state.json", bad.data, bad.length, &error)) {
            corpus = open_one(folder, options);
            ck_assert_msg(icae_corpus_restore_state(corpus, json, icae_json_root(json),
                                                    &error) != ICAE_OK,
                          "accepted: %s", bad.data);
            icae_corpus_close(corpus);
            icae_json_free(json);
        }
        icae_text_release(&bad);
    }
    icae_text_release(&good);
}
END_TEST

START_TEST(broken_lines_are_skipped_and_counted_or_refused) {
    const char *folder = test_folder("corpus-broken");
    static const struct {
        const char *line, *part; /* part NULL: left out without being called broken */
    } cases[] = {
        {"{\"text\": \"doc 1\"", "x.jsonl:2"},
        {"{\"other\": \"doc 1\"}", "has no field \"text\""},
        {"{\"text\": 7}", "is no string"},
        {"{\"text\": null}", "is no string"},
        {"[\"doc 1\"]", "is no JSON object"},
        {"plain words", "x.jsonl:2"},
        {"{\"text\": \"\"}", NULL},
        {"{\"text\": \" \\n\\t\"}", NULL},
        {"   ", NULL},
    };
    icae_log_set_level(ICAE_LOG_QUIET);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_text text = {0};
        icae_text_printf(&text, "{\"text\": \"doc 0\"}\r\n%s\n{\"text\": \"doc 2\"}",
                         cases[i].line);
        const char *path = test_path(folder, "x.jsonl");
        write_text(path, text.data);
        icae_text_release(&text);

        icae_corpus *corpus = open_one(path, (icae_corpus_options){.epochs = 1});
        ck_assert_int_eq(next_number(corpus), 0);
        ck_assert_int_eq(next_number(corpus), 2);
        ck_assert_int_eq(next_number(corpus), -1);
        ck_assert_uint_eq(icae_corpus_get_stats(corpus).broken, cases[i].part != NULL);
        icae_corpus_close(corpus);

        corpus = open_one(path, (icae_corpus_options){.epochs = 1, .strict = true});
        ck_assert_int_eq(next_number(corpus), 0);
        icae_error error = {0};
        icae_document document;
        if (cases[i].part) {
            ck_refused(icae_corpus_next(corpus, &document, &error), cases[i].part);
            ck_assert_msg(strstr(error.message, "x.jsonl:2") != NULL, "%s", error.message);
        } else {
            ck_assert_int_eq(next_number(corpus), 2);
        }
        icae_corpus_close(corpus);
    }
}
END_TEST

START_TEST(an_epoch_without_documents_is_an_error_that_says_why) {
    const char *folder = test_folder("corpus-nothing");
    const char *path = test_path(folder, "list.json");
    write_text(path, "[\n{\"text\": \"doc 0\"},\n{\"text\": \"doc 1\"}]\n");
    icae_corpus *corpus = open_one(path, (icae_corpus_options){0});
    icae_error error = {0};
    icae_document document;
    ck_refused(icae_corpus_next(corpus, &document, &error), "jq -c");
    icae_corpus_close(corpus);
    write_text(path, "");
    corpus = open_one(path, (icae_corpus_options){.shuffle_documents = 9});
    ck_refused(icae_corpus_next(corpus, &document, &error), "no document found");
    icae_corpus_close(corpus);
}
END_TEST

START_TEST(text_files_are_one_document_each) {
    const char *folder = test_folder("corpus-text");
    write_text(test_path(folder, "one.txt"), "\xEF\xBB\xBF"
                                             "doc 1\r\n\r\nsecond paragraph\r\n");
    write_text(test_path(folder, "two.txt"), " \n\n");
    write_text(test_path(folder, "zoo.txt"), "doc 3 \xFF.");
    icae_corpus *corpus = open_one(folder, (icae_corpus_options){.epochs = 1});
    icae_error error = {0};
    icae_document document;
    ck_ok(icae_corpus_next(corpus, &document, &error));
    ck_assert_str_eq(document.text, "doc 1\n\nsecond paragraph");
    ck_assert_int_eq(document.line, 1);
    ck_ok(icae_corpus_next(corpus, &document, &error));
    ck_assert_str_eq(document.text, "doc 3 \xEF\xBF\xBD.");
    ck_assert_ptr_nonnull(strstr(document.file, "zoo.txt"));
    ck_assert_int_eq(next_number(corpus), -1);
    ck_assert_uint_eq(icae_corpus_get_stats(corpus).empty, 1);
    ck_assert_uint_eq(icae_corpus_get_stats(corpus).repaired, 1);
    icae_corpus_close(corpus);

    corpus = open_one(folder, (icae_corpus_options){.limit_bytes = 20});
    ck_refused(icae_corpus_next(corpus, &document, &error), "more than 20 bytes");
    icae_corpus_close(corpus);
    stop_and_go_on(test_path(folder, "*o*.txt"), (icae_corpus_options){.shuffle_documents = 2},
                   3);
}
END_TEST

START_TEST(bytes_that_are_not_utf8_are_repaired_and_counted) {
    const char *path = test_path(test_folder("corpus-utf8"), "x.jsonl");
    write_text(path, "{\"text\": \"doc \xC3\xA9\"}\n{\"text\": \"doc \xE9 \\n\"}\n"
                     "{\"text\": \"zero \\u0000\"}\n");
    icae_corpus *corpus = open_one(path, (icae_corpus_options){.epochs = 1, .strict = true});
    icae_error error = {0};
    icae_document document;
    ck_ok(icae_corpus_next(corpus, &document, &error));
    ck_assert_str_eq(document.text, "doc \xC3\xA9");
    ck_ok(icae_corpus_next(corpus, &document, &error));
    ck_assert_str_eq(document.text, "doc \xEF\xBF\xBD \n");
    ck_ok(icae_corpus_next(corpus, &document, &error));
    ck_assert_uint_eq(document.bytes, 6);
    ck_assert_int_eq(memcmp(document.text, "zero \0", 7), 0);
    ck_assert_uint_eq(icae_corpus_get_stats(corpus).repaired, 1);
    icae_corpus_close(corpus);
}
END_TEST

START_TEST(text_files_that_are_no_texts_are_skipped_and_counted) {
    const char *folder = test_folder("corpus-no-text");
    static const char wide[] = "d\0o\0c\0 \0"
                               "1\0",
                      other[80] = "a PDF, or a program \xFF\xFE";
    icae_error error = {0};
    ck_ok(icae_file_write(test_path(folder, "a.txt"), wide, sizeof wide - 1, &error));
    ck_ok(icae_file_write(test_path(folder, "b.txt"), other, sizeof other, &error));
    write_text(test_path(folder, "c.txt"), "doc 3");
    icae_corpus *corpus = open_one(folder, (icae_corpus_options){.epochs = 1});
    ck_assert_int_eq(next_number(corpus), 3);
    ck_assert_int_eq(next_number(corpus), -1);
    ck_assert_uint_eq(icae_corpus_get_stats(corpus).broken, 2);
    icae_corpus_close(corpus);

    icae_document document;
    corpus = open_one(test_path(folder, "a.txt"), (icae_corpus_options){.strict = true});
    ck_refused(icae_corpus_next(corpus, &document, &error), "a.txt: is no text in UTF-8");
    icae_corpus_close(corpus);
}
END_TEST

START_TEST(rows_give_their_fields_in_the_order_asked_for) {
    icae_corpus *corpus =
        open_one("data/samples/questions.jsonl",
                 (icae_corpus_options){
                     .fields = {"input", "prompt", "answer"}, .n_fields = 3, .epochs = 1});
    icae_error error = {0};
    icae_document document;
    int rows = 0, repeated = 0;
    char *last = NULL;
    for (;; rows++) {
        ck_ok(icae_corpus_next(corpus, &document, &error));
        if (!document.text) break;
        ck_assert_int_eq(document.line, rows + 1);
        ck_assert_ptr_eq(document.text, document.fields[0]);
        for (int i = 0; i < 3; i++) {
            ck_assert_uint_gt(document.field_bytes[i], 0);
            ck_assert_uint_eq(strlen(document.fields[i]), document.field_bytes[i]);
        }
        ck_assert_uint_gt(document.field_bytes[0], document.field_bytes[1]);
        repeated += last && !strcmp(last, document.text);
        free(last);
        last = strdup(document.text);
    }
    free(last);
    ck_assert_int_gt(rows, 5);
    ck_assert_int_gt(repeated, 3);
    icae_corpus_close(corpus);
}
END_TEST

START_TEST(wrong_lists_of_files_are_refused) {
    const char *folder = make_folder("corpus-files");
    icae_error error = {0};
    icae_corpus *corpus;
    char a[256], link[256], odd[256], pattern[256], missing[256], empty[256], text[256];
    snprintf(a, sizeof a, "%s/a.jsonl", folder);
    snprintf(link, sizeof link, "%s/../corpus-files-link.jsonl", folder);
    snprintf(odd, sizeof odd, "%s/../corpus-files-odd.csv", folder);
    snprintf(pattern, sizeof pattern, "%s/z*.jsonl", folder);
    snprintf(missing, sizeof missing, "%s/missing.jsonl", folder);
    snprintf(empty, sizeof empty, "%s/empty", folder);
    snprintf(text, sizeof text, "%s/../corpus-files-text.txt", folder);
    unlink(link);
    ck_assert_int_eq(symlink("corpus-files/a.jsonl", link), 0);
    write_text(odd, "x");
    write_text(text, "x");
    ck_ok(icae_folder_make(empty, &error));
    const struct {
        const char *paths[2];
        size_t n_fields;
        const char *part;
    } cases[] = {
        {{a, a}, 0, "same file"},        {{folder, a}, 0, "same file"},
        {{a, link}, 0, "same file"},     {{odd, a}, 0, ".jsonl"},
        {{pattern, a}, 0, "pattern"},    {{a, missing}, 0, "no such file"},
        {{empty, a}, 0, "no data file"}, {{a, text}, 2, "plain text"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_corpus_options options = {.paths = cases[i].paths,
                                       .n_paths = 2,
                                       .fields = {"a", "b"},
                                       .n_fields = cases[i].n_fields};
        ck_refused(icae_corpus_open(&corpus, &options, &error), cases[i].part);
        ck_assert_ptr_null(corpus);
    }
    icae_corpus_options nothing = {0};
    ck_refused(icae_corpus_open(&corpus, &nothing, &error), "no data files");
}
END_TEST

START_TEST(a_damaged_gzip_file_is_an_error_not_an_end) {
    const char *folder = make_folder("corpus-gzip");
    icae_error error = {0};
    char *bytes;
    size_t size;
    const char *path = test_path(folder, "c.jsonl.gz");
    ck_ok(icae_file_read(path, 1 << 20, &bytes, &size, &error));
    ck_ok(icae_file_write(path, bytes, size - 12, &error));
    free(bytes);
    icae_corpus *corpus = open_one(path, (icae_corpus_options){.epochs = 1});
    icae_status status = ICAE_OK;
    icae_document document = {.text = ""};
    for (int i = 0; !status && document.text && i < MANY; i++)
        status = icae_corpus_next(corpus, &document, &error);
    ck_assert_msg(status != ICAE_OK, "the cut file was read to its end without complaint");
    ck_assert_ptr_nonnull(strstr(error.message, "c.jsonl.gz"));
    icae_corpus_close(corpus);
}
END_TEST

SUITE_OF(corpus, 60, without_shuffling_documents_come_as_they_stand,
         every_epoch_shows_every_document_once_in_its_own_order,
         a_restored_reader_goes_on_exactly, a_state_of_other_data_or_settings_is_refused,
         a_damaged_state_is_refused, broken_lines_are_skipped_and_counted_or_refused,
         an_epoch_without_documents_is_an_error_that_says_why, text_files_are_one_document_each,
         bytes_that_are_not_utf8_are_repaired_and_counted,
         text_files_that_are_no_texts_are_skipped_and_counted,
         rows_give_their_fields_in_the_order_asked_for, wrong_lists_of_files_are_refused,
         a_damaged_gzip_file_is_an_error_not_an_end)
