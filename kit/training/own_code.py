"""Code of the user's own, named as FILE.py:NAME: found, run, and blamed where it goes wrong.

The text of the file travels in the run's config (`RunConfig.code`), so that worker processes, the
nodes of a cluster, kernels and `kit predict` run what the run began with, whatever became of the
file. What is wrong with it is a KitError with its file and line.
"""

import ast
import contextlib
import difflib
import functools
import hashlib
import linecache
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kit.core import backend, os_errors
from kit.core.errors import KitError

LONGEST = 100  # characters of a file's and a function's name together: they name a folder
SHOWN = 300  # characters of an exception's message


def is_own(spec: str) -> bool:
    """Whether `spec`, one of the words after --model, means a file rather than a name."""
    return ":" in spec or spec.endswith(".py") or "/" in spec or "\\" in spec


def open_code(spec: str, option: str) -> tuple[str, str, str]:
    """The file of `spec` (FILE.py:NAME, given with `option`), the NAME, and the file's text.

    The file is as a path from here where it lies below this folder, else its name alone: it is
    shown in reports. KitError where it cannot be read, or cannot travel.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or not name.isidentifier():
        file = spec.rstrip(":")
        names = list(_defined(_read(Path(file), option))) if file.endswith(".py") else []
        file, names = file if names else "FILE.py", names or ["NAME"]
        raise KitError(f"{option} {spec} does not say what to take from the file",
                       "add its name: " + " or ".join(f"{option} {file}:{each}" for each in names))
    if not file.endswith(".py"):
        raise KitError(f"{option} {spec}: {file!r} is no file of Python's",
                       f"name a .py file: {option} {file}.py:{name}")
    path = Path(file).expanduser()
    text = _read(path, option)
    stem = path.stem
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", stem) or not name.isascii() \
            or len(stem) + len(name) > LONGEST:
        raise KitError(f"{option} {spec} cannot name a folder on every system",
                       f"name file and function by a–z, 0–9 and _, {LONGEST} characters at most, "
                       "such as my_model.py:build")
    with contextlib.suppress(ValueError):
        path = path.resolve().relative_to(Path.cwd())
    return path.name if path.is_absolute() or ".." in path.parts else path.as_posix(), name, text


def _read(path: Path, option: str) -> str:
    """The text of the user's file. KitError where it is none, or needs a file beside it."""
    if path.is_dir():
        raise KitError(f"{option} {path} is a folder", f"name a file in it: {path}/my_model.py")
    if not path.exists():
        folder = path.parent
        there = sorted(each.stem for each in folder.glob("*.py")) if folder.is_dir() else []
        near = difflib.get_close_matches(path.stem, there, 1)
        raise KitError(f"{option}: there is no file {path}",
                       f"did you mean {folder / near[0]}.py?" if near
                       else f"give its path from here, which is {Path.cwd()}")
    with os_errors.disk_errors(path, "read"):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise KitError(f"{path}, line {line}: byte {error.start + 1} is not UTF-8",
                       "save it again as UTF-8") from error
    for node in ast.walk(_parse(path.as_posix(), text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            beside = [path.parent / f"{top}.py", path.parent / top / "__init__.py"]
            if not top or (any(map(Path.is_file, beside)) and top != "kit"):
                raise KitError(f"{path}, line {node.lineno}: it imports {name}, which lies beside "
                               "it and would not be there on Kaggle",
                               f"put what it needs of {name} into {path.name} itself")
    return text


def _parse(file: str, text: str) -> ast.Module:
    """KitError with line and column where the text is no Python."""
    try:
        return ast.parse(text, file)
    except (SyntaxError, ValueError, RecursionError) as error:
        if not isinstance(error, SyntaxError) or error.lineno is None:  # a null byte, say
            raise KitError(f"{file} is no Python: {error}", "open it in an editor") from error
        shown = (error.text or "").strip()
        raise KitError(f"{file}, line {error.lineno}, column {error.offset}: {error.msg}",
                       f"correct it there: {shown}" if shown else "correct it there") from error


def _defined(text: str) -> Iterator[str]:
    """The functions and values that a file defines at its top level, but those with a leading _."""
    for node in ast.parse(text).body:
        names = [node.name] if isinstance(node, ast.FunctionDef) else \
            [target.id for target in node.targets if isinstance(target, ast.Name)] \
            if isinstance(node, ast.Assign) else []
        yield from (name for name in names if not name.startswith("_"))


def find(file: str, text: str, name: str) -> Any:
    """What the file calls `name`. KitError where there is no such thing, or the file fails."""
    module = _load(file, text)
    if not hasattr(module, name):
        there = list(_defined(text))
        near = difflib.get_close_matches(name, there, 1, 0.5)
        raise KitError(f"{file} has no {name!r}", f"did you mean {file}:{near[0]}?" if near else
                       f"it has {', '.join(there)}" if there else f"write one: def {name}():")
    return getattr(module, name)


@functools.lru_cache(maxsize=64)
def _load(file: str, text: str) -> types.ModuleType:
    """The file as a module, run once in a process. KitError where that fails, with file and line.

    The module is not imported by its name: in one process there may be two versions of a file.
    """
    backend.load()  # before the file imports Keras, or it would be loaded without the kit's care
    tree = _parse(file, text)
    name = f"own_{Path(file).stem}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    module = types.ModuleType(name)
    module.__file__ = file
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    sys.modules[name] = module  # where pickle, dataclasses and Keras look for it
    try:
        with blame(file), contextlib.redirect_stdout(sys.stderr):  # stdout is for the result
            compiled = compile(tree, file, "exec", dont_inherit=True)
            # The user asked for this file to be run.
            exec(compiled, module.__dict__)  # noqa: S102 # nosec B102
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def blame(file: str, about: str = "", fix: str = "correct it there") -> Iterator[None]:
    """What the block raises is a KitError that names the line of the user's `file`.

    about: what went wrong, where no line of the file took part.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        line, trace = 0, error.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename == file:
                line = trace.tb_lineno
            trace = trace.tb_next
        where = f"{file}, line {line}" if line else about or file
        if isinstance(error, KitError):
            if not line or error.message.startswith(file):
                raise
            raise KitError(f"{where}: {error.message}", error.fix) from error
        # Keras says in colours where it was, which is said already, and what it was given.
        words = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))
        words = re.sub(r"^Exception encountered when calling [\w.]+\(\)\. ", "", words)
        words = words.partition(" Arguments received by ")[0]
        words = f"{words[:SHOWN]} …" if len(words) > SHOWN else words
        if isinstance(error, ModuleNotFoundError):
            fix = "install it, if Kaggle's image has it too; otherwise do without it"
        raise KitError(f"{where}: {type(error).__name__}: {words}", fix) from error


def text_of(code: Mapping[str, str], file: str) -> tuple[str, str]:
    """The file of that name, in whatever folder, and its text, among a run's `code`. KitError."""
    name = Path(file).name
    for path, text in code.items():
        if Path(path).name == name:
            return path, text
    raise KitError(f"the run's config does not hold {name}, which it was made with",
                   "put the original config.json back, or start a new run with --run")
