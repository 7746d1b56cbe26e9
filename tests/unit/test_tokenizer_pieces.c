/* SPDX-License-Identifier: MIT */
/*
 * SentencePiece vocabularies from a GGUF and from tokenizer.model: the same ids from both, merges by
 * score, and everything that must be refused.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/tokenizer.h"
#include "suites.h"

#define MARK "\xE2\x96\x81"

typedef struct piece {
    const char *text;
    float score;
    int type;
} piece;

/* "bc" has a better score than "ab", and "ab" than "aa" and "bb". There is no merge of "ab" and "c"
 * in a text where "bc" was made, but a second one, of "a" and "bc", that leads to "abc" as well. */
static const piece pieces[] = {
    {"<unk>", 0, 2},   {"<s>", 0, 3},    {"</s>", 0, 3},  {"<0xC3>", 0, 6}, {"<0xA9>", 0, 6},
    {MARK "a", -1, 1}, {"bc", -2, 1},    {"ab", -3, 1},   {"aa", -4, 1},    {"bb", -4, 1},
    {MARK, -5, 1},     {"a", -6, 1},     {"b", -7, 1},    {"c", -8, 1},     {"abc", -9, 1},
    {"<mask>", 0, 4},  {"[PAD1]", 0, 5}, {"aaa", -10, 1},
};
enum { N_PIECES = sizeof pieces / sizeof pieces[0] };

static void put(icae_text *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        icae_text_append_char(out, (char)(value >> (8 * i)));
}

static void put_string(icae_text *out, const char *string) {
    put(out, strlen(string), 8);
    icae_text_append_string(out, string);
}

static uint32_t bits_of(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

typedef struct gguf_settings {
    size_t n_scores, n_types;
    float last_score;
    int last_type;
    bool has_prefix, removes_spaces, has_table;
    const char *last_text; /* NULL: as above */
} gguf_settings;
static const gguf_settings good = {N_PIECES, N_PIECES, -10, 1, true, false, false, NULL};

static icae_status open_gguf(icae_tokenizer **tokenizer, const char *folder, gguf_settings s,
                             icae_error *why) {
    icae_text out = {0};
    icae_error error = {0};
    icae_text_append_string(&out, "GGUF");
    put(&out, 3, 4);
    put(&out, 0, 8);
    put(&out, s.has_table ? 8 : 7, 8);
    put_string(&out, "tokenizer.ggml.model");
    put(&out, ICAE_GGUF_STRING, 4);
    put_string(&out, "llama");
    put_string(&out, "tokenizer.ggml.tokens");
    put(&out, ICAE_GGUF_ARRAY, 4);
    put(&out, ICAE_GGUF_STRING, 4);
    put(&out, N_PIECES, 8);
    for (int i = 0; i < N_PIECES; i++)
        put_string(&out, i == N_PIECES - 1 && s.last_text ? s.last_text : pieces[i].text);
    put_string(&out, "tokenizer.ggml.scores");
    put(&out, ICAE_GGUF_ARRAY, 4);
    put(&out, ICAE_GGUF_F32, 4);
    put(&out, s.n_scores, 8);
    for (size_t i = 0; i < s.n_scores; i++)
        put(&out, bits_of(i == N_PIECES - 1 ? s.last_score : pieces[i].score), 4);
    put_string(&out, "tokenizer.ggml.token_type");
    put(&out, ICAE_GGUF_ARRAY, 4);
    put(&out, ICAE_GGUF_I32, 4);
    put(&out, s.n_types, 8);
    for (size_t i = 0; i < s.n_types; i++)
        put(&out, (uint64_t)(i == N_PIECES - 1 ? s.last_type : pieces[i].type), 4);
    put_string(&out, "tokenizer.ggml.bos_token_id");
    put(&out, ICAE_GGUF_U32, 4);
    put(&out, 1, 4);
    put_string(&out, "tokenizer.ggml.add_space_prefix");
    put(&out, ICAE_GGUF_BOOL, 4);
    put(&out, s.has_prefix, 1);
    put_string(&out, "tokenizer.ggml.remove_extra_whitespaces");
    put(&out, ICAE_GGUF_BOOL, 4);
    put(&out, s.removes_spaces, 1);
    if (s.has_table) {
        put_string(&out, "tokenizer.ggml.precompiled_charsmap");
        put(&out, ICAE_GGUF_ARRAY, 4);
        put(&out, ICAE_GGUF_U8, 4);
        put(&out, 3, 8);
        put(&out, 7, 3);
    }
    const char *path = test_path(folder, "small.gguf");
    ck_ok(icae_file_write(path, out.data, out.length, &error));
    icae_text_release(&out);
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    icae_status status = icae_tokenizer_from_gguf(tokenizer, &file, why);
    icae_gguf_close(&file);
    return status;
}

/* ---- tokenizer.model ---- */

static void put_varint(icae_text *out, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        icae_text_append_char(out, (char)(value | 0x80));
    icae_text_append_char(out, (char)value);
}

static void put_number(icae_text *out, unsigned field, uint64_t value) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

static void put_bytes(icae_text *out, unsigned field, const void *data, size_t bytes) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes);
    icae_text_append(out, data, bytes);
}

