# SPDX-License-Identifier: MIT
"""Reads character vectors out of an installed R package's lazy-load data base.

A package keeps its data sets in `data/Rdata.rdb` (the objects, one after another) and
`data/Rdata.rdx` (where each begins). Both hold R's serialisation format: XDR, that is big-endian
integers and a flag word before every value. Described in "R Internals", sections 1.8 and 1.19.

    rdx       gzip, bzip2 or xz around one list: variables {name: (offset, length)}, compressed
    record    4 bytes size of the content, then, where compressed > 1, one byte for the method
              ('0' none, '1' zlib, '2' bzip2, 'Z' raw LZMA2), then the content

Only data is understood (vectors, lists, symbols, references); functions and environments are
refused, because no text lives in them.
"""

import bz2
import gzip
import lzma
import os
import struct
import zlib

# SEXP types (Rinternals.h) and the pseudo types that only the serialisation has (serialize.c).
SYMBOL, PAIRS, LANGUAGE, CHARACTERS = 1, 2, 6, 9
LOGICALS, INTEGERS, REALS, STRINGS, LIST, EXPRESSIONS, RAW = 10, 13, 14, 16, 19, 20, 24
ALTERNATIVE, ATTRIBUTED_PAIRS, ATTRIBUTED_LANGUAGE = 238, 239, 240
EMPTY_ENVIRONMENT, BASE_ENVIRONMENT, GLOBAL_ENVIRONMENT = 242, 241, 253
MISSING_ARGUMENT, NIL, REFERENCE = 251, 254, 255


class Reader:
    """A cursor over one serialised value; attributes are read and dropped, except names."""

    def __init__(self, data):
        self.data, self.at, self.references = data, 0, []
        if data[:2] != b"X\n":
            raise ValueError("not R's binary (XDR) serialisation: it begins with %r" % data[:2])
        self.at = 2
        version = self.integer()
        self.integer(), self.integer()  # written by, readable since
        if version == 3:
            self.take(self.integer())  # the native encoding
        elif version != 2:
            raise ValueError("serialisation version %d, expected 2 or 3" % version)

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("%d bytes wanted at byte %d of %d" % (count, self.at, len(self.data)))
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def integer(self):
        return struct.unpack(">i", self.take(4))[0]

    def numbers(self, letter, width):
        count = self.integer()
        return list(struct.unpack(">%d%s" % (count, letter), self.take(count * width)))

    def pairs(self, flags):
        """A chain of (tag, value) cells; read in a loop, for it can be long."""
        cells = []
        while True:
            if flags & 0x200:
                self.item()
            tag = self.item() if flags & 0x400 else None
            cells.append((tag, self.item()))
            flags = self.integer()
            if flags & 0xFF not in (PAIRS, ATTRIBUTED_PAIRS):
                self.item(flags)  # the closing nil
                return cells

    def alternative(self):
        """Compact forms: a wrapped vector, or a sequence given by length, first and step."""
        kind, state = self.item(), self.item()
        self.item()
        name = str(kind[0][1])
        if name.startswith("wrap_"):
            return state[0][1] if isinstance(state[0], tuple) else state[0]
        if name in ("compact_intseq", "compact_realseq"):
            count, first, step = state
            return [first + step * i for i in range(int(count))]
        if name == "deferred_string":
            return [str(x) for x in state[0][1]]
        raise ValueError("unknown compact form %s" % name)

    def item(self, flags=None):
        if flags is None:
            flags = self.integer()
        kind = flags & 0xFF
        if kind in (NIL, EMPTY_ENVIRONMENT, BASE_ENVIRONMENT, GLOBAL_ENVIRONMENT, MISSING_ARGUMENT):
            return None
        if kind == REFERENCE:
            index = flags >> 8 or self.integer()
            return self.references[index - 1]
        if kind == SYMBOL:
            self.references.append(self.item())
            return self.references[-1]
        if kind in (PAIRS, LANGUAGE, ATTRIBUTED_PAIRS, ATTRIBUTED_LANGUAGE):
            return self.pairs(flags)
        if kind == ALTERNATIVE:
            return self.alternative()
        if kind == CHARACTERS:
            length = self.integer()
            if length < 0:
                return None  # NA
            latin1 = flags >> 12 & 4  # the other encodings are UTF-8 or ASCII
            return self.take(length).decode("latin-1" if latin1 else "utf-8")
        if kind in (LOGICALS, INTEGERS):
            value = self.numbers("i", 4)
        elif kind == REALS:
            value = self.numbers("d", 8)
        elif kind == RAW:
            value = self.take(self.integer())
        elif kind in (STRINGS, LIST, EXPRESSIONS):
            value = [self.item() for _ in range(self.integer())]
        else:
            raise ValueError("R type %d at byte %d holds no data" % (kind, self.at))
        if flags & 0x200:
            attributes = dict(self.item())
            names = attributes.get("names")
            if names and kind == LIST:
                value = dict(zip(names, value))
        return value


def decompress_index(data):
    for start, method in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ", lzma)):
        if data.startswith(start):
            return method.decompress(data)
    return zlib.decompress(data)


def decompress_record(record, compressed):
    if compressed == 0:
        return record
    size, body = struct.unpack(">I", record[:4])[0], record[4:]
    method = b"1"
    if compressed > 1:
        method, body = body[:1], body[1:]
    if method == b"0":
        content = body
    elif method == b"1":
        content = zlib.decompress(body)
    elif method == b"2":
        content = bz2.decompress(body)
    elif method == b"Z":
        # A raw stream carries no header; R writes it with preset 6, whose dictionary is 8 MiB.
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
        content = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(body)
    else:
        raise ValueError("unknown compression method %r" % method)
    if len(content) != size:
        raise ValueError("a record has %d bytes, its header promised %d" % (len(content), size))
    return content


def read_data_sets(folder):
    """{name: value} of every data set of the package installed at folder."""
    base = os.path.join(folder, "data", "Rdata")
    with open(base + ".rdx", "rb") as file:
        index = Reader(decompress_index(file.read())).item()
    with open(base + ".rdb", "rb") as file:
        objects = file.read()
    compressed = int(index["compressed"][0])
    result = {}
    for name, (offset, length) in sorted(index["variables"].items()):
        result[name] = Reader(decompress_record(objects[offset : offset + length], compressed)).item()
    return result
