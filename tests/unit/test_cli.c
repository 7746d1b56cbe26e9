/* SPDX-License-Identifier: MIT */
/* The built `icae`, command by command, on the tiny golden model; eval is tested in test_cli_eval.c, inspect,
 * bench and selftest in test_cli_inspect.c, convert in test_convert*.c; what goes wrong in test_cli_usage.c. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli_support.h"
#include "icae/file.h"

static icae_error error;

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

/* -n is asked for only where it gives more: a span ends after its length and an eighth, whatever it says. */
START_TEST(says_why_a_restored_text_did_not_end) {
    static const struct {
        const char *text, *how, *says;
    } cases[] = {
        {"one", "", "the text did not end by itself and was cut"},
        {"one", "-n 500", "the text did not end by itself and was cut"},
        {"one", "-n 2", "cut after 2 tokens; -n TOKENS asks for more"},
        {"one", "--together -n 100", "cut after 100 tokens; -n TOKENS asks for more"},
        {"many", "-n 5000", "some spans did not end by themselves and were cut"},
        {"many", "-n 2", "cut after 2 tokens; -n TOKENS asks for more"},
    };
    const char *folder = test_folder("cli-cut");
    must(
        run_in(folder,
               "printf 'The wind.' >%s/one.txt && seq 1 60 >%s/many.txt && $ICAE compress " WITH
               " %s/one.txt && $ICAE compress " WITH " %s/many.txt",
               folder, folder, folder, folder));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        outcome r = run_in(folder, "$ICAE reconstruct " WITH " %s %s/%s.slots", cases[i].how,
                           folder, cases[i].text);
        ck_assert_int_eq(r.code, 0);
        ck_assert_msg(strstr(r.err, cases[i].says), "%s %s: %s", cases[i].text, cases[i].how,
                      r.err);
    }
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

/* A text that leaves room for a turn or two: older ones go before an answer is cut short for want of room. */
START_TEST(forgets_turns_so_that_an_answer_has_room) {
    const char *folder = test_folder("cli-chat-room");
    const icae_json_value *turns = icae_json_member(
        parse(
            run_in(folder,
                   "seq 1 490 >%s/long.txt && $ICAE compress -q " WITH
                   " %s/long.txt >&2 && printf '1?\n2?\n3?\n4?\n5?\n6?\n' | $ICAE chat --json "
                   "-n 60 " WITH " %s/long.slots",
                   folder, folder, folder)),
        "turns");
    ck_assert_uint_eq(icae_json_count(turns), 6);
    for (const icae_json_value *turn = icae_json_first(turns); turn;
         turn = icae_json_next(turn)) {
        bool is_complete;
        ck_assert(icae_json_as_bool(icae_json_member(turn, "complete"), &is_complete));
        ck_assert_msg(is_complete || number(turn, "generated_tokens") == 60,
                      "%s: cut after %g tokens", string(turn, "question"),
                      number(turn, "generated_tokens"));
    }
}
END_TEST

/* Neither the turns before it nor those behind it are lost. */
START_TEST(passes_over_a_question_that_fits_nowhere) {
    const char *folder = folder_with_slots("cli-chat-long");
    outcome r = run_in(folder,
                       "(echo Hello; seq 1 2000 | tr '\\n' ' '; echo; echo 'And then?') | "
                       "$ICAE chat --json " WITH " -n 6 %s/text.slots",
                       folder);
    ck_assert_int_eq(r.code, 0);
    ck_assert_msg(strstr(r.err, "the question is passed over"), "%s", r.err);
    const icae_json_value *turns = icae_json_member(parse(r), "turns");
    ck_assert_uint_eq(icae_json_count(turns), 2);
    const icae_json_value *first = icae_json_first(turns), *second = icae_json_next(first);
    ck_assert_str_eq(string(second, "question"), "And then?");
    ck_assert_double_gt(number(second, "prompt_tokens"), number(first, "prompt_tokens") + 6);
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

SUITE_OF(cli, 240, compresses_a_file_and_says_what_it_weighs, restores_the_same_text_every_time,
         says_why_a_restored_text_did_not_end, continues_for_as_many_tokens_as_asked,
         samples_by_seed, asks_about_several_texts_in_their_order,
         chats_with_the_dialogue_in_the_prompt, passes_over_a_question_that_fits_nowhere,
         forgets_turns_so_that_an_answer_has_room, streams_an_answer_before_its_input_ends,
         keeps_its_name_in_the_list_of_processes, answers_signals_with_their_exit_codes,
         takes_text_from_standard_input, environment_stands_in_for_base_and_adapter,
         reports_what_slots_hold, compress_writes_over_nothing_that_it_reads,
         compress_replaces_unasked_only_what_it_wrote, keeps_as_text_what_slots_would_lose)
