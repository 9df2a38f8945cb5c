#!/usr/bin/env bash
# Makes .venv with torch, fairseq and this project in it. Run again, it only does what is missing.
#
#   bash scripts/setup_env.sh
#
# Settings, by the environment:
#   TORCH_SPEC   the torch to install; default: torch==2.13.0 (a CUDA build where the index offers one)
#   PYTHON       the Python to build on, 3.9 to 3.13; default: python3
#   GIFT_VENV    where the environment goes; default: .venv in the project

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in
    -h | --help) usage "$0"; exit 0 ;;
    ?*) fail "the argument is $1, but there are none; see --help" ;;
esac

TORCH_SPEC="${TORCH_SPEC:-torch==2.13.0}"
PYTHON="${PYTHON:-python3}"

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

command -v "$PYTHON" >/dev/null || fail "PYTHON is $PYTHON, but there is no such program: install Python 3.9 to 3.13"
version="$(version_of "$PYTHON")" || fail "PYTHON is $PYTHON, but it does not run as a Python"
[[ "$version" =~ ^3\.(9|1[0-3])$ ]] || # fairseq cannot be imported by 3.14: it reads types as older ones spell them
    fail "PYTHON is $PYTHON, which is Python $version, but 3.9 to 3.13 is needed: set PYTHON to one"
fairseq="fairseq-fixed==0.12.3.1" build=(--no-build-isolation) # its build asks for torch: see it, not fetch another
if [[ "$version" =~ ^3\.(9|10)$ ]]; then
    fairseq="fairseq==0.12.2" build=() # its build must not see torch: it would look for sources that are left out of it
fi

# whatever decides the result; a changed answer means set up again
wanted="$(printf '%s\n' "$TORCH_SPEC" "$version" "$PROJECT" |
    cat - "$PROJECT/setup.py" "$PROJECT/pyproject.toml" "$0" | cksum)"
done_already() { # the set-up was finished, for this answer, and its Python still runs
    [ "$(cat "$VENV/gift_fairseq.stamp" 2>/dev/null)" = "$wanted" ] &&
        [ "$(version_of "$VENV/bin/python")" = "$version" ]
}
done_already && exit 0

mkdir -p "$VENV" 2>/dev/null || fail "$VENV cannot be made: set GIFT_VENV to a folder that can"
[ -w "$VENV" ] || fail "$VENV cannot be written to: set GIFT_VENV to a folder that can"
VENV="$(cd "$VENV" && pwd -P)"
STAMP="$VENV/gift_fairseq.stamp"
LOG="$VENV/gift_fairseq.pip.log"
if command -v flock >/dev/null; then # two set-ups at once: the second waits, then finds the work done
    exec 9<"$VENV"                   # the folder itself, for making the environment clears what is in it
    flock --nonblock 9 || { say "waiting for another set-up of $VENV"; flock 9; }
    done_already && exit 0
fi
rm -f "$STAMP"

# An environment is kept if its pip runs (not so if making it was interrupted) and lies here (not so if it was moved).
if [[ "$("$VENV/bin/pip" --version 2>/dev/null)" != *" $VENV/"*"(python $version)" ]]; then
    [ -z "$(ls -A "$VENV")" ] || [ -f "$VENV/pyvenv.cfg" ] ||
        fail "$VENV holds something that is no Python environment: set GIFT_VENV to a folder that is new or empty"
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "Python $version lacks its modules venv and ensurepip: install them (python3-venv on Debian)"
    say "making $VENV with Python $version"
    output="$("$PYTHON" -m venv --clear "$VENV" 2>&1)" ||
        fail "Python $version cannot make an environment in $VENV: ${output##*$'\n'}"
fi
# before the downloads: without fairseq in the environment, a compiler will be needed
"$VENV/bin/python" -m pip show --quiet "${fairseq%%=*}" >/dev/null 2>&1 ||
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
    fail "no C++ compiler was found, but fairseq is built with one: install g++ or clang"

install() { # install WHAT PIP-ARGUMENTS...: one step, quiet; its output is in the log
    say "installing $1"
    shift
    "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >"$LOG" 2>&1 && return
    local reason advice="see $LOG"
    reason="$(grep -m 1 'fatal error:' "$LOG" || grep -E '^(ERROR:|×)' "$LOG" | tail -n 1 || true)"
    if grep -qE 'Retrying|Connect(ion|Timeout|)Error|Failed to (connect|establish)|NameResolution|SSLError' "$LOG"; then
        advice="the package index cannot be reached: check the network and pip's settings; $advice"
    elif grep -q 'No matching distribution' "$LOG"; then
        advice="the package index has none for Python $version: set PYTHON or TORCH_SPEC to others; $advice"
    fi
    fail "pip failed (${reason:-it gave no reason}); $advice"
}

install "$TORCH_SPEC, numpy and build tools" "$TORCH_SPEC" numpy cython "setuptools>=64" wheel
# Most of the build's time goes to torch's headers, in three extensions that this project does not use: -O1 -g0 takes
# two fifths of it away, and fairseq itself sets -O3 for those in use. They are built one after the other, as torch's
# BuildExtension keeps one build.ninja for all of them. With CUDA_HOME it would build yet more that is not used.
(
    unset CUDA_HOME
    export CFLAGS="-O1 -g0"
    install "$fairseq (built from source the first time, in about a minute)" "${build[@]}" "$fairseq"
)
install "gift_fairseq" --no-build-isolation --editable "$PROJECT[dev]"

"$VENV/bin/python" -W ignore -c 'import fairseq, gift_fairseq' >"$LOG" 2>&1 ||
    fail "all is installed, but cannot be imported ($(tail -n 1 "$LOG")): remove $VENV and run this again; see $LOG"
printf '%s' "$wanted" >"$STAMP"
say "ready: $VENV"
