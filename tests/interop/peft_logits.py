#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Exports adapters and slots and lets Hugging Face's transformers and peft use them.

    make interop-peft          or    python3 tests/interop/peft_logits.py [--base FILE.gguf --adapter FOLDER --text FILE]

1. Every golden adapter, exported with `icae convert`, is opened by AutoPeftModelForCausalLM (which finds the base by
   base_model_name_or_path). Logits of the golden ids, adapter on and off, must agree with ours to 1e-4 of the largest.
2. What peft itself saves again comes back through `icae convert` with equal tensors.
3. Slots exported for inputs_embeds: greedy decoding by transformers must give the text of `icae reconstruct`.
4. Where the layout allows it (append), the same as .pt: torch.load must give the same rows.

With --base and --adapter the same for a real base, a GGUF that transformers dequantises, and a text.
The code of 1 and 3 is that of docs/interop.md, taken from there. Needs torch, transformers, peft, safetensors, gguf (made
with 2.8, 5.23, 0.21, 0.8, 0.19). Exit status 1 on any failure.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

# Files here are called as packages are.
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != os.path.dirname(os.path.abspath(__file__))]
import numpy as np
import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ICAE = os.environ.get("ICAE", os.path.join(ROOT, "build", "release", "icae"))
LOGITS = os.environ.get("ICAE_LOGITS", os.path.join(ROOT, "build", "release", "interop-logits"))
LIMIT = 1e-4
PASSAGE = "It was a bright cold day in April, and the clocks were striking thirteen. Nobody had looked."
failures = 0


def report(what, good, detail):
    global failures
    failures += not good
    print(f"{'ok  ' if good else 'FAIL'} {what}: {detail}", flush=True)


def run(*arguments):
    return subprocess.run([ICAE, *arguments], check=True, capture_output=True, text=True).stdout


def our_logits(ids, vocabulary, *models):
    data = np.asarray(ids, dtype=np.int32).tobytes()
    out = subprocess.run([LOGITS, *models], input=data, check=True, capture_output=True).stdout
    return np.frombuffer(out, dtype=np.float32).reshape(len(ids), vocabulary)


def their_logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits[0].float().numpy()


def check_logits(name, base, adapter, peft_folder, peft_model, ids):
    theirs = their_logits(peft_model, ids)
    with peft_model.disable_adapter():
        plain = their_logits(peft_model, ids)
    ours = our_logits(ids, theirs.shape[1], base, adapter)
    ours_plain = our_logits(ids, theirs.shape[1], base)
    largest = np.abs(theirs).max()
    error, error_plain = np.abs(ours - theirs).max() / largest, np.abs(ours_plain - plain).max() / largest
    effect = np.abs(theirs - plain).max() / largest  # so that a LoRA that is ignored cannot pass
    report(f"{name} logits", error < LIMIT and error_plain < LIMIT and effect > 10 * LIMIT,
           f"with LoRA {error:.1e}, without {error_plain:.1e}; the LoRA changes them by {effect:.1e}")


def check_return(name, base, adapter, exported, peft_model, work):
    saved, back = os.path.join(work, "saved"), os.path.join(work, "back")
    peft_model.save_pretrained(saved)
    shutil.copy(os.path.join(exported, "memory.safetensors"), saved)
    run("convert", "-q", "-m", base, saved, back)
    equal = True
    for file in ("adapter_model.safetensors", "memory.safetensors"):
        a, b = load_file(os.path.join(adapter, file)), load_file(os.path.join(back, file))
        equal = equal and a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    report(f"{name} saved by peft", equal, "comes back with equal tensors" if equal else "differs")


def example(heading, **changes):
    """The first Python block below a heading of docs/interop.md, some of its words replaced."""
    with open(os.path.join(ROOT, "docs", "interop.md"), encoding="utf-8") as file:
        code = file.read().split(f"\n{heading}\n")[1].split("```python\n")[1].split("```")[0]
    for word, other in changes.values():
        assert word in code, f"docs/interop.md, {heading}: no {word}"
        code = code.replace(word, other)
    return compile(code, f"docs/interop.md, {heading}", "exec")


