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

static bool is_mark(const unsigned char *text, size_t bytes, size_t at) {
    return bytes - at >= ICAE_SPACE_MARK_BYTES &&
           memcmp(text + at, ICAE_SPACE_MARK, ICAE_SPACE_MARK_BYTES) == 0;
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

/* ---- the splits of Llama 3 and Qwen 2 ---- */

static int32_t lower_ascii(int32_t point) {
    return point >= 'A' && point <= 'Z' ? point + 'a' - 'A' : point;
}

/* The same as contraction() in any case; U+017F, the long s, is an s in another case too. */
static size_t contraction_any_case(const unsigned char *text, size_t bytes) {
    int32_t first = bytes >= 2 ? lower_ascii(text[1]) : 0;
    int32_t second = bytes >= 3 ? lower_ascii(text[2]) : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    if (bytes >= 3 && text[1] == 0xC5 && text[2] == 0xBF) return 3;
    if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
        (first == 'l' && second == 'l'))
        return 3;
    return 0;
}

/* White space from `at`: past its last line end, or else all but the last character of it, which
 * is left for what follows; at the end of the text, or where it is one character, all of it. */
static size_t white_space(const unsigned char *text, size_t bytes, size_t at) {
    size_t end = at, before_last = at, after_line_end = at;
    while (end < bytes) {
        character c = character_at(text, bytes, end);
        if (c.class_of != ICAE_CHAR_SPACE) break;
        before_last = end;
        end = c.end;
        if (c.point == '\r' || c.point == '\n') after_line_end = end;
    }
    if (after_line_end > at) return after_line_end;
    return end == bytes || before_last == at ? end : before_last;
}

/*
 *     (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
 *      ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 */
static size_t llama3_piece(const unsigned char *text, size_t bytes, size_t at, int digits) {
    character first = character_at(text, bytes, at);
    if (first.class_of == ICAE_CHAR_LETTER)
        return end_of_run(text, bytes, first.end, ICAE_CHAR_LETTER);
    if (first.class_of == ICAE_CHAR_NUMBER) {
        size_t end = first.end;
        for (int n = 1; n < digits && end < bytes; n++) {
            character c = character_at(text, bytes, end);
            if (c.class_of != ICAE_CHAR_NUMBER) break;
            end = c.end;
        }
        return end;
    }
    if (first.point == '\'') {
        size_t length = contraction_any_case(text + at, bytes - at);
        if (length) return at + length;
    }
    if (first.point == '\r' || first.point == '\n') return white_space(text, bytes, at);

    /* Any other character belongs to the letters after it, a plain space to the signs too. */
    size_t signs = first.class_of == ICAE_CHAR_SPACE ? at : first.end;
    if (first.end < bytes) {
        character second = character_at(text, bytes, first.end);
        if (second.class_of == ICAE_CHAR_LETTER)
            return end_of_run(text, bytes, second.end, ICAE_CHAR_LETTER);
        if (first.point == ' ' && second.class_of == ICAE_CHAR_OTHER) signs = second.end;
    }
    if (signs == at) return white_space(text, bytes, at);
    size_t end = end_of_run(text, bytes, signs, ICAE_CHAR_OTHER);
    while (end < bytes && (text[end] == '\r' || text[end] == '\n'))
        end++;
    return end;
}

static size_t llama3_next(const unsigned char *text, size_t bytes, size_t at) {
    return llama3_piece(text, bytes, at, 3);
}

static size_t qwen2_next(const unsigned char *text, size_t bytes, size_t at) {
    return llama3_piece(text, bytes, at, 1);
}

/* ---- SentencePiece: text in which U+2581 stands for spaces ---- */

