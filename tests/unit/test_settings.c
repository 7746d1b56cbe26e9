/* SPDX-License-Identifier: MIT */
/* The config of a run: reading, refusing, overriding, writing back, comparing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/json.h"
#include "icae/settings.h"
#include "suites.h"

static const char SMALL[] =
    "{\n"
    "  \"base\": \"b.gguf\",\n"
    "  \"out\": \"runs/x\",\n"
    "  \"data\": {\"train\": [\"a.jsonl\", \"b.txt\"]},\n"
    "  \"adapter\": {\"memory_slots\": 8, \"targets\": [\"q_proj\"]},\n"
    "  \"train\": {\"lr\": 1e-4, \"schedule\": \"linear\", \"steps\": 70}\n"
    "}\n";

static const char *written(const char *name, const char *text) {
    icae_error error = {0};
    const char *path = test_path(test_folder("settings"), name);
    ck_ok(icae_file_write(path, text, strlen(text), &error));
    return path;
}

START_TEST(reads_a_config_and_keeps_the_defaults_of_the_rest) {
    icae_error error = {0};
    icae_settings settings;
    icae_settings_init(&settings);
    ck_ok(icae_settings_read(&settings, written("a.json", SMALL), &error));
    ck_ok(icae_settings_check(&settings, &error));
    ck_assert_str_eq(settings.base, "b.gguf");
    ck_assert_uint_eq(settings.data.train.count, 2);
    ck_assert_str_eq(settings.data.train.list[1], "b.txt");
    ck_assert_int_eq(settings.adapter.memory_slots, 8);
    ck_assert_int_eq(settings.adapter.compression_rate, 4);
    ck_assert_uint_eq(settings.adapter.targets.count, 1);
    ck_assert_int_eq(settings.train.schedule, ICAE_SCHEDULE_LINEAR);
    ck_assert_double_eq_tol(settings.train.lr, 1e-4, 1e-12);
    ck_assert_double_eq_tol(settings.train.beta2, 0.95, 1e-12);
    ck_assert_int_eq(icae_settings_context(&settings), 32);
    ck_assert(icae_settings_has(&settings, "train.lr"));
    ck_assert(!icae_settings_has(&settings, "train.seed"));
    icae_settings_release(&settings);
}
END_TEST

static const struct {
    const char *text, *sentence;
} refused[] = {
    {"{\"base\": \"b\", \"trian\": {}}", "unknown key 'trian'"},
    {"{\n\n \"train\": {\n  \"stepz\": 3}}", ":4: train.stepz: unknown key 'stepz'"},
    {"{\"train\": {\"stepz\": 3}}", "did you mean 'steps'?"},
    {"{\"train\": {\"steps\": 1.5}}", "train.steps: expected a whole number"},
    {"{\"train\": {\"steps\": -1}}", "train.steps: expected 0 to"},
    {"{\"train\": {\"schedule\": \"cosin\"}}", "\"cosine\""},
    {"{\"train\": {\"checkpointing\": 1}}", "expected true or false"},
    {"{\"adapter\": {\"dropout\": 1}}", "adapter.dropout: expected 0 to 0.99"},
    {"{\"data\": {\"train\": [1]}}", "element 1: expected a string"},
    {"{\"data\": {\"train\": 7}}", "data.train: expected a list of strings"},
    {"{\"data\": []}", "data: expected an object"},
    {"{\"base\": 5}", "base: expected a string"},
    {"{\"memory_budget\": \"6\"}", "memory_budget: expected bytes as a whole number"},
    {"{\"memory_budget\": \"six GB\"}", "memory_budget: expected bytes"},
    {"{\"memory_budget\": \"6 gb\"}", "memory_budget: expected bytes"},
    {"{\"memory_budget\": \"9999999 TB\"}", "memory_budget: expected bytes"},
    {"{\"memory_budget\": -1}", "memory_budget: expected 0 to"},
    {"[]", "expected an object"},
};

START_TEST(every_unknown_key_and_wrong_type_is_refused) {
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const char *path = written("bad.json", refused[i].text);
        icae_error error = {0};
        icae_settings settings;
        icae_settings_init(&settings);
        ck_refused(icae_settings_read(&settings, path, &error), refused[i].sentence);
        ck_assert_ptr_nonnull(strstr(error.message, path));
        icae_settings_release(&settings);
    }
}
END_TEST

START_TEST(set_overrides_with_the_same_checks) {
    icae_error error = {0};
    icae_settings s;
    icae_settings_init(&s);
    ck_ok(icae_settings_set(&s, "train.lr=3e-5", &error));
    ck_ok(icae_settings_set(&s, "out=runs/with=sign", &error));
    ck_ok(icae_settings_set(&s, "data.train=texts/a.jsonl", &error));
    ck_ok(icae_settings_set(&s, "adapter.targets=[\"q_proj\", \"up_proj\"]", &error));
    ck_ok(icae_settings_set(&s, "adapter.layout=append", &error));
    ck_ok(icae_settings_set(&s, "train.checkpointing=true", &error));
    ck_ok(icae_settings_set(&s, "adapter.chat_prefix=say \"so\"", &error));
    ck_assert_double_eq_tol(s.train.lr, 3e-5, 1e-15);
    ck_assert_str_eq(s.out, "runs/with=sign");
    ck_assert_str_eq(s.data.train.list[0], "texts/a.jsonl");
    ck_assert_uint_eq(s.adapter.targets.count, 2);
    ck_assert_int_eq(s.adapter.layout, ICAE_LAYOUT_APPEND);
    ck_assert(s.train.checkpointing);
    ck_assert_str_eq(s.adapter.chat_prefix, "say \"so\"");
    ck_ok(icae_settings_set(&s, "out=2024", &error));
    ck_assert_str_eq(s.out, "2024");
    ck_ok(icae_settings_set(&s, "out=[1]", &error));
    ck_assert_str_eq(s.out, "[1]");
    ck_ok(icae_settings_set(&s, "out=\"quoted\"", &error));
    ck_assert_str_eq(s.out, "quoted");
    ck_ok(icae_settings_set(&s, "data.heldout=7", &error));
    ck_assert_uint_eq(s.data.heldout.count, 1);
    ck_assert_str_eq(s.data.heldout.list[0], "7");
    ck_ok(icae_settings_set(&s, "data.heldout=[]", &error));
    ck_assert_uint_eq(s.data.heldout.count, 0);
    ck_ok(icae_settings_set(&s, "adapter.chat_suffix=null", &error));
    ck_assert_ptr_null(s.adapter.chat_suffix);
    ck_refused(icae_settings_set(&s, "adapter.layout=5", &error), "got \"5\"");
    /* a value is a value, not more keys */
    ck_refused(icae_settings_set(&s, "train.lr=1e-3, \"batch\": 99", &error),
               "train.lr: expected a number");
    ck_refused(icae_settings_set(&s, "train.lr=1}, \"data\": {\"strict\": true", &error),
               "train.lr: expected a number");
    ck_assert_int_eq(s.train.batch, 8);
    ck_refused(icae_settings_set(&s, "train.lr=fast", &error), "train.lr: expected a number");
    ck_refused(icae_settings_set(&s, "train.lr", &error), "expected key=value");
    ck_refused(icae_settings_set(&s, "lr=1", &error), "unknown key 'lr'");
    ck_refused(icae_settings_set(&s, "train.batch=0", &error), "train.batch: expected 1 to");
    ck_refused(icae_settings_set(&s, "a.b.c=1", &error), "unknown key");
    icae_settings_release(&s);
}
END_TEST

