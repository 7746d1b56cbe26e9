/* SPDX-License-Identifier: MIT */
/* What a training run says of its data and its settings: once, by name, and in numbers that go on after a stop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "icae/file.h"
#include "icae/settings.h"
#include "train_support.h"

/* A config with these assignments in a fresh folder; its run goes to FOLDER/run. Returns the folder. */
static const char *folder_with_config(const char *name, const char *const *assignments) {
    icae_error error = {0};
    const char *folder = test_folder(name);
    icae_settings settings;
    icae_text text = {0};
    tiny_settings(&settings, test_path(folder, "run"), assignments);
    icae_settings_write(&settings, &text);
    ck_ok(icae_file_write(test_path(folder, "config.json"), text.data, text.length, &error));
    icae_text_release(&text);
    icae_settings_release(&settings);
    return folder;
}

/* `program` is "pretrain" or "finetune". */
static outcome train(const char *program, const char *folder, const char *arguments) {
    return run_in(folder, "%s/icae-%s %s/config.json %s", test_build_folder(), program, folder,
                  arguments);
}

static int times(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        n++;
    return n;
}

static void ck_says(const outcome *o, const char *part, int n) {
    ck_assert_msg(times(o->err, part) == n, "not %d times \"%s\": %s", n, part, o->err);
}

/* Rows whose second input, prompt and answer are too long, the third's input too short, the fourth broken. */
static void write_rows(const char *folder) {
    static const char rows[] =
        "{\"input\": \"the river was slow\", \"prompt\": \"who\", \"answer\": \"men\"}\n"
        "{\"input\": \"the river was slow and the men from both towns met there again and "
        "again\", \"prompt\": \"who met there again\", \"answer\": \"men from both towns\"}\n"
        "{\"input\": \"a\", \"prompt\": \"who\", \"answer\": \"men\"}\n"
        "{\"input\": \"the river was slow\", \"prompt\": \"who\"}\n";
    icae_error error = {0};
    ck_ok(icae_file_write(test_path(folder, "rows.jsonl"), rows, sizeof rows - 1, &error));
}

#define FINETUNE                                                                               \
    "--set objective.kind=instruct --set data.shuffle_documents=0 --set train.batch=2 "        \
    "--set objective.context_tokens=16 --set objective.prompt_tokens=4 "                       \
    "--set objective.answer_tokens=4 "

START_TEST(what_is_cut_passed_over_or_broken_is_told_and_counted) {
    const char *folder = folder_with_config("says-lost", NULL);
    write_rows(folder);
    char start[2048], data[2048], arguments[3000];
    outcome o = train("pretrain", folder, "-q --set train.steps=1");
    ck_assert_msg(o.code == 0, "%s", o.err);
    snprintf(start, sizeof start, "--set adapter.start=%s/run/adapter", folder);
    snprintf(data, sizeof data, "--set data.train=%s/rows.jsonl", folder);
    snprintf(arguments, sizeof arguments,
             FINETUNE "--json %s %s --set out=%s/whole --set train.steps=3", start, data,
             folder);
    o = train("finetune", folder, arguments);
    ck_assert_msg(o.code == 0, "%s", o.err);
    ck_says(&o, "rows.jsonl:2: the input has ", 1);
    ck_says(&o, "objective.context_tokens allows more", 1);
    ck_says(&o, "objective.prompt_tokens allows more", 1);
    ck_says(&o, "objective.answer_tokens allows more", 1);
    /* three epochs of two rows: of the third nothing behind its second row was read */
    ck_says(&o, "data: 9 inputs, prompts and answers were cut (", 1);
    ck_says(&o, "), 2 rows passed over: ", 1);
    ck_says(&o, ", 2 broken lines skipped\n", 1);
    ck_assert_msg(strstr(o.out, "\"cut\": 9, \"passed_over\": 2, \"broken_lines\": 2"), "%s",
                  o.out);
    /* stopped and resumed it counts the same */
    snprintf(arguments, sizeof arguments,
             FINETUNE "-q %s %s --set out=%s/parts --set train.steps=2", start, data, folder);
    o = train("finetune", folder, arguments);
    ck_assert_msg(o.code == 0, "%s", o.err);
    snprintf(arguments, sizeof arguments,
             FINETUNE "--resume %s %s --set out=%s/parts --set train.steps=3", start, data,
             folder);
    o = train("finetune", folder, arguments);
    ck_assert_msg(o.code == 0, "%s", o.err);
    ck_says(&o, "data: 9 inputs, prompts and answers were cut (", 1);
    char *whole = metrics_without_times(test_path(folder, "whole"));
    char *parts = metrics_without_times(test_path(folder, "parts"));
    ck_assert_str_eq(whole, parts);
    ck_assert_ptr_nonnull(strstr(whole, "\"total_cut\": 3"));
    ck_assert_ptr_nonnull(strstr(whole, "\"total_cut\": 6, \"total_passed_over\": 1"));
    free(whole);
    free(parts);
    /* finished already: nothing is trained, the counts are still there */
    snprintf(arguments, sizeof arguments,
             FINETUNE "--resume --json %s %s --set out=%s/parts --set train.steps=3", start,
             data, folder);
    o = train("finetune", folder, arguments);
    ck_assert_msg(strstr(o.out, "\"cut\": 9, \"passed_over\": 2"), "%s", o.out);
}
END_TEST

