/* SPDX-License-Identifier: MIT */
/*
 * Golden folders, computed elsewhere in double precision, agree on every level this machine can run;
 * and a folder in which one number was changed does not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/safetensors.h"
#include "icae/selftest.h"
#include "suites.h"

static icae_error error;

static const char llama[] = "tests/golden/llama";

/* Names of the checks that failed, each between commas. */
static icae_text failed;

static void note_failure(void *user, const icae_check *check) {
    (void)user;
    if (check->is_ok) return;
    icae_text_printf(&failed, ",%s (%g > %g, %s)", check->name, check->error, check->limit,
                     check->note);
}

static icae_status run(const char *folder, const char *base, const char *level,
                       icae_checks *checks) {
    icae_backend *be;
    *checks = (icae_checks){.callback = note_failure};
    icae_text_clear(&failed);
    ck_ok(icae_backend_create(&be, level, 0, &error));
    icae_status status = icae_selftest_golden(checks, folder, base, be, &error);
    icae_backend_free(be);
    return status;
}

START_TEST(tiny_llama_agrees_on_every_level) {
    const char *const *levels = icae_backend_levels();
    for (int i = 0; levels[i]; i++) {
        icae_checks checks;
        ck_ok(run(llama, NULL, levels[i], &checks));
        ck_assert_int_ge(checks.n, 20);
        ck_assert_msg(checks.n_failed == 0, "level %s: %s", levels[i],
                      icae_text_string(&failed));
    }
}
END_TEST

/* ---- every architecture ---- */

static void agrees(const char *name) {
    char folder[64];
    snprintf(folder, sizeof folder, "tests/golden/%s", name);
    const char *const *levels = icae_backend_levels();
    for (int i = 1; levels[i]; i++) { /* 0, the slow reference, has the llama folder */
        icae_checks checks;
        ck_ok(run(folder, NULL, levels[i], &checks));
        ck_assert_int_ge(checks.n, 20);
        ck_assert_msg(checks.n_failed == 0, "%s, level %s: %s", name, levels[i],
                      icae_text_string(&failed));
    }
}

