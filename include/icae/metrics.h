/* SPDX-License-Identifier: MIT */
/*
 * How like its original a restored text is: BLEU-4, exactly matching prefix, token accuracy; how like the
 * right one an answer is: ROUGE-L, token F1, exact match.
 *
 * BLEU (Papineni et al., ACL 2002) as sacrebleu computes it by default (Post, WMT 2018), signature
 * `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp`: the numbers can be put beside published ones.
 *
 *     BLEU = 100 * exp(min(0, 1 - r/h)) * (p1 p2 p3 p4)^(1/4)
 *     p_n  = clipped matches of n-grams / n-grams of the hypothesis
 *
 * over tokens of mteval-v13a; r and h are the tokens of all references and of all hypotheses. The
 * k-th p_n that has no match counts as 1 / (2^k * n-grams) ("exp" smoothing).
 */
#ifndef ICAE_METRICS_H
#define ICAE_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ICAE_BLEU_ORDER = 4 };

/* All that BLEU needs of any number of pairs. Zeroed: no pairs yet. */
typedef struct icae_bleu {
    int64_t matches[ICAE_BLEU_ORDER], ngrams[ICAE_BLEU_ORDER];
    int64_t hypothesis_tokens, reference_tokens;
} icae_bleu;

/* Adds one pair of UTF-8 texts. Fails only when memory ends (nothing is added then). Time and
 * memory are linear in the lengths, up to a logarithm. */
icae_status icae_bleu_add(icae_bleu *bleu, const char *hypothesis, size_t hypothesis_bytes,
                          const char *reference, size_t reference_bytes, icae_error *error);
/* Adds the pairs of `other`: parts counted apart give exactly the corpus's score. */
void icae_bleu_merge(icae_bleu *bleu, const icae_bleu *other);
/* 0..100, sacrebleu's corpus_bleu. Identical texts of fewer than four tokens score 0: there is no
 * 4-gram to match; for single sentences use the next. */
double icae_bleu_score(const icae_bleu *bleu);
/* 0..100, sacrebleu's sentence_bleu ("effective order"): orders that the hypothesis is too short
 * for are left out. */
double icae_bleu_sentence_score(const icae_bleu *bleu);

/* The tokens of mteval-v13a, joined by single spaces, appended to out. */
void icae_bleu_tokenize(icae_text *out, const char *text, size_t bytes);

/* ---- answers against the right one ---- */

/*
 * ROUGE-L (Lin, ACL workshop 2004) as rouge-score computes "rougeL" by default, without its stemmer.
 *
 *     F = 2 L / (answer's words + reference's words),  L = longest common subsequence of words
 *
 * *score is 0..1; two texts without any word score 0, as there. Time is the product of the counts of words.
 */
icae_status icae_rouge_l(const char *answer, size_t answer_bytes, const char *reference,
                         size_t reference_bytes, double *score, icae_error *error);
/* Its words, runs of a-z and 0-9 in small letters, joined by single spaces, appended to out. */
void icae_rouge_tokenize(icae_text *out, const char *text, size_t bytes);

/*
 * Token F1 and exact match as SQuAD's evaluation script 2.0 computes them (Rajpurkar et al., 2016 and 2018):
 * small letters, no ASCII punctuation, none of the words a, an, the, single spaces; then
 *
 *     F1 = 2 C / (answer's words + reference's words),  C = words in common, with multiplicity
 *
 * *f1 is 0..1 and 1 when neither has a word; *is_exact: whether nothing differs.
 */
icae_status icae_answer_score(const char *answer, size_t answer_bytes, const char *reference,
                              size_t reference_bytes, double *f1, bool *is_exact,
                              icae_error *error);
/* The words that are compared, joined by single spaces, appended to out. */
void icae_answer_normalize(icae_text *out, const char *text, size_t bytes);

/* ---- tokens ---- */

/* How many leading tokens agree. */
size_t icae_prefix_match(const int32_t *a, size_t a_count, const int32_t *b, size_t b_count);
/* 0..1: agreeing leading tokens over the reference's length; the paper's "EM". An empty
 * reference is matched (1) by an empty hypothesis only (else 0). A hypothesis that goes on after
 * the reference has ended is not punished here: end both with eos where that should count. */
double icae_prefix_exact_match(const int32_t *hypothesis, size_t hypothesis_count,
                               const int32_t *reference, size_t reference_count);
/* 0..1: places at which both have the same token, over the longer length; 1 when both are empty. */
double icae_token_accuracy(const int32_t *hypothesis, size_t hypothesis_count,
                           const int32_t *reference, size_t reference_count);

#ifdef __cplusplus
}
#endif
#endif
