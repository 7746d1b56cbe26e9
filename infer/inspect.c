/* SPDX-License-Identifier: MIT */
/*
 * icae inspect: what a file or folder is, in plain words.
 *
 * What it is, is decided by what is in it (first bytes, names of files), never by its own name. Something
 * broken is answered with the sentence of the reader that would have to read it.
 */
#include "inspect.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "icae/adapter.h"
#include "icae/checkpoint.h"
#include "icae/file.h"
#include "icae/lines.h"
#include "icae/released.h"
#include "icae/torch_file.h"

/* ---- facts ---- */

static void print_label(const char *label) {
    printf("%-18s ", label);
}

void fact_text(facts *f, const char *key, const char *label, const char *format, ...) {
    char value[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    if (f->is_json) {
        json_string(&f->json, key, value, strlen(value));
    } else {
        print_label(label);
        for (const char *at = value; *at; at++) { /* a value stays on its line */
            if (*at == '\n')
                fputs("\\n", stdout);
            else
                putchar(*at);
        }
        putchar('\n');
    }
}

void fact_count(facts *f, const char *key, const char *label, int64_t count) {
    char text[32];
    if (f->is_json) {
        json_integer(&f->json, key, count);
    } else {
        print_label(label);
        puts(human_count(count, text));
    }
}

void fact_bytes(facts *f, const char *key, const char *label, uint64_t bytes) {
    char text[32], count[32];
    if (f->is_json) {
        json_integer(&f->json, key, (int64_t)bytes);
    } else {
        print_label(label);
        if (bytes < 1024)
            printf("%s\n", human_bytes((double)bytes, text));
        else
            printf("%s (%s bytes)\n", human_bytes((double)bytes, text),
                   human_count((int64_t)bytes, count));
    }
}

void fact_note(facts *f, const char *format, ...) {
    char value[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    if (f->is_json) {
        if (f->notes.length) icae_text_append_string(&f->notes, ", ");
        icae_json_write_string(&f->notes, value, strlen(value));
    } else {
        puts(value);
    }
}

void fact_members(facts *f, const icae_json_value *object) {
    for (const icae_json_value *v = icae_json_first(object); v; v = icae_json_next(v)) {
        const char *key = icae_json_key(v), *string = icae_json_as_string(v);
        double number;
        bool truth;
        if (string) {
            fact_text(f, key, key, "%s", string);
        } else if (icae_json_as_bool(v, &truth)) {
            fact_text(f, key, key, "%s", truth ? "yes" : "no");
        } else if (icae_json_as_number(v, &number)) {
            if (f->is_json)
                json_number(&f->json, key, number);
            else
                fact_text(f, key, key, "%.9g", number);
        }
    }
}

/* ---- folders ---- */

bool has_file(const char *folder, const char *name) {
    char *path = icae_path_join(folder, name);
    bool exists = path && icae_path_exists(path);
    free(path);
    return exists;
}

static icae_status open_in(icae_json **json, const char *folder, const char *name,
                           icae_error *error) {
    char *path = icae_path_join(folder, name);
    if (!path) return icae_fail_memory(error, "a path");
    icae_status status = icae_json_open(json, path, error);
    free(path);
    return status;
}

/* Numbers in all tensors of a safetensors file. */
static icae_status count_numbers(const char *folder, const char *name, int64_t *numbers,
                                 icae_error *error) {
    char *path = icae_path_join(folder, name);
    if (!path) return icae_fail_memory(error, "a path");
    icae_safetensors file = {0};
    icae_status status = icae_safetensors_open(&file, path, error);
    free(path);
    if (status) return status;
    for (size_t i = 0; i < file.n_entries; i++) {
        int64_t count = 1;
        for (int r = 0; r < file.entries[i].rank; r++)
            count *= file.entries[i].shape[r];
        *numbers += count;
    }
    icae_safetensors_close(&file);
    return ICAE_OK;
}

icae_status try_on_base(facts *f, const char *path, const char *base, adapter_reader *read,
                        icae_error *error) {
    icae_model *model = NULL;
    icae_backend *be = NULL;
    icae_adapter *adapter = NULL;
    icae_status status = icae_model_open(&model, base, error);
    if (status) return status;
    status = icae_backend_create(&be, NULL, 1, error);
    if (!status) status = read(&adapter, path, model, be, error);
    if (!status) fact_text(f, "fits", "fits", "%s", base);
    icae_adapter_free(adapter);
    if (be) icae_backend_free(be);
    icae_model_close(model);
    return status;
}

static icae_status read_adapter(icae_adapter **adapter, const char *path,
                                const icae_model *model, icae_backend *be, icae_error *error) {
    return icae_adapter_load(adapter, path, model, be, false, error);
}

static icae_status inspect_adapter(facts *f, const char *path, const options *given,
                                   icae_error *error) {
    icae_json *settings = NULL, *peft = NULL;
    icae_status status = open_in(&settings, path, "icae.json", error);
    if (!status) status = open_in(&peft, path, "adapter_config.json", error);
    if (!status && !icae_json_is_object(icae_json_root(settings))) {
        status = icae_fail(error, ICAE_FORMAT, "%s: expected a JSON object",
                           icae_json_name(settings));
    }
    int64_t numbers = 0;
    if (!status) status = count_numbers(path, "adapter_model.safetensors", &numbers, error);
    if (!status) status = count_numbers(path, "memory.safetensors", &numbers, error);
    if (!status) {
        fact_text(f, "kind", "this is", "an ICAE adapter: LoRA pairs and memory tokens");
        fact_members(f, icae_json_root(settings));
        const icae_json_value *root = icae_json_root(peft);
        double number;
        if (icae_json_as_number(icae_json_member(root, "r"), &number))
            fact_count(f, "rank", "LoRA rank", (int64_t)number);
        if (icae_json_as_number(icae_json_member(root, "lora_alpha"), &number))
            fact_text(f, "alpha", "LoRA alpha", "%g", number);
        icae_text targets = {0};
        const icae_json_value *list = icae_json_member(root, "target_modules");
        for (const icae_json_value *v = icae_json_first(list); v; v = icae_json_next(v)) {
            const char *name = icae_json_as_string(v);
            if (name) icae_text_printf(&targets, "%s%s", targets.length ? " " : "", name);
        }
        fact_text(f, "targets", "LoRA on", "%s", icae_text_string(&targets));
        icae_text_release(&targets);
        fact_count(f, "trained_numbers", "trained numbers", numbers);
    }
    icae_json_free(settings);
    icae_json_free(peft);
    if (!status && given->base) status = try_on_base(f, path, given->base, read_adapter, error);
    return status;
}

static icae_status inspect_checkpoint(facts *f, const char *path, icae_error *error) {
    icae_json *state = NULL;
    icae_status status = icae_checkpoint_verify(path, error);
    if (!status) status = open_in(&state, path, "state.json", error);
    if (status) return status;
    fact_text(f, "kind", "this is", "a checkpoint of a training run; all its hashes agree");
    fact_members(f, icae_json_root(state));
    icae_json_free(state);
    return ICAE_OK;
}

/* The last line of metrics.jsonl. */
static icae_status last_metrics(facts *f, const char *folder, icae_error *error) {
    char *path = icae_path_join(folder, "metrics.jsonl");
    if (!path) return icae_fail_memory(error, "a path");
    icae_lines *lines = NULL;
    icae_text last = {0};
    int64_t count = 0;
    icae_status status = icae_lines_open(&lines, path, error);
    while (!status) {
        const char *line;
        size_t bytes;
        status = icae_lines_next(lines, 1 << 20, &line, &bytes, error);
        if (status || !line) break;
        icae_text_clear(&last);
        icae_text_append(&last, line, bytes);
        count++;
    }
    if (!status) {
        fact_count(f, "metrics_lines", "lines of metrics", count);
        if (last.length && f->is_json) json_raw(&f->json, "last", icae_text_string(&last));
        if (last.length && !f->is_json) fact_text(f, "", "the last", "%s", last.data);
    }
    if (lines) icae_lines_close(lines);
    icae_text_release(&last);
    free(path);
    return status;
}

static icae_status list_checkpoints(facts *f, const char *folder, icae_error *error) {
    char *path = icae_path_join(folder, "checkpoints"), **names = NULL;
    if (!path) return icae_fail_memory(error, "a path");
    size_t count = 0, broken = 0;
    icae_status status = ICAE_OK;
    if (icae_path_is_folder(path)) status = icae_folder_list(path, &names, &count, error);
    icae_text list = {0};
    for (size_t i = 0; i < count && !status; i++) {
        if (strncmp(names[i], "step-", 5) != 0) continue;
        char *each = icae_path_join(path, names[i]);
        icae_error why = {0};
        icae_text_printf(&list, "%s%s", list.length ? " " : "", names[i]);
        if (each && icae_checkpoint_verify(each, &why)) {
            broken++;
            fact_note(f, "damaged: %s", why.message);
        }
        free(each);
    }
    if (!status) {
        fact_text(f, "checkpoints", "checkpoints", "%s", list.length ? list.data : "none yet");
        fact_count(f, "damaged_checkpoints", "damaged", (int64_t)broken);
    }
    icae_text_release(&list);
    if (names) icae_names_free(names, count);
    free(path);
    return status;
}

static icae_status inspect_run(facts *f, const char *path, icae_error *error) {
    icae_json *config = NULL;
    icae_status status = open_in(&config, path, "config.json", error);
    if (status) return status;
    const icae_json_value *root = icae_json_root(config);
    fact_text(f, "kind", "this is", "the folder of a training run");
    const char *base = icae_json_as_string(icae_json_member(root, "base"));
    if (base) fact_text(f, "base", "base", "%s", base);
    static const char *const keys[] = {"steps", "batch", "lr", "seed"};
    const icae_json_value *train = icae_json_member(root, "train");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        double number;
        if (!icae_json_as_number(icae_json_member(train, keys[i]), &number)) continue;
        if (f->is_json)
            json_number(&f->json, keys[i], number);
        else
            fact_text(f, keys[i], keys[i], "%.9g", number);
    }
    icae_json_free(config);
    if (has_file(path, "metrics.jsonl")) status = last_metrics(f, path, error);
    if (!status) status = list_checkpoints(f, path, error);
    bool has_adapter = has_file(path, "adapter/icae.json");
    if (!status && !has_adapter) fact_note(f, "It has no adapter/ yet: the run has not ended.");
    if (!status && has_adapter) {
        fact_text(f, "adapter", "the result", "%s/adapter", path);
    }
    return status;
}

static icae_status inspect_golden(facts *f, const char *path, icae_error *error) {
    icae_json *expected = NULL;
    icae_status status = open_in(&expected, path, "expected.json", error);
    if (status) return status;
    fact_text(f, "kind", "this is", "a golden case for icae selftest --golden");
    fact_members(f, icae_json_root(expected));
    fact_count(f, "samples", "samples",
               (int64_t)icae_json_count(icae_json_member(icae_json_root(expected), "samples")));
    if (!has_file(path, "model")) {
        fact_note(f, "It has no model/ of its own: give selftest the base with -m.");
    }
    icae_json_free(expected);
    return ICAE_OK;
}

static icae_status inspect_folder(facts *f, const char *path, const options *given,
                                  icae_error *error) {
    if (has_file(path, "icae.json")) return inspect_adapter(f, path, given, error);
    if (has_file(path, "adapter_config.json")) return inspect_peft(f, path, given, error);
    if (has_file(path, "state.json") && has_file(path, "hashes.json"))
        return inspect_checkpoint(f, path, error);
    if (has_file(path, "metrics.jsonl") || has_file(path, "checkpoints"))
        return inspect_run(f, path, error);
    if (has_file(path, "expected.json")) return inspect_golden(f, path, error);
    if (has_file(path, "config.json")) return inspect_model(f, path, error);
    return icae_fail(
        error, ICAE_UNSUPPORTED,
        "%s: this folder is none that icae knows; expected one with config.json (a "
        "model, or a run with metrics.jsonl), icae.json (an adapter), adapter_config.json "
        "(a PEFT LoRA) or state.json (a checkpoint)",
        path);
}

/* ---- files ---- */

static icae_status inspect_file(facts *f, const char *path, const options *given,
                                icae_error *error) {
    icae_mapping mapping;
    icae_status status = icae_mapping_open(&mapping, path, error);
    if (status) return status;
    bool is_gguf = mapping.bytes >= 4 && memcmp(mapping.data, "GGUF", 4) == 0;
    /* Eight bytes of header length, then the header: a JSON object. */
    bool is_safetensors = mapping.bytes >= 10 && mapping.data[8] == '{';
    bool is_torch = icae_torch_file_begins(mapping.data, mapping.bytes);
    bool is_empty = mapping.bytes == 0;
    icae_mapping_close(&mapping);
    if (is_gguf) return inspect_gguf(f, path, given, error);
    if (is_slots_file(path)) return inspect_slots(f, path, given, error);
    if (is_safetensors && is_embeds_file(path)) return inspect_embeds(f, path, error);
    if ((is_torch || is_safetensors) && icae_released_kind(path))
        return inspect_released(f, path, given, error);
    if (is_torch) return inspect_torch(f, path, error);
    if (is_safetensors) return inspect_safetensors(f, path, error);
    return icae_fail(error, ICAE_UNSUPPORTED,
                     "%s: %s; expected a GGUF, safetensors or .pt file, or one of slots", path,
                     is_empty ? "the file is empty" : "its first bytes are of no known format");
}

int run_inspect(const options *given) {
    const char *path = given->words[0];
    facts f = {.is_json = given->is_json};
    icae_error error = {0};
    icae_status status;
    if (!icae_path_exists(path)) {
        status = icae_fail(&error, ICAE_IO, "%s: there is no such file or folder", path);
    } else if (icae_path_is_folder(path)) {
        status = inspect_folder(&f, path, given, &error);
    } else {
        status = inspect_file(&f, path, given, &error);
    }
    int code;
    if (status) {
        code = report_failure(&error);
    } else if (given->is_json) {
        icae_text notes = {0};
        icae_text_printf(&notes, "[%s]", icae_text_string(&f.notes));
        json_raw(&f.json, "notes", icae_text_string(&notes));
        f.json.text.failed |= f.notes.failed || notes.failed;
        icae_text_release(&notes);
        code = json_end(&f.json);
    } else {
        code = finish_output();
    }
    icae_text_release(&f.json.text);
    icae_text_release(&f.notes);
    return code;
}
