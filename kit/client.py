"""The official Kaggle client, its errors turned into KitErrors with the fix.

In go a request and a word for it; out comes Kaggle's answer, or a KitError that says what to do. The one idea: every
request of the kit passes through `Client.call`, which waits where Kaggle says wait, repeats what may be repeated, keeps
what the client prints, and lets no credential into any text.
"""

import contextlib
import io
import json
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from kit import answers, transfer
from kit.credentials import (
    HOW_TO,
    KEY,
    OAUTH,
    SETTINGS_PAGE,
    TOKEN,
    Credential,
    check_key_file,
    credentials,
    has_credentials,
    key_file,
    redact,
)
from kit.errors import KitError

__all__ = ["Client", "Rejected", "Say", "Unanswered", "connect", "credentials", "download_competition",
           "has_credentials", "redact", "silent", "span"]

Say = Callable[[str], None]
T = TypeVar("T")

CONNECT_TIMEOUT = 10.0  # seconds until a machine that does not answer counts as offline
READ_TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5  # of one request, where Kaggle fails (5xx) or the connection is lost
BACKOFF = 1.0  # seconds before the second attempt, doubled for each one after
LONGEST_WAIT = 300.0  # seconds that one Retry-After may ask for
TOTAL_WAIT = 900.0  # seconds of such waits in one command
PASSING = {500, 502, 503, 504}


class Unanswered(KitError):
    """Kaggle failed, or the connection was lost: whether the request was carried out is unknown."""


class Rejected(KitError):
    """Kaggle answered with an HTTP status of 400 and above: nothing was done."""

    def __init__(self, message: str, fix: str, status: int) -> None:
        super().__init__(message, fix)
        self.status = status


def silent(text: str) -> None:
    """Say nothing: where nobody is there to read."""


