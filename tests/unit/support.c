/* SPDX-License-Identifier: MIT */
/* Folders and paths for tests; see suites.h. */
#include <stdio.h>
#include <stdlib.h>

#include "icae/file.h"
#include "suites.h"

const char *test_build_folder(void) {
    const char *folder = getenv("ICAE_BUILD");
    return folder ? folder : "build/release";
}

const char *test_folder(const char *name) {
    static char path[512];
    icae_error error = {0};
    snprintf(path, sizeof path, "%s/test-files/%s", test_build_folder(), name);
    ck_ok(icae_folder_remove(path, &error));
    ck_ok(icae_folder_make(path, &error));
    return path;
}

const char *test_path(const char *folder, const char *name) {
    static char ring[8][640];
    static unsigned next;
    char *path = ring[next++ % 8];
    snprintf(path, sizeof ring[0], "%s/%s", folder, name);
    return path;
}

const char *test_base_model(void) {
    static const char fetched[] = "data/base/smollm2-135m-instruct-q4_1.gguf";
    const char *path = getenv("ICAE_BASE");
    if (!path) path = fetched;
    return icae_path_exists(path) ? path : NULL;
}
