#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the paper's experiments with an adapter and writes what came out beside what the paper has.

    data/experiments.py BUILD -m BASE -a ADAPTER [--texts FILE] [--questions FILE] [-n SAMPLES]
                        [--tuned ADAPTER] [--tuned-plain ADAPTER] [--skip EXPERIMENT]... [--runs FOLDER]
                        [--page FILE.md]
    data/experiments.py --page docs/experiments.md          only writes the page, of all runs there are

Behind `make experiments`. BUILD is the folder with the program icae. Everything goes into a folder of the
adapter below runs/experiments; a run that was stopped goes on where it was (icae eval --out), what was measured is
not measured again. Hours with -n 100 on a workstation; -n 2 shows in minutes that it works, and is no result.

    --tuned         the adapter fine-tuned on questions, for qa; without it ADAPTER answers, untrained for that
    --tuned-plain   one fine-tuned the same way but never pretrained: compared with --tuned question by question
    --skip          leaves an experiment out, with slots refined or not: ae, lengths, lm, random, qa, plain (that of --tuned-plain),
                    latency; again for more. Latency is the one that needs a machine which does nothing else
    --refine        steps of the rows with refined slots, which the paper has nothing like (100; 0: none)
    --grid, --lengths, --context, --generate      smaller cells, for trying things out

The page is made anew from all folders, a row each for every experiment; nothing in it is written by hand. Its rows are
kept beside it (FILE.json, committed with it), so that those of other machines stay while folders go: a result in --runs
takes the place of the row with the same adapter and lengths. The first picture of every experiment's own page (its
report.html) becomes experiments-NAME.svg beside the page, and stays while folders go, too. Where ablations.svg lies
there (data/ablations.py), that is the picture of both layouts. Python 3, standard library only.
"""
import argparse
import json
import os
import re
import subprocess
import sys

SUITES = ["ae", "lengths", "lm", "random", "qa", "plain", "latency"]  # folders, plain for --tuned-plain
MARGIN = 0.1  # nats a token; as in src/learn/eval_qa.c

# name, what it is, the paper's result
EXPERIMENTS = [
    ("ae", "autoencoding, one span: BLEU-4 / loss",
     "512 -> 128: Llama-7b 99.1 / 0.017; Llama-2-7b 99.5 / 0.009; Llama-2-13b 99.8 / 0.004"),
    ("lengths", "autoencoding by length: BLEU-4 (median) / exact prefix (median)",
     "at 500 tokens, k = 128: BLEU over 0.95 (median over 0.98), median exact prefix about 0.6"),
    ("lm", "continuation: perplexity from raw context -> from slots",
     "128->128: 9.99 -> 10.15; 256->128: 9.45 -> 9.77; 512->128: 9.01 -> 9.50"),
    ("random", "content: loss, BLEU-4",
     "normal 0.01, 99.3; every id + 1 1.63, 3.5; random tokens 4.55, 0.2"),
    ("qa", "answers against the full context: win / lose / tie, %",
     "k = 128: 19.6 / 45.4 / 35.0; k = 256: 22.0 / 22.2 / 55.8 (PwC, judged by GPT-4)"),
    ("pretrained", "pretrained against not pretrained: win / lose / tie, %", "60.4 / 9.5 / 30.1 (judged by GPT-4)"),
    ("latency", "128 tokens written, times faster than the raw context, compression included",
     "8x2048 3.3; 8x512 2.2; 32x512 3.6"),
]

PAGE = """# The paper's experiments

What Ge et al. (arXiv 2307.06945) measured, and what this program's adapters give on the same kind of task. Made by `make experiments`
(`ADAPTER=`, `TUNED=`, `N=` and `MORE=` for what data/experiments.py takes), which runs `icae eval` and writes this page from the results; nothing here is written by hand,
and every row's command measures that row alone. Bases, texts and training are far smaller than the paper's, so the columns say how far one is, not who is better.

The paper asked free questions (PwC) and let GPT-4 judge the answers. Ours are synthetic, PwC-style (data/questions.py). Slots win one when
the right answer is likelier from them than from the text itself by more than 0.1 nats a token; the text is read by the bare base, which
was not tuned on such questions as the adapter was, so "win" says mostly that. What a user gets are the answers written: ROUGE-L, F1 and exact match, beside those from the text.
Samples are texts or questions, over all lengths of a row. Adapters in `runs/` were made by the commands of configs/README.md from the first milestone of adapters/smollm2-135m-4x.

"""

CURVES = """## Positions: AE loss with both layouts on equal budgets

The same training with slots at the positions of the text that they stand for (uniform) and behind it (append, as the paper has
them); more switches, and what all runs have in common, are in [ablations.md](ablations.md).

