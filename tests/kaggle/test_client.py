"""The real kaggle client against a Kaggle on this machine: each way to log in, and each known failure."""

import errno
import gzip
import json
import logging
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit.core.errors import KitError
from kit.kaggle import client, credentials, transfer
from tests.kaggle.stand_in import KEY, SIGNATURE, TOKEN, USER, KaggleStandIn, point_client
from tests.test_docs import ROOT

FILES = {"train.csv": random.Random(0).randbytes(300_000),  # which no zip makes smaller
         "test.csv": b"id,pixel0\n0,5\n"}
RULES = "https://www.kaggle.com/competitions/Kannada-MNIST/rules"


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleStandIn]:
    server = KaggleStandIn(FILES).start()
    (tmp_path / "home").mkdir()
    point_client(monkeypatch, tmp_path / "home", server)
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    import kaggle  # noqa: F401  asks Kaggle when it is imported first, and would take the fault of a test

    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def download(folder: Path, said: list[str] | None = None, slug: str = "kannada-mnist") -> Path:
    return client.download_competition(slug, folder, (said if said is not None else []).append, RULES)


def failure(folder: Path) -> KitError:
    """The KitError of a download that must fail, and must leave nothing behind."""
    with pytest.raises(KitError) as caught:
        download(folder)
    assert not folder.exists() or list(folder.rglob("*")) == []
    return caught.value


def home_file(name: str, text: str, mode: int = 0o600) -> Path:
    path = Path.home() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


# -- download ---------------------------------------------------------------------------------------------------------


def test_download_leaves_the_zip_and_nothing_else(kaggle: KaggleStandIn, folder: Path) -> None:
    said: list[str] = []
    assert download(folder, said) == folder / "kannada-mnist.zip"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"kannada-mnist.zip": kaggle.archive}
    assert said == ["downloading kannada-mnist.zip (0.3 MB)"]