START_TEST(bytes_are_numbers_or_numbers_with_a_unit) {
    static const struct {
        const char *given;
        int64_t bytes;
    } cases[] = {{"6 GiB", 6442450944},  {"800 MB", 800000000}, {"1.5GB", 1500000000},
                 {"0.25 KiB", 256},      {"12 B", 12},          {"1234567", 1234567},
                 {"2 TB", 2000000000000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_error error = {0};
        icae_settings s;
        char assignment[64];
        icae_settings_init(&s);
        snprintf(assignment, sizeof assignment, "memory_budget=%s", cases[i].given);
        ck_ok(icae_settings_set(&s, assignment, &error));
        ck_assert_int_eq(s.memory_budget, cases[i].bytes);
        icae_settings_release(&s);
    }
}
END_TEST

START_TEST(what_is_written_reads_back_equal) {
    icae_error error = {0};
    icae_settings s, again;
    icae_settings_init(&s);
    ck_ok(icae_settings_read(&s, written("a.json", SMALL), &error));
    ck_ok(icae_settings_set(&s, "train.lr=0.1234567890123456", &error));
    icae_text text = {0}, second = {0}, change = {0};
    icae_settings_write(&s, &text);
    icae_settings_init(&again);
    ck_ok(icae_settings_read(&again, written("b.json", text.data), &error));
    icae_settings_write(&again, &second);
    ck_assert_str_eq(text.data, second.data);
    ck_assert_uint_eq(icae_settings_difference(&s, &again, &change), 0);
    ck_assert_uint_eq(icae_settings_hash(&s, true), icae_settings_hash(&again, true));

    /* What may change in a resumed run does not count, everything else does. */
    ck_ok(icae_settings_set(&again, "train.steps=99", &error));
    ck_ok(icae_settings_set(&again, "evaluate.every=7", &error));
    ck_ok(icae_settings_set(&again, "checkpoint.keep=1", &error));
    ck_assert_uint_eq(icae_settings_difference(&s, &again, &change), 0);
    ck_assert_uint_eq(icae_settings_hash(&s, true), icae_settings_hash(&again, true));
    ck_ok(icae_settings_set(&again, "base=./b.gguf", &error));
    ck_assert_uint_eq(icae_settings_difference(&s, &again, &change), 0);
    ck_assert_uint_eq(icae_settings_hash(&s, false), icae_settings_hash(&again, false));
    ck_assert_uint_ne(icae_settings_hash(&s, true), icae_settings_hash(&again, true));
    ck_ok(icae_settings_set(&again, "train.batch=3", &error));
    ck_ok(icae_settings_set(&again, "objective.kind=both", &error));
    ck_assert_uint_eq(icae_settings_difference(&s, &again, &change), 2);
    ck_assert_str_eq(change.data, "objective.kind = \"mixed\", now it is \"both\"; "
                                  "train.batch = 8, now it is 3");
    ck_assert_uint_ne(icae_settings_hash(&s, false), icae_settings_hash(&again, false));
    icae_text_release(&text);
    icae_text_release(&second);
    icae_text_release(&change);
    icae_settings_release(&s);
    icae_settings_release(&again);
}
END_TEST

START_TEST(says_what_is_missing_or_contradicts) {
    static const struct {
        const char *set, *sentence;
    } cases[] = {
        {"base=", "base: missing"},
        {"out=", "out: missing"},
        {"data.train=[]", "data.train: missing"},
        {"adapter.targets=[\"q\"]", "adapter.targets: 'q' is unknown"},
        {"adapter.targets=[]", "adapter.targets: empty"},
        {"objective.least_context=33", "so no text would do"},
    };
    icae_error error = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_settings s;
        icae_settings_init(&s);
        ck_ok(icae_settings_read(&s, written("a.json", SMALL), &error));
        ck_ok(icae_settings_set(&s, cases[i].set, &error));
        ck_refused(icae_settings_check(&s, &error), cases[i].sentence);
        icae_settings_release(&s);
    }
}
END_TEST

