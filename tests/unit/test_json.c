/* SPDX-License-Identifier: MIT */
/* JSON: what is read, what is refused and on which line, settings cursors, writing. */
#include <math.h>
#include <string.h>

#include "icae/file.h"
#include "icae/json.h"
#include "suites.h"

static icae_status parse(icae_json **json, const char *text, icae_error *error) {
    return icae_json_parse(json, "x.json", text, strlen(text), error);
}

static icae_json *parsed(const char *text) {
    icae_error error = {0};
    icae_json *json;
    ck_ok(parse(&json, text, &error));
    return json;
}

START_TEST(reads_every_kind_of_value) {
    icae_json *json =
        parsed(" {\"a\": [1, -2.5e3, true, false, null, \"x\\u00e9\\ud83d\\ude00\\n\"],"
               "\"b\": {}, \"c\": []}\r\n");
    const icae_json_value *root = icae_json_root(json);
    ck_assert(icae_json_is_object(root));
    ck_assert_uint_eq(icae_json_count(root), 3);
    const icae_json_value *array = icae_json_member(root, "a");
    ck_assert(icae_json_is_array(array));
    ck_assert_uint_eq(icae_json_count(array), 6);

    const icae_json_value *v = icae_json_first(array);
    int64_t whole = 0;
    double number = 0;
    bool flag = false;
    ck_assert(icae_json_as_integer(v, &whole) && whole == 1);
    ck_assert(!icae_json_as_bool(v, &flag));
    ck_assert_ptr_null(icae_json_as_string(v));
    v = icae_json_next(v);
    ck_assert(icae_json_as_number(v, &number) && number == -2500.0);
    v = icae_json_next(v);
    ck_assert(icae_json_as_bool(v, &flag) && flag);
    v = icae_json_next(v);
    ck_assert(icae_json_as_bool(v, &flag) && !flag);
    v = icae_json_next(v);
    ck_assert(icae_json_is_null(v));
    ck_assert(!icae_json_as_number(v, &number));
    v = icae_json_next(v);
    ck_assert_str_eq(icae_json_as_string(v), "x\xC3\xA9\xF0\x9F\x98\x80\n");
    ck_assert(!icae_json_as_integer(v, &whole));
    ck_assert_ptr_null(icae_json_next(v));
    ck_assert_ptr_null(icae_json_key(v));

    ck_assert_ptr_null(icae_json_member(root, "d"));
    ck_assert_ptr_null(icae_json_first(icae_json_member(root, "b")));
    ck_assert_str_eq(icae_json_key(icae_json_next(icae_json_first(root))), "b");
    ck_assert(icae_json_is_null(NULL));
    ck_assert_str_eq(icae_json_name(json), "x.json");
    icae_json_free(json);
}
END_TEST

START_TEST(integers_are_whole_and_exact) {
    static const struct {
        const char *text;
        bool is_integer;
        int64_t value;
    } rows[] = {
        {"9007199254740992", true, INT64_C(1) << 53},
        {"-9007199254740992", true, -(INT64_C(1) << 53)},
        {"9007199254740994", false, 0},
        {"1e3", true, 1000},
        {"5.0", true, 5},
        {"0.5", false, 0},
        {"-0", true, 0},
        {"1e300", false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        icae_json *json = parsed(rows[i].text);
        int64_t value = 0;
        ck_assert_msg(icae_json_as_integer(icae_json_root(json), &value) == rows[i].is_integer,
                      "%s", rows[i].text);
        ck_assert_int_eq(value, rows[i].value);
        icae_json_free(json);
    }
}
END_TEST

SUITE_OF(json, 30, reads_every_kind_of_value, integers_are_whole_and_exact)
