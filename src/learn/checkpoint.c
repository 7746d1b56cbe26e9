/* SPDX-License-Identifier: MIT */
/*
 * Writing, checking, finding and reading run checkpoints; layout and promises: icae/checkpoint.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "icae/checkpoint.h"
#include "icae/log.h"
#include "icae/rng.h"
#include "icae/safetensors.h"

static const char FORMAT[] = "icae-checkpoint";
enum { VERSION = 1, MAX_FILES = 64 };
static const char advice[] = "remove this checkpoint, and go on from an earlier one";

void icae_run_state_release(icae_run_state *state) {
    icae_json_free(state->json);
    *state = (icae_run_state){0};
}

/* ---- names ---- */

/* Of a checkpoint that is being written. */
static const char hidden_prefix[] = ".tmp-";

/* "run/checkpoints/name", malloc'ed. */
static char *checkpoint_path(const char *run_folder, const char *name) {
    char *path;
    return asprintf(&path, "%s/checkpoints/%s", run_folder, name) < 0 ? NULL : path;
}

/* The N of "step-N", or -1: other names in the folder are not ours. */
static int64_t step_of(const char *name) {
    char canonical[64];
    if (strncmp(name, "step-", 5) != 0) return -1;
    errno = 0;
    long long step = strtoll(name + 5, NULL, 10);
    snprintf(canonical, sizeof canonical, "step-%lld", step);
    return errno || step < 0 || strcmp(canonical, name) != 0 ? -1 : step;
}

static int newest_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* What lies in the folder of checkpoints, nothing where there is none; icae_names_free. */
static icae_status list_names(const char *run_folder, char ***names, size_t *count,
                              icae_error *error) {
    *names = NULL;
    *count = 0;
    char *folder = checkpoint_path(run_folder, "");
    if (!folder) return icae_fail_memory(error, run_folder);
    bool is_there;
    icae_status status = icae_path_find(folder, &is_there, error);
    if (!status && is_there) status = icae_folder_list(folder, names, count, error);
    free(folder);
    return status;
}

/* Steps that have a folder, newest first; *steps is malloc'ed. */
static icae_status list_steps(const char *run_folder, int64_t **steps, size_t *count,
                              icae_error *error) {
    *steps = NULL;
    *count = 0;
    char **names;
    size_t n_names;
    icae_status status = list_names(run_folder, &names, &n_names, error);
    if (!status && n_names) {
        *steps = calloc(n_names, sizeof **steps);
        if (!*steps) status = icae_fail_memory(error, run_folder);
    }
    for (size_t i = 0; !status && i < n_names; i++) {
        int64_t step = step_of(names[i]);
        if (step >= 0) (*steps)[(*count)++] = step;
    }
    if (*count) qsort(*steps, *count, sizeof **steps, newest_first);
    icae_names_free(names, n_names);
    return status;
}

icae_status icae_checkpoint_any(const char *run_folder, bool *has_any, icae_error *error) {
    int64_t *steps;
    size_t count;
    icae_status status = list_steps(run_folder, &steps, &count, error);
    *has_any = count > 0;
    free(steps);
    return status;
}

/* ---- hashes.json ---- */

/* Adds a line for every file in folder/below (below = "" or "adapter/"). */
static icae_status hash_folder(const char *folder, const char *below, icae_text *out,
                               bool *is_first, icae_error *error) {
    char inner[4096];
    snprintf(inner, sizeof inner, "%s/%s", folder, below);
    char **names;
    size_t count;
    icae_status status = icae_folder_list(inner, &names, &count, error);
    if (status) return status;
    for (size_t i = 0; !status && i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s%s", folder, below, names[i]);
        if (icae_path_is_folder(path)) continue;
        uint64_t hash;
        size_t bytes;
        status = icae_hash_file(path, &hash, &bytes, error);
        if (status) break;
        icae_text_append_string(out, *is_first ? "\n    " : ",\n    ");
        *is_first = false;
        snprintf(path, sizeof path, "%s%s", below, names[i]);
        icae_json_write_string(out, path, strlen(path));
        icae_text_printf(out, ": {\"bytes\": %zu, \"hash\": \"%016" PRIx64 "\"}", bytes, hash);
    }
    icae_names_free(names, count);
    return status;
}

