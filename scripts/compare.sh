#!/usr/bin/env bash
# Fine-tunes a checkpoint by all four strategies, for the same number of updates, and scores them beside it.
#
#   bash scripts/compare.sh --data DIR --from RUN/checkpoints/FILE.pt --out DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN]
#
#   --data DIR          the data folder that scripts/prepare.sh made, with the checkpoint's dictionaries
#   --from FILE         the baseline, in the folder of its run; its scores are written there
#   --out DIR           where everything goes; run again with the same options, it resumes and skips what is done
#   --lr X              constant learning rate of every fine-tuning; default: half the baseline's peak
#   --updates N         updates of every fine-tuning; default: 1000
#   --seeds "N..."      every fine-tuning is made once with each; default: 1
#   --evaluate "..."    further options of evaluate.sh: "--beam 4 -- --lenpen 0.6"
#
# and --precision, --average, --patience, --gpus, --tensorboard, --wandb as of scripts/train.sh. The flags after -- go to
# all fine-tunings. On several machines, call finetune.sh on each instead.
#
# The runs are OUT/runs/NAME, made by finetune.sh and evaluate.sh (see there); NAME is standard, say, and standard-seed2
# with a second seed of 2. The report is OUT/index.html and OUT/results.md (see report.sh). Scored is what the last update
# left, or with --average the mean.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DATA='' FROM='' OUT='' LR='' UPDATES=1000 SEEDS=1 EVALUATE=''
training_options
options "--data --from --out --lr --updates --seeds --evaluate $TRAINING_OPTIONS" "$TRAINING_SWITCHES" fairseq-train "$@"
no_files
needed DATA FROM OUT
whole 1 UPDATES
check SEEDS '[0-9]+( [0-9]+)*' 'whole numbers with blanks between'
[ -z "$LR" ] || rate LR
[ -z "$SEED" ] || fail "--seed is $SEED, but here it is --seeds; see --help"
[ -z "$NODES$NODE_RANK$MASTER" ] || fail "--nodes is $NODES, but this recipe works on one machine; see --help"
[[ "$FROM" == */checkpoints/*.pt ]] || fail "--from is $FROM, but must be RUN/checkpoints/FILE.pt"
[ -f "$FROM" ] || fail "--from is $FROM, but there is no such file"
hand_on

begin "$OUT" "${GIVEN[@]}" -- "${FLAGS[@]}"
BASELINE="$(dirname "$(dirname "$FROM")")" RUNS=() CHECKPOINTS=("$FROM")
scored="checkpoint_$([ "${AVERAGE:-0}" = 0 ] && echo last || echo average).pt"

finetune() { # finetune NAME STRATEGY SEED
    bash "$PROJECT/scripts/finetune.sh" --strategy "$2" --from "$FROM" --data "$DATA" --out "$OUT/runs/$1" \
        ${LR:+--lr "$LR"} --updates "$UPDATES" --seed "$3" --no-control "${TRAINING[@]}" -- \
        --eval-free-running "${FLAGS[@]}"
}

evaluate() {
    local words
    read -ra words <<<"$EVALUATE"
    bash "$PROJECT/scripts/evaluate.sh" --data "$DATA" --search both "${CHECKPOINTS[@]}" "${words[@]}" >"$OUT/scores.txt"
}

exposure() {
    say "measuring exposure bias"
    tool evaluation.exposure --data "$DATA" "${CHECKPOINTS[@]}" >&2
}

for seed in $SEEDS; do
    for strategy in standard auxiliary recurrent generative; do
        name="$strategy$([ "$seed" = "${SEEDS%% *}" ] || echo "-seed$seed")"
        stage "train-$name" finetune "$name" "$strategy" "$seed"
        RUNS+=("$OUT/runs/$name")
        CHECKPOINTS+=("$OUT/runs/$name/checkpoints/$scored")
    done
done
stage evaluate evaluate
stage exposure exposure
stage report bash "$PROJECT/scripts/report.sh" --out "$OUT" "$BASELINE" "${RUNS[@]}"
sed '/^$/q' "$OUT/results.md" # the first of its tables
say "the report is $OUT/index.html, the runs are in $OUT/runs"
