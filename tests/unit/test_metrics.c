/* SPDX-License-Identifier: MIT */
/* BLEU against values that sacrebleu gave (tests/golden/bleu.json), and by identity; prefix match and
 * token accuracy on cases small enough to count by hand. */
#include <math.h>
#include <string.h>

#include "icae/json.h"
#include "icae/metrics.h"
#include "suites.h"

static double number_of(const icae_json_value *object, const char *key) {
    double number = (double)NAN;
    ck_assert_msg(icae_json_as_number(icae_json_member(object, key), &number), "no %s", key);
    return number;
}

static const char *string_of(const icae_json_value *object, const char *key) {
    const char *string = icae_json_as_string(icae_json_member(object, key));
    ck_assert_msg(string != NULL, "no %s", key);
    return string;
}

static icae_json *open_golden(void) {
    icae_error error = {0};
    icae_json *json;
    ck_ok(icae_json_open(&json, "tests/golden/bleu.json", &error));
    return json;
}

static icae_bleu bleu_of(const char *hypothesis, const char *reference) {
    icae_error error = {0};
    icae_bleu bleu = {0};
    ck_ok(icae_bleu_add(&bleu, hypothesis, strlen(hypothesis), reference, strlen(reference),
                        &error));
    return bleu;
}

START_TEST(words_are_those_of_sacrebleu) {
    icae_json *json = open_golden();
    size_t count = 0;
    for (const icae_json_value *pair =
             icae_json_first(icae_json_member(icae_json_root(json), "pairs"));
         pair; pair = icae_json_next(pair), count++) {
        icae_text tokens = {0};
        const char *text = string_of(pair, "hypothesis");
        icae_bleu_tokenize(&tokens, text, strlen(text));
        ck_assert_str_eq(icae_text_string(&tokens), string_of(pair, "tokens"));
        icae_text_release(&tokens);
    }
    ck_assert_uint_ge(count, 60);
    icae_json_free(json);
}
END_TEST

START_TEST(pairs_score_as_in_sacrebleu) {
    icae_json *json = open_golden();
    for (const icae_json_value *pair =
             icae_json_first(icae_json_member(icae_json_root(json), "pairs"));
         pair; pair = icae_json_next(pair)) {
        const char *hypothesis = string_of(pair, "hypothesis");
        icae_bleu bleu = bleu_of(hypothesis, string_of(pair, "reference"));
        ck_assert_msg(fabs(icae_bleu_score(&bleu) - number_of(pair, "bleu")) <= 1e-9,
                      "\"%s\": %.12f", hypothesis, icae_bleu_score(&bleu));
        ck_assert_msg(
            fabs(icae_bleu_sentence_score(&bleu) - number_of(pair, "sentence_bleu")) <= 1e-9,
            "\"%s\": %.12f", hypothesis, icae_bleu_sentence_score(&bleu));
    }
    icae_json_free(json);
}
END_TEST

START_TEST(corpora_score_as_in_sacrebleu_also_when_merged) {
    icae_json *json = open_golden();
    const icae_json_value *root = icae_json_root(json);
    size_t corpora = 0;
    for (const icae_json_value *corpus = icae_json_first(icae_json_member(root, "corpora"));
         corpus; corpus = icae_json_next(corpus), corpora++) {
        double from = number_of(corpus, "from"), to = number_of(corpus, "to"), at = 0;
        icae_bleu whole = {0}, parts[2] = {{{0}, {0}, 0, 0}, {{0}, {0}, 0, 0}};
        const icae_json_value *pair = icae_json_first(icae_json_member(root, "pairs"));
        for (; pair; pair = icae_json_next(pair), at++) {
            if (at < from || at >= to) continue;
            icae_error error = {0};
            const char *h = string_of(pair, "hypothesis"), *r = string_of(pair, "reference");
            ck_ok(icae_bleu_add(&whole, h, strlen(h), r, strlen(r), &error));
            ck_ok(icae_bleu_add(&parts[(int)at % 2], h, strlen(h), r, strlen(r), &error));
        }
        icae_bleu_merge(&parts[0], &parts[1]);
        ck_assert_int_eq(memcmp(&parts[0], &whole, sizeof whole), 0);
        ck_assert_double_le(fabs(icae_bleu_score(&whole) - number_of(corpus, "bleu")), 1e-9);
    }
    ck_assert_uint_ge(corpora, 5);
    icae_json_free(json);
}
END_TEST

START_TEST(a_text_compared_with_itself_scores_100) {
    const char *text = "One, two, three: it was 3.5 o'clock in the morning.";
    icae_bleu bleu = bleu_of(text, text);
    ck_assert_double_eq_tol(icae_bleu_score(&bleu), 100, 1e-12);
    bleu = bleu_of("a b c d e f g h", "h g f e d c b a");
    ck_assert_double_lt(icae_bleu_score(&bleu), 25);
    icae_bleu none = {0};
    ck_assert(icae_bleu_score(&none) >= 0 && icae_bleu_score(&none) <= 0);
}
END_TEST

START_TEST(ill_formed_bytes_are_counted_not_read_past) {
    icae_error error = {0};
    icae_bleu bleu = {0};
    const char bytes[] = {(char)0xF0, (char)0x9F, ' ', (char)0xC3, '.', (char)0xE2, (char)0x80};
    ck_ok(icae_bleu_add(&bleu, bytes, sizeof bytes, bytes, sizeof bytes, &error));
    ck_assert_int_eq(bleu.matches[0], bleu.ngrams[0]);
    ck_assert_int_eq(bleu.hypothesis_tokens, 4);
}
END_TEST

START_TEST(prefix_and_accuracy_are_what_one_counts_by_hand) {
    static const struct {
        int32_t hypothesis[5], reference[5];
        size_t h, r;
        double prefix, accuracy;
    } cases[] = {
        {{1, 2, 3, 4}, {1, 2, 3, 4}, 4, 4, 1, 1},
        {{1, 2, 9, 4}, {1, 2, 3, 4}, 4, 4, 0.5, 0.75},
        {{1, 2}, {1, 2, 3, 4}, 2, 4, 0.5, 0.5},
        {{1, 2, 3, 4, 5}, {1, 2, 3, 4}, 5, 4, 1, 0.8},
        {{9, 2, 3, 4}, {1, 2, 3, 4}, 4, 4, 0, 0.75},
        {{0}, {1}, 0, 1, 0, 0},
        {{1}, {0}, 1, 0, 0, 0},
        {{0}, {0}, 0, 0, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double prefix = icae_prefix_exact_match(cases[i].hypothesis, cases[i].h,
                                                cases[i].reference, cases[i].r);
        double accuracy = icae_token_accuracy(cases[i].hypothesis, cases[i].h,
                                              cases[i].reference, cases[i].r);
        ck_assert_msg(fabs(prefix - cases[i].prefix) < 1e-15, "case %zu: prefix %f", i, prefix);
        ck_assert_msg(fabs(accuracy - cases[i].accuracy) < 1e-15, "case %zu: accuracy %f", i,
                      accuracy);
    }
}
END_TEST

SUITE_OF(metrics, 30, words_are_those_of_sacrebleu, pairs_score_as_in_sacrebleu,
         corpora_score_as_in_sacrebleu_also_when_merged, a_text_compared_with_itself_scores_100,
         ill_formed_bytes_are_counted_not_read_past,
         prefix_and_accuracy_are_what_one_counts_by_hand)
