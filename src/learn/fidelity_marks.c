/* SPDX-License-Identifier: MIT */
/*
 * The numbers and names of a text: what a reader misses first when a text comes back wrong. The rule
 * stands in icae/fidelity.h; it is one of form, so a "name" may be an adjective ("French") or a word of a
 * title, and a name that begins a sentence is not seen.
 */
#include <stdlib.h>
#include <string.h>

#include "icae/fidelity.h"
#include "icae/unicode.h"

/* A character and where the next begins. */
typedef struct character {
    int32_t point;
    size_t next;
} character;

static character character_at(const char *text, size_t bytes, size_t at) {
    character c = {.point = -1, .next = bytes};
    if (at >= bytes) return c;
    c.next =
        at + (size_t)icae_utf8_decode((const unsigned char *)text + at, bytes - at, &c.point);
    return c;
}

static bool is_combining(int32_t point) {
    return point >= 0x300 && point <= 0x36F;
}

static bool is_of_word(int32_t point) {
    icae_char_class class_of = icae_unicode_class(point);
    return class_of == ICAE_CHAR_LETTER || class_of == ICAE_CHAR_NUMBER || is_combining(point);
}

/* Stands inside a word when there is a letter or number on both sides. */
static bool is_joint(int32_t point) {
    return (point > 0 && point < 128 && strchr(".,:/'-", (int)point)) || point == 0x2019;
}

/* Between the end of a sentence and the first word of the next. */
static bool is_between(int32_t point) {
    return (point > 0 && point < 128 && strchr("\"'()[]{}*_#>-", (int)point)) ||
           icae_unicode_is_space(point) || (point >= 0x2010 && point <= 0x2015) ||
           (point >= 0x2018 && point <= 0x201F) || point == 0xAB || point == 0xBB ||
           point == 0x2022;
}

static bool ends_sentence(int32_t point) {
    return point == '.' || point == '!' || point == '?' || point == '\n' || point == 0x2026 ||
           point == 0x3002;
}

typedef struct word {
    size_t end;
    bool has_digit, has_capital;
    bool is_shouted; /* has capitals and no other letters */
} word;

/* The word that begins at `at`, which is a letter or number. */
static word read_word(const char *text, size_t bytes, size_t at) {
    word w = {.end = at, .is_shouted = true};
    bool is_first = true;
    while (at < bytes) {
        character c = character_at(text, bytes, at);
        if (!is_of_word(c.point)) {
            if (!is_joint(c.point) || !is_of_word(character_at(text, bytes, c.next).point))
                break;
            at = c.next;
            continue;
        }
        bool is_digit = icae_unicode_class(c.point) == ICAE_CHAR_NUMBER;
        bool is_capital = icae_unicode_lower(c.point) != c.point;
        w.has_digit |= is_digit;
        w.is_shouted &= is_capital || is_digit || is_combining(c.point);
        if (is_first) w.has_capital = is_capital;
        is_first = false;
        at = w.end = c.next;
    }
    return w;
}

/* "I", "I'm", "I'll": a capital that says nothing. */
static bool is_pronoun(const char *text, size_t bytes) {
    return text[0] == 'I' && (bytes == 1 || text[1] == '\'' ||
                              (bytes > 3 && !memcmp(text + 1, "\xE2\x80\x99", 3)));
}

/* Whether a word begins with the character, which stands outside one. */
static bool begins_word(int32_t point) {
    return is_of_word(point) && !is_combining(point);
}

static icae_status add_mark(icae_fidelity_mark mark, icae_fidelity_mark **marks, int64_t *n,
                            int64_t *capacity, icae_error *error) {
    if (*n == *capacity) {
        int64_t wanted = *capacity ? 2 * *capacity : 64;
        icae_fidelity_mark *grown = realloc(*marks, (size_t)wanted * sizeof *grown);
        if (!grown) return icae_fail_memory(error, "numbers and names");
        *marks = grown;
        *capacity = wanted;
    }
    (*marks)[(*n)++] = mark;
    return ICAE_OK;
}

/* Words in capitals, one after the other: their number, and the marks before them. */
typedef struct shouting {
    int64_t n_words, first_mark;
} shouting;

/* A phrase in capitals has no names: the marks of numbers alone stay. */
static void end_shouting(shouting *run, icae_fidelity_mark *marks, int64_t *n) {
    if (run->n_words >= ICAE_FIDELITY_SHOUTED_WORDS) {
        int64_t kept = run->first_mark;
        for (int64_t i = run->first_mark; i < *n; i++) {
            if (marks[i].is_number) marks[kept++] = marks[i];
        }
        *n = kept;
    }
    run->n_words = 0;
}

icae_status icae_fidelity_find_marks(const char *text, size_t bytes, icae_fidelity_mark **marks,
                                     int64_t *n_marks, icae_error *error) {
    int64_t capacity = 0;
    bool begins_sentence = true;
    shouting run = {0};
    icae_status status = ICAE_OK;
    *marks = NULL;
    *n_marks = 0;
    for (size_t at = 0; at < bytes && !status;) {
        character c = character_at(text, bytes, at);
        if (!begins_word(c.point)) {
            if (ends_sentence(c.point))
                begins_sentence = true;
            else if (!is_between(c.point))
                begins_sentence = false;
            at = c.next;
            continue;
        }
        word w = read_word(text, bytes, at);
        if (!w.is_shouted) end_shouting(&run, *marks, n_marks);
        if (w.is_shouted && run.n_words++ == 0) run.first_mark = *n_marks;
        bool is_name = w.has_capital && !begins_sentence && !is_pronoun(text + at, w.end - at);
        icae_fidelity_mark mark = {.first = at, .end = w.end, .is_number = w.has_digit};
        if (w.has_digit || is_name) status = add_mark(mark, marks, n_marks, &capacity, error);
        begins_sentence = false;
        at = w.end;
    }
    if (!status) {
        end_shouting(&run, *marks, n_marks);
        return ICAE_OK;
    }
    free(*marks);
    *marks = NULL;
    *n_marks = 0;
    return status;
}

/* ends[i]: where the word ends that begins at byte i, 0 where none does. */
static void find_words(const char *text, size_t bytes, size_t *ends) {
    for (size_t at = 0; at < bytes;) {
        character c = character_at(text, bytes, at);
        size_t next = c.next;
        if (begins_word(c.point)) next = ends[at] = read_word(text, bytes, at).end;
        at = next;
    }
}

icae_status icae_fidelity_judge_marks(icae_fidelity_mark *marks, int64_t n_marks,
                                      const char *restored, size_t bytes, const size_t *places,
                                      icae_error *error) {
    size_t *ends = calloc(bytes + 1, sizeof *ends);
    if (!ends) return icae_fail_memory(error, "the words of the restored text");
    find_words(restored, bytes, ends);
    for (int64_t m = 0; m < n_marks; m++) {
        icae_fidelity_mark *mark = &marks[m];
        size_t length = mark->end - mark->first, place = places[mark->first];
        mark->is_lost = place == SIZE_MAX || ends[place] != place + length;
        for (size_t i = 1; i < length; i++)
            mark->is_lost |= places[mark->first + i] != place + i;
    }
    free(ends);
    return ICAE_OK;
}
