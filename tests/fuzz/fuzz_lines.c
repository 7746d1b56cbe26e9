/* SPDX-License-Identifier: MIT */
/* Any bytes as a plain or gzipped text: every line ends, or one sentence says why not. */
#include "fuzz.h"
#include "icae/lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    icae_lines *lines = NULL;
    icae_error error = {0};
    if (icae_lines_open(&lines, fuzz_file(data, bytes), &error)) {
        fuzz_expect_sentence(&error);
        return 0;
    }
    const char *line = "";
    size_t length;
    while (line) {
        if (icae_lines_next(lines, 1 << 16, &line, &length, &error)) {
            fuzz_expect_sentence(&error);
            break;
        }
        if (line && line[length] != 0) abort();
    }
    icae_lines_close(lines);
    return 0;
}
