/* SPDX-License-Identifier: MIT */
/*
 * What the built programs answer to texts and prompts at the edge of what can be: nothing, one token, ten
 * megabytes, only spaces, no UTF-8, more than the base's context. docs/reliability.md, "Limits", is this file as a
 * table.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fuzz/tiny_adapter.h"
#include "../fuzz/tiny_base.h"
#include "command.h"
#include "icae/json.h"

#define WITH "-q -m " TINY_BASE " -a " TINY_ADAPTER

static icae_error error;

static void write_text(const char *folder, const char *name, const void *data, size_t bytes) {
    ck_ok(icae_file_write(test_path(folder, name), data, bytes, &error));
}

/* `times` copies of a piece. */
static void write_repeated(const char *folder, const char *name, const char *piece,
                           size_t times) {
    icae_text text = {0};
    for (size_t i = 0; i < times; i++)
        icae_text_append_string(&text, piece);
    ck_assert(!text.failed);
    write_text(folder, name, text.data, text.length);
    icae_text_release(&text);
}

static void expect(outcome result, int code, const char *said) {
    ck_assert_msg(result.code == code, "exit code %d: %s", result.code, result.err);
    ck_assert_msg(strstr(result.err, said) != NULL, "\"%s\" lacks \"%s\"", result.err, said);
}

static void expect_quiet(outcome result) {
    ck_assert_msg(result.code == 0, "exit code %d: %s", result.code, result.err);
}

static outcome compress(const char *folder, const char *name) {
    return run_in(folder, "$ICAE compress " WITH " -t 1 -o %s/%s.slots %s/%s", folder, name,
                  folder, name);
}

START_TEST(an_empty_text_is_refused_and_leaves_no_file) {
    const char *folder = test_folder("limits-empty");
    write_text(folder, "a", "", 0);
    expect(compress(folder, "a"), 1, "a is empty: there is nothing to compress");
    ck_assert(!icae_path_exists(test_path(folder, "a.slots")));
    expect(run_in(folder, "$ICAE compress " WITH " -o %s/b.slots - </dev/null", folder), 1,
           "is empty: there is nothing to compress");
    ck_assert(!icae_path_exists(test_path(folder, "b.slots")));
}
END_TEST

START_TEST(one_token_goes_all_the_way) {
    const char *folder = test_folder("limits-one");
    write_text(folder, "a", "a", 1);
    outcome made = compress(folder, "a");
    expect_quiet(made);
    ck_assert_ptr_nonnull(strstr(made.out, "1 tokens"));
    expect_quiet(run_in(folder, "$ICAE reconstruct " WITH " -n 4 %s/a.slots", folder));
    expect_quiet(run_in(folder, "$ICAE continue " WITH " -n 4 %s/a.slots", folder));
    expect_quiet(run_in(folder, "$ICAE ask " WITH " -n 4 %s/a.slots a", folder));
}
END_TEST

START_TEST(spaces_and_line_ends_are_text_but_not_alone) {
    const char *folder = test_folder("limits-spaces");
    write_text(folder, "c", " \n\n  ", 5);
    expect(compress(folder, "c"), 1, "c holds white space alone: there is nothing to compress");
    write_repeated(folder, "a", ". ", 100);
    write_repeated(folder, "b", ".\n", 100);
    expect_quiet(compress(folder, "a"));
    expect_quiet(compress(folder, "b"));
    expect_quiet(run_in(folder, "$ICAE reconstruct " WITH " -n 4 %s/a.slots", folder));
}
END_TEST

START_TEST(what_is_no_utf8_is_replaced_with_a_warning) {
    static const char broken[] = "abc \xFF\xFE\xC3 def \xED\xA0\x80 end";
    const char *folder = test_folder("limits-utf8");
    write_text(folder, "a", broken, sizeof broken - 1);
    expect(compress(folder, "a"), 0,
           "a: 6 bytes are not UTF-8, the first at byte 4; each becomes U+FFFD");
    expect(run_in(folder, "$ICAE ask " WITH " -n 4 %s/a.slots \"$(printf 'a\\377\\376')\"",
                  folder),
           0, "the prompt: 2 bytes are not UTF-8, the first at byte 1; each becomes U+FFFD");
}
END_TEST

START_TEST(a_zero_byte_is_a_character) {
    const char *folder = test_folder("limits-zero");
    write_text(folder, "a", "abc\0def", 7);
    outcome made =
        run_in(folder, "$ICAE compress --json " WITH " -o %s/a.slots %s/a", folder, folder);
    expect_quiet(made);
    ck_assert_ptr_nonnull(strstr(made.out, "\"text_bytes\": 7"));
}
END_TEST

/* The tiny base was trained on 2048 positions. */
START_TEST(a_text_past_the_context_is_kept_but_nothing_is_written_behind_it) {
    const char *folder = test_folder("limits-context");
    write_repeated(folder, "a", "0", 2100);
    expect(compress(folder, "a"), 0,
           "the text has 2100 tokens, the base was trained on contexts of 2048: it can be "
           "restored, span by span, but not read as one text");
    expect_quiet(run_in(folder, "$ICAE reconstruct -q " WITH " -n 2 %s/a.slots", folder));
    expect(run_in(folder, "$ICAE reconstruct " WITH " --together -n 2 %s/a.slots", folder), 0,
           "the slots stand for 2100 tokens, the base was trained on contexts of 2048");
    expect(run_in(folder, "$ICAE ask " WITH " -n 2 %s/a.slots a", folder), 1,
           "nothing can be written behind these slots: the first new token would stand at "
           "position 2102, the base's context ends at 2048; use a shorter prompt or text");
    expect(run_in(folder, "$ICAE continue " WITH " -n 2 %s/a.slots", folder), 1,
           "the first new token would stand at position 2101");
}
END_TEST

