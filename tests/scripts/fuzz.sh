#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs fuzz programs:  fuzz.sh BUILD RUNS TARGET...
#
# Every target reads its seeds and the broken files (which BUILD/broken holds, one folder a target), then RUNS
# inputs of its own making. A target that takes over a second for an input is run with this input again: only
# what is slow by itself, and not because the machine was busy, counts. Artifacts and logs are left in
# BUILD/found and BUILD/logs. Exit status: 0 when nothing was found.
set -u
build=$1 runs=$2
shift 2
mkdir -p "$build/found" "$build/logs"
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=16} OMP_NUM_THREADS=1
failed=0
for name in "$@"; do
  corpus=$build/corpus-$name log=$build/logs/$name.log program=$build/fuzz_$name
  mkdir -p "$corpus"
  more=()
  for folder in "tests/fuzz/seeds/$name" "$build/broken/$name" $([ "$name" = settings ] && echo configs); do
    [ -d "$folder" ] && more+=("$folder")
  done
  left=$runs busy=0 begun=$(date +%s)
  : >"$log"
  while :; do
    "$program" -runs="$left" -max_len=65536 -timeout=1 -malloc_limit_mb=512 -rss_limit_mb=2048 \
      -print_final_stats=1 -verbosity=0 -close_fd_mask=2 -dict="tests/fuzz/dict/$name.dict" \
      -artifact_prefix="$build/found/$name-" "$corpus" "${more[@]}" >>"$log" 2>&1 && break
    slow=$(grep -ao "$build/found/$name-timeout-[0-9a-f]*" "$log" | tail -1)
    done_now=$(grep -a 'stat::number_of_executed_units' "$log" | tail -1 | grep -o '[0-9]*$')
    if [ -n "$slow" ] && [ -f "$slow" ] && "$program" -timeout=1 "$slow" >>"$log" 2>&1; then
      rm -f "$slow"
      busy=$((busy + 1))
      left=$((left - ${done_now:-0}))
      [ "$left" -gt 0 ] && [ "$busy" -lt 100 ] && continue
      break
    fi
    failed=1
    tail -40 "$log"
    break
  done
  total=$(grep -a 'stat::number_of_executed_units' "$log" | grep -o '[0-9]*$' | awk '{n += $1} END {print n + 0}')
  found=$(find "$build/found" -name "$name-*" | wc -l)
  echo "fuzz $name: $total runs, $found found, $(($(date +%s) - begun)) s$([ $busy -gt 0 ] && echo ", $busy waits of a busy machine passed over")"
done
exit $failed