def reconstruct(model, tokenizer, path, length):
    """Runs the documented loop; returns its ids."""
    names = {"model": model, "tokenizer": tokenizer, "torch": torch, "safe_open": safe_open, "print": lambda text: None}
    with torch.no_grad():
        exec(example("### transformers", path=("notes.safetensors", path), limit=("512", str(length))), names)
    return names["ids"]


def check_slots(name, base, adapter, model, tokenizer, text, work):
    with open(os.path.join(work, "x.txt"), "w", encoding="utf-8") as file:
        file.write(text)
    slots, embeds = os.path.join(work, "x.slots"), os.path.join(work, "x.safetensors")
    run("compress", "-q", "-m", base, "-a", adapter, "-o", slots, os.path.join(work, "x.txt"))
    run("convert", "-q", "-m", base, "-a", adapter, slots, embeds)
    ours = json.loads(run("reconstruct", "-q", "--json", "-m", base, "-a", adapter, "-n", "64", slots))
    ids = reconstruct(model, tokenizer, embeds, 64)
    theirs = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    good = theirs == ours["text"] and len(ids) == ours["generated_tokens"]
    detail = f"{len(ids)} tokens, restored text equal"
    about = json.loads(run("inspect", "--json", embeds))
    if about["layout"] == "append":
        tensor = os.path.join(work, "x.pt")
        for dtype, kind in (("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)):
            run("convert", "-q", "--force", "--dtype", dtype, "-m", base, "-a", adapter, slots, tensor)
            loaded, wanted = torch.load(tensor, weights_only=True), load_file(embeds)["inputs_embeds"].to(kind)
            report(f"{name} {dtype} .pt", loaded.dtype == kind and torch.equal(loaded, wanted), f"{tuple(loaded.shape)}")
    report(f"{name} slots", good, detail if good else f"\n  ours   {ours['text']!r}\n  theirs {theirs!r}")


def golden(name):
    folder = os.path.join(ROOT, "tests", "golden", name)
    base, adapter = os.path.join(folder, "model"), os.path.join(folder, "adapter")
    with open(os.path.join(folder, "expected.json"), encoding="utf-8") as file:
        ids = json.load(file)["base"]["ids"]
    with tempfile.TemporaryDirectory() as work:
        exported = os.path.join(work, "peft")
        run("convert", "-q", "-m", base, adapter, exported)
        names = {"ids": torch.tensor([ids])}
        with torch.no_grad():
            exec(example("## peft", folder=("peft-folder", exported)), names)
        model = names["model"].eval()
        check_logits(name, base, adapter, exported, model, ids)
        check_return(name, base, adapter, exported, model, work)
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        with model.disable_adapter():  # the decoder is the frozen base
            check_slots(name, base, adapter, model, tokenizer, PASSAGE, work)


def real(base, adapter, text):
    folder, file = os.path.split(os.path.abspath(base))
    plain = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    plain.eval()
    with tempfile.TemporaryDirectory() as work:
        exported = os.path.join(work, "peft")
        run("convert", "-q", "-m", base, "--base-name", folder, adapter, exported)
        check_slots(file, base, adapter, plain, tokenizer, text, work)
        model = PeftModel.from_pretrained(plain, exported).eval()
        check_logits(file, base, adapter, exported, model, tokenizer(text)["input_ids"][:64])
        check_return(file, base, adapter, exported, model, work)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base")
    parser.add_argument("--adapter")
    parser.add_argument("--text")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    for name in ("llama", "llama2", "llama3", "mistral", "qwen2", "qwen3"):
        golden(name)
    if given.base and given.adapter:
        with open(given.text, encoding="utf-8") as file:
            real(given.base, given.adapter, file.read())
    print(f"{failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
