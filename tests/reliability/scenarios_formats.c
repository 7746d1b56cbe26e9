/* SPDX-License-Identifier: MIT */
/*
 * Every reader and writer of src/formats as a scenario for faults.c. The files are as small as they can be
 * while they still lead a reader through all of its parts, so that every single allocation fails once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/gguf_write.h"
#include "icae/json.h"
#include "icae/lines.h"
#include "icae/safetensors.h"
#include "icae/tokenizer.h"
#include "icae/torch_file.h"
#include "icae/torch_write.h"
#include "scenarios.h"

#define MARK "\xE2\x96\x81"

static const float numbers[] = {1, 2, 3, 4, 5, 6};

static icae_status put_file(const scenario_state *state, const char *name, const char *text,
                            icae_error *error) {
    return icae_file_write(scenario_path(state, name), text, strlen(text), error);
}

static icae_status expect(bool condition, const char *what, icae_error *error) {
    return condition ? ICAE_OK : icae_fail(error, ICAE_INVALID, "%s", what);
}

static icae_status forget(scenario_state *state, icae_error *error) {
    return icae_folder_remove(scenario_path(state, "made"), error);
}

/* ---- JSON ---- */

static const char document[] = "{\"a\": [1, \"x\\u0000y\", {\"b\": null, \"c\": true}],\n"
                               " \"d\": \"\\ud83d\\ude00\"}";

static icae_status put_json(scenario_state *state, icae_error *error) {
    return put_file(state, "a.json", document, error);
}

static icae_status read_json(scenario_state *state, icae_error *error) {
    icae_json *json;
    icae_status status = icae_json_open(&json, scenario_path(state, "a.json"), error);
    if (status) return status;
    icae_json_free(json);
    status = icae_json_parse(&json, "memory", document, sizeof document - 1, error);
    if (!status) icae_json_free(json);
    return status;
}

/* A sealed document, as run_state.json is one. */
static icae_status write_json(scenario_state *state, icae_error *error) {
    icae_text out = {0};
    icae_json *json = NULL;
    icae_text_append_string(&out, "{\n  \"text\": ");
    icae_json_write_string(&out, "a\"\n\t\r\\\x01\xFF\xC3\xA9", 9);
    icae_text_append_string(&out, ",\n  \"number\": ");
    icae_json_write_number(&out, 0.1);
    icae_json_write_seal(&out);
    icae_status status = out.failed ? icae_fail_memory(error, "a.json") : ICAE_OK;
    if (!status) status = icae_json_parse(&json, "a.json", out.data, out.length, error);
    if (!status) status = icae_json_check_seal(json, "write it anew", error);
    (void)state;
    icae_json_free(json);
    icae_text_release(&out);
    return status;
}

/* ---- safetensors ---- */

static const icae_safetensors_source sources[] = {
    {.name = "b", .dtype = ICAE_DTYPE_F32, .rank = 2, .shape = {2, 3}, .data = numbers},
    {.name = "a", .dtype = ICAE_DTYPE_BF16, .rank = 0, .data = numbers}};
static const char *const metadata[] = {"format", "pt", "author", "a test"};

static icae_status put_safetensors(scenario_state *state, icae_error *error) {
    return icae_safetensors_write(scenario_path(state, "a.safetensors"), sources, 2, metadata,
                                  2, error);
}

static icae_status read_safetensors(scenario_state *state, icae_error *error) {
    icae_safetensors file;
    icae_status status =
        icae_safetensors_open(&file, scenario_path(state, "a.safetensors"), error);
    if (!status) icae_safetensors_close(&file);
    return status;
}

static icae_status write_safetensors(scenario_state *state, icae_error *error) {
    return icae_safetensors_write(scenario_path(state, "made"), sources, 2, metadata, 2, error);
}

static void bring(const void *user, const void *data, size_t offset, size_t bytes, void *out) {
    (void)user;
    memcpy(out, (const char *)data + offset, bytes);
}

static icae_status write_safetensors_from(scenario_state *state, icae_error *error) {
    return icae_safetensors_write_from(scenario_path(state, "made"), sources, 2, bring, NULL,
                                       error);
}

/* Whole or absent. */
static icae_status check_safetensors(scenario_state *state, icae_status status,
                                     icae_error *error) {
    const char *path = scenario_path(state, "made");
    if (status && !icae_path_exists(path)) return ICAE_OK;
    icae_safetensors file;
    icae_status opened = icae_safetensors_open(&file, path, error);
    if (opened) return opened;
    bool is_whole = file.n_entries == 2 && !memcmp(file.entries[1].data, numbers, 24);
    icae_safetensors_close(&file);
    return expect(is_whole, "other tensors than were written", error);
}

