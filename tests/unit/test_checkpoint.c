/* SPDX-License-Identifier: MIT */
/* Checkpoint folders: whole, damaged in every file, pruned, and among things that are not ours. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "icae/checkpoint.h"
#include "icae/file.h"
#include "icae/log.h"
#include "suites.h"
#include "train_support.h"

/* A run of four steps with checkpoints at 2 and 4. */
static void make_run(const char *out) {
    icae_error error = {0};
    const char *const assignments[] = {"checkpoint.every=2", "checkpoint.keep=9", NULL};
    ck_ok(tiny_run(out, assignments, NULL, NULL, &error));
}

START_TEST(a_change_in_any_file_is_noticed_and_named) {
    static const char *const files[] = {"hashes.json",
                                        "state.json",
                                        "optimizer.safetensors",
                                        "adapter/icae.json",
                                        "adapter/adapter_config.json",
                                        "adapter/adapter_model.safetensors",
                                        "adapter/memory.safetensors"};
    icae_error error = {0};
    const char *folder = test_folder("checkpoint-damage");
    char out[700], good[800];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(good, sizeof good, "%s/checkpoints/step-4", out);
    make_run(out);
    ck_ok(icae_checkpoint_verify(good, &error));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = test_path(good, files[i]);
        size_t bytes;
        char *before = slurp(path, &bytes);
        damage(path);
        ck_refused(icae_checkpoint_verify(good, &error), i ? files[i] : "step-4");
        ck_ok(icae_file_write(path, before, bytes / 2, &error));
        ck_refused(icae_checkpoint_verify(good, &error), i ? files[i] : "step-4");
        ck_assert_int_eq(unlink(path), 0);
        ck_refused(icae_checkpoint_verify(good, &error), files[i]);
        ck_ok(icae_file_write(path, before, bytes, &error));
        ck_ok(icae_checkpoint_verify(good, &error));
        free(before);
    }
}
END_TEST

START_TEST(a_list_that_points_outside_or_lists_too_little_is_refused) {
    icae_error error = {0};
    const char *folder = test_folder("checkpoint-list");
    const char *list = test_path(folder, "hashes.json");
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"{\"format\": \"x\", \"version\": 1, \"files\": {}}", "is not the list"},
        {"{\"format\": \"icae-checkpoint\", \"version\": 2, \"files\": {}}", "version 2"},
        {"{\"format\": \"icae-checkpoint\", \"version\": 1, \"files\": {}}", "no state.json"},
        {"{\"format\": \"icae-checkpoint\", \"version\": 1, \"files\": {\"../x\": {},"
         " \"state.json\": {}, \"optimizer.safetensors\": {}}}",
         "outside its folder"},
        {"{\"format\": \"icae-checkpoint\", \"version\": 1, \"files\": {\"state.json\": {},"
         " \"optimizer.safetensors\": {}}}",
         "no bytes or no hash"},
        {"{\"format\": \"icae-checkpoint\", \"version\": 1, \"files\": {\"state.json\": "
         "{\"hash\": \"0\"}, \"optimizer.safetensors\": {}}}",
         "no bytes or no hash"},
        {"{\"version\": 1, \"files\": {}}", "is not the list"},
        {"{\"format\": ", "hashes.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_ok(icae_file_write(list, cases[i].text, strlen(cases[i].text), &error));
        ck_refused(icae_checkpoint_verify(folder, &error), cases[i].sentence);
        error = (icae_error){0};
    }
}
END_TEST

START_TEST(the_newest_good_one_is_found_among_other_things) {
    icae_error error = {0};
    const char *folder = test_folder("checkpoint-find");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    bool has_any;
    ck_ok(icae_checkpoint_any(out, &has_any, &error));
    ck_assert(!has_any);
    make_run(out);
    ck_ok(icae_checkpoint_any(out, &has_any, &error));
    ck_assert(has_any);
    ck_ok(icae_folder_make(test_path(out, "checkpoints/step-900x"), &error));
    ck_ok(icae_folder_make(test_path(out, "checkpoints/step-007"), &error));
    ck_ok(icae_folder_make(test_path(out, "checkpoints/step--5"), &error));
    ck_ok(icae_folder_make(test_path(out, "checkpoints/step-9223372036854775807000"), &error));
    ck_ok(icae_folder_make(test_path(out, "checkpoints/.tmp-step-901"), &error));
    ck_ok(
        icae_folder_make(test_path(out, "checkpoints/step-902"), &error)); /* empty: damaged */
    char *path;
    ck_ok(icae_checkpoint_newest(out, &path, &error));
    ck_assert_ptr_nonnull(strstr(path, "/checkpoints/step-4"));
    free(path);
    damage(test_path(out, "checkpoints/step-4/state.json"));
    ck_ok(icae_checkpoint_newest(out, &path, &error));
    ck_assert_ptr_nonnull(strstr(path, "/checkpoints/step-2"));
    free(path);
    damage(test_path(out, "checkpoints/step-2/adapter/icae.json"));
    ck_refused(icae_checkpoint_newest(out, &path, &error), "no undamaged checkpoint");
    ck_assert_ptr_null(path);
}
END_TEST

