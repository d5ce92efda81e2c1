"""What the network, a proxy or a certificate does to a request: real exceptions of `requests`, and the fix for each."""

import errno
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from kit.core.errors import KitError
from kit.kaggle import client, refusals
from kit.kaggle.credentials import TOKEN, Credential

ASKER = refusals.RequestContext(Credential(TOKEN, "KAGGLE_API_TOKEN"), "ada", "https://www.kaggle.com/competitions/x/rules")
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
           "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def explained(url: str = "https://127.0.0.1:9/") -> KitError:
    """What the kit makes of a request that must fail."""
    with pytest.raises((requests.RequestException, OSError, ValueError)) as caught:
        requests.get(url, timeout=2)
    return refusals.explain("log in", caught.value, ASKER)


# -- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(("reason", "said", "fix"), [
    ("certificate verify failed: self-signed certificate in certificate chain",
     "not signed by anybody whom Python trusts",
     "export REQUESTS_CA_BUNDLE=FILE.pem"),
    ("certificate verify failed: unable to get local issuer certificate",
     "not signed by anybody whom Python trusts",
     "kit download (--from FILE.zip)"),
    ("certificate verify failed: certificate has expired", "not valid today", "date and clock"),
    ("certificate verify failed: certificate is not yet valid", "not valid today", "date and clock"),
    ("certificate verify failed: Hostname mismatch, certificate is not valid for 'api.kaggle.com'.",
     "another server than Kaggle's", "in a browser first"),
    ("wrong version number", "does not speak TLS", "has to begin with http://")])
def test_each_fault_of_a_certificate_has_its_own_fix_and_is_permanent(
        answering: int, monkeypatch: pytest.MonkeyPatch, reason: str, said: str, fix: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] {reason} (_ssl.c:1006)") \
            if "certificate" in reason else ssl.SSLError(1, f"[SSL: WRONG_VERSION_NUMBER] {reason} (_ssl.c:1006)")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", refuse)
    error = explained(f"https://127.0.0.1:{answering}/")
    assert said in error.message and fix in error.fix and not isinstance(error, refusals.Unanswered)


def test_a_bundle_that_is_set_is_named(answering: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", refuse)
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/company.pem")
    assert 'export REQUESTS_CA_BUNDLE="$SSL_CERT_FILE"' in explained(f"https://127.0.0.1:{answering}/").fix
    bundle = tmp_path / "company.pem"
    bundle.write_bytes(Path(requests.certs.where()).read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    assert f"add the certificate of the company's proxy to {bundle}" in explained(f"https://127.0.0.1:{answering}/").fix


def test_a_bundle_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    error = explained()
    assert "no file of certificates at /nowhere/ca.pem" in error.message and "REQUESTS_CA_BUNDLE" in error.fix
    assert not isinstance(error, refusals.Unanswered)


# -- proxies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set HTTPS_PROXY to a proxy that answers CONNECT with a status of choice."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(status: bytes, credential: str = "") -> None:
        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://{credential}127.0.0.1:{server.getsockname()[1]}")

    yield serve
    server.close()


@pytest.mark.parametrize(("status", "credential", "said", "fix"), [
    (b"407 Proxy Authentication Required", "", "asks for a user and a password (407)", "http://USER:PASSWORD@HOST"),
    (b"407 Proxy Authentication Required", "eve:pass-word@", "does not accept the user and password", "@ as %40"),
    (b"403 Forbidden", "", "does not let it through (403)", "api.kaggle.com")])
def test_a_proxy_that_refuses_is_permanent_and_says_what_it_wants(proxy: Any, status: bytes, credential: str, said: str,
                                                                  fix: str) -> None:
    proxy(status, credential)
    error = explained("https://api.kaggle.com/")
    assert said in error.message and fix in error.fix and not isinstance(error, refusals.Unanswered)
    assert "pass-word" not in str(error)


def test_a_proxy_that_cannot_reach_kaggle_may_later(proxy: Any) -> None:
    proxy(b"503 Service Unavailable")
    error = explained("https://api.kaggle.com/")
    assert isinstance(error, refusals.Unanswered) and not error.may_have_arrived and "(503)" in error.message


@pytest.mark.parametrize(("address", "fix"), [("http://[bad", "HTTPS_PROXY=http://HOST:PORT"),
                                              ("socks5://127.0.0.1:1080", "pip install 'requests[socks]'")])
def test_a_proxy_s_address_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, address: str, fix: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    if address.startswith("socks"):
        from requests import adapters

        def missing(*_: Any, **__: Any) -> None:
            raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

        monkeypatch.setattr(adapters, "SOCKSProxyManager", missing)
    error = explained("https://api.kaggle.com/")
    assert fix in error.fix and not isinstance(error, refusals.Unanswered)


# -- no connection ----------------------------------------------------------------------------------------------------


def test_refused_and_unknown_and_late_are_told_apart_and_were_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = explained("http://127.0.0.1:9/")
    assert "the connection was refused" in refused.message
    cause = urllib3.exceptions.ConnectTimeoutError()
    late = refusals.explain("log in", requests.exceptions.ConnectTimeout(cause), ASKER)
    assert "within the time" in late.message

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    nameless = explained("http://api.kaggle.com/")
    assert "name of the server is not known" in nameless.message
    for error in (refused, late, nameless):
        assert isinstance(error, refusals.Unanswered) and not error.may_have_arrived


def test_a_connection_that_dies_may_have_carried_it_out() -> None:
    lost = refusals.explain("log in", requests.exceptions.ConnectionError("Remote end closed"), ASKER)
    assert isinstance(lost, refusals.Unanswered) and lost.may_have_arrived
    assert "connection to Kaggle was lost" in lost.message


@pytest.mark.parametrize("through", ["", "http://proxy.example:3128"])
@pytest.mark.parametrize(("cause", "said"), [
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "is not known to this network"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "refuses the connection"),
    (TimeoutError("timed out"), "no answer from"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), "on no network"),
    (OSError(errno.EPERM, "Operation not permitted"), "forbids the connection")])
