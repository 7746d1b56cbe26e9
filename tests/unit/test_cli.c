/* SPDX-License-Identifier: MIT */
/* The built `icae`, command by command, on the tiny golden model; eval is tested in test_cli_eval.c, inspect,
 * bench and selftest in test_cli_inspect.c. */
#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_support.h"
#include "icae/file.h"

static icae_error error;

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
    /* Who names a seed or what to draw from wants tokens drawn, at temperature 1. */
    outcome named =
        run_in(folder, "$ICAE continue " WITH " -n 20 --seed 2 %s/text.slots", folder);
    outcome told = run_in(
        folder, "$ICAE continue " WITH " -n 20 --seed 2 --temperature 1 %s/text.slots", folder);
    outcome greedy = run_in(folder, "$ICAE continue " WITH " -n 20 %s/text.slots", folder);
    ck_assert_str_eq(named.out, told.out);
    ck_assert_str_ne(named.out, greedy.out);
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
    /* half a line would be another question */
    outcome cut = run_in(
        folder, "printf 'Hello\\000 again\\n' | $ICAE chat --json " WITH " -n 6 %s/text.slots",
        folder);
    ck_assert_uint_eq(icae_json_count(icae_json_member(parse(cut), "turns")), 0);
    ck_assert_ptr_nonnull(strstr(cut.err, "zero byte"));
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
    /* by the name that a shell gives it, too */
    r = run_in(folder,
               "echo 'Some words to keep.' | $ICAE compress " WITH
               " -o %s/named.slots /dev/stdin && cmp %s/in.slots %s/named.slots",
               folder, folder, folder);
    ck_assert_msg(r.code == 0, "%s", r.err);
    r = run_in(folder, "echo 'Some words to keep.' | $ICAE compress " WITH " /dev/stdin");
    ck_assert_int_eq(r.code, 2);
    ck_assert_ptr_nonnull(strstr(r.err, "a text from /dev/stdin has no name"));
    r = run_in(folder, "$ICAE compress " WITH " -o %s/none.slots - <%s", folder, folder);
    ck_assert_int_eq(r.code, 1);
    ck_assert_ptr_nonnull(strstr(r.err, "standard input could not be read: Is a directory"));
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

START_TEST(compress_writes_over_nothing_that_it_reads) {
    const char *folder = folder_with_slots("cli-over");
    ck_assert_int_eq(run_in(folder,
                            "cd %s && ln -s text.txt link && cp text.txt base.gguf && "
                            "cp text.txt kept",
                            folder)
                         .code,
                     0);
    static const char *const commands[] = {
        "-o %s/text.txt %s/text.txt",
        "-o %s/./text.txt %s/text.txt",
        "-o %s/link %s/text.txt",
        "-o %s/text.txt %s/link",
        "--report %s/link %s/text.txt",
        "-o %s/text.txt - <%s/text.txt",
        "-m %s/base.gguf -o %s/base.gguf LICENSE",
    };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char command[1500];
        const char *first = strstr(commands[i], "%s"), *second = strstr(first + 2, "%s");
        snprintf(command, sizeof command, "%.*s%s%.*s%s%s", (int)(first - commands[i]),
                 commands[i], folder, (int)(second - first - 2), first + 2, folder, second + 2);
        outcome r = run_in(folder,
                           "$ICAE compress " WITH " %s; code=$?; cmp %s/kept %s/text.txt && "
                           "cmp %s/kept %s/base.gguf && exit $code",
                           command, folder, folder, folder, folder);
        ck_assert_msg(r.code == 1, "%s: exit code %d", command, r.code);
        ck_assert_msg(strstr(r.err, "would be overwritten"), "%s: %s", command, r.err);
        ck_assert_str_eq(r.out, "");
    }
}
END_TEST

