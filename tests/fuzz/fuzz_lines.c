/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a plain or gzipped text: every line ends, or one sentence says why not. Inputs that begin with
 * "gz:" are packed first, because no fuzzer guesses the checksums of gzip. An input that unpacks to much
 * is left after a million bytes: how long a file takes is its reader's affair, how much it holds is ours.
 */
#include <zlib.h>

#include "fuzz.h"
#include "icae/lines.h"

/* data as one gzip member; the space for it is the caller's. */
static size_t pack(const uint8_t *data, size_t bytes, uint8_t *out, size_t room) {
    z_stream z = {0};
    const int window = 15, gzip = 16, memory = 8;
    if (deflateInit2(&z, 1, Z_DEFLATED, window + gzip, memory, Z_DEFAULT_STRATEGY) != Z_OK)
        abort();
    z.next_in = (uint8_t *)(uintptr_t)data;
    z.avail_in = (unsigned)bytes;
    z.next_out = out;
    z.avail_out = (unsigned)room;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END) abort();
    deflateEnd(&z);
    return room - z.avail_out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    enum { MOST_LINE = 1 << 16, MOST_TEXT = 1 << 20, MOST_INPUT = 1 << 16 };
    static uint8_t packed[MOST_INPUT + MOST_INPUT / 8 + 1024];
    if (bytes > 3 && bytes <= MOST_INPUT && !memcmp(data, "gz:", 3)) {
        bytes = pack(data + 3, bytes - 3, packed, sizeof packed);
        data = packed;
    }
    const char *path = fuzz_file(data, bytes);
    icae_lines *lines = NULL;
    icae_error error = {0};
    fuzz_watch_begin();
    if (icae_lines_open(&lines, path, &error)) {
        fuzz_expect_sentence(&error);
        return 0;
    }
    const char *line = "";
    size_t length;
    while (line && icae_lines_offset(lines) < MOST_TEXT) {
        if (icae_lines_next(lines, MOST_LINE, &line, &length, &error)) {
            fuzz_expect_sentence(&error);
            break;
        }
        if (line && (line[length] != 0 || length > MOST_LINE)) abort();
    }
    icae_lines_close(lines);
    fuzz_watch_end(bytes, bound_lines);
    return 0;
}
