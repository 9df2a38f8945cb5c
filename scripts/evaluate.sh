#!/usr/bin/env bash
# Translates test sets with checkpoints, and scores what comes out.
#
#   bash scripts/evaluate.sh --data DIR [OPTIONS] CHECKPOINT... [-- FLAGS OF FAIRSEQ-GENERATE]  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq evaluate "$@"
