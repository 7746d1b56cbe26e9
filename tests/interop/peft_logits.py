#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Exports adapters and slots and lets Hugging Face's transformers and peft use them.

    make interop-peft          or    python3 tests/interop/peft_logits.py [--base FILE.gguf --adapter FOLDER --text FILE]

1. Every golden adapter, exported with `icae convert`, is opened by AutoPeftModelForCausalLM (which finds the base by
   base_model_name_or_path). Logits of the golden ids, adapter on and off, must agree with ours to 1e-4 of the largest.
2. What peft itself saves again comes back through `icae convert` with equal tensors.
3. Slots exported for inputs_embeds: greedy decoding by transformers must give the ids of `icae reconstruct`.

With --base and --adapter the same for a real base, a GGUF that transformers dequantises, and a text.
Needs torch, transformers, peft, safetensors, gguf (made with 2.8, 5.23, 0.21, 0.8, 0.19). Exit status 1 on any failure.
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
from peft import AutoPeftModelForCausalLM, PeftModel
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


def reconstruct(model, path, length):
    """The example of docs/interop.md, with a limit."""
    data = safe_open(path, "pt")
    about, rows = data.metadata(), data.get_tensor("inputs_embeds")[None].float()
    positions, position = data.get_tensor("position_ids")[None].long(), int(about["next_position"])
    ids, cache, seen = [], None, rows.shape[1]
    while len(ids) < length:
        with torch.no_grad():
            out = model(inputs_embeds=rows, position_ids=positions, past_key_values=cache, use_cache=True,
                        attention_mask=torch.ones(1, seen, dtype=torch.long))
        token, cache = int(out.logits[0, -1].argmax()), out.past_key_values
        if token == int(about["stop_token"]):
            break
        ids.append(token)
        rows = model.get_input_embeddings()(torch.tensor([[token]]))
        positions, position, seen = torch.tensor([[position]]), position + 1, seen + 1
    return ids


def check_slots(name, base, adapter, model, tokenizer, text, work):
    with open(os.path.join(work, "x.txt"), "w", encoding="utf-8") as file:
        file.write(text)
    slots, embeds = os.path.join(work, "x.slots"), os.path.join(work, "x.safetensors")
    run("compress", "-q", "-m", base, "-a", adapter, "-o", slots, os.path.join(work, "x.txt"))
    run("convert", "-q", "-m", base, "-a", adapter, slots, embeds)
    ours = json.loads(run("reconstruct", "-q", "--json", "-m", base, "-a", adapter, "-n", "64", slots))
    ids = reconstruct(model, embeds, 64)
    theirs = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    good = theirs == ours["text"] and len(ids) == ours["generated_tokens"]
    detail = f"{len(ids)} tokens, restored text equal"
    report(f"{name} slots", good, detail if good else f"\n  ours   {ours['text']!r}\n  theirs {theirs!r}")


def golden(name):
    folder = os.path.join(ROOT, "tests", "golden", name)
    base, adapter = os.path.join(folder, "model"), os.path.join(folder, "adapter")
    with open(os.path.join(folder, "expected.json"), encoding="utf-8") as file:
        ids = json.load(file)["base"]["ids"]
    with tempfile.TemporaryDirectory() as work:
        exported = os.path.join(work, "peft")
        run("convert", "-q", "-m", base, adapter, exported)
        model = AutoPeftModelForCausalLM.from_pretrained(exported, dtype=torch.float32, attn_implementation="eager")
        model.eval()
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
