#!/usr/bin/env bash
# Trains a model with fairseq-train, on the GPUs there are or on the CPU.
#
#   bash scripts/train.sh --data DIR --out RUN [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN]
#
# Of the model it says --arch alone; what else the model is to have stands after --. For a Transformer over a joint
# dictionary, as scripts/prepare.sh makes it, that is at least --share-all-embeddings.
#
#   --data DIR          the data folder that scripts/prepare.sh made, or any of fairseq-preprocess
#   --out RUN           folder of the run; run again with the same options, it resumes where it was stopped
#   --arch A            fairseq's name of the architecture; default: transformer_wmt_en_de
#   --criterion C       fairseq's name of the objective; default: gift_standard
#   --lr X              peak learning rate; default: 7e-4
#   --warmup N          updates until that rate, then down with the inverse square root; default: 4000
#   --updates N         default: 100000
#   --max-tokens N      tokens of a batch, of the longer side, on each GPU; default: 4096
#   --update-freq N     batches of an update; default: 1
#   --patience N        stop when N validations in a row were no better; default: 0, never
#   --average N         also write checkpoints/checkpoint_average.pt, the mean of the last N epochs; default: 0, not
#   --precision P       fp32, fp16 or bf16; default: fp32
#   --seed N            default: 1
#   --gpus N            processes on this machine, each with a GPU of its own where there are any, else on the CPU;
#                       default: as many as there are GPUs, or 1
#   --nodes N           machines, each with as many processes; start the recipe on every one; default: 1
#   --node-rank R       which of them this is, 0 to N-1; default: 0
#   --master HOST:PORT  where machine 0 is found; needed for more than one machine
#   --tensorboard       write RUN/tensorboard (needs tensorboardX in the environment)
#   --wandb PROJECT     log to Weights & Biases (needs wandb in the environment)
#
# In RUN: settings (of this recipe), command.sh, commit.txt and versions.txt (what ran), train.log (fairseq's log as
# JSON, the whole configuration first), checkpoints/, and done/STAGE for each stage that is finished.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DATA='' OUT='' ARCH=transformer_wmt_en_de CRITERION=gift_standard LR=7e-4 WARMUP=4000 UPDATES=100000 MAX_TOKENS=4096
UPDATE_FREQ=1 PATIENCE=0 AVERAGE=0 PRECISION=fp32 SEED=1 GPUS='' NODES=1 NODE_RANK=0 MASTER='' TENSORBOARD='' WANDB=''
options "--data --out --arch --criterion --lr --warmup --updates --max-tokens --update-freq $TRAINING_OPTIONS" \
    "$TRAINING_SWITCHES" fairseq-train "$@"
no_files
needed DATA OUT
whole 0 WARMUP PATIENCE AVERAGE SEED NODE_RANK
whole 1 UPDATES MAX_TOKENS UPDATE_FREQ NODES
rate LR
check PRECISION 'fp32|fp16|bf16' 'fp32, fp16 or bf16'
[ -z "$GPUS" ] || whole 1 GPUS
[ "$NODE_RANK" -lt "$NODES" ] || fail "--node-rank is $NODE_RANK, but must be below --nodes, $NODES"
if [ "$NODES" -gt 1 ]; then check MASTER '[^:]+:[0-9]+' 'HOST:PORT for more than one node'; fi
[ -d "$DATA" ] || fail "--data is $DATA, but there is no such folder"
compgen -G "$DATA/dict.*.txt" >/dev/null ||
    fail "--data is $DATA, but that is no data folder: prepare one with scripts/prepare.sh"
DATA="$(cd "$DATA" && pwd -P)" # the command that is kept holds from any folder
environment
DEVICES="$(python -c 'import torch; print(torch.cuda.device_count())')"
GPUS="${GPUS:-$((DEVICES > 0 ? DEVICES : 1))}"
[ "$DEVICES" = 0 ] || [ "$GPUS" -le "$DEVICES" ] || fail "--gpus is $GPUS, but this machine has $DEVICES"
[ "$DEVICES" != 0 ] || [ "$PRECISION" != fp16 ] || fail "--precision is fp16, but this machine has no GPU"
[ -z "$TENSORBOARD" ] || python -c 'import tensorboardX' 2>/dev/null ||
    fail "--tensorboard needs tensorboardX: $VENV/bin/pip install tensorboardX"