static icae_status write_hashes(const char *folder, icae_error *error) {
    icae_text text = {0};
    bool is_first = true;
    icae_text_printf(&text, "{\n  \"format\": \"%s\",\n  \"version\": %d,\n  \"files\": {",
                     FORMAT, VERSION);
    icae_status status = hash_folder(folder, "", &text, &is_first, error);
    if (!status) status = hash_folder(folder, "adapter/", &text, &is_first, error);
    icae_text_append_string(&text, "\n  }");
    icae_json_write_seal(&text);
    char *path = icae_path_join(folder, "hashes.json");
    if (!status && (text.failed || !path)) status = icae_fail_memory(error, folder);
    if (!status) status = icae_file_write(path, text.data, text.length, error);
    free(path);
    icae_text_release(&text);
    return status;
}

/* The list itself: its checksum, which those from before it had one lack, and no key that we do not know: one
 * could be "checksum" with a changed letter. */
static icae_status verify_list(const icae_json *json, icae_error *error) {
    static const char *const known[] = {"format", "version", "files", "checksum"};
    const icae_json_value *at = icae_json_first(icae_json_root(json));
    for (; at; at = icae_json_next(at)) {
        size_t i = 0, n = sizeof known / sizeof known[0];
        while (i < n && strcmp(known[i], icae_json_key(at)) != 0)
            i++;
        if (i < n) continue;
        return icae_fail(error, ICAE_FORMAT, "%s:%d: the key '%s' is none of this list's; %s",
                         icae_json_name(json), icae_json_line(json, at),
                         icae_quote_string(icae_json_key(at)).text, advice);
    }
    return icae_json_check_seal(json, advice, error);
}

/* One entry of hashes.json against the file on the disk. */
static icae_status verify_file(const char *folder, const icae_json *json,
                               const icae_json_value *entry, icae_error *error) {
    const char *name = icae_json_key(entry);
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof path || strstr(name, "..") || *name == '/') {
        return icae_fail(error, ICAE_FORMAT, "%s: names a file outside its folder; %s",
                         icae_json_name(json), advice);
    }
    int64_t bytes = -1;
    const char *hash = icae_json_as_string(icae_json_member(entry, "hash"));
    if (!hash || !icae_json_as_integer(icae_json_member(entry, "bytes"), &bytes)) {
        return icae_fail(error, ICAE_FORMAT, "%s: the entry for %s has no bytes or no hash; %s",
                         icae_json_name(json), icae_quote_string(name).text, advice);
    }
    uint64_t found_hash;
    size_t found_bytes;
    icae_status status = icae_hash_file(path, &found_hash, &found_bytes, error);
    if (status) return status;
    char found[32];
    snprintf(found, sizeof found, "%016" PRIx64, found_hash);
    if (bytes != (int64_t)found_bytes) {
        return icae_fail(error, ICAE_FORMAT, "%s: has %zu bytes, %lld were written; %s", path,
                         found_bytes, (long long)bytes, advice);
    }
    if (strcmp(hash, found) != 0) {
        return icae_fail(error, ICAE_FORMAT, "%s: its hash is %s, %s was written; %s", path,
                         found, hash, advice);
    }
    return ICAE_OK;
}

icae_status icae_checkpoint_verify(const char *path, icae_error *error) {
    char *list = icae_path_join(path, "hashes.json");
    if (!list) return icae_fail_memory(error, path);
    icae_json *json;
    icae_status status = icae_json_open(&json, list, error);
    free(list);
    if (status) return status;
    const icae_json_value *root = icae_json_root(json);
    const char *format = icae_json_as_string(icae_json_member(root, "format"));
    int64_t version = 0;
    if (!format || strcmp(format, FORMAT) != 0) {
        status = icae_fail(error, ICAE_FORMAT, "%s: is not the list of an ICAE checkpoint; %s",
                           icae_json_name(json), advice);
    } else if (!icae_json_as_integer(icae_json_member(root, "version"), &version) ||
               version != VERSION) {
        status = icae_fail(error, ICAE_UNSUPPORTED, "%s: version %lld, this program knows %d",
                           icae_json_name(json), (long long)version, VERSION);
    }
    if (!status) status = verify_list(json, error);
    const icae_json_value *files = icae_json_member(root, "files");
    bool has_state = icae_json_member(files, "state.json") != NULL;
    bool has_optimizer = icae_json_member(files, "optimizer.safetensors") != NULL;
    if (!status && (!has_state || !has_optimizer)) {
        status = icae_fail(error, ICAE_FORMAT, "%s: lists no state.json or no optimizer; %s",
                           icae_json_name(json), advice);
    }
    const icae_json_value *entry = icae_json_first(files);
    for (; !status && entry; entry = icae_json_next(entry)) {
        status = verify_file(path, json, entry, error);
    }
    icae_json_free(json);
    return status;
}

