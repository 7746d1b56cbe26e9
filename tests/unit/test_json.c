/* SPDX-License-Identifier: MIT */
/* JSON: what is read, what is refused and on which line, settings cursors, writing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "icae/json.h"
#include "icae/log.h"
#include "icae/rng.h"
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
        {"1E+3", true, 1000},
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

/* What the scan shows on which line. */
static const struct {
    const char *text, *sentence;
} broken[] = {
    {"", "x.json:1: expected a value (strings stand in double quotes), but the text ends"},
    {" \n ", "x.json:2: expected a value"},
    {"{", "x.json:1: expected a key in double quotes, but the text ends"},
    {"{\n\"a\":1,\n}", "x.json:3: expected a key in double quotes, got '}'"},
    {"{a:1}", "expected a key in double quotes, got 'a'"},
    {"{\"a\" 1}", "expected ':' after a key, got '1'"},
    {"{\"a\":}", "expected a value (strings stand in double quotes), got '}'"},
    {"{\"a\":1 \"b\":2}", "expected ',' or '}', got '\"'"},
    {"[1 2]", "expected ',' or ']', got '2'"},
    {"[1,]", "expected a value (strings stand in double quotes), got ']'"},
    {"[", "expected a value (strings stand in double quotes), but the text ends"},
    {"[1", "expected ',' or ']', but the text ends"},
    {"1 2", "expected nothing after the value, got '2'"},
    {"{}\n\n]", "x.json:3: expected nothing after the value, got ']'"},
    {"tru", "expected a value"},
    {"nul1", "expected a value"},
    {"True", "expected a value (strings stand in double quotes), got 'T'"},
    {"NaN", "expected a value"},
    {"-Infinity", "expected a digit, got 'I'"},
    {"'a'", "expected a value (strings stand in double quotes), got '''"},
    {"01", "a number begins with a superfluous 0"},
    {"-", "expected a digit, but the text ends"},
    {"+1", "expected a value"},
    {".5", "expected a value"},
    {"1.", "expected a digit, but the text ends"},
    {"1.e5", "expected a digit, got 'e'"},
    {"1e", "expected a digit"},
    {"0x10", "expected nothing after the value, got 'x'"},
    {"1e400", "x.json:1: a number is too large for a double"},
    {"{\"a\":\n[1,\n-1e999]}", "x.json:3: a number is too large for a double"},
    {"1111111111111111111111111111111111111111111111111111111111111111",
     "a number has more than 63 characters"},
    {"\"abc", "expected a closing quote, but the text ends"},
    {"\"a\nb\"",
     "control characters in strings to be escaped (\\n, \\u001B), got the byte 0x0A"},
    {"\"a\tb\"", "got the byte 0x09"},
    {"\"\\x41\"", "expected one of \" \\ / b f n r t u after a backslash, got 'x'"},
    {"\"\\", "after a backslash, but the text ends"},
    {"\"\\u12G4\"", "expected four hexadecimal digits after \\u, got 'G'"},
    {"\"\\u12", "four hexadecimal digits after \\u, but the text ends"},
    {"\"\\ud800\"", "first half of a surrogate pair alone"},
    {"\"\\ud800\\n\"", "first half of a surrogate pair alone"},
    {"\"\\ud800\\u0041\"", "first half of a surrogate pair alone"},
    {"\"\\udc00\"", "second half of a surrogate pair alone"},
    {"{\"a\\u0000\":1}", "\\u0000 cannot stand in a key"},
    {"[\"\xFF\"]", "expected well-formed UTF-8, got the byte 0xFF"},
    {"[\"\xC0\x80\"]", "expected well-formed UTF-8, got the byte 0xC0"},
    {"[\"\xED\xA0\x80\"]", "expected well-formed UTF-8, got the byte 0xED"},
    {"[\"\xE2\x82\"]", "expected well-formed UTF-8, got the byte 0xE2"},
    {"\xEF\xBB\xBF{}", "begins with a byte order mark"},
    {"{\"a\":1,\n\"b\":2,\n\"a\":3}", "x.json:3: the key 'a' stands twice"},
    {"[{},\n{\"x\":{\"a\":1,\"\\u0061\":2}}]", "x.json:2: the key 'a' stands twice"},
    {"// no\n{}", "expected a value (strings stand in double quotes), got '/'"},
};

