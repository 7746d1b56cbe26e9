#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Golden folders from Hugging Face's transformers: makes one, or computes an existing one again.

    python3 tests/interop/golden.py make gemma3 tests/golden/gemma3
    python3 tests/interop/golden.py check tests/golden/qwen3 [FOLDER ...]

`check` shows that this script may be trusted: from the weights, adapter and token ids of a folder it
computes what the folder's expected files say, and names the largest difference of each kind (exit
status 1 above 1e-9 for losses, 1e-5 for tensors, which are stored in float32).

The model runs in float64 with eager attention. Where transformers would compute in float32 all the
same (norms, softmax, rope, an embedding's scale), the same formula is put in its place in float64.

Needs torch, transformers (made with 5.23), safetensors and tokenizers.
"""
import glob
import json
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != HERE]  # tokenizers.py here is not the package

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

ROOT = os.path.dirname(os.path.dirname(HERE))
TASKS = {"ae": 0, "lm": 1, "ft": 2}  # the order of the rows behind the memory tokens
LM_SKIP = 8
DOUBLE = torch.float64

# ---- float64 throughout ----

plain_softmax = F.softmax
F.softmax = torch.nn.functional.softmax = lambda x, dim=None, dtype=None, **_: plain_softmax(x, dim=dim)


def norm_forward(self, x):
    offset = 1.0 if type(self).__name__.startswith("Gemma") else 0.0
    eps = getattr(self, "eps", None) or self.variance_epsilon
    return (offset + self.weight) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def frequencies(rope, width):
    plain = rope["rope_theta"] ** (-torch.arange(0, width, 2, dtype=DOUBLE) / width)
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return plain
    if kind == "linear":
        return plain / rope["factor"]
    assert kind == "llama3", kind
    turns = rope["original_max_position_embeddings"] * plain / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = ((turns - low) / (high - low)).clamp(0, 1)  # of the plain frequency
    return share * plain + (1 - share) * plain / rope["factor"]


def rope_forward(self, x, position_ids, layer_type=None):
    config = self.config
    rope = config.rope_parameters
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    angles = position_ids[..., None].to(DOUBLE) * frequencies(rope[layer_type] if layer_type else rope, width)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def open_model(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DOUBLE, attn_implementation="eager").eval()
    for module in model.modules():
        name = type(module).__name__
        if name.endswith("RMSNorm"):
            type(module).forward = norm_forward
        if name.endswith("RotaryEmbedding"):
            type(module).forward = rope_forward
        if hasattr(module, "embed_scale"):
            module.embed_scale = torch.tensor(model.config.hidden_size, dtype=DOUBLE).sqrt()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


# ---- an ICAE ----

def half_even(numerator, denominator):
    """numerator / denominator to the nearest whole number, halves to the even one."""
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def slot_places(first, length, k):
    return [first + half_even((2 * j + 1) * length - k, 2 * k) for j in range(k)]


class Icae:
    def __init__(self, folder):
        settings = json.load(open(os.path.join(folder, "adapter", "icae.json")))
        lora = json.load(open(os.path.join(folder, "adapter", "adapter_config.json")))
        self.k, self.rate = settings["memory_slots"], settings["compression_rate"]
        self.is_uniform = settings["layout"] == "uniform"
        self.scale = lora["lora_alpha"] / lora["r"]
        self.model = open_model(os.path.join(folder, "model"))
        stored = load_file(os.path.join(folder, "adapter", "adapter_model.safetensors"))
        self.parameters, self.is_adapted = {}, False
        modules = dict(self.model.named_modules())
        prefix = "base_model.model."
        for name in sorted({key[len(prefix):].rsplit(".lora_", 1)[0] for key in stored}):
            a, b = (stored[f"{prefix}{name}.lora_{side}.weight"].to(DOUBLE).requires_grad_() for side in "AB")
            self.parameters[name + ".lora_A"], self.parameters[name + ".lora_B"] = a, b
            modules[name].register_forward_hook(self.hook(a, b))
        memory = load_file(os.path.join(folder, "adapter", "memory.safetensors"))["memory_token_embed.weight"]
        self.memory = self.parameters["memory_token_embed"] = memory.to(DOUBLE).requires_grad_()

    def hook(self, a, b):
        def add(_, inputs, output):
            return output + inputs[0] @ a.T @ b.T * self.scale if self.is_adapted else output
        return add

    def embed(self, ids):
        return self.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long))

    def hidden(self, embeddings, positions, is_adapted):
        self.is_adapted = is_adapted
        ones = torch.ones(1, len(positions), dtype=torch.long)
        return self.model.model(inputs_embeds=embeddings[None], attention_mask=ones, use_cache=False,
                                position_ids=torch.tensor(positions)[None]).last_hidden_state[0]

    def spans(self, ids):
        count = max(1, -(-len(ids) // (self.k * self.rate)))
        length = -(-len(ids) // count)
        return [ids[at:at + length] for at in range(0, len(ids), length)]

    def slots(self, context):
        parts = []
        for span in self.spans(context):
            n = len(span)
            places = list(range(n + self.k))
            if self.is_uniform:
                places = list(range(1, n + 1)) + slot_places(1, n, self.k)
            x = torch.cat([self.embed(span), self.memory[:self.k]])
            parts.append(self.hidden(x, places, True)[n:])
        return torch.cat(parts)

    def decoder_places(self, context, n_prefix, n_after, task):
        spans = self.spans(context)
        if not self.is_uniform:
            return list(range(n_prefix + self.k * len(spans) + n_after))
        offset = max(0, n_prefix - 1)  # the text begins at 1 + offset
        places, at = list(range(n_prefix)), 1 + offset
        for span in spans:
            places += slot_places(at, len(span), self.k)
            at += len(span)
        first = 0 if task == "ae" else len(context) + offset
        return places + list(range(first, first + n_after))

    def loss(self, sample, task):
        """Sum over the targets, their number, and the slots."""
        prefix, prompt, target, skip = [], [], sample["context"] + [self.eos], 0
        if task == "lm":
            target, skip = sample["continuation"], LM_SKIP
        if task == "ft":
            prefix, prompt, target = sample["prefix"], sample["prompt"], sample["answer"] + [self.eos]
        slots = self.slots(sample["context"])
        row = self.k + TASKS[task]
        x = torch.cat([self.embed(prefix), slots, self.memory[row:row + 1], self.embed(prompt + target)])
        places = self.decoder_places(sample["context"], len(prefix), 1 + len(prompt) + len(target), task)
        h = self.hidden(x, places, False)
        logits = self.model.lm_head(h[len(prefix) + len(slots) + len(prompt):-1])
        wanted = torch.tensor(target)
        return F.cross_entropy(logits[skip:], wanted[skip:], reduction="sum"), len(target) - skip, slots


# ---- what a folder expects ----

ADAMW = dict(lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0,
             objective="0.5*ae_loss + 0.5*lm_loss over all samples")


def train(icae, samples):
    """Ten steps of AdamW from the stored adapter."""
    parameters = list(icae.parameters.values())
    optimizer = torch.optim.AdamW(parameters, lr=ADAMW["lr"], betas=(ADAMW["beta1"], ADAMW["beta2"]),
                                  eps=ADAMW["eps"], weight_decay=ADAMW["weight_decay"])
    losses, norms = [], []
    for _ in range(10):
        total = 0
        for task in ("ae", "lm"):
            parts = [icae.loss(sample, task)[:2] for sample in samples]
            total = total + 0.5 * sum(part[0] for part in parts) / sum(part[1] for part in parts)
        optimizer.zero_grad()
        total.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, ADAMW["clip_norm"]).item())
        optimizer.step()
        losses.append(total.item())
    return losses, norms


def expectations(folder, given, tokenizer):
    """given: "base" with ids, "samples" with token ids, "tokenizer" with texts. Returns json and tensors."""
    icae = Icae(folder)
    icae.eos = icae.model.config.eos_token_id
    result, tensors = dict(given, samples=[], tokenizer=[]), {}
    with torch.no_grad():
        ids = torch.tensor(given["base"]["ids"])
        logits = icae.model(input_ids=ids[None]).logits[0]
    nll = F.cross_entropy(logits[:-1], ids[1:], reduction="none").tolist()
    result["base"], tensors["base.logits"] = dict(ids=ids.tolist(), nll=nll), logits
    sums = {task: [] for task in TASKS}
    for i, sample in enumerate(given["samples"]):
        sample = dict(sample)
        for task in TASKS:
            value, count, slots = icae.loss(sample, task)
            sums[task].append((value, count))
            sample[task] = dict(sum=value.item(), n=count)
        sample["spans"] = [len(span) for span in icae.spans(sample["context"])]
        tensors[f"{i}.slots"] = slots
        result["samples"].append(sample)
    for task, parts in sums.items():
        mean = sum(part[0] for part in parts) / sum(part[1] for part in parts)
        result[task + "_loss"] = mean.item()
        gradients = torch.autograd.grad(mean, list(icae.parameters.values()), allow_unused=True)
        for (name, parameter), gradient in zip(icae.parameters.items(), gradients):
            tensors[f"{task}.grad.{name}"] = torch.zeros_like(parameter) if gradient is None else gradient
    losses, norms = train(icae, given["samples"])
    result["adamw"] = dict(ADAMW, losses=losses, grad_norms=norms)
    for name, parameter in icae.parameters.items():
        tensors["adamw." + name] = parameter
    for entry in given["tokenizer"]:
        ids = tokenizer.encode(entry["text"], add_special_tokens=False).ids
        result["tokenizer"].append(dict(text=entry["text"], ids=ids,
                                        decoded=tokenizer.decode(ids, skip_special_tokens=False)))
    return result, {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


# ---- check ----

def numbers(value, path=""):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, f"{path}.{key}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            yield from numbers(part, f"{path}[{i}]")
    elif isinstance(value, float):
        yield path, value


def check(folder):
    expected = json.load(open(os.path.join(folder, "expected.json")))
    tensors = load_file(os.path.join(folder, "expected.safetensors"))
    tokenizer = Tokenizer.from_file(os.path.join(folder, "model", "tokenizer.json"))
    made, made_tensors = expectations(folder, expected, tokenizer)
    again = dict(numbers(made))
    loss_error = max(abs(again[path] - value) / max(abs(value), 1e-12) for path, value in numbers(expected))
    worst, where = 0.0, ""
    for name, tensor in tensors.items():
        error = (made_tensors[name] - tensor).abs().max().item() / max(tensor.abs().max().item(), 1e-30)
        if error > worst:
            worst, where = error, name
    is_same = made["tokenizer"] == expected["tokenizer"] and set(made_tensors) == set(tensors)
    print(f"{folder}: numbers {loss_error:.1e}, tensors {worst:.1e} ({where}), token ids {'equal' if is_same else 'DIFFER'}")
    return loss_error < 1e-9 and worst < 1e-5 and is_same


# ---- make ----

def english():
    """Paragraphs of this project's own documents."""
    texts = []
    for path in [os.path.join(ROOT, "README.md")] + sorted(glob.glob(os.path.join(ROOT, "docs", "*.md"))):
        texts += [part for part in open(path, encoding="utf-8").read().split("\n\n") if part.strip()]
    return texts


def gemma_tokenizer(texts, size):
    """Characters joined by merges, spaces as U+2581 without one in front, byte fallback; special tokens as Gemma has them."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    alphabet = special + [f"<0x{byte:02X}>" for byte in range(256)] + ["<start_of_turn>", "\n\n"]
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=alphabet,
                                                           show_progress=False, max_token_length=12))
    content = json.loads(learner.to_str())
    content["model"].update(fuse_unk=True, byte_fallback=True)
    added = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    for token in added:
        token["special"] = token["content"] != "\n\n"  # Gemma cuts runs of line ends out, as plain text
    content["added_tokens"] = added
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def gemma_model(tokenizer, generator):
    rope = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    config = Gemma3TextConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=72, intermediate_size=112, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=24, query_pre_attn_scalar=20, sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=rope, max_position_embeddings=2048, pad_token_id=0, eos_token_id=1, bos_token_id=2)
    model = Gemma3ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:  # w - 1 of a norm
                parameter.copy_(0.2 * noise)
            else:  # logits of a deviation near 1.7: a head that tells tokens apart
                parameter.copy_(noise * (0.2 if "embed" in name else 1.6 / parameter.shape[1] ** 0.5))
    return model


NASTY = ["", " ", "a", "  two  spaces\n\n\tand tabs ", "don't we'll I'VE 12345 3.14 1,000,000",
         "\u00dcn\u00efc\u00f6d\u00e9 \u2014 na\u00efve caf\u00e9 \ufb01 \u2167 \u00bd", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\ud55c\uad6d\uc5b4",
         "\U0001f642\U0001f469\u200d\U0001f467 emoji", "<start_of_turn>user\nhi<eos>", "x" * 300, "\u00a0nbsp\u2003em\r\nCRLF\rCR",
         "a\n\n\nb\n\n\n\nc", "\u2581marks \u2581 in \u2581\u2581text", "e\u0301 combining", "\x00\x01\x7f control"]


def write_adapter(folder, model, generator, k, rate, rank, alpha):
    tensors, targets = {}, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] not in targets:
            continue
        rows, columns = module.weight.shape
        path = f"base_model.model.{name}.lora_"
        tensors[path + "A.weight"] = torch.randn(rank, columns, generator=generator) / columns ** 0.5
        tensors[path + "B.weight"] = torch.randn(rows, rank, generator=generator) * 0.05
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"))
    memory = torch.randn(k + 3, model.config.hidden_size, generator=generator) * 1.7  # like scaled embeddings
    save_file({"memory_token_embed.weight": memory}, os.path.join(folder, "memory.safetensors"))
    peft = dict(peft_type="LORA", task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none",
                target_modules=targets, base_model_name_or_path="../model", use_rslora=False, use_dora=False,
                fan_in_fan_out=False, inference_mode=True)
    icae = dict(format="icae-adapter", version=1, memory_slots=k, compression_rate=rate, layout="uniform")
    for name, content in (("adapter_config.json", peft), ("icae.json", icae)):
        json.dump(content, open(os.path.join(folder, name), "w"), indent=1)
    return targets


def make(name, folder):
    assert name == "gemma3", f"{name}: only gemma3 can be made"
    generator = torch.Generator().manual_seed(3)
    texts = english()
    tokenizer = gemma_tokenizer(texts, 600)
    model = gemma_model(tokenizer, generator).to(torch.bfloat16)
    model.save_pretrained(os.path.join(folder, "model"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",
                            unk_token="<unk>").save_pretrained(os.path.join(folder, "model"))
    k, rate, rank, alpha = 8, 4, 4, 8
    targets = write_adapter(os.path.join(folder, "adapter"), model, generator, k, rate, rank, alpha)

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids
    long = [text for text in texts if len(text) > 500 and "|" not in text][:3]
    prefixes = [[], encode("<start_of_turn>user\n")[:3], encode("[INST]")]
    samples = []
    for text, length, prefix in zip(long, (20, 32, 75), prefixes):
        ids = encode(text)
        samples.append(dict(context=ids[:length], continuation=ids[length:length + 30], prefix=prefix,
                            prompt=encode(" What is said here?")[:9], answer=encode(" It is said that")[:6]))
    given = dict(layout="uniform", memory_slots=k, compression_rate=rate, targets=targets, rank=rank, alpha=alpha,
                 base=dict(ids=encode(long[0])[:48]), samples=samples,
                 tokenizer=[dict(text=text) for text in NASTY + [text[:400] for text in long]])
    result, tensors = expectations(folder, given, tokenizer)
    json.dump(result, open(os.path.join(folder, "expected.json"), "w"))
    save_file(tensors, os.path.join(folder, "expected.safetensors"))
    print(folder, {task: round(result[task + "_loss"], 4) for task in TASKS})


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if len(sys.argv) == 4 and sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3])
        return 0
    if len(sys.argv) >= 3 and sys.argv[1] == "check":
        return 0 if all([check(folder) for folder in sys.argv[2:]]) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
