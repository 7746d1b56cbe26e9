/* SPDX-License-Identifier: MIT */
/*
 * Where tokenizers come from: one small tokenizer as tokenizer.json and as GGUF metadata, the
 * files beside it, and everything that must be refused by name.
 */
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/tokenizer.h"
#include "suites.h"

#define ADDED_TOKEN(id, text, normalized, special)                                             \
    "{\"id\": " id ", \"content\": \"" text "\", \"single_word\": false, \"lstrip\": false, "  \
    "\"rstrip\": false, \"normalized\": " normalized ", \"special\": " special "}"

/* U+0120 is the space of the byte characters. Merges come in both notations. */
static const char small[] =
    "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n"
    "\"added_tokens\": [" ADDED_TOKEN("8", "<s>", "false", "true") ",\n" //
    ADDED_TOKEN(
        "9", "<s>>", "false",
        "false") "],\n"
                 "\"normalizer\": null,\n"
                 "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
                 "{\"type\": \"Digits\", \"individual_digits\": true},\n"
                 "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": "
                 "true, "
                 "\"use_regex\": true}]},\n"
                 "\"post_processor\": null,\n"
                 "\"decoder\": {\"type\": \"ByteLevel\"},\n"
                 "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                 "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                 "\"fuse_unk\": false, "
                 "\"byte_fallback\": false, \"ignore_merges\": false,\n"
                 "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\\u0120\": 3, \"\\u0120ab\": 4, "
                 "\"1\": 5, "
                 "\"11\": 6, \"aab\": 7, \"<s>\": 8, \"<s>>\": 9},\n"
                 "\"merges\": [[\"a\", \"b\"], \"\\u0120 ab\", [\"1\", \"1\"]]}}\n";

#define DIGITS "\"type\": \"Digits\", \"individual_digits\": true"
#define SPLIT(pattern, behavior, invert)                                                       \
    "\"type\": \"Split\", \"pattern\": " pattern ", \"behavior\": \"" behavior                 \
    "\", \"invert\": " invert
#define LLAMA3_SPLIT                                                                           \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "     \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

/* Writes tokenizer.json = small with `from` replaced by `to` (NULL: as it is). */
static void write_small(const char *folder, const char *from, const char *to) {
    icae_text text = {0};
    icae_error error = {0};
    const char *found = from ? strstr(small, from) : small;
    ck_assert_msg(found != NULL, "the small tokenizer lacks %s", from);
    icae_text_append(&text, small, (size_t)(found - small));
    if (to) icae_text_append_string(&text, to);
    icae_text_append_string(&text, found + (from ? strlen(from) : 0));
    ck_ok(icae_file_write(test_path(folder, "tokenizer.json"), text.data, text.length, &error));
    icae_text_release(&text);
}

static icae_tokenizer *open_small(const char *folder, const char *from, const char *to) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    write_small(folder, from, to);
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    return tokenizer;
}

static void write_file(const char *folder, const char *name, const char *text) {
    icae_error error = {0};
    ck_ok(icae_file_write(test_path(folder, name), text, strlen(text), &error));
}

/* ids: -1 ends them */
static void check_ids(const icae_tokenizer *tokenizer, const char *text, bool parse_special,
                      const int32_t *expected) {
    icae_error error = {0};
    int32_t *ids;
    size_t count, wanted = 0;
    ck_ok(icae_tokenizer_encode(tokenizer, text, strlen(text), parse_special, &ids, &count,
                                &error));
    while (expected[wanted] >= 0)
        wanted++;
    ck_assert_msg(count == wanted, "\"%s\": %zu ids, expected %zu", text, count, wanted);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(ids[i] == expected[i], "\"%s\": id %zu is %d, expected %d", text, i,
                      ids[i], expected[i]);
    free(ids);
}
#define check_encodes(tokenizer, text, parse_special, ...)                                     \
    check_ids(tokenizer, text, parse_special, (const int32_t[]){__VA_ARGS__, -1})

/* ---- a GGUF with nothing but metadata ---- */

static void put(icae_text *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        icae_text_append_char(out, (char)(value >> (8 * i)));
}

static void put_string(icae_text *out, const char *string) {
    put(out, strlen(string), 8);
    icae_text_append_string(out, string);
}

