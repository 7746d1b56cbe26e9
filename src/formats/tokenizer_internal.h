/* SPDX-License-Identifier: MIT */
/*
 * What the files of the tokenizer share; nobody else includes it.
 *
 *     unicode.c          the byte characters (and icae/unicode.h: classes, small letters)
 *     normalize.c        text -> the same text in normalization form C
 *     pretokenize.c      text -> pieces; one row in its table per pre-tokenizer
 *     tokenizer_build.c  how tokens, merges and added tokens come in, whatever the file was
 *     tokenizer_pipeline.c  reads what stands around the model in tokenizer.json
 *     tokenizer_load.c   reads tokenizer.json and the files beside it, and calls the former
 *     tokenizer_gguf.c   the same from the metadata of a GGUF
 *     tokenizer_pieces.c a SentencePiece vocabulary, whose merges follow from scores
 *     tokenizer_model.c  such a one from a file tokenizer.model
 *     tokenizer.c        encode, decode, stream
 */
#ifndef ICAE_TOKENIZER_INTERNAL_H
#define ICAE_TOKENIZER_INTERNAL_H

#include "icae/tokenizer.h"
#include "icae/unicode.h"

/* ---- Unicode ---- */

/*
 * GPT-2's byte characters: bytes that print stand for themselves as U+00XX, the 68 others are
 * U+0100, U+0101, ... in order. So any bytes can be spelled as readable text and back.
 */
int32_t icae_byte_to_char(unsigned char byte);
int icae_char_to_byte(int32_t point); /* -1: not a byte character */

/* ---- normalization form C, of well-formed UTF-8 ---- */

bool icae_is_nfc(const unsigned char *text, size_t bytes); /* false: may have to change */
void icae_nfc(icae_text *out, const unsigned char *text, size_t bytes); /* appends */

/* ---- pre-tokenizers ---- */

/* End of the piece that begins at `at` < bytes. text is well-formed UTF-8, at a boundary in it. */
typedef size_t (*icae_split)(const unsigned char *text, size_t bytes, size_t at);

typedef struct icae_pretokenizer {
    const char *name; /* in messages and fingerprints */
    icae_split next;
    const char *regex; /* of the Split in tokenizer.json that it is; NULL: no Split */
    /* In a GGUF: */
    const char *gguf_names;  /* values of tokenizer.ggml.pre, with spaces between */
    bool gguf_nfc;           /* what such a tokenizer has besides, though no key says so */
    bool gguf_ignore_merges; /* same */
} icae_pretokenizer;

/* All return NULL when there is none; the names known, for messages: "gpt-2, smollm". */
const icae_pretokenizer *icae_pretokenizer_find(const char *name);
const icae_pretokenizer *icae_pretokenizer_find_regex(const char *regex);
const icae_pretokenizer *icae_pretokenizer_find_gguf(const char *name, size_t bytes);
void icae_pretokenizer_list_gguf(icae_text *out);

/* ---- the tokenizer ---- */

enum { ICAE_TOKEN_ID_LIMIT = 1 << 24 };

enum {                            /* flags of a token; all 0: a hole, an id without text */
       ICAE_TOKEN_MODEL = 1,      /* in the vocabulary that pieces and merges come from */
       ICAE_TOKEN_ADDED = 2,      /* cut out of the text before anything else happens */
       ICAE_TOKEN_SPECIAL = 4,    /* an added one that skip_special and parse_special mean */
       ICAE_TOKEN_NORMALIZED = 8, /* an added one that is looked for after all others */
       ICAE_TOKEN_BYTE = 16       /* "<0x0A>" where that decodes to one byte */
};

typedef struct icae_token {
    uint32_t spelled, spelled_bytes; /* in pool: as the vocabulary writes it, "\u0120the" */
    uint32_t raw, raw_bytes;         /* in pool: what it decodes to, " the" */
    uint32_t flags;
} icae_token;

typedef struct icae_merge {
    uint64_t pair; /* left id << 32 | right id; empty slots hold ICAE_NO_PAIR */
    uint32_t rank; /* smaller is sooner */
    int32_t id;    /* of the merged token */
} icae_merge;

#define ICAE_NO_PAIR UINT64_MAX
#define ICAE_NO_RANK UINT32_MAX

typedef struct icae_added_token {
    size_t at, bytes; /* in pool, or in normalized */
    int32_t id;
    const char *text; /* there */
} icae_added_token;

typedef struct icae_added_list { /* added tokens, sorted by the bytes of their text */
    icae_added_token *tokens;
    size_t count;
    bool starts[256]; /* whether one begins with this byte */
} icae_added_list;

/*
 * SentencePiece's way with spaces: each becomes the mark U+2581, and a section of text (what lies
 * between added tokens) may get one more mark in front.
 */
#define ICAE_SPACE_MARK "\xE2\x96\x81"
enum { ICAE_SPACE_MARK_BYTES = 3 };

typedef enum icae_prefix {
    ICAE_PREFIX_NONE,
    ICAE_PREFIX_ALWAYS,   /* every section */
    ICAE_PREFIX_UNMARKED, /* every section that does not begin with one already */
    ICAE_PREFIX_START     /* the same, but only the section that begins the text */
} icae_prefix;

typedef struct icae_marking {
    bool is_on;         /* pieces are spelled in characters, not in byte characters */
    bool is_late;       /* set after normalized added tokens were looked for, not before */
    icae_prefix prefix; /* early ones: NONE or ALWAYS */
    bool has_bytes;     /* characters without a token are spelled in tokens such as <0x0A> */
    bool strips_first;  /* decoding leaves out one space at the start */
} icae_marking;

