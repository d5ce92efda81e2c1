#!/usr/bin/env bash
# Set up and pass the tests: bash scripts/test.sh [--all] [options of pytest]
# --all adds the slow ones (rehearsals, Ray, a browser) and the linters.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ "${1:-}" = --all ]; then
    shift
    setup_kit dev ray tensorboard
    .venv/bin/ruff check kit tests scripts
    .venv/bin/mypy
    .venv/bin/bandit --quiet --recursive kit --severity-level medium
    exec .venv/bin/python -m pytest "$@"
fi
setup_kit dev
exec .venv/bin/python -m pytest -m "not slow" "$@"
