#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Time and memory of a training step on paper, for bases and machines that were not at hand.

    tests/bench/scaling.py        prints the tables of docs/performance.md, and the check against measured steps

    t = W_f / (n s P) + (W_a + W_l) / (n s' F) + M / B

W_f   4 FLOP a number of the linear layers for every packed token, 4 V D for every row with loss
W_a   attention, 12 s D L a token with s = half the sequence;  W_l  LoRA, 6 a trained number and encoder token
P, F  what a core multiplies, in the type of the products and in float;  s, s'  the shares of it that are reached
M     bytes that norms, rope, activations, residuals and AdamW move, and the weights, read once a pass
B     memory bandwidth; n cores
"""

from dataclasses import dataclass

FLOAT = 201e9 / 2  # a core, FLOP/s: OpenBLAS's sgemm on two cores of the machine that was measured
BF16 = 473e9 / 2  # the same, bfloat16 on registers
SHARE = {"f32": 1.0, "bf16": 0.765}  # of products with frozen weights, widening and rounding included
REST_SHARE = 0.936  # of FLOAT, for attention and LoRA
CORE_BANDWIDTH = 10e9  # bytes/s that one core moves


@dataclass
class Base:
    name: str
    D: int
    L: int
    F: int
    heads: int
    kv_heads: int
    head: int
    V: int
    own_head: bool

    @property
    def q(self):
        return self.heads * self.head

    @property
    def k(self):
        return self.kv_heads * self.head

    @property
    def linear(self):
        return self.L * (2 * self.D * (self.q + self.k) + 3 * self.D * self.F)

    @property
    def numbers(self):
        return self.linear + self.V * self.D * (2 if self.own_head else 1)


@dataclass
class Work:
    texts: int
    tokens: int
    slots: int
    rank: int  # on q and v

    @property
    def encoder(self):
        return self.texts * (self.tokens + self.slots)

    @property
    def decoder(self):
        return self.texts * (self.slots + 1 + self.tokens)

    @property
    def targets(self):
        return self.texts * (self.tokens + 1)


SMOL = Base("SmolLM2-135M", 576, 30, 1536, 9, 3, 64, 49152, False)
BASES = (
    Base("1B (Llama 3.2)", 2048, 16, 8192, 32, 8, 64, 128256, False),
    Base("7B (Llama 2)", 4096, 32, 11008, 32, 32, 128, 32000, True),
    Base("13B (Llama 2)", 5120, 40, 13824, 40, 40, 128, 32000, True),
)
MEASURED = Work(8, 128, 32, 32)
PAPER = Work(8, 512, 128, 128)
MACHINES = ((8, 60e9), (32, 200e9), (64, 300e9))  # cores, bytes/s
WEIGHT_BYTES = {"Q4_1": 0.625, "bf16": 2}


def trained(base, work):
    return work.rank * base.L * (2 * base.D + base.q + base.k)


def flop(base, work):
    packed = work.encoder + work.decoder
    frozen = 4 * base.linear * packed + 4 * base.V * base.D * work.targets
    lengths = (work.tokens + work.slots, work.tokens + work.slots + 1)
    attention = 12 * work.texts * sum(n * n / 2 for n in lengths) * base.q * base.L
    return frozen, attention, 6 * trained(base, work) * work.encoder


def moved(base, work, weight):
    """Floats read and written a token and layer: 20 D (norms, residuals and their gradients), 4 (q + k) for
    rope there and back, 8 F for the gated activation there and back."""
    per_token = 4 * base.L * (20 * base.D + 4 * (base.q + base.k) + 8 * base.F)
    passes = 4 * WEIGHT_BYTES[weight] * base.numbers
    return (work.encoder + work.decoder) * per_token + passes + 28 * trained(base, work)


def seconds(base, work, compute, cores, bandwidth, weight="Q4_1", recomputed=False):
    frozen, attention, lora = flop(base, work)
    if recomputed:  # the forward again: a half of linear, a third of the others, nothing of the head
        head = 4 * base.V * base.D * work.targets
        frozen += (frozen - head) / 2
        attention, lora = attention * 4 / 3, lora * 4 / 3
    peak = cores * (BF16 if compute == "bf16" else FLOAT)
    return (
        frozen / (SHARE[compute] * peak)
        + (attention + lora) / (REST_SHARE * cores * FLOAT)
        + moved(base, work, weight) / bandwidth
    )


def memory(base, work, weight, recomputed):
    """Weights; values, gradients and moments; what backward keeps (f32), one chunk of logits with it."""
    kept = 2 * (base.D + 1) + 2 * base.q + 2 * base.k + base.heads + 2 * base.F
    lora = base.D + 2 * work.rank
    blocks = base.L * ((work.encoder + work.decoder) * kept + work.encoder * lora)
    late = work.decoder * (2 * base.D + 3 * base.F)
    if recomputed:
        blocks = base.L * (work.encoder + work.decoder) * base.D
        late += work.decoder * kept
    tensors = 4 * (blocks + late + 2 * work.targets * base.D) + (64 << 20)
    return WEIGHT_BYTES[weight] * base.numbers + 16 * trained(base, work) + tensors + 20e6


def main():
    print("| measured | on paper | measured | off |\n| --- | --- | --- | --- |")
    tokens = MEASURED.texts * MEASURED.tokens
    for compute, cores, low, high in (
        ("f32", 2, tokens / 153, tokens / 152),
        ("bf16", 2, tokens / 259, tokens / 246),
        ("f32", 1, 13.3, 13.9),
        ("bf16", 1, 7.86, 8.17),
    ):
        t, middle = seconds(SMOL, MEASURED, compute, cores, CORE_BANDWIDTH * cores), (low + high) / 2
        print(f"| {compute}, {cores} cores | {t:.2f} s | {low:.2f} to {high:.2f} s | {100 * (t / middle - 1):+.1f} % |")
        assert abs(t / middle - 1) < 0.1
    used, seen = memory(SMOL, MEASURED, "Q4_1", False), 2.02 * 2**30
    print(f"| memory, f32 | {used / 1e9:.2f} GB | {seen / 1e9:.2f} GB | {100 * (used / seen - 1):+.1f} % |")
    assert abs(used / seen - 1) < 0.1
    print()
    heads = [f"{n} cores {c}" for n, _ in MACHINES for c in ("f32", "bf16")]
    print("| base | TFLOP | " + " | ".join(heads) + " |")
    print("| --- " * (2 + len(heads)) + "|")
    for base in BASES:
        cells = [f"{seconds(base, PAPER, c, n, b):.0f} s" for n, b in MACHINES for c in ("f32", "bf16")]
        print(f"| {base.name} | {sum(flop(base, PAPER)) / 1e12:.0f} | " + " | ".join(cells) + " |")
    print("\n| base | batch 8, kept | batch 8, recomputed | batch 1, kept | batch 1, recomputed |")
    print("| --- " * 5 + "|")
    for base in BASES:
        one = Work(1, PAPER.tokens, PAPER.slots, PAPER.rank)
        cells = [
            " / ".join(f"{memory(base, w, weight, again) / 1e9:.1f}" for weight in WEIGHT_BYTES)
            for w in (PAPER, one)
            for again in (False, True)
        ]
        print(f"| {base.name} | " + " | ".join(cells) + " |")
    print("\n| share of the time | products | head | attention | LoRA | bytes moved |\n" + "| --- " * 6 + "|")
    for base in (SMOL, *BASES):
        work, n, b = (MEASURED, 2, 2 * CORE_BANDWIDTH) if base is SMOL else (PAPER, *MACHINES[1])
        frozen, attention, lora = flop(base, work)
        head = 4 * base.V * base.D * work.targets
        rate, rest = SHARE["bf16"] * n * BF16, REST_SHARE * n * FLOAT
        parts = [(frozen - head) / rate, head / rate, attention / rest, lora / rest, moved(base, work, "Q4_1") / b]
        print(f"| {base.name}, bf16, {n} cores | " + " | ".join(f"{100 * p / sum(parts):.0f} %" for p in parts) + " |")


if __name__ == "__main__":
    main()
