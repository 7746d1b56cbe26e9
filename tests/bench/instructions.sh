#!/bin/sh
# SPDX-License-Identifier: MIT
# A guard against slow code that no clock can disturb: counts, under callgrind, the instructions of fixed
# training steps and of fixed decoding, and compares them with the figures that are committed.
#
#     tests/bench/instructions.sh PROGRAM [update]
#
# One thread, and OpenBLAS's Haswell kernels, so that the same libraries give the same instructions on every
# machine. valgrind knows AVX2 but not AVX-512: the levels are avx2 and portable, bf16 is the imitated one. The
# base is the tests' tiny one; products with quantised weights, which it has not, are counted by themselves.
#
# Figures stand in instructions.txt, one a line: LEVEL COMPUTE WORK INSTRUCTIONS. A count above the committed
# one by more than 3 % fails; one below by more than 3 % fails too and asks for an update.
set -eu
program=$1 update=${2:-}
figures=${FIGURES:-$(dirname "$0")/instructions.txt}
tiny=tests/golden/llama/model
command -v valgrind >/dev/null || {
    echo "this needs valgrind: apt-get install valgrind" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

count() { # LEVEL COMPUTE step|decode|stored
    rm -f "$work/counts"
    ICAE_CPU=$1 OPENBLAS_CORETYPE=Haswell OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
        valgrind --tool=callgrind --toggle-collect="measured_$3" --callgrind-out-file="$work/counts" \
        "$program" "$tiny" "$3" "$2" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        exit 1
    }
    sed -n 's/^summary: //p; s/^totals: //p' "$work/counts" | head -n 1
}

status=0
: >"$work/new"
while read -r level compute what; do
    name="$level $compute $what"
    now=$(count "$level" "$compute" "$what")
    [ "${now:-0}" -gt 0 ] || {
        echo "$name: callgrind counted nothing; is measured_$what still a function of $program?" >&2
        exit 1
    }
    echo "$name $now" >>"$work/new"
    was=$(sed -n "s/^$name //p" "$figures" 2>/dev/null || true)
    if [ -z "$was" ]; then
        echo "$name: $now instructions; no figure is committed"
        [ -n "$update" ] || status=1
        continue
    fi
    tenths=$(((now - was) * 1000 / was))
    echo "$name: $now instructions, committed $was ($tenths per mille apart)"
    if [ $((100 * now)) -gt $((103 * was)) ]; then
        echo "$name takes more work than before: find out why, or run 'make instructions UPDATE=1'"
        [ -n "$update" ] || status=1
    elif [ $((100 * now)) -lt $((97 * was)) ]; then
        echo "$name takes less work than before: commit the gain with 'make instructions UPDATE=1'"
        [ -n "$update" ] || status=1
    fi
done <<ROWS
avx2 f32 step
avx2 f32 decode
avx2 f32 stored
avx2 bf16 step
avx2 bf16 stored
portable f32 step
portable f32 decode
portable f32 stored
ROWS
[ -z "$update" ] || { cp "$work/new" "$figures" && echo "$figures is up to date"; }
exit $status
