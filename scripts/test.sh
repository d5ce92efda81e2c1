#!/usr/bin/env bash
# Set up and pass the tests: bash scripts/test.sh [--all | --kaggle-image] [options of pytest]
# --all adds the slow ones (rehearsals, Ray, a browser) and the linters; --kaggle-image runs those that need Kaggle's versions.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
case "${1:-}" in
    --all)
        shift
        setup_kit dev ray tensorboard
        .venv/bin/ruff check kit tests scripts
        .venv/bin/mypy
        .venv/bin/bandit --quiet --recursive kit --severity-level medium
        exec .venv/bin/python -m pytest -m "not kaggle_image" "$@"
        ;;
    --kaggle-image) # pytest runs in that image as well, so that sys.executable is its Python
        shift
        setup_kaggle_image
        exec .venv-kaggle/bin/python -m pytest -m kaggle_image tests/delivery/test_kaggle_image.py "$@"
        ;;
esac
setup_kit dev
exec .venv/bin/python -m pytest -m "not slow and not kaggle_image" "$@"
