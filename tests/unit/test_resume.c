/* SPDX-License-Identifier: MIT */
/*
 * What a run notices when it goes on, what it keeps of steps that failed, and how fast it stops. That a
 * resumed run equals an undisturbed one is shown in test_trainer_runs.c and, with SIGKILL, by make torture.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "icae/backend.h"
#include "icae/checkpoint.h"
#include "icae/file.h"
#include "icae/graph.h"
#include "icae/json.h"
#include "icae/log.h"
#include "icae/rng.h"
#include "suites.h"
#include "train_support.h"

static const icae_train_options resume = {.is_resuming = true};
static const icae_train_options resume_changed = {.is_resuming = true, .allows_changes = true};

/* A file with every `from` replaced by `to`, of any lengths. */
static void replace_in(const char *path, const char *from, const char *to) {
    icae_error error = {0};
    icae_text text = {0};
    char *before = slurp(path, NULL), *at = before;
    ck_assert_msg(strstr(before, from) != NULL, "%s lacks %s", path, from);
    for (char *next; (next = strstr(at, from)); at = next + strlen(from)) {
        icae_text_append(&text, at, (size_t)(next - at));
        icae_text_append_string(&text, to);
    }
    icae_text_append_string(&text, at);
    ck_ok(icae_file_write(path, text.data, text.length, &error));
    icae_text_release(&text);
    free(before);
}

/* ---- changes ---- */

START_TEST(changed_settings_are_refused_or_said) {
    icae_error error = {0};
    const char *folder = test_folder("resume-settings");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    const char *const *changed = RUN_WITH("train.steps=6", "train.lr=1e-3");
    ck_refused(tiny_run(out, changed, &resume, NULL, &error),
               "train.lr = 0.003, now it is 0.001");
    ck_assert_ptr_nonnull(strstr(error.message, "--allow-changes"));
    ck_refused(tiny_run(out, RUN_WITH("train.steps=6", "train.lr=1e-3", "train.batch=5"),
                        &resume, NULL, &error),
               "train.batch = 4, now it is 5; train.lr = 0.003, now it is 0.001; set it back");
    error = (icae_error){0};
    ck_ok(tiny_run(out, changed, &resume_changed, NULL, &error));
    /* from then on the changed value is the run's own */
    ck_ok(tiny_run(out, RUN_WITH("train.steps=7", "train.lr=1e-3"), &resume, NULL, &error));
    ck_refused(tiny_run(out, RUN_WITH("train.steps=8"), &resume, NULL, &error), "train.lr");
    /* an adapter of another shape cannot take the checkpoint's numbers */
    ck_refused(tiny_run(out, RUN_WITH("train.steps=8", "adapter.rank=5"), &resume_changed, NULL,
                        &error),
               "fits no adapter of other");
    /* nor one of the same, which would take one module's numbers for another's */
    ck_refused(tiny_run(out,
                        RUN_WITH("train.steps=8", "adapter.targets=[\"q_proj\", \"k_proj\"]"),
                        &resume_changed, NULL, &error),
               "fits no adapter of other");
    error = (icae_error){0};
    ck_ok(tiny_run(out, RUN_WITH("train.steps=8", "adapter.targets=[\"v_proj\", \"q_proj\"]"),
                   &resume_changed, NULL, &error)); /* in another order they are the same */
}
END_TEST

START_TEST(fewer_steps_than_are_done_are_refused_and_written_nowhere) {
    icae_error error = {0};
    const char *folder = test_folder("resume-fewer");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    char *before = slurp(test_path(out, "config.json"), NULL);
    ck_refused(tiny_run(out, RUN_WITH("train.steps=3"), &resume, NULL, &error),
               "has done 4 steps already, more than train.steps, 3; give more");
    char *after = slurp(test_path(out, "config.json"), NULL);
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
    error = (icae_error){0};
    ck_ok(tiny_run(out, RUN_WITH("train.steps=4"), &resume, NULL, &error));
}
END_TEST

