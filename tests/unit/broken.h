/* SPDX-License-Identifier: MIT */
/*
 * The tables of tests/broken: files described so that a person can read what is wrong with each. A table is
 * a text of lines:
 *
 *     # a comment
 *     define NAME ITEMS       a name for bytes that many cases share
 *     case NAME
 *     how WORDS               what is wrong
 *     bytes ITEMS             of the file; several such lines follow one another
 *     patch PLACE ITEMS       bytes that are overwritten; a negative place counts from the end
 *     cut LENGTH              bytes that are left; a negative length is how many are taken away
 *     says SENTENCE           the refusal word for word, FILE standing for the path; "accepted" for none
 *
 * Items, with spaces between:
 *
 *     'text'      as it stands; no escapes, so no ' in it
 *     x0AFF       bytes in hexadecimal digits
 *     4:7         a little-endian number of so many bytes; may be negative
 *     4[ ITEMS ]  the same for the length of the items, and then these
 *     9*ITEM      so many times
 *     $NAME       what was defined
 *     gz[ ITEMS ], pickle[ ITEMS ]    packed by gzip; as data.pkl of a .pt, with 64 bytes as storage 0
 *
 * Tables of folders use the parts of tests/fuzz/sound.h.
 */
#ifndef ICAE_TESTS_BROKEN_H
#define ICAE_TESTS_BROKEN_H

#include <stdbool.h>

#include "icae/text.h"

typedef struct broken_case {
    char name[96];
    icae_text how, bytes, says;
} broken_case;

typedef struct broken_table {
    broken_case *cases;
    size_t n_cases;
} broken_table;

/* Ends the program with a sentence when the table itself is not sound. */
broken_table broken_table_read(const char *path);
void broken_table_release(broken_table *table);

#endif
