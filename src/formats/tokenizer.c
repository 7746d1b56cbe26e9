/* SPDX-License-Identifier: MIT */
/*
 * Encoding and decoding; see icae/tokenizer.h.
 *
 *     text -> [added tokens cut out] -> sections -> [pre-tokenizer] -> pieces -> [merges] -> ids
 *
 * A piece starts as one id per byte, and the pair of neighbours with the smallest rank is merged
 * (the leftmost of equals) until no pair has a rank. Short pieces do that by scanning an array;
 * from LONG_PIECE bytes on, a heap over a linked list keeps the cost at n log n.
 *
 * How it is built: tokenizer_build.c; from which files: tokenizer_load.c.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer_internal.h"

/* ---- questions ---- */

int32_t icae_tokenizer_size(const icae_tokenizer *tokenizer) {
    return tokenizer->size;
}

int32_t icae_tokenizer_bos(const icae_tokenizer *tokenizer) {
    return tokenizer->bos;
}

int32_t icae_tokenizer_eos(const icae_tokenizer *tokenizer) {
    return tokenizer->eos;
}

const char *icae_tokenizer_chat_template(const icae_tokenizer *tokenizer) {
    return tokenizer->chat_template;
}

uint64_t icae_tokenizer_fingerprint(const icae_tokenizer *tokenizer) {
    return tokenizer->fingerprint;
}

bool icae_tokenizer_is_special(const icae_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->size && tokenizer->tokens[id].flags & ICAE_TOKEN_SPECIAL;
}

static void spell_bytes(icae_text *out, const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char spelled[4];
        int length = icae_utf8_encode(icae_byte_to_char(bytes[i]), spelled);
        icae_text_append(out, spelled, (size_t)length);
    }
}

int32_t icae_tokenizer_find(const icae_tokenizer *tokenizer, const char *text) {
    size_t bytes = strlen(text);
    /* As it stands: added tokens, and all whose spelling is the text itself. */
    int32_t id = icae_tokenizer_lookup(tokenizer, text, bytes);
    if (id >= 0) {
        const icae_token *token = &tokenizer->tokens[id];
        if (token->raw_bytes == bytes &&
            memcmp(tokenizer->pool.data + token->raw, text, bytes) == 0)
            return id;
    }
    icae_text spelled = {0};
    if (tokenizer->marking.is_on) {
        icae_marking marking = tokenizer->marking;
        marking.prefix = ICAE_PREFIX_NONE;
        icae_mark_spaces(&spelled, marking, false, text, bytes);
    } else {
        spell_bytes(&spelled, (const unsigned char *)text, bytes);
    }
    id = spelled.failed
             ? -1
             : icae_tokenizer_lookup(tokenizer, icae_text_string(&spelled), spelled.length);
    icae_text_release(&spelled);
    if (id < 0 && tokenizer->marking.is_on && bytes == 1)
        id = tokenizer->byte_ids[(unsigned char)*text];
    return id;
}

/* ---- merging ---- */

enum { LONG_PIECE = 64 };

typedef struct encoder { /* one call of encode */
    const icae_tokenizer *tokenizer;
    bool parse_special;
    const unsigned char *start; /* of the whole text */
    int32_t *ids;               /* the result */
    size_t count, room;
    bool failed;          /* memory ended */
    icae_text spelled;    /* scratch of ignore_merges */
    icae_text normalized; /* the section that is being cut, where it had to change */
} encoder;

/* Room for `more` further ids. */
static bool reserve(encoder *e, size_t more) {
    if (e->failed || more <= e->room - e->count) return !e->failed;
    size_t room = 2 * e->room + more + 16;
    int32_t *larger = realloc(e->ids, room * sizeof *larger);
    if (!larger) {
        e->failed = true;
        return false;
    }
    e->ids = larger;
    e->room = room;
    return true;
}

