#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tests/golden/released: small files in the layout of the released ICAE weights, and what they compute.

    python3 tests/interop/released.py make     writes v1.pt, v2.safetensors and what PyTorch makes of them
    python3 tests/interop/released.py check    computes it again and compares with what is stored

v1 is for tests/golden/llama2/model, v2 for tests/golden/mistral/model. Everything expected is computed in
float64 from the files as PyTorch reads them, on Hugging Face's models, with LoRA, memory tokens and
decoder inputs written out here as the released code has them: positions count up from 0, slots are the
hidden states behind the final norm, scale is 32 / r. Needs torch, transformers, safetensors, tokenizers.
"""

import collections
import json
import math
import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose tokenizers.py would stand before the package of that name

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent / "golden"
OUT = ROOT / "released"
SLOTS, RATE, ALPHA = 8, 4, 32
PREFIX = "icae.base_model.model."
CASES = {
    "v1": dict(model="llama2", file="v1.pt", rank=4, left="", right="", closes=True, stop=1, lm_token=True),
    "v2": dict(model="mistral", file="v2.safetensors", rank=6, left="<s>[INST]", right="[/INST]", closes=False,
               stop=2, lm_token=False),
}
SAMPLES = [
    ("The river was low, and the ferry had not run since Sunday.", "What had not run?", "The ferry."),
    ("A baker in the old town sells bread at four in the morning. The first to come are those who drive the "
     "trams, then the nurses, and when the sun is up there is nothing left but crumbs and the smell of it.",
     "Who comes first?", "The tram drivers."),
]


def make_files():
    """The tensors of a released file in their types: v1 all f32 with floats for the base's, v2 bf16 and f32."""
    OUT.mkdir(exist_ok=True)
    for name, case in CASES.items():
        random = torch.Generator().manual_seed(7 if name == "v1" else 8)
        model = AutoModelForCausalLM.from_pretrained(ROOT / case["model"] / "model")
        half = torch.float32 if name == "v1" else torch.bfloat16
        state = collections.OrderedDict()
        for key, weight in model.state_dict().items():
            parts = key.split(".")
            if name == "v1":
                state[PREFIX + key] = 0.0
            if parts[-2] in ("q_proj", "v_proj"):
                path = PREFIX + key[: -len(".weight")]
                rows, cols = weight.shape
                a = torch.randn(case["rank"], cols, generator=random) / math.sqrt(cols)
                b = torch.randn(rows, case["rank"], generator=random) * 0.05
                state[path + ".lora_A.default.weight"] = a.to(half)
                state[path + ".lora_B.default.weight"] = b.to(half)
            if name == "v1" and parts[-2] == "o_proj":  # a buffer of older transformers, among the released keys
                state[PREFIX + ".".join(parts[:-2]) + ".rotary_emb.inv_freq"] = 0.0
        width = model.config.hidden_size
        state["memory_token_embed.weight"] = torch.randn(SLOTS + 3, width, generator=random)
        if name == "v1":
            torch.save(state, OUT / case["file"])
        else:
            save_file(dict(state), OUT / case["file"])


class LoraLinear(torch.nn.Module):
    def __init__(self, inner, a, b, scale, switch):
        super().__init__()
        self.inner, self.a, self.b, self.scale, self.switch = inner, a, b, scale, switch

    def forward(self, x):
        y = self.inner(x)
        return y + self.scale * (x @ self.a.T @ self.b.T) if self.switch["on"] else y


