#!/usr/bin/env bash
# From parallel text to the results table: subwords, a baseline, the four fine-tunings from it, their scores.
#
#   bash scripts/compare.sh --text DIR --out DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR ALL RUNS]
#
#   --text DIR             raw parallel text: train, valid and the test sets, as NAME.SRC and NAME.TGT
#   --out DIR              where everything goes; run again with the same options, it resumes and skips what is done
#   --src L, --tgt L       languages; default: en, de
#   --tests "NAME..."      test sets; default: test
#   --vocab-size N         joint subwords, 1 or more; default: 8000
#   --lr X                 peak learning rate of the baseline; default: 2e-3
#   --warmup N             updates until that rate, then linearly down to a twentieth of it; default: 800
#   --updates N            updates of the baseline; default: 2000
#   --finetune-lr X        constant learning rate of every fine-tuning; default: 5e-4
#   --finetune-updates N   updates of every fine-tuning; default: 200
#   --seed N               default: 1
#
# In OUT/runs/NAME each run keeps its command, versions, log, checkpoints, what it generated and scores.json; the table
# is OUT/results.md and OUT/results.json. Fine-tunings start from the baseline of the lowest validation loss and are
# scored after their last update.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

TEXT='' OUT='' SRC=en TGT=de TESTS=test VOCAB_SIZE=8000 LR=2e-3 WARMUP=800 UPDATES=2000
FINETUNE_LR=5e-4 FINETUNE_UPDATES=200 SEED=1
given=("$@")
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage "$0"; exit 0 ;;
        --) shift; break ;;
        --text | --out | --src | --tgt | --tests | --vocab-size | --lr | --warmup | --updates | --finetune-lr | \
            --finetune-updates | --seed)
            [ $# -ge 2 ] || fail "$1 needs a value; see --help"
            name="${1#--}" name="${name//-/_}"
            printf -v "${name^^}" '%s' "$2"
            shift 2 ;;
        *) fail "the option is $1, which is none of this recipe; flags of fairseq-train go after --; see --help" ;;
    esac
done
[ -n "$TEXT" ] && [ -n "$OUT" ] || fail "--text and --out are needed; see --help"
for option in VOCAB_SIZE UPDATES FINETUNE_UPDATES; do check $option '[1-9][0-9]*' 'a whole number, 1 or more'; done
for option in WARMUP SEED; do check $option '[0-9]+' 'a whole number, 0 or more'; done
for option in LR FINETUNE_LR; do check $option '[0-9]*\.?[0-9]+([eE]-?[0-9]+)?' 'a number above 0, 5e-4 say'; done
for set in train valid $TESTS; do
    for language in "$SRC" "$TGT"; do
        [ -s "$TEXT/$set.$language" ] || fail "--text is $TEXT, but $set.$language is missing there or empty"
    done
    [ "$(wc -l <"$TEXT/$set.$SRC")" = "$(wc -l <"$TEXT/$set.$TGT")" ] ||
        fail "--text is $TEXT, but $set.$SRC and $set.$TGT have unequal numbers of lines"
done

begin "$OUT" "${given[@]}"
DEVICE=()
python -c 'import sys, torch; sys.exit(torch.cuda.is_available())' && DEVICE=(--cpu)

prepare() {
    local tests=() set
    for set in $TESTS; do tests+=("$TEXT/$set"); done
    (IFS=, && bash "$PROJECT/scripts/prepare.sh" --src "$SRC" --tgt "$TGT" --train "$TEXT/train" \
        --valid "$TEXT/valid" --test "${tests[*]}" --vocab-size "$VOCAB_SIZE" --out "$OUT/prepared")
}

