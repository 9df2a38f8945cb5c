#!/usr/bin/env bash
# Adaptation of the model of examples/general to image captions: what the default of finetune gains, and what is forgotten.
# The models of plain updates without dropout are then fine-tuned once more: plainly, and by distillation.
#
#   bash examples/adaptation/run.sh --raw DIR --general DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --raw DIR        train, val and test_2016_flickr of Multi30k, and tatoeba2021 of general text: NAME.en and NAME.de, or with .gz
#   --general DIR    the folder of examples/general/run.sh, which has trained its baseline
#   --out DIR        where everything goes; default: runs/adaptation
#   --seeds "N..."   default: "1 2 3 4 5"
#   --updates N      of every fine-tuning; default: 1200
#   --precision P    fp32 or bf16; default: fp32
#
# It ends in over-dropout/index.html, over-no-dropout/index.html and distillation/index.html. Run again, it resumes and skips what is done.

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

RAW='' GENERAL='' OUT="$PROJECT/runs/adaptation" SEEDS="1 2 3 4 5" UPDATES=1200 PRECISION=fp32
options "--raw --general --out --seeds --updates --precision" '' "$@"
[ -n "$RAW" ] || fail "--raw is needed; see --help"
[ -n "$GENERAL" ] || fail "--general is needed; see --help"
DATA="$OUT/prepared/data" BASELINE="$GENERAL/runs/baseline/checkpoints/checkpoint_last.pt"

bash "$PROJECT/scripts/setup_env.sh"
environment
gift prepare --train "$RAW/train" --valid "$RAW/val" --test "$RAW/test_2016_flickr" --test "$RAW/tatoeba2021" \
    --subword-model "$GENERAL/prepared/subwords.model" --dictionary "$GENERAL/prepared/data/dict.de.txt" --out "$OUT/prepared"
bash "$PROJECT/examples/study/default.sh" --from "$BASELINE" --data "$DATA" --out "$OUT" \
    --seeds "$SEEDS" --updates "$UPDATES" --precision "$PRECISION" -- --max-tokens 3072 "${FLAGS[@]}"
second=()
for seed in $SEEDS; do
    gift finetune --strategy distillation --from "$OUT/runs/dropout-0-$seed/checkpoints/checkpoint_last.pt" --lr 6e-4 \
        --updates "$UPDATES" --seed "$seed" --precision "$PRECISION" --data "$DATA" --out "$OUT/runs/distillation-$seed" \
        --control "$OUT/runs/plain-$seed" -- --max-tokens 3072 --dropout 0 "${FLAGS[@]}"
    for run in plain distillation; do
        scored "$OUT" "$DATA" "$OUT/runs/$run-$seed/checkpoints/checkpoint_last.pt" valid
        second+=("$OUT/runs/$run-$seed")
    done
done
gift report --out "$OUT/distillation" --title "Distillation after adaptation" "${second[@]}"
