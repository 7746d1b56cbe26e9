/* SPDX-License-Identifier: MIT */
/*
 * SentencePiece-style tokenizers: marks for spaces, tokens for bytes, and what must be refused. The
 * expected ids and texts were made with Hugging Face's tokenizers from the same file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/rng.h"
#include "icae/tokenizer.h"
#include "suites.h"

#define MARK "\xE2\x96\x81"
#define FFFD "\xEF\xBF\xBD"

#define ADDED(id, text, normalized)                                                            \
    "{\"id\": " id ", \"content\": \"" text "\", \"single_word\": false, \"lstrip\": false, "  \
    "\"rstrip\": false, \"normalized\": " normalized ", \"special\": true}"
#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"" MARK "\"}"
#define REPLACE                                                                                \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" MARK "\"}"
#define UNREPLACE                                                                              \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK "\"}, \"content\": \" \"}"
#define STRIP "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
#define NORMALIZER                                                                             \
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [" PREPEND ", " REPLACE "]}"
#define DECODERS UNREPLACE ", {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}"

/* The bytes of U+00E9 and U+20AC without its last; "ab" is made before the mark joins an "a". */
static const char small[] =
    "{\"version\": \"1.0\", \"added_tokens\": [" ADDED("0", "<unk>", "false") ", " //
    ADDED(
        "1", "<s>",
        "false") "],\n" NORMALIZER ",\n"
                 "\"pre_tokenizer\": null, \"post_processor\": null,\n"
                 "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [" DECODERS ", " STRIP
                 "]},\n"
                 "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<unk>\", "
                 "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                 "\"fuse_unk\": true, "
                 "\"byte_fallback\": true, \"ignore_merges\": false,\n"
                 "\"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"<0xC3>\": 2, \"<0xA9>\": 3, "
                 "\"<0xE2>\": 4, "
                 "\"<0x82>\": 5, \"<0x0A>\": 6, \"" MARK
                 "\": 7, \"a\": 8, \"b\": 9, \"ab\": 10, "
                 "\"" MARK "a\": 11, \"" MARK "ab\": 12, \"" MARK MARK
                 "\": 13, \"\\u4e2d\": 14, "
                 "\"b" MARK "\": 15},\n"
                 "\"merges\": [[\"a\", \"b\"], [\"" MARK "\", \"a\"], [\"" MARK "\", \"ab\"], "
                 "[\"" MARK "\", \"" MARK "\"]]}}\n";

static icae_status open_changed(icae_tokenizer **tokenizer, const char *folder,
                                const char *from, const char *to, icae_error *why) {
    icae_text text = {0};
    icae_error error = {0};
    const char *found = from ? strstr(small, from) : small;
    ck_assert_msg(found != NULL, "the small tokenizer lacks %s", from);
    icae_text_append(&text, small, (size_t)(found - small));
    if (to) icae_text_append_string(&text, to);
    icae_text_append_string(&text, found + (from ? strlen(from) : 0));
    ck_ok(icae_file_write(test_path(folder, "tokenizer.json"), text.data, text.length, &error));
    icae_text_release(&text);
    return icae_tokenizer_open_folder(tokenizer, folder, why);
}

static icae_tokenizer *open_small(const char *folder, const char *from, const char *to) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    ck_ok(open_changed(&tokenizer, folder, from, to, &error));
    return tokenizer;
}

static void check_ids(const icae_tokenizer *tokenizer, const char *text,
                      const int32_t *expected) {
    icae_error error = {0};
    int32_t *ids;
    size_t count, wanted = 0;
    ck_ok(icae_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &count, &error));
    while (expected[wanted] >= 0)
        wanted++;
    ck_assert_msg(count == wanted, "\"%s\": %zu ids, expected %zu", text, count, wanted);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(ids[i] == expected[i], "\"%s\": id %zu is %d, expected %d", text, i,
                      ids[i], expected[i]);
    free(ids);
}
#define check_encodes(tokenizer, text, ...)                                                    \
    check_ids(tokenizer, text, (const int32_t[]){__VA_ARGS__, -1})

