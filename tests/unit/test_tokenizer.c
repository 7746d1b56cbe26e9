/* SPDX-License-Identifier: MIT */
/*
 * Encoding and decoding: against Hugging Face's ids (golden), against a naive merge loop, by
 * identities, and on inputs made to be slow or ill-formed. Loading: test_tokenizer_files.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/formats/tokenizer_internal.h"
#include "icae/json.h"
#include "icae/rng.h"
#include "suites.h"

static icae_tokenizer *open_llama(void) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_open_folder(&tokenizer, "tests/golden/llama/model", &error));
    return tokenizer;
}

static int32_t *encode(const icae_tokenizer *tokenizer, const char *text, size_t bytes,
                       bool parse_special, size_t *count) {
    icae_error error = {0};
    int32_t *ids;
    ck_ok(icae_tokenizer_encode(tokenizer, text, bytes, parse_special, &ids, count, &error));
    return ids;
}

static icae_text decode(const icae_tokenizer *tokenizer, const int32_t *ids, size_t count) {
    icae_error error = {0};
    icae_text out = {0};
    ck_ok(icae_tokenizer_decode(tokenizer, ids, count, false, &out, &error));
    return out;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Any Unicode, with a liking for what makes splits: spaces, digits, apostrophes, accents. */
static icae_text random_text(icae_rng *rng) {
    static const char *const likely[] = {" ",          "  ",       "\n",          "\t ", "'s",
                                         "'ll",        "7",        "42",          "the", " of",
                                         "<|im_end|>", "\xC3\xA9", "\xE2\x85\xA7"};
    icae_text text = {0};
    for (uint64_t n = icae_rng_below(rng, 12); n; n--) {
        char spelled[4];
        uint64_t kind = icae_rng_below(rng, 3);
        int32_t point = (int32_t)icae_rng_below(rng, kind == 1 ? 0x3000 : 0x110000);
        if (kind == 0)
            icae_text_append_string(
                &text, likely[icae_rng_below(rng, sizeof likely / sizeof likely[0])]);
        else
            icae_text_append(&text, spelled, (size_t)icae_utf8_encode(point, spelled));
    }
    ck_assert(!text.failed);
    return text;
}

/* ---- golden ---- */

static void check_golden(const icae_tokenizer *tokenizer, const char *path) {
    icae_error error = {0};
    icae_json *json;
    ck_ok(icae_json_open(&json, path, &error));
    const icae_json_value *cases = icae_json_member(icae_json_root(json), "tokenizer");
    ck_assert_uint_ge(icae_json_count(cases), 10);
    for (const icae_json_value *at = icae_json_first(cases); at; at = icae_json_next(at)) {
        const char *text, *decoded;
        size_t bytes, decoded_bytes, count;
        ck_assert(icae_json_as_bytes(icae_json_member(at, "text"), &text, &bytes));
        ck_assert(
            icae_json_as_bytes(icae_json_member(at, "decoded"), &decoded, &decoded_bytes));
        int32_t *ids = encode(tokenizer, text, bytes, true, &count);
        const icae_json_value *expected = icae_json_member(at, "ids");
        ck_assert_msg(icae_json_count(expected) == count, "\"%s\": %zu ids", text, count);
        const icae_json_value *id = icae_json_first(expected);
        for (size_t i = 0; i < count; i++, id = icae_json_next(id)) {
            int64_t wanted = -1;
            ck_assert(icae_json_as_integer(id, &wanted));
            ck_assert_msg(ids[i] == wanted, "\"%s\": id %zu is %d, not %d", text, i, ids[i],
                          (int)wanted);
        }
        icae_text out = decode(tokenizer, ids, count);
        ck_assert_uint_eq(out.length, decoded_bytes);
        ck_assert_int_eq(memcmp(icae_text_string(&out), decoded, decoded_bytes), 0);
        icae_text_release(&out);
        free(ids);
    }
    icae_json_free(json);
}

