#!/usr/bin/env bash
# What the strategies cost: an update of each, and of peers, interleaved on the same batches; how rollouts grow.
#
#   bash scripts/benchmark.sh [--device cpu|cuda] [--arch NAME] [--json FILE] [OPTIONS] [-- FLAGS OF FAIRSEQ'S MODEL]
#
# Needs what scripts/setup_env.sh sets up. All options: python -m gift_fairseq.benchmark --help

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in -h | --help) usage "$0"; exit 0 ;; esac
environment
tool benchmark "$@"
