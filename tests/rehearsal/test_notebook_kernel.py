"""A notebook is run as Kaggle runs it: by ipykernel, whose process the sandbox, the limits and the kill must reach."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit.core.errors import KitError
from kit.kernel import builder
from kit.rehearsal import rehearse as rehearsal
from kit.rehearsal import sandbox
from kit.rehearsal.rehearse import rehearse
from tests.rehearsal.kernels import GOOD, write_kernel
from tests.rehearsal.test_rehearse import command_line, running, wait_until


def write_notebook(folder: Path, *cells: str, tags: tuple[str, ...] = (), **metadata: object) -> Path:
    """A kernel folder with a notebook that hands in well and then runs `cells`; the last one has the `tags`."""
    write_kernel(folder, GOOD, kernel_type="notebook", **metadata)
    path = folder / "kernel.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"] += [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": cell}
                          for cell in cells]
    notebook["cells"][-1]["metadata"]["tags"] = list(tags)
    path.write_text(json.dumps(notebook))
    return folder


def test_everything_that_ipython_understands_runs(tmp_path, data, sandbox_kind):
    folder = write_notebook(
        tmp_path, "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "!echo from the shell", "names = !ls {root}\nprint(names)", "%%time\nprint('timed')",
        "display('shown')\nget_ipython().run_line_magic('pwd', '')",
        "import asyncio\nprint(await asyncio.sleep(0, 'late'))",
        "'the last value'", "print?", "%%bash\necho from bash", "assert __name__ == '__main__'")
    said = []
    verdict = rehearse(folder, data, time_limit=120, say=said.append)
    assert verdict.reasons == []
    assert verdict.accuracy == 1.0
    for line in ("from the shell", "['input', 'src', 'working']", "timed", "'shown'", "late", "'the last value'",
                 "from bash", "<Figure size 640x480 with 1 Axes>"):
        assert line in said
    assert any(line.startswith("Wall time:") for line in said)


def test_only_its_own_last_words_are_printed(tmp_path, data):
    said = []
    assert rehearse(write_notebook(tmp_path, "print('hello')"), data, time_limit=60, say=said.append).ok
    assert said[-1] == "hello" and len(said) == 2  # GOOD ends with the number of characters that it wrote


@pytest.mark.parametrize("cell, tags, reason", [
    ("1 / 0", (), "ZeroDivisionError: division by zero"),
    ("1 / 0", ("raises-exception",), "ZeroDivisionError: division by zero"),
    ("import os\nos.kill(os.getpid(), 9)", (), "the process that runs the cells has died"),
    ("import kit.pipeline", (), "No module named 'kit'"),
    ("import hypothesis", (), "imports hypothesis, which Kaggle's image is not known to have"),
    ("import urllib.request\nurllib.request.urlopen('http://example.com', timeout=5)", (),
     "needs the network: example.com"),
    *(pytest.param(cell, (), reason, marks=pytest.mark.slow) for cell, reason in (
        ("raise SystemExit('too bad')", "SystemExit: too bad"), ("import sys\nsys.exit(1)", "SystemExit: 1"),
        ("%no_such_magic", "magic"), ("if:", "SyntaxError")))])
def test_a_cell_that_fails_fails_the_notebook_for_its_own_reason(tmp_path, data, cell, tags, reason):
    folder = write_notebook(tmp_path, "print('before')", cell, tags=tags)
    verdict = rehearse(folder, data, time_limit=60)
    assert not verdict.ok
    assert any(reason in why for why in verdict.reasons), verdict.reasons


def test_what_papermill_lets_pass_passes(tmp_path, data):
    folder = write_notebook(tmp_path, "import sys\nsys.exit(0)", "1 / 0")
    path = folder / "kernel.ipynb"
    notebook = json.loads(path.read_text())
    old = {"output_type": "error", "ename": "OldError", "evalue": "of an earlier run", "traceback": []}
    notebook["cells"][-1]["outputs"] = [old]
    path.write_text(json.dumps(notebook))
    assert rehearse(folder, data, time_limit=60).reasons == []


# -- the sandbox, the limits and the kill reach ipykernel's process --------------------------------


@pytest.mark.skipif(not sandbox.unshare_command(), reason="only namespaces make this sandbox")
@pytest.mark.parametrize("cell, reason", [
    ("import os\nos.chmod(data, 0o777)\n(data / 'x').write_text('x')", "Read-only file system"),
    ("import socket\nsocket.create_connection(('198.51.100.1', 80), 5)", "needs the network: 198.51.100.1"),
    ("found = !getent hosts example.com\nassert found, 'nobody answers'", "AssertionError: nobody answers"),
    ("links = !ls /sys/class/net\nimport socket\nassert [name for _, name in socket.if_nameindex()] == ['lo']\n"
     "raise ValueError('the loopback alone')", "the loopback alone"),
    ("import os\nassert sorted(os.listdir('/kaggle')) == "
     "['input', 'src', 'working'] and os.getcwd() == '/kaggle/working'\nraise ValueError('the layout')", "the layout")])
def test_the_sandbox_holds_around_a_cell(tmp_path, data, cell, reason):
    verdict = rehearse(write_notebook(tmp_path, cell), data, time_limit=60)
    assert any(reason in why for why in verdict.reasons), verdict.reasons


def test_the_sandbox_of_python_holds_around_a_cell(tmp_path, data, monkeypatch):
    monkeypatch.setattr(sandbox, "unshare_command", tuple)
    cell = ("import socket\nfor call, address in ((socket.socket().connect, [('198.51.100.1', 80)]), "
            "(socket.getaddrinfo, ('example.com', 80))):\n    try:\n        call(*address)\n"
            "    except OSError as error:\n        print(error)\n    else:\n        raise ValueError('let through')\n"
            "import hypothesis")
    verdict = rehearse(write_notebook(tmp_path, cell), data, time_limit=60)
    for reason in ("needs the network: 198.51.100.1:80", "needs the network: example.com", "imports hypothesis"):
        assert any(reason in why for why in verdict.reasons), verdict.reasons


def test_no_credential_reaches_a_cell(tmp_path, data, monkeypatch, sandbox_kind):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "planted-secret")
    monkeypatch.setenv("JUPYTER_PATH", "/planted-secret")
    cells = "import os\nassert 'planted-secret' not in str(os.environ)", "env = !env\nassert 'planted' not in str(env)"
    assert rehearse(write_notebook(tmp_path, *cells), data, time_limit=60).reasons == []


def test_a_notebook_over_its_time_is_stopped_with_its_ipykernel(tmp_path, data, sandbox_kind, monkeypatch):
    cell = ("import subprocess, sys, time\n"
            f"sleep = [sys.executable, '-c', 'import time; time.sleep(600)', {str(tmp_path)!r}]\n"
            "child = subprocess.Popen(sleep, start_new_session=True)\nprint('there', flush=True)\ntime.sleep(600)")
    said, seen = [], []

    def say(line):
        said.append(line)
        seen.extend(ipykernels() if line == "there" else [])

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1000 * ("there" in said))
    monkeypatch.setattr(rehearsal, "time", clock)
    verdict = rehearse(write_notebook(tmp_path / "k", cell), data, time_limit=900, say=say)
    assert any("ran over its time: stopped after 900 s" in why for why in verdict.reasons)
    assert seen and not set(seen) & set(ipykernels())
    assert [pid for pid in running(str(tmp_path)) if b"time.sleep(600)" in command_line(pid)] == []


def ipykernels() -> list[str]:
    """Processes that run the cells of a rehearsal."""
    return [pid for pid in filter(str.isdigit, os.listdir("/proc")) if b"ipykernel_launcher" in command_line(pid)
            and b"setpriv" not in command_line(pid) and b"kit-rehearsal-" in command_line(pid)]


@pytest.mark.skipif(not shutil.which("setpriv"), reason="it is what ties the kernel to its rehearsal")
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["the rehearsal", "the process that runs the notebook"])
def test_a_notebook_dies_with_what_runs_it(tmp_path, data, victim, sandbox_kind):
    pid_file = tmp_path / "pid"
    cell = f"import time\nopen({str(pid_file)!r}, 'w').write('there')\ntime.sleep(600)"
    folder = write_notebook(tmp_path / "k", cell)
    code = ("from pathlib import Path; from kit.rehearsal import sandbox; "
            + ("sandbox.unshare_command = tuple; " if sandbox_kind == "python" else "")
            + "from kit.rehearsal.rehearse import rehearse; "
            f"print(rehearse(Path({str(folder)!r}), Path({str(data)!r})).reasons)")
    said = tmp_path / "said"
    with said.open("w") as output:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=output, env={
            **os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(builder.__file__).parents[2])})
    stage = str(tmp_path / rehearsal.STAGE_PREFIX)
    try:
        wait_until(pid_file.exists)
        assert any(b"ipykernel_launcher" in command_line(pid) for pid in running(stage))
        if victim != "the rehearsal":
            [runner] = [pid for pid in running(stage) if b"run_notebook.py\0" in command_line(pid)
                        and not re.search(rb"unshare|setpriv|enter", command_line(pid))]
            os.kill(int(runner), 9)
            process.wait(60)
            assert "exit code" in said.read_text()
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not list(running(stage)))


# -- notebooks that cannot be run, here or there ----------------------------------------------------------------------


@pytest.mark.parametrize("missing", [["nbclient"], ["nbclient", "ipykernel"]])
def test_the_missing_extra_is_named(tmp_path, data, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    with pytest.raises(KitError, match=" and ".join(missing)) as caught:
        rehearse(write_notebook(tmp_path), data)
    assert "bash scripts/setup.sh rehearse " in caught.value.fix
    assert rehearse(write_kernel(tmp_path / "script", GOOD), data, time_limit=60).ok  # which needs nothing of it


def test_a_kernelspec_of_another_name_is_said(tmp_path, data):
    verdict = rehearse(write_notebook(tmp_path, notebook={"kernelspec": {"name": "my-conda"}}), data, time_limit=60)
    assert verdict.ok and any("'my-conda'" in note for note in verdict.notes)


@pytest.mark.parametrize("text, message, fix", [
    (b"{", "line 1 column 2", "save it again"), (b"[]", "it has no cells", "save it again"),
    (b"{}", "it has no cells", "save it again"), (b'{"cells": 5}', "its cells are no list", "save it again"),
    (b"ab\xff", r"byte 3 \(0xff\) is not UTF-8", "as UTF-8"),
    (b'\xef\xbb\xbf{"cells": []}', "byte order mark", "without one"),
    (b'{"nbformat": 3, "worksheets": []}', "the format 3", "nbconvert"),
    (b"import os\n", "line 1", "rename it to .py")])
def test_a_notebook_that_is_none_is_named(tmp_path, data, text, message, fix):
    folder = write_notebook(tmp_path)
    (folder / "kernel.ipynb").write_bytes(text)
    with pytest.raises(KitError, match=message) as caught:
        rehearse(folder, data)
    assert "kernel.ipynb is " in caught.value.message and fix in caught.value.fix


def test_a_notebook_that_is_called_a_script_is_named(tmp_path, data):
    folder = write_notebook(tmp_path)
    path = folder / "kernel-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kernel_type": "script"}))
    with pytest.raises(KitError, match="a script, and it is a notebook"):
        rehearse(folder, data)