/* ---- GGUF, and tokenizers in it ---- */

static const char *const merges[] = {"a b", "\xC4\xA0 ab", "a a"};
static const char *const spelled[] = {"a",  "b",  "ab", "\xC4\xA0", "\xC4\xA0\x61\x62",
                                      "aa", "<s>"}; /* the fifth: a space, then "ab" */
static const char *const pieces[] = {"<unk>", "<s>", MARK, "a", "b", "ab", MARK "ab", "<0x0A>"};

static void put_array(icae_gguf_writer *writer, const char *key, icae_gguf_type type,
                      const void *raw, size_t count) {
    icae_gguf_put_item(writer, &(icae_gguf_item){.key = key,
                                                 .type = ICAE_GGUF_ARRAY,
                                                 .element_type = type,
                                                 .count = count,
                                                 .raw = raw});
}

static void put_bytelevel(icae_gguf_writer *writer) {
    static const int32_t types[] = {1, 1, 1, 1, 1, 1, 3};
    icae_gguf_put_string(writer, "tokenizer.ggml.model", "gpt2");
    icae_gguf_put_string(writer, "tokenizer.ggml.pre", "qwen2");
    icae_gguf_put_strings(writer, "tokenizer.ggml.tokens", spelled, 7);
    icae_gguf_put_strings(writer, "tokenizer.ggml.merges", merges, 3);
    put_array(writer, "tokenizer.ggml.token_type", ICAE_GGUF_I32, types, 7);
}

static void put_sentencepiece(icae_gguf_writer *writer) {
    static const int32_t types[] = {2, 3, 1, 1, 1, 1, 1, 6};
    static const float scores[] = {0, 0, -1, -2, -3, -4, -5, 0};
    icae_gguf_put_string(writer, "tokenizer.ggml.model", "llama");
    icae_gguf_put_strings(writer, "tokenizer.ggml.tokens", pieces, 8);
    put_array(writer, "tokenizer.ggml.token_type", ICAE_GGUF_I32, types, 8);
    put_array(writer, "tokenizer.ggml.scores", ICAE_GGUF_F32, scores, 8);
}

static icae_status write_model(const char *path, bool is_marked, icae_error *error) {
    icae_gguf_writer writer;
    icae_gguf_begin(&writer, path);
    if (is_marked)
        put_sentencepiece(&writer);
    else
        put_bytelevel(&writer);
    icae_gguf_put_u32(&writer, "tokenizer.ggml.eos_token_id", 1);
    icae_gguf_put_string(&writer, "tokenizer.chat_template", "{{ messages }}");
    icae_gguf_put_tensor(&writer, "b", ICAE_DTYPE_F32, 2, (const int64_t[]){2, 3});
    icae_gguf_put_tensor(&writer, "a", ICAE_DTYPE_F32, 1, (const int64_t[]){6});
    icae_gguf_write_data(&writer, numbers, sizeof numbers);
    icae_gguf_write_data(&writer, numbers, sizeof numbers);
    return icae_gguf_commit(&writer, error);
}

static icae_status put_gguf(scenario_state *state, icae_error *error) {
    return write_model(scenario_path(state, "a.gguf"), false, error);
}

static icae_status put_marked_gguf(scenario_state *state, icae_error *error) {
    return write_model(scenario_path(state, "a.gguf"), true, error);
}

static icae_status write_gguf(scenario_state *state, icae_error *error) {
    return write_model(scenario_path(state, "made"), false, error);
}

static icae_status check_gguf(scenario_state *state, icae_status status, icae_error *error) {
    const char *path = scenario_path(state, "made");
    if (status && !icae_path_exists(path)) return ICAE_OK;
    icae_gguf file;
    icae_status opened = icae_gguf_open(&file, path, error);
    if (opened) return opened;
    const icae_gguf_tensor *a = icae_gguf_find(&file, "a");
    bool is_whole = a && !memcmp(a->data, numbers, sizeof numbers);
    icae_gguf_close(&file);
    return expect(is_whole, "another tensor than was written", error);
}

/* ---- tokenizers ---- */

/* Encodes and decodes, also in a stream: with and without special tokens, a piece over LONG_PIECE, a run
 * of marks that has to be put in order, bytes that are no UTF-8. */
