/* SPDX-License-Identifier: MIT */
/*
 * What the readers of tokenizer.json share; nobody else includes it.
 *
 *     tokenizer_pipeline.c   what stands around the model: normalizer, pre_tokenizer, decoder, ...
 *     tokenizer_load.c       the model itself, and the files beside tokenizer.json
 */
#ifndef ICAE_TOKENIZER_JSON_H
#define ICAE_TOKENIZER_JSON_H

#include "icae/json.h"
#include "tokenizer_internal.h"

typedef struct icae_json_loader {
    icae_json *json;
    const char *path;
    icae_tokenizer *tokenizer;
    icae_error *error;
} icae_json_loader;

/* "FILE:LINE: what, then detail". */
icae_status icae_loader_refuse(const icae_json_loader *l, const icae_json_value *at,
                               icae_status status, const char *what, const char *detail);
/* Refuses a key that is none of `keys`: names, each between spaces, such as " type vocab ". */
icae_status icae_loader_check_keys(const icae_json_loader *l, const icae_json_value *object,
                                   const char *what, const char *keys);
/* The string under a key, "" when it is missing or another type. */
const char *icae_string_of(const icae_json_value *object, const char *key);
/* The bool under a key; missing or another type: the default. */
bool icae_bool_of(const icae_json_value *object, const char *key, bool default_value);

/* Everything in the file but model and added_tokens; call it before tokens are added. */
icae_status icae_loader_read_pipeline(const icae_json_loader *l, const icae_json_value *root);

#endif