static void put_strings(icae_text *out, const char *key, const char *const *strings,
                        size_t count) {
    put_string(out, key);
    put(out, ICAE_GGUF_ARRAY, 4);
    put(out, ICAE_GGUF_STRING, 4);
    put(out, count, 8);
    for (size_t i = 0; i < count; i++)
        put_string(out, strings[i]);
}

typedef struct gguf_settings {
    const char *model, *pre, *odd_merge; /* the last replaces the first merge */
    size_t n_types;
    uint32_t first_type, eos;
    bool has_merges;
} gguf_settings;

static const gguf_settings good = {"gpt2", "smollm", NULL, 11, 1, 9, true};

static icae_status open_gguf(icae_tokenizer **tokenizer, const char *folder,
                             gguf_settings settings, icae_error *why) {
    icae_error error = {0};
    static const char *const tokens[] = {"a",  "b",   "ab",  "\304\240", "\304\240ab", "1",
                                         "11", "aab", "<s>", "<s>>",     "[PAD10]"};
    const char *merges[] = {"a b", "\304\240 ab", "1 1"};
    if (settings.odd_merge) merges[0] = settings.odd_merge;
    icae_text out = {0};
    icae_text_append_string(&out, "GGUF");
    put(&out, 3, 4);
    put(&out, 0, 8);
    put(&out, settings.has_merges ? 6 : 5, 8);
    put_string(&out, "tokenizer.ggml.model");
    put(&out, ICAE_GGUF_STRING, 4);
    put_string(&out, settings.model);
    put_string(&out, "tokenizer.ggml.pre");
    put(&out, ICAE_GGUF_STRING, 4);
    put_string(&out, settings.pre);
    put_strings(&out, "tokenizer.ggml.tokens", tokens, 11);
    put_string(&out, "tokenizer.ggml.token_type");
    put(&out, ICAE_GGUF_ARRAY, 4);
    put(&out, ICAE_GGUF_I32, 4);
    put(&out, settings.n_types, 8);
    for (size_t i = 0; i < settings.n_types; i++)
        put(&out, i == 0 ? settings.first_type : i == 8 ? 3 : i == 9 ? 4 : i == 10 ? 5 : 1, 4);
    put_string(&out, "tokenizer.ggml.eos_token_id");
    put(&out, ICAE_GGUF_U32, 4);
    put(&out, settings.eos, 4);
    if (settings.has_merges) put_strings(&out, "tokenizer.ggml.merges", merges, 3);

    const char *path = test_path(folder, "small.gguf");
    ck_ok(icae_file_write(path, out.data, out.length, &error));
    icae_text_release(&out);
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, path, &error));
    icae_status status = icae_tokenizer_from_gguf(tokenizer, &file, why);
    icae_gguf_close(&file);
    return status;
}

/* ---- tests ---- */

START_TEST(follows_merges_added_tokens_and_single_digits) {
    const char *folder = test_folder("tokenizer-follows");
    icae_tokenizer *tokenizer = open_small(folder, NULL, NULL);
    check_encodes(tokenizer, "ab ab", true, 2, 4);
    check_encodes(tokenizer, "aab", true, 0, 2);    /* no merge leads to 7 */
    check_encodes(tokenizer, "a11", true, 0, 5, 5); /* digits stand alone, so never "11" */
    check_encodes(tokenizer, "<s>ab", true, 8, 2);
    check_encodes(tokenizer, "<s>>ab", true, 9, 2);  /* the longest wins */
    check_encodes(tokenizer, "<s>>ab", false, 9, 2); /* added, but not special */
    check_encodes(tokenizer, "<s>ab", false, 2);     /* "<s>" as text: bytes without tokens */
    check_encodes(tokenizer, "", true, -1);
    ck_assert_int_eq(icae_tokenizer_size(tokenizer), 10);
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), -1);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), -1);
    ck_assert_ptr_null(icae_tokenizer_chat_template(tokenizer));
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, " ab"), 4);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(reads_the_same_tokenizer_from_json_and_from_gguf) {
    const char *folder = test_folder("tokenizer-same");
    icae_error error = {0};
    icae_tokenizer *json = open_small(folder, NULL, NULL), *gguf;
    ck_ok(open_gguf(&gguf, folder, good, &error));
    ck_assert_uint_eq(icae_tokenizer_fingerprint(json), icae_tokenizer_fingerprint(gguf));
    ck_assert_int_eq(icae_tokenizer_size(gguf), 10); /* the filler is none of the tokens */
    ck_assert_int_eq(icae_tokenizer_eos(gguf), 9);
    ck_assert_int_eq(icae_tokenizer_bos(gguf), -1);
    check_encodes(gguf, "<s>a11 ab<s>>", true, 8, 0, 5, 5, 4, 9);
    check_encodes(gguf, "<s>a<s>>", false, 0, 9);
    icae_tokenizer_free(gguf);

    gguf_settings other = good;
    other.pre = "gpt-2";
    ck_ok(open_gguf(&gguf, folder, other, &error));
    ck_assert(icae_tokenizer_fingerprint(json) != icae_tokenizer_fingerprint(gguf));
    check_encodes(gguf, "a11", true, 0, 6);
    icae_tokenizer_free(gguf);
    icae_tokenizer_free(json);
}
END_TEST

