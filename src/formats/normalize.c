/* SPDX-License-Identifier: MIT */
/*
 * Normalization form C: characters that can be spelled in several ways get one spelling.
 *
 *     e + U+0301  ->  U+00E9        U+212B (Angstrom)  ->  U+00C5        U+1112 U+1161 -> U+D558
 *
 * Each character is taken apart as far as possible, the marks after a starter are put in the order
 * of their combining classes, and what can be put together is put together again. Most text needs
 * none of this: characters that are not in the table of unsafe ones are copied, and only the
 * stretches around the others are worked on. A stretch is a safe starter and the unsafe characters
 * after it; nothing ever composes across the start of a stretch.
 *
 * The tables are of the version that Hugging Face's tokenizers use, see unicode_nfc.inc.
 * Source: Unicode Standard Annex 15; The Unicode Standard, section 3.12 (Hangul).
 */
#include <stdlib.h>

#include "ranges.h"
#include "tokenizer_internal.h"

typedef struct unsafe_range {
    int32_t first, last;
    uint8_t combining_class;
} unsafe_range;

typedef struct decomposition {
    int32_t point, first, second; /* second is 0 where there is none */
} decomposition;

typedef struct composition {
    int32_t first, second, composed;
} composition;

#include "unicode_nfc.inc"

enum {
    N_UNSAFE = sizeof unsafe / sizeof unsafe[0],
    N_DECOMPOSITIONS = sizeof decompositions / sizeof decompositions[0],
    N_COMPOSITIONS = sizeof compositions / sizeof compositions[0],
    FIRST_UNSAFE = 0x300,
    FIRST_UNSAFE_LEAD = 0xCC /* the first byte of U+0300 in UTF-8 */
};

/* Hangul: a syllable is S + (l * 21 + v) * 28 + t, with t = 0 for none. */
enum { S = 0xAC00, L = 0x1100, V = 0x1161, T = 0x11A7, N_L = 19, N_V = 21, N_T = 28 };
enum { N_S = N_L * N_V * N_T };

/* The combining class of an unsafe character, -1 for a safe one. */
static int unsafe_class(int32_t point) {
    if (point < FIRST_UNSAFE) return -1;
    ptrdiff_t at = icae_range_find(unsafe, N_UNSAFE, sizeof *unsafe, point);
    return at < 0 ? -1 : unsafe[at].combining_class;
}

static const decomposition *find_decomposition(int32_t point) {
    size_t low = 0, high = N_DECOMPOSITIONS;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (decompositions[middle].point < point)
            low = middle + 1;
        else
            high = middle;
    }
    return low < N_DECOMPOSITIONS && decompositions[low].point == point ? &decompositions[low]
                                                                        : NULL;
}

/* What two characters make, -1 when they stay two. */
static int32_t compose(int32_t first, int32_t second) {
    if (first >= L && first < L + N_L && second >= V && second < V + N_V)
        return S + ((first - L) * N_V + (second - V)) * N_T;
    if (first >= S && first < S + N_S && (first - S) % N_T == 0 && second > T &&
        second < T + N_T)
        return first + (second - T);
    size_t low = 0, high = N_COMPOSITIONS;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const composition *c = &compositions[middle];
        if (c->first < first || (c->first == first && c->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == N_COMPOSITIONS || compositions[low].first != first ||
        compositions[low].second != second)
        return -1;
    return compositions[low].composed;
}

/* ---- one stretch ---- */

typedef struct part {
    int32_t point;
    uint64_t order; /* combining class << 32 (0 for starters), then the place in its run */
} part;

typedef struct stretch {
    part *parts;
    size_t count, room;
    bool failed;
} stretch;

static void add_part(stretch *s, int32_t point) {
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 32;
        part *larger = realloc(s->parts, room * sizeof *larger);
        if (!larger) {
            s->failed = true;
            return;
        }
        s->parts = larger;
        s->room = room;
    }
    int combining_class = unsafe_class(point);
    s->parts[s->count].order = combining_class > 0 ? (uint64_t)combining_class << 32 : 0;
    s->parts[s->count++].point = point;
}

