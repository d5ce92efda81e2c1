"""The kit on native Windows, simulated: without what Python lacks there, `sys.platform` win32.

The simulation begins after the standard library and the packages are loaded, since those would look
for Windows' own modules. Paths, consoles, spawned processes and TensorFlow itself stay Linux' own.
"""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIKE_WINDOWS = """
import asyncio, concurrent.futures.process, ctypes, getpass, multiprocessing.pool
import multiprocessing.spawn, os, platform, signal, socket, ssl, subprocess, sys, tempfile, uuid
import filelock, numpy, pandas, rich.live, sklearn.model_selection, typer

{more}
platform.uname()
kill, running = os.kill, {{os.getpid()}}

class Kernel32:
    def __init__(self, *_, **__): pass
    def OpenProcess(self, access, inherit, process): return process if process in running else 0
    def WaitForSingleObject(self, handle, milliseconds): return 0x102
    def CloseHandle(self, handle): pass

def kill_on_windows(process, number):
    assert number != 0, "on Windows signal 0 is Ctrl-C"

os.kill, ctypes.WinDLL, ctypes.get_last_error = kill_on_windows, Kernel32, lambda: 87
for name in ("fork", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "killpg", "mkfifo",
             "sched_getaffinity", "sched_setaffinity", "setsid", "statvfs", "sysconf", "uname"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1"):
    delattr(signal, name)
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
sys.platform = "win32"
"""


def on_windows(code: str, folder: Path, more: str = "") -> str:
    """What `code` prints in a Python like that of native Windows; its errors fail the test."""
    done = subprocess.run([sys.executable, "-c", LIKE_WINDOWS.format(more=more) + code],
                          cwd=folder, text=True, timeout=1200,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_modules_are_imported_and_a_dead_holder_of_a_lock_is_known(tmp_path):
    printed = on_windows("""
import importlib, json, pkgutil
from pathlib import Path
import kit

for module in pkgutil.walk_packages(kit.__path__, "kit."):
    if module.name != "kit.__main__":
        importlib.import_module(module.name)
        print(module.name)

from kit.core import locks, system
from kit.core.run_folder import RunFolder

assert system.cores()
run = RunFolder(Path("run"))
with run.lock():
    assert run.is_in_use
    holder = json.loads(Path("run/.lock.holder").read_text())
assert not run.is_in_use
Path("run/.lock.holder").write_text(json.dumps(holder | {"process": 4_000_000}))  # it was killed
assert locks.read_holder(Path("run/.lock")).is_dead and not run.is_in_use
""", tmp_path)
    assert {"kit.commands.cli", "kit.rehearsal.sandbox", "kit.runtime.main"} <= set(printed.split())


@pytest.mark.slow
def test_from_a_sample_to_a_blend(tmp_path):
    printed = on_windows("""
from kit.commands import cli

def kit(words, code=0):
    print("$ kit", words, flush=True)
    assert cli.run(words.split()) == code, words

QUICK = " --model mlp --limit 20 --epochs 1 --folds 2 --executor local --quiet"
kit("download --from sample --quiet")
kit("submit --run first" + QUICK)
kit("submit --run second --seed 7" + QUICK)
kit("validate submissions/first/submission.csv")
kit("blend first second --run both --quiet")
kit("compare first second --out compare.html")
kit("predict first --test data/kannada-mnist-sample/test.csv --out predicted.csv")
kit("doctor")
kit("report first")
kit("show 3")
kit("ledger show")
kit("runs")
kit("runs remove second --yes")
kit("kernel build --out kernel --model mlp --epochs 1")
kit("kernel rehearse kernel", code=2)
""", tmp_path, more="import keras, tensorflow")
    assert "error: a kernel cannot be rehearsed on Windows itself\nfix: rehearse it in WSL" in printed
    with (tmp_path / "submissions" / "both" / "submission.csv").open() as file:
        assert next(csv.reader(file)) == ["id", "label"]
    assert (tmp_path / "compare.html").is_file() and not (tmp_path / "runs" / "second").exists()