START_TEST(fingerprints_differ_when_anything_that_matters_does) {
    static const char *const changes[][2] = {
        {"[[\"a\", \"b\"], \"\\u0120 ab\",", "[\"\\u0120 ab\", [\"a\", \"b\"],"},
        {"\"aab\": 7", "\"bab\": 7"},
        {"\"aab\": 7", "\"aab\": 10"},
        {", [\"1\", \"1\"]]", "]"},
        {"\"normalized\": false, \"special\": false",
         "\"normalized\": false, \"special\": true"},
        {"\"ignore_merges\": false", "\"ignore_merges\": true"},
    };
    const char *folder = test_folder("tokenizer-fingerprints");
    icae_tokenizer *tokenizer = open_small(folder, NULL, NULL);
    uint64_t first = icae_tokenizer_fingerprint(tokenizer);
    icae_tokenizer_free(tokenizer);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        tokenizer = open_small(folder, changes[i][0], changes[i][1]);
        ck_assert_msg(icae_tokenizer_fingerprint(tokenizer) != first, "change %zu", i);
        icae_tokenizer_free(tokenizer);
    }
}
END_TEST

START_TEST(honours_the_switches_that_change_ids) {
    const char *folder = test_folder("tokenizer-switches");
    icae_tokenizer *tokenizer =
        open_small(folder, "\"ignore_merges\": false", "\"ignore_merges\": true");
    check_encodes(tokenizer, "aab aab", true, 7, 3, 0, 2);
    icae_tokenizer_free(tokenizer);

    tokenizer = open_small(folder, "\"unk_token\": null", "\"unk_token\": \"b\"");
    check_encodes(tokenizer, "a?!", true, 0, 1, 1);
    icae_tokenizer_free(tokenizer);
    tokenizer = open_small(folder,
                           "\"unk_token\": null, \"continuing_subword_prefix\": null, "
                           "\"end_of_word_suffix\": null, \"fuse_unk\": false",
                           "\"unk_token\": \"b\", \"fuse_unk\": true");
    check_encodes(tokenizer, "a?!b??", true, 0, 1, 1, 1); /* a run within a piece is one */
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(looks_for_normalized_tokens_after_the_others) {
    const char *folder = test_folder("tokenizer-normalized");
    icae_tokenizer *tokenizer =
        open_small(folder, "\"added_tokens\": [",
                   "\"added_tokens\": [" ADDED_TOKEN("20", "a<s", "true", "false") ", " //
                   ADDED_TOKEN("21", "b b", "true", "false") ", ");
    check_encodes(tokenizer, "a<s", true, 20);
    check_encodes(tokenizer, "a<s>", true, 0,
                  8); /* <s> is cut out first, though further right */
    check_encodes(tokenizer, "ab b1", true, 0, 21, 5);
    ck_assert_int_eq(icae_tokenizer_size(tokenizer), 22); /* 10 to 19 are holes */
    icae_error error = {0};
    icae_text out = {0};
    ck_ok(icae_tokenizer_decode(tokenizer, (int32_t[]){21, 15, 4, -7, 99}, 5, false, &out,
                                &error));
    ck_assert_str_eq(icae_text_string(&out), "b b ab");
    icae_text_release(&out);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(composes_text_before_it_is_cut) {
    const char *folder = test_folder("tokenizer-nfc");
    icae_tokenizer *plain =
        open_small(folder, "\"aab\": 7", "\"aab\": 7, \"\u00c3\": 10, \"\u00a9\": 11");
    check_encodes(plain, "e\xCC\x81\xC3\xA9", true, 10,
                  11); /* no tokens for e and the accent */
    uint64_t fingerprint = icae_tokenizer_fingerprint(plain);
    icae_tokenizer_free(plain);

    icae_text nfc = {0}; /* with three more added tokens, the first two of them normalized */
    icae_text_append_string(
        &nfc, "\"added_tokens\": [" ADDED_TOKEN("20", "be\xCC\x81", "true", "false") ", " //
        ADDED_TOKEN("21", "a\xC3\xA9", "true", "false") ", "                              //
        ADDED_TOKEN("22", "ae\xCC\x81", "false", "false") ", ");
    write_small(folder, "\"aab\": 7", "\"aab\": 7, \"\u00c3\": 10, \"\u00a9\": 11");
    char *text;
    icae_error error = {0};
    ck_ok(icae_file_read(test_path(folder, "tokenizer.json"), 1 << 20, &text, NULL, &error));
    icae_text whole = {0};
    char *added = strstr(text, "\"added_tokens\": ["), *rest = added + 17;
    char *normalizer = strstr(text, "\"normalizer\": null");
    ck_assert(added && normalizer);
    icae_text_append(&whole, text, (size_t)(added - text));
    icae_text_append(&whole, nfc.data, nfc.length);
    icae_text_append(&whole, rest, (size_t)(normalizer - rest));
    icae_text_append_string(&whole, "\"normalizer\": {\"type\": \"NFC\"}");
    icae_text_append_string(&whole, normalizer + strlen("\"normalizer\": null"));
    write_file(folder, "tokenizer.json", icae_text_string(&whole));
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    check_encodes(tokenizer, "e\xCC\x81\xC3\xA9", true, 10, 11, 10, 11);
    check_encodes(tokenizer, "be\xCC\x81", true, 20);
    check_encodes(tokenizer, "b\xC3\xA9", true, 20); /* what it looks like when composed */
    check_encodes(tokenizer, "ae\xCC\x81", true, 22);
    check_encodes(tokenizer, "a\xC3\xA9", true, 21);
    ck_assert(icae_tokenizer_fingerprint(tokenizer) != fingerprint);
    icae_tokenizer_free(tokenizer);
    icae_text_release(&nfc);
    icae_text_release(&whole);
    free(text);
}
END_TEST

START_TEST(takes_normalization_and_whole_words_from_the_name_of_a_ggufs_split) {
    const char *folder = test_folder("tokenizer-gguf-names");
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    gguf_settings settings = good;
    settings.pre = "llama-bpe";
    ck_ok(open_gguf(&tokenizer, folder, settings, &error));
    check_encodes(tokenizer, "aab 11", true, 7, 3, 6); /* no merge leads to 7 */
    icae_tokenizer_free(tokenizer);
    settings.pre = "qwen2";
    ck_ok(open_gguf(&tokenizer, folder, settings, &error));
    check_encodes(tokenizer, "aab 11", true, 0, 2, 3, 5, 5);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(takes_bos_eos_and_template_from_the_files_beside_it) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    const char *folder = test_folder("tokenizer-beside");
    write_small(folder, NULL, NULL);
    write_file(folder, "config.json", "{\"bos_token_id\": 5, \"eos_token_id\": 6}");
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), 5);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 6);
    icae_tokenizer_free(tokenizer);

    write_file(folder, "generation_config.json", "{\"eos_token_id\": [9, 8]}");
    write_file(folder, "tokenizer_config.json",
               "{\"bos_token\": {\"content\": \"<s>\"}, \"chat_template\": \"one\"}");
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), 8);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 9);
    ck_assert_str_eq(icae_tokenizer_chat_template(tokenizer), "one");
    icae_tokenizer_free(tokenizer);

    write_file(folder, "tokenizer_config.json",
               "{\"bos_token\": null, \"eos_token\": \"<s>\", \"chat_template\": ["
               "{\"name\": \"rag\", \"template\": \"x\"},"
               "{\"name\": \"default\", \"template\": \"two\"}]}");
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), -1); /* null says: none */
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 8);
    ck_assert_str_eq(icae_tokenizer_chat_template(tokenizer), "two");
    icae_tokenizer_free(tokenizer);

    write_file(folder, "chat_template.jinja", "three\n");
    ck_ok(icae_tokenizer_open_folder(&tokenizer, folder, &error));
    ck_assert_str_eq(icae_tokenizer_chat_template(tokenizer), "three\n");
    icae_tokenizer_free(tokenizer);

    write_file(folder, "tokenizer_config.json", "{\"eos_token\": \"</s>\"}");
    ck_refused(icae_tokenizer_open_folder(&tokenizer, folder, &error), "eos_token is \"</s>\"");
    ck_assert_ptr_null(tokenizer);
    write_file(folder, "tokenizer_config.json", "{\"eos_token\": 7}");
    ck_refused(icae_tokenizer_open_folder(&tokenizer, folder, &error), "eos_token");
    write_file(folder, "tokenizer_config.json", "{}");
    write_file(folder, "generation_config.json", "{\"bos_token_id\": 10}");
    ck_refused(icae_tokenizer_open_folder(&tokenizer, folder, &error), "bos_token_id");
}
END_TEST

