#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs what the build, the tests and the fetch scripts take from the system and do not find (`make setup`).
#
#     CC=gcc CPPFLAGS= CFLAGS= LDFLAGS= data/setup.sh PACKAGE...       packages by their Debian names, those below
#
# A thing is there when compiler or shell find it, whoever put it there; no package manager is asked for that. What is missing
# is installed where apt-get is at hand, as root or by a sudo that asks no password; elsewhere it is named.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
CC=${CC:-cc}

# links HEADER FUNCTION LIBRARY: compiles and links a program that takes the function's address. Flags and $CC are shell
# text, as in the Makefile's recipes.
links() {
    printf '#include <%s>\nint main(void) { return (void (*)(void))%s == 0; }\n' "$1" "$2" >"$work/probe.c"
    (eval "$CC ${CPPFLAGS:-} ${CFLAGS:-} -w -O0 ${LDFLAGS:-}" '"$work/probe.c" -o "$work/probe" "-l$3"') >/dev/null 2>&1
}

# has PACKAGE: is there what that package would bring? Leaves in $what how others call it.
has() {
    case $1 in
    # OpenBLAS of any build; src/backend/cpu_blas.c asks it which it is.
    libopenblas-openmp-dev) what="OpenBLAS with cblas.h" && links cblas.h openblas_get_parallel openblas ;;
    libcjson-dev) what="cJSON with cjson/cJSON.h" && links cjson/cJSON.h cJSON_Delete cjson ;;
    zlib1g-dev) what="zlib with zlib.h" && links zlib.h inflate z ;;
    pkg-config) what="pkg-config" && command -v pkg-config >/dev/null ;;
    # What it links with only pkg-config knows.
    check) what="Check with check.h" && if command -v pkg-config >/dev/null; then pkg-config --exists check; else
        echo '#include <check.h>' | eval "$CC ${CPPFLAGS:-} -E -x c -" >/dev/null 2>&1
    fi ;;
    python3) what="Python 3" && command -v python3 >/dev/null ;;
    python3-pip) what="pip for Python 3" && python3 -m pip --version >/dev/null 2>&1 ;;
    *) die "$1 is no package that this script knows" ;;
    esac
}

# Leaves the packages in $missing, what they would bring in $names.
look() {
    missing='' names=''
    for package; do
        has "$package" || {
            missing="$missing $package"
            names="$names${names:+, }$what"
        }
    done
}

begin_work "${TMPDIR:-/tmp}/setup"
command -v "${CC%% *}" >/dev/null || die "the compiler ${CC%% *} is missing: please install it, or name another (make CC=clang)"
look "$@"
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null ||
    die "missing: $names; apt-get is not here to install it: please do (Debian's packages:$missing)"
as_root true || die "missing: $names; as root:  apt-get install$missing"

echo "Installing:$missing"
refresh_apt || true # the lists at hand may do
# shellcheck disable=SC2086
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing \
    >"$work/apt.log" 2>&1 || {
    tail -n 3 "$work/apt.log" >&2
    die "could not install $names; as root:  apt-get install$missing"
}
look "$@"
[ -z "$missing" ] || die "apt-get installed$missing, but $CC and the shell do not find $names"
