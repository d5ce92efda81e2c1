"""Explain why a request to Kaggle failed, and what the user can do about it.

Causes are checked from the outside in: the network and its proxies, then Kaggle's message, then the
bare HTTP status. The known messages are those that users have reported; any other message is
quoted.
"""

import errno
import importlib.metadata
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kit.core import os_errors
from kit.core.errors import KitError
from kit.kaggle import answers
from kit.kaggle.answers import time_until_midnight
from kit.kaggle.credentials import KEY, OAUTH, PROXIES, SETTINGS_PAGE, Credential

AGAIN = "run the same command again; it goes on where it stopped"
BUSY, LIMIT, QUOTA = "busy", "limit", "quota"  # kinds of refusal that callers handle
KAGGLE_COMPETITIONS = "https://www.kaggle.com/competitions"
BY_HAND = "or fetch the zip in a browser and give it to kit download (--from FILE.zip)"


class Unanswered(KitError):
    """Kaggle failed, or the connection was lost.

    `may_have_arrived`: the request may have been carried out all the same.
    """

    def __init__(self, message: str, fix: str, may_have_arrived: bool = True) -> None:
        super().__init__(message, fix)
        self.may_have_arrived = may_have_arrived


class Rejected(KitError):
    """Kaggle refused the request (HTTP status 400 or above) and did nothing.

    `kind`: BUSY, LIMIT, QUOTA or "".
    """

    def __init__(self, message: str, fix: str, status: int, kind: str = "") -> None:
        super().__init__(message, fix)
        self.status = status
        self.kind = kind


@dataclass(frozen=True)
class RequestContext:
    """Who sent a request; `owner`: of the kernel or dataset that it was about, "" for a
    competition.
    """

    credential: Credential
    user: str = ""
    rules_url: str = KAGGLE_COMPETITIONS
    owner: str = ""

    @property
    def competition_url(self) -> str:
        return self.rules_url.removesuffix("/rules")


def explain(doing: str, error: Exception, context: RequestContext) -> KitError:
    """The KitError "cannot `doing`: …" for an exception of the client or a library below it."""
    import requests

    status = answers.http_status(error)
    if status is not None:
        return _answered(doing, error, status, context)
    if isinstance(error, json.JSONDecodeError):  # the base class of requests' own, too
        return Unanswered(f"cannot {doing}: the answer is not from Kaggle",
                          "check that no proxy or login page of the network answers instead, then "
                          "run it again")
    if isinstance(error, requests.RequestException | OSError):
        return _unreachable(doing, error)
    said = answers.redacted_line(str(error)) or type(error).__name__
    if isinstance(error, ValueError):  # the client's own checks
        if "upload state directory" in said:
            folder = re.search(r"directory (\S+)", said)
            return KitError(f"cannot {doing}: {said}",
                            f"rm -r {folder[1] if folder else 'that folder'}, {AGAIN}")
        file = "dataset-metadata.json" if "dataset" in doing else "kernel-metadata.json"
        return KitError(f"cannot {doing}: {said}",
                        f"correct it in {file}, or make that again: kit kernel build --user NAME"
                        if context.owner else
                        "correct what is named, then run the same command again")
    if "KAGGLE_API_ENVIRONMENT" in said:
        return KitError(f"cannot {doing}: {said}", "unset KAGGLE_API_ENVIRONMENT")
    return KitError(f"cannot {doing}: the official client ({client_versions()}) failed: "
                    f"{type(error).__name__}: {said}",
                    "pip install --upgrade kaggle kagglesdk; if the newest version fails as well, "
                    "please report it")


