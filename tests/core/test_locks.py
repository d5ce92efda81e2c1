"""Locks where the file system has none, and holders that are gone."""

import dataclasses
import errno
import fcntl
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time

import pytest

from kit import ledger
from kit.commands import request
from kit.core import locks
from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.core.run_folder import RunFolder
from kit.data import competition, source
from kit.kaggle import transfer
from kit.kernel import folder
from tests.data.tiny import TINY, write_folder

NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, 524]


@pytest.fixture(params=NO_LOCKS)
def no_flock(request, monkeypatch):
    """A file system without locks."""
    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return monkeypatch


@pytest.fixture
def nfs(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return monkeypatch


def left_by(path, **facts):
    """The file of a holder of a soft lock, as another process left it."""
    holder = dataclasses.replace(locks._this_process(soft=True), **facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    locks._holder_file(path).write_text(locks._text(holder))


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_is_held_and_released_without_locks(tmp_path, no_flock):
    with RunFolder(tmp_path / "run").lock():
        assert json.loads((tmp_path / "run" / ".lock.holder").read_text())["soft"]
        with pytest.raises(KitError, match=f"in use by process {os.getpid()} on {socket.gethostname()}") as caught, \
                RunFolder(tmp_path / "run", break_lock=True).lock():
            pass
        assert caught.value.fix.startswith("wait until it has ended")
    assert [path.name for path in (tmp_path / "run").iterdir()] == []


def test_all_that_is_locked_works_without_locks(tmp_path, no_flock):
    with transfer.scratch_folder(tmp_path) as scratch:
        assert not transfer._is_abandoned(scratch)
    assert not scratch.exists()
    with ledger._locked(tmp_path / "ledger.csv"):
        pass
    with folder.KernelFolder(tmp_path, {"id": "a/b"}, "", "", None).lock():
        pass


def test_a_dead_holder_of_this_machine_is_replaced(tmp_path, nfs):
    left_by(tmp_path / ".lock", process=ended_process())
    with RunFolder(tmp_path).lock():
        assert locks.read_holder(tmp_path / ".lock").process == os.getpid()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="nothing says when a process began")
def test_a_number_that_another_process_has_now_is_a_dead_holder(tmp_path, nfs):
    left_by(tmp_path / ".lock", process=os.getppid(), born="1")
    with RunFolder(tmp_path).lock():
        pass


@pytest.mark.parametrize("facts", [{"host": "node-7"}, {"machine": "another boot, or another container"}])
def test_a_holder_elsewhere_is_replaced_on_request_only(tmp_path, nfs, facts):
    left_by(tmp_path / ".lock", process=ended_process(), since=time.time() - 3 * 3600, **facts)
    holder = locks.read_holder(tmp_path / ".lock")
    with pytest.raises(KitError) as caught, RunFolder(tmp_path).lock():
        pass
    assert caught.value.message == f"{tmp_path} is in use by process {holder.process} on {holder.host}, since 3 h ago"
    assert f"rm '{tmp_path / '.lock.holder'}'" in caught.value.fix and "--break-lock" in caught.value.fix
    with RunFolder(tmp_path, break_lock=True).lock():
        assert locks.read_holder(tmp_path / ".lock").host == socket.gethostname()


def test_a_soft_holder_counts_where_the_same_folder_has_locks(tmp_path):
    left_by(tmp_path / ".lock", host="node-7")
    with pytest.raises(KitError, match="on node-7"), RunFolder(tmp_path).lock():
        pass
    with RunFolder(tmp_path, break_lock=True).lock():
        pass


def test_what_a_killed_holder_of_a_true_lock_left_stands_in_nobodys_way(tmp_path):
    left_by(tmp_path / ".lock", host="node-7", soft=False)
    with RunFolder(tmp_path).lock():
        pass


def test_the_ledger_names_who_has_it_and_how_to_free_it(tmp_path, nfs, monkeypatch):
    monkeypatch.setattr(ledger, "LOCK_TIMEOUT", 0.0)
    left_by(tmp_path / ".ledger.csv.lock", host="node-7")
    with pytest.raises(KitError, match="on node-7") as caught, ledger._locked(tmp_path / "ledger.csv"):
        pass
    assert f"rm '{tmp_path / '.ledger.csv.lock.holder'}'" in caught.value.fix
    assert "--break-lock" not in caught.value.fix  # which kit ledger does not have


def test_a_scratch_folder_of_another_machine_stays(tmp_path, nfs):
    with transfer.scratch_folder(tmp_path) as scratch:
        left_by(scratch / transfer.HELD, host="node-7")
        assert not transfer._is_abandoned(scratch)
        left_by(scratch / transfer.HELD, process=ended_process())
        assert transfer._is_abandoned(scratch)


def test_a_holder_that_nobody_can_read_is_not_waited_for(tmp_path, nfs):
    (tmp_path / ".lock.holder").write_text("")
    with pytest.raises(KitError, match="in use by another process"), RunFolder(tmp_path).lock():
        pass
    with RunFolder(tmp_path, break_lock=True).lock():
        pass


def _count(path, wins):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "")

    fcntl.flock = refuse
    for _ in range(20):
        with locks.acquire(path, timeout=30):
            before = wins.value
            time.sleep(0.001)
            wins.value = before + 1


def test_one_process_at_a_time_has_a_soft_lock(tmp_path):
    """Also where it begins with a dead holder, whom all of them want to replace."""
    left_by(tmp_path / ".lock", process=ended_process())
    context = multiprocessing.get_context("fork")
    wins = context.RawValue("i", 0)
    workers = [context.Process(target=_count, args=(tmp_path / ".lock", wins)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4 and wins.value == 80


def test_a_breaker_that_was_killed_does_not_stop_the_next(tmp_path, nfs):
    left_by(tmp_path / ".lock", process=ended_process())
    guard = tmp_path / ".lock.breaking"
    guard.touch()
    os.utime(guard, (1, 1))
    with locks.acquire(tmp_path / ".lock", timeout=5):
        pass
    assert not guard.exists()


def test_a_folder_that_cannot_be_written_says_so_and_not_that_it_is_in_use(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(locks.tempfile, "TemporaryFile", refuse)
    with pytest.raises(KitError, match="Read-only file system") as caught, RunFolder(tmp_path).lock():
        pass
    assert "mounted read-only" in caught.value.fix


def test_break_lock_of_the_command_reaches_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(competition.COMPETITIONS, "tiny", TINY)
    write_folder(tmp_path / "tiny")
    source.download(TINY, tmp_path / "tiny", tmp_path)
    for break_lock in (True, False):
        options = request.TrainingOptions(data_dir=tmp_path, runs_dir=tmp_path / "runs", model="mlp", run="a",
                                          break_lock=break_lock)
        assert request.open_request(TINY, options, Progress()).run.break_lock == break_lock
    with pytest.raises(KitError, match="break_lock='yes' is of the wrong kind"):
        request.TrainingOptions(data_dir=tmp_path, break_lock="yes")
