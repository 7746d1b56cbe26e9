/* SPDX-License-Identifier: MIT */
/* JSON at its limits: values that are not there, texts and names that are too long, and seals. */
#include <stdio.h>
#include <string.h>

#include "icae/json.h"
#include "suites.h"

static icae_error error;

static icae_json *parsed(const char *text) {
    icae_json *json;
    error = (icae_error){0};
    ck_ok(icae_json_parse(&json, "x.json", text, strlen(text), &error));
    return json;
}

START_TEST(answers_for_values_that_are_not_there) {
    double number = 1;
    int64_t integer = 2;
    bool flag = true;
    const char *data = "x";
    size_t bytes = 3;
    ck_assert(!icae_json_is_object(NULL) && !icae_json_is_array(NULL));
    ck_assert(icae_json_is_null(NULL));
    ck_assert(!icae_json_as_number(NULL, &number) && !icae_json_as_integer(NULL, &integer));
    ck_assert(!icae_json_as_bool(NULL, &flag) && !icae_json_as_bytes(NULL, &data, &bytes));
    ck_assert(number == 1 && integer == 2 && flag && *data == 'x' && bytes == 3);
    ck_assert_ptr_null(icae_json_as_string(NULL));
    ck_assert_ptr_null(icae_json_first(NULL));
    ck_assert_ptr_null(icae_json_next(NULL));
    ck_assert_ptr_null(icae_json_key(NULL));
    ck_assert_ptr_null(icae_json_member(NULL, "a"));
    ck_assert_uint_eq(icae_json_count(NULL), 0);
    icae_json_free(NULL);
}
END_TEST

/* The size is held against the limit before a byte is looked at. */
START_TEST(refuses_texts_of_over_256_megabytes) {
    icae_json *json;
    ck_refused(icae_json_parse(&json, "x.json", "{}", (256u << 20) + 1, &error),
               "x.json: has 268435457 bytes, expected at most 268435456");
    ck_assert_ptr_null(json);
    ck_refused(icae_json_parse(&json, "x.json", NULL, 0, &error), "but the text ends");
}
END_TEST

/* ---- settings ---- */

/* An object that is missing has no line, so a complaint names the first. */
START_TEST(complains_about_objects_that_are_not_there) {
    icae_json *json = parsed("\n\n{}");
    icae_json_object o = icae_json_begin(json, NULL, "train.", &error);
    icae_json_complain(&o, "steps", "is needed");
    ck_assert_str_eq(error.message, "x.json:1: train.steps: is needed");
    icae_json_free(json);
}
END_TEST

START_TEST(names_as_many_choices_as_fit_into_a_sentence) {
    enum { N = 60 };
    static char names[N][16];
    const char *choices[N + 1];
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "choice-%02d", i);
        choices[i] = names[i];
    }
    choices[N] = NULL;
    icae_json *json = parsed("{\"way\": \"none\"}");
    icae_json_object o = icae_json_begin(json, icae_json_root(json), "", &error);
    ck_assert_int_eq(icae_json_get_choice(&o, "way", choices, 7), 7);
    ck_assert_ptr_nonnull(strstr(error.message, "way: expected one of \"choice-00\", \""));
    ck_assert_ptr_nonnull(strstr(error.message, ", got \"none\""));
    ck_assert_ptr_null(strstr(error.message, "choice-59"));
    icae_json_free(json);
}
END_TEST

/* What is asked for in vain is remembered as long as there is room; the rest is no suggestion. */
START_TEST(suggests_only_names_that_it_has_room_for) {
    for (int is_late = 0; is_late <= 1; is_late++) {
        icae_json *json = parsed("{\"warmup_stepz\": 1}");
        icae_json_object o = icae_json_begin(json, icae_json_root(json), "", &error);
        if (!is_late) icae_json_get_integer(&o, "warmup_steps", 0, 0, 9);
        for (int i = 0; i < 1000; i++) {
            char name[32];
            snprintf(name, sizeof name, "another %04d", i);
            icae_json_get_integer(&o, name, 0, 0, 9);
        }
        if (is_late) icae_json_get_integer(&o, "warmup_steps", 0, 0, 9);
        ck_refused(icae_json_end(&o), is_late ? "unknown key 'warmup_stepz'; remove it"
                                              : "did you mean 'warmup_steps'?");
        icae_json_free(json);
    }
}
END_TEST

