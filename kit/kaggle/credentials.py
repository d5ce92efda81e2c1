"""Find the Kaggle credential of this machine, say what is wrong with it, and redact it from texts.

It is looked for where the official client looks, in the same order (kaggle 2.2:
`KaggleApi.authenticate`, `kaggle_env.py`), but without importing the client, which takes half a
second and uses the network. Some files that the client cannot read can be read here;
`client_environment` passes their contents to the client.
"""

import base64
import codecs
import contextlib
import getpass
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.core.errors import KitError

TOKEN, KEY, OAUTH, NONE = "access token", "kaggle.json", "OAuth login", "none"
SETTINGS_PAGE = "https://www.kaggle.com/settings/api"
HOW_TO = (f"make an access token at {SETTINGS_PAGE} and export KAGGLE_API_TOKEN=… or save it as "
          "~/.kaggle/access_token; or make a legacy key there, put its kaggle.json into ~/.kaggle/ "
          "and chmod 600 it, or export KAGGLE_USERNAME=… and KAGGLE_KEY=…; or log in with OAuth: "
          "kaggle auth login")
NEW_KEY = f"make a new one at {SETTINGS_PAGE} (Create Legacy API Key) and put it there"
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
# False where Path's own raise: a token is too long for a name, a folder may not be searched
_is_file, _is_dir = os.path.isfile, os.path.isdir
PATH_LIKE = re.compile(r"[/~.]|[A-Za-z]:[\\/]")  # the start of a path, never of a token


@dataclass(frozen=True)
class Credential:
    """The kind of a credential and where it is: an environment variable or a file.

    The value is not stored.
    """

    kind: str
    where: str
    present: bool = True
    readable_by_others: bool = False
    note: str = ""  # what else was found and is not used, and why

    @property
    def warning(self) -> str:
        """A warning if other users of this machine can read the file, otherwise ""."""
        if not self.readable_by_others:
            return ""
        return (f"{self.where} is readable by other users of this machine; close it: chmod 600 "
                f"{self.where}")


def find_credential() -> Credential:
    """The credential to use. If there is none, `present` is False and `kind` is "none"."""
    return next(_present(), Credential(NONE, "", present=False, note="; ".join(_passed_over())))


def has_credential() -> bool:
    return find_credential().present


def user_name() -> str | None:
    """The account's name; None if the credential does not contain it (an access token does not)."""
    used = find_credential()
    if used.kind == TOKEN:
        return None
    stored = {KEY: key_file(), OAUTH: _oauth_file()}.get(used.kind)
    name = _json(stored).get("username") if stored and used.where == str(stored) \
        else os.environ.get("KAGGLE_USERNAME")
    return name if isinstance(name, str) and name else None


def key_file() -> Path:
    """The path of `kaggle.json`, or the path where it belongs if there is none.

    All folders that the client may use are searched; the client itself searches only one. A
    KAGGLE_CONFIG_DIR without a `kaggle.json` is ignored, which `Credential.note` then says.
    """
    files = [folder / "kaggle.json" for folder in _key_folders()]
    return next((path for path in files if _is_file(path)), files[0])


def check_credential(credential: Credential) -> None:
    """KitError if the credential cannot be read, or does not look like what Kaggle issues."""
    if credential.kind == KEY and credential.where == str(key_file()):
        text = _read(key_file())
        try:
            value = json.loads(text)
        except ValueError as error:
            value, why = {}, f"no JSON ({error})" if text else "empty"
        else:
            why = "without a username and a key"
        if not (isinstance(value, dict) and isinstance(value.get("username"), str)
                and isinstance(value.get("key"), str)):
            raise KitError(f"{key_file()} is damaged, {why}: it must read "
                           '{"username": "…", "key": "…"}',
                           "save it as ~/.kaggle/access_token: it holds an access token"
                           if text.startswith("KGAT_") else NEW_KEY)
    elif credential.kind == OAUTH:
        _read(_oauth_file())
    elif credential.kind == TOKEN:
        named = _token_path()
        if credential.where != "KAGGLE_API_TOKEN":
            token = _read(Path(credential.where))
        elif named is not None:
            raise KitError(f"KAGGLE_API_TOKEN names the file {named}, which is not there",
                           "correct the path, or set it to the token itself")
        else:
            token = _variable_token()
        if token.startswith("{"):
            raise KitError(f"{credential.where} holds a kaggle.json, not an access token",
                           "save it as ~/.kaggle/kaggle.json, and remove it where it is now")
        if re.search(r"\s", token) or not token.isascii():
            raise KitError(f"{credential.where} holds more than an access token: there is a space, "
                           "a line end or a special character in it",
                           "copy the token once more, alone and on one line")