START_TEST(a_prompt_that_does_not_fit_is_refused) {
    const char *folder = test_folder("limits-prompt");
    write_text(folder, "a", "a", 1);
    write_repeated(folder, "prompt", " ", 2100);
    expect_quiet(compress(folder, "a"));
    expect(run_in(folder, "$ICAE ask " WITH " -n 2 %s/a.slots - <%s/prompt", folder, folder), 1,
           "the base's context ends at 2048; use a shorter prompt or text");
    expect(run_in(folder, "$ICAE chat " WITH " -n 2 %s/a.slots <%s/prompt", folder, folder), 0,
           "use a shorter prompt or text: the question is passed over");
}
END_TEST

START_TEST(an_empty_prompt_is_refused) {
    const char *folder = test_folder("limits-no-prompt");
    write_text(folder, "a", "a", 1);
    expect_quiet(compress(folder, "a"));
    expect(run_in(folder, "$ICAE ask " WITH " %s/a.slots ''", folder), 1,
           "the prompt is empty");
    expect(run_in(folder, "$ICAE ask " WITH " %s/a.slots - </dev/null", folder), 1,
           "the prompt is empty");
}
END_TEST

/* An answer stops at the end of the context, and says so in its JSON. */
START_TEST(an_answer_ends_with_the_context) {
    const char *folder = test_folder("limits-answer");
    write_repeated(folder, "a", "0", 2040);
    expect_quiet(compress(folder, "a"));
    outcome asked = run_in(folder, "$ICAE continue --json " WITH " -n 100 %s/a.slots", folder);
    expect_quiet(asked);
    ck_assert_ptr_nonnull(strstr(asked.out, "\"generated_tokens\": 7"));
    ck_assert_ptr_nonnull(strstr(asked.out, "\"complete\": false"));
}
END_TEST

/* A base whose tokens are runs of the letter a, so that ten megabytes are a million tokens, and an adapter
 * for it, in `folder`. */
static void make_tiny(const char *folder) {
    static const char tokenizer[] =
        "{\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
        "\"add_prefix_space\": false}, \"post_processor\": null, \"decoder\": {\"type\": "
        "\"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"aa\": 1, "
        "\"aaaa\": 2, \"aaaaaaaa\": 3, \"\\u0120\": 4}, \"merges\": [[\"a\", \"a\"], [\"aa\", "
        "\"aa\"], [\"aaaa\", \"aaaa\"]]}}";
    sound_file sound[] = {{.name = "config.json"},
                          {.name = "m.safetensors"},
                          {.name = "tokenizer.json"},
                          {.name = "model.safetensors.index.json"}};
    icae_backend *be = tiny_backend();
    icae_model *model;
    char base[600], adapter_folder[600];
    snprintf(base, sizeof base, "%s/base", folder);
    snprintf(adapter_folder, sizeof adapter_folder, "%s/adapter", folder);
    tiny_base(sound);
    sound[2] = (sound_file){sound[2].name, tokenizer, sizeof tokenizer - 1};
    ck_ok(icae_folder_make(base, &error));
    for (int i = 0; i < 4; i++)
        write_text(base, sound[i].name, sound[i].data, sound[i].bytes);
    free((void *)(uintptr_t)sound[1].data); /* the others are constants */
    ck_ok(icae_model_open(&model, base, &error));
    icae_adapter *adapter = tiny_adapter(model, be, false);
    ck_ok(icae_adapter_save(adapter, adapter_folder, model, &error));
    icae_adapter_free(adapter);
    icae_model_close(model);
    icae_backend_free(be);
}

/* One word of ten megabytes: the tokenizer must not take the square of its length. */
START_TEST(ten_megabytes_are_compressed) {
    enum { MEGABYTES = 10 };
    char folder[600];
    snprintf(folder, sizeof folder, "%s", test_folder("limits-large"));
    make_tiny(folder);
    write_repeated(folder, "a", "aaaaaaaaaaaaaaaa", MEGABYTES << 16);
    outcome made = run_in(folder,
                          "$ICAE compress --json -q -t 1 -m %s/base -a %s/adapter -o "
                          "%s/a.slots %s/a",
                          folder, folder, folder, folder);
    expect(made, 0, "it can be restored, span by span, but not read as one text");
    ck_assert_ptr_nonnull(strstr(made.out, "\"text_bytes\": 10485760"));
    ck_assert_ptr_nonnull(strstr(made.out, "\"tokens\": 1310720"));
}
END_TEST

SUITE_OF(limits, 300, an_empty_text_is_refused_and_leaves_no_file, one_token_goes_all_the_way,
         spaces_and_line_ends_are_text_but_not_alone,
         what_is_no_utf8_is_replaced_with_a_warning, a_zero_byte_is_a_character,
         a_text_past_the_context_is_kept_but_nothing_is_written_behind_it,
         a_prompt_that_does_not_fit_is_refused, an_empty_prompt_is_refused,
         an_answer_ends_with_the_context, ten_megabytes_are_compressed)
