/* SPDX-License-Identifier: MIT */
/* Any bytes as a slots file: refused with a sentence, or whole. */
#include "fuzz.h"
#include "icae/slots.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *path = fuzz_file(data, bytes);
    icae_slots slots = {0};
    icae_error error = {0};
    fuzz_watch_begin();
    if (icae_slots_load(&slots, path, NULL, NULL, &error)) {
        fuzz_expect_sentence(&error);
        if (slots.values || slots.span_lengths) abort();
    } else if (slots.n_spans < 1 || slots.slots_per_span < 1 || slots.width < 1 ||
               !slots.values || !slots.span_lengths) {
        abort();
    }
    icae_slots_release(&slots);
    fuzz_watch_end(bytes, bound_slots);
    return 0;
}
