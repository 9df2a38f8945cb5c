#!/usr/bin/env bash
# Raw parallel text to data for fairseq-train: cleaned, tokenized, filtered, cut into joint subwords, binarized.
#
#   bash scripts/prepare.sh --train PREFIX --valid PREFIX --test PREFIX[,PREFIX...] --out DIR [OPTIONS] [-- FLAGS OF FAIRSEQ-PREPROCESS]  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq prepare "$@"
