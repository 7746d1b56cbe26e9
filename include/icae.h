/* SPDX-License-Identifier: MIT */
/*
 * libicae for other programs: compress a text into a few vectors ("slots") that a frozen language
 * model reads in its place, and let it write from them.
 *
 *     icae_base *base;
 *     icae_session *session;
 *     icae_slots *slots;
 *     icae_error error = {0};
 *     if (icae_base_open(&base, "model.gguf", &error) ||
 *         icae_session_open(&session, base, "adapter", NULL, &error) ||
 *         icae_session_compress(session, text, strlen(text), &slots, &error) ||
 *         icae_session_generate(session, slots, &(icae_generation){.mode = ICAE_ASK,
 *                               .prompt = "Who wrote it?"}, show_piece, NULL, NULL, &error)) {
 *         fprintf(stderr, "%s\n", error.message);
 *     }
 *
 * Every function that can fail returns an icae_status (0 = done) and leaves one sentence in the
 * icae_error, which may be NULL. What a function hands out through a ** is NULL after a failure.
 *
 * Threads. A base is read-only once open and may serve any number of sessions in any number of
 * threads; it must outlive them. A session (kernels, work memory, key-value caches, the adapter) and
 * whatever is called with it belong to one thread at a time. Slots belong to nobody: they may be read
 * from several threads as long as none joins to or frees them. Warnings (an adapter without
 * fingerprint, a text longer than the base's context) go to stderr.
 *
 * A complete program: tests/example/compress_and_ask.c. Build with `pkg-config --cflags --libs icae`.
 */
#ifndef ICAE_H
#define ICAE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_base icae_base;       /* a frozen language model and its tokenizer */
typedef struct icae_session icae_session; /* one thread's way to use it, with one adapter */
typedef struct icae_slots icae_slots;     /* a compressed text */

/* "0.1.0" */
const char *icae_version(void);

/* ---- the base ---- */

typedef struct icae_base_info {
    const char *path;         /* as given; lives as long as the base */
    const char *architecture; /* "llama" */
    const char *file_type;    /* "GGUF" or "safetensors" */
    int64_t parameters, layers, width, vocabulary;
    int64_t context_length; /* tokens that the base was trained to see at a time */
    size_t weight_bytes;    /* as stored */
    uint64_t fingerprint;   /* what slots and adapters remember it by */
} icae_base_info;

/* Opens a .gguf file or a Hugging Face folder; the weights stay mapped from there. */
icae_status icae_base_open(icae_base **base, const char *path, icae_error *error);
void icae_base_close(icae_base *base); /* NULL is allowed */
icae_base_info icae_base_describe(const icae_base *base);
/* Tokens that `bytes` of UTF-8 are for this base; text that spells a special token is plain text. */
icae_status icae_base_count_tokens(const icae_base *base, const char *text, size_t bytes,
                                   int64_t *tokens, icae_error *error);
/* Bytes that a 16-bit key-value cache of so many tokens takes: what slots save. */
size_t icae_base_cache_bytes(const icae_base *base, int64_t tokens);

/* ---- a session ---- */

typedef struct icae_session_options {
    int n_threads; /* 0: as many as the machine has */
    /* The type of products with the base: "f32", or "bf16", which compresses faster on processors that
     * multiply it, with slots that differ by about a hundredth. "auto" and NULL: "f32". */
    const char *compute;
    /* Every text that is compressed gets its slots made better for that very text, by at most so many steps
     * of gradient descent: slow, and much closer to the letter. 0: none. */
    int64_t refine_steps;
} icae_session_options;

/* Loads an adapter folder for this base. One made for another base or tokenizer is refused by a
 * sentence that names both. options may be NULL. */
icae_status icae_session_open(icae_session **session, const icae_base *base,
                              const char *adapter, const icae_session_options *options,
                              icae_error *error);
void icae_session_close(icae_session *session); /* NULL is allowed */

/* ---- slots ---- */

typedef struct icae_slots_info {
    int64_t source_tokens; /* tokens that the slots stand for */
    uint64_t source_bytes; /* of the text; 0 when several texts were joined */
    int64_t spans, slots;  /* pieces encoded one by one; vectors in all */
    int64_t raw_spans; /* pieces that are kept as text, for slots would lose too much of them */
    int64_t raw_tokens; /* their tokens */
    int64_t width;      /* numbers in each vector */
    size_t value_bytes; /* slots * width * 4 */
} icae_slots_info;

/* Compresses `bytes` of text. An empty text is refused; ill-formed UTF-8 becomes U+FFFD. */
icae_status icae_session_compress(icae_session *session, const char *text, size_t bytes,
                                  icae_slots **slots, icae_error *error);