![Held-out AE loss over context tokens, layouts uniform and append](ablations.svg)
"""


def slug(path):
    return re.sub(r"[^A-Za-z0-9]+", "-", os.path.normpath(path)).strip("-")


def evaluate(args, folder, name, words):
    """Runs icae eval into folder/name; it takes what is there already, if that is of the same adapter and data."""
    if name.split("-")[0] in args.skip:
        return
    out = os.path.join(folder, name)
    command = [os.path.join(args.build, "icae"), "eval", *words, "-m", args.base, "--out", out]
    print("+ " + " ".join(command), flush=True)
    code = subprocess.run(command).returncode
    if code != 0:
        sys.exit(f"experiments: {name} ended with {code}; the same command goes on from there (remove {out} to measure anew)")


def run_all(args):
    folder = os.path.join(args.runs, slug(args.adapter))
    os.makedirs(folder, exist_ok=True)
    adapter, texts, n = ["-a", args.adapter], ["--data", args.texts], ["--samples", str(args.samples)]
    tuned = ["-a", args.tuned or args.adapter]
    generate = ["--generate", str(args.generate)]
    evaluate(args, folder, "ae", ["ae", *adapter, *texts, *n])
    evaluate(args, folder, "lengths", ["ae", *adapter, *texts, *n, "--lengths", args.lengths])
    evaluate(args, folder, "lm", ["lm", *adapter, *texts, *n, "--lengths", args.context])
    evaluate(args, folder, "random", ["random", *adapter, *texts, *n])
    evaluate(args, folder, "qa", ["qa", *tuned, "--data", args.questions, *n, *generate])
    if args.tuned_plain:
        evaluate(args, folder, "plain", ["qa", "-a", args.tuned_plain, "--data", args.questions, *n, *generate])
    if args.refine:
        refined = ["--refine", str(args.refine)]
        evaluate(args, folder, "ae-refined", ["ae", *adapter, *texts, *n, *refined])
        evaluate(args, folder, "lm-refined", ["lm", *adapter, *texts, *n, "--lengths", args.context, *refined])
        evaluate(args, folder, "random-refined", ["random", *adapter, *texts, *n, *refined])
        evaluate(args, folder, "qa-refined", ["qa", *tuned, "--data", args.questions, *n, *generate, *refined])
    evaluate(args, folder, "latency", ["latency", *adapter, "--grid", args.grid, *generate])


def read_results(folder, name):
    try:
        with open(os.path.join(folder, name, "results.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def read_rows(folder, name):
    with open(os.path.join(folder, name, "qa.jsonl"), encoding="utf-8") as file:
        head, *lines = map(json.loads, file)
    return head["data"], [(row["nll_slots"] / row["targets"]) for row in sorted(lines, key=lambda row: row["item"])]


def win_lose_tie(folder):
    """Of the fine-tuned adapter against the one that was never pretrained, on the same questions."""
    if not read_results(folder, "qa") or not read_results(folder, "plain"):
        return None
    (data, ours), (other_data, theirs) = read_rows(folder, "qa"), read_rows(folder, "plain")
    if data != other_data or len(ours) != len(theirs):
        sys.exit(f"experiments: {folder}: qa and plain are of different questions; remove one of them")
    over = [a - b for a, b in zip(ours, theirs)]
    share = [100 * sum(map(test, over)) / len(over) for test in
             (lambda x: x < -MARGIN, lambda x: x > MARGIN, lambda x: abs(x) <= MARGIN)]
    return "%.1f / %.1f / %.1f" % tuple(share)


def ours(folder, name, suffix):
    """The measured figures of one experiment in one line, and the results they are from; or None."""
    results = read_results(folder, ("qa" if name == "pretrained" else name) + suffix)
    if not results:
        return None
    lines = results["lines"]
    if name == "ae":
        text = f"{results['settings']['tokens']} -> {results['slots'] / results['n']:.0f}: " \
               f"{results['bleu4']:.1f} / {results['loss']:.3f}"
    elif name == "lengths":
        text = "; ".join(f"{line['group']} tokens: {line['bleu4']:.1f} ({line['median_bleu4']:.1f}) / "
                         f"{line['prefix_em']:.2f} ({line['median_prefix_em']:.2f})" for line in lines)
    elif name == "lm":
        text = "; ".join(f"{line['group'].replace(' ', '')}: {line['ppl_raw']:.2f} -> {line['ppl']:.2f} "
                         f"(nothing: {line['ppl_none']:.2f})" for line in lines)
    elif name == "random":
        text = "; ".join(f"{line['group']} {line['loss']:.2f}, {line['bleu4']:.1f}" for line in lines)
    elif name == "qa":
        text = f"{results['win']:.1f} / {results['lose']:.1f} / {results['tie']:.1f}"
        if results["recovered"] is not None:
            text += f"; share of the text's worth recovered {results['recovered']:.2f}"
        text += "; answers written, from the text in brackets: " + ", ".join(
            f"{label} {results[key]:.3f} ({results[key + '_raw']:.3f})"
            for label, key in (("ROUGE-L", "rouge_l"), ("F1", "f1"), ("exact match", "exact_match")))
    elif name == "pretrained":
        text = win_lose_tie(folder)
        plain = read_results(folder, "plain")
        if plain:
            results = dict(results, adapter=f"{results['adapter']} against {plain['adapter']}",
                           command=f"{results['command']}; {plain['command']}")
    else:
        text = "; ".join(f"{line['group'].replace(' ', '')} {line['speedup']:.2f} ({line['compress_s']:.1f} s making slots and "
                         f"{line['slots_s']:.1f} s writing from them, {line['raw_s']:.1f} s with the text; slots at hand "
                         f"{line['speedup_cached']:.2f}; KV cache {line['slots_kv_mib']:.0f} of {line['raw_kv_mib']:.0f} MiB)"
                         for line in lines) + f"; {machine()}"
    return text and (text, results)


def machine():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = re.search(r"model name\s*: (.*)", file.read())
    except FileNotFoundError:
        name = None
    return f"{name[1] if name else 'a processor without a name'}, {os.cpu_count()} threads"


def keep_picture(args, name, folder):
    """The first picture of icae eval's page, in the page's light colours, as a file of its own."""
    try:
        with open(os.path.join(folder, "report.html"), encoding="utf-8") as file:
            page = file.read()
    except FileNotFoundError:
        return
    svg = re.search(r"<svg (.*?</svg>)", page, re.S)
    if not svg:
        return
    colours = dict(re.findall(r"(--[\w-]+):(#\w+)", re.search(r":root{(.*?)}", page)[1]))
    font = "font-family=\"system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\""
    inner = svg[1].replace(">", "><rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>", 1)
    inner = re.sub(r"var\((--[\w-]+)\)", lambda name: colours[name[1]], inner)
    write_file(picture_path(args, name), f"<svg xmlns=\"http://www.w3.org/2000/svg\" {font} {inner}\n")


def picture_path(args, name):
    return f"{os.path.splitext(args.page)[0]}-{name}.svg"


def cell(text):
    return str(text).replace("|", "\\|")


def identity(row):
    return row["kind"], row["adapter"], re.findall(r"--lengths (\S+)", row["command"])


def collect(args):
    """{experiment: its rows}: as kept beside the page, with those of all folders in place of older ones; then keeps them."""
    path = os.path.splitext(args.page)[0] + ".json"
    rows = {name: [] for name, *_ in EXPERIMENTS}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            rows.update(json.load(file))
    folders = sorted(entry.path for entry in os.scandir(args.runs) if entry.is_dir()) if os.path.isdir(args.runs) else []
    for folder, name, suffix in ((folder, name, suffix) for folder in folders for name in rows for suffix in ("", "-refined")):
        found = ours(folder, name, suffix) if not (suffix and name == "pretrained") else None
        if not found:
            continue
        text, results = found
        row = {"kind": "ours, slots refined" if suffix else "ours", "result": text, "samples": sum(line["n"] for line in results["lines"]),
               "base": os.path.basename(results["base"]), "adapter": results["adapter"],
               "data": results["data"] or "random tokens", "command": results["command"]}
        if not suffix and name != "pretrained":
            keep_picture(args, name, os.path.join(folder, name))
        same = [i for i, old in enumerate(rows[name]) if identity(old) == identity(row)]
        if same:
            rows[name][same[0]] = row
        else:
            rows[name].append(row)
    write_file(path, json.dumps(rows, indent=1) + "\n")
    return rows


def write_file(path, text):
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".tmp", path)


def write_page(args):
    rows = collect(args)
    out = [PAGE]
    for name, title, paper in EXPERIMENTS:
        out.append(f"## {title[0].upper()}{title[1:]}\n\n| | result | samples | base | adapter | data | command |\n"
                   f"| --- | --- | --- | --- | --- | --- | --- |\n| paper | {cell(paper)} | | | | | |\n")
        for row in rows[name]:
            parts = [*list(row.values())[:-1], f"`{row['command']}`"]
            out.append("| " + " | ".join(cell(part) for part in parts) + " |\n")
        if os.path.exists(picture_path(args, name)):
            out.append(f"\n![{cell(title[0].upper() + title[1:])}]({os.path.basename(picture_path(args, name))})\n")
        out.append("\n")
    if os.path.exists(os.path.join(os.path.dirname(args.page), "ablations.svg")):
        out.append(CURVES)
    write_file(args.page, "".join(out).rstrip("\n") + "\n")
    print(f"wrote {args.page}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?")
    parser.add_argument("-m", "--base")
    parser.add_argument("-a", "--adapter")
    parser.add_argument("--tuned")
    parser.add_argument("--tuned-plain")
    parser.add_argument("--texts", default="data/texts/heldout-000.jsonl")
    parser.add_argument("--questions", default="data/texts/questions-heldout.jsonl")
    parser.add_argument("-n", "--samples", type=int, default=100)
    parser.add_argument("--lengths", default="100,200,300,400,500")
    parser.add_argument("--context", default="128,256,512")
    parser.add_argument("--grid", default="8x2048,8x512,32x512")
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--refine", type=int, default=100, help="steps for the rows with refined slots; 0: none")
    parser.add_argument("--skip", action="append", default=[], choices=SUITES, help="leaves it out; again for more")
    parser.add_argument("--runs", default="runs/experiments")
    parser.add_argument("--page", default="docs/experiments.md")
    args = parser.parse_args()
    if args.build:
        if not args.base or not args.adapter:
            parser.error("which base and adapter? Give -m BASE -a ADAPTER")
        run_all(args)
    write_page(args)


if __name__ == "__main__":
    main()
