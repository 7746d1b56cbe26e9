/* SPDX-License-Identifier: MIT */
/* The built `icae`, command by command, on the tiny golden model. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "icae/file.h"
#include "icae/json.h"
#include "train_support.h"

#define WITH "-m " TINY_BASE " -a " TINY_ADAPTER

static icae_error error;

static const char passage[] = "It was a bright cold day in April, and the clocks were striking "
                              "thirteen. Nobody had looked at them since morning.";

/* A folder with text.txt, and text.slots made from it. */
static const char *folder_with_slots(const char *name) {
    const char *folder = test_folder(name);
    ck_ok(icae_file_write(test_path(folder, "text.txt"), passage, strlen(passage), &error));
    outcome made = run_in(folder, "$ICAE compress " WITH " %s/text.txt", folder);
    ck_assert_msg(made.code == 0, "compress: %s", made.err);
    return folder;
}

/* The document lives until the test's process ends. */
static const icae_json_value *parse(outcome result) {
    enum { MOST = 64 };
    static icae_json *kept[MOST];
    static int n_kept;
    icae_json *json;
    ck_assert_msg(result.code == 0, "exit code %d: %s", result.code, result.err);
    ck_ok(icae_json_parse(&json, "standard output", result.out, strlen(result.out), &error));
    ck_assert(icae_json_is_object(icae_json_root(json)));
    ck_assert_int_lt(n_kept, MOST);
    kept[n_kept] = json;
    return icae_json_root(kept[n_kept++]);
}

static double number(const icae_json_value *object, const char *key) {
    double value = (double)NAN;
    ck_assert_msg(icae_json_as_number(icae_json_member(object, key), &value),
                  "\"%s\" is missing", key);
    return value;
}

static const char *string(const icae_json_value *object, const char *key) {
    const char *value = icae_json_as_string(icae_json_member(object, key));
    ck_assert_msg(value != NULL, "\"%s\" is missing", key);
    return value;
}

/* ---- what each command is for ---- */

START_TEST(compresses_a_file_and_says_what_it_weighs) {
    const char *folder = folder_with_slots("cli-compress");
    ck_assert_int_gt(icae_file_bytes(test_path(folder, "text.slots")), 0);
    const icae_json_value *r = parse(run_in(
        folder, "$ICAE compress --json " WITH " -o %s/b.slots %s/text.txt", folder, folder));
    double tokens = number(r, "tokens"), slots = number(r, "slots");
    ck_assert_double_eq(number(r, "text_bytes"), (double)strlen(passage));
    ck_assert_double_eq(slots, 8 * ceil(tokens / 32));
    ck_assert_double_eq(number(r, "width"), 64);
    ck_assert_double_eq(number(r, "slot_bytes"), slots * 64 * 4);
    ck_assert_double_eq(number(r, "file_bytes"),
                        (double)icae_file_bytes(test_path(folder, "b.slots")));
    /* keys and values, 3 layers, 2 heads of 16, 2 bytes */
    ck_assert_double_eq(number(r, "kv_cache_bytes"), tokens * 2 * 3 * 2 * 16 * 2);
}
END_TEST

START_TEST(restores_the_same_text_every_time) {
    const char *folder = folder_with_slots("cli-reconstruct");
    outcome a = run_in(folder, "$ICAE reconstruct " WITH " %s/text.slots", folder);
    outcome b = run_in(folder, "$ICAE reconstruct -q " WITH " -t 1 %s/text.slots", folder);
    ck_assert_int_eq(a.code, 0);
    ck_assert_uint_gt(strlen(a.out), 0);
    ck_assert_str_eq(a.out, b.out);
    const icae_json_value *r =
        parse(run_in(folder, "$ICAE reconstruct --json " WITH " %s/text.slots", folder));
    ck_assert_str_eq(string(r, "text"), a.out);
}
END_TEST

START_TEST(continues_for_as_many_tokens_as_asked) {
    const char *folder = folder_with_slots("cli-continue");
    const icae_json_value *r =
        parse(run_in(folder, "$ICAE continue --json " WITH " %s/text.slots -n 7", folder));
    bool is_complete;
    ck_assert(icae_json_as_bool(icae_json_member(r, "complete"), &is_complete));
    ck_assert(is_complete ? number(r, "generated_tokens") < 7
                          : number(r, "generated_tokens") == 7);
    /* 8 slots for each span, and the task token */
    ck_assert_double_eq(fmod(number(r, "prompt_tokens"), 8), 1);
}
END_TEST

