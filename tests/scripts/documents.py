# SPDX-License-Identifier: MIT
"""What the documents say of options, keys, files and links, against the source (`make check-pages`)."""

import os
import re
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FOLDERS = ("docs", "configs", "data", "infer", "src", "tests", "adapters")


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def documents():
    yield "README.md"
    for folder in FOLDERS:
        for place, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in sorted(names):
                if name.endswith(".md"):
                    yield os.path.relpath(os.path.join(place, name), ROOT)


def anchors(text):
    """As GitHub names headings: small letters, marks dropped, spaces to hyphens."""
    lines = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).split("\n")
    names = [re.sub(r"^#+ ", "", line).strip().lower() for line in lines if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", name).replace(" ", "-") for name in names}


class Documents(unittest.TestCase):
    def test_every_link_leads_somewhere(self):
        for name in documents():
            for link in re.findall(r"\]\(([^)\s]+)\)", read(name)):
                if link.startswith("http"):
                    continue
                path, _, heading = link.partition("#")
                path = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
                self.assertTrue(os.path.exists(os.path.join(ROOT, path)), f"{name}: {link}")
                if heading:
                    self.assertIn(heading, anchors(read(path)), f"{name}: {link}")

    def test_every_option_is_in_cli_md(self):
        page = read("docs/cli.md")
        options = set(re.findall(r'^    \{(?:0|\'.\'), "([a-z-]+)"', read("infer/options.c"), re.M))
        self.assertGreater(len(options), 30)
        # Those of one letter are told of by it.
        letters = dict(re.findall(r'^    \{\'(.)\', "([a-z-]+)"', read("infer/options.c"), re.M))
        short = {name: "-" + letter for letter, name in letters.items()}
        options |= set(re.findall(r'^    "    --([a-z-]+)', read("train/pretrain.c"), re.M))
        for option in sorted(options):
            said = [word for word in ("--" + option, short.get(option)) if word]
            found = any(re.search(r"(?<![\w-])" + re.escape(word) + r"(?![\w-])", page) for word in said)
            self.assertTrue(found, f"docs/cli.md has no --{option}")

    def test_every_key_of_a_config_is_in_its_table(self):
        rows = re.findall(r'^    X\("([a-z]*)", +"(\w+)", +\w+, +(\w+),', read("src/learn/settings.c"), re.M)
        self.assertGreater(len(rows), 50)
        table = {}
        for line in read("configs/README.md").split("\n"):
            cell = line.split("|")[1] if line.startswith("| `") else ""
            section = ""
            for key in re.findall(r"`([\w.]+)`", cell):
                if "." in key:
                    section = key.partition(".")[0]
                table[key if "." in key or not section else f"{section}.{key}"] = cell.rstrip().endswith("*")
        for section, key, mobility in rows:
            name = f"{section}.{key}" if section else key
            self.assertIn(name, table)
            # The threads of a run are in its checkpoints, which refuse others.
            self.assertEqual(table[name], mobility == "FREE" and name != "train.threads", f"the star of {name}")

    def test_every_source_file_is_in_its_folder_s_page(self):
        for folder in ["infer"] + ["src/" + name for name in os.listdir(os.path.join(ROOT, "src"))]:
            page = read(folder + "/README.md")
            patterns = [re.escape(p).replace(r"\*", ".*") for p in re.findall(r"`([\w.*]+\.c)`", page)]
            patterns += ["op_.*"] if "`op_NAME.c`" in page else []
            for name in os.listdir(os.path.join(ROOT, folder)):
                if name.endswith(".c"):
                    self.assertTrue(any(re.fullmatch(p, name) for p in patterns), f"{folder}/README.md has no {name}")


if __name__ == "__main__":
    unittest.main()
