/* SPDX-License-Identifier: MIT */
/*
 * The tokenizer of a Hugging Face folder: tokenizer.json, or where there is none tokenizer.model, and
 * the files beside it.
 *
 * Everything in tokenizer.json that could change an id is either followed or refused by name; an
 * unknown key is refused too, since nobody knows what it would change. Not followed on purpose:
 * "truncation" and "padding" (requests, which callers set anew each time) and the post-processors
 * that only add special tokens (encode adds none).
 */
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "icae/json.h"
#include "quote.h"
#include "tokenizer_json.h"

typedef icae_json_loader loader;

/* ---- tokenizer.json: the model ---- */

static icae_status check_model(const loader *l, const icae_json_value *model) {
    icae_status status = icae_loader_check_keys(
        l, model, "model",
        " type dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk "
        "byte_fallback ignore_merges vocab merges ");
    if (status) return status;
    const char *type = icae_string_of(model, "type");
    if (strcmp(type, "BPE") != 0) /* a type is missing only in files before 2020 */
        return icae_loader_refuse(l, model, ICAE_UNSUPPORTED,
                                  "expected the model type BPE, got ",
                                  *type ? icae_quote_string(type).text : "none");
    static const char *const must_be_unset[] = {"dropout", "continuing_subword_prefix",
                                                "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof must_be_unset / sizeof must_be_unset[0]; i++) {
        const icae_json_value *value = icae_json_member(model, must_be_unset[i]);
        const char *string = icae_json_as_string(value);
        double number = 1;
        bool yes = true;
        icae_json_as_number(value, &number);
        icae_json_as_bool(value, &yes);
        if (!icae_json_is_null(value) && !(string && !*string) && number != 0 && yes)
            return icae_loader_refuse(l, value, ICAE_UNSUPPORTED, "expected a BPE without ",
                                      must_be_unset[i]);
    }
    if (!icae_json_is_object(icae_json_member(model, "vocab")))
        return icae_loader_refuse(l, model, ICAE_FORMAT,
                                  "model.vocab is missing or not an object", "");
    if (!icae_json_is_array(icae_json_member(model, "merges")))
        return icae_loader_refuse(l, model, ICAE_FORMAT,
                                  "model.merges is missing or not an array", "");
    return ICAE_OK;
}

static icae_status read_byte_fallback(const loader *l, const icae_json_value *model) {
    bool has_bytes = icae_bool_of(model, "byte_fallback", false);
    if (has_bytes && !l->tokenizer->marking.is_on)
        return icae_loader_refuse(l, icae_json_member(model, "byte_fallback"), ICAE_UNSUPPORTED,
                                  "expected a byte-level BPE without byte_fallback", "");
    l->tokenizer->marking.has_bytes = has_bytes;
    return ICAE_OK;
}

static icae_status read_vocabulary(const loader *l, const icae_json_value *vocabulary) {
    const icae_json_value *at = icae_json_first(vocabulary);
    for (; at; at = icae_json_next(at)) {
        const char *text = icae_json_key(at);
        int64_t id;
        if (!icae_json_as_integer(at, &id))
            return icae_loader_refuse(l, at, ICAE_FORMAT,
                                      "expected a whole number as id of the token ",
                                      icae_quote_string(text).text);
        icae_status status = icae_tokenizer_add(l->tokenizer, l->path, id, text, strlen(text),
                                                ICAE_TOKEN_MODEL, l->error);
        if (status) return status;
    }
    return ICAE_OK;
}

/* id: what the token's place says, or -1 where the token has an id itself. */
static icae_status read_added_token(const loader *l, const icae_json_value *at, int64_t id) {
    static const char keys[] = " id content single_word lstrip rstrip normalized special ";
    static const char *const unsupported[] = {"single_word", "lstrip", "rstrip"};
    icae_status status = icae_loader_check_keys(l, at, "an added token", keys);
    if (status) return status;
    const char *text;
    size_t bytes;
    if ((id < 0 && !icae_json_as_integer(icae_json_member(at, "id"), &id)) ||
        !icae_json_as_bytes(icae_json_member(at, "content"), &text, &bytes))
        return icae_loader_refuse(l, at, ICAE_FORMAT,
                                  "an added token needs an id and a content", "");
    for (size_t i = 0; i < 3; i++) {
        if (icae_bool_of(at, unsupported[i], false))
            return icae_fail(l->error, ICAE_UNSUPPORTED,
                             "%s:%d: the added token \"%s\" has %s = true, which this "
                             "program does not know",
                             l->path, icae_json_line(l->json, at), icae_quote(text, bytes).text,
                             unsupported[i]);
    }
    uint32_t flags = ICAE_TOKEN_ADDED;
    bool special = icae_bool_of(at, "special", false);
    if (special) flags |= ICAE_TOKEN_SPECIAL;
    if (icae_bool_of(at, "normalized", !special)) flags |= ICAE_TOKEN_NORMALIZED;
    return icae_tokenizer_add(l->tokenizer, l->path, id, text, bytes, flags, l->error);
}