def test_offline_has_a_fix_for_each_cause(monkeypatch: pytest.MonkeyPatch, through: str, cause: OSError,
                                          said: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise cause

    monkeypatch.setattr(client.socket, "create_connection", fail)
    monkeypatch.setenv("HTTPS_PROXY", through)
    monkeypatch.setenv("HTTP_PROXY", through)
    with pytest.raises(KitError, match=said) as caught:
        client._check_network()
    assert ("proxy.example" in caught.value.message) == bool(through) and "--from sample" in caught.value.fix
    if not isinstance(cause, ConnectionRefusedError | socket.gaierror | TimeoutError):
        return
    assert ("correct HTTPS_PROXY" in caught.value.fix) == bool(through)


# -- answers ----------------------------------------------------------------------------------------------------------


def answer(status: int, body: bytes = b"", kind: str = "application/json",
           context: refusals.RequestContext = ASKER) -> KitError:
    response = requests.Response()
    response.status_code, response._content, response.headers["Content-Type"] = status, body, kind
    return refusals.explain("do it", requests.exceptions.HTTPError(response=response), context)


def test_a_filter_s_page_is_not_kaggle() -> None:
    error = answer(403, b"<html>Blocked by policy</html>", "text/html; charset=utf-8")
    assert "a web page answers in Kaggle's place (403)" in error.message and "api.kaggle.com" in error.fix
    assert "407" in answer(407, b"<html>").message


def test_the_storage_that_refuses_is_not_about_the_rules() -> None:
    error = answer(403, b"<Error><Code>ExpiredToken</Code></Error>", "application/xml; charset=UTF-8")
    assert "Kaggle's storage refuses it (403)" in error.message and "clock" in error.fix
    assert ASKER.rules_url not in error.fix


@pytest.mark.parametrize(("status", "owner", "message", "fix"), [
    (404, "", "not found", "competitions/x"), (404, "eve", "not found", "kernel's name"),
    (403, "eve", "not allowed", "it is eve's"), (403, "ada", "not allowed", "verify its phone number"),
    (403, "", "not allowed", ASKER.rules_url), (409, "ada", "in use already", "--slug"),
    (413, "", "too large", "make it smaller"), (426, "", "too old (kaggle", "pip install --upgrade kaggle"),
    (400, "ada", "without a reason", "kernel-metadata.json"), (400, "", "without a reason", ASKER.rules_url)])
def test_a_status_without_words_is_explained_by_what_was_asked(status: int, owner: str, message: str, fix: str) -> None:
    context = refusals.RequestContext(ASKER.credential, ASKER.user, ASKER.rules_url, owner)
    error = answer(status, b"{}", context=context)
    assert isinstance(error, refusals.Rejected) and error.status == status
    assert message in error.message and fix in error.fix


@pytest.mark.parametrize(("words", "meaning", "fix"), [
    ("You must accept this competition's rules before you can continue", "rules are not accepted", ASKER.rules_url),
    ("Permission 'competitions.participate' was denied", "has not joined", "Join Competition"),
    ("Your team has used its daily submission allowance", "of today are used up", "midnight UTC"),
    ("Competition only accepts Submissions from Notebooks", "takes notebooks, not files", "kit kernel build"),
    ("The deadline has passed", "takes no submissions any more", ASKER.competition_url),
    ("Maximum batch CPU session count of 5 reached", "as many sessions of yours", "View Active Events"),
    ("You have used up your weekly TPU quota", "hours of this week", "--accelerator none"),
    ("Phone verification is needed", "the account is not verified", "https://www.kaggle.com/settings"),
    ("The slug is already in use", "the name is in use already", "--slug OTHER-NAME"),
    ("An old client is not supported", "the client is too old", "pip install --upgrade kaggle"),
    ("The kernel is still running", "has not ended yet", "--wait"),
    ("The file exceeds the maximum size", "the file is too large", "smaller file")])
def test_what_kaggle_says_has_its_own_fix(words: str, meaning: str, fix: str) -> None:
    error = answer(400, json.dumps({"code": 400, "message": words}).encode())
    assert isinstance(error, refusals.Rejected) and words in error.message
    assert meaning in error.message and fix in error.fix


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520])
def test_what_may_pass_by_itself_is_unanswered(status: int) -> None:
    error = answer(status)
    assert isinstance(error, refusals.Unanswered) and error.may_have_arrived and str(status) in error.message


@pytest.mark.parametrize(("problem", "fix"), [
    (ValueError("Title must be at least five characters"), "correct what is named"),
    (ValueError("Refusing to use upload state directory /tmp/.kaggle-uploads-0 because it is a symlink. Remove it."),
     "rm -r /tmp/.kaggle-uploads-0"),
    (Exception('Unrecognized value in KAGGLE_API_ENVIRONMENT: "x"'), "unset KAGGLE_API_ENVIRONMENT"),
    (AttributeError("'NoneType' object has no attribute 'name'"), "pip install --upgrade kaggle kagglesdk"),
    (requests.exceptions.InvalidHeader("Invalid leading whitespace"), "alone and on one line"),
    (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
    (OSError(errno.EACCES, "Permission denied"), "correct what is named"),
    (OSError(errno.EACCES, "Permission denied", "/home/x/.kaggle"), "/home/x/.kaggle")])
def test_what_the_client_raises_by_itself(problem: Exception, fix: str) -> None:
    error = refusals.explain("do it", problem, ASKER)
    assert fix in error.fix and not isinstance(error, refusals.Unanswered)
