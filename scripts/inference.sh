#!/usr/bin/env bash
# Translates raw text: stdin to stdout, a line for a line; at a terminal, line by line.
#
#   bash scripts/inference.sh --data DIR --checkpoint FILE [OPTIONS] [-- FLAGS OF FAIRSEQ-GENERATE] <in >out
#
# All options: bash scripts/inference.sh --help

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq inference "$@"