@contextlib.contextmanager
def client_environment(credential: Credential) -> Iterator[None]:
    """During the with block, environment variables pass the credential to the official client.

    The client itself cannot read a file with a byte order mark or in UTF-16. And on import it
    creates its configuration folder, which fails with a wrong KAGGLE_CONFIG_DIR or a read-only
    home: so the variable names a folder that exists.
    """
    given: dict[str, str] = {}
    if credential.kind == TOKEN:
        given["KAGGLE_API_TOKEN"] = _variable_token() if credential.where == "KAGGLE_API_TOKEN" \
            else _text(Path(credential.where))
    elif credential.kind == KEY and credential.where == str(key_file()):
        stored = _json(key_file())
        given |= {"KAGGLE_USERNAME": stored["username"], "KAGGLE_KEY": stored["key"]}
    with contextlib.ExitStack() as stack:
        folder = next(filter(_is_dir, _key_folders()), None)
        given["KAGGLE_CONFIG_DIR"] = str(folder
                                         or stack.enter_context(tempfile.TemporaryDirectory()))
        before = {name: os.environ.get(name) for name in (*given, "KAGGLE_TOKEN")}
        os.environ.update(given)
        os.environ.pop("KAGGLE_TOKEN", None)  # the client would send it instead of the key
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def redact(text: str) -> str:
    """`text` without anything that is, or looks like, a credential.

    Signed addresses lose their signature.
    """
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
    # User:password of a proxy; the password may contain an @
    (re.compile(r"(?<=://)[^/\s]+@"), ""),
    # The signature of a storage address
    (re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\")]+"), r"\1?[hidden]"),
    # The same, as urllib3 prints it
    (re.compile(r"(?<=url: )(/[^\s?'\"]*)\?[^\s'\")]+"), r"\1?[hidden]"),
)


# -- the places ------------------------------------------------------------------------------------


def _present() -> Iterator[Credential]:
    """All credentials that exist, in the order in which the client tries them."""
    if os.environ.get("KAGGLE_API_TOKEN"):
        path = _token_path()
        yield _file(TOKEN, path) if path is not None and _is_file(path) \
            else Credential(TOKEN, "KAGGLE_API_TOKEN")
    for path in _token_files():
        if _is_file(path) and path.stat().st_size:
            yield _file(TOKEN, path)
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        yield Credential(KEY, "KAGGLE_USERNAME and KAGGLE_KEY")
    if _is_file(key_file()):
        yield _file(KEY, key_file(), "; ".join(_passed_over()))
    if _is_file(_oauth_file()) and (not _can_read(_oauth_file())
                                    or _json(_oauth_file()).get("refresh_token")):
        yield _file(OAUTH, _oauth_file(), "; ".join(_passed_over()))


def _passed_over() -> Iterator[str]:
    """What looks like a credential but cannot be used as one, and why."""
    named = os.environ.get("KAGGLE_CONFIG_DIR")
    if named and not _is_file(_folder_named(named) / "kaggle.json"):
        folder = _folder_named(named)
        state = "holds no kaggle.json" if _is_dir(folder) \
            else "is a file" if _is_file(folder) else "is not there"
        yield f"KAGGLE_CONFIG_DIR names {named}, which {state}"
    for one, other in (("KAGGLE_USERNAME", "KAGGLE_KEY"), ("KAGGLE_KEY", "KAGGLE_USERNAME")):
        if os.environ.get(one) and not os.environ.get(other):
            yield f"{one} is set without {other}"
    for path in _token_files():
        if _is_file(path) and not path.stat().st_size:
            yield f"{path} is empty"
    loaded = _home() / "Downloads" / "kaggle.json"
    if _is_file(loaded) and not _is_file(key_file()):
        yield f"{loaded} belongs into ~/.kaggle/"
    folder = _home() / ".kaggle"
    if _is_dir(folder) and not os.access(folder, os.X_OK):
        yield f"{folder} is closed to this user"