START_TEST(samples_by_seed) {
    const char *folder = folder_with_slots("cli-sampling");
    const char *common = WITH " -n 20 --temperature 1.5 --top-k 50 --top-p 0.99";
    outcome a = run_in(folder, "$ICAE continue %s --seed 1 %s/text.slots", common, folder);
    outcome b = run_in(folder, "$ICAE continue %s --seed 1 %s/text.slots", common, folder);
    outcome c = run_in(folder, "$ICAE continue %s --seed=2 %s/text.slots", common, folder);
    ck_assert_int_eq(a.code, 0);
    ck_assert_str_eq(a.out, b.out);
    ck_assert_str_ne(a.out, c.out);
}
END_TEST

#define ASK_BOTH "$ICAE ask --json " WITH " -n 24 %s/%s.slots %s/%s.slots 'What is said?'"

START_TEST(asks_about_several_texts_in_their_order) {
    const char *folder = folder_with_slots("cli-ask");
    static const char other[] = "Ships sail.";
    ck_ok(icae_file_write(test_path(folder, "other.txt"), other, strlen(other), &error));
    ck_assert_int_eq(run_in(folder, "$ICAE compress " WITH " %s/other.txt", folder).code, 0);
    const icae_json_value *a = parse(run_in(folder, ASK_BOTH, folder, "text", folder, "other"));
    const icae_json_value *b = parse(run_in(folder, ASK_BOTH, folder, "other", folder, "text"));
    ck_assert_double_eq(number(a, "source_tokens"), number(b, "source_tokens"));
    ck_assert_str_ne(string(a, "text"), string(b, "text"));
    outcome piped =
        run_in(folder,
               "echo 'What is said?' | $ICAE ask " WITH " -n 24 %s/text.slots %s/other.slots -",
               folder, folder);
    ck_assert_int_eq(piped.code, 0);
    ck_assert_int_eq(strncmp(piped.out, string(a, "text"), strlen(string(a, "text"))), 0);
}
END_TEST

START_TEST(chats_with_the_dialogue_in_the_prompt) {
    const char *folder = folder_with_slots("cli-chat");
    const icae_json_value *turns = icae_json_member(
        parse(run_in(folder,
                     "printf 'Hello\\n\\nAnd then?\\n' | $ICAE chat --json " WITH
                     " -n 6 %s/text.slots",
                     folder)),
        "turns");
    ck_assert_uint_eq(icae_json_count(turns), 2); /* the empty line is no turn */
    const icae_json_value *first = icae_json_first(turns), *second = icae_json_next(first);
    ck_assert_str_eq(string(first, "question"), "Hello");
    ck_assert_double_gt(number(second, "prompt_tokens"), number(first, "prompt_tokens") + 6);
    const icae_json_value *asked =
        parse(run_in(folder, "$ICAE ask --json " WITH " -n 6 %s/text.slots Hello", folder));
    ck_assert_str_eq(string(first, "text"), string(asked, "text"));
}
END_TEST

START_TEST(streams_an_answer_before_its_input_ends) {
    const char *folder = folder_with_slots("cli-stream");
    const char *program = test_path(test_build_folder(), "icae");
    const char *slots = test_path(folder, "text.slots");
    talk t = talk_begin((const char *const[]){program, "chat", "-q", "-m", TINY_BASE, "-a",
                                              TINY_ADAPTER, "-n", "9", slots, NULL});
    ck_assert_int_eq(write(t.to, "Hello\n", 6), 6);
    char c;
    ck_assert_int_eq(read(t.from, &c, 1), 1); /* the program still waits for the next line */
    ck_assert_int_eq(talk_end(&t), 0);
}
END_TEST