START_TEST(other_threads_and_other_kernels_are_refused_or_said) {
    icae_error error = {0};
    const char *folder = test_folder("resume-machine");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    const char *const *threads = RUN_WITH("train.steps=5", "train.threads=2");
    ck_refused(tiny_run(out, threads, &resume, NULL, &error),
               "with train.threads = 1, now it is 2");
    error = (icae_error){0};
    ck_ok(tiny_run(out, threads, &resume_changed, NULL, &error));
    setenv("ICAE_CPU", "reference", 1);
    ck_refused(tiny_run(out, RUN_WITH("train.steps=6"), &resume, NULL, &error),
               "with train.threads = 2, now it is 1; by ");
    unsetenv("ICAE_CPU");
    error = (icae_error){0};
    threads = RUN_WITH("train.steps=6", "train.threads=2");
    ck_ok(tiny_run(out, threads, &resume, NULL, &error));
    setenv("ICAE_CPU", "reference", 1);
    threads = RUN_WITH("train.steps=7", "train.threads=2");
    ck_refused(tiny_run(out, threads, &resume, NULL, &error), "now they are reference");
    error = (icae_error){0};
    ck_ok(tiny_run(out, threads, &resume_changed, NULL, &error));
}
END_TEST

START_TEST(data_of_the_same_length_but_not_the_same_are_noticed) {
    icae_error error = {0};
    const char *folder = test_folder("resume-data");
    char out[700], data[800], assignment[900];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(data, sizeof data, "%s/texts.jsonl", folder);
    snprintf(assignment, sizeof assignment, "data.train=%s", data);
    size_t bytes;
    char *text = slurp("data/samples/sentences.jsonl", &bytes);
    ck_ok(icae_file_write(data, text, bytes, &error));
    free(text);
    ck_ok(tiny_run(out, RUN_WITH(assignment), NULL, NULL, &error));
    const char *const *more = RUN_WITH(assignment, "train.steps=6");
    replace_in(data, " the ", " teh ");
    ck_refused(tiny_run(out, more, &resume, NULL, &error), "not the same");
    ck_assert_ptr_nonnull(strstr(error.message, "--allow-changes begins them anew"));
    error = (icae_error){0};
    replace_in(data, " teh ", " the ");
    ck_ok(tiny_run(out, more, &resume, NULL, &error));
    replace_in(data, " the ", " an ");
    more = RUN_WITH(assignment, "train.steps=8");
    ck_refused(tiny_run(out, more, &resume, NULL, &error), "bytes when the run stopped");
    error = (icae_error){0};
    ck_ok(tiny_run(out, more, &resume_changed, NULL, &error));
}
END_TEST

/* Other data are read from their beginning, but the run is where it was. */
START_TEST(counts_and_growth_go_on_when_the_data_begin_anew) {
    icae_error error = {0};
    const char *folder = test_folder("resume-growth");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    const char *const growth[] = {"objective.first_context=4", "objective.grow_steps=4",
                                  "objective.lm_ratio=0"};
    ck_ok(tiny_run(out, RUN_WITH(growth[0], growth[1], growth[2]), NULL, NULL, &error));
    icae_train_report report;
    ck_ok(tiny_run(out,
                   RUN_WITH(growth[0], growth[1], growth[2], "train.steps=5",
                            "data.train=[\"data/samples/excerpts.jsonl\"]"),
                   &resume_changed, &report, &error));
    ck_assert_int_eq((int64_t)report.context_tokens, 4 * 16); /* of the one step */
    char *metrics = metrics_without_times(out), *totals[2], *at = metrics;
    for (int i = 0; i < 2; i++) {
        at = strstr(at, i ? "{\"step\": 5," : "{\"step\": 4,");
        ck_assert_ptr_nonnull(at);
        totals[i] = strstr(at, "\"total_tokens\": ");
        ck_assert_ptr_nonnull(totals[i]);
        totals[i] += strlen("\"total_tokens\": ");
    }
    ck_assert_int_eq(atoll(totals[1]), atoll(totals[0]) + 4 * 16);
    free(metrics);
}
END_TEST

