#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares the values of blocks of every storage type with those of the package `gguf`, bit for bit.

    make interop-dequant          or    python3 tests/interop/dequant.py [SEED]

For each type: blocks of random bytes (so scales are any f16: subnormals, infinities and NaN among them), and blocks
whose bytes are all 0x00, 0xFF, 0x80, 0x7F. NaN counts as equal to NaN. Exit status 1 when any value differs. Needs
numpy and gguf (made with 0.19.0).
"""
import os
import subprocess
import sys

# Files here are called as packages are.
sys.path = [path for path in sys.path if os.path.abspath(path or ".") != os.path.dirname(os.path.abspath(__file__))]
import gguf
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.environ.get("ICAE_DEQUANT", os.path.join(ROOT, "build", "release", "interop-dequant"))
N_BLOCKS = 20000


def main():
    rng = np.random.default_rng(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    failed = 0
    for line in subprocess.run([TOOL], check=True, capture_output=True, text=True).stdout.splitlines():
        name, values, size, number = line.split()
        values, size, number = int(values), int(size), int(number)
        if name == "F64":
            continue  # gguf does not narrow it
        quant = gguf.GGMLQuantizationType(number)
        assert gguf.GGML_QUANT_SIZES[quant] == (values, size), f"{name}: the package has other block sizes"
        blocks = rng.integers(0, 256, (N_BLOCKS, size), dtype=np.uint8)
        for i, byte in enumerate((0x00, 0xFF, 0x80, 0x7F)):
            blocks[i] = byte
        ours = subprocess.run([TOOL, name], input=blocks.tobytes(), check=True, capture_output=True).stdout
        ours = np.frombuffer(ours, dtype=np.float32)
        with np.errstate(all="ignore"):
            theirs = gguf.dequantize(blocks.reshape(-1), quant).reshape(-1).astype(np.float32)
        assert ours.shape == theirs.shape == (N_BLOCKS * values,), f"{name}: wrong count of values"
        equal = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
        zeros = ~equal & (ours == 0) & (theirs == 0)  # the sign of a zero
        wrong = int((~equal & ~zeros).sum())
        failed += wrong > 0
        print(f"{name:5} {ours.size:9,} values  {wrong} differ, {int(zeros.sum())} zeros of other sign, "
              f"{int(np.isnan(ours).sum())} NaN")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
