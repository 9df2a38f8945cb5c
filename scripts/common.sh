# Sourced by every recipe: where things are, and how a recipe speaks and stops.

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

# tool NAME ARGUMENTS...: a program of this project, without what importing fairseq says of packages that nobody needs
tool() {
    { python -W ignore -m "gift_fairseq.$1" "${@:2}" 2>&1 >&3 | { grep -v 'install tensorboardX' || true; } >&2; } 3>&1
}
