/* SPDX-License-Identifier: MIT */
/*
 * How a function of the library says that something outside it went wrong.
 *
 * A function that can fail on bad input, a full disk or missing memory returns an icae_status and
 * takes an `icae_error *` as its last argument. On failure the error holds one sentence: which
 * file or setting, where in it, what was expected, and what to do. Bugs of the caller are asserts.
 *
 *     icae_error error = {0};
 *     if (icae_gguf_open(&file, path, &error)) { fprintf(stderr, "%s\n", error.message); return 1; }
 *
 * ICAE_OK is 0, so `if (call(...))` reads "if it failed". `error` may be NULL when nobody listens.
 */
#ifndef ICAE_STATUS_H
#define ICAE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* name, meaning */
#define ICAE_STATUS_LIST(X)                                                                    \
    X(OK, "done")                                                                              \
    X(IO, "a file or folder could not be read or written")                                     \
    X(FORMAT, "a file's bytes are not what its format demands")                                \
    X(UNSUPPORTED, "well-formed, but something this program does not know")                    \
    X(MISMATCH, "two things that do not belong together")                                      \
    X(INVALID, "a value outside its allowed range")                                            \
    X(MEMORY, "not enough memory")                                                             \
    X(INTERRUPTED, "stopped by a signal or by a callback")

typedef enum icae_status {
#define ICAE_STATUS_ENUM(name, meaning) ICAE_##name,
    ICAE_STATUS_LIST(ICAE_STATUS_ENUM)
#undef ICAE_STATUS_ENUM
} icae_status;

typedef struct icae_error {
    icae_status status;
    char message[1024]; /* one sentence, no newline at its end; a longer one lacks its middle */
} icae_error;

#if defined(__GNUC__)
#define ICAE_PRINTF(format_index, first_index)                                                 \
    __attribute__((format(printf, format_index, first_index)))
#else
#define ICAE_PRINTF(format_index, first_index)
#endif

/* Writes status and sentence into error (if not NULL) and returns status. */
icae_status icae_fail(icae_error *error, icae_status status, const char *format, ...)
    ICAE_PRINTF(3, 4);

/* icae_fail(ICAE_MEMORY) with what the memory was wanted for. */
icae_status icae_fail_memory(icae_error *error, const char *what);

/* Puts "prefix: " before the sentence that error holds already; status is unchanged and returned. */
icae_status icae_fail_within(icae_error *error, const char *format, ...) ICAE_PRINTF(2, 3);

/* "FORMAT" for ICAE_FORMAT, and so on. */
const char *icae_status_name(icae_status status);

#ifdef __cplusplus
}
#endif
#endif
