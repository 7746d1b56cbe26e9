/* SPDX-License-Identifier: MIT */
/*
 * The broken files of tests/broken, table by table: each is refused by the very sentence that the table holds,
 * and the sound one that each table begins with is accepted.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../fuzz/tiny_adapter.h"
#include "../fuzz/tiny_base.h"
#include "broken.h"
#include "icae/corpus.h"
#include "icae/gguf.h"
#include "icae/lines.h"
#include "icae/model.h"
#include "icae/safetensors.h"
#include "icae/settings.h"
#include "icae/slots.h"
#include "icae/tokenizer.h"
#include "icae/torch_file.h"
#include "suites.h"

/* The smallest number of files that the tables hold together. */
enum { LEAST_CASES = 500 };

static icae_error error;

/* ---- readers: path of the file, or of the folder ---- */

typedef icae_status reading(const char *path);

static icae_status read_safetensors(const char *path) {
    icae_safetensors file;
    icae_status status = icae_safetensors_open(&file, path, &error);
    if (!status) icae_safetensors_close(&file);
    return status;
}

static icae_status read_gguf(const char *path) {
    icae_gguf file;
    icae_tokenizer *tokenizer;
    icae_status status = icae_gguf_open(&file, path, &error);
    if (status) return status;
    if (icae_gguf_item_find(&file, "tokenizer.ggml.model")) {
        status = icae_tokenizer_from_gguf(&tokenizer, &file, &error);
        if (!status) icae_tokenizer_free(tokenizer);
    }
    icae_gguf_close(&file);
    return status;
}

static icae_status read_torch_file(const char *path) {
    icae_torch_file file;
    icae_status status = icae_torch_file_open(&file, path, &error);
    if (!status) icae_torch_file_close(&file);
    return status;
}

static icae_status read_json(const char *path) {
    icae_json *json;
    icae_status status = icae_json_open(&json, path, &error);
    if (!status) icae_json_free(json);
    return status;
}

static icae_status read_slots(const char *path) {
    icae_slots slots = {0};
    icae_status status = icae_slots_load(&slots, path, NULL, NULL, &error);
    icae_slots_release(&slots);
    return status;
}

static icae_status read_settings(const char *path) {
    icae_settings settings;
    icae_settings_init(&settings);
    icae_status status = icae_settings_read(&settings, path, &error);
    if (!status) status = icae_settings_check(&settings, &error);
    icae_settings_release(&settings);
    return status;
}

static icae_status read_lines(const char *path) {
    enum { LIMIT = 1000 };
    icae_lines *lines;
    const char *line = "";
    size_t bytes;
    icae_status status = icae_lines_open(&lines, path, &error);
    if (status) return status;
    while (!status && line)
        status = icae_lines_next(lines, LIMIT, &line, &bytes, &error);
    icae_lines_close(lines);
    return status;
}

static icae_status read_documents(const char *path) {
    const icae_corpus_options options = {
        .paths = &path, .n_paths = 1, .epochs = 1, .strict = true, .limit_bytes = 1000};
    icae_corpus *corpus;
    icae_document document = {.text = ""};
    icae_status status = icae_corpus_open(&corpus, &options, &error);
    if (status) return status;
    while (!status && document.text)
        status = icae_corpus_next(corpus, &document, &error);
    icae_corpus_close(corpus);
    return status;
}

static icae_status read_tokenizer(const char *path) {
    icae_tokenizer *tokenizer;
    icae_status status = icae_tokenizer_open_folder(&tokenizer, path, &error);
    if (!status) icae_tokenizer_free(tokenizer);
    return status;
}

static icae_status read_base(const char *path) {
    icae_model *model;
    icae_status status = icae_model_open(&model, path, &error);
    icae_model_close(model);
    return status;
}

static icae_status read_adapter(const char *path) {
    icae_model model = tiny_model();
    icae_backend *be = tiny_backend();
    icae_adapter *adapter;
    icae_status status = icae_adapter_load(&adapter, path, &model, be, false, &error);
    icae_adapter_free(adapter);
    icae_backend_free(be);
    return status;
}

