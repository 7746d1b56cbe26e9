/* SPDX-License-Identifier: MIT */
/* Status codes and the one sentence that goes with them; see icae/status.h. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "icae/status.h"

/* The longest sentence that is made: a path of 4096 bytes, the longest that there is, and what is wrong with it. */
enum { LONGEST = 8192 };

static bool is_within_character(char c) {
    return ((unsigned char)c & 0xC0) == 0x80;
}

/* The sentence as far as there is room for it. Of a longer one the middle is left out: paths stand at its begin, and
 * what is wrong at its end. */
static void keep(icae_error *error, const char *sentence) {
    static const char gap[] = " ... ";
    const size_t room = sizeof error->message, length = strlen(sentence);
    if (length < room) {
        memcpy(error->message, sentence, length + 1);
        return;
    }
    size_t head = room / 2, gap_end = head + sizeof gap - 1;
    while (head > 0 && is_within_character(sentence[head]))
        head--;
    const char *tail = sentence + length - (room - 1 - gap_end);
    while (is_within_character(*tail))
        tail++;
    snprintf(error->message, room, "%.*s%s%s", (int)head, sentence, gap, tail);
}

icae_status icae_fail(icae_error *error, icae_status status, const char *format, ...) {
    if (!error) return status;
    /* The arguments may point into error->message itself, so the sentence is made beside it. */
    char sentence[LONGEST];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    keep(error, sentence);
    error->status = status;
    return status;
}

icae_status icae_fail_memory(icae_error *error, const char *what) {
    return icae_fail(error, ICAE_MEMORY, "not enough memory for %s", what);
}

icae_status icae_fail_within(icae_error *error, const char *format, ...) {
    if (!error) return ICAE_INVALID;
    char sentence[LONGEST];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    size_t used = length < 0 ? 0 : (size_t)length;
    if (used < sizeof sentence) {
        snprintf(sentence + used, sizeof sentence - used, ": %s", error->message);
    }
    keep(error, sentence);
    return error->status;
}

const char *icae_status_name(icae_status status) {
    static const char *const names[] = {
#define ICAE_STATUS_NAME(name, meaning) #name,
        ICAE_STATUS_LIST(ICAE_STATUS_NAME)
#undef ICAE_STATUS_NAME
    };
    return (size_t)status < sizeof names / sizeof names[0] ? names[status] : "unknown";
}
