#!/usr/bin/env bash
# The report of runs, from their folders alone: tables, figures, samples, and a page that holds them all.
#
#   bash scripts/report.sh --out DIR [--title TEXT] RUN...  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq report "$@"
