"""Run a kernel in a sandbox that is as much like Kaggle as this machine permits.

With Linux namespaces the kernel sees a file system with Kaggle's folders, `/kaggle/input`
read-only, the files of Kaggle's credentials empty, and no network but the loopback. Without them
the same folders lie in a staging folder (`stage`), an environment variable tells the kit's runtime
where, and only Python's own imports and connections are refused (`guard`); `differences` lists what
is then not as on Kaggle.
"""

import contextlib
import functools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from kit.core import system
from kit.kaggle.credentials import credential_files
from kit.rehearsal import guard, image

LOG = "output.log"  # in the stage: what the kernel prints
RULES = "rules.json"  # in the stage: what Python may import there
BLOCKED = "blocked.jsonl"  # in the stage: what was refused (see `guard`)
NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
# Of this machine's variables; no credentials, no proxies, no kit on the path
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
KEPT_PREFIXES = ("CUDA", "NVIDIA", "TF_", "XLA_", "OMP_", "KERAS_")


def start(stage: Path, code: str, time_limit: float, is_rerun: bool = True) -> subprocess.Popen:
    """Start `kaggle/src/<code>`, script or notebook, in the sandbox of `stage`.

    What it prints goes to `LOG` in the stage. time_limit: in seconds, for the kit's own kernels to
    plan by. is_rerun: tell the kernel, as a code competition does, that it runs on the hidden test
    file. A notebook needs the packages of the extra `rehearse`.
    """
    unshare = unshare_command()
    root = "/kaggle" if unshare else str(stage / "kaggle")
    environment = _environment(stage, time_limit)
    if is_rerun:
        environment["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    if not unshare:
        environment["KIT_KAGGLE_ROOT"] = root
    setpriv = shutil.which("setpriv")
    die_with_parent = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    command = [*die_with_parent, sys.executable, "-u", f"{root}/src/{code}"]
    if code.endswith(".ipynb"):
        runner = stage / "run_notebook.py"
        shutil.copyfile(Path(__file__).with_name(runner.name), runner)
        command.insert(-1, str(runner))
        environment |= _jupyter(stage, die_with_parent)
    else:
        environment["MPLBACKEND"] = "Agg"  # a notebook's is ipykernel's choice
    options: dict[str, Any] = {"cwd": f"{root}/working", "env": environment}
    if unshare:  # `enter` makes the folders there, and then runs the command
        arguments = {"stage": str(stage), "command": command, "environment": environment,
                     "hidden": [str(path.resolve()) for path in credential_files()]}
        command = [*die_with_parent, *unshare, sys.executable, "-c",
                   f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
                   "from kit.rehearsal.sandbox import enter; enter(sys.argv[1])",
                   json.dumps(arguments)]
        options = {}
    with (stage / LOG).open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                stderr=subprocess.STDOUT, start_new_session=True, **options)


def unshare_command() -> tuple[str, ...]:
    """The `unshare` command that works here, or nothing where namespaces are not permitted."""
    return _try_unshare()[0]


