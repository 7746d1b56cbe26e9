# SPDX-License-Identifier: MIT
"""What data/extract_texts.py and data/questions.py promise, on made-up texts (`make check-pages`)."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "data"))
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


if __name__ == "__main__":
    unittest.main()
