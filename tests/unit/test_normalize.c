/* SPDX-License-Identifier: MIT */
/*
 * Normalization form C: against Hugging Face's normalizer, and by identities.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/formats/tokenizer_internal.h"
#include "icae/rng.h"
#include "suites.h"

static icae_text nfc(const char *text, size_t bytes) {
    icae_text out = {0};
    icae_nfc(&out, (const unsigned char *)text, bytes);
    ck_assert(!out.failed);
    return out;
}

START_TEST(composes_what_hugging_faces_normalizer_composes) {
    /* made with its normalizers.NFC; the three before the last four are of Unicode 9.0 */
    static const struct {
        const char *text, *composed;
    } cases[] = {
        {"e\xCC\x81", "\xC3\xA9"},
        {"a\xCC\xA3\xCC\x82", "\xE1\xBA\xAD"},
        {"a\xCC\x82\xCC\xA3", "\xE1\xBA\xAD"},
        {"\xE2\x84\xAB", "\xC3\x85"},
        {"\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"},
        {"\xEA\xB0\x80\xE1\x86\xA8", "\xEA\xB0\x81"},
        {"\xEA\xB0\x81\xE1\x86\xA8", "\xEA\xB0\x81\xE1\x86\xA8"},
        {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"},
        {"\xEF\xAC\x9D", "\xD7\x99\xD6\xB4"},
        {"a\xCC\x81\xCC\x81", "\xC3\xA1\xCC\x81"},
        {"a\xCC\xA7\xCC\x81\xCC\x80", "\xC3\xA1\xCC\xA7\xCC\x80"},
        {"\xCD\x84", "\xCC\x88\xCC\x81"},
        {"\xE1\xB8\x8B\xCC\xA3", "\xE1\xB8\x8D\xCC\x87"},
        {"\xE2\xAB\x9C", "\xE2\xAB\x9D\xCC\xB8"},
        {"\xF0\x9D\x85\x9E", "\xF0\x9D\x85\x97\xF0\x9D\x85\xA5"},
        {"q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87"},
        {"\xE0\xA7\x87\xE0\xA6\xBE", "\xE0\xA7\x8B"},
        {"\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0", "\xF0\x91\xA4\xB5\xF0\x91\xA4\xB0"},
        {"x\xCC\x95\xE1\xB7\xB9", "x\xCC\x95\xE1\xB7\xB9"},
        {"\xE1\x84\x80\xCC\x81\xE1\x85\xA1", "\xE1\x84\x80\xCC\x81\xE1\x85\xA1"},
        {"\xCC\x81"
         "e\xCC\x81",
         "\xCC\x81\xC3\xA9"},
        {"\xE0\xBD\xB1\xE0\xBD\xB2\xE0\xBD\xB4", "\xE0\xBD\xB1\xE0\xBD\xB2\xE0\xBD\xB4"},
        {"\xCD\x84\xCD\x85", "\xCC\x88\xCC\x81\xCD\x85"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_text out = nfc(cases[i].text, strlen(cases[i].text));
        ck_assert_msg(strcmp(icae_text_string(&out), cases[i].composed) == 0, "case %zu", i);
        icae_text_release(&out);
    }
}
END_TEST

START_TEST(leaves_plain_text_and_hangul_alone) {
    static const char *const plain[] = {"",
                                        "a",
                                        "plain ASCII\n",
                                        "\xC3\xA9t\xC3\xA9 na\xC3\xAFve",
                                        "\xED\x95\x9C\xEA\xB8\x80",
                                        "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E",
                                        "\xF0\x9F\x99\x82"};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        ck_assert(icae_is_nfc((const unsigned char *)plain[i], strlen(plain[i])));
        icae_text out = nfc(plain[i], strlen(plain[i]));
        ck_assert_str_eq(icae_text_string(&out), plain[i]);
        icae_text_release(&out);
    }
    ck_assert(!icae_is_nfc((const unsigned char *)"e\xCC\x81", 3));
}
END_TEST

/* Twice is once, and the halves of a text cut before a plain letter compose on their own. */
START_TEST(is_its_own_fixed_point_and_local) {
    icae_rng rng = {.seed = 23};
    size_t changed = 0;
    for (int i = 0; i < 20000; i++) {
        static const int32_t pools[][2] = {
            {0x41, 0x80},       {0xC0, 0x250},    {0x300, 0x370},   {0x900, 0xA00},
            {0x1100, 0x1200},   {0x1E00, 0x2000}, {0xAC00, 0xD7A4}, {0xF900, 0xFB50},
            {0x1D100, 0x1D200}, {0x300, 0x346},   {0x0, 0x110000}};
        icae_text text = {0};
        size_t cut = 0;
        for (uint64_t n = 1 + icae_rng_below(&rng, 12); n; n--) {
            const int32_t *pool = pools[icae_rng_below(&rng, sizeof pools / sizeof pools[0])];
            int32_t point =
                pool[0] + (int32_t)icae_rng_below(&rng, (uint64_t)(pool[1] - pool[0]));
            char spelled[4];
            if (n == 6) {
                cut = text.length;
                point = 'k';
            }
            icae_text_append(&text, spelled, (size_t)icae_utf8_encode(point, spelled));
        }
        icae_text once = nfc(icae_text_string(&text), text.length);
        icae_text twice = nfc(icae_text_string(&once), once.length);
        ck_assert_str_eq(icae_text_string(&once), icae_text_string(&twice));
        changed += strcmp(icae_text_string(&once), icae_text_string(&text)) != 0;
        icae_text halves = nfc(icae_text_string(&text), cut);
        icae_nfc(&halves, (const unsigned char *)text.data + cut, text.length - cut);
        ck_assert_uint_eq(halves.length, once.length);
        ck_assert_int_eq(
            memcmp(icae_text_string(&halves), icae_text_string(&once), once.length), 0);
        icae_text_release(&text);
        icae_text_release(&once);
        icae_text_release(&twice);
        icae_text_release(&halves);
    }
    ck_assert_uint_gt(changed, 5000);
}
END_TEST

START_TEST(sorts_long_runs_of_marks_in_reasonable_time) {
    enum { MARKS = 1 << 19 };
    char *text = malloc(2 * MARKS + 1);
    ck_assert_ptr_nonnull(text);
    text[0] = 'x';
    for (size_t i = 0; i < MARKS; i++) /* above and below in turn: classes 230 and 220 */
        memcpy(text + 1 + 2 * i, i % 2 ? "\xCC\x96" : "\xCC\x8D", 2);
    clock_t start = clock();
    icae_text out = nfc(text, 2 * MARKS + 1);
    ck_assert_msg(clock() - start < 5 * CLOCKS_PER_SEC, "too slow");
    ck_assert_uint_eq(out.length, 2 * MARKS + 1);
    for (size_t i = 0; i < MARKS; i++)
        ck_assert(out.data[2 + 2 * i] == (i < MARKS / 2 ? '\x96' : '\x8D'));
    icae_text_release(&out);
    free(text);
}
END_TEST

SUITE_OF(normalize, 60, composes_what_hugging_faces_normalizer_composes,
         leaves_plain_text_and_hangul_alone, is_its_own_fixed_point_and_local,
         sorts_long_runs_of_marks_in_reasonable_time)