/* Distances are only taken between names of up to 64 bytes. */
START_TEST(suggests_no_name_that_is_very_long) {
    char asked[80], text[160];
    for (size_t length = 64; length <= 65; length++) {
        memset(asked, 'a', length);
        asked[length] = 0;
        snprintf(text, sizeof text, "{\"b%s\": 1}", asked + 1);
        icae_json *json = parsed(text);
        icae_json_object o = icae_json_begin(json, icae_json_root(json), "", &error);
        icae_json_get_integer(&o, asked, 0, 0, 9);
        ck_refused(icae_json_end(&o), length == 64 ? "did you mean" : "remove it");
        icae_json_free(json);

        json = parsed("{\"short\": 1}"); /* and a long one that was asked for */
        o = icae_json_begin(json, icae_json_root(json), "", &error);
        icae_json_get_integer(&o, asked, 0, 0, 9);
        ck_refused(icae_json_end(&o), "unknown key 'short'; remove it");
        icae_json_free(json);
    }
}
END_TEST

/* ---- seals ---- */

static icae_status check(const char *text, size_t bytes, bool *is_sealed) {
    icae_json *json;
    icae_status status = icae_json_parse(&json, "x.json", text, bytes, &error);
    *is_sealed = true;
    if (status) return status;
    *is_sealed = icae_json_member(icae_json_root(json), "checksum") != NULL;
    status = icae_json_check_seal(json, "take another", &error);
    icae_json_free(json);
    return status;
}

START_TEST(notices_every_changed_byte_of_a_sealed_document) {
    icae_text text = {0};
    bool is_sealed;
    icae_text_append_string(&text, "{\n  \"step\": 17,\n  \"name\": \"one\"");
    icae_json_write_seal(&text);
    ck_ok(check(text.data, text.length, &is_sealed));
    ck_assert(is_sealed);
    for (size_t i = 0; i < text.length; i++) {
        for (int bit = 0; bit < 8; bit++) {
            text.data[i] = (char)(text.data[i] ^ 1 << bit);
            icae_status status = check(text.data, text.length, &is_sealed);
            ck_assert_msg(status || !is_sealed, "bit %d of byte %zu", bit, i);
            text.data[i] = (char)(text.data[i] ^ 1 << bit);
        }
    }
    text.data[text.length - 1] = ' '; /* behind the digits, which still fit */
    ck_refused(check(text.data, text.length, &is_sealed), "does not fit its bytes");
    icae_text_release(&text);
    static const char *const others[] = {
        "{\"checksum\": 1}",
        "{\"a\": 1, \"checksum\": \"0123456789abcdef\"}",
        "{\"a\": 1,\n  \"checksum\": \"0123456789abcdef\"\n}\n",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        ck_refused(check(others[i], strlen(others[i]), &is_sealed),
                   "x.json: its checksum does not fit its bytes: the file is damaged or was "
                   "edited; take another");
    }
    ck_ok(check("{}", 2, &is_sealed)); /* of a version that wrote none */
}
END_TEST

SUITE_OF(json_limits, 20, answers_for_values_that_are_not_there,
         refuses_texts_of_over_256_megabytes, names_as_many_choices_as_fit_into_a_sentence,
         suggests_only_names_that_it_has_room_for, suggests_no_name_that_is_very_long,
         complains_about_objects_that_are_not_there,
         notices_every_changed_byte_of_a_sealed_document)
