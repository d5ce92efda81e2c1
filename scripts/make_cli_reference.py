"""Write the CLI reference, docs/cli.md, from the code: python scripts/make_cli_reference.py

It has every command, its example and its options, made from the signatures that Typer reads, not
from `--help`, which looks different with every version and width of terminal. A test compares the
page with what this script makes.
"""

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout that this script is in, installed or not

from kit.commands.cli import app  # noqa: E402

PAGE = ROOT / "docs" / "cli.md"
EXAMPLE = "Example: "  # the second paragraph of a command's docstring
KINDS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}

HEAD = """# Commands

Made from the code by `scripts/make_cli_reference.py`; a test fails where the two differ. `kit` is
also `python -m kit`, and `kit COMMAND --help` says the same in the terminal.

Results go to stdout, progress to stderr. Exit codes: 0 done; 1 the answer is no (a submission that
is not acceptable, a rehearsal that failed); 2 an expected failure or a wrong option, as two lines
`error: …` and `fix: …`; 130 interrupted.

`kit --version` names the version and, in a git checkout, the commit. `kit --install-completion`
sets up completion for your shell; `kit --show-completion` prints it.
"""


def reference() -> str:
    """The whole page."""
    commands = dict(_commands(app, ()))
    names = {words: {name for name, *_ in _parameters(command)}
             for words, command in commands.items()}
    shared = set.intersection(*names.values())
    rows = _parameters(commands[("cv",)])
    trains = names[("cv",)] & names[("submit",)] - shared
    parts = [HEAD, "## Options of every command\n",
             _table([row for row in rows if row[0] in shared]),
             "## Options of training\n", "`kit cv` and `kit submit` take them.\n",
             _table([row for row in rows if row[0] in trains])]
    return "\n".join(parts + [_section(words, command, shared, trains)
                              for words, command in commands.items()])


def _commands(group: Any, before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Callable]]:
    """Every command with its words, in the order of the code."""
    for info in group.registered_commands:
        yield (*before, info.name or info.callback.__name__.replace("_", "-")), info.callback
    for info in group.registered_groups:
        if own := info.typer_instance.registered_callback:  # what the group's name does by itself
            yield (*before, info.name), own.callback
        yield from _commands(info.typer_instance, (*before, info.name))


def _section(words: tuple[str, ...], command: Callable, shared: set[str], trains: set[str]) -> str:
    about, *rest = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    has_example = rest and rest[0].startswith(EXAMPLE)
    run = rest.pop(0).removeprefix(EXAMPLE) if has_example else " ".join(("kit", *words))
    own = _parameters(command)
    parts = [f"## kit {' '.join(words)}\n", f"{about}\n", f"```sh\n{run}\n```\n",
             *[f"{text}\n" for text in rest]]
    if trains <= {name for name, *_ in own}:
        parts.append("Takes the [options of training](#options-of-training).\n")
        shared = shared | trains
    own = [row for row in own if row[0] not in shared]
    return "\n".join([*parts, _table(own)] if own else parts)


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = ["| option | what | default |", "|---|---|---|"]
    lines += [f"| {shown} | {about} | {default} |" for _, shown, about, default in rows]
    return "\n".join(lines) + "\n"


def _parameters(function: Callable) -> list[tuple[str, str, str, str]]:
    """A function's options as Markdown: name, how it is written, what it is, its default."""
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "context":  # Typer's own
            continue
        kind, info = typing.get_args(parameter.annotation)[:2]
        given = parameter.default is not inspect.Parameter.empty
        if type(info).__name__ == "ArgumentInfo":
            shown = f"`{name.upper()}`"
        else:
            # In Annotated[…], Typer takes the first argument for the default until it builds the
            # command.
            declared = [text for text in (info.default, *(info.param_decls or ()))
                        if str(text).startswith("--")]
            option = declared[0] if declared else f"--{name.replace('_', '-')}"
            if bool in (kind, *typing.get_args(kind)):
                shown = f"`{option}`" if declared else f"`{option}`, `--no-{option[2:]}`"
            else:
                shown = f"`{option} {info.metavar or _kind(kind)}`"
        shown_default = info.show_default if isinstance(info.show_default, str) \
            else parameter.default
        default = "**required**" if not given else _default(shown_default)
        rows.append((name, shown, re.sub(r"([|<])", r"\\\1", info.help or ""), default))
    return rows


def _kind(kind: Any) -> str:
    """What to write in its place; of `X | None`, that of X."""
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    return KINDS[kind]


def _default(value: Any) -> str:
    if value is None or value is False or value == "":
        return ""
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written")
