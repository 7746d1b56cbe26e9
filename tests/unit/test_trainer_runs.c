/* SPDX-License-Identifier: MIT */
/*
 * Runs and their folders: stopped and resumed ones equal those that were not, to the byte, and what would spoil
 * a folder is refused. What a run notices when it goes on under other circumstances is in test_resume.c.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "icae/file.h"
#include "suites.h"
#include "train_support.h"

/* ---- resuming ---- */

/* Dropout, shuffling, both kinds of samples, micro-batches, prefetching, evaluations. */
static const char *const lively[] = {"train.steps=12",
                                     "train.micro_batch=3",
                                     "data.prefetch_steps=2",
                                     "data.heldout=data/samples/sentences.jsonl",
                                     "adapter.dropout=0.1",
                                     "evaluate.every=5",
                                     "checkpoint.every=4",
                                     "checkpoint.keep=9",
                                     NULL};

static void same_result(const char *a, const char *b) {
    static const char *const files[] = {
        "adapter/icae.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
        "adapter/memory.safetensors", "checkpoints/step-12/optimizer.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        same_file(test_path(a, files[i]), test_path(b, files[i]));
    char *metrics_a = metrics_without_times(a), *metrics_b = metrics_without_times(b);
    ck_assert_str_eq(metrics_a, metrics_b);
    free(metrics_a);
    free(metrics_b);
}

START_TEST(a_stopped_and_resumed_run_equals_one_that_was_not) {
    icae_error error = {0};
    const char *folder = test_folder("resume");
    char straight[700], stopped[700];
    snprintf(straight, sizeof straight, "%s/straight", folder);
    snprintf(stopped, sizeof stopped, "%s/stopped", folder);
    ck_ok(tiny_run(straight, lively, NULL, NULL, &error));
    icae_train_options options = {.stop_at = 5}; /* an evaluation is due there, too */
    ck_assert_int_eq(tiny_run(stopped, lively, &options, NULL, &error), ICAE_INTERRUPTED);
    ck_assert_ptr_nonnull(strstr(error.message, "--resume"));
    options = (icae_train_options){.is_resuming = true, .stop_at = 6};
    ck_assert_int_eq(tiny_run(stopped, lively, &options, NULL, &error), ICAE_INTERRUPTED);
    options.stop_at = 0;
    icae_train_report report;
    ck_ok(tiny_run(stopped, lively, &options, &report, &error));
    ck_assert_int_eq(report.step, 12);
    same_result(straight, stopped);
}
END_TEST

START_TEST(n_steps_and_n_more_equal_2n_steps) {
    icae_error error = {0};
    const char *folder = test_folder("extend");
    char straight[700], extended[700];
    snprintf(straight, sizeof straight, "%s/straight", folder);
    snprintf(extended, sizeof extended, "%s/extended", folder);
    ck_ok(tiny_run(straight, lively, NULL, NULL, &error));
    const char *half[16] = {NULL};
    for (int i = 0; lively[i]; i++)
        half[i] = i ? lively[i] : "train.steps=6";
    ck_ok(tiny_run(extended, half, NULL, NULL, &error));
    icae_train_options options = {.is_resuming = true};
    ck_ok(tiny_run(extended, lively, &options, NULL, &error));
    same_result(straight, extended);
}
END_TEST

START_TEST(resuming_a_finished_run_leaves_it_as_it_was) {
    icae_error error = {0};
    const char *folder = test_folder("finished");
    char once[700], twice[700];
    snprintf(once, sizeof once, "%s/once", folder);
    snprintf(twice, sizeof twice, "%s/twice", folder);
    ck_ok(tiny_run(once, lively, NULL, NULL, &error)); /* 12 is no multiple of evaluate.every */
    ck_ok(tiny_run(twice, lively, NULL, NULL, &error));
    icae_train_options options = {.is_resuming = true};
    ck_ok(tiny_run(twice, lively, &options, NULL, &error));
    same_result(once, twice);
}
END_TEST

/* What "not pretrained" is: the run evaluates and saves what training would begin with. */
START_TEST(no_steps_save_the_adapter_as_it_was_drawn) {
    icae_error error = {0};
    const char *folder = test_folder("no-steps");
    const char *heldout = "data.heldout=data/samples/sentences.jsonl";
    char start[800];
    icae_train_report none, one, again;
    ck_ok(tiny_run(test_path(folder, "none"), RUN_WITH(heldout, "train.steps=0"), NULL, &none,
                   &error));
    ck_ok(tiny_run(test_path(folder, "one"), RUN_WITH(heldout, "train.steps=1"), NULL, &one,
                   &error));
    ck_assert_int_eq(none.step, 0);
    double drawn = none.after.loss[ICAE_TASK_AE], trained = one.after.loss[ICAE_TASK_AE];
    ck_assert_double_eq(drawn, one.before.loss[ICAE_TASK_AE]);
    ck_assert_double_ne(drawn, trained);
    /* It serves as a start like any other. */
    snprintf(start, sizeof start, "adapter.start=%s/none/adapter", folder);
    ck_ok(tiny_run(test_path(folder, "again"), RUN_WITH(heldout, "train.steps=1", start), NULL,
                   &again, &error));
    ck_assert_double_eq(again.before.loss[ICAE_TASK_AE], drawn);
    ck_assert_double_eq(again.after.loss[ICAE_TASK_AE], trained);
}
END_TEST

START_TEST(recomputing_activations_changes_no_byte) {
    icae_error error = {0};
    const char *folder = test_folder("recompute");
    char kept[700], recomputed[700];
    snprintf(kept, sizeof kept, "%s/kept", folder);
    snprintf(recomputed, sizeof recomputed, "%s/recomputed", folder);
    ck_ok(tiny_run(kept, lively, NULL, NULL, &error));
    const char *with[16] = {NULL};
    int n = 0;
    for (; lively[n]; n++)
        with[n] = lively[n];
    with[n] = "train.checkpointing=true";
    ck_ok(tiny_run(recomputed, with, NULL, NULL, &error));
    same_result(kept, recomputed);
}
END_TEST

START_TEST(a_damaged_checkpoint_is_named_and_the_one_before_it_used) {
    icae_error error = {0};
    const char *folder = test_folder("damaged");
    char straight[700], hurt[700], heard[700];
    snprintf(straight, sizeof straight, "%s/straight", folder);
    snprintf(hurt, sizeof hurt, "%s/hurt", folder);
    snprintf(heard, sizeof heard, "%s/stderr.txt", folder);
    ck_ok(tiny_run(straight, lively, NULL, NULL, &error));
    icae_train_options options = {.stop_at = 9};
    ck_assert_int_eq(tiny_run(hurt, lively, &options, NULL, &error), ICAE_INTERRUPTED);
    damage(test_path(hurt, "checkpoints/step-9/optimizer.safetensors"));
    ck_assert_ptr_nonnull(freopen(heard, "w", stderr));
    options = (icae_train_options){.is_resuming = true};
    ck_ok(tiny_run(hurt, lively, &options, NULL, &error));
    fflush(stderr);
    char *text = slurp(heard, NULL);
    ck_assert_ptr_nonnull(strstr(text, "step-9 is damaged"));
    ck_assert_ptr_nonnull(strstr(text, "optimizer.safetensors"));
    ck_assert_ptr_null(strstr(text, "step-8 is damaged"));
    free(text);
    same_result(straight, hurt);
}
END_TEST

/* ---- refusing ---- */

START_TEST(refuses_to_mix_two_runs_in_one_folder) {
    icae_error error = {0};
    const char *folder = test_folder("mixed-runs");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    icae_train_options resume = {.is_resuming = true};
    ck_refused(tiny_run(out, NULL, &resume, NULL, &error), "no checkpoint to resume from");
    ck_assert(!icae_path_exists(out));
    ck_ok(icae_folder_make(out, &error));
    ck_refused(tiny_run(out, NULL, &resume, NULL, &error), "no checkpoint to resume from");
    ck_assert(!icae_path_exists(test_path(out, ".lock")));
    error = (icae_error){0};
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    ck_refused(tiny_run(out, NULL, NULL, NULL, &error), "go on with it by --resume");
    ck_refused(tiny_run(out, RUN_WITH("train.lr=1e-3"), &resume, NULL, &error),
               "train.lr = 0.003, now it is 0.001");
    error = (icae_error){0};
    int lock = open(test_path(out, ".lock"), O_RDWR | O_CREAT, 0666);
    ck_assert_int_eq(flock(lock, LOCK_EX | LOCK_NB), 0);
    ck_refused(tiny_run(out, NULL, &resume, NULL, &error), "another run is at work");
    close(lock);
    error = (icae_error){0};
    ck_ok(tiny_run(out, RUN_WITH("train.steps=5"), &resume, NULL, &error));
}
END_TEST

START_TEST(a_config_that_is_no_runs_is_not_written_over) {
    static const char foreign[] = "{\"architectures\": [\"LlamaForCausalLM\"]}";
    char folder[600], *kept;
    icae_error error = {0};
    snprintf(folder, sizeof folder, "%s", test_folder("trainer-foreign"));
    ck_ok(icae_file_write(test_path(folder, "config.json"), foreign, strlen(foreign), &error));
    ck_ok(icae_file_write(test_path(folder, "metrics.jsonl"), "1\n", 2, &error));
    ck_refused(tiny_run(folder, RUN_WITH("train.steps=1"), NULL, NULL, &error),
               "config.json: is there already and is not of a run");
    kept = slurp(test_path(folder, "config.json"), NULL);
    ck_assert_str_eq(kept, foreign);
    free(kept);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "metrics.jsonl")), 2);
    /* that of a run which ended before its first checkpoint is replaced */
    icae_settings settings;
    icae_text text = {0};
    tiny_settings(&settings, folder, RUN_WITH("train.steps=7"));
    icae_settings_write(&settings, &text);
    ck_ok(icae_file_write(test_path(folder, "config.json"), text.data, text.length, &error));
    icae_text_release(&text);
    icae_settings_release(&settings);
    ck_ok(tiny_run(folder, RUN_WITH("train.steps=1"), NULL, NULL, &error));
}
END_TEST

