/* SPDX-License-Identifier: MIT */
/* What held-out evaluation is of: whole texts whatever training reads, and answers to their own end. */
#include <stdio.h>

#include "icae/file.h"
#include "suites.h"
#include "train_support.h"

static icae_error error;

START_TEST(held_out_texts_are_whole_while_contexts_grow) {
    const char *folder = test_folder("heldout-growth");
    const char *texts = "data.heldout=data/samples/sentences.jsonl";
    icae_train_report plain, grown;
    ck_ok(tiny_run(test_path(folder, "plain"), RUN_WITH(texts, "train.steps=1"), NULL, &plain,
                   &error));
    ck_ok(tiny_run(test_path(folder, "grown"),
                   RUN_WITH(texts, "train.steps=1", "objective.first_context=5",
                            "objective.grow_steps=100"),
                   NULL, &grown, &error));
    for (int task = 0; task < ICAE_TASK_COUNT; task++) {
        ck_assert_int_eq(grown.before.targets[task], plain.before.targets[task]);
        if (plain.before.targets[task])
            ck_assert_double_eq(grown.before.loss[task], plain.before.loss[task]);
    }
    ck_assert_int_gt(plain.before.targets[ICAE_TASK_AE], 3 * 6);
}
END_TEST

/* Two texts with three questions each; those about the first are not all neighbours. */
static const char shared_rows[] = "{\"input\": \"The library opens at nine.\", \"prompt\": "
                                  "\"When?\", \"answer\": \"At nine.\"}\n"
                                  "{\"input\": \"The library opens at nine.\", \"prompt\": "
                                  "\"What?\", \"answer\": \"It opens.\"}\n"
                                  "{\"input\": \"Nobody was at the harbour then.\", "
                                  "\"prompt\": \"Who?\", \"answer\": \"Nobody.\"}\n"
                                  "{\"input\": \"The library opens at nine.\", \"prompt\": "
                                  "\"Where?\", \"answer\": \"There.\"}\n"
                                  "{\"input\": \"Nobody was at the harbour then.\", "
                                  "\"prompt\": \"When?\", \"answer\": \"Then.\"}\n"
                                  "{\"input\": \"Nobody was at the harbour then.\", "
                                  "\"prompt\": \"Where?\", \"answer\": \"Not there.\"}\n";

START_TEST(held_out_jobs_are_the_same_in_all_micro_batches) {
    const char *folder = test_folder("heldout-passes");
    char heldout[800];
    const char *path = test_path(folder, "rows.jsonl");
    ck_ok(icae_file_write(path, shared_rows, sizeof shared_rows - 1, &error));
    snprintf(heldout, sizeof heldout, "data.heldout=[\"%s\"]", path);
    static const char *const sizes[][2] = {{"train.batch=6", "train.micro_batch=6"},
                                           {"train.batch=6", "train.micro_batch=1"},
                                           {"train.batch=6", "train.micro_batch=4"},
                                           {"train.batch=2", "train.micro_batch=0"}};
    icae_heldout first = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char name[16], train[800];
        snprintf(name, sizeof name, "run%zu", i);
        snprintf(train, sizeof train, "data.train=[\"%s\"]", path);
        icae_train_report report;
        ck_ok(tiny_run(test_path(folder, name),
                       RUN_WITH(train, heldout, sizes[i][0], sizes[i][1],
                                "objective.kind=instruct", "objective.ae_share=0.5",
                                "adapter.chat_template=custom", "adapter.chat_end=<|im_end|>",
                                "evaluate.samples=6", "evaluate.reconstruct_samples=3",
                                "train.steps=0"),
                       NULL, &report, &error));
        const icae_heldout *now = &report.before;
        ck_assert_int_eq(now->samples, 6);
        if (i == 0) first = *now;
        for (int task = 0; task < ICAE_TASK_COUNT; task++) {
            ck_assert_int_eq(now->targets[task], first.targets[task]);
            if (first.targets[task]) ck_assert_double_eq(now->loss[task], first.loss[task]);
        }
        ck_assert_double_eq(now->bleu4, first.bleu4);
        ck_assert_double_eq(now->prefix_em, first.prefix_em);
    }
    ck_assert_int_gt(first.targets[ICAE_TASK_AE], 0);
    ck_assert_int_gt(first.targets[ICAE_TASK_FT], 0);
}
END_TEST