def test_a_lost_connection_resumes_where_it_stopped(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("archive.zip", cut=100_000, status=200)
    said: list[str] = []
    assert download(folder, said).read_bytes() == kaggle.archive
    done = 100_000 // client.CHUNK_BYTES * client.CHUNK_BYTES
    assert kaggle.ranges == [f"bytes={done}-"]
    assert any(f"connection was lost after {done:,} of" in text for text in said)
    assert kaggle.count("DownloadDataFiles") == 2  # the address of the first try may have expired


def test_a_file_that_changed_in_the_meantime_is_downloaded_anew(kaggle: KaggleStandIn, folder: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def change(attempt: int) -> float:
        kaggle.archive, kaggle.etag = bytes(reversed(kaggle.archive)), '"v2"'
        return 0.0

    monkeypatch.setattr(client, "_backoff", change)
    kaggle.fault("archive.zip", cut=100_000, status=200)
    assert download(folder).read_bytes() == kaggle.archive
    assert kaggle.ranges == []


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """In a process of its own: the official client already asks when it is imported."""
    code = """
from pathlib import Path
from kit.kaggle import client
client.READ_TIMEOUT, client.BACKOFF = 0.3, 0.01
try:
    client.download_competition("kannada-mnist", Path("data"))
except client.KitError as error:
    print(error)
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "",
                       "no_proxy": "", "KAGGLE_API_TOKEN": TOKEN, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **environment},
                              capture_output=True, text=True, timeout=60)
    assert "the connection to Kaggle was lost (ReadTimeout)" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 2 and TOKEN not in done.stdout + done.stderr


def test_a_lost_connection_starts_again_where_the_server_cannot_resume(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.accepts_ranges = False
    kaggle.fault("archive.zip", cut=100_000, status=200, times=2)
    assert download(folder).read_bytes() == kaggle.archive


def test_a_connection_that_always_dies_leaves_nothing(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.accepts_ranges = False
    kaggle.fault("archive.zip", cut=100_000, status=200, times=1000)
    message = failure(folder).message
    assert f"after 98,304 of {len(kaggle.archive):,} bytes, 5 times: the connection was lost" in message


def test_what_was_there_stays_where_a_download_fails(kaggle: KaggleStandIn, folder: Path) -> None:
    folder.mkdir()
    (folder / "kannada-mnist.zip").write_bytes(b"mine")
    kaggle.fault("DownloadDataFiles", status=500, times=1000)
    with pytest.raises(KitError):
        download(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"kannada-mnist.zip": b"mine"}


def test_a_wrong_length_leaves_nothing(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("archive.zip", announce=len(kaggle.archive) + 50, status=200, times=1000)
    message = failure(folder).message
    assert f"of {len(kaggle.archive) + 50:,} bytes" in message and "the announced length is wrong" in message


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Content-Length": "about 300 KB"},
                                     {"Content-Length": "-1"}])
def test_a_length_that_is_not_the_zip_s_is_ignored(
        kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch,
        headers: dict[str, str]) -> None:
    """A proxy compresses what it passes on, or announces a length that is no number."""
    cuts = [50_000, None]  # the connection is lost once

    def send(handler: Any, data: bytes) -> None:
        body = gzip.compress(data) if "Content-Encoding" in headers else data
        handler.close_connection = True
        handler.send_response(200)
        for name, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes",
                            "ETag": kaggle.etag, **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[:cuts.pop(0) if "Content-Encoding" in headers else None])

    monkeypatch.setattr(kaggle.http.RequestHandlerClass, "_file", send)
    assert download(folder).read_bytes() == kaggle.archive


@pytest.mark.parametrize("how", ["chunked", "until the connection ends"])
def test_a_file_of_unknown_length_arrives_whole(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                                how: str) -> None:
    def send(handler: Any, data: bytes) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header(*(("Transfer-Encoding", "chunked") if how == "chunked" else ("Connection", "close")))
        handler.end_headers()
        for part in (data[:70_001], data[70_001:]) if how == "chunked" else ():
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n" if how == "chunked" else data)

    monkeypatch.setattr(kaggle.http.RequestHandlerClass, "_file", send)
    assert download(folder).read_bytes() == kaggle.archive


def test_too_little_disk_is_known_before(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    error = failure(folder)
    assert "not enough disk space" in error.message and "10 MB free" in error.message and "--data-dir" in error.fix
    assert kaggle.ranges == []


def test_a_disk_that_fills_up_is_not_taken_for_the_network(kaggle: KaggleStandIn, folder: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, mode: str = "r") -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys.modules["kaggle.api.kaggle_api_extended"], "open", full, raising=False)
    error = failure(folder)
    assert "cannot write" in error.message and "No space left" in error.message and "free some space" in error.fix
    assert kaggle.count("DownloadDataFiles") == 1


def test_scratch_of_a_killed_download_is_swept_and_that_of_a_living_one_is_not(kaggle: KaggleStandIn,
                                                                                folder: Path) -> None:
    killed = folder / f"{transfer.SCRATCH}killed"
    killed.mkdir(parents=True)
    (killed / transfer.HELD).touch()  # and nobody holds it
    with transfer.scratch_folder(folder) as living:
        download(folder)
        assert living.is_dir() and not killed.exists()
    assert [path.name for path in folder.iterdir()] == ["kannada-mnist.zip"]


def test_scratch_without_a_lock_is_swept_once_it_is_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{transfer.SCRATCH}old").mkdir(parents=True)
    with transfer.scratch_folder(folder):
        assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(transfer, "STALE", -1.0)
    with transfer.scratch_folder(folder):
        assert len(list(folder.iterdir())) == 1


# -- answers that are errors ------------------------------------------------------------------------------------------


def test_401_says_which_credential_and_how_to_renew_it(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", status=401, message="Unauthorized")
    error = failure(folder)
    assert "401" in error.message and "KAGGLE_API_TOKEN is expired" in error.message
    assert credentials.SETTINGS_PAGE in error.fix


def test_403_names_the_rules_page(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", status=403, message="You must accept this competition's rules before …")
    error = failure(folder)
    assert "403" in error.message and "You must accept" in error.message and RULES in error.fix


def test_404_says_so(kaggle: KaggleStandIn, folder: Path) -> None:
    with pytest.raises(KitError, match="404") as caught:
        download(folder, slug="no-such-thing")
    assert "no-such-thing" in caught.value.message and "name" in caught.value.fix


@pytest.mark.parametrize("method", ["DownloadDataFiles", "IntrospectToken", "archive.zip"])
def test_429_waits_as_told_and_says_so(kaggle: KaggleStandIn, folder: Path, method: str) -> None:

    kaggle.fault(method, status=429, headers={"Retry-After": "0.3"})
    said: list[str] = []
    assert download(folder, said).read_bytes() == kaggle.archive
    assert any("429" in text and "waiting" in text for text in said)


def test_429_with_a_date(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", status=429, headers={"Retry-After": formatdate(0, usegmt=True)})
    assert download(folder).is_file()


def test_429_for_too_long_gives_up_at_once(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", status=429, headers={"Retry-After": "86400"}, times=1000)
    error = failure(folder)
    assert "24 h" in error.message and "run the same command again in 24 h" in error.fix


def test_429_without_an_end_gives_up(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TOTAL_WAIT", 0.3)
    kaggle.fault("DownloadDataFiles", status=429, headers={"Retry-After": "0"}, times=1000)
    assert "too many requests (429)" in failure(folder).message


def test_500_is_tried_again(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", status=503, times=2)
    download(folder)
    assert kaggle.count("DownloadDataFiles") == 3


def test_500_for_ever_is_an_error(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", status=500, times=1000)
    assert "(500)" in failure(folder).message
    assert kaggle.count("DownloadDataFiles") == client.ATTEMPTS


def test_an_error_inside_a_200_answer_is_an_error(kaggle: KaggleStandIn, folder: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KaggleStandIn, "authorized", lambda self, header: True)
    kaggle.fault("DownloadDataFiles", hang_up=True)
    connected = client.connect()
    kaggle.do_GetKernel = lambda body: (200, {"code": 403, "message": "kernels.get denied"})  # type: ignore[method-assign]
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

    with pytest.raises(KitError, match=r"403.*kernels\.get denied"):
        connected.call_sdk("look", lambda kaggle: kaggle.kernels.kernels_api_client.get_kernel(ApiGetKernelRequest()))


def test_a_hung_up_request_is_tried_again(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", hang_up=True)
    download(folder)
    assert kaggle.count("DownloadDataFiles") == 2


def test_a_login_page_of_the_network_is_no_answer(kaggle: KaggleStandIn, folder: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

    connected = client.connect()
    page = lambda handler, status, value, headers=None: handler._send(200, b"<html>log in</html>")  # noqa: E731
    monkeypatch.setattr(kaggle.http.RequestHandlerClass, "_json", page)
    with pytest.raises(client.Unanswered, match="not from Kaggle"):
        connected.call_sdk("look", lambda kaggle: kaggle.kernels.kernels_api_client.get_kernel(ApiGetKernelRequest()))


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_offline_is_said_at_once(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                 scheme: str) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"{scheme}user:proxy@password@127.0.0.1:1")
    error = failure(folder)
    assert "cannot reach Kaggle" in error.message and "127.0.0.1:1" in error.message
    assert "password" not in str(error) and "user" not in error.message and "proxy" in error.fix


def test_a_proxy_without_a_port_number_is_said(kaggle: KaggleStandIn, folder: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://user:password@proxy.example:80a")
    error = failure(folder)
    assert "proxy.example has no number for a port" in error.message and "password" not in str(error)


# -- credentials ------------------------------------------------------------------------------------------------------


def test_no_credential_tells_how_to_get_each_kind(kaggle: KaggleStandIn, folder: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert not credentials.has_credential() and credentials.find_credential().kind == credentials.NONE
    error = failure(folder)
    for way in ("KAGGLE_API_TOKEN", "~/.kaggle/access_token", "kaggle.json", "KAGGLE_USERNAME", "kaggle auth login",
                credentials.SETTINGS_PAGE):
        assert way in error.fix
    assert "\n" not in error.fix


@pytest.mark.parametrize("where", [".kaggle/access_token", ".kaggle/access_token.txt", "elsewhere"])
def test_token_files_work(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = home_file(where, TOKEN + "\n")
    if where == "elsewhere":
        monkeypatch.setenv("KAGGLE_API_TOKEN", str(path))
    assert credentials.find_credential() == credentials.Credential(credentials.TOKEN, str(path))
    download(folder)


@pytest.mark.parametrize("where", [".kaggle", ".config/kaggle", "named"])
def test_kaggle_json_works_in_each_folder(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                          where: str) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    (Path.home() / ".kaggle").mkdir(exist_ok=True)  # the client alone would then never look into ~/.config
    path = home_file(f"{where}/kaggle.json", json.dumps({"username": USER, "key": KEY}))
    if where == "named":
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(path.parent))
    assert credentials.find_credential() == credentials.Credential(credentials.KEY, str(path))
    download(folder)
    assert kaggle.seen_authorization[-1].startswith("Basic ")


@pytest.mark.parametrize("home", ["closed", "unknown"])
def test_a_home_that_cannot_be_looked_into_is_none(kaggle: KaggleStandIn, monkeypatch: pytest.MonkeyPatch,
                                                   home: str) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")

    def closed(path: Path, **_: bool) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(*((Path, "is_file", closed) if home == "closed" else (Path, "home", unknown)))
    assert not credentials.has_credential() and credentials.user_name() is None
    assert credentials.redact("as it is") == "as it is"


def test_key_in_the_environment_works(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                      tmp_path: Path) -> None:
    point_client(monkeypatch, tmp_path / "home", kaggle, "key")
    assert credentials.find_credential().where == "KAGGLE_USERNAME and KAGGLE_KEY"
    download(folder)


def test_oauth_login_works_and_an_expired_one_says_how(kaggle: KaggleStandIn, folder: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    login = {"refresh_token": "refresh-" + TOKEN, "access_token": "", "access_token_expiration": "", "username": USER,
             "scopes": []}
    home_file(".kaggle/credentials.json", json.dumps(login))
    assert credentials.find_credential().kind == credentials.OAUTH
    download(folder)
    home_file(".kaggle/credentials.json", json.dumps({**login, "refresh_token": "old"}))
    with pytest.raises(KitError, match="OAuth login") as caught:
        download(folder)
    assert "kaggle auth login" in caught.value.fix


def test_kaggle_json_that_others_can_read_is_told(kaggle: KaggleStandIn, folder: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = home_file(".kaggle/kaggle.json", json.dumps({"username": USER, "key": KEY}), mode=0o644)
    assert credentials.find_credential().readable_by_others
    said: list[str] = []
    download(folder, said)
    assert f"chmod 600 {path}" in said[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # told, not done


@pytest.mark.parametrize("text", ["", "{", "[]", '{"username": "ada"}', '{"username": "ada", "key": 3}'])
def test_a_damaged_kaggle_json_is_told(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch,
                                       text: str) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = home_file(".kaggle/kaggle.json", text)
    assert f"{path} is damaged" in failure(folder).message


@pytest.mark.parametrize(("text", "fix"), [("", "Create Legacy API Key"), (TOKEN, "save it as ~/.kaggle/access_token")])
def test_a_damaged_kaggle_json_has_the_fix_for_what_it_is(kaggle: KaggleStandIn, folder: Path, text: str, fix: str,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    home_file(".kaggle/kaggle.json", text)
    error = failure(folder)
    assert fix in error.fix and TOKEN not in str(error)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le with a mark", "utf-16-be with a mark"])
@pytest.mark.parametrize("where", ["access_token", "kaggle.json"])
def test_a_file_as_notepad_and_powershell_save_it_is_read(kaggle: KaggleStandIn, folder: Path, where: str,
                                                          monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    text = TOKEN + "\r\n" if where == "access_token" else json.dumps({"username": USER, "key": KEY})
    path = home_file(f".kaggle/{where}", "")
    path.write_bytes(("\ufeff" + text).encode(encoding.split()[0]) if " " in encoding else text.encode(encoding))
    before = dict(os.environ)
    download(folder)
    assert kaggle.seen_authorization[-1].startswith("Bearer" if where == "access_token" else "Basic")
    assert dict(os.environ) == before  # what the client is given for a moment is gone
    assert KEY not in client.redact(KEY) and TOKEN not in client.redact(TOKEN)


def test_a_file_that_is_no_text_is_told(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    home_file(".kaggle/access_token", "").write_bytes(b"\x80\x81\xff")
    assert "access_token is not text: neither UTF-8 nor UTF-16" in failure(folder).message


@pytest.mark.parametrize("name", ["access_token", "kaggle.json", "credentials.json"])
@pytest.mark.parametrize("owner", ["me", "other"])
def test_a_file_that_may_not_be_read_is_named_with_its_owner(kaggle: KaggleStandIn, folder: Path, name: str, owner: str,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """As `sudo kaggle …` leaves it. Root reads everything, so that the refusal is made up."""
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path, read = home_file(f".kaggle/{name}", "secret"), Path.read_bytes

    def refused(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    if owner == "other":
        monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    error = failure(folder)
    assert f"cannot read {path}: Permission denied" in error.message
    assert ("belongs to" in error.message) == (owner == "other")
    assert ("sudo chown" in error.fix) == (owner == "other") and str(path) in error.fix


@pytest.mark.parametrize(("named", "state"), [("nowhere", "is not there"), ("empty", "holds no kaggle.json"),
                                              ("file", "is a file")])
def test_a_wrong_kaggle_config_dir_is_named_and_the_home_folder_used(
        kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str,
        state: str) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / named))
    assert f"KAGGLE_CONFIG_DIR names {tmp_path / named}, which {state}" in failure(folder).message
    path = home_file(".kaggle/kaggle.json", json.dumps({"username": USER, "key": KEY}))
    said: list[str] = []
    download(folder, said)
    assert said[0] == (f"note: KAGGLE_CONFIG_DIR names {tmp_path / named}, which {state}; the kaggle.json in {path} "
                       "is used")
    assert not (tmp_path / "nowhere").exists()  # which the client makes


def test_what_is_no_credential_is_named_where_there_is_none(kaggle: KaggleStandIn, folder: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    home_file(".kaggle/access_token", "")
    loaded = home_file("Downloads/kaggle.json", "{}")
    message = failure(folder).message
    for part in ("KAGGLE_KEY is set without KAGGLE_USERNAME", "access_token is empty", f"{loaded} belongs into"):
        assert part in message
    assert KEY not in message


def test_a_key_alone_in_the_environment_does_not_mix_with_the_file(kaggle: KaggleStandIn, folder: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_KEY", "f" * 32)
    monkeypatch.setenv("KAGGLE_TOKEN", "KGAT_of_another_program")  # nor does this, which the client would send
    home_file(".kaggle/kaggle.json", json.dumps({"username": USER, "key": KEY}))
    download(folder)
    assert os.environ["KAGGLE_TOKEN"] == "KGAT_of_another_program"


def test_the_user_s_name_is_of_the_credential_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials.user_name() is None
    monkeypatch.setenv("KAGGLE_USERNAME", "eve")
    assert credentials.user_name() == "eve"
    home_file(".kaggle/kaggle.json", json.dumps({"username": USER, "key": KEY}))
    assert credentials.user_name() == USER  # the variable is without its KAGGLE_KEY
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert credentials.user_name() == "eve"
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert credentials.user_name() is None


@pytest.mark.parametrize("around", ["'{}'", ' "{}" ', "{}\r\n"])
def test_quotes_and_line_ends_around_a_token_are_left_out(kaggle: KaggleStandIn, folder: Path, around: str,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", around.format(TOKEN))
    download(folder)


@pytest.mark.parametrize(("value", "said"), [
    ("/nowhere/token", "names the file /nowhere/token, which is not there"), ("~/token", "names the file"),
    ('{"username": "ada", "key": "x"}', "holds a kaggle.json, not an access token"),
    (f"{TOKEN} {TOKEN}", "holds more than an access token"), (f"{TOKEN}…", "holds more than an access token")])
def test_a_variable_that_holds_no_token_says_what_it_holds(kaggle: KaggleStandIn, folder: Path, value: str, said: str,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", value)
    error = failure(folder)
    assert said in error.message and TOKEN not in str(error) and not kaggle.requests


def test_a_home_that_cannot_be_written_needs_no_folder(tmp_path: Path, kaggle: KaggleStandIn) -> None:
    """The client makes ~/.kaggle when it is imported; in a container that may be forbidden."""
    code = """
import os
from pathlib import Path
def refused(path, *rest, **options):
    if ".kaggle" in str(path) or "nowhere" in str(path):
        raise PermissionError(13, "Permission denied", str(path))
    return made(path, *rest, **options)
made, os.makedirs = os.makedirs, refused
from kit.kaggle import client
print(client.connect().user)
"""
    environment = {**os.environ, **kaggle.environment(), "KAGGLE_API_TOKEN": TOKEN, "HOME": str(tmp_path / "nowhere"),
                   "PYTHONPATH": str(ROOT)}
    for more in ({}, {"KAGGLE_CONFIG_DIR": "/nowhere/at/all"}):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**environment, **more},
                              capture_output=True, text=True, timeout=60)
        assert done.stdout == f"{USER}\n", done.stderr


# -- the client itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "said"), [("1.7.4", "too old: kaggle 1.7.4"), ("2.2.3", "too old: kaggle 2.2.3")])
def test_a_client_that_is_too_old_is_told_before_it_is_imported(kaggle: KaggleStandIn, folder: Path, version: str,
                                                                said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.importlib.metadata, "version", lambda name: version)
    error = failure(folder)
    assert said in error.message and "pip install --upgrade" in error.fix


def test_no_client_is_told(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise client.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(client.importlib.metadata, "version", missing)
    assert "is not installed" in failure(folder).message


@pytest.mark.parametrize("name", ["kaggle.py", "kaggle/__init__.py"])
def test_a_file_of_the_same_name_is_named(tmp_path: Path, kaggle: KaggleStandIn, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    environment = {**os.environ, **kaggle.environment(), "KAGGLE_API_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", "from kit.kaggle import client; client.connect()"], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, timeout=60)
    assert f"{tmp_path / name} is imported instead of the official client" in done.stderr


def test_a_proxy_that_asks_for_a_password_is_asked_once(kaggle: KaggleStandIn, folder: Path) -> None:
    kaggle.fault("DownloadDataFiles", status=407, times=1000)
    error = failure(folder)
    assert "the proxy asks for a user and a password (407)" in error.message
    assert kaggle.count("DownloadDataFiles") == 1


def test_an_expired_token_is_told_and_no_kaggle_json_taken_instead(kaggle: KaggleStandIn, folder: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_expired0123456789")
    error = failure(folder)
    assert "access token from KAGGLE_API_TOKEN" in error.message and "expired" in error.message
    home_file(".kaggle/kaggle.json", json.dumps({"username": USER, "key": KEY}))
    assert "access token from KAGGLE_API_TOKEN" in failure(folder).message
    assert "KGAT_expired" not in str(error)


def test_a_wrong_key_is_a_401(kaggle: KaggleStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch,
                              tmp_path: Path) -> None:
    point_client(monkeypatch, tmp_path / "home", kaggle, "key")
    monkeypatch.setenv("KAGGLE_KEY", "f" * 32)
    error = failure(folder)
    assert "401" in error.message and "Create Legacy API Key" in error.fix


def test_no_credential_in_anything_said_raised_printed_or_logged(
        kaggle: KaggleStandIn, folder: Path, caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str]) -> None:
    texts: list[str] = []
    leak = f"bad token {TOKEN} for Basic {KEY} at https://x.example/y?{SIGNATURE}"
    with caplog.at_level(logging.INFO):
        for facts in ({"status": 401}, {"status": 403}, {"status": 418}, {"status": 500, "times": 1000},
                      {"hang_up": True}):
            kaggle.faults.clear()
            kaggle.fault("DownloadDataFiles", message=leak, **facts)
            try:
                download(folder, texts)
            except KitError as error:
                texts += [str(error), *traceback.format_exception(error)]
        kaggle.faults.clear()
        kaggle.fault("archive.zip", cut=100_000, status=200)
        kaggle.fault("archive.zip", status=403, message=leak)
        with pytest.raises(KitError, match="403") as caught:
            download(folder, texts)
        texts += [str(caught.value), *traceback.format_exception(caught.value)]
        download(folder, texts)
    texts += [caplog.text, *capsys.readouterr()]
    texts += [path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]
    assert any("418" in text for text in texts) and any("[hidden]" in text for text in texts)
    for secret in (TOKEN, KEY, SIGNATURE.split("=")[1]):
        assert not [text for text in texts if secret in text]


@pytest.mark.parametrize("text", [f"Authorization: Bearer {TOKEN}", "key 00112233445566778899aabbccddeeff", "KGAT_abc",
                                  "Basic YWRhOmtleWtleWtleQ==", "http://ada:pass-word@proxy:3128/",
                                  "https://s.example/f.zip?token=abcdef", "with url: /f.zip?token=abcdef (Caused by"])
def test_redact_knows_the_shapes_of_credentials(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    shown = client.redact(text)
    for secret in (TOKEN, "00112233", "KGAT_abc", "YWRhOm", "pass-word", "abcdef"):
        assert secret not in shown


@pytest.mark.parametrize("password", ["pa@ss@word", "pa/ss@word", "pass:word%40"])
def test_a_proxy_s_password_is_hidden_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("https_proxy", f"http://evelyn:{password}@proxy:3128")
    for text in (f"Failed to parse: http://evelyn:{password}@proxy:3128/", f"proxy user evelyn:{password}"):
        shown = client.redact(text)
        assert "word" not in shown and password not in shown


def test_redact_leaves_words_and_hashes_alone() -> None:
    text = "train.csv has sha256 " + "ab" * 32 + " at https://www.kaggle.com/settings/api"
    assert client.redact(text) == text
