/* SPDX-License-Identifier: MIT */
/*
 * Writing an adapter folder; what its files hold is told in adapter_file.c.
 *
 * All files are first written whole into a temporary folder. When there is no target yet, that folder
 * takes its name, so the adapter appears at once; when there is one that holds nothing but an adapter, the
 * two change places at once. Only where other files lie in it, or the file system cannot exchange, the
 * files are renamed into it one by one, icae.json last: between the first and the last rename its hash does
 * not fit the tensors, and what a crash leaves there is refused. No file holds a time or a path, so equal adapters are equal bytes.
 *
 * A PEFT folder is the same less icae.json, in any float type; its memory table carries the settings.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "icae/adapter_internal.h"
#include "icae/half.h"
#include "icae/json.h"
#include "icae/rng.h"

/* In the order in which an existing folder gets them; a PEFT folder has all but the last. */
static const char *const file_names[] = {"adapter_model.safetensors", "memory.safetensors",
                                         "adapter_config.json", "icae.json"};
enum { N_FILES = sizeof file_names / sizeof file_names[0] };

static void append_string(icae_text *out, const char *string) {
    icae_json_write_string(out, string, strlen(string));
}

/* ---- JSON ---- */

void icae_adapter_write_json(icae_text *out, const icae_json_value *value) {
    const char *string;
    size_t bytes;
    double number;
    bool flag;
    if (icae_json_as_bytes(value, &string, &bytes)) {
        icae_json_write_string(out, string, bytes);
    } else if (icae_json_as_number(value, &number)) {
        icae_json_write_number(out, number);
    } else if (icae_json_as_bool(value, &flag)) {
        icae_text_append_string(out, flag ? "true" : "false");
    } else if (icae_json_is_null(value)) {
        icae_text_append_string(out, "null");
    } else {
        bool is_object = icae_json_is_object(value);
        icae_text_append_char(out, is_object ? '{' : '[');
        const icae_json_value *at = icae_json_first(value);
        for (bool is_first = true; at; at = icae_json_next(at), is_first = false) {
            if (!is_first) icae_text_append_string(out, ", ");
            if (is_object) {
                append_string(out, icae_json_key(at));
                icae_text_append_string(out, ": ");
            }
            icae_adapter_write_json(out, at);
        }
        icae_text_append_char(out, is_object ? '}' : ']');
    }
}

/* The summary may come from any program: it must be an object, and is written in our spelling. */
static icae_status append_summary(icae_text *out, const char *summary, icae_error *error) {
    icae_json *json;
    icae_status status =
        icae_json_parse(&json, "training summary", summary, strlen(summary), error);
    if (status) return status;
    if (icae_json_is_object(icae_json_root(json)))
        icae_adapter_write_json(out, icae_json_root(json));
    else
        status = icae_fail(error, ICAE_INVALID, "training summary: expected a JSON object");
    icae_json_free(json);
    return status;
}

/* The last part of a path: enough to tell a reader which base it was, and no secret of the machine. */
static void base_name(const icae_model *model, char *out, size_t bytes) {
    const char *path = model->path ? model->path : "";
    size_t length = strlen(path);
    while (length && path[length - 1] == '/')
        length--;
    size_t start = length;
    while (start && path[start - 1] != '/')
        start--;
    if (length - start >= bytes) start = length; /* a name that long is no help */
    memcpy(out, path + start, length - start);
    out[length - start] = 0;
}

static void append_setting(icae_text *out, const char *key, const char *value) {
    icae_text_printf(out, "  \"%s\": ", key);
    append_string(out, value);
    icae_text_append_string(out, ",\n");
}

/* What only released weights ask for is written only where it is so. */
static void append_rare_settings(icae_text *out, const icae_adapter_settings *settings) {
    if (settings->closes_prompt) icae_text_append_string(out, "  \"closes_prompt\": true,\n");
    if (settings->no_lm_token) icae_text_append_string(out, "  \"no_lm_token\": true,\n");
    if (settings->context_bos) icae_text_append_string(out, "  \"context_bos\": true,\n");
    if (settings->has_stop_id)
        icae_text_printf(out, "  \"stop_id\": %" PRId32 ",\n", settings->stop_id);
}

