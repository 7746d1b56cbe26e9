#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""data/ablations.py and data/experiments.py on made-up results: what they run, skip, resume, refuse and write.

    tests/scripts/pages.py COMPARE-RUNS          behind `make check-pages`

Both run as users run them, in a folder of their own, with a program in icae-pretrain's place that writes a run folder at
once and notes how it was called. Pictures are drawn by the real compare-runs. Standard library only.
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.dom.minidom

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMPARE_RUNS = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else sys.exit(__doc__)

# As icae-pretrain, as far as the script sees: config.json, metrics.jsonl, checkpoints, adapter; with the word STOP in the
# environment it stops half-way, as after a signal.
TRAINER = r'''#!/usr/bin/env python3
import json, os, struct, sys
words = sys.argv[1:]
config = json.load(open(words[0]))
for i, word in enumerate(words):
    if word == "--set":
        key, text = words[i + 1].split("=", 1)
        try: value = json.loads(text)
        except ValueError: value = text
        at = config
        *sections, key = key.split(".")
        for section in sections: at = at.setdefault(section, {})
        at[key] = value
out, steps = config["out"], config["train"]["steps"]
config["train"]["compute"] = "f32"
with open("calls", "a") as file: file.write(" ".join(words[1:]) + "\n")
os.makedirs(out + "/checkpoints/step-0000001", exist_ok=True)
json.dump(config, open(out + "/config.json", "w"))
slots = config["adapter"]["memory_slots"]
end = steps // 2 if "STOP" in os.environ else steps
with open(out + "/metrics.jsonl", "w") as file:
    for step in range(end + 1):
        if step: file.write(json.dumps({"step": step, "ae_loss": 5.0, "total_tokens": 100 * step}) + "\n")
        if step % 5 == 0:
            file.write(json.dumps({"step": step, "heldout_samples": 32, "heldout_ae_loss": 9 - 0.03 * slots * step,
                                   "restored": 8, "bleu4": 12.34, "prefix_em": 0, "exact": 3}) + "\n")
    file.write('{"step": 99')
if end < steps: sys.exit(143)
os.makedirs(out + "/adapter", exist_ok=True)
open(out + "/adapter/icae.json", "w").write("{}")
for name, shape in (("adapter_model", [7, 1000]), ("memory", [slots + 3, 10])):
    head = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    open(f"{out}/adapter/{name}.safetensors", "wb").write(struct.pack("<Q", len(head)) + head)
'''

LIST = {
    "config": "common.json",
    "variants": [
        {"name": "uniform", "question": "the first", "set": []},
        {"name": "four | slots", "question": "fewer", "set": ["adapter.memory_slots=4", "adapter.layout=append"], "note": "a note"},
        {"name": "last", "question": "rank", "set": ["adapter.rank=2"]},
    ],
    "pictures": [{"file": "one.svg", "title": "A <title>", "variants": ["uniform", "four | slots", "last"]}],
}
COMMON = {"out": "runs/common", "adapter": {"memory_slots": 8, "layout": "uniform", "rank": 1},
          "objective": {"context_tokens": 16}, "train": {"steps": 10}}


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="pages-")
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("build", "docs"):
            os.mkdir(self.path(name))

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as file:
            file.write(text if isinstance(text, str) else json.dumps(text))

    def read(self, name):
        with open(self.path(name)) as file:
            return file.read()

    def run_script(self, script, *words, code=0, **environment):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "data", script), *words], cwd=self.folder,
                              env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(done.returncode, code, done.stderr)
        return done