START_TEST(compress_replaces_unasked_only_what_it_wrote) {
    const char *folder = folder_with_slots("cli-replace");
    static const struct {
        const char *before, *arguments, *refusal; /* NULL: it works */
    } cases[] = {
        {"cp text.txt thesis.tex", "-o %s/thesis.tex", "no slots file of icae compress"},
        {"cp text.txt page.md", "--report %s/page.md", "no report of icae compress"},
        {"true", "-o %s/thesis.tex --force", NULL},
        {"true", "--report %s/page.md --force", NULL},
        {"true", "-o %s/thesis.tex", NULL}, /* slots now */
        {"true", "--report %s/page.md", NULL},
        {"echo '<title>What the' >page.md", "--report %s/page.md", "no report of icae"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char arguments[800];
        const char *at = strstr(cases[i].arguments, "%s");
        snprintf(arguments, sizeof arguments, "%.*s%s%s",
                 at ? (int)(at - cases[i].arguments) : 0, cases[i].arguments, at ? folder : "",
                 at ? at + 2 : cases[i].arguments);
        outcome r = run_in(folder, "(cd %s && %s) && $ICAE compress " WITH " %s %s/text.txt",
                           folder, cases[i].before, arguments, folder);
        ck_assert_msg(r.code == (cases[i].refusal ? 1 : 0), "%s: %s", arguments, r.err);
        if (cases[i].refusal) ck_assert_msg(strstr(r.err, cases[i].refusal), "%s", r.err);
    }
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
        {"reconstruct --together", ""}, {"continue", ""}, {"ask", "Who?"}};
    for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
        const icae_json_value *made =
            parse(run_in(folder, "$ICAE %s -n 3 --json " WITH " %s/t.slots %s", uses[i][0],
                         folder, uses[i][1]));
        ck_assert_double_ge(number(made, "prompt_tokens"),
                            number(r, "slots") + number(r, "raw_tokens"));
    }
    /* Span by span the base reads no raw token; all of them are in the text. */
    const icae_json_value *whole =
        parse(run_in(folder, "$ICAE reconstruct --json " WITH " %s/t.slots", folder));
    ck_assert_double_ge(number(whole, "prompt_tokens"), number(r, "slots"));
    ck_assert_double_lt(number(whole, "prompt_tokens"),
                        number(r, "slots") + number(r, "raw_tokens"));
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

/* ---- what goes wrong ---- */