[ -z "$WANDB" ] || python -c 'import wandb' 2>/dev/null || fail "--wandb needs wandb: $VENV/bin/pip install wandb"

if [ "$NODE_RANK" = 0 ]; then begin "$OUT" "${GIVEN[@]}" -- "${FLAGS[@]}"; fi

COMMAND=(fairseq-train "$DATA" --user-dir "$PROJECT/gift_fairseq" --task gift_translation --arch "$ARCH"
    --criterion "$CRITERION" --label-smoothing 0.1 --report-accuracy
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr "$LR" --lr-scheduler inverse_sqrt --warmup-updates "$WARMUP"
    --max-tokens "$MAX_TOKENS" --update-freq "$UPDATE_FREQ" --max-update "$UPDATES" --seed "$SEED"
    --save-dir "$OUT/checkpoints" --log-format json --log-interval 20)
[ "$PRECISION" = fp32 ] || COMMAND+=("--$PRECISION")
[ "$PATIENCE" = 0 ] || COMMAND+=(--patience "$PATIENCE")
if [ "$AVERAGE" = 0 ]; then COMMAND+=(--no-epoch-checkpoints); else COMMAND+=(--keep-last-epochs "$AVERAGE"); fi
[ -z "$TENSORBOARD" ] || COMMAND+=(--tensorboard-logdir "$OUT/tensorboard")
[ -z "$WANDB" ] || COMMAND+=(--wandb-project "$WANDB")
[ "$DEVICES" != 0 ] || COMMAND+=(--cpu)
[ "$NODE_RANK" != 0 ] || COMMAND+=(--log-file "$OUT/train.log")
COMMAND+=("${FLAGS[@]}")
if [ $((GPUS * NODES)) -gt 1 ]; then
    [ "$DEVICES" != 0 ] || COMMAND+=(--distributed-backend gloo --ddp-backend legacy_ddp)
    rendezvous=(--standalone)
    [ "$NODES" = 1 ] || rendezvous=(--nnodes "$NODES" --node-rank "$NODE_RANK" --master-addr "${MASTER%:*}"
        --master-port "${MASTER##*:}")
    COMMAND=(torchrun "${rendezvous[@]}" --nproc-per-node "$GPUS" --no-python bash -c
        'exec "$@" --distributed-world-size "$WORLD_SIZE" --distributed-rank "$RANK" --device-id "$LOCAL_RANK"'
        worker "${COMMAND[@]}" --distributed-init-method env:// --distributed-no-spawn)
fi

train() {
    local line reason
    # finished, but cut off before the stage was stamped: fairseq would make one update more
    if grep -qs 'done training' "$OUT/train.log"; then return; fi
    say "training $(basename "$OUT")"
    printf '%q ' "${COMMAND[@]}" >"$OUT/command.sh"
    python -m pip freeze --disable-pip-version-check >"$OUT/versions.txt" 2>/dev/null
    git -C "$PROJECT" rev-parse HEAD >"$OUT/commit.txt" 2>/dev/null || rm -f "$OUT/commit.txt"
    LOG="$OUT/stderr.log"
    "${COMMAND[@]}" 2>"$LOG" | while IFS= read -r line; do
        if [[ "$line" =~ train_inner.*\"nll_loss\":\ \"([0-9.]+)\".*\"num_updates\":\ \"([0-9]+)\" ]]; then
            say "  $(basename "$OUT"): update ${BASH_REMATCH[2]}, ${BASH_REMATCH[1]} bits a token"
        fi
    done || {
        reason="$(grep -oE 'No space left on device|File too large|Disk quota exceeded' "$LOG" | tail -n 1 || true)"
        [ -z "$reason" ] || LOG='' fail "a checkpoint cannot be written to $OUT/checkpoints: $reason"
        return 1
    }
}

average() {
    tool average --last "$AVERAGE" --out "$OUT/checkpoints/checkpoint_average.pt" "$OUT/checkpoints" >&2
}

if [ "$NODE_RANK" != 0 ]; then
    [ -f "$OUT/done/train" ] || exec "${COMMAND[@]}"
    exit 0
fi
stage train train
[ "$AVERAGE" = 0 ] || stage average average
say "the run is $OUT"