def _folder_named(name: str) -> Path:
    """`name` as a path, with `~` expanded, which the client does not do."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _key_folders() -> list[Path]:
    named = os.environ.get("KAGGLE_CONFIG_DIR")
    folders = [_folder_named(named)] if named else []
    folders.append(_home() / ".kaggle")
    if sys.platform.startswith("linux"):
        folders.append(Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config") / "kaggle")
    return folders


def _variable_token() -> str:
    """KAGGLE_API_TOKEN without quotes and spaces that were copied with it."""
    return os.environ.get("KAGGLE_API_TOKEN", "").strip().strip("'\"").strip()


def _token_path() -> Path | None:
    """The file that KAGGLE_API_TOKEN names, which may not exist; None if it is a token."""
    token = _variable_token()
    if token and (PATH_LIKE.match(token) or _is_file(Path(token))):
        return _folder_named(token)
    return None


def _token_files() -> list[Path]:
    return [_home() / ".kaggle" / name for name in ("access_token", "access_token.txt")]


def credential_files() -> list[Path]:
    """The files that hold a credential of this user, used or not."""
    files = [folder / "kaggle.json" for folder in _key_folders()]
    files += [*_token_files(), _oauth_file(), _home() / "Downloads" / "kaggle.json"]
    if named := _token_path():
        files.append(named)
    return [path for path in files if _is_file(path)]


def _oauth_file() -> Path:
    return _home() / ".kaggle" / "credentials.json"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # the user id is unknown to the system, and HOME is not set
        return Path(os.devnull)


# -- reading ---------------------------------------------------------------------------------------


def _file(kind: str, path: Path, note: str = "") -> Credential:
    mode = path.stat().st_mode if os.name != "nt" else 0
    return Credential(kind, str(path),
                      readable_by_others=bool(mode & (stat.S_IRGRP | stat.S_IROTH)), note=note)


def _can_read(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def _read(path: Path) -> str:
    """The text of a credential file. KitError if it cannot be read or decoded."""
    try:
        return _decoded(path.read_bytes())
    except OSError as error:
        owner = path.stat().st_uid if hasattr(os, "getuid") else None
        theirs = owner is not None and owner != os.getuid()
        raise KitError(f"cannot read {path}: {error.strerror or error}"
                       + (f"; it belongs to {_user(owner)}" if theirs else ""),
                       f"sudo chown {_user(None)} {path}" if theirs
                       else f"chmod 600 {path}") from None
    except UnicodeDecodeError:
        raise KitError(f"{path} is not text: neither UTF-8 nor UTF-16",
                       f"make a new one at {SETTINGS_PAGE}, or save it again as UTF-8") from None


def _user(number: int | None) -> str:
    """The name of the user with this id; None: of the current user."""
    try:
        if number is None:
            return getpass.getuser()
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError, OSError):
        return "$(whoami)" if number is None else f"user {number}"


def _decoded(data: bytes) -> str:
    """The text of a file.

    Notepad starts UTF-8 with a byte order mark, PowerShell's > writes UTF-16.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16").strip()
    return data.decode("utf-8-sig").strip()


def _text(path: Path) -> str:
    try:
        return _decoded(path.read_bytes()) if _is_file(path) else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _secrets() -> list[str]:
    """All secret values on this machine, the longest first, so that no part of one remains after
    replacing.
    """
    keys = [(os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY"))]
    for file in (folder / "kaggle.json" for folder in _key_folders()):
        stored = _json(file)
        keys.append((stored.get("username"), stored.get("key")))
    values = [os.environ.get("KAGGLE_TOKEN"), *map(_text, _token_files())]
    named = _token_path()
    values.append(_text(named) if named is not None else _variable_token())
    for name in (*PROXIES, *map(str.lower, PROXIES)):
        login, at, _ = os.environ.get(name, "").rpartition("@")
        values += [login.partition("://")[2] or login, login.rpartition(":")[2]] if at else []
    oauth = _json(_oauth_file())
    values += [oauth.get("refresh_token"), oauth.get("access_token")]
    for user, key in keys:
        values += [key, base64.b64encode(f"{user}:{key}".encode()).decode() if key else None]
    return sorted({value for value in values if isinstance(value, str) and len(value) >= 6},
                  key=len, reverse=True)
