/* SPDX-License-Identifier: MIT */
/* Any bytes as a gguf file: refused with a sentence or read, its numbers and its tokenizer too. */
#include "fuzz.h"
#include "icae/gguf.h"
#include "icae/tokenizer.h"

/* Every item and tensor is found under its name, and every byte it points to can be read. */
static unsigned touch(const icae_gguf *file) {
    unsigned sum = 0;
    for (size_t i = 0; i < file->n_items; i++) {
        const icae_gguf_item *item = &file->items[i];
        int64_t integer;
        double number;
        if (icae_gguf_item_find(file, item->key) != item) abort();
        if (item->count && icae_gguf_integer(item, item->count - 1, &integer)) sum++;
        if (item->count && icae_gguf_number(item, item->count - 1, &number)) sum++;
        if (icae_gguf_integer(item, item->count, &integer)) abort();
        for (uint64_t k = 0; item->strings && k < item->count; k++) {
            const icae_gguf_string *s = &item->strings[k];
            if (s->bytes) sum += (unsigned char)s->data[s->bytes - 1];
        }
    }
    for (size_t i = 0; i < file->n_tensors; i++) {
        const icae_gguf_tensor *tensor = &file->tensors[i];
        const unsigned char *data = tensor->data;
        if (icae_gguf_find(file, tensor->name) != tensor) abort();
        if (tensor->bytes) sum += data[0] + data[tensor->bytes - 1];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    const char *path = fuzz_file(data, bytes);
    icae_gguf file = {0};
    icae_error error = {0};
    fuzz_watch_begin();
    if (icae_gguf_open(&file, path, &error)) {
        fuzz_expect_sentence(&error);
        fuzz_watch_end(bytes, bound_gguf);
        return 0;
    }
    fuzz_watch_end(bytes, bound_gguf);
    fuzz_use(touch(&file));
    icae_tokenizer *tokenizer;
    if (icae_tokenizer_from_gguf(&tokenizer, &file, &error)) fuzz_expect_sentence(&error);
    icae_tokenizer_free(tokenizer);
    icae_gguf_close(&file);
    fuzz_watch_end(bytes, bound_gguf_tokenizer);
    return 0;
}