/* It starts itself again with other waits between threads, and ps must not notice. */
START_TEST(keeps_its_name_in_the_list_of_processes) {
    const char *folder = folder_with_slots("cli-name");
    const char *program = test_path(test_build_folder(), "icae");
    const char *slots = test_path(folder, "text.slots");
    unsetenv("GOMP_SPINCOUNT");
    unsetenv("OMP_WAIT_POLICY");
    talk t = talk_begin((const char *const[]){program, "chat", "-q", "-m", TINY_BASE, "-a",
                                              TINY_ADAPTER, "-n", "9", slots, NULL});
    ck_assert_int_eq(write(t.to, "Hello\n", 6), 6);
    char c, path[64], name[64] = "";
    ck_assert_int_eq(read(t.from, &c, 1), 1);
    snprintf(path, sizeof path, "/proc/%d/comm", (int)t.pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_ptr_nonnull(fgets(name, sizeof name, file));
    fclose(file);
    ck_assert_str_eq(name, "icae\n");
    ck_assert_int_eq(talk_end(&t), 0);
}
END_TEST

START_TEST(answers_signals_with_their_exit_codes) {
    const char *folder = folder_with_slots("cli-signal");
    const char *program = test_path(test_build_folder(), "icae");
    const char *slots = test_path(folder, "text.slots");
    static const int signals[] = {SIGINT, SIGTERM}, codes[] = {130, 143};
    for (int i = 0; i < 2; i++) {
        talk t = talk_begin((const char *const[]){program, "chat", "-q", "-m", TINY_BASE, "-a",
                                                  TINY_ADAPTER, "-n", "9", slots, NULL});
        ck_assert_int_eq(write(t.to, "Hello\n", 6), 6);
        char c;
        ck_assert_int_eq(read(t.from, &c, 1), 1);
        kill(t.pid, signals[i]);
        ck_assert_int_eq(talk_end(&t), codes[i]);
    }
}
END_TEST

START_TEST(takes_text_from_standard_input) {
    const char *folder = test_folder("cli-stdin");
    outcome r =
        run_in(folder, "echo 'Some words to keep.' | $ICAE compress " WITH " -o %s/in.slots -",
               folder);
    ck_assert_msg(r.code == 0, "%s", r.err);
    ck_assert_int_gt(icae_file_bytes(test_path(folder, "in.slots")), 0);
}
END_TEST

START_TEST(environment_stands_in_for_base_and_adapter) {
    const char *folder = folder_with_slots("cli-environment");
    outcome a = run_in(folder, "$ICAE reconstruct " WITH " %s/text.slots", folder);
    outcome b = run_in(folder,
                       "ICAE_BASE=" TINY_BASE " ICAE_ADAPTER=" TINY_ADAPTER
                       " $ICAE reconstruct %s/text.slots",
                       folder);
    ck_assert_int_eq(b.code, 0);
    ck_assert_str_eq(a.out, b.out);
}
END_TEST

START_TEST(reports_what_slots_hold) {
    const char *folder = folder_with_slots("cli-report");
    const icae_json_value *r = parse(run_in(
        folder, "$ICAE compress --json " WITH " -o %s/r.slots --report %s/r.html %s/text.txt",
        folder, folder, folder));
    double kept = number(r, "tokens_kept");
    ck_assert(kept >= number(r, "tokens_in_place") && kept < 1);
    ck_assert_double_gt(number(r, "ppl_from_slots"), 1);
    char *page;
    ck_ok(icae_file_read(test_path(folder, "r.html"), 1 << 22, &page, NULL, &error));
    ck_assert_ptr_nonnull(strstr(page, "<del>"));
    free(page);
    outcome same =
        run_in(folder, "$ICAE compress " WITH " -o %s/r.slots --report %s/r.slots %s/text.txt",
               folder, folder, folder);
    ck_assert_int_eq(same.code, 1);
    ck_assert_ptr_nonnull(strstr(same.err, "two names"));
}
END_TEST

START_TEST(keeps_as_text_what_slots_would_lose) {
    const char *folder = test_folder("cli-min-fidelity");
    const char text[] = "The ship <Anna> came to Malm\xC3\xB6 in 1912 & left. Nobody saw it in "
                        "May, for 3.50 a ton; "
                        "nobody else did, and the captain Olaf never came back to tell.";
    ck_ok(icae_file_write(test_path(folder, "t.txt"), text, sizeof text - 1, &error));
    const icae_json_value *r = parse(run_in(folder,
                                            "$ICAE compress --json " WITH
                                            " --min-fidelity 0.05 --report %s/t.html %s/t.txt",
                                            folder, folder));
    ck_assert_double_gt(number(r, "raw_tokens"), 0);
    ck_assert_double_gt(number(r, "slots"), 0);
    const icae_json_value *seen =
        parse(run_in(folder, "$ICAE inspect --json " WITH " %s/t.slots", folder));
    ck_assert_double_eq(number(seen, "raw_tokens"), number(r, "raw_tokens"));
    static const char *const uses[][2] = {
        {"reconstruct", ""}, {"continue", ""}, {"ask", "Who?"}};
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        const icae_json_value *made =
            parse(run_in(folder, "$ICAE %s -n 3 --json " WITH " %s/t.slots %s", uses[i][0],
                         folder, uses[i][1]));
        ck_assert_double_ge(number(made, "prompt_tokens"),
                            number(r, "slots") + number(r, "raw_tokens"));
    }
    outcome none =
        run_in(folder, "$ICAE compress " WITH " -o %s/n.slots --min-fidelity 1 %s/t.txt",
               folder, folder);
    ck_assert_int_eq(none.code, 1);
    ck_assert_ptr_nonnull(strstr(none.err, "better kept as it is"));
    ck_assert(!icae_path_exists(test_path(folder, "n.slots")));
    outcome moved =
        run_in(folder, "$ICAE convert " WITH " %s/t.slots %s/t.safetensors", folder, folder);
    ck_assert_int_eq(moved.code, 1);
    ck_assert_ptr_nonnull(strstr(moved.err, "kept as text"));
}
END_TEST

