# SPDX-License-Identifier: MIT
"""Times one ICAE training step in PyTorch + transformers + PEFT: the peer of `icae bench`.

    python3 pytorch.py BASE.gguf [--dtype f32|bf16] [--mode eager|compiled] [--lengths 128,128,...]

The work is the same as ours: texts of random tokens are cut into spans of at most SLOTS * 4 tokens,
each span and SLOTS memory tokens go through the base with LoRA (rank 32 on q and v, dropout 0.05), the
final hidden states at the memory tokens stand before the AE token and the text in the frozen base, and
the loss is the mean cross-entropy of text and eos. Then gradient clipping and AdamW.

A batch is padded to its longest text, with an attention mask passed where lengths differ (where all are
equal there is nothing to mask, and sdpa may take its fastest path: `--mask` passes one all the same).
Texts are sorted by length and cut into batches of --batch. One JSON object is printed.
"""

import argparse
import gc
import json
import os
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

RATE = 4


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--mode", choices=("eager", "compiled"), default="eager")
    parser.add_argument("--lengths", default=",".join(["128"] * 8), help="tokens of every text")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="timed passes over all texts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--mask", action="store_true")
    return parser.parse_args()


def cut(text, slots):
    """Spans of equal length, but for the last, of at most slots * RATE tokens."""
    count = -(-len(text) // (slots * RATE))
    each = -(-len(text) // count)
    return [text[i : i + each] for i in range(0, len(text), each)]


class Autoencoder(torch.nn.Module):
    def __init__(self, base, slots, rank):
        super().__init__()
        config = LoraConfig(
            r=rank, lora_alpha=rank, lora_dropout=0.05, target_modules=["q_proj", "v_proj"]
        )
        self.model = get_peft_model(base, config)
        self.slots = slots
        self.embed = base.get_input_embeddings()
        width = self.embed.weight.shape[1]
        self.memory = torch.nn.Parameter(torch.randn(slots + 1, width) * self.embed.weight.std())

    def backbone(self):
        return self.model.base_model.model.model

    def forward(self, spans, span_mask, memory_at, owner_rows, text, text_mask, labels, places):
        """spans [S, n + k] ids (memory places hold 0), memory_at [S, k] columns of the memory tokens,
        owner_rows [B, s] rows of the spans of each text (-1: none), text [B, 1 + L] ids."""
        dtype = self.embed.weight.dtype
        memory = self.memory.to(dtype)
        x = self.embed(spans)
        rows = torch.arange(spans.shape[0]).unsqueeze(1)
        x = x.index_put((rows, memory_at), memory[: self.slots].expand(len(spans), -1, -1))
        h = self.backbone()(inputs_embeds=x, attention_mask=span_mask).last_hidden_state
        slots = h[rows, memory_at]  # [S, k, D]
        gathered = slots[owner_rows.clamp(min=0)].flatten(1, 2)  # [B, s k, D]
        task = memory[self.slots].expand(len(text), 1, -1)
        y = torch.cat([gathered, task, self.embed(text)], dim=1)
        self.model.base_model.disable_adapter_layers()
        out = self.backbone()(inputs_embeds=y, attention_mask=text_mask, position_ids=places)
        self.model.base_model.enable_adapter_layers()
        hidden = out.last_hidden_state[:, gathered.shape[1] :]
        logits = torch.nn.functional.linear(hidden, self.embed.weight).float()
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=-100
        )


def collate(texts, slots, with_mask):
    """Everything a step needs, padded to the longest span and text of the batch."""
    spans, owner = [], []
    for text in texts:
        pieces = cut(text, slots)
        owner.append(range(len(spans), len(spans) + len(pieces)))
        spans += pieces
    n = max(map(len, spans))
    ids = torch.zeros(len(spans), n + slots, dtype=torch.long)
    mask = torch.zeros(len(spans), n + slots, dtype=torch.long)
    memory_at = torch.empty(len(spans), slots, dtype=torch.long)
    for i, span in enumerate(spans):
        ids[i, : len(span)] = torch.tensor(span)
        mask[i, : len(span) + slots] = 1
        memory_at[i] = torch.arange(len(span), len(span) + slots)
    most = max(map(len, owner))
    rows = torch.full((len(texts), most), -1)
    longest = max(map(len, texts))
    text = torch.zeros(len(texts), longest, dtype=torch.long)
    labels = torch.full((len(texts), longest + 1), -100)
    text_mask = torch.zeros(len(texts), most * slots + 1 + longest, dtype=torch.long)
    for i, one in enumerate(texts):
        used = len(owner[i])
        rows[i, most - used :] = torch.tensor(owner[i])  # slots are padded on the left
        text[i, : len(one)] = torch.tensor(one)
        labels[i, : len(one)] = torch.tensor(one)
        labels[i, len(one)] = 2
        text_mask[i, (most - used) * slots : most * slots + 1 + len(one)] = 1
    places = (text_mask.cumsum(1) - 1).clamp(min=0)
    is_equal = bool(mask.all() and text_mask.all())
    keep = with_mask or not is_equal
    return dict(
        spans=ids,
        span_mask=mask if keep else None,
        memory_at=memory_at,
        owner_rows=rows,
        text=text,
        text_mask=text_mask if keep else None,
        labels=labels,
        places=places,
    )


def forget_peak():
    """Starts the count of peak memory anew, so that reading and converting the base is not in it."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def peak_bytes():
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def main():
    given = parse()
    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[given.dtype]
    folder, name = os.path.split(os.path.abspath(given.base))
    base = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=dtype, attn_implementation="sdpa"
    )
    base.config.use_cache = False
    vocabulary = base.config.vocab_size
    model = Autoencoder(base, given.slots, given.rank)
    for parameter_name, parameter in model.named_parameters():
        wanted = "lora_" in parameter_name or parameter_name == "memory"
        parameter.requires_grad_(wanted)
        if wanted:
            parameter.data = parameter.data.float() if given.dtype == "f32" else parameter.data
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95))
    lengths = sorted(int(n) for n in given.lengths.split(","))
    texts = [torch.randint(vocabulary, (n,)).tolist() for n in lengths]
    batches = [
        collate(texts[i : i + given.batch], given.slots, given.mask)
        for i in range(0, len(texts), given.batch)
    ]
    step = torch.compile(model) if given.mode == "compiled" else model
    model.train()
    gc.collect()
    forget_peak()
    times, begun = [], time.time()
    for _ in range(given.rounds + 1):  # the first one warms up and compiles
        start = time.time()
        for batch in batches:
            loss = step(**batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 2.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        times.append(time.time() - start)
    timed = sorted(times[1:])
    tokens = sum(lengths)
    print(
        json.dumps(
            {
                "peer": "pytorch " + torch.__version__,
                "dtype": given.dtype,
                "mode": given.mode,
                "seconds": timed[len(timed) // 2],
                "best_seconds": timed[0],
                "warmup_seconds": times[0],
                "context_tokens_per_second": tokens / timed[len(timed) // 2],
                "best_context_tokens_per_second": tokens / timed[0],
                "peak_rss_bytes": peak_bytes(),
                "loss": float(loss.detach()),
                "total_seconds": time.time() - begun,
            }
        )
    )


main()
