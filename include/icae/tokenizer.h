/* SPDX-License-Identifier: MIT */
/*
 * Text <-> token ids, exactly as the base model's own tokenizer does it.
 *
 * Byte-level BPE: added (special) tokens are cut out first, the rest is split by the
 * pre-tokenizer, every piece is spelled in byte characters (GPT-2's table) and merged by rank.
 * Pre-tokenizers: "gpt2" (one regular expression), "smollm" (digits singly, then gpt2's), "llama3",
 * and "qwen2" (the former with digits singly; its text is brought into normalization form C).
 *
 * SentencePiece-style BPE (Llama 2, Mistral): spaces become the mark U+2581, sections of text begin
 * with one more of it, characters are merged by rank, and those that the vocabulary lacks are
 * spelled in tokens for bytes, "<0x0A>".
 *
 * Anything else that a tokenizer file asks for is refused by name, never guessed.
 *
 * A tokenizer is read-only after loading and may be shared by threads.
 * Sources: Radford et al. 2019 (GPT-2, byte-level BPE); the tokenizer.json schema of Hugging Face
 * tokenizers; ggml's docs/gguf.md (tokenizer.ggml.*).
 */
#ifndef ICAE_TOKENIZER_H
#define ICAE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "icae/gguf.h"
#include "icae/status.h"
#include "icae/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct icae_tokenizer icae_tokenizer;

/* From tokenizer.json, or tokenizer.model where there is none (and, beside it, from
 * tokenizer_config.json and generation_config.json for bos, eos and the chat template, where they
 * exist). folder: a Hugging Face model folder. */
icae_status icae_tokenizer_open_folder(icae_tokenizer **tokenizer, const char *folder,
                                       icae_error *error);
/* From the tokenizer.* metadata of a GGUF; copies what it needs, so the file may be closed. */
icae_status icae_tokenizer_from_gguf(icae_tokenizer **tokenizer, const icae_gguf *file,
                                     icae_error *error);
void icae_tokenizer_free(icae_tokenizer *tokenizer);

int32_t icae_tokenizer_size(const icae_tokenizer *tokenizer); /* ids are 0..size-1 */
int32_t icae_tokenizer_bos(const icae_tokenizer *tokenizer);  /* -1 when there is none */
int32_t icae_tokenizer_eos(const icae_tokenizer *tokenizer);  /* -1 when there is none */
/* The chat template as the files carry it (Jinja text, unevaluated); NULL when there is none. */
const char *icae_tokenizer_chat_template(const icae_tokenizer *tokenizer);
/* 64-bit fingerprint of vocabulary, merges, added tokens and pre-tokenizer. */
uint64_t icae_tokenizer_fingerprint(const icae_tokenizer *tokenizer);

/* The id that decodes to exactly this text ("<|im_end|>", " the"), or -1. */
int32_t icae_tokenizer_find(const icae_tokenizer *tokenizer, const char *text);
bool icae_tokenizer_is_special(const icae_tokenizer *tokenizer, int32_t id);

/*
 * Encodes `bytes` of UTF-8; no BOS or EOS is added. *ids is malloc'ed (free it), *count its length.
 * parse_special: whether text that spells a special token becomes that token; false reads it as
 * plain text (for text from strangers). Ill-formed bytes are replaced by U+FFFD first, as Hugging
 * Face sees them. As there, bytes that the vocabulary has no token for are left out (SmolLM2's lacks
 * six control characters and the planes U+40000 to U+BFFFF).
 */
icae_status icae_tokenizer_encode(const icae_tokenizer *tokenizer, const char *text,
                                  size_t bytes, bool parse_special, int32_t **ids,
                                  size_t *count, icae_error *error);

/* Appends the raw bytes of one token: may be a part of a UTF-8 sequence. Special tokens are
 * spelled out unless skip_special. Ids out of range append nothing. Of a SentencePiece-style one
 * this keeps the space at the start of a word, also of the first. */
void icae_tokenizer_append_token(const icae_tokenizer *tokenizer, int32_t id, bool skip_special,
                                 icae_text *out);

/* Decodes all ids; ill-formed bytes become U+FFFD the way Hugging Face's decoder does it:
 * SentencePiece-style ones make a run of byte tokens one U+FFFD for each of its bytes unless all of
 * it is well-formed, and leave out one space at the very start. */
icae_status icae_tokenizer_decode(const icae_tokenizer *tokenizer, const int32_t *ids,
                                  size_t count, bool skip_special, icae_text *out,
                                  icae_error *error);

/*
 * Streaming: tokens in, text out as soon as it is whole UTF-8. A zeroed struct starts a stream.
 * push appends to out the bytes that are complete now; finish appends the rest, repaired. Together
 * they give what decode gives for all tokens at once; so with a SentencePiece-style tokenizer a run
 * of byte tokens comes out when it has ended, and only the start of the stream loses a space.
 */
typedef struct icae_token_stream {
    icae_text pending;
    bool waits_for_runs, strips_first, has_started; /* SentencePiece-style ones */
} icae_token_stream;
void icae_token_stream_push(icae_token_stream *stream, const icae_tokenizer *tokenizer,
                            int32_t id, icae_text *out);
void icae_token_stream_finish(icae_token_stream *stream, icae_text *out); /* and releases it */

#ifdef __cplusplus
}
#endif
#endif