/* ---- eval ---- */

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

/* ---- inspect, selftest ---- */

START_TEST(says_what_a_thing_is) {
    const char *folder = folder_with_slots("cli-inspect");
    char slots[700];
    snprintf(slots, sizeof slots, "%s/text.slots", folder);
    const struct {
        const char *path, *kind;
    } things[] = {
        {TINY_BASE, "base model"},
        {TINY_ADAPTER, "adapter"},
        {"tests/golden/llama", "golden"},
        {"tests/golden/llama/expected.safetensors", "safetensors"},
        {"tests/golden/released/v1.pt", "as its authors released it, v1"},
        {"tests/golden/released/v2.safetensors", "as its authors released it, v2"},
        {"tests/fuzz/seeds/torch_file/small.pt", "PyTorch file"},
        {slots, "slots"},
    };
    for (size_t i = 0; i < sizeof things / sizeof things[0]; i++) {
        outcome r = run_in(folder, "$ICAE inspect %s", things[i].path);
        ck_assert_msg(r.code == 0 && strstr(r.out, things[i].kind), "%s: %s %s", things[i].path,
                      r.out, r.err);
        const icae_json_value *json =
            parse(run_in(folder, "$ICAE inspect --json %s", things[i].path));
        ck_assert_ptr_nonnull(strstr(string(json, "kind"), things[i].kind));
    }
    const icae_json_value *base = parse(run_in(folder, "$ICAE inspect --json " TINY_BASE));
    ck_assert_str_eq(string(base, "chat_template"), "none");
    outcome fits = run_in(folder, "$ICAE inspect " WITH " %s/text.slots", folder);
    ck_assert_msg(fits.code == 0 && strstr(fits.out, "fits"), "%s", fits.err);
    const icae_json_value *v1 =
        parse(run_in(folder, "$ICAE inspect --json -m tests/golden/llama2/model "
                             "tests/golden/released/v1.pt"));
    ck_assert_double_eq(number(v1, "memory_slots"), 8);
    ck_assert_double_eq(number(v1, "placeholders"), 23);
    ck_assert_str_eq(string(v1, "targets"), "q_proj [64, 64], v_proj [64, 64]");
    ck_assert_str_eq(string(v1, "fits"), "tests/golden/llama2/model");
    outcome other =
        run_in(folder, "$ICAE inspect -m " TINY_BASE " tests/golden/released/v1.pt");
    ck_assert_msg(other.code == 1 && strstr(other.err, "pass the base that it was trained on"),
                  "%s", other.err);
    outcome broken = run_in(folder,
                            "head -c 9000 tests/golden/released/v1.pt >%s/x.pt; "
                            "$ICAE inspect %s/x.pt",
                            folder, folder);
    ck_assert_msg(broken.code == 1 && strstr(broken.err, "fetch it again"), "%s", broken.err);
}
END_TEST

