#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains every variant of a list on the same budget and writes their held-out losses into one table.

    data/ablations.py BUILD [--list FILE.json] [--runs FOLDER] [--page FILE.md] [--steps N] [--threads N]
                      [--base FILE] [--only NAME]... [--no-training]

Behind `make ablations`. BUILD is the folder with the programs icae-pretrain and compare-runs. The list
(configs/ablations/variants.json) names a config, and for every variant the settings that differ from it:

    {"config": FILE, "variants": [{"name", "question", "set": ["key=value", ...]}, ...],
     "pictures": [{"file", "title", "variants": [names]}]}

The first variant is the one that all others are compared with; a picture shows at most six. The order is that of the
runs. A variant has its folder in runs/ablations; what is done is not done again, what was stopped goes on where it was
(icae-pretrain --resume), and --steps with a larger number goes on with all of them. A folder whose config.json is not
what the list says now is refused. The page and the pictures beside it are made anew after every run, of the runs that
have reached the budget: a variant without result has no row. What a row was made from is kept beside the page (FILE.json,
committed with it), so that rows of other machines stay while folders go; a run in --runs takes the place of its row, and a
row of other settings than the list's is dropped. Python 3, standard library only.
"""
import argparse
import hashlib
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile

PAGE = """# Ablations

One question at a time (the column switches says what it takes), everything else as in [{config}](../{config}): made by `make ablations`, which trains the variants of
[{list}](../{list}) and writes this page from their `metrics.jsonl`; nothing here is written by hand. Every variant reads {tokens}
context tokens ({steps} steps) in texts of at most {context} tokens, or as its switches say (longer texts fill their batches less evenly). A row compares best with rows of its
type, f32 or bf16. The paper puts
512 tokens into 128 slots of a 7B model; the switches here are the same, the scale is what one core does in minutes. So a row tells what a
switch does in the first minutes of training, not where it ends.

