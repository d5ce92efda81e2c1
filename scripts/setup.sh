# Sourced by submit.sh and test.sh: makes .venv once, and again where setup.cfg or the wanted extras have changed.
# In goes a list of extras (setup_kit dev); out comes a .venv in which `kit` runs. Needs Python >= 3.11 and bash alone.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local python
    for python in "${PYTHON:-}" python3.12 python3.11 python3.13 python3 python; do
        if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "error: no Python from 3.11 to 3.13 was found; TensorFlow has no wheel for others" >&2
    echo "fix: install one (python.org, apt, brew, pyenv), or name it: PYTHON=/path/to/python3.12 bash $0" >&2
    exit 2
}

# A second call must be training within 20 s: pip runs only where setup.cfg has changed or an extra is not there yet.
# .venv/installed says what is: a checksum, then the extras.
setup_kit() {
    local wanted=" $* " sum installed="" python extra missing=""
    if [ "$(uname -s)" = Linux ] && command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
        wanted="$wanted gpu "
    fi
    sum=$(cat setup.cfg pyproject.toml | cksum | tr ' ' '-')
    if [ -x .venv/bin/kit ] && [ "$(head -n 1 .venv/installed 2>/dev/null)" = "$sum" ]; then
        installed=" $(tail -n +2 .venv/installed | tr '\n' ' ') "
    else
        missing=kit
    fi
    for extra in $wanted; do
        case "$installed" in *" $extra "*) ;; *) missing=$extra ;; esac
    done
    [ -n "$missing" ] || return 0
    for extra in $installed; do
        case "$wanted" in *" $extra "*) ;; *) wanted="$wanted $extra " ;; esac
    done
    python=$(find_python)
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        rm -rf .venv # half made, or not at all
        if ! "$python" -m venv .venv; then
            echo "error: $("$python" --version) cannot make a virtual environment here" >&2
            echo "fix: see its words above; on Debian and Ubuntu: apt install python3-venv" >&2
            exit 2
        fi
    fi
    echo "installing the kit into .venv (minutes, once) ..." >&2
    extra=$(echo $wanted | tr ' ' ',')
    if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}"; then
        echo "error: pip could not install the kit for $(uname -s) $(uname -m), $("$python" --version)" >&2
        echo "fix: see pip's words above; TensorFlow has wheels for Linux (x86-64, arm64), macOS (arm64) and Windows" \
             "(x86-64), Python 3.11 to 3.13, and the first installation needs a network" >&2
        exit 2
    fi
    { echo "$sum"; printf '%s\n' $wanted; } > .venv/installed
}