@functools.lru_cache(maxsize=1)
def _try_unshare() -> tuple[tuple[str, ...], str]:
    """The command of `unshare_command`, and why there is none."""
    if sys.platform != "linux":
        return (), f"{sys.platform} has none"
    unshare = shutil.which("unshare")
    if not unshare or not shutil.which("mount"):
        return (), f"the program {'mount' if unshare else 'unshare'} (util-linux) is missing"
    command = (unshare, *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), *NAMESPACES)
    try:
        tried = subprocess.run([*command, "mount", "-t", "tmpfs", "kit", "/mnt"],
                               capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return (), str(error)
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        return (), (said or ["unshare fails"])[-1]
    return command, ""


def differences() -> list[str]:
    """How the sandbox on this machine differs from Kaggle, in words for the verdict's notes."""
    found = []
    if not system.PROC.is_dir():
        found.append("memory is neither measured nor limited here")
    if not unshare_command():
        is_root = getattr(os, "geteuid", lambda: 1)() == 0
        found += [
            f"there are no Linux namespaces here ({_try_unshare()[1] or 'switched off'})",
            "/kaggle does not exist here; only a kernel that reads KIT_KAGGLE_ROOT, as the kit's "
            "own do, finds its files",
            "only Python's connections are refused; other programs, such as !curl, reach the "
            "network",
            "pip is refused here, so that no kernel changes what is installed",
            "files in your home, your Kaggle credential's among them, can be read by a kernel that "
            "looks for them",
            "the input is protected by the modes of its files alone"
            + (", which do not bind root" if is_root else "")]
    return [f"not as on Kaggle: {difference}" for difference in found]


def _jupyter(stage: Path, die_with_parent: list[str]) -> dict[str, str]:
    """Define the Jupyter kernel python3 as this Python; the variables with which Jupyter finds it.

    ipykernel's process begins a session of its own; `die_with_parent` ends it with the one that
    runs the notebook.
    """
    spec = stage / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    # Its log would only warn that the connection over the loopback is not encrypted.
    command = [*die_with_parent, sys.executable, "-m", "ipykernel_launcher",
               "-f", "{connection_file}", "--log-level=40"]
    about = {"argv": command, "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(about))
    return {"JUPYTER_PATH": str(stage / "jupyter"), "JUPYTER_PLATFORM_DIRS": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def _environment(stage: Path, time_limit: float) -> dict[str, str]:
    """The kernel's environment variables: Kaggle's, this machine's paths, nothing private."""
    site, rules, installed = stage / "site", stage / RULES, stage / "installed"
    for folder in (site, stage / "home", stage / "tmp", installed):
        folder.mkdir(exist_ok=True)
    shutil.copyfile(guard.__file__, site / "sitecustomize.py")
    rules.write_text(json.dumps({"packages": image.importable(), "log": str(stage / BLOCKED),
                                 "own_folders": [f"{stage.resolve()}/", "/kaggle/"],
                                 "stdlib": sysconfig.get_path("stdlib")}), "utf-8")
    kept = {name: value for name, value in os.environ.items()
            if name in KEPT or name.startswith(KEPT_PREFIXES)}
    programs = [str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
    return kept | {"HOME": str(stage / "home"), "TMPDIR": str(stage / "tmp"),
                   "PATH": os.pathsep.join(programs),
                   "PYTHONPATH": os.pathsep.join([str(site), str(installed)]),
                   "PIP_TARGET": str(installed), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                   "PYTHONDONTWRITEBYTECODE": "1", "KIT_REHEARSAL": str(rules),
                   "KAGGLE_KERNEL_RUN_TYPE": "Batch", "KIT_TIME_LIMIT": str(time_limit)}


# -- inside the namespaces -------------------------------------------------------------------------


def enter(arguments: str) -> None:
    """Build the file system, run the command in it, and exit with its code; `arguments` are JSON.

    The command runs as a child, since process 1 of a namespace ignores signals.
    """
    given = json.loads(arguments)
    stage = Path(given["stage"])
    root = stage / "root"
    root.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "kit", str(root))
    _mount("--make-unbindable", str(root))
    for entry in sorted(Path("/").iterdir()):
        _mirror(entry, root / entry.name)
    if _make_python_read_only(root):
        rules = json.loads((stage / RULES).read_text("utf-8"))
        rules["packages"] += image.INSTALLERS
        (stage / RULES).write_text(json.dumps(rules), "utf-8")
    for secret in given["hidden"]:
        _mount("--bind", os.devnull, f"{root}{secret}")
    for name in ("input", "working", "src"):
        place = root / "kaggle" / name
        place.mkdir(parents=True)
        _mount("--bind", str(stage / "kaggle" / name), str(place))
        if name != "working":
            # Where that is not permitted, the modes of the files protect them.
            with contextlib.suppress(subprocess.CalledProcessError):
                _mount("-o", "remount,bind,ro", str(place))
    loopback_up()
    os.chroot(root)
    os.chdir("/kaggle/working")
    code = subprocess.run(given["command"], env=given["environment"]).returncode
    sys.exit(code if code >= 0 else 128 - code)


def _make_python_read_only(root: Path) -> bool:
    """Make this Python's folders read-only in the file system at `root`; whether that worked.

    Then pip may run: what a kernel installs (from wheels among its inputs, as there is no network)
    goes to a folder of the stage, and what it tries to uninstall stays.
    """
    try:
        for prefix in {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}:
            place = str(root) + str(prefix)
            _mount("--rbind", place, place)
            _mount("-o", "remount,bind,ro", place)
    except subprocess.CalledProcessError:  # as in a container whose mounts may not be changed
        return False
    return True


def _mirror(entry: Path, place: Path) -> None:
    """Bind a folder of the real root, or repeat a symlink, at `place` in the new one."""
    if entry.name in ("kaggle", "lost+found"):
        return
    if entry.is_symlink():
        place.symlink_to(entry.readlink())
    elif entry.is_dir():
        place.mkdir()
        _mount("--rbind", str(entry), str(place))


def _mount(*arguments: str) -> None:
    # `unshare_command` has looked the program up.
    subprocess.run(["mount", *arguments], check=True, capture_output=True)  # noqa: S607


def loopback_up() -> None:
    """Switch on the loopback of this network namespace: a new one has it down.

    IFF_UP | IFF_RUNNING by SIOCSIFFLAGS, see netdevice(7).
    """
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
