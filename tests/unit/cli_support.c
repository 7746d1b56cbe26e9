/* SPDX-License-Identifier: MIT */
/* See cli_support.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_support.h"
#include "icae/file.h"
#include "icae/safetensors.h"

const char passage[] = "It was a bright cold day in April, and the clocks were striking "
                       "thirteen. Nobody had looked at them since morning.";

void must(outcome result) {
    ck_assert_msg(result.code == 0, "exit code %d: %s", result.code, result.err);
}

void must_refuse(outcome result, const char *sentence) {
    ck_assert_int_eq(result.code, 1);
    ck_assert_msg(strstr(result.err, sentence), "\"%s\" lacks \"%s\"", result.err, sentence);
}

void must_say(outcome result, const char *const *sentences) {
    must(result);
    for (; *sentences; sentences++) {
        ck_assert_msg(strstr(result.out, *sentences), "\"%s\" lacks \"%s\"", result.out,
                      *sentences);
    }
}

const char *folder_with_slots_of(const char *name, const char *base, const char *adapter) {
    icae_error error = {0};
    const char *folder = test_folder(name);
    ck_ok(icae_file_write(test_path(folder, "text.txt"), passage, strlen(passage), &error));
    must(run_in(folder, "$ICAE compress -m %s -a %s %s/text.txt", base, adapter, folder));
    return folder;
}

const char *folder_with_slots(const char *name) {
    return folder_with_slots_of(name, TINY_BASE, TINY_ADAPTER);
}

/* Every tensor of one file has its equal in the other, byte for byte. */
static void same_tensors(const char *left, const char *right) {
    icae_error error = {0};
    icae_safetensors a = {0}, b = {0};
    ck_ok(icae_safetensors_open(&a, left, &error));
    ck_ok(icae_safetensors_open(&b, right, &error));
    ck_assert_uint_eq(a.n_entries, b.n_entries);
    ck_assert_uint_gt(a.n_entries, 0);
    for (size_t i = 0; i < a.n_entries; i++) {
        ck_assert_str_eq(a.entries[i].name, b.entries[i].name);
        ck_assert_int_eq(a.entries[i].dtype, b.entries[i].dtype);
        ck_assert_uint_eq(a.entries[i].bytes, b.entries[i].bytes);
        ck_assert_mem_eq(a.entries[i].data, b.entries[i].data, a.entries[i].bytes);
    }
    icae_safetensors_close(&a);
    icae_safetensors_close(&b);
}

void same_adapter(const char *left, const char *right) {
    same_tensors(test_path(left, "adapter_model.safetensors"),
                 test_path(right, "adapter_model.safetensors"));
    same_tensors(test_path(left, "memory.safetensors"), test_path(right, "memory.safetensors"));
}

const icae_json_value *parse(outcome result) {
    icae_error error = {0};
    enum { MOST = 64 };
    static icae_json *kept[MOST];
    static int n_kept;
    icae_json *json;
    must(result);
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
