/* SPDX-License-Identifier: MIT */
/*
 * BLEU-4 and the token metrics; what they mean stands in icae/metrics.h. (ROUGE-L and the SQuAD scores
 * are in metrics_text.c.)
 *
 * Counting: the words of both texts become numbers, every place in a text becomes the next four
 * numbers from there (-1 past the end), and all places are sorted once. Places that begin with the
 * same n numbers then stand together for every n at once, and a run with h places of the
 * hypothesis and r of the reference has min(h, r) matches. No hash, so no collisions.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "icae/memory.h"
#include "icae/metrics.h"
#include "icae/unicode.h"
#include "words.h"

/* ---- mteval-v13a's words ---- */

static size_t without_final_spaces(const char *text, size_t bytes) {
    size_t kept = 0;
    for (size_t at = 0; at < bytes;) {
        int32_t point;
        at += (size_t)icae_utf8_decode((const unsigned char *)text + at, bytes - at, &point);
        if (!icae_unicode_is_space(point)) kept = at;
    }
    return kept;
}

/* Copies `from` with every `what` replaced; replacements are not looked at again. */
static void replace(icae_text *out, const icae_text *from, const char *what, const char *with) {
    size_t n = strlen(what);
    icae_text_clear(out);
    for (size_t i = 0; i < from->length;) {
        if (from->length - i >= n && !memcmp(from->data + i, what, n)) {
            icae_text_append_string(out, with);
            i += n;
        } else {
            icae_text_append_char(out, from->data[i++]);
        }
    }
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_stop(char c) {
    return c == '.' || c == ',';
}

/* The ASCII punctuation that stands alone whatever is beside it: all but ' , - . */
static bool is_mark(char c) {
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
           (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

/*
 * The four rules of mteval-v13a, each one pass from left to right whose matches do not overlap:
 *     0  a mark                          -> spaces around it
 *     1  a non-digit, then a stop        -> spaces around the stop
 *     2  a stop, then a non-digit        -> spaces around the stop
 *     3  a digit, then a hyphen          -> spaces around the hyphen
 * Working on bytes is safe: a byte of a longer sequence is a non-digit, as the sequence is.
 */
static void apply_rule(icae_text *out, const icae_text *from, int rule) {
    icae_text_clear(out);
    for (size_t i = 0; i < from->length; i++) {
        char a = from->data[i], b = i + 1 < from->length ? from->data[i + 1] : 0;
        bool has_next = i + 1 < from->length;
        if (rule == 0 && is_mark(a)) {
            char padded[3] = {' ', a, ' '};
            icae_text_append(out, padded, 3);
        } else if (has_next && ((rule == 1 && !is_digit(a) && is_stop(b)) ||
                                (rule == 3 && is_digit(a) && b == '-'))) {
            char split[4] = {a, ' ', b, ' '};
            icae_text_append(out, split, 4);
            i++;
        } else if (has_next && rule == 2 && is_stop(a) && !is_digit(b)) {
            char split[4] = {' ', a, ' ', b};
            icae_text_append(out, split, 4);
            i++;
        } else {
            icae_text_append_char(out, a);
        }
    }
}

static void swap_texts(icae_text *a, icae_text *b) {
    icae_text kept = *a;
    *a = *b;
    *b = kept;
}

void icae_bleu_tokenize(icae_text *out, const char *text, size_t bytes) {
    static const char *const replacements[][2] = {
        {"<skipped>", ""}, {"-\n", ""},   {"\n", " "},   {"&quot;", "\""},
        {"&amp;", "&"},    {"&lt;", "<"}, {"&gt;", ">"},
    };
    icae_text now = {0}, next = {0};
    icae_text_append(&now, text, without_final_spaces(text, bytes));
    for (size_t i = 0; i < sizeof replacements / sizeof replacements[0]; i++) {
        replace(&next, &now, replacements[i][0], replacements[i][1]);
        swap_texts(&now, &next);
    }
    /* The rules look one character to both sides. */
    icae_text_clear(&next);
    icae_text_append_char(&next, ' ');
    icae_text_append(&next, icae_text_string(&now), now.length);
    icae_text_append_char(&next, ' ');
    swap_texts(&now, &next);
    for (int rule = 0; rule < 4; rule++) {
        apply_rule(&next, &now, rule);
        swap_texts(&now, &next);
    }
    bool is_inside = false, is_first = true;
    for (size_t at = 0; at < now.length;) {
        int32_t point;
        size_t n = (size_t)icae_utf8_decode((const unsigned char *)now.data + at,
                                            now.length - at, &point);
        if (icae_unicode_is_space(point)) {
            is_inside = false;
        } else {
            if (!is_inside && !is_first) icae_text_append_char(out, ' ');
            icae_text_append(out, now.data + at, n);
            is_inside = true;
            is_first = false;
        }
        at += n;
    }
    if (now.failed || next.failed) out->failed = true;
    icae_text_release(&now);
    icae_text_release(&next);
}

/* ---- counting ---- */

typedef struct gram {
    int64_t ids[ICAE_BLEU_ORDER];
    bool is_reference;
} gram;

static int compare_grams(const void *a, const void *b) {
    const gram *x = a, *y = b;
    for (int i = 0; i < ICAE_BLEU_ORDER; i++)
        if (x->ids[i] != y->ids[i]) return x->ids[i] < y->ids[i] ? -1 : 1;
    return 0;
}

/* ids: the words of both texts, h of the hypothesis first. */
static void count_matches(icae_bleu *bleu, const int64_t *ids, gram *grams, size_t h,
                          size_t total) {
    for (size_t i = 0; i < total; i++) {
        size_t end = i < h ? h : total;
        grams[i].is_reference = i >= h;
        for (size_t k = 0; k < ICAE_BLEU_ORDER; k++)
            grams[i].ids[k] = i + k < end ? ids[i + k] : -1;
    }
    if (total) qsort(grams, total, sizeof *grams, compare_grams);
    for (size_t n = 1; n <= ICAE_BLEU_ORDER; n++) {
        for (size_t i = 0; i < total;) {
            int64_t counts[2] = {0, 0};
            size_t first = i;
            for (; i < total && !memcmp(grams[i].ids, grams[first].ids, n * sizeof(int64_t));
                 i++)
                counts[grams[i].is_reference]++;
            if (grams[first].ids[n - 1] >= 0) {
                bleu->matches[n - 1] += counts[0] < counts[1] ? counts[0] : counts[1];
            }
        }
        if (h >= n) bleu->ngrams[n - 1] += (int64_t)(h - n + 1);
    }
    bleu->hypothesis_tokens += (int64_t)h;
    bleu->reference_tokens += (int64_t)(total - h);
}

icae_status icae_bleu_add(icae_bleu *bleu, const char *hypothesis, size_t hypothesis_bytes,
                          const char *reference, size_t reference_bytes, icae_error *error) {
    icae_text texts[2] = {{0}, {0}};
    icae_bleu_tokenize(&texts[0], hypothesis, hypothesis_bytes);
    icae_bleu_tokenize(&texts[1], reference, reference_bytes);
    int64_t *ids;
    size_t counts[2];
    icae_status status = icae_words_number(texts, &ids, counts, error);
    size_t total = counts[0] + counts[1];
    gram *grams = status ? NULL : calloc(total + 1, sizeof *grams);
    if (!status && !grams) status = icae_fail_memory(error, "the words of a BLEU score");
    if (!status) count_matches(bleu, ids, grams, counts[0], total);
    free(ids);
    free(grams);
    icae_text_release(&texts[0]);
    icae_text_release(&texts[1]);
    return status;
}

void icae_bleu_merge(icae_bleu *bleu, const icae_bleu *other) {
    for (int n = 0; n < ICAE_BLEU_ORDER; n++) {
        bleu->matches[n] += other->matches[n];
        bleu->ngrams[n] += other->ngrams[n];
    }
    bleu->hypothesis_tokens += other->hypothesis_tokens;
    bleu->reference_tokens += other->reference_tokens;
}

/* ---- scores ---- */

static double bleu_score(const icae_bleu *bleu, bool is_effective_order) {
    bool is_any = false;
    for (int n = 0; n < ICAE_BLEU_ORDER; n++)
        is_any |= bleu->matches[n] > 0;
    if (!is_any) return 0;
    double log_sum = 0, smoothing = 1;
    int orders = 0;
    for (; orders < ICAE_BLEU_ORDER && bleu->ngrams[orders]; orders++) {
        double total = (double)bleu->ngrams[orders], matches = (double)bleu->matches[orders];
        if (!bleu->matches[orders]) smoothing *= 2;
        log_sum += log(100 * (bleu->matches[orders] ? matches : 1 / smoothing) / total);
    }
    /* A missing order is a precision of 0, and the mean is geometric. */
    if (orders < ICAE_BLEU_ORDER && !is_effective_order) return 0;
    double brevity = 1;
    if (bleu->hypothesis_tokens < bleu->reference_tokens) {
        brevity = exp(1 - (double)bleu->reference_tokens / (double)bleu->hypothesis_tokens);
    }
    return brevity * exp(log_sum / orders);
}

double icae_bleu_score(const icae_bleu *bleu) {
    return bleu_score(bleu, false);
}

double icae_bleu_sentence_score(const icae_bleu *bleu) {
    return bleu_score(bleu, true);
}

/* ---- token metrics ---- */

size_t icae_prefix_match(const int32_t *a, size_t a_count, const int32_t *b, size_t b_count) {
    size_t least = a_count < b_count ? a_count : b_count, n = 0;
    while (n < least && a[n] == b[n])
        n++;
    return n;
}

double icae_prefix_exact_match(const int32_t *hypothesis, size_t hypothesis_count,
                               const int32_t *reference, size_t reference_count) {
    if (!reference_count) return hypothesis_count ? 0 : 1;
    return (double)icae_prefix_match(hypothesis, hypothesis_count, reference, reference_count) /
           (double)reference_count;
}

double icae_token_accuracy(const int32_t *hypothesis, size_t hypothesis_count,
                           const int32_t *reference, size_t reference_count) {
    size_t most = hypothesis_count > reference_count ? hypothesis_count : reference_count;
    size_t least = hypothesis_count + reference_count - most, equal = 0;
    for (size_t i = 0; i < least; i++)
        equal += hypothesis[i] == reference[i];
    return most ? (double)equal / (double)most : 1;
}