START_TEST(gives_hugging_faces_ids_from_tokenizer_json) {
    static const struct {
        const char *folder;
        int32_t size;
    } cases[] = {
        {"llama", 512},
        {"llama3", 512},
        {"qwen2", 512},
        {"qwen3", 512},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[128];
        icae_error error = {0};
        icae_tokenizer *tokenizer;
        snprintf(path, sizeof path, "tests/golden/%s/model", cases[i].folder);
        ck_ok(icae_tokenizer_open_folder(&tokenizer, path, &error));
        snprintf(path, sizeof path, "tests/golden/%s/expected.json", cases[i].folder);
        check_golden(tokenizer, path);
        ck_assert_int_eq(icae_tokenizer_size(tokenizer), cases[i].size);
        ck_assert_int_eq(icae_tokenizer_bos(tokenizer), 1);
        ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 2);
        icae_tokenizer_free(tokenizer);
    }
}
END_TEST

START_TEST(gives_hugging_faces_ids_from_the_base_models_gguf) {
    ck_assert_msg(test_base_model() != NULL,
                  "the base model is not there: run `make base` first, or set ICAE_BASE");
    icae_error error = {0};
    icae_gguf file;
    ck_ok(icae_gguf_open(&file, test_base_model(), &error));
    icae_tokenizer *tokenizer;
    ck_ok(icae_tokenizer_from_gguf(&tokenizer, &file, &error));
    icae_gguf_close(&file); /* the tokenizer must not need it any more */
    check_golden(tokenizer, "tests/golden/smollm2/expected.json");
    ck_assert_int_eq(icae_tokenizer_size(tokenizer), 49152);
    ck_assert_int_eq(icae_tokenizer_bos(tokenizer), 1);
    ck_assert_int_eq(icae_tokenizer_eos(tokenizer), 2);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "<|im_end|>"), 2);
    ck_assert_ptr_nonnull(strstr(icae_tokenizer_chat_template(tokenizer), "<|im_start|>"));
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- pieces ---- */