START_TEST(refuses_broken_texts_with_line_and_reason) {
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        icae_error error = {0};
        icae_json *json;
        ck_refused(parse(&json, broken[i].text, &error), broken[i].sentence);
        ck_assert_int_eq(error.status, ICAE_FORMAT);
        ck_assert_msg(!strncmp(error.message, "x.json:", 7), "%s", error.message);
        ck_assert_ptr_null(json);
    }
    icae_error error = {0};
    icae_json *json;
    ck_refused(icae_json_parse(&json, "n", "[1,\0 2]", 7, &error), "got the byte 0x00");
    ck_refused(icae_json_parse(&json, "n", "\"a\0b\"", 5, &error), "got the byte 0x00");
    ck_refused(icae_json_parse(&json, "n", "[1,2]", 4, &error), "but the text ends");
    ck_refused(icae_json_open(&json, "no/such.json", &error), "no/such.json: cannot open");
}
END_TEST

START_TEST(nests_64_deep_and_no_deeper) {
    icae_error error = {0};
    icae_json *json;
    icae_text text = {0};
    for (int depth = 64; depth <= 65; depth++) {
        icae_text_clear(&text);
        for (int i = 0; i < depth; i++)
            icae_text_append_string(&text, i % 2 ? "{\"a\":" : "[");
        icae_text_append_string(&text, "1");
        for (int i = depth - 1; i >= 0; i--)
            icae_text_append_char(&text, i % 2 ? '}' : ']');
        if (depth == 64) {
            ck_ok(parse(&json, text.data, &error));
            icae_json_free(json);
        } else {
            ck_refused(parse(&json, text.data, &error), "nested more than 64 deep");
        }
    }
    icae_text_clear(&text);
    for (int i = 0; i < 1000000; i++)
        icae_text_append_char(&text, '[');
    ck_refused(parse(&json, text.data, &error), "nested more than 64 deep");
    icae_text_release(&text);
}
END_TEST

START_TEST(keeps_zeros_in_texts) {
    icae_json *json = parsed("[\"a\\u0000b\\\\u0000\\u0000\", \"plain\", \"\\u0000\", 1]");
    const icae_json_value *v = icae_json_first(icae_json_root(json));
    const char *data = NULL;
    size_t bytes = 0;
    ck_assert(icae_json_as_bytes(v, &data, &bytes));
    ck_assert_uint_eq(bytes, 10);
    ck_assert_mem_eq(data, "a\0b\\u0000\0", 11);
    ck_assert_ptr_null(icae_json_as_string(v));
    v = icae_json_next(v);
    ck_assert(icae_json_as_bytes(v, &data, &bytes) && bytes == 5);
    ck_assert_str_eq(icae_json_as_string(v), "plain");
    v = icae_json_next(v);
    ck_assert(icae_json_as_bytes(v, &data, &bytes) && bytes == 1 && data[0] == 0);
    ck_assert(!icae_json_as_bytes(icae_json_next(v), &data, &bytes));
    icae_json_free(json);
}
END_TEST

START_TEST(knows_the_line_of_every_value) {
    icae_json *json =
        parsed("\n{\"a\":\n1,\n\"b\": [\n2,\n\n{\"c\"\n:3}\n, \"\\n\\u0000\"], \"d\":4}");
    const icae_json_value *root = icae_json_root(json);
    const icae_json_value *b = icae_json_member(root, "b"), *first = icae_json_first(b);
    const icae_json_value *object = icae_json_next(first), *last = icae_json_next(object);
    ck_assert_int_eq(icae_json_line(json, root), 2);
    ck_assert_int_eq(icae_json_line(json, icae_json_member(root, "a")), 2); /* the key's line */
    ck_assert_int_eq(icae_json_line(json, b), 4);
    ck_assert_int_eq(icae_json_line(json, first), 5);
    ck_assert_int_eq(icae_json_line(json, object), 7);
    ck_assert_int_eq(icae_json_line(json, icae_json_first(object)), 7);
    ck_assert_int_eq(icae_json_line(json, last), 9);
    ck_assert_int_eq(icae_json_line(json, icae_json_member(root, "d")), 9);
    ck_assert_int_eq(icae_json_line(json, NULL), 0);
    icae_json *other = parsed("[1]");
    ck_assert_int_eq(icae_json_line(json, icae_json_root(other)), 0);
    icae_json_free(other);
    icae_json_free(json);
}
END_TEST

