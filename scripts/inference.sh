#!/usr/bin/env bash
# Translates raw text: stdin to stdout, a line for a line; at a terminal, line by line.
#
#   bash scripts/inference.sh --data DIR --checkpoint FILE [OPTIONS] [-- FLAGS OF FAIRSEQ-GENERATE] <in >out  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq inference "$@"