START_TEST(keys_of_another_objective_are_told) {
    static const struct {
        const char *set[4], *idle;
    } cases[] = {
        {{"objective.kind=both", "objective.lm_ratio=0.3", "objective.ae_share=0.5"},
         "objective.lm_ratio (of mixed), objective.ae_share (of instruct)"},
        {{"objective.ae_weight=0.9", "objective.prompt_tokens=7", "objective.answer_tokens=7"},
         "objective.ae_weight (of both), objective.prompt_tokens (of instruct), "
         "objective.answer_tokens (of instruct)"},
        {{"objective.kind=instruct", "data.text_field=body", "objective.lm_ratio=0.3"},
         "data.text_field (of mixed and both), objective.lm_ratio (of mixed)"},
        {{"objective.kind=instruct", "objective.continuation_tokens=5",
          "objective.skip_for_lm=2", "objective.least_continuation=5"},
         "objective.continuation_tokens (of mixed and both), objective.least_continuation (of "
         "mixed and both), objective.skip_for_lm (of mixed and both)"},
        {{"objective.lm_ratio=0.3", "objective.continuation_tokens=5", "data.text_field=b"},
         ""},
        {{"objective.kind=both", "objective.ae_weight=0.9"}, ""},
        {{"objective.kind=instruct", "objective.ae_share=0.9", "objective.prompt_tokens=3"},
         ""},
    };
    icae_error error = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        icae_settings s, again;
        icae_text idle = {0}, text = {0};
        icae_settings_init(&s);
        for (size_t j = 0; j < 4 && cases[i].set[j]; j++)
            ck_ok(icae_settings_set(&s, cases[i].set[j], &error));
        size_t count = icae_settings_idle(&s, &idle);
        ck_assert_str_eq(icae_text_string(&idle), cases[i].idle);
        ck_assert_int_eq(count == 0, !*cases[i].idle);
        /* and no more of them in what is written with every key */
        s.objective.continuation_tokens = icae_settings_continuation(&s);
        icae_settings_write(&s, &text);
        icae_settings_init(&again);
        ck_ok(icae_settings_read(&again, written("idle.json", text.data), &error));
        icae_text_clear(&idle);
        ck_assert_uint_eq(icae_settings_idle(&again, &idle), count);
        icae_text_release(&idle);
        icae_text_release(&text);
        icae_settings_release(&s);
        icae_settings_release(&again);
    }
}
END_TEST

