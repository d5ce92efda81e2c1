"""What the kit says to each bad file that the tests know: python scripts/bad_inputs.py

In go the tests' own bad files; out come the tables of docs/reliability.md between its markers. Nothing in them is
written by hand, and each row is a test's, by name.
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout that this script is in, installed or not

from kit.commands import cli
from kit.core.errors import KitError
from kit.data import archive
from kit.data.table import read_table
from kit.ensembling import submission
from tests.data import bad_files, test_archive
from tests.data.tiny import TINY, write_folder
from tests.end_to_end import test_artifacts
from tests.end_to_end.test_reliability import QUICK
from tests.ensembling import test_submission

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- bad inputs: scripts/bad_inputs.py -->\n", "<!-- end of bad inputs -->\n"
Read = Callable[[Path], list[str] | None]


def said(data: bytes, name: str, read: Read) -> str:
    """The first thing that is said to a file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            problems = read(path)
        except KitError as error:
            return error.message.replace(f"{folder}/", "")
    if not problems:
        raise AssertionError(f"nothing is said to {name}: {data[:80]!r}")
    return problems[0]


def families() -> Iterable[tuple[str, str, list[tuple[str, str]]]]:
    """Heading, the test that goes through them, and (name, what the kit says) of each bad file."""
    with tempfile.TemporaryDirectory() as folder:
        good = write_folder(Path(folder))
        files = {name: (good / name).read_bytes() for name in ("train.csv", "test.csv")}
    for cases, name, test in ((bad_files.TRAIN, "train.csv", "test_bad_training_file"),
                              (bad_files.TEST, "test.csv", "test_bad_test_file")):
        def read(path: Path, labelled: bool = name == "train.csv") -> None:
            read_table(path, TINY, labelled, cache=False)

        yield (f"`{name}`", f"tests/data/test_table.py::{test}",
               [(case, said(spoil(files[name]), name, read)) for case, (spoil, _) in cases.items()])
    wanted = tuple(test_archive.FILES)
    yield ("An archive for `kit download --from`", "tests/data/test_archive.py::test_refuses",
           [(case, said(data, "some.zip", lambda path: archive.unpack(path, wanted, (), path.parent)))
            for case, (data, _) in test_archive.REFUSED.items()])
    ids = np.asarray(test_submission.IDS)
    hand_ins = {case: spoil(test_submission.GOOD) for case, (spoil, _) in test_submission.BAD.items()}
    yield ("A submission for `kit validate`", "tests/ensembling/test_submission.py::test_says_what_is_wrong_and_where",
           [(case, said(data, "submission.csv", lambda path: submission.validate(path, test_submission.KANNADA, ids)))
            for case, data in hand_ins.items()])
    yield ("A finished run's artifact", "tests/end_to_end/test_artifacts.py::test_a_bad_artifact_is_named", artifacts())


def artifacts() -> list[tuple[str, str]]:
    """(name, what the kit says) of each damaged or forged artifact, by the command that reads it."""
    there = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run_kit("download", "--from", "sample", "--quiet")
        run_kit("cv", *QUICK, "--run", "it", "--runs-dir", "finished")
        try:
            names = test_artifacts.DAMAGED | test_artifacts.FORGED
            return [(name, said_to_artifact(Path(folder), name)) for name in names]
        finally:
            os.chdir(there)


def said_to_artifact(folder: Path, name: str) -> str:
    _, command = test_artifacts.spoil(folder, folder / "finished", name)
    try:
        return run_kit(*command).removeprefix("error: ")
    finally:
        shutil.rmtree(folder / "runs")


def run_kit(*arguments: str) -> str:
    """The last line but one of what a command says on stderr: the error, where there is one."""
    with contextlib.redirect_stderr(io.StringIO()) as err:
        cli.run(list(arguments))
    return "".join(err.getvalue().splitlines()[-2:-1])


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def table(heading: str, test: str, rows: list[tuple[str, str]]) -> str:
    """One family's part of the page."""
    return "\n".join([f"### {heading}", "", f"{len(rows)} files, in `{test}`.", "", "| the file | what the kit says |",
                      "|---|---|", *(f"| {cell(name)} | {cell(text)} |" for name, text in rows), ""])


def main() -> None:
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n".join(table(*family) for family in families())
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
