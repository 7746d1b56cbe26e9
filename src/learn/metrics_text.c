/* SPDX-License-Identifier: MIT */
/*
 * How like the right answer an answer is: ROUGE-L, token F1, exact match; see icae/metrics.h.
 *
 * Both kinds of words are made in one pass each, over the text in small letters:
 *
 *     ROUGE   runs of a-z and 0-9; everything else separates (so "Zürich" is "z", "rich")
 *     SQuAD   ASCII punctuation is deleted, not replaced ("don't" is "dont"); then the words "a", "an",
 *             "the" go; the rest is split at white space. "a" is a word where neither neighbour is a
 *             letter, a number or an underscore, so "a–b" loses its "a"
 */
#include <string.h>
#include <stdlib.h>

#include "icae/metrics.h"
#include "icae/unicode.h"
#include "words.h"

/* ---- small letters, as Python's str.lower makes them ---- */

static int32_t point_at(const char *text, size_t bytes, size_t at, size_t *next) {
    int32_t point;
    *next = at + (size_t)icae_utf8_decode((const unsigned char *)text + at, bytes - at, &point);
    return point;
}

static bool is_cased(int32_t point) {
    return icae_unicode_class(point) == ICAE_CHAR_LETTER;
}

/* Characters that the rule for the final sigma looks through: those of Case_Ignorable that stand in
 * running text. */
static bool is_looked_through(int32_t point) {
    return (point > 0 && point < 128 && strchr("'.:^`", (int)point)) || point == 0xA8 ||
           point == 0xAD || point == 0xAF || point == 0xB4 || point == 0xB7 || point == 0xB8 ||
           (point >= 0x300 && point <= 0x36F) || point == 0x2018 || point == 0x2019;
}

static bool is_cased_behind(const char *text, size_t bytes, size_t at) {
    while (at < bytes) {
        int32_t point = point_at(text, bytes, at, &at);
        if (!is_looked_through(point)) return is_cased(point);
    }
    return false;
}

/* A capital sigma ends a word as U+03C2, elsewhere it is U+03C3. U+0130 becomes "i" and a dot above.
 * Ill-formed bytes become U+FFFD. */
static void lower_text(icae_text *out, const char *text, size_t bytes) {
    bool is_behind_cased = false;
    for (size_t at = 0; at < bytes;) {
        size_t next;
        int32_t point = point_at(text, bytes, at, &next);
        int32_t small = point < 0 ? 0xFFFD : icae_unicode_lower(point);
        if (point == 0x3A3 && is_behind_cased && !is_cased_behind(text, bytes, next)) {
            small = 0x3C2;
        }
        char utf8[4];
        int length = icae_utf8_encode(small, utf8);
        icae_text_append(out, utf8, (size_t)length);
        if (point == 0x130) icae_text_append_string(out, "\xCC\x87");
        if (!is_looked_through(point)) is_behind_cased = is_cased(point);
        at = next;
    }
}

/* ---- the two kinds of words ---- */