class Icae:
    def __init__(self, case):
        path = OUT / case["file"]
        state = torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)
        self.case = case
        self.model = AutoModelForCausalLM.from_pretrained(
            ROOT / case["model"] / "model", attn_implementation="eager", dtype=torch.float32).double().eval()
        self.table = state["memory_token_embed.weight"].double()
        self.switch = {"on": False}
        for i, layer in enumerate(self.model.model.layers):
            for name in ("q_proj", "v_proj"):
                key = f"{PREFIX}model.layers.{i}.self_attn.{name}"
                a = state[key + ".lora_A.default.weight"].double()
                b = state[key + ".lora_B.default.weight"].double()
                inner = getattr(layer.self_attn, name)
                setattr(layer.self_attn, name, LoraLinear(inner, a, b, ALPHA / a.shape[0], self.switch))

    def embed(self, ids):
        return self.model.model.embed_tokens(torch.tensor(ids, dtype=torch.long))

    def hidden(self, x, with_lora):
        self.switch["on"] = with_lora
        positions = torch.arange(len(x))[None]
        mask = torch.ones(1, len(x), dtype=torch.long)
        out = self.model.model(inputs_embeds=x[None], position_ids=positions, attention_mask=mask, use_cache=False)
        return out.last_hidden_state[0]

    def slots(self, ids):
        spans = math.ceil(len(ids) / (SLOTS * RATE))
        length = math.ceil(len(ids) / spans)
        made = []
        for start in range(0, len(ids), length):
            x = torch.cat([self.embed(ids[start : start + length]), self.table[:SLOTS]])
            made.append(self.hidden(x, True)[-SLOTS:])
        return torch.cat(made)

    def task(self, name):
        return self.table[SLOTS + ["ae", "lm", "ft"].index(name)][None]

    def context(self, slots, task, prefix, prompt):
        parts = [self.embed(prefix)] if prefix else []
        parts.append(slots)
        if task != "lm" or self.case["lm_token"]:
            parts.append(self.task(task))
        if prompt:
            parts.append(self.embed(prompt))
        if task == "ft" and self.case["closes"]:
            parts.append(self.task("ft"))
        return torch.cat(parts)

    def loss(self, before, target, skip=0):
        x = torch.cat([before, self.embed(target[:-1])]) if len(target) > 1 else before
        logits = self.model.lm_head(self.hidden(x, False)[len(before) - 1 :])
        nll = -torch.log_softmax(logits, -1)[range(len(target)), target]
        return {"sum": float(nll[skip:].sum()), "n": len(target) - skip}

    def greedy(self, before, count):
        ids = []
        while len(ids) < count:
            x = torch.cat([before, self.embed(ids)]) if ids else before
            best = int(self.model.lm_head(self.hidden(x, False)[-1]).argmax())
            if best == self.case["stop"]:
                break
            ids.append(best)
        return ids


@torch.no_grad()
def compute():
    expected, tensors = {"slots": SLOTS, "rate": RATE, "alpha": ALPHA}, {}
    for name, case in CASES.items():
        icae = Icae(case)
        tokenizer = Tokenizer.from_file(str(ROOT / case["model"] / "model" / "tokenizer.json"))

        def ids_of(text):
            return tokenizer.encode(text, add_special_tokens=False).ids if text else []

        prefix, suffix, samples = ids_of(case["left"]), ids_of(case["right"]), []
        for i, (text, question, answer) in enumerate(SAMPLES):
            context, prompt = [1] + ids_of(text), ids_of(question) + suffix  # 1: both tokenizers' BOS
            slots = icae.slots(context)
            tensors[f"{name}.{i}.slots"] = slots.float()
            reply = ids_of(answer) + [case["stop"]]
            following = ids_of(SAMPLES[1 - i][0])[:20]
            ae = icae.context(slots, "ae", [], [])
            ft = icae.context(slots, "ft", prefix, prompt)
            samples.append({
                "text": text, "question": question, "context": context, "prompt": prompt, "answer": reply,
                "continuation": following, "ae": icae.loss(ae, context + [case["stop"]]),
                "lm": icae.loss(icae.context(slots, "lm", [], []), following, 8), "ft": icae.loss(ft, reply),
                "restored": icae.greedy(ae, 12), "answered": icae.greedy(ft, 12),
            })
        expected[name] = {"model": case["model"], "file": case["file"], "rank": case["rank"], "prefix": prefix,
                          "samples": samples}
    return expected, {key: value.contiguous() for key, value in tensors.items()}


def check(expected, tensors):
    stored, slots = json.loads((OUT / "released.json").read_text()), load_file(OUT / "slots.safetensors")
    worst = max(float((slots[key] - value).abs().max()) for key, value in tensors.items())
    for name in CASES:
        for old, new in zip(stored[name]["samples"], expected[name]["samples"]):
            for key in new:
                if isinstance(new[key], dict):
                    worst = max(worst, abs(old[key]["sum"] - new[key]["sum"]))
                elif old[key] != new[key]:
                    sys.exit(f"{name}: {key} differs")
    print(f"largest difference {worst:.2e}")
    sys.exit(worst > 1e-5)


def main():
    if sys.argv[1:] == ["make"]:
        make_files()
    elif sys.argv[1:] != ["check"]:
        sys.exit(__doc__)
    expected, tensors = compute()
    if sys.argv[1] == "check":
        check(expected, tensors)
    (OUT / "released.json").write_text(json.dumps(expected, indent=1) + "\n")
    save_file(tensors, OUT / "slots.safetensors")


main()