START_TEST(refuses_by_name_what_it_does_not_follow) {
    static const struct {
        const char *from, *to, *part;
    } cases[] = {
        {"\"normalizer\": null", "\"normalizer\": {\"type\": \"NFKC\"}", "Replace], got NFKC"},
        {"\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\", \"left\": 1}",
         "\"left\""},
        {"\"type\": \"Digits\"", "\"type\": \"Punctuation\"",
         "Sequence of Punctuation, ByteLevel"},
        {"\"type\": \"Digits\"", "\"type\": \"Split\"", "individual_digits"},
        {DIGITS, SPLIT("{\"Regex\": \"\\\\d\"}", "Isolated", "false"), "not known: \\d"},
        {DIGITS, SPLIT("{\"String\": \"x\"}", "Isolated", "false"), "\"String\""},
        {DIGITS, SPLIT("{\"Regex\": \"" LLAMA3_SPLIT "\"}", "Removed", "false"), "Isolated"},
        {DIGITS, SPLIT("{\"Regex\": \"" LLAMA3_SPLIT "\"}", "Isolated", "true"), "inverted"},
        {DIGITS, SPLIT("{\"Regex\": \"" LLAMA3_SPLIT "\"}", "Isolated", "false"),
         "true after a Split"},
        {"{\"type\": \"Digits\", \"individual_digits\": true},", "", "Sequence of ByteLevel"},
        {"\"individual_digits\": true", "\"individual_digits\": false", "individual_digits"},
        {"\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space"},
        {"\"use_regex\": true", "\"use_regex\": false", "use_regex"},
        {"\"pre_tokenizer\": {\"type\": \"Sequence\"",
         "\"pre_tokenizer\": {\"type\": \"Metaspace\"", "Metaspace"},
        {"\"trim_offsets\"", "\"invert\"", "\"invert\""},
        {"\"post_processor\": null", "\"post_processor\": {\"type\": \"BertProcessing\"}",
         "BertProcessing"},
        {"\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": null", "decoder ByteLevel"},
        {"\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": {\"type\": \"Fuse\"}", "Fuse"},
        {"\"type\": \"BPE\"", "\"type\": \"Unigram\"", "BPE, got Unigram"},
        {"\"dropout\": null", "\"dropout\": 0.1", "dropout"},
        {"\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback"},
        {"\"continuing_subword_prefix\": null", "\"continuing_subword_prefix\": \"##\"",
         "continuing_subword_prefix"},
        {"\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"",
         "end_of_word_suffix"},
        {"\"unk_token\": null", "\"unk_token\": \"<unk>\"", "<unk>"},
        {"\"fuse_unk\"", "\"new_switch\"", "\"new_switch\""},
        {"\"version\"", "\"revision\"", "\"revision\""},
        {"\"lstrip\": false", "\"lstrip\": true", "lstrip"},
        {"\"rstrip\": false", "\"rstrip\": true", "rstrip"},
        {"\"single_word\": false", "\"single_word\": true", "single_word"},
        {"\"content\": \"<s>\"", "\"content\": \"\"", "empty"},
        {"\"content\": \"<s>\"", "\"content\": \"<t>\"", "id 8 stands for"},
        {"\"id\": 8", "\"id\": \"8\"", "added token"},
        {"\"id\": 8", "\"id\": 12", "two ids"},
        {"\"aab\": 7", "\"aab\": 6", "id 6 stands for"},
        {"\"aab\": 7", "\"aab\": -1", "-1"},
        {"\"aab\": 7", "\"aab\": 16777216", "16777216"},
        {"\"aab\": 7", "\"aab\": 7.5", "aab"},
        {"\"aab\": 7", "\"aab\": 7, \"aab\": 7", "aab"},
        {"[\"a\", \"b\"]", "[\"a\", \"c\"]", "lacks the second"},
        {"[\"a\", \"b\"]", "[\"b\", \"a\"]", "lacks the result"},
        {"[\"a\", \"b\"]", "\"a b c\"", "left right"},
        {"[\"a\", \"b\"]", "\"ab\"", "left right"},
        {"[\"a\", \"b\"]", "[\"a\", \"b\", \"c\"]", "left right"},
        {"\"merges\": [", "\"vocab2\": [", "vocab2"},
        {"\"vocab\": {\"a\": 0", "\"merges2\": 0, \"x\": {\"a\": 0", "merges2"},
        {"\"added_tokens\": [", "\"added_tokens\": [7, ", "added token"},
    };
    const char *folder = test_folder("tokenizer-refusals");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_error error = {0};
        icae_tokenizer *tokenizer;
        write_small(folder, cases[i].from, cases[i].to);
        ck_assert_msg(icae_tokenizer_open_folder(&tokenizer, folder, &error) != ICAE_OK,
                      "accepted: %s", cases[i].to);
        ck_assert_ptr_null(tokenizer);
        ck_assert_msg(strstr(error.message, cases[i].part) != NULL, "\"%s\" lacks \"%s\"",
                      error.message, cases[i].part);
        ck_assert_msg(strstr(error.message, "tokenizer.json") != NULL, "\"%s\" names no file",
                      error.message);
    }
}
END_TEST

START_TEST(accepts_what_changes_no_ids) {
    static const char *const changes[][2] = {
        {"\"post_processor\": null",
         "\"post_processor\": {\"type\": \"Sequence\", \"processors\": "
         "[{\"type\": \"ByteLevel\"}, {\"type\": \"TemplateProcessing\"}]}"},
        {"\"truncation\": null", "\"truncation\": {\"max_length\": 3}"},
        {"\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"\""},
        {"\"dropout\": null", "\"dropout\": 0.0"},
        {"\"trim_offsets\": true", "\"trim_offsets\": false"},
    };
    const char *folder = test_folder("tokenizer-accepts");
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        icae_tokenizer *tokenizer = open_small(folder, changes[i][0], changes[i][1]);
        check_encodes(tokenizer, "ab ab1ab ab", true, 2, 4, 5, 2, 4);
        icae_tokenizer_free(tokenizer);
    }
}
END_TEST

