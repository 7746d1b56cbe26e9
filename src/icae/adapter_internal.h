/* SPDX-License-Identifier: MIT */
/* What making and loading an adapter share. */
#ifndef ICAE_ADAPTER_INTERNAL_H
#define ICAE_ADAPTER_INTERNAL_H

#include "icae/adapter.h"
#include "icae/exchange.h"
#include "icae/json.h"

enum {
    ICAE_ADAPTER_MOST_SLOTS = 65536,
    ICAE_ADAPTER_MOST_RATE = 65536,
    ICAE_ADAPTER_MOST_RANK = 65536
};

/* Names the first setting that is out of range; `where` comes first: a file, or "adapter settings". */
icae_status icae_adapter_check(const icae_adapter_settings *settings, const char *where,
                               icae_error *error);
/* An adapter with all its parameters, every value 0. Settings are checked already. */
icae_status icae_adapter_allocate(icae_adapter **adapter, const icae_model *model,
                                  const icae_adapter_settings *settings, icae_backend *be,
                                  bool for_training, icae_error *error);

/* Values of a parameter, first.. of count, between the device and floats on the host. */
void icae_adapter_get(const icae_adapter *adapter, const icae_param *param, int64_t first,
                      int64_t count, float *out);
void icae_adapter_set(icae_adapter *adapter, const icae_param *param, int64_t first,
                      int64_t count, const float *values);

/* A parsed value as JSON text again, in one spelling. */
void icae_adapter_write_json(icae_text *out, const icae_json_value *value);

/* Parameters first..end-1 as one safetensors file of F32, F16 or BF16; metadata as key, value, ... */
icae_status icae_adapter_write_tensors(const icae_adapter *adapter, int first, int end,
                                       const char *path, icae_dtype dtype,
                                       const char *const *metadata, size_t n_metadata,
                                       icae_error *error);

/* ---- reading an adapter folder: adapter_file.c, and its two JSON files: adapter_json.c ---- */

enum { ICAE_ADAPTER_HASHED = 3 }; /* files whose hashes icae.json holds */

/* One load on its way. */
typedef struct icae_adapter_loader {
    const char *folder;
    const icae_model *model;
    icae_adapter_settings settings;
    bool has_base, has_tokenizer, has_values; /* fingerprints that icae.json holds */
    uint64_t base, tokenizer, values;
    bool has_hash[ICAE_ADAPTER_HASHED];
    uint64_t hashes[ICAE_ADAPTER_HASHED]; /* of the files beside icae.json */
    char base_name[128];
    icae_text summary;         /* the object "training" as text; empty when there is none */
    const icae_import *import; /* of a PEFT folder, which has no icae.json; else NULL */
    char *memory_path;         /* of the memory table */
    icae_error *error;
} icae_adapter_loader;

/* icae.json into the settings, fingerprints and summary of load, which starts from defaults; refuses another
 * base or tokenizer than load->model's, and files that are not those it was written for. */
icae_status icae_adapter_read_icae_json(icae_adapter_loader *load);
/* adapter_config.json into rank, alpha, dropout and targets of load->settings. */
icae_status icae_adapter_read_peft_json(icae_adapter_loader *load);

/* ---- settings as JSON, and the memory table as a file of its own; exchange.c ---- */

/* The first part of icae.json, up to the comma behind the last setting. */
void icae_adapter_write_settings(const icae_adapter *adapter, icae_text *out);
/* Reads such an object, closed by a brace; `name` is what messages call it. On failure *settings is as it
 * was. */
icae_status icae_adapter_read_settings(const char *json, const char *name,
                                       const icae_model *model, icae_adapter_settings *settings,
                                       icae_error *error);
/* Writes memory_token_embed.weight with the settings as metadata. */
icae_status icae_adapter_write_memory(const icae_adapter *adapter, const char *path,
                                      icae_dtype dtype, icae_error *error);
/* What icae.json would say, out of the caller's wish and that metadata; the rest stays as it is. `from`
 * names the adapter in messages. */
icae_status icae_adapter_import_settings(const icae_import *given, const char *from,
                                         const char *memory_path, const icae_model *model,
                                         icae_adapter_settings *settings, icae_error *error);
/* The values of the table, from such a file. */
icae_status icae_adapter_read_memory(icae_adapter *adapter, const char *path,
                                     const icae_model *model, icae_error *error);
/* Narrows count floats to dtype: F32, F16, BF16. False when a finite value becomes infinite. */
bool icae_narrow(icae_dtype dtype, const float *values, int64_t count, void *out);

#endif
