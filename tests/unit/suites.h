/* SPDX-License-Identifier: MIT */
/*
 * What all test files share. A suite is a table of tests:
 *
 *     START_TEST(refuses_shape_larger_than_span) { ... } END_TEST
 *     SUITE_OF(safetensors, 60, refuses_shape_larger_than_span, reads_what_it_wrote)
 *
 * The number is the time limit of one test in seconds.
 */
#ifndef ICAE_TESTS_SUITES_H
#define ICAE_TESTS_SUITES_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>

/* clang-format off */
#define SUITE_OF(name, seconds, ...)                                                             \
    Suite *name##_suite(void);                                                                   \
    Suite *name##_suite(void) {                                                                  \
        const TTest *const tests[] = {__VA_ARGS__};                                       \
        Suite *suite = suite_create(#name);                                                      \
        TCase *tcase = test_case(#name, seconds);                                                \
        for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) tcase_add_test(tcase, tests[i]); \
        suite_add_tcase(suite, tcase);                                                           \
        return suite;                                                                            \
    }
/* clang-format on */

/* An empty case; what its tests print to stderr is shown only of those that fail. */
TCase *test_case(const char *name, double seconds);
/* A fresh, empty folder for this test below build/; removed by the next run that asks for the same
 * name. The string is static: one folder per test. */
const char *test_folder(const char *name);
/* folder/name in a ring of static buffers, good for a few uses. */
const char *test_path(const char *folder, const char *name);
/* Path of the real base model's GGUF (env ICAE_BASE, else the one `make base` fetches), or NULL. */
const char *test_base_model(void);
/* build/release or whichever mode this runner was built in (env ICAE_BUILD). */
const char *test_build_folder(void);
/* Fails the test with the error's sentence when status is not ICAE_OK. */
#define ck_ok(call)                                                                            \
    do {                                                                                       \
        icae_status status_of_call = (call);                                                   \
        ck_assert_msg(status_of_call == ICAE_OK, "%s: %s", #call, error.message);              \
    } while (0)
/* Asserts that the call fails and that its sentence contains every part. */
#define ck_refused(call, part)                                                                 \
    do {                                                                                       \
        error = (icae_error){0};                                                               \
        ck_assert_msg((call) != ICAE_OK, "%s was accepted", #call);                            \
        ck_assert_msg(strstr(error.message, part) != NULL, "\"%s\" lacks \"%s\"",              \
                      error.message, part);                                                    \
    } while (0)

#endif
