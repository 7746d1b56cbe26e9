/* SPDX-License-Identifier: MIT */
/* The command line of icae-pretrain and icae-finetune: exit codes, signals, what is said and where. */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "icae/file.h"
#include "icae/json.h"
#include "icae/settings.h"
#include "train_support.h"

/* A config of so many tiny steps in a fresh folder, with the run's folder in it; returns the folder. */
static const char *folder_with_config(const char *name, const char *steps) {
    icae_error error = {0};
    const char *folder = test_folder(name);
    const char *const assignments[] = {steps, "data.heldout=data/samples/sentences.jsonl",
                                       NULL};
    icae_settings settings;
    icae_text text = {0};
    tiny_settings(&settings, test_path(folder, "it's a run"), assignments);
    icae_settings_write(&settings, &text);
    ck_ok(icae_file_write(test_path(folder, "config.json"), text.data, text.length, &error));
    icae_text_release(&text);
    icae_settings_release(&settings);
    return folder;
}

static outcome train(const char *folder, const char *arguments) {
    return run_in(folder, "%s/icae-pretrain %s/config.json %s", test_build_folder(), folder,
                  arguments);
}

START_TEST(a_command_line_that_is_wrong_is_usage_and_a_file_that_is_wrong_is_not) {
    const char *folder = folder_with_config("train-usage", "train.steps=1");
    static const struct {
        const char *arguments, *part;
        int code;
    } cases[] = {
        {"--frob", "--frob is unknown", 2},
        {"--set", "lacks its value", 2},
        {"--allow-changes", "no meaning without --resume", 2},
        {"again.json", "one config is enough", 2},
        {"--set train.lr", "expected key=value", 2},
        {"--set trian.lr=1", "--set trian.lr=1: trian: unknown key", 2},
        {"--set train.lr=fast", "--set train.lr=fast: train.lr: expected a number", 2},
        {"-t many", "train.threads", 2},
        {"--set base=nowhere", "nowhere: cannot open", 1},
        {"--set data.train=nowhere.jsonl", "nowhere.jsonl", 1},
        {"--resume", "no checkpoint to resume from", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        outcome o = train(folder, cases[i].arguments);
        ck_assert_msg(o.code == cases[i].code, "%s: exit code %d", cases[i].arguments, o.code);
        ck_assert_msg(strstr(o.err, cases[i].part), "%s: %s", cases[i].arguments, o.err);
        ck_assert_str_eq(o.out, "");
    }
    icae_error error = {0};
    ck_ok(icae_file_write(test_path(folder, "config.json"), "{\"trian\": {}}", 13, &error));
    outcome o = train(folder, "");
    ck_assert_int_eq(o.code, 1);
    ck_assert_ptr_nonnull(strstr(o.err, "did you mean 'train'"));
}
END_TEST

START_TEST(more_threads_than_processors_are_warned_about_once) {
    const char *folder = folder_with_config("train-threads", "train.steps=1");
    char arguments[64];
    static const char *const ways[] = {"-t ", "-t", "--threads="};
    for (int i = 0; i < 3; i++) {
        snprintf(arguments, sizeof arguments, "--quiet --dry-run %s%d", ways[i],
                 omp_get_num_procs() + 1);
        outcome o = train(folder, arguments);
        ck_assert_int_eq(o.code, 0);
        const char *said = strstr(o.err, "more threads than processors");
        ck_assert_msg(said && !strstr(said + 1, "more threads"), "%s", o.err);
    }
}
END_TEST

START_TEST(a_dry_run_tells_what_a_run_will_take_and_lacks) {
    const char *folder = folder_with_config("train-dry", "train.steps=7200");
    outcome o = train(folder, "--dry-run --set train.batch=1");
    ck_assert_msg(o.code == 0, "%s", o.err);
    ck_assert_ptr_nonnull(strstr(o.out, " context tokens in 1 sample; "));
    ck_assert_ptr_nonnull(strstr(o.out, " a step, "));
    ck_assert_ptr_nonnull(strstr(o.out, " for 7200 steps\n"));
    ck_assert_ptr_null(strstr(o.out, "hours"));
    static const char *const sets[] = {"data.train", "data.heldout"};
    for (int i = 0; i < 2; i++) {
        char arguments[128], said[64];
        snprintf(arguments, sizeof arguments, "-q --dry-run --set %s=none.jsonl", sets[i]);
        snprintf(said, sizeof said, "%s: none.jsonl: there is no such file", sets[i]);
        o = train(folder, arguments);
        ck_assert_int_eq(o.code, 1);
        ck_assert_msg(strstr(o.err, said), "%s", o.err);
        ck_assert_str_eq(o.out, "");
    }
}
END_TEST

START_TEST(prints_one_json_object_and_notices_a_full_disk) {
    const char *folder = folder_with_config("train-json", "train.steps=1");
    static const char *const runs[] = {"--json -q --dry-run", "--json -q"};
    for (int i = 0; i < 2; i++) {
        icae_error error = {0};
        icae_json *json;
        outcome o = train(folder, runs[i]);
        ck_assert_msg(o.code == 0, "%s", o.err);
        ck_ok(icae_json_parse(&json, "stdout", o.out, strlen(o.out), &error));
        ck_assert_ptr_nonnull(icae_json_member(icae_json_root(json), "plan"));
        icae_json_free(json);
    }
    static const char *const unheard[] = {"--json --dry-run", "--dry-run", "--help",
                                          "--version"};
    for (int i = 0; i < 4; i++) {
        char arguments[64];
        snprintf(arguments, sizeof arguments, "%s >/dev/full", unheard[i]);
        outcome o = train(folder, arguments);
        ck_assert_msg(o.code == 1, "%s: exit code %d", unheard[i], o.code);
        ck_assert_ptr_nonnull(strstr(o.err, "standard output could not be written"));
    }
}
END_TEST

START_TEST(an_adapter_that_learnt_no_answers_is_asked_with_a_warning) {
    const char *folder = folder_with_config("train-ask", "train.steps=1");
    static const char *const kinds[] = {"mixed", "instruct"};
    for (int i = 0; i < 2; i++) {
        outcome o =
            run_in(folder,
                   "%s/icae-%s %s/config.json -q --set out=%s/%s "
                   "--set objective.kind=%s --set data.train=data/samples/%s.jsonl "
                   "--set data.heldout=[] %s%s%s",
                   test_build_folder(), i ? "finetune" : "pretrain", folder, folder, kinds[i],
                   kinds[i], i ? "questions" : "sentences", i ? "--set adapter.start=" : "",
                   i ? folder : "", i ? "/mixed/adapter" : "");
        ck_assert_msg(o.code == 0, "%s", o.err);
        o = run_in(
            folder,
            "echo 'Some words to keep.' | %s/icae compress -q -m tests/golden/llama/model -a "
            "%s/%s/adapter -o %s/%s.slots - && %s/icae ask -m tests/golden/llama/model -a "
            "%s/%s/adapter -n 2 %s/%s.slots Why",
            test_build_folder(), folder, kinds[i], folder, kinds[i], test_build_folder(),
            folder, kinds[i], folder, kinds[i]);
        ck_assert_msg(o.code == 0, "%s", o.err);
        bool is_warned = strstr(o.err, "expect little of its answers") != NULL;
        ck_assert_msg(is_warned == (i == 0), "%s", o.err);
    }
}
END_TEST

/* The numbers of closed streams must not become those of files: the lock would hold all that is said. */
START_TEST(what_is_said_with_closed_streams_goes_into_no_file) {
    const char *folder = folder_with_config("train-closed", "train.steps=1");
    outcome o = train(folder, "<&- >&- 2>&-");
    ck_assert_int_eq(o.code, 0);
    ck_assert_int_eq(icae_file_bytes(test_path(folder, "it's a run/.lock")), 0);
    o = train(folder, "--dry-run >&-");
    ck_assert_int_eq(o.code, 1);
    ck_assert_ptr_nonnull(strstr(o.err, "could not be written: Bad file descriptor"));
}
END_TEST

/* The last line that a stopped run says, as a shell would run it. */
static outcome run_as_said(const char *folder, const char *said, const char *more) {
    const char *command = strstr(said, "go on with:  ");
    ck_assert_msg(command != NULL, "%s", said);
    command += strlen("go on with:  ");
    return run_in(folder, "%.*s %s", (int)strcspn(command, "\n"), command, more);
}

START_TEST(a_signal_saves_and_what_is_said_goes_on) {
    const char *folder = folder_with_config("train-signal", "train.steps=1000000");
    static const struct {
        const char *name;
        int code;
    } signals[] = {{"INT", 130}, {"TERM", 143}, {"HUP", 129}};
    for (int i = 0; i < 3; i++) {
        /* until the first checkpoint is there, a signal; -t 1 keeps the machine free for others. A shell
         * without a terminal has what it starts with & ignore SIGINT. */
        outcome o = run_in(folder,
                           "env --default-signal=INT,HUP %s/icae-pretrain %s/config.json -q -t "
                           "1 --set 'out=%s/it'\\''s %d' "
                           "--set checkpoint.every=1 & "
                           "for i in $(seq 500); do ls '%s/it'\\''s %d/checkpoints' 2>&1 | "
                           "grep -q ^step && break; sleep 0.02; done; kill -%s $!; wait $!",
                           test_build_folder(), folder, folder, i, folder, i, signals[i].name);
        ck_assert_msg(o.code == signals[i].code, "exit code %d: %s", o.code, o.err);
        ck_assert_ptr_nonnull(strstr(o.err, "a checkpoint is in"));
        /* as many steps as there can be: it begins, finds its checkpoint and goes on */
        outcome again = run_as_said(folder, o.err, "--dry-run");
        ck_assert_msg(again.code == 0, "%s", again.err);
        ck_assert_ptr_nonnull(strstr(o.err, " --resume\n"));
    }
}
END_TEST

START_TEST(a_signal_that_was_ignored_at_the_start_stays_ignored) {
    const char *folder = folder_with_config("train-ignored", "train.steps=60");
    outcome o = run_in(folder,
                       "env --ignore-signal=INT,HUP %s/icae-pretrain %s/config.json -q -t 1 "
                       "--set out=%s/run --set checkpoint.every=1 & "
                       "for i in $(seq 500); do ls '%s/run/checkpoints' 2>&1 | "
                       "grep -q ^step && break; sleep 0.02; done; kill -HUP $!; kill -INT $!; "
                       "wait $!",
                       test_build_folder(), folder, folder, folder);
    ck_assert_msg(o.code == 0, "exit code %d: %s", o.code, o.err);
}
END_TEST

START_TEST(stopped_before_the_first_step_it_is_to_be_started_again) {
    const char *folder = folder_with_config("train-early", "train.steps=1000000");
    /* The first evaluation is made long enough to be interrupted for certain, on any machine: it takes some
     * seconds, and a signal ends it at once. */
    icae_error error = {0};
    icae_text many = {0};
    for (int i = 0; i < 3000; i++)
        icae_text_printf(
            &many, "{\"text\": \"The ship number %d came to the harbour of the town.\"}\n", i);
    ck_ok(icae_file_write(test_path(folder, "many.jsonl"), many.data, many.length, &error));
    icae_text_release(&many);
    outcome o = run_in(folder,
                       "%s/icae-pretrain %s/config.json -t 1 --set data.heldout=%s/many.jsonl "
                       "--set evaluate.samples=3000 --set evaluate.reconstruct_samples=1000 "
                       "--set evaluate.reconstruct_tokens=0 & "
                       "for i in $(seq 500); do [ -e \"%s/it's a run/config.json\" ] && break; "
                       "sleep 0.01; done; kill -TERM $!; wait $!",
                       test_build_folder(), folder, folder, folder);
    ck_assert_msg(o.code == 143, "exit code %d: %s", o.code, o.err);
    ck_assert_ptr_nonnull(strstr(o.err, "nothing new to save"));
    ck_assert_ptr_null(strstr(o.err, "--resume"));
    outcome again = run_as_said(
        folder, o.err,
        "-q --set train.steps=1 --set evaluate.samples=1 --set evaluate.reconstruct_samples=1");
    ck_assert_msg(again.code == 0, "%s", again.err);
}
END_TEST

SUITE_OF(train_cli, 60, a_command_line_that_is_wrong_is_usage_and_a_file_that_is_wrong_is_not,
         more_threads_than_processors_are_warned_about_once,
         a_dry_run_tells_what_a_run_will_take_and_lacks,
         prints_one_json_object_and_notices_a_full_disk,
         an_adapter_that_learnt_no_answers_is_asked_with_a_warning,
         what_is_said_with_closed_streams_goes_into_no_file,
         a_signal_saves_and_what_is_said_goes_on,
         a_signal_that_was_ignored_at_the_start_stays_ignored,
         stopped_before_the_first_step_it_is_to_be_started_again)
