#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How much memory runs were predicted to take, and took: the table of docs/performance.md.

    tests/bench/memory_plan.py BUILD-FOLDER      after `make all base texts`; a minute or two

Every row is a run of configs/smollm2-64x16-cpu.json without growth and with the settings that it names: what --dry-run
says, and the peak resident memory of the same run of STEPS steps. Texts shorter than the longest would take less, so
the longest row leaves them out. Exit code 1 if any is more than 10 % off.
"""

import json
import os
import subprocess
import sys
import tempfile

CONFIG = "configs/smollm2-64x16-cpu.json"
STEPS = 3
MOST_OFF = 0.10
COMMON = {"objective.first_context": 0, "objective.grow_steps": 0, "train.steps": STEPS, "train.warmup_steps": 1,
          "evaluate.every": 0, "checkpoint.every": STEPS, "train.threads": 2}
Q_V = '["q_proj","v_proj"]'
WATCHED = {"evaluate.every": STEPS, "evaluate.samples": 8, "evaluate.reconstruct_samples": 0}
LONG = {"objective.context_tokens": 128, "adapter.memory_slots": 32}

# name, settings
ROWS = [
    ("8 x 64 tokens -> 16 slots, bf16", {"train.compute": "bf16"}),
    ("the same, f32", {"train.compute": "f32"}),
    ("8 x 32 tokens, bf16", {"train.compute": "bf16", "objective.context_tokens": 32}),
    ("the same, f32", {"train.compute": "f32", "objective.context_tokens": 32}),
    ("the same, f32, recomputed", {"train.compute": "f32", "objective.context_tokens": 32, "train.checkpointing": "true"}),
    ("1 x 128 -> 32, f32, recomputed, rank 4 on q",
     {**LONG, "train.compute": "f32", "train.batch": 1, "train.checkpointing": "true", "adapter.rank": 4,
      "adapter.targets": '["q_proj"]'}),
    ("8 x 128 -> 32, f32, recomputed, q and v",
     {**LONG, "train.compute": "f32", "train.checkpointing": "true", "adapter.targets": Q_V}),
    ("the same with evaluation",
     {**LONG, **WATCHED, "train.compute": "f32", "train.checkpointing": "true", "adapter.targets": Q_V}),
    ("1 x 512 -> 128, f32, rank 128",
     {"objective.context_tokens": 512, "objective.least_context": 512, "adapter.memory_slots": 128,
      "train.compute": "f32", "train.batch": 1, "adapter.rank": 128}),
    ("4 x 64, AE and LM, f32, 1 thread",
     {"train.compute": "f32", "train.batch": 4, "objective.lm_ratio": 0.5, "train.threads": 1}),
    ("2 x 128 -> 32, AE and LM, f32, with evaluation",
     {**LONG, **WATCHED, "train.compute": "f32", "train.batch": 2, "objective.lm_ratio": 0.5}),
]


def command(program, settings, out):
    line = [program, CONFIG, "-q", "--json", "--set", f"out={out}"]
    for key, value in {**COMMON, **settings}.items():
        line += ["--set", f"{key}={value}"]
    return line


def predicted(line):
    result = subprocess.run(line + ["--dry-run"], stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)["plan"]["predicted_peak_bytes"]


def seen(line):
    """Peak resident bytes of the run."""
    run = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        sys.exit(f"{' '.join(line)}: exit code {run.returncode}")
    return usage.ru_maxrss * 1024


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = os.path.join(sys.argv[1], "icae-pretrain")
    is_off = False
    print("| run | predicted | seen | off |\n| --- | --- | --- | --- |")
    for name, settings in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            line = command(program, settings, os.path.join(folder, "run"))
            plan, peak = predicted(line), seen(line)
        off = plan / peak - 1
        is_off |= abs(off) > MOST_OFF
        print(f"| {name} | {plan / 1e6:.0f} MB | {peak / 1e6:.0f} MB | {100 * off:+.1f} % |", flush=True)
    sys.exit(is_off)


if __name__ == "__main__":
    main()
