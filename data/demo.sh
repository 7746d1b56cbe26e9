#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The demonstration behind `make demo`: trains, compresses and restores on real text, in minutes.
#
# usage: data/demo.sh BUILD-FOLDER      (after `make base texts all`)
#
# The adapter that comes with it is shown first, on a text it never saw, and its training goes on for two minutes.
# Then one is trained from nothing on the fetched texts: so short a training does not restore unseen text yet.
# Another is trained on three passages until they come back exactly. A part that was trained before is not trained
# again; remove runs/ to start afresh.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
base=data/base/smollm2-135m-instruct-q4_1.gguf
started=$SECONDS

title() { printf '\n\033[1m%s\033[0m\n' "$1"; }
# field FILE NAME: a number or string out of a JSON object on one line
field() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1], encoding="utf-8"))[sys.argv[2]])' "$1" "$2"; }

train() { # CONFIG RUN-FOLDER [MORE]
  if [ -e "$2/adapter/icae.json" ]; then
    echo "$2/adapter is there already; remove $2 to train it again"
  elif ls "$2"/checkpoints/step-* >/dev/null 2>&1; then
    "$build/icae-pretrain" "$1" --resume "${@:3}"
  else
    "$build/icae-pretrain" "$1" "${@:3}"
  fi
}

show() { # ADAPTER TEXT-FILE [MORE OF COMPRESS]: compress, restore, original above restored
  local name; name=$(basename "$2" .txt)
  "$build/icae" compress -m $base -a "$1" -o "runs/$name.slots" "${@:3}" "$2"
  "$build/icae" reconstruct -q -m $base -a "$1" "runs/$name.slots" > "runs/$name.restored.txt"
  printf '  original: %s\n' "$(tr '\n' ' ' < "$2")"
  printf '  restored: %s\n' "$(tr '\n' ' ' < "runs/$name.restored.txt")"
}

score() { # ADAPTER DATA [MORE]: prints loss, BLEU-4 and exact prefix of the samples
  local out=runs/demo-score.json
  "$build/icae" eval ae -q -m $base -a "$1" --data "$2" "${@:3}" --json > $out
  printf '  loss %.3f nats a token, BLEU-4 %.1f, exact prefix %.0f %%\n' "$(field $out loss)" "$(field $out bleu4)" \
    "$(python3 -c 'import json,sys; print(100*json.load(open(sys.argv[1], encoding="utf-8"))["prefix_em"])' $out)"
}

told() { # RUN-FOLDER: what training did to texts that it never saw
  python3 - "$1/metrics.jsonl" <<'PY'
import json, sys
held = [r for r in map(json.loads, open(sys.argv[1], encoding="utf-8")) if r.get("heldout_ae_loss") is not None]
print(f"  held-out AE loss: {held[0]['heldout_ae_loss']:.3f} before, {held[-1]['heldout_ae_loss']:.3f} after "
      f"{held[-1]['step']} steps (nats a token)")
PY
}

title "1. The adapter that comes with it: 64 tokens in 16 slots, and a passage it never saw"
mkdir -p runs
python3 - <<'PY'
import json, re
for line in open("data/texts/heldout-000.jsonl", encoding="utf-8"):
    text = json.loads(line)["text"]
    match = re.match(r"[^.!?]{50,100}[.!?](?=\s)", text)
    if match:
        open("runs/heldout.txt", "w", encoding="utf-8").write(match.group(0))
        break
PY
show adapters/smollm2-135m-4x runs/heldout.txt
python3 -c 'import json; print(json.dumps({"text": open("runs/heldout.txt", encoding="utf-8").read()}))' > runs/heldout.jsonl
score adapters/smollm2-135m-4x runs/heldout.jsonl
echo "  In one pass the encoder keeps the sense and many words, not the letter (adapters/smollm2-135m-4x/README.md)."

title "2. The same slots, refined for this very passage by gradient descent"
show adapters/smollm2-135m-4x runs/heldout.txt --refine 100
score adapters/smollm2-135m-4x runs/heldout.jsonl --refine 100
echo "  and a longer text, $(wc -c < LICENSE) bytes of LICENSE, span by span:"
"$build/icae" compress -m $base -a adapters/smollm2-135m-4x -o runs/LICENSE.slots --refine 100 LICENSE
"$build/icae" reconstruct -q -m $base -a adapters/smollm2-135m-4x runs/LICENSE.slots > runs/LICENSE.restored.txt
if cmp -s LICENSE runs/LICENSE.restored.txt; then echo "  restored to the letter"; else diff LICENSE runs/LICENSE.restored.txt || true; fi

title "3. Its training goes on (about two minutes)"
train configs/smollm2-64x16-cpu.json runs/demo-more --set out=runs/demo-more \
  --set adapter.start=adapters/smollm2-135m-4x --set objective.first_context=0 --set objective.grow_steps=0 \
  --set train.steps=40 --set train.lr=5e-5 --set train.warmup_steps=10 --set evaluate.every=40 --set evaluate.samples=32
told runs/demo-more
echo "  So few steps move little; what hours do stands in docs/training-on-a-cpu.md."

title "4. An adapter from nothing, on the texts (about 5 minutes on 2 cores)"
train configs/smollm2-demo.json runs/demo
told runs/demo

title "5. The same passage, out of an adapter so short trained"
show runs/demo/adapter runs/heldout.txt
score runs/demo/adapter runs/heldout.jsonl
echo "  So short a training cannot restore unseen text: docs/training-on-a-cpu.md tells what it takes."
echo "  That the machinery does restore is what the next part shows."

title "6. Three passages, trained on until they come back exactly (2 to 3 minutes)"
train configs/smollm2-passages.json runs/demo-passages
i=0
python3 -c 'import json
for i, line in enumerate(open("data/samples/passages.jsonl", encoding="utf-8")): open(f"runs/passage-{i}.txt", "w", encoding="utf-8").write(json.loads(line)["text"])'
for i in 0 1 2; do show runs/demo-passages/adapter runs/passage-$i.txt; done
score runs/demo-passages/adapter data/samples/passages.jsonl --samples 3

title "Done in $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s. To try next:"
cat <<EOF
  $build/icae compress -m $base -a adapters/smollm2-135m-4x --refine 100 --report runs/my.html LICENSE    (runs/my.html has it, span by span)
  $build/icae compress -m $base -a adapters/smollm2-135m-4x-ask -o runs/ask.slots runs/heldout.txt
  $build/icae ask -m $base -a adapters/smollm2-135m-4x-ask -n 25 runs/ask.slots "What is the first sentence of the text?"
  $build/icae-pretrain configs/smollm2-64x16-cpu.json
The course of the training is drawn in runs/demo/loss.svg.
EOF
