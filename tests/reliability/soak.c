/* SPDX-License-Identifier: MIT */
/*
 * Soak: does a training run's memory stay flat?
 *
 *     soak TRAINER FOLDER MINUTES OUT.svg
 *
 * Trains on the tests' tiny base, with a checkpoint every 20 steps and an evaluation with free
 * reconstruction every 500, looks at the process's resident memory every two seconds, stops it by
 * SIGTERM after so many minutes, and draws the curve; FOLDER/rss.txt has the numbers. Fails when the run
 * fails or does not stop as it should, or when the mean over the last fifth of the time is more than
 * 2 % + 256 kB above that from the first fifth to the second: the beginning fills pools and caches.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "icae/file.h"
#include "icae/log.h"
#include "icae/plot.h"
#include "icae/text.h"
#include "tiny_run.h"

static const double INTERVAL_S = 2;

typedef struct course {
    double *minutes, *megabytes;
    size_t n, capacity;
} course;

static int fail(const char *what) {
    fprintf(stderr, "soak: %s\n", what);
    return EXIT_FAILURE;
}

/* Resident pages of a process, from the second number of /proc/PID/statm; 0 when it is gone. */
static double resident_megabytes(pid_t pid) {
    char path[64], text[128] = "";
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[got] = 0;
    char *second = strchr(text, ' ');
    double pages = second ? (double)strtoll(second, NULL, 10) : 0;
    return pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static bool add_point(course *c, double minutes, double megabytes) {
    if (c->n == c->capacity) {
        size_t larger = c->capacity ? 2 * c->capacity : 4096;
        double *x = realloc(c->minutes, larger * sizeof *x);
        if (x) c->minutes = x;
        double *y = x ? realloc(c->megabytes, larger * sizeof *y) : NULL;
        if (y) c->megabytes = y;
        if (!y) return false;
        c->capacity = larger;
    }
    c->minutes[c->n] = minutes;
    c->megabytes[c->n++] = megabytes;
    return true;
}

/* Looks until the time is over; false when the run ended before. */
static bool watch(pid_t pid, double minutes, course *c) {
    double start = icae_clock_seconds(), now = 0;
    while (now < 60 * minutes) {
        struct timespec wait = {(time_t)INTERVAL_S, 0};
        nanosleep(&wait, NULL);
        now = icae_clock_seconds() - start;
        if (waitpid(pid, NULL, WNOHANG) != 0) return false;
        if (!add_point(c, now / 60, resident_megabytes(pid))) return false;
    }
    return true;
}

static double mean(const course *c, double from, double to) {
    size_t first = (size_t)(from * (double)c->n), end = (size_t)(to * (double)c->n);
    double sum = 0;
    for (size_t i = first; i < end; i++)
        sum += c->megabytes[i];
    return end > first ? sum / (double)(end - first) : 0;
}

static icae_status write_numbers(const course *c, const char *folder, icae_error *error) {
    icae_text text = {0};
    for (size_t i = 0; i < c->n; i++)
        icae_text_printf(&text, "%.3f %.3f\n", c->minutes[i], c->megabytes[i]);
    char *path = icae_path_join(folder, "rss.txt");
    icae_status status = path && !text.failed
                             ? icae_file_write(path, text.data, text.length, error)
                             : icae_fail_memory(error, "the numbers");
    icae_text_release(&text);
    free(path);
    return status;
}

static icae_status draw(const course *c, const char *svg, const char *subtitle,
                        icae_error *error) {
    const icae_plot_series series = {"resident", c->minutes,     c->megabytes,
                                     c->n,       ICAE_PLOT_LINE, 0};
    const icae_plot plot = {.title = "Memory of a training run",
                            .subtitle = subtitle,
                            .x_label = "minutes",
                            .y_label = "resident memory (MB)",
                            .series = &series,
                            .n_series = 1,
                            .y_axis = ICAE_PLOT_LINEAR};
    return icae_plot_write(svg, &plot, error);
}

int main(int argc, char **argv) {
    if (argc != 5) return fail("usage: soak TRAINER FOLDER MINUTES OUT.svg");
    const char *folder = argv[2];
    double minutes = strtod(argv[3], NULL);
    icae_error error = {0};
    course c = {0};
    static const char *const more[] = {"train.steps=1000000000",
                                       "checkpoint.every=20",
                                       "evaluate.every=500",
                                       "evaluate.samples=8",
                                       "evaluate.reconstruct_samples=2",
                                       NULL};
    pid_t pid = -1;
    if (icae_folder_remove(folder, &error) || icae_folder_make(folder, &error) ||
        tiny_run_config(folder, more, &error) ||
        tiny_run_start(argv[1], folder, false, "log.txt", &pid, &error)) {
        return fail(error.message);
    }
    bool lasted = watch(pid, minutes, &c);
    if (!lasted) return fail("the run ended before its time; see log.txt in its folder");
    kill(pid, SIGTERM);
    int code = tiny_run_wait(pid);
    if (code != 128 + SIGTERM) return fail("the run did not stop as it should on SIGTERM");
    double early = mean(&c, 0.2, 0.4), late = mean(&c, 0.8, 1);
    long long steps = (long long)tiny_run_newest_step(folder, &error);
    char subtitle[160];
    snprintf(subtitle, sizeof subtitle,
             "%lld steps in %.0f minutes, a checkpoint every 20, an evaluation every 500",
             steps, minutes);
    if (write_numbers(&c, folder, &error) || draw(&c, argv[4], subtitle, &error))
        return fail(error.message);
    printf("soak: %lld steps in %.0f minutes, resident %.2f MB early, %.2f MB late\n", steps,
           minutes, early, late);
    free(c.minutes);
    free(c.megabytes);
    if (c.n < 5 || late > 1.02 * early + 0.256) return fail("memory grows");
    return EXIT_SUCCESS;
}
