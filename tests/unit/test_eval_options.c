/* SPDX-License-Identifier: MIT */
/* Which options of `icae eval` mean something to which suite, and what its results and logs have of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/evaluate.h"
#include "icae/file.h"

static icae_error error;

static const char line[] = "{\"text\": \"The ship came in on a Monday, and nobody was at the "
                           "harbour to see it then.\"}\n";

static const char *folder_with_line(const char *name) {
    const char *folder = test_folder(name);
    ck_ok(icae_file_write(test_path(folder, "line.jsonl"), line, sizeof line - 1, &error));
    return folder;
}

START_TEST(a_suite_refuses_what_means_nothing_to_it) {
    const char *folder = folder_with_line("eval-options");
    static const char *const refused[][2] = {
        {"ppl", "refine 5"},      {"ppl", "together"},   {"ppl", "lengths 3,4"},
        {"ppl", "grid 1x2"},      {"ppl", "rate 2"},     {"ppl", "batch 2"},
        {"ppl", "seed 1"},        {"ae", "generate 5"},  {"ae", "window 9"},
        {"ae", "stride 3"},       {"ae", "skip 2"},      {"ae", "continuation 9"},
        {"random", "lengths 20"}, {"lm", "together"},    {"lm", "seed 1"},
        {"qa", "lengths 20"},     {"qa", "grid 1x2"},    {"latency", "refine 2"},
        {"latency", "tokens 9"},  {"latency", "batch 2"}};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const char *suite = refused[i][0];
        bool has_data = strcmp(suite, "latency") != 0;
        outcome r = run_in(folder, "$ICAE eval %s " WITH " %s%s%s --%s", suite,
                           has_data ? "--data " : "", has_data ? folder : "",
                           has_data ? "/line.jsonl" : "", refused[i][1]);
        char expected[80];
        snprintf(expected, sizeof expected, "--%.*s means nothing to suite %s",
                 (int)strcspn(refused[i][1], " "), refused[i][1], suite);
        ck_assert_int_eq(r.code, 2);
        ck_assert_msg(strstr(r.err, expected) != NULL, "%s", r.err);
    }
    outcome r = run_in(folder, "$ICAE eval latency " WITH
                               " --grid 1x8 --generate 2 --data /nonexistent");
    ck_assert_int_eq(r.code, 2);
    ck_assert_ptr_nonnull(strstr(r.err, "--data means nothing to suite latency"));
}
END_TEST

START_TEST(every_recorded_setting_is_an_option_of_some_suite) {
    const icae_eval_settings all = {.lengths = (const int64_t[]){8},
                                    .n_lengths = 1,
                                    .cells = (const int64_t[]){1, 2},
                                    .n_cells = 1};
    static const char *const wanted[][2] = {{"ae", "samples refine together seed lengths"},
                                            {"lm", "samples continuation skip refine lengths"},
                                            {"random", "samples tokens refine together seed"},
                                            {"qa", "samples tokens generate refine"},
                                            {"latency", "samples generate seed grid"},
                                            {"ppl", "samples tokens window stride"}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        const icae_eval_suite *suite = icae_eval_suite_find(wanted[i][0]);
        icae_text text = {0};
        icae_eval_write_settings(&text, suite, &all);
        icae_json *json;
        ck_ok(icae_json_parse(&json, "settings", text.data, text.length, &error));
        char keys[200] = "";
        for (const icae_json_value *v = icae_json_first(icae_json_root(json)); v;
             v = icae_json_next(v)) {
            size_t n = strlen(keys);
            snprintf(keys + n, sizeof keys - n, "%s%s", n ? " " : "", icae_json_key(v));
        }
        ck_assert_str_eq(keys, wanted[i][1]);
        icae_json_free(json);
        icae_text_release(&text);
    }
    ck_assert(!icae_eval_suite_ignores(icae_eval_suite_find("ppl"), "no option"));
}
END_TEST

/* A log as it was written before settings were told apart. */
START_TEST(a_log_begun_with_more_settings_than_the_suite_has_goes_on) {
    const char *folder = folder_with_line("eval-options-log");
    static const char command[] =
        "$ICAE eval ppl --json -m " TINY_BASE " --data %s/line.jsonl --out %s/out %s";
    const icae_json_value *before = parse(run_in(folder, command, folder, folder, ""));
    ck_assert_ptr_null(icae_json_member(icae_json_member(before, "settings"), "seed"));
    char *log;
    ck_ok(icae_file_read(test_path(folder, "out/ppl.jsonl"), 1 << 20, &log, NULL, &error));
    char *at = strstr(log, "\"settings\": {");
    ck_assert_ptr_nonnull(at);
    at += strlen("\"settings\": {");
    char old[4000];
    snprintf(old, sizeof old,
             "%.*s\"refine\": 5, \"together\": 1, \"seed\": 0, \"grid\": [1, 2], %s",
             (int)(at - log), log, at);
    ck_ok(icae_file_write(test_path(folder, "out/ppl.jsonl"), old, strlen(old), &error));
    free(log);
    const icae_json_value *after = parse(run_in(folder, command, folder, folder, ""));
    ck_assert_double_eq(number(after, "loss"), number(before, "loss"));
    outcome other = run_in(folder, command, folder, folder, "--window 12");
    ck_assert_int_eq(other.code, 1);
    ck_assert_ptr_nonnull(strstr(other.err, "another --window"));
}
END_TEST

