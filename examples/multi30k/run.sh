#!/usr/bin/env bash
# Multi30k English-German, from the raw files to a report: the first sections of README.md beside this file.
#
#   bash examples/multi30k/run.sh --raw DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --raw DIR        train, val and test_2016_flickr, as NAME.en.gz and NAME.de.gz (29,000, 1,014 and 1,000 lines)
#   --out DIR        where everything goes; default: runs/multi30k
#   --seeds "N..."   every fine-tuning is made once with each; default: "1 2 3"
#   --updates N      updates of the baseline; default: 1000
#   --warmup N       updates until its peak rate of 2e-3; default: 400
#
# Run again, it resumes and skips what is done.

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

RAW='' OUT="$PROJECT/runs/multi30k" SEEDS="1 2 3" UPDATES=1000 WARMUP=400
options "--raw --out --seeds --updates --warmup" '' "$@"
[ -n "$RAW" ] || fail "--raw is needed; see --help"
DATA="$OUT/prepared/data" BASELINE="$OUT/runs/baseline"

bash "$PROJECT/scripts/setup_env.sh"
environment
gift prepare --train "$RAW/train" --valid "$RAW/val" --test "$RAW/test_2016_flickr" --vocab-size 8000 \
    --out "$OUT/prepared"
gift train --data "$DATA" --out "$BASELINE" --lr 2e-3 --warmup "$WARMUP" --updates "$UPDATES" -- \
    --lr-scheduler polynomial_decay --total-num-update "$UPDATES" --end-learning-rate 1e-4 \
    --encoder-layers 3 --decoder-layers 3 --encoder-embed-dim 256 --decoder-embed-dim 256 \
    --encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 8 --decoder-attention-heads 8 \
    --share-all-embeddings --dropout 0.3 --eval-free-running "${FLAGS[@]}"
exec python -m gift_fairseq compare --data "$DATA" --from "$BASELINE/checkpoints/checkpoint_best.pt" --out "$OUT" \
    --lr 5e-4 --updates 136 --seeds "$SEEDS" -- "${FLAGS[@]}"
