/* SPDX-License-Identifier: MIT */
/*
 * Torture: a training run is killed again and again and must never notice.
 *
 *     torture TRAINER FOLDER KILLS
 *
 * One run of the tests' tiny base is left in peace. Others, with a checkpoint at every step, an evaluation
 * at every seventh and the same settings otherwise, get SIGKILL: half of the times after a random time,
 * else a random moment after the saving of a checkpoint, or of the final adapter, has begun, until KILLS processes have died so; then the last run is
 * let go on to its end. After every kill all checkpoints must be whole and the newest no older than
 * before; at the end of every run the adapter, the optimizer's state and the metrics (times aside) must be
 * those of the undisturbed one, byte for byte, and nothing half-written may be left.
 *
 * What SIGKILL cannot show, writes that a power cut loses, is replayed by faults.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "icae/file.h"
#include "icae/log.h"
#include "icae/rng.h"
#include "tiny_run.h"

static const char steps[] = "train.steps=60";

typedef struct torture {
    const char *trainer, *folder;
    char calm[4096], hurt[4096]; /* folders of the undisturbed run and of the one at hand */
    icae_rng rng;
    long kills, in_saves, in_adapters, runs, resumes;
    int64_t newest; /* step of the newest checkpoint seen */
} torture;

static int fail(const torture *t, const char *what) {
    fprintf(stderr, "torture: after %ld kills: %s\n", t->kills, what);
    return EXIT_FAILURE;
}

static void sleep_s(double seconds) {
    struct timespec wait = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    while (nanosleep(&wait, &wait) && errno == EINTR) {
    }
}

/* Whether FOLDER/sub has a name that begins so. */
static bool has_name(const char *folder, const char *sub, const char *beginning) {
    char path[8192], **names;
    size_t count;
    snprintf(path, sizeof path, "%s/%s", folder, sub);
    if (icae_folder_list(path, &names, &count, NULL)) return false;
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found |= !strncmp(names[i], beginning, strlen(beginning));
    icae_names_free(names, count);
    return found;
}

/* ---- one process ---- */

/* Waits for the moment to kill. false: the process ended before; *code is its exit code. */
static bool wait_for_moment(torture *t, pid_t pid, int *code) {
    double draw = icae_rng_uniform(&t->rng), start = icae_clock_seconds();
    bool in_save = draw < 0.35, in_adapter = !in_save && draw < 0.5;
    double limit = 0.6 * icae_rng_uniform(&t->rng);
    if (in_save || in_adapter) limit = 30; /* one or the other will come */
    int state = 0;
    while (icae_clock_seconds() - start < limit) {
        if (waitpid(pid, &state, WNOHANG) == pid) {
            *code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
            return false;
        }
        sleep_s(0.0003);
        if ((in_save && has_name(t->hurt, "run/checkpoints", ".tmp-step-")) ||
            (in_adapter && has_name(t->hurt, "run", ".adapter.tmp-"))) {
            sleep_s((in_save ? 0.1 : 0.03) * icae_rng_uniform(&t->rng));
            break;
        }
    }
    return true;
}

/* What a killed process left. */
static bool look_at_ruins(torture *t, icae_error *error) {
    t->in_saves += has_name(t->hurt, "run/checkpoints", ".tmp-");
    t->in_adapters += has_name(t->hurt, "run", ".adapter.tmp-");
    int64_t newest = tiny_run_newest_step(t->hurt, error);
    if (newest >= 0 && newest < t->newest) {
        icae_fail(error, ICAE_INVALID, "the checkpoint of step %lld is lost",
                  (long long)t->newest);
        return false;
    }
    t->newest = newest;
    return newest >= 0;
}

/* ---- one run ---- */

static bool is_same(const torture *t, const char *name, icae_error *error) {
    char a[8192], b[8192], *x = NULL, *y = NULL;
    size_t n = 0, m = 0;
    snprintf(a, sizeof a, "%s/run/%s", t->calm, name);
    snprintf(b, sizeof b, "%s/run/%s", t->hurt, name);
    icae_status status = icae_file_read(a, 64u << 20, &x, &n, error);
    if (!status) status = icae_file_read(b, 64u << 20, &y, &m, error);
    bool is_metrics = strstr(name, ".jsonl") != NULL;
    size_t i = 0, k = 0;
    while (!status && i < n && k < m && x[i] == y[k]) {
        /* the clock's fields stand last in a record */
        bool has_clock = is_metrics && !strncmp(x + i, ", \"seconds\": ", 13);
        if (has_clock) {
            i += strcspn(x + i, "}");
            k += strcspn(y + k, "}");
        } else {
            i++;
            k++;
        }
    }
    if (!status && (i < n || k < m))
        status = icae_fail(error, ICAE_INVALID, "%s and %s differ", a, b);
    free(x);
    free(y);
    return !status;
}