START_TEST(cuts_text_into_the_pieces_of_the_expression) {
    /* the pieces stand between bars; made with Hugging Face's pre-tokenizers */
    static const struct {
        const char *name, *pieces;
    } cases[] = {
        {"gpt2", "don|'t| we|'ll| I|'|VE"},
        {"gpt2", "he| said| '|s| ''|s"},
        {"gpt2", "'re|'|r|'ve|'m|'d|'s|t"},
        {"gpt2", "  | a|\n\n|\t|and"},
        {"gpt2", "a|1234|b| 56| 7|.|8"},
        {"gpt2", "x|   "},
        {"gpt2", "a|'"},
        {"gpt2", "'|x"},
        {"gpt2", " | 1"},
        {"gpt2", "  \n |\n|x"},
        {"gpt2", "...| ...,|a|!?| #"},
        {"gpt2", "caf\xC3\xA9| \xE6\x97\xA5\xE6\x9C\xAC|\xE3\x80\x81|\xC2\xBD"},
        {"gpt2", "a|\xC2\xA0|b|\xE3\x80\x80|\xE3\x80\x80|c"},
        {"gpt2", "\xE0\xA4\x95|\xE0\xA4\xBF"}, /* a vowel sign is a mark, not a letter */
        {"smollm", "a|1|2| |3|  |4| b"},
        {"smollm", "\xE2\x85\xA7|\xC2\xBD|\xD9\xA3|x"},
        {"smollm", "v|1|.|0|,| |2"},
        {"smollm", " | x|  \n|9| '|1|'s"},
        {"llama3", "don|'t| we|'LL| I|'VE| it|'\xC5\xBF| '|Re|'m|x"},
        {"llama3", "'hello| ''|s|'"},
        {"llama3", "1|'re|1|'rx|1|'ve|1|'vx|1|'ll|1|'lx|1|'s|1|'d|1|'M|1|'t|1|'\xC5\xBE"},
        {"llama3", "1|'x"},
        {"llama3", "a|123|456|7| b|12| |\xC2\xBD\xE2\x85\xA7\xD9\xA3|\xD9\xA3"},
        {"llama3", " | a| \n\n| b|\r\n| | c|\t|\td|\xC2\xA0"
                   "e| \xE3\x80\x80"},
        {"llama3", "x| | ..| !?\n\n\r| \n|;\n| | (|y"},
        {"llama3", "\xE0\xA4\x95|\xE0\xA4\xBF| \xCC\x81|a|-\xE4\xB8\xAD|\xE3\x80\x81\n"},
        {"llama3", "end|  "},
        {"llama3", " \n| x|   \n"},
        {"llama3", "\t|7| |\t|7| | |7"},
        {"qwen2", "a|1|2|3|4| |5|6|'T"},
        {"qwen2", "\xC2\xBD|\xE2\x85\xA7| |3|.|1|4|\n| ..\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const icae_pretokenizer *pretokenizer = icae_pretokenizer_find(cases[i].name);
        ck_assert_ptr_nonnull(pretokenizer);
        char text[128], found[256];
        size_t bytes = 0, used = 0;
        for (const char *at = cases[i].pieces; *at; at++) {
            if (*at != '|') text[bytes++] = *at;
        }
        for (size_t at = 0; at < bytes;) {
            size_t end = pretokenizer->next((const unsigned char *)text, bytes, at);
            ck_assert(end > at && end <= bytes);
            if (at) found[used++] = '|';
            memcpy(found + used, text + at, end - at);
            used += end - at;
            at = end;
        }
        found[used] = 0;
        ck_assert_str_eq(found, cases[i].pieces);
    }
}
END_TEST

START_TEST(knows_the_classes_of_characters) {
    static const struct {
        int32_t point;
        icae_char_class class_of;
    } cases[] = {
        {'A', ICAE_CHAR_LETTER},     {'z', ICAE_CHAR_LETTER},     {'0', ICAE_CHAR_NUMBER},
        {'_', ICAE_CHAR_OTHER},      {'\v', ICAE_CHAR_SPACE},     {0x1C, ICAE_CHAR_OTHER},
        {0x85, ICAE_CHAR_SPACE},     {0xAA, ICAE_CHAR_LETTER},    {0xB2, ICAE_CHAR_NUMBER},
        {0xD7, ICAE_CHAR_OTHER},     {0x0301, ICAE_CHAR_OTHER},   {0x200B, ICAE_CHAR_OTHER},
        {0x2028, ICAE_CHAR_SPACE},   {0x2167, ICAE_CHAR_NUMBER},  {0x3000, ICAE_CHAR_SPACE},
        {0x3007, ICAE_CHAR_NUMBER},  {0x4E00, ICAE_CHAR_LETTER},  {0x9FFF, ICAE_CHAR_LETTER},
        {0xD7A3, ICAE_CHAR_LETTER},  {0xE000, ICAE_CHAR_OTHER},   {0xFEFF, ICAE_CHAR_OTHER},
        {0x1D7D8, ICAE_CHAR_NUMBER}, {0x1F600, ICAE_CHAR_OTHER},  {0x20000, ICAE_CHAR_LETTER},
        {0x323AF, ICAE_CHAR_LETTER}, {0x10FFFF, ICAE_CHAR_OTHER}, {0x1C89, ICAE_CHAR_LETTER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(icae_unicode_class(cases[i].point) == cases[i].class_of, "U+%04X",
                      (unsigned)cases[i].point);
    /* Python's white space: the same, and four separators. */
    for (int32_t point = 0; point < 0x80; point++) {
        bool is_space =
            point == ' ' || (point >= '\t' && point <= '\r') || (point >= 0x1C && point < 0x20);
        ck_assert_msg(icae_unicode_is_space(point) == is_space, "U+%04X", (unsigned)point);
    }
}
END_TEST

START_TEST(spells_every_byte_by_a_character_of_its_own) {
    int found = 0;
    for (int byte = 0; byte < 256; byte++)
        ck_assert_int_eq(icae_char_to_byte(icae_byte_to_char((unsigned char)byte)), byte);
    for (int32_t point = -1; point < 0x300; point++)
        found += icae_char_to_byte(point) >= 0;
    ck_assert_int_eq(found, 256);
    ck_assert_int_eq(icae_byte_to_char(' '), 0x120); /* the well-known G with a dot */
    ck_assert_int_eq(icae_byte_to_char('\n'), 0x10A);
    ck_assert_int_eq(icae_byte_to_char('A'), 'A');
}
END_TEST

/* ---- merging ---- */

/* The rule itself, without any cleverness: merge the leftmost pair of least rank, again and again. */
static size_t merge_naively(const icae_tokenizer *tokenizer, int32_t *ids, size_t count) {
    for (;;) {
        size_t best = 0;
        const icae_merge *least = NULL;
        for (size_t i = 0; i + 1 < count; i++) {
            const icae_merge *merge = icae_merge_find(tokenizer, ids[i], ids[i + 1]);
            if (merge && (!least || merge->rank < least->rank)) {
                least = merge;
                best = i;
            }
        }
        if (!least) return count;
        ids[best] = least->id;
        memmove(ids + best + 1, ids + best + 2, (count - best - 2) * sizeof *ids);
        count--;
    }
}

START_TEST(merges_pieces_of_any_length_as_the_naive_loop_does) {
    icae_tokenizer *tokenizer = open_llama();
    icae_rng rng = {.seed = 11};
    size_t merged = 0;
    for (int i = 0; i < 3000; i++) {
        char word[300];
        int32_t naive[300];
        size_t length = 1 + (size_t)icae_rng_below(&rng, i % 2 ? 20 : sizeof word), count;
        for (size_t k = 0; k < length; k++) {
            word[k] = "aeiothsrndlc"[icae_rng_below(&rng, 12)];
            naive[k] = tokenizer->byte_ids[(unsigned char)word[k]];
        }
        size_t expected = merge_naively(tokenizer, naive, length);
        int32_t *ids = encode(tokenizer, word, length, true, &count);
        ck_assert_uint_eq(count, expected);
        ck_assert_int_eq(memcmp(ids, naive, count * sizeof *ids), 0);
        merged += length - count;
        free(ids);
    }
    ck_assert_uint_gt(merged, 10000);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(takes_linear_time_on_long_runs) {
    icae_tokenizer *tokenizer = open_llama();
    enum { BYTES = 1 << 20 };
    static const char *const units[] = {"x",   " ", "'",        "<",   "<|im_",
                                        "the", "1", "\xE2\x82", " \n", "<|im_end|>"};
    char *text = malloc(BYTES);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        for (size_t k = 0, n = strlen(units[i]); k < BYTES; k++)
            text[k] = units[i][k % n];
        double start = seconds();
        size_t count;
        int32_t *ids = encode(tokenizer, text, BYTES, true, &count);
        /* quadratic would be hours; the limit leaves room for a sanitizer on a busy machine */
        ck_assert_msg(seconds() - start < 5, "\"%s\" took %.1f s", units[i], seconds() - start);
        ck_assert_uint_gt(count, 0);
        free(ids);
    }
    free(text);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- identities ---- */

START_TEST(decoding_an_encoded_text_gives_it_back) {
    icae_tokenizer *tokenizer = open_llama();
    icae_rng rng = {.seed = 5};
    for (int i = 0; i < 5000; i++) {
        icae_text text = random_text(&rng);
        for (int parse_special = 0; parse_special < 2; parse_special++) {
            size_t count;
            int32_t *ids =
                encode(tokenizer, icae_text_string(&text), text.length, parse_special, &count);
            icae_text back = decode(tokenizer, ids, count);
            ck_assert_uint_eq(back.length, text.length);
            ck_assert_int_eq(
                memcmp(icae_text_string(&back), icae_text_string(&text), text.length), 0);
            icae_text_release(&back);
            free(ids);
        }
        icae_text_release(&text);
    }
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(streams_what_decoding_at_once_gives_and_never_half_a_character) {
    icae_tokenizer *tokenizer = open_llama();
    icae_rng rng = {.seed = 17};
    size_t repaired_streams = 0, held_back = 0;
    for (int i = 0; i < 5000; i++) {
        int32_t ids[40];
        size_t count = (size_t)icae_rng_below(&rng, 40);
        icae_token_stream stream = {0};
        icae_text streamed = {0};
        /* half of them: tokens of real texts, so that whole characters come in parts */
        icae_text text = random_text(&rng);
        size_t real_count;
        int32_t *real =
            encode(tokenizer, icae_text_string(&text), text.length, true, &real_count);
        for (size_t k = 0; k < count; k++)
            ids[k] = (int32_t)icae_rng_below(&rng, 520) - 4; /* some out of range */
        if (i % 2 && real_count) {
            count = real_count < 40 ? real_count : 40;
            memcpy(ids, real, count * sizeof *ids);
        }
        for (size_t k = 0; k < count; k++) {
            size_t before = streamed.length;
            icae_token_stream_push(&stream, tokenizer, ids[k], &streamed);
            held_back += stream.pending.length > 0;
            for (size_t at = before; at < streamed.length;) {
                int32_t point;
                at += (size_t)icae_utf8_decode((unsigned char *)streamed.data + at,
                                               streamed.length - at, &point);
                ck_assert_int_ge(point, 0);
            }
        }
        icae_token_stream_finish(&stream, &streamed);
        icae_text whole = decode(tokenizer, ids, count);
        ck_assert_uint_eq(streamed.length, whole.length);
        ck_assert_int_eq(
            memcmp(icae_text_string(&streamed), icae_text_string(&whole), whole.length), 0);
        repaired_streams += strstr(icae_text_string(&whole), "\xEF\xBF\xBD") != NULL;
        icae_text_release(&whole);
        icae_text_release(&streamed);
        icae_text_release(&text);
        free(real);
    }
    ck_assert_uint_gt(repaired_streams, 500);
    ck_assert_uint_gt(held_back, 500);
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- ill-formed bytes ---- */

#define FFFD "\xEF\xBF\xBD"

START_TEST(repairs_ill_formed_bytes_by_maximal_subparts) {
    static const struct {
        const char *bytes, *repaired;
        size_t complete; /* what icae_utf8_complete says */
    } cases[] = {
        {"a\x80z", "a" FFFD "z", 3},
        {"\xE2\x82"
         "A",
         FFFD "A", 3},                  /* breaks off after two: one mark */
        {"\xF0\x9F\x98 ", FFFD " ", 4}, /* after three: one mark */
        {"\xF0\x9F\x98", FFFD, 0},      /* may still be finished */
        {"x\xE2\x82", "x" FFFD, 1},
        {"\xE0\x80\x80", FFFD FFFD FFFD, 3},          /* overlong: no start at all */
        {"\xE0\x80", FFFD FFFD, 2},                   /* nothing can finish it */
        {"\xED\xA0\x80", FFFD FFFD FFFD, 3},          /* a surrogate */
        {"\xF4\x90\x80\x80", FFFD FFFD FFFD FFFD, 4}, /* above U+10FFFF */
        {"\xF5\xC0\xFF", FFFD FFFD FFFD, 3},
        {"\xC3\xE2\x82\xAC", FFFD "\xE2\x82\xAC", 4},
        {"\xF0\x9F\xF0\x9F\x98\x80", FFFD "\xF0\x9F\x98\x80", 6},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
         "A",
         FFFD FFFD FFFD FFFD "A", 9}, /* Unicode's own */
    };
    icae_tokenizer *tokenizer = open_llama();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *bytes = cases[i].bytes;
        icae_text out = {0};
        icae_utf8_repair(&out, bytes, strlen(bytes));
        ck_assert_str_eq(icae_text_string(&out), cases[i].repaired);
        icae_text_release(&out);
        ck_assert_uint_eq(icae_utf8_complete((const unsigned char *)bytes, strlen(bytes)),
                          cases[i].complete);
        size_t count, repaired_count; /* encode repairs by the same rule */
        int32_t *ids = encode(tokenizer, bytes, strlen(bytes), true, &count);
        int32_t *repaired = encode(tokenizer, cases[i].repaired, strlen(cases[i].repaired),
                                   true, &repaired_count);
        ck_assert_uint_eq(count, repaired_count);
        ck_assert_int_eq(memcmp(ids, repaired, count * sizeof *ids), 0);
        free(ids);
        free(repaired);
    }
    icae_tokenizer_free(tokenizer);
}
END_TEST

/* ---- special tokens ---- */

START_TEST(reads_special_tokens_only_when_told_to) {
    icae_tokenizer *tokenizer = open_llama();
    static const char text[] = "<|im_start|>a<|im_end|>\0<|im_end|>";
    size_t count, plain_count;
    int32_t *ids = encode(tokenizer, text, sizeof text - 1, true, &count);
    int32_t *plain = encode(tokenizer, text, sizeof text - 1, false, &plain_count);
    ck_assert_uint_eq(count, 5);
    ck_assert(ids[0] == 1 && ids[2] == 2 && ids[4] == 2);
    for (size_t i = 0; i < plain_count; i++)
        ck_assert(!icae_tokenizer_is_special(tokenizer, plain[i]));
    ck_assert(icae_tokenizer_is_special(tokenizer, 1));
    ck_assert(!icae_tokenizer_is_special(tokenizer, -1));
    ck_assert(!icae_tokenizer_is_special(tokenizer, 512));

    icae_error error = {0};
    icae_text out = {0};
    ck_ok(icae_tokenizer_decode(tokenizer, ids, 3, true, &out, &error));
    ck_assert_str_eq(icae_text_string(&out), "a");
    ck_ok(icae_tokenizer_decode(tokenizer, ids, 3, false, &out, &error)); /* appends */
    ck_assert_str_eq(icae_text_string(&out), "a<|im_start|>a<|im_end|>");
    icae_text_release(&out);
    free(ids);
    free(plain);
    icae_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(finds_tokens_by_the_text_that_they_decode_to) {
    icae_tokenizer *tokenizer = open_llama();
    int found = 0;
    for (int32_t id = 0; id < icae_tokenizer_size(tokenizer); id++) {
        icae_text text = {0};
        icae_tokenizer_append_token(tokenizer, id, false, &text);
        if (strlen(icae_text_string(&text)) == text.length) { /* all but the byte 0 */
            ck_assert_int_eq(icae_tokenizer_find(tokenizer, icae_text_string(&text)), id);
            found++;
        }
        icae_text_release(&text);
    }
    ck_assert_int_eq(found, 511);
    ck_assert_int_eq(icae_tokenizer_find(tokenizer, "no such token"), -1);
    icae_tokenizer_free(tokenizer);
}
END_TEST

SUITE_OF(tokenizer, 120, gives_hugging_faces_ids_from_tokenizer_json,
         gives_hugging_faces_ids_from_the_base_models_gguf,
         cuts_text_into_the_pieces_of_the_expression, knows_the_classes_of_characters,
         spells_every_byte_by_a_character_of_its_own,
         merges_pieces_of_any_length_as_the_naive_loop_does, takes_linear_time_on_long_runs,
         decoding_an_encoded_text_gives_it_back,
         streams_what_decoding_at_once_gives_and_never_half_a_character,
         repairs_ill_formed_bytes_by_maximal_subparts, reads_special_tokens_only_when_told_to,
         finds_tokens_by_the_text_that_they_decode_to)
