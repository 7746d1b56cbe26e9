#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Ours beside its peers, on the same work in the same run: one table with a ratio in every row.

    PYTHON=... LLAMA_BIN=... ICAE=build/release/icae \\
        tests/bench/peers/compare.py BASE.gguf --out DIR [--rounds N] [--threads N] [ROW...]

PYTHON     an interpreter with torch, transformers, peft and gguf (pytorch.py runs in it)
LLAMA_BIN  the folder of llama-bench and llama-quantize, with their libraries
ICAE       our program; icae-pretrain stands beside it

Every row takes turns: ours, the peer, ours again; a machine that changes its pace in between shows in the
column "ours again". Figures are medians within a turn, for short ones the best. A row that is done is kept in
DIR/ROW.json and not run again (delete the file to repeat it), so a stopped comparison goes on. A peer
that is not there, or fails, is called absent. DIR/peers.md and DIR/peers.json are written after every row.

Rows: see ROWS below; without names all of them run. Needs `make texts` for mixed lengths.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = "data/texts/heldout-000.jsonl"
PYTORCH = os.path.join(HERE, "pytorch.py")
EQUAL = ",".join(["128"] * 8)
QUESTION = "What is this text about?"


class Absent(Exception):
    """The peer cannot be run; the message says why."""


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base")
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=int, default=1800, help="seconds of one run of a peer")
    parser.add_argument("rows", nargs="*", metavar="ROW")
    return parser.parse_intermixed_args()


def run(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **more)
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}: {message[-1] if message else ''}")
    return done.stdout