static icae_status use_tokenizer(const icae_tokenizer *tokenizer, icae_error *error) {
    icae_text text = {0}, decoded = {0};
    icae_text_append_string(&text, "ab <s>\xC3\xA9"
                                   "e\xCC\x81\n\xFF ");
    for (int i = 0; i < 40; i++)
        icae_text_append_string(&text, "a\xCC\x81\xCC\xA3");
    for (int i = 0; i < 100; i++)
        icae_text_append_string(&text, "aab");
    int32_t *ids = NULL;
    size_t count = 0;
    icae_status status = text.failed ? icae_fail_memory(error, "the text")
                                     : icae_tokenizer_encode(tokenizer, text.data, text.length,
                                                             true, &ids, &count, error);
    if (!status) status = icae_tokenizer_decode(tokenizer, ids, count, false, &decoded, error);
    icae_token_stream stream = {0};
    icae_text_clear(&decoded);
    for (size_t i = 0; i < count && !status; i++)
        icae_token_stream_push(&stream, tokenizer, ids[i], &decoded);
    icae_token_stream_finish(&stream, &decoded);
    if (!status && decoded.failed) status = icae_fail_memory(error, "the stream");
    icae_tokenizer_find(tokenizer, " ab"); /* -1 when memory ends */
    free(ids);
    icae_text_release(&text);
    icae_text_release(&decoded);
    return status;
}

static icae_status use_folder(scenario_state *state, icae_error *error) {
    icae_tokenizer *tokenizer;
    icae_status status =
        icae_tokenizer_open_folder(&tokenizer, scenario_path(state, "tokenizer"), error);
    if (status) return status;
    status = use_tokenizer(tokenizer, error);
    icae_tokenizer_free(tokenizer);
    return status;
}

static icae_status use_gguf(scenario_state *state, icae_error *error) {
    icae_gguf file;
    icae_tokenizer *tokenizer;
    icae_status status = icae_gguf_open(&file, scenario_path(state, "a.gguf"), error);
    if (status) return status;
    status = icae_tokenizer_from_gguf(&tokenizer, &file, error);
    icae_gguf_close(&file);
    if (status) return status;
    status = use_tokenizer(tokenizer, error);
    icae_tokenizer_free(tokenizer);
    return status;
}

static icae_status begin_folder(scenario_state *state, icae_error *error) {
    icae_status status = icae_folder_remove(scenario_path(state, "tokenizer"), error);
    return status ? status : icae_folder_make(scenario_path(state, "tokenizer"), error);
}

/* The filler is so long that the pool of texts has to grow while merges are read. */
static icae_status put_tokenizer_json(scenario_state *state, icae_error *error) {
    static const char json[] =
        "{\"added_tokens\": [{\"id\": 6, \"content\": \"<s>\", \"special\": true},"
        "{\"id\": 7, \"content\": \"be\xCC\x81\", \"normalized\": true}],"
        "\"normalizer\": {\"type\": \"NFC\"},"
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false},"
        "\"decoder\": {\"type\": \"ByteLevel\"},"
        "\"model\": {\"type\": \"BPE\", \"ignore_merges\": true, \"vocab\": {\"a\": 0,"
        "\"b\": 1, \"ab\": 2, \"\\u0120\": 3, \"\\u0120ab\": 4, \"aa\": 5, \"\\u00c3\": 8,"
        "\"\\u00a9\": 9, \"e\": 10, \"cccccccc\": 11}, \"merges\": [\"a b\", \"\\u0120 ab\", "
        "[\"a\", \"a\"]]}}";
    icae_status status = begin_folder(state, error);
    if (!status) status = put_file(state, "tokenizer/tokenizer.json", json, error);
    if (!status) {
        status = put_file(state, "tokenizer/tokenizer_config.json",
                          "{\"bos_token\": {\"content\": \"<s>\"}, \"chat_template\": \"one\"}",
                          error);
    }
    if (!status) {
        status = put_file(state, "tokenizer/generation_config.json", "{\"eos_token_id\": [6]}",
                          error);
    }
    if (!status)
        status = put_file(state, "tokenizer/chat_template.jinja", "{{ messages }}", error);
    return status;
}

/* With the filler the pool of texts has to grow when the added token is normalized. */
static icae_status put_marked_json(scenario_state *state, icae_error *error) {
    static const char json[] =
        "{\"added_tokens\": [{\"id\": 5, \"content\": \"a b\", \"normalized\": true}],"
        "\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"},"
        "\"content\": \"" MARK "\"}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": ["
        "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK "\"},"
        "\"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]},"
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2,"
        "\"" MARK "\": 3, \"a filler of 22 letters\": 4}, \"merges\": []}}";
    icae_status status = begin_folder(state, error);
    return status ? status : put_file(state, "tokenizer/tokenizer.json", json, error);
}

