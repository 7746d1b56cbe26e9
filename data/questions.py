# SPDX-License-Identifier: MIT
"""Questions with exact answers about passages of the fetched texts: rows {"input", "prompt", "answer"}.

Synthetic, in the style of PwC (prompt with context, arXiv 2307.06945), whose own rows were written by a
large model. Here every answer follows from the passage by rule, so that an exact match means something:

    title, topic, description   of an encyclopaedia article's introduction
    verse                       the text of the verse with a number
    first, last                 first and last sentence
    after                       the sentence that follows a quoted one
    continue                    the rest of a sentence of which the beginning is quoted
    blank                       the word that is missing from a quoted sentence
    occurs                      whether a word occurs in the passage: Yes or No
    restate                     the passage itself

A passage is an article's introduction, or some consecutive sentences of a paragraph, or numbered verses;
at most MOST_WORDS words. Rows of one passage follow each other, so that it is compressed once. Train and
held-out rows come from train and held-out documents. Every draw is a hash of the passage's name.
"""

import hashlib
import re

MOST_WORDS = 120
LEAST_WORDS = 25
WORDS_PER_PASSAGE = 1500  # of a document: a book gives many passages, an article one
MOST_PASSAGES = 8  # of a document
ROWS_PER_PASSAGE = 5

PROMPTS = {
    "title": (
        "What is this text about? Give its title.",
        "Name the subject of the text.",
        "Which title would an encyclopaedia give this article?",
    ),
    "topic": (
        "To which field does the text belong?",
        "What is the topic area of this text?",
    ),
    "description": (
        "Describe the subject of the text in a few words.",
        "What is the thing described here, in short?",
    ),
    "verse": (
        "What does verse %s say?",
        "Quote verse %s.",
    ),
    "first": (
        "What is the first sentence of the text?",
        "How does the text begin? Quote its first sentence.",
    ),
    "last": (
        "What is the last sentence of the text?",
        "How does the text end? Quote its last sentence.",
    ),
    "after": (
        'Which sentence follows "%s"?',
        'Quote the sentence that comes after "%s"',
    ),
    "continue": (
        'How does the sentence that begins with "%s" go on?',
        'Complete from the text: "%s"',
    ),
    "blank": (
        'Which word is missing here: "%s"?',
        'Fill in the blank: "%s"',
    ),
    "occurs": (
        'Does the word "%s" occur in the text? Answer Yes or No.',
        'Is the word "%s" in the text? Answer Yes or No.',
    ),
    "restate": (
        "Repeat the text word for word.",
        "Write out the whole text again.",
    ),
}

ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Sir|Col|Gen|Capt|Lt|Rev|Hon|Prof|Jr|Sr|No|vs|etc|cf|e\.g|i\.e|ca|c|Vol|pp?|al)"
    r"|\b[A-Z]|\b[A-Z]\.[A-Z])\.$"
)


def draw(name, count):
    """A number below count that depends on the name alone."""
    return int(hashlib.sha256(name.encode("utf-8")).hexdigest()[:12], 16) % count


def sentences(paragraph):
    parts, start = [], 0
    for match in re.finditer(r"[.!?][\"'”’)\]]*(?= +[\"'“‘(\[]?[A-Z0-9])", paragraph):
        piece = paragraph[start : match.end()].strip()
        if match.group(0) == "." and ABBREVIATION.search(piece):
            continue
        parts.append(piece)
        start = match.end()
    rest = paragraph[start:].strip()
    return parts + [rest] if rest else parts


def words(text):
    return re.findall(r"[A-Za-z]+(?:['’-][A-Za-z]+)*", text)


def stands_in(word, text):
    """Whether the word stands in the text by itself, no part of a longer one (\"Yasujir\" of \"Yasujirō\")."""
    return re.search(r"(?<!\w)%s(?!\w)" % re.escape(word), text) is not None


def article_passage(text):
    """As many whole sentences of the introduction as fit."""
    kept, count = [], 0
    for sentence in sentences(" ".join(text.split())):
        count += len(sentence.split())
        if kept and count > MOST_WORDS:
            break
        kept.append(sentence)
    return kept


