/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a run's config, and as an assignment of --set: refused, or settings that are written as JSON
 * which reads back to the same.
 */
#include "fuzz.h"
#include "icae/settings.h"

static void check_round(const icae_settings *settings) {
    icae_text first = {0}, second = {0};
    icae_error error = {0};
    icae_settings again;
    icae_settings_write(settings, &first);
    icae_settings_init(&again);
    if (icae_settings_read(&again, fuzz_file((const uint8_t *)first.data, first.length),
                           &error))
        abort();
    icae_settings_write(&again, &second);
    if (first.length != second.length || memcmp(first.data, second.data, first.length)) abort();
    icae_settings_release(&again);
    icae_text_release(&first);
    icae_text_release(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *path = fuzz_file(data, bytes);
    icae_error error = {0};
    icae_settings settings;
    fuzz_watch_begin();
    icae_settings_init(&settings);
    if (icae_settings_read(&settings, path, &error)) {
        fuzz_expect_sentence(&error);
    } else {
        error = (icae_error){0};
        if (icae_settings_check(&settings, &error)) fuzz_expect_sentence(&error);
        check_round(&settings);
    }
    icae_settings_release(&settings);

    icae_settings_init(&settings);
    char *assignment = strndup((const char *)data, bytes);
    error = (icae_error){0};
    if (assignment && icae_settings_set(&settings, assignment, &error))
        fuzz_expect_sentence(&error);
    free(assignment);
    icae_settings_release(&settings);
    fuzz_watch_end(bytes, bound_settings);
    return 0;
}