class Ablations(Folder):
    def setUp(self):
        super().setUp()
        self.write("build/icae-pretrain", TRAINER)
        os.chmod(self.path("build/icae-pretrain"), 0o755)
        os.symlink(COMPARE_RUNS, self.path("build/compare-runs"))
        self.write("common.json", COMMON)
        self.write("list.json", LIST)

    def ablations(self, *words, **more):
        return self.run_script("ablations.py", "build", "--list", "list.json", *words, **more)

    def calls(self):
        return self.read("calls").splitlines()

    def rows(self):
        return [line.split(" | ") for line in self.read("docs/ablations.md").replace("\\|", "/").splitlines()
                if line.startswith("| ")][2:]

    def test_every_variant_becomes_a_row_and_a_curve(self):
        self.ablations()
        rows = self.rows()
        self.assertEqual([row[0] for row in rows], ["| uniform", "| four / slots", "| last"])
        self.assertEqual(rows[0][2:], ["`common.json`", "7,110", "1,000", "f32", "9.00", "7.80", "6.60", "12.3 |"])
        self.assertEqual(rows[1][2:9], ["`adapter.memory_slots=4` `adapter.layout=append`", "7,070", "1,000", "f32", "9.00", "8.40", "7.80"])
        page, picture = self.read("docs/ablations.md"), self.read("docs/one.svg")
        self.assertIn("![A <title>](one.svg)", page)
        self.assertIn("1,000 context tokens (10 steps) in texts of at most 16 tokens, or as its switches say (longer", " ".join(page.split()))
        self.assertIn("- four | slots: a note", page)
        self.assertNotIn(self.folder, page)
        xml.dom.minidom.parseString(picture)
        self.assertEqual(picture.count("<circle"), 3 * 3)
        self.assertIn("A &lt;title&gt;", picture)
        self.assertIn(">context tokens<", picture)

    def test_what_is_done_is_kept_and_what_was_stopped_goes_on(self):
        self.ablations("--only", "uniform")
        said = self.ablations(code=1, STOP="1").stderr
        self.assertIn("four | slots ended with 143", said)
        self.assertEqual([row[0] for row in self.rows()], ["| uniform"])
        self.ablations()
        self.assertEqual([call.endswith("--resume") for call in self.calls()], [False, False, True, False])
        self.assertEqual(len(self.rows()), 3)
        self.ablations()
        self.assertEqual(len(self.calls()), 4)

    def test_a_larger_budget_goes_on_and_an_unequal_one_has_no_row(self):
        self.ablations()
        self.ablations("--steps", "20", "--only", "last")
        self.assertIn("--set train.steps=20 --resume", self.calls()[-1])
        self.assertEqual([row[0] for row in self.rows()], ["| last"])
        self.ablations("--no-training")  # the first ten steps of the longer run are a run of ten steps
        self.assertEqual([row[8] for row in self.rows()], ["6.60", "7.80", "6.60"])
        self.assertEqual(len(self.calls()), 4)

    def test_rows_outlive_their_runs_until_the_recipe_changes(self):
        self.ablations()
        page, picture = self.read("docs/ablations.md"), self.read("docs/one.svg")
        shutil.rmtree(self.path("runs"))
        self.ablations("--no-training")
        self.assertEqual((self.read("docs/ablations.md"), self.read("docs/one.svg")), (page, picture))
        self.write("list.json", {**LIST, "variants": [*LIST["variants"][:2], {**LIST["variants"][2], "set": ["adapter.rank=3"]}]})
        self.ablations("--no-training")
        self.assertEqual([row[0] for row in self.rows()], ["| uniform", "| four / slots"])
        self.assertEqual(list(json.loads(self.read("docs/ablations.json"))), ["uniform", "four | slots"])
        self.write("common.json", {**COMMON, "train": {"steps": 10, "lr": 1}})
        self.assertIn("is left as it is", self.ablations("--no-training").stdout)

    def test_a_folder_of_another_list_is_refused(self):
        self.ablations()
        self.write("list.json", {**LIST, "variants": [{**LIST["variants"][0], "set": ["adapter.rank=3"]}, *LIST["variants"][1:]]})
        said = self.ablations(code=1).stderr
        self.assertIn("was made with adapter.rank = 1, the list has 3", said)

    def test_a_list_that_makes_no_sense_is_refused(self):
        strange = [{}, {**LIST, "variants": []}, {**LIST, "variants": LIST["variants"] + LIST["variants"][:1]},
                   {**LIST, "variants": [{"name": "a", "question": "b", "set": ["rank"]}]},
                   {**LIST, "pictures": [{"file": "a", "title": "b", "variants": ["nobody"]}]}]
        for content in strange:
            self.write("list.json", content)
            self.assertIn("ablations: list.json", self.ablations(code=1).stderr)
        self.write("list.json", LIST)
        os.remove(self.path("build/icae-pretrain"))
        self.assertIn("build it with: make build/icae-pretrain", self.ablations(code=1).stderr)
        self.assertIn("there is no variant 'nobody'", self.ablations("--only", "nobody", code=1).stderr)

    def test_the_committed_list_names_what_there_is(self):
        with open(os.path.join(ROOT, "configs", "ablations", "variants.json")) as file:
            committed = json.load(file)
        with open(os.path.join(ROOT, committed["config"])) as file:
            self.assertEqual(json.load(file)["adapter"]["layout"], "uniform")
        for variant in committed["variants"]:
            self.assertFalse(any(word.startswith(("out=", "base=", "train.steps=")) for word in variant["set"]), variant)
        shutil.copytree(os.path.join(ROOT, "configs"), self.path("configs"))
        self.run_script("ablations.py", "build")
        self.assertEqual(len(self.rows()), len(committed["variants"]))
        for picture in committed["pictures"]:
            xml.dom.minidom.parseString(self.read("docs/" + picture["file"]))


