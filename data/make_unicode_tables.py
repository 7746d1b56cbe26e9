#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the Unicode tables of src/formats: classes of characters, and canonical composition.

    python3 data/make_unicode_tables.py classes > src/formats/unicode_tables.inc
    python3 data/make_unicode_tables.py nfc > src/formats/unicode_nfc.inc
    python3 data/make_unicode_tables.py lower > src/formats/unicode_lower.inc

Pre-tokenizers split text by \\p{L}, \\p{N} and \\s, so those tables must be of the Unicode version
that Hugging Face's tokenizers were built with (16.0). Its normalizer NFC comes from another library
(unicode-normalization-alignments) and is of Unicode 9.0; normalization data of a character never
changes once it is assigned, so 9.0 is 16.0 without the characters that came in between.

Small letters are those of this Python's own str.lower, to which answers are compared in published
metrics; the version is told in the table. A mapping once given never changes.

Python 3.14 carries 16.0; an older one can `pip install unicodedata2==16.0.0`. Building the C
program needs neither.
"""
import sys

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

WANTED = "16.0.0"

# The property White_Space of PropList.txt, which general categories do not give exactly.
WHITE_SPACE = {9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
WHITE_SPACE.update(range(0x2000, 0x200B))

# Characters with a combining class or a decomposition that Unicode 9.0 did not have yet.
NEWER = """7FD 897-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1ACE 1DF6-1DFA A82C 105C9 105E4
    10D24-10D27 10D69-10D6D 10EAB-10EAC 10EFD-10EFF 10F46-10F50 10F82-10F85 11070 1133B 11383 11385
    1138E 11391 113C5 113C7-113C8 113CE-113D0 1145E 11839-1183A 11938 1193D-1193E 11943 119E0 11A34
    11A47 11A99 11D42 11D44-11D45 11D97 11F41-11F42 16121-16128 1612F 16D68-16D6A 16FF0-16FF1 1E08F
    1E130-1E136 1E2AE 1E2EC-1E2EF 1E4EC-1E4EF 1E5EE-1E5EF"""
HANGUL = range(0xAC00, 0xD7A4)  # composed by arithmetic
HANGUL_PARTS = list(range(0x1161, 0x1176)) + list(range(0x11A8, 0x11C3))


def class_of(point):
    if point in WHITE_SPACE:
        return "SPACE"
    return {"L": "LETTER", "N": "NUMBER"}.get(unicodedata.category(chr(point))[0])


def ranges(value_of):
    """(first, last, value), ascending, where the value is not None; equal neighbours are joined."""
    found = []
    for point in range(0x110000):
        value = value_of(point)
        if value is None:
            continue
        if found and found[-1][1] == point - 1 and found[-1][2] == value:
            found[-1][1] = point
        else:
            found.append([point, point, value])
    return found


def newer_points():
    points = set()
    for part in NEWER.split():
        first, _, last = part.partition("-")
        points.update(range(int(first, 16), int(last or first, 16) + 1))
    return points


def decompositions():
    """{point: (first, second)} one step deep, second 0 where it is one character."""
    newer, found = newer_points(), {}
    for point in range(0x110000):
        mapping = unicodedata.decomposition(chr(point))
        if mapping and mapping[0] != "<" and point not in newer and point not in HANGUL:
            parts = [int(part, 16) for part in mapping.split()]
            found[point] = (parts[0], parts[1] if len(parts) > 1 else 0)
    return found


def is_composed(point):
    return unicodedata.normalize("NFC", chr(point)) == chr(point)


def nfc_tables():
    newer, pairs = newer_points(), decompositions()
    composed = sorted((*pair, point) for point, pair in pairs.items() if pair[1] and is_composed(point))
    seconds = {second for _, second, _ in composed}.union(HANGUL_PARTS)

    def class_if_unsafe(point):
        """The combining class of what NFC may change where it stands (0 for starters), or None."""
        combining = 0 if point in newer else unicodedata.combining(chr(point))
        changes = point in pairs and not is_composed(point)
        return combining if combining or changes or point in seconds else None

    return ranges(class_if_unsafe), sorted(pairs.items()), composed


def print_cells(cells, per_line):
    for i in range(0, len(cells), per_line):
        print(" ".join(cells[i:i + per_line]))


def print_classes():
    print(f"/* Unicode {WANTED}: letters (L*), numbers (N*) and White_Space, as ascending ranges.")
    print(" * Made by data/make_unicode_tables.py; do not edit. */")
    print("/* clang-format off */")
    print_cells([f"{{0x{first:05X}, 0x{last:05X}, {name}}}," for first, last, name in ranges(class_of)], 3)
    print("/* clang-format on */")


def print_nfc():
    unsafe, pairs, composed = nfc_tables()
    print("/* Unicode 9.0: what canonical composition needs, all ascending; Hangul syllables left out.")
    print(" * Made by data/make_unicode_tables.py; do not edit. */")
    print("/* clang-format off */")
    print("/* First, last, combining class: characters that NFC may change where they stand. */")
    print("static const unsafe_range unsafe[] = {")
    print_cells([f"{{0x{first:05X}, 0x{last:05X}, {value}}}," for first, last, value in unsafe], 4)
    print("};")
    print("/* A character and the one or two that it consists of. */")
    print("static const decomposition decompositions[] = {")
    print_cells([f"{{0x{point:05X}, 0x{a:05X}, 0x{b:05X}}}," for point, (a, b) in pairs], 3)
    print("};")
    print("/* Two characters and the one that they make. */")
    print("static const composition compositions[] = {")
    print_cells([f"{{0x{a:05X}, 0x{b:05X}, 0x{point:05X}}}," for a, b, point in composed], 3)
    print("};")
    print("/* clang-format on */")


def lower_ranges():
    """[first, last, step, distance]: ascending, no two overlap; one character each where no rule holds."""
    found = []
    for point in range(0x110000):
        lower = ord(chr(point).lower()[0])  # U+0130 becomes two characters; the first is kept
        if lower == point:
            continue
        if found and found[-1][3] == lower - point:
            last = found[-1]
            gap = point - last[1]
            if (last[0] == last[1] and gap <= 2) or (last[0] < last[1] and gap == last[2]):
                last[1:3] = point, gap
                continue
        found.append([point, point, 1, lower - point])
    return found


def print_lower():
    import unicodedata as own
    print(f"/* Unicode {own.unidata_version}: capitals and how far behind them their small letters stand.")
    print(" * Made by data/make_unicode_tables.py; do not edit. */")
    print("/* clang-format off */")
    print_cells([f"{{0x{first:05X}, 0x{last:05X}, {step}, {distance}}}," for first, last, step, distance in
                 lower_ranges()], 3)
    print("/* clang-format on */")


def main():
    version = unicodedata.unidata_version
    if version != WANTED and sys.argv[1:] != ["lower"]:
        sys.exit(f"this Python knows Unicode {version}, but the tables are of {WANTED}: "
                 f"use Python 3.14 or `pip install unicodedata2=={WANTED}`")
    printers = {"classes": print_classes, "nfc": print_nfc, "lower": print_lower}
    if len(sys.argv) != 2 or sys.argv[1] not in printers:
        sys.exit("usage: make_unicode_tables.py classes|nfc|lower")
    print("/* SPDX-License-Identifier: MIT */")
    printers[sys.argv[1]]()


if __name__ == "__main__":
    main()
