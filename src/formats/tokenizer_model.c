/* SPDX-License-Identifier: MIT */
/*
 * tokenizer.model: SentencePiece's own file, one protocol buffer.
 *
 *     message   field  what                             here
 *     model     1      piece, again and again           read
 *               2      trainer_spec                     read
 *               3      normalizer_spec                  read
 *               4      self_test_data                   passed over
 *               5      denormalizer_spec                must change nothing
 *     piece     1 2 3  text, score (float), type
 *     trainer   3      model_type                       must be 2, BPE
 *               24     treat_whitespace_as_suffix       must be false
 *               41 42  bos_id, eos_id                   read; the others are about training
 *     normalizer 1     name                             passed over
 *               2      precompiled_charsmap             must be empty
 *               3      add_dummy_prefix                 read
 *               4      remove_extra_whitespaces         must be false
 *               5      escape_whitespaces               must be true
 *               6      normalization_rule_tsv           passed over: it is what made 2
 *
 * A field is a number (number << 3 | kind) of 7-bit groups, and a value: kind 0 such a number,
 * 1 and 5 eight and four bytes, 2 a length and as many bytes. Other fields are refused by number.
 * Source: sentencepiece_model.proto; the encoding page of protobuf.dev.
 */
#include <stdlib.h>
#include <string.h>

#include "icae/file.h"
#include "tokenizer_internal.h"

typedef struct cursor {
    const unsigned char *at, *end;
} cursor;

typedef struct field {
    uint64_t number;
    unsigned kind;
    uint64_t value; /* kinds 0, 1 and 5 */
    cursor bytes;   /* kind 2 */
} field;

enum { VARINT = 0, EIGHT_BYTES = 1, BYTES = 2, FOUR_BYTES = 5 };

static bool read_varint(cursor *c, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && c->at < c->end; shift += 7) {
        unsigned char byte = *c->at++;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

/* The next field; false when the bytes are no field. */
static bool read_field(cursor *c, field *f) {
    uint64_t key;
    if (!read_varint(c, &key)) return false;
    *f = (field){.number = key >> 3, .kind = key & 7};
    size_t left = (size_t)(c->end - c->at), n;
    switch (f->kind) {
    case VARINT:
        return read_varint(c, &f->value);
    case BYTES:
        if (!read_varint(c, &f->value) || f->value > (uint64_t)(c->end - c->at)) return false;
        f->bytes = (cursor){c->at, c->at + f->value};
        c->at += f->value;
        return true;
    case EIGHT_BYTES:
    case FOUR_BYTES:
        n = f->kind == EIGHT_BYTES ? 8 : 4;
        if (left < n) return false;
        for (size_t i = 0; i < n; i++)
            f->value |= (uint64_t)c->at[i] << (8 * i);
        c->at += n;
        return true;
    default:
        return false;
    }
}

typedef struct model {
    const char *path;
    icae_piece *pieces;
    size_t n, room;
    uint64_t bos, eos; /* as signed numbers; -1: none */
    bool has_prefix, is_bpe;
    icae_error *error;
} model;

static icae_status broken(const model *m, const char *message) {
    return icae_fail(m->error, ICAE_FORMAT,
                     "%s: %s is damaged or not of the expected form, so the file is no "
                     "tokenizer.model",
                     m->path, message);
}

static icae_status unknown_field(const model *m, const char *message, const field *f) {
    return icae_fail(m->error, ICAE_UNSUPPORTED,
                     "%s: %s has the field %llu, which this program does not know", m->path,
                     message, (unsigned long long)f->number);
}

static icae_status read_piece(model *m, cursor c) {
    icae_piece piece = {.type = ICAE_PIECE_NORMAL};
    while (c.at < c.end) {
        field f;
        if (!read_field(&c, &f)) return broken(m, "a piece");
        if (f.number == 1 && f.kind == BYTES) {
            piece.text = (const char *)f.bytes.at;
            piece.bytes = (size_t)(f.bytes.end - f.bytes.at);
        } else if (f.number == 2 && f.kind == FOUR_BYTES) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece.score, &bits, sizeof bits);
        } else if (f.number == 3 && f.kind == VARINT) {
            piece.type = f.value <= ICAE_PIECE_BYTE ? (int)f.value : ICAE_PIECE_BYTE + 1;
        } else {
            return unknown_field(m, "a piece", &f);
        }
    }
    if (m->n == m->room) {
        size_t room = m->room ? 2 * m->room : 4096;
        icae_piece *larger = realloc(m->pieces, room * sizeof *larger);
        if (!larger) return icae_fail_memory(m->error, "a tokenizer");
        m->pieces = larger;
        m->room = room;
    }
    m->pieces[m->n++] = piece;
    return ICAE_OK;
}

