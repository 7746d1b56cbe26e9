/* SPDX-License-Identifier: MIT */
/* Levels and the progress line; see icae/log.h. The state is of the process: so is stderr. */
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "icae/log.h"

static const double PLAIN_INTERVAL_S = 5.0; /* between progress lines in a log file */

static struct {
    pthread_mutex_t lock;
    icae_log_level level;
    char line[512];
    bool shown;       /* a progress line stands on the terminal */
    bool pending;     /* a progress text was given but not printed (no terminal) */
    double printed_s; /* when the last plain progress line was printed */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = ICAE_LOG_NORMAL, .printed_s = -1e9};

double icae_clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void icae_log_set_level(icae_log_level level) {
    state.level = level;
}

icae_log_level icae_log_get_level(void) {
    return state.level;
}

ICAE_PRINTF(2, 0)
static void print_line(const char *prefix, const char *format, va_list arguments) {
    pthread_mutex_lock(&state.lock);
    if (state.shown) fputs("\r\033[K", stderr);
    fputs(prefix, stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    if (state.shown) fputs(state.line, stderr);
    fflush(stderr);
    pthread_mutex_unlock(&state.lock);
}

void icae_log_info(const char *format, ...) {
    if (state.level < ICAE_LOG_NORMAL) return;
    va_list arguments;
    va_start(arguments, format);
    print_line("", format, arguments);
    va_end(arguments);
}

void icae_log_detail(const char *format, ...) {
    if (state.level < ICAE_LOG_VERBOSE) return;
    va_list arguments;
    va_start(arguments, format);
    print_line("", format, arguments);
    va_end(arguments);
}

void icae_log_warning(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line("warning: ", format, arguments);
    va_end(arguments);
}

void icae_progress_show(const char *format, ...) {
    if (state.level < ICAE_LOG_NORMAL) return;
    pthread_mutex_lock(&state.lock);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state.line, sizeof state.line, format, arguments);
    va_end(arguments);
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[K%s", state.line);
        state.shown = true;
    } else {
        double now = icae_clock_seconds();
        state.pending = now - state.printed_s < PLAIN_INTERVAL_S;
        if (!state.pending) {
            fprintf(stderr, "%s\n", state.line);
            state.printed_s = now;
        }
    }
    fflush(stderr);
    pthread_mutex_unlock(&state.lock);
}

void icae_progress_done(void) {
    pthread_mutex_lock(&state.lock);
    if (state.shown) fputc('\n', stderr);
    if (state.pending) fprintf(stderr, "%s\n", state.line);
    state.shown = state.pending = false;
    state.printed_s = -1e9;
    fflush(stderr);
    pthread_mutex_unlock(&state.lock);
}
