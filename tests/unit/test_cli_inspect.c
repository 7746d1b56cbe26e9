/* SPDX-License-Identifier: MIT */
/* `icae inspect`, `icae bench` and `icae selftest`, on the tiny golden model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/file.h"
#include "train_support.h"

static icae_error error;

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
        ck_assert_int_eq(r.code, 2);
        ck_assert_msg(strstr(r.err, "with commas between"), "%s: %s", wrong[i], r.err);
    }
}
END_TEST

START_TEST(the_bench_tells_how_much_a_base_of_short_contexts_reads) {
    const char *folder = test_folder("cli-bench-short");
    outcome o = run_in(folder,
                       "cp -r " TINY_BASE " %s/base && sed -i "
                       "'s/\"max_position_embeddings\": 2048/\"max_position_embeddings\": 64/' "
                       "%s/base/config.json && $ICAE bench -q -m %s/base --steps 0",
                       folder, folder, folder);
    ck_assert_msg(o.code == 0, "%s", o.err);
    ck_assert_msg(strstr(o.out, "tokens/s (32 tokens)\n") != NULL, "%s", o.out);
    ck_assert_msg(strstr(o.out, "tokens/s (62 tokens), ") != NULL, "%s", o.out);
}
END_TEST

START_TEST(a_report_of_the_bench_has_every_table_and_picture) {
    const char *folder = test_folder("cli-bench-report");
    /* one that cannot be written is told before anything is measured */
    outcome none = run_in(folder, "$ICAE bench --quick -m " TINY_BASE " --out LICENSE/b");
    ck_assert_int_eq(none.code, 1);
    ck_assert_msg(strstr(none.err, "icae: LICENSE") == none.err, "%s", none.err);
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

SUITE_OF(cli_inspect, 240, says_what_a_thing_is, says_how_far_a_run_is_and_what_is_damaged,
         times_texts_of_any_lengths, the_bench_tells_how_much_a_base_of_short_contexts_reads,
         a_report_of_the_bench_has_every_table_and_picture,
         selftest_fails_by_exit_code_and_line)
