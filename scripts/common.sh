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

# tool NAME ARGUMENTS...: a program of this project. Without what importing fairseq says of packages that nobody needs,
# unless a terminal shows its progress bars
tool() {
    local command=(python -W ignore -m "gift_fairseq.$1" "${@:2}")
    if [ -t 2 ]; then
        "${command[@]}"
    else
        { "${command[@]}" 2>&1 >&3 | { grep --line-buffered -v 'install tensorboardX' || true; } >&2; } 3>&1
    fi
}

# of scripts/train.sh, and of the recipes that hand them on to it
TRAINING_OPTIONS="--patience --average --precision --seed --gpus --nodes --node-rank --master --wandb"
TRAINING_SWITCHES="--tensorboard"

# training_options: a recipe that hands them on, before it reads its options: none is given yet
training_options() {
    local option
    for option in $TRAINING_OPTIONS $TRAINING_SWITCHES; do
        variable "$option"
        printf -v "$REPLY" ''
    done
}

# variable --OPTION: REPLY is the name of the variable that holds its value
variable() { REPLY="${1#--}" REPLY="${REPLY//-/_}" REPLY="${REPLY^^}"; }

# options "WITH A VALUE" "SWITCHES" FLAGS-OF ARGUMENTS...: every option that is given sets the variable of its name
# (--vocab-size: VOCAB_SIZE; a switch sets 1); GIVEN is what was given before --, FLAGS what stands behind it, FILES the rest
options() {
    local valued=" $1 " switches=" $2 " of="$3"
    shift 3
    GIVEN=() FLAGS=() FILES=()
    while [ $# -gt 0 ]; do
        variable "$1"
        case "$1" in
            -h | --help) usage "$0"; exit 0 ;;
            --) FLAGS=("${@:2}"); break ;;
            -*)
                if [[ "$switches" == *" $1 "* ]]; then
                    printf -v "$REPLY" 1
                elif [[ "$valued" == *" $1 "* ]]; then
                    [ $# -ge 2 ] || fail "$1 needs a value; see --help"
                    printf -v "$REPLY" '%s' "$2"
                    GIVEN+=("$1")
                    shift
                else
                    fail "the option is $1, which is none of this recipe${of:+; flags of $of go after --}; see --help"
                fi ;;
            *) FILES+=("$1") ;;
        esac
        GIVEN+=("$1")
        shift
    done
    [ ${#FLAGS[@]} = 0 ] || [ -n "$of" ] || fail "${FLAGS[0]} stands after --, but this recipe takes nothing there"
}

# hand_on: TRAINING is what was given of the options of training
hand_on() {
    local option
    TRAINING=()
    for option in $TRAINING_OPTIONS; do
        variable "$option"
        [ -z "${!REPLY}" ] || TRAINING+=("$option" "${!REPLY}")
    done
    for option in $TRAINING_SWITCHES; do
        variable "$option"
        [ -z "${!REPLY}" ] || TRAINING+=("$option")
    done
}

# needed OPTION...: each was given
needed() {
    local option
    for option in "$@"; do
        [ -n "${!option}" ] || fail "--$(tr 'A-Z_' 'a-z-' <<<"$option") is needed; see --help"
    done
}

# no_files: for recipes that take options only
no_files() { [ ${#FILES[@]} = 0 ] || fail "the argument is ${FILES[0]}, but there are only options; see --help"; }

# check OPTION PATTERN ALLOWED: the value of the variable OPTION against a pattern
check() {
    [[ "${!1}" =~ ^($2)$ ]] || fail "--$(tr 'A-Z_' 'a-z-' <<<"$1") is '${!1}', but must be $3"
}

whole() { # whole LEAST OPTION...: whole numbers
    local option pattern='[0-9]+'
    [ "$1" = 0 ] || pattern='[1-9][0-9]*'
    for option in "${@:2}"; do check "$option" "$pattern" "a whole number, $1 or more"; done
}

rate() { # rate OPTION...: learning rates
    local option
    for option in "$@"; do check "$option" '[0-9]*\.?[0-9]+([eE]-?[0-9]+)?' 'a number above 0, 5e-4 say'; done
}

environment() { # the programs of the environment are found by name
    [ -x "$VENV/bin/python" ] || fail "there is no environment at $VENV: run bash scripts/setup_env.sh first"
    export PATH="$VENV/bin:$PATH" PYTHONWARNINGS=ignore
}

# begin OUT ARGUMENTS...: OUT is this recipe's alone while it runs, and was begun with the same arguments if it exists
begin() {
    OUT="$1"
    environment
    mkdir -p "$OUT/done" || fail "--out is $OUT, but that folder cannot be made"
    if command -v flock >/dev/null; then
        exec 8>"$OUT/lock"
        flock --nonblock 8 || fail "--out is $OUT, but another run is working there"
    fi
    printf '%s\n' "${@:2}" >"$OUT/settings.partial" || fail "--out is $OUT, but nothing can be written there"
    if [ -f "$OUT/settings" ] && ! cmp -s "$OUT/settings" "$OUT/settings.partial"; then
        rm "$OUT/settings.partial"
        fail "--out is $OUT, which was made with other options ($OUT/settings): choose another folder"
    fi
    mv "$OUT/settings.partial" "$OUT/settings"
    BEGUN="$OUT"
    trap stopped EXIT
}

end_jobs() { # what runs in the background; if it was started under set -m, with all that it started itself
    local job
    for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || kill "$job" 2>/dev/null || true; done
}

STAGE='' LOG='' BEGUN='' # what is running, the log to show if it fails, and the folder of begin
stopped() { # at the end, whatever the end: says where it failed, and leaves nothing running
    local status=$?
    if [ $status != 0 ] && [ -n "$STAGE" ]; then
        [ ! -s "$LOG" ] || tail -n 3 "$LOG" >&2
        printf '%s: error: stage %s failed%s; run again to resume\n' \
            "$(basename "$0")" "$STAGE" "${LOG:+ ($LOG)}" >&2
    fi
    end_jobs
    # where nothing was made yet, the folder can be begun again with the options mended
    if [ $status != 0 ] && [ -n "$BEGUN" ] && [ -z "$(find "$BEGUN" -mindepth 2 -type f -print -quit)" ]; then
        rm -f "$BEGUN/settings"
    fi
}

# stage NAME COMMAND...: once; a stage that failed or was cut off is done again. Never call it in a condition: set -e
# would be off in all that it runs, and a failed stage would go on.
stage() {
    [ ! -f "$OUT/done/$1" ] || return 0
    STAGE="$1"
    "${@:2}"
    touch "$OUT/done/$1"
    STAGE='' LOG=''
}