/* At once and as a stream. */
static void check_text(const icae_tokenizer *tokenizer, const char *expected,
                       const int32_t *ids, size_t count) {
    icae_error error = {0};
    icae_text whole = {0}, streamed = {0};
    ck_ok(icae_tokenizer_decode(tokenizer, ids, count, false, &whole, &error));
    ck_assert_str_eq(icae_text_string(&whole), expected);
    icae_token_stream stream = {0};
    for (size_t i = 0; i < count; i++)
        icae_token_stream_push(&stream, tokenizer, ids[i], &streamed);
    icae_token_stream_finish(&stream, &streamed);
    ck_assert_str_eq(icae_text_string(&streamed), expected);
    icae_text_release(&whole);
    icae_text_release(&streamed);
}
#define check_decodes(tokenizer, expected, ...)                                                \
    check_text(tokenizer, expected, (const int32_t[]){__VA_ARGS__},                            \
               sizeof(int32_t[]){__VA_ARGS__} / sizeof(int32_t))

START_TEST(marks_spaces_and_begins_every_section_with_one) {
    icae_tokenizer *tokenizer = open_small(test_folder("marked-spaces"), NULL, NULL);
    check_encodes(tokenizer, "ab", 12);
    check_encodes(tokenizer, " ab", 7, 12); /* one mark more, whatever is there */
    check_encodes(tokenizer, "ab<s>ab a", 12, 1, 12, 11);
    check_encodes(tokenizer, "<s>", 1);
    check_encodes(tokenizer, "bab", 7, 9, 10);
    check_encodes(tokenizer, "", -1);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, " ab"), 12);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "ab"), 10);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "<s>"), 1);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "\n"), 6);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "x"), -1);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(spells_unknown_characters_in_bytes_where_all_are_there) {
    const char *folder = test_folder("marked-bytes");
    icae_tokenizer *tokenizer = open_small(folder, NULL, NULL);
    check_encodes(tokenizer, "a\xC3\xA9\n\xE4\xB8\xAD", 11, 2, 3, 6, 14);
    check_encodes(tokenizer, "xyza", 7, 0, 8);          /* no bytes for these: fused */
    check_encodes(tokenizer, "x\xC3\xA9y", 7, 2, 3, 0); /* the unknown one waits */
    check_encodes(tokenizer,
                  "\xE2\x82\xAC"
                  "b",
                  7, 0, 9); /* AC is missing: not even E2 82 */
    icae_tokenizer_free(tokenizer);
    tokenizer = open_small(folder, "\"fuse_unk\": true", "\"fuse_unk\": false");
    check_encodes(tokenizer, "xyza", 7, 0, 0, 0, 8);
    icae_tokenizer_free(tokenizer);
    tokenizer = open_small(folder, "\"byte_fallback\": true", "\"byte_fallback\": false");
    check_encodes(tokenizer, "a\xC3\xA9", 11, 0);
    icae_tokenizer_free(tokenizer);
    tokenizer = open_small(folder, "\"unk_token\": \"<unk>\"", "\"unk_token\": null");
    check_encodes(tokenizer, "xaz", 11);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(decodes_runs_of_bytes_all_or_nothing_and_strips_one_space_at_the_start) {
    const char *folder = test_folder("marked-decoding");
    icae_tokenizer *tokenizer = open_small(folder, NULL, NULL);
    check_decodes(tokenizer, "ab a", 12, 11);
    check_decodes(tokenizer, " ab", 13, 10);
    check_decodes(tokenizer, "ab", 10);
    check_decodes(tokenizer, "<s> ab", 1, 12);
    check_decodes(tokenizer, "\xC3\xA9\n", 2, 3, 6);
    check_decodes(tokenizer, FFFD FFFD FFFD, 2, 3, 4); /* the bad end spoils its run */
    check_decodes(tokenizer,
                  "\xC3\xA9"
                  "a" FFFD FFFD " a",
                  2, 3, 8, 4, 5, 11);
    check_decodes(tokenizer, "a", 99, 11, -1);
    icae_error error = {0};
    icae_text out = {0};
    icae_text_append_string(&out, "x");
    ck_ok(icae_tokenizer_decode(tokenizer, (int32_t[]){1, 2, 1, 3, 11}, 5, true, &out, &error));
    ck_assert_str_eq(icae_text_string(&out), "x\xC3\xA9 a"); /* appended; one run without <s> */
    icae_text_release(&out);
    icae_tokenizer_free(tokenizer);

    tokenizer = open_small(folder, ", " STRIP, "");
    check_decodes(tokenizer, " ab a", 12, 11);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(holds_a_run_of_bytes_back_until_it_has_ended) {
    icae_tokenizer *tokenizer = open_small(test_folder("marked-stream"), NULL, NULL);
    icae_token_stream stream = {0};
    icae_text out = {0};
    icae_token_stream_push(&stream, tokenizer, 11, &out);
    ck_assert_str_eq(icae_text_string(&out), "a");
    icae_token_stream_push(&stream, tokenizer, 2, &out);
    icae_token_stream_push(&stream, tokenizer, 3, &out);
    ck_assert_str_eq(icae_text_string(&out), "a");
    icae_token_stream_push(&stream, tokenizer, 12, &out);
    ck_assert_str_eq(icae_text_string(&out), "a\xC3\xA9 ab");
    icae_token_stream_push(&stream, tokenizer, 2, &out);
    icae_token_stream_finish(&stream, &out);
    ck_assert_str_eq(icae_text_string(&out), "a\xC3\xA9 ab" FFFD);
    icae_text_release(&out);
    icae_tokenizer_free(tokenizer);
}
END_TEST

#define METASPACE(rest)                                                                        \
    "\"normalizer\": null,\n\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": "    \
    "\"" MARK "\"" rest "}"

START_TEST(follows_the_variants_that_are_found_in_the_wild) {
    const char *folder = test_folder("marked-variants");
    const char *rest = NORMALIZER ",\n\"pre_tokenizer\": null";
    icae_tokenizer *tokenizer = open_small(
        folder, rest, METASPACE(", \"prepend_scheme\": \"first\", \"split\": false"));
    check_encodes(tokenizer, "ab<s>ab a", 12, 1, 10, 11);
    check_encodes(tokenizer, " ab", 12);
    check_encodes(tokenizer, "<s>ab", 1, 10);
    icae_tokenizer_free(tokenizer);
    tokenizer = open_small(folder, rest, METASPACE(", \"prepend_scheme\": \"always\""));
    check_encodes(tokenizer, "ab<s>ab  a", 12, 1, 12, 7, 11); /* every mark begins a piece */
    check_encodes(tokenizer,
                  "\xE2\x96\x81"
                  "ab",
                  12);
    icae_tokenizer_free(tokenizer);
    tokenizer = open_small(folder, rest,
                           METASPACE(", \"prepend_scheme\": \"never\", "
                                     "\"add_prefix_space\": false"));
    check_encodes(tokenizer, "ab ab", 10, 12);
    icae_tokenizer_free(tokenizer);
    /* Gemma's */
    tokenizer = open_small(folder, rest,
                           "\"normalizer\": " REPLACE ", \"pre_tokenizer\": {\"type\": "
                           "\"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": "
                           "\"MergedWithPrevious\", \"invert\": false}");
    check_encodes(tokenizer, "ab  ab", 10, 7, 12);
    icae_tokenizer_free(tokenizer);
    /* an added token is looked for with the mark in front, and decodes to that */
    tokenizer = open_small(folder,
                           "\"<s>\", \"single_word\": false, \"lstrip\": false, "
                           "\"rstrip\": false, \"normalized\": false",
                           "\"<s>\", \"single_word\": false, \"lstrip\": false, "
                           "\"rstrip\": false, \"normalized\": true");
    check_encodes(tokenizer, "<s>ab <s>", 1, 10, 1);
    check_encodes(tokenizer, "a<s>", 11, 0);
    check_decodes(tokenizer, "ab <s>", 10, 1);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "<s>"), 1);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* Where a merge crosses from a word into the next mark, text must not be cut there. */
START_TEST(merges_across_words_where_the_merges_say_so) {
    icae_tokenizer *tokenizer = open_small(test_folder("marked-across"), "\"merges\": [",
                                           "\"merges\": [[\"b\", \"" MARK "\"], ");
    check_encodes(tokenizer, "ab a", 11, 15, 8);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(gives_texts_back) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, "tests/golden/llama2/model", &error));
    icae_rng rng = {.seed = 31};
    for (int i = 0; i < 5000; i++) {
        icae_text text = {0}, back = {0};
        for (uint64_t n = icae_rng_below(&rng, 12); n; n--) {
            char spelled[4];
            int32_t point = (int32_t)icae_rng_below(&rng, n % 2 ? 0x80 : 0x110000);
            if (point == 0x2581 || icae_rng_below(&rng, 4) == 0) point = ' ';
            icae_text_append(&text, spelled, (size_t)icae_utf8_encode(point, spelled));
        }
        int32_t *ids;
        size_t count;
        ck_ok(icae_tokenizer_encode(tokenizer, icae_text_string(&text), text.length, false,
                                    &ids, &count, &error));
        ck_ok(icae_tokenizer_decode(tokenizer, ids, count, false, &back, &error));
        ck_assert_uint_eq(back.length, text.length);
        ck_assert_int_eq(memcmp(icae_text_string(&back), icae_text_string(&text), text.length),
                         0);
        icae_text_release(&text);
        icae_text_release(&back);
        free(ids);
    }
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(refuses_by_name_what_it_does_not_follow) {
    const char *rest = NORMALIZER ",\n\"pre_tokenizer\": null";
    const struct {
        const char *from, *to, *part;
    } cases[] = {
        {PREPEND ", ", "", "got Sequence"},
        {PREPEND, "{\"type\": \"Prepend\", \"prepend\": \"_\"}", "Prepend of U+2581, got _"},
        {PREPEND, "{\"type\": \"Strip\"}", "got Sequence"},
        {REPLACE, REPLACE ", " REPLACE, "got Sequence"},
        {"{\"String\": \" \"}", "{\"Regex\": \" \"}", "\"Regex\""},
        {"{\"String\": \" \"}", "{\"String\": \"\\t\"}", "normalizer Replace of \" \""},
        {"\"pre_tokenizer\": null", "\"pre_tokenizer\": {\"type\": \"Whitespace\"}",
         "got Whitespace"},
        {rest, METASPACE(", \"prepend_scheme\": \"last\""), "got last"},
        {rest, METASPACE(", \"add_prefix_space\": false"), "add_prefix_space"},
        {rest, METASPACE(", \"pattern\": 1"), "\"pattern\""},
        {rest,
         "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\"}, "
         "\"normalizer\": "
         "null",
         "U+2581, got _"},
        {rest,
         "\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Metaspace\", "
         "\"replacement\": \"" MARK "\"}",
         "got Metaspace"},
        {"{\"type\": \"Fuse\"}, " STRIP, STRIP, "got Strip"},
        {", {\"type\": \"Fuse\"}, " STRIP, "", "got fewer"},
        {STRIP, STRIP ", " STRIP, "got Strip"},
        {"\"start\": 1", "\"start\": 2", "one space at the start"},
        {"\"stop\": 0", "\"stop\": 1", "one space at the start"},
        {"\"content\": \" \", \"start\"", "\"content\": \"_\", \"start\"",
         "one space at the start"},
        {UNREPLACE, REPLACE, "decoder Replace of"},
        {"\"decoder\": {\"type\": \"Sequence\"", "\"decoder\": {\"type\": \"Metaspace\"",
         "got Metaspace"},
        {"\"unk_token\": \"<unk>\"", "\"unk_token\": \"<x>\"", "<x>"},
    };
    const char *folder = test_folder("marked-refusals");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_error error = {0};
        icae_tokenizer *tokenizer;
        ck_assert_msg(open_changed(&tokenizer, folder, cases[i].from, cases[i].to, &error) !=
                          ICAE_OK,
                      "accepted: %s", cases[i].to);
        ck_assert_ptr_null(tokenizer);
        ck_assert_msg(strstr(error.message, cases[i].part) != NULL, "\"%s\" lacks \"%s\"",
                      error.message, cases[i].part);
    }
}
END_TEST

SUITE_OF(tokenizer_marked, 60, marks_spaces_and_begins_every_section_with_one,
         spells_unknown_characters_in_bytes_where_all_are_there,
         decodes_runs_of_bytes_all_or_nothing_and_strips_one_space_at_the_start,
         holds_a_run_of_bytes_back_until_it_has_ended,
         follows_the_variants_that_are_found_in_the_wild,
         merges_across_words_where_the_merges_say_so, gives_texts_back,
         refuses_by_name_what_it_does_not_follow)
