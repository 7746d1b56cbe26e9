/* SPDX-License-Identifier: MIT */
/* Tokenizers at their limits: sizes, ids with holes, odd names of bytes, odd files beside them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/formats/tokenizer_internal.h"
#include "icae/file.h"
#include "icae/gguf_write.h"
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
                         "\"<0x0@>\": 8, \"a" MARK
                         "b\": 9, \"<0xa`>\": 10, \"<0x0g>\": 13, \"\": 11",
                         ""));
    check_text(tokenizer, (const int32_t[]){0, 1}, 2, "\xC3\xA9");
    check_text(
        tokenizer, (const int32_t[]){2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 10, 13}, 12,
        "<0xG0><0x0G><0x/0><0x0A][0x0A><0x0:><0x0@>a b<0xa`><0x0g>"); /* nothing for the empty 11 and the hole 12 */
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
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, ""), -1);
    ck_assert_ptr_null(icae_pretokenizer_find("none"));
    icae_tokenizer_free(tokenizer);
}
END_TEST

static void check_ids(const icae_tokenizer *tokenizer, const char *text, size_t wanted,
                      const int32_t *expected) {
    int32_t *ids;
    size_t count;
    ck_ok(icae_tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &count, &error));
    ck_assert_msg(count == wanted, "\"%s\": %zu ids", text, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(ids[i] == expected[i], "\"%s\": id %zu is %d", text, i, ids[i]);
    free(ids);
}

