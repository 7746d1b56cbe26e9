/* SPDX-License-Identifier: MIT */
/* `icae eval` on the tiny golden model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/file.h"

static icae_error error;

/* Five lines, the third without enough text. */
static const char *folder_with_lines(const char *name) {
    const char *folder = test_folder(name);
    icae_text lines = {0};
    for (int i = 0; i < 5; i++) {
        if (i == 2) {
            icae_text_append_string(&lines, "{\"text\": \"a\"}\n");
            continue;
        }
        icae_text_append_string(&lines, "{\"text\": \"");
        for (int j = 0; j < 10 + i; j++)
            icae_text_printf(&lines, "The %dth ship came in %d. ", j * i, i + j);
        icae_text_append_string(&lines, "\"}\n");
    }
    ck_ok(icae_file_write(test_path(folder, "lines.jsonl"), lines.data, lines.length, &error));
    icae_text_release(&lines);
    return folder;
}

START_TEST(evaluates_autoencoding_alike_in_every_batch) {
    const char *folder = folder_with_lines("cli-eval-ae");
    static const char *const keys[] = {"n", "loss", "bleu4", "prefix_em", "token_accuracy"};
    const icae_json_value *one = parse(run_in(
        folder, "$ICAE eval ae --json " WITH " --data %s/lines.jsonl --batch 1 --out %s/out",
        folder, folder));
    const icae_json_value *three = parse(run_in(
        folder, "$ICAE eval ae --json " WITH " --data %s/lines.jsonl --batch 3", folder));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        ck_assert_double_eq(number(one, keys[i]), number(three, keys[i]));
    ck_assert_double_eq(number(one, "n"), 4);
    ck_assert_double_eq(number(one, "context_tokens"), 4 * 32);
    ck_assert_double_eq(number(one, "targets"), 4 * 33);
    ck_assert_double_gt(number(one, "loss"), 1);
    icae_json *written;
    ck_ok(icae_json_open(&written, test_path(folder, "out/results.json"), &error));
    ck_assert_double_eq(number(icae_json_root(written), "loss"), number(one, "loss"));
    icae_json_free(written);
    char *kept;
    ck_ok(icae_file_read(test_path(folder, "out/ae.jsonl"), 1 << 20, &kept, NULL, &error));
    int lines = 0;
    for (const char *c = kept; *c; c++)
        lines += *c == '\n';
    ck_assert_int_eq(lines, 5); /* the first says what they are of */
    free(kept);
    static const char *const files[] = {"out/results.md", "out/ae.csv", "out/report.html"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        ck_ok(icae_file_read(test_path(folder, files[i]), 1 << 20, &kept, NULL, &error));
        ck_assert_msg(strstr(kept, "--batch 1") != NULL, "%s does not name the command",
                      files[i]);
        free(kept);
    }
    /* Again: nothing is measured, the same comes out. With other options: refused. */
    const icae_json_value *again = parse(run_in(
        folder, "$ICAE eval ae --json " WITH " --data %s/lines.jsonl --batch 2 --out %s/out",
        folder, folder));
    ck_assert_double_eq(number(again, "bleu4"), number(one, "bleu4"));
    outcome other =
        run_in(folder, "$ICAE eval ae " WITH " --data %s/lines.jsonl --tokens 20 --out %s/out",
               folder, folder);
    ck_assert_int_eq(other.code, 1);
    ck_assert_ptr_nonnull(strstr(other.err, "another --tokens"));
}
END_TEST

START_TEST(evaluates_continuation_three_ways) {
    const char *folder = folder_with_lines("cli-eval-lm");
    const icae_json_value *r = parse(
        run_in(folder, "$ICAE eval lm --json " WITH " --data %s/lines.jsonl --continuation 40",
               folder));
    ck_assert_double_eq(number(r, "n"), 4);
    ck_assert_double_eq(number(r, "targets"), 4 * 32);
    ck_assert_double_eq_tol(number(r, "ppl"), exp(number(r, "loss")), 1e-6 * number(r, "ppl"));
    ck_assert_double_ne(number(r, "loss"), number(r, "loss_raw"));
    ck_assert_double_ne(number(r, "loss_raw"), number(r, "loss_none"));
}
END_TEST

