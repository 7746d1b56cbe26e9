/* SPDX-License-Identifier: MIT */
/*
 * icae convert: recognises FROM, finds the row of convert.h that leads to TO, looks that nothing is lost, and
 * calls the library (icae/exchange.h). The way in for one more format: recognise() and a row.
 */
#include "convert.h"

#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "icae/exchange.h"
#include "icae/file.h"
#include "icae/gguf.h"
#include "icae/log.h"
#include "icae/released.h"
#include "inspect.h"

typedef enum kind {
#define KIND(name, word, ending, what) KIND_##name,
    CONVERT_KINDS(KIND)
#undef KIND
        N_KINDS
} kind;

static const struct {
    const char *word, *ending, *what;
} kinds[] = {
#define KIND(name, word, ending, what) {word, ending, what},
    CONVERT_KINDS(KIND)
#undef KIND
};

typedef struct job {
    const options *given;
    const char *from, *to;
    icae_dtype dtype;
    icae_task task;
    icae_import import;
    engine e;
    icae_error *error;
} job;

/* ---- the conversions ---- */

static icae_status adapter_to_peft(job *j) {
    if (j->given->base_name)
        return icae_adapter_export_peft(j->e.adapter, j->to, j->e.model, j->dtype,
                                        j->given->base_name, j->error);
    if (!icae_path_is_folder(j->given->base)) {
        icae_log_warning("peft opens bases by Hugging Face name or folder, and %s is neither: "
                         "say with --base-name what it is",
                         j->given->base);
    }
    char *full = realpath(j->given->base, NULL); /* the folder may be read from anywhere */
    icae_status status =
        icae_adapter_export_peft(j->e.adapter, j->to, j->e.model, j->dtype, full, j->error);
    free(full);
    return status;
}

static icae_status adapter_to_adapter(job *j) {
    return icae_adapter_save_as(j->e.adapter, j->to, j->e.model, j->dtype, j->error);
}

static icae_status adapter_to_gguf(job *j) {
    return icae_adapter_export_gguf(j->e.adapter, j->to, j->e.model, j->dtype, j->error);
}

static icae_status save(job *j, icae_adapter *adapter) {
    icae_status status = icae_adapter_save_as(adapter, j->to, j->e.model, j->dtype, j->error);
    icae_adapter_free(adapter);
    return status;
}

static icae_status peft_to_adapter(job *j) {
    icae_adapter *adapter;
    icae_status status =
        icae_adapter_import_peft(&adapter, j->from, &j->import, j->e.model, j->e.be, j->error);
    return status ? status : save(j, adapter);
}

static icae_status gguf_to_adapter(job *j) {
    icae_adapter *adapter;
    icae_status status =
        icae_adapter_import_gguf(&adapter, j->from, &j->import, j->e.model, j->e.be, j->error);
    return status ? status : save(j, adapter);
}

static icae_status released_to_adapter(job *j) {
    icae_adapter *adapter;
    icae_released_options wanted = {.alpha = j->given->alpha,
                                    .compression_rate = j->given->rate};
    icae_status status =
        icae_released_convert(&adapter, j->from, j->e.model, &wanted, j->e.be, false, j->error);
    return status ? status : save(j, adapter);
}

static icae_status slots_to_embeds(job *j) {
    icae_slots slots = {0};
    icae_status status = icae_slots_load(&slots, j->from, j->e.model, j->e.adapter, j->error);
    if (!status)
        status = icae_slots_export_embeds(&slots, j->to, j->e.model, j->e.adapter, j->task,
                                          j->dtype, j->error);
    icae_slots_release(&slots);
    return status;
}

static icae_status slots_to_torch(job *j) {
    icae_slots slots = {0};
    icae_status status = icae_slots_load(&slots, j->from, j->e.model, j->e.adapter, j->error);
    if (!status)
        status =
            icae_slots_export_torch(&slots, j->to, j->e.adapter, j->task, j->dtype, j->error);
    icae_slots_release(&slots);
    return status;
}

typedef struct conversion {
    kind from, to;
    icae_status (*run)(job *j);
    unsigned needs;
} conversion;

static const conversion conversions[] = {
#define CONVERSION(from, to, function, needs, help) {KIND_##from, KIND_##to, function, needs},
    CONVERSIONS(CONVERSION)
#undef CONVERSION
};
enum { N_CONVERSIONS = sizeof conversions / sizeof conversions[0] };

/* ---- which one ---- */