train() { # train NAME FLAGS...: one run of fairseq-train, resumed where it stopped
    local run="$OUT/runs/$1" line
    # finished, but cut off before the stage was stamped: fairseq would make one update more
    if grep -qs 'done training' "$run/train.log"; then return; fi
    say "training $1"
    mkdir -p "$run"
    local command=(fairseq-train "$DATA" --user-dir "$PROJECT/gift_fairseq" --task gift_translation
        --source-lang "$SRC" --target-lang "$TGT" --arch transformer_wmt_en_de --share-all-embeddings
        --label-smoothing 0.1 --report-accuracy --eval-free-running --optimizer adam --adam-betas '(0.9, 0.98)'
        --seed "$SEED" --save-dir "$run/checkpoints" --no-epoch-checkpoints
        --log-format json --log-interval 20 --log-file "$run/train.log" "${DEVICE[@]}" "${@:2}" "${FLAGS[@]}")
    printf '%q ' "${command[@]}" >"$run/command.sh"
    python -m pip freeze --disable-pip-version-check >"$run/versions.txt" 2>/dev/null
    git -C "$PROJECT" rev-parse HEAD >"$run/commit.txt" 2>/dev/null || rm -f "$run/commit.txt"
    LOG="$run/stderr.log"
    "${command[@]}" 2>"$LOG" | while IFS= read -r line; do
        if [[ "$line" =~ train_inner.*\"nll_loss\":\ \"([0-9.]+)\".*\"num_updates\":\ \"([0-9]+)\" ]]; then
            say "  $1: update ${BASH_REMATCH[2]}, ${BASH_REMATCH[1]} bits a token"
        fi
    done
}

baseline() {
    train baseline --criterion gift_standard --lr "$LR" --lr-scheduler polynomial_decay --warmup-updates "$WARMUP" \
        --total-num-update "$UPDATES" --end-learning-rate "$(python -c "print($LR / 20)")" --max-update "$UPDATES"
}

finetune() { # finetune STRATEGY
    train "$1" --criterion "gift_$1" --finetune-from-model "$OUT/runs/baseline/checkpoints/checkpoint_best.pt" \
        --lr "$FINETUNE_LR" --lr-scheduler fixed --max-update "$FINETUNE_UPDATES"
}

translate() { # every test set with every run; both searches at once, a core each
    say "translating"
    local checkpoints=("$OUT/runs/baseline/checkpoints/checkpoint_best.pt") strategy search started=()
    for strategy in "${STRATEGIES[@]}"; do checkpoints+=("$OUT/runs/$strategy/checkpoints/checkpoint_last.pt"); done
    for search in beam greedy; do
        # batch sizes in multiples of 8, fairseq's default, drop the sentences that remain; and its default of one
        # worker to load data makes every test set wait seconds for that worker's end
        OMP_NUM_THREADS=1 python -m gift_fairseq.evaluation.translate "$DATA" --tests "$TESTS" --search "$search" \
            "${checkpoints[@]}" -- --source-lang "$SRC" --target-lang "$TGT" \
            --max-tokens 4000 --required-batch-size-multiple 1 --num-workers 0 --max-len-a 2 --max-len-b 20 \
            --bpe sentencepiece --sentencepiece-model "$DATA/subwords.model" "${DEVICE[@]}" \
            >&2 2>"$OUT/translate-$search.log" &
        started+=($!)
    done
    LOG="$OUT/translate-beam.log"
    wait "${started[0]}"
    LOG="$OUT/translate-greedy.log"
    wait "${started[1]}"
}

FLAGS=("$@") DATA="$OUT/prepared/data"
STRATEGIES=(standard auxiliary recurrent generative)

stage prepare prepare
stage train-baseline baseline
for strategy in "${STRATEGIES[@]}"; do stage "train-$strategy" finetune "$strategy"; done
stage translate translate

runs=("$OUT/runs/baseline" "${STRATEGIES[@]/#/$OUT/runs/}")
stage scores tool evaluation.scores --text "$TEXT" --target-lang "$TGT" "${runs[@]}"
stage table tool report.table --out "$OUT" "${runs[@]}" >/dev/null
cat "$OUT/results.md"
say "the table is $OUT/results.md, the runs are in $OUT/runs"