static icae_status read_added_tokens(const loader *l, const icae_json_value *list) {
    icae_status status = ICAE_OK;
    const icae_json_value *at = list ? icae_json_first(list) : NULL;
    for (; at && !status; at = icae_json_next(at))
        status = read_added_token(l, at, -1);
    return status;
}

/* Each merge is "left right" (old files) or ["left", "right"]. */
static icae_status read_merges(const loader *l, const icae_json_value *merges) {
    uint32_t rank = 0;
    for (const icae_json_value *at = icae_json_first(merges); at; at = icae_json_next(at)) {
        const char *left, *right = NULL;
        size_t left_bytes = 0, right_bytes = 0;
        if (icae_json_as_bytes(at, &left, &left_bytes)) {
            const char *space = memchr(left, ' ', left_bytes);
            if (space) {
                right = space + 1;
                right_bytes = left_bytes - (size_t)(right - left);
                left_bytes = (size_t)(space - left);
                if (memchr(right, ' ', right_bytes)) right = NULL;
            }
        } else if (icae_json_is_array(at) && icae_json_count(at) == 2) {
            const icae_json_value *first = icae_json_first(at);
            if (!icae_json_as_bytes(first, &left, &left_bytes) ||
                !icae_json_as_bytes(icae_json_next(first), &right, &right_bytes))
                right = NULL;
        }
        if (!right)
            return icae_loader_refuse(
                l, at, ICAE_FORMAT,
                "expected a merge as \"left right\" or [\"left\", \"right\"]", "");
        icae_status status = icae_tokenizer_add_merge(l->tokenizer, l->path, rank++, left,
                                                      left_bytes, right, right_bytes, l->error);
        if (status) return status;
    }
    return ICAE_OK;
}

static icae_status read_tokenizer_json(loader *l) {
    const icae_json_value *root = icae_json_root(l->json);
    const icae_json_value *model = icae_json_member(root, "model");
    const icae_json_value *added = icae_json_member(root, "added_tokens");
    if (icae_json_is_null(added)) added = NULL;
    if (!icae_json_is_object(root))
        return icae_fail(l->error, ICAE_FORMAT, "%s: expected an object", l->path);
    if (added && !icae_json_is_array(added))
        return icae_loader_refuse(l, added, ICAE_FORMAT, "added_tokens is not an array", "");
    icae_status status = check_model(l, model);
    if (status) return status;
    const icae_json_value *vocabulary = icae_json_member(model, "vocab");
    const icae_json_value *merges = icae_json_member(model, "merges");
    l->tokenizer = icae_tokenizer_create(icae_json_count(vocabulary) +
                                             (added ? icae_json_count(added) : 0),
                                         icae_json_count(merges));
    if (!l->tokenizer) return icae_fail_memory(l->error, "a tokenizer");
    if ((status = icae_loader_read_pipeline(l, root)) ||
        (status = read_byte_fallback(l, model)) || (status = read_vocabulary(l, vocabulary)) ||
        (status = read_added_tokens(l, added)) || (status = read_merges(l, merges)))
        return status;

    l->tokenizer->ignore_merges = icae_bool_of(model, "ignore_merges", false);
    l->tokenizer->fuse_unknown = icae_bool_of(model, "fuse_unk", false);
    const char *unknown = icae_string_of(model, "unk_token");
    if (*unknown) {
        int32_t id = icae_tokenizer_lookup_model(l->tokenizer, unknown, strlen(unknown));
        if (id < 0)
            return icae_loader_refuse(l, icae_json_member(model, "unk_token"), ICAE_FORMAT,
                                      "the vocabulary lacks unk_token ",
                                      icae_quote_string(unknown).text);
        l->tokenizer->unknown = id;
    }
    return icae_tokenizer_finish(l->tokenizer, l->path, l->error);
}

