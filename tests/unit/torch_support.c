/* SPDX-License-Identifier: MIT */
/* See torch_support.h. */
#include <string.h>

#include "icae/file.h"
#include "icae/torch_file.h"
#include "suites.h"
#include "torch_support.h"

const char *stored_torch(const char *folder, const char *program, size_t bytes,
                         const stored_entry *more) {
    icae_error error = {0};
    static const float numbers[6] = {0, 1, 2, 3, 4, 5};
    const stored_entry entries[] = {{"any/data.pkl", program, bytes},
                                    {"any/data/0", numbers, sizeof numbers},
                                    more ? *more : (stored_entry){0}};
    icae_text out = {0};
    stored_zip(&out, entries, more ? 3 : 2);
    const char *path = test_path(folder, "x.pt");
    ck_ok(icae_file_write(path, out.data, out.length, &error));
    icae_text_release(&out);
    return path;
}

void refuses_torch(const char *path, const char *sentence, icae_status status) {
    icae_error error = {0};
    icae_torch_file file;
    ck_refused(icae_torch_file_open(&file, path, &error), sentence);
    ck_assert_msg(error.status == status, "%s", error.message);
    ck_assert_msg(!strncmp(error.message, path, strlen(path)), "%s", error.message);
    ck_assert_ptr_null(file.mapping.data);
}