/* The tiny base's contexts have 2048 tokens. */
START_TEST(texts_beyond_the_context_of_the_base_are_counted) {
    const char *folder = folder_with_line("eval-options-context");
    icae_text text = {0}, question = {0};
    for (int i = 0; i < 2; i++) {
        icae_text_append_string(&text, "{\"text\": \"");
        icae_text_append_string(&question, "{\"input\": \"");
        for (int j = 0; j < (i ? 1 : 1100); j++) {
            icae_text_append_string(&text, "ship on ship ");
            icae_text_append_string(&question, "ship on ship ");
        }
        icae_text_append_string(&text, "\"}\n");
        icae_text_append_string(&question, "\", \"prompt\": \"What?\", \"answer\": \"On.\"}\n");
    }
    ck_ok(icae_file_write(test_path(folder, "t.jsonl"), text.data, text.length, &error));
    ck_ok(
        icae_file_write(test_path(folder, "q.jsonl"), question.data, question.length, &error));
    icae_text_release(&text);
    icae_text_release(&question);
    static const char *const cases[][3] = {
        {"lm --tokens 2030 --continuation 20", "t.jsonl", "1 of 1 texts"},
        {"lm --tokens 30 --continuation 20", "t.jsonl", NULL},
        {"qa --generate 1 --batch 1", "q.jsonl", "1 of 2 texts"},
        {"qa --generate 1 --tokens 100", "q.jsonl", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        outcome r = run_in(folder, "$ICAE eval %s " WITH " --data %s/%s", cases[i][0], folder,
                           cases[i][1]);
        ck_assert_msg(r.code == 0, "%s", r.err);
        const char *warned = strstr(r.err, "longer than the contexts of 2048");
        ck_assert_msg(!warned == !cases[i][2], "%s", r.err);
        if (warned) ck_assert_msg(strstr(r.err, cases[i][2]) != NULL, "%s", r.err);
    }
    outcome wide = run_in(
        folder, "$ICAE eval ppl -m " TINY_BASE " --data %s/t.jsonl --window 2049", folder);
    ck_assert_int_eq(wide.code, 1);
    ck_assert_ptr_nonnull(strstr(wide.err, "contexts of 2048"));
}
END_TEST

/* Seven tokens: enough for a bucket of 1 + 5, too few for a sample. */
START_TEST(a_bucket_takes_no_more_tokens_than_the_text_has) {
    const char *folder = test_folder("eval-options-bucket");
    static const char seven[] = "{\"text\": \"zqxjkvw\"}\n";
    ck_ok(icae_file_write(test_path(folder, "t.jsonl"), seven, sizeof seven - 1, &error));
    const icae_json_value *ppl = parse(
        run_in(folder, "$ICAE eval ppl --json -m " TINY_BASE " --data %s/t.jsonl", folder));
    ck_assert_double_eq(number(ppl, "tokens"), 6); /* each but the first */
    outcome r = run_in(folder, "$ICAE eval ae " WITH " --data %s/t.jsonl --lengths 1", folder);
    ck_assert_int_eq(r.code, 1);
    ck_assert_ptr_nonnull(strstr(r.err, "no text is long enough for \"1\""));
}
END_TEST

START_TEST(inputs_alike_up_to_a_zero_are_two_texts) {
    const char *folder = test_folder("eval-options-zero");
    static const char rows[] =
        "{\"input\": \"ship\\u0000 on\", \"prompt\": \"What?\", \"answer\": \"On.\"}\n"
        "{\"input\": \"ship\\u0000 at the harbour\", \"prompt\": \"What?\", \"answer\": "
        "\"On.\"}\n";
    ck_ok(icae_file_write(test_path(folder, "q.jsonl"), rows, sizeof rows - 1, &error));
    static const char command[] =
        "$ICAE eval qa --json --generate 1 " WITH " --data %s/q.jsonl --samples %d";
    double one = number(parse(run_in(folder, command, folder, 1)), "context_tokens");
    double both = number(parse(run_in(folder, command, folder, 2)), "context_tokens");
    ck_assert_double_gt(both, 2 * one); /* the second is the longer */
}
END_TEST

START_TEST(blank_rows_are_counted_as_passed_over) {
    const char *folder = test_folder("eval-options-blank");
    static const char rows[] =
        "{\"input\": \"The ship\", \"prompt\": \"What?\", \"answer\": \"On.\"}\n"
        "{\"input\": \"The ship\", \"prompt\": \"\", \"answer\": \"On.\"}\n"
        "{\"input\": \" \", \"prompt\": \"What?\", \"answer\": \"On.\"}\n";
    static const char texts[] = "{\"text\": \"\"}\n{\"text\": \"a\"}\n";
    ck_ok(icae_file_write(test_path(folder, "q.jsonl"), rows, sizeof rows - 1, &error));
    icae_text lines = {0};
    icae_text_printf(&lines, "%s%s", texts, line);
    ck_ok(icae_file_write(test_path(folder, "t.jsonl"), lines.data, lines.length, &error));
    icae_text_release(&lines);
    outcome r = run_in(folder, "$ICAE eval qa --generate 1 " WITH " --data %s/q.jsonl", folder);
    ck_assert_msg(r.code == 0 && strstr(r.err, "2 questions of") != NULL, "%s", r.err);
    r = run_in(folder,
               "$ICAE eval lm --continuation 4 --skip 1 --tokens 8 " WITH " --data %s/t.jsonl",
               folder);
    ck_assert_msg(r.code == 0 && strstr(r.err, "2 texts of") != NULL, "%s", r.err);
}
END_TEST

SUITE_OF(eval_options, 120, a_suite_refuses_what_means_nothing_to_it,
         every_recorded_setting_is_an_option_of_some_suite,
         a_log_begun_with_more_settings_than_the_suite_has_goes_on,
         texts_beyond_the_context_of_the_base_are_counted,
         a_bucket_takes_no_more_tokens_than_the_text_has,
         inputs_alike_up_to_a_zero_are_two_texts, blank_rows_are_counted_as_passed_over)