/* ---- the files beside tokenizer.json ---- */

/* Opens folder/name into l; l->json stays NULL when there is no such file. */
static icae_status open_beside(loader *l, const char *folder, const char *name, char **path) {
    l->json = NULL;
    *path = icae_path_join(folder, name);
    if (!*path) return icae_fail_memory(l->error, "a path");
    l->path = *path;
    return icae_path_exists(*path) ? icae_json_open(&l->json, *path, l->error) : ICAE_OK;
}

/* "bos_token": a string, or an object with "content"; null says that there is none. */
static icae_status read_named_token(const loader *l, const char *key, int32_t *id,
                                    bool *is_settled) {
    const icae_json_value *value = icae_json_member(icae_json_root(l->json), key);
    if (!value) return ICAE_OK;
    *is_settled = true;
    if (icae_json_is_null(value)) return ICAE_OK;
    const char *text = icae_json_as_string(value);
    if (!text) text = icae_json_as_string(icae_json_member(value, "content"));
    if (!text)
        return icae_loader_refuse(l, value, ICAE_FORMAT, "expected the text of a token as ",
                                  key);
    *id = icae_tokenizer_lookup(l->tokenizer, text, strlen(text));
    if (*id < 0)
        return icae_fail(l->error, ICAE_MISMATCH,
                         "%s:%d: %s is \"%s\", which the tokenizer does not contain", l->path,
                         icae_json_line(l->json, value), key, icae_quote_string(text).text);
    return ICAE_OK;
}

/* "bos_token_id": a number, or (eos) an array of them, of which the first counts. */
static icae_status read_token_id(const loader *l, const char *key, int32_t *id,
                                 bool *is_settled) {
    const icae_json_value *value = icae_json_member(icae_json_root(l->json), key);
    if (*is_settled || icae_json_is_null(value)) return ICAE_OK;
    if (icae_json_is_array(value)) value = icae_json_first(value);
    int64_t number;
    if (!icae_json_as_integer(value, &number) || number < 0 || number >= l->tokenizer->size)
        return icae_fail(l->error, ICAE_MISMATCH,
                         "%s: expected %s to be an id of the tokenizer, 0 to %d", l->path, key,
                         l->tokenizer->size - 1);
    *id = (int32_t)number;
    *is_settled = true;
    return ICAE_OK;
}

/* "chat_template": a string, or an array of {"name", "template"} of which "default" is meant. */
static icae_status read_chat_template(const loader *l) {
    const icae_json_value *value = icae_json_member(icae_json_root(l->json), "chat_template");
    const char *text;
    size_t bytes;
    if (icae_json_is_array(value)) {
        const icae_json_value *at = icae_json_first(value);
        while (at && strcmp(icae_string_of(at, "name"), "default") != 0)
            at = icae_json_next(at);
        value = at ? icae_json_member(at, "template") : NULL;
    }
    if (!icae_json_as_bytes(value, &text, &bytes)) return ICAE_OK;
    return icae_tokenizer_set_chat_template(l->tokenizer, text, bytes, l->error);
}

static icae_status read_tokenizer_config(const loader *l, bool *has_bos, bool *has_eos) {
    icae_status status;
    (void)((status = read_named_token(l, "bos_token", &l->tokenizer->bos, has_bos)) ||
           (status = read_named_token(l, "eos_token", &l->tokenizer->eos, has_eos)) ||
           (status = read_chat_template(l)));
    return status;
}

/* tokenizer_config.json names bos and eos; where it is silent, the ids of the configs count. */
static icae_status read_surrounding_files(icae_tokenizer *tokenizer, const char *folder,
                                          icae_error *error) {
    static const char *const names[] = {"tokenizer_config.json", "generation_config.json",
                                        "config.json"};
    loader l = {.tokenizer = tokenizer, .error = error};
    bool has_bos = false, has_eos = false;
    for (int i = 0; i < 3; i++) {
        char *path;
        icae_status status = open_beside(&l, folder, names[i], &path);
        if (!status && l.json) {
            if (i == 0)
                status = read_tokenizer_config(&l, &has_bos, &has_eos);
            else if (!(status = read_token_id(&l, "bos_token_id", &tokenizer->bos, &has_bos)))
                status = read_token_id(&l, "eos_token_id", &tokenizer->eos, &has_eos);
        }
        icae_json_free(l.json);
        free(path);
        if (status) return status;
    }
    char *path = icae_path_join(folder, "chat_template.jinja");
    if (!path) return icae_fail_memory(error, "a path");
    icae_status status = ICAE_OK;
    if (icae_path_exists(path)) { /* newer than the key, and wins where both exist */
        char *text;
        size_t bytes;
        status = icae_file_read(path, 16 * 1024 * 1024, &text, &bytes, error);
        if (!status) {
            status = icae_tokenizer_set_chat_template(tokenizer, text, bytes, error);
            free(text);
        }
    }
    free(path);
    return status;
}