static size_t merge_short(const icae_tokenizer *tokenizer, int32_t *ids, size_t count) {
    uint32_t ranks[LONG_PIECE]; /* of the pair (i, i+1) */
    int32_t merged[LONG_PIECE]; /* what it would become */
    for (size_t i = 0; i + 1 < count; i++) {
        const icae_merge *merge = icae_merge_find(tokenizer, ids[i], ids[i + 1]);
        ranks[i] = merge ? merge->rank : ICAE_NO_RANK;
        merged[i] = merge ? merge->id : -1;
    }
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++) {
            if (ranks[i] < ranks[best]) best = i;
        }
        if (ranks[best] == ICAE_NO_RANK) break;
        ids[best] = merged[best];
        count--;
        size_t tail = count - best - 1; /* symbols after the merged one */
        memmove(ids + best + 1, ids + best + 2, tail * sizeof *ids);
        if (tail) {
            memmove(ranks + best + 1, ranks + best + 2, (tail - 1) * sizeof *ranks);
            memmove(merged + best + 1, merged + best + 2, (tail - 1) * sizeof *merged);
        }
        for (size_t i = best ? best - 1 : best; i <= best && i + 1 < count; i++) {
            const icae_merge *merge = icae_merge_find(tokenizer, ids[i], ids[i + 1]);
            ranks[i] = merge ? merge->rank : ICAE_NO_RANK;
            merged[i] = merge ? merge->id : -1;
        }
    }
    return count;
}

typedef struct symbol {
    int32_t id;
    uint32_t previous, next; /* NOWHERE at the ends */
    uint32_t rank;           /* of the pair (this, next); ICAE_NO_RANK also when this is gone */
} symbol;

#define NOWHERE UINT32_MAX

typedef struct heap { /* of rank << 32 | index: smallest rank, then leftmost */
    uint64_t *keys;
    size_t count;
} heap;

static void heap_push(heap *h, uint64_t key) {
    size_t at = h->count++;
    while (at && h->keys[(at - 1) / 2] > key) {
        h->keys[at] = h->keys[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->keys[at] = key;
}

static uint64_t heap_pop(heap *h) {
    uint64_t top = h->keys[0], last = h->keys[--h->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->count) break;
        if (child + 1 < h->count && h->keys[child + 1] < h->keys[child]) child++;
        if (h->keys[child] >= last) break;
        h->keys[at] = h->keys[child];
        at = child;
    }
    h->keys[at] = last;
    return top;
}

/* Ranks the pair (at, next) anew and queues it. */
static void rank_pair(const icae_tokenizer *tokenizer, symbol *symbols, uint32_t at, heap *h) {
    symbol *s = &symbols[at];
    const icae_merge *merge =
        s->next == NOWHERE ? NULL : icae_merge_find(tokenizer, s->id, symbols[s->next].id);
    s->rank = merge ? merge->rank : ICAE_NO_RANK;
    if (merge) heap_push(h, (uint64_t)merge->rank << 32 | at);
}

/* Every merge takes one key out and puts at most two in, so 2 * count keys are enough. An entry
 * whose rank is no longer that of its symbol is stale and skipped. */
static size_t merge_long(const icae_tokenizer *tokenizer, int32_t *ids, size_t count,
                         bool *failed) {
    symbol *symbols = calloc(count, sizeof *symbols);
    heap h = {.keys = calloc(2 * count, sizeof *h.keys)};
    if (!symbols || !h.keys) {
        free(symbols);
        free(h.keys);
        *failed = true;
        return 0;
    }
    uint32_t n = (uint32_t)count;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i].id = ids[i];
        symbols[i].previous = i ? i - 1 : NOWHERE;
        symbols[i].next = i + 1 < n ? i + 1 : NOWHERE;
    }
    for (uint32_t i = 0; i < n; i++)
        rank_pair(tokenizer, symbols, i, &h);
    while (h.count) {
        uint64_t key = heap_pop(&h);
        uint32_t at = (uint32_t)key;
        symbol *left = &symbols[at];
        if (left->rank != key >> 32) continue;
        symbol *right = &symbols[left->next];
        left->id = icae_merge_find(tokenizer, left->id, right->id)->id;
        left->next = right->next;
        right->rank = ICAE_NO_RANK;
        if (left->next != NOWHERE) symbols[left->next].previous = at;
        rank_pair(tokenizer, symbols, at, &h);
        if (left->previous != NOWHERE) rank_pair(tokenizer, symbols, left->previous, &h);
    }
    size_t kept = 0;
    for (uint32_t at = 0; at != NOWHERE; at = symbols[at].next)
        ids[kept++] = symbols[at].id;
    free(symbols);
    free(h.keys);
    return kept;
}