typedef struct model_settings {
    int model_type, prefix, removes_spaces, escapes, suffix;
    const char *table;
    unsigned odd_piece_field, odd_normalizer_field, odd_field;
    bool lacks_trainer;
    size_t cut; /* bytes left out at the end */
} model_settings;
static const model_settings good_model = {2, 1, 0, 1, 0, "", 0, 0, 0, false, 0};

static void write_model(const char *folder, model_settings s) {
    icae_text out = {0}, part = {0};
    icae_error error = {0};
    for (int i = 0; i < N_PIECES; i++) {
        icae_text_clear(&part);
        put_bytes(&part, 1, pieces[i].text, strlen(pieces[i].text));
        put_varint(&part, 2 << 3 | 5);
        put(&part, bits_of(pieces[i].score), 4);
        if (pieces[i].type != 1) put_number(&part, 3, (uint64_t)pieces[i].type);
        if (i == 5 && s.odd_piece_field) put_number(&part, s.odd_piece_field, 1);
        put_bytes(&out, 1, part.data, part.length);
    }
    icae_text_clear(&part);
    put_bytes(&part, 7, "made for a test", 15); /* something about training */
    put_number(&part, 3, (uint64_t)s.model_type);
    put_number(&part, 24, (uint64_t)s.suffix);
    put_number(&part, 41, 1);
    put_number(&part, 42, UINT64_MAX); /* -1: no eos */
    if (!s.lacks_trainer) put_bytes(&out, 2, part.data, part.length);
    icae_text_clear(&part);
    put_bytes(&part, 1, "identity", 8);
    put_bytes(&part, 2, s.table, strlen(s.table));
    put_number(&part, 3, (uint64_t)s.prefix);
    put_number(&part, 4, (uint64_t)s.removes_spaces);
    put_number(&part, 5, (uint64_t)s.escapes);
    if (s.odd_normalizer_field) put_number(&part, s.odd_normalizer_field, 1);
    put_bytes(&out, 3, part.data, part.length);
    if (s.odd_field) put_bytes(&out, s.odd_field, "x", 1);
    ck_assert(!out.failed && !part.failed);
    ck_ok(icae_file_write(test_path(folder, "tokenizer.model"), out.data, out.length - s.cut,
                          &error));
    icae_text_release(&out);
    icae_text_release(&part);
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

static void check_small(const icae_tokenizer *tokenizer) {
    check_encodes(tokenizer, "abc", 5, 6);
    check_encodes(tokenizer, "bab", 10, 12, 7);
    check_encodes(tokenizer, "babc", 10, 12, 14); /* by way of bc */
    check_encodes(tokenizer, "caaa", 10, 13, 17);
    check_encodes(tokenizer, "caabb", 10, 13, 11, 7, 12); /* ab is better than aa and bb */
    check_encodes(tokenizer, "caabba", 10, 13, 11, 7, 12, 11);
    check_encodes(tokenizer, "cbbb", 10, 13, 9, 12);
    check_encodes(tokenizer, "\xC3\xA9xyz", 10, 3, 4, 0);
    check_encodes(tokenizer, "a<s>a<mask>c", 5, 1, 5, 15, 10, 13);
    check_encodes(tokenizer, "[PAD1]", 10, 0); /* no token at all */
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), 1);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), -1);
    ck_assert(icae_tokenizer_is_special(tokenizer, 0) &&
              icae_tokenizer_is_special(tokenizer, 2));
    ck_assert(!icae_tokenizer_is_special(tokenizer, 15));
    icae_error error = {0};
    icae_text out = {0};
    ck_ok(icae_tokenizer_decode(tokenizer, (int32_t[]){5, 6, 3, 4, 5}, 5, false, &out, &error));
    ck_assert_str_eq(icae_text_string(&out), "abc\xC3\xA9 a");
    icae_text_release(&out);
}

