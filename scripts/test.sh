#!/usr/bin/env bash
# Set up and pass the tests:
#   bash scripts/test.sh [--newest | --lowest] [--all] [options of pytest]
#   bash scripts/test.sh --kaggle-image [options of pytest]
# --newest, --lowest: with the newest and the lowest versions that setup.cfg admits, where constraints.txt has those that
# are known to work; each in an environment of its own. --all adds the slow tests (rehearsals, Ray, a browser) and the
# linters. --kaggle-image: what a kernel does in Kaggle's own image.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

if [ "${1:-}" = --kaggle-image ]; then
    shift
    setup_kit # at home the weights are trained and the kernels built
    setup_kaggle_image
    exec .venv-kaggle/bin/python -m pytest -m kaggle_image tests/runtime/test_kaggle_image.py "$@"
fi

# The sample, from nothing to a submission, in a folder that goes away.
submit_sample() {
    local kit folder
    kit="$PWD/$venv/bin/kit"
    folder=$(mktemp -d)
    (cd "$folder" && "$kit" download --from sample && "$kit" submit --limit 50 --epochs 1 --folds 2)
    rm -rf "$folder"
}

case "${1:-}" in
    --newest) # to be asked for each time: there may be newer ones today
        shift
        venv=.venv-newest versions=newest
        rm -f $venv/installed
        ;;
    --lowest)
        shift
        venv=.venv-lowest versions=lowest pythons=3.11
        ;;
esac
if [ "${1:-}" = --all ]; then
    shift
    setup_kit dev ray tensorboard
    $venv/bin/ruff check kit tests scripts
    $venv/bin/mypy
    $venv/bin/lint-imports --no-cache
    $venv/bin/bandit --quiet --recursive kit --severity-level medium
    tests="not kaggle_image"
else
    setup_kit dev
    tests="not slow and not kaggle_image"
fi
[ $versions = tried ] || submit_sample
exec $venv/bin/python -m pytest -m "$tests" "$@"
