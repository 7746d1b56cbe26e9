#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares token ids of a GGUF's SentencePiece vocabulary with those of sentencepiece itself.

    python3 tests/interop/pieces.py BASE.gguf [FOLDER]

The pieces, scores and types of the metadata (tokenizer.ggml.model "llama": Llama 2, Mistral, Gemma) are
written as a tokenizer.model, which Google's sentencepiece then reads; into FOLDER too, where one is given,
for our own reader of that format. Texts are those of tokenizers.py. Says how many differ; exit status 1
when any does.

Needs sentencepiece, protobuf, gguf and tokenizers. build/release/interop-tokenize must be built.
"""
import importlib.util
import os
import struct
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != HERE]  # files here are called as packages are
import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as schema

spec = importlib.util.spec_from_file_location("texts", os.path.join(HERE, "tokenizers.py"))
texts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(texts)


def write_model(base, path):
    fields = gguf.GGUFReader(base).fields

    def value(key, default=None):
        return fields[key].contents() if key in fields else default
    model = schema.ModelProto()
    kinds = value("tokenizer.ggml.token_type")
    tokens = value("tokenizer.ggml.tokens")
    unknown = value("tokenizer.ggml.unknown_token_id", 0)
    for i, (text, score) in enumerate(zip(tokens, value("tokenizer.ggml.scores"))):
        piece = model.pieces.add()
        if kinds[i] == 4:  # llama.cpp's converter writes runs of spaces as they look in text
            text = text.replace(" ", "\u2581")
        piece.piece, piece.score, piece.type = text, score, 2 if i == unknown else kinds[i]
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.byte_fallback, trainer.vocab_size = 2, True, len(tokens)
    trainer.unk_id, trainer.unk_piece = unknown, tokens[unknown]
    trainer.bos_id, trainer.eos_id = value("tokenizer.ggml.bos_token_id"), value("tokenizer.ggml.eos_token_id")
    trainer.pad_id = -1
    normalizer.name, normalizer.escape_whitespaces = "identity", True
    normalizer.add_dummy_prefix = bool(value("tokenizer.ggml.add_space_prefix", True))
    normalizer.remove_extra_whitespaces = False
    with open(path, "wb") as file:
        file.write(model.SerializeToString())
    return {i for i, kind in enumerate(kinds) if kind == 3}


def compare(ours, peer, control, strings, kind):
    spelled = [text.encode() for text in strings]
    answer, speed = texts.ask(ours, [struct.pack("<I", len(text)) + text for text in spelled])
    reader, wrong, passed = texts.Reader(answer), 0, 0
    for text in strings:
        ids, decoded = reader.ids(), reader.text()
        if control & set(ids):  # sentencepiece never makes control tokens out of text, we are asked to
            passed += 1
            continue
        theirs = peer.encode(text)
        if ids != theirs or decoded != peer.decode(theirs):
            wrong += 1
            if wrong <= 3:
                texts.show(kind, text, (ids, decoded), (theirs, peer.decode(theirs)))
    print(f"  {kind}: {wrong} of {len(strings) - passed} differ ({sum(map(len, spelled)) / 1e6:.1f} MB; ours: {speed}; "
          f"{passed} spell control tokens)")
    return wrong


def main():
    base = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp()
    path = os.path.join(folder, "tokenizer.model")
    control = write_model(base, path)
    peer = sentencepiece.SentencePieceProcessor(model_file=path)
    size = float(os.environ.get("MEGABYTES", "2")) * 1e6
    lists = (("texts", texts.mixed_texts(int(size))), ("random strings", texts.random_strings(int(size / 100))))
    wrong = 0
    for ours in (base, folder):
        print(ours)
        wrong += sum(compare(ours, peer, control, strings, kind) for kind, strings in lists)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