START_TEST(merges_by_score_from_a_gguf_and_from_tokenizer_model_alike) {
    const char *folder = test_folder("pieces-same");
    icae_error error = {0};
    icae_tokenizer *gguf, *model;
    ck_ok(open_gguf(&gguf, folder, good, &error));
    check_small(gguf);
    write_model(folder, good_model);
    ck_ok(icae_tokenizer_open_folder(&model, folder, &error));
    check_small(model);
    ck_assert_uint_eq(icae_tokenizer_fingerprint(gguf), icae_tokenizer_fingerprint(model));
    icae_tokenizer_free(gguf);
    icae_tokenizer_free(model);

    gguf_settings bare = good;
    bare.has_prefix = false;
    ck_ok(open_gguf(&gguf, folder, bare, &error));
    check_encodes(gguf, "abc a", 14, 5);
    icae_text out = {0};
    ck_ok(icae_tokenizer_decode(gguf, (int32_t[]){5, 6}, 2, false, &out, &error));
    ck_assert_str_eq(icae_text_string(&out), " abc"); /* nothing was put in front */
    icae_text_release(&out);
    icae_tokenizer_free(gguf);

    /* A run of spaces as a token, as in Gemma's: found among marks, whoever set them. */
    gguf_settings spaced = bare;
    spaced.last_type = 4;
    spaced.last_text = "  ";
    ck_ok(open_gguf(&gguf, folder, spaced, &error));
    check_encodes(gguf, "c  c", 13, 17, 13);
    check_encodes(gguf, "c " MARK "c", 13, 17, 13);
    check_encodes(gguf, "c   c", 13, 17, 10, 13);
    ck_ok(icae_tokenizer_decode(gguf, (int32_t[]){13, 17, 13}, 3, false, &out, &error));
    ck_assert_str_eq(icae_text_string(&out), "c  c");
    icae_text_release(&out);
    icae_tokenizer_free(gguf);
}
END_TEST

static void write_config(const char *folder, const char *name, const char *text) {
    icae_error error = {0};
    ck_ok(icae_file_write(test_path(folder, name), text, strlen(text), &error));
}