START_TEST(a_run_that_did_not_write_down_its_compute_can_go_on) {
    icae_error error = {0};
    const char *folder = test_folder("resume-auto");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    replace_in(test_path(out, "config.json"), "\"compute\": \"f32\"", "\"compute\": \"auto\"");
    ck_ok(tiny_run(out, RUN_WITH("train.steps=6"), &resume, NULL, &error));
    char *config = slurp(test_path(out, "config.json"), NULL);
    ck_assert_ptr_nonnull(strstr(config, "\"compute\": \"f32\""));
    free(config);
}
END_TEST

START_TEST(a_run_goes_on_without_the_history_that_was_lost) {
    icae_error error = {0};
    const char *folder = test_folder("resume-history");
    char out[700], metrics[800];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", out);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    ck_assert_int_eq(truncate(metrics, 0), 0); /* shorter than the checkpoint knows it */
    ck_ok(tiny_run(out, RUN_WITH("train.steps=5"), &resume, NULL, &error));
    ck_assert_int_eq(unlink(metrics), 0);
    ck_ok(tiny_run(out, RUN_WITH("train.steps=6"), &resume, NULL, &error));
    char *kept = slurp(metrics, NULL);
    ck_assert_msg(!strncmp(kept, "{\"step\": 6,", 11), "%s", kept);
    free(kept);
}
END_TEST

START_TEST(what_a_killed_run_left_is_swept_away) {
    static const char *const left[] = {".config.json.tmp-123-1", ".adapter.tmp-77",
                                       "adapter/.icae.tmp-5"};
    static const char *const others[] = {".tmp-notes", ".config.json.tmp-", "a.tmp-1"};
    icae_error error = {0};
    const char *folder = test_folder("resume-sweep");
    char out[700];
    snprintf(out, sizeof out, "%s/run", folder);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    for (int i = 0; i < 3; i++) {
        ck_ok(icae_folder_make(test_path(out, left[i]), &error));
        ck_ok(icae_file_write(test_path(out, others[i]), "mine", 4, &error));
    }
    ck_ok(tiny_run(out, RUN_WITH("train.steps=5"), &resume, NULL, &error));
    for (int i = 0; i < 3; i++) {
        ck_assert_msg(!icae_path_exists(test_path(out, left[i])), "%s", left[i]);
        ck_assert_msg(icae_path_exists(test_path(out, others[i])), "%s", others[i]);
    }
}
END_TEST

/* ---- stopping ---- */

static volatile sig_atomic_t asked;
static double asked_s;

static void on_alarm(int number) {
    asked = number;
    asked_s = icae_clock_seconds();
}

/* Held-out texts enough for minutes of evaluation, if it were not stopped; sets the assignment. */
static void write_many_texts(const char *folder, char *assignment, size_t bytes) {
    icae_error error = {0};
    icae_text text = {0};
    for (int i = 0; i < 5000; i++)
        icae_text_printf(&text, "{\"text\": \"Sentence %d is about a harbour at dawn.\"}\n", i);
    const char *path = test_path(folder, "many.jsonl");
    ck_ok(icae_file_write(path, text.data, text.length, &error));
    icae_text_release(&text);
    snprintf(assignment, bytes, "data.heldout=%s", path);
}

/* A run to which a signal comes after two seconds, which must end it in no time. */
static void run_and_interrupt(const char *out, const char *const *assignments, bool is_resuming,
                              const char *sentence) {
    icae_error error = {0};
    const icae_train_options options = {.signal = &asked, .is_resuming = is_resuming};
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    const struct itimerval soon = {.it_value = {2, 0}};
    asked = 0;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    icae_status status = tiny_run(out, assignments, &options, NULL, &error);
    double took = icae_clock_seconds() - asked_s;
    ck_assert_int_eq(status, ICAE_INTERRUPTED);
    ck_assert_int_eq(asked, SIGALRM);
    ck_assert_msg(took < 15, "it took %g s to stop", took); /* not minutes */
    ck_assert_msg(strstr(error.message, sentence) != NULL, "%s", error.message);
}

START_TEST(a_signal_in_the_first_evaluation_ends_it_within_a_sample) {
    const char *folder = test_folder("resume-stop");
    char out[700], data[800];
    snprintf(out, sizeof out, "%s/run", folder);
    write_many_texts(folder, data, sizeof data);
    run_and_interrupt(out,
                      RUN_WITH(data, "evaluate.samples=5000",
                               "evaluate.reconstruct_samples=5000",
                               "evaluate.reconstruct_tokens=0"),
                      false, "nothing new to save");
}
END_TEST

