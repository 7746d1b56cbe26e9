#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""BLEU-4, ROUGE-L, token F1 and exact match against sacrebleu, rouge-score and SQuAD's rules.

    ICAE_METRICS=build/release/interop-metrics python3 tests/interop/metrics.py check [PAIRS]
    python3 tests/interop/metrics.py write > tests/golden/answers.json

Needs `pip install sacrebleu rouge-score`. The pairs are made from the sentences and characters below by
seeded edits (words dropped, doubled, swapped, re-cased; marks, numbers and foreign characters put in), so
that they are the same everywhere. SQuAD's script 2.0 is not on PyPI; its rules are written out here with
Python's own re, string and str.lower: small letters, no string.punctuation, no \\b(a|an|the)\\b.
"""
import collections
import json
import os
import random
import re
import string
import subprocess
import sys

import sacrebleu
from rouge_score import rouge_scorer

LIMIT = 1e-6
SENTENCES = """The council met on 14 March 1987 and voted 7-2 for the bridge.
Who paid the $3,250.75? The mayor's brother-in-law did, it seems.
A bee, an ant and the owl: none of them had ever seen a U.N. officer before.
Das Straßenfest in Zürich begann um 18:30 Uhr; über 1.000 Gäste kamen.
Η Αθήνα είναι η πρωτεύουσα της ΕΛΛΑΔΑΣ και ο ΟΔΥΣΣΕΥΣ γύρισε στην Ιθάκη.
Москва — столица России, а Волга впадает в Каспийское море.
東京は日本の首都です。人口は約1400万人。
Ça coûte 12,50 € — c'est l'hôtel d'à côté, n'est-ce pas?
İstanbul'da ılık bir akşam; IĞDIR daha soğuk.
x = (a + b) * c / d_2 - e^3 != 0 && !done || flag
The answer is: no. Nobody knew what the A-team (a small one) wanted with an X-ray.
Visit http://example.org/a?b=1&c=2 or write to the.office@example.org!
It was the best of times, it was the worst of times, it was the age of wisdom.
In 2001 the U.S. spent 3.7 % of its budget; in 2002, 4.1 %.
The Kelvin sign is K, the Angstrom sign is Å, and fine ligatures exist.
مرحبا بالعالم 123 — नमस्ते दुनिया ४५६
Yes
no
42
The the the a an the
""".strip().split("\n")
EXTRAS = ["", " ", "  \t", "\n", "...", "'", "\u2019", "\u00a0", "\u3000", "\u001c", "the", "The", "a", "An", "½", "Ⅻ",
          "é", "e\u0301", "Σ", "ΣΑΣ", "ΑΣ.", "ΑΣ'Α", "İ", "ǅ", "ß", "_a_", "a–b", "–the–", "(the)", "3.14", "-5", "1,000",
          "😀", "👩‍🚀", "&quot;", "&amp;lt;", "<skipped>", "-\n", "an–", "thé", "the\u0301", "K"]


def edited(text, rng):
    words = text.split(" ")
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 8])):
        i = rng.randrange(len(words)) if words else 0
        kind = rng.randrange(7)
        if kind == 0 and words:
            del words[i]
        elif kind == 1:
            words.insert(i, rng.choice(EXTRAS))
        elif kind == 2 and words:
            words[i] = rng.choice([str.upper, str.lower, str.title, str.swapcase])(words[i])
        elif kind == 3 and words:
            words[i] += rng.choice(EXTRAS)
        elif kind == 4 and words:
            j = rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
        elif kind == 5 and words:
            words.insert(i, words[i])
        elif words:
            words = words[:i]
    return rng.choice([" ", " ", " ", "  ", "\n"]).join(words)


def make_pairs(count):
    rng = random.Random(17)
    pairs = [(a, b) for a in ["", " ", "the", "Yes", "."] for b in ["", "The", "yes.", "!"]]
    while len(pairs) < count:
        one = rng.choice(SENTENCES)
        other = one if rng.random() < 0.8 else rng.choice(SENTENCES)
        pairs.append((edited(one, rng), edited(other, rng)))
    return pairs[:count]


def normalize(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad(answer, reference):
    a, b = normalize(answer).split(), normalize(reference).split()
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    if not a or not b:
        f1 = float(a == b)
    elif not common:
        f1 = 0.0
    else:
        precision, recall = common / len(a), common / len(b)
        f1 = 2 * precision * recall / (precision + recall)
    return f1, int(normalize(answer) == normalize(reference))


def scores(pairs):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rows = [(sacrebleu.sentence_bleu(a, [b]).score, scorer.score(b, a)["rougeL"].fmeasure, *squad(a, b))
            for a, b in pairs]
    corpus = sacrebleu.corpus_bleu([a for a, _ in pairs], [[b for _, b in pairs]]).score
    return rows, corpus


def write():
    pairs = make_pairs(140)
    rows, corpus = scores(pairs)
    print('{"made_with": "tests/interop/metrics.py write: sacrebleu %s, rouge-score 0.1.2, SQuAD 2.0\'s rules",' %
          sacrebleu.__version__)
    print(' "bleu": %r,\n "pairs": [' % corpus)
    lines = [json.dumps({"answer": a, "reference": b, "sentence_bleu": row[0], "rouge_l": row[1], "f1": row[2],
                         "exact": row[3], "normalized": normalize(a)}, ensure_ascii=False)
             for (a, b), row in zip(pairs, rows)]
    print(",\n".join("  " + line for line in lines))
    print(" ]}")


def check(count):
    pairs = make_pairs(count)
    lines = "".join(json.dumps({"answer": a, "reference": b}) + "\n" for a, b in pairs)
    printed = subprocess.run([os.environ["ICAE_METRICS"]], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    ours = printed.stdout.decode().split("\n")
    rows, corpus = scores(pairs)
    worst, failed = [0.0] * 4, 0
    for i, row in enumerate(rows):
        mine = [float(x) for x in ours[i].split()]
        errors = [abs(x - y) for x, y in zip(mine, row)]
        worst = [max(a, b) for a, b in zip(worst, errors)]
        if max(errors) > LIMIT:
            failed += 1
            print(f"FAILED {pairs[i]!r}: {mine}, expected {row}")
    corpus_error = abs(float(ours[len(rows)]) - corpus)
    failed += corpus_error > LIMIT
    for name, error in zip(["sentence BLEU", "ROUGE-L", "token F1", "exact match"], worst):
        print(f"{name:14} {len(rows)} pairs, largest error {error:.1e}")
    print(f"{'corpus BLEU':14} {corpus:.4f}, error {corpus_error:.1e}")
    print(f"{failed} failed")
    return failed > 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write()
    elif sys.argv[1:2] == ["check"]:
        sys.exit(check(int(sys.argv[2]) if len(sys.argv) > 2 else 1000))
    else:
        sys.exit("usage: metrics.py check [PAIRS] | write")
