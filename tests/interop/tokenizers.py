#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares this project's token ids and decoded texts with those of Hugging Face's tokenizers.

    make interop-tokenizers          or    python3 tests/interop/tokenizers.py [FOLDER ...]

For every tokenizer (those of tests/golden, and for each family a larger one trained here): 10 MB of
text in more than 12 scripts, 100,000 random Unicode strings, and 100,000 random runs of ids, which
are decoded at once and as a stream. Says how many differ; exit status 1 when any does.

Needs the package `tokenizers` (made with 0.23.3); installs it from PyPI into build/interop when it
is missing. Reads data/texts where `make texts` has put it, else the files of this repository.
"""
import glob
import json
import os
import random
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORK = os.path.join(ROOT, "build", "interop")
TOOL = os.environ.get("ICAE_TOKENIZE", os.path.join(ROOT, "build", "release", "interop-tokenize"))
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != os.path.dirname(os.path.abspath(__file__))]
sys.path.insert(0, WORK)
try:
    import tokenizers
except ImportError:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", WORK, "tokenizers"], check=True)
    import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SCRIPTS = {  # first and last letter of each, and how many make a word
    "Latin": (0xC0, 0x24F), "Greek": (0x391, 0x3C9), "Cyrillic": (0x410, 0x44F), "Armenian": (0x561, 0x586),
    "Hebrew": (0x5D0, 0x5EA), "Arabic": (0x620, 0x64A), "Devanagari": (0x901, 0x94D), "Bengali": (0x985, 0x9CD),
    "Tamil": (0xB85, 0xBCD), "Thai": (0xE01, 0xE4D), "Tibetan": (0xF40, 0xF7E), "Georgian": (0x10D0, 0x10F0),
    "Ethiopic": (0x1200, 0x1270), "Khmer": (0x1780, 0x17D3), "Hiragana": (0x3041, 0x3096),
    "Katakana": (0x30A1, 0x30FA), "Han": (0x4E00, 0x5200), "Hangul": (0xAC00, 0xAE00), "Jamo": (0x1100, 0x11FF),
    "Gothic": (0x10330, 0x1034A), "Emoji": (0x1F600, 0x1F64F), "Marks": (0x300, 0x36F),
}
SIGNS = [" ", " ", " ", "  ", ", ", ". ", ".\n", "\n\n", "\r\n", "\t", " 42 ", "1234567", "'s ", "'LL ", "\u3002", "\u060c ",
         "\u0964 ", "\u00a0", "\u3000", "\u2581", "<s>", "</s>", "<|im_end|>", "\u017f", "'\u017f", "'re", "\u00bd", "\u0663"]


def random_word(rng, weird):
    if rng.random() < weird:
        return "".join(chr(random_point(rng)) for _ in range(rng.randint(1, 5)))
    first, last = SCRIPTS[rng.choice(list(SCRIPTS))]
    span = min(last - first, 12)  # few letters, so that words come again and merges are learned
    base = first + rng.randrange(0, last - first - span + 1, 1 + span // 2)
    return "".join(chr(base + int(rng.random() ** 2 * span)) for _ in range(rng.randint(1, 9)))


def random_point(rng):
    while True:
        point = rng.randrange(rng.choice([0x80, 0x3000, 0x110000]))
        if not 0xD800 <= point < 0xE000:
            return point


def english(limit):
    parts, size = [], 0
    for path in sorted(glob.glob(os.path.join(ROOT, "data", "texts", "*.jsonl"))):
        for line in open(path, encoding="utf-8"):
            parts.append(json.loads(line).get("text", ""))
            size += len(parts[-1].encode())
            if size > limit:
                return parts
    for pattern in ("src/*/*.c", "docs/*.md", "include/icae/*.h"):
        for path in sorted(glob.glob(os.path.join(ROOT, pattern))):
            parts.append(open(path, encoding="utf-8").read())
    return parts


def mixed_texts(limit):
    rng, texts = random.Random(1), english(limit // 2)
    size = sum(len(text.encode()) for text in texts)
    while size < limit:
        text = "".join(random_word(rng, 0.05) + rng.choice(SIGNS) for _ in range(rng.randint(20, 600)))
        texts.append(text)
        size += len(text.encode())
    return texts


def random_strings(count):
    rng = random.Random(2)
    return ["".join(rng.choice(SIGNS) if rng.random() < 0.4 else random_word(rng, 0.7)
                    for _ in range(rng.randint(0, 12))) for _ in range(count)]


# ---- tokenizers of each family ----

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_bytelevel(texts, numbers, nfc):
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT.replace("NUMBERS", numbers)), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=["<s>", "</s>", "<|im_end|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())


def train_sentencepiece(texts):
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=8000, special_tokens=special, show_progress=False,
                                                           limit_alphabet=600))
    result = json.loads(learner.to_str())
    result["added_tokens"] = [token for token in result["added_tokens"] if token["id"] < 3]
    result["model"].update(fuse_unk=True, byte_fallback=True)
    result["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    result["pre_tokenizer"] = None
    steps = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
             {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    result["decoder"] = {"type": "Sequence", "decoders": steps}
    return result


def variants_of_sentencepiece(base):
    """What is found in the wild: Metaspace instead of normalizers, no prefix, added tokens that are normalized."""
    replace = base["normalizer"]["normalizers"][1]
    decoders_without_strip = {"type": "Sequence", "decoders": base["decoder"]["decoders"][:3]}

    def metaspace(scheme, split):
        return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}
    yield "llama2", base
    normalized = [dict(token, normalized=True) for token in base["added_tokens"]]
    yield "llama2-normalized-added", dict(base, added_tokens=normalized)
    yield "mistral-first", dict(base, normalizer=None, pre_tokenizer=metaspace("first", False))
    yield "metaspace-always-split", dict(base, normalizer=None, pre_tokenizer=metaspace("always", True))
    yield "metaspace-never", dict(base, normalizer=None, pre_tokenizer=metaspace("never", False))
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    yield "gemma", dict(base, normalizer=replace, pre_tokenizer=split, decoder=decoders_without_strip)
    vocab = {token: i for token, i in base["model"]["vocab"].items() if token not in ("<0xE2>", "<0xF0>")}
    yield "bytes-missing", dict(base, model=dict(base["model"], vocab=vocab))
    yield "no-fallback", dict(base, model=dict(base["model"], byte_fallback=False, fuse_unk=False))


def trained_folders(texts):
    sample = random.Random(3).sample(texts, min(len(texts), 600))
    made = [("llama3", train_bytelevel(sample, r"\p{N}{1,3}", False)), ("qwen2", train_bytelevel(sample, r"\p{N}", True))]
    made += variants_of_sentencepiece(train_sentencepiece(sample))
    for name, content in made:
        folder = os.path.join(WORK, "models", name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False)
        yield folder


# ---- comparing ----

def ask(folder, records, *more):
    done = subprocess.run([TOOL, folder, *more], input=b"".join(records), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.stderr.decode())
    return memoryview(done.stdout), done.stderr.decode().strip()


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def record(self, each):
        count, = struct.unpack_from("<I", self.data, self.at)
        self.at += 4 + count * each
        return self.data[self.at - count * each:self.at]

    def ids(self):
        return list(self.record(4).cast("i"))

    def text(self):
        return bytes(self.record(1)).decode()


def show(kind, source, ours, theirs):
    print(f"    {kind}: {source!r:.300}\n      ours   {ours!r:.300}\n      theirs {theirs!r:.300}")


def compare(folder, texts, kind):
    """Encodes and decodes; returns the number of texts that differ."""
    peer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    spelled = [text.encode() for text in texts]
    answer, speed = ask(folder, [struct.pack("<I", len(text)) + text for text in spelled])
    reader, wrong = Reader(answer), 0
    for start in range(0, len(texts), 256):
        part = texts[start:start + 256]
        for text, theirs in zip(part, peer.encode_batch(part, add_special_tokens=False)):
            ids, decoded = reader.ids(), reader.text()
            if ids != theirs.ids or decoded != peer.decode(theirs.ids, skip_special_tokens=False):
                wrong += 1
                if wrong <= 3:
                    show(kind, text, (ids, decoded), (theirs.ids, peer.decode(theirs.ids, skip_special_tokens=False)))
    print(f"  {kind}: {wrong} of {len(texts)} differ ({sum(map(len, spelled)) / 1e6:.1f} MB; ours: {speed})")
    return wrong


def compare_decoding(folder, count):
    peer, rng = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), random.Random(4)
    size = peer.get_vocab_size()
    fallback = [i for i in (peer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)) if i is not None] or [0]
    runs = [[rng.choice(fallback) if rng.random() < 0.3 else rng.randrange(size) for _ in range(rng.randint(0, 12))]
            for _ in range(count)]
    answer, _ = ask(folder, [struct.pack(f"<I{len(ids)}i", len(ids), *ids) for ids in runs], "reverse")
    reader, wrong = Reader(answer), 0
    for ids, theirs in zip(runs, peer.decode_batch(runs, skip_special_tokens=False)):
        ours, streamed = reader.text(), reader.text()
        if ours != theirs or streamed != theirs:
            wrong += 1
            if wrong <= 3:
                show("decoding", ids, (ours, streamed), theirs)
    print(f"  decoding: {wrong} of {count} runs of ids differ")
    return wrong


def main():
    limit = int(float(os.environ.get("MEGABYTES", "10")) * 1e6)
    count = int(os.environ.get("STRINGS", "100000"))
    os.makedirs(WORK, exist_ok=True)
    texts, strings = mixed_texts(limit), random_strings(count)
    folders = sys.argv[1:] or sorted(glob.glob(os.path.join(ROOT, "tests/golden/*/model")))
    folders = [folder for folder in folders if os.path.exists(os.path.join(folder, "tokenizer.json"))]
    if not sys.argv[1:]:
        folders += trained_folders(texts)
    print(f"tokenizers {tokenizers.__version__}, {len(folders)} tokenizers")
    wrong = 0
    for folder in folders:
        print(os.path.relpath(folder, ROOT), flush=True)
        wrong += compare(folder, texts, "texts") + compare(folder, strings, "random strings")
        wrong += compare_decoding(folder, count)
    print(f"{wrong} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
