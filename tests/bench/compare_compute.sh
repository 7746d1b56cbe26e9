#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Does bf16 learn what f32 learns? Three runs of the demo's config on the same samples: f32, bf16, and f32
# on other kernels, whose last bits differ: how far two runs in f32 part is the measure of what bf16 does.
#
# usage: tests/bench/compare_compute.sh BUILD-FOLDER      (after `make base texts all`)
# writes runs/compare-compute/{f32,bf16,f32-avx2}, runs/compare-compute.svg and a table on standard output
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
out=runs/compare-compute
train() { # NAME COMPUTE KERNELS
  [ -e $out/"$1"/adapter/icae.json ] ||
    ICAE_CPU=$3 "$build/icae-pretrain" configs/smollm2-demo.json -q --compute "$2" --set out=$out/"$1" \
      --set train.steps=300 --set train.batch=2 --set evaluate.every=100 --set evaluate.reconstruct_samples=0
}
mkdir -p $out
train f32 f32 ''
train bf16 bf16 ''
train f32-avx2 f32 avx2
"$build/compare-runs" $out.svg 12 f32=$out/f32/metrics.jsonl bf16=$out/bf16/metrics.jsonl \
  "f32 on avx2 kernels=$out/f32-avx2/metrics.jsonl"
