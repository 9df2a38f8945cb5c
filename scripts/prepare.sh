#!/usr/bin/env bash
# Raw parallel text to data for fairseq-train: cleaned, tokenized, filtered, cut into joint subwords, binarized.
#
#   bash scripts/prepare.sh --train PREFIX --valid PREFIX --test PREFIX[,PREFIX...] --out DIR [OPTIONS]
#                           [-- FLAGS OF FAIRSEQ-PREPROCESS]
#
#   --train, --valid, --test   raw text, one sentence a line, UTF-8: PREFIX.SRC and PREFIX.TGT, or the same with .gz
#   --out DIR                  where everything goes; run again with the same options, it resumes
#   --src L, --tgt L           languages; default: en, de
#   --subword S                sentencepiece or bpe (subword-nmt); default: sentencepiece
#   --vocab-size N             pieces, or merge operations of bpe, learnt on the training split; default: 32000
#   --tokenizer T              moses (sacremoses) or none; default: moses for bpe, none for sentencepiece
#   --lowercase                default: off
#   --min-len N, --max-len N   tokens of each side of a training pair; default: 1, 250
#   --max-ratio X              how many times longer one side may be, 1 or more; default: 3
#   --workers N                processes; default: all cores
#
# DIR/data is the folder for fairseq: binarized splits (test, test1, ... in the order given), dictionaries, and what
# inference needs: segmentation.json and the subword model. DIR/clean/filtered.json counts what was left out, and why.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUT='' SRC=en TGT=de TRAIN='' VALID='' TEST='' WORKERS="$(getconf _NPROCESSORS_ONLN)"
OPTIONS=()
given=("$@")
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage "$0"; exit 0 ;;
        --) shift; break ;;
        --lowercase) OPTIONS+=("$1"); shift ;;
        --train | --valid | --test | --out | --src | --tgt | --subword | --vocab-size | --tokenizer | --min-len | \
            --max-len | --max-ratio | --workers)
            [ $# -ge 2 ] || fail "$1 needs a value; see --help"
            name="${1#--}" name="${name//-/_}"
            printf -v "${name^^}" '%s' "$2"
            OPTIONS+=("$1" "$2")
            shift 2 ;;
        *) fail "the option is $1, which is none of this recipe; flags of fairseq-preprocess go after --; see --help" ;;
    esac
done
[ -n "$TRAIN" ] && [ -n "$VALID" ] && [ -n "$TEST" ] && [ -n "$OUT" ] ||
    fail "--train, --valid, --test and --out are needed; see --help"
[ "$SRC" != "$TGT" ] || fail "--tgt is $TGT, but must be another language than --src"
IFS=, read -ra tests <<<"$TEST"
named() { # named OPTION PREFIX: both sides are there
    local language
    for language in "$SRC" "$TGT"; do
        [ -f "$2.$language" ] || [ -f "$2.$language.gz" ] ||
            fail "$1 is $2, but there is neither $2.$language nor $2.$language.gz"
    done
}
named --train "$TRAIN"
named --valid "$VALID"
for prefix in "${tests[@]}"; do named --test "$prefix"; done
OPTIONS=(--src "$SRC" --tgt "$TGT" "${OPTIONS[@]}")
check WORKERS '[1-9][0-9]*' 'a whole number, 1 or more'
FLAGS=("$@")
begin "$OUT" "${given[@]}"

binarize() {
    say "binarizing"
    local partial="$OUT/data.partial" tests=() number=''
    rm -rf "$partial"
    while [ -f "$OUT/pieces/test$number.$SRC" ]; do
        tests+=("$OUT/pieces/test$number")
        number=$((number + 1))
    done
    LOG="$OUT/preprocess.log"
    (IFS=, && fairseq-preprocess --source-lang "$SRC" --target-lang "$TGT" --joined-dictionary --workers "$WORKERS" \
        --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" --testpref "${tests[*]}" \
        --destdir "$partial" "${FLAGS[@]}" >"$LOG" 2>&1)
    cp "$OUT"/segmentation.json "$OUT"/subwords.* "$partial"
    rm -rf "$OUT/data"
    mv "$partial" "$OUT/data"
}

# one program for three stages, which starts in seconds and keeps its own stamps: clean, learn, apply
[ -f "$OUT/done/apply" ] || tool data.prepare "${OPTIONS[@]}"
stage binarize binarize
say "the data is $OUT/data"
