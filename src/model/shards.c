/* SPDX-License-Identifier: MIT */
/*
 * The safetensors of a Hugging Face folder: model.safetensors, or, where that is not there, the files
 * that model.safetensors.index.json names:
 *
 *     {"metadata": {...}, "weight_map": {TENSOR NAME: FILE NAME, ...}}
 *
 * Index and files must say the same: every tensor stands in the file that the index gives for it, and
 * no file holds one that the index does not give it. File names are names in this folder: anything
 * that could lead out of it is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/quote.h"
#include "model/model_internal.h"

static const char SINGLE[] = "model.safetensors", INDEX[] = "model.safetensors.index.json";

enum { MOST_SHARDS = 1024 };

typedef struct index_reader {
    icae_model *model;
    const char *folder;
    const icae_json *json;
    const icae_json_value *map;
    const char **names; /* [n_shards] of files, in the order of their first tensor */
    icae_error *error;
} index_reader;

static bool is_plain_name(const char *name) {
    size_t length = strlen(name), ending = strlen(".safetensors");
    return length > ending && length < 256 && name[0] != '.' && !strchr(name, '/') &&
           !strchr(name, '\\') && !strstr(name, "..") &&
           !strcmp(name + length - ending, ".safetensors");
}

static icae_status refuse_entry(index_reader *r, const icae_json_value *entry,
                                const char *sentence) {
    return icae_fail(r->error, ICAE_FORMAT, "%s:%d: weight_map: '%s': %s",
                     icae_json_name(r->json), icae_json_line(r->json, entry),
                     icae_quote_string(icae_json_key(entry)).text, sentence);
}

/* The number of a file's name in r->names, MOST_SHARDS when it is not there. Neighbours in the map
 * mostly name the same file, so the search starts with the last answer. */
static size_t find_name(const index_reader *r, size_t n, const char *name, size_t last) {
    if (last < n && !strcmp(r->names[last], name)) return last;
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(r->names[i], name)) return i;
    }
    return MOST_SHARDS;
}

static icae_status open_shard(index_reader *r, const char *name) {
    char *path = icae_path_join(r->folder, name);
    if (!path) return icae_fail_memory(r->error, name);
    icae_status status =
        icae_safetensors_open(&r->model->shards[r->model->n_shards], path, r->error);
    if (!status) r->names[r->model->n_shards++] = name;
    free(path);
    return status;
}

/* Every entry's file is opened once, and has the tensor. */
static icae_status read_map(index_reader *r, size_t *counts) {
    size_t shard = MOST_SHARDS;
    for (const icae_json_value *v = icae_json_first(r->map); v; v = icae_json_next(v)) {
        const char *name = icae_json_as_string(v);
        if (!name || !is_plain_name(name)) {
            return refuse_entry(r, v,
                                "expected the name of a .safetensors file in this folder");
        }
        shard = find_name(r, r->model->n_shards, name, shard);
        if (shard == MOST_SHARDS) {
            if (r->model->n_shards == MOST_SHARDS) {
                return refuse_entry(r, v, "more than 1024 files are named");
            }
            icae_status status = open_shard(r, name);
            if (status) return status;
            shard = r->model->n_shards - 1;
        }
        if (!icae_safetensors_find(&r->model->shards[shard], icae_json_key(v))) {
            return refuse_entry(r, v,
                                "the file that is named for it does not hold it; fetch the "
                                "folder again");
        }
        counts[shard]++;
    }
    return ICAE_OK;
}

/* Keys of the map are unique and stand in their files, so as many tensors as keys are the same ones. */
static icae_status refuse_unlisted(index_reader *r, const size_t *counts) {
    for (size_t i = 0; i < r->model->n_shards; i++) {
        const icae_safetensors *file = &r->model->shards[i];
        if (file->n_entries != counts[i]) {
            return icae_fail(r->error, ICAE_FORMAT,
                             "%s/%s: holds %zu tensors, but %s places %zu there; fetch the "
                             "folder again",
                             r->folder, r->names[i], file->n_entries, INDEX, counts[i]);
        }
    }
    return ICAE_OK;
}

static icae_status open_index(icae_model *model, const char *folder, const char *index_path,
                              icae_error *error) {
    icae_json *json = NULL;
    icae_status status = icae_json_open(&json, index_path, error);
    if (status) return status;
    index_reader r = {.model = model, .folder = folder, .json = json, .error = error};
    r.map = icae_json_member(icae_json_root(json), "weight_map");
    size_t *counts = calloc(MOST_SHARDS, sizeof *counts);
    r.names = calloc(MOST_SHARDS, sizeof *r.names);
    model->shards = calloc(MOST_SHARDS, sizeof *model->shards);
    if (!counts || !r.names || !model->shards) {
        status = icae_fail_memory(error, index_path);
    } else if (!icae_json_is_object(r.map) || icae_json_count(r.map) == 0) {
        status = icae_fail(error, ICAE_FORMAT,
                           "%s: weight_map: expected an object that names a file for every "
                           "tensor",
                           index_path);
    }
    if (!status) status = read_map(&r, counts);
    if (!status) status = refuse_unlisted(&r, counts);
    free(counts);
    free(r.names);
    icae_json_free(json);
    return status;
}

static icae_status open_single(icae_model *model, const char *path, icae_error *error) {
    model->shards = calloc(1, sizeof *model->shards);
    if (!model->shards) return icae_fail_memory(error, path);
    icae_status status = icae_safetensors_open(model->shards, path, error);
    if (!status) model->n_shards = 1;
    return status;
}

icae_status icae_shards_open(icae_model *model, const char *folder, icae_error *error) {
    char *single = icae_path_join(folder, SINGLE), *index = icae_path_join(folder, INDEX);
    icae_status status;
    if (!single || !index) {
        status = icae_fail_memory(error, folder);
    } else if (!icae_path_exists(single) && icae_path_exists(index)) {
        status = open_index(model, folder, index, error);
    } else {
        status = open_single(model, single, error);
    }
    free(single);
    free(index);
    return status;
}

void icae_shards_close(icae_model *model) {
    for (size_t i = 0; i < model->n_shards; i++)
        icae_safetensors_close(&model->shards[i]);
    free(model->shards);
    model->shards = NULL;
    model->n_shards = 0;
}

const icae_safetensors_entry *icae_shards_find(const icae_model *model, const char *name) {
    for (size_t i = 0; i < model->n_shards; i++) {
        const icae_safetensors_entry *entry = icae_safetensors_find(&model->shards[i], name);
        if (entry) return entry;
    }
    return NULL;
}
