#!/usr/bin/env bash
# Translates test sets with checkpoints, and scores what comes out.
#
#   bash scripts/evaluate.sh --data DIR [OPTIONS] CHECKPOINT... [-- FLAGS OF FAIRSEQ-GENERATE]
#
#   --data DIR           the data folder that scripts/prepare.sh made, with the raw test sets
#   --search S           beam, greedy, or both; default: beam
#   --beam N             beam size, 2 or more; default: 5
#   --testset NAME,...   test sets, or valid; default: all test sets
#   --compound-split     also tokenized BLEU with compounds split, as the literature on WMT14 En-De reports it
#   --out RUN            where it goes; default: the folder of the run, CHECKPOINT being RUN/checkpoints/FILE.pt
#
# Writes RUN/generate/TESTSET.SEARCH.txt, the translations (and .log, what fairseq-generate said), and RUN/scores.json.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DATA='' SEARCH=beam BEAM=5 TESTSET='' COMPOUND_SPLIT='' OUT=''
options "--data --search --beam --testset --out" --compound-split fairseq-generate "$@"
needed DATA
check SEARCH 'beam|greedy|both' 'beam, greedy or both'
check BEAM '[2-9]|[1-9][0-9]+' 'a whole number, 2 or more'
[ ${#FILES[@]} -gt 0 ] || fail "there is no CHECKPOINT; see --help"
environment

searches=("$SEARCH") started=() runs=()
if [ "$SEARCH" = both ]; then
    searches=(beam greedy)
    cores="$(getconf _NPROCESSORS_ONLN)" # both at once, half of the cores each
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > 1 ? cores / 2 : 1))}"
fi
trap stopped EXIT
STAGE=translate
say "translating"
for search in "${searches[@]}"; do
    tool evaluation.translate "$DATA" --search "$search" --beam "$BEAM" ${TESTSET:+--testset "$TESTSET"} \
        ${OUT:+--out "$OUT"} "${FILES[@]}" -- "${FLAGS[@]}" >&2 &
    started+=($!)
done
for process in "${started[@]}"; do wait "$process"; done
STAGE=scores
if [ -n "$OUT" ]; then
    runs=("$OUT")
else
    for checkpoint in "${FILES[@]}"; do runs+=("$(dirname "$(dirname "$checkpoint")")"); done
fi
tool evaluation.scores ${COMPOUND_SPLIT:+--compound-split} "$DATA" "${runs[@]}"
STAGE=''
