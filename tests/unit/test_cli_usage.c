/* SPDX-License-Identifier: MIT */
/* The built `icae` when it is not used as it should be: wrong usage, bad input, warnings; and its help. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/file.h"

static icae_error error;

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
        {"continue " WITH " --top-p 1.5 a", "a number from 0.001 to 1"},
        {"continue " WITH " --temperature nan a", "a number from 0"},
        {"continue " WITH " -t 0 a", "a whole number from 1"},
        {"continue " WITH " --compute f8 a", "expected f32, bf16 or auto"},
        {"compress " WITH " --temperature 1 a", "option --temperature is unknown to this"},
        {"eval ae " WITH " --data x --top-p 1", "option --top-p is unknown to this command"},
        {"bench -m x --top-k 3", "option --top-k is unknown to this command"},
        {"compress " WITH " --seed 1 a", "option --seed is unknown to this command"},
        {"inspect -t 2 a", "option -t is unknown to this command"},
        {"convert a b --threads=2", "option --threads=2 is unknown to this command"},
        {"convert a b --dtype q8", "--dtype q8: expected one of f32, bf16, f16"},
        {"convert a b --task ft", "--task ft: expected one of ae, lm"},
        {"convert a b --layout up", "--layout up: expected one of uniform, append"},
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
    ck_ok(icae_file_write(test_path(folder, "note.txt"), "N\0o\0!\0", 6, &error));
    ck_ok(icae_folder_make(test_path(folder, "peft"), &error));
    ck_ok(icae_file_write(test_path(folder, "peft/adapter_config.json"), "{}", 2, &error));
    const struct {
        const char *arguments, *part;
    } cases[] = {
        {"compress " WITH " %s/none.txt", "none.txt"},
        {"compress " WITH " %s/empty.txt", "empty.txt is empty"},
        {"compress " WITH " %s/blank.txt", "blank.txt holds white space alone"},
        {"compress " WITH " %s/wide.txt", "wide.txt is no text in UTF-8: 0 of its 200 bytes"},
        {"compress " WITH " %s/note.txt", "note.txt is no text in UTF-8: 0 of its 6 bytes"},
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

SUITE_OF(cli_usage, 240, wrong_usage_says_the_right_one, bad_input_is_answered_with_a_sentence,
         slots_of_another_adapter_are_refused_by_both_names,
         ill_formed_text_is_warned_about_and_taken,
         text_beyond_the_context_is_warned_about_and_long_prompts_refused,
         more_threads_than_processors_are_warned_about_once, help_speaks_of_its_own_command,
         helps)
