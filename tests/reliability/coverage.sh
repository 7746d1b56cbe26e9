#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# NAME
#     coverage.sh BUILD [FILE...] - what the tests reached, from gcov's counts in BUILD
#
# With FILEs: their lines of which a way was never taken: how many ways of how many, and the line.
# One row a file of src/formats, src/icae, src/base/file.c and the code of runs in src/learn: lines,
# functions, branches taken at least once; then the functions nobody called. Branches count as gcov counts
# them: each operand of && and ||, each way.
set -euo pipefail
build=$1
gcov=${GCOV:-gcov}
shift
for file; do
  $gcov -t -b -c -o "$build/${file%.c}.o" "$file" 2>/dev/null | awk -v file="$file" '
    function tell() { if (missed) printf "%s:%d: %d of %d: %s\n", file, line, missed, ways, code; missed = ways = 0 }
    /^ *-: *0:Source:/ { tell(); is_own = index($0, ":Source:" file) > 0 }
    !is_own            { next }
    /^branch /         { ways++; if (/never executed|taken 0/) missed++ }
    /^ *[-#=0-9*]+: *[0-9]+:/ {
      tell()
      line = $0; sub(/^[^:]*: */, "", line); code = line
      sub(/:.*/, "", line); sub(/^[^:]*: */, "", code)
    }
    END { tell() }'
done
[ $# = 0 ] || exit 0
files=$(ls src/formats/*.c src/icae/*.c src/base/file.c src/learn/{checkpoint,corpus_state,feed_state,run_folder,skipped,step,trainer}.c)
report=$(mktemp)
trap 'rm -f "$report"' EXIT
for file in $files; do
  object=$build/${file%.c}
  [ -e "$object.gcda" ] || { echo "$file: not run at all" >&2; continue; }
  echo "@ $file"
  $gcov -n -b -f -o "$object.o" "$file" 2>/dev/null
done > "$report"
awk '
  /^@ /            { file = $2; names[++n] = file; next }
  /^Function /     { f = $2; gsub(/\x27/, "", f); in_function = 1; next }
  /^File /         { own = index($2, "\x27" file "\x27") > 0; in_function = 0; next }
  /^Lines executed/ {
    split($0, a, /[:% ]+/)
    if (in_function) { functions[file]++; if (a[3] > 0) called[file]++; else never = never "  " file ": " f "\n" }
    else if (own) { lines[file] = a[5]; reached[file] = a[3] * a[5] / 100 }
    next
  }
  /^Taken at least once/ { if (!in_function && own) { split($0, a, /:|%|of /); ways[file] = a[4]; taken[file] = a[2] * a[4] / 100 } }
  function row(name, l, L, f, F, b, B) {
    printf "%-34s %6.1f %% of %5d %7.1f %% of %4d %7.1f %% of %5d\n", name, L ? 100 * l / L : 100, L,
      F ? 100 * f / F : 100, F, B ? 100 * b / B : 100, B
  }
  END {
    printf "%-34s %17s %17s %18s\n", "file", "lines", "functions", "branches"
    for (i = 1; i <= n; i++) {
      k = names[i]
      row(k, reached[k], lines[k], called[k], functions[k], taken[k], ways[k])
      part = k; sub(/\/[^\/]*$/, "", part)
      R[part] += reached[k]; L[part] += lines[k]; C[part] += called[k]; F[part] += functions[k]; T[part] += taken[k]; W[part] += ways[k]
    }
    print ""
    for (part in R) row(part, R[part], L[part], C[part], F[part], T[part], W[part])
    if (never != "") printf "\nnever called:\n%s", never
  }' "$report"
