#!/usr/bin/env bash
# Makes .venv with torch, fairseq and this project in it. Run again, it only does what is missing.
#
#   bash scripts/setup_env.sh
#
# Settings, by the environment:
#   TORCH_SPEC   the torch to install; default: torch==2.13.0 (a CUDA build where the index offers one)
#   PYTHON       the Python to build on, 3.9 or newer; default: python3
#   GIFT_VENV    where the environment goes; default: .venv in the project

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in
    -h | --help) usage "$0"; exit 0 ;;
    ?*) fail "the argument is $1, but there are none; see --help" ;;
esac

TORCH_SPEC="${TORCH_SPEC:-torch==2.13.0}"
PYTHON="${PYTHON:-python3}"
STAMP="$VENV/gift_fairseq.stamp"
LOG="$VENV/gift_fairseq.pip.log"

command -v "$PYTHON" >/dev/null || fail "PYTHON is $PYTHON, but there is no such program: install Python 3.9 or newer"
version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" ||
    fail "PYTHON is $PYTHON, but it does not run"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    fail "PYTHON is $PYTHON, which is Python $version, but 3.9 or newer is needed: set PYTHON to one"

# whatever decides the result; a changed answer means set up again
wanted="$(printf '%s\n' "$TORCH_SPEC" "$version" "$PROJECT" | cat - "$PROJECT/setup.py" "$0" | cksum)"
[ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ] && exit 0

mkdir -p "$VENV"
if command -v flock >/dev/null; then # two set-ups at once: the second waits, then finds the work done
    exec 9>"$VENV/gift_fairseq.lock"
    flock 9
    [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ] && exit 0
fi
rm -f "$STAMP"

install() { # install WHAT FLAGS...: one step, quiet; its output is in the log
    say "installing $1"
    shift
    "$VENV/bin/python" -m pip install --disable-pip-version-check "$@" >>"$LOG" 2>&1 && return
    reason="$(grep '^ERROR:' "$LOG" | head -1 || true)"
    if grep -qiE 'connection|resolution|timed? ?out|unreachable|proxyerror|ssl|no matching distribution' "$LOG"; then
        fail "the package index cannot be reached or lacks a package: check the network (${reason:-no reason given}; $LOG)"
    fi
    fail "pip could not install it (${reason:-no reason given}); its whole output is in $LOG"
}

built_on="$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
if [ "$built_on" != "$version" ]; then
    say "making $VENV with Python $version"
    "$PYTHON" -m venv --clear "$VENV" >/dev/null 2>&1 ||
        fail "Python $version cannot make an environment in $VENV: install its venv module (python3-venv on Debian)"
fi
: >"$LOG"

install "$TORCH_SPEC, numpy and build tools" "$TORCH_SPEC" numpy cython "setuptools>=64" wheel

if ! "$VENV/bin/python" -c 'import fairseq' >/dev/null 2>&1; then
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
        fail "no C++ compiler was found, but fairseq is built with one: install g++ or clang"
    # The build asks for torch, so it must see the one above; with isolation pip would fetch a second one.
    # Most of its time goes to optimizing torch's headers, in extensions for models that this project does not use:
    # -O0 for those (fairseq sets -O3 for the others itself), and none for CUDA.
    fairseq="fairseq-fixed==0.12.3.1"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info >= (3, 11))' && fairseq="fairseq==0.12.2"
    printf '[build_ext]\nparallel = 2\n' >"$VENV/build.cfg"
    (
        unset CUDA_HOME
        export CFLAGS="-O0 -g0" DIST_EXTRA_CONFIG="$VENV/build.cfg"
        install "$fairseq (built from source, takes a minute or two)" --no-build-isolation "$fairseq"
    )
fi

install "gift_fairseq" --no-build-isolation --editable "$PROJECT[dev]"

printf '%s' "$wanted" >"$STAMP"
say "ready: $VENV"
