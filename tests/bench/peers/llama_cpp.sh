#!/bin/sh
# llama_cpp.sh - time llama.cpp beside icae on the same base
#
#     tests/bench/peers/llama_cpp.sh BASE.gguf [ROUNDS]
#
# Builds llama-bench and llama-quantize from llama-cpp-python's source archive, for this very processor
# (GGML_NATIVE), into build/peers/llama; LLAMA_BIN=FOLDER takes them from there instead. Then ROUNDS (3)
# times in turn: icae bench, llama-bench on BASE and on BASE requantised to Q8_0 and F32 - prefill of 512
# tokens, 128 tokens written, the same threads for all (THREADS, else all processors). Prints the best of
# every round, because a shared machine only ever slows a round down. Needs Python 3 with pip, cmake, ninja.
set -eu

base=${1:?usage: tests/bench/peers/llama_cpp.sh BASE.gguf [ROUNDS]}
rounds=${2:-3}
threads=${THREADS:-$(nproc)}
icae=${ICAE:-build/release/icae}
work=build/peers/llama
mkdir -p "$work"

if [ -z "${LLAMA_BIN:-}" ]; then
    LLAMA_BIN=$work/build/bin
    if [ ! -x "$LLAMA_BIN/llama-quantize" ]; then
        python3 -m pip download -q --no-binary :all: --no-deps llama-cpp-python -d "$work"
        tar -xf "$work"/llama_cpp_python-*.tar.gz -C "$work"
        cmake -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$work/build" -G Ninja \
            -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
            -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON >"$work/cmake.log"
        ninja -C "$work/build" llama-bench llama-quantize >"$work/ninja.log"
    fi
fi
for type in Q8_0 F32; do
    [ -f "$work/$type.gguf" ] ||
        "$LLAMA_BIN/llama-quantize" --allow-requantize "$base" "$work/$type.gguf" "$type" "$threads" \
            >"$work/quantize.log" 2>&1
done

rm -f "$work"/*.json
round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    "$icae" bench -q -m "$base" -t "$threads" --steps 0 --json >"$work/icae-$round.json"
    for file in "$base" "$work/Q8_0.gguf" "$work/F32.gguf"; do
        "$LLAMA_BIN/llama-bench" -m "$file" -t "$threads" -p 512 -n 128 -r 1 -o json \
            >"$work/llama-$(basename "$file" .gguf)-$round.json" 2>/dev/null
    done
done

python3 - "$work" "$base" <<'PYTHON'
import glob, json, os, sys

work, base = sys.argv[1:]
name = os.path.basename(base)[: -len(".gguf")]
figures = {}
for path in glob.glob(work + "/icae-*.json"):
    with open(path) as file:
        found = json.load(file)
    best = figures.setdefault("icae", [0, 0])
    best[0] = max(best[0], found["prefill_tokens_per_second"])
    best[1] = max(best[1], found["decode_tokens_per_second"])
for kind in (name, "Q8_0", "F32"):
    for path in glob.glob(f"{work}/llama-{kind}-*.json"):
        with open(path) as file:
            for test in json.load(file):
                best = figures.setdefault("llama.cpp " + ("same file" if kind == name else kind), [0, 0])
                place = 0 if test["n_prompt"] else 1
                best[place] = max(best[place], test["avg_ts"])
print(f"{'':22} prefill 512   decode 128   tokens/s")
for who, (prefill, decode) in figures.items():
    print(f"{who:22} {prefill:11.1f}   {decode:10.1f}")
others = [v for who, v in figures.items() if who != "icae"]
mine = figures["icae"]
print(f"icae / best of the others: prefill {mine[0] / max(o[0] for o in others):.2f}, "
      f"decode {mine[1] / max(o[1] for o in others):.2f}; "
      f"same file: prefill {mine[0] / others[0][0]:.2f}, decode {mine[1] / others[0][1]:.2f}")
PYTHON