/* Reads a .slots file; one made with another base, adapter or tokenizer is refused. */
icae_status icae_session_load_slots(icae_session *session, const char *path, icae_slots **slots,
                                    icae_error *error);
/* Appends `more` behind `slots`: several texts as one context, in that order. On failure `slots` is
 * as it was. */
icae_status icae_slots_join(icae_slots *slots, const icae_slots *more, icae_error *error);
/* Writes the file whole or not at all. */
icae_status icae_slots_save(const icae_slots *slots, const char *path, icae_error *error);
icae_slots_info icae_slots_describe(const icae_slots *slots);
void icae_slots_free(icae_slots *slots); /* NULL is allowed */

/* ---- writing from slots ---- */

typedef enum icae_mode {
    ICAE_RECONSTRUCT, /* the compressed text, word for word as far as the slots hold it */
    ICAE_CONTINUE,    /* what might follow it */
    ICAE_ASK          /* the answer to `prompt` about it */
} icae_mode;

/* A question and its answer of before, UTF-8, 0-terminated; special tokens in them are plain text. */
typedef struct icae_turn {
    const char *question, *answer;
} icae_turn;

/* A zeroed struct, apart from mode and prompt, asks for greedy decoding of a fitting length. */
typedef struct icae_generation {
    icae_mode mode;
    const char *prompt; /* ICAE_ASK: UTF-8, 0-terminated; special tokens in it are plain text */
    const icae_turn *turns; /* ICAE_ASK: the dialogue before this prompt, oldest turn first */
    size_t n_turns;
    int64_t max_tokens; /* 0: for RECONSTRUCT what its spans may have, see below, else 256 */
    /* ICAE_RECONSTRUCT: let the base read all spans at once, as adapters can that were trained to restore
     * texts of several. false: it restores span after span, each from its own slots, some side by side. */
    bool spans_together;
    double temperature; /* 0: always the likeliest token */
    double top_p;       /* keep the likeliest tokens of this total probability; 0 and 1: all */
    int64_t top_k;      /* keep this many; 0: all */
    uint64_t seed;
    /* Where the base's context leaves less room than this, nothing is written: ICAE_INVALID. 0: 1. */
    int64_t least_tokens;
} icae_generation;

/* A piece of new text, whole UTF-8 characters, not 0-terminated. false stops the generation, which
 * then returns ICAE_INTERRUPTED. The session that calls is at work: to compress or write with it from here is
 * ICAE_INVALID, and it must not be closed; other sessions are free. */
typedef bool icae_piece_callback(void *user, const char *piece, size_t bytes);

typedef struct icae_generated {
    char *text; /* all of it, 0-terminated; free with icae_generated_release */
    size_t bytes;
    int64_t prompt_tokens; /* chat prefix, slots, task tokens, dialogue, prompt, chat suffix */
    int64_t generated_tokens;
    bool is_complete; /* ended by the end token (of an answer: the chat template's), not by
                         max_tokens or the base's context */
} icae_generated;

/*
 * Writes from slots, piece by piece.
 *
 *   slots     made by this session's base and adapter
 *   callback  may be NULL; user is handed to it
 *   result    may be NULL; on failure it is left empty
 *
 * Spans that are kept raw come back as they are, between the others. A span that does not end by itself
 * ends when it is an eighth and 8 tokens longer than it was; max_tokens is of the whole text.
 *
 * A prompt that does not fit behind the slots into the base's context, with room for least_tokens, is
 * ICAE_INVALID; a max_tokens that does not fit is lowered to what does. Slots that stand for more tokens than the base's context
 * get a warning: the base was never trained on such positions.
 */
icae_status icae_session_generate(icae_session *session, const icae_slots *slots,
                                  const icae_generation *what, icae_piece_callback *callback,
                                  void *user, icae_generated *result, icae_error *error);

/* A piece of text number `text`; else as icae_piece_callback. */
typedef bool icae_batch_callback(void *user, size_t text, const char *piece, size_t bytes);

/*
 * The same for n texts side by side, from slots [n], which is about three times faster than one after the
 * other. None depends on the others: without temperature each is what icae_session_generate gives alone.
 * results [n] may be NULL; on failure all of them are left empty.
 */
icae_status icae_session_generate_batch(icae_session *session, const icae_slots *const *slots,
                                        size_t n, const icae_generation *what,
                                        icae_batch_callback *callback, void *user,
                                        icae_generated *results, icae_error *error);
void icae_generated_release(icae_generated *result);

#ifdef __cplusplus
}
#endif
#endif
