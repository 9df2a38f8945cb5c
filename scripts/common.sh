# Sourced by every recipe: where things are, and how a recipe speaks and stops.

set -euo pipefail

[[ "${BASH_VERSINFO[0]}.${BASH_VERSINFO[1]}" =~ ^(4\.[4-9]|[5-9]) ]] || {
    echo "bash is $BASH_VERSION, but 4.4 or newer is needed" >&2
    exit 1
}

PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="${GIFT_VENV:-$PROJECT/.venv}"
[[ "$VENV" = /* ]] || VENV="$PWD/$VENV" # recipes change folders

say() { printf '[%s] %s\n' "$(date +%H:%M:%S)" "$*" >&2; }

fail() {
    printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# usage FILE: the comment at the head of a recipe is its help
usage() { sed -n '2,/^$/{ s/^# \{0,1\}//; p; }' "$1"; }

environment() { # the programs of the environment are found by name
    [ -x "$VENV/bin/python" ] || fail "there is no environment at $VENV: run bash scripts/setup_env.sh first"
    export PATH="$VENV/bin:$PATH" PYTHONWARNINGS=ignore
}

gift() { python -m gift_fairseq "$@"; } # gift COMMAND ARGUMENTS...: the command line of this project

# scored OUT DATA CHECKPOINT [valid]: it translates the test sets, with valid that set too, and its exposure bias is measured;
# once for OUT. A checkpoint that was trained on other text has another validation set: leave valid out.
scored() {
    local stamp
    stamp="$1/done/scored-$(basename "$(dirname "$(dirname "$3")")")"
    [ ! "$stamp" -nt "$3" ] || return 0
    gift evaluate --search both --testset "${4:+$4,}$(paste -sd , "$2/raw/testsets.txt")" --data "$2" "$3"
    gift exposure --data "$2" "$3"
    mkdir -p "$1/done"
    touch "$stamp"
}

# options "--WITH-A-VALUE..." "--SWITCH..." ARGUMENTS...: every option that is given sets the variable of its name
# (--vocab-size: VOCAB_SIZE; a switch sets 1); FLAGS is what stands after --
options() {
    local valued=" $1 " switches=" $2 " name
    set -- "${@:3}"
    FLAGS=()
    while [ $# -gt 0 ]; do
        [[ "$1" != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
        name="${1#--}" name="${name//-/_}" name="${name^^}"
        case "$1" in
            -h | --help) usage "$0"; exit 0 ;;
            --) FLAGS=("${@:2}"); return ;;
        esac
        if [[ "$switches" == *" $1 "* ]]; then
            printf -v "$name" 1
        elif [[ "$valued" == *" $1 "* ]]; then
            [ $# -ge 2 ] || fail "$1 needs a value; see --help"
            printf -v "$name" '%s' "$2"
            shift
        else
            fail "$1 is no option of this recipe; see --help"
        fi
        shift
    done
}
