#!/usr/bin/env bash
# A study of fine-tuning: many settings with one seed, the best of each strategy on the validation set with all seeds.
#
#   bash examples/multi30k/study.sh --data DIR --from RUN/checkpoints/FILE.pt --out DIR [OPTIONS]
#                                   [-- FLAGS OF FAIRSEQ-TRAIN]
#
#   --data DIR       the data folder that scripts/prepare.sh made, with the checkpoint's dictionaries
#   --from FILE      the baseline, in the folder of its run; its scores are written there
#   --out DIR        where everything goes; run again, it resumes and skips what is done
#   --grid FILE      lines NAME STRATEGY FLAGS..., to which lines can be added; default: grid.txt beside this file
#   --seeds "N..."   the first is that of the selection; seeds can be added; default: "1 2 3"
#   --lr X           constant learning rate of every fine-tuning; default: 5e-4
#   --updates N      updates of every fine-tuning; default: 136
#   --jobs N         trainings at once, each with OMP_NUM_THREADS or its share of the cores; default: 1
#
# 1. The control (standard) and every line of the grid are fine-tuned with the first seed: DIR/runs/NAME.
# 2. They translate the validation set (DIR/selection/NAME). Of every strategy the line with the best BLEU there, the
#    mean of beam and greedy, is a finalist: DIR/selection.md and selection.json.
# 3. The control and the finalists are fine-tuned with the other seeds too (DIR/runs/NAME-seedN). They and the baseline
#    translate the test sets, their exposure bias is measured, and the report is written to DIR/report.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

