#!/usr/bin/env bash
# Sets up, then does the main job on the toy language pair: a baseline, four fine-tunings, the results table.
#
#   bash scripts/quickstart.sh [--out DIR] [--fast] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --out DIR   where everything goes; default: runs/quickstart, or runs/fast with --fast
#   --fast      a smoke run of under two minutes after set-up: everything happens, nothing is learnt
#
# Run again, it resumes and skips what is done.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUT='' FAST=''
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage "$0"; exit 0 ;;
        --) shift; break ;;
        --fast) FAST=1; shift ;;
        --out) [ $# -ge 2 ] || fail "--out needs a folder; see --help"; OUT="$2"; shift 2 ;;
        *) fail "the option is $1, but there are --out DIR and --fast; see --help" ;;
    esac
done
OUT="${OUT:-$PROJECT/runs/$([ -n "$FAST" ] && echo fast || echo quickstart)}"

bash "$PROJECT/scripts/setup_env.sh"

CORPUS=() SIZES=(--vocab-size 1000 --lr 3e-3 --warmup 100 --updates 500 --finetune-updates 60)
if [ -n "$FAST" ]; then
    CORPUS=(--train 400 --valid 10 --test 10 --test-long 10)
    SIZES=(--vocab-size 300 --lr 3e-3 --warmup 5 --updates 10 --finetune-updates 3)
fi
if [ ! -f "$OUT/text/test_long.de" ]; then
    say "generating the toy language pair"
    PATH="$VENV/bin:$PATH" tool data.toy_language --out "$OUT/text" "${CORPUS[@]}"
fi
exec bash "$PROJECT/scripts/compare.sh" --text "$OUT/text" --out "$OUT" --tests "test test_long" "${SIZES[@]}" \
    --finetune-lr 5e-4 -- \
    --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 128 --decoder-embed-dim 128 \
    --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 --encoder-attention-heads 4 --decoder-attention-heads 4 \
    --dropout 0.1 --max-tokens 2048 --num-workers 0 "$@"