/*
 * One id per character; a character without a token becomes its bytes, if there is a token for each
 * of them, or the unknown token. That one is appended late, as in Hugging Face's BPE: not before
 * bytes that follow, and in a run of unknown characters once where such are fused.
 */
static size_t spell_characters(const icae_tokenizer *tokenizer, const unsigned char *piece,
                               size_t bytes, int32_t *ids) {
    size_t count = 0, length;
    bool is_waiting = false; /* the unknown token */
    for (size_t at = 0; at < bytes; at += length) {
        int32_t point = piece[at], id;
        length = point < 0x80 ? 1 : (size_t)icae_utf8_decode(piece + at, bytes - at, &point);
        id = point < 0x80
                 ? tokenizer->ascii_ids[point]
                 : icae_tokenizer_lookup_model(tokenizer, (const char *)piece + at, length);
        if (id >= 0) {
            if (is_waiting) ids[count++] = tokenizer->unknown;
            is_waiting = false;
            ids[count++] = id;
            continue;
        }
        size_t n = 0;
        while (n < length && tokenizer->byte_ids[piece[at + n]] >= 0)
            n++;
        if (n == length) {
            for (n = 0; n < length; n++)
                ids[count++] = tokenizer->byte_ids[piece[at + n]];
        } else if (tokenizer->unknown >= 0) {
            if (is_waiting && !tokenizer->fuse_unknown) ids[count++] = tokenizer->unknown;
            is_waiting = true;
        }
    }
    if (is_waiting) ids[count++] = tokenizer->unknown;
    return count;
}

/* Appends one id per byte; what has no token is dropped or becomes the unknown token. */
static size_t spell_piece(const icae_tokenizer *tokenizer, const unsigned char *piece,
                          size_t bytes, int32_t *ids) {
    size_t count = 0;
    bool after_unknown = false;
    for (size_t i = 0; i < bytes; i++) {
        int32_t id = tokenizer->byte_ids[piece[i]];
        bool is_unknown = id < 0;
        if (is_unknown) id = tokenizer->unknown;
        if (id >= 0 && !(is_unknown && after_unknown && tokenizer->fuse_unknown))
            ids[count++] = id;
        after_unknown = is_unknown;
    }
    return count;
}

static void encode_piece(encoder *e, const unsigned char *piece, size_t bytes) {
    const icae_tokenizer *tokenizer = e->tokenizer;
    if (!reserve(e, bytes)) return;
    int32_t *ids = e->ids + e->count;
    if (tokenizer->ignore_merges) {
        icae_text_clear(&e->spelled);
        if (tokenizer->marking.is_on)
            icae_text_append(&e->spelled, piece, bytes);
        else
            spell_bytes(&e->spelled, piece, bytes);
        e->failed |= e->spelled.failed;
        int32_t id = e->failed ? -1
                               : icae_tokenizer_lookup_model(tokenizer, e->spelled.data,
                                                             e->spelled.length);
        if (id >= 0) {
            ids[0] = id;
            e->count++;
            return;
        }
    }
    size_t count = tokenizer->marking.is_on ? spell_characters(tokenizer, piece, bytes, ids)
                                            : spell_piece(tokenizer, piece, bytes, ids);
    e->count += count <= LONG_PIECE ? merge_short(tokenizer, ids, count)
                                    : merge_long(tokenizer, ids, count, &e->failed);
}

/* ---- sections ---- */

static void encode_section(encoder *e, const unsigned char *text, size_t bytes, int list_index);

static const unsigned char *changed_text(encoder *e, size_t *bytes) {
    e->failed |= e->normalized.failed;
    *bytes = e->normalized.length;
    return (const unsigned char *)icae_text_string(&e->normalized);
}

/* What lies between added tokens: first those of the next list, at last the pieces. Normalized
 * added tokens are looked for in normalized text. */
