/* SPDX-License-Identifier: MIT */
/*
 * The one test program. Every tests/unit/test_NAME.c brings one suite; the Makefile lists them in
 * generated/suites.inc. Arguments: words; only suites whose name contains one of them are run.
 *
 * Check forks for every test, and an OpenMP team does not survive a fork: nothing numerical may
 * run in this process itself.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "suites.h"

#define SUITE(name) Suite *name##_suite(void);
#include "suites.inc"
#undef SUITE

static const struct {
    const char *name;
    Suite *(*create)(void);
} suites[] = {
#define SUITE(name) {#name, name##_suite},
#include "suites.inc"
#undef SUITE
};

static bool is_wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strstr(name, argv[i])) return true;
    }
    return argc == 1;
}

int main(int argc, char **argv) {
    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        if (is_wanted(suites[i].name, argc, argv))
            srunner_add_suite(runner, suites[i].create());
    }
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner), run = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed == 0 && run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
