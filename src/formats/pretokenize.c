/* SPDX-License-Identifier: MIT */
/*
 * Pre-tokenizers: how text is cut into the pieces inside which merges happen.
 *
 * A pre-tokenizer is one row of the table at the end and one function that finds the end of the
 * next piece. Each is the hand-made automaton of a regular expression whose text stands above it;
 * every one takes time linear in the text.
 */
#include <string.h>

#include "tokenizer_internal.h"

typedef struct character {
    int32_t point;
    size_t end; /* offset of the next one */
    icae_char_class class_of;
} character;

/* The character at `at` < bytes of well-formed UTF-8. */
static character character_at(const unsigned char *text, size_t bytes, size_t at) {
    character c = {.point = text[at], .end = at + 1};
    if (c.point >= 0x80) c.end = at + (size_t)icae_utf8_decode(text + at, bytes - at, &c.point);
    c.class_of = icae_unicode_class(c.point);
    return c;
}

static size_t end_of_run(const unsigned char *text, size_t bytes, size_t at,
                         icae_char_class class_of) {
    while (at < bytes) {
        character c = character_at(text, bytes, at);
        if (c.class_of != class_of) break;
        at = c.end;
    }
    return at;
}

/* Bytes of 's 't 're 've 'm 'll 'd at text, which holds an apostrophe there; 0 when none. */
static size_t contraction(const unsigned char *text, size_t bytes) {
    if (bytes >= 2 && memchr("stmd", text[1], 4)) return 2;
    if (bytes >= 3 && (memcmp(text + 1, "re", 2) == 0 || memcmp(text + 1, "ve", 2) == 0 ||
                       memcmp(text + 1, "ll", 2) == 0))
        return 3;
    return 0;
}

/*
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * digits_stand_alone: the text was cut at every \p{N} before, each such character being a piece.
 * To what stands before it a number then looks like the end of the text.
 */
static size_t gpt2_piece(const unsigned char *text, size_t bytes, size_t at,
                         bool digits_stand_alone) {
    character first = character_at(text, bytes, at);
    if (first.class_of == ICAE_CHAR_NUMBER && digits_stand_alone) return first.end;
    if (first.point == '\'') {
        size_t length = contraction(text + at, bytes - at);
        if (length) return at + length;
    }
    if (first.class_of != ICAE_CHAR_SPACE)
        return end_of_run(text, bytes, first.end, first.class_of);

    /* One plain space belongs to the word, number or signs that follow it. */
    if (first.point == ' ' && first.end < bytes) {
        character second = character_at(text, bytes, first.end);
        if (second.class_of != ICAE_CHAR_SPACE &&
            !(second.class_of == ICAE_CHAR_NUMBER && digits_stand_alone))
            return end_of_run(text, bytes, second.end, second.class_of);
    }

    /* White space to the end of the text is whole; before anything else its last character is
     * left for what follows, unless it is the only one. */
    size_t end = first.end, before_last = at;
    while (end < bytes) {
        character c = character_at(text, bytes, end);
        if (c.class_of == ICAE_CHAR_NUMBER && digits_stand_alone) return end;
        if (c.class_of != ICAE_CHAR_SPACE) return before_last > at ? before_last : end;
        before_last = end;
        end = c.end;
    }
    return end;
}

static size_t gpt2_next(const unsigned char *text, size_t bytes, size_t at) {
    return gpt2_piece(text, bytes, at, false);
}

static size_t smollm_next(const unsigned char *text, size_t bytes, size_t at) {
    return gpt2_piece(text, bytes, at, true);
}

static const icae_pretokenizer pretokenizers[] = {
    {"gpt2", "gpt-2", gpt2_next},
    {"smollm", "smollm", smollm_next},
};
enum { N_PRETOKENIZERS = sizeof pretokenizers / sizeof pretokenizers[0] };

const icae_pretokenizer *icae_pretokenizer_find(const char *name) {
    for (int i = 0; i < N_PRETOKENIZERS; i++) {
        if (strcmp(pretokenizers[i].name, name) == 0) return &pretokenizers[i];
    }
    return NULL;
}

const icae_pretokenizer *icae_pretokenizer_find_gguf(const char *name, size_t bytes) {
    for (int i = 0; i < N_PRETOKENIZERS; i++) {
        const char *known = pretokenizers[i].gguf_name;
        if (strlen(known) == bytes && memcmp(known, name, bytes) == 0) return &pretokenizers[i];
    }
    return NULL;
}

void icae_pretokenizer_list_gguf(icae_text *out) {
    for (int i = 0; i < N_PRETOKENIZERS; i++)
        icae_text_printf(out, "%s%s", i ? ", " : "", pretokenizers[i].gguf_name);
}
