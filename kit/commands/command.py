"""What every command is made of: `command` checks its arguments, `Result` is what it returns.

`import kit.commands.command` loads neither NumPy nor the rooms, so that `kit --help` stays quick.
"""

import functools
import inspect
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from markupsafe import Markup

from kit.core.config import EXAMPLES, KINDS, suggest_value, unwrap_optional
from kit.core.errors import KitError
from kit.core.progress import PlainProgress, Progress

PathOrName = TypeVar("PathOrName", str, Path)
Returned = TypeVar("Returned")
BANNER = "padding:.5em .8em;background:#7c1f0e;color:#fff"


class Result(dict[str, Any]):
    """A command's numbers as a dict; a terminal prints its text, a notebook shows `_repr_html_`.

    `ok` is False where the answer is no (exit code 1). `drawing`: a picture made of characters, for
    the terminal; `pictures` makes the notebook's, when they are shown. `folder`: of the run or the
    submission, so that the result can be given to a command in place of its name.
    """

    def __init__(self, numbers: dict[str, Any], lines: Sequence[str], *, ok: bool = True,
                 banners: Sequence[str] = (), table: Sequence[Sequence[str]] = (),
                 pictures: Callable[[], Sequence[Markup]] = list, folder: Path | None = None,
                 monospace: bool = False, drawing: str = "") -> None:
        super().__init__(numbers)
        self.lines, self.banners, self.table = list(lines), list(banners), list(table)
        self.exit_code = 0 if ok else 1
        self.pictures, self.folder = pictures, folder
        self.monospace, self.drawing = monospace, drawing

    def __repr__(self) -> str:
        return "\n".join([*self.banners, *[self.drawing] * bool(self.drawing), *self.lines])

    __str__ = __repr__

    def to_json(self) -> str:
        return json.dumps(self, default=str, ensure_ascii=False)

    def _repr_html_(self) -> str:
        parts = [Markup('<p style="{}"><strong>{}</strong></p>').format(BANNER, banner)
                 for banner in self.banners]
        if self.monospace:
            text = "\n".join(self.lines)
            parts.append(Markup('<pre style="line-height:1.2">{}</pre>').format(text))
        else:
            parts += [Markup("<p>{}</p>").format(line) for line in self.lines]
        return str(Markup("<div>{}</div>").format(
            Markup("\n").join([*parts, _table(self.table), *self.pictures()])))


def _table(rows: Sequence[Sequence[str]]) -> Markup:
    """Rows of text as an HTML table, the first one its headings."""
    if not rows:
        return Markup("")
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(cell) for cell in rows[0])
    body = Markup("").join(Markup("<tr>{}</tr>").format(
        Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row)) for row in rows[1:])
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)


class StdoutProgress(PlainProgress):
    """Plain lines on stdout, since notebooks paint stderr red."""

    def say(self, text: str) -> None:
        print(text, flush=True)


def notebook_progress(quiet: bool = False) -> Progress:
    """What a command reports to where it is called as a function."""
    return Progress() if quiet else StdoutProgress()


def command(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Check the arguments of a command; what the operating system refuses is a KitError, too."""
    signature, hints = inspect.signature(function), get_type_hints(function)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Returned:
        bound = signature.bind(*arguments, **options)
        named = {name: value for name, value in bound.arguments.items()
                 if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD}
        bound.arguments.update(checked(named, hints, f"help(kit.{function.__name__})"))
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:  # from a library; the kit's own reads and writes already say more
            from kit.core import storage

            raise storage.explain_os_error(error, error.filename or "a file", "use") from error

    return call


def checked(given: dict[str, Any], kinds: dict[str, Any], where: str) -> dict[str, Any]:
    """Arguments by name, with NumPy's scalars as Python's and the home folder for `~` in paths.

    KitError where a value is not of its kind; `where` says what kinds there are.
    """
    import numpy as np

    values = {}
    for name, value in given.items():
        if isinstance(value, np.generic):
            value = value.item()
        if not isinstance(value, kinds[name]):
            if unwrap_optional(kinds[name]) is int:
                raise KitError(f"{name}={value!r:.60} is not {KINDS[int]}",
                               f"write {name}={suggest_value(value, int, EXAMPLES.get(name, 5))!r}")
            raise KitError(f"{name}={value!r:.60} is of the wrong kind",
                           f"give {getattr(kinds[name], '__name__', kinds[name])}: {where}")
        is_path = isinstance(value, str | Path) and Path in get_args(kinds[name])
        values[name] = expanded(value) if is_path else value
    return values


def expanded(path: PathOrName) -> PathOrName:
    """`path` with the home folder for a leading `~`; a shell leaves it as it is in `--out=~/a`.

    Where there is no such user the path stays as it is, since names of files may begin so.
    """
    return type(path)(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises there