static icae_status read_checkpoint(const char *path) {
    icae_model model = tiny_model();
    icae_backend *be = tiny_backend();
    icae_adapter *adapter = tiny_adapter(&model, be, true);
    icae_run_state state = {0};
    icae_status status = icae_checkpoint_verify(path, &error);
    if (!status) status = icae_checkpoint_load(path, adapter, &state, &error);
    icae_run_state_release(&state);
    icae_adapter_free(adapter);
    icae_backend_free(be);
    return status;
}

/* ---- tables ---- */

static const char *table_path(const char *table) {
    static char path[128];
    snprintf(path, sizeof path, "tests/broken/%s.txt", table);
    return path;
}

/* Without fsync, which hundreds of files would wait for. */
static void write_quickly(const char *path, const void *data, size_t bytes) {
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ck_assert_int_ge(descriptor, 0);
    ck_assert_int_eq(write(descriptor, data, bytes), (ssize_t)bytes);
    close(descriptor);
}

/* A message with every `path` in it as FILE. */
static void put_placeholder(const char *message, const char *path, icae_text *out) {
    icae_text_clear(out);
    for (const char *at = message, *next; *at; at = next) {
        next = strstr(at, path);
        if (next == at) {
            icae_text_append_string(out, "FILE");
            next = at + strlen(path);
        } else {
            icae_text_append(out, at, next ? (size_t)(next - at) : strlen(at));
            if (!next) next = at + strlen(at);
        }
    }
}

/* Reads one case from `path`; adds what differs from the table to `faults`. */
static void check_case(const broken_case *c, const char *path, reading *read,
                       icae_text *faults) {
    icae_text said = {0};
    error = (icae_error){0};
    if (read(path))
        put_placeholder(error.message, path, &said);
    else
        icae_text_append_string(&said, "accepted");
    if (strcmp(icae_text_string(&said), icae_text_string(&c->says)) != 0) {
        icae_text_printf(faults, "\n%s\n  is to say %s\n  but says  %s", c->name,
                         icae_text_string(&c->says), icae_text_string(&said));
    }
    icae_text_release(&said);
}

/* Every case of a table, and that no two are the same bytes. */
static void check_table(const char *table, reading *read, const char *file_name,
                        const sound_file *sound, size_t n_files) {
    char folder[600], path[700];
    icae_text faults = {0};
    broken_table cases = broken_table_read(table_path(table));
    snprintf(path, sizeof path, "broken-%s", table);
    snprintf(folder, sizeof folder, "%s", test_folder(path));
    for (size_t i = 0; i < cases.n_cases; i++) {
        const broken_case *c = &cases.cases[i];
        ck_assert_msg(i == 0 || c->how.length, "%s: %s: lacks 'how'", table, c->name);
        for (size_t k = 0; k < i; k++) {
            const icae_text *other = &cases.cases[k].bytes;
            ck_assert_msg(other->length != c->bytes.length ||
                              memcmp(icae_text_string(other), icae_text_string(&c->bytes),
                                     c->bytes.length) != 0,
                          "%s: %s and %s are the same", table, cases.cases[k].name, c->name);
        }
        const uint8_t *data = (const uint8_t *)icae_text_string(&c->bytes),
                      *parts[SOUND_MOST_FILES];
        size_t sizes[SOUND_MOST_FILES];
        if (file_name) {
            snprintf(path, sizeof path, "%s/%s", folder, file_name);
            write_quickly(path, data, c->bytes.length);
            check_case(c, path, read, &faults);
            continue;
        }
        sound_split(n_files, data, c->bytes.length, parts, sizes);
        for (size_t k = 0; k < n_files; k++) {
            snprintf(path, sizeof path, "%s/%s", folder, sound[k].name);
            write_quickly(path, parts[k] ? parts[k] : sound[k].data,
                          parts[k] ? sizes[k] : sound[k].bytes);
        }
        check_case(c, folder, read, &faults);
    }
    ck_assert_str_eq(icae_text_string(&cases.cases[0].says), "accepted");
    if (faults.length) fprintf(stderr, "%s:%s\n", table, icae_text_string(&faults));
    ck_assert_msg(!faults.length, "%s: sentences differ", table);
    icae_text_release(&faults);
    broken_table_release(&cases);
}

