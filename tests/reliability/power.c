/* SPDX-License-Identifier: MIT */
/*
 * Power cuts. A training run that saves at every step is stopped and resumed, and everything done to its
 * files is recorded; then the record is replayed on a disk that forgets (disk.h). After every event, for
 * every kind of loss: once a save has returned, the newest checkpoint is good and no older than it, the
 * log has every record that the checkpoint counts, and config.json can be read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "icae/file.h"
#include "icae/log.h"
#include "icae/trainer.h"
#include "scenarios.h"
#include "tiny_run.h"

static icae_status train_to(const char *out, int64_t stop_at, icae_error *error) {
    static const char *const more[] = {"train.steps=5",
                                       "checkpoint.every=1",
                                       "checkpoint.keep=2",
                                       "evaluate.every=3",
                                       "evaluate.samples=1",
                                       "train.batch=2",
                                       NULL};
    icae_settings settings = {0};
    icae_train_report report;
    const icae_train_options options = {.is_resuming = stop_at == 0, .stop_at = stop_at};
    icae_status status = tiny_run_settings(&settings, out, more, error);
    if (!status) status = icae_train(&settings, &options, &report, error);
    icae_settings_release(&settings);
    return status == ICAE_INTERRUPTED && stop_at ? ICAE_OK : status;
}

/* What the run's folder must be like when the save of step `saved` had returned. */
static icae_status check(const char *run, long saved, icae_error *error) {
    char *path, *name = icae_path_join(run, "metrics.jsonl");
    icae_json *json = NULL;
    int64_t step = 0, counted = 0;
    if (!name) return icae_fail_memory(error, run);
    icae_status status = icae_checkpoint_newest(run, &path, error);
    char *state = status ? NULL : icae_path_join(path, "state.json");
    if (!status) status = icae_json_open(&json, state, error);
    if (!status) {
        icae_json_as_integer(icae_json_member(icae_json_root(json), "step"), &step);
        icae_json_as_integer(icae_json_member(icae_json_root(json), "metrics_bytes"), &counted);
    }
    icae_json_free(json);
    if (!status && step < saved)
        status = icae_fail(error, ICAE_INVALID, "step %ld was saved, the newest is %lld", saved,
                           (long long)step);
    if (!status && icae_file_bytes(name) < counted)
        status = icae_fail(error, ICAE_INVALID, "%s lacks records", name);
    free(name);
    free(state);
    free(path);
    if (status) return status;
    icae_settings settings;
    icae_settings_init(&settings);
    name = icae_path_join(run, "config.json");
    status = name ? icae_settings_read(&settings, name, error) : icae_fail_memory(error, run);
    icae_settings_release(&settings);
    free(name);
    return status;
}

static icae_status replay(const file_record *record, const char *root, const char *to,
                          long *cuts, icae_error *error) {
    enum { LOTS = 2 }; /* draws for each event */
    char run[4200];
    snprintf(run, sizeof run, "%s/run", to);
    disk *d = disk_create(root);
    icae_rng rng = {.seed = 5};
    icae_status status = ICAE_OK;
    long saved = 0;
    for (size_t i = 0; i < record->n && !status; i++) {
        const file_event *event = &record->events[i];
        disk_apply(d, event);
        if (event->act == ACT_SAVED) saved = event->number;
        bool is_nothing = event->act == ACT_CLOSE || event->act == ACT_WRITE ||
                          (event->act == ACT_OPEN && !event->is_new);
        if (!saved || is_nothing) continue; /* writes show with their flush */
        for (int k = 0; k < LOSS_COUNT - 1 + LOTS && !status; k++) {
            disk_loss loss = k < LOSS_CHANCE ? (disk_loss)k : LOSS_CHANCE;
            status = disk_survivors(d, loss, &rng, to, error);
            if (!status) status = check(run, saved, error);
            if (status)
                icae_fail_within(error, "a power cut after event %zu of %zu", i, record->n);
            ++*cuts;
        }
    }
    disk_free(d);
    return status;
}

int power_cuts(const char *folder) {
    char root[4096], run[4200], to[4200];
    snprintf(root, sizeof root, "%s/disk", folder);
    snprintf(run, sizeof run, "%s/run", root);
    snprintf(to, sizeof to, "%s/after", folder);
    icae_error error = {0};
    file_record record = {0};
    icae_status status = icae_folder_make(root, &error);
    fault_record(&record, root);
    if (!status) status = train_to(run, 3, &error);
    if (!status) status = train_to(run, 0, &error);
    fault_record(NULL, NULL);
    long cuts = 0;
    if (!status) status = replay(&record, root, to, &cuts, &error);
    if (status) {
        printf("power: %s\n", error.message);
    } else {
        printf("power: %zu events, %ld power cuts: no saved checkpoint lost\n", record.n, cuts);
    }
    fault_record_release(&record);
    return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
