/* SPDX-License-Identifier: MIT */
/*
 * The tokenizer that a GGUF carries in its metadata.
 *
 *     tokenizer.ggml.model        "gpt2": byte-level BPE; "llama": SentencePiece-style BPE
 *     tokenizer.ggml.pre          name of the pre-tokenizer
 *     tokenizer.ggml.tokens       spelled texts, index = id
 *     tokenizer.ggml.token_type   1 normal, 3 control, 4 user defined, 5 unused, ...
 *     tokenizer.ggml.merges       "left right", index = rank; not for "llama", which has instead:
 *     tokenizer.ggml.scores       higher is sooner
 *     tokenizer.ggml.add_space_prefix
 *     tokenizer.ggml.{bos,eos}_token_id, tokenizer.chat_template
 *
 * Source: ggml's docs/gguf.md. Ids must be those of the tokenizer.json that the GGUF was converted
 * from, also where other readers of GGUF split text a little differently.
 */
#include <stdlib.h>
#include <string.h>

#include "quote.h"
#include "tokenizer_internal.h"

enum { GGUF_TOKEN_CONTROL = 3, GGUF_TOKEN_USER_DEFINED = 4, GGUF_TOKEN_UNUSED = 5 };

/* An array of strings under a key, or a complaint. */
static icae_status gguf_strings(const icae_gguf *file, const char *key,
                                const icae_gguf_item **item, icae_error *error) {
    *item = icae_gguf_item_find(file, key);
    if (*item && (*item)->type == ICAE_GGUF_ARRAY && (*item)->element_type == ICAE_GGUF_STRING)
        return ICAE_OK;
    return icae_fail(
        error, ICAE_FORMAT,
        "%s: the metadata %s is missing or not an array of strings; fetch it again",
        file->mapping.path, key);
}

static icae_status gguf_tokens(icae_tokenizer *tokenizer, const icae_gguf *file,
                               const icae_gguf_item *tokens, icae_error *error) {
    const icae_gguf_item *types = icae_gguf_item_find(file, "tokenizer.ggml.token_type");
    if (types && types->count != tokens->count)
        return icae_fail(
            error, ICAE_FORMAT,
            "%s: tokenizer.ggml.token_type has %llu entries for %llu tokens; fetch it again",
            file->mapping.path, (unsigned long long)types->count,
            (unsigned long long)tokens->count);
    for (uint64_t i = 0; i < tokens->count; i++) {
        int64_t type = 1;
        if (types && (!icae_gguf_integer(types, i, &type) || type < 1 || type > 6))
            return icae_fail(error, ICAE_FORMAT,
                             "%s: tokenizer.ggml.token_type of token %llu is not 1 to 6",
                             file->mapping.path, (unsigned long long)i);
        uint32_t flags = ICAE_TOKEN_MODEL;
        if (type == GGUF_TOKEN_CONTROL) flags |= ICAE_TOKEN_ADDED | ICAE_TOKEN_SPECIAL;
        if (type == GGUF_TOKEN_USER_DEFINED) flags |= ICAE_TOKEN_ADDED;
        /* Fillers up to the size of the embedding ("[PAD7]"), unknown to the tokenizer itself. */
        if (type == GGUF_TOKEN_UNUSED) continue;
        icae_status status =
            icae_tokenizer_add(tokenizer, file->mapping.path, (int64_t)i,
                               tokens->strings[i].data, tokens->strings[i].bytes, flags, error);
        if (status) return status;
    }
    return ICAE_OK;
}

