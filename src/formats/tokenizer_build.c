/* SPDX-License-Identifier: MIT */
/*
 * How a tokenizer comes to be from tokens and merges; see tokenizer_internal.h.
 *
 * All text lies in one pool and is named by 32-bit offsets. The two hash tables (text -> id,
 * pair of ids -> merge) use open addressing and get their final size at the start, at most half
 * full, so nothing is ever rehashed.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "icae/rng.h"
#include "quote.h"
#include "tokenizer_internal.h"

/* A power of two with room for count entries at half load; 0 when that is too much. */
static size_t slots_for(size_t count) {
    if (count > SIZE_MAX / 64) return 0;
    size_t slots = 16;
    while (slots < 2 * count)
        slots *= 2;
    return slots;
}

/* Ids may have holes, but not so many that a small file asks for much memory. */
static int32_t id_limit_for(size_t n_tokens) {
    enum { SPARSEST = 4, FREE = 65536 };
    return n_tokens < (ICAE_TOKEN_ID_LIMIT - FREE) / SPARSEST
               ? (int32_t)n_tokens * SPARSEST + FREE
               : ICAE_TOKEN_ID_LIMIT;
}

icae_tokenizer *icae_tokenizer_create(size_t n_tokens, size_t n_merges) {
    icae_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) return NULL;
    tokenizer->unknown = tokenizer->bos = tokenizer->eos = -1;
    tokenizer->id_limit = id_limit_for(n_tokens);
    /* The address differs from run to run, so a file cannot be made to collide. */
    tokenizer->seed = icae_mix64((uint64_t)(uintptr_t)tokenizer, 0);
    tokenizer->text_slots = slots_for(n_tokens);
    tokenizer->merge_slots = slots_for(n_merges);
    if (tokenizer->text_slots && tokenizer->merge_slots) {
        tokenizer->by_text = calloc(tokenizer->text_slots, sizeof *tokenizer->by_text);
        tokenizer->merges = calloc(tokenizer->merge_slots, sizeof *tokenizer->merges);
    }
    if (!tokenizer->by_text || !tokenizer->merges) {
        icae_tokenizer_free(tokenizer);
        return NULL;
    }
    for (size_t i = 0; i < tokenizer->text_slots; i++)
        tokenizer->by_text[i] = -1;
    for (size_t i = 0; i < tokenizer->merge_slots; i++)
        tokenizer->merges[i].pair = ICAE_NO_PAIR;
    return tokenizer;
}

void icae_tokenizer_free(icae_tokenizer *tokenizer) {
    if (!tokenizer) return;
    icae_text_release(&tokenizer->pool);
    icae_text_release(&tokenizer->normalized);
    free(tokenizer->tokens);
    free(tokenizer->by_text);
    free(tokenizer->merges);
    free(tokenizer->added[0].tokens);
    free(tokenizer->added[1].tokens);
    free(tokenizer->chat_template);
    free(tokenizer);
}

icae_status icae_tokenizer_set_chat_template(icae_tokenizer *tokenizer, const char *text,
                                             size_t bytes, icae_error *error) {
    char *copy = malloc(bytes + 1);
    if (!copy) return icae_fail_memory(error, "a chat template");
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    free(tokenizer->chat_template);
    tokenizer->chat_template = copy;
    return ICAE_OK;
}

/* ---- text -> id ---- */

/* Only ever lives in memory, so the byte order of the words does not matter. */
static uint64_t hash_text(const char *text, size_t bytes, uint64_t seed) {
    uint64_t h = seed ^ bytes;
    while (bytes) {
        uint64_t word = 0;
        size_t n = bytes < 8 ? bytes : 8;
        memcpy(&word, text, n);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
        text += n;
        bytes -= n;
    }
    return h;
}

/* The slot that holds this text, or the empty one where it belongs. */
static size_t text_slot(const icae_tokenizer *tokenizer, const char *text, size_t bytes) {
    size_t mask = tokenizer->text_slots - 1,
           slot = (size_t)hash_text(text, bytes, tokenizer->seed) & mask;
    while (tokenizer->by_text[slot] >= 0) {
        const icae_token *token = &tokenizer->tokens[tokenizer->by_text[slot]];
        if (token->spelled_bytes == bytes &&
            memcmp(tokenizer->pool.data + token->spelled, text, bytes) == 0)
            break;
        slot = (slot + 1) & mask;
    }
    return slot;
}

int32_t icae_tokenizer_lookup(const icae_tokenizer *tokenizer, const char *text, size_t bytes) {
    return tokenizer->by_text[text_slot(tokenizer, text, bytes)];
}

