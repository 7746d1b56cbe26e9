/* SPDX-License-Identifier: MIT */
/* See command.h. */
#include "command.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "icae/file.h"
#include "icae/memory.h"

static int exit_code(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What was read, until the process ends. */
static icae_arena kept;

static char *take(const char *folder, const char *name) {
    icae_error error = {0};
    char *text;
    size_t bytes;
    ck_ok(icae_file_read(test_path(folder, name), 1 << 24, &text, &bytes, &error));
    char *copy = icae_arena_copy(&kept, text, bytes);
    ck_assert_ptr_nonnull(copy);
    free(text);
    return copy;
}

outcome run_in(const char *folder, const char *format, ...) {
    char given[4096], line[8192];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(given, sizeof given, format, arguments);
    va_end(arguments);
    setenv("ICAE", test_path(test_build_folder(), "icae"), 1);
    unsetenv("ICAE_BASE");
    unsetenv("ICAE_ADAPTER");
    int length = snprintf(line, sizeof line, "{ %s\n} >%s/stdout 2>%s/stderr </dev/null", given,
                          folder, folder);
    ck_assert_int_lt(length, (int)sizeof line);
    int status = system(line);
    ck_assert_int_ne(status, -1);
    return (outcome){exit_code(status), take(folder, "stdout"), take(folder, "stderr")};
}

talk talk_begin(const char *const *arguments) {
    int to[2], from[2];
    ck_assert_int_eq(pipe(to), 0);
    ck_assert_int_eq(pipe(from), 0);
    talk t = {fork(), to[1], from[0]};
    ck_assert_int_ge(t.pid, 0);
    if (t.pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        close(to[1]);
        close(from[0]);
        execv(arguments[0], (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    return t;
}

int talk_end(talk *t) {
    int status = 0;
    close(t->to);
    ck_assert_int_eq(waitpid(t->pid, &status, 0), t->pid);
    close(t->from);
    return exit_code(status);
}