/* A config whose keys all mean something to its objective. */
static void ck_none_idle(const icae_settings *settings, const char *name) {
    icae_text idle = {0};
    size_t count = icae_settings_idle(settings, &idle);
    ck_assert_msg(count == 0, "%s: %s", name, icae_text_string(&idle));
    icae_text_release(&idle);
}

START_TEST(chat_templates_come_from_keys_base_or_adapter) {
    icae_error error = {0};
    const char *folder = test_folder("settings-chat");
    char *data;
    size_t bytes;
    ck_ok(icae_file_read("tests/golden/llama/model/tokenizer.json", 1 << 20, &data, &bytes,
                         &error));
    ck_ok(icae_file_write(test_path(folder, "tokenizer.json"), data, bytes, &error));
    free(data);
    static const char chatml[] = "{\"chat_template\": \"<|im_start|>{{ m }}<|im_end|>\"}";
    ck_ok(icae_file_write(test_path(folder, "tokenizer_config.json"), chatml, sizeof chatml - 1,
                          &error));
    icae_model model = {0};
    ck_ok(icae_tokenizer_open_folder(&model.tokenizer, folder, &error));
    static const struct {
        const char *set[3], *name, *prefix, *suffix, *refused;
    } cases[] = {
        {{NULL}, "chatml", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", NULL},
        {{"chat_template=none"}, "none", "", "", NULL},
        {{"chat_prefix=Q"}, "custom", "Q", "<|im_end|>\n<|im_start|>assistant\n", NULL},
        {{"chat_template=custom", "chat_suffix=A"}, "custom", "", "A", NULL},
        {{"chat_template=llama3"}, "", "", "", "needs the token <|begin_of_text|>"},
        {{"chat_template=chatml", "chat_suffix=A"}, "", "", "", "remove it, or adapter.chat_"},
        {{"chat_template=vicuna"}, "", "", "", "'vicuna' is unknown; expected none, "},
        {{"chat_end=two words"}, "", "", "", "adapter.chat_end: 'two words' is not one token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int is_adopted = 0; is_adopted < 2; is_adopted++) {
            icae_settings s, again;
            icae_adapter_settings made = icae_adapter_defaults(&model), second;
            icae_settings_init(&s);
            made.memory_slots = s.adapter.memory_slots;
            for (size_t j = 0; j < 3 && cases[i].set[j]; j++) {
                char assignment[80];
                snprintf(assignment, sizeof assignment, "adapter.%s", cases[i].set[j]);
                ck_ok(icae_settings_set(&s, assignment, &error));
            }
            icae_status status = is_adopted ? icae_settings_adopt(&s, &model, &made, &error)
                                            : icae_settings_adapter(&s, &model, &made, &error);
            if (cases[i].refused) {
                ck_assert(status != ICAE_OK);
                ck_assert_msg(strstr(error.message, cases[i].refused), "%s", error.message);
                icae_settings_release(&s);
                continue;
            }
            ck_assert_msg(status == ICAE_OK, "%s", error.message);
            ck_assert_str_eq(made.chat_template, cases[i].name);
            ck_assert_str_eq(made.chat_prefix, cases[i].prefix);
            ck_assert_str_eq(made.chat_suffix, cases[i].suffix);
            /* and what is written as used gives the same again */
            ck_ok(icae_settings_complete(&s, &made, &error));
            icae_text text = {0};
            icae_settings_write(&s, &text);
            ck_ok(icae_file_write(test_path(folder, "config.json"), text.data, text.length,
                                  &error));
            icae_settings_init(&again);
            ck_ok(icae_settings_read(&again, test_path(folder, "config.json"), &error));
            ck_ok(icae_settings_adapter(&again, &model, &second, &error));
            ck_assert_str_eq(second.chat_template, made.chat_template);
            ck_assert_str_eq(second.chat_prefix, made.chat_prefix);
            ck_assert_str_eq(second.chat_suffix, made.chat_suffix);
            ck_assert_str_eq(second.chat_turn, made.chat_turn);
            ck_assert_str_eq(second.chat_end, made.chat_end);
            icae_text_release(&text);
            icae_settings_release(&again);
            icae_settings_release(&s);
        }
    }
    icae_tokenizer_free(model.tokenizer);
}
END_TEST

START_TEST(every_config_of_the_repository_reads) {
    icae_error error = {0};
    char **names;
    size_t count, configs = 0;
    ck_ok(icae_folder_list("configs", &names, &count, &error));
    for (size_t i = 0; i < count; i++) {
        if (!strstr(names[i], ".json")) continue;
        icae_settings s;
        icae_settings_init(&s);
        ck_ok(icae_settings_read(&s, test_path("configs", names[i]), &error));
        if (!*s.base) ck_ok(icae_settings_set(&s, "base=given", &error));
        ck_ok(icae_settings_check(&s, &error));
        ck_none_idle(&s, names[i]);
        icae_settings_release(&s);
        configs++;
    }
    ck_assert_uint_ge(configs, 6);
    icae_names_free(names, count);
}
END_TEST

/* configs/ablations/variants.json: its config with every variant's assignments. */
START_TEST(every_ablation_reads) {
    icae_error error = {0};
    icae_json *json;
    ck_ok(icae_json_open(&json, "configs/ablations/variants.json", &error));
    const icae_json_value *root = icae_json_root(json);
    const char *config = icae_json_as_string(icae_json_member(root, "config"));
    const icae_json_value *variant = icae_json_first(icae_json_member(root, "variants"));
    size_t count = 0;
    ck_assert_ptr_nonnull(config);
    for (; variant; variant = icae_json_next(variant), count++) {
        icae_settings s;
        icae_settings_init(&s);
        ck_ok(icae_settings_read(&s, config, &error));
        const icae_json_value *set = icae_json_first(icae_json_member(variant, "set"));
        for (; set; set = icae_json_next(set))
            ck_ok(icae_settings_set(&s, icae_json_as_string(set), &error));
        ck_ok(icae_settings_check(&s, &error));
        ck_none_idle(&s, "a variant");
        icae_settings_release(&s);
    }
    ck_assert_uint_ge(count, 12);
    icae_json_free(json);
}
END_TEST

SUITE_OF(settings, 30, bytes_are_numbers_or_numbers_with_a_unit,
         reads_a_config_and_keeps_the_defaults_of_the_rest,
         every_unknown_key_and_wrong_type_is_refused, set_overrides_with_the_same_checks,
         what_is_written_reads_back_equal, says_what_is_missing_or_contradicts,
         keys_of_another_objective_are_told, chat_templates_come_from_keys_base_or_adapter,
         every_config_of_the_repository_reads, every_ablation_reads)
