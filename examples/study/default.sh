#!/usr/bin/env bash
# Compares weighted without dropout, the default of finetune unless the model overfits, with plain updates: with the dropout of the
# model and without.
#
#   bash examples/study/default.sh --from RUN/checkpoints/FILE.pt --data DIR --out DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --from FILE      RUN/checkpoints/FILE.pt, a Transformer to start from; the baseline of the reports
#   --data DIR       data made with its dictionaries, as for finetune
#   --out DIR        where everything goes
#   --dropout P      of the plain updates with dropout: that of the model; default: 0.1
#   --lr R           peak of the learning rate; default: 6e-4
#   --updates N      of every fine-tuning; default: 1200
#   --seeds "N..."   every fine-tuning is made once with each; default: "1 2 3 4 5"
#   --precision P    fp32, bf16 or fp16; default: fp32
#
# All models translate the test sets; the fine-tuned ones translate the validation set too. It ends in over-dropout/index.html
# and over-no-dropout/index.html, named after the control. Run again, it resumes and skips what is done.

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

FROM='' DATA='' OUT='' DROPOUT=0.1 LR=6e-4 UPDATES=1200 SEEDS="1 2 3 4 5" PRECISION=fp32
options "--from --data --out --dropout --lr --updates --seeds --precision" '' "$@"
for name in FROM DATA OUT; do [ -n "${!name}" ] || fail "--${name,,} is needed; see --help"; done
[[ "/$FROM" = */checkpoints/*.pt ]] || fail "--from is $FROM, but must be RUN/checkpoints/FILE.pt"
[[ "$DROPOUT" = *[1-9]* ]] || fail "--dropout is $DROPOUT, but must be that of the model, above 0"

environment
runs=() without_dropout=() none=(--dropout 0 --attention-dropout 0 --activation-dropout 0)
for seed in $SEEDS; do
    tune=(--no-control --from "$FROM" --data "$DATA" --lr "$LR" --updates "$UPDATES" --seed "$seed" --precision "$PRECISION")
    with="$OUT/runs/dropout-$DROPOUT-$seed" without="$OUT/runs/dropout-0-$seed" default="$OUT/runs/weighted-$seed"
    gift finetune --strategy standard --out "$with" "${tune[@]}" -- --dropout "$DROPOUT" "${FLAGS[@]}"
    gift finetune --strategy standard --out "$without" "${tune[@]}" -- "${none[@]}" "${FLAGS[@]}"
    gift finetune --strategy weighted --out "$default" "${tune[@]}" -- "${none[@]}" "${FLAGS[@]}"
    for run in "$with" "$without" "$default"; do scored "$OUT" "$DATA" "$run/checkpoints/checkpoint_last.pt" valid; done
    runs+=("$with" "$without" "$default") without_dropout+=("$without" "$default")
done
scored "$OUT" "$DATA" "$FROM"
baseline="$(dirname "$(dirname "$FROM")")"
report() { gift report --out "$OUT/$1" --title "weighted without dropout, over plain updates" --control "$2" "$baseline" "${@:3}"; }
report over-dropout "${runs[0]}" "${runs[@]}"
report over-no-dropout "${without_dropout[0]}" "${without_dropout[@]}"