static icae_status gguf_merges(icae_tokenizer *tokenizer, const icae_gguf *file,
                               const icae_gguf_item *merges, icae_error *error) {
    if (merges->count >= ICAE_NO_RANK)
        return icae_fail(error, ICAE_FORMAT, "%s: tokenizer.ggml.merges is too long",
                         file->mapping.path);
    for (uint32_t rank = 0; rank < merges->count; rank++) {
        const icae_gguf_string *merge = &merges->strings[rank];
        const char *space = memchr(merge->data, ' ', merge->bytes);
        if (!space)
            return icae_fail(error, ICAE_FORMAT,
                             "%s: tokenizer.ggml.merges: expected \"left right\", got \"%s\"; "
                             "fetch it again",
                             file->mapping.path, icae_quote(merge->data, merge->bytes).text);
        size_t left_bytes = (size_t)(space - merge->data);
        icae_status status = icae_tokenizer_add_merge(tokenizer, file->mapping.path, rank,
                                                      merge->data, left_bytes, space + 1,
                                                      merge->bytes - left_bytes - 1, error);
        if (status) return status;
    }
    return ICAE_OK;
}

/* bos or eos: an id of the vocabulary, or none. */
static icae_status gguf_token_id(const icae_tokenizer *tokenizer, const icae_gguf *file,
                                 const char *key, int32_t *id, icae_error *error) {
    int64_t number;
    if (!icae_gguf_get_integer(file, key, &number)) return ICAE_OK;
    if (number < 0 || number >= tokenizer->size)
        return icae_fail(error, ICAE_FORMAT,
                         "%s: %s is %lld, but ids go from 0 to %d; fetch it again",
                         file->mapping.path, key, (long long)number, tokenizer->size - 1);
    *id = (int32_t)number;
    return ICAE_OK;
}

/* *result is NULL for a SentencePiece-style one. */
static icae_status gguf_pretokenizer(const icae_gguf *file, const icae_pretokenizer **result,
                                     icae_error *error) {
    icae_gguf_string model = {0}, name = {0};
    if (!icae_gguf_get_string(file, "tokenizer.ggml.model", &model))
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the metadata tokenizer.ggml.model is missing, so the file has no "
                         "tokenizer",
                         file->mapping.path);
    *result = NULL;
    if (model.bytes == 5 && memcmp(model.data, "llama", 5) == 0) return ICAE_OK;
    if (model.bytes != 4 || memcmp(model.data, "gpt2", 4) != 0)
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: expected tokenizer.ggml.model gpt2 (byte-level BPE) or llama "
                         "(SentencePiece-style BPE), got \"%s\"",
                         file->mapping.path, icae_quote(model.data, model.bytes).text);
    bool has_name = icae_gguf_get_string(file, "tokenizer.ggml.pre", &name);
    *result = has_name ? icae_pretokenizer_find_gguf(name.data, name.bytes) : NULL;
    if (*result) return ICAE_OK;
    icae_text known = {0};
    icae_pretokenizer_list_gguf(&known);
    icae_status status = icae_fail(
        error, ICAE_UNSUPPORTED, "%s: expected tokenizer.ggml.pre to be one of %s, got \"%s\"",
        file->mapping.path, icae_text_string(&known),
        has_name ? icae_quote(name.data, name.bytes).text : "");
    icae_text_release(&known);
    return status;
}

static icae_status gguf_bytelevel(icae_tokenizer **tokenizer, const icae_gguf *file,
                                  const icae_pretokenizer *pretokenizer,
                                  const icae_gguf_item *tokens, icae_error *error) {
    const icae_gguf_item *merges;
    icae_status status = gguf_strings(file, "tokenizer.ggml.merges", &merges, error);
    if (status) return status;
    icae_tokenizer *made = icae_tokenizer_create(tokens->count, merges->count);
    if (!made) return icae_fail_memory(error, "a tokenizer");
    made->pretokenizer = pretokenizer;
    made->nfc = pretokenizer->gguf_nfc;
    made->ignore_merges = pretokenizer->gguf_ignore_merges;
    if ((status = gguf_tokens(made, file, tokens, error)) ||
        (status = gguf_merges(made, file, merges, error)))
        icae_tokenizer_free(made);
    else
        *tokenizer = made;
    return status;
}

