/* SPDX-License-Identifier: MIT */
/* ROUGE-L, token F1 and exact match against tests/golden/answers.json (made by
 * tests/interop/metrics.py), and by identity; the small letters they stand on. */
#include <math.h>
#include <string.h>

#include "icae/json.h"
#include "icae/metrics.h"
#include "icae/unicode.h"
#include "suites.h"

static icae_error error;

static double number_of(const icae_json_value *object, const char *key) {
    double number = (double)NAN;
    ck_assert_msg(icae_json_as_number(icae_json_member(object, key), &number), "no %s", key);
    return number;
}

START_TEST(pairs_score_as_in_rouge_score_and_squad) {
    icae_json *json;
    ck_ok(icae_json_open(&json, "tests/golden/answers.json", &error));
    const icae_json_value *root = icae_json_root(json);
    icae_bleu corpus = {0};
    size_t count = 0;
    for (const icae_json_value *pair = icae_json_first(icae_json_member(root, "pairs")); pair;
         pair = icae_json_next(pair), count++) {
        const char *a, *b;
        size_t n_a, n_b;
        ck_assert(icae_json_as_bytes(icae_json_member(pair, "answer"), &a, &n_a));
        ck_assert(icae_json_as_bytes(icae_json_member(pair, "reference"), &b, &n_b));
        double rouge, f1;
        bool is_exact;
        icae_bleu bleu = {0};
        icae_text normalized = {0};
        ck_ok(icae_rouge_l(a, n_a, b, n_b, &rouge, &error));
        ck_ok(icae_answer_score(a, n_a, b, n_b, &f1, &is_exact, &error));
        ck_ok(icae_bleu_add(&bleu, a, n_a, b, n_b, &error));
        icae_answer_normalize(&normalized, a, n_a);
        ck_assert_str_eq(icae_text_string(&normalized),
                         icae_json_as_string(icae_json_member(pair, "normalized")));
        icae_text_release(&normalized);
        icae_bleu_merge(&corpus, &bleu);
        ck_assert_msg(fabs(rouge - number_of(pair, "rouge_l")) <= 1e-9, "\"%s\": ROUGE-L %.12f",
                      a, rouge);
        ck_assert_msg(fabs(f1 - number_of(pair, "f1")) <= 1e-9, "\"%s\": F1 %.12f", a, f1);
        ck_assert_msg(is_exact == (number_of(pair, "exact") > 0.5), "\"%s\": exact", a);
        ck_assert_double_le(
            fabs(icae_bleu_sentence_score(&bleu) - number_of(pair, "sentence_bleu")), 1e-9);
    }
    ck_assert_double_le(fabs(icae_bleu_score(&corpus) - number_of(root, "bleu")), 1e-9);
    ck_assert_uint_ge(count, 100);
    icae_json_free(json);
}
END_TEST

START_TEST(scores_do_not_depend_on_which_text_is_the_reference) {
    const char *one = "the small cat sat on a mat and sat",
               *other = "a cat sat, then it sat on it";
    double ab, ba, f_ab, f_ba;
    bool is_exact;
    ck_ok(icae_rouge_l(one, strlen(one), other, strlen(other), &ab, &error));
    ck_ok(icae_rouge_l(other, strlen(other), one, strlen(one), &ba, &error));
    ck_ok(icae_answer_score(one, strlen(one), other, strlen(other), &f_ab, &is_exact, &error));
    ck_assert(!is_exact);
    ck_ok(icae_answer_score(other, strlen(other), one, strlen(one), &f_ba, &is_exact, &error));
    ck_assert_double_eq_tol(ab, ba, 1e-15);
    ck_assert_double_eq_tol(f_ab, f_ba, 1e-15);
    /* "cat sat ... sat" and "cat sat on": 3 of 9 and 8 words in order; "a" counts for ROUGE only. */
    ck_assert_double_eq_tol(ab, 2.0 * 3 / (9 + 8), 1e-15);
    ck_assert_double_eq_tol(f_ab, 2.0 * 4 / (7 + 7), 1e-15);
}
END_TEST

START_TEST(small_letters_are_found_and_stay_what_they_are) {
    static const struct {
        int32_t capital, small;
    } cases[] = {{'A', 'a'},         {'Z', 'z'},     {'[', '['},
                 {0xC0, 0xE0},       {0xD7, 0xD7},   {0x100, 0x101},
                 {0x101, 0x101},     {0x130, 'i'},   {0x178, 0xFF},
                 {0x1C5, 0x1C6},     {0x394, 0x3B4}, {0x416, 0x436},
                 {0x1E9E, 0xDF},     {0x212A, 'k'},  {0x10400, 0x10428},
                 {0x10428, 0x10428}, {-1, -1},       {0x7FFFFFFF, 0x7FFFFFFF}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_int_eq(icae_unicode_lower(cases[i].capital), cases[i].small);
    for (int32_t point = 0; point < 0x20000; point++) /* a small letter has no smaller one */
        ck_assert_int_eq(icae_unicode_lower(icae_unicode_lower(point)),
                         icae_unicode_lower(point));
}
END_TEST

START_TEST(ill_formed_bytes_are_read_as_the_replacement_character) {
    const char bytes[] = {(char)0xF0, (char)0x9F, 'a', (char)0xC3, '.', (char)0xE2, (char)0x80};
    double score;
    bool is_exact;
    ck_ok(
        icae_answer_score(bytes, sizeof bytes, bytes, sizeof bytes, &score, &is_exact, &error));
    ck_assert(is_exact && score > 0.999);
    ck_ok(icae_rouge_l(bytes, sizeof bytes, "a", 1, &score, &error));
    ck_assert_double_eq_tol(score, 1, 1e-15);
}
END_TEST

SUITE_OF(metrics_text, 30, pairs_score_as_in_rouge_score_and_squad,
         scores_do_not_depend_on_which_text_is_the_reference,
         small_letters_are_found_and_stay_what_they_are,
         ill_formed_bytes_are_read_as_the_replacement_character)
