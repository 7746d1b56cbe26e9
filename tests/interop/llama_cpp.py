#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lets llama.cpp use an exported LoRA and exported slots.

    make interop-llama-cpp          or    python3 tests/interop/llama_cpp.py BASE.gguf

BASE is a GGUF of the architecture llama (the one that `make base` fetches). Its first layers are written again as F32,
because llama.cpp rounds activations to 8 bits where weights are quantised; on that model both programs must agree to
1e-4. The adapter is random, on all seven modules, and comes in from a PEFT folder with `icae convert`.

1. The LoRA loads; logits with and without it are ours.
2. Slots as an embedding batch (layout append), by the code of docs/interop.md: greedy decoding gives the text of `icae reconstruct`.
3. Slots of layout uniform, whose positions have gaps, are refused by llama.cpp: what docs/interop.md says is so.
4. On BASE itself, quantised: what the LoRA changes in the logits points the same way (cosine over 0.98).

Needs llama-cpp-python (made with 0.3.36; LLAMA_CPP_LIB_PATH names a libllama built elsewhere), gguf, numpy,
safetensors. Exit status 1 on any failure.
"""
import ctypes
import json
import os
import subprocess
import sys
import tempfile

# Files here are called as packages are.
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != os.path.dirname(os.path.abspath(__file__))]
import gguf
import llama_cpp.llama_cpp as llama
import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ICAE = os.environ.get("ICAE", os.path.join(ROOT, "build", "release", "icae"))
LOGITS = os.environ.get("ICAE_LOGITS", os.path.join(ROOT, "build", "release", "interop-logits"))
LAYERS, RANK, SLOTS, LIMIT = 4, 8, 16, 1e-4
PASSAGE = "It was a bright cold day in April, and the clocks were striking thirteen. Nobody had looked at them since."
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


def write_cut_base(source, target):
    """The first layers of a GGUF as F32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        value = LAYERS if field.name == "llama.block_count" else field.contents()
        writer.add_key_value(field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= LAYERS:
            continue
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_peft(folder, shape, layers):
    """A random LoRA on every module, large enough to be seen; and a memory table."""
    rng = np.random.default_rng(7)
    D, kv, F = shape["width"], shape["kv"], shape["feed_forward"]
    modules = {"self_attn.q_proj": (D, D), "self_attn.k_proj": (kv, D), "self_attn.v_proj": (kv, D),
               "self_attn.o_proj": (D, D), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
    tensors = {}
    for layer in range(layers):
        for name, (rows, cols) in modules.items():
            path = f"base_model.model.model.layers.{layer}.{name}"
            tensors[path + ".lora_A.weight"] = rng.normal(0, cols**-0.5, (RANK, cols)).astype(np.float32)
            tensors[path + ".lora_B.weight"] = rng.normal(0, 0.05, (rows, RANK)).astype(np.float32)
    os.mkdir(folder)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"))
    table = rng.normal(0, 0.1, (SLOTS + 3, D)).astype(np.float32)
    save_file({"memory_token_embed.weight": table}, os.path.join(folder, "memory.safetensors"))
    with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as file:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 16, "bias": "none",
                   "target_modules": sorted({name.split(".")[1] for name in modules})}, file)


class Engine:
    """llama.cpp with one model and, where given, one LoRA."""

    def __init__(self, path, lora=None):
        parameters = llama.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(path.encode(), parameters)
        assert self.model, f"llama.cpp does not load {path}"
        context = llama.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch = 512, 512, 512
        context.n_threads = context.n_threads_batch = 2
        context.type_k = context.type_v = 0  # F32
        context.flash_attn_type = 0
        self.context = llama.llama_init_from_model(self.model, context)
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.has_lora = lora is None
        if lora:
            adapter = llama.llama_adapter_lora_init(self.model, lora.encode())
            assert adapter, f"llama.cpp does not load {lora}"
            scales, adapters = (ctypes.c_float * 1)(1.0), (llama.llama_adapter_lora_p_ctypes * 1)(adapter)
            self.has_lora = llama.llama_set_adapters_lora(self.context, adapters, 1, scales) == 0

    def decode(self, positions, ids=None, rows=None):
        """Logits of every row, or None when llama.cpp refuses the batch."""
        n = len(positions)
        batch = llama.llama_batch_init(n, 0 if rows is None else rows.shape[1], 1)
        batch.n_tokens = n
        if rows is None:
            for i, token in enumerate(ids):
                batch.token[i] = token
        else:
            flat = np.ascontiguousarray(rows, dtype=np.float32)
            ctypes.memmove(batch.embd, flat.ctypes.data, flat.nbytes)
        for i, position in enumerate(positions):
            batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(position), 1, 1
            batch.seq_id[i][0] = 0
        code = llama.llama_decode(self.context, batch)
        llama.llama_batch_free(batch)
        if code:
            return None
        pointer = llama.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, shape=(n, self.vocabulary)).copy()


