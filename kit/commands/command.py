"""The parts that all commands share: `command` checks the arguments, `Result` is what it returns.

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
BANNER_STYLE = "padding:.5em .8em;background:#7c1f0e;color:#fff"


class Result(dict[str, Any]):
    """A command's numbers as a dict; a terminal prints its text, a notebook shows `_repr_html_`.

    ok: False where the answer is no (exit code 1). drawing: a picture made of characters, for the
    terminal. pictures: makes the notebook's pictures, called when the result is shown. folder: of
    the run or the submission, so that the result can be given to a command in place of its name.
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
        parts = [Markup('<p style="{}"><strong>{}</strong></p>').format(BANNER_STYLE, banner)
                 for banner in self.banners]
        if self.monospace:
            text = "\n".join(self.lines)
            parts.append(Markup('<pre style="line-height:1.2">{}</pre>').format(text))
        else:
            parts += [Markup("<p>{}</p>").format(line) for line in self.lines]
        if self.table:  # its first row holds the headings
            head = Markup("").join(Markup('<th scope="col">{}</th>').format(cell)
                                   for cell in self.table[0])
            body = Markup("").join(
                Markup("<tr>{}</tr>").format(
                    Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
                for row in self.table[1:])
            parts.append(Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>")
                         .format(head, body))
        return str(Markup("<div>{}</div>").format(Markup("\n").join([*parts, *self.pictures()])))


class StdoutProgress(PlainProgress):
    """Plain lines on stdout, since notebooks paint stderr red."""

    def say(self, text: str) -> None:
        print(text, flush=True)


def notebook_progress(quiet: bool = False) -> Progress:
    """The progress of a command that is called as a function: printed, or nothing if `quiet`."""
    return Progress() if quiet else StdoutProgress()


def command(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Decorate a command's function: arguments are checked, and an OSError becomes a KitError."""
    signature, hints = inspect.signature(function), get_type_hints(function)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Returned:
        bound = signature.bind(*arguments, **options)
        named = {name: value for name, value in bound.arguments.items()
                 if signature.parameters[name].kind is not inspect.Parameter.VAR_KEYWORD}
        bound.arguments.update(check_arguments(named, hints, f"help(kit.{function.__name__})"))
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as error:  # from a library; the kit's own reads and writes already say more
            from kit.core import os_errors

            raise os_errors.explain_os_error(error, error.filename or "a file", "use") from error

    return call


def check_arguments(given: dict[str, Any], kinds: dict[str, Any], where: str) -> dict[str, Any]:
    """The arguments, NumPy's scalars as Python's, and `~` in paths replaced by the home folder.

    KitError where a value is not of its type in `kinds`; `where`: the help that shows the types.
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
        values[name] = expand_home(value) if is_path else value
    return values


def expand_home(path: PathOrName) -> PathOrName:
    """`path` with the home folder in place of a leading `~`; shells leave `--out=~/a` as it is.

    Where there is no such user the path stays as it is, since names of files may begin so.
    """
    return type(path)(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises there


def check_suffix(path: str | Path, suffix: str, option: str) -> None:
    """KitError unless `path`, which was given with `option`, ends in `suffix`."""
    if Path(path).suffix != suffix:
        raise KitError(f"{option} {path} is no {suffix}", f"name a file that ends in {suffix}")
