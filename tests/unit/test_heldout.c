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
         answers_end_where_they_were_taught_to)
