/* SPDX-License-Identifier: MIT */
/*
 * Token ids of many texts at once, for tests/interop/tokenizers.py.
 *
 *     tokenize MODEL [reverse] < IN > OUT
 *
 * MODEL is a folder with tokenizer.json or tokenizer.model, or a .gguf. IN holds records: bytes as
 * u32, then the text. OUT holds for each: count as u32, the ids as i32, then bytes as u32 and the
 * text that they decode to. With "reverse" IN's records are counts and ids, and OUT's only texts,
 * decoded at once and, second, through a stream. Numbers are little-endian. The last line on stderr
 * says how fast encoding was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "icae/tokenizer.h"

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void stop(const char *why) {
    fprintf(stderr, "tokenize: %s\n", why);
    exit(1);
}

/* The next record of `each`-byte things, malloc'ed; NULL at the end of the input. */
static void *read_record(uint32_t *count, size_t each) {
    if (fread(count, sizeof *count, 1, stdin) != 1) return NULL;
    void *data = malloc(*count * each + 1);
    if (!data) stop("not enough memory");
    if (fread(data, each, *count, stdin) != *count) stop("the input ends inside a record");
    return data;
}

static void write_text(icae_text *text) {
    uint32_t bytes = (uint32_t)text->length;
    if (text->failed) stop("not enough memory");
    fwrite(&bytes, sizeof bytes, 1, stdout);
    fwrite(icae_text_string(text), 1, bytes, stdout);
    icae_text_release(text);
}

static void decode(const icae_tokenizer *tokenizer, const int32_t *ids, size_t count) {
    icae_error error = {0};
    icae_text text = {0};
    if (icae_tokenizer_decode(tokenizer, ids, count, false, &text, &error)) stop(error.message);
    write_text(&text);
}

static void decode_stream(const icae_tokenizer *tokenizer, const int32_t *ids, size_t count) {
    icae_token_stream stream = {0};
    icae_text text = {0};
    for (size_t i = 0; i < count; i++)
        icae_token_stream_push(&stream, tokenizer, ids[i], &text);
    icae_token_stream_finish(&stream, &text);
    write_text(&text);
}

static icae_tokenizer *open_model(const char *path) {
    icae_error error = {0};
    icae_tokenizer *tokenizer;
    size_t length = strlen(path);
    if (length > 5 && strcmp(path + length - 5, ".gguf") == 0) {
        icae_gguf file;
        if (icae_gguf_open(&file, path, &error)) stop(error.message);
        if (icae_tokenizer_from_gguf(&tokenizer, &file, &error)) stop(error.message);
        icae_gguf_close(&file);
    } else if (icae_tokenizer_open_folder(&tokenizer, path, &error)) {
        stop(error.message);
    }
    return tokenizer;
}

int main(int argc, char **argv) {
    bool is_reverse = argc == 3 && strcmp(argv[2], "reverse") == 0;
    if (argc != 2 && !is_reverse) stop("usage: tokenize MODEL [reverse] < IN > OUT");
    icae_tokenizer *tokenizer = open_model(argv[1]);
    double spent = 0, bytes = 0;
    uint32_t n;
    void *record;
    while ((record = read_record(&n, is_reverse ? sizeof(int32_t) : 1))) {
        if (is_reverse) {
            decode(tokenizer, record, n);
            decode_stream(tokenizer, record, n);
        } else {
            icae_error error = {0};
            int32_t *ids;
            size_t count;
            double start = seconds();
            if (icae_tokenizer_encode(tokenizer, record, n, true, &ids, &count, &error))
                stop(error.message);
            spent += seconds() - start;
            bytes += n;
            uint32_t short_count = (uint32_t)count;
            fwrite(&short_count, sizeof short_count, 1, stdout);
            fwrite(ids, sizeof *ids, count, stdout);
            decode(tokenizer, ids, count);
            free(ids);
        }
        free(record);
    }
    if (!is_reverse)
        fprintf(stderr, "%.1f MB at %.1f MB/s\n", 1e-6 * bytes, 1e-6 * bytes / spent);
    icae_tokenizer_free(tokenizer);
    return 0;
}