START_TEST(says_how_far_a_run_is_and_what_is_damaged) {
    const char *folder = test_folder("cli-inspect-run");
    icae_text text = {0};
    icae_text_printf(&text,
                     "{\"base\": \"" TINY_BASE "\", \"out\": \"%s/run\", \"data\": "
                     "{\"train\": [\"%s/text.txt\"]}, \"adapter\": {\"memory_slots\": 8, "
                     "\"rank\": 2, \"chat_template\": \"chatml\"}, \"objective\": "
                     "{\"least_context\": 8}, \"train\": "
                     "{\"steps\": 2, \"batch\": 1, \"warmup_steps\": 0, \"threads\": 1}, "
                     "\"checkpoint\": {\"every\": 1, \"keep\": 2}}",
                     folder, folder);
    ck_ok(icae_file_write(test_path(folder, "config.json"), text.data, text.length, &error));
    icae_text_release(&text);
    ck_ok(icae_file_write(test_path(folder, "text.txt"), passage, strlen(passage), &error));
    outcome trained =
        run_in(folder, "%s/icae-pretrain %s/config.json", test_build_folder(), folder);
    ck_assert_msg(trained.code == 0, "%s", trained.err);
    const icae_json_value *run = parse(run_in(folder, "$ICAE inspect --json %s/run", folder));
    ck_assert_str_eq(string(run, "checkpoints"), "step-1 step-2");
    ck_assert_double_eq(number(run, "damaged_checkpoints"), 0);
    ck_assert_double_eq(number(icae_json_member(run, "last"), "step"), 2);
    const char *inspect_step = "run/checkpoints/step-1";
    const icae_json_value *step =
        parse(run_in(folder, "$ICAE inspect --json %s/%s", folder, inspect_step));
    ck_assert_double_eq(number(step, "step"), 1);
    outcome damaged = run_in(folder, "printf x >>%s/%s/state.json && $ICAE inspect %s/%s",
                             folder, inspect_step, folder, inspect_step);
    ck_assert_int_eq(damaged.code, 1);
    ck_assert_ptr_nonnull(strstr(damaged.err, "state.json"));
    run = parse(run_in(folder, "$ICAE inspect --json %s/run", folder));
    ck_assert_double_eq(number(run, "damaged_checkpoints"), 1);
    const icae_json_value *adapter =
        parse(run_in(folder, "$ICAE inspect --json %s/run/adapter", folder));
    ck_assert_str_eq(string(adapter, "chat_template"), "chatml");
    ck_assert_str_eq(string(adapter, "chat_end"), "<|im_end|>");
    outcome lacks = run_in(folder,
                           "%s/icae-pretrain %s/config.json --set out=%s/other "
                           "--set adapter.chat_template=llama3",
                           test_build_folder(), folder, folder);
    ck_assert_int_eq(lacks.code, 1);
    ck_assert_msg(strstr(lacks.err, "adapter.chat_template: 'llama3' needs the token <|begin"),
                  "%s", lacks.err);
}
END_TEST

START_TEST(times_texts_of_any_lengths) {
    const char *folder = test_folder("cli-bench");
    const icae_json_value *root =
        parse(run_in(folder, "$ICAE bench -q --json -m " TINY_BASE
                             " --steps 1 --lengths 20,70,7 --compute f32"));
    ck_assert_double_eq(number(root, "train_texts"), 3);
    ck_assert_double_eq(number(root, "train_context_tokens"), 97);
    ck_assert_str_eq(string(root, "compute"), "f32");
    double loss = number(root, "train_loss"); /* of an untrained adapter on random tokens */
    ck_assert(loss > 3 && loss < 30);
    ck_assert_double_gt(number(root, "linear_forward_seconds"), 0);
    ck_assert_double_gt(number(root, "attention_backward_seconds"), 0);
    static const char *const wrong[] = {"20,x", "0", "5,", "5,,6", "-3", "9999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        outcome r = run_in(folder, "$ICAE bench -m " TINY_BASE " --lengths '%s'", wrong[i]);
        ck_assert_int_eq(r.code, 1);
        ck_assert_msg(strstr(r.err, "with commas between"), "%s: %s", wrong[i], r.err);
    }
}
END_TEST

