/* SPDX-License-Identifier: MIT */
/*
 * What of one text its slots hold: the text is written again from them and laid beside itself.
 *
 * Every span is restored by itself, from its own slots, greedy, as the frozen decoder does it. A token is kept
 * when it is in a longest common subsequence of the span and what was restored of it: what stands behind a
 * word too many is not lost. A character is lost when a token that it is made of is.
 *
 *     number   a word with a digit in it: "1912", "3.14", "18th", "24/7"
 *     name     a word with a capital that does not begin a sentence, "I" left out. Sentences begin the text,
 *              follow . ! ? or a line's end, quotes and brackets between looked through;
 *              of three words in capitals or more in a row ("AS IS, WITHOUT WARRANTY") none is a name
 *     word     letters and numbers, and single . , : / ' - between them
 *
 * A number or name is kept when it comes back as a word of its own, and lost when one of its characters is, or
 * others came into it or to its edges: "1205" is lost in "12055" and in "1205.5".
 */
#ifndef ICAE_FIDELITY_H
#define ICAE_FIDELITY_H

#include "icae/generate.h"
#include "icae/refine.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ICAE_FIDELITY_SHOUTED_WORDS = 3, /* in a row: a phrase in capitals, not names */
    ICAE_FIDELITY_LEAST_HALF = 16    /* tokens, for its worth as context to be measured */
};

typedef struct icae_fidelity_span {
    int64_t first, n;   /* tokens of the text */
    int64_t n_kept;     /* in a longest common subsequence with what was restored */
    int64_t n_in_place; /* restored at their very place */
    int32_t *restored;  /* [n_restored] */
    bool *is_right;     /* [n_restored] in that subsequence, too */
    int64_t n_restored;
    bool is_exact; /* restored to the last token, and ended there */
    bool is_raw;   /* kept as it is: nothing can be lost */
    double nll;    /* of its tokens and its end given its slots, teacher-forced */
} icae_fidelity_span;

typedef struct icae_fidelity_mark {
    size_t first, end; /* bytes of the text */
    bool is_number;    /* else a name */
    bool is_lost;
} icae_fidelity_mark;

typedef struct icae_fidelity {
    int64_t n_tokens, n_slots;
    int64_t n_raw, n_raw_tokens;         /* spans that are kept as text, and what is in them */
    int64_t n_kept, n_in_place, n_exact; /* sums over the other spans */
    icae_fidelity_span *spans;
    int64_t n_spans;
    bool *is_kept;  /* [n_tokens] */
    icae_text text; /* what the tokens spell, byte by byte */
    bool *is_lost;  /* [text.length], whole characters */
    size_t *starts; /* [n_spans + 1] bytes at which spans begin */
    icae_fidelity_mark *marks;
    int64_t n_marks, n_numbers, n_numbers_lost, n_names, n_names_lost;
    icae_refined
        refined; /* icae_fidelity_compress: what refining did; zeroed where there was none */
    double nll;  /* of compressed spans, teacher-forced */
    int64_t n_targets; /* that bear it */
    /* The text's second half, predicted behind its first: behind its slots, as it is, behind nothing. */
    double continuation_slots, continuation_raw, continuation_none;
    int64_t n_continuation; /* tokens scored; 0: the text is too short */
} icae_fidelity;

typedef struct icae_fidelity_how {
    double least;   /* compress: the share of its tokens that a span has to keep, 0..1 */
    int64_t refine; /* steps that slots are refined by (icae/refine.h); measure: have been */
    const icae_span_watch *watch; /* "compressed", "refined", "restored"; may be NULL */
} icae_fidelity_how;

/*
 * Measures. ids [slots->n_tokens] are those that were compressed; fidelity must be empty (zeroed). Texts longer
 * than the base's context are scored as a continuation in their first part only.
 */
icae_status icae_fidelity_measure(icae_graph *graph, const icae_model *model,
                                  const icae_adapter *adapter, const int32_t *ids,
                                  const icae_slots *slots, const icae_fidelity_how *how,
                                  icae_fidelity *fidelity, icae_error *error);
void icae_fidelity_release(icae_fidelity *fidelity); /* a zeroed struct, too */

/*
 * Compresses so that every span keeps at least the share how->least of its tokens, and measures what came of it.
 * A span that does not is halved, which gives it twice the slots, and again; where a half would be no longer
 * than its own slots, the span is kept as text. Costs a compression and a restoration of the whole text for
 * each time that the longest span is halved.
 *
 *   ids       [n] as icae_adapter_encode gives them
 *   slots     empty before; source_bytes and source_hash are left 0
 *   fidelity  empty before
 *
 * ICAE_INVALID when no span at all can be compressed well enough: the text is better kept as it is.
 */
icae_status icae_fidelity_compress(icae_graph *graph, const icae_model *model,
                                   const icae_adapter *adapter, const int32_t *ids, int64_t n,
                                   const icae_fidelity_how *how, icae_slots *slots,
                                   icae_fidelity *fidelity, icae_error *error);

/* Shares of the tokens that are in slots, 0..1: kept, and at their very place. 1 for no tokens. */
double icae_fidelity_kept(const icae_fidelity *fidelity);
double icae_fidelity_in_place(const icae_fidelity *fidelity);

/* The numbers and names of a text, in order; *marks is malloc'ed. Their is_lost is false. */
icae_status icae_fidelity_find_marks(const char *text, size_t bytes, icae_fidelity_mark **marks,
                                     int64_t *n_marks, icae_error *error);

/* What a page says of where its numbers come from; texts for readers. */
typedef struct icae_fidelity_source {
    const char *text, *base, *adapter, *command;
} icae_fidelity_source;

/*
 * Sets the marks' is_lost.
 *
 *   restored  [bytes] UTF-8
 *   places    [bytes of the text that the marks are of] where in `restored` each byte of the text stands,
 *             SIZE_MAX for one that is lost; in order
 */
icae_status icae_fidelity_judge_marks(icae_fidelity_mark *marks, int64_t n_marks,
                                      const char *restored, size_t bytes, const size_t *places,
                                      icae_error *error);

/* What the page is called, before the text's name. */
#define ICAE_FIDELITY_TITLE "What the slots hold"

/* One HTML page: the numbers, the text with what was lost marked by a line through it and by colour, what came
 * back in its place, span by span. No scripts, no links. */
icae_status icae_fidelity_write_page(icae_text *out, const icae_fidelity *fidelity,
                                     const icae_tokenizer *tokenizer,
                                     const icae_fidelity_source *source, icae_error *error);

#ifdef __cplusplus
}
#endif
#endif
