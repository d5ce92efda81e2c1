"""Install the kit with pip in one of three sets of versions, however a machine's pip is set up.

Run by the Python of the environment that is to be filled:
    .venv/bin/python -I scripts/install.py tried|newest|lowest|listed [options of pip install]

tried: the versions of `constraints.txt`, from wheels; without them where a wheel is missing on this
machine. newest, lowest: what `setup.cfg` admits at most, and at least. listed: what the options
say, from wheels.

Of pip's settings, in `PIP_…` variables or in a `pip.conf`, only those stay that say how packages
are reached: a company's index, proxy, certificate and cache. Others, such as `PIP_USER`,
`PIP_TARGET` or `PIP_CONSTRAINT`, would change what is installed, or where to, so they are named and
set aside.
"""

import ast
import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

REACH = {
    "index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "keyring-provider",
    "proxy", "cert", "client-cert", "cache-dir", "no-cache-dir", "timeout", "default-timeout",
    "retries"}
SILENT = {"config-file", "disable-pip-version-check", "no-color", "no-input", "progress-bar",
          "quiet", "verbose"}
UNREACHED = re.compile("connection broken by|Could not fetch URL|ProxyError|SSLError|No space left")
BOUND = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)\s*(;.*)?")


def settings_of_pip() -> dict[str, str]:
    """What variables and `pip.conf` set for `pip install`, by name.

    Of two values, the one that pip takes.
    """
    variables = {name: value for name, value in os.environ.items()
                 if name.startswith("PIP_") and value}
    # A `user = true` anywhere would also mean `pip config --user list`, and that leaves the other
    # files out.
    all_files = {f"PIP_{name}": "0" for name in ("USER", "GLOBAL", "SITE")}
    command = [sys.executable, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=os.environ | all_files, stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in found:
            found[section][name] = ast.literal_eval(value)
    of_variables = {name[4:].lower().replace("_", "-"): value for name, value in variables.items()}
    return found["global"] | found["install"] | of_variables


def clean_environment(settings: dict[str, str]) -> dict[str, str]:
    """This process' environment; of pip's settings, only those on how to reach packages."""
    kept = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()
            if name in REACH}
    others = {name: value for name, value in os.environ.items()
              if not name.startswith(("PIP_", "PYTHON"))}
    return others | kept | {"PIP_CONFIG_FILE": os.devnull}


def lower_bounds(setup_cfg: Path) -> list[str]:
    """Each lower bound of `setup.cfg` as an exact version. ValueError where one is missing."""
    parser = configparser.ConfigParser()
    parser.read_string(setup_cfg.read_text("utf-8"))
    requirements = [parser["options"]["install_requires"],
                    *parser["options.extras_require"].values()]
    pins = set()
    for requirement in filter(None, "\n".join(requirements).splitlines()):
        if not (bound := BOUND.fullmatch(requirement)):
            raise ValueError(f"setup.cfg: {requirement} has no lower bound")
        pins.add(f"{bound[1]}=={bound[2]}{bound[3] or ''}")
    return sorted(pins)


def pip_install(arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run `pip install`; its exit status, and its words, which the user has seen by then."""
    command = [sys.executable, "-I", "-m", "pip", "install", "--quiet",
               "--disable-pip-version-check", *arguments]
    words = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr)
            words.append(line)
    return process.returncode, "".join(words)


def main(versions: str, arguments: list[str]) -> int:
    settings = settings_of_pip()
    if aside := sorted(settings.keys() - REACH - SILENT):
        print(f"note: this machine's settings of pip are set aside here: {', '.join(aside)}",
              file=sys.stderr)
    environment = clean_environment(settings)
    wheels = ["--only-binary", ":all:"]
    if versions == "listed":
        return pip_install([*wheels, *arguments], environment)[0]
    if versions == "newest":
        return pip_install(["--upgrade", "--upgrade-strategy", "eager", *arguments], environment)[0]
    if versions == "lowest":
        pins = Path(sys.prefix, "lowest.txt")
        pins.write_text("\n".join(lower_bounds(Path("setup.cfg"))) + "\n", "utf-8")
        return pip_install(["--constraint", str(pins), *arguments], environment)[0]
    constrained = [*wheels, "--constraint", "constraints.txt", *arguments]
    failed, words = pip_install(constrained, environment)
    if failed and not UNREACHED.search(words):
        print("note: a version of constraints.txt has no wheel for this machine (pip's words "
              "above); installing the newest versions instead, which no test of the kit has seen",
              file=sys.stderr)
        failed, words = pip_install(arguments, environment)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
