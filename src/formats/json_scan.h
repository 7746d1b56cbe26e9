/* SPDX-License-Identifier: MIT */
/*
 * The strict scan of a JSON text, which knows lines and writes the complaints. For json.c; nobody else
 * includes it.
 */
#ifndef ICAE_FORMATS_JSON_SCAN_H
#define ICAE_FORMATS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "icae/status.h"

/*
 * Holds a whole text against RFC 8259 and our limits: nesting, length of numbers, no \u0000 in a key.
 *
 *   name       what the complaint calls it: "NAME:LINE: expected ..."
 *   has_zero   set: whether a string holds \u0000
 *
 * Returns whether it is good; if not, the error is ICAE_FORMAT. Nothing is allocated.
 */
bool icae_json_scan(const char *name, const char *text, size_t bytes, bool *has_zero,
                    icae_error *error);

/* The 1-based line on which value `number` (from 0, in document order) begins, or its key where it has one;
 * 0 when there are not so many. The text is a good one. */
int icae_json_scan_line(const char *text, size_t bytes, size_t number);

#endif