static icae_status recognise(const char *path, kind *what, icae_error *error) {
    if (!icae_path_exists(path))
        return icae_fail(error, ICAE_IO, "%s: there is no such file or folder", path);
    icae_gguf gguf;
    if (has_file(path, "icae.json")) {
        *what = KIND_ADAPTER;
    } else if (has_file(path, "adapter_config.json")) {
        *what = KIND_PEFT;
    } else if (!icae_path_is_folder(path) && is_slots_file(path)) {
        *what = KIND_SLOTS;
    } else if (!icae_path_is_folder(path) && icae_released_kind(path)) {
        *what = KIND_RELEASED;
    } else if (!icae_path_is_folder(path) && !icae_gguf_open(&gguf, path, NULL)) {
        bool is_adapter = is_gguf_adapter(&gguf);
        icae_gguf_close(&gguf);
        if (!is_adapter) {
            return icae_fail(error, ICAE_UNSUPPORTED,
                             "%s: is a GGUF, but no LoRA; icae inspect tells what it is", path);
        }
        *what = KIND_GGUF;
    } else {
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: is nothing that can be converted: expected an adapter folder, a "
                         "PEFT folder, a GGUF LoRA, released weights or a slots file (icae "
                         "inspect tells what it is)",
                         path);
    }
    return ICAE_OK;
}

static bool ends_with(const char *text, const char *ending) {
    size_t length = strlen(text), n = strlen(ending);
    return n && length > n && !strcmp(text + length - n, ending);
}

/* What the name of TO promises: whether a kind's files are called so. */
static bool is_named_like(const char *path, kind what) {
    if (*kinds[what].ending) return ends_with(path, kinds[what].ending);
    for (int k = 0; k < N_KINDS; k++) {
        if (ends_with(path, kinds[k].ending)) return false;
    }
    return true;
}

static icae_status choose(const job *j, kind from, const conversion **row) {
    char possible[128] = "";
    *row = NULL;
    for (int i = 0; i < N_CONVERSIONS; i++) {
        const conversion *c = &conversions[i];
        if (c->from != from) continue;
        bool fits = j->given->to ? !strcmp(j->given->to, kinds[c->to].word)
                                 : is_named_like(j->to, c->to);
        if (fits && !*row) *row = c;
        strncat(possible, *possible ? ", " : "", sizeof possible - strlen(possible) - 1);
        strncat(possible, kinds[c->to].word, sizeof possible - strlen(possible) - 1);
    }
    if (*row) return ICAE_OK;
    return icae_fail(j->error, ICAE_INVALID,
                     "%s: is %s, which can be converted to: %s; but %s%s asks for something "
                     "else, so give --to with one of them",
                     j->from, kinds[from].what, possible, j->given->to ? "--to " : "",
                     j->given->to ? j->given->to : j->to);
}

/* ---- what may be replaced ---- */

static icae_status check_target(const job *j, kind to) {
    icae_status status = check_unwritten(j->to, j->given->is_forced, j->error);
    if (!status && is_same_file(j->from, j->to)) {
        status = icae_fail(j->error, ICAE_INVALID,
                           "%s: would be overwritten by its own conversion; give another name",
                           j->to);
    }
    bool is_folder = icae_path_is_folder(j->to);
    if (!status && is_folder && *kinds[to].ending) {
        status =
            icae_fail(j->error, ICAE_INVALID, "%s: is a folder, expected a file's name", j->to);
    }
    /* A folder is replaced file by file: strangers in it must not come to stand in an adapter. */
    if (!status && is_folder && to == KIND_PEFT && has_file(j->to, "icae.json")) {
        status = icae_fail(j->error, ICAE_INVALID,
                           "%s: is an ICAE adapter, and its icae.json would not fit any more; "
                           "give another name",
                           j->to);
    }
    if (!status && is_folder && !has_file(j->to, "adapter_config.json")) {
        status = icae_fail(j->error, ICAE_INVALID,
                           "%s: is a folder, but no adapter that could be replaced; give "
                           "another name",
                           j->to);
    }
    if (!status && to == KIND_GGUF) {
        char *memory = icae_memory_beside(j->to);
        status = memory ? check_unwritten(memory, j->given->is_forced, j->error)
                        : icae_fail_memory(j->error, j->to);
        free(memory);
    }
    return status;
}

/* ---- the command ---- */

/* The index of a word in names (NULL-terminated); -1 with a complaint. */
static int choice(const char *option, const char *word, const char *const *names,
                  icae_error *error) {
    char list[64] = "";
    for (int i = 0; names[i]; i++) {
        if (!strcmp(word, names[i])) return i;
        strncat(list, i ? ", " : "", sizeof list - strlen(list) - 1);
        strncat(list, names[i], sizeof list - strlen(list) - 1);
    }
    icae_fail(error, ICAE_INVALID, "--%s %s: expected one of %s", option, word, list);
    return -1;
}