/* A vocabulary of 150 000 entries: linear time, and duplicates are still found. */
START_TEST(reads_large_objects_in_linear_time) {
    icae_error error = {0};
    icae_text text = {0};
    icae_text_append_string(&text, "{");
    for (int i = 0; i < 150000; i++)
        icae_text_printf(&text, "\n\"token %d\": %d,", i, i);
    size_t length = text.length;
    icae_text_append_string(&text, "\"last\": [1, 2]}");
    icae_json *json;
    double start = icae_clock_seconds();
    ck_ok(parse(&json, text.data, &error));
    ck_assert_msg(icae_clock_seconds() - start < 5, "reading took seconds");
    ck_assert_uint_eq(icae_json_count(icae_json_root(json)), 150001);
    int64_t value = 0, expected = 0;
    const icae_json_value *v = icae_json_first(icae_json_root(json));
    for (; icae_json_as_integer(v, &value); v = icae_json_next(v), expected++)
        ck_assert_int_eq(value, expected);
    ck_assert_int_eq(expected, 150000);
    ck_assert_str_eq(icae_json_key(v), "last");
    icae_json_free(json);

    text.length = length;
    icae_text_append_string(&text, "\n\"token 77777\": 0}");
    ck_refused(parse(&json, text.data, &error), "x.json:150002: the key 'token 77777' stands");
    icae_text_release(&text);
}
END_TEST

/* ---- settings ---- */

static const char settings[] = "{\n"
                               "  \"steps\": 100,\n"
                               "  \"learing_rate\": 1e-4,\n"
                               "  \"verbose\": true,\n"
                               "  \"name\": \"run\",\n"
                               "  \"layout\":\n    \"append\",\n"
                               "  \"nothing\": null,\n"
                               "  \"list\": [1], \"zero\": \"a\\u0000\"\n"
                               "}";
static const char *const layouts[] = {"uniform", "append", NULL};

START_TEST(hands_out_settings_and_defaults) {
    icae_error error = {0};
    icae_json *json = parsed(settings);
    icae_json_object o = icae_json_begin(json, icae_json_root(json), "", &error);
    ck_assert_int_eq(icae_json_get_integer(&o, "steps", 5, 1, 100), 100);
    ck_assert(icae_json_get_number(&o, "learing_rate", 3, 0, 1) == 1e-4);
    ck_assert(icae_json_get_bool(&o, "verbose", false));
    ck_assert_str_eq(icae_json_get_string(&o, "name", "x"), "run");
    ck_assert_int_eq(icae_json_get_choice(&o, "layout", layouts, 0), 1);
    ck_assert(icae_json_is_array(icae_json_get_value(&o, "list")));
    ck_assert_ptr_nonnull(icae_json_get_value(&o, "zero"));
    ck_assert_int_eq(icae_json_get_integer(&o, "nothing", 7, 0, 9), 7); /* null: the default */
    ck_assert_ptr_null(icae_json_get_value(&o, "absent"));
    ck_assert_int_eq(icae_json_get_integer(&o, "absent", -3, 0, 9), -3);
    ck_assert(icae_json_get_bool(&o, "absent", true));
    ck_assert_ptr_null(icae_json_get_string(&o, "absent", NULL));
    ck_assert_int_eq(icae_json_get_choice(&o, "absent", layouts, 1), 1);
    ck_assert(icae_json_has(&o, "steps") && !icae_json_has(&o, "absent"));
    ck_ok(icae_json_end(&o));

    icae_json_object none = icae_json_begin(json, NULL, "none.", &error);
    ck_assert_int_eq(icae_json_get_integer(&none, "steps", 5, 1, 100), 5);
    ck_ok(icae_json_end(&none));
    icae_json_free(json);
}
END_TEST