def passages(name, text):
    """Some of the places in a document where enough whole sentences stand together."""
    places = []
    for paragraph in text.split("\n"):
        if len(paragraph.split()) < LEAST_WORDS or not re.search(r"[.!?][\"'”’)\]]*$", paragraph):
            continue
        run, count = [], 0
        limit = LEAST_WORDS + draw("limit %s %d" % (name, len(places)), MOST_WORDS - LEAST_WORDS)
        for sentence in sentences(paragraph):
            size = len(sentence.split())
            if run and count + size > limit:
                places.append(run)
                run, count = [], 0
            run.append(sentence)
            count += size
        places.append(run)
    places = [p for p in places if LEAST_WORDS <= len(" ".join(p).split()) <= MOST_WORDS]
    wanted = min(MOST_PASSAGES, 1 + len(text.split()) // WORDS_PER_PASSAGE, len(places))
    order = sorted(range(len(places)), key=lambda i: draw("place %s %d" % (name, i), 1 << 40))
    return [places[i] for i in sorted(order[:wanted])]


def blank(sentence, name):
    """(sentence with ___ for a word that occurs in it once, the word) or None."""
    found = [w for w in words(sentence) if len(w) > 4]
    found = [w for w in found if len(re.findall(r"(?<!\w)%s(?!\w)" % re.escape(w), sentence)) == 1]
    if not found:
        return None
    word = found[draw("blank " + name, len(found))]
    return re.sub(r"(?<!\w)%s(?!\w)" % re.escape(word), "___", sentence), word


def general_answers(name, parts, stranger):
    """task -> (what the prompt quotes or None, answer); stranger: a word that may not be there."""
    text = " ".join(parts)
    answers = {"restate": (None, text)}
    if len(parts) >= 2:
        answers["first"] = (None, parts[0])
        answers["last"] = (None, parts[-1])
        at = draw("after " + name, len(parts) - 1)
        if text.count(parts[at]) == 1 and len(parts[at].split()) <= 40:
            answers["after"] = (parts[at], parts[at + 1])
    sentence = parts[draw("continue " + name, len(parts))]
    cut = sentence.split()
    if len(cut) >= 8:
        begin = " ".join(cut[: 3 + draw("cut " + name, len(cut) // 2 - 2)])
        if text.count(begin) == 1:
            answers["continue"] = (begin, " ".join(cut)[len(begin) :].strip())
    made = blank(parts[draw("which " + name, len(parts))], name)
    if made:
        answers["blank"] = made
    inside = sorted({w for w in words(text) if len(w) > 4 and stands_in(w, text)})
    if draw("occurs " + name, 2) and inside:
        answers["occurs"] = (inside[draw("inside " + name, len(inside))], "Yes")
    elif stranger and stranger.lower() not in text.lower():
        answers["occurs"] = (stranger, "No")
    return answers


def choose(name, text, answers):
    """The rows of one passage, at most ROWS_PER_PASSAGE; the rarer tasks always."""
    rare = [task for task in ("title", "topic", "description", "verse") if task in answers]
    rest = sorted(
        (task for task in answers if task not in rare), key=lambda t: draw(t + name, 1 << 40)
    )
    for task in (rare + rest)[:ROWS_PER_PASSAGE]:
        quoted, answer = answers[task]
        prompt = PROMPTS[task][draw("prompt %s %s" % (task, name), len(PROMPTS[task]))]
        yield {
            "input": text,
            "prompt": prompt % quoted if "%s" in prompt else prompt,
            "answer": answer,
            "task": task,
            "id": name,
        }


def numbered(name, verses):
    """Consecutive verses with their numbers, at most MOST_WORDS words."""
    if len(verses) < 3:
        return None
    first = draw("verse " + name, len(verses) - 2)
    last, count = first, 0
    while last < len(verses) and count + len(verses[last].split()) <= MOST_WORDS:
        count += len(verses[last].split())
        last += 1
    return (first, verses[first:last]) if last - first >= 2 else None


def make(documents, articles, chapters):
    """Rows of one side of the split.

    documents: {"id", "source", "text"}, without encyclopaedia and bible; articles: wiki.jsonl's rows;
    chapters: (name, [verse, ...])."""
    rows, stranger = [], None

    def add(name, parts, more):
        nonlocal stranger
        text = " ".join(parts)
        answers = dict(general_answers(name, parts, stranger), **more)
        rows.extend(choose(name, text, answers))
        candidates = [w for w in words(text) if len(w) > 4 and w.islower()]
        if candidates:
            stranger = candidates[draw("stranger " + name, len(candidates))]

    for article in sorted(articles, key=lambda row: row["id"]):
        more = {}
        for key in ("title", "topic", "description"):
            if article[key] and article[key] != "Uncategorized":
                more[key] = (None, article[key])
        add(article["id"], article_passage(article["text"]), more)
    for name, verses in chapters:
        found = numbered(name, verses)
        if found:
            first, some = found
            which = draw("number " + name, len(some))
            parts = ["%d %s" % (first + i + 1, verse) for i, verse in enumerate(some)]
            add(name, parts, {"verse": (str(first + which + 1), some[which])})
    for item in sorted(documents, key=lambda item: item["id"]):
        for i, parts in enumerate(passages(item["id"], item["text"])):
            add("%s#%d" % (item["id"], i), parts, {})
    groups = {}
    for row in rows:
        groups.setdefault(row["id"], []).append(row)
    return [row for name in sorted(groups, key=lambda n: draw("order " + n, 1 << 48)) for row in groups[name]]