START_TEST(gives_a_merge_that_stands_twice_its_later_rank) {
    icae_tokenizer *tokenizer =
        open_json(test_folder("tokenizer-merge-twice"),
                  "{" BYTELEVEL MODEL("", "\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"bc\": 4",
                                      "\"a b\", \"b c\", \"a b\""));
    check_ids(tokenizer, "abc", 2, (const int32_t[]){0, 4});
    check_ids(tokenizer, "ab", 1, (const int32_t[]){3});
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* Marks set late (Metaspace): an added token is looked for as it is written. */
START_TEST(looks_for_normalized_tokens_before_late_marks) {
    icae_tokenizer *tokenizer = open_json(
        test_folder("tokenizer-late-marks"),
        "{\"added_tokens\": [{\"id\": 3, \"content\": \"b a\", \"normalized\": true}], "
        "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"" MARK
        "\", \"prepend_scheme\": \"never\"}, \"decoder\": {\"type\": \"Sequence\", "
        "\"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK
        "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": "
        "\"Fuse\"}]}, " MODEL("", "\"a\": 0, \"b\": 1, \"" MARK "\": 2", ""));
    check_ids(tokenizer, "ab a b", 4, (const int32_t[]){0, 3, 2, 1});
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* Its marks are put in order, so what is written is not what it decodes to, though as long. */
START_TEST(finds_no_added_token_that_decodes_to_another_text) {
    icae_tokenizer *tokenizer = open_json(
        test_folder("tokenizer-reordered"),
        "{\"normalizer\": {\"type\": \"NFC\"}, \"added_tokens\": [{\"id\": 1, "
        "\"content\": \"q\xCC\x87\xCC\xA3\", \"normalized\": true}], " BYTELEVEL MODEL(
            "", "\"a\": 0", ""));
    check_ids(tokenizer, "q\xCC\x87\xCC\xA3", 1, (const int32_t[]){1});
    check_text(tokenizer, (const int32_t[]){1}, 1, "q\xCC\xA3\xCC\x87");
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "q\xCC\x87\xCC\xA3"), -1);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- tokenizer.model ---- */

/* A piece of at most 100 bytes; type 0: none is written. */
static void put_piece(icae_text *out, const char *text, int type) {
    size_t length = strlen(text);
    icae_text_append_char(out, 0x0A);
    icae_text_append_char(out, (char)(length + 2 + (type ? 2 : 0)));
    icae_text_append_char(out, 0x0A);
    icae_text_append_char(out, (char)length);
    icae_text_append_string(out, text);
    if (!type) return;
    icae_text_append_char(out, 0x18);
    icae_text_append_char(out, (char)type);
}

/* The specs: BPE; no prefix, spaces as they are. */
static const char specs[] = "\x12\2\x18\2\x1A\4\x18\0\x20\0";

static icae_tokenizer *open_model(const char *folder, icae_text *model) {
    icae_tokenizer *tokenizer;
    ck_assert(!model->failed);
    ck_ok(icae_file_write(test_path(folder, "tokenizer.model"), model->data, model->length,
                          &error));
    icae_text_release(model);
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    return tokenizer;
}

/* What other versions of SentencePiece write besides: test data, a denormalizer with a name. Pieces 1 and 2
 * are bos and eos only if they are control tokens. A control token is no part of a merge. */
START_TEST(passes_over_what_changes_nothing_in_a_model) {
    static const char others[] = "\x22\1x\x2A\3\x0A\1x";
    const char *folder = test_folder("tokenizer-model-others");
    icae_text model = {0};
    put_piece(&model, "<unk>", 2);
    put_piece(&model, "a", 0);
    put_piece(&model, "b", 1);
    put_piece(&model, "<s>", 3);
    put_piece(&model, "<s>a", 1);
    icae_text_append(&model, specs, sizeof specs - 1);
    icae_text_append(&model, others, sizeof others - 1);
    write_file(folder, "tokenizer_config.json", "{\"legacy\": false}");
    icae_tokenizer *tokenizer = open_model(folder, &model);
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), -1);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), -1);
    check_ids(tokenizer, "ab<s>a", 4, (const int32_t[]){1, 2, 3, 1});
    icae_tokenizer_free(tokenizer);

    put_piece(&model, "a", 0); /* so few pieces that there is no place 1 */
    icae_text_append(&model, specs, sizeof specs - 1);
    tokenizer = open_model(folder, &model);
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), -1);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(reads_models_of_many_pieces) {
    enum { N = 10000 };
    icae_text model = {0};
    char text[16];
    put_piece(&model, "a", 0);
    for (int i = 1; i < N; i++) {
        snprintf(text, sizeof text, "p%d", i);
        put_piece(&model, text, i <= 2 ? 3 : 0); /* bos and eos */
    }
    icae_text_append(&model, specs, sizeof specs - 1);
    icae_tokenizer *tokenizer = open_model(test_folder("tokenizer-many-pieces"), &model);
    ck_assert_int_eq(icae_tokenizer_size(tokenizer), N);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "p9999"), 9999);
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), 1);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 2);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* A table of characters that is there, but empty. */
START_TEST(accepts_an_empty_table_of_characters_in_a_gguf) {
    static const char *const tokens[] = {"a", "b"};
    static const int32_t types[] = {1, 1};
    static const float scores[] = {-1, -2};
    const char *path = test_path(test_folder("tokenizer-empty-table"), "x.gguf");
    const struct {
        const char *key;
        icae_gguf_type type;
        const void *raw;
        size_t count;
    } arrays[] = {{"tokenizer.ggml.token_type", ICAE_GGUF_I32, types, 2},
                  {"tokenizer.ggml.scores", ICAE_GGUF_F32, scores, 2},
                  {"tokenizer.ggml.precompiled_charsmap", ICAE_GGUF_U8, types, 0}};
    icae_gguf_writer writer;
    icae_gguf_begin(&writer, path);
    icae_gguf_put_string(&writer, "tokenizer.ggml.model", "llama");
    icae_gguf_put_strings(&writer, "tokenizer.ggml.tokens", tokens, 2);
    for (size_t i = 0; i < 3; i++) {
        icae_gguf_put_item(&writer, &(icae_gguf_item){.key = arrays[i].key,
                                                      .type = ICAE_GGUF_ARRAY,
                                                      .element_type = arrays[i].type,
                                                      .count = arrays[i].count,
                                                      .raw = arrays[i].raw});
    }
    icae_gguf_put_bool(&writer, "tokenizer.ggml.add_space_prefix", false);
    ck_ok(icae_gguf_commit(&writer, &error));
    icae_gguf file;
    icae_tokenizer *tokenizer;
    ck_ok(icae_gguf_open(&file, path, &error));
    ck_ok(icae_tokenizer_from_gguf(&tokenizer, &file, &error));
    icae_gguf_close(&file);
    check_ids(tokenizer, "ba", 2, (const int32_t[]){1, 0});
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
         gives_a_merge_that_stands_twice_its_later_rank,
         looks_for_normalized_tokens_before_late_marks,
         finds_no_added_token_that_decodes_to_another_text,
         passes_over_what_changes_nothing_in_a_model, reads_models_of_many_pieces,
         accepts_an_empty_table_of_characters_in_a_gguf,
         takes_whole_pieces_with_marks_as_they_are, takes_what_the_files_beside_it_leave_open)