/* Takes a character apart; canonical decompositions are at most four steps deep. */
static void add_decomposed(stretch *s, int32_t point) {
    if (point >= S && point < S + N_S) {
        int32_t index = point - S;
        add_part(s, L + index / (N_V * N_T));
        add_part(s, V + index / N_T % N_V);
        if (index % N_T) add_part(s, T + index % N_T);
        return;
    }
    const decomposition *found = find_decomposition(point);
    if (!found) {
        add_part(s, point);
        return;
    }
    add_decomposed(s, found->first);
    if (found->second) add_decomposed(s, found->second);
}

static int compare_parts(const void *a, const void *b) {
    const part *x = a, *y = b;
    return (x->order > y->order) - (x->order < y->order);
}

/* Sorts every run of marks by class, equals staying in their order. */
static void order_marks(stretch *s) {
    for (size_t at = 0; at < s->count;) {
        size_t end = at + 1;
        if (s->parts[at].order) {
            bool is_sorted = true;
            for (; end < s->count && s->parts[end].order; end++)
                is_sorted &= s->parts[end - 1].order <= s->parts[end].order;
            if (!is_sorted) {
                for (size_t i = at; i < end; i++)
                    s->parts[i].order |= i - at;
                qsort(s->parts + at, end - at, sizeof *s->parts, compare_parts);
            }
        }
        at = end;
    }
}

/* A character joins the last starter unless one between them has no smaller class than its own. */
static void compose_parts(stretch *s) {
    size_t kept = 0, starter = SIZE_MAX;
    uint64_t last_class = 0; /* of the last one kept after the starter */
    for (size_t i = 0; i < s->count; i++) {
        part p = s->parts[i];
        uint64_t combining_class = p.order >> 32;
        bool is_next = starter != SIZE_MAX && starter + 1 == kept;
        if (starter != SIZE_MAX && (is_next || last_class < combining_class)) {
            int32_t composed = compose(s->parts[starter].point, p.point);
            if (composed >= 0) {
                s->parts[starter].point = composed;
                continue;
            }
        }
        if (combining_class == 0) starter = kept;
        last_class = combining_class;
        s->parts[kept++] = p;
    }
    s->count = kept;
}

static void normalize_stretch(stretch *s, const unsigned char *text, size_t bytes,
                              icae_text *out) {
    s->count = 0;
    for (size_t at = 0; at < bytes && !s->failed;) {
        int32_t point;
        at += (size_t)icae_utf8_decode(text + at, bytes - at, &point);
        add_decomposed(s, point);
    }
    if (s->failed) return;
    order_marks(s);
    compose_parts(s);
    for (size_t i = 0; i < s->count; i++) {
        char spelled[4];
        icae_text_append(out, spelled, (size_t)icae_utf8_encode(s->parts[i].point, spelled));
    }
}

/* ---- whole texts ---- */

/* The first unsafe character at or after `at`, or bytes; *before is the start of the one that
 * stands before it (`at` when there is none). */
static size_t find_unsafe(const unsigned char *text, size_t bytes, size_t at, size_t *before) {
    *before = at;
    while (at < bytes) {
        int32_t point = text[at];
        size_t next = at + 1;
        if (point >= FIRST_UNSAFE_LEAD) {
            next = at + (size_t)icae_utf8_decode(text + at, bytes - at, &point);
            if (unsafe_class(point) >= 0) return at;
        } else if (point >= 0x80) {
            next = at + 2;
        }
        *before = at;
        at = next;
    }
    return bytes;
}

bool icae_is_nfc(const unsigned char *text, size_t bytes) {
    size_t before;
    return find_unsafe(text, bytes, 0, &before) == bytes;
}

void icae_nfc(icae_text *out, const unsigned char *text, size_t bytes) {
    stretch s = {0};
    for (size_t from = 0; from < bytes && !s.failed;) {
        size_t start, end = find_unsafe(text, bytes, from, &start);
        if (end == bytes) start = bytes;
        icae_text_append(out, text + from, start - from);
        while (end < bytes) { /* to the next safe character */
            int32_t point;
            size_t length = (size_t)icae_utf8_decode(text + end, bytes - end, &point);
            if (unsafe_class(point) < 0) break;
            end += length;
        }
        normalize_stretch(&s, text + start, end - start, out);
        from = end;
    }
    if (s.failed) out->failed = true;
    free(s.parts);
}
