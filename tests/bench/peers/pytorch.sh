#!/bin/sh
# SPDX-License-Identifier: MIT
# Times ICAE training here and in PyTorch + transformers + PEFT, in turns, on the same work.
#
#     tests/bench/peers/pytorch.sh BASE.gguf [equal|mixed] [ROUNDS]
#
# equal: eight texts of 128 tokens. mixed: 32 texts as long as the first held-out texts are (20 to 512
# tokens, by four characters a token), sorted and in batches of eight; PyTorch pads each batch. Every
# variant of the peer runs (f32 and bf16, eager and compiled; compiling takes minutes), ours in between.
# Prints tokens a second, median and best of ROUNDS (3), and peak memory. Installs the peer into
# build/peers/venv (some gigabytes) unless PYTHON names an interpreter that has it.
set -eu

base=${1:?usage: tests/bench/peers/pytorch.sh BASE.gguf [equal|mixed] [ROUNDS]}
work=${2:-equal}
rounds=${3:-3}
icae=${ICAE:-build/release/icae}
here=$(dirname "$0")
if [ -z "${PYTHON:-}" ]; then
    PYTHON=build/peers/venv/bin/python
    if [ ! -x "$PYTHON" ]; then
        python3 -m venv build/peers/venv
        "$PYTHON" -m pip install -q torch transformers peft gguf
    fi
fi
case $work in
equal) lengths=128,128,128,128,128,128,128,128 ;;
mixed)
    lengths=$(python3 - data/texts/heldout-000.jsonl <<'EOF'
import itertools, json, sys

with open(sys.argv[1], encoding="utf-8") as file:
    texts = [json.loads(line)["text"] for line in itertools.islice(file, 32)]
print(",".join(str(min(512, max(20, len(text) // 4))) for text in texts))
EOF
    )
    ;;
*)
    echo "pytorch.sh: $work is no work; expected equal or mixed" >&2
    exit 1
    ;;
esac
echo "lengths: $lengths"

line() {
    python3 -c '
import json, sys
found = json.load(sys.stdin)
ours = "train_round_seconds" in found
tokens = float(sys.argv[1])
seconds = found["train_round_seconds" if ours else "seconds"]
best = found["train_best_round_seconds" if ours else "best_seconds"]
memory = found["train_peak_rss_bytes" if ours else "peak_rss_bytes"]
name = "icae " + found["compute"] if ours else "%s %s %s" % (found["peer"], found["dtype"], found["mode"])
print("%-34s %7.1f tokens/s, best %7.1f, %5.2f GiB" % (name, tokens / seconds, tokens / best, memory / 2**30))
' "$1"
}

total=$(echo "$lengths" | tr ',' '+' | sed 's/.*/$((&))/')
eval "total=$total"
for dtype in f32 bf16; do
    for mode in eager compiled; do
        "$icae" bench -q --json -m "$base" --compute "$dtype" --steps "$rounds" --lengths "$lengths" | line "$total"
        "$PYTHON" -W ignore "$here/pytorch.py" "$base" --mask --dtype "$dtype" --mode "$mode" \
            --rounds "$rounds" --lengths "$lengths" 2>/dev/null | line "$total"
    done
done