START_TEST(evaluates_by_length_and_by_content) {
    const char *folder = folder_with_lines("cli-eval-lengths");
    const icae_json_value *ae = parse(
        run_in(folder, "$ICAE eval ae --json " WITH " --data %s/lines.jsonl --lengths 20,40,60",
               folder));
    static const char *const lengths[] = {"20", "40", "60"};
    int at = 0;
    for (const icae_json_value *line = icae_json_first(icae_json_member(ae, "lines")); line;
         line = icae_json_next(line), at++) {
        ck_assert_str_eq(icae_json_as_string(icae_json_member(line, "group")), lengths[at]);
        double mean = number(line, "context_tokens") / number(line, "n");
        ck_assert_double_le(fabs(mean - 20 * (at + 1)), 5);
    }
    ck_assert_int_eq(at, 3);
    const icae_json_value *random = parse(
        run_in(folder, "$ICAE eval random --json " WITH " --data %s/lines.jsonl", folder));
    const icae_json_value *normal = icae_json_first(icae_json_member(random, "lines"));
    const icae_json_value *plain =
        parse(run_in(folder, "$ICAE eval ae --json " WITH " --data %s/lines.jsonl", folder));
    ck_assert_double_eq(number(normal, "loss"), number(plain, "loss"));
    ck_assert_double_ne(number(icae_json_next(normal), "loss"), number(normal, "loss"));
    ck_assert_ptr_null(
        icae_json_member(random, "loss")); /* no mean of three kinds of content */
}
END_TEST

START_TEST(continuations_are_the_same_behind_every_length) {
    const char *folder = folder_with_lines("cli-eval-lm-lengths");
    const icae_json_value *r =
        parse(run_in(folder,
                     "$ICAE eval lm --json " WITH
                     " --data %s/lines.jsonl --continuation 40 --lengths 10,20,30",
                     folder));
    const icae_json_value *line = icae_json_first(icae_json_member(r, "lines"));
    double none = number(line, "loss_none");
    for (int n = 10; line; line = icae_json_next(line), n += 10) {
        ck_assert_double_eq(number(line, "loss_none"), none);
        ck_assert_double_eq(number(line, "context_tokens"), 4 * n);
    }
}
END_TEST

START_TEST(evaluates_questions_latency_and_all) {
    const char *folder = folder_with_lines("cli-eval-all");
    const char questions[] =
        "{\"input\": \"The ship came in 1912.\", \"prompt\": \"When?\", \"answer\": \"In "
        "1912.\"}\n"
        "{\"input\": \"The ship came in 1912.\", \"prompt\": \"What?\", \"answer\": \"A "
        "ship.\"}\n"
        "{\"input\": \"Nobody was there.\", \"prompt\": \"Who?\", \"answer\": \"Nobody.\"}\n";
    ck_ok(
        icae_file_write(test_path(folder, "q.jsonl"), questions, sizeof questions - 1, &error));
    outcome all =
        run_in(folder,
               "$ICAE eval all --json " WITH " --data %s/lines.jsonl --questions "
               "%s/q.jsonl --tokens 20 --samples 3 --generate 6 --grid 2x20,1x40 --out %s/out",
               folder, folder, folder);
    const icae_json_value *suites = icae_json_member(parse(all), "suites");
    static const char *const names[] = {"ae", "lm", "random", "qa", "latency", "ppl"};
    size_t at = 0;
    for (const icae_json_value *s = icae_json_first(suites); s; s = icae_json_next(s), at++) {
        ck_assert_str_eq(icae_json_as_string(icae_json_member(s, "suite")), names[at]);
        if (strcmp(names[at], "qa") == 0) {
            ck_assert_double_eq(number(s, "n"), 3);
            ck_assert_double_eq_tol(number(s, "win") + number(s, "lose") + number(s, "tie"),
                                    100, 1e-9);
        }
        if (strcmp(names[at], "latency") == 0) {
            const icae_json_value *cell = icae_json_first(icae_json_member(s, "lines"));
            ck_assert_double_eq(number(cell, "batch"), 2);
            ck_assert_double_eq(number(icae_json_next(cell), "tokens"), 40);
            ck_assert_double_gt(number(cell, "kv_ratio"), 0);
        }
    }
    ck_assert_uint_eq(at, 6);
    outcome text =
        run_in(folder, "$ICAE eval qa " WITH " --data %s/q.jsonl --generate 4", folder);
    ck_assert_int_eq(text.code, 0);
    ck_assert_ptr_nonnull(strstr(text.out, "share of the gap recovered"));
}
END_TEST

