/* SPDX-License-Identifier: MIT */
/* Any bytes as JSON: refused with a sentence, or a tree that can be walked. */
#include "fuzz.h"
#include "icae/json.h"

static void walk(const icae_json *json, const icae_json_value *value) {
    double number;
    if (icae_json_as_number(value, &number) && number != number)
        abort(); /* JSON knows no NaN */
    for (const icae_json_value *child = icae_json_first(value); child;
         child = icae_json_next(child)) {
        walk(json, child);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    icae_json *json = NULL;
    icae_error error = {0};
    fuzz_watch_begin();
    if (icae_json_parse(&json, "input", (const char *)data, bytes, &error)) {
        fuzz_expect_sentence(&error);
    } else {
        walk(json, icae_json_root(json));
    }
    icae_json_free(json);
    fuzz_watch_end(bytes, bound_json);
    return 0;
}
