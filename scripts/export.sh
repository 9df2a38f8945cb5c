#!/usr/bin/env bash
# Writes a checkpoint that programs without this plugin load: plain fairseq, and CTranslate2's converter for fairseq.
#
#   bash scripts/export.sh CHECKPOINT OUT

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options '' '' '' "$@"
[ ${#FILES[@]} = 2 ] || fail "there are ${#FILES[@]} arguments, but CHECKPOINT and OUT are needed; see --help"
environment
tool export "${FILES[@]}"
say "${FILES[1]} is written"
