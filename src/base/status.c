/* SPDX-License-Identifier: MIT */
/* Status codes and the one sentence that goes with them; see icae/status.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "icae/status.h"

icae_status icae_fail(icae_error *error, icae_status status, const char *format, ...) {
    if (!error) return status;
    /* The arguments may point into error->message itself, so the sentence is made beside it. */
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    memcpy(error->message, message, sizeof message);
    error->status = status;
    return status;
}

icae_status icae_fail_memory(icae_error *error, const char *what) {
    return icae_fail(error, ICAE_MEMORY, "not enough memory for %s", what);
}

icae_status icae_fail_within(icae_error *error, const char *format, ...) {
    if (!error) return ICAE_INVALID;
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t used = length < 0 ? 0 : (size_t)length;
    if (used < sizeof message) {
        snprintf(message + used, sizeof message - used, ": %s", error->message);
    }
    memcpy(error->message, message, sizeof message);
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