START_TEST(a_report_of_the_bench_has_every_table_and_picture) {
    const char *folder = test_folder("cli-report");
    outcome o =
        run_in(folder, "$ICAE bench --quick -q -t 1 -m " TINY_BASE " --compute f32 --out %s/b",
               folder);
    ck_assert_msg(o.code == 0, "%s", o.err);
    char *markdown = slurp(test_path(folder, "b/bench.md"), NULL);
    ck_assert_str_eq(markdown, o.out);
    static const char *const parts[] = {
        "## Ceilings", "## Training", "| linear | f32 |", "## Reading and writing",
        "by length",   "by size",     "by LoRA rank",     "by threads"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        ck_assert_msg(strstr(markdown, parts[i]), "no %s in %s", parts[i], markdown);
    static const char *const pictures[] = {"shares", "length", "batch", "rank", "threads"};
    for (size_t i = 0; i < sizeof pictures / sizeof pictures[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "b/bench-%s.svg", pictures[i]);
        char *svg = slurp(test_path(folder, name), NULL);
        ck_assert_msg(!strncmp(svg, "<svg ", 5) && strstr(svg, "</svg>"), "%s", name);
        free(svg);
    }
    char *json = slurp(test_path(folder, "b/bench.json"), NULL);
    const icae_json_value *root = parse((outcome){.out = json});
    const icae_json_value *type = icae_json_member(root, "f32");
    ck_assert_uint_eq(icae_json_count(icae_json_member(type, "by_length")), 3);
    ck_assert_double_gt(number(type, "linear_forward_seconds"), 0);
    ck_assert_double_gt(number(root, "fma_gflops"), 0);
    ck_assert_double_gt(number(root, "memory_read_gb_s"), 0);
    free(markdown);
    free(json);
}
END_TEST

START_TEST(selftest_fails_by_exit_code_and_line) {
    const char *folder = test_folder("cli-selftest");
    outcome built_in = run_in(folder, "$ICAE selftest -m " TINY_BASE);
    ck_assert_msg(built_in.code == 0, "%s", built_in.out);
    ck_assert_ptr_nonnull(strstr(built_in.out, "round trip"));
    ck_assert_ptr_nonnull(strstr(built_in.out, "40 times the same bits"));
    outcome good = run_in(folder, "$ICAE selftest --golden tests/golden/llama");
    ck_assert_msg(good.code == 0, "%s %s", good.out, good.err);
    outcome broken =
        run_in(folder,
               "cp -r tests/golden/llama %s/llama && sed -i "
               "'s/\"ae_loss\": 1/\"ae_loss\": 2/' %s/llama/expected.json && $ICAE "
               "selftest --golden %s/llama",
               folder, folder, folder);
    ck_assert_int_eq(broken.code, 1);
    ck_assert_ptr_nonnull(strstr(broken.out, "FAIL"));
    ck_assert_ptr_nonnull(strstr(broken.out, "1 failed"));
    const icae_json_value *json =
        parse(run_in(folder, "$ICAE selftest --json --golden tests/golden/llama"));
    ck_assert_double_eq(number(json, "failed"), 0);
    ck_assert_double_eq(number(json, "checks"),
                        (double)icae_json_count(icae_json_member(json, "list")));
}
END_TEST

/* ---- what goes wrong ---- */

START_TEST(wrong_usage_says_the_right_one) {
    const char *folder = test_folder("cli-usage");
    static const struct {
        const char *arguments, *part;
    } cases[] = {
        {"compres x", "there is no command \"compres\""},
        {"compress x", "-m BASE"},
        {"compress -m x y", "-a ADAPTER"},
        {"compress " WITH, "1 more argument"},
        {"compress " WITH " a b", "one argument too many"},
        {"compress " WITH " -", "-o FILE.slots"},
        {"compress " WITH " -n 3 a", "option -n is unknown to this command"},
        {"compress " WITH " -o", "wants a value"},
        {"compress " WITH " --jsn a", "option --jsn is unknown"},
        {"compress " WITH " --json=1 a", "takes no value"},
        {"continue " WITH " -n 0 a", "a whole number from 1"},
        {"continue " WITH " -n 2.5 a", "a whole number from 1"},
        {"continue " WITH " -n 9x a", "a whole number from 1"},
        {"continue " WITH " --top-p 1.5 a", "a number from 0 to 1"},
        {"continue " WITH " --temperature nan a", "a number from 0"},
        {"continue " WITH " -t 0 a", "a whole number from 1"},
        {"continue " WITH " --compute f8 a", "expected f32, bf16 or auto"},
        {"ask " WITH " a.slots", "1 more argument"},
        {"eval nothing " WITH " --data x", "known: ae, lm, random, qa, latency, ppl, all"},
        {"eval ae " WITH " --data x --lengths 10,x", "--lengths 10,x"},
        {"eval latency " WITH " --grid 8x", "--grid 8x"},
        {"eval qa " WITH " --data x --questions y", "belongs to"},
        {"eval ae " WITH, "--data FILE"},
        {"eval ae -m x --data y", "-a ADAPTER"},
        {"bench", "-m BASE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        outcome r = run_in(folder, "$ICAE %s", cases[i].arguments);
        ck_assert_msg(r.code == 2, "icae %s: exit code %d", cases[i].arguments, r.code);
        ck_assert_msg(strstr(r.err, cases[i].part) && strstr(r.err, "usage: icae"),
                      "icae %s: %s", cases[i].arguments, r.err);
        ck_assert_str_eq(r.out, "");
    }
}
END_TEST

START_TEST(bad_input_is_answered_with_a_sentence) {
    const char *folder = folder_with_slots("cli-bad");
    ck_ok(icae_file_write(test_path(folder, "empty.txt"), "", 0, &error));
    const struct {
        const char *arguments, *part;
    } cases[] = {
        {"compress " WITH " %s/none.txt", "none.txt"},
        {"compress " WITH " %s/empty.txt", "empty.txt is empty"},
        {"compress -m %s/none.gguf -a " TINY_ADAPTER " LICENSE", "none.gguf"},
        {"compress -m " TINY_BASE " -a %s/none LICENSE", "none"},
        {"compress " WITH " -o %s/no/such/folder/x.slots LICENSE", "no/such/folder"},
        {"reconstruct " WITH " %s/none.slots", "none.slots"},
        {"reconstruct " WITH " %s/text.txt", "text.txt"},
        {"ask " WITH " %s/text.slots ''", "the prompt is empty"},
        {"eval ae " WITH " --data %s/none.jsonl", "none.jsonl"},
        {"eval ae " WITH " --data %s/empty.txt", "empty.txt"},
        {"eval ppl -m " TINY_BASE " --data %s/text.txt --window 8 --stride 8", "stride"},
        {"inspect %s/none", "no such file or folder"},
        {"inspect %s/empty.txt", "the file is empty"},
        {"inspect %s", "none that icae knows"},
        {"selftest --golden %s/none", "none"},
        {"selftest --golden tests/golden/smollm2 -m %s/none.gguf", "none.gguf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char arguments[1024];
        const char *hole = strstr(cases[i].arguments, "%s");
        snprintf(arguments, sizeof arguments, "%.*s%s%s", (int)(hole - cases[i].arguments),
                 cases[i].arguments, folder, hole + 2);
        outcome r = run_in(folder, "$ICAE %s", arguments);
        ck_assert_msg(r.code == 1, "icae %s: exit code %d, %s", arguments, r.code, r.err);
        ck_assert_msg(strstr(r.err, "icae: ") && strstr(r.err, cases[i].part), "icae %s: %s",
                      arguments, r.err);
    }
}
END_TEST

START_TEST(slots_of_another_adapter_are_refused_by_both_names) {
    const char *folder = folder_with_slots("cli-mismatch");
    ck_assert_int_eq(run_in(folder, "cp -r " TINY_ADAPTER " %s/other", folder).code, 0);
    char path[700];
    snprintf(path, sizeof path, "%s/other/memory.safetensors", folder);
    char *bytes;
    size_t n;
    ck_ok(icae_file_read(path, 1 << 20, &bytes, &n, &error));
    bytes[n - 2] ^= 1;
    ck_ok(icae_file_write(path, bytes, n, &error));
    free(bytes);
    outcome r = run_in(folder, "$ICAE reconstruct -m " TINY_BASE " -a %s/other %s/text.slots",
                       folder, folder);
    ck_assert_int_eq(r.code, 1);
    ck_assert_msg(strstr(r.err, "text.slots") && strstr(r.err, "/other"), "%s", r.err);
    ck_assert_str_eq(r.out, "");
}
END_TEST

START_TEST(ill_formed_text_is_warned_about_and_taken) {
    const char *folder = test_folder("cli-utf8");
    static const char text[] = "good \xff\xfe bad";
    ck_ok(icae_file_write(test_path(folder, "t.txt"), text, strlen(text), &error));
    outcome r = run_in(folder, "$ICAE compress " WITH " %s/t.txt", folder);
    ck_assert_int_eq(r.code, 0);
    ck_assert_msg(strstr(r.err, "2 bytes are not UTF-8, the first at byte 5"), "%s", r.err);
}
END_TEST

START_TEST(text_beyond_the_context_is_warned_about_and_long_prompts_refused) {
    const char *folder = test_folder("cli-long");
    outcome r = run_in(folder,
                       "seq 1 1500 >%s/long.txt && $ICAE compress " WITH
                       " %s/long.txt && $ICAE reconstruct " WITH " %s/long.slots -n 3",
                       folder, folder, folder);
    ck_assert_int_eq(r.code, 0);
    ck_assert_msg(strstr(r.err, "contexts of 2048"), "%s", r.err);
    outcome ask = run_in(folder, "$ICAE ask " WITH " %s/long.slots Why", folder);
    ck_assert_int_eq(ask.code, 1);
    ck_assert_msg(strstr(ask.err, "context ends at 2048"), "%s", ask.err);
}
END_TEST

START_TEST(helps) {
    const char *folder = test_folder("cli-help");
    outcome bare = run_in(folder, "$ICAE"), asked = run_in(folder, "$ICAE --help");
    ck_assert_int_eq(bare.code, 0);
    ck_assert_str_eq(bare.out, asked.out);
    static const char *const commands[] = {"compress", "reconstruct", "continue",
                                           "ask",      "chat",        "eval",
                                           "inspect",  "selftest",    "bench"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        ck_assert_ptr_nonnull(strstr(bare.out, commands[i]));
        outcome r = run_in(folder, "$ICAE %s --help", commands[i]);
        ck_assert_int_eq(r.code, 0);
        ck_assert_ptr_nonnull(strstr(r.out, "--json"));
        ck_assert_ptr_nonnull(strstr(r.out, commands[i]));
    }
    outcome version = run_in(folder, "$ICAE --version");
    ck_assert_str_eq(version.out, "icae " ICAE_VERSION "\n");
    static const char *const unheard[] = {"--help", "bench --help", "bench --version"};
    for (size_t i = 0; i < sizeof unheard / sizeof unheard[0]; i++) {
        outcome r = run_in(folder, "$ICAE %s >/dev/full", unheard[i]);
        ck_assert_msg(r.code == 1, "%s: exit code %d", unheard[i], r.code);
    }
}
END_TEST

SUITE_OF(cli, 240, compresses_a_file_and_says_what_it_weighs, restores_the_same_text_every_time,
         continues_for_as_many_tokens_as_asked, samples_by_seed,
         asks_about_several_texts_in_their_order, chats_with_the_dialogue_in_the_prompt,
         streams_an_answer_before_its_input_ends, keeps_its_name_in_the_list_of_processes,
         answers_signals_with_their_exit_codes, takes_text_from_standard_input,
         environment_stands_in_for_base_and_adapter, reports_what_slots_hold,
         keeps_as_text_what_slots_would_lose, evaluates_autoencoding_alike_in_every_batch,
         evaluates_continuation_three_ways, evaluates_by_length_and_by_content,
         continuations_are_the_same_behind_every_length, evaluates_questions_latency_and_all,
         perplexity_scores_every_token_but_the_first_once, plain_text_is_cut_into_pieces,
         says_what_a_thing_is, says_how_far_a_run_is_and_what_is_damaged,
         times_texts_of_any_lengths, a_report_of_the_bench_has_every_table_and_picture,
         selftest_fails_by_exit_code_and_line, wrong_usage_says_the_right_one,
         bad_input_is_answered_with_a_sentence,
         slots_of_another_adapter_are_refused_by_both_names,
         ill_formed_text_is_warned_about_and_taken,
         text_beyond_the_context_is_warned_about_and_long_prompts_refused, helps)
