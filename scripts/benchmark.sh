#!/usr/bin/env bash
# What the strategies cost: an update of each, and of peers, on the same batches; how rollouts grow.
#
#   bash scripts/benchmark.sh [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN FOR THE MODEL]  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq benchmark "$@"
