#!/usr/bin/env bash
# Sets up, then does the main job on the toy language pair: a baseline, five fine-tunings, the results table.
#
#   bash scripts/quickstart.sh [--out DIR] [--fast] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --out DIR   where everything goes; default: runs/quickstart, or runs/fast with --fast
#   --fast      a smoke run on a tiny corpus: everything happens, nothing is learnt
#
# Run again, it resumes and skips what is done.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUT='' FAST=''
options --out --fast "$@"
if [ -n "$FAST" ]; then
    OUT="${OUT:-$PROJECT/runs/fast}" CORPUS=(--train 400 --valid 10 --test 10 --test-long 10)
    VOCAB_SIZE=300 WARMUP=5 UPDATES=10 FINETUNE_UPDATES=3
else
    OUT="${OUT:-$PROJECT/runs/quickstart}" CORPUS=()
    VOCAB_SIZE=1000 WARMUP=100 UPDATES=500 FINETUNE_UPDATES=60
fi
TEXT="$OUT/text" DATA="$OUT/prepared/data" BASELINE="$OUT/runs/baseline"

bash "$PROJECT/scripts/setup_env.sh"
environment
[ -f "$TEXT/test_long.de" ] || python "$PROJECT/examples/toy/language.py" --out "$TEXT" "${CORPUS[@]}" >&2
gift prepare --train "$TEXT/train" --valid "$TEXT/valid" --test "$TEXT/test,$TEXT/test_long" \
    --vocab-size "$VOCAB_SIZE" --out "$OUT/prepared"
gift train --data "$DATA" --out "$BASELINE" --lr 3e-3 --warmup "$WARMUP" --updates "$UPDATES" --max-tokens 2048 -- \
    --lr-scheduler polynomial_decay --total-num-update "$UPDATES" --end-learning-rate 1.5e-4 \
    --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 128 --decoder-embed-dim 128 \
    --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 --encoder-attention-heads 4 --decoder-attention-heads 4 \
    --share-all-embeddings --dropout 0.1 --eval-free-running --num-workers 0 "${FLAGS[@]}"
exec python -m gift_fairseq compare --data "$DATA" --from "$BASELINE/checkpoints/checkpoint_best.pt" --out "$OUT" \
    --lr 5e-4 --updates "$FINETUNE_UPDATES" -- --num-workers 0 "${FLAGS[@]}"