icae_status icae_checkpoint_newest(const char *run_folder, char **path, icae_error *error) {
    *path = NULL;
    int64_t *steps;
    size_t count;
    icae_status status = list_steps(run_folder, &steps, &count, error);
    for (size_t i = 0; !status && i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "step-%lld", (long long)steps[i]);
        char *candidate = checkpoint_path(run_folder, name);
        if (!candidate) {
            status = icae_fail_memory(error, run_folder);
            break;
        }
        icae_error reason = {0};
        icae_status verdict = icae_checkpoint_verify(candidate, &reason);
        if (!verdict) {
            *path = candidate;
            break;
        }
        if (verdict == ICAE_MEMORY) { /* which says nothing about the checkpoint */
            status = icae_fail(error, verdict, "%s", reason.message);
            free(candidate);
            break;
        }
        icae_log_warning("%s is damaged and passed over: %s", candidate, reason.message);
        free(candidate);
    }
    free(steps);
    if (!status && !*path) {
        status = icae_fail(error, ICAE_IO,
                           "%s: has no %scheckpoint to resume from; start without --resume, in "
                           "another folder (--set out=FOLDER)",
                           run_folder, count ? "undamaged " : "");
    }
    return status;
}

/* ---- writing ---- */

/* Device memory comes to the host piece by piece on its way into the file. */
static void copy_piece(const void *user, const void *data, size_t offset, size_t bytes,
                       void *out) {
    const icae_params *params = user;
    params->be->k.copy_out(params->be, out, (const char *)data + offset, bytes);
}

static icae_status write_block(const char *folder, const icae_params *params,
                               icae_error *error) {
    char *path = icae_path_join(folder, "optimizer.safetensors");
    if (!path) return icae_fail_memory(error, "a checkpoint");
    const struct {
        const char *name;
        const icae_real *from;
    } parts[] = {
        {"values", params->values}, {"moment1", params->moment1}, {"moment2", params->moment2}};
    icae_safetensors_source sources[3];
    for (int i = 0; i < 3; i++) {
        sources[i] = (icae_safetensors_source){.name = parts[i].name,
                                               .dtype = ICAE_DTYPE_REAL,
                                               .rank = 1,
                                               .shape = {params->count},
                                               .data = parts[i].from};
    }
    icae_status status =
        icae_safetensors_write_from(path, sources, 3, copy_piece, params, error);
    free(path);
    return status;
}

static icae_status write_state(const char *folder, const icae_run_state *state,
                               icae_error *error) {
    icae_text text = {0};
    icae_text_printf(&text,
                     "{\n  \"step\": %lld,\n  \"updates\": %lld,\n  \"skipped\": %lld,\n"
                     "  \"skipped_in_row\": %lld,\n  \"samples\": %lld,\n"
                     "  \"context_tokens\": %lld,\n  \"cut\": %lld,\n"
                     "  \"passed_over\": %lld,\n  \"broken_lines\": %lld,\n"
                     "  \"metrics_bytes\": %lld,\n  \"seconds\": ",
                     (long long)state->step, (long long)state->updates,
                     (long long)state->skipped, (long long)state->skipped_in_row,
                     (long long)state->samples, (long long)state->context_tokens,
                     (long long)state->cut, (long long)state->passed_over,
                     (long long)state->broken_lines, (long long)state->metrics_bytes);
    icae_json_write_number(&text, state->seconds);
    icae_text_append_string(&text, ",\n  \"norm_mean\": ");
    icae_json_write_number(&text, state->norm_mean);
    icae_text_printf(&text, ",\n  \"norm_count\": %lld,\n  \"threads\": %lld,\n  \"kernels\": ",
                     (long long)state->norm_count, (long long)state->threads);
    icae_json_write_string(&text, state->kernels, strlen(state->kernels));
    icae_text_printf(&text,
                     ",\n  \"settings_hash\": \"%016" PRIx64
                     "\",\n  \"base_fingerprint\": \"%016" PRIx64 "\",\n  \"feed\": %s\n}\n",
                     state->settings_hash, state->base_fingerprint, state->feed_json);
    char *path = icae_path_join(folder, "state.json");
    icae_status status =
        text.failed || !path ? icae_fail_memory(error, "a checkpoint") : ICAE_OK;
    if (!status) status = icae_file_write(path, text.data, text.length, error);
    free(path);
    icae_text_release(&text);
    return status;
}