/* The switches of a SentencePiece-style one. */
static icae_status gguf_switches(const icae_gguf *file, bool *has_prefix, icae_error *error) {
    int64_t number;
    *has_prefix =
        !icae_gguf_get_integer(file, "tokenizer.ggml.add_space_prefix", &number) || number != 0;
    const char *refused = NULL;
    const icae_gguf_item *table =
        icae_gguf_item_find(file, "tokenizer.ggml.precompiled_charsmap");
    if (icae_gguf_get_integer(file, "tokenizer.ggml.remove_extra_whitespaces", &number) &&
        number)
        refused = "remove_extra_whitespaces = true";
    if (table && table->count) refused = "precompiled_charsmap";
    if (!refused) return ICAE_OK;
    return icae_fail(error, ICAE_UNSUPPORTED,
                     "%s: tokenizer.ggml.%s is not known for the model llama",
                     file->mapping.path, refused);
}

static icae_status gguf_sentencepiece(icae_tokenizer **tokenizer, const icae_gguf *file,
                                      const icae_gguf_item *tokens, icae_error *error) {
    static const char *const keys[] = {"tokenizer.ggml.token_type", "tokenizer.ggml.scores"};
    const icae_gguf_item *items[2];
    for (int k = 0; k < 2; k++) {
        items[k] = icae_gguf_item_find(file, keys[k]);
        if (!items[k] || items[k]->count != tokens->count)
            return icae_fail(
                error, ICAE_FORMAT, "%s: %s has %llu entries for %llu tokens; fetch it again",
                file->mapping.path, keys[k], items[k] ? (unsigned long long)items[k]->count : 0,
                (unsigned long long)tokens->count);
    }
    bool has_prefix;
    icae_status status = gguf_switches(file, &has_prefix, error);
    if (status) return status;
    size_t n = (size_t)tokens->count;
    icae_piece *pieces = calloc(n ? n : 1, sizeof *pieces);
    if (!pieces) return icae_fail_memory(error, "a tokenizer");
    for (size_t i = 0; i < n && !status; i++) {
        int64_t type;
        double score;
        if (!icae_gguf_integer(items[0], i, &type) || type < 1 || type > 6)
            status = icae_fail(error, ICAE_FORMAT, "%s: %s of token %zu is not 1 to 6",
                               file->mapping.path, keys[0], i);
        else if (!icae_gguf_number(items[1], i, &score))
            status = icae_fail(error, ICAE_FORMAT, "%s: %s of token %zu is not a number",
                               file->mapping.path, keys[1], i);
        else
            pieces[i] = (icae_piece){tokens->strings[i].data, tokens->strings[i].bytes,
                                     (float)score, (int)type};
    }
    if (!status)
        status = icae_tokenizer_from_pieces(tokenizer, file->mapping.path, pieces, n, 0,
                                            has_prefix, error);
    free(pieces);
    return status;
}

icae_status icae_tokenizer_from_gguf(icae_tokenizer **tokenizer, const icae_gguf *file,
                                     icae_error *error) {
    *tokenizer = NULL;
    const icae_pretokenizer *pretokenizer;
    const icae_gguf_item *tokens;
    icae_tokenizer *made = NULL;
    icae_status status;
    if ((status = gguf_pretokenizer(file, &pretokenizer, error)) ||
        (status = gguf_strings(file, "tokenizer.ggml.tokens", &tokens, error)) ||
        (status = pretokenizer ? gguf_bytelevel(&made, file, pretokenizer, tokens, error)
                               : gguf_sentencepiece(&made, file, tokens, error)))
        return status;
    icae_gguf_string chat;
    if ((status = icae_tokenizer_finish(made, file->mapping.path, error)) ||
        (status =
             gguf_token_id(made, file, "tokenizer.ggml.bos_token_id", &made->bos, error)) ||
        (status =
             gguf_token_id(made, file, "tokenizer.ggml.eos_token_id", &made->eos, error)) ||
        (icae_gguf_get_string(file, "tokenizer.chat_template", &chat) &&
         (status = icae_tokenizer_set_chat_template(made, chat.data, chat.bytes, error)))) {
        icae_tokenizer_free(made);
        return status;
    }
    *tokenizer = made;
    return ICAE_OK;
}