/* ---- tokenizer.model ---- */

/* "added_tokens_decoder": an object of added tokens, whose keys are their ids in digits. */
static icae_status read_added_decoder(const loader *l, const icae_json_value *list) {
    icae_status status = ICAE_OK;
    const icae_json_value *at = list ? icae_json_first(list) : NULL;
    for (; at && !status; at = icae_json_next(at)) {
        const char *key = icae_json_key(at);
        size_t digits = strspn(key, "0123456789");
        if (digits == 0 || digits > 9 || key[digits])
            return icae_loader_refuse(l, at, ICAE_FORMAT,
                                      "expected an id as key of added_tokens_decoder, got ",
                                      icae_quote_string(key).text);
        status = read_added_token(l, at, strtol(key, NULL, 10));
    }
    return status;
}

/*
 * tokenizer.model, and from tokenizer_config.json what its readers in Hugging Face's transformers
 * take from there: tokens added to it, and "legacy", whose false means that only the section which
 * begins the text gets a mark in front.
 */
static icae_status read_model_folder(loader *l, const char *folder, const char *model_path) {
    char *config = NULL, *added = icae_path_join(folder, "added_tokens.json");
    icae_status status = added ? open_beside(l, folder, "tokenizer_config.json", &config)
                               : icae_fail_memory(l->error, "a path");
    const icae_json_value *root = l->json ? icae_json_root(l->json) : NULL;
    const icae_json_value *list = icae_json_member(root, "added_tokens_decoder");
    if (!status && list && !icae_json_is_object(list))
        status = icae_loader_refuse(l, list, ICAE_FORMAT,
                                    "added_tokens_decoder is not an object", "");
    if (!status && !list && icae_path_exists(added))
        status = icae_fail(l->error, ICAE_UNSUPPORTED,
                           "%s: tokens added to tokenizer.model are only known from "
                           "added_tokens_decoder in tokenizer_config.json: save the tokenizer "
                           "with a newer transformers, or as tokenizer.json",
                           added);
    free(added);
    if (!status)
        status = icae_tokenizer_read_model(&l->tokenizer, model_path,
                                           list ? icae_json_count(list) : 0, l->error);
    if (!status && !icae_bool_of(root, "legacy", true)) {
        icae_marking *marking = &l->tokenizer->marking;
        marking->is_late = true;
        if (marking->prefix) marking->prefix = ICAE_PREFIX_START;
    }
    if (!status) status = read_added_decoder(l, list);
    if (!status) status = icae_tokenizer_finish(l->tokenizer, model_path, l->error);
    icae_json_free(l->json);
    free(config);
    return status;
}

/* ---- the folder ---- */

icae_status icae_tokenizer_open_folder(icae_tokenizer **tokenizer, const char *folder,
                                       icae_error *error) {
    *tokenizer = NULL;
    loader l = {.error = error};
    char *path = icae_path_join(folder, "tokenizer.json");
    char *model = icae_path_join(folder, "tokenizer.model");
    icae_status status;
    if (!path || !model) {
        status = icae_fail_memory(error, "a path");
    } else if (!icae_path_exists(path) && icae_path_exists(model)) {
        status = read_model_folder(&l, folder, model);
    } else {
        l.path = path;
        status = icae_json_open(&l.json, path, error);
        if (!status) status = read_tokenizer_json(&l);
        icae_json_free(l.json);
    }
    free(path);
    free(model);
    if (!status) status = read_surrounding_files(l.tokenizer, folder, error);
    if (status)
        icae_tokenizer_free(l.tokenizer);
    else
        *tokenizer = l.tokenizer;
    return status;
}