Losses are nats a token on {samples} held-out texts, the same for all rows of one length; BLEU-4 is of {restored} texts restored freely at the end. Each row is one
run, and two runs of one recipe (`train.seed`, or the type of products) differ, too: what differs less says nothing. Every row's command is `icae-pretrain {config} --set
out=FOLDER` and a `--set` for each of its switches (in quotes where it has some). Two switches act after pretraining and are measured elsewhere: slots refined for a text (`--refine`, [training-on-a-cpu.md](training-on-a-cpu.md),
section 4) and pretraining before fine-tuning or none ([experiments.md](experiments.md)).

"""


class Refused(Exception):
    """What the user is to be told, in one sentence."""


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: {error}") from None


def folder_of(args, name):
    return os.path.join(args.runs, re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-"))


def read_list(path):
    """The list, checked: names and folders are unique, pictures show variants that there are."""
    plan = read_json(path)
    try:
        names = [variant["name"] for variant in plan["variants"]]
        for variant in plan["variants"]:
            for assignment in variant["set"]:
                if "=" not in assignment:
                    raise Refused(f"{path}: {variant['name']}: {assignment}: expected key=value")
        folders = {re.sub(r"[^A-Za-z0-9]+", "-", name) for name in names}
        if not names or len(folders) < len(names):
            raise Refused(f"{path}: expected variants, each with a name of its own")
        for picture in plan["pictures"]:
            strange = [name for name in picture["variants"] if name not in names]
            if strange or len(picture["variants"]) > 6:
                raise Refused(f"{path}: {picture['file']}: expected up to six variants of the list" +
                              (f"; there is no '{strange[0]}'" if strange else ""))
        assert plan["config"]
    except (KeyError, TypeError, AssertionError) as error:
        raise Refused(f"{path}: lacks {error}") from None
    return plan


# ---- runs ----


def value_of(text):
    """As icae-pretrain reads what stands behind the '=': JSON, else a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def wanted_settings(plan, variant, steps):
    """{section: {key: value}} of config and overrides, as the run's own config.json must have them."""
    config = read_json(plan["config"])
    sections = {name: dict(config.get(name, {})) for name in ("data", "adapter", "objective", "train")}
    for assignment in variant["set"]:
        key, text = assignment.split("=", 1)
        section, name = key.split(".", 1)
        sections.setdefault(section, {})[name] = value_of(text)
    if steps:
        sections["train"]["steps"] = steps
    return sections


def check_folder(folder, wanted):
    """Refuses a run that was made by another list; steps may grow."""
    used = read_json(os.path.join(folder, "config.json"))
    for section, values in wanted.items():
        for key, value in values.items():
            if (section, key) != ("train", "steps") and used.get(section, {}).get(key) != value:
                raise Refused(f"{folder}: was made with {section}.{key} = {json.dumps(used.get(section, {}).get(key))}, the list "
                              f"has {json.dumps(value)}; remove the folder, or give another (--runs)")


def read_metrics(folder):
    """([(step, tokens so far, record)] of held-out records); a last line cut short is passed over."""
    heldout, tokens = [], {0: 0}
    try:
        with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if "total_tokens" in record:
                    tokens[record["step"]] = record["total_tokens"]
                if "heldout_ae_loss" in record:
                    heldout.append((record["step"], tokens[record["step"]], record))
    except FileNotFoundError:
        pass
    return heldout


def is_done(folder, steps):
    heldout = read_metrics(folder)
    return bool(heldout) and heldout[-1][0] >= steps and os.path.exists(os.path.join(folder, "adapter", "icae.json"))


def run(command):
    """Runs it to its end. A first Ctrl-C reaches it, too: it saves, and that is waited for."""
    print("+ " + shlex.join(command), flush=True)
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        raise Refused(f"{command[0]}: {error.strerror}; build it with: make {command[0]}") from None
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass


def train(args, plan, variant, wanted):
    folder = folder_of(args, variant["name"])
    if os.path.exists(os.path.join(folder, "config.json")):
        check_folder(folder, wanted)
        if is_done(folder, wanted["train"]["steps"]):
            return
    command = [os.path.join(args.build, "icae-pretrain"), plan["config"]]
    given = variant["set"] + [f"out={folder}", f"train.threads={args.threads}"]
    if args.steps:
        given.append(f"train.steps={args.steps}")
    if args.base:
        given.append(f"base={args.base}")
    for assignment in given:
        command += ["--set", assignment]
    checkpoints = os.path.join(folder, "checkpoints")
    if os.path.isdir(checkpoints) and any(name.startswith("step-") for name in os.listdir(checkpoints)):
        command.append("--resume")
    code = run(command)
    if code != 0:
        raise Refused(f"{variant['name']} ended with {code}; the same command goes on from there")


# ---- page ----


def count_trained(folder):
    """Numbers in the adapter: the sum over the shapes in the heads of its two safetensors files."""
    total = 0
    for name in ("adapter_model.safetensors", "memory.safetensors"):
        with open(os.path.join(folder, "adapter", name), "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            head = json.loads(file.read(length))
        for key, tensor in head.items():
            if key != "__metadata__":
                product = 1
                for n in tensor["shape"]:
                    product *= n
                total += product
    return total


def recipe_of(plan, variant, steps):
    """A hash of all settings that the list has for a variant: a kept row of another is not shown."""
    settings = json.dumps(wanted_settings(plan, variant, steps), sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def read_result(args, plan, variant, steps):
    """What a row is made from, or None where the run has not reached the budget."""
    folder = folder_of(args, variant["name"])
    if not is_done(folder, steps):
        return None
    heldout = [entry for entry in read_metrics(folder) if entry[0] <= steps]
    if not heldout or heldout[-1][0] != steps:
        return None
    used, last = read_json(os.path.join(folder, "config.json")), heldout[-1][2]
    return {"recipe": recipe_of(plan, variant, steps), "steps": steps, "compute": used["train"]["compute"],
            "threads": used["train"]["threads"], "trained": count_trained(folder),
            "heldout": [[step, tokens, round(record["heldout_ae_loss"], 4)] for step, tokens, record in heldout],
            "samples": last["heldout_samples"], "restored": last.get("restored", 0), "bleu4": round(last.get("bleu4", 0), 2)}


def kept_path(args):
    return os.path.splitext(args.page)[0] + ".json"


def collect(args, plan, steps):
    """{variant: result}: of the runs, else as kept beside the page; then keeps them. None if there are none."""
    kept = read_json(kept_path(args)) if os.path.exists(kept_path(args)) else {}
    results = {}
    for variant in plan["variants"]:
        name, old = variant["name"], kept.get(variant["name"], {})
        result = read_result(args, plan, variant, steps)
        if not result and old.get("recipe") == recipe_of(plan, variant, steps):
            result = old
        if result:
            results[name] = result
    if results:
        lines = [f"{json.dumps(name)}: {json.dumps(result)}" for name, result in results.items()]
        write_file(kept_path(args), "{\n" + ",\n".join(lines) + "\n}\n")
    return results


def write_file(path, text):
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".tmp", path)


def thousands(n):
    return f"{n:,}"


def cell(text):
    return str(text).replace("|", "\\|")


def draw(args, plan, results):
    """The pictures for which there are results, beside the page; their names."""
    drawn = []
    for picture in plan["pictures"]:
        names = [name for name in picture["variants"] if name in results]
        if len(names) < 2:
            continue
        path = os.path.join(os.path.dirname(args.page) or ".", picture["file"])
        with tempfile.TemporaryDirectory() as folder:
            curves = [f"{name}={os.path.join(folder, str(i))}" for i, name in enumerate(names)]
            for i, name in enumerate(names):
                write_file(os.path.join(folder, str(i)), "".join(
                    json.dumps({"step": step, "total_tokens": tokens}) + "\n" +
                    json.dumps({"step": step, "heldout_ae_loss": loss}) + "\n"
                    for step, tokens, loss in results[name]["heldout"]))
            code = run([os.path.join(args.build, "compare-runs"), "--heldout", picture["title"], path, *curves])
        if code != 0:
            raise Refused(f"{path} could not be drawn")
        drawn.append(picture)
    return drawn


def middle_of(result):
    return min(result["heldout"], key=lambda entry: abs(entry[0] - result["steps"] / 2))


def row(plan, variant, result):
    bleu = f"{result['bleu4']:.1f}" if result["restored"] else ""
    losses = [entry[2] for entry in (result["heldout"][0], middle_of(result), result["heldout"][-1])]
    switches = " ".join(f"`{assignment}`" for assignment in variant["set"]) or f"`{plan['config']}`"
    return [variant["name"], variant["question"], switches, thousands(result["trained"]), thousands(result["heldout"][-1][1]),
            result["compute"], *(f"{loss:.2f}" for loss in losses), bleu]


def write_page(args, plan, steps):
    results = collect(args, plan, steps)
    first = next(iter(results.values()), None)
    if not first:
        print(f"no variant has reached step {steps} yet: {args.page} is left as it is")
        return
    out = [PAGE.format(config=plan["config"], list=args.list, tokens=thousands(first["heldout"][-1][1]), steps=steps,
                       context=read_json(plan["config"])["objective"]["context_tokens"],
                       samples=first["samples"], restored=first["restored"])]
    for picture in draw(args, plan, results):
        out.append(f"![{picture['title']}]({picture['file']})\n\n")
    head = ["variant", "question", "switches", "trained numbers", "context tokens", "type", "loss at the start",
            f"at step {middle_of(first)[0]}", f"at step {steps}", "BLEU-4"]
    out.append("| " + " | ".join(head) + " |\n| " + " | ".join(["---"] * len(head)) + " |\n")
    for variant in plan["variants"]:
        if variant["name"] in results:
            out.append("| " + " | ".join(cell(part) for part in row(plan, variant, results[variant["name"]])) + " |\n")
    notes = [f"- {variant['name']}: {variant['note']}\n" for variant in plan["variants"]
             if "note" in variant and variant["name"] in results]
    out += ["\n", *notes] if notes else []
    write_file(args.page, "".join(out))
    print(f"wrote {args.page}: {len(results)} of {len(plan['variants'])} variants")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", help="folder with icae-pretrain and compare-runs")
    parser.add_argument("--list", default="configs/ablations/variants.json")
    parser.add_argument("--runs", default="runs/ablations")
    parser.add_argument("--page", default="docs/ablations.md")
    parser.add_argument("--steps", type=int, help="another budget than the config's")
    parser.add_argument("--threads", type=int, default=1, help="of every run, one after the other; 0: all")
    parser.add_argument("--base", help="another base than the config's")
    parser.add_argument("--only", action="append", help="train this variant only (again for more)")
    parser.add_argument("--no-training", action="store_true", help="only write the page, of what there is")
    args = parser.parse_args()
    try:
        plan = read_list(args.list)
        names = [variant["name"] for variant in plan["variants"]]
        for name in args.only or []:
            if name not in names:
                raise Refused(f"{args.list}: there is no variant '{name}'; there are: {', '.join(names)}")
        steps = args.steps or read_json(plan["config"])["train"]["steps"]
        for variant in plan["variants"]:
            if args.no_training or (args.only and variant["name"] not in args.only):
                continue
            train(args, plan, variant, wanted_settings(plan, variant, steps))
            write_page(args, plan, steps)
        write_page(args, plan, steps)
    except Refused as sentence:
        sys.exit(f"ablations: {sentence}")


if __name__ == "__main__":
    main()