def client_versions() -> str:
    """The installed versions of the official client and its SDK, as text."""
    found = []
    for name in ("kaggle", "kagglesdk"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


# -- the network -----------------------------------------------------------------------------------


def unreachable(url: str, proxy: str | None, error: OSError) -> KitError:
    """The KitError if no connection to `url`, or to the proxy before it, can be opened."""
    target = urlsplit(proxy or url)
    place = "it" if proxy else str(target.hostname)
    # Not its password
    through = f" through the proxy {target.hostname}:{target.port}" if proxy else ""
    correct = "correct HTTPS_PROXY and HTTP_PROXY (unset them where this network has no proxy)"
    wants = "where the network has a proxy, export HTTPS_PROXY=http://HOST:PORT"
    if isinstance(error, socket.gaierror):
        why = f"the name {target.hostname} is not known to this network"
        fix = correct if proxy else f"check that the network is up and resolves names; {wants}"
    elif isinstance(error, ConnectionRefusedError):
        why = f"{place} refuses the connection"
        fix = f"start the proxy, or {correct}" if proxy \
            else f"a firewall stands in between: ask who runs it; {wants}"
    elif isinstance(error, TimeoutError):
        why = f"no answer from {place}"
        fix = f"check the network; {correct}" if proxy \
            else f"check the network: it is down, or a firewall drops the connection; {wants}"
    elif error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        why = "this machine is on no network from which it could be reached"
        fix = "connect it, or join the VPN"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = "this machine forbids the connection"
        fix = "run it outside the sandbox or firewall that forbids it"
    else:
        why, fix = str(error.strerror or error), f"check the network; {correct if proxy else wants}"
    return KitError(f"cannot reach Kaggle at {url}{through}: {why}",
                    f"{fix}; offline, kit download works with --from sample, or a file that you "
                    "have")


def _unreachable(doing: str, error: Exception) -> KitError:
    """The KitError if there was no answer. `Unanswered` only if trying again may help."""
    import requests
    import urllib3

    chain = list(_chain(error))
    said = " ".join(str(part) for part in chain)
    if isinstance(error, requests.exceptions.InvalidHeader) \
            or any(isinstance(part, UnicodeError) for part in chain):
        return KitError(f"cannot {doing}: the credential has a character in it that no header can "
                        "carry", "copy the token or key once more, alone and on one line")
    if "SOCKS" in said and isinstance(error, requests.exceptions.InvalidSchema):
        return KitError(f"cannot {doing}: the proxy is a SOCKS proxy, and PySocks is not installed",
                        "pip install 'requests[socks]'")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema
                  | requests.exceptions.MissingSchema):
        # The only address here that a user sets is the proxy's
        return KitError(f"cannot {doing}: the address of the proxy cannot be read: "
                        f"{answers.redacted_line(str(error))}",
                        "write it as HTTPS_PROXY=http://HOST:PORT")
    if found := re.search(r"Could not find (?:a suitable|the) TLS.*?path: (\S+)", said):
        variable = "CURL_CA_BUNDLE" if os.environ.get("CURL_CA_BUNDLE") \
            and not os.environ.get("REQUESTS_CA_BUNDLE") else "REQUESTS_CA_BUNDLE"
        return KitError(f"cannot {doing}: there is no file of certificates at {found[1]}",
                        f"correct {variable}, or unset it")
    if found := re.search(r"Tunnel connection failed: (\d+)", said):
        return proxy_refused(doing, int(found[1]))
    if any(isinstance(part, ssl.SSLError | requests.exceptions.SSLError) for part in chain) \
            and (permanent := _tls(doing, said)):
        return permanent
    cause = next((part for part in chain if isinstance(part, OSError)
                  and not isinstance(part, requests.RequestException)
                  and (part.errno or isinstance(part, TimeoutError))), None)
    if "NameResolutionError" in said or isinstance(cause, socket.gaierror):
        why = "the name of the server is not known to this network"
        fix = "check that the network is up"
    elif isinstance(error, requests.exceptions.ProxyError):
        why = "the proxy cannot be reached"
        fix = "check HTTPS_PROXY and HTTP_PROXY, and the network"
    elif isinstance(cause, ConnectionRefusedError):
        why = "the connection was refused"
        fix = "check the network, and that no firewall stands in between"
    elif isinstance(error, requests.exceptions.ConnectTimeout):
        why = "no connection to Kaggle within the time"
        fix = "check the network, and that no firewall drops it"
    elif isinstance(error, requests.RequestException | ConnectionError | TimeoutError):
        why = f"the connection to Kaggle was lost ({type(error).__name__})"
        fix = "check the network"
    else:
        fix = "correct what is named, then run the same command again"
        if isinstance(error, OSError) and error.errno \
                and (error.filename or not isinstance(error, PermissionError)):
            # A file could not be read
            fix = os_errors.explain_os_error(error, str(error.filename), "read").fix
        return KitError(f"cannot {doing}: {answers.redacted_line(str(error))}", fix)
    # Without a connection nothing can have been carried out
    unopened = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError,
                requests.exceptions.ConnectTimeout, socket.gaierror, ConnectionRefusedError)
    return Unanswered(f"cannot {doing}: {why}", f"{fix}, then {AGAIN}",
                      may_have_arrived=not any(isinstance(part, unopened) for part in chain))


def proxy_refused(doing: str, status: int) -> KitError:
    """The KitError if the proxy answered with an error status."""
    names = (*PROXIES, *map(str.lower, PROXIES))
    proxy = next(filter(None, map(os.environ.get, names)), "")
    if status == 407 and "@" in proxy:
        return KitError(f"cannot {doing}: the proxy does not accept the user and password in "
                        "HTTPS_PROXY (407)",
                        "correct them; a special character is written as its code there: @ as "
                        "%40, : as %3A, / as %2F")
    if status == 407:
        return KitError(f"cannot {doing}: the proxy asks for a user and a password (407)",
                        "export HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT (and HTTP_PROXY); where "
                        "it wants a Windows login (NTLM, Kerberos), put a relay such as px or "
                        "cntlm before it")
    if status >= 500:
        return Unanswered(f"cannot {doing}: the proxy cannot reach Kaggle ({status})",
                          f"later {AGAIN}", may_have_arrived=False)
    return KitError(f"cannot {doing}: the proxy does not let it through ({status})",
                    "ask who runs the network to permit api.kaggle.com, www.kaggle.com and "
                    f"storage.googleapis.com; {BY_HAND}")