/* Mistral's template begins with <s>, and so does a context of its released weights: the base reads one of them, as
 * behind an adapter whose contexts have none. */
START_TEST(a_text_in_a_template_begins_once) {
    const char *folder = test_folder("cli-eval-begin");
    outcome made = run_in(
        folder,
        "cd %s && printf '{\"input\": \"The river was low.\", \"prompt\": \"Was it?\", "
        "\"answer\": \"Yes.\"}\n' >q.jsonl && cd - >/dev/null && $ICAE convert -q -m "
        "tests/golden/mistral/model tests/golden/released/v2.safetensors %s/with && cp -r "
        "%s/with %s/without && sed -i -e 's/\"context_bos\": true/\"context_bos\": false/' -e "
        "'/\"files\"/s/,$//' -e '/\"checksum\"/d' %s/without/icae.json",
        folder, folder, folder, folder, folder);
    must(made);
    const icae_json_value *results[2];
    static const char *const adapters[] = {"with", "without"};
    for (int i = 0; i < 2; i++) {
        results[i] = parse(run_in(folder,
                                  "$ICAE eval qa --json -m tests/golden/mistral/model -a %s/%s "
                                  "--data %s/q.jsonl --generate 4",
                                  folder, adapters[i], folder));
    }
    ck_assert_double_eq(number(results[0], "context_tokens"),
                        number(results[1], "context_tokens") + 1);
    ck_assert_double_ne(number(results[0], "loss"), number(results[1], "loss"));
    ck_assert_double_eq(number(results[0], "loss_raw"), number(results[1], "loss_raw"));
}
END_TEST

START_TEST(data_of_another_suite_are_named_as_such) {
    const char *folder = folder_with_lines("cli-eval-other");
    static const char question[] = "{\"input\": \"a\", \"prompt\": \"b\", \"answer\": \"c\"}\n";
    ck_ok(icae_file_write(test_path(folder, "q.jsonl"), question, sizeof question - 1, &error));
    static const char *const wrong[][2] = {{"ae", "q.jsonl"}, {"qa", "lines.jsonl"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        outcome r = run_in(folder, "$ICAE eval %s " WITH " --data %s/%s", wrong[i][0], folder,
                           wrong[i][1]);
        ck_assert_int_eq(r.code, 1);
        ck_assert_msg(strstr(r.err, "\"qa\" reads \"input\"") && !strstr(r.err, "settings"),
                      "%s", r.err);
    }
}
END_TEST

#define PPL "$ICAE eval ppl --json -m " TINY_BASE " --data %s/lines.jsonl %s"

START_TEST(perplexity_scores_every_token_but_the_first_once) {
    const char *folder = folder_with_lines("cli-eval-ppl");
    const icae_json_value *whole = parse(run_in(folder, PPL, folder, ""));
    const icae_json_value *windows =
        parse(run_in(folder, PPL, folder, "--window 64 --stride 16"));
    const icae_json_value *halves = parse(run_in(folder, PPL, folder, "--window 2 --stride 1"));
    ck_assert_double_gt(number(whole, "tokens"), 200);
    ck_assert_double_eq(number(whole, "tokens"), number(windows, "tokens"));
    ck_assert_double_eq(number(whole, "tokens"), number(halves, "tokens"));
    ck_assert_double_eq_tol(number(whole, "ppl"), exp(number(whole, "loss")),
                            1e-6 * number(whole, "ppl"));
    ck_assert_double_ne(number(whole, "loss"), number(halves, "loss"));
}
END_TEST

START_TEST(plain_text_is_cut_into_pieces) {
    const char *folder = folder_with_slots("cli-eval-text");
    const icae_json_value *r = parse(
        run_in(folder, "$ICAE eval ae --json " WITH " --data %s/text.txt --tokens 16", folder));
    ck_assert_double_ge(number(r, "n"), 3);
    ck_assert_double_le(number(r, "context_tokens"), number(r, "n") * 16);
}
END_TEST

SUITE_OF(cli_eval, 240, evaluates_autoencoding_alike_in_every_batch,
         evaluates_continuation_three_ways, evaluates_by_length_and_by_content,
         continuations_are_the_same_behind_every_length, evaluates_questions_latency_and_all,
         a_text_in_a_template_begins_once, data_of_another_suite_are_named_as_such,
         perplexity_scores_every_token_but_the_first_once, plain_text_is_cut_into_pieces)