START_TEST(takes_added_tokens_and_legacy_from_the_config_beside_tokenizer_model) {
    const char *folder = test_folder("pieces-config");
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    write_model(folder, good_model);
    write_config(folder, "added_tokens.json", "{\"<pad>\": 18}");
    ck_refused(icae_tokenizer_open_folder(&tokenizer, folder, &error), "added_tokens_decoder");
    write_config(
        folder, "tokenizer_config.json",
        "{\"added_tokens_decoder\": {\"1\": {\"content\": \"<s>\", \"special\": true}, "
        "\"18\": {\"content\": \"<pad>\", \"special\": true}}, \"legacy\": false, "
        "\"eos_token\": \"<pad>\"}");
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    check_encodes(tokenizer, "a<pad>a", 5, 18, 11); /* only the first section gets a mark */
    check_encodes(tokenizer, " a", 5);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 18);
    icae_tokenizer_free(tokenizer);

    static const char *const bad[][2] = {
        {"{\"added_tokens_decoder\": []}", "not an object"},
        {"{\"added_tokens_decoder\": {\"x\": {}}}", "got x"},
        {"{\"added_tokens_decoder\": {\"3\": {\"content\": \"<q>\"}}}", "id 3 stands for"},
        {"{\"added_tokens_decoder\": {\"18\": {\"content\": \"<q>\", \"lstrip\": true}}}",
         "lstrip"},
        {"{\"added_tokens_decoder\": {\"18\": {}}}", "needs an id and a content"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_config(folder, "tokenizer_config.json", bad[i][0]);
        ck_refused(icae_tokenizer_open_folder(&tokenizer, folder, &error), bad[i][1]);
        ck_assert_ptr_null(tokenizer);
    }
}
END_TEST

START_TEST(refuses_gguf_metadata_of_other_vocabularies) {
    const char *folder = test_folder("pieces-gguf-refusals");
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    gguf_settings bad = good;
    bad.n_scores--;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "scores has 17 entries for 18");
    bad = good;
    bad.n_types--;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "token_type has 17 entries for 18");
    bad = good;
    bad.last_score = NAN;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "score of token 17 is not a number");
    bad = good;
    bad.last_type = 7;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "not 1 to 6");
    bad.last_type = 2;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "both unknown");
    bad = good;
    bad.removes_spaces = true;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "remove_extra_whitespaces");
    bad = good;
    bad.has_table = true;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "precompiled_charsmap");
    ck_assert_ptr_null(tokenizer);
}
END_TEST

START_TEST(refuses_models_that_it_does_not_follow_or_that_are_damaged) {
    const char *folder = test_folder("pieces-model-refusals");
    struct {
        model_settings settings;
        const char *part;
    } cases[] = {
        {good_model, "model_type of 2"},
        {good_model, "remove_extra_whitespaces"},
        {good_model, "escape_whitespaces"},
        {good_model, "treat_whitespace_as_suffix"},
        {good_model, "precompiled_charsmap"},
        {good_model, "a piece has the field 4"},
        {good_model, "normalizer_spec has the field 7"},
        {good_model, "the model has the field 200"},
        {good_model, "expected pieces, trainer_spec"},
    };
    cases[0].settings.model_type = 1;
    cases[1].settings.removes_spaces = 1;
    cases[2].settings.escapes = 0;
    cases[3].settings.suffix = 1;
    cases[4].settings.table = "abc";
    cases[5].settings.odd_piece_field = 4;
    cases[6].settings.odd_normalizer_field = 7;
    cases[7].settings.odd_field = 200;
    cases[8].settings.lacks_trainer = true;
    icae_tokenizer *tokenizer;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_error error = {0};
        write_model(folder, cases[i].settings);
        ck_refused(icae_tokenizer_open_folder(&tokenizer, folder, &error), cases[i].part);
        ck_assert_ptr_null(tokenizer);
        ck_assert_ptr_nonnull(strstr(error.message, "tokenizer.model"));
    }
    for (size_t cut = 1; cut < 250; cut++) { /* normalizer_spec is last, so every cut hurts */
        icae_error error = {0};
        model_settings settings = good_model;
        settings.cut = cut;
        write_model(folder, settings);
        ck_assert_msg(icae_tokenizer_open_folder(&tokenizer, folder, &error) != ICAE_OK,
                      "accepted without the last %zu bytes", cut);
    }
}
END_TEST

SUITE_OF(tokenizer_pieces, 60, merges_by_score_from_a_gguf_and_from_tokenizer_model_alike,
         takes_added_tokens_and_legacy_from_the_config_beside_tokenizer_model,
         refuses_gguf_metadata_of_other_vocabularies,
         refuses_models_that_it_does_not_follow_or_that_are_damaged)
