#!/usr/bin/env bash
# From parallel text to the results table: subwords, a baseline, the four fine-tunings from it, their scores.
#
#   bash scripts/compare.sh --text DIR --out DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --text DIR             raw parallel text: train, valid and the test sets, as NAME.SRC and NAME.TGT
#   --out DIR              where everything goes; run again with the same options, it resumes and skips what is done
#   --src L, --tgt L       languages; default: en, de
#   --tests "NAME..."      test sets; default: test
#   --vocab-size N         joint subwords, 1 or more; default: 8000
#   --lr X                 peak learning rate of the baseline; default: 2e-3
#   --warmup N             updates until that rate, then linearly down to a twentieth of it; default: 800
#   --updates N            updates of the baseline; default: 2000
#   --finetune-lr X        constant learning rate of every fine-tuning; default: 5e-4
#   --finetune-updates N   updates of every fine-tuning; default: 200
#   --seeds "N..."         every fine-tuning is made once with each, the baseline with the first; default: 1
#
# Calls prepare.sh (into OUT/prepared), train.sh, finetune.sh and evaluate.sh (into OUT/runs/NAME, see there; NAME is
# standard, say, and standard-seed2 with a second seed of 2). The table is OUT/results.md and OUT/results.json.
# Fine-tunings start from the baseline of the lowest validation loss and are scored after their last update.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TEXT='' OUT='' SRC=en TGT=de TESTS=test VOCAB_SIZE=8000 LR=2e-3 WARMUP=800 UPDATES=2000
FINETUNE_LR=5e-4 FINETUNE_UPDATES=200 SEEDS=1
options "--text --out --src --tgt --tests --vocab-size --lr --warmup --updates --finetune-lr --finetune-updates --seeds" \
    '' fairseq-train "$@"
no_files
needed TEXT OUT
whole 1 VOCAB_SIZE UPDATES FINETUNE_UPDATES
whole 0 WARMUP
check SEEDS '[0-9]+( [0-9]+)*' 'whole numbers with blanks between'
rate LR FINETUNE_LR
for set in train valid $TESTS; do
    for language in "$SRC" "$TGT"; do
        [ -s "$TEXT/$set.$language" ] || fail "--text is $TEXT, but $set.$language is missing there or empty"
    done
    [ "$(wc -l <"$TEXT/$set.$SRC")" = "$(wc -l <"$TEXT/$set.$TGT")" ] ||
        fail "--text is $TEXT, but $set.$SRC and $set.$TGT have unequal numbers of lines"
done

begin "$OUT" "${GIVEN[@]}" -- "${FLAGS[@]}"
DATA="$OUT/prepared/data" BASELINE="$OUT/runs/baseline/checkpoints/checkpoint_best.pt"
RUNS=() # "NAME STRATEGY SEED"
for seed in $SEEDS; do
    for strategy in standard auxiliary recurrent generative; do
        RUNS+=("$strategy$([ "$seed" = "${SEEDS%% *}" ] || echo "-seed$seed") $strategy $seed")
    done
done
FOLDERS=() # of the fine-tunings
for run in "${RUNS[@]}"; do FOLDERS+=("$OUT/runs/${run%% *}"); done

recipe() { bash "$PROJECT/scripts/$1.sh" "${@:2}"; }

prepare() {
    local tests=() set
    for set in $TESTS; do tests+=("$TEXT/$set"); done
    (IFS=, && recipe prepare --src "$SRC" --tgt "$TGT" --train "$TEXT/train" --valid "$TEXT/valid" \
        --test "${tests[*]}" --vocab-size "$VOCAB_SIZE" --out "$OUT/prepared")
}

baseline() {
    recipe train --data "$DATA" --out "$OUT/runs/baseline" --lr "$LR" --warmup "$WARMUP" --updates "$UPDATES" \
        --seed "${SEEDS%% *}" -- --lr-scheduler polynomial_decay --total-num-update "$UPDATES" \
        --end-learning-rate "$(python -c "print($LR / 20)")" --eval-free-running "${FLAGS[@]}"
}

finetune() { # finetune NAME STRATEGY SEED
    recipe finetune --strategy "$2" --from "$BASELINE" --data "$DATA" --out "$OUT/runs/$1" --lr "$FINETUNE_LR" \
        --updates "$FINETUNE_UPDATES" --seed "$3" --no-control -- --eval-free-running "${FLAGS[@]}"
}

evaluate() {
    recipe evaluate --data "$DATA" --search both "$BASELINE" "${FOLDERS[@]/%//checkpoints/checkpoint_last.pt}" \
        >"$OUT/scores.txt"
}

stage prepare prepare
stage train-baseline baseline
for run in "${RUNS[@]}"; do stage "train-${run%% *}" finetune $run; done
stage evaluate evaluate
stage table tool report.table --out "$OUT" "$OUT/runs/baseline" "${FOLDERS[@]}" >/dev/null
cat "$OUT/results.md"
say "the table is $OUT/results.md, the runs are in $OUT/runs"
