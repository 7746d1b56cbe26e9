/* SPDX-License-Identifier: MIT */
/* See train_support.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/log.h"
#include "suites.h"
#include "train_support.h"

/* One thread: teams of threads cost more than these steps do. */
static const char *const base_assignments[] = {
    "base=tests/golden/llama/model",
    "data.train=[\"data/samples/sentences.jsonl\"]",
    "data.heldout=[]",
    "data.shuffle_documents=3",
    "adapter.memory_slots=4",
    "adapter.rank=4",
    "objective.least_context=4",
    "objective.least_continuation=4",
    "objective.skip_for_lm=2",
    "train.steps=4",
    "train.batch=4",
    "train.lr=3e-3",
    "train.schedule=constant",
    "train.warmup_steps=2",
    "train.threads=1",
    "train.compute=f32", /* bits that do not depend on the machine's best; bf16 has test_compute.c */
    "evaluate.every=0",
    "evaluate.samples=3",
    "evaluate.reconstruct_samples=1",
    "evaluate.reconstruct_tokens=6",
    "checkpoint.every=0",
};

void tiny_settings(icae_settings *settings, const char *out, const char *const *assignments) {
    icae_error error = {0};
    icae_settings_init(settings);
    for (size_t i = 0; i < sizeof base_assignments / sizeof base_assignments[0]; i++)
        ck_ok(icae_settings_set(settings, base_assignments[i], &error));
    char place[700];
    snprintf(place, sizeof place, "out=%s", out);
    ck_ok(icae_settings_set(settings, place, &error));
    for (; assignments && *assignments; assignments++)
        ck_ok(icae_settings_set(settings, *assignments, &error));
}

icae_status tiny_run(const char *out, const char *const *assignments,
                     const icae_train_options *options, icae_train_report *report,
                     icae_error *error) {
    static const icae_train_options plain;
    icae_train_report unread;
    icae_settings settings;
    icae_log_set_level(ICAE_LOG_QUIET);
    tiny_settings(&settings, out, assignments);
    icae_status status =
        icae_train(&settings, options ? options : &plain, report ? report : &unread, error);
    icae_settings_release(&settings);
    return status;
}

char *slurp(const char *path, size_t *bytes) {
    icae_error error = {0};
    char *data;
    ck_ok(icae_file_read(path, 64u << 20, &data, bytes, &error));
    return data;
}

char *metrics_without_times(const char *out) {
    char *text = slurp(test_path(out, "metrics.jsonl"), NULL), *to = text;
    ck_assert_ptr_nonnull(strstr(text, ", \"seconds\": "));
    for (char *at = text; *at;) {
        if (!strncmp(at, ", \"seconds\": ", 13)) at = strchr(at, '}');
        *to++ = *at++;
    }
    *to = 0;
    return text;
}

void same_file(const char *a, const char *b) {
    size_t a_bytes, b_bytes;
    char *x = slurp(a, &a_bytes), *y = slurp(b, &b_bytes);
    ck_assert_msg(a_bytes == b_bytes && !memcmp(x, y, a_bytes), "%s and %s differ", a, b);
    free(x);
    free(y);
}

void damage(const char *path) {
    size_t bytes;
    char *data = slurp(path, &bytes);
    icae_error error = {0};
    data[bytes / 2] ^= 0x10;
    ck_ok(icae_file_write(path, data, bytes, &error));
    free(data);
}
