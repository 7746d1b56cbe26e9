/* SPDX-License-Identifier: MIT */
/* Facts about a file or folder, as lines for people or as keys of one JSON object. */
#ifndef ICAE_INFER_INSPECT_H
#define ICAE_INFER_INSPECT_H

#include "icae/adapter.h"
#include "icae/json.h"
#include "icae/model.h"
#include "options.h"
#include "report.h"

typedef struct facts {
    bool is_json;
    json_object json;
    icae_text notes; /* JSON strings so far, between commas */
} facts;

/* label is for people, key for JSON. */
void fact_text(facts *f, const char *key, const char *label, const char *format, ...)
    ICAE_PRINTF(4, 5);
void fact_count(facts *f, const char *key, const char *label, int64_t count);
void fact_bytes(facts *f, const char *key, const char *label, uint64_t bytes);
/* A sentence of its own. */
void fact_note(facts *f, const char *format, ...) ICAE_PRINTF(2, 3);
/* Every number, string and truth value of an object, under its own key. */
void fact_members(facts *f, const icae_json_value *object);

/* inspect_files.c: each fails when the thing is broken. */
icae_status inspect_gguf(facts *f, const char *path, const options *given, icae_error *error);
icae_status inspect_safetensors(facts *f, const char *path, icae_error *error);
icae_status inspect_slots(facts *f, const char *path, const options *given, icae_error *error);
icae_status inspect_model(facts *f, const char *path, icae_error *error);
bool is_slots_file(const char *path);
/* inspect_released.c */
icae_status inspect_released(facts *f, const char *path, const options *given,
                             icae_error *error);
icae_status inspect_torch(facts *f, const char *path, icae_error *error);

/* inspect_lora.c: adapters of other programs, and what icae convert makes of slots. */
bool is_gguf_adapter(const icae_gguf *file);
bool is_embeds_file(const char *path);
icae_status inspect_peft(facts *f, const char *path, const options *given, icae_error *error);
icae_status inspect_gguf_lora(facts *f, const char *path, const icae_gguf *file,
                              const options *given, icae_error *error);
icae_status inspect_embeds(facts *f, const char *path, icae_error *error);

/* How the adapter at `path` is read for a base; as icae_adapter_load. */
typedef icae_status adapter_reader(icae_adapter **adapter, const char *path,
                                   const icae_model *model, icae_backend *be,
                                   icae_error *error);
/* Whether there is an adapter for the base that was given by -m; a fact when there is. */
icae_status try_on_base(facts *f, const char *path, const char *base, adapter_reader *read,
                        icae_error *error);

/* Whether there is folder/name. */
bool has_file(const char *folder, const char *name);

int run_inspect(const options *given);

#endif
