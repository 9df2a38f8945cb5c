#!/usr/bin/env bash
# Writes a checkpoint that programs without this plugin load: plain fairseq, and CTranslate2's converter for fairseq.
#
#   bash scripts/export.sh CHECKPOINT OUT  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq export "$@"
