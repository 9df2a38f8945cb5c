#!/usr/bin/env bash
# Fine-tunes a checkpoint by five strategies for as many updates each, scores them, measures exposure bias, and reports.
#
#   bash scripts/compare.sh --data DIR --from RUN/checkpoints/FILE.pt --out DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN]  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq compare "$@"
