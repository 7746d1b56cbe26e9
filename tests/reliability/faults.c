/* SPDX-License-Identifier: MIT */
/*
 * Faults: every allocation, and every call that touches a file, fails once.
 *
 *     faults all FOLDER [MOST]     all scenarios; at most MOST faults of one kind in one (default 400)
 *     faults power FOLDER          power cuts after every single thing done to a file; see power.c
 *
 * A scenario is a piece of work on the tests' tiny base, with a state that is made anew before and looked
 * at after. For N = 1, 2, ... the Nth call of a kind fails, until none does; where there are more than
 * MOST, the first fifth of MOST are taken one by one and the others evenly. What paths of saving do is
 * never thinned. Then must hold: no crash, every block freed, an error of one sentence (or success, when
 * the fault could be coped with), and the files either as before or as they should be. Every scenario and
 * kind is a process of its own, so that a crash names its N, and AddressSanitizer's leak check is on at
 * its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault_layer.h"
#include "icae/file.h"
#include "icae/log.h"
#include "scenarios.h"

static const char *const kind_names[] = {
#define FAULT(name, number, copes) #name,
    FAULT_LIST(FAULT)
#undef FAULT
};

static const bool must_cope[] = {
#define FAULT(name, number, copes) copes,
    FAULT_LIST(FAULT)
#undef FAULT
};

/* What a child tells, even when it dies. */
typedef struct progress {
    long nth, total, tried,
        failed; /* the call at hand, of how many; runs made; of these with an error */
    char complaint[1200];
} progress;

static progress *shared;

static void complain(const char *what, const char *message) {
    if (*shared->complaint) return;
    snprintf(shared->complaint, sizeof shared->complaint, "%s: %s", what, message);
}

/* One short line that names something; it is what the user gets to see. */
static bool is_sentence(const char *message) {
    size_t n = strlen(message);
    return n > 8 && n < sizeof((icae_error *)0)->message - 1 && !strchr(message, '\n');
}

/* One run of the scenario with the nth call failing; returns the number of calls. */
static long run_once(const scenario *s, scenario_state *state, fault_kind kind, long nth) {
    icae_error error = {0}, after = {0};
    if (s->prepare && s->prepare(state, &error)) complain("preparing", error.message);
    error = (icae_error){0};
    long before = fault_alive();
    fault_arm(kind, nth);
    icae_status status = s->run(state, &error);
    long seen = fault_disarm();
    long left = fault_alive() - before;
    if (left) {
        char text[64];
        snprintf(text, sizeof text, "%ld blocks", left);
        complain("not freed", text);
    }
    if (status && must_cope[kind]) complain("was not coped with", error.message);
    if (status && status != error.status) complain("status without a sentence", error.message);
    if (status && !is_sentence(error.message)) complain("not a sentence", error.message);
    if (s->check && s->check(state, status, &after)) complain("afterwards", after.message);
    shared->failed += status != 0;
    return seen;
}

static bool is_in(const scenario *table, const scenario *s) {
    while (table->name && table != s)
        table++;
    return table == s;
}

static void run_child(const scenario *s, fault_kind kind, const char *folder, long most) {
    icae_error error = {0};
    scenario_state state = {.be = NULL};
    fault_hook_json();
    snprintf(state.folder, sizeof state.folder, "%s", folder);
    fault_spare_bases(is_in(training_scenarios, s));
    bool needs_model = !is_in(format_scenarios, s);
    if (needs_model && scenario_open(&state, folder, &error)) {
        complain("opening", error.message);
        exit(EXIT_FAILURE);
    }
    run_once(s, &state, FAULT_COUNT,
             0); /* once in peace: what is allocated once is allocated */
    if (!*shared->complaint && shared->failed) complain("in peace", "failed");
    long total = run_once(s, &state, kind, -1), limit = most;
    shared->total = total;
    if (s->is_saving || total <= limit) limit = total;
    long singly = limit == total ? total : limit / 5;
    double stride = limit == total ? 1 : (double)(total - singly) / (double)(limit - singly);
    for (long i = 1; i <= limit && !*shared->complaint; i++) {
        shared->nth = i <= singly ? i : singly + (long)((double)(i - singly) * stride);
        run_once(s, &state, kind, shared->nth);
        shared->tried++;
    }
    if (needs_model) scenario_close(&state);
    exit(*shared->complaint ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* true when all went well. */
static bool run_kind(const scenario *s, fault_kind kind, const char *folder, long most) {
    *shared = (progress){0};
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) return false;
    if (pid == 0) {
        char said[4096];
        snprintf(said, sizeof said, "%s/%s-%s.txt", folder, s->name, kind_names[kind]);
        int fd = open(said, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) _exit(127);
        run_child(s, kind, folder, most);
    }
    int state;
    if (waitpid(pid, &state, 0) != pid) return false;
    bool is_good = WIFEXITED(state) && WEXITSTATUS(state) == 0;
    if (!is_good) {
        printf("faults: %s, %s %ld of %ld: %s (ended with %d; see %s/%s-%s.txt)\n", s->name,
               kind_names[kind], shared->nth, shared->total,
               *shared->complaint ? shared->complaint : "crashed or leaked",
               WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state), folder, s->name,
               kind_names[kind]);
    }
    return is_good;
}

typedef struct sums {
    long tried, failed;
    int broken;
} sums;

/* One scenario with every kind of fault. */
static void run_scenario(const scenario *s, const char *folder, long most, sums *all) {
    long tried = 0, failed = 0, calls = 0;
    double begun = icae_clock_seconds();
    for (int kind = 0; kind < FAULT_COUNT; kind++) {
        all->broken += !run_kind(s, (fault_kind)kind, folder, most);
        tried += shared->tried;
        failed += shared->failed;
        calls += shared->total;
    }
    printf("%-20s %5ld of %6ld calls failed, %5ld errors told, %.0f s\n", s->name, tried, calls,
           failed, icae_clock_seconds() - begun);
    all->tried += tried;
    all->failed += failed;
}

static int run_all(const char *folder, long most, const char *only) {
    const scenario *const tables[] = {format_scenarios, scenarios, exchange_scenarios,
                                      run_scenarios, training_scenarios};
    sums all = {0};
    double start = icae_clock_seconds();
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        for (const scenario *s = tables[i]; s->name; s++) {
            if (!only || strstr(s->name, only)) run_scenario(s, folder, most, &all);
        }
    }
    printf("faults: %ld tried, %ld ended in an error, %d not as they should; %.0f s\n",
           all.tried, all.failed, all.broken, icae_clock_seconds() - start);
    return all.broken ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    icae_error error = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: faults all|power FOLDER [MOST [SCENARIO]]\n");
        return EXIT_FAILURE;
    }
    const char *folder = argv[2];
    if (icae_folder_remove(folder, &error) || icae_folder_make(folder, &error)) {
        fprintf(stderr, "faults: %s\n", error.message);
        return EXIT_FAILURE;
    }
    icae_log_set_level(ICAE_LOG_QUIET);
    if (!strcmp(argv[1], "power")) return power_cuts(folder);
    shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return EXIT_FAILURE;
    long most = argc > 3 ? strtol(argv[3], NULL, 10) : 400;
    return run_all(folder, most, argc > 4 ? argv[4] : NULL);
}
