#!/usr/bin/env bash
# Sets up, then runs ruff and the tests; arguments go to pytest.
#
#   bash scripts/run_tests.sh [PYTEST ARGUMENTS]
#
# The tests on real text run where GIFT_DATA names the folder that holds it, and say that they skip elsewhere.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ "${1:-}" =~ ^(-h|--help)$ ]] && { usage "$0"; exit 0; }

bash "$PROJECT/scripts/setup_env.sh"
cd "$PROJECT"
"$VENV/bin/python" -m ruff check .
# the tests of a file share what is slow to make; more threads than processes would only wait for each other
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$VENV/bin/python" -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 25 "$@"