static void encode_between(encoder *e, const unsigned char *text, size_t bytes,
                           int list_index) {
    const icae_tokenizer *tokenizer = e->tokenizer;
    if (bytes == 0 || e->failed) return;
    if (list_index == 1 && tokenizer->nfc && !icae_is_nfc(text, bytes)) {
        icae_text_clear(&e->normalized);
        icae_nfc(&e->normalized, text, bytes);
        text = changed_text(e, &bytes);
    } else if (tokenizer->marking.is_on && list_index == (tokenizer->marking.is_late ? 2 : 1)) {
        icae_text_clear(&e->normalized);
        icae_mark_spaces(&e->normalized, tokenizer->marking, text == e->start,
                         (const char *)text, bytes);
        text = changed_text(e, &bytes);
    }
    if (list_index < 2) {
        encode_section(e, text, bytes, list_index);
        return;
    }
    icae_split next = tokenizer->pretokenizer->next;
    for (size_t at = 0; at < bytes && !e->failed;) {
        size_t end = next(text, bytes, at);
        encode_piece(e, text + at, end - at);
        at = end;
    }
}

/* Leftmost-longest matches of one list of added tokens. A special one that is not to be parsed is
 * passed over whole: nothing inside it is looked for, as in Hugging Face's encode_special_tokens. */
static void encode_section(encoder *e, const unsigned char *text, size_t bytes,
                           int list_index) {
    const icae_added_list *list = &e->tokenizer->added[list_index];
    size_t from = 0;
    for (size_t at = 0; list->count && at < bytes;) {
        size_t length;
        int32_t id = -1;
        if (list->starts[text[at]]) id = icae_added_match(list, text + at, bytes - at, &length);
        if (id < 0) {
            at++;
            continue;
        }
        if (e->parse_special || !icae_tokenizer_is_special(e->tokenizer, id)) {
            encode_between(e, text + from, at - from, list_index + 1);
            if (!reserve(e, 1)) return;
            e->ids[e->count++] = id;
            from = at + length;
        }
        at += length;
    }
    encode_between(e, text + from, bytes - from, list_index + 1);
}

static bool is_well_formed(const unsigned char *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        int32_t point = text[at];
        at += point < 0x80 ? 1 : (size_t)icae_utf8_decode(text + at, bytes - at, &point);
        if (point < 0) return false;
    }
    return true;
}

icae_status icae_tokenizer_encode(const icae_tokenizer *tokenizer, const char *text,
                                  size_t bytes, bool parse_special, int32_t **ids,
                                  size_t *count, icae_error *error) {
    *ids = NULL;
    *count = 0;
    if (bytes > INT32_MAX / 4) /* positions in a piece are 32-bit, and U+FFFD has 3 bytes */
        return icae_fail(
            error, ICAE_INVALID,
            "a text of %zu bytes is too long to be encoded at once, at most %d are "
            "possible: cut it at line ends",
            bytes, INT32_MAX / 4);
    icae_text repaired = {0};
    if (!is_well_formed((const unsigned char *)text, bytes)) {
        icae_utf8_repair(&repaired, text, bytes);
        text = icae_text_string(&repaired);
        bytes = repaired.length;
    }
    encoder e = {.tokenizer = tokenizer,
                 .parse_special = parse_special,
                 .start = (const unsigned char *)text};
    e.failed = repaired.failed;
    reserve(&e, bytes / 3);
    if (!e.failed) encode_section(&e, (const unsigned char *)text, bytes, 0);
    icae_text_release(&repaired);
    icae_text_release(&e.spelled);
    icae_text_release(&e.normalized);
    if (!reserve(&e, 1)) { /* so that an empty result is not NULL either */
        free(e.ids);
        return icae_fail_memory(error, "the token ids of a text");
    }
    *ids = e.ids;
    *count = e.count;
    return ICAE_OK;
}

/* ---- decoding ---- */

void icae_tokenizer_append_token(const icae_tokenizer *tokenizer, int32_t id, bool skip_special,
                                 icae_text *out) {
    if (id < 0 || id >= tokenizer->size) return;
    const icae_token *token = &tokenizer->tokens[id];
    if (token->raw_bytes == 0 || (skip_special && token->flags & ICAE_TOKEN_SPECIAL)) return;
    icae_text_append(out, tokenizer->pool.data + token->raw, token->raw_bytes);
}

