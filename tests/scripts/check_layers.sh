#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Includes may only go down: base -> formats -> backend -> autograd -> model -> icae -> learn -> programs.
# A header's layer is the folder of the source file that has its name; the few without one are listed.
# usage: check_layers.sh [libicae.so]   whose names are looked at, too
set -eu
library=${1:+$(realpath "$1")}
cd "$(dirname "$0")/../.."
order="base formats backend autograd model icae learn programs"
rank() {
  local i=0 layer
  for layer in $order; do
    [ "$layer" = "$1" ] && { echo $i; return; }
    i=$((i + 1))
  done
  echo "check_layers: '$1' is no layer" >&2
  exit 2
}
header_layer() { # "icae/x.h" or "layer/x.h"
  local folder=${1%%/*} name
  name=$(basename "${1%.*}")
  case "$1" in
  icae.h | icae/status.h | icae/real.h | icae/half.h) [ "$1" = icae.h ] && echo icae || echo base; return ;;
  icae/ops.h) echo autograd; return ;;
  icae/backend.h) echo backend; return ;;
  esac
  if [ -e "src/$1" ]; then echo "$folder"; return; fi
  local found
  found=$(ls src/*/"$name".c 2>/dev/null | head -n 1)
  [ -n "$found" ] || { echo "check_layers: no source file carries the name of $1" >&2; exit 2; }
  basename "$(dirname "$found")"
}
bad=0
for file in src/*/*.c src/*/*.h src/*/*.def include/icae/*.h train/*.c train/*.h infer/*.c infer/*.h; do
  [ -e "$file" ] || continue
  case "$file" in
  src/*) layer=$(basename "$(dirname "$file")") ;;
  include/icae/*) layer=$(header_layer "icae/$(basename "$file")") ;;
  *) layer=programs ;;
  esac
  mine=$(rank "$layer")
  while read -r header; do
    [ -n "$header" ] || continue
    case "$header" in */*|icae.h) ;; *) continue ;; esac
    theirs=$(rank "$(header_layer "$header")")
    if [ "$theirs" -gt "$mine" ]; then
      echo "$file (layer $layer) includes $header of a layer above"
      bad=1
    fi
  done < <(sed -n 's/^#include "\([^"]*\)".*/\1/p' "$file")
done
# Third-party headers have one home each.
one_home() { # header pattern, allowed files
  local hits
  hits=$(grep -lE "#include <$1" -r src include train infer 2>/dev/null | grep -vE "$2" || true)
  [ -z "$hits" ] || { echo "<$1> belongs in $2 alone, but stands in: $hits"; bad=1; }
}
one_home 'cblas' '^src/backend/cpu_blas\.c$'
one_home 'cjson' '^src/formats/json(_[a-z]+)?\.c$'
one_home 'zlib' '^src/formats/'
# A program that links the library may have any other name to itself.
if [ -n "$library" ]; then
  foreign=$(nm -D --defined-only "$library" | awk '$3 !~ /^(icae_|_init$|_fini$)/ { print $3 }')
  [ -z "$foreign" ] || { echo "names that libicae.so exports without icae_ before them:" $foreign; bad=1; }
fi
[ $bad = 0 ] && echo "layers: every include goes down"
exit $bad
