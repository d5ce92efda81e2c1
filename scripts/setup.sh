# Sourced by submit.sh and test.sh: makes their virtual environments, each once, and again where what it is made from
# has changed. Needs bash and a Python from 3.11 to 3.13 alone.

set -euo pipefail
unset CDPATH # with it `cd` may go elsewhere
for name in PYTHONHOME PYTHONPATH PYTHONUSERBASE; do
    [ -z "${!name:-}" ] || echo "note: $name is set aside here: it leads to other packages than .venv's" >&2
    unset $name
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# find_python VERSION...: the first Python of one of these versions. pyenv's folders are looked into as well, since its
# `python3.12` works only where that version is switched on.
find_python() {
    local python version
    for python in ${PYTHON:+"$PYTHON"} $(printf 'python%s ' "$@") python3 python \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.*/bin/python; do
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case " $* " in *" $version "*) echo "$python" && return ;; esac
    done
    echo "error: no Python of version $(echo "$*" | sed 's/ / or /g') was found, and this needs one" >&2
    echo "fix: install one (python.org, apt, brew, pyenv), or name it: PYTHON=/path/to/python$1 bash $0" >&2
    exit 2
}

# make_venv FOLDER PYTHON: an empty virtual environment, where there is none that works.
make_venv() {
    if "$1/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    rm -rf "$1" # half made, or not at all
    if ! "$2" -m venv "$1"; then
        echo "error: $("$2" --version) cannot make a virtual environment here" >&2
        echo "fix: see its words above; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 2
    fi
}

# setup_kit [EXTRA...]: an environment in which `kit` runs. Before, one may set `venv` (the folder), `versions` (those of
# constraints.txt, or the newest or lowest of setup.cfg: see install.py) and `pythons`.
# A second call must be training within 20 s: pip runs only where the files or the folder have changed, or an extra is
# not there yet. .venv/installed says what is: a checksum, then the extras.
setup_kit() {
    local wanted=" $* " sum installed="" python extra missing=""
    if [ "$(uname -s)" = Linux ] && command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
        wanted="$wanted gpu "
    fi
    sum=$({ pwd; cat setup.cfg pyproject.toml constraints.txt; } | cksum | tr ' ' '-')
    if [ -x $venv/bin/kit ] && [ "$(head -n 1 $venv/installed 2>/dev/null)" = "$sum" ]; then
        installed=" $(tail -n +2 $venv/installed | tr '\n' ' ') "
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
    python=$(find_python $pythons)
    make_venv $venv "$python"
    echo "installing the kit into $venv (minutes, once) ..." >&2
    extra=$(echo $wanted | tr ' ' ',')
    if ! $venv/bin/python -I scripts/install.py $versions --editable ".${extra:+[$extra]}"; then
        echo "error: pip could not install the kit for $(uname -s) $(uname -m), $($venv/bin/python --version)" >&2
        echo "fix: see pip's words above; TensorFlow has wheels for Linux (x86-64, arm64), macOS (arm64) and Windows" \
             "(x86-64), Python 3.11 to 3.13, and the first installation needs a network" >&2
        exit 2
    fi
    { echo "$sum"; printf '%s\n' $wanted; } > $venv/installed
}
venv=.venv versions=tried pythons="3.12 3.11 3.13"

# Kaggle's image, without the kit: .venv-kaggle, with the versions of constraints-kaggle.txt. It takes minutes and 2 GB.
setup_kaggle_image() {
    local sum python
    sum=$({ pwd; cat constraints-kaggle.txt; } | cksum)
    [ "$(cat .venv-kaggle/installed 2>/dev/null)" != "$sum" ] || return 0
    python=$(find_python 3.12)
    make_venv .venv-kaggle "$python"
    echo "installing Kaggle's image into .venv-kaggle (minutes, once) ..." >&2
    if ! .venv-kaggle/bin/python -I scripts/install.py listed --requirement constraints-kaggle.txt; then
        echo "error: pip could not install constraints-kaggle.txt for $(uname -s) $(uname -m)" >&2
        echo "fix: see pip's words above; Kaggle's image is Linux on x86-64" >&2
        exit 2
    fi
    echo "$sum" > .venv-kaggle/installed
}

# bash scripts/setup.sh [EXTRA...]: what is there once more, and these extras.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    extras=$(tail -n +2 $venv/installed 2>/dev/null || true)
    rm -f $venv/installed
    setup_kit "$@" $extras
fi
