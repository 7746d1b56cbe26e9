#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes src/formats/unicode_tables.inc: which code points are letters, numbers and white space.

    python3 data/make_unicode_tables.py > src/formats/unicode_tables.inc

Pre-tokenizers split text by \\p{L}, \\p{N} and \\s, so the tables must be of the Unicode version
that Hugging Face's tokenizers were built with (16.0). Python 3.14 carries that version; an older
one can `pip install unicodedata2==16.0.0`. Building the C program needs neither.
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


def class_of(point):
    if point in WHITE_SPACE:
        return "SPACE"
    return {"L": "LETTER", "N": "NUMBER"}.get(unicodedata.category(chr(point))[0])


def ranges():
    """(first, last, class), ascending; neighbours of one class are joined."""
    found = []
    for point in range(0x110000):
        name = class_of(point)
        if not name:
            continue
        if found and found[-1][1] == point - 1 and found[-1][2] == name:
            found[-1][1] = point
        else:
            found.append([point, point, name])
    return found


def main():
    version = unicodedata.unidata_version
    if version != WANTED:
        sys.exit(f"this Python knows Unicode {version}, but the tables are of {WANTED}: "
                 f"use Python 3.14 or `pip install unicodedata2=={WANTED}`")
    cells = [f"{{0x{first:05X}, 0x{last:05X}, {name}}}," for first, last, name in ranges()]
    print("/* SPDX-License-Identifier: MIT */")
    print(f"/* Unicode {version}: letters (L*), numbers (N*) and White_Space, as ascending ranges.")
    print(" * Made by data/make_unicode_tables.py; do not edit. */")
    print("/* clang-format off */")
    for i in range(0, len(cells), 3):
        print(" ".join(cells[i:i + 3]))
    print("/* clang-format on */")


if __name__ == "__main__":
    main()
