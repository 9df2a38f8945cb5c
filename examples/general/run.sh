#!/usr/bin/env bash
# General text: a small model that its capacity limits, and what the default of finetune gains.
#
#   bash examples/general/run.sh --raw DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --raw DIR        train, valid and the test sets of --tests, as NAME.en and NAME.de, or with .gz
#   --tests "NAME..."  default: "tatoeba2021 newstest2014"
#   --out DIR        where everything goes; default: runs/general
#   --seeds "N..."   every fine-tuning is made once with each; default: "1 2 3 4 5"
#   --updates N      updates of the baseline; default: 8800, eight epochs of 229,750 pairs
#   --finetune-updates N   updates of every fine-tuning; default: 3960
#   --precision P    fp32 or bf16; default: fp32
#
# It ends in over-dropout/index.html and over-no-dropout/index.html. Run again, it resumes and skips what is done.

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

RAW='' TESTS="tatoeba2021 newstest2014" OUT="$PROJECT/runs/general" SEEDS="1 2 3 4 5" UPDATES=8800 FINETUNE_UPDATES=3960
PRECISION=fp32
options "--raw --tests --out --seeds --updates --finetune-updates --precision" '' "$@"
[ -n "$RAW" ] || fail "--raw is needed; see --help"
DATA="$OUT/prepared/data" BASELINE="$OUT/runs/baseline" tests=()
for name in $TESTS; do tests+=(--test "$RAW/$name"); done

bash "$PROJECT/scripts/setup_env.sh"
environment
gift prepare --train "$RAW/train" --valid "$RAW/valid" "${tests[@]}" --vocab-size 8000 --out "$OUT/prepared"
gift train --data "$DATA" --out "$BASELINE" --lr 2e-3 --warmup 500 --updates "$UPDATES" --max-tokens 3072 \
    --precision "$PRECISION" -- --lr-scheduler polynomial_decay --total-num-update "$UPDATES" --end-learning-rate 1e-5 \
    --encoder-layers 3 --decoder-layers 3 --encoder-embed-dim 128 --decoder-embed-dim 128 \
    --encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 4 --decoder-attention-heads 4 \
    --share-all-embeddings --dropout 0.1 "${FLAGS[@]}"
exec bash "$PROJECT/examples/study/default.sh" --from "$BASELINE/checkpoints/checkpoint_last.pt" --data "$DATA" --out "$OUT" \
    --seeds "$SEEDS" --updates "$FINETUNE_UPDATES" --precision "$PRECISION" -- --max-tokens 3072 "${FLAGS[@]}"
