#!/usr/bin/env bash
# Fine-tunes a checkpoint by one of the strategies, and by standard, the control of the same updates, beside it.
#
#   bash scripts/finetune.sh --strategy S --from FILE --data DIR --out RUN [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN]
#
#   --strategy S     standard, auxiliary, recurrent, generative or risk; with its own flags: "recurrent --gold-ratio 0.5"
#   --from FILE      the checkpoint to start from: fairseq's, with or without this plugin
#   --data DIR       data made with the checkpoint's dictionaries
#   --out RUN        folder of the run; run again with the same options, it resumes where it was stopped
#   --control RUN    folder of the control, trained first unless it is there; default: standard, beside --out
#   --no-control     train no control
#   --lr X           constant learning rate; default: half the peak that the checkpoint was trained with
#   --updates N      default: 1000
#
# and --precision, --seed, --average, --patience, --gpus, --nodes, --node-rank, --master, --tensorboard, --wandb as of
# scripts/train.sh. Architecture, batch size, label smoothing and Adam's settings are the checkpoint's; the optimizer
# starts afresh. Flags after -- go to the control too.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

STRATEGY='' FROM='' DATA='' OUT='' CONTROL='' NO_CONTROL='' LR='' UPDATES=1000
training_options
options "--strategy --from --data --out --control --lr --updates $TRAINING_OPTIONS" \
    "--no-control $TRAINING_SWITCHES" fairseq-train "$@"
no_files
needed STRATEGY FROM DATA OUT
whole 1 UPDATES
[ -z "$LR" ] || rate LR
read -ra strategy <<<"$STRATEGY"
name="${strategy[0]}"
grep -qs "register_criterion(\"gift_$name\"" "$PROJECT/gift_fairseq/criterions/$name.py" ||
    fail "--strategy is '$name', but must be standard, auxiliary, recurrent, generative or risk"
environment

hand_on
found="$(tool finetune_flags --data "$DATA" --from "$FROM")"
mapfile -t flags <<<"$found"
FROM="$(cd "$(dirname "$FROM")" && pwd -P)/$(basename "$FROM")" # one name for it, from wherever: reports compare them
[ -z "$LR" ] || flags+=(--lr "$LR")

finetune() { # finetune RUN CRITERION FLAGS...
    bash "$PROJECT/scripts/train.sh" --data "$DATA" --out "$1" --criterion "$2" --updates "$UPDATES" "${TRAINING[@]}" -- \
        "${flags[@]}" --lr-scheduler fixed --warmup-updates 0 --finetune-from-model "$FROM" "${@:3}" "${FLAGS[@]}"
}

if [ "$name" != standard ] && [ -z "$NO_CONTROL" ]; then
    finetune "${CONTROL:-$(dirname "$OUT")/standard}" gift_standard
fi
finetune "$OUT" "gift_$name" "${strategy[@]:1}"
