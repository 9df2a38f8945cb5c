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
#   --tokenizer T              moses (sacremoses), moses-bare (as Moses' tokenizer.perl alone), none; default: moses for bpe,
#                              none for sentencepiece
#   --lowercase                default: off
#   --min-len N, --max-len N   tokens of each side of a training pair; default: 1, 250
#   --max-ratio X              how many times longer one side may be, 1 or more; default: 3
#   --subword-model FILE       take these subwords (a sentencepiece model, or codes of bpe) instead of learning some
#   --dictionary FILE          take this dictionary of fairseq's for both sides instead of building one
#   --workers N                processes; default: all cores
#
# DIR/data is the folder for fairseq and the other recipes: binarized splits (test, test1, ... in the order given),
# dictionaries, segmentation.json and the subword model for inference, and raw/ with the text of the validation and test
# sets for evaluation. A test set is called as its file is; PREFIX.TGT.1, PREFIX.TGT.2 ... are further references.
# DIR/clean/filtered.json counts what was left out, and why.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUT='' SRC=en TGT=de TRAIN='' VALID='' TEST='' WORKERS="$(getconf _NPROCESSORS_ONLN)"
options "--train --valid --test --out --src --tgt --subword --vocab-size --tokenizer --min-len --max-len --max-ratio \
--subword-model --dictionary --workers" --lowercase fairseq-preprocess "$@"
no_files
needed TRAIN VALID TEST OUT
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
whole 1 WORKERS
begin "$OUT" "${GIVEN[@]}" -- "${FLAGS[@]}"

binarize() {
    say "binarizing"
    local partial="$OUT/data.partial" tests=() number='' dictionary=()
    [ ! -f "$OUT/dictionary.txt" ] || dictionary=(--srcdict "$OUT/dictionary.txt")
    rm -rf "$partial"
    while [ -f "$OUT/pieces/test$number.$SRC" ]; do
        tests+=("$OUT/pieces/test$number")
        number=$((number + 1))
    done
    LOG="$OUT/preprocess.log"
    (IFS=, && fairseq-preprocess --source-lang "$SRC" --target-lang "$TGT" --joined-dictionary --workers "$WORKERS" \
        --trainpref "$OUT/pieces/train" --validpref "$OUT/pieces/valid" --testpref "${tests[*]}" \
        "${dictionary[@]}" --destdir "$partial" "${FLAGS[@]}" >"$LOG" 2>&1)
    cp -r "$OUT"/segmentation.json "$OUT"/subwords.* "$OUT/raw" "$partial"
    rm -rf "$OUT/data"
    mv "$partial" "$OUT/data"
}

# one program for three stages, which starts in seconds and keeps its own stamps: clean, learn, apply
[ -f "$OUT/done/apply" ] || tool data.prepare --src "$SRC" --tgt "$TGT" "${GIVEN[@]}"
stage binarize binarize
say "the data is $OUT/data"
