/* SPDX-License-Identifier: MIT */
/*
 * A growing byte string, UTF-8, and names that were misspelt.
 *
 * A zeroed icae_text is an empty string. Memory failure is sticky: later calls do nothing and
 * `failed` is true, so a long run of appends needs one check at its end.
 */
#ifndef ICAE_TEXT_H
#define ICAE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_text {
    char *data;    /* always 0-terminated once something was appended; else NULL */
    size_t length; /* bytes, the final 0 not counted */
    size_t capacity;
    bool failed;
} icae_text;

void icae_text_release(icae_text *text);
void icae_text_clear(icae_text *text); /* keeps the memory */
void icae_text_append(icae_text *text, const void *data, size_t bytes);
void icae_text_append_string(icae_text *text, const char *string);
void icae_text_append_char(icae_text *text, char c);
void icae_text_printf(icae_text *text, const char *format, ...) ICAE_PRINTF(2, 3);
const char *icae_text_string(const icae_text *text); /* never NULL */

/*
 * Reads one code point of UTF-8 at data[0..bytes). Returns its length, 1..4, with *point set; for
 * an ill-formed sequence (overlong, surrogate, above U+10FFFF, truncated) returns 1 with
 * *point = -1. bytes must be at least 1. Source: Unicode 15, table 3-7.
 */
int icae_utf8_decode(const unsigned char *data, size_t bytes, int32_t *point);
int icae_utf8_encode(int32_t point,
                     char out[4]); /* length, 0 when point is not a scalar value */
/* Bytes of the longest prefix of data that is not cut inside a well-formed sequence: what may be
 * shown now while more bytes are still to come. Ill-formed bytes count as whole. */
size_t icae_utf8_complete(const unsigned char *data, size_t bytes);
/* Whether all of it is well-formed. */
bool icae_utf8_is_valid(const char *text, size_t bytes);

/* Bytes that stand in no well-formed sequence, where the first of them is, and zeros. */
typedef struct icae_utf8_flaws {
    size_t wrong, first, zeros;
} icae_utf8_flaws;

icae_utf8_flaws icae_utf8_examine(const char *text, size_t bytes);
/* Whether so many bytes with these flaws may be a text at all: a tenth of them may be wrong or zeros. Fewer
 * than 64 bytes are somebody's odd text, unless more than a quarter are zeros, as in UTF-16. */
bool icae_utf8_is_text(icae_utf8_flaws flaws, size_t bytes);
/* Copies data to out with ill-formed bytes replaced: one U+FFFD for each maximal subpart, that is
 * for each longest start of a sequence that breaks off ("E2 82 41" gives U+FFFD, "A"), and for each
 * other byte. Source: Unicode 15, section 3.9; Rust's String::from_utf8_lossy does the same. */
void icae_utf8_repair(icae_text *out, const void *data, size_t bytes);

/* For "did you mean": *nearest, NULL at first, becomes `name` when that is nearer to `word` than what
 * it was, and at most a third of the word away. Names above 64 bytes are near to nothing. */
void icae_name_suggest(const char *word, const char *name, const char **nearest);

#ifdef __cplusplus
}
#endif
#endif