START_TEST(every_architecture_agrees) {
    static const char *const names[] = {"llama2", "llama3", "mistral",
                                        "qwen2",  "qwen3",  "gemma3"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        agrees(names[i]);
}
END_TEST

START_TEST(kernels_in_use_agree_with_the_reference) {
    const char *const *levels = icae_backend_levels();
    for (int i = 0; levels[i]; i++) {
        icae_backend *be;
        icae_checks checks = {.callback = note_failure};
        icae_text_clear(&failed);
        ck_ok(icae_backend_create(&be, levels[i], 0, &error));
        ck_ok(icae_selftest_kernels(&checks, be, &error));
        ck_assert_int_ge(checks.n, 14);
        ck_assert_msg(checks.n_failed == 0, "level %s: %s", levels[i],
                      icae_text_string(&failed));
        icae_backend_free(be);
    }
}
END_TEST

/* ---- one changed number ---- */

static void copy_file(const char *from, const char *to) {
    char *data;
    size_t bytes;
    ck_ok(icae_file_read(from, 1 << 26, &data, &bytes, &error));
    ck_ok(icae_file_write(to, data, bytes, &error));
    free(data);
}

static void copy_folder(const char *from, const char *to) {
    char **names;
    size_t count;
    ck_ok(icae_folder_make(to, &error));
    ck_ok(icae_folder_list(from, &names, &count, &error));
    for (size_t i = 0; i < count; i++) {
        char *a = icae_path_join(from, names[i]), *b = icae_path_join(to, names[i]);
        if (icae_path_is_folder(a))
            copy_folder(a, b);
        else
            copy_file(a, b);
        free(a);
        free(b);
    }
    icae_names_free(names, count);
}

/* The first digit behind `key` becomes another. */
static void change_json(const char *folder, const char *key) {
    char *path = icae_path_join(folder, "expected.json"), *text;
    size_t bytes;
    ck_ok(icae_file_read(path, 1 << 26, &text, &bytes, &error));
    char *at = strstr(text, key);
    ck_assert_msg(at != NULL, "%s is not in %s", key, path);
    at += strlen(key);
    at += strcspn(at, "0123456789");
    *at = *at == '1' ? '2' : '1';
    ck_ok(icae_file_write(path, text, bytes, &error));
    free(text);
    free(path);
}

/* The first number of a tensor is made four times as large: its exponent grows by two. */
static void change_tensor(const char *folder, const char *name) {
    char *path = icae_path_join(folder, "expected.safetensors"), *data;
    icae_safetensors file;
    ck_ok(icae_safetensors_open(&file, path, &error));
    const icae_safetensors_entry *entry = icae_safetensors_find(&file, name);
    ck_assert_msg(entry != NULL, "%s has no %s", path, name);
    size_t offset = (size_t)((const unsigned char *)entry->data - file.mapping.data), bytes;
    icae_safetensors_close(&file);
    ck_ok(icae_file_read(path, 1 << 26, &data, &bytes, &error));
    float value;
    memcpy(&value, data + offset, sizeof value);
    value = 4 * value + 1;
    memcpy(data + offset, &value, sizeof value);
    ck_ok(icae_file_write(path, data, bytes, &error));
    free(data);
    free(path);
}

START_TEST(one_changed_number_is_found) {
    static const struct {
        const char *key, *tensor; /* which number */
        const char *check;        /* what must fail, and nothing else */
    } changes[] = {
        {"\"ae_loss\":", NULL, ",ae_loss"},
        {"\"ft_loss\":", NULL, ",ft_loss"},
        {"\"lm\": {\"sum\":", NULL, ",lm.samples"},
        {"\"nll\": [", NULL, ",base.nll"},
        {"\"losses\": [", NULL, ",adamw.losses"},
        {"\"grad_norms\": [", NULL, ",adamw.grad_norms"},
        {"\"text\": \" \", \"ids\": [", NULL, ",tokenizer.ids"},
        {NULL, "base.logits", ",base.logits"},
        {NULL, "1.slots", ",1.slots"},
        {NULL, "ae.grad.memory_token_embed", ",ae.gradients"},
        {NULL, "lm.grad.model.layers.1.self_attn.v_proj.lora_A", ",lm.gradients"},
        {NULL, "adamw.model.layers.2.self_attn.q_proj.lora_B", ",adamw.parameters"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        const char *folder = test_folder("golden-changed");
        copy_folder(llama, folder);
        if (changes[i].key)
            change_json(folder, changes[i].key);
        else
            change_tensor(folder, changes[i].tensor);
        icae_checks checks;
        ck_ok(run(folder, NULL, NULL, &checks));
        ck_assert_msg(
            checks.n_failed >= 1 && strncmp(icae_text_string(&failed), changes[i].check,
                                            strlen(changes[i].check)) == 0,
            "after a change of %s: \"%s\"", changes[i].key ? changes[i].key : changes[i].tensor,
            icae_text_string(&failed));
    }
}
END_TEST

START_TEST(folder_without_model_asks_for_a_base) {
    icae_checks checks;
    ck_refused(run("tests/golden/smollm2", NULL, NULL, &checks), "by -m");
    ck_refused(run("tests/golden/smollm2", llama, NULL, &checks), "llama");
    ck_refused(run("tests/golden/none", NULL, NULL, &checks), "tests/golden/none");
}
END_TEST

/* Too slow in double precision and under a sanitizer; both run the tiny one. */
#if !defined(ICAE_F64) && !defined(__SANITIZE_ADDRESS__)
START_TEST(smollm2_agrees) {
    const char *base = test_base_model();
    ck_assert_msg(base != NULL, "the base model is not there: run \"make base\"");
    icae_checks checks;
    ck_ok(run("tests/golden/smollm2", base, NULL, &checks));
    ck_assert_int_ge(checks.n, 15);
    ck_assert_msg(checks.n_failed == 0, "%s", icae_text_string(&failed));
}
END_TEST
#define REAL_BASE_TESTS , smollm2_agrees
#else
#define REAL_BASE_TESTS
#endif

SUITE_OF(golden, 400, tiny_llama_agrees_on_every_level, every_architecture_agrees,
         kernels_in_use_agree_with_the_reference, one_changed_number_is_found,
         folder_without_model_asks_for_a_base REAL_BASE_TESTS)