def _tls(doing: str, said: str) -> KitError | None:
    """The KitError for a TLS error that stays; None if the connection was merely lost."""
    if "CERTIFICATE_VERIFY_FAILED" not in said and "certificate verify failed" not in said:
        if re.search("WRONG_VERSION_NUMBER|wrong version number|HTTP_REQUEST", said):
            return KitError(f"cannot {doing}: the server that answers does not speak TLS",
                            "an HTTPS_PROXY that begins with https:// mostly has to begin with "
                            "http://")
        return None
    if "expired" in said or "not yet valid" in said:
        return KitError(f"cannot {doing}: the certificate of the connection is not valid today",
                        "check this machine's date and clock; if they are right, a proxy's "
                        "certificate has expired")
    if "ostname mismatch" in said or "doesn't match" in said or "not valid for" in said:
        return KitError(f"cannot {doing}: another server than Kaggle's answers (its certificate "
                        "has another name)",
                        "log in to the network in a browser first (a hotel's page), or check the "
                        "proxy and the DNS")
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle:
        fix = (f"add the certificate of the company's proxy to {bundle}, which REQUESTS_CA_BUNDLE "
               "names")
    elif os.environ.get("SSL_CERT_FILE"):
        fix = ('export REQUESTS_CA_BUNDLE="$SSL_CERT_FILE": the client does not read '
               "SSL_CERT_FILE")
    else:
        fix = ("export REQUESTS_CA_BUNDLE=FILE.pem with the certificate of the company's proxy or "
               "of the virus scanner, which opens encrypted connections (who runs the network has "
               "it; on Debian, where it is installed there, /etc/ssl/certs/ca-certificates.crt)")
    return KitError(f"cannot {doing}: the certificate of the connection is not signed by anybody "
                    "whom Python trusts (certificate verify failed)", f"{fix}; {BY_HAND}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, and all exceptions that it was caused by or contains."""
    seen: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, BaseException) and part not in seen:
            seen.append(part)
            yield part
            waiting += [part.__cause__, part.__context__, getattr(part, "reason", None), *part.args]


# -- what Kaggle says ------------------------------------------------------------------------------


def _answered(doing: str, error: Exception, status: int, context: RequestContext) -> KitError:
    text = answers.error_message(error)
    said = f" (Kaggle says: {text})" if text else ""
    if status == 407:
        return proxy_refused(doing, status)
    if status >= 500 or status == 408:
        return Unanswered(f"cannot {doing}: Kaggle has an internal error ({status}){said}",
                          f"later {AGAIN}")
    if answers.is_web_page(error) and status in (401, 403, 404, 451):
        return Rejected(f"cannot {doing}: a web page answers in Kaggle's place ({status})",
                        "a filter of the network stands in between: ask who runs it to permit "
                        f"api.kaggle.com; {BY_HAND}", status)
    if answers.is_from_storage(error):
        return Rejected(f"cannot {doing}: Kaggle's storage refuses it ({status})",
                        "check this machine's clock (date -u): the address is signed for a few "
                        f"minutes; then {AGAIN}", status)
    known = classify_message(text, context)
    kind, meaning, fix = known or ("", *_by_status(status, bool(text), context))
    return Rejected(f"cannot {doing}: Kaggle answers {status}{meaning and ', '}{meaning}{said}",
                    fix, status, kind)


def classify_message(text: str, context: RequestContext) -> tuple[str, str, str] | None:
    """(kind, meaning, fix) of a message of Kaggle's; None if the message is not known."""
    for pattern, kind, meaning, fix in _known(context):
        if re.search(pattern, text, re.IGNORECASE):
            return kind, meaning, fix
    return None