void icae_adapter_write_settings(const icae_adapter *adapter, icae_text *out) {
    const icae_adapter_settings *settings = &adapter->settings;
    icae_text_append_string(out, "{\n  \"format\": \"icae-adapter\",\n  \"version\": 1,\n");
    icae_text_printf(out,
                     "  \"memory_slots\": %" PRId64 ",\n  \"compression_rate\": %" PRId64 ",\n",
                     settings->memory_slots, settings->compression_rate);
    append_setting(out, "layout", icae_layout_names[settings->layout]);
    append_setting(out, "memory_init", icae_memory_init_names[settings->memory_init]);
    append_setting(out, "memory_inputs", icae_memory_inputs_names[settings->memory_inputs]);
    append_setting(out, "slot_values", icae_slot_values_names[settings->slot_values]);
    append_setting(out, "chat_template", settings->chat_template);
    append_setting(out, "chat_prefix", settings->chat_prefix);
    append_setting(out, "chat_suffix", settings->chat_suffix);
    append_setting(out, "chat_turn", settings->chat_turn);
    append_setting(out, "chat_end", settings->chat_end);
    append_rare_settings(out, settings);
}

/* "files": hashes of the other files in the folder. */
static icae_status append_hashes(icae_text *out, const char *folder, icae_error *error) {
    icae_status status = ICAE_OK;
    icae_text_append_string(out, ",\n  \"files\": {");
    for (int i = 0; i < N_FILES - 1 && !status; i++) {
        char *path = icae_path_join(folder, file_names[i]);
        uint64_t hash = 0;
        size_t bytes;
        status =
            path ? icae_hash_file(path, &hash, &bytes, error) : icae_fail_memory(error, folder);
        icae_text_printf(out, "%s\"%s\": \"%016" PRIx64 "\"", i ? ", " : "", file_names[i],
                         hash);
        free(path);
    }
    icae_text_append_string(out, "}");
    return status;
}

static icae_status make_icae_json(const icae_adapter *adapter, const icae_model *model,
                                  const char *folder, icae_text *out, icae_error *error) {
    const icae_model_config *config = &model->config;
    char name[128];
    base_name(model, name, sizeof name);
    icae_adapter_write_settings(adapter, out);
    icae_text_printf(out, "  \"base\": {\"fingerprint\": \"%016" PRIx64 "\", \"name\": ",
                     adapter->base_fingerprint);
    append_string(out, name);
    icae_text_append_string(out, ", \"architecture\": ");
    append_string(out, config->architecture);
    icae_text_printf(out,
                     ", \"width\": %" PRId64 ", \"layers\": %" PRId64
                     ", \"vocabulary\": %" PRId64 "},\n",
                     config->width, config->layers, config->vocabulary);
    if (model->tokenizer) {
        icae_text_printf(out, "  \"tokenizer\": {\"fingerprint\": \"%016" PRIx64 "\"},\n",
                         adapter->tokenizer_fingerprint);
    }
    icae_text_printf(out, "  \"adapter\": {\"fingerprint\": \"%016" PRIx64 "\"}",
                     adapter->fingerprint);
    icae_status status = ICAE_OK;
    if (adapter->summary_json) {
        icae_text_append_string(out, ",\n  \"training\": ");
        status = append_summary(out, adapter->summary_json, error);
    }
    if (!status) status = append_hashes(out, folder, error);
    icae_json_write_seal(out);
    return status;
}

