#!/usr/bin/env bash
# From nothing to a submission: set up, get the data, train, ensemble, write submission.csv and its report.
#   bash scripts/submit.sh [options of kit submit]
# Data: what is there already, else Kaggle's where credentials are found, else a sample that the kit draws.
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_kit
exec .venv/bin/kit submit --fetch "$@"