static icae_status read_options(job *j) {
    static const char *const dtypes[] = {"f32", "bf16", "f16", NULL};
    static const icae_dtype of[] = {ICAE_DTYPE_F32, ICAE_DTYPE_BF16, ICAE_DTYPE_F16};
    static const char *const tasks[] = {"ae", "lm", NULL};
    const options *given = j->given;
    int dtype = choice("dtype", given->dtype ? given->dtype : "f32", dtypes, j->error);
    int task =
        dtype < 0 ? -1 : choice("task", given->task ? given->task : "ae", tasks, j->error);
    if (task < 0) return ICAE_INVALID;
    j->dtype = of[dtype];
    j->task = (icae_task)task;
    j->import = (icae_import){.memory_path = given->memory,
                              .memory_slots = given->memory_slots,
                              .compression_rate = given->rate,
                              .layout = -1};
    if (given->layout) {
        j->import.layout = choice("layout", given->layout, icae_layout_names, j->error);
        if (j->import.layout < 0) return ICAE_INVALID;
    }
    return ICAE_OK;
}

/* An option that was given and means nothing to the conversion, or NULL. */
static const char *ignored_option(const options *given, const conversion *row) {
    bool is_lora = row->from == KIND_PEFT || row->from == KIND_GGUF;
    bool is_released = row->from == KIND_RELEASED;
    const struct {
        const char *name;
        bool is_given, means;
    } all[] = {
        {"task", given->task != NULL, row->from == KIND_SLOTS},
        {"base-name", given->base_name != NULL, row->to == KIND_PEFT},
        {"memory", given->memory != NULL, is_lora},
        {"slots", given->memory_slots > 0, is_lora},
        {"layout", given->layout != NULL, is_lora},
        {"rate", given->rate > 0, is_lora || is_released},
        {"alpha", given->alpha > 0, is_released},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].is_given && !all[i].means) return all[i].name;
    return NULL;
}

static icae_status check_needs(const job *j, const conversion *row) {
    const char *lacks = (row->needs & TAKES_BASE) && !j->given->base         ? "-m BASE"
                        : (row->needs & TAKES_ADAPTER) && !j->given->adapter ? "-a ADAPTER"
                                                                             : NULL;
    if (!lacks) return ICAE_OK;
    return icae_fail(j->error, ICAE_INVALID, "%s: to convert %s to %s, %s is needed", j->from,
                     kinds[row->from].what, kinds[row->to].what, lacks);
}

/* Base, and as adapter the one that is converted or the one that was given. */
static icae_status open_engine(job *j, const conversion *row) {
    options wanted = *j->given;
    if (row->from == KIND_ADAPTER)
        wanted.adapter = j->from;
    else if (!(row->needs & TAKES_ADAPTER))
        wanted.adapter = NULL;
    return engine_open(&j->e, &wanted, j->error);
}

static int print_result(const job *j, const conversion *row) {
    if (!j->given->is_json) {
        printf("%s: %s\n", j->to, kinds[row->to].what);
        return finish_output();
    }
    json_object json;
    json_begin(&json);
    json_string(&json, "from", j->from, strlen(j->from));
    json_string(&json, "from_kind", kinds[row->from].word, strlen(kinds[row->from].word));
    json_string(&json, "to", j->to, strlen(j->to));
    json_string(&json, "to_kind", kinds[row->to].word, strlen(kinds[row->to].word));
    return json_end(&json);
}

int run_convert(const options *given) {
    icae_error error = {0};
    job j = {.given = given, .from = given->words[0], .to = given->words[1], .error = &error};
    kind from = N_KINDS;
    const conversion *row = NULL;
    if (read_options(&j))
        return usage_error("convert", "FROM TO [-m BASE] [-a ADAPTER] [--to FORMAT]", "%s",
                           error.message);
    icae_status status = recognise(j.from, &from, &error);
    if (!status) status = choose(&j, from, &row);
    const char *ignored = status ? NULL : ignored_option(given, row);
    if (ignored) {
        return usage_error("convert", "FROM TO [-m BASE] [-a ADAPTER] [--to FORMAT]",
                           "--%s means nothing where %s becomes %s", ignored,
                           kinds[row->from].what, kinds[row->to].what);
    }
    if (!status) status = check_needs(&j, row);
    if (!status) status = check_target(&j, row->to);
    if (!status) status = open_engine(&j, row);
    if (!status) status = row->run(&j);
    int code = status ? report_failure(&error) : print_result(&j, row);
    engine_close(&j.e);
    return code;
}