static void make_peft_json(const icae_adapter *adapter, const char *base, icae_text *out) {
    const icae_adapter_settings *settings = &adapter->settings;
    icae_text_append_string(out, "{\n  \"peft_type\": \"LORA\",\n"
                                 "  \"task_type\": \"CAUSAL_LM\",\n");
    append_setting(out, "base_model_name_or_path", base);
    icae_text_printf(out, "  \"r\": %" PRId64 ",\n  \"lora_alpha\": ", settings->rank);
    icae_json_write_number(out, settings->alpha);
    icae_text_append_string(out, ",\n  \"lora_dropout\": ");
    icae_json_write_number(out, settings->dropout);
    icae_text_append_string(out, ",\n  \"target_modules\": [");
    bool is_first = true;
    for (int m = 0; m < ICAE_MODULE_COUNT; m++) {
        if (!settings->targets[m]) continue;
        if (!is_first) icae_text_append_string(out, ", ");
        append_string(out, icae_module_name((icae_module)m));
        is_first = false;
    }
    icae_text_append_string(out, "],\n  \"bias\": \"none\",\n  \"use_rslora\": false,\n"
                                 "  \"use_dora\": false,\n  \"fan_in_fan_out\": false,\n"
                                 "  \"inference_mode\": true\n}\n");
}

/* ---- tensors ---- */

bool icae_narrow(icae_dtype dtype, const float *values, int64_t count, void *out) {
    uint16_t *halves = out;
    bool fits = true;
    if (dtype == ICAE_DTYPE_F32) memcpy(out, values, (size_t)count * sizeof *values);
    for (int64_t i = 0; i < count && dtype == ICAE_DTYPE_BF16; i++) {
        halves[i] = icae_f32_to_bf16(values[i]);
        fits = fits && (halves[i] & 0x7FFFu) < 0x7F80u;
    }
    for (int64_t i = 0; i < count && dtype == ICAE_DTYPE_F16; i++) {
        halves[i] = icae_f32_to_f16(values[i]);
        fits = fits && (halves[i] & 0x7FFFu) < 0x7C00u;
    }
    return fits;
}

/* All parameters are copied to the host together: the writer wants all of a file's tensors at a time. */
icae_status icae_adapter_write_tensors(const icae_adapter *adapter, int first, int end,
                                       const char *path, icae_dtype dtype,
                                       const char *const *metadata, size_t n_metadata,
                                       icae_error *error) {
    typedef char tensor_name[176];
    const icae_param *list = adapter->params.list;
    size_t n = (size_t)(end - first), each = icae_dtype_describe(dtype)->block_bytes;
    int64_t start = list[first].offset, count = list[end - 1].offset + list[end - 1].count;
    icae_safetensors_source *sources = calloc(n, sizeof *sources);
    tensor_name *names = calloc(n, sizeof *names);
    float *values = malloc((size_t)(count - start) * sizeof *values);
    icae_status status = ICAE_OK;
    if (!sources || !names || !values) status = icae_fail_memory(error, path);
    for (size_t i = 0; i < n && !status; i++) {
        const icae_param *param = &list[first + (int)i];
        float *from = values + (param->offset - start);
        /* Narrowed in place: what is written lies never behind what is still to be read. */
        unsigned char *to = (unsigned char *)values + (size_t)(param->offset - start) * each;
        bool is_lora = strstr(param->name, ".lora_") != NULL;
        snprintf(names[i], sizeof names[i], "%s%s.weight", is_lora ? "base_model.model." : "",
                 param->name);
        icae_adapter_get(adapter, param, 0, param->count, from);
        if (!icae_narrow(dtype, from, param->count, to)) {
            status = icae_fail(error, ICAE_INVALID,
                               "%s: %s holds a number that is too large for %s; take another "
                               "type",
                               path, names[i], icae_dtype_describe(dtype)->name);
        }
        sources[i] = (icae_safetensors_source){
            .name = names[i], .dtype = dtype, .rank = param->rank, .data = to};
        memcpy(sources[i].shape, param->shape, sizeof sources[i].shape);
    }
    if (!status) status = icae_safetensors_write(path, sources, n, metadata, n_metadata, error);
    free(values);
    free(names);
    free(sources);
    return status;
}

/* ---- the folder ---- */

/* What is written: an adapter folder, or (is_peft) a PEFT folder, which has no icae.json. */
typedef struct folder_plan {
    bool is_peft;
    icae_dtype dtype;
    const char *base_name; /* as peft shall open it */
} folder_plan;

static int n_files(const folder_plan *plan) {
    return plan->is_peft ? N_FILES - 1 : N_FILES;
}

