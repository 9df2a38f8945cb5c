#!/usr/bin/env bash
# Trains a model with fairseq-train, on the GPUs there are or on the CPU.
#
#   bash scripts/train.sh --data DIR --out RUN [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN]  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq train "$@"
