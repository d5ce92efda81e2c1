"""What every test gets: no credentials, no network beyond this machine, and skips that fail where all must run."""

import contextlib
import os
import signal
import socket

import pytest

from kit.rehearsal.sandbox import loopback_up

# Where CI starts this in the background, the shell has Ctrl-C ignored, and so would every kit that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The stand-ins answer on 127.0.0.1; a sandbox whose network was taken away may have its loopback down as well.
with contextlib.suppress(OSError, ImportError):
    loopback_up()

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


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With KIT_NO_SKIPS=1 (.ci/run) a skipped test has failed: what is not run is not known to work."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("KIT_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr[2] if report.longrepr else ''}"
