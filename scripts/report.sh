#!/usr/bin/env bash
# The report of runs, from their folders alone: tables, figures, samples, and a page that holds them all.
#
#   bash scripts/report.sh --out DIR [--title TEXT] RUN...
#
#   --out DIR      where it goes
#   --title TEXT   of the page; default: Fine-tuning strategies compared
#   RUN            a folder that scripts/train.sh or finetune.sh made and scripts/evaluate.sh scored; one that is not
#                  finished appears as such
#
# Writes DIR/index.html (opens from disk, needs no network), results.md, results.json, results.csv, and every figure as
# plots/NAME.png and plots/NAME.svg. Runs that differ in nothing but the seed are one row, with mean and spread.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUT='' TITLE=''
options "--out --title" '' '' "$@"
needed OUT
[ ${#FILES[@]} -gt 0 ] || fail "there is no RUN; see --help"
environment
tool report --out "$OUT" ${TITLE:+--title "$TITLE"} -- "${FILES[@]}"
say "the report is $OUT/index.html"
