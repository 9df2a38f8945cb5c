#!/usr/bin/env bash
# WMT14 English-German as Vaswani et al. (2017) set it up: from the archives to the results table.
#
#   bash examples/wmt14_en_de/run.sh --out DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --out DIR                    where everything goes; run again with the same options, it resumes
#   --source, --mirror, --unverified   as of download.sh beside this file
#   --released                   start from fairseq's released WMT16 English-German Transformer, with its dictionary and BPE
#                                codes, instead of training a baseline
#   --vocab-size N               merge operations of the joint BPE; default: 32000
#   --updates N                  updates of the baseline; default: 100000
#   --finetune-updates N         updates of every fine-tuning; default: 5000
#   --seeds "N..."               every fine-tuning is made once with each; default: 1
#   --max-tokens N               tokens of a batch on each GPU, so many batches to an update that it has 25,000; default:
#                                3125, for which every GPU has room
#   --gpus N, --precision P      as of gift train
#
# The baseline has the published hyperparameters of the base model (label smoothing 0.1, Adam with 0.9, 0.98 and 1e-9,
# 4,000 updates of warm-up to 7e-4, the inverse square root after them, dropout 0.1); what is fine-tuned and scored of it
# is the mean of its last five epochs. Scored with beam 4 and length penalty 0.6, and greedy: detokenized by sacreBLEU, and
# the tokenized, compound-split BLEU of the literature (in OUT/scores.txt).

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
source "$HERE/../../scripts/common.sh"

OUT='' SOURCE='' MIRROR='' UNVERIFIED='' RELEASED='' VOCAB_SIZE=32000 UPDATES=100000 FINETUNE_UPDATES=5000 SEEDS=1
MAX_TOKENS=3125 GPUS='' PRECISION=fp32
options "--out --source --mirror --vocab-size --updates --finetune-updates --seeds --max-tokens --gpus --precision" \
    "--unverified --released" "$@"
[ -n "$OUT" ] || fail "--out is needed; see --help"
[[ "$MAX_TOKENS" =~ ^[1-9][0-9]*$ ]] || fail "--max-tokens is $MAX_TOKENS, but must be a whole number, 1 or more; see --help"
[[ "${GPUS:-1}" =~ ^[1-9][0-9]*$ ]] || fail "--gpus is $GPUS, but must be a whole number, 1 or more; see --help"
TEXT="$OUT/corpus/text" DATA="$OUT/prepared/data" BASELINE="$OUT/runs/baseline"

bash "$PROJECT/scripts/setup_env.sh"
environment
GPUS="${GPUS:-$(python -c 'import torch; print(torch.cuda.device_count() or 1)')}"
machine=(--gpus "$GPUS" --precision "$PRECISION")
batch=(--max-tokens "$MAX_TOKENS" --update-freq $(((25000 + MAX_TOKENS * GPUS - 1) / (MAX_TOKENS * GPUS))))

bash "$HERE/download.sh" --out "$OUT/corpus" ${SOURCE:+--source "$SOURCE"} ${MIRROR:+--mirror "$MIRROR"} \
    ${UNVERIFIED:+--unverified} ${RELEASED:+--released}

if [ -n "$RELEASED" ]; then # its text went through Moses' tokenizer.perl and nothing else
    released="$OUT/corpus/released" FROM="$BASELINE/checkpoints/released.pt"
    subwords=(--tokenizer moses-bare --subword-model "$released/bpecodes" --dictionary "$released/dict.en.txt")
else
    FROM="$BASELINE/checkpoints/checkpoint_average.pt"
    subwords=(--vocab-size "$VOCAB_SIZE")
fi
gift prepare --train "$TEXT/train" --valid "$TEXT/newstest2013" --test "$TEXT/newstest2014" --subword bpe \
    "${subwords[@]}" --max-ratio 1.5 --out "$OUT/prepared"
if [ -n "$RELEASED" ]; then
    mkdir -p "$BASELINE/checkpoints"
    ln -sf "$(cd "$released" && pwd -P)/model.pt" "$FROM"
else
    gift train --data "$DATA" --out "$BASELINE" --arch transformer_wmt_en_de --lr 7e-4 --warmup 4000 \
        --updates "$UPDATES" --average 5 "${batch[@]}" "${machine[@]}" -- --share-all-embeddings --adam-eps 1e-9 \
        --dropout 0.1 --weight-decay 0 "${FLAGS[@]}"
fi
exec python -m gift_fairseq compare --data "$DATA" --from "$FROM" --out "$OUT" --updates "$FINETUNE_UPDATES" --seeds "$SEEDS" \
    "${machine[@]}" --evaluate "--beam 4 --compound-split -- --lenpen 0.6" -- "${batch[@]}" "${FLAGS[@]}"