int32_t icae_tokenizer_lookup_model(const icae_tokenizer *tokenizer, const char *text,
                                    size_t bytes) {
    int32_t id = icae_tokenizer_lookup(tokenizer, text, bytes);
    return id >= 0 && tokenizer->tokens[id].flags & ICAE_TOKEN_MODEL ? id : -1;
}

/* ---- tokens ---- */

/* Makes ids up to `id` exist. calloc, not realloc: pages of holes are never touched. */
static bool reserve_id(icae_tokenizer *tokenizer, int32_t id) {
    if (id >= tokenizer->room) {
        int32_t room = tokenizer->room ? 2 * tokenizer->room : 1024;
        if (room > tokenizer->id_limit) room = tokenizer->id_limit;
        if (room <= id) room = id + 1;
        icae_token *larger = calloc((size_t)room, sizeof *larger);
        if (!larger) return false;
        if (tokenizer->size)
            memcpy(larger, tokenizer->tokens, (size_t)tokenizer->size * sizeof *larger);
        free(tokenizer->tokens);
        tokenizer->tokens = larger;
        tokenizer->room = room;
    }
    if (id >= tokenizer->size) tokenizer->size = id + 1;
    return true;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte that "<0x0A>" stands for, -1 for every other text. */
static int byte_of_name(const char *text, size_t bytes) {
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* What a token of a vocabulary with marks decodes to; whether it is a single byte by its name. */
static bool append_raw_marked(icae_text *pool, const char *text, size_t bytes) {
    int byte = byte_of_name(text, bytes);
    if (byte >= 0) {
        icae_text_append_char(pool, (char)byte);
        return true;
    }
    for (size_t at = 0; at < bytes;) {
        bool is_mark = bytes - at >= ICAE_SPACE_MARK_BYTES &&
                       memcmp(text + at, ICAE_SPACE_MARK, ICAE_SPACE_MARK_BYTES) == 0;
        icae_text_append_char(pool, is_mark ? ' ' : text[at]);
        at += is_mark ? ICAE_SPACE_MARK_BYTES : 1;
    }
    return false;
}

/*
 * Appends what a spelled token decodes to. Hugging Face's ByteLevel decoder takes a token with any
 * character outside the byte alphabet as it stands.
 */
static void append_raw(icae_text *pool, const char *text, size_t bytes) {
    size_t start = pool->length;
    for (size_t at = 0; at < bytes;) {
        int32_t point;
        at += (size_t)icae_utf8_decode((const unsigned char *)text + at, bytes - at, &point);
        int byte = icae_char_to_byte(point);
        if (byte < 0) {
            pool->length = start;
            icae_text_append(pool, text, bytes);
            return;
        }
        icae_text_append_char(pool, (char)byte);
        if (pool->failed) return;
    }
}

/* text: the token as spelled; not in the pool, which grows. */
static void set_raw(icae_tokenizer *tokenizer, icae_token *token, const char *text,
                    size_t bytes) {
    icae_text *pool = &tokenizer->pool;
    token->raw = (uint32_t)pool->length;
    if (!tokenizer->marking.is_on)
        append_raw(pool, text, bytes);
    else if (append_raw_marked(pool, text, bytes))
        token->flags |= ICAE_TOKEN_BYTE;
    token->raw_bytes = (uint32_t)pool->length - token->raw;
}

icae_status icae_tokenizer_add(icae_tokenizer *tokenizer, const char *where, int64_t id,
                               const char *text, size_t bytes, uint32_t flags,
                               icae_error *error) {
    if (id < 0 || id >= tokenizer->id_limit)
        return icae_fail(error, ICAE_FORMAT,
                         "%s: token \"%s\" has id %lld, expected 0 to %d in a vocabulary of "
                         "that size",
                         where, icae_quote(text, bytes).text, (long long)id,
                         tokenizer->id_limit - 1);
    if (flags & ICAE_TOKEN_ADDED && bytes == 0)
        return icae_fail(error, ICAE_FORMAT, "%s: the added token %lld is an empty text", where,
                         (long long)id);
    size_t slot = text_slot(tokenizer, text, bytes);
    int32_t same_text = tokenizer->by_text[slot];
    if (same_text >= 0 && same_text != id)
        return icae_fail(error, ICAE_FORMAT,
                         "%s: token \"%s\" has two ids, %d and %lld; fetch it again", where,
                         icae_quote(text, bytes).text, same_text, (long long)id);
    if (same_text < 0 && id < tokenizer->size && tokenizer->tokens[id].flags) {
        const icae_token *other = &tokenizer->tokens[id];
        return icae_fail(
            error, ICAE_FORMAT, "%s: id %lld stands for \"%s\" and for \"%s\"; fetch it again",
            where, (long long)id,
            icae_quote(tokenizer->pool.data + other->spelled, other->spelled_bytes).text,
            icae_quote(text, bytes).text);
    }
    if (same_text >= 0) {
        tokenizer->tokens[id].flags |= flags;
        return ICAE_OK;
    }

    assert(2 * tokenizer->n_texts < tokenizer->text_slots + 1);
    if (!reserve_id(tokenizer, (int32_t)id)) return icae_fail_memory(error, "a tokenizer");
    icae_text *pool = &tokenizer->pool;
    if (bytes > UINT32_MAX / 4 || pool->length > UINT32_MAX / 4)
        return icae_fail(error, ICAE_FORMAT, "%s: the vocabulary is larger than 1 GiB", where);
    icae_token *token = &tokenizer->tokens[id];
    token->flags = flags;
    token->spelled = (uint32_t)pool->length;
    token->spelled_bytes = (uint32_t)bytes;
    icae_text_append(pool, text, bytes);
    set_raw(tokenizer, token, text, bytes);
    if (pool->failed) return icae_fail_memory(error, "a tokenizer");
    tokenizer->by_text[slot] = (int32_t)id;
    tokenizer->n_texts++;
    return ICAE_OK;
}

/* ---- merges ---- */

bool icae_tokenizer_room_for_merges(icae_tokenizer *tokenizer, size_t n) {
    size_t slots = slots_for(n);
    icae_merge *merges = slots ? calloc(slots, sizeof *merges) : NULL;
    if (!merges) return false;
    for (size_t i = 0; i < slots; i++)
        merges[i].pair = ICAE_NO_PAIR;
    free(tokenizer->merges);
    tokenizer->merges = merges;
    tokenizer->merge_slots = slots;
    tokenizer->n_merges = 0;
    return true;
}

void icae_tokenizer_put_merge(icae_tokenizer *tokenizer, uint32_t rank, int32_t left,
                              int32_t right, int32_t id) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    assert(2 * tokenizer->n_merges < tokenizer->merge_slots + 1);
    size_t mask = tokenizer->merge_slots - 1, slot = icae_merge_slot(tokenizer, pair);
    while (tokenizer->merges[slot].pair != ICAE_NO_PAIR)
        slot = (slot + 1) & mask;
    tokenizer->merges[slot] = (icae_merge){.pair = pair, .rank = rank, .id = id};
    tokenizer->n_merges++;
}

icae_status icae_tokenizer_add_merge(icae_tokenizer *tokenizer, const char *where,
                                     uint32_t rank, const char *left, size_t left_bytes,
                                     const char *right, size_t right_bytes, icae_error *error) {
    int32_t left_id = icae_tokenizer_lookup_model(tokenizer, left, left_bytes);
    int32_t right_id = icae_tokenizer_lookup_model(tokenizer, right, right_bytes);

    /* The end of the pool serves as scratch for the merged text. */
    icae_text *pool = &tokenizer->pool;
    size_t start = pool->length;
    icae_text_append(pool, left, left_bytes);
    icae_text_append(pool, right, right_bytes);
    if (pool->failed) return icae_fail_memory(error, "a tokenizer");
    int32_t id =
        icae_tokenizer_lookup_model(tokenizer, pool->data + start, pool->length - start);
    pool->length = start;
    if (left_id < 0 || right_id < 0 || id < 0)
        return icae_fail(error, ICAE_FORMAT,
                         "%s: merge %u joins \"%s\" and \"%s\", but the vocabulary lacks %s",
                         where, rank, icae_quote(left, left_bytes).text,
                         icae_quote(right, right_bytes).text,
                         left_id < 0    ? "the first"
                         : right_id < 0 ? "the second"
                                        : "the result");

    icae_merge *known = icae_merge_find(tokenizer, left_id, right_id);
    if (known) { /* of two equal merges the later one counts, as in Hugging Face's map */
        known->rank = rank;
        return ICAE_OK;
    }
    icae_tokenizer_put_merge(tokenizer, rank, left_id, right_id, id);
    return ICAE_OK;
}

/* ---- added tokens ---- */

static int compare_added(const void *a, const void *b) {
    const icae_added_token *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Appends what an added token looks like in the normalized text where it is looked for. As in
 * Hugging Face's tokenizers it decodes to that, too. */
static void normalize_added(icae_tokenizer *tokenizer, icae_token *token) {
    icae_text *out = &tokenizer->normalized;
    const char *text = tokenizer->pool.data + token->spelled;
    size_t start = out->length;
    if (tokenizer->nfc)
        icae_nfc(out, (const unsigned char *)text, token->spelled_bytes);
    else if (tokenizer->marking.is_on && !tokenizer->marking.is_late)
        icae_mark_spaces(out, tokenizer->marking, true, text, token->spelled_bytes);
    else
        icae_text_append(out, text, token->spelled_bytes);
    size_t bytes = out->length - start;
    if (out->failed ||
        (bytes == token->spelled_bytes && memcmp(out->data + start, text, bytes) == 0))
        return;
    set_raw(tokenizer, token, out->data + start, bytes);
}

static icae_status collect_added(icae_tokenizer *tokenizer, const char *where,
                                 uint32_t normalized, icae_error *error) {
    icae_added_list *list = &tokenizer->added[normalized != 0];
    const uint32_t mask = ICAE_TOKEN_ADDED | ICAE_TOKEN_NORMALIZED;
    for (int32_t id = 0; id < tokenizer->size; id++)
        list->count += (tokenizer->tokens[id].flags & mask) == (ICAE_TOKEN_ADDED | normalized);
    if (list->count == 0) return ICAE_OK;
    list->tokens = calloc(list->count, sizeof *list->tokens);
    if (!list->tokens) return icae_fail_memory(error, "a tokenizer");
    size_t n = 0;
    for (int32_t id = 0; id < tokenizer->size; id++) {
        icae_token *token = &tokenizer->tokens[id];
        if ((token->flags & mask) != (ICAE_TOKEN_ADDED | normalized)) continue;
        icae_added_token *added = &list->tokens[n++];
        *added =
            (icae_added_token){.at = token->spelled, .bytes = token->spelled_bytes, .id = id};
        if (!normalized) continue;
        added->at = tokenizer->normalized.length;
        normalize_added(tokenizer, token);
        added->bytes = tokenizer->normalized.length - added->at;
    }
    if (tokenizer->normalized.failed || tokenizer->pool.failed)
        return icae_fail_memory(error, "a tokenizer");
    const char *pool = normalized ? tokenizer->normalized.data : tokenizer->pool.data;
    for (size_t i = 0; i < n; i++) {
        list->tokens[i].text = pool + list->tokens[i].at;
        list->starts[(unsigned char)list->tokens[i].text[0]] = true;
    }
    qsort(list->tokens, n, sizeof *list->tokens, compare_added);
    for (size_t i = 1; i < n; i++) {
        if (compare_added(&list->tokens[i - 1], &list->tokens[i]) == 0)
            return icae_fail(
                error, ICAE_FORMAT,
                "%s: the added tokens %d and %d have the same normalized text \"%s\"", where,
                list->tokens[i - 1].id, list->tokens[i].id,
                icae_quote(list->tokens[i].text, list->tokens[i].bytes).text);
    }
    return ICAE_OK;
}

/* First token in [low, high) whose byte at `depth` is at least `byte`; all agree before depth. */
static size_t lower_bound(const icae_added_list *list, size_t low, size_t high, size_t depth,
                          int byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const icae_added_token *token = &list->tokens[middle];
        int there = token->bytes > depth ? (unsigned char)token->text[depth] : -1;
        if (there < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t icae_added_match(const icae_added_list *list, const unsigned char *text, size_t bytes,
                         size_t *length) {
    int32_t found = -1;
    size_t low = 0, high = list->count;
    for (size_t depth = 0; depth < bytes; depth++) {
        low = lower_bound(list, low, high, depth, text[depth]);
        high = lower_bound(list, low, high, depth, text[depth] + 1);
        if (low == high) break;
        if (list->tokens[low].bytes == depth + 1) { /* the shortest sorts first */
            found = list->tokens[low].id;
            *length = depth + 1;
        }
    }
    return found;
}

/* ---- the end ---- */

/* Equal for one tokenizer read from tokenizer.json and from a GGUF, which does not say whether a
 * token is NORMALIZED or MODEL. The order of the hash table must not matter: merges are summed. */
static uint64_t fingerprint(const icae_tokenizer *tokenizer) {
    const char *name = tokenizer->pretokenizer->name;
    if (tokenizer->pretokenizer->next == icae_pretokenizer_find("sentencepiece words")->next)
        name = "sentencepiece"; /* faster, but the same */
    uint64_t h = icae_hash64(name, strlen(name),
                             (uint64_t)tokenizer->nfc << 1 | tokenizer->ignore_merges);
    for (int32_t id = 0; id < tokenizer->size; id++) {
        const icae_token *token = &tokenizer->tokens[id];
        if (!token->flags) continue;
        uint64_t flags = token->flags & (ICAE_TOKEN_ADDED | ICAE_TOKEN_SPECIAL);
        h = icae_hash64(tokenizer->pool.data + token->spelled, token->spelled_bytes,
                        h ^ ((uint64_t)(uint32_t)id << 8 | flags));
    }
    /* With marking, merges follow from the order of the vocabulary; files write them in several
     * ways, or (a GGUF) not at all. */
    uint64_t sum = 0;
    if (tokenizer->marking.is_on) return icae_mix64(h, tokenizer->marking.prefix != 0);
    for (size_t i = 0; i < tokenizer->merge_slots; i++) {
        const icae_merge *merge = &tokenizer->merges[i];
        if (merge->pair != ICAE_NO_PAIR) sum += icae_mix64(merge->pair, merge->rank);
    }
    return icae_mix64(h, sum);
}

/* Fills byte_ids of a byte-level vocabulary; whether there is any. */
static bool find_bytes(icae_tokenizer *tokenizer) {
    bool any = false;
    for (int byte = 0; byte < 256; byte++) {
        char spelled[4];
        int length = icae_utf8_encode(icae_byte_to_char((unsigned char)byte), spelled);
        tokenizer->byte_ids[byte] =
            icae_tokenizer_lookup_model(tokenizer, spelled, (size_t)length);
        any |= tokenizer->byte_ids[byte] >= 0;
    }
    return any;
}

static bool begins_with_mark(const char *text, size_t bytes) {
    return bytes >= ICAE_SPACE_MARK_BYTES &&
           memcmp(text, ICAE_SPACE_MARK, ICAE_SPACE_MARK_BYTES) == 0;
}

/*
 * Whether text may be cut before the marks that follow other characters, without any effect on ids.
 * It may when no merge joins such neighbours, and when an unknown character before the mark would
 * not be fused with anything behind it.
 */
static bool may_cut_words(const icae_tokenizer *tokenizer) {
    if (tokenizer->ignore_merges ||
        icae_tokenizer_lookup_model(tokenizer, ICAE_SPACE_MARK, ICAE_SPACE_MARK_BYTES) < 0)
        return false;
    for (size_t i = 0; i < tokenizer->merge_slots; i++) {
        uint64_t pair = tokenizer->merges[i].pair;
        if (pair == ICAE_NO_PAIR) continue;
        const icae_token *left = &tokenizer->tokens[pair >> 32];
        const icae_token *right = &tokenizer->tokens[(uint32_t)pair];
        const char *pool = tokenizer->pool.data,
                   *end = pool + left->spelled + left->spelled_bytes;
        bool ends_with_mark =
            left->spelled_bytes >= ICAE_SPACE_MARK_BYTES &&
            begins_with_mark(end - ICAE_SPACE_MARK_BYTES, ICAE_SPACE_MARK_BYTES);
        if (!ends_with_mark && begins_with_mark(pool + right->spelled, right->spelled_bytes))
            return false;
    }
    return true;
}

static void find_characters(icae_tokenizer *tokenizer) {
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        tokenizer->byte_ids[byte] =
            tokenizer->marking.has_bytes ? icae_tokenizer_lookup_model(tokenizer, name, 6) : -1;
    }
    for (int c = 0; c < 128; c++)
        tokenizer->ascii_ids[c] =
            icae_tokenizer_lookup_model(tokenizer, (const char[]){(char)c}, 1);
    bool is_whole = tokenizer->pretokenizer == icae_pretokenizer_find("sentencepiece");
    if (is_whole && may_cut_words(tokenizer))
        tokenizer->pretokenizer = icae_pretokenizer_find("sentencepiece words");
}

icae_status icae_tokenizer_finish(icae_tokenizer *tokenizer, const char *where,
                                  icae_error *error) {
    if (tokenizer->size == 0)
        return icae_fail(error, ICAE_FORMAT, "%s: the vocabulary is empty; fetch it again",
                         where);
    if (tokenizer->marking.is_on)
        find_characters(tokenizer);
    else if (!find_bytes(tokenizer))
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the vocabulary has no token for any single byte, so it is not "
                         "that of a byte-level BPE",
                         where);
    icae_status status;
    /* in this order, because the first may add to the pool into which the second points */
    if ((status = collect_added(tokenizer, where, ICAE_TOKEN_NORMALIZED, error)) ||
        (status = collect_added(tokenizer, where, 0, error)))
        return status;
    tokenizer->fingerprint = fingerprint(tokenizer);
    return ICAE_OK;
}