#define FILE_TABLE(table, name)                                                                \
    START_TEST(refuses_broken_##table) {                                                       \
        check_table(#table, read_##table, name, NULL, 0);                                      \
    }                                                                                          \
    END_TEST

FILE_TABLE(safetensors, "a.safetensors")
FILE_TABLE(gguf, "a.gguf")
FILE_TABLE(torch_file, "a.pt")
FILE_TABLE(json, "a.json")
FILE_TABLE(slots, "a.slots")
FILE_TABLE(settings, "config.json")
FILE_TABLE(lines, "a.jsonl.gz")
FILE_TABLE(documents, "a.jsonl")

START_TEST(refuses_broken_tokenizer) {
    static const sound_file sound[] = {{"tokenizer.json", "{}", 2},
                                       {"tokenizer_config.json", "{}", 2},
                                       {"generation_config.json", "{}", 2},
                                       {"config.json", "{}", 2}};
    check_table("tokenizer", read_tokenizer, NULL, sound, 4);
}
END_TEST

START_TEST(refuses_broken_tokenizer_model) {
    static const sound_file sound[] = {{"tokenizer.model", "", 0},
                                       {"tokenizer_config.json", "{}", 2}};
    check_table("tokenizer_model", read_tokenizer, NULL, sound, 2);
}
END_TEST

static void free_sound(sound_file *files, int n) {
    for (int i = 0; i < n; i++)
        free((void *)(uintptr_t)files[i].data);
}

START_TEST(refuses_broken_base) {
    sound_file sound[] = {{.name = "config.json"},
                          {.name = "m.safetensors"},
                          {.name = "tokenizer.json"},
                          {.name = "model.safetensors.index.json"}};
    tiny_base(sound);
    check_table("base", read_base, NULL, sound, 4);
    free_sound(&sound[1], 1); /* the others are constants */
}
END_TEST

START_TEST(refuses_broken_adapter) {
    sound_file sound[] = {{.name = "icae.json"},
                          {.name = "adapter_config.json"},
                          {.name = "adapter_model.safetensors"},
                          {.name = "memory.safetensors"}};
    icae_model model = tiny_model();
    icae_backend *be = tiny_backend();
    tiny_adapter_files(&model, be, sound, 4);
    check_table("adapter", read_adapter, NULL, sound, 4);
    free_sound(sound, 4);
    icae_backend_free(be);
}
END_TEST

START_TEST(refuses_broken_checkpoint) {
    sound_file sound[] = {
        {.name = "hashes.json"}, {.name = "state.json"}, {.name = "optimizer.safetensors"}};
    icae_model model = tiny_model();
    icae_backend *be = tiny_backend();
    icae_adapter *adapter = tiny_adapter(&model, be, true);
    tiny_checkpoint_files(adapter, &model, sound, 3);
    check_table("checkpoint", read_checkpoint, NULL, sound, 3);
    free_sound(sound, 3);
    icae_adapter_free(adapter);
    icae_backend_free(be);
}
END_TEST

START_TEST(there_are_enough_of_them) {
    static const char *const tables[] = {
        "safetensors",     "gguf",    "torch_file", "json",      "slots",
        "settings",        "lines",   "documents",  "tokenizer", "base",
        "tokenizer_model", "adapter", "checkpoint"};
    size_t n = 0;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        broken_table table = broken_table_read(table_path(tables[i]));
        n += table.n_cases - 1; /* without the sound one */
        broken_table_release(&table);
    }
    ck_assert_uint_ge(n, LEAST_CASES);
}
END_TEST

SUITE_OF(broken, 60, refuses_broken_safetensors, refuses_broken_gguf, refuses_broken_torch_file,
         refuses_broken_json, refuses_broken_slots, refuses_broken_settings,
         refuses_broken_lines, refuses_broken_documents, refuses_broken_tokenizer,
         refuses_broken_tokenizer_model, refuses_broken_base, refuses_broken_adapter,
         refuses_broken_checkpoint, there_are_enough_of_them)