def results(**values):
    return {"base": "some/base.gguf", "adapter": "mine", "data": "texts.jsonl", "command": "icae eval", "lines": [{"n": 5}], **values}


class Experiments(Folder):
    def test_the_page_has_a_row_for_what_there_is(self):
        span = {"settings": {"tokens": 64}, "slots": 80, "n": 5}
        self.write("runs/experiments/mine/ae/results.json", results(bleu4=98.76, loss=0.0123, **span))
        self.write("runs/experiments/mine/ae-refined/results.json", results(bleu4=100, loss=0, **span))
        self.run_script("experiments.py")
        page = self.read("docs/experiments.md")
        self.assertIn("| ours | 64 -> 16: 98.8 / 0.012 | 5 | base.gguf | mine | texts.jsonl | `icae eval` |", page)
        self.assertEqual(page.count("| ours, slots refined |"), 1)
        self.assertEqual(page.count("| paper |"), 7)
        self.assertNotIn("ablations.svg", page)
        self.write("docs/ablations.svg", "<svg/>")
        self.run_script("experiments.py")
        self.assertIn("](ablations.svg)", self.read("docs/experiments.md"))

    def test_rows_outlive_their_runs_and_give_way_to_new_ones(self):
        def measure(folder, adapter, bleu4):
            self.write(f"runs/experiments/{folder}/ae/results.json",
                       results(adapter=adapter, bleu4=bleu4, loss=1, settings={"tokens": 64}, slots=80, n=5))
            self.run_script("experiments.py")
            shutil.rmtree(self.path("runs"))

        measure("a", "mine", 10)
        measure("b", "theirs", 20)
        measure("c", "mine", 30)
        self.run_script("experiments.py")
        found = [line.split(" | ")[1:5] for line in self.read("docs/experiments.md").splitlines() if line.startswith("| ours")]
        self.assertEqual([(row[0], row[3]) for row in found], [("64 -> 16: 30.0 / 1.000", "mine"), ("64 -> 16: 20.0 / 1.000", "theirs")])

    def test_the_first_picture_of_a_run_s_page_stands_beside_the_page(self):
        folder = "runs/experiments/mine/ae/"
        self.write(folder + "results.json", results(bleu4=1, loss=1, settings={"tokens": 64}, slots=80, n=5))
        self.run_script("experiments.py")
        self.assertNotIn("experiments-ae.svg", self.read("docs/experiments.md"))
        self.write(folder + "report.html", "<style>\n:root{--paper:#fff}\n</style><svg viewBox=\"0 0 9 9\">\n<path fill=\"var(--paper)\"/></svg><svg>2</svg>")
        self.run_script("experiments.py")
        self.assertIn("](experiments-ae.svg)", self.read("docs/experiments.md"))
        picture = xml.dom.minidom.parseString(self.read("docs/experiments-ae.svg")).documentElement
        drawn = [(child.nodeName, child.getAttribute("fill")) for child in picture.childNodes if child.nodeType == 1]
        self.assertEqual(drawn, [("rect", "#fff"), ("path", "#fff")])

    def test_pretrained_against_plain_counts_questions(self):
        for name, losses in (("qa", [1, 2, 3, 4]), ("plain", [2, 2.05, 2, 5])):
            self.write(f"runs/experiments/mine/{name}/results.json",
                       results(win=0, lose=0, tie=100, recovered=None, rouge_l=0, rouge_l_raw=0, f1=0, f1_raw=0, exact_match=0, exact_match_raw=0))
            lines = [{"data": 7}] + [{"item": i, "nll_slots": 2 * loss, "targets": 2} for i, loss in enumerate(losses)]
            self.write(f"runs/experiments/mine/{name}/qa.jsonl", "\n".join(map(json.dumps, lines)))
        self.run_script("experiments.py")
        self.assertIn("| ours | 50.0 / 25.0 / 25.0 | 5 | base.gguf | mine against mine |", self.read("docs/experiments.md"))

    def test_an_experiment_is_left_out_where_asked(self):
        self.write("build/icae", "#!/bin/sh\necho \"$@\" >> calls\n")
        os.chmod(self.path("build/icae"), 0o755)
        words = ["build", "-m", "base", "-a", "mine", "--tuned-plain", "plain"]
        self.run_script("experiments.py", *words, "--skip", "latency", "--skip", "qa")
        suites = [line.split()[1] for line in self.read("calls").splitlines()]
        self.assertEqual(suites, ["ae", "ae", "lm", "random", "qa", "ae", "lm", "random"])
        self.run_script("experiments.py", *words, "--skip", "speed", code=2)


if __name__ == "__main__":
    unittest.main()