/*
 * Vocabularies with marks follow Hugging Face's decoders Replace, ByteFallback, Fuse, Strip: a run
 * of byte tokens is text when all of it is well-formed UTF-8, and else one U+FFFD for each byte; one
 * space at the start of the stream is left out.
 */
static void show(icae_token_stream *stream, const char *data, size_t bytes, icae_text *out) {
    if (bytes == 0) return;
    size_t left_out = stream->strips_first && !stream->has_started && data[0] == ' ';
    stream->has_started = true;
    icae_utf8_repair(out, data + left_out, bytes - left_out);
}

static void show_bytes(icae_token_stream *stream, icae_text *out) {
    icae_text *run = &stream->pending;
    if (run->length == 0) return;
    if (is_well_formed((const unsigned char *)run->data, run->length)) {
        show(stream, run->data, run->length, out);
    } else {
        stream->has_started = true;
        for (size_t i = 0; i < run->length; i++)
            icae_text_append(out, "\xEF\xBF\xBD", 3);
    }
    icae_text_clear(run);
}

static void push_marked(icae_token_stream *stream, const icae_tokenizer *tokenizer, int32_t id,
                        bool skip_special, icae_text *out) {
    stream->waits_for_runs = true;
    stream->strips_first = tokenizer->marking.strips_first;
    if (id < 0 || id >= tokenizer->size || tokenizer->tokens[id].flags == 0) return;
    const icae_token *token = &tokenizer->tokens[id];
    if (skip_special && token->flags & ICAE_TOKEN_SPECIAL) return;
    if (token->flags & ICAE_TOKEN_BYTE) {
        icae_text_append(&stream->pending, tokenizer->pool.data + token->raw, token->raw_bytes);
        return;
    }
    show_bytes(stream, out);
    show(stream, tokenizer->pool.data + token->raw, token->raw_bytes, out);
}

icae_status icae_tokenizer_decode(const icae_tokenizer *tokenizer, const int32_t *ids,
                                  size_t count, bool skip_special, icae_text *out,
                                  icae_error *error) {
    icae_text raw = {0};
    if (tokenizer->marking.is_on) {
        icae_token_stream stream = {0};
        for (size_t i = 0; i < count; i++)
            push_marked(&stream, tokenizer, ids[i], skip_special, out);
        icae_token_stream_finish(&stream, out);
        return out->failed ? icae_fail_memory(error, "the text of token ids") : ICAE_OK;
    }
    for (size_t i = 0; i < count; i++)
        icae_tokenizer_append_token(tokenizer, ids[i], skip_special, &raw);
    if (raw.failed)
        out->failed = true;
    else
        icae_utf8_repair(out, icae_text_string(&raw), raw.length);
    icae_text_release(&raw);
    return out->failed ? icae_fail_memory(error, "the text of token ids") : ICAE_OK;
}

void icae_token_stream_push(icae_token_stream *stream, const icae_tokenizer *tokenizer,
                            int32_t id, icae_text *out) {
    icae_text *pending = &stream->pending;
    if (tokenizer->marking.is_on) {
        push_marked(stream, tokenizer, id, false, out);
        out->failed |= pending->failed;
        return;
    }
    icae_tokenizer_append_token(tokenizer, id, false, pending);
    if (pending->failed) out->failed = true;
    if (pending->failed || pending->length == 0) return;
    size_t ready = icae_utf8_complete((const unsigned char *)pending->data, pending->length);
    icae_utf8_repair(out, pending->data, ready);
    pending->length -= ready;
    memmove(pending->data, pending->data + ready, pending->length + 1); /* with the final 0 */
}

void icae_token_stream_finish(icae_token_stream *stream, icae_text *out) {
    if (stream->waits_for_runs)
        show_bytes(stream, out);
    else
        icae_utf8_repair(out, icae_text_string(&stream->pending), stream->pending.length);
    if (stream->pending.failed) out->failed = true;
    icae_text_release(&stream->pending);
}