START_TEST(a_signal_before_the_first_step_leaves_nothing_to_save) {
    icae_error error = {0};
    const char *folder = test_folder("signal");
    volatile sig_atomic_t signal = SIGINT;
    icae_train_options options = {.signal = &signal};
    ck_assert_int_eq(tiny_run(test_path(folder, "run"), NULL, &options, NULL, &error),
                     ICAE_INTERRUPTED);
    ck_assert_ptr_nonnull(strstr(error.message, "nothing new to save"));
}
END_TEST

START_TEST(a_dry_run_writes_nothing_and_knows_the_plan) {
    icae_error error = {0};
    const char *folder = test_folder("dry");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    icae_train_options options = {.is_dry_run = true};
    icae_train_report report;
    ck_ok(tiny_run(out, RUN_WITH("objective.context_tokens=16", "objective.lm_ratio=0"),
                   &options, &report, &error));
    ck_assert(!icae_path_exists(out));
    ck_assert_int_eq(report.plan.frozen, 171456);
    /* 3 layers, q [64,64] and v [32,64] with rank 4, and 4 + 3 memory rows */
    ck_assert_int_eq(report.plan.trained, 3 * 4 * (128 + 96) + 7 * 64);
    ck_assert_int_eq(report.plan.step.context_tokens, 4 * 16);
    ck_assert_int_eq(report.plan.step.encoder_tokens, 4 * (16 + 4));
    ck_assert_int_eq(report.plan.step.decoder_tokens, 4 * (4 + 1 + 16));
    ck_assert_int_eq(report.plan.step.targets, 4 * 17);
    ck_refused(tiny_run(out, RUN_WITH("data.train=nowhere.jsonl"), &options, NULL, &error),
               "nowhere.jsonl");
}
END_TEST

SUITE_OF(trainer_runs, 120, a_stopped_and_resumed_run_equals_one_that_was_not,
         n_steps_and_n_more_equal_2n_steps, no_steps_save_the_adapter_as_it_was_drawn,
         resuming_a_finished_run_leaves_it_as_it_was, recomputing_activations_changes_no_byte,
         a_damaged_checkpoint_is_named_and_the_one_before_it_used,
         refuses_to_mix_two_runs_in_one_folder, a_config_that_is_no_runs_is_not_written_over,
         a_signal_before_the_first_step_leaves_nothing_to_save,
         a_dry_run_writes_nothing_and_knows_the_plan)