START_TEST(only_the_newest_are_kept) {
    icae_error error = {0};
    const char *folder = test_folder("checkpoint-keep");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    const char *const assignments[] = {"checkpoint.every=1", "checkpoint.keep=2",
                                       "train.steps=5", NULL};
    ck_ok(tiny_run(out, assignments, NULL, NULL, &error));
    char **names;
    size_t count;
    ck_ok(icae_folder_list(test_path(out, "checkpoints"), &names, &count, &error));
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(names[0], "step-4");
    ck_assert_str_eq(names[1], "step-5");
    icae_names_free(names, count);
}
END_TEST

START_TEST(a_damaged_later_one_does_not_push_out_a_good_one) {
    icae_error error = {0};
    const char *folder = test_folder("checkpoint-push");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    make_run(out);
    damage(test_path(out, "checkpoints/step-4/state.json"));
    const char *half = test_path(out, "checkpoints/.tmp-step-9"); /* what a crash leaves */
    ck_ok(icae_folder_make(half, &error));
    const char *const assignments[] = {"checkpoint.every=2", "checkpoint.keep=1", NULL};
    icae_train_options options = {.is_resuming = true, .stop_at = 3};
    ck_assert_int_eq(tiny_run(out, assignments, &options, NULL, &error), ICAE_INTERRUPTED);
    char *path;
    ck_ok(icae_checkpoint_newest(out, &path, &error));
    ck_assert_ptr_nonnull(strstr(path, "/checkpoints/step-3"));
    free(path);
    ck_assert(!icae_path_exists(half));
}
END_TEST

START_TEST(what_was_saved_is_loaded_to_the_last_bit) {
    icae_error error = {0};
    const char *folder = test_folder("checkpoint-load");
    char path[800];
    icae_backend *be;
    icae_model *model;
    ck_ok(icae_backend_create(&be, NULL, 1, &error));
    ck_ok(icae_model_open(&model, "tests/golden/llama/model", &error));
    icae_adapter_settings settings = icae_adapter_defaults(model);
    settings.memory_slots = 4;
    settings.rank = 2;
    icae_adapter *a, *b;
    ck_ok(icae_adapter_create(&a, model, &settings, 1, be, true, &error));
    ck_ok(icae_adapter_create(&b, model, &settings, 2, be, true, &error));
    for (int64_t i = 0; i < a->params.count; i++) {
        a->params.moment1[i] = (icae_real)i / 3;
        a->params.moment2[i] = (icae_real)i / 7;
    }
    icae_run_state state = {.step = 12,
                            .updates = 11,
                            .skipped = 1,
                            .samples = 96,
                            .context_tokens = 1234,
                            .metrics_bytes = 77,
                            .seconds = 0.1,
                            .norm_mean = 0.7,
                            .norm_count = 11,
                            .threads = 3,
                            .kernels = "avx2",
                            .settings_hash = UINT64_C(0xfedcba9876543210),
                            .base_fingerprint = 5,
                            .feed_json = "{\"place\": [1, 2]}"};
    ck_ok(icae_checkpoint_save(folder, a, model, &state, 1, &error));
    snprintf(path, sizeof path, "%s/checkpoints/step-12", folder);
    icae_run_state loaded;
    ck_ok(icae_checkpoint_load(path, b, &loaded, &error));
    size_t bytes = (size_t)a->params.count * sizeof(icae_real);
    ck_assert_int_eq(memcmp(a->params.values, b->params.values, bytes), 0);
    ck_assert_int_eq(memcmp(a->params.moment1, b->params.moment1, bytes), 0);
    ck_assert_int_eq(memcmp(a->params.moment2, b->params.moment2, bytes), 0);
    ck_assert_int_eq(loaded.step, 12);
    ck_assert_int_eq(loaded.updates, 11);
    ck_assert_int_eq(loaded.skipped, 1);
    ck_assert_int_eq(loaded.samples, 96);
    ck_assert_int_eq(loaded.context_tokens, 1234);
    ck_assert_int_eq(loaded.metrics_bytes, 77);
    ck_assert(loaded.seconds == 0.1);
    ck_assert(loaded.norm_mean == 0.7);
    ck_assert_int_eq(loaded.norm_count, 11);
    ck_assert_int_eq(loaded.threads, 3);
    ck_assert_str_eq(loaded.kernels, "avx2");
    ck_assert_uint_eq(loaded.settings_hash, UINT64_C(0xfedcba9876543210));
    ck_assert_uint_eq(loaded.base_fingerprint, 5);
    ck_assert_uint_eq(icae_json_count(icae_json_member(loaded.feed, "place")), 2);
    icae_run_state_release(&loaded);

    /* an adapter of another shape */
    icae_adapter_free(b);
    settings.rank = 3;
    ck_ok(icae_adapter_create(&b, model, &settings, 2, be, true, &error));
    ck_refused(icae_checkpoint_load(path, b, &loaded, &error), "optimizer.safetensors");
    icae_adapter_free(a);
    icae_adapter_free(b);
    icae_model_close(model);
    icae_backend_free(be);
}
END_TEST

SUITE_OF(checkpoint, 60, a_change_in_any_file_is_noticed_and_named,
         a_list_that_points_outside_or_lists_too_little_is_refused,
         the_newest_good_one_is_found_among_other_things, only_the_newest_are_kept,
         a_damaged_later_one_does_not_push_out_a_good_one,
         what_was_saved_is_loaded_to_the_last_bit)
