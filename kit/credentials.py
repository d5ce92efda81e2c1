"""Which Kaggle credential this machine has, and how no text ever shows it.

In goes the environment and the home folder; out comes where the credential is and of which kind, never its value. The
one idea: this is known without importing the official client, which takes half a second and asks the network, and the
places are looked at in that client's own order (kaggle 2.2: `KaggleApi.authenticate`, `kaggle_env.py`).
"""

import base64
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import KitError

TOKEN, KEY, OAUTH, NONE = "access token", "kaggle.json", "OAuth login", "none"
SETTINGS_PAGE = "https://www.kaggle.com/settings/api"
HOW_TO = (f"make an access token at {SETTINGS_PAGE} and export KAGGLE_API_TOKEN=… or save it as "
          "~/.kaggle/access_token; or make a legacy key there, put its kaggle.json into ~/.kaggle/ and chmod 600 it, "
          "or export KAGGLE_USERNAME=… and KAGGLE_KEY=…; or log in with OAuth: kaggle auth login. "
          "No account: kit download --from sample")


@dataclass(frozen=True)
class Credential:
    """Where a credential is: an environment variable or a file. Its value is in no field."""

    kind: str
    where: str
    present: bool = True
    readable_by_others: bool = False

    @property
    def warning(self) -> str:
        """What to do where other users of this machine can read the file; else empty."""
        if not self.readable_by_others:
            return ""
        return f"{self.where} is readable by other users of this machine; close it: chmod 600 {self.where}"


def credentials() -> Credential:
    """The credential that the official client will use; `present` is False, and `kind` "none", where there is none."""
    return next(_present(), Credential(NONE, "", present=False))


def has_credentials() -> bool:
    return credentials().present


def user_name() -> str | None:
    """The account's name, where the credential that is used says it: an access token does not."""
    if credentials().kind == TOKEN:
        return None
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    name = _json(key_file()).get("username") or _json(_oauth_file()).get("username")
    return name if isinstance(name, str) else None


def key_file() -> Path:
    """Where `kaggle.json` is, or belongs: the client looks into one folder alone, this into each that it may choose."""
    named = os.environ.get("KAGGLE_CONFIG_DIR")
    folders = [Path(named)] if named else [_home() / ".kaggle"]
    if not named and sys.platform.startswith("linux"):
        folders.append(Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "kaggle")
    files = [folder / "kaggle.json" for folder in folders]
    return next((path for path in files if _is_file(path)), files[0])


def redact(text: str) -> str:
    """`text` without anything that is, or looks like, a credential; signed addresses lose what signs them."""
    for secret in _secrets():
        text = text.replace(secret, "[hidden]")
    for pattern, shown in _SHAPES:
        text = pattern.sub(shown, text)
    return text


_SHAPES = (
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 [hidden]"),
    (re.compile(r"\b(?:KGAT|kagat)_\w+", re.IGNORECASE), "[hidden]"),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w.-]+"), "[hidden]"),  # a JSON web token
    (re.compile(r"\b[0-9a-f]{32}\b"), "[hidden]"),  # the key in kaggle.json
    (re.compile(r"(?<=://)[^/@\s]+@"), ""),  # user:password of a proxy
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\")]+"), r"\1?[hidden]"),  # the signature of a storage address
    (re.compile(r"(?<=url: )(/[^\s?'\"]*)\?[^\s'\")]+"), r"\1?[hidden]"),  # the same, as urllib3 prints it
)


# -- the places -----------------------------------------------------------------------------------------------------


def _present() -> Iterator[Credential]:
    """Every credential that is there, in the order in which the client tries them."""
    token = os.environ.get("KAGGLE_API_TOKEN")
    if token:
        path = Path(token)
        yield _file(TOKEN, path) if _is_file(path) else Credential(TOKEN, "KAGGLE_API_TOKEN")
    for path in _token_files():
        if _is_file(path) and _text(path):
            yield _file(TOKEN, path)
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        yield Credential(KEY, "KAGGLE_USERNAME and KAGGLE_KEY")
    if _is_file(key_file()):
        yield _file(KEY, key_file())
    if _json(_oauth_file()).get("refresh_token"):
        yield _file(OAUTH, _oauth_file())


def check_key_file(credential: Credential) -> None:
    """KitError where the `kaggle.json` to be used is not what Kaggle gave; the client would just pass over it."""
    if credential.kind == KEY and credential.where == str(key_file()):
        value = _json(key_file())
        if not (isinstance(value.get("username"), str) and isinstance(value.get("key"), str)):
            raise KitError(f'{key_file()} is damaged: it must read {{"username": "…", "key": "…"}}',
                           f"make a new one at {SETTINGS_PAGE} (Create Legacy API Key) and put it there")


def _token_files() -> list[Path]:
    return [_home() / ".kaggle" / name for name in ("access_token", "access_token.txt")]


def _oauth_file() -> Path:
    return _home() / ".kaggle" / "credentials.json"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user whom the system does not know, with no HOME either
        return Path(os.devnull)


def _file(kind: str, path: Path) -> Credential:
    mode = path.stat().st_mode if os.name != "nt" else 0
    return Credential(kind, str(path), readable_by_others=bool(mode & (stat.S_IRGRP | stat.S_IROTH)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a token too long to be a file name; a folder that others may not look into
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip() if _is_file(path) else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _secrets() -> list[str]:
    """Every secret value at hand, the longest first, so that no part of one is left over."""
    keys = [(os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY"))]
    stored = _json(key_file())
    keys.append((stored.get("username"), stored.get("key")))
    values = [os.environ.get("KAGGLE_TOKEN"), *map(_text, _token_files())]
    token = os.environ.get("KAGGLE_API_TOKEN", "")
    values.append(_text(Path(token)) if _is_file(Path(token)) else token)
    login = _json(_oauth_file())
    values += [login.get("refresh_token"), login.get("access_token")]
    for user, key in keys:
        values += [key, base64.b64encode(f"{user}:{key}".encode()).decode() if key else None]
    return sorted({value for value in values if isinstance(value, str) and len(value) >= 6}, key=len, reverse=True)
