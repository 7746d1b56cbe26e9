/* SPDX-License-Identifier: MIT */
/* See tiny_run.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "icae/checkpoint.h"
#include "icae/file.h"
#include "tiny_run.h"

static const char *const assignments_of_all[] = {
    "base=tests/golden/llama/model",
    "data.train=[\"data/samples/sentences.jsonl\", \"data/samples/passages.jsonl\"]",
    "data.heldout=[\"data/samples/sentences.jsonl\"]",
    "data.shuffle_documents=5",
    "data.prefetch_steps=2",
    "adapter.memory_slots=4",
    "adapter.rank=4",
    "adapter.dropout=0.1",
    "objective.context_tokens=16",
    "objective.least_context=4",
    "objective.least_continuation=4",
    "objective.skip_for_lm=2",
    "train.batch=4",
    "train.micro_batch=3",
    "train.warmup_steps=10",
    "train.threads=1",
    "train.compute=f32",
    "evaluate.samples=3",
    "evaluate.reconstruct_samples=1",
    "evaluate.reconstruct_tokens=6",
    "checkpoint.keep=3",
};

icae_status tiny_run_settings(icae_settings *settings, const char *out,
                              const char *const *assignments, icae_error *error) {
    char place[4096];
    snprintf(place, sizeof place, "out=%s", out);
    icae_settings_init(settings);
    icae_status status = icae_settings_set(settings, place, error);
    size_t n = sizeof assignments_of_all / sizeof assignments_of_all[0];
    for (size_t i = 0; i < n && !status; i++)
        status = icae_settings_set(settings, assignments_of_all[i], error);
    for (; assignments && *assignments && !status; assignments++)
        status = icae_settings_set(settings, *assignments, error);
    return status;
}

icae_status tiny_run_config(const char *folder, const char *const *assignments,
                            icae_error *error) {
    char *out = icae_path_join(folder, "run"), *path = icae_path_join(folder, "config.json");
    icae_settings settings = {0};
    icae_text text = {0};
    icae_status status = out && path ? tiny_run_settings(&settings, out, assignments, error)
                                     : icae_fail_memory(error, folder);
    if (!status) icae_settings_write(&settings, &text);
    if (!status && text.failed) status = icae_fail_memory(error, path);
    if (!status) status = icae_file_write(path, text.data, text.length, error);
    icae_settings_release(&settings);
    icae_text_release(&text);
    free(out);
    free(path);
    return status;
}

icae_status tiny_run_start(const char *trainer, const char *folder, bool is_resuming,
                           const char *log, pid_t *pid, icae_error *error) {
    char config[4096], said[4096];
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(said, sizeof said, "%s/%s", folder, log);
    *pid = fork();
    if (*pid < 0) return icae_fail(error, ICAE_IO, "cannot fork: %s", strerror(errno));
    if (*pid > 0) return ICAE_OK;
    int fd = open(said, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0) _exit(127);
    setenv("OMP_NUM_THREADS", "1", 1);
    execl(trainer, trainer, config, "-q", is_resuming ? "--resume" : NULL, (char *)NULL);
    _exit(127);
}

int tiny_run_wait(pid_t pid) {
    int state;
    while (waitpid(pid, &state, 0) < 0) {
        if (errno != EINTR) return 127;
    }
    return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

int64_t tiny_run_newest_step(const char *folder, icae_error *error) {
    char checkpoints[4096], path[8192];
    snprintf(checkpoints, sizeof checkpoints, "%s/run/checkpoints", folder);
    if (!icae_path_is_folder(checkpoints)) return 0;
    char **names;
    size_t count;
    int64_t newest = 0;
    if (icae_folder_list(checkpoints, &names, &count, error)) return -1;
    for (size_t i = 0; i < count && newest >= 0; i++) {
        if (strncmp(names[i], "step-", 5) != 0) continue;
        snprintf(path, sizeof path, "%s/%s", checkpoints, names[i]);
        int64_t step = strtoll(names[i] + 5, NULL, 10);
        if (icae_checkpoint_verify(path, error))
            newest = -1;
        else if (step > newest)
            newest = step;
    }
    icae_names_free(names, count);
    return newest;
}