START_TEST(a_signal_in_a_later_evaluation_saves_the_step_before_it) {
    icae_error error = {0};
    const char *folder = test_folder("resume-later");
    char out[700], straight[700], data[800];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(straight, sizeof straight, "%s/straight", folder);
    write_many_texts(folder, data, sizeof data);
    ck_ok(tiny_run(straight, NULL, NULL, NULL, &error));
    icae_train_options options = {.stop_at = 1};
    ck_assert_int_eq(tiny_run(out, NULL, &options, NULL, &error), ICAE_INTERRUPTED);
    /* No evaluation is due at step 1, where it goes on, but at 2. */
    run_and_interrupt(out,
                      RUN_WITH(data, "evaluate.every=2", "evaluate.samples=5000",
                               "evaluate.reconstruct_samples=5000",
                               "evaluate.reconstruct_tokens=0"),
                      true, "a checkpoint is in");
    ck_assert(icae_path_exists(test_path(out, "checkpoints/step-2")));
    ck_ok(tiny_run(out, NULL, &resume, NULL, &error));
    same_file(test_path(straight, "adapter/adapter_model.safetensors"),
              test_path(out, "adapter/adapter_model.safetensors"));
}
END_TEST

START_TEST(an_evaluation_that_was_ended_is_made_up_for) {
    static const char *const every[] = {"train.steps=4", "evaluate.every=2",
                                        "checkpoint.every=3",
                                        "data.heldout=data/samples/sentences.jsonl", NULL};
    icae_error error = {0};
    const char *folder = test_folder("resume-again");
    char out[700], straight[700];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(straight, sizeof straight, "%s/straight", folder);
    ck_ok(tiny_run(straight, every, NULL, NULL, &error));
    icae_train_options options = {.stop_at = 2};
    ck_assert_int_eq(tiny_run(out, every, &options, NULL, &error), ICAE_INTERRUPTED);
    volatile sig_atomic_t signal = SIGTERM; /* ends the evaluation that is due at once */
    options = (icae_train_options){.is_resuming = true, .signal = &signal};
    ck_assert_int_eq(tiny_run(out, every, &options, NULL, &error), ICAE_INTERRUPTED);
    ck_ok(tiny_run(out, every, &resume, NULL, &error));
    char *a = metrics_without_times(straight), *b = metrics_without_times(out);
    ck_assert_str_eq(a, b);
    free(a);
    free(b);
}
END_TEST

/* ---- numbers ---- */

/* Gives a checkpoint another state.json, and its list the new hash. */
static void put_state(const char *checkpoint, const char *text) {
    icae_error error = {0};
    const char *list = test_path(checkpoint, "hashes.json");
    char entry[128];
    size_t bytes = strlen(text);
    ck_ok(icae_file_write(test_path(checkpoint, "state.json"), text, bytes, &error));
    char *before = slurp(list, NULL), *from = strstr(before, "\"state.json\": ");
    ck_assert_ptr_nonnull(from);
    char *old = strndup(from, strcspn(from, "}") + 1);
    snprintf(entry, sizeof entry, "\"state.json\": {\"bytes\": %zu, \"hash\": \"%016llx\"}",
             bytes, (unsigned long long)icae_hash64(text, bytes, 0));
    replace_in(list, old, entry);
    free(old);
    free(before);
    char *sealed = slurp(list, NULL), *seal = strstr(sealed, ",\n  \"checksum\": ");
    ck_assert_ptr_nonnull(seal);
    strcpy(seal, "\n}\n"); /* a list without a checksum of itself is read too */
    ck_ok(icae_file_write(list, sealed, strlen(sealed), &error));
    free(sealed);
    ck_ok(icae_checkpoint_verify(checkpoint, &error));
}