def _known(context: RequestContext) -> Iterator[tuple[str, str, str, str]]:
    """The known messages: (pattern, kind of refusal, meaning, fix)."""
    same = "run the same command again"
    yield (r"accept .*\brules\b|\brules\b.*\baccept", "",
           "the competition's rules are not accepted",
           f"accept the rules at {context.rules_url} (only the web page can do that), then {AGAIN}")
    yield (r"competitions\.participate|(not|must|need to) (have )?join|not (a )?participa", "",
           "this account has not joined the competition",
           f"join it at {context.rules_url} (Join Competition or Late Submission, and accept the "
           f"rules), then {AGAIN}")
    yield (r"submission allowance|(daily|per.day).*(limit|submission)"
           r"|limit.*(daily|per.day|submissions)|no (more )?submissions? (left|remaining)", LIMIT,
           "the submissions of today are used up",
           f"they come back at midnight UTC, in {time_until_midnight()}; then {AGAIN}: nothing has "
           "to be made anew")
    yield (r"only accepts submissions from notebooks|kernels.only", "",
           "the competition takes notebooks, not files",
           "kit kernel build --user NAME, kit kernel rehearse, then kit kernel push --wait "
           "--submit")
    yield (r"submissions? (have|has|are|is) (been )?(disabled|closed)|deadline"
           r"|competition (has ended|is over)", "", "the competition takes no submissions any more",
           f"see {context.competition_url} for whether late submissions are open")
    yield (r"session count|concurrent .*sessions|sessions? .*(already|currently) running", BUSY,
           "as many sessions of yours run as Kaggle permits",
           "wait until one has ended, or stop one at https://www.kaggle.com/code (View Active "
           f"Events), then {same}; with --wait, kit kernel push waits itself. Nothing has to be "
           "built anew")
    yield (r"\bquota\b", QUOTA, "the accelerator's hours of this week are used up",
           "wait until they come back (https://www.kaggle.com/settings shows when), then "
           f"{same}; or build it for the CPU: kit kernel build --accelerator none")
    yield (r"phone|verif(y|ied|ication)|persona\b", "", "the account is not verified",
           "verify it at https://www.kaggle.com/settings (Phone Verification; for TPUs also the "
           f"identity), then {same}")
    yield (r"(title|slug).*already in use|already (taken|exists)", "", "the name is in use already",
           "choose another one: kit kernel build --slug OTHER-NAME")
    yield (r"(outdated|unsupported|old|upgrade|update).{0,40}(client|cli\b|api version|kaggle)", "",
           f"the client is too old ({client_versions()})", "pip install --upgrade kaggle kagglesdk")
    yield (r"still (running|in progress)|not (yet )?(finished|completed?)", "",
           "the kernel has not ended yet", "wait for it: kit kernel push --wait --submit")
    yield (r"exceeds the maximum size|too large", "", "the file is too large",
           "hand in a smaller file")
    if context.owner:
        yield r"permission|denied|not yours|not allowed", "", "not allowed", _not_yours(context)


def _by_status(status: int, has_words: bool, context: RequestContext) -> tuple[str, str]:
    """(meaning, fix) of a status from 400 to 499 without a message that is known."""
    if status == 400 and not has_words:
        if context.owner:
            return "without a reason", ("check kernel-metadata.json (id, title, sources), or make "
                                        "it again: kit kernel build --user NAME")
        return "without a reason", ("most often the competition is not joined or its rules are not "
                                    f"accepted: {context.rules_url}; else today's submissions are "
                                    "used up, and come back at midnight UTC, in "
                                    f"{time_until_midnight()}")
    if status == 401:
        used = context.credential
        return (f"the {used.kind} from {used.where} is expired, revoked or mistyped",
                how_to_renew(used))
    if status == 403 and context.owner:
        return "not allowed", _not_yours(context)
    if status == 403:
        return "not allowed", (f"accept the rules at {context.rules_url} (only the web page can do "
                               "that), then run the same command again; if they are accepted, the "
                               "account lacks a right: verify its phone number on Kaggle")
    if status == 404 and context.owner:
        return ("not found",
                f"check the kernel's name, and that {context.user or 'this account'} may see it")
    if status == 404:
        return ("not found",
                f"check the competition's name: it is the end of {context.competition_url}")
    return {409: ("the name is in use already",
                  "choose another one: kit kernel build --slug OTHER-NAME"),
            413: ("too large", "Kaggle, or a proxy of the network, takes no file of that size: "
                               "make it smaller"),
            426: (f"the client is too old ({client_versions()})",
                  "pip install --upgrade kaggle kagglesdk"),
            451: ("not available in this country", "Kaggle does not serve it there"),
            }.get(status, ("", "correct what Kaggle names; `pip install --upgrade kaggle` if it "
                               "names the client"))


def _not_yours(context: RequestContext) -> str:
    if context.owner.lower() == context.user.lower():
        return ("check its name at https://www.kaggle.com/work/code; a new account must first "
                "verify its phone number at https://www.kaggle.com/settings")
    return (f"it is {context.owner}'s: use what belongs to the account that is logged in: "
            f"kit kernel build --user {context.user or 'NAME'}")


def how_to_renew(credential: Credential) -> str:
    """The fix for a credential that Kaggle does not accept."""
    if credential.kind == OAUTH:
        return "log in again: kaggle auth login --force"
    button = "Create Legacy API Key" if credential.kind == KEY else "Generate New Token"
    return (f"make a new one at {SETTINGS_PAGE} ({button}) and put it into {credential.where}, or "
            "remove what is there")