class Bench:
    def __init__(self, given):
        self.given = given
        self.icae = os.environ.get("ICAE", "build/release/icae")
        self.python = os.environ.get("PYTHON") or "python3"
        self.llama = os.environ.get("LLAMA_BIN") or ""
        self.threads = str(given.threads)
        os.makedirs(given.out, exist_ok=True)

    # ---- ours ----

    def ours(self, *more, steps=0, compute="auto"):
        command = [self.icae, "bench", "-q", "--json", "-m", self.given.base, "-t", self.threads]
        command += ["--compute", compute, "--steps", str(steps), *more]
        return json.loads(run(command))

    def path(self, name):
        return os.path.join(self.given.out, name)

    def adapter(self):
        """An adapter of one step: it writes as fast as a good one."""
        folder = self.path("adapter-run")
        if not os.path.exists(os.path.join(folder, "adapter", "icae.json")):
            settings = {
                "base": self.given.base,
                "out": folder,
                "data": {"train": [TEXTS]},
                "train": {"steps": 1, "batch": 1},
                "evaluate": {"every": 0, "samples": 0},
            }
            with open(self.path("adapter.json"), "w", encoding="utf-8") as file:
                json.dump(settings, file)
            run([os.path.join(os.path.dirname(self.icae), "icae-pretrain"), self.path("adapter.json"), "-q"])
        return os.path.join(folder, "adapter")

    # ---- peers ----

    def pytorch(self, *more):
        probe = [self.python, "-c", "import torch, transformers, peft, gguf"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            raise Absent(f"{self.python} has no torch, transformers, peft or gguf (PYTHON=)")
        command = [self.python, "-W", "ignore", PYTORCH, self.given.base, "--threads", self.threads]
        command += ["--rounds", str(self.given.rounds), *more]
        try:
            return json.loads(run(command, timeout=self.given.timeout).splitlines()[-1])
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as why:
            raise Absent(str(why)[:200]) from why

    def llama_run(self, program, *more):
        path = os.path.join(self.llama, program)
        if not self.llama or not os.path.exists(path):
            raise Absent(f"no {program} in LLAMA_BIN={self.llama or '(unset)'}")
        environment = dict(os.environ)
        environment["LD_LIBRARY_PATH"] = self.llama + ":" + environment.get("LD_LIBRARY_PATH", "")
        try:
            return run([path, *more], env=environment, timeout=self.given.timeout)
        except (RuntimeError, subprocess.TimeoutExpired) as why:
            raise Absent(str(why)[:200]) from why

    def llama_bench(self, file, prompt, new):
        found = json.loads(
            self.llama_run(
                "llama-bench", "-m", file, "-t", self.threads, "-p", str(prompt), "-n", str(new),
                "-r", str(self.given.rounds), "-o", "json",
            )
        )
        return max(speed for test in found for speed in test["samples_ts"])

    def requantised(self, kind):
        path = self.path(kind + ".gguf")
        if not os.path.exists(path):
            self.llama_run("llama-quantize", "--allow-requantize", self.given.base, path, kind, self.threads)
        return path


# ---- rows: each returns ours, the peer's and ours again as {"value", ...} ----


def in_turns(ours, peer):
    """Ours, the peer, ours again; the peer's absence is kept, not fatal."""
    first = ours()
    try:
        other = peer()
    except Absent as why:
        return {"ours": first, "absent": str(why)}
    return {"ours": first, "peer": other, "ours_again": ours()}


def train(compute, mode, lengths, is_masked=True, batch=8):
    """is_masked: the peer gets an attention mask even where it has nothing to mask, which keeps it from its
    fastest attention. batch: texts that the peer takes at once, fewer where eight of 512 outgrow the machine."""

    def row(bench):
        wanted = lengths() if callable(lengths) else lengths
        total = sum(int(n) for n in wanted.split(","))

        def ours():
            found = bench.ours("--lengths", wanted, steps=bench.given.rounds, compute=compute)
            return {
                "value": total / found["train_round_seconds"],
                "best": total / found["train_best_round_seconds"],
                "memory": found["train_peak_rss_bytes"],
                "percent_of_sgemm": found["percent_of_sgemm"],
            }

        def peer():
            more = ["--dtype", compute, "--mode", mode, "--lengths", wanted, "--batch", str(batch)]
            more += ["--mask"] if is_masked else []
            found = bench.pytorch(*more)
            return {
                "value": total / found["seconds"],
                "best": total / found["best_seconds"],
                "memory": found["peak_rss_bytes"],
                "name": f"{found['peer']} {compute} {mode}" + ("" if is_masked else ", no mask"),
                "compiling_seconds": found["warmup_seconds"],
            }

        return dict(in_turns(ours, peer), unit="context tokens/s")

    return row


def mixed_lengths():
    """As long as the first held-out texts are, 20 to 512 tokens by four characters a token."""
    with open(TEXTS, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in itertools.islice(file, 32)]
    return ",".join(str(min(512, max(20, len(text) // 4))) for text in texts)


def prefill(compute):
    def row(bench):
        def peer():
            speeds = {"the same file": bench.llama_bench(bench.given.base, 512, 0)}
            for kind in ("Q8_0", "Q4_0", "F16", "F32"):
                try:
                    speeds[kind] = bench.llama_bench(bench.requantised(kind), 512, 0)
                except Absent:
                    pass  # a type that this build cannot make; the others stand
            best = max(speeds, key=speeds.get)
            return {"value": speeds[best], "name": "llama.cpp " + best, "all": speeds}

        def ours():
            return {"value": bench.ours(compute=compute)["prefill_tokens_per_second"]}

        return dict(in_turns(ours, peer), unit="tokens/s")

    return row


def decode(bench):
    return dict(
        in_turns(
            lambda: {"value": bench.ours(compute="f32")["decode_tokens_per_second"]},
            lambda: {"value": bench.llama_bench(bench.given.base, 0, 128), "name": "llama.cpp, the same file"},
        ),
        unit="tokens/s",
    )


def eight_passages(compute):
    """Eight slots files restored by one command, and by eight commands one after the other; both are ours."""

    def row(bench):
        adapter, folder = bench.adapter(), bench.path("passages")
        os.makedirs(folder, exist_ok=True)
        with open(TEXTS, encoding="utf-8") as file:
            texts = [json.loads(line)["text"][:400] for line in itertools.islice(file, 8)]
        common = ["-q", "-m", bench.given.base, "-a", adapter, "-t", bench.threads, "--compute", compute]
        slots = []
        for i, text in enumerate(texts):
            path = os.path.join(folder, f"{i}.txt")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            slots.append(os.path.join(folder, f"{i}.slots"))
            run([bench.icae, "compress", *common, "-o", slots[i], path])
        restore = [bench.icae, "reconstruct", *common, "-n", "128"]

        def speed(commands):
            start = time.perf_counter()
            for command in commands:
                run(command)
            return 8 / (time.perf_counter() - start)

        def best_of(commands):
            return {"value": max(speed(commands) for _ in range(bench.given.rounds))}

        together = [restore + slots + ["--force", "--into", os.path.join(folder, "restored")]]
        apart = [restore + [path] for path in slots]
        return dict(
            in_turns(lambda: best_of(together), lambda: dict(best_of(apart), name="icae, 8 runs")),
            unit="passages/s",
        )

    return row


def first_token(bench):
    """From the start of the process to the first byte of the answer; the file cache is warm."""
    adapter, text, slots = bench.adapter(), bench.path("short.txt"), bench.path("short.slots")
    with open(TEXTS, encoding="utf-8") as file:
        passage = json.loads(next(file))["text"][:400]
    with open(text, "w", encoding="utf-8") as file:
        file.write(passage)
    run([bench.icae, "compress", "-q", "-m", bench.given.base, "-a", adapter, "-o", slots, text])
    command = [bench.icae, "ask", "-q", "-m", bench.given.base, "-a", adapter, "-t", bench.threads]
    times = []
    for _ in range(21):
        start = time.perf_counter()
        with subprocess.Popen(command + [slots, QUESTION], stdout=subprocess.PIPE) as process:
            got = process.stdout.read(1)
            times.append(time.perf_counter() - start)
            process.kill()
        if not got:
            raise RuntimeError("icae ask wrote nothing")
    return {
        "ours": {"value": statistics.median(times[1:]), "best": min(times[1:])},  # the first one warms up
        "absent": "no peer has slots to start from",
        "unit": "s",
        "is_less_better": True,
    }


ROWS = {
    "train-f32-eager": ("training, 8 texts of 128, f32", train("f32", "eager", EQUAL)),
    "train-f32-compiled": ("training, 8 texts of 128, f32", train("f32", "compiled", EQUAL)),
    "train-f32-eager-no-mask": ("training, 8 texts of 128, f32", train("f32", "eager", EQUAL, is_masked=False)),
    "train-f32-fastest": ("training, 8 texts of 128, f32", train("f32", "compiled", EQUAL, is_masked=False)),
    "train-bf16-eager": ("training, 8 texts of 128, bf16", train("bf16", "eager", EQUAL)),
    "train-bf16-compiled": ("training, 8 texts of 128, bf16", train("bf16", "compiled", EQUAL)),
    "train-bf16-fastest": ("training, 8 texts of 128, bf16", train("bf16", "compiled", EQUAL, is_masked=False)),
    "mixed-f32-eager": ("training, 32 texts of 20 to 512, f32", train("f32", "eager", mixed_lengths, batch=4)),
    "mixed-bf16-eager": ("training, 32 texts of 20 to 512, bf16", train("bf16", "eager", mixed_lengths)),
    "mixed-bf16-compiled": ("training, 32 texts of 20 to 512, bf16", train("bf16", "compiled", mixed_lengths)),
    "prefill-f32": ("prefill of 512, f32", prefill("f32")),
    "prefill-bf16": ("prefill of 512, bf16", prefill("bf16")),
    "decode": ("decode of 128", decode),
    "eight-f32": ("8 passages of 128 tokens in one run, f32", eight_passages("f32")),
    "eight-bf16": ("8 passages of 128 tokens in one run, bf16", eight_passages("bf16")),
    "first-token": ("start to first token of icae ask", first_token),
}


# ---- the table ----


def ratio(row):
    """How many times the peer's speed (or memory's inverse is in its own column)."""
    if "peer" not in row:
        return None
    mine = (row["ours"]["value"] + row["ours_again"]["value"]) / 2
    theirs = row["peer"]["value"]
    return theirs / mine if row.get("is_less_better") else mine / theirs


def number(value):
    return f"{value:.3g}" if value < 1 else f"{value:.1f}"


def memory_of(row):
    """Ours and the peer's in GiB, and our share, as three cells."""
    mine, theirs = row["ours"].get("memory"), row.get("peer", {}).get("memory")
    cells = [f"{m / 2**30:.2f}" if m else "" for m in (mine, theirs)]
    return cells + [f"{100 * mine / theirs:.0f} %" if mine and theirs else ""]


def table(rows):
    out = [
        "| row | ours | ours again | peer | peer's | ratio | our GiB | peer's GiB | share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, (what, _) in ROWS.items():
        row = rows.get(name)
        if not row:
            continue
        again = number(row["ours_again"]["value"]) if "ours_again" in row else ""
        if "peer" in row:
            peer = [row["peer"]["name"], number(row["peer"]["value"]), f"{ratio(row):.2f}"]
        else:
            peer = ["absent: " + row["absent"].replace("|", "/"), "", ""]
        cells = [f"{what}, {row['unit']}", number(row["ours"]["value"]), again, *peer, *memory_of(row)]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def write_whole(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def main():
    given = parse()
    unknown = [name for name in given.rows if name not in ROWS]
    if unknown:
        sys.exit(f"compare.py: no row is called {unknown[0]}; there are {', '.join(ROWS)}")
    bench = Bench(given)
    rows, failures = {}, 0
    for name, (what, measure) in ROWS.items():
        path = bench.path(name + ".json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                rows[name] = json.load(file)
            continue
        if given.rows and name not in given.rows:
            continue
        print(f"{name}: {what}", file=sys.stderr, flush=True)
        try:
            rows[name] = measure(bench)
        except (RuntimeError, OSError) as why:  # ours failed: that is to be seen, the others go on
            print(f"{name}: {why}", file=sys.stderr)
            failures += 1
            continue
        rows[name]["ratio"] = ratio(rows[name])
        if "peer" in rows[name] or name == "first-token":  # an absent peer may be there next time
            write_whole(path, json.dumps(rows[name], indent=1))
        write_whole(bench.path("peers.json"), json.dumps(rows, indent=1))
        write_whole(bench.path("peers.md"), table(rows))
    print(table(rows), end="")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