START_TEST(refuses_gguf_metadata_that_is_not_a_tokenizer_it_knows) {
    const char *folder = test_folder("tokenizer-gguf-refusals");
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    gguf_settings bad = good;
    bad.model = "bert";
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "got \"bert\"");
    bad = good;
    bad.pre = "qwen2\n";
    ck_refused(open_gguf(&tokenizer, folder, bad, &error),
               "gpt-2, smollm, llama-bpe, llama3, llama-v3, qwen2, got \"qwen2?\"");
    bad = good;
    bad.n_types = 10;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "10 entries for 11 tokens");
    bad = good;
    bad.first_type = 0;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "token 0 is not 1 to 6");
    bad = good;
    bad.has_merges = false;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "tokenizer.ggml.merges");
    bad = good;
    bad.odd_merge = "ab";
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "left right");
    bad.odd_merge = "a x";
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "lacks the second");
    bad.odd_merge = "";
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "left right");
    bad = good;
    bad.eos = 10;
    ck_refused(open_gguf(&tokenizer, folder, bad, &error), "eos_token_id is 10");
    ck_assert_ptr_null(tokenizer);
}
END_TEST

SUITE_OF(tokenizer_files, 60, follows_merges_added_tokens_and_single_digits,
         reads_the_same_tokenizer_from_json_and_from_gguf,
         fingerprints_differ_when_anything_that_matters_does,
         honours_the_switches_that_change_ids, looks_for_normalized_tokens_after_the_others,
         composes_text_before_it_is_cut,
         takes_normalization_and_whole_words_from_the_name_of_a_ggufs_split,
         takes_bos_eos_and_template_from_the_files_beside_it,
         refuses_by_name_what_it_does_not_follow, accepts_what_changes_no_ids,
         refuses_gguf_metadata_that_is_not_a_tokenizer_it_knows)
