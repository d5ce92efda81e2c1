"""Send requests to Kaggle through the official client, with time-outs and limited retries.

Every request passes through `Client.call`. It waits when Kaggle asks for it, retries what may be
sent twice, captures what the client prints, and raises failures as a KitError
(`kit.kaggle.refusals`) without credentials in it.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from kit.core import os_errors
from kit.core.durations import rounded_duration
from kit.core.errors import KitError
from kit.kaggle import answers, refusals, transfer
from kit.kaggle.credentials import (
    HOW_TO,
    TOKEN,
    Credential,
    check_credential,
    client_environment,
    find_credential,
    key_file,
    redact,
)
from kit.kaggle.refusals import KAGGLE_COMPETITIONS, Rejected, RequestContext, Unanswered

__all__ = ["Client", "Rejected", "Say", "Unanswered", "connect", "download_competition",
           "redact", "silent"]

Say = Callable[[str], None]
T = TypeVar("T")

OLDEST_CLIENT = (2, 2, 4)  # the oldest official client that is known to work
CONNECT_TIMEOUT = 10.0  # seconds for opening a connection
READ_TIMEOUT = 60.0  # seconds without receiving a byte
ATTEMPTS = 5  # at one request, if Kaggle fails (5xx) or the connection is lost
BACKOFF = 1.0  # seconds before the second attempt, doubled for each one after
LONGEST_WAIT = 300.0  # seconds that one Retry-After may ask for
TOTAL_WAIT = 900.0  # seconds of such waits in one command
CHUNK_BYTES = 1 << 13  # the most of a download that a lost connection costs


def silent(text: str) -> None:
    """A `Say` that discards the message."""


@dataclass
class Client:
    """The authenticated official client `api`, its credential, and where progress messages go
    (`say`).
    """

    api: Any
    credential: Credential
    say: Say = silent
    rules_url: str = ""
    waited: float = 0.0
    # What the official client printed during the last call
    printed: str = field(default="", repr=False)

    @property
    def user(self) -> str:
        return str(self.api.config_values.get("username") or "") if self.api else ""

    def request_context(self, owner: str = "") -> RequestContext:
        """What `kit.kaggle.refusals` needs to explain a failure; `owner`: of the kernel or dataset
        in question.
        """
        return RequestContext(self.credential, self.user, self.rules_url or KAGGLE_COMPETITIONS,
                              owner)

    def call_sdk(self, doing: str, request: Callable[[Any], T], repeat: bool = True,
                 owner: str = "") -> T:
        """`call` for a request of kagglesdk: `request` is called with a `KaggleClient`."""

        def send() -> T:
            with self.api.build_kaggle_client() as kaggle:
                return request(kaggle)

        return self.call(doing, send, repeat, owner)

    def call(self, doing: str, send: Callable[[], T], repeat: bool = True, owner: str = "",
             attempts: int | None = None) -> T:
        """Call `send` and return its result. `doing` completes "cannot …" in errors.

        After a 429 it waits as long as Kaggle asks, within LONGEST_WAIT and TOTAL_WAIT. After a 5xx
        or a lost connection it tries again, `attempts` times in all (None: ATTEMPTS), if sending
        twice does no harm (`repeat`) or the request surely did not arrive. Raises a KitError:
        `Unanswered` if the request may have been carried out, `Rejected` if Kaggle refused it.
        """
        # urllib3's Retry does not serve: the SDK sends every request as POST, so it cannot tell
        # which may be sent twice; it takes Kaggle's errors with status 200 for successes; it has no
        # limit on all waits together (on one only in new versions), and does not report its waits
        attempt, problem, failure = 1, Exception(), KitError("", "")
        while True:
            printed = io.StringIO()
            try:
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    return send()
            except Unanswered as error:  # raised by `send` itself
                problem, failure = error, error
            except KitError:
                raise
            except SystemExit:
                raise self._refused() from None
            except Exception as error:  # requests, urllib3, json and the client raise a dozen kinds
                problem = error
                failure = refusals.explain(doing, error, self.request_context(owner))
            finally:
                self.printed = redact(printed.getvalue())
            status = answers.http_status(problem)
            if (response := getattr(problem, "response", None)) is not None:
                response.close()
            if status == 429:
                self._pause(doing, answers.retry_after(problem), attempt)
            else:
                may = isinstance(failure, Unanswered) and (repeat or not failure.may_have_arrived)
                if not may or attempt >= (attempts or ATTEMPTS):
                    raise failure from None  # the cause may quote a credential
                seconds = _backoff(attempt)
                self.say(f"{failure.message}; again in {seconds:.0f} s")
                time.sleep(seconds)
            attempt += 1

    def _pause(self, doing: str, asked: float | None, attempt: int) -> None:
        """Sleep as long as a 429 asks, and say so. KitError if that is too long."""
        seconds = _backoff(attempt) if asked is None else asked
        if seconds > LONGEST_WAIT or self.waited + seconds > TOTAL_WAIT or attempt >= 4 * ATTEMPTS:
            raise KitError(f"cannot {doing}: too many requests (429), Kaggle asks to wait "
                           f"{rounded_duration(seconds)}"
                           + (f", after {rounded_duration(self.waited)} of waiting" if self.waited
                              else ""),
                           f"run the same command again in {rounded_duration(max(seconds, 60))}; "
                           "it goes on where it stopped")
        self.say(f"too many requests (429): waiting {seconds:.0f} s as Kaggle asks, then: {doing}")
        time.sleep(seconds)
        self.waited += max(seconds, 0.1)

    def _refused(self) -> KitError:
        return KitError(f"Kaggle does not accept the {self.credential.kind} from "
                        f"{self.credential.where}: it is expired, revoked or mistyped",
                        refusals.how_to_renew(self.credential))


# -- authentication --------------------------------------------------------------------------------


def connect(say: Say = silent, rules_url: str = "") -> Client:
    """Authenticate the official client.

    KitError without a valid credential, the client, or a network.
    """
    credential = find_credential()
    if not credential.present:
        raise KitError("there is no Kaggle credential on this machine"
                       + (f" ({credential.note})" if credential.note else ""), HOW_TO)
    check_credential(credential)
    if credential.note:
        say(f"note: {credential.note}; the {credential.kind} in {credential.where} is used")
    if credential.warning:
        say(f"warning: {credential.warning}")
    _check_version()
    _check_network()
    client = Client(None, credential, say, rules_url)
    with client_environment(credential):
        client.api = client.call("load the official client", _new_api)
        client.call("log in", client.api.authenticate)
    used = client.api.config_values.get("auth_method")
    if credential.kind == TOKEN and used != "ACCESS_TOKEN":
        raise client._refused()  # it fell back to a kaggle.json, but would still send this token
    return client


def _check_version() -> None:
    """KitError if the official client is missing or too old: some old ones end the process on
    import.
    """
    try:
        found = importlib.metadata.version("kaggle")
    except importlib.metadata.PackageNotFoundError:
        raise KitError("the official client is not installed",
                       "pip install 'kaggle>=2.2.4'") from None
    parts = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if parts < OLDEST_CLIENT:
        raise KitError(f"the official client is too old: kaggle {found}",
                       "pip install --upgrade 'kaggle>=2.2.4'")


def _new_api() -> Any:
    """A KaggleApi with time-outs, without its own retries and request log, and with the right
    kaggle.json.
    """
    try:
        with transfer.timed_sessions(CONNECT_TIMEOUT, READ_TIMEOUT):
            # Authenticates by itself, and prints
            from kaggle.api.kaggle_api_extended import KaggleApi
    except ImportError as error:
        # A kaggle.py in the current folder hides the installed package
        spec = importlib.util.find_spec("kaggle")
        place = str((spec and (spec.origin
                               or next(iter(spec.submodule_search_locations or []), ""))) or "")
        if place and "site-packages" not in place and "dist-packages" not in place:
            raise KitError(f"{place} is imported instead of the official client",
                           "rename it") from None
        raise KitError(f"the official client ({refusals.client_versions()}) cannot be loaded: "
                       f"{error}",
                       "pip install --upgrade --force-reinstall kaggle kagglesdk") from None

    class Api(KaggleApi):
        # --verbose would print the token.
        args: ClassVar[list[str]] = [argument for argument in KaggleApi.args
                                     if argument != "--verbose"]
        config = str(key_file())

        MAX_UPLOAD_RESUME_ATTEMPTS = 3  # of ten connections each, minutes apart in the end

        def with_retry(self, function: Callable[..., Any], *_: Any,
                       **__: Any) -> Callable[..., Any]:
            # The client's own waits for any Retry-After, however long; `Client.call` has limits
            return function

        def upload_complete(self, *arguments: Any, **options: Any) -> Any:
            with transfer.timed_sessions(CONNECT_TIMEOUT, READ_TIMEOUT,
                                         sys.modules[KaggleApi.__module__]):
                # It has no time-out of its own
                return super().upload_complete(*arguments, **options)

        def build_kaggle_client(self) -> Any:
            kaggle = super().build_kaggle_client()
            http = kaggle.http_client()
            with transfer.timed_sessions(CONNECT_TIMEOUT, READ_TIMEOUT):
                # The SDK sets no time-out, and this is the only place to set one
                http._init_session()
            return kaggle

    return Api()


def _check_network() -> None:
    """KitError if Kaggle or the proxy cannot be reached.

    Importing the client would hang for minutes instead.
    """
    from requests.utils import get_environ_proxies, select_proxy

    local = os.environ.get("KAGGLE_API_ENVIRONMENT") == "LOCALHOST"
    url = "http://localhost" if local else "https://api.kaggle.com"
    proxy = select_proxy(url, get_environ_proxies(url))
    target = urlsplit(proxy if proxy and "://" in proxy else f"http://{proxy}" if proxy else url)
    try:
        port = target.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(target.scheme, 80)
    except ValueError:
        raise KitError(f"the address of the proxy at {target.hostname} has no number for a port",
                       "correct HTTPS_PROXY or HTTP_PROXY") from None
    try:
        socket.create_connection((target.hostname or "", port), timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        raise refusals.unreachable(url,
                                   f"{target.scheme}://{target.hostname}:{port}" if proxy else None,
                                   error) from None


def _backoff(attempt: int) -> float:
    return min(BACKOFF * 2 ** (attempt - 1) * random.uniform(1, 1.25), LONGEST_WAIT)


# -- downloads -------------------------------------------------------------------------------------


def download_competition(slug: str, folder: Path, progress: Say = silent,
                         rules_url: str = "") -> Path:
    """Download the zip of all of the competition's files into `folder`, and return its path.

    The official client downloads, and resumes after a lost connection if the file on Kaggle is
    still the same. It makes one attempt at a time: its own retries wait as long as any Retry-After
    asks, and use an address that expires. rules_url: the page to name in errors if the rules are
    not accepted yet. On a KitError, `folder` is unchanged.
    """
    import requests
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

    client = connect(progress, rules_url or f"https://www.kaggle.com/competitions/{slug}/rules")
    request = ApiDownloadDataFilesRequest()
    request.competition_name = slug
    doing = f"download the data of {slug}"

    def send(response: Any, path: Path) -> None:
        try:
            client.api.download_file(response, str(path), None, resume=True, max_retries=0,
                                     chunk_size=CHUNK_BYTES, timeout=READ_TIMEOUT)
        except requests.RequestException:
            raise
        except OSError as error:  # requests wraps those of the network
            raise os_errors.explain_os_error(error, path, "write") from error

    with transfer.scratch_folder(Path(folder)) as scratch:
        path = scratch / f"{slug}.zip"
        best, tries = 0, 0
        while True:
            with client.call_sdk(
                    doing, lambda kaggle: kaggle.competitions.competition_api_client
                    .download_data_files(request)) as response:
                length = response.headers.get("Content-Length", "")
                if response.headers.get("Content-Encoding") or not length.isdecimal():
                    # A proxy compresses the body, or says nonsense: nobody knows the zip's length
                    for name in ("Content-Length", "Accept-Ranges"):
                        response.headers.pop(name, None)
                size = int(response.headers.get("Content-Length") or 0)
                if not tries:
                    transfer.check_disk_space(scratch, size)
                    progress(f"downloading {path.name}" + (f" ({size / 1e6:,.1f} MB)" * bool(size)))
                try:
                    client.call(doing, functools.partial(send, response, path), attempts=1)
                    return path.replace(Path(folder) / path.name)
                except Unanswered:
                    done = path.stat().st_size if path.exists() else 0
            announced = f"{done:,} of {size:,} bytes" if size else f"{done:,} bytes"
            tries = 1 if done > best else tries + 1
            best = max(best, done)
            if tries >= ATTEMPTS:
                raise KitError(f"cannot download {path.name}: it ended after {announced}, "
                               f"{ATTEMPTS} times: the connection was lost, or the announced "
                               "length is wrong",
                               "check the network, then run the same command again (nothing "
                               "half-written was left behind); where a proxy cuts large files off, "
                               "fetch it in a browser and give it to kit download (--from "
                               "FILE.zip)")
            progress(f"{path.name}: the connection was lost after {announced}; going on")
            time.sleep(_backoff(tries))