START_TEST(texts_that_pretraining_leaves_out_are_counted_in_its_last_line) {
    static const char lines[] = "{\"text\": \"the river was slow and the men met there\"}\n"
                                "{\"text\": \"a\"}\n{}\n";
    const char *folder = folder_with_config("says-texts", NULL);
    char arguments[2048];
    icae_error error = {0};
    ck_ok(icae_file_write(test_path(folder, "t.jsonl"), lines, sizeof lines - 1, &error));
    snprintf(arguments, sizeof arguments,
             "--set data.train=%s/t.jsonl --set data.shuffle_documents=0 "
             "--set train.batch=1 --set train.steps=2",
             folder);
    outcome o = train("pretrain", folder, arguments);
    ck_assert_msg(o.code == 0, "%s", o.err);
    ck_says(&o,
            "data: 1 text passed over as too short (objective.least_context), 1 broken line "
            "skipped\n",
            1);
    /* a run that lost nothing says nothing of it */
    snprintf(arguments, sizeof arguments, "--json --set train.steps=1 --set out=%s/again",
             folder);
    o = train("pretrain", folder, arguments);
    ck_assert_msg(o.code == 0, "%s", o.err);
    ck_says(&o, "data: ", 0);
    ck_says(&o, "trained 1 step in ", 1);
    ck_assert_ptr_nonnull(strstr(o.out, "\"cut\": 0, \"passed_over\": 0, \"broken_lines\": 0"));
}
END_TEST

START_TEST(keys_of_another_objective_are_warned_about_once) {
    static const char *const given[] = {"objective.kind=both", "objective.lm_ratio=0.3", NULL};
    const char *folder = folder_with_config("says-idle", given);
    outcome o = train("pretrain", folder, "-q --set train.steps=1");
    ck_assert_msg(o.code == 0, "%s", o.err);
    ck_says(&o, "warning: objective.kind is both, to which these mean nothing: ", 1);
    ck_says(&o, "objective.lm_ratio (of mixed)\n", 1);
}
END_TEST

/* Restoring takes the text and its end, at positions of their own. */
START_TEST(samples_beyond_the_context_of_the_base_are_warned_about) {
    static const struct {
        const char *tokens;
        int times;
    } cases[] = {{"2047", 0}, {"2048", 1}};
    const char *folder = folder_with_config("says-beyond", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char arguments[200];
        snprintf(arguments, sizeof arguments, "--dry-run --set objective.context_tokens=%s",
                 cases[i].tokens);
        outcome o = train("pretrain", folder, arguments);
        ck_assert_msg(o.code == 0, "%s", o.err);
        ck_says(&o,
                "the longest samples take 2049 positions, the base was trained on "
                "contexts of 2048",
                cases[i].times);
    }
}
END_TEST

START_TEST(a_file_that_is_trained_on_and_held_out_is_warned_about) {
    const char *folder = folder_with_config("says-shared", NULL);
    icae_error error = {0};
    static const char line[] = "{\"text\": \"the river was slow and the men met there\"}\n";
    static const char *const names[] = {"texts/a.jsonl", "texts/b.jsonl", "texts/c.jsonl",
                                        "other.jsonl"};
    ck_ok(icae_folder_make(test_path(folder, "texts"), &error));
    for (int i = 0; i < 4; i++)
        ck_ok(icae_file_write(test_path(folder, names[i]), line, sizeof line - 1, &error));
    static const struct {
        const char *train, *heldout, *said; /* said: NULL for nothing */
    } cases[] = {
        {"texts/a.jsonl", "texts/a.jsonl", "texts/a.jsonl: also in data.train"},
        {"texts", "texts/b.jsonl", "texts/b.jsonl: also in data.train"},
        {"texts/../texts", "texts/*.jsonl", " and 2 more: also in data.train"},
        {"texts", "other.jsonl", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char arguments[2048];
        snprintf(arguments, sizeof arguments,
                 "-q --dry-run --set data.train=%s/%s --set 'data.heldout=%s/%s'", folder,
                 cases[i].train, folder, cases[i].heldout);
        outcome o = train("pretrain", folder, arguments);
        ck_assert_msg(o.code == 0, "%s", o.err);
        ck_says(&o, "also in data.train", cases[i].said ? 1 : 0);
        if (cases[i].said) ck_says(&o, cases[i].said, 1);
    }
}
END_TEST

SUITE_OF(train_says, 120, what_is_cut_passed_over_or_broken_is_told_and_counted,
         texts_that_pretraining_leaves_out_are_counted_in_its_last_line,
         keys_of_another_objective_are_warned_about_once,
         samples_beyond_the_context_of_the_base_are_warned_about,
         a_file_that_is_trained_on_and_held_out_is_warned_about)