DATA='' FROM='' OUT='' GRID="$(dirname "${BASH_SOURCE[0]}")/grid.txt" SEEDS="1 2 3" LR=5e-4 UPDATES=136 JOBS=1
options "--data --from --out --grid --seeds --lr --updates --jobs" '' fairseq-train "$@"
no_files
needed DATA FROM OUT
whole 1 UPDATES JOBS
rate LR
check SEEDS '[0-9]+( [0-9]+)*' 'whole numbers with blanks between'
[[ "$FROM" == */checkpoints/*.pt ]] || fail "--from is $FROM, but must be RUN/checkpoints/FILE.pt"
[ -f "$FROM" ] || fail "--from is $FROM, but there is no such file"
environment
STUDY="$OUT"
lines="$(tool report.selection --lines "$STUDY" "$GRID")"
# the stamps are apart from those of compare.sh, whose folder can be gone on with; what may grow is no setting
begin "$STUDY/study" --data "$DATA" --from "$FROM" --seed "${SEEDS%% *}" --lr "$LR" --updates "$UPDATES" -- \
    "${FLAGS[@]}"

declare -A SETTING=([standard]=standard)
NAMES=(standard)
while IFS=$'\t' read -r name setting; do
    NAMES+=("$name")
    SETTING["$name"]="$setting"
done <<<"$lines"
cores="$(getconf _NPROCESSORS_ONLN)"
THREADS="${OMP_NUM_THREADS:-$((cores > JOBS ? cores / JOBS : 1))}"

# once WHAT COMMAND RUN...: the command with all those runs for which it is not done yet
once() {
    local run left=()
    for run in "${@:3}"; do [ -f "$OUT/done/$1-$run" ] || left+=("$run"); done
    [ ${#left[@]} != 0 ] || return 0
    STAGE="$1"
    "$2" "${left[@]}"
    for run in "${left[@]}"; do touch "$OUT/done/$1-$run"; done
    STAGE=''
}

finetune() { # finetune RUN
    local name="${1%-seed*}" seed="${SEEDS%% *}"
    [ "$name" = "$1" ] || seed="${1##*-seed}"
    OMP_NUM_THREADS="$THREADS" bash "$PROJECT/scripts/finetune.sh" --strategy "${SETTING[$name]}" --from "$FROM" \
        --data "$DATA" --out "$STUDY/runs/$1" --lr "$LR" --updates "$UPDATES" --seed "$seed" --no-control -- \
        --eval-free-running "${FLAGS[@]}" </dev/null
}

free() { # free N: waits until fewer than N trainings are under way; ends the study when one fails
    local run log
    while [ ! -f "$OUT/failed" ] && [ "$(jobs -rp | wc -l)" -ge "$1" ]; do wait -n || true; done
    [ -f "$OUT/failed" ] || return 0
    end_jobs
    wait 2>/dev/null # bash says of each that it was ended
    run="$(head -n 1 "$OUT/failed")"
    log="$STUDY/runs/$run/stderr.log" STAGE=''
    fail "the training of $run failed$([ ! -f "$log" ] || echo " ($log)"); run again to resume"
}

train() { # train RUN...: so many at once, each in a process group of its own, which can be ended as a whole
    local run
    rm -f "$OUT/failed"
    set -m
    for run in "$@"; do
        free "$JOBS"
        { finetune "$run" && touch "$OUT/done/train-$run" || echo "$run" >>"$OUT/failed"; } &
    done
    free 1
    set +m
    for run in "$@"; do
        [ -f "$OUT/done/train-$run" ] || STAGE='' fail "the training of $run was cut off; run again to resume"
    done
}

select_from() { # select_from RUN...: validation apart from the runs, whose folders the report reads
    local run checkpoints=()
    for run in "$@"; do
        mkdir -p "$STUDY/selection/$run"
        ln -sfn "../../runs/$run/checkpoints" "$STUDY/selection/$run/checkpoints"
        checkpoints+=("$STUDY/selection/$run/checkpoints/checkpoint_last.pt")
    done
    bash "$PROJECT/scripts/evaluate.sh" --data "$DATA" --search both --testset valid "${checkpoints[@]}" >/dev/null
}

checkpoints_of() { # checkpoints_of RUN...: CHECKPOINTS; the run "baseline" is that of --from
    local run
    CHECKPOINTS=()
    for run in "$@"; do
        if [ "$run" = baseline ]; then
            CHECKPOINTS+=("$FROM")
        else
            CHECKPOINTS+=("$STUDY/runs/$run/checkpoints/checkpoint_last.pt")
        fi
    done
}

evaluate() {
    checkpoints_of "$@"
    rm -f "$OUT/reported"
    bash "$PROJECT/scripts/evaluate.sh" --data "$DATA" --search both "${CHECKPOINTS[@]}" >/dev/null
}

exposure() {
    checkpoints_of "$@"
    rm -f "$OUT/reported"
    say "measuring exposure bias"
    tool evaluation.exposure --data "$DATA" "${CHECKPOINTS[@]}" >&2
}

once train train "${NAMES[@]}"
once select select_from "${NAMES[@]}"
chosen="$(tool report.selection "$STUDY" "$GRID")"
mapfile -t finalists <<<"$chosen"
say "chosen on the validation set ($STUDY/selection.md): ${finalists[*]}"

RUNS=() FOLDERS=("$(dirname "$(dirname "$FROM")")")
for seed in $SEEDS; do
    for name in standard "${finalists[@]}"; do
        run="$name$([ "$seed" = "${SEEDS%% *}" ] || echo "-seed$seed")"
        RUNS+=("$run")
        FOLDERS+=("$STUDY/runs/$run")
    done
done
once train train "${RUNS[@]}"
once evaluate evaluate baseline "${RUNS[@]}"
once exposure exposure baseline "${RUNS[@]}"
if ! printf '%s\n' "${RUNS[@]}" | cmp -s - "$OUT/reported"; then
    STAGE=report
    bash "$PROJECT/scripts/report.sh" --out "$STUDY/report" "${FOLDERS[@]}"
    printf '%s\n' "${RUNS[@]}" >"$OUT/reported"
    STAGE=''
fi
for table in selection.md report/results.md; do sed '/^$/q' "$STUDY/$table"; done # the first of each
say "the runs are in $STUDY/runs, the choice is in $STUDY/selection.md"