/* As tests/broken/tokenizer_model.txt has them: pieces (text, type), the trainer, the normalizer. */
static icae_status put_tokenizer_model(scenario_state *state, icae_error *error) {
#define PIECE(bytes, length, text, type) "\x0A" bytes "\x0A" length text "\x18" type
    static const char model[] = PIECE("\x09", "\x05", "<unk>", "\2") //
        PIECE("\x07", "\3", "<s>", "\3") PIECE("\x07", "\3", MARK, "\1")
            PIECE("\5", "\1", "a", "\1") PIECE("\5", "\1", "b", "\1")
                PIECE("\6", "\2", "ab", "\1") PIECE("\x0A", "\6", "<0x0A>", "\6")
                    PIECE("\x0A", "\6", "<0xFF>", "\6") "\x12\2\x18\2\x1A\4\x18\1\x20";
#undef PIECE
    icae_status status = begin_folder(state, error);
    if (!status) { /* its last byte, a 0, is the one that ends the text above */
        status = icae_file_write(scenario_path(state, "tokenizer/tokenizer.model"), model,
                                 sizeof model, error);
    }
    if (!status) {
        status =
            put_file(state, "tokenizer/tokenizer_config.json",
                     "{\"added_tokens_decoder\": {\"8\": {\"content\": \"<pad>\"}}}", error);
    }
    return status;
}

/* ---- .pt files ---- */

static icae_status read_torch(scenario_state *state, icae_error *error) {
    icae_torch_file file;
    icae_status status = icae_torch_file_open(&file, "tests/golden/released/v1.pt", error);
    if (!status) icae_torch_file_close(&file);
    (void)state;
    return status;
}

static icae_status write_torch(scenario_state *state, icae_error *error) {
    return icae_torch_write(scenario_path(state, "made"), ICAE_DTYPE_F32, 2, 3, numbers, error);
}

static icae_status check_torch(scenario_state *state, icae_status status, icae_error *error) {
    const char *path = scenario_path(state, "made");
    if (status && !icae_path_exists(path)) return ICAE_OK;
    icae_torch_file file; /* a lone tensor is refused, but only after all of it was read */
    icae_error reason = {0};
    icae_status opened = icae_torch_file_open(&file, path, &reason);
    if (!opened) icae_torch_file_close(&file);
    return expect(strstr(reason.message, "holds a tensor, expected a dictionary") != NULL,
                  reason.message, error);
}

/* ---- lines ---- */

/* The second line is longer than the buffer at first. */
static icae_status put_lines(scenario_state *state, icae_error *error) {
    icae_text text = {0};
    icae_text_append_string(&text, "one\n");
    for (int i = 0; i < 300 * 1024 / 8; i++)
        icae_text_append_string(&text, "12345678");
    icae_text_append_string(&text, "\nthree\n");
    icae_status status = text.failed ? icae_fail_memory(error, "lines")
                                     : icae_file_write(scenario_path(state, "lines"), text.data,
                                                       text.length, error);
    icae_text_release(&text);
    return status;
}

static icae_status read_lines(scenario_state *state, icae_error *error) {
    icae_lines *lines;
    const char *line = "";
    size_t bytes;
    icae_status status = icae_lines_open(&lines, scenario_path(state, "lines"), error);
    if (status) return status;
    while (!status && line)
        status = icae_lines_next(lines, 1 << 20, &line, &bytes, error);
    if (!status) status = icae_lines_seek(lines, 4, 1, error);
    if (!status) status = icae_lines_next(lines, 1 << 20, &line, &bytes, error);
    if (!status) status = expect(bytes == 300 * 1024, "another line", error);
    icae_lines_close(lines);
    return status;
}

/* ---- the table ---- */

const scenario format_scenarios[] = {
    {"read json", true, put_json, read_json, NULL},
    {"write json", true, NULL, write_json, NULL},
    {"read safetensors", true, put_safetensors, read_safetensors, NULL},
    {"write safetensors", true, forget, write_safetensors, check_safetensors},
    {"bring safetensors", true, forget, write_safetensors_from, check_safetensors},
    {"write gguf", true, forget, write_gguf, check_gguf},
    {"tokenizer.json", true, put_tokenizer_json, use_folder, NULL},
    {"marked tokenizer.json", true, put_marked_json, use_folder, NULL},
    {"tokenizer.model", true, put_tokenizer_model, use_folder, NULL},
    {"tokenizer of gguf", true, put_gguf, use_gguf, NULL},
    {"pieces of gguf", true, put_marked_gguf, use_gguf, NULL},
    {"read .pt", true, NULL, read_torch, NULL},
    {"write .pt", true, forget, write_torch, check_torch},
    {"read lines", true, put_lines, read_lines, NULL},
    {.name = NULL},
};
