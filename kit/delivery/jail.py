"""Kaggle's walls, as far as this machine lets us build them.

In go a staged folder and a command; out comes that command, running in a file system with Kaggle's layout and without
a network. Where Linux namespaces are permitted they do it: `/kaggle/input` is a read-only mount, and the only network
is the loopback. Elsewhere the same layout lies in the staged folder, an environment variable leads the kit's runtime
there, and only Python's own connections are refused (`guard`).
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

from kit.delivery import guard

IMAGE = ("tensorflow", "jax", "keras", "pandas", "pyarrow", "numpy", "scikit-learn", "scipy", "matplotlib", "jinja2",
         "filelock", "tqdm", "rich")  # what the kit counts on in Kaggle's image
NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")  # no credentials, no proxies, no kit on the path
KEPT_PREFIXES = ("CUDA", "NVIDIA", "TF_", "XLA_", "OMP_", "KERAS_")


def start(stage: Path, code: list[str], log: Path, time_limit: float) -> subprocess.Popen:
    """Run Python with the arguments `code` in the walls around `stage`, which holds `kaggle/`; output goes to `log`."""
    walls = namespaces()
    root = "/kaggle" if walls else str(stage / "kaggle")
    environment = _environment(stage, time_limit, None if walls else root)
    leash = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []  # it dies with us
    command = [*leash, sys.executable, "-u", *code]
    with log.open("wb") as output:
        if not walls:
            return subprocess.Popen(command, cwd=f"{root}/working", env=environment, stdin=subprocess.DEVNULL,
                                    stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        plan = {"stage": str(stage), "command": command, "environment": environment}
        entry = [*leash, *walls, sys.executable, "-c",
                 f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
                 "from kit.delivery.jail import enter; enter(sys.argv[1])", json.dumps(plan)]
        return subprocess.Popen(entry, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                start_new_session=True)


@functools.lru_cache(maxsize=1)
def namespaces() -> tuple[str, ...]:
    """The `unshare` command that works here, or nothing where namespaces are not permitted."""
    unshare = shutil.which("unshare")
    if not unshare or not shutil.which("mount"):
        return ()
    command = (unshare, *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), *NAMESPACES)
    try:
        tried = subprocess.run([*command, "mount", "-t", "tmpfs", "kit", "/mnt"], capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ()
    return command if tried.returncode == 0 else ()


def _environment(stage: Path, time_limit: float, root: str | None) -> dict[str, str]:
    """What the kernel's processes see of the environment: Kaggle's variables, this machine's paths, nothing private."""
    site, rules = stage / "site", stage / "rules.json"
    site.mkdir(exist_ok=True)
    shutil.copyfile(guard.__file__, site / "sitecustomize.py")
    rules.write_text(json.dumps({"packages": image_packages(), "log": str(stage / "blocked.jsonl"),
                                 "own_folders": [f"{stage.resolve()}/", "/kaggle/"],
                                 "stdlib": sysconfig.get_path("stdlib")}), "utf-8")
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    for folder in ("home", "tmp"):
        (stage / folder).mkdir(exist_ok=True)
    return kept | {"HOME": str(stage / "home"), "TMPDIR": str(stage / "tmp"), "MPLBACKEND": "Agg",
                   "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "KIT_REHEARSAL": str(rules),
                   "KAGGLE_KERNEL_RUN_TYPE": "Batch", "KIT_TIME_LIMIT": str(time_limit),
                   **({"KIT_KAGGLE_ROOT": root} if root else {})}


@functools.lru_cache(maxsize=1)
def image_packages() -> list[str]:
    """Top-level names that Kaggle's image would let a kernel import: the image's packages and all they need."""
    wanted, names = list(IMAGE), set()
    for package in wanted:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for requirement in importlib.metadata.requires(package) or ():
                name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
                if "extra ==" not in requirement and _norm(name) not in map(_norm, wanted):
                    wanted.append(name)
    known = set(map(_norm, wanted))
    for module, packages in importlib.metadata.packages_distributions().items():
        if known & set(map(_norm, packages)):
            names.add(module)
    return sorted(names - {"kit"})


def _norm(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# -- inside the namespaces ------------------------------------------------------------------------------------------


def enter(plan: str) -> None:
    """Build the walls, run the command in them as a child (process 1 ignores signals), and exit as it did."""
    wish = json.loads(plan)
    stage = Path(wish["stage"])
    root = stage / "root"
    root.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "kit", str(root))
    _mount("--make-unbindable", str(root))
    for entry in sorted(Path("/").iterdir()):
        _mirror(entry, root / entry.name)
    for name, options in (("input", "remount,bind,ro"), ("working", ""), ("src", "remount,bind,ro")):
        place = root / "kaggle" / name
        place.mkdir(parents=True)
        _mount("--bind", str(stage / "kaggle" / name), str(place))
        if options:
            with contextlib.suppress(subprocess.CalledProcessError):  # the files are read-only as well
                _mount("-o", options, str(place))
    loopback_up()
    os.chroot(root)
    os.chdir("/kaggle/working")
    code = subprocess.run(wish["command"], env=wish["environment"]).returncode
    sys.exit(code if code >= 0 else 128 - code)


def _mirror(entry: Path, place: Path) -> None:
    if entry.name in ("kaggle", "lost+found"):
        return
    if entry.is_symlink():
        place.symlink_to(entry.readlink())
    elif entry.is_dir():
        place.mkdir()
        _mount("--rbind", str(entry), str(place))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)  # noqa: S607  looked up by `namespaces`


def loopback_up() -> None:
    """A new network namespace has a loopback that is down: set IFF_UP | IFF_RUNNING with SIOCSIFFLAGS, netdevice(7)."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