START_TEST(held_out_windows_to_restore_are_the_same_with_every_objective) {
    const char *folder = test_folder("heldout-objectives");
    static const char *const objectives[][2] = {
        {"objective.kind=mixed", "objective.lm_ratio=0"},
        {"objective.kind=mixed", "objective.lm_ratio=0.4"},
        {"objective.kind=mixed", "objective.lm_ratio=1"},
        {"objective.kind=both", "objective.lm_ratio=0"}};
    /* Windows of long texts; short texts, which LM splits, by the way. */
    static const char *const limits[] = {"objective.context_tokens=8",
                                         "objective.context_tokens=64"};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        icae_heldout plain = {0};
        int64_t lm_targets = 0;
        for (size_t i = 0; i < sizeof objectives / sizeof objectives[0]; i++) {
            char name[16];
            snprintf(name, sizeof name, "run%zu-%zu", l, i);
            icae_train_report report;
            ck_ok(tiny_run(test_path(folder, name),
                           RUN_WITH("data.heldout=data/samples/sentences.jsonl", limits[l],
                                    objectives[i][0], objectives[i][1],
                                    "objective.continuation_tokens=8", "evaluate.samples=6",
                                    "evaluate.reconstruct_samples=3", "train.steps=0"),
                           NULL, &report, &error));
            const icae_heldout *now = &report.before;
            if (i == 0) plain = *now;
            ck_assert_int_eq(now->targets[ICAE_TASK_AE], plain.targets[ICAE_TASK_AE]);
            ck_assert_double_eq(now->loss[ICAE_TASK_AE], plain.loss[ICAE_TASK_AE]);
            ck_assert_double_eq(now->bleu4, plain.bleu4);
            if (i == 1) lm_targets = now->targets[ICAE_TASK_LM];
            ck_assert_int_eq(now->targets[ICAE_TASK_LM], i ? lm_targets : 0);
        }
        ck_assert_int_gt(plain.targets[ICAE_TASK_AE], 6);
        ck_assert_int_gt(lm_targets, 0);
    }
}
END_TEST

/* One answer learnt by heart comes back as exact, whatever the config says about its end. */
static void learn_by_heart(const char *folder, const char *name, const char *assignment) {
    static const char row[] =
        "{\"input\": \"The library opens at nine on weekdays.\", \"prompt\": "
        "\"When?\", \"answer\": \"At nine, on five days of the week.\"}\n";
    char train[800], heldout[800];
    const char *path = test_path(folder, "row.jsonl");
    ck_ok(icae_file_write(path, row, sizeof row - 1, &error));
    snprintf(train, sizeof train, "data.train=[\"%s\"]", path);
    snprintf(heldout, sizeof heldout, "data.heldout=[\"%s\"]", path);
    icae_train_report report;
    ck_ok(tiny_run(test_path(folder, name),
                   RUN_WITH(train, heldout, assignment, "objective.kind=instruct",
                            "adapter.chat_template=custom", "adapter.rank=16",
                            "adapter.alpha=32", "adapter.dropout=0",
                            "adapter.targets=[\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", "
                            "\"gate_proj\", \"up_proj\", \"down_proj\"]",
                            "train.batch=1", "train.steps=600", "train.lr=4e-3",
                            "train.schedule=linear"),
                   NULL, &report, &error));
    ck_assert_int_eq(report.before.exact, 0);
    ck_assert_msg(report.after.loss[ICAE_TASK_FT] < 0.1, "%s: FT loss %g", assignment,
                  report.after.loss[ICAE_TASK_FT]);
    ck_assert_int_eq(report.after.restored, 1);
    ck_assert_msg(report.after.exact == 1, "%s: learnt, and not exact", assignment);
}

START_TEST(answers_end_where_they_were_taught_to) {
    const char *folder = test_folder("heldout-answers");
    learn_by_heart(folder, "eos", "adapter.chat_end=<|im_end|>"); /* the tokenizer's eos */
    learn_by_heart(folder, "other", "adapter.chat_end=<|endoftext|>");
    learn_by_heart(folder, "cut", "objective.answer_tokens=6"); /* no end follows */
}
END_TEST

SUITE_OF(heldout, 120, held_out_texts_are_whole_while_contexts_grow,
         held_out_jobs_are_the_same_in_all_micro_batches,
         held_out_windows_to_restore_are_the_same_with_every_objective,
         answers_end_where_they_were_taught_to)