@dataclass
class Client:
    """The authenticated client, whose credential it is, and where to tell what is going on."""

    api: Any
    credential: Credential
    say: Say = silent
    rules_url: str = ""
    waited: float = 0.0
    printed: str = field(default="", repr=False)  # what the client wrote to the terminal during the last call

    @property
    def user(self) -> str:
        return str(self.api.config_values.get("username") or "")

    def sdk(self, doing: str, request: Callable[[Any], T], repeat: bool = True) -> T:
        """`call` for a request of the SDK's: `request` gets the client's `KaggleClient`."""

        def send() -> T:
            with self.api.build_kaggle_client() as kaggle:
                return request(kaggle)

        return self.call(doing, send, repeat)

    def call(self, doing: str, send: Callable[[], T], repeat: bool = True) -> T:
        """What `send` returns. `doing` completes "cannot …"; `repeat`: sending it twice does no harm.

        Waits out 429 as told, within LONGEST_WAIT and TOTAL_WAIT, and repeats after 5xx and lost connections.
        Raises KitError; its subclass `Unanswered` where the request may have been carried out.
        """
        attempt = 1
        while True:
            try:
                return self._captured(send)
            except KitError:
                raise
            except SystemExit:
                raise self._refused() from None
            except Exception as error:  # requests, urllib3, json and the client raise a dozen kinds
                problem = error
            status = answers.http_status(problem)
            failure = self._explain(doing, problem, status)
            if (response := getattr(problem, "response", None)) is not None:
                response.close()
            if status == 429:
                self._pause(doing, answers.retry_after(problem), attempt)
            else:
                if not (isinstance(failure, Unanswered) and repeat and attempt < ATTEMPTS):
                    raise failure from None  # the cause may quote a credential
                seconds = _backoff(attempt)
                self.say(f"{failure.message}; again in {seconds:.0f} s")
                time.sleep(seconds)
            attempt += 1

    def _captured(self, send: Callable[[], T]) -> T:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                return send()
        finally:
            self.printed = redact(printed.getvalue())

    def _pause(self, doing: str, asked: float | None, attempt: int) -> None:
        """Sleep as long as a 429 asks for, and say so; KitError where that is too long."""
        seconds = _backoff(attempt) if asked is None else asked
        if seconds > LONGEST_WAIT or self.waited + seconds > TOTAL_WAIT or attempt >= 4 * ATTEMPTS:
            raise KitError(f"cannot {doing}: too many requests (429), Kaggle asks to wait {span(seconds)}"
                           + (f", after {span(self.waited)} of waiting" if self.waited else ""),
                           f"run the same command again in {span(max(seconds, 60))}; it goes on where it stopped")
        self.say(f"too many requests (429): waiting {seconds:.0f} s as Kaggle asks, then: {doing}")
        time.sleep(seconds)
        self.waited += max(seconds, 0.1)

    def _refused(self) -> KitError:
        return KitError(f"Kaggle does not accept the {self.credential.kind} from {self.credential.where}: "
                        "it is expired, revoked or mistyped", _renew(self.credential))

    def _explain(self, doing: str, error: Exception, status: int | None) -> KitError:
        """The KitError for what the client raised."""
        import requests

        text = answers.message(error)
        said = f" (Kaggle says: {text})" if text else ""
        if status is not None and status in PASSING:
            return Unanswered(f"cannot {doing}: Kaggle has a fault of its own ({status}){said}",
                              "run the same command again later; it goes on where it stopped")
        if status is not None:
            meaning, fix = self._meaning(status, text)
            return Rejected(f"cannot {doing}: Kaggle answers {status}{meaning}{said}", fix, status)
        if isinstance(error, json.JSONDecodeError):  # which requests' own is as well
            return Unanswered(f"cannot {doing}: what came is no answer of Kaggle's",
                              "check that no proxy or login page of the network answers instead, then run it again")
        if isinstance(error, requests.RequestException | ConnectionError | TimeoutError):
            return Unanswered(f"cannot {doing}: the connection to Kaggle was lost ({type(error).__name__})",
                              "check the network, then run the same command again; it goes on where it stopped")
        return KitError(f"cannot {doing}: {answers.one_line(str(error)) or type(error).__name__}",
                        "mend what is named; `pip install --upgrade kaggle` if it is the client itself")

    def _meaning(self, status: int, text: str) -> tuple[str, str]:
        """What an answer of 400 and above means here, and what to do about it."""
        if status == 401:
            used = self.credential
            return f", the {used.kind} from {used.where} is expired, revoked or mistyped", _renew(used)
        if status == 403:
            return ", not allowed", self._allow(text)
        if status == 404:
            return ", there is no such thing", ("check the competition's or the kernel's name, and that this account "
                                                "may see it")
        return "", "mend what Kaggle names; `pip install --upgrade kaggle` if it names the client"

    def _allow(self, text: str) -> str:
        if self.rules_url and "kernels." not in text:
            return (f"accept the rules at {self.rules_url} (only the web page can do that), then run the same command "
                    "again; if they are accepted, the account lacks a right: verify its phone number on Kaggle")
        return f"use what belongs to the account that is logged in: kit kernel build --user {self.user or 'NAME'}"


# -- authentication -------------------------------------------------------------------------------------------------


def connect(say: Say = silent, rules_url: str = "") -> Client:
    """The official client, authenticated. KitError: no credential, one that Kaggle refuses, no network."""
    credential = credentials()
    if not credential.present:
        raise KitError("there is no Kaggle credential on this machine", HOW_TO)
    check_key_file(credential)
    if credential.warning:
        say(f"warning: {credential.warning}")
    _check_network()
    client = Client(None, credential, say, rules_url)
    client.api = client.call("load the official client", _new_api)
    client.call("log in", client.api.authenticate)
    used = client.api.config_values.get("auth_method")
    if credential.kind == TOKEN and used != "ACCESS_TOKEN":
        raise client._refused()  # the client went on to a kaggle.json, but would still send this token
    return client