static icae_status write_whole(const char *folder, icae_adapter *adapter,
                               const icae_model *model, const icae_run_state *state,
                               icae_error *error) {
    char *inner = icae_path_join(folder, "adapter");
    if (!inner) return icae_fail_memory(error, folder);
    icae_status status = icae_folder_make(folder, error);
    if (!status) status = icae_adapter_save(adapter, inner, model, error);
    if (!status) status = write_block(folder, &adapter->params, error);
    if (!status) status = write_state(folder, state, error);
    if (!status) status = write_hashes(folder, error);
    if (!status) status = icae_folder_sync(inner, error);
    if (!status) status = icae_folder_sync(folder, error);
    free(inner);
    return status;
}

/* One run at a time is at work in a folder, so nobody else is writing what has a hidden name. */
icae_status icae_checkpoint_sweep(const char *run_folder, icae_error *error) {
    char **names;
    size_t count;
    icae_status status = list_names(run_folder, &names, &count, error);
    for (size_t i = 0; !status && i < count; i++) {
        if (strncmp(names[i], hidden_prefix, strlen(hidden_prefix)) != 0) continue;
        char *path = checkpoint_path(run_folder, names[i]);
        status = path ? icae_folder_remove(path, error) : icae_fail_memory(error, run_folder);
        free(path);
    }
    icae_names_free(names, count);
    return status;
}

/* Takes the name away first: a crash in the middle leaves rubbish, not a damaged checkpoint. */
static icae_status discard(const char *run_folder, const char *name, icae_error *error) {
    char hidden[96];
    snprintf(hidden, sizeof hidden, "%sold-%s", hidden_prefix, name);
    char *path = checkpoint_path(run_folder, name), *to = checkpoint_path(run_folder, hidden);
    icae_status status = path && to ? ICAE_OK : icae_fail_memory(error, run_folder);
    if (!status) status = icae_folder_remove(to, error);
    if (!status && rename(path, to) && errno != ENOENT) {
        status = icae_fail(error, ICAE_IO, "%s: cannot be removed: %s", path, strerror(errno));
    }
    if (!status) status = icae_folder_remove(to, error);
    free(path);
    free(to);
    return status;
}

/* Removes all but the `keep` newest up to `step`, which was just written. Those of later steps were
 * damaged, or the run had gone on from them; counted, they would push out good ones. */
static icae_status prune(const char *run_folder, int64_t step, int64_t keep,
                         icae_error *error) {
    int64_t *steps;
    size_t count;
    icae_status status = list_steps(run_folder, &steps, &count, error);
    int64_t kept = 0;
    for (size_t i = 0; !status && i < count; i++) {
        if (steps[i] <= step && kept++ < keep) continue;
        char name[64];
        snprintf(name, sizeof name, "step-%lld", (long long)steps[i]);
        status = discard(run_folder, name, error);
    }
    free(steps);
    return status ? status : icae_checkpoint_sweep(run_folder, error);
}

icae_status icae_checkpoint_save(const char *run_folder, icae_adapter *adapter,
                                 const icae_model *model, const icae_run_state *state,
                                 int64_t keep, icae_error *error) {
    char name[64], hidden[80];
    snprintf(name, sizeof name, "step-%lld", (long long)state->step);
    snprintf(hidden, sizeof hidden, "%s%s", hidden_prefix, name);
    char *parent = checkpoint_path(run_folder, "");
    char *temporary = checkpoint_path(run_folder, hidden);
    char *final = checkpoint_path(run_folder, name);
    icae_status status =
        parent && temporary && final ? ICAE_OK : icae_fail_memory(error, "a checkpoint");
    if (!status) status = icae_folder_remove(temporary, error);
    if (!status) status = icae_folder_make(parent, error);
    if (!status) status = write_whole(temporary, adapter, model, state, error);
    /* A folder of that name can only be one that was passed over as damaged, or this very step. */
    if (!status) status = discard(run_folder, name, error);
    if (!status && rename(temporary, final)) {
        status =
            icae_fail(error, ICAE_IO, "%s: cannot be renamed: %s", temporary, strerror(errno));
    }
    if (!status) status = icae_folder_sync(parent, error);
    if (!status) status = icae_checkpoint_verify(final, error);
    if (!status) status = prune(run_folder, state->step, keep, error);
    /* On a full disk half a checkpoint would take what is left. */
    if (status && temporary) icae_folder_remove(temporary, NULL);
    free(parent);
    free(temporary);
    free(final);
    return status;
}