/* Files of the tiny base, all or the first `n`, in folder/base. */
static void copy_base(const char *folder, size_t n) {
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json", "generation_config.json"};
    icae_error error = {0};
    char base[700];
    snprintf(base, sizeof base, "%s/base", folder);
    ck_ok(icae_folder_make(base, &error));
    for (size_t i = 0; i < n && i < sizeof names / sizeof names[0]; i++) {
        size_t bytes;
        char *data = slurp(test_path("tests/golden/llama/model", names[i]), &bytes);
        ck_ok(icae_file_write(test_path(base, names[i]), data, bytes, &error));
        free(data);
    }
}

START_TEST(a_base_that_changed_under_its_name_is_refused) {
    icae_error error = {0};
    const char *folder = test_folder("resume-base");
    char out[700], base[700];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(base, sizeof base, "base=%s/base", folder);
    copy_base(folder, 5);
    ck_ok(tiny_run(out, RUN_WITH(base), NULL, NULL, &error));
    replace_in(test_path(folder, "base/config.json"), "\"rms_norm_eps\": 1e-05",
               "\"rms_norm_eps\": 0.5");
    const char *const *more = RUN_WITH(base, "train.steps=6");
    ck_refused(tiny_run(out, more, &resume, NULL, &error),
               "belongs to a base with fingerprint");
    ck_refused(tiny_run(out, more, &resume_changed, NULL, &error), "belongs to a base");
}
END_TEST

START_TEST(a_base_may_be_spelled_another_way_or_have_moved) {
    icae_error error = {0};
    const char *folder = test_folder("resume-spelling");
    char out[700], base[700], here[4096], absolute[4900], from[800], to[800];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(base, sizeof base, "base=%s/base", folder);
    copy_base(folder, 5);
    ck_ok(tiny_run(out, RUN_WITH(base), NULL, NULL, &error));
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    ck_assert_int_ne(*folder, '/');
    snprintf(absolute, sizeof absolute, "base=%s/%.700s/base", here, folder);
    ck_ok(tiny_run(out, RUN_WITH(absolute, "train.steps=5"), &resume, NULL, &error));
    snprintf(base, sizeof base, "base=%s/./base", folder);
    ck_ok(tiny_run(out, RUN_WITH(base, "train.steps=6"), &resume, NULL, &error));
    snprintf(from, sizeof from, "%s/base", folder);
    snprintf(to, sizeof to, "%s/moved", folder);
    ck_assert_int_eq(rename(from, to), 0);
    snprintf(base, sizeof base, "base=%s", to);
    ck_ok(tiny_run(out, RUN_WITH(base, "train.steps=7"), &resume, NULL, &error));
    char *config = slurp(test_path(out, "config.json"), NULL);
    ck_assert_ptr_nonnull(strstr(config, "moved\""));
    free(config);
}
END_TEST

START_TEST(a_base_that_no_text_ends_in_is_refused) {
    icae_error error = {0};
    const char *folder = test_folder("resume-eos");
    char base[700];
    snprintf(base, sizeof base, "base=%s/base", folder);
    copy_base(folder, 3);
    replace_in(test_path(folder, "base/config.json"), "  \"eos_token_id\": 2,\n", "");
    ck_refused(tiny_run(test_path(folder, "run"), RUN_WITH(base), NULL, NULL, &error),
               "its tokenizer has no end-of-text token");
    ck_assert_int_eq(unlink(test_path(folder, "base/tokenizer.json")), 0);
    ck_refused(tiny_run(test_path(folder, "run"), RUN_WITH(base), NULL, NULL, &error), "");
}
END_TEST

START_TEST(a_checkpoint_from_before_machines_were_noted_is_taken) {
    icae_error error = {0};
    const char *folder = test_folder("resume-old");
    char out[700], checkpoint[800];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/step-4", out);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    char *state = slurp(test_path(checkpoint, "state.json"), NULL);
    char *from = strstr(state, "  \"threads\": "), *to = strstr(state, "  \"settings_hash\": ");
    ck_assert(from && to && from < to);
    memmove(from, to, strlen(to) + 1);
    put_state(checkpoint, state);
    free(state);
    ck_ok(tiny_run(out, RUN_WITH("train.steps=5", "train.threads=2"), &resume_changed, NULL,
                   &error));
}
END_TEST

