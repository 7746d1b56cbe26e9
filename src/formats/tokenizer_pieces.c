/* SPDX-License-Identifier: MIT */
/*
 * A SentencePiece vocabulary of type BPE: pieces with scores, and no list of merges.
 *
 * Its encoder joins, again and again, the two neighbours whose joined text is the piece with the
 * highest score, the leftmost of equals. That is a list of merges: every way to cut a piece into two
 * pieces is one, and its rank is the place of the piece when all are sorted by score. Pieces of one
 * score share a rank.
 *
 * Source: Kudo and Richardson, arXiv 1808.06226; llama.cpp reads the same from GGUF.
 */
#include <math.h>
#include <stdlib.h>

#include "quote.h"
#include "tokenizer_internal.h"

/* Longer ones do not occur, and every cut of a piece costs the reading of its two sides. */
enum { LONGEST_PIECE = 512 };

typedef struct ranked { /* a normal piece */
    float score;
    int32_t id;
    uint32_t rank;
} ranked;

static int compare_scores(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* An id that takes part in merges, or -1. */
static int32_t find_part(const icae_tokenizer *tokenizer, const char *text, size_t bytes) {
    int32_t id = icae_tokenizer_lookup_model(tokenizer, text, bytes);
    const uint32_t never = ICAE_TOKEN_ADDED | ICAE_TOKEN_BYTE;
    return id >= 0 && !(tokenizer->tokens[id].flags & never) ? id : -1;
}

static size_t character_end(const icae_piece *piece, size_t at) {
    int32_t point;
    const unsigned char *text = (const unsigned char *)piece->text;
    return at + (size_t)icae_utf8_decode(text + at, piece->bytes - at, &point);
}

/* The merges that lead to one piece; is_real: not only counted. */
static size_t merges_of(icae_tokenizer *tokenizer, const icae_piece *piece, const ranked *r,
                        bool is_real) {
    size_t n = 0;
    for (size_t at = character_end(piece, 0); at < piece->bytes;
         at = character_end(piece, at)) {
        int32_t left = find_part(tokenizer, piece->text, at);
        if (left < 0) continue;
        int32_t right = find_part(tokenizer, piece->text + at, piece->bytes - at);
        if (right < 0) continue;
        if (is_real) icae_tokenizer_put_merge(tokenizer, r->rank, left, right, r->id);
        n++;
    }
    return n;
}

static icae_status make_merges(icae_tokenizer *tokenizer, const icae_piece *pieces, size_t n,
                               icae_error *error) {
    ranked *normal = calloc(n ? n : 1, sizeof *normal);
    if (!normal) return icae_fail_memory(error, "a tokenizer");
    size_t count = 0, n_merges = 0;
    for (size_t i = 0; i < n; i++) {
        if (pieces[i].type == ICAE_PIECE_NORMAL)
            normal[count++] = (ranked){.score = pieces[i].score, .id = (int32_t)i};
    }
    qsort(normal, count, sizeof *normal, compare_scores);
    for (size_t i = 0; i < count; i++) {
        bool is_new = i && normal[i].score != normal[i - 1].score;
        normal[i].rank = i ? normal[i - 1].rank + is_new : 0;
        n_merges += merges_of(tokenizer, &pieces[normal[i].id], &normal[i], false);
    }
    bool is_roomy = icae_tokenizer_room_for_merges(tokenizer, n_merges);
    for (size_t i = 0; i < count && is_roomy; i++)
        merges_of(tokenizer, &pieces[normal[i].id], &normal[i], true);
    free(normal);
    return is_roomy ? ICAE_OK : icae_fail_memory(error, "a tokenizer");
}

static icae_status add_piece(icae_tokenizer *tokenizer, const char *where, size_t id,
                             const icae_piece *piece, icae_error *error) {
    uint32_t flags = ICAE_TOKEN_MODEL;
    if (piece->type < ICAE_PIECE_NORMAL || piece->type > ICAE_PIECE_BYTE)
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the type of token %zu is not 1 to 6; fetch it again", where, id);
    if (piece->type == ICAE_PIECE_UNUSED) return ICAE_OK; /* a filler, or never to be made */
    if (piece->bytes > LONGEST_PIECE)
        return icae_fail(error, ICAE_UNSUPPORTED,
                         "%s: token %zu, \"%s\"..., has %zu bytes, at most %d are possible",
                         where, id, icae_quote(piece->text, 16).text, piece->bytes,
                         LONGEST_PIECE);
    if (piece->bytes == 0)
        return icae_fail(error, ICAE_FORMAT, "%s: token %zu is an empty text; fetch it again",
                         where, id);
    if (!icae_utf8_is_valid(piece->text, piece->bytes))
        return icae_fail(error, ICAE_FORMAT,
                         "%s: token %zu, \"%s\", is no UTF-8; fetch it again", where, id,
                         icae_quote(piece->text, piece->bytes).text);
    if (piece->type == ICAE_PIECE_NORMAL && !isfinite(piece->score))
        return icae_fail(error, ICAE_FORMAT,
                         "%s: the score of token %zu is not a number; fetch it "
                         "again",
                         where, id);
    if (piece->type == ICAE_PIECE_USER_DEFINED) {
        /* SentencePiece finds them where spaces are marks already: Gemma's are runs of spaces. With
         * marks in front of sections the list of normalized tokens would want one in front of each. */
        flags |= ICAE_TOKEN_ADDED;
        if (!tokenizer->marking.prefix) flags |= ICAE_TOKEN_NORMALIZED;
    }
    if (piece->type == ICAE_PIECE_CONTROL || piece->type == ICAE_PIECE_UNKNOWN)
        flags |= ICAE_TOKEN_ADDED | ICAE_TOKEN_SPECIAL;
    if (piece->type == ICAE_PIECE_UNKNOWN) {
        if (tokenizer->unknown >= 0)
            return icae_fail(error, ICAE_FORMAT, "%s: tokens %d and %zu are both unknown ones",
                             where, tokenizer->unknown, id);
        tokenizer->unknown = (int32_t)id;
    }
    if (piece->type == ICAE_PIECE_BYTE) tokenizer->marking.has_bytes = true;
    return icae_tokenizer_add(tokenizer, where, (int64_t)id, piece->text, piece->bytes, flags,
                              error);
}

icae_status icae_tokenizer_from_pieces(icae_tokenizer **tokenizer, const char *where,
                                       const icae_piece *pieces, size_t n, size_t more,
                                       bool has_prefix, icae_error *error) {
    *tokenizer = NULL;
    if (n > ICAE_TOKEN_ID_LIMIT || more > ICAE_TOKEN_ID_LIMIT)
        return icae_fail(error, ICAE_FORMAT,
                         "%s: there are %zu tokens, at most %d are possible", where, n,
                         ICAE_TOKEN_ID_LIMIT);
    icae_tokenizer *made = icae_tokenizer_create(n + more, 0);
    if (!made) return icae_fail_memory(error, "a tokenizer");
    made->marking = (icae_marking){.is_on = true,
                                   .prefix = has_prefix ? ICAE_PREFIX_ALWAYS : ICAE_PREFIX_NONE,
                                   .strips_first = has_prefix};
    made->pretokenizer = icae_pretokenizer_find("sentencepiece");
    made->fuse_unknown = true;
    icae_status status = ICAE_OK;
    for (size_t i = 0; i < n && !status; i++)
        status = add_piece(made, where, i, &pieces[i], error);
    if (!status) status = make_merges(made, pieces, n, error);
    if (status)
        icae_tokenizer_free(made);
    else
        *tokenizer = made;
    return status;
}
