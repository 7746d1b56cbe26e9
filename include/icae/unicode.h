/* SPDX-License-Identifier: MIT */
/*
 * What is asked of single characters: the class that splits text, white space, the small letter.
 *
 * Every function takes any int32_t; what is no character is OTHER, no space, and its own small letter.
 */
#ifndef ICAE_UNICODE_H
#define ICAE_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum icae_char_class {
    ICAE_CHAR_OTHER,
    ICAE_CHAR_LETTER, /* \p{L} */
    ICAE_CHAR_NUMBER, /* \p{N} */
    ICAE_CHAR_SPACE   /* \s, that is White_Space */
} icae_char_class;

icae_char_class icae_unicode_class(int32_t point);

/* Python's str.isspace: White_Space and the four separators U+001C to U+001F. */
bool icae_unicode_is_space(int32_t point);

/* The small letter of a capital or title-case one, else the point itself. U+0130, whose small form is two
 * characters, gives the first of them, "i". */
int32_t icae_unicode_lower(int32_t point);

#ifdef __cplusplus
}
#endif
#endif