START_TEST(a_gradient_far_longer_than_usual_is_recorded) {
    icae_error error = {0};
    const char *folder = test_folder("resume-spike");
    char out[700], checkpoint[800];
    snprintf(out, sizeof out, "%s/run", folder);
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/step-4", out);
    ck_ok(tiny_run(out, NULL, NULL, NULL, &error));
    char *metrics = metrics_without_times(out);
    ck_assert_ptr_null(strstr(metrics, "spike"));
    free(metrics);
    /* As if all gradients of a longer run had been a thousandth of what comes now. */
    const char *path = test_path(checkpoint, "state.json");
    char *state = slurp(path, NULL), *number = strstr(state, "\"norm_mean\": ");
    ck_assert_ptr_nonnull(number);
    ck_assert_ptr_nonnull(strstr(state, "\"norm_count\": 4,"));
    char *norm = strndup(number, strcspn(number, ","));
    replace_in(path, norm, "\"norm_mean\": 0.001");
    replace_in(path, "\"norm_count\": 4,", "\"norm_count\": 40,");
    free(state);
    free(norm);
    state = slurp(path, NULL);
    put_state(checkpoint, state);
    free(state);
    ck_ok(tiny_run(out, RUN_WITH("train.steps=5"), &resume, NULL, &error));
    metrics = metrics_without_times(out);
    const char *last = strstr(metrics, "{\"step\": 5");
    ck_assert(last && strstr(last, "\"spike\": true"));
    free(metrics);
    /* One outlier does not make the next one usual. */
    state = slurp(test_path(out, "checkpoints/step-5/state.json"), NULL);
    number = strstr(state, "\"norm_mean\": ");
    double mean = number ? strtod(number + strlen("\"norm_mean\": "), NULL) : 0;
    ck_assert_msg(fabs(mean - (0.95 * 0.001 + 0.05 * 0.01)) < 1e-9, "%g", mean);
    free(state);
}
END_TEST

START_TEST(a_kernel_without_memory_is_an_error_and_the_next_step_goes_on) {
    icae_error error = {0};
    icae_backend *be;
    icae_graph *graph;
    ck_ok(icae_backend_create(&be, NULL, 2, &error));
    ck_ok(icae_graph_create(&graph, be, &error));
    icae_graph_begin(graph, false, false);
    size_t stride;
    ck_assert_ptr_nonnull(icae_backend_scratch(be, 1000, &stride));
    ck_assert_ptr_null(icae_backend_scratch(be, SIZE_MAX / 4, &stride));
    ck_assert_ptr_null(icae_backend_work_space(be, SIZE_MAX / 2));
    ck_assert_int_eq(icae_graph_status(graph, &error), ICAE_MEMORY);
    ck_assert_ptr_nonnull(strstr(error.message, "not enough memory"));
    icae_graph_begin(graph, false, false);
    error = (icae_error){0};
    ck_ok(icae_graph_status(graph, &error));
    ck_assert_ptr_nonnull(icae_backend_scratch(be, 1000, &stride));
    icae_graph_free(graph);
    icae_backend_free(be);
}
END_TEST

SUITE_OF(resume, 120, counts_and_growth_go_on_when_the_data_begin_anew,
         changed_settings_are_refused_or_said,
         fewer_steps_than_are_done_are_refused_and_written_nowhere,
         other_threads_and_other_kernels_are_refused_or_said,
         data_of_the_same_length_but_not_the_same_are_noticed,
         a_run_that_did_not_write_down_its_compute_can_go_on,
         a_run_goes_on_without_the_history_that_was_lost, what_a_killed_run_left_is_swept_away,
         a_signal_in_the_first_evaluation_ends_it_within_a_sample,
         a_signal_in_a_later_evaluation_saves_the_step_before_it,
         an_evaluation_that_was_ended_is_made_up_for,
         a_base_that_changed_under_its_name_is_refused,
         a_base_may_be_spelled_another_way_or_have_moved,
         a_base_that_no_text_ends_in_is_refused,
         a_checkpoint_from_before_machines_were_noted_is_taken,
         a_gradient_far_longer_than_usual_is_recorded,
         a_kernel_without_memory_is_an_error_and_the_next_step_goes_on)
