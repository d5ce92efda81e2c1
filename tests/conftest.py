"""What every test gets: no credentials, no network beyond this machine, and skips that fail where all must run."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.kaggle import client, session, submissions
from kit.rehearsal.sandbox import loopback_up
from tests.kaggle.stand_in import KaggleStandIn, point_client

# Where CI starts this in the background, the shell has Ctrl-C ignored, and so would every kit that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The stand-ins answer on 127.0.0.1; a sandbox whose network was taken away may have its loopback down as well.
with contextlib.suppress(OSError, ImportError):
    loopback_up()

REPORT = {"data": {"source": "kaggle"}, "cv": {"split": "writer", "mean": 0.991, "oof_accuracy": 0.9912},
          "leaderboard_estimate": {"value": 0.985, "low": 0.981, "high": 0.989}}
LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0", ""}


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch, tmp_path_factory):
    """Neither the tester's Kaggle account nor their home folder takes part."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A connection to another machine fails at once."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise OSError(f"tests use no network, and this one asked for {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleStandIn]:
    """The stand-in, the client sent to it, and waits of hundredths of a second. The current folder is empty."""
    server = KaggleStandIn({}).start()
    server.next_outputs["report.json"] = json.dumps(REPORT).encode()
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    point_client(monkeypatch, tmp_path / "home", server)
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    monkeypatch.setattr(session, "POLL_FIRST", 0.01)
    monkeypatch.setattr(session, "POLL_LONGEST", 0.05)
    monkeypatch.setattr(submissions, "SEARCH_SECONDS", 0.05)
    yield server
    server.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With KIT_NO_SKIPS=1 (.ci/run) a skipped test has failed: what is not run is not known to work."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("KIT_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr[2] if report.longrepr else ''}"