void icae_mark_spaces(icae_text *out, icae_marking marking, bool is_start, const char *text,
                      size_t bytes) {
    bool is_marked =
        bytes && (text[0] == ' ' || is_mark((const unsigned char *)text, bytes, 0));
    if (bytes && (marking.prefix == ICAE_PREFIX_ALWAYS ||
                  (marking.prefix == ICAE_PREFIX_UNMARKED && !is_marked) ||
                  (marking.prefix == ICAE_PREFIX_START && !is_marked && is_start)))
        icae_text_append(out, ICAE_SPACE_MARK, ICAE_SPACE_MARK_BYTES);
    while (bytes) {
        const char *space = memchr(text, ' ', bytes);
        size_t length = space ? (size_t)(space - text) : bytes;
        icae_text_append(out, text, length);
        if (space) icae_text_append(out, ICAE_SPACE_MARK, ICAE_SPACE_MARK_BYTES);
        text += length + (space != NULL);
        bytes -= length + (space != NULL);
    }
}

/* No split at all. */
static size_t whole_next(const unsigned char *text, size_t bytes, size_t at) {
    (void)text;
    (void)at;
    return bytes;
}

/* The first mark at or after `at`, or bytes. Its first byte is common in some scripts. */
static size_t find_mark(const unsigned char *text, size_t bytes, size_t at) {
    while (at < bytes) {
        const unsigned char *found = memchr(text + at, ICAE_SPACE_MARK[0] & 0xFF, bytes - at);
        if (!found) return bytes;
        at = (size_t)(found - text);
        if (is_mark(text, bytes, at)) return at;
        at++;
    }
    return bytes;
}

/* Runs of marks, each with what follows it: no merge crosses these cuts, see may_cut_words. */
static size_t words_next(const unsigned char *text, size_t bytes, size_t at) {
    while (is_mark(text, bytes, at))
        at += ICAE_SPACE_MARK_BYTES;
    return find_mark(text, bytes, at);
}

/* Every mark begins a piece: Metaspace with split = true. */
static size_t metaspace_next(const unsigned char *text, size_t bytes, size_t at) {
    return find_mark(text, bytes, at + 1);
}

#define LLAMA3_REGEX(numbers)                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                      \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const icae_pretokenizer pretokenizers[] = {
    {"gpt2", gpt2_next, NULL, "gpt-2", false, false},
    {"smollm", smollm_next, NULL, "smollm", false, false},
    {"llama3", llama3_next, LLAMA3_REGEX("\\p{N}{1,3}"), "llama-bpe llama3 llama-v3", false,
     true},
    {"qwen2", qwen2_next, LLAMA3_REGEX("\\p{N}"), "qwen2", true, false},
    {"sentencepiece", whole_next, NULL, "", false, false},
    {"sentencepiece words", words_next, NULL, "", false, false},
    {"metaspace", metaspace_next, NULL, "", false, false},
};
enum { N_PRETOKENIZERS = sizeof pretokenizers / sizeof pretokenizers[0] };

const icae_pretokenizer *icae_pretokenizer_find(const char *name) {
    for (int i = 0; i < N_PRETOKENIZERS; i++) {
        if (strcmp(pretokenizers[i].name, name) == 0) return &pretokenizers[i];
    }
    return NULL;
}

const icae_pretokenizer *icae_pretokenizer_find_regex(const char *regex) {
    for (int i = 0; i < N_PRETOKENIZERS; i++) {
        const char *known = pretokenizers[i].regex;
        if (known && strcmp(known, regex) == 0) return &pretokenizers[i];
    }
    return NULL;
}

const icae_pretokenizer *icae_pretokenizer_find_gguf(const char *name, size_t bytes) {
    for (int i = 0; i < N_PRETOKENIZERS; i++) {
        for (const char *at = pretokenizers[i].gguf_names; *at;) {
            size_t length = strcspn(at, " ");
            if (length == bytes && memcmp(at, name, bytes) == 0) return &pretokenizers[i];
            at += length + (at[length] == ' ');
        }
    }
    return NULL;
}

void icae_pretokenizer_list_gguf(icae_text *out) {
    for (int i = 0; i < N_PRETOKENIZERS; i++) {
        const char *at = pretokenizers[i].gguf_names;
        if (i && *at) icae_text_append_string(out, ", ");
        for (; *at; at++)
            icae_text_append_string(out, *at == ' ' ? ", " : (const char[]){*at, 0});
    }
}