struct icae_tokenizer {
    icae_text pool;       /* text of all tokens */
    icae_text normalized; /* text of added tokens that are looked for in normalized text */
    icae_token *tokens;   /* [size] */
    int32_t size, room, id_limit; /* ids are below the last */
    uint64_t seed;                /* of the two hash tables; differs from run to run */
    int32_t *by_text;             /* hash table of ids by spelled text; -1 is empty */
    size_t text_slots, n_texts;
    icae_merge *merges; /* hash table by pair */
    size_t merge_slots, n_merges;
    int32_t byte_ids[256];  /* -1: the vocabulary has no token for this byte */
    int32_t ascii_ids[128]; /* with marking: tokens of these characters, or -1 */
    int32_t unknown;    /* stands for such bytes; -1: they are dropped, as Hugging Face does */
    bool fuse_unknown;  /* a run of them is one unknown token */
    bool ignore_merges; /* a piece that is a token as a whole is taken as it is */
    bool nfc;           /* text is brought into normalization form C before it is cut */
    icae_marking marking;
    const icae_pretokenizer *pretokenizer;
    icae_added_list added[2]; /* [1]: the normalized ones */
    int32_t bos, eos;
    char *chat_template;
    uint64_t fingerprint;
};

/*
 * Building: create, set nfc and marking, then every token, then every merge in order of rank, then finish. n_tokens and
 * n_merges are how many will be added at most. `where` is the file's name for messages. Tokens are
 * given as spelled; one may come twice when id and text agree: its flags are joined.
 */
icae_tokenizer *icae_tokenizer_create(size_t n_tokens, size_t n_merges);
icae_status icae_tokenizer_add(icae_tokenizer *tokenizer, const char *where, int64_t id,
                               const char *text, size_t bytes, uint32_t flags,
                               icae_error *error);
icae_status icae_tokenizer_add_merge(icae_tokenizer *tokenizer, const char *where,
                                     uint32_t rank, const char *left, size_t left_bytes,
                                     const char *right, size_t right_bytes, icae_error *error);
/* Instead of adding merges: room for n of them, and merges by id; the latter must be new ones. */
bool icae_tokenizer_room_for_merges(icae_tokenizer *tokenizer, size_t n);
void icae_tokenizer_put_merge(icae_tokenizer *tokenizer, uint32_t rank, int32_t left,
                              int32_t right, int32_t id);
icae_status icae_tokenizer_set_chat_template(icae_tokenizer *tokenizer, const char *text,
                                             size_t bytes, icae_error *error);
icae_status icae_tokenizer_finish(icae_tokenizer *tokenizer, const char *where,
                                  icae_error *error);

/* ---- SentencePiece vocabularies ---- */

enum { /* types of pieces, the same numbers in tokenizer.model and in a GGUF */
       ICAE_PIECE_NORMAL = 1,
       ICAE_PIECE_UNKNOWN = 2,
       ICAE_PIECE_CONTROL = 3,
       ICAE_PIECE_USER_DEFINED = 4,
       ICAE_PIECE_UNUSED = 5,
       ICAE_PIECE_BYTE = 6
};

typedef struct icae_piece { /* its place is its id */
    const char *text;
    size_t bytes;
    float score;
    int type;
} icae_piece;

/* Tokens and merges of n pieces. The caller may add tokens (at most `more`), then calls finish. */
icae_status icae_tokenizer_from_pieces(icae_tokenizer **tokenizer, const char *where,
                                       const icae_piece *pieces, size_t n, size_t more,
                                       bool has_prefix, icae_error *error);
/* Reads the file tokenizer.model, up to but without finish. */
icae_status icae_tokenizer_read_model(icae_tokenizer **tokenizer, const char *path, size_t more,
                                      icae_error *error);

/* Id by spelled text, -1 when there is none; the second finds only tokens of the model. */
int32_t icae_tokenizer_lookup(const icae_tokenizer *tokenizer, const char *text, size_t bytes);
int32_t icae_tokenizer_lookup_model(const icae_tokenizer *tokenizer, const char *text,
                                    size_t bytes);

/* Where the search for a pair begins. */
static inline size_t icae_merge_slot(const icae_tokenizer *tokenizer, uint64_t pair) {
    return (size_t)((pair ^ tokenizer->seed) * 0x9E3779B97F4A7C15u >> 32) &
           (tokenizer->merge_slots - 1);
}

/* The merge of two neighbours, or NULL. */
static inline icae_merge *icae_merge_find(const icae_tokenizer *tokenizer, int32_t left,
                                          int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t slot = icae_merge_slot(tokenizer, pair);
    while (tokenizer->merges[slot].pair != pair) {
        if (tokenizer->merges[slot].pair == ICAE_NO_PAIR) return NULL;
        slot = (slot + 1) & (tokenizer->merge_slots - 1);
    }
    return &tokenizer->merges[slot];
}

/* Appends text with its spaces as marks and the prefix that the marking wants. */
void icae_mark_spaces(icae_text *out, icae_marking marking, bool is_start, const char *text,
                      size_t bytes);

/* The longest added token of the list that text begins with and its *length; -1 when none. */
int32_t icae_added_match(const icae_added_list *list, const unsigned char *text, size_t bytes,
                         size_t *length);

#endif