static icae_status read_trainer(model *m, cursor c) {
    while (c.at < c.end) {
        field f;
        if (!read_field(&c, &f)) return broken(m, "trainer_spec");
        if (f.number == 3 && f.kind == VARINT) m->is_bpe = f.value == 2;
        if (f.number == 41 && f.kind == VARINT) m->bos = f.value;
        if (f.number == 42 && f.kind == VARINT) m->eos = f.value;
        if (f.number == 24 && f.kind == VARINT && f.value)
            return icae_fail(m->error, ICAE_UNSUPPORTED,
                             "%s: treat_whitespace_as_suffix = true is not known", m->path);
    }
    return ICAE_OK;
}

static icae_status read_normalizer(model *m, cursor c, bool is_denormalizer) {
    bool removes_spaces = true, escapes = true, has_prefix = true;
    const char *name = is_denormalizer ? "denormalizer_spec" : "normalizer_spec";
    while (c.at < c.end) {
        field f;
        if (!read_field(&c, &f)) return broken(m, name);
        if (f.number == 2 && f.kind == BYTES) {
            if (f.bytes.at < f.bytes.end)
                return icae_fail(m->error, ICAE_UNSUPPORTED,
                                 "%s: %s.precompiled_charsmap is not empty, and "
                                 "normalization by such a table is not known",
                                 m->path, name);
        } else if (f.number == 3 && f.kind == VARINT) {
            has_prefix = f.value != 0;
        } else if (f.number == 4 && f.kind == VARINT) {
            removes_spaces = f.value != 0;
        } else if (f.number == 5 && f.kind == VARINT) {
            escapes = f.value != 0;
        } else if ((f.number != 1 && f.number != 6) || f.kind != BYTES) {
            return unknown_field(m, name, &f);
        }
    }
    if (is_denormalizer) return ICAE_OK;
    m->has_prefix = has_prefix;
    if (removes_spaces || !escapes)
        return icae_fail(m->error, ICAE_UNSUPPORTED,
                         "%s: expected normalizer_spec with remove_extra_whitespaces = false "
                         "and escape_whitespaces = true",
                         m->path);
    return ICAE_OK;
}

static icae_status read_model(model *m, cursor c) {
    bool has_trainer = false, has_normalizer = false;
    while (c.at < c.end) {
        field f;
        icae_status status = ICAE_OK;
        if (!read_field(&c, &f) || (f.kind != BYTES && f.number <= 5))
            return broken(m, "the model");
        switch (f.number) {
        case 1:
            status = read_piece(m, f.bytes);
            break;
        case 2:
            status = read_trainer(m, f.bytes);
            has_trainer = true;
            break;
        case 3:
            status = read_normalizer(m, f.bytes, false);
            has_normalizer = true;
            break;
        case 4:
            break;
        case 5:
            status = read_normalizer(m, f.bytes, true);
            break;
        default:
            return unknown_field(m, "the model", &f);
        }
        if (status) return status;
    }
    if (!has_trainer || !has_normalizer || m->n == 0)
        return icae_fail(
            m->error, ICAE_FORMAT,
            "%s: expected pieces, trainer_spec and normalizer_spec, so the file is "
            "no tokenizer.model, or not all of it",
            m->path);
    if (!m->is_bpe)
        return icae_fail(m->error, ICAE_UNSUPPORTED,
                         "%s: expected a model_type of 2, BPE; other types are not known",
                         m->path);
    return ICAE_OK;
}

icae_status icae_tokenizer_read_model(icae_tokenizer **tokenizer, const char *path, size_t more,
                                      icae_error *error) {
    *tokenizer = NULL;
    icae_mapping file;
    icae_status status = icae_mapping_open(&file, path, error);
    if (status) return status;
    model m = {.path = path, .bos = 1, .eos = 2, .error = error};
    status = read_model(&m, (cursor){file.data, file.data + file.bytes});
    if (!status)
        status = icae_tokenizer_from_pieces(tokenizer, path, m.pieces, m.n, more, m.has_prefix,
                                            error);
    if (!status) { /* ids of pieces that are no control tokens mean that there is none */
        const icae_piece *pieces = m.pieces;
        if (m.bos < m.n && pieces[m.bos].type == ICAE_PIECE_CONTROL)
            (*tokenizer)->bos = (int32_t)m.bos;
        if (m.eos < m.n && pieces[m.eos].type == ICAE_PIECE_CONTROL)
            (*tokenizer)->eos = (int32_t)m.eos;
    }
    free(m.pieces);
    icae_mapping_close(&file);
    return status;
}