/* ---- reading ---- */

static icae_status read_block(const char *folder, icae_params *params, icae_error *error) {
    const struct {
        const char *name;
        icae_real *to;
    } parts[] = {
        {"values", params->values}, {"moment1", params->moment1}, {"moment2", params->moment2}};
    char *path = icae_path_join(folder, "optimizer.safetensors");
    if (!path) return icae_fail_memory(error, folder);
    icae_safetensors file;
    icae_status status = icae_safetensors_open(&file, path, error);
    if (status) {
        free(path);
        return status;
    }
    icae_backend *be = params->be;
    size_t bytes = (size_t)params->count * sizeof(icae_real);
    icae_real *host = icae_aligned_alloc(bytes);
    if (!host) status = icae_fail_memory(error, "a checkpoint");
    for (size_t i = 0; !status && i < sizeof parts / sizeof parts[0]; i++) {
        const icae_safetensors_entry *entry = icae_safetensors_find(&file, parts[i].name);
        if (!entry || entry->dtype != ICAE_DTYPE_REAL || entry->bytes != bytes) {
            status = icae_fail(error, ICAE_MISMATCH,
                               "%s: '%s' is missing or not %lld values of type %s, as this "
                               "run's adapter has them",
                               path, parts[i].name, (long long)params->count,
                               icae_dtype_describe(ICAE_DTYPE_REAL)->name);
            break;
        }
        memcpy(host, entry->data, bytes);
        be->k.copy_in(be, parts[i].to, host, bytes);
    }
    icae_aligned_free(host);
    icae_safetensors_close(&file);
    free(path);
    return status;
}

static uint64_t get_hash(icae_json_object *object, const char *key) {
    const char *text = icae_json_get_string(object, key, "");
    if (strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16)
        return strtoull(text, NULL, 16);
    icae_json_complain(object, key, "expected 16 hexadecimal digits");
    return 0;
}

icae_status icae_checkpoint_load(const char *path, icae_adapter *adapter, icae_run_state *state,
                                 icae_error *error) {
    *state = (icae_run_state){0};
    char *name = icae_path_join(path, "state.json");
    if (!name) return icae_fail_memory(error, path);
    icae_status status = icae_json_open(&state->json, name, error);
    free(name);
    if (status) return status;
    static const int64_t most = INT64_C(1) << 53;
    icae_json_object object =
        icae_json_begin(state->json, icae_json_root(state->json), "", error);
    state->step = icae_json_get_integer(&object, "step", 0, 0, most);
    state->updates = icae_json_get_integer(&object, "updates", 0, 0, most);
    state->skipped = icae_json_get_integer(&object, "skipped", 0, 0, most);
    state->skipped_in_row = icae_json_get_integer(&object, "skipped_in_row", 0, 0, most);
    state->samples = icae_json_get_integer(&object, "samples", 0, 0, most);
    state->context_tokens = icae_json_get_integer(&object, "context_tokens", 0, 0, most);
    state->metrics_bytes = icae_json_get_integer(&object, "metrics_bytes", 0, 0, most);
    state->seconds = icae_json_get_number(&object, "seconds", 0, 0, 1e15);
    /* Younger than the format: a checkpoint without them does not know. */
    state->cut = icae_json_get_integer(&object, "cut", 0, 0, most);
    state->passed_over = icae_json_get_integer(&object, "passed_over", 0, 0, most);
    state->broken_lines = icae_json_get_integer(&object, "broken_lines", 0, 0, most);
    state->norm_mean = icae_json_get_number(&object, "norm_mean", 0, 0, 1e300);
    state->norm_count = icae_json_get_integer(&object, "norm_count", 0, 0, most);
    state->threads = icae_json_get_integer(&object, "threads", 0, 0, 1024);
    snprintf(state->kernels, sizeof state->kernels, "%s",
             icae_json_get_string(&object, "kernels", ""));
    state->settings_hash = get_hash(&object, "settings_hash");
    state->base_fingerprint = get_hash(&object, "base_fingerprint");
    state->feed = icae_json_get_value(&object, "feed");
    if (!state->feed) icae_json_complain(&object, "feed", "missing");
    status = icae_json_end(&object);
    if (!status) status = read_block(path, &adapter->params, error);
    if (status) icae_run_state_release(state);
    return status;
}