def check_lora(name, base, ours, lora, ids, limit):
    plain, changed = Engine(base).decode(range(len(ids)), ids), Engine(base, lora)
    assert changed.has_lora
    changed = changed.decode(range(len(ids)), ids)
    V = plain.shape[1]
    mine, mine_plain = our_logits(ids, V, base, ours), our_logits(ids, V, base)
    largest = np.abs(mine).max()
    error, error_plain = np.abs(changed - mine).max() / largest, np.abs(plain - mine_plain).max() / largest
    theirs, wanted = (changed - plain).ravel(), (mine - mine_plain).ravel()
    cosine = float(theirs @ wanted / np.sqrt((theirs @ theirs) * (wanted @ wanted)))
    effect = np.abs(wanted).max() / largest
    good = (error < limit and error_plain < limit if limit else cosine > 0.98) and effect > 0.01
    report(f"{name} LoRA", good, f"with {error:.1e}, without {error_plain:.1e}; the LoRA changes logits by "
           f"{effect:.1e}, cosine of the changes {cosine:.6f}")


def run_example(engine, path):
    """Runs the code of docs/interop.md; the last row's logits."""
    with open(os.path.join(ROOT, "docs", "interop.md"), encoding="utf-8") as file:
        code = file.read().split("\n### llama.cpp (layout append)\n")[1].split("```python\n")[1].split("```")[0]
    assert "notes.safetensors" in code
    names = {"load_file": load_file, "ctypes": ctypes, "context": engine.context, **vars(llama)}
    exec(code.replace("notes.safetensors", path), names)
    pointer = llama.llama_get_logits_ith(engine.context, -1)
    return np.ctypeslib.as_array(pointer, shape=(1, engine.vocabulary)).copy()


def check_slots(base, adapter, work, is_append):
    slots, embeds = os.path.join(work, "x.slots"), os.path.join(work, f"x{is_append}.safetensors")
    with open(os.path.join(work, "x.txt"), "w", encoding="utf-8") as file:
        file.write(PASSAGE)
    run("compress", "-q", "-m", base, "-a", adapter, "-o", slots, os.path.join(work, "x.txt"))
    run("convert", "-q", "-m", base, "-a", adapter, slots, embeds)
    data = load_file(embeds)
    engine = Engine(base)
    if is_append:
        logits = run_example(engine, embeds)
    else:
        logits = engine.decode(data["position_ids"], rows=data["inputs_embeds"])
    if not is_append:
        report("slots, layout uniform", logits is None, "refused by llama.cpp" if logits is None else "were accepted")
        return
    wanted = json.loads(run("reconstruct", "-q", "--json", "-m", base, "-a", adapter, "-n", "32", slots))
    position, text, count = len(data["position_ids"]), b"", 0
    vocabulary, buffer = llama.llama_model_get_vocab(engine.model), ctypes.create_string_buffer(64)
    while logits is not None and count < 32:
        token = int(logits[-1].argmax())
        if token == llama.llama_vocab_eos(vocabulary):
            break
        length = llama.llama_token_to_piece(vocabulary, token, buffer, 64, 0, False)
        text += buffer.raw[:length]
        logits, position, count = engine.decode([position], ids=[token]), position + 1, count + 1
    good = text.decode(errors="replace") == wanted["text"] and count == wanted["generated_tokens"]
    report("slots, layout append", good, f"{count} tokens, text equal" if good
           else f"\n  ours   {wanted['text']!r}\n  theirs {text!r}")


def main():
    base = os.path.abspath(sys.argv[1])
    keep = llama.llama_log_callback(lambda level, text, user: None)
    llama.llama_log_set(keep, ctypes.c_void_p(0))
    llama.llama_backend_init()
    about = json.loads(run("inspect", "--json", base))
    head_width, kv_heads = (int(about["heads"].split(" ")[i].rstrip(",")) for i in (3, 4))
    shape = {"width": about["width"], "feed_forward": about["feed_forward"], "kv": head_width * kv_heads}
    ids = [504, 2365, 6354, 30, 339, 1652, 253, 4120, 2775, 282, 260, 905]
    with tempfile.TemporaryDirectory() as work:
        cut = os.path.join(work, "cut.gguf")
        write_cut_base(base, cut)
        for name, path, layers, limit in (("F32, 4 layers,", cut, LAYERS, LIMIT), ("quantised", base, about["layers"], None)):
            folder = os.path.join(work, name.split(",")[0])
            write_peft(folder + ".peft", shape, layers)
            for layout in ("append", "uniform"):
                run("convert", "-q", "-m", path, folder + ".peft", f"{folder}-{layout}", "--rate", "4", "--layout", layout)
            run("convert", "-q", "-m", path, folder + "-append", folder + ".gguf")
            check_lora(name, path, folder + "-append", folder + ".gguf", ids, limit)
            if limit:
                check_slots(path, folder + "-append", work, True)
                check_slots(path, folder + "-uniform", work, False)
    print(f"{failures} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
