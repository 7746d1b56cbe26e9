#!/bin/sh
# SPDX-License-Identifier: MIT
# A guard against slow code that no clock can disturb: counts, under callgrind, the instructions of a
# fixed training step and of fixed decoding, and compares them with the figures that are committed.
#
#     tests/bench/instructions.sh PROGRAM BASE.gguf [update]
#
# valgrind knows AVX2 but not AVX-512, so the level is avx2 and OpenBLAS takes its Haswell kernels, on
# one thread: the same instructions on every machine with the same libraries. A count above the
# committed one by more than 3 % fails; one below by more than 3 % asks for an update.
set -eu
program=$1 base=$2 update=${3:-}
figures=$(dirname "$0")/instructions.txt
command -v valgrind >/dev/null || {
    echo "this needs valgrind: apt-get install valgrind" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Counts both calls of a function, the first with what happens only once.
count() {
    ICAE_CPU=avx2 OPENBLAS_CORETYPE=Haswell OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
        valgrind --tool=callgrind --toggle-collect="$1" --callgrind-out-file="$work/$1" \
        "$program" "$base" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
    sed -n 's/^summary: //p; s/^totals: //p' "$work/$1" | head -n 1
}

status=0
: >"$work/new"
for name in measured_step measured_decode; do
    now=$(count "$name")
    echo "$name $now" >>"$work/new"
    was=$(sed -n "s/^$name //p" "$figures" 2>/dev/null || true)
    if [ -z "$was" ]; then
        echo "$name: $now instructions; no figure is committed"
        [ -n "$update" ] || status=1
        continue
    fi
    tenths=$(((now - was) * 1000 / was))
    echo "$name: $now instructions, committed $was ($tenths per mille apart)"
    if [ "$tenths" -gt 30 ]; then
        echo "$name takes more work than before: find out why, or run 'make instructions UPDATE=1'"
        [ -n "$update" ] || status=1
    elif [ "$tenths" -lt -30 ]; then
        echo "$name takes less work than before: commit the gain with 'make instructions UPDATE=1'"
        [ -n "$update" ] || status=1
    fi
done
[ -z "$update" ] || { cp "$work/new" "$figures" && echo "$figures is up to date"; }
exit $status