void icae_rouge_tokenize(icae_text *out, const char *text, size_t bytes) {
    icae_text small = {0};
    lower_text(&small, text, bytes);
    bool is_first = true, is_inside = false;
    for (size_t i = 0; i < small.length; i++) {
        char c = small.data[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (is_word && !is_inside && !is_first) icae_text_append_char(out, ' ');
        if (is_word) {
            icae_text_append_char(out, c);
            is_first = false;
        }
        is_inside = is_word;
    }
    out->failed |= small.failed;
    icae_text_release(&small);
}

static bool is_punctuation(char c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

/* What \w of a regular expression takes; the underscore is punctuation and gone by now. */
static bool is_word_character(int32_t point) {
    icae_char_class class_of = icae_unicode_class(point);
    return class_of == ICAE_CHAR_LETTER || class_of == ICAE_CHAR_NUMBER;
}

/* The article that stands at `at`, as a word of its own: its length, or 0. */
static size_t article_at(const icae_text *text, size_t at) {
    static const char *const articles[] = {"a", "an", "the"};
    for (size_t i = 0; i < sizeof articles / sizeof articles[0]; i++) {
        size_t n = strlen(articles[i]), next;
        if (text->length - at < n || memcmp(text->data + at, articles[i], n) != 0) continue;
        if (at + n == text->length) return n;
        if (!is_word_character(point_at(text->data, text->length, at + n, &next))) return n;
    }
    return 0;
}

void icae_answer_normalize(icae_text *out, const char *text, size_t bytes) {
    icae_text small = {0}, bare = {0};
    lower_text(&small, text, bytes);
    for (size_t i = 0; i < small.length; i++)
        if (!is_punctuation(small.data[i])) icae_text_append_char(&bare, small.data[i]);
    bool is_first = true, is_inside = false, is_behind_word = false;
    for (size_t at = 0; at < bare.length;) {
        size_t article = is_behind_word ? 0 : article_at(&bare, at), next;
        int32_t point = point_at(bare.data, bare.length, at, &next);
        bool is_space = article || icae_unicode_is_space(point);
        if (article) next = at + article;
        if (!is_space) {
            if (!is_inside && !is_first) icae_text_append_char(out, ' ');
            icae_text_append(out, bare.data + at, next - at);
            is_first = false;
        }
        is_inside = !is_space;
        is_behind_word = article || is_word_character(point);
        at = next;
    }
    out->failed |= small.failed || bare.failed;
    icae_text_release(&small);
    icae_text_release(&bare);
}

/* ---- scores ---- */

static double harmonic(size_t common, size_t a, size_t b) {
    return common ? 2 * (double)common / (double)(a + b) : 0;
}

/* Length of the longest common subsequence, one row of the table at a time; row [n_b + 1] zeros. */
static size_t common_subsequence(const int64_t *a, size_t n_a, const int64_t *b, size_t n_b,
                                 size_t *row) {
    for (size_t i = 0; i < n_a; i++) {
        size_t diagonal = 0; /* the value of the row above, one to the left */
        for (size_t j = 0; j < n_b; j++) {
            size_t above = row[j + 1];
            if (a[i] == b[j])
                row[j + 1] = diagonal + 1;
            else if (row[j] > above)
                row[j + 1] = row[j];
            diagonal = above;
        }
    }
    return row[n_b];
}

icae_status icae_rouge_l(const char *answer, size_t answer_bytes, const char *reference,
                         size_t reference_bytes, double *score, icae_error *error) {
    icae_text texts[2] = {{0}, {0}};
    int64_t *ids = NULL;
    size_t counts[2] = {0, 0};
    *score = 0;
    icae_rouge_tokenize(&texts[0], answer, answer_bytes);
    icae_rouge_tokenize(&texts[1], reference, reference_bytes);
    icae_status status = icae_words_number(texts, &ids, counts, error);
    size_t *row = status ? NULL : calloc(counts[1] + 1, sizeof *row);
    if (!status && !row) status = icae_fail_memory(error, "a ROUGE score");
    if (!status) {
        size_t common = common_subsequence(ids, counts[0], ids + counts[0], counts[1], row);
        *score = harmonic(common, counts[0], counts[1]);
    }
    free(row);
    free(ids);
    icae_text_release(&texts[0]);
    icae_text_release(&texts[1]);
    return status;
}

static int compare_numbers(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Words in both, as often as in the one that has fewer of them; sorts both. */
static size_t common_words(int64_t *a, size_t n_a, int64_t *b, size_t n_b) {
    if (n_a) qsort(a, n_a, sizeof *a, compare_numbers);
    if (n_b) qsort(b, n_b, sizeof *b, compare_numbers);
    size_t common = 0;
    for (size_t i = 0, j = 0; i < n_a && j < n_b;) {
        if (a[i] == b[j]) common++;
        int64_t x = a[i], y = b[j];
        i += x <= y;
        j += y <= x;
    }
    return common;
}

icae_status icae_answer_score(const char *answer, size_t answer_bytes, const char *reference,
                              size_t reference_bytes, double *f1, bool *is_exact,
                              icae_error *error) {
    icae_text texts[2] = {{0}, {0}};
    int64_t *ids = NULL;
    size_t counts[2] = {0, 0};
    icae_answer_normalize(&texts[0], answer, answer_bytes);
    icae_answer_normalize(&texts[1], reference, reference_bytes);
    icae_status status = icae_words_number(texts, &ids, counts, error);
    *f1 = 0;
    *is_exact = false;
    if (!status) {
        *is_exact = !strcmp(icae_text_string(&texts[0]), icae_text_string(&texts[1]));
        size_t common = common_words(ids, counts[0], ids + counts[0], counts[1]);
        *f1 = counts[0] + counts[1] ? harmonic(common, counts[0], counts[1]) : 1;
    }
    free(ids);
    icae_text_release(&texts[0]);
    icae_text_release(&texts[1]);
    return status;
}