static icae_status write_file(const icae_adapter *adapter, const icae_model *model,
                              const folder_plan *plan, int file, const char *folder,
                              const char *path, icae_error *error) {
    static const char *const metadata[] = {"format",
                                           "pt"}; /* what Hugging Face's loaders ask for */
    int table = adapter->params.n_params - 1;
    if (file == 0) {
        return icae_adapter_write_tensors(adapter, 0, table, path, plan->dtype, metadata, 1,
                                          error);
    }
    if (file == 1 && plan->is_peft)
        return icae_adapter_write_memory(adapter, path, plan->dtype, error);
    if (file == 1) {
        return icae_adapter_write_tensors(adapter, table, table + 1, path, plan->dtype,
                                          metadata, 1, error);
    }
    icae_text text = {0};
    icae_status status = ICAE_OK;
    if (file == 2)
        make_peft_json(adapter, plan->base_name, &text);
    else
        status = make_icae_json(adapter, model, folder, &text, error);
    if (!status && text.failed) status = icae_fail_memory(error, path);
    if (!status) status = icae_file_write(path, text.data, text.length, error);
    icae_text_release(&text);
    return status;
}

static icae_status write_files(const icae_adapter *adapter, const icae_model *model,
                               const folder_plan *plan, const char *folder, icae_error *error) {
    icae_status status = icae_folder_remove(folder, error); /* of a process with our number */
    if (!status) status = icae_folder_make(folder, error);
    for (int i = 0; i < n_files(plan) && !status; i++) {
        char *path = icae_path_join(folder, file_names[i]);
        status = path ? write_file(adapter, model, plan, i, folder, path, error)
                      : icae_fail_memory(error, folder);
        free(path);
    }
    return status;
}

static icae_status move(const char *from, const char *to, icae_error *error) {
    if (!rename(from, to)) return ICAE_OK;
    return icae_fail(error, ICAE_IO, "%s: cannot rename to %s: %s", from, to, strerror(errno));
}

/* Whether a whole new folder may take this one's place: it is a folder and no link, no other file system
 * begins there, and it has no other files than an adapter's (or what a crash left of one). */
static bool is_exchangeable(const char *folder) {
    struct stat info, above;
    char *parent = icae_path_join(folder, "..");
    bool is_plain = parent && !lstat(folder, &info) && S_ISDIR(info.st_mode) &&
                    !stat(parent, &above) && info.st_dev == above.st_dev;
    free(parent);
    if (!is_plain) return false;
    char **names;
    size_t count;
    if (icae_folder_list(folder, &names, &count, NULL)) return false;
    bool is_ours = true;
    for (size_t i = 0; i < count && is_ours; i++) {
        is_ours = !strncmp(names[i], ".icae.tmp-", 10);
        for (int f = 0; f < N_FILES && !is_ours; f++)
            is_ours = !strcmp(names[i], file_names[f]);
    }
    icae_names_free(names, count);
    return is_ours;
}

/* The folder that was there takes the new one's name, to be removed. false: this file system cannot. */
static bool exchange(const char *fresh, const char *folder) {
    return renameat2(AT_FDCWD, fresh, AT_FDCWD, folder, RENAME_EXCHANGE) == 0;
}

static icae_status move_files(const char *from, const char *to, int count, icae_error *error) {
    icae_status status = ICAE_OK;
    for (int i = 0; i < count && !status; i++) {
        char *old_path = icae_path_join(from, file_names[i]);
        char *new_path = icae_path_join(to, file_names[i]);
        status = old_path && new_path ? move(old_path, new_path, error)
                                      : icae_fail_memory(error, to);
        free(old_path);
        free(new_path);
    }
    return status ? status : icae_folder_sync(to, error);
}

/* Where the files are written first: inside the folder that is to get them one by one, or beside it.
 * *parent: the folder that holds it. */
static char *temporary_path(const char *folder, bool is_inside, char **parent) {
    const char *slash = strrchr(folder, '/');
    size_t before = slash ? (size_t)(slash - folder) + 1 : 0;
    char *path = NULL;
    int length = is_inside ? asprintf(&path, "%s/.icae.tmp-%ld", folder, (long)getpid())
                           : asprintf(&path, "%.*s.%s.tmp-%ld", (int)before, folder,
                                      folder + before, (long)getpid());
    *parent = before ? strndup(folder, before) : strdup(".");
    return length < 0 ? NULL : path;
}