START_TEST(complains_with_file_line_and_key) {
    icae_json *json = parsed(settings);
    static const struct {
        const char *kind, *key, *sentence;
    } rows[] = {
        {"integer", "name", "x.json:5: train.name: expected a whole number"},
        {"integer", "learing_rate", "x.json:3: train.learing_rate: expected a whole number"},
        {"integer", "steps", "x.json:2: train.steps: expected 1 to 99, got 100"},
        {"number", "verbose", "x.json:4: train.verbose: expected a number"},
        {"number", "steps", "x.json:2: train.steps: expected 1 to 99, got 100"},
        {"bool", "steps", "x.json:2: train.steps: expected true or false"},
        {"string", "list", "x.json:9: train.list: expected a string in double quotes"},
        {"string", "zero", "x.json:9: train.zero: holds \\u0000; remove it"},
        {"choice", "name",
         "x.json:5: train.name: expected one of \"uniform\", \"append\", got \"run\""},
        {"choice", "steps", "x.json:2: train.steps: expected one of \"uniform\", \"append\""},
        {"own", "layout", "x.json:6: train.layout: is 7 too many"},
        {"own", "absent", "x.json:1: train.absent: is 7 too many"},
        {"own", NULL, "x.json:1: train: is 7 too many"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        icae_error error = {0};
        icae_json_object o = icae_json_begin(json, icae_json_root(json), "train.", &error);
        const char *kind = rows[i].kind, *key = rows[i].key;
        if (!strcmp(kind, "integer")) {
            ck_assert_int_eq(icae_json_get_integer(&o, key, 42, 1, 99), 42);
        } else if (!strcmp(kind, "number")) {
            ck_assert(icae_json_get_number(&o, key, 42, 1, 99) == 42);
        } else if (!strcmp(kind, "bool")) {
            ck_assert(icae_json_get_bool(&o, key, true));
        } else if (!strcmp(kind, "string")) {
            ck_assert_str_eq(icae_json_get_string(&o, key, "d"), "d");
        } else if (!strcmp(kind, "choice")) {
            ck_assert_int_eq(icae_json_get_choice(&o, key, layouts, 1), 1);
        } else {
            icae_json_complain(&o, key, "is %d too many", 7);
        }
        ck_assert_str_eq(error.message, rows[i].sentence);
        /* Sticky: later gets give defaults, later complaints change nothing. */
        ck_assert_int_eq(icae_json_get_integer(&o, "steps", 1, 0, 1000), 1);
        icae_json_complain(&o, NULL, "later");
        ck_assert_int_eq(icae_json_end_lenient(&o), ICAE_INVALID);
        ck_assert_int_eq(icae_json_end(&o), ICAE_INVALID);
        ck_assert_str_eq(error.message, rows[i].sentence);
    }
    icae_json_free(json);
}
END_TEST

START_TEST(names_unknown_keys_and_the_nearest_known) {
    icae_error error = {0};
    icae_json *json = parsed(settings);
    icae_json_object o = icae_json_begin(json, icae_json_root(json), "", &error);
    icae_json_get_integer(&o, "steps", 1, 0, 1000);
    icae_json_get_number(&o, "warmup", 1, 0, 1000);
    icae_json_get_number(&o, "learning_rate", 1, 0, 1000);
    ck_ok(icae_json_end_lenient(&o));
    ck_refused(icae_json_end(&o), "x.json:3: learing_rate: unknown key 'learing_rate'; did you "
                                  "mean 'learning_rate'?");
    o = icae_json_begin(json, icae_json_root(json), "a.b.", &error);
    icae_json_get_integer(&o, "quite_another", 1, 0, 1000);
    ck_refused(icae_json_end(&o), "x.json:2: a.b.steps: unknown key 'steps'; remove it");
    icae_json_free(json);
}
END_TEST

START_TEST(refuses_settings_that_are_no_object) {
    icae_error error = {0};
    icae_json *json = parsed("{\"a\":\n[]}");
    const icae_json_value *array = icae_json_member(icae_json_root(json), "a");
    icae_json_object o = icae_json_begin(json, array, "a.", &error);
    ck_assert_int_eq(icae_json_get_integer(&o, "x", 3, 0, 9), 3);
    ck_refused((icae_json_begin(json, array, "a.", &error)).status,
               "x.json:1: a: expected an object");
    icae_json_free(json);

    icae_text text = {0};
    for (int n = 256; n <= 257; n++) {
        icae_text_clear(&text);
        for (int i = 0; i < n; i++)
            icae_text_printf(&text, "%s\"k%d\":%d", i ? "," : "{", i, i);
        icae_text_append_string(&text, "}");
        json = parsed(text.data);
        error = (icae_error){0};
        o = icae_json_begin(json, icae_json_root(json), "", &error);
        if (n == 256) {
            char key[8];
            for (int i = 0; i < n; i++) {
                snprintf(key, sizeof key, "k%d", i);
                ck_assert_int_eq(icae_json_get_integer(&o, key, -1, 0, 999), i);
            }
            ck_ok(icae_json_end(&o));
        } else {
            ck_assert_int_eq(icae_json_end_lenient(&o), ICAE_INVALID);
            ck_assert_str_eq(error.message, "x.json:1: has more than 256 keys");
        }
        icae_json_free(json);
    }
    icae_text_release(&text);
}
END_TEST

/* ---- writing ---- */

START_TEST(writes_strings_that_read_back) {
    static const char all[] = "\"\\/\b\f\n\r\t\x01\x1F\x7F \xC3\xA9 \xF0\x9F\x98\x80 \0 end";
    icae_text out = {0};
    icae_json_write_string(&out, all, sizeof all - 1);
    ck_assert_str_eq(out.data, "\"\\\"\\\\/\\u0008\\u000C\\n\\r\\t\\u0001\\u001F\x7F \xC3\xA9 "
                               "\xF0\x9F\x98\x80 \\u0000 end\"");
    icae_json *json = parsed(out.data);
    const char *data = NULL;
    size_t bytes = 0;
    ck_assert(icae_json_as_bytes(icae_json_root(json), &data, &bytes));
    ck_assert_uint_eq(bytes, sizeof all - 1);
    ck_assert_mem_eq(data, all, bytes);
    icae_json_free(json);

    icae_text_clear(&out);
    icae_json_write_string(&out,
                           "a\xFF"
                           "b\xE2\x82",
                           5);
    ck_assert_str_eq(out.data, "\"a\xEF\xBF\xBD"
                               "b\xEF\xBF\xBD\xEF\xBF\xBD\"");
    icae_text_clear(&out);
    icae_json_write_string(&out, "", 0);
    ck_assert_str_eq(out.data, "\"\"");
    icae_text_release(&out);
}
END_TEST

START_TEST(writes_numbers_that_read_back) {
    static const struct {
        double number;
        const char *text;
    } rows[] = {
        {0, "0"},
        {-0.0, "-0"},
        {1, "1"},
        {-17.25, "-17.25"},
        {0.1, "0.1"},
        {1e-4, "0.0001"},
        {1.0 / 3, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1e300, "1e+300"},
        {5e-324, NULL},
        {1.7976931348623157e308, NULL},
        {9007199254740991.0, "9007199254740991"},
        {HUGE_VAL, "null"},
        {-HUGE_VAL, "null"},
        {(double)NAN, "null"},
    };
    icae_text out = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        icae_text_clear(&out);
        icae_json_write_number(&out, rows[i].number);
        if (rows[i].text) ck_assert_str_eq(out.data, rows[i].text);
    }
    icae_rng rng = {.seed = 11};
    for (int i = 0; i < 20000; i++) {
        double number =
            icae_rng_normal(&rng) * pow(10, (double)icae_rng_below(&rng, 600) - 300);
        icae_text_clear(&out);
        icae_json_write_number(&out, number);
        icae_json *json = parsed(out.data);
        double back = 0;
        ck_assert(icae_json_as_number(icae_json_root(json), &back));
        ck_assert_msg(back == number, "%s", out.data);
        icae_json_free(json);
    }
    icae_text_release(&out);
}
END_TEST

START_TEST(reads_the_golden_files) {
    static const char *const paths[] = {
        "tests/golden/llama/expected.json", "tests/golden/llama/model/tokenizer.json",
        "tests/golden/llama/model/config.json", "tests/golden/smollm2/expected.json"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        icae_error error = {0};
        icae_json *json;
        ck_ok(icae_json_open(&json, paths[i], &error));
        ck_assert_str_eq(icae_json_name(json), paths[i]);
        ck_assert_uint_gt(icae_json_count(icae_json_root(json)), 5);
        icae_json_free(json);
    }
}
END_TEST

SUITE_OF(json, 60, reads_every_kind_of_value, integers_are_whole_and_exact,
         refuses_broken_texts_with_line_and_reason, nests_64_deep_and_no_deeper,
         keeps_zeros_in_texts, knows_the_line_of_every_value,
         reads_large_objects_in_linear_time, hands_out_settings_and_defaults,
         complains_with_file_line_and_key, names_unknown_keys_and_the_nearest_known,
         refuses_settings_that_are_no_object, writes_strings_that_read_back,
         writes_numbers_that_read_back, reads_the_golden_files)
