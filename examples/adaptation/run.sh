#!/usr/bin/env bash
# Adaptation of the model of examples/general to image captions, with its dropout and without: what is gained, what forgotten.
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
# It ends in report/index.html. Run again, it resumes and skips what is done.

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

RAW='' GENERAL='' OUT="$PROJECT/runs/adaptation" SEEDS="1 2 3 4 5" UPDATES=1200 PRECISION=fp32
options "--raw --general --out --seeds --updates --precision" '' "$@"
[ -n "$RAW" ] || fail "--raw is needed; see --help"
[ -n "$GENERAL" ] || fail "--general is needed; see --help"
DATA="$OUT/prepared/data" BASELINE="$GENERAL/runs/baseline/checkpoints/checkpoint_last.pt" made=() models=()

bash "$PROJECT/scripts/setup_env.sh"
environment
gift prepare --train "$RAW/train" --valid "$RAW/val" --test "$RAW/test_2016_flickr" --test "$RAW/tatoeba2021" \
    --subword-model "$GENERAL/prepared/subwords.model" --dictionary "$GENERAL/prepared/data/dict.de.txt" --out "$OUT/prepared"
for seed in $SEEDS; do
    for dropout in 0.1 0; do
        run="$OUT/runs/dropout-$dropout-$seed"
        gift finetune --from "$BASELINE" --data "$DATA" --out "$run" --lr 6e-4 --updates "$UPDATES" --seed "$seed" \
            --precision "$PRECISION" -- --max-tokens 3072 --dropout "$dropout" "${FLAGS[@]}"
        made+=("$run") models+=("$run/checkpoints/checkpoint_last.pt")
    done
done
gift evaluate --search both --testset valid,test_2016_flickr,tatoeba2021 --data "$DATA" "${models[@]}"
gift report --out "$OUT/report" --title "Adaptation with dropout and without" --testset test_2016_flickr,tatoeba2021 \
    --control "${made[0]}" "${made[@]}"  # the first has the dropout of the model