static icae_status save_at(const icae_adapter *adapter, const char *folder,
                           const icae_model *model, const folder_plan *plan,
                           icae_error *error) {
    bool is_there = icae_path_exists(folder);
    if (is_there && !icae_path_is_folder(folder)) {
        return icae_fail(error, ICAE_IO, "%s: is a file, expected a folder or nothing", folder);
    }
    bool is_inside = is_there && !is_exchangeable(folder);
    char *parent, *temporary = temporary_path(folder, is_inside, &parent);
    icae_status status =
        temporary && parent ? icae_folder_make(parent, error) : icae_fail_memory(error, folder);
    if (!status) status = write_files(adapter, model, plan, temporary, error);
    if (!status && is_there && (is_inside || !exchange(temporary, folder))) {
        status = move_files(temporary, folder, n_files(plan), error);
    } else if (!status) {
        if (!is_there) status = move(temporary, folder, error);
        if (!status) status = icae_folder_sync(parent, error);
    }
    if (temporary) icae_folder_remove(temporary, NULL);
    free(temporary);
    free(parent);
    return status;
}

/* save_at for a name that may end with slashes. */
static icae_status save_trimmed(const icae_adapter *adapter, const char *folder,
                                const icae_model *model, const folder_plan *plan,
                                icae_error *error) {
    if (!*folder) return icae_fail(error, ICAE_INVALID, "an adapter needs a folder's name");
    char *trimmed = strdup(folder);
    if (!trimmed) return icae_fail_memory(error, folder);
    for (size_t n = strlen(trimmed); n > 1 && trimmed[n - 1] == '/'; n--)
        trimmed[n - 1] = 0;
    icae_status status = save_at(adapter, trimmed, model, plan, error);
    free(trimmed);
    return status;
}

icae_status icae_adapter_save(icae_adapter *adapter, const char *folder,
                              const icae_model *model, icae_error *error) {
    return icae_adapter_save_as(adapter, folder, model, ICAE_DTYPE_F32, error);
}

/* Every value as it will be read again from a file of this type. */
static void round_values(icae_adapter *adapter, icae_dtype dtype) {
    enum { CHUNK = 4096 };
    float values[CHUNK];
    uint16_t halves[CHUNK];
    for (int p = 0; p < adapter->params.n_params; p++) {
        const icae_param *param = &adapter->params.list[p];
        for (int64_t first = 0; first < param->count; first += CHUNK) {
            int64_t n = param->count - first < CHUNK ? param->count - first : CHUNK;
            icae_adapter_get(adapter, param, first, n, values);
            icae_narrow(dtype, values, n, halves); /* what does not fit, the writer refuses */
            for (int64_t i = 0; i < n; i++)
                values[i] = dtype == ICAE_DTYPE_BF16 ? icae_bf16_to_f32(halves[i])
                                                     : icae_f16_to_f32(halves[i]);
            icae_adapter_set(adapter, param, first, n, values);
        }
    }
}

icae_status icae_adapter_save_as(icae_adapter *adapter, const char *folder,
                                 const icae_model *model, icae_dtype dtype, icae_error *error) {
    char name[128];
    base_name(model, name, sizeof name);
    if (dtype != ICAE_DTYPE_F32) round_values(adapter, dtype);
    adapter->fingerprint = icae_adapter_hash(adapter);
    const folder_plan plan = {.dtype = dtype, .base_name = name};
    return save_trimmed(adapter, folder, model, &plan, error);
}

icae_status icae_adapter_export_peft(const icae_adapter *adapter, const char *folder,
                                     const icae_model *model, icae_dtype dtype,
                                     const char *base, icae_error *error) {
    const folder_plan plan = {
        .is_peft = true, .dtype = dtype, .base_name = base ? base : model->path};
    return save_trimmed(adapter, folder, model, &plan, error);
}
