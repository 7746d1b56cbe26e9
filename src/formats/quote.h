/* SPDX-License-Identifier: MIT */
/*
 * Names from files, made fit for a message; for the readers of this layer and those above.
 *
 * A key or tensor name of a hostile file may hold newlines, terminal escapes, ill-formed UTF-8 or
 * a megabyte. icae_quote returns at most 80 bytes of it, cut between characters, with every
 * control character and ill-formed byte shown as '?':
 *
 *     icae_fail(error, ICAE_FORMAT, "%s: tensor '%s' ...", path, icae_quote(name, bytes).text);
 */
#ifndef ICAE_FORMATS_QUOTE_H
#define ICAE_FORMATS_QUOTE_H

#include <string.h>

#include "icae/text.h"

typedef struct icae_quoted {
    char text[84];
} icae_quoted;

static inline icae_quoted icae_quote(const char *data, size_t bytes) {
    icae_quoted quoted = {{0}};
    const unsigned char *at = (const unsigned char *)data;
    size_t used = 0;
    while (bytes) {
        int32_t point;
        size_t length = (size_t)icae_utf8_decode(at, bytes, &point);
        if (used + length > 77) { /* leaves room for the dots */
            memcpy(quoted.text + used, "...", 3);
            break;
        }
        bool is_plain = point >= 0x20 && (point < 0x7F || point > 0x9F);
        if (is_plain) {
            memcpy(quoted.text + used, at, length);
            used += length;
        } else {
            quoted.text[used++] = '?';
        }
        at += length;
        bytes -= length;
    }
    return quoted;
}

static inline icae_quoted icae_quote_string(const char *string) {
    return icae_quote(string, strlen(string));
}

/* What to do about a damaged file, for sentences that do not say it themselves. */
static inline const char *icae_remedy(icae_status status, const char *sentence) {
    return status == ICAE_FORMAT && !strstr(sentence, "fetch") && !strstr(sentence, "another")
               ? "; fetch it again, or write it anew"
               : "";
}

#endif
