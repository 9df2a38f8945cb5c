#!/usr/bin/env bash
# Fine-tunes a checkpoint by one of the strategies, and by standard, the control of the same updates, beside it.
#
#   bash scripts/finetune.sh [--strategy S] --from FILE --data DIR --out RUN [OPTIONS] [-- FLAGS OF FAIRSEQ-TRAIN]  (--help: all options)

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
environment
exec python -m gift_fairseq finetune "$@"
