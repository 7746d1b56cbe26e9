/* SPDX-License-Identifier: MIT */
/*
 * A checksum inside a JSON document of our own. It is the last key of the root, and the text ends with it:
 *
 *     ... ,
 *       "checksum": "0123456789abcdef"
 *     }
 *
 * The 16 digits are icae_hash64 over all bytes before them, and then over those behind them. So a changed
 * byte is found wherever it stands: in the text, or in the digits themselves.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "icae/json.h"
#include "icae/rng.h"

enum { DIGITS = 16 };
static const char before_digits[] = ",\n  \"checksum\": \"", behind_digits[] = "\"\n}\n";

static void make_digits(const char *text, size_t bytes, char digits[DIGITS + 1]) {
    uint64_t hash = icae_hash64(text, bytes, 0);
    hash = icae_hash64(behind_digits, sizeof behind_digits - 1, hash);
    snprintf(digits, DIGITS + 1, "%016" PRIx64, hash);
}

void icae_json_write_seal(icae_text *out) {
    char digits[DIGITS + 1];
    icae_text_append_string(out, before_digits);
    if (out->failed) return;
    make_digits(out->data, out->length, digits);
    icae_text_append_string(out, digits);
    icae_text_append_string(out, behind_digits);
}

static bool fits(const char *text, size_t bytes) {
    const size_t tail = DIGITS + sizeof behind_digits - 1, head = sizeof before_digits - 1;
    if (bytes < head + tail) return false;
    const char *digits = text + bytes - tail;
    char expected[DIGITS + 1];
    make_digits(text, bytes - tail, expected);
    return !memcmp(digits - head, before_digits, head) && !memcmp(digits, expected, DIGITS) &&
           !memcmp(digits + DIGITS, behind_digits, sizeof behind_digits - 1);
}

icae_status icae_json_check_seal(const icae_json *json, const char *advice, icae_error *error) {
    size_t bytes;
    const char *text = icae_json_text(json, &bytes);
    if (!icae_json_member(icae_json_root(json), "checksum") || fits(text, bytes))
        return ICAE_OK;
    return icae_fail(error, ICAE_FORMAT,
                     "%s: its checksum does not fit its bytes: the file is damaged or was "
                     "edited; %s",
                     icae_json_name(json), advice);
}
