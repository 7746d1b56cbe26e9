/* SPDX-License-Identifier: MIT */
/*
 * The one test program. Every tests/unit/test_NAME.c brings one suite; the Makefile lists them in
 * generated/suites.inc. Arguments: words; only suites whose name contains one of them are run.
 *
 * Check forks for every test, and an OpenMP team does not survive a fork: nothing numerical may
 * run in this process itself.
 *
 * Many tests provoke warnings. What a test prints to stderr goes into the file N of a folder, N being how many
 * tests failed before it: one that passes leaves its file to the next, so what is in file i in the end is of the
 * i-th failure, and is shown below Check's list. With CK_FORK=no everything is shown at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "icae/file.h"
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

static SRunner *runner;
static char printed[512]; /* the folder of these files */

static const char *printed_path(int n_failed) {
    static char path[sizeof printed + 16];
    snprintf(path, sizeof path, "%s/%d", printed, n_failed);
    return path;
}

/* Runs in the process of the test, before it. */
static void catch_stderr(void) {
    if (srunner_fork_status(runner) == CK_NOFORK) return;
    const char *path = printed_path(srunner_ntests_failed(runner));
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0666);
    ck_assert_msg(file >= 0, "%s: %s", path, strerror(errno));
    ck_assert_int_eq(dup2(file, STDERR_FILENO), STDERR_FILENO);
    close(file);
}

static void show_printed(void) {
    int n_failed = srunner_ntests_failed(runner);
    TestResult **failures = srunner_failures(runner);
    for (int i = 0; i < n_failed; i++) {
        FILE *file = fopen(printed_path(i), "r");
        char block[4096];
        size_t n = file ? fread(block, 1, sizeof block, file) : 0;
        if (n)
            fprintf(stderr, "%s:%d (%s) printed:\n", tr_lfile(failures[i]), tr_lno(failures[i]),
                    tr_tcname(failures[i]));
        for (; n; n = fread(block, 1, sizeof block, file))
            fwrite(block, 1, n, stderr);
        if (file) fclose(file);
    }
    free(failures);
}

TCase *test_case(const char *name, double seconds) {
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, seconds);
    tcase_add_checked_fixture(tcase, catch_stderr, NULL);
    return tcase;
}

static bool is_wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strstr(name, argv[i])) return true;
    }
    return argc == 1;
}

int main(int argc, char **argv) {
    icae_error error = {0};
    snprintf(printed, sizeof printed, "%s/test-files/stderr", test_build_folder());
    if (icae_folder_remove(printed, &error) || icae_folder_make(printed, &error)) {
        fprintf(stderr, "run-tests: %s\n", error.message);
        return EXIT_FAILURE;
    }
    runner = srunner_create(NULL);
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        if (is_wanted(suites[i].name, argc, argv))
            srunner_add_suite(runner, suites[i].create());
    }
    srunner_run_all(runner, CK_NORMAL);
    fflush(stdout);
    show_printed();
    int failed = srunner_ntests_failed(runner), run = srunner_ntests_run(runner);
    srunner_free(runner);
    return failed == 0 && run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
