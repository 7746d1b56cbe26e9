/* SPDX-License-Identifier: MIT */
/* The run folder: its paths, its lock, what a killed run left, and the length of its log. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "icae/file.h"
#include "icae/log.h"
#include "learn/trainer_internal.h"

/* Removes what a killed run was about to write, ".NAME.tmp-PID" and the like. Who holds the lock is alone here. */
static icae_status sweep(const char *path, icae_error *error) {
    char **names;
    size_t count;
    icae_status status = icae_folder_list(path, &names, &count, error);
    if (status) return status;
    for (size_t i = 0; i < count && !status; i++) {
        const char *mark = strstr(names[i], ".tmp-");
        if (names[i][0] != '.' || !mark || !mark[5] ||
            mark[5 + strspn(mark + 5, "0123456789-")])
            continue;
        char *left = icae_path_join(path, names[i]);
        status = left ? icae_folder_remove(left, error) : icae_fail_memory(error, path);
        free(left);
    }
    icae_names_free(names, count);
    return status;
}

icae_status icae_run_folder_open(icae_run_folder *folder, const char *path, icae_error *error) {
    *folder = (icae_run_folder){.lock = -1};
    icae_status status = icae_folder_make(path, error);
    if (status) return status;
    folder->path = strdup(path);
    folder->config = icae_path_join(path, "config.json");
    folder->metrics = icae_path_join(path, "metrics.jsonl");
    folder->svg = icae_path_join(path, "loss.svg");
    folder->adapter = icae_path_join(path, "adapter");
    folder->skipped = icae_path_join(path, "skipped");
    char *lock = icae_path_join(path, ".lock");
    if (!folder->path || !folder->config || !folder->metrics || !folder->svg ||
        !folder->adapter || !folder->skipped || !lock) {
        status = icae_fail_memory(error, path);
    }
    /* The lock dies with the process, however it ends; the file itself stays and means nothing. */
    while (!status && folder->lock < 0) {
        folder->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (folder->lock < 0 && errno != EINTR)
            status = icae_fail(error, ICAE_IO, "%s: cannot write: %s", lock, strerror(errno));
    }
    if (!status && flock(folder->lock, LOCK_EX | LOCK_NB)) {
        status =
            errno == EWOULDBLOCK
                ? icae_fail(error, ICAE_INVALID,
                            "%s: another run is at work in this folder; wait for it, or "
                            "give another one (--set out=FOLDER)",
                            path)
                : icae_fail(error, ICAE_IO, "%s: cannot be locked: %s", lock, strerror(errno));
    }
    free(lock);
    if (!status) status = sweep(path, error);
    bool has_adapter = false;
    if (!status) status = icae_path_find(folder->adapter, &has_adapter, error);
    if (!status && has_adapter) status = sweep(folder->adapter, error);
    if (!status) status = icae_checkpoint_sweep(path, error);
    if (status) icae_run_folder_close(folder);
    return status;
}

void icae_run_folder_close(icae_run_folder *folder) {
    if (folder->path && folder->lock >= 0) close(folder->lock);
    free(folder->path);
    free(folder->config);
    free(folder->metrics);
    free(folder->svg);
    free(folder->adapter);
    free(folder->skipped);
    *folder = (icae_run_folder){.lock = -1};
}

icae_status icae_run_folder_cut_metrics(const icae_run_folder *folder, int64_t bytes,
                                        icae_error *error) {
    struct stat info;
    bool is_there = stat(folder->metrics, &info) == 0;
    if (!is_there && errno != ENOENT) {
        return icae_fail(error, ICAE_IO, "%s: cannot examine: %s", folder->metrics,
                         strerror(errno));
    }
    int64_t there = is_there ? (int64_t)info.st_size : 0;
    if (there < bytes) {
        icae_log_warning("%s has %lld bytes where the checkpoint knows of %lld: some of the "
                         "run's history is lost",
                         folder->metrics, (long long)there, (long long)bytes);
        return ICAE_OK;
    }
    if (there > bytes && truncate(folder->metrics, (off_t)bytes)) {
        return icae_fail(error, ICAE_IO, "%s: cannot be cut to %lld bytes: %s", folder->metrics,
                         (long long)bytes, strerror(errno));
    }
    return ICAE_OK;
}
