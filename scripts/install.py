"""Install with pip what `setup.sh` asks for, whatever a machine's pip is set up to do instead.

Run by the Python of the environment that is to be filled:
    .venv/bin/python -I scripts/install.py [options of pip install]

Of pip's settings, in `PIP_…` variables or in a `pip.conf`, only those stay that say how packages are reached:
a company's index, proxy, certificate and cache. Others, such as `PIP_USER`, `PIP_TARGET` or `PIP_CONSTRAINT`,
would change what is installed, or where to, so they are named and set aside.
"""

import ast
import os
import subprocess
import sys

REACH = {
    "index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "keyring-provider",
    "proxy", "cert", "client-cert", "cache-dir", "no-cache-dir", "timeout", "default-timeout", "retries",
}
QUIET = {"disable-pip-version-check", "no-input", "no-color", "progress-bar", "quiet", "verbose", "config-file"}


def settings_of_pip() -> dict[str, str]:
    """What variables and `pip.conf` set for `pip install`, by name; of two values the one that pip takes."""
    listed = subprocess.run([sys.executable, "-I", "-m", "pip", "config", "list"], capture_output=True, text=True)
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.stdout.splitlines():
        section, _, name = line.partition("=")[0].partition(".")
        if section in found:
            found[section][name] = ast.literal_eval(line.partition("=")[2])
    return found["global"] | found["install"] | found[":env:"]


def clean_environment(settings: dict[str, str]) -> dict[str, str]:
    """This process' environment, with those settings of pip alone that say how packages are reached."""
    kept = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items() if name in REACH}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return others | kept | {"PIP_CONFIG_FILE": os.devnull}


def main(arguments: list[str]) -> int:
    settings = settings_of_pip()
    aside = sorted(settings.keys() - REACH - QUIET)
    if aside:
        print(f"note: pip's settings {', '.join(aside)} of this machine are set aside here", file=sys.stderr)
    command = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, env=clean_environment(settings)).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
