#!/usr/bin/env bash
# Translates raw text: stdin to stdout, a line for a line; at a terminal, line by line.
#
#   bash scripts/inference.sh --data DIR --checkpoint FILE [OPTIONS] [-- FLAGS OF FAIRSEQ'S GENERATOR] <in >out
#
#   --data DIR          the data folder that scripts/prepare.sh made for the model
#   --checkpoint FILE   the model
#   --search S          beam or greedy; default: beam
#   --beam N            beam size, 2 or more; default: 5
#   --nbest N           hypotheses a line, with line number and score where N is above 1; default: 1
#   --buffer N          lines translated together; default: 1 at a terminal, otherwise 256

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in -h | --help) usage "$0"; exit 0 ;; esac
environment
tool evaluation.inference "$@"