START_TEST(wrong_usage_says_the_right_one) {
    const char *folder = test_folder("cli-usage");
    static const struct {
        const char *arguments, *part;
    } cases[] = {
        {"", "usage: icae COMMAND"},
        {"compres x", "there is no command \"compres\"; did you mean compress?"},
        {"info x", "there is no command \"info\"; did you mean inspect?"},
        {"plan x", "did you mean icae-pretrain CONFIG.json --dry-run?"},
        {"frobnicate x", "there is no command \"frobnicate\"\n"},
        {"help convrt", "did you mean convert?"},
        {"help ask chat", "\"chat\" is one argument too many"},
        {"compress x", "-m BASE"},
        {"compress -m x y", "-a ADAPTER"},
        {"compress " WITH, "1 more argument"},
        {"compress " WITH " a b", "one argument too many"},
        {"compress " WITH " -", "-o FILE.slots"},
        {"compress " WITH " -o - a", "slots and reports go into files"},
        {"compress " WITH " --report - a", "slots and reports go into files"},
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
        {"compress " WITH " --temperature 1 a", "option --temperature is unknown to this"},
        {"eval ae " WITH " --data x --top-p 1", "option --top-p is unknown to this command"},
        {"bench -m x --top-k 3", "option --top-k is unknown to this command"},
        {"compress " WITH " --seed 1 a", "option --seed is unknown to this command"},
        {"inspect -t 2 a", "option -t is unknown to this command"},
        {"convert a b --threads=2", "option --threads=2 is unknown to this command"},
        {"selftest --compute bf16", "option --compute is unknown to this command"},
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
    ck_ok(icae_file_write(test_path(folder, "blank.txt"), " \n\t\r\n", 5, &error));
    static const char utf16[200]; /* zeros, as every other byte of English in UTF-16 */
    ck_ok(icae_file_write(test_path(folder, "wide.txt"), utf16, sizeof utf16, &error));
    ck_ok(icae_folder_make(test_path(folder, "peft"), &error));
    ck_ok(icae_file_write(test_path(folder, "peft/adapter_config.json"), "{}", 2, &error));
    const struct {
        const char *arguments, *part;
    } cases[] = {
        {"compress " WITH " %s/none.txt", "none.txt"},
        {"compress " WITH " %s/empty.txt", "empty.txt is empty"},
        {"compress " WITH " %s/blank.txt", "blank.txt holds white space alone"},
        {"compress " WITH " %s/wide.txt", "wide.txt is no text in UTF-8: 0 of its 200 bytes"},
        {"compress " WITH " -o %s/x.slots - <" TINY_BASE "/model.safetensors",
         "standard input is no text in UTF-8"},
        {"compress -m %s/none.gguf -a " TINY_ADAPTER " LICENSE", "none.gguf"},
        {"compress -m " TINY_BASE " -a %s/none LICENSE", "none"},
        {"compress -m %s -a " TINY_ADAPTER " LICENSE", "has no config.json; a base is"},
        {"compress -m " TINY_BASE " -a %s LICENSE", "has no icae.json; an adapter is"},
        {"compress -m " TINY_BASE " -a %s/peft LICENSE", "icae convert makes an adapter of it"},
        {"compress -m " TINY_BASE " -a " TINY_BASE " -o %s/x.slots LICENSE", "is a base or a"},
        {"compress " WITH " -o %s/no/such/folder/x.slots LICENSE", "no/such/folder"},
        {"compress " WITH " -o %s LICENSE", "cannot write: it is a folder"},
        {"compress " WITH " -o %s/x.slots --report none/x.html LICENSE", "none/x.html: cannot"},
        {"reconstruct " WITH " %s/none.slots", "none.slots"},
        {"reconstruct " WITH " %s/text.txt", "text.txt: header length"},
        {"reconstruct " WITH " %s/text.txt", "no safetensors file, nor one of slots"},
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
    r = run_in(folder, "printf 'a\\377' | $ICAE compress " WITH " -o %s/t.slots -", folder);
    ck_assert_msg(strstr(r.err, "1 byte is not UTF-8, the first at byte 1"), "%s", r.err);
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

START_TEST(more_threads_than_processors_are_warned_about_once) {
    const char *folder = folder_with_slots("cli-threads");
    int n = omp_get_num_procs();
    outcome r = run_in(folder, "$ICAE compress -t %d " WITH " %s/text.txt", n + 1, folder);
    ck_assert_int_eq(r.code, 0);
    const char *said = strstr(r.err, "more threads than processors");
    ck_assert_msg(said && !strstr(said + 1, "more threads"), "%s", r.err);
    r = run_in(folder, "$ICAE compress -t %d " WITH " %s/text.txt", n, folder);
    ck_assert_msg(!strstr(r.err, "threads"), "%s", r.err);
}
END_TEST

/* An option that several commands take says in each what it does there. */
START_TEST(help_speaks_of_its_own_command) {
    const char *folder = test_folder("cli-help-own");
    static const struct {
        const char *command, *has, *lacks;
    } cases[] = {
        {"compress", "tokens a slot, instead of the adapter's", "convert:"},
        {"convert", "released weights: tokens a slot", "adapter's"},
        {"reconstruct", "let the base read all spans", "ae, random"},
        {"eval", "ae, random: let the base read all spans", "bench"},
        {"eval", "as compress does", "this very text"},
        {"bench", "train on texts of so many tokens", "ae, lm"},
        {"bench", "[--lengths N,N,...]", "or go on with"},
        {"eval", "[-a ADAPTER] [--data FILE]", "pictures"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        outcome r = run_in(folder, "$ICAE %s --help", cases[i].command);
        ck_assert_int_eq(r.code, 0);
        ck_assert_msg(strstr(r.out, cases[i].has), "no \"%s\" in %s", cases[i].has, r.out);
        ck_assert_msg(!strstr(r.out, cases[i].lacks), "\"%s\" in %s", cases[i].lacks, r.out);
    }
}
END_TEST

START_TEST(helps) {
    const char *folder = test_folder("cli-help");
    outcome overview = run_in(folder, "$ICAE --help"), asked = run_in(folder, "$ICAE help");
    ck_assert_int_eq(overview.code, 0);
    ck_assert_str_eq(overview.out, asked.out);
    static const char *const commands[] = {"compress", "reconstruct", "continue",
                                           "ask",      "chat",        "eval",
                                           "inspect",  "selftest",    "bench"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        ck_assert_ptr_nonnull(strstr(overview.out, commands[i]));
        outcome r = run_in(folder, "$ICAE %s --help", commands[i]);
        ck_assert_int_eq(r.code, 0);
        ck_assert_ptr_nonnull(strstr(r.out, "--json"));
        ck_assert_ptr_nonnull(strstr(r.out, commands[i]));
        ck_assert_str_eq(run_in(folder, "$ICAE help %s", commands[i]).out, r.out);
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
         compress_writes_over_nothing_that_it_reads,
         compress_replaces_unasked_only_what_it_wrote, keeps_as_text_what_slots_would_lose,
         wrong_usage_says_the_right_one, bad_input_is_answered_with_a_sentence,
         slots_of_another_adapter_are_refused_by_both_names,
         ill_formed_text_is_warned_about_and_taken,
         text_beyond_the_context_is_warned_about_and_long_prompts_refused,
         more_threads_than_processors_are_warned_about_once, help_speaks_of_its_own_command,
         helps)
