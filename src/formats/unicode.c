/* SPDX-License-Identifier: MIT */
/*
 * The little of Unicode that splitting and comparing text needs; see icae/unicode.h and, for the byte
 * characters, tokenizer_internal.h.
 *
 * ASCII is answered by a table of 128 entries, the rest by binary search in ranges: about 800 for the
 * classes, 180 for small letters.
 */
#include "ranges.h"
#include "tokenizer_internal.h"

#define LETTER ICAE_CHAR_LETTER
#define NUMBER ICAE_CHAR_NUMBER
#define SPACE  ICAE_CHAR_SPACE

static const struct {
    int32_t first, last;
    uint8_t class_of_all;
} ranges[] = {
#include "unicode_tables.inc"
};

/* 16 characters a line; the rows are U+0000, U+0010, ... U+0070. */
/* clang-format off */
static const uint8_t ascii[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, SPACE, SPACE, SPACE, SPACE, SPACE, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    SPACE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, 0, 0, 0, 0, 0, 0,
    0, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, 0, 0, 0, 0, 0,
    0, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, 0, 0, 0, 0, 0,
};
/* clang-format on */

icae_char_class icae_unicode_class(int32_t point) {
    if (point >= 0 && point < 128) return (icae_char_class)ascii[point];
    ptrdiff_t at =
        icae_range_find(ranges, sizeof ranges / sizeof ranges[0], sizeof ranges[0], point);
    return at < 0 ? ICAE_CHAR_OTHER : (icae_char_class)ranges[at].class_of_all;
}

bool icae_unicode_is_space(int32_t point) {
    return icae_unicode_class(point) == ICAE_CHAR_SPACE || (point >= 0x1C && point <= 0x1F);
}

/* ---- small letters ---- */

static const struct {
    int32_t first, last, step; /* every step-th character from first to last ... */
    int32_t distance;          /* ... has its small letter so far behind it */
} capitals[] = {
#include "unicode_lower.inc"
};

int32_t icae_unicode_lower(int32_t point) {
    if (point < 128) return point >= 'A' && point <= 'Z' ? point + 32 : point;
    ptrdiff_t at = icae_range_find(capitals, sizeof capitals / sizeof capitals[0],
                                   sizeof capitals[0], point);
    if (at < 0 || (point - capitals[at].first) % capitals[at].step) return point;
    return point + capitals[at].distance;
}

/*
 * The bytes without a glyph of their own are 00-20, 7F-A0 and AD: 33 + 34 + 1. In that order they
 * become U+0100 ... U+0143.
 */
int32_t icae_byte_to_char(unsigned char byte) {
    if (byte <= 0x20) return 0x100 + byte;
    if (byte >= 0x7F && byte <= 0xA0) return 0x100 + 33 + (byte - 0x7F);
    if (byte == 0xAD) return 0x100 + 67;
    return byte;
}

int icae_char_to_byte(int32_t point) {
    if (point < 0 || point > 0x143) return -1;
    if (point < 0x100) return icae_byte_to_char((unsigned char)point) == point ? point : -1;
    int rank = point - 0x100;
    return rank < 33 ? rank : rank < 67 ? 0x7F + rank - 33 : 0xAD;
}