static bool is_unharmed(const torture *t, icae_error *error) {
    static const char *const files[] = {"adapter/icae.json",
                                        "adapter/adapter_config.json",
                                        "adapter/adapter_model.safetensors",
                                        "adapter/memory.safetensors",
                                        "checkpoints/step-60/optimizer.safetensors",
                                        "metrics.jsonl"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (!is_same(t, files[i], error)) return false;
    }
    static const char *const places[][2] = {{"run/checkpoints", ".tmp-"},
                                            {"run", ".adapter"},
                                            {"run", ".config"},
                                            {"run", ".loss"}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!has_name(t->hurt, places[i][0], places[i][1])) continue;
        icae_fail(error, ICAE_INVALID, "%s has something half-written: %s...", places[i][0],
                  places[i][1]);
        return false;
    }
    return true;
}

/* Starts and kills until the run is at its end or `kills` have been made; the rest is left in peace. */
static bool torture_run(torture *t, long kills, icae_error *error) {
    static const char *const more[] = {steps, "checkpoint.every=1", "evaluate.every=7", NULL};
    if (icae_folder_remove(t->hurt, error) || icae_folder_make(t->hurt, error) ||
        tiny_run_config(t->hurt, more, error))
        return false;
    t->newest = 0;
    for (;;) {
        pid_t pid;
        int code;
        if (tiny_run_start(t->trainer, t->hurt, t->newest > 0, "log.txt", &pid, error))
            return false;
        t->resumes += t->newest > 0;
        bool is_ended = false;
        if (t->kills >= kills) {
            code = tiny_run_wait(pid);
            is_ended = true;
        } else if (!wait_for_moment(t, pid, &code)) {
            is_ended = true;
        } else {
            kill(pid, SIGKILL);
            code = tiny_run_wait(pid);
            is_ended = code != 128 + SIGKILL; /* it was done in the very moment */
            t->kills += !is_ended;
        }
        if (is_ended && code) {
            icae_fail(error, ICAE_INVALID, "the run ended with code %d; see %s/log.txt", code,
                      t->hurt);
            return false;
        }
        if (!look_at_ruins(t, error)) return false;
        if (is_ended) break;
    }
    t->runs++;
    return is_unharmed(t, error);
}

int main(int argc, char **argv) {
    torture t = {.trainer = argv[1], .rng = {.seed = 1, .stream = 7}};
    if (argc != 4) return fail(&t, "usage: torture TRAINER FOLDER KILLS");
    t.folder = argv[2];
    long kills = strtol(argv[3], NULL, 10);
    icae_error error = {0};
    snprintf(t.calm, sizeof t.calm, "%s/calm", t.folder);
    snprintf(t.hurt, sizeof t.hurt, "%s/hurt", t.folder);
    static const char *const calm[] = {steps, "checkpoint.every=0", "evaluate.every=7", NULL};
    pid_t pid;
    if (icae_folder_remove(t.folder, &error) || icae_folder_make(t.calm, &error) ||
        tiny_run_config(t.calm, calm, &error) ||
        tiny_run_start(t.trainer, t.calm, false, "log.txt", &pid, &error))
        return fail(&t, error.message);
    if (tiny_run_wait(pid)) return fail(&t, "the undisturbed run failed");
    double start = icae_clock_seconds();
    do {
        if (!torture_run(&t, kills, &error)) return fail(&t, error.message);
    } while (t.kills < kills);
    printf("torture: %ld kills in %ld runs (%ld while a checkpoint was written or removed, %ld "
           "while "
           "the adapter was), %ld resumes, %.0f s: no checkpoint lost or damaged, all results "
           "equal "
           "to the undisturbed run's\n",
           t.kills, t.runs, t.in_saves, t.in_adapters, t.resumes, icae_clock_seconds() - start);
    return EXIT_SUCCESS;
}
