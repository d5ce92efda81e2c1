"""Find out how this copy of the kit came here: its version, its git commit, and how to add to it.

A copy is a git checkout, what a kernel has unpacked, or what pip has installed.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution

KIT = Path(__file__).parents[1]
PACKED_VERSION = "VERSION"  # beside kit/__init__.py in a kernel: the version that was packed
DISTRIBUTION = "kannada-kit"


def kit_version() -> str:
    """The version of the kit that runs, such as `0.1.0`; "unknown" if nothing says which it is.

    In a git checkout it is the last tag, and after it `.post1.dev<commits>+g<commit>`, as
    setuptools-scm writes them; elsewhere what a kernel was packed with, or what pip installed.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (KIT / PACKED_VERSION).read_text("utf-8").strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        _check_tracked()
        try:
            described = _git("describe", "--tags", "--long", "--match", "v[0-9]*")
            tag, distance, commit = described.removeprefix("v").rsplit("-", 2)
        except subprocess.CalledProcessError:  # no tag, or a shallow clone without it
            return (f"0.post1.dev{_git('rev-list', '--count', 'HEAD')}+unknown."
                    f"g{_git('rev-parse', '--short', 'HEAD')}")
        return tag if distance == "0" else f"{tag}.post1.dev{distance}+{commit}"
    installed = _distribution()
    return installed.version if installed else "unknown"


def source_commit() -> str:
    """The git commit that the kit's source is at, and whether its files differ from it.

    Where the kit is no checkout, "unknown" and its version, which names a release or a commit.
    """
    try:
        _check_tracked()
        return _git("rev-parse", "HEAD") + (", with local changes"
                                            if _git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return f"unknown (kit {kit_version()}, not a git checkout)"


def describe() -> str:
    """The version, and the commit or that none is known: the line of `kit --version`."""
    commit = source_commit()
    return f"kit {kit_version()}, " + ("not a git checkout" if commit.startswith("unknown")
                                       else f"git commit {commit}")


def how_to_install(extra: str = "") -> str:
    """How to install what `extra` of setup.cfg needs, in words that a fix can begin with.

    Without an extra, what the kit always needs.
    """
    if (KIT.parent / "scripts" / "setup.sh").is_file() and sys.platform != "win32":
        return f"bash scripts/setup.sh {extra}".rstrip() + " in the kit's folder"
    # The environment that kit runs in need not be the active one; cmd.exe knows double quotes alone
    pip = f'"{sys.executable}" -m pip' if " " in sys.executable else f"{sys.executable} -m pip"
    if not extra:
        return f"{pip} check, and install what it names"
    installed = _distribution()
    packages = [requirement.partition(";")[0].strip()
                for requirement in (installed.requires if installed else None) or ()
                if f'extra == "{extra}"' in requirement.replace("'", '"')]
    if not packages:
        return f"install the packages of the kit's extra [{extra}]"
    return f"{pip} install " + " ".join(f'"{package}"' for package in packages)


def _distribution() -> "Distribution | None":
    """What pip has installed as the kit, if it is the copy that runs."""
    import importlib.metadata
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    for installed in importlib.metadata.distributions(name=DISTRIBUTION):
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
        is_editable = origin.get("dir_info", {}).get("editable")
        root = url2pathname(urlsplit(origin["url"]).path) if is_editable \
            else str(installed.locate_file(""))
        if Path(root).resolve() == KIT.parent.resolve():
            return installed
    return None


def _check_tracked() -> None:
    """SubprocessError unless git tracks the kit: it may lie in somebody else's repository."""
    _git("ls-files", "--error-unmatch", "__init__.py")


def _git(*arguments: str) -> str:
    """What git prints in the kit's folder. OSError without git, SubprocessError if it refuses."""
    done = subprocess.run(["git", "-C", str(KIT), *arguments],  # noqa: S607  the user's own git
                          capture_output=True, text=True, errors="replace", check=True, timeout=20)
    return done.stdout.strip()
