/* SPDX-License-Identifier: MIT */
/* See cli_support.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/file.h"

const char passage[] = "It was a bright cold day in April, and the clocks were striking "
                       "thirteen. Nobody had looked at them since morning.";

const char *folder_with_slots(const char *name) {
    icae_error error = {0};
    const char *folder = test_folder(name);
    ck_ok(icae_file_write(test_path(folder, "text.txt"), passage, strlen(passage), &error));
    outcome made = run_in(folder, "$ICAE compress " WITH " %s/text.txt", folder);
    ck_assert_msg(made.code == 0, "compress: %s", made.err);
    return folder;
}

const icae_json_value *parse(outcome result) {
    icae_error error = {0};
    enum { MOST = 64 };
    static icae_json *kept[MOST];
    static int n_kept;
    icae_json *json;
    ck_assert_msg(result.code == 0, "exit code %d: %s", result.code, result.err);
    ck_ok(icae_json_parse(&json, "standard output", result.out, strlen(result.out), &error));
    ck_assert(icae_json_is_object(icae_json_root(json)));
    ck_assert_int_lt(n_kept, MOST);
    kept[n_kept] = json;
    return icae_json_root(kept[n_kept++]);
}

double number(const icae_json_value *object, const char *key) {
    double value = (double)NAN;
    ck_assert_msg(icae_json_as_number(icae_json_member(object, key), &value),
                  "\"%s\" is missing", key);
    return value;
}

const char *string(const icae_json_value *object, const char *key) {
    const char *value = icae_json_as_string(icae_json_member(object, key));
    ck_assert_msg(value != NULL, "\"%s\" is missing", key);
    return value;
}