def _new_api() -> Any:
    """A KaggleApi that never waits forever, never prints requests, and finds `kaggle.json` where it is."""
    try:
        with transfer.timed_sessions(CONNECT_TIMEOUT, READ_TIMEOUT):
            from kaggle.api.kaggle_api_extended import KaggleApi  # authenticates by itself, and prints
    except ImportError as error:
        raise KitError(f"the official client is not installed ({error.name})", "pip install 'kaggle>=2.2.4'") from None

    class Api(KaggleApi):
        args: ClassVar[list[str]] = [argument for argument in KaggleApi.args if argument != "--verbose"]
        config = str(key_file())  # and --verbose would print the token

        MAX_UPLOAD_RESUME_ATTEMPTS = 3  # of ten connections each, minutes apart in the end

        def with_retry(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
            return function  # the client's own would wait as long as any Retry-After says; `Client.call` has limits

        def build_kaggle_client(self) -> Any:
            kaggle = super().build_kaggle_client()
            http = kaggle.http_client()
            with transfer.timed_sessions(CONNECT_TIMEOUT, READ_TIMEOUT):
                http._init_session()  # the SDK sets no time-out, and has no other place for one
            return kaggle

    return Api()


def _check_network() -> None:
    """KitError within seconds where Kaggle, or the proxy to it, cannot be reached: the client would hang on import."""
    from requests.utils import get_environ_proxies, select_proxy

    local = os.environ.get("KAGGLE_API_ENVIRONMENT") == "LOCALHOST"
    url = "http://localhost" if local else "https://api.kaggle.com"
    proxy = select_proxy(url, get_environ_proxies(url))
    target = urlsplit(proxy if proxy and "://" in proxy else f"http://{proxy}" if proxy else url)
    try:
        port = target.port or (443 if target.scheme == "https" else 80)
    except ValueError:
        raise KitError(f"the address of the proxy at {target.hostname} has no number for a port",
                       "correct HTTPS_PROXY or HTTP_PROXY") from None
    through = f" through the proxy {target.hostname}:{port}" if proxy else ""  # not its user and password
    try:
        socket.create_connection((target.hostname or "", port), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        raise KitError(f"cannot reach Kaggle at {url}{through}: {error.strerror or error}",
                       "check the network" + (" and the proxy settings (HTTPS_PROXY, HTTP_PROXY)" if proxy else "")
                       + "; offline, kit download --from sample draws digits to work with") from None


def _renew(credential: Credential) -> str:
    if credential.kind == OAUTH:
        return "log in again: kaggle auth login --force"
    button = "Create Legacy API Key" if credential.kind == KEY else "Generate New Token"
    return f"make a new one at {SETTINGS_PAGE} ({button}) and put it into {credential.where}, or remove what is there"


def _backoff(attempt: int) -> float:
    return min(BACKOFF * 2 ** (attempt - 1) * random.uniform(1, 1.25), LONGEST_WAIT)


def span(seconds: float) -> str:
    """Seconds in words: 90 s, 5 min, 24 h."""
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.0f} h"


# -- downloads ------------------------------------------------------------------------------------------------------


def download_competition(slug: str, folder: Path, progress: Say = silent, rules_url: str = "") -> Path:
    """Fetch the competition's zip of all its files into `folder`, whole or not at all; return its path.

    `rules_url`: the page named where the rules are not accepted yet. KitError for every failure; what was there before
    is then still there.
    """
    client = connect(progress, rules_url or f"https://www.kaggle.com/competitions/{slug}/rules")
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

    request = ApiDownloadDataFilesRequest()
    request.competition_name = slug
    doing = f"download the data of {slug}"

    def first() -> Any:
        return client.sdk(doing, lambda kaggle: kaggle.competitions.competition_api_client.download_data_files(request))

    def again(url: str, headers: dict[str, str]) -> Any:
        return client.call(doing, lambda: transfer.get(url, headers, (CONNECT_TIMEOUT, READ_TIMEOUT)))

    with transfer.scratch(Path(folder)) as scratch:
        archive = transfer.fetch(first, again, scratch / f"{slug}.zip", progress, ATTEMPTS, _backoff)
        return archive.replace(Path(folder) / archive.name)
