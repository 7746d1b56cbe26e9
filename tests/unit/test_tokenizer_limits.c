/* SPDX-License-Identifier: MIT */
/* Tokenizers at their limits: sizes, ids with holes, odd names of bytes, odd files beside them. */
#include <stdlib.h>
#include <string.h>

#include "../../src/formats/tokenizer_internal.h"
#include "icae/file.h"
#include "suites.h"

#define MARK "\xE2\x96\x81"
#define BYTELEVEL                                                                              \
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "              \
    "\"decoder\": {\"type\": \"ByteLevel\"}, "
#define MARKED                                                                                 \
    "\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "               \
    "\"content\": \"" MARK "\"}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": ["        \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK "\"}, \"content\": \" \"}, "   \
    "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}, "
#define MODEL(switches, vocabulary, merges)                                                    \
    "\"model\": {\"type\": \"BPE\", " switches "\"vocab\": {" vocabulary                       \
    "}, \"merges\": [" merges "]}}"

static icae_error error;

static void write_file(const char *folder, const char *name, const char *text) {
    ck_ok(icae_file_write(test_path(folder, name), text, strlen(text), &error));
}

static icae_tokenizer *open_json(const char *folder, const char *json) {
    icae_tokenizer *tokenizer;
    write_file(folder, "tokenizer.json", json);
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    return tokenizer;
}

static void check_text(const icae_tokenizer *tokenizer, const int32_t *ids, size_t count,
                       const char *expected) {
    icae_text out = {0};
    ck_ok(icae_tokenizer_decode(tokenizer, ids, count, false, &out, &error));
    ck_assert_str_eq(icae_text_string(&out), expected);
    icae_text_release(&out);
}

/* Nothing is allocated or read for a count that cannot be. */
START_TEST(refuses_counts_that_no_memory_holds) {
    ck_assert_ptr_null(icae_tokenizer_create(SIZE_MAX, 0));
    ck_assert_ptr_null(icae_tokenizer_create(0, SIZE_MAX));
    icae_tokenizer *tokenizer = icae_tokenizer_create(0, 0);
    ck_assert_ptr_nonnull(tokenizer);
    ck_assert(!icae_tokenizer_room_for_merges(tokenizer, SIZE_MAX));
    icae_tokenizer_free(tokenizer);
    icae_tokenizer_free(NULL);
    ck_refused(icae_tokenizer_from_pieces(&tokenizer, "x.model", NULL, ICAE_TOKEN_ID_LIMIT + 1,
                                          0, false, &error),
               "x.model: there are 16777217 tokens, at most 16777216 are possible");
    ck_refused(icae_tokenizer_from_pieces(&tokenizer, "x.model", NULL, 0,
                                          ICAE_TOKEN_ID_LIMIT + 1, false, &error),
               "at most 16777216 are possible");
    ck_assert_ptr_null(tokenizer);
}
END_TEST

/* A vocabulary of millions may use all ids there are. */
START_TEST(lets_large_vocabularies_use_every_id) {
    icae_tokenizer *tokenizer = icae_tokenizer_create(ICAE_TOKEN_ID_LIMIT / 4, 0);
    ck_assert_ptr_nonnull(tokenizer);
    ck_ok(icae_tokenizer_add(tokenizer, "x", ICAE_TOKEN_ID_LIMIT - 1, "a", 1, ICAE_TOKEN_MODEL,
                             &error));
    ck_refused(icae_tokenizer_add(tokenizer, "x", ICAE_TOKEN_ID_LIMIT, "b", 1, ICAE_TOKEN_MODEL,
                                  &error),
               "has id 16777216, expected 0 to 16777215");
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(keeps_ids_with_holes_up_to_the_limit) {
    icae_tokenizer *tokenizer = open_json(
        test_folder("tokenizer-holes"),
        "{" BYTELEVEL MODEL("", "\"a\": 0, \"b\": 40000, \"c\": 40001, \"d\": 65551", ""));
    ck_assert_int_eq(icae_tokenizer_size(tokenizer), 65552);
    check_text(tokenizer, (const int32_t[]){65551, 40000, 39999, 0}, 4, "dba");
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "c"), 40001);
    ck_assert(!icae_tokenizer_is_special(tokenizer, -1));
    ck_assert(!icae_tokenizer_is_special(tokenizer, 65552));
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(refuses_texts_too_long_to_be_counted) {
    icae_tokenizer *tokenizer =
        open_json(test_folder("tokenizer-long-text"), "{" BYTELEVEL MODEL("", "\"a\": 0", ""));
    int32_t *ids;
    size_t count;
    ck_refused(icae_tokenizer_encode(tokenizer, "a", (size_t)INT32_MAX / 4 + 1, false, &ids,
                                     &count, &error),
               "a text of 536870912 bytes is too long to be encoded at once");
    ck_assert_ptr_null(ids);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* Names of bytes decode in capital and small digits; what only looks like one is a text. */
START_TEST(decodes_names_of_bytes_and_what_looks_like_them) {
    icae_tokenizer *tokenizer = open_json(
        test_folder("tokenizer-byte-names"),
        "{" MARKED MODEL("\"byte_fallback\": true, ",
                         "\"<0xc3>\": 0, \"<0xA9>\": 1, \"<0xG0>\": 2, \"<0x0G>\": 3, "
                         "\"<0x/0>\": 4, \"<0x0A]\": 5, \"[0x0A>\": 6, \"<0x0:>\": 7, "
                         "\"<0x0@>\": 8, \"a" MARK "b\": 9, \"<0xa`>\": 10, \"\": 11",
                         ""));
    check_text(tokenizer, (const int32_t[]){0, 1}, 2, "\xC3\xA9");
    check_text(tokenizer, (const int32_t[]){2, 3, 4, 5, 6, 7, 8, 9, 11, 10}, 10,
               "<0xG0><0x0G><0x/0><0x0A][0x0A><0x0:><0x0@>a b<0xa`>");
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* Pieces that are tokens as a whole, also with marks; an unknown text is none. */
START_TEST(takes_whole_pieces_with_marks_as_they_are) {
    icae_tokenizer *tokenizer =
        open_json(test_folder("tokenizer-whole-marked"),
                  "{" MARKED MODEL("\"ignore_merges\": true, ",
                                   "\"a\": 0, \"b\": 1, \"ab\": 2, \"" MARK "\": 3", ""));
    int32_t *ids;
    size_t count;
    ck_ok(icae_tokenizer_encode(tokenizer, "ab", 2, false, &ids, &count, &error));
    ck_assert(count == 1 && ids[0] == 2);
    free(ids);
    ck_ok(icae_tokenizer_encode(tokenizer, "ba", 2, false, &ids, &count, &error));
    ck_assert(count == 2 && ids[0] == 1 && ids[1] == 0);
    free(ids);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- the files beside it ---- */

START_TEST(takes_what_the_files_beside_it_leave_open) {
    const char *folder = test_folder("tokenizer-beside-open");
    static const char json[] =
        "{\"added_tokens\": null, " BYTELEVEL MODEL("\"dropout\": false, ", "\"a\": 0", "");
    static const char *const configs[] = {
        "{\"chat_template\": 7}",
        "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"x\"}]}",
        "{\"chat_template\": [{\"name\": \"default\"}]}",
        "[]",
    };
    write_file(folder, "config.json", "{\"bos_token_id\": null, \"eos_token_id\": 0}");
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        write_file(folder, "tokenizer_config.json", configs[i]);
        icae_tokenizer *tokenizer = open_json(folder, json);
        ck_assert_ptr_null(icae_tokenizer_chat_template(tokenizer));
        ck_assert_int_eq(icae_tokenizer_bos(tokenizer), -1);
        ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 0);
        icae_tokenizer_free(tokenizer);
    }
    icae_tokenizer *tokenizer;
    ck_ok(icae_folder_make(test_path(folder, "chat_template.jinja"), &error));
    ck_refused(icae_tokenizer_open_folder(&tokenizer, folder, &error), "chat_template.jinja");
    ck_assert_ptr_null(tokenizer);
}
END_TEST

SUITE_OF(tokenizer_limits, 20, refuses_counts_that_no_memory_holds,
         lets_large_vocabularies_use_every_id, keeps_ids_with_holes_up_to_the_limit,
         refuses_texts_too_long_to_be_counted, decodes_names_of_bytes_and_what_looks_like_them,
         takes_whole_pieces_with_marks_as_they_are, takes_what_the_files_beside_it_leave_open)
